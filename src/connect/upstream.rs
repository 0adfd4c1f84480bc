//! An HTTP/1.1 connection to a verified upstream: heads of responses, pieces of bodies, and what is sent.

use std::{
    fmt, io,
    rc::Rc,
    task::{Context, Poll, ready},
};

use crate::{
    audit::usage::BypassedUse,
    buffer::{Buffer, BufferPool},
    http1::head::{HeadError, HeadLimits, HeadScan, ResponseHead},
    metrics::OpenConnection,
    tls::{client::PeerTrust, failure::HandshakeFailure},
    transport::ClientAddress,
};

use super::{Peer, Verified};

/// A connection that requests can be sent on.
#[derive(Debug)]
pub struct UpstreamConnection {
    verified: Verified,
    /// What was received and not passed on.
    inbox: Buffer,
    scan: HeadScan,
    /// Counts the requests, where the peer was refused and that was only reported.
    bypassed: Option<BypassedUse>,
    /// How it ends when it is dropped.
    end: End,
    /// Whether it has carried a request and its response.
    served: bool,
    /// It is counted as open, where that is counted.
    open: Option<OpenConnection>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// A request is under way: the upstream must not take what it has for the whole.
    Reset,
    /// Nothing is under way.
    Close,
}

/// Why there is no response head.
#[derive(Debug)]
pub enum NoResponse {
    /// It cannot be read.
    Bad(HeadError),
    /// The connection broke.
    Broken(io::Error),
    /// The upstream closed it in an orderly way.
    Closed,
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bad(error) => error.fmt(f),
            Self::Broken(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("it closed the connection without the end of TLS")
            }
            Self::Broken(error) => error.fmt(f),
            Self::Closed => f.write_str("it closed the connection"),
        }
    }
}

impl UpstreamConnection {
    /// Speaks HTTP/1.1 on a verified connection. Boxed, since it changes hands several times for each request.
    pub fn new(mut verified: Verified, buffers: BufferPool) -> Box<Self> {
        let mut inbox = Buffer::new(buffers);
        // Nobody asked for it; it makes the connection unusable.
        inbox.extend_from_slice(&verified.take_early());
        Box::new(Self {
            verified,
            inbox,
            scan: HeadScan::default(),
            bypassed: None,
            end: End::Close,
            served: false,
            open: None,
        })
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Rc<Peer> {
        self.verified.peer()
    }

    pub(super) fn verified(&mut self) -> &mut Verified {
        &mut self.verified
    }

    /// Whether nothing came that nobody asked for, and the connection is open, as far as is known.
    pub fn is_quiet(&mut self) -> bool {
        self.inbox.is_empty() && self.verified.stream().is_quiet()
    }

    /// Whether it has answered an earlier request.
    pub fn has_served(&self) -> bool {
        self.served
    }

    /// The refusal behind an end without a response, see [`Verified::refusal`].
    pub fn refusal(&self, error: Option<&io::Error>) -> Option<Rc<HandshakeFailure>> {
        self.verified.refusal(error, self.served)
    }

    /// Bytes of data that were received so far: whether the upstream has sent anything at all.
    pub fn received(&mut self) -> u64 {
        self.verified.stream().received()
    }

    /// Seals bytes behind what is to be sent.
    ///
    /// # Errors
    /// The connection can send nothing more.
    pub fn seal(&mut self, plaintext: &[u8]) -> io::Result<()> {
        if let Some(bypassed) = &self.bypassed {
            bypassed.sent(plaintext.len() as u64);
        }
        self.verified.stream().seal(plaintext)
    }

    /// Announces that nothing follows, behind what is to be sent.
    ///
    /// # Errors
    /// The connection can send nothing more.
    pub fn seal_end(&mut self) -> io::Result<()> {
        self.verified.stream().seal_end()
    }

    /// Bytes of records that the system has not taken.
    pub fn unsent(&mut self) -> usize {
        self.verified.stream().unsent()
    }

    /// Forgets what was not sent.
    pub fn discard_unsent(&mut self) {
        self.verified.stream().discard_unsent();
    }

    /// Sends what was sealed; ready once the system has all of it.
    ///
    /// # Errors
    /// The upstream takes nothing more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.verified.stream().poll_flush(cx)
    }

    /// The next response's head. `to_head`: the request was HEAD.
    ///
    /// # Errors
    /// [`NoResponse`]
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: HeadLimits,
        to_head: bool,
    ) -> Poll<Result<ResponseHead, NoResponse>> {
        loop {
            let read = ResponseHead::read(self.inbox.as_slice(), &mut self.scan, limits, to_head);
            if let Some((head, size)) = read.map_err(NoResponse::Bad)? {
                self.inbox.consume(size);
                return Poll::Ready(Ok(head));
            }
            if ready!(self.poll_receive(cx)).map_err(NoResponse::Broken)? == 0 {
                return Poll::Ready(Err(NoResponse::Closed));
            }
        }
    }

    /// What was received and not passed on.
    pub fn inbox(&mut self) -> &mut Buffer {
        &mut self.inbox
    }

    /// Receives more into [`Self::inbox`]; 0 is the end that the upstream announced.
    ///
    /// # Errors
    /// A broken connection, or an end that was not announced.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let end = self.verified.stream().poll_receive(cx, self.inbox.space());
        self.inbox.settle();
        end
    }

    /// Closes the sending side of the socket.
    pub fn shut_down(&mut self) {
        self.verified.stream().shut_down();
    }

    /// Counts it as open until it is dropped.
    pub fn count_open(&mut self, open: OpenConnection) {
        self.open = Some(open);
    }

    /// Why its peer was refused, where that is only to be reported and was not yet.
    pub fn unreported(&self) -> Option<Rc<HandshakeFailure>> {
        let is_due = self.bypassed.is_none() && matches!(self.peer().standing, PeerTrust::ReportOnly(_));
        is_due.then(|| self.verified.bypassed()).flatten()
    }

    /// The peer was refused, and that was reported: what is sent is counted.
    pub fn count_use(&mut self, bypassed: BypassedUse) {
        self.bypassed = Some(bypassed);
    }

    /// A request of this client begins: until [`Self::end_exchange`] the connection ends by RST.
    pub fn begin_exchange(&mut self, client: ClientAddress) {
        if let Some(bypassed) = &self.bypassed {
            bypassed.count(client);
        }
        self.end = End::Reset;
    }

    /// Request and response were whole.
    pub fn end_exchange(&mut self) {
        self.end = End::Close;
        self.served = true;
    }

    /// Closes it in order.
    pub fn close(mut self: Box<Self>) {
        self.end = End::Close;
        self.verified.stream().say_goodbye();
    }
}

impl Drop for UpstreamConnection {
    fn drop(&mut self) {
        if self.end == End::Reset {
            self.verified.stream().reset_on_drop();
        }
    }
}
