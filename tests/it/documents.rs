//! URLs in JSON answers lead the client to what is served here; every other byte of every answer is the upstream's.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    self,
    command::vouchsafe,
    gallery,
    origin::{Origin, Seen, Step, exchange, hasty, read_response, send},
    proxy::{PATIENCE, Proxy},
};

const REWRITE: &str = "--rewrite=catalog,versions,pages";

fn bundle() -> Vec<String> {
    vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)]
}

/// A proxy with a fixed route to each of these, in order.
fn routed(origins: &[&Origin], more: &[&str]) -> Proxy {
    let mut flags = bundle();
    flags.extend(origins.iter().flat_map(|origin| origin.route()));
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Proxy::start(&flags)
}

fn authority(origin: &Origin) -> String {
    format!("good.gallery.test:{}", origin.address.port())
}

/// A token of Keystone v3 with these endpoints.
fn token(urls: &[&str]) -> String {
    let endpoints: Vec<_> =
        urls.iter().map(|url| format!("{{\"interface\": \"public\", \"url\": \"{url}\"}}")).collect();
    format!("{{\"token\": {{\"id\": \"secret-id\", \"catalog\": [{{\"endpoints\": [{}]}}]}}}}\n", endpoints.join(", "))
}

/// The answer with `OWN` replaced by what the origin is asked as, and its length told.
fn answer(head: &str, body: &str, request: &str) -> Step {
    let own = request.lines().find_map(|line| line.to_lowercase().strip_prefix("host: ").map(str::to_owned)).unwrap();
    let body = body.replace("OWN", &own);
    send(&format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// An origin that answers with this JSON document, and these lines of a head.
async fn json(head: &'static str, body: String) -> Origin {
    Origin::start(move |_, request| vec![answer(&format!("{head}\r\nContent-Type: application/json"), &body, request)])
        .await
}

async fn get(proxy: &Proxy, more: &str) -> Seen {
    let request = format!("GET /v3 HTTP/1.1\r\nHost: local:7001\r\n{more}Connection: close\r\n\r\n");
    exchange(proxy.addr(0), request.as_bytes()).await
}

const HOST: &str = "--accept-host=local";

fn body(seen: &Seen) -> String {
    seen.text().split_once("\r\n\r\n").unwrap_or_else(|| panic!("{seen:?}")).1.to_owned()
}

/// The value of a field that is there at most once.
fn field(seen: &Seen, name: &str) -> Option<String> {
    let text = seen.text();
    let head = text.split_once("\r\n\r\n").unwrap().0.to_owned();
    let mut values = head.lines().filter_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then(|| value.to_owned())
    });
    let value = values.next();
    assert_eq!(values.next(), None, "{name}: {head}");
    value
}

