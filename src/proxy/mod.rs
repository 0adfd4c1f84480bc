//! The way of one request: read its target, choose its upstream, get a verified connection, relay, and record how it
//! ended; or say why not.

mod admission;
mod attempt;
pub mod client_tls;
mod context;
mod cookies;
mod documents;
mod download;
mod exchange;
mod facts;
pub mod failure;
mod heads;
pub(crate) mod ids;
mod links;
pub mod notices;
mod observe;
pub mod record;
mod redirects;
mod refuse;
mod relay;
pub mod respond;
pub mod settings;
mod slots;
mod terminate;
mod tunnel;
pub mod upload;

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
};

use crate::{
    audit::{event, sink::AuditSink, usage::BypassedUse},
    clock::Clock,
    connect::{Connector, OwnSockets, pool::Slot},
    http1::head::HeadLimits,
    message::authority::{Authority, Host},
    metrics::Metrics,
    tls::failure::HandshakeFailure,
    transport::ClientAddress,
};

use self::{
    context::Destination,
    failure::Failure,
    ids::Ids,
    observe::FailedRequest,
    respond::LocalResponse,
    settings::{BoundAddress, Generation, Listener, ListenerSettings},
    slots::Slots,
};

pub use self::{
    context::BoundUpstream,
    exchange::Outcome,
    terminate::{HelloFacts, Rejected, TlsTerms},
};

/// The proxy of one worker thread.
#[derive(Debug)]
pub struct Proxy {
    current: RefCell<Rc<Current>>,
    /// Where the listeners are bound, in the order of the settings.
    bound: Arc<[BoundAddress]>,
    connector: Connector,
    audit: Arc<AuditSink>,
    metrics: Arc<Metrics>,
    clock: Clock,
    slots: Slots,
    ids: Ids,
    /// Bytes of documents that are collected to be rewritten.
    collected: Cell<usize>,
}

/// The settings that requests begin with now.
#[derive(Debug)]
struct Current {
    generation: Generation,
    listeners: Vec<Listener>,
    /// The slots of destinations that clients chose and the policy of these settings allows.
    chosen: RefCell<HashMap<Destination, Rc<Slot>>>,
}

/// More destinations than this are forgotten and chosen again.
const MOST_CHOSEN: usize = 1024;

impl Current {
    fn new(generation: Generation, bound: &[BoundAddress], metrics: &Metrics) -> Self {
        let listener = |(settings, address): (&ListenerSettings, &BoundAddress)| Listener {
            metrics: metrics.listener(&settings.name),
            address: address.clone(),
            advertised: settings.advertised.clone(),
            service: settings.service.clone(),
            tls: settings.tls,
            policies: settings.policies.clone(),
            slot: OnceCell::new(),
        };
        let listeners = generation.listeners.iter().zip(bound).map(listener).collect();
        Self { generation, listeners, chosen: RefCell::default() }
    }

    /// Keeps what was chosen for the next request to the same destination.
    fn remember(&self, destination: &Destination, slot: &Rc<Slot>) {
        let mut chosen = self.chosen.borrow_mut();
        if chosen.len() >= MOST_CHOSEN {
            chosen.clear();
        }
        chosen.insert(destination.clone(), slot.clone());
    }
}

/// The listener that a client connection came by.
#[derive(Clone, Debug)]
pub struct ListenerContext {
    /// Its position among the listeners, which a reload does not change.
    pub index: usize,
    /// Where the client wanted to connect to, if it is known that this is not the listener.
    pub original: Option<SocketAddr>,
    /// What CONNECT named, inside a tunnel.
    pub tunnel: Option<Authority>,
    /// Where the client speaks TLS.
    pub tls: Option<InsideTls>,
}

/// What a client's TLS says about its requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InsideTls {
    /// The host that its certificate is for, where every request has to be for that one.
    pub host: Option<Host>,
}

/// Why TLS inside CONNECT is refused, and what to do.
pub const TLS_INSIDE_CONNECT: &str = "TLS inside CONNECT is not served without a local CA, since it could not be verified here; configure the tool to request `http://` URLs, which become verified https, or set --local-ca";

