//! Clients that name their own destination: absolute-form, by Host, CONNECT; and where they may go.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    gallery,
    origin::{Origin, exchange, read_to_end, send},
    proxy::Proxy,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

pub async fn start(allow: &[&str], more: &[&str]) -> (Origin, Proxy) {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let name = format!("good.gallery.test:{}", origin.address.port());
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(["--forward=127.0.0.1:0".into(), format!("--connect-to={name}={}", origin.address)]);
    flags.extend(allow.iter().map(|pattern| format!("--allow={pattern}")));
    flags.extend(more.iter().map(|flag| flag.replace("PORT", &origin.address.port().to_string())));
    (origin, Proxy::start(&flags))
}

fn request(origin: &Origin, target: &str, host: &str) -> String {
    let port = origin.address.port().to_string();
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").replace("PORT", &port)
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_form_and_by_host_lead_to_verified_tls() {
    let (origin, proxy) = start(&["good.gallery.test"], &["--port-map=8080=PORT"]).await;
    for (target, host) in [
        ("http://good.gallery.test:PORT/v1?a=b", "elsewhere"),
        ("http://GOOD.gallery.test.:PORT/v1?a=b", "elsewhere"),
        ("http://good.gallery.test:8080/v1?a=b", "elsewhere"),
        ("/v1?a=b", "good.gallery.test:PORT"),
    ] {
        let seen = exchange(proxy.addr(0), request(&origin, target, host).as_bytes()).await;
        assert_eq!(seen.status(), 200, "{target}: {}", seen.text());
    }
    let host = format!("\r\nHost: good.gallery.test:{}\r\n", origin.address.port());
    for request in origin.requests() {
        assert!(request.starts_with("GET /v1?a=b HTTP/1.1\r\n") && request.contains(&host), "{request}");
    }
    assert_eq!(origin.requests().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_nobody_allowed_are_refused() {
    for allow in [&[][..], &["other.example"], &["good.gallery.test:1"]] {
        let (origin, proxy) = start(allow, &[]).await;
        let seen = exchange(proxy.addr(0), request(&origin, "http://good.gallery.test:PORT/", "a").as_bytes()).await;
        assert_eq!(seen.status(), 403);
        assert!(seen.text().contains("is not allowed as a destination"), "{}", seen.text());
        assert_eq!(origin.connections(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_star_does_not_cover_loopback() {
    let (origin, proxy) = start(&["*"], &[]).await;
    for target in
        ["http://localhost:PORT/", "http://127.0.0.1:PORT/", "http://[::1]:PORT/", "http://[::ffff:127.0.0.1]:PORT/"]
    {
        let seen = exchange(proxy.addr(0), request(&origin, target, "a").as_bytes()).await;
        assert_eq!(seen.status(), 403, "{target}: {}", seen.text());
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_is_refused() {
    let (_, proxy) = start(&["localhost", "127.0.0.0/8"], &[]).await;
    let own =
        format!("GET http://localhost:{}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", proxy.addr(0).port());
    let seen = exchange(proxy.addr(0), own.as_bytes()).await;
    assert_eq!(seen.status(), 403);
    assert!(seen.text().contains("loop"), "{}", seen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_inside_connect_is_served_by_its_own_host() {
    // httplib2 resolves the name itself; only the inner Host has it.
    let (origin, proxy) = start(&["good.gallery.test"], &[]).await;
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(b"CONNECT 127.0.1.10:5000 HTTP/1.1\r\nHost: keystone.lab.test\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1024];
    let count = client.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    let inner = request(&origin, "/v2.0/tokens", "good.gallery.test:PORT");
    client.write_all(inner.as_bytes()).await.unwrap();
    let seen = read_to_end(&mut client).await;
    assert!(seen.status() == 200 && seen.text().ends_with("ok"), "{}", seen.text());
    assert!(origin.requests()[0].starts_with("GET /v2.0/tokens HTTP/1.1\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_inside_connect_is_refused_in_words_the_client_reads() {
    let (origin, proxy) = start(&["good.gallery.test"], &[]).await;
    let to_443 = exchange(proxy.addr(0), b"CONNECT good.gallery.test:443 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(to_443.status(), 403);
    assert!(to_443.text().contains("configure the tool to request `http://` URLs"), "{}", to_443.text());
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client
        .write_all(
            request(&origin, "x", "a")
                .replace("GET x", "CONNECT good.gallery.test:5000")
                .replace("Connection: close\r\n", "")
                .as_bytes(),
        )
        .await
        .unwrap();
    let mut answer = vec![0; 1024];
    let count = client.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200 "));
    client.write_all(&[0x16, 3, 1, 0, 200, 1]).await.unwrap();
    let mut alert = [0; 7];
    client.read_exact(&mut alert).await.unwrap();
    assert_eq!((alert[0], alert[5], alert[6]), (0x15, 2, 49), "a fatal access_denied alert");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_a_target_is_refused_and_not_repeated() {
    let (_, proxy) = start(&["*"], &[]).await;
    for (target, path) in [("user:hunter2@a.example/", "/"), ("user:hunter2/b@a.example/", "/")] {
        let request = format!("GET http://{target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let seen = exchange(proxy.addr(0), request.as_bytes()).await;
        assert_eq!(seen.status(), 400);
        let event =
            proxy.wait_for_log("the failure", |event| event["event"] == "request-failed" && event["path"] == path);
        assert!(!format!("{}{event}{}", seen.text(), proxy.raw_log()).contains("hunter2"), "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_on_all_addresses_knows_itself() {
    let proxy = Proxy::start(&[
        "--ca-bundle".to_owned(),
        gallery::bundle(certs_dev::Bundle::Root),
        "--allow-nonlocal-listen".into(),
        "--forward=0.0.0.0:0".into(),
        "--allow=127.0.0.0/8".into(),
    ]);
    let port = proxy.addr(0).port();
    let own = format!("GET http://127.0.0.3:{port}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let seen = exchange(([127, 0, 0, 1], port).into(), own.as_bytes()).await;
    assert!(seen.status() == 403 && seen.text().contains("loop"), "{}", seen.text());
}
