//! Framing that two readers could understand in two ways is refused; and what stands before
//! it on the connection is not lost.

use crate::{
    forward_listener,
    forwarding::start,
    support::origin::{Origin, Step, exchange, send},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_before_one_that_is_refused_is_answered() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = start(&origin, &[]);
    let two = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 01\r\n\r\nx";
    let text = exchange(proxy.addr(0), two.as_bytes()).await.text();
    let (first, second) = text.split_once("okHTTP/1.1 ").unwrap_or_else(|| panic!("{text}"));
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(second.starts_with("400 ") && second.contains("its Content-Length is not a plain number"), "{text}");
    assert_eq!(origin.requests().len(), 1, "{:?}", origin.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_odd_chunks_is_broken_off_at_the_upstream_and_refused_to_the_client() {
    let origin = Origin::start(|_, _| vec![send(OK), Step::Close]).await;
    let proxy = start(&origin, &[]);
    for body in ["5 \r\nhello\r\n0\r\n\r\n", "5;\r\nhello\r\n0\r\n\r\n", "5;a=\"\0\"\r\nhello\r\n0\r\n\r\n", "0\r\n\n"]
    {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let seen = exchange(proxy.addr(0), request.as_bytes()).await;
        assert!(seen.text().starts_with("HTTP/1.1 400 "), "{body:?}: {}", seen.text());
        assert_eq!(seen.text().matches("HTTP/1.1 ").count(), 1, "{body:?}: {}", seen.text());
    }
    let good = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\n\r\n";
    assert_eq!(exchange(proxy.addr(0), good.as_bytes()).await.status(), 200);
    assert_eq!(origin.requests().len(), 1, "{:?}", origin.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_with_a_body_opens_no_tunnel() {
    let (origin, proxy) = forward_listener::start(&["*"], &[]).await;
    let inside = "GET / HTTP/1.1\r\nHost: a.example:80\r\n\r\n";
    for fields in [format!("Content-Length: {}", inside.len()), "Transfer-Encoding: chunked".into()] {
        let request = format!("CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n{fields}\r\n\r\n{inside}");
        let seen = exchange(proxy.addr(0), request.as_bytes()).await;
        assert!(seen.text().starts_with("HTTP/1.1 400 "), "{fields}: {}", seen.text());
        assert!(seen.text().contains("CONNECT has no body"), "{fields}: {}", seen.text());
    }
    assert_eq!(origin.connections(), 0);
}
