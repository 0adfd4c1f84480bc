//! The slots of one worker: each upstream's idle connections, found by the whole upstream.

use std::{borrow::Cow, cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use crate::{
    connect::pool::Slot,
    metrics::{Metrics, UpstreamHandle},
    route::upstream::Upstream,
};

use super::settings::Generation;

/// More upstreams than this are forgotten and made again; a client cannot fill memory with names.
const MOST_SLOTS: usize = 4096;

/// All slots of a worker.
#[derive(Debug)]
pub(super) struct Slots {
    by_upstream: RefCell<HashMap<Upstream, Rc<Slot>>>,
    metrics: Arc<Metrics>,
}

impl Slots {
    /// None yet.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { by_upstream: RefCell::default(), metrics }
    }

    /// The slot of an upstream.
    pub(super) fn of(&self, upstream: Cow<'_, Upstream>, generation: &Generation) -> Rc<Slot> {
        let mut slots = self.by_upstream.borrow_mut();
        if let Some(slot) = slots.get(&*upstream) {
            return slot.clone();
        }
        let upstream = upstream.into_owned();
        if slots.len() >= MOST_SLOTS {
            // One that is in use has to be there when the settings change.
            slots.retain(|_, slot| !slot.is_empty() || Rc::strong_count(slot) > 1);
        }
        let metrics = UpstreamHandle::new(self.metrics.upstream(&generation.label(&upstream)));
        let slot = Rc::new(Slot::new(upstream.clone(), generation.settings.pool, generation.number, metrics));
        slots.insert(upstream, slot.clone());
        slot
    }

    /// Replaces all slots by those of newer settings.
    pub(super) fn replace_all(&self, generation: &Generation) {
        for (upstream, slot) in self.by_upstream.take() {
            let next = generation.find_again(&upstream).map(|upstream| self.of(Cow::Owned(upstream), generation));
            let closed = slot.replace_with(next);
            if closed > 0 {
                tracing::info!(
                    event = "connections-closed",
                    %upstream,
                    closed,
                    generation = generation.number,
                    "idle connections do not pass under the new settings and are closed"
                );
            }
        }
    }

    /// Closes idle connections whose time is over.
    pub(super) fn sweep(&self) {
        for slot in self.by_upstream.borrow().values() {
            slot.sweep();
        }
    }
}
