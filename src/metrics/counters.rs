//! The counters themselves: numbers that workers add to without waiting for each other.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::tls::failure::Code;

use super::lock;

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// What it has come to.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many connections are open, and how many have been opened.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU64,
    total: Counter,
}

impl Connections {
    /// How many are open.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    pub(super) fn total(&self) -> u64 {
        self.total.value()
    }
}

/// A connection, counted as open until this is dropped.
#[derive(Debug)]
pub struct OpenConnection(Arc<Connections>);

impl OpenConnection {
    /// One more is open.
    pub fn new(connections: &Arc<Connections>) -> Self {
        connections.open.fetch_add(1, Relaxed);
        connections.total.add(1);
        Self(connections.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Counts by a word from a closed set. For what happens seldom: adding takes a lock.
#[derive(Debug)]
pub(super) struct ByCode(Mutex<BTreeMap<&'static str, u64>>);

impl ByCode {
    /// Zero of each.
    fn of(codes: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Mutex::new(codes.into_iter().map(|code| (code, 0)).collect()))
    }

    /// One more.
    pub(super) fn add(&self, code: &'static str) {
        *lock(&self.0).entry(code).or_default() += 1;
    }

    pub(super) fn values(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.0).clone()
    }
}

/// A histogram of times.
#[derive(Debug)]
pub(super) struct Histogram {
    /// The upper bounds of the buckets, in milliseconds.
    bounds: &'static [u32],
    /// One for each bound, and one for what is longer.
    buckets: Box<[Counter]>,
    micros: Counter,
}

/// From 5 ms to 60 s; 600 s for uploads and downloads of images.
const REQUEST_BOUNDS: &[u32] = &[5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 600_000];

/// Up to the time limit that a handshake has by default.
const HANDSHAKE_BOUNDS: &[u32] = &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

impl Histogram {
    fn new(bounds: &'static [u32]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, buckets, micros: Counter::default() }
    }

    pub(super) fn for_handshakes() -> Self {
        Self::new(HANDSHAKE_BOUNDS)
    }

    pub(super) fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.bounds.iter().position(|bound| micros <= u64::from(*bound) * 1000);
        if let Some(bucket) = self.buckets.get(bucket.unwrap_or(self.bounds.len())) {
            bucket.add(1);
        }
        self.micros.add(micros);
    }

    /// The sum in seconds, and each bucket with its upper bound in seconds; that of the last is infinite.
    pub(super) fn values(&self) -> (f64, Vec<(f64, u64)>) {
        let bounds = self.bounds.iter().map(|bound| f64::from(*bound) / 1e3).chain([f64::INFINITY]);
        let buckets = bounds.zip(self.buckets.iter().map(Counter::value)).collect();
        (Duration::from_micros(self.micros.value()).as_secs_f64(), buckets)
    }
}

/// Who made a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeBy {
    Proxy,
    Upstream,
}

impl MadeBy {
    pub(super) const ALL: [Self; 2] = [Self::Proxy, Self::Upstream];

    /// The word for logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Upstream => "upstream",
        }
    }
}

/// Classes of status codes; the first is for requests that ended without a response.
pub(super) const CODE_CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The requests at one listener to one upstream.
#[derive(Debug, Default)]
pub(super) struct RequestMetrics([[Counter; CODE_CLASSES.len()]; 2]);

impl RequestMetrics {
    /// A request has ended with this status, 0 for none.
    fn add(&self, made_by: MadeBy, status: u16) {
        let class = usize::from(status / 100);
        if let Some(counter) = self.0[made_by as usize].get(class) {
            counter.add(1);
        }
    }

    pub(super) fn value(&self, made_by: MadeBy, class: usize) -> u64 {
        self.0[made_by as usize].get(class).map_or(0, Counter::value)
    }
}

/// What is counted for one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    /// Its name in logs.
    pub name: Arc<str>,
    /// Of clients.
    pub connections: Arc<Connections>,
    pub(super) duration: Histogram,
    /// Bytes of content from clients and to clients.
    pub(super) request_bytes: Counter,
    pub(super) response_bytes: Counter,
    requests: Mutex<BTreeMap<Arc<str>, Arc<RequestMetrics>>>,
    without_upstream: Arc<RequestMetrics>,
}

