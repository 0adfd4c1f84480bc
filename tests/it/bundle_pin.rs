//! `vouchsafe bundle` and `vouchsafe pin`: files looked over, and fingerprints that fit.

use std::{
    io::Write,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
};

use certs_dev::{
    Authority, Bundle, Case, KeyKind, LeafSpec,
    pki::{CaFlag, CaSpec, Purpose, Validity, certificates_pem, self_signed},
};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{
    command::{Said, vouchsafe},
    gallery::{self, Front, GALLERY},
};

/// The codes of all findings, with their levels, file by file: those of the file, then those of its certificates.
fn findings(said: &Said) -> Vec<String> {
    let all = said.json();
    let mut found = Vec::new();
    for file in all["files"].as_array().unwrap() {
        let of_file = file["findings"].as_array().unwrap();
        let of_certificates = file["certificates"].as_array().unwrap().iter();
        let of_certificates = of_certificates.flat_map(|certificate| certificate["findings"].as_array().unwrap());
        for finding in of_file.iter().chain(of_certificates) {
            assert!(finding["message"].as_str().unwrap().len() > 10, "{finding}");
            assert!(finding["fix"].as_str().unwrap().len() > 10, "{finding}");
            found.push(format!("{} {}", finding["level"].as_str().unwrap(), finding["code"].as_str().unwrap()));
        }
    }
    found
}

fn lint(text: &str) -> (Said, String) {
    let directory = crate::support::dir();
    let path = directory.path().join("bundle.pem");
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let text = vouchsafe(&["bundle", &path]);
    let json = vouchsafe(&["bundle", "--json", &path]);
    assert_eq!(text.code, json.code);
    (json, text.out)
}

fn root(name: &str, change: impl FnOnce(&mut CaSpec)) -> String {
    let mut spec = CaSpec::root(name, OffsetDateTime::now_utc());
    change(&mut spec);
    Authority::self_signed(&spec).unwrap().certificate_pem()
}

fn block(label: &str) -> String {
    format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
}

#[test]
fn each_kind_of_finding_is_made_where_it_belongs() {
    let now = OffsetDateTime::now_utc();
    let good = root("Good", |_| {});
    let dated = |from, to| root("Dated", |spec| spec.validity = Validity::days(now, from, to));
    let weak = LeafSpec { key: KeyKind::WeakRsa1024, ..LeafSpec::new("weak", now) };
    let weak = Authority::root("Weak's", now).unwrap().issue(&weak.dns("weak.test")).unwrap();
    let leaf = LeafSpec::new("leaf", now).dns("leaf.test");
    let req = LeafSpec { ca: CaFlag::Ca, purpose: Purpose::Unstated, ..leaf.clone() };
    let client = LeafSpec { purpose: Purpose::Client, ..leaf.clone() };
    let own = |spec: &LeafSpec| self_signed(spec).unwrap().chain_pem();
    let malformed = certificates_pem(GALLERY.identity(Case::Malformed).unwrap().end_entity());
    let version_1 = certificates_pem(GALLERY.identity(Case::Version1).unwrap().end_entity());
    let cut = &good[..good.len() / 2];
    for (what, text, expected, code) in [
        ("nothing wrong", good.clone(), &[][..], 0),
        ("expired", dated(-20, -10), &["error expired"], 1),
        ("from tomorrow", dated(1, 300), &["error not_yet_valid"], 1),
        ("two months left", dated(-1, 60), &["warning expires_soon"], 0),
        ("twice", good.clone() + &good, &["warning duplicate"], 0),
        ("re-created", good.clone() + &root("Good", |_| {}), &["warning same_name_other_key"], 0),
        ("a server's", own(&leaf), &["warning server_certificate"], 0),
        ("a server's that is a CA", own(&req), &["warning server_is_ca"], 0),
        ("a client's", own(&client), &["warning server_certificate", "error wrong_purpose"], 1),
        ("a weak key", certificates_pem(weak.end_entity()), &["error weak_key", "warning server_certificate"], 1),
        (
            "no keyCertSign",
            root("Unfit", |spec| {
                spec.may_sign = false;
                spec.path_length = None
            }),
            &["error root_unfit"],
            1,
        ),
        ("version 1", version_1, &["warning cert_version"], 0),
        ("cut inside", good.clone() + &malformed, &["error malformed_certificate"], 1),
        ("a key", good.clone() + &block("PRIVATE KEY"), &["error private_key"], 1),
        ("an encrypted key", good.clone() + &block("ENCRYPTED PRIVATE KEY"), &["error private_key"], 1),
        ("a list", good.clone() + &block("X509 CRL"), &["warning other_block"], 0),
        ("OpenSSL's own form", good.clone() + &block("TRUSTED CERTIFICATE"), &["warning other_block"], 0),
        ("cut short", good.clone() + cut, &["error not_pem"], 1),
        ("no Base64", good.clone() + &good.replace('M', "*"), &["error not_pem"], 1),
        ("text", "to do: ask for the CA\n".into(), &["error not_pem", "error no_certificate"], 1),
        ("empty", String::new(), &["error no_certificate"], 1),
    ] {
        let (json, text) = lint(&text);
        assert_eq!(findings(&json), expected, "{what}: {text}");
        assert_eq!(json.code, Some(code), "{what}: {text}");
        for finding in expected {
            assert!(text.contains(finding), "{what}: {text}");
        }
        assert_eq!(text.matches("fix: ").count(), expected.len(), "{what}: {text}");
    }
}

