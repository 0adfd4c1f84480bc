//! The tests that others have written for clients, through a fixed route: see `tests/real/README.md`.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use certs_dev::{Bundle, Case};
use tempfile::TempDir;

use crate::support::{
    gallery::{self, GALLERY},
    glance15::Hitch,
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

/// httpbin, which ends with its stdin.
struct Httpbin {
    child: Child,
    port: u16,
}

impl Httpbin {
    fn start() -> Self {
        let mut command = python("httpbin_server.py");
        // It says there what it thinks of the requests that are meant to be odd.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening ").unwrap_or_else(|| panic!("httpbin says `{line}`"));
        Self { port: port.parse().unwrap(), child }
    }
}

impl Drop for Httpbin {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// httpbin behind a foreign TLS terminator, and a fixed route to it.
struct Stage {
    proxy: Proxy,
    tls: Hitch,
    httpbin: Httpbin,
    bundle: String,
    directory: TempDir,
}

impl Stage {
    fn set() -> Self {
        let directory = crate::support::dir();
        let httpbin = Httpbin::start();
        let tls = Hitch::start(&directory.path().join("hitch"), &GALLERY.identity(Case::Good).unwrap(), httpbin.port);
        let (name, bundle) = (format!("{}:{}", Case::Good.name(), tls.port), gallery::bundle(Bundle::Root));
        let route = format!("127.0.0.1:0=https://{name}");
        let to = format!("{name}=127.0.0.1:{}", tls.port);
        let proxy = Proxy::start(&["--ca-bundle", &bundle, "--route", &route, "--connect-to", &to]);
        Self { proxy, tls, httpbin, bundle, directory }
    }
}

#[test]
fn httpbin_says_the_same_directly_and_through_the_proxy() {
    let stage = Stage::set();
    let mut compare = python("httpbin_compare.py");
    compare.arg(Case::Good.name()).arg(stage.tls.port.to_string()).arg(&stage.bundle);
    let done = compare.arg(stage.proxy.addr(0).port().to_string()).output().unwrap();
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
