//! The page for people: one HTML document without anything from elsewhere, which a script only refreshes.
//!
//! Whatever comes from a certificate, a client or a setting goes through [`Text`].

use std::fmt::{self, Write};

use aws_lc_rs::digest;
use data_encoding::BASE64;
use http::{HeaderValue, Response, StatusCode, header};
use time::OffsetDateTime;

use crate::clock::{distance, rfc3339};

use super::{
    chart::{self, days, urgency},
    endpoints::respond,
    html::Text,
    status::{CertificateStatus, Moment, Status, UpstreamStatus},
};

/// The document; `{title}` and `{page}` are filled in.
const TEMPLATE: &str = include_str!("page.html");

/// The document with its content security policy.
#[derive(Debug)]
pub(super) struct Page {
    policy: String,
}

impl Page {
    /// Hashes its style and script, so that a browser applies and runs these and no others.
    pub(super) fn new() -> Self {
        let hash = |tag: &str| {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            let inner = TEMPLATE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
            let digest = digest::digest(&digest::SHA256, inner.map_or("", |(inner, _)| inner).as_bytes());
            BASE64.encode(digest.as_ref())
        };
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash("style"),
            hash("script")
        );
        Self { policy }
    }

    /// The document as a response.
    ///
    /// # Errors
    /// None that can happen: writing to a string does not fail.
    pub(super) fn show(&self, status: &Status) -> Result<Response<String>, fmt::Error> {
        let mut page = String::with_capacity(16 << 10);
        body(&mut page, status)?;
        let (_, summary) = summary(status);
        let title = Text(format!("vouchsafe: {summary}")).to_string();
        // What is filled in first has no braces of the template, but names of certificates may look like them.
        let (before, after) = TEMPLATE.split_once("{page}").unwrap_or((TEMPLATE, ""));
        let document = [&before.replacen("{title}", &title, 1), &*page, after].concat();
        let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", document);
        if let Ok(policy) = HeaderValue::from_str(&self.policy) {
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        Ok(response)
    }
}

fn body(to: &mut String, status: &Status) -> fmt::Result {
    let now = status.now.0;
    write!(
        to,
        "<header><h1>vouchsafe</h1><span class=\"dim\">{} · {} since {} · settings {} · {}</span></header>",
        status.version,
        status.phase,
        rfc3339(status.started.0),
        status.generation,
        rfc3339(now)
    )?;
    let (class, text) = summary(status);
    write!(to, "<section class=\"summary {class}\">{}</section>", Text(text))?;
    upstreams(to, status)?;
    to.write_str("<section><h2>The last hour</h2><div class=\"charts\">")?;
    chart::minutes(to, "Refusals", "bad", &status.last_hour.refusals)?;
    chart::minutes(to, "Handshakes", "calm", &status.last_hour.handshakes)?;
    chart::days_left(to, &status.upstreams, now)?;
    to.write_str("</div></section>")?;
    refusals(to, status)?;
    events(to, status)?;
    coming(to, status)?;
    listeners(to, status)
}

/// What matters most, in a sentence, and its class.
fn summary(status: &Status) -> (&'static str, String) {
    let named = |verdict: &str| {
        let all = status.upstreams.iter().filter(|upstream| upstream.verdict == verdict);
        all.map(|upstream| &*upstream.upstream).collect::<Vec<_>>().join(", ")
    };
    let (refused, failed, bypassed) = (named("refused"), named("failed"), named("report-only"));
    let soon = status.coming.first().filter(|coming| days(coming.at.0, status.now.0) < 7);
    if !refused.is_empty() {
        ("bad", format!("Refused: {refused}"))
    } else if !failed.is_empty() {
        ("bad", format!("Cannot be reached: {failed}"))
    } else if status.reload.failure.is_some() {
        ("bad", "The newer settings cannot be used; the old ones remain in effect".into())
    } else if !bypassed.is_empty() {
        ("warn", format!("Not verified, which is only reported: {bypassed}"))
    } else if let Some(soon) = soon {
        ("warn", format!("Soon: {} {}", soon.what, ends(soon.at.0, status.now.0)))
    } else if status.upstreams.iter().all(|upstream| upstream.verdict == "untried") {
        ("calm", "No upstream has been connected to yet".into())
    } else {
        ("good", "All upstreams that were connected to are verified".into())
    }
}

