//! What a service manager is told by the protocol of sd_notify(3).

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
};

use certs_dev::Bundle;

use crate::support::{
    self, gallery,
    proxy::{PATIENCE, Proxy},
};

/// A service manager's end.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self::of(UnixDatagram::bind(path).unwrap())
    }

    fn of(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next message, line by line.
    fn next(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).expect("a message");
        let text = str::from_utf8(&bytes[..length]).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn start(bundle: &Path, variables: &[(&str, &str)]) -> Proxy {
    let flags = ["--ca-bundle", bundle.to_str().unwrap(), "--route=127.0.0.1:0=https://good.gallery.test"];
    Proxy::start_with(&flags, variables)
}

/// The time since this system began, in microseconds.
fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

#[test]
fn ready_reloading_and_stopping_are_told() {
    let directory = support::dir();
    let (socket, bundle) = (directory.path().join("notify"), directory.path().join("ca.pem"));
    fs::copy(gallery::bundle(Bundle::Root), &bundle).unwrap();
    let manager = Manager::at(&socket);
    // So that SIGHUP alone is what reloads.
    let variables = [("NOTIFY_SOCKET", socket.to_str().unwrap()), ("VOUCHSAFE_RELOAD_INTERVAL", "1h")];
    let proxy = start(&bundle, &variables);
    let ready = |settings: &str| {
        ["READY=1".to_owned(), format!("STATUS=ready: 1 listener, 1 trusted CA, settings of {settings}")]
    };
    assert_eq!(manager.next(), ready("start (1)"));

    let reloads = || {
        let before = monotonic();
        proxy.signal("HUP");
        let told = manager.next();
        assert!(told[0] == "RELOADING=1" && told[2] == "STATUS=reloading" && told.len() == 3, "{told:?}");
        let at: i64 = told[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=monotonic()).contains(&at), "{at} is not behind {before}");
        manager.next()
    };
    assert_eq!(reloads(), ready("SIGHUP (2)"));
    fs::write(&bundle, "").unwrap();
    let failed = reloads();
    let why = "STATUS=the new settings cannot be used, the old ones remain in effect: --ca-bundle";
    assert!(failed[0] == "READY=1" && failed[1].starts_with(why) && failed.len() == 2, "{failed:?}");

    assert_eq!(proxy.stop().code(), Some(0));
    assert_eq!(manager.next(), ["STOPPING=1", "STATUS=draining"]);
}

#[test]
fn a_service_manager_may_listen_in_the_abstract_namespace() {
    let name = format!("vouchsafe-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::of(UnixDatagram::bind_addr(&address).unwrap());
    let _proxy = start(Path::new(&gallery::bundle(Bundle::Root)), &[("NOTIFY_SOCKET", &format!("@{name}"))]);
    assert_eq!(manager.next()[0], "READY=1");
}

#[test]
fn a_watchdog_is_fed_if_it_is_for_this_process() {
    let directory = support::dir();
    let socket = directory.path().join("notify");
    let manager = Manager::at(&socket);
    let path = socket.to_str().unwrap();
    let bundle = gallery::bundle(Bundle::Root);
    let proxy = start(Path::new(&bundle), &[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "400000")]);
    assert_eq!(manager.next()[0], "READY=1");
    for _ in 0..5 {
        assert_eq!(manager.next(), ["WATCHDOG=1"]);
    }
    // A process that does not run feeds nothing; this one goes on.
    proxy.stop();
    while manager.next() != ["STOPPING=1", "STATUS=draining"] {}

    let other = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let proxy = start(Path::new(&bundle), &other);
    assert_eq!(manager.next()[0], "READY=1");
    proxy.stop();
    assert_eq!(manager.next()[0], "STOPPING=1", "and no sign of life in between");
}

#[test]
fn a_service_manager_that_is_gone_is_logged_once_and_one_that_cannot_be_is_an_error() {
    let bundle = gallery::bundle(Bundle::Root);
    let directory = support::dir();
    let gone = directory.path().join("gone");
    let proxy = start(Path::new(&bundle), &[("NOTIFY_SOCKET", gone.to_str().unwrap()), ("WATCHDOG_USEC", "80000")]);
    let is_told = |event: &serde_json::Value| event["message"].as_str().unwrap_or_default().contains("NOTIFY_SOCKET");
    proxy.wait_for_log("a warning", is_told);
    assert_eq!(proxy.log().iter().filter(|event| is_told(event)).count(), 1);
    assert_eq!(proxy.stop().code(), Some(0));

    let route = "--route=127.0.0.1:0=https://good.gallery.test";
    let run = ["run", "--ca-bundle", &bundle, route];
    let output = crate::life::vouchsafe(&run, &[("NOTIFY_SOCKET", "vsock:2:1234")]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && text.contains("error: NOTIFY_SOCKET `vsock:2:1234`: "), "{text}");
}
