//! Choose a connection, send a request, wait for the head of the response; and repeat that where it is provably
//! harmless (RFC 9112 section 9.3.1).

use std::{future::poll_fn, pin::pin, rc::Rc, task::Poll, time::Duration};

use tokio::time::Instant;

use crate::{
    connect::{
        Verified,
        error::ConnectError,
        pool::Slot,
        upstream::{NoResponse, UpstreamConnection},
    },
    http1::{Version, conn::Connection, head::ResponseHead},
    metrics::OpenConnection,
    tls::failure::HandshakeFailure,
};

use super::{
    Proxy,
    context::{Ended, RequestContext},
    failure::Failure,
    heads,
    relay::{NoHead, Patience, Relay},
    upload::Upload,
};

/// More interim responses than this before one response are no help to anybody.
const MOST_INTERIMS: u32 = 64;

/// Connecting has limits of its own, all of them sooner.
const NEVER: Duration = Duration::from_secs(86_400 * 365);

/// A response's head, and the connection that it came by.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) head: ResponseHead,
    pub(super) upstream: Box<UpstreamConnection>,
    pub(super) reused: bool,
    /// The event's id, where the peer was refused and that was only reported.
    pub(super) bypassed: Option<String>,
}

/// One request to one upstream, as it is sent and sent again.
#[derive(Debug)]
pub(super) struct Request {
    /// The head, as it is sent.
    pub(super) head: Vec<u8>,
    pub(super) to_head: bool,
    pub(super) idempotent: bool,
}

fn refused(refusal: Rc<HandshakeFailure>) -> Failure {
    Failure::Connect(ConnectError::Handshake(refusal))
}

/// Why an attempt brought no response.
enum Unanswered {
    /// Nothing that a repeat could change.
    Ended(Ended),
    /// The connection broke before one byte of a response, and a repeat is harmless.
    Repeat,
}

impl Proxy {
    /// Connects, for as long as the client waits for it.
    pub(super) async fn connect_for(&self, client: &mut Connection, slot: &Slot) -> Result<Verified, Ended> {
        let end = {
            let mut connecting = pin!(self.connector.connect(&slot.upstream));
            poll_fn(|cx| match connecting.as_mut().poll(cx) {
                Poll::Ready(end) => Poll::Ready(Some(end)),
                Poll::Pending => {
                    // For its ticks: a reset behind a body that waits has no event of its own.
                    let _ = client.poll_deadline(cx, Instant::now() + NEVER);
                    client.poll_reset(cx).map(|()| None)
                }
            })
            .await
            .ok_or(Ended::ClientGone)?
        };
        self.observe(slot, &end);
        Ok(end.map_err(Failure::Connect)?)
    }

    /// A verified connection, counted as one of its upstream's for as long as it is open.
    pub(super) fn upstream_connection(&self, slot: &Slot, verified: Verified) -> Box<UpstreamConnection> {
        let mut connection = UpstreamConnection::new(verified, self.buffers().clone());
        connection.count_open(OpenConnection::new(&slot.metrics.shared.connections));
        connection
    }
}

