//! How many clients may be connected: in all, and to each listener. Further ones wait in a queue that is limited too.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How many clients may be connected at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// In all; `None` for what the open files that a process may have can carry.
    pub all: Option<usize>,
    /// To each listener; `None` for as many as in all.
    pub listener: Option<usize>,
    /// How long a client waits before it is refused.
    pub wait: Duration,
}

/// The limits of one listener, among those of all.
#[derive(Clone, Debug)]
pub struct ConnectionLimiter {
    all: Arc<Semaphore>,
    own: Option<Arc<Semaphore>>,
    queue: Arc<Semaphore>,
    wait: Duration,
}

/// So many clients wait at a time, or are told that there are too many.
pub const WAIT_QUEUE: usize = 64;

/// Lets one client be connected until it is dropped.
#[derive(Debug)]
pub struct Permit {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

impl ConnectionLimiter {
    /// One for each of so many listeners.
    pub fn for_listeners(listeners: usize, all: usize, limits: ConnectionLimits) -> Vec<Self> {
        let permits = |most: usize| Arc::new(Semaphore::new(most));
        let (all, queue) = (permits(all), permits(WAIT_QUEUE));
        let one =
            || Self { all: all.clone(), own: limits.listener.map(permits), queue: queue.clone(), wait: limits.wait };
        std::iter::repeat_with(one).take(listeners).collect()
    }

    /// A permit, if one is free.
    pub fn try_acquire(&self) -> Option<Permit> {
        let own = self.own.clone().map(Semaphore::try_acquire_owned).transpose().ok()?;
        let all = self.all.clone().try_acquire_owned().ok()?;
        Some(Permit { _all: all, _own: own })
    }

    /// A place in the queue, if one is free.
    pub fn queue(&self) -> Option<OwnedSemaphorePermit> {
        self.queue.clone().try_acquire_owned().ok()
    }

    /// A permit, as soon as one is free; `None` after a while without.
    pub async fn acquire(&self) -> Option<Permit> {
        let permit = async {
            let own = match self.own.clone() {
                Some(own) => Some(own.acquire_owned().await.ok()?),
                None => None,
            };
            let all = self.all.clone().acquire_owned().await.ok()?;
            Some(Permit { _all: all, _own: own })
        };
        timeout(self.wait, permit).await.ok()?
    }
}
