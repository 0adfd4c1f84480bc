//! The table of docs/faults.md: each fault is made on the wire below TLS, or in the resolver, or by our own end;
//! what the client sees, what the log says, and that the next request is served as if nothing had been.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{Notify, Semaphore},
    task::JoinSet,
};

use crate::support::{
    dns::{Answer, NameServer},
    gallery,
    origin::{Origin, Seen, Step, exchange, hasty, read_to_end, send},
    proxy::Proxy,
    relay::{
        Fault::{self, Fin, Flip, HalfClose, Reset, Stall},
        Plan, Relay, To,
    },
};

const TABLE: &str = include_str!("../../docs/faults.md");

/// How the answer to the client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// An answer of our own.
    Failure,
    /// A reset, perhaps behind a part of the upstream's answer.
    Reset,
    /// The whole answer.
    Whole,
}
use Client::{Failure, Whole};

/// Where on the wire it happens.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// When the connection is made.
    Connect(Door),
    Handshake(fn() -> Fault),
    Head(fn() -> Fault),
    Body(Framing, fn() -> Fault),
    Upload(fn() -> Fault),
    /// A test of its own.
    Own,
}
use Place::{Body, Connect, Handshake, Head, Own, Upload};

#[derive(Clone, Copy, Debug)]
enum Door {
    Hangs,
    Refuses,
    Resets,
    Slices,
    Swallows,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Chunked,
    Counted,
    ToTheEnd,
}
use Framing::{Chunked, Counted, ToTheEnd};

/// The name in the table, what the client sees, the class in the log, and where the fault is.
type Row = (&'static str, Client, &'static str, Place);

const ROWS: &[Row] = &[
    ("port closed", Failure, "connection_refused", Connect(Door::Refuses)),
    ("black hole: no answer to SYN", Failure, "connect_timeout", Connect(Door::Swallows)),
    ("accepts and hangs", Failure, "handshake_timeout", Connect(Door::Hangs)),
    ("reset at the first byte", Failure, "closed_in_handshake", Connect(Door::Resets)),
    ("every byte in its own segment", Whole, "", Connect(Door::Slices)),
    ("no such name (NXDOMAIN)", Failure, "dns_error", Own),
    ("name server fails (SERVFAIL)", Failure, "dns_error", Own),
    ("name server silent", Failure, "dns_timeout", Own),
    ("one address of three dead", Whole, "", Own),
    ("all of three addresses dead", Failure, "connect_timeout", Own),
    ("handshake: FIN", Failure, "closed_in_handshake", Handshake(|| Fin)),
    ("handshake: half-close", Failure, "closed_in_handshake", Handshake(|| HalfClose)),
    ("handshake: reset", Failure, "closed_in_handshake", Handshake(|| Reset)),
    ("handshake: stall", Failure, "handshake_timeout", Handshake(|| Stall)),
    ("handshake: flipped bit", Failure, "tls_protocol", Handshake(|| Flip)),
    ("response head: FIN", Failure, "upstream_closed", Head(|| Fin)),
    ("response head: half-close", Failure, "upstream_closed", Head(|| HalfClose)),
    ("response head: reset", Failure, "upstream_closed", Head(|| Reset)),
    ("response head: stall", Failure, "response_timeout", Head(|| Stall)),
    ("response head: flipped bit", Failure, "upstream_closed", Head(|| Flip)),
    ("body with Content-Length: FIN", Client::Reset, "response_incomplete", Body(Counted, || Fin)),
    ("body with Content-Length: half-close", Client::Reset, "response_incomplete", Body(Counted, || HalfClose)),
    ("body with Content-Length: reset", Client::Reset, "response_incomplete", Body(Counted, || Reset)),
    ("body with Content-Length: stall", Client::Reset, "response_incomplete", Body(Counted, || Stall)),
    ("body with Content-Length: flipped bit", Client::Reset, "response_incomplete", Body(Counted, || Flip)),
    ("chunked body: FIN", Client::Reset, "response_incomplete", Body(Chunked, || Fin)),
    ("chunked body: half-close", Client::Reset, "response_incomplete", Body(Chunked, || HalfClose)),
    ("chunked body: reset", Client::Reset, "response_incomplete", Body(Chunked, || Reset)),
    ("chunked body: stall", Client::Reset, "response_incomplete", Body(Chunked, || Stall)),
    ("chunked body: flipped bit", Client::Reset, "response_incomplete", Body(Chunked, || Flip)),
    ("body to the end of the connection: FIN", Client::Reset, "response_incomplete", Body(ToTheEnd, || Fin)),
    (
        "body to the end of the connection: half-close",
        Client::Reset,
        "response_incomplete",
        Body(ToTheEnd, || HalfClose),
    ),
    ("body to the end of the connection: reset", Client::Reset, "response_incomplete", Body(ToTheEnd, || Reset)),
    ("body to the end of the connection: stall", Client::Reset, "response_incomplete", Body(ToTheEnd, || Stall)),
    ("body to the end of the connection: flipped bit", Client::Reset, "response_incomplete", Body(ToTheEnd, || Flip)),
    ("upload: FIN", Failure, "upstream_closed", Upload(|| Fin)),
    ("upload: half-close", Failure, "upstream_closed", Upload(|| HalfClose)),
    ("upload: reset", Failure, "upstream_closed", Upload(|| Reset)),
    ("upload: stall", Failure, "response_timeout", Upload(|| Stall)),
    ("upload: flipped bit", Failure, "upstream_closed", Upload(|| Flip)),
    ("upstream responds early and resets", Whole, "", Own),
    ("upstream down", Failure, "connection_refused", Own),
    ("vouchsafe: drain", Whole, "", Own),
    ("vouchsafe: drain over its limit", Client::Reset, "interrupted", Own),
];

