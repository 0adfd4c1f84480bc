//! Logs that nobody reads, and that cannot be written: no request, no start and no end waits for them, and what is lost
//! is counted.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

use certs_dev::{Bundle, Case};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinSet, time::timeout};

use crate::support::{
    self,
    gallery::{self, Front},
    origin::{exchange, read_response},
    proxy::{PATIENCE, program, without_ambient},
    schema,
};

/// A proxy before a good server and an expired one; its stderr is read no further than to its ready line.
struct Unread {
    child: Child,
    stderr: BufReader<ChildStderr>,
    good: SocketAddr,
    expired: SocketAddr,
    _fronts: [Front; 2],
}

impl Unread {
    async fn start(more: &[&str]) -> Self {
        let fronts = [Front::start(Case::Good).await, Front::start(Case::Expired).await];
        let mut command = command(&fronts, more);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut addresses = Vec::new();
        loop {
            let event = next(&mut stderr).expect("a ready line");
            match event["message"].as_str().unwrap() {
                "listening" => addresses.push(event["address"].as_str().unwrap().parse().unwrap()),
                "ready" => break,
                _ => {}
            }
        }
        Self { child, stderr, good: addresses[0], expired: addresses[1], _fronts: fronts }
    }

    fn end(&mut self) -> ExitStatus {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            thread::yield_now();
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(fronts: &[Front], more: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["run", "--threads", "1", "--log-format", "json", "--fold-repeats", "1ns"]);
    command.args(["--ca-bundle", &gallery::bundle(Bundle::Root)]).args(more);
    command.args(fronts.iter().flat_map(Front::route));
    without_ambient(&mut command);
    command
}

fn next(from: &mut impl BufRead) -> Option<Value> {
    let mut line = String::new();
    let count = from.read_line(&mut line).unwrap();
    (count > 0).then(|| serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
}

/// A FIFO; whoever opens it for writing finds a reader as long as the file is held.
fn fifo(directory: &Path) -> (PathBuf, File) {
    const O_NONBLOCK: i32 = 0o4000;
    let path = directory.join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let held = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(&path).unwrap();
    (path, held)
}

/// Asks so often, several clients at a time; every answer has this status. A client whose request was refused connects
/// again.
async fn ask(address: SocketAddr, status: u16, times: usize) {
    const CLIENTS: usize = 8;
    const REQUEST: &[u8] = b"GET /path HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(async move {
            let mut client = TcpStream::connect(address).await.unwrap();
            for _ in 0..times / CLIENTS {
                if status == 200 {
                    client.write_all(REQUEST).await.unwrap();
                    let answer = timeout(PATIENCE, read_response(&mut client)).await.expect("an answer");
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                } else {
                    let seen = timeout(PATIENCE, exchange(address, REQUEST)).await.expect("an answer");
                    assert_eq!(seen.status(), status);
                }
            }
        });
    }
    clients.join_all().await;
}

