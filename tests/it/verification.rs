//! Who is believed: every certificate of the gallery in front of an origin, and what client, log and
//! origin see of it.

use certs_dev::{Bundle, Case, Expected};

use crate::support::{
    gallery::{self, Front},
    origin::exchange,
    proxy::Proxy,
};

const TOKEN: &str = "gAAAAAsecrettoken";

/// Asks through the n-th listener, with a token, and reads to the end.
async fn ask(proxy: &Proxy, n: usize) -> crate::support::origin::Seen {
    let request = format!(
        "GET /v1/images/detail?is_public=None HTTP/1.1\r\nHost: {}\r\nx-auth-token: {TOKEN}\r\nConnection: close\r\n\r\n",
        proxy.addr(n)
    );
    exchange(proxy.addr(n), request.as_bytes()).await
}

/// A proxy with a route to each front, all with this bundle.
fn proxy_for(fronts: &[Front], bundle: Bundle, more: &[&str]) -> Proxy {
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(bundle)];
    flags.extend(fronts.iter().flat_map(Front::route));
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Proxy::start(&flags)
}

async fn fronts(fits: impl Fn(Case) -> bool) -> Vec<Front> {
    let mut fronts = Vec::new();
    for case in Case::ALL.iter().copied().filter(|case| fits(*case)) {
        fronts.push(Front::start(case).await);
    }
    assert!(!fronts.is_empty());
    fronts
}

/// The three things that every refusal must show: the answer, the whole event, and an origin that saw
/// not one byte of the request.
async fn judge_all(bundle: Bundle, crl: bool) {
    let fits = |case: Case| case.bundle() == bundle && case.needs_crl() == crl;
    let fronts = fronts(fits).await;
    let list = gallery::crl();
    let more: &[&str] = if crl { &["--crl", &list] } else { &[] };
    let proxy = proxy_for(&fronts, bundle, more);
    for (n, front) in fronts.iter().enumerate() {
        let id = front.case.id();
        let before = proxy.audit().len();
        let seen = ask(&proxy, n).await;
        let text = seen.text();
        let events = proxy.audit().split_off(before);
        match front.case.expected() {
            Expected::Accept => {
                assert_eq!(seen.status(), 200, "{id}: {text}");
                assert_eq!(events.len(), 0, "{id}: {events:?}");
                assert_eq!(front.counters.requests(), 1, "{id}");
            }
            Expected::Refuse(code) => {
                assert_eq!(seen.status(), 403, "{id}: {text}");
                assert!(!seen.reset && text.contains(&format!("was not trusted: {code} (event ")), "{id}: {text}");
                assert!(text.contains("Proxy-Status: vouchsafe; error=tls_certificate_error"), "{id}: {text}");
                assert_eq!(events.len(), 1, "{id}: {events:?}");
                let event = &events[0];
                let field = |key: &str| event[key].as_str().unwrap_or_else(|| panic!("{id}: no {key} in {event}"));
                assert_eq!(field("event.action"), "tls-verification-refused", "{id}");
                assert_eq!(field("error.code"), code, "{id}: {event}");
                assert!(text.contains(field("event.id")), "{id}");
                assert!(field("error.message").len() > 20, "{id}: {event}");
                assert!(field("vouchsafe.hint").len() > 10, "{id}: {event}");
                let kind = if front.case.is_ip() { "ip" } else { "dns" };
                assert_eq!(field("vouchsafe.reference"), format!("{kind}:{}", front.case.name()), "{id}");
                assert_eq!(field("vouchsafe.upstream"), front.authority(), "{id}");
                assert_eq!(field("url.path"), "/v1/images/detail", "{id}");
                assert_eq!(event["vouchsafe.request_bytes_sent"], 0, "{id}");
                assert!(event["vouchsafe.chain_length"].as_u64() >= Some(1), "{id}: {event}");
                assert!(event["vouchsafe.offending"]["sha256"].is_string(), "{id}: {event}");
                assert_eq!(front.counters.application_bytes(), 0, "{id}: the origin saw a request");
            }
        }
    }
    let everything = format!("{}{:?}", proxy.raw_log(), proxy.audit());
    assert!(!everything.contains(TOKEN), "a token is in the log");
    assert!(!everything.contains("is_public"), "a query is in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_certificate_of_the_gallery_is_judged_as_it_must_be() {
    judge_all(Bundle::Root, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_in_the_bundle_are_judged_as_they_must_be() {
    judge_all(Bundle::Plus, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_where_a_list_says_so() {
    judge_all(Bundle::Root, true).await;
}
