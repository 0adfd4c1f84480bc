//! The last hour, minute by minute, and the last events: for the page of the admin listener.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use time::OffsetDateTime;

use super::{OTHER, lock};

/// Minutes that are kept.
pub const MINUTES: usize = 60;

/// Events that are kept.
const MOST_EVENTS: usize = 50;

/// Pairs of upstream and code that are told apart within a minute.
const MOST_PAIRS: usize = 256;

/// A refusal.
#[derive(Clone, Debug)]
pub struct Event {
    pub time: OffsetDateTime,
    /// The id of its audit event.
    pub id: String,
    /// The class, as in docs/failures.md.
    pub code: &'static str,
    pub outcome: Outcome,
    /// `host:port` of the upstream, or what was asked for; may be empty. Escaped.
    pub target: String,
    pub client: String,
    /// The name of the listener.
    pub listener: Arc<str>,
    /// A sentence for people. Escaped.
    pub message: String,
}

/// What became of a request or a connection whose peer, or which itself, was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Refused,
    /// It was served all the same: report-only.
    Bypassed,
}

impl Outcome {
    /// The word for it, as in audit events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Bypassed => "bypassed",
        }
    }
}

/// The last hour.
#[derive(Debug, Default)]
pub struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// In the order of time.
    minutes: VecDeque<Minute>,
    events: VecDeque<Event>,
}

#[derive(Debug)]
struct Minute {
    /// Minutes since 1970.
    number: i64,
    handshakes: u64,
    /// By the upstream's label and the code.
    refusals: BTreeMap<(Arc<str>, &'static str), u64>,
}

impl Kept {
    fn minute(&mut self, at: OffsetDateTime) -> Option<&mut Minute> {
        let number = number(at);
        // A clock that was set back counts in the last minute there is.
        if self.minutes.back().is_none_or(|last| last.number < number) {
            while self.minutes.front().is_some_and(|first| first.number <= number - MINUTES as i64) {
                self.minutes.pop_front();
            }
            self.minutes.push_back(Minute { number, handshakes: 0, refusals: BTreeMap::new() });
        }
        self.minutes.back_mut()
    }

    fn push(&mut self, event: Event) {
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_back();
        }
        self.events.push_front(event);
    }
}

fn number(at: OffsetDateTime) -> i64 {
    at.unix_timestamp().div_euclid(60)
}

/// The last hour, as it is shown.
#[derive(Clone, Debug)]
pub struct LastHour {
    /// Completed handshakes in each minute; the last is the current one.
    pub handshakes: [u64; MINUTES],
    /// Refusals in each minute.
    pub refusals: [u64; MINUTES],
    /// Refusals by the upstream's label and the code.
    pub by_upstream: BTreeMap<(Arc<str>, &'static str), u64>,
    /// The last events, the newest first.
    pub events: Vec<Event>,
}

impl History {
    /// A handshake was completed.
    pub(super) fn handshake(&self, at: OffsetDateTime) {
        if let Some(minute) = lock(&self.0).minute(at) {
            minute.handshakes += 1;
        }
    }

    /// A request or a connection was refused.
    pub(super) fn refused(&self, upstream: &Arc<str>, event: Event) {
        let mut kept = lock(&self.0);
        if let Some(minute) = kept.minute(event.time) {
            let pair = (upstream.clone(), event.code);
            let is_known = minute.refusals.len() < MOST_PAIRS || minute.refusals.contains_key(&pair);
            *minute.refusals.entry(if is_known { pair } else { (OTHER.into(), OTHER) }).or_default() += 1;
        }
        kept.push(event);
    }

    /// Keeps an event that is not a refusal.
    pub fn note(&self, event: Event) {
        lock(&self.0).push(event);
    }

    /// The hour before `now`.
    pub fn last_hour(&self, now: OffsetDateTime) -> LastHour {
        let kept = lock(&self.0);
        let mut hour = LastHour {
            handshakes: [0; MINUTES],
            refusals: [0; MINUTES],
            by_upstream: BTreeMap::new(),
            events: kept.events.iter().cloned().collect(),
        };
        for minute in &kept.minutes {
            let age = usize::try_from((number(now) - minute.number).max(0)).unwrap_or(MINUTES);
            let Some(place) = (MINUTES - 1).checked_sub(age) else { continue };
            hour.handshakes[place] += minute.handshakes;
            for (pair, count) in &minute.refusals {
                hour.refusals[place] += count;
                *hour.by_upstream.entry(pair.clone()).or_default() += count;
            }
        }
        hour
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00:30 UTC);

    fn event(time: OffsetDateTime, id: usize) -> Event {
        let (client, message, target) = ("127.0.0.1:1".to_owned(), "it has expired".to_owned(), "a:443".to_owned());
        Event {
            time,
            id: id.to_string(),
            code: "expired",
            outcome: Outcome::Refused,
            target,
            client,
            listener: "a".into(),
            message,
        }
    }

    #[test]
    fn an_hour_is_kept_minute_by_minute() {
        let history = History::default();
        for minutes in [61, 59, 1, 0, 0] {
            let at = NOW - Duration::minutes(minutes);
            history.handshake(at);
            history.refused(&"a:443".into(), event(at, 0));
        }
        let hour = history.last_hour(NOW);
        assert_eq!((hour.handshakes[0], hour.handshakes[58], hour.handshakes[59]), (1, 1, 2));
        assert_eq!(hour.refusals.iter().sum::<u64>(), 4);
        assert_eq!(hour.by_upstream[&("a:443".into(), "expired")], 4);
        assert!(history.last_hour(NOW + Duration::hours(2)).by_upstream.is_empty());
    }

    #[test]
    fn what_clients_choose_is_bounded() {
        let history = History::default();
        for number in 0..1000 {
            history.refused(&number.to_string().into(), event(NOW, number));
        }
        let hour = history.last_hour(NOW);
        assert_eq!(hour.by_upstream.len(), MOST_PAIRS + 1);
        assert_eq!((hour.events.len(), &*hour.events[0].id), (MOST_EVENTS, "999"));
    }
}
