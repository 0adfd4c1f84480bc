//! The bodies that stream through, frame by frame, and what they do when they break.
//!
//! - Upwards ([`Upload`]): a client that breaks off or stalls aborts the upstream connection.
//! - Downwards ([`Download`]): an upstream that breaks off, stalls, or ends short resets the client's
//!   connection, so that no tool can take a cut body for a whole one.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::connect::{
    Wire,
    pool::{Link, Slot},
};

use super::{
    access::Access,
    client::{ClientHandle, Exchange},
    stall::Stall,
};

/// Why a body ended before its end.
#[derive(Debug)]
pub enum BodyError {
    /// The sender broke it off, or broke the framing.
    Broken(hyper::Error),
    /// Nothing came for this long.
    Stalled(Duration),
    /// The answer is over, and nobody ever asked for it.
    Unasked,
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) => error.fmt(f),
            Self::Unasked => f.write_str("the answer came instead of a word to go on"),
            Self::Stalled(limit) => write!(f, "nothing came for {} s", limit.as_secs_f32()),
        }
    }
}

impl std::error::Error for BodyError {}

/// How far an upload came; shared between the body and the one who waits for the answer.
#[derive(Debug)]
pub struct Progress {
    /// Bytes passed on.
    pub bytes: Cell<u64>,
    /// Whether the last byte was passed on.
    pub done: Cell<bool>,
    /// How the client broke it.
    pub broken: Cell<Option<Broken>>,
    /// When something moved last.
    pub moved: Cell<Instant>,
    /// Whether its client was told to go on in an upstream's place, which may still say so itself.
    pub said_for_it: Cell<bool>,
    empty: bool,
    held: RefCell<Hold>,
    /// What nobody took anything of, to be sent again.
    unspent: RefCell<Option<(Incoming, Option<Rc<Exchange>>)>>,
}

/// A body whose client waits for a word (RFC 9110 section 10.1.1) is not touched before that is said: to ask hyper
/// for it would be to say so.
#[derive(Debug)]
enum Hold {
    No,
    Yes(Option<Waker>),
    /// That word will not come any more.
    ForGood,
}

impl Progress {
    /// Whether it waits for a word.
    pub fn is_held(&self) -> bool {
        matches!(*self.held.borrow(), Hold::Yes(_))
    }

    /// The word was said.
    pub fn release(&self) {
        self.turn(Hold::No);
    }

    fn turn(&self, to: Hold) {
        if self.is_held()
            && let Hold::Yes(Some(waiting)) = self.held.replace(to)
        {
            waiting.wake();
        }
    }

    /// Whether it could be sent again: there is none, or it is as it came.
    pub fn is_unspent(&self) -> bool {
        self.empty || self.unspent.borrow().is_some()
    }

