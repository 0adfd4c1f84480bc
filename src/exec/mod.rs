//! `vouchsafe exec`: a tool behind a proxy of its own.
//!
//! The tool must not notice: same process group, terminal, job control and streams as without this process, its own
//! exit status, its own death by a signal. And what it does not tell is told at the end: how many of its requests were
//! refused, failed or were cut.

mod authorities;
mod child;
mod environment;
mod place;
mod placeholders;
mod signals;
mod summary;

use std::{env, ffi::OsString, fmt, io, path::PathBuf, sync::Arc};

use tokio::{
    sync::{mpsc::UnboundedReceiver, watch},
    time::Instant,
};
use tracing::{debug, info};

use crate::{
    app::{App, AppError, Running},
    check::{in_order, probe_all, report::Report},
    config::{
        args::{ExecArgs, Purpose},
        error::ConfigError,
        settings::Settings,
    },
    isolate::{IsolateError, Watch},
    logging::{self, writer},
    proxy::settings::{BoundAddress, Generation, Service},
    reload::Reloader,
    server::{SAME_SIGNAL, Stop},
    terminal::Screen,
    text::show_value,
};

use self::{
    authorities::Authorities,
    child::Tool,
    environment::{Environment, HTTPS_PROXY, Proxies, is_set},
    place::{CommandLine, Place},
    placeholders::{Endpoint, replace},
    signals::Signal,
    summary::Summary,
};

pub use self::child::{ToolEnd, is_init};

/// Why there is no exit status of the tool.
#[derive(Debug)]
pub enum ExecError {
    /// The proxy cannot start, or failed while the tool ran, which ended with 0.
    App(AppError),
    /// The CAs that the tool is to trust cannot be written.
    Authorities(io::Error),
    /// The arguments or the configuration are wrong.
    Config(ConfigError),
    /// The tool cannot be isolated.
    Isolate(IsolateError),
    /// The log cannot be written to a file.
    LogFile(PathBuf, io::Error),
    /// The tool cannot be executed.
    NotExecutable(OsString, io::Error),
    /// There is no such tool.
    NotFound(OsString),
    /// So many servers are not trusted, and why was reported.
    Preflight(usize),
    /// The system refuses a thread, a signal handler, or to wait.
    System(io::Error),
}

impl ExecError {
    /// As of `env`, `timeout` and `docker run`: 125 for failures of our own, 126 and 127 for a tool that cannot be
    /// started.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotExecutable(..) => 126,
            Self::NotFound(_) => 127,
            _ => 125,
        }
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(error) => error.fmt(f),
            Self::Authorities(error) => write!(f, "cannot write the CAs for the tool: {error}"),
            Self::Config(error) => error.fmt(f),
            Self::Isolate(error) => error.fmt(f),
            Self::LogFile(path, error) => write!(f, "--log-file `{}`: {error}", path.display()),
            Self::NotExecutable(tool, error) => write!(f, "cannot execute `{}`: {error}", show_value(tool)),
            Self::NotFound(tool) => write!(f, "cannot find the tool `{}`", show_value(tool)),
            Self::Preflight(count) => write!(
                f,
                "--preflight: {count} {} not trusted; the tool was not started",
                if *count == 1 { "server is" } else { "servers are" }
            ),
            Self::System(error) => write!(f, "the system refuses a thread or a signal handler: {error}"),
        }
    }
}

impl std::error::Error for ExecError {}

/// The exit status for refused requests, with `--fail-on-refusal`: free among those of tools, of `timeout` and of shells.
const REFUSED: u8 = 120;

