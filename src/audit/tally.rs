//! How many requests did not get the upstream's whole response, and why, for whoever sums up at the end of a process.
//!
//! Only requests that end so are counted, so no other waits for the lock.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::text::escape_within;

/// How a request ended, if not by the upstream's whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BadEnd {
    /// It was refused: a decision.
    Refused,
    /// It failed on the way, or was itself wrong.
    Failed,
    /// The response was cut.
    Cut,
}

/// Counts by end, class and destination.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<TallyKey, u64>>);

/// The end, the class of docs/failures.md, and the destination as `host:port`.
pub type TallyKey = (BadEnd, &'static str, String);

/// Destinations beyond this many are counted together: clients choose them.
const MOST: usize = 64;

impl Tally {
    /// Counts a request. `destination` may be empty where none is known.
    pub fn count(&self, end: BadEnd, class: &'static str, destination: &str) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (end, class, escape_within(destination, 260));
        let key = if counts.len() < MOST || counts.contains_key(&key) { key } else { (end, class, OTHERS.to_owned()) };
        *counts.entry(key).or_default() += 1;
    }

    /// The counts so far.
    pub fn counts(&self) -> BTreeMap<TallyKey, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

const OTHERS: &str = "others";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_that_clients_choose_are_bounded() {
        let tally = Tally::default();
        for number in 0..1000 {
            tally.count(BadEnd::Refused, "destination_denied", &format!("{number}.example:443"));
        }
        tally.count(BadEnd::Refused, "destination_denied", "0.example:443");
        let counts = tally.counts();
        assert_eq!(counts.len(), MOST + 1);
        assert_eq!(counts[&(BadEnd::Refused, "destination_denied", OTHERS.to_owned())], 1000 - MOST as u64);
        assert_eq!(counts[&(BadEnd::Refused, "destination_denied", "0.example:443".to_owned())], 2);
    }
}
