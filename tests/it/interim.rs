//! What is said before the answer (RFC 9110 sections 10.1.1 and 15.2): by the upstream, at its time, and by nobody else.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{Notify, mpsc};

use crate::support::{
    gallery,
    proxy::Proxy,
    talk::{Talk, TalkingOrigin},
};

pub fn start(origin: &TalkingOrigin, more: &[&str]) -> Proxy {
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(origin.route());
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Proxy::start(&flags)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const PUT: &str = "PUT /v1/images HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn interim_responses_pass_as_they_come() {
    let seen = Arc::new(Notify::new());
    let go_on = seen.clone();
    let origin = TalkingOrigin::start(move |_, mut talk| {
        let seen = seen.clone();
        async move {
            talk.head().await;
            talk.say("HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX-Odd: 1\r\nConnection: x-odd\r\n\r\n")
                .await;
            talk.say("HTTP/1.1 102 Processing\r\n\r\n").await;
            // The answer comes only when the client has read these two.
            seen.notified().await;
            talk.say(OK).await;
            talk.head().await;
        }
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let hints = client.head().await;
    let (before, via) = hints.split_once("Via: 1.1 vouchsafe-").unwrap_or_else(|| panic!("{hints}"));
    assert_eq!(before, "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n");
    assert!(via.ends_with("\r\n\r\n"), "{via}");
    let processing = client.head().await;
    assert!(processing.starts_with("HTTP/1.1 102 Processing\r\nVia: 1.1 vouchsafe-"), "{processing}");
    go_on.notify_one();
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.take(2).await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn none_says_that_it_has_a_body() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        talk.head().await;
        talk.say("HTTP/1.1 103 Early Hints\r\nContent-Length: 38\r\nX-A: b\r\n\r\n").await;
        talk.say("HTTP/1.1 102 Processing\r\nTransfer-Encoding: chunked\r\nX-A: c\r\n\r\n").await;
        talk.say(OK).await;
        talk.head().await;
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for expected in ["HTTP/1.1 103 Early Hints\r\nX-A: b\r\nVia: ", "HTTP/1.1 102 Processing\r\nX-A: c\r\nVia: "] {
        let head = client.head().await;
        assert!(head.starts_with(expected), "{head}");
    }
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn none_goes_to_a_client_that_does_not_know_them() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        let head = talk.head().await;
        assert!(!head.contains("Expect"), "{head}");
        talk.say("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
        talk.say(CONTINUE).await;
        assert_eq!(talk.take(4).await, "body");
        talk.say(OK).await;
        talk.head().await;
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say("PUT / HTTP/1.0\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody").await;
    let (text, clean) = client.rest().await;
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n") && text.ends_with("ok") && clean, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_an_answer_that_is_not_read_they_wait_for_their_turn() {
    const BIG: usize = 8 << 20;
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        let mut requests = 0;
        loop {
            let head = talk.head().await;
            requests += 1;
            if head.starts_with("GET /big") {
                talk.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n{}", "x".repeat(BIG))).await;
            } else {
                talk.say(format!("HTTP/1.1 103 Early Hints\r\nLink: </{requests}>\r\n\r\n{OK}")).await;
            }
        }
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say("GET /big HTTP/1.1\r\nHost: a\r\n\r\nGET /small HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.take(BIG).await, "x".repeat(BIG));
    assert!(client.head().await.starts_with("HTTP/1.1 103 Early Hints\r\n"));
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(client.take(2).await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_them_is_no_answer() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        talk.head().await;
        talk.say("HTTP/1.1 102 Processing\r\n\r\n".repeat(1000)).await;
        talk.rest().await;
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (text, _) = client.rest().await;
    assert_eq!(text.matches("HTTP/1.1 102 ").count(), 64);
    assert!(text.contains("HTTP/1.1 500 ") && text.contains("bad_response"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_says_when_a_body_may_come() {
    let (heads, mut head) = mpsc::unbounded_channel();
    let agree = Arc::new(Notify::new());
    let agreed = agree.clone();
    let origin = TalkingOrigin::start(move |_, mut talk| {
        let (agree, heads) = (agree.clone(), heads.clone());
        async move {
            heads.send(talk.head().await).unwrap();
            agree.notified().await;
            talk.say("HTTP/1.1 100 Go Ahead\r\nX-Why: not\r\n\r\n").await;
            assert_eq!(talk.take(4).await, "body");
            talk.say(OK).await;
            talk.head().await;
        }
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(PUT).await;
    let head = head.recv().await.unwrap();
    assert!(head.contains("\r\nExpect: 100-continue\r\n"), "{head}");
    // The head is there, and nobody has told the client anything.
    let nothing = client.stream.try_read(&mut [0; 1]);
    assert_eq!(nothing.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    agreed.notify_one();
    assert_eq!(client.head().await, "HTTP/1.1 100 Go Ahead\r\nX-Why: not\r\n\r\n");
    client.say("body").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"), "one 100 is enough");
    assert_eq!(client.take(2).await, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_comes_instead_of_the_word_and_no_body_is_asked_for() {
    let (ends, mut end) = mpsc::unbounded_channel();
    let origin = TalkingOrigin::start(move |_, mut talk| {
        let ends = ends.clone();
        async move {
            talk.head().await;
            talk.say("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
            ends.send(talk.rest().await).unwrap();
        }
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(PUT).await;
    assert!(client.head().await.starts_with("HTTP/1.1 401 Unauthorized\r\n"));
    assert_eq!(client.take(2).await, "no");
    let (rest, clean) = end.recv().await.unwrap();
    assert!(rest.is_empty() && !clean, "no byte of a body, and no end that looks like one: {rest}");
    // What comes now is the body, whatever it looks like, and what is behind it no head.
    client.say("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (more, _) = client.rest().await;
    assert!(more.is_empty() || more.starts_with("HTTP/1.1 400 "), "{more}");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_never_says_so_gets_the_body_all_the_same() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        talk.head().await;
        assert_eq!(talk.take(4).await, "body");
        talk.say(OK).await;
        talk.head().await;
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(PUT).await;
    assert_eq!(client.head().await, CONTINUE);
    client.say("body").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_comes_late_is_not_said_twice() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        talk.head().await;
        // The body comes because the proxy has said the word.
        assert_eq!(talk.take(4).await, "body");
        talk.say(format!("{CONTINUE}HTTP/1.1 102 Processing\r\n\r\n{OK}")).await;
        talk.head().await;
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(PUT).await;
    assert_eq!(client.head().await, CONTINUE);
    client.say("body").await;
    assert!(client.head().await.starts_with("HTTP/1.1 102 Processing\r\n"));
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_waited_is_sent_again_where_a_kept_connection_was_dead() {
    let bodies = Arc::new(AtomicUsize::new(0));
    let counted = bodies.clone();
    let origin = TalkingOrigin::start(move |n, mut talk| {
        let bodies = bodies.clone();
        async move {
            let head = talk.head().await;
            if n == 0 {
                assert!(head.starts_with("GET"));
                talk.say(OK).await;
                // The next request finds its end here.
                talk.head().await;
                return talk.cut().await;
            }
            talk.say(CONTINUE).await;
            assert_eq!(talk.take(4).await, "body");
            bodies.fetch_add(1, Ordering::SeqCst);
            talk.say(OK).await;
            talk.head().await;
        }
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    client.take(2).await;
    client.say(PUT).await;
    assert_eq!(client.head().await, CONTINUE);
    client.say("body").await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!((origin.connections(), counted.load(Ordering::SeqCst)), (2, 1));
}
