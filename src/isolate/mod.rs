//! `vouchsafe exec --isolate`: a network namespace in which every address leads to this proxy, without root and without
//! rules.
//!
//! The namespace has a loopback interface and nothing else, and a route that says that every address is local (AnyIP).
//! Sockets that listen there are made inside and handed to this process, which stays outside. So a connection of the
//! tool arrives here whatever its address is; the address is that of the accepted socket. What nobody listens on is
//! refused by the kernel at once, and there is no way for anything else to leave.

mod channel;
mod dns;
mod inside;
mod netlink;
mod observe;
mod service;

use std::{
    ffi::OsString,
    fmt, fs, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStringExt, net::UnixStream},
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::io::Errno;

use self::channel::{Failed, Outcome, Plan, Start, Step, receive, receive_descriptors, send, send_descriptors};

pub use self::{
    inside::{is_asked_for, run},
    observe::Attempt,
    service::{Report, Watch},
};

/// Why a tool cannot be isolated or started.
#[derive(Debug)]
pub enum IsolateError {
    /// The namespace, or what belongs in it, is not permitted or not possible.
    Namespace { what: String, error: io::Error },
    /// The tool cannot be executed.
    Execute(io::Error),
}

impl IsolateError {
    fn new(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Namespace { what, error }
    }

    fn of(Failed { step, errno }: Failed) -> Self {
        let error = io::Error::from_raw_os_error(errno);
        let what = match step {
            Step::Execute => return Self::Execute(error),
            Step::Unshare | Step::MapUser => "the system does not permit a namespace to this user".into(),
            Step::Loopback => "cannot set up the namespace's loopback interface".into(),
            Step::Socket(address) => format!("cannot listen on {address} inside the namespace"),
            Step::Observe => "cannot observe refused connections inside the namespace".into(),
            Step::Channel => "the process inside the namespace failed".into(),
        };
        Self::Namespace { what, error }
    }
}

impl fmt::Display for IsolateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespace { what, error } => {
                write!(f, "--isolate: {what}: {error}")?;
                match hint(error, |path| fs::read_to_string(path).ok()) {
                    Some(hint) => write!(f, "\n  hint: {hint}"),
                    None => Ok(()),
                }
            }
            Self::Execute(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for IsolateError {}

/// What to allow where a namespace is not permitted, or what to use instead.
fn hint(error: &io::Error, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    const INSTEAD: &str = "or use `vouchsafe exec` without --isolate";
    let errno = error.raw_os_error();
    let is = |errors: &[Errno]| errors.iter().any(|error| errno == Some(error.raw_os_error()));
    let says = |path: &str, value: &str| read(path).is_some_and(|text| text.trim() == value);
    if is(&[Errno::NOSPC]) || says("/proc/sys/user/max_user_namespaces", "0") {
        return Some(format!("raise `sysctl user.max_user_namespaces`, {INSTEAD}"));
    }
    if !is(&[Errno::PERM, Errno::ACCESS]) {
        return None;
    }
    if says("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return Some(format!("set `sysctl kernel.unprivileged_userns_clone=1`, {INSTEAD}"));
    }
    if says("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        return Some(format!(
            "AppArmor restricts user namespaces: allow this program `userns` by a profile, set `sysctl kernel.apparmor_restrict_unprivileged_userns=0`, {INSTEAD}"
        ));
    }
    Some(format!(
        "a container's seccomp filter refuses it, as Docker's default does: start the container with `--security-opt seccomp=unconfined` or `--cap-add SYS_ADMIN`, {INSTEAD}"
    ))
}

/// What listens inside.
#[derive(Debug, Default)]
pub struct Inside {
    /// The proxy's listeners.
    pub listeners: Vec<SocketAddr>,
    /// Services on this host that the tool may reach without the proxy: each is connected to at its own address.
    pub passed: Vec<SocketAddr>,
    /// Name servers that the tool may ask, besides those that it asks by IPv4.
    pub name_servers: Vec<SocketAddr>,
}

/// A namespace that waits for its tool.
#[derive(Debug)]
pub struct Namespace {
    child: Child,
    channel: UnixStream,
}

/// The sockets of a namespace.
#[derive(Debug)]
pub struct Sockets {
    /// As [`Inside::listeners`].
    pub listeners: Vec<TcpListener>,
    /// For [`Watch`].
    pub service: ServiceSockets,
}

/// Those that are none of the proxy's listeners.
#[derive(Debug)]
pub struct ServiceSockets {
    passed: Vec<(TcpListener, SocketAddr)>,
    names: TcpListener,
    questions: Vec<UdpSocket>,
    /// Raw sockets. They are read as sockets for datagrams are.
    observers: Vec<UdpSocket>,
}

/// The port of name servers.
const NAMES: u16 = 53;

/// For how long the process inside may take for a step. It waits for nothing but the system.
const PATIENCE: Duration = Duration::from_secs(10);