impl RequestContext<'_> {
    /// Sends a request on a kept connection if there is one, and on a new one if there is none, or if the kept one
    /// turned out dead before anything came.
    pub(super) async fn send(
        &mut self,
        slot: &mut Rc<Slot>,
        request: &Request,
        upload: &mut Upload,
    ) -> Result<Answered, Ended> {
        let mut bypassed = None;
        let mut kept = self.take_bound(slot).or_else(|| slot.take());
        loop {
            let was_kept = kept.is_some();
            let upstream = match kept.take() {
                Some(upstream) => upstream,
                None => {
                    let verified = self.proxy.connect_for(self.client, slot).await?;
                    self.proxy.upstream_connection(slot, verified)
                }
            };
            // The settings may have changed meanwhile; what they would refuse is not sent on.
            let Some((current, mut upstream)) = slot.rebind(upstream) else {
                *slot = self.slot_again(slot)?;
                self.upstream = Some(slot.clone());
                continue;
            };
            *slot = current;
            if let Some(refused) = upstream.unreported() {
                let id = bypassed.insert(self.proxy.ids.next());
                upstream.count_use(self.proxy.record_bypassed(&refused, slot, &self.summary(), id));
            }
            // One that was opened to verify the upstream for the client's handshake has served nobody.
            let reused = upstream.has_served();
            upstream.begin_exchange(self.client.peer());
            match self.attempt(&mut upstream, request, upload, was_kept).await {
                Ok(head) => return Ok(Answered { head, upstream, reused, bypassed }),
                Err(Unanswered::Ended(ended)) => return Err(ended),
                Err(Unanswered::Repeat) => kept = slot.take(),
            }
        }
    }

    async fn attempt(
        &mut self,
        upstream: &mut UpstreamConnection,
        request: &Request,
        upload: &mut Upload,
        was_kept: bool,
    ) -> Result<ResponseHead, Unanswered> {
        let settings = &self.current.generation.settings;
        let broken = |error: NoResponse| Unanswered::Ended(Failure::UpstreamClosed(error.to_string()).into());
        let received = upstream.received();
        upstream.seal(&request.head).map_err(|error| broken(NoResponse::Broken(error)))?;
        let untouched = upload.is_untouched();
        if let Err(error) = upload.start(self.client, upstream) {
            return Err(Unanswered::Ended(Failure::ClientBody(error).into()));
        }
        let sealed = upstream.unsent();
        let limits = settings.response_head;
        let (mut interims, mut continued) = (0, false);
        let mut relay = Relay { client: self.client, upstream, upload, patience: Patience::of(settings) };
        let error = loop {
            match relay.head(limits, request.to_head, &mut continued, &mut self.record).await {
                Ok(head) if head.is_interim() => {
                    interims += 1;
                    if interims > MOST_INTERIMS {
                        let why = format!("more than {MOST_INTERIMS} interim responses came before it");
                        return Err(Unanswered::Ended(Failure::BadResponse(why).into()));
                    }
                    relay.upload.note_interim(head.status == 100);
                    // A client that was told to go on is not told so again.
                    let told = head.status == 100 && std::mem::take(&mut continued);
                    if self.request_version == Version::Http11 && !told {
                        let policies = &self.current.listeners[self.context.index].policies;
                        heads::write_interim(head, &settings.pseudonym, policies, relay.client.outbox());
                    }
                }
                Ok(head) => return Ok(head),
                Err(error) => break error,
            }
        };
        let nothing_sent = relay.upload.was_refused(sealed);
        // An orderly close is no part of a response; any other byte could be the beginning of one.
        let silent = relay.upstream.inbox().is_empty()
            && (matches!(error, NoHead::Upstream(NoResponse::Closed)) || relay.upstream.received() == received);
        match error {
            NoHead::ClientGone => Err(Unanswered::Ended(Ended::ClientGone)),
            NoHead::ClientBody(error) => Err(Unanswered::Ended(Failure::ClientBody(error).into())),
            NoHead::ClientStalled => Err(Unanswered::Ended(Failure::ClientStalled.into())),
            NoHead::Timeout(limit) => {
                let timeout = Failure::ResponseTimeout(limit);
                Err(Unanswered::Ended(relay.upstream.refusal(None).map_or(timeout, refused).into()))
            }
            NoHead::Upstream(NoResponse::Bad(error)) => {
                Err(Unanswered::Ended(Failure::BadResponse(error.to_string()).into()))
            }
            NoHead::Upstream(_)
                if was_kept
                    && silent
                    && untouched
                    && relay.upload.is_untouched()
                    && (request.idempotent || nothing_sent) =>
            {
                Err(Unanswered::Repeat)
            }
            NoHead::Upstream(error) => {
                let cause = if let NoResponse::Broken(error) = &error { Some(error) } else { None };
                match relay.upstream.refusal(cause) {
                    Some(refusal) => Err(Unanswered::Ended(refused(refusal).into())),
                    None => Err(broken(error)),
                }
            }
        }
    }
}
