//! The sub-commands, each from its arguments to its end.

mod audit;
mod ca;
mod check;
mod help;
mod manual;
mod output;
mod progress;
mod signals;
mod usage;

use std::{
    collections::BTreeSet,
    env, fmt, io,
    process::{self, ExitCode},
};

use clap::{ArgMatches, Args as _, CommandFactory, FromArgMatches, builder::Resettable, parser::ValueSource};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;
use signal_hook::low_level::emulate_default_handler;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    time::Instant,
};

use crate::{
    app::{App, AppError, Running},
    audit::{read::AuditLogFile, report::unread, sink::AuditError},
    bundle::bundle,
    clock::Clock,
    config::{
        args::{CaCommand, Cli, Command, ConfigCommand, Options, PinArgs, RedirectRulesArgs, RunArgs, ShowArgs},
        contents,
        environment::Environment,
        error::ConfigError,
        settings::Settings,
        show::Shown,
        watch::Files,
    },
    exec::{ExecError, ToolEnd, exec, is_init},
    explain,
    logging::{self, writer},
    mint::InitError,
    pin::{Pins, pin},
    ready::ready,
    redirect::{self, RedirectRules},
    reload::{self, Reloader},
    server::{activation::inherited_sockets, socket::InheritedSockets},
    supervisor::Supervisor,
    verify::verify,
};
#[cfg(feature = "demo")]
use crate::{
    demo::{self, DemoError},
    terminal::{Screen, ShownWriter},
};

use self::{
    output::{complain, print, print_data, warn},
    signals::StopSignals,
};

/// Why a command failed.
#[derive(Debug)]
pub enum CliError {
    /// The proxy cannot start, or cut requests at its end.
    App(AppError),
    /// The answer of audit logs is not a good one.
    Audit(String),
    /// A local CA cannot be made.
    Ca(InitError),
    /// The arguments or the configuration are wrong.
    Config(ConfigError),
    /// The demonstration failed.
    #[cfg(feature = "demo")]
    Demo(DemoError),
    /// The tool has no exit status.
    Exec(ExecError),
    /// The answer, which was printed, is good, but not for as long as was asked for; a sentence for each expiry.
    Expiring(Vec<String>),
    /// The answer, which was printed, is no.
    No,
    /// The proxy is not ready, for this reason.
    NotReady(String),
    /// The output cannot be written.
    Output(io::Error),
    /// A signal handler or an event loop is not available.
    System(io::Error),
    /// Audit logs that cannot be read, or not to their end, or that are something else.
    Unread(Vec<AuditLogFile>),
    /// An option has a value that does not exist.
    Usage(String),
}

impl CliError {
    /// 2 for usage and configuration, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::App(AppError::Audit(AuditError::Path(..))) | Self::Config(_) | Self::Usage(_) => 2,
            Self::Exec(error) => error.exit_code(),
            Self::Expiring(_) => 3,
            #[cfg(feature = "demo")]
            Self::Demo(_) => 1,
            Self::App(_)
            | Self::Audit(_)
            | Self::Ca(_)
            | Self::No
            | Self::NotReady(_)
            | Self::Output(_)
            | Self::System(_)
            | Self::Unread(_) => 1,
        }
    }

    /// Shows the error, unless the output has shown it already.
    pub fn report(&self) {
        if !matches!(self, Self::No) {
            output::error(self);
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(error) => error.fmt(f),
            Self::Audit(text) | Self::Usage(text) => f.write_str(text),
            Self::Ca(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            #[cfg(feature = "demo")]
            Self::Demo(error) => error.fmt(f),
            Self::Exec(error) => error.fmt(f),
            Self::Expiring(all) => write!(f, "--expires-within: {}", all.join("\n  ")),
            Self::No => Ok(()),
            Self::NotReady(why) => write!(f, "not ready: {why}"),
            Self::Output(error) => write!(f, "cannot write to standard output: {error}"),
            Self::System(error) => error.fmt(f),
            Self::Unread(logs) => f.write_str(&logs.iter().map(unread).collect::<Vec<_>>().join("\nerror: ")),
        }
    }
}

