//! What is counted and observed while requests are served. The admin listener and the warnings about expiry read it.
//!
//! Workers resolve their counters once for each listener and upstream, and only add to them afterwards: no lock and no
//! look-up for a request that succeeds. Failures and handshakes take short locks.

mod counters;
pub mod expose;
pub mod facts;
pub mod history;
pub mod observed;
mod process;
mod writer;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use time::OffsetDateTime;

use crate::clock::Clock;

use self::{
    counters::{Counter, Histogram},
    facts::Facts,
    history::{Event, History},
    observed::Observations,
};

pub use self::counters::{
    AuditCounters, Connections, EndedRequest, ListenerMetrics, MadeBy, OpenConnection, UpstreamHandle, UpstreamMetrics,
};

/// Upstreams beyond this many are counted together, as [`OTHER`].
pub const MOST_LABELS: usize = 200;

/// The label of upstreams beyond [`MOST_LABELS`].
pub const OTHER: &str = "other";

/// The label where a request ended before an upstream was chosen.
pub const NONE: &str = "none";

/// Everything that is counted and observed in a process.
#[derive(Debug)]
pub struct Metrics {
    clock: Clock,
    /// When the process began to serve.
    started: OffsetDateTime,
    listeners: Mutex<BTreeMap<Arc<str>, Arc<ListenerMetrics>>>,
    upstreams: Mutex<BTreeMap<Arc<str>, Arc<UpstreamMetrics>>>,
    label_overflow: Counter,
    handshake_duration: Histogram,
    audit: Arc<AuditCounters>,
    reloads: Mutex<Reloads>,
    facts: Mutex<Arc<Facts>>,
    /// What the last attempts to connect to upstreams showed.
    pub observed: Observations,
    /// The last hour.
    pub history: History,
}

/// How reloading has gone.
#[derive(Clone, Debug)]
pub struct Reloads {
    pub succeeded: u64,
    pub failed: u64,
    /// When settings were replaced last, or first loaded.
    pub last_success: OffsetDateTime,
    /// The last attempt, if it failed: when, and why.
    pub failure: Option<(OffsetDateTime, String)>,
}

/// Locks what is only ever locked for a moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metrics {
    /// Nothing is counted yet.
    pub fn new(clock: Clock, audit: Arc<AuditCounters>) -> Self {
        let started = clock.now();
        let none: Arc<str> = NONE.into();
        let upstreams = BTreeMap::from([(none.clone(), Arc::new(UpstreamMetrics::new(none)))]);
        Self {
            clock,
            started,
            listeners: Mutex::default(),
            upstreams: Mutex::new(upstreams),
            label_overflow: Counter::default(),
            handshake_duration: Histogram::for_handshakes(),
            audit,
            reloads: Mutex::new(Reloads { succeeded: 0, failed: 0, last_success: started, failure: None }),
            facts: Mutex::default(),
            observed: Observations::default(),
            history: History::default(),
        }
    }

    /// When the process began to serve.
    pub fn started(&self) -> OffsetDateTime {
        self.started
    }

    /// The time by the clock that everything here is dated by.
    pub fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    /// The counters of a listener, by its name in logs.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        let mut listeners = lock(&self.listeners);
        if let Some(known) = listeners.get(name) {
            return known.clone();
        }
        let made = Arc::new(ListenerMetrics::new(name.into()));
        listeners.insert(made.name.clone(), made.clone());
        made
    }

    /// The counters of an upstream, by its label; those of [`OTHER`] if there are too many.
    pub fn upstream(&self, label: &str) -> Arc<UpstreamMetrics> {
        let mut upstreams = lock(&self.upstreams);
        if let Some(known) = upstreams.get(label) {
            return known.clone();
        }
        // `none` is there from the beginning, and `other` comes on top.
        let label: Arc<str> = if upstreams.len() > MOST_LABELS {
            self.label_overflow.add(1);
            OTHER.into()
        } else {
            label.into()
        };
        upstreams.entry(label.clone()).or_insert_with(|| Arc::new(UpstreamMetrics::new(label))).clone()
    }

    /// Replaces what is known of the settings in effect, and makes the series of every listener and upstream in them.
    pub fn adopt(&self, facts: Facts) {
        for listener in &facts.listeners {
            let counters = self.listener(&listener.name);
            for label in &listener.upstreams {
                counters.requests(&self.upstream(label));
            }
        }
        *lock(&self.facts) = Arc::new(facts);
        self.observed.announce_dates();
    }

    /// What is known of the settings in effect.
    pub fn facts(&self) -> Arc<Facts> {
        lock(&self.facts).clone()
    }

    /// A handshake was completed, and took so long; `result` is `ok`, `exact`, `identity` or `bypassed`.
    pub fn handshake_completed(&self, upstream: &UpstreamMetrics, result: &'static str, took: Duration) {
        upstream.handshakes.add(result);
        self.handshake_duration.add(took);
        self.history.handshake(self.clock.now());
    }

    /// A handshake was not completed, or the server was refused in it.
    pub fn handshake_failed(&self, upstream: &UpstreamMetrics, code: &'static str) {
        upstream.handshakes.add(code);
    }

    /// A request or a connection was refused.
    pub fn refused(&self, upstream: Option<&UpstreamMetrics>, event: Event) {
        self.with(upstream, |upstream| {
            upstream.refusals.add(event.code);
            self.history.refused(&upstream.label, event);
        });
    }

    /// A request failed, or was itself wrong.
    pub fn failed(&self, upstream: Option<&UpstreamMetrics>, class: &'static str) {
        self.with(upstream, |upstream| upstream.failures.add(class));
    }

    fn with(&self, upstream: Option<&UpstreamMetrics>, then: impl FnOnce(&UpstreamMetrics)) {
        match upstream {
            Some(upstream) => then(upstream),
            None => then(&self.upstream(NONE)),
        }
    }

    /// New settings were loaded.
    pub fn reload_succeeded(&self) {
        let mut reloads = lock(&self.reloads);
        reloads.succeeded += 1;
        reloads.last_success = self.clock.now();
        reloads.failure = None;
    }

    /// New settings cannot be used.
    pub fn reload_failed(&self, why: &str) {
        let mut reloads = lock(&self.reloads);
        reloads.failed += 1;
        reloads.failure = Some((self.clock.now(), why.to_owned()));
    }

    /// How reloading has gone.
    pub fn reloads(&self) -> Reloads {
        lock(&self.reloads).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_beyond_the_limit_are_counted_together() {
        let metrics = Metrics::new(Clock::System, Arc::default());
        for number in 0..MOST_LABELS {
            let label = format!("{number}.example:443");
            assert_eq!(*metrics.upstream(&label).label, *label);
        }
        assert_eq!(*metrics.upstream("0.example:443").label, *"0.example:443");
        assert_eq!(metrics.label_overflow.value(), 0);
        for number in 0..10 {
            assert_eq!(*metrics.upstream(&format!("more-{number}.example:443")).label, *OTHER);
        }
        assert_eq!((metrics.label_overflow.value(), lock(&metrics.upstreams).len()), (10, MOST_LABELS + 2));
    }
}
