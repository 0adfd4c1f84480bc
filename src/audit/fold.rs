//! Folding: refusals that repeat within a window are counted, and written as one line at its end, so that a tool
//! in a retry loop cannot flood a disk.
//!
//! The first of a kind is written whole and at once, and so is one for all others of each window. Where more than a few
//! certificates, addresses or targets come in one window, the others are of one kind: a server with a new certificate
//! for each handshake is folded too.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::event::AuditEvent;

/// Clients beyond this many are not told apart.
pub(super) const MOST_CLIENTS: usize = 64;

/// Folds events.
#[derive(Debug)]
pub struct Folder {
    window: Duration,
    open: HashMap<FoldKind, Window>,
}

/// What repeats of an event have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FoldKind {
    /// Always.
    common: String,
    /// Unless there are too many of them in a window; empty then.
    own: String,
}

impl FoldKind {
    /// The kind of an event. Its certificates are the server's, the one that the verdict is about, and the chain as a
    /// whole: another intermediate under the same certificate is another problem.
    pub fn of(event: &AuditEvent) -> Self {
        let text = |key: &str| event.get(key).map(|value| value.as_str().map_or_else(|| value.to_string(), Into::into));
        let list = |keys: &[&str]| keys.iter().map(|key| text(key).unwrap_or_default()).collect::<Vec<_>>().join(" ");
        let offending = event.get("vouchsafe.offending").and_then(|offending| offending["sha256"].as_str());
        let common =
            ["event.action", "error.code", "vouchsafe.upstream", "vouchsafe.listener", "client.ip", "client.address"];
        let own = [
            "server.ip",
            "server.port",
            "vouchsafe.parent",
            "tls.server.hash.sha256",
            "vouchsafe.chain_sha256",
            "vouchsafe.target",
        ];
        Self { common: list(&common), own: format!("{} {}", list(&own), offending.unwrap_or_default()) }
    }
}

#[derive(Debug)]
struct Window {
    began: Instant,
    /// How many were not written yet, when the first of them was, and their ids and chains.
    count: u64,
    first: Value,
    ids: Vec<Value>,
    chains: Vec<Value>,
    /// None before the first repeat: most windows see none.
    last: Option<AuditEvent>,
}

/// Kinds beyond this many are written at once, the oldest first: memory is bounded.
const MOST_KINDS: usize = 1024;

/// Kinds that have all but [`FoldKind::own`] in common, beyond this many in a window, are one.
const MOST_ALIKE: usize = 16;

/// Ids and chains beyond this many are not listed.
const MOST_LISTED: usize = 64;

impl Folder {
    /// Folds what comes within `window` of the first.
    pub fn new(window: Duration) -> Self {
        Self { window, open: HashMap::new() }
    }

    /// Takes an event; gives what is to be written now.
    pub fn take(&mut self, event: AuditEvent, now: Instant) -> Vec<AuditEvent> {
        let mut kind = FoldKind::of(&event);
        let mut due = Vec::new();
        if !self.open.contains_key(&kind) && self.alike(&kind, now) >= MOST_ALIKE {
            kind.own.clear();
        }
        if let Some(window) = self.open.get_mut(&kind) {
            if now.duration_since(window.began) < self.window {
                window.add(event);
                return due;
            }
            due.extend(window.close());
        } else if self.open.len() >= MOST_KINDS {
            due.extend(self.make_room());
        }
        due.push(event);
        self.open.insert(kind, Window::new(now));
        due
    }

    /// What is to be written by now; windows in which nothing came are forgotten.
    pub fn due(&mut self, now: Instant) -> Vec<AuditEvent> {
        let window = self.window;
        let mut due = Vec::new();
        self.open.retain(|_, open| {
            if now.duration_since(open.began) < window {
                return true;
            }
            let event = open.close();
            open.began = now;
            let repeats = event.is_some();
            due.extend(event);
            repeats
        });
        due
    }

    /// All that was not written yet. What comes after it is not counted but written: nobody may ask again.
    pub fn close(&mut self) -> Vec<AuditEvent> {
        self.window = Duration::ZERO;
        self.open.drain().filter_map(|(_, mut window)| window.close()).collect()
    }

    fn alike(&self, kind: &FoldKind, now: Instant) -> usize {
        let alike = |(open, window): &(&FoldKind, &Window)| {
            open.common == kind.common && !open.own.is_empty() && now.duration_since(window.began) < self.window
        };
        self.open.iter().filter(alike).count()
    }

    fn make_room(&mut self) -> Option<AuditEvent> {
        let oldest = self.open.iter().min_by_key(|(_, window)| window.began).map(|(kind, _)| kind.clone())?;
        self.open.remove(&oldest)?.close()
    }
}

impl Window {
    fn new(began: Instant) -> Self {
        Self { began, count: 0, first: Value::Null, ids: Vec::new(), chains: Vec::new(), last: None }
    }

