//! Transparent listeners: redirect rules of the kernel lead a tool's connections to the proxy, and the tool knows nothing.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::Arc,
};

use certs_dev::{Bundle, Case, Counters, Server};
use tokio::runtime::Runtime;
use vouchsafe::{
    app::{App, Running},
    config::{
        args::{Options, RunArgs},
        environment::Environment,
        settings::Settings,
        watch::Files,
    },
    proxy::settings::{ListenAddress, OriginalAddress, Service},
    server::{
        Stop,
        socket::{InheritedSockets, ListeningSocket},
    },
};

use crate::support::{
    command::vouchsafe,
    gallery::{self, GALLERY},
    glance15,
    image_server::{Image, ImageServer},
    netns::{TOOL, feed, in_namespace, run, tool},
    proxy::{PATIENCE, Proxy},
    replicator::Release,
};

/// Addresses of servers on this host, neither of them special.
pub const HOST: &[&str] = &["203.0.113.9/32", "2001:db8:1::9/128"];

/// What loads redirect rules, and the format of rules for it.
const LOADERS: [(&str, &str); 3] = [
    ("nft -f -", "nft"),
    ("tee >(ip6tables-nft-restore --noflush) | iptables-nft-restore --noflush", "iptables"),
    ("tee >(ip6tables-legacy-restore --noflush) | iptables-legacy-restore --noflush", "iptables"),
];

/// The rules for the tool that the program prints.
fn rules(format: &str) -> String {
    let arguments = ["redirect-rules", "--user", TOOL, "--ports", "80,5000,9292", "--format", format];
    run(&[&[env!("CARGO_BIN_EXE_vouchsafe")], &arguments[..]].concat())
}

/// Loads rules; with bash, which has to wait for the one in the brackets.
fn load(loader: &str, rules: &str) {
    feed(&["bash", "-c", &format!("{loader} >/dev/null; status=$?; wait; exit $status")], rules);
}

/// Leads connections of the tool to the proxy.
pub fn redirect() {
    load("nft -f -", &rules("nft"));
}

/// Leads connections of any user to the proxy, also those for which no rules are printed.
pub fn redirect_user(user: &str, to: SocketAddr) {
    let rule = format!(
        "table inet test {{ chain output {{ type nat hook output priority -100; policy accept;
         meta skuid {user} tcp dport {{ 80, 5000, 9292 }} redirect to :{}; }}\n}}\n",
        to.port()
    );
    feed(&["nft", "-f", "-"], &rule);
}

/// A transparent proxy that trusts the gallery's root. Its port is free in the namespace.
pub fn proxy(flags: &[&str]) -> Proxy {
    proxy_at("15001", flags)
}

fn proxy_at(listen: &str, flags: &[&str]) -> Proxy {
    let bundle = gallery::bundle(Bundle::Root);
    Proxy::start(&[&["--ca-bundle", &bundle, "--transparent", listen], flags].concat())
}

/// Servers in the test's namespace.
pub struct Servers(Runtime);

