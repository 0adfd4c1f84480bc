//! The doors outward: every outbound socket is opened here, and only verified ones leave.

mod carrier;
pub mod dial;
pub mod error;
mod own;
mod peer;
pub mod pool;
pub mod resolve;
mod stream;
mod tunnel;
pub mod upstream;
mod verified;

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};

use crate::{
    buffer::BufferPool,
    message::authority::Host,
    route::{parent::ParentProxy, policy::AddressRule, upstream::Upstream},
    tls::failure::{HandshakeFailure, Occasion},
};

use self::{
    carrier::Carrier,
    dial::dial,
    error::{ConnectError, ParentCause, ParentFailure},
    resolve::Resolver,
};

pub use self::{
    own::OwnSockets,
    peer::{ClientAuth, Peer, Via},
    verified::Verified,
};

/// Time-outs on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectLimits {
    /// For name resolution and TCP together, over all addresses; and for a parent proxy's answer to CONNECT.
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
    sockets: OwnSockets,
    refused: RefCell<Refused>,
    buffers: BufferPool,
}

/// Verdicts of a moment ago, each with the addresses that the upstream had.
type Refused = HashMap<Upstream, (Instant, Vec<SocketAddr>, Rc<HandshakeFailure>)>;

/// For how long a verdict on an upstream holds, while its name leads to the same addresses, so that a storm of repeated requests is none of handshakes.
const REMEMBERED: Duration = Duration::from_secs(1);

/// More refusals than this are not remembered at a time.
const MOST_REMEMBERED: usize = 1024;

impl Connector {
    /// A connector of the calling thread's runtime.
    /// `own`: our own listeners that connecting from here would lead to.
    pub fn new(limits: ConnectLimits, own: Arc<[SocketAddr]>, sockets: OwnSockets) -> Self {
        let (refused, buffers) = (RefCell::default(), BufferPool::default());
        Self { resolver: Resolver::new(), limits, own, sockets, refused, buffers }
    }

    /// Space for bytes on their way, for all connections of this thread.
    pub fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// Our own sockets whose handshake is under way, in any thread.
    pub fn own_sockets(&self) -> &OwnSockets {
        &self.sockets
    }

    /// Resolves, dials, and shakes hands: what comes back was verified. Through a parent proxy all of that is done with
    /// the parent, which is then asked for a tunnel.
    ///
    /// # Errors
    /// [`ConnectError`], with the evidence where the peer was refused.
    pub async fn connect(&self, upstream: &Upstream) -> Result<Verified, ConnectError> {
        let deadline = Instant::now() + self.limits.connect;
        let endpoint = Endpoint::of(upstream);
        let addresses = self.addresses(&endpoint).await.map_err(|error| endpoint.unreachable(error))?;
        if let Some(failure) = self.remembered(upstream, &addresses) {
            return Err(ConnectError::Handshake(failure));
        }
        if let Some(parent) = &upstream.parent {
            self.permit_tunnel(parent, upstream, &addresses)?;
        }
        let dialled = dial(&addresses, deadline, self.limits.connect).await;
        let (tcp, address) = dialled.map_err(|error| endpoint.unreachable(error))?;
        let local = tcp.local_addr().ok();
        if is_loop(&self.own, address, local.map(|local| local.ip())) {
            return Err(ConnectError::Loop { address });
        }
        let handshake = local.map(|local| self.sockets.begin_handshake(local));
        let carrier = match &upstream.parent {
            None => Ok(Carrier::Tcp(tcp)),
            Some(parent) => Box::pin(self.tunnel(tcp, address, &addresses, parent, upstream)).await,
        };
        let end = match carrier {
            Ok(carrier) => {
                let buffers = self.buffers.clone();
                let end = verified::handshake(carrier, address, upstream, self.limits.handshake, buffers).await;
                end.map_err(ConnectError::Handshake)
            }
            Err(error) => Err(error),
        };
        if let Some(from) = handshake.filter(|own| own.came_back()).map(|own| own.local()) {
            return Err(ConnectError::CameBack { address, from });
        }
        if let Err(ConnectError::Handshake(failure)) = &end {
            self.remember(upstream, &addresses, failure);
        }
        end
    }

    /// What is known to be refused before the parent is dialled: an address, a loop, its certificate of a moment ago.
    fn permit_tunnel(
        &self,
        parent: &ParentProxy,
        upstream: &Upstream,
        addresses: &[SocketAddr],
    ) -> Result<(), ConnectError> {
        if let Host::Ip(ip) = upstream.dial_host {
            let to = SocketAddr::new(ip, upstream.dial_port);
            if !upstream.addresses.permits(ip) {
                return Err(ConnectError::AddressDenied { addresses: vec![to] });
            }
            if is_loop(&self.own, to, None) {
                return Err(ConnectError::Loop { address: to });
            }
        }
        match parent.tls.as_ref().and_then(|tls| self.remembered(tls, addresses)) {
            Some(failure) => Err(parent_failure(parent, upstream, ParentCause::Tls(failure))),
            None => Ok(()),
        }
    }

