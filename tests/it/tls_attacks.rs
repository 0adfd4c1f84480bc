//! Upstreams that break the rules of TLS, by a foreign stack that is bent to do so: `tests/real/tls_attacker.py`.
//! Each is a refusal or a failure with a name of its own; without an attack, the same stack is trusted.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use certs_dev::{Case, KeyKind, LeafSpec};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::support::{
    hostile::{
        End::{self, Accepted, Failure, Refused, RefusedLate},
        ROOT, Stage, at_once,
    },
    proxy::PATIENCE,
    replicator::{real, repository},
};

/// The attacker, as a child process; it ends when its stdin does, and by its pid.
struct Attacker {
    child: Child,
    lines: mpsc::Receiver<String>,
    _keys: TempDir,
}

impl Attacker {
    fn start(attacks: &[&str]) -> (Self, HashMap<String, SocketAddr>) {
        let python = real().join("tlslite/bin/python");
        assert!(python.exists(), "`{}` is missing\n  hint: run `tests/setup` first", python.display());
        let keys = crate::support::dir();
        let named = LeafSpec::new("attacker", OffsetDateTime::now_utc()).dns(Case::Good.name());
        let of = |key| ROOT.issue(&LeafSpec { key, ..named.clone() }).unwrap();
        for (name, identity) in [
            ("ecdsa", of(KeyKind::P256)),
            ("other", of(KeyKind::P256)),
            ("rsa", of(KeyKind::Rsa2048)),
            ("weak", of(KeyKind::WeakRsa1024)),
        ] {
            std::fs::write(keys.path().join(format!("{name}.pem")), identity.chain_pem()).unwrap();
            std::fs::write(keys.path().join(format!("{name}.key")), identity.key_pem()).unwrap();
        }
        let mut child = Command::new(python)
            .arg(repository().join("tests/real/tls_attacker.py"))
            .arg(keys.path())
            .args(attacks)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the attacker starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        let attacker = Self { child, lines, _keys: keys };
        let listening = attacks.iter().map(|_| {
            let line = attacker.line();
            let words: Vec<_> = line.split(' ').collect();
            let ["listening", name, port] = words[..] else { panic!("{line}") };
            (name.to_owned(), SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())))
        });
        let listening = listening.collect();
        (attacker, listening)
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the attacker says something")
    }

    /// The end of a connection: how many requests it was sent, and why it ended.
    fn ended(&self, attack: &str) -> (usize, String) {
        let line = self.line();
        let rest = line.strip_prefix(&format!("ended {attack} ")).unwrap_or_else(|| panic!("{attack}: {line}"));
        let (requests, why) = rest.split_once(' ').unwrap();
        (requests.parse().unwrap(), why.to_owned())
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            self.lines.iter().for_each(|line| eprintln!("the attacker: {line}"));
        }
    }
}