/// Runs a tool to its end. Nothing is ever written to standard output.
///
/// # Errors
/// [`ExecError`].
pub async fn exec(mut args: ExecArgs) -> Result<ToolEnd, ExecError> {
    let isolated = args.isolate.then(|| args.catch.clone());
    args.run.purpose = Purpose::Exec { log_file: args.log_file.is_some(), isolated };
    let reloader = Reloader::start(args.run.clone()).map_err(ExecError::Config)?;
    let settings = reloader.started().clone();
    start_log(&settings, args.log_file.as_ref())?;
    let mut signals = signals::receive().map_err(ExecError::System)?;
    let newer = reloader.newer();
    let (place, inherited) = Place::prepare(&args, &settings)?;
    let app = App::bind(settings.clone(), inherited).map_err(ExecError::App)?;
    let mut running = Running::start(app, Some(reloader)).map_err(ExecError::App)?;
    let begun = begin(&args, &settings, place, &running, &mut signals, newer).await;
    if !matches!(begun, Ok(Begun::Tool(..))) {
        // The ready file goes with it; that nothing was served is no news.
        running.stop(Stop::Now);
        let _ = running.join().await;
    }
    let (mut tool, watch, _authorities) = match begun? {
        Begun::Tool(tool, watch, authorities) => (tool, watch, authorities),
        Begun::Signal(signal) => return Ok(ToolEnd::Killed(signal)),
    };
    let (end, failed) = wait(&mut tool, &mut running, &mut signals).await?;
    let cut = match failed {
        None => drain(&mut running, &mut signals).await.err(),
        failed => failed,
    };
    child::end_others();
    let report = watch.map(Watch::finish).unwrap_or_default();
    let counts = running.audit().tally().counts();
    conclude(&args, &Summary { counts, report }, end, cut)
}

/// What came first: the tool, or a signal that ends this process.
enum Begun {
    Tool(Tool, Option<Watch>, Authorities),
    Signal(i32),
}

/// Verifies servers, if that is wanted, and starts the tool.
async fn begin(
    args: &ExecArgs,
    settings: &Settings,
    place: Place,
    running: &Running,
    signals: &mut UnboundedReceiver<Signal>,
    newer: watch::Receiver<Option<Arc<Generation>>>,
) -> Result<Begun, ExecError> {
    let verified = async { if args.preflight { preflight(settings).await } else { Ok(()) } };
    tokio::select! {
        biased;
        // The tool is not there yet, to which it would have been left.
        signal = signals::to_end(signals) => return Ok(Begun::Signal(signal)),
        verified = verified => verified?,
    }
    let authorities = match &settings.minter {
        Some(minter) => Authorities::new(minter.ca(), &args.keep_env, |name| env::var_os(name))?,
        None => Authorities::default(),
    };
    let line = command_line(args, settings, running.addresses(), &authorities)?;
    let started = settings.routes.clone();
    let routes = move || newer.borrow().as_ref().map_or_else(|| started.clone(), |newer| newer.routes.clone());
    let (tool, watch) = place.start(line, routes)?;
    Ok(Begun::Tool(tool, watch, authorities))
}

/// Starts the log: warnings on stderr, which is the tool's too, or all in a file.
fn start_log(settings: &Settings, file: Option<&PathBuf>) -> Result<(), ExecError> {
    let open = |path: &PathBuf| logging::open(path).map_err(|error| ExecError::LogFile(path.clone(), error));
    let (file, log) = (file.map(open).transpose()?, settings.log);
    logging::start(log.format, log.level, log.access, file).map_err(ExecError::System)
}

/// Verifies the servers of all routes, and those that are allowed by name and port; reports those that are not trusted.
async fn preflight(settings: &Settings) -> Result<(), ExecError> {
    let routes = &settings.routes;
    let fixed = settings.listeners.iter().filter_map(|listener| listener.service.fixed().cloned());
    let allowed = routes.policy.exact_names().filter_map(|(host, port)| routes.fixed(host, port).ok());
    let targets: Vec<_> = fixed.chain(allowed).map(|upstream| (upstream.authority(), upstream)).collect();
    if targets.is_empty() {
        return Err(ExecError::Config(ConfigError::one(
            "--preflight: there is no server to verify\nhint: set --route, or --allow HOST:PORT with a name and a port",
        )));
    }
    let mut bad = 0;
    let tell = |report: &Report| {
        if !report.is_trusted() {
            bad += 1;
            writer::print(&Screen::stderr().show(&report.to_string()));
        }
    };
    probe_all(settings.connect, targets, in_order(tell)).await;
    if bad == 0 { Ok(()) } else { Err(ExecError::Preflight(bad)) }
}

