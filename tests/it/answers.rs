//! What a client is told: the three policies, and how much of the reason.

use certs_dev::{Bundle, Case};

use crate::support::{
    gallery::{self, Front},
    origin::{Seen, exchange},
    proxy::Proxy,
};

async fn refused(more: &[&str]) -> (Seen, Proxy) {
    let front = Front::start(Case::Expired).await;
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(Bundle::Root)];
    flags.extend(front.route());
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let proxy = Proxy::start(&flags);
    let seen = exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(proxy.audit().len(), 1, "the record does not depend on the answer");
    (seen, proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_says_403_in_one_sentence_of_text() {
    let (seen, _) = refused(&[]).await;
    let text = seen.text();
    assert!(text.starts_with("HTTP/1.1 403 Forbidden\r\n") && text.contains("Connection: close\r\n"), "{text}");
    assert!(text.contains("Content-Type: text/plain"), "{text}");
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(body.starts_with("vouchsafe refused expired.gallery.test:") && body.lines().count() == 1, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_says_502_as_problem_json() {
    let (seen, _) = refused(&["--answer", "standard"]).await;
    let text = seen.text();
    assert!(text.starts_with("HTTP/1.1 502 ") && text.contains("application/problem+json"), "{text}");
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&problem["status"], &problem["class"]), (&502.into(), &"expired".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn reset_says_nothing_at_all() {
    let (seen, proxy) = refused(&["--answer", "reset"]).await;
    assert!(seen.reset && seen.bytes.is_empty(), "{}", seen.text());
    let event = proxy.wait_for_access("the refused request", |_| true);
    assert_eq!((&event["status"], &event["class"]), (&0.into(), &"expired".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn detail_can_be_less_or_more() {
    let (none, _) = refused(&["--detail", "none"]).await;
    assert!(!none.text().contains("expired") && none.text().contains("(event "), "{}", none.text());
    let (full, _) = refused(&["--detail", "full"]).await;
    assert!(full.text().contains("expired on 20") && full.text().contains("days ago"), "{}", full.text());
}
