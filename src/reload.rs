//! Reloading: settings made anew when files change or SIGHUP asks for it, whole or not at all.

use std::{
    ffi::OsString,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::sync::watch;
use tracing::{error, warn};

use crate::{
    config::{args::RunArgs, error::ConfigError, settings::Settings, watch::Files},
    proxy::settings::Generation,
};

/// Watches what settings were made of, and makes new generations of them.
#[derive(Debug)]
pub struct Reloader {
    args: RunArgs,
    /// What was read for the settings made last, whether or not they could be used.
    tried: Files,
    /// What was there at the last look.
    seen: Files,
    /// The settings that the process started with.
    started: Settings,
    number: u64,
    failed: u64,
    newer: watch::Sender<Option<Arc<Generation>>>,
}

impl Reloader {
    /// Makes the settings to start with.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn start(args: RunArgs) -> Result<Self, ConfigError> {
        let mut files = Files::waiting();
        let started = Settings::of(args.clone(), variable, &mut files)?;
        let (newer, _) = watch::channel(None);
        Ok(Self { args, tried: files.clone(), seen: files, started, number: 1, failed: 0, newer })
    }

    /// The settings that the process started with.
    pub fn started(&self) -> &Settings {
        &self.started
    }

    /// Where newer generations are told.
    pub fn newer(&self) -> watch::Receiver<Option<Arc<Generation>>> {
        self.newer.subscribe()
    }

    /// Looks so often, and reloads where that is asked for, until nobody could ask any more. For a thread of its own:
    /// a file may be on a disk that does not answer.
    pub fn watch(mut self, look: Duration, asked: &mpsc::Receiver<()>) {
        loop {
            match asked.recv_timeout(look) {
                Ok(()) => self.reload("SIGHUP"),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Reloads where files changed, and stand still since the last look: one that is being written is not whole.
    fn look(&mut self) {
        let now = self.seen.rescan();
        let settled = now.same_as(&self.seen);
        self.seen = now;
        if settled && !self.seen.same_as(&self.tried) {
            self.reload("files changed");
        }
    }

    /// Makes the settings anew. What cannot be used is said and counted, and the old settings stay.
    fn reload(&mut self, why: &'static str) {
        let mut files = Files::default();
        let made = Settings::of(self.args.clone(), variable, &mut files);
        self.tried = files.clone();
        self.seen = files;
        match made {
            Ok(settings) => self.adopt(&settings, why),
            Err(error) => self.refuse(&error.to_string(), why),
        }
    }

    fn adopt(&mut self, settings: &Settings, why: &'static str) {
        if !settings.same_listeners(&self.started) {
            self.refuse("other listeners than those that are bound take a restart", why);
            return;
        }
        for flags in settings.takes_restart(&self.started) {
            warn!("{flags}: the new value takes a restart");
        }
        for warning in &settings.warnings {
            warn!("{warning}");
        }
        self.number += 1;
        let mut generation = settings.generation(self.number, why);
        // Requests that come round again know us by it.
        generation.settings.pseudonym.clone_from(&self.started.proxy.pseudonym);
        self.newer.send_replace(Some(Arc::new(generation)));
    }

    fn refuse(&mut self, error: &str, why: &'static str) {
        self.failed += 1;
        error!(
            generation = self.number,
            why,
            failed_reloads = self.failed,
            "the new settings cannot be used, the old ones stay: {error}"
        );
    }
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
