//! The doors inward: listeners, and the connections of clients.

pub mod client;
pub mod connection;
pub mod listener;
pub mod places;

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Serving.
    #[default]
    No,
    /// What runs is finished; nothing new is taken.
    Drain,
    /// What still runs is reset, so that nothing cut looks whole.
    Now,
}
