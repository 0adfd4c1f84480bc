//! How often each of some names came, in bounded memory.

use std::collections::HashMap;

use super::kept;

/// How many names a tally tells apart.
const MOST_NAMES: usize = 1_000;

/// How often each of some names came.
#[derive(Clone, Debug, Default)]
pub struct NameTally {
    counts: HashMap<Box<str>, u64>,
    /// There were more names than are told apart.
    more: bool,
}

impl NameTally {
    pub(super) fn add(&mut self, name: &str, count: u64, room: &mut usize) {
        let name = kept(name);
        if let Some(known) = self.counts.get_mut(&name) {
            *known = known.saturating_add(count);
        } else if self.counts.len() < MOST_NAMES && *room > 0 {
            *room -= 1;
            self.counts.insert(name, count);
        } else {
            self.more = true;
        }
    }

    /// How many names are told apart, and whether there were more.
    pub fn distinct(&self) -> (usize, bool) {
        (self.counts.len(), self.more)
    }

    /// The names, the most frequent first.
    pub fn by_count(&self) -> Vec<(&str, u64)> {
        let mut names: Vec<_> = self.counts.iter().map(|(name, count)| (&**name, *count)).collect();
        names.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        names
    }

    /// The names in their order.
    pub fn by_name(&self) -> Vec<(&str, u64)> {
        let mut names = self.by_count();
        names.sort_unstable();
        names
    }
}

/// What the events of a group have to do with.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// Addresses of clients.
    pub clients: NameTally,
    /// Listeners.
    pub listeners: NameTally,
    /// Paths of requests.
    pub paths: NameTally,
    /// Days, UTC.
    pub days: NameTally,
    /// Upstreams, or what was asked for.
    pub upstreams: NameTally,
    /// Classes.
    pub codes: NameTally,
    /// Classes of what else is wrong.
    pub findings: NameTally,
    /// Chains, by the names of their files.
    pub chains: NameTally,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_bounded() {
        let (mut tally, mut room) = (NameTally::default(), 5);
        (0..10).for_each(|n| tally.add(&n.to_string(), n, &mut room));
        assert_eq!((tally.distinct(), room), ((5, true), 0));
    }
}
