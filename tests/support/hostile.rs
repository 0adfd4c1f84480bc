//! Hostile upstreams, and the stage on which the program meets them one by one.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    task::Poll,
    time::{Duration, Instant},
};

use certs_dev::{Authority, Bundle, Case, Identity, Server};
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};
use serde_json::Value;
use socket2::SockRef;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use super::{
    gallery::{Front, GALLERY},
    origin::{Seen, exchange},
    proxy::{PATIENCE, Proxy},
};

/// Handshakes that break off for a reason which does not go away by itself: refusals, not failures.
pub const IS_THE_SAME_AT_EVERY_TRY: [&str; 4] =
    ["client_cert_refused", "client_cert_required", "not_tls", "tls_version"];

/// A root that the stage's program believes, for certificates that the gallery does not have.
pub static ROOT: LazyLock<Authority> =
    LazyLock::new(|| Authority::root("Hostile Root", OffsetDateTime::now_utc()).expect("a root"));

/// What no log may ever show.
const TOKEN: &str = "gAAAAAsecrettoken";

/// How a meeting must end.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// 200, no event.
    Accepted,
    /// No trust, with one of these codes (`a|b` where the network decides): one event, no byte of the request sent.
    Refused(&'static str),
    /// The alert of a verified server behind its handshake: one event, and nobody knows what it was sent.
    RefusedLate(&'static str),
    /// A verified server that misbehaves: a failure of this class, no event.
    Failure(&'static str),
}

/// The program, with a route to each hostile upstream and one to a good one.
pub struct Stage {
    proxy: Proxy,
    good: Front,
    names: Vec<String>,
    memory: u64,
    json: bool,
    _files: TempDir,
}

impl Stage {
    /// Starts the program; upstreams are what they are called and where they are.
    pub async fn set(upstreams: &[(String, SocketAddr)], flags: &[&str]) -> Self {
        Self::set_in("json", upstreams, flags).await
    }

    /// The same with the log in this form.
    pub async fn set_in(form: &str, upstreams: &[(String, SocketAddr)], flags: &[&str]) -> Self {
        let good = Front::start(Case::Good).await;
        let files = super::dir();
        let bundle = files.path().join("bundle.pem");
        std::fs::write(&bundle, format!("{}{}", GALLERY.bundle_pem(Bundle::Root), ROOT.certificate_pem())).unwrap();
        let mut all: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        all.extend(["--ca-bundle".into(), bundle.display().to_string()]);
        for (_, address) in upstreams {
            let name = format!("{}:{}", Case::Good.name(), address.port());
            all.push(format!("--route=127.0.0.1:0=https://{name}"));
            all.push(format!("--connect-to={name}={address}"));
        }
        all.extend(good.route());
        if form != "json" {
            all.extend(["--log-format".into(), form.into()]);
        }
        let proxy = Proxy::start(&all);
        let names = upstreams.iter().map(|(name, _)| name.clone()).collect();
        let stage = Self { proxy, good, names, memory: 0, json: form == "json", _files: files };
        assert_eq!(stage.ask(stage.names.len()).await.status(), 200, "the good upstream");
        Self { memory: stage.proxy.peak_memory_kib(), ..stage }
    }

    /// The program.
    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Asks the n-th upstream.
    pub async fn ask(&self, n: usize) -> Seen {
        let address = self.proxy.addr(n);
        let head = format!("GET /v1/images/detail HTTP/1.1\r\nHost: {address}\r\nx-auth-token: {TOKEN}\r\n");
        exchange(address, format!("{head}Connection: close\r\n\r\n").as_bytes()).await
    }

    /// Meets the n-th upstream: the answer, the event, and that the program goes on. Gives the event.
    pub async fn meet(&self, n: usize, end: End) -> Value {
        let name = &self.names[n];
        let before = self.proxy.audit().len();
        let begun = Instant::now();
        let seen = self.ask(n).await;
        let took = begun.elapsed();
        let text = seen.text();
        let events = self.proxy.audit().split_off(before);
        println!("{name}: {took:?}");
        let context = format!("{name}, {end:?}: {text}\n{events:#?}");
        assert!(!seen.reset, "a reset: {context}");
        assert!(took < PATIENCE / 3, "it took {took:?}: {context}");
        assert!(self.good_is_served().await, "the good upstream after {context}");
        match end {
            End::Accepted => {
                assert_eq!((seen.status(), events.len()), (200, 0), "{context}");
                return Value::Null;
            }
            End::Failure(classes) => {
                assert_eq!((seen.status(), events.len()), (500, 0), "{context}");
                assert!(classes.split('|').any(|class| text.contains(&format!(": {class} "))), "{context}");
                let (_, id) = text.split_once("(event ").unwrap_or_else(|| panic!("no id: {context}"));
                let about = |line: &Value| {
                    line["event"] == "request-failed" && id.starts_with(line["request"].as_str().unwrap())
                };
                let line = self.proxy.wait_for_log("the failure", about);
                assert!(!line["message"].as_str().unwrap().ends_with(" error"), "of which kind: {line}");
                return Value::Null;
            }
            End::Refused(_) | End::RefusedLate(_) => {}
        }
        assert_eq!(events.len(), 1, "{context}");
        let event = &events[0];
        let field = |key: &str| event[key].as_str().unwrap_or_else(|| panic!("no {key}: {context}"));
        let code = field("error.code");
        let (End::Refused(codes) | End::RefusedLate(codes)) = end else { unreachable!() };
        assert!(code != "other" && codes.split('|').any(|known| known == code), "{context}");
        let (status, says) = match field("event.action") {
            "tls-verification-refused" => (403, format!(": {code} (event ")),
            _ if IS_THE_SAME_AT_EVERY_TRY.contains(&code) => (403, format!(": {code} (event ")),
            _ => (500, format!(": {code} (event ")),
        };
        assert_eq!(seen.status(), status, "{context}");
        assert!(text.contains(&says) && text.contains(field("event.id")), "{context}");
        let sentence = field("error.message");
        assert!((20..1500).contains(&sentence.len()), "{context}");
        assert!(field("vouchsafe.hint").len() > 10, "{context}");
        match end {
            End::RefusedLate(_) => assert!(event["vouchsafe.request_bytes_sent"].is_null(), "{context}"),
            _ => assert_eq!(event["vouchsafe.request_bytes_sent"], 0, "{context}"),
        }
        let length = event.to_string().len();
        assert!(length < 64 * 1024, "an event of {length} bytes: {context}");
        event.clone()
    }

    /// Whether the good upstream is served.
    pub async fn good_is_served(&self) -> bool {
        let before = self.good.counters.requests();
        self.ask(self.names.len()).await.status() == 200 && self.good.counters.requests() == before + 1
    }

    /// The end: nothing in the logs but what was meant, memory within bounds, and an orderly stop.
    pub fn clear(self) {
        let grown = self.proxy.peak_memory_kib() - self.memory;
        println!("{grown} KiB more at the most");
        assert!(grown < 16 * 1024, "{grown} KiB more");
        self.proxy.wait_for_audit();
        let audit = std::fs::read_to_string(self.proxy.audit_path()).unwrap_or_default();
        let log = self.proxy.raw_log();
        assert!(!self.json || self.proxy.log().len() > 1, "every line of a JSON log is JSON");
        for (what, text) in [("audit log", &audit), ("log", &log)] {
            for odd in ["panicked", TOKEN, "\u{202e}", "\u{2066}", "\u{61c}"] {
                assert!(!text.contains(odd), "{odd:?} in the {what}");
            }
            let control = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(control, None, "a control character in the {what}");
            assert!(!text.lines().any(|line| line.starts_with(FORGED)), "a forged line in the {what}");
        }
        let ids = self.proxy.audit().iter().map(|event| event["event.id"].to_string()).collect::<Vec<_>>();
        let mut distinct = ids.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(ids.len(), distinct.len(), "an event twice");
        assert_eq!(self.proxy.stop().code(), Some(0));
    }
}

/// What an attacker would like to see at the beginning of a line.
pub const FORGED: &str = "2026-01-01T00:00:00Z";

/// A name that wants to move a terminal, end a line, and turn the reading.
pub fn evil_name() -> String {
    format!("evil\x1b[2J\x1b]0;x\x07\r\n{FORGED}  INFO forged\0\"'`\\\u{202e}txt\u{2066}\u{9b}31m\u{61c}")
}

/// So many at once, to the end of all.
pub async fn at_once<F: Future>(count: usize, make: impl Fn() -> F) -> Vec<F::Output> {
    let mut running: Vec<_> = (0..count).map(|_| Box::pin(make())).collect();
    let mut done: Vec<Option<F::Output>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, done) in running.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// Serves an identity, whatever is in it; gives its counters too.
pub async fn serve(identity: &Identity) -> (SocketAddr, Arc<certs_dev::Counters>) {
    let server = Server::bind("127.0.0.1:0".parse().unwrap(), identity, "hostile").await.unwrap();
    let (address, counters) = (server.local_addr(), server.counters());
    tokio::spawn(server.run());
    (address, counters)
}

/// What a peer does to a connection once it has read the first record.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Sent once.
    pub first: Vec<u8>,
    /// Sent again and again, up to [`FLOOD`] bytes.
    pub again: Vec<u8>,
    /// How it ends.
    pub last: Last,
}

/// How a peer ends a connection.
#[derive(Clone, Copy, Debug, Default)]
pub enum Last {
    /// FIN.
    Fin,
    /// Not at all: it waits for the other end.
    #[default]
    Hold,
    /// RST.
    Reset,
}

/// So much is endless.
const FLOOD: usize = 32 << 20;

/// What a peer has seen of connections that are over.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// How many.
    pub count: usize,
    /// Bytes sent on the last one.
    pub sent: usize,
    /// Whether there was a request on any of them.
    pub request: bool,
}

