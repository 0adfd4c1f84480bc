//! `/status`: what is known of listeners, upstreams, and the last hour, as JSON. docs/admin.md describes its shape.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

use crate::{
    clock::rfc3339,
    expiry::{Expiry, expiries},
    metrics::{
        Metrics,
        facts::Facts,
        history::{Event, LastHour},
        observed::{ObservedCertificate, ObservedUpstream},
    },
    server::health::Phase,
};

/// Everything that the page and `/status` show.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    pub(super) version: &'static str,
    pub(super) phase: &'static str,
    pub(super) started: Moment,
    pub(super) now: Moment,
    pub(super) generation: u64,
    pub(super) reload: ReloadStatus,
    pub(super) listeners: Vec<ListenerStatus>,
    pub(super) upstreams: Vec<UpstreamStatus>,
    pub(super) bundles: Vec<BundleStatus>,
    /// What ends, the first first.
    pub(super) coming: Vec<Coming>,
    pub(super) last_hour: HourStatus,
    /// The newest first.
    pub(super) events: Vec<EventStatus>,
}

/// A time, RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(pub(super) OffsetDateTime);

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&rfc3339(self.0))
    }
}

#[derive(Debug, Serialize)]
pub(super) struct ReloadStatus {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) last_success: Moment,
    /// The last attempt, if it failed.
    pub(super) failure: Option<ReloadFailure>,
}

#[derive(Debug, Serialize)]
pub(super) struct ReloadFailure {
    pub(super) time: Moment,
    pub(super) message: String,
}

#[derive(Debug, Serialize)]
pub(super) struct ListenerStatus {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) to: String,
    pub(super) connections_open: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct UpstreamStatus {
    /// `host:port`.
    pub(super) upstream: String,
    /// The value of the `upstream` label of its metrics.
    pub(super) label: String,
    /// `verified`, `report-only`, `refused` or `failed`; `untried` if nothing has connected to it.
    pub(super) verdict: &'static str,
    /// `ok`, `exact`, `identity`, or why not.
    pub(super) code: Option<&'static str>,
    pub(super) message: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) last_attempt: Option<Moment>,
    pub(super) last_handshake: Option<Moment>,
    pub(super) address: Option<String>,
    pub(super) tls: Option<&'static str>,
    /// When the first certificate of the chain expires.
    pub(super) earliest_not_after: Option<Moment>,
    pub(super) refused_last_hour: u64,
    /// What it presented last, its own certificate first.
    pub(super) chain: Vec<CertificateStatus>,
}

#[derive(Debug, Serialize)]
pub(super) struct CertificateStatus {
    pub(super) subject: String,
    pub(super) sha256: String,
    pub(super) issuer: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) not_before: Option<Moment>,
    pub(super) not_after: Option<Moment>,
    pub(super) names: Vec<String>,
    pub(super) key: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct BundleStatus {
    pub(super) name: String,
    pub(super) certificates: usize,
    pub(super) earliest_not_after: Option<Moment>,
    pub(super) loaded: Moment,
}

#[derive(Debug, Serialize)]
pub(super) struct Coming {
    pub(super) at: Moment,
    /// As in `upstream_certificate`, `report_only`.
    pub(super) kind: &'static str,
    /// The upstream, the file or the bundle.
    pub(super) name: String,
    /// What expires, in words.
    pub(super) what: String,
    /// What follows, and what to do.
    pub(super) then: &'static str,
}

