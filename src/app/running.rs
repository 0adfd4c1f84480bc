//! [`Running`]: a proxy that serves, for every command that has one.

use std::{
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
};

use tokio::{
    sync::{mpsc::unbounded_channel, watch},
    task::JoinHandle,
};
use tracing::info;

use crate::{
    admin::{AdminAction, AdminContext, AdminServer},
    audit::sink::AuditSink,
    metrics::Metrics,
    proxy::settings::BoundAddress,
    reload::Reloader,
    server::Stop,
};

use super::{App, AppError, bound::BoundAdmin};

/// A proxy that serves until it is told to stop.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<BoundAddress>,
    audit: Arc<AuditSink>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<Stop>,
    reload: Option<Sender<&'static str>>,
    end: JoinHandle<Result<(), AppError>>,
}

impl Running {
    /// Starts the workers. With a reloader, files are polled, and settings are replaced when they change. Needs a tokio
    /// runtime, on which the life of the process is watched.
    ///
    /// # Errors
    /// [`AppError::System`]. Later errors are those of [`Self::join`].
    pub fn start(mut app: App, reloader: Option<Reloader>) -> Result<Self, AppError> {
        let (stop, told) = watch::channel(Stop::No);
        let (addresses, audit, metrics) = (app.addresses(), app.audit(), app.metrics());
        let (newer, reload) = match reloader {
            Some(reloader) => {
                let newer = reloader.newer();
                let (reload, requests) = mpsc::channel();
                let metrics = metrics.clone();
                let watch = move || reloader.watch(&requests, &metrics);
                thread::Builder::new().name("reload".into()).spawn(watch).map_err(AppError::System)?;
                (newer, Some(reload))
            }
            None => (watch::channel(None).1, None),
        };
        let admin = match app.admin.take() {
            Some(admin) => Some(start_admin(&app, admin, stop.clone(), reload.clone())?),
            None => None,
        };
        let end = tokio::spawn(async move {
            let end = app.run(told, newer).await;
            drop(admin);
            end
        });
        Ok(Self { addresses, audit, metrics, stop, reload, end })
    }

    /// Where the listeners are, in the order of the settings.
    pub fn addresses(&self) -> &[BoundAddress] {
        &self.addresses
    }

    /// The audit sink: to have its file opened again, and for its tally.
    pub fn audit(&self) -> &Arc<AuditSink> {
        &self.audit
    }

    /// What is counted and observed.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Drains, or stops at once.
    pub fn stop(&self, stop: Stop) {
        self.stop.send_replace(stop);
    }

    /// Rebuilds the settings, if there is a reloader.
    pub fn reload(&self) {
        if let Some(reload) = &self.reload {
            // The other end lives as long as the process.
            let _ = reload.send("SIGHUP");
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

/// Starts the admin listener, and does what is requested by it.
fn start_admin(
    app: &App,
    admin: BoundAdmin,
    stop: watch::Sender<Stop>,
    reload: Option<Sender<&'static str>>,
) -> Result<AdminServer, AppError> {
    let BoundAdmin { socket, path, policy } = admin;
    let address = socket.address().map_err(AppError::System)?;
    let (actions, mut requested) = unbounded_channel();
    let (metrics, health) = (app.metrics.clone(), app.health.clone());
    let context = AdminContext { policy, metrics, health, actions };
    let server = AdminServer::start(socket, path, context).map_err(AppError::System)?;
    info!(admin = %address, "admin listener");
    tokio::spawn(async move {
        while let Some(action) = requested.recv().await {
            info!(?action, "requested by the admin listener");
            match action {
                AdminAction::Reload => {
                    // Its other end lives as long as the process.
                    let _ = reload.as_ref().map(|reload| reload.send("admin listener"));
                }
                AdminAction::Drain => stop.send_modify(|stop| *stop = (*stop).max(Stop::Drain)),
            }
        }
    });
    Ok(server)
}
