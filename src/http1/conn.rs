//! A client's HTTP/1 connection: the next head, pieces of a body, and what is written back, in order.
//!
//! What is written waits in one place until the socket takes it, so nothing can pass anything else, and back-pressure
//! follows from one number: whether [`Connection::unsent`] is zero.

use std::{
    cell::OnceCell,
    fmt,
    future::poll_fn,
    io,
    net::IpAddr,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustls::ServerConnection;
use tokio::time::{Instant, timeout};

use crate::{
    buffer::{Buffer, BufferPool, PIECE},
    deadline::Deadline,
    transport::{ClientAddress, Transport},
};

use super::head::{HeadError, HeadLimits, HeadScan, RequestHead, empty_lines};

/// Bytes that a head is read with at first; most have fewer.
const HEAD: usize = 4 * 1024;

/// A lingering close waits so long for a client that sends nothing.
const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// It reads so long in all,
const LINGER: Duration = Duration::from_secs(30);
/// and so much: an image on its way up.
const LINGER_BYTES: u64 = 4 << 30;

/// A client's connection while something is under way.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    /// What was received and not read yet: a part of a head, or what came behind one.
    inbox: Vec<u8>,
    scan: HeadScan,
    /// Space for the next head.
    spare: Vec<u8>,
    outbox: Buffer,
    deadline: Deadline,
    buffers: BufferPool,
    /// The client's address as text, once somebody asked for it.
    peer_text: OnceCell<Rc<str>>,
}

/// Why there is no next head.
#[derive(Debug)]
pub enum NoHead {
    /// It cannot be read.
    Bad(HeadError),
    /// The connection broke.
    Broken(io::Error),
    /// The client closed it, perhaps in the middle of a head.
    Closed,
}

impl fmt::Display for NoHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(error) => error.fmt(f),
            Self::Broken(error) => error.fmt(f),
            Self::Closed => f.write_str("the client closed its connection"),
        }
    }
}

impl Connection {
    /// A connection on which something came.
    pub fn new(transport: Transport, buffers: BufferPool) -> Self {
        let outbox = Buffer::new(buffers.clone());
        Self {
            transport,
            inbox: Vec::new(),
            scan: HeadScan::default(),
            spare: Vec::new(),
            outbox,
            deadline: Deadline::unset(),
            buffers,
            peer_text: OnceCell::new(),
        }
    }

    /// The socket, with nothing under way on it.
    pub fn into_transport(self) -> Transport {
        self.transport
    }

    /// Who the client is.
    pub fn peer(&self) -> ClientAddress {
        self.transport.peer()
    }

    /// The client's address as text.
    pub fn peer_text(&self) -> Rc<str> {
        self.peer_text.get_or_init(|| self.peer().to_string().into()).clone()
    }

    /// Whether the client can be told that what it got is not all; see [`Transport::can_reset`].
    pub fn can_reset(&self) -> bool {
        self.transport.can_reset()
    }

    /// Space for other parts of the same way.
    pub fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// Whether nothing was received that was not read.
    pub fn has_no_input(&self) -> bool {
        self.inbox.is_empty()
    }

    /// Whether a head has begun.
    pub fn is_in_head(&self) -> bool {
        self.inbox.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
    }

    /// Bytes that were received and not read.
    pub fn input(&self) -> &[u8] {
        &self.inbox
    }

    /// The next request's head.
    ///
    /// # Errors
    /// [`NoHead`]
    pub fn poll_head(&mut self, cx: &mut Context<'_>, limits: HeadLimits) -> Poll<Result<RequestHead, NoHead>> {
        loop {
            let read = RequestHead::read(&self.inbox, &mut self.scan, limits, &mut self.spare);
            if let Some((head, size)) = read.map_err(NoHead::Bad)? {
                self.inbox.drain(..size);
                return Poll::Ready(Ok(head));
            }
            // They are counted by no limit.
            let empty = empty_lines(&self.inbox).map_err(NoHead::Bad)?;
            self.inbox.drain(..empty);
            if ready!(self.poll_more(cx)).map_err(NoHead::Broken)? == 0 {
                return Poll::Ready(Err(NoHead::Closed));
            }
        }
    }

