//! The access event: one per request, at its end, with no token, query or userinfo in it.

use std::{net::SocketAddr, rc::Rc};

use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use tokio::time::Instant;
use tracing::warn;

use crate::{connect::Peer, logging, tls::presented::escape};

use super::{Asked, body::BodyError, client::ClientHandle};

/// What is known of a request; emitted once, when its response has ended.
#[derive(Debug)]
pub struct Access {
    /// None where nobody listens.
    record: Option<Box<Record>>,
}

#[derive(Debug)]
struct Record {
    started: Instant,
    id: String,
    client: ClientHandle,
    listener: Rc<str>,
    method: Method,
    path: String,
    authority: String,
    followed: u32,
    status: u16,
    made_by: &'static str,
    class: Option<&'static str>,
    peer: Option<Rc<Peer>>,
    reused: bool,
    response_head: Option<Instant>,
    upstream_request_id: Option<String>,
}

impl Access {
    /// A record of nothing.
    pub fn none() -> Self {
        Self { record: None }
    }

    /// A request came.
    pub(super) fn begin(
        client: &ClientHandle,
        listener: &Rc<str>,
        asked: &Asked<'_>,
        id: impl FnOnce() -> String,
    ) -> Self {
        if !logging::logs_access() {
            return Self { record: None };
        }
        Self {
            record: Some(Box::new(Record {
                started: Instant::now(),
                id: id(),
                client: client.clone(),
                listener: listener.clone(),
                method: asked.method.clone(),
                path: escape(&asked.path()),
                authority: String::new(),
                followed: 0,
                status: 0,
                made_by: "proxy",
                class: None,
                peer: None,
                reused: false,
                response_head: None,
                upstream_request_id: None,
            })),
        }
    }

    /// It goes to this upstream.
    pub fn upstream(&mut self, authority: impl FnOnce() -> String) {
        if let Some(record) = &mut self.record {
            record.authority = authority();
        }
    }

    /// A redirect was followed to this upstream.
    pub fn followed(&mut self, authority: impl FnOnce() -> String) {
        if let Some(record) = &mut self.record {
            record.authority = authority();
            record.followed += 1;
        }
    }

    /// An upstream answered.
    pub fn answered(&mut self, status: StatusCode, fields: &HeaderMap, peer: &Rc<Peer>, reused: bool) {
        if let Some(record) = &mut self.record {
            record.status = status.as_u16();
            record.made_by = "upstream";
            record.peer = Some(peer.clone());
            record.reused = reused;
            record.response_head = Some(Instant::now());
            let id = fields.get("x-openstack-request-id").and_then(|value| value.to_str().ok());
            record.upstream_request_id = id.map(escape);
        }
    }

    /// An audit event has this id, where there is one.
    pub fn recorded_as(&mut self, id: Option<String>) {
        if let (Some(record), Some(id)) = (&mut self.record, id) {
            record.id = id;
        }
    }

    /// We said yes ourselves.
    pub fn answered_here(&mut self) {
        if let Some(record) = &mut self.record {
            record.status = 200;
        }
    }

    /// We answered ourselves; 0 for a reset.
    pub fn refused(&mut self, id: &str, status: u16, class: &'static str) {
        if let Some(record) = &mut self.record {
            id.clone_into(&mut record.id);
            record.status = status;
            record.class = Some(class);
        }
    }

    /// The upstream's body was cut; always said, whether or not there is an access log.
    pub fn cut(&mut self, upstream: Option<&str>, received: u64, expected: Option<u64>, error: &BodyError) {
        let id = self.record.as_mut().map(|record| {
            record.class = Some("response_incomplete");
            record.id.as_str()
        });
        warn!(
            event = "response-incomplete",
            request = id,
            upstream,
            received,
            expected,
            %error,
            "the upstream's response was cut; the client's connection is reset"
        );
    }

    /// Nothing went through a tunnel any more.
    pub fn silent(&mut self) {
        if let Some(record) = &mut self.record {
            record.class = Some("tunnel_timeout");
        }
    }

    /// The response did not come to its end; why was said before, unless it is the client that went away.
    pub fn interrupted(&mut self) {
        if let Some(record) = &mut self.record {
            record.class.get_or_insert("interrupted");
        }
    }

    /// The response is over: `whole`, or the client went away or the upstream broke off.
    pub fn finish(&mut self, request_bytes: u64, response_bytes: u64, whole: bool) {
        let Some(record) = self.record.take() else { return };
        // To the microsecond.
        let millis = |at: Instant| (at - record.started).as_micros() as f64 / 1e3;
        logging::access(&Line {
            request: &record.id,
            client: record.client.address(),
            listener: &record.listener,
            method: record.method.as_str(),
            upstream: &record.authority,
            path: &record.path,
            followed: (record.followed > 0).then_some(record.followed),
            status: record.status,
            made_by: record.made_by,
            class: record.class,
            whole,
            request_bytes,
            response_bytes,
            head_ms: record.response_head.map(millis),
            total_ms: millis(Instant::now()),
            address: record.peer.as_ref().map(|peer| peer.address),
            tls: record.peer.as_ref().map(|peer| peer.tls_version.as_str()),
            trust: record.peer.as_ref().map(|peer| peer.standing.as_str()),
            reused: record.reused,
            upstream_request: record.upstream_request_id.as_deref(),
        });
    }
}

/// The event, as it is written.
#[derive(Serialize)]
struct Line<'a> {
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
