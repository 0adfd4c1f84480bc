//! The socket of a client: every byte from and to a client passes here, and so does every end of its connection.
//!
//! A connection ends by RST unless [`Transport::end_in_order`] was called, also where its task is dropped or the
//! process is killed (the listening socket sets `SO_LINGER`, and accepted ones inherit it): what is cut never looks
//! whole.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// A client's socket.
#[derive(Debug)]
pub struct Transport {
    tcp: TcpStream,
    peer: SocketAddr,
    /// What a client that only waits is watched by.
    watch: Watch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    /// Readiness: nothing is there to read.
    Input,
    /// The socket's error, since there is input, or its end, which stays readable.
    Error,
}

impl Transport {
    /// Takes an accepted socket.
    pub fn new(tcp: TcpStream, peer: SocketAddr) -> Self {
        Self { tcp, peer, watch: Watch::Input }
    }

    /// The client's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Ready when there is something to read, or the end.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    /// Appends what is there to read, up to `most` bytes; 0 is the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>, most: usize) -> Poll<io::Result<usize>> {
        self.watch = Watch::Input;
        // Unlike `try_read`, this learns from a short read that there is no more for now, which saves a call.
        pin!(self.tcp.read_buf(&mut into.limit(most))).poll(cx)
    }

    /// Writes from both slices in order, as much as the system takes.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, first: &[u8], second: &[u8]) -> Poll<io::Result<usize>> {
        let tcp = Pin::new(&mut self.tcp);
        match (first, second) {
            (first, []) => tcp.poll_write(cx, first),
            ([], second) => tcp.poll_write(cx, second),
            (first, second) => tcp.poll_write_vectored(cx, &[IoSlice::new(first), IoSlice::new(second)]),
        }
    }

    /// Ready when the client has reset its connection. Its closed sending side alone does not count (RFC 9112
    /// section 9.6), and nothing is read. With input waiting, the reset is found only when the task is woken by
    /// something else.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.watch == Watch::Input {
            let mut byte = [MaybeUninit::uninit()];
            if ready!(self.tcp.poll_peek(cx, &mut ReadBuf::uninit(&mut byte))).is_err() {
                return Poll::Ready(());
            }
            self.watch = Watch::Error;
        }
        match self.tcp.take_error() {
            Ok(None) => Poll::Pending,
            Ok(Some(_)) | Err(_) => Poll::Ready(()),
        }
    }

    /// Waits until the client resets its connection.
    pub async fn reset(&self) {
        // Readiness for an error has no other end.
        let _ = self.tcp.ready(Interest::ERROR).await;
    }

    /// Whether something was received that was not read. Closing would then end by RST and could take away what the
    /// client has not read.
    pub fn has_unread(&self) -> bool {
        let waiting = SockRef::from(&self.tcp).peek(&mut [MaybeUninit::uninit()]);
        matches!(waiting, Ok(count) if count > 0)
    }

    /// Closes the sending side: everything was sent.
    pub fn shut_down(&self) {
        // A client that is gone needs no goodbye.
        let _ = SockRef::from(&self.tcp).shutdown(Shutdown::Write);
    }

    /// From now on the connection ends by FIN.
    pub fn end_in_order(&self) {
        // Where that fails the socket is broken already.
        let _ = SockRef::from(&self.tcp).set_linger(None);
    }
}
