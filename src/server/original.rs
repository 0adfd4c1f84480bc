//! The address that a client connected to, where a connection was led to a listener that has another.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
};

use socket2::SockRef;

use crate::proxy::settings::OriginalAddress;

/// The original address of an accepted connection; `None` where nothing led it here but its client.
pub(super) fn original_address(socket: &impl AsFd, peer: SocketAddr, how: OriginalAddress) -> Option<SocketAddr> {
    let socket = SockRef::from(socket);
    let local = socket.local_addr().ok()?.as_socket().map(canonical)?;
    match how {
        OriginalAddress::Accepted => Some(local),
        OriginalAddress::Redirected => {
            // An IPv6 socket with an IPv4 client answers the question for IPv4 alone.
            let original = match peer.ip().to_canonical() {
                IpAddr::V4(_) => socket.original_dst_v4(),
                IpAddr::V6(_) => socket.original_dst_v6(),
            };
            // Where rules exist and led nothing here, it is the socket's own address; without any it is an error.
            original.ok()?.as_socket().map(canonical).filter(|original| *original != local)
        }
    }
}

/// An IPv4 address that came by an IPv6 socket, as such.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
