//! The doors outward: every outbound socket is opened here, and only verified ones leave.

pub mod dial;
pub mod error;
pub mod pool;
pub mod resolve;
mod verified;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{message::authority::Host, route::upstream::Upstream};

use self::{dial::dial, error::ConnectError, resolve::Resolver};

pub use self::verified::{Peer, Verified, refused_late};

/// Time-outs on the way out.
#[derive(Clone, Copy, Debug)]
pub struct ConnectLimits {
    /// For name resolution and TCP together, over all addresses.
    pub connect: Duration,
    /// For the TLS handshake.
    pub handshake: Duration,
}

/// Opens verified connections; one for each worker thread.
#[derive(Debug)]
pub struct Connector {
    resolver: Resolver,
    limits: ConnectLimits,
    /// Our own listeners: to dial one of them would be a loop.
    own: Arc<[SocketAddr]>,
}

impl Connector {
    /// A connector of the calling thread's runtime.
    pub fn new(limits: ConnectLimits, own: Arc<[SocketAddr]>) -> Self {
        Self { resolver: Resolver::new(), limits, own }
    }

    /// Resolves, dials, and shakes hands: what comes back was verified.
    ///
    /// # Errors
    /// [`ConnectError`], with the evidence where the peer was refused.
    pub async fn connect(&self, upstream: &Upstream) -> Result<Verified, ConnectError> {
        let deadline = Instant::now() + self.limits.connect;
        let addresses = self.addresses(upstream, deadline).await?;
        let (tcp, address) = dial(&addresses, deadline, self.limits.connect).await?;
        if tcp.local_addr().is_ok_and(|local| local.ip() == address.ip()) && self.listens_everywhere(address.port()) {
            return Err(ConnectError::Loop { address });
        }
        let deadline = Instant::now() + self.limits.handshake;
        verified::handshake(tcp, address, upstream, deadline, self.limits.handshake).await
    }

    async fn addresses(&self, upstream: &Upstream, deadline: Instant) -> Result<Vec<SocketAddr>, ConnectError> {
        let ips = match &upstream.dial_host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => match timeout_at(deadline, self.resolver.lookup(name)).await {
                Ok(answer) => answer?,
                Err(_) => return Err(ConnectError::DnsTimeout { name: name.clone(), after: self.limits.connect }),
            },
        };
        let all: Vec<_> = ips.into_iter().map(|ip| SocketAddr::new(ip, upstream.dial_port)).collect();
        let permitted: Vec<_> = all.iter().copied().filter(|to| upstream.addresses.permits(to.ip())).collect();
        if permitted.is_empty() {
            return Err(ConnectError::AddressDenied { addresses: all });
        }
        if let Some(own) = permitted.iter().find(|address| self.is_own(**address)) {
            return Err(ConnectError::Loop { address: *own });
        }
        Ok(permitted)
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        self.own.iter().any(|own| SocketAddr::new(own.ip().to_canonical(), own.port()) == address)
    }

    /// Whether a listener on all addresses has this port; whether an address is this host's own shows only
    /// when a connection stands.
    fn listens_everywhere(&self, port: u16) -> bool {
        self.own.iter().any(|own| own.ip().is_unspecified() && own.port() == port)
    }
}