/// A peer that says what its script says, whatever it is told.
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    ended: watch::Receiver<Ended>,
}

impl Peer {
    /// Starts it.
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, ended) = watch::channel(Ended::default());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (received, sent) = script.play(tcp).await;
                tell.send_modify(|ended| {
                    *ended = Ended { count: ended.count + 1, sent, request: ended.request || has_request(&received) }
                });
            }
        });
        Self { address, ended }
    }

    /// Waits for the end of this many connections.
    pub async fn ended(&self, count: usize) -> Ended {
        let mut ended = self.ended.clone();
        let seen = timeout(PATIENCE, ended.wait_for(|ended| ended.count >= count)).await;
        seen.expect("the end of a connection").unwrap().clone()
    }
}

impl Script {
    async fn play(&self, mut tcp: TcpStream) -> (Vec<u8>, usize) {
        let mut received = vec![0; 5];
        if tcp.read_exact(&mut received).await.is_err() {
            return (Vec::new(), 0);
        }
        let length = usize::from(u16::from_be_bytes([received[3], received[4]]));
        received.resize(5 + length, 0);
        let _ = tcp.read_exact(&mut received[5..]).await;
        let mut sent = 0;
        if tcp.write_all(&self.first).await.is_ok() && !self.again.is_empty() {
            let block = self.again.repeat((16 * 1024 / self.again.len()).max(1));
            while sent < FLOOD && tcp.write_all(&block).await.is_ok() {
                sent += block.len();
            }
        }
        match self.last {
            Last::Reset => SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap(),
            Last::Hold => drop(tcp.read_to_end(&mut received).await),
            Last::Fin => {
                let _ = tcp.shutdown().await;
                let _ = tcp.read_to_end(&mut received).await;
            }
        }
        (received, sent)
    }
}

