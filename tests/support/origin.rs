//! A TLS origin that does exactly what a test tells it, byte for byte, and keeps what it was sent; and a
//! client that speaks raw bytes and sees how its connection ends.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use certs_dev::{Case, Identity};
use rustls::ServerConfig;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{gallery::GALLERY, proxy::PATIENCE};

/// What an origin does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// close_notify, then FIN: a clean end of TLS.
    Close,
    /// FIN without close_notify.
    Fin,
    /// RST.
    Reset,
    /// Nothing, for as long as the proxy keeps the connection.
    Stall,
}

/// A text as one step.
pub fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

/// A running origin.
pub struct Origin {
    /// Where it is.
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    closed: AtomicUsize,
    /// How connections ended that broke in the middle of a request.
    broken: Mutex<Vec<String>>,
    /// Bytes received since a connection was last at rest.
    partial: AtomicUsize,
    changed: Notify,
}

impl Origin {
    /// An origin with a good certificate for `good.gallery.test`, whose script gives the steps for the
    /// n-th request (from 0) with this head and body.
    pub async fn start(script: impl Fn(usize, &str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::with_identity(&GALLERY.identity(Case::Good).unwrap(), script).await
    }

    /// The same with another certificate.
    pub async fn with_identity(
        identity: &Identity,
        script: impl Fn(usize, &str) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (shared, script, acceptor) = (state.clone(), Arc::new(script), acceptor(identity));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, state, script) = (acceptor.clone(), shared.clone(), script.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else { return };
                    state.connections.fetch_add(1, Ordering::SeqCst);
                    serve(stream, &state, &*script).await;
                    state.closed.fetch_add(1, Ordering::SeqCst);
                    state.changed.notify_waiters();
                });
            }
        });
        Self { address, state }
    }

    /// The flags of a fixed route to it.
    pub fn route(&self) -> Vec<String> {
        let name = format!("{}:{}", Case::Good.name(), self.address.port());
        ["--route", &format!("127.0.0.1:0=https://{name}"), "--connect-to", &format!("{name}={}", self.address)]
            .map(str::to_owned)
            .to_vec()
    }

    /// What it was asked: head and body of each request, as they came.
    pub fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }

    /// How many TLS connections were opened.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits for a connection that broke in the middle of a request, and says how.
    pub async fn broken(&self) -> String {
        self.until("a broken upload", || self.state.broken.lock().unwrap().pop()).await
    }

    /// Waits until this many bytes of a request came that is not whole yet.
    pub async fn has_part_of(&self, bytes: usize) {
        let enough = || (self.state.partial.load(Ordering::SeqCst) >= bytes).then_some(());
        self.until("a part of a request", enough).await;
    }

    /// Waits until this many whole requests came.
    pub async fn has_requests(&self, count: usize) {
        let enough = || (self.state.requests.lock().unwrap().len() >= count).then_some(());
        self.until("a request", enough).await;
    }

    /// Waits until this many connections are over.
    pub async fn has_closed(&self, count: usize) {
        let enough = || (self.state.closed.load(Ordering::SeqCst) >= count).then_some(());
        self.until("the end of a connection", enough).await;
    }

    async fn until<T>(&self, what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.state.changed.notified());
                changed.as_mut().enable();
                if let Some(value) = ready() {
                    return value;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("the origin waits for {what}"))
    }
}

/// What ends TLS with a certificate.
pub fn acceptor(identity: &Identity) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// An origin that answers when it has read a head, and drops its connection with the body unread. Its kernel does
/// not hold back what it sends, as it would without TCP_NODELAY until what went before is acknowledged; what it
/// still held when the connection is dropped would be lost.
pub async fn hasty(answer: Vec<Step>) -> SocketAddr {
    let acceptor = acceptor(&GALLERY.identity(Case::Good).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tcp.set_nodelay(true).unwrap();
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let mut head = Vec::new();
            while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                    break;
                }
            }
            for step in &answer {
                let Step::Send(bytes) = step else { panic!("it only sends") };
                if stream.write_all(bytes).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
            }
        }
    });
    address
}