    fn add(&mut self, mut event: AuditEvent) {
        if self.count == 0 {
            self.first = event.get("@timestamp").cloned().unwrap_or_default();
        }
        if self.ids.len() < MOST_LISTED {
            self.ids.extend(event.get("event.id").cloned());
        }
        if let Some(chain) = event.get("vouchsafe.chain_sha256")
            && self.chains.len() < MOST_LISTED
            && !self.chains.contains(chain)
        {
            self.chains.push(chain.clone());
        }
        if let Some(last) = &self.last {
            add_usage(&mut event, last);
        }
        self.count += 1;
        self.last = Some(event);
    }

    /// One event for all that were counted: the last, with how many there were.
    fn close(&mut self) -> Option<AuditEvent> {
        let mut event = self.last.take()?;
        event.insert("vouchsafe.count".into(), self.count.into());
        event.insert("vouchsafe.first_time".into(), self.first.take());
        event.insert("vouchsafe.ids".into(), json!(std::mem::take(&mut self.ids)));
        if !self.chains.is_empty() {
            event.insert("vouchsafe.chains".into(), json!(std::mem::take(&mut self.chains)));
        }
        self.count = 0;
        Some(event)
    }
}

/// Adds what an earlier event says was sent, where both say it: folded, they are one.
fn add_usage(event: &mut AuditEvent, earlier: &AuditEvent) {
    if !event.contains_key("vouchsafe.requests") || !earlier.contains_key("vouchsafe.requests") {
        return;
    }
    for key in ["vouchsafe.requests", "vouchsafe.request_bytes_sent"] {
        let sum = |of: &AuditEvent| of[key].as_u64().unwrap_or_default();
        let both = sum(event).saturating_add(sum(earlier));
        event.insert(key.into(), both.into());
    }
    event.insert("vouchsafe.from".into(), earlier["vouchsafe.from"].clone());
    let mut clients = clients_of(earlier);
    for (ip, requests) in clients_of(event) {
        if let Some((_, known)) = clients.iter_mut().find(|(known, _)| *known == ip) {
            *known += requests;
        } else if clients.len() < MOST_CLIENTS {
            clients.push((ip, requests));
        }
    }
    let clients = clients.into_iter().map(|(host, requests)| client_use(&host, requests)).collect();
    event.insert("vouchsafe.clients".into(), clients);
}

/// How many requests of a client were sent: by its IP address, or by what else it is known by.
pub(super) fn client_use(host: &str, requests: u64) -> Value {
    let key = if host.parse::<std::net::IpAddr>().is_ok() { "ip" } else { "address" };
    json!({ key: host, "requests": requests })
}

