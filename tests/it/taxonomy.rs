//! Each way in which a server can fail to prove who it is, and each odd one that must pass, in a live handshake
//! with a server that is not ours: what client and operator are told, and of which certificate.

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use certs_dev::pki::{Authority, CaSpec, LeafSpec, certificates_pem};
use serde_json::Value;
use time::OffsetDateTime;

use crate::support::hostile::IS_THE_SAME_AT_EVERY_TRY;
use crate::support::{
    command::vouchsafe,
    openssl::{Lab, Made, Starting, text},
    origin::exchange,
    proxy::Proxy,
};

const NAME: &str = "a.lab.test";
const SAN: &str = "DNS:a.lab.test";

/// Where the certificate that decided stands.
#[derive(Clone, Copy)]
enum At {
    Bundle(usize),
    Presented(usize),
    Nowhere,
}

/// What is to come of a row.
enum End {
    Passes,
    Fails(Failure),
}

struct Failure {
    status: u16,
    code: &'static str,
    at: At,
    says: Vec<String>,
    hint: &'static str,
}

/// A verdict: its code, the certificate that it is about, parts of the sentence, and of the hint. `{own}` there is
/// the fingerprint of the server's own certificate.
fn refused(code: &'static str, at: At, says: &[&str], hint: &'static str) -> End {
    End::Fails(Failure { status: 403, code, at, says: says.iter().copied().map(str::to_owned).collect(), hint })
}

/// The same for a handshake that broke off, which is about no certificate.
fn failed(code: &'static str, says: &[&str], hint: &'static str) -> End {
    End::Fails(Failure {
        status: if IS_THE_SAME_AT_EVERY_TRY.contains(&code) { 403 } else { 500 },
        code,
        at: Nowhere,
        says: says.iter().copied().map(str::to_owned).collect(),
        hint,
    })
}

use At::{Bundle, Nowhere, Presented};
use End::{Fails, Passes};

/// A row of the table: a server, and what is to come of it.
struct Row {
    name: &'static str,
    host: &'static str,
    front: Front,
    presented: Vec<Made>,
    bundle: Vec<Made>,
    more: String,
    end: End,
}

/// Whom to ask: a process that may still be starting, or an address that is served.
enum Front {
    Starting(Starting),
    There(SocketAddr),
}

impl Row {
    /// Asks by another name or address.
    fn asked(&mut self, host: &'static str) -> &mut Self {
        self.host = host;
        self
    }

    /// With further lines in the upstream's section.
    fn with(&mut self, lines: &str) -> &mut Self {
        writeln!(self.more, "{lines}").unwrap();
        self
    }
}

/// A table in the making.
struct Table {
    lab: Arc<Lab>,
    rows: Vec<Row>,
}

impl Table {
    fn new() -> Self {
        Self { lab: Arc::new(Lab::new()), rows: Vec::new() }
    }

    /// `s_server` presents `own` and `chain`; `bundle` is believed.
    fn row(&mut self, name: &'static str, own: &Made, chain: &[&Made], bundle: &[&Made], end: End) -> &mut Row {
        let front = Front::Starting(self.lab.s_server(own, chain, &[]));
        let presented: Vec<_> = std::iter::once(own).chain(chain.iter().copied()).cloned().collect();
        self.push(name, front, &presented, bundle, end)
    }

    /// The same, and `s_server` is told more.
    fn told(&mut self, name: &'static str, more: &[&str], own: &Made, bundle: &[&Made], end: End) -> &mut Row {
        let front = Front::Starting(self.lab.s_server(own, &[], more));
        self.push(name, front, std::slice::from_ref(own), bundle, end)
    }

    /// What `openssl` does not load is served by rustls.
    async fn rustls(&mut self, name: &'static str, own: &Made, chain: &[&Made], bundle: &[&Made], end: End) {
        let identity = own.identity(chain);
        let server = certs_dev::Server::bind(([127, 0, 0, 1], 0).into(), &identity, "ok").await.unwrap();
        let front = Front::There(server.local_addr());
        tokio::spawn(server.run());
        let presented: Vec<_> = std::iter::once(own).chain(chain.iter().copied()).cloned().collect();
        self.push(name, front, &presented, bundle, end);
    }

    fn push(&mut self, name: &'static str, front: Front, presented: &[Made], bundle: &[&Made], end: End) -> &mut Row {
        let bundle = bundle.iter().copied().cloned().collect();
        let presented = presented.to_vec();
        self.rows.push(Row { name, host: NAME, front, presented, bundle, more: String::new(), end });
        self.rows.last_mut().unwrap()
    }

    /// Asks all of them through one proxy, and says all that is not as it should be.
    async fn judge(mut self) {
        let mut servers = Vec::new();
        let mut addresses = Vec::new();
        let mut flags = vec!["--config".to_owned(), text(&self.lab.path("vouchsafe.toml"))];
        flags.extend(["--ca-bundle".to_owned(), text(&self.lab.root("Nobody").cert)]);
        let mut config = String::new();
        for row in &mut self.rows {
            let address = match std::mem::replace(&mut row.front, Front::There(([0; 4], 0).into())) {
                Front::Starting(starting) => {
                    let server = starting.ready();
                    let address = server.address;
                    servers.push(server);
                    address
                }
                Front::There(address) => address,
            };
            addresses.push(address);
            let of = format!("{}:{}", row.host, address.port());
            flags.extend(["--route".to_owned(), format!("127.0.0.1:0=https://{of}")]);
            writeln!(config, "[[upstream]]\nof = \"{of}\"\nconnect_to = \"{address}\"\n{}", row.more).unwrap();
            if !row.bundle.is_empty() {
                let bundle = self.lab.bundle(&row.bundle.iter().collect::<Vec<_>>());
                writeln!(config, "ca_bundle = \"{}\"", text(&bundle)).unwrap();
            }
        }
        self.lab.write("vouchsafe.toml", config);
        let proxy = Proxy::start(&flags);
        let mut wrong = String::new();
        for (n, (row, address)) in self.rows.iter().zip(addresses).enumerate() {
            let ask = b"GET /ok HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            let status = exchange(proxy.addr(n), ask).await.status();
            let end = format!(":{}", address.port());
            let mut events = proxy.audit();
            events.retain(|event| event["vouchsafe.upstream"].as_str().unwrap().ends_with(&end));
            if let Err(why) = row.holds(status, &events) {
                writeln!(wrong, "--- {}: {why}", row.name).unwrap();
            }
        }
        assert!(wrong.is_empty(), "\n{wrong}");
    }
}

