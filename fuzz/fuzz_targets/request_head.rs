//! A request's head, read as hyper reads it: one destination that every reader would agree on, or a sentence.

#![no_main]

use std::{collections::HashMap, sync::LazyLock};

use http::{
    HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{CONNECTION, HOST, TE},
};
use libfuzzer_sys::fuzz_target;

use vouchsafe::{
    message::{
        authority::Authority,
        fields::{self, Pseudonym},
        target::{self, Form, Target},
    },
    route::{
        policy::DestinationPolicy,
        table::{RouteError, Routes},
        upstream::TlsHandle,
    },
    tls::crl::Crls,
};
use vouchsafe_fuzz::{believing, is_plain};

/// A forward listener that allows names below one suffix, one address, and one host at one port.
static ROUTES: LazyLock<Routes> = LazyLock::new(|| {
    let allows = ["*.allowed.test", "192.0.2.1", "one.test:8443"].map(|allow| allow.parse().expect("a pattern"));
    Routes {
        policy: DestinationPolicy::new(allows.to_vec()),
        ports: HashMap::from([(8080, 8443)]),
        tls: TlsHandle(believing(Crls::default())),
        upstreams: Vec::new(),
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((request, raw)) = read(input) else { return };
    let target = match target::read(&request) {
        Ok(target) => target,
        Err(error) => return is_plain(&error.to_string()),
    };
    is_one_target(&request, &raw, &target);
    if let Some(authority) = &target.authority {
        is_routed(authority, target.https);
    }
    is_passed_on(request, &target);
});

/// hyper's own way: httparse with its defaults, then the types of `http`. Gives the raw target, too.
fn read(input: &[u8]) -> Option<(Request<()>, String)> {
    let mut lines = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut lines);
    if !parsed.parse(input).ok()?.is_complete() {
        return None;
    }
    let raw = parsed.path?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::try_from(raw.as_bytes()).ok()?;
    *request.version_mut() = if parsed.version? == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).expect("httparse lets a bad name through");
        let value = HeaderValue::from_bytes(line.value).expect("httparse lets a bad value through");
        request.headers_mut().append(name, value);
    }
    Some((request, raw.to_owned()))
}

/// The target says one thing, and what goes upstream is what came, byte for byte.
fn is_one_target(request: &Request<()>, raw: &str, target: &Target) {
    let hosts: Vec<_> = request.headers().get_all(HOST).iter().collect();
    assert!(hosts.len() <= 1);
    let connect = request.method() == Method::CONNECT;
    assert_eq!(target.form == Form::Authority, connect);
    assert!(target.form != Form::Asterisk || (raw == "*" && request.method() == Method::OPTIONS));
    // A fragment is never sent (RFC 9112 section 3.2.1).
    let said = raw.split('#').next().unwrap_or_default();
    let sent = target.origin_uri().to_string();
    match target.form {
        Form::Origin => assert!(said.starts_with('/') && sent == said, "{said} became {sent}"),
        Form::Asterisk => assert_eq!(sent, "*"),
        Form::Authority => assert!(target.authority.as_ref().is_some_and(|authority| authority.port.is_some())),
        Form::Absolute => {
            let (scheme, rest) = said.split_once("://").expect("a scheme");
            assert_eq!(target.https, scheme.eq_ignore_ascii_case("https"));
            let path = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, path) = rest.split_at(path);
            assert!(!authority.contains('@'), "{raw}");
            assert_eq!(target.authority, authority.parse().ok(), "{raw}");
            let slash = if path.starts_with('/') { "" } else { "/" };
            assert_eq!(sent, format!("{slash}{path}"), "{raw}");
        }
    }
    if matches!(target.form, Form::Origin | Form::Asterisk) {
        let host = hosts.first().map(|host| host.to_str().expect("plain"));
        assert!(host.is_some() || request.version() == Version::HTTP_10);
        let authority = host.filter(|host| !host.is_empty()).map(|host| host.parse::<Authority>().expect("one"));
        assert_eq!(target.authority, authority);
    }
}

/// Where it leads is what the policy allows, under the name that was asked for.
fn is_routed(authority: &Authority, https: bool) {
    assert_eq!(authority.to_string().parse::<Authority>().as_ref(), Ok(authority));
    let port = match (authority.port, https) {
        (None, _) | (Some(80), false) => 443,
        (Some(8080), false) => 8443,
        (Some(port), _) => port,
    };
    let host = authority.host.to_string();
    let allowed = host.ends_with(".allowed.test") || host == "192.0.2.1" || (host == "one.test" && port == 8443);
    match ROUTES.select(authority, https) {
        Ok(upstream) => {
            assert!(allowed, "{authority}");
            assert_eq!((&upstream.host, upstream.port), (&authority.host, port));
            assert_eq!((&upstream.dial_host, upstream.dial_port), (&authority.host, port));
            assert_eq!(upstream.reference.value(), host);
            assert!(upstream.sni.is_none_or(|sni| sni == host));
        }
        Err(RouteError::Denied { host, port: denied }) => {
            assert!(!allowed);
            assert_eq!((&host, denied), (&authority.host, port));
        }
        Err(RouteError::Name(name)) => assert_eq!(name, host),
    }
}

/// The fields as the upstream gets them: one Host, and nothing of this hop.
fn is_passed_on(request: Request<()>, target: &Target) {
    if !fields::chunked_only(request.headers()) || !fields::one_framing(request.headers()) {
        return;
    }
    let (version, mut head) = (request.version(), request.into_parts().0.headers);
    fields::strip_request(&mut head, false);
    fields::set_host(&mut head, HeaderValue::from_static("upstream.test"));
    let own = Pseudonym::of(0xf022);
    own.append_via(&mut head, version);
    assert_eq!(head.get_all(HOST).iter().collect::<Vec<_>>(), ["upstream.test"], "{target:?}");
    assert!(own.is_in(&head));
    assert!(head.get(CONNECTION).map(HeaderValue::as_bytes) == head.get(TE).map(|_| b"TE".as_slice()));
}
