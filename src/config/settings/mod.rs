//! [`Settings`]: what is valid. Built whole or not at all, and one run shows all problems.

mod admin;
mod isolated;
mod limits;
mod listeners;
mod local_ca;
mod parents;
mod section;
mod trust;
mod unused;
mod upstreams;
mod values;

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    admin::AdminSettings,
    audit::{sink::AuditSettings, text::Form},
    clock::Clock,
    connect::ConnectLimits,
    logging::{LogFormat, LogLevel},
    mint::Minter,
    proxy::settings::{Generation, ListenerSettings, ProxySettings},
    route::table::Routes,
    server::{limiter::ConnectionLimits, session::ClientLimits},
    text::show_value,
};

use super::{
    args::{Options, RunArgs},
    environment::Environment,
    error::ConfigError,
    load::Named,
    merge::MergedOptions,
    watch::Files,
};

use self::limits::span;
pub use self::{
    local_ca::permits,
    trust::{bundle_variable, identity, no_list, repeated_rules},
    upstreams::{ServedBy, UpstreamConfig},
    values::reference,
};

/// All settings of the proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The listeners, in the order in which they were configured.
    pub listeners: Vec<ListenerSettings>,
    /// How requests are handled.
    pub proxy: ProxySettings,
    /// From destinations to upstreams.
    pub routes: Arc<Routes>,
    /// Makes certificates for clients that speak TLS, where there is a local CA.
    pub minter: Option<Arc<Minter>>,
    /// Limits for each client connection.
    pub client: ClientLimits,
    /// How many client connections there may be.
    pub connections: ConnectionLimits,
    /// Limits on connecting to upstreams.
    pub connect: ConnectLimits,
    /// Where audit events go, in addition to stderr.
    pub audit: AuditSettings,
    /// The log.
    pub log: LogSettings,
    /// Worker threads.
    pub threads: usize,
    /// Time limit for running requests at the end.
    pub drain: Duration,
    /// The admin listener.
    pub admin: Option<AdminSettings>,
    /// Written when ready.
    pub ready_file: Option<PathBuf>,
    /// How often files are checked for changes.
    pub poll_interval: Duration,
    /// Logged at start and with each reload.
    pub warnings: Vec<String>,
    /// What is worth a line of the log at start, but nothing to do about.
    pub notes: Vec<String>,
    /// The files of all CA bundles, for whoever wants to check their contents.
    pub bundle_files: Vec<Named>,
    /// The wall clock.
    pub clock: Clock,
}

/// The log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Text or JSON.
    pub format: LogFormat,
    /// Verbosity.
    pub level: LogLevel,
    /// One event per request.
    pub access: bool,
}

impl LogSettings {
    fn of(options: &Options) -> Self {
        Self {
            format: options.log_format.unwrap_or_else(LogFormat::fitting),
            level: options.log_level.unwrap_or(LogLevel::Info),
            access: options.access_log.unwrap_or(true),
        }
    }

    /// How audit events are copied to stderr. A refusal is a warning.
    pub fn audit_copy(&self) -> Option<Form> {
        match (self.level, self.format) {
            (LogLevel::Error, _) => None,
            (_, LogFormat::Json) => Some(Form::Json),
            (_, LogFormat::Text) => Some(Form::Text),
        }
    }
}

