//! Listeners, and the connections of clients.

pub mod activation;
mod first_bytes;
pub mod health;
mod hello;
pub mod limiter;
pub mod listener;
mod original;
pub mod session;
pub mod socket;
mod tls;

use std::time::Duration;

/// Signals to stop within this time are one: `timeout`, `tini -g` and shells signal the process and its group, and so send
/// two.
pub const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// How far the end of the process has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// It serves.
    #[default]
    No,
    /// What is under way is finished; nothing new is accepted.
    Drain,
    /// What is still under way is reset, so that nothing cut looks whole.
    Now,
}