impl Servers {
    pub fn new() -> Self {
        Self(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
    }

    pub fn start(&self, case: Case, address: &str) -> Arc<Counters> {
        let identity = GALLERY.identity(case).unwrap();
        let server = self.0.block_on(Server::bind(address.parse().unwrap(), &identity, "the answer")).unwrap();
        let counters = server.counters();
        self.0.spawn(server.run());
        counters
    }
}

/// curl as the tool's user; its output, with the head of each response.
pub fn curl(arguments: &[&str]) -> String {
    let mut command = tool("curl");
    let output = command.args(["-sSi", "-g", "--max-time", "30"]).args(arguments).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// What comes back on a connection on which this is sent, and whether it ends by RST.
pub fn send(to: &str, bytes: &[u8]) -> (Vec<u8>, bool) {
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
        redirect();
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
        redirect();
        let at_loopback = curl(&["--resolve", "good.gallery.test:9292:127.0.0.1", "http://good.gallery.test:9292/"]);
        assert!(at_loopback.contains("127.0.0.1, the address that the client connected to, is not allowed"));
        assert_eq!(loopback.connections(), 0);
        let at_loopback_client = proxy.wait_for_access("its end", |_| true)["client"].clone();

        let url = "http://203.0.113.9:9292/";
        // On one connection, each request is judged for itself.
        let next = ["--next", "-sSi", "--max-time", "30"];
        let [allowed, denied, mismatch] =
            ["Host: good.gallery.test", "Host: other.gallery.test:9292", "Host: good.gallery.test:80"];
        let seen = curl(&[&["-H", allowed, url], &next[..], &["-H", denied, url]].concat());
        let answers: Vec<_> = seen.match_indices("HTTP/1.1 ").map(|(at, _)| &seen[at + 9..at + 12]).collect();
        assert_eq!(answers, ["200", "403"], "{seen}");
        let [first, second] = ["good.gallery.test:9292", ""].map(|upstream| {
            let is_it =
                |event: &serde_json::Value| event["upstream"] == upstream && event["client"] != at_loopback_client;
            proxy.wait_for_access("the request", is_it)
        });
        assert_eq!(first["client"], second["client"], "one connection for both");
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
        let _proxy = proxy(&["--allow", "127.0.0.1:9292"]);
        redirect();
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
        let _proxy = proxy(&["--allow", name, "--connect-to", "good.gallery.test:9292=127.0.0.1:9393"]);
        redirect();
        let seen = curl(&["--resolve", "good.gallery.test:9292:203.0.113.9", "http://good.gallery.test:9292/"]);
        assert!(seen.contains("the answer"), "{seen}");
        assert_eq!(elsewhere.requests(), 1);
    });
}

/// One socket for both families sees IPv4 clients under IPv6 addresses.
#[test]
fn a_listener_for_both_families_knows_the_original_address_of_each() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let v4 = servers.start(Case::Good, "203.0.113.9:9292");
        let v6 = servers.start(Case::Good, "[2001:db8:1::9]:9292");
        let proxy = proxy_at("[::]:15001", &["--allow-nonlocal-listen", "--allow", "good.gallery.test"]);
        redirect();
        for address in ["203.0.113.9", "[2001:db8:1::9]"] {
            let seen = curl(&["-H", "Host: good.gallery.test", &format!("http://{address}:9292/")]);
            assert!(seen.contains("the answer"), "{seen}");
        }
        assert_eq!((v4.requests(), v6.requests()), (1, 1));
        for to in ["127.0.0.1:15001", "203.0.113.9:15001", "[::1]:15001"] {
            let seen = String::from_utf8(send(to, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").0).unwrap();
            assert!(seen.contains("not_redirected"), "{to}: {seen}");
        }
        assert_eq!(proxy.audit().len(), 3);
    });
}

#[test]
fn a_reload_keeps_connections_to_original_addresses() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let good = servers.start(Case::Good, "203.0.113.9:9292");
        let proxy = proxy(&["--allow", "good.gallery.test", "--pool-idle-timeout", "1m"]);
        redirect();
        for (path, reused) in [("/first", false), ("/second", true)] {
            let url = format!("http://203.0.113.9:9292{path}");
            assert!(curl(&["-H", "Host: good.gallery.test", &url]).contains("the answer"));
            let line = proxy.wait_for_access("the request", |event| event["path"] == path);
            assert_eq!(line["reused"], reused, "{line}");
            proxy.signal("HUP");
            proxy.wait_for_log("the reload", |event| event["message"] == "reloaded");
        }
        assert_eq!(good.connections(), 1);
    });
}

