//! The sub-commands, each from its arguments to its end.

use std::{
    fmt,
    io::{self, Write},
};

use clap::{CommandFactory, FromArgMatches, builder::Resettable};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    app::{App, AppError},
    clock::Clock,
    config::{
        args::{Cli, Command, RunArgs},
        error::ConfigError,
    },
    demo::{self, DemoError},
    logging,
    reload::Reloader,
    server::Stop,
    verify::verify,
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
    /// The answer, which was given, is no.
    No,
    /// A signal handler or an event loop cannot be had.
    System(io::Error),
}

impl CliError {
    /// 2 for usage and configuration, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::App(_) | Self::Demo(_) | Self::No | Self::System(_) => 1,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Demo(error) => error.fmt(f),
            Self::No => Ok(()),
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
    match cli.command {
        Command::Demo(args) => block_on(async { demo::run(args.keep).await.map_err(CliError::Demo) }),
        Command::Run(args) => block_on(serve(*args)),
        Command::Verify(args) => {
            let verification = verify(&args, Clock::System).map_err(CliError::Config)?;
            match args.json {
                true => say(&format!("{}\n", verification.json())),
                false => say(&verification.to_string()),
            }
            if verification.is_accepted() { Ok(()) } else { Err(CliError::No) }
        }
    }
}

fn block_on(command: impl Future<Output = Result<(), CliError>>) -> Result<(), CliError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::System)?;
    let end = runtime.block_on(command);
    // A lookup or a file that still runs must not hold up the end.
    runtime.shutdown_background();
    end
}

/// Writes an answer to stdout; that nobody reads it does not matter.
fn say(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

async fn serve(args: RunArgs) -> Result<(), CliError> {
    let mut reloader = Reloader::start(args).map_err(CliError::Config)?;
    let settings = reloader.started();
    logging::start(settings.log.format, settings.log.level, settings.log.access);
    let mut look = interval(settings.look);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let app = App::bind(settings.clone()).map_err(CliError::App)?;
    let (stop, told) = watch::channel(Stop::No);
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::System)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::System)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(CliError::System)?;
    let mut rotate = signal(SignalKind::user_defined1()).map_err(CliError::System)?;
    let audit = app.audit();
    let running = app.run(told, reloader.newer());
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
                reloader.reload("SIGHUP");
                continue;
            }
            _ = look.tick() => {
                reloader.look();
                continue;
            }
        }
        let next = if *stop.borrow() == Stop::No { Stop::Drain } else { Stop::Now };
        stop.send_replace(next);
    }
}
