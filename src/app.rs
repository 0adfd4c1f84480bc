//! The wiring: settings become bound listeners, workers, and an orderly end.
//!
//! Each worker is one thread with a runtime of its own, its own connections and its own pool; workers
//! share the listening sockets, the settings, and nothing that a request would wait for.

mod bound;
mod running;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};
use tokio::{
    runtime::{self, LocalOptions},
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tracing::{info, warn};

use crate::{
    audit::sink::{AuditError, AuditSink},
    clock::rfc3339,
    config::settings::Settings,
    connect::{Connector, OwnSockets},
    expiry,
    logging::{Flush, flush},
    metrics::Metrics,
    proxy::{
        ListenerContext, Proxy,
        settings::{BoundAddress, Generation, ListenAddress, ListenerSettings, OriginalAddress, Service},
    },
    ready::ReadyFile,
    server::{
        Stop,
        health::{Health, Phase, Ping},
        limiter::{ConnectionLimiter, WAIT_QUEUE},
        listener::accept,
        session::{ClientLimits, SessionContext},
        socket::{Acceptor, InheritedSockets, ListeningSocket},
    },
    supervisor::Supervisor,
    text::escape,
};

use self::bound::{BoundAdmin, BoundListener, listen_error};
pub use self::running::Running;

/// A proxy whose listeners are bound.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    listeners: Vec<BoundListener>,
    audit: Arc<AuditSink>,
    supervisor: Supervisor,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    admin: Option<BoundAdmin>,
}

/// Why the proxy cannot do its duty.
#[derive(Debug)]
pub enum AppError {
    /// The audit log, or the directory for chains, cannot be used.
    Audit(AuditError),
    /// An address cannot be listened on.
    Listen(ListenAddress, io::Error),
    /// The ready file cannot be written.
    Ready(PathBuf, io::Error),
    /// What still ran at the end was reset.
    Cut(&'static str),
    /// A thread or a runtime cannot be had.
    System(io::Error),
    /// A worker died.
    Worker,
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audit(error @ AuditError::Path(_, path, why)) => write!(f, "{error}{}", path_hint(path, why)),
            Self::Audit(error) => error.fmt(f),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {}", listen_error(address, error)),
            Self::Ready(path, error) => {
                write!(f, "--ready-file `{}`: {error}{}", path.display(), path_hint(path, error))
            }
            Self::Cut(why) => write!(f, "{why}; requests that were still running were reset"),
            Self::Worker => f.write_str("a worker thread ended unexpectedly; this is a defect"),
            Self::System(error) => write!(f, "cannot start a thread or an event loop: {error}"),
        }
    }
}

impl std::error::Error for AppError {}

/// What to do about a file or directory that cannot be made.
fn path_hint(path: &Path, error: &io::Error) -> String {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match (error.kind(), directory) {
        (io::ErrorKind::NotFound, Some(directory)) if !directory.exists() => {
            format!("\n  hint: create the directory: `install -d -o USER {}`", directory.display())
        }
        (io::ErrorKind::PermissionDenied, _) => {
            "\n  hint: the user that runs vouchsafe needs to be able to write there".into()
        }
        _ => String::new(),
    }
}

impl App {
    /// Opens and binds everything; nothing is accepted yet. Listeners whose address is inherited take their socket from
    /// `inherited`.
    ///
    /// # Errors
    /// [`AppError`].
    pub fn bind(settings: Settings, mut inherited: InheritedSockets) -> Result<Self, AppError> {
        let audit = AuditSink::new(settings.log.audit_copy(), &settings.audit).map_err(AppError::Audit)?;
        let bind = |listener: &ListenerSettings| {
            let bound = BoundListener::new(listener, &mut inherited);
            bound.map_err(|error| AppError::Listen(listener.address.clone(), error))
        };
        let listeners = settings.listeners.iter().map(bind).collect::<Result<_, _>>()?;
        let admin = settings
            .admin
            .as_ref()
            .map(|admin| BoundAdmin::new(admin).map_err(|error| AppError::Listen(admin.address.clone(), error)));
        let admin = admin.transpose()?;
        for name in inherited.names() {
            warn!("the socket `{}` was handed to this process, and no listener has it; `fd:{0}` would", escape(name));
        }
        let metrics = Arc::new(Metrics::new(settings.clock, audit.counters().clone()));
        let (audit, health, supervisor) = (Arc::new(audit), Arc::default(), Supervisor::default());
        Ok(Self { settings, listeners, audit, supervisor, metrics, health, admin })
    }

    /// Tells a service manager what becomes of it.
    #[must_use]
    pub fn supervised_by(self, supervisor: Supervisor) -> Self {
        Self { supervisor, ..self }
    }

