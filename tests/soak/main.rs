//! The soak: mixed traffic with faults on all sides, for as long as one likes, through the built program.
//!
//! Every request is accounted for: it was answered whole and right, it failed as loudly as the fault that was put in
//! its way has it, or the client went away. Memory and descriptors are flat, and nothing is left at the end. Ends with
//! 1 where any of that does not hold. `tests/soak/run` says how to run it.
//!
//! What a request is about stands in its target, so that both ends know it: `/KEY/UP/DOWN/SHAPE/FAULT`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, unreachable_pub)]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../support/mod.rs"]
mod support;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use certs_dev::{Bundle, Case};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime,
    sync::Notify,
    task::{JoinSet, LocalSet, spawn_local},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use support::{
    gallery::GALLERY,
    origin::acceptor,
    proxy::{PATIENCE, Proxy},
    strict::{Broken, Framing, Pattern, Random, Reader},
};

/// Clients at a time, and the pause of each between two sessions: what one core carries in addition to the generator.
const CLIENTS: usize = 24;
const PAUSE: Duration = Duration::from_millis(150);

/// The program's time-outs; a stall lasts longer.
const TIMEOUT: &str = "3s";

/// Memory at rest, against that after the warm-up; under load, the last fifth of the time against the first.
const MOST_GROWTH: f64 = 1.25;
/// What an allocator may keep in addition, in KiB.
const SLACK: u64 = 6 << 10;

/// What an upstream does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing.
    None,
    /// Ends TLS in the middle of the body.
    Close,
    /// Answers before the upload is over.
    Early,
    /// FIN without close_notify in the middle of the body.
    Fin,
    /// What is no HTTP.
    Garbage,
    /// RST in the middle of the body.
    Reset,
    /// RST instead of an answer.
    ResetFirst,
    /// Silence in the middle of the body.
    Stall,
    /// Silence instead of an answer.
    StallFirst,
}

const FAULTS: [Fault; 8] = [
    Fault::Close,
    Fault::Early,
    Fault::Fin,
    Fault::Garbage,
    Fault::Reset,
    Fault::ResetFirst,
    Fault::Stall,
    Fault::StallFirst,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Chunked,
    Close,
    Length,
    NoContent,
}

const SHAPES: [Shape; 6] = [Shape::Length, Shape::Length, Shape::Length, Shape::Chunked, Shape::Chunked, Shape::Close];

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    key: u64,
    up: usize,
    down: usize,
    shape: Shape,
    fault: Fault,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{:x}/{}/{}/{:?}/{:?}", self.key, self.up, self.down, self.shape, self.fault)
    }
}

impl Plan {
    fn read(target: &str) -> Option<Self> {
        let mut parts = target.strip_prefix('/')?.split('/');
        let key = u64::from_str_radix(parts.next()?, 16).ok()?;
        let (up, down) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let (shape, fault) = (parts.next()?, parts.next()?);
        let shape = *SHAPES.iter().chain(&[Shape::NoContent]).find(|known| format!("{known:?}") == shape)?;
        let fault = *FAULTS.iter().chain(&[Fault::None]).find(|known| format!("{known:?}") == fault)?;
        Some(Self { key, up, down, shape, fault })
    }

    fn status(&self) -> u16 {
        match (self.fault, self.shape) {
            (Fault::Early, _) => 413,
            (_, Shape::NoContent) => 204,
            _ => 200,
        }
    }
}

/// What is common to all that runs here.
#[derive(Default)]
struct World {
    /// Requests by how they ended.
    ends: RefCell<BTreeMap<&'static str, u64>>,
    findings: RefCell<Vec<String>>,
    /// Keys of POSTs that an upstream has seen whole.
    posts: RefCell<HashSet<u64>>,
    bytes: Cell<u64>,
    connections: Cell<usize>,
    /// No new sessions.
    rests: Cell<bool>,
    running: Cell<usize>,
}

impl World {
    fn found(&self, what: String) {
        let mut findings = self.findings.borrow_mut();
        if findings.len() < 100 {
            eprintln!("soak: {what}");
        }
        findings.push(what);
    }

