//! The two things that a new network namespace needs: its loopback interface up, and a route which says that every
//! address is local (AnyIP), as `ip route add local default dev lo` does (rtnetlink(7)).

use std::io;

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice::name_to_index, recv, send, socket_with,
    },
};

/// Brings the loopback interface up and routes all addresses to it. A kernel without IPv6 has no such addresses.
pub(super) fn make_all_local() -> io::Result<()> {
    // Protocol 0 is NETLINK_ROUTE.
    let netlink = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let loopback = name_to_index(&netlink, "lo")?;
    let ask = |message: Vec<u8>| -> io::Result<()> {
        send(&netlink, &message, SendFlags::empty())?;
        let mut reply = [0; 1024];
        let (length, _) = recv(&netlink, &mut reply[..], RecvFlags::empty())?;
        acknowledged(&reply[..length])
    };
    ask(link_up(loopback))?;
    ask(local_default(AddressFamily::INET, loopback))?;
    match ask(local_default(AddressFamily::INET6, loopback)) {
        Err(error) if is_without_ipv6(&error) => Ok(()),
        end => end,
    }
}

/// Whether the system has no IPv6 here.
pub(super) fn is_without_ipv6(error: &io::Error) -> bool {
    let errors = [Errno::AFNOSUPPORT, Errno::OPNOTSUPP, Errno::ADDRNOTAVAIL, Errno::NODEV, Errno::ACCESS];
    errors.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// The value of an `NLMSG_ERROR`, where 0 acknowledges.
fn acknowledged(reply: &[u8]) -> io::Result<()> {
    match reply.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_CREATE: u16 = 0x400;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;

/// `struct nlmsghdr` and what follows it.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = 16 + body.len() as u32;
    let mut message = Vec::with_capacity(16 + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]); // sequence number and port
    message.extend(body);
    message
}

/// `struct ifinfomsg`: the flag `IFF_UP` is set, and no other is changed.
fn link_up(index: u32) -> Vec<u8> {
    const IFF_UP: u32 = 1;
    let mut body = vec![0; 4]; // family, padding, type
    body.extend(index.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes());
    message(RTM_NEWLINK, 0, &body)
}

/// `struct rtmsg` for a prefix of length 0 in the table `local`, and the attribute `RTA_OIF`.
fn local_default(family: AddressFamily, index: u32) -> Vec<u8> {
    const TABLE_LOCAL: u8 = 255;
    const PROTOCOL_BOOT: u8 = 3;
    const SCOPE_HOST: u8 = 254;
    const TYPE_LOCAL: u8 = 2;
    const RTA_OIF: u16 = 4;
    let mut body = vec![family.as_raw() as u8, 0, 0, 0, TABLE_LOCAL, PROTOCOL_BOOT, SCOPE_HOST, TYPE_LOCAL];
    body.extend([0; 4]); // flags
    body.extend(8_u16.to_ne_bytes());
    body.extend(RTA_OIF.to_ne_bytes());
    body.extend(index.to_ne_bytes());
    message(RTM_NEWROUTE, NLM_F_CREATE, &body)
}
