//! Names are looked up as glibc does, and never slower: the hosts file is the whole answer, no family, name server or
//! search domain that is silent holds up another, and nothing is remembered.
//!
//! Time limits are longer than the tests wait, so what waits for a silent server fails.

use std::net::Ipv4Addr;

use certs_dev::{Bundle, Case};

use crate::support::{
    dns::{Answer, Kind, NameServer},
    gallery::{self, Front},
    origin::{Seen, exchange},
    proxy::Proxy,
};

const NAME: &str = "good.gallery.test";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// Longer than any step of a test waits.
const NEVER: &str = "--connect-timeout=120s";

fn loopback() -> Answer {
    Answer::Addresses(vec![Ipv4Addr::LOCALHOST])
}

/// A proxy that has to look up `host`, in the name server's namespace, to reach a server.
fn proxy(server: &NameServer, host: &str, front: &Front, limit: &str) -> Proxy {
    let route = format!("--route=127.0.0.1:0=https://{host}:{}", front.address.port());
    let flags = ["--ca-bundle".to_owned(), gallery::bundle(Bundle::Root), route, limit.to_owned()];
    Proxy::start_under(&server.wrapper(), &flags)
}

async fn get(proxy: &Proxy) -> Seen {
    exchange(proxy.addr(0), GET).await
}