    fn ended(&self, how: &'static str) {
        *self.ends.borrow_mut().entry(how).or_default() += 1;
    }
}

// --- the upstreams

/// Accepts on this address until it is dropped.
async fn upstream(listener: TcpListener, acceptor: TlsAcceptor, world: Rc<World>) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, world) = (acceptor.clone(), world.clone());
        while connections.try_join_next().is_some() {}
        connections.spawn_local(async move {
            let _ = tcp.set_nodelay(true);
            let counted = Counted::new(&world);
            if let Ok(stream) = acceptor.accept(tcp).await {
                serve(stream, &world).await;
            }
            drop(counted);
        });
    }
}

/// A connection at an upstream.
struct Counted(Rc<World>);

impl Counted {
    fn new(world: &Rc<World>) -> Self {
        world.connections.set(world.connections.get() + 1);
        Self(world.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}

async fn serve(stream: TlsStream<TcpStream>, world: &World) {
    let mut reader = Reader::new(stream);
    loop {
        let (head, framing) = match reader.request().await {
            Ok(Some(request)) => request,
            Ok(None) | Err(Broken::End(_)) => return,
            Err(rule) => return world.found(format!("an upstream: {rule}")),
        };
        let Some(plan) = Plan::read(&head.line[1]) else {
            return world.found(format!("an upstream: an unknown target: {head:?}"));
        };
        if head.one("Upgrade").is_ok_and(|to| to == Some("websocket")) {
            let _ = echo(reader).await;
            return;
        }
        let expects = head.one("Expect").is_ok_and(|said| said.is_some());
        if expects && plan.fault != Fault::Early && plan.key % 4 > 0 {
            let _ = reader.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            let _ = reader.stream.flush().await;
        }
        if plan.fault != Fault::Early {
            let mut body = Pattern::new(plan.key);
            match reader.body(framing, |bytes| body.compare(bytes)).await {
                Ok(_) if body.right && body.length == plan.up as u64 => {}
                Ok(_) => return world.found(format!("an upstream: another body: {plan}: {body:?}")),
                Err(Broken::End(_)) => return,
                Err(rule) => return world.found(format!("an upstream: {plan}: {rule}")),
            }
            if head.line[0] == "POST" && !world.posts.borrow_mut().insert(plan.key) {
                return world.found(format!("an upstream: a POST came twice: {plan}"));
            }
        }
        match answer(&mut reader.stream, plan, &head.line[0]).await {
            Ok(true) => {}
            _ => return,
        }
    }
}

/// Says back all that comes, after HTTP.
async fn echo(mut reader: Reader<TlsStream<TcpStream>>) -> std::io::Result<()> {
    let switch = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    reader.stream.write_all(switch.as_bytes()).await?;
    let early = reader.rest().to_vec();
    reader.stream.write_all(&early).await?;
    let mut space = vec![0; 16 << 10];
    loop {
        reader.stream.flush().await?;
        match reader.stream.read(&mut space).await? {
            0 => return reader.stream.shutdown().await,
            count => reader.stream.write_all(&space[..count]).await?,
        }
    }
}

/// Answers; gives whether the connection serves on.
async fn answer(stream: &mut TlsStream<TcpStream>, plan: Plan, method: &str) -> std::io::Result<bool> {
    match plan.fault {
        Fault::ResetFirst => return reset(stream),
        Fault::StallFirst => return stall(stream).await,
        Fault::Garbage => {
            stream.write_all(b"HTTP/1.1 OK 200\r\n\r\n").await?;
            stream.flush().await?;
            return Ok(false);
        }
        _ => {}
    }
    if plan.key.is_multiple_of(5) {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await?;
    }
    let mut head = format!("HTTP/1.1 {} Soaked\r\nX-Key: {:x}\r\n", plan.status(), plan.key);
    match plan.shape {
        Shape::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Shape::Close => head.push_str("Connection: close\r\n"),
        Shape::Length => head.push_str(&format!("Content-Length: {}\r\n", plan.down)),
        Shape::NoContent => {}
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    let length = match plan.fault {
        _ if method == "HEAD" || plan.shape == Shape::NoContent => 0,
        Fault::None | Fault::Early => plan.down,
        _ => plan.down / 2,
    };
    write_body(stream, plan.key, length, plan.shape == Shape::Chunked && method != "HEAD", None).await?;
    match plan.fault {
        Fault::None | Fault::Early => {}
        Fault::Close => {
            stream.shutdown().await?;
            return Ok(false);
        }
        Fault::Fin => {
            SockRef::from(stream.get_ref().0).shutdown(std::net::Shutdown::Write)?;
            return Ok(false);
        }
        Fault::Reset => return reset(stream),
        _ => return stall(stream).await,
    }
    if plan.shape == Shape::Chunked && method != "HEAD" {
        stream.write_all(b"0\r\n\r\n").await?;
        stream.flush().await?;
    }
    if plan.fault == Fault::Early {
        stream.shutdown().await?;
        return stall(stream).await;
    }
    if plan.shape == Shape::Close {
        stream.shutdown().await?;
        return Ok(false);
    }
    Ok(true)
}

fn reset(stream: &TlsStream<TcpStream>) -> std::io::Result<bool> {
    SockRef::from(stream.get_ref().0).set_linger(Some(Duration::ZERO))?;
    Ok(false)
}

/// Until the proxy has had enough; what comes is thrown away.
async fn stall(stream: &mut TlsStream<TcpStream>) -> std::io::Result<bool> {
    let mut space = vec![0; 64 << 10];
    while matches!(timeout(PATIENCE, stream.read(&mut space)).await, Ok(Ok(1..))) {}
    Ok(false)
}

/// Writes a body by its key, without its last chunk; slowly where that is said.
async fn write_body(
    stream: &mut (impl AsyncWrite + Unpin),
    key: u64,
    length: usize,
    chunked: bool,
    slowly: Option<&mut Random>,
) -> std::io::Result<()> {
    let mut pattern = Pattern::new(key);
    let (mut left, mut slowly) = (length, slowly);
    while left > 0 {
        let most = if slowly.is_some() { 1 + length / 10 } else { 64 << 10 };
        let size = left.min(most);
        if chunked {
            stream.write_all(format!("{size:x}\r\n").as_bytes()).await?;
        }
        stream.write_all(&pattern.bytes(size)).await?;
        if chunked {
            stream.write_all(b"\r\n").await?;
        }
        if let Some(random) = &mut slowly {
            stream.flush().await?;
            sleep(Duration::from_millis(random.below(60) as u64)).await;
        }
        left -= size;
    }
    stream.flush().await
}

// --- the clients

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Plain,
    /// Shuts its side down behind the request, and waits.
    HalfClose,
    /// Goes away while it sends, waits, or reads; by RST or FIN.
    Leaves,
    SlowReader,
    SlowWriter,
}

/// The peer of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A fixed route, or the forward listener.
    Good { forward: bool },
    /// An upstream that restarts now and then.
    Restarting,
    /// An upstream with an expired certificate.
    Expired,
}

/// How an exchange ended, as the client sees it.
#[derive(Debug)]
enum Seen {
    /// A whole answer of the upstream's, and whether the connection serves on.
    Whole { status: u16, right: bool, open: bool },
    /// An answer of the proxy's own.
    Refused(u16),
    /// The connection ended before the answer did; how is for the words of a finding.
    Broken(#[expect(dead_code, reason = "read by Debug")] String),
    /// The client went away.
    Left,
}

struct Client {
    world: Rc<World>,
    random: Random,
    addresses: [SocketAddr; 4],
    authority: String,
}

impl Client {
    async fn sessions(mut self) {
        loop {
            if !self.world.rests.get() {
                self.world.running.set(self.world.running.get() + 1);
                if let Err(what) = self.session().await {
                    self.world.found(what);
                }
                self.world.running.set(self.world.running.get() - 1);
            }
            sleep(PAUSE.mul_f64(0.5 + self.random.below(100) as f64 / 100.0)).await;
        }
    }

