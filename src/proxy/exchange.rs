//! One exchange, every step in order: admit the request, choose its upstream, send it, relay the response, record how
//! it ended.

use std::{borrow::Cow, rc::Rc};

use crate::{
    audit::tally::BadEnd,
    connect::{pool::Slot, upstream::UpstreamConnection},
    http1::{
        Version,
        conn::Connection,
        fields::{FieldName, Fields},
        head::{RequestHead, ResponseHead},
    },
    message::{
        authority::{Authority, Host},
        target::{Form, Target},
    },
    rewrite::Scopes,
};

use super::{
    ListenerContext, Proxy, Rejected, TLS_INSIDE_CONNECT,
    admission::admit,
    attempt::{Answered, Request},
    client_tls::ClientTlsError,
    context::{BoundUpstream, Destination, Ended, RequestContext},
    cookies,
    documents::{self, PassedBody},
    download::Download,
    failure::Failure,
    heads::{self, ResponseFit},
    links::{self, Arrival},
    record::ExchangeRecord,
    redirects::RedirectChain,
    relay::{Cut, Patience, Relay},
    respond::{LocalResponse, write_connected},
    settings::{HostPolicy, Service},
    terminate::check_permitted,
    tunnel::{Flow, Tunnel, TunnelError},
    upload::Upload,
};

/// Methods are at most so long: those of WebDAV and its kin have up to 20 letters.
const LONGEST_METHOD: usize = 64;

/// How a client's connection goes on behind an exchange.
#[derive(Debug)]
pub enum Outcome {
    /// With the next request.
    KeepAlive,
    /// It ends in order; with `last`, the client has said that nothing follows.
    Close { last: bool },
    /// It ends by RST: something was cut.
    Reset,
    /// With HTTP again, inside a tunnel to this authority.
    Inside(Authority),
}

/// Why CONNECT is refused where the address that the client connected to is the destination.
const CONNECT_TO_ADDRESS: &str =
    "CONNECT is for forward listeners; at this one a request goes to the address that the client connected to";

/// Why a response is not passed on whose end is that of the connection.
const UNTELLABLE: &str =
    "an HTTP/1.0 client on a UNIX socket could not tell its end from a cut, since it has no Content-Length";

/// What follows from a request's head before it is changed.
#[derive(Clone, Copy, Debug)]
struct RequestFacts {
    keeps_alive: bool,
    asks_to_close: bool,
    websocket: bool,
    to_head: bool,
    /// A body with a method that has none by its meaning (RFC 9110 section 9.3): an upstream may take it for the next
    /// request.
    odd_body: bool,
    binds: bool,
}

impl RequestFacts {
    fn of(head: &RequestHead) -> Self {
        let method = head.method();
        let websocket = head.version == Version::Http11 && head.length.is_empty() && method == "GET";
        Self {
            keeps_alive: head.keeps_alive(),
            asks_to_close: head.version == Version::Http11 && head.asks_to_close(),
            websocket: websocket && heads::is_websocket(&head.fields),
            to_head: method == "HEAD",
            odd_body: !head.length.is_empty() && ["GET", "HEAD", "DELETE", "OPTIONS"].contains(&method),
            binds: heads::binds_connection(&head.fields),
        }
    }
}

impl Proxy {
    /// Serves one request to its end. `draining`: whether the process is about to end.
    pub async fn exchange(
        &self,
        context: &ListenerContext,
        client: &mut Connection,
        bound: &mut Option<BoundUpstream>,
        head: RequestHead,
        draining: impl Fn() -> bool,
    ) -> Outcome {
        let Some(mut exchange) = self.begin(context, client, bound, head) else { return Outcome::Reset };
        match exchange.run(draining).await {
            Ok(outcome) => exchange.finish(outcome),
            Err(Ended::ClientGone) => Outcome::Reset,
            Err(Ended::Failed(failure)) => exchange.refuse(&failure).await,
        }
    }

    /// Answers the first request of a client whose TLS handshake found its upstream refused: only now can it be told.
    pub async fn refuse_request(
        &self,
        context: &ListenerContext,
        client: &mut Connection,
        head: RequestHead,
        rejected: Rejected,
    ) -> Outcome {
        let mut bound = None;
        let Some(mut exchange) = self.begin(context, client, &mut bound, head) else { return Outcome::Reset };
        if let Some(slot) = &rejected.slot {
            exchange.record.upstream(slot);
        }
        exchange.upstream = rejected.slot;
        exchange.refuse(&rejected.failure).await
    }

