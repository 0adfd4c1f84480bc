//! What was sent to servers that failed verification, where report-only let it pass: how many requests, of which clients.

use std::{
    cell::RefCell,
    collections::HashMap,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use time::OffsetDateTime;

use super::{
    event::{AuditEvent, Refused, begin},
    fold::{MOST_CLIENTS, client_use},
    sink::AuditSink,
};
use crate::{
    clock::{Clock, rfc3339},
    transport::ClientAddress,
};

/// Counts what is sent on one connection that was used though its server failed verification. The connection owns it:
/// an audit event says what was sent when it is dropped, and every minute before that.
#[derive(Debug)]
pub struct BypassedUse {
    sink: Arc<AuditSink>,
    clock: Clock,
    /// What every event of the connection says.
    about: AuditEvent,
    sent: RefCell<Sent>,
}

/// What was sent since the last event.
#[derive(Debug)]
struct Sent {
    began: Instant,
    requests: u64,
    bytes: u64,
    /// Requests of each client host.
    clients: HashMap<String, u64>,
    from: Option<OffsetDateTime>,
    to: Option<OffsetDateTime>,
}

impl Default for Sent {
    fn default() -> Self {
        let (from, to) = (None, None);
        Self { began: Instant::now(), requests: 0, bytes: 0, clients: HashMap::new(), from, to }
    }
}

/// How long what was sent on a connection that stays open may go without an event.
const PERIOD: Duration = Duration::from_secs(60);

/// What of the event for the bypassed handshake is repeated.
const REPEATED: [&str; 16] = [
    "event.id",
    "error.code",
    "error.message",
    "vouchsafe.hint",
    "vouchsafe.help",
    "vouchsafe.offending",
    "vouchsafe.upstream",
    "vouchsafe.reference",
    "server.address",
    "server.ip",
    "server.port",
    "vouchsafe.parent",
    "vouchsafe.parent_ip",
    "tls.server.hash.sha256",
    "vouchsafe.chain_sha256",
    "vouchsafe.generation",
];

impl BypassedUse {
    /// Records a handshake that failed verification and is used all the same, and gives what counts the requests that
    /// are sent on its connection.
    #[must_use = "the connection has to own it"]
    pub fn begin(sink: Arc<AuditSink>, clock: Clock, event: &Refused<'_>) -> Self {
        sink.record(event);
        let event = event.json();
        let repeated = REPEATED.iter().filter_map(|key| Some(((*key).to_owned(), event.get(*key)?.clone())));
        Self { sink, clock, about: repeated.collect(), sent: RefCell::default() }
    }

    /// A request of this client is sent.
    pub fn count(&self, client: ClientAddress) {
        if self.sent.borrow().began.elapsed() >= PERIOD {
            self.report();
        }
        let mut sent = self.sent.borrow_mut();
        sent.requests += 1;
        let host = client.host();
        if sent.clients.len() < MOST_CLIENTS || sent.clients.contains_key(&host) {
            *sent.clients.entry(host).or_default() += 1;
        }
        let now = self.clock.now();
        sent.from.get_or_insert(now);
        sent.to = Some(now);
    }

    /// So many bytes of requests (heads and bodies) were sent.
    pub fn sent(&self, bytes: u64) {
        self.sent.borrow_mut().bytes += bytes;
    }

    /// Records what was sent since the last time.
    fn report(&self) {
        let sent = mem::take(&mut *self.sent.borrow_mut());
        if let (Some(from), Some(to)) = (sent.from, sent.to) {
            self.sink.record_event(self.event(&sent, from, to), None);
        }
    }

    fn event(&self, sent: &Sent, from: OffsetDateTime, to: OffsetDateTime) -> AuditEvent {
        let mut event = begin(self.clock.now(), "tls-bypassed-requests", true);
        event.extend(self.about.clone());
        let mut clients: Vec<_> = sent.clients.iter().map(|(host, requests)| (host.as_str(), *requests)).collect();
        clients.sort_unstable();
        let clients = clients.into_iter().map(|(host, requests)| client_use(host, requests));
        event.insert("vouchsafe.requests".into(), sent.requests.into());
        event.insert("vouchsafe.request_bytes_sent".into(), sent.bytes.into());
        event.insert("vouchsafe.clients".into(), clients.collect());
        event.insert("vouchsafe.from".into(), rfc3339(from).into());
        event.insert("vouchsafe.to".into(), rfc3339(to).into());
        event
    }
}

impl Drop for BypassedUse {
    fn drop(&mut self) {
        self.report();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::audit::sink::AuditSettings;

    #[test]
    fn a_connection_says_what_was_sent_on_it_when_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("audit.jsonl");
        let settings = AuditSettings { file: Some(file.clone()), fold: Duration::from_secs(60), chains: None };
        let sink = Arc::new(AuditSink::new(None, &settings).unwrap());
        let about = json!({ "event.id": "1a", "error.code": "no_san", "vouchsafe.upstream": "a:1" });
        let about = about.as_object().cloned().unwrap();
        let connection =
            || BypassedUse { sink: sink.clone(), clock: Clock::System, about: about.clone(), sent: RefCell::default() };
        drop(connection());
        let used = connection();
        for client in [[127_u8, 0, 0, 2], [127, 0, 0, 3], [127, 0, 0, 2]] {
            used.count(ClientAddress::Tcp((client, 40000).into()));
            used.sent(100);
        }
        drop(used);
        sink.close();
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 1, "a connection without a request says nothing: {text}");
        let event: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&event["vouchsafe.requests"], &event["vouchsafe.request_bytes_sent"]), (&json!(3), &json!(300)));
        let clients = json!([{"ip": "127.0.0.2", "requests": 2}, {"ip": "127.0.0.3", "requests": 1}]);
        assert_eq!(event["vouchsafe.clients"], clients);
        assert_eq!((&event["event.id"], &event["vouchsafe.outcome"]), (&json!("1a"), &json!("bypassed")));
    }
}
