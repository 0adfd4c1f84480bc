//! One client connection: head, exchange, next; idle with nothing in memory but its socket.

use std::{future::poll_fn, net::SocketAddr, rc::Rc, sync::Arc, task::Poll, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    http1::{
        conn::{Connection, NoHead},
        head::{HeadError, RequestHead},
    },
    metrics::Connections,
    proxy::{
        BoundUpstream, ListenerContext, Outcome, Proxy, Rejected, TLS_INSIDE_CONNECT,
        client_tls::ClientTlsError,
        failure::{Failure, NotHttp},
    },
    transport::Transport,
};

use super::{Stop, first_bytes::identify, socket::AcceptedConnection};

/// Limits on clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// For a request's head, from its first byte; and for the first request after connecting.
    pub head: Duration,
    /// Between requests.
    pub keep_alive: Duration,
}

/// What the sessions of a listener have in common.
#[derive(Debug)]
pub struct SessionContext {
    /// The listener.
    pub listener: ListenerContext,
    /// Its name in logs.
    pub name: String,
    /// Those of its clients.
    pub connections: Arc<Connections>,
    pub proxy: Rc<Proxy>,
    pub limits: ClientLimits,
    /// How far the end of the process has come.
    pub stop: watch::Receiver<Stop>,
}

impl SessionContext {
    fn is_stopping(&self) -> bool {
        *self.stop.borrow() >= Stop::Drain
    }
}

/// A client that is silent for so long is parked: it keeps nothing but its socket.
const PARK_AFTER: Duration = Duration::from_millis(10);

/// A fatal alert, which ends a client's TLS handshake at once (RFC 8446 section 6).
pub(super) const fn fatal_alert(description: u8) -> [u8; 7] {
    [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, description]
}

/// Alerts (RFC 8446 section 6.2).
const HANDSHAKE_FAILURE: u8 = 40;
pub(super) const ACCESS_DENIED: u8 = 49;
pub(super) const DECODE_ERROR: u8 = 50;
const PROTOCOL_VERSION: u8 = 70;
const UNRECOGNIZED_NAME: u8 = 112;

/// A connection on which nothing is under way.
struct Parked {
    transport: Transport,
    listener: ListenerContext,
    /// Whether nothing came on it yet, or nothing inside its tunnel.
    is_fresh: bool,
}

/// Tells a client that too many are connected.
pub async fn refuse(connection: AcceptedConnection, context: &SessionContext) {
    let session = Session::new(Parked::new(connection, context), context);
    session.refuse(&Failure::TooManyConnections).await;
}

/// Serves a connection to its end.
pub async fn serve(connection: AcceptedConnection, context: &SessionContext) {
    let mut parked = Parked::new(connection, context);
    let mut until = Instant::now() + context.limits.head;
    let mut has_spoken = false;
    while speaks(&mut parked.transport, context, until).await {
        // In a box of its own, which is gone while the client is parked.
        let Some((next, served)) = Box::pin(Session::new(parked, context).run()).await else { return };
        parked = next;
        if served {
            has_spoken = true;
            until = Instant::now() + context.limits.keep_alive;
        }
    }
    // A client that was led here and says nothing may be waiting for the server to speak first.
    if !has_spoken && parked.listener.original.is_some() && !context.is_stopping() {
        let failure = Failure::NoRequest(context.limits.head);
        // Whatever the answer would be, the client does not speak HTTP: the connection ends by RST.
        let _ = context.proxy.refuse_connection(&failure, &parked.listener, parked.transport.peer());
        return;
    }
    // Nothing is owed.
    parked.transport.end_in_order();
}

impl Parked {
    fn new(connection: AcceptedConnection, context: &SessionContext) -> Self {
        let AcceptedConnection { transport, original } = connection;
        Self { transport, listener: ListenerContext { original, ..context.listener.clone() }, is_fresh: true }
    }
}

/// Waits for a parked client to speak; false once its time is over, or the process is about to end.
async fn speaks(transport: &mut Transport, context: &SessionContext, until: Instant) -> bool {
    let mut stop = context.stop.clone();
    tokio::select! {
        biased;
        // An error is found by whoever reads.
        _ = poll_fn(|cx| transport.poll_readable(cx)) => true,
        () = sleep_until(until) => false,
        _ = stop.wait_for(|stop| *stop >= Stop::Drain) => false,
    }
}

/// A connection on which something is under way.
pub(super) struct Session<'a> {
    pub(super) client: Connection,
    pub(super) listener: ListenerContext,
    pub(super) context: &'a SessionContext,
    bound: Option<BoundUpstream>,
    is_fresh: bool,
    /// What the first request inside TLS is answered.
    pub(super) rejected: Option<Rejected>,
}

/// What comes next on a connection.
enum Next {
    Head(RequestHead),
    /// Nothing for now.
    Park,
    /// Nothing more; the connection ends in order.
    End,
    /// A head that is not served.
    Refuse(Failure),
    /// A ClientHello that is.
    Tls,
}

impl<'a> Session<'a> {
    fn new(parked: Parked, context: &'a SessionContext) -> Self {
        let Parked { transport, listener, is_fresh } = parked;
        let client = Connection::new(transport, context.proxy.buffers().clone());
        Self { client, listener, context, bound: None, is_fresh, rejected: None }
    }

