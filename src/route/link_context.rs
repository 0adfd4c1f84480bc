//! Where a client stands, and what other places are from there: which URL leads it to them by way of this proxy, and
//! where a redirect may lead on its behalf. Pure.

use std::net::SocketAddr;

use crate::message::{
    authority::{Authority, Host},
    url::Origin,
};

use super::{table::Routes, upstream::Upstream};

/// Where a client stands.
#[derive(Debug)]
pub struct LinkContext<'a> {
    /// The rules in force.
    pub routes: &'a Routes,
    /// The upstream of its listener; None on a forward listener.
    pub own: Option<&'a Upstream>,
    /// The upstreams of all fixed routes, and where their listeners are bound.
    pub fixed: Vec<(&'a Upstream, SocketAddr)>,
    /// The authority that the client reached us by: what it named, else where its listener is bound. None where that
    /// is on all addresses.
    pub client: Option<Authority>,
    /// The only port at which a URL leads to this proxy, where the client does not connect to it knowingly: what is
    /// sent to others could go out in plain text.
    pub only_port: Option<u16>,
    /// Whether the upstream was shown the authority that the client named, and may take it for its own.
    pub shown: bool,
}

impl LinkContext<'_> {
    /// The authority to which the client says `http://` instead, and is led to the same upstream. None where the URL
    /// is not of one that we serve, or leads the client rightly as it is.
    pub fn local_form(&self, origin: &Origin) -> Option<Authority> {
        if origin.https && self.is_shown(origin) {
            return self.client.clone();
        }
        let host = &origin.authority.host;
        let port = self.routes.port(&origin.authority, origin.https);
        match self.own {
            Some(own) if own.is_at(host, port) => self.client.clone(),
            Some(_) => self.reached(self.fixed.iter().find(|(upstream, _)| upstream.is_at(host, port))?.1),
            None if origin.https && self.routes.select(&origin.authority, true).is_ok() => self.plain(host, port),
            None => None,
        }
    }

    /// The upstream that a redirect may lead to, and the Host to ask it for: the client's own or another fixed
    /// route's, where the client came by a fixed route; else what the policy allows.
    pub fn hop(&self, origin: &Origin) -> Option<(Upstream, String)> {
        let Authority { host, .. } = &origin.authority;
        let shown = self.is_shown(origin);
        let https = origin.https && !shown;
        let port = self.routes.port(&origin.authority, https);
        let allowed = || self.routes.select(&origin.authority, https).ok();
        let upstream = match self.own {
            Some(own) if shown || own.is_at(host, port) => own.clone(),
            Some(_) => match self.fixed.iter().find(|(upstream, _)| upstream.is_at(host, port)) {
                Some((upstream, _)) => (*upstream).clone(),
                None => allowed()?,
            },
            None => allowed()?,
        };
        let field = if shown { origin.authority.to_string() } else { upstream.host_field() };
        Some((upstream, field))
    }

    /// Whether this is what the upstream takes for its own authority, since it was shown that.
    fn is_shown(&self, origin: &Origin) -> bool {
        self.shown && self.client.as_ref() == Some(&origin.authority)
    }

    /// The authority that means this TLS port by the port rules of plain requests.
    fn plain(&self, host: &Host, tls: u16) -> Option<Authority> {
        let mapped = self.routes.ports.iter().filter(|(_, to)| **to == tls).map(|(plain, _)| *plain).min();
        let ports = [None, Some(tls), mapped];
        let leads_here = |port: &Option<u16>| self.only_port.is_none_or(|only| port.unwrap_or(80) == only);
        let ports = ports.into_iter().filter(leads_here);
        let mut all = ports.map(|port| Authority { host: host.clone(), port });
        all.find(|authority| self.routes.port(authority, false) == tls)
    }

    /// How the client reaches another listener. One on all addresses has the host that the client reached this one by.
    fn reached(&self, bound: SocketAddr) -> Option<Authority> {
        let host = match bound.ip() {
            ip if ip.is_unspecified() => self.client.as_ref()?.host.clone(),
            ip => Host::Ip(ip),
        };
        Some(Authority { host, port: Some(bound.port()) })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use certs_dev::{Bundle, Gallery};
    use time::OffsetDateTime;

    use crate::{
        clock::Clock,
        message::url,
        route::{policy::DestinationPolicy, upstream::TlsHandle},
        tls::{
            case::{Terms, Trust},
            client::{TlsClient, TlsSettings, TlsVersion},
            trust::TrustAnchors,
        },
    };

    use super::*;

    fn tls() -> TlsHandle {
        let gallery = Gallery::new(OffsetDateTime::now_utc()).unwrap();
        let bundle = [("root.pem".to_owned(), gallery.bundle_pem(Bundle::Root).into_bytes())];
        let anchors = Arc::new(TrustAnchors::from_pem("bundle", &bundle, Vec::new()).unwrap());
        let trust = Trust { anchors, crls: Arc::default(), terms: Terms::default() };
        let settings = TlsSettings { trust, min_version: TlsVersion::Tls12, client: None, report_only: None };
        TlsHandle(TlsClient::new(settings, Clock::System).unwrap())
    }

    fn routes(allows: &[&str]) -> Routes {
        Routes {
            policy: DestinationPolicy::new(allows.iter().map(|allow| allow.parse().unwrap()).collect()),
            ports: HashMap::from([(8080, 8443), (9090, 80), (9292, 19292)]),
            tls: tls(),
            upstreams: Vec::new(),
        }
    }

    fn origin(url: &str) -> Origin {
        url::split(url).unwrap().0
    }

    /// Where the URLs are from there, `-` where they stay as they are.
    fn check(context: &LinkContext<'_>, rows: &[(&str, &str)]) {
        for (url, expected) in rows {
            let local = context.local_form(&origin(url)).map_or("-".to_owned(), |local| local.to_string());
            assert_eq!(local, *expected, "{url}");
        }
    }

    fn hop(context: &LinkContext<'_>, url: &str) -> Option<(String, String)> {
        context.hop(&origin(url)).map(|(upstream, host)| (upstream.authority(), host))
    }

    #[test]
    fn at_a_fixed_route_its_upstream_is_where_the_client_is_and_others_at_their_listeners() {
        let routes = routes(&["allowed.example"]);
        let fixed = |name: &str, port| routes.fixed(&name.parse().unwrap(), port).unwrap();
        let (a, b, c) = (fixed("a.example", 9443), fixed("b.example", 443), fixed("c.example", 8443));
        let bound = |address: &str| address.parse::<SocketAddr>().unwrap();
        let all = vec![(&a, bound("127.0.0.1:1")), (&b, bound("127.0.0.1:2")), (&c, bound("0.0.0.0:3"))];
        let client = Some("Local:7001".parse().unwrap());
        let mut context =
            LinkContext { routes: &routes, own: Some(&a), fixed: all, client, only_port: None, shown: false };
        let rows = [
            ("https://a.example:9443/x", "local:7001"),
            ("HTTPS://A.example.:9443", "local:7001"),
            ("http://a.example:9443", "local:7001"),
            ("https://a.example", "-"),
            ("https://b.example", "127.0.0.1:2"),
            ("https://b.example:443", "127.0.0.1:2"),
            ("http://b.example", "127.0.0.1:2"),
            ("http://b.example:80", "127.0.0.1:2"),
            ("https://b.example:80", "-"),
            ("http://c.example:8080", "local:3"),
            ("https://c.example:8443", "local:3"),
            ("https://c.example:8080", "-"),
            ("https://allowed.example", "-"),
            ("https://local:7001", "-"),
            ("http://local:7001", "-"),
        ];
        check(&context, &rows);
        assert_eq!(hop(&context, "http://a.example:9443"), Some(("a.example:9443".into(), "a.example:9443".into())));
        assert_eq!(hop(&context, "http://b.example"), Some(("b.example:443".into(), "b.example".into())));
        assert_eq!(hop(&context, "http://c.example:8080"), Some(("c.example:8443".into(), "c.example:8443".into())));
        assert_eq!(
            hop(&context, "http://allowed.example:1"),
            Some(("allowed.example:1".into(), "allowed.example:1".into()))
        );
        assert_eq!(hop(&context, "https://local:7001"), None);
        assert_eq!(hop(&context, "https://other.example"), None);
        context.shown = true;
        check(&context, &[("https://local:7001", "local:7001"), ("http://local:7001", "-"), ("https://local", "-")]);
        for url in ["https://local:7001", "http://local:7001"] {
            assert_eq!(hop(&context, url), Some(("a.example:9443".into(), "local:7001".into())), "{url}");
        }
        (context.shown, context.client) = (false, None);
        check(
            &context,
            &[("https://a.example:9443", "-"), ("https://b.example", "127.0.0.1:2"), ("https://c.example:8443", "-")],
        );
    }

    #[test]
    fn at_a_forward_listener_a_plain_url_leads_to_the_same_port() {
        let routes = routes(&["*.example", "192.0.2.1"]);
        let client = Some("h.example:8080".parse().unwrap());
        let mut context =
            LinkContext { routes: &routes, own: None, fixed: Vec::new(), client, only_port: None, shown: false };
        let rows = [
            ("https://h.example", "h.example"),
            ("https://h.example:443", "h.example"),
            ("https://h.example:1234", "h.example:1234"),
            // By the port map: what is mapped to it, or itself; what means another port by it means nothing here.
            ("https://h.example:80", "h.example:9090"),
            ("https://h.example:8443", "h.example:8443"),
            ("https://h.example:19292", "h.example:19292"),
            ("https://h.example:8080", "-"),
            ("http://h.example", "-"),
            ("https://192.0.2.1:1", "192.0.2.1:1"),
            ("https://192.0.3.1:1", "-"),
            ("https://other.test", "-"),
        ];
        check(&context, &rows);
        assert_eq!(hop(&context, "http://h.example:8080"), Some(("h.example:8443".into(), "h.example:8443".into())));
        assert_eq!(hop(&context, "https://h.example:8080"), Some(("h.example:8080".into(), "h.example:8080".into())));
        assert_eq!(hop(&context, "https://other.test"), None);
        context.shown = true;
        check(&context, &[("https://h.example:8080", "h.example:8080")]);
        assert_eq!(hop(&context, "https://h.example:8080"), Some(("h.example:8443".into(), "h.example:8080".into())));
    }
}
