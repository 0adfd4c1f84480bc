//! No link leads the client off the proxy unasked; and redirects that are followed here are requests of their own.

use std::sync::{Arc, OnceLock};

use certs_dev::Case;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    self,
    gallery::{self, Front},
    origin::{Origin, Step, exchange, read_response, send},
    proxy::Proxy,
};

/// Answers have a Date, since the proxy gives one to those that have none.
const OK: &str = "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nok";
const FOLLOW: &[&str] = &["--follow-redirects"];

/// A proxy with a fixed route to each of these, in order.
fn routed(origins: &[&Origin], more: &[&str]) -> Proxy {
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(origins.iter().flat_map(|origin| origin.route()));
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Proxy::start(&flags)
}

/// A proxy with a forward listener that may go to this origin, which is found at the port that clients know, and at
/// 443.
fn forward(origin: &Origin, more: &[&str]) -> Proxy {
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(["--forward=127.0.0.1:0", "--allow=good.gallery.test"].map(str::to_owned));
    flags.push(format!("--connect-to=good.gallery.test={}", origin.address));
    flags.extend(more.iter().map(|flag| (*flag).to_owned()));
    Proxy::start(&flags)
}

fn authority(origin: &Origin) -> String {
    format!("good.gallery.test:{}", origin.address.port())
}

fn redirect(status: u16, location: &str) -> String {
    format!("HTTP/1.1 {status} Elsewhere\r\nDate: now\r\nLocation: {location}\r\nContent-Length: 5\r\n\r\nmoved")
}

/// What a client is answered that asks for `/a` at `127.0.0.1:7001`, but for the line `Via`.
async fn get(proxy: &Proxy) -> String {
    ask(proxy, 0, "GET /a HTTP/1.1\r\nHost: 127.0.0.1:7001\r\nConnection: close\r\n\r\n").await
}

async fn ask(proxy: &Proxy, listener: usize, request: &str) -> String {
    let seen = exchange(proxy.addr(listener), request.as_bytes()).await;
    let text: String = seen.bytes.iter().map(|byte| char::from(*byte)).collect();
    let lines = text.split("\r\n").filter(|line| !line.to_lowercase().starts_with("via: 1.1 vouchsafe-"));
    lines.collect::<Vec<_>>().join("\r\n").replace("Connection: close\r\n", "").replace("connection: close\r\n", "")
}

fn location(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_else(|| panic!("no Location: {answer}"))
}

/// The lines of a request's head, the one of Via with its pseudonym cut off.
fn lines(request: &str) -> Vec<&str> {
    let head = request.strip_suffix("\r\n\r\n").unwrap();
    let cut = |line| if str::starts_with(line, "Via: ") { line.split('-').next().unwrap() } else { line };
    head.split("\r\n").map(cut).collect()
}

/// An origin that answers with these bytes whatever it is asked, `OWN` and `OTHER` being two authorities.
async fn answers(answer: &'static [u8], other: Option<&Origin>) -> Origin {
    let other = other.map(authority).unwrap_or_default();
    Origin::start(move |_, request| {
        let own = request.lines().find_map(|line| line.to_lowercase().strip_prefix("host: ").map(str::to_owned));
        vec![Step::Send(replaced(&replaced(answer, b"OWN", own.unwrap().as_bytes()), b"OTHER", other.as_bytes()))]
    })
    .await
}

