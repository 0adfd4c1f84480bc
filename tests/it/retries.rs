//! What is repeated when a kept connection turns out dead, counted at the origin: what may be repeated is answered
//! all the same, and what may not arrives once or not at all.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    relay_faults::proxy_to,
    support::{
        origin::{Origin, exchange, read_response, send},
        relay::{
            Fault::{self, Fin, HalfClose, Reset},
            Plan, Relay, To,
        },
    },
};

/// How a kept connection dies. Only the first is seen before the next request is sent.
const DEATHS: &[(&str, To, u64, Fault)] = &[
    ("closed before", To::Proxy, 0, Fin),
    ("reset before, or as the request comes", To::Proxy, 0, Reset),
    ("half-closed before, or as the request comes", To::Proxy, 0, HalfClose),
    ("FIN when the request comes", To::Origin, 1, Fin),
    ("RST when the request comes", To::Origin, 1, Reset),
    ("FIN for an answer", To::Proxy, 1, Fin),
    ("RST for an answer", To::Proxy, 1, Reset),
];

const HEAD: &str = "HTTP/1.1 200 OK\r\nX-Answered: yes\r\n";

/// An exchange that leaves a connection to be used again, its death, and another request: the status of its
/// answer, how often the origin got it, and how many connections were made.
async fn after(death: &(&str, To, u64, Fault), request: &[u8]) -> (u16, usize, usize) {
    let origin = Origin::start(|_, _| vec![send(&format!("{HEAD}Content-Length: 0\r\n\r\n"))]).await;
    let relay = Relay::start(origin.address, |_| Plan::Pass).await;
    let proxy = proxy_to(relay.address, &[]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    read_response(&mut client).await;
    let (_, to, after, fault) = death;
    relay.arm(*to, *after, fault);
    if matches!((after, fault), (0, Fin)) {
        relay.rest().await;
    }
    let seen = exchange(proxy.addr(0), request).await;
    assert!(!seen.reset, "{}", seen.text());
    let arrived = origin.requests().iter().filter(|request| !request.contains(" /first ")).count();
    (seen.status(), arrived, relay.connections())
}

fn request(method: &str, body: usize) -> Vec<u8> {
    let length = match (method, body) {
        ("POST" | "PUT", _) => format!("Content-Length: {body}\r\n"),
        _ => String::new(),
    };
    let mut request = format!("{method} /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{length}\r\n").into_bytes();
    request.resize(request.len() + body, b'u');
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_repeated_is_answered_whatever_the_connection_died_of() {
    for death in DEATHS {
        for method in ["DELETE", "GET", "HEAD", "OPTIONS", "PUT"] {
            let (status, arrived, connections) = after(death, &request(method, 0)).await;
            assert_eq!((status, connections), (200, 2), "{method}, {}", death.0);
            assert!(arrived <= 2, "{method}, {}: {arrived} times", death.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_repeated_arrives_once_or_not_at_all() {
    // The last is large enough that the connection dies in the middle of it.
    let mid_upload = ("RST in the middle of an upload", To::Origin, 100_000, Reset);
    for death in DEATHS.iter().chain([&mid_upload]) {
        for (method, body) in [("POST", 0), ("POST", 10), ("POST", 1_000_000), ("PUT", 10), ("PUT", 1_000_000)] {
            if death.2 > body as u64 + 1 {
                continue;
            }
            let (status, arrived, connections) = after(death, &request(method, body)).await;
            let seen = format!("{method} of {body} bytes, {}: {status}, {arrived}, {connections}", death.0);
            match (status, connections) {
                // None of it had been sent.
                (200, 2) => assert!(death.2 == 0 && arrived == 1, "{seen}"),
                (500, 1) => assert!(arrived <= 1, "{seen}"),
                _ => panic!("{seen}"),
            }
            assert!(death.0 != "closed before" || status == 200, "{seen}");
        }
    }
}

/// From the first byte of an answer on, nothing is repeated, whatever the method.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_repeated_behind_the_first_byte_of_an_answer() {
    for (fault, method) in [(Fin, "GET"), (Reset, "GET"), (Fin, "DELETE"), (Reset, "HEAD")] {
        let part = |number| match number {
            0 => vec![send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")],
            _ => vec![send("H"), send(&"TTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".repeat(50))],
        };
        let origin = Origin::start(move |number, _| part(number)).await;
        let relay = Relay::start(origin.address, |_| Plan::Pass).await;
        let proxy = proxy_to(relay.address, &[]);
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        client.write_all(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        read_response(&mut client).await;
        // Behind the record with the one byte.
        relay.arm(To::Proxy, 100, &fault);
        let seen = exchange(proxy.addr(0), &request(method, 0)).await;
        assert_eq!(seen.status(), 500, "{method} {fault:?}: {}", seen.text());
        let event = proxy.wait_for_log("the failure", |event| event["event"] == "request-failed");
        assert_eq!(event["class"], "upstream_closed", "{event}");
        assert_eq!((origin.requests().len(), relay.connections()), (2, 1), "{method} {fault:?}");
    }
}

/// An upload on a kept connection that dies at any byte of it: from nothing sent to all of it, and its answer lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_post_that_is_cut_at_any_byte_arrives_once_or_not_at_all() {
    const STEP: u64 = 16;
    const BODY: usize = 3000;
    for fault in [Fin, Reset] {
        let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]).await;
        let relay = Relay::start(origin.address, |_| Plan::Pass).await;
        let proxy = proxy_to(relay.address, &[]);
        let (mut answered, mut failed) = (0, 0);
        for n in 0..(BODY as u64 + 300) / STEP {
            let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
            client.write_all(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert!(read_response(&mut client).await.starts_with("HTTP/1.1 200 "));
            relay.arm(To::Origin, n * STEP, &fault);
            let request = String::from_utf8(request("POST", BODY)).unwrap().replace("/second", &format!("/post-{n}"));
            let seen = exchange(proxy.addr(0), request.as_bytes()).await;
            let path = format!("POST /post-{n} ");
            let arrived = origin.requests().iter().filter(|request| request.starts_with(&path)).count();
            match seen.status() {
                200 if arrived == 1 => answered += 1,
                500 if arrived <= 1 => failed += 1,
                status => panic!("{fault:?} at {}: {status}, {arrived} times", n * STEP),
            }
        }
        eprintln!("{fault:?}: {answered} answered, {failed} failed");
        assert!(answered > 0 && failed > 150, "{fault:?}: {answered} answered, {failed} failed");
    }
}
