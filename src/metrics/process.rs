//! What the system knows of this process, under the names that all Prometheus clients use.

use std::fs;

use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// Read from procfs at each scrape; what cannot be read is left out.
#[derive(Debug)]
pub(super) struct ProcessFacts {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_files: Option<u64>,
    pub(super) most_files: Option<u64>,
    pub(super) started_seconds: Option<f64>,
}

impl ProcessFacts {
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // proc_pid_stat(5). The second field, the name in parentheses, may have anything in it.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let (user, system, started, pages) = (field(14), field(15), field(22), field(24));
        let ticks = |count: u64| count as f64 / clock_ticks_per_second() as f64;
        Self {
            cpu_seconds: user.zip(system).map(|(user, system)| ticks(user + system)),
            resident_bytes: pages.map(|pages| pages * page_size() as u64),
            // One of them is that of reading them.
            open_files: fs::read_dir("/proc/self/fd").ok().map(|all| (all.count() as u64).saturating_sub(1)),
            most_files: getrlimit(Resource::Nofile).current,
            started_seconds: started.zip(boot_seconds()).map(|(started, boot)| boot + ticks(started)),
        }
    }
}

/// When the system was booted, in seconds since 1970.
fn boot_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}
