//! An audit event as text, for the copy on stderr.

use serde_json::{Map, Value};

use super::{
    event::AuditEvent,
    notice::{CERTIFICATE_CHANGED, EXPIRY},
};
use crate::logging::write_event;

/// How the copy on stderr is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON line.
    Json,
    /// For people.
    Text,
}

/// One line, or a paragraph on a terminal.
pub fn text(event: &AuditEvent) -> Vec<u8> {
    let action = event["event.action"].as_str().unwrap_or_default();
    let (message, reason) = match action {
        "audit-gap" => ("audit-gap", "audit events are lost: there was no room to keep them".to_owned()),
        "tls-bypassed-requests" => {
            let clients = event["vouchsafe.clients"].as_array().map_or(0, Vec::len);
            let requests = event["vouchsafe.requests"].as_u64().unwrap_or_default();
            ("sent", format!("{requests} requests of {clients} clients were sent to a server that failed verification"))
        }
        "tls-verification-bypassed" => ("bypassed", string(event, "error.message")),
        EXPIRY => ("expiry", string(event, "error.message")),
        CERTIFICATE_CHANGED => ("changed", string(event, "error.message")),
        _ => ("refused", string(event, "error.message")),
    };
    write_event(message, &about(event), &reason, &more(event))
}

fn string(event: &AuditEvent, key: &str) -> String {
    event.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The event, the upstream and the client: what every text has in its first line.
fn about(event: &AuditEvent) -> Map<String, Value> {
    let folded = event.contains_key("vouchsafe.first_time");
    let named = [
        ("code", "error.code"),
        ("upstream", "vouchsafe.upstream"),
        ("target", "vouchsafe.target"),
        ("asked_for", "vouchsafe.reference"),
        ("client", "client.ip"),
        ("client", "client.address"),
        ("requests", "vouchsafe.requests"),
        ("bytes", "vouchsafe.request_bytes_sent"),
        ("lost", "vouchsafe.lost"),
        ("from", "vouchsafe.from"),
        ("to", "vouchsafe.to"),
        ("event", "event.id"),
        ("expires", "vouchsafe.expiry.time"),
    ];
    let has_use = event.contains_key("vouchsafe.requests");
    let mut about = Map::new();
    for (name, key) in named {
        match event.get(key) {
            None | Some(Value::Null) => {}
            Some(_) if name == "bytes" && !has_use => {}
            Some(value) => {
                about.insert(name.to_owned(), value.clone());
            }
        }
    }
    if folded {
        about.insert("count".into(), event["vouchsafe.count"].clone());
        about.insert("since".into(), event["vouchsafe.first_time"].clone());
    }
    about
}

/// What helps to understand it and to put an end to it.
fn more(event: &AuditEvent) -> Map<String, Value> {
    let mut more = Map::new();
    let findings = event.get("vouchsafe.findings").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let also: Vec<_> = findings.iter().filter_map(|finding| finding["message"].as_str()).collect();
    if !also.is_empty() {
        more.insert("also".into(), also.join("; ").into());
    }
    let names = event.get("vouchsafe.presented_names").and_then(Value::as_array);
    let names: Vec<_> = names.into_iter().flatten().filter_map(Value::as_str).collect();
    if !names.is_empty() {
        more.insert("certificate_is_for".into(), names.join(", ").into());
    }
    if let Some(source) = event.get("vouchsafe.bundle.source").and_then(Value::as_str) {
        let count = event["vouchsafe.bundle.anchors"].as_u64().unwrap_or_default();
        let plural = if count == 1 { "" } else { "s" };
        more.insert("bundle".into(), format!("{source} ({count} CA{plural})").into());
    }
    for (name, key) in [("hint", "vouchsafe.hint"), ("help", "vouchsafe.help")] {
        if let Some(value) = event.get(key) {
            more.insert(name.into(), value.clone());
        }
    }
    more
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_folded_event_says_how_often_and_since_when_in_one_line() {
        let event = json!({
            "event.action": "tls-verification-refused", "error.code": "expired", "error.message": "it expired\nlong ago",
            "vouchsafe.upstream": "a.example:1", "event.id": "1a", "vouchsafe.count": 7,
            "vouchsafe.first_time": "2026-11-21T03:17:56Z", "vouchsafe.request_bytes_sent": 0,
            "vouchsafe.findings": [{"message": "one more"}, {"message": "and another"}],
            "vouchsafe.bundle.source": "--ca-bundle `ca.pem`", "vouchsafe.bundle.anchors": 1,
            "vouchsafe.hint": "have it renewed", "vouchsafe.help": "vouchsafe explain expired",
        });
        let text = String::from_utf8(text(event.as_object().unwrap())).unwrap();
        let expected = " WARN refused code=expired upstream=a.example:1 event=1a count=7 since=2026-11-21T03:17:56Z \
                        \"it expired\\nlong ago\" also=\"one more; and another\" \
                        bundle=\"--ca-bundle `ca.pem` (1 CA)\" hint=\"have it renewed\" help=\"vouchsafe explain expired\"\n";
        assert!(text.ends_with(expected), "{text}");
        assert_eq!(text.matches('\n').count(), 1);
    }
}
