//! The socket of a client: every byte from and to a client passes here, and so does every end of its connection.
//!
//! A TCP connection ends by RST unless [`Transport::end_in_order`] was called, also where its task is dropped or the
//! process is killed (the listening socket sets `SO_LINGER`, and accepted ones inherit it): what is cut never looks
//! whole. A UNIX socket knows no RST: [`Transport::can_reset`] says so to whoever could need one. Where the client
//! speaks TLS, an end in order is announced by `close_notify`, and a RST has none before it.

mod tls;

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{IpAddr, Shutdown, SocketAddr},
    os::fd::AsFd,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
};

use bytes::BufMut;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use rustls::ServerConnection;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A client's socket.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
    /// Where the client speaks TLS.
    tls: Option<Box<tls::Session>>,
    peer: ClientAddress,
    /// What a client that only waits is watched by.
    watch: Watch,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAddress {
    /// Its address and port.
    Tcp(SocketAddr),
    /// The user that connected to a UNIX socket, where the system could tell.
    Unix(Option<u32>),
}

impl ClientAddress {
    /// Its address and port, where it has any.
    pub fn tcp(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix(_) => None,
        }
    }

    /// What tells it from other clients: its IP address, or its user.
    pub fn host(self) -> String {
        match self {
            Self::Tcp(address) => address.ip().to_string(),
            Self::Unix(_) => self.to_string(),
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(Some(user)) => write!(f, "unix:uid={user}"),
            Self::Unix(None) => f.write_str("unix:"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// Readiness: nothing is there to read.
    Input,
    /// The socket's error, since there is input, or its end, which stays readable.
    Error,
}

impl Transport {
    /// Takes an accepted TCP socket.
    pub fn tcp(tcp: TcpStream, peer: SocketAddr) -> Self {
        Self { stream: Stream::Tcp(tcp), tls: None, peer: ClientAddress::Tcp(peer), watch: Watch::Input }
    }

    /// Takes an accepted UNIX socket.
    pub fn unix(unix: UnixStream) -> Self {
        let user = unix.peer_cred().map(|cred| cred.uid()).ok();
        Self { stream: Stream::Unix(unix), tls: None, peer: ClientAddress::Unix(user), watch: Watch::Input }
    }

    /// Who the client is.
    pub fn peer(&self) -> ClientAddress {
        self.peer
    }

    /// Whether the client can be told, without a byte, that what it got is not all.
    pub fn can_reset(&self) -> bool {
        matches!(self.stream, Stream::Tcp(_))
    }

    /// The address that the client connected to, where it has any.
    pub fn local_ip(&self) -> Option<IpAddr> {
        let address = self.socket().local_addr().ok()?.as_socket()?;
        Some(address.ip().to_canonical())
    }

    /// The version of TLS, where the client speaks it.
    pub fn tls_version(&self) -> Option<&'static str> {
        self.tls.as_ref().map(|tls| tls.version())
    }

    /// Shakes hands with a client whose ClientHello was read. What passes behind it is inside TLS.
    ///
    /// # Errors
    /// What ended the handshake; rustls' own error inside where it is one. The client may have been told why.
    pub async fn start_tls(&mut self, tls: ServerConnection) -> io::Result<()> {
        let Self { stream, tls: session, .. } = self;
        let session = session.insert(Box::new(tls::Session::new(tls)));
        let end = poll_fn(|cx| session.poll_handshake(stream, cx)).await;
        if end.is_err() {
            // The alert, as far as that takes no waiting.
            let _ = session.poll_flush(stream, &mut Context::from_waker(Waker::noop()));
        } else if let Stream::Tcp(tcp) = stream {
            // The client has sent the last message, and many hold their request back until that is acknowledged (RFC 9293
            // section 3.7.4), for which the system would wait 40 ms. A hint: sockets of MPTCP, for example, do not take it.
            let _ = tcp.set_quickack(true);
        }
        end
    }

    /// Ready when there is something to read, or the end.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.tls.as_mut().is_some_and(|tls| tls.has_plaintext()) {
            return Poll::Ready(Ok(()));
        }
        match &self.stream {
            Stream::Tcp(tcp) => tcp.poll_read_ready(cx),
            Stream::Unix(unix) => unix.poll_read_ready(cx),
        }
    }

    /// Appends what is there to read, up to `most` bytes, or a TLS record more; 0 is the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>, most: usize) -> Poll<io::Result<usize>> {
        self.watch = Watch::Input;
        match &mut self.tls {
            None => self.stream.poll_read(cx, &mut into.limit(most)),
            Some(tls) => tls.poll_read(&mut self.stream, cx, into, most),
        }
    }

    /// Writes from both slices in order, as much as the system takes. Where it takes nothing for now, the same bytes
    /// have to be the first that are written next.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.tls {
            None => self.stream.poll_write(cx, &[IoSlice::new(first), IoSlice::new(second)]),
            Some(tls) => tls.poll_write(&mut self.stream, cx, first, second),
        }
    }

    /// Ready when the client has reset its connection, or closed a UNIX socket. Its closed sending side alone does not
    /// count (RFC 9112 section 9.6), and nothing is read. With input waiting, the reset is found only when the task is
    /// woken by something else.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch == Watch::Input {
            if ready!(self.poll_peek(cx)).is_err() {
                return Poll::Ready(());
            }
            self.watch = Watch::Error;
        }
        let is_gone = match &self.stream {
            Stream::Tcp(tcp) => !matches!(tcp.take_error(), Ok(None)),
            Stream::Unix(unix) => is_closed(unix),
        };
        if is_gone { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ready when there is a byte to read, or the end.
    fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut byte = [MaybeUninit::uninit()];
        match &mut self.stream {
            Stream::Tcp(tcp) => tcp.poll_peek(cx, &mut ReadBuf::uninit(&mut byte)),
            Stream::Unix(unix) => loop {
                ready!(unix.poll_read_ready(cx))?;
                match unix.try_io(Interest::READABLE, || SockRef::from(&*unix).peek(&mut byte)) {
                    // Now it is watched for the next time.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    end => return Poll::Ready(end),
                }
            },
        }
    }

    /// Waits until the client resets its connection. That of a UNIX socket is waited for in vain.
    pub async fn reset(&self) {
        // Readiness for an error has no other end.
        let _ = match &self.stream {
            Stream::Tcp(tcp) => tcp.ready(Interest::ERROR).await,
            Stream::Unix(unix) => unix.ready(Interest::ERROR).await,
        };
    }

    /// Whether something was received that was not read. Closing would then end by RST and could take away what the
    /// client has not read.
    pub fn has_unread(&mut self) -> bool {
        if self.tls.as_mut().is_some_and(|tls| tls.has_plaintext()) {
            return true;
        }
        let waiting = self.socket().peek(&mut [MaybeUninit::uninit()]);
        matches!(waiting, Ok(count) if count > 0)
    }

    /// Closes the sending side: everything was sent.
    pub fn shut_down(&mut self) {
        self.announce_end();
        // A client that is gone needs no goodbye.
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// From now on the connection ends by FIN: everything was sent.
    pub fn end_in_order(&mut self) {
        self.announce_end();
        // Where that fails the socket is broken already; to a UNIX socket it makes no difference.
        let _ = self.socket().set_linger(None);
    }

    /// Sends `close_notify`, once, as far as that takes no waiting: what was sent before it was taken.
    fn announce_end(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.close();
            // A client that is gone needs no goodbye.
            let _ = tls.poll_flush(&mut self.stream, &mut Context::from_waker(Waker::noop()));
        }
    }

    fn socket(&self) -> SockRef<'_> {
        match &self.stream {
            Stream::Tcp(tcp) => SockRef::from(tcp),
            Stream::Unix(unix) => SockRef::from(unix),
        }
    }
}

