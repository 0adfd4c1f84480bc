//! What will expire is told in time, once a day, and to the audit log; a server's new issuer or key, too.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use certs_dev::{
    Authority, Identity, LeafSpec, Server,
    pki::{CaSpec, Purpose, Validity},
};
use serde_json::Value;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

use crate::{
    report_only::ahead,
    support::{
        self,
        command::vouchsafe,
        origin::exchange,
        proxy::{PATIENCE, Proxy},
    },
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A CA, and a directory for the files of a test.
struct Lab {
    now: OffsetDateTime,
    root: Authority,
    directory: TempDir,
}

impl Lab {
    fn new() -> Self {
        let now = OffsetDateTime::now_utc();
        Self { now, root: Authority::root("Lab Root", now).unwrap(), directory: support::dir() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn bundle(&self) -> PathBuf {
        self.file("ca.pem", &self.root.certificate_pem())
    }

    /// A server's certificate that expires after so long.
    fn identity(&self, name: &str, left: Duration) -> Identity {
        let validity = Validity { not_before: self.now - Duration::days(60), not_after: self.now + left };
        self.root.issue(&LeafSpec { validity, ..LeafSpec::new(name, self.now).dns(name) }).unwrap()
    }

    /// A proxy with a route to `server.test` at this address.
    fn proxy(&self, server: SocketAddr, variables: &[(&str, &str)]) -> Proxy {
        let bundle = self.bundle();
        let flags = [
            "--ca-bundle",
            bundle.to_str().unwrap(),
            "--route=127.0.0.1:0=https://server.test",
            &format!("--connect-to=server.test={server}"),
        ];
        Proxy::start_with(&flags, variables)
    }
}

async fn serve(identity: &Identity) -> SocketAddr {
    let server = Server::bind(([127, 0, 0, 1], 0).into(), identity, "a server").await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.run());
    address
}

/// Waits until so many events have this action.
async fn events(proxy: &Proxy, action: &str, count: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut events = proxy.notices();
        events.retain(|event| event["event.action"] == action);
        if events.len() >= count {
            return events;
        }
        assert!(Instant::now() < deadline, "{count} of {action} are expected: {events:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn message(event: &Value) -> &str {
    event["error.message"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_certificate_expires_soon_is_told_of_once_a_day() {
    let lab = Lab::new();
    let server = serve(&lab.identity("server.test", Duration::hours(6 * 24 + 12))).await;
    let proxy = lab.proxy(server, &[]);
    for _ in 0..3 {
        assert_eq!(exchange(proxy.addr(0), GET).await.status(), 200);
    }
    let events = events(&proxy, "expiry", 1).await;
    let [event] = &events[..] else { panic!("once: {events:#?}") };
    assert_eq!(
        (&event["error.code"], &event["vouchsafe.upstream"]),
        (&"expires_soon".into(), &"server.test:443".into())
    );
    assert_eq!(
        (&event["vouchsafe.expiry.kind"], &event["vouchsafe.expiry.days_left"]),
        (&"upstream_certificate".into(), &6.into())
    );
    let text = message(event);
    assert!(text.starts_with("the certificate `CN=server.test` of server.test:443 expires on "), "{text}");
    assert!(text.ends_with(", in 6 days; less than 7 days are left"), "{text}");
    assert!(proxy.audit().is_empty(), "nothing was refused");
    let copy = proxy.log().into_iter().find(|event| event["event.action"] == "expiry");
    assert_eq!(copy.as_ref(), Some(event), "the log has it, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_next_day_comes_the_next_warning() {
    let lab = Lab::new();
    let server = serve(&lab.identity("server.test", Duration::days(10))).await;
    let midnight = lab.now.date().next_day().unwrap().midnight().assume_utc();
    let variables = ahead((midnight - lab.now).whole_seconds() - 4);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let proxy = lab.proxy(server, &variables);
    assert_eq!(exchange(proxy.addr(0), GET).await.status(), 200);
    let days: Vec<_> = events(&proxy, "expiry", 2)
        .await
        .iter()
        .map(|event| event["@timestamp"].as_str().unwrap().split('T').next().unwrap().to_owned())
        .collect();
    assert_eq!(days, [lab.now.date().to_string(), midnight.date().to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_of_a_refused_server_counts_and_so_does_an_intermediate() {
    let lab = Lab::new();
    let spec =
        CaSpec { validity: Validity::days(lab.now, -10, 3), ..CaSpec::intermediate("Lab Intermediate", lab.now) };
    let intermediate = lab.root.subordinate(&spec).unwrap();
    let identity = intermediate.issue(&LeafSpec::new("other.test", lab.now).dns("other.test")).unwrap();
    let proxy = lab.proxy(serve(&identity).await, &[]);
    assert_eq!(exchange(proxy.addr(0), GET).await.status(), 403);
    let events = events(&proxy, "expiry", 1).await;
    let text = message(&events[0]);
    let what = "the intermediate certificate `CN=Lab Intermediate` of server.test:443 expires on ";
    assert!(text.starts_with(what) && text.ends_with("; less than 3 days are left"), "{text}");
    assert_eq!(proxy.audit()[0]["error.code"], "name_mismatch");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_itself_is_told_once() {
    let lab = Lab::new();
    let server = serve(&lab.identity("server.test", Duration::seconds(8))).await;
    let proxy = lab.proxy(server, &[]);
    assert_eq!(exchange(proxy.addr(0), GET).await.status(), 200);
    let events = events(&proxy, "expiry", 2).await;
    let codes: Vec<_> = events.iter().map(|event| event["error.code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["expires_soon", "has_expired"]);
    assert!(message(&events[1]).contains("` of server.test:443 expired on "), "{events:#?}");
    assert_eq!(exchange(proxy.addr(0), GET).await.status(), 403);
    assert_eq!(proxy.audit()[0]["error.code"], "expired");
}

/// A revocation list of the root that was issued six days ago for eight.
fn list(lab: &Lab) -> String {
    let key = rcgen::KeyPair::from_pem(&lab.root.key_pem()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&lab.root.certificate_pem(), key).unwrap();
    let params = rcgen::CertificateRevocationListParams {
        this_update: lab.now - Duration::days(6),
        next_update: lab.now + Duration::days(2),
        crl_number: 1.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().pem().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_settings_name_is_told_of_at_start_and_after_a_reload() {
    let lab = Lab::new();
    let spec = CaSpec { validity: Validity::days(lab.now, -10, 20), ..CaSpec::root("Old Root", lab.now) };
    let old = Authority::self_signed(&spec).unwrap().certificate_pem();
    let bundle = lab.file("ca.pem", &(lab.root.certificate_pem() + &old));
    let client = LeafSpec {
        purpose: Purpose::Client,
        validity: Validity::days(lab.now, -10, 12),
        ..LeafSpec::new("client", lab.now)
    };
    let client = lab.root.issue(&client.dns("client.test")).unwrap();
    let client = lab.file("client.pem", &(client.chain_pem() + &client.key_pem()));
    let crl = lab.file("lab.crl", &list(&lab));
    let day = (lab.now + Duration::days(4)).date();
    let config = lab.file(
        "vouchsafe.toml",
        &format!(
            "ca_bundle = \"{}\"\nclient_cert = \"{}\"\ncrl = \"{}\"\nroute = \"127.0.0.1:0=https://server.test\"\n\
             [[upstream]]\nof = \"server.test\"\nreport_only_until = {day}\n",
            bundle.display(),
            client.display(),
            crl.display()
        ),
    );
    let proxy = Proxy::start(&["--config", config.to_str().unwrap()]);
    let events = events(&proxy, "expiry", 4).await;
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            (event["vouchsafe.expiry.kind"].as_str().unwrap(), message(event).split(" expires on ").next().unwrap())
        })
        .collect();
    let expected = [
        ("revocation_list", format!("the revocation list `{}` (of `CN=Lab Root`)", crl.display())),
        ("report_only", "report-only for server.test".to_owned()),
        ("client_certificate", format!("the client certificate `{}` (`CN=client`)", client.display())),
        ("ca_bundle", format!("the CA `CN=Old Root` of {}: ca_bundle `{}`", config.display(), bundle.display())),
    ];
    assert_eq!(told, expected.each_ref().map(|(kind, what)| (*kind, what.as_str())), "the first to expire comes first");
    assert_eq!(events[3]["vouchsafe.target"], format!("{}: ca_bundle `{}`", config.display(), bundle.display()));

    // A successor that expires soon, too, is told of at once.
    let spec = CaSpec { validity: Validity::days(lab.now, -10, 10), ..CaSpec::root("Next Root", lab.now) };
    let next = Authority::self_signed(&spec).unwrap().certificate_pem();
    lab.file("ca.pem", &(lab.root.certificate_pem() + &next));
    let events = self::events(&proxy, "expiry", 5).await;
    assert!(message(&events[4]).starts_with("the CA `CN=Next Root` of "), "{events:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn both_certificates_of_the_local_ca_are_told_of() {
    let lab = Lab::new();
    // Such a CA is valid for 730 days.
    let made = ahead(-Duration::hours(718 * 24 - 12).whole_seconds());
    let ca = lab.directory.path().join("local-ca");
    let mut init = Command::new(env!("CARGO_BIN_EXE_vouchsafe"));
    init.args(["ca", "init", ca.to_str().unwrap(), "--permit=server.test"]).envs(made);
    let said = init.output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let (bundle, ca) = (lab.bundle(), ca.display());
    let flags = [
        &format!("--local-ca={ca}"),
        &format!("--ca-bundle={}", bundle.display()),
        "--forward=127.0.0.1:0",
        "--allow=server.test",
        "--admin=127.0.0.1:0",
    ];
    let said = vouchsafe(&[&["config", "check"], &flags[..]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("--local-ca: the CA expires on "), "{said:?}");

    let proxy = Proxy::start(&flags);
    let told = events(&proxy, "expiry", 2).await;
    assert_eq!(told.len(), 2, "{told:#?}");
    for (event, (file, name)) in told.iter().zip([("ca.pem", "vouchsafe on "), ("issuer.pem", "vouchsafe issuer`")]) {
        assert_eq!(
            (&event["vouchsafe.expiry.kind"], &event["vouchsafe.target"], &event["vouchsafe.expiry.days_left"]),
            (&"local_ca".into(), &format!("{ca}/{file}").into(), &12.into())
        );
        let text = message(event);
        let what = format!("the certificate `{ca}/{file}` (`O=vouchsafe local CA, CN={name}");
        assert!(text.starts_with(&what) && text.contains(" of the local CA expires on "), "{text}");
        assert!(text.ends_with(", in 12 days; less than 14 days are left"), "{text}");
        let copy = proxy.log().into_iter().find(|line| line["event.id"] == event["event.id"]);
        assert_eq!(copy.as_ref(), Some(event), "the log has it, too");
    }

    let get = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        let answer = exchange(proxy.admin(), request.as_bytes()).await.text();
        answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
    };
    let (metrics, status, page) = (get("/metrics").await, get("/status").await, get("/").await);
    for file in ["ca.pem", "issuer.pem"] {
        let series = format!("vouchsafe_minting_ca_not_after_timestamp_seconds{{file=\"{ca}/{file}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series)).expect("a series");
        let left = line.parse::<i64>().unwrap() - lab.now.unix_timestamp();
        assert!((0..600).contains(&(left - Duration::hours(12 * 24 + 12).whole_seconds())), "{left}");
        assert!(page.contains(&format!("{ca}/{file}")), "{page}");
    }
    let status: Value = serde_json::from_str(&status).unwrap();
    let kinds: Vec<_> = status["coming"].as_array().unwrap().iter().map(|coming| &coming["kind"]).collect();
    assert_eq!(kinds, ["local_ca", "local_ca", "ca_bundle"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_start_are_told_together() {
    let lab = Lab::new();
    let day = (lab.now + Duration::days(4)).date();
    let mut text =
        format!("ca_bundle = \"{}\"\nforward = \"127.0.0.1:0\"\nallow = \"*.test\"\n", lab.bundle().display());
    for number in 10..30 {
        write!(text, "[[upstream]]\nof = \"s{number}.test\"\nreport_only_until = {day}\n").unwrap();
    }
    let config = lab.file("vouchsafe.toml", &text);
    let proxy = Proxy::start(&["--config", config.to_str().unwrap()]);
    let events = events(&proxy, "expiry", 8).await;
    assert_eq!(events.len(), 8);
    let counts: Vec<_> = events.iter().map(|event| event["vouchsafe.count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 1, 1, 1, 1, 1, 1, 13]);
    assert!(message(&events[7]).ends_with("; 12 more expire later within 30 days"), "{:#?}", events[7]);
}

/// Points `server.test` to an address, and waits until that is in effect.
fn point(lab: &Lab, bundle: &Path, server: SocketAddr, proxy: Option<&Proxy>) -> PathBuf {
    let reloads = |proxy: &Proxy| proxy.log().iter().filter(|event| event["message"] == "reloaded").count();
    let before = proxy.map(reloads);
    let config = lab.file(
        "vouchsafe.toml",
        &format!(
            "ca_bundle = \"{}\"\nroute = \"127.0.0.1:0=https://server.test\"\nconnect_to = \"server.test={server}\"\n",
            bundle.display()
        ),
    );
    if let (Some(proxy), Some(before)) = (proxy, before) {
        proxy.signal("HUP");
        let next = before as u64 + 2;
        proxy.wait_for_log("a reload", |event| {
            event["message"] == "reloaded" && event["generation"].as_u64() >= Some(next)
        });
    }
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_issuer_or_key_is_recorded_and_a_renewal_with_both_is_not() {
    let lab = Lab::new();
    let other = Authority::root("Other Root", lab.now).unwrap();
    let bundle = lab.file("ca.pem", &(lab.root.certificate_pem() + &other.certificate_pem()));
    let year = Duration::days(365);
    let (first, second) = (lab.identity("server.test", year), lab.identity("server.test", year));
    let third = other.issue(&LeafSpec::new("server.test", lab.now).dns("server.test")).unwrap();
    let unknown = Authority::root("Unknown Root", lab.now).unwrap();
    let fourth = unknown.issue(&LeafSpec::new("server.test", lab.now).dns("server.test")).unwrap();

    let config = point(&lab, &bundle, serve(&first).await, None);
    let proxy = Proxy::start(&["--config", config.to_str().unwrap()]);
    assert_eq!(exchange(proxy.addr(0), GET).await.status(), 200);
    // The same certificate at another place is no change.
    for (identity, status) in [(&first, 200), (&second, 200), (&third, 200), (&fourth, 403)] {
        point(&lab, &bundle, serve(identity).await, Some(&proxy));
        assert_eq!(exchange(proxy.addr(0), GET).await.status(), status);
    }
    let events = events(&proxy, "upstream-certificate-changed", 3).await;
    let codes: Vec<_> = events.iter().map(|event| event["error.code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["key_changed", "issuer_changed", "issuer_changed"]);
    let issuers = |event: &Value| {
        let issuer = |which: &str| event[which]["issuer"].as_str().unwrap().to_owned();
        (issuer("vouchsafe.certificate.before"), issuer("vouchsafe.certificate.now"))
    };
    assert_eq!(issuers(&events[1]), ("CN=Lab Root".into(), "CN=Other Root".into()));
    assert_eq!(issuers(&events[2]), ("CN=Other Root".into(), "CN=Unknown Root".into()));
    assert!(message(&events[0]).ends_with("; the server is verified"), "{events:#?}");
    assert!(message(&events[2]).ends_with("; the server is refused"), "{events:#?}");

    let summary = vouchsafe(&["audit", "--strict", proxy.audit_path().to_str().unwrap()]);
    assert_eq!(summary.code, Some(0), "{summary:?}");
    for part in ["changed  issuer_changed", "changed  key_changed", "nothing was sent to a server that failed"] {
        assert!(summary.out.contains(part), "no `{part}` in {}", summary.out);
    }
    assert!(!summary.out.contains("may have been sent"), "{}", summary.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_fails_in_its_own_way_if_trust_ends_soon() {
    let lab = Lab::new();
    let server = serve(&lab.identity("server.test", Duration::days(10))).await;
    let bundle = lab.bundle().display().to_string();
    let to = format!("--connect-to=server.test={server}");
    let check = |more: &[&str], url: &str| {
        let all = ["check", "--ca-bundle", &bundle, &to];
        vouchsafe(&all.iter().chain(more).copied().chain([url]).collect::<Vec<_>>())
    };
    for (within, code) in [("9d", 0), ("11d", 3), ("2years", 3)] {
        for json in [&[][..], &["--json"]] {
            let said = check(&[&["--expires-within", within], json].concat(), "server.test");
            assert_eq!(said.code, Some(code), "{said:?}");
            let told = said.err.contains("error: --expires-within: server.test:443: `CN=server.test` expires on ");
            assert_eq!(told, code == 3, "{said:?}");
        }
    }
    assert_eq!(check(&[], "server.test").code, Some(0));
    assert_eq!(check(&["--expires-within", "11d"], "127.0.0.1:1").code, Some(1), "what is wrong now goes first");
    let said = check(&["--expires-within", "soon"], "server.test");
    assert!(said.code == Some(2) && said.err.contains("hint: write it as in `14d`"), "{said:?}");
}

#[test]
fn bundle_fails_in_its_own_way_if_a_certificate_expires_soon() {
    let lab = Lab::new();
    let spec = CaSpec { validity: Validity::days(lab.now, -10, 100), ..CaSpec::root("Old Root", lab.now) };
    let old = Authority::self_signed(&spec).unwrap().certificate_pem();
    let path = lab.file("ca.pem", &(lab.root.certificate_pem() + &old));
    let bundle = |within: &str| vouchsafe(&["bundle", "--expires-within", within, path.to_str().unwrap()]);
    assert_eq!(bundle("99d").code, Some(0));
    let said = bundle("101d");
    assert!(said.code == Some(3) && said.err.contains("`CN=Old Root` expires in 99 days"), "{said:?}");
    let at = (lab.now + Duration::days(200)).date().to_string();
    let said = vouchsafe(&["bundle", "--expires-within", "99d", "--at", &at, path.to_str().unwrap()]);
    assert_eq!(said.code, Some(1), "an error goes first: {said:?}");
}
