//! What the operator said, turned into what the program may rely on: whole, or not at all.

pub mod args;
pub mod contents;
pub mod error;
pub mod load;
pub mod paths;
pub mod settings;
pub mod watch;
