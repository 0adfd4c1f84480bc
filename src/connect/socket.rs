//! The socket under TLS, which is read in large pieces where there is much to read: rustls alone asks for a record at a
//! time, and each call costs as much as the copy that it saves.

use std::{
    cell::Cell,
    fmt, io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Bytes that are read ahead, at most.
const AHEAD: usize = 64 * 1024;

/// Space to read ahead in: one for all connections of a worker, since none keeps anything there.
#[derive(Clone, Default)]
pub(super) struct Space(Rc<Cell<Vec<u8>>>);

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Space")
    }
}

/// A socket to an upstream.
#[derive(Debug)]
pub(super) struct Socket {
    tcp: TcpStream,
    space: Space,
    /// What was read ahead, and how much of that was taken.
    ahead: Vec<u8>,
    taken: usize,
    /// Only what was read ahead is read.
    held: bool,
    ended: bool,
    written: u64,
}

impl Socket {
    pub(super) fn new(tcp: TcpStream, space: Space) -> Self {
        Self { tcp, space, ahead: Vec::new(), taken: 0, held: false, ended: false, written: 0 }
    }

    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Bytes that the system took.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    fn count(&mut self, end: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = end {
            self.written += count as u64;
        }
        end
    }

    /// Reads ahead, once, as much as `most`, where nothing is left of the last time.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            let mut bytes = self.space.0.take();
            bytes.clear();
            bytes.reserve(AHEAD);
            match self.tcp.try_read_buf(&mut (&mut bytes).limit(most.min(AHEAD))) {
                Ok(count) => {
                    self.ended = count == 0;
                    (self.ahead, self.taken) = (bytes, 0);
                    return Poll::Ready(Ok(()));
                }
                Err(error) => {
                    self.space.0.set(bytes);
                    if error.kind() != io::ErrorKind::WouldBlock {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
    }

    /// From now on only what was read ahead is there to read, and behind it nothing yet.
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// Behind what was read ahead comes what the system has. What is left of it is kept in space of its own.
    pub(super) fn release(&mut self) {
        self.held = false;
        if self.ahead.capacity() >= AHEAD {
            let left = self.ahead[self.taken..].to_vec();
            self.space.0.set(std::mem::replace(&mut self.ahead, left));
            self.taken = 0;
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let left = &this.ahead[this.taken..];
        if !left.is_empty() {
            let count = left.len().min(buf.remaining());
            buf.put_slice(&left[..count]);
            this.taken += count;
            return Poll::Ready(Ok(()));
        }
        match (this.held, this.ended) {
            (true, true) => Poll::Ready(Ok(())),
            // Whoever holds it fills it.
            (true, false) => Poll::Pending,
            (false, _) => Pin::new(&mut this.tcp).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let end = Pin::new(&mut this.tcp).poll_write(cx, buf);
        this.count(end)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let end = Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs);
        this.count(end)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