/// A request that has to pass with what the name server and the files say.
async fn passes(server: &NameServer, host: &str) {
    let front = Front::start(Case::Good).await;
    let proxy = proxy(server, host, &front, NEVER);
    let seen = get(&proxy).await;
    assert_eq!(seen.status(), 200, "{}", seen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hosts_entry_of_either_family_is_the_whole_answer() {
    // The second is 127.0.0.1 as IPv6 sockets see it: the server listens on that alone.
    for address in ["127.0.0.1", "::ffff:127.0.0.1"] {
        let server = NameServer::start(Answer::Silence).await;
        server.hosts(format!("{address}\t{NAME}\n").as_bytes());
        passes(&server, NAME).await;
        assert_eq!(server.asked(), Vec::<String>::new(), "{address}: the name must not leave the host");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_that_is_silent_does_not_hold_up_the_other() {
    let server = NameServer::start_with(|_, kind| if kind == Kind::A { loopback() } else { Answer::Silence }).await;
    passes(&server, NAME).await;
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped();
    let server = NameServer::start_with(move |_, kind| match kind {
        Kind::A => Answer::Silence,
        Kind::Aaaa => Answer::Ipv6(vec![mapped]),
    })
    .await;
    passes(&server, NAME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_family_that_fails_does_not_spoil_the_other() {
    for bad in [Answer::Failure, Answer::Refusal, Answer::NoSuchName] {
        let answer = bad.clone();
        let server =
            NameServer::start_with(move |_, kind| if kind == Kind::A { loopback() } else { answer.clone() }).await;
        passes(&server, NAME).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_server_that_fails_or_is_silent_does_not_hold_up_the_next() {
    for bad in [Answer::Failure, Answer::Refusal, Answer::Garbage, Answer::Silence] {
        let (first, second) = (NameServer::start(bad).await, NameServer::start(loopback()).await);
        first.resolv_conf(format!("nameserver {}\nnameserver {}\n", first.ip(), second.ip()).as_bytes());
        passes(&first, NAME).await;
    }
    // Nobody listens at the first.
    let server = NameServer::start(loopback()).await;
    server.resolv_conf(format!("nameserver 127.53.0.0\nnameserver {}\n", server.ip()).as_bytes());
    passes(&server, NAME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_remembered() {
    let front = Front::start(Case::Good).await;
    let server = NameServer::start(Answer::NoSuchName).await;
    // No connection is kept, so each request looks the name up.
    let proxy = proxy(&server, NAME, &front, "--pool-size=0");
    let nobody = Answer::Addresses(vec![Ipv4Addr::new(127, 77, 77, 77)]);
    for (answer, status) in [
        (Answer::NoSuchName, 500),
        (loopback(), 200),
        (Answer::Addresses(Vec::new()), 500),
        (loopback(), 200),
        (Answer::Failure, 500),
        (loopback(), 200),
        (nobody, 500),
        (loopback(), 200),
    ] {
        server.say(answer.clone());
        let seen = get(&proxy).await;
        assert_eq!(seen.status(), status, "{answer:?}: {}", seen.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_count_at_the_next_lookup() {
    let front = Front::start(Case::Good).await;
    let server = NameServer::start(Answer::NoSuchName).await;
    let proxy = proxy(&server, NAME, &front, NEVER);
    assert_eq!(get(&proxy).await.status(), 500);
    server.hosts(format!("127.0.0.1 {NAME}\n").as_bytes());
    assert_eq!(get(&proxy).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_search_domain_does_not_hold_up_the_name_itself() {
    let server = NameServer::start_with(|name, _| if name == NAME { loopback() } else { Answer::Silence }).await;
    let conf = format!("nameserver {}\nsearch dead.test gone.test\noptions ndots:5\n", server.ip());
    server.resolv_conf(conf.as_bytes());
    passes(&server, NAME).await;
    assert!(server.asked().contains(&format!("{NAME}.dead.test")), "the search list comes first: {:?}", server.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_search_list_completes_a_short_name() {
    let server = NameServer::start_with(|name, _| if name == NAME { loopback() } else { Answer::NoSuchName }).await;
    server.resolv_conf(format!("nameserver {}\nsearch other.test gallery.test\n", server.ip()).as_bytes());
    let front = Front::start(Case::Good).await;
    let proxy = proxy(&server, "good", &front, NEVER);
    // It is found, and its certificate is for the whole name.
    let seen = get(&proxy).await;
    assert_eq!(seen.status(), 403, "{}", seen.text());
    assert!(seen.text().contains("name_mismatch"), "{}", seen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailing_dot_keeps_the_search_list_away() {
    let server = NameServer::start_with(|name, _| if name == NAME { loopback() } else { Answer::Silence }).await;
    server.resolv_conf(format!("nameserver {}\nsearch dead.test\noptions ndots:5\n", server.ip()).as_bytes());
    passes(&server, &format!("{NAME}.")).await;
    assert!(server.asked().iter().all(|name| name == NAME), "{:?}", server.asked());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_byte_does_not_void_a_file() {
    let server = NameServer::start(Answer::Silence).await;
    let mut hosts = b"192.0.2.1 caf\xe9\n# \xff\xfe\n".to_vec();
    hosts.extend(format!("127.0.0.1 {NAME}\n").bytes());
    server.hosts(&hosts);
    passes(&server, NAME).await;

    let server = NameServer::start(loopback()).await;
    let mut conf = format!("search lab..test \u{e9}\nnameserver {} # caf", server.ip()).into_bytes();
    conf.extend(b"\xe9\noptions ndots:many\n");
    server.resolv_conf(&conf);
    passes(&server, NAME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_fit_into_a_datagram_is_asked_for_by_tcp() {
    let many = || Answer::OverTcp(vec![Ipv4Addr::LOCALHOST; 40]);
    let server = NameServer::start(many()).await;
    passes(&server, NAME).await;
    assert!(!server.was_asked_by_tcp_alone());

    let server = NameServer::start(many()).await;
    server.resolv_conf(format!("nameserver {}\noptions use-vc\n", server.ip()).as_bytes());
    passes(&server, NAME).await;
    assert!(server.was_asked_by_tcp_alone());
}

#[tokio::test(flavor = "multi_thread")]
async fn aliases_lead_to_the_address() {
    passes(&NameServer::start(Answer::Alias(Ipv4Addr::LOCALHOST)).await, NAME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_gives_up_when_glibc_would() {
    let front = Front::start(Case::Good).await;
    let server = NameServer::start(Answer::Silence).await;
    let conf = format!("nameserver {}\nsearch a.test b.test\noptions timeout:1 attempts:1 ndots:5\n", server.ip());
    server.resolv_conf(conf.as_bytes());
    let proxy = proxy(&server, NAME, &front, NEVER);
    let seen = get(&proxy).await;
    assert_eq!(seen.status(), 500);
    assert!(seen.text().contains("dns_timeout"), "{}", seen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_says_which_server_said_what() {
    let front = Front::start(Case::Good).await;
    for (answer, limit, expected) in [
        (Answer::NoSuchName, NEVER, "cannot be resolved: no such name (IP: NXDOMAIN)"),
        (Answer::Addresses(Vec::new()), NEVER, "cannot be resolved: it has no address (IP: no A or AAAA record)"),
        (
            Answer::OfAnother(Ipv4Addr::LOCALHOST),
            NEVER,
            "cannot be resolved: it has no address (IP: no A or AAAA record)",
        ),
        (Answer::Failure, NEVER, "cannot be resolved: no name server could tell (IP: SERVFAIL)"),
        (Answer::Refusal, NEVER, "cannot be resolved: no name server could tell (IP: REFUSED)"),
        (Answer::Garbage, NEVER, "cannot be resolved: no name server could tell (IP: malformed answer)"),
        (
            Answer::Silence,
            "--connect-timeout=500ms",
            "was not resolved within 0.5 s: no name server answered (IP: no answer)",
        ),
    ] {
        let server = NameServer::start(answer).await;
        let proxy = proxy(&server, NAME, &front, limit);
        assert_eq!(get(&proxy).await.status(), 500);
        let expected = format!("the name `{NAME}` {}", expected.replace("IP", &server.ip().to_string()));
        proxy.wait_for_line(&expected, |line| line.contains(&expected).then_some(()));
    }
    // Nobody listens at its address.
    let server = NameServer::start(Answer::Silence).await;
    server.resolv_conf(b"nameserver 127.53.0.0\n");
    let proxy = proxy(&server, NAME, &front, NEVER);
    assert_eq!(get(&proxy).await.status(), 500);
    let expected = "no name server can be reached (127.53.0.0: connection refused)";
    proxy.wait_for_line(expected, |line| line.contains(expected).then_some(()));
}
