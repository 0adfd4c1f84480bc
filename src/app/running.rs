//! [`Running`]: a proxy that serves, for every command that has one.

use std::{
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
};

use tokio::{sync::watch, task::JoinHandle};

use crate::{audit::sink::AuditSink, proxy::settings::BoundAddress, reload::Reloader, server::Stop};

use super::{App, AppError};

/// A proxy that serves until it is told to stop.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<BoundAddress>,
    audit: Arc<AuditSink>,
    stop: watch::Sender<Stop>,
    reload: Option<Sender<()>>,
    end: JoinHandle<Result<(), AppError>>,
}

impl Running {
    /// Starts the workers. With a reloader, files are polled, and settings are replaced when they change. Needs a tokio
    /// runtime, on which the life of the process is watched.
    ///
    /// # Errors
    /// [`AppError::System`]. Later errors are those of [`Self::join`].
    pub fn start(app: App, reloader: Option<Reloader>) -> Result<Self, AppError> {
        let (stop, told) = watch::channel(Stop::No);
        let (addresses, audit) = (app.addresses(), app.audit());
        let (newer, reload) = match reloader {
            Some(reloader) => {
                let newer = reloader.newer();
                let (reload, requests) = mpsc::channel();
                let watch = move || reloader.watch(&requests);
                thread::Builder::new().name("reload".into()).spawn(watch).map_err(AppError::System)?;
                (newer, Some(reload))
            }
            None => (watch::channel(None).1, None),
        };
        let end = tokio::spawn(app.run(told, newer));
        Ok(Self { addresses, audit, stop, reload, end })
    }

    /// Where the listeners are, in the order of the settings.
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// The audit sink: to have its file opened again, and for its tally.
    pub fn audit(&self) -> &Arc<AuditSink> {
        &self.audit
    }

    /// Drains, or stops at once.
    pub fn stop(&self, stop: Stop) {
        self.stop.send_replace(stop);
    }

    /// Rebuilds the settings, if there is a reloader.
    pub fn reload(&self) {
        if let Some(reload) = &self.reload {
            // The other end lives as long as the process.
            let _ = reload.send(());
        }
    }

    /// Waits for the end. Cancel safe; it must not be called again once it has returned.
    ///
    /// # Errors
    /// [`AppError`]: what kept the proxy from its duty, or that requests were cut.
    pub async fn join(&mut self) -> Result<(), AppError> {
        (&mut self.end).await.unwrap_or(Err(AppError::Worker))
    }
}
