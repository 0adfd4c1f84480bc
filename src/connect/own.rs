//! Our own ends of outbound connections whose handshake is under way.
//!
//! A rule that redirects the proxy's own connections leads them back to a listener of the proxy, and the client's
//! address there is the address that the outbound socket has. Our ClientHello is sent after the address was put down, so
//! whoever reads it finds the address here.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// The sockets of all threads.
#[derive(Clone, Debug, Default)]
pub struct OwnSockets(Arc<Mutex<HashMap<SocketAddr, Arc<AtomicBool>>>>);

/// A handshake that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct OwnHandshake {
    sockets: OwnSockets,
    local: SocketAddr,
    came_back: Arc<AtomicBool>,
}

impl OwnSockets {
    pub(super) fn begin_handshake(&self, local: SocketAddr) -> OwnHandshake {
        let (local, came_back) = (canonical(local), Arc::default());
        self.lock().insert(local, Arc::clone(&came_back));
        OwnHandshake { sockets: self.clone(), local, came_back }
    }

    /// Whether a client is this proxy itself; then the handshake ends as a loop.
    pub fn is_own(&self, client: SocketAddr) -> bool {
        let found = self.lock().get(&canonical(client)).cloned();
        found.inspect(|came_back| came_back.store(true, Ordering::Release)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Arc<AtomicBool>>> {
        // Nothing in here panics half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnHandshake {
    /// Whether a listener of this proxy met the connection.
    pub(super) fn came_back(&self) -> bool {
        self.came_back.load(Ordering::Acquire)
    }

    /// Our end.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for OwnHandshake {
    fn drop(&mut self) {
        self.sockets.lock().remove(&self.local);
    }
}

/// A client's IPv4 address comes as an IPv6 one where the listener is for both.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_known_while_it_is_under_way() {
        let sockets = OwnSockets::default();
        let local: SocketAddr = "192.0.2.1:40000".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:40000".parse().unwrap();
        assert!(!sockets.is_own(local));
        let handshake = sockets.begin_handshake(local);
        assert!(!handshake.came_back());
        assert!(!sockets.is_own("192.0.2.1:40001".parse().unwrap()));
        assert!(!handshake.came_back());
        assert!(sockets.is_own(mapped));
        assert!(handshake.came_back());
        drop(handshake);
        assert!(!sockets.is_own(local));
    }
}