impl Settings {
    /// Merges flags, variables, file and preset, and reads the files that they name by way of `files`.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn of(args: RunArgs, environment: &Environment, files: &mut Files) -> Result<Self, ConfigError> {
        let merged = MergedOptions::of(args, files)?;
        let mut build = Build::new(&merged, environment, files);
        let routes = build.routes();
        let listeners = build.listeners(routes.as_ref());
        let minter = build.minter(routes.as_ref());
        build.unused_local_ca(&listeners, minter.as_deref());
        let admin = build.admin(&listeners);
        let connect = build.connect_limits();
        let (proxy, client, threads) = build.limits();
        let connections = build.connection_limits();
        build.unused(&listeners);
        build.own_parents(&listeners, routes.as_ref());
        let notes = build.ambient_proxy().into_iter().collect();
        let warnings = std::mem::take(&mut build.warnings);
        let bundle_files = std::mem::take(&mut build.bundle_files);
        ConfigError::unless_empty(build.problems)?;
        let routes = Arc::new(routes.ok_or_else(|| ConfigError::one("no CA bundle is configured"))?);
        let log = LogSettings::of(&merged.options);
        let options = merged.options;
        Ok(Self {
            listeners,
            proxy,
            routes,
            minter,
            client,
            connections,
            connect,
            audit: AuditSettings {
                file: options.audit_log,
                fold: span(options.fold_repeats, 60),
                chains: options.save_failed_chains,
            },
            log,
            threads,
            drain: span(options.drain_timeout, 30),
            admin,
            ready_file: options.ready_file,
            poll_interval: options.reload_interval.map_or(POLL_INTERVAL, |span| span.0),
            warnings,
            notes,
            bundle_files,
            clock: Clock::System,
        })
    }

    /// The part of these settings that a reload may replace.
    pub fn generation(&self, number: u64, why: &'static str) -> Generation {
        let (settings, routes, listeners) = (self.proxy.clone(), self.routes.clone(), self.listeners.clone());
        let minter = self.minter.clone();
        Generation { number, why, settings, routes, listeners, minter, notices: Arc::default() }
    }

    /// Whether both have the same listeners, in the same order, of the same kind.
    pub fn same_listeners(&self, other: &Self) -> bool {
        self.listeners.len() == other.listeners.len()
            && self.listeners.iter().zip(&other.listeners).all(|(own, other)| {
                own.address == other.address && own.tls == other.tls && own.service.is_like(&other.service)
            })
    }

    /// The flags of settings that differ from `other` and need a restart.
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("--audit-log, --fold-repeats or --save-failed-chains", self.audit != other.audit),
            ("--log-format, --log-level or --access-log", self.log != other.log),
            ("--threads", self.threads != other.threads),
            ("--connect-timeout or --tls-timeout", self.connect != other.connect),
            ("--head-timeout or --keep-alive-timeout", self.client != other.client),
            (
                "--max-connections, --max-listener-connections or --connection-wait",
                self.connections != other.connections,
            ),
            ("--drain-timeout", self.drain != other.drain),
            ("--admin, --admin-host or --admin-read-only", self.admin != other.admin),
            ("--ready-file", self.ready_file != other.ready_file),
            ("--reload-interval", self.poll_interval != other.poll_interval),
        ];
        differs.into_iter().filter_map(|(flags, differs)| differs.then_some(flags)).collect()
    }
}

/// How often files are checked for changes, unless configured.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Settings in the making: problems and warnings are collected on the way.
struct Build<'a> {
    merged: &'a MergedOptions,
    options: &'a Options,
    environment: &'a Environment,
    files: &'a mut Files,
    problems: Vec<String>,
    warnings: Vec<String>,
    bundle_files: Vec<Named>,
    clock: Clock,
}

impl<'a> Build<'a> {
    fn new(merged: &'a MergedOptions, environment: &'a Environment, files: &'a mut Files) -> Self {
        Self {
            merged,
            options: &merged.options,
            environment,
            files,
            problems: Vec::new(),
            warnings: Vec::new(),
            bundle_files: Vec::new(),
            clock: Clock::System,
        }
    }

    /// The value, or a note of the problem.
    fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Reads every item of a list. `name` is the list's flag, variable or key.
    fn each<T>(&mut self, name: &str, texts: &[String], read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut values = Vec::new();
        for text in texts {
            let value = read(text).map_err(|why| format!("{name} `{}`: {why}", show_value(text)));
            values.extend(self.take(value));
        }
        values
    }
}
