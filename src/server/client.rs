//! The socket of one client, and the two ways to end it that hyper has no word for: a reset, and a
//! lingering close (answer, then read and discard, so that the answer is not lost to a RST).

use std::{
    io,
    mem::MaybeUninit,
    net::{Shutdown, SocketAddr},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

use crate::{
    message::framing::{Ambiguous, Framing},
    proxy::client::{ClientHandle, Phase},
};

/// How long a lingering close waits for a client that sends nothing.
const LINGER_SILENCE: Duration = Duration::from_secs(2);
/// How long it reads, in all.
const LINGER: Duration = Duration::from_secs(30);
/// How much it reads, at most: an image on its way up.
const LINGER_BYTES: u64 = 4 << 30;

/// The client's socket.
#[derive(Debug)]
pub struct ClientStream {
    /// Shared with whoever watches for its reset.
    tcp: Rc<TcpStream>,
    handle: ClientHandle,
    /// Bytes read by the parser of an outer protocol, to be read again.
    prefix: Bytes,
    framing: Framing,
    /// Framing that is not passed on; nothing is read behind it.
    refused: Option<Ambiguous>,
    lingering: Option<Lingering>,
    /// hyper answers a head that it cannot read by itself, without asking and in its own words. What it
    /// writes while no answer is owed goes nowhere; ours goes out instead.
    muted: bool,
    beyond_http: bool,
    /// hyper may have more to write: it flushes when it has not.
    unflushed: bool,
    shut: bool,
}

impl ClientStream {
    /// Takes an accepted socket, whose end is a RST so far.
    pub fn new(tcp: TcpStream, address: SocketAddr) -> Self {
        let tcp = Rc::new(tcp);
        Self {
            handle: ClientHandle::new(address, Rc::downgrade(&tcp)),
            tcp,
            prefix: Bytes::new(),
            framing: Framing::default(),
            refused: None,
            lingering: None,
            muted: false,
            beyond_http: false,
            unflushed: false,
            shut: false,
        }
    }

    /// What may be said to this connection.
    pub fn handle(&self) -> ClientHandle {
        self.handle.clone()
    }

    /// The socket, to watch.
    pub fn socket(&self) -> Rc<TcpStream> {
        self.tcp.clone()
    }

    fn poll_read_socket(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.tcp.poll_read_ready(cx))?;
            match self.tcp.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                end => return Poll::Ready(end.map(|_| ())),
            }
        }
    }

    fn poll_write_socket(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.tcp.poll_write_ready(cx))?;
            match write(&self.tcp) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                end => return Poll::Ready(end),
            }
        }
    }

    /// These bytes are read before what the socket has.
    pub fn prefix_with(&mut self, prefix: Bytes) {
        // Empty ones may hold on to much space.
        self.prefix = if prefix.is_empty() { Bytes::new() } else { prefix };
    }

    /// Whether there are bytes before those of the socket.
    pub fn has_prefix(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// hyper's part is over; what is written now is ours.
    pub fn unmute(&mut self) {
        self.muted = false;
    }

    /// Reads from the socket what is framed in one way only.
    fn poll_read_framed(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(refused) = self.refused {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refused)));
        }
        let before = buf.filled().len();
        ready!(self.poll_read_socket(cx, buf))?;
        let watched = self.framing.watch(&buf.filled()[before..]);
        self.handle.begins_head(self.framing.is_in_head());
        self.handle.bare_targets(self.framing.bare_targets());
        if let Err(refused) = watched {
            self.refused = Some(refused);
            buf.set_filled(before + refused.at);
            if refused.at == 0 {
                return self.poll_read_framed(cx, buf);
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Why a head is not read to its end.
    pub fn refused_head(&self) -> Option<Ambiguous> {
        self.refused.filter(|refused| refused.in_head)
    }

    /// HTTP is over: what passes is another protocol's.
    pub fn goes_beyond_http(&mut self) {
        self.framing = Framing::off();
        self.beyond_http = true;
    }

    /// Whether hyper was heard to its end. Where a request names a protocol to switch to, even one that nobody
    /// switched to, hyper ends the connection without a look at what it still has to write.
    pub fn is_flushed(&self) -> bool {
        !self.unflushed
    }

    /// Whether hyper has closed it.
    pub fn is_shut(&self) -> bool {
        self.shut
    }

    /// Whether a write is hyper's own: its answer to a head that it cannot read, after which there is nothing more
    /// to be heard from it; or its `100 Continue`, which is the upstream's to say.
    fn is_hypers_own(&mut self) -> bool {
        let own = !self.handle.owes_answer() && !self.beyond_http;
        self.muted |= own && self.handle.phase().0 != Phase::Exchange;
        self.muted || own
    }

    /// Takes note of whether the client reads.
    fn note<T>(&self, end: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.handle.reads(end.is_ready());
        end
    }

    /// Whether closing would discard what was not read, and the answer with it.
    fn has_unread(&self) -> bool {
        let waits = SockRef::from(&*self.tcp).peek(&mut [MaybeUninit::uninit()]);
        matches!(waits, Ok(count) if count > 0)
    }

    /// Reads and discards until the client is done, is silent, or has had enough time and volume.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = Instant::now();
        let mut lingering = self.lingering.take().unwrap_or_else(|| Lingering {
            silence: Box::pin(sleep(LINGER_SILENCE)),
            until: now + LINGER,
            left: LINGER_BYTES,
        });
        let mut space = [MaybeUninit::uninit(); 16 * 1024];
        loop {
            let mut buf = ReadBuf::uninit(&mut space);
            let end = self.poll_read_socket(cx, &mut buf);
            let count = buf.filled().len() as u64;
            match end {
                Poll::Ready(Ok(())) if count > 0 && count < lingering.left && now < lingering.until => {
                    lingering.left -= count;
                    lingering.silence.as_mut().reset(now + LINGER_SILENCE);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    let end = lingering.silence.as_mut().poll(cx);
                    self.lingering = Some(lingering);
                    return end;
                }
            }
        }
    }
}