#[test]
fn a_renewed_root_makes_the_one_before_it_harmless() {
    let now = OffsetDateTime::now_utc();
    let dated = |from, to| CaSpec { validity: Validity::days(now, from, to), ..CaSpec::root("Renewed", now) };
    let old = Authority::self_signed(&dated(-400, -10)).unwrap();
    let new = old.renewed(&dated(-20, 400)).unwrap();
    let (json, text) = lint(&format!("{}{}", old.certificate_pem(), new.certificate_pem()));
    assert_eq!((findings(&json), json.code), (vec!["warning expired".into()], Some(0)), "{text}");
}

#[test]
fn a_directory_is_looked_over_at_any_moment() {
    let directory = crate::support::dir();
    std::fs::write(directory.path().join("a.pem"), GALLERY.bundle_pem(Bundle::Root)).unwrap();
    std::fs::write(directory.path().join("b.crt"), root("Other", |_| {})).unwrap();
    std::fs::write(directory.path().join("README"), "not looked at").unwrap();
    let path = directory.path().display().to_string();
    let said = vouchsafe(&["bundle", "--json", &path]);
    let all = said.json();
    assert_eq!((said.code, &all["certificates"], &all["good"]), (Some(0), &2.into(), &true.into()), "{all}");
    assert_eq!(all["files"][0]["certificates"][0]["kind"], "root");
    let later = (OffsetDateTime::now_utc() + time::Duration::days(5000)).format(&Rfc3339).unwrap();
    let said = vouchsafe(&["bundle", "--json", "--at", &later, &path]);
    assert_eq!((said.code, findings(&said)), (Some(1), vec!["error expired".to_owned(); 2]));
    for args in [&["bundle"][..], &["bundle", "/nonexistent"], &["bundle", "--at", "soon", &path]] {
        let said = vouchsafe(args);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{args:?}: {said:?}");
    }
}

