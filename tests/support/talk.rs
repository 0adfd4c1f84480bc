//! A TLS origin that a test leads through a conversation, and a client that reads piece by piece: for what is said
//! before a request is whole, and after HTTP is over.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use certs_dev::Case;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use super::{gallery::GALLERY, origin::acceptor, proxy::PATIENCE};

/// One side of a conversation.
pub struct Talk<S> {
    /// The connection.
    pub stream: S,
    read: Vec<u8>,
}

/// An origin's side.
pub type OriginTalk = Talk<TlsStream<TcpStream>>;

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(stream: S) -> Self {
        Self { stream, read: Vec::new() }
    }

    /// Says something.
    pub async fn say(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next head, with its empty line.
    pub async fn head(&mut self) -> String {
        let end = |read: &[u8]| read.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
        self.until("a head", end).await
    }

    /// The next bytes, so many.
    pub async fn take(&mut self, count: usize) -> String {
        self.until("more bytes", |read| (read.len() >= count).then_some(count)).await
    }

    /// All to the end of the connection, and whether that was clean.
    pub async fn rest(&mut self) -> (String, bool) {
        let end = timeout(PATIENCE, self.stream.read_to_end(&mut self.read)).await.expect("the connection stays open");
        (String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned(), end.is_ok())
    }

    async fn until(&mut self, what: &str, end: impl Fn(&[u8]) -> Option<usize>) -> String {
        loop {
            if let Some(end) = end(&self.read) {
                return String::from_utf8_lossy(&self.read.drain(..end).collect::<Vec<_>>()).into_owned();
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
            let count = read.unwrap_or_else(|_| panic!("no {what}; so far: {:?}", String::from_utf8_lossy(&self.read)));
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert_ne!(count.unwrap(), 0, "the connection ended before {what}: {so_far:?}");
        }
    }
}

impl Talk<TcpStream> {
    /// A client of a listener.
    pub async fn with(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.unwrap())
    }

    /// Ends by RST.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

impl OriginTalk {
    /// Ends by FIN, without the end of TLS.
    pub async fn cut(mut self) {
        self.stream.get_mut().0.shutdown().await.unwrap();
    }
}

/// An origin whose connections a test leads, the n-th from 0.
pub struct TalkingOrigin {
    /// Where it is.
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl TalkingOrigin {
    /// With a good certificate for `good.gallery.test`.
    pub async fn start<F, T>(lead: T) -> Self
    where
        T: Fn(usize, OriginTalk) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            let acceptor = acceptor(&GALLERY.identity(Case::Good).unwrap());
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let Ok(stream) = acceptor.accept(tcp).await else { continue };
                tokio::spawn(lead(count.fetch_add(1, Ordering::SeqCst), Talk::new(stream)));
            }
        });
        Self { address, connections }
    }

    /// The flags of a fixed route to it.
    pub fn route(&self) -> Vec<String> {
        let name = format!("{}:{}", Case::Good.name(), self.address.port());
        ["--route", &format!("127.0.0.1:0=https://{name}"), "--connect-to", &format!("{name}={}", self.address)]
            .map(str::to_owned)
            .to_vec()
    }

    /// How many TLS connections were opened.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