    /// A connection, and some requests on it.
    async fn session(&mut self) -> Result<(), String> {
        let way = match self.random.below(20) {
            0 => Way::Expired,
            1..4 => Way::Restarting,
            4..9 => Way::Good { forward: true },
            _ => Way::Good { forward: false },
        };
        let place = match way {
            Way::Good { forward: false } => 0,
            Way::Good { forward: true } => 3,
            Way::Restarting => 1,
            Way::Expired => 2,
        };
        let stream = TcpStream::connect(self.addresses[place]).await.map_err(|e| format!("no connection: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (read, mut write) = stream.into_split();
        let (mut reader, mut before) = (Reader::new(read), String::new());
        for left in (0..1 + self.random.below(6)).rev() {
            if self.random.one_in(60) {
                return self.broken_request(&mut reader, &mut write).await;
            }
            if matches!(way, Way::Good { .. }) && self.random.one_in(40) {
                return self.websocket(way, reader, write).await;
            }
            let (exchange, words) = self.exchange(way, left == 0);
            let end = timeout(PATIENCE, exchange.run(&mut reader, &mut write, &mut self.random)).await;
            let seen = end.map_err(|_| format!("no end: {words}"))?;
            let Some(how) = exchange.judge(way, &seen) else {
                return Err(format!("{seen:?}: {words}, behind: {before}"));
            };
            before = words;
            self.world.ended(how);
            self.world.bytes.set(self.world.bytes.get() + (exchange.plan.up + exchange.plan.down) as u64);
            if !matches!(seen, Seen::Whole { open: true, .. }) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn exchange(&mut self, way: Way, last: bool) -> (Exchange, String) {
        let random = &mut self.random;
        let size = |random: &mut Random| match random.below(40) {
            0..30 => random.below(4 << 10),
            30..38 => random.below(200 << 10),
            _ => random.below(4 << 20),
        };
        let method = *random.pick(&["GET", "GET", "GET", "HEAD", "POST", "PUT", "PUT", "DELETE"]);
        let uploads = matches!(method, "POST" | "PUT");
        let fault = match way {
            Way::Good { .. } if random.one_in(25) => *random.pick(&FAULTS),
            _ => Fault::None,
        };
        // An answer that comes early is told from others by an upload; a cut one by a body.
        let method = match fault {
            Fault::Early => "PUT",
            Fault::Close | Fault::Fin | Fault::Reset | Fault::Stall => "GET",
            _ => method,
        };
        let shape = if random.one_in(15) { Shape::NoContent } else { *random.pick(&SHAPES) };
        let shape = match (fault, shape) {
            (Fault::None, shape) if method != "HEAD" || shape != Shape::Close => shape,
            // A clean end of TLS is the end of a body that has no other.
            (Fault::Close, Shape::Close) | (_, Shape::NoContent | Shape::Close) => Shape::Length,
            (_, shape) => shape,
        };
        let up = if uploads || fault == Fault::Early { size(random) } else { 0 };
        // A body of nothing cannot be cut.
        let down = 2 + if uploads { random.below(1000) } else { size(random) };
        let plan = Plan { key: random.any(), up, down, shape, fault };
        let old = random.one_in(6);
        let manner = match random.below(20) {
            0 => Manner::SlowReader,
            1 => Manner::SlowWriter,
            2 => Manner::Leaves,
            3 if last => Manner::HalfClose,
            _ => Manner::Plain,
        };
        let chunked = up > 0 && !old && random.one_in(2);
        let target = match way {
            Way::Good { forward: true } => format!("http://{}{plan}", self.authority),
            _ => plan.to_string(),
        };
        let version = if old { "1.0" } else { "1.1" };
        let mut head = format!("{method} {target} HTTP/{version}\r\nHost: {}\r\n", self.authority);
        match (chunked, uploads || plan.up > 0) {
            (true, _) => head.push_str("Transfer-Encoding: chunked\r\n"),
            (false, true) => head.push_str(&format!("Content-Length: {}\r\n", plan.up)),
            (false, false) => {}
        }
        let expects = up > 0 && !old && random.one_in(4);
        if expects {
            head.push_str("Expect: 100-continue\r\n");
        }
        let keeps = !last && (!old || random.one_in(2));
        match (keeps, old) {
            (true, true) => head.push_str("Connection: keep-alive\r\n"),
            (false, false) => head.push_str("Connection: close\r\n"),
            _ => {}
        }
        head.push_str("\r\n");
        let words = format!("{way:?}, {manner:?}: {}", head.replace("\r\n", " | "));
        (Exchange { plan, method, head, chunked, manner, keeps, old, agreed: expects.then(Notify::new) }, words)
    }

    /// Another protocol for the rest of the connection: what is sent comes back, also behind our own end.
    async fn websocket(
        &mut self,
        way: Way,
        mut reader: Reader<OwnedReadHalf>,
        mut write: OwnedWriteHalf,
    ) -> Result<(), String> {
        let length = self.random.below(300 << 10);
        let plan = Plan { key: self.random.any(), up: 0, down: length, shape: Shape::Length, fault: Fault::None };
        let authority = &self.authority;
        let target =
            if way == (Way::Good { forward: true }) { format!("http://{authority}{plan}") } else { plan.to_string() };
        let head =
            format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        let words = |why: &dyn fmt::Display| format!("a websocket: {why}: {plan}");
        write.write_all(head.as_bytes()).await.map_err(|e| words(&e))?;
        let answer = timeout(PATIENCE, reader.response("GET")).await.map_err(|e| words(&e))?;
        let (answer, _) = answer.map_err(|e| words(&e))?;
        if answer.status() != 101 {
            return Err(words(&format!("{answer:?}")));
        }
        let leaves = self.random.one_in(4);
        let sent = if leaves { length / 2 } else { length };
        let sending = async {
            write_body(&mut write, plan.key, sent, false, None).await?;
            if leaves { Ok(()) } else { write.shutdown().await }
        };
        let mut back = Pattern::new(plan.key);
        back.compare(reader.rest());
        let mut space = vec![0; 16 << 10];
        let reading = async {
            while back.length < sent as u64 || !leaves {
                match reader.stream.read(&mut space).await? {
                    0 => break,
                    count => back.compare(&space[..count]),
                }
            }
            Ok::<_, std::io::Error>(())
        };
        let both = timeout(PATIENCE, async { tokio::try_join!(sending, reading) }).await;
        both.map_err(|e| words(&e))?.map_err(|e| words(&e))?;
        if !back.right || back.length != sent as u64 {
            return Err(words(&format!("of {sent} bytes this came back: {back:?}")));
        }
        self.world.ended(if leaves { "a websocket, left by its client" } else { "a websocket, whole and right" });
        Ok(())
    }

    async fn broken_request(
        &mut self,
        reader: &mut Reader<OwnedReadHalf>,
        write: &mut OwnedWriteHalf,
    ) -> Result<(), String> {
        let authority = &self.authority;
        let (head, status) = match self.random.below(4) {
            0 => (format!("GET / HTTP/1.1\r\nHost: {authority}\r\nX-A : a\r\n\r\n"), 400),
            1 => (format!("GET / HTTP/1.1\r\nHost: {authority}\r\nHost: {authority}\r\n\r\n"), 400),
            2 => ("\0\0\0\r\n\r\n".into(), 400),
            _ => {
                (format!("POST / HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n"), 400)
            }
        };
        let _ = write.write_all(head.as_bytes()).await;
        let words = |broken: Broken| format!("a broken request: {broken}: {head:?}");
        let (answer, framing) =
            timeout(PATIENCE, reader.response("GET")).await.map_err(|e| e.to_string())?.map_err(words)?;
        reader.body(framing, |_| {}).await.map_err(words)?;
        // With an upstream that is refused or down there is that to be said first.
        if ![status, 403, 500].contains(&answer.status()) {
            return Err(format!("a broken request: {answer:?}: {head:?}"));
        }
        self.world.ended("a broken request, refused");
        Ok(())
    }
}

struct Exchange {
    plan: Plan,
    method: &'static str,
    head: String,
    chunked: bool,
    manner: Manner,
    keeps: bool,
    old: bool,
    /// Notified when the body is asked for, where the client waits for that.
    agreed: Option<Notify>,
}

impl Exchange {
    async fn run(&self, reader: &mut Reader<OwnedReadHalf>, write: &mut OwnedWriteHalf, random: &mut Random) -> Seen {
        let mut slowly = Random::new(self.plan.key);
        let mut leaving = Random::new(random.any());
        let sent = Cell::new(false);
        let sending = async {
            sent.set(self.send(write, &mut slowly).await.is_ok());
            std::future::pending::<Seen>().await
        };
        let leaves = async {
            if self.manner != Manner::Leaves {
                std::future::pending::<()>().await;
            }
            sleep(Duration::from_micros(leaving.below(20_000) as u64)).await;
        };
        let seen = tokio::select! {
            biased;
            () = leaves => Seen::Left,
            seen = self.receive(reader) => seen.unwrap_or_else(|broken| Seen::Broken(broken.to_string())),
            seen = sending => seen,
        };
        match seen {
            // The upload was given up, and the connection with it.
            Seen::Whole { status, right, open } => Seen::Whole { status, right, open: open && sent.get() },
            Seen::Left if random.one_in(2) => {
                let _ = SockRef::from(write.as_ref()).set_linger(Some(Duration::ZERO));
                Seen::Left
            }
            seen => seen,
        }
    }

    async fn send(&self, write: &mut OwnedWriteHalf, slowly: &mut Random) -> std::io::Result<()> {
        write.write_all(self.head.as_bytes()).await?;
        if let Some(agreed) = &self.agreed {
            agreed.notified().await;
        }
        let slowly = (self.manner == Manner::SlowWriter).then_some(slowly);
        write_body(write, self.plan.key, self.plan.up, self.chunked, slowly).await?;
        if self.chunked {
            write.write_all(b"0\r\n\r\n").await?;
        }
        if self.manner == Manner::HalfClose {
            write.shutdown().await?;
        }
        Ok(())
    }

    async fn receive(&self, reader: &mut Reader<OwnedReadHalf>) -> Result<Seen, Broken> {
        reader.gulp = if self.manner == Manner::SlowReader { 4 << 10 } else { 64 << 10 };
        let (head, framing) = loop {
            let (head, framing) = reader.response(self.method).await?;
            match head.status() {
                100..200 if self.old => return Err(Broken::Rule(format!("to an old client: {head:?}"))),
                100 if self.agreed.is_some() => self.agreed.iter().for_each(Notify::notify_one),
                103 => {}
                _ => break (head, framing),
            }
        };
        let mut body = Pattern::new(self.plan.key);
        let mut pauses = if self.manner == Manner::SlowReader { 20 } else { 0 };
        // Between the parts of a body nobody may wait; so the slow reader waits before it.
        while pauses > 0 {
            sleep(Duration::from_millis(20)).await;
            pauses -= 1;
        }
        reader.body(framing, |bytes| body.compare(bytes)).await?;
        let Some(key) = head.one("X-Key")? else { return Ok(Seen::Refused(head.status())) };
        let has_body = self.method != "HEAD" && self.plan.shape != Shape::NoContent;
        let length = if has_body { self.plan.down } else { 0 };
        let right = key == format!("{:x}", self.plan.key)
            && (body.right && body.length == length as u64)
            && head.status() == self.plan.status();
        let connection = head.one("Connection")?.unwrap_or_default().to_ascii_lowercase();
        let open = framing != Framing::Close && connection != "close" && self.keeps;
        let open = open && (!self.old || connection == "keep-alive");
        Ok(Seen::Whole { status: head.status(), right, open })
    }

    /// In what words this end is right; None where it is not.
    fn judge(&self, way: Way, seen: &Seen) -> Option<&'static str> {
        Some(match (seen, way, self.plan.fault) {
            (Seen::Left, ..) => "the client went away",
            (Seen::Refused(403), Way::Expired, _) => "an expired certificate, refused",
            (Seen::Whole { right: true, .. }, Way::Good { .. } | Way::Restarting, Fault::None) => "whole and right",
            (Seen::Whole { right: true, status: 413, .. }, _, Fault::Early) => "an early answer, delivered",
            (Seen::Refused(500) | Seen::Broken(_), Way::Restarting, Fault::None) => "a restart, told",
            (Seen::Refused(500), _, Fault::Garbage | Fault::ResetFirst | Fault::StallFirst) => "a fault, told",
            (Seen::Refused(500) | Seen::Broken(_), _, Fault::Close | Fault::Fin | Fault::Reset | Fault::Stall) => {
                "a cut, told"
            }
            _ => return None,
        })
    }
}

// --- the run

fn main() -> ExitCode {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3600);
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, soak(Duration::from_secs(seconds)))
}

async fn soak(long: Duration) -> ExitCode {
    let world = Rc::new(World::default());
    let good = acceptor(&GALLERY.identity(Case::Good).unwrap());
    let expired = acceptor(&GALLERY.identity(Case::Expired).unwrap());
    let bind = || TcpListener::bind("127.0.0.1:0");
    let (steady, restarting, refused) = (bind().await.unwrap(), bind().await.unwrap(), bind().await.unwrap());
    let [a, b, c] = [&steady, &restarting, &refused].map(|listener| listener.local_addr().unwrap());
    spawn_local(upstream(steady, good.clone(), world.clone()));
    spawn_local(upstream(refused, expired, world.clone()));
    spawn_local(restarts(restarting, b, good, world.clone()));

    let directory = support::dir();
    let bundle = directory.path().join("bundle.pem");
    std::fs::write(&bundle, GALLERY.bundle_pem(Bundle::Root)).unwrap();
    let names = [(Case::Good, a), (Case::Good, b), (Case::Expired, c)]
        .map(|(case, at)| (format!("{}:{}", case.name(), at.port()), at));
    let mut flags = vec![
        format!("--ca-bundle={}", bundle.display()),
        "--forward=127.0.0.1:0".into(),
        format!("--allow={}", names[0].0),
        "--access-log=false".into(),
        "--pool-idle-timeout=2s".into(),
        "--keep-alive-timeout=10s".into(),
    ];
    for which in ["response", "response-body", "request-body", "head"] {
        flags.push(format!("--{which}-timeout={TIMEOUT}"));
    }
    flags.extend(names.iter().map(|(name, at)| format!("--connect-to={name}={at}")));
    flags.extend(names.iter().map(|(name, _)| format!("--route=127.0.0.1:0=https://{name}")));
    let proxy = Proxy::start(&flags);
    let addresses = [0, 1, 2, 3].map(|n| proxy.addr(n));

    let pid = proxy.pid();
    let base = descriptors(pid);
    world.rests.set(true);
    for n in 0..CLIENTS {
        let (world, authority) = (world.clone(), names[0].0.clone());
        let seed = std::env::var("SOAK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1u64);
        spawn_local(Client { world, random: Random::new(seed << 32 | n as u64), addresses, authority }.sessions());
    }
    spawn_local(reloads(bundle, pid));

    let warm = (long / 10).clamp(Duration::from_secs(5), Duration::from_secs(120));
    let begun = Instant::now();
    let _ = load(&world, pid, warm).await;
    let rest_before = rest(&world, pid, base).await;
    let samples = load(&world, pid, long.saturating_sub(begun.elapsed())).await;
    let rest_after = rest(&world, pid, rest_before.descriptors).await;
    let took = begun.elapsed();
    let cpu = processor_seconds(pid);
    judge_memory(&world, &samples, rest_before, rest_after);
    if !proxy.stop().success() {
        world.found("the program does not end well".into());
    }
    report(&world, took, cpu, base, &samples, rest_before, rest_after);
    if world.findings.borrow().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An upstream that is gone for a moment every few seconds, with all its connections.
async fn restarts(listener: TcpListener, at: SocketAddr, acceptor: TlsAcceptor, world: Rc<World>) {
    let mut listener = Some(listener);
    let mut random = Random::new(7);
    loop {
        let up = match listener.take() {
            Some(listener) => listener,
            None => TcpListener::bind(at).await.expect("the same port again"),
        };
        let life = Duration::from_millis(2000 + random.below(4000) as u64);
        let _ = timeout(life, upstream(up, acceptor.clone(), world.clone())).await;
        sleep(Duration::from_millis(random.below(400) as u64)).await;
    }
}

/// Changes the bundle now and then, and says so.
async fn reloads(bundle: PathBuf, pid: u32) {
    for which in [Bundle::Plus, Bundle::Root].iter().cycle() {
        sleep(Duration::from_secs(5)).await;
        let partial = bundle.with_extension("new");
        std::fs::write(&partial, GALLERY.bundle_pem(*which)).unwrap();
        std::fs::rename(&partial, &bundle).unwrap();
        let status = std::process::Command::new("kill").arg("-HUP").arg(pid.to_string()).status();
        assert!(status.unwrap().success() || !PathBuf::from(format!("/proc/{pid}")).exists());
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    memory: u64,
    descriptors: usize,
}

/// Traffic for so long, looked at once a second.
async fn load(world: &World, pid: u32, long: Duration) -> Vec<Sample> {
    let (begun, mut samples) = (Instant::now(), Vec::new());
    world.rests.set(false);
    while begun.elapsed() < long {
        sleep(Duration::from_secs(1)).await;
        samples.push(Sample { memory: memory(pid), descriptors: descriptors(pid) });
    }
    world.rests.set(true);
    samples
}

/// Waits until nothing runs and nothing is kept, and looks then.
async fn rest(world: &World, pid: u32, base: usize) -> Sample {
    let begun = Instant::now();
    while world.running.get() > 0 || world.connections.get() > 0 || descriptors(pid) > base {
        if begun.elapsed() > PATIENCE {
            let (running, connections, open) = (world.running.get(), world.connections.get(), descriptors(pid));
            world.found(format!(
                "at rest {running} sessions run, {connections} upstream connections stand, and {open} descriptors of {base}"
            ));
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    Sample { memory: memory(pid), descriptors: descriptors(pid) }
}

fn judge_memory(world: &World, samples: &[Sample], before: Sample, after: Sample) {
    let most = |kib: u64| (kib as f64 * MOST_GROWTH) as u64 + SLACK;
    if after.memory > most(before.memory) {
        world.found(format!("memory at rest grew from {} to {} KiB", before.memory, after.memory));
    }
    let fifth = samples.len() / 5;
    let (first, last) = (middle(&samples[..fifth]), middle(&samples[samples.len() - fifth..]));
    if last > most(first) {
        world.found(format!("memory under load grew from {first} to {last} KiB"));
    }
}

fn middle(samples: &[Sample]) -> u64 {
    let mut memory: Vec<_> = samples.iter().map(|sample| sample.memory).collect();
    memory.sort_unstable();
    memory.get(memory.len() / 2).copied().unwrap_or(0)
}

fn report(world: &World, took: Duration, cpu: f64, base: usize, samples: &[Sample], before: Sample, after: Sample) {
    let ends = world.ends.borrow();
    let all: u64 = ends.values().sum();
    println!("{:>10}  requests in {} s, {:.0} each second", all, took.as_secs(), all as f64 / took.as_secs_f64());
    for (how, count) in ends.iter() {
        println!("{count:>10}  {how}");
    }
    println!("{:>10}  findings", world.findings.borrow().len());
    println!("{:>10}  MB of bodies", world.bytes.get() / 1_000_000);
    println!("{cpu:>10.0}  CPU seconds of the program");
    let fifth = samples.len() / 5;
    let (first, last) = (middle(&samples[..fifth]), middle(&samples[samples.len() - fifth..]));
    println!("{:>10}  KiB (PSS) at rest after the warm-up, {} at the end", before.memory, after.memory);
    println!("{first:>10}  KiB under load in the first fifth, {last} in the last (medians)");
    let peak = samples.iter().map(|sample| sample.descriptors).max().unwrap_or(0);
    println!("{:>10}  descriptors at the end, {base} at the start, {peak} at most", after.descriptors);
}

/// The proportional share of memory, in KiB.
fn memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("Pss:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// User and system time, at the usual 100 ticks a second.
fn processor_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
