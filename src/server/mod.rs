//! The doors inward: listeners, and the connections of clients.

pub mod client;
pub mod connection;
pub mod listener;
