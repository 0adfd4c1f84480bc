//! Answers that lead elsewhere: their links are written so that the client stays on this proxy, and where it is asked
//! for, redirects of GET and HEAD are followed here, since old tools do not.
//!
//! A hop is a request of its own: its upstream is of a fixed route or allowed by the policy, and its connection is
//! verified like any other. What proves who the client is does not go to another authority, nor come back after that.

use std::{borrow::Cow, cell::LazyCell, rc::Rc, time::Duration};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{HOST, LOCATION, REFERER, UPGRADE},
    request::Parts,
    uri::{PathAndQuery, Uri},
};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::{
    connect::pool::Slot,
    message::{
        authority::{Authority, Host},
        fields, links,
        url::{self, Origin, Url},
    },
    route::{place::Place, table::RouteError, upstream::Upstream},
};

use super::{
    Generation, HostPolicy, Proxy, Service, Way,
    access::Access,
    body::{Progress, Upload},
    failure::Failure,
    forward::Sent,
};

/// As many redirects of one request are followed; the next one is the client's affair.
const MOST_HOPS: u32 = 10;

/// So much of a redirect's body is read, and for so long, to have its connection for the next request.
const DISCARDED: u64 = 64 * 1024;
const DISCARDING: Duration = Duration::from_secs(1);

/// What proves who a client is, to one authority alone, by parts of the names of fields that do: `Authorization`,
/// `Cookie`, `X-Auth-Token`, `X-Storage-Pass`, and those that somebody else made up.
const CREDENTIALS: [&str; 6] = ["auth", "cookie", "key", "pass", "secret", "token"];

/// Whether a field stays behind at another authority. A `Referer` may hold a query.
fn is_private(name: &HeaderName) -> bool {
    *name == REFERER || CREDENTIALS.iter().any(|part| name.as_str().contains(part))
}

/// A request whose redirects are followed.
pub(super) struct Trail {
    /// Its head at the last hop.
    head: Parts,
    /// What was asked for there.
    at: Url,
    /// And of whom.
    of: (Host, u16),
    hops: u32,
}

/// A hop that may be made.
struct Hop {
    head: Parts,
    origin: Origin,
    slot: Rc<Slot<Upload>>,
}

impl Trail {
    /// None where the request is not one whose redirects are followed.
    pub(super) fn begin(way: &Way<'_>, head: &Parts, upstream: &Upstream) -> Option<Box<Self>> {
        let follows = way.generation.settings.follow_redirects && !way.has_body;
        let upgrades = head.headers.contains_key(UPGRADE);
        if !follows || upgrades || ![Method::GET, Method::HEAD].contains(&head.method) {
            return None;
        }
        let path = head.uri.path_and_query()?.as_str().to_owned();
        let at = Url { origin: asked_of(head)?, path };
        Some(Box::new(Self { head: head.clone(), at, of: (upstream.host.clone(), upstream.port), hops: 0 }))
    }

    /// The next hop, where an answer is a redirect to what is served here.
    fn next(
        &mut self,
        answer: &Response<Incoming>,
        serve: impl FnOnce(&Origin) -> Option<(Rc<Slot<Upload>>, HeaderValue)>,
    ) -> Option<Hop> {
        if self.hops == MOST_HOPS || !is_redirect(answer.status()) {
            return None;
        }
        let fields = answer.headers();
        if !(fields::chunked_only(fields) && fields::one_framing(fields)) {
            return None;
        }
        let mut locations = fields.get_all(LOCATION).iter();
        let (Some(location), None) = (locations.next(), locations.next()) else { return None };
        let to = self.at.resolve(location.to_str().ok()?)?;
        let path = PathAndQuery::try_from(to.path.as_str()).ok()?;
        let (slot, host) = serve(&to.origin)?;
        let of = (slot.upstream.host.clone(), slot.upstream.port);
        if of != self.of {
            fields::remove(&mut self.head.headers, is_private);
        }
        fields::set_host(&mut self.head.headers, host);
        self.head.uri = Uri::from(path);
        self.at = Url { origin: asked_of(&self.head)?, path: to.path };
        self.of = of;
        self.hops += 1;
        Some(Hop { head: self.head.clone(), origin: to.origin, slot })
    }
}

