//! A survey in words, and as JSON. The texts of a [`Summary`](super::summary::Summary) are harmless as
//! they are; names of files come from the command line and are made so here.

use std::{
    fmt::Write as _,
    io::{self, Write},
    path::Path,
};

use serde::{Serialize, Serializer};

use super::{
    summary::{Broken, Extent, Group, MOST_CERTIFICATES, MOST_GROUPS, Offender, Order},
    survey::{Log, Survey},
};
use crate::{clock::rfc3339, text::escape};

/// The version of the JSON document; it moves with every change that a reader could notice.
pub const SCHEMA: u32 = 1;

/// Writes the survey for people.
///
/// # Errors
/// The writer's.
pub fn text(survey: &Survey, order: Order, to: &mut impl Write) -> io::Result<()> {
    let groups = survey.summary.groups(order);
    writeln!(to, "{}", title(survey, groups.len()))?;
    let Some(total) = survey.summary.total() else { return Ok(()) };
    let table = Table::of(&groups, total);
    writeln!(to, "\n{}", table.row(["COUNT", "LAST", "FIRST", "WHAT", "CODE", "UPSTREAM"]))?;
    for group in groups {
        let Extent { events, first, last } = group.extent;
        let cells = [&events.to_string(), &rfc3339(last), &rfc3339(first), what(&group.action), &group.code];
        let [count, last, first, what, code] = cells;
        writeln!(to, "{}", table.row([count, last, first, what, code, &group.upstream]))?;
        for line in details(group) {
            writeln!(to, "{:indent$}{line}", "", indent = table.indent())?;
        }
    }
    if let Some(other) = survey.summary.other() {
        let (last, first) = (rfc3339(other.last), rfc3339(other.first));
        writeln!(to, "{}", table.row([&other.events.to_string(), &last, &first, "(other)", "", ""]))?;
        let why = format!("of other kinds; {MOST_GROUPS} kinds are told apart, those that come first");
        writeln!(to, "{:indent$}{why}", "", indent = table.indent())?;
        let hint = "hint: `--upstream`, `--code`, `--since` and `--until` take fewer events";
        writeln!(to, "{:indent$}{hint}", "", indent = table.indent())?;
    }
    Ok(())
}

/// The widths of the columns but the last.
struct Table([usize; 5]);

impl Table {
    fn of(groups: &[&Group], total: Extent) -> Self {
        let widest = |title: &str, of: fn(&Group) -> &str| {
            groups.iter().map(|group| of(group).chars().count()).max().unwrap_or(0).max(title.len())
        };
        // No count is longer than the sum.
        let count = total.events.to_string().len().max("COUNT".len());
        let time = "2026-11-21T03:17:56Z".len();
        Self([count, time, time, widest("(other)", |group| what(&group.action)), widest("CODE", |group| &group.code)])
    }

    fn indent(&self) -> usize {
        self.0[0] + GAP.len()
    }

    fn row(&self, [count, last, first, what, code, upstream]: [&str; 6]) -> String {
        let [a, b, c, d, e] = self.0;
        let row = format!("{count:>a$}{GAP}{last:<b$}{GAP}{first:<c$}{GAP}{what:<d$}{GAP}{code:<e$}{GAP}{upstream}");
        row.trim_end().to_owned()
    }
}

const GAP: &str = "  ";

/// What became of the handshakes, in a word; what a later version may have is shown as it is.
fn what(action: &str) -> &str {
    match action {
        "tls-verification-bypassed" => "bypassed",
        "tls-handshake-failed" => "failed",
        "tls-verification-refused" => "refused",
        other => other,
    }
}

fn title(survey: &Survey, kinds: usize) -> String {
    let total = survey.summary.total();
    let sum = |of: fn(&Log) -> u64| survey.logs.iter().map(of).sum::<u64>();
    let (lines, events) = (sum(|log| log.lines.counted), total.map_or(0, |total| total.events));
    let mut title = plural(events, "event");
    if lines != events {
        let _ = write!(title, " on {}", plural(lines, "line"));
    }
    let more = if survey.summary.other().is_some() { "more than " } else { "" };
    let files = plural(survey.logs.len() as u64, "file");
    let _ = write!(title, " of {more}{} in {files}", plural(kinds as u64, "kind"));
    if let Some(Extent { first, last, .. }) = total {
        let _ = write!(title, ", {} to {}", rfc3339(first), rfc3339(last));
    }
    for (count, is) in [(sum(|log| log.lines.left_out), "left out"), (sum(|log| log.lines.broken.lines()), "broken")] {
        if count > 0 {
            let _ = write!(title, "; {} {is}", plural(count, "line"));
        }
    }
    title
}

