//! No link leads the client off the proxy unasked.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    self, gallery,
    origin::{Origin, Step, exchange, send},
    proxy::Proxy,
};

/// Answers have a Date, since the proxy gives one to those that have none.
const OK: &str = "HTTP/1.1 200 OK\r\nDate: now\r\nContent-Length: 2\r\n\r\nok";

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
        LINK: <https://GOOD.gallery.test.:OTHER/>, </relative>, <https://else.test/>\r\n\
        Date: Sat, 01 Jan 2022 00:00:00 GMT\r\n\
        location: http://127.0.0.1:7001/%7Ea//./b?q=https://OWN/#f\r\n\
        X-Storage-Url: http://127.0.0.1:7001/v1/AUTH_x\r\n\
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
