//! What a request's way may say to the connection that it came by: end it by a reset, read on before the
//! end, say something before the answer, become a tunnel; and where that connection stands, for its time-outs.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
    task::{Poll, Waker},
};

use tokio::{net::TcpStream, time::Instant};

use crate::connect::Wire;

use super::tunnel::Tunnel;

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

/// What follows an answer that ends HTTP on a connection.
#[derive(Debug)]
pub enum After {
    /// HTTP again, inside CONNECT.
    Inside,
    /// Another protocol, to the upstream that agreed to it.
    Tunnel(Box<Tunnel>),
}

#[derive(Debug)]
struct State {
    address: SocketAddr,
    /// The connection's own; it may be gone while a record of its last request is still written.
    socket: Weak<TcpStream>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    reset: Cell<bool>,
    linger: Cell<bool>,
    last: Cell<bool>,
    after: RefCell<Option<After>>,
    /// Requests that were read.
    requests: Cell<u64>,
    /// Which requests have a target `http://host` without a path, which the URI does not tell from `http://host/`.
    bare: RefCell<VecDeque<u64>>,
    /// An answer was handed to hyper and is not all on the wire yet.
    owed: Cell<bool>,
    /// Of what was read, the last is the beginning of a head.
    partial: Cell<bool>,
    /// It closes.
    ending: Cell<bool>,
    /// hyper's part ends, and the connection does not.
    open: Cell<bool>,
    /// hyper has an answer whose body may give more.
    answering: Cell<bool>,
    /// Who waits for the wire to be free of answers.
    waits: RefCell<Option<Waker>>,
    /// When the client last stopped reading; None while it reads.
    blocked: Cell<Option<Instant>>,
    /// Where what it reads comes from.
    source: RefCell<Option<Rc<Wire>>>,
}

/// What a request's way may say to its client's connection, and what the connection says of itself.
#[derive(Clone, Debug)]
pub struct ClientHandle(Rc<State>);

impl ClientHandle {
    /// A connection that was just accepted.
    pub fn new(address: SocketAddr, socket: Weak<TcpStream>) -> Self {
        Self(Rc::new(State {
            address,
            socket,
            phase: Cell::new(Phase::New),
            since: Cell::new(Instant::now()),
            reset: Cell::new(false),
            linger: Cell::new(false),
            last: Cell::new(false),
            after: RefCell::new(None),
            requests: Cell::new(0),
            bare: RefCell::default(),
            owed: Cell::new(false),
            partial: Cell::new(false),
            ending: Cell::new(false),
            open: Cell::new(false),
            answering: Cell::new(false),
            waits: RefCell::new(None),
            blocked: Cell::new(None),
            source: RefCell::new(None),
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

    /// Whether to read and discard before the end: else what still comes from the client would make its answer
    /// end by RST, and be lost where it was not read yet.
    pub fn linger(&self, linger: bool) {
        self.0.linger.set(linger);
        self.0.last.set(false);
    }

    /// Whether to read and discard before the end.
    pub fn lingers(&self) -> bool {
        self.0.linger.get()
    }

    /// Whether its client said that nothing comes behind the request that was read.
    pub fn is_last(&self) -> bool {
        self.0.last.get()
    }

    /// After this answer the connection is something else.
    pub fn goes_on(&self, after: After) {
        *self.0.after.borrow_mut() = Some(after);
    }

    /// What it became; asked once.
    pub fn take_after(&self) -> Option<After> {
        self.0.after.borrow_mut().take()
    }

    /// These requests, counted from 1, have targets without any path; more may have come than were read.
    pub fn bare_targets(&self, nth: Vec<u64>) {
        self.0.bare.borrow_mut().extend(nth);
    }

    /// Whether the target of the request that was read last has no path at all.
    pub fn has_bare_target(&self) -> bool {
        let (read, mut bare) = (self.0.requests.get(), self.0.bare.borrow_mut());
        while bare.pop_front_if(|nth| *nth < read).is_some() {}
        bare.front() == Some(&read)
    }

    /// The first bytes of a request came.
    pub fn head_begins(&self) {
        self.enter(Phase::Head);
    }

    /// Whether what was read last is the beginning of a head.
    pub fn begins_head(&self, begins: bool) {
        self.0.partial.set(begins);
    }

    /// It closes, which has limits of its own.
    pub fn ends(&self) {
        self.0.ending.set(true);
    }

    /// Whether it closes.
    pub fn is_ending(&self) -> bool {
        self.0.ending.get()
    }

    /// Whether hyper's end is to be the connection's.
    pub fn keep_open(&self, open: bool) {
        self.0.open.set(open);
    }

    /// Whether it goes on when hyper ends it.
    pub fn is_kept_open(&self) -> bool {
        self.0.open.get()
    }

    /// A request was read. Its exchange lasts until the last clone of what comes back is dropped. More may be on its
    /// way behind it, also where the connection ends with the answer, unless the client said that it is the `last` and
    /// all of it is here.
    pub fn exchange(&self, last: bool) -> Rc<Exchange> {
        self.enter(Phase::Exchange);
        self.linger(true);
        self.0.last.set(last);
        self.0.requests.set(self.0.requests.get() + 1);
        Rc::new(Exchange(self.clone()))
    }

    /// An answer goes to hyper.
    pub fn answer_owed(&self) {
        self.0.owed.set(true);
        self.0.answering.set(true);
    }

    /// hyper has all of the answer.
    pub fn answer_given(&self) {
        self.0.answering.set(false);
    }

    /// All that hyper had is on the wire.
    pub fn flushed(&self) {
        if self.0.owed.get() && !self.0.answering.get() {
            self.0.owed.set(false);
            if let Some(waiting) = self.0.waits.take() {
                waiting.wake();
            }
        }
    }

    /// Whether an answer is on its way to the wire.
    pub fn owes_answer(&self) -> bool {
        self.0.owed.get()
    }

    /// Says something before the answer (RFC 9110 section 15.2), and after all of the answer before. hyper's server
    /// has no way to do so.
    ///
    /// # Errors
    /// The socket's: the client is gone.
    pub async fn say_first(&self, mut bytes: &[u8]) -> io::Result<()> {
        poll_fn(|cx| {
            if !self.owes_answer() {
                return Poll::Ready(());
            }
            *self.0.waits.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        let Some(socket) = self.0.socket.upgrade() else { return Ok(()) };
        while !bytes.is_empty() {
            match socket.try_write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.reads(false);
                    let writable = socket.writable().await;
                    self.reads(true);
                    writable?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The client reads, or stopped to.
    pub fn reads(&self, reads: bool) {
        if reads == self.0.blocked.get().is_none() {
            return;
        }
        self.0.blocked.set((!reads).then(Instant::now));
        if let Some(source) = &*self.0.source.borrow() {
            // What the client does not take is left to the upstream.
            source.hold(!reads);
        }
    }

    /// What it reads from now on comes from there.
    pub fn reads_from(&self, source: Option<Rc<Wire>>) {
        if let Some(source) = &source {
            source.hold(self.blocked_since().is_some());
        }
        if let Some(before) = self.0.source.replace(source) {
            before.hold(false);
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

impl Exchange {
    /// Whose it is.
    pub fn client(&self) -> &ClientHandle {
        &self.0
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // The next head may have begun behind this request.
        let partial = self.0.0.partial.get();
        self.0.enter(if partial { Phase::Head } else { Phase::Idle });
    }
}