impl Row {
    fn holds(&self, status: u16, events: &[Value]) -> Result<(), String> {
        let Fails(Failure { status: wanted, code, at, says, hint }) = &self.end else {
            let passed = (status, events.len()) == (200, 0);
            return if passed { Ok(()) } else { Err(format!("does not pass: {status}, {events:?}")) };
        };
        let [event] = events else { return Err(format!("{status}, {} events: {events:?}", events.len())) };
        let show = || {
            let fields = ["error.code", "error.message", "vouchsafe.hint", "vouchsafe.offending"];
            let fields: Vec<_> = fields.iter().map(|field| format!("\n    {field}: {}", event[*field])).collect();
            format!("{status}{}", fields.concat())
        };
        let place = |kind: &str, n: usize, of: &[Made]| (kind.to_owned(), n as u64, of[n].sha256());
        let meant = match *at {
            Bundle(n) => Some(place("bundle", n, &self.bundle)),
            Presented(n) => Some(place("presented", n, &self.presented)),
            Nowhere => None,
        };
        let offending = &event["vouchsafe.offending"];
        let found = offending["in"].as_str().map(|kind| {
            (kind.to_owned(), offending["index"].as_u64().unwrap(), offending["sha256"].as_str().unwrap().to_owned())
        });
        let own = self.presented.first().map(Made::sha256).unwrap_or_default();
        let has = |field: &str, part: &str| event[field].as_str().unwrap().contains(&part.replace("{own}", &own));
        if status != *wanted || event["error.code"] != *code {
            return Err(format!("is not {wanted} {code}: {}", show()));
        }
        if found != meant {
            return Err(format!("is not about {meant:?}: {}", show()));
        }
        if let Some(part) = says.iter().find(|part| !has("error.message", part.as_str())) {
            return Err(format!("does not say {part:?}: {}", show()));
        }
        if !has("vouchsafe.hint", hint) {
            return Err(format!("does not hint {hint:?}: {}", show()));
        }
        let is_verdict = *wanted == 403 && !IS_THE_SAME_AT_EVERY_TRY.contains(code);
        let action = if is_verdict { "tls-verification-refused" } else { "tls-handshake-failed" };
        let late = event["vouchsafe.occasion"] == "after_handshake";
        if event["event.action"] != action || !late && event["vouchsafe.request_bytes_sent"] != 0 {
            return Err(event.to_string());
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_addresses() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let root = &lab.root("Lab Root");
    let server = |names: &str| lab.server("a.lab.test", names).by(root);
    let other = "have it reissued with `DNS:a.lab.test`";
    for (name, names, found) in [
        (
            "wrong host",
            "DNS:b.lab.test,DNS:c.lab.test",
            &["valid for `b.lab.test`, `c.lab.test`", "not for `a.lab.test`"],
        ),
        (
            "wildcard, two labels",
            "DNS:*.test",
            &["no name of the certificate, of `*.test`, covers `a.lab.test`", "needs two labels behind it"],
        ),
        (
            "wildcard, partial",
            "DNS:a*.lab.test",
            &["no name of the certificate", "`a*.lab.test` covers nothing, since `*` must be the whole first label"],
        ),
        (
            "wildcard, inner label",
            "DNS:a.*.test",
            &["no name of the certificate", "`a.*.test` covers nothing, since `*` must be the whole first label"],
        ),
        ("wildcard alone", "DNS:*", &["no name of the certificate", "needs two labels behind it"]),
        ("SAN with trailing dot", "DNS:a.lab.test.", &["valid for `a.lab.test.`", "not for `a.lab.test`"]),
        ("URI SAN only", "URI:https://a.lab.test/", &["`uri:https://a.lab.test/`", "not for `a.lab.test`"]),
    ] {
        t.row(name, &server(names), &[], &[root], refused("name_mismatch", Presented(0), found, other));
    }
    let apex = &["valid for `*.lab.test`", "not for `lab.test`"];
    let end = refused("name_mismatch", Presented(0), apex, "have it reissued with `DNS:lab.test`");
    t.row("wildcard, apex", &server("DNS:*.lab.test"), &[], &[root], end).asked("lab.test");
    let top = &["no name of the certificate, of `*.test`, covers `a.b.test`"];
    let end = refused("name_mismatch", Presented(0), top, "reach it by a name it has");
    t.row("wildcard over the top", &server("DNS:*.test"), &[], &[root], end).asked("a.b.test");
    let says = &["no subjectAltName", "common name `a.lab.test`"];
    let end = refused("no_san", Presented(0), says, "-addext subjectAltName=DNS:a.lab.test");
    t.row("CN only", &server(""), &[], &[root], end);
    let end = refused("no_san", Presented(0), says, "`identity = \"sha256:{own}\"`");
    t.row("CN only, where nobody can reissue it", &server(""), &[], &[root], end);

    let reissue = "have it reissued with `IP:127.0.0.1`";
    for (name, names, found) in [
        ("no IP SAN", SAN, &["does not list the address `127.0.0.1`", "valid for `a.lab.test`"]),
        ("IP only as dNSName", "DNS:127.0.0.1", &["`127.0.0.1` as a DNS name", "not as an IP address"]),
        ("other IP", "IP:192.0.2.1", &["does not list the address `127.0.0.1`", "valid for `ip:192.0.2.1`"]),
        ("IPv4-mapped IPv6", "IP:::ffff:127.0.0.1", &["the address `127.0.0.1`", "`ip:::ffff:127.0.0.1`"]),
    ] {
        let end = refused("ip_san_missing", Presented(0), found, reissue);
        t.row(name, &server(names), &[], &[root], end).asked("127.0.0.1");
    }

    for (name, names, host) in [
        ("wildcard, one label", "DNS:*.lab.test", NAME),
        ("single-label host", "DNS:glance", "glance"),
        ("IP SAN", "IP:127.0.0.1", "127.0.0.1"),
        ("IPv6 SAN", "IP:::1", "[::1]"),
        ("underscore", "DNS:host_name.lab.test", "host_name.lab.test"),
        ("underscore in a single label", "DNS:my_svc", "my_svc"),
        ("A-label", "DNS:xn--bcher-kva.lab.test", "xn--bcher-kva.lab.test"),
        ("U-label asked for", "DNS:xn--bcher-kva.lab.test", "b\u{fc}cher.lab.test"),
        ("upper case presented", "DNS:A.LAB.TEST", NAME),
        ("upper case asked for", SAN, "A.Lab.TEST"),
        ("trailing dot asked for", SAN, "a.lab.test."),
    ] {
        t.row(name, &server(names), &[], &[root], Passes).asked(host);
    }
    t.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn self_signed() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let subject = ["-subj", "/CN=store", "-addext", "subjectAltName=DNS:a.lab.test"];
    let openssl = &lab.req_x509(&subject);
    let twin = &lab.req_x509(&subject);
    let root = &lab.root("Lab Root");
    t.row("CA:TRUE, in bundle", openssl, &[], &[openssl], Passes);
    let says = &["valid for `a.lab.test`", "not for `b.lab.test`"];
    let end = refused("name_mismatch", Presented(0), says, "have it reissued with `DNS:b.lab.test`");
    t.row("CA:TRUE, in bundle, wrong host", openssl, &[], &[openssl], end).asked("b.lab.test");
    let fingerprint = "confirms the fingerprint {own}, add this certificate to --ca-bundle";
    let says = &["self-signed certificate `CN=store`", "not in the bundle"];
    let unknown = |says: &[&str]| refused("self_signed_not_in_bundle", Presented(0), says, fingerprint);
    t.row("CA:TRUE, not in bundle", openssl, &[], &[root], unknown(says));
    let says = &["self-signed certificate `CN=store`", "the bundle holds another of that name (sha256 "];
    t.row("same name, other key", twin, &[], &[openssl], unknown(says));

    // What the verifier checks and other parsers do not.
    for (name, key, digest) in [
        ("P-521, not in bundle", "P-521", "sha512"),
        ("P-384 with SHA-512, not in bundle", "P-384", "sha512"),
        ("P-256 with SHA-512, not in bundle", "P-256", "sha512"),
    ] {
        for flag in ["CA:TRUE", "CA:FALSE"] {
            let own = lab.server("store", SAN).without("keyUsage").ext("basicConstraints", &format!("critical,{flag}"));
            let own = &own.key(key).digest(digest).by_itself();
            t.row(name, own, &[], &[root], unknown(&["self-signed certificate `CN=store`"]));
            t.row("and in bundle", own, &[], &[own], Passes);
        }
    }
    let small = &lab.server("store", SAN).key("rsa:1024").by_itself();
    let says = &["self-signed certificate `CN=store`"];
    let end = refused("self_signed_not_in_bundle", Presented(0), says, "have it reissued with an RSA key of 2048 bits");
    t.row("RSA-1024, not in bundle", small, &[], &[root], end);
    let nameless = &lab.req_x509(&["-subj", "/CN=a.lab.test"]);
    let end =
        refused("self_signed_not_in_bundle", Presented(0), &["self-signed"], "`DNS:a.lab.test` in subjectAltName");
    t.row("CN only, not in bundle", nameless, &[], &[root], end);
    // A CA's own certificate: nothing to pin.
    let ca = &lab.root("A CA");
    for bundle in [root, ca] {
        let end = refused("ca_as_server", Presented(0), &["`CN=A CA` is a CA certificate"], "have that CA issue");
        t.row("a CA's own certificate", ca, &[], &[bundle], end);
    }
    let plain = lab.server("plain", SAN).days(-1, 30);
    let (leaf, other) = (&plain.by_itself(), &plain.by_itself());
    let bare = &lab.server("bare", SAN).without("basicConstraints").without("extendedKeyUsage").by_itself();
    t.row("CA:FALSE, in bundle", leaf, &[], &[leaf], Passes);
    t.row("no basicConstraints, in bundle", bare, &[], &[bare], Passes);
    t.row("CA:FALSE, not in bundle", leaf, &[], &[root], unknown(&["`CN=plain`, which is not in the bundle"]));
    let says = &["self-signed certificate `CN=plain`", "the bundle holds another of that name (sha256 "];
    t.row("CA:FALSE, same name, other key", other, &[], &[leaf], unknown(says));
    let says = &["`CN=bare`, which is not in the bundle"];
    t.row("no basicConstraints, not in bundle", bare, &[], &[root], unknown(says));

    let old = &lab.server("old", SAN).days(-40, -10).by_itself();
    let says = &["the certificate `CN=old` expired on ", "(10 days ago)"];
    t.row("expired, in bundle", old, &[], &[old], refused("expired", Presented(0), says, "have it renewed"));
    let client = &lab.server("client", SAN).ext("extendedKeyUsage", "clientAuth").by_itself();
    let says = &["`CN=client` is not meant for servers but for clientAuth"];
    let end = refused("wrong_purpose", Presented(0), says, "extendedKeyUsage = serverAuth");
    t.row("clientAuth, in bundle", client, &[], &[client], end);
    let weak = &lab.server("weak", SAN).key("rsa:1024").by_itself();
    let says = &["`CN=weak` has an RSA key of 1024 bits", "2048 is the least"];
    t.row("RSA-1024, in bundle", weak, &[], &[weak], refused("weak_key", Presented(0), says, "2048 bits or more"));
    let sha1 = &lab.server("sha1", SAN).digest("sha1").by_itself();
    t.row("SHA-1, in bundle", sha1, &[], &[sha1], Passes);

    let first = &lab.server("first", "").version_1().by_itself();
    let says = &["the certificate `CN=first` is X.509 version 1", "3 is needed"];
    let end = || refused("cert_version", Presented(0), says, "X.509 v3 with `DNS:a.lab.test`");
    t.row("v1, in bundle", first, &[], &[first], end());
    t.row("v1, not in bundle", first, &[], &[root], end());
    let issued = &lab.server("issued", "").version_1().by(root);
    t.row(
        "v1 leaf",
        issued,
        &[],
        &[root],
        refused("cert_version", Presented(0), &["`CN=issued` is X.509 version 1"], "v3"),
    );
    t.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chains() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let root = &lab.root("Lab Root");
    let issuing = &lab.authority("Lab Issuing").by(root);
    let sound = lab.server("a", SAN);
    let good = &sound.by(issuing);
    t.row("sound", good, &[issuing], &[root], Passes);

    let says =
        &["the certificate was issued by `CN=Lab Issuing`", "the server did not send", "the bundle does not hold"];
    let end = refused("incomplete_chain", Presented(0), says, "configure the server to send its intermediate");
    t.row("missing intermediate", good, &[], &[root], end);
    t.row("missing intermediate, in the bundle", good, &[], &[root, issuing], Passes);
    t.row("intermediate alone in the bundle", good, &[], &[issuing], Passes);
    let foreign = &lab.root("Foreign Root");
    let says = &["the chain ends at the issuer `CN=Lab Root`", "not in the bundle"];
    let yours = "if that CA is yours, add its root certificate to --ca-bundle";
    let end = refused("unknown_issuer", Presented(1), says, yours);
    t.row("unknown CA", good, &[issuing], &[foreign], end);
    let says = &["the chain ends at the root `CN=Lab Root`", "not in the bundle"];
    let end = refused("unknown_issuer", Presented(2), says, yours);
    t.row("unknown CA, which was sent", good, &[issuing, root], &[foreign], end);
    let single = &sound.by(root);
    let says = &["the certificate was issued by `CN=Lab Root`", "the bundle does not hold"];
    let end = refused("incomplete_chain", Presented(0), says, "if the CA is unknown, add its root to --ca-bundle");
    t.row("unknown CA of one tier", single, &[], &[foreign], end);

    let recreated = &lab.root("Lab Root");
    let says = &[
        "`CN=a` claims to be signed by `CN=Lab Root`",
        "the bundle holds a certificate of that name with another key",
    ];
    let replace = "add it to --ca-bundle alongside the other; remove the other when nothing uses it";
    let end = refused("issuer_key_mismatch", Presented(0), says, replace);
    t.row("same CA name, other key", single, &[], &[recreated], end);
    let says = &["the intermediate `CN=Lab Issuing` claims to be signed by `CN=Lab Root`", "with another key"];
    let end = refused("issuer_key_mismatch", Presented(1), says, replace);
    t.row("same root name, other key", good, &[issuing], &[recreated], end);
    let mute = lab.authority("Mute Root").without("subjectKeyIdentifier").ext("subjectKeyIdentifier", "none");
    let (mute, other) = (&mute.by_itself(), &mute.by_itself());
    let unnamed = lab.server("a", SAN).without("authorityKeyIdentifier").ext("subjectKeyIdentifier", "none");
    let says = &["`CN=a` claims to be signed by `CN=Mute Root`", "with another key"];
    let end = refused("issuer_key_mismatch", Presented(0), says, replace);
    t.row("same CA name, other key, no key identifiers", &unnamed.by(mute), &[], &[other], end);
    t.row("no key identifiers", &unnamed.by(mute), &[], &[mute], Passes);
    let tampered = &lab.changed(good, |der| *der.last_mut().unwrap() ^= 1);
    let says = &["`CN=a` claims to be signed by `CN=Lab Issuing`", "the signature does not hold"];
    let end = refused("bad_signature", Presented(0), says, "may also mean an attack");
    t.row("tampered signature", tampered, &[issuing], &[root], end);
    let tampered = &lab.changed(issuing, |der| *der.last_mut().unwrap() ^= 1);
    let says =
        &["the intermediate `CN=Lab Issuing` claims to be signed by `CN=Lab Root`", "the signature does not hold"];
    let end = refused("bad_signature", Presented(1), says, "may also mean an attack");
    t.row("tampered intermediate", good, &[tampered], &[root], end);

    // Another installation's CAs of the same names in the bundle.
    let twin_root = &lab.root("Lab Root");
    let twin = &lab.authority("Lab Issuing").by(twin_root);
    t.row("with twins", good, &[issuing], &[twin, twin_root, root], Passes);
    let says = &[
        "which the server did not send and the bundle does not hold",
        "the bundle holds another CA of that name (sha256 ",
    ];
    let end = refused("incomplete_chain", Presented(0), says, "configure the server to send its intermediate");
    t.row("missing intermediate, with twins", good, &[], &[twin, twin_root, root], end);
    let end = refused("bad_signature", Presented(0), &["the signature does not hold"], "may also mean an attack");
    let changed = &lab.changed(good, |der| *der.last_mut().unwrap() ^= 1);
    t.row("tampered signature, with twins", changed, &[issuing], &[twin, twin_root, root], end);
    let says = &["the server sent the CA `CN=Lab Root` (sha256 ", "the bundle holds another CA of that name"];
    let end = refused("issuer_key_mismatch", Presented(2), says, "add that CA to --ca-bundle alongside the other");
    t.row("root sent, with twins", good, &[issuing, root], &[twin, twin_root], end);
    // A cross-certificate that has expired, along with the root that is in the bundle.
    let old = &lab.root("Old Root");
    let cross = &lab.authority("Lab Root").key(&text(&root.key)).days(-400, -9).by(old);
    let sha1 = &sound.clone().digest("sha1").by(issuing);
    let end = refused("weak_signature", Presented(0), &["is signed with SHA-1"], "SHA-256");
    t.row("SHA-1, with an expired cross-certificate", sha1, &[issuing, cross], &[root, old], end);
    // The root's name in other letters and another string type.
    let plain = lab.authority("Letters").key(&text(&root.key)).by_itself();
    let lower = &lab.authority("LETTERS").key(&text(&root.key)).by_itself();
    t.row("its root's name in other letters", &sound.by(&plain), &[], &[lower], Passes);
    let other = &lab.authority("LETTER").key(&text(&root.key)).by_itself();
    let end = refused("incomplete_chain", Presented(0), &["issued by `CN=Letters`"], "add its root to --ca-bundle");
    t.row("another name of that key", &sound.by(&plain), &[], &[other], end);
    let namesake = &lab.server("Lab Root", SAN).by(root);
    t.row("a leaf of its CA's name", namesake, &[], &[root], Passes);
    let says = &["the certificate was issued by `CN=Lab Root`", "the bundle does not hold"];
    let end = refused("incomplete_chain", Presented(0), says, "add its root to --ca-bundle");
    t.row("a leaf of its unknown CA's name", namesake, &[], &[foreign], end);
    let says = &["the chain ends at the root `CN=Lab Root`", "not in the bundle"];
    let end = refused("unknown_issuer", Presented(1), says, yours);
    t.row("a leaf of its unknown CA's name, which was sent", namesake, &[root], &[foreign], end);
    let junk = &lab.root("Junk");
    t.row("junk and root in the chain", good, &[junk, root, issuing], &[root], Passes);
    let first = &lab.authority("First Root").version_1().by_itself();
    t.row("v1 root as anchor", &unnamed.by(first), &[], &[first], Passes);
    t.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn validity() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let root = &lab.root("Lab Root");
    let sound = lab.server("a", SAN);
    let (past, renew) = (lab.authority("Past").days(-400, -41), "have it renewed");
    let says = &["the certificate `CN=a` expired on ", "(10 days ago)"];
    let end = refused("expired", Presented(0), says, renew);
    t.row("expired leaf", &sound.clone().days(-40, -10).by(root), &[], &[root], end);
    let issuing = &past.by(root);
    let says = &["the intermediate `CN=Past` expired on ", "(41 days ago)"];
    let end = refused("expired", Presented(1), says, renew);
    t.row("expired intermediate", &sound.by(issuing), &[issuing], &[root], end);
    let says = &["the certificate `CN=a` is valid only from ", "(in 9 days)"];
    let end = refused("not_yet_valid", Presented(0), says, "compare the clocks");
    t.row("not yet valid", &sound.clone().days(10, 20).by(root), &[], &[root], end);
    let issuing = &lab.authority("Future").days(10, 20).by(root);
    let says = &["the intermediate `CN=Future` is valid only from ", "(in 9 days)"];
    let end = refused("not_yet_valid", Presented(1), says, "compare the clocks");
    t.row("intermediate not yet valid", &sound.by(issuing), &[issuing], &[root], end);
    let old = &past.by_itself();
    let says = &["in the bundle: the root `CN=Past` expired on ", "(41 days ago)"];
    let end = refused("root_expired", Bundle(1), says, "replace this root in --ca-bundle");
    t.row("expired root", &sound.by(old), &[], &[root, old], end);
    let young = &lab.authority("Young").days(10, 20).by_itself();
    let says = &["in the bundle: the root `CN=Young` is valid only from ", "(in 9 days)"];
    let end = refused("not_yet_valid", Bundle(0), says, "compare the clocks");
    t.row("root not yet valid", &sound.by(young), &[], &[young], end);
    t.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_signatures() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let root = &lab.root("Lab Root");
    let sound = lab.server("a", SAN);
    let weak = sound.clone().key("rsa:1024");
    let says = &["the certificate `CN=a` has an RSA key of 1024 bits", "2048 is the least"];
    let end = refused("weak_key", Presented(0), says, "reissued with an RSA key of 2048 bits or more");
    t.row("RSA-1024 leaf", &weak.by(root), &[], &[root], end);
    let small = &lab.authority("Small").key("rsa:1024").by_itself();
    let says = &["the root `CN=Small` has an RSA key of 1024 bits", "2048 is the least"];
    let end = refused("weak_key", Bundle(1), says, "replace this CA by one with an RSA key of 2048 bits");
    t.row("RSA-1024 root", &sound.by(small), &[], &[root, small], end);
    let small = &lab.authority("Small").key("rsa:1024").by(root);
    let says = &["the intermediate `CN=Small` has an RSA key of 1024 bits", "2048 is the least"];
    let end = refused("weak_key", Presented(1), says, "2048 bits");
    t.row("RSA-1024 intermediate", &sound.by(small), &[small], &[root], end);

    let rsa = &lab.authority("Rsa Root").key("rsa:2048").by_itself();
    for (name, digest, code, found) in [
        ("SHA-1", "sha1", "weak_signature", &["the certificate `CN=a` is signed with SHA-1"]),
        ("MD5", "md5", "weak_signature", &["the certificate `CN=a` is signed with MD5"]),
        ("SHA-224", "sha224", "unsupported_signature", &["the certificate `CN=a` is signed with SHA-224"]),
    ] {
        let end = refused(code, Presented(0), found, "with SHA-256 (`openssl … -sha256`)");
        t.row(name, &sound.clone().digest(digest).by(rsa), &[], &[rsa], end);
    }
    let end = refused("weak_signature", Presented(0), &["`CN=a` is signed with SHA-1"], "reissued with SHA-256");
    t.row("ECDSA with SHA-1", &sound.clone().digest("sha1").by(root), &[], &[root], end);
    let issuing = &lab.authority("Hasty").digest("sha1").by(rsa);
    let says = &["the intermediate `CN=Hasty` is signed with SHA-1"];
    let end = refused("weak_signature", Presented(1), says, "reissued with SHA-256");
    t.row("SHA-1 intermediate", &sound.by(issuing), &[issuing], &[rsa], end);

    let p256 = "P-256";
    for (name, key, found) in
        [("explicit curve", "explicit:P-256", "explicit curve"), ("odd curve", "secp256k1", "the curve secp256k1")]
    {
        let wish = lab.authority("Odd").key(key);
        let (anchor, issuing) = (&wish.by_itself(), &wish.by(root));
        let says = &["the root `CN=Odd` has a key on ", found, "which is not supported"];
        t.row(name, &sound.by(anchor), &[], &[root, anchor], refused("unsupported_key", Bundle(1), says, p256));
        let says = &["the intermediate `CN=Odd` has a key on ", found, "which is not supported"];
        let end = refused("unsupported_key", Presented(1), says, p256);
        t.row(name, &sound.by(issuing), &[issuing], &[root], end);
    }
    let ed = &lab.authority("Ed").key("ED448").digest("null").by_itself();
    let says = &["the certificate `CN=a` is signed with Ed448"];
    let end = refused("unsupported_signature", Presented(0), says, "a CA with an RSA or P-256 key");
    t.row("Ed448", &sound.clone().digest("null").by(ed), &[], &[ed], end);
    let end = failed(
        "handshake_refused",
        &["the server refused the handshake (alert HandshakeFailure)"],
        "see the server's log",
    );
    t.row("secp256k1 leaf", &sound.clone().key("secp256k1").by(root), &[], &[root], end);

    let ed = &lab.authority("Ed").key("ED25519").digest("null").by_itself();
    t.row("Ed25519", &sound.clone().key("ED25519").digest("null").by(ed), &[], &[ed], Passes);
    t.row("P-521", &sound.clone().key("P-521").by(root), &[], &[root], Passes);
    t.row("P-384", &sound.clone().key("P-384").by(root), &[], &[root], Passes);
    t.row("SHA-512", &sound.clone().digest("sha512").by(rsa), &[], &[rsa], Passes);
    t.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_certificate_may_be_used_for() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let root = &lab.root("Lab Root");
    let sound = lab.server("a", SAN);
    let issuing = lab.authority("Lab Issuing");
    let reissue = "have it reissued with `extendedKeyUsage = serverAuth`";
    for (name, usage, found) in [
        ("EKU clientAuth only", "clientAuth", "not meant for servers but for clientAuth"),
        ("EKU any only", "anyExtendedKeyUsage", "lists `any purpose` only; servers need `serverAuth` by name"),
        ("EKU extension empty", "DER:3000", "not meant for servers but for nothing"),
    ] {
        let end = refused("wrong_purpose", Presented(0), &["the certificate `CN=a`", found], reissue);
        t.row(name, &sound.clone().ext("extendedKeyUsage", usage).by(root), &[], &[root], end);
    }
    let client = &issuing.clone().ext("extendedKeyUsage", "clientAuth").by(root);
    let says = &["the intermediate `CN=Lab Issuing` is not meant for servers but for clientAuth"];
    let end = refused("wrong_purpose", Presented(1), says, reissue);
    t.row("EKU clientAuth only, of an intermediate", &sound.by(client), &[client], &[root], end);

    let says = &["the certificate `CN=a` is a CA certificate"];
    let end = refused("ca_as_server", Presented(0), says, "reissued with `basicConstraints = CA:FALSE`");
    t.row("CA:TRUE leaf", &sound.clone().ext("basicConstraints", "critical,CA:TRUE").by(root), &[], &[root], end);
    let ca = "have it issued by a CA certificate (`basicConstraints = CA:TRUE`";
    let unfit = &issuing.clone().ext("basicConstraints", "critical,CA:FALSE").by(root);
    let says = &["the issuer `CN=Lab Issuing` is not a CA"];
    let end = || refused("issuer_not_ca", Presented(1), says, ca);
    t.row("intermediate CA:FALSE", &sound.by(unfit), &[unfit], &[root], end());
    let unfit = &issuing.clone().without("basicConstraints").by(root);
    t.row("intermediate without basicConstraints", &sound.by(unfit), &[unfit], &[root], end());
    let unfit = &issuing.clone().ext("keyUsage", "critical,digitalSignature").by(root);
    let says = &["the issuer `CN=Lab Issuing` may not sign certificates", "its keyUsage lacks keyCertSign"];
    let end = refused("issuer_may_not_sign", Presented(1), says, "keyUsage = keyCertSign");
    t.row("intermediate without keyCertSign", &sound.by(unfit), &[unfit], &[root], end);
    let unfit = &lab.authority("Unfit").ext("keyUsage", "critical,cRLSign").by_itself();
    let says = &["the root `CN=Unfit` may not sign certificates", "its keyUsage lacks keyCertSign"];
    let end = refused("root_unfit", Bundle(1), says, "replace this root in --ca-bundle");
    t.row("root without keyCertSign", &sound.by(unfit), &[], &[root, unfit], end);

    let understood = "that is not understood: 1.3.6.1.4.1.32473.1";
    let odd = &sound.clone().ext("1.3.6.1.4.1.32473.1", "critical,DER:0500").by(root);
    let end =
        refused("critical_extension", Presented(0), &["the certificate `CN=a`", understood], "one without `critical`");
    t.row("critical unknown extension", odd, &[], &[root], end);
    for (name, extension, value, oid) in [
        ("critical unknown extension of an intermediate", "1.3.6.1.4.1.32473.1", "critical,DER:0500", understood),
        (
            "policyConstraints",
            "policyConstraints",
            "critical,requireExplicitPolicy:3",
            "policy constraints (2.5.29.36)",
        ),
        ("inhibitAnyPolicy", "inhibitAnyPolicy", "critical,3", "inhibit anyPolicy (2.5.29.54)"),
    ] {
        let odd = &issuing.clone().ext(extension, value).by(root);
        let says = &["the intermediate `CN=Lab Issuing` has a critical extension", oid];
        let end = refused("critical_extension", Presented(1), says, "one without `critical`");
        t.row(name, &sound.by(odd), &[odd], &[root], end);
    }
    let policies = issuing.clone().ext("certificatePolicies", "critical,1.2.3.4");
    let (anchor, below) = (&policies.by_itself(), &policies.by(root));
    t.row("critical policies of a root", &sound.by(anchor), &[], &[anchor], Passes);
    t.row("critical policies of an intermediate in the bundle", &sound.by(below), &[], &[below], Passes);
    let says = &["the intermediate `CN=Lab Issuing`", "certificate policies (2.5.29.32)"];
    let end = refused("critical_extension", Presented(1), says, "add this intermediate to --ca-bundle");
    t.row("critical policies of an intermediate", &sound.by(below), &[below], &[root], end);
    let odd = &lab.authority("Odd").ext("1.3.6.1.4.1.32473.1", "critical,DER:0500").by_itself();
    let end = refused("root_unfit", Bundle(0), &["the root `CN=Odd`", understood], "replace this root");
    t.row("critical unknown extension of a root", &sound.by(odd), &[], &[odd], end);

    for (name, anchor) in [
        ("root for clients", lab.authority("For clients").ext("extendedKeyUsage", "clientAuth,emailProtection")),
        ("intermediate for clients in the bundle", issuing.clone().ext("extendedKeyUsage", "clientAuth")),
    ] {
        let anchor = &if name.starts_with("root") { anchor.by_itself() } else { anchor.by(root) };
        let says = &["in the bundle is not fit to issue: it is meant for clientAuth", "not for servers"];
        t.row(name, &sound.by(anchor), &[], &[anchor], refused("root_unfit", Bundle(0), says, "replace this root"));
    }
    for usage in ["serverAuth", "clientAuth,serverAuth", "anyExtendedKeyUsage"] {
        let anchor = &lab.authority("For servers").ext("extendedKeyUsage", usage).by_itself();
        t.row("root for servers", &sound.by(anchor), &[], &[anchor], Passes);
    }

    let rsa = sound.clone().key("rsa:2048").ext("keyUsage", "keyEncipherment");
    t.row("keyEncipherment only", &rsa.by(root), &[], &[root], Passes);
    t.row("keyAgreement only", &sound.clone().ext("keyUsage", "keyAgreement").by(root), &[], &[root], Passes);
    t.row("no EKU", &sound.clone().without("extendedKeyUsage").by(root), &[], &[root], Passes);
    t.row(
        "must-staple without staple",
        &sound.clone().ext("tlsfeature", "status_request").by(root),
        &[],
        &[root],
        Passes,
    );
    for (name, serial) in [
        ("serial 0", "0"),
        ("serial -5", "-5"),
        ("serial of 21 octets", "0x7f000000000000000000000000000000000000007f"),
    ] {
        t.row(name, &sound.clone().serial(serial).by(root), &[], &[root], Passes);
    }
    t.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_authorities() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let root = &lab.root("Lab Root");
    let sound = lab.server("a", SAN);
    let issuing = lab.authority("Limited");
    let ask = "this chain breaks a limit that the CA itself set";
    for (name, names, constraint, found) in [
        ("permitted", SAN, "permitted;DNS:b.test,permitted;DNS:c.test", "may issue only for `b.test`, `c.test`"),
        ("excluded", SAN, "excluded;DNS:lab.test", "may not issue for `lab.test`"),
        (
            "address",
            "DNS:a.lab.test,IP:192.0.2.9",
            "permitted;IP:10.0.0.0/255.0.0.0",
            "only for `ip:10.0.0.0/255.0.0.0`",
        ),
        ("directory name", SAN, "permitted;dirName:dn\n[dn]\nO = Lab", "only for `directory:O=Lab`"),
    ] {
        let limited = issuing.clone().ext("nameConstraints", &format!("critical,{constraint}"));
        let (below, anchor) = (&limited.by(root), &limited.by_itself());
        let leaf = lab.server("a", names);
        let has = if name == "directory name" { "has the name `directory:CN=a`" } else { "is valid for `a.lab.test`" };
        let says = &["the certificate `CN=a`", has, "the intermediate `CN=Limited` above it", found];
        t.row(name, &leaf.by(below), &[below], &[root], refused("name_constraint", Presented(0), says, ask));
        let says = &["the certificate `CN=a`", has, "the root `CN=Limited` above it", found];
        t.row(name, &leaf.by(anchor), &[], &[anchor], refused("name_constraint", Presented(0), says, ask));
    }
    // Limits on directory names that are met, of a CA in the bundle and of one that is sent.
    let met = "critical,permitted;dirName:dn,permitted;DNS:lab.test\n[dn]\nCN = A";
    let met = issuing.clone().ext("nameConstraints", met);
    let (anchor, below) = (&met.by_itself(), &met.by(root));
    t.row("directory name, met", &sound.by(anchor), &[], &[anchor], Passes);
    t.row("directory name, met below an intermediate in the bundle", &sound.by(below), &[], &[below], Passes);
    let foreign = "critical,excluded;dirName:dn\n[dn]\nO = Lab";
    let anchor = &issuing.clone().ext("nameConstraints", foreign).by_itself();
    t.row("directory name, not excluded", &sound.by(anchor), &[], &[anchor], Passes);
    let excluded = "critical,excluded;dirName:dn\n[dn]\nCN = a";
    let anchor = &issuing.clone().ext("nameConstraints", excluded).by_itself();
    let end = refused("name_constraint", Presented(0), &["may not issue for `directory:CN=a`"], ask);
    t.row("directory name, excluded", &sound.by(anchor), &[], &[anchor], end);
    let says = &["the intermediate `CN=Limited` has a name constraint of a kind (directoryName)", "may be sound"];
    let end = refused("name_constraint", Presented(1), says, "add this intermediate to --ca-bundle");
    t.row("directory name, met below an intermediate", &sound.by(below), &[below], &[root], end);
    let permitted = &issuing.clone().ext("nameConstraints", "critical,permitted;DNS:lab.test").by(root);
    t.row("permitted, and so named", &sound.by(permitted), &[permitted], &[root], Passes);

    let high = &issuing.clone().ext("basicConstraints", "critical,CA:TRUE,pathlen:0").by(root);
    let low = &lab.authority("Low").by(high);
    t.row("pathLen not exceeded", &sound.by(high), &[high], &[root], Passes);
    let says = &["the intermediate `CN=Low`", "`CN=Limited` above it allows 0 CAs below itself (path length)", "1"];
    let end = refused("path_length", Presented(1), says, ask);
    t.row("pathLen exceeded", &sound.by(low), &[low, high], &[root], end);
    let mut tower = vec![lab.authority("Tower 1").by(root)];
    for n in 2..=7 {
        tower.insert(0, lab.authority(&format!("Tower {n}")).by(&tower[0]));
    }
    let all: Vec<&Made> = tower.iter().collect();
    t.row("6 intermediates", &sound.by(&tower[1]), &all[1..], &[root], Passes);
    let says = &["the certificate `CN=a` has 7 intermediates above it"];
    let end = refused("chain_too_long", Presented(0), says, "add one of its intermediates to --ca-bundle");
    t.row("7 intermediates", &sound.by(&tower[0]), &all, &[root], end);
    t.row("7 intermediates, one in the bundle", &sound.by(&tower[0]), &all, &[root, &tower[6]], Passes);

    // What it takes to burn a judge's time.
    let now = OffsetDateTime::now_utc();
    let end = || {
        let says = &["takes too much work to verify"];
        refused("chain_too_complex", Presented(0), says, "only the certificates between its own and the root")
    };
    let top = Authority::root("Top", now).unwrap();
    let many = |count: usize| -> Vec<Made> {
        let made = |_| top.subordinate(&CaSpec::intermediate("Many", now)).unwrap();
        let above: Vec<_> = (0..count).map(made).collect();
        let leaf = above[count - 1].issue(&LeafSpec::new("a", now).dns(NAME)).unwrap();
        let own = lab.keep(&certificates_pem(leaf.end_entity()), &leaf.key_pem());
        std::iter::once(own).chain(above.iter().map(|ca| lab.keep(&ca.certificate_pem(), &ca.key_pem()))).collect()
    };
    let anchor = lab.keep(&top.certificate_pem(), &top.key_pem());
    let sent = many(60);
    t.row("more of one name than are tried", &sent[0], &sent[1..].iter().collect::<Vec<_>>(), &[&anchor], end());
    let sent = many(12);
    t.row("fewer of one name", &sent[0], &sent[1..].iter().collect::<Vec<_>>(), &[&anchor], Passes);
    let circle: Vec<Made> = (0..14).map(|_| lab.root("Circle")).collect();
    let of_circle = &sound.by(&circle[0]);
    let namesake = &lab.root("Circle");
    t.row("path building", of_circle, &circle.iter().collect::<Vec<_>>(), &[root], end());
    t.row("signature checks", of_circle, &circle.iter().collect::<Vec<_>>(), &[namesake], end());
    let list = |of: &str| (0..600).map(|n| format!("{of}{n}.test")).collect::<Vec<_>>().join(",");
    let wary = &issuing.clone().ext("nameConstraints", &list("excluded;DNS:x")).by(root);
    let named = &lab.server("a", &format!("{SAN},{}", list("DNS:n"))).by(wary);
    t.row("name constraint comparisons", named, &[wary], &[root], end());
    t.row("fewer name constraint comparisons", &sound.by(wary), &[wary], &[root], Passes);
    t.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let root = &lab.root("Lab Root");
    let sound = lab.server("a", SAN);
    let reissue = "have it reissued";
    let (good, issuing) = (&sound.by(root), lab.authority("Lab Issuing"));
    let truncated = &lab.changed(good, |der| der.truncate(der.len() / 2));
    let end = refused("malformed_certificate", Presented(0), &["the certificate", "cannot be read"], reissue);
    t.rustls("cut short", truncated, &[], &[root], end).await;
    let longer = &lab.changed(good, |der| der.push(0));
    let end = refused("malformed_certificate", Presented(0), &["the certificate", "1 bytes behind its end"], reissue);
    t.rustls("bytes behind it", longer, &[], &[root], end).await;
    let two = &lab.changed(good, |der| {
        let sha256 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        let at = der.windows(8).rposition(|window| window == sha256).unwrap();
        der[at + 7] = 3;
    });
    let says = &["the certificate `CN=a` cannot be used", "it names two signature algorithms"];
    t.row(
        "signature algorithms differ",
        two,
        &[],
        &[root],
        refused("malformed_certificate", Presented(0), says, reissue),
    );
    let unknown = &sound.clone().ext("2.5.29.99", "DER:30038201ff").by(root);
    let twice = &lab.changed(unknown, |der| {
        let at = der.windows(5).position(|window| window == [6, 3, 0x55, 0x1d, 99]).unwrap();
        der[at + 4] = 17;
    });
    let says = &["the certificate `CN=a` cannot be used", "an extension is malformed, or occurs twice"];
    t.row("duplicate extension", twice, &[], &[root], refused("malformed_certificate", Presented(0), says, reissue));
    let odd = &sound.clone().ext("subjectAltName", "DER:0500").by(root);
    let says = &["the certificate (sha256 {own}) cannot be read", "its extension subject alternative name (2.5.29.17)"];
    t.row("SAN is no SEQUENCE", odd, &[], &[root], refused("malformed_certificate", Presented(0), says, reissue));
    let odd = sound.clone().ext("subjectAltName", "DER:30058203612e20");
    let end = refused("name_mismatch", Presented(0), &["valid for `a. `, not for `a.lab.test`"], reissue);
    t.row("SAN with a space", &odd.by(root), &[], &[root], end);
    let limited = &issuing.clone().ext("nameConstraints", "critical,permitted;DNS:lab.test").by(root);
    let says = &["the certificate `CN=a` cannot be used", "a DNS name in it is malformed"];
    let end = refused("malformed_certificate", Presented(0), says, reissue);
    t.row("SAN with a space, constrained", &odd.by(limited), &[limited], &[root], end);
    let forged = "DER:30178215612e6c61622e74657374002e6576696c2e74657374";
    let says = &["`a.lab.test\\u{0}.evil.test`, with a NUL byte in it: a forgery, made to pass for `a.lab.test`"];
    let end = refused("name_mismatch", Presented(0), says, "treat it as an attack");
    t.row("SAN with a NUL", &sound.clone().ext("subjectAltName", forged).by(root), &[], &[root], end);
    let odd = &sound.clone().ext("subjectAltName", "DER:30038201ff").by(root);
    let end = refused("name_mismatch", Presented(0), &["valid for `(malformed)`, not for `a.lab.test`"], reissue);
    t.row("SAN that is not ASCII", odd, &[], &[root], end);
    for (name, constraint, found) in [
        ("mask of a name constraint", "permitted;IP:10.0.0.0/255.0.255.0", "network mask"),
        ("malformed name constraint", "DER:300ba009300787050102030405", "name constraint"),
    ] {
        let odd = &issuing.clone().ext("nameConstraints", &format!("critical,{constraint}")).by(root);
        let leaf = lab.server("a", "DNS:a.lab.test,IP:10.0.0.1").by(odd);
        let says = &["the intermediate `CN=Lab Issuing` cannot be used", found];
        t.row(name, &leaf, &[odd], &[root], refused("malformed_certificate", Presented(1), says, reissue));
    }
    t.judge().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revocation() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let root = &lab.root("Lab Root");
    let issuing = &lab.authority("Lab Issuing").by(root);
    let condemned = &lab.authority("Condemned").by(root);
    let sound = lab.server("a", SAN);
    let (good, bad) = (&sound.by(issuing), &sound.by(issuing));
    let below = &sound.by(condemned);
    lab.revoke(bad, "keyCompromise");
    lab.revoke(condemned, "CACompromise");
    let of_root = text(&lab.list(root, (-1, 30), ""));
    let of_issuing = text(&lab.list(issuing, (-1, 30), ""));
    let old = text(&lab.list(issuing, (-40, -10), ""));
    let both = format!("crl = [\"{of_root}\", \"{of_issuing}\"]");
    t.row("listed nowhere", good, &[issuing], &[root], Passes).with(&both);
    let says = &["the certificate `CN=a` was revoked by `CN=Lab Issuing` on ", "(key compromised)"];
    let reissue = "have it reissued with a new key";
    t.row("revoked leaf", bad, &[issuing], &[root], refused("revoked", Presented(0), says, reissue)).with(&both);
    let says = &["the intermediate `CN=Condemned` was revoked by `CN=Lab Root` on ", "(CA compromised)"];
    let end = refused("revoked", Presented(1), says, reissue);
    t.row("revoked intermediate", below, &[condemned], &[root], end).with(&both);
    t.row("revoked, and no list says so", bad, &[issuing], &[root], Passes);

    let expired = format!("crl = \"{old}\"");
    let says = &["the revocation list of `CN=Lab Issuing` is out of date since ", "(10 days ago)"];
    let end = refused("crl_expired", Presented(1), says, "get the CA's current list");
    t.row("list expired", good, &[issuing], &[root], end).with(&expired);
    let tolerate = "crl_policy = \"expired=tolerate\"";
    t.row("list expired, tolerated", good, &[issuing], &[root], Passes).with(&expired).with(tolerate);
    let end = refused("revoked", Presented(0), &["was revoked by `CN=Lab Issuing`"], reissue);
    t.row("list expired, tolerated, and revoked", bad, &[issuing], &[root], end).with(&expired).with(tolerate);

    let one = format!("crl = \"{of_issuing}\"");
    let refuse = "crl_policy = [\"unknown=refuse\"]";
    let says = &["no revocation list of `CN=Lab Root` covers the intermediate `CN=Lab Issuing`"];
    let end = refused("revocation_unknown", Presented(1), says, "give the list of that CA");
    t.row("no list for an issuer", good, &[issuing], &[root], end).with(&one).with(refuse);
    t.row("a list for each issuer", good, &[issuing], &[root], Passes).with(&both).with(refuse);
    t.row("no list for an issuer, tolerated", good, &[issuing], &[root], Passes).with(&one);
    let other = format!("crl = \"{of_root}\"");
    let says = &["no revocation list of `CN=Lab Issuing` covers the certificate `CN=a`"];
    let end = refused("revocation_unknown", Presented(0), says, "each CA of a chain has its own");
    t.row("no list for the server's issuer", good, &[issuing], &[root], end).with(&other).with(refuse);

    let der = lab.openssl(&["crl", "-in", &of_issuing, "-outform", "DER"]);
    let mut tampered = der;
    *tampered.last_mut().unwrap() ^= 1;
    let tampered = lab.write("tampered.crl", tampered);
    let says = &["the revocation list of `CN=Lab Issuing` cannot be used", "it was not signed by that CA's key"];
    let end = refused("crl_invalid", Presented(1), says, "get the CA's current list");
    t.row("list's signature bad", good, &[issuing], &[root], end).with(&format!("crl = \"{}\"", text(&tampered)));
    // A root that is spelt otherwise in the bundle than in what it issued, its list included.
    let spelt = lab.authority("Spelt").key(&text(&root.key)).by_itself();
    let in_bundle = &lab.authority("SPELT").key(&text(&root.key)).by_itself();
    let (good_one, bad_one) = (&sound.by(&spelt), &sound.by(&spelt));
    lab.revoke(bad_one, "superseded");
    let of_spelt = format!("crl = \"{}\"", text(&lab.list(&spelt, (-1, 30), "")));
    t.row("in other letters, and not revoked", good_one, &[], &[in_bundle], Passes).with(&of_spelt);
    let end = refused("revoked", Presented(0), &["was revoked by"], reissue);
    t.row("in other letters, and revoked", bad_one, &[], &[in_bundle], end).with(&of_spelt);
    let mute = &lab.authority("Mute").ext("keyUsage", "critical,keyCertSign").by(root);
    let list = lab.list(mute, (-1, 30), "");
    let says = &["the revocation list of `CN=Mute` cannot be used", "its keyUsage lacks cRLSign"];
    let end = refused("crl_invalid", Presented(1), says, "get the CA's current list");
    t.row("list's issuer may not sign lists", &sound.by(mute), &[mute], &[root], end)
        .with(&format!("crl = \"{}\"", text(&list)));
    t.judge().await;
}

#[test]
fn verify_says_where_run_would_accept_by_its_default() {
    let lab = Lab::new();
    let root = lab.root("Lab Root");
    let issuing = lab.authority("Lab Issuing").by(&root);
    let own = lab.server("a", SAN).by(&issuing);
    let (bundle, list) = (text(&root.cert), text(&lab.list(&issuing, (-1, 30), "")));
    let chain = text(&lab.bundle(&[&own, &issuing]));
    let ask = |more: &[&str]| {
        let all = ["verify", "--ca-bundle", &bundle, "--name", NAME, "--crl", &list];
        vouchsafe(&[&all[..], more, &[chain.as_str()]].concat())
    };
    let said = ask(&[]);
    assert!(said.code == Some(1) && said.out.starts_with("revocation_unknown: "), "{said:?}");
    assert!(said.out.contains("note: `run` accepts this chain"), "{said:?}");
    assert_eq!(ask(&["--json"]).json()["run_accepts"], true);
    let said = ask(&["--crl-policy", "unknown=refuse"]);
    assert!(said.code == Some(1) && !said.out.contains("note: "), "{said:?}");
    assert_eq!(ask(&["--crl-policy", "unknown=tolerate"]).code, Some(0));
}

#[test]
fn lists_that_cannot_be_used_are_refused_at_the_start() {
    let lab = Lab::new();
    let root = lab.root("Lab Root");
    for (extensions, why) in [
        (
            "issuingDistributionPoint = critical,@p\n[p]\nindirectCRL = TRUE",
            "an indirect list, which speaks for other issuers",
        ),
        ("2.5.29.27 = critical,DER:020101", "a delta list; give the complete one"),
        (
            "issuingDistributionPoint = critical,@p\n[p]\nonlysomereasons = keyCompromise",
            "for some reasons of revocation only",
        ),
        (
            "issuingDistributionPoint = critical,@p\n[p]\nrelativename = r\n[r]\nCN = point",
            "its issuing distribution point is not understood",
        ),
        ("1.3.6.1.4.1.32473.1 = critical,DER:0500", "a critical extension that is not understood"),
    ] {
        let list = text(&lab.list(&root, (-1, 30), extensions));
        let said = crate::life::refused(&[
            "run",
            "--route=127.0.0.1:0=https://a.lab.test",
            "--ca-bundle",
            &text(&root.cert),
            "--crl",
            &list,
        ]);
        let expected = format!("--crl `{list}`: the revocation list of `CN=Lab Root` cannot be used: ");
        assert!(said.contains(&expected) && said.contains(why), "{extensions}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_break_off() {
    let mut t = Table::new();
    let lab = t.lab.clone();
    let root = &lab.root("Lab Root");
    let own = &lab.server("a", SAN).by(root);
    let rsa = &lab.server("a", SAN).key("rsa:2048").by(root);
    let says = &["the server speaks neither TLS 1.2 nor TLS 1.3"];
    let end = failed("tls_version", says, "let the server speak TLS 1.3, or TLS 1.2");
    t.told("TLS 1.1 server", &["-tls1_1"], own, &[root], end);
    let end =
        || failed("handshake_refused", &["refused the handshake (alert HandshakeFailure)"], "no common cipher suite");
    t.told("only CBC", &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], own, &[root], end());
    t.told("only RSA key exchange", &["-tls1_2", "-cipher", "AES128-GCM-SHA256"], rsa, &[root], end());
    t.told("no common group", &["-groups", "P-521"], own, &[root], end());
    t.told("no common group, TLS 1.2", &["-tls1_2", "-groups", "P-521"], own, &[root], end());
    let demand = ["-Verify", "1", "-verify_return_error", "-tls1_2"];
    let says = &["the server demands a client certificate"];
    let end = || failed("client_cert_required", says, "with --client-cert and --client-key");
    t.told("client certificate required, TLS 1.2", &demand, own, &[root], end());
    t.told("client certificate required, TLS 1.3", &demand[..3], own, &[root], end());

    let nginx = lab.nginx("listen LISTEN;");
    let end = || failed("not_tls", &["what answers there does not speak TLS"], "check the port");
    t.push("plain HTTP", Front::There(nginx.address), &[], &[root], end());
    let ssh = blunt(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
    t.push("SSH", Front::There(ssh), &[], &[root], end());
    let says = &["the server closed the connection during the handshake"];
    let end = failed("closed_in_handshake", says, "see the server's log");
    t.push("peer closes", Front::There(blunt(b"")), &[], &[root], end);
    t.judge().await;
}

/// Reads what a client says first, answers with these bytes, and closes.
fn blunt(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 16 * 1024]).and_then(|_| stream.write_all(answer));
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_certificate_carries() {
    let lab = Lab::new();
    let bundle = text(&lab.root("Lab Root").cert);
    let proxy = Proxy::start(&["--ca-bundle", &bundle, "--forward", "127.0.0.1:0", "--allow", "*"]);
    let label = "a".repeat(64);
    let (not_dns, not_one) = ("not a DNS name", "neither a name nor an address in the form 192.0.2.1");
    for (name, why) in [
        ("-a.x", not_dns),
        ("a-.x", not_dns),
        ("a..b", not_dns),
        (&label, not_dns),
        ("127.1", not_one),
        ("0x7f.0.0.1", not_one),
        ("1.2.3.4.", not_one),
        ("*.x", "a character that no host name has"),
        ("[::1", "not an IPv6 address in brackets"),
    ] {
        let ask = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        let seen = exchange(proxy.addr(0), ask.as_bytes()).await;
        let said = seen.text();
        // What a client wrote is not repeated: it may hold a part of a password.
        assert!(seen.status() == 400 && said.contains(why) && !said.contains(name), "{name}: {said}");
        assert!(said.contains("details=\"bad_target\""), "{name}: {said}");
        let said =
            crate::life::refused(&["run", "--ca-bundle", &bundle, &format!("--route=127.0.0.1:0=https://{name}")]);
        assert!(said.contains(&format!("`{name}`: {why}")), "{name}: {said}");
    }
    assert_eq!(proxy.audit().len(), 0);
}
