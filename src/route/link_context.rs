//! Where a client stands, and what other places are from there: which URL leads it to them by way of this proxy, and
//! where a redirect may lead on its behalf. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::message::{
    authority::{Authority, Host},
    url::Origin,
};

use super::{table::Routes, upstream::Upstream};

/// Where a client stands.
#[derive(Debug)]
pub struct LinkContext<'a> {
    /// The current rules.
    pub routes: &'a Routes,
    /// The upstream of its listener; None on a forward listener.
    pub own: Option<&'a Upstream>,
    /// The address that its listener is bound to, if it has one.
    pub address: Option<IpAddr>,
    /// All fixed routes.
    pub fixed: Vec<FixedListener<'a>>,
    /// The ports of all forward listeners, for a client that resolves names to this host and whose requests have no
    /// more than their Host; `None` for every other.
    pub by_host: Option<Vec<u16>>,
    /// The authority that the client reached us by: what it named, else where its listener is bound. None where that
    /// is on all addresses.
    pub client: Option<Authority>,
    /// The only ports at which a URL leads to this proxy, where the client does not connect to it knowingly: what is
    /// sent to others could go out in plain text.
    pub only_ports: Option<Vec<u16>>,
    /// Whether the upstream was shown the authority that the client named, and may take it for its own.
    pub shown: bool,
    /// Whether the client speaks TLS to this proxy.
    pub tls: bool,
}

/// The listener of a fixed route.
#[derive(Clone, Copy, Debug)]
pub struct FixedListener<'a> {
    pub upstream: &'a Upstream,
    /// Where it is bound.
    pub bound: SocketAddr,
    /// How clients reach it, where the operator says so.
    pub advertised: Option<&'a Authority>,
    /// Whether its clients speak TLS.
    pub tls: bool,
}

impl FixedListener<'_> {
    /// Whether this URL leads to it.
    fn is_at(&self, Origin { https, authority }: &Origin) -> bool {
        let port = authority.port.unwrap_or(if *https { 443 } else { 80 });
        let bound = Host::Ip(self.bound.ip()) == authority.host && port == self.bound.port();
        self.tls == *https && (bound || self.advertised == Some(authority))
    }
}

