//! Who may ask. A web page in a browser of the same host must not read the status or change anything, also not under a
//! name of its own that it has resolve to this address (DNS rebinding). So the Host is looked at before anything else.

use http::{HeaderName, header, request::Parts};

use crate::{
    message::authority::{Authority, Host},
    text::escape_within,
};

use super::{AdminPolicy, Arrival};

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Forbidden {
    /// Its Host is none of this listener's.
    Host(String),
    /// It has no Host, which only what has no names in it is served without.
    NoHost,
    /// A web page of another origin asks.
    CrossSite,
}

/// Paths whose responses name nobody: probes of HTTP/1.0 have no Host.
const WITHOUT_HOST: [&str; 3] = ["/livez", "/readyz", "/metrics"];

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Decides by the fields of a request alone.
pub(super) fn check(request: &Parts, policy: &AdminPolicy, arrival: Arrival) -> Result<(), Forbidden> {
    let Parts { uri, headers: fields, .. } = request;
    let mut hosts = 0;
    for value in fields.get_all(header::HOST) {
        hosts += 1;
        let host = value.to_str().unwrap_or("?");
        if !is_own(host, policy, arrival) {
            return Err(Forbidden::Host(escape_within(host, 100)));
        }
    }
    // Of two nobody knows which is meant.
    if hosts > 1 {
        return Err(Forbidden::Host("more than one".into()));
    }
    if let Some(named) = uri.authority().filter(|named| !is_own(named.as_str(), policy, arrival)) {
        return Err(Forbidden::Host(escape_within(named.as_str(), 100)));
    }
    if hosts == 0 && !WITHOUT_HOST.contains(&uri.path()) {
        return Err(Forbidden::NoHost);
    }
    // What a browser says of who asks (Fetch Metadata); `none` is a person.
    let sites = fields.get_all(SEC_FETCH_SITE);
    if sites.iter().any(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
        return Err(Forbidden::CrossSite);
    }
    let is_own_origin = |origin: &str| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_some_and(|authority| is_own(authority, policy, arrival))
    };
    if fields.get_all(header::ORIGIN).iter().any(|origin| !origin.to_str().is_ok_and(is_own_origin)) {
        return Err(Forbidden::CrossSite);
    }
    Ok(())
}

/// Whether a host with or without a port means this listener. The port does not matter: a forwarded one may differ.
fn is_own(text: &str, policy: &AdminPolicy, arrival: Arrival) -> bool {
    let Ok(Authority { host, .. }) = text.parse::<Authority>() else { return false };
    let is_here = match &host {
        Host::Ip(ip) => {
            let ip = ip.to_canonical();
            ip.is_loopback() || arrival == Arrival::Tcp(Some(ip))
        }
        Host::Name(name) => name.as_str() == "localhost",
    };
    is_here || policy.hosts.contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(uri: &str, fields: &[(&'static str, &'static str)]) -> Result<(), Forbidden> {
        let policy = AdminPolicy { hosts: vec!["admin.example".parse().unwrap()], read_only: false };
        let request =
            fields.iter().fold(http::Request::get(uri), |request, (name, value)| request.header(*name, *value));
        check(&request.body(()).unwrap().into_parts().0, &policy, Arrival::Tcp(Some([192, 0, 2, 1].into())))
    }

    #[test]
    fn the_host_has_to_be_this_listeners() {
        for own in ["localhost", "localhost:9", "LOCALHOST", "127.0.0.1:9", "[::1]:9", "192.0.2.1", "admin.example:1"] {
            assert_eq!(decide("/status", &[("host", own)]), Ok(()), "{own}");
        }
        for foreign in ["evil.example", "localhost.evil.example", "192.0.2.2", "", "localhost@evil.example", "a b"] {
            assert_eq!(decide("/livez", &[("host", foreign)]), Err(Forbidden::Host(foreign.into())), "{foreign}");
        }
        assert!(decide("http://evil.example/livez", &[("host", "localhost")]).is_err());
        assert_eq!(decide("/metrics", &[]), Ok(()));
        assert_eq!(decide("/status", &[]), Err(Forbidden::NoHost));
    }

    #[test]
    fn web_pages_of_other_origins_are_refused() {
        const HOST: (&str, &str) = ("host", "localhost:9");
        for own in [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none"), ("origin", "http://127.0.0.1:9")] {
            assert_eq!(decide("/", &[HOST, own]), Ok(()), "{own:?}");
        }
        for foreign in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
        ] {
            assert_eq!(decide("/metrics", &[HOST, foreign]), Err(Forbidden::CrossSite), "{foreign:?}");
        }
    }
}