impl std::error::Error for CliError {}

/// Parses the arguments and variables of the process. Empty variables are ignored, as compose files with `${X:-}` leave
/// them. A usage error ends the process with status 2.
///
/// # Errors
/// [`CliError::Config`], if a value is the contents of a file instead of its name: no message may repeat it.
pub fn read() -> Result<Cli, CliError> {
    let refused = |error| match is_exec() {
        true => CliError::Exec(ExecError::Config(error)),
        false => CliError::Config(error),
    };
    contents::check_arguments().map_err(refused)?;
    let mut parser = parser();
    // 2 could be the tool's own.
    let status = if is_exec() { 125 } else { 2 };
    let usage = |error, parser: &clap::Command| -> ! { process::exit(usage::report(error, parser, status).into()) };
    let matches = parser.try_get_matches_from_mut(env::args_os()).unwrap_or_else(|error| usage(error, &parser));
    contents::check_variables(&matches, &parser).map_err(refused)?;
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| usage(error.format(&mut parser), &parser));
    if let Some(run) = run_args(&mut cli.command) {
        run.from_variables = from_variables(&matches);
    }
    Ok(cli)
}

/// The whole command line: what [`Cli`] derives, and what depends on variables and on the command.
fn parser() -> clap::Command {
    let command = Cli::command().mut_subcommands(for_variables);
    let command = command.mut_subcommand("check", for_upstreams).mut_subcommand("pin", for_upstreams);
    let command = command.mut_subcommand("ca", |ca| ca.mut_subcommand("init", ca::for_names));
    help::with_examples(command)
}

fn is_exec() -> bool {
    env::args_os().nth(1).is_some_and(|command| command == "exec")
}

/// Empty variables are ignored, and the help does not show what is in the others.
fn for_variables(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| match arg.get_env().map(env::var_os) {
        Some(Some(value)) if value.is_empty() => arg.env(Resettable::Reset),
        _ => arg.hide_env_values(true),
    });
    command.mut_subcommands(for_variables)
}

/// The flags of `run` for a command that connects to upstreams only, and takes words without a flag: the flags for
/// listeners are accepted but not shown, and the value of a flag that may have none is behind `=`.
fn for_upstreams(command: clap::Command) -> clap::Command {
    let flags = RunArgs::augment_args(clap::Command::new(""));
    let of_run: Vec<_> = flags.get_arguments().map(|arg| arg.get_id().clone()).collect();
    command.mut_args(|arg| {
        let id = arg.get_id();
        let shown = !of_run.contains(id) || id == "config" || Options::FOR_UPSTREAMS.contains(&id.as_str());
        let alone = arg.get_num_args().is_some_and(|count| count.min_values() == 0 && !arg.is_positional());
        arg.hide(!shown).require_equals(alone)
    })
}

/// The ids of the arguments of the innermost sub-command whose values came from variables.
fn from_variables(matches: &ArgMatches) -> BTreeSet<String> {
    if let Some((_, matches)) = matches.subcommand() {
        return from_variables(matches);
    }
    let ids = matches.ids().map(|id| id.as_str());
    let is_variable = |id: &&str| matches.value_source(id) == Some(ValueSource::EnvVariable);
    ids.filter(is_variable).map(str::to_owned).collect()
}

/// The configuration of the proxy, if a command takes it.
fn run_args(command: &mut Command) -> Option<&mut RunArgs> {
    match command {
        Command::Check(args) => Some(&mut args.run),
        Command::Config(ConfigCommand::Check(args)) | Command::Run(args) => Some(args),
        Command::Config(ConfigCommand::Show(args)) => Some(&mut args.run),
        Command::Exec(args) => Some(&mut args.run),
        Command::Pin(args) => Some(&mut args.run),
        Command::Ca(CaCommand::Init(args)) => Some(&mut args.run),
        Command::Audit(_)
        | Command::Bundle(_)
        | Command::Completions(_)
        | Command::Explain(_)
        | Command::Man(_)
        | Command::Ready(_)
        | Command::RedirectProbe(_)
        | Command::RedirectRules(_)
        | Command::Verify(_) => None,
        #[cfg(feature = "demo")]
        Command::Demo(_) => None,
    }
}