#[test]
fn settings_of_transparent_listeners_that_cannot_apply_are_reported() {
    let bundle = gallery::bundle(Bundle::Root);
    let check = |flags: &[&str]| vouchsafe(&[&["config", "check", "--ca-bundle", &bundle], flags].concat());
    let said = check(&["--transparent", "15001"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("a transparent listener would refuse every request"), "{said:?}");
    let said = check(&["--transparent", "15001", "--allow", "a.example", "--follow-redirects"]);
    assert_eq!(said.code, Some(0));
    assert!(said.err.contains("transparent listeners leave redirects to their clients"), "{said:?}");
    assert!(said.out.contains("2 listeners"), "a port alone is for both families: {said:?}");
    for (listen, words) in [
        ("0.0.0.0:15001", "--allow-nonlocal-listen"),
        ("99999", "port 99999 is not within 1-65535"),
        ("host:1", "is not an IP address to listen on"),
    ] {
        let said = check(&["--transparent", listen, "--allow", "a.example"]);
        assert!(said.code == Some(2) && said.err.contains(words), "{said:?}");
    }
}

#[test]
fn a_connection_that_came_by_itself_is_refused() {
    in_namespace(HOST, || {
        let proxy = proxy(&["--allow", "*"]);
        proxy.wait_for_line("a warning", |line| line.contains("a transparent listener runs as root").then_some(()));
        let to = proxy.addr(0).to_string();
        // Without any rule, and with some.
        for _ in 0..2 {
            let (answer, _) = send(&to, b"GET / HTTP/1.1\r\nHost: good.gallery.test:9292\r\n\r\n");
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("not_redirected"), "{answer}");
            redirect();
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
        redirect_user("0", proxy.addr(0));
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

/// A forward listener that is reached by Host, and a rule that leads there.
#[test]
fn a_loop_over_a_forward_listener_is_found_too() {
    in_namespace(HOST, || {
        let proxy = Proxy::start(&[
            "--ca-bundle",
            &gallery::bundle(Bundle::Root),
            "--forward=127.0.0.1:3128",
            "--allow=good.gallery.test:9292",
            "--connect-to=good.gallery.test:9292=203.0.113.9:9292",
        ]);
        redirect_user("0", proxy.addr(0));
        let request = b"GET / HTTP/1.1\r\nHost: good.gallery.test:9292\r\nConnection: close\r\n\r\n";
        let answer = String::from_utf8(send("127.0.0.1:3128", request).0).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("details=\"loop\""), "{answer}");
        let audit = proxy.audit();
        assert!(audit.len() == 2 && audit.iter().all(|event| event["error.code"] == "loop"), "{audit:?}");
    });
}

/// Neither the listener nor the original address needs a privilege.
#[test]
fn an_ordinary_user_serves_redirected_connections() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let good = servers.start(Case::Good, "203.0.113.9:9292");
        let bundle = gallery::bundle(Bundle::Root);
        let readable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(std::path::Path::new(&bundle).parent().unwrap(), readable).unwrap();
        let user = ["setpriv", "--reuid", "2", "--regid", "2", "--clear-groups", "--bounding-set=-all"];
        let user = user.map(str::to_owned);
        let flags = ["--transparent=15001", "--allow=good.gallery.test", "--audit-log", "/dev/null", "--ca-bundle"];
        let proxy = Proxy::start_under(&user, &[&flags[..], &[&bundle]].concat());
        redirect();
        let seen = curl(&["-H", "Host: good.gallery.test", "http://203.0.113.9:9292/"]);
        assert!(seen.contains("the answer"), "{seen}");
        assert_eq!(good.requests(), 1);
        assert!(!proxy.raw_log().contains("runs as root"));
        let (good, text) = check();
        assert!(good && text.contains("ok    bin (2) to 127.0.0.1:9292: left alone"), "{text}");
        redirect_user("2", proxy.addr(0));
        let (good, text) = check();
        assert!(!good && text.contains("FAIL  bin (2) to [::1]:9292: it is redirected"), "{text}");
        assert!(text.contains("hint: other rules catch the user of vouchsafe"), "{text}");
    });
}

