//! Links in heads: those of a response are written so that they lead the client to this proxy, and those of a request
//! so that they mean the upstream.

use std::{borrow::Cow, cell::LazyCell, rc::Rc};

use crate::{
    connect::pool::Slot,
    http1::fields::{FieldName, FieldNames, Fields},
    message::{
        authority::{Authority, Host},
        links,
        target::{Form, Target},
        url::{self, Origin, Url},
    },
    route::{
        link_context::{FixedListener, LinkContext},
        upstream::Upstream,
    },
};

use super::{
    Current, ListenerContext, Proxy,
    settings::{HostPolicy, Listener, OriginalAddress, Service},
};

/// How a request came: by which listener, and what its client names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    pub(super) context: &'a ListenerContext,
    /// The authority that the client named.
    pub(super) asked: Option<&'a Authority>,
    /// Whether nothing but Host named it.
    pub(super) by_host: bool,
}

impl<'a> Arrival<'a> {
    pub(super) fn of(context: &'a ListenerContext, target: &'a Target) -> Self {
        let by_host = target.form == Form::Origin && context.tunnel.is_none();
        Self { context, asked: target.authority.as_ref(), by_host }
    }
}

impl Proxy {
    /// The upstream that a redirect may lead to, and the Host to ask it for.
    pub(super) fn served(&self, current: &Current, arrival: Arrival<'_>, to: &Origin) -> Option<(Rc<Slot>, String)> {
        let (upstream, host) = link_context(current, arrival)?.hop(to)?;
        Some((self.slots.of(Cow::Owned(upstream), &current.generation), host))
    }
}

/// Writes the links of a response so that they lead the client here. Where redirects were followed, what is relative
/// to the last one's URL is made absolute: the client knows the first one's alone.
pub(super) fn localize(fields: &mut Fields, followed: Option<&Url>, current: &Current, arrival: Arrival<'_>) {
    let listener = &current.listeners[arrival.context.index];
    let rewrites = is_renamed(listener, arrival) && listener.policies.rewrite_redirects;
    if !rewrites && followed.is_none() {
        return;
    }
    let context = LazyCell::new(|| link_context(current, arrival).filter(|_| rewrites));
    let local = |origin: &Origin| {
        let context = context.as_ref()?;
        context.local_form(origin).map(|authority| format!("{}://{authority}", context.scheme()))
    };
    links::rewrite(fields, |reference| {
        if let Some((origin, behind)) = url::split(reference) {
            return local(&origin).map(|local| format!("{local}{behind}"));
        }
        let url = followed?.resolve(reference)?;
        let fragment = reference.find('#').map_or("", |at| &reference[at..]);
        Some(match local(&url.origin) {
            Some(local) => format!("{local}{}{fragment}", url.path),
            None => format!("{url}{fragment}"),
        })
    });
}

/// Writes the references of a request to where its client reaches the upstream as references to the upstream itself:
/// `Origin`, `Referer`, and WebDAV's `Destination` (RFC 4918 section 10.3).
pub(super) fn globalize(fields: &mut Fields, arrival: Arrival<'_>, upstream: &Upstream) {
    let Some(asked) = arrival.asked else { return };
    let tls = arrival.context.tls.is_some();
    let names = FieldNames::of(&[FieldName::Destination, FieldName::Origin, FieldName::Referer]);
    fields.map_values(names, |field| {
        let (origin, behind) = url::split(str::from_utf8(field.value).ok()?)?;
        let is_here = origin.https == tls && origin.authority == *asked;
        is_here.then(|| format!("https://{}{behind}", upstream.host_field()).into_bytes())
    });
}

/// Whether its client has other URLs for an upstream than the upstream's own. One that speaks TLS has so only at a route:
/// in CONNECT, or where its connection is caught, it uses those of the upstream.
pub(super) fn is_renamed(listener: &Listener, arrival: Arrival<'_>) -> bool {
    arrival.context.tls.is_none() || matches!(listener.service, Service::Fixed(_))
}

/// Where the client is.
pub(super) fn link_context<'a>(current: &'a Current, arrival: Arrival<'_>) -> Option<LinkContext<'a>> {
    let fixed = |listener: &'a Listener| {
        let (upstream, bound) = (listener.service.fixed()?, listener.address.tcp()?);
        Some(FixedListener { upstream, bound, advertised: listener.advertised.as_ref(), tls: listener.tls })
    };
    let ports = |of: fn(&Service) -> bool| {
        let alike = current.listeners.iter().filter(move |listener| of(&listener.service));
        alike.filter_map(|listener| Some(listener.address.tcp()?.port())).collect()
    };
    let listener = current.listeners.get(arrival.context.index)?;
    let (only_ports, by_host) = match listener.service {
        // Which other ports are redirected is known to the rules alone.
        Service::Original(OriginalAddress::Redirected) => (Some(vec![arrival.context.original?.port()]), None),
        Service::Original(OriginalAddress::Accepted) => {
            (Some(ports(|other| matches!(other, Service::Original(_)))), None)
        }
        Service::Forward if arrival.by_host => (None, Some(ports(|other| matches!(other, Service::Forward)))),
        Service::Fixed(_) | Service::Forward => (None, None),
    };
    let bound = listener.address.tcp().filter(|bound| !bound.ip().is_unspecified());
    let bound = || bound.map(|bound| Authority { host: Host::Ip(bound.ip()), port: Some(bound.port()) });
    Some(LinkContext {
        routes: &current.generation.routes,
        own: listener.service.fixed(),
        address: listener.address.tcp().map(|bound| bound.ip()),
        fixed: current.listeners.iter().filter_map(fixed).collect(),
        by_host,
        client: arrival.asked.cloned().or_else(bound),
        only_ports,
        shown: listener.policies.host == HostPolicy::Client && arrival.asked.is_some(),
        tls: arrival.context.tls.is_some(),
    })
}