const GOOD: usize = 8_400;
const REFUSED: usize = 1_600;

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_requests_pass_while_nobody_reads_and_what_was_lost_is_counted() {
    let directory = support::dir();
    let (path, held) = fifo(directory.path());
    let mut proxy = Unread::start(&["--audit-log", path.to_str().unwrap()]).await;
    tokio::join!(ask(proxy.good, 200, GOOD), ask(proxy.expired, 403, REFUSED));
    // Now somebody reads again, both to their ends.
    let audit = BufReader::new(File::open(&path).unwrap());
    drop(held);
    let (gap_read, gap_seen) = mpsc::channel();
    let audit = thread::spawn(move || {
        let (mut audit, mut events) = (audit, Vec::new());
        while let Some(event) = next(&mut audit) {
            if event["event.action"] == "audit-gap" {
                gap_read.send(()).unwrap();
            }
            events.push(event);
        }
        events
    });
    let mut log = Vec::new();
    while !log.iter().any(|event: &Value| event["event"] == "log-lines-lost") {
        log.push(next(&mut proxy.stderr).expect("a line that says what was lost"));
    }
    gap_seen.recv_timeout(PATIENCE).expect("a line that says which events are missing");
    assert!(Command::new("kill").arg(proxy.child.id().to_string()).status().unwrap().success());
    while let Some(event) = next(&mut proxy.stderr) {
        log.push(event);
    }
    assert_eq!(proxy.child.wait().unwrap().code(), Some(0));

    let audit = audit.join().unwrap();
    audit.iter().for_each(schema::check);
    let sum = |events: &[Value], key: &str| events.iter().filter_map(|event| event[key].as_u64()).sum::<u64>();
    let missing = sum(&audit, "vouchsafe.lost");
    assert!(missing > 0, "there was room for all of them");
    assert_eq!(sum(&audit, "vouchsafe.count") + missing, REFUSED as u64, "an event or a gap for each refusal");
    let requests = log.iter().filter(|event| event["message"] == "request").count() as u64;
    let copies = log.iter().filter(|event| event["event.action"].is_string()).count() as u64;
    let lost: Vec<_> = log.into_iter().filter(|event| event["event"] == "log-lines-lost").collect();
    assert_eq!(requests + sum(&lost, "access"), (GOOD + REFUSED) as u64, "{lost:?}");
    assert_eq!(copies + sum(&lost, "audit"), REFUSED as u64, "{lost:?}");
    assert!(lost.iter().all(|event| event["level"] == "WARN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_comes_in_time_though_nobody_reads() {
    let directory = support::dir();
    let (path, _held) = fifo(directory.path());
    let mut proxy = Unread::start(&["--audit-log", path.to_str().unwrap()]).await;
    tokio::join!(ask(proxy.good, 200, 400), ask(proxy.expired, 403, 400));
    let began = Instant::now();
    assert_eq!(proxy.end().code(), Some(0));
    assert!(began.elapsed() < PATIENCE / 3, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_ends_in_time_though_nobody_reads() {
    let (reader, writer) = std::io::pipe().unwrap();
    // The pipe is full before the program has a word to say.
    let mut full =
        Command::new("sh").args(["-c", "yes | head -c 65536"]).stdout(writer.try_clone().unwrap()).spawn().unwrap();
    assert!(full.wait().unwrap().success());
    let front = Front::start(Case::Good).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let route = format!("--route={}=https://a.example", taken.local_addr().unwrap());
    let mut child = command(&[front], &[&route]).stderr(writer).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it waits for its reader");
        thread::yield_now();
    };
    assert_eq!(status.code(), Some(1));
    drop(reader);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_pass_where_stderr_cannot_be_written() {
    let fronts = [Front::start(Case::Good).await];
    let directory = support::dir();
    let ready = directory.path().join("ready");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut child = command(&fronts, &["--ready-file", ready.to_str().unwrap()]).stderr(full).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    let address = loop {
        let text = std::fs::read_to_string(&ready).unwrap_or_default();
        if let Some((address, _)) = text.split_once(' ') {
            break address.parse().unwrap();
        }
        assert!(Instant::now() < deadline, "it is not ready");
        thread::yield_now();
    };
    for _ in 0..20 {
        assert_eq!(
            exchange(address, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.status(),
            200
        );
    }
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_audit_log_or_chain_directory_that_cannot_be_used_stops_the_start_with_words() {
    let directory = support::dir();
    let (path, held) = fifo(directory.path());
    drop(held);
    let missing = directory.path().join("missing/audit.jsonl");
    for (flag, path, words) in [
        ("--save-failed-chains", &missing, "hint: create the directory: `install -d -o USER "),
        ("--audit-log", &path, "it is a FIFO that nobody reads; start its reader first"),
        ("--audit-log", &missing, "hint: create the directory: `install -d -o USER "),
    ] {
        let mut command = Command::new("timeout");
        command.arg("60").arg(program()).args(["run", "--route", "127.0.0.1:0=https://a.example"]);
        command.args(["--ca-bundle", &gallery::bundle(Bundle::Root), flag, path.to_str().unwrap()]);
        without_ambient(&mut command);
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words) && said.contains(&format!("{flag} `")), "{said}");
    }
}
