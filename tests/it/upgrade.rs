//! Upgrade (RFC 9110 section 7.8): to websocket and to nothing else, where the upstream agrees; then bytes, both ways.

use tokio::{io::AsyncWriteExt, sync::mpsc};

use crate::{
    interim::start,
    support::talk::{Talk, TalkingOrigin},
};

const ASK: &str = "GET /ws?a=1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn websocket_passes_with_what_was_said_right_behind_the_answer() {
    let (heads, mut head) = mpsc::unbounded_channel();
    let origin = TalkingOrigin::start(move |_, mut talk| {
        let heads = heads.clone();
        async move {
            heads.send(talk.head().await).unwrap();
            talk.say(format!("{AGREE}hello")).await;
            let more = talk.take(5).await;
            talk.say(more.to_uppercase()).await;
            // The client ends its side first, and is still answered.
            let (rest, clean) = talk.rest().await;
            assert!(clean);
            talk.say(format!("you said {rest}")).await;
            talk.stream.shutdown().await.unwrap();
        }
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(format!("{ASK}early")).await;
    let answer = client.head().await;
    assert!(
        answer.starts_with(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3p"
        ),
        "{answer}"
    );
    assert!(
        !answer.to_lowercase().contains("content-length") && !answer.to_lowercase().contains("transfer-"),
        "{answer}"
    );
    let asked = head.recv().await.unwrap();
    assert!(asked.starts_with("GET /ws?a=1 HTTP/1.1\r\nHost: good.gallery.test:"), "{asked}");
    assert!(asked.contains("\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhl"), "{asked}");
    assert_eq!(client.take(10).await, "helloEARLY");
    client.say("last").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, ("you said last".to_owned(), true));
    let access = proxy.wait_for_access("the end", |event| event["status"] == 101);
    assert_eq!((&access["request_bytes"], &access["response_bytes"]), (&9.into(), &23.into()));
    assert_eq!(access["whole"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_ends_first_still_hears_the_client() {
    let (words, mut word) = mpsc::unbounded_channel();
    let origin = TalkingOrigin::start(move |_, mut talk| {
        let words = words.clone();
        async move {
            talk.head().await;
            talk.say(AGREE).await;
            talk.stream.shutdown().await.unwrap();
            words.send(talk.rest().await).unwrap();
        }
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(ASK).await;
    client.head().await;
    assert_eq!(client.rest().await, (String::new(), true));
    client.say("still here").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(word.recv().await.unwrap(), ("still here".to_owned(), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_looks_cut() {
    let (ends, mut end) = mpsc::unbounded_channel();
    let origin = TalkingOrigin::start(move |n, mut talk| {
        let ends = ends.clone();
        async move {
            talk.head().await;
            talk.say(AGREE).await;
            if n == 0 {
                return talk.cut().await;
            }
            ends.send(talk.rest().await).unwrap();
        }
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(ASK).await;
    client.head().await;
    assert!(!client.rest().await.1, "a reset, not an end");
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(ASK).await;
    client.head().await;
    client.reset();
    assert!(!end.recv().await.unwrap().1, "a client that is gone has not said all");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_tunnel_and_so_does_the_end_of_the_process() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        talk.head().await;
        talk.say(AGREE).await;
        talk.rest().await;
    })
    .await;
    let proxy = start(&origin, &["--tunnel-timeout", "100ms"]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(ASK).await;
    client.head().await;
    assert!(!client.rest().await.1);
    proxy.wait_for_access("its end", |event| event["class"] == "tunnel_timeout" && event["whole"] == false);
    let proxy = start(&origin, &["--drain-timeout", "100ms"]);
    let mut client = Talk::with(proxy.addr(0)).await;
    client.say(ASK).await;
    client.head().await;
    let status = proxy.stop();
    assert!(!client.rest().await.1);
    assert_eq!(status.code(), Some(1), "something was cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_is_upgraded() {
    let (heads, mut head) = mpsc::unbounded_channel();
    let origin = TalkingOrigin::start(move |_, mut talk| {
        let heads = heads.clone();
        async move {
            loop {
                heads.send(talk.head().await).unwrap();
                talk.say("HTTP/1.1 200 OK\r\nUpgrade: h2\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let proxy = start(&origin, &[]);
    let socket = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nConnection: Upgrade, HTTP2-Settings\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.0\r\nHost: a\r\n{socket}\r\n"),
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        format!("POST / HTTP/1.1\r\nHost: a\r\n{socket}Content-Length: 0\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{socket}Content-Length: 2\r\n\r\nhi"),
    ] {
        let mut client = Talk::with(proxy.addr(0)).await;
        client.say(&request).await;
        let answer = client.head().await.to_lowercase();
        assert!(answer.contains(" 200 ok\r\n") && !answer.contains("upgrade"), "{request:?}: {answer}");
        let seen = head.recv().await.unwrap().to_lowercase();
        assert!(!seen.contains("upgrade") && !seen.contains("http2-settings"), "{request:?}: {seen}");
        if request.contains("Content-Length: 2") {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_nobody_asked_for_is_no_answer() {
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        let asked = talk.head().await.contains("Upgrade: websocket");
        let other = AGREE.replace("Upgrade: websocket", "Upgrade: h2c");
        talk.say(if asked { &other } else { AGREE }).await;
        talk.rest().await;
    })
    .await;
    let proxy = start(&origin, &[]);
    for request in ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", ASK] {
        let mut client = Talk::with(proxy.addr(0)).await;
        client.say(request).await;
        let (text, _) = client.rest().await;
        assert!(text.starts_with("HTTP/1.1 500 ") && text.contains("bad_response"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_instead_of_the_switch_comes_whole_or_ends_by_a_reset() {
    const BIG: usize = 32 << 20;
    let origin = TalkingOrigin::start(|_, mut talk| async move {
        talk.head().await;
        talk.say(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n{}", "x".repeat(BIG))).await;
        talk.rest().await;
    })
    .await;
    let proxy = start(&origin, &[]);
    let mut client = Talk::with(proxy.addr(0)).await;
    // The answer is larger than what the system takes at once, and the connection ends behind it.
    client.say(ASK.replace("keep-alive", "close")).await;
    assert!(client.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
    let (body, clean) = client.rest().await;
    assert!(body.len() == BIG || !clean, "{} bytes and a clean end", body.len());
}