    /// Where the listeners are, in the order of the settings.
    fn addresses(&self) -> Vec<BoundAddress> {
        self.listeners.iter().map(|bound| bound.address.clone()).collect()
    }

    fn audit(&self) -> Arc<AuditSink> {
        self.audit.clone()
    }

    fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// Serves until told to stop. A drain waits for what runs, as long as it may; what still runs then,
    /// or when the end is to come at once, is reset.
    ///
    /// # Errors
    /// [`AppError`]: before the first request is served, where a worker dies, or where requests were cut.
    async fn run(
        mut self,
        mut stop: watch::Receiver<Stop>,
        newer: watch::Receiver<Option<Arc<Generation>>>,
    ) -> Result<(), AppError> {
        self.announce();
        let shared = Shared {
            bound: self.addresses().into(),
            reachable: self.listeners.iter().filter_map(BoundListener::reachable).collect(),
            sockets: OwnSockets::default(),
        };
        let generation = self.settings.generation(1, "start");
        self.metrics.adopt(generation.facts(&shared.bound));
        let limiters = self.limiters();
        let (tell, told) = watch::channel(Stop::No);
        let (adopted, in_force) = mpsc::unbounded_channel();
        let (mut workers, mut listening) = (JoinSet::new(), Vec::new());
        for number in 0..self.settings.threads {
            let worker = self
                .worker(&generation, shared.clone(), &limiters, newer.clone(), adopted.clone())
                .map_err(AppError::System)?;
            let stop = told.clone();
            let (up, is_up) = oneshot::channel();
            listening.push(is_up);
            let (done, over) = oneshot::channel();
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            // A worker that panics drops `done` unsent; that nobody waits any more does not matter to it.
            let work = move || {
                let _ = done.send(worker.run(up, stop));
            };
            thread.spawn(work).map_err(AppError::System)?;
            workers.spawn(async move { over.await.unwrap_or(Err(AppError::Worker)) });
        }
        for is_up in listening {
            if is_up.await.is_err() {
                return all(&mut workers).await.and(Err(AppError::Worker));
            }
        }
        // The workers have sockets of their own; a successor may listen as soon as they close them.
        let listeners = std::mem::take(&mut self.listeners);
        let ready = ready_lines(&listeners);
        let count = listeners.len();
        let paths: Vec<_> = listeners.into_iter().map(|bound| bound.path).collect();
        let ready_file = self
            .settings
            .ready_file
            .as_ref()
            .map(|path| ReadyFile::write(path, &ready).map_err(|error| AppError::Ready(path.clone(), error)));
        let ready_file = ready_file.transpose()?;
        self.health.set_phase(Phase::Ready);
        info!(listeners = count, threads = workers.len(), "ready");
        self.supervisor.ready(&status(&generation));
        // It ends with this function.
        let mut background = JoinSet::new();
        background.spawn(expiry::watch(self.metrics.clone(), self.audit.clone()));
        background.spawn(self.supervisor.clone().feed_watchdog(self.health.clone()));
        let mut now = stop.clone();
        let died = tokio::select! {
            _ = stop.wait_for(|stop| *stop >= Stop::Drain) => None,
            end = all(&mut workers) => Some(end.and(Err(AppError::Worker))),
            () = self.say_in_force(in_force, &shared.bound) => Some(Err(AppError::Worker)),
        };
        drop(ready_file);
        self.supervisor.stopping();
        let end = if let Some(end) = died {
            end
        } else {
            self.health.set_phase(Phase::Draining);
            info!("draining");
            // Nobody listens there any more; a successor may make them again.
            drop(paths);
            tell.send_replace(Stop::Drain);
            tokio::select! {
                end = all(&mut workers) => end,
                () = sleep(self.settings.drain) => Err(AppError::Cut("the drain timeout has passed")),
                _ = now.wait_for(|stop| *stop >= Stop::Now) => Err(AppError::Cut("a second signal was received")),
            }
        };
        if end.is_err() {
            tell.send_replace(Stop::Now);
            // Resetting takes no time; a worker that hangs must not hold up the end.
            let _ = timeout(LAST_WORD, all(&mut workers)).await;
        }
        self.audit.close();
        info!("stopped");
        end
    }

