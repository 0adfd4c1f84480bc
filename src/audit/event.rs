//! The audit event: field names of the Elastic Common Schema (8.x) where it has them, ours under
//! `vouchsafe.` where it has none. `docs/audit-log.md` describes every field.
//!
//! Everything that came from the network is escaped before it gets here or by the JSON writer; no
//! request field, query or body is ever part of an event.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::{
    clock::rfc3339,
    route::upstream::Upstream,
    text::{escape, escape_within},
    tls::{
        failure::{CertificateRef, Finding, HandshakeFailure, Occasion},
        presented::Certificate,
        trust::TrustAnchors,
    },
    transport::ClientAddress,
};

/// An event, key by key.
pub type AuditEvent = Map<String, Value>;

/// The version of the schema; it moves with every change that a reader could notice.
pub const SCHEMA: u32 = 4;

/// A refused handshake, with all that is known of it.
#[derive(Debug)]
pub struct Refused<'a> {
    /// The event's id, which the client was told too.
    pub id: &'a str,
    /// When.
    pub time: OffsetDateTime,
    /// The upstream.
    pub upstream: &'a Upstream,
    /// The parent proxy, where that is the server which was refused.
    pub parent: Option<&'a Upstream>,
    /// Why, and what was presented.
    pub refused: &'a HandshakeFailure,
    /// The client.
    pub client: ClientAddress,
    /// By which listener.
    pub listener: &'a str,
    /// The method of the request that wanted it, and its path without the query, which is empty for CONNECT; `None`
    /// where the client's TLS handshake wanted it, and no request came.
    pub request: Option<(&'a str, &'a str)>,
    /// By which generation of the settings.
    pub generation: u64,
}

impl Refused<'_> {
    fn action(&self) -> &'static str {
        match (self.refused.occasion, self.refused.failure.code().is_verdict()) {
            (Occasion::Bypassed, _) => "tls-verification-bypassed",
            (_, true) => "tls-verification-refused",
            (_, false) => "tls-handshake-failed",
        }
    }

    /// The sentence; if a parent proxy was refused, with its name.
    fn message(&self) -> String {
        let verdict = &self.refused.failure.verdict;
        match (self.parent, &self.upstream.parent) {
            (Some(_), Some(parent)) => format!("the parent proxy {parent}: {} ({})", verdict.sentence, verdict.code),
            _ => verdict.sentence.clone(),
        }
    }

    /// The event, key by key; as a line it is shorter than 64 KiB, whatever the server sent.
    pub fn json(&self) -> Map<String, Value> {
        let failure = &self.refused.failure;
        let verdict = &failure.verdict;
        let presented = &self.refused.presented;
        let server = self.parent.unwrap_or(self.upstream);
        let anchors = server.anchors();
        let bypassed = self.refused.occasion == Occasion::Bypassed;
        let mut event = begin(self.time, self.action(), bypassed);
        let mut put = |key: &str, value: Value| {
            event.insert(key.to_owned(), value);
        };
        put("event.id", self.id.into());
        let code = if self.parent.is_some() { PARENT_TLS } else { verdict.code.as_str() };
        put("error.code", code.into());
        put("error.message", self.message().into());
        let whose =
            self.parent.map_or("", |_| "; the CAs for a parent proxy are those of --parent-ca-bundle, if it is set");
        put("vouchsafe.hint", format!("{}{whose}", failure.hint).into());
        put("vouchsafe.help", format!("vouchsafe explain {code}").into());
        // The verdict on a parent proxy is a finding, too: its code is that of all of them.
        let verdict_of_parent = self.parent.map(|_| verdict);
        put("vouchsafe.findings", verdict_of_parent.into_iter().chain(&failure.also).map(finding).collect());
        put("vouchsafe.offending", offending(verdict.subject, presented, anchors));
        put("vouchsafe.upstream", self.upstream.authority().into());
        put("vouchsafe.reference", server.reference.to_string().into());
        let names = Value::from(names(presented));
        put("vouchsafe.presented_names", names.clone());
        put("server.address", server.host.to_string().into());
        match &self.upstream.parent {
            Some(parent) => {
                put("vouchsafe.parent", parent.to_string().into());
                put("vouchsafe.parent_ip", self.refused.address.ip().to_string().into());
                put("server.port", server.dial_port.into());
            }
            None => {
                put("server.ip", self.refused.address.ip().to_string().into());
                put("server.port", self.refused.address.port().into());
            }
        }
        put("tls.client.server_name", server.sni.clone().into());
        if let Some(own) = presented.first() {
            put("tls.server.hash.sha256", own.sha256.as_str().into());
            if let Ok(facts) = &own.facts {
                put("tls.server.subject", facts.subject.as_str().into());
                put("tls.server.issuer", facts.issuer.as_str().into());
                put("tls.server.not_before", rfc3339(facts.not_before).into());
                put("tls.server.not_after", rfc3339(facts.not_after).into());
                put("tls.server.x509.serial_number", facts.serial.as_str().into());
                put("tls.server.x509.subject.common_name", facts.common_name.clone().into());
                put("tls.server.x509.alternative_names", names);
                put("tls.server.x509.signature_algorithm", facts.signature_algorithm.as_str().into());
                put("tls.server.x509.public_key_algorithm", facts.key.describe().into());
            }
        }
        put("vouchsafe.chain", presented.iter().take(MOST).enumerate().map(certificate).collect());
        put("vouchsafe.chain_length", presented.len().into());
        if !presented.is_empty() {
            put("vouchsafe.chain_sha256", presented.sha256().into());
        }
        put("vouchsafe.occasion", self.refused.occasion.as_str().into());
        put("vouchsafe.generation", self.generation.into());
        put("vouchsafe.bundle.source", anchors.source.as_str().into());
        put("vouchsafe.bundle.anchors", anchors.anchors().len().into());
        put("vouchsafe.bundle.sha256", anchors.sha256.as_str().into());
        put("vouchsafe.bundle.loaded", rfc3339(server.tls.0.made()).into());
        put_client(self.client, &mut put);
        put("vouchsafe.listener", self.listener.into());
        if let Some((method, path)) = self.request {
            put("http.request.method", escape_within(method, 64).into());
            put("url.path", escape(path).into());
        }
        // A server that refuses us behind its own verified handshake may have been sent the request.
        let sent = match self.refused.occasion {
            Occasion::After | Occasion::Bypassed => Value::Null,
            Occasion::Handshake | Occasion::Remembered => 0.into(),
        };
        put("vouchsafe.request_bytes_sent", sent);
        fit(&mut event, MOST_LINE);
        event
    }
}

