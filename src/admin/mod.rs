//! The admin listener: health, metrics, status, and a page for people.
//!
//! It is served by hyper on a thread and an event loop of its own, so that it answers when a worker does not. It reads
//! what [`metrics`](crate::metrics) has, and nothing here is on the way of a client's request.

mod endpoints;
mod guard;
mod page;
mod status;
mod stream;

use std::{convert::Infallible, io, net::IpAddr, pin::pin, sync::Arc, thread, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    runtime,
    sync::{Semaphore, mpsc::UnboundedSender, oneshot},
    time::{sleep, timeout},
};

use crate::{
    message::authority::Host,
    metrics::Metrics,
    proxy::settings::ListenAddress,
    server::{
        health::Health,
        socket::{ListeningSocket, SocketPath},
    },
};

use self::{endpoints::Endpoints, stream::Stream};

/// How the admin listener is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    pub address: ListenAddress,
    pub policy: AdminPolicy,
}

/// Who may ask the admin listener, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminPolicy {
    /// Names that it may be asked by, besides those of loopback and the address that was connected to.
    pub hosts: Vec<Host>,
    /// It has `/livez`, `/readyz` and `/metrics` only.
    pub read_only: bool,
}

/// What the endpoints read and do.
#[derive(Clone, Debug)]
pub struct AdminContext {
    pub policy: AdminPolicy,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
    /// Where requests to change something go.
    pub actions: UnboundedSender<AdminAction>,
}

/// What can be requested of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// To load the settings again.
    Reload,
    /// To finish what is under way, and end.
    Drain,
}

/// A running admin listener; it ends, and the path of its UNIX socket goes, when this is dropped.
#[derive(Debug)]
pub struct AdminServer {
    _stop: oneshot::Sender<()>,
    _path: Option<SocketPath>,
}

/// Connections that are served at a time. Further ones are closed: it is for a few probes, scrapers and people.
const MOST_CONNECTIONS: usize = 64;

/// After so long a connection is closed, between two requests if it may.
const LONGEST_CONNECTION: Duration = Duration::from_secs(60);

/// What a request that is under way then may still take.
const LAST_REQUEST: Duration = Duration::from_secs(5);

/// Bytes of a request's head.
const MOST_HEAD: usize = 16 << 10;

/// Out of descriptors or memory, accepting waits this long before it tries again.
const BACK_OFF: Duration = Duration::from_millis(50);

impl AdminServer {
    /// Serves on a socket, on a thread of its own.
    ///
    /// # Errors
    /// The system has no thread or no event loop for it.
    pub fn start(socket: ListeningSocket, path: Option<SocketPath>, context: AdminContext) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _runtime = runtime.enter();
            match socket {
                ListeningSocket::Tcp(tcp) => Listener::Tcp(TcpListener::from_std(tcp)?),
                ListeningSocket::Unix(unix) => Listener::Unix(UnixListener::from_std(unix)?),
            }
        };
        let endpoints = Arc::new(Endpoints::new(context));
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = listener.serve(&endpoints) => {}
                    _ = stopped => {}
                }
            });
        };
        thread::Builder::new().name("admin".into()).spawn(serve)?;
        Ok(Self { _stop: stop, _path: path })
    }
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// By TCP, to this address.
    Tcp(Option<IpAddr>),
    /// By a UNIX socket, whose permissions say who may.
    Unix,
}

impl Listener {
    async fn serve(&self, endpoints: &Arc<Endpoints>) {
        let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(tcp, _)| {
                    // The listening socket has accepted ones end by RST, which hyper knows nothing of.
                    let lingers = SockRef::from(&tcp).set_linger(None);
                    let arrival = Arrival::Tcp(tcp.local_addr().ok().map(|local| local.ip().to_canonical()));
                    lingers.map(|()| (Box::new(tcp) as Box<dyn Connection>, arrival))
                }),
                Self::Unix(listener) => {
                    listener.accept().await.map(|(unix, _)| Ok((Box::new(unix) as Box<dyn Connection>, Arrival::Unix)))
                }
            };
            match accepted {
                Ok(Ok((connection, arrival))) => {
                    let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
                    let endpoints = endpoints.clone();
                    tokio::spawn(async move {
                        serve_connection(connection, arrival, endpoints).await;
                        drop(permit);
                    });
                }
                // It has gone away already.
                Ok(Err(_)) => {}
                Err(_) => sleep(BACK_OFF).await,
            }
        }
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

async fn serve_connection(connection: Box<dyn Connection>, arrival: Arrival, endpoints: Arc<Endpoints>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let endpoints = endpoints.clone();
        let (head, _) = request.into_parts();
        async move { Ok::<_, Infallible>(endpoints.answer(&head, arrival).await) }
    });
    let serving = http1::Builder::new().max_buf_size(MOST_HEAD).serve_connection(Stream(connection), service);
    let mut serving = pin!(serving);
    // How a connection to the admin listener ends matters to nobody.
    let ended = timeout(LONGEST_CONNECTION, serving.as_mut()).await;
    if ended.is_err() {
        serving.as_mut().graceful_shutdown();
        let _ = timeout(LAST_REQUEST, serving).await;
    }
}