fn clients_of(event: &AuditEvent) -> Vec<(String, u64)> {
    let clients = event["vouchsafe.clients"].as_array().map(Vec::as_slice).unwrap_or_default();
    let host = |client: &Value| client.get("ip").or(client.get("address"))?.as_str().map(str::to_owned);
    let client = |client: &Value| Some((host(client)?, client["requests"].as_u64()?));
    clients.iter().filter_map(client).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(common: &str, own: u32, id: u32) -> AuditEvent {
        let event = json!({
            "@timestamp": format!("t{id}"), "event.id": id, "vouchsafe.count": 1, "vouchsafe.upstream": common,
            "vouchsafe.chain_sha256": own.to_string(),
        });
        event.as_object().cloned().unwrap()
    }

    fn seen(events: &[AuditEvent]) -> Vec<(u64, u64)> {
        let number = |event: &AuditEvent, key: &str| event[key].as_u64().unwrap();
        events.iter().map(|event| (number(event, "event.id"), number(event, "vouchsafe.count"))).collect()
    }

    #[test]
    fn the_first_is_whole_and_so_is_one_for_each_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut folder = Folder::new(Duration::from_secs(60));
        assert_eq!(seen(&folder.take(event("a", 0, 1), at(0))), [(1, 1)]);
        assert_eq!(seen(&folder.take(event("a", 0, 2), at(1))), []);
        assert_eq!(seen(&folder.take(event("b", 0, 3), at(2))), [(3, 1)]);
        assert_eq!(seen(&folder.take(event("a", 0, 4), at(3))), []);
        assert_eq!(seen(&folder.due(at(59))), []);
        let due = folder.due(at(61));
        assert_eq!(seen(&due), [(4, 2)]);
        assert_eq!((&due[0]["vouchsafe.first_time"], &due[0]["vouchsafe.ids"]), (&json!("t2"), &json!([2, 4])));
        // The loop goes on: a window that begins with the line for the last one.
        assert_eq!(seen(&folder.take(event("a", 0, 5), at(62))), []);
        assert_eq!(seen(&folder.take(event("a", 0, 6), at(125))), [(5, 1), (6, 1)]);
        assert_eq!(seen(&folder.take(event("a", 0, 7), at(126))), []);
        assert_eq!(seen(&folder.close()), [(7, 1)]);
    }

    #[test]
    fn kinds_are_bounded_and_none_is_lost() {
        let now = Instant::now();
        let mut folder = Folder::new(Duration::from_secs(60));
        let mut written = 0;
        for number in 0..3000_u32 {
            for id in 0..2 {
                let events = folder.take(event(&number.to_string(), 0, id), now + Duration::from_millis(number.into()));
                written += seen(&events).iter().map(|(_, count)| count).sum::<u64>();
            }
            assert!(folder.open.len() <= MOST_KINDS);
        }
        written += seen(&folder.close()).iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(written, 6000);
    }

    #[test]
    fn a_window_without_repeats_keeps_no_event() {
        let mut folder = Folder::new(Duration::from_secs(60));
        let now = Instant::now();
        folder.take(event("a", 0, 1), now);
        assert!(folder.open.values().all(|window| window.last.is_none()));
        folder.take(event("a", 0, 2), now);
        assert!(folder.open.values().all(|window| window.last.is_some()));
        assert_eq!(seen(&folder.due(now + Duration::from_secs(61))), [(2, 1)]);
        assert!(folder.open.values().all(|window| window.last.is_none()));
    }

    #[test]
    fn many_certificates_of_one_upstream_are_folded_together_and_listed() {
        let start = Instant::now();
        let mut folder = Folder::new(Duration::from_secs(60));
        let mut events = Vec::new();
        for id in 0..1000 {
            events.extend(folder.take(event("a", id, id), start));
        }
        assert_eq!(events.len(), MOST_ALIKE + 1);
        assert_eq!(seen(&folder.take(event("b", 0, 1), start)), [(1, 1)], "others have kinds of their own");
        assert_eq!(seen(&folder.take(event("a", 3, 3), start)), [], "the first are told apart all the while");
        assert_eq!(folder.open.len(), MOST_ALIKE + 2);
        let mut due = folder.due(start + Duration::from_secs(61));
        due.sort_unstable_by_key(|event| event["event.id"].as_u64());
        assert_eq!(seen(&due), [(3, 1), (999, 1000 - MOST_ALIKE as u64 - 1)]);
        let chains: Vec<_> = (17..81).map(|chain| json!(chain.to_string())).collect();
        assert_eq!(due[1]["vouchsafe.chains"], json!(chains), "the first 64 of them");
        // A new window tells some apart again.
        let later = start + Duration::from_secs(200);
        assert_eq!(seen(&folder.take(event("a", 5000, 7), later)), [(7, 1)]);
        assert!(folder.open.contains_key(&FoldKind::of(&event("a", 5000, 0))));
    }

    #[test]
    fn another_offending_certificate_in_the_same_chain_is_another_kind() {
        let about = |sha256: &str| {
            let mut event = event("a", 0, 1);
            event.insert("vouchsafe.offending".into(), json!({ "sha256": sha256 }));
            FoldKind::of(&event)
        };
        assert_ne!(about("1"), about("2"));
        assert_eq!(about("1").common, about("2").common);
    }

    #[test]
    fn nothing_is_counted_after_the_end() {
        let now = Instant::now();
        let mut folder = Folder::new(Duration::from_secs(60));
        folder.take(event("a", 0, 1), now);
        folder.take(event("a", 0, 2), now);
        assert_eq!(seen(&folder.close()), [(2, 1)]);
        for id in 3..6 {
            assert_eq!(seen(&folder.take(event("a", 0, id), now)), [(id.into(), 1)]);
        }
    }

    fn usage(from: &str, requests: u64, clients: &[(&str, u64)]) -> AuditEvent {
        let clients: Vec<_> = clients.iter().map(|(host, requests)| client_use(host, *requests)).collect();
        let event = json!({
            "vouchsafe.requests": requests, "vouchsafe.request_bytes_sent": 10 * requests, "vouchsafe.from": from,
            "vouchsafe.to": from, "vouchsafe.clients": clients,
        });
        event.as_object().cloned().unwrap()
    }

    #[test]
    fn what_two_events_say_was_sent_is_added_client_by_client() {
        let mut newer = usage("t2", 5, &[("192.0.2.2", 2), ("unix:uid=0", 3)]);
        add_usage(&mut newer, &usage("t1", 4, &[("::1", 1), ("192.0.2.2", 3)]));
        let mut both = usage("t1", 9, &[("::1", 1), ("192.0.2.2", 5), ("unix:uid=0", 3)]);
        both.insert("vouchsafe.to".into(), "t2".into());
        assert_eq!(newer, both);
        let keys = |at: usize| both["vouchsafe.clients"][at].as_object().map(|client| client.keys().next().cloned());
        assert_eq!([keys(0), keys(2)], [Some(Some("ip".into())), Some(Some("address".into()))]);
        let mut refusal = json!({ "event.id": "1" }).as_object().cloned().unwrap();
        add_usage(&mut refusal, &both);
        assert_eq!(refusal.len(), 1, "a refusal has nothing to add to");
    }
}
