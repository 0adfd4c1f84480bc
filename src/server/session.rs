//! One client connection: head, exchange, next; idle with nothing in memory but its socket.

use std::{future::poll_fn, rc::Rc, task::Poll, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{
    http1::{
        conn::{Connection, NoHead},
        head::{HeadError, RequestHead},
    },
    proxy::{
        BoundUpstream, ListenerContext, Outcome, Proxy, TLS_INSIDE_CONNECT,
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
const fn fatal_alert(description: u8) -> [u8; 7] {
    [0x15, 0x03, 0x03, 0x00, 0x02, 0x02, description]
}

/// Alerts (RFC 8446 section 6.2).
const HANDSHAKE_FAILURE: u8 = 40;
const ACCESS_DENIED: u8 = 49;
const PROTOCOL_VERSION: u8 = 70;

/// A connection on which nothing is under way.
struct Parked {
    transport: Transport,
    listener: ListenerContext,
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
    while speaks(&parked.transport, context, until).await {
        // In a box of its own, which is gone while the client is parked.
        let Some((next, served)) = Box::pin(Session::new(parked, context).run(!has_spoken)).await else { return };
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
        Self { transport, listener: ListenerContext { original, ..context.listener.clone() } }
    }
}

/// Waits for a parked client to speak; false once its time is over, or the process is about to end.
async fn speaks(transport: &Transport, context: &SessionContext, until: Instant) -> bool {
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
struct Session<'a> {
    client: Connection,
    listener: ListenerContext,
    context: &'a SessionContext,
    bound: Option<BoundUpstream>,
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
}

impl<'a> Session<'a> {
    fn new(parked: Parked, context: &'a SessionContext) -> Self {
        let client = Connection::new(parked.transport, context.proxy.buffers().clone());
        Self { client, listener: parked.listener, context, bound: None }
    }

    /// Serves requests until the connection ends, or is to be parked; then with whether there were any.
    async fn run(mut self, is_first: bool) -> Option<(Parked, bool)> {
        let mut served = false;
        loop {
            let head = match self.next(is_first && !served).await {
                Next::Head(head) => head,
                Next::Park => {
                    let parked = Parked { transport: self.client.into_transport(), listener: self.listener };
                    return Some((parked, served));
                }
                Next::End => {
                    self.client.into_transport().end_in_order();
                    return None;
                }
                Next::Refuse(failure) => {
                    self.refuse(&failure).await;
                    return None;
                }
            };
            served = true;
            let Self { client, listener, context, bound } = &mut self;
            match context.proxy.exchange(listener, client, bound, head, || context.is_stopping()).await {
                Outcome::KeepAlive => {}
                Outcome::Close { last } => {
                    self.client.close(last).await;
                    return None;
                }
                // The connection ends by RST when it is dropped.
                Outcome::Reset => return None,
                Outcome::Inside(authority) => self.listener.tunnel = Some(authority),
            }
        }
    }

    /// The next head, or what comes instead.
    async fn next(&mut self, is_first: bool) -> Next {
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
            Ok(Err(NoHead::Bad(error))) => Next::Refuse(self.bad_head(error, is_first)),
            Ok(Err(NoHead::Closed | NoHead::Broken(_))) => Next::End,
            Err(true) if self.client.is_in_head() => Next::Refuse(Failure::HeadTimeout),
            Err(true) if self.bound.is_none() => Next::Park,
            Err(_) => Next::End,
        }
    }

    /// Why a head cannot be read: perhaps since the client does not speak HTTP/1. `is_first`: nothing came before it.
    fn bad_head(&self, error: HeadError, is_first: bool) -> Failure {
        if error == HeadError::TlsHandshake && self.listener.tunnel.is_some() {
            return Failure::ConnectRefused(TLS_INSIDE_CONNECT);
        }
        if !is_first || matches!(error, HeadError::Framing(_) | HeadError::TooLarge | HeadError::TooManyFields) {
            return Failure::Head(error);
        }
        let own = || self.client.peer().tcp().filter(|client| self.context.proxy.own_sockets().is_own(*client));
        match identify(self.client.input()) {
            NotHttp::Tls(name) => match own() {
                Some(from) => Failure::OwnConnection { from },
                None => Failure::NotHttp(NotHttp::Tls(name)),
            },
            NotHttp::Other(_) if self.listener.original.is_none() => Failure::Head(error),
            not_http => Failure::NotHttp(not_http),
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
fn alert(failure: &Failure) -> Option<u8> {
    match failure {
        Failure::ConnectRefused(TLS_INSIDE_CONNECT) => Some(ACCESS_DENIED),
        Failure::NotHttp(NotHttp::Tls(_)) | Failure::OwnConnection { .. } => Some(HANDSHAKE_FAILURE),
        Failure::NotHttp(NotHttp::SslV2Hello) => Some(PROTOCOL_VERSION),
        _ => None,
    }
}
