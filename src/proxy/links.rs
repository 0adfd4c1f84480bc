//! Links in heads: those of a response are written so that they lead the client to this proxy, and those of a request
//! so that they mean the upstream.

use std::{borrow::Cow, cell::LazyCell, rc::Rc};

use crate::{
    connect::pool::Slot,
    http1::fields::{FieldName, FieldNames, Fields},
    message::{
        authority::{Authority, Host},
        links,
        url::{self, Origin, Url},
    },
    route::{link_context::LinkContext, upstream::Upstream},
};

use super::{
    Current, ListenerContext, Proxy,
    settings::{HostPolicy, Listener, OriginalAddress, Service},
};

impl Proxy {
    /// The upstream that a redirect may lead to, and the Host to ask it for.
    pub(super) fn served(
        &self,
        current: &Current,
        listener: &ListenerContext,
        asked: Option<&Authority>,
        to: &Origin,
    ) -> Option<(Rc<Slot>, String)> {
        let (upstream, host) = link_context(current, listener, asked)?.hop(to)?;
        Some((self.slots.of(Cow::Owned(upstream), &current.generation), host))
    }
}

/// Writes the links of a response so that they lead the client here. Where redirects were followed, what is relative
/// to the last one's URL is made absolute: the client knows the first one's alone.
pub(super) fn localize(
    fields: &mut Fields,
    followed: Option<&Url>,
    current: &Current,
    listener: &ListenerContext,
    asked: Option<&Authority>,
) {
    let rewrites = current.listeners[listener.index].policies.rewrite_redirects;
    if !rewrites && followed.is_none() {
        return;
    }
    let context = LazyCell::new(|| link_context(current, listener, asked).filter(|_| rewrites));
    let local = |origin: &Origin| context.as_ref().and_then(|context| context.local_form(origin));
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

/// Writes the references of a request to where its client reaches the upstream as references to the upstream itself:
/// `Origin`, `Referer`, and WebDAV's `Destination` (RFC 4918 section 10.3).
pub(super) fn globalize(fields: &mut Fields, asked: Option<&Authority>, upstream: &Upstream) {
    let Some(asked) = asked else { return };
    let names = FieldNames::of(&[FieldName::Destination, FieldName::Origin, FieldName::Referer]);
    fields.map_values(names, |field| {
        let (origin, behind) = url::split(str::from_utf8(field.value).ok()?)?;
        let is_here = !origin.https && origin.authority == *asked;
        is_here.then(|| format!("https://{}{behind}", upstream.host_field()).into_bytes())
    });
}

/// Where the client is.
fn link_context<'a>(
    current: &'a Current,
    context: &ListenerContext,
    asked: Option<&Authority>,
) -> Option<LinkContext<'a>> {
    let fixed = |listener: &'a Listener| Some((listener.service.fixed()?, listener.address.tcp()?));
    let listener = current.listeners.get(context.index)?;
    let only_port = match listener.service {
        Service::Original(OriginalAddress::Redirected) => context.original.map(|original| original.port()),
        Service::Fixed(_) | Service::Forward | Service::Original(OriginalAddress::Accepted) => None,
    };
    let bound = listener.address.tcp().filter(|bound| !bound.ip().is_unspecified());
    let bound = || bound.map(|bound| Authority { host: Host::Ip(bound.ip()), port: Some(bound.port()) });
    Some(LinkContext {
        routes: &current.generation.routes,
        own: listener.service.fixed(),
        fixed: current.listeners.iter().filter_map(fixed).collect(),
        client: asked.cloned().or_else(bound),
        only_port,
        shown: listener.policies.host == HostPolicy::Client && asked.is_some(),
    })
}