    /// Ready when the body may be touched; with whether it ever may.
    fn poll_release(&self, cx: &Context<'_>) -> Poll<bool> {
        match &mut *self.held.borrow_mut() {
            Hold::No => Poll::Ready(true),
            Hold::ForGood => Poll::Ready(false),
            Hold::Yes(waiting) => {
                *waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// How a client broke its upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Its framing is wrong, or it went away.
    Framing,
    /// It stalled.
    Stalled,
}

/// A request's body on its way up.
#[derive(Debug)]
pub struct Upload {
    inner: Option<Incoming>,
    progress: Rc<Progress>,
    stall: Stall,
    limit: Duration,
    wire: Option<Rc<Wire>>,
    touched: bool,
    /// None for a repeat without a body: its client has sent everything.
    exchange: Option<Rc<Exchange>>,
}

impl Upload {
    /// Wraps a client's body; `held` is whether the client waits for a word before it sends it.
    pub fn new(inner: Incoming, held: bool, limit: Duration, exchange: Rc<Exchange>) -> Self {
        let inner = (!inner.is_end_stream()).then_some(inner);
        let held = if held && inner.is_some() { Hold::Yes(None) } else { Hold::No };
        let progress = Progress {
            bytes: Cell::new(0),
            done: Cell::new(inner.is_none()),
            broken: Cell::new(None),
            moved: Cell::new(Instant::now()),
            said_for_it: Cell::new(false),
            empty: inner.is_none(),
            held: RefCell::new(held),
            unspent: RefCell::new(None),
        };
        let (progress, stall) = (Rc::new(progress), Stall::new(limit));
        Self { inner, progress, stall, limit, wire: None, touched: false, exchange: Some(exchange) }
    }

    /// How far it came.
    pub fn progress(&self) -> Rc<Progress> {
        self.progress.clone()
    }

    /// The body of a repeat, with the same progress; [`Progress::is_unspent`] says whether there can be one.
    pub fn again(progress: Rc<Progress>, limit: Duration) -> Self {
        let (inner, exchange) = progress.unspent.take().map_or((None, None), |(body, exchange)| (Some(body), exchange));
        Self { inner, progress, stall: Stall::new(limit), limit, wire: None, touched: false, exchange }
    }

    /// Names the connection that carries it, to be aborted if it breaks.
    pub fn carried_by(&mut self, wire: Rc<Wire>) {
        self.wire = Some(wire);
    }

    fn broke(&self, how: Broken) {
        self.progress.broken.set(Some(how));
        if let Some(wire) = &self.wire {
            wire.abort.set(true);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Dropped on the way: hyper gave up on the connection, or the client went away.
        if self.progress.done.get() {
            return;
        }
        if let Some(wire) = &self.wire {
            wire.abort.set(true);
        }
        if !self.touched
            && let Some(body) = self.inner.take()
        {
            *self.progress.unspent.borrow_mut() = Some((body, self.exchange.take()));
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if !ready!(this.progress.poll_release(cx)) {
            return Poll::Ready(Some(Err(BodyError::Unasked)));
        }
        let end = match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.touched = true;
                this.stall.moved();
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                this.progress.bytes.set(this.progress.bytes.get() + bytes);
                this.progress.moved.set(Instant::now());
                Some(Ok(frame))
            }
            Poll::Ready(Some(Err(error))) => {
                this.touched = true;
                this.broke(Broken::Framing);
                Some(Err(BodyError::Broken(error)))
            }
            Poll::Ready(None) => None,
            Poll::Pending => match this.stall.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => {
                    this.broke(Broken::Stalled);
                    Some(Err(BodyError::Stalled(this.limit)))
                }
            },
        };
        if is_last(end.as_ref(), this.inner.as_ref()) {
            this.progress.done.set(true);
            this.progress.moved.set(Instant::now());
        }
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Whether this was a body's last frame. Only where the length is known does hyper say so in advance.
fn is_last(frame: Option<&Result<Frame<Bytes>, BodyError>>, body: Option<&Incoming>) -> bool {
    match frame {
        None => true,
        Some(Err(_)) => false,
        Some(Ok(frame)) => frame.is_trailers() || body.is_none_or(Body::is_end_stream),
    }
}

/// A response's body on its way down. Holds the upstream connection, and gives it back when all of it
/// was passed on.
#[derive(Debug)]
pub struct Download {
    inner: Incoming,
    stall: Stall,
    limit: Duration,
    client: ClientHandle,
    lease: Option<(Link<Upload>, Rc<Slot<Upload>>)>,
    upload: Rc<Progress>,
    access: Access,
    bytes: u64,
    expected: Option<u64>,
    whole: bool,
    _exchange: Rc<Exchange>,
}

impl Download {
    /// Wraps an upstream's body.
    pub fn new(
        inner: Incoming,
        limit: Duration,
        client: ClientHandle,
        lease: (Link<Upload>, Rc<Slot<Upload>>),
        upload: Rc<Progress>,
        access: Access,
        exchange: Rc<Exchange>,
    ) -> Self {
        let (expected, whole) = (inner.size_hint().exact(), inner.is_end_stream());
        client.reads_from(Some(lease.0.wire().clone()));
        let (stall, lease) = (Stall::new(limit), Some(lease));
        Self { inner, stall, limit, client, lease, upload, access, bytes: 0, expected, whole, _exchange: exchange }
    }

    fn cut(&mut self, error: BodyError) -> BodyError {
        self.client.reset();
        let upstream = self.lease.as_ref().map(|(_, slot)| slot.upstream.authority());
        self.access.cut(upstream.as_deref(), self.bytes, self.expected, &error);
        error
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.client.blocked_since().is_some() {
            // What its client does not take is left to the upstream. hyper, which has bytes that wait for the same
            // socket, asks again when it has written them. Meanwhile it is not the upstream that is silent.
            this.stall.moved();
            return Poll::Pending;
        }
        let end = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.stall.moved();
                this.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
                Some(Ok(frame))
            }
            Poll::Ready(Some(Err(error))) => Some(Err(this.cut(BodyError::Broken(error)))),
            Poll::Ready(None) => None,
            Poll::Pending => match this.stall.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => Some(Err(this.cut(BodyError::Stalled(this.limit)))),
            },
        };
        this.whole = is_last(end.as_ref(), Some(&this.inner));
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.client.answer_given();
        self.client.reads_from(None);
        let uploaded = self.upload.done.get();
        if let Some((link, slot)) = self.lease.take() {
            match (self.whole, uploaded) {
                (true, true) => slot.put(link),
                (false, false) => link.wire().abort.set(true),
                _ => {}
            }
        }
        if !self.whole {
            self.access.interrupted();
            // Cut by the upstream, or given up because the client seems gone: whoever still reads must see it.
            self.client.reset();
        }
        if !uploaded {
            self.upload.turn(Hold::ForGood);
        }
        self.access.finish(self.upload.bytes.get(), self.bytes, self.whole);
    }
}

/// The body of a response.
#[derive(Debug)]
pub enum ResponseBody {
    /// An upstream's.
    Download(Box<Download>),
    /// One of our own.
    Own(Own),
}

/// A short body of our own.
#[derive(Debug)]
pub struct Own {
    text: Full<Bytes>,
    access: Access,
    length: u64,
    exchange: Rc<Exchange>,
}

impl Own {
    /// A text, with the access record to be finished when it was sent.
    pub fn new(text: String, access: Access, exchange: Rc<Exchange>) -> Self {
        let length = text.len() as u64;
        Self { text: Full::from(text), access, length, exchange }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.exchange.client().answer_given();
        self.access.finish(0, self.length, true);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Download(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Own(own) => Pin::new(&mut own.text).poll_frame(cx).map_err(|never: Infallible| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Download(body) => body.is_end_stream(),
            Self::Own(own) => own.text.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Download(body) => body.size_hint(),
            Self::Own(own) => own.text.size_hint(),
        }
    }
}