/// The code of everything that is wrong with the certificate of a parent proxy.
const PARENT_TLS: &str = "parent_tls";

/// As many keys has an event about a certificate.
const KEYS: usize = 56;

/// What every event about a connection begins with. `allowed`: the connection was used all the same.
pub(super) fn begin(time: OffsetDateTime, action: &str, allowed: bool) -> Map<String, Value> {
    let mut event = Map::with_capacity(KEYS);
    let mut put = |key: &str, value: Value| {
        event.insert(key.to_owned(), value);
    };
    put("@timestamp", rfc3339(time).into());
    put("ecs.version", ECS.into());
    put("event.kind", "alert".into());
    put("event.category", json!(["network"]));
    put("event.type", json!(["connection", if allowed { "allowed" } else { "denied" }]));
    put("event.action", action.into());
    put("event.outcome", "failure".into());
    put("vouchsafe.outcome", if allowed { "bypassed" } else { "refused" }.into());
    put("vouchsafe.schema", SCHEMA.into());
    put("vouchsafe.count", 1.into());
    event
}

/// What every event begins with that is no refusal.
pub(super) fn begin_notice(time: OffsetDateTime, action: &str, category: &str, kind: &str) -> AuditEvent {
    let begin = json!({
        "@timestamp": rfc3339(time),
        "ecs.version": ECS,
        "event.kind": "event",
        "event.category": [category],
        "event.type": [kind],
        "event.action": action,
        "event.outcome": "unknown",
        "vouchsafe.schema": SCHEMA,
    });
    match begin {
        Value::Object(event) => event,
        _ => Map::new(),
    }
}

