//! The page for people: one HTML document without anything from elsewhere, which a script only refreshes.
//!
//! Whatever comes from a certificate, a client or a setting goes through [`Html`].

mod chart;
mod tables;
mod upstreams;

use std::fmt::{self, Display, Write};

use aws_lc_rs::digest;
use data_encoding::BASE64;
use http::{HeaderValue, Response, StatusCode, header};
use time::OffsetDateTime;

use crate::{
    clock::{distance, rfc3339},
    html::{Html, STYLE},
};

use super::{
    endpoints::respond,
    status::{ReloadStatus, Status},
};

/// The document; `{style}`, `{title}` and `{page}` are filled in.
const TEMPLATE: &str = include_str!("page/page.html");

/// The document with its content security policy.
#[derive(Debug)]
pub(super) struct Page {
    template: String,
    policy: String,
}

impl Page {
    /// Hashes its style and script, so that a browser applies and runs these and no others.
    pub(super) fn new() -> Self {
        let template = TEMPLATE.replacen("{style}", STYLE, 1);
        let hash = |tag: &str| {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            let inner = template.split_once(&open).and_then(|(_, rest)| rest.split_once(&close));
            let digest = digest::digest(&digest::SHA256, inner.map_or("", |(inner, _)| inner).as_bytes());
            BASE64.encode(digest.as_ref())
        };
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash("style"),
            hash("script")
        );
        Self { template, policy }
    }

    /// The document as a response.
    ///
    /// # Errors
    /// None that can happen: writing to a string does not fail.
    pub(super) fn show(&self, status: &Status) -> Result<Response<String>, fmt::Error> {
        let mut page = String::with_capacity(16 << 10);
        body(&mut page, status)?;
        let (_, summary) = summary(status);
        let title = Html(format_args!("vouchsafe: {summary}")).to_string();
        // What is filled in first has no braces of the template, but names of certificates may look like them.
        let (before, after) = self.template.split_once("{page}").unwrap_or((&self.template, ""));
        let document = [&before.replacen("{title}", &title, 1), &*page, after].concat();
        let mut response = respond(StatusCode::OK, "text/html; charset=utf-8", document);
        if let Ok(policy) = HeaderValue::from_str(&self.policy) {
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        Ok(response)
    }
}

fn body(to: &mut String, status: &Status) -> fmt::Result {
    heading(to, status)?;
    let (class, text) = summary(status);
    write!(to, "<p class=\"banner {class}\">{}</p>", Html(text))?;
    if let Some(failure) = &status.reload.failure {
        let (time, message) = (rfc3339(failure.time.0), Html(&failure.message));
        write!(to, "<div class=\"banner bad\">The last reload failed at {time}:<pre>{message}</pre></div>")?;
    }
    sums(to, status)?;
    section(to, "Upstreams", |to| upstreams::table(to, status))?;
    section(to, "The last hour", |to| {
        to.write_str("<div class=\"charts\"><div>")?;
        chart::minutes(to, "Refusals", "bad", &status.last_hour.refusals)?;
        chart::minutes(to, "Handshakes", "info", &status.last_hour.handshakes)?;
        to.write_str("</div>")?;
        chart::days_left(to, &status.upstreams, status.now.0)?;
        to.write_str("</div>")?;
        tables::refusals(to, status)
    })?;
    section(to, "Last events", |to| tables::events(to, status))?;
    section(to, "What happens next", |to| tables::coming(to, status))?;
    section(to, "Listeners", |to| tables::listeners(to, status))
}

fn section(to: &mut String, title: &str, content: impl FnOnce(&mut String) -> fmt::Result) -> fmt::Result {
    write!(to, "<section><h2>{title}</h2><div class=\"card\">")?;
    content(to)?;
    to.write_str("</div></section>")
}

