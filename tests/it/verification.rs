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
                assert!(
                    !seen.reset && text.contains(&format!("vouchsafe refused {}: {code} (event ", front.authority())),
                    "{id}: {text}"
                );
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
async fn every_certificate_of_the_gallery_gets_its_verdict() {
    judge_all(Bundle::Root, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_in_the_bundle_get_their_verdict() {
    judge_all(Bundle::Plus, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_where_a_list_says_so() {
    judge_all(Bundle::Root, true).await;
}

#[test]
fn no_case_of_the_gallery_is_left_out() {
    let judged = |case: &Case| matches!((case.bundle(), case.needs_crl()), (Bundle::Root, _) | (Bundle::Plus, false));
    assert!(Case::ALL.iter().all(judged));
}

/// Asks one front through a proxy with these flags, and gives status and the last event's class.
async fn verdict(case: Case, flags: Vec<String>) -> (u16, Option<String>) {
    let front = Front::start(case).await;
    let mut flags = flags;
    flags.extend(front.route());
    let proxy = Proxy::start(&flags);
    let status = ask(&proxy, 0).await.status();
    (status, proxy.audit().last().map(|event| event["error.code"].as_str().unwrap().to_owned()))
}

fn written(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let directory = crate::support::dir();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    (directory, path.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_is_refused_though_it_is_in_the_bundle() {
    let own = gallery::GALLERY.identity(Case::Revoked).unwrap();
    let leaf = certs_dev::pki::certificates_pem(own.end_entity());
    let (_directory, bundle) = written("bundle.pem", &format!("{}{leaf}", gallery::GALLERY.bundle_pem(Bundle::Root)));
    let with = |flags: &[&str]| flags.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>();
    let list = gallery::crl();
    let refused = verdict(Case::Revoked, with(&["--ca-bundle", &bundle, "--crl", &list])).await;
    assert_eq!(refused, (403, Some("revoked".into())));
    // Its neighbour: the same without the list.
    assert_eq!(verdict(Case::Revoked, with(&["--ca-bundle", &bundle])).await, (200, None));
    // And where the root is not in the bundle, so that no path is found.
    let (_directory, bundle) = written("leaf.pem", &leaf);
    let refused = verdict(Case::Revoked, with(&["--ca-bundle", &bundle, "--crl", &list])).await;
    assert_eq!(refused, (403, Some("revoked".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstreams_own_bundle_goes_with_the_same_revocation_lists() {
    let front = Front::start(Case::Revoked).await;
    let bundle = gallery::bundle(Bundle::Root);
    let text = format!("[[upstream]]\nof = \"{}\"\nca_bundle = [\"{bundle}\"]\n", front.authority());
    let (_directory, file) = written("vouchsafe.toml", &text);
    let mut flags: Vec<String> =
        ["--config", &file, "--ca-bundle", &bundle, "--crl", &gallery::crl()].map(str::to_owned).to_vec();
    flags.extend(front.route());
    let proxy = Proxy::start(&flags);
    assert_eq!(ask(&proxy, 0).await.status(), 403);
    assert_eq!(proxy.audit()[0]["error.code"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_root_is_trusted_alongside_the_one_it_replaces() {
    use certs_dev::pki::{Authority, CaSpec, LeafSpec, Validity};
    let now = time::OffsetDateTime::now_utc();
    let dated = |from, to| {
        let mut spec = CaSpec::root("Renewed Root", now);
        spec.validity = Validity::days(now, from, to);
        spec
    };
    let expired = Authority::self_signed(&dated(-400, -10)).unwrap();
    let renewed = expired.renewed(&dated(-10, 400)).unwrap();
    let own = renewed.issue(&LeafSpec::new("renewed", now).dns("good.gallery.test")).unwrap();
    let origin = crate::support::origin::Origin::with_identity(&own, |_, _| {
        vec![crate::support::origin::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]
    })
    .await;
    for (first, second) in [(&expired, &renewed), (&renewed, &expired)] {
        let text = format!("{}{}", first.certificate_pem(), second.certificate_pem());
        let (_directory, bundle) = written("bundle.pem", &text);
        let mut flags = vec!["--ca-bundle".to_owned(), bundle];
        flags.extend(origin.route());
        let proxy = Proxy::start(&flags);
        let seen = ask(&proxy, 0).await;
        assert_eq!(seen.status(), 200, "{}{:?}", seen.text(), proxy.audit());
    }
}

/// A certificate as an operator makes it in a hurry, by the real `openssl req -x509`.
fn openssl_self_signed() -> certs_dev::Identity {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let directory = crate::support::dir();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=store"])
        .args(["-addext", "subjectAltName=DNS:good.gallery.test,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .expect("openssl");
    assert!(made.status.success(), "{made:?}");
    let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
    certs_dev::Identity { chain, key: PrivateKeyDer::from_pem_file(key).unwrap() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_openssl_req_x509_makes_verifies_by_name_and_by_address_and_a_look_alike_does_not() {
    let (known, look_alike) = (openssl_self_signed(), openssl_self_signed());
    let (_directory, bundle) = written("bundle.pem", &known.chain_pem());
    for (own, status, code) in [(known, 200, None), (look_alike, 403, Some("self_signed_not_in_bundle"))] {
        let origin = crate::support::origin::Origin::with_identity(&own, |_, _| {
            vec![crate::support::origin::send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]
        })
        .await;
        let mut flags = vec!["--ca-bundle".to_owned(), bundle.clone()];
        flags.extend(origin.route());
        flags.extend(["--route".into(), format!("127.0.0.1:0=https://{}", origin.address)]);
        let proxy = Proxy::start(&flags);
        for n in 0..2 {
            assert_eq!(ask(&proxy, n).await.status(), status);
        }
        let codes: Vec<_> =
            proxy.audit().iter().map(|event| event["error.code"].as_str().unwrap().to_owned()).collect();
        assert_eq!(codes, code.map_or(vec![], |code| vec![code; 2]));
        assert_eq!(origin.requests().len(), if code.is_none() { 2 } else { 0 });
    }
}
