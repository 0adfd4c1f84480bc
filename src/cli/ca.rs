//! `vouchsafe ca init`

use std::{fs, path::Path};

use clap::Args as _;

use crate::{
    clock::Clock,
    config::{
        args::{CaInitArgs, RunArgs},
        settings::permits,
    },
    mint::{CaSpec, NewCa, Permits, ROOT_FILE, init as init_ca},
};

use super::{CliError, output::print};

/// The flags of `run` that name hosts; the others are accepted, as variables may have them, and not shown.
pub(super) fn for_names(command: clap::Command) -> clap::Command {
    let flags = RunArgs::augment_args(clap::Command::new(""));
    let of_run: Vec<_> = flags.get_arguments().map(|arg| arg.get_id().clone()).collect();
    command.mut_args(|arg| {
        let id = arg.get_id();
        let is_of_run = of_run.contains(id);
        let shown = !is_of_run || ["config", "route", "allow"].contains(&id.as_str());
        let alone = arg.get_num_args().is_some_and(|count| count.min_values() == 0 && !arg.is_positional());
        arg.hide(!shown).require_equals(alone && is_of_run)
    })
}

/// Makes a CA, and says what to do with its files.
pub(super) fn init(args: CaInitArgs) -> Result<(), CliError> {
    let permits = match args.permit_anything {
        true => Permits::Anything,
        false => permits(&args.permit, args.run).map_err(CliError::Config)?,
    };
    let now = Clock::System.now();
    // For people; without it the names of the certificates are shorter.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
    let new = init_ca(&args.directory, &CaSpec { host, permits: permits.clone(), now }).map_err(CliError::Ca)?;
    if permits == Permits::Anything {
        super::warn(
            "this CA may sign for ANY NAME: whoever gets its key can impersonate every server to clients that trust it",
        );
    }
    print(&summary(&args.directory, &permits, &new)).map_err(CliError::Output)
}

fn summary(directory: &Path, permits: &Permits, new: &NewCa) -> String {
    let directory = directory.display();
    let sha256 = new.sha256;
    format!(
        "made a CA that may sign for {permits}\n\
         {directory}/{ROOT_FILE} is for the clients to trust ({sha256})\n\
         set --local-ca {directory}; the rest of the directory is for this proxy alone\n"
    )
}