    /// Says of each newer generation when the last worker goes by it.
    async fn say_in_force(&self, mut adopted: mpsc::UnboundedReceiver<Arc<Generation>>, bound: &[BoundAddress]) {
        let mut count: (u64, usize) = (0, 0);
        while let Some(generation) = adopted.recv().await {
            if generation.number < count.0 {
                // Some worker goes by a newer one already.
                continue;
            }
            count = if count.0 == generation.number { (count.0, count.1 + 1) } else { (generation.number, 1) };
            if count.1 == self.settings.threads {
                self.metrics.adopt(generation.facts(bound));
                let anchors = &generation.routes.tls.0.settings().trust.anchors;
                info!(
                    generation = generation.number,
                    why = generation.why,
                    source = anchors.source,
                    anchors = anchors.anchors().len(),
                    sha256 = anchors.sha256,
                    "reloaded"
                );
                self.supervisor.ready(&status(&generation));
            }
        }
    }

    fn announce(&self) {
        let anchors = &self.settings.routes.tls.0.settings().trust.anchors;
        info!(source = anchors.source, anchors = anchors.anchors().len(), sha256 = anchors.sha256, "bundle");
        if let Some(ca) = self.settings.minter.as_ref().map(|minter| minter.ca()) {
            let (directory, end) = (ca.directory.display(), rfc3339(ca.not_after));
            info!(%directory, sha256 = ca.root.sha256, permits = %ca.permits, not_after = end, "local CA");
        }
        for warning in &self.settings.warnings {
            warn!("{}", warning.replace('\n', "; "));
        }
        for note in &self.settings.notes {
            info!("{note}");
        }
        let is_redirected =
            |bound: &BoundListener| matches!(bound.settings.service, Service::Original(OriginalAddress::Redirected));
        if geteuid().is_root() && self.listeners.iter().any(is_redirected) {
            warn!(
                "a transparent listener runs as root: redirect rules for root would catch vouchsafe's own connections; run it as a user of its own"
            );
        }
        for bound in &self.listeners {
            info!(address = %bound.address, listener = bound.settings.name, to = %bound.settings.service, "listening");
        }
    }

    /// How many clients may be connected, each with an upstream connection, as far as the open files go.
    fn limiters(&self) -> Vec<ConnectionLimiter> {
        let files = raise_open_files();
        let carried = files.saturating_sub(OTHER_FILES) / 2;
        let limits = self.settings.connections;
        if let Some(all) = limits.all.filter(|all| *all > carried) {
            warn!("--max-connections `{all}`: {files} open files, which is the limit of this process, carry {carried}");
        }
        if limits.all.is_none() && carried < FEW_CONNECTIONS {
            let carried = carried.max(1);
            warn!(
                "{files} open files, which is the limit of this process, carry {carried} clients at a time; raise it, as with `ulimit -n 4096`"
            );
        }
        let all = limits.all.unwrap_or_else(|| carried.clamp(1, MOST_CONNECTIONS));
        ConnectionLimiter::for_listeners(self.listeners.len(), all, limits)
    }

    fn worker(
        &self,
        generation: &Generation,
        shared: Shared,
        limiters: &[ConnectionLimiter],
        newer: watch::Receiver<Option<Arc<Generation>>>,
        adopted: mpsc::UnboundedSender<Arc<Generation>>,
    ) -> io::Result<Worker> {
        let listeners = self
            .listeners
            .iter()
            .zip(limiters)
            .map(|(bound, limiter)| Ok((bound.socket.try_clone()?, bound.settings.clone(), limiter.clone())));
        Ok(Worker {
            listeners: listeners.collect::<io::Result<_>>()?,
            make: ProxyMaker {
                generation: generation.clone(),
                connect: self.settings.connect,
                clock: self.settings.clock,
                audit: self.audit.clone(),
                metrics: self.metrics.clone(),
                shared,
            },
            client: self.settings.client,
            newer,
            adopted,
            pings: self.health.add_worker(),
        })
    }
}

/// The content of the ready file: a line for each listener.
fn ready_lines(listeners: &[BoundListener]) -> String {
    listeners.iter().map(|bound| format!("{} {}\n", bound.address, bound.settings.service)).collect()
}

/// What a service manager shows.
fn status(generation: &Generation) -> String {
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (listeners, anchors) =
        (generation.listeners.len(), generation.routes.tls.0.settings().trust.anchors.anchors().len());
    format!(
        "ready: {listeners} listener{}, {anchors} trusted CA{}, settings of {} ({})",
        plural(listeners),
        plural(anchors),
        generation.why,
        generation.number
    )
}

/// What the workers have in common besides the settings.
#[derive(Clone)]
struct Shared {
    /// Where the listeners are bound, in the order of the settings.
    bound: Arc<[BoundAddress]>,
    /// Those that connecting from here leads to.
    reachable: Arc<[SocketAddr]>,
    sockets: OwnSockets,
}

struct ProxyMaker {
    generation: Generation,
    connect: crate::connect::ConnectLimits,
    clock: crate::clock::Clock,
    audit: Arc<AuditSink>,
    metrics: Arc<Metrics>,
    shared: Shared,
}

