//! Report-only, dated: it ends by itself, without a restart, for connections that stand too.

use std::process::Command;

use certs_dev::{Bundle, Case};
use time::OffsetDateTime;

use crate::support::{
    self,
    gallery::{self, Front},
    origin::exchange,
    proxy::{PATIENCE, Proxy},
};

/// The variables under which a program's wall clock is this many seconds ahead; its timers go as ever.
pub fn ahead(seconds: i64) -> Vec<(String, String)> {
    let shown = Command::new("faketime").args(["-f", &format!("{seconds:+}s"), "env"]).output().expect("faketime");
    let text = String::from_utf8(shown.stdout).unwrap();
    let set = text.lines().filter_map(|line| line.split_once('='));
    let mut variables: Vec<_> = set
        .filter(|(name, _)| ["FAKETIME", "LD_PRELOAD"].contains(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert_eq!(variables.len(), 2, "{text}");
    for name in ["DONT_FAKE_MONOTONIC", "FAKETIME_DONT_FAKE_MONOTONIC"] {
        variables.push((name.into(), "1".into()));
    }
    variables
}

#[tokio::test(flavor = "multi_thread")]
async fn when_its_day_is_over_refusals_are_obeyed_without_a_restart() {
    let front = Front::start(Case::WrongName).await;
    // The day that it will be in an hour, so that the clock is always moved forward.
    let now = OffsetDateTime::now_utc();
    let day = (now + time::Duration::hours(1)).date();
    let end = day.next_day().unwrap().midnight().assume_utc();
    let directory = support::dir();
    let config = directory.path().join("vouchsafe.toml");
    std::fs::write(
        &config,
        format!(
            "ca_bundle = \"{}\"\nroute = [\"127.0.0.1:0=https://{of}\"]\n[[upstream]]\nof = \"{of}\"\n\
             connect_to = \"{}\"\nreport_only_until = {day}\n",
            gallery::bundle(Bundle::Root),
            front.address,
            of = front.authority(),
        ),
    )
    .unwrap();
    let variables = ahead((end - now).whole_seconds() - 4);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let proxy = Proxy::start_with(&["--config", &config.display().to_string()], &variables);
    proxy
        .wait_for_log("a warning", |event| event["message"].as_str().is_some_and(|m| m.contains("NOT enforced until")));
    let (mut passed, deadline) = (0, std::time::Instant::now() + PATIENCE);
    loop {
        assert!(std::time::Instant::now() < deadline, "it does not end");
        match exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.status() {
            200 => passed += 1,
            status => {
                assert_eq!(status, 403);
                break;
            }
        }
    }
    assert!(passed > 0);
    assert_eq!(front.counters.requests(), passed, "a request went upstream behind the end");
    let events = proxy.audit();
    let events: Vec<_> = events.into_iter().filter(|event| event["event.action"] != "tls-bypassed-requests").collect();
    let seen: Vec<_> = events
        .iter()
        .map(|event| {
            assert_eq!(event["error.code"], "name_mismatch");
            (event["event.action"].as_str().unwrap(), event["vouchsafe.outcome"].as_str().unwrap())
        })
        .collect();
    let (bypassed, refused) = (("tls-verification-bypassed", "bypassed"), ("tls-verification-refused", "refused"));
    assert_eq!(seen, [bypassed, refused], "one for each connection");
    let midnight = end.unix_timestamp();
    let time = |event: &serde_json::Value| {
        let text = event["@timestamp"].as_str().unwrap();
        OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap().unix_timestamp()
    };
    assert!(time(&events[0]) < midnight && time(&events[1]) == midnight, "{events:?}");
}