fn details(group: &Group) -> Vec<String> {
    let mut lines = Vec::new();
    if !group.message.is_empty() {
        lines.push(group.message.to_string());
    }
    if let Some(Offender { place, subject, sha256, issuer, not_after }) = &group.certificate {
        let mut line = format!("certificate: {subject}, sha256 {}", sha256.chars().take(16).collect::<String>());
        if let Some(issuer) = issuer {
            let _ = write!(line, ", issuer {issuer}");
        }
        if let Some(end) = not_after {
            let _ = write!(line, ", not after {}", rfc3339(*end));
        }
        if **place == *"bundle" {
            line.push_str(", of the bundle");
        }
        lines.push(line);
    }
    let own = group.certificate.as_ref().map_or("", |certificate| &certificate.sha256);
    let others: Vec<_> = short(&group.fingerprints).filter(|other| !own.starts_with(other)).collect();
    if !others.is_empty() {
        let full = if group.fingerprints.len() == MOST_CERTIFICATES { " (and maybe more)" } else { "" };
        lines.push(format!("other certificates: sha256 {}{full}", others.join(", ")));
    }
    if !group.hint.is_empty() {
        lines.push(format!("hint: {}", group.hint));
    }
    lines
}

fn short(fingerprints: &[u64]) -> impl Iterator<Item = String> {
    fingerprints.iter().map(|short| format!("{short:016x}"))
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Of each log with broken lines a sentence that says how many, why, and where the first is.
pub fn complaints(logs: &[Log]) -> Vec<String> {
    let complaint = |log: &Log| {
        let broken = &log.lines.broken;
        let kinds = [
            (broken.not_json, "not JSON, or cut"),
            (broken.not_an_event, "not an audit event"),
            (broken.not_utf8, "not UTF-8"),
            (broken.too_long, "longer than 1 MiB"),
        ];
        let kinds: Vec<_> =
            kinds.iter().filter(|(count, _)| *count > 0).map(|(count, is)| format!("{count} {is}")).collect();
        let lines = plural(broken.lines(), "broken line");
        Some(format!(
            "`{}`: {lines} passed over: {}; the first is line {}",
            name(&log.path),
            kinds.join(", "),
            broken.first?
        ))
    };
    logs.iter().filter_map(complaint).collect()
}

/// Of a log that could not be read, or not to its end, a sentence that says why.
pub fn unread(log: &Log) -> String {
    let why = log.error.as_ref().map(ToString::to_string).unwrap_or_default();
    match log.lines.all {
        0 => format!("the audit log `{}` cannot be read: {why}", name(&log.path)),
        lines => format!("the audit log `{}` cannot be read beyond line {lines}: {why}", name(&log.path)),
    }
}

/// A path as it may be shown.
fn name(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// Writes the survey as one JSON document: `docs/audit-log.md` says what is in it.
///
/// # Errors
/// The writer's.
pub fn json(survey: &Survey, order: Order, to: &mut impl Write) -> io::Result<()> {
    let summary = &survey.summary;
    let document = Document {
        schema: SCHEMA,
        extent: JsonExtent::of(summary.total()),
        files: survey.logs.iter().map(JsonFile::of).collect(),
        groups: JsonGroups(summary.groups(order)),
        other: summary.other().map(|other| JsonExtent::of(Some(other))),
    };
    serde_json::to_writer_pretty(&mut *to, &document)?;
    writeln!(to)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    #[serde(flatten)]
    extent: JsonExtent,
    files: Vec<JsonFile>,
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
    fn of(log: &Log) -> Self {
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
    upstream: &'a str,
    code: &'a str,
    action: &'a str,
    #[serde(flatten)]
    extent: JsonExtent,
    message: &'a str,
    hint: &'a str,
    certificate: Option<JsonCertificate<'a>>,
    fingerprints: Vec<String>,
}

#[derive(Serialize)]
struct JsonCertificate<'a> {
    r#in: &'a str,
    subject: &'a str,
    sha256: &'a str,
    issuer: Option<&'a str>,
    not_after: Option<String>,
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
        Self {
            upstream: &group.upstream,
            code: &group.code,
            action: &group.action,
            extent: JsonExtent::of(Some(group.extent)),
            message: &group.message,
            hint: &group.hint,
            certificate,
            fingerprints: short(&group.fingerprints).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        entry::{Entry, Flaw},
        summary::{Lines, Summary},
    };

    fn surveyed(lines: &[&str]) -> Survey {
        let mut summary = Summary::default();
        lines.iter().for_each(|line| summary.add(&Entry::read(line.as_bytes()).unwrap()));
        let counted = lines.len() as u64;
        let lines = Lines { all: counted, counted, ..Lines::default() };
        Survey { summary, logs: vec![Log { path: "a.jsonl".into(), lines, error: None }] }
    }

    fn as_text(survey: &Survey, order: Order) -> String {
        let mut text = Vec::new();
        super::text(survey, order, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn as_json(survey: &Survey) -> serde_json::Value {
        let mut text = Vec::new();
        super::json(survey, Order::Last, &mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    const EXPIRED: &str = r#"{"@timestamp":"2026-11-21T03:17:56Z","event.action":"tls-verification-refused",
        "error.code":"expired","error.message":"it expired","vouchsafe.hint":"have it renewed",
        "vouchsafe.offending":{"in":"presented","index":0,"subject":"CN=a","sha256":"21cdd3f891a49c81417938f6df12ea8f"},
        "vouchsafe.upstream":"a.example:9292","vouchsafe.chain":[{"issuer":"CN=Authority",
        "not_after":"2026-11-11T03:13:41Z","sha256":"21cdd3f891a49c81417938f6df12ea8f"}]}"#;
    const FOLDED: &str = r#"{"@timestamp":"2026-11-20T00:00:00Z","vouchsafe.first_time":"2026-11-19T00:00:00Z",
        "vouchsafe.count":12000,"event.action":"tls-verification-bypassed","error.code":"root_expired",
        "vouchsafe.offending":{"in":"bundle","index":0,"subject":"CN=Root","sha256":"ffff"},
        "vouchsafe.upstream":"b.example:443"}"#;
    const FAILED: &str = r#"{"@timestamp":"2026-11-22T00:00:00Z","event.action":"tls-handshake-failed",
        "error.code":"not_tls","error.message":"what answers is not TLS","vouchsafe.offending":null,
        "vouchsafe.upstream":"c.example:80"}"#;

    #[test]
    fn people_get_a_line_of_totals_and_an_aligned_table() {
        let mut survey = surveyed(&[EXPIRED, FOLDED, FAILED]);
        survey.logs[0].lines.left_out = 1;
        survey.logs[0].lines.broken.add(Flaw::NotJson, 4);
        survey.logs[0].lines.broken.add(Flaw::TooLong, 5);
        let expected = "\
12002 events on 3 lines of 3 kinds in 1 file, 2026-11-19T00:00:00Z to 2026-11-22T00:00:00Z; 1 line left out; 2 lines broken

COUNT  LAST                  FIRST                 WHAT      CODE          UPSTREAM
    1  2026-11-22T00:00:00Z  2026-11-22T00:00:00Z  failed    not_tls       c.example:80
       what answers is not TLS
    1  2026-11-21T03:17:56Z  2026-11-21T03:17:56Z  refused   expired       a.example:9292
       it expired
       certificate: CN=a, sha256 21cdd3f891a49c81, issuer CN=Authority, not after 2026-11-11T03:13:41Z
       hint: have it renewed
12000  2026-11-20T00:00:00Z  2026-11-19T00:00:00Z  bypassed  root_expired  b.example:443
       certificate: CN=Root, sha256 ffff, of the bundle
";
        assert_eq!(as_text(&survey, Order::Last), expected);
        let counts = as_text(&survey, Order::Count);
        let firsts: Vec<_> = counts.lines().filter(|line| !line.starts_with("       ")).skip(3).collect();
        assert!(firsts[0].ends_with("b.example:443") && firsts[2].ends_with("a.example:9292"), "{counts}");
        assert_eq!(
            complaints(&survey.logs),
            ["`a.jsonl`: 2 broken lines passed over: 1 not JSON, or cut, 1 longer than 1 MiB; the first is line 4"]
        );
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        let survey = surveyed(&[]);
        assert_eq!(as_text(&survey, Order::Last), "0 events of 0 kinds in 1 file\n");
        let json = as_json(&survey);
        assert_eq!((&json["events"], &json["first"]), (&0.into(), &serde_json::Value::Null), "{json}");
        assert!(complaints(&survey.logs).is_empty());
    }

    #[test]
    fn machines_get_one_document() {
        let json = as_json(&surveyed(&[EXPIRED, FOLDED]));
        let expected = serde_json::json!({
            "schema": 1,
            "events": 12001,
            "first": "2026-11-19T00:00:00Z",
            "last": "2026-11-21T03:17:56Z",
            "files": [{
                "file": "a.jsonl",
                "lines": 2,
                "counted": 2,
                "left_out": 0,
                "broken": {"lines": 0, "first": null, "not_an_event": 0, "not_json": 0, "not_utf8": 0, "too_long": 0},
                "error": null,
            }],
            "groups": [
                {
                    "upstream": "a.example:9292",
                    "code": "expired",
                    "action": "tls-verification-refused",
                    "events": 1,
                    "first": "2026-11-21T03:17:56Z",
                    "last": "2026-11-21T03:17:56Z",
                    "message": "it expired",
                    "hint": "have it renewed",
                    "certificate": {
                        "in": "presented",
                        "subject": "CN=a",
                        "sha256": "21cdd3f891a49c81417938f6df12ea8f",
                        "issuer": "CN=Authority",
                        "not_after": "2026-11-11T03:13:41Z",
                    },
                    "fingerprints": ["21cdd3f891a49c81"],
                },
                {
                    "upstream": "b.example:443",
                    "code": "root_expired",
                    "action": "tls-verification-bypassed",
                    "events": 12000,
                    "first": "2026-11-19T00:00:00Z",
                    "last": "2026-11-20T00:00:00Z",
                    "message": "",
                    "hint": "",
                    "certificate":
                        {"in": "bundle", "subject": "CN=Root", "sha256": "ffff", "issuer": null, "not_after": null},
                    "fingerprints": [],
                },
            ],
            "other": null,
        });
        assert_eq!(json, expected, "{json:#}");
    }

    #[test]
    fn a_forged_line_cannot_move_a_terminal() {
        // In JSON the control character is written as an escape, and is there when it has been read.
        let evil = r"\u001b]0;owned\u0007\u009b2J\u202e\nnext";
        let forged = format!(
            r#"{{"@timestamp":"2026-11-21T03:17:56Z","event.action":"{0}","error.code":"{0}","error.message":"{evil}",
            "vouchsafe.hint":"{evil}","vouchsafe.upstream":"a\u202e\u009b:1","vouchsafe.offending":{{"in":"{evil}",
            "subject":"{evil}","sha256":"{evil}"}},"vouchsafe.chain":[{{"sha256":"{evil}","issuer":"{evil}"}}]}}"#,
            "a-word",
        );
        let forged = forged.replace('\n', " ");
        let mut survey = surveyed(&[&forged]);
        survey.logs[0].path = "a\u{1b}[2J".into();
        survey.logs[0].lines.broken.add(Flaw::NotJson, 1);
        let mut json = Vec::new();
        super::json(&survey, Order::Last, &mut json).unwrap();
        let complaint = complaints(&survey.logs).remove(0);
        let name = survey.logs[0].path.clone();
        let unread = unread(&Log { path: name, lines: Lines::default(), error: Some(io::Error::other("why")) });
        for shown in [as_text(&survey, Order::Last), String::from_utf8(json).unwrap(), complaint, unread] {
            let moves = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!shown.contains(moves), "{shown:?}");
            assert!(shown.contains("\\u{1b}") || shown.contains("\\\\u{1b}"), "{shown:?}");
        }
    }

    #[test]
    fn groups_beyond_the_most_are_told_together() {
        let mut summary = Summary::default();
        for n in 0..MOST_GROUPS + 2 {
            let line = FAILED.replace("c.example", &format!("n{n}.example"));
            summary.add(&Entry::read(line.as_bytes()).unwrap());
        }
        let survey = Survey { summary, logs: Vec::new() };
        let text = as_text(&survey, Order::Last);
        assert!(text.starts_with("10002 events on 0 lines of more than 10000 kinds"), "{}", &text[..200]);
        let end = "\
    2  2026-11-22T00:00:00Z  2026-11-22T00:00:00Z  (other)
       of other kinds; 10000 kinds are told apart, those that come first
       hint: `--upstream`, `--code`, `--since` and `--until` take fewer events
";
        assert!(text.ends_with(end), "{}", &text[text.len() - 400..]);
        assert_eq!(as_json(&survey)["other"]["events"], 2);
    }
}
