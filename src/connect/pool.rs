//! The idle connections of one upstream.
//!
//! A slot belongs to one worker thread and one whole [`Upstream`]; nothing here is shared or locked.

use std::{cell::RefCell, rc::Rc, time::Duration};

use tokio::time::Instant;

use crate::{metrics::UpstreamHandle, route::upstream::Upstream, tls::client::PeerTrust};

use super::{Peer, upstream::UpstreamConnection};

/// Limits on what is kept.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// How long a connection is kept idle; less than servers allow themselves.
    pub idle: Duration,
    /// How many idle connections to one upstream are kept by one worker.
    pub most: usize,
}

/// As many idle connections are kept at least while they wait for their first request.
const MOST_UNSERVED: usize = 8;

/// An upstream and its idle connections.
#[derive(Debug)]
pub struct Slot {
    pub upstream: Upstream,
    /// `host:port`, as records have it.
    pub authority: Rc<str>,
    /// The value of its Host field.
    pub host_field: String,
    /// The generation of the settings that it is of.
    pub generation: u64,
    /// What is counted for it.
    pub metrics: UpstreamHandle,
    idle: RefCell<Vec<Idle>>,
    limits: PoolLimits,
    superseded: RefCell<Superseded>,
}

#[derive(Debug)]
struct Idle {
    connection: Box<UpstreamConnection>,
    since: Instant,
}

/// What took a slot's place when the settings changed.
#[derive(Debug)]
enum Superseded {
    /// Nothing: it is current.
    No,
    /// The upstream is gone.
    ByNothing,
    /// The same upstream under newer settings.
    By(Rc<Slot>),
}

impl Slot {
    /// A slot without connections.
    pub fn new(upstream: Upstream, limits: PoolLimits, generation: u64, metrics: UpstreamHandle) -> Self {
        let (authority, host_field) = (upstream.authority().into(), upstream.host_field());
        let (idle, superseded) = (RefCell::default(), RefCell::new(Superseded::No));
        Self { upstream, authority, host_field, generation, metrics, idle, limits, superseded }
    }

    /// The connection used last that is still good.
    pub fn take(&self) -> Option<Box<UpstreamConnection>> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if self.keeps(&mut idle) {
                return Some(idle.connection);
            }
            idle.connection.close();
        }
    }

    /// Keeps a connection for the next request, in the slot that is current.
    pub fn put(self: &Rc<Self>, connection: Box<UpstreamConnection>) {
        let Some((slot, connection)) = self.rebind(connection) else { return };
        let mut idle = slot.idle.borrow_mut();
        // One that has served nobody was opened for a request that is about to come.
        let most = if connection.has_served() { slot.limits.most } else { slot.limits.most.max(MOST_UNSERVED) };
        if idle.len() < most {
            idle.push(Idle { connection, since: Instant::now() });
        } else {
            connection.close();
        }
    }

    /// Closes what was idle too long, was closed by the other side, or relies on a certificate that has expired.
    pub fn sweep(&self) {
        let idle = self.idle.take();
        let (kept, ended): (Vec<_>, Vec<_>) =
            idle.into_iter().map(|mut idle| (self.keeps(&mut idle), idle)).partition(|(keeps, _)| *keeps);
        *self.idle.borrow_mut() = kept.into_iter().map(|(_, idle)| idle).collect();
        for (_, idle) in ended {
            idle.connection.close();
        }
    }

    /// Whether the upstream was verified for an idle connection that is still good; and if so, whether it was trusted or
    /// its refusal only reported.
    pub fn idle_trust(&self) -> Option<bool> {
        loop {
            let mut idle = self.idle.borrow_mut().pop()?;
            if self.keeps(&mut idle) {
                let is_verified = matches!(idle.connection.peer().standing, PeerTrust::Verified(_));
                self.idle.borrow_mut().push(idle);
                return Some(is_verified);
            }
            idle.connection.close();
        }
    }

    fn keeps(&self, idle: &mut Idle) -> bool {
        idle.since.elapsed() < self.limits.idle && self.can_use(&mut idle.connection)
    }

    /// Whether a kept connection is open, and its peer's certificate has not expired.
    pub fn can_use(&self, connection: &mut UpstreamConnection) -> bool {
        connection.is_quiet() && self.upstream.tls.0.now() < connection.peer().end()
    }

    /// Gives the idle connections to the slot that takes this one's place, each verified again by its settings;
    /// gives how many did not pass.
    pub fn replace_with(&self, next: Option<Rc<Self>>) -> usize {
        let mut closed = 0;
        let mut last: Option<(Rc<Peer>, Option<Rc<Peer>>)> = None;
        for mut idle in self.idle.take() {
            // Connections to one upstream mostly show one chain.
            let peer = idle.connection.peer().clone();
            let known = last.take().filter(|(before, _)| before.is_like(&peer));
            let verdict = match known {
                Some((_, verdict)) => verdict,
                None => next.as_ref().and_then(|next| peer.judged_again(&next.upstream)).map(Rc::new),
            };
            last = Some((peer, verdict.clone()));
            match (verdict, &next) {
                (Some(peer), Some(next)) => {
                    idle.connection.verified().is_now(&peer);
                    next.idle.borrow_mut().push(idle);
                }
                _ => {
                    closed += 1;
                    idle.connection.close();
                }
            }
        }
        *self.superseded.borrow_mut() = next.map_or(Superseded::ByNothing, Superseded::By);
        closed
    }

    /// The current slot for what this one was for, `None` where there is none any more.
    pub fn current(self: &Rc<Self>) -> Option<Rc<Self>> {
        match &*self.superseded.borrow() {
            Superseded::No => Some(self.clone()),
            Superseded::ByNothing => None,
            Superseded::By(next) => next.current(),
        }
    }

    /// A connection that was made for this slot, if it could be made for the current one.
    pub fn rebind(
        self: &Rc<Self>,
        mut connection: Box<UpstreamConnection>,
    ) -> Option<(Rc<Self>, Box<UpstreamConnection>)> {
        let current = self.current()?;
        if !Rc::ptr_eq(self, &current) {
            connection.verified().verify_again(&current.upstream)?;
        }
        Some((current, connection))
    }

    /// Whether no connection is kept.
    pub fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty()
    }
}
