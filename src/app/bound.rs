//! The sockets of listeners, bound or inherited.

use std::{io, net::SocketAddr};

use crate::{
    admin::{AdminPolicy, AdminSettings},
    proxy::settings::{BoundAddress, ListenAddress, ListenerSettings, OriginalAddress, Service},
    server::socket::{InheritedSockets, ListeningSocket, SocketPath},
};

/// A listener whose socket listens.
#[derive(Debug)]
pub(super) struct BoundListener {
    pub(super) socket: ListeningSocket,
    /// The path of a UNIX socket, which is gone with this.
    pub(super) path: Option<SocketPath>,
    pub(super) address: BoundAddress,
    pub(super) settings: ListenerSettings,
}

/// An admin listener whose socket listens.
#[derive(Debug)]
pub(super) struct BoundAdmin {
    pub(super) socket: ListeningSocket,
    pub(super) path: Option<SocketPath>,
    pub(super) policy: AdminPolicy,
}

impl BoundAdmin {
    /// Binds it.
    pub(super) fn new(settings: &AdminSettings) -> io::Result<Self> {
        let (socket, path) = ListeningSocket::open(&settings.address, &mut InheritedSockets::default())?;
        Ok(Self { socket, path, policy: settings.policy.clone() })
    }
}

impl BoundListener {
    /// Binds a listener, or takes its socket from those that were inherited.
    pub(super) fn new(settings: &ListenerSettings, inherited: &mut InheritedSockets) -> io::Result<Self> {
        let (socket, path) = ListeningSocket::open(&settings.address, inherited)?;
        let address = socket.address()?;
        check_inherited(settings, &address).map_err(io::Error::other)?;
        Ok(Self { socket, path, address, settings: settings.clone() })
    }

    /// Its address, if connecting from here could lead to it: one of another network namespace is out of reach.
    pub(super) fn reachable(&self) -> Option<SocketAddr> {
        let is_elsewhere = matches!(self.settings.address, ListenAddress::Isolated(_))
            || matches!(self.settings.service, Service::Original(OriginalAddress::Accepted));
        self.address.tcp().filter(|_| !is_elsewhere)
    }
}

/// Whether a socket that was handed to this process is of use for its listener.
fn check_inherited(settings: &ListenerSettings, bound: &BoundAddress) -> Result<(), String> {
    let ListenAddress::Inherited { allow_nonlocal, .. } = settings.address else { return Ok(()) };
    match bound.tcp() {
        Some(address) if !address.ip().is_loopback() && !allow_nonlocal => Err(format!(
            "it is bound to {address}, which other hosts can reach, and clients speak plain text to it\n  hint: set `ListenStream=127.0.0.1:{}` in its .socket unit, or --allow-nonlocal-listen",
            address.port()
        )),
        None if matches!(settings.service, Service::Original(_)) => {
            Err("it is a UNIX socket, and connections cannot be redirected to one".into())
        }
        _ => Ok(()),
    }
}

/// Why a listener cannot be had, and what to do.
pub(super) fn listen_error(address: &ListenAddress, error: &io::Error) -> String {
    match (address, error.kind()) {
        (ListenAddress::Inherited { name, .. }, io::ErrorKind::NotFound) => format!(
            "no socket of that name was handed to this process\n  hint: `FileDescriptorName={name}` in a .socket unit names one"
        ),
        (ListenAddress::Tcp(address), io::ErrorKind::AddrInUse) => format!(
            "address already in use\n  hint: `ss -ltnp 'sport = :{}'` shows which process holds it",
            address.port()
        ),
        (ListenAddress::Tcp(address), io::ErrorKind::PermissionDenied) if address.port() < 1024 => {
            "this user may not use ports below 1024\n  hint: use a port above 1023, or give the process CAP_NET_BIND_SERVICE"
                .into()
        }
        (ListenAddress::Unix { .. }, io::ErrorKind::AddrInUse) => {
            "a process listens on it, or it is no socket\n  hint: `ss -lxp` shows which process listens; remove a file that is no socket".into()
        }
        (_, io::ErrorKind::AddrNotAvailable) => {
            "this host has no such address\n  hint: `ip addr` shows the addresses that it has".into()
        }
        _ => error.to_string(),
    }
}
