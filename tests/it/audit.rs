//! What is recorded about refusals: every event by its schema, repeats folded, chains kept, and a disk that is full.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use certs_dev::{Bundle, Case};
use serde_json::Value;
use vouchsafe::{
    audit::{
        event::PolicyRefused,
        sink::{AuditSettings, AuditSink},
    },
    transport::ClientAddress,
};

use crate::support::{
    self,
    gallery::{self, Front},
    origin::exchange,
    proxy::{PATIENCE, Proxy},
    schema,
};

async fn refuse(proxy: &Proxy, n: usize) -> String {
    let seen = exchange(proxy.addr(n), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(seen.status(), 403);
    let text = seen.text();
    let (_, id) = text.split_once("(event ").expect("an id");
    id[..16].to_owned()
}

async fn start(case: Case, more: &[&str]) -> (Front, Proxy) {
    let front = Front::start(case).await;
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(Bundle::Root)];
    flags.extend(front.route());
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    let proxy = Proxy::start(&flags);
    (front, proxy)
}

#[test]
fn the_schema_can_fail() {
    let mut event: Value = serde_json::from_str(r#"{"@timestamp": "2026-11-21T00:00:00Z"}"#).unwrap();
    assert!(std::panic::catch_unwind(|| schema::check(&event)).is_err());
    event["x-auth-token"] = "secret".into();
    assert!(std::panic::catch_unwind(|| schema::check(&event)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_are_counted_and_none_is_lost() {
    let (_front, mut proxy) = start(Case::WrongName, &["--fold-repeats", "1h"]).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(refuse(&proxy, 0).await);
    }
    let events = proxy.audit();
    assert_eq!(events.len(), 1, "only the first is written at once");
    assert_eq!((&events[0]["event.id"], &events[0]["vouchsafe.count"]), (&ids[0].clone().into(), &1.into()));
    proxy.signal("TERM");
    proxy.wait();
    let events = proxy.audit();
    assert_eq!(events.len(), 2, "the others at the end, as one");
    let folded = &events[1];
    assert_eq!((&folded["event.id"], &folded["vouchsafe.count"]), (&ids[99].clone().into(), &99.into()));
    let listed: Vec<_> = folded["vouchsafe.ids"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(listed, ids[1..65]);
    assert_eq!(folded["error.code"], "name_mismatch");
    assert!(folded["vouchsafe.chain"].as_array().is_some_and(|chain| chain.len() == 2), "it is whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_makes_a_line_for_each_window() {
    let (_front, mut proxy) = start(Case::WrongName, &["--fold-repeats", "100ms"]).await;
    let mut asked = 0;
    let deadline = Instant::now() + PATIENCE;
    while proxy.audit().iter().filter(|event| event["vouchsafe.count"].as_u64() > Some(1)).count() < 3 {
        assert!(Instant::now() < deadline, "{:?}", proxy.audit());
        refuse(&proxy, 0).await;
        asked += 1;
    }
    proxy.signal("TERM");
    proxy.wait();
    let events = proxy.audit();
    let counted: u64 = events.iter().map(|event| event["vouchsafe.count"].as_u64().unwrap()).sum();
    assert_eq!(counted, asked);
    assert!((events.len() as u64) < asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_differs_is_not_folded_together() {
    let (one, two) = (Front::start(Case::WrongName).await, Front::start(Case::Expired).await);
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(Bundle::Root), "--fold-repeats".into(), "1h".into()];
    flags.extend(one.route());
    flags.extend(two.route());
    let proxy = Proxy::start(&flags);
    for n in [0, 1, 0, 1] {
        refuse(&proxy, n).await;
    }
    let codes: Vec<_> = proxy.audit().iter().map(|event| event["error.code"].clone()).collect();
    assert_eq!(codes, ["name_mismatch", "expired"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_chain_is_kept_once_and_verify_agrees_offline() {
    let directory = support::dir();
    let kept = directory.path().join("chains");
    let (front, proxy) = start(Case::WrongName, &["--save-failed-chains", &kept.display().to_string()]).await;
    refuse(&proxy, 0).await;
    refuse(&proxy, 0).await;
    let events = proxy.audit();
    let name = format!("{}.pem", events[0]["vouchsafe.chain_sha256"].as_str().unwrap());
    let files: Vec<_> = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, [name.as_str()]);
    let verify = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vouchsafe"));
        command.args(["verify", "--ca-bundle", &gallery::bundle(Bundle::Root), "--name", name]);
        command.arg(kept.join(&files[0])).output().unwrap()
    };
    let refused = verify(front.case.name());
    let said = String::from_utf8(refused.stdout).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    let expected = format!("name_mismatch: {}\n", events[0]["error.message"].as_str().unwrap());
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(verify("elsewhere.gallery.test").status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_changes_no_verdict_and_events_go_to_stderr() {
    assert!(Path::new("/dev/full").exists());
    let (front, proxy) = start(Case::WrongName, &["--audit-log", "/dev/full"]).await;
    let id = refuse(&proxy, 0).await;
    proxy.wait_for_log("a complaint", |event| {
        event["message"].as_str().is_some_and(|m| m.contains("cannot be written"))
    });
    let event = proxy.wait_for_log("the event", |event| event["event.id"] == id.as_str());
    schema::check(&event);
    assert_eq!(front.counters.application_bytes(), 0);
}

#[test]
fn a_refusal_that_is_not_about_a_certificate_is_an_event_with_its_target() {
    let directory = support::dir();
    let file = directory.path().join("audit.jsonl");
    let settings = AuditSettings { file: Some(file.clone()), fold: Duration::from_secs(60), chains: None };
    let sink = AuditSink::new(None, &settings).unwrap();
    let refused = PolicyRefused {
        id: "00112233445566aa",
        time: time::macros::datetime!(2026-11-21 00:00 UTC),
        class: "destination_denied",
        message: "`evil.example:443` is not allowed as a destination",
        hint: "",
        target: "evil.example:443",
        upstream: None,
        address: None,
        client: ClientAddress::Tcp("127.0.0.1:4711".parse().unwrap()),
        listener: "forward 127.0.0.1:3128",
        request: Some(("CONNECT", "")),
        generation: 1,
    };
    sink.record_policy(&refused);
    sink.record_policy(&refused);
    sink.record_policy(&PolicyRefused { target: "other\u{202e}.example:443", ..refused });
    sink.close();
    let text = std::fs::read_to_string(&file).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    events.iter().for_each(schema::check);
    let seen: Vec<_> = events.iter().map(|event| (&event["vouchsafe.target"], &event["vouchsafe.count"])).collect();
    let one = Value::from(1);
    let (evil, other): (Value, Value) = ("evil.example:443".into(), "other\\u{202e}.example:443".into());
    assert_eq!(seen, [(&evil, &one), (&other, &one), (&evil, &one)], "repeats are folded by target");
    assert_eq!(events[2]["vouchsafe.ids"], serde_json::json!(["00112233445566aa"]));
}