impl Proxy {
    /// The proxy of the calling thread.
    pub fn new(
        generation: Generation,
        bound: Arc<[BoundAddress]>,
        connector: Connector,
        audit: Arc<AuditSink>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Self {
        let current = RefCell::new(Rc::new(Current::new(generation, &bound, &metrics)));
        Self {
            current,
            bound,
            connector,
            audit,
            slots: Slots::new(metrics.clone()),
            metrics,
            clock,
            ids: Ids::new(),
            collected: Cell::new(0),
        }
    }

    /// Uses newer settings from now on. Idle connections are verified again by them, and closed where they do not
    /// pass; busy ones are verified when they are done.
    pub fn adopt(&self, generation: Generation) {
        let current = Rc::new(Current::new(generation, &self.bound, &self.metrics));
        self.current.replace(current.clone());
        self.slots.replace_all(&current.generation);
    }

    fn current(&self) -> Rc<Current> {
        self.current.borrow().clone()
    }

    /// Limits on the heads of requests at a listener are the same for all.
    pub fn head_limits(&self) -> HeadLimits {
        self.current.borrow().generation.settings.request_head
    }

    /// Space for bytes on their way.
    pub fn buffers(&self) -> &crate::buffer::BufferPool {
        self.connector.buffers()
    }

    /// The proxy's own sockets whose handshake is under way.
    pub fn own_sockets(&self) -> &OwnSockets {
        self.connector.own_sockets()
    }

    /// Closes idle connections whose time is over; called every few seconds.
    pub fn sweep(&self) {
        self.slots.sweep();
    }

    /// Records a failure of a connection that has no request, and gives the answer to it; `None` for a reset.
    pub fn refuse_connection(
        &self,
        failure: &Failure,
        context: &ListenerContext,
        client: ClientAddress,
    ) -> Option<LocalResponse> {
        let current = self.current();
        let listener = current.listeners.get(context.index)?;
        let id = self.ids.next();
        let named = context.tunnel.as_ref().map(ToString::to_string);
        let target = named.or_else(|| context.original.map(|original| original.to_string())).unwrap_or_default();
        let request = FailedRequest { id: &id, target: &target, client, listener: &listener.metrics.name };
        self.count_failure(failure, None, request);
        if failure.is_policy() {
            self.audit.record_policy(&event::PolicyRefused {
                id: &id,
                time: self.clock.now(),
                class: failure.words().class,
                message: &failure.to_string(),
                hint: &failure.hint(),
                target: &target,
                upstream: None,
                address: context.original,
                client,
                listener: &listener.metrics.name,
                request: None,
                generation: current.generation.number,
            });
        } else {
            tracing::warn!(
                event = "request-failed",
                request = id,
                class = failure.words().class,
                client = %client,
                listener = %listener.metrics.name,
                upstream = context.tunnel.as_ref().map(tracing::field::display),
                "{failure}"
            );
        }
        let policies = &listener.policies;
        LocalResponse::to(failure, None, &id, policies.answer, policies.detail)
    }

    fn record_handshake(&self, refused: &HandshakeFailure, slot: &Slot, request: &RequestSummary<'_>, id: &str) {
        self.audit.record(&self.refused(refused, slot, request, id, &request.path()));
    }

    /// The same where the refused server is the parent proxy.
    fn record_handshake_of_parent(
        &self,
        refused: &HandshakeFailure,
        slot: &Slot,
        request: &RequestSummary<'_>,
        id: &str,
    ) {
        let parent = slot.upstream.parent.as_ref().and_then(|parent| parent.tls.as_deref());
        let path = request.path();
        self.audit.record(&event::Refused { parent, ..self.refused(refused, slot, request, id, &path) });
    }

    /// Records that a connection is used whose peer was refused; what comes back counts the requests on it.
    fn record_bypassed(
        &self,
        refused: &HandshakeFailure,
        slot: &Slot,
        request: &RequestSummary<'_>,
        id: &str,
    ) -> BypassedUse {
        let path = request.path();
        self.note_bypassed(refused, slot, request, id);
        BypassedUse::begin(self.audit.clone(), self.clock, &self.refused(refused, slot, request, id, &path))
    }

    fn refused<'a>(
        &self,
        refused: &'a HandshakeFailure,
        slot: &'a Slot,
        request: &RequestSummary<'a>,
        id: &'a str,
        path: &'a str,
    ) -> event::Refused<'a> {
        event::Refused {
            id,
            time: self.clock.now(),
            upstream: &slot.upstream,
            parent: None,
            refused,
            client: request.client,
            listener: request.listener,
            request: Some((request.method, path)),
            generation: slot.generation,
        }
    }
}

/// What a client asked for, for records: no field.
#[derive(Clone, Copy, Debug)]
struct RequestSummary<'a> {
    client: ClientAddress,
    listener: &'a Arc<str>,
    method: &'a str,
    /// With query and tokens, which are for no record: [`Self::path`] is.
    target: &'a [u8],
}

impl RequestSummary<'_> {
    /// The path without query and tokens.
    fn path(&self) -> String {
        if self.method == "CONNECT" {
            return String::new();
        }
        crate::message::target::path_for_records(self.target)
    }
}
