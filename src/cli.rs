//! The sub-commands, each from its arguments to its end.

mod audit;

use std::{
    fmt,
    io::{self, Write},
    sync::mpsc,
    thread,
};

use clap::{Args as _, CommandFactory, FromArgMatches, builder::Resettable};
use serde_json::Value;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    app::{App, AppError},
    audit::{read::AuditLogFile, report::unread, sink::AuditError},
    bundle::bundle,
    check::{check, report::Report},
    clock::Clock,
    config::{
        args::{CheckArgs, Cli, Command, Options, PinArgs, RunArgs},
        contents,
        error::ConfigError,
    },
    demo::{self, DemoError},
    logging,
    pin::{Pins, pin},
    reload::Reloader,
    server::Stop,
    verify::verify,
};

/// Why a command failed.
#[derive(Debug)]
pub enum CliError {
    /// The proxy cannot do its duty.
    App(AppError),
    /// What audit logs say is not what was wanted.
    Audit(String),
    /// The configuration is wrong.
    Config(ConfigError),
    /// The demonstration failed.
    Demo(DemoError),
    /// The answer, which was given, is no.
    No,
    /// A summary cannot be written.
    Output(io::Error),
    /// A signal handler or an event loop cannot be had.
    System(io::Error),
    /// Audit logs that cannot be read, not to their end, or that are something else.
    Unread(Vec<AuditLogFile>),
    /// An option has a value that cannot be meant.
    Usage(String),
}

impl CliError {
    /// 2 for usage and configuration, 1 for all else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::App(AppError::Audit(AuditError::Path(..))) | Self::Config(_) | Self::Usage(_) => 2,
            Self::App(_)
            | Self::Audit(_)
            | Self::Demo(_)
            | Self::No
            | Self::Output(_)
            | Self::System(_)
            | Self::Unread(_) => 1,
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
            Self::Output(error) => write!(f, "the summary cannot be written: {error}"),
            Self::System(error) => error.fmt(f),
            Self::Audit(text) | Self::Usage(text) => f.write_str(text),
            Self::Unread(logs) => f.write_str(&logs.iter().map(unread).collect::<Vec<_>>().join("\nerror: ")),
        }
    }
}

impl std::error::Error for CliError {}

/// Parses the process's arguments and variables. A variable that is set to nothing counts as not set, as
/// compose files with `${X:-}` leave it. Usage errors end the process with status 2.
///
/// # Errors
/// [`CliError::Config`], where a value is the contents of a file instead of its name: it must not be repeated.
pub fn read() -> Result<Cli, CliError> {
    fn variables(command: clap::Command) -> clap::Command {
        command.mut_args(|arg| match arg.get_env().map(std::env::var_os) {
            Some(Some(value)) if value.is_empty() => arg.env(Resettable::Reset),
            // `--help` names variables, and does not say what is in them.
            _ => arg.hide_env_values(true),
        })
    }
    contents::check_arguments().map_err(CliError::Config)?;
    let command = Cli::command().mut_subcommands(variables);
    let mut command = command.mut_subcommand("check", outward).mut_subcommand("pin", outward);
    let usage = |error: clap::Error| -> ! { contents::masked(error).exit() };
    let matches = command.try_get_matches_from_mut(std::env::args_os()).unwrap_or_else(|error| usage(error));
    contents::check_variables(&matches, &command).map_err(CliError::Config)?;
    Ok(Cli::from_arg_matches(&matches).unwrap_or_else(|error| usage(error.format(&mut command))))
}

/// The flags of `run` for a command that goes out only and takes words without a flag: what is not for the way
/// out is taken and not shown, and a flag that may stand alone has its value behind `=`.
fn outward(command: clap::Command) -> clap::Command {
    let flags = RunArgs::augment_args(clap::Command::new(""));
    let of_run: Vec<_> = flags.get_arguments().map(|arg| arg.get_id().clone()).collect();
    command.mut_args(|arg| {
        let id = arg.get_id();
        let shown = !of_run.contains(id) || id == "config" || Options::OUTWARD.contains(&id.as_str());
        let alone = arg.get_num_args().is_some_and(|count| count.min_values() == 0 && !arg.is_positional());
        arg.hide(!shown).require_equals(alone)
    })
}

/// Runs a command to its end.
///
/// # Errors
/// [`CliError`].
pub fn run(cli: Cli) -> Result<(), CliError> {
    match cli.command {
        Command::Audit(args) => audit::audit(args),
        Command::Bundle(args) => {
            let lint = bundle(&args, Clock::System).map_err(CliError::Config)?;
            match args.json {
                true => say(&format!("{}\n", lint.json())),
                false => say(&lint.to_string()),
            }
            if lint.is_good() { Ok(()) } else { Err(CliError::No) }
        }
        Command::Check(args) => block_on(check_servers(*args)),
        Command::Demo(args) => block_on(async { demo::run(args.keep).await.map_err(CliError::Demo) }),
        Command::Pin(args) => block_on(pin_all(*args)),
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

/// What is odd, but no error, and no part of the answer.
fn warn(text: &str) {
    eprintln!("warning: {text}");
}

async fn check_servers(args: CheckArgs) -> Result<(), CliError> {
    let (json, mut good, mut all, mut first) = (args.json, true, Vec::new(), true);
    let tell = |report: &Report| {
        good &= report.is_trusted();
        match json {
            true => all.push(report.json()),
            false => say(&format!("{}{report}", if first { "" } else { "\n" })),
        }
        first = false;
    };
    check(args, warn, tell).await.map_err(CliError::Config)?;
    if json {
        say(&format!("{}\n", Value::Array(all)));
    }
    if good { Ok(()) } else { Err(CliError::No) }
}

async fn pin_all(args: PinArgs) -> Result<(), CliError> {
    let (json, mut good, mut all) = (args.json, true, Vec::new());
    let tell = |pins: &Pins| {
        good &= !pins.is_refused();
        match json {
            true => all.push(pins.json()),
            // What is not trusted must not get into a file by mistake.
            false if pins.is_refused() => eprint!("{pins}"),
            false => say(&pins.to_string()),
        }
    };
    pin(args, warn, tell).await.map_err(CliError::Config)?;
    if json {
        say(&format!("{}\n", Value::Array(all)));
    }
    if good { Ok(()) } else { Err(CliError::No) }
}

async fn serve(args: RunArgs) -> Result<(), CliError> {
    let reloader = Reloader::start(args).map_err(CliError::Config)?;
    let settings = reloader.started();
    logging::start(settings.log.format, settings.log.level, settings.log.access).map_err(CliError::System)?;
    let look = settings.look;
    let app = App::bind(settings.clone()).map_err(CliError::App)?;
    let (stop, told) = watch::channel(Stop::No);
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::System)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::System)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(CliError::System)?;
    let mut rotate = signal(SignalKind::user_defined1()).map_err(CliError::System)?;
    let audit = app.audit();
    let running = app.run(told, reloader.newer());
    let (reload, asked) = mpsc::channel();
    let watch = move || reloader.watch(look, &asked);
    thread::Builder::new().name("reload".into()).spawn(watch).map_err(CliError::System)?;
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
                // It ends with the process.
                let _ = reload.send(());
                continue;
            }
        }
        let next = if *stop.borrow() == Stop::No { Stop::Drain } else { Stop::Now };
        stop.send_replace(next);
    }
}
