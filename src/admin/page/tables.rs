//! The tables of the page but that of upstreams. On a narrow screen each row becomes a list, with the titles of the
//! columns before its cells.

use std::{
    fmt::{self, Display, Write},
    iter,
};

use crate::{
    admin::status::{Coming, Status},
    clock::rfc3339,
    html::{Html, sentence},
};

use super::{days, ends, plural, urgency};

/// The title of a column, and the class of its cells.
pub(super) type Column = (&'static str, &'static str);

/// Begins a table.
pub(super) fn begin(to: &mut String, columns: &[Column]) -> fmt::Result {
    to.write_str("<table><thead><tr>")?;
    columns.iter().try_for_each(|(title, class)| write!(to, "<th scope=\"col\" class=\"{class}\">{title}</th>"))?;
    to.write_str("</tr></thead><tbody>")
}

/// The cells of a row.
pub(super) fn cells<const N: usize>(to: &mut String, columns: &[Column; N], cells: [&dyn Display; N]) -> fmt::Result {
    let mut cells = iter::zip(columns, cells);
    cells.try_for_each(|((title, class), cell)| write!(to, "<td class=\"{class}\" data-name=\"{title}\">{cell}</td>"))
}

fn row<const N: usize>(to: &mut String, columns: &[Column; N], of: [&dyn Display; N]) -> fmt::Result {
    to.write_str("<tr>")?;
    cells(to, columns, of)?;
    to.write_str("</tr>")
}

const END: &str = "</tbody></table>";

/// What stands in place of a table without rows.
pub(super) fn nothing(to: &mut String, text: &str) -> fmt::Result {
    write!(to, "<p class=\"soft\">{text}</p>")
}

/// Says how many rows there are beyond those that are shown.
fn more(to: &mut String, count: usize, shown: usize, are: &str) -> fmt::Result {
    match count.saturating_sub(shown) {
        0 => Ok(()),
        more => {
            write!(to, "<p class=\"soft small\">{more} more {are}; <a href=\"/status\">/status</a> lists them.</p>")
        }
    }
}

/// What was refused within the last hour, by upstream and code.
pub(super) fn refusals(to: &mut String, status: &Status) -> fmt::Result {
    const COLUMNS: [Column; 3] = [("Upstream", "wide"), ("Code", ""), ("Requests", "number")];
    if status.last_hour.by_upstream.is_empty() {
        return nothing(to, "Nothing was refused in the last hour.");
    }
    to.write_str("<h3>What was refused</h3>")?;
    begin(to, &COLUMNS)?;
    for refusals in &status.last_hour.by_upstream {
        let code = format_args!("<code>{}</code>", refusals.code);
        row(to, &COLUMNS, [&Html(&refusals.upstream), &code, &refusals.count])?;
    }
    to.write_str(END)
}

/// Events that are shown.
const MOST_EVENTS: usize = 20;

/// The last events, the newest first.
pub(super) fn events(to: &mut String, status: &Status) -> fmt::Result {
    const COLUMNS: [Column; 4] = [("Time", "when"), ("What", "widest"), ("Client", ""), ("Event", "when")];
    if status.events.is_empty() {
        return nothing(to, "There has been no refusal or other event since the start.");
    }
    begin(to, &COLUMNS)?;
    for event in status.events.iter().take(MOST_EVENTS) {
        let class = if event.outcome == "refused" { "bad" } else { "warn" };
        let (outcome, code) = (event.outcome, event.code);
        let (target, message) = (Html(&event.target), Html(sentence(&event.message)));
        let what = format_args!(
            "<span class=\"badge {class}\">{outcome}: {code}</span> {target}<div class=\"soft\">{message}</div>"
        );
        let (client, listener) = (Html(&event.client), Html(&event.listener));
        let client = format_args!("{client}<div class=\"soft small\">{listener}</div>");
        let id = format_args!("<code>{}</code>", Html(&event.id));
        row(to, &COLUMNS, [&rfc3339(event.time.0), &what, &client, &id])?;
    }
    to.write_str(END)?;
    more(to, status.events.len(), MOST_EVENTS, "came before")
}

/// Entries of what expires that are shown.
const MOST_COMING: usize = 20;

/// What has not expired yet, the first to expire first.
pub(super) fn ahead(status: &Status) -> impl Iterator<Item = &Coming> {
    status.coming.iter().filter(|coming| coming.at > status.now)
}

/// What expires. What has expired is only counted: where it matters, a verdict says so.
pub(super) fn coming(to: &mut String, status: &Status) -> fmt::Result {
    const COLUMNS: [Column; 3] = [("When", "when"), ("What", "wide"), ("Then", "wide")];
    let count = ahead(status).count();
    if count == 0 {
        nothing(to, "Nothing that is known of expires.")?;
    } else {
        begin(to, &COLUMNS)?;
        for coming in ahead(status).take(MOST_COMING) {
            let (class, ends) = (urgency(days(coming.at.0, status.now.0)), ends(coming.at.0, status.now.0));
            let what = format_args!("{}<div><span class=\"badge {class}\">{ends}</span></div>", Html(&coming.what));
            row(to, &COLUMNS, [&rfc3339(coming.at.0), &what, &Html(sentence(coming.then))])?;
        }
        to.write_str(END)?;
    }
    more(to, count, MOST_COMING, "expire later")?;
    let past: Vec<_> = status.coming.iter().filter(|coming| coming.at <= status.now).collect();
    let Some(last) = past.last() else { return Ok(()) };
    let (things, what) = (plural(past.len() as u64, "thing"), Html(&last.what));
    let ends = ends(last.at.0, status.now.0);
    write!(to, "<p class=\"soft small\">Not listed: {things} expired before. The last was {what}, which {ends}.</p>")
}

/// Where clients connect to.
pub(super) fn listeners(to: &mut String, status: &Status) -> fmt::Result {
    const COLUMNS: [Column; 4] = [("Listener", ""), ("Address", ""), ("To", ""), ("Connections", "number")];
    begin(to, &COLUMNS)?;
    for listener in &status.listeners {
        let address = format_args!("<code>{}</code>", Html(&listener.address));
        row(to, &COLUMNS, [&Html(&listener.name), &address, &Html(&listener.to), &listener.connections_open])?;
    }
    to.write_str(END)
}