impl Coming {
    fn of(expiry: Expiry) -> Self {
        let Expiry { kind, name, what, at, .. } = expiry;
        Self { at: Moment(at), kind: kind.as_str(), name, what, then: kind.consequence() }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct HourStatus {
    /// In each minute; the last is the current one.
    pub(super) handshakes: Vec<u64>,
    pub(super) refusals: Vec<u64>,
    pub(super) by_upstream: Vec<RefusalStatus>,
}

#[derive(Debug, Serialize)]
pub(super) struct RefusalStatus {
    pub(super) upstream: String,
    pub(super) code: &'static str,
    pub(super) count: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct EventStatus {
    pub(super) time: Moment,
    pub(super) id: String,
    pub(super) code: &'static str,
    pub(super) outcome: &'static str,
    pub(super) target: String,
    pub(super) client: String,
    pub(super) listener: String,
    pub(super) message: String,
}

impl Status {
    /// As of now.
    pub(super) fn of(metrics: &Metrics, phase: Phase) -> Self {
        let (now, facts, reloads) = (metrics.now(), metrics.facts(), metrics.reloads());
        let hour = metrics.history.last_hour(now);
        let observed = metrics.observed.all();
        let listeners = facts.listeners.iter().map(|listener| ListenerStatus {
            name: listener.name.to_string(),
            address: listener.address.clone(),
            to: listener.to.clone(),
            connections_open: metrics.listener(&listener.name).connections.open(),
        });
        let failure = reloads.failure.map(|(time, message)| ReloadFailure { time: Moment(time), message });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            phase: phase.as_str(),
            started: Moment(metrics.started()),
            now: Moment(now),
            generation: facts.generation,
            reload: ReloadStatus {
                succeeded: reloads.succeeded,
                failed: reloads.failed,
                last_success: Moment(reloads.last_success),
                failure,
            },
            listeners: listeners.collect(),
            coming: expiries(metrics).into_iter().map(Coming::of).collect(),
            bundles: facts.bundles.iter().map(BundleStatus::of).collect(),
            upstreams: upstreams(&facts, observed, &hour),
            events: hour.events.iter().map(EventStatus::of).collect(),
            last_hour: HourStatus::of(&hour),
        }
    }
}

/// Those that something connected to, and what else is configured: routes, and patterns of `allow`.
fn upstreams(facts: &Facts, observed: Vec<ObservedUpstream>, hour: &LastHour) -> Vec<UpstreamStatus> {
    let tried: BTreeSet<Arc<str>> = observed.iter().map(|observed| observed.label.clone()).collect();
    let configured = facts.listeners.iter().flat_map(|listener| &listener.upstreams);
    let untried: BTreeSet<&String> = configured.filter(|label| !tried.contains(label.as_str())).collect();
    let refused = |label: &str| {
        let of = hour.by_upstream.iter().filter(|((upstream, _), _)| **upstream == *label);
        of.map(|(_, count)| count).sum()
    };
    let seen = observed.into_iter().map(|observed| UpstreamStatus::of(&observed, refused(&observed.label)));
    let untried = untried.into_iter().map(|label| UpstreamStatus::untried(label, refused(label)));
    seen.chain(untried).collect()
}

impl UpstreamStatus {
    fn of(observed: &ObservedUpstream, refused_last_hour: u64) -> Self {
        let failure = observed.verdict.failure();
        Self {
            upstream: observed.authority.to_string(),
            label: observed.label.to_string(),
            verdict: observed.verdict.word(),
            code: Some(observed.verdict.code()),
            message: failure.map(|failure| failure.sentence.clone()),
            hint: failure.map(|failure| failure.hint.clone()).filter(|hint| !hint.is_empty()),
            last_attempt: Some(Moment(observed.at)),
            last_handshake: observed.handshake.map(Moment),
            address: observed.address.map(|address| address.to_string()),
            tls: observed.tls_version,
            earliest_not_after: observed.earliest_not_after().map(Moment),
            refused_last_hour,
            chain: observed.chain.iter().map(CertificateStatus::of).collect(),
        }
    }

    fn untried(label: &str, refused_last_hour: u64) -> Self {
        Self {
            upstream: label.to_owned(),
            label: label.to_owned(),
            verdict: "untried",
            code: None,
            message: None,
            hint: None,
            last_attempt: None,
            last_handshake: None,
            address: None,
            tls: None,
            earliest_not_after: None,
            refused_last_hour,
            chain: Vec::new(),
        }
    }
}

impl CertificateStatus {
    fn of(certificate: &ObservedCertificate) -> Self {
        let facts = certificate.facts.as_ref();
        Self {
            subject: certificate.subject.clone(),
            sha256: certificate.sha256.clone(),
            issuer: facts.map(|facts| facts.issuer.clone()),
            serial: facts.map(|facts| facts.serial.clone()),
            not_before: facts.map(|facts| Moment(facts.not_before)),
            not_after: facts.map(|facts| Moment(facts.not_after)),
            names: facts.map(|facts| facts.names.clone()).unwrap_or_default(),
            key: facts.map(|facts| facts.key.clone()),
        }
    }
}

impl BundleStatus {
    fn of(bundle: &crate::metrics::facts::BundleFacts) -> Self {
        Self {
            name: bundle.name.clone(),
            certificates: bundle.certificates,
            earliest_not_after: bundle.ends.first().map(|(at, _)| Moment(*at)),
            loaded: Moment(bundle.loaded),
        }
    }
}

impl HourStatus {
    fn of(hour: &LastHour) -> Self {
        let refusals = hour.by_upstream.iter().map(|((upstream, code), count)| RefusalStatus {
            upstream: upstream.to_string(),
            code,
            count: *count,
        });
        let mut by_upstream: Vec<_> = refusals.collect();
        by_upstream.sort_by_key(|refusals| std::cmp::Reverse(refusals.count));
        Self { handshakes: hour.handshakes.into(), refusals: hour.refusals.into(), by_upstream }
    }
}

impl EventStatus {
    fn of(event: &Event) -> Self {
        Self {
            time: Moment(event.time),
            id: event.id.clone(),
            code: event.code,
            outcome: event.outcome.as_str(),
            target: event.target.clone(),
            client: event.client.clone(),
            listener: event.listener.to_string(),
            message: event.message.clone(),
        }
    }
}
