//! What the TLS of an upstream is carried by: TCP, or the TLS connection to a parent proxy.

use std::{
    fmt,
    future::poll_fn,
    io,
    net::Shutdown,
    pin::{Pin, pin},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::BufMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

use crate::buffer::PIECE;

use super::Verified;

/// A byte stream below TLS.
#[derive(Debug)]
pub(super) enum Carrier {
    Tcp(TcpStream),
    /// A parent proxy that was verified.
    Tls(Box<Verified>),
}

impl Carrier {
    /// Ready when reading may bring something.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            // Its own reading begins with this question.
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// Appends what came, by TCP at most `most` bytes; 0 is the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => pin!(tcp.read_buf(&mut into.limit(most))).poll(cx),
            Self::Tls(parent) => parent.stream().poll_receive(cx, into).map_err(ParentBroke::wrap),
        }
    }

    /// Takes bytes to be sent, as many as it can.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(parent) => {
                let stream = parent.stream();
                // What waits is bounded by a piece.
                ready!(stream.poll_flush(cx))?;
                let piece = &bytes[..bytes.len().min(PIECE)];
                stream.seal(piece)?;
                match stream.poll_flush(cx) {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                    _ => Poll::Ready(Ok(piece.len())),
                }
            }
        }
    }

    /// Ready once the system has all that was taken.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Tls(parent) => parent.stream().poll_flush(cx),
        }
    }

    /// Sends all bytes.
    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match poll_fn(|cx| self.poll_write(cx, bytes)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Sends bytes as far as that takes no waiting. For the end of a connection, which nothing waits for any more.
    pub(super) fn try_write(&mut self, bytes: &[u8]) {
        // A peer that is gone needs no goodbye.
        let _ = self.poll_write(&mut Context::from_waker(Waker::noop()), bytes);
    }

    /// Bytes that were taken and that the system does not have.
    pub(super) fn unsent(&self) -> usize {
        match self {
            Self::Tcp(_) => 0,
            Self::Tls(parent) => parent.unsent(),
        }
    }

    /// Forgets what was not sent.
    pub(super) fn discard_unsent(&mut self) {
        if let Self::Tls(parent) = self {
            parent.stream().discard_unsent();
        }
    }

    /// Closes the sending side.
    pub(super) fn shut_down(&mut self) {
        match self {
            // A peer that is gone needs no goodbye.
            Self::Tcp(tcp) => drop(SockRef::from(&*tcp).shutdown(Shutdown::Write)),
            Self::Tls(parent) => {
                parent.stream().say_goodbye();
                parent.stream().shut_down();
            }
        }
    }

    /// Ends by RST instead of FIN when it is dropped.
    pub(super) fn reset_on_drop(&self) {
        match self {
            // Where that fails the socket is broken already.
            Self::Tcp(tcp) => drop(SockRef::from(tcp).set_linger(Some(Duration::ZERO))),
            Self::Tls(parent) => parent.reset_on_drop(),
        }
    }

    /// Ends the TLS of a parent proxy in order.
    pub(super) fn say_goodbye(&mut self) {
        if let Self::Tls(parent) = self {
            parent.stream().say_goodbye();
        }
    }

    /// Whether the beginning of a parent's record waits for the rest.
    pub(super) fn is_in_record(&self) -> bool {
        self.parent().is_some_and(Verified::is_in_record)
    }

    /// The parent proxy, where its certificate was verified.
    pub(super) fn parent(&self) -> Option<&Verified> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(parent) => Some(parent),
        }
    }
}

/// How the TLS connection to a parent proxy ended. The error inside is not about the upstream.
#[derive(Debug)]
pub(super) struct ParentBroke(io::Error);

impl ParentBroke {
    fn wrap(error: io::Error) -> io::Error {
        io::Error::new(error.kind(), Self(error))
    }

    /// The error inside one that came from a carrier.
    pub(super) fn inside(error: &io::Error) -> Option<&io::Error> {
        error.get_ref()?.downcast_ref::<Self>().map(|Self(inner)| inner)
    }
}

impl fmt::Display for ParentBroke {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the TLS connection to the parent proxy broke: {}", self.0)
    }
}

impl std::error::Error for ParentBroke {}
