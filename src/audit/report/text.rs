//! A survey for people.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use serde_json::Value;
use time::OffsetDateTime;

use super::{name, perhaps_sent, plural, sent, sent_unverified, short, tallies, what};
use crate::{
    audit::{
        read::{AuditLogFile, Found, Survey},
        summary::{By, Extent, Group, MOST_CERTIFICATES, MOST_GROUPS, NameTally, Offender, Order, Summary},
    },
    clock::{distance, rfc3339},
    terminal::{ADVICE, BAD, GOOD, TITLE, WARNING},
    text::{escape, escape_within},
};

/// So many names of a tally are shown.
const MOST_NAMES_SHOWN: usize = 5;

/// Writes the survey for people.
pub(super) fn text(survey: &Survey, order: Order, now: OffsetDateTime, to: &mut impl Write) -> io::Result<()> {
    let summary = &survey.summary;
    let groups = summary.groups(order);
    for found in &survey.found {
        event(found, to)?;
    }
    writeln!(to, "{}", title(survey, groups.len()))?;
    if let Some(missing) = summary.gaps().missing {
        let (from, until) = (rfc3339(missing.first), rfc3339(missing.last));
        let gaps = plural(summary.gaps().gaps, "gap");
        let events = plural(missing.events, "event");
        writeln!(to, "{WARNING}{events} MISSING in {gaps}, from {from} to {until}{WARNING:#}")?;
    }
    let Some(total) = summary.total() else { return Ok(()) };
    let look = if summary.sent().is_anything() { BAD } else { GOOD };
    writeln!(to, "{look}{}{look:#}", was_sent(summary))?;
    let table = Table::of(&groups, total);
    writeln!(
        to,
        "\n{TITLE}{}{TITLE:#}",
        table.row(["COUNT", "CLIENTS", "SENT", "LAST", "FIRST", "WHAT", "CODE"], heading(summary.by()))
    )?;
    for group in groups {
        table.write(group, to)?;
        for line in details(group, summary.by(), now) {
            writeln!(to, "{:indent$}{line}", "", indent = table.indent())?;
        }
    }
    if let Some(other) = summary.other() {
        let (last, first) = (rfc3339(other.last), rfc3339(other.first));
        writeln!(to, "{}", table.row([&other.events.to_string(), "", "", &last, &first, "(other)", ""], ""))?;
        let why = format!("of other groups; {MOST_GROUPS} are told apart, those that come first");
        writeln!(to, "{:indent$}{why}", "", indent = table.indent())?;
        let hint = "`--upstream`, `--code`, `--since` and `--until` take fewer events";
        writeln!(to, "{:indent$}{ADVICE}hint:{ADVICE:#} {hint}", "", indent = table.indent())?;
    }
    Ok(())
}

/// An event that was asked for, key by key.
fn event(found: &Found, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "`{}`, line {}:", name(&found.path), found.number)?;
    for (key, value) in fields(&found.line) {
        writeln!(to, "  {key:32}  {value}")?;
    }
    writeln!(to)
}

/// The fields of an event, made harmless.
pub(super) fn fields(line: &str) -> Vec<(String, String)> {
    let Ok(Value::Object(event)) = serde_json::from_str(line) else { return Vec::new() };
    let field = |(key, value): (String, Value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (escape(&key), escape_within(&value, 4000))
    };
    event.into_iter().map(field).collect()
}

fn heading(by: By) -> &'static str {
    match by {
        By::Kind | By::Upstream => "UPSTREAM",
        By::Client => "CLIENT",
        By::Code => "CODE",
        By::Day => "DAY",
    }
}

/// Whether anything was sent to a server that is not verified.
pub(super) fn was_sent(summary: &Summary) -> String {
    let mut text = match sent_unverified(summary.sent()) {
        Some(what) => format!("SENT WITHOUT VERIFICATION: {what}"),
        None => "nothing was sent to a server that failed verification".to_owned(),
    };
    if let Some(what) = perhaps_sent(summary.sent()) {
        let _ = write!(text, "; {what}");
    }
    text
}

/// The widths of the columns but the last.
struct Table {
    widths: [usize; 7],
    by_kind: bool,
}

