//! A survey as a table: for a spreadsheet, and for a ticket.

use std::io::{self, Write};

use super::{sent, what};
use crate::{
    audit::{
        read::Survey,
        summary::{Group, Order},
    },
    clock::rfc3339,
};

/// Comma-separated values (RFC 4180) with a heading.
pub(super) fn csv(survey: &Survey, order: Order, to: &mut impl Write) -> io::Result<()> {
    let by = survey.summary.by().as_str();
    write!(
        to,
        "{by},code,action,count,clients,sent_requests,sent_bytes,bypassed,first,last,certificate_sha256,chain_sha256,\
         message,hint\r\n"
    )?;
    for group in survey.summary.groups(order) {
        let cells = cells(group);
        let cells: Vec<_> = cells.iter().map(|cell| csv_cell(cell)).collect();
        write!(to, "{}\r\n", cells.join(","))?;
    }
    Ok(())
}

fn cells(group: &Group) -> [String; 14] {
    let certificate = group.certificate.as_ref().map_or("", |certificate| &certificate.sha256);
    let chain = group.tallies.chains.by_count().first().map_or_else(String::new, |(chain, _)| (*chain).to_owned());
    [
        group.name.to_string(),
        group.code.to_string(),
        group.action.to_string(),
        group.extent.events.to_string(),
        group.tallies.clients.distinct().0.to_string(),
        group.sent.requests.to_string(),
        group.sent.bytes.to_string(),
        group.sent.bypassed.to_string(),
        rfc3339(group.extent.first),
        rfc3339(group.extent.last),
        certificate.to_owned(),
        chain,
        group.message.to_string(),
        group.hint.to_string(),
    ]
}

/// A cell; what a spreadsheet would take for a formula begins with an apostrophe.
fn csv_cell(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@']);
    let text = format!("{}{text}", if formula { "'" } else { "" });
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

/// A table in Markdown.
pub(super) fn markdown(survey: &Survey, order: Order, to: &mut impl Write) -> io::Result<()> {
    let by = survey.summary.by().as_str();
    writeln!(to, "| {by} | code | what | count | clients | sent | first | last | why |")?;
    writeln!(to, "|---|---|---|---:|---:|---|---|---|---|")?;
    for group in survey.summary.groups(order) {
        let cells = [
            group.name.to_string(),
            group.code.to_string(),
            what(&group.action).to_owned(),
            group.extent.events.to_string(),
            group.tallies.clients.distinct().0.to_string(),
            sent(group.sent),
            rfc3339(group.extent.first),
            rfc3339(group.extent.last),
            group.message.to_string(),
        ];
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|").replace('<', "&lt;")).collect();
        writeln!(to, "| {} |", cells.join(" | "))?;
    }
    Ok(())
}
