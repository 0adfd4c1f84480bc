//! Listening sockets, and what every connection of one has from the beginning.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::TcpListener,
    time::Duration,
};

use socket2::SockRef;
use tokio::net;

use crate::{
    proxy::settings::{BoundAddress, ListenAddress, OriginalAddress},
    transport::Transport,
};

use super::original::{canonical, original_address};

/// Bytes that wait in the system for a client to read on, besides those that are on their way.
const UNSENT: u32 = 128 << 10;

/// A listening socket.
#[derive(Debug)]
pub enum ListeningSocket {
    /// For TCP.
    Tcp(TcpListener),
}

/// Listening sockets that were made elsewhere and handed to this process, by their names.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    named: HashMap<String, ListeningSocket>,
    isolated: VecDeque<ListeningSocket>,
}

impl InheritedSockets {
    /// Adds one under a name; false if that is taken.
    pub fn add(&mut self, name: String, socket: ListeningSocket) -> bool {
        !self.named.contains_key(&name) && self.named.insert(name, socket).is_none()
    }
}

impl From<Vec<TcpListener>> for InheritedSockets {
    /// Those of a tool's network namespace, in the order of its listeners in the settings.
    fn from(sockets: Vec<TcpListener>) -> Self {
        let isolated = sockets.into_iter().map(ListeningSocket::Tcp).collect();
        Self { isolated, ..Self::default() }
    }
}

impl ListeningSocket {
    /// Binds to an address, or takes a socket that was inherited.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::NotFound`] where no such socket was inherited.
    pub fn open(address: &ListenAddress, inherited: &mut InheritedSockets) -> io::Result<Self> {
        let socket = match address {
            ListenAddress::Tcp(address) => Self::Tcp(TcpListener::bind(address)?),
            ListenAddress::Inherited(name) => inherited.named.remove(name).ok_or(io::ErrorKind::NotFound)?,
            ListenAddress::Isolated(_) => inherited.isolated.pop_front().ok_or(io::ErrorKind::NotFound)?,
        };
        socket.prepare()?;
        Ok(socket)
    }

    /// On Linux an accepted socket has what the listening one has (`sk_clone` in the kernel's net/core/sock.c), which
    /// saves three calls for each.
    fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => {
                tcp.set_nonblocking(true)?;
                let socket = SockRef::from(tcp);
                // Small responses must not wait for the acknowledgement of the last one.
                socket.set_tcp_nodelay(true)?;
                // A client that reads slowly takes long to make room in all that the system would buffer for it, and
                // would seem not to read at all.
                socket.set_tcp_notsent_lowat(UNSENT)?;
                // A connection ends by RST, also where the process is killed, unless it ends in order.
                socket.set_linger(Some(Duration::ZERO))
            }
        }
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<BoundAddress> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map(BoundAddress::Tcp),
        }
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// The system's.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(tcp) => tcp.try_clone().map(Self::Tcp),
        }
    }
}

/// A listening socket in the calling thread's runtime.
#[derive(Debug)]
pub struct Acceptor {
    socket: AsyncSocket,
    /// How the address that a client connected to is found, where it is not the listener's.
    original: Option<OriginalAddress>,
}

#[derive(Debug)]
enum AsyncSocket {
    Tcp(net::TcpListener),
}

impl Acceptor {
    /// Registers a socket.
    ///
    /// # Errors
    /// The system's.
    pub fn new(socket: ListeningSocket, original: Option<OriginalAddress>) -> io::Result<Self> {
        let socket = match socket {
            ListeningSocket::Tcp(tcp) => AsyncSocket::Tcp(net::TcpListener::from_std(tcp)?),
        };
        Ok(Self { socket, original })
    }

    /// The next connection, and where its client wanted to connect to.
    ///
    /// # Errors
    /// The system's, some of them about the connection that was to be accepted.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            AsyncSocket::Tcp(listener) => {
                let (tcp, peer) = listener.accept().await?;
                let original = self.original.and_then(|how| original_address(&tcp, peer, how));
                Ok(Accepted { transport: Transport::new(tcp, canonical(peer)), original })
            }
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted {
    pub(super) transport: Transport,
    /// Where the client wanted to connect to, if it is known that this is not the listener.
    pub(super) original: Option<std::net::SocketAddr>,
}
