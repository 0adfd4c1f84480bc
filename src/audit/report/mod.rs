//! A survey in words, as JSON, as a table, and as a page. The texts of a [`Summary`](super::summary::Summary) are harmless as
//! they are; names of files come from the command line and are made so here.

mod html;
mod json;
mod table;
mod text;

use std::{
    io::{self, Write},
    path::Path,
};

use time::OffsetDateTime;

use super::{
    notice::{CERTIFICATE_CHANGED, EXPIRY},
    read::{AuditLogFile, Survey},
    summary::{By, Group, NameTally, Order, Sent},
};
use crate::text::escape;

pub use self::{html::Explain, json::SCHEMA};

/// How a survey is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// Comma-separated values (RFC 4180), a line for each group.
    Csv,
    /// One page for a browser, to attach to a ticket.
    Html,
    /// One JSON document.
    Json,
    /// A table in Markdown.
    Md,
    /// For people.
    #[default]
    Text,
}

/// Writes a survey. `explain` explains the codes in it, where the format has room for that.
///
/// # Errors
/// The writer's.
pub fn write(
    survey: &Survey,
    format: ReportFormat,
    order: Order,
    now: OffsetDateTime,
    explain: Explain,
    to: &mut impl Write,
) -> io::Result<()> {
    match format {
        ReportFormat::Csv => table::csv(survey, order, to),
        ReportFormat::Html => html::html(survey, order, now, explain, to),
        ReportFormat::Json => json::json(survey, order, to),
        ReportFormat::Md => table::markdown(survey, order, to),
        ReportFormat::Text => text::text(survey, order, now, to),
    }
}

/// Of each log with broken lines a sentence that says how many, why, and where the first is.
pub fn complaints(logs: &[AuditLogFile]) -> Vec<String> {
    let complaint = |log: &AuditLogFile| {
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
    logs.iter().filter(|log| !log.is_something_else()).filter_map(complaint).collect()
}

/// Of a log that could not be read, not to its end, or that is no audit log: a sentence that says why.
pub fn unread(log: &AuditLogFile) -> String {
    let path = name(&log.path);
    let Some(error) = &log.error else {
        let lines = plural(log.lines.broken.lines(), "line");
        return format!(
            "`{path}` is no audit log: there is no audit event in its {lines}\n  hint: give the file of `--audit-log`, \
             not the text log or the output of another program"
        );
    };
    match log.lines.all {
        0 => format!("the audit log `{path}` cannot be read: {error}"),
        lines => format!("the audit log `{path}` cannot be read beyond line {lines}: {error}"),
    }
}

/// A path as it may be shown.
fn name(path: &Path) -> String {
    escape(&path.display().to_string())
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn short(fingerprints: &[u64]) -> impl Iterator<Item = String> {
    fingerprints.iter().map(|short| format!("{short:016x}"))
}

/// What became of the requests, or what was noticed, in a word; what a later version may have is shown as it is.
fn what(action: &str) -> &str {
    match action {
        "tls-verification-bypassed" => "bypassed",
        "tls-handshake-failed" => "failed",
        "tls-verification-refused" => "refused",
        "request-refused" => "denied",
        EXPIRY => "expiry",
        CERTIFICATE_CHANGED => "changed",
        other => other,
    }
}

/// Who and what a group has to do with, by title: the most frequent names, so many of each at most. What it is grouped by
/// is left out.
fn tallies(group: &Group, by: By, most: usize) -> impl Iterator<Item = (&'static str, String)> {
    let of = &group.tallies;
    let all = [
        ("clients", &of.clients, by != By::Client),
        ("upstreams", &of.upstreams, !matches!(by, By::Kind | By::Upstream)),
        ("codes", &of.codes, !matches!(by, By::Kind | By::Code)),
        ("also wrong", &of.findings, true),
        ("listeners", &of.listeners, true),
        ("paths", &of.paths, true),
    ];
    let shown = all.into_iter().filter(|(_, tally, shown)| *shown && tally.distinct().0 > 0);
    shown.map(move |(title, tally, _)| (title, most_frequent(tally, most)))
}

/// The most frequent names, with how often each came.
fn most_frequent(tally: &NameTally, most: usize) -> String {
    let (names, (count, more)) = (tally.by_count(), tally.distinct());
    let shown: Vec<_> = names.iter().take(most).map(|(name, count)| format!("{name} ({count})")).collect();
    let rest = match (count.saturating_sub(most), more) {
        (0, false) => String::new(),
        (0, true) => ", and more".into(),
        (rest, more) => format!(", and {}{rest} more", if more { "at least " } else { "" }),
    };
    format!("{}{rest}", shown.join(", "))
}

/// What was sent without verification, in words; `None` if nothing was.
fn sent_unverified(sent: Sent) -> Option<String> {
    let handshakes = plural(sent.bypassed, "bypassed handshake");
    match sent.requests {
        0 if sent.bypassed == 0 => None,
        0 => Some(format!("on {handshakes}")),
        requests => Some(format!("{}, {} bytes, on {handshakes}", plural(requests, "request"), sent.bytes)),
    }
}

/// What a server may have been sent that was verified, and refused us behind its handshake.
fn perhaps_sent(sent: Sent) -> Option<String> {
    let requests = plural(sent.perhaps, "refused request");
    (sent.perhaps > 0).then(|| format!("{requests} by a verified server may have been sent first"))
}

/// Whether something was sent without verification, in a word.
fn sent(sent: Sent) -> String {
    match sent {
        Sent { requests, .. } if requests > 0 => requests.to_string(),
        Sent { bypassed, .. } if bypassed > 0 => "yes".into(),
        Sent { perhaps, .. } if perhaps > 0 => "maybe".into(),
        _ => "no".into(),
    }
}
