//! Faithful both ways: what reaches the origin, and what comes back, byte for byte.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    gallery,
    origin::{Origin, Step, acceptor, exchange, read_response, read_to_end, send},
    proxy::Proxy,
};

pub fn start(origin: &Origin, more: &[&str]) -> Proxy {
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(origin.route());
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Proxy::start(&flags)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The request at the origin without what names this run: the Host's port and the Via pseudonym.
fn neutral(request: &str, origin: &Origin) -> String {
    let text = request.replace(&format!(":{}", origin.address.port()), ":PORT");
    let lines = text.split("\r\n").map(|line| match line.split_once("vouchsafe-") {
        Some((before, _)) if line.starts_with("Via: ") => format!("{before}vouchsafe"),
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_arrives_as_it_was_written() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &[]);
    let request = "GET /v1/images/%7Ea//b?limit=5&x=%2e#no HTTP/1.1\r\n\
        host: 127.0.0.1:7001\r\nAccept-Encoding: identity\r\nContent-Length: 0\r\nx-auth-token: t\r\n\
        x-image-meta-disk_format: None\r\nX-IMAGE-Meta-is_public: False\r\nEmpty:\r\nConnection: close, X-Drop\r\nX-Drop: 1\r\n\r\n";
    let request = request.replace("#no", "");
    let seen = exchange(proxy.addr(0), request.as_bytes()).await;
    assert_eq!(seen.status(), 200);
    assert_eq!(
        neutral(&origin.requests()[0], &origin),
        "GET /v1/images/%7Ea//b?limit=5&x=%2e HTTP/1.1\r\n\
         host: good.gallery.test:PORT\r\nAccept-Encoding: identity\r\nContent-Length: 0\r\nx-auth-token: t\r\n\
         x-image-meta-disk_format: None\r\nX-IMAGE-Meta-is_public: False\r\nEmpty:\r\nVia: 1.1 vouchsafe\r\n\r\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_comes_back_as_it_was_written() {
    let answer = "HTTP/1.1 300 Several Choices\r\nX-Image-Meta-Status: active\r\nDate: Sat, 01 Jan 2022 00:00:00 GMT\r\n\
        x-Odd_name: a, b\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: close, x-hop\r\nX-Hop: 1\r\n\
        Keep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\n{}";
    let origin = Origin::start(move |_, _| vec![send(answer), Step::Close]).await;
    let proxy = start(&origin, &[]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let first = read_response(&mut client).await;
    let (head, via) = first.split_once("via: 1.1 vouchsafe-").or(first.split_once("Via: 1.1 vouchsafe-")).unwrap();
    assert_eq!(
        head,
        "HTTP/1.1 300 Several Choices\r\nX-Image-Meta-Status: active\r\nDate: Sat, 01 Jan 2022 00:00:00 GMT\r\n\
         x-Odd_name: a, b\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n"
    );
    assert!(via.ends_with("\r\n\r\n{}"), "{via}");
    // The upstream's `Connection: close` is its own business: the client's connection still serves.
    client.write_all(b"GET /again HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    assert!(read_response(&mut client).await.ends_with("{}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_replicator_preset_writes_response_fields_in_lower_case() {
    let answer = "HTTP/1.1 200 OK\r\nX-Image-Meta-Status: active\r\nDate: x\r\nContent-Length: 0\r\n\r\n";
    let origin = Origin::start(move |_, _| vec![send(answer)]).await;
    let proxy = start(&origin, &["--preset", "glance-replicator"]);
    let seen = exchange(proxy.addr(0), b"HEAD /v1/images/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let text = seen.text();
    let names: Vec<_> = text.lines().skip(1).filter_map(|line| line.split_once(':')).map(|(name, _)| name).collect();
    assert!(names.contains(&"x-image-meta-status"), "{text}");
    assert!(names.iter().all(|name| !name.bytes().any(|b| b.is_ascii_uppercase())), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn framing_goes_on_as_it_came() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &[]);
    let chunked = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let counted = "POST /l HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nabcde";
    assert_eq!(exchange(proxy.addr(0), chunked.as_bytes()).await.status(), 200);
    assert_eq!(exchange(proxy.addr(0), counted.as_bytes()).await.status(), 200);
    let requests = origin.requests();
    assert!(
        requests[0].contains("\r\nTransfer-Encoding: chunked\r\n") && !requests[0].contains("ontent-"),
        "{requests:?}"
    );
    let (_, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(dechunk(body), "abcde");
    assert!(
        requests[1].contains("\r\nContent-Length: 5\r\n") && requests[1].ends_with("\r\n\r\nabcde"),
        "{requests:?}"
    );
    assert!(!requests[1].to_lowercase().contains("transfer-encoding"));
}

fn dechunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        text.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_get_what_they_can_read() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let origin = Origin::start(move |_, _| vec![send(chunked)]).await;
    let proxy = start(&origin, &[]);
    let seen = exchange(proxy.addr(0), b"GET / HTTP/1.0\r\n\r\n").await;
    let text = seen.text().to_lowercase();
    assert!(!text.contains("transfer-encoding") && text.ends_with("\r\n\r\nabc") && !seen.reset, "{text}");
    assert!(origin.requests()[0].starts_with("GET / HTTP/1.1\r\n"));
    assert!(origin.requests()[0].contains("Via: 1.0 vouchsafe-"), "{:?}", origin.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expectation_that_means_nothing_goes_and_leaves_the_order_alone() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &[]);
    let request = b"GET / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n";
    assert_eq!(exchange(proxy.addr(0), request).await.status(), 200);
    let request = neutral(&origin.requests()[0], &origin);
    let expected =
        "GET / HTTP/1.1\r\nHost: good.gallery.test:PORT\r\nA: 1\r\nB: 2\r\nC: 3\r\nVia: 1.0 vouchsafe\r\n\r\n";
    assert_eq!(request, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_answer_keeps_its_length_and_has_no_body() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 536870912\r\n\r\n";
    let origin = Origin::start(move |_, _| vec![send(answer)]).await;
    let proxy = start(&origin, &[]);
    let seen = exchange(proxy.addr(0), b"HEAD /v1/images/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let text = seen.text();
    assert!(text.contains("Content-Length: 536870912\r\n") && text.ends_with("\r\n\r\n"), "{text}");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again_and_a_dead_one_costs_nothing() {
    // Every second answer is followed by a close that nobody announced, as uwsgi does it.
    let origin = Origin::start(|n, _| if n % 2 == 1 { vec![send(OK), Step::Fin] } else { vec![send(OK)] }).await;
    let proxy = start(&origin, &[]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    for _ in 0..8 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(read_response(&mut client).await.ends_with("ok"));
    }
    assert_eq!(origin.requests().len(), 8, "each request arrives once");
    assert_eq!(origin.connections(), 4, "two requests a connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again_behind_chunked_bodies_both_ways() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let origin = Origin::start(move |_, _| vec![send(chunked)]).await;
    let proxy = start(&origin, &[]);
    for trailer in ["", "X-Sum: 1\r\n"] {
        let head =
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n";
        let seen = exchange(proxy.addr(0), format!("{head}2\r\nab\r\n0\r\n{trailer}\r\n").as_bytes()).await;
        assert!(seen.text().ends_with("2\r\nok\r\n0\r\n\r\n"), "{}", seen.text());
        proxy.wait_for_access("a whole response", |event| event["whole"] == true);
    }
    assert_eq!((origin.requests().len(), origin.connections()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_never_sent_twice() {
    // The second request finds the connection dead after it was sent.
    let origin = Origin::start(|n, _| if n == 0 { vec![send(OK)] } else { vec![Step::Fin] }).await;
    let proxy = start(&origin, &[]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_response(&mut client).await;
    client.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    let answer = read_response(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    let posts = origin.requests().iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(posts, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_on_a_connection_that_dies_is_repeated_once_on_a_new_one() {
    let origin = Origin::start(|n, _| if n == 1 { vec![Step::Fin] } else { vec![send(OK)] }).await;
    let proxy = start(&origin, &[]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(read_response(&mut client).await.ends_with("ok"));
    }
    assert_eq!((origin.requests().len(), origin.connections()), (3, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    // The origin answers behind the head, as Glance does when the store is full.
    let answer = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull";
    let origin = RawOrigin::start(answer).await;
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(origin.route());
    let proxy = Proxy::start(&flags);
    let stream = TcpStream::connect(proxy.addr(0)).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sending = tokio::spawn(async move {
        write.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 268435456\r\n\r\n").await?;
        let block = vec![b'x'; 1 << 20];
        for _ in 0..256 {
            write.write_all(&block).await?;
        }
        Ok::<_, std::io::Error>(write)
    });
    let mut bytes = vec![0; 4096];
    let count = read.read(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    assert!(text.starts_with("HTTP/1.1 413 ") && text.ends_with("full"), "{text}");
    assert!(text.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "the end comes unannounced: {text}");
    sending.abort();
}

/// An origin that answers as soon as a head came, and reads no further.
struct RawOrigin {
    address: std::net::SocketAddr,
}

impl RawOrigin {
    async fn start(answer: &'static str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let acceptor = acceptor(&gallery::GALLERY.identity(certs_dev::Case::Good).unwrap());
            let (tcp, _) = listener.accept().await.unwrap();
            let mut stream = acceptor.accept(tcp).await.unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            std::future::pending::<()>().await;
        });
        Self { address }
    }

    fn route(&self) -> Vec<String> {
        let name = format!("good.gallery.test:{}", self.address.port());
        ["--route", &format!("127.0.0.1:0=https://{name}"), "--connect-to", &format!("{name}={}", self.address)]
            .map(str::to_owned)
            .to_vec()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_own_host_is_passed_on_where_that_is_asked_for() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &["--host", "client"]);
    exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: localhost:7001\r\nConnection: close\r\n\r\n").await;
    assert!(origin.requests()[0].contains("\r\nHost: localhost:7001\r\n"), "{:?}", origin.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_whole_though_more_was_sent_behind_its_request() {
    const LENGTH: usize = 1 << 20;
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{}", "x".repeat(LENGTH));
    let origin = Origin::start(move |_, _| vec![send(&answer)]).await;
    let proxy = start(&origin, &[]);
    let get = "GET / HTTP/1.1\r\nHost: a\r\n";
    for (what, requests, end) in [
        ("a last request", format!("{get}Connection: close\r\n\r\n"), "x"),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n".into(), "x"),
        ("a refused target", format!("{get}\r\nGET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), ")\n"),
        ("a refused CONNECT", format!("{get}\r\nCONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), ")\n"),
    ] {
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        socket2::SockRef::from(&client).set_recv_buffer_size(64 << 10).unwrap();
        client.write_all(format!("{requests}{}", get.repeat(20_000)).as_bytes()).await.unwrap();
        let seen = read_to_end(&mut client).await;
        assert!(!seen.reset && seen.bytes.len() > LENGTH, "{what}: {} bytes, reset: {}", seen.bytes.len(), seen.reset);
        assert!(seen.text().ends_with(end), "{what}");
    }
}