fn row(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.0 == name).unwrap_or_else(|| panic!("no row `{name}`"))
}

impl Client {
    fn in_words(self) -> &'static str {
        match self {
            Self::Failure => "500",
            Self::Reset => "RST",
            Self::Whole => "the response",
        }
    }

    /// Whether this is what was seen of an answer with this body.
    fn is(self, seen: &Seen, body: &[u8]) -> bool {
        if seen.bytes.is_empty() {
            return self == Self::Reset && seen.reset;
        }
        match (self, seen.status()) {
            (Self::Failure, 500) => {
                !seen.reset && seen.text().contains("\r\nProxy-Status: ") && seen.text().ends_with(")\n")
            }
            // A bit that is flipped in the version of a handshake.
            (Self::Failure, 403) => !seen.reset && seen.text().contains("details=\"tls_version\""),
            (Self::Reset, 200) => seen.reset,
            (Self::Whole, 200) => !seen.reset && holds(&seen.bytes, body),
            _ => false,
        }
    }
}

/// Whether an answer has this body as its end, perhaps in chunks of our making.
fn holds(answer: &[u8], body: &[u8]) -> bool {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let rest = &answer[head + 4..];
    rest == body || unchunked(rest).is_some_and(|found| found == body)
}

/// What chunks hold, up to and with the last.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).ok()?, 16).ok()?;
        let chunk = rest.get(line + 2..line + 2 + size)?;
        body.extend_from_slice(chunk);
        rest = rest.get(line + 2 + size..)?.strip_prefix(b"\r\n")?;
        if size == 0 {
            return rest.is_empty().then_some(body);
        }
    }
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let written: Vec<_> = TABLE
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| fault"))
        .map(|line| line.trim_matches(['|', ' ']).split(" | ").map(|cell| cell.replace('`', "")).collect::<Vec<_>>())
        .collect();
    let tested: Vec<_> = ROWS
        .iter()
        .map(|(name, client, class, _)| {
            let class = if class.is_empty() { "–" } else { class };
            [name, client.in_words(), class].map(str::to_owned).to_vec()
        })
        .collect();
    for (written, tested) in written.iter().zip(&tested) {
        assert_eq!(&written[..3], tested);
    }
    assert_eq!(written.len(), tested.len());
    for (name, ..) in ROWS.iter().filter(|(_, _, _, place)| matches!(place, Own)) {
        assert!(include_str!("relay_faults.rs").contains(&format!("row(\"{name}\")")), "nobody tries `{name}`");
    }
}

