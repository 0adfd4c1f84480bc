//! Listening sockets, and what every connection of one has from the beginning.

use std::{
    collections::{HashMap, VecDeque},
    fs, io,
    net::{SocketAddr, TcpListener},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
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
    /// For UNIX streams.
    Unix(UnixListener),
}

/// The path of a UNIX socket that this process made; removed when it is dropped, unless somebody has replaced it.
#[derive(Debug)]
pub struct SocketPath {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            // A path that stays is replaced by the next process.
            let _ = fs::remove_file(&self.path);
        }
    }
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

    /// The names of those that nobody has taken.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
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
    /// Binds to an address, or takes a socket that was inherited. With the path that was made.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::NotFound`] where no such socket was inherited.
    pub fn open(address: &ListenAddress, inherited: &mut InheritedSockets) -> io::Result<(Self, Option<SocketPath>)> {
        let (socket, path) = match address {
            ListenAddress::Tcp(address) => (Self::Tcp(TcpListener::bind(address)?), None),
            ListenAddress::Unix { path, mode } => {
                bind_unix(path, *mode).map(|(unix, path)| (Self::Unix(unix), Some(path)))?
            }
            ListenAddress::Inherited { name, .. } => {
                (inherited.named.remove(name).ok_or(io::ErrorKind::NotFound)?, None)
            }
            ListenAddress::Isolated(_) => (inherited.isolated.pop_front().ok_or(io::ErrorKind::NotFound)?, None),
        };
        socket.prepare()?;
        Ok((socket, path))
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
            Self::Unix(unix) => unix.set_nonblocking(true),
        }
    }

    /// Where it is bound.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<BoundAddress> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().map(BoundAddress::Tcp),
            Self::Unix(unix) => {
                let path = unix.local_addr()?.as_pathname().map(PathBuf::from);
                Ok(BoundAddress::Unix(path.unwrap_or_default()))
            }
        }
    }

    /// Another handle of the same socket.
    ///
    /// # Errors
    /// The system's.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(tcp) => tcp.try_clone().map(Self::Tcp),
            Self::Unix(unix) => unix.try_clone().map(Self::Unix),
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
    Unix(net::UnixListener),
}

impl Acceptor {
    /// Registers a socket.
    ///
    /// # Errors
    /// The system's.
    pub fn new(socket: ListeningSocket, original: Option<OriginalAddress>) -> io::Result<Self> {
        let socket = match socket {
            ListeningSocket::Tcp(tcp) => AsyncSocket::Tcp(net::TcpListener::from_std(tcp)?),
            ListeningSocket::Unix(unix) => AsyncSocket::Unix(net::UnixListener::from_std(unix)?),
        };
        Ok(Self { socket, original })
    }

    /// The next connection, and where its client wanted to connect to.
    ///
    /// # Errors
    /// The system's, some of them about the connection that was to be accepted.
    pub(super) async fn accept(&self) -> io::Result<AcceptedConnection> {
        match &self.socket {
            AsyncSocket::Tcp(listener) => {
                let (tcp, peer) = listener.accept().await?;
                let original = self.original.and_then(|how| original_address(&tcp, peer, how));
                Ok(AcceptedConnection { transport: Transport::tcp(tcp, canonical(peer)), original })
            }
            AsyncSocket::Unix(listener) => {
                let (unix, _) = listener.accept().await?;
                Ok(AcceptedConnection { transport: Transport::unix(unix), original: None })
            }
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct AcceptedConnection {
    pub(super) transport: Transport,
    /// Where the client wanted to connect to, if it is known that this is not the listener.
    pub(super) original: Option<SocketAddr>,
}

/// Clients that may wait to be accepted; the system has a limit of its own.
const BACKLOG: i32 = 1024;

/// Makes a UNIX socket with these permissions from the beginning: nobody can connect before it listens. One that a
/// process left behind is replaced.
fn bind_unix(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketPath)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let made = fs::symlink_metadata(path)?;
    let made = SocketPath { path: path.to_owned(), device: made.dev(), inode: made.ino() };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), made))
}

/// Removes a UNIX socket that nobody listens on.
fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        // Whatever else is there stays; binding says so.
        _ => return Ok(()),
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}