/// Whether a client's records hold application data of more than 100 bytes: neither a Finished nor an alert.
fn has_request(mut bytes: &[u8]) -> bool {
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind == 23 && length > 100 {
            return true;
        }
        bytes = rest.get(length..).unwrap_or_default();
    }
    false
}

/// What is done to the bytes of a sound server on their way.
#[derive(Clone, Copy, Debug)]
pub enum Bend {
    /// So many pass, then the connection is cut, by RST or by FIN.
    Cut(usize, bool),
    /// One by one, with a pause before each.
    Drip(Duration),
    /// Handshake records in the clear are sent as records with so many bytes.
    Split(usize),
}

/// A sound server on a bad line; it says what it was sent, and answers only where the line is whole.
pub struct Bent {
    /// Where it is.
    pub address: SocketAddr,
    bend: Arc<Mutex<Bend>>,
    seen: watch::Receiver<BentSeen>,
}

/// What a bent server has seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct BentSeen {
    /// ClientHellos, or what should have been.
    pub begun: usize,
    /// Connections that are over.
    pub over: usize,
    /// Bytes it sent on the last one, which would have passed on a good line.
    pub sent: usize,
    /// Bytes of requests.
    pub plain: usize,
}

impl Bent {
    /// A server with this certificate and version.
    pub async fn start(identity: &Identity, version: &'static SupportedProtocolVersion, bend: Bend) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .unwrap();
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = watch::channel(BentSeen::default());
        let (bend, tell) = (Arc::new(Mutex::new(bend)), Arc::new(tell));
        let shared = bend.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let bend = *shared.lock().unwrap_or_else(PoisonError::into_inner);
                let tell = tell.clone();
                tokio::spawn(async move {
                    tcp.set_nodelay(true).unwrap();
                    let sent = bend.serve(tcp, connection, &tell).await;
                    tell.send_modify(|seen| {
                        seen.over += 1;
                        seen.sent = sent;
                    });
                });
            }
        });
        Self { address, bend, seen }
    }

    /// From now on.
    pub fn bend(&self, bend: Bend) {
        *self.bend.lock().unwrap_or_else(PoisonError::into_inner) = bend;
    }

    /// Waits until it has seen enough.
    pub async fn has(&self, what: &str, enough: impl FnMut(&BentSeen) -> bool) -> BentSeen {
        let mut seen = self.seen.clone();
        *timeout(PATIENCE, seen.wait_for(enough)).await.unwrap_or_else(|_| panic!("{what}")).unwrap()
    }
}