/// What an exchange is made of: large enough that a position within it is sure whatever the handshake's length.
const HEAD_PART: usize = 2000;
const BODY: usize = 20_000;

fn answer_in(framing: Framing) -> Vec<Step> {
    let pad = |n: usize| format!("X-Pad-{n}: {}\r\n", "p".repeat(HEAD_PART));
    let (field, before, behind, end) = match framing {
        Chunked => ("Transfer-Encoding: chunked", format!("{BODY:x}\r\n"), "\r\n0\r\n\r\n", None),
        Counted => ("Content-Length: 20000", String::new(), "", None),
        ToTheEnd => ("Connection: close", String::new(), "", Some(Step::Close)),
    };
    let mut steps = vec![
        send(&format!("HTTP/1.1 200 OK\r\n{}", pad(1))),
        send(&format!("{}{field}\r\n\r\n", pad(2))),
        send(&format!("{before}{}{behind}", body())),
    ];
    steps.extend(end);
    steps
}

fn body() -> String {
    "b".repeat(BODY)
}

/// For faults that only a limit can end; with the defaults a test would lose its patience before.
const SHORT: [&str; 5] = [
    "--connect-timeout=1s",
    "--tls-timeout=1s",
    "--response-timeout=1s",
    "--response-body-timeout=1s",
    "--request-body-timeout=1s",
];

pub fn proxy_to(address: SocketAddr, more: &[&str]) -> Proxy {
    let name = format!("good.gallery.test:{}", address.port());
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.push(format!("--route=127.0.0.1:0=https://{name}"));
    flags.push(format!("--connect-to={name}={address}"));
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Proxy::start(&flags)
}

const GET: &[u8] = b"GET /v1/images/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn put() -> Vec<u8> {
    let mut request =
        b"PUT /v1/images/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n".to_vec();
    request.resize(request.len() + 1_000_000, b'u');
    request
}

/// Holds what was seen, and what the log says, against a row; then asks once more.
async fn meets(row: &Row, proxy: &Proxy, seen: &Seen) {
    let (name, client, class, _) = row;
    assert!(
        client.is(seen, body().as_bytes()),
        "{name}: {} reset: {}",
        &seen.text()[..seen.text().len().min(600)],
        seen.reset
    );
    let event = proxy.wait_for_access("the end of the request", |_| true);
    assert_eq!(event["class"].as_str().unwrap_or_default(), *class, "{name}: {event}");
    assert_eq!(event["whole"], *client != Client::Reset, "{name}: {event}");
    if *client == Client::Reset {
        let event = proxy.wait_for_log("the cut", |event| event["event"] == "response-incomplete");
        assert!(event["received"].as_u64().is_some_and(|bytes| bytes < BODY as u64), "{name}: {event}");
    }
    next_is_served(name, proxy).await;
}

async fn next_is_served(name: &str, proxy: &Proxy) {
    let next = exchange(proxy.addr(0), GET).await;
    assert!(Whole.is(&next, body().as_bytes()), "{name}: the next request: {}", next.text());
}

