//! The task that tells people what expires.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    audit::{notice::ExpiryNotice, sink::AuditSink},
    metrics::Metrics,
};

use super::{Expiry, expiries, ledger::Ledger};

/// How often the time of day is compared with what expires. It is no sleep until midnight: the clock may be set.
const PERIOD: Duration = Duration::from_secs(10);

/// More than these at once, as at start, are told of together.
const MOST_AT_ONCE: usize = 8;

/// Records what expires, until it is dropped: once at start, when an upstream shows a new chain, when settings are
/// reloaded, and with each day.
pub async fn watch(metrics: Arc<Metrics>, audit: Arc<AuditSink>) {
    let mut ledger = Ledger::default();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = metrics.observed.dates_changed() => {}
        }
        let due = ledger.due(expiries(&metrics), metrics.now());
        tell(&due, &metrics, &audit);
    }
}

/// The first to expire are recorded one by one, all others together.
fn tell(due: &[Expiry], metrics: &Metrics, audit: &AuditSink) {
    let now = metrics.now();
    let singly = if due.len() > MOST_AT_ONCE { MOST_AT_ONCE - 1 } else { due.len() };
    let (first, others) = due.split_at(singly);
    let record = |expiry: &Expiry, message: &str, count: usize| {
        audit.record_expiry(&ExpiryNotice {
            time: now,
            kind: expiry.kind.as_str(),
            upstream: expiry.upstream(),
            name: &expiry.name,
            expires: expiry.at,
            message,
            hint: expiry.kind.consequence(),
            count,
        });
    };
    first.iter().for_each(|expiry| record(expiry, &expiry.sentence(now), 1));
    if let Some((next, rest)) = others.split_first() {
        let message = format!("{}; {} more expire later within 30 days", next.sentence(now), rest.len());
        record(next, &message, others.len());
    }
}
