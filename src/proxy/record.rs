//! The record of one exchange, always there, and finished by whoever ends the exchange; its `Drop` finishes it as
//! `interrupted`. The access log is its reader: one line at the end, with no token, query or userinfo in it.

use std::{rc::Rc, sync::Arc};

use tokio::time::Instant;

use crate::{
    connect::{Peer, pool::Slot},
    http1::{conn::Connection, fields::FieldName, head::ResponseHead},
    logging::{self, AccessEvent, AccessFields},
    message::target::path_for_records,
    metrics::{EndedRequest, ListenerMetrics, MadeBy},
    text::{escape, escape_within},
};

/// Characters of a method in records; one that is longer is not passed on.
const LONGEST_METHOD: usize = 40;

/// What is known of an exchange.
#[derive(Debug)]
pub(super) struct ExchangeRecord {
    started: Instant,
    listener: Arc<ListenerMetrics>,
    /// Where the request went last.
    upstream: Option<Rc<Slot>>,
    status: u16,
    made_by: MadeBy,
    class: Option<&'static str>,
    followed: u32,
    peer: Option<Rc<Peer>>,
    reused: bool,
    response_head: Option<Instant>,
    /// Bytes of content that the upstream's socket took, and the client's.
    request_bytes: u64,
    response_bytes: u64,
    /// The texts, where somebody reads them.
    texts: Option<Box<Texts>>,
    ended: bool,
}

/// What takes an allocation each.
#[derive(Debug, Default)]
struct Texts {
    id: String,
    client: Rc<str>,
    method: String,
    /// Empty for CONNECT, which has none.
    path: String,
    /// What CONNECT named.
    destination: Option<String>,
    upstream_request: Option<String>,
}

impl ExchangeRecord {
    /// A request's head was read.
    pub(super) fn begin(
        client: &Connection,
        listener: &Arc<ListenerMetrics>,
        method: &str,
        target: &[u8],
        id: impl FnOnce() -> String,
    ) -> Self {
        let texts = logging::logs_access().then(|| {
            let target = escape(&path_for_records(target));
            let (path, destination) = if method == "CONNECT" { (String::new(), Some(target)) } else { (target, None) };
            let method = escape_within(method, LONGEST_METHOD);
            Box::new(Texts { id: id(), client: client.peer_text(), method, path, destination, ..Texts::default() })
        });
        Self {
            started: Instant::now(),
            listener: listener.clone(),
            upstream: None,
            status: 0,
            made_by: MadeBy::Proxy,
            class: None,
            followed: 0,
            peer: None,
            reused: false,
            response_head: None,
            request_bytes: 0,
            response_bytes: 0,
            texts,
            ended: false,
        }
    }

    /// The request goes to this upstream.
    pub(super) fn upstream(&mut self, slot: &Rc<Slot>) {
        self.upstream = Some(slot.clone());
    }

    /// A redirect was followed to this upstream.
    pub(super) fn followed(&mut self, slot: &Rc<Slot>) {
        self.followed += 1;
        self.upstream(slot);
    }

    /// An upstream responded.
    pub(super) fn responded(&mut self, head: &ResponseHead, peer: &Rc<Peer>, reused: bool) {
        self.status = head.status;
        self.made_by = MadeBy::Upstream;
        self.peer = Some(peer.clone());
        self.reused = reused;
        self.response_head = Some(Instant::now());
        if let Some(texts) = &mut self.texts {
            let id = head.fields.get(FieldName::RequestId);
            texts.upstream_request = id.and_then(|id| str::from_utf8(id).ok()).map(escape);
        }
    }

    /// An audit event has this id, where there is one.
    pub(super) fn recorded_as(&mut self, id: Option<String>) {
        if let (Some(texts), Some(id)) = (&mut self.texts, id) {
            texts.id = id;
        }
    }

    /// The proxy answered by itself.
    pub(super) fn answered_here(&mut self, status: u16) {
        self.status = status;
        self.made_by = MadeBy::Proxy;
    }

    /// The proxy answered a failure by itself; 0 for a reset.
    pub(super) fn refused(&mut self, id: &str, status: u16, class: &'static str) {
        self.answered_here(status);
        self.class = Some(class);
        if let Some(texts) = &mut self.texts {
            id.clone_into(&mut texts.id);
        }
    }

    /// The id that the record has in logs, where somebody reads them.
    pub(super) fn id(&self) -> Option<&str> {
        self.texts.as_ref().map(|texts| texts.id.as_str())
    }

    /// Why it does not come to its end.
    pub(super) fn class(&mut self, class: &'static str) {
        self.class = Some(class);
    }

    /// So many bytes of content were taken so far, by the upstream's socket and by the client's.
    pub(super) fn count(&mut self, request_bytes: u64, response_bytes: u64) {
        (self.request_bytes, self.response_bytes) = (request_bytes, response_bytes);
    }

    /// So many bytes of content of our own were taken by the client's socket.
    pub(super) fn count_response(&mut self, bytes: u64) {
        self.response_bytes = bytes;
    }

    /// The exchange has ended: the client's socket took all of the response.
    pub(super) fn whole(mut self) {
        self.end(true);
    }

    /// The exchange has ended short of that.
    pub(super) fn interrupted(mut self) {
        self.end(false);
    }

    fn end(&mut self, whole: bool) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if !whole {
            self.class.get_or_insert("interrupted");
        }
        let ended = Instant::now();
        let request = EndedRequest {
            took: ended - self.started,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            made_by: self.made_by,
            status: self.status,
            reused: self.reused,
        };
        self.listener.count(request, self.upstream.as_deref().map(|slot| &slot.metrics));
        let Some(texts) = &self.texts else { return };
        let peer = self.peer.as_deref();
        logging::access(&AccessLine { record: self, texts, peer, whole, ended });
    }
}

impl Drop for ExchangeRecord {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// The event, as it is written.
struct AccessLine<'a> {
    record: &'a ExchangeRecord,
    texts: &'a Texts,
    peer: Option<&'a Peer>,
    whole: bool,
    ended: Instant,
}

impl AccessEvent for AccessLine<'_> {
    fn fields(&self, to: &mut impl AccessFields) {
        let Self { record, texts, peer, whole, ended } = self;
        to.text("request", &texts.id);
        to.text("client", &texts.client);
        to.text("listener", &record.listener.name);
        to.text("method", &texts.method);
        to.text("upstream", record.upstream.as_deref().map_or("", |slot| &slot.authority));
        to.text("path", &texts.path);
        if let Some(destination) = &texts.destination {
            to.text("destination", destination);
        }
        if record.followed > 0 {
            to.number("followed", record.followed.into());
        }
        to.number("status", record.status.into());
        to.text("made_by", record.made_by.as_str());
        if let Some(class) = record.class {
            to.text("class", class);
        }
        to.flag("whole", *whole);
        to.number("request_bytes", record.request_bytes);
        to.number("response_bytes", record.response_bytes);
        if let Some(at) = record.response_head {
            to.millis("head_ms", at - record.started);
        }
        to.millis("total_ms", *ended - record.started);
        if let Some(peer) = peer {
            match &peer.via {
                Some(via) => to.text("via", &via.parent.to_string()),
                None => to.text("address", peer.address_text()),
            }
            to.text("tls", peer.tls_version.as_str());
            to.text("trust", peer.standing.as_str());
        }
        to.flag("reused", record.reused);
        if let Some(id) = &texts.upstream_request {
            to.text("upstream_request", id);
        }
    }
}