    fn begin<'a>(
        &'a self,
        context: &'a ListenerContext,
        client: &'a mut Connection,
        bound: &'a mut Option<BoundUpstream>,
        head: RequestHead,
    ) -> Option<RequestContext<'a>> {
        let current = self.current();
        let listener = current.listeners.get(context.index)?;
        let record = ExchangeRecord::begin(client, &listener.metrics, head.method(), head.target(), || self.ids.next());
        Some(RequestContext {
            proxy: self,
            context,
            client,
            request_version: head.version,
            head,
            destination: Destination::Route,
            record,
            bound,
            upstream: None,
            current,
        })
    }
}

impl RequestContext<'_> {
    async fn run(&mut self, draining: impl Fn() -> bool) -> Result<(Outcome, bool), Ended> {
        let target = self.admit()?;
        if target.form == Form::Authority {
            return self.connect(target).await;
        }
        self.destination = Destination::of(self.listener(), &target, self.context)?;
        let slot = self.choose(&self.current)?;
        self.upstream = Some(slot.clone());
        self.record.upstream(&slot);
        if self.head.method() == "OPTIONS" && self.head.fields.contains(FieldName::MaxForwards) {
            let left = max_forwards(&self.head.fields).ok_or(Failure::MaxForwards)?;
            let Some(left) = left.checked_sub(1) else { return self.respond(LocalResponse::options()).await };
            self.head.fields.set(FieldName::MaxForwards, b"Max-Forwards", left.to_string().as_bytes());
        }
        self.forward(target, slot, draining).await
    }

    /// Reads what is asked for, and refuses what is not passed on wherever it should go.
    fn admit(&self) -> Result<Target, Failure> {
        let (settings, head) = (&self.current.generation.settings, &self.head);
        if head.method().len() > LONGEST_METHOD {
            return Err(Failure::LongMethod);
        }
        if head.target().len() > settings.target_bytes {
            return Err(Failure::LongTarget(settings.target_bytes));
        }
        let target = self.target().map_err(Failure::Target)?;
        if head.method() == "TRACE" {
            return Err(Failure::Method);
        }
        if settings.pseudonym.is_in(&head.fields) {
            return Err(Failure::Loop);
        }
        if target.form != Form::Authority {
            let listener = self.listener();
            let tls = self.context.tls.is_some();
            if listener.tls && !tls {
                return Err(Failure::ClientTls(ClientTlsError::Plain));
            }
            admit(listener, &target, head, tls).map_err(Failure::Admission)?;
        }
        Ok(target)
    }

    /// CONNECT: plain HTTP inside is served like requests by Host, and TLS where there is a local CA. Which of the two it
    /// is, is seen only after the answer; to port 443 nobody speaks plain HTTP, so there the answer can still tell why
    /// not.
    async fn connect(&mut self, target: Target) -> Result<(Outcome, bool), Ended> {
        match self.listener().service {
            Service::Fixed(_) => return Err(Failure::ConnectOnRoute.into()),
            Service::Original(_) => return Err(Failure::ConnectRefused(CONNECT_TO_ADDRESS).into()),
            Service::Forward => {}
        }
        if self.context.tunnel.is_some() {
            return Err(Failure::ConnectRefused("CONNECT inside CONNECT is not served").into());
        }
        let authority = target.authority.ok_or(Failure::NoDestination)?;
        match self.current.generation.minter.clone() {
            // Before the answer, which is where a client shows why it is refused.
            Some(minter) if self.must_mean_tls(&authority) => {
                self.destination = Destination::Asked { authority: authority.clone(), https: true };
                let slot = self.choose(&self.current)?;
                self.upstream = Some(slot.clone());
                self.record.upstream(&slot);
                check_permitted(minter.ca(), &authority.host)?;
                self.proxy.verify_upstream(&slot, self.client).await?;
            }
            None if authority.port == Some(443) => return Err(Failure::ConnectRefused(TLS_INSIDE_CONNECT).into()),
            Some(_) | None => {}
        }
        write_connected(self.client.outbox(), self.request_version);
        self.record.answered_here(200);
        self.flush().await?;
        Ok((Outcome::Inside(authority), true))
    }

    /// Whether CONNECT to an authority can be judged before its client has spoken: plain HTTP would go to the same
    /// place. To an address, clients of 2012 send CONNECT for plain HTTP, too, whose Host has the name.
    fn must_mean_tls(&self, authority: &Authority) -> bool {
        let is_address = matches!(authority.host, Host::Ip(_));
        self.current.generation.routes.is_same_for_tls(authority) && (!is_address || authority.port == Some(443))
    }

    /// A response of our own to a request that is served.
    async fn respond(&mut self, response: LocalResponse) -> Result<(Outcome, bool), Ended> {
        let keeps_alive = self.head.keeps_alive() && self.head.length.is_empty();
        response.write_to(self.client.outbox(), self.request_version, false, !keeps_alive);
        self.record.answered_here(response.status.as_u16());
        self.flush().await?;
        self.record.count(0, response.length() as u64);
        Ok((if keeps_alive { Outcome::KeepAlive } else { Outcome::Close { last: false } }, true))
    }

    /// Passes the request to the upstream and the response back.
    async fn forward(
        &mut self,
        target: Target,
        mut slot: Rc<Slot>,
        draining: impl Fn() -> bool,
    ) -> Result<(Outcome, bool), Ended> {
        let current = self.current.clone();
        let settings = &current.generation.settings;
        let policies = &self.listener().policies;
        // Another authority would have to be resolved here.
        let follows = policies.follow_redirects && !matches!(self.listener().service, Service::Original(_));
        let mut facts = RequestFacts::of(&self.head);
        facts.binds |= self.bound.is_some();
        let held =
            self.request_version == Version::Http11 && self.head.fields.has_token(FieldName::Expect, "100-continue");
        let arrival = Arrival::of(self.context, &target);
        let rewrites = if links::is_renamed(self.listener(), arrival) { policies.rewrite } else { Scopes::default() };
        let asked = arrival.asked;
        let host = match (policies.host, asked) {
            (HostPolicy::Client, Some(authority)) => Cow::Owned(authority.to_string()),
            _ => Cow::Borrowed(slot.host_field.as_str()),
        };
        links::globalize(&mut self.head.fields, arrival, &slot.upstream);
        if !rewrites.is_empty() {
            documents::narrow_encodings(&mut self.head.fields);
        }
        let idempotent = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].contains(&self.head.method());
        let head = heads::prepare_request(&mut self.head, &target, &host, facts.websocket, &settings.pseudonym);
        let mut chain = follows.then(|| RedirectChain::begin(&self.head, &target, &slot.upstream)).flatten();
        let request = Request { head, to_head: facts.to_head, idempotent };
        let mut upload = Upload::new(self.head.length, held);
        let mut answered = self.send(&mut slot, &request, &mut upload).await?;
        if let Some(chain) = &mut chain {
            answered = Box::pin(self.follow(chain, answered, &mut slot, &mut upload, arrival, facts.binds)).await?;
        }
        self.upstream = Some(slot.clone());
        let followed = chain.as_deref().and_then(RedirectChain::followed);
        let mut body = PassedBody::AsItCame;
        if !rewrites.is_empty() && documents::may_have_urls(&answered.head) {
            body = Box::pin(self.rewrite(&mut answered, facts.to_head, arrival, &mut upload)).await?;
        }
        let response = self.localized(answered, facts, followed, arrival, &upload, draining)?;
        if response.switches {
            return self.tunnel(response).await;
        }
        self.relay(response, body, facts, &slot, &mut upload).await
    }

    /// Makes the response's head one for the client, and puts it where it waits to be written.
    fn localized(
        &mut self,
        answered: Answered,
        facts: RequestFacts,
        followed: Option<&crate::message::url::Url>,
        arrival: Arrival<'_>,
        upload: &Upload,
        draining: impl Fn() -> bool,
    ) -> Result<PassedResponse, Failure> {
        let Answered { mut head, upstream, reused, bypassed } = answered;
        let switches = head.status == 101;
        if switches && !(facts.websocket && heads::is_websocket(&head.fields)) {
            return Err(Failure::BadResponse("it switches protocols though the client did not ask for that".into()));
        }
        let upstream_keeps_alive = head.keeps_alive();
        let binds = facts.binds || heads::binds_connection(&head.fields);
        self.record.responded(&head, upstream.peer(), reused);
        self.record.recorded_as(bypassed);
        let is_fixed = matches!(self.listener().service, Service::Fixed(_));
        links::localize(&mut head.fields, followed, &self.current, arrival);
        cookies::localize(&mut head.fields, self.context.tls.is_none(), is_fixed);
        // A response that is early ends the connection, since the rest of the request is read by nobody; a client that
        // would send its next one all the same must know (RFC 9112 section 9.6).
        let keep_alive = facts.keeps_alive && upload.is_sent() && !draining();
        let fit = heads::sanitize_response(
            &mut head,
            self.request_version,
            keep_alive,
            switches,
            &self.current.generation.settings.pseudonym,
            &self.listener().policies,
        );
        if fit.ends_with_connection && !self.client.can_reset() {
            return Err(Failure::BadResponse(UNTELLABLE.into()));
        }
        heads::write_response(&head, self.request_version, self.client.outbox());
        Ok(PassedResponse { head, upstream, fit, switches, upstream_keeps_alive, binds })
    }

    /// Relays the bodies.
    async fn relay(
        &mut self,
        response: PassedResponse,
        body: PassedBody,
        facts: RequestFacts,
        slot: &Rc<Slot>,
        upload: &mut Upload,
    ) -> Result<(Outcome, bool), Ended> {
        let PassedResponse { head, mut upstream, fit, upstream_keeps_alive, binds, .. } = response;
        let mut download = body.into_download(&head, fit.coding, self.client.outbox());
        let patience = Patience::of(&self.current.generation.settings);
        let mut relay = Relay { client: self.client, upstream: &mut upstream, upload, patience };
        let end = relay.bodies(&mut download, &mut self.record).await;
        if let Err(cut) = end {
            self.cut(&cut, &download, slot);
            return Ok((Outcome::Reset, false));
        }
        let reusable = upload.is_sent()
            && upstream_keeps_alive
            && !download.ended_with_connection()
            && !facts.odd_body
            && upstream.inbox().is_empty();
        if reusable {
            upstream.end_exchange();
            if binds {
                self.bind(slot, upstream);
            } else {
                slot.put(upstream);
            }
        } else if upload.is_sent() {
            upstream.end_exchange();
            upstream.close();
        }
        let outcome = match fit.keep_alive {
            true => Outcome::KeepAlive,
            false => Outcome::Close { last: facts.asks_to_close && upload.is_sent() },
        };
        Ok((outcome, true))
    }

    /// The response does not come to its end: logged, whether or not there is an access log.
    fn cut(&mut self, cut: &Cut, download: &Download, slot: &Slot) {
        let class = match cut {
            Cut::ClientGone | Cut::ClientNotReading(_) => return,
            Cut::ClientBody(_) => "request_body",
            Cut::ClientStalled(_) => "request_timeout",
            Cut::Body(_) | Cut::Stalled(_) => "response_incomplete",
        };
        self.record.class(class);
        let counters = &slot.metrics.shared;
        match cut {
            Cut::Body(_) | Cut::Stalled(_) => counters.truncated_responses.add(1),
            _ => counters.truncated_requests.add(1),
        }
        self.proxy.audit.tally().count(BadEnd::Cut, class, &slot.upstream.authority());
        tracing::warn!(
            event = "response-incomplete",
            request = self.record.id(),
            upstream = &*slot.authority,
            received = download.content_received(),
            expected = download.expected(),
            error = %cut,
            "the upstream's response was cut; the client's connection is reset"
        );
    }

    /// Carries bytes behind a 101.
    async fn tunnel(&mut self, response: PassedResponse) -> Result<(Outcome, bool), Ended> {
        let mut upstream = response.upstream;
        let limit = self.current.generation.settings.tunnel;
        let (up, down) = (Flow::default(), Flow::default());
        let mut tunnel = Tunnel { client: self.client, upstream: &mut upstream, limit, up, down };
        match tunnel.carry(&mut self.record).await {
            Ok(()) => {
                upstream.end_exchange();
                Ok((Outcome::Close { last: true }, true))
            }
            Err(error) => {
                if matches!(error, TunnelError::Silent) {
                    self.record.class("tunnel_timeout");
                }
                Ok((Outcome::Reset, false))
            }
        }
    }

    /// The exchange has come to its end.
    fn finish(self, (outcome, whole): (Outcome, bool)) -> Outcome {
        if whole {
            self.record.whole();
        } else {
            self.record.interrupted();
        }
        if matches!(outcome, Outcome::KeepAlive) {
            self.client.recycle(self.head.fields.into_buffer());
        }
        outcome
    }
}

/// A response whose head is on its way to the client.
struct PassedResponse {
    head: ResponseHead,
    upstream: Box<UpstreamConnection>,
    fit: ResponseFit,
    switches: bool,
    upstream_keeps_alive: bool,
    binds: bool,
}

/// How many more hops a request may take (RFC 9110 section 7.6.2); `None` where that is not one number.
fn max_forwards(fields: &Fields) -> Option<u32> {
    let mut values = fields.values(FieldName::MaxForwards);
    let (value, None) = (values.next()?, values.next()) else { return None };
    let digits = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}
