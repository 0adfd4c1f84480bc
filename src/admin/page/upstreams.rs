//! The table of upstreams. Each has a row of facts; below it what is wrong, what to do, and the chain.

use std::fmt::{self, Write};

use time::OffsetDateTime;

use crate::{
    admin::status::{CertificateStatus, Moment, Status, UpstreamStatus},
    clock::rfc3339,
    html::{Html, sentence},
};

use super::{
    ago, days, ends, plural,
    tables::{Column, begin, cells, nothing},
    urgency,
};

const COLUMNS: [Column; 6] = [
    ("Upstream", "wide"),
    ("Verdict", ""),
    ("Days left", "number"),
    ("TLS", "when"),
    ("Refused, 1 h", "number"),
    ("Last attempt", "when"),
];

/// The place of a verdict, since what somebody has to look at comes first, and its class.
fn rank(verdict: &str) -> (u8, &'static str) {
    match verdict {
        "refused" | "failed" => (0, "bad"),
        "report-only" => (1, "warn"),
        "verified" => (2, "good"),
        _ => (3, "info"),
    }
}

/// Writes the table.
pub(super) fn table(to: &mut String, status: &Status) -> fmt::Result {
    if status.upstreams.is_empty() {
        return nothing(to, "No upstream is configured, and none was connected to yet.");
    }
    begin(to, &COLUMNS)?;
    let mut upstreams: Vec<_> = status.upstreams.iter().collect();
    upstreams.sort_by_key(|upstream| rank(upstream.verdict));
    for (number, upstream) in upstreams.into_iter().enumerate() {
        if number > 0 {
            to.write_str("</tbody><tbody>")?;
        }
        facts(to, upstream, status.now.0)?;
        detail(to, upstream, status)?;
    }
    to.write_str("</tbody></table>")
}

fn facts(to: &mut String, upstream: &UpstreamStatus, now: OffsetDateTime) -> fmt::Result {
    let (_, class) = rank(upstream.verdict);
    let verdict = format!("<span class=\"badge {class}\">{}</span>", upstream.verdict);
    let code = upstream
        .code
        .filter(|code| *code != "ok")
        .map_or(String::new(), |code| format!(" <code class=\"under\">{code}</code>"));
    let attempt = upstream.last_attempt.map_or_else(|| "never".into(), |at| ago(at.0, now));
    let has_detail = !upstream.chain.is_empty() || upstream.message.is_some();
    to.write_str(if has_detail { "<tr class=\"joined\">" } else { "<tr>" })?;
    cells(
        to,
        &COLUMNS,
        [
            &format_args!("<b>{}</b>", Html(&upstream.upstream)),
            &format_args!("{verdict}{code}"),
            &days_left(upstream, now),
            &upstream.tls.unwrap_or("–"),
            &upstream.refused_last_hour,
            &attempt,
        ],
    )?;
    to.write_str("</tr>")
}

/// The days that the server's own certificate is valid, and those of the first of the others to expire.
fn days_left(upstream: &UpstreamStatus, now: OffsetDateTime) -> String {
    let left = |certificates: &[CertificateStatus]| {
        let first: Option<Moment> = certificates.iter().filter_map(|certificate| certificate.not_after).min();
        first.map(|at| (days(at.0, now), rfc3339(at.0)))
    };
    let (own, issuers) = upstream.chain.split_at(upstream.chain.len().min(1));
    let Some((own, at)) = left(own) else { return "–".into() };
    let mut text = format!("<span class=\"badge {}\" title=\"{at}\">{own}</span>", urgency(own));
    if let Some((issuers, at)) = left(issuers) {
        text += &format!("<span class=\"under soft small\" title=\"{at}\"> issuer {issuers}</span>");
    }
    text
}

fn detail(to: &mut String, upstream: &UpstreamStatus, status: &Status) -> fmt::Result {
    if upstream.chain.is_empty() && upstream.message.is_none() {
        return Ok(());
    }
    write!(to, "<tr><td colspan=\"{}\">", COLUMNS.len())?;
    if let Some(message) = &upstream.message {
        write!(to, "<div>{}</div>", Html(sentence(message)))?;
    }
    if let Some(hint) = &upstream.hint {
        write!(to, "<div><b>What to do:</b> {}.</div>", Html(hint))?;
    }
    if let Some(event) = status.events.iter().find(|event| event.target == upstream.upstream) {
        let (id, when) = (Html(&event.id), ago(event.time.0, status.now.0));
        write!(to, "<div class=\"soft\">Last event: <code>{id}</code>, {when}</div>")?;
    }
    chain(to, upstream, status.now.0)?;
    to.write_str("</td></tr>")
}

fn chain(to: &mut String, upstream: &UpstreamStatus, now: OffsetDateTime) -> fmt::Result {
    if upstream.chain.is_empty() {
        return Ok(());
    }
    let (id, count) = (Html(&upstream.upstream), plural(upstream.chain.len() as u64, "certificate"));
    write!(to, "<details id=\"chain-{id}\"><summary>{count}")?;
    if let Some(address) = &upstream.address {
        write!(to, " <span class=\"soft\">of {}</span>", Html(address))?;
    }
    to.write_str("</summary><ol>")?;
    upstream.chain.iter().try_for_each(|certificate| certificate_item(to, certificate, now))?;
    to.write_str("</ol></details>")
}

fn certificate_item(to: &mut String, certificate: &CertificateStatus, now: OffsetDateTime) -> fmt::Result {
    let soft = |to: &mut String, text: &str| write!(to, "<br><span class=\"soft\">{text}</span> ");
    write!(to, "<li><b>{}</b>", Html(&certificate.subject))?;
    if let Some(issuer) = &certificate.issuer {
        soft(to, "issued by")?;
        write!(to, "{}", Html(issuer))?;
    }
    if let (Some(from), Some(until)) = (certificate.not_before, certificate.not_after) {
        let (class, ends) = (urgency(days(until.0, now)), ends(until.0, now));
        soft(to, "valid from")?;
        write!(
            to,
            "{} <span class=\"soft\">to</span> {} <span class=\"badge {class}\">{ends}</span>",
            rfc3339(from.0),
            rfc3339(until.0)
        )?;
    }
    if !certificate.names.is_empty() {
        soft(to, "for")?;
        write!(to, "{}", Html(certificate.names.join(", ")))?;
    }
    let key = certificate.key.as_deref().unwrap_or("unreadable");
    soft(to, "key")?;
    write!(to, "{} <span class=\"soft\">SHA-256</span> <code>{}</code></li>", Html(key), certificate.sha256)
}