impl Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut impl BufMut) -> Poll<io::Result<usize>> {
        // Unlike `try_read`, this learns from a short read that there is no more for now, which saves a call.
        match self {
            Self::Tcp(tcp) => pin!(tcp.read_buf(into)).poll(cx),
            Self::Unix(unix) => pin!(unix.read_buf(into)).poll(cx),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => write(Pin::new(tcp), cx, slices),
            Self::Unix(unix) => write(Pin::new(unix), cx, slices),
        }
    }
}

/// With one slice, the plainer call.
fn write(stream: Pin<&mut impl AsyncWrite>, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
    match slices {
        [only] => stream.poll_write(cx, only),
        [first, second] if second.is_empty() => stream.poll_write(cx, first),
        [first, second] if first.is_empty() => stream.poll_write(cx, second),
        slices => stream.poll_write_vectored(cx, slices),
    }
}

/// Whether the other end of a UNIX socket is closed both ways (`EPOLLHUP`, unix_poll in the kernel's net/unix/af_unix.c).
fn is_closed(unix: &impl AsFd) -> bool {
    let mut watched = [PollFd::new(unix, PollFlags::empty())];
    match poll(&mut watched, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(_) => watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR),
        Err(error) => error != Errno::INTR,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use rustls_pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;

    /// The ends of a TLS connection, with a certificate of their own.
    #[expect(clippy::disallowed_methods, reason = "the client of this test")]
    async fn connected() -> (Transport, tokio_rustls::client::TlsStream<TcpStream>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let client =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();
        let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut server = server.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        server.send_tls13_tickets = 0;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accept = async {
            let (tcp, peer) = listener.accept().await.unwrap();
            let mut transport = Transport::tcp(tcp, peer);
            transport.start_tls(ServerConnection::new(server.into()).unwrap()).await.unwrap();
            transport
        };
        let connect = async {
            let tcp = TcpStream::connect(address).await.unwrap();
            TlsConnector::from(Arc::new(client)).connect("localhost".try_into().unwrap(), tcp).await.unwrap()
        };
        tokio::join!(accept, connect)
    }

    #[tokio::test]
    async fn the_end_of_a_handshake_is_acknowledged_at_once() {
        let (transport, _client) = connected().await;
        let Stream::Tcp(tcp) = &transport.stream else { panic!("{transport:?}") };
        assert!(tcp.quickack().unwrap(), "the system waits before it acknowledges");
    }
}
