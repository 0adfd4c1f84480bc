//! What the tool tried in vain. A port that nobody listens on refuses a connection by itself; raw sockets (raw(7)) see the
//! refusals go by, and only those, by filters in the kernel. Packet sockets would do as well, but take the kernel some
//! milliseconds each to close.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{NAMES, netlink::is_without_ipv6};

/// How the tool tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    /// A connection, which was refused.
    Tcp(SocketAddr),
    /// A datagram, to a port that nobody has.
    Udp(SocketAddr),
}

/// Makes the sockets, one for each protocol. Those of IPv6 are left out where there is none.
pub(super) fn sockets() -> io::Result<Vec<OwnedFd>> {
    let mut sockets = vec![
        socket(Domain::IPV4, Protocol::TCP, &resets_v4())?,
        socket(Domain::IPV4, Protocol::ICMPV4, &unreachable_v4())?,
    ];
    for (protocol, filter) in [(Protocol::TCP, resets_v6()), (Protocol::ICMPV6, unreachable_v6())] {
        match socket(Domain::IPV6, protocol, &filter) {
            Ok(socket) => sockets.push(socket),
            Err(error) if is_without_ipv6(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

fn socket(domain: Domain, protocol: Protocol, filter: &[SockFilter]) -> io::Result<OwnedFd> {
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.attach_filter(filter)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// As much of a packet is needed.
pub(super) const LENGTH: usize = 128;

// Classic BPF (linux/filter.h, linux/bpf_common.h).
const LOAD_BYTE: u16 = 0x30;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE_AT_X: u16 = 0x50;
const LOAD_HEADER_LENGTH: u16 = 0xb1;
const IF_EQUAL: u16 = 0x15;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

const UDP: u8 = 17;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const UNREACHABLE: u8 = 3;
const UNREACHABLE_V6: u8 = 1;

fn op(code: u16, yes: u8, no: u8, value: u32) -> SockFilter {
    SockFilter::new(code, yes, no, value)
}

/// TCP segments with RST, behind a header of IPv4. Jumps count from the next instruction.
fn resets_v4() -> [SockFilter; 7] {
    [
        // A fragment but the first has no flags.
        op(LOAD_HALF, 0, 0, 6),
        op(IF_ANY_BIT, 4, 0, 0x1fff),
        op(LOAD_HEADER_LENGTH, 0, 0, 0),
        op(LOAD_BYTE_AT_X, 0, 0, 13),
        op(IF_ANY_BIT, 0, 1, RST.into()),
        op(RETURN, 0, 0, LENGTH as u32),
        op(RETURN, 0, 0, 0),
    ]
}

/// ICMP "destination unreachable" (RFC 792), behind a header of IPv4.
fn unreachable_v4() -> [SockFilter; 5] {
    [
        op(LOAD_HEADER_LENGTH, 0, 0, 0),
        op(LOAD_BYTE_AT_X, 0, 0, 0),
        op(IF_EQUAL, 0, 1, UNREACHABLE.into()),
        op(RETURN, 0, 0, LENGTH as u32),
        op(RETURN, 0, 0, 0),
    ]
}

/// TCP segments with RST. A raw socket of IPv6 has no header.
fn resets_v6() -> [SockFilter; 4] {
    [op(LOAD_BYTE, 0, 0, 13), op(IF_ANY_BIT, 0, 1, RST.into()), op(RETURN, 0, 0, LENGTH as u32), op(RETURN, 0, 0, 0)]
}

/// ICMPv6 "destination unreachable" (RFC 4443 section 3.1).
fn unreachable_v6() -> [SockFilter; 4] {
    [
        op(LOAD_BYTE, 0, 0, 0),
        op(IF_EQUAL, 0, 1, UNREACHABLE_V6.into()),
        op(RETURN, 0, 0, LENGTH as u32),
        op(RETURN, 0, 0, 0),
    ]
}

/// The attempt that was refused by what a raw socket of this protocol has received.
pub(super) fn refused(protocol: Option<Protocol>, from: IpAddr, received: &[u8]) -> Option<Attempt> {
    let body = match from {
        IpAddr::V4(_) => ip(received)?.2,
        IpAddr::V6(_) => received,
    };
    if protocol == Some(Protocol::TCP) { refused_connection(from, body) } else { refused_datagram(body) }
}

/// A connection is refused by a segment with RST and ACK and the sequence number 0 (RFC 9293 section 3.10.7.1); one that
/// ends by RST has another.
fn refused_connection(from: IpAddr, segment: &[u8]) -> Option<Attempt> {
    let is_refusal = segment.get(13)? & (RST | ACK) == RST | ACK && segment.get(4..8)? == [0; 4];
    is_refusal.then_some(Attempt::Tcp(SocketAddr::new(from, port(segment)?)))
}

/// The packet that a message of ICMP is about follows a header of 8 bytes. From the port of the name server it is an answer
/// to a tool that did not wait for it.
fn refused_datagram(message: &[u8]) -> Option<Attempt> {
    let ((_, to), UDP, body) = ip(message.get(8..)?)? else { return None };
    if port(body)? == NAMES {
        return None;
    }
    Some(Attempt::Udp(SocketAddr::new(to, port(body.get(2..)?)?)))
}

/// Source and destination, protocol, and what the header is followed by.
fn ip(packet: &[u8]) -> Option<((IpAddr, IpAddr), u8, &[u8])> {
    let v4 = |at: usize| Some(IpAddr::V4(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?.into()));
    let v6 = |at: usize| Some(IpAddr::V6(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?.into()));
    match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet[0] & 0xf) * 4;
            Some(((v4(12)?, v4(16)?), *packet.get(9)?, packet.get(length..)?))
        }
        6 => Some(((v6(8)?, v6(24)?), *packet.get(6)?, packet.get(40..)?)),
        _ => None,
    }
}

fn port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 192, 0, 2, 7];
        packet.extend(body);
        packet
    }

    fn tcp(sequence: u32, flags: u8) -> Vec<u8> {
        let mut segment = vec![0x1f, 0x90, 0xc0, 0x00];
        segment.extend(sequence.to_be_bytes());
        segment.extend([0, 0, 0, 9, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        segment
    }

    #[test]
    fn refused_connections_and_datagrams_are_recognized() {
        let attempted = |text: &str| text.parse::<SocketAddr>().unwrap();
        let [from, from_v6] = ["10.0.0.1", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let by_tcp = |received: &[u8]| refused(Some(Protocol::TCP), from, received);
        assert_eq!(by_tcp(&v4(6, &tcp(0, RST | ACK))), Some(Attempt::Tcp(attempted("10.0.0.1:8080"))));
        // A connection that was reset, one that was closed, and one that begins.
        for (sequence, flags) in [(77, RST | ACK), (0, RST), (0, ACK), (0, 0x02)] {
            assert_eq!(by_tcp(&v4(6, &tcp(sequence, flags))), None);
        }
        let datagram = v4(UDP, &[0xc0, 0x00, 0x1f, 0xbd, 0, 8, 0, 0]);
        let unreachable = v4(1, &[&[3, 3, 0, 0, 0, 0, 0, 0], datagram.as_slice()].concat());
        let by_icmp = refused(Some(Protocol::ICMPV4), from, &unreachable);
        assert_eq!(by_icmp, Some(Attempt::Udp(attempted("192.0.2.7:8125"))));
        let answer = v4(UDP, &[0, 53, 0x91, 0x3f, 0, 8, 0, 0]);
        let unread = v4(1, &[&[3, 3, 0, 0, 0, 0, 0, 0], answer.as_slice()].concat());
        assert_eq!(refused(Some(Protocol::ICMPV4), from, &unread), None, "an answer about a name is not the tool's");
        let segment = tcp(0, RST | ACK);
        let by_v6 = |received: &[u8]| refused(Some(Protocol::TCP), from_v6, received);
        assert_eq!(by_v6(&segment), Some(Attempt::Tcp(attempted("[2001:db8::1]:8080"))));
        for length in 0..14 {
            assert_eq!(by_v6(&segment[..length]), None, "{length}");
            assert_eq!(by_tcp(&v4(6, &segment[..length])), None, "{length}");
        }
        for length in 0..unreachable.len() - 4 {
            assert_eq!(refused(Some(Protocol::ICMPV4), from, &unreachable[..length]), None, "{length}");
        }
    }
}
