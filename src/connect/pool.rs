//! HTTP/1.1 connections over verified streams, and the idle ones of one upstream.
//!
//! A slot belongs to one worker thread and one whole [`Upstream`]; nothing here is shared or locked.

use std::{cell::RefCell, convert::Infallible, error::Error, fmt, pin::pin, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::route::upstream::Upstream;

use super::{
    Peer, Verified, Wire,
    interim::{Flood, Interim, Interims},
};

/// Bytes of a body that are read at a time. A client that stops to read makes us keep as many; more of them are read
/// hardly any faster.
const READ: usize = 64 << 10;

/// Limits on what an upstream may answer.
#[derive(Clone, Copy, Debug)]
pub struct ResponseLimits {
    /// Bytes of a response head.
    pub head: usize,
    /// Field lines of a response head.
    pub fields: usize,
}

/// One HTTP/1.1 connection to a verified upstream.
pub struct Link<B> {
    sender: SendRequest<B>,
    peer: Rc<Peer>,
    wire: Rc<Wire>,
    interims: Arc<Interims>,
    switched: oneshot::Receiver<Switched>,
    /// Tells the connection by its end that nobody has this any more.
    _wanted: oneshot::Sender<Infallible>,
}

/// A connection on which HTTP is over, and what was read behind it.
type Switched = (Verified, Bytes);

impl<B> fmt::Debug for Link<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer).finish_non_exhaustive()
    }
}

/// A request that got no response.
#[derive(Debug)]
pub struct Unanswered<B> {
    /// What hyper says.
    pub error: hyper::Error,
    /// The request, where none of it was sent.
    pub unsent: Option<Request<B>>,
}

impl<B> Link<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Speaks HTTP/1.1 on a verified stream; runs until either side ends it. Once the link is dropped, an upload whose
    /// answer came early may come to its end, as long as the upstream takes anything of it within `patience`.
    ///
    /// # Errors
    /// hyper's own; none is known for HTTP/1.
    pub async fn open(stream: Verified, limits: ResponseLimits, patience: Duration) -> Result<Self, hyper::Error> {
        let (peer, wire) = (stream.peer(), stream.wire());
        let (sender, mut connection) = Builder::new()
            .preserve_header_case(true)
            .title_case_headers(true)
            .max_headers(limits.fields)
            .max_header_size(limits.head)
            .max_buf_size(limits.head.max(READ))
            .handshake(TokioIo::new(stream))
            .await?;
        let (switch, switched) = oneshot::channel();
        let (wanted, unwanted) = oneshot::channel();
        let ends = wire.clone();
        tokio::task::spawn_local(async move {
            let end = tokio::select! {
                end = &mut connection => end,
                Err(_) = unwanted => match finished(&mut connection, &ends, patience).await {
                    Some(end) => end,
                    None => {
                        ends.abort.set(true);
                        return;
                    }
                },
            };
            match end {
                // Not shut down, and yet over: it has switched protocols.
                Ok(()) if !ends.shut.get() => {
                    let parts = connection.into_parts();
                    // Where nobody asked for that, it is closed.
                    let _ = switch.send((parts.io.into_inner(), parts.read_buf));
                }
                Ok(()) => {}
                Err(error) => tracing::debug!(%error, "an upstream connection ended"),
            }
        });
        Ok(Self { sender, peer, wire, interims: Arc::default(), switched, _wanted: wanted })
    }

    /// Sends a request; the response's body streams. What comes before the response is [`Self::interim`]'s.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn send(
        &mut self,
        mut request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, Unanswered<B>>> + use<B> {
        self.interims.watch(&mut request);
        let answer = self.sender.try_send_request(request);
        async {
            answer.await.map_err(|mut failed| Unanswered { unsent: failed.take_message(), error: failed.into_error() })
        }
    }

    /// Whether the last exchange is over on the wire. The response's last byte may be here before hyper
    /// has tidied up behind it, which takes a turn or two; what takes longer is still busy.
    async fn settles(&mut self) -> bool {
        for _ in 0..2 {
            if self.sender.is_ready() {
                return true;
            }
            tokio::task::yield_now().await;
        }
        self.sender.is_ready()
    }
}

impl<B> Link<B> {
    /// Who is at the other end.
    pub fn peer(&self) -> &Rc<Peer> {
        &self.peer
    }

    /// What happened on the wire.
    pub fn wire(&self) -> &Rc<Wire> {
        &self.wire
    }

    /// The next interim response to what was sent.
    ///
    /// # Errors
    /// [`Flood`].
    pub async fn interim(&self) -> Result<Interim, Flood> {
        self.interims.next().await
    }

    /// The connection itself, behind a response that switches protocols; None where it broke.
    pub async fn switched(self) -> Option<(Verified, Bytes)> {
        self.switched.await.ok()
    }
}