    /// Receives more of a head; 0 is the end of the connection.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Grows with what comes, so that a client which says little holds little.
        if self.inbox.capacity() == self.inbox.len() {
            self.inbox.reserve(HEAD);
        }
        let most = self.inbox.capacity() - self.inbox.len();
        self.transport.poll_read(cx, &mut self.inbox, most)
    }

    /// Gives a head's space back, for the next one.
    pub fn recycle(&mut self, space: Vec<u8>) {
        self.spare = space;
    }

    /// A piece of a body, at the end of `into`; 0 is the end of the connection.
    pub fn poll_body(&mut self, cx: &mut Context<'_>, into: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        if self.inbox.is_empty() {
            return self.transport.poll_read(cx, into, PIECE);
        }
        let count = self.inbox.len();
        into.append(&mut self.inbox);
        Poll::Ready(Ok(count))
    }

    /// Puts back what turned out to lie behind a body. Nothing else was received since.
    pub fn unread(&mut self, bytes: &[u8]) {
        self.inbox.splice(..0, bytes.iter().copied());
        self.scan = HeadScan::default();
    }

    /// Takes what was received and not read.
    pub fn take_input(&mut self) -> Vec<u8> {
        self.scan = HeadScan::default();
        std::mem::take(&mut self.inbox)
    }

    /// The address that the client connected to.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.transport.local_ip()
    }

    /// The version of TLS, where the client speaks it.
    pub fn tls_version(&self) -> Option<&'static str> {
        self.transport.tls_version()
    }

    /// Shakes hands with a client whose ClientHello was taken; see [`Transport::start_tls`].
    ///
    /// # Errors
    /// What ended the handshake.
    pub async fn start_tls(&mut self, tls: ServerConnection) -> io::Result<()> {
        self.transport.start_tls(tls).await
    }

    /// Where to put what is to be written next.
    pub fn outbox(&mut self) -> &mut Buffer {
        &mut self.outbox
    }

    /// Bytes that the socket has not taken yet.
    pub fn unsent(&self) -> usize {
        self.outbox.len()
    }

    /// Writes what waits, and `piece` behind it. Ready with how much of the piece was taken, once nothing else waits
    /// or the socket takes no more of it.
    ///
    /// # Errors
    /// The client is gone.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let waiting = self.outbox.len();
            if waiting == 0 && piece.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let count = ready!(self.transport.poll_write(cx, self.outbox.as_slice(), piece))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.consume(count);
            if count >= waiting {
                return Poll::Ready(Ok(count - waiting));
            }
        }
    }

    /// Ready when the client has reset its connection; see [`Transport::poll_reset`].
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What was received ahead hides nothing: the socket is asked.
        self.transport.poll_reset(cx)
    }

    /// Ready once the deadline is over.
    pub fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        self.deadline.poll(cx, deadline)
    }

    /// Writes everything that waits, as long as the client takes some of it within `patience`.
    ///
    /// # Errors
    /// The client is gone, or does not read.
    pub async fn flush(&mut self, patience: Duration) -> io::Result<()> {
        while self.unsent() > 0 {
            let before = self.unsent();
            let sent = timeout(
                patience,
                poll_fn(|cx| match self.poll_send(cx, &[]) {
                    Poll::Pending if self.unsent() < before => Poll::Ready(Ok(0)),
                    end => end,
                }),
            );
            sent.await.map_err(|_| io::ErrorKind::TimedOut)??;
        }
        Ok(())
    }

    /// Closes the sending side: everything was sent.
    pub fn shut_down(&mut self) {
        self.transport.shut_down();
    }

    /// Ends the connection behind what was sent. With `last`, the client has said that nothing follows.
    ///
    /// Otherwise what still comes is read and discarded for a while: closing on top of it would end by RST, and the
    /// client could lose the end of its response (RFC 9112 section 9.6).
    pub async fn close(mut self, last: bool) {
        self.transport.end_in_order();
        if last && self.inbox.is_empty() && !self.transport.has_unread() {
            return;
        }
        self.transport.shut_down();
        let until = Instant::now() + LINGER;
        let mut left = LINGER_BYTES;
        let mut space = self.buffers.take();
        while Instant::now() < until {
            space.clear();
            let read = poll_fn(|cx| self.transport.poll_read(cx, &mut space, PIECE));
            match timeout(LINGER_SILENCE, read).await {
                Ok(Ok(count)) if count > 0 && (count as u64) < left => left -= count as u64,
                _ => break,
            }
        }
        self.buffers.give(space);
    }
}