impl Bend {
    async fn serve(self, mut tcp: TcpStream, mut tls: ServerConnection, tell: &watch::Sender<BentSeen>) -> usize {
        let (mut sent, mut space) = (0, [0; 16 * 1024]);
        let mut hello = false;
        loop {
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
            let before = sent;
            sent += out.len();
            match self {
                Self::Cut(after, reset) if sent >= after && before <= after && hello => {
                    let _ = tcp.write_all(&out[..after - before]).await;
                    if reset {
                        SockRef::from(&tcp).set_linger(Some(Duration::ZERO)).unwrap();
                        return sent;
                    }
                    let _ = tcp.shutdown().await;
                }
                Self::Cut(..) => drop(tcp.write_all(&out).await),
                Self::Drip(pause) => {
                    for byte in out {
                        tokio::time::sleep(pause).await;
                        if tcp.write_all(&[byte]).await.is_err() {
                            return sent;
                        }
                    }
                }
                Self::Split(most) => drop(tcp.write_all(&split(&out, most)).await),
            }
            let Ok(count @ 1..) = tcp.read(&mut space).await else { return sent };
            let mut input = &space[..count];
            while !input.is_empty() {
                if tls.read_tls(&mut input).is_err() || tls.process_new_packets().is_err() {
                    return sent;
                }
            }
            if !hello {
                hello = true;
                tell.send_modify(|seen| seen.begun += 1);
            }
            let mut plain = Vec::new();
            let _ = tls.reader().read_to_end(&mut plain);
            tell.send_modify(|seen| seen.plain += plain.len());
            if matches!(self, Self::Split(_)) && plain.ends_with(b"\r\n\r\n") {
                let _ = tls.writer().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    }
}

/// The records anew, those of the handshake with `most` bytes each, up to where they are encrypted.
fn split(mut bytes: &[u8], most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while let [22, _, _, high, low, rest @ ..] = bytes {
        let (record, rest) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        for part in record.chunks(most) {
            out.extend([22, 3, 3]);
            out.extend((part.len() as u16).to_be_bytes());
            out.extend(part);
        }
        bytes = rest;
    }
    out.extend(bytes);
    out
}