/// A close that reads on.
#[derive(Debug)]
struct Lingering {
    silence: Pin<Box<Sleep>>,
    until: Instant,
    left: u64,
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        // Never a clean end for what is not whole, whatever ended it.
        if !self.handle.is_reset() && !self.handle.owes_answer() {
            let _ = SockRef::from(&*self.tcp).set_linger(None);
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.prefix.is_empty() {
            ready!(this.poll_read_framed(cx, buf))?;
        } else {
            let count = this.prefix.len().min(buf.remaining());
            buf.put_slice(&this.prefix[..count]);
            this.prefix.advance(count);
        }
        let idle = matches!(this.handle.phase().0, Phase::Idle | Phase::New);
        // An empty line before a request is none (RFC 9112 section 2.2).
        if idle && buf.filled().len() > before && this.framing.is_in_head() {
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
        this.unflushed = true;
        let end = this.poll_write_socket(cx, |tcp| tcp.try_write(buf));
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
        this.unflushed = true;
        let end = this.poll_write_socket(cx, |tcp| tcp.try_write_vectored(bufs));
        this.note(end)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes the socket, which keeps nothing back, when its own buffer is empty.
        let this = self.get_mut();
        this.unflushed = false;
        this.handle.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.handle.is_kept_open() {
            return Poll::Ready(Ok(()));
        }
        if this.muted || this.handle.is_reset() {
            this.shut = true;
            return Poll::Ready(Ok(()));
        }
        this.handle.ends();
        if this.handle.is_last() && !this.beyond_http && this.lingering.is_none() && !this.has_unread() {
            // All that is to be said is said by closing the socket.
            this.shut = true;
            return Poll::Ready(Ok(()));
        }
        if this.lingering.is_none() {
            // A client that is gone needs no goodbye.
            let _ = SockRef::from(&*this.tcp).shutdown(Shutdown::Write);
        }
        if this.handle.lingers() {
            ready!(this.poll_linger(cx));
        }
        this.shut = true;
        Poll::Ready(Ok(()))
    }
}
