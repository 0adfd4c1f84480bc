//! Real clients with `https://` URLs: each with the root of the local CA as its CA, and some that verify nothing.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use certs_dev::{Bundle, Case};

use crate::support::{
    dir,
    exec::{Exec, go_client, java_client},
    gallery::{self, Front},
    local_ca::LocalCa,
    origin::{Origin, send},
    proxy::Proxy,
    replicator::real,
};

/// A client: its words, in which `URL`, `CA`, `http://PROXY`, and `HOST` and `PORT` of the proxy are replaced.
struct Client {
    name: &'static str,
    words: Vec<String>,
}

const URLLIB: &str = "
import ssl, sys, urllib.request as u, urllib.error
url, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca) if ca else ssl._create_unverified_context()
try: print(u.urlopen(url, context=context).status)
except urllib.error.HTTPError as error: print(error.code)
except OSError as error: print(error)
";

const REQUESTS: &str = "
import requests, sys, warnings
url, ca = sys.argv[1:]
warnings.simplefilter('ignore')
try: print(requests.get(url, verify=ca or False).status_code)
except requests.exceptions.ProxyError as error: print(error)
";

const URLLIB2: &str = "
import ssl, sys, urllib2
url, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca) if ca else ssl._create_unverified_context()
try: print(urllib2.urlopen(url, context=context).getcode())
except urllib2.URLError as error: print(error)
";

const HTTPLIB2: &str = "
import httplib2, sys
from httplib2 import socks
url, ca, host, port = sys.argv[1:]
proxy = httplib2.ProxyInfo(socks.PROXY_TYPE_HTTP, host, int(port), True)
http = httplib2.Http(proxy_info=proxy, ca_certs=ca or None, disable_ssl_certificate_validation=not ca)
try: print(http.request(url)[0].status)
except Exception as error: print(repr(error))
";

/// Clients that reach a proxy by CONNECT.
fn clients(go: &str, java: &[String]) -> Vec<Client> {
    let real = |path: &str| real().join(path).display().to_string();
    let (py3, py2, today) = ("python3".to_owned(), real("clients2012/bin/python"), real("clients/bin/python"));
    let client = |name, words: &[&str]| Client { name, words: words.iter().map(|word| (*word).to_owned()).collect() };
    let curl = [
        "curl",
        "-sS",
        "--max-time",
        "20",
        "-x",
        "http://PROXY",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code} %{http_connect}",
    ];
    let mut all = vec![
        client("curl", &[&curl[..], &["--cacert", "CA", "URL"]].concat()),
        client("curl -k", &[&curl[..], &["-k", "URL"]].concat()),
        client("curl -0", &[&curl[..], &["-0", "--cacert", "CA", "URL"]].concat()),
        client("urllib", &[&py3, "-c", URLLIB, "URL", "CA"]),
        client("urllib, unverified", &[&py3, "-c", URLLIB, "URL", ""]),
        client("requests", &[&today, "-c", REQUESTS, "URL", "CA"]),
        client("requests, unverified", &[&today, "-c", REQUESTS, "URL", ""]),
        client("Go", &[go, "URL"]),
        client("Java", &java.iter().map(String::as_str).chain(["URL", "HOST", "PORT"]).collect::<Vec<_>>()),
    ];
    if Path::new(&py2).exists() {
        all.extend([
            client("urllib2", &[&py2, "-c", URLLIB2, "URL", "CA"]),
            client("urllib2, unverified", &[&py2, "-c", URLLIB2, "URL", ""]),
            client("httplib2", &[&py2, "-c", HTTPLIB2, "URL", "CA", "HOST", "PORT"]),
            client("httplib2, unverified", &[&py2, "-c", HTTPLIB2, "URL", "", "HOST", "PORT"]),
        ]);
    }
    all
}

