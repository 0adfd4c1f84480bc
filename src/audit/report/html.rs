//! A survey as one HTML page to attach to a ticket: when it was, who was affected, what was sent, the chains, and what to
//! do. It needs nothing from elsewhere, and no script.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

use time::OffsetDateTime;

use super::{complaints, name, perhaps_sent, plural, sent_unverified, tallies, text, unread, what};
use crate::{
    audit::{
        read::Survey,
        summary::{By, ChainLink, Group, NameTally, Order, Sent, Summary},
    },
    clock::rfc3339,
    html::{Html, STYLE, sentence},
};

mod timeline;

/// What explains a code; `None` for a code that this version does not know.
pub type Explain = fn(&str) -> Option<String>;

/// So many groups are shown one by one; the others are counted.
const MOST_GROUPS_SHOWN: usize = 200;

/// So many names of a tally are shown.
const MOST_NAMES_SHOWN: usize = 20;

/// Writes the page.
pub(super) fn html(
    survey: &Survey,
    order: Order,
    now: OffsetDateTime,
    explain: Explain,
    to: &mut impl Write,
) -> io::Result<()> {
    let groups = survey.summary.groups(order);
    write!(
        to,
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>vouchsafe: audit report</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n"
    )?;
    header(survey, groups.len(), now, to)?;
    if survey.summary.total().is_some() {
        timeline::section(&survey.summary, &groups, to)?;
        refusals(&survey.summary, &groups, now, to)?;
        clients(&groups, to)?;
        unverified(&groups, to)?;
        codes(&groups, explain, to)?;
    }
    files(survey, to)?;
    writeln!(to, "</body>\n</html>")
}

/// The answers to the first questions: how much, when, and whether anything was sent.
fn header(survey: &Survey, groups: usize, now: OffsetDateTime, to: &mut impl Write) -> io::Result<()> {
    let summary = &survey.summary;
    writeln!(to, "<header>\n<h1>Audit report</h1>")?;
    let (version, now) = (env!("CARGO_PKG_VERSION"), rfc3339(now));
    writeln!(
        to,
        "<p class=\"soft\">{}.<br>Made by vouchsafe {version} at {now}.</p>",
        Html(&text::title(survey, groups))
    )?;
    if summary.total().is_some() {
        let class = if summary.sent().is_anything() { "bad" } else { "good" };
        writeln!(to, "<p class=\"banner {class}\">{}</p>", Html(sentence(&text::was_sent(summary))))?;
    }
    if let Some(missing) = summary.gaps().missing {
        let events = plural(missing.events, "event");
        let (from, until) = (rfc3339(missing.first), rfc3339(missing.last));
        writeln!(to, "<p class=\"banner warn\">{events} missing in the log, from {from} to {until}.</p>")?;
    }
    let broken = complaints(&survey.logs);
    let bad = survey.logs.iter().filter(|log| log.error.is_some() || log.is_something_else()).map(unread);
    for problem in bad.chain(broken) {
        writeln!(to, "<p class=\"banner warn\">{}</p>", Html(&problem))?;
    }
    sums(survey, to)?;
    writeln!(to, "</header>")
}

/// The figures.
fn sums(survey: &Survey, to: &mut impl Write) -> io::Result<()> {
    let summary = &survey.summary;
    let groups = summary.groups(Order::Last);
    let names = |tally: fn(&Group) -> &NameTally| -> BTreeSet<String> {
        groups.iter().flat_map(|group| tally(group).by_name()).map(|(name, _)| name.to_owned()).collect()
    };
    let events = summary.total().map_or(0, |total| total.events);
    writeln!(to, "<div class=\"sums\">")?;
    for (count, label) in [
        (events, "events"),
        (names(|group| &group.tallies.upstreams).len() as u64, "servers"),
        (names(|group| &group.tallies.codes).len() as u64, "codes"),
        (names(|group| &group.tallies.clients).len() as u64, "clients"),
        (summary.sent().requests, "requests sent unverified"),
    ] {
        writeln!(to, "<div><b>{count}</b><span class=\"soft small\">{label}</span></div>")?;
    }
    writeln!(to, "</div>")
}

/// Each group, with what to do.
fn refusals(summary: &Summary, groups: &[&Group], now: OffsetDateTime, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "<section>\n<h2>What happened, and what to do</h2>")?;
    for group in groups.iter().take(MOST_GROUPS_SHOWN) {
        refusal(summary.by(), group, now, to)?;
    }
    let more = groups.len().saturating_sub(MOST_GROUPS_SHOWN);
    if more > 0 || summary.other().is_some() {
        let others = match summary.other() {
            Some(other) => format!(", and {} of further kinds", plural(other.events, "event")),
            None => String::new(),
        };
        writeln!(
            to,
            "<p class=\"banner warn\">Not shown here: {} more{others}. Use <code>--upstream</code>, <code>--code</code>, \
             <code>--since</code> and <code>--until</code> for fewer events, or <code>--format csv</code> for all.</p>",
            plural(more as u64, "group")
        )?;
    }
    writeln!(to, "</section>")
}

