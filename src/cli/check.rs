//! `vouchsafe check`: a report for each server, or a table of several, and the sum.

use std::{collections::BTreeMap, io, time::Duration};

use serde_json::Value;

use super::{
    CliError, answer,
    output::{self, print, print_data, warn},
    progress::Progress,
    unless_expiring,
};
use crate::{
    check::{
        self, Target,
        catalog::{CatalogError, check_catalog},
        in_order, probe_all,
        report::Report,
        table::{Row, Sums, Table},
    },
    config::args::CheckArgs,
    connect::ConnectLimits,
    terminal::Screen,
};

/// Connects to servers.
pub(super) async fn check_servers(args: CheckArgs) -> Result<(), CliError> {
    let CheckArgs { run, json, brief, urls, expires_within: within, .. } = args;
    let config = check::config(run, warn).map_err(CliError::Config)?;
    let targets = check::servers(&config, urls, warn).map_err(CliError::Config)?;
    let screen = Screen::stdout();
    let mut all = Answers { within, ..Answers::default() };
    if json {
        as_json(config.connect, targets, &mut all).await
    } else if brief || (targets.len() > 1 && screen.is_live) {
        as_table(config.connect, targets, brief, screen, &mut all).await
    } else {
        in_full(config.connect, targets, &mut all).await
    }
    .map_err(CliError::Output)?;
    if all.is_any_untrusted { Err(CliError::No) } else { unless_expiring(all.expiring) }
}

/// What the answers come to.
#[derive(Default)]
struct Answers {
    /// An expiry within this time is reported.
    within: Option<Duration>,
    sums: Sums,
    is_any_untrusted: bool,
    expiring: Vec<String>,
}

impl Answers {
    /// Counts one.
    fn add(&mut self, report: &Report) {
        self.sums.add(report.verdict());
        self.is_any_untrusted |= !report.is_trusted();
        self.expiring.extend(self.within.and_then(|within| report.expires_within(within)));
    }
}

/// Shows which endpoints of Keystone's catalog are served.
pub(super) async fn check_endpoints(args: CheckArgs) -> Result<(), CliError> {
    let json = args.json;
    match check_catalog(args, warn).await {
        Ok(report) => answer(&report, json.then(|| report.json()), report.is_good()),
        Err(CatalogError::Config(error)) => Err(CliError::Config(error)),
        Err(error) => {
            output::error(&error.to_string().replace('\n', "\n  "));
            Err(CliError::No)
        }
    }
}

async fn as_json(limits: ConnectLimits, targets: Vec<Target>, all: &mut Answers) -> io::Result<()> {
    let mut array = Vec::new();
    let tell = |report: &Report| {
        all.add(report);
        array.push(report.json());
    };
    probe_all(limits, targets, in_order(tell)).await;
    print_data(&format!("{}\n", Value::Array(array)))
}

/// The whole report of each, and the sum of several.
async fn in_full(limits: ConnectLimits, targets: Vec<Target>, all: &mut Answers) -> io::Result<()> {
    let (count, mut first, mut written) = (targets.len(), true, Ok(()));
    let mut progress = Progress::new();
    progress.show(|| match targets.as_slice() {
        [(_, upstream)] => format!("connecting to {} …", upstream.authority()),
        _ => format!("connecting to {count} servers …"),
    });
    let tell = |report: &Report| {
        all.add(report);
        progress.clear();
        if written.is_ok() {
            written = print(&format!("{}{report}", if first { "" } else { "\n" }));
        }
        first = false;
    };
    probe_all(limits, targets, in_order(tell)).await;
    written?;
    if count > 1 { print(&format!("\n{}\n", all.sums)) } else { Ok(()) }
}

/// A row of each, the whole report of those that are not trusted unless `brief`, and the sum.
async fn as_table(
    limits: ConnectLimits,
    targets: Vec<Target>,
    brief: bool,
    screen: Screen,
    all: &mut Answers,
) -> io::Result<()> {
    let mut table = LiveTable::of(&targets, screen);
    let mut reports = BTreeMap::new();
    let mut written = table.start();
    probe_all(limits, targets, |place, report| {
        if written.is_ok() {
            written = table.fill(place, &report);
        }
        reports.insert(place, report);
    })
    .await;
    written?;
    reports.values().for_each(|report| all.add(report));
    for report in reports.values().filter(|_| !brief) {
        if !report.is_trusted() {
            print(&format!("\n{report}"))?;
        } else if !report.warnings().is_empty() {
            print(&format!("\n{}", report.only_warnings()))?;
        }
    }
    print(&format!("{}{}\n", if reports.len() > 1 || !brief { "\n" } else { "" }, all.sums))
}

/// A table that is filled while the answers come: in place on a terminal that it fits on, else in the order of its rows.
struct LiveTable {
    table: Table,
    screen: Screen,
    servers: Vec<String>,
    in_place: bool,
    /// In place of rows that wait for those before them.
    early: BTreeMap<usize, Row>,
    next: usize,
    answers: usize,
    progress: Progress,
}

impl LiveTable {
    fn of(targets: &[Target], screen: Screen) -> Self {
        let servers: Vec<_> = targets.iter().map(|(_, upstream)| upstream.authority()).collect();
        let fits = screen.size.is_some_and(|(_, lines)| servers.len() + 2 < lines);
        Self {
            table: Table::of(servers.iter().map(String::as_str), screen.size.map(|(columns, _)| columns)),
            screen,
            servers,
            in_place: screen.is_live && fits,
            early: BTreeMap::new(),
            next: 0,
            answers: 0,
            progress: Progress::new(),
        }
    }

    fn start(&self) -> io::Result<()> {
        if self.screen.is_live {
            print(&format!("{}\n", self.table.heading()))?;
        }
        if !self.in_place {
            return Ok(());
        }
        self.servers.iter().try_for_each(|server| print(&format!("{}\n", self.table.row(&Row::waiting(server)))))
    }

    fn fill(&mut self, place: usize, report: &Report) -> io::Result<()> {
        let row = Row::of(report);
        if self.in_place {
            let (up, row) = (self.servers.len() - place, self.table.row(&row));
            return print_data(&format!("\x1b[{up}A\r{}\x1b[K\x1b[{up}B\r", self.screen.show(&row)));
        }
        self.early.insert(place, row);
        self.answers += 1;
        self.progress.clear();
        while let Some(row) = self.early.remove(&self.next) {
            print(&format!("{}\n", self.table.row(&row)))?;
            self.next += 1;
        }
        if let Some(waiting) = self.servers.get(self.next) {
            let (answers, all) = (self.answers, self.servers.len());
            self.progress.show(|| format!("{answers} of {all} have answered; waiting for {waiting} …"));
        }
        Ok(())
    }
}
