//! vouchsafe: plain HTTP in, verified TLS out, every refusal recorded.
pub mod app;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connect;
pub mod demo;
pub mod logging;
pub mod message;
pub mod proxy;
pub mod route;
pub mod server;
pub mod tls;
