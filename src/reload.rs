//! Reloading: settings are rebuilt when files change or on SIGHUP, whole or not at all.

use std::sync::{
    Arc,
    mpsc::{self, RecvTimeoutError},
};

use tokio::sync::watch;
use tracing::{error, warn};

use crate::{
    bundle,
    config::{args::RunArgs, environment::Environment, error::ConfigError, settings::Settings, watch::Files},
    metrics::Metrics,
    mint::Minter,
    proxy::settings::Generation,
    supervisor::Supervisor,
};

/// Watches the files that settings were built from, and builds new generations of them.
#[derive(Debug)]
pub struct Reloader {
    args: RunArgs,
    /// What was read for the settings built last, whether or not they could be used.
    tried: Files,
    /// What was there at the last poll.
    seen: Files,
    /// The settings that the process started with.
    started: Settings,
    number: u64,
    failed: u64,
    newer: watch::Sender<Option<Arc<Generation>>>,
    supervisor: Supervisor,
    /// Keeps its keys and certificates as long as its CA stays the same.
    minter: Option<Arc<Minter>>,
}

impl Reloader {
    /// Builds the settings to start with.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn start(args: RunArgs) -> Result<Self, ConfigError> {
        let mut files = Files::at_start();
        let started = build(args.clone(), &mut files)?;
        let (newer, _) = watch::channel(None);
        let minter = started.minter.clone();
        Ok(Self {
            args,
            tried: files.clone(),
            seen: files,
            started,
            number: 1,
            failed: 0,
            newer,
            supervisor: Supervisor::default(),
            minter,
        })
    }

    /// Tells a service manager of each reload.
    #[must_use]
    pub fn supervised_by(self, supervisor: Supervisor) -> Self {
        Self { supervisor, ..self }
    }

    /// The settings that the process started with.
    pub fn started(&self) -> &Settings {
        &self.started
    }

    /// Newer generations, as they come.
    pub fn newer(&self) -> watch::Receiver<Option<Arc<Generation>>> {
        self.newer.subscribe()
    }

    /// Polls the files, and reloads on request, for the reason that it has, until no request can come any more. Needs a thread of its own: a file
    /// may be on a disk that does not answer.
    pub fn watch(mut self, requests: &mpsc::Receiver<&'static str>, metrics: &Metrics) {
        loop {
            match requests.recv_timeout(self.started.poll_interval) {
                Ok(why) => self.reload(why, metrics),
                Err(RecvTimeoutError::Timeout) => self.poll(metrics),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Reloads if files have changed, but not since the last poll: one that is being written is not complete.
    fn poll(&mut self, metrics: &Metrics) {
        let now = self.seen.rescan();
        let settled = now.same_as(&self.seen);
        self.seen = now;
        if settled && !self.seen.same_as(&self.tried) {
            self.reload("files changed", metrics);
        }
    }

    /// Rebuilds the settings. If they cannot be used, that is logged and counted, and the old settings stay.
    fn reload(&mut self, why: &'static str, metrics: &Metrics) {
        self.supervisor.reloading();
        let mut files = Files::default();
        let built = build(self.args.clone(), &mut files);
        self.tried = files.clone();
        self.seen = files;
        let adopted = built.map_err(|error| error.to_string()).and_then(|settings| self.adopt(&settings, why, metrics));
        if let Err(error) = adopted {
            metrics.reload_failed(&error);
            self.refuse(&error, why);
        }
    }

    fn adopt(&mut self, settings: &Settings, why: &'static str, metrics: &Metrics) -> Result<(), String> {
        if !settings.same_listeners(&self.started) {
            return Err("listeners cannot change without a restart".into());
        }
        for flags in settings.needs_restart(&self.started) {
            warn!("{flags}: the new value needs a restart");
        }
        for warning in &settings.warnings {
            warn!("{}", warning.replace('\n', "; "));
        }
        self.number += 1;
        let mut generation = settings.generation(self.number, why);
        // It identifies this process in `Via`, to detect loops.
        generation.settings.pseudonym.clone_from(&self.started.proxy.pseudonym);
        match (&self.minter, &generation.minter) {
            (Some(before), Some(now)) if before.ca().is_same(now.ca()) => generation.minter = Some(before.clone()),
            _ => self.minter.clone_from(&generation.minter),
        }
        // Before the workers say that they have them.
        metrics.reload_succeeded();
        self.newer.send_replace(Some(Arc::new(generation)));
        Ok(())
    }

    fn refuse(&mut self, error: &str, why: &'static str) {
        self.failed += 1;
        self.supervisor.ready(&format!("the new settings cannot be used, the old ones remain in effect: {error}"));
        error!(
            generation = self.number,
            why,
            failed_reloads = self.failed,
            "the new settings cannot be used, the old ones remain in effect: {error}"
        );
    }
}

/// The settings of these arguments, with warnings about everything that `vouchsafe bundle` would find.
///
/// # Errors
/// [`ConfigError`].
pub fn build(args: RunArgs, files: &mut Files) -> Result<Settings, ConfigError> {
    let mut settings = Settings::of(args, &Environment::of_process(), files)?;
    let bundle_files = std::mem::take(&mut settings.bundle_files);
    settings.warnings.extend(bundle::warnings(&bundle_files, settings.clock.now()));
    Ok(settings)
}
