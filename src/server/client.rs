//! The socket of one client, and the two ways to end it that hyper has no word for: a reset, and a
//! lingering close (answer, then read and discard, so that the answer is not lost to a RST).

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

use crate::proxy::client::{ClientHandle, Phase};

/// How long a lingering close reads, in all.
const LINGER: Duration = Duration::from_secs(30);
/// How much it reads, at most: an image on its way up.
const LINGER_BYTES: u64 = 4 << 30;

/// The client's socket.
#[derive(Debug)]
pub struct ClientStream {
    tcp: TcpStream,
    handle: ClientHandle,
    /// Bytes read by the parser of an outer protocol, to be read again.
    prefix: Bytes,
    lingering: Option<(Pin<Box<Sleep>>, u64)>,
    /// hyper answers a head that it cannot read by itself, without asking and in its own words. What it
    /// writes while no answer is owed goes nowhere; ours goes out instead.
    muted: bool,
}

impl ClientStream {
    /// Takes an accepted socket.
    pub fn new(tcp: TcpStream, address: SocketAddr) -> Self {
        Self { tcp, handle: ClientHandle::new(address), prefix: Bytes::new(), lingering: None, muted: false }
    }

    /// What may be said to this connection.
    pub fn handle(&self) -> ClientHandle {
        self.handle.clone()
    }

    /// The same socket with these bytes before what it will read.
    pub fn with_prefix(mut self, prefix: Bytes) -> Self {
        self.prefix = prefix;
        self
    }

    /// hyper's part is over; what is written now is ours.
    pub fn unmute(mut self) -> Self {
        self.muted = false;
        self
    }

    /// Whether a write is hyper's own answer to a head that it cannot read.
    fn is_hypers_own(&mut self) -> bool {
        self.muted |= self.handle.phase().0 == Phase::Head && !self.handle.owes_answer();
        self.muted
    }

    /// Takes note of whether the client reads.
    fn note<T>(&self, end: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.handle.reads(end.is_ready());
        end
    }

    /// Reads and discards until the client is done, or has had enough time and volume.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (timer, left) = self.lingering.get_or_insert_with(|| (Box::pin(sleep(LINGER)), LINGER_BYTES));
        let mut space = [0; 16 * 1024];
        loop {
            let mut buf = ReadBuf::new(&mut space);
            match Pin::new(&mut self.tcp).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if buf.filled().is_empty() => return Poll::Ready(()),
                Poll::Ready(Ok(())) => {
                    *left = left.saturating_sub(buf.filled().len() as u64);
                    if *left == 0 {
                        return Poll::Ready(());
                    }
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return timer.as_mut().poll(cx),
            }
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.handle.is_reset() {
            // Never a clean end for what is not whole.
            let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.prefix.is_empty() {
            ready!(Pin::new(&mut this.tcp).poll_read(cx, buf))?;
        } else {
            let count = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..count]);
            this.prefix.advance(count);
        }
        if buf.filled().len() > before && matches!(this.handle.phase().0, Phase::Idle | Phase::New) {
            this.handle.head_begins();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_hypers_own() {
            return Poll::Ready(Ok(buf.len()));
        }
        let end = Pin::new(&mut this.tcp).poll_write(cx, buf);
        this.note(end)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_hypers_own() {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        let end = Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs);
        this.note(end)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes the socket when its own buffer is empty.
        let this = self.get_mut();
        if this.handle.phase().0 != Phase::Exchange {
            this.handle.answer_paid();
        }
        Pin::new(&mut this.tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.muted || this.handle.is_reset() {
            return Poll::Ready(Ok(()));
        }
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.tcp).poll_shutdown(cx))?;
        }
        if this.handle.lingers() {
            ready!(this.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
