//! A relay between the proxy and a TLS origin, below TLS: it passes bytes on until it is to break something.
//!
//! What happens to a connection is said before it comes ([`Plan`], by the connection's number) or while it
//! stands ([`Relay::arm`]). Positions are counted in bytes of TCP, so a test measures first how far an exchange
//! comes, and then breaks it there.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{Notify, watch},
    task::AbortHandle,
    time::timeout,
};

use super::proxy::PATIENCE;

/// What is done to a connection.
#[derive(Clone, Debug)]
pub enum Fault {
    /// FIN towards the proxy, and nothing passes any more in either direction.
    Fin,
    /// One bit of the next byte is the other way round.
    Flip,
    /// FIN to the side that the bytes go to; the other direction goes on.
    HalfClose,
    /// Nothing more passes in this direction until the test says so; then everything does.
    Hold(Arc<Notify>),
    /// RST to both sides.
    Reset,
    /// Nothing more passes in this direction.
    Stall,
}

/// The side that bytes go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// From the proxy to the origin.
    Origin,
    /// From the origin to the proxy.
    Proxy,
}

/// What is done to a connection that is to come.
#[derive(Clone, Debug)]
pub enum Plan {
    /// After so many bytes to that side.
    Break(To, u64, Fault),
    /// It is accepted, and nobody reads or writes.
    Hang,
    /// Nothing.
    Pass,
    /// Each byte goes by itself.
    Slices,
}

/// A running relay.
pub struct Relay {
    /// Where the proxy finds it.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    door: Door,
    /// A client that fills the queue of a black hole.
    held: Option<TcpStream>,
}

enum Door {
    /// It has the port, and whoever comes is refused or waits.
    Shut(Socket),
    Open(AbortHandle),
}

struct Shared {
    origin: SocketAddr,
    plan: Box<dyn Fn(usize) -> Plan + Send + Sync>,
    lines: Mutex<Vec<Arc<Line>>>,
    changed: Notify,
}

/// One connection.
struct Line {
    to_origin: Way,
    to_proxy: Way,
    sliced: bool,
    /// One direction has ended.
    half: Notify,
    over: watch::Sender<bool>,
}

/// One direction of it.
#[derive(Default)]
struct Way {
    state: Mutex<WayState>,
    armed: Notify,
}

#[derive(Default)]
struct WayState {
    passed: u64,
    fault: Option<(u64, Fault)>,
}

impl Relay {
    /// A relay to an origin; the plan is asked for each connection, counted from 0.
    pub async fn start(origin: SocketAddr, plan: impl Fn(usize) -> Plan + Send + Sync + 'static) -> Self {
        let mut relay = Self::shut(origin, plan);
        relay.open();
        relay
    }

