//! Start, ready, drain, stop; and what is said when it cannot start.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    forwarding::start,
    support::{
        self, gallery,
        origin::{Origin, Step, exchange, read_to_end, send},
        proxy::Proxy,
    },
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

pub fn vouchsafe(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    // A start that should have been refused must not run for ever.
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_vouchsafe")]);
    support::proxy::without_ambient(&mut command);
    command.args(arguments).envs(variables.iter().copied()).output().unwrap()
}

pub fn refused(arguments: &[&str]) -> String {
    let output = vouchsafe(arguments, &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// An origin that responds once it is told to.
async fn held_origin() -> (std::sync::mpsc::Sender<()>, Origin) {
    let (open, opened) = std::sync::mpsc::channel::<()>();
    let opened = std::sync::Mutex::new(opened);
    let origin = Origin::start(move |_, _| {
        opened.lock().unwrap().recv().unwrap();
        vec![send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast")]
    })
    .await;
    (open, origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_what_runs_and_takes_nothing_new() {
    let (open, origin) = held_origin().await;
    let proxy = start(&origin, &[]);
    let address = proxy.addr(0);
    let idle = TcpStream::connect(address).await.unwrap();
    let mut running = TcpStream::connect(address).await.unwrap();
    running.write_all(GET).await.unwrap();
    origin.has_requests(1).await;
    proxy.signal("TERM");
    proxy.wait_for_log("draining", |event| event["message"] == "draining");
    open.send(()).unwrap();
    let seen = read_to_end(&mut running).await;
    assert!(seen.status() == 200 && seen.text().ends_with("last"), "{}", seen.text());
    drop(idle);
    let mut proxy = proxy;
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_kill_cuts_does_not_look_whole() {
    for head in ["Content-Length: 100\r\n", ""] {
        let answer = format!("HTTP/1.1 200 OK\r\n{head}\r\nhalf");
        let origin = Origin::start(move |_, _| vec![send(&answer), Step::Stall]).await;
        let mut proxy = start(&origin, &[]);
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut begun = Vec::new();
        while !begun.ends_with(b"half") {
            assert!(client.read_buf(&mut begun).await.unwrap() > 0);
        }
        proxy.signal("KILL");
        assert!(read_to_end(&mut client).await.reset, "{head:?}");
        proxy.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_client_does_not_hold_up_the_end() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]).await;
    let proxy = start(&origin, &[]);
    let mut kept = TcpStream::connect(proxy.addr(0)).await.unwrap();
    kept.write_all(GET).await.unwrap();
    support::origin::read_response(&mut kept).await;
    assert_eq!(proxy.stop().code(), Some(0));
    assert_eq!(read_to_end(&mut kept).await.text(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_has_a_limit_and_a_second_signal_is_at_once() {
    let origin = Origin::start(|_, _| vec![Step::Stall]).await;
    for second in [false, true] {
        let limit = if second { "1h" } else { "200ms" };
        let mut proxy = start(&origin, &["--drain-timeout", limit]);
        let before = origin.requests().len();
        let mut running = TcpStream::connect(proxy.addr(0)).await.unwrap();
        running.write_all(GET).await.unwrap();
        origin.has_requests(before + 1).await;
        proxy.signal("TERM");
        proxy.wait_for_log("draining", |event| event["message"] == "draining");
        if second {
            // Within a second of the first it is the same one, so it is repeated until it counts.
            proxy.signal_until_it_ends("TERM");
        }
        assert_eq!(proxy.wait().code(), Some(1), "something was cut");
        assert!(read_to_end(&mut running).await.reset, "and looks cut");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_is_sent_twice_drains_once() {
    let (open, origin) = held_origin().await;
    let mut proxy = start(&origin, &[]);
    let mut running = TcpStream::connect(proxy.addr(0)).await.unwrap();
    running.write_all(GET).await.unwrap();
    origin.has_requests(1).await;
    // As `timeout` and `tini -g` do: the process and its group, at once.
    let twice = format!("kill -TERM {0}; kill -INT {0}; kill -TERM {0}", proxy.pid());
    assert!(std::process::Command::new("sh").args(["-c", &twice]).status().unwrap().success());
    proxy.wait_for_log("draining", |event| event["message"] == "draining");
    open.send(()).unwrap();
    let seen = read_to_end(&mut running).await;
    assert!(seen.status() == 200 && seen.text().ends_with("last"), "{}", seen.text());
    assert_eq!(proxy.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ready_file_names_the_listeners_and_goes_at_the_end() {
    let directory = support::dir();
    let file = directory.path().join("ready");
    let proxy = Proxy::start(&[
        "--ca-bundle",
        &gallery::bundle(certs_dev::Bundle::Root),
        "--route=127.0.0.1:0=https://good.gallery.test",
        &format!("--ready-file={}", file.display()),
    ]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("{} https://good.gallery.test:443\n", proxy.addr(0)));
    assert_eq!(proxy.stop().code(), Some(0));
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_follows_its_file() {
    let front = gallery::Front::start(certs_dev::Case::Expired).await;
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(front.route());
    let proxy = Proxy::start(&flags);
    exchange(proxy.addr(0), GET).await;
    proxy.wait_for_audit();
    let rotated = proxy.audit_path().with_extension("1");
    std::fs::rename(proxy.audit_path(), &rotated).unwrap();
    exchange(proxy.addr(0), GET).await;
    assert_eq!(proxy.audit().len(), 1, "a new file under the old name");
    assert_eq!(std::fs::read_to_string(rotated).unwrap().lines().count(), 1);
}

#[test]
fn a_start_without_a_bundle_is_refused() {
    let text = refused(&["run", "--route", "127.0.0.1:0=https://a.example"]);
    assert!(text.contains("error: no CA bundle is configured\n  hint: ") && text.contains("OS_CACERT"), "{text}");
    let directory = support::dir();
    let empty = directory.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    let text = refused(&["run", "--route", "127.0.0.1:0=https://a.example", "--ca-bundle", empty.to_str().unwrap()]);
    assert!(text.contains("no certificate in it"), "{text}");
    let key = gallery::GALLERY.identity(certs_dev::Case::Good).unwrap().key_pem();
    std::fs::write(&empty, key).unwrap();
    let text = refused(&["run", "--route", "127.0.0.1:0=https://a.example", "--ca-bundle", empty.to_str().unwrap()]);
    assert!(text.contains("found 1 PEM block: PRIVATE KEY"), "{text}");
}

#[test]
fn all_problems_are_said_in_one_go() {
    let text = refused(&[
        "run",
        "--route=127.0.0.1:99999=https://a.example",
        "--route=0.0.0.0:1=https://a.example",
        "--route=127.0.0.1:1=http://a.example",
        "--allow=*bad",
        "--ca-bundle=/nonexistent.pem",
    ]);
    assert!(text.starts_with("error: 5 problems in the configuration\n"), "{text}");
    for part in [
        "port 99999 is not within 1-65535",
        "--allow-nonlocal-listen",
        "requests are never sent upstream in plain text",
        "`*bad`",
        "/nonexistent.pem",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn the_environments_bundle_is_taken_in_its_order() {
    let bundle = gallery::bundle(certs_dev::Bundle::Root);
    // The address is taken, so that the program ends behind the bundle.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let route = format!("{listen}=https://a.example");
    let output =
        vouchsafe(&["run"], &[("VOUCHSAFE_ROUTE", &route), ("OS_CACERT", &bundle), ("SSL_CERT_FILE", "/nonexistent")]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("address already in use") && text.contains("hint: `ss -ltnp"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_says_what_flags_say_and_more() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")]).await;
    let directory = support::dir();
    let file = directory.path().join("vouchsafe.toml");
    let text = format!(
        "route = [\"127.0.0.1:0=https://images.internal:9292\"]\nca_bundle = [\"/nonexistent\"]\n\
         [[upstream]]\nof = \"images.internal\"\nconnect_to = \"{}\"\nverify_name = \"good.gallery.test\"\n",
        origin.address
    );
    std::fs::write(&file, text).unwrap();
    // The flag goes before the file.
    let bundle = gallery::bundle(certs_dev::Bundle::Root);
    let proxy = Proxy::start(&["--config", file.to_str().unwrap(), "--ca-bundle", &bundle]);
    assert_eq!(exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.status(), 200);
    assert!(origin.requests()[0].contains("\r\nHost: images.internal:9292\r\n"), "{:?}", origin.requests());
    std::fs::write(&file, "rout = []\n").unwrap();
    let text = refused(&["run", "--config", file.to_str().unwrap()]);
    assert!(text.contains("vouchsafe.toml:1: unknown key `rout`") && text.contains("did you mean `route`?"), "{text}");
}

#[test]
fn the_demonstration_shows_the_right_verdicts() {
    let output = vouchsafe(&["demo"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("4 passed, 10 refused; the refused servers received 0 bytes"), "{text}");
}

#[test]
fn the_demonstration_that_goes_on_leaves_nothing_however_it_is_ended() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let directory = support::dir();
        let mut command = Command::new("env");
        command.args(["--default-signal", env!("CARGO_BIN_EXE_vouchsafe"), "demo", "--keep"]);
        support::proxy::without_ambient(&mut command);
        let mut demo = command.env("TMPDIR", directory.path()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert!(lines.any(|line| line == "Everything runs until Ctrl-C."));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        kill_process(Pid::from_child(&demo), signal).unwrap();
        assert!(demo.wait().unwrap().success(), "{signal:?}");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "{signal:?}");
    }
}