fn openssl(args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("openssl")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let end = child.wait_with_output().unwrap();
    assert!(end.status.success(), "{end:?}");
    end.stdout
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn pins_are_what_openssl_makes_of_the_same_certificate() {
    let directory = crate::support::dir();
    for case in [Case::Good, Case::GoodRsa2048, Case::GoodEcdsaP384] {
        let identity = GALLERY.identity(case).unwrap();
        let file = write(directory.path(), "chain.pem", &identity.chain_pem());
        let own = certificates_pem(identity.end_entity());
        let key = openssl(&["x509", "-noout", "-pubkey"], own.as_bytes());
        let key = openssl(&["pkey", "-pubin", "-outform", "der"], &key);
        let hash = openssl(&["dgst", "-sha256", "-binary"], &key);
        let hex = String::from_utf8(openssl(&["dgst", "-sha256", "-r"], &key)).unwrap();
        let base64 = String::from_utf8(openssl(&["base64"], &hash)).unwrap();
        let of_der = openssl(&["x509", "-outform", "der"], own.as_bytes());
        let of_der = String::from_utf8(openssl(&["dgst", "-sha256", "-r"], &of_der)).unwrap();
        let said = vouchsafe(&["pin", "--json", &file]);
        let one = &said.json()[0]["certificates"][0];
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(one["pin"], format!("sha256:{}", &hex[..64]));
        assert_eq!(one["pin_base64"], format!("sha256//{}", base64.trim()));
        assert_eq!(one["identity"], format!("sha256:{}", &of_der[..64]));
        let text = vouchsafe(&["pin", &file]).out;
        for key in ["pin", "pin_base64", "identity"] {
            assert!(text.contains(one[key].as_str().unwrap()), "{key}: {text}");
        }
    }
}

#[test]
fn a_pin_that_was_printed_accepts_and_another_refuses() {
    let directory = crate::support::dir();
    let chain = write(directory.path(), "chain.pem", &GALLERY.identity(Case::Good).unwrap().chain_pem());
    let bundle = gallery::bundle(Bundle::Root);
    let printed = vouchsafe(&["pin", "--json", &chain]).json();
    let verify = |flag: &str, value: &str| {
        vouchsafe(&["verify", "--ca-bundle", &bundle, "--name", "good.gallery.test", flag, value, &chain])
    };
    for certificate in printed[0]["certificates"].as_array().unwrap() {
        for key in ["pin", "pin_base64"] {
            let said = verify("--pin", certificate[key].as_str().unwrap());
            assert_eq!(said.code, Some(0), "{said:?}");
        }
    }
    let own = &printed[0]["certificates"][0];
    assert_eq!(verify("--identity", own["identity"].as_str().unwrap()).code, Some(0));
    let pin = own["pin"].as_str().unwrap();
    let (kept, last) = pin.split_at(pin.len() - 1);
    let changed = format!("{kept}{}", if last == "0" { "1" } else { "0" });
    let said = verify("--pin", &changed);
    assert!(said.code == Some(1) && said.out.starts_with("pin_mismatch: "), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pin_prints_of_a_server_is_a_configuration_that_takes_it() {
    let front = Front::start(Case::Good).await;
    let bundle = gallery::bundle(Bundle::Root);
    let connect_to = format!("{}={}", front.authority(), front.address);
    let flags = ["--ca-bundle", &bundle, "--connect-to", &connect_to];
    let asked = format!("https://{}", front.authority());
    let said = vouchsafe(&[&["pin"], &flags[..], &[&asked]].concat());
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(front.counters.application_bytes(), 0);
    let directory = crate::support::dir();
    let check = |text: &str| {
        let file = write(directory.path(), "vouchsafe.toml", text);
        vouchsafe(&[&["check", "--json", "--config", &file], &flags[..]].concat())
    };
    let kept = check(&said.out);
    let one = &kept.json()[0];
    assert_eq!((kept.code, &one["upstream"]), (Some(0), &front.authority().into()), "{kept:?}");
    let pins = one["checks"].as_array().unwrap().iter().find(|check| check["check"] == "pins").unwrap();
    assert_eq!(pins["message"], "a key of the path is pinned");
    // Another server's pin in its place.
    let other = GALLERY.identity(Case::GoodIp).unwrap();
    let file = write(directory.path(), "other.pem", &other.chain_pem());
    let pin = |said: &Value| said[0]["certificates"][0]["pin"].as_str().unwrap().to_owned();
    let ours = pin(&vouchsafe(&[&["pin", "--json"], &flags[..], &[&asked]].concat()).json());
    let theirs = pin(&vouchsafe(&["pin", "--json", &file]).json());
    let refused = check(&said.out.replace(&ours, &theirs));
    assert_eq!((refused.code, &refused.json()[0]["code"]), (Some(1), &"pin_mismatch".into()), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_untrusted_server_sends_is_shown_and_never_on_stdout() {
    let front = Front::start(Case::SelfSignedUnknownCa).await;
    let bundle = gallery::bundle(Bundle::Root);
    let connect_to = format!("{}={}", front.authority(), front.address);
    let said = vouchsafe(&["pin", "--ca-bundle", &bundle, "--connect-to", &connect_to, &front.authority()]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.err.contains("NOT VERIFIED: self_signed_not_in_bundle"), "{}", said.err);
    assert!(said.err.contains("identity = \"sha256:") && !said.err.contains("[[upstream]]"), "{}", said.err);
    let said = vouchsafe(&["pin", "--json", "--ca-bundle", &bundle, "--connect-to", &connect_to, &front.authority()]);
    assert_eq!((said.code, &said.json()[0]["source"]), (Some(1), &"refused".into()), "{said:?}");
}

#[test]
fn pin_needs_something_to_read_and_servers_need_a_bundle() {
    let directory = crate::support::dir();
    let empty = write(directory.path(), "empty.pem", "");
    let host = Ipv4Addr::LOCALHOST.to_string();
    for (args, says) in [
        (&["pin", &empty][..], "no certificate in it"),
        (&["pin", "nosuch.pem"], "No such file"),
        (&["pin", &host], "no CA bundle is configured"),
    ] {
        let said = vouchsafe(args);
        assert!(said.code == Some(2) && said.err.contains(says), "{said:?}");
    }
}

#[test]
fn a_rule_about_revocation_lists_needs_lists() {
    let directory = crate::support::dir();
    let chain = write(directory.path(), "chain.pem", &GALLERY.identity(Case::Good).unwrap().chain_pem());
    let bundle = gallery::bundle(Bundle::Root);
    for (rules, sentence) in [
        ("unknown=refuse", "--crl-policy `unknown=refuse`: no revocation list is configured\n  hint: set --crl"),
        ("expired=refuse", "--crl-policy `expired=refuse`: no revocation list is configured\n  hint: set --crl"),
        ("unknown=tolerate", "--crl-policy `unknown=tolerate`: no revocation list is configured\n  hint: set --crl"),
        ("unknown=refuse,unknown=tolerate", "--crl-policy `unknown=tolerate`: `unknown` is set twice"),
    ] {
        let flags = ["verify", "--ca-bundle", &bundle, "--name", "good.gallery.test", "--crl-policy", rules, &chain];
        let said = vouchsafe(&flags);
        assert_eq!(said.code, Some(2), "{rules}: {said:?}");
        assert!(said.err.contains(sentence), "{rules}: {said:?}");
    }
}

#[test]
fn files_as_some_editors_and_systems_write_them_are_read_or_named() {
    let directory = crate::support::dir();
    let identity = GALLERY.identity(Case::Good).unwrap();
    let chain = write(directory.path(), "chain.pem", &identity.chain_pem());
    let root = std::fs::read_to_string(gallery::bundle(Bundle::Root)).unwrap();
    let verify =
        |bundle: &str, chain: &str| vouchsafe(&["verify", "--ca-bundle", bundle, "--name", "good.gallery.test", chain]);
    // A byte order mark, at the start and where files were put together.
    for text in [format!("\u{feff}{root}"), format!("{}\u{feff}{root}", self::root("Other", |_| {}))] {
        let bundle = write(directory.path(), "marked.pem", &text);
        let said = verify(&bundle, &chain);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(vouchsafe(&["bundle", &bundle]).code, Some(0));
    }
    let der = directory.path().join("chain.der");
    std::fs::write(&der, identity.end_entity().unwrap()).unwrap();
    let der = der.display().to_string();
    let hint = format!("is DER, not PEM\n  hint: convert it: `openssl x509 -inform DER -in {der} -out {der}.pem`");
    for said in [verify(&der, &chain), verify(&gallery::bundle(Bundle::Root), &der), vouchsafe(&["pin", &der])] {
        assert!(said.code == Some(2) && said.err.contains(&hint), "{said:?}");
    }
}
