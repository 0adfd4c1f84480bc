//! The wiring: settings become bound listeners, workers, and an orderly end.
//!
//! Each worker is one thread with a runtime of its own, its own connections and its own pool; workers
//! share the listening sockets, the settings, and nothing that a request would wait for.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::{runtime, sync::watch, task::LocalSet, time::interval};
use tracing::{info, warn};

use crate::{
    audit::sink::AuditSink,
    config::settings::{ListenerSettings, Settings},
    connect::Connector,
    proxy::{Entry, Proxy, Service},
    server::listener::accept,
};

/// A proxy whose listeners are bound.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    listeners: Vec<Bound>,
    audit: Arc<AuditSink>,
}

#[derive(Debug)]
struct Bound {
    socket: TcpListener,
    address: SocketAddr,
    settings: ListenerSettings,
}

/// Why the proxy cannot do its duty.
#[derive(Debug)]
pub enum AppError {
    /// The audit log cannot be opened.
    Audit(PathBuf, io::Error),
    /// An address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The ready file cannot be written.
    Ready(PathBuf, io::Error),
    /// A thread or a runtime cannot be had.
    System(io::Error),
}

impl fmt::Display for AppError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Audit(path, error) => write!(f, "--audit-log `{}`: {error}", path.display()),
            Self::Listen(address, error) if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {address}: address already in use\nhint: `ss -ltnp 'sport = :{}'` shows which process holds it",
                address.port()
            ),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Ready(path, error) => write!(f, "--ready-file `{}`: {error}", path.display()),
            Self::System(error) => write!(f, "the system refuses a thread or an event loop: {error}"),
        }
    }
}

impl std::error::Error for AppError {}

impl App {
    /// Opens and binds everything; nothing is accepted yet.
    ///
    /// # Errors
    /// [`AppError`].
    pub fn bind(settings: Settings) -> Result<Self, AppError> {
        let audit = AuditSink::new(settings.log.audit_copy(), settings.audit_log.clone())
            .map_err(|error| AppError::Audit(settings.audit_log.clone().unwrap_or_default(), error))?;
        let bind = |settings: &ListenerSettings| {
            let socket = TcpListener::bind(settings.address)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok(Bound { socket, address, settings: settings.clone() })
        };
        let mut listeners = Vec::new();
        for listener in &settings.listeners {
            let bound = bind(listener).map_err(|error| AppError::Listen(listener.address, error))?;
            listeners.push(bound);
        }
        Ok(Self { settings, listeners, audit: Arc::new(audit) })
    }

    /// Where the listeners are, in the order of the settings.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|bound| bound.address).collect()
    }

    /// The audit sink, to have its file opened anew.
    pub fn audit(&self) -> Arc<AuditSink> {
        self.audit.clone()
    }

    /// Serves until `drain` turns true, and then until what runs is done, or the drain's time is over.
    ///
    /// # Errors
    /// [`AppError`], before the first request is served.
    pub async fn run(self, drain: watch::Receiver<bool>) -> Result<(), AppError> {
        self.announce();
        let own: Arc<[SocketAddr]> = self.addresses().into();
        let mut workers = Vec::new();
        for number in 0..self.settings.threads {
            let worker = self.worker(own.clone()).map_err(AppError::System)?;
            let drain = drain.clone();
            let (done, over) = tokio::sync::oneshot::channel::<()>();
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            // The thread ends with the process where the drain's time runs out first.
            thread
                .spawn(move || {
                    worker.run(drain);
                    drop(done);
                })
                .map_err(AppError::System)?;
            workers.push(over);
        }
        if let Some(path) = &self.settings.ready_file {
            self.write_ready(path).map_err(|error| AppError::Ready(path.clone(), error))?;
        }
        info!(listeners = self.listeners.len(), threads = workers.len(), "ready");
        let mut draining = drain;
        let _ = draining.wait_for(|drain| *drain).await;
        info!("draining");
        let all = async {
            for worker in workers {
                let _ = worker.await;
            }
        };
        if tokio::time::timeout(self.settings.drain, all).await.is_err() {
            warn!("the drain's time is over; what still ran is cut off");
        }
        if let Some(path) = &self.settings.ready_file {
            let _ = fs::remove_file(path);
        }
        info!("stopped");
        Ok(())
    }

    fn announce(&self) {
        let anchors = &self.settings.routes.trust.0.trust().anchors;
        info!(source = anchors.source, anchors = anchors.anchors().len(), sha256 = anchors.sha256, "bundle");
        for warning in &self.settings.warnings {
            warn!("{warning}");
        }
        for bound in &self.listeners {
            info!(address = %bound.address, listener = bound.settings.name, to = target(&bound.settings.service), "listening");
        }
    }

    fn write_ready(&self, path: &PathBuf) -> io::Result<()> {
        let line = |bound: &Bound| format!("{} {}\n", bound.address, target(&bound.settings.service));
        let text: String = self.listeners.iter().map(line).collect();
        // Whole or not at all: a script may be waiting for it.
        let partial = path.with_extension("partial");
        fs::write(&partial, text)?;
        fs::rename(&partial, path)
    }

    fn worker(&self, own: Arc<[SocketAddr]>) -> io::Result<Worker> {
        let listeners = self
            .listeners
            .iter()
            .map(|bound| Ok((bound.socket.try_clone()?, bound.settings.name.clone(), bound.settings.service.clone())));
        Ok(Worker {
            runtime: runtime::Builder::new_current_thread().enable_all().build()?,
            listeners: listeners.collect::<io::Result<_>>()?,
            make: ProxyMaker {
                settings: self.settings.proxy.clone(),
                routes: self.settings.routes.clone(),
                connect: self.settings.connect,
                clock: self.settings.clock,
                audit: self.audit.clone(),
                own,
            },
            client: self.settings.client,
        })
    }
}

fn target(service: &Service) -> String {
    match service {
        Service::Fixed(upstream) => format!("https://{upstream}"),
        Service::Forward => "*".into(),
    }
}

struct ProxyMaker {
    settings: crate::proxy::ProxySettings,
    routes: Arc<crate::route::table::Routes>,
    connect: crate::connect::ConnectLimits,
    clock: crate::clock::Clock,
    audit: Arc<AuditSink>,
    own: Arc<[SocketAddr]>,
}

impl ProxyMaker {
    fn make(self) -> Proxy {
        let connector = Connector::new(self.connect, self.own);
        Proxy::new(self.settings, self.routes, connector, self.audit, self.clock)
    }
}

struct Worker {
    runtime: runtime::Runtime,
    listeners: Vec<(TcpListener, String, Service)>,
    make: ProxyMaker,
    client: crate::server::connection::ClientLimits,
}

impl Worker {
    fn run(self, drain: watch::Receiver<bool>) {
        let Self { runtime, listeners, make, client } = self;
        let local = LocalSet::new();
        runtime.block_on(local.run_until(async move {
            let proxy = Rc::new(make.make());
            let mut accepting = tokio::task::JoinSet::new();
            for (socket, name, service) in listeners {
                let entry = Entry { name: name.into(), service: Rc::new(service), tunnel: None };
                match tokio::net::TcpListener::from_std(socket) {
                    Ok(socket) => {
                        accepting.spawn_local(accept(socket, entry, proxy.clone(), client, drain.clone()));
                    }
                    Err(error) => tracing::error!(%error, listener = %entry.name, "cannot listen"),
                }
            }
            let mut sweep = interval(SWEEP);
            loop {
                tokio::select! {
                    next = accepting.join_next() => if next.is_none() { break },
                    _ = sweep.tick() => proxy.sweep(),
                }
            }
        }));
    }
}

/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);
