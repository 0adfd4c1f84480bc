//! The admin listener: probes, metrics, status and page, and who may ask for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

use aws_lc_rs::digest;
use certs_dev::{
    Bundle, Case,
    pki::{LeafSpec, Validity, self_signed},
};
use data_encoding::BASE64;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use vouchsafe::tls::failure::Code;

use crate::{
    docs,
    support::{
        command::vouchsafe,
        dir,
        gallery::{self, Front},
        hostile::serve,
        origin::{Origin, Step, exchange, send},
        proxy::Proxy,
    },
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A response of the admin listener.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The samples of `/metrics`, by name and labels.
    fn samples(&self) -> BTreeMap<&str, f64> {
        let lines = self.body.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').map(|(series, value)| (series, value.parse().unwrap())).unwrap())
            .collect()
    }
}

/// Sends a request line and fields, and reads all that comes.
fn ask(mut stream: impl Read + Write, line: &str, fields: &[&str]) -> Answer {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    write!(stream, "{line}\r\n{fields}Connection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn get(admin: SocketAddr, path: &str) -> Answer {
    ask(TcpStream::connect(admin).unwrap(), &format!("GET {path} HTTP/1.1"), &[&format!("Host: {admin}")])
}

/// Flags with an admin listener and a bundle, and these.
fn flags<S: AsRef<str>>(more: &[S]) -> Vec<String> {
    let usual = ["--admin", "127.0.0.1:0", "--ca-bundle", &gallery::bundle(Bundle::Root)];
    usual.into_iter().chain(more.iter().map(AsRef::as_ref)).map(str::to_owned).collect()
}

async fn request(proxy: &Proxy, n: usize, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let status = exchange(proxy.addr(n), request.as_bytes()).await.status();
    // It is counted at its end, as it is logged.
    proxy.wait_for_access("the request", |event| event["path"] == path);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_follow_the_life_of_the_process() {
    let origin = Origin::start(|_, _| vec![Step::Stall]).await;
    let proxy = Proxy::start(&flags(&origin.route()));
    let admin = proxy.admin();
    for path in ["/livez", "/readyz"] {
        let answer = get(admin, path);
        assert_eq!((answer.status, &*answer.body), (200, "ok\n"), "{path}");
    }
    let verbose = get(admin, "/readyz?verbose");
    let lines: Vec<_> = verbose.body.lines().collect();
    let upstream = format!("[i] {}:{}: untried", Case::Good.name(), origin.address.port());
    let expected =
        ["[+] listeners are bound and accept", "[+] CA bundles are loaded", "[+] the process is not draining"];
    assert_eq!(lines, [&expected[..], &[&*upstream, "ok"]].concat());
    assert_eq!(get(admin, "/nothing").status, 404);

    // A request under way holds up the end.
    let mut client = TcpStream::connect(proxy.addr(0)).unwrap();
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    origin.has_requests(1).await;
    proxy.signal("TERM");
    proxy.wait_for_log("the drain", |event| event["message"] == "draining");
    let draining = get(admin, "/readyz");
    assert_eq!((draining.status, &*draining.body), (503, "[-] the process is not draining\nnot ready\n"));
    assert_eq!((get(admin, "/livez").status, &get(admin, "/status").json()["phase"]), (200, &"draining".into()));
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_series_of_a_known_upstream_is_there_from_the_start() {
    let flags = flags(&[
        "--route=127.0.0.1:0=https://glance.example:9292",
        "--forward=127.0.0.1:0",
        "--allow=*.cloud.example,keystone.example:5000",
    ]);
    let proxy = Proxy::start(&flags);
    let answer = get(proxy.admin(), "/metrics");
    let samples = answer.samples();
    let zero = |series: String| assert_eq!(samples.get(&*series), Some(&0.0), "{series}:\n{}", answer.body);
    for upstream in ["glance.example:9292", "*.cloud.example", "keystone.example:5000"] {
        for code in Code::ALL {
            zero(format!("vouchsafe_handshakes_total{{upstream=\"{upstream}\",result=\"{code}\"}}"));
            let (kind, label) = if code.is_refusal() { ("refusals", "code") } else { ("failures", "class") };
            zero(format!("vouchsafe_{kind}_total{{upstream=\"{upstream}\",{label}=\"{code}\"}}"));
        }
        for result in ["ok", "exact", "identity", "bypassed"] {
            zero(format!("vouchsafe_handshakes_total{{upstream=\"{upstream}\",result=\"{result}\"}}"));
        }
        let listener = if upstream.starts_with('g') { "route 127.0.0.1:0" } else { "forward 127.0.0.1:0" };
        for (class, made_by) in [("2xx", "upstream"), ("4xx", "proxy"), ("none", "proxy")] {
            zero(format!(
                "vouchsafe_requests_total{{listener=\"{listener}\",upstream=\"{upstream}\",code_class=\"{class}\",made_by=\"{made_by}\"}}"
            ));
        }
        zero(format!("vouchsafe_truncated_bodies_total{{upstream=\"{upstream}\",direction=\"response\"}}"));
        zero(format!("vouchsafe_upstream_connections_open{{upstream=\"{upstream}\"}}"));
    }
    // Every class of a failure or refusal is the label of some series.
    let of_series =
        |word: &str| ["code", "class"].iter().any(|label| answer.body.contains(&format!("{label}=\"{word}\"}} 0\n")));
    let missing: BTreeSet<_> = docs::classes().into_iter().filter(|class| !of_series(class)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_what_happened() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let expired = Front::start(Case::Expired).await;
    let more: Vec<_> = [origin.route(), expired.route()].concat();
    let proxy = Proxy::start(&flags(&more));
    let admin = proxy.admin();
    assert_eq!((request(&proxy, 0, "/1").await, request(&proxy, 0, "/2").await), (200, 200));
    assert_eq!(request(&proxy, 1, "/3").await, 403);
    let answer = get(admin, "/metrics");
    let samples = answer.samples();
    let has = |series: String, value: f64| {
        assert_eq!(samples.get(&*series), Some(&value), "{series}:\n{}", answer.body);
    };
    let good = format!("{}:{}", Case::Good.name(), origin.address.port());
    let bad = expired.authority();
    // Both listeners have one name, since they are configured alike.
    let requests = |upstream: &str, class: &str, made_by: &str| {
        format!(
            "vouchsafe_requests_total{{listener=\"route 127.0.0.1:0\",upstream=\"{upstream}\",code_class=\"{class}\",made_by=\"{made_by}\"}}"
        )
    };
    has(requests(&good, "2xx", "upstream"), 2.0);
    has(requests(&bad, "4xx", "proxy"), 1.0);
    has("vouchsafe_request_duration_seconds_count{listener=\"route 127.0.0.1:0\"}".into(), 3.0);
    has("vouchsafe_connections_total{listener=\"route 127.0.0.1:0\"}".into(), 3.0);
    has(format!("vouchsafe_handshakes_total{{upstream=\"{good}\",result=\"ok\"}}"), 1.0);
    has(format!("vouchsafe_handshakes_total{{upstream=\"{bad}\",result=\"expired\"}}"), 1.0);
    has("vouchsafe_handshake_duration_seconds_count".into(), 1.0);
    has(format!("vouchsafe_refusals_total{{upstream=\"{bad}\",code=\"expired\"}}"), 1.0);
    has(format!("vouchsafe_upstream_connections_open{{upstream=\"{good}\"}}"), 1.0);
    has(format!("vouchsafe_upstream_connections_reused_total{{upstream=\"{good}\"}}"), 1.0);
    has(format!("vouchsafe_upstream_last_verdict{{upstream=\"{good}\",code=\"ok\"}}"), 1.0);
    has(format!("vouchsafe_upstream_last_verdict{{upstream=\"{bad}\",code=\"expired\"}}"), 0.0);
    has("vouchsafe_audit_events_total".into(), 1.0);
    has("vouchsafe_config_last_reload_successful".into(), 1.0);

    // The dates of the chain are there though it was refused.
    let event = proxy.audit().pop().unwrap();
    let dates = event["vouchsafe.chain"].as_array().unwrap().iter().map(|certificate| {
        OffsetDateTime::parse(certificate["not_after"].as_str().unwrap(), &Rfc3339).unwrap().unix_timestamp() as f64
    });
    let dates: Vec<f64> = dates.collect();
    let name = "vouchsafe_upstream_certificate_not_after_timestamp_seconds";
    has(format!("{name}{{upstream=\"{bad}\",position=\"leaf\"}}"), dates[0]);
    has(format!("{name}{{upstream=\"{bad}\",position=\"intermediate\"}}"), dates[1]);
    has(format!("{name}{{upstream=\"{bad}\",position=\"earliest\"}}"), dates[0]);
    assert!(dates[0] < OffsetDateTime::now_utc().unix_timestamp() as f64);

    let process = ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"];
    assert!(process.iter().all(|name| samples.contains_key(&*format!("process_{name}"))), "{}", answer.body);
    let started = samples["process_start_time_seconds"];
    assert!((started - OffsetDateTime::now_utc().unix_timestamp() as f64).abs() < 600.0, "{started}");

    let status = get(admin, "/status").json();
    let upstreams = status["upstreams"].as_array().unwrap();
    let of = |name: &str| upstreams.iter().find(|upstream| upstream["upstream"] == name).unwrap();
    assert_eq!((&of(&good)["verdict"], &of(&good)["tls"]), (&"verified".into(), &"TLSv1.3".into()));
    assert_eq!((&of(&bad)["verdict"], &of(&bad)["code"]), (&"refused".into(), &"expired".into()));
    assert_eq!((&of(&bad)["refused_last_hour"], of(&bad)["chain"].as_array().unwrap().len()), (&1.into(), dates.len()));
    assert_eq!((&status["events"][0]["id"], &status["events"][0]["target"]), (&event["event.id"], &bad.into()));
    assert_eq!(status["coming"][0]["at"], of(&expired.authority())["earliest_not_after"], "the first to end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_gets_the_format_that_it_asks_for() {
    let proxy = Proxy::start(&flags(&["--route=127.0.0.1:0=https://glance.example:9292"]));
    let admin = proxy.admin();
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let host = format!("Host: {admin}");
    let openmetrics = ask(TcpStream::connect(admin).unwrap(), "GET /metrics HTTP/1.1", &[&host, accept]);
    assert_eq!(openmetrics.field("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(openmetrics.body.contains("# TYPE vouchsafe_requests counter\n") && openmetrics.body.ends_with("# EOF\n"));
    let text = get(admin, "/metrics");
    assert_eq!(text.field("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(text.body.contains("# TYPE vouchsafe_requests_total counter\n") && !text.body.contains("# EOF"));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_make_series() {
    let proxy = Proxy::start(&flags(&["--forward=127.0.0.1:0", "--allow=127.0.0.0/8"]));
    let admin = proxy.admin();
    // Nobody listens there.
    for host in ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"] {
        let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(exchange(proxy.addr(0), request.as_bytes()).await.status(), 500);
    }
    let answer = get(admin, "/metrics");
    let series = "vouchsafe_failures_total{upstream=\"127.0.0.0/8\",class=\"connection_refused\"}";
    assert_eq!(answer.samples().get(series), Some(&3.0), "{}", answer.body);
    assert!(!answer.body.contains("127.0.0.2"), "{}", answer.body);
    let status = get(admin, "/status").json();
    let tried: Vec<_> = status["upstreams"].as_array().unwrap().iter().map(|upstream| &upstream["upstream"]).collect();
    assert_eq!(tried, ["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn web_pages_of_other_origins_and_names_get_nothing() {
    let proxy =
        Proxy::start(&flags(&["--route=127.0.0.1:0=https://glance.example:9292", "--admin-host=status.example"]));
    let admin = proxy.admin();
    let status = |line: &str, fields: &[&str]| {
        let answer = ask(TcpStream::connect(admin).unwrap(), line, fields);
        for (name, value) in
            [("cache-control", "no-store"), ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
        {
            assert_eq!(answer.field(name), Some(value), "{answer:?}");
        }
        assert!(answer.field("content-security-policy").unwrap().starts_with("default-src 'none'"), "{answer:?}");
        assert_eq!(answer.field("access-control-allow-origin"), None);
        if answer.status >= 400 {
            assert!(!answer.body.contains("glance"), "{answer:?}");
        }
        answer.status
    };
    for path in ["/", "/status", "/metrics", "/livez", "/nothing", "/reload"] {
        let line = format!("GET {path} HTTP/1.1");
        assert_eq!(status(&line, &["Host: evil.example"]), 421, "{path}");
        assert_eq!(status(&line, &["Host: localhost", "Sec-Fetch-Site: cross-site"]), 403, "{path}");
        assert_eq!(status(&line, &["Host: localhost", "Origin: http://evil.example"]), 403, "{path}");
    }
    for host in ["localhost:1", "[::1]", "127.0.0.1", "status.example"] {
        assert_eq!(status("GET /status HTTP/1.1", &[&format!("Host: {host}")]), 200, "{host}");
    }
    assert_eq!(status("GET http://evil.example/status HTTP/1.1", &["Host: localhost"]), 421);
    assert_eq!(status("GET /status HTTP/1.1", &["Host: localhost", "Host: localhost"]), 421);
    assert_eq!(status("GET /status HTTP/1.0", &[]), 400);
    assert_eq!(status("GET /livez HTTP/1.0", &[]), 200);
    assert_eq!(status("GET / HTTP/1.1", &["Host: localhost", "Sec-Fetch-Site: none"]), 200);
    // Changes are not accepted over TCP, whatever the header fields.
    for path in ["/reload", "/drain"] {
        let line = format!("POST {path} HTTP/1.1");
        assert_eq!(status(&line, &["Host: localhost", "X-Vouchsafe: 1", "Content-Length: 0"]), 403, "{path}");
        assert_eq!(status(&format!("GET {path} HTTP/1.1"), &["Host: localhost"]), 405, "{path}");
    }
    assert_eq!(status("POST /status HTTP/1.1", &["Host: localhost", "Content-Length: 0"]), 405);
    assert_eq!(get(admin, "/readyz").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_can_reach_has_probes_and_metrics_only() {
    let route = "--route=127.0.0.1:0=https://glance.example:9292";
    let bundle = gallery::bundle(Bundle::Root);
    let refused = vouchsafe(&["run", "--ca-bundle", &bundle, route, "--admin", "0.0.0.0:0"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let (what, hint) = ("--admin `0.0.0.0:0`: 0.0.0.0 can be reached from other hosts", "set --admin-read-only");
    assert!(refused.err.contains(what) && refused.err.contains(hint), "{refused:?}");

    let proxy = Proxy::start(&["--ca-bundle", &*bundle, route, "--admin", "0.0.0.0:0", "--admin-read-only"]);
    let admin = SocketAddr::new([127, 0, 0, 1].into(), proxy.admin().port());
    let status = ["/livez", "/readyz", "/metrics", "/status", "/", "/reload"].map(|path| get(admin, path).status);
    assert_eq!(status, [200, 200, 200, 403, 403, 403]);
}

#[test]
fn an_admin_listener_that_cannot_be_is_an_error_and_what_has_no_effect_a_warning() {
    let bundle = gallery::bundle(Bundle::Root);
    let route = "--route=127.0.0.1:19292=https://glance.example:9292";
    let check = |flags: &[&str]| vouchsafe(&[&["config", "check", "--ca-bundle", &bundle, route], flags].concat());
    for (flags, expected) in [
        (&["--admin", "9090"][..], "--admin `9090`: an address and a port are expected"),
        (&["--admin", "unix:"], "--admin `unix:`: a path is expected"),
        (&["--admin", "127.0.0.1:19292"], "--admin `127.0.0.1:19292`: `route 127.0.0.1:19292` listens there already"),
        (&["--admin", "127.0.0.1:0", "--admin-host", "http://a"], "--admin-host `http://a`"),
    ] {
        let said = check(flags);
        assert!(said.code == Some(2) && said.err.contains(expected), "{flags:?}: {said:?}");
    }
    for flags in [&["--admin-host", "a"][..], &["--admin-read-only"]] {
        let said = check(flags);
        let expected = format!("{} has no effect: there is no `admin`", flags[0]);
        assert!(format!("{}{}", said.out, said.err).contains(&expected), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_taken_by_the_unix_socket() {
    let directory = dir();
    let path = directory.path().join("admin.sock");
    let bundle = gallery::bundle(Bundle::Root);
    let mut proxy = Proxy::start(&[
        "--ca-bundle",
        &*bundle,
        "--route=127.0.0.1:0=https://glance.example:9292",
        "--admin",
        &format!("unix:{}", path.display()),
    ]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let post = |of: &str, fields: &[&str]| {
        let fields = [&["Host: localhost", "Content-Length: 0"], fields].concat();
        ask(UnixStream::connect(&path).unwrap(), &format!("POST {of} HTTP/1.1"), &fields).status
    };
    assert_eq!(post("/reload", &[]), 403);
    assert_eq!(post("/reload", &["X-Vouchsafe: 1", "Sec-Fetch-Site: cross-site"]), 403);
    assert_eq!(post("/reload", &["X-Vouchsafe: 1"]), 202);
    let reloaded = proxy.wait_for_log("a new generation", |event| event["message"] == "reloaded");
    assert_eq!((&reloaded["generation"], &reloaded["why"]), (&2.into(), &"admin listener".into()));
    let status = ask(UnixStream::connect(&path).unwrap(), "GET /status HTTP/1.1", &["Host: localhost"]).json();
    assert_eq!((&status["generation"], &status["reload"]["succeeded"]), (&2.into(), &1.into()));
    assert_eq!(post("/drain", &["X-Vouchsafe: 1"]), 202);
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_loaded_are_shown() {
    let directory = dir();
    let config = directory.path().join("vouchsafe.toml");
    let text = format!(
        "ca_bundle = \"{}\"\nroute = \"127.0.0.1:0=https://glance.example:9292\"\nadmin = \"127.0.0.1:0\"\n",
        gallery::bundle(Bundle::Root)
    );
    std::fs::write(&config, &text).unwrap();
    let proxy = Proxy::start(&["--config", &config.display().to_string(), "--reload-interval", "1h"]);
    let admin = proxy.admin();
    std::fs::write(&config, format!("{text}tls_timeout = \"<b>\"\n")).unwrap();
    proxy.signal("HUP");
    proxy.wait_for_log("the refusal", |event| event["failed_reloads"] == 1);
    let metrics = get(admin, "/metrics");
    let samples = metrics.samples();
    assert_eq!(samples["vouchsafe_reloads_total{result=\"failure\"}"], 1.0);
    assert_eq!(samples["vouchsafe_config_last_reload_successful"], 0.0);
    let page = get(admin, "/").body;
    assert!(page.contains("reload failed") && page.contains("&lt;b&gt;") && !page.contains("<b>`"), "{page}");
    std::fs::write(&config, format!("{text}tls_timeout = \"9s\"\n")).unwrap();
    proxy.signal("HUP");
    proxy.wait_for_log("a new generation", |event| event["message"] == "reloaded");
    assert_eq!(get(admin, "/metrics").samples()["vouchsafe_config_last_reload_successful"], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_hostile_certificates_as_text_and_needs_nothing_from_elsewhere() {
    let now = OffsetDateTime::now_utc();
    let mut spec = LeafSpec::new("<script>alert(1)</script>\u{202e}gnp.exe", now).dns("glance.example");
    spec.validity = Validity::days(now, -10, 3);
    let (address, _) = serve(&self_signed(&spec).unwrap()).await;
    let proxy = Proxy::start(&flags(&[
        format!("--route=127.0.0.1:0=https://glance.example:{}", address.port()),
        format!("--connect-to=glance.example:{}={address}", address.port()),
    ]));
    let admin = proxy.admin();
    assert!(get(admin, "/").body.contains("No upstream has been connected to yet"));
    assert_eq!(request(&proxy, 0, "/").await, 403);
    let answer = get(admin, "/");
    let page = &answer.body;
    assert_eq!(answer.field("content-type"), Some("text/html; charset=utf-8"));
    // As RFC 4514 has the subject, and HTML its text.
    let subject = r"CN=\&lt;script\&gt;alert(1)\&lt;/script\&gt;\E2\80\AEgnp.exe";
    assert!(page.contains(subject) && !page.contains("<script>alert"), "{page}");
    assert!(!page.contains('\u{202e}'), "{page}");
    for shown in [
        ">refused</span>",
        "self_signed_not_in_bundle",
        ">2</b>",
        "<details id=\"chain-glance.example:",
        "Refusals: 1 in the last hour",
        "expires in 2 days",
        proxy.audit()[0]["event.id"].as_str().unwrap(),
    ] {
        assert!(page.contains(shown), "there is no `{shown}`:\n{page}");
    }
    assert!(page.len() < 20 << 10, "{} bytes", page.len());
    let elsewhere = ["http://", "https://", " src=", "style=\"", "onclick", "@import", "url("];
    // Where the route leads is text.
    let text = page.replace("<td class=\"\" data-name=\"To\">https://", "");
    assert!(elsewhere.iter().all(|part| !text.contains(part)), "{page}");

    // The browser applies this style and this script, and no others.
    let policy = answer.field("content-security-policy").unwrap();
    for tag in ["style", "script"] {
        let inner = page.split_once(&format!("<{tag}>")).unwrap().1.split_once(&format!("</{tag}>")).unwrap().0;
        let hash = BASE64.encode(digest::digest(&digest::SHA256, inner.as_bytes()).as_ref());
        assert!(policy.contains(&format!("{tag}-src 'sha256-{hash}'")), "{policy}");
        assert_eq!(page.matches(&format!("<{tag}")).count(), 1);
    }
    assert!(!policy.contains("unsafe"), "{policy}");
}