fn replaced(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut rest = text;
    let mut new = Vec::new();
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        new.extend([&rest[..at], with].concat());
        rest = &rest[at + what.len()..];
    }
    [&new, rest].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn links_to_what_fixed_routes_lead_to_lead_there_by_way_of_the_proxy() {
    let other = Origin::start(|_, _| vec![send(OK)]).await;
    let answer = b"HTTP/1.1 300 Multiple Choices\r\n\
        LINK: <https://OWN/v2?a=<b,c>; rel=\"x, <https://OWN/>\", <https://OTHER/v3>;rel=y\r\n\
        Date: Sat, 01 Jan 2022 00:00:00 GMT\r\n\
        location: HTTPS://OWN/%7Ea//./b?q=https://OWN/#f\r\n\
        X-Storage-Url: http://OWN/v1/AUTH_x\r\n\
        LINK: <https://GOOD.gallery.test.:OTHER/>, </relative>, <https://else.test/>\r\n\
        Content-Location: https://OTHER\r\n\
        WWW-Authenticate: Basic realm=\"https://OWN/\", Keystone uri='https://OWN/v3'\r\n\
        www-authenticate: Keystone uri=\"https://OTHER/v3\", realm='https://OWN'\r\n\
        X-Other: https://OWN/\r\n\
        Content-Length: 0\r\n\r\n";
    let origin = answers(answer, Some(&other)).await;
    let proxy = routed(&[&origin, &other], &[]);
    let (own, elsewhere) = (authority(&origin), proxy.addr(1).to_string());
    let expected = "HTTP/1.1 300 Multiple Choices\r\n\
        LINK: <http://127.0.0.1:7001/v2?a=<b,c>; rel=\"x, <https://OWN/>\", <http://LISTENER/v3>;rel=y\r\n\
        Date: Sat, 01 Jan 2022 00:00:00 GMT\r\n\
        location: http://127.0.0.1:7001/%7Ea//./b?q=https://OWN/#f\r\n\
        X-Storage-Url: http://127.0.0.1:7001/v1/AUTH_x\r\n\
        LINK: <https://GOOD.gallery.test.:OTHER/>, </relative>, <https://else.test/>\r\n\
        Content-Location: http://LISTENER\r\n\
        WWW-Authenticate: Basic realm=\"https://OWN/\", Keystone uri='http://127.0.0.1:7001/v3'\r\n\
        www-authenticate: Keystone uri=\"http://LISTENER/v3\", realm='https://OWN'\r\n\
        X-Other: https://OWN/\r\n\
        Content-Length: 0\r\n\r\n";
    let expected = expected.replace("OWN", &own).replace("LISTENER", &elsewhere).replace("OTHER", &authority(&other));
    assert_eq!(get(&proxy).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leads_elsewhere_or_nowhere_is_left_as_it_is() {
    for value in [
        &b"/v2/images/1"[..],
        b"v2/images/1?x=https://OWN/",
        b"//OWN/",
        b"https://else.test/",
        b"https://OWN.else.test/",
        b"https://good.gallery.test/",
        b"https://user:secret@OWN/",
        b"https://OWN@else.test/",
        b"ftp://OWN/",
        b"https:/OWN/",
        b"https://OWN/caf\xe9",
        b"https://OWN\\/",
        b"not a url",
        b"",
    ] {
        let answer = [b"HTTP/1.1 302 Found\r\nLocation: ", value, b"\r\nContent-Length: 0\r\n\r\n"].concat();
        let origin = answers(answer.leak(), None).await;
        let proxy = routed(&[&origin], &[]);
        let expected: String =
            replaced(value, b"OWN", authority(&origin).as_bytes()).into_iter().map(char::from).collect();
        let answer = get(&proxy).await;
        assert!(answer.contains(&format!("\r\nLocation: {expected}\r\n")), "{expected}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_no_host_is_led_to_the_listener() {
    let origin = answers(b"HTTP/1.1 302 Found\r\nLocation: https://OWN/x\r\nContent-Length: 0\r\n\r\n", None).await;
    let proxy = routed(&[&origin], &[]);
    let answer = ask(&proxy, 0, "GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(location(&answer), format!("http://{}/x", proxy.addr(0)));
    // Of all addresses there is no one to name.
    let mut flags = origin.route();
    flags.extend([flags[1].replace("127.0.0.1:0=", "--route=0.0.0.0:0="), "--allow-nonlocal-listen".into()]);
    let proxy = routed(&[], &flags[2..].iter().map(String::as_str).collect::<Vec<_>>());
    let seen = exchange(([127, 0, 0, 1], proxy.addr(0).port()).into(), b"GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(location(&seen.text()), format!("https://{}/x", authority(&origin)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_builds_links_from_the_clients_host_does_not_make_them_https() {
    let answer =
        b"HTTP/1.1 302 Found\r\nLocation: https://OWN/x\r\nContent-Location: http://OWN/x\r\nContent-Length: 0\r\n\r\n";
    let origin = answers(answer, None).await;
    let proxy = routed(&[&origin], &["--host=client"]);
    let answer = get(&proxy).await;
    assert!(origin.requests()[0].contains("\r\nHost: 127.0.0.1:7001\r\n"), "{:?}", origin.requests());
    assert!(
        answer.contains("\r\nLocation: http://127.0.0.1:7001/x\r\nContent-Location: http://127.0.0.1:7001/x\r\n"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rewriting_is_switched_off_and_on_by_a_reload() {
    let origin = answers(b"HTTP/1.1 302 Found\r\nLocation: https://OWN/x\r\nContent-Length: 0\r\n\r\n", None).await;
    let directory = support::dir();
    let file = directory.path().join("vouchsafe.toml");
    std::fs::write(&file, "rewrite_redirects = false").unwrap();
    let proxy = routed(&[&origin], &["--config", &file.display().to_string()]);
    assert_eq!(location(&get(&proxy).await), format!("https://{}/x", authority(&origin)));
    std::fs::write(&file, "rewrite_redirects = true").unwrap();
    proxy.wait_for_log("a new generation", |event| event["message"] == "reloaded");
    assert_eq!(location(&get(&proxy).await), "http://127.0.0.1:7001/x");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_forward_listener_links_lead_back_to_it_by_its_port_rules() {
    for (link, expected) in [
        ("https://good.gallery.test/v2", "http://good.gallery.test/v2"),
        ("https://good.gallery.test:443/v2?a", "http://good.gallery.test/v2?a"),
        ("https://Good.gallery.test.:1234#f", "http://good.gallery.test:1234#f"),
        ("https://good.gallery.test:8443/", "http://good.gallery.test:8443/"),
        ("https://good.gallery.test:80/", "http://good.gallery.test:9090/"),
        // A plain client cannot say this port: it would mean 8443.
        ("https://good.gallery.test:8080/", "https://good.gallery.test:8080/"),
        ("http://good.gallery.test/v2", "http://good.gallery.test/v2"),
        ("https://bad.gallery.test/", "https://bad.gallery.test/"),
        ("/v2", "/v2"),
    ] {
        let origin = Origin::start(move |_, _| vec![send(&redirect(302, link))]).await;
        let proxy = forward(&origin, &["--port-map=8080=8443", "--port-map=9090=80"]);
        for (target, host) in [("http://good.gallery.test:8080/", "x"), ("/", "good.gallery.test:8080")] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_eq!(location(&ask(&proxy, 0, &request).await), expected, "{target}");
        }
        let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
        client.write_all(b"CONNECT good.gallery.test:8080 HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut space = [0; 1024];
        let count = client.read(&mut space).await.unwrap();
        assert!(space[..count].starts_with(b"HTTP/1.1 200 "));
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let answer = support::origin::read_to_end(&mut client).await.text();
        assert_eq!(location(&answer), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rewritten_link_says_leads_to_the_same_upstream() {
    let origin = Origin::start(|number, _| match number {
        0 => vec![send(&redirect(302, "https://good.gallery.test:80/next"))],
        _ => vec![send(OK)],
    })
    .await;
    let proxy = forward(&origin, &["--port-map=9090=80"]);
    let first = ask(&proxy, 0, "GET http://good.gallery.test/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    let second = format!("GET {} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", location(&first));
    assert!(ask(&proxy, 0, &second).await.ends_with("ok"));
    assert_eq!(lines(&origin.requests()[1])[..2], ["GET /next HTTP/1.1", "Host: good.gallery.test:80"]);
}

const TOKENS: &str = "Authorization: Basic c2VjcmV0\r\nproxy-authorization: Basic c2VjcmV0\r\nCookie: secret=1\r\n\
    X-Auth-Token: secret\r\nX-AUTH-KEY: secret\r\nX-Subject-Token: secret\r\nX-Service-Token: secret\r\n\
    X-Storage-Token: secret\r\nX-Storage-Pass: secret\r\nX-Api-Key: secret\r\nReferer: http://a/?secret\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_followed_on_the_same_connection_and_keeps_the_credentials() {
    for status in [301, 302, 303, 307, 308] {
        for method in ["GET", "HEAD"] {
            let origin = Origin::start(move |number, _| {
                let body = if method == "GET" { "moved" } else { "" };
                let head = |location: &str| redirect(status, location).replace("moved", body);
                match number {
                    0 => vec![send(&head("b/../%7Ec?q=secret%2F&r=//#f"))],
                    1 => vec![send(&head("/d"))],
                    _ => vec![send(&OK.replace("ok", if method == "GET" { "ok" } else { "" }))],
                }
            })
            .await;
            let proxy = routed(&[&origin], FOLLOW);
            let request = format!(
                "{method} /v1/a?x=secret HTTP/1.1\r\nUser-agent: old\r\nhost: 127.0.0.1:7001\r\n{TOKENS}\
                 x-image-meta-NAME: n\r\nConnection: close\r\n\r\n"
            );
            let answer = ask(&proxy, 0, &request).await;
            assert_eq!(answer, OK.replace("ok", if method == "GET" { "ok" } else { "" }), "{status} {method}");
            let kept = TOKENS.replace("proxy-authorization: Basic c2VjcmV0\r\n", "");
            for (request, path) in origin.requests().iter().zip(["/v1/a?x=secret", "/v1/%7Ec?q=secret%2F&r=//", "/d"]) {
                let expected = format!(
                    "{method} {path} HTTP/1.1\r\nUser-agent: old\r\nhost: {}\r\n{kept}x-image-meta-NAME: n\r\n\
                     Via: 1.1 vouchsafe",
                    authority(&origin)
                );
                assert_eq!(lines(request).join("\r\n"), expected);
            }
            assert_eq!((origin.requests().len(), origin.connections()), (3, 1), "{status} {method}");
            let event = proxy.wait_for_access("the request", |_| true);
            assert_eq!(event["followed"], 2, "{event}");
            assert_eq!((&event["path"], &event["status"]), (&"/v1/a".into(), &200.into()), "{event}");
            assert_eq!((&event["upstream"], &event["made_by"]), (&authority(&origin).into(), &"upstream".into()));
            assert!(!proxy.raw_log().contains("secret"), "{}", proxy.raw_log());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_behind_at_another_authority_and_do_not_come_back() {
    let names = Arc::new(OnceLock::<[String; 2]>::new());
    let first = {
        let names = names.clone();
        Origin::start(move |number, _| match number {
            0 => vec![send(&redirect(302, &format!("https://{}/b", names.get().unwrap()[1])))],
            _ => vec![send(OK)],
        })
        .await
    };
    let second = {
        let names = names.clone();
        Origin::start(move |_, _| vec![send(&redirect(307, &format!("https://{}/c", names.get().unwrap()[0])))]).await
    };
    names.set([authority(&first), authority(&second)]).unwrap();
    let proxy = routed(&[&first, &second], FOLLOW);
    let request =
        format!("GET /a HTTP/1.1\r\nAccept: x\r\n{TOKENS}Host: a\r\nRange: bytes=0-\r\nConnection: close\r\n\r\n");
    assert_eq!(ask(&proxy, 0, &request).await, OK);
    assert!(first.requests()[0].contains("X-Auth-Token: secret"));
    let expected = |path: &str, origin| {
        let host = format!("Host: {}", authority(origin));
        [
            format!("GET {path} HTTP/1.1"),
            "Accept: x".into(),
            host,
            "Range: bytes=0-".into(),
            "Via: 1.1 vouchsafe".into(),
        ]
    };
    assert_eq!(lines(&second.requests()[0]), expected("/b", &second));
    assert_eq!(lines(&first.requests()[1]), expected("/c", &first));
    let event = proxy.wait_for_access("the request", |_| true);
    assert_eq!((&event["followed"], &event["upstream"]), (&2.into(), &authority(&first).into()), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_ten_hops_the_next_redirect_is_the_clients_affair() {
    for (link, last) in [("/a", "http://127.0.0.1:7001/a"), ("https://OWN/a", "http://127.0.0.1:7001/a")] {
        let origin = Origin::start(move |_, request| {
            let own = request.lines().find_map(|line| line.strip_prefix("Host: ")).unwrap();
            vec![send(&redirect(302, &link.replace("OWN", own)))]
        })
        .await;
        let proxy = routed(&[&origin], FOLLOW);
        let answer = get(&proxy).await;
        assert!(answer.starts_with("HTTP/1.1 302 Elsewhere\r\n") && answer.ends_with("\r\n\r\nmoved"), "{answer}");
        assert_eq!(location(&answer), last);
        assert_eq!((origin.requests().len(), origin.connections()), (11, 1));
        assert_eq!(proxy.wait_for_access("the request", |_| true)["followed"], 10);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_redirect_of_a_request_without_a_body_is_not_followed() {
    for (request, answer) in [
        ("POST /a HTTP/1.1\r\nContent-Length: 0\r\n", redirect(302, "/b")),
        ("DELETE /a HTTP/1.1\r\n", redirect(307, "/b")),
        ("GET /a HTTP/1.1\r\nContent-Length: 1\r\n", redirect(302, "/b")),
        ("GET /a HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", redirect(302, "/b")),
        ("GET /a HTTP/1.1\r\n", redirect(300, "/b")),
        ("GET /a HTTP/1.1\r\n", redirect(305, "/b")),
        ("GET /a HTTP/1.1\r\n", redirect(201, "/b")),
        ("GET /a HTTP/1.1\r\n", redirect(302, "/b").replace("Location", "X-Location")),
        ("GET /a HTTP/1.1\r\n", redirect(302, "/b\r\nLocation: /c")),
        ("GET /a HTTP/1.1\r\n", redirect(302, "ftp://OWN/b")),
        ("GET /a HTTP/1.1\r\n", redirect(302, "https://u:p@OWN/b")),
        ("GET /a HTTP/1.1\r\n", redirect(302, "/b c")),
    ] {
        let script = answer.clone();
        let origin = Origin::start(move |_, _| vec![send(&script)]).await;
        let proxy = routed(&[&origin], FOLLOW);
        let body = if request.contains("Length: 1") { "x" } else { "" };
        let request = format!("{request}Host: 127.0.0.1:7001\r\nConnection: close\r\n\r\n{body}");
        assert_eq!(ask(&proxy, 0, &request).await, answer, "{request}");
        assert_eq!(origin.requests().len(), 1);
        assert!(proxy.wait_for_access("the request", |_| true).get("followed").is_none());
    }
    // Nor is anything where nobody asked for it.
    let origin = Origin::start(|_, _| vec![send(&redirect(302, "/b"))]).await;
    assert_eq!(get(&routed(&[&origin], &[])).await, redirect(302, "/b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_what_is_not_served_here_is_handed_to_the_client() {
    let other = Origin::start(|_, _| vec![send(OK)]).await;
    let link = format!("https://{}/b?c", authority(&other));
    let answer = redirect(302, &link);
    let script = answer.clone();
    let origin = Origin::start(move |_, _| vec![send(&script)]).await;
    let to = format!("--connect-to={}={}", authority(&other), other.address);
    let proxy = routed(&[&origin], &[FOLLOW[0], &to]);
    assert_eq!(get(&proxy).await, answer);
    let elsewhere = Origin::start(|_, _| vec![send(&redirect(302, "https://else.gallery.test/b"))]).await;
    let request = "GET http://good.gallery.test/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(&forward(&elsewhere, FOLLOW), 0, request).await, redirect(302, "https://else.gallery.test/b"));
    assert_eq!(other.connections(), 0);
    // What a fixed route's clients may be taken to beyond the routes is what the policy allows.
    let origin = Origin::start(move |_, _| vec![send(&answer)]).await;
    let proxy = routed(&[&origin], &[FOLLOW[0], &to, "--allow=good.gallery.test"]);
    assert_eq!(get(&proxy).await, OK);
    assert_eq!(lines(&other.requests()[0])[0], "GET /b?c HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn forward_listeners_follow_where_the_policy_allows() {
    let origin = Origin::start(|number, _| match number {
        0 => vec![send(&redirect(302, "http://good.gallery.test:8080/b"))],
        1 => vec![send(&redirect(302, "https://good.gallery.test/c"))],
        _ => vec![send(OK)],
    })
    .await;
    let proxy = forward(&origin, &[FOLLOW[0], "--port-map=8080=8443"]);
    let request =
        "GET http://good.gallery.test:8080/a HTTP/1.1\r\nX-Auth-Token: t\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(&proxy, 0, request).await, OK);
    let requests = origin.requests();
    let seen: Vec<_> = requests.iter().map(|request| lines(request)[..3].to_vec()).collect();
    assert_eq!(seen[0], ["GET /a HTTP/1.1", "X-Auth-Token: t", "Host: good.gallery.test:8443"]);
    assert_eq!(seen[1], ["GET /b HTTP/1.1", "X-Auth-Token: t", "Host: good.gallery.test:8443"]);
    assert_eq!(seen[2], ["GET /c HTTP/1.1", "Host: good.gallery.test", "Via: 1.1 vouchsafe"]);
    let event = proxy.wait_for_access("the request", |_| true);
    assert_eq!((&event["followed"], &event["upstream"]), (&2.into(), &"good.gallery.test:443".into()), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hop_to_a_server_that_is_refused_ends_as_that_refusal() {
    let front = Front::start(Case::Expired).await;
    let link = format!("https://{}/b?c=secret", front.authority());
    let origin = Origin::start(move |number, _| match number {
        0 => vec![send(&redirect(302, &link))],
        _ => vec![send(OK)],
    })
    .await;
    let to = format!("--connect-to={}={}", front.authority(), front.address);
    let proxy = routed(&[&origin], &[FOLLOW[0], &to, &format!("--allow={}", front.authority())]);
    let answer = get(&proxy).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains(&front.authority()), "{answer}");
    assert!(answer.contains("vouchsafe refused ") && answer.contains(": expired"), "{answer}");
    let events = proxy.audit();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(
        (&events[0]["error.code"], &events[0]["server.address"]),
        (&"expired".into(), &Case::Expired.name().into())
    );
    let event = proxy.wait_for_access("the request", |_| true);
    assert_eq!((&event["followed"], &event["upstream"]), (&1.into(), &front.authority().into()), "{event}");
    assert_eq!(
        (&event["status"], &event["class"], &event["made_by"]),
        (&403.into(), &"expired".into(), &"proxy".into())
    );
    assert_eq!(front.counters.requests(), 0);
    assert!(!proxy.raw_log().contains("secret"), "{}", proxy.raw_log());
    // The server that redirected is as good as before.
    assert_eq!(get(&proxy).await, OK);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_with_a_body_that_is_long_or_late_costs_its_connection_and_no_more() {
    let head = "HTTP/1.1 302 Found\r\nLocation: /b\r\n";
    let long = "x".repeat(100_000);
    for (case, steps) in [
        ("counted", vec![send(&format!("{head}Content-Length: 100000\r\n\r\n{long}"))]),
        ("chunked", vec![send(&format!("{head}Transfer-Encoding: chunked\r\n\r\n186a0\r\n{long}\r\n0\r\n\r\n"))]),
        ("stalled", vec![send(&format!("{head}Content-Length: 5\r\n\r\n")), Step::Stall]),
        ("closed", vec![send(&format!("{head}\r\nbody")), Step::Close]),
    ] {
        let origin = Origin::start(move |number, _| if number == 0 { steps.clone() } else { vec![send(OK)] }).await;
        let proxy = routed(&[&origin], FOLLOW);
        assert_eq!(get(&proxy).await, OK, "{case}");
        assert_eq!((origin.requests().len(), origin.connections()), (2, 2), "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_two_could_read_in_two_ways_is_no_redirect() {
    let answer =
        "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let origin = Origin::start(move |_, _| vec![send(answer)]).await;
    let proxy = routed(&[&origin], FOLLOW);
    assert!(get(&proxy).await.starts_with("HTTP/1.1 500 "));
    assert_eq!(origin.requests().len(), 1);
    assert_eq!(proxy.wait_for_access("the request", |_| true)["class"], "bad_response");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_a_followed_answer_are_relative_to_where_it_came_from() {
    let other = Origin::start(|_, _| {
        let fields = "Content-Location: d?x#y\r\nLink: <../e>, <https://else.test/>\r\nX-Storage-Url: /v1";
        vec![send(&format!("HTTP/1.1 200 OK\r\nDate: now\r\n{fields}\r\nContent-Length: 0\r\n\r\n"))]
    })
    .await;
    let link = format!("https://{}/v2/b/c?q", authority(&other));
    let origin = Origin::start(move |_, _| vec![send(&redirect(302, &link))]).await;
    for rewrite in [true, false] {
        let proxy = routed(&[&origin, &other], &[FOLLOW[0], &format!("--rewrite-redirects={rewrite}")]);
        let there =
            if rewrite { format!("http://{}", proxy.addr(1)) } else { format!("https://{}", authority(&other)) };
        let expected = format!(
            "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Location: {there}/v2/b/d?x#y\r\nLink: <{there}/v2/e>, <https://else.test/>\r\n\
             X-Storage-Url: {there}/v1\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(get(&proxy).await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_clients_host_a_redirect_to_it_is_followed_to_the_own_upstream() {
    for scheme in ["http", "https"] {
        let origin = Origin::start(move |number, _| match number {
            0 => vec![send(&redirect(302, &format!("{scheme}://127.0.0.1:7001/b")))],
            1 => vec![send(&redirect(302, "c"))],
            _ => vec![send(OK)],
        })
        .await;
        let proxy = routed(&[&origin], &[FOLLOW[0], "--host=client"]);
        assert_eq!(get(&proxy).await, OK);
        let hosts: Vec<_> = origin.requests().iter().map(|request| lines(request)[..2].join(" ")).collect();
        assert_eq!(hosts, ["/a", "/b", "/c"].map(|path| format!("GET {path} HTTP/1.1 Host: 127.0.0.1:7001")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_connection_serves_on_after_a_followed_redirect() {
    let origin =
        Origin::start(|number, _| vec![send(&if number % 2 == 0 { redirect(302, "/b") } else { OK.into() })]).await;
    let proxy = routed(&[&origin], FOLLOW);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    for _ in 0..3 {
        client.write_all(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        assert!(read_response(&mut client).await.ends_with("\r\n\r\nok"));
    }
    assert_eq!((origin.requests().len(), origin.connections()), (6, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hop_is_made_by_the_settings_that_are_in_force_then() {
    let other = Origin::start(|_, _| vec![send(OK)]).await;
    let answer = redirect(302, &format!("https://{}/b", authority(&other)));
    let (go, waits) = std::sync::mpsc::channel::<()>();
    let (script, waits) = (answer.clone(), std::sync::Mutex::new(waits));
    let origin = Origin::start(move |_, _| {
        waits.lock().unwrap().recv().unwrap();
        vec![send(&script)]
    })
    .await;
    let directory = support::dir();
    let file = directory.path().join("vouchsafe.toml");
    std::fs::write(&file, "allow = \"good.gallery.test\"").unwrap();
    let to = format!("--connect-to={}={}", authority(&other), other.address);
    let proxy = routed(&[&origin], &[FOLLOW[0], &to, "--config", &file.display().to_string()]);
    go.send(()).unwrap();
    assert_eq!(get(&proxy).await, OK);
    let after_the_reload = async {
        origin.has_requests(2).await;
        std::fs::write(&file, "").unwrap();
        proxy.wait_for_log("a new generation", |event| event["message"] == "reloaded");
        go.send(()).unwrap();
    };
    assert_eq!(tokio::join!(get(&proxy), after_the_reload).0, answer);
    assert_eq!(other.requests().len(), 1);
}
