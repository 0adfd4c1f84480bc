//! The tests that others have written for clients, through a fixed route: see `tests/real/README.md`.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use certs_dev::{Bundle, Case};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    gallery::{self, GALLERY},
    glance15::{Hitch, is_available},
    proxy::{Proxy, without_ambient},
    replicator::{real, repository},
};

fn scripts() -> PathBuf {
    repository().join("tests/real/suites")
}

/// A command of the virtualenv of the suites, ended by force where it takes too long.
fn python(script: &str) -> Command {
    let python = real().join("suites/bin/python");
    assert!(python.exists(), "`{}` is missing\n  hint: run `tests/setup` first", python.display());
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).arg(python).arg(scripts().join(script));
    command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
    command
}

/// A server of the suites, which ends with its stdin.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(mut command: Command) -> Self {
        // It says on stderr what it thinks of the requests that are meant to be odd.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening ").unwrap_or_else(|| panic!("a server says `{line}`"));
        Self { port: port.parse().unwrap(), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// httpbin behind a foreign TLS terminator, and a fixed route to it.
struct Stage {
    proxy: Proxy,
    tls: Hitch,
    httpbin: Server,
    bundle: String,
    directory: TempDir,
}

impl Stage {
    fn set() -> Self {
        let directory = crate::support::dir();
        let httpbin = Server::start(python("httpbin_server.py"));
        let tls = Hitch::start(&directory.path().join("hitch"), &GALLERY.identity(Case::Good).unwrap(), httpbin.port);
        let (name, bundle) = (format!("{}:{}", Case::Good.name(), tls.port), gallery::bundle(Bundle::Root));
        let route = format!("127.0.0.1:0=https://{name}");
        let to = format!("{name}=127.0.0.1:{}", tls.port);
        // One of them names a Host of its own.
        let accept = "--accept-host=a,httpbin.org";
        let proxy = Proxy::start(&["--ca-bundle", &bundle, "--route", &route, "--connect-to", &to, accept]);
        Self { proxy, tls, httpbin, bundle, directory }
    }
}

#[test]
fn httpbin_says_the_same_directly_and_through_the_proxy() {
    let stage = Stage::set();
    let mut compare = python("httpbin_compare.py");
    compare.arg(Case::Good.name()).arg(stage.tls.port.to_string()).arg(&stage.bundle);
    succeeds(compare.arg(stage.proxy.addr(0).port().to_string()));
}

fn succeeds(command: &mut Command) {
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
}

/// What fails behind the proxy alone, and why.
const REQUESTS_DIFFERS: [(&str, &str); 1] = [(
    "TestRequests::test_proxy_authorization_preserved_on_request",
    "it wants Proxy-Authorization at the origin, and a proxy keeps that to itself (RFC 9110 section 11.7.2)",
)];

#[test]
fn requests_passes_its_own_tests_through_the_proxy_as_it_does_directly() {
    let stage = Stage::set();
    let run = |name: &str, port: u16| {
        let results = stage.directory.path().join(name);
        let mut pytest = Command::new("timeout");
        pytest.args(["--kill-after=5", "120"]).arg(real().join("suites/bin/python")).args(["-m", "pytest", "-q"]);
        pytest.args([
            "-p",
            "no:cacheprovider",
            "-p",
            "no:warnings",
            "-p",
            "no:httpbin",
            "-p",
            "repointed",
            "tests/test_requests.py",
        ]);
        without_ambient(&mut pytest);
        pytest.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONPATH", scripts()).env("RESULTS", &results);
        pytest.env("HTTPBIN_URL", format!("http://127.0.0.1:{port}")).stdin(Stdio::null()).stdout(Stdio::piped());
        (pytest.current_dir(real().join("suites/requests")).spawn().unwrap(), results)
    };
    let [direct, proxied] =
        [run("direct", stage.httpbin.port), run("proxied", stage.proxy.addr(0).port())].map(|(child, results)| {
            let said = String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned();
            let text = std::fs::read(results).unwrap_or_else(|_| panic!("pytest has no results: {said}"));
            (serde_json::from_slice::<BTreeMap<String, String>>(&text).unwrap(), said)
        });
    let passed = direct.0.values().filter(|outcome| *outcome == "passed").count();
    // Some want an address that nobody answers at, and that is not the same everywhere.
    assert!(passed >= 314, "only {passed} passed directly: {}", direct.1);
    let differs = direct.0.iter().filter(|(test, outcome)| proxied.0.get(*test) != Some(*outcome));
    let differs: Vec<_> = differs.map(|(test, _)| test.as_str()).collect();
    assert_eq!(differs, REQUESTS_DIFFERS.map(|(test, _)| test), "{}", proxied.1);
}

/// A WebSocket server behind TLS, a listener for it, and one for the same under a name that its certificate has not.
struct WebSocket {
    server: Server,
    proxy: Proxy,
    bundle: String,
    directory: TempDir,
}

impl WebSocket {
    fn set() -> Self {
        let directory = crate::support::dir();
        let [chain, key] = ["chain.pem", "key.pem"].map(|name| directory.path().join(name));
        let identity = GALLERY.identity(Case::Good).unwrap();
        std::fs::write(&chain, identity.chain_pem()).unwrap();
        std::fs::write(&key, identity.key_pem()).unwrap();
        let mut server = python("websocket_server.py");
        server.arg(chain).arg(key);
        let server = Server::start(server);
        let bundle = gallery::bundle(Bundle::Root);
        let mut flags = vec!["--ca-bundle".to_owned(), bundle.clone()];
        for name in [Case::Good.name(), "elsewhere.gallery.test"] {
            let name = format!("{name}:{}", server.port);
            flags.extend(["--route".into(), format!("127.0.0.1:0=https://{name}")]);
            flags.extend(["--connect-to".into(), format!("{name}=127.0.0.1:{}", server.port)]);
        }
        Self { proxy: Proxy::start(&flags), server, bundle, directory }
    }
}

#[test]
fn websockets_are_the_same_directly_and_through_the_proxy() {
    let stage = WebSocket::set();
    let mut compare = python("websocket_compare.py");
    compare.arg(Case::Good.name()).arg(stage.server.port.to_string()).arg(&stage.bundle);
    succeeds(compare.args([0, 1].map(|n| stage.proxy.addr(n).port().to_string())));
}

/// Cases in which the order of an echo and a close is a matter of time alone; either order is allowed.
const AUTOBAHN_TIMED: [&str; 3] = ["3.4", "4.1.5", "4.2.5"];

#[test]
fn autobahn_finds_the_same_directly_and_through_the_proxy() {
    if !is_available("autobahn") {
        return;
    }
    let stage = WebSocket::set();
    let run = |name: &str, url: String| {
        let reports = stage.directory.path().join(name);
        // Without the groups of limits, performance and compression, which take an hour.
        let specification = json!({
            "outdir": reports,
            "servers": [{"agent": "server", "url": url}],
            "cases": ["*"],
            "exclude-cases": ["9.*", "12.*", "13.*"],
            "exclude-agent-cases": {},
        });
        let file = stage.directory.path().join(format!("{name}.json"));
        std::fs::write(&file, specification.to_string()).unwrap();
        let wstest = real().join("autobahn/bin/wstest");
        assert!(wstest.exists(), "`{}` is missing\n  hint: run `tests/setup` first", wstest.display());
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "120"]).arg(real().join("autobahn/bin/python")).arg(wstest);
        command.args(["-m", "fuzzingclient", "-s"]).arg(file).current_dir(stage.directory.path());
        let libraries = std::fs::read_to_string(real().join("glance15.libs")).unwrap();
        if !libraries.trim().is_empty() {
            command.env("LD_LIBRARY_PATH", libraries.trim());
        }
        command.env("PYTHONWARNINGS", "ignore").env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        (command.spawn().unwrap(), reports)
    };
    let direct = run("direct", format!("wss://127.0.0.1:{}/echo", stage.server.port));
    let proxied = run("proxied", format!("ws://{}/echo", stage.proxy.addr(0)));
    let [direct, proxied] = [direct, proxied].map(|(child, reports)| {
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        let index = std::fs::read(reports.join("index.json")).unwrap_or_else(|_| panic!("wstest has no index: {said}"));
        let index: Value = serde_json::from_slice(&index).unwrap();
        let cases = index["server"].as_object().unwrap().iter();
        let of = |case: &Value| (case["behavior"].to_string(), case["behaviorClose"].to_string());
        cases.map(|(id, case)| (id.clone(), of(case))).collect::<BTreeMap<_, _>>()
    });
    assert_eq!((direct.len(), proxied.len()), (247, 247));
    let differs = direct.iter().map(|(id, found)| (id, found, &proxied[id]));
    let differs: Vec<_> =
        differs.filter(|(id, direct, proxied)| direct != proxied && !AUTOBAHN_TIMED.contains(&id.as_str())).collect();
    assert!(differs.is_empty(), "case, direct, proxied: {differs:#?}");
}
