//! Listeners on UNIX sockets, and on sockets that systemd hands over by name.

use std::{
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::{Command, Output, Stdio},
};

use certs_dev::{Bundle, Case};

use crate::support::{
    command::vouchsafe,
    dir,
    gallery::{self, Front},
    netns::TOOL,
    origin::{Origin, Step, send},
    proxy::{PATIENCE, Proxy, program, without_ambient},
};

/// curl by way of a UNIX socket.
fn curl(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["-sSi", "--max-time", "30", "--unix-socket"]).arg(socket).args(arguments);
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn flags(listen: &str, origin: &Origin) -> Vec<String> {
    let name = format!("{}:{}", Case::Good.name(), origin.address.port());
    [
        ["--ca-bundle", &gallery::bundle(Bundle::Root)],
        ["--route", &format!("{listen}=https://{name}")],
        ["--connect-to", &format!("{name}={}", origin.address)],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_on_a_unix_socket_serves_whom_its_mode_lets_in() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nthe answer")]).await;
    let expired = Front::start(Case::Expired).await;
    let directory = dir();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let [path, closed] = ["a=b.sock", "closed.sock"].map(|name| directory.path().join(name));
    let mut flags = flags(&format!("unix:{},mode=0666", path.display()), &origin);
    let authority = expired.authority();
    flags.extend([
        format!("--route=unix:{}=https://{authority}", closed.display()),
        format!("--connect-to={authority}={}", expired.address),
    ]);
    let proxy = Proxy::start(&flags);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&closed)), (0o666, 0o600));

    let seen = text(&curl(&path, &["http://localhost/v2/images", "http://localhost/again"]));
    assert_eq!(seen.matches("the answer").count(), 2, "{seen}");
    let refused = text(&curl(&closed, &["http://localhost/"]));
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("details=\"expired\""), "{refused}");
    let event = proxy.audit().pop().unwrap();
    assert_eq!((&event["client.address"], &event["client.ip"]), (&"unix:uid=0".into(), &serde_json::Value::Null));
    let line = proxy.wait_for_access("the request", |event| event["path"] == "/again");
    assert_eq!((&line["client"], &line["whole"]), (&"unix:uid=0".into(), &true.into()));
    let summary = vouchsafe(&["audit", "--by", "client", &proxy.audit_path().display().to_string()]);
    assert!(summary.out.contains("unix:uid=0"), "{summary:?}");

    for (path, lets_in) in [(&path, true), (&closed, false)] {
        let mut other = Command::new("setpriv");
        other.args(["--reuid", TOOL, "--clear-groups", "curl", "-sS", "--max-time", "30", "--unix-socket"]);
        let status = other.arg(path).arg("http://localhost/").stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.success(), lets_in, "{}", path.display());
    }
    let line = proxy.wait_for_access("the other user", |event| event["client"] == "unix:uid=65534");
    assert_eq!(line["status"], 200);

    proxy.signal_until_it_ends("TERM");
    assert!(!path.exists() && !closed.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]).await;
    let directory = dir();
    let path = directory.path().join("a.sock");
    let flags = flags(&format!("unix:{}", path.display()), &origin);
    let first = Proxy::start(&flags);
    let second = vouchsafe(&[&["run".to_owned()], &flags[..]].concat());
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.err.contains("a process listens on it"), "{second:?}");
    first.signal_until_it_ends("KILL");
    assert!(path.exists());
    let third = Proxy::start(&flags);
    assert!(text(&curl(&path, &["http://localhost/"])).ends_with("ok"));
    // What somebody has put there instead is nobody's to remove.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    third.signal_until_it_ends("TERM");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    let fourth = vouchsafe(&[&["run".to_owned()], &flags[..]].concat());
    assert!(fourth.code == Some(1) && fourth.err.contains("remove a file that is no socket"), "{fourth:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forward_listener_on_a_unix_socket_is_served_by_host() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nthe answer")]).await;
    let directory = dir();
    let path = directory.path().join("forward.sock");
    let name = format!("{}:{}", Case::Good.name(), origin.address.port());
    let _proxy = Proxy::start(&[
        "--ca-bundle".to_owned(),
        gallery::bundle(Bundle::Root),
        format!("--forward=unix:{},mode=0660", path.display()),
        format!("--allow={name}"),
        format!("--connect-to={name}={}", origin.address),
    ]);
    let seen = text(&curl(&path, &[&format!("http://{name}/")]));
    assert!(seen.contains("the answer"), "{seen}");
    let seen = text(&curl(&path, &["http://other.gallery.test/"]));
    assert!(seen.contains("destination_denied"), "{seen}");
}

