//! The way of one request: read its target, choose its upstream, get a verified connection, exchange,
//! and answer; or say why not.

pub mod access;
pub mod body;
pub mod client;
pub mod failure;
mod forward;
pub(crate) mod ids;
mod interim;
mod redirects;
pub mod respond;
mod stall;
pub mod tunnel;

use std::{borrow::Cow, cell::RefCell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{ALLOW, MAX_FORWARDS},
};
use hyper::body::{Body as _, Incoming};

use crate::{
    audit::{event, sink::AuditSink},
    clock::Clock,
    connect::{
        Connector,
        error::ConnectError,
        pool::{PoolLimits, ResponseLimits, Slot},
    },
    message::{
        authority::Authority,
        fields::{self, Pseudonym},
        target::{self, Form, Target},
    },
    route::{table::Routes, upstream::Upstream},
    tls::{failure::HandshakeFailure, presented::escape},
};

use self::{
    access::Access,
    body::{Own, ResponseBody, Upload},
    client::{After, ClientHandle, Exchange},
    failure::Failure,
    ids::Ids,
    respond::{Answer, AnswerPolicy, Detail},
};

/// Where the clients of a listener are taken.
#[derive(Clone, Debug)]
pub enum Service {
    /// Always to one upstream.
    Fixed(Box<Upstream>),
    /// Where each request says.
    Forward,
}

/// What Host an upstream sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPolicy {
    /// The client's own, so that links which the upstream builds lead back to the client's address.
    Client,
    /// The upstream's.
    #[default]
    Upstream,
}

/// How response field names are written to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldCase {
    /// In lower case.
    Lower,
    /// As the upstream wrote them.
    #[default]
    Preserve,
    /// With a capital after each hyphen.
    Title,
}

/// What the way of a request depends on.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// How failures are answered.
    pub answer: AnswerPolicy,
    /// How much is said.
    pub detail: Detail,
    /// What Host the upstream sees.
    pub host: HostPolicy,
    /// How response field names are written.
    pub field_case: FieldCase,
    /// Whether links to upstreams that are served here lead the client to them by way of this proxy.
    pub rewrite_redirects: bool,
    /// Whether redirects of GET and HEAD are followed here.
    pub follow_redirects: bool,
    /// Silence in a body, either way, that ends it.
    pub request_body: Duration,
    /// As above, for responses.
    pub response_body: Duration,
    /// From the end of the request to the head of the response.
    pub response: Duration,
    /// Silence both ways, once an upstream has switched protocols.
    pub tunnel: Duration,
    /// Bytes of a request's target.
    pub target_bytes: usize,
    /// Limits on responses.
    pub response_limits: ResponseLimits,
    /// Limits on idle connections.
    pub pool: PoolLimits,
    /// This proxy's name in Via.
    pub pseudonym: Pseudonym,
}

/// All that a reload replaces, whole: requests keep the one that they began with.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Counts up from 1.
    pub number: u64,
    /// What it was made for.
    pub why: &'static str,
    /// The way of a request.
    pub settings: ProxySettings,
    /// From destinations to upstreams.
    pub routes: Arc<Routes>,
    /// Where the clients of each listener are taken.
    pub services: Vec<Service>,
}

impl Generation {
    /// What an upstream of an older generation is in this one; None where it is not the same place any more,
    /// or may not be gone to.
    fn again(&self, before: &Upstream) -> Option<Upstream> {
        let fixed = self.services.iter().filter_map(|service| match service {
            Service::Fixed(upstream) => Some((**upstream).clone()),
            Service::Forward => None,
        });
        let forwarded = self.routes.again(before);
        fixed.chain(forwarded).find(|upstream| upstream.is_but_for_tls(before))
    }
}

/// The proxy of one worker thread.
pub struct Proxy {
    generation: RefCell<Rc<Generation>>,
    connector: Connector,
    audit: Arc<AuditSink>,
    clock: Clock,
    slots: RefCell<HashMap<Upstream, Rc<Slot<Upload>>>>,
    ids: Ids,
}

/// A listener, as a request sees it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in logs.
    pub name: Rc<str>,
    /// Its place among [`Generation::services`].
    pub place: usize,
    /// What CONNECT named, inside a tunnel.
    pub tunnel: Option<Authority>,
}

