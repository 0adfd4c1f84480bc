//! Transparent listeners: redirect rules of the kernel lead a tool's connections to the proxy, and the tool knows nothing.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use certs_dev::{Bundle, Case, Counters, Server};
use tokio::runtime::Runtime;

use crate::support::{
    gallery::{self, GALLERY},
    netns::{TOOL, feed, in_namespace, run, tool},
    proxy::{PATIENCE, Proxy},
};

/// Addresses of servers on this host, neither of them special.
const HOST: &[&str] = &["203.0.113.9/32", "2001:db8:1::9/128"];

/// Leads connections of a user to the proxy.
fn redirect(user: &str, to: SocketAddr) {
    let rule = format!(
        "table inet test {{ chain output {{ type nat hook output priority -100; policy accept;
         meta skuid {user} tcp dport {{ 80, 5000, 9292 }} redirect to :{}; }}\n}}\n",
        to.port()
    );
    feed(&["nft", "-f", "-"], &rule);
}

/// A transparent proxy that trusts the gallery's root. Its port is free in the namespace.
fn proxy(flags: &[&str]) -> Proxy {
    let bundle = gallery::bundle(Bundle::Root);
    Proxy::start(&[&["--ca-bundle", &bundle, "--transparent", "15001"], flags].concat())
}

/// Servers in the test's namespace.
struct Servers(Runtime);

impl Servers {
    fn new() -> Self {
        Self(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
    }

    fn start(&self, case: Case, address: &str) -> Arc<Counters> {
        let identity = GALLERY.identity(case).unwrap();
        let server = self.0.block_on(Server::bind(address.parse().unwrap(), &identity, "the answer")).unwrap();
        let counters = server.counters();
        self.0.spawn(server.run());
        counters
    }
}

/// curl as the tool's user; its output, with the head of each response.
fn curl(arguments: &[&str]) -> String {
    let mut command = tool("curl");
    let output = command.args(["-sSi", "-g", "--max-time", "30"]).args(arguments).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// What comes back on a connection on which this is sent, and whether it ends by RST.
fn send(to: &str, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut tcp = TcpStream::connect(to).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.write_all(bytes).unwrap();
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match tcp.read(&mut piece) {
            Ok(0) => return (answer, false),
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return (answer, true),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_original_address_is_dialled_and_the_name_of_host_is_verified() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let good = servers.start(Case::Good, "203.0.113.9:9292");
        let good_v6 = servers.start(Case::Good, "[2001:db8:1::9]:9292");
        let expired = servers.start(Case::Expired, "203.0.113.9:5000");
        let tls = servers.start(Case::Good, "203.0.113.9:443");
        let proxy = proxy(&["--allow", "good.gallery.test", "--allow", "expired.gallery.test"]);
        redirect(TOOL, proxy.addr(0));
        // No name server could tell: these names are resolved by nobody but curl.
        for (name, port, address, status, words) in [
            ("good.gallery.test", 9292, "203.0.113.9", "200", "the answer"),
            ("good.gallery.test", 9292, "[2001:db8:1::9]", "200", "the answer"),
            // 80 means 443 at the same address.
            ("good.gallery.test", 80, "203.0.113.9", "200", "the answer"),
            ("expired.gallery.test", 5000, "203.0.113.9", "403", "expired"),
            // The name is allowed, and the server at that address does not prove it.
            ("expired.gallery.test", 9292, "203.0.113.9", "403", "name_mismatch"),
            ("other.gallery.test", 9292, "203.0.113.9", "403", "destination_denied"),
        ] {
            let url = format!("http://{name}:{port}/v2/images");
            let seen = curl(&["--resolve", &format!("{name}:{port}:{address}"), &url]);
            assert!(seen.starts_with(&format!("HTTP/1.1 {status} ")), "{url} at {address}: {seen}");
            assert!(seen.contains(words), "{url} at {address}: {seen}");
        }
        assert_eq!((good.requests(), good_v6.requests(), tls.requests()), (1, 1, 1));
        assert_eq!(expired.application_bytes(), 0);
        let refused: Vec<_> = proxy.audit().iter().map(|event| event["error.code"].to_string()).collect();
        assert_eq!(refused, ["\"expired\"", "\"name_mismatch\"", "\"destination_denied\""]);
        let line = proxy.wait_for_access("the IPv6 request", |event| event["address"] == "[2001:db8:1::9]:9292");
        assert_eq!(line["upstream"], "good.gallery.test:9292");
    });
}

#[test]
fn a_name_opens_no_special_address_and_a_forged_host_is_refused() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let loopback = servers.start(Case::Good, "127.0.0.1:9292");
        let good = servers.start(Case::Good, "203.0.113.9:9292");
        let proxy = proxy(&["--allow", "good.gallery.test:9292"]);
        redirect(TOOL, proxy.addr(0));
        let at_loopback = curl(&["--resolve", "good.gallery.test:9292:127.0.0.1", "http://good.gallery.test:9292/"]);
        assert!(at_loopback.contains("127.0.0.1, the address that the client connected to, is not allowed"));
        assert_eq!(loopback.connections(), 0);