/// The bytes that come to the proxy in a whole exchange.
async fn rehearse(framing: Framing) -> u64 {
    let origin = Origin::start(move |_, _| answer_in(framing)).await;
    let relay = Relay::start(origin.address, |_| Plan::Pass).await;
    let seen = exchange(proxy_to(relay.address, &[]).addr(0), GET).await;
    assert!(Whole.is(&seen, body().as_bytes()), "{}", seen.text());
    relay.passed(0, To::Proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_on_the_wire_ends_as_the_table_says() {
    let all = [rehearse(Chunked).await, rehearse(Counted).await, rehearse(ToTheEnd).await];
    for row in ROWS {
        let (framing, plan) = match row.3 {
            Connect(Door::Hangs) => (Counted, Plan::Hang),
            Connect(Door::Refuses | Door::Swallows) => (Counted, Plan::Pass),
            Connect(Door::Resets) => (Counted, Plan::Break(To::Origin, 1, Reset)),
            Connect(Door::Slices) => (Counted, Plan::Slices),
            // Behind the ServerHello, in what is encrypted.
            Handshake(fault) => (Counted, Plan::Break(To::Proxy, 600, fault())),
            // In the middle of the head's second part.
            Head(fault) => {
                let at = all[Counted as usize] - (BODY + HEAD_PART / 2) as u64;
                (Counted, Plan::Break(To::Proxy, at, fault()))
            }
            // The first part of the body that can be read is as long as a record of TLS, which is 16 KiB.
            Body(framing, fault) => (framing, Plan::Break(To::Proxy, all[framing as usize] - 1000, fault())),
            Upload(fault) => (Counted, Plan::Break(To::Origin, 100_000, fault())),
            Own => continue,
        };
        let origin = Origin::start(move |_, _| answer_in(framing)).await;
        let mut relay = Relay::shut(origin.address, move |n| if n == 0 { plan.clone() } else { Plan::Pass });
        match row.3 {
            Connect(Door::Refuses) => {}
            Connect(Door::Swallows) => relay.swallow().await,
            _ => relay.open(),
        }
        let waits = row.2.ends_with("_timeout") || row.0.ends_with("stall");
        let proxy = proxy_to(relay.address, if waits { &SHORT } else { &[] });
        let request = if matches!(row.3, Upload(_)) { put() } else { GET.to_vec() };
        let seen = exchange(proxy.addr(0), &request).await;
        if let Connect(Door::Refuses | Door::Swallows) = row.3 {
            relay.open();
        }
        meets(row, &proxy, &seen).await;
    }
}

/// An upstream that can be reached by name only, and a proxy that asks this name server for it.
fn proxy_by_name(server: &NameServer, port: u16) -> Proxy {
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.push(format!("--route=127.0.0.1:0=https://good.gallery.test:{port}"));
    flags.extend(SHORT.map(str::to_owned));
    Proxy::start_under(&server.wrapper(), &flags)
}

#[tokio::test(flavor = "multi_thread")]
async fn name_servers_that_fail_end_as_the_table_says() {
    let origin = Origin::start(|_, _| answer_in(Counted)).await;
    for (row, answer) in [
        (row("no such name (NXDOMAIN)"), Answer::NoSuchName),
        (row("name server fails (SERVFAIL)"), Answer::Failure),
        (row("name server silent"), Answer::Silence),
    ] {
        let server = NameServer::start(answer).await;
        let proxy = proxy_by_name(&server, origin.address.port());
        let seen = exchange(proxy.addr(0), GET).await;
        server.say(Answer::Addresses(vec![Ipv4Addr::LOCALHOST]));
        meets(row, &proxy, &seen).await;
    }
}

/// Three addresses of one name with the same port: two black holes, and an origin or a third.
#[tokio::test(flavor = "multi_thread")]
async fn dead_addresses_are_passed_over_while_one_lives() {
    for (row, alive) in [(row("one address of three dead"), 2), (row("all of three addresses dead"), 0)] {
        let origin = Origin::start(|_, _| answer_in(Counted)).await;
        let mut relays = three_at_one_port(&origin);
        for (n, relay) in relays.iter_mut().enumerate() {
            // The dead ones come first.
            match n + alive < 3 {
                true => relay.swallow().await,
                false => relay.open(),
            }
        }
        let addresses = [1, 2, 3].map(|n| Ipv4Addr::new(127, 0, 0, n));
        let server = NameServer::start(Answer::Addresses(addresses.to_vec())).await;
        let proxy = proxy_by_name(&server, relays[0].address.port());
        let seen = exchange(proxy.addr(0), GET).await;
        if alive == 0 {
            relays[2].open();
        }
        meets(row, &proxy, &seen).await;
        assert!(relays[2].connections() + relays[1].connections() > 0);
    }
}

fn three_at_one_port(origin: &Origin) -> Vec<Relay> {
    // Another process may have the port at one of the addresses.
    for _ in 0..100 {
        let first = Relay::shut(origin.address, |_| Plan::Pass);
        let others = [2, 3].map(|n| {
            let address = (Ipv4Addr::new(127, 0, 0, n), first.address.port()).into();
            Relay::at(address, origin.address, |_| Plan::Pass)
        });
        if let [Ok(second), Ok(third)] = others {
            return vec![first, second, third];
        }
    }
    panic!("no port that is free at three addresses");
}

/// How a fault at one byte of what comes from the origin ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Found {
    Loud,
    Whole,
}

/// A fault at any byte of what the origin sends, from the first of the handshake to the last of the answer: each
/// exchange is whole, or it ends in an answer of our own or a reset; none looks whole and is not, none hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_at_any_byte_is_loud_or_does_no_harm() {
    const TEXT: &str = "all of the answer, and nothing else";
    let answer = |framing: Framing| match framing {
        Chunked => vec![
            send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            send("13\r\nall of the answer, \r\n"),
            send("10\r\nand nothing else\r\n0\r\n\r\n"),
        ],
        Counted => vec![
            send("HTTP/1.1 200 OK\r\nContent-Length: 35\r\n\r\n"),
            send("all of the answer, "),
            send("and nothing else"),
        ],
        ToTheEnd => vec![
            send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"),
            send("all of the answer, "),
            send("and nothing else"),
            Step::Close,
        ],
    };
    for framing in [Chunked, Counted, ToTheEnd] {
        let origin = Arc::new(Origin::start(move |_, _| answer(framing)).await);
        let whole = Relay::start(origin.address, |_| Plan::Pass).await;
        let seen = exchange(proxy_to(whole.address, &[]).addr(0), GET).await;
        assert!(Whole.is(&seen, TEXT.as_bytes()), "{}", seen.text());
        // The handshake's signature may be a few bytes longer another time.
        let last = whole.passed(0, To::Proxy) + 8;
        for (fault, step) in [(Fin, 7), (Flip, 7), (HalfClose, 29), (Reset, 5), (Stall, 29)] {
            let plan = {
                let fault = fault.clone();
                move |n: usize| Plan::Break(To::Proxy, n as u64 * step, fault.clone())
            };
            let relay = Relay::start(origin.address, plan).await;
            // A connection that outlived its exchange would bring the next one to its own fault.
            // A record whose length has the wrong bit is one that never comes whole.
            let times = if matches!(fault, Flip | Stall) { &SHORT[..] } else { &[] };
            let proxy = Arc::new(proxy_to(relay.address, &[times, &["--pool-size=0"]].concat()));
            let (mut running, room) = (JoinSet::new(), Arc::new(Semaphore::new(32)));
            let exchanges = last / step + 1;
            for n in 0..exchanges {
                let (proxy, room) = (proxy.clone(), room.clone());
                let version = if n % 2 == 0 { "1.1" } else { "1.0" };
                running.spawn(async move {
                    let _place = room.acquire().await.unwrap();
                    let request = format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n");
                    exchange(proxy.addr(0), request.as_bytes()).await
                });
            }
            let mut found = std::collections::HashMap::<Found, usize>::new();
            while let Some(seen) = running.join_next().await {
                let seen = seen.unwrap();
                let end = match [Failure, Client::Reset, Whole].into_iter().find(|end| end.is(&seen, TEXT.as_bytes())) {
                    Some(Whole) => Found::Whole,
                    Some(_) => Found::Loud,
                    None => panic!("{framing:?} {fault:?}: reset: {}: {}", seen.reset, seen.text()),
                };
                *found.entry(end).or_default() += 1;
            }
            assert_eq!(relay.connections() as u64, exchanges, "{framing:?} {fault:?}");
            assert!(found[&Found::Loud] * 10 > exchanges as usize * 9, "{framing:?} {fault:?}: {found:?}");
            eprintln!("{framing:?} {fault:?}: {exchanges} exchanges, {found:?}");
            relay.arm(To::Proxy, 0, &Reset);
        }
    }
}

