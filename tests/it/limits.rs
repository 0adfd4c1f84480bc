//! Limits: what is too large, what is too many, and that neither starves the others.

use std::process::Command;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};

use crate::{
    forwarding::start,
    support::{
        origin::{Origin, exchange, read_response, send},
        proxy::{PATIENCE, Proxy},
        talk::{Talk, TalkingOrigin},
    },
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn heads_are_measured_exactly() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy =
        start(&origin, &["--answer", "standard", "--max-head", "8192", "--max-fields", "16", "--max-target", "300"]);
    let sized = |size: usize| {
        let rest = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(size - rest))
    };
    let fielded = |count: usize| {
        let lines: String = (2..count).map(|n| format!("X-{n}: 1\r\n")).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n")
    };
    let targeted =
        |size: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "x".repeat(size - 1));
    for (request, status) in [
        (sized(8192), 200),
        (sized(8193), 431),
        (sized(70_000), 431),
        (fielded(16), 200),
        (fielded(17), 431),
        (targeted(300), 200),
        (targeted(301), 414),
        (targeted(8000), 414),
    ] {
        let seen = exchange(proxy.addr(0), request.as_bytes()).await;
        assert_eq!(seen.status(), status, "{} bytes: {}", request.len(), seen.text());
    }
    assert_eq!(origin.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_too_large_a_head_is_none() {
    let origin = Origin::start(|n, _| {
        let lines = match n {
            0 => format!("X: {}\r\n", "x".repeat(9000)),
            1 => (0..30).map(|n| format!("X-{n}: 1\r\n")).collect(),
            _ => String::new(),
        };
        vec![send(&format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 0\r\n\r\n"))]
    })
    .await;
    let proxy = start(&origin, &["--max-head", "8192", "--max-response-fields", "20"]);
    for status in [500, 500, 200] {
        let seen = exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert_eq!(seen.status(), status, "{}", seen.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_clients_wait_and_are_then_refused() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &["--max-connections", "2", "--connection-wait", "300ms", "--answer", "standard"]);
    let mut served = Vec::new();
    for _ in 0..2 {
        let mut client = Talk::with(proxy.addr(0)).await;
        client.say(GET).await;
        client.head().await;
        served.push(client);
    }
    let mut refused = Talk::with(proxy.addr(0)).await;
    refused.say(GET).await;
    let (text, clean) = refused.rest().await;
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("too_many_connections") && clean, "{text}");
    proxy.wait_for_log("the refusal", |event| event["class"] == "too_many_connections");
    // A place that gets free goes to whoever waits.
    let mut waiting = Talk::with(proxy.addr(0)).await;
    waiting.say(GET).await;
    served.pop();
    assert!(waiting.head().await.starts_with("HTTP/1.1 200 "));
    assert!(!waiting.take(2).await.is_empty());
    let mut still = served.pop().unwrap();
    still.take(2).await;
    still.say(GET).await;
    assert!(still.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_one_listener_leaves_the_other_alone() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let mut flags = origin.route();
    flags.extend(["--forward", "127.0.0.1:0", "--allow", "good.gallery.test"].map(str::to_owned));
    flags.extend(["--ca-bundle".to_owned(), crate::support::gallery::bundle(certs_dev::Bundle::Root)]);
    flags.extend(["--max-listener-connections", "1", "--connection-wait", "100ms"].map(str::to_owned));
    let proxy = Proxy::start(&flags);
    let mut holds = TcpStream::connect(proxy.addr(0)).await.unwrap();
    holds.write_all(GET.as_bytes()).await.unwrap();
    read_response(&mut holds).await;
    assert_eq!(exchange(proxy.addr(0), GET.as_bytes()).await.status(), 500);
    let url = format!(
        "GET http://good.gallery.test:{}/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        origin.address.port()
    );
    assert_eq!(exchange(proxy.addr(1), url.as_bytes()).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_out_of_descriptors_is_survived() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    // Nor does it open files that it looks at.
    let proxy = start(&origin, &["--reload-interval", "1h"]);
    let limit = |files: &str| {
        let set =
            Command::new("prlimit").args(["--pid", &proxy.pid().to_string(), &format!("--nofile={files}:")]).status();
        assert!(set.expect("prlimit").success());
    };
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap();
    let open: Vec<u32> = open.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let free = (0..).find(|fd| !open.contains(fd)).unwrap();
    // One more client fits, and then nothing does: neither its upstream connection, nor another client.
    limit(&(free + 1).to_string());
    let mut last = Talk::with(proxy.addr(0)).await;
    last.say(GET).await;
    let (text, clean) = last.rest().await;
    assert!(text.starts_with("HTTP/1.1 500 ") && clean, "{text}");
    let mut crowd = Vec::new();
    for _ in 0..4 {
        crowd.push(Talk::with(proxy.addr(0)).await);
    }
    proxy
        .wait_for_log("the lack", |event| event["message"].as_str().is_some_and(|text| text.contains("cannot accept")));
    limit("1024");
    for client in &mut crowd {
        client.say(GET).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_slow_ones_of_each_kind_starve_nobody() {
    let big = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 4 << 20, "x".repeat(4 << 20));
    let origin =
        Origin::start(move |_, request| vec![send(if request.starts_with("GET /big") { &big } else { OK })]).await;
    let proxy = start(&origin, &["--head-timeout", "60s"]);
    let mut slow = Vec::new();
    for begins in [
        "GET / HT",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nx",
        "GET /big HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        for _ in 0..100 {
            let mut client = Talk::with(proxy.addr(0)).await;
            client.say(begins).await;
            slow.push(client);
        }
    }
    origin.has_requests(100).await;
    for _ in 0..20 {
        let seen = exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert_eq!(seen.status(), 200, "{}", seen.text());
    }
    assert!(proxy.peak_memory_kib() < 100 << 10, "{} KiB", proxy.peak_memory_kib());
    // Each of them may still come to its end.
    for (client, rest) in slow.iter_mut().step_by(50).zip([
        "TP/1.1\r\nHost: a\r\n\r\n",
        "TP/1.1\r\nHost: a\r\n\r\n",
        &"x".repeat(999),
        &"x".repeat(999),
        "",
        "",
    ]) {
        client.say(rest).await;
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    }
}

/// Both ways of an upload that an upstream does not read: nobody waits for the answer any more, or it came early.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_reads_nothing_is_not_kept() {
    const UPLOADS: usize = 10;
    for early in [false, true] {
        let (ends, mut end) = mpsc::unbounded_channel();
        let origin = TalkingOrigin::start(move |_, mut talk| {
            let ends = ends.clone();
            async move {
                talk.head().await;
                if early {
                    talk.say(OK).await;
                }
                let (tcp, _) = talk.stream.get_ref();
                ends.send(timeout(PATIENCE, tcp.ready(Interest::ERROR)).await.is_ok()).unwrap();
            }
        })
        .await;
        let proxy = crate::interim::start(&origin, &["--request-body-timeout", "1s", "--response-timeout", "1s"]);
        let mut clients = JoinSet::new();
        for _ in 0..UPLOADS {
            let mut client = Talk::with(proxy.addr(0)).await;
            clients.spawn(async move {
                client.say("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n").await;
                // Nobody ever reads all of this; it ends when the connection does.
                let (mut reads, mut writes) = client.stream.split();
                let (mut answer, image) = (Vec::new(), vec![b'u'; 100_000_000]);
                tokio::select! {
                    _ = reads.read_to_end(&mut answer) => {}
                    _ = writes.write_all(&image) => {}
                }
            });
        }
        for _ in 0..UPLOADS {
            assert!(end.recv().await.unwrap(), "early: {early}: the upstream's connection stays open");
        }
        while let Some(end) = clients.join_next().await {
            end.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_began_behind_a_request_has_no_more_time_than_others() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &["--head-timeout", "200ms", "--answer", "standard"]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(format!("{GET}GET /next HT")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    assert_eq!(client.take(2).await, "ok");
    let (text, clean) = client.rest().await;
    assert!(text.starts_with("HTTP/1.1 408 ") && clean, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_went_away_while_it_waited_holds_no_seat() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &["--max-connections", "1", "--connection-wait", "1h"]);
    let mut served = Talk::with(proxy.addr(0)).await;
    served.say(GET).await;
    served.head().await;
    let open = || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
    let before = open();
    let has = async |count: usize, why: &str| {
        let reached = async {
            while open() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect(why);
    };
    // More than may wait, one after the other: one that the proxy has not noticed yet would hold its seat rightly.
    for _ in 0..200 {
        let waits = Talk::with(proxy.addr(0)).await;
        has(before + 1, "it is accepted").await;
        waits.reset();
        has(before, "it is let go").await;
    }
    let mut waits = Talk::with(proxy.addr(0)).await;
    waits.say(GET).await;
    drop(served);
    assert!(waits.head().await.starts_with("HTTP/1.1 200 "));
}
