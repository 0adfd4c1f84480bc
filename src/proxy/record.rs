//! The record of one exchange, always there, and finished by whoever ends the exchange; its `Drop` finishes it as
//! `interrupted`. The access log is its reader: one line at the end, with no token, query or userinfo in it.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use serde::Serialize;
use tokio::time::Instant;

use crate::{
    connect::Peer,
    http1::{fields::FieldName, head::ResponseHead},
    logging,
    message::target::path_for_records,
    text::{escape, escape_within},
};

/// Characters of a method in records; one that is longer is not passed on.
const LONGEST_METHOD: usize = 40;

/// What is known of an exchange.
#[derive(Debug)]
pub(super) struct ExchangeRecord {
    started: Instant,
    client: SocketAddr,
    listener: Arc<str>,
    status: u16,
    made_by: &'static str,
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
    method: String,
    path: String,
    upstream: String,
    upstream_request: Option<String>,
}

impl ExchangeRecord {
    /// A request's head was read.
    pub(super) fn begin(
        client: SocketAddr,
        listener: &Arc<str>,
        method: &str,
        target: &[u8],
        id: impl FnOnce() -> String,
    ) -> Self {
        let texts = logging::logs_access().then(|| {
            let (method, path) = (escape_within(method, LONGEST_METHOD), escape(&path_for_records(target)));
            Box::new(Texts { id: id(), method, path, ..Texts::default() })
        });
        Self {
            started: Instant::now(),
            client,
            listener: listener.clone(),
            status: 0,
            made_by: "proxy",
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
    pub(super) fn upstream(&mut self, authority: impl FnOnce() -> String) {
        if let Some(texts) = &mut self.texts {
            texts.upstream = authority();
        }
    }

    /// A redirect was followed to this upstream.
    pub(super) fn followed(&mut self, authority: impl FnOnce() -> String) {
        self.followed += 1;
        self.upstream(authority);
    }

    /// An upstream responded.
    pub(super) fn responded(&mut self, head: &ResponseHead, peer: &Rc<Peer>, reused: bool) {
        self.status = head.status;
        self.made_by = "upstream";
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
        self.made_by = "proxy";
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
        let Some(texts) = &self.texts else { return };
        // To the microsecond.
        let millis = |at: Instant| (at - self.started).as_micros() as f64 / 1e3;
        let peer = self.peer.as_deref();
        logging::access(&AccessLine {
            request: &texts.id,
            client: self.client,
            listener: &self.listener,
            method: &texts.method,
            upstream: &texts.upstream,
            path: &texts.path,
            followed: (self.followed > 0).then_some(self.followed),
            status: self.status,
            made_by: self.made_by,
            class: self.class,
            whole,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            head_ms: self.response_head.map(millis),
            total_ms: millis(Instant::now()),
            address: peer.map(|peer| peer.address),
            tls: peer.map(|peer| peer.tls_version.as_str()),
            trust: peer.map(|peer| peer.standing.as_str()),
            reused: self.reused,
            upstream_request: texts.upstream_request.as_deref(),
        });
    }
}

impl Drop for ExchangeRecord {
    fn drop(&mut self) {
        self.end(false);
    }
}

/// The event, as it is written.
#[derive(Serialize)]
struct AccessLine<'a> {
    request: &'a str,
    client: SocketAddr,
    listener: &'a str,
    method: &'a str,
    upstream: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    followed: Option<u32>,
    status: u16,
    made_by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    whole: bool,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    head_ms: Option<f64>,
    total_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trust: Option<&'static str>,
    reused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_request: Option<&'a str>,
}