#[test]
fn first_bytes_that_are_not_http_are_refused_in_the_clients_own_terms() {
    in_namespace(HOST, || {
        let proxy = proxy(&["--allow", "*", "--head-timeout", "500ms"]);
        // Of the test's own user: nothing is dialled.
        redirect_user("0", proxy.addr(0));
        let to = "203.0.113.9:9292";
        for (bytes, answer, code, message) in [
            (&b"\x16\x03\x01\x00\x05hello"[..], &b"\x15\x03\x03\0\x02\x02\x28"[..], "tls_on_plain_listener", "a TLS"),
            (b"\x80\x2e\x01\x03\x01\x00\x15", b"\x15\x03\x03\0\x02\x02\x46", "tls_too_old", "framing of SSL 2"),
            (b"\0\0\0\x54\xffSMBsecret", b"HTTP/1.1 403 ", "not_http", "00 00 00 54 ff 53 4d 42"),
            (b"SSH-2.0-secret\r\n", b"HTTP/1.1 403 ", "not_http", "53 53 48 2d 32 2e 30 2d"),
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

/// The other way to the original address: the client is in a namespace where every address is local, and the listener
/// was made there and handed over.
#[test]
fn a_listener_of_another_namespace_takes_the_address_of_the_accepted_socket() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let good = servers.start(Case::Good, "203.0.113.9:9292");
        let good_v6 = servers.start(Case::Good, "[2001:db8:1::9]:9292");
        let loopback = servers.start(Case::Good, "127.0.0.1:9292");
        let (give, take) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let inside = std::thread::spawn(move || {
            in_namespace(&[], move || {
                run(&["ip", "route", "add", "local", "default", "dev", "lo"]);
                run(&["ip", "-6", "route", "add", "local", "default", "dev", "lo"]);
                give.send(TcpListener::bind("[::]:9292").unwrap()).unwrap();
                gone.recv().unwrap();
                for (address, answer) in [
                    ("203.0.113.9", "the answer"),
                    ("[2001:db8:1::9]", "the answer"),
                    // Of the proxy's side, and not the listener in here.
                    ("127.0.0.1", "the answer"),
                    ("203.0.113.200", "connect_failed"),
                ] {
                    let resolve = format!("good.gallery.test:9292:{address}");
                    let seen = curl(&["--resolve", &resolve, "http://good.gallery.test:9292/"]);
                    assert!(seen.contains(answer), "{address}: {seen}");
                }
                assert!(curl(&["http://203.0.113.9:22/"]).contains("Failed to connect"));
            });
        });
        let mut inherited = InheritedSockets::default();
        assert!(inherited.add("inside".into(), ListeningSocket::Tcp(take.recv().unwrap())));
        let options = Options {
            ca_bundle: vec![gallery::bundle(Bundle::Root).into()],
            forward: vec!["127.0.0.1:0".into()],
            allow: vec!["good.gallery.test:9292".into(), "127.0.0.1".into()],
            ..Options::default()
        };
        let args = RunArgs { options, ..RunArgs::default() };
        let environment = Environment::default();
        let mut settings = Settings::of(args, &environment, &mut Files::default()).unwrap();
        settings.listeners[0].address = ListenAddress::Inherited { name: "inside".into(), allow_nonlocal: true };
        settings.listeners[0].service = Service::Original(OriginalAddress::Accepted);
        let app = App::bind(settings, inherited).unwrap();
        let mut running = servers.0.block_on(async { Running::start(app, None) }).unwrap();
        go.send(()).unwrap();
        let end = inside.join();
        running.stop(Stop::Drain);
        servers.0.block_on(running.join()).unwrap();
        if let Err(panic) = end {
            std::panic::resume_unwind(panic);
        }
        assert_eq!((good.requests(), good_v6.requests(), loopback.requests()), (1, 1, 1));
    });
}

/// The real replicators, with their own names and ports, as a user that knows nothing of the proxy.
#[test]
fn the_replicators_are_secured_by_rules_of_each_kind() {
    let has_glance15 = glance15::is_available("the_replicators_are_secured_by_rules_of_each_kind");
    in_namespace(&["203.0.113.9/24"], move || {
        let images: Vec<_> = (0..5).map(|n| Image::new(n, "copied", vec![n as u8; 40_000]).owned()).collect();
        let identity = |case| GALLERY.identity(case).unwrap();
        let start = |at: &str, case, images| ImageServer::start_at(at.parse().unwrap(), &identity(case), images);
        let source = start("203.0.113.9:9292", Case::Good, images.clone());
        let expired = start("203.0.113.11:9292", Case::Expired, images.clone());
        let proxy = proxy(&["--preset", "glance-replicator", "--allow", "*.gallery.test:9292"]);
        let [source_name, expired_name] = [Case::Good, Case::Expired].map(|case| format!("{}:9292", case.name()));
        let names = [(9, Case::Good.name()), (11, Case::Expired.name())];
        let targets = [(20, "target-0.gallery.test"), (21, "target-1.gallery.test"), (22, "target-2.gallery.test")];
        let all = names.iter().chain(&targets);
        let hosts: String = all.map(|(last, name)| format!("203.0.113.{last} {name}\n")).collect();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("hosts"), hosts).unwrap();
        let script = format!("mount --bind {}/hosts /etc/hosts && exec \"$@\"", directory.path().display());
        let user = ["setpriv", "--reuid", TOOL, "--regid", TOOL, "--clear-groups"].map(str::to_owned);
        let replicate_by = |release: Release, arguments: &[&str]| {
            let with_hosts = ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned);
            let words = [with_hosts.to_vec(), release.opened(), user.to_vec()].concat();
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            release.run_under(&words, PATIENCE * 3, arguments)
        };
        let replicate = |arguments: &[&str]| replicate_by(Release::Glance33, arguments);
        for ((loader, format), (last, target_name)) in LOADERS.into_iter().zip(targets) {
            let target = start(&format!("203.0.113.{last}:9292"), Case::GoodWildcard, Vec::new());
            let target_name = format!("{target_name}:9292");
            let rules = rules(format);
            // It is as good as once.
            load(loader, &rules);
            load(loader, &rules);

            replicate(&["livecopy", &source_name, &target_name]).succeeded();

            let copied = target.images();
            assert_eq!(copied.len(), images.len(), "{loader}");
            assert!(images.iter().all(|image| copied[image.id()].data == image.data), "{loader}");
            let compare = replicate(&["compare", &source_name, &target_name]).succeeded();
            assert!(compare.missing().is_empty(), "{loader}: {compare}");
            replicate(&["size", &expired_name]).failed();
            if has_glance15 {
                let compare = replicate_by(Release::Glance15, &["compare", &source_name, &target_name]).succeeded();
                assert!(compare.missing().is_empty(), "{loader}: {compare}");
                replicate_by(Release::Glance15, &["size", &expired_name]).failed();
            }
            run(&["nft", "flush", "ruleset"]);
            run(&["sh", "-c", "for t in nat filter; do iptables-legacy -t $t -F; ip6tables-legacy -t $t -F; done"]);
        }
        assert!(source.request_bytes() > 0);
        assert_eq!(expired.request_bytes(), 0);
        let audit = proxy.audit();
        assert!(!audit.is_empty() && audit.iter().all(|event| event["error.code"] == "expired"), "{audit:?}");
    });
}