impl Client {
    /// What it says of a URL.
    fn ask(&self, url: &str, ca: &LocalCa, proxy: std::net::SocketAddr) -> String {
        let fill = |word: &String| match word.as_str() {
            "URL" => url.to_owned(),
            "CA" => ca.root(),
            "HOST" => proxy.ip().to_string(),
            "PORT" => proxy.port().to_string(),
            "http://PROXY" => format!("http://{proxy}"),
            word => word.to_owned(),
        };
        let mut command = Command::new("timeout");
        command.arg("30").args(self.words.iter().map(fill)).stdin(Stdio::null());
        for name in ["http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        command.env("https_proxy", format!("http://{proxy}")).env("HTTPS_PROXY", format!("http://{proxy}"));
        // Of Go alone: the others were told.
        command.env("SSL_CERT_FILE", ca.root());
        if let Ok(libraries) = fs::read_to_string(real().join("clients2012.libs")) {
            let is_old = self.words[0].contains("clients2012") && !libraries.trim().is_empty();
            command.envs(is_old.then(|| ("LD_LIBRARY_PATH", libraries.trim().to_owned())));
        }
        let output = command.output().expect("coreutils' timeout");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        format!("{}{}", text(output.stdout), text(output.stderr))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_client_is_served_by_connect_and_told_why_it_is_refused() {
    let scratch = dir();
    let go = go_client(scratch.path());
    let ca = LocalCa::new(&[".gallery.test"]);
    let java = java_client(scratch.path(), &ca.root());
    let (good, expired) = (Front::start(Case::Good).await, Front::start(Case::Expired).await);
    let mut flags =
        vec![format!("--ca-bundle={}", gallery::bundle(Bundle::Root)), "--forward=127.0.0.1:0".into(), ca.flag()];
    for front in [&good, &expired] {
        flags.push(format!("--allow={}", front.authority()));
        flags.push(format!("--connect-to={}={}", front.authority(), front.address));
    }
    let proxy = Proxy::start(&flags);
    for (count, client) in clients(&go, &java).iter().enumerate() {
        let seen = client.ask(&format!("https://{}/", good.authority()), &ca, proxy.addr(0));
        assert!(seen.starts_with("200"), "{}: {seen}", client.name);
        assert_eq!(good.counters.requests(), count as u64 + 1, "{}", client.name);
        let seen = client.ask(&format!("https://{}/", expired.authority()), &ca, proxy.addr(0));
        // httplib2 of that time repeats the status alone.
        assert!(seen.contains("expired: expired.gallery.test") || seen.contains("403"), "{}: {seen}", client.name);
        assert_eq!(expired.counters.application_bytes(), 0);
    }
    // One that was not given the CA: its own store has it not.
    let words = java.iter().filter(|word| !word.starts_with("-D")).map(String::as_str).chain(["URL", "HOST", "PORT"]);
    let java = Client { name: "Java", words: words.map(str::to_owned).collect() };
    let seen = java.ask(&format!("https://{}/", good.authority()), &ca, proxy.addr(0));
    assert!(seen.contains("PKIX path building failed"), "{seen}");
}

/// OpenSSL and GnuTLS, without HTTP of their own.
#[tokio::test(flavor = "multi_thread")]
async fn every_handshake_that_can_be_served_is_served_and_others_are_told_to_speak_plain_http() {
    let ca = LocalCa::new(&["localhost", "127.0.0.1"]);
    let front = Front::start(Case::Good).await;
    let authority = front.authority();
    let proxy = Proxy::start(&[
        format!("--ca-bundle={}", gallery::bundle(Bundle::Root)),
        format!("--route=tls://127.0.0.1:0=https://{authority}"),
        format!("--connect-to={authority}={}", front.address),
        ca.flag(),
    ]);
    let (address, port) = (proxy.addr(0).to_string(), proxy.addr(0).port().to_string());
    let root = ca.root();
    let openssl =
        ["openssl", "s_client", "-connect", &address, "-CAfile", &root, "-verify_return_error", "-ign_eof", "-quiet"];
    let gnutls = ["gnutls-cli", "--x509cafile", &root, "-p", &port, "--logfile=/dev/null", "localhost"];
    let is_rsa = "ECDHE-RSA-AES128-GCM-SHA256";
    for (words, more) in [
        (&openssl[..], &["-servername", "localhost"][..]),
        (&openssl, &["-noservername"]),
        (&openssl, &["-tls1_2", "-noservername"]),
        (&openssl, &["-tls1_2", "-curves", "P-256"]),
        // A client that knows RSA only.
        (&openssl, &["-tls1_2", "-cipher", is_rsa, "-sigalgs", "RSA+SHA256:RSA-PSS+SHA256"]),
        (&openssl, &["-tls1_2", "-cipher", is_rsa]),
        (&openssl, &["-alpn", "h2,http/1.1"]),
        (&openssl, &["-alpn", "http/1.0"]),
        (&gnutls, &[]),
        (&gnutls, &["--priority", "NORMAL:-VERS-ALL:+VERS-TLS1.2"]),
    ] {
        let seen = send_request(&[words, more].concat());
        assert!(seen.contains("HTTP/1.1 200 OK"), "{words:?} {more:?}: {seen}");
    }
    let served = front.counters.requests();
    assert_eq!(served, 10);
    let weak = "ALL:@SECLEVEL=0";
    for (more, code, message) in [
        (&["-tls1_1", "-cipher", weak][..], "tls_too_old", "(it offers TLS 1.1 with the cipher suites "),
        (&["-tls1", "-cipher", weak], "tls_too_old", "(it offers TLS 1.0 with the cipher suites "),
        (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA"], "tls_too_old", "suites c009 c013"),
        (&["-tls1_2", "-cipher", "AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256"], "tls_too_old", "suites 009c 009e"),
    ] {
        let seen = send_request(&[&openssl[..], more].concat());
        assert!(!seen.contains("HTTP/1.1"), "{more:?}: {seen}");
        let event = proxy.wait_for_log("the refusal", |event| {
            event["error.code"] == code && event["error.message"].as_str().is_some_and(|text| text.contains(message))
        });
        let text = event["error.message"].as_str().unwrap();
        assert!(text.starts_with("this client is too old for TLS here; let it speak plain HTTP (it offers "), "{text}");
    }
    // A client that insists on HTTP/2, and one that was not given the CA.
    let seen = send_request(&[&openssl[..], &["-alpn", "h2"]].concat());
    assert!(seen.contains("SSL alert number 120"), "no_application_protocol: {seen}");
    proxy.wait_for_log("ALPN", |event| {
        event["class"] == "client_tls" && event["message"].as_str().unwrap().contains("ALPN")
    });
    send_request(&[
        "openssl",
        "s_client",
        "-connect",
        &address,
        "-verify_return_error",
        "-CAfile",
        &gallery::bundle(Bundle::Root),
    ]);
    let refused = proxy.wait_for_log("the refusal", |event| {
        event["message"].as_str().is_some_and(|text| text.contains("alert UnknownCA"))
    });
    assert_eq!(refused["class"], "client_tls");
    assert_eq!(front.counters.requests(), served);
}

/// Sends a request by a command, which ends with the connection.
fn send_request(words: &[&str]) -> String {
    let mut child = Command::new("timeout");
    child.arg("20").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("it starts");
    let mut input = child.stdin.take().unwrap();
    // It may have ended.
    let _ = std::io::Write::write_all(&mut input, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let output = child.wait_with_output().expect("it ends");
    drop(input);
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const SCHEMA: &str = r#"{"name": "image", "properties": {"id": {"type": "string"}, "name": {"type": "string"}}}"#;
const IMAGES: &str = r#"{"images": [{"id": "1", "name": "cirros"}], "first": "/v2/images"}"#;

const VERSIONS: &str = r#"{"versions": [{"id": "v2.9", "status": "CURRENT", "links": []}]}"#;

/// The clients of OpenStack, with what `exec` sets for them.
#[tokio::test(flavor = "multi_thread")]
async fn tools_of_exec_find_the_proxy_and_the_ca_in_their_environment() {
    let ca = LocalCa::new(&[".gallery.test"]);
    let origin = Origin::start(|_, request| {
        let body = match request {
            request if request.contains("/v2/schemas") => SCHEMA,
            request if request.contains("/v2/images") => IMAGES,
            request if request.contains("marker=") => "[]",
            request if request.contains("/AUTH_a") => r#"[{"name": "pictures", "count": 1, "bytes": 2}]"#,
            _ => VERSIONS,
        };
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\n";
        vec![send(&format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()))]
    })
    .await;
    let authority = format!("good.gallery.test:{}", origin.address.port());
    let flags = [format!("--allow={authority}"), format!("--connect-to={authority}={}", origin.address), ca.flag()];
    let url = format!("https://{authority}");
    let tool = |name: &str| real().join("clients/bin").join(name).display().to_string();
    let (glance, swift) = (tool("glance"), tool("swift"));
    let storage = format!("{url}/v1/AUTH_a");
    for (words, expected) in [
        (&[&glance, "--os-image-url", &url, "--os-auth-token", "t", "image-list"][..], "cirros"),
        (&[&swift, "--os-storage-url", &storage, "--os-auth-token", "t", "list"], "pictures"),
        (&["curl", "-sS", "--fail", &url], "CURRENT"),
        (&["wget", "-q", "-O", "-", "--ca-certificate", "/dev/null", "--no-check-certificate", &url], "CURRENT"),
    ] {
        let ended = Exec::new().flags(&flags).run(words).await;
        assert!(ended.code == Some(0) && ended.out.contains(expected), "{words:?}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_ca_variable_named_is_kept_beside_the_root() {
    let ca = LocalCa::new(&["a.example"]);
    let scratch = dir();
    let own = scratch.path().join("own.pem");
    let mine = fs::read_to_string(gallery::bundle(Bundle::Plus)).unwrap();
    fs::write(&own, &mine).unwrap();
    let root = fs::read_to_string(ca.root()).unwrap();
    let show = r#"
        for name in REQUESTS_CA_BUNDLE CURL_CA_BUNDLE SSL_CERT_FILE OS_CACERT NODE_EXTRA_CA_CERTS; do
            eval "file=\$$name"; echo "$name $(grep -c BEGIN "$file") $file"
        done
        echo "$https_proxy $HTTPS_PROXY"; cat "$OS_CACERT""#;
    let flags = ["--allow=a.example", &ca.flag(), "--keep-env=CURL_CA_BUNDLE"];
    let own = own.display().to_string();
    let exec = Exec::new().flags(&flags).variable("OS_CACERT", &own).variable("CURL_CA_BUNDLE", &own);
    let exec = exec.variable("NODE_EXTRA_CA_CERTS", "");
    let ended = exec.variable("https_proxy", "http://other.example:1").run(&["sh", "-c", show]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines: Vec<_> = ended.out.lines().collect();
    let certificates = mine.matches("BEGIN").count();
    let file = |line: &str| line.rsplit(' ').next().unwrap().to_owned();
    for (line, name, count) in [
        (lines[0], "REQUESTS_CA_BUNDLE", 1),
        (lines[1], "CURL_CA_BUNDLE", certificates),
        (lines[2], "SSL_CERT_FILE", 1),
        (lines[3], "OS_CACERT", certificates + 1),
        (lines[4], "NODE_EXTRA_CA_CERTS", 1),
    ] {
        assert!(line.starts_with(&format!("{name} {count} ")), "{line}");
    }
    assert_eq!((file(lines[1]), file(lines[0])), (own, file(lines[2])), "equal contents share a file");
    assert!(!Path::new(&file(lines[0])).exists() && !Path::new(&file(lines[3])).exists(), "gone with the tool");
    let proxies: Vec<_> = lines[5].split(' ').collect();
    assert!(proxies[0].starts_with("http://127.0.0.1:") && proxies[0] == proxies[1], "{proxies:?}");
    assert!(ended.out.contains(&root) && ended.out.contains(mine.trim_end()));

    let wrong = Exec::new()
        .flags(&flags)
        .variable("OS_CACERT", "/no/such.pem")
        .variable("NODE_EXTRA_CA_CERTS", "")
        .run(&["true"])
        .await;
    assert!(wrong.code == Some(125) && wrong.err.contains("OS_CACERT `/no/such.pem`: No such file"), "{wrong:?}");
}