/// What is passed on, for `Allow`: every method but TRACE, and but CONNECT, which is not passed on but served.
pub const PASSED_ON: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// More upstreams than this are forgotten and made anew; a client cannot fill memory with names.
const MOST_SLOTS: usize = 4096;

/// Why TLS inside CONNECT is refused, and what to do.
pub const TLS_INSIDE: &str = "TLS inside CONNECT is not served, since it could not be verified here; let the tool ask for `http://`, which becomes verified https";

/// The client's connection ends without an answer.
#[derive(Debug)]
pub struct Abort;

impl std::fmt::Display for Abort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is reset, as the answer policy has it")
    }
}

impl std::error::Error for Abort {}

impl Proxy {
    /// The proxy of the calling thread.
    pub fn new(generation: Generation, connector: Connector, audit: Arc<AuditSink>, clock: Clock) -> Self {
        let (generation, slots) = (RefCell::new(Rc::new(generation)), RefCell::default());
        Self { generation, connector, audit, clock, slots, ids: Ids::new() }
    }

    /// Goes by newer settings from now on. Idle connections are judged again by them, and closed where they do
    /// not pass; busy ones are judged when they are done.
    pub fn adopt(&self, generation: Generation) {
        let generation = Rc::new(generation);
        self.generation.replace(generation.clone());
        for (before, slot) in self.slots.take() {
            let next = generation.again(&before).map(|upstream| self.slot_of(Cow::Owned(upstream), &generation));
            let closed = slot.retire(next);
            if closed > 0 {
                tracing::info!(
                    event = "connections-closed",
                    upstream = %before,
                    closed,
                    generation = generation.number,
                    "idle connections do not pass under the new settings and are closed"
                );
            }
        }
    }

    fn generation(&self) -> Rc<Generation> {
        self.generation.borrow().clone()
    }

    /// Answers one request.
    ///
    /// # Errors
    /// [`Abort`], where the answer is a reset.
    pub async fn handle(
        &self,
        entry: &Entry,
        client: &ClientHandle,
        request: Request<Incoming>,
    ) -> Result<Response<ResponseBody>, Abort> {
        let has_body = !request.body().is_end_stream();
        let exchange = client.exchange(!has_body && fields::is_last(request.headers(), request.version()));
        let (uri, method) = (request.uri().clone(), request.method().clone());
        let asked = Asked { method: &method, uri: &uri, version: request.version() };
        let mut access = Access::begin(client, &entry.name, &asked, || self.ids.next());
        let mut upstream = None;
        let way = Way { entry, client, exchange: &exchange, has_body, asked, generation: self.generation() };
        let served = self.serve(&way, request, &mut upstream, &mut access).await;
        let answer = served.or_else(|failure| self.answer(&failure, upstream.as_deref(), &way, access));
        client.answer_owed();
        answer
    }

    async fn serve(
        &self,
        way: &Way<'_>,
        mut request: Request<Incoming>,
        chosen: &mut Option<Rc<Slot<Upload>>>,
        access: &mut Access,
    ) -> Result<Response<ResponseBody>, Failure> {
        let bare = way.client.has_bare_target();
        within_limits(&request, &way.generation.settings)?;
        let target = target::read(&request).map_err(Failure::Target)?;
        if request.method() == Method::TRACE {
            return Err(Failure::Method);
        }
        let target = if bare && target.form == Form::Absolute { target.without_path() } else { target };
        if !fields::chunked_only(request.headers()) {
            return Err(Failure::Framing);
        }
        if way.generation.settings.pseudonym.is_in(request.headers()) {
            return Err(Failure::Loop);
        }
        if target.form == Form::Authority {
            return Self::open_tunnel(way, &target, access);
        }
        let slot = chosen.insert(self.slot(way.entry, &target, &way.generation)?);
        access.upstream(|| slot.upstream.authority());
        if request.method() == Method::OPTIONS
            && let Some(left) = fields::max_forwards(request.headers()).map_err(Failure::MaxForwards)?
        {
            let Some(left) = left.checked_sub(1) else { return Ok(Self::answer_options(way, access)) };
            request.headers_mut().insert(MAX_FORWARDS, left.into());
        }
        self.exchange(slot, target, way, request, access).await
    }