/// A UNIX socket knows no RST: what is cut has to show by its framing, or not begin.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_never_looks_whole_on_a_unix_socket() {
    let origin = Origin::start(|_, head| match head.split(' ').nth(1).unwrap() {
        "/exact" => vec![send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), Step::Fin],
        "/chunked" => vec![send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"), Step::Fin],
        "/close" => vec![send("HTTP/1.0 200 OK\r\n\r\nhalf"), Step::Fin],
        _ => vec![send("HTTP/1.0 200 OK\r\n\r\nwhole"), Step::Close],
    })
    .await;
    let directory = dir();
    let path = directory.path().join("a.sock");
    let proxy = Proxy::start(&flags(&format!("unix:{}", path.display()), &origin));
    for target in ["/exact", "/chunked", "/close"] {
        let output = curl(&path, &[&format!("http://localhost{target}")]);
        assert_eq!(output.status.code(), Some(18), "a transfer that is not complete: {target}: {}", text(&output));
    }
    let whole = curl(&path, &["http://localhost/"]);
    assert!(whole.status.success() && text(&whole).ends_with("whole"), "{}", text(&whole));
    for target in ["/close", "/chunked", "/"] {
        let output = curl(&path, &["-0", &format!("http://localhost{target}")]);
        let seen = text(&output);
        assert!(seen.starts_with("HTTP/1.0 500 ") && seen.contains("bad_response"), "{target}: {seen}");
        assert!(!seen.contains("half"), "{seen}");
    }
    let failure = proxy.wait_for_log("the reason", |event| event["class"] == "bad_response" && event["path"] == "/");
    assert!(failure["message"].as_str().unwrap().contains("could not tell its end from a cut"), "{failure}");
    let exact = curl(&path, &["-0", "http://localhost/exact"]);
    assert_eq!(exact.status.code(), Some(18));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_unix_socket_ends_its_request() {
    let origin = Origin::start(|_, _| vec![Step::Stall]).await;
    let directory = dir();
    let path = directory.path().join("a.sock");
    let proxy = Proxy::start(&flags(&format!("unix:{}", path.display()), &origin));
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    while origin.requests().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    drop(client);
    let line = proxy.wait_for_access("its end", |_| true);
    assert_eq!((&line["class"], &line["whole"]), (&"interrupted".into(), &false.into()));

    // One that has only said all that it wants is answered.
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]).await;
    let path = directory.path().join("b.sock");
    let _proxy = Proxy::start(&flags(&format!("unix:{}", path.display()), &origin));
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
}

/// Makes sockets as systemd does, and becomes the program that the arguments name.
const STARTER: &str = r#"
import os, socket, sys
made, names, pid = [], [], str(os.getpid())
for what in sys.argv[1].split(';'):
    name, kind, at = what.split('|')
    family = socket.AF_UNIX if kind.startswith('unix') else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM)
    s.bind(at if family == socket.AF_UNIX else (at, 0))
    if kind in ('tcp', 'unix'):
        s.listen()
    made.append(s); names.append(name)
# Away from where they are to be.
made = [os.dup2(s.fileno(), 100 + n) for n, s in enumerate(made)]
for n, fd in enumerate(made):
    os.dup2(fd, 3 + n, inheritable=True)
