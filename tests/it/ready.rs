//! `vouchsafe ready`: it is true of a process that lives and serves, whatever file was left behind by another.

use std::path::Path;

use certs_dev::Bundle;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    self,
    command::{Said, vouchsafe},
    gallery,
    origin::{Origin, Step, read_to_end},
    proxy::Proxy,
};

fn proxy(file: &Path) -> Proxy {
    Proxy::start(&[
        "--ca-bundle",
        &gallery::bundle(Bundle::Root),
        "--route=127.0.0.1:0=https://good.gallery.test",
        &format!("--ready-file={}", file.display()),
    ])
}

fn ready(file: &Path) -> Said {
    vouchsafe(&["ready", "--ready-file", &file.display().to_string()])
}

fn is_not_ready(file: &Path, why: &str) {
    let said = ready(file);
    assert!(said.code == Some(1) && said.err.contains(why) && said.out.is_empty(), "{said:?}");
}

fn is_ready(file: &Path) {
    let said = ready(file);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "ready\n", ""));
}

#[test]
fn a_proxy_is_ready_from_its_start_to_its_end() {
    let directory = support::dir();
    let file = directory.path().join("ready");
    is_not_ready(&file, "there is no ready file");
    let proxy = proxy(&file);
    is_ready(&file);
    is_ready(&file);
    assert_eq!(proxy.stop().code(), Some(0));
    is_not_ready(&file, "there is no ready file");
}

#[test]
fn a_file_that_a_killed_proxy_left_behind_is_not_believed() {
    let directory = support::dir();
    let file = directory.path().join("ready");
    let mut killed = proxy(&file);
    let copy = directory.path().join("copy");
    std::fs::copy(&file, &copy).unwrap();
    is_not_ready(&copy, "was left behind by a process that has ended");
    killed.signal("KILL");
    killed.wait();
    assert!(file.exists());
    is_not_ready(&file, "was left behind by a process that has ended");
    let _next = proxy(&file);
    is_ready(&file);
}

#[test]
fn a_successor_keeps_its_file_when_its_predecessor_ends() {
    let directory = support::dir();
    let file = directory.path().join("ready");
    let before = proxy(&file);
    let now = proxy(&file);
    assert_eq!(before.stop().code(), Some(0));
    is_ready(&file);
    assert_eq!(now.stop().code(), Some(0));
    assert!(!file.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_drains_is_not_ready() {
    let directory = support::dir();
    let file = directory.path().join("ready");
    let origin = Origin::start(|_, _| vec![Step::Stall]).await;
    let proxy = crate::forwarding::start(&origin, &["--ready-file", &file.display().to_string()]);
    let mut running = TcpStream::connect(proxy.addr(0)).await.unwrap();
    running.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    origin.has_requests(1).await;
    is_ready(&file);
    proxy.signal("TERM");
    proxy.wait_for_log("draining", |event| event["message"] == "draining");
    is_not_ready(&file, "there is no ready file");
    proxy.signal_until_it_ends("TERM");
    assert!(read_to_end(&mut running).await.reset);
}

#[test]
fn it_waits_as_long_as_it_is_told() {
    let directory = support::dir();
    let file = directory.path().join("ready");
    let asked = file.clone();
    let waiting = std::thread::spawn(move || {
        vouchsafe(&["ready", "--ready-file", &asked.display().to_string(), "--timeout", "50s"])
    });
    let _proxy = proxy(&file);
    let said = waiting.join().unwrap();
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn the_file_is_that_of_the_configuration() {
    let directory = support::dir();
    let (file, config) = (directory.path().join("ready"), directory.path().join("vouchsafe.toml"));
    std::fs::write(&config, format!("ready_file = \"{}\"\n", file.display())).unwrap();
    let config = config.display().to_string();
    let said = vouchsafe(&["ready", "--config", &config, "--timeout", "0s"]);
    assert!(said.code == Some(1) && said.err.contains("there is no ready file"), "{said:?}");
    let _proxy = proxy(&file);
    assert_eq!(vouchsafe(&["ready", "--config", &config]).code, Some(0));
    let said = vouchsafe(&["ready"]);
    assert!(said.code == Some(2) && said.err.contains("hint: set --ready-file, or --admin"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_listener_on_a_unix_socket_is_asked() {
    let directory = support::dir();
    let socket = directory.path().join("admin");
    let admin = format!("unix:{}", socket.display());
    let asked = || vouchsafe(&["ready", "--admin", &admin]);
    let said = asked();
    assert!(said.code == Some(1) && said.err.contains("cannot connect to the admin listener"), "{said:?}");
    let origin = Origin::start(|_, _| vec![Step::Stall]).await;
    let proxy = crate::forwarding::start(&origin, &["--admin", &format!("{admin},mode=0600")]);
    let said = asked();
    assert_eq!((said.code, said.out.as_str()), (Some(0), "ready\n"), "{said:?}");
    let mut running = TcpStream::connect(proxy.addr(0)).await.unwrap();
    running.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    origin.has_requests(1).await;
    proxy.signal("TERM");
    proxy.wait_for_log("draining", |event| event["message"] == "draining");
    let said = asked();
    assert!(said.code == Some(1) && said.err.contains("draining"), "{said:?}");
    proxy.signal_until_it_ends("TERM");
}