/// Connects to each in turn; only a server that was verified may have been sent a request.
async fn meet_all(rows: &[(&str, End)]) {
    let attacks: Vec<_> = rows.iter().map(|(attack, _)| *attack).collect();
    let (attacker, mut at) = Attacker::start(&attacks);
    let upstreams: Vec<_> = attacks.iter().map(|name| at.remove_entry(*name).unwrap()).collect();
    let stage = Stage::set(&upstreams, &["--tls-timeout", "8s", "--response-timeout", "8s"]).await;
    for (n, (attack, end)) in rows.iter().enumerate() {
        let event = stage.meet(n, *end).await;
        let (requests, why) = attacker.ended(attack);
        println!("{attack}: {end:?}; {}; the attacker: {why}", event["error.message"]);
        match end {
            Accepted => assert_eq!(requests, 1, "{attack}: {why}"),
            Refused(_) => assert_eq!(requests, 0, "{attack}: {why}"),
            Failure(_) | RefusedLate(_) => assert!(requests <= 1, "{attack}: {why}"),
        }
    }
    stage.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_attacker_without_an_attack_is_trusted() {
    meet_all(&[
        ("control-12", Accepted),
        ("control-13", Accepted),
        ("control-rsa-12", Accepted),
        ("control-rsa-13", Accepted),
        ("client-cert-optional-12", Accepted),
        ("client-cert-optional-13", Accepted),
        ("renegotiation-12", Accepted),
        ("key-update-13", Accepted),
        ("ticket-flood-13", Accepted),
        // RFC 8446 section 4.1.3 has us look for this mark too; rustls looks for that of TLS 1.2 alone. It speaks
        // nothing older, so that there is nothing to be led down to.
        ("downgrade-11", Accepted),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_prove_the_key_is_refused() {
    meet_all(&[
        ("bad-signature-12", Refused("bad_signature")),
        ("bad-signature-13", Refused("bad_signature")),
        ("bad-signature-rsa-12", Refused("bad_signature")),
        ("bad-signature-rsa-13", Refused("bad_signature")),
        ("foreign-key-12", Refused("bad_signature")),
        ("foreign-key-13", Refused("bad_signature")),
        ("sha1-signature-12", Refused("tls_protocol")),
        ("sha1-signature-13", Refused("tls_protocol")),
        ("pkcs1-signature-13", Refused("tls_protocol")),
        ("md5-signature-12", Refused("tls_protocol")),
        ("no-signature-13", Refused("tls_protocol")),
        ("no-key-exchange-12", Refused("tls_protocol")),
        ("weak-rsa-12", Refused("weak_key")),
        ("weak-rsa-13", Refused("weak_key")),
        ("no-certificate-12", Refused("tls_protocol")),
        ("no-certificate-13", Refused("tls_protocol")),
        ("empty-certificate-12", Refused("no_certificate")),
        ("empty-certificate-13", Refused("no_certificate")),
        ("zero-certificate-12", Refused("malformed_certificate|tls_protocol")),
        ("zero-certificate-13", Refused("malformed_certificate|tls_protocol")),
        ("huge-certificate-12", Refused("tls_protocol")),
        ("huge-certificate-13", Refused("tls_protocol")),
        ("certificate-twice-12", Refused("tls_protocol")),
        ("certificate-twice-13", Refused("tls_protocol")),
        ("zero-share-13", Refused("tls_protocol")),
        ("wrong-finished-12", Refused("tls_protocol")),
        ("wrong-finished-13", Refused("tls_protocol")),
        ("session-echo-12", Refused("tls_protocol")),
        ("resume-12", Refused("tls_protocol")),
        ("psk-13", Refused("tls_protocol")),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_breaks_a_rule_of_the_handshake_is_refused() {
    meet_all(&[
        ("version-ssl3", Refused("tls_version")),
        ("version-10", Refused("tls_version")),
        ("version-11", Refused("tls_version")),
        ("version-unknown", Refused("tls_version|tls_protocol")),
        ("downgrade-12", Refused("tls_protocol")),
        ("unoffered-suite-12", Refused("tls_protocol")),
        ("null-suite-12", Refused("tls_protocol")),
        ("unoffered-suite-13", Refused("tls_protocol")),
        ("unasked-extension-12", Refused("tls_protocol")),
        ("unasked-extension-13", Refused("tls_protocol")),
        ("alpn-h2-12", Refused("tls_protocol")),
        ("alpn-h2-13", Refused("tls_protocol")),
        ("alpn-unknown-13", Refused("tls_protocol")),
        ("alpn-two-13", Refused("tls_protocol")),
        ("hello-twice-12", Refused("tls_protocol")),
        ("early-ccs-12", Refused("tls_protocol")),
        // What follows is read as if it were in the clear: no length is likely to make sense.
        ("no-ccs-12", Refused("tls_protocol|handshake_timeout")),
        ("no-finished-12", Refused("tls_protocol")),
        ("no-finished-13", Refused("tls_protocol")),
        ("early-data-12", Refused("tls_protocol")),
        ("early-data-finished-12", Refused("tls_protocol")),
        ("early-data-13", Refused("tls_protocol")),
        ("early-data-finished-13", Refused("tls_protocol")),
        ("client-cert-12", Refused("client_cert_required")),
        ("client-cert-bad-12", Refused("client_cert_required")),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_in_the_handshake_ends_it() {
    meet_all(&[
        ("ccs-flood-first", Refused("tls_protocol")),
        ("ccs-flood-12", Refused("tls_protocol")),
        ("ccs-flood-13", Refused("tls_protocol")),
        ("warning-flood-12", Refused("tls_protocol|handshake_refused")),
        ("warning-flood-13", Refused("tls_protocol|handshake_refused")),
        ("empty-record-flood-12", Refused("tls_protocol")),
        ("empty-data-flood-13", Refused("tls_protocol")),
        ("hello-request-flood-12", Refused("tls_protocol")),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flight_that_ends_after_any_message_is_a_failure() {
    let closed = Refused("closed_in_handshake");
    meet_all(&[
        ("cut-ServerHello-12", closed),
        ("cut-Certificate-12", closed),
        ("cut-ServerKeyExchange-12", closed),
        ("cut-ServerHelloDone-12", closed),
        ("cut-ChangeCipherSpec-12", closed),
        ("cut-Finished-12", Failure("upstream_closed")),
        ("cut-ServerHello-13", closed),
        ("cut-EncryptedExtensions-13", closed),
        ("cut-Certificate-13", closed),
        ("cut-CertificateVerify-13", closed),
        ("cut-Finished-13", Failure("upstream_closed")),
    ])
    .await;
}

/// The server was verified here, so that the request may be on its way; what it does then must end, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_verified_server_that_breaks_the_rules_later_is_a_failure() {
    let gone = Failure("upstream_closed|bad_response");
    meet_all(&[
        ("client-cert-13", RefusedLate("client_cert_required")),
        ("client-cert-bad-13", RefusedLate("client_cert_required")),
        ("late-alert-12", gone),
        ("late-alert-13", gone),
        ("late-handshake-alert-12", gone),
        ("renegotiation-flood-12", gone),
        ("key-update-odd-13", gone),
        ("key-update-flood-13", gone),
        ("key-update-request-flood-13", gone),
        ("late-request-13", gone),
        ("empty-data-flood-late-12", gone),
        ("empty-data-flood-late-13", gone),
    ])
    .await;
}

/// Apache with `SSLVerifyClient` in a `<Location>` does so; it waits for the answer that there is no renegotiation.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_without_renegotiation_is_told_to_want_a_client_certificate() {
    let attacks = ["renegotiation-alert-12", "renegotiation-cut-12", "renegotiation-silence-12"];
    let (_attacker, at) = Attacker::start(&attacks);
    let upstreams: Vec<_> = attacks.iter().map(|name| ((*name).to_owned(), at[*name])).collect();
    let stage = Stage::set(&upstreams, &["--response-timeout", "2s"]).await;
    for n in 0..attacks.len() {
        let event = stage.meet(n, RefusedLate("client_cert_required")).await;
        let (message, hint) = (event["error.message"].as_str().unwrap(), event["vouchsafe.hint"].as_str().unwrap());
        assert!(message.contains("second handshake (TLS 1.2 renegotiation)"), "{event}");
        assert!(message.contains("a client certificate that only some paths require"), "{event}");
        assert!(hint.contains("in the first handshake") && hint.contains("--client-cert"), "{event}");
    }
    stage.clear();
}

#[tokio::test(flavor = "multi_thread")]
async fn verified_servers_that_never_stop_are_left_in_time_and_hinder_nobody() {
    const MANY: usize = 4;
    let (_attacker, at) = Attacker::start(&["endless-tickets-13"]);
    let stage = Stage::set(&Vec::from_iter(at), &["--response-timeout", "1s"]).await;
    let endless = at_once(MANY, || stage.ask(0));
    let meanwhile = async {
        while stage.proxy().raw_log().matches("response_timeout").count() == 0 {
            assert!(stage.good_is_served().await);
        }
    };
    let (answers, ()) = tokio::join!(endless, meanwhile);
    assert!(answers.iter().all(|seen| seen.status() == 500 && seen.text().contains(": response_timeout (event ")));
    stage.clear();
}
