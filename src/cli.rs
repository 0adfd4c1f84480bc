//! The sub-commands, each from its arguments to its end.

use std::{fmt, io};

use clap::{CommandFactory, FromArgMatches, builder::Resettable};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::warn;

use crate::{
    app::{App, AppError},
    config::{
        args::{Cli, Command, RunArgs},
        error::ConfigError,
        settings::Settings,
    },
    demo::{self, DemoError},
    logging,
    server::Stop,
};

/// Why a command failed.
#[derive(Debug)]
pub enum CliError {
    /// The proxy cannot do its duty.
    App(AppError),
    /// The configuration is wrong.
    Config(ConfigError),
    /// The demonstration failed.
    Demo(DemoError),
    /// A signal handler or an event loop cannot be had.
    System(io::Error),
}

impl CliError {
    /// 2 for usage and configuration, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::App(_) | Self::Demo(_) | Self::System(_) => 1,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Demo(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for CliError {}

/// Parses the process's arguments and variables. A variable that is set to nothing counts as not set, as
/// compose files with `${X:-}` leave it. Usage errors end the process with status 2.
pub fn read() -> Cli {
    fn without_empty(command: clap::Command) -> clap::Command {
        command.mut_args(|arg| match arg.get_env().map(std::env::var_os) {
            Some(Some(value)) if value.is_empty() => arg.env(Resettable::Reset),
            _ => arg,
        })
    }
    let command = Cli::command().mut_subcommands(without_empty);
    Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Runs a command to its end.
///
/// # Errors
/// [`CliError`].
pub fn run(cli: Cli) -> Result<(), CliError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::System)?;
    let end = match cli.command {
        Command::Demo(args) => runtime.block_on(demo::run(args.keep)).map_err(CliError::Demo),
        Command::Run(args) => runtime.block_on(serve(*args)),
    };
    // A lookup or a file that still runs must not hold up the end.
    runtime.shutdown_background();
    end
}

async fn serve(args: RunArgs) -> Result<(), CliError> {
    let settings = Settings::of(args, |name| std::env::var_os(name)).map_err(CliError::Config)?;
    logging::start(settings.log.format, settings.log.level, settings.log.access);
    let app = App::bind(settings).map_err(CliError::App)?;
    let (stop, told) = watch::channel(Stop::No);
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::System)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::System)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(CliError::System)?;
    let mut rotate = signal(SignalKind::user_defined1()).map_err(CliError::System)?;
    let audit = app.audit();
    let running = app.run(told);
    tokio::pin!(running);
    loop {
        tokio::select! {
            end = &mut running => return end.map_err(CliError::App),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = rotate.recv() => {
                audit.reopen();
                continue;
            }
            _ = hangup.recv() => {
                audit.reopen();
                warn!("SIGHUP: log files are opened anew; the configuration is not read again, which takes a restart");
                continue;
            }
        }
        let next = if *stop.borrow() == Stop::No { Stop::Drain } else { Stop::Now };
        stop.send_replace(next);
    }
}
