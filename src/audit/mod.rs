//! What is remembered about refusals: one event per refused handshake, for auditors; and what many of
//! them say together.

pub mod blocks;
pub mod chains;
pub mod entry;
pub mod event;
pub mod fold;
pub mod report;
pub mod sink;
pub mod summary;
pub mod survey;
