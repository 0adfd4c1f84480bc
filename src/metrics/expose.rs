//! `/metrics`: everything that is counted, in the OpenMetrics text format or in that of Prometheus before it.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    registry::Registry,
};
use time::OffsetDateTime;

use super::{
    MadeBy, Metrics, NONE, UpstreamMetrics,
    counters::{ByCode, CODE_CLASSES},
    facts::DatedKind,
    lock,
    observed::{ObservedUpstream, Verdict},
    process::ProcessFacts,
    writer::{Labels, Writer, before_openmetrics},
};

/// A format of `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    /// The text format 0.0.4 of Prometheus.
    Text,
}

impl Format {
    /// The one that an Accept field asks for.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All metrics as text.
///
/// # Errors
/// None that can happen: writing to a string does not fail.
pub fn metrics(metrics: &Arc<Metrics>, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposed(metrics.clone())));
    let mut openmetrics = String::new();
    text::encode(&mut openmetrics, &registry)?;
    match format {
        Format::OpenMetrics => Ok(openmetrics),
        Format::Text => before_openmetrics(&openmetrics),
    }
}

/// A time as metrics have it: seconds since 1970.
fn timestamp(at: OffsetDateTime) -> i64 {
    at.unix_timestamp()
}

#[derive(Debug)]
struct Exposed(Arc<Metrics>);

impl Collector for Exposed {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Writer(encoder);
        let metrics = &*self.0;
        build_info(&mut to)?;
        requests(metrics, &mut to)?;
        upstreams(metrics, &mut to)?;
        to.histogram(
            "vouchsafe_handshake_duration_seconds",
            "Time that completed TLS handshakes with upstreams took",
            [(Labels::default(), &metrics.handshake_duration)],
        )?;
        observed(metrics, &mut to)?;
        settings(metrics, &mut to)?;
        life(metrics, &mut to)?;
        process(&mut to)
    }
}

fn build_info(to: &mut Writer<'_>) -> fmt::Result {
    let labels = Labels::of([("version", env!("CARGO_PKG_VERSION")), ("tls_provider", "aws-lc-rs")]);
    to.gauge("vouchsafe_build_info", "The program, as labels of the value 1", [(labels, 1_i64)])
}

fn requests(metrics: &Metrics, to: &mut Writer<'_>) -> fmt::Result {
    let listeners: Vec<_> = lock(&metrics.listeners).values().cloned().collect();
    let mut series = Vec::new();
    for listener in &listeners {
        for (upstream, requests) in listener.all_requests() {
            for (made_by, (class, code_class)) in MadeBy::ALL
                .into_iter()
                .flat_map(|by| CODE_CLASSES.into_iter().enumerate().map(move |class| (by, class)))
            {
                let labels = Labels::of([
                    ("listener", &listener.name),
                    ("upstream", &upstream),
                    ("code_class", code_class),
                    ("made_by", made_by.as_str()),
                ]);
                series.push((labels, requests.value(made_by, class)));
            }
        }
    }
    to.counter(
        "vouchsafe_requests",
        "Requests that have ended, by the class of the status that the client got",
        series,
    )?;
    let named = || listeners.iter().map(|listener| (Labels::of([("listener", &listener.name)]), listener));
    to.histogram(
        "vouchsafe_request_duration_seconds",
        "Time from a request's head to the end of its response",
        named().map(|(labels, listener)| (labels, &listener.duration)),
    )?;
    let series = listeners.iter().flat_map(|listener| {
        let directions = [("request", &listener.request_bytes), ("response", &listener.response_bytes)];
        directions.map(|(direction, bytes)| {
            (Labels::of([("listener", &listener.name), ("direction", direction)]), bytes.value())
        })
    });
    to.counter("vouchsafe_bytes", "Bytes of content of requests that have ended", series)?;
    to.counter(
        "vouchsafe_connections",
        "Connections of clients that were accepted",
        named().map(|(labels, listener)| (labels, listener.connections.total())),
    )?;
    to.gauge(
        "vouchsafe_connections_open",
        "Connections of clients that are open",
        named().map(|(labels, listener)| (labels, listener.connections.open())),
    )
}

