//! Random sequences of requests, valid and broken, on one connection: the origin sees exactly the valid ones, once
//! each and in order, and each client gets exactly its own answers. The same for broken answers: no byte of them
//! reaches the next. Both ends read with `support::strict`, which shares nothing with the program.
//!
//! A failure names its seed; once more with `DIFFERENTIAL_SEED=seed DIFFERENTIAL_COUNT=1`. Long runs have another
//! first seed and a larger count.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use certs_dev::{Bundle, Case};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, watch},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use crate::support::{
    gallery::{self, GALLERY},
    origin::acceptor,
    proxy::{PATIENCE, Proxy},
    strict::{Broken, Framing, Head, Pattern, Random, Reader},
};

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("DIFFERENTIAL_SEED").unwrap_or(0);
    first..first + number("DIFFERENTIAL_COUNT").unwrap_or(400)
}

/// A request by its sequence's seed and its place in it; `X-Id` carries both.
type Id = (u64, usize);

fn written((seed, n): Id) -> String {
    format!("{seed}-{n}")
}

fn key((seed, n): Id) -> u64 {
    Random::new(seed << 16 | n as u64).any()
}

/// What the origin is to answer: made of the id, so that both ends know it.
#[derive(Clone, Debug)]
struct Plan {
    shape: Shape,
    length: usize,
    /// Says `Connection: close` and ends.
    closes: bool,
    /// Interim responses before it.
    interim: &'static [u16],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Chunked,
    Close,
    Length,
    NoContent,
    NotModified,
    /// HTTP/1.0, with a length.
    Old,
}

/// A trailer, announced and sent.
const TRAILER: &str = "X-Sum";

fn length(random: &mut Random) -> usize {
    match random.below(12) {
        0 => 0,
        1..8 => random.below(300),
        8..11 => random.below(20_000),
        _ => random.below(400_000),
    }
}

impl Plan {
    fn of(id: Id, method: &str) -> Self {
        let mut random = Random::new(key(id).rotate_left(7));
        let shape = *random.pick(&[
            Shape::Chunked,
            Shape::Chunked,
            Shape::Close,
            Shape::Length,
            Shape::Length,
            Shape::Length,
            Shape::NoContent,
            Shape::NotModified,
            Shape::Old,
        ]);
        let shape = match (shape, method) {
            (Shape::NotModified, "GET" | "HEAD") => shape,
            (Shape::NotModified, _) | (Shape::Close, "HEAD") => Shape::Length,
            _ => shape,
        };
        let closes = matches!(shape, Shape::Close | Shape::Old) || random.one_in(6);
        let interim = *random.pick(&[&[][..], &[], &[], &[103], &[102, 103]]);
        Self { shape, length: length(&mut random), closes, interim }
    }

    fn status(&self) -> u16 {
        match self.shape {
            Shape::NoContent => 204,
            Shape::NotModified => 304,
            _ => 200,
        }
    }

    fn has_body(&self, method: &str) -> bool {
        method != "HEAD" && self.status() == 200
    }

    fn bytes(&self, id: Id, method: &str) -> Vec<u8> {
        let mut random = Random::new(key(id).rotate_left(9));
        let version = if self.shape == Shape::Old { "1.0" } else { "1.1" };
        let mut head = String::new();
        for status in self.interim {
            write!(head, "HTTP/1.1 {status} In the Meantime\r\nX-Id: {}\r\n\r\n", written(id)).unwrap();
        }
        write!(head, "HTTP/{version} {} Whatever\r\nX-Id: {}\r\n", self.status(), written(id)).unwrap();
        match self.shape {
            Shape::Chunked => write!(head, "Transfer-Encoding: chunked\r\nTrailer: {TRAILER}\r\n").unwrap(),
            Shape::Length | Shape::Old => write!(head, "Content-Length: {}\r\n", self.length).unwrap(),
            Shape::NotModified if random.one_in(2) => write!(head, "Content-Length: {}\r\n", self.length).unwrap(),
            _ => {}
        }
        if self.closes && self.shape != Shape::Old {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if self.has_body(method) {
            match self.shape {
                Shape::Chunked => bytes.extend(chunked(&mut random, key(id), self.length, Some(&written(id)))),
                _ => bytes.extend(Pattern::new(key(id)).bytes(self.length)),
            }
        }
        bytes
    }
}

/// A chunked body with all that the syntax allows.
fn chunked(random: &mut Random, key: u64, length: usize, trailer: Option<&str>) -> Vec<u8> {
    let mut pattern = Pattern::new(key);
    let (mut bytes, mut left) = (Vec::new(), length);
    let extension = |random: &mut Random| *random.pick(&["", "", ";a", ";a=b", ";a=\"b c\";d"]);
    while left > 0 {
        let size = 1 + random.below(left.min(1 + length / 3));
        let size_text = match random.below(3) {
            0 => format!("{size:X}"),
            1 => format!("00{size:x}"),
            _ => format!("{size:x}"),
        };
        bytes.extend(format!("{size_text}{}\r\n", extension(random)).bytes());
        bytes.extend(pattern.bytes(size));
        bytes.extend(b"\r\n");
        left -= size;
    }
    bytes.extend(format!("0{}\r\n", extension(random)).bytes());
    if let Some(trailer) = trailer {
        bytes.extend(format!("{TRAILER}: {trailer}\r\n").bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}

/// A request that reached the origin.
#[derive(Clone, Debug)]
struct Seen {
    n: usize,
    head: Head,
    framing: Framing,
    body: Pattern,
    trailers: Vec<(String, String)>,
    /// Whether it came to its end.
    whole: bool,
}

#[derive(Default)]
struct Log {
    seen: Mutex<BTreeMap<u64, Vec<Seen>>>,
    /// What breaks a rule.
    wrong: Mutex<Vec<String>>,
    open: AtomicUsize,
    changed: Notify,
}

struct Origin {
    address: SocketAddr,
    log: Arc<Log>,
}

/// What is written, part by part, and whether the connection ends with it.
type Answers = dyn Fn(Id, &str) -> (Vec<Vec<u8>>, bool) + Send + Sync;

impl Origin {
    async fn start(answer: Arc<Answers>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, log) = (listener.local_addr().unwrap(), Arc::new(Log::default()));
        let acceptor = acceptor(&GALLERY.identity(Case::Good).unwrap());
        let shared = log.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                shared.open.fetch_add(1, Ordering::SeqCst);
                let (acceptor, log, answer) = (acceptor.clone(), shared.clone(), answer.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(tcp).await {
                        serve(stream, &log, &*answer).await;
                    }
                    log.open.fetch_sub(1, Ordering::SeqCst);
                    log.changed.notify_waiters();
                });
            }
        });
        Self { address, log }
    }

    fn authority(&self) -> String {
        format!("{}:{}", Case::Good.name(), self.address.port())
    }

    /// A proxy with a fixed route and a forward listener to it.
    fn proxy(&self) -> Proxy {
        let name = self.authority();
        let flags = [
            format!("--ca-bundle={}", gallery::bundle(Bundle::Root)),
            format!("--route=127.0.0.1:0=https://{name}"),
            "--forward=127.0.0.1:0".to_owned(),
            format!("--allow={name}"),
            format!("--connect-to={name}={}", self.address),
        ];
        Proxy::start(&flags)
    }

    /// All that it saw, when the proxy has ended and no connection is left.
    async fn all(&self) -> BTreeMap<u64, Vec<Seen>> {
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.log.changed.notified());
                changed.as_mut().enable();
                if self.log.open.load(Ordering::SeqCst) == 0 {
                    return;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.expect("the proxy's connections end with it");
        assert_eq!(*self.log.wrong.lock().unwrap(), Vec::<String>::new());
        self.log.seen.lock().unwrap().clone()
    }
}