    /// CONNECT: plain HTTP inside is served like by-Host requests. That it is plain is seen only after
    /// the answer; to port 443 nobody speaks plain HTTP, so there the answer can still say why not.
    fn open_tunnel(way: &Way<'_>, target: &Target, access: &mut Access) -> Result<Response<ResponseBody>, Failure> {
        if !matches!(way.generation.services.get(way.entry.place), Some(Service::Forward)) {
            return Err(Failure::ConnectRefused("CONNECT has no meaning on a fixed route"));
        }
        if way.entry.tunnel.is_some() {
            return Err(Failure::ConnectRefused("CONNECT inside CONNECT is not served"));
        }
        if target.authority.as_ref().and_then(|to| to.port) == Some(443) {
            return Err(Failure::ConnectRefused(TLS_INSIDE));
        }
        way.client.goes_on(After::Inside);
        Ok(Self::say_ok(way, access))
    }

    /// OPTIONS that goes no further (RFC 9110 section 7.6.2): these are what is passed on from here.
    fn answer_options(way: &Way<'_>, access: &mut Access) -> Response<ResponseBody> {
        let mut answer = Self::say_ok(way, access);
        answer.headers_mut().insert(ALLOW, PASSED_ON);
        answer
    }

    /// A 200 of our own, with nothing in it.
    fn say_ok(way: &Way<'_>, access: &mut Access) -> Response<ResponseBody> {
        access.answered_here();
        let access = std::mem::replace(access, Access::none());
        Response::new(ResponseBody::Own(Own::new(String::new(), access, way.exchange.clone())))
    }

    fn slot(&self, entry: &Entry, target: &Target, generation: &Generation) -> Result<Rc<Slot<Upload>>, Failure> {
        let upstream = match generation.services.get(entry.place).ok_or(Failure::NoDestination)? {
            Service::Fixed(upstream) => Cow::Borrowed(upstream.as_ref()),
            Service::Forward => {
                let authority = target.authority.as_ref().or(entry.tunnel.as_ref());
                let authority = authority.ok_or(Failure::NoDestination)?;
                Cow::Owned(generation.routes.select(authority, target.https).map_err(Failure::Route)?)
            }
        };
        Ok(self.slot_of(upstream, generation))
    }

    fn slot_of(&self, upstream: Cow<'_, Upstream>, generation: &Generation) -> Rc<Slot<Upload>> {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get(&*upstream) {
            return slot.clone();
        }
        let upstream = upstream.into_owned();
        if slots.len() >= MOST_SLOTS {
            // One that is in use has to be there when the settings change.
            slots.retain(|_, slot| !slot.is_empty() || Rc::strong_count(slot) > 1);
        }
        let slot = Rc::new(Slot::new(upstream.clone(), generation.settings.pool, generation.number));
        slots.insert(upstream, slot.clone());
        slot
    }

    /// Closes idle connections whose time is over; called every few seconds.
    pub fn sweep(&self) {
        for slot in self.slots.borrow().values() {
            slot.sweep();
        }
    }

    /// Records a failure, and answers it as the policy says.
    fn answer(
        &self,
        failure: &Failure,
        slot: Option<&Slot<Upload>>,
        way: &Way<'_>,
        mut access: Access,
    ) -> Result<Response<ResponseBody>, Abort> {
        let id = self.ids.next();
        let words = failure.words();
        let upstream = slot.map(|slot| slot.upstream.authority());
        self.record(failure, slot, way, &id);
        let settings = &way.generation.settings;
        let answer = Answer::to(failure, upstream.as_deref(), &id, settings.answer, settings.detail);
        access.refused(&id, answer.status.map_or(0, |status| status.as_u16()), words.class);
        if answer.status.is_none() {
            way.client.reset();
            access.finish(0, 0, false);
        }
        answer.into_response(|text| Own::new(text, access, way.exchange.clone())).ok_or(Abort)
    }

    fn record(&self, failure: &Failure, slot: Option<&Slot<Upload>>, way: &Way<'_>, id: &str) {
        match (failure, slot) {
            (Failure::Connect(ConnectError::Handshake(refused)), Some(slot)) => {
                self.record_handshake(refused, slot, way, id);
            }
            (failure, slot) => {
                let upstream = slot.map(|slot| slot.upstream.authority());
                tracing::warn!(
                    event = "request-failed",
                    request = id,
                    class = failure.words().class,
                    upstream,
                    client = %way.client.address(),
                    listener = %way.entry.name,
                    method = %way.asked.method,
                    path = escape(&way.asked.path()),
                    "{failure}"
                );
            }
        }
    }

    fn record_handshake(&self, refused: &HandshakeFailure, slot: &Slot<Upload>, way: &Way<'_>, id: &str) {
        self.audit.record(&event::Refused {
            id,
            time: self.clock.now(),
            upstream: &slot.upstream,
            refused,
            client: way.client.address(),
            listener: &way.entry.name,
            method: way.asked.method.as_str(),
            path: &way.asked.path(),
            generation: slot.generation,
        });
    }

    /// Records a head that did not come in time, or could not be read, and gives the bytes to answer it
    /// with; None for a reset.
    pub fn answer_head(&self, failure: &Failure, entry: &Entry, client: &ClientHandle) -> Option<Vec<u8>> {
        let id = self.ids.next();
        tracing::warn!(
            event = "request-failed",
            request = id,
            class = failure.words().class,
            client = %client.address(),
            listener = %entry.name,
            upstream = entry.tunnel.as_ref().map(tracing::field::display),
            "{failure}"
        );
        let settings = &self.generation().settings;
        Answer::to(failure, None, &id, settings.answer, settings.detail).into_bytes()
    }

    /// How response field names are written.
    pub fn field_case(&self) -> FieldCase {
        self.generation.borrow().settings.field_case
    }
}