/// The tool's command line and environment.
fn command_line(
    args: &ExecArgs,
    settings: &Settings,
    addresses: &[BoundAddress],
    authorities: &Authorities,
) -> Result<CommandLine, ExecError> {
    let tcp = |(listener, address): (_, &BoundAddress)| Some((listener, address.tcp()?));
    let bound = || settings.listeners.iter().zip(addresses).filter_map(tcp);
    let endpoints: Vec<_> = bound()
        .filter_map(|(listener, address)| Some(Endpoint { label: listener.label.clone()?, address, tls: listener.tls }))
        .collect();
    let words: Vec<_> = args.command.iter().map(|word| replace(word, &endpoints)).collect();
    let problems = words.iter().filter_map(|word| word.clone().err());
    ConfigError::unless_empty(problems.collect()).map_err(ExecError::Config)?;
    let is_forward = |service: &Service| matches!(service, Service::Forward);
    let routes = bound().filter(|(listener, _)| listener.service.fixed().is_some() && !args.isolate);
    let unknown = args.keep_env.iter().filter(|name| !is_set(name)).map(|name| {
        format!("--keep-env `{}`: `exec` does not set it, so it is kept anyway\nhint: remove it", show_value(name))
    });
    ConfigError::unless_empty(unknown.collect()).map_err(ExecError::Config)?;
    let proxies = Proxies {
        forward: bound().find(|(listener, _)| is_forward(&listener.service)).map(|(_, address)| address),
        routes: routes.map(|(_, address)| address).collect(),
        no_proxy: &args.tool_no_proxy,
        https: settings.minter.is_some(),
        authorities: &authorities.set,
        keep: &args.keep_env,
    };
    let environment = Environment::new(env::vars_os(), &proxies, &endpoints);
    note(&environment, proxies.https);
    Ok(CommandLine { words: words.into_iter().flatten().collect(), environment })
}

/// Logs which of the user's own proxy settings the tool does not see, and which it does.
fn note(environment: &Environment, https: bool) {
    let overridden = environment.overridden(|name| env::var_os(name));
    if !overridden.is_empty() {
        info!(variables = overridden.join(" "), "the tool finds other proxy and CA variables than this process");
    }
    if !https && HTTPS_PROXY.iter().any(|name| env::var_os(name).is_some()) {
        info!("https_proxy is left to the tool: its own https requests do not pass here");
    }
}

/// Waits for the tool's end, and forwards signals meanwhile. If the proxy fails, its listeners are closed and the tool
/// finds nobody there: it is left to fail by itself.
async fn wait(
    tool: &mut Tool,
    running: &mut Running,
    signals: &mut UnboundedReceiver<Signal>,
) -> Result<(ToolEnd, Option<AppError>), ExecError> {
    let mut failed = None;
    loop {
        tokio::select! {
            end = tool.end() => return Ok((end.map_err(ExecError::System)?, failed)),
            end = running.join(), if failed.is_none() => {
                let error = end.err().unwrap_or(AppError::Worker);
                writer::print(&format!("error: {error}; the tool finds no proxy any more\n"));
                failed = Some(error);
            }
            Some(signal) = signals.recv() => {
                debug!(signal = signal.number, forwarded = signal.is_sent, "signal");
                if signal.is_sent {
                    tool.signal(signal.number);
                }
            }
        }
    }
}

/// Finishes what still runs, as long as that may take, or until a signal comes. One that comes at once is that by which
/// the tool ended.
async fn drain(running: &mut Running, signals: &mut UnboundedReceiver<Signal>) -> Result<(), AppError> {
    running.stop(Stop::Drain);
    let begin = Instant::now();
    loop {
        tokio::select! {
            end = running.join() => return end,
            Some(signal) = signals.recv() => if signal.is_to_end() && begin.elapsed() >= SAME_SIGNAL {
                running.stop(Stop::Now);
            },
        }
    }
}

/// Says what went wrong, and decides about the exit status.
fn conclude(args: &ExecArgs, summary: &Summary, end: ToolEnd, cut: Option<AppError>) -> Result<ToolEnd, ExecError> {
    // The log comes first, whole.
    writer::finish();
    let is_bad = !summary.is_empty() || matches!(cut, Some(AppError::Cut(_)));
    writer::print(&summary.text(end));
    if let Some(error @ AppError::Cut(_)) = &cut {
        writer::print(&format!("vouchsafe: {error}\n"));
    }
    match (end, cut) {
        (ToolEnd::Exited(0), Some(error)) if !matches!(error, AppError::Cut(_)) => Err(ExecError::App(error)),
        (ToolEnd::Exited(0), _) if is_bad && args.fail_on_refusal => Ok(ToolEnd::Exited(REFUSED)),
        (end, _) => Ok(end),
    }
}