impl Proxy {
    /// Follows redirects from an answer on, and gives the last one's.
    pub(super) async fn follow(
        &self,
        trail: &mut Trail,
        mut sent: Sent,
        chosen: &mut Rc<Slot<Upload>>,
        progress: &Rc<Progress>,
        (way, asked): (&Way<'_>, Option<&Authority>),
        access: &mut Access,
    ) -> Result<Sent, Failure> {
        while let Some(hop) = trail.next(&sent.answer, |to| self.served(to, way, asked, &self.generation())) {
            access.recorded_as(sent.bypassed);
            if discard(sent.answer.into_body()).await {
                chosen.put(sent.link);
            }
            *chosen = hop.slot;
            access.followed(|| chosen.upstream.authority());
            let upload = Upload::again(progress.clone(), way.generation.settings.request_body);
            let choose = |generation: &Generation| {
                let served = self.served(&hop.origin, way, asked, generation);
                served.map(|(slot, _)| slot).ok_or_else(|| denied(&hop.origin, generation))
            };
            sent = self.send(chosen, hop.head, upload, progress, (way, &choose)).await?;
        }
        Ok(sent)
    }

    /// The upstream that a redirect may lead to, and the Host to ask it for.
    fn served(
        &self,
        to: &Origin,
        way: &Way<'_>,
        asked: Option<&Authority>,
        generation: &Generation,
    ) -> Option<(Rc<Slot<Upload>>, HeaderValue)> {
        let (upstream, host) = self.place(way, asked, generation)?.hop(to)?;
        Some((self.slot_of(Cow::Owned(upstream), generation), HeaderValue::try_from(host).ok()?))
    }

    /// Writes the links of an answer so that they lead the client here. Where redirects were followed, what is
    /// relative to the last one's URL is made absolute: the client knows the first one's alone.
    pub(super) fn keep_here(
        &self,
        fields: &mut HeaderMap,
        trail: Option<&Trail>,
        way: &Way<'_>,
        asked: Option<&Authority>,
    ) {
        let followed = trail.filter(|trail| trail.hops > 0).map(|trail| &trail.at);
        let rewrites = way.generation.settings.rewrite_redirects;
        if !rewrites && followed.is_none() {
            return;
        }
        let place = LazyCell::new(|| self.place(way, asked, &way.generation).filter(|_| rewrites));
        let local = |origin: &Origin| place.as_ref().and_then(|place| place.local(origin));
        links::rewrite(fields, |reference| {
            if let Some((origin, behind)) = url::split(reference) {
                return local(&origin).map(|local| format!("http://{local}{behind}"));
            }
            let url = followed?.resolve(reference)?;
            let fragment = reference.find('#').map_or("", |at| &reference[at..]);
            Some(match local(&url.origin) {
                Some(local) => format!("http://{local}{}{fragment}", url.path),
                None => format!("{url}{fragment}"),
            })
        });
    }

    /// Where the client stands.
    fn place<'a>(&self, way: &Way<'_>, asked: Option<&Authority>, generation: &'a Generation) -> Option<Place<'a>> {
        let bound = self.connector.own();
        let fixed = generation.services.iter().zip(bound).filter_map(|(service, bound)| match service {
            Service::Fixed(upstream) => Some((&**upstream, *bound)),
            Service::Forward => None,
        });
        let own = match generation.services.get(way.entry.place)? {
            Service::Fixed(upstream) => Some(&**upstream),
            Service::Forward => None,
        };
        let listener = bound.get(way.entry.place).filter(|bound| !bound.ip().is_unspecified());
        let listener = || listener.map(|bound| Authority { host: Host::Ip(bound.ip()), port: Some(bound.port()) });
        Some(Place {
            routes: &generation.routes,
            own,
            fixed: fixed.collect(),
            client: asked.cloned().or_else(listener),
            shown: generation.settings.host == HostPolicy::Client && asked.is_some(),
        })
    }
}

/// What the upstream takes for its own origin.
fn asked_of(head: &Parts) -> Option<Origin> {
    let authority = head.headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    Some(Origin { https: true, authority })
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn denied(to: &Origin, generation: &Generation) -> Failure {
    let port = generation.routes.port(&to.authority, to.https);
    Failure::Route(RouteError::Denied { host: to.authority.host.clone(), port })
}

/// Reads a body to its end; false where that is too far away.
async fn discard(mut body: Incoming) -> bool {
    if body.size_hint().lower() > DISCARDED {
        return false;
    }
    let mut left = DISCARDED;
    let whole = async {
        while let Some(frame) = body.frame().await {
            let read = frame.ok().map(|frame| frame.data_ref().map_or(0, |data| data.len() as u64));
            match read.and_then(|read| left.checked_sub(read)) {
                Some(rest) => left = rest,
                None => return false,
            }
        }
        true
    };
    timeout(DISCARDING, whole).await.unwrap_or(false)
}
