//! `vouchsafe audit`: what many events say together, over the log of real refusals and over hostile ones.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use certs_dev::{Bundle, Case};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::support::{
    self,
    gallery::{self, Front},
    origin::exchange,
    proxy::{Proxy, without_ambient},
};

/// Refusals as they happened, and who was refused.
struct Real {
    /// The log, byte for byte.
    log: String,
    /// The same, read.
    events: Vec<Value>,
    expired: String,
    unknown: String,
}

/// Three refusals of an expired certificate, one of an unknown root, and a peer that is not TLS; made once.
async fn real() -> &'static Real {
    static REAL: OnceCell<Real> = OnceCell::const_new();
    REAL.get_or_init(|| async {
        let (expired, unknown) = (Front::start(Case::Expired).await, Front::start(Case::UnknownRoot).await);
        let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = plain.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut stream, _) = plain.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(Bundle::Root)];
        flags.extend(expired.route().into_iter().chain(unknown.route()));
        flags.extend(["--route".into(), format!("127.0.0.1:0=https://{address}")]);
        let proxy = Proxy::start(&flags);
        for (n, status) in [(0, 403), (0, 403), (1, 403), (0, 403), (2, 403)] {
            let seen = exchange(proxy.addr(n), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(seen.status(), status, "listener {n}: {}", seen.text());
        }
        serving.await.unwrap();
        let events = proxy.audit();
        let log = std::fs::read_to_string(proxy.audit_path()).unwrap();
        Real { log, events, expired: expired.authority(), unknown: unknown.authority() }
    })
    .await
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["120", env!("CARGO_BIN_EXE_vouchsafe"), "audit"]).args(arguments);
    without_ambient(&mut command);
    command
}