fn upstreams(metrics: &Metrics, to: &mut Writer<'_>) -> fmt::Result {
    let upstreams: Vec<_> = lock(&metrics.upstreams).values().cloned().collect();
    let by_code = |which: fn(&UpstreamMetrics) -> &ByCode, name: &'static str| {
        let mut series = Vec::new();
        for upstream in &upstreams {
            let values = which(upstream).values().into_iter();
            series
                .extend(values.map(|(code, value)| (Labels::of([("upstream", &upstream.label), (name, code)]), value)));
        }
        series
    };
    to.counter(
        "vouchsafe_handshakes",
        "TLS handshakes with upstreams, by how the upstream was verified or why it was not",
        by_code(|upstream| &upstream.handshakes, "result"),
    )?;
    to.counter(
        "vouchsafe_refusals",
        "Requests and connections that were refused, by the code of the refusal",
        by_code(|upstream| &upstream.refusals, "code"),
    )?;
    to.counter(
        "vouchsafe_failures",
        "Requests that failed, or were themselves wrong, by the class of the failure",
        by_code(|upstream| &upstream.failures, "class"),
    )?;
    let chosen: Vec<_> = upstreams.iter().filter(|upstream| *upstream.label != *NONE).collect();
    let series = chosen.iter().flat_map(|upstream| {
        let directions = [("request", &upstream.truncated_requests), ("response", &upstream.truncated_responses)];
        directions.map(|(direction, count)| {
            (Labels::of([("upstream", &upstream.label), ("direction", direction)]), count.value())
        })
    });
    to.counter("vouchsafe_truncated_bodies", "Bodies that ended early after the response had begun", series)?;
    let named = || chosen.iter().map(|upstream| (Labels::of([("upstream", &upstream.label)]), upstream));
    to.gauge(
        "vouchsafe_upstream_connections_open",
        "Verified connections to upstreams that are open",
        named().map(|(labels, upstream)| (labels, upstream.connections.open())),
    )?;
    to.counter(
        "vouchsafe_upstream_connections",
        "Verified connections to upstreams that were opened",
        named().map(|(labels, upstream)| (labels, upstream.connections.total())),
    )?;
    to.counter(
        "vouchsafe_upstream_connections_reused",
        "Requests that were sent on a connection which an earlier one had used",
        named().map(|(labels, upstream)| (labels, upstream.reused.value())),
    )?;
    to.counter(
        "vouchsafe_metrics_label_overflow",
        "Upstreams that are counted as `other`, since there are too many labels",
        [(Labels::default(), metrics.label_overflow.value())],
    )
}

/// Of the upstreams that share a label, the earliest date and the last handshake count.
fn observed(metrics: &Metrics, to: &mut Writer<'_>) -> fmt::Result {
    let mut by_label: BTreeMap<Arc<str>, Vec<ObservedUpstream>> = BTreeMap::new();
    for observed in metrics.observed.all() {
        by_label.entry(observed.label.clone()).or_default().push(observed);
    }
    let (mut dates, mut verdicts, mut handshakes) = (Vec::new(), Vec::new(), Vec::new());
    for (upstream, all) in &by_label {
        for (position, date) in [
            ("leaf", all.iter().filter_map(ObservedUpstream::leaf_not_after).min()),
            ("intermediate", all.iter().filter_map(ObservedUpstream::intermediate_not_after).min()),
            ("earliest", all.iter().filter_map(ObservedUpstream::earliest_not_after).min()),
        ] {
            let labels = Labels::of([("upstream", upstream), ("position", position)]);
            dates.extend(date.map(|date| (labels, timestamp(date))));
        }
        let codes: BTreeMap<_, _> = all.iter().map(|one| (one.verdict.code(), &one.verdict)).collect();
        verdicts.extend(codes.into_iter().map(|(code, verdict)| {
            let verified = matches!(verdict, Verdict::Verified(_));
            (Labels::of([("upstream", upstream), ("code", code)]), i64::from(verified))
        }));
        let last = all.iter().filter_map(|one| one.handshake).max();
        handshakes.extend(last.map(|at| (Labels::of([("upstream", upstream)]), timestamp(at))));
    }
    to.gauge(
        "vouchsafe_upstream_certificate_not_after_timestamp_seconds",
        "When the certificates expire that the upstream presented last, verified or not",
        dates,
    )?;
    to.gauge(
        "vouchsafe_upstream_last_verdict",
        "1 if the upstream was verified at the last attempt to connect, else 0; with the code of that verdict",
        verdicts,
    )?;
    to.gauge(
        "vouchsafe_upstream_last_handshake_timestamp_seconds",
        "When the last TLS handshake with the upstream ended",
        handshakes,
    )
}

fn settings(metrics: &Metrics, to: &mut Writer<'_>) -> fmt::Result {
    let facts = metrics.facts();
    let named = || facts.bundles.iter().map(|bundle| (Labels::of([("bundle", &bundle.name)]), bundle));
    to.gauge(
        "vouchsafe_bundle_certificates",
        "Trust anchors in a CA bundle",
        named().map(|(labels, bundle)| (labels, bundle.certificates as u64)),
    )?;
    to.gauge(
        "vouchsafe_bundle_earliest_not_after_timestamp_seconds",
        "When the first certificate of a CA bundle expires",
        named().filter_map(|(labels, bundle)| Some((labels, timestamp(bundle.ends.first()?.0)))),
    )?;
    to.gauge(
        "vouchsafe_bundle_loaded_timestamp_seconds",
        "When a CA bundle was loaded",
        named().map(|(labels, bundle)| (labels, timestamp(bundle.loaded))),
    )?;
    for (kind, name, label, help) in DATED {
        // Of several of one name the first to end counts.
        let mut dates: BTreeMap<&str, i64> = BTreeMap::new();
        for dated in facts.dated.iter().filter(|dated| dated.kind == kind) {
            let until = timestamp(dated.until);
            dates.entry(&dated.name).and_modify(|known| *known = until.min(*known)).or_insert(until);
        }
        to.gauge(name, help, dates.into_iter().map(|(of, at)| (Labels::of([(label, of)]), at)))?;
    }
    Ok(())
}