    /// Serves requests until the connection ends, or is to be parked; then with whether there were any.
    async fn run(mut self) -> Option<(Parked, bool)> {
        let mut served = false;
        loop {
            let head = match self.next().await {
                Next::Head(head) => head,
                Next::Park => {
                    let Self { client, listener, is_fresh, .. } = self;
                    return Some((Parked { transport: client.into_transport(), listener, is_fresh }, served));
                }
                // In boxes of their own, which most clients never need.
                Next::Tls => match Box::pin(self.terminate()).await {
                    Ok(()) => continue,
                    Err(refusal) => {
                        Box::pin(self.refuse_tls(refusal)).await;
                        return None;
                    }
                },
                Next::End => {
                    self.record_rejected();
                    self.client.into_transport().end_in_order();
                    return None;
                }
                Next::Refuse(failure) => {
                    self.record_rejected();
                    self.refuse(&failure).await;
                    return None;
                }
            };
            served = true;
            self.is_fresh = false;
            let Self { client, listener, context, bound, rejected, .. } = &mut self;
            let outcome = match rejected.take() {
                Some(rejected) => context.proxy.refuse_request(listener, client, head, rejected).await,
                None => context.proxy.exchange(listener, client, bound, head, || context.is_stopping()).await,
            };
            match outcome {
                Outcome::KeepAlive => {}
                Outcome::Close { last } => {
                    self.client.close(last).await;
                    return None;
                }
                // The connection ends by RST when it is dropped.
                Outcome::Reset => return None,
                Outcome::Inside(authority) => {
                    self.listener.tunnel = Some(authority);
                    self.is_fresh = true;
                }
            }
        }
    }

    /// The next head, or what comes instead.
    async fn next(&mut self) -> Next {
        let limits = self.context.limits;
        let head_limits = self.context.proxy.head_limits();
        let since = Instant::now();
        let mut head_since = None;
        let read = poll_fn(|cx| {
            if let Poll::Ready(head) = self.client.poll_head(cx, head_limits) {
                return Poll::Ready(Ok(head));
            }
            let deadline = if self.client.is_in_head() {
                *head_since.get_or_insert_with(Instant::now) + limits.head
            } else if self.rejected.is_some() {
                since + limits.head
            } else if self.bound.is_some() {
                since + limits.keep_alive
            } else {
                since + PARK_AFTER.min(limits.keep_alive)
            };
            let over = self.client.poll_deadline(cx, deadline).is_ready();
            // Not even the rest of a head is waited for.
            if over || self.context.is_stopping() { Poll::Ready(Err(over)) } else { Poll::Pending }
        });
        match read.await {
            Ok(Ok(head)) => Next::Head(head),
            Ok(Err(NoHead::Bad(HeadError::TlsHandshake))) if self.may_start_tls() => Next::Tls,
            Ok(Err(NoHead::Bad(error))) => Next::Refuse(self.bad_head(error)),
            Ok(Err(NoHead::Closed | NoHead::Broken(_))) => Next::End,
            Err(true) if self.client.is_in_head() => Next::Refuse(Failure::HeadTimeout),
            Err(true) if self.bound.is_none() && self.rejected.is_none() => Next::Park,
            Err(_) => Next::End,
        }
    }

    /// Whether a ClientHello is to be expected here.
    fn may_start_tls(&self) -> bool {
        self.is_fresh && self.client.tls_version().is_none() && self.context.proxy.terminates(&self.listener)
    }

    /// Why a head cannot be read: perhaps since the client does not speak HTTP/1.
    fn bad_head(&self, error: HeadError) -> Failure {
        if error == HeadError::TlsHandshake && self.listener.tunnel.is_some() {
            return match self.own_socket() {
                Some(from) => Failure::OwnConnection { from },
                None => Failure::ConnectRefused(TLS_INSIDE_CONNECT),
            };
        }
        if !self.is_fresh || matches!(error, HeadError::Framing(_) | HeadError::TooLarge | HeadError::TooManyFields) {
            return Failure::Head(error);
        }
        match identify(self.client.input()) {
            NotHttp::Tls(name) => match self.own_socket() {
                Some(from) => Failure::OwnConnection { from },
                None => Failure::NotHttp(NotHttp::Tls(name)),
            },
            NotHttp::Other(_) if self.listener.original.is_none() => Failure::Head(error),
            not_http => Failure::NotHttp(not_http),
        }
    }

    /// The client's address, if the client is this proxy.
    pub(super) fn own_socket(&self) -> Option<SocketAddr> {
        self.client.peer().tcp().filter(|client| self.context.proxy.own_sockets().is_own(*client))
    }

    /// Records what the client's handshake was refused for, where no request asks for it any more.
    pub(super) fn record_rejected(&mut self) {
        if let Some(rejected) = self.rejected.take() {
            self.context.proxy.record_rejected(&rejected, &self.listener, self.client.peer());
        }
    }

    /// Answers what is not served by a request's exchange, and ends the connection.
    async fn refuse(mut self, failure: &Failure) {
        let response = self.context.proxy.refuse_connection(failure, &self.listener, self.client.peer());
        match response {
            Some(response) => match alert(failure) {
                Some(description) => self.client.outbox().extend_from_slice(&fatal_alert(description)),
                None => response.write_to(self.client.outbox(), crate::http1::Version::Http11, false, true),
            },
            None => return,
        }
        if self.client.flush(self.context.limits.head).await.is_ok() {
            self.client.close(false).await;
        }
    }
}

/// The alert for a client that began a TLS handshake, which is what it understands.
pub(super) fn alert(failure: &Failure) -> Option<u8> {
    match failure {
        Failure::ConnectRefused(TLS_INSIDE_CONNECT) => Some(ACCESS_DENIED),
        Failure::NotHttp(NotHttp::Tls(_)) | Failure::OwnConnection { .. } => Some(HANDSHAKE_FAILURE),
        Failure::ClientTls(ClientTlsError::OtherName { .. }) => Some(UNRECOGNIZED_NAME),
        Failure::NotHttp(NotHttp::SslV2Hello) => Some(PROTOCOL_VERSION),
        _ => None,
    }
}