impl LinkContext<'_> {
    /// The scheme of local forms: a client that speaks TLS is not led to plain HTTP, nor another one to TLS.
    pub fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The authority that a client requests instead, by [`Self::scheme`], and is led to the same upstream. None where the
    /// URL is not of one that we serve, or leads the client rightly as it is.
    pub fn local_form(&self, origin: &Origin) -> Option<Authority> {
        if origin.https && self.is_shown(origin) {
            return self.client.clone();
        }
        let host = &origin.authority.host;
        let port = self.routes.port(&origin.authority, origin.https);
        match self.own {
            Some(_) if self.is_listener(origin) => None,
            Some(own) if own.is_at(host, port) => self.client.clone(),
            Some(_) => {
                let mut alike = self.fixed.iter().filter(|fixed| fixed.tls == self.tls);
                self.reached(alike.find(|fixed| fixed.upstream.is_at(host, port))?)
            }
            None if origin.https && self.routes.select(&origin.authority, true).is_ok() => {
                self.plain(host, port).filter(|plain| self.is_caught(plain))
            }
            None => None,
        }
    }

    /// Whether a client that follows this URL, which has no local form, goes past the proxy.
    pub fn leads_past(&self, origin: &Origin) -> bool {
        let names_client = origin.https == self.tls && self.client.as_ref() == Some(&origin.authority);
        match self.own {
            Some(_) => !self.is_listener(origin) && !names_client,
            None => origin.https || !self.is_caught(&origin.authority),
        }
    }

    /// Whether this is the URL of a fixed route's listener: it leads here as it is, even where a server at the same
    /// address is the upstream of another route.
    fn is_listener(&self, origin: &Origin) -> bool {
        self.fixed.iter().any(|fixed| fixed.is_at(origin))
    }

    /// Whether a plain request to there arrives at a forward listener. By its Host alone it does so only at the ports
    /// of forward listeners; where the client's own port is none of them, something in between maps ports.
    fn is_caught(&self, plain: &Authority) -> bool {
        if let Some(ports) = &self.only_ports {
            return ports.contains(&plain.port.unwrap_or(80));
        }
        let Some(ports) = &self.by_host else { return true };
        let mapped = self.client.as_ref().is_some_and(|client| !ports.contains(&client.port.unwrap_or(80)));
        mapped || ports.contains(&plain.port.unwrap_or(80))
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
            Some(_) => match self.fixed.iter().find(|fixed| fixed.upstream.is_at(host, port)) {
                Some(fixed) => fixed.upstream.clone(),
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
        let leads_here =
            |port: &Option<u16>| self.only_ports.as_ref().is_none_or(|only| only.contains(&port.unwrap_or(80)));
        let ports = ports.into_iter().filter(leads_here);
        let mut all = ports.map(|port| Authority { host: host.clone(), port });
        all.find(|authority| self.routes.port(authority, false) == tls)
    }

    /// How the client reaches another listener: as it is advertised; else one on the same address as this one, or on all
    /// addresses, by the host that the client reached this one by.
    fn reached(&self, listener: &FixedListener<'_>) -> Option<Authority> {
        let FixedListener { bound, advertised, .. } = listener;
        if let Some(advertised) = advertised {
            return Some((*advertised).clone());
        }
        let host = match bound.ip() {
            ip if ip.is_unspecified() || Some(ip) == self.address => self.client.as_ref()?.host.clone(),
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
        route::{parent::ParentRules, policy::DestinationPolicy, upstream::TlsHandle},
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
            parents: ParentRules::default(),
            upstreams: Vec::new(),
        }
    }

    fn at<'a>(upstream: &'a Upstream, bound: &str) -> FixedListener<'a> {
        FixedListener { upstream, bound: bound.parse().unwrap(), advertised: None, tls: false }
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
        let all = vec![at(&a, "127.0.0.1:1"), at(&b, "127.0.0.2:2"), at(&c, "0.0.0.0:3")];
        let client = Some("Local:7001".parse().unwrap());
        let (address, by_host) = (Some([127, 0, 0, 1].into()), None);
        let mut context = LinkContext {
            routes: &routes,
            own: Some(&a),
            address,
            fixed: all,
            by_host,
            client,
            only_ports: None,
            shown: false,
            tls: false,
        };
        let rows = [
            ("https://a.example:9443/x", "local:7001"),
            ("HTTPS://A.example.:9443", "local:7001"),
            ("http://a.example:9443", "local:7001"),
            ("https://a.example", "-"),
            ("https://b.example", "127.0.0.2:2"),
            ("https://b.example:443", "127.0.0.2:2"),
            ("http://b.example", "127.0.0.2:2"),
            ("http://b.example:80", "127.0.0.2:2"),
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
            &[("https://a.example:9443", "-"), ("https://b.example", "127.0.0.2:2"), ("https://c.example:8443", "-")],
        );
    }

    #[test]
    fn a_listener_on_the_same_address_is_reached_by_the_name_that_the_client_uses() {
        let routes = routes(&[]);
        let fixed = |name: &str, port| routes.fixed(&name.parse().unwrap(), port).unwrap();
        let (keystone, glance) = (fixed("cloud.example", 5000), fixed("127.0.0.1", 9696));
        let nova = fixed("nova.example", 8774);
        let advertised = "proxy.example:18774".parse().unwrap();
        let nova = FixedListener { advertised: Some(&advertised), ..at(&nova, "127.0.0.2:8774") };
        let all = vec![at(&keystone, "127.0.0.2:5000"), at(&glance, "127.0.0.2:9696"), nova];
        let context = LinkContext {
            routes: &routes,
            own: Some(&keystone),
            address: Some([127, 0, 0, 2].into()),
            only_ports: None,
            fixed: all,
            by_host: None,
            client: Some("devstack:5000".parse().unwrap()),
            shown: false,
            tls: false,
        };
        let rows = [
            ("https://cloud.example:5000/v3", "devstack:5000"),
            ("https://127.0.0.1:9696", "devstack:9696"),
            ("http://127.0.0.1:9696", "devstack:9696"),
            ("http://127.0.0.2:9696", "-"),
            ("http://devstack:5000", "-"),
            ("https://cloud.example:8774", "-"),
            ("https://nova.example:8774/v2.1", "proxy.example:18774"),
            ("http://proxy.example:18774", "-"),
        ];
        check(&context, &rows);
        for (url, past) in [
            ("https://cloud.example:8774", true),
            ("http://cloud.example:8774", true),
            ("http://127.0.0.2:9696", false),
            ("http://proxy.example:18774", false),
            ("http://devstack:5000", false),
        ] {
            assert_eq!(context.leads_past(&origin(url)), past, "{url}");
        }
    }

    #[test]
    fn by_host_alone_a_plain_url_arrives_at_the_ports_of_forward_listeners() {
        let routes = routes(&["*.example"]);
        let mut context = LinkContext {
            routes: &routes,
            own: None,
            address: Some([127, 0, 0, 1].into()),
            only_ports: None,
            fixed: Vec::new(),
            by_host: Some(vec![5000, 9292, 80]),
            client: Some("keystone.example:5000".parse().unwrap()),
            shown: false,
            tls: false,
        };
        let served = [("https://glance.example:9292", "-"), ("https://g.example:5000", "g.example:5000")];
        check(&context, &served);
        check(&context, &[("https://g.example", "g.example"), ("https://nova.example:8774", "-")]);
        assert!(context.leads_past(&origin("http://nova.example:8774")));
        assert!(!context.leads_past(&origin("http://g.example:5000")));
        // Where the ports of clients are not those of the listeners, nothing is known of other ports.
        context.client = Some("keystone.example:15000".parse().unwrap());
        check(&context, &[("https://nova.example:8774", "nova.example:8774")]);
    }

    #[test]
    fn at_a_forward_listener_a_plain_url_leads_to_the_same_port() {
        let routes = routes(&["*.example", "192.0.2.1"]);
        let client = Some("h.example:8080".parse().unwrap());
        let (address, fixed, by_host) = (Some([127, 0, 0, 1].into()), Vec::new(), None);
        let mut context = LinkContext {
            routes: &routes,
            own: None,
            address,
            fixed,
            by_host,
            client,
            only_ports: None,
            shown: false,
            tls: false,
        };
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