/// `expires in 3 days`, or `has expired 3 days ago`.
fn ends(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (at - now).whole_seconds();
    match seconds {
        ..0 => format!("has expired {} ago", distance(seconds)),
        _ => format!("expires in {}", distance(seconds)),
    }
}

/// A time, with its distance.
fn ago(at: Moment, now: OffsetDateTime) -> String {
    format!("{} ago", distance((now - at.0).whole_seconds()))
}

fn section(to: &mut String, title: &str, columns: &[&str]) -> fmt::Result {
    write!(to, "<section><h2>{title}</h2><table><thead><tr>")?;
    columns.iter().try_for_each(|column| write!(to, "<th>{column}</th>"))?;
    to.write_str("</tr></thead><tbody>")
}

const SECTION_END: &str = "</tbody></table></section>";

fn upstreams(to: &mut String, status: &Status) -> fmt::Result {
    section(to, "Upstreams", &["Upstream", "Verdict", "Days left", "TLS", "Refused, 1 h", "Last attempt"])?;
    if status.upstreams.is_empty() {
        to.write_str(
            "<tr><td colspan=\"6\" class=\"dim\">None is configured exactly, and none was connected to yet.</td></tr>",
        )?;
    }
    for (number, upstream) in status.upstreams.iter().enumerate() {
        row(to, number, upstream, status.now.0)?;
    }
    to.write_str(SECTION_END)
}

fn row(to: &mut String, number: usize, upstream: &UpstreamStatus, now: OffsetDateTime) -> fmt::Result {
    let class = match upstream.verdict {
        "verified" => "good",
        "report-only" => "warn",
        "refused" | "failed" => "bad",
        _ => "dim",
    };
    write!(to, "<tr><td><b>{}</b>", Text(&upstream.upstream))?;
    if let Some(address) = &upstream.address {
        write!(to, "<br><span class=\"dim mono\">{}</span>", Text(address))?;
    }
    chain(to, number, upstream, now)?;
    write!(to, "</td><td data-name=\"Verdict\"><span class=\"verdict {class}\">{}</span>", upstream.verdict)?;
    if let Some(code) = upstream.code.filter(|code| *code != "ok") {
        write!(to, " <code>{code}</code>")?;
    }
    for (text, class) in [(&upstream.message, ""), (&upstream.hint, "dim")] {
        if let Some(text) = text {
            write!(to, "<br><span class=\"{class}\">{}</span>", Text(text))?;
        }
    }
    to.write_str("</td><td class=\"number\" data-name=\"Days left\">")?;
    match upstream.earliest_not_after {
        Some(at) => {
            let left = days(at.0, now);
            write!(to, "<b class=\"{}\" title=\"{}\">{left}</b>", urgency(left), rfc3339(at.0))?;
        }
        None => to.write_str("–")?,
    }
    let attempt = upstream.last_attempt.map_or_else(|| "never".into(), |at| ago(at, now));
    write!(
        to,
        "</td><td data-name=\"TLS\">{}</td><td class=\"number\" data-name=\"Refused in the last hour\">{}</td><td data-name=\"Last attempt\">{attempt}</td></tr>",
        upstream.tls.unwrap_or("–"),
        upstream.refused_last_hour
    )
}

fn chain(to: &mut String, number: usize, upstream: &UpstreamStatus, now: OffsetDateTime) -> fmt::Result {
    if upstream.chain.is_empty() {
        return Ok(());
    }
    let count = upstream.chain.len();
    let plural = if count == 1 { "" } else { "s" };
    write!(to, "<details id=\"chain-{number}\"><summary>{count} certificate{plural}</summary><ol>")?;
    for certificate in &upstream.chain {
        certificate_item(to, certificate, now)?;
    }
    to.write_str("</ol></details>")
}

