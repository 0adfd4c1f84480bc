//! What is remembered about refusals: one event per refused handshake, for auditors.

pub mod chains;
pub mod event;
pub mod fold;
pub mod sink;