        let url = "http://203.0.113.9:9292/";
        // On one connection, each request is judged for itself.
        let next = ["--next", "-sSi", "--max-time", "30"];
        let [allowed, denied, mismatch] =
            ["Host: good.gallery.test", "Host: other.gallery.test:9292", "Host: good.gallery.test:80"];
        let seen = curl(&[&["-H", allowed, url], &next[..], &["-H", denied, url]].concat());
        let answers: Vec<_> = seen.match_indices("HTTP/1.1 ").map(|(at, _)| &seen[at + 9..at + 12]).collect();
        assert_eq!(answers, ["200", "403"], "{seen}");
        let clients = || proxy.log().into_iter().filter(|event| event["message"] == "request");
        let clients: std::collections::BTreeSet<_> = clients().map(|event| event["client"].to_string()).collect();
        assert_eq!(clients.len(), 2, "one connection for both, and that to loopback: {clients:?}");
        let seen = curl(&["-H", mismatch, url]);
        assert!(seen.contains("the client connected to port 9292 and asked for `good.gallery.test:80`"), "{seen}");
        // The authority of an absolute-form target obeys the same.
        let seen = curl(&["--request-target", "http://good.gallery.test:80/", url]);
        assert!(seen.contains("details=\"host_mismatch\""), "{seen}");
        let seen = curl(&["--request-target", "http://good.gallery.test:9292/", url]);
        assert!(seen.starts_with("HTTP/1.1 200"), "{seen}");
        let seen = curl(&["-X", "CONNECT", "--request-target", "good.gallery.test:9292", url]);
        assert!(seen.contains("details=\"connect_refused\""), "{seen}");
        assert_eq!(good.requests(), 2);
        let mismatch = proxy.audit().into_iter().find(|event| event["error.code"] == "host_mismatch").unwrap();
        assert_eq!((&mismatch["server.ip"], &mismatch["server.port"]), (&"203.0.113.9".into(), &9292.into()));
    });
}

#[test]
fn without_host_or_with_several_the_address_is_the_name() {
    in_namespace(&[], || {
        let servers = Servers::new();
        let by_address = servers.start(Case::GoodIp, "127.0.0.1:9292");
        let proxy = proxy(&["--allow", "127.0.0.1:9292"]);
        redirect(TOOL, proxy.addr(0));
        let url = "http://127.0.0.1:9292/";
        for arguments in [&["-H", "Host:", "-0"][..], &["-H", "Host:"], &[]] {
            let seen = curl(&[arguments, &[url]].concat());
            assert!(seen.contains(" 200 ") && seen.contains("the answer"), "{arguments:?}: {seen}");
        }
        let several = "exec 3<>/dev/tcp/127.0.0.1/9292
            printf 'GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n' >&3
            cat <&3";
        let seen = tool("bash").args(["-c", several]).output().unwrap();
        let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
        assert!(seen.contains(" 200 ") && seen.contains("the answer"), "{seen}");
        assert_eq!(by_address.requests(), 4);
    });
}

#[test]
fn connect_to_is_dialled_instead_and_names_stay_verified() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let elsewhere = servers.start(Case::Good, "127.0.0.1:9393");
        let name = "good.gallery.test:9292";
        let proxy = proxy(&["--allow", name, "--connect-to", "good.gallery.test:9292=127.0.0.1:9393"]);
        redirect(TOOL, proxy.addr(0));
        let seen = curl(&["--resolve", "good.gallery.test:9292:203.0.113.9", "http://good.gallery.test:9292/"]);
        assert!(seen.contains("the answer"), "{seen}");
        assert_eq!(elsewhere.requests(), 1);
    });
}