fn heading(to: &mut String, status: &Status) -> fmt::Result {
    let class = if status.phase == "ready" { "good" } else { "warn" };
    let (phase, version, now, generation) = (status.phase, status.version, status.now.0, status.generation);
    let (started, loaded) = (ago(status.started.0, now), ago(status.reload.last_success.0, now));
    let reloads = match &status.reload {
        ReloadStatus { succeeded: 0, failed: 0, .. } => String::new(),
        reload => {
            format!(" after {}, {} of them failed", plural(reload.succeeded + reload.failed, "reload"), reload.failed)
        }
    };
    write!(
        to,
        "<header><div class=\"head\"><h1>vouchsafe</h1><span class=\"badge {class}\">{phase}</span></div><p class=\"soft small\">Version {version}, started {started}. Settings {generation}, loaded {loaded}{reloads}. As of <span class=\"when\">{}</span>.</p></header>",
        rfc3339(now)
    )
}

/// What matters most, in a sentence, and its class.
fn summary(status: &Status) -> (&'static str, String) {
    let named = |verdict: &str| {
        let all: Vec<_> = status.upstreams.iter().filter(|upstream| upstream.verdict == verdict).collect();
        let names: Vec<_> = all.iter().take(MOST_NAMES).map(|upstream| &*upstream.upstream).collect();
        let more = all.len() - names.len();
        names.join(", ") + &if more > 0 { format!(", and {more} more") } else { String::new() }
    };
    let (refused, failed, bypassed) = (named("refused"), named("failed"), named("report-only"));
    let soon = tables::ahead(status).next().filter(|coming| days(coming.at.0, status.now.0) < 7);
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
        ("info", "No upstream has been connected to yet".into())
    } else {
        ("good", "All upstreams contacted so far are verified".into())
    }
}

/// Upstreams that the summary names.
const MOST_NAMES: usize = 5;

/// The figures.
fn sums(to: &mut String, status: &Status) -> fmt::Result {
    let count = |is: fn(&str) -> bool| status.upstreams.iter().filter(|upstream| is(upstream.verdict)).count();
    let (verified, tried) = (count(|verdict| verdict == "verified"), count(|verdict| verdict != "untried"));
    let next = tables::ahead(status).next().map(|coming| distance((coming.at.0 - status.now.0).whole_seconds()));
    to.write_str("<div class=\"sums\">")?;
    let of_tried = if tried > 0 { format!("{verified} of {tried}") } else { "–".into() };
    sum(to, of_tried, "upstreams verified")?;
    sum(to, status.last_hour.refusals.iter().sum::<u64>(), "refusals in the last hour")?;
    sum(to, status.last_hour.handshakes.iter().sum::<u64>(), "handshakes in the last hour")?;
    sum(to, next.as_deref().unwrap_or("–"), "until something expires")?;
    to.write_str("</div>")
}

fn sum(to: &mut String, figure: impl Display, of: &str) -> fmt::Result {
    write!(to, "<div><b>{figure}</b><span class=\"soft small\">{of}</span></div>")
}

/// Whole days from now; negative if it has been over for a day or more.
fn days(until: OffsetDateTime, now: OffsetDateTime) -> i64 {
    (until - now).whole_days()
}

/// The class for something that has so many days left.
const fn urgency(days: i64) -> &'static str {
    match days {
        ..7 => "bad",
        7..30 => "warn",
        _ => "good",
    }
}

/// `expires in 3 days`, or `expired 3 days ago`.
fn ends(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (at - now).whole_seconds();
    match seconds {
        ..0 => format!("expired {} ago", distance(seconds)),
        _ => format!("expires in {}", distance(seconds)),
    }
}

fn ago(at: OffsetDateTime, now: OffsetDateTime) -> String {
    format!("{} ago", distance((now - at).whole_seconds()))
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    #[test]
    fn days_are_whole_and_the_colour_follows_them() {
        let now = datetime!(2026-11-21 12:00 UTC);
        for (hours, left, class) in
            [(-25, -1, "bad"), (-1, 0, "bad"), (23, 0, "bad"), (7 * 24, 7, "warn"), (31 * 24, 31, "good")]
        {
            let days = days(now + Duration::hours(hours), now);
            assert_eq!((days, urgency(days)), (left, class), "{hours}");
        }
    }
}
