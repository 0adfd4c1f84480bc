//! What is recorded about refusals, for auditors; and what many events say together.

pub mod blocks;
pub mod chains;
pub mod entry;
pub mod event;
pub mod file;
pub mod fold;
mod log;
pub mod report;
pub mod sink;
pub mod summary;
pub mod survey;
mod text;
pub mod usage;
