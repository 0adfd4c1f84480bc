//! What is remembered about refusals: one event per refused handshake, for auditors.

pub mod event;
pub mod sink;