/// What has a date: the metric, its label, and its help.
const DATED: [(DatedKind, &str, &str, &str); 4] = [
    (
        DatedKind::ClientCertificate,
        "vouchsafe_client_certificate_not_after_timestamp_seconds",
        "file",
        "When a client certificate expires",
    ),
    (
        DatedKind::Crl,
        "vouchsafe_crl_next_update_timestamp_seconds",
        "file",
        "When a revocation list has to be replaced (nextUpdate)",
    ),
    (
        DatedKind::LocalCa,
        "vouchsafe_minting_ca_not_after_timestamp_seconds",
        "file",
        "When a certificate of the local CA expires",
    ),
    (
        DatedKind::ReportOnly,
        "vouchsafe_report_only_until_timestamp_seconds",
        "upstream",
        "Until when refusals of an upstream are only reported",
    ),
];

fn life(metrics: &Metrics, to: &mut Writer<'_>) -> fmt::Result {
    let reloads = metrics.reloads();
    to.counter(
        "vouchsafe_reloads",
        "Attempts to load newer settings",
        [("success", reloads.succeeded), ("failure", reloads.failed)]
            .map(|(result, count)| (Labels::of([("result", result)]), count)),
    )?;
    to.gauge(
        "vouchsafe_config_last_reload_successful",
        "1 if the last attempt to load settings succeeded, else 0",
        [(Labels::default(), i64::from(reloads.failure.is_none()))],
    )?;
    to.gauge(
        "vouchsafe_config_last_reload_success_timestamp_seconds",
        "When settings were loaded last",
        [(Labels::default(), timestamp(reloads.last_success))],
    )?;
    let audit = &metrics.audit;
    for (name, help, counter) in [
        ("vouchsafe_audit_events", "Audit events that were recorded", &audit.events),
        (
            "vouchsafe_audit_events_folded",
            "Audit events that were counted in the line of an earlier one",
            &audit.folded,
        ),
        ("vouchsafe_audit_events_lost", "Audit events that were lost", &audit.lost),
        ("vouchsafe_audit_write_errors", "Attempts to write the audit log that failed", &audit.write_errors),
    ] {
        to.counter(name, help, [(Labels::default(), counter.value())])?;
    }
    Ok(())
}

fn process(to: &mut Writer<'_>) -> fmt::Result {
    let ProcessFacts { cpu_seconds, resident_bytes, open_files, most_files, started_seconds } = ProcessFacts::read();
    fn one<V>(value: Option<V>) -> Option<(Labels, V)> {
        value.map(|value| (Labels::default(), value))
    }
    to.counter("process_cpu_seconds", "User and system CPU time that the process has used", one(cpu_seconds))?;
    to.gauge("process_resident_memory_bytes", "Resident memory of the process", one(resident_bytes))?;
    to.gauge("process_open_fds", "Open files of the process", one(open_files))?;
    to.gauge("process_max_fds", "How many files the process may have open", one(most_files))?;
    to.gauge("process_start_time_seconds", "When the process was started, in seconds since 1970", one(started_seconds))
}

#[cfg(test)]
mod tests {
    use crate::clock::Clock;

    use super::*;

    #[test]
    fn both_formats_name_a_counter_as_they_should() {
        let metrics = Arc::new(Metrics::new(Clock::System, Arc::default()));
        metrics.listener("unix:a\"b\\c");
        let text = super::metrics(&metrics, Format::Text).unwrap();
        assert!(
            text.contains("\n# TYPE vouchsafe_audit_events_total counter\nvouchsafe_audit_events_total 0\n"),
            "{text}"
        );
        assert!(text.contains("# HELP vouchsafe_audit_events_total Audit events that were recorded\n"), "{text}");
        assert!(text.contains(r#"vouchsafe_connections_open{listener="unix:a\"b\\c"} 0"#), "{text}");
        assert!(text.contains("vouchsafe_handshake_duration_seconds_bucket{le=\"+Inf\"} 0\n"), "{text}");
        assert!(!text.contains("# EOF"));
        let openmetrics = super::metrics(&metrics, Format::OpenMetrics).unwrap();
        assert!(openmetrics.contains("\n# TYPE vouchsafe_audit_events counter\nvouchsafe_audit_events_total 0\n"));
        assert!(openmetrics.ends_with("# EOF\n"));
    }

    #[test]
    fn the_format_is_the_one_that_a_scraper_asks_for() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Text);
    }
}
