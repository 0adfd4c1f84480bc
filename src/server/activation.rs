//! Sockets that systemd hands to the process by name (sd_listen_fds(3)).

use std::{env, process};

use listenfd::ListenFd;
use socket2::SockRef;

use super::socket::{InheritedSockets, ListeningSocket};

/// More sockets than this are no configuration of ours.
const MOST_SOCKETS: usize = 1024;

/// Takes the sockets that were handed to this process, by the names of `LISTEN_FDNAMES`. `LISTEN_FDS` and `LISTEN_PID`
/// are unset then. To be called once, before there are threads.
///
/// # Errors
/// A sentence: a descriptor that is no listening TCP or UNIX stream socket, or a name that two of them have.
pub fn inherited_sockets() -> Result<InheritedSockets, String> {
    let mut sockets = InheritedSockets::default();
    // Where they are for another process, or for no certain one, they are not ours.
    if env::var("LISTEN_PID").ok().and_then(|id| id.parse().ok()) != Some(process::id()) {
        return Ok(sockets);
    }
    let count = env::var("LISTEN_FDS").unwrap_or_default();
    let count: usize = count
        .parse()
        .ok()
        .filter(|count| *count <= MOST_SOCKETS)
        .ok_or_else(|| format!("LISTEN_FDS: a number of sockets, at most {MOST_SOCKETS}, is expected"))?;
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names: Vec<_> = names.split(':').collect();
    let mut handed = ListenFd::from_env();
    for index in 0..count {
        // As systemd calls those without a name.
        let name = names.get(index).filter(|name| !name.is_empty()).unwrap_or(&"unknown");
        let problem =
            |what: &str| format!("the socket `{name}`, number {} of those handed to this process, {what}", index + 1);
        let socket = take(&mut handed, index).ok_or_else(|| problem("is no TCP or UNIX stream socket"))?;
        let listens = match &socket {
            ListeningSocket::Tcp(tcp) => SockRef::from(tcp).is_listener(),
            ListeningSocket::Unix(unix) => SockRef::from(unix).is_listener(),
        };
        if !listens.unwrap_or(false) {
            return Err(problem("does not listen\nhint: set `Accept=no` in its .socket unit"));
        }
        if !sockets.add((*name).to_owned(), socket) {
            return Err(problem(
                "has the name of another one\nhint: give each .socket unit one `ListenStream=`, and a `FileDescriptorName=` of its own",
            ));
        }
    }
    Ok(sockets)
}

fn take(handed: &mut ListenFd, index: usize) -> Option<ListeningSocket> {
    if let Ok(Some(tcp)) = handed.take_tcp_listener(index) {
        return Some(ListeningSocket::Tcp(tcp));
    }
    handed.take_unix_listener(index).ok().flatten().map(ListeningSocket::Unix)
}