/// Runs a command to its end.
///
/// # Errors
/// [`CliError`].
pub fn run(cli: Cli) -> Result<ExitCode, CliError> {
    cli.color.choose();
    if let Command::Exec(args) = cli.command {
        return block_on(async { exec(*args).await.map_err(CliError::Exec) }).map(end_as);
    }
    run_by_itself(cli.command).map(|()| ExitCode::SUCCESS)
}

/// Runs a command that has no status but its own.
fn run_by_itself(command: Command) -> Result<(), CliError> {
    match command {
        Command::Audit(args) => audit::audit(args),
        Command::Ca(CaCommand::Init(args)) => ca::init(*args),
        Command::Bundle(args) => {
            let lint = bundle(&args, Clock::System).map_err(CliError::Config)?;
            answer(&lint, args.json.then(|| lint.json()), lint.is_good())?;
            unless_expiring(args.expires_within.map(|within| lint.expiring(within)).unwrap_or_default())
        }
        Command::Check(args) if args.catalog => block_on(check::check_endpoints(*args)),
        Command::Check(args) => block_on(check::check_servers(*args)),
        Command::Completions(args) => manual::completions(args.shell),
        Command::Config(ConfigCommand::Check(args)) => check_config(*args),
        Command::Config(ConfigCommand::Show(args)) => show_config(*args),
        #[cfg(feature = "demo")]
        Command::Demo(args) => block_on(demonstrate(args.keep)),
        // It has a status of its own.
        Command::Exec(_) => Ok(()),
        Command::Explain(args) => {
            let text = explain::explain(args.code.as_deref()).map_err(CliError::Config)?;
            print(&text).map_err(CliError::Output)
        }
        Command::Man(args) => manual::man(&args),
        Command::Pin(args) => block_on(pin_all(*args)),
        Command::Ready(args) => match ready(args).map_err(CliError::Config)? {
            Ok(()) => print(&"ready\n").map_err(CliError::Output),
            Err(why) => Err(CliError::NotReady(why)),
        },
        Command::RedirectProbe(args) => redirect::probe(&args.addresses).map_err(CliError::Output),
        Command::RedirectRules(args) => redirect_rules(&args),
        Command::Run(args) => {
            let inherited = inherited_sockets().map_err(|why| CliError::Config(ConfigError::one(why)))?;
            block_on(serve(*args, inherited))
        }
        Command::Verify(args) => {
            let verification = verify(&args, Clock::System).map_err(CliError::Config)?;
            answer(&verification, args.json.then(|| verification.json()), verification.is_accepted())
        }
    }
}

/// Ends this process as the tool ended: by the same signal, so that a shell sees it. PID 1 is immune to its own signals.
fn end_as(end: ToolEnd) -> ExitCode {
    match end {
        ToolEnd::Exited(code) => ExitCode::from(code),
        ToolEnd::Killed(signal) => {
            writer::finish();
            if !is_init() {
                // The tool has dumped its core; this process has nothing to add.
                let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
                // Unknown for real-time signals.
                let _ = emulate_default_handler(signal);
            }
            ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
        }
    }
}

/// Prints an answer as text, or as JSON if there is any; [`CliError::No`] if it is not a good one.
fn answer(text: &impl fmt::Display, json: Option<Value>, is_good: bool) -> Result<(), CliError> {
    match json {
        Some(json) => print_data(&format!("{json}\n")),
        None => print(text),
    }
    .map_err(CliError::Output)?;
    if is_good { Ok(()) } else { Err(CliError::No) }
}

/// [`CliError::Expiring`] if something expires within the time that was asked for.
fn unless_expiring(all: Vec<String>) -> Result<(), CliError> {
    if all.is_empty() { Ok(()) } else { Err(CliError::Expiring(all)) }
}

