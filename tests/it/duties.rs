//! What a proxy owes to HTTP (docs/http.md has the table): the exact bytes that reach an origin, what comes back, and
//! how the client's side ends. What is tested elsewhere stands in that table with its test.

use tokio::{io::AsyncWriteExt, net::TcpStream, sync::mpsc};

use crate::{
    forwarding::start,
    support::{
        origin::{Origin, Step, exchange, read_response, read_to_end, send},
        proxy::Proxy,
        talk::{Talk, TalkingOrigin},
    },
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What reached the origin, with what is this run's own taken out.
fn neutral(request: &str, origin: &Origin) -> String {
    let text = request.replace(&format!(":{}", origin.address.port()), ":PORT");
    let at = text.find("1 vouchsafe-").or_else(|| text.find("0 vouchsafe-")).expect("Via");
    let (before, after) = text.split_at(at + "1 vouchsafe".len());
    format!("{before}{}", after.split_once("\r\n").map(|(_, rest)| format!("\r\n{rest}")).unwrap_or_default())
}

/// Each of these is refused, without a byte of it at the origin, and the connection ends.
async fn refused(cases: &[(&str, u16)], flags: &[&str]) {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, flags);
    for (request, status) in cases {
        // A second request behind it is never read as one.
        let seen =
            exchange(proxy.addr(0), format!("{request}GET /behind HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert_eq!(seen.status(), *status, "{request:?}: {}", seen.text());
        assert_eq!(seen.text().matches("\r\nProxy-Status: ").count(), 1, "{request:?}: {}", seen.text());
    }
    assert_eq!(origin.requests(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_valid_host() {
    let cases = [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a, b\r\n",
        "Host: a/b\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: u@a\r\n",
        "Host: a:\u{1}\r\n",
        "Host: a:0\r\n",
        "Host: a:65536\r\n",
        "Host: a:x\r\n",
        "Host: [::1\r\n",
        "Host: \u{fc}\r\n",
        "Host : a\r\n",
    ];
    let cases: Vec<_> = cases.iter().map(|lines| format!("GET / HTTP/1.1\r\n{lines}\r\n")).collect();
    let cases: Vec<_> = cases.iter().map(|request| (request.as_str(), 400)).collect();
    refused(&cases, &["--answer", "standard"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_goes_before_the_host() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let name = format!("good.gallery.test:{}", origin.address.port());
    let allow = format!("127.0.0.1:{}", origin.address.port());
    let proxy = Proxy::start(&[
        "--forward",
        "127.0.0.1:0",
        "--allow",
        &name,
        "--connect-to",
        &format!("{name}={allow}"),
        "--ca-bundle",
        &crate::support::gallery::bundle(certs_dev::Bundle::Root),
    ]);
    let request = format!("GET http://{name}/a?b=%2f HTTP/1.1\r\nHost: elsewhere.example\r\nConnection: close\r\n\r\n");
    assert_eq!(exchange(proxy.addr(0), request.as_bytes()).await.status(), 200);
    assert_eq!(
        neutral(&origin.requests()[0], &origin),
        "GET /a?b=%2f HTTP/1.1\r\nHost: good.gallery.test:PORT\r\nVia: 1.1 vouchsafe\r\n\r\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_and_its_form() {
    refused(
        &[
            ("GET good.gallery.test:443 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET ws://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\u{0} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", 405),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.x\r\nHost: a\r\n\r\n", 400),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ],
        &["--answer", "standard"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reading_of_where_a_request_ends() {
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let with = |lines: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n{body}");
    let cases = [
        (with("Content-Length: 5\r\nContent-Length: 6\r\n", "hello"), 400),
        (with("Content-Length: 5, 6\r\n", "hello"), 400),
        (with("Content-Length: 5, 5\r\n", "hello"), 400),
        (with("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), 400),
        (with("Content-Length: 005\r\n", "hello"), 400),
        (with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", body), 400),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 30\r\n", body), 400),
        (with("Content-Length: 5\r\nContent_Length: 6\r\n", "hello"), 400),
        (with("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", body), 400),
        (with("Content-Length: +5\r\n", "hello"), 400),
        (with("Content-Length: 5 5\r\n", "hello"), 400),
        (with("Content-Length: 0x5\r\n", "hello"), 400),
        (with("Content-Length: -1\r\n", ""), 400),
        (with("Content-Length: \r\n", ""), 400),
        (with("Content-Length: 99999999999999999999\r\n", ""), 400),
        (with("Transfer-Encoding: gzip, chunked\r\n", body), 501),
        (with("Transfer-Encoding: chunked, chunked\r\n", body), 400),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", body), 400),
        (with("Transfer-Encoding: xchunked\r\n", body), 400),
        (with("Transfer-Encoding: identity\r\n", ""), 400),
        (with("Transfer-Encoding: chunked;q=1\r\n", body), 400),
        (with("Transfer-Encoding : chunked\r\n", body), 400),
        (with("X: a\r\n b\r\n", ""), 400),
        (with("X: a\rb\r\n", ""), 400),
        (with("X: a\u{0}b\r\n", ""), 400),
        (with(": a\r\n", ""), 400),
        (with("X Y: a\r\n", ""), 400),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
    ];
    let cases: Vec<_> = cases.iter().map(|(request, status)| (request.as_str(), *status)).collect();
    refused(&cases, &["--answer", "standard"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_its_framing_never_ends_at_the_origin() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &[]);
    for body in [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX Y: z\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let seen = exchange(proxy.addr(0), format!("{head}{body}").as_bytes()).await;
        assert_eq!(seen.status(), 400, "{body:?}: {}", seen.text());
        assert!(seen.text().contains("the request's body is not well-formed"), "{body:?}: {}", seen.text());
    }
    assert_eq!(origin.requests(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_here_does_not_go_on() {
    let answer = "HTTP/1.1 200 OK\r\nConnection: x-one, content-length\r\nX-One: 1\r\nConnection: x-two\r\nX-Two: 2\r\n\
        Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Three: 3\r\nVia: 1.1 front\r\nContent-Length: 2\r\n\r\nok";
    let origin = Origin::start(move |_, _| vec![send(answer)]).await;
    let proxy = start(&origin, &[]);
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-One\r\nX-One: 1\r\nVia: 1.0 front\r\nConnection: Host, X-Auth-Token, x-two\r\n\
        X-Two: 2\r\nX-Auth-Token: t\r\nKeep-Alive: 1\r\nProxy-Connection: x\r\nProxy-Authorization: Basic x\r\nTE: gzip\r\n\
        Upgrade: h2c\r\nHTTP2-Settings: x\r\nX-Three: 3\r\n\r\n";
    let seen = exchange(proxy.addr(0), request.as_bytes()).await;
    assert_eq!(
        neutral(&origin.requests()[0], &origin),
        "GET / HTTP/1.1\r\nHost: good.gallery.test:PORT\r\nVia: 1.0 front\r\nX-Auth-Token: t\r\nX-Three: 3\r\nVia: 1.1 vouchsafe\r\n\r\n"
    );
    let text = seen.text();
    let (head, _) = text.split_once("-").unwrap_or_default();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nX"), "{text}");
    for gone in ["X-One", "X-Two", "Keep-Alive", "Proxy-", "Upgrade", "h2c"] {
        assert!(!text.contains(gone), "{gone}: {text}");
    }
    assert!(
        text.contains("X-Three: 3\r\nVia: 1.1 front\r\n")
            && text.contains("\r\nVia: 1.1 vouchsafe-")
            && text.contains("Content-Length: 2\r\n"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_go_both_ways() {
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n";
    let origin = Origin::start(move |_, _| vec![send(answer)]).await;
    let proxy = start(&origin, &[]);
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Up\r\nTransfer-Encoding: chunked\r\nConnection: close, TE\r\n\r\n\
        2\r\nhi\r\n0\r\nX-Up: 9\r\n\r\n";
    let seen = exchange(proxy.addr(0), request.as_bytes()).await;
    assert!(seen.text().to_lowercase().ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{}", seen.text());
    let there = origin.requests()[0].clone();
    assert!(there.contains("\r\nTE: trailers\r\n") && there.contains("\r\nConnection: TE\r\n"), "{there}");
    assert!(there.to_lowercase().ends_with("2\r\nhi\r\n0\r\nx-up: 9\r\n\r\n"), "{there}");
}

#[tokio::test(flavor = "multi_thread")]
async fn options_and_how_far_it_goes() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let name = format!("good.gallery.test:{}", origin.address.port());
    let mut flags = origin.route();
    flags.extend(["--forward", "127.0.0.1:0", "--allow", &name].map(str::to_owned));
    flags.extend(["--ca-bundle".to_owned(), crate::support::gallery::bundle(certs_dev::Bundle::Root)]);
    let proxy = Proxy::start(&flags);
    let close = "Host: a\r\nConnection: close";
    for (listener, request, there) in [
        (0, format!("OPTIONS * HTTP/1.1\r\n{close}\r\n\r\n"), "OPTIONS * HTTP/1.1\r\n"),
        (1, format!("OPTIONS http://{name} HTTP/1.1\r\n{close}\r\n\r\n"), "OPTIONS * HTTP/1.1\r\n"),
        (1, format!("\r\nOPTIONS http://{name} HTTP/1.1\r\n{close}\r\n\r\n"), "OPTIONS * HTTP/1.1\r\n"),
        (
            1,
            format!("GET http://{name}/ HTTP/1.1\r\nHost: a\r\n\r\nOPTIONS http://{name} HTTP/1.1\r\n{close}\r\n\r\n"),
            "OPTIONS * HTTP/1.1\r\n",
        ),
        (1, format!("OPTIONS http://{name}/ HTTP/1.1\r\n{close}\r\n\r\n"), "OPTIONS / HTTP/1.1\r\n"),
        (0, format!("OPTIONS / HTTP/1.1\r\n{close}\r\nMax-Forwards: 7\r\n\r\n"), "\r\nMax-Forwards: 6\r\n"),
        (0, format!("GET / HTTP/1.1\r\n{close}\r\nMax-Forwards: 0\r\n\r\n"), "\r\nMax-Forwards: 0\r\n"),
    ] {
        let seen = exchange(proxy.addr(listener), request.as_bytes()).await;
        assert_eq!(seen.status(), 200, "{request:?}: {}", seen.text());
        let last = origin.requests().pop().unwrap();
        assert!(last.contains(there), "{request:?}: {last}");
    }
    let count = origin.requests().len();
    let seen =
        exchange(proxy.addr(0), format!("OPTIONS / HTTP/1.1\r\n{close}\r\nMax-Forwards: 0\r\n\r\n").as_bytes()).await;
    let text = seen.text();
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n")
            && text.to_lowercase().contains("\r\nallow: get, head, post, put, patch, delete, options\r\n"),
        "{text}"
    );
    let seen =
        exchange(proxy.addr(0), format!("OPTIONS / HTTP/1.1\r\n{close}\r\nMax-Forwards: x\r\n\r\n").as_bytes()).await;
    assert_eq!(seen.status(), 400, "{}", seen.text());
    assert_eq!(origin.requests().len(), count, "neither went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_upstream_is_no_old_proxy() {
    let origin =
        Origin::start(|_, _| vec![send("HTTP/1.0 200 Fine\r\nContent-Length: 2\r\n\r\nok"), Step::Close]).await;
    let proxy = start(&origin, &[]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let answer = read_response(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 Fine\r\n") && answer.contains("1.0 vouchsafe-"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_reading_of_where_an_answer_ends() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\u{0}b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "<html>no head at all</html>",
    ] {
        let origin = Origin::start(move |_, _| vec![send(answer), Step::Close]).await;
        let proxy = start(&origin, &[]);
        let seen = exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert_eq!(seen.status(), 500, "{answer:?}: {}", seen.text());
        assert!(!seen.text().contains("ok\r\n0") && !seen.text().ends_with("ok"), "{answer:?}: {}", seen.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_answer_is_no_answer() {
    // What follows is the next client's answer, to whoever reads it so.
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (method, answer) in [
        ("GET", format!("HTTP/1.1 204 No Content\r\n\r\n{evil}")),
        ("GET", format!("HTTP/1.1 204 No Content\r\nContent-Length: 42\r\n\r\n{evil}")),
        ("GET", format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\n\r\n{evil}")),
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n{evil}")),
        ("GET", format!("{OK}{evil}")),
        ("GET", format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{evil}")),
    ] {
        let first = answer.clone();
        let origin = Origin::start(move |n, _| vec![send(if n == 0 { &first } else { OK })]).await;
        let proxy = start(&origin, &[]);
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        client.write_all(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        client.write_all(b"GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let text = read_to_end(&mut client).await.text();
        assert!(!text.contains("evil"), "{answer:?}: {text}");
        assert!(text.ends_with("\r\n\r\nok"), "{answer:?}: {text}");
        assert_eq!(origin.connections(), 2, "{answer:?}: what said too much is not used again");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_unasked_is_no_answer() {
    let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let (idle, mut is_idle) = mpsc::unbounded_channel();
    let origin = TalkingOrigin::start(move |n, mut talk| {
        let idle = idle.clone();
        async move {
            talk.head().await;
            talk.say(OK).await;
            if n == 0 {
                talk.say(evil).await;
                idle.send(talk.rest().await.0).unwrap();
            }
            talk.rest().await;
        }
    })
    .await;
    let proxy = crate::interim::start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    client.take(2).await;
    // The proxy has closed that connection.
    assert_eq!(is_idle.recv().await.unwrap(), "");
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.take(2).await, "ok");
    assert_eq!(origin.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_is_answered_and_one_that_is_gone_ends_the_exchange() {
    let (ends, mut end) = mpsc::unbounded_channel();
    let (asked, mut was_asked) = mpsc::unbounded_channel();
    let (answer, answers) = tokio::sync::watch::channel(false);
    let origin = TalkingOrigin::start(move |n, mut talk| {
        let (ends, asked, mut answers) = (ends.clone(), asked.clone(), answers.clone());
        async move {
            talk.head().await;
            asked.send(n).unwrap();
            if n == 0 {
                answers.wait_for(|may| *may).await.unwrap();
                talk.say(OK).await;
            }
            ends.send(talk.rest().await).unwrap();
        }
    })
    .await;
    let proxy = crate::interim::start(&origin, &["--pool-size", "0"]);
    let mut waits = Talk::with(proxy.addr(0)).await;
    waits.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    waits.stream.shutdown().await.unwrap();
    was_asked.recv().await.unwrap();
    let mut gone = Talk::with(proxy.addr(0)).await;
    gone.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    was_asked.recv().await.unwrap();
    gone.reset();
    // Its exchange ends while the other one still waits.
    end.recv().await.unwrap();
    answer.send(true).unwrap();
    let (text, clean) = waits.rest().await;
    assert!(text.ends_with("\r\n\r\nok") && clean, "{text}");
}

/// How large a body is that a client has not read while nothing is left of it but what waits for the client differs
/// from system to system; so many sizes are tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_head_behind_an_answer_that_is_not_read_cuts_nothing_unseen() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        // The answer comes early, so that the next head is looked at before all of it is on the wire.
        let head = talk.head().await;
        let size = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        talk.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n{}", "x".repeat(size))).await;
        talk.rest().await;
    })
    .await;
    let proxy = crate::interim::start(&origin, &["--max-head", "1048576", "--pool-size", "0"]);
    let turns = async || {
        for _ in 0..20 {
            let mut client = Talk::with(proxy.addr(0)).await;
            client.say("PUT /0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
            client.rest().await;
        }
    };
    let mut clients = Vec::new();
    for size in (1 << 20..6 << 20).step_by(128 << 10) {
        let mut client = Talk::with(proxy.addr(0)).await;
        client.say(format!("PUT /{size} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n1")).await;
        clients.push((size, client));
    }
    turns().await;
    for (_, client) in &mut clients {
        client.say("2GET / HTTP/9.9\r\n\r\n").await;
    }
    turns().await;
    for (size, mut client) in clients {
        let (text, clean) = client.rest().await;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let whole = body.len() >= size && body[..size].bytes().all(|byte| byte == b'x');
        assert!(whole || !clean, "{} of {size} bytes, and a clean end", body.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_path_goes_up_and_into_no_log() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &[]);
    let request = "GET /v2.0/tokens/hunter2/endpoints?a=hunter2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(proxy.addr(0), request.as_bytes()).await.status(), 200);
    assert!(origin.requests()[0].starts_with("GET /v2.0/tokens/hunter2/endpoints?a=hunter2 HTTP/1.1\r\n"));
    proxy.wait_for_access("the request", |event| event["path"] == "/v2.0/tokens/***/endpoints");
    assert!(!proxy.raw_log().contains("hunter2"), "{}", proxy.raw_log());
}
