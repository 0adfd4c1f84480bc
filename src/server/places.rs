//! Places for client connections: so many at each listener, and so many in all.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// How many clients may be connected at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceLimits {
    /// In all; None for what the open files that a process may have can carry.
    pub all: Option<usize>,
    /// At each listener; None for as many as in all.
    pub listener: Option<usize>,
    /// How long a client waits for a place before it is refused.
    pub wait: Duration,
}

/// The places of one listener, among those of all.
#[derive(Clone, Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    own: Option<Arc<Semaphore>>,
    seats: Arc<Semaphore>,
    wait: Duration,
}

/// So many clients wait for a place at a time, or hear that there is none.
pub const SEATS: usize = 64;

/// A place that is taken, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _all: OwnedSemaphorePermit,
    _own: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// The places of each of so many listeners.
    pub fn of(listeners: usize, all: usize, limits: PlaceLimits) -> Vec<Self> {
        let places = |most: usize| Arc::new(Semaphore::new(most));
        let (all, seats) = (places(all), places(SEATS));
        let one =
            || Self { all: all.clone(), own: limits.listener.map(places), seats: seats.clone(), wait: limits.wait };
        std::iter::repeat_with(one).take(listeners).collect()
    }

    /// A place, if one is free.
    pub fn free(&self) -> Option<Place> {
        let own = self.own.clone().map(Semaphore::try_acquire_owned).transpose().ok()?;
        let all = self.all.clone().try_acquire_owned().ok()?;
        Some(Place { _all: all, _own: own })
    }

    /// Where to wait for a place, if that is not taken, too.
    pub fn seat(&self) -> Option<OwnedSemaphorePermit> {
        self.seats.clone().try_acquire_owned().ok()
    }

    /// A place, as soon as one is free; None after a while without.
    pub async fn wait(&self) -> Option<Place> {
        let place = async {
            let own = match self.own.clone() {
                Some(own) => Some(own.acquire_owned().await.ok()?),
                None => None,
            };
            let all = self.all.clone().acquire_owned().await.ok()?;
            Some(Place { _all: all, _own: own })
        };
        timeout(self.wait, place).await.ok()?
    }
}