os.environ.update(LISTEN_FDS=str(len(made)), LISTEN_FDNAMES=':'.join(names))
os.environ['LISTEN_PID'] = os.environ.get('TEST_LISTEN_PID', pid)
os.execv(sys.argv[2], sys.argv[2:])
"#;

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_systemd_are_found_by_their_names() {
    let origin = Origin::start(|_, _| vec![send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]).await;
    let directory = dir();
    let path = directory.path().join("a.sock");
    let sockets = format!("other|tcp|127.0.0.1;glance-u|unix|{};glance-t|tcp|127.0.0.1", path.display());
    let starter = ["python3", "-c", STARTER, &sockets].map(str::to_owned);
    let mut all = flags("fd:glance-t", &origin);
    let name = all[3].split_once('=').unwrap().1.to_owned();
    all.push(format!("--route=fd:glance-u={name}"));
    let proxy = Proxy::start_under(&starter, &all);
    let url = format!("http://{}/", proxy.addr(0));
    let seen = Command::new("curl").args(["-sS", "--max-time", "30", &url]).output().unwrap();
    assert_eq!(text(&seen), "ok");
    assert!(text(&curl(&path, &["http://localhost/"])).ends_with("ok"));
    proxy.wait_for_line("the unused socket", |line| line.contains("the socket `other` was handed").then_some(()));
    proxy.signal_until_it_ends("TERM");
    assert!(path.exists(), "it is not ours to remove");
}

#[test]
fn sockets_that_cannot_serve_are_refused_by_name() {
    let run = |sockets: &str, pid: Option<&str>, flags: &[&str]| {
        let mut command = Command::new("python3");
        command.args(["-c", STARTER, sockets]).arg(program()).args(["run", "--ca-bundle"]);
        command.arg(gallery::bundle(Bundle::Root)).args(flags);
        without_ambient(&mut command);
        if let Some(pid) = pid {
            command.env("TEST_LISTEN_PID", pid);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), text(&output))
    };
    let route = ["--route", "fd:a=https://good.gallery.test"];
    let transparent = ["--transparent", "fd:a", "--allow", "*"];
    let directory = dir();
    let unix = format!("a|unix|{}", directory.path().join("a").display());
    for (sockets, pid, flags, code, words) in [
        ("b|tcp|127.0.0.1", None, &route[..], 1, "cannot listen on fd:a: no socket of that name was handed"),
        // They are for another process.
        ("a|tcp|127.0.0.1", Some("1"), &route, 1, "no socket of that name was handed"),
        ("a|tcp|0.0.0.0", None, &route, 1, "which other hosts can reach"),
        ("a|udp|127.0.0.1", None, &route, 2, "the socket `a`, number 1 of those handed to this process, is no TCP"),
        ("a|idle|127.0.0.1", None, &route, 2, "does not listen"),
        ("a|tcp|127.0.0.1;a|tcp|127.0.0.1", None, &route, 2, "has the name of another one"),
        (&unix, None, &transparent, 1, "connections cannot be redirected to one"),
    ] {
        let (status, output) = run(sockets, pid, flags);
        assert_eq!(status, Some(code), "{sockets}: {output}");
        assert!(output.contains(words), "{sockets}: {output}");
    }
}

#[test]
fn listeners_that_cannot_be_are_told_with_what_is_expected() {
    let bundle = gallery::bundle(Bundle::Root);
    for (flag, listen, words) in [
        ("--forward", "unix:", "a path is expected, as in `unix:/run/vouchsafe/glance-a.sock`"),
        ("--forward", "unix:/run/a,mode=9", "mode `9`: octal permissions are expected"),
        ("--forward", "unix:/run/a,mode=1777", "mode `1777`: octal permissions are expected"),
        ("--forward", "fd:", "the name of a socket is expected, as in `fd:glance-a`"),
        ("--forward", "fd:a:b", "the name of a socket is expected, as in `fd:glance-a`"),
        ("--transparent", "unix:/run/a", "connections cannot be redirected to a UNIX socket"),
    ] {
        let said = vouchsafe(&["config", "check", "--ca-bundle", &bundle, "--allow", "*", flag, listen]);
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains(words), "{said:?}");
    }
}