fn catalog_events(proxy: &Proxy) -> Vec<serde_json::Value> {
    proxy.log().into_iter().filter(|event| event["event"] == "catalog").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_names_the_listeners_of_all_routes_as_the_client_reaches_them() {
    let glance = json("200 OK", "{}".into()).await;
    let other = authority(&glance);
    let urls =
        ["https://OWN/v3", &format!("https://{other}"), &format!("http://{other}/v2?a#b"), "https://else.test/x"];
    let keystone = json(
        "201 Created\r\nETag: \"1\"\r\nX-Subject-Token: t\r\nContent-MD5: x\r\nDigest: sha=x\r\nVary: X-Auth-Token",
        token(&urls),
    )
    .await;
    let proxy = routed(&[&keystone, &glance], &[HOST, REWRITE]);
    let seen = get(&proxy, "").await;
    let listener = proxy.addr(1).port();
    let expected = token(&[
        "http://local:7001/v3",
        &format!("http://local:{listener}"),
        &format!("http://local:{listener}/v2?a#b"),
        "https://else.test/x",
    ]);
    assert_eq!((seen.status(), body(&seen)), (201, expected.clone()));
    assert_eq!(field(&seen, "content-length"), Some(expected.len().to_string()));
    assert_eq!(field(&seen, "x-subject-token").as_deref(), Some("t"));
    assert_eq!(field(&seen, "vary").as_deref(), Some("X-Auth-Token"));
    for gone in ["etag", "content-md5", "digest", "transfer-encoding"] {
        assert_eq!(field(&seen, gone), None);
    }
    let event = proxy.wait_for_access("the request", |_| true);
    assert_eq!((&event["response_bytes"], &event["whole"]), (&expected.len().into(), &true.into()), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_a_body_is_as_it_came() {
    let keystone = json("200 OK\r\nETag: \"1\"", token(&["https://OWN/v3"])).await;
    let proxy = routed(&[&keystone], &[HOST]);
    let seen = get(&proxy, "Accept-Encoding: br, gzip;q=0.5\r\n").await;
    assert_eq!(body(&seen), token(&[&format!("https://{}/v3", authority(&keystone))]));
    assert_eq!(field(&seen, "etag").as_deref(), Some("\"1\""));
    assert!(keystone.requests()[0].contains("\r\nAccept-Encoding: br, gzip;q=0.5\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_document_of_an_api_is_as_it_came() {
    for head in [
        "200 OK\r\nContent-Type: text/plain",
        "200 OK\r\nContent-Type: application/json-home",
        "200 OK\r\nContent-Type: application/octet-stream",
        "200 OK",
        "206 Partial Content\r\nContent-Type: application/json\r\nContent-Range: bytes 0-1/2",
        "200 OK\r\nContent-Type: application/json\r\nContent-Range: bytes 0-1/2",
        "202 Accepted\r\nContent-Type: application/json",
        "401 Unauthorized\r\nContent-Type: application/json",
        // Swift's: an object of JSON is its user's.
        "200 OK\r\nContent-Type: application/json\r\nX-Trans-Id: tx1",
        "200 OK\r\nContent-Type: application/json\r\nX-Timestamp: 1.0",
        "200 OK\r\nContent-Type: application/json\r\nX-Amz-Request-Id: tx1",
    ] {
        let text = token(&["https://OWN/v3"]);
        let origin =
            Origin::start(move |_, request| vec![answer(&format!("{head}\r\nETag: \"1\""), &text, request)]).await;
        let proxy = routed(&[&origin], &[HOST, REWRITE]);
        let seen = get(&proxy, "").await;
        assert_eq!(body(&seen), token(&[&format!("https://{}/v3", authority(&origin))]), "{head}");
        assert_eq!(field(&seen, "etag").as_deref(), Some("\"1\""), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_without_a_url_to_replace_keeps_its_bytes_and_its_etag() {
    let text = "{ \"token\" : {\"catalog\":[ {\"endpoints\":[{\"url\":\"https:\\/\\/else.test\"}]}], \"n\": 1.0e2 } }";
    let origin = json("200 OK\r\nETag: \"1\"", text.into()).await;
    let proxy = routed(&[&origin], &[HOST, REWRITE]);
    let seen = get(&proxy, "").await;
    assert_eq!((body(&seen).as_str(), field(&seen, "etag").as_deref()), (text, Some("\"1\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_versions_stays_a_300_and_pages_lead_here() {
    let version = |url: &str| format!("{{\"versions\":[{{\"links\":[{{\"href\":\"{url}\",\"rel\":\"self\"}}]}}]}}");
    let origin = json("300 Multiple Choices", version("https://OWN/v2/")).await;
    let proxy = routed(&[&origin], &[HOST, REWRITE]);
    let seen = get(&proxy, "").await;
    assert_eq!((seen.status(), body(&seen)), (300, version("http://local:7001/v2/")));
    let page = |url: &str| format!("{{\"volumes\":[],\"volumes_links\":[{{\"rel\":\"next\",\"href\":\"{url}\"}}]}}");
    // Both schemes of an upstream are its own: services behind a terminator often do not know of it.
    for scheme in ["http", "https"] {
        let origin = json("200 OK", page(&format!("{scheme}://OWN/v3?marker=1"))).await;
        let proxy = routed(&[&origin], &[HOST, REWRITE]);
        assert_eq!(body(&get(&proxy, "").await), page("http://local:7001/v3?marker=1"));
        let proxy = routed(&[&origin], &[HOST, "--rewrite=catalog,versions"]);
        assert_eq!(body(&get(&proxy, "").await), page(&format!("{scheme}://{}/v3?marker=1", authority(&origin))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_clients_host_links_of_either_scheme_lead_here() {
    let page = |url: &str| format!("{{\"volumes_links\":[{{\"rel\":\"next\",\"href\":\"{url}\"}}]}}");
    for scheme in ["http", "https"] {
        let origin = json("200 OK", page(&format!("{scheme}://OWN/v3?marker=1"))).await;
        let proxy = routed(&[&origin], &[HOST, REWRITE, "--host=client"]);
        assert_eq!(body(&get(&proxy, "").await), page("http://local:7001/v3?marker=1"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_framing_becomes_a_content_length() {
    let text = |host: &str| token(&[&format!("{host}/v3")]);
    for framing in ["chunked", "close"] {
        let origin = Origin::start(move |_, request| {
            let own = request.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap();
            let body = text(&format!("https://{own}"));
            let (start, end) = body.split_at(20);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n";
            match framing {
                "chunked" => vec![
                    send(&format!("{head}Transfer-Encoding: chunked\r\nTrailer: x\r\n\r\n14;a=b\r\n{start}\r\n")),
                    send(&format!("{:x}\r\n{end}\r\n0\r\nx: y\r\n\r\n", end.len())),
                ],
                _ => vec![send(&format!("{head}\r\n{start}")), send(end), Step::Close],
            }
        })
        .await;
        let proxy = routed(&[&origin], &[HOST, REWRITE]);
        let expected = text("http://local:7001");
        for version in ["1.1", "1.0"] {
            let request = format!("GET / HTTP/{version}\r\nHost: local:7001\r\nConnection: close\r\n\r\n");
            let seen = exchange(proxy.addr(0), request.as_bytes()).await;
            assert_eq!(body(&seen), expected, "{framing} {version}");
            assert_eq!(field(&seen, "content-length"), Some(expected.len().to_string()));
            assert_eq!((field(&seen, "transfer-encoding"), field(&seen, "trailer")), (None, None));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_connections_are_used_again() {
    let origin = json("200 OK", token(&["https://OWN/v3"])).await;
    let proxy = routed(&[&origin], &[HOST, REWRITE]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: local:7001\r\n\r\n").await.unwrap();
        let answer = read_response(&mut client).await;
        assert!(answer.ends_with(&token(&["http://local:7001/v3"])), "{answer}");
    }
    assert_eq!((origin.requests().len(), origin.connections()), (3, 1));
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// An origin that answers with this content in this coding.
async fn encoded(coding: &'static str, content: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Origin {
    Origin::start(move |_, request| {
        let own = request.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap();
        let content = content(&token(&[&format!("https://{own}/v3")]));
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"1\"\r\nContent-Encoding: {coding}\r\n\
             Content-Length: {}\r\n\r\n",
            content.len()
        );
        vec![Step::Send([head.as_bytes(), &content].concat())]
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn gzip_is_decoded_and_no_other_coding_is_asked_for() {
    let origin = encoded("gzip", gzip).await;
    let proxy = routed(&[&origin], &[HOST, REWRITE]);
    for (asked, sent) in [
        ("gzip, deflate, br", "gzip"),
        ("GZIP;q=0.5 ,  identity", "GZIP;q=0.5 ,  identity"),
        ("br;q=1.0, zstd", "identity"),
        ("*", "identity"),
    ] {
        let seen = get(&proxy, &format!("accept-encoding: {asked}\r\n")).await;
        assert_eq!(body(&seen), token(&["http://local:7001/v3"]));
        assert_eq!((field(&seen, "content-encoding"), field(&seen, "etag")), (None, None));
        let request = origin.requests().pop().unwrap();
        assert!(request.contains(&format!("\r\naccept-encoding: {sent}\r\n")), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_passes_as_it_came_with_one_warning() {
    let large = |text: &str| gzip(&format!("{text}{}", " ".repeat(4 << 20)));
    for (coding, content, class) in [
        ("deflate", (|text: &str| text.as_bytes().to_vec()) as fn(&str) -> Vec<u8>, "catalog_encoded"),
        ("gzip, gzip", |text: &str| text.as_bytes().to_vec(), "catalog_encoded"),
        ("gzip", |text: &str| text.as_bytes().to_vec(), "catalog_encoded"),
        ("gzip", large, "catalog_too_large"),
    ] {
        let origin = encoded(coding, content).await;
        let proxy = routed(&[&origin], &[HOST, REWRITE]);
        for _ in 0..2 {
            let seen = get(&proxy, "").await;
            let content = content(&token(&[&format!("https://{}/v3", authority(&origin))]));
            assert!(seen.bytes.ends_with(&[b"\r\n\r\n", &content[..]].concat()), "{coding}");
            assert_eq!(field(&seen, "content-encoding").as_deref(), Some(coding));
            assert_eq!(field(&seen, "etag").as_deref(), Some("\"1\""));
        }
        proxy.wait_for_access("both requests", |event| event["path"] == "/v3");
        let events = catalog_events(&proxy);
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!((&events[0]["class"], &events[0]["level"]), (&class.into(), &"WARN".into()), "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_more_than_4_mib_passes_as_it_came_with_a_warning() {
    let large = |own: &str| token(&[&format!("https://{own}/v3")]) + &" ".repeat(5 << 20);
    for framing in ["length", "chunked", "close"] {
        let origin = Origin::start(move |_, request| {
            let own = request.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap();
            let body = large(own);
            let head = "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nContent-Type: application/json\r\n";
            match framing {
                "length" => vec![send(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))],
                "chunked" => vec![send(&format!(
                    "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
                    body.len()
                ))],
                _ => vec![send(&format!("{head}\r\n{body}")), Step::Close],
            }
        })
        .await;
        let expected = large(&authority(&origin));
        for version in ["1.1", "1.0"] {
            let proxy = routed(&[&origin], &[HOST, REWRITE]);
            let request = format!("GET /v3 HTTP/{version}\r\nHost: local:7001\r\nConnection: close\r\n\r\n");
            let seen = exchange(proxy.addr(0), request.as_bytes()).await;
            let text = body(&seen);
            let chunked = field(&seen, "transfer-encoding").is_some();
            assert_eq!(chunked, version == "1.1" && framing != "length", "{framing} {version}");
            let content = if chunked { dechunked(&text) } else { text };
            assert!(content == expected, "{framing} {version}: {} bytes", content.len());
            assert_eq!(field(&seen, "etag").as_deref(), Some("\"1\""));
            let event = proxy.wait_for_access("the request", |_| true);
            assert_eq!((&event["whole"], &event["response_bytes"]), (&true.into(), &expected.len().into()), "{event}");
            let events = catalog_events(&proxy);
            assert_eq!(events.len(), 1, "{framing} {version}: {events:?}");
            assert_eq!(events[0]["class"], "catalog_too_large");
        }
    }
}

/// JSON of which a part comes, and the rest never.
async fn unfinished(part: usize) -> Origin {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", part + 1);
    Origin::start(move |_, _| vec![send(&format!("{head}{}", " ".repeat(part))), Step::Stall]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_documents_take_together_is_bounded() {
    let origin = unfinished((4 << 20) - 2).await;
    let proxy = routed(&[&origin], &[HOST, REWRITE]);
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        client.write_all(b"GET /v3 HTTP/1.1\r\nHost: local:7001\r\n\r\n").await.unwrap();
        clients.push(client);
    }
    proxy.wait_for_log("the bound", |event| {
        let message = event["message"].as_str().unwrap_or_default();
        event["class"] == "catalog_too_large" && message.contains("more than 32 MiB")
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_takes_too_long_is_relayed_and_a_client_that_left_is_noticed() {
    let origin = unfinished(100_000).await;
    let proxy = routed(&[&origin], &[HOST, REWRITE]);
    let mut stays = TcpStream::connect(proxy.addr(0)).await.unwrap();
    let mut leaves = TcpStream::connect(proxy.addr(0)).await.unwrap();
    for client in [&mut stays, &mut leaves] {
        client.write_all(b"GET /v3 HTTP/1.1\r\nHost: local:7001\r\n\r\n").await.unwrap();
    }
    origin.has_requests(2).await;
    drop(leaves);
    let mut read = Vec::new();
    while !read.ends_with(&[b' '; 1000]) {
        let more = tokio::time::timeout(PATIENCE, stays.read_buf(&mut read)).await.expect("what came so far").unwrap();
        assert_ne!(more, 0);
    }
    assert!(read.starts_with(b"HTTP/1.1 200 OK\r\n"));
    let event = proxy.wait_for_access("the client that left", |_| true);
    assert_eq!((&event["class"], &event["whole"]), (&"interrupted".into(), &false.into()), "{event}");
    assert_eq!(catalog_events(&proxy)[0]["class"], "catalog_too_slow");
}

fn dechunked(mut text: &str) -> String {
    let mut content = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            assert_eq!(rest, "\r\n");
            return content;
        }
        content.push_str(&rest[..size]);
        text = rest[size..].strip_prefix("\r\n").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_head_promises_no_length() {
    let origin = Origin::start(|_, _| {
        vec![send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nETag: \"1\"\r\nContent-Length: 77\r\n\r\n")]
    })
    .await;
    let proxy = routed(&[&origin], &[HOST, REWRITE]);
    let seen = exchange(proxy.addr(0), b"HEAD / HTTP/1.1\r\nHost: local:7001\r\nConnection: close\r\n\r\n").await;
    assert_eq!((seen.status(), body(&seen).as_str()), (200, ""));
    assert_eq!((field(&seen, "content-length"), field(&seen, "etag")), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_a_failure_and_no_part_of_it_is_passed_on() {
    for (steps, class) in [
        (vec![send("{\"token\""), Step::Reset], "upstream_closed"),
        (vec![send("{\"token\""), Step::Close], "upstream_closed"),
        (vec![send("{\"token\""), Step::Stall], "response_timeout"),
    ] {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 77\r\n\r\n";
        let origin = Origin::start(move |_, _| [vec![send(head)], steps.clone()].concat()).await;
        let proxy = routed(&[&origin], &[HOST, REWRITE, "--response-body-timeout=300ms"]);
        let seen = get(&proxy, "").await;
        assert_eq!(seen.status(), 500, "{}", seen.text());
        assert!(!seen.text().contains("token") && !seen.reset, "{seen:?}");
        let event = proxy.wait_for_access("the request", |_| true);
        assert_eq!((&event["class"], &event["made_by"]), (&class.into(), &"proxy".into()), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_before_the_end_of_the_request_reaches_the_client() {
    let body_of = |host: &str| token(&[&format!("{host}/v3")]);
    let text = body_of("https://good.gallery.test:OWN");
    let head = |length: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
    };
    // Its own port is not known before it is there: a URL of another upstream stands in for its own.
    let other = Origin::start(|_, _| vec![]).await;
    let text = text.replace("OWN", &other.address.port().to_string());
    let address = hasty(vec![send(&(head(text.len()) + &text))]).await;
    let name = format!("good.gallery.test:{}", address.port());
    let route = [format!("--route=127.0.0.1:0=https://{name}"), format!("--connect-to={name}={address}")];
    let mut flags = [bundle(), route.to_vec(), other.route()].concat();
    flags.extend([HOST, REWRITE].map(str::to_owned));
    let proxy = Proxy::start(&flags);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    let head = "POST / HTTP/1.1\r\nHost: local:7001\r\nContent-Length: 100\r\n\r\npart";
    client.write_all(head.as_bytes()).await.unwrap();
    let answer = read_response(&mut client).await;
    let expected = body_of(&format!("http://local:{}", proxy.addr(1).port()));
    assert!(answer.ends_with(&expected) && answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_not_served_is_logged_once_and_without_the_token() {
    let urls = [
        "https://nova.test:8774/v2/secret-tenant",
        "http://plain.test:9696/",
        "https://nova.test:8774/v3",
        "https://OWN",
    ];
    let origin = json("200 OK", token(&urls)).await;
    let proxy = routed(&[&origin], &[HOST, REWRITE]);
    for _ in 0..3 {
        get(&proxy, "X-Auth-Token: secret\r\n").await;
    }
    proxy.wait_for_access("the first request", |_| true);
    let events = catalog_events(&proxy);
    let said: Vec<_> = events.iter().map(|event| (event["class"].as_str(), event["endpoint"].as_str())).collect();
    let expected = [
        (Some("catalog_endpoint_not_served"), Some("https://nova.test:8774")),
        (Some("catalog_endpoint_plain"), Some("http://plain.test:9696")),
    ];
    assert_eq!(said, expected);
    for event in &events {
        assert_eq!(event["level"], "WARN");
        assert!(event["message"].as_str().unwrap().contains("clients will go past vouchsafe"), "{event}");
    }
    assert!(!proxy.raw_log().contains("secret"), "{}", proxy.raw_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_forward_listener_endpoints_that_are_allowed_become_plain_urls() {
    let urls = [
        "https://good.gallery.test:9292/v2",
        "https://good.gallery.test/x",
        "http://good.gallery.test:1",
        "https://else.test",
    ];
    let origin = json("200 OK", token(&urls)).await;
    let mut flags = bundle();
    flags.extend(["--forward=127.0.0.1:0", "--allow=good.gallery.test", REWRITE].map(str::to_owned));
    flags.push(format!("--connect-to=good.gallery.test={}", origin.address));
    let proxy = Proxy::start(&flags);
    let request = "GET http://good.gallery.test/ HTTP/1.1\r\nHost: good.gallery.test\r\nConnection: close\r\n\r\n";
    let seen = exchange(proxy.addr(0), request.as_bytes()).await;
    let expected = [
        "http://good.gallery.test:9292/v2",
        "http://good.gallery.test/x",
        "http://good.gallery.test:1",
        "https://else.test",
    ];
    assert_eq!(body(&seen), token(&expected));
    proxy.wait_for_access("the request", |_| true);
    let events = catalog_events(&proxy);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["endpoint"], "https://else.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_switches_it_and_the_preset_has_it() {
    let origin = json("200 OK", token(&["https://OWN/v3"])).await;
    let directory = support::dir();
    let file = directory.path().join("vouchsafe.toml");
    std::fs::write(&file, "preset = \"openstack\"").unwrap();
    let proxy = routed(&[&origin], &[HOST, "--config", &file.display().to_string()]);
    assert_eq!(body(&get(&proxy, "").await), token(&["http://local:7001/v3"]));
    std::fs::write(&file, "preset = \"openstack\"\nrewrite = \"none\"").unwrap();
    proxy.wait_for_log("a new generation", |event| event["message"] == "reloaded");
    assert_eq!(body(&get(&proxy, "").await), token(&[&format!("https://{}/v3", authority(&origin))]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_serves_the_same_ports_at_another_address() {
    let own = json("200 OK", token(&["https://OWN/v3", "https://good.gallery.test:2/"])).await;
    let port = own.address.port();
    let mut flags = bundle();
    flags.extend([
        format!("--mirror=127.0.0.2=good.gallery.test:{port}"),
        format!("--connect-to=good.gallery.test={}", own.address),
        REWRITE.to_owned(),
    ]);
    let proxy = Proxy::start(&flags);
    assert_eq!(proxy.addr(0).to_string(), format!("127.0.0.2:{port}"));
    let request = format!("GET / HTTP/1.1\r\nHost: 127.0.0.2:{port}\r\nConnection: close\r\n\r\n");
    let seen = exchange(proxy.addr(0), request.as_bytes()).await;
    assert_eq!(body(&seen), token(&[&format!("http://127.0.0.2:{port}/v3"), "https://good.gallery.test:2/"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_is_named_as_it_is_advertised() {
    let glance = json("200 OK", "{}".into()).await;
    let keystone = json("200 OK", token(&["https://OWN/v3", &format!("https://{}/v2", authority(&glance))])).await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut flags = [bundle(), keystone.route(), glance.route()].concat();
    // The last route is Glance's.
    let place = flags.iter().rposition(|flag| flag.starts_with("127.0.0.1:0=")).unwrap();
    flags[place] = flags[place].replace("127.0.0.1:0=", &format!("127.0.0.1:{port}="));
    flags.extend([
        HOST.to_owned(),
        REWRITE.to_owned(),
        format!("--advertise=127.0.0.1:{port}=http://proxy.example:19292"),
    ]);
    let proxy = Proxy::start(&flags);
    assert_eq!(body(&get(&proxy, "").await), token(&["http://local:7001/v3", "http://proxy.example:19292/v2"]));
}

#[test]
fn settings_that_can_never_apply_are_errors() {
    let bundle = gallery::bundle(certs_dev::Bundle::Root);
    for (flag, expected) in [
        ("--advertise=127.0.0.1:2=http://a", "no route listens on 127.0.0.1:2"),
        (
            "--advertise=127.0.0.1:1=https://a",
            "the clients of this route speak plain HTTP\n  hint: write `http://a`, or `tls://` before the address",
        ),
        (
            "--advertise=tls://127.0.0.1:1=https://a",
            "no route listens on tls://127.0.0.1:1\n  hint: write `127.0.0.1:1`",
        ),
        ("--advertise=127.0.0.1:1=http://a/b", "a listener and a URL without a path are expected"),
        ("--advertise=127.0.0.1:1=http://a,127.0.0.1:1=http://b", "an earlier one is for the same listener"),
        ("--advertise=127.0.0.1:1", "a listener and a URL without a path are expected"),
        ("--rewrite=catalog,none", "--rewrite: `none` excludes the others"),
        ("--mirror=127.0.0.2=a.example", "--mirror `127.0.0.2=a.example`: no port is listed"),
        ("--mirror=127.0.0.1=a.example:1", "127.0.0.1:1 is configured for two listeners"),
        ("--mirror=192.0.2.1=a.example:1", "192.0.2.1 can be reached from other hosts"),
    ] {
        let said = vouchsafe(&[
            "config",
            "check",
            "--ca-bundle",
            &bundle,
            "--route=127.0.0.1:1=https://good.gallery.test",
            flag,
        ]);
        assert_eq!(said.code, Some(2), "{flag}: {said:?}");
        assert!(said.err.contains(expected), "{flag}: {said:?}");
    }
}