/// The end of a connection that nobody waits for; None where nothing of what is still to be written was taken for so
/// long.
async fn finished<T>(connection: impl Future<Output = T>, wire: &Wire, patience: Duration) -> Option<T> {
    let mut connection = pin!(connection);
    loop {
        let written = wire.written.get();
        match timeout(patience, &mut connection).await {
            Ok(end) => return Some(end),
            Err(_) if wire.written.get() == written => return None,
            Err(_) => {}
        }
    }
}

/// An upstream and its idle connections.
pub struct Slot<B> {
    /// The upstream.
    pub upstream: Upstream,
    /// Its Host field.
    pub host: Option<HeaderValue>,
    /// The generation of the settings that it is of.
    pub generation: u64,
    idle: RefCell<Vec<(Link<B>, Instant)>>,
    limits: PoolLimits,
    successor: RefCell<Successor<B>>,
}

/// What took a slot's place when the settings changed.
enum Successor<B> {
    /// Nothing: it is the one in force.
    Itself,
    /// The upstream is not there any more.
    Nobody,
    /// The same upstream under newer settings.
    Slot(Rc<Slot<B>>),
}

impl<B> fmt::Debug for Slot<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.upstream)
    }
}

/// Limits on what is kept.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// How long a connection is kept idle; below what servers allow themselves.
    pub idle: Duration,
    /// How many idle connections to one upstream are kept by one worker.
    pub most: usize,
}

impl<B> Slot<B>
where
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// A slot without connections.
    pub fn new(upstream: Upstream, limits: PoolLimits, generation: u64) -> Self {
        let host = HeaderValue::try_from(upstream.host_field()).ok();
        let (idle, successor) = (RefCell::default(), RefCell::new(Successor::Itself));
        Self { upstream, host, generation, idle, limits, successor }
    }

    /// The connection used last that still stands.
    pub async fn take(&self) -> Option<Link<B>> {
        loop {
            let (mut link, since) = self.idle.borrow_mut().pop()?;
            if self.keeps(&link, since) && link.settles().await {
                return Some(link);
            }
        }
    }

    /// Keeps a connection for the next request, in the slot that is in force now.
    pub fn put(self: &Rc<Self>, link: Link<B>) {
        let Some((slot, link)) = self.in_force(link) else { return };
        let mut idle = slot.idle.borrow_mut();
        if idle.len() < slot.limits.most && !link.wire.abort.get() && slot.keeps(&link, Instant::now()) {
            idle.push((link, Instant::now()));
        }
    }

    /// Closes what was idle too long, was closed by the other side, or rests on a certificate that has ended.
    pub fn sweep(&self) {
        self.idle.borrow_mut().retain(|(link, since)| self.keeps(link, *since));
    }

    fn keeps(&self, link: &Link<B>, since: Instant) -> bool {
        let stands = since.elapsed() < self.limits.idle && !link.sender.is_closed();
        stands && self.upstream.tls.0.now() < link.peer.standing.end()
    }

    /// Gives the idle connections to the slot that takes this one's place, each judged again by its settings;
    /// gives how many did not pass.
    pub fn retire(&self, next: Option<Rc<Self>>) -> usize {
        let mut closed = 0;
        let mut last: Option<(Rc<Peer>, Option<Rc<Peer>>)> = None;
        for (mut link, since) in self.idle.take() {
            // Connections to one upstream mostly show one chain.
            let known = last.take().filter(|(peer, _)| peer.is_like(&link.peer));
            let verdict = match known {
                Some((_, verdict)) => verdict,
                None => next.as_ref().and_then(|next| link.peer.judged_again(&next.upstream)).map(Rc::new),
            };
            last = Some((link.peer.clone(), verdict.clone()));
            match (verdict, &next) {
                (Some(peer), Some(next)) => {
                    link.peer = Rc::new(Peer { address: link.peer.address, ..(*peer).clone() });
                    next.idle.borrow_mut().push((link, since));
                }
                _ => closed += 1,
            }
        }
        *self.successor.borrow_mut() = next.map_or(Successor::Nobody, Successor::Slot);
        closed
    }

    /// The slot in force now for what this one was for, None where there is none any more.
    pub fn now(self: &Rc<Self>) -> Option<Rc<Self>> {
        match &*self.successor.borrow() {
            Successor::Itself => Some(self.clone()),
            Successor::Nobody => None,
            Successor::Slot(next) => next.now(),
        }
    }

    /// A connection that was made for this slot, if it could be made for the one in force now.
    pub fn in_force(self: &Rc<Self>, mut link: Link<B>) -> Option<(Rc<Self>, Link<B>)> {
        let now = self.now()?;
        if !Rc::ptr_eq(self, &now) {
            link.peer = Rc::new(link.peer.judged_again(&now.upstream)?);
        }
        Some((now, link))
    }

    /// Whether no connection is kept.
    pub fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty()
    }
}