/// A request that has ended.
#[derive(Clone, Copy, Debug)]
pub struct EndedRequest {
    /// From the end of its head to the end of its response.
    pub took: Duration,
    /// Bytes of content that the upstream's socket took, and the client's.
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub made_by: MadeBy,
    /// 0 if it ended without a response.
    pub status: u16,
    /// Whether it was sent on a connection that an earlier one had used.
    pub reused: bool,
}

impl ListenerMetrics {
    pub(super) fn new(name: Arc<str>) -> Self {
        let without_upstream = Arc::<RequestMetrics>::default();
        Self {
            name,
            connections: Arc::default(),
            duration: Histogram::new(REQUEST_BOUNDS),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            requests: Mutex::new(BTreeMap::from([(super::NONE.into(), without_upstream.clone())])),
            without_upstream,
        }
    }

    /// Those of its requests that go to this upstream.
    pub(super) fn requests(&self, upstream: &UpstreamMetrics) -> Arc<RequestMetrics> {
        lock(&self.requests).entry(upstream.label.clone()).or_default().clone()
    }

    /// All of them, by the label of the upstream.
    pub(super) fn all_requests(&self) -> BTreeMap<Arc<str>, Arc<RequestMetrics>> {
        lock(&self.requests).clone()
    }

    /// Counts a request at its end. `upstream`: where it went, if it came to that.
    pub fn count(self: &Arc<Self>, request: EndedRequest, upstream: Option<&UpstreamHandle>) {
        self.duration.add(request.took);
        self.request_bytes.add(request.request_bytes);
        self.response_bytes.add(request.response_bytes);
        match upstream {
            Some(upstream) => upstream.count(self, request),
            None => self.without_upstream.add(request.made_by, request.status),
        }
    }
}

/// What is counted for one upstream, or for all that share a label.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// The value of the `upstream` label.
    pub label: Arc<str>,
    /// From this proxy.
    pub connections: Arc<Connections>,
    pub(super) handshakes: ByCode,
    pub(super) refusals: ByCode,
    pub(super) failures: ByCode,
    pub(super) reused: Counter,
    /// Bodies that ended early.
    pub truncated_requests: Counter,
    pub truncated_responses: Counter,
}

/// How a handshake ends that is completed.
const COMPLETED: [&str; 4] = ["ok", "exact", "identity", "bypassed"];

/// Classes of refusals that are not about a certificate and need no upstream.
const REFUSED_WITHOUT_UPSTREAM: [&str; 15] = [
    "connect_refused",
    "cross_site",
    "destination_denied",
    "host_denied",
    "host_mismatch",
    "loop",
    "no_request",
    "not_http",
    "not_permitted_by_ca",
    "not_redirected",
    "plain_on_tls_listener",
    "sni_mismatch",
    "tls_on_plain_listener",
    "tls_too_old",
    "wrong_authority",
];

/// Those that may concern an upstream that was chosen.
const REFUSED_WITH_UPSTREAM: [&str; 4] = ["destination_denied", "loop", "not_permitted_by_ca", "parent_tls"];

/// Classes of failures of requests that have no upstream yet.
const FAILED_WITHOUT_UPSTREAM: [&str; 12] = [
    "bad_head",
    "bad_target",
    "bad_target_name",
    "client_tls",
    "connect_refused",
    "head_timeout",
    "large_head",
    "long_target",
    "method",
    "no_destination",
    "too_many_connections",
    "transfer_coding",
];

/// Those of requests to an upstream, besides the codes of handshakes that fail.
const FAILED_WITH_UPSTREAM: [&str; 17] = [
    "bad_response",
    "connect_failed",
    "connect_timeout",
    "connection_refused",
    "dns_error",
    "dns_timeout",
    "max_forwards",
    "parent_auth",
    "parent_bad_answer",
    "parent_denied",
    "parent_tls",
    "parent_unreachable",
    "parent_upstream",
    "request_body",
    "request_timeout",
    "response_timeout",
    "upstream_closed",
];