/// How a word for what became of the request is coloured.
fn class(action: &str) -> &'static str {
    match what(action) {
        "bypassed" => "bad",
        "refused" => "warn",
        _ => "info",
    }
}

fn refusal(by: By, group: &Group, now: OffsetDateTime, to: &mut impl Write) -> io::Result<()> {
    write!(to, "<article class=\"card\">\n<h3>{}", Html(&group.name))?;
    if !group.code.is_empty() {
        let (action, code) = (what(&group.action), &group.code);
        write!(to, " <span class=\"badge {}\">{}: {}</span>", class(&group.action), Html(action), Html(code))?;
    }
    writeln!(to, "</h3>")?;
    if by == By::Kind {
        if !group.message.is_empty() {
            writeln!(to, "<p>{}</p>", Html(sentence(&group.message)))?;
        }
        if !group.hint.is_empty() {
            writeln!(to, "<p><b>What to do:</b> {}.</p>", Html(&group.hint))?;
        }
    }
    writeln!(to, "<dl>")?;
    let (first, last) = (rfc3339(group.extent.first), rfc3339(group.extent.last));
    row(to, "events", &format!("{}, {first} to {last}", group.extent.events))?;
    row(to, "sent", &sent_words(group.sent))?;
    for (title, names) in tallies(group, by, MOST_NAMES_SHOWN) {
        row(to, title, &names)?;
    }
    writeln!(to, "</dl>")?;
    if by == By::Kind {
        chain(group, now, to)?;
    }
    writeln!(to, "</article>")
}

fn row(to: &mut impl Write, title: &str, text: &str) -> io::Result<()> {
    writeln!(to, "<dt>{title}</dt><dd>{}</dd>", Html(text))
}

fn sent_words(sent: Sent) -> String {
    sent_unverified(sent).or_else(|| perhaps_sent(sent)).unwrap_or_else(|| "nothing".into())
}

/// The chain that the server sent, and where it is saved.
fn chain(group: &Group, now: OffsetDateTime, to: &mut impl Write) -> io::Result<()> {
    let about = group.certificate.as_ref();
    if group.chain.is_empty() && about.is_none() {
        return Ok(());
    }
    let names: Vec<_> = group.tallies.chains.by_count();
    let title = match group.chain.len() {
        0 => "The certificate".into(),
        sent => format!("The chain: {}", plural(sent as u64, "certificate")),
    };
    writeln!(to, "<details>\n<summary>{title}</summary>")?;
    if let Some(about) = about {
        let place = if &*about.place == "bundle" { "in the bundle" } else { "sent by the server" };
        writeln!(to, "<p>It is about <b>{}</b>, {place}.</p>", Html(&about.subject))?;
    }
    if !group.chain.is_empty() {
        writeln!(
            to,
            "<div class=\"scroll\"><table>\n<tr><th>subject</th><th>issuer</th><th>not after</th><th>SHA-256</th></tr>"
        )?;
        group.chain.iter().try_for_each(|link| self::link(link, now, to))?;
        writeln!(to, "</table></div>")?;
    }
    for (chain, count) in names.iter().take(MOST_NAMES_SHOWN) {
        let events = plural(*count, "event");
        writeln!(
            to,
            "<p class=\"small\"><span class=\"mono\">{}.pem</span> in the directory of <code>--save-failed-chains</code>: {events}</p>",
            Html(chain)
        )?;
    }
    writeln!(to, "</details>")
}

fn link(link: &ChainLink, now: OffsetDateTime, to: &mut impl Write) -> io::Result<()> {
    let end = match link.not_after {
        Some(end) if end < now => format!("<span class=\"badge bad\">{}</span>", rfc3339(end)),
        Some(end) => rfc3339(end),
        None => String::new(),
    };
    let subject = if link.subject.is_empty() { "(cannot be read)" } else { &*link.subject };
    writeln!(
        to,
        "<tr><td>{}</td><td>{}</td><td>{end}</td><td class=\"mono\">{}</td></tr>",
        Html(subject),
        Html(&link.issuer),
        Html(&link.sha256)
    )
}