    /// The same, refusing whoever comes until it is opened.
    pub fn shut(origin: SocketAddr, plan: impl Fn(usize) -> Plan + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), origin, plan).expect("a free port")
    }

    /// The same at an address of the test's choice.
    pub fn at(
        address: SocketAddr,
        origin: SocketAddr,
        plan: impl Fn(usize) -> Plan + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let socket = bound(address)?;
        let address = socket.local_addr()?.as_socket().expect("an address of IP");
        let shared = Shared { origin, plan: Box::new(plan), lines: Mutex::default(), changed: Notify::new() };
        Ok(Self { address, shared: Arc::new(shared), door: Door::Shut(socket), held: None })
    }

    /// From now on whoever comes hears nothing, not even a refusal, until it is opened: its queue has one place,
    /// which is taken, and the kernel drops what does not fit.
    pub async fn swallow(&mut self) {
        let Door::Shut(socket) = &self.door else { panic!("it is open") };
        socket.listen(0).unwrap();
        self.held = Some(TcpStream::connect(self.address).await.unwrap());
    }

    /// Takes connections from now on.
    pub fn open(&mut self) {
        let Door::Shut(socket) = &self.door else { panic!("it is open") };
        socket.listen(1024).unwrap();
        // What was held in the queue comes first, and is at its end.
        let held = self.held.take().is_some();
        let listener = TcpListener::from_std(socket.try_clone().unwrap().into()).unwrap();
        let shared = self.shared.clone();
        let task = tokio::spawn(async move {
            if held {
                drop(listener.accept().await);
            }
            while let Ok((proxy, _)) = listener.accept().await {
                shared.take(proxy);
            }
        });
        self.door = Door::Open(task.abort_handle());
    }

    /// Ends all connections by RST, and refuses whoever comes until it is opened again.
    pub async fn close(&mut self) {
        let Door::Open(task) = &self.door else { panic!("it is not open") };
        task.abort();
        // The listener goes with its task, which takes the runtime a moment.
        let shut = async {
            loop {
                match bound(self.address) {
                    Ok(socket) => return socket,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        self.door = Door::Shut(timeout(PATIENCE, shut).await.expect("the port is free again"));
        self.arm(To::Proxy, 0, &Fault::Reset);
        self.rest().await;
    }

    /// Breaks every connection that stands after so many more bytes to that side; with 0, at once.
    pub fn arm(&self, to: To, after: u64, fault: &Fault) {
        for line in self.standing() {
            line.way(to).arm(after, fault.clone());
        }
    }

    /// How many connections came.
    pub fn connections(&self) -> usize {
        self.shared.lines.lock().unwrap().len()
    }

    /// How many bytes passed to that side on the n-th connection.
    pub fn passed(&self, n: usize, to: To) -> u64 {
        let line = self.shared.lines.lock().unwrap()[n].clone();
        line.way(to).state.lock().unwrap().passed
    }

    /// Waits until so many bytes passed to that side on the n-th connection.
    pub async fn has_passed(&self, n: usize, to: To, bytes: u64) {
        self.until("bytes", || self.connections() > n && self.passed(n, to) >= bytes).await;
    }

    /// Waits until no connection stands.
    pub async fn rest(&self) {
        self.until("the end of all connections", || self.standing().is_empty()).await;
    }

    fn standing(&self) -> Vec<Arc<Line>> {
        let lines = self.shared.lines.lock().unwrap();
        lines.iter().filter(|line| !*line.over.borrow()).cloned().collect()
    }

    async fn until(&self, what: &str, ready: impl Fn() -> bool) {
        let wait = async {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                changed.as_mut().enable();
                if ready() {
                    return;
                }
                changed.await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("the relay waits for {what}"));
    }
}

/// A socket that has its port, so that nobody else gets it, and refuses whoever comes.
fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

impl Shared {
    fn take(self: &Arc<Self>, proxy: TcpStream) {
        let mut lines = self.lines.lock().unwrap();
        let plan = (self.plan)(lines.len());
        let sliced = matches!(plan, Plan::Slices);
        let (to_origin, to_proxy) = (Way::default(), Way::default());
        let line = Line { to_origin, to_proxy, sliced, half: Notify::new(), over: watch::channel(false).0 };
        let line = Arc::new(line);
        if let Plan::Break(to, at, fault) = &plan {
            line.way(*to).arm(*at, fault.clone());
        }
        lines.push(line.clone());
        drop(lines);
        let shared = self.clone();
        tokio::spawn(async move {
            if matches!(plan, Plan::Hang) {
                hang(proxy).await;
            } else if let Ok(origin) = TcpStream::connect(shared.origin).await {
                line.run(proxy, origin, &shared.changed).await;
            }
            line.over.send_replace(true);
            shared.changed.notify_waiters();
        });
    }
}

/// How one direction ended.
enum End {
    /// Its sender ended it, or it was made to look so; the other direction may go on.
    Closed,
    /// The whole connection is to end so.
    Cut { reset: bool },
}

impl Line {
    fn way(&self, to: To) -> &Way {
        match to {
            To::Origin => &self.to_origin,
            To::Proxy => &self.to_proxy,
        }
    }

    async fn run(&self, mut proxy: TcpStream, mut origin: TcpStream, changed: &Notify) {
        for socket in [&proxy, &origin] {
            socket.set_nodelay(true).unwrap();
        }
        let cut = {
            let (from_proxy, to_proxy) = proxy.split();
            let (from_origin, to_origin) = origin.split();
            let up = self.pump(&self.to_origin, from_proxy, to_origin, changed);
            let down = self.pump(&self.to_proxy, from_origin, to_proxy, changed);
            let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
            let first = tokio::select! {
                end = &mut up => (end, To::Origin),
                end = &mut down => (end, To::Proxy),
            };
            self.half.notify_one();
            match first {
                (End::Cut { reset }, _) => Some(reset),
                (End::Closed, To::Origin) => down.await.cut(),
                (End::Closed, To::Proxy) => up.await.cut(),
            }
        };
        match cut {
            Some(true) => {
                for socket in [&proxy, &origin] {
                    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
                }
            }
            Some(false) => {
                drop(origin);
                // To close with something unread would be a reset.
                let _ = proxy.shutdown().await;
                let mut rest = [0; 4096];
                while matches!(proxy.read(&mut rest).await, Ok(1..)) {}
            }
            None => {}
        }
    }

    async fn pump(&self, way: &Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, changed: &Notify) -> End {
        let mut space = [0; 16 * 1024];
        let mut flip = false;
        loop {
            let (fault, left) = way.next();
            match fault {
                None => {}
                Some(Fault::Fin) => return End::Cut { reset: false },
                Some(Fault::Reset) => return End::Cut { reset: true },
                Some(Fault::Flip) => {
                    flip = true;
                    continue;
                }
                Some(Fault::HalfClose) => {
                    let _ = to.shutdown().await;
                    while matches!(from.read(&mut space).await, Ok(1..)) {}
                    return End::Closed;
                }
                Some(Fault::Hold(gate)) => {
                    tokio::select! {
                        () = gate.notified() => continue,
                        end = self.forsaken(&from) => return end,
                    }
                }
                Some(Fault::Stall) => return self.forsaken(&from).await,
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(space.len());
            let read = tokio::select! {
                biased;
                () = way.armed.notified() => continue,
                read = from.read(&mut space[..most]) => read,
            };
            let count = match read {
                Ok(0) => {
                    let _ = to.shutdown().await;
                    return End::Closed;
                }
                Ok(count) => count,
                Err(_) => return End::Cut { reset: true },
            };
            // Before anybody can have seen them, so that a test which has arms behind them.
            way.state.lock().unwrap().passed += count as u64;
            if std::mem::take(&mut flip) {
                space[0] ^= 1;
            }
            for part in space[..count].chunks(if self.sliced { 1 } else { count }) {
                if to.write_all(part).await.is_err() {
                    return End::Cut { reset: true };
                }
            }
            changed.notify_waiters();
        }
    }

    /// The end of a direction in which nothing moves: the other one ended, or the sender was reset.
    async fn forsaken(&self, from: &ReadHalf<'_>) -> End {
        tokio::select! {
            () = self.half.notified() => End::Closed,
            _ = from.ready(Interest::ERROR) => End::Cut { reset: true },
        }
    }
}

/// Until the proxy leaves.
async fn hang(mut proxy: TcpStream) {
    let mut space = [0; 4096];
    while matches!(proxy.read(&mut space).await, Ok(1..)) {}
}

impl End {
    fn cut(self) -> Option<bool> {
        match self {
            Self::Closed => None,
            Self::Cut { reset } => Some(reset),
        }
    }
}

impl Way {
    fn arm(&self, after: u64, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.fault = Some((state.passed + after, fault));
        self.armed.notify_one();
    }

    /// The fault, if it is due; else how many bytes may pass before one is.
    fn next(&self) -> (Option<Fault>, u64) {
        let mut state = self.state.lock().unwrap();
        let left = state.fault.as_ref().map_or(u64::MAX, |(at, _)| at.saturating_sub(state.passed));
        let due = if left == 0 { state.fault.take() } else { None };
        (due.map(|(_, fault)| fault), left)
    }
}
