//! Clients that speak TLS: by CONNECT and at routes for TLS; the upstream is verified first, and every refusal is told.

use std::{
    fs,
    time::{Duration, Instant},
};

use std::net::SocketAddr;

use certs_dev::{Bundle, Case};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::support::{
    self,
    command::vouchsafe,
    gallery::{self, Front},
    local_ca::{LocalCa, ask, careless, connect, get, handshake},
    origin::{Origin, Step, exchange, send},
    proxy::Proxy,
};

const GOOD: &str = "good.gallery.test";

/// A proxy with a forward listener, to which these servers are known.
fn forward(ca: &LocalCa, fronts: &[&Front], more: &[&str]) -> Proxy {
    let bundle = gallery::bundle(Bundle::Root);
    let mut flags = vec!["--ca-bundle".into(), bundle, "--forward=127.0.0.1:0".into(), ca.flag()];
    for front in fronts {
        flags.push(format!("--allow={}", front.authority()));
        flags.push(format!("--connect-to={}={}", front.authority(), front.address));
    }
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Proxy::start(&flags)
}

/// A proxy with a route for TLS to an origin.
fn route(ca: &LocalCa, origin: &Origin, more: &[&str]) -> Proxy {
    let authority = format!("{GOOD}:{}", origin.address.port());
    let flags = [
        "--ca-bundle".into(),
        gallery::bundle(Bundle::Root),
        format!("--route=tls://127.0.0.1:0=https://{authority}"),
        format!("--connect-to={authority}={}", origin.address),
        ca.flag(),
    ];
    Proxy::start(&[&flags[..], &more.iter().map(|flag| (*flag).to_owned()).collect::<Vec<_>>()].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_verifies_the_upstream_first_and_tells_why_not_in_its_answer() {
    let ca = LocalCa::new(&[".gallery.test"]);
    let (good, expired) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
    let proxy = forward(&ca, &[&good, &expired], &[]);
    let refused = connect(proxy.addr(0), &expired.authority()).await.unwrap_err();
    let expected = format!("HTTP/1.1 403 expired: {}\r\n", expired.authority());
    assert!(refused.starts_with(&expected), "{refused}");
    let denied = connect(proxy.addr(0), "other.gallery.test:443").await.unwrap_err();
    assert!(denied.starts_with("HTTP/1.1 403 destination_denied: other.gallery.test:443\r\n"), "{denied}");
    assert_eq!((expired.counters.application_bytes(), good.counters.connections()), (0, 0));

    let tcp = connect(proxy.addr(0), &good.authority()).await.unwrap();
    // The server counts the end of its handshake when the client's last flight arrives, perhaps after the answer.
    assert_eq!(good.counters.connections(), 1, "verified before the answer");
    let mut tls = handshake(tcp, &ca.trusted(), GOOD).await.unwrap();
    let (answer, end) = ask(&mut tls, &get("/", &good.authority())).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && end.is_ok(), "{answer} {end:?}");
    assert_eq!((good.counters.connections(), good.counters.requests()), (1, 1), "on the connection that was verified");
    let codes: Vec<_> = proxy.audit().iter().map(|event| event["error.code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(codes, ["expired", "destination_denied"]);
    for (status, class, upstream, destination) in [
        (403, "expired", &*expired.authority(), &*expired.authority()),
        (403, "destination_denied", "", "other.gallery.test:443"),
        (200, "", &*good.authority(), &*good.authority()),
    ] {
        let line = proxy.wait_for_access("CONNECT", |event| {
            event["method"] == "CONNECT" && event["status"] == status && event["class"].as_str().unwrap_or("") == class
        });
        assert_eq!([&line["path"], &line["upstream"], &line["destination"]], ["", upstream, destination], "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_only_reported_is_dialled_once_and_recorded_with_the_request() {
    let ca = LocalCa::new(&[".gallery.test"]);
    let expired = Front::start(Case::Expired).await;
    let directory = support::dir();
    let config = directory.path().join("vouchsafe.toml");
    let day = (time::OffsetDateTime::now_utc() + time::Duration::days(3)).date();
    fs::write(&config, format!("[[upstream]]\nof = \"{}\"\nreport_only_until = {day}\n", expired.authority())).unwrap();
    let proxy = forward(&ca, &[&expired], &[&format!("--config={}", config.display())]);
    let tcp = connect(proxy.addr(0), &expired.authority()).await.unwrap();
    let mut tls = handshake(tcp, &ca.trusted(), "expired.gallery.test").await.unwrap();
    assert_eq!(proxy.audit(), [] as [serde_json::Value; 0], "nothing was sent yet");
    let (answer, _) = ask(&mut tls, &get("/one", &expired.authority())).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!((expired.counters.connections(), expired.counters.requests()), (1, 1));
    let audit = proxy.audit();
    let [event] = &audit[..] else { panic!("one: {audit:#?}") };
    assert_eq!(
        (&event["event.action"], &event["error.code"], &event["url.path"]),
        (&"tls-verification-bypassed".into(), &"expired".into(), &"/one".into())
    );
    let access = proxy.wait_for_access("the request", |event| event["path"] == "/one");
    assert_eq!((&access["request"], &access["trust"]), (&event["event.id"], &"bypassed".into()), "{access}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_connection_waits_for_its_request_though_none_is_kept_behind_it() {
    let ca = LocalCa::new(&[".gallery.test"]);
    let good = Front::start(Case::Good).await;
    let proxy = forward(&ca, &[&good], &["--pool-size=0"]);
    for count in 1..=2 {
        let tcp = connect(proxy.addr(0), &good.authority()).await.unwrap();
        let mut tls = handshake(tcp, &ca.trusted(), GOOD).await.unwrap();
        let (answer, _) = ask(&mut tls, &get("/", &good.authority())).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!((good.counters.connections(), good.counters.requests()), (count, count));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_has_one_name_a_day_of_life_and_no_common_name() {
    let ca = LocalCa::new(&[".gallery.test"]);
    let good = Front::start(Case::Good).await;
    let proxy = forward(&ca, &[&good], &[]);
    let mut serials = Vec::new();
    for _ in 0..2 {
        let tcp = connect(proxy.addr(0), &good.authority()).await.unwrap();
        let tls = handshake(tcp, &ca.trusted(), GOOD).await.unwrap();
        let chain = tls.get_ref().1.peer_certificates().unwrap().to_vec();
        assert_eq!((chain.len(), tls.get_ref().1.alpn_protocol()), (2, None));
        let leaf = vouchsafe::tls::presented::Certificate::read(&chain[0]).facts.unwrap();
        let issuer = vouchsafe::tls::presented::Certificate::read(&chain[1]).facts.unwrap();
        assert_eq!((leaf.subject.as_str(), &leaf.common_name), ("O=minted by vouchsafe", &None));
        assert_eq!((&leaf.dns_names[..], leaf.ip_addresses.len()), (&[GOOD.to_owned()][..], 0));
        assert_eq!((leaf.not_after - leaf.not_before).whole_hours(), 24);
        assert!((time::OffsetDateTime::now_utc() - leaf.not_before).whole_minutes() >= 59);
        assert_eq!((&leaf.authority_key_id, &leaf.key_id), (&issuer.key_id, &None));
        assert_eq!(leaf.purposes.as_deref(), Some(&["serverAuth".to_owned()][..]));
        serials.push(leaf.serial);
    }
    assert_eq!(serials[0], serials[1], "it is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_verifies_nothing_and_names_nothing_still_gets_a_verified_upstream() {
    let ca = LocalCa::new(&[".gallery.test"]);
    let good = Front::start(Case::Good).await;
    let proxy = forward(&ca, &[&good], &[]);
    let tcp = connect(proxy.addr(0), &good.authority()).await.unwrap();
    let mut tls = handshake(tcp, &careless(false), "anything.example").await.unwrap();
    let (answer, _) = ask(&mut tls, &get("/", &good.authority())).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_for_connect_handshake_and_request() {
    let ca = LocalCa::new(&[".gallery.test"]);
    let good = Front::start(Case::Good).await;
    let proxy = forward(&ca, &[&good], &["--allow=*.gallery.test"]);
    let tcp = connect(proxy.addr(0), &good.authority()).await.unwrap();
    let error = handshake(tcp, &careless(true), "expired.gallery.test").await.unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    for host in ["expired.gallery.test", "good.gallery.test:1"] {
        let tcp = connect(proxy.addr(0), &good.authority()).await.unwrap();
        let mut tls = handshake(tcp, &ca.trusted(), GOOD).await.unwrap();
        let (answer, _) = ask(&mut tls, &get("/", host)).await;
        assert!(answer.contains("details=\"host_mismatch\""), "{host}: {answer}");
    }
    assert_eq!(good.counters.requests(), 0);
    let codes: Vec<_> = proxy.audit().iter().map(|event| event["error.code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(codes, ["sni_mismatch", "host_mismatch", "host_mismatch"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_outside_the_ca_is_refused_with_the_command_that_makes_another() {
    let ca = LocalCa::new(&[".other.test", "192.0.2.0/24"]);
    let good = Front::start(Case::Good).await;
    let proxy = forward(&ca, &[&good], &[]);
    let refused = connect(proxy.addr(0), &good.authority()).await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 403 not_permitted_by_ca: "), "{refused}");
    assert_eq!(good.counters.connections(), 0);
    let event = &proxy.audit()[0];
    let hint = event["vouchsafe.hint"].as_str().unwrap();
    let command =
        "vouchsafe ca init NEW_DIRECTORY --permit .other.test --permit 192.0.2.0/24 --permit good.gallery.test";
    assert!(hint.contains(command), "{hint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_for_tls_has_the_names_by_which_it_is_reached() {
    let ca = LocalCa::new(&[GOOD, "localhost", "127.0.0.1"]);
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]).await;
    let proxy = route(&ca, &origin, &[]);
    for name in [GOOD, "localhost", "127.0.0.1"] {
        let tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
        let mut tls = handshake(tcp, &ca.trusted(), name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        let (answer, end) = ask(&mut tls, &get("/", name)).await;
        assert!(answer.ends_with("ok") && end.is_ok(), "{name}: {answer}");
    }
    let tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
    let error = handshake(tcp, &careless(true), "other.gallery.test").await.unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");

    let plain = exchange(proxy.addr(0), get("/", GOOD).as_bytes()).await;
    assert!(
        plain.status() == 403 && plain.text().contains("plain HTTP came to a listener for TLS"),
        "{}",
        plain.text()
    );
    let codes: Vec<_> = proxy.audit().iter().map(|event| event["error.code"].as_str().unwrap().to_owned()).collect();
    assert_eq!(codes, ["sni_mismatch", "plain_on_tls_listener"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_http_1_that_a_client_offers_is_agreed_and_nothing_else() {
    let ca = LocalCa::new(&["localhost"]);
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]).await;
    let proxy = route(&ca, &origin, &[]);
    for (offered, agreed) in [
        (&["http/1.0"][..], Some("http/1.0")),
        (&["h2", "http/1.0"], Some("http/1.0")),
        (&["http/1.0", "http/1.1"], Some("http/1.1")),
        (&["h2"], None),
        (&["http/0.9"], None),
    ] {
        let tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
        let shaken = handshake(tcp, &ca.offering(offered), "localhost").await;
        match (shaken, agreed) {
            (Ok(mut tls), Some(agreed)) => {
                assert_eq!(tls.get_ref().1.alpn_protocol(), Some(agreed.as_bytes()), "{offered:?}");
                let (answer, end) = ask(&mut tls, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
                assert!(answer.starts_with("HTTP/1.0 200 ") && end.is_ok(), "{offered:?}: {answer}");
            }
            (Err(error), None) => assert!(error.to_string().contains("NoApplicationProtocol"), "{offered:?}: {error}"),
            (shaken, _) => panic!("{offered:?}: {shaken:?}"),
        }
    }
}

/// A ClientHello of TLS 1.1.
const OLD_HELLO: &[u8] =
    b"\x16\x03\x01\x00\x2d\x01\x00\x00\x29\x03\x02aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x00\x00\x02\x00\x2f\x01\x00";

/// How long a client is held that is silent, or gets silent.
#[tokio::test(flavor = "multi_thread")]
async fn silent_clients_are_let_go_soon_whatever_they_said_before() {
    let ca = LocalCa::new(&["localhost"]);
    let expired = Front::start(Case::Expired).await;
    let (authority, bundle) = (expired.authority(), gallery::bundle(Bundle::Root));
    let head = Duration::from_millis(1500);
    let proxy = Proxy::start(&[
        format!("--route=tls://127.0.0.1:0=https://{authority}"),
        format!("--connect-to={authority}={}", expired.address),
        format!("--ca-bundle={bundle}"),
        ca.flag(),
        format!("--head-timeout={}ms", head.as_millis()),
        "--max-connections=1".into(),
        "--connection-wait=50s".into(),
    ]);
    // As a refused client of plain HTTP; see `LINGER_SILENCE`.
    let lingers = Duration::from_secs(2);
    for (what, least) in [("nothing", head), ("half a hello", head), ("an old hello", lingers), ("a handshake", head)] {
        let start = Instant::now();
        let mut tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
        let _open = match what {
            "nothing" => Ok(tcp),
            "a handshake" => Err(handshake(tcp, &ca.trusted(), "localhost").await.unwrap()),
            _ => {
                let hello = if what == "an old hello" { OLD_HELLO } else { &OLD_HELLO[..20] };
                tcp.write_all(hello).await.unwrap();
                Ok(tcp)
            }
        };
        // The only place is free again.
        let next = exchange(proxy.addr(0), get("/", "localhost").as_bytes()).await;
        assert!(next.text().contains("plain_on_tls_listener"), "{what}: {}", next.text());
        let held = start.elapsed();
        assert!((least..Duration::from_secs(20)).contains(&held), "{what}: {held:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upstream_is_told_behind_the_handshake_where_there_is_no_connect() {
    let ca = LocalCa::new(&["localhost", "127.0.0.1"]);
    let expired = Front::start(Case::Expired).await;
    let (authority, bundle) = (expired.authority(), gallery::bundle(Bundle::Root));
    let flags = [
        format!("--route=tls://127.0.0.1:0=https://{authority}"),
        format!("--connect-to={authority}={}", expired.address),
        format!("--ca-bundle={bundle}"),
        ca.flag(),
    ];
    let proxy = Proxy::start(&flags);
    let tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
    let mut tls = handshake(tcp, &ca.trusted(), "localhost").await.unwrap();
    let (answer, end) =
        ask(&mut tls, "POST /v1/images HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi").await;
    assert!(
        answer.starts_with("HTTP/1.1 403 Forbidden\r\n") && answer.contains("\r\nConnection: close\r\n"),
        "{answer}"
    );
    assert!(answer.contains("details=\"expired\"") && end.is_ok(), "{answer} {end:?}");
    assert_eq!((expired.counters.connections(), expired.counters.application_bytes()), (1, 0));

    // A client that goes away without a request leaves a record, too.
    let tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
    drop(handshake(tcp, &ca.trusted(), "localhost").await.unwrap());
    proxy.wait_for_log("the second refusal", |event| {
        event["error.code"] == "expired" && event.get("http.request.method").is_none()
    });
    let events = proxy.audit();
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[0]["http.request.method"], "POST");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_for_tls_leads_its_clients_back_to_itself() {
    let ca = LocalCa::new(&["127.0.0.1"]);
    let origin = Origin::start(|_, request| {
        let host = request.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap();
        let body = format!(
            r#"{{"versions": {{"values": [{{"id": "v3.14", "links": [{{"rel": "self", "href": "https://{host}/v3/"}}]}}]}}}}"#
        );
        vec![send(&format!(
            "HTTP/1.1 300 Multiple Choices\r\nLocation: https://{host}/next\r\nSet-Cookie: a=b; Domain={GOOD}; Secure\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))]
    })
    .await;
    let proxy = route(&ca, &origin, &["--rewrite=versions"]);
    let here = proxy.addr(0);
    let mut tls = handshake(TcpStream::connect(here).await.unwrap(), &ca.trusted(), "127.0.0.1").await.unwrap();
    let (answer, _) = ask(&mut tls, &get("/", &here.to_string())).await;
    assert!(answer.contains(&format!("\r\nLocation: https://{here}/next\r\n")), "{answer}");
    assert!(answer.contains("\r\nSet-Cookie: a=b; Secure\r\n"), "{answer}");
    assert!(answer.contains(&format!(r#""href": "https://{here}/v3/""#)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_for_tls_is_named_as_it_is_advertised() {
    let ca = LocalCa::new(&["127.0.0.2"]);
    let glance = Origin::start(|_, _| Vec::new()).await;
    let other = format!("{GOOD}:{}", glance.address.port());
    let location = format!("HTTP/1.1 302 Found\r\nLocation: https://{other}/v2\r\nContent-Length: 0\r\n\r\n");
    let keystone = Origin::start(move |_, _| vec![send(&location)]).await;
    let own = format!("{GOOD}:{}", keystone.address.port());
    let proxy = Proxy::start(&[
        "--ca-bundle".into(),
        gallery::bundle(Bundle::Root),
        format!("--route=tls://127.0.0.2:0=https://{own}"),
        format!("--route=tls://127.0.0.1:0=https://{other}"),
        "--advertise=tls://127.0.0.1:0=https://proxy.example:19292".into(),
        format!("--connect-to={own}={}", keystone.address),
        ca.flag(),
    ]);
    let here = proxy.addr(0);
    let mut tls = handshake(TcpStream::connect(here).await.unwrap(), &ca.trusted(), "127.0.0.2").await.unwrap();
    let (answer, _) = ask(&mut tls, &get("/", &here.to_string())).await;
    assert!(answer.contains("\r\nLocation: https://proxy.example:19292/v2\r\n"), "{answer}");
    for (advertised, problem) in [
        ("tls://127.0.0.1:1=http://a", "the clients of this route speak TLS\n  hint: write `https://a`"),
        ("127.0.0.1:1=https://a", "no route listens on 127.0.0.1:1\n  hint: write `tls://127.0.0.1:1`, as in --route"),
    ] {
        let bundle = gallery::bundle(Bundle::Root);
        let said = vouchsafe(&[
            "config",
            "check",
            "--ca-bundle",
            &bundle,
            "--route=tls://127.0.0.1:1=https://a.example",
            &ca.flag(),
            "--advertise",
            advertised,
        ]);
        assert!(said.code == Some(2) && said.err.contains(problem), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_does_not_end_like_what_is_whole() {
    let ca = LocalCa::new(&["localhost"]);
    let origin = Origin::start(|_, request| match request.contains("/cut") {
        true => vec![send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Step::Close],
        false => vec![send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole")],
    })
    .await;
    let proxy = route(&ca, &origin, &[]);
    for (path, body, is_whole) in [("/whole", "whole", true), ("/cut", "half", false)] {
        let tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
        let mut tls = handshake(tcp, &ca.trusted(), "localhost").await.unwrap();
        let (answer, end) = ask(&mut tls, &get(path, "localhost")).await;
        assert!(answer.ends_with(body) || !is_whole, "{answer}");
        assert_eq!(end.is_ok(), is_whole, "{path}: {end:?}");
    }
    // A client that cuts its request is no upstream's business.
    let tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
    let mut tls = handshake(tcp, &ca.trusted(), "localhost").await.unwrap();
    tls.write_all(b"PUT /half HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
    drop(tls);
    proxy.wait_for_access("the cut request", |event| event["path"] == "/half" && event["class"] == "request_body");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_both_ways_byte_for_byte() {
    let ca = LocalCa::new(&["localhost"]);
    let body = "0123456789abcdef".repeat(1 << 16);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let origin = Origin::start(move |_, _| vec![send(&answer)]).await;
    let proxy = route(&ca, &origin, &[]);
    let tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
    let mut tls = handshake(tcp, &ca.trusted(), "localhost").await.unwrap();
    let head = format!(
        "POST /large HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let (mut reader, mut writer) = tokio::io::split(&mut tls);
    let request = head + &body;
    let (written, read) = tokio::join!(writer.write_all(request.as_bytes()), async {
        let mut seen = Vec::new();
        reader.read_to_end(&mut seen).await.map(|_| seen)
    });
    written.unwrap();
    let seen = String::from_utf8(read.unwrap()).unwrap();
    assert!(seen.ends_with(&body), "{} bytes", seen.len());
    let line = proxy.wait_for_access("the request", |event| event["path"] == "/large");
    assert_eq!((line["request_bytes"].as_u64(), line["whole"].as_bool()), (Some(body.len() as u64), Some(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_client_and_one_that_writes_byte_by_byte_are_served() {
    let ca = LocalCa::new(&["localhost"]);
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]).await;
    let proxy = route(&ca, &origin, &[]);
    let tcp = TcpStream::connect(proxy.addr(0)).await.unwrap();
    let mut tls = handshake(tcp, &ca.trusted(), "localhost").await.unwrap();
    for _ in 0..3 {
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" {
            tls.write_all(&[*byte]).await.unwrap();
            tls.flush().await.unwrap();
        }
        let mut answer = [0; 256];
        let count = tls.read(&mut answer).await.unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200 OK"), "{:?}", String::from_utf8_lossy(&answer[..count]));
        // Long enough that the proxy keeps nothing but the socket and the session.
        proxy.wait_for_access("the request", |event| event["whole"] == true);
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_verified_by_one_way_is_not_used_for_another() {
    let ca = LocalCa::new(&["127.0.0.1"]);
    let front = Front::start(Case::GoodIp).await;
    let authority = front.authority();
    // A route may go to any address, and a client's choice where the policy permits.
    let proxy = forward(&ca, &[], &[&format!("--route=tls://127.0.0.1:0=https://{authority}"), "--allow=127.0.0.0/8"]);
    let (by_route, by_connect) = (proxy.addr(0), proxy.addr(1));
    for (expected, is_route) in [(1, false), (2, true), (2, false), (2, true)] {
        let tcp = match is_route {
            true => TcpStream::connect(by_route).await.unwrap(),
            false => connect(by_connect, &authority).await.unwrap(),
        };
        let mut tls = handshake(tcp, &ca.trusted(), "127.0.0.1").await.unwrap();
        let (answer, _) = ask(&mut tls, &get("/", &authority)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(front.counters.connections(), expected, "by the route: {is_route}");
    }
}

/// Passes as many connections on as come at a time, the first of them only once all are there. Gives each one's end.
async fn together(count: u64, to: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, ends) = mpsc::unbounded_channel();
    let pass = move |mut from: TcpStream| {
        let ended = ended.clone();
        tokio::spawn(async move {
            let mut to = TcpStream::connect(to).await.unwrap();
            let _ = copy_bidirectional(&mut from, &mut to).await;
            let _ = ended.send(());
        });
    };
    tokio::spawn(async move {
        let mut held = Vec::new();
        while (held.len() as u64) < count {
            held.push(listener.accept().await.unwrap().0);
        }
        held.into_iter().for_each(&pass);
        while let Ok((from, _)) = listener.accept().await {
            pass(from);
        }
    });
    (address, ends)
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_wait_for_a_request_are_bounded() {
    const CLIENTS: u64 = 12;
    const WAITING: u64 = 8;
    let ca = LocalCa::new(&[".gallery.test"]);
    let good = Front::start(Case::Good).await;
    let (address, mut ends) = together(CLIENTS, good.address).await;
    let flags = [format!("--allow={}", good.authority()), format!("--connect-to={}={address}", good.authority())];
    let more = [flags[0].as_str(), &flags[1], "--pool-size=0"];
    let proxy = forward(&ca, &[], &more);
    let connects = (0..CLIENTS).map(|_| {
        let (to, authority) = (proxy.addr(0), good.authority());
        tokio::spawn(async move { connect(to, &authority).await.unwrap() })
    });
    let mut clients = Vec::new();
    for connect in connects.collect::<Vec<_>>() {
        clients.push(connect.await.unwrap());
    }
    for _ in WAITING..CLIENTS {
        ends.recv().await.unwrap();
    }
    assert_eq!(good.counters.connections(), CLIENTS);
    // Those that wait serve as many requests; more take new ones.
    for (served, tcp) in (1..).zip(clients) {
        let mut tls = handshake(tcp, &ca.trusted(), GOOD).await.unwrap();
        let (answer, _) = ask(&mut tls, &get("/", &good.authority())).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(good.counters.connections(), CLIENTS + u64::saturating_sub(served, WAITING), "{served}");
    }
}
