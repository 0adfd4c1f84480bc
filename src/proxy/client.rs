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
}

/// What a request's way may say to its client's connection.
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

    /// Read and discard before the end.
    pub fn linger(&self) {
        self.0.linger.set(true);
    }

    /// After this answer the connection is a tunnel.
    pub fn tunnel(&self) {
        self.0.tunnel.set(true);
    }

    /// Whether it became a tunnel; asked once.
    pub fn take_tunnel(&self) -> bool {
        self.0.tunnel.take()
    }

    /// A request was read.
    pub fn exchange_begins(&self) {
        self.enter(Phase::Exchange);
    }

    /// Its answer was handed over.
    pub fn exchange_over(&self) {
        self.enter(Phase::Idle);
    }

    /// The first bytes of a request came.
    pub fn head_begins(&self) {
        self.enter(Phase::Head);
    }

    /// Whether it is to end by RST.
    pub fn is_reset(&self) -> bool {
        self.0.reset.get()
    }

    /// Whether to read and discard before the end.
    pub fn lingers(&self) -> bool {
        self.0.linger.get()
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
