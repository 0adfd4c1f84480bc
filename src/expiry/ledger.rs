//! Who was told of what: each thing is told of once a day, whatever the clock and the servers do.

use std::collections::BTreeMap;

use time::{Date, OffsetDateTime};

use super::{Expiry, ExpiryKind};

/// What was told of, by kind and name.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<(ExpiryKind, String), Told>);

/// What was told of one thing.
#[derive(Debug, Default)]
struct Told {
    /// The day of the last warning, UTC, and the ends that it was about: those of one server may alternate.
    warned: Option<(Date, Vec<OffsetDateTime>)>,
    /// The end that was seen coming, and was not told to have passed.
    coming: Option<OffsetDateTime>,
}

/// A server that shows a new certificate at each handshake is told of this often a day.
const MOST_ENDS: usize = 4;

impl Ledger {
    /// Those of which people are to be told now. Of what had expired when it was seen first, nothing is told here: it is
    /// refused or reported as it is.
    pub(super) fn due(&mut self, all: Vec<Expiry>, now: OffsetDateTime) -> Vec<Expiry> {
        let key = |expiry: &Expiry| (expiry.kind, expiry.name.clone());
        let mut before = std::mem::take(&mut self.0);
        let mut due = Vec::new();
        for expiry in all {
            // Two files may have the same name in different sections; they are the same.
            let key = key(&expiry);
            let known = before.remove(&key).or_else(|| self.0.remove(&key));
            let mut told = known.unwrap_or_default();
            if told.is_due(&expiry, now) {
                due.push(expiry);
            }
            self.0.insert(key, told);
        }
        due
    }
}

impl Told {
    fn is_due(&mut self, expiry: &Expiry, now: OffsetDateTime) -> bool {
        if expiry.is_over(now) {
            return self.coming.take_if(|coming| *coming == expiry.at).is_some();
        }
        self.coming = Some(expiry.at);
        if !expiry.is_soon(now) {
            return false;
        }
        let today = now.date();
        match &mut self.warned {
            // A clock that is set back over midnight does not make two days of one.
            Some((day, ends)) if *day == today || Some(*day) == today.next_day() => {
                let is_new = !ends.contains(&expiry.at) && ends.len() < MOST_ENDS;
                if is_new {
                    ends.push(expiry.at);
                }
                is_new
            }
            warned => {
                *warned = Some((today, vec![expiry.at]));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    const START: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    fn ends(name: &str, at: OffsetDateTime) -> Expiry {
        Expiry {
            kind: ExpiryKind::UpstreamCertificate,
            name: name.into(),
            what: name.into(),
            at,
            soon: super::super::SOON,
        }
    }

    /// Of how many people are told at each of these times, in hours from the start.
    fn told(end: OffsetDateTime, hours: &[i64]) -> Vec<usize> {
        let mut ledger = Ledger::default();
        let due = |hours: &i64| ledger.due(vec![ends("a", end)], START + Duration::hours(*hours)).len();
        hours.iter().map(due).collect()
    }

    #[test]
    fn a_warning_a_day_from_the_thirtieth_on_and_one_at_the_end() {
        let end = START + Duration::days(31);
        assert_eq!(told(end, &[0, 12, 24]), [0, 0, 0], "30 days and more");
        assert_eq!(told(end, &[25, 26, 35, 36, 37, 60]), [1, 0, 0, 1, 0, 1]);
        let end = START + Duration::hours(30);
        assert_eq!(told(end, &[0, 29, 30, 31, 60]), [1, 1, 1, 0, 0], "its end is told once");
        assert_eq!(told(end, &[30, 31]), [0, 0], "what had expired before is told by its refusals");
    }

    #[test]
    fn a_clock_that_jumps_makes_neither_a_flood_nor_a_gap() {
        let end = START + Duration::days(20);
        // Over midnight and back, and over again.
        assert_eq!(told(end, &[0, 12, 11, 13, 11]), [1, 1, 0, 0, 0]);
        // Ten days ahead, and back for good.
        assert_eq!(told(end, &[0, 240, 241, 0, 1, 24]), [1, 1, 0, 1, 0, 1]);
    }

    #[test]
    fn servers_that_alternate_are_told_of_once_a_day_each() {
        let mut ledger = Ledger::default();
        let mut due = |days: i64, hour: i64| {
            ledger.due(vec![ends("a", START + Duration::days(days))], START + Duration::hours(hour)).len()
        };
        assert_eq!([due(5, 0), due(6, 0), due(5, 1), due(6, 1)], [1, 1, 0, 0]);
        assert_eq!([due(5, 24), due(6, 24), due(5, 25)], [1, 1, 0]);
        let many: usize = (7..20).map(|days| due(days, 26)).sum();
        assert_eq!(many, 2, "no more than {MOST_ENDS} a day");
    }

    #[test]
    fn one_that_was_renewed_is_told_of_when_its_own_time_comes() {
        let mut ledger = Ledger::default();
        let mut due = |end: i64, now: i64| {
            ledger.due(vec![ends("a", START + Duration::days(end))], START + Duration::days(now)).len()
        };
        assert_eq!([due(5, 0), due(95, 1), due(95, 5), due(95, 66)], [1, 0, 0, 1]);
    }
}