/// Who was affected, over all groups.
fn clients(groups: &[&Group], to: &mut impl Write) -> io::Result<()> {
    let mut all: BTreeMap<&str, (u64, BTreeSet<&str>)> = BTreeMap::new();
    for group in groups {
        for (client, count) in group.tallies.clients.by_count() {
            let entry = all.entry(client).or_default();
            entry.0 = entry.0.saturating_add(count);
            entry.1.extend(group.tallies.upstreams.by_count().into_iter().map(|(upstream, _)| upstream));
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    let mut rows: Vec<_> = all.into_iter().collect();
    rows.sort_by_key(|(client, (count, _))| (std::cmp::Reverse(*count), *client));
    writeln!(to, "<section>\n<h2>Who was affected</h2>\n<div class=\"card scroll\"><table>")?;
    writeln!(to, "<tr><th>client</th><th class=\"number\">requests</th><th>servers</th></tr>")?;
    for (client, (count, upstreams)) in rows.iter().take(MOST_GROUPS_SHOWN) {
        let more = upstreams.len().saturating_sub(MOST_NAMES_SHOWN);
        let mut names: Vec<_> = upstreams.iter().take(MOST_NAMES_SHOWN).map(|name| (*name).to_owned()).collect();
        if more > 0 {
            names.push(format!("and {more} more"));
        }
        let (client, names) = (Html(client), names.join(", "));
        writeln!(to, "<tr><td>{client}</td><td class=\"number\">{count}</td><td>{}</td></tr>", Html(&names))?;
    }
    writeln!(to, "</table>")?;
    let more = rows.len().saturating_sub(MOST_GROUPS_SHOWN);
    if more > 0 {
        writeln!(to, "<p class=\"soft\">and {more} more; <code>--by client</code> lists them</p>")?;
    }
    writeln!(to, "</div>\n</section>")
}

/// What was sent to servers that failed verification.
fn unverified(groups: &[&Group], to: &mut impl Write) -> io::Result<()> {
    let sent_any: Vec<_> = groups.iter().filter(|group| group.sent.is_anything() || group.sent.perhaps > 0).collect();
    writeln!(to, "<section>\n<h2>What was sent</h2>\n<div class=\"card scroll\">")?;
    if sent_any.is_empty() {
        writeln!(to, "<p>Nothing: no byte of a request went to a server that failed verification.</p>")?;
    } else {
        writeln!(to, "<table>\n<tr><th>to</th><th>code</th><th>what</th></tr>")?;
        for group in sent_any.iter().take(MOST_GROUPS_SHOWN) {
            let (name, code, sent) = (Html(&group.name), Html(&group.code), sent_words(group.sent));
            writeln!(to, "<tr><td>{name}</td><td>{code}</td><td>{sent}</td></tr>")?;
        }
        writeln!(to, "</table>")?;
    }
    writeln!(to, "</div>\n</section>")
}

/// What the codes mean.
fn codes(groups: &[&Group], explain: Explain, to: &mut impl Write) -> io::Result<()> {
    let codes: BTreeSet<&str> =
        groups.iter().flat_map(|group| group.tallies.codes.by_name()).map(|(code, _)| code).collect();
    writeln!(to, "<section>\n<h2>What the codes mean</h2>")?;
    for code in codes {
        let Some(text) = explain(code) else { continue };
        writeln!(to, "<details class=\"card\">\n<summary><b>{}</b></summary>", Html(code))?;
        for paragraph in text.split("\n\n").skip(1) {
            let is_flowing = !paragraph.starts_with([' ', '-', '|']);
            let element = if is_flowing { "p" } else { "pre" };
            writeln!(to, "<{element}>{}</{element}>", Html(paragraph))?;
        }
        writeln!(to, "</details>")?;
    }
    writeln!(to, "</section>")
}

/// What was read.
fn files(survey: &Survey, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "<section>\n<h2>What was read</h2>\n<div class=\"card scroll\"><table>")?;
    writeln!(
        to,
        "<tr><th>file</th><th class=\"number\">lines</th><th class=\"number\">counted</th><th class=\"number\">left out</th>\
         <th class=\"number\">broken</th></tr>"
    )?;
    for log in &survey.logs {
        let (lines, path) = (&log.lines, name(&log.path));
        write!(to, "<tr><td>{}</td>", Html(&path))?;
        for count in [lines.all, lines.counted, lines.left_out, lines.broken.lines()] {
            write!(to, "<td class=\"number\">{count}</td>")?;
        }
        writeln!(to, "</tr>")?;
    }
    writeln!(to, "</table></div>\n</section>")?;
    for found in &survey.found {
        let (path, line) = (name(&found.path), &found.line);
        let event = text::fields(line);
        writeln!(to, "<section>\n<h2>{}, line {}</h2>\n<div class=\"card\"><dl>", Html(&path), found.number)?;
        for (key, value) in event {
            row_of_event(&key, &value, to)?;
        }
        writeln!(to, "</dl></div>\n</section>")?;
    }
    Ok(())
}

fn row_of_event(key: &str, value: &str, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "<dt>{}</dt><dd>{}</dd>", Html(key), Html(value))
}