fn certificate_item(to: &mut String, certificate: &CertificateStatus, now: OffsetDateTime) -> fmt::Result {
    write!(to, "<li>{}", Text(&certificate.subject))?;
    if let Some(issuer) = &certificate.issuer {
        write!(to, "<br><span class=\"dim\">issued by</span> {}", Text(issuer))?;
    }
    if let (Some(from), Some(until)) = (certificate.not_before, certificate.not_after) {
        let class = urgency(days(until.0, now));
        write!(
            to,
            "<br><span class=\"dim\">valid from</span> {} <span class=\"dim\">until</span> <span class=\"{class}\">{}, {}</span>",
            rfc3339(from.0),
            rfc3339(until.0),
            ends(until.0, now)
        )?;
    }
    if !certificate.names.is_empty() {
        write!(to, "<br><span class=\"dim\">for</span> {}", Text(certificate.names.join(", ")))?;
    }
    let key = certificate.key.as_deref().unwrap_or("unreadable");
    write!(to, "<br><span class=\"dim\">{}, sha256</span> <code>{}</code></li>", Text(key), certificate.sha256)
}

fn refusals(to: &mut String, status: &Status) -> fmt::Result {
    if status.last_hour.by_upstream.is_empty() {
        return Ok(());
    }
    section(to, "Refused in the last hour", &["Upstream", "Code", "Requests"])?;
    for refusals in &status.last_hour.by_upstream {
        write!(
            to,
            "<tr><td>{}</td><td data-name=\"Code\"><code>{}</code></td><td class=\"number\" data-name=\"Requests\">{}</td></tr>",
            Text(&refusals.upstream),
            refusals.code,
            refusals.count
        )?;
    }
    to.write_str(SECTION_END)
}

fn events(to: &mut String, status: &Status) -> fmt::Result {
    section(to, "Last events", &["Time", "What", "Client", "Event"])?;
    if status.events.is_empty() {
        to.write_str("<tr><td colspan=\"4\" class=\"dim\">Nothing was refused since the start.</td></tr>")?;
    }
    for event in &status.events {
        let class = if event.outcome == "bypassed" { "warn" } else { "bad" };
        write!(
            to,
            "<tr><td>{}</td><td><b class=\"{class}\">{}</b> <code>{}</code> {}<br><span class=\"dim\">{}</span></td><td data-name=\"Client\">{}<br><span class=\"dim\">{}</span></td><td data-name=\"Event\"><code>{}</code></td></tr>",
            rfc3339(event.time.0),
            event.outcome,
            event.code,
            Text(&event.target),
            Text(&event.message),
            Text(&event.client),
            Text(&event.listener),
            Text(&event.id)
        )?;
    }
    to.write_str(SECTION_END)
}

/// Entries of what ends; later ones are in `/status`.
const MOST_COMING: usize = 20;

fn coming(to: &mut String, status: &Status) -> fmt::Result {
    section(to, "What happens next", &["When", "What"])?;
    let reload = &status.reload;
    match &reload.failure {
        Some(failure) => write!(
            to,
            "<tr><td>{}</td><td><b class=\"bad\">reload failed</b>: the old settings remain in effect<br><span class=\"dim\">{}</span></td></tr>",
            rfc3339(failure.time.0),
            Text(&failure.message)
        )?,
        None => write!(
            to,
            "<tr><td>{}</td><td>settings loaded; {} reloads since the start, {} failed</td></tr>",
            rfc3339(reload.last_success.0),
            reload.succeeded,
            reload.failed
        )?,
    }
    for coming in status.coming.iter().take(MOST_COMING) {
        let class = urgency(days(coming.at.0, status.now.0));
        write!(
            to,
            "<tr><td>{}</td><td>{} <span class=\"{class}\">{}</span><br><span class=\"dim\">{}</span></td></tr>",
            rfc3339(coming.at.0),
            Text(&coming.what),
            ends(coming.at.0, status.now.0),
            Text(coming.then)
        )?;
    }
    to.write_str(SECTION_END)
}

fn listeners(to: &mut String, status: &Status) -> fmt::Result {
    section(to, "Listeners", &["Listener", "Address", "To", "Open connections"])?;
    for listener in &status.listeners {
        write!(
            to,
            "<tr><td>{}</td><td data-name=\"Address\"><code>{}</code></td><td data-name=\"To\">{}</td><td class=\"number\" data-name=\"Open connections\">{}</td></tr>",
            Text(&listener.name),
            Text(&listener.address),
            Text(&listener.to),
            listener.connections_open
        )?;
    }
    to.write_str(SECTION_END)
}