fn block_on<T>(command: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(CliError::System)?;
    let end = runtime.block_on(command);
    // A lookup or a file operation that is still running must not delay the end.
    runtime.shutdown_background();
    end
}

async fn pin_all(args: PinArgs) -> Result<(), CliError> {
    let (json, mut good, mut all) = (args.json, true, Vec::new());
    let mut written = Ok(());
    let report = |pins: &Pins| {
        good &= !pins.is_refused();
        match json {
            true => all.push(pins.json()),
            // The certificates of a server that is not trusted must not get into a file by mistake.
            false if pins.is_refused() => complain(&pins.to_string().trim_end()),
            // It goes into a configuration file.
            false if written.is_ok() => written = print_data(pins),
            false => {}
        }
    };
    pin(args, warn, report).await.map_err(CliError::Config)?;
    if json {
        written = print_data(&format!("{}\n", Value::Array(all)));
    }
    written.map_err(CliError::Output)?;
    if good { Ok(()) } else { Err(CliError::No) }
}

#[cfg(feature = "demo")]
async fn demonstrate(keep: bool) -> Result<(), CliError> {
    match demo::run(keep, &mut ShownWriter::new(Screen::stdout(), io::stdout())).await {
        Err(DemoError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(CliError::Demo),
    }
}

fn check_config(args: RunArgs) -> Result<(), CliError> {
    let settings = reload::build(args, &mut Files::at_start()).map_err(CliError::Config)?;
    settings.warnings.iter().for_each(|warning| warn(warning));
    print(&summary(&settings)).map_err(CliError::Output)
}

/// What a valid configuration has, in a line.
fn summary(settings: &Settings) -> String {
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let anchors = settings.routes.tls.0.settings().trust.anchors.anchors().len();
    format!(
        "the configuration is valid: {}, {} for single upstreams, {} in the default bundle; {}\n",
        plural(settings.listeners.len(), "listener"),
        plural(settings.routes.upstreams.len(), "setting"),
        plural(anchors, "trusted CA"),
        plural(settings.warnings.len(), "warning")
    )
}

fn redirect_rules(args: &RedirectRulesArgs) -> Result<(), CliError> {
    let rules = RedirectRules::of(args).map_err(CliError::Config)?;
    if !args.check {
        return print(&rules.text()).map_err(CliError::Output);
    }
    let report = rules.check().map_err(CliError::Usage)?;
    answer(&report, None, report.is_good())
}

fn show_config(args: ShowArgs) -> Result<(), CliError> {
    let shown = Shown::of(args.run, &Environment::of_process()).map_err(CliError::Config)?;
    answer(&shown, args.json.then(|| shown.json()), true)
}

async fn serve(args: RunArgs, inherited: InheritedSockets) -> Result<(), CliError> {
    let supervisor = Supervisor::of_environment().map_err(|why| CliError::Config(ConfigError::one(why)))?;
    let reloader = Reloader::start(args).map_err(CliError::Config)?.supervised_by(supervisor.clone());
    let settings = reloader.started();
    logging::start(settings.log.format, settings.log.level, settings.log.access, None).map_err(CliError::System)?;
    let app = App::bind(settings.clone(), inherited).map_err(CliError::App)?.supervised_by(supervisor);
    let mut terminate = signal(SignalKind::terminate()).map_err(CliError::System)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::System)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(CliError::System)?;
    let mut rotate = signal(SignalKind::user_defined1()).map_err(CliError::System)?;
    let mut running = Running::start(app, Some(reloader)).map_err(CliError::App)?;
    let mut signals = StopSignals::default();
    loop {
        tokio::select! {
            end = running.join() => return end.map_err(CliError::App),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = rotate.recv() => {
                running.audit().reopen();
                continue;
            }
            _ = hangup.recv() => {
                running.audit().reopen();
                running.reload();
                continue;
            }
        }
        if let Some(next) = signals.next(Instant::now()) {
            running.stop(next);
        }
    }
}
