//! Space for bytes on their way: owned by one connection at a time, and shared by the connections of a worker in
//! turn, so that one that has nothing under way holds none.

use std::{cell::RefCell, rc::Rc};

/// Bytes that are read from a socket at a time. More are read hardly any faster, and a peer that stops reading makes
/// the proxy keep as many.
pub const PIECE: usize = 64 * 1024;

/// A piece, and what it may grow by: a head in front of it, or the overhead of its TLS records.
const SPACE: usize = PIECE + 4 * 1024;

/// As much free space is kept for the next connection; more is given back to the system.
const MOST_FREE: usize = 8;

/// Free space of one worker.
#[derive(Clone, Debug, Default)]
pub struct BufferPool(Rc<RefCell<Vec<Vec<u8>>>>);

impl BufferPool {
    /// Empty space for at least a piece.
    pub fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(SPACE))
    }

    /// Gives space back. What is in it is forgotten: a later owner can reach only what it wrote itself.
    pub fn give(&self, mut space: Vec<u8>) {
        space.clear();
        let mut free = self.0.borrow_mut();
        if (SPACE..2 * SPACE).contains(&space.capacity()) && free.len() < MOST_FREE {
            free.push(space);
        }
    }
}

/// Bytes that are appended behind and taken from the front. It holds pooled space while it is not empty.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    taken: usize,
    pool: BufferPool,
}

impl Buffer {
    /// An empty one.
    pub fn new(pool: BufferPool) -> Self {
        Self { bytes: Vec::new(), taken: 0, pool }
    }

    /// What is in it.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// How much is in it.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes bytes from the front.
    pub fn consume(&mut self, count: usize) {
        self.taken += count.min(self.len());
        if self.is_empty() {
            self.release();
        }
    }

    /// The space behind what is in it; [`Self::settle`] has to follow.
    pub fn space(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = self.pool.take();
        } else if self.taken > 0 && self.bytes.capacity() - self.bytes.len() < self.taken {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        &mut self.bytes
    }

    /// Gives the space back where nothing was put into it.
    pub fn settle(&mut self) {
        if self.is_empty() {
            self.release();
        }
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.space().extend_from_slice(bytes);
        }
    }

    /// Replaces everything by what `bytes` holds, whose space it takes over.
    pub fn replace(&mut self, bytes: Vec<u8>) {
        self.release();
        self.bytes = bytes;
    }

    /// All of it, with its space.
    pub fn take_all(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..std::mem::take(&mut self.taken));
        bytes
    }

    fn release(&mut self) {
        self.taken = 0;
        if self.bytes.capacity() > 0 {
            self.pool.give(std::mem::take(&mut self.bytes));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_held_while_there_is_something_in_it() {
        let pool = BufferPool::default();
        let mut buffer = Buffer::new(pool.clone());
        buffer.extend_from_slice(b"abc");
        buffer.consume(1);
        buffer.extend_from_slice(b"d");
        assert_eq!(buffer.as_slice(), b"bcd");
        assert_eq!(pool.0.borrow().len(), 0);
        buffer.consume(3);
        assert_eq!(pool.0.borrow().len(), 1);
        buffer.space();
        buffer.settle();
        assert_eq!(pool.0.borrow().len(), 1);
    }

    #[test]
    fn a_later_owner_finds_nothing_of_an_earlier_one() {
        let pool = BufferPool::default();
        let mut first = Buffer::new(pool.clone());
        first.extend_from_slice(b"secret");
        drop(first);
        let mut second = Buffer::new(pool);
        assert!(second.space().is_empty());
        second.extend_from_slice(b"x");
        assert_eq!(second.as_slice(), b"x");
    }

    #[test]
    fn bytes_taken_from_the_front_make_room_behind() {
        let mut buffer = Buffer::new(BufferPool::default());
        buffer.extend_from_slice(&[1; PIECE]);
        buffer.consume(PIECE - 1);
        for _ in 0..3 {
            buffer.extend_from_slice(&[2; PIECE / 2]);
            buffer.consume(PIECE / 2);
        }
        assert_eq!(buffer.as_slice(), [2]);
        assert!(buffer.bytes.capacity() < 2 * SPACE);
    }
}
