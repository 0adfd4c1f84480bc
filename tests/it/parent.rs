//! Upstreams behind a parent proxy: what is asked of it, what reaches the upstream, and every way in which it fails.

use std::time::{Duration, Instant};

use certs_dev::{Bundle, Case};
use serde_json::Value;

use crate::support::{
    self,
    gallery::{self, Front, GALLERY},
    origin::{Origin, Seen, Step, exchange, send},
    parent::{Answer, Parent},
    proxy::Proxy,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic Y2xpZW50Og==\r\nConnection: close\r\n\r\n";

/// A fixed route to an origin by its name, which nothing but the parent can find.
fn by_name(origin: &Origin) -> Vec<String> {
    vec![
        "--ca-bundle".into(),
        gallery::bundle(Bundle::Root),
        format!("--route=127.0.0.1:0=https://good.gallery.test:{}", origin.address.port()),
    ]
}

fn with(mut flags: Vec<String>, more: &[&str]) -> Vec<String> {
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    flags
}

async fn get(proxy: &Proxy) -> Seen {
    exchange(proxy.addr(0), GET.as_bytes()).await
}

/// The head of the CONNECT request for this origin, with these lines behind.
fn connect_head(target: &str, more: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: vouchsafe/{version}\r\n{more}\r\n")
}

/// No word of a CONNECT request is in what an upstream was sent.
fn assert_clean(requests: &[String]) {
    for request in requests {
        let text = request.to_ascii_lowercase();
        for word in ["proxy-", "authorization", "user-agent", "connect "] {
            assert!(!text.contains(word), "{request}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parent_is_asked_for_the_name_and_the_upstream_sees_nothing_of_it() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let parent = Parent::start(Answer::Tunnel).await;
    let flag = format!("--parent-proxy=http://alad%64in:open%20sesame@{}", parent.address);
    let proxy = Proxy::start(&with(by_name(&origin), &[&flag]));
    for _ in 0..2 {
        let seen = get(&proxy).await;
        assert_eq!(seen.status(), 200, "{}", seen.text());
    }
    // The second request went by the same tunnel.
    let target = format!("good.gallery.test:{}", origin.address.port());
    let expected = connect_head(&target, "Proxy-Authorization: Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n");
    assert_eq!(parent.heads(), [expected]);
    assert_eq!(origin.requests().len(), 2);
    assert_clean(&origin.requests());
    let access = proxy.wait_for_access("an access event", |event| event["status"] == 200);
    assert_eq!(access["via"], format!("http://{}", parent.address), "{access}");
    assert_eq!(access.get("address"), None, "{access}");
    let log = proxy.raw_log();
    assert!(!log.contains("sesame") && !log.contains("YWxhZGRp"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_connect_to_the_parent_is_asked_for_that_address() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let parent = Parent::start(Answer::Tunnel).await;
    let flags = [vec!["--ca-bundle".into(), gallery::bundle(Bundle::Root)], origin.route()].concat();
    let proxy = Proxy::start(&with(flags, &[&parent.flag()]));
    assert_eq!(get(&proxy).await.status(), 200);
    assert_eq!(parent.heads(), [connect_head(&origin.address.to_string(), "")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_and_followed_redirects_go_by_tunnels_of_their_own_and_stay_clean() {
    let second = Origin::start(|_, _| vec![send(OK)]).await;
    let location = format!("https://good.gallery.test:{}/there", second.address.port());
    // Closes behind its first answer without telling, so that the next request has to be sent again.
    let first = Origin::start(move |number, _| match number {
        0 => vec![send(OK), Step::Close],
        _ => vec![send(&format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))],
    })
    .await;
    let parent = Parent::start(Answer::Tunnel).await;
    let flag = format!("--parent-proxy=http://u:p@{}", parent.address);
    let allow = format!("--allow=good.gallery.test:{}", second.address.port());
    let proxy = Proxy::start(&with(by_name(&first), &[&flag, "--follow-redirects", &allow]));
    assert_eq!(get(&proxy).await.status(), 200);
    let seen = get(&proxy).await;
    assert!(seen.status() == 200 && seen.text().ends_with("ok"), "{}", seen.text());
    assert_eq!(parent.heads().len(), 3, "{:?}", parent.heads());
    assert!(parent.heads().iter().all(|head| head.contains("Proxy-Authorization: Basic dTpw\r\n")));
    assert_clean(&first.requests());
    assert_clean(&second.requests());
    assert!(second.requests()[0].starts_with("GET /there "), "{:?}", second.requests());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_closes_tunnels_that_another_way_or_other_credentials_would_not_have() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let parent = Parent::start(Answer::Tunnel).await;
    let directory = support::dir();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let config = |parent_proxy: &str| {
        let authority = format!("good.gallery.test:{}", origin.address.port());
        let text = format!(
            "ca_bundle = {:?}\nroute = \"127.0.0.1:0=https://{authority}\"\nconnect_to = \"{authority}={}\"\n{parent_proxy}\n",
            gallery::bundle(Bundle::Root),
            origin.address
        );
        std::fs::write(at("new"), text).unwrap();
        std::fs::rename(at("new"), at("vouchsafe.toml")).unwrap();
    };
    let credentials = |text: &str| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::write(at("new"), text).unwrap();
        std::fs::set_permissions(at("new"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(at("new"), at("credentials")).unwrap();
    };
    credentials("first:one\n");
    let through =
        format!("parent_proxy = \"http://{}\"\nparent_proxy_credentials = {:?}", parent.address, at("credentials"));
    config(&through);
    let proxy = Proxy::start(&["--config", &at("vouchsafe.toml")]);
    let generation = |number: u64| {
        proxy.wait_for_log("a reload", |event| event["message"] == "reloaded" && event["generation"] == number);
    };
    assert_eq!(get(&proxy).await.status(), 200);
    credentials("second:two");
    generation(2);
    assert_eq!(get(&proxy).await.status(), 200);
    let fields: Vec<_> = parent.heads().iter().map(|head| head.lines().nth(3).unwrap().to_owned()).collect();
    assert_eq!(
        fields,
        ["Proxy-Authorization: Basic Zmlyc3Q6b25l", "Proxy-Authorization: Basic c2Vjb25kOnR3bw=="],
        "the credentials are read again, and a tunnel of the old ones is not used"
    );
    config("parent_proxy = \"direct\"");
    generation(3);
    assert_eq!(get(&proxy).await.status(), 200);
    assert_eq!((parent.heads().len(), origin.connections()), (2, 3), "a tunnel is not used for a direct upstream");
    config(&through);
    generation(4);
    assert_eq!(get(&proxy).await.status(), 200);
    assert_eq!((parent.heads().len(), origin.connections()), (3, 4), "nor the other way round");
    assert_clean(&origin.requests());
}

/// Sends a request through a parent, which has to fail, and gives the answer and the line of the log.
async fn failure(answer: Answer, more: &[&str]) -> (Seen, Value, Vec<String>) {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let parent = Parent::start(answer).await;
    let proxy = Proxy::start(&with(by_name(&origin), &[&[parent.flag().as_str()], more].concat()));
    let seen = get(&proxy).await;
    let line = proxy.wait_for_log("the failure", |event| event["event"] == "request-failed");
    assert_eq!(origin.connections(), 0, "there is no fallback: {line}");
    assert!(proxy.audit().is_empty(), "it is no refusal");
    (seen, line, parent.heads())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_but_a_tunnel_is_a_failure_of_its_own_class() {
    let page = "<html><style>p { x: y }</style><p>Access denied by \u{1b}[31m rule 7</p></html>";
    let denied = format!("HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{page}", page.len());
    let interims = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(11);
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    for (text, class, message, hint) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n",
            "parent_auth",
            "wants credentials: it answered 407 Proxy Authentication Required; it offers Basic, Negotiate",
            "--parent-proxy-credentials",
        ),
        (
            "HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\n\r\n",
            "parent_auth",
            "it offers NTLM",
            "only Basic authentication is supported",
        ),
        ("HTTP/1.1 401 x\r\nWWW-Authenticate: Basic\r\n\r\n", "parent_auth", "it answered 401 x", ""),
        (
            denied.as_str(),
            "parent_denied",
            "does not permit the tunnel: it answered 403 Forbidden, and says: Access denied by \\u{1b}[31m rule 7",
            "`SSL_ports`",
        ),
        ("HTTP/1.0 405 No\r\n\r\n", "parent_denied", "405 No", "`AllowCONNECT`"),
        ("HTTP/1.1 503 Down\r\n\r\n", "parent_upstream", "could not reach the upstream: it answered 503 Down", ""),
        ("HTTP/1.1 500 Unable\r\n\r\n", "parent_upstream", "could not reach the upstream: it answered 500 Unable", ""),
        ("HTTP/1.1 404 No\r\n\r\n", "parent_bad_answer", "opened no tunnel: it answered 404 No", "forward proxy"),
        ("HTTP/1.1 101 x\r\n\r\n", "parent_bad_answer", "it answered 101 x", ""),
        ("HTTP/1.1 200 OK\r\n\r\nhello", "parent_bad_answer", "it sent data before the TLS handshake began", ""),
        ("SSH-2.0-OpenSSH\r\n", "parent_bad_answer", "gave no usable answer to CONNECT", ""),
        ("\x15\x03\x01\0\x02\x02\x46", "parent_bad_answer", "gave no usable answer to CONNECT", ""),
        ("\r\nHTTP/1.1 200 OK\r\n\r\n", "parent_bad_answer", "it does not begin with a status line", ""),
        ("HTTP/1.1 099 x\r\n\r\n", "parent_bad_answer", "gave no usable answer to CONNECT", ""),
        ("HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", "parent_bad_answer", "gave no usable answer to CONNECT", ""),
        (&interims, "parent_bad_answer", "more than 10 interim responses", ""),
        (&long, "parent_bad_answer", "it has too many bytes", ""),
        ("", "parent_bad_answer", "it closed the connection", ""),
    ] {
        let (seen, line, _) = failure(Answer::Say(text.to_owned()), &[]).await;
        assert_eq!(line["class"], class, "{text}: {line}");
        assert!(line["message"].as_str().unwrap().contains(message), "{text}: {line}");
        assert!(line["hint"].as_str().unwrap_or_default().contains(hint), "{text}: {line}");
        let answer = seen.text();
        assert_eq!(seen.status(), 500, "never the parent's status: {answer}");
        assert!(!answer.to_lowercase().contains("authenticate"), "{answer}");
        assert!(answer.contains(&format!("details=\"{class}\"")), "{answer}");
        let status = text
            .strip_prefix("HTTP/1.")
            .and_then(|rest| rest.get(2..5))
            .filter(|_| !line["message"].as_str().unwrap().contains("no usable"));
        let received = status.map(|status| format!("; received-status={status}\r\n"));
        assert_eq!(received.is_some(), answer.contains("received-status"), "{answer}");
        assert!(received.is_none_or(|received| answer.contains(&received)), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_on_the_answer_of_a_parent_is_exact() {
    let sized = |size: usize| {
        let rest = "HTTP/1.1 200 OK\r\nX: \r\n\r\n".len();
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(size - rest))
    };
    let fields = |count: usize| {
        let lines: String = (0..count).map(|n| format!("X-{n}: 1\r\n")).collect();
        format!("HTTP/1.1 200 OK\r\n{lines}\r\n")
    };
    let interims = |count: usize| "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count) + "HTTP/1.1 200 OK\r\n\r\n";
    for (most, more, message) in [
        (sized(64 << 10), sized((64 << 10) + 1), "it has too many bytes"),
        (fields(500), fields(501), "it has too many field lines"),
        (interims(10), interims(11), "more than 10 interim responses"),
    ] {
        let origin = Origin::start(|_, _| vec![send(OK)]).await;
        let parent = Parent::start(Answer::Before(most)).await;
        let proxy = Proxy::start(&with(by_name(&origin), &[&parent.flag()]));
        assert_eq!(get(&proxy).await.status(), 200, "without `{message}`");
        let (seen, line, _) = failure(Answer::Say(more), &[]).await;
        assert_eq!((seen.status(), &line["class"]), (500, &"parent_bad_answer".into()), "{line}");
        assert!(line["message"].as_str().unwrap().contains(message), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_for_the_answer_of_a_parent_is_exact_and_ends_with_its_head() {
    let limit = Duration::from_secs(2);
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let parent = Parent::start(Answer::After(limit / 2)).await;
    let proxy = Proxy::start(&with(by_name(&origin), &[&parent.flag(), "--connect-timeout=2s"]));
    assert_eq!(get(&proxy).await.status(), 200);

    let silent = Parent::start(Answer::Silence("")).await;
    let proxy = Proxy::start(&with(by_name(&origin), &[&silent.flag(), "--connect-timeout=2s"]));
    let start = Instant::now();
    assert!(get(&proxy).await.text().contains("parent_unreachable"));
    assert!((limit..limit * 2).contains(&start.elapsed()), "{:?}", start.elapsed());

    // Its refusal counts, though the rest of the page does not come in time.
    let page = "HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\nby rule 7";
    let (_, line, _) = failure(Answer::Silence(page), &["--connect-timeout=300ms"]).await;
    assert_eq!(line["class"], "parent_denied");
    assert!(line["message"].as_str().unwrap().ends_with("403 Forbidden, and says: by rule 7"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_200_says_of_a_body_does_not_matter_and_interim_responses_are_skipped() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.0 204 Fine\r\nTransfer-Encoding-X: a\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX: y\r\n\r\nHTTP/1.1 200 Connection established\r\n\r\n",
    ] {
        let origin = Origin::start(|_, _| vec![send(OK)]).await;
        let parent = Parent::start(Answer::Before(text.to_owned())).await;
        let proxy = Proxy::start(&with(by_name(&origin), &[&parent.flag()]));
        assert_eq!(get(&proxy).await.status(), 200, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_silent_or_dead_fails_and_nothing_goes_past_it() {
    for text in ["", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n"] {
        let (seen, line, heads) = failure(Answer::Silence(text), &["--connect-timeout=300ms"]).await;
        assert_eq!((seen.status(), heads.len()), (500, 1));
        assert_eq!(line["class"], "parent_unreachable");
        assert!(line["message"].as_str().unwrap().contains("did not answer CONNECT within 0.3 s"), "{line}");
    }

    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, why) in [
        (format!("http://{dead}"), "cannot be reached: no connection to 127.0.0.1"),
        ("http://parent.invalid:3128".into(), "cannot be reached: the name `parent.invalid` cannot be resolved"),
    ] {
        // Directly it would be reached.
        let authority = format!("good.gallery.test:{}", origin.address.port());
        let reachable = format!("--connect-to={authority}={}", origin.address);
        let proxy = Proxy::start(&with(by_name(&origin), &[&reachable, "--parent-proxy", &url]));
        assert_eq!(get(&proxy).await.status(), 500);
        let line = proxy.wait_for_log("the failure", |event| event["event"] == "request-failed");
        assert_eq!(line["class"], "parent_unreachable");
        assert!(line["message"].as_str().unwrap().contains(why), "{line}");
        assert!(line["hint"].as_str().unwrap().contains("no fallback"), "{line}");
        assert_eq!(origin.connections(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_parent_carries_tls_in_tls() {
    let up = "u".repeat(1_000_000);
    let down = "d".repeat(3_000_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{down}", down.len());
    let origin = Origin::start(move |_, _| vec![send(&answer)]).await;
    let parent = Parent::with_tls(&GALLERY.identity(Case::GoodIp).unwrap(), Answer::Tunnel).await;
    let proxy = Proxy::start(&with(by_name(&origin), &[&parent.tls_flag()]));
    let request = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{up}", up.len());
    for _ in 0..2 {
        let request = request.replacen("Host: a", "Host: a\r\nConnection: close", 1);
        let seen = exchange(proxy.addr(0), request.as_bytes()).await;
        assert!(seen.status() == 200 && seen.bytes.ends_with(down.as_bytes()), "{}", seen.bytes.len());
    }
    assert_eq!(parent.heads().len(), 1, "the tunnel is kept");
    assert!(origin.requests().iter().all(|request| request.ends_with(&up)));
    let access = proxy.wait_for_access("an access event", |event| event["status"] == 200);
    assert_eq!(access["via"], format!("https://{}", parent.address), "{access}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_not_trusted_is_refused_before_it_is_told_anything() {
    for (case, code) in [(Case::Good, "ip_san_missing"), (Case::WrongIp, "ip_san_missing")] {
        let origin = Origin::start(|_, _| vec![send(OK)]).await;
        let parent = Parent::with_tls(&GALLERY.identity(case).unwrap(), Answer::Tunnel).await;
        let credentials = parent.tls_flag().replace("https://", "https://u:p@");
        let proxy = Proxy::start(&with(by_name(&origin), &[&credentials]));
        let seen = get(&proxy).await;
        assert!(seen.status() == 403 && seen.text().contains("parent_tls"), "{}", seen.text());
        assert_eq!((parent.heads().len(), origin.connections()), (0, 0));
        let [event] = &proxy.audit()[..] else { panic!("one event: {:?}", proxy.audit()) };
        assert_eq!(event["error.code"], "parent_tls");
        assert_eq!(event["vouchsafe.findings"][0]["code"], code, "{event}");
        assert_eq!(event["vouchsafe.parent"], format!("https://{}", parent.address));
        assert_eq!(event["vouchsafe.upstream"], format!("good.gallery.test:{}", origin.address.port()));
        assert_eq!(event["vouchsafe.reference"], "ip:127.0.0.1");
        assert_eq!(event.get("server.ip"), None, "{event}");
        assert!(event["error.message"].as_str().unwrap().starts_with("the parent proxy https://127.0.0.1:"), "{event}");
    }
    // The same parent with CAs of its own.
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let now = time::OffsetDateTime::now_utc();
    let authority = certs_dev::pki::Authority::root("Parent Root", now).unwrap();
    let spec = certs_dev::pki::LeafSpec::new("parent", now).ip(std::net::Ipv4Addr::LOCALHOST);
    let identity = authority.issue(&spec).unwrap();
    let parent = Parent::with_tls(&identity, Answer::Tunnel).await;
    let directory = support::dir();
    let bundle = directory.path().join("parent.pem");
    std::fs::write(&bundle, authority.certificate_pem()).unwrap();
    let bundle = format!("--parent-ca-bundle={}", bundle.display());
    let refused = Proxy::start(&with(by_name(&origin), &[&parent.tls_flag()]));
    assert_eq!(get(&refused).await.status(), 403);
    let trusting = Proxy::start(&with(by_name(&origin), &[&parent.tls_flag(), &bundle]));
    assert_eq!(get(&trusting).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_refused_behind_a_parent_is_recorded_with_it_and_not_by_its_address() {
    let front = Front::start(Case::Expired).await;
    let parent = Parent::start(Answer::Tunnel).await;
    let route = format!("--route=127.0.0.1:0=https://{}", front.authority());
    let flags = ["--ca-bundle", &gallery::bundle(Bundle::Root), &route, &parent.flag()].map(str::to_owned);
    let proxy = Proxy::start(&flags);
    for _ in 0..2 {
        assert_eq!(get(&proxy).await.status(), 403);
    }
    let events = proxy.audit();
    assert_eq!(events.len(), 2, "{events:?}");
    for event in &events {
        assert_eq!(event["error.code"], "expired", "{event}");
        assert_eq!(event["vouchsafe.parent"], format!("http://{}", parent.address));
        assert_eq!(event["vouchsafe.parent_ip"], "127.0.0.1");
        assert_eq!(event.get("server.ip"), None, "{event}");
    }
    assert_eq!(front.counters.application_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_upstream_may_have_a_way_of_its_own() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let [global, own] = [Parent::start(Answer::Tunnel).await, Parent::start(Answer::Tunnel).await];
    let port = origin.address.port();
    let authority = format!("good.gallery.test:{port}");
    let directory = support::dir();
    let config = directory.path().join("vouchsafe.toml");
    for (section, more, through_global, through_own) in [
        (String::new(), "", 1, 0),
        (format!("parent_proxy = \"http://{}\"", own.address), "", 0, 1),
        (format!("http_proxy_information = \"http:192.0.2.1:1, https:{}\"", own.address), "", 0, 1),
        ("parent_proxy = \"direct\"".into(), "", 0, 0),
        (String::new(), "no_proxy = [\"a.example\", \"gallery.test\"]\n", 0, 0),
        (String::new(), &format!("no_proxy = \"good.gallery.test:{}\"\n", port ^ 1), 1, 0),
        // What is set for the upstream itself counts more.
        (format!("parent_proxy = \"http://{}\"", own.address), "no_proxy = \"*\"\n", 0, 1),
    ] {
        let before = (global.heads().len(), own.heads().len());
        let section = match section.as_str() {
            "" => String::new(),
            section => format!("[[upstream]]\nof = \"{authority}\"\n{section}\n"),
        };
        let text = format!(
            "ca_bundle = {:?}\nroute = \"127.0.0.1:0=https://{authority}\"\nconnect_to = \"{authority}={}\"\nparent_proxy = \"http://{}\"\n{more}{section}",
            gallery::bundle(Bundle::Root),
            origin.address,
            global.address,
        );
        std::fs::write(&config, &text).unwrap();
        let proxy = Proxy::start(&["--config", config.to_str().unwrap()]);
        assert_eq!(get(&proxy).await.status(), 200, "{text}");
        let after = (global.heads().len(), own.heads().len());
        assert_eq!((after.0 - before.0, after.1 - before.1), (through_global, through_own), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loopback_and_what_only_a_network_allows_never_go_to_the_parent() {
    let front = Front::start(Case::GoodIp).await;
    let parent = Parent::start(Answer::Tunnel).await;
    let flags = with(
        vec!["--ca-bundle".into(), gallery::bundle(Bundle::Root)],
        &[&parent.flag(), "--forward=127.0.0.1:0", "--allow=127.0.0.0/8,192.0.2.0/24"],
    );
    let proxy = Proxy::start(&flags);
    let ask = async |host: &str| {
        let request = format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        exchange(proxy.addr(0), request.as_bytes()).await
    };
    assert_eq!(ask(&front.address.to_string()).await.status(), 200);
    assert!(parent.heads().is_empty());
    // It might resolve to an address of the network, which only the parent would know.
    let seen = ask("unknown.example").await;
    assert!(seen.status() == 403 && seen.text().contains("is not allowed"), "{}", seen.text());
    assert!(parent.heads().is_empty());
    // An address of the network is known.
    ask("192.0.2.7:8443").await;
    assert_eq!(parent.heads(), [connect_head("192.0.2.7:8443", "")]);
}
