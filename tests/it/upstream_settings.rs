//! Each setting of an upstream against a TLS server that is not ours, and beside it what differs in one respect and
//! is refused.

use std::{cell::RefCell, fmt::Write as _, fs, net::SocketAddr, path::Path};

use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use serde_json::Value;
use time::{Duration, OffsetDateTime, macros::format_description};

use crate::support::hostile::IS_THE_SAME_AT_EVERY_TRY;
use crate::{
    life, messages,
    support::{
        openssl::{Lab, Made, Server, text},
        origin::{Seen, exchange},
        proxy::Proxy,
    },
};

pub const NAME: &str = "a.lab.test";
pub const SAN: &str = "DNS:a.lab.test";
const ASK: &[u8] = b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// Flags or variables, with their values.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// What is to come of a request.
#[derive(Clone, Copy, Debug)]
pub enum End {
    /// Passes; `trust` of the access event.
    By(&'static str),
    /// Passes though it was refused: the class.
    Bypassed(&'static str),
    /// A verdict.
    Refused(&'static str),
    /// A handshake that broke off.
    Failed(&'static str),
}

use End::{By, Bypassed, Failed, Refused};

/// Upstreams that differ in their sections; each has a port of its own that nobody listens on.
pub struct Rows<'a> {
    lab: &'a Lab,
    flags: Vec<String>,
    config: String,
    rows: Vec<(String, String, End)>,
}

impl<'a> Rows<'a> {
    /// With a default bundle of this certificate.
    pub fn of(lab: &'a Lab, root: &Made) -> Self {
        let flags = vec!["--ca-bundle".to_owned(), text(&root.cert)];
        Self { lab, flags, config: String::new(), rows: Vec::new() }
    }

    /// With a further flag.
    fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    fn row(&mut self, name: &'static str, server: &Server, section: &str, end: End) {
        self.asked(NAME, name, server.address, section, end);
    }

    pub fn asked(&mut self, host: &str, name: impl Into<String>, at: SocketAddr, section: &str, end: End) {
        let of = format!("{host}:{}", 10_001 + self.rows.len());
        writeln!(self.config, "[[upstream]]\nof = \"{of}\"\nconnect_to = \"{at}\"\n{section}").unwrap();
        self.flags.extend(["--route".to_owned(), format!("127.0.0.1:0=https://{of}")]);
        self.rows.push((name.into(), of, end));
    }

    /// Asks all of them, and says all that is not as it should be.
    pub async fn judge(self) -> Proxy {
        self.judge_with(&[]).await
    }

    async fn judge_with(mut self, variables: &[(&str, &str)]) -> Proxy {
        let file = self.lab.write(&format!("{}.toml", self.rows[0].0.replace(' ', "-")), &self.config);
        self.flags.extend(["--config".to_owned(), text(&file)]);
        let proxy = Proxy::start_with(&self.flags, variables);
        let mut wrong = String::new();
        for (n, (name, of, end)) in self.rows.iter().enumerate() {
            let status = exchange(proxy.addr(n), ASK).await.status();
            let access = proxy.wait_for_access(name, |event| event["upstream"] == **of);
            let mut events = proxy.audit();
            // Its use is counted when a connection closes, whenever that is.
            events.retain(|event| {
                event["vouchsafe.upstream"] == **of && event["event.action"] != "tls-bypassed-requests"
            });
            if !holds(*end, status, &access, &events) {
                let codes: Vec<_> =
                    events.iter().map(|event| [&event["error.code"], &event["error.message"]]).collect();
                writeln!(wrong, "--- {name}: {status}, not {end:?}: {codes:?} {access}").unwrap();
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
        proxy
    }
}

fn holds(end: End, status: u16, access: &Value, events: &[Value]) -> bool {
    let one = |code: &str, action: &str, outcome: &str| match events {
        [event] => {
            let said = [&event["error.code"], &event["event.action"], &event["vouchsafe.outcome"]];
            said == [code, action, outcome]
        }
        _ => false,
    };
    match end {
        By(word) => (status, events.len()) == (200, 0) && access["trust"] == word,
        Bypassed(code) => {
            status == 200 && one(code, "tls-verification-bypassed", "bypassed") && access["trust"] == "bypassed"
        }
        Refused(code) => status == 403 && one(code, "tls-verification-refused", "refused"),
        Failed(code) => {
            let status_of = if IS_THE_SAME_AT_EVERY_TRY.contains(&code) { 403 } else { 500 };
            status == status_of && one(code, "tls-handshake-failed", "refused")
        }
    }
}

/// A day as a section has it.
pub fn day(ahead: i64) -> String {
    let day = (OffsetDateTime::now_utc() + Duration::days(ahead)).date();
    day.format(format_description!("[year]-[month]-[day]")).unwrap()
}

/// SHA-256 over the subjectPublicKeyInfo, as the `openssl` command has it.
fn key_digest(lab: &Lab, of: &Made) -> Vec<u8> {
    let pem = lab.openssl(&["x509", "-in", &text(&of.cert), "-noout", "-pubkey"]);
    let pem = lab.write("key.pub", pem);
    let der = lab.openssl(&["pkey", "-pubin", "-in", &text(&pem), "-outform", "DER"]);
    let der = lab.write("key.der", der);
    lab.openssl(&["dgst", "-sha256", "-binary", &text(&der)])
}

/// A root, an authority below it, and what that issued.
struct Pki {
    root: Made,
    issuing: Made,
    own: Made,
}

impl Pki {
    fn new(lab: &Lab, name: &str) -> Self {
        let root = lab.root(&format!("{name} Root"));
        let issuing = lab.authority(&format!("{name} Issuing")).by(&root);
        let own = lab.server("a", SAN).by(&issuing);
        Self { root, issuing, own }
    }

    fn serve(&self, lab: &Lab, more: &[&str]) -> Server {
        lab.s_server(&self.own, &[&self.issuing], more).ready()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_required_in_addition_to_everything_else() {
    let lab = &Lab::new();
    let (pki, junk) = (Pki::new(lab, "Lab"), lab.root("Junk"));
    let server = &lab.s_server(&pki.own, &[&pki.issuing, &junk], &[]).ready();
    let hex = |of: &Made| format!("pins = \"sha256:{}\"", HEXLOWER.encode(&key_digest(lab, of)));
    let base64 = |of: &Made| format!("pins = [\"sha256//{}\"]", BASE64.encode(&key_digest(lab, of)));
    let mut rows = Rows::of(lab, &pki.root);
    rows.row("no pin", server, "", By("chain"));
    rows.row("leaf, hex", server, &hex(&pki.own), By("chain"));
    rows.row("leaf, Base64", server, &base64(&pki.own), By("chain"));
    let colons = HEXUPPER.encode(&key_digest(lab, &pki.own));
    let colons: Vec<_> = colons.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap()).collect();
    rows.row("leaf, colons", server, &format!("pins = \"sha256:{}\"", colons.join(":")), By("chain"));
    rows.row("intermediate", server, &hex(&pki.issuing), By("chain"));
    rows.row("root, which was not sent", server, &base64(&pki.root), By("chain"));
    let two = format!("{}, {}", hex(&junk).replace("pins = ", "pins = ["), hex(&pki.own).replace("pins = ", "") + "]");
    rows.row("one of two", server, &two, By("chain"));
    rows.row("another key", server, &hex(&lab.root("Other")), Refused("pin_mismatch"));
    rows.row("a key that was sent and is not on the path", server, &hex(&junk), Refused("pin_mismatch"));
    let of_certificate = format!("pins = \"sha256:{}\"", pki.own.sha256());
    rows.row("the certificate's digest", server, &of_certificate, Refused("pin_mismatch"));
    rows.asked("b.lab.test", "right pin, wrong name", server.address, &hex(&pki.own), Refused("name_mismatch"));
    let other = lab.root("Other");
    let distrusted = format!("{}\nca_bundle = \"{}\"", hex(&pki.own), text(&other.cert));
    rows.row("right pin, unknown issuer", server, &distrusted, Refused("unknown_issuer"));
    let alone = format!("{}\nca_bundle = \"{}\"", hex(&pki.own), text(&pki.own.cert));
    rows.row("right pin of an exact anchor", server, &alone, By("exact"));
    let alone = format!("{}\nca_bundle = \"{}\"", hex(&pki.issuing), text(&pki.own.cert));
    rows.row("pin of what does not count for an exact anchor", server, &alone, Refused("pin_mismatch"));
    let proxy = rows.judge().await;
    let event = &proxy.audit()[0];
    let found = format!("the key of the certificate `CN=a` is sha256:{}", HEXLOWER.encode(&key_digest(lab, &pki.own)));
    assert!(event["error.message"].as_str().unwrap().contains(&found), "{event}");
    assert!(event["vouchsafe.hint"].as_str().unwrap().contains("add the new pin to `pins`"), "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_is_trusted_and_no_other() {
    let lab = &Lab::new();
    let pki = Pki::new(lab, "Lab");
    let vendor = lab.root("Vendor");
    let appliance = lab.server("appliance", "").by(&vendor);
    let old = lab.server("appliance", "").days(-40, -10).by(&vendor);
    let weak = lab.server("appliance", "").key("rsa:1024").by(&vendor);
    let by_digest = |of: &Made| format!("identity = \"sha256:{}\"", of.sha256());
    let by_file = |of: &Made| format!("identity = \"{}\"", text(&of.cert));
    let start = |of: &Made| lab.s_server(of, &[], &[]).ready();
    let (server, old_server, weak_server) = (&start(&appliance), &start(&old), &start(&weak));
    let good = &pki.serve(lab, &[]);
    let mut rows = Rows::of(lab, &pki.root);
    rows.row("CN only, not named", server, "", Refused("incomplete_chain"));
    rows.row("by fingerprint", server, &by_digest(&appliance), By("identity"));
    rows.row("by file", server, &by_file(&appliance), By("identity"));
    rows.asked("192.0.2.7", "by address", server.address, &by_digest(&appliance), By("identity"));
    let several = format!("identity = [\"sha256:{}\", \"{}\"]", old.sha256(), text(&appliance.cert));
    rows.row("one of two that were named", server, &several, By("identity"));
    let others = format!("identity = [\"sha256:{}\", \"{}\"]", old.sha256(), text(&vendor.cert));
    rows.row("none of two that were named", server, &others, Refused("identity_mismatch"));
    rows.row("another of the vendor's", server, &by_digest(&old), Refused("identity_mismatch"));
    rows.row("another that chains well", good, &by_digest(&appliance), Refused("identity_mismatch"));
    rows.row("its issuer", server, &by_file(&vendor), Refused("identity_mismatch"));
    rows.row(
        "the key's digest",
        server,
        &format!("identity = \"sha256:{}\"", HEXLOWER.encode(&key_digest(lab, &appliance))),
        Refused("identity_mismatch"),
    );
    rows.row("expired", old_server, &by_digest(&old), Refused("expired"));
    rows.row("weak", weak_server, &by_digest(&weak), Refused("weak_key"));
    let proxy = rows.judge().await;
    let mismatch = proxy.audit().into_iter().find(|event| event["error.code"] == "identity_mismatch").unwrap();
    let message = mismatch["error.message"].as_str().unwrap().to_owned();
    assert!(message.contains(&appliance.sha256()) && message.contains(&old.sha256()), "{message}");
    assert!(mismatch["vouchsafe.hint"].as_str().unwrap().contains(&appliance.sha256()), "{mismatch}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_sent_to_servers_that_request_one() {
    let lab = &Lab::new();
    let (pki, clients) = (Pki::new(lab, "Lab"), lab.root("Clients"));
    let client = |name: &str| lab.server(name, "").ext("extendedKeyUsage", "clientAuth");
    let (ours, theirs) = (client("ours").by(&clients), client("theirs").by(&lab.root("Strangers")));
    let trusted = text(&clients.cert);
    let demand = |version| pki.serve(lab, &["-Verify", "1", "-verify_return_error", "-CAfile", &trusted, version]);
    let (tls12, tls13) = (&demand("-tls1_2"), &demand("-tls1_3"));
    let asks_only = &pki.serve(lab, &["-verify", "1", "-CAfile", &trusted]);
    let section = |of: &Made| format!("client_cert = \"{}\"\nclient_key = \"{}\"", text(&of.cert), text(&of.key));

    let mut rows = Rows::of(lab, &pki.root);
    for server in [tls12, tls13] {
        rows.row("own", server, &section(&ours), By("chain"));
        rows.row("none", server, "", Failed("client_cert_required"));
        rows.row("of a wrong authority", server, &section(&theirs), Failed("client_cert_refused"));
    }
    rows.row("none, and none demanded", asks_only, "", By("chain"));
    let both = lab.write("both.pem", [fs::read(&ours.cert).unwrap(), fs::read(&ours.key).unwrap()].concat());
    rows.row("key in the certificate's file", tls13, &format!("client_cert = \"{}\"", text(&both)), By("chain"));
    let proxy = rows.judge().await;
    for event in proxy.audit() {
        let late = event["vouchsafe.occasion"] == "after_handshake";
        let message = event["error.message"].as_str().unwrap();
        assert_eq!(late, event["vouchsafe.request_bytes_sent"].is_null(), "{event}");
        match event["error.code"].as_str().unwrap() {
            "client_cert_refused" => assert!(message.contains(&theirs.sha256()), "{event}"),
            _ => {
                assert!(event["vouchsafe.hint"].as_str().unwrap().contains("--client-cert and --client-key"), "{event}")
            }
        }
    }
    let late = proxy.audit().iter().filter(|event| event["vouchsafe.occasion"] == "after_handshake").count();
    assert_eq!(late, 2, "TLS 1.3 says so after the handshake");

    let (cert, key) = (text(&ours.cert), text(&ours.key));
    let combined = text(&both);
    let variables: [(Pairs<'_>, Pairs<'_>, End); 6] = [
        (&[("--client-cert", &cert), ("--client-key", &key)], &[], By("chain")),
        (&[("--client-cert", &combined)], &[], By("chain")),
        (&[], &[("VOUCHSAFE_CLIENT_CERT", &cert), ("VOUCHSAFE_CLIENT_KEY", &key)], By("chain")),
        (&[], &[("OS_CERT", &cert), ("OS_KEY", &key)], By("chain")),
        (&[], &[("OS_CERT", &combined)], By("chain")),
        (&[], &[("OS_CERT", ""), ("OS_KEY", "")], Failed("client_cert_required")),
    ];
    for (flags, variables, end) in variables {
        let mut rows = Rows::of(lab, &pki.root);
        for (name, value) in flags {
            rows = rows.flag(name, value);
        }
        rows.row("global", tls13, "", end);
        rows.row("own goes first", tls12, &section(&theirs), Failed("client_cert_refused"));
        rows.judge_with(variables).await;
    }
    // The flag goes before the variables.
    let mut rows = Rows::of(lab, &pki.root).flag("--client-cert", &cert).flag("--client-key", &key);
    rows.row("flag and variables", tls12, "", By("chain"));
    rows.judge_with(&[("OS_CERT", &text(&theirs.cert)), ("OS_KEY", &text(&theirs.key))]).await;
}

/// OpenSSL waits for the answer before it goes on; a request is not held up until its time limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_renegotiation_is_declined_at_once() {
    let lab = &Lab::new();
    let pki = Pki::new(lab, "Lab");
    let server = pki.serve(lab, &["-tls1_2", "-www"]);
    let port = server.address.port();
    let route = format!("--route=127.0.0.1:0=https://{NAME}:{port}");
    let connect_to = format!("--connect-to={NAME}:{port}={}", server.address);
    let bundle = text(&pki.root.cert);
    let proxy = Proxy::start(&["--ca-bundle", &bundle, &route, &connect_to, "--response-timeout=120s"]);
    let seen = exchange(proxy.addr(0), b"GET /renegcert HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(seen.status(), 200, "{}", seen.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_takes_the_client_certificate() {
    let lab = &Lab::new();
    let (pki, clients) = (Pki::new(lab, "Lab"), lab.root("Clients"));
    let client = |of: &Made| lab.server("replicator", "").ext("extendedKeyUsage", "clientAuth").by(of);
    let (ours, theirs) = (client(&clients), client(&lab.root("Strangers")));
    let chain = text(&lab.bundle(&[&pki.own, &pki.issuing]));
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let nginx = lab.nginx(&format!(
            "listen LISTEN ssl; ssl_certificate {chain}; ssl_certificate_key {}; ssl_protocols {protocol};
             ssl_verify_client on; ssl_client_certificate {};
             location = /who {{ return 200 \"$ssl_protocol $ssl_client_verify $ssl_client_s_dn\"; }}",
            text(&pki.own.key),
            text(&clients.cert)
        ));
        let of = format!("{NAME}:{}", nginx.address.port());
        let ask = async |of_client: Option<&Made>| -> Seen {
            let mut flags = vec!["--ca-bundle".to_owned(), text(&pki.root.cert)];
            flags.extend(["--route".to_owned(), format!("127.0.0.1:0=https://{of}")]);
            flags.extend(["--connect-to".to_owned(), format!("{of}={}", nginx.address)]);
            if let Some(made) = of_client {
                flags.extend(["--client-cert".into(), text(&made.cert), "--client-key".into(), text(&made.key)]);
            }
            let proxy = Proxy::start(&flags);
            let seen = exchange(proxy.addr(0), b"GET /who HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert_eq!(proxy.audit().len(), 0);
            seen
        };
        let seen = ask(Some(&ours)).await;
        let expected = format!("{protocol} SUCCESS CN=replicator");
        assert!(seen.status() == 200 && seen.text().contains(&expected), "{}", seen.text());
        // nginx takes the connection and says no in HTTP: an answer like any other.
        let seen = ask(None).await;
        assert!(
            seen.status() == 400 && seen.text().contains("No required SSL certificate was sent"),
            "{}",
            seen.text()
        );
        let seen = ask(Some(&theirs)).await;
        assert!(seen.status() == 400 && seen.text().contains("The SSL certificate error"), "{}", seen.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lowest_version_is_a_setting() {
    let lab = &Lab::new();
    let pki = Pki::new(lab, "Lab");
    let (tls12, tls13) = (&pki.serve(lab, &["-tls1_2"]), &pki.serve(lab, &["-tls1_3"]));
    let mut rows = Rows::of(lab, &pki.root);
    rows.row("1.2 by default", tls12, "", By("chain"));
    rows.row("1.3 against 1.2", tls12, "min_tls = \"1.3\"", Failed("tls_version"));
    rows.row("1.3 against 1.3", tls13, "min_tls = \"1.3\"", By("chain"));
    let proxy = rows.judge().await;
    let event = &proxy.audit()[0];
    let message = event["error.message"].as_str().unwrap();
    assert_eq!(message, "the server does not speak TLS 1.3, which is the least that is set for it");
    assert!(event["vouchsafe.hint"].as_str().unwrap().contains("TLS 1.3"), "{event}");
    let mut rows = Rows::of(lab, &pki.root).flag("--min-tls", "1.3");
    rows.row("global 1.3 against 1.2", tls12, "", Failed("tls_version"));
    rows.row("global 1.3 against 1.3", tls13, "", By("chain"));
    rows.row("global 1.3, own 1.2", tls12, "min_tls = \"1.2\"", By("chain"));
    rows.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn which_name_is_verified_and_which_is_sent() {
    let lab = &Lab::new();
    let root = lab.root("Lab Root");
    let server = |names: &str| lab.server("s", names).by(&root);
    let (own, other) = (server("DNS:a.lab.test,IP:192.0.2.7"), server("DNS:other.lab.test"));
    let plain = &lab.s_server(&own, &[], &["-tlsextdebug"]).ready();
    let mut rows = Rows::of(lab, &root);
    rows.asked("alias", "verify_name", plain.address, "verify_name = \"a.lab.test\"", By("chain"));
    rows.asked("alias", "no verify_name", plain.address, "", Refused("name_mismatch"));
    rows.row("another verify_name", plain, "verify_name = \"b.lab.test\"", Refused("name_mismatch"));
    rows.row("an address as verify_name", plain, "verify_name = \"192.0.2.7\"", By("chain"));
    rows.row("another address as verify_name", plain, "verify_name = \"192.0.2.8\"", Refused("ip_san_missing"));
    rows.judge().await;

    // The front shows `own` to those who send `front.lab.test`, and `other` to all else.
    let (cert, key) = (text(&own.cert), text(&own.key));
    let two = ["-servername", "front.lab.test", "-cert2", &cert, "-key2", &key];
    let front = &lab.s_server(&other, &[], &two).ready();
    let strict = &lab.s_server(&own, &[], &[&two[..], &["-servername_fatal"]].concat()).ready();
    let mut rows = Rows::of(lab, &root);
    rows.row("sni", front, "sni = \"front.lab.test\"", By("chain"));
    rows.row("another sni", front, "sni = \"b.lab.test\"", Refused("name_mismatch"));
    rows.row("no sni", front, "", Refused("name_mismatch"));
    rows.row("sni that is wanted", strict, "sni = \"front.lab.test\"", By("chain"));
    rows.row("sni that is not wanted", strict, "", Failed("handshake_refused"));
    let proxy = rows.judge().await;
    let events = proxy.audit();
    assert_eq!(events[0]["tls.client.server_name"], "b.lab.test");
    assert_eq!(events[0]["vouchsafe.reference"], "dns:a.lab.test");
    assert!(events[2]["error.message"].as_str().unwrap().contains("UnrecognisedName"), "{}", events[2]);
    // No name is sent for an address, but where one is set.
    let server = &lab.s_server(&own, &[], &["-tlsextdebug"]).ready();
    let mut rows = Rows::of(lab, &root);
    let address = "192.0.2.7";
    rows.asked(address, "address", server.address, "", By("chain"));
    rows.asked(address, "address with sni", server.address, "sni = \"x.lab.test\"", By("chain"));
    rows.row("name", server, "", By("chain"));
    rows.asked("alias", "another name to verify", server.address, "verify_name = \"a.lab.test\"", By("chain"));
    rows.judge().await;
    assert_eq!(server.process.names(), ["x.lab.test", "a.lab.test", "a.lab.test"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_place_to_connect_proves_the_same_name() {
    let lab = &Lab::new();
    let pki = Pki::new(lab, "Lab");
    let other = lab.server("other", "DNS:other.lab.test").by(&pki.issuing);
    let (own, other) = (pki.serve(lab, &[]), lab.s_server(&other, &[&pki.issuing], &[]).ready());
    for (flag, end) in [(&own, 200), (&other, 403)] {
        for host in [NAME, "a.lab.test:9292"] {
            let bundle = text(&pki.root.cert);
            let proxy = Proxy::start(&[
                "--ca-bundle",
                &bundle,
                "--route=127.0.0.1:0=https://a.lab.test:9292",
                &format!("--connect-to={host}={}", flag.address),
            ]);
            assert_eq!(exchange(proxy.addr(0), ASK).await.status(), end);
            assert_eq!(proxy.audit().len(), usize::from(end == 403));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_may_have_a_bundle_of_its_own() {
    let lab = &Lab::new();
    let (ours, theirs) = (Pki::new(lab, "Our"), Pki::new(lab, "Their"));
    let (our, their) = (&ours.serve(lab, &[]), &theirs.serve(lab, &[]));
    for alias in ["ca_bundle", "https_ca_bundle"] {
        let own = format!("{alias} = \"{}\"", text(&theirs.root.cert));
        let both = format!("{alias} = [\"{}\", \"{}\"]", text(&theirs.root.cert), text(&ours.root.cert));
        let mut rows = Rows::of(lab, &ours.root);
        rows.row("default", our, "", By("chain"));
        rows.row("default, their server", their, "", Refused("unknown_issuer"));
        rows.row("own", their, &own, By("chain"));
        rows.row("own, our server", our, &own, Refused("unknown_issuer"));
        rows.row("both, our server", our, &both, By("chain"));
        rows.row("both, their server", their, &both, By("chain"));
        let proxy = rows.judge().await;
        let event = &proxy.audit()[1];
        let source = format!(": ca_bundle `{}`", text(&theirs.root.cert));
        assert!(event["vouchsafe.bundle.source"].as_str().unwrap().ends_with(&source), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_a_bundle() {
    let lab = &Lab::new();
    let (pki, other) = (Pki::new(lab, "Lab"), lab.root("Other"));
    let server = &pki.serve(lab, &[]);
    let directory = |name: &str, files: &[&str]| {
        let path = lab.path(name);
        fs::create_dir(&path).unwrap();
        fs::copy(&other.cert, path.join("other.pem")).unwrap();
        for file in files {
            fs::copy(&pki.root.cert, path.join(file)).unwrap();
        }
        path
    };
    let own = |path: &Path| format!("ca_bundle = \"{}\"", text(path));
    let mut rows = Rows::of(lab, &other);
    for name in ["root.pem", "root.crt", "root.cer", "5ed36f99.0", "5ED36F99.12"] {
        rows.row(name, server, &own(&directory(&format!("with {name}"), &[name])), By("chain"));
    }
    let ignored =
        ["root.txt", "root", "pem", "root.pem.1", "root.pem~", "root.", "5ed36f99.r0", "root.0", "5ed36f99.0a"];
    rows.row("other files", server, &own(&directory("ignored", &ignored)), Refused("unknown_issuer"));
    // A directory below is not looked into, whatever its name.
    let below = directory("below", &[]);
    fs::create_dir(below.join("root.pem")).unwrap();
    fs::copy(&pki.root.cert, below.join("root.pem/root.pem")).unwrap();
    rows.row("below", server, &own(&below), Refused("unknown_issuer"));
    // `openssl rehash` makes links; the certificate counts once. What they lead to may have any name.
    let hashed = directory("hashed", &["root.crt"]);
    lab.openssl(&["rehash", &text(&hashed)]);
    let links = fs::read_dir(&hashed).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_symlink());
    assert_eq!(links.count(), 2);
    rows.row("hashed", server, &own(&hashed), By("chain"));
    let wrong = format!("{}\npins = \"sha256:{}\"", own(&hashed), "0".repeat(64));
    rows.row("hashed, wrong pin", server, &wrong, Refused("pin_mismatch"));
    let proxy = rows.judge().await;
    let event = proxy.audit().pop().unwrap();
    assert_eq!(event["vouchsafe.bundle.anchors"], 2, "{event}");

    let nothing = directory("nothing", &["root.txt"]);
    fs::remove_file(nothing.join("other.pem")).unwrap();
    let said = life::refused(&["run", "--route=127.0.0.1:0=https://a.lab.test", "--ca-bundle", &text(&nothing)]);
    assert!(said.contains(&format!("--ca-bundle `{}`: no certificate in it", text(&nothing))), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_system_roots_are_trusted_only_where_configured() {
    let lab = &Lab::new();
    let (ours, systems) = (Pki::new(lab, "Our"), Pki::new(lab, "System"));
    let (our, system) = (&ours.serve(lab, &[]), &systems.serve(lab, &[]));
    let directory = lab.path("certs");
    fs::create_dir(&directory).unwrap();
    fs::copy(&systems.root.cert, directory.join("root.pem")).unwrap();
    lab.openssl(&["rehash", &text(&directory)]);
    let (file, directory) = (text(&systems.root.cert), text(&directory));
    let unknown = Refused("unknown_issuer");
    // What stands for the system: the variables that OpenSSL knows.
    for system_is in [[("SSL_CERT_FILE", &*file)], [("SSL_CERT_DIR", &*directory)]] {
        let mut rows = Rows::of(lab, &ours.root);
        rows.row("not said", system, "", unknown);
        rows.row("said, alone", system, "system_roots = true", By("chain"));
        rows.row("said, alone, our server", our, "system_roots = true", unknown);
        let both = format!("system_roots = true\nca_bundle = \"{}\"", text(&ours.root.cert));
        rows.row("said, beside a bundle", system, &both, By("chain"));
        rows.row("said, beside a bundle, our server", our, &both, By("chain"));
        rows.row("denied", system, "system_roots = false", unknown);
        rows.judge_with(&system_is).await;
        let mut rows = Rows::of(lab, &ours.root).flag("--system-roots", "true");
        rows.row("global, beside a bundle", system, "", By("chain"));
        rows.row("global, beside a bundle, our server", our, "", By("chain"));
        let own = format!("ca_bundle = \"{}\"", text(&ours.root.cert));
        rows.row("global, and an own bundle", system, &own, unknown);
        rows.judge_with(&system_is).await;
    }
    // Without a bundle: --system-roots alone, or what the environment names; OS_CACERT goes first.
    let of = |server: &Server| format!("a.lab.test:9292={}", server.address);
    let our_root = text(&ours.root.cert);
    let system_is = ("SSL_CERT_FILE", &*file);
    let cases: [(&str, Pairs<'_>, &Server, u16); 7] = [
        ("true", &[system_is], system, 200),
        ("true", &[system_is], our, 403),
        ("true", &[system_is, ("OS_CACERT", &our_root)], our, 403),
        ("false", &[system_is], system, 200),
        ("false", &[system_is], our, 403),
        ("false", &[system_is, ("OS_CACERT", &our_root)], our, 200),
        ("true", &[("SSL_CERT_FILE", ""), ("SSL_CERT_DIR", &directory)], system, 200),
    ];
    for (said, variables, server, status) in cases {
        let route = "--route=127.0.0.1:0=https://a.lab.test:9292";
        let proxy = Proxy::start_with(&[route, "--system-roots", said, "--connect-to", &of(server)], variables);
        assert_eq!(exchange(proxy.addr(0), ASK).await.status(), status, "{said} {variables:?}");
    }
    // The source names the variable that stands for the system; one that is empty stands for nothing.
    let route = "--route=127.0.0.1:0=https://a.lab.test:9292";
    let cases: [(Pairs<'_>, String); 3] = [
        (&[system_is], format!("--system-roots (SSL_CERT_FILE `{file}`)")),
        (
            &[("SSL_CERT_FILE", ""), ("SSL_CERT_DIR", &directory)],
            format!("--system-roots (SSL_CERT_DIR `{directory}`)"),
        ),
        (&[("SSL_CERT_FILE", "")], format!("--ca-bundle `{our_root}` and --system-roots")),
    ];
    for (variables, source) in cases {
        let mut flags = vec![route, "--system-roots", "true"];
        if source.starts_with("--ca-bundle") {
            flags.extend(["--ca-bundle", &our_root]);
        }
        let proxy = Proxy::start_with(&flags, variables);
        let said = proxy.wait_for_log("bundle", |event| event["message"] == "bundle");
        assert_eq!(said["source"], *source, "{said}");
        assert!(!proxy.raw_log().contains("\"level\":\"WARN\""), "{}", proxy.raw_log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation_lists_are_global_or_an_upstreams_own() {
    let lab = &Lab::new();
    let pki = Pki::new(lab, "Lab");
    let revoked = lab.server("revoked", SAN).by(&pki.issuing);
    let before = text(&lab.list(&pki.issuing, (-5, 30), ""));
    let other = Pki::new(lab, "Other");
    lab.revoke(&revoked, "superseded");
    let (of_root, of_issuing) = (text(&lab.list(&pki.root, (-1, 30), "")), text(&lab.list(&pki.issuing, (-1, 30), "")));
    let (old, future) = (text(&lab.list(&pki.issuing, (-40, -10), "")), text(&lab.list(&pki.issuing, (10, 30), "")));
    let of_other = text(&lab.list(&other.issuing, (-1, 30), ""));
    let (good, bad) = (&pki.serve(lab, &[]), &lab.s_server(&revoked, &[&pki.issuing], &[]).ready());
    let own = |lists: &[&str]| format!("crl = {lists:?}\n");
    let refuse = "crl_policy = \"unknown=refuse\"\n";
    let tolerate = "crl_policy = [\"expired=tolerate\"]\n";

    let mut rows = Rows::of(lab, &pki.root);
    rows.row("no list", bad, "", By("chain"));
    rows.row("own list", bad, &own(&[&of_issuing]), Refused("revoked"));
    rows.row("own list, not on it", good, &own(&[&of_issuing]), By("chain"));
    rows.row("list of another authority", bad, &own(&[&of_other]), By("chain"));
    rows.row("expired", good, &own(&[&old]), Refused("crl_expired"));
    rows.row("expired, tolerated", good, &(own(&[&old]) + tolerate), By("chain"));
    rows.row("expired, tolerated, and on it", bad, &(own(&[&old]) + tolerate), Refused("revoked"));
    rows.row("from the future", bad, &own(&[&future]), By("chain"));
    rows.row(
        "from the future, unknown refused",
        good,
        &(own(&[&future, &of_root]) + refuse),
        Refused("revocation_unknown"),
    );
    rows.row("the newer counts", bad, &own(&[&before, &of_issuing]), Refused("revoked"));
    rows.row("the newer counts, in any order", bad, &own(&[&of_issuing, &before]), Refused("revoked"));
    rows.row("the older alone", bad, &own(&[&before]), By("chain"));
    rows.row("unknown refused", good, &(own(&[&of_issuing]) + refuse), Refused("revocation_unknown"));
    rows.row("unknown refused, all lists", good, &(own(&[&of_root, &of_issuing]) + refuse), By("chain"));
    let proxy = rows.judge().await;
    let unknown = |event: &Value| event["error.code"] == "revocation_unknown";
    let event = proxy.audit().into_iter().rfind(unknown).unwrap();
    let message = event["error.message"].as_str().unwrap();
    assert_eq!(message, "no revocation list of `CN=Lab Root` covers the intermediate `CN=Lab Issuing`");
    assert_eq!(event["vouchsafe.hint"], "give the list of that CA with --crl, too: each CA of a chain has its own");

    let mut rows = Rows::of(lab, &pki.root).flag("--crl", &format!("{of_root},{of_issuing}"));
    rows = rows.flag("--crl-policy", "unknown=refuse,expired=tolerate");
    rows.row("global", bad, "", Refused("revoked"));
    rows.row("global, not on it", good, "", By("chain"));
    rows.row("global, but an own older list", bad, &own(&[&of_root, &before]), By("chain"));
    rows.row("global policy, own list", good, &own(&[&of_issuing]), Refused("revocation_unknown"));
    rows.row("own unknown, own list", good, &(own(&[&of_issuing]) + "crl_policy = \"unknown=tolerate\""), By("chain"));
    rows.row("global expired, own list", good, &own(&[&of_root, &old]), By("chain"));
    let strict = own(&[&of_root, &old]) + "crl_policy = \"expired=refuse\"";
    rows.row("own expired, own list", good, &strict, Refused("crl_expired"));
    let bundle = format!("ca_bundle = \"{}\"", text(&pki.root.cert));
    rows.row("own bundle, global list", bad, &bundle, Refused("revoked"));
    rows.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn report_only_passes_and_records_until_its_day() {
    let lab = &Lab::new();
    let (pki, other) = (Pki::new(lab, "Lab"), Pki::new(lab, "Other"));
    let start = |own: &Made| lab.s_server(own, &[&pki.issuing], &[]).ready();
    let expired = &start(&lab.server("a", SAN).days(-40, -10).by(&pki.issuing));
    let unknown = &other.serve(lab, &[]);
    let (all, today) = (format!("report_only_until = {}", day(10)), format!("report_only_until = \"{}\"", day(0)));
    let mut rows = Rows::of(lab, &pki.root);
    rows.row("not said", expired, "", Refused("expired"));
    rows.row("said", expired, &all, Bypassed("expired"));
    rows.row("said, on its last day", expired, &today, Bypassed("expired"));
    let (good, tls11) = (&pki.serve(lab, &[]), &pki.serve(lab, &["-tls1_1"]));
    rows.row("a good one all the same", good, &all, By("chain"));
    rows.row("any class", unknown, &all, Bypassed("unknown_issuer"));
    rows.asked("b.lab.test", "wrong name", expired.address, &all, Bypassed("expired"));
    rows.row("day in the past", expired, &format!("report_only_until = {}", day(-1)), Refused("expired"));
    // What is no verdict is not passed, and nothing is ever sent in clear.
    let nginx = lab.nginx("listen LISTEN;");
    rows.row("no TLS", &nginx, &all, Failed("not_tls"));
    rows.row("TLS 1.1", tls11, &all, Failed("tls_version"));
    let trusted = text(&pki.root.cert);
    let demand = &pki.serve(lab, &["-tls1_2", "-Verify", "1", "-verify_return_error", "-CAfile", &trusted]);
    rows.row("client certificate", demand, &all, Failed("client_cert_required"));
    let proxy = rows.judge().await;
    let log = proxy.log();
    let warning = |part: &str| {
        log.iter()
            .any(|line| line["level"] == "WARN" && line["message"].as_str().is_some_and(|said| said.contains(part)))
    };
    assert!(warning("refusals are recorded and NOT enforced until "), "{}", proxy.raw_log());
    assert!(
        warning(&format!("report_only_until {} has passed; refusals are enforced", day(-1))),
        "{}",
        proxy.raw_log()
    );
    // Each new connection is recorded, and says what else is wrong.
    for n in 2..=3 {
        assert_eq!(exchange(proxy.addr(1), ASK).await.status(), 200);
        let events = proxy.audit();
        let of = "a.lab.test:10002";
        let is_one =
            |event: &&Value| event["vouchsafe.upstream"] == of && event["event.action"] != "tls-bypassed-requests";
        let events: Vec<_> = events.iter().filter(is_one).collect();
        assert_eq!(events.len(), n);
        assert_eq!(events[n - 1]["event.type"], serde_json::json!(["connection", "allowed"]));
    }

    let of = format!("{NAME}:{}", expired.address.port());
    let config = format!("[[upstream]]\nof = \"{of}\"\nconnect_to = \"{}\"\n{all}\n", expired.address);
    let config = text(&lab.write("text.toml", config));
    let route = format!("--route=127.0.0.1:0=https://{of}");
    let flags = ["--config".to_owned(), config, "--ca-bundle".into(), text(&pki.root.cert), route];
    let (log, seen) = messages::read_log(&flags).await;
    assert_eq!(seen.status(), 200);
    let expected = format!("WARN bypassed code=expired upstream={of} asked_for=dns:a.lab.test");
    assert!(log.contains(&expected) && log.contains("trust=bypassed"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn report_only_for_a_class_passes_no_other_fault() {
    let lab = &Lab::new();
    let (pki, foreign) = (Pki::new(lab, "Lab"), Pki::new(lab, "Foreign"));
    let namesake = Pki::new(lab, "Lab");
    let only = format!("report_only_until = {}\nreport_only = [\"expired\"]\n", day(10));
    let old = lab.server("a", SAN).days(-40, -10);
    let kept = RefCell::new(Vec::new());
    let served = |own: &Made, chain: &[&Made]| {
        let server = lab.s_server(own, chain, &[]).ready();
        let address = server.address;
        kept.borrow_mut().push(server);
        address
    };
    let above: &[&Made] = &[&pki.issuing];
    let mut rows = Rows::of(lab, &pki.root);
    let expired = old.by(&pki.issuing);
    let server = served(&expired, above);
    rows.asked(NAME, "expired", server, &only, Bypassed("expired"));
    rows.asked("b.lab.test", "and of another name", server, &only, Refused("name_mismatch"));
    rows.asked("192.0.2.7", "and not of that address", server, &only, Refused("ip_san_missing"));
    rows.asked(NAME, "not expired", served(&pki.own, above), &only, By("chain"));
    let wrong = served(&lab.server("a", "DNS:b.lab.test").by(&pki.issuing), above);
    rows.asked(NAME, "another fault alone", wrong, &only, Refused("name_mismatch"));
    // Every other fault beside it, as whoever has no key of ours could make it, or a CA by mistake.
    rows.asked(
        NAME,
        "and unknown issuer",
        served(&old.by(&foreign.issuing), &[&foreign.issuing]),
        &only,
        Refused("unknown_issuer"),
    );
    rows.asked(NAME, "and no intermediate", served(&expired, &[]), &only, Refused("incomplete_chain"));
    rows.asked(NAME, "and self-made", served(&old.by_itself(), &[]), &only, Refused("self_signed_not_in_bundle"));
    let ca = old.clone().ext("basicConstraints", "critical,CA:TRUE");
    rows.asked(
        NAME,
        "and self-made, CA:TRUE",
        served(&ca.by_itself(), &[]),
        &only,
        Refused("self_signed_not_in_bundle"),
    );
    let look_alike = old.by(&namesake.issuing);
    rows.asked(
        NAME,
        "and of a CA of the same names",
        served(&look_alike, &[&namesake.issuing]),
        &only,
        Refused("issuer_key_mismatch"),
    );
    rows.asked(
        NAME,
        "and of a CA of the same names, with ours",
        served(&look_alike, above),
        &only,
        Refused("issuer_key_mismatch"),
    );
    let tampered = lab.changed(&expired, |der| *der.last_mut().unwrap() ^= 1);
    rows.asked(NAME, "and tampered with", served(&tampered, above), &only, Refused("bad_signature"));
    rows.asked(NAME, "and a CA's", served(&ca.by(&pki.issuing), above), &only, Refused("ca_as_server"));
    let client = old.clone().ext("extendedKeyUsage", "clientAuth").by(&pki.issuing);
    rows.asked(NAME, "and for clients", served(&client, above), &only, Refused("wrong_purpose"));
    let odd = old.clone().ext("1.3.6.1.4.1.32473.1", "critical,DER:0500").by(&pki.issuing);
    rows.asked(NAME, "and with a critical extension", served(&odd, above), &only, Refused("critical_extension"));
    let weak = old.clone().key("rsa:1024").by(&pki.issuing);
    rows.asked(NAME, "and weak", served(&weak, above), &only, Refused("weak_key"));
    let sha1 = old.clone().digest("sha1").by(&pki.issuing);
    rows.asked(NAME, "and SHA-1", served(&sha1, above), &only, Refused("weak_signature"));
    let nameless = lab.server("a", "").days(-40, -10).by(&pki.issuing);
    rows.asked(NAME, "and without a name", served(&nameless, above), &only, Refused("no_san"));
    let mute = lab.authority("Mute").ext("keyUsage", "critical,cRLSign").days(-60, 100).by(&pki.root);
    rows.asked(
        NAME,
        "and its issuer may not sign",
        served(&old.by(&mute), &[&mute]),
        &only,
        Refused("issuer_may_not_sign"),
    );
    let pin = format!("{only}pins = \"sha256:{}\"", "0".repeat(64));
    rows.asked(NAME, "and not pinned", server, &pin, Refused("pin_mismatch"));
    let identity = format!("{only}identity = \"sha256:{}\"", "0".repeat(64));
    rows.asked(NAME, "and not the one named", server, &identity, Refused("identity_mismatch"));
    let identity = format!("{only}identity = \"sha256:{}\"", expired.sha256());
    rows.asked(NAME, "and the one named", server, &identity, Bypassed("expired"));
    lab.revoke(&expired, "superseded");
    let list = lab.list(&pki.issuing, (-1, 30), "");
    let listed = format!("{only}crl = \"{}\"", text(&list));
    rows.asked(NAME, "and revoked", server, &listed, Refused("revoked"));
    let old_root = Pki { root: lab.authority("Old Root").days(-400, -5).by_itself(), ..Pki::new(lab, "Old") };
    let below = old.by(&old_root.root);
    let bundle = format!("{only}ca_bundle = \"{}\"", text(&old_root.root.cert));
    rows.asked(NAME, "and its root is, too", served(&below, &[]), &bundle, Refused("root_expired"));
    // Where the certificate itself stands in the bundle.
    let own = ca.by_itself();
    let bundle = format!("{only}ca_bundle = \"{}\"", text(&own.cert));
    let (exact, twin) = (served(&own, &[]), served(&ca.by_itself(), &[]));
    rows.asked(NAME, "exact", exact, &bundle, Bypassed("expired"));
    rows.asked("b.lab.test", "exact, and of another name", exact, &bundle, Refused("name_mismatch"));
    rows.asked(NAME, "a look-alike of it", twin, &bundle, Refused("self_signed_not_in_bundle"));
    // Intermediates that have expired, too: DevStack makes them within the same minute, for as long.
    let long_root = lab.authority("Long Root").days(-500, 500).by_itself();
    let past = lab.authority("Past").days(-400, -20).by(&long_root);
    let below = |from, to| served(&lab.server("a", SAN).days(from, to).by(&past), &[&past]);
    let bundle = format!("{only}ca_bundle = \"{}\"", text(&long_root.cert));
    rows.asked(NAME, "intermediate expired", below(-60, 300), &bundle, Bypassed("expired"));
    rows.asked("b.lab.test", "and of another name", below(-60, 300), &bundle, Refused("name_mismatch"));
    rows.asked(NAME, "intermediate expired first", below(-60, -19), &bundle, Bypassed("expired"));
    rows.asked(NAME, "intermediate expired last", below(-60, -21), &bundle, Bypassed("expired"));
    rows.asked(NAME, "intermediate expired before there was the other", below(-19, 300), &bundle, Refused("expired"));
    let forged = lab.server("a", SAN).days(-60, -19).by(&lab.authority("Past").days(-400, -20).by(&foreign.root));
    rows.asked(
        NAME,
        "intermediate expired, forged below",
        served(&forged, &[&past]),
        &bundle,
        Refused("issuer_key_mismatch"),
    );
    let proxy = rows.judge().await;
    let never = |event: &Value| {
        event["error.message"].as_str().unwrap().ends_with("no moment at which its whole chain was valid")
    };
    assert_eq!(proxy.audit().iter().filter(|event| never(event)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn report_only_for_an_expired_root_passes_no_other_fault_of_that_root() {
    let lab = &Lab::new();
    let only = format!("report_only_until = {}\nreport_only = [\"root_expired\"]\n", day(10));
    let plain = lab.authority("Old Root").days(-400, -5);
    let mut rows = Rows::of(lab, &lab.root("Unused"));
    let mut servers = Vec::new();
    for (name, root, end) in [
        ("expired", plain.clone(), Bypassed("root_expired")),
        (
            "and CA:FALSE",
            plain.clone().without("keyUsage").ext("basicConstraints", "critical,CA:FALSE"),
            Refused("root_unfit"),
        ),
        ("and without keyCertSign", plain.clone().ext("keyUsage", "critical,cRLSign"), Refused("root_unfit")),
        ("and for clients", plain.clone().ext("extendedKeyUsage", "clientAuth"), Refused("root_unfit")),
        ("and a critical extension", plain.clone().ext("1.2.3.4", "critical,DER:0500"), Refused("root_unfit")),
        ("and weak", plain.key("rsa:1024"), Refused("weak_key")),
    ] {
        let root = root.by_itself();
        let server = lab.s_server(&lab.server("a", SAN).by(&root), &[], &[]).ready();
        rows.row(name, &server, &format!("{only}ca_bundle = \"{}\"", text(&root.cert)), end);
        servers.push(server);
    }
    rows.judge().await;
}

/// What is said of a section that does not do.
fn refused(lab: &Lab, root: &Made, section: &str) -> String {
    let config = lab.write("bad.toml", format!("[[upstream]]\nof = \"a.lab.test:9292\"\n{section}\n"));
    let route = "--route=127.0.0.1:0=https://a.lab.test:9292";
    life::refused(&["run", "--config", &text(&config), "--ca-bundle", &text(&root.cert), route])
}

#[test]
fn values_that_do_not_do_are_refused_with_section_key_value_and_remedy() {
    let lab = &Lab::new();
    let root = &lab.root("Lab Root");
    let two = text(&lab.bundle(&[root, &lab.root("Other")]));
    let (cert, key) = (text(&root.cert), text(&root.key));
    let far = day(92);
    let write = "write `sha256:` and 64 hex digits, or `sha256//` and Base64";
    let migrate = "set `report_only_until = DATE`";
    // What is no value of its kind is said with its line; the third is the section's second.
    let in_line = |key: &str| format!("bad.toml:3: {key}: ");
    let in_section = |key: &str| format!("[[upstream]] 1 (`a.lab.test:9292`): {key}");
    let digest = format!("sha256:{}", root.sha256());
    let der = text(&lab.path("root.der"));
    lab.openssl(&["x509", "-in", &cert, "-outform", "DER", "-out", &der]);
    let convert = &*format!("hint: convert it: `openssl x509 -inform DER -in {der} -out {der}.pem`");
    let trusted = lab.openssl(&["x509", "-in", &cert, "-trustout", "-addtrust", "serverAuth"]);
    let trusted = text(&lab.write("trusted.pem", trusted));
    for (section, place, why, remedy) in [
        (&*format!("ca_bundle = '{der}'"), in_section(&format!("ca_bundle `{der}`: ")), "is DER, not PEM", convert),
        (&format!("identity = '{der}'"), in_section(&format!("identity `{der}`: ")), "is DER, not PEM", convert),
        (
            &format!("client_cert = '{der}'\nclient_key = '{key}'"),
            in_section(&format!("client_cert `{der}`: ")),
            "it is DER, not PEM",
            "hint: convert it: `openssl x509 -inform DER",
        ),
        (
            &format!("ca_bundle = '{trusted}'"),
            in_section(&format!("ca_bundle `{trusted}`: ")),
            "no certificate in it (found 1 PEM block: TRUSTED CERTIFICATE)",
            "write it as plain certificates: `openssl storeutl -certs -out ",
        ),
        ("connect_to = 'a.lab.test:99999'", in_section("connect_to: `a.lab.test:99999`"), "port", "within 1-65535"),
        ("connect_to = 5", in_line("connect_to"), "`5`: text in quotes is expected", "hint: write `\"5\"`"),
        ("verify_name = 'a..b'", in_section("verify_name: `a..b`"), "not a DNS name", "labels of 1 to 63 letters"),
        ("sni = '192.0.2.1'", in_section("sni: `192.0.2.1`"), "an address is never sent as SNI", "hint: remove `sni`"),
        ("sni = 'a b'", in_section("sni: `a b`"), "a character that no host name has", ""),
        ("ca_bundle = '/no/such.pem'", in_section("ca_bundle `/no/such.pem`"), "No such file", ""),
        (
            "ca_bundle = 'no/such.pem'",
            in_section("ca_bundle `no/such.pem`"),
            "No such file",
            "hint: it was looked for in `/",
        ),
        (
            &format!("ca_bundle = '{key}'"),
            in_section(&format!("ca_bundle `{key}`")),
            "no certificate in it (found 1 PEM block: ",
            "hint: it should hold the CERTIFICATE blocks",
        ),
        ("ca_bundle = []", in_line("ca_bundle"), "the list is empty", "remove the key"),
        ("ca_bundle = 5", in_line("ca_bundle"), "expected text in quotes, or a list of texts", ""),
        ("https_ca_bundle = '/no/such.pem'", in_section("ca_bundle `/no/such.pem`"), "No such file", ""),
        ("system_roots = 'yes'", in_line("system_roots"), "`yes`", "`true` or `false` without quotes"),
        ("crl = '/no/such.crl'", in_section("crl `/no/such.crl`"), "No such file", ""),
        (
            &format!("crl = '{cert}'"),
            in_section(&format!("crl `{cert}`")),
            "no X509 CRL block in it",
            "hint: it should hold X509 CRL blocks",
        ),
        (
            "crl_policy = 'uknown=refuse'",
            in_section("crl_policy `uknown=refuse`"),
            "no rule `uknown`",
            "the rules are `unknown` and `expired`",
        ),
        (
            "crl_policy = 'unknown=maybe'",
            in_section("crl_policy `unknown=maybe`"),
            "write `unknown=` or `expired=`",
            "`refuse` or `tolerate`",
        ),
        (
            "crl_policy = 'unknown=refuse'",
            in_section("crl_policy `unknown=refuse`"),
            "no revocation list is configured",
            "hint: set --crl",
        ),
        ("pins = 'sha256:00'", in_section("pins `sha256:00`"), write, ""),
        ("pins = ['abc']", in_section("pins `abc`"), write, ""),
        ("pins = []", in_line("pins"), "the list is empty", "remove the key"),
        ("identity = 'sha256:zz'", in_section("identity `sha256:zz`"), write, ""),
        ("identity = 'SHA256:zz'", in_section("identity `SHA256:zz`"), write, ""),
        ("identity = '/no/such.pem'", in_section("identity `/no/such.pem`"), "No such file", ""),
        (
            &format!("identity = '{two}'"),
            in_section(&format!("identity `{two}`")),
            "the file has 2",
            "hint: keep only the server's own in it",
        ),
        (
            &format!("identity = '{key}'"),
            in_section(&format!("identity `{key}`")),
            "no certificate in it",
            "hint: name a PEM file with the one certificate",
        ),
        (
            &format!("identity = '{digest}'\npins = '{digest}'"),
            in_section("`identity` names the certificate itself"),
            "`pins` would add nothing",
            "hint: remove one of the two",
        ),
        ("min_tls = '1.1'", in_line("min_tls"), "`1.1` is not spoken here", "write `\"1.2\"` or `\"1.3\"`"),
        ("min_tls = 1.3", in_line("min_tls"), "`1.3`: text in quotes is expected", "hint: write `\"1.3\"`"),
        ("report_only_until = 'soon'", in_section("report_only_until: `soon`"), "is not a day", "as in `2027-01-31`"),
        ("report_only_until = 5", in_line("report_only_until"), "expected a date, as in `2027-01-31`", ""),
        (
            &format!("report_only_until = {far}"),
            in_section(&format!("report_only_until: {far}")),
            "more than 90 days ahead",
            "hint: choose a nearer day",
        ),
        (
            &format!("report_only_until = {}\nreport_only = 'expird'", day(9)),
            in_section("report_only: `expird`"),
            "cannot be reported alone",
            "hint: these can: crl_expired, ",
        ),
        (
            &format!("report_only_until = {}\nreport_only = ['weak_key']", day(9)),
            in_section("report_only: `weak_key`"),
            "cannot be reported alone",
            "hint: these can: crl_expired, ",
        ),
        ("report_only = ['expired']", in_section("report_only"), "there is no end date", migrate),
        (
            "disable_https_verification = true",
            in_section("disable_https_verification `true`"),
            "verification cannot be switched off",
            migrate,
        ),
        ("min-tls = '1.3'", "bad.toml:3: unknown key `min-tls`".into(), "", "hint: did you mean `min_tls`?"),
    ] {
        let said = refused(lab, root, section);
        for part in [&place, why, remedy] {
            assert!(said.contains(part), "{section}: {said} --- lacks --- {part}");
        }
    }
}

#[test]
fn tls_settings_of_an_upstream_are_in_one_section() {
    let lab = &Lab::new();
    let root = &lab.root("Lab Root");
    let pins = format!("pins = 'sha256:{}'", root.sha256());
    let identity = format!("identity = '{}'", text(&root.cert));
    let until = format!("report_only_until = {}", day(9));
    let bundle = format!("ca_bundle = '{}'", text(&root.cert));
    let (min, sni) = ("min_tls = '1.2'", "sni = 'b.lab.test'");
    for (first, said_first, second, said_second, meet) in [
        ("a.lab.test", min, "a.lab.test:9292", &*pins, true),
        ("a.lab.test:9292", &pins, "a.lab.test", min, true),
        ("a.lab.test", min, "a.lab.test", &identity, true),
        ("a.lab.test:9292", &until, "A.lab.test:9292", &pins, true),
        ("192.0.2.1", &bundle, "192.0.2.1:443", "system_roots = true", true),
        ("a.lab.test", sni, "a.lab.test:9292", &pins, false),
        ("a.lab.test:9292", &pins, "a.lab.test:9293", min, false),
        ("a.lab.test", &pins, "b.lab.test", min, false),
    ] {
        let config =
            format!("[[upstream]]\nof = '{first}'\n{said_first}\n[[upstream]]\nof = '{second}'\n{said_second}\n");
        let config = text(&lab.write("two.toml", config));
        // Without a listener, so that it never starts.
        let said = life::refused(&["run", "--config", &config, "--ca-bundle", &text(&root.cert)]);
        let names =
            [format!("[[upstream]] 1 (`{first}`) and 2 (`{}`): ", second.to_lowercase()), "into one section".into()];
        assert!(names.iter().all(|part| said.contains(part) == meet), "{first} {second}: {said}");
    }
}

#[test]
fn a_client_certificate_that_cannot_be_used_is_refused_without_a_word_of_its_key() {
    let lab = &Lab::new();
    let root = &lab.root("Lab Root");
    let (own, other) = (lab.server("own", SAN).by(root), lab.server("other", SAN).by(root));
    let (pkcs8, older) = (text(&lab.path("pkcs8.key")), text(&lab.path("older.key")));
    let (cert, key, other) = (text(&own.cert), text(&own.key), text(&other.key));
    lab.openssl(&["pkey", "-in", &key, "-out", &pkcs8, "-aes256", "-passout", "pass:hunter2"]);
    lab.openssl(&["ec", "-in", &key, "-out", &older, "-aes256", "-passout", "pass:hunter2"]);
    let plain = "hint: it should be PEM and not encrypted (`openssl pkey -in KEY -out PLAIN`)";
    // Certificate, key; which of the two is at fault, why, what to do.
    let cases = [
        (&*cert, &*other, 1, "it is not the key of the certificate `CN=own`", "hint: `openssl pkey -in KEY -pubout`"),
        ("/no/such.pem", &key, 0, "No such file", ""),
        (&cert, "/no/such.key", 1, "No such file", ""),
        (&cert, &pkcs8, 1, "the key in it is encrypted", plain),
        (&cert, &older, 1, "the key in it is encrypted", plain),
        (&cert, &cert, 1, "no PRIVATE KEY block in it", plain),
        (&key, &key, 0, "no CERTIFICATE block in it", "hint: it should hold the certificate, PEM"),
    ];
    let secrets: Vec<String> = [&key, &pkcs8, &older, &other]
        .iter()
        .flat_map(|file| fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>())
        .filter(|line| !line.contains("---") && line.len() > 20)
        .collect();
    let bundle = text(&root.cert);
    let start = ["run", "--route=127.0.0.1:0=https://a.lab.test:9292", "--ca-bundle", &bundle];
    for (cert, key, at_fault, why, hint) in cases {
        let section = format!("client_cert = '{cert}'\nclient_key = '{key}'");
        let flags = [&start[..], &["--client-cert", cert, "--client-key", key]].concat();
        let by_variables = life::vouchsafe(&start, &[("OS_CERT", cert), ("OS_KEY", key)]);
        assert_eq!(by_variables.status.code(), Some(2));
        for (said, names) in [
            (life::refused(&flags), ["--client-cert", "--client-key"]),
            (String::from_utf8(by_variables.stderr).unwrap(), ["OS_CERT", "OS_KEY"]),
            (refused(lab, root, &section), ["client_cert", "client_key"]),
        ] {
            let place = format!("{} `{}`: ", names[at_fault], [cert, key][at_fault]);
            for part in [&place, why, hint] {
                assert!(said.contains(part), "{said} --- lacks --- {part}");
            }
            assert!(!secrets.iter().any(|secret| said.contains(secret)), "{said}");
        }
    }
    let said = refused(lab, root, &format!("client_key = '{key}'"));
    assert!(said.contains(&format!("client_key `{key}`: there is a key, but no certificate\n  hint: ")), "{said}");
}