/// A refusal that is not about a certificate: a destination that is not allowed, a loop, CONNECT where it is not
/// served, a Host that is not ours.
#[derive(Clone, Copy, Debug)]
pub struct PolicyRefused<'a> {
    /// The event's id, which the client was told too.
    pub id: &'a str,
    /// When.
    pub time: OffsetDateTime,
    /// The class, as in part two of `docs/failures.md`.
    pub class: &'static str,
    /// Why, as a sentence for people, without a full stop.
    pub message: &'a str,
    /// What to do; empty where there is nothing to say.
    pub hint: &'a str,
    /// What was asked for, `host:port` or as much of it as was given. No path, query or userinfo.
    pub target: &'a str,
    /// `host:port` of the upstream, where one was chosen before the refusal.
    pub upstream: Option<&'a str>,
    /// The address that was not dialed, where it is the reason.
    pub address: Option<SocketAddr>,
    /// The client.
    pub client: ClientAddress,
    /// By which listener.
    pub listener: &'a str,
    /// The request's method, and its path without the query, which is empty for CONNECT; `None` where a connection was
    /// refused before a request.
    pub request: Option<(&'a str, &'a str)>,
    /// By which generation of the settings.
    pub generation: u64,
}

/// Who asked.
fn put_client(client: ClientAddress, mut put: impl FnMut(&str, Value)) {
    match client {
        ClientAddress::Tcp(address) => {
            put("client.ip", address.ip().to_string().into());
            put("client.port", address.port().into());
        }
        ClientAddress::Unix(_) => put("client.address", client.to_string().into()),
    }
}

impl PolicyRefused<'_> {
    /// The event, key by key.
    pub fn json(&self) -> Map<String, Value> {
        let mut event = begin(self.time, "request-refused", false);
        let mut put = |key: &str, value: Value| {
            event.insert(key.to_owned(), value);
        };
        put("event.id", self.id.into());
        put("error.code", self.class.into());
        put("error.message", escape_within(self.message, 600).into());
        if !self.hint.is_empty() {
            put("vouchsafe.hint", escape_within(self.hint, 600).into());
        }
        put("vouchsafe.help", format!("vouchsafe explain {}", self.class).into());
        put("vouchsafe.target", escape(self.target).into());
        put("vouchsafe.upstream", self.upstream.map_or(Value::Null, |upstream| escape(upstream).into()));
        if let Some(address) = self.address {
            put("server.ip", address.ip().to_string().into());
            put("server.port", address.port().into());
        }
        put("vouchsafe.generation", self.generation.into());
        put_client(self.client, &mut put);
        put("vouchsafe.listener", self.listener.into());
        if let Some((method, path)) = self.request {
            put("http.request.method", escape_within(method, 64).into());
            put("url.path", escape(path).into());
        }
        put("vouchsafe.request_bytes_sent", 0.into());
        event
    }
}

/// The version of the Elastic Common Schema that the names are of.
const ECS: &str = "8.17";

/// Events that were lost: there was no room to keep them until they could be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// How many.
    pub events: u64,
    /// `@timestamp` of the first of them.
    pub from: String,
    /// `@timestamp` of the last of them.
    pub to: String,
}

impl Gap {
    /// Both together, of which `self` is the older.
    pub fn and(self, newer: Self) -> Self {
        Self { events: self.events + newer.events, from: self.from, to: newer.to }
    }

    /// The line that stands for them.
    pub fn json(&self, time: OffsetDateTime) -> Map<String, Value> {
        let event = json!({
            "@timestamp": rfc3339(time),
            "ecs.version": ECS,
            "event.kind": "event",
            "event.action": "audit-gap",
            "event.outcome": "unknown",
            "vouchsafe.schema": SCHEMA,
            "vouchsafe.lost": self.events,
            "vouchsafe.from": self.from,
            "vouchsafe.to": self.to,
        });
        match event {
            Value::Object(event) => event,
            _ => Map::new(),
        }
    }
}

/// A hostile chain may be long; its length is recorded, its tail is not.
const MOST: usize = 16;

/// An event is no longer than this as a line; ids and chains of repeats come on top.
const MOST_LINE: usize = 56 << 10;

/// Names of the server's own certificate, and of each other: how many, and how long together.
const OWN_NAMES: (usize, usize) = (64, 8 << 10);
const OTHER_NAMES: (usize, usize) = (8, 1 << 10);