async fn serve(stream: TlsStream<TcpStream>, log: &Log, answer: &Answers) {
    let mut reader = Reader::new(stream);
    loop {
        let (head, framing) = match reader.request().await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(broken) => {
                log.wrong.lock().unwrap().push(format!("the origin, in a head: {broken}"));
                return;
            }
        };
        let id = head.one("X-Id").ok().flatten().and_then(|id| {
            let (seed, n) = id.split_once('-')?;
            Some((seed.parse().ok()?, n.parse().ok()?))
        });
        let Some(id): Option<Id> = id else {
            log.wrong.lock().unwrap().push(format!("the origin: no id in {head:?}"));
            return;
        };
        if head.one("Expect").ok().flatten() == Some("100-continue")
            && write(&mut reader.stream, &[b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()]).await.is_err()
        {
            return;
        }
        let mut body = Pattern::new(key(id));
        let end = reader.body(framing, |bytes| body.compare(bytes)).await;
        let (trailers, whole) = match end {
            Ok(trailers) => (trailers, true),
            Err(Broken::End(_)) => (Vec::new(), false),
            Err(rule) => return log.wrong.lock().unwrap().push(format!("the origin, in the body of {id:?}: {rule}")),
        };
        let method = head.line[0].clone();
        let seen = Seen { n: id.1, head, framing, body, trailers, whole };
        log.seen.lock().unwrap().entry(id.0).or_default().push(seen);
        if !whole {
            return;
        }
        let (pieces, closes) = answer(id, &method);
        if write(&mut reader.stream, &pieces).await.is_err() {
            return;
        }
        if closes {
            let _ = reader.stream.shutdown().await;
            return;
        }
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), pieces: &[Vec<u8>]) -> std::io::Result<()> {
    for piece in pieces {
        stream.write_all(piece).await?;
        stream.flush().await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Cuts at random, byte by byte only what is small.
fn pieces(mut bytes: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let most = *random.pick(&[usize::MAX, usize::MAX, 3000, 100, 1]);
    let most = if bytes.len() > 2000 { most.max(bytes.len() / 20) } else { most };
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let (piece, rest) = bytes.split_at(1 + random.below(bytes.len().min(most)));
        pieces.push(piece.to_vec());
        bytes = rest;
    }
    pieces
}

/// A valid request, as the test knows it.
#[derive(Clone, Debug)]
struct Asked {
    method: &'static str,
    path: String,
    old: bool,
    closes: bool,
    /// Of the body; None is no body and no field about one.
    framing: Option<Framing>,
    length: usize,
    trailer: bool,
    wants_trailers: bool,
    /// Says `Expect: 100-continue`, and does not wait for it.
    expects: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Good(Asked),
    /// Nothing of it may reach the origin.
    BrokenHead(&'static str),
    /// Its head may, but never a whole message.
    BrokenBody(&'static str),
}

struct Item {
    kind: Kind,
    bytes: Vec<u8>,
    /// Sent when all before it was answered.
    waits: bool,
}

struct Sequence {
    seed: u64,
    listener: usize,
    items: Vec<Item>,
    gulp: usize,
    pieces: u64,
}

impl Sequence {
    fn new(seed: u64, authority: &str) -> Self {
        let mut random = Random::new(seed ^ 0xd1ff);
        let listener = random.below(2);
        let pipelined = random.one_in(2);
        let broken_at = random.below(6);
        let mut items = Vec::new();
        for n in 0..1 + random.below(8) {
            let item = match n {
                n if n == broken_at => broken((seed, n), authority),
                n => good(&mut random, (seed, n), authority),
            };
            items.push(Item { waits: n > 0 && (!pipelined || random.one_in(4)), ..item });
        }
        // What stands behind the end of a connection is sent at once: it must not be read by anybody.
        let ends = |item: &Item| !matches!(&item.kind, Kind::Good(asked) if !asked.closes);
        let last = items.iter().position(ends).unwrap_or(items.len());
        for item in items.iter_mut().skip(last + 1) {
            item.waits = false;
        }
        let gulp = *random.pick(&[32 << 10, 32 << 10, 700]);
        Self { seed, listener, items, gulp, pieces: random.any() }
    }
}

fn good(random: &mut Random, id: Id, authority: &str) -> Item {
    let method = *random.pick(&["GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"]);
    let old = random.one_in(6);
    let upload = matches!(method, "POST" | "PUT") || random.one_in(12);
    let framing = match random.below(3) {
        _ if !upload => None,
        0 if !old => Some(Framing::Chunked),
        _ => Some(Framing::Length(0)),
    };
    let length = if upload { length(random) } else { 0 };
    let framing =
        framing.map(|framing| if framing == Framing::Chunked { framing } else { Framing::Length(length as u64) });
    let path = match random.below(4) {
        0 if method == "OPTIONS" => "*".to_owned(),
        0 => format!("/v1//images/%7e?x=%2e&id={}", written(id)),
        _ => format!("/{}", written(id)),
    };
    let absolute = path != "*" && random.one_in(5);
    let target = if absolute { format!("http://{authority}{path}") } else { path.clone() };
    let host = !(old && absolute);
    let connection = *random.pick(&["", "", "", "", "close", "keep-alive", "X-Gone, keep-alive", "TE"]);
    let (asks_close, asks_more) = (connection == "close", connection.contains("keep-alive"));
    let closes = asks_close || (old && !asks_more);
    let trailer = framing == Some(Framing::Chunked) && random.one_in(2);
    let (wants_trailers, version) = (connection == "TE", if old { "1.0" } else { "1.1" });

    let mut fields = vec![format!("X-Id: {}", written(id))];
    if host {
        fields.push(format!("{}: {authority}", random.pick(&["Host", "host", "HOST"])));
    }
    match framing {
        Some(Framing::Chunked) => fields.push("Transfer-Encoding: chunked".into()),
        Some(_) => fields.push(format!("Content-Length: {length}")),
        None => {}
    }
    if trailer {
        fields.push(format!("Trailer: {TRAILER}"));
    }
    if !connection.is_empty() {
        fields.push(format!("Connection:{connection}"));
    }
    if connection.starts_with("X-Gone") {
        fields.push("X-Gone: this hop alone".into());
    }
    let expects = framing.is_some() && !old && random.one_in(4);
    if expects {
        fields.push("Expect: 100-continue".into());
    }
    if wants_trailers {
        fields.push("TE: trailers".into());
    }
    if random.one_in(8) {
        fields.push(format!("X-Pad: {}", "p".repeat(random.below(40_000))));
    }
    for n in (1..fields.len()).rev() {
        fields.swap(n, random.below(n + 1));
    }
    // RFC 9112 section 2.2: an empty line before a request is passed over.
    let before = if random.one_in(20) { "\r\n" } else { "" };
    let mut bytes = format!("{before}{method} {target} HTTP/{version}\r\n{}\r\n\r\n", fields.join("\r\n")).into_bytes();
    match framing {
        Some(Framing::Chunked) => {
            bytes.extend(chunked(random, key(id), length, trailer.then_some(&*written(id))));
        }
        Some(_) => bytes.extend(Pattern::new(key(id)).bytes(length)),
        None => {}
    }
    let asked = Asked { method, path, old, closes, framing, length, trailer, wants_trailers, expects };
    Item { kind: Kind::Good(asked), bytes, waits: false }
}

/// Heads that nobody may pass on: a request line, and fields. `$` is a field with the request's id, `@` is the
/// authority.
const BROKEN_HEADS: &[(&str, &str)] = &[
    // Where the body ends.
    ("two lengths", "POST / HTTP/1.1|Host: @|$|Content-Length: 5|Content-Length: 6||12345"),
    ("a list of lengths", "POST / HTTP/1.1|Host: @|$|Content-Length: 5, 5||12345"),
    ("length, then chunked", "POST / HTTP/1.1|Host: @|$|Content-Length: 5|Transfer-Encoding: chunked||0||"),
    ("chunked, then length", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: chunked|Content-Length: 5||0||"),
    ("one length twice", "POST / HTTP/1.1|Host: @|$|Content-Length: 3|Content-Length: 3|Connection: close||%3"),
    ("a length with a sign", "POST / HTTP/1.1|Host: @|$|Content-Length: +5||12345"),
    ("a length below 0", "POST / HTTP/1.1|Host: @|$|Content-Length: -5||12345"),
    ("a length in hex", "POST / HTTP/1.1|Host: @|$|Content-Length: 0x5||12345"),
    ("no length", "POST / HTTP/1.1|Host: @|$|Content-Length:||12345"),
    ("two numbers", "POST / HTTP/1.1|Host: @|$|Content-Length: 5 5||12345"),
    ("a length beyond all", "POST / HTTP/1.1|Host: @|$|Content-Length: 18446744073709551621||12345"),
    ("gzip", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: gzip||12345"),
    ("gzip, chunked", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: gzip, chunked||0||"),
    ("chunked, gzip", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: chunked, gzip||0||"),
    ("chunked twice", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: chunked, chunked||0||"),
    ("chunked on two lines", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||"),
    (
        "identity before chunked",
        "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: identity|Transfer-Encoding: chunked||0||",
    ),
    ("identity", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: identity||"),
    ("no coding", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding:||0||"),
    ("xchunked", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: xchunked||0||"),
    ("quoted chunked", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: \"chunked\"||0||"),
    ("chunked with a parameter", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: chunked;a=b||0||"),
    ("a comma before chunked", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: , chunked||0||"),
    ("VT before chunked", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding: \x0bchunked||0||"),
    ("chunked in HTTP/1.0", "POST / HTTP/1.0|Host: @|$|Transfer-Encoding: chunked||0||"),
    // What a field is.
    ("a bare CR in a value", "GET / HTTP/1.1|Host: @|$|X-A: a\rX-B: b||"),
    ("a bare CR for an end", "GET / HTTP/1.1|Host: @|$|X-A: a\r\rX-B: b||"),
    ("NUL in a value", "GET / HTTP/1.1|Host: @|$|X-A: a\0b||"),
    ("NUL in a name", "GET / HTTP/1.1|Host: @|$|X-\0A: a||"),
    ("DEL in a value", "GET / HTTP/1.1|Host: @|$|X-A: a\x7f||"),
    ("obs-fold", "GET / HTTP/1.1|Host: @|$|X-A: a| b||"),
    ("obs-fold by a tab", "POST / HTTP/1.1|Host: @|$|X-A: a|\tTransfer-Encoding: chunked||"),
    ("obs-fold of the first field", "GET / HTTP/1.1| Host: @|$||"),
    ("a space before the colon", "GET / HTTP/1.1|Host: @|$|X-A : a||"),
    ("a length with a space before the colon", "POST / HTTP/1.1|Host: @|$|Content-Length : 5||12345"),
    ("a tab before the colon", "POST / HTTP/1.1|Host: @|$|Transfer-Encoding\t: chunked||0||"),
    ("no colon", "GET / HTTP/1.1|Host: @|$|X-A||"),
    ("no name", "GET / HTTP/1.1|Host: @|$|: a||"),
    ("a name in brackets", "GET / HTTP/1.1|Host: @|$|X(A): a||"),
    ("a name of two words", "GET / HTTP/1.1|Host: @|$|X A: a||"),
    ("a name beyond ASCII", "GET / HTTP/1.1|Host: @|$|X-\u{e4}: a||"),
    // For whom.
    ("no Host", "GET / HTTP/1.1|$||"),
    ("two Hosts", "GET / HTTP/1.1|Host: @|Host: other.test|$||"),
    ("one Host twice", "GET / HTTP/1.1|Host: @|$|host: @||"),
    ("two words for a Host", "GET / HTTP/1.1|Host: a b|$||"),
    ("a Host with userinfo", "GET / HTTP/1.1|Host: a@@|$||"),
    ("a Host with a path", "GET / HTTP/1.1|Host: @/x|$||"),
    ("a Host with a comma", "GET / HTTP/1.1|Host: @,@|$||"),
    ("a Host like a number", "GET / HTTP/1.1|Host: 127.1|$||"),
    ("a Host with a wild port", "GET / HTTP/1.1|Host: a:99999|$||"),
    ("a Host with half a bracket", "GET / HTTP/1.1|Host: [::1|$||"),
    // The first line.
    ("an authority for a target", "GET @ HTTP/1.1|Host: @|$||"),
    ("GET *", "GET * HTTP/1.1|Host: @|$||"),
    ("CONNECT with a path", "CONNECT /a HTTP/1.1|Host: @|$||"),
    ("CONNECT with a URI", "CONNECT http://@/ HTTP/1.1|Host: @|$||"),
    ("ftp", "GET ftp://@/ HTTP/1.1|Host: @|$||"),
    ("userinfo", "GET http://u:p@@/ HTTP/1.1|Host: @|$||"),
    ("a target without a slash", "GET images HTTP/1.1|Host: @|$||"),
    ("no target", "GET HTTP/1.1|Host: @|$||"),
    ("a space in the target", "GET /a b HTTP/1.1|Host: @|$||"),
    ("a tab for a space", "GET\t/ HTTP/1.1|Host: @|$||"),
    ("a control character in the target", "GET /\x01 HTTP/1.1|Host: @|$||"),
    ("NUL in the target", "GET /a\0 HTTP/1.1|Host: @|$||"),
    ("no method", " / HTTP/1.1|Host: @|$||"),
    ("a method in brackets", "G(T / HTTP/1.1|Host: @|$||"),
    ("TRACE", "TRACE / HTTP/1.1|Host: @|$||"),
    ("HTTP/2.0", "GET / HTTP/2.0|Host: @|$||"),
    ("HTTP/0.9", "GET / HTTP/0.9|Host: @|$||"),
    ("no version", "GET /|Host: @|$||"),
    ("http/1.1", "GET / http/1.1|Host: @|$||"),
    ("HTTP/1.11", "GET / HTTP/1.11|Host: @|$||"),
    ("HTTP/1,1", "GET / HTTP/1,1|Host: @|$||"),
    ("a word behind the version", "GET / HTTP/1.1 x|Host: @|$||"),
    ("TLS", "\x16\x03\x01\x02|$||"),
    // Too much.
    ("a field of 200 kB", "GET / HTTP/1.1|Host: @|$|X-A: %||"),
    ("a target of 200 kB", "GET /% HTTP/1.1|Host: @|$||"),
    ("10000 fields", "GET / HTTP/1.1|Host: @|$|#10000||"),
];

/// Bodies that have no end that two readers agree on, behind a good head.
const BROKEN_CHUNKS: &[(&str, &str)] = &[
    ("no hex", "xyz|"),
    ("a sign", "+5|ABCDE|0||"),
    ("below 0", "-5|ABCDE|0||"),
    ("0x", "0x5|ABCDE|0||"),
    ("no size", "|ABCDE|0||"),
    ("a space before the size", " 5|ABCDE|0||"),
    ("a size beyond all", "fffffffffffffffff|ABCDE|0||"),
    ("a size that wraps", "10000000000000005|ABCDE|0||"),
    ("two sizes", "5 5|ABCDE|0||"),
    ("a comma", "5,5|ABCDE|0||"),
    ("too short a size", "3|ABCDE|0||"),
    ("too long a size", "6|ABCDE|0||G|0||"),
    ("no end of a chunk", "5|ABCDE0||"),
    ("a bare CR for the end of a chunk", "5|ABCDE\r0||"),
    ("a bare CR behind a size", "5\rABCDE|0||"),
    ("a bare LF behind a size", "5\nABCDE|0||"),
    ("a bare LF in an extension", "5;a=b\nc|ABCDE|0||"),
    ("a bare CR in an extension", "5;a=b\rc|ABCDE|0||"),
    ("a trailer without a colon", "5|ABCDE|0|X-A||"),
    ("a trailer folded", "5|ABCDE|0|X-A: a| b||"),
    ("NUL in a trailer", "5|ABCDE|0|X-A: \0||"),
    ("a trailer of 200 kB", "5|ABCDE|0|X-A: %||"),
];

fn broken(id: Id, authority: &str) -> Item {
    // Each in turn, so that a few hundred seeds have all of them.
    let heads = BROKEN_HEADS.iter().map(|(name, text)| (Kind::BrokenHead(name), (*text).to_owned()));
    let bodies = BROKEN_CHUNKS.iter().map(|(name, body)| {
        (Kind::BrokenBody(name), format!("POST / HTTP/1.1|Host: @|$|Transfer-Encoding: chunked||{body}"))
    });
    let all: Vec<_> = heads.chain(bodies).collect();
    let (kind, text) = all[id.0 as usize % all.len()].clone();
    let mut text = text.replace('|', "\r\n").replace('$', &format!("X-Id: {}", written(id)));
    text =
        text.replace("%3", "123").replace('%', &"x".repeat(200_000)).replace("#10000", &["X: y"; 10_000].join("\r\n"));
    // Userinfo has an @ of its own.
    text = text.replace("@@", "\u{1}").replace('@', authority).replace('\u{1}', &format!("@{authority}"));
    if kind_name(&kind) == "a control character in the target" {
        text = text.replace(&format!("/@{authority}"), "/\u{1}");
    }
    Item { kind, bytes: text.into_bytes(), waits: false }
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Good(_) => "good",
        Kind::BrokenHead(name) | Kind::BrokenBody(name) => name,
    }
}

/// Runs a sequence, and gives how many of its requests were answered.
async fn run(sequence: &Sequence, proxy: SocketAddr) -> Result<usize, String> {
    let stream = TcpStream::connect(proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    if sequence.gulp < 1000 {
        SockRef::from(&stream).set_recv_buffer_size(64 << 10).unwrap();
    }
    let (read, write) = stream.into_split();
    let (answered, answers) = watch::channel(0);
    let mut reader = Reader::new(read);
    reader.gulp = sequence.gulp;
    let reading = read_answers(sequence, reader, answered);
    let writing = async {
        // Behind the end of the connection nobody has to read.
        let _ = write_requests(sequence, write, answers).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        end = timeout(PATIENCE, reading) => end.unwrap_or_else(|_| Err("no answer, and no end".into())),
        () = writing => unreachable!(),
    }
}

async fn write_requests(
    sequence: &Sequence,
    mut socket: OwnedWriteHalf,
    mut answers: watch::Receiver<usize>,
) -> std::io::Result<()> {
    let mut random = Random::new(sequence.pieces);
    let mut ready = Vec::new();
    for (n, item) in sequence.items.iter().enumerate() {
        if item.waits {
            write(&mut socket, &pieces(&std::mem::take(&mut ready), &mut random)).await?;
            let _ = answers.wait_for(|answered| *answered >= n).await;
        }
        ready.extend(&item.bytes);
    }
    write(&mut socket, &pieces(&ready, &mut random)).await?;
    // Done, and waiting for what is owed.
    socket.shutdown().await
}

async fn read_answers(
    sequence: &Sequence,
    mut reader: Reader<OwnedReadHalf>,
    answered: watch::Sender<usize>,
) -> Result<usize, String> {
    for (n, item) in sequence.items.iter().enumerate() {
        let Kind::Good(asked) = &item.kind else {
            let name = kind_name(&item.kind);
            if (n, name) == (0, "TLS") {
                // A client that may speak TLS is told so in TLS.
                let mut alert = Vec::new();
                let end = reader.stream.read_to_end(&mut alert).await;
                return match (end, &alert[..]) {
                    (Ok(_), [0x15, 3, 3, 0, 2, 2, 40]) => Ok(n),
                    other => Err(format!("{n}, {name}: answered with {other:?}")),
                };
            }
            let (head, framing) = reader.response("POST").await.map_err(|e| format!("{n}, {name}: {e}"))?;
            let own = head.one("X-Id").is_ok_and(|id| id == Some(&written((sequence.seed, n))));
            if own || ![400, 403].contains(&head.status()) {
                return Err(format!("{n}, {name}: answered with {head:?}"));
            }
            reader.body(framing, |_| {}).await.map_err(|e| format!("{n}, {name}: its answer: {e}"))?;
            reader.end().await.map_err(|e| format!("{n}, {name}: behind its answer: {e}"))?;
            return Ok(n);
        };
        let open = read_answer(&mut reader, (sequence.seed, n), asked).await;
        let open = open.map_err(|e| format!("{n}, {asked:?}: {e}"))?;
        answered.send_replace(n + 1);
        if !open {
            reader.end().await.map_err(|e| format!("{n}, {asked:?}: behind the end: {e}"))?;
            return Ok(n + 1);
        }
    }
    let end = reader.end().await.map_err(|e| format!("behind all: {e}"))?;
    if end != "FIN" {
        return Err(format!("all was answered, and the connection ends by {end}"));
    }
    Ok(sequence.items.len())
}

/// Reads one answer; gives whether the connection serves on.
async fn read_answer(reader: &mut Reader<OwnedReadHalf>, id: Id, asked: &Asked) -> Result<bool, String> {
    let plan = Plan::of(id, asked.method);
    let words = |broken: Broken| format!("{plan:?}: {broken}");
    let mut interim = Vec::new();
    let (head, framing) = loop {
        let (head, framing) = reader.response(asked.method).await.map_err(words)?;
        if head.status() >= 200 {
            break (head, framing);
        }
        let own = head.one("X-Id").map_err(words)? == Some(&written(id));
        if own {
            interim.push(head.status());
        } else if head.status() != 100 || !asked.expects {
            return Err(format!("an interim response of another: {head:?}"));
        }
    };
    let mut body = Pattern::new(key(id));
    let trailers = reader.body(framing, |bytes| body.compare(bytes)).await.map_err(words)?;
    let wrong = |what: &str| Err(format!("{what}: {plan:?} gave {head:?}, {body:?}, {trailers:?}, {interim:?}"));
    if interim != if asked.old { &[] } else { plan.interim } {
        return wrong("other interim responses");
    }
    if head.status() != plan.status() || head.one("X-Id").map_err(words)? != Some(&written(id)) {
        return wrong("not its own answer");
    }
    let expected = if plan.has_body(asked.method) { plan.length } else { 0 };
    if !body.right || body.length != expected as u64 {
        return wrong("not its own body");
    }
    if asked.method != "HEAD" && plan.shape == Shape::Length && framing != Framing::Length(plan.length as u64) {
        return wrong("another framing");
    }
    if asked.method == "HEAD" && plan.shape == Shape::Length {
        let length = head.one("Content-Length").map_err(words)?;
        if length != Some(&plan.length.to_string()) {
            return wrong("another length");
        }
    }
    let connection = head.one("Connection").map_err(words)?.unwrap_or_default().to_ascii_lowercase();
    if asked.old {
        if framing == Framing::Chunked {
            return wrong("chunked to HTTP/1.0");
        }
        return Ok(!asked.closes && framing != Framing::Close && connection == "keep-alive");
    }
    if head.line[0] != "HTTP/1.1" {
        return wrong("another version");
    }
    if !asked.closes && (connection == "close" || framing == Framing::Close) {
        return wrong("the end of a connection that should serve on");
    }
    let trailer = (TRAILER.to_owned(), written(id));
    let has_trailers = asked.method != "HEAD" && plan.shape == Shape::Chunked;
    if asked.wants_trailers && has_trailers && trailers != [trailer] {
        return wrong("no trailers");
    }
    Ok(!asked.closes)
}

/// What the origin saw of a sequence is what was answered; of one with a broken body perhaps a part, too.
fn compare(sequence: &Sequence, answered: usize, seen: &[Seen], authority: &str) -> Result<(), String> {
    let (whole, parts): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.whole);
    if let Some(part) = parts.iter().find(|part| {
        part.n != answered || !matches!(sequence.items.get(part.n).map(|item| &item.kind), Some(Kind::BrokenBody(_)))
    }) {
        return Err(format!("a part of a request at the origin: {part:?}"));
    }
    let order: Vec<_> = whole.iter().map(|seen| seen.n).collect();
    if order != (0..answered).collect::<Vec<_>>() {
        return Err(format!("answered {answered}, at the origin {order:?}"));
    }
    for (seen, item) in whole.iter().zip(&sequence.items) {
        let asked = match &item.kind {
            Kind::Good(asked) => asked,
            _ => return Err(format!("a broken request at the origin: {seen:?}")),
        };
        let fields = |name: &str| seen.head.one(name).ok().flatten();
        let via = fields("Via").is_some_and(|via| via.starts_with(if asked.old { "1.0 " } else { "1.1 " }));
        let trailers =
            if asked.trailer { vec![(TRAILER.to_owned(), written((sequence.seed, seen.n)))] } else { vec![] };
        let connection = fields("Connection") == asked.wants_trailers.then_some("TE");
        let as_it_should_be = seen.head.line[0] == asked.method
            && seen.head.line[1] == asked.path
            && fields("Host") == Some(authority)
            && fields("X-Gone").is_none()
            && seen.framing == asked.framing.unwrap_or(Framing::Length(0))
            && (fields("Content-Length").is_some() == matches!(asked.framing, Some(Framing::Length(_))))
            && (seen.body.right && seen.body.length == asked.length as u64)
            && seen.trailers == trailers
            && fields("Expect") == asked.expects.then_some("100-continue")
            && connection
            && via;
        if !as_it_should_be {
            return Err(format!("{asked:?} became {seen:?}"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origin_sees_the_valid_requests_alone_and_each_has_its_own_answer() {
    let origin = Origin::start(Arc::new(|id, method| {
        let plan = Plan::of(id, method);
        let mut random = Random::new(key(id).rotate_left(11));
        (pieces(&plan.bytes(id, method), &mut random), plan.closes)
    }))
    .await;
    let (proxy, authority) = (origin.proxy(), origin.authority());
    let (mut runs, mut failures) = (Vec::new(), Vec::new());
    for seed in seeds() {
        let sequence = Sequence::new(seed, &authority);
        let end = run(&sequence, proxy.addr(sequence.listener)).await;
        match end {
            Ok(answered) => runs.push((sequence, answered)),
            Err(why) => failures.push(format!("seed {seed}: {why}")),
        }
    }
    let log = proxy.raw_log();
    assert!(proxy.stop().success());
    let seen = origin.all().await;
    for (sequence, answered) in &runs {
        let seen = seen.get(&sequence.seed).map_or(&[][..], Vec::as_slice);
        if let Err(why) = compare(sequence, *answered, seen, &authority) {
            failures.push(format!("seed {}: {why}", sequence.seed));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}\n--- log ---\n{log}", failures.len(), failures.join("\n"));
}

/// What becomes of a broken answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It begins, and ends in a way that nobody takes for whole; or it is refused.
    Cut,
    /// The client is told that there is none.
    Refused,
    /// What it says is plain, and what follows it is thrown away: this is the body.
    Right(&'static str),
}

use Fate::{Cut, Refused, Right};

/// A whole answer that nobody asked for.
const POISON: &str = "HTTP/1.1 200 OK|X-Id: poison|Content-Length: 6||POISON";

/// Answers that break a rule; `$` is the field with the request's id. Behind each comes [`POISON`], or the end of
/// the connection where the last byte is a `.`.
const BROKEN_ANSWERS: &[(&str, &str, Fate)] = &[
    ("two lengths", "HTTP/1.1 200 OK|$|Content-Length: 5|Content-Length: 6||HELLO", Refused),
    ("length, then chunked", "HTTP/1.1 200 OK|$|Content-Length: 5|Transfer-Encoding: chunked||0||", Refused),
    ("chunked, then length", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked|Content-Length: 5||0||", Refused),
    ("two lengths in a list", "HTTP/1.1 200 OK|$|Content-Length: 5, 6||HELLO", Refused),
    ("a length with a sign", "HTTP/1.1 200 OK|$|Content-Length: +5||HELLO", Refused),
    ("a length below 0", "HTTP/1.1 200 OK|$|Content-Length: -5||HELLO", Refused),
    ("a length in hex", "HTTP/1.1 200 OK|$|Content-Length: 0x5||HELLO", Refused),
    ("no length", "HTTP/1.1 200 OK|$|Content-Length:||HELLO", Refused),
    ("a length beyond all", "HTTP/1.1 200 OK|$|Content-Length: 18446744073709551621||HELLO", Refused),
    ("gzip", "HTTP/1.1 200 OK|$|Transfer-Encoding: gzip||HELLO", Refused),
    ("gzip, chunked", "HTTP/1.1 200 OK|$|Transfer-Encoding: gzip, chunked||0||", Refused),
    ("chunked, gzip", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked, gzip||0||", Refused),
    ("chunked twice", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked, chunked||0||", Refused),
    ("chunked on two lines", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked|Transfer-Encoding: chunked||0||", Refused),
    ("chunked in HTTP/1.0", "HTTP/1.0 200 OK|$|Transfer-Encoding: chunked||5|HELLO|0||", Refused),
    ("101 unasked", "HTTP/1.1 101 Switching Protocols|$|Connection: upgrade|Upgrade: websocket||", Refused),
    ("a status of four digits", "HTTP/1.1 2000 OK|$|Content-Length: 5||HELLO", Refused),
    ("a status of two digits", "HTTP/1.1 20 OK|$|Content-Length: 5||HELLO", Refused),
    ("a status in letters", "HTTP/1.1 abc OK|$|Content-Length: 5||HELLO", Refused),
    ("a status below 100", "HTTP/1.1 099 OK|$|Content-Length: 5||HELLO", Refused),
    ("HTTP/2.0", "HTTP/2.0 200 OK|$|Content-Length: 5||HELLO", Refused),
    ("HTTP/0.9", "HELLO, no head at all|", Refused),
    ("ICY", "ICY 200 OK|$|Content-Length: 5||HELLO", Refused),
    ("SSH", "SSH-2.0-OpenSSH_9.2|", Refused),
    ("a request", "GET / HTTP/1.1|$||", Refused),
    ("a bare CR in a value", "HTTP/1.1 200 OK|$|X-A: a\rX-B: b|Content-Length: 5||HELLO", Refused),
    ("NUL in a value", "HTTP/1.1 200 OK|$|X-A: \0|Content-Length: 5||HELLO", Refused),
    ("a space before the colon", "HTTP/1.1 200 OK|$|Content-Length : 5||HELLO", Refused),
    ("no colon", "HTTP/1.1 200 OK|$|X-A|Content-Length: 5||HELLO", Refused),
    ("no name", "HTTP/1.1 200 OK|$|: a|Content-Length: 5||HELLO", Refused),
    ("a field of 200 kB", "HTTP/1.1 200 OK|$|X-A: %|Content-Length: 5||HELLO", Refused),
    ("10000 fields", "HTTP/1.1 200 OK|$|#10000|Content-Length: 5||HELLO", Refused),
    ("half a head", "HTTP/1.1 200 OK|$|Content-Le.", Refused),
    ("nothing", ".", Refused),
    ("no hex", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||xyz|HELLO|0||", Cut),
    ("two sizes", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||5 5|HELLO|0||", Cut),
    ("a size below 0", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||-5|HELLO|0||", Cut),
    ("a size beyond all", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||fffffffffffffffff|HELLO|0||", Cut),
    ("no size", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked|||HELLO|0||", Cut),
    ("too short a size", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||3|HELLO|0||", Cut),
    ("no end of a chunk", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||5|HELLO0||", Cut),
    ("a bare LF behind a size", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||5\nHELLO|0||", Cut),
    ("a trailer without a colon", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||5|HELLO|0|X-A||", Cut),
    ("no last chunk", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||5|HELLO|.", Cut),
    ("half a chunk", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||50|HELLO.", Cut),
    ("half a body", "HTTP/1.1 200 OK|$|Content-Length: 50||HELLO.", Cut),
    ("bytes behind the end", "HTTP/1.1 200 OK|$|Content-Length: 5||HELLO", Right("HELLO")),
    ("bytes behind the last chunk", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||5|HELLO|0||", Right("HELLO")),
    ("bytes behind nothing", "HTTP/1.1 200 OK|$|Content-Length: 0||", Right("")),
    ("bytes behind a 204", "HTTP/1.1 204 No Content|$||", Right("")),
    ("bytes behind a 304", "HTTP/1.1 304 Not Modified|$||", Right("")),
    ("a 304 with a length", "HTTP/1.1 304 Not Modified|$|Content-Length: 5||HELLO", Right("")),
    ("a 304, chunked", "HTTP/1.1 304 Not Modified|$|Transfer-Encoding: chunked||5|HELLO|0||", Right("")),
    ("a 204 with a length", "HTTP/1.1 204 No Content|$|Content-Length: 5||HELLO", Right("")),
    ("a 204, chunked", "HTTP/1.1 204 No Content|$|Transfer-Encoding: chunked||5|HELLO|0||", Right("")),
    ("a body for HEAD", "HTTP/1.1 200 OK|$|Content-Length: 5||HELLO", Right("")),
    ("a chunked body for HEAD", "HTTP/1.1 200 OK|$|Transfer-Encoding: chunked||5|HELLO|0||", Right("")),
];

/// The row of [`BROKEN_ANSWERS`] for a request; None for a good answer.
fn row((_, n): Id) -> Option<(&'static str, &'static str, Fate)> {
    BROKEN_ANSWERS.get((n % 1000).wrapping_sub(1)).copied()
}

fn broken_answer(id: Id) -> (Vec<u8>, bool) {
    let field = format!("X-Id: {}", written(id));
    let Some((_, text, _)) = row(id) else {
        let mut bytes = format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 5\r\n\r\n").into_bytes();
        bytes.extend(Pattern::new(key(id)).bytes(5));
        return (bytes, false);
    };
    let (text, closes) = match text.strip_suffix('.') {
        Some(text) => (text.to_owned(), true),
        None => (format!("{text}{POISON}"), false),
    };
    let text = text.replace('|', "\r\n").replace('$', &field);
    (text.replace('%', &"x".repeat(200_000)).replace("#10000", &["X: y"; 10_000].join("\r\n")).into_bytes(), closes)
}

/// Asks, and reads the answer; gives whether the connection serves on.
async fn ask(reader: &mut Reader<TcpStream>, id: Id, authority: &str) -> Result<bool, String> {
    let row = row(id);
    let method = if row.is_some_and(|(name, ..)| name.ends_with("HEAD")) { "HEAD" } else { "GET" };
    let request = format!("{method} / HTTP/1.1\r\nHost: {authority}\r\nX-Id: {}\r\n\r\n", written(id));
    reader.stream.write_all(request.as_bytes()).await.unwrap();
    let words = |broken: Broken| broken.to_string();
    let (head, framing) = match (reader.response(method).await, row) {
        (Err(Broken::End(_)), Some((.., Cut))) => return Ok(false),
        (end, _) => end.map_err(words)?,
    };
    let mut text = Vec::new();
    let body = reader.body(framing, |bytes| text.extend_from_slice(bytes)).await;
    let is_own = head.one("X-Id").map_err(words)? == Some(&written(id));
    let is_refused = head.status() == 500 && head.one("X-Id") == Ok(None) && body.is_ok();
    let is_right = |expected: &[u8]| is_own && body.is_ok() && text == expected;
    let fits = match row.map(|(.., fate)| fate) {
        None => is_right(&Pattern::new(key(id)).bytes(5)),
        Some(Right(expected)) => is_right(expected.as_bytes()),
        Some(Refused) => is_refused,
        Some(Cut) => is_refused || (is_own && matches!(body, Err(Broken::End(_)))),
    };
    if !fits {
        return Err(format!("{head:?}, {:?}, {body:?}", String::from_utf8_lossy(&text)));
    }
    let open = matches!(row, None | Some((.., Right(_))));
    if open && head.one("Connection").map_err(words)?.is_some() {
        return Err(format!("it does not serve on: {head:?}"));
    }
    Ok(open)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_answer_reaches_nobody_else() {
    // At once: what comes when the next request is on its way already is its answer to any reader.
    let origin = Origin::start(Arc::new(|id, _| {
        let (bytes, closes) = broken_answer(id);
        (vec![bytes], closes)
    }))
    .await;
    let (proxy, authority) = (origin.proxy(), origin.authority());
    let mut failures = Vec::new();
    for seed in seeds().step_by(4) {
        let mut random = Random::new(seed ^ 0xbad);
        let mut clients: [Option<Reader<TcpStream>>; 2] = [None, None];
        for step in 0..8 {
            // Each row in turn; every other answer is a good one, by either client.
            let of = if step % 2 == 0 { 1 + (seed as usize * 4 + step / 2) % BROKEN_ANSWERS.len() } else { 0 };
            let id = (seed, step * 1000 + of);
            let n = random.below(2);
            let mut reader = match clients[n].take() {
                Some(reader) => reader,
                None => Reader::new(TcpStream::connect(proxy.addr(random.below(2))).await.unwrap()),
            };
            let end = timeout(PATIENCE, ask(&mut reader, id, &authority)).await;
            match end.unwrap_or_else(|_| Err("no answer, and no end".into())) {
                Ok(open) => clients[n] = open.then_some(reader),
                Err(why) => {
                    let name = row(id).map_or("a good answer", |(name, ..)| name);
                    failures.push(format!("seed {seed}, step {step}, {name}: {why}"));
                }
            }
        }
    }
    let log = proxy.raw_log();
    assert!(proxy.stop().success());
    origin.all().await;
    assert!(failures.is_empty(), "{} failures:\n{}\n--- log ---\n{log}", failures.len(), failures.join("\n"));
}