/// Eight clients ask without a pause while the upstream goes away and comes back twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_restarts_under_load_costs_only_loud_failures() {
    let origin = Origin::start(|_, _| answer_in(Counted)).await;
    let mut relay = Relay::start(origin.address, |_| Plan::Pass).await;
    let proxy = Arc::new(proxy_to(relay.address, &[]));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (proxy, stop) = (proxy.clone(), stop.clone());
        clients.spawn(async move {
            let (mut whole, mut loud) = (0, 0);
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                let seen = exchange(proxy.addr(0), GET).await;
                match [Failure, Client::Reset, Whole].into_iter().find(|end| end.is(&seen, body().as_bytes())) {
                    Some(Whole) => whole += 1,
                    Some(_) => loud += 1,
                    None => panic!("reset: {}: {}", seen.reset, seen.text()),
                }
            }
            (whole, loud)
        });
    }
    for _ in 0..2 {
        let before = origin.requests().len();
        origin.has_requests(before + 20).await;
        relay.close().await;
        proxy.wait_for_access("a request to nobody", |event| event["class"] == row("upstream down").2);
        relay.open();
    }
    let before = origin.requests().len();
    origin.has_requests(before + 20).await;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let ends: Vec<(usize, usize)> = clients.join_all().await;
    let sum = |of: fn(&(usize, usize)) -> usize| ends.iter().map(of).sum::<usize>();
    let (whole, loud) = (sum(|end| end.0), sum(|end| end.1));
    assert!(whole >= 30 && loud > 0, "{whole} whole, {loud} loud");
    eprintln!("two restarts: {whole} whole, {loud} loud");
    // From here on there is nothing to be seen of them.
    for _ in 0..20 {
        next_is_served("upstream down", &proxy).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_finishes_what_runs_and_resets_what_does_not_end() {
    for (row, ends) in [(row("vouchsafe: drain"), true), (row("vouchsafe: drain over its limit"), false)] {
        let origin = Origin::start(|_, _| answer_in(Counted)).await;
        let gate = Arc::new(Notify::new());
        let whole = rehearse(Counted).await;
        let hold = {
            let gate = gate.clone();
            move |_| Plan::Break(To::Proxy, whole - 1000, Fault::Hold(gate.clone()))
        };
        let relay = Relay::start(origin.address, hold).await;
        let limit = if ends { "--drain-timeout=1m" } else { "--drain-timeout=200ms" };
        let mut proxy = proxy_to(relay.address, &[limit]);
        let address = proxy.addr(0);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(GET).await.unwrap();
        relay.has_passed(0, To::Proxy, whole - 1000).await;
        proxy.signal("TERM");
        proxy.wait_for_log("draining", |event| event["message"] == "draining");
        if ends {
            wait_until_refused(address).await;
            gate.notify_one();
        }
        let seen = read_to_end(&mut client).await;
        let (name, client, class, _) = row;
        assert!(client.is(&seen, body().as_bytes()), "{name}: {}", seen.reset);
        assert_eq!(proxy.wait().code(), Some(if ends { 0 } else { 1 }), "{name}");
        let event = proxy.wait_for_access("the end of the request", |_| true);
        assert_eq!(event["class"].as_str().unwrap_or_default(), *class, "{name}: {event}");
    }
}

/// The listener is closed a moment after the line in the log.
async fn wait_until_refused(address: SocketAddr) {
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::proxy::PATIENCE, refused).await.expect("new connections are refused");
}

/// An upstream that has read the head of a large upload, says no, and closes: its kernel sends a reset, since it
/// leaves the rest unread. What it said was here before that, and is passed on.
#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_before_a_reset_is_passed_on() {
    let origin = hasty(answer_in(Counted)).await;
    let proxy = proxy_to(origin, &[]);
    let mut request = b"PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 8000000\r\n\r\n".to_vec();
    request.resize(request.len() + 8_000_000, b'u');
    let (name, client, class, _) = row("upstream responds early and resets");
    for n in 0..20 {
        let seen = exchange(proxy.addr(0), &request).await;
        assert!(client.is(&seen, body().as_bytes()), "{name}, {n}: {}", seen.text());
    }
    let event = proxy.wait_for_access("the end of a request", |_| true);
    assert_eq!(event["class"].as_str().unwrap_or_default(), *class, "{name}: {event}");
}
