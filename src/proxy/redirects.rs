//! Where it is configured, redirects of GET and HEAD are followed here, since old tools do not.
//!
//! A hop is a request of its own: its upstream is that of a fixed route or allowed by the policy, and its connection
//! is verified like any other. Only harmless fields go to another authority, and none comes back after that.

use std::{future::poll_fn, rc::Rc, time::Duration};

use tokio::time::timeout;

use crate::{
    connect::{pool::Slot, upstream::UpstreamConnection},
    http1::{
        body::{BodyDecoder, BodyLength},
        fields::{Field, FieldName, Fields},
        head::{RequestHead, ResponseHead},
    },
    message::{
        authority::Host,
        target::Target,
        url::{Origin, Url},
    },
    route::upstream::Upstream,
};

use super::{
    attempt::{Answered, Request},
    context::{Destination, Ended, RequestContext},
    heads::binds_connection,
    links::Arrival,
    upload::Upload,
};

/// As many redirects of one request are followed; the next one is the client's affair.
const MOST_HOPS: u32 = 10;

/// So much of a redirect's body is read, and for so long, to have its connection for the next request.
const DISCARDED: u64 = 64 * 1024;
const DISCARDING: Duration = Duration::from_secs(1);

/// Whether a field may be shown to another authority: nothing that could prove who the client is.
fn is_harmless(field: &Field<'_>) -> bool {
    match field.name {
        FieldName::Connection | FieldName::Host | FieldName::Te | FieldName::Via => true,
        FieldName::Other => {
            let begins = |prefix: &[u8]| {
                field.raw_name.len() >= prefix.len() && field.raw_name[..prefix.len()].eq_ignore_ascii_case(prefix)
            };
            begins(b"accept") || begins(b"if-") || field.is("user-agent") || field.is("range")
        }
        _ => false,
    }
}

/// A request whose redirects are followed.
pub(super) struct RedirectChain {
    method: String,
    /// Its fields at the last hop.
    fields: Fields,
    /// What was asked for there.
    at: Url,
    /// And whose.
    of: (Host, u16),
    hops: u32,
}

/// A hop that may be made.
struct Hop {
    head: Vec<u8>,
    origin: Origin,
    slot: Rc<Slot>,
}

impl RedirectChain {
    /// `None` where the request is not one whose redirects are followed. `head` is the one that is sent.
    pub(super) fn begin(head: &RequestHead, target: &Target, upstream: &Upstream) -> Option<Box<Self>> {
        let upgrades = head.fields.contains(FieldName::Upgrade);
        if upgrades || !head.length.is_empty() || !["GET", "HEAD"].contains(&head.method()) {
            return None;
        }
        let at = Url { origin: asked_of(&head.fields)?, path: target.path(head)? };
        let of = (upstream.host.clone(), upstream.port);
        Some(Box::new(Self { method: head.method().to_owned(), fields: head.fields.clone(), at, of, hops: 0 }))
    }

    /// The next hop, where a response is a redirect to what is served here.
    fn next(
        &mut self,
        response: &ResponseHead,
        serve: impl FnOnce(&Origin) -> Option<(Rc<Slot>, String)>,
    ) -> Option<Hop> {
        if self.hops == MOST_HOPS || !matches!(response.status, 301 | 302 | 303 | 307 | 308) {
            return None;
        }
        let mut locations = response.fields.values(FieldName::Location);
        let (Some(location), None) = (locations.next(), locations.next()) else { return None };
        let to = self.at.resolve(str::from_utf8(location).ok()?)?;
        let (slot, host) = serve(&to.origin)?;
        let of = (slot.upstream.host.clone(), slot.upstream.port);
        if of != self.of {
            self.fields.retain(|field| is_harmless(&field));
        }
        self.fields.set(FieldName::Host, b"Host", host.as_bytes());
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, to.path).into_bytes();
        self.fields.write_to(&mut head);
        head.extend_from_slice(b"\r\n");
        self.at = Url { origin: asked_of(&self.fields)?, path: to.path };
        self.of = of;
        self.hops += 1;
        Some(Hop { head, origin: to.origin, slot })
    }

    /// Where the last hop led, if there was one.
    pub(super) fn followed(&self) -> Option<&Url> {
        (self.hops > 0).then_some(&self.at)
    }
}

impl RequestContext<'_> {
    /// Follows redirects from a response on, and gives the last one's.
    pub(super) async fn follow(
        &mut self,
        chain: &mut RedirectChain,
        mut answered: Answered,
        slot: &mut Rc<Slot>,
        upload: &mut Upload,
        arrival: Arrival<'_>,
        binds: bool,
    ) -> Result<Answered, Ended> {
        loop {
            let current = self.proxy.current();
            let serve = |to: &Origin| self.proxy.served(&current, arrival, to);
            let Some(hop) = chain.next(&answered.head, serve) else { return Ok(answered) };
            self.record.recorded_as(answered.bypassed.take());
            let binds = binds || binds_connection(&answered.head.fields);
            match discard(&answered.head, answered.upstream).await {
                Some(connection) if binds => self.bind(slot, connection),
                Some(connection) => slot.put(connection),
                None => {}
            }
            *slot = hop.slot;
            self.upstream = Some(slot.clone());
            self.record.followed(slot);
            self.destination = Destination::Redirect { origin: hop.origin, asked: arrival.asked.cloned() };
            let request = Request { head: hop.head, to_head: chain.method == "HEAD", idempotent: true };
            answered = self.send(slot, &request, upload).await?;
        }
    }
}

/// What the upstream takes for its own origin.
fn asked_of(fields: &Fields) -> Option<Origin> {
    let authority = str::from_utf8(fields.get(FieldName::Host)?).ok()?.parse().ok()?;
    Some(Origin { https: true, authority })
}

/// Reads a body to its end, and gives the connection back where that is near.
async fn discard(head: &ResponseHead, mut upstream: Box<UpstreamConnection>) -> Option<Box<UpstreamConnection>> {
    let far = matches!(head.length, BodyLength::Exact(length) if length > DISCARDED);
    if far || head.length == BodyLength::UntilClose || !head.keeps_alive() {
        return None;
    }
    let mut decoder = BodyDecoder::new(head.length);
    let whole = async {
        while !decoder.is_done() {
            if upstream.inbox().is_empty() && poll_fn(|cx| upstream.poll_receive(cx)).await.ok()? == 0 {
                return None;
            }
            let decoded = decoder.decode(upstream.inbox().as_slice()).ok()?;
            upstream.inbox().consume(decoded.pass + decoded.consumed);
            if decoder.content() > DISCARDED {
                return None;
            }
        }
        Some(())
    };
    timeout(DISCARDING, whole).await.ok()??;
    upstream.end_exchange();
    upstream.inbox().is_empty().then_some(upstream)
}
