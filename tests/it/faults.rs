//! No failure may look like success: cuts, stalls and breaks, as the client and the origin see them.

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use crate::{
    forwarding::start,
    support::{
        gallery,
        origin::{Origin, Step, exchange, send},
        proxy::Proxy,
    },
};

const GET: &[u8] = b"GET /v1/images/1 HTTP/1.1\r\nHost: a\r\n\r\n";
const COUNTED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
const TO_THE_END: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";

/// Every way to cut a body, against every framing: the client's connection ends by a reset, whichever
/// version it speaks, and the event says how much came.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_body_resets_the_client() {
    for (framing, head, ends) in [
        ("counted", COUNTED, &[Step::Close, Step::Fin, Step::Reset, Step::Stall][..]),
        ("chunked", CHUNKED, &[Step::Close, Step::Fin, Step::Reset, Step::Stall]),
        // A clean end of TLS is the end of such a body; everything else is a cut.
        ("to the end", TO_THE_END, &[Step::Fin, Step::Reset, Step::Stall]),
    ] {
        for end in ends {
            let script_end = end.clone();
            let part = if framing == "chunked" { "3e8\r\n" } else { "" };
            let body = format!("{part}{}", "x".repeat(1000));
            let origin = Origin::start(move |_, _| vec![send(head), send(&body), script_end.clone()]).await;
            let proxy = start(&origin, &["--response-body-timeout", "300ms"]);
            for version in ["1.1", "1.0"] {
                let request = format!("GET /v1/images/1 HTTP/{version}\r\nHost: a\r\n\r\n");
                let seen = exchange(proxy.addr(0), request.as_bytes()).await;
                // A reset may overtake the head, too; then the answer is ours, and no success.
                if matches!(end, Step::Reset) && !seen.bytes.is_empty() && seen.status() == 500 {
                    continue;
                }
                assert!(seen.reset, "{framing}, {end:?}, HTTP/{version}: a clean end: {}", seen.bytes.len());
                // Only the head may have come, whose Via may end in a 0.
                assert!(!seen.bytes.ends_with(b"\r\n0\r\n\r\n"), "{framing}, {end:?}: a last chunk");
            }
            if matches!(end, Step::Reset) {
                continue;
            }
            let event = proxy.wait_for_log("the cut", |event| event["event"] == "response-incomplete");
            assert_eq!(event["received"], 1000, "{framing}, {end:?}: {event}");
            if framing == "counted" {
                assert_eq!(event["expected"], 100_000);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_by_a_clean_end_of_tls_is_whole() {
    let origin = Origin::start(|_, _| vec![send(TO_THE_END), send("all of it"), Step::Close]).await;
    let proxy = start(&origin, &[]);
    let seen = exchange(proxy.addr(0), b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(!seen.reset && seen.text().ends_with("all of it"), "{}", seen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_upload_is_an_abort_at_the_origin() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")]).await;
    let proxy = start(&origin, &["--request-body-timeout", "300ms"]);
    for head in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        let part = if head.starts_with('T') { "3e8\r\n" } else { "" };
        let text = format!("PUT /v1/images/1 HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{part}{}", "x".repeat(1000));
        client.write_all(text.as_bytes()).await.unwrap();
        origin.has_part_of(1000).await;
        drop(client);
        let how = origin.broken().await;
        assert_ne!(how, "close_notify", "{head}: the origin could take it for a clean end");
    }
    assert_eq!(origin.requests(), Vec::<String>::new(), "no part was taken for a whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_upload_is_answered_and_aborted() {
    let origin = Origin::start(|_, _| vec![]).await;
    let proxy = start(&origin, &["--request-body-timeout", "300ms"]);
    let request = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nonly this";
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let answer = crate::support::origin::read_response(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("stalled"), "{answer}");
    assert_ne!(origin.broken().await, "close_notify");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_says_nothing_is_a_failure() {
    let origin = Origin::start(|_, _| vec![Step::Stall]).await;
    let proxy = start(&origin, &["--response-timeout", "300ms"]);
    let seen = exchange(proxy.addr(0), GET).await;
    assert_eq!(seen.status(), 500);
    assert!(seen.text().contains("response_timeout"), "{}", seen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_failures_are_named() {
    // A port that was free a moment ago; one that accepts and stays silent; one that speaks plain HTTP.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain_address = plain.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let flags = [
        "--ca-bundle".to_owned(),
        gallery::bundle(certs_dev::Bundle::Root),
        "--tls-timeout=300ms".into(),
        format!("--route=127.0.0.1:0=https://127.0.0.1:{}", closed.port()),
        format!("--route=127.0.0.1:0=https://127.0.0.1:{}", silent.local_addr().unwrap().port()),
        format!("--route=127.0.0.1:0=https://127.0.0.1:{}", plain_address.port()),
        "--route=127.0.0.1:0=https://no-such-name.invalid".into(),
    ];
    let proxy = Proxy::start(&flags);
    for (n, class) in ["connection_refused", "handshake_timeout", "not_tls", "dns_"].into_iter().enumerate() {
        let seen = exchange(proxy.addr(n), GET).await;
        // What is the same at every try is a refusal.
        let status = if class == "not_tls" { 403 } else { 500 };
        assert_eq!(seen.status(), status, "{class}: {}", seen.text());
        // Without a name server in reach the resolver is silent: `dns_timeout` for `dns_error`.
        assert!(seen.text().contains(&format!(": {class}")), "{}", seen.text());
    }
    let audited: Vec<_> = proxy.audit().iter().map(|event| event["error.code"].clone()).collect();
    assert_eq!(audited, ["handshake_timeout", "not_tls"], "handshakes that failed are audited, the rest is logged");
    assert!(proxy.audit().iter().all(|event| event["event.action"] == "tls-handshake-failed"));
    serving.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_a_client_that_still_sends_a_large_body() {
    let front = gallery::Front::start(certs_dev::Case::Expired).await;
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(front.route());
    let proxy = Proxy::start(&flags);
    // A tool that sends all of it before it reads, as http.client does.
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(b"POST /v1/images HTTP/1.1\r\nHost: a\r\nContent-Length: 67108864\r\n\r\n").await.unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        client.write_all(&block).await.expect("no reset while it sends");
    }
    let seen = crate::support::origin::read_to_end(&mut client).await;
    assert_eq!(seen.status(), 403);
    assert!(!seen.reset && seen.text().contains("expired"), "{}", seen.text());
    assert_eq!(front.counters.application_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_idle_connections_end() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]).await;
    let proxy = start(&origin, &["--head-timeout", "300ms", "--keep-alive-timeout", "300ms"]);
    let slow = exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHo").await;
    assert_eq!(slow.status(), 400, "{}", slow.text());
    let silent = exchange(proxy.addr(0), b"").await;
    assert_eq!(silent.text(), "");
    let idle = exchange(proxy.addr(0), GET).await;
    assert_eq!(idle.status(), 200);
    assert!(!idle.reset);
}

/// A client that reads nothing for a while: what waited for it is either delivered or seen to be cut.
#[tokio::test(flavor = "multi_thread")]
async fn the_tail_of_a_body_is_never_cut_cleanly() {
    // More than the sockets' own buffers can take.
    let body = "x".repeat(64_000_000);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n";
    let origin = Origin::start(move |_, _| vec![send(head), send(&body)]).await;
    let proxy = start(&origin, &["--keep-alive-timeout", "200ms", "--response-body-timeout", "600ms"]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(GET).await.unwrap();
    // Its exchange ends when the proxy gives up on a client that does not read.
    proxy.wait_for_access("the stalled download", |event| event["whole"] == false);
    let seen = crate::support::origin::read_to_end(&mut client).await;
    assert!(seen.reset, "a clean end after {} bytes", seen.bytes.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_sent_all_and_waits_is_answered() {
    let origin =
        Origin::start(|_, _| vec![send(CHUNKED), send("3\r\nabc\r\n"), send("3\r\ndef\r\n"), send("0\r\n\r\n")]).await;
    let proxy = start(&origin, &[]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let seen = crate::support::origin::read_to_end(&mut client).await;
    assert!(seen.text().ends_with("abcdef") && !seen.reset, "{}", seen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_cannot_be_read_are_answered_by_the_policy() {
    let origin = Origin::start(|_, _| vec![]).await;
    let many = (0..210).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let large = format!("x: {}\r\n", "y".repeat(300_000));
    for (head, class) in [
        (many.as_str(), "large_head"),
        (&large, "large_head"),
        ("no colon\r\n", "bad_head"),
        ("bad name: x\r\n", "bad_head"),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{head}\r\n");
        let proxy = start(&origin, &[]);
        let seen = exchange(proxy.addr(0), request.as_bytes()).await;
        assert_eq!(seen.status(), 400, "{}", seen.text());
        let event = proxy.wait_for_log("the failure", |event| event["event"] == "request-failed");
        assert_eq!(event["class"], class);
        assert!(seen.text().contains(event["request"].as_str().unwrap()), "{}", seen.text());
        let proxy = start(&origin, &["--answer", "reset"]);
        let seen = exchange(proxy.addr(0), request.as_bytes()).await;
        assert!(seen.reset && seen.bytes.is_empty(), "{}", seen.text());
    }
    assert_eq!(origin.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_is_wanted_after_the_handshake_is_named() {
    use std::process::{Command, Stdio};
    let identity = gallery::GALLERY.identity(certs_dev::Case::GoodIp).unwrap();
    let directory = crate::support::dir();
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    std::fs::write(&chain, identity.chain_pem()).unwrap();
    std::fs::write(&key, identity.key_pem()).unwrap();
    let mut server = Command::new("timeout")
        .args([
            "60",
            "openssl",
            "s_server",
            "-accept",
            "127.0.0.1:0",
            "-naccept",
            "1",
            "-tls1_3",
            "-Verify",
            "1",
            "-www",
        ])
        .arg("-cert_chain")
        .arg(&chain)
        .arg("-cert")
        .arg(&chain)
        .arg("-key")
        .arg(&key)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(server.stdout.take().unwrap()));
    let accept = lines.find_map(|line| line.unwrap().strip_prefix("ACCEPT ").map(str::to_owned)).expect("an address");
    let bundle = gallery::bundle(certs_dev::Bundle::Root);
    let proxy = Proxy::start(&["--ca-bundle", &bundle, "--route", &format!("127.0.0.1:0=https://{accept}")]);
    let seen = exchange(proxy.addr(0), GET).await;
    let _ = server.kill();
    server.wait().unwrap();
    assert_eq!(seen.status(), 403, "{}", seen.text());
    assert!(seen.text().contains("client_cert_required"), "{}", seen.text());
    let event = &proxy.audit()[0];
    assert_eq!(event["error.code"], "client_cert_required");
    assert!(event["vouchsafe.request_bytes_sent"].is_null(), "nobody claims to know: {event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_end_can_be_read_in_two_ways_is_not_passed_on() {
    for head in ["Transfer-Encoding: chunked\r\nContent-Length: 30", "Content-Length: 2, 3"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        let origin = Origin::start(move |_, _| vec![send(&answer)]).await;
        let proxy = start(&origin, &[]);
        for version in ["1.0", "1.1"] {
            let seen = exchange(proxy.addr(0), format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n").as_bytes()).await;
            assert!(seen.status() == 500 && seen.text().contains("bad_response"), "{head}: {}", seen.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_head_behind_a_good_request_is_answered_by_the_policy_too() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]).await;
    let proxy = start(&origin, &[]);
    let seen = exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\n\r\nBAD HEAD\r\n\r\n").await;
    let (first, second) = seen.text().split_once("ok").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(first.starts_with("HTTP/1.1 200 ") && second.starts_with("HTTP/1.1 400 "), "{}", seen.text());
    assert!(second.contains("(event ") && second.contains("Proxy-Status: vouchsafe"), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_while_the_upstream_thinks_ends_the_exchange() {
    let origin = Origin::start(|_, _| vec![Step::Stall]).await;
    let proxy = start(&origin, &[]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(GET).await.unwrap();
    origin.has_requests(1).await;
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(client);
    origin.has_closed(1).await;
    assert_eq!(proxy.stop().code(), Some(0), "nobody waited any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_that_keeps_its_socket_does_not_hold_up_the_end() {
    let front = gallery::Front::start(certs_dev::Case::Expired).await;
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(front.route());
    let proxy = Proxy::start(&flags);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(GET).await.unwrap();
    let seen = crate::support::origin::read_to_end(&mut client).await;
    assert_eq!(seen.status(), 403);
    assert_eq!(proxy.stop().code(), Some(0));
    drop(client);
}