/// Whose request is on its way.
struct Way<'a> {
    entry: &'a Entry,
    client: &'a ClientHandle,
    exchange: &'a Rc<Exchange>,
    /// The client may still be sending when it is answered.
    has_body: bool,
    asked: Asked<'a>,
    /// The settings that the request began with.
    generation: Rc<Generation>,
}

impl Way<'_> {
    /// Whether its client knows of responses before the response, and of switching protocols (RFC 9110 section 15.2).
    fn takes_interims(&self) -> bool {
        self.asked.version == Version::HTTP_11
    }
}

/// What the client asked, for the record: no field.
struct Asked<'a> {
    method: &'a Method,
    /// With query and tokens, which are for no record: [`Self::path`] is.
    uri: &'a Uri,
    version: Version,
}

impl Asked<'_> {
    /// The path without query and tokens.
    fn path(&self) -> String {
        target::without_tokens(self.uri.path())
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("generation", &self.generation).finish_non_exhaustive()
    }
}

fn within_limits(request: &Request<Incoming>, settings: &ProxySettings) -> Result<(), Failure> {
    let uri = request.uri();
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let target = authority + uri.path_and_query().map_or(0, |path| path.as_str().len());
    if target > settings.target_bytes {
        return Err(Failure::LongTarget(settings.target_bytes));
    }
    Ok(())
}

/// Makes the upstream's response head ours. `websocket` is whether it was asked to go on so.
fn dress(settings: &ProxySettings, head: &mut http::response::Parts, websocket: bool) -> Result<(), Failure> {
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !(websocket && fields::is_websocket(&head.headers)) {
        return Err(Failure::BadResponse("it switches protocols though nobody asked".into()));
    }
    if !fields::chunked_only(&head.headers) {
        return Err(Failure::BadResponse("its transfer coding is not chunked".into()));
    }
    if !fields::one_framing(&head.headers) {
        return Err(Failure::BadResponse("where its body ends can be read in two ways".into()));
    }
    fields::strip_response(&mut head.headers, switches);
    settings.pseudonym.append_via(&mut head.headers, head.version);
    head.version = http::Version::HTTP_11;
    if settings.field_case != FieldCase::Preserve {
        // What hyper remembers of the names' case goes; the reason phrase stays.
        let reason = head.extensions.remove::<hyper::ext::ReasonPhrase>();
        head.extensions.clear();
        if let Some(reason) = reason {
            head.extensions.insert(reason);
        }
    }
    Ok(())
}