impl UpstreamMetrics {
    pub(super) fn new(label: Arc<str>) -> Self {
        let codes = |wanted: fn(Code) -> bool| Code::ALL.iter().filter(move |code| wanted(**code)).map(|c| c.as_str());
        let (handshakes, refusals, failures) = if *label == *super::NONE {
            (ByCode::of([]), ByCode::of(REFUSED_WITHOUT_UPSTREAM), ByCode::of(FAILED_WITHOUT_UPSTREAM))
        } else {
            (
                ByCode::of(COMPLETED.into_iter().chain(codes(|_| true))),
                ByCode::of(REFUSED_WITH_UPSTREAM.into_iter().chain(codes(Code::is_refusal))),
                ByCode::of(FAILED_WITH_UPSTREAM.into_iter().chain(codes(|code| !code.is_refusal()))),
            )
        };
        Self {
            label,
            connections: Arc::default(),
            handshakes,
            refusals,
            failures,
            reused: Counter::default(),
            truncated_requests: Counter::default(),
            truncated_responses: Counter::default(),
        }
    }
}

/// The counters of an upstream, as one worker has them.
#[derive(Debug)]
pub struct UpstreamHandle {
    pub shared: Arc<UpstreamMetrics>,
    /// Those of its requests, resolved for each listener that has had one.
    by_listener: RefCell<Vec<(Arc<ListenerMetrics>, Arc<RequestMetrics>)>>,
}

impl UpstreamHandle {
    pub fn new(shared: Arc<UpstreamMetrics>) -> Self {
        Self { shared, by_listener: RefCell::default() }
    }

    fn count(&self, listener: &Arc<ListenerMetrics>, request: EndedRequest) {
        if request.reused {
            self.shared.reused.add(1);
        }
        let mut resolved = self.by_listener.borrow_mut();
        let place = resolved.iter().position(|(known, _)| Arc::ptr_eq(known, listener)).unwrap_or_else(|| {
            resolved.push((listener.clone(), listener.requests(&self.shared)));
            resolved.len() - 1
        });
        if let Some((_, requests)) = resolved.get(place) {
            requests.add(request.made_by, request.status);
        }
    }
}

/// What is counted about audit events.
#[derive(Debug, Default)]
pub struct AuditCounters {
    /// Events that were recorded, whether or not they could be written.
    pub events: Counter,
    /// Events that repeat an earlier one, and are counted in its line instead of written.
    pub folded: Counter,
    /// Attempts to write the audit log that failed.
    pub write_errors: Counter,
    /// Events that could not be kept until they could be written.
    pub lost: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_put_in_buckets_by_their_upper_bounds() {
        let histogram = Histogram::new(&[5, 10]);
        for micros in [1, 5_000, 5_001, 10_001, 20_000_000] {
            histogram.add(Duration::from_micros(micros));
        }
        let (sum, buckets) = histogram.values();
        assert_eq!(buckets, [(0.005, 2), (0.01, 1), (f64::INFINITY, 2)]);
        assert!((sum - 20.020_003).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn requests_are_counted_by_class_of_status_and_by_who_made_the_response() {
        let listener = Arc::new(ListenerMetrics::new("a".into()));
        let upstream = UpstreamHandle::new(Arc::new(UpstreamMetrics::new("b:443".into())));
        let took = Duration::ZERO;
        let request = |made_by, status, reused| {
            let request = EndedRequest { took, request_bytes: 2, response_bytes: 3, made_by, status, reused };
            listener.count(request, Some(&upstream));
        };
        request(MadeBy::Upstream, 204, true);
        request(MadeBy::Upstream, 200, false);
        request(MadeBy::Proxy, 403, false);
        request(MadeBy::Proxy, 0, false);
        let counted = listener.requests(&upstream.shared);
        let value = |made_by, class| counted.value(made_by, class);
        assert_eq!((value(MadeBy::Upstream, 2), value(MadeBy::Proxy, 2)), (2, 0));
        assert_eq!((value(MadeBy::Proxy, 4), value(MadeBy::Proxy, 0)), (1, 1));
        assert_eq!((listener.request_bytes.value(), listener.response_bytes.value()), (8, 12));
        assert_eq!(upstream.shared.reused.value(), 1);
    }
}