impl Namespace {
    /// Makes a namespace, and what listens inside it.
    ///
    /// # Errors
    /// [`IsolateError::Namespace`].
    pub fn create(inside: &Inside) -> Result<(Self, Sockets), IsolateError> {
        let started = || IsolateError::new("cannot start a process");
        let (channel, other) = UnixStream::pair().map_err(started())?;
        channel.set_read_timeout(Some(PATIENCE)).map_err(started())?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(inside::COMMAND).stdin(Stdio::from(OwnedFd::from(other)));
        let child = command.spawn().map_err(started())?;
        // It holds this process's copy of the other end, without which the end of the channel would not be seen.
        drop(command);
        let mut namespace = Self { child, channel };
        let end = namespace.make(inside);
        if end.is_err() {
            namespace.abandon();
        }
        end.map(|sockets| (namespace, sockets))
    }

    fn make(&self, inside: &Inside) -> Result<Sockets, IsolateError> {
        let names = SocketAddr::from(([0; 16], NAMES));
        let tcp: Vec<_> = inside.listeners.iter().chain([&names]).chain(&inside.passed).copied().collect();
        let udp = [SocketAddr::from(([0; 4], NAMES))].into_iter().chain(inside.name_servers.iter().copied()).collect();
        let plan = Plan { tcp, udp };
        let talk = || -> io::Result<_> {
            send(&self.channel, &plan)?;
            send_descriptors(&self.channel, &[io::stdin().as_fd()])?;
            match receive::<Outcome>(&self.channel)?.ok_or(io::ErrorKind::UnexpectedEof)? {
                Outcome::Made(count) => receive_descriptors(&self.channel, count).map(Ok),
                Outcome::Failed(failed) => Ok(Err(failed)),
            }
        };
        let made = talk().map_err(IsolateError::new("the process inside the namespace failed"))?;
        let mut made = made.map_err(IsolateError::of)?.into_iter();
        let mut tcp = made.by_ref().take(plan.tcp.len()).map(TcpListener::from);
        let listeners = tcp.by_ref().take(inside.listeners.len()).collect();
        let names = tcp.next();
        let passed = tcp.zip(inside.passed.iter().copied()).collect();
        let questions = made.by_ref().take(plan.udp.len()).map(UdpSocket::from).collect();
        let incomplete = || IsolateError::of(Failed { step: Step::Channel, errno: Errno::IO.raw_os_error() });
        let names = names.ok_or_else(incomplete)?;
        Ok(Sockets {
            listeners,
            service: ServiceSockets { passed, names, questions, observers: made.map(UdpSocket::from).collect() },
        })
    }

    /// Has the process inside become the tool. The environment is that of this process, but for `set` and `unset`.
    ///
    /// # Errors
    /// [`IsolateError`].
    pub fn start(
        mut self,
        words: Vec<OsString>,
        set: Vec<(OsString, OsString)>,
        unset: &[&str],
    ) -> Result<Child, IsolateError> {
        let bytes = OsString::into_vec;
        let start = Start {
            words: words.into_iter().map(bytes).collect(),
            set: set.into_iter().map(|(name, value)| (bytes(name), bytes(value))).collect(),
            unset: unset.iter().map(|name| name.as_bytes().to_vec()).collect(),
        };
        let talk = || {
            send(&self.channel, &start)?;
            // The channel ends when the tool is executed.
            receive::<Outcome>(&self.channel)
        };
        match talk() {
            Ok(None) => Ok(self.child),
            Ok(Some(Outcome::Failed(failed))) => {
                self.abandon();
                Err(IsolateError::of(failed))
            }
            Ok(Some(Outcome::Made(_))) => {
                self.abandon();
                Err(IsolateError::of(Failed { step: Step::Channel, errno: Errno::PROTO.raw_os_error() }))
            }
            Err(error) => {
                self.abandon();
                Err(IsolateError::new("the process inside the namespace failed")(error))
            }
        }
    }

    /// Ends the process inside.
    fn abandon(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_what_refuses_a_namespace() {
        let none = |_: &str| None;
        for (errno, path, value, expected) in [
            (Errno::PERM, "", "", "seccomp=unconfined"),
            (Errno::NOSPC, "", "", "user.max_user_namespaces"),
            (Errno::PERM, "/proc/sys/user/max_user_namespaces", "0\n", "user.max_user_namespaces"),
            (Errno::PERM, "/proc/sys/kernel/unprivileged_userns_clone", "0\n", "unprivileged_userns_clone=1"),
            (Errno::ACCESS, "/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1\n", "AppArmor"),
        ] {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let hint = hint(&error, |asked| (asked == path).then(|| value.to_owned())).unwrap();
            assert!(hint.contains(expected) && hint.ends_with("without --isolate"), "{hint}");
        }
        let in_use = io::Error::from_raw_os_error(Errno::ADDRINUSE.raw_os_error());
        assert_eq!(hint(&in_use, none), None);
    }
}