async fn serve(
    mut stream: TlsStream<TcpStream>,
    state: &State,
    script: &(dyn Fn(usize, &str) -> Vec<Step> + Send + Sync),
) {
    let mut buffer = Vec::new();
    loop {
        let request = match read_request(&mut stream, &mut buffer, state).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(how) => {
                state.partial.store(0, Ordering::SeqCst);
                state.broken.lock().unwrap().push(how);
                state.changed.notify_waiters();
                return;
            }
        };
        let number = {
            let mut requests = state.requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        state.partial.store(0, Ordering::SeqCst);
        state.changed.notify_waiters();
        for step in script(number, &request) {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
                Step::Close => {
                    let _ = stream.shutdown().await;
                    return;
                }
                Step::Fin => {
                    let _ = stream.get_mut().0.shutdown().await;
                    return;
                }
                Step::Reset => {
                    SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
                Step::Stall => {
                    let mut rest = [0; 1024];
                    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
                    return;
                }
            }
        }
    }
}

/// A whole request; None at a clean end between requests; an error in words at any other end.
async fn read_request(
    stream: &mut TlsStream<TcpStream>,
    buffer: &mut Vec<u8>,
    state: &State,
) -> Result<Option<String>, String> {
    loop {
        if let Some(length) = whole(buffer) {
            let request = buffer.drain(..length).collect::<Vec<_>>();
            return Ok(Some(String::from_utf8_lossy(&request).into_owned()));
        }
        let mut space = [0; 16 * 1024];
        match stream.read(&mut space).await {
            Ok(0) if buffer.is_empty() => return Ok(None),
            Ok(0) => return Err("close_notify".into()),
            Ok(count) => {
                buffer.extend_from_slice(&space[..count]);
                state.partial.store(buffer.len(), Ordering::SeqCst);
                state.changed.notify_waiters();
            }
            Err(_) if buffer.is_empty() => return Ok(None),
            Err(error) => return Err(format!("{:?}", error.kind())),
        }
    }
}

fn whole(buffer: &[u8]) -> Option<usize> {
    let head = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|value| value.trim_start_matches(':').trim().to_owned())
    };
    if field("transfer-encoding").is_some_and(|value| value == "chunked") {
        // The last chunk, then perhaps trailers, then an empty line. No test sends this inside a chunk.
        let body = &buffer[head - 2..];
        let last = body.windows(5).position(|window| window == b"\r\n0\r\n")? + 3;
        let end = body[last..].windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        return Some(head - 2 + last + end);
    }
    let length: usize = field("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    (buffer.len() >= head + length).then_some(head + length)
}

/// What a client saw until its connection ended.
#[derive(Debug)]
pub struct Seen {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// Whether it ended by RST.
    pub reset: bool,
}

impl Seen {
    /// The bytes as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The status of the first response.
    pub fn status(&self) -> u16 {
        let text = self.text();
        text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status in {text:?}"))
    }
}

/// Sends bytes and reads until the connection ends.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Seen {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    read_to_end(&mut stream).await
}

/// Reads until the connection ends.
pub async fn read_to_end(stream: &mut TcpStream) -> Seen {
    let mut bytes = Vec::new();
    let end =
        timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap_or_else(|_| panic!("the connection stays open"));
    let reset = match end {
        Ok(_) => false,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
        Err(error) => panic!("{error}"),
    };
    Seen { bytes, reset }
}

/// Reads one response with a Content-Length from a connection that stays open.
pub async fn read_response(stream: &mut TcpStream) -> String {
    let mut buffer = Vec::new();
    let read = async {
        loop {
            if let Some(length) = whole(&buffer) {
                assert_eq!(buffer.len(), length, "bytes behind the response");
                return String::from_utf8_lossy(&buffer).into_owned();
            }
            let mut space = [0; 4096];
            let count = stream.read(&mut space).await.unwrap();
            assert_ne!(count, 0, "the connection ended: {:?}", String::from_utf8_lossy(&buffer));
            buffer.extend_from_slice(&space[..count]);
        }
    };
    timeout(PATIENCE, read).await.expect("a response")
}
