//! What the tool tried in vain. A port that nobody listens on refuses a connection by itself; a packet socket sees the
//! refusals go by on the loopback interface, and only those, by a filter in the kernel.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, eth, socket_with};
use socket2::{SockFilter, SockRef};

/// How the tool tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attempt {
    /// A connection, which was refused.
    Tcp(SocketAddr),
    /// A datagram, to a port that nobody has.
    Udp(SocketAddr),
}

/// Makes the sockets, one for each family. The type `DGRAM` begins with the IP header, and a protocol that is not `ALL`
/// shows each packet once, when it is received.
pub(super) fn sockets() -> io::Result<[OwnedFd; 2]> {
    let socket = |protocol, filter: &[SockFilter]| {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(protocol))?;
        SockRef::from(&socket).attach_filter(filter)?;
        io::Result::Ok(socket)
    };
    Ok([socket(eth::IP, &filter_v4())?, socket(eth::IPV6, &filter_v6())?])
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

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const UNREACHABLE: u8 = 3;
const UNREACHABLE_V6: u8 = 1;

fn op(code: u16, yes: u8, no: u8, value: u32) -> SockFilter {
    SockFilter::new(code, yes, no, value)
}

/// TCP segments with RST, and ICMP "destination unreachable" (RFC 792). Jumps count from the next instruction.
fn filter_v4() -> [SockFilter; 13] {
    [
        op(LOAD_BYTE, 0, 0, 9),
        op(IF_EQUAL, 1, 0, TCP.into()),
        op(IF_EQUAL, 5, 9, ICMP.into()),
        // A fragment but the first has no flags.
        op(LOAD_HALF, 0, 0, 6),
        op(IF_ANY_BIT, 7, 0, 0x1fff),
        op(LOAD_HEADER_LENGTH, 0, 0, 0),
        op(LOAD_BYTE_AT_X, 0, 0, 13),
        op(IF_ANY_BIT, 3, 4, RST.into()),
        op(LOAD_HEADER_LENGTH, 0, 0, 0),
        op(LOAD_BYTE_AT_X, 0, 0, 0),
        op(IF_EQUAL, 0, 1, UNREACHABLE.into()),
        op(RETURN, 0, 0, LENGTH as u32),
        op(RETURN, 0, 0, 0),
    ]
}

/// TCP segments with RST, and ICMPv6 "destination unreachable" (RFC 4443 section 3.1).
fn filter_v6() -> [SockFilter; 9] {
    [
        op(LOAD_BYTE, 0, 0, 6),
        op(IF_EQUAL, 1, 0, TCP.into()),
        op(IF_EQUAL, 2, 5, ICMP_V6.into()),
        op(LOAD_BYTE, 0, 0, 40 + 13),
        op(IF_ANY_BIT, 2, 3, RST.into()),
        op(LOAD_BYTE, 0, 0, 40),
        op(IF_EQUAL, 0, 1, UNREACHABLE_V6.into()),
        op(RETURN, 0, 0, LENGTH as u32),
        op(RETURN, 0, 0, 0),
    ]
}

/// The attempt that a packet refuses. A connection is refused by a segment with RST and ACK and the sequence number 0
/// (RFC 9293 section 3.10.7.1); one that ends by RST has another.
pub(super) fn refused(packet: &[u8]) -> Option<Attempt> {
    let (source, protocol, body) = ip(packet)?;
    match protocol {
        TCP => {
            let is_refusal = body.get(13)? & (RST | ACK) == RST | ACK && body.get(4..8)? == [0; 4];
            is_refusal.then_some(Attempt::Tcp(SocketAddr::new(source.0, port(body)?)))
        }
        ICMP | ICMP_V6 => {
            // The packet that it is about follows a header of 8 bytes.
            let (about, UDP, body) = ip(body.get(8..)?)? else { return None };
            Some(Attempt::Udp(SocketAddr::new(about.1, port(body.get(2..)?)?)))
        }
        _ => None,
    }
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
    use std::net::Ipv6Addr;

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
        assert_eq!(refused(&v4(TCP, &tcp(0, RST | ACK))), Some(Attempt::Tcp(attempted("10.0.0.1:8080"))));
        // A connection that was reset, one that was closed, and one that begins.
        for (sequence, flags) in [(77, RST | ACK), (0, RST), (0, ACK), (0, 0x02)] {
            assert_eq!(refused(&v4(TCP, &tcp(sequence, flags))), None);
        }
        let datagram = v4(UDP, &[0xc0, 0x00, 0x1f, 0xbd, 0, 8, 0, 0]);
        let unreachable = [&[3, 3, 0, 0, 0, 0, 0, 0], datagram.as_slice()].concat();
        assert_eq!(refused(&v4(ICMP, &unreachable)), Some(Attempt::Udp(attempted("192.0.2.7:8125"))));
        let mut packet = vec![0x60, 0, 0, 0, 0, 20, TCP, 64];
        packet.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(tcp(0, RST | ACK));
        assert_eq!(refused(&packet), Some(Attempt::Tcp(attempted("[2001:db8::1]:8080"))));
        for length in 0..packet.len() - 6 {
            assert_eq!(refused(&packet[..length]), None, "{length}");
        }
    }
}