/// Shortens what the server had in its hands from behind, until the line is short enough.
fn fit(event: &mut Map<String, Value>, most: usize) {
    // Most are far below, which is found without writing them.
    if event.iter().map(|(key, value)| key.len() + 4 + longest(value)).sum::<usize>() < most {
        return;
    }
    let mut over = serde_json::to_vec(event).map_or(0, |line| line.len()).saturating_sub(most);
    for (key, least) in [("vouchsafe.chain", 1), ("vouchsafe.findings", 0)] {
        let Some(Value::Array(list)) = event.get_mut(key) else { continue };
        while over > 0 && list.len() > least {
            over = over.saturating_sub(list.pop().map_or(0, |last| last.to_string().len()));
        }
    }
}

/// No value is longer than this as JSON: of a text, each character may become six (`\u001f`).
fn longest(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 24,
        Value::String(text) => 2 + 6 * text.len(),
        Value::Array(list) => 2 + list.iter().map(|value| 1 + longest(value)).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(key, value)| 4 + key.len() + longest(value)).sum::<usize>(),
    }
}

/// As many as may stand in an event.
fn bounded(names: Vec<String>, (count, mut room): (usize, usize)) -> Vec<String> {
    let fits = |name: &String| -> bool {
        // As JSON: the quotes, the comma, and what is escaped again.
        let length = name.len() + 3 + name.matches(['"', '\\']).count();
        let fits = length <= room;
        room = room.saturating_sub(length);
        fits
    };
    names.into_iter().take(count).take_while(fits).collect()
}

fn names(presented: &[Certificate]) -> Vec<String> {
    let facts = presented.first().and_then(|own| own.facts.as_ref().ok());
    facts.map(|facts| bounded(facts.presented_names(), OWN_NAMES)).unwrap_or_default()
}

fn finding(finding: &Finding) -> Value {
    let certificate = match finding.subject {
        CertificateRef::Presented(place) => place.into(),
        CertificateRef::Anchor(_) | CertificateRef::Handshake => Value::Null,
    };
    json!({ "code": finding.code.as_str(), "certificate": certificate, "message": finding.sentence })
}

fn offending(subject: CertificateRef, presented: &[Certificate], anchors: &TrustAnchors) -> Value {
    let (place, at, certificate) = match subject {
        CertificateRef::Anchor(place) => ("bundle", place, anchors.certificates().get(place)),
        CertificateRef::Presented(place) => ("presented", place, presented.get(place)),
        CertificateRef::Handshake => return Value::Null,
    };
    certificate.map_or(Value::Null, |certificate| {
        json!({
            "in": place,
            "index": at,
            "subject": certificate.name(),
            "sha256": certificate.sha256,
        })
    })
}

fn certificate((index, certificate): (usize, &Certificate)) -> Value {
    match &certificate.facts {
        Ok(facts) => json!({
            "index": index,
            "subject": facts.subject,
            "issuer": facts.issuer,
            "serial": facts.serial,
            "not_before": rfc3339(facts.not_before),
            "not_after": rfc3339(facts.not_after),
            "names": bounded(facts.presented_names(), if index == 0 { OWN_NAMES } else { OTHER_NAMES }),
            "key": facts.key.describe(),
            "ca": facts.is_ca,
            "sha256": certificate.sha256,
        }),
        Err(error) => json!({
            "index": index,
            "unreadable": error,
            "length": certificate.der.len(),
            "sha256": certificate.sha256,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_number_and_length() {
        let names = |length: usize| vec!["\"".repeat(length); 100];
        assert_eq!(bounded(names(1), OWN_NAMES).len(), 64);
        assert_eq!(bounded(names(1), OTHER_NAMES).len(), 8);
        let long = bounded(names(300), OWN_NAMES);
        assert!(json!(long).to_string().len() <= OWN_NAMES.1 && long.len() == 13, "{}", long.len());
        assert_eq!(bounded(names(300), OTHER_NAMES).len(), 1);
    }

    #[test]
    fn a_long_event_is_shortened_from_behind() {
        let text = "x".repeat(1000);
        let event = json!({ "a": text, "vouchsafe.chain": vec![&text; 16], "vouchsafe.findings": vec![&text; 16] });
        for (most, chain, findings) in [(60_000, 16, 16), (20_000, 2, 16), (10_000, 1, 7), (100, 1, 0)] {
            let mut event = event.as_object().cloned().unwrap();
            fit(&mut event, most);
            let count = |key: &str| event[key].as_array().unwrap().len();
            assert_eq!((count("vouchsafe.chain"), count("vouchsafe.findings")), (chain, findings), "{most}");
        }
    }
}
