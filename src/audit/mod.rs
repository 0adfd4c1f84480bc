//! What is recorded about refusals, for auditors, and about what will lead to them; and what many events say together.

pub mod chains;
pub mod entry;
pub mod event;
pub mod file;
pub mod fold;
mod log;
pub mod notice;
pub mod read;
pub mod report;
pub mod sink;
pub mod summary;
pub mod tally;
pub mod text;
pub mod timeline;
pub mod usage;