#[test]
fn a_connection_that_came_by_itself_is_refused() {
    in_namespace(HOST, || {
        let proxy = proxy(&["--allow", "*"]);
        let to = proxy.addr(0).to_string();
        // Without any rule, and with some.
        for _ in 0..2 {
            let (answer, _) = send(&to, b"GET / HTTP/1.1\r\nHost: good.gallery.test:9292\r\n\r\n");
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("not_redirected"), "{answer}");
            redirect(TOOL, proxy.addr(0));
        }
        assert!(proxy.audit().iter().all(|event| event["error.code"] == "not_redirected"));
    });
}

#[test]
fn rules_that_catch_the_proxy_itself_are_found_as_a_loop() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let never = servers.start(Case::Good, "203.0.113.9:9292");
        let proxy = proxy(&["--allow", "good.gallery.test"]);
        // The user of the proxy, and of the client.
        redirect("0", proxy.addr(0));
        for to in ["203.0.113.9:9292", "[2001:db8:1::9]:9292"] {
            let request = b"GET / HTTP/1.1\r\nHost: good.gallery.test:9292\r\nConnection: close\r\n\r\n";
            let answer = String::from_utf8(send(to, request).0).unwrap();
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("details=\"loop\""), "{answer}");
        }
        let audit = proxy.audit();
        assert_eq!(audit.len(), 4, "{audit:?}");
        for event in &audit {
            assert_eq!(event["error.code"], "loop", "{event}");
            assert!(event["vouchsafe.hint"].as_str().unwrap().contains("catch the proxy's own user"), "{event}");
        }
        assert_eq!(never.connections(), 0);
    });
}

#[test]
fn first_bytes_that_are_not_http_are_refused_in_the_clients_own_terms() {
    in_namespace(HOST, || {
        let proxy = proxy(&["--allow", "*", "--head-timeout", "500ms"]);
        // Of the test's own user: nothing is dialled.
        redirect("0", proxy.addr(0));
        let to = "203.0.113.9:9292";
        for (bytes, answer, code, message) in [
            (&b"\x16\x03\x01\x00\x05hello"[..], &b"\x15\x03\x03\0\x02\x02\x28"[..], "tls_on_plain_listener", "a TLS"),
            (b"\x80\x2e\x01\x03\x01\x00\x15", b"\x15\x03\x03\0\x02\x02\x46", "tls_too_old", "framing of SSL 2"),
            (b"\0\0\0\x54\xffSMBsecret", b"HTTP/1.1 403 ", "not_http", "00 00 00 54 ff 53 4d 42"),
        ] {
            let (seen, _) = send(to, bytes);
            assert!(seen.starts_with(answer), "{code}: {seen:x?}");
            let event = proxy.audit().pop().unwrap();
            assert_eq!((&event["error.code"], &event["server.ip"]), (&code.into(), &"203.0.113.9".into()), "{event}");
            assert!(event["error.message"].as_str().unwrap().contains(message), "{event}");
            assert!(!event.to_string().contains("secret") && !event.to_string().contains("73 65 63"), "{event}");
        }
        let (preface, _) = send(to, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let preface = String::from_utf8_lossy(&preface).into_owned();
        assert!(preface.starts_with("HTTP/1.1 400 ") && preface.contains("HTTP/2 is not served here"), "{preface}");
        // A server of this protocol would have spoken first.
        let (silence, reset) = send(to, b"");
        assert!(silence.is_empty() && reset);
        let event = proxy.audit().pop().unwrap();
        assert_eq!(event["error.code"], "no_request");
        assert_eq!(event["vouchsafe.hint"], "this port is not HTTP: take it out of the redirected ports");

        let curl =
            run(&["sh", "-c", "curl -sS --resolve a.example:9292:203.0.113.9 https://a.example:9292/ 2>&1; true"]);
        assert!(curl.contains("handshake failure"), "{curl}");
        let event = proxy.audit().pop().unwrap();
        assert!(event["error.message"].as_str().unwrap().contains("a TLS handshake for `a.example`"), "{event}");
    });
}
