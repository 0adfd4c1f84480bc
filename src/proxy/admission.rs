//! Who may ask a listener what, judged by the request alone.
//!
//! A page in a browser of the same host must not be able to use a route, and with it the route's client certificate:
//! neither under a name of its own that resolves to loopback (DNS rebinding), nor by a form that it posts. And a
//! request that names another authority is not sent to a fixed route's upstream with its token.

use crate::{
    http1::{fields::FieldName, head::RequestHead},
    message::{
        authority::{Authority, Host},
        target::{Form, Target},
        url,
    },
    route::upstream::Upstream,
};

use super::{failure::AdmissionError, settings::Listener};

/// Judges a request. `tls`: its client speaks TLS.
pub(super) fn admit(listener: &Listener, target: &Target, head: &RequestHead, tls: bool) -> Result<(), AdmissionError> {
    let upstream = listener.service.fixed();
    let named = target.authority.as_ref();
    if let (Some(upstream), Some(named)) = (upstream, named) {
        let known = is_name_of(listener, upstream, &named.host);
        let leads_there = known && !is_another_service(listener, upstream, named);
        if target.form == Form::Absolute && !leads_there {
            return Err(AdmissionError::WrongAuthority(named.to_string()));
        }
        if listener.address.tcp().is_some_and(|address| address.ip().is_loopback()) && !known {
            return Err(AdmissionError::ForeignHost(named.host.to_string()));
        }
    }
    if is_cross_site(listener, named, head, tls) {
        return Err(AdmissionError::CrossSite);
    }
    Ok(())
}

/// Whether clients may reach a fixed route by this name.
pub(super) fn is_name_of(listener: &Listener, upstream: &Upstream, host: &Host) -> bool {
    let own = match host {
        Host::Ip(ip) => {
            let bound = listener.address.tcp().map(|address| address.ip().to_canonical());
            ip.to_canonical().is_loopback() || Some(ip.to_canonical()) == bound
        }
        // RFC 6761 section 6.3.
        Host::Name(name) => name.as_str() == "localhost" || name.as_str().ends_with(".localhost"),
    };
    own || *host == upstream.host
        || upstream.reference.to_string() == host.to_string()
        || listener.policies.accept_host.contains(host)
}

/// Whether the authority of a URL means another service on a host that is known: another port of the upstream's, or
/// of this one. A client that has a fixed route for its `http_proxy` asks for its local services there, too.
fn is_another_service(listener: &Listener, upstream: &Upstream, named: &Authority) -> bool {
    let own = listener.address.tcp().map(|address| address.port());
    let default = if listener.tls { 443 } else { 80 };
    if listener.policies.accept_host.contains(&named.host) {
        false
    } else if named.host == upstream.host || upstream.reference.to_string() == named.host.to_string() {
        named.port.is_some_and(|port| port != upstream.port && Some(port) != own)
    } else {
        Some(named.port.unwrap_or(default)) != own
    }
}

/// Whether a browser says that a page of another origin asks (Fetch Metadata; RFC 6454 section 7).
fn is_cross_site(listener: &Listener, named: Option<&Authority>, head: &RequestHead, tls: bool) -> bool {
    let upstream = listener.service.fixed();
    if head.fields.values(FieldName::SecFetchSite).any(|site| !matches!(site, b"none" | b"same-origin")) {
        return true;
    }
    head.fields.values(FieldName::Origin).any(|origin| {
        let Some((origin, _)) = str::from_utf8(origin).ok().and_then(url::split) else { return true };
        let authority = &origin.authority;
        let is_own = origin.https == tls && named == Some(authority);
        let is_upstreams = upstream.is_some_and(|upstream| {
            origin.https && authority.host == upstream.host && authority.port.unwrap_or(443) == upstream.port
        });
        !is_own && !is_upstreams && !listener.policies.accept_host.contains(&authority.host)
    })
}
