//! A survey as one JSON document: `docs/audit-log.md` says what is in it.

use std::io::{self, Write};

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{name, short};
use crate::{
    audit::{
        read::{AuditLogFile, Broken, Survey},
        summary::{By, Extent, Group, NameTally, Order, Sent},
    },
    clock::rfc3339,
};

/// The version of the JSON document; it moves with every change that a reader could notice.
pub const SCHEMA: u32 = 2;

/// Writes the document.
pub(super) fn json(survey: &Survey, order: Order, to: &mut impl Write) -> io::Result<()> {
    let summary = &survey.summary;
    let found = survey.found.iter().filter_map(|found| Some(escaped(serde_json::from_str(&found.line).ok()?)));
    let document = Document {
        schema: SCHEMA,
        by: match summary.by() {
            By::Kind => "kind",
            By::Client => "client",
            By::Upstream => "upstream",
            By::Code => "code",
            By::Day => "day",
        },
        extent: JsonExtent::of(summary.total()),
        sent: JsonSent::of(summary.sent()),
        gaps: JsonExtent::of(summary.gaps().missing),
        files: survey.logs.iter().map(JsonFile::of).collect(),
        found: found.collect(),
        groups: JsonGroups(summary.groups(order)),
        other: summary.other().map(|other| JsonExtent::of(Some(other))),
    };
    serde_json::to_writer_pretty(&mut *to, &document)?;
    writeln!(to)
}

/// An event with every text escaped again: it may be forged.
fn escaped(value: Value) -> Value {
    use crate::text::escape_within;
    const LONGEST: usize = 4000;
    match value {
        Value::String(text) => escape_within(&text, LONGEST).into(),
        Value::Array(values) => values.into_iter().map(escaped).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (escape_within(&key, 300), escaped(value))).collect()
        }
        other => other,
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    by: &'static str,
    #[serde(flatten)]
    extent: JsonExtent,
    sent: JsonSent,
    gaps: JsonExtent,
    files: Vec<JsonFile>,
    found: Vec<Value>,
    groups: JsonGroups<'a>,
    other: Option<JsonExtent>,
}

#[derive(Serialize)]
struct JsonExtent {
    events: u64,
    first: Option<String>,
    last: Option<String>,
}

impl JsonExtent {
    fn of(extent: Option<Extent>) -> Self {
        let (first, last) = (extent.map(|extent| rfc3339(extent.first)), extent.map(|extent| rfc3339(extent.last)));
        Self { events: extent.map_or(0, |extent| extent.events), first, last }
    }
}

#[derive(Serialize)]
struct JsonSent {
    requests: u64,
    bytes: u64,
    bypassed: u64,
    perhaps: u64,
}

impl JsonSent {
    fn of(sent: Sent) -> Self {
        let Sent { requests, bytes, bypassed, perhaps } = sent;
        Self { requests, bytes, bypassed, perhaps }
    }
}

#[derive(Serialize)]
struct JsonFile {
    file: String,
    lines: u64,
    counted: u64,
    left_out: u64,
    broken: JsonBroken,
    error: Option<String>,
}

#[derive(Serialize)]
struct JsonBroken {
    lines: u64,
    first: Option<u64>,
    not_an_event: u64,
    not_json: u64,
    not_utf8: u64,
    too_long: u64,
}

impl JsonFile {
    fn of(log: &AuditLogFile) -> Self {
        let Broken { first, not_an_event, not_json, not_utf8, too_long } = log.lines.broken;
        let lines = log.lines.broken.lines();
        Self {
            file: name(&log.path),
            lines: log.lines.all,
            counted: log.lines.counted,
            left_out: log.lines.left_out,
            broken: JsonBroken { lines, first, not_an_event, not_json, not_utf8, too_long },
            error: log.error.as_ref().map(ToString::to_string),
        }
    }
}

/// Groups that are put into form as they are written, and not all before.
struct JsonGroups<'a>(Vec<&'a Group>);

impl Serialize for JsonGroups<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|group| JsonGroup::of(group)))
    }
}

#[derive(Serialize)]
struct JsonGroup<'a> {
    name: &'a str,
    code: &'a str,
    action: &'a str,
    #[serde(flatten)]
    extent: JsonExtent,
    sent: JsonSent,
    message: &'a str,
    hint: &'a str,
    certificate: Option<JsonCertificate<'a>>,
    fingerprints: Vec<String>,
    clients: JsonTally<'a>,
    listeners: JsonTally<'a>,
    paths: JsonTally<'a>,
    days: JsonTally<'a>,
    upstreams: JsonTally<'a>,
    codes: JsonTally<'a>,
    findings: JsonTally<'a>,
    chains: JsonTally<'a>,
}

#[derive(Serialize)]
struct JsonCertificate<'a> {
    r#in: &'a str,
    subject: &'a str,
    sha256: &'a str,
    issuer: Option<&'a str>,
    not_after: Option<String>,
}

/// Names with how often each came.
struct JsonTally<'a>(&'a NameTally);

impl Serialize for JsonTally<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = self.0.by_name();
        let mut map = serializer.serialize_map(Some(names.len()))?;
        names.iter().try_for_each(|(name, count)| map.serialize_entry(name, count))?;
        map.end()
    }
}

impl<'a> JsonGroup<'a> {
    fn of(group: &'a Group) -> Self {
        let certificate = group.certificate.as_ref().map(|certificate| JsonCertificate {
            r#in: &certificate.place,
            subject: &certificate.subject,
            sha256: &certificate.sha256,
            issuer: certificate.issuer.as_deref(),
            not_after: certificate.not_after.map(rfc3339),
        });
        let tallies = &*group.tallies;
        Self {
            name: &group.name,
            code: &group.code,
            action: &group.action,
            extent: JsonExtent::of(Some(group.extent)),
            sent: JsonSent::of(group.sent),
            message: &group.message,
            hint: &group.hint,
            certificate,
            fingerprints: short(&group.fingerprints).collect(),
            clients: JsonTally(&tallies.clients),
            listeners: JsonTally(&tallies.listeners),
            paths: JsonTally(&tallies.paths),
            days: JsonTally(&tallies.days),
            upstreams: JsonTally(&tallies.upstreams),
            codes: JsonTally(&tallies.codes),
            findings: JsonTally(&tallies.findings),
            chains: JsonTally(&tallies.chains),
        }
    }
}
