//! The socket of a client: every byte from and to a client passes here, and so does every end of its connection.
//!
//! A TCP connection ends by RST unless [`Transport::end_in_order`] was called, also where its task is dropped or the
//! process is killed (the listening socket sets `SO_LINGER`, and accepted ones inherit it): what is cut never looks
//! whole. A UNIX socket knows no RST: [`Transport::can_reset`] says so to whoever could need one.

use std::{
    fmt,
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    os::fd::AsFd,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// A client's socket.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
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
        Self { stream: Stream::Tcp(tcp), peer: ClientAddress::Tcp(peer), watch: Watch::Input }
    }

    /// Takes an accepted UNIX socket.
    pub fn unix(unix: UnixStream) -> Self {
        let user = unix.peer_cred().map(|cred| cred.uid()).ok();
        Self { stream: Stream::Unix(unix), peer: ClientAddress::Unix(user), watch: Watch::Input }
    }

    /// Who the client is.
    pub fn peer(&self) -> ClientAddress {
        self.peer
    }

    /// Whether the client can be told, without a byte, that what it got is not all.
    pub fn can_reset(&self) -> bool {
        matches!(self.stream, Stream::Tcp(_))
    }

    /// Ready when there is something to read, or the end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.stream {
            Stream::Tcp(tcp) => tcp.poll_read_ready(cx),
            Stream::Unix(unix) => unix.poll_read_ready(cx),
        }
    }

    /// Appends what is there to read, up to `most` bytes; 0 is the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>, most: usize) -> Poll<io::Result<usize>> {
        self.watch = Watch::Input;
        let mut into = into.limit(most);
        // Unlike `try_read`, this learns from a short read that there is no more for now, which saves a call.
        match &mut self.stream {
            Stream::Tcp(tcp) => pin!(tcp.read_buf(&mut into)).poll(cx),
            Stream::Unix(unix) => pin!(unix.read_buf(&mut into)).poll(cx),
        }
    }

    /// Writes from both slices in order, as much as the system takes.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(tcp) => write_both(Pin::new(tcp), cx, first, second),
            Stream::Unix(unix) => write_both(Pin::new(unix), cx, first, second),
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
    pub fn has_unread(&self) -> bool {
        let waiting = self.socket().peek(&mut [MaybeUninit::uninit()]);
        matches!(waiting, Ok(count) if count > 0)
    }

    /// Closes the sending side: everything was sent.
    pub fn shut_down(&self) {
        // A client that is gone needs no goodbye.
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// From now on the connection ends by FIN.
    pub fn end_in_order(&self) {
        // Where that fails the socket is broken already; to a UNIX socket it makes no difference.
        let _ = self.socket().set_linger(None);
    }

    fn socket(&self) -> SockRef<'_> {
        match &self.stream {
            Stream::Tcp(tcp) => SockRef::from(tcp),
            Stream::Unix(unix) => SockRef::from(unix),
        }
    }
}

fn write_both(
    stream: Pin<&mut impl AsyncWrite>,
    cx: &mut Context<'_>,
    first: &[u8],
    second: &[u8],
) -> Poll<io::Result<usize>> {
    match (first, second) {
        (first, []) => stream.poll_write(cx, first),
        ([], second) => stream.poll_write(cx, second),
        (first, second) => stream.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)]),
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