impl Table {
    fn of(groups: &[&Group], total: Extent) -> Self {
        let widest = |title: &str, of: &dyn Fn(&Group) -> usize| {
            groups.iter().copied().map(of).max().unwrap_or(0).max(title.len())
        };
        // No count is longer than the sum.
        let count = total.events.to_string().len().max("COUNT".len());
        let time = "2026-11-21T03:17:56Z".len();
        let by_kind = groups.iter().any(|group| !group.action.is_empty());
        let what_width = if by_kind { widest("(other)", &|group| what(&group.action).chars().count()) } else { 0 };
        let code_width = if by_kind { widest("CODE", &|group| group.code.chars().count()) } else { 0 };
        let sent_width = widest("SENT", &|group| sent(group.sent).len());
        Self { widths: [count, "CLIENTS".len(), sent_width, time, time, what_width, code_width], by_kind }
    }

    fn indent(&self) -> usize {
        self.widths[0] + GAP.len()
    }

    fn write(&self, group: &Group, to: &mut impl Write) -> io::Result<()> {
        let Extent { events, first, last } = group.extent;
        let cells = [
            events.to_string(),
            distinct(&group.tallies.clients),
            sent(group.sent),
            rfc3339(last),
            rfc3339(first),
            what(&group.action).to_owned(),
            group.code.to_string(),
        ];
        writeln!(to, "{}", self.row(cells.each_ref().map(String::as_str), &group.name))
    }

    fn row(&self, [count, clients, sent, last, first, what, code]: [&str; 7], name: &str) -> String {
        let [a, b, c, d, e, f, g] = self.widths;
        let mut row = format!("{count:>a$}{GAP}{clients:>b$}{GAP}{sent:<c$}{GAP}{last:<d$}{GAP}{first:<e$}{GAP}");
        if self.by_kind {
            let _ = write!(row, "{what:<f$}{GAP}{code:<g$}{GAP}");
        } else if what == "(other)" {
            row.push_str(what);
        }
        row.push_str(name);
        row.trim_end().to_owned()
    }
}

const GAP: &str = "  ";

fn distinct(tally: &NameTally) -> String {
    match tally.distinct() {
        (0, _) => "-".into(),
        (names, more) => format!("{names}{}", if more { "+" } else { "" }),
    }
}

