//! Names for requests and events: short, unique, unlike the last, and no secret.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
};

use data_encoding::HEXLOWER;

use crate::message::via::Pseudonym;

/// A source of ids for one worker.
#[derive(Debug)]
pub(super) struct Ids {
    seed: RandomState,
    next: Cell<u64>,
}

impl Ids {
    /// A source that starts somewhere random.
    pub(super) fn new() -> Self {
        Self { seed: RandomState::new(), next: Cell::new(0) }
    }

    /// The next id: 16 hex digits.
    pub(super) fn next(&self) -> String {
        self.next.set(self.next.get() + 1);
        HEXLOWER.encode(&self.seed.hash_one(self.next.get()).to_be_bytes())
    }
}

/// A name for this process in Via, unlike that of any other.
pub(crate) fn pseudonym() -> Pseudonym {
    Pseudonym::of(RandomState::new().hash_one("via") as u32)
}