    /// Verifies a parent proxy that speaks TLS, and has it open a tunnel to the upstream.
    async fn tunnel(
        &self,
        tcp: TcpStream,
        address: SocketAddr,
        addresses: &[SocketAddr],
        parent: &ParentProxy,
        upstream: &Upstream,
    ) -> Result<Carrier, ConnectError> {
        let failed = |cause| parent_failure(parent, upstream, cause);
        let mut carrier = Carrier::Tcp(tcp);
        if let Some(tls) = &parent.tls {
            match verified::handshake(carrier, address, tls, self.limits.handshake, self.buffers.clone()).await {
                Ok(verified) => carrier = Carrier::Tls(Box::new(verified)),
                Err(failure) => {
                    self.remember(tls, addresses, &failure);
                    return Err(failed(ParentCause::Tls(failure)));
                }
            }
        }
        tunnel::open(&mut carrier, parent, &upstream.dialled(), self.limits.connect).await.map_err(failed)?;
        Ok(carrier)
    }

    /// A verdict of a moment ago, where the upstream is still in the same places.
    fn remembered(&self, upstream: &Upstream, addresses: &[SocketAddr]) -> Option<Rc<HandshakeFailure>> {
        let refused = self.refused.borrow();
        let (at, there, failure) = refused.get(upstream)?;
        let same = || sorted(addresses) == *there;
        (at.elapsed() < REMEMBERED && same()).then(|| failure.clone())
    }

    fn remember(&self, upstream: &Upstream, addresses: &[SocketAddr], failure: &HandshakeFailure) {
        if !failure.failure.code().is_verdict() {
            return;
        }
        let mut refused = self.refused.borrow_mut();
        refused.retain(|_, (at, ..)| at.elapsed() < REMEMBERED);
        if refused.len() < MOST_REMEMBERED {
            let failure = Rc::new(HandshakeFailure { occasion: Occasion::Remembered, ..failure.clone() });
            refused.insert(upstream.clone(), (Instant::now(), sorted(addresses), failure));
        }
    }

    async fn addresses(&self, endpoint: &Endpoint<'_>) -> Result<Vec<SocketAddr>, ConnectError> {
        let ips = match endpoint.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => self.resolver.lookup(&name.to_lookup(), self.limits.connect).await?,
        };
        let all: Vec<_> = ips.into_iter().map(|ip| SocketAddr::new(ip, endpoint.port)).collect();
        let is_permitted = |to: &SocketAddr| endpoint.rule.is_none_or(|rule| rule.permits(to.ip()));
        let permitted: Vec<_> = all.iter().copied().filter(is_permitted).collect();
        if permitted.is_empty() {
            return Err(ConnectError::AddressDenied { addresses: all });
        }
        if let Some(own) = permitted.iter().find(|address| is_loop(&self.own, **address, None)) {
            return Err(ConnectError::Loop { address: *own });
        }
        Ok(permitted)
    }
}

/// Where TCP leads to: an upstream, or the parent proxy in its place.
struct Endpoint<'a> {
    host: &'a Host,
    port: u16,
    /// The addresses of a parent are the operator's affair.
    rule: Option<&'a AddressRule>,
    parent: Option<(&'a ParentProxy, &'a Upstream)>,
}

impl<'a> Endpoint<'a> {
    fn of(upstream: &'a Upstream) -> Self {
        match &upstream.parent {
            None => Self {
                host: &upstream.dial_host,
                port: upstream.dial_port,
                rule: Some(&upstream.addresses),
                parent: None,
            },
            Some(parent) => {
                Self { host: &parent.host, port: parent.port, rule: None, parent: Some((parent.as_ref(), upstream)) }
            }
        }
    }

    /// The same error, as the parent's where it is one.
    fn unreachable(&self, error: ConnectError) -> ConnectError {
        match (self.parent, error) {
            (None, error) | (Some(_), error @ ConnectError::Loop { .. }) => error,
            (Some((parent, upstream)), error) => {
                parent_failure(parent, upstream, ParentCause::Unreachable(Box::new(error)))
            }
        }
    }
}

fn parent_failure(parent: &ParentProxy, upstream: &Upstream, cause: ParentCause) -> ConnectError {
    let has_credentials = parent.credentials.is_some();
    let (parent, port) = (parent.to_string(), upstream.dial_port);
    ConnectError::Parent(Box::new(ParentFailure { parent, port, has_credentials, cause }))
}

/// Name servers change the order from one answer to the next.
fn sorted(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    sorted
}

/// Whether an address is one of our own listeners. For one that listens on all addresses that shows with a
/// loopback address, and else when a connection stands: it has the same address at both ends.
fn is_loop(own: &[SocketAddr], to: SocketAddr, local: Option<IpAddr>) -> bool {
    let ip = to.ip().to_canonical();
    own.iter().filter(|own| own.port() == to.port()).any(|own| {
        let own = own.ip().to_canonical();
        own == ip || own.is_unspecified() && (ip.is_loopback() || local.is_some_and(|local| local.to_canonical() == ip))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_listeners_are_known_by_any_of_their_addresses() {
        for (own, to, local, expected) in [
            ("127.0.0.1:80", "127.0.0.1:80", None, true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", None, true),
            ("127.0.0.1:80", "127.0.0.1:81", None, false),
            ("127.0.0.1:80", "192.0.2.1:80", None, false),
            ("0.0.0.0:80", "127.0.0.3:80", None, true),
            ("0.0.0.0:80", "192.0.2.1:80", None, false),
            ("0.0.0.0:80", "192.0.2.1:80", Some("192.0.2.7"), false),
            ("0.0.0.0:80", "192.0.2.1:80", Some("192.0.2.1"), true),
            ("[::]:80", "192.0.2.1:80", Some("192.0.2.1"), true),
        ] {
            let local = local.map(|ip: &str| ip.parse().unwrap());
            assert_eq!(is_loop(&[own.parse().unwrap()], to.parse().unwrap(), local), expected, "{own} {to}");
        }
    }
}
