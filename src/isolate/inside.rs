//! What runs inside the namespace before the tool does: this program again, by a command that is not for people.
//!
//! A user namespace can only be entered by a process with one thread (unshare(2)), and code between `fork` and `exec`
//! would be unsafe. So the program is executed again, enters the namespace before it starts any thread, makes the
//! sockets, hands them out, and becomes the tool.

use std::{
    env,
    ffi::OsString,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStringExt, net::UnixStream, process::CommandExt},
    },
    process::{Command, ExitCode},
};

use rustix::{
    io::Errno,
    process::{getegid, geteuid},
    stdio::dup2_stdin,
    thread::UnshareFlags,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    channel::{Failed, Outcome, Plan, Start, Step, receive, receive_descriptors, send, send_descriptors},
    netlink::{is_without_ipv6, make_all_local},
    observe,
};

/// The command's name.
pub(super) const COMMAND: &str = "become-isolated-tool";

/// Whether this process was executed to become a tool. Standard input is the channel then.
pub fn is_asked_for() -> bool {
    env::args_os().nth(1).is_some_and(|command| command == COMMAND)
}

/// Becomes the tool. Returns if that failed, which the process outside was told.
pub fn run() -> ExitCode {
    let Ok(channel) = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from) else { return FAILED.into() };
    match prepare(&channel) {
        Ok(sockets) => {
            let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            let sent = send(&channel, &Outcome::Made(descriptors.len()));
            if sent.and_then(|()| send_descriptors(&channel, &descriptors)).is_err() {
                return FAILED.into();
            }
        }
        Err(failed) => {
            // The process outside may be gone, and nobody else would want to know.
            let _ = send(&channel, &Outcome::Failed(failed));
            return FAILED.into();
        }
    }
    let failed = execute(&channel);
    let _ = send(&channel, &Outcome::Failed(failed));
    FAILED.into()
}

/// The status of a failure of our own. The process outside has its own words for it.
const FAILED: u8 = 125;

/// Enters the namespace and makes the sockets.
fn prepare(channel: &UnixStream) -> Result<Vec<OwnedFd>, Failed> {
    let in_channel = at(Step::Channel);
    let plan: Plan =
        receive(channel).and_then(|plan| plan.ok_or(io::ErrorKind::UnexpectedEof.into())).map_err(in_channel)?;
    // The tool's standard input comes by the channel, which has its place until then.
    let stdin = receive_descriptors(channel, 1).map_err(in_channel)?;
    for stdin in stdin {
        dup2_stdin(stdin).map_err(io::Error::from).map_err(in_channel)?;
    }
    enter()?;
    make_all_local().map_err(at(Step::Loopback))?;
    let mut sockets = Vec::new();
    for address in plan.tcp {
        sockets.push(listen(address).map_err(at(Step::Socket(address)))?);
    }
    for address in plan.udp {
        sockets.push(bind(address, Type::DGRAM, Protocol::UDP).map_err(at(Step::Socket(address)))?.into());
    }
    sockets.extend(observe::sockets().map_err(at(Step::Observe))?);
    Ok(sockets)
}

fn at(step: Step) -> impl Fn(io::Error) -> Failed + Copy {
    move |error| Failed { step, errno: error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()) }
}

/// Enters a network namespace of its own: as root in this user namespace, so that the tool keeps its rights over files,
/// and else in a user namespace in which the user is who it was.
fn enter() -> Result<(), Failed> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() && unshare(UnshareFlags::NEWNET).is_ok() {
        return Ok(());
    }
    unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).map_err(at(Step::Unshare))?;
    // Without this, the group could not be mapped (user_namespaces(7)).
    let maps = [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{0} {0} 1", uid.as_raw())),
        ("gid_map", format!("{0} {0} 1", gid.as_raw())),
    ];
    for (name, text) in maps {
        fs::write(format!("/proc/self/{name}"), text).map_err(at(Step::MapUser))?;
    }
    Ok(())
}

/// rustix deprecates this for a flag that is not used here: with `FILES`, one thread could lose sight of descriptors
/// of another. Its successor is an unsafe function for all flags.
#[expect(deprecated, reason = "safe for these flags, and there is no other safe form of it")]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    Ok(rustix::thread::unshare(flags)?)
}

/// Connections that may wait to be accepted; the system has its own limit (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;

fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = bind(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds a socket; `[::]` takes IPv4 too, and is `0.0.0.0` where there is no IPv6.
fn bind(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let bind = |address: SocketAddr| {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        if kind == Type::DGRAM {
            // One is for an address, another for all.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        Ok(socket)
    };
    match bind(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_without_ipv6(&error) => {
            bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        }
        end => end,
    }
}

/// Becomes the tool; comes back with the reason if that fails.
fn execute(channel: &UnixStream) -> Failed {
    let start = receive::<Start>(channel).and_then(|start| start.ok_or(io::ErrorKind::UnexpectedEof.into()));
    let Start { words, set, unset } = match start {
        Ok(start) => start,
        Err(error) => return at(Step::Channel)(error),
    };
    let mut words = words.into_iter().map(OsString::from_vec);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    for name in unset {
        command.env_remove(OsString::from_vec(name));
    }
    command.envs(set.into_iter().map(|(name, value)| (OsString::from_vec(name), OsString::from_vec(value))));
    // All sockets are closed by it; so is the channel, which tells the process outside that it went well.
    at(Step::Execute)(command.exec())
}