pub(super) fn title(survey: &Survey, groups: usize) -> String {
    let total = survey.summary.total();
    let sum = |of: fn(&AuditLogFile) -> u64| survey.logs.iter().map(of).sum::<u64>();
    let (lines, events) = (sum(|log| log.lines.counted), total.map_or(0, |total| total.events));
    let mut title = plural(events, "event");
    if lines != events {
        let _ = write!(title, " on {}", plural(lines, "line"));
    }
    let more = if survey.summary.other().is_some() { "more than " } else { "" };
    let files = plural(survey.logs.len() as u64, "file");
    let _ = write!(title, " of {more}{} in {files}", plural(groups as u64, survey.summary.by().as_str()));
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

fn details(group: &Group, by: By, now: OffsetDateTime) -> Vec<String> {
    let mut lines = Vec::new();
    if by == By::Kind {
        lines.extend(problem(group));
    }
    lines.extend(tallies(group, by, MOST_NAMES_SHOWN).map(|(title, names)| format!("{title}: {names}")));
    if by != By::Day {
        lines.extend(days(group, now));
    }
    if let Some((chain, _)) = group.tallies.chains.by_count().first() {
        let others = match group.tallies.chains.distinct().0 - 1 {
            0 => String::new(),
            others => format!(", and {}", plural(others as u64, "other")),
        };
        lines.push(format!("chain: {chain}.pem in the directory of --save-failed-chains{others}"));
    }
    if by == By::Kind && !group.hint.is_empty() {
        lines.push(format!("{ADVICE}hint:{ADVICE:#} {}", group.hint));
    }
    lines
}

/// What is wrong, and with which certificate.
fn problem(group: &Group) -> Vec<String> {
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
    lines
}

/// How many there were on each of the last days, and whether it is still so.
fn days(group: &Group, now: OffsetDateTime) -> Option<String> {
    const SHOWN: usize = 7;
    let days = group.tallies.days.by_name();
    let skipped = days.len().saturating_sub(SHOWN);
    let shown: Vec<_> = days.iter().skip(skipped).map(|(day, count)| format!("{day} {count}")).collect();
    if shown.is_empty() {
        return None;
    }
    let before = if skipped > 0 { format!("({} before) ", plural(skipped as u64, "day")) } else { String::new() };
    let ago = distance((now - group.extent.last).whole_seconds());
    Some(format!("days: {before}{}; the last {ago} ago", shown.join(", ")))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;
    use std::io;

    use time::macros::datetime;

    use super::{
        super::{ReportFormat, complaints, unread, write},
        *,
    };
    use crate::audit::{
        entry::{AuditEntry, Flaw},
        read::Lines,
    };

    const NOW: OffsetDateTime = datetime!(2026-11-23 00:00 UTC);

    fn surveyed(lines: &[&str], by: By) -> Survey {
        let mut summary = Summary::new(by);
        lines.iter().for_each(|line| summary.add(&AuditEntry::read(line.as_bytes()).unwrap()));
        let counted = lines.len() as u64;
        let lines = Lines { all: counted, counted, ..Lines::default() };
        let logs = vec![AuditLogFile { path: "a.jsonl".into(), lines, error: None }];
        Survey { summary, logs, found: Vec::new() }
    }

    fn written(survey: &Survey, format: ReportFormat, order: Order) -> String {
        let mut text = Vec::new();
        write(survey, format, order, NOW, |_| None, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        // Our own styles, and no other sequences.
        [ADVICE, BAD, GOOD, TITLE, WARNING].iter().fold(text, |text, style| {
            text.replace(&style.render().to_string(), "").replace(&style.render_reset().to_string(), "")
        })
    }

    const EXPIRED: &str = r#"{"@timestamp":"2026-11-21T03:17:56Z","event.action":"tls-verification-refused",
        "error.code":"expired","error.message":"it expired","vouchsafe.hint":"have it renewed",
        "vouchsafe.offending":{"in":"presented","index":0,"subject":"CN=a","sha256":"21cdd3f891a49c81417938f6df12ea8f"},
        "vouchsafe.findings":[{"code":"no_san"}],"vouchsafe.chain_sha256":"ccdd","vouchsafe.request_bytes_sent":0,
        "client.ip":"127.0.0.2","vouchsafe.listener":"route 127.0.0.1:1","url.path":"/v1",
        "vouchsafe.upstream":"a.example:9292","vouchsafe.chain":[{"issuer":"CN=Authority",
        "not_after":"2026-11-11T03:13:41Z","sha256":"21cdd3f891a49c81417938f6df12ea8f"}]}"#;
    const FOLDED: &str = r#"{"@timestamp":"2026-11-20T00:00:00Z","vouchsafe.first_time":"2026-11-19T00:00:00Z",
        "vouchsafe.count":12000,"event.action":"tls-verification-bypassed","error.code":"root_expired",
        "vouchsafe.offending":{"in":"bundle","index":0,"subject":"CN=Root","sha256":"ffff"},
        "vouchsafe.upstream":"b.example:443"}"#;
    const FAILED: &str = r#"{"@timestamp":"2026-11-22T00:00:00Z","event.action":"tls-handshake-failed",
        "error.code":"not_tls","error.message":"what answers is not TLS","vouchsafe.offending":null,
        "vouchsafe.request_bytes_sent":0,"vouchsafe.upstream":"c.example:80"}"#;
    const GAP_LINE: &str = r#"{"@timestamp":"2026-11-22T00:00:00Z","event.action":"audit-gap","vouchsafe.lost":7,
        "vouchsafe.from":"2026-11-21T00:00:00Z","vouchsafe.to":"2026-11-21T01:00:00Z"}"#;

    #[test]
    fn people_get_totals_and_an_aligned_table() {
        let mut survey = surveyed(&[EXPIRED, FOLDED, FAILED, GAP_LINE], By::Kind);
        survey.logs[0].lines.left_out = 1;
        survey.logs[0].lines.broken.add(Flaw::NotJson, 4);
        survey.logs[0].lines.broken.add(Flaw::TooLong, 5);
        let expected = "\
12002 events on 4 lines of 3 kinds in 1 file, 2026-11-19T00:00:00Z to 2026-11-22T00:00:00Z; 1 line left out; 2 lines broken
7 events MISSING in 1 gap, from 2026-11-21T00:00:00Z to 2026-11-21T01:00:00Z
SENT WITHOUT VERIFICATION: on 12000 bypassed handshakes

COUNT  CLIENTS  SENT  LAST                  FIRST                 WHAT      CODE          UPSTREAM
    1        -  no    2026-11-22T00:00:00Z  2026-11-22T00:00:00Z  failed    not_tls       c.example:80
       what answers is not TLS
       days: 2026-11-22 1; the last 24 hours ago
    1        1  no    2026-11-21T03:17:56Z  2026-11-21T03:17:56Z  refused   expired       a.example:9292
       it expired
       certificate: CN=a, sha256 21cdd3f891a49c81, issuer CN=Authority, not after 2026-11-11T03:13:41Z
       clients: 127.0.0.2 (1)
       also wrong: no_san (1)
       listeners: route 127.0.0.1:1 (1)
       paths: /v1 (1)
       days: 2026-11-21 1; the last 44 hours ago
       chain: ccdd.pem in the directory of --save-failed-chains
       hint: have it renewed
12000        -  yes   2026-11-20T00:00:00Z  2026-11-19T00:00:00Z  bypassed  root_expired  b.example:443
       certificate: CN=Root, sha256 ffff, of the bundle
       days: 2026-11-20 12000; the last 3 days ago
";
        assert_eq!(written(&survey, ReportFormat::Text, Order::Last), expected);
        let counts = written(&survey, ReportFormat::Text, Order::Count);
        let firsts: Vec<_> = counts.lines().filter(|line| !line.starts_with("       ")).skip(5).collect();
        assert!(firsts[0].ends_with("b.example:443") && firsts[2].ends_with("a.example:9292"), "{counts}");
        assert_eq!(
            complaints(&survey.logs),
            ["`a.jsonl`: 2 broken lines passed over: 1 not JSON, or cut, 1 longer than 1 MiB; the first is line 4"]
        );
    }

    #[test]
    fn other_groupings_name_what_they_group_by() {
        let text = written(&surveyed(&[EXPIRED, FOLDED], By::Code), ReportFormat::Text, Order::Last);
        assert!(text.contains("FIRST                 CODE\n"), "{text}");
        assert!(text.contains("2026-11-21T03:17:56Z  expired\n       clients: 127.0.0.2 (1)\n"), "{text}");
        assert!(text.contains("       upstreams: a.example:9292 (1)\n"), "{text}");
        let text = written(&surveyed(&[EXPIRED, FOLDED, FAILED], By::Day), ReportFormat::Text, Order::Last);
        let days: Vec<_> =
            text.lines().filter_map(|line| line.get(66..).filter(|day| day.starts_with("2026"))).collect();
        assert_eq!(days, ["2026-11-20", "2026-11-21", "2026-11-22"], "{text}");
    }

    #[test]
    fn nothing_is_said_of_nothing() {
        let survey = surveyed(&[], By::Kind);
        assert_eq!(written(&survey, ReportFormat::Text, Order::Last), "0 events of 0 kinds in 1 file\n");
        assert!(complaints(&survey.logs).is_empty() && !survey.logs[0].is_something_else());
    }

    #[test]
    fn tables_for_other_programs_have_a_line_for_each_group() {
        let evil = EXPIRED.replace("it expired", "=cmd(),\\\"x\\\" | y");
        let survey = surveyed(&[&evil, FOLDED], By::Kind);
        let csv = written(&survey, ReportFormat::Csv, Order::Last);
        let expected = "\
kind,code,action,count,clients,sent_requests,sent_bytes,bypassed,first,last,certificate_sha256,chain_sha256,message,hint\r
a.example:9292,expired,tls-verification-refused,1,1,0,0,0,2026-11-21T03:17:56Z,2026-11-21T03:17:56Z,\
21cdd3f891a49c81417938f6df12ea8f,ccdd,\"'=cmd(),\"\"x\"\" | y\",have it renewed\r
b.example:443,root_expired,tls-verification-bypassed,12000,0,0,0,12000,2026-11-19T00:00:00Z,2026-11-20T00:00:00Z,ffff,,,\r
";
        assert_eq!(csv, expected);
        let markdown = written(&survey, ReportFormat::Md, Order::Last);
        assert!(
            markdown.starts_with("| kind | code | what | count | clients | sent | first | last | why |\n|---"),
            "{markdown}"
        );
        assert!(markdown.contains("=cmd(),\"x\" \\| y |\n"), "{markdown}");
    }

    #[test]
    fn machines_get_one_document() {
        let text = written(&surveyed(&[EXPIRED, FOLDED, GAP_LINE], By::Kind), ReportFormat::Json, Order::Last);
        let json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&json["schema"], &json["by"], &json["events"]),
            (&2.into(), &"kind".into(), &12001.into()),
            "{json:#}"
        );
        assert_eq!(json["gaps"]["events"], 7, "{json:#}");
        let group = &json["groups"][0];
        assert_eq!(group["clients"], serde_json::json!({"127.0.0.2": 1}), "{json:#}");
        assert_eq!(group["chains"], serde_json::json!({"ccdd": 1}), "{json:#}");
        assert_eq!(group["certificate"]["issuer"], "CN=Authority", "{json:#}");
        assert_eq!(json["groups"][1]["sent"]["bypassed"], 12000, "{json:#}");
    }

    #[test]
    fn a_forged_line_cannot_move_a_terminal() {
        // In JSON the control character is written as an escape, and is there when it has been read.
        let evil = r"\u001b]0;owned\u0007\u009b2J\u202e\nnext";
        let forged = format!(
            r#"{{"@timestamp":"2026-11-21T03:17:56Z","event.action":"{0}","error.code":"{0}","error.message":"{evil}",
            "vouchsafe.hint":"{evil}","vouchsafe.upstream":"a\u202e\u009b:1","vouchsafe.offending":{{"in":"{evil}",
            "subject":"{evil}","sha256":"{evil}"}},"client.ip":"{evil}","url.path":"{evil}",
            "vouchsafe.chain_sha256":"{evil}","vouchsafe.chain":[{{"sha256":"{evil}","issuer":"{evil}"}}]}}"#,
            "a-word",
        );
        let forged = forged.replace('\n', " ");
        for by in [By::Kind, By::Client] {
            let mut survey = surveyed(&[&forged], by);
            survey.logs[0].path = "a\u{1b}[2J".into();
            survey.logs[0].lines.broken.add(Flaw::NotJson, 1);
            survey.found.push(Found { path: survey.logs[0].path.clone(), number: 1, line: forged.clone() });
            let path = survey.logs[0].path.clone();
            let unread = unread(&AuditLogFile { path, lines: Lines::default(), error: Some(io::Error::other("why")) });
            let mut texts = vec![complaints(&survey.logs).remove(0), unread];
            for format in ReportFormat::value_variants() {
                texts.push(written(&survey, *format, Order::Last).replace("\r\n", "\n"));
            }
            for shown in texts {
                let moves = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
                assert!(!shown.contains(moves), "{shown:?}");
                assert!(shown.contains("\\u{1b}") || shown.contains("\\\\u{1b}"), "{shown:?}");
            }
        }
    }

    #[test]
    fn groups_beyond_the_most_are_told_together() {
        let mut summary = Summary::new(By::Kind);
        for n in 0..MOST_GROUPS + 2 {
            let line = FAILED.replace("c.example", &format!("n{n}.example"));
            summary.add(&AuditEntry::read(line.as_bytes()).unwrap());
        }
        let survey = Survey { summary, logs: Vec::new(), found: Vec::new() };
        let text = written(&survey, ReportFormat::Text, Order::Last);
        assert!(text.starts_with("6002 events on 0 lines of more than 6000 kinds"), "{}", &text[..200]);
        let end = "\
    2                 2026-11-22T00:00:00Z  2026-11-22T00:00:00Z  (other)
       of other groups; 6000 are told apart, those that come first
       hint: `--upstream`, `--code`, `--since` and `--until` take fewer events
";
        assert!(text.ends_with(end), "{}", &text[text.len() - 400..]);
        let json: Value = serde_json::from_str(&written(&survey, ReportFormat::Json, Order::Last)).unwrap();
        assert_eq!(json["other"]["events"], 2);
    }
}
