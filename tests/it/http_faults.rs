//! Faults of relays, each from both sides: what is refused or cut has a neighbour that is served, and a limit ends
//! after its time and not after twice that.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use crate::{
    forwarding, interim,
    relay_faults::proxy_to,
    support::{
        gallery::{self, GALLERY},
        origin::{Origin, Step, acceptor, exchange, read_response, read_to_end, send},
        proxy::{PATIENCE, Proxy},
        talk::{OriginTalk, Talk, TalkingOrigin},
    },
    thrift::own_kib,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const STANDARD: &[&str] = &["--answer", "standard"];

/// The record of the request for a path.
fn record(proxy: &Proxy, path: &str) -> Value {
    proxy.wait_for_access(path, |event| event["path"] == path)
}

/// An origin that tells of each head that it reads, answers those for `/served` alone, and reads nothing behind one for
/// `/stalls`.
async fn answers_some(heads: mpsc::UnboundedSender<String>) -> TalkingOrigin {
    TalkingOrigin::start(move |_, mut talk| {
        let heads = heads.clone();
        async move {
            loop {
                let head = talk.head().await;
                let served = head.contains(" /served ");
                let takes_more = !head.contains(" /stalls ");
                // Its test may have ended.
                let _ = heads.send(head);
                if !takes_more {
                    std::future::pending::<()>().await;
                }
                if served {
                    talk.say(OK).await;
                }
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_client_resets_before_the_response_is_recorded() {
    let (heads, mut head) = mpsc::unbounded_channel();
    let origin = answers_some(heads).await;
    let proxy = interim::start(&origin, &[]);
    let mut gone = Talk::with(proxy.addr(0)).await;
    gone.say("GET /reset HTTP/1.1\r\nHost: a\r\n\r\n").await;
    head.recv().await.unwrap();
    gone.reset();
    let event = record(&proxy, "/reset");
    let cut = (&event["class"], &event["whole"], &event["status"], &event["response_bytes"]);
    assert_eq!(cut, (&"interrupted".into(), &false.into(), &0.into(), &0.into()), "{event}");
    let mut stays = Talk::with(proxy.addr(0)).await;
    stays.say("GET /served HTTP/1.1\r\nHost: a\r\n\r\n").await;
    stays.head().await;
    let event = record(&proxy, "/served");
    let whole = (&event["class"], &event["whole"], &event["status"], &event["response_bytes"]);
    assert_eq!(whole, (&Value::Null, &true.into(), &200.into(), &2.into()), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_while_the_upstream_is_dialled_ends_the_exchange_at_once() {
    // It accepts in the system alone, and never shakes hands.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = proxy_to(silent.local_addr().unwrap(), &["--tls-timeout", "25s"]);
    for (path, more) in [("/get", "\r\n"), ("/put", "Content-Length: 100000\r\n\r\nwaiting")] {
        let mut client = Talk::with(proxy.addr(0)).await;
        client.say(format!("PUT {path} HTTP/1.1\r\nHost: a\r\n{more}")).await;
        let started = Instant::now();
        let (mut dialled, _) = silent.accept().await.unwrap();
        client.say("more").await;
        client.reset();
        let event = record(&proxy, path);
        assert_eq!(event["class"], "interrupted", "{event}");
        // All there is to read is the ClientHello.
        timeout(PATIENCE, dialled.read_to_end(&mut Vec::new())).await.unwrap().unwrap();
        assert!(started.elapsed() < Duration::from_secs(15), "{path}: {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_drain_cuts_is_recorded_with_what_was_taken_until_then() {
    const BIG: usize = 32 << 20;
    let (heads, mut head) = mpsc::unbounded_channel();
    let origin = TalkingOrigin::start(move |_, mut talk| {
        let heads = heads.clone();
        async move {
            let head = talk.head().await;
            heads.send(()).unwrap();
            if head.starts_with("GET /big ") {
                let body = vec![b'x'; BIG];
                let _ =
                    talk.stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n").as_bytes()).await;
                let _ = talk.stream.write_all(&body).await;
            }
            if head.starts_with("POST ") {
                talk.take(5).await;
                heads.send(()).unwrap();
            }
            talk.rest().await;
        }
    })
    .await;
    let mut proxy = interim::start(&origin, &["--drain-timeout", "500ms"]);
    let mut posts = Talk::with(proxy.addr(0)).await;
    posts.say("POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    let mut reads = Talk::with(proxy.addr(0)).await;
    reads.say("GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for _ in 0..3 {
        head.recv().await.unwrap();
    }
    reads.head().await;
    reads.take(100_000).await;
    proxy.signal("TERM");
    assert_ne!(proxy.wait().code(), Some(0));
    let event = record(&proxy, "/whole");
    assert_eq!((&event["class"], &event["whole"]), (&"interrupted".into(), &false.into()), "{event}");
    assert_eq!((&event["request_bytes"], &event["status"]), (&5.into(), &0.into()), "{event}");
    let event = record(&proxy, "/big");
    assert_eq!((&event["class"], &event["whole"]), (&"interrupted".into(), &false.into()), "{event}");
    let taken = event["response_bytes"].as_u64().unwrap();
    assert!((100_000..BIG as u64).contains(&taken), "{event}");
    assert!(!posts.rest().await.1 && !reads.rest().await.1, "what is cut ends by a reset");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_whole_once_the_socket_took_it_and_not_before() {
    const BIG: usize = 24 << 20;
    let origin = Origin::start(|_, _| {
        vec![send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n{}", "x".repeat(BIG)))]
    })
    .await;
    let proxy = forwarding::start(&origin, &[]);
    let mut gone = Talk::with(proxy.addr(0)).await;
    gone.say("GET /reset HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gone.head().await;
    gone.reset();
    let event = record(&proxy, "/reset");
    assert_eq!((&event["whole"], &event["status"]), (&false.into(), &200.into()), "{event}");
    assert!(event["response_bytes"].as_u64().unwrap() < BIG as u64, "{event}");
    let mut reads = Talk::with(proxy.addr(0)).await;
    reads.say("GET /read HTTP/1.1\r\nHost: a\r\n\r\n").await;
    reads.head().await;
    reads.take(BIG).await;
    let event = record(&proxy, "/read");
    assert_eq!((&event["whole"], &event["response_bytes"]), (&true.into(), &BIG.into()), "{event}");
}

/// An early response, and a client that then leaves in the middle of its upload, or breaks it.
#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_whole_stays_so_whatever_becomes_of_its_request() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        talk.head().await;
        talk.say(OK).await;
        talk.rest().await;
    })
    .await;
    let proxy = interim::start(&origin, &[]);
    for (path, framing, then) in
        [("/leaves", "Content-Length: 100", ""), ("/breaks", "Transfer-Encoding: chunked", "no chunk\r\n")]
    {
        let mut client = Talk::with(proxy.addr(0)).await;
        client.say(format!("PUT {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(client.take(2).await, "ok");
        client.say(then).await;
        client.stream.shutdown().await.unwrap();
        let (rest, clean) = client.rest().await;
        assert!(rest.is_empty() && clean, "{path}: {rest:?}");
        let event = record(&proxy, path);
        let whole = (&event["whole"], &event["class"], &event["response_bytes"]);
        assert_eq!(whole, (&true.into(), &Value::Null, &2.into()), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_content_is_counted_in_a_refusal_of_head() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = forwarding::start(&origin, &[]);
    for method in ["HEAD", "GET"] {
        let request = format!("{method} /{method} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        let seen = exchange(proxy.addr(0), request.as_bytes()).await;
        let content = seen.text().split_once("\r\n\r\n").unwrap().1.len();
        let event = record(&proxy, &format!("/{method}"));
        assert_eq!((seen.status(), &event["response_bytes"]), (403, &content.into()), "{event}");
        assert_eq!(content > 0, method == "GET");
    }
}

/// How long an exchange takes that ends by a limit.
async fn ends_after(address: SocketAddr, request: String, content: usize) -> (String, Duration) {
    let started = Instant::now();
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    // As much as is taken.
    let _ = timeout(Duration::from_millis(500), client.write_all(&vec![b'x'; content])).await;
    let text = read_to_end(&mut client).await.text();
    (text, started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_on_silence_end_after_their_time_and_not_after_twice_that() {
    let (heads, _keep) = mpsc::unbounded_channel();
    let origin = answers_some(heads).await;
    let flags = [
        "--response-timeout=2s",
        "--request-body-timeout=2s",
        "--head-timeout=2s",
        "--response-body-timeout=2s",
        "--answer=standard",
    ];
    let proxy = interim::start(&origin, &flags);
    let body = |length: usize| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    let mut limits = JoinSet::new();
    for (what, request, content, status, most) in [
        ("response", GET.to_owned(), 0, 504, 3.6),
        ("response to a body", body(5), 5, 504, 3.6),
        ("request body", body(5), 4, 408, 3.6),
        ("request body that is held back", body(5).replace("Host", "Expect: 100-continue\r\nHost"), 0, 408, 4.6),
        ("head", "GET / HTTP/1.1\r\nHost:".to_owned(), 0, 408, 3.6),
        // An upstream has a second more to take a body than its client to send it.
        ("upstream that takes no body", body(64 << 20).replace("POST /", "POST /stalls"), 64 << 20, 504, 4.6),
    ] {
        let address = proxy.addr(0);
        limits.spawn(async move {
            let (text, took) = ends_after(address, request, content).await;
            assert!(text.contains(&format!("HTTP/1.1 {status} ")), "{what}: {text}");
            assert!(took.as_secs_f64() >= 2.0 && took.as_secs_f64() < most, "{what}: {took:?}");
        });
    }
    while let Some(end) = limits.join_next().await {
        end.unwrap();
    }
    let event =
        proxy.wait_for_log("the time-out", |event| event["class"] == "response_timeout" && event["path"] == "/");
    assert!(event.to_string().contains("no response within 2 s"), "{event}");
    let event =
        proxy.wait_for_log("the other", |event| event["class"] == "response_timeout" && event["path"] == "/stalls");
    assert!(event.to_string().contains("no response within 3 s"), "{event}");
    assert_eq!(exchange(proxy.addr(0), served("Connection: close\r\n").as_bytes()).await.status(), 200);
}

/// Reads to the end of the connection, and writes this whenever nothing came for a while: what came, and after how
/// long it ended.
async fn drips(client: &mut TcpStream, drop: &[u8]) -> (String, Duration) {
    let (started, mut text) = (Instant::now(), Vec::new());
    while started.elapsed() < PATIENCE {
        match timeout(Duration::from_millis(200), client.read_buf(&mut text)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(_)) => {}
            // Where this fails the end is read next.
            Err(_) => drop_in(client, drop).await,
        }
    }
    (String::from_utf8(text).unwrap(), started.elapsed())
}

async fn drop_in(client: &mut TcpStream, drop: &[u8]) {
    let _ = client.write_all(drop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_do_not_prolong_the_wait_for_a_request() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = forwarding::start(&origin, &["--head-timeout", "2s", "--keep-alive-timeout", "2s"]);
    for first in ["", GET] {
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        client.write_all(first.as_bytes()).await.unwrap();
        let (text, took) = drips(&mut client, b"\r\n").await;
        assert_eq!(text.ends_with("ok"), first == GET, "{text}");
        assert!(took.as_secs_f64() >= 1.9 && took.as_secs_f64() < 3.8, "{first:?}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_still_takes_the_request_is_not_silent() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        let head = talk.head().await;
        talk.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n").await;
        talk.take(12).await;
        if head.contains(" /goes-on ") {
            talk.say("ok").await;
        }
        talk.rest().await;
    })
    .await;
    let proxy = interim::start(&origin, &["--response-body-timeout", "1s", "--pool-size", "0"]);
    for (path, first, ends, least, most) in
        [("/goes-on", "", "\r\n\r\nok", 2.0, 20.0), ("/stalls", "hello, world", "\r\n\r\n", 1.0, 2.6)]
    {
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        let request = format!("PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{first}");
        client.write_all(request.as_bytes()).await.unwrap();
        let (text, took) = drips(&mut client, if first.is_empty() { b"x" } else { b"" }).await;
        assert!(text.ends_with(ends), "{path}: {text}");
        assert!(took.as_secs_f64() >= least && took.as_secs_f64() < most, "{path}: {took:?}");
        assert_eq!(record(&proxy, path)["whole"], first.is_empty());
    }
}

fn served(lines: &str) -> String {
    format!("GET /served HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stalls_holds_little_and_leaves_less() {
    const STALLED: u64 = 60;
    let (heads, _keep) = mpsc::unbounded_channel();
    let origin = answers_some(heads).await;
    let proxy = interim::start(&origin, &[]);
    // Whatever is had once.
    exchange(proxy.addr(0), served("Connection: close\r\n").as_bytes()).await;
    let before = own_kib(&proxy);
    let mut uploads = JoinSet::new();
    for _ in 0..STALLED {
        let address = proxy.addr(0);
        uploads.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"PUT /stalls HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
            let piece = vec![b'x'; 64 << 10];
            // Until nothing is taken any more.
            while timeout(Duration::from_secs(1), client.write_all(&piece)).await.is_ok() {}
            client
        });
    }
    let clients = uploads.join_all().await;
    let each = own_kib(&proxy).saturating_sub(before) / STALLED;
    assert!(each < 130, "{each} KiB for each stalled upload");
    drop(clients);
    for _ in 0..STALLED {
        proxy.wait_for_access("an end", |event| event["path"] == "/stalls");
    }
    exchange(proxy.addr(0), served("Connection: close\r\n").as_bytes()).await;
    let left = own_kib(&proxy).saturating_sub(before);
    assert!(left < 8 << 10, "{left} KiB are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_or_half_a_head_hold_little() {
    let (heads, _keep) = mpsc::unbounded_channel();
    let origin = answers_some(heads).await;
    let proxy = interim::start(&origin, &[]);
    exchange(proxy.addr(0), served("Connection: close\r\n").as_bytes()).await;
    for (what, count, head, most) in [("silent", 800, 0, 8.0), ("60 KiB of a head", 60, 60 << 10, 100.0)] {
        let before = own_kib(&proxy);
        let mut clients = Vec::new();
        for _ in 0..count {
            let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
            if head > 0 {
                client.write_all(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(head)).as_bytes()).await.unwrap();
            }
            clients.push(client);
        }
        // Accepted behind all of them.
        assert_eq!(exchange(proxy.addr(0), served("Connection: close\r\n").as_bytes()).await.status(), 200);
        let each = own_kib(&proxy).saturating_sub(before) as f64 / f64::from(count);
        assert!(each < most, "{what}: {each} KiB each");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_before_a_request_hold_nothing() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = forwarding::start(&origin, &[]);
    exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let before = proxy.peak_memory_kib();
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    let lines = b"\r\n".repeat(512 << 10);
    for _ in 0..32 {
        timeout(PATIENCE, client.write_all(&lines)).await.unwrap().unwrap();
    }
    assert!(read_response(&mut client).await.starts_with("HTTP/1.1 400 "));
    let more = proxy.peak_memory_kib() - before;
    assert!(more < 4 << 10, "{more} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_whole_response_is_no_reset_whatever_its_client_still_sends() {
    let body = "x".repeat(94_910);
    let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
    let origin = Origin::start(move |_, _| vec![send(&answer), Step::Close]).await;
    let proxy = forwarding::start(&origin, &[]);
    for round in 0..40 {
        let path = format!("/{round}");
        let mut request = format!("GET {path} HTTP/1.0\r\nHost: a\r\n\r\n").into_bytes();
        request.extend(vec![b'x'; [0, 1, 1000, 100_000][round % 4]]);
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        let (mut reads, mut writes) = client.split();
        let mut response = Vec::new();
        // More comes while the response does.
        let (end, ()) = tokio::join!(reads.read_to_end(&mut response), async {
            writes.write_all(&request).await.unwrap();
            if round % 2 == 1 {
                let _ = writes.write_all(b"more").await;
            }
        });
        assert!(end.is_ok(), "round {round}: {end:?} after {} bytes", response.len());
        assert!(response.ends_with(body.as_bytes()), "round {round}: {} bytes", response.len());
        let event = record(&proxy, &path);
        assert_eq!((&event["whole"], &event["response_bytes"]), (&true.into(), &body.len().into()), "{event}");
    }
}

/// A server of connections that authentication is bound to: who has logged in on one is whoever uses it.
async fn logs_in(mut talk: OriginTalk, location: String) {
    let mut user = None;
    loop {
        let head = talk.head().await;
        let login = head.lines().find_map(|line| line.strip_prefix("Authorization: "));
        let answer = match login {
            Some(login) if login.ends_with("TYPE1") => {
                let scheme = login.split(' ').next().unwrap();
                format!(
                    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: {scheme} CHALLENGE\r\nContent-Length: 0\r\n\r\n"
                )
            }
            Some(login) => {
                user = login.split(' ').nth(1).map(str::to_owned);
                moved_or(&head, user.as_ref(), &location)
            }
            None => moved_or(&head, user.as_ref(), &location),
        };
        talk.say(answer).await;
    }
}

fn moved_or(head: &str, user: Option<&String>, location: &str) -> String {
    let user = user.map_or("nobody", String::as_str);
    match head.starts_with("GET /moved ") {
        true => format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"),
        false => format!("HTTP/1.1 200 OK\r\nX-User: {user}\r\nContent-Length: 0\r\n\r\n"),
    }
}

async fn ask(client: &mut Talk<TcpStream>, path: &str, login: &str) -> String {
    let line = if login.is_empty() { String::new() } else { format!("Authorization: {login}\r\n") };
    client.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{line}\r\n")).await;
    client.head().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_one_client_has_logged_in_on_is_no_other_clients() {
    for scheme in ["NTLM", "Negotiate", "ntlm"] {
        let origin = TalkingOrigin::start(|_, talk| logs_in(talk, String::new())).await;
        let proxy = interim::start(&origin, &[]);
        let mut first = Talk::with(proxy.addr(0)).await;
        assert!(ask(&mut first, "/", &format!("{scheme} TYPE1")).await.starts_with("HTTP/1.1 401 "));
        let mut other = Talk::with(proxy.addr(0)).await;
        assert!(ask(&mut other, "/", "").await.contains("X-User: nobody\r\n"), "{scheme}");
        // The login goes on where it began, and holds from then on.
        assert!(ask(&mut first, "/", &format!("{scheme} alice")).await.contains("X-User: alice\r\n"), "{scheme}");
        assert!(ask(&mut other, "/", "").await.contains("X-User: nobody\r\n"), "{scheme}");
        assert!(ask(&mut first, "/", "").await.contains("X-User: alice\r\n"), "{scheme}");
        // It ends with its client.
        drop(first);
        let mut third = Talk::with(proxy.addr(0)).await;
        assert!(ask(&mut third, "/", "").await.contains("X-User: nobody\r\n"), "{scheme}");
        assert_eq!(origin.connections(), 2, "{scheme}: the others share one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_is_it_where_the_login_was_redirected() {
    let other = Origin::start(|_, _| vec![send(OK)]).await;
    let elsewhere = format!("https://good.gallery.test:{}/", other.address.port());
    for location in ["/as", &elsewhere] {
        let there = location.to_owned();
        let origin = TalkingOrigin::start(move |_, talk| logs_in(talk, there.clone())).await;
        let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
        flags.extend([origin.route(), other.route(), vec!["--follow-redirects".to_owned()]].concat());
        let proxy = Proxy::start(&flags);
        let mut first = Talk::with(proxy.addr(0)).await;
        let response = ask(&mut first, "/moved", "NTLM alice").await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        if location == "/as" {
            assert!(response.contains("X-User: alice\r\n"), "{response}");
            assert!(ask(&mut first, "/", "").await.contains("X-User: alice\r\n"));
        }
        for client in 0..3 {
            let mut client_of_nobody = Talk::with(proxy.addr(0)).await;
            assert!(ask(&mut client_of_nobody, "/", "").await.contains("X-User: nobody\r\n"), "{location}, {client}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_logins_share_connections() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        loop {
            talk.head().await;
            talk.say(OK).await;
        }
    })
    .await;
    let proxy = interim::start(&origin, &[]);
    for login in ["Basic eDp5", "Bearer NTLM", "Digest username=negotiate", ""] {
        let mut client = Talk::with(proxy.addr(0)).await;
        ask(&mut client, "/", login).await;
        client.take(2).await;
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_number_sign_cuts_no_target() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = forwarding::start(&origin, STANDARD);
    let put =
        |target: &str| format!("PUT {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi");
    for target in ["/c/report#1.txt", "/#", "#", "/a?b#c", "http://a/b#c", "http://a#b"] {
        let seen = exchange(proxy.addr(0), put(target).as_bytes()).await;
        assert_eq!(seen.status(), 400, "{target}: {}", seen.text());
    }
    assert_eq!(origin.requests(), Vec::<String>::new());
    assert_eq!(exchange(proxy.addr(0), put("/c/report%231.txt").as_bytes()).await.status(), 200);
    assert!(origin.requests()[0].starts_with("PUT /c/report%231.txt HTTP/1.1\r\n"));
}

/// Each request is answered so; the origin sees no more than what is served.
async fn judged(flags: &[&str], cases: impl FnOnce(&Origin, &Proxy) -> Vec<(String, u16, &'static str)>) {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = forwarding::start(&origin, flags);
    let cases = cases(&origin, &proxy);
    let served = cases.iter().filter(|(_, status, _)| *status == 200).count();
    for (request, status, class) in cases {
        let seen = exchange(proxy.addr(0), request.as_bytes()).await;
        assert_eq!(seen.status(), status, "{request}: {}", seen.text());
        assert!(status == 200 || seen.text().contains(class), "{request}: {}", seen.text());
        if status != 200 {
            proxy.wait_for_access(class, |event| event["class"] == class && event["made_by"] == "proxy");
        }
    }
    assert_eq!(origin.requests().len(), served);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_authority_is_not_sent_to_a_routes_upstream() {
    judged(STANDARD, |origin, proxy| {
        let get = |authority: &str| {
            format!("GET http://{authority}/v1 HTTP/1.1\r\nHost: {authority}\r\nX-Auth-Token: t\r\nConnection: close\r\n\r\n")
        };
        let (port, listener) = (origin.address.port(), proxy.addr(0).port());
        vec![
            (get("other.example"), 403, "wrong_authority"),
            (get(&format!("other.example:{port}")), 403, "wrong_authority"),
            (get("192.0.2.1"), 403, "wrong_authority"),
            (get("good.gallery.test.evil.example"), 403, "wrong_authority"),
            (get("good.gallery.test:1"), 403, "wrong_authority"),
            (get(&format!("good.gallery.test:{port}")), 200, ""),
            (get("good.gallery.test"), 200, ""),
            (get(&format!("127.0.0.1:{listener}")), 200, ""),
            (get(&format!("localhost:{listener}")), 200, ""),
            (get("localhost:1"), 403, "wrong_authority"),
            (get("localhost"), 403, "wrong_authority"),
            (get("127.0.0.1:5000"), 403, "wrong_authority"),
            (get("[::1]:1"), 403, "wrong_authority"),
            (get("keystone.localhost:1"), 403, "wrong_authority"),
            (get("a"), 200, ""),
        ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_none_of_the_routes_is_denied() {
    judged(&["--answer", "standard", "--accept-host", "box.lan"], |origin, proxy| {
        let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let (port, listener) = (origin.address.port(), proxy.addr(0).port());
        vec![
            (get("evil.example"), 403, "host_denied"),
            (get(&format!("evil.example:{listener}")), 403, "host_denied"),
            (get("127.0.0.1.evil.example"), 403, "host_denied"),
            (get("localhost.evil.example"), 403, "host_denied"),
            (get("notlocalhost"), 403, "host_denied"),
            (get("x.box.lan"), 403, "host_denied"),
            (get("192.0.2.1"), 403, "host_denied"),
            (get("localhost"), 200, ""),
            (get(&format!("LOCALHOST:{listener}")), 200, ""),
            (get("glance.localhost"), 200, ""),
            (get(&format!("127.0.0.1:{listener}")), 200, ""),
            (get("127.0.0.2"), 200, ""),
            (get(&format!("[::1]:{listener}")), 200, ""),
            (get(&format!("Good.Gallery.Test:{port}")), 200, ""),
            (get("box.lan"), 200, ""),
            (get("BOX.lan:8080"), 200, ""),
            // A client of 1996 names none.
            ("GET / HTTP/1.0\r\n\r\n".to_owned(), 200, ""),
        ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_cannot_use_a_route() {
    judged(STANDARD, |origin, proxy| {
        let (port, address) = (origin.address.port(), proxy.addr(0));
        let ask = |method: &str, lines: &str| {
            format!(
                "{method} / HTTP/1.1\r\nHost: {address}\r\n{lines}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
        };
        let mut cases = Vec::new();
        for refused in [
            "Sec-Fetch-Site: cross-site",
            "sec-fetch-site: same-site",
            "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
            "Origin: null",
            "Origin: http://evil.example",
            "Origin: https://evil.example",
            "Origin: https://good.gallery.test.evil.example",
            "Origin: http://127.0.0.1:1",
            "Origin: file://",
            "Origin: ",
            "Sec-Fetch-Site: same-origin\r\nOrigin: null",
        ] {
            cases.extend(["POST", "GET"].map(|method| (ask(method, refused), 403, "cross_site")));
        }
        for served in [
            "Sec-Fetch-Site: same-origin".to_owned(),
            "Sec-Fetch-Site: none".to_owned(),
            format!("Origin: http://{address}"),
            format!("Origin: https://good.gallery.test:{port}"),
            "Origin: http://a".to_owned(),
            "X: y".to_owned(),
        ] {
            cases.extend(["POST", "GET"].map(|method| (ask(method, &served), 200, "")));
        }
        cases
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_carried_an_odd_body_is_not_kept() {
    for (method, body, connections) in [
        ("GET", 3, 2),
        ("HEAD", 3, 2),
        ("DELETE", 3, 2),
        ("OPTIONS", 3, 2),
        ("GET", 0, 1),
        ("HEAD", 0, 1),
        ("DELETE", 0, 1),
        ("OPTIONS", 0, 1),
        ("POST", 3, 1),
        ("PUT", 3, 1),
        ("PATCH", 3, 1),
    ] {
        let origin = Origin::start(|_, request| {
            vec![send(if request.starts_with("HEAD ") { "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" } else { OK })]
        })
        .await;
        let proxy = forwarding::start(&origin, &[]);
        let request = format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {body}\r\nConnection: close\r\n\r\n{}",
            "x".repeat(body)
        );
        for _ in 0..2 {
            assert_eq!(exchange(proxy.addr(0), request.as_bytes()).await.status(), 200);
        }
        assert_eq!(origin.connections(), connections, "{method} with {body} bytes");
    }
}

/// The first half of a record with what would be the response to the next request waits on a kept connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_with_a_part_of_a_record_waiting_is_not_used() {
    let acceptor = acceptor(&GALLERY.identity(certs_dev::Case::Good).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (says, mut said) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for connection in 0.. {
            let (tcp, _) = listener.accept().await.unwrap();
            tcp.set_nodelay(true).unwrap();
            let (mut stream, says) = (acceptor.accept(tcp).await.unwrap(), says.clone());
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut request).await.unwrap();
                }
                stream.write_all(OK.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
                if connection > 0 {
                    return stream;
                }
                let (tcp, tls) = stream.get_mut();
                let mut record = Vec::new();
                std::io::Write::write_all(&mut tls.writer(), &OK.replace("ok", "no").into_bytes()).unwrap();
                tls.write_tls(&mut record).unwrap();
                tcp.write_all(&record[..20]).await.unwrap();
                says.send(()).unwrap();
                // The rest comes when something is sent, or never.
                if stream.read_buf(&mut request).await.is_ok_and(|count| count > 0) {
                    stream.get_mut().0.write_all(&record[20..]).await.unwrap();
                }
                stream
            });
        }
    });
    let proxy = proxy_to(address, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(GET).await;
    client.head().await;
    assert_eq!(client.take(2).await, "ok");
    said.recv().await.unwrap();
    client.say(GET).await;
    client.head().await;
    assert_eq!(client.take(2).await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_name_a_place_lead_there_from_the_other_side() {
    let origin = Origin::start(|_, request| {
        let own = request.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap();
        vec![send(&format!(
            "HTTP/1.1 201 Created\r\nSet-Cookie: a=b; Domain=.gallery.test; Secure; HttpOnly\r\nSet-Cookie: c=secure\r\n\
             Refresh: 0; url=https://{own}/next\r\nRefresh: 5; URL='https://else.test/'\r\nContent-Length: 0\r\n\r\n"
        ))]
    })
    .await;
    let proxy = forwarding::start(&origin, &[]);
    let here = proxy.addr(0);
    let there = format!("good.gallery.test:{}", origin.address.port());
    let request = format!(
        "MOVE /a HTTP/1.1\r\nHost: {here}\r\nDestination: http://{here}/b\r\nOrigin: http://{here}\r\n\
         Referer: http://{here}/page?q\r\nX-Other: http://{here}/\r\nConnection: close\r\n\r\n"
    );
    let answer = exchange(here, request.as_bytes()).await.text();
    let expected = format!(
        "HTTP/1.1 201 Created\r\nSet-Cookie: a=b; HttpOnly\r\nSet-Cookie: c=secure\r\n\
         Refresh: 0; url=http://{here}/next\r\nRefresh: 5; URL='https://else.test/'\r\nContent-Length: 0\r\n"
    );
    assert!(answer.starts_with(&expected), "{answer}");
    let sent = origin.requests()[0].clone();
    let expected = format!(
        "MOVE /a HTTP/1.1\r\nHost: {there}\r\nDestination: https://{there}/b\r\nOrigin: https://{there}\r\n\
         Referer: https://{there}/page?q\r\nX-Other: http://{here}/\r\nVia: "
    );
    assert!(sent.starts_with(&expected), "{sent}");
    // What leads elsewhere stays.
    let request = format!(
        "COPY /a HTTP/1.1\r\nHost: {here}\r\nDestination: http://else.test/b\r\nReferer: https://{here}/\r\nConnection: close\r\n\r\n"
    );
    exchange(here, request.as_bytes()).await;
    let sent = origin.requests()[1].clone();
    assert!(sent.contains(&format!("\r\nDestination: http://else.test/b\r\nReferer: https://{here}/\r\n")), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookies_domain_stays_where_clients_know_the_upstreams_name() {
    let origin = Origin::start(|_, _| {
        vec![send("HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Domain=.gallery.test; Secure\r\nContent-Length: 0\r\n\r\n")]
    })
    .await;
    let name = format!("good.gallery.test:{}", origin.address.port());
    let proxy = Proxy::start(&[
        "--forward=127.0.0.1:0".to_owned(),
        format!("--allow={name}"),
        format!("--connect-to={name}={}", origin.address),
        format!("--ca-bundle={}", gallery::bundle(certs_dev::Bundle::Root)),
    ]);
    let request = format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let answer = exchange(proxy.addr(0), request.as_bytes()).await.text();
    assert!(answer.contains("\r\nSet-Cookie: a=b; Domain=.gallery.test\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_redirect_takes_harmless_fields_along_and_nothing_else() {
    let other = Origin::start(|_, _| vec![send(OK)]).await;
    let elsewhere = format!("good.gallery.test:{}", other.address.port());
    let origin = Origin::start(move |_, _| {
        vec![send(&format!("HTTP/1.1 302 Found\r\nLocation: https://{elsewhere}/x\r\nContent-Length: 0\r\n\r\n"))]
    })
    .await;
    let mut flags =
        vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root), "--follow-redirects".to_owned()];
    flags.extend([origin.route(), other.route()].concat());
    let proxy = Proxy::start(&flags);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX-Api-Key: secret\r\nUser-Agent: test\r\nCookie: secret\r\nRange: bytes=0-1\r\n\
         Authorization: Basic secret\r\nX-Subject-Token: secret\r\nIf-None-Match: \"x\"\r\nX-Unknown: secret\r\nReferer: http://a/secret\r\nAccept-Language: de\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(proxy.addr(0), request.as_bytes()).await.status(), 200);
    let sent = other.requests()[0].clone();
    assert!(!sent.contains("secret"), "{sent}");
    for kept in ["Accept: */*", "User-Agent: test", "Range: bytes=0-1", "If-None-Match: \"x\"", "Accept-Language: de"] {
        assert!(sent.contains(&format!("\r\n{kept}\r\n")), "{kept}: {sent}");
    }
    assert_eq!(origin.requests()[0].matches("secret").count(), 6, "all of it goes where it was sent");
}

/// The raw bytes of one request's head.
async fn raw_head(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.unwrap() > 0);
    }
    head
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_target_that_clients_do_send_pass_as_they_came() {
    let (heads, mut head) = mpsc::unbounded_channel();
    let origin = TalkingOrigin::start(move |_, mut talk| {
        let heads = heads.clone();
        async move {
            loop {
                heads.send(raw_head(&mut talk.stream).await).unwrap();
                talk.say(OK).await;
            }
        }
    })
    .await;
    let proxy = interim::start(&origin, STANDARD);
    let mut targets = vec![b"/<a>`b`{c}|d^e\\f[g]\"h\"?\"q\"<x>`y`'z'".to_vec()];
    targets.extend((0x80..=0xff_u8).map(|byte| vec![b'/', byte, b'?', byte]));
    for target in targets {
        let request = [b"GET ", &target[..], b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
        assert_eq!(exchange(proxy.addr(0), &request).await.status(), 200, "{}", target.escape_ascii());
        let sent = head.recv().await.unwrap();
        assert!(sent.starts_with(&[b"GET ", &target[..], b" HTTP/1.1\r\n"].concat()), "{}", sent.escape_ascii());
    }
    for byte in (0..=0x20).chain([0x7f]) {
        let request = [b"GET /a", &[byte][..], b"b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"].concat();
        let seen = exchange(proxy.addr(0), &request).await;
        assert_eq!(seen.status(), 400, "{byte:#x}: {}", seen.text());
    }
    assert!(head.try_recv().is_err(), "none of these went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_response_says_passes_as_it_came() {
    for (answer, expected) in [
        (&b"HTTP/1.1 200 D\xe9j\xe0 vu\r\nContent-Length: 2\r\n\r\nok"[..], &b"HTTP/1.1 200 D\xe9j\xe0 vu\r\nContent-Length: 2\r\n"[..]),
        (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 \r\nContent-Length: 2\r\n"),
        (b"HTTP/1.1 299 \tOdd  \r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 299 \tOdd  \r\nContent-Length: 2\r\n"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\netag: x\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\netag: x\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\tc\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 OK\r\nX: a b c\r\nContent-Length: 2\r\n"),
        (b"HTTP/1.1 103 Hints\r\nLINK: <a>\r\nx-Odd_Name: \xff\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 103 Hints\r\nLINK: <a>\r\nx-Odd_Name: \xff\r\n"),
    ] {
        let steps = vec![Step::Send(answer.to_vec())];
        let origin = Origin::start(move |_, _| steps.clone()).await;
        let proxy = forwarding::start(&origin, &[]);
        for _ in 0..2 {
            let seen = exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert!(!seen.reset && seen.bytes.starts_with(expected), "{}", seen.bytes.escape_ascii());
        }
        assert_eq!(origin.connections(), 1, "{}", answer.escape_ascii());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailer_fields_pass_as_they_came_but_for_those_that_frame() {
    let body = "2\r\nhi\r\n0\r\nx-SUM: 7\r\nContent_Length: 99\r\nTransfer_Encoding: chunked\r\nA_b:\t x \r\n\r\n";
    let passed = "2\r\nhi\r\n0\r\nx-SUM: 7\r\nA_b:\t x \r\n\r\n";
    let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-SUM\r\n\r\n{body}");
    let origin = Origin::start(move |_, _| vec![send(&answer)]).await;
    let proxy = forwarding::start(&origin, &[]);
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: x-SUM\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{body}"
    );
    let answer = exchange(proxy.addr(0), request.as_bytes()).await.text();
    assert!(answer.contains("\r\nTrailer: x-SUM\r\n") && answer.ends_with(&format!("\r\n\r\n{passed}")), "{answer}");
    let sent = origin.requests()[0].clone();
    assert!(sent.contains("\r\nTrailer: x-SUM\r\n") && sent.ends_with(&format!("\r\n\r\n{passed}")), "{sent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_are_limited_to_64_letters() {
    judged(STANDARD, |_, _| {
        let method = |length| format!("{} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "M".repeat(length));
        vec![(method(64), 200, ""), (method(65), 501, "method"), (method(10_000), 501, "method"), (method(1), 200, "")]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_with_an_odd_field_name_is_an_error_that_names_it() {
    for (line, named) in
        [("Bad Name: x", "`Bad Name`"), ("X : y", "`X `"), ("(y): z", "`(y)`"), ("no colon", "`no colon`")]
    {
        let origin = Origin::start(move |n, _| {
            let line = if n == 0 { line } else { "good_name!: x" };
            vec![send(&format!("HTTP/1.1 200 OK\r\nA: b\r\n{line}\r\nContent-Length: 2\r\n\r\nok"))]
        })
        .await;
        let proxy = forwarding::start(&origin, STANDARD);
        let get = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let seen = exchange(proxy.addr(0), get).await;
        assert_eq!(seen.status(), 502, "{line}: {}", seen.text());
        let event = proxy.wait_for_log("the failure", |event| event["event"] == "request-failed");
        assert_eq!(event["class"], "bad_response");
        assert!(event["message"].as_str().unwrap().contains(named), "{event}");
        assert_eq!(exchange(proxy.addr(0), get).await.status(), 200, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn few_open_files_are_warned_of_at_the_start() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(origin.route());
    for (files, is_warned) in [(64, true), (4096, false)] {
        let wrapper = ["sh".to_owned(), "-c".into(), format!("ulimit -n {files}; exec \"$0\" \"$@\"")];
        let proxy = Proxy::start_under(&wrapper, &flags);
        assert_eq!(proxy.raw_log().contains("64 open files"), is_warned, "{}", proxy.raw_log());
        assert_eq!(
            exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.status(),
            200
        );
    }
}

/// A server whose first bytes of HTTP come along with its part of the handshake (RFC 8446 section 4.4.4).
fn speaks_unasked() -> SocketAddr {
    let identity = GALLERY.identity(certs_dev::Case::Good).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config =
        config.with_no_client_auth().with_single_cert(identity.chain.clone(), identity.key.clone_key()).unwrap();
    config.send_half_rtt_data = true;
    let config = std::sync::Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut tls = rustls::ServerConnection::new(config).unwrap();
        while !tls.wants_write() {
            tls.read_tls(&mut tcp).unwrap();
            tls.process_new_packets().unwrap();
        }
        std::io::Write::write_all(&mut tls.writer(), OK.as_bytes()).unwrap();
        let mut flight = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut flight).unwrap();
        }
        std::io::Write::write_all(&mut tcp, &flight).unwrap();
        // To the end.
        let _ = std::io::Read::read_to_end(&mut tcp, &mut Vec::new());
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_comes_with_the_handshake_is_none() {
    let proxy = proxy_to(speaks_unasked(), STANDARD);
    let seen = exchange(proxy.addr(0), GET.as_bytes()).await;
    assert_eq!(seen.status(), 502, "{}", seen.text());
    let event = proxy.audit().pop().unwrap();
    assert_eq!(event["error.code"], "tls_protocol", "{event}");
    assert!(event.to_string().contains("the server sent data before it was asked for anything"), "{event}");
}

/// The end of an idle connection, announced, crosses with the next request (RFC 9112 section 9.3.1).
#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_end_in_place_of_a_response_is_repeated_like_any_other() {
    for (request, status, connections) in [
        (GET, 200, 2),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", 200, 2),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 500, 1),
    ] {
        let origin = TalkingOrigin::start(|connection, mut talk| async move {
            talk.head().await;
            talk.say(OK).await;
            talk.head().await;
            if connection == 0 {
                talk.stream.shutdown().await.unwrap();
            }
        })
        .await;
        let proxy = interim::start(&origin, &[]);
        let mut client = Talk::with(proxy.addr(0)).await;
        client.say(GET).await;
        client.head().await;
        client.take(2).await;
        client.say(request).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        assert_eq!(origin.connections(), connections, "{request}");
    }
}
