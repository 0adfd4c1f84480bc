//! The results for several servers: a row each, and their sum. Pure.

use std::fmt;

use anstyle::Style;

use crate::{
    clock::distance,
    terminal::{BAD, FAINT, GOOD, TITLE, WARNING},
};

use super::{
    certificate::day,
    report::{Report, Verdict},
};

/// What a table says of one server.
#[derive(Clone, Debug)]
pub struct Row {
    verdict: Option<Verdict>,
    server: String,
    expires: String,
    what: String,
}

impl Row {
    /// Of a server that has not answered yet.
    pub fn waiting(server: &str) -> Self {
        Self { verdict: None, server: server.to_owned(), expires: String::new(), what: String::new() }
    }

    /// Of a server that was checked.
    pub fn of(report: &Report) -> Self {
        let expires = report.until().map(|(until, at)| {
            let left = (until - at).whole_seconds();
            format!("{} ({})", day(until), distance(left))
        });
        let what = match report.problem() {
            Some(problem) => problem,
            None => match report.warnings().len() {
                0 => String::new(),
                1 => "1 warning".into(),
                count => format!("{count} warnings"),
            },
        };
        Self {
            verdict: Some(report.verdict()),
            server: report.upstream().authority(),
            expires: expires.unwrap_or_default(),
            what,
        }
    }
}

impl Verdict {
    fn look(self) -> (char, &'static str, Style) {
        match self {
            Self::Bypassed(_) => ('✘', "bypassed", BAD),
            Self::NoConnection => ('!', "no connection", WARNING),
            Self::Refused => ('✘', "refused", BAD),
            Self::Trusted => ('✔', "trusted", GOOD),
        }
    }
}

/// The widths of a table.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    server: usize,
    /// Longer lines are cut.
    columns: Option<usize>,
}

const VERDICT: usize = "no connection".len();
const EXPIRES: usize = "2026-11-21 (364 days)".len();

impl Table {
    /// For these servers, in lines that are no longer than so many columns.
    pub fn of<'a>(servers: impl Iterator<Item = &'a str>, columns: Option<usize>) -> Self {
        let widest = servers.map(|server| server.chars().count()).max().unwrap_or(0);
        Self { server: widest.max("SERVER".len()), columns }
    }

    /// The titles of the columns.
    pub fn heading(&self) -> String {
        self.line((' ', "VERDICT", TITLE), "SERVER", "EXPIRES", "WHAT", TITLE)
    }

    /// A row.
    pub fn row(&self, row: &Row) -> String {
        match row.verdict {
            Some(verdict) => self.line(verdict.look(), &row.server, &row.expires, &row.what, Style::new()),
            None => self.line((' ', "waiting", FAINT), &row.server, "", "", FAINT),
        }
    }

    fn line(
        &self,
        (mark, verdict, look): (char, &str, Style),
        server: &str,
        expires: &str,
        what: &str,
        style: Style,
    ) -> String {
        let start = format!("{mark} {verdict:<VERDICT$}");
        let rest = format!("  {server:<0$}  {expires:<EXPIRES$}  {what}", self.server);
        let rest = rest.trim_end();
        let left = self.columns.map(|columns| columns.saturating_sub(start.chars().count() + 1));
        let rest = match left.filter(|left| rest.chars().count() > *left) {
            Some(left) => rest.chars().take(left.saturating_sub(1)).chain(['…']).collect(),
            None => rest.to_owned(),
        };
        format!("{look}{start}{look:#}{style}{rest}{style:#}")
    }
}

/// How many servers have which verdict.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    trusted: usize,
    refused: usize,
    bypassed: usize,
    no_connection: usize,
}

impl Sums {
    /// Counts one.
    pub fn add(&mut self, verdict: Verdict) {
        *match verdict {
            Verdict::Bypassed(_) => &mut self.bypassed,
            Verdict::NoConnection => &mut self.no_connection,
            Verdict::Refused => &mut self.refused,
            Verdict::Trusted => &mut self.trusted,
        } += 1;
    }

    fn all(self) -> usize {
        self.trusted + self.refused + self.bypassed + self.no_connection
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.all();
        write!(f, "{all} server{}: ", if all == 1 { "" } else { "s" })?;
        let counts = [
            (self.trusted, "trusted", GOOD),
            (self.refused, "refused", BAD),
            (self.bypassed, "refused but bypassed", BAD),
            (self.no_connection, "without a connection", WARNING),
        ];
        let shown = counts.into_iter().filter(|(count, ..)| *count > 0);
        for (place, (count, what, style)) in shown.enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{style}{count} {what}{style:#}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_no_wider_than_the_terminal() {
        let row = Row {
            verdict: Some(Verdict::Refused),
            what: "expired: it is over".into(),
            ..Row::waiting("a.example:9292")
        };
        let plain = |columns| {
            let table = Table::of(["a.example:9292"].into_iter(), columns);
            anstream::adapter::strip_str(&table.row(&row)).to_string()
        };
        let whole = "✘ refused        a.example:9292                         expired: it is over";
        assert_eq!(plain(None), whole);
        assert_eq!(plain(Some(80)), whole);
        assert_eq!(plain(Some(67)), "✘ refused        a.example:9292                         expired: …");
        assert_eq!(plain(Some(5)).chars().count(), 16);
    }

    #[test]
    fn sums_name_what_there_is() {
        let mut sums = Sums::default();
        [Verdict::Trusted, Verdict::Refused, Verdict::Trusted].into_iter().for_each(|verdict| sums.add(verdict));
        let text = anstream::adapter::strip_str(&sums.to_string()).to_string();
        assert_eq!(text, "3 servers: 2 trusted, 1 refused");
    }
}
