//! The TCP sockets of this network namespace, as the kernel lists them (proc_net_tcp(5)).

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// A socket in the list.
struct ListedSocket {
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
    user: u32,
}

/// States of a socket (`include/net/tcp_states.h` of the kernel).
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

/// The user of a socket that listens on a port.
pub(super) fn listener(port: u16) -> io::Result<Option<u32>> {
    let all = all()?;
    Ok(all.iter().find(|socket| socket.state == LISTEN && socket.local.port() == port).map(|socket| socket.user))
}

/// Whether a connection from this address has its other end at a port of this host.
pub(super) fn arrives(from: SocketAddr, port: u16) -> io::Result<bool> {
    let is_it = |socket: &ListedSocket| {
        socket.state == ESTABLISHED && socket.local.port() == port && socket.remote == canonical(from)
    };
    Ok(all()?.iter().any(is_it))
}

fn all() -> io::Result<Vec<ListedSocket>> {
    // Of the calling thread: a test is in a namespace of its own.
    let v4 = fs::read_to_string("/proc/thread-self/net/tcp")?;
    // A kernel without IPv6 has no such file.
    let v6 = fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default();
    Ok(v4.lines().chain(v6.lines()).filter_map(parse).collect())
}

fn parse(line: &str) -> Option<ListedSocket> {
    let mut fields = line.split_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let remote = address(fields.next()?)?;
    let state = u8::from_str_radix(fields.next()?, 16).ok()?;
    let user = fields.nth(3)?.parse().ok()?;
    Some(ListedSocket { local, remote, state, user })
}

/// `0100007F:3A99`: each 32 bits of the address are a number in the order of the machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
            IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(words).ok()?))
        }
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?)))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "nothing is sent")]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_are_found_by_both_ends() {
        for ip in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listening) = TcpListener::bind(ip) else { continue };
            let at = listening.local_addr().unwrap();
            assert_eq!(listener(at.port()).unwrap(), Some(rustix::process::geteuid().as_raw()));
            let client = TcpStream::connect(at).unwrap();
            let from = client.local_addr().unwrap();
            assert!(arrives(from, at.port()).unwrap(), "{from} at {at}");
            assert!(!arrives(from, from.port()).unwrap());
            assert!(!arrives(at, at.port()).unwrap());
        }
    }
}
