//! From arguments, variables and file to valid settings: whole, or not at all.

pub mod args;
pub mod contents;
pub mod environment;
pub mod error;
pub mod file;
pub mod foreign;
pub mod load;
pub mod merge;
pub mod mirror;
pub mod paths;
pub mod settings;
pub mod show;
pub mod suggest;
pub mod watch;