/// A server that speaks plain text, and must not hear of any secret.
struct PlainServer(TcpListener);

impl PlainServer {
    fn start(at: &str) -> Self {
        let listener = TcpListener::bind(at).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    /// The next connection, if there is any.
    fn accept(&self) -> Option<TcpStream> {
        self.0.accept().ok().map(|(tcp, _)| tcp)
    }
}

/// All that came on a connection, to its end.
fn heard(mut tcp: TcpStream) -> String {
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut all = Vec::new();
    tcp.read_to_end(&mut all).unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

/// A connection of the tool to port 5000, which sends a secret when it is told to.
struct OldConnection(std::process::Child);

impl OldConnection {
    fn open() -> Self {
        let script = "exec 3<>/dev/tcp/203.0.113.9/5000 && echo open && read && echo secret >&3 && exec 3>&-";
        let mut command = tool("bash");
        let child = command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = child.spawn().unwrap();
        let mut open = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut open).unwrap();
        assert_eq!(&open, b"open\n");
        Self(child)
    }

    fn send(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn the_guard_resets_connections_that_are_older_than_the_rules() {
    in_namespace(HOST, || {
        // Connections are tracked already, as on any host with a firewall; else it would be cut by accident.
        feed(
            &["nft", "-f", "-"],
            "table inet other { chain c { type filter hook output priority 0; ct state established counter; }\n}\n",
        );
        let server = PlainServer::start("203.0.113.9:5000");
        let rules = rules("nft");
        let connection = OldConnection::open();
        load("nft -f -", &rules);
        run(&["nft", "delete", "table", "inet", "vouchsafe_guard"]);
        connection.send();
        assert_eq!(heard(server.accept().unwrap()), "secret\n", "without the guard it goes on");

        run(&["nft", "delete", "table", "inet", "vouchsafe"]);
        let connection = OldConnection::open();
        load("nft -f -", &rules);
        connection.send();
        // What the guard counts has not left, neither now nor later.
        let guard = run(&["nft", "list", "table", "inet", "vouchsafe_guard"]);
        assert!(guard.contains("counter packets") && !guard.contains("counter packets 0 "), "{guard}");
        let mut tcp = server.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        let nothing = tcp.read(&mut [0; 100]).map_err(|error| error.kind());
        assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock));
    });
}

#[test]
fn without_proxy_or_redirection_nothing_goes_out_in_clear() {
    in_namespace(HOST, || {
        let server = PlainServer::start("203.0.113.9:5000");
        let url = "http://203.0.113.9:5000/secret";
        let counts = |what: &str| {
            let seen = curl(&[url]);
            assert!(seen.contains("Failed to connect") || seen.contains("Couldn't connect"), "{what}: {seen}");
        };
        redirect();
        counts("no proxy");
        let proxy = proxy(&["--allow", "*"]);
        assert!(curl(&[url]).contains("HTTP/1.1 500"), "TLS to a plain server");
        drop(proxy);
        // Somebody deletes the redirection while it is in use.
        run(&["nft", "delete", "table", "inet", "vouchsafe"]);
        counts("no redirection");
        // The server has seen the proxy's handshake, and no request.
        assert!(!heard(server.accept().unwrap()).contains("secret"));
        assert!(server.accept().is_none());
        run(&["nft", "delete", "table", "inet", "vouchsafe_guard"]);
        let _ = curl(&["--max-time", "1", url]);
        assert!(heard(server.accept().unwrap()).contains("secret"), "without any rules it is in the clear");
    });
}

/// The program's answer about loaded rules.
fn check() -> (bool, String) {
    let arguments = ["redirect-rules", "--user", TOOL, "--ports", "80,9292", "--check"];
    let output = Command::new(env!("CARGO_BIN_EXE_vouchsafe")).args(arguments).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(output.status.code(), Some(i32::from(text.contains("FAIL"))), "{text}");
    (output.status.success(), text)
}

#[test]
fn redirect_rules_check_tells_whether_the_rules_do_what_they_say() {
    in_namespace(HOST, || {
        // A route to everywhere, which ends here.
        run(&["ip", "route", "add", "default", "dev", "lo"]);
        run(&["ip", "-6", "route", "add", "default", "dev", "lo"]);
        for with_proxy in [false, true] {
            let proxy = with_proxy.then(|| proxy(&["--allow", "*"]));
            for (loader, format) in LOADERS {
                let (good, text) = check();
                assert!(
                    !good && text.contains("FAIL  nobody (65534) to 127.0.0.1:9292: it is not redirected"),
                    "{text}"
                );
                load(loader, &rules(format));
                let (good, text) = check();
                assert!(good, "{loader}: {text}");
                let redirected = text.matches(": redirected").count();
                assert_eq!((redirected, text.matches("root (0) to ").count()), (8, 4), "{loader}: {text}");
                run(&["nft", "flush", "ruleset"]);
                run(&["sh", "-c", "for t in nat filter; do iptables-legacy -t $t -F; ip6tables-legacy -t $t -F; done"]);
            }
            redirect();
            redirect_user("0", "127.0.0.1:15001".parse().unwrap());
            let (good, text) = check();
            let own = "FAIL  root (0) to 127.0.0.1:9292: it is redirected: vouchsafe would connect to itself";
            assert!(!good && text.contains(own), "{text}");
            run(&["nft", "flush", "ruleset"]);
            if let Some(proxy) = proxy {
                assert!(proxy.audit().is_empty(), "a check is no request");
            }
        }
    });
}

#[test]
fn rules_that_would_catch_the_proxy_are_refused() {
    in_namespace(HOST, || {
        let program = env!("CARGO_BIN_EXE_vouchsafe");
        let refused = |wrapper: &[&str], user: &str| {
            let command = [wrapper, &[program, "redirect-rules", "--ports", "9292", "--user", user]].concat();
            let output = Command::new(command[0]).args(&command[1..]).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{command:?}");
            assert!(output.stdout.is_empty());
            String::from_utf8(output.stderr).unwrap()
        };
        assert!(refused(&[], "root").contains("rules for root"));
        let own = refused(&["setpriv", "--reuid", "2", "--clear-groups"], "2");
        assert!(own.contains("that is the user of this process"), "{own}");
        assert!(refused(&[], "no-such-user").contains("no such user"));

        let listening = TcpListener::bind("127.0.0.1:15001").unwrap();
        rustix::fs::fchown(&listening, Some(rustix::fs::Uid::from_raw(TOOL.parse().unwrap())), None).unwrap();
        let proxys = refused(&[], TOOL);
        assert!(proxys.contains("that user listens on port 15001"), "{proxys}");
        drop(listening);
        assert!(rules("nft").contains("skuid { 65534 }"));
    });
}