impl ProxyMaker {
    fn make(self) -> Proxy {
        let Shared { bound, reachable, sockets } = self.shared;
        let connector = Connector::new(self.connect, reachable, sockets);
        Proxy::new(self.generation, bound, connector, self.audit, self.metrics, self.clock)
    }
}

struct Worker {
    listeners: Vec<(ListeningSocket, ListenerSettings, ConnectionLimiter)>,
    make: ProxyMaker,
    client: ClientLimits,
    newer: watch::Receiver<Option<Arc<Generation>>>,
    adopted: mpsc::UnboundedSender<Arc<Generation>>,
    pings: mpsc::Receiver<Ping>,
}

impl Worker {
    /// Serves every listener to its end; says so when it is `up`.
    fn run(self, up: oneshot::Sender<()>, stop: watch::Receiver<Stop>) -> Result<(), AppError> {
        let _log = Flush;
        let Self { listeners, make, client, mut newer, adopted, mut pings } = self;
        let metrics = make.metrics.clone();
        let mut runtime = runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().on_thread_park(flush).build_local(LocalOptions::default());
        runtime.map_err(AppError::System)?.block_on(async move {
            let proxy = Rc::new(make.make());
            let mut accepting = JoinSet::new();
            for (index, (socket, settings, limiter)) in listeners.into_iter().enumerate() {
                let original = match settings.service {
                    Service::Original(how) => Some(how),
                    Service::Fixed(_) | Service::Forward => None,
                };
                let acceptor = Acceptor::new(socket, original).map_err(AppError::System)?;
                let listener = ListenerContext { index, original: None, tunnel: None, tls: None };
                let connections = metrics.listener(&settings.name).connections.clone();
                let (name, proxy) = (settings.name, proxy.clone());
                let context = SessionContext { listener, name, connections, proxy, limits: client, stop: stop.clone() };
                accepting.spawn_local(accept(acceptor, Rc::new(context), limiter));
            }
            // Nobody waits for it any more where another worker failed.
            let _ = up.send(());
            let mut sweep = interval(SWEEP);
            loop {
                tokio::select! {
                    next = accepting.join_next() => match next {
                        Some(Ok(())) => {}
                        Some(Err(_)) => return Err(AppError::Worker),
                        None => return Ok(()),
                    },
                    _ = sweep.tick() => proxy.sweep(),
                    Some(ping) = pings.recv() => {
                        // Whoever asked may have waited long enough.
                        let _ = ping.send(());
                    }
                    Ok(()) = newer.changed() => {
                        let generation = newer.borrow_and_update().clone();
                        if let Some(generation) = generation {
                            proxy.adopt((*generation).clone());
                            // Nobody hears it any more at the end.
                            let _ = adopted.send(generation);
                        }
                    }
                }
            }
        })
    }
}

/// How many files this process may have open, once it has asked for as many as it may have.
fn raise_open_files() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Where that is refused, the old limit holds.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Open files besides those for clients and upstreams: clients that wait, listeners, logs, event loops, the resolver.
const OTHER_FILES: usize = WAIT_QUEUE + 64;

/// Fewer connections than these are worth a warning.
const FEW_CONNECTIONS: usize = 256;

/// The default, where the open files do not set another.
const MOST_CONNECTIONS: usize = 10_000;

/// Waits for all workers.
async fn all(workers: &mut JoinSet<Result<(), AppError>>) -> Result<(), AppError> {
    while let Some(worker) = workers.join_next().await {
        worker.unwrap_or(Err(AppError::Worker))?;
    }
    Ok(())
}

/// How long workers may take to reset what runs.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_bound_is_told_with_what_to_do() {
        for (address, kind, expected) in [
            (
                "127.0.0.1:80",
                io::ErrorKind::PermissionDenied,
                "cannot listen on 127.0.0.1:80: this user may not use ports below 1024\n  hint: use a port above 1023, or give the process CAP_NET_BIND_SERVICE",
            ),
            (
                "127.0.0.1:3128",
                io::ErrorKind::AddrInUse,
                "cannot listen on 127.0.0.1:3128: address already in use\n  hint: `ss -ltnp 'sport = :3128'` shows which process holds it",
            ),
            (
                "192.0.2.1:3128",
                io::ErrorKind::AddrNotAvailable,
                "cannot listen on 192.0.2.1:3128: this host has no such address\n  hint: `ip addr` shows the addresses that it has",
            ),
        ] {
            let error = AppError::Listen(ListenAddress::Tcp(address.parse().unwrap()), kind.into());
            assert_eq!(error.to_string(), expected);
        }
    }
}
