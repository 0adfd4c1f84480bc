//! `vouchsafe check`: what it says of servers is what the proxy would make of them, and what to do about it.

use std::sync::Arc;

use certs_dev::{
    Authority, Bundle, Case, Expected, Identity, LeafSpec,
    pki::{CaSpec, Validity, certificates_pem},
};
use rustls::{
    RootCertStore, ServerConfig,
    server::{ServerSessionMemoryCache, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::support::{
    command::{Said, vouchsafe},
    gallery::{self, Front, GALLERY},
    origin::Origin,
};

/// The flags that a front is to be met with, but for the bundle.
fn to(front: &Front) -> Vec<String> {
    let mut flags = Vec::new();
    if front.case.needs_crl() {
        flags.extend(["--crl".into(), gallery::crl()]);
    }
    if !front.case.is_ip() {
        flags.extend(["--connect-to".into(), format!("{}={}", front.authority(), front.address)]);
    }
    flags
}

fn url(front: &Front) -> String {
    format!("https://{}/v1/images?limit=1", front.authority())
}

fn check(bundle: &str, args: &[String]) -> Said {
    let mut all = vec!["check".to_owned(), "--ca-bundle".into(), bundle.to_owned()];
    all.extend_from_slice(args);
    vouchsafe(&all)
}

fn codes(findings: &Value) -> Vec<&str> {
    findings.as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_certificate_of_the_gallery_is_told_as_it_is_and_with_what_to_do() {
    let failures = include_str!("../../docs/failures.md");
    for case in Case::ALL.iter().copied() {
        let (front, id) = (Front::start(case).await, case.id());
        let bundle = gallery::bundle(case.bundle());
        let mut args = to(&front);
        args.push(url(&front));
        let text = check(&bundle, &args);
        args.push("--json".into());
        let json = check(&bundle, &args);
        let all = json.json();
        let one = &all[0];
        assert_eq!(all.as_array().unwrap().len(), 1, "{id}");
        assert_eq!(one["asked"], url(&front).replace("limit=1", "…"), "{id}");
        assert_eq!(one["upstream"], front.authority(), "{id}");
        assert_eq!(one["address"], front.address.to_string(), "{id}");
        let title = text.out.lines().next().unwrap();
        match case.expected() {
            Expected::Accept => {
                assert_eq!((text.code, json.code), (Some(0), Some(0)), "{id}: {text:?}");
                assert_eq!(title, format!("✔ {}  trusted", front.authority()), "{id}");
                assert!(!text.out.contains("fix:") && !text.out.contains('✘'), "{id}: {}", text.out);
                assert_eq!((&one["verdict"], &one["code"]), (&"trusted".into(), &Value::Null), "{id}");
                assert_eq!(one["tls"]["version"], "TLSv1.3", "{id}");
                assert!(one["until"].is_string() && codes(&one["findings"]).is_empty(), "{id}: {one}");
                assert_eq!(one["path"][0], serde_json::json!({ "in": "presented", "index": 0 }), "{id}");
            }
            Expected::Refuse(code) => {
                assert_eq!((text.code, json.code), (Some(1), Some(1)), "{id}: {text:?}");
                assert_eq!(title, format!("✘ {}  refused: {code}", front.authority()), "{id}");
                let fix = text.out.lines().find(|line| line.starts_with("  fix: ")).unwrap();
                assert!(fix.ends_with(&format!("(vouchsafe explain {code})")), "{id}: {fix}");
                assert!(failures.contains(&format!("\n## {code}\n")), "{id}");
                assert!(
                    text.out.contains(&format!(" {code}: {}", one["message"].as_str().unwrap())),
                    "{id}: {}",
                    text.out
                );
                assert_eq!((&one["verdict"], &one["code"]), (&"refused".into(), &code.into()), "{id}");
                // A case is wrong in one respect; without extensions there is no name either.
                let expected = if case == Case::Version1 { vec![code, "no_san"] } else { vec![code] };
                assert_eq!(codes(&one["findings"]), expected, "{id}: {one}");
                let failed = one["checks"].as_array().unwrap().iter().filter(|check| check["result"] == "failed");
                let failed: Vec<_> = failed.flat_map(|check| check["codes"].as_array().unwrap()).collect();
                assert_eq!(failed, expected, "{id}: {one}");
                assert!(one["path"].is_null() && one["until"].is_null(), "{id}: {one}");
            }
        }
        assert_eq!(front.counters.application_bytes(), 0, "{id}: something was sent");
        assert_eq!(front.counters.connections(), 2, "{id}");
    }
}

/// A text without what changes from day to day.
fn steady(text: &str, front: &Front, bundle: &str) -> String {
    let text = text.replace(&front.address.port().to_string(), "PORT").replace(bundle, "BUNDLE");
    let is_day = |word: &str| word.len() == 10 && word.bytes().filter(|byte| *byte == b'-').count() == 2;
    let line = |line: &str| {
        let (mut words, mut before) = (Vec::new(), "");
        for word in line.split(' ') {
            words.push(match word {
                word if is_day(word) => "DAY",
                _ if before == "sha256" => "HEX",
                word if word.strip_prefix('(').is_some_and(|n| n.parse::<u32>().is_ok()) => "(N",
                word => word,
            });
            before = word;
        }
        words.join(" ") + "\n"
    };
    text.lines().map(line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_and_an_incomplete_chain_read_like_this() {
    for (case, expected) in [(Case::Good, GOOD), (Case::MissingIntermediate, MISSING)] {
        let front = Front::start(case).await;
        let bundle = gallery::bundle(Bundle::Root);
        let mut args = to(&front);
        args.push(url(&front));
        let text = steady(&check(&bundle, &args).out, &front, &bundle);
        assert!(text == expected, "{text}\n--- is not ---\n{expected}");
    }
}

const GOOD: &str = "\
✔ good.gallery.test:PORT  trusted
  address  127.0.0.1:PORT, as configured
  name     dns:good.gallery.test, SNI good.gallery.test
  bundle   --ca-bundle `BUNDLE`: 1 certificate
  chain
    CN=Gallery Root  [in the bundle]
    │  self-signed, P-256, DAY to DAY (N days left), sha256 HEX
    └─ CN=Gallery Intermediate  [sent 2nd]
       │  P-256, DAY to DAY (N days left), sha256 HEX
       └─ CN=good  [the server's own]
             for dns:good.gallery.test
             P-256, DAY to DAY (N days left), sha256 HEX
  checks
    ✔ TLS                 TLSv1.3, TLS13_AES_256_GCM_SHA384
    – client certificate  not requested
    ✔ chain               leads to `CN=Gallery Root` in the bundle
    ✔ dates               all are valid now; the first expires on DAY (N days left)
    ✔ name                the certificate is valid for `good.gallery.test`
    ✔ purpose             the certificate is for servers
    ✔ keys                strong enough: P-256
    ✔ signatures          each certificate is signed by the one above it
    – revocation          no revocation lists are configured
    – pins                no pins are configured
";

const MISSING: &str = "\
✘ missing-intermediate.gallery.test:PORT  refused: incomplete_chain
  address  127.0.0.1:PORT, as configured
  name     dns:missing-intermediate.gallery.test, SNI missing-intermediate.gallery.test
  bundle   --ca-bundle `BUNDLE`: 1 certificate
  chain
    CN=Gallery Intermediate  [MISSING: neither sent nor in the bundle]
    └─ CN=missing-intermediate  [the server's own]
          for dns:missing-intermediate.gallery.test
          P-256, DAY to DAY (N days left), sha256 HEX
  checks
    ✔ TLS                 TLSv1.2 or newer; the handshake was not finished
    – client certificate  not reached
    ✘ chain               incomplete_chain: the certificate was issued by `CN=Gallery Intermediate`, which the server did not send and the bundle does not hold
    ✔ dates               all certificates sent are valid now; the first expires on DAY (N days left)
    ✔ name                the certificate is valid for `missing-intermediate.gallery.test`
    ✔ purpose             the certificate is for servers
    ✔ keys                strong enough: P-256
    – signatures          not reached
    – revocation          no revocation lists are configured
    – pins                no pins are configured
  fix: configure the server to send its intermediate certificate; or, if the CA is unknown, add its root to --ca-bundle once you have its fingerprint: confirm it with the owner, not from this connection (vouchsafe explain incomplete_chain)
";

#[tokio::test(flavor = "multi_thread")]
async fn several_are_told_in_their_order_and_the_worst_decides() {
    let (good, bad) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
    let bundle = gallery::bundle(Bundle::Root);
    let flags = [to(&good), to(&bad)].concat();
    for (order, code) in [(vec![&good, &bad, &good], 1), (vec![&bad, &good], 1), (vec![&good, &good], 0)] {
        let args = [flags.clone(), order.iter().map(|front| url(front)).collect()].concat();
        let said = check(&bundle, &args);
        assert_eq!(said.code, Some(code), "{said:?}");
        let titles: Vec<_> = said.out.lines().filter(|line| line.starts_with(['✔', '✘'])).collect();
        assert_eq!(titles.len(), order.len(), "{}", said.out);
        for (title, front) in titles.iter().zip(&order) {
            assert!(title.contains(&front.authority()), "{title}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_before_tls_is_told_with_what_to_do() {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_address = plain.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let mut some = [0; 16];
            let _ = stream.read(&mut some).await;
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    });
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let bundle = gallery::bundle(Bundle::Root);
    for (asked, class) in [
        ("https://nosuch.invalid".to_owned(), "dns_"),
        (closed.to_string(), "connection_refused"),
        (format!("https://{plain_address}"), "not_tls"),
    ] {
        let said = check(&bundle, &["--connect-timeout".into(), "3s".into(), asked.clone()]);
        assert_eq!(said.code, Some(1), "{said:?}");
        let title = said.out.lines().next().unwrap();
        assert!(title.starts_with("! ") && title.contains(&format!("connection: {class}")), "{title}");
        assert!(said.out.contains(&format!(" {class}")) && said.out.contains("\n  fix: "), "{}", said.out);
        let json = check(&bundle, &["--connect-timeout".into(), "3s".into(), "--json".into(), asked]).json();
        let one = &json[0];
        assert_eq!(one["verdict"], "no_connection", "{one}");
        assert!(one["code"].as_str().unwrap().starts_with(class) && one["fix"].is_string(), "{one}");
        assert_eq!(one["presented"], serde_json::json!([]), "{one}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_verified_as_an_address() {
    let front = Front::start(Case::GoodIp).await;
    let (bundle, port) = (gallery::bundle(Bundle::Root), front.address.port());
    let six = format!("[::1]:{port}");
    let connect_to = format!("{six}={}", front.address);
    let args = ["--json", "--connect-to", &connect_to, &format!("https://{six}/"), &front.address.to_string()];
    let said = check(&bundle, &args.map(str::to_owned));
    assert_eq!(said.code, Some(0), "{said:?}");
    let all = said.json();
    assert_eq!((&all[0]["reference"], &all[0]["upstream"]), (&"ip:::1".into(), &six.into()));
    assert_eq!((&all[1]["reference"], &all[1]["sni"]), (&"ip:127.0.0.1".into(), &Value::Null));
    // Its neighbour, which has another address.
    let front = Front::start(Case::WrongIp).await;
    let said = check(&bundle, &[front.address.to_string()]);
    assert!(said.code == Some(1) && said.out.contains("refused: ip_san_missing"), "{said:?}");
}

fn written(text: &str) -> (tempfile::TempDir, String) {
    let directory = crate::support::dir();
    let path = directory.path().join("vouchsafe.toml");
    std::fs::write(&path, text).unwrap();
    (directory, path.display().to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_url_all_that_the_configuration_names_is_checked() {
    let (good_front, expired, other) =
        (Front::start(Case::Good).await, Front::start(Case::Expired).await, Front::start(Case::GoodWildcard).await);
    let bundle = gallery::bundle(Bundle::Root);
    let day = OffsetDateTime::now_utc().date() + time::Duration::days(9);
    let (_directory, file) = written(&format!(
        "route = [\"0.0.0.0:80=https://{good}\"]\nca_bundle = [\"{bundle}\"]\nconnect_to = [\"{good}={}\"]\n\
         [[upstream]]\nof = \"{}\"\nconnect_to = \"{}\"\nreport_only_until = \"{day}\"\n\
         [[upstream]]\nof = \"good.gallery.test\"\nmin_tls = \"1.3\"\n",
        good_front.address,
        expired.authority(),
        expired.address,
        good = good_front.authority(),
    ));
    let said = vouchsafe(&["check", "--config", &file, "--json"]);
    let all = said.json();
    let told = |key: &str| all.as_array().unwrap().iter().map(|one| one[key].clone()).collect::<Vec<_>>();
    assert_eq!(told("upstream"), [good_front.authority(), expired.authority()]);
    // One that is let through is not trusted, and that is what was asked.
    assert_eq!(told("verdict"), ["trusted", "bypassed"]);
    assert_eq!((said.code, &all[1]["code"]), (Some(1), &"expired".into()), "{said:?}");
    assert!(said.err.contains("NOT enforced until"), "{}", said.err);
    // A route on the command line takes the place of the file's.
    let connect_to = format!("{}={}", other.authority(), other.address);
    let route = format!("127.0.0.1:0=https://{}", other.authority());
    let said = vouchsafe(&["check", "--json", "--ca-bundle", &bundle, "--route", &route, "--connect-to", &connect_to]);
    assert_eq!((said.code, &said.json()[0]["upstream"]), (Some(0), &other.authority().into()), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_url_means_what_a_forward_listener_makes_of_it() {
    let front = Front::start(Case::Good).await;
    let bundle = gallery::bundle(Bundle::Root);
    let connect_to = format!("{}={}", front.case.name(), front.address);
    let flags = ["--json", "--connect-to", &connect_to, "--port-map", "8080=8443"].map(str::to_owned);
    let name = front.case.name();
    let asked = ["http://NAME", "http://NAME:80/x", "http://NAME:8080", "HTTPS://NAME:8080", "NAME"];
    let urls: Vec<_> = asked.iter().map(|url| url.replace("NAME", name)).collect();
    let said = check(&bundle, &[flags.to_vec(), urls].concat());
    let ports: Vec<_> = [443, 443, 8443, 8080, 443].iter().map(|port| format!("{name}:{port}")).collect();
    let all = said.json();
    let met: Vec<_> = all.as_array().unwrap().iter().map(|one| one["upstream"].as_str().unwrap()).collect();
    // The address to connect to has a port of its own.
    assert_eq!((met, said.code), (ports.iter().map(String::as_str).collect(), Some(0)), "{said:?}");
}

#[test]
fn a_question_that_is_wrong_is_none() {
    let bundle = gallery::bundle(Bundle::Root);
    for (args, says) in [
        (&["--ca-bundle", &bundle][..], "there is nothing to check"),
        (
            &["--ca-bundle", &bundle, "ftp://a.example"],
            "an `https://` URL, or a host with or without a port, is expected",
        ),
        (&["--ca-bundle", &bundle, "https://user:hunter2@a.example"], "before `@` is not accepted"),
        (&["https://a.example"], "no CA bundle is configured"),
        (&["--ca-bundle", &bundle, "https://"], "`https://`: the host is missing"),
        (&["--ca-bundle", "/nonexistent.pem", "https://a.example"], "No such file"),
    ] {
        let said = vouchsafe(&[&["check"], args].concat());
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{args:?}: {said:?}");
        assert!(said.err.contains(says) && !said.err.contains("hunter2"), "{args:?}: {}", said.err);
    }
}

/// Serves an identity to clients that have a certificate of the gallery, and to no others.
async fn demanding(identity: &Identity, version: &'static rustls::SupportedProtocolVersion) -> std::net::SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    GALLERY.bundle(Bundle::Root).into_iter().for_each(|root| roots.add(root).unwrap());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .unwrap();
    config.session_storage = ServerSessionMemoryCache::new(1);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                let _ = stream.read_u8().await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_client_certificate_is_told_from_one_that_got_it() {
    let bundle = gallery::bundle(Bundle::Root);
    // The gallery's one certificate for clients.
    let client = GALLERY.identity(Case::WrongPurpose).unwrap();
    let directory = crate::support::dir();
    let path = directory.path().join("client.pem");
    std::fs::write(&path, format!("{}{}", client.chain_pem(), client.key_pem())).unwrap();
    for version in [&TLS12, &TLS13] {
        let address = demanding(&GALLERY.identity(Case::GoodIp).unwrap(), version).await;
        let args = ["--json".to_owned(), address.to_string()];
        let said = check(&bundle, &args);
        let one = &said.json()[0];
        assert_eq!((said.code, &one["code"]), (Some(1), &"client_cert_required".into()), "{one}");
        let failed = one["checks"].as_array().unwrap().iter().filter(|check| check["result"] == "failed");
        assert_eq!(failed.map(|check| &check["check"]).collect::<Vec<_>>(), ["client_certificate"], "{one}");
        assert_eq!(one["presented_count"], 2, "{one}");
        let with = ["--client-cert".to_owned(), path.display().to_string()];
        let said = check(&bundle, &[&with[..], &args].concat());
        let one = &said.json()[0];
        assert_eq!((said.code, &one["client_certificate"]["asked"]), (Some(0), &true.into()), "{one}");
        assert!(one["client_certificate"]["sent"].is_string(), "{one}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_trusted_but_odd_is_worth_a_warning() {
    let now = OffsetDateTime::now_utc();
    let root = Authority::root("Odd Root", now).unwrap();
    let intermediate = root.intermediate("Odd Intermediate", now).unwrap();
    let spec = LeafSpec { validity: Validity::days(now, -1, 10), ..LeafSpec::new("odd", now) };
    let mut own = intermediate.issue(&spec.ip(std::net::Ipv4Addr::LOCALHOST)).unwrap();
    let below = intermediate.intermediate("Odd Stranger", now).unwrap();
    own.chain.insert(1, below.certificate_der());
    let directory = crate::support::dir();
    let bundle = directory.path().join("bundle.pem");
    std::fs::write(&bundle, root.certificate_pem()).unwrap();
    let bundle = bundle.display().to_string();
    let origin = Origin::with_identity(&own, |_, _| Vec::new()).await;
    let said = check(&bundle, &[origin.address.to_string()]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for warning in [
        "warning: `CN=odd` expires on",
        "warning: the server also sends certificates that are not needed: `CN=Odd Stranger`",
    ] {
        assert!(said.out.contains(warning), "{}", said.out);
    }
    // The certificate alone in the bundle.
    std::fs::write(&bundle, certificates_pem(own.end_entity())).unwrap();
    let said = check(&bundle, &[origin.address.to_string()]);
    assert!(said.code == Some(0) && said.out.contains("is in the bundle itself: when"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_in_the_wrong_order_is_trusted_with_a_word() {
    let now = OffsetDateTime::now_utc();
    let root = Authority::root("Order Root", now).unwrap();
    let upper = root.subordinate(&CaSpec { path_length: None, ..CaSpec::intermediate("Order Upper", now) }).unwrap();
    let lower = upper.intermediate("Order Lower", now).unwrap();
    let mut own = lower.issue(&LeafSpec::new("order", now).ip(std::net::Ipv4Addr::LOCALHOST)).unwrap();
    let directory = crate::support::dir();
    let bundle = directory.path().join("bundle.pem");
    std::fs::write(&bundle, root.certificate_pem()).unwrap();
    for wrong in [false, true] {
        if wrong {
            own.chain.swap(1, 2);
        }
        let origin = Origin::with_identity(&own, |_, _| Vec::new()).await;
        let said = check(&bundle.display().to_string(), &[origin.address.to_string()]);
        assert_eq!((said.code, said.out.contains("in the wrong order")), (Some(0), wrong), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_wrong_is_told_at_once() {
    let now = OffsetDateTime::now_utc();
    let root = Authority::root("Worst Root", now).unwrap();
    let spec = LeafSpec { validity: Validity::days(now, -100, -10), ..LeafSpec::new("worst", now) };
    let mut own = root.intermediate("Worst Intermediate", now).unwrap().issue(&spec.dns("elsewhere.test")).unwrap();
    own.chain.truncate(1);
    let origin = Origin::with_identity(&own, |_, _| Vec::new()).await;
    let bundle = gallery::bundle(Bundle::Root);
    let said = check(&bundle, &["--json".into(), origin.address.to_string()]);
    let one = &said.json()[0];
    assert_eq!(codes(&one["findings"]), ["incomplete_chain", "expired", "ip_san_missing"], "{one}");
    let text = check(&bundle, &[origin.address.to_string()]).out;
    assert_eq!(text.lines().filter(|line| line.starts_with("  fix: ")).count(), 3, "{text}");
}
