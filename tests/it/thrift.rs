//! What is done to be quick and small, where it could cost something: reading ahead, clients that rest, connections
//! that end without a last look, verdicts of a name with more than one address.

use std::net::Ipv4Addr;

use certs_dev::Case;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    relay_faults::proxy_to,
    support::{
        dns::{Answer, NameServer},
        gallery::{self, Front, GALLERY},
        origin::{Origin, acceptor, exchange, send},
        proxy::{PATIENCE, Proxy},
    },
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Numbers that are as good as random and always the same (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn throw(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        1 + usize::try_from(self.0 % most as u64).unwrap()
    }
}

/// What is at a place of every body here.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// Answers `GET /LENGTH` with so many bytes, in records of any size.
async fn in_records_of_any_size() -> std::net::SocketAddr {
    let acceptor = acceptor(&GALLERY.identity(Case::Good).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut stream = acceptor.accept(tcp).await.unwrap();
            tokio::spawn(async move {
                let (mut dice, mut request) = (Dice(0x9e37_79b9_7f4a_7c15), Vec::new());
                while stream.read_buf(&mut request).await.is_ok_and(|count| count > 0) {
                    if !request.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
                    let length: usize = text.split([' ', '/']).nth(2).unwrap().parse().unwrap();
                    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").into_bytes();
                    answer.extend(body(length));
                    let mut rest = &answer[..];
                    while !rest.is_empty() {
                        let (piece, behind) = rest.split_at(dice.throw(40_000).min(rest.len()));
                        stream.write_all(piece).await.unwrap();
                        stream.flush().await.unwrap();
                        rest = behind;
                    }
                }
            });
        }
    });
    address
}

/// Reading ahead keeps nothing back and loses nothing, whatever is left in whichever buffer.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_in_records_of_any_size_come_whole() {
    let proxy = proxy_to(in_records_of_any_size().await, &[]);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    for round in 0..150 {
        let length = dice.throw(600_000);
        client.write_all(format!("GET /{length} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            let head = answer.windows(4).position(|window| window == b"\r\n\r\n").map(|end| end + 4);
            if let Some(head) = head
                && answer.len() >= head + length
            {
                assert!(answer[head..] == body(length), "round {round}: {length} bytes, and not what was sent");
                break;
            }
            let read = timeout(PATIENCE, client.read_buf(&mut answer)).await;
            let read = read.unwrap_or_else(|_| panic!("round {round}: {} of {length} bytes came", answer.len()));
            assert!(read.unwrap() > 0, "round {round}: {length} bytes, and an end after {}", answer.len());
        }
    }
}

/// KiB that are neither a file's nor shared.
pub fn own_kib(proxy: &Proxy) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A proxy with a route to an origin.
fn proxy_before(origin: &Origin, flags: &[&str]) -> Proxy {
    let mut all = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    all.extend(origin.route());
    all.extend(flags.iter().map(|&flag| flag.to_owned()));
    Proxy::start(&all)
}

async fn get(client: &mut TcpStream) -> String {
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        assert!(client.read_buf(&mut answer).await.unwrap() > 0, "{:?}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

/// With buffers in memory they would take 20 KiB and more each.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_rest_take_little_memory_and_are_served_on() {
    const CLIENTS: usize = 600;
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = proxy_before(&origin, &[]);
    get(&mut TcpStream::connect(proxy.addr(0)).await.unwrap()).await;
    let (before, mut clients) = (own_kib(&proxy), Vec::new());
    for _ in 0..CLIENTS {
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        get(&mut client).await;
        clients.push(client);
    }
    let each = own_kib(&proxy).saturating_sub(before) as f64 / CLIENTS as f64;
    assert!(each < 8.0, "{each} KiB for each of {CLIENTS} clients");
    for client in clients.iter_mut().step_by(100) {
        get(client).await;
    }
    assert_eq!(origin.connections(), 1);
}

/// Its socket is closed at once, but where that would take the answer with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_last_request_with_more_behind_it_is_answered() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = proxy_before(&origin, &[]);
    for (head, behind) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 0),
        ("GET / HTTP/1.0\r\n\r\n", 0),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 100_000),
        ("GET / HTTP/1.0\r\n\r\n", 100_000),
    ] {
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        let mut request = head.as_bytes().to_vec();
        request.resize(request.len() + behind, b'x');
        client.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        let end = timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("an end");
        assert!(end.is_ok(), "{head:?} with {behind} bytes behind it: {end:?}");
        assert!(
            answer.ends_with(b"\r\n\r\nok"),
            "{head:?} with {behind} bytes behind it: {:?}",
            String::from_utf8_lossy(&answer)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_remembered_of_a_name_with_more_than_one_address() {
    const STORM: usize = 40;
    let front = Front::start(Case::Expired).await;
    // Nobody listens at the first of them.
    let server = NameServer::start(Answer::Addresses(vec![Ipv4Addr::new(127, 77, 77, 77), Ipv4Addr::LOCALHOST])).await;
    let flags = [
        "--ca-bundle".to_owned(),
        gallery::bundle(certs_dev::Bundle::Root),
        format!("--route=127.0.0.1:0=https://{}", front.authority()),
    ];
    let proxy = Proxy::start_under(&server.wrapper(), &flags);
    for _ in 0..STORM {
        assert_eq!(exchange(proxy.addr(0), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.status(), 403);
    }
    let events = proxy.audit();
    let remembered = events.iter().filter(|event| event["vouchsafe.occasion"] == "remembered").count();
    assert!(remembered > 0);
    assert_eq!(front.counters.connections(), (STORM - remembered) as u64);
}

/// An empty line behind a request is not the beginning of the next one (RFC 9112 section 2.2), nor does a client that
/// sent one hear of a time-out.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_line_behind_a_request_begins_nothing() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = proxy_before(&origin, &["--head-timeout", "500ms", "--keep-alive-timeout", "2s"]);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("an end").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nok"), "{answer:?}");
}

/// The end waits for no rest of a head, whether or not its client has rested before.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_does_not_wait_for_the_rest_of_a_head() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let proxy = proxy_before(&origin, &["--head-timeout", "60s", "--drain-timeout", "20s"]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        get(&mut client).await;
        client.write_all(b"GET / HT").await.unwrap();
        clients.push(client);
    }
    // By now the first of them have rested.
    get(&mut TcpStream::connect(proxy.addr(0)).await.unwrap()).await;
    assert!(proxy.stop().success());
}
