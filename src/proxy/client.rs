//! What a request's way may say to the connection that it came by: end it by a reset, read on before the
//! end, become a tunnel; and where that connection stands, for its time-outs.

use std::{cell::Cell, net::SocketAddr, rc::Rc};

use tokio::time::Instant;

/// Where a client connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A request is being answered.
    Exchange,
    /// A head has begun to arrive.
    Head,
    /// Between requests.
    Idle,
    /// Accepted; nothing came yet.
    New,
}

#[derive(Debug)]
struct State {
    address: SocketAddr,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    reset: Cell<bool>,
    linger: Cell<bool>,
    tunnel: Cell<bool>,
    /// An answer was handed to hyper and is not all on the wire yet.
    owed: Cell<bool>,
    /// When the client last stopped reading; None while it reads.
    blocked: Cell<Option<Instant>>,
}

/// What a request's way may say to its client's connection, and what the connection says of itself.
#[derive(Clone, Debug)]
pub struct ClientHandle(Rc<State>);

impl ClientHandle {
    /// A connection that was just accepted.
    pub fn new(address: SocketAddr) -> Self {
        Self(Rc::new(State {
            address,
            phase: Cell::new(Phase::New),
            since: Cell::new(Instant::now()),
            reset: Cell::new(false),
            linger: Cell::new(false),
            tunnel: Cell::new(false),
            owed: Cell::new(false),
            blocked: Cell::new(None),
        }))
    }

    /// The client's address.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// End it by RST.
    pub fn reset(&self) {
        self.0.reset.set(true);
    }

    /// Whether it is to end by RST.
    pub fn is_reset(&self) -> bool {
        self.0.reset.get()
    }

    /// Read and discard before the end.
    pub fn linger(&self) {
        self.0.linger.set(true);
    }

    /// Whether to read and discard before the end.
    pub fn lingers(&self) -> bool {
        self.0.linger.get()
    }

    /// After this answer the connection is a tunnel.
    pub fn tunnel(&self) {
        self.0.tunnel.set(true);
    }

    /// Whether it became a tunnel; asked once.
    pub fn take_tunnel(&self) -> bool {
        self.0.tunnel.take()
    }

    /// The first bytes of a request came.
    pub fn head_begins(&self) {
        self.enter(Phase::Head);
    }

    /// A request was read. Its exchange lasts until the last clone of what comes back is dropped.
    pub fn exchange(&self) -> Rc<Exchange> {
        self.enter(Phase::Exchange);
        Rc::new(Exchange(self.clone()))
    }

    /// An answer goes to hyper.
    pub fn answer_owed(&self) {
        self.0.owed.set(true);
    }

    /// All that hyper had is on the wire.
    pub fn answer_paid(&self) {
        self.0.owed.set(false);
    }

    /// Whether an answer is on its way to the wire.
    pub fn owes_answer(&self) -> bool {
        self.0.owed.get()
    }

    /// The client reads, or stopped to.
    pub fn reads(&self, reads: bool) {
        match (reads, self.0.blocked.get()) {
            (true, _) => self.0.blocked.set(None),
            (false, None) => self.0.blocked.set(Some(Instant::now())),
            (false, Some(_)) => {}
        }
    }

    /// Since when the client does not read what waits for it.
    pub fn blocked_since(&self) -> Option<Instant> {
        self.0.blocked.get()
    }

    /// Where it stands, and since when.
    pub fn phase(&self) -> (Phase, Instant) {
        (self.0.phase.get(), self.0.since.get())
    }

    fn enter(&self, phase: Phase) {
        self.0.phase.set(phase);
        self.0.since.set(Instant::now());
    }
}

/// A request and its answer, for as long as either body may still move.
#[derive(Debug)]
pub struct Exchange(ClientHandle);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
    }
}