fn audit(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = command(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// What it says of these arguments and this input; it must have ended well.
fn said(arguments: &[&str], input: &[u8]) -> String {
    let output = audit(arguments, input);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The document it makes of an input.
fn document(arguments: &[&str], input: &[u8]) -> Value {
    let text = said(&[arguments, &["--format=json", "-"]].concat(), input);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

fn written(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = support::dir();
    let path = directory.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The event with some fields set anew, as a line.
fn line(event: &Value, fields: Value) -> String {
    let mut event = event.clone();
    for (key, value) in fields.as_object().unwrap() {
        event[key] = value.clone();
    }
    format!("{event}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn real_refusals_are_summarised_for_people() {
    let real = real().await;
    let (_directory, path) = written("audit.jsonl", real.log.as_bytes());
    let text = said(&[text(&path), "--sort", "count"], b"");
    let (first, last) = (&real.events[0], &real.events[3]);
    let field = |event: &Value, key: &str| event[key].as_str().unwrap_or_else(|| panic!("{key}: {event}")).to_owned();
    let end = field(&real.events[4], "@timestamp");
    let title = format!("5 events of 3 kinds in 1 file, {} to {end}\n", field(first, "@timestamp"));
    assert!(text.starts_with(&title), "{text}\n--- does not begin with ---\n{title}");
    let day = &field(last, "@timestamp")[..10];
    let group = format!(
        "    3        1  no    {}  {}  refused  expired         {}\n       {}\n       \
         certificate: CN=expired, sha256 {}, issuer CN=Gallery Intermediate, not after {}\n       \
         clients: 127.0.0.1 (3)\n       listeners: {} (3)\n       paths: / (3)\n       days: {day} 3; the last ",
        field(last, "@timestamp"),
        field(first, "@timestamp"),
        real.expired,
        field(last, "error.message"),
        &field(last, "tls.server.hash.sha256")[..16],
        field(last, "tls.server.not_after"),
        field(last, "vouchsafe.listener"),
    );
    assert!(text.contains(&group), "{text}\n--- lacks ---\n{group}");
    let chain = field(last, "vouchsafe.chain_sha256");
    let end = format!(
        "       chain: {chain}.pem in the directory of --save-failed-chains\n       hint: {}\n",
        field(last, "vouchsafe.hint")
    );
    assert!(text.contains(&end), "{text}\n--- lacks ---\n{end}");
    assert!(text.contains("\nnothing was sent to a server that failed verification\n"), "{text}");
    assert!(text.contains(&format!("refused  unknown_issuer  {}\n", real.unknown)), "{text}");
    assert!(text.contains("  failed   not_tls         127.0.0.1:"), "{text}");
    assert!(text.find(&real.expired) < text.find(&real.unknown), "the most frequent comes first: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_log_says_the_same_plain_packed_and_from_standard_input() {
    let real = real().await;
    let half = real.log.len() / 2;
    let packed = [gzip(&real.log.as_bytes()[..half]), gzip(&real.log.as_bytes()[half..])].concat();
    // Its name says nothing; its first bytes do.
    let (_plain, plain) = written("plain.gz", real.log.as_bytes());
    let (_gzip, gzip) = written("packed.jsonl", &packed);
    let mut seen = None;
    for (what, file, input) in [
        ("plain", text(&plain), &b""[..]),
        ("packed, of two members", text(&gzip), b""),
        ("standard input", "-", real.log.as_bytes()),
        ("standard input, packed", "-", &packed),
    ] {
        let said = said(&[file], input);
        assert_eq!(seen.get_or_insert_with(|| said.clone()), &said, "{what}");
    }
    let twice = document(&[text(&plain), text(&gzip)], b"");
    assert_eq!((&twice["events"], twice["files"].as_array().unwrap().len()), (&json!(10), 3), "{twice:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_holds_what_the_log_says() {
    let real = real().await;
    let found = document(&["--upstream", &real.expired], real.log.as_bytes());
    let (first, last) = (&real.events[0], &real.events[3]);
    let expected = json!([{
        "name": real.expired,
        "code": "expired",
        "action": "tls-verification-refused",
        "events": 3,
        "first": first["@timestamp"],
        "last": last["@timestamp"],
        "sent": {"requests": 0, "bytes": 0, "bypassed": 0, "perhaps": 0},
        "message": last["error.message"],
        "hint": last["vouchsafe.hint"],
        "certificate": {
            "in": "presented",
            "subject": last["vouchsafe.offending"]["subject"],
            "sha256": last["vouchsafe.offending"]["sha256"],
            "issuer": last["tls.server.issuer"],
            "not_after": last["tls.server.not_after"],
        },
        "fingerprints": [last["tls.server.hash.sha256"].as_str().unwrap()[..16]],
        "clients": {"127.0.0.1": 3},
        "listeners": {last["vouchsafe.listener"].as_str().unwrap(): 3},
        "paths": {"/": 3},
        "days": {last["@timestamp"].as_str().unwrap()[..10]: 3},
        "upstreams": {real.expired.as_str(): 3},
        "codes": {"expired": 3},
        "findings": {},
        "chains": {last["vouchsafe.chain_sha256"].as_str().unwrap(): 3},
    }]);
    assert_eq!(found["groups"], expected, "{found:#}");
    assert_eq!((&found["events"], &found["files"][0]["left_out"]), (&json!(3), &json!(2)), "{found:#}");
    let of_class = document(&["--code", "unknown_issuer"], real.log.as_bytes());
    assert_eq!((&of_class["events"], &of_class["groups"][0]["name"]), (&json!(1), &json!(real.unknown)));
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_broken_are_counted_and_said() {
    let real = real().await;
    let whole = real.log.lines().next().unwrap();
    let mut log = real.log.clone().into_bytes();
    for broken in [
        // Cut at a full disk, and near its end, where all that is needed has been read.
        &whole.as_bytes()[..700],
        &whole.as_bytes()[..whole.len() - 1],
        b"",
        b"\r",
        b"{\"error.message\":\"no code\"}",
        b"[]",
        b"\xff\xfe",
        &vec![b'x'; 3 << 20],
        b"2026-11-21T03:17:56Z WARN refused code=expired",
    ] {
        log.extend(broken);
        log.push(b'\n');
    }
    log.extend(whole.as_bytes());
    let (_directory, path) = written("torn.jsonl", &log);
    let output = audit(&[text(&path), "--format=json"], b"");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let broken = json!({"lines": 7, "first": 6, "not_an_event": 2, "not_json": 3, "not_utf8": 1, "too_long": 1});
    assert_eq!((&found["events"], &found["files"][0]["broken"]), (&json!(6), &broken), "{found:#}");
    assert_eq!(found["files"][0]["lines"], 15, "{found:#}");
    let complaint = format!(
        "warning: `{}`: 7 broken lines passed over: 3 not JSON, or cut, 2 not an audit event, 1 not UTF-8, 1 longer than \
         1 MiB; the first is line 6\n",
        path.display()
    );
    assert_eq!(stderr, complaint);
    assert!(said(&[text(&path)], b"").lines().next().unwrap().ends_with("; 7 lines broken"));
}

#[tokio::test(flavor = "multi_thread")]
async fn since_and_until_choose_by_the_time_of_recording() {
    let real = real().await;
    let now = time::OffsetDateTime::now_utc();
    let ago = |hours| vouchsafe::clock::rfc3339(now - time::Duration::hours(hours));
    let log: String = [1, 30, 100].map(|hours| line(&real.events[0], json!({"@timestamp": ago(hours)}))).concat();
    let day = &ago(30)[..10];
    let from_day = 1 + i64::from(ago(1)[..10] >= *day);
    for (arguments, events) in [
        (&[][..], 3),
        (&["--since", "24h"][..], 1),
        (&["--since", "7d"], 3),
        (&["--since", "2d", "--until", "24h"], 1),
        (&["--until", "24h"], 2),
        (&["--since", &ago(30)], 2),
        (&["--until", &ago(30)], 1),
        (&["--since", day], from_day),
        (&["--since", "0s"], 0),
    ] {
        let found = document(arguments, log.as_bytes());
        assert_eq!(found["events"], events, "{arguments:?}: {found:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folded_and_bypassed_events_are_counted_for_what_they_are() {
    let real = real().await;
    let bypassed = json!({"event.action": "tls-verification-bypassed", "event.outcome": "bypassed"});
    let folded = json!({
        "@timestamp": "2026-11-21T10:00:00Z", "vouchsafe.count": 500, "vouchsafe.first_time": "2026-11-21T09:00:00Z"
    });
    let log = [
        line(&real.events[0], json!({"@timestamp": "2026-11-21T09:30:00Z"})),
        line(&real.events[0], folded),
        line(&real.events[0], bypassed),
    ]
    .concat();
    let found = document(&["--sort", "count"], log.as_bytes());
    let [refused, bypassed] = &found["groups"].as_array().unwrap()[..] else { panic!("{found:#}") };
    assert_eq!(
        (&refused["events"], &refused["action"]),
        (&json!(501), &json!("tls-verification-refused")),
        "{found:#}"
    );
    assert_eq!(refused["first"], "2026-11-21T09:00:00Z", "{found:#}");
    assert_eq!(refused["last"], "2026-11-21T10:00:00Z", "{found:#}");
    assert_eq!(
        (&bypassed["events"], &bypassed["action"]),
        (&json!(1), &json!("tls-verification-bypassed")),
        "{found:#}"
    );
    let text = said(&["-"], log.as_bytes());
    assert!(text.starts_with("502 events on 3 lines of 2 kinds in 1 file, "), "{text}");
    assert!(text.contains("  bypassed  expired  "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_read_is_named_and_the_others_are_told() {
    let real = real().await;
    let (directory, path) = written("audit.jsonl", real.log.as_bytes());
    let packed = gzip(real.log.as_bytes());
    let (_cut, cut) = written("cut.gz", &packed[..packed.len() - 6]);
    let missing = directory.path().join("missing.jsonl");
    let output = audit(&[text(&missing), text(&path), text(directory.path()), text(&cut)], b"");
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stdout.starts_with("10 events of 3 kinds in 4 files, "), "what can be read is counted: {stdout}");
    for expected in [
        format!("error: the audit log `{}` cannot be read: No such file or directory", missing.display()),
        format!("error: the audit log `{}` cannot be read: Is a directory", directory.path().display()),
        format!("error: the audit log `{}` cannot be read beyond line 5: ", cut.display()),
    ] {
        assert!(stderr.contains(&expected), "{stderr}\n--- lacks ---\n{expected}");
    }
    for (what, arguments) in [
        ("no file", &[][..]),
        ("no time", &["--since", "yesterday", "-"]),
        ("no order", &["--sort", "name", "-"]),
        ("no such flag", &["--follow", "-"]),
    ] {
        assert_eq!(audit(arguments, b"").status.code(), Some(2), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_event_that_a_client_quotes_is_found_whole_also_among_repeats() {
    let real = real().await;
    let id = real.events[2]["event.id"].as_str().unwrap();
    let text = said(&["--event", id, "-"], real.log.as_bytes());
    assert!(text.starts_with("`-`, line 3:\n  @timestamp"), "{text}");
    assert!(text.contains("  error.code                        unknown_issuer\n"), "{text}");
    let folded = line(&real.events[0], json!({"vouchsafe.ids": ["00112233445566aa"], "vouchsafe.count": 1}));
    let found = document(&["--event", "00112233445566aa"], folded.as_bytes());
    assert_eq!(found["found"][0]["error.code"], "expired", "{found:#}");
    let output = audit(&["--event", "ffffffffffffffff", "-"], real.log.as_bytes());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: no event has the id `ffffffffffffffff`"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_cannot_be_meant_and_a_file_that_is_no_audit_log_are_errors() {
    let real = real().await;
    let output = audit(&["--code", "expird", "-"], real.log.as_bytes());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("--code `expird`") && stderr.contains("did you mean `expired`?"), "{stderr}");
    let output = audit(&["--code", "weak_key", "-"], real.log.as_bytes());
    assert_eq!(output.status.code(), Some(0), "a code that is known and did not come");
    let log = b"2026-11-21T03:17:56.000Z  WARN refused code=expired\n2026-11-21T03:17:57.000Z  INFO stopped\n";
    let output = audit(&["-"], log);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: `-` is no audit log: there is no audit event in its 2 lines"), "{stderr}");
    assert!(stderr.contains("give the file of `--audit-log`"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_objects_to_what_was_sent_and_to_what_is_missing() {
    let real = real().await;
    let gap = "{\"@timestamp\":\"2026-11-21T03:17:56Z\",\"event.action\":\"audit-gap\",\"vouchsafe.lost\":7}\n";
    let bypassed = line(&real.events[0], json!({"event.action": "tls-verification-bypassed"}));
    for (what, more, objection) in [
        ("a sound log", "", None),
        ("a gap", gap, Some("events are missing (7)")),
        ("a bypass", &bypassed, Some("something was sent to a server that failed verification")),
        ("a cut line", "{\n", Some("lines are broken (1)")),
    ] {
        let log = format!("{}{more}", real.log);
        let output = audit(&["--strict", "-"], log.as_bytes());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(i32::from(objection.is_some())), "{what}: {stderr}");
        assert!(stderr.contains(objection.unwrap_or_default()), "{what}: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_grouped_by_whatever_is_asked() {
    let real = real().await;
    for (by, names) in [("client", vec!["127.0.0.1"]), ("code", vec!["expired", "not_tls", "unknown_issuer"])] {
        let found = document(&["--by", by, "--sort", "count"], real.log.as_bytes());
        let groups = found["groups"].as_array().unwrap();
        let groups: Vec<_> = groups.iter().map(|group| group["name"].as_str().unwrap()).collect();
        assert_eq!(groups, names, "{found:#}");
    }
    let csv = said(&["--format", "csv", "-"], real.log.as_bytes());
    assert_eq!(csv.lines().count(), 4, "{csv}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_early_is_no_failure() {
    let log = (0..2_000).fold(String::new(), |log, n| log + &forged(n, 100));
    let mut child =
        command(&["-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(log.as_bytes()).unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// The least that is an event, of an upstream of its own, with texts of this length.
fn forged(n: usize, length: usize) -> String {
    let long = "é".repeat(length / 2);
    let sha256 = format!("{n:064x}");
    let event = json!({
        "@timestamp": "2026-11-21T03:17:56Z", "event.action": "a", "error.code": format!("code-{n}"),
        "error.message": long, "vouchsafe.hint": long,
        "vouchsafe.upstream": format!("{n}.{}:1", "u".repeat(length.min(280))),
        "vouchsafe.offending": {"in": long, "subject": long, "sha256": sha256},
        "vouchsafe.chain": [{"sha256": sha256, "issuer": long}],
    });
    format!("{event}\n")
}

/// What no log may make it take, in KiB.
const MOST_MEMORY: u64 = 50 << 10;

/// The highest resident memory of a child so far, in KiB.
fn peak_memory_kib(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_else(|| panic!("no VmHWM: {status}"));
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// The program itself, not under `timeout`: its memory is asked for.
fn reading(arguments: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vouchsafe"));
    without_ambient(&mut command);
    command.arg("audit").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_takes_no_more_memory_than_a_short_one() {
    let real = real().await;
    let copies = 60 * 1_000_000 / real.log.len();
    let mut child = reading(&["--format=json", "-"]);
    let mut input = child.stdin.take().unwrap();
    for _ in 0..copies {
        input.write_all(real.log.as_bytes()).unwrap();
    }
    // All but what the pipe holds was read, and it waits for more.
    let peak = peak_memory_kib(&child);
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["events"], copies * real.events.len(), "{found:#}");
    assert!(peak < MOST_MEMORY, "{peak} KiB for 60 MB");
}

#[test]
fn a_hostile_log_cannot_fill_the_memory() {
    const KINDS: usize = 11_000;
    for arguments in [&["-"][..], &["--format=json", "-"]] {
        let mut child = reading(arguments);
        let mut input = child.stdin.take().unwrap();
        // A line without end, a chain of very many certificates, very many kinds with long texts.
        input.write_all(&vec![b'['; 8 << 20]).unwrap();
        input.write_all(b"\n").unwrap();
        let chain =
            forged(0, 10).replace("\"vouchsafe.chain\":[", &format!("\"vouchsafe.chain\":[{}", "{},".repeat(340_000)));
        input.write_all(chain.as_bytes()).unwrap();
        (1..KINDS).for_each(|n| input.write_all(forged(n, 800).as_bytes()).unwrap());
        // And the least that is an event, as many as a block holds.
        let least = json!({
            "@timestamp": "2026-11-21T03:17:56Z", "event.action": "a", "error.code": "c", "vouchsafe.upstream": "u"
        });
        let least = format!("{least}\n").repeat(40_000);
        input.write_all(least.as_bytes()).unwrap();
        drop(input);
        // Once it writes, it holds all that it will ever hold; there is more to write than the pipe takes.
        let mut stdout = child.stdout.take().unwrap();
        let mut said = vec![0];
        stdout.read_exact(&mut said).unwrap();
        let peak = peak_memory_kib(&child);
        stdout.read_to_end(&mut said).unwrap();
        assert!(child.wait().unwrap().success(), "{arguments:?}");
        assert!(peak < MOST_MEMORY, "{arguments:?}: {peak} KiB");
        let said = String::from_utf8(said).unwrap();
        let other = KINDS - vouchsafe::audit::summary::MOST_GROUPS + 40_000;
        assert!(said.contains(&other.to_string()), "{arguments:?}: {other} events are of other kinds");
    }
}
