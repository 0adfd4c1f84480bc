//! Files of certificates, keys and revocation lists, in every form that people have them in: they are read, or refused
//! with the line, the cause and a hint that works. The hints are run as they are printed, with the real `openssl`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use certs_dev::{Bundle, Case, pki::Authority};
use data_encoding::BASE64;

use crate::{
    life,
    support::{
        self,
        command::{Said, vouchsafe, vouchsafe_as_user},
        gallery::{self, GALLERY},
        openssl::{Lab, Made, text},
        origin::{Origin, exchange, send},
        proxy::Proxy,
    },
};

const NAME: &str = "a.lab.test";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Runs a command line in the lab's directory.
fn shell(lab: &Lab, line: &str) {
    let output = Command::new("sh").args(["-ec", line]).current_dir(lab.path("")).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The command of a hint.
fn command(said: &str) -> String {
    let hint = said.split_once("hint: ").unwrap_or_else(|| panic!("no hint: {said}")).1;
    let (_, from) = hint.split_once('`').unwrap_or_else(|| panic!("no command: {said}"));
    // A command may have back quotes in no place but its end.
    from.lines().next().unwrap().rsplit_once('`').unwrap().0.to_owned()
}

fn verify(bundle: &Path, chain: &Path, more: &[&str]) -> Said {
    let (bundle, chain) = (text(bundle), text(chain));
    vouchsafe(&[&["verify", "--ca-bundle", &bundle, "--name", NAME], more, &[&chain]].concat())
}

/// A chain of two, and a second root.
struct World {
    lab: Lab,
    root: Made,
    issuing: Made,
    server: Made,
    chain: std::path::PathBuf,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new();
        let root = lab.root("Lab Root");
        let issuing = lab.authority("Lab Issuing").by(&root);
        let server = lab.server("a", &format!("DNS:{NAME}")).by(&issuing);
        let chain = lab.bundle(&[&server, &issuing]);
        Self { lab, root, issuing, server, chain }
    }
}

#[test]
fn certificates_and_lists_glued_without_a_line_break_all_count() {
    let World { lab, root, issuing, server, chain } = World::new();
    let other = lab.root("Other");
    let glued = |name: &str, files: &[&Path]| {
        let texts: Vec<_> = files.iter().map(|file| read(file).trim_end().to_owned()).collect();
        lab.write(name, texts.concat())
    };
    let bundle = glued("bundle.pem", &[&other.cert, &root.cert, &other.cert]);
    assert_eq!(verify(&bundle, &chain, &[]).code, Some(0));
    assert_eq!(vouchsafe(&["bundle", "--json", &text(&bundle)]).json()["certificates"], 3);
    // The chain itself.
    let chain = glued("chain.pem", &[&server.cert, &issuing.cert]);
    assert_eq!(verify(&root.cert, &chain, &[]).code, Some(0));
    assert_eq!(vouchsafe(&["pin", &text(&chain)]).out.matches("identity = ").count(), 2);

    lab.revoke(&server, "keyCompromise");
    let lists = [lab.list(&root, (-1, 30), ""), lab.list(&issuing, (-1, 30), "")];
    let (of_root, of_issuing) = (&*lists[0], &*lists[1]);
    for lists in [[of_root, of_issuing], [of_issuing, of_root]] {
        let said = verify(&root.cert, &chain, &["--crl", &text(&glued("lists.pem", &lists))]);
        assert!(said.code == Some(1) && said.out.starts_with("revoked: "), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_the_second_of_two_glued_lists_gets_no_request() {
    let origin = Origin::with_identity(&GALLERY.identity(Case::Revoked).unwrap(), |_, _| vec![send(OK)]).await;
    let now = time::OffsetDateTime::now_utc();
    let nobody = Authority::root("Nobody", now).unwrap().crl_pem(&[], now).unwrap();
    let directory = support::dir();
    let list = directory.path().join("glued.pem");
    let name = format!("{}:{}", Case::Revoked.name(), origin.address.port());
    for (lists, status) in [(nobody.clone(), 200), (format!("{}{}", nobody.trim_end(), GALLERY.crl_pem()), 403)] {
        fs::write(&list, lists).unwrap();
        let proxy = Proxy::start(&[
            "--ca-bundle".to_owned(),
            gallery::bundle(Bundle::Root),
            "--crl".into(),
            text(&list),
            format!("--route=127.0.0.1:0=https://{name}"),
            format!("--connect-to={name}={}", origin.address),
        ]);
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(exchange(proxy.addr(0), request).await.status(), status);
    }
    assert_eq!(origin.requests().len(), 1, "the refused server saw a request");
}

#[test]
fn a_block_that_is_not_understood_makes_every_file_refused_with_its_line() {
    let World { lab, root, server, chain, .. } = World::new();
    let (root_pem, key) = (read(&root.cert), read(&server.key));
    let list = read(&lab.list(&root, (-1, 30), ""));
    let odd = |text: &str| lab.write("odd.pem", format!("{text}{}", text.replacen("-----BEGIN", "----BEGIN", 1)));
    let secret = key.lines().nth(1).unwrap();
    let line = |text: &str| format!("line {}: it looks like a BEGIN or END line", text.lines().count() + 1);
    let cert = text(&server.cert);
    let run = |more: &[&str]| life::refused(&[&["run", "--route=127.0.0.1:0=https://a", "--ca-bundle"], more].concat());
    let anchors = text(&root.cert);

    let file = text(&odd(&root_pem));
    let said = [
        run(&[&file]),
        run(&[&anchors, "--client-cert", &file, "--client-key", &text(&server.key)]),
        verify(Path::new(&file), &chain, &[]).err,
        verify(&root.cert, Path::new(&file), &[]).err,
        verify(&root.cert, &chain, &["--identity", &file]).err,
        vouchsafe(&["pin", &file]).err,
        vouchsafe(&["bundle", &file]).out,
    ];
    assert!(said.iter().all(|said| said.contains(&line(&root_pem))), "{said:#?}");
    let file = text(&odd(&list));
    let said = run(&[&anchors, "--crl", &file]);
    assert!(said.contains(&line(&list)), "{said}");
    let file = text(&odd(&key));
    let said = run(&[&anchors, "--client-cert", &cert, "--client-key", &file]);
    assert!(said.contains(&line(&key)) && !said.contains(secret), "{said}");
}

#[test]
fn other_forms_of_a_bundle_get_a_hint_that_converts_them() {
    let World { lab, root, chain, .. } = World::new();
    let other = lab.root("Other");
    let two = text(&lab.bundle(&[&other, &root]));
    let pem = read(Path::new(&two));
    let openssl = |arguments: &[&str]| lab.openssl(arguments);
    let pkcs7 = String::from_utf8(openssl(&["crl2pkcs7", "-nocrl", "-certfile", &two])).unwrap();
    let trusted = |made: &Made| openssl(&["x509", "-in", &text(&made.cert), "-trustout", "-addtrust", "serverAuth"]);
    let utf_16 = |bytes: fn(u16) -> [u8; 2], text: &str| text.encode_utf16().flat_map(bytes).collect::<Vec<_>>();
    let pkcs7_der = openssl(&["crl2pkcs7", "-nocrl", "-certfile", &two, "-outform", "DER"]);
    let pkcs12 = openssl(&["pkcs12", "-export", "-nokeys", "-in", &two, "-passout", "pass:"]);
    // As `base64` writes it.
    let in_lines = |text: String| text.as_bytes().chunks(76).flat_map(|line| [line, b"\n"].concat()).collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("DER", openssl(&["x509", "-in", &text(&root.cert), "-outform", "DER"]), "it is DER, not PEM"),
        ("PKCS #7", pkcs7.clone().into(), "no certificate in it (found 1 PEM block: PKCS7)"),
        ("PKCS #7, signed", pkcs7.replace("PKCS7", "PKCS #7 SIGNED DATA").into(), "no certificate in it"),
        ("PKCS #7, another label", pkcs7.replace("PKCS7", "CERTIFICATE").into(), "no certificate in it"),
        ("CMS", pkcs7.replace("PKCS7", "CMS").into(), "no certificate in it (found 1 PEM block: CMS)"),
        ("PKCS #7, DER", pkcs7_der.clone(), "it is PKCS #7 in DER"),
        ("PKCS #12", pkcs12.clone(), "it is PKCS #12, not PEM"),
        ("OpenSSL's own form", [trusted(&other), trusted(&root)].concat(), "no certificate in it"),
        ("an old label", pem.replace(" CERTIFICATE", " X509 CERTIFICATE").into(), "no certificate in it"),
        ("UTF-16LE", utf_16(u16::to_le_bytes, &pem), "it is UTF-16"),
        ("UTF-16LE with a mark", utf_16(u16::to_le_bytes, &format!("\u{feff}{pem}")), "it is UTF-16"),
        ("UTF-16BE", utf_16(u16::to_be_bytes, &pem), "it is UTF-16"),
        ("UTF-16BE with a mark", utf_16(u16::to_be_bytes, &format!("\u{feff}{pem}")), "it is UTF-16"),
        (
            "indented",
            pem.replace('\n', "\n  ").replacen("-----", "  -----", 1).trim_end().into(),
            "line 1: the `-----BEGIN` or",
        ),
        ("escaped", pem.replace('\n', "\\n").into(), "line 1: the line breaks are written as `\\n`"),
        ("a JSON string", format!("\"{}\"\n", pem.replace('\n', "\\r\\n")).into(), "line 1: the line breaks are"),
        ("base64", BASE64.encode(pem.as_bytes()).into(), "the PEM text is encoded in base64 once more"),
        ("base64 in lines", in_lines(BASE64.encode(pem.as_bytes())), "the PEM text is encoded in base64 once more"),
        ("base64 of a large file", BASE64.encode(pem.repeat(20).as_bytes()).into(), "encoded in base64 once more"),
        ("base64 of DER", in_lines(BASE64.encode(&root.der())), "it is base64 without `-----BEGIN`"),
        ("base64 of PKCS #12", in_lines(BASE64.encode(&pkcs12)), "it is base64 without `-----BEGIN`"),
        ("base64 of PKCS #7", in_lines(BASE64.encode(&pkcs7_der)), "it is base64 without `-----BEGIN`"),
        ("base64 of text and PEM", BASE64.encode(format!("x\n{pem}").as_bytes()).into(), "encoded in base64"),
    ];
    for (number, (what, bytes, cause)) in cases.into_iter().enumerate() {
        let file = lab.write(&format!("my {number}.ca"), bytes);
        let said = verify(&file, &chain, &[]);
        assert!(said.code == Some(2) && said.err.contains(cause), "{what}: {said:?}");
        // It asks for a password else.
        let command = command(&said.err).replace("openssl pkcs12", "openssl pkcs12 -passin pass:");
        shell(&lab, &command);
        let converted = Path::new(&format!("{}.pem", text(&file))).to_owned();
        let said = verify(&converted, &chain, &[]);
        assert_eq!(said.code, Some(0), "{what}: {command}: {said:?}");
        // `bundle` says the same.
        let said = vouchsafe(&["bundle", "--json", &text(&file)]).json();
        let fixes: Vec<_> =
            said["files"][0]["findings"].as_array().unwrap().iter().map(|f| f["fix"].as_str().unwrap()).collect();
        let command = command.replace(" -passin pass:", "");
        assert!(fixes.iter().any(|fix| fix.contains(&command)), "{what}: {fixes:?}");
    }
}

#[test]
fn other_forms_of_a_client_certificate_get_a_hint_that_converts_them() {
    let World { lab, root, server, .. } = World::new();
    let (cert, key) = (text(&server.cert), text(&server.key));
    let both = lab.openssl(&["pkcs12", "-export", "-in", &cert, "-inkey", &key, "-passout", "pass:x"]);
    let both = text(&lab.write("own.p12", both));
    let der = lab.openssl(&["pkey", "-in", &key, "-outform", "DER"]);
    let der = text(&lab.write("own.key", der));
    // `--client-key` alone at fault is said only once the certificate is in order.
    let start = ["run", "--ca-bundle", &text(&root.cert), "--client-cert"].map(str::to_owned);
    let said = |cert: &str, key: &str| {
        let arguments: Vec<_> = start.iter().map(String::as_str).chain([cert, "--client-key", key]).collect();
        life::refused(&arguments)
    };
    for (cert, key, cause, converted) in [
        (&both, &key, "it is PKCS #12, not PEM", [format!("{both}.pem"), format!("{both}.pem")]),
        (&cert, &both, "it is PKCS #12, not PEM", [cert.clone(), format!("{both}.pem")]),
        (&cert, &der, "it is a private key in DER, not PEM", [cert.clone(), format!("{der}.pem")]),
    ] {
        let refused = said(cert, key);
        assert!(refused.contains(cause), "{refused}");
        let command = command(&refused).replace("openssl pkcs12", "openssl pkcs12 -passin pass:x");
        shell(&lab, &command);
        // There is no listener, so it does not start; nothing is said of the identity.
        let [cert, key] = &converted;
        let refused = said(cert, key);
        assert!(!refused.contains("--client-"), "{command}: {refused}");
    }
}

#[test]
fn a_list_in_another_form_is_refused_with_what_it_is() {
    let World { lab, root, server, chain, .. } = World::new();
    let list = lab.list(&root, (-1, 30), "");
    let pem = read(&list);
    let der = lab.openssl(&["crl", "-in", &text(&list), "-outform", "DER"]);
    let pkcs7 = lab.openssl(&["crl2pkcs7", "-in", &text(&list)]);
    let cert_der = lab.openssl(&["x509", "-in", &text(&root.cert), "-outform", "DER"]);
    let with = |bytes: &[u8]| {
        let file = lab.write("odd.crl", bytes);
        verify(&root.cert, &chain, &["--crl", &text(&file), "--crl-policy", "unknown=tolerate"])
    };
    assert_eq!(with(pem.as_bytes()).code, Some(0));
    assert_eq!(with(&der).code, Some(0));
    for (what, bytes, cause) in [
        ("two lists, DER", [&*der, &der].concat(), "cannot be used: there is more data after its end"),
        ("cut off, DER", der[..der.len() - 1].to_vec(), "not a revocation list: it is not well-formed DER"),
        ("PKCS #7", pkcs7, "line 1: a block `PKCS7` is not understood here\n  hint: take the certificates out:"),
        ("another label", pem.replace("X509 CRL", "CRL").into(), "line 1: a block `CRL` is not understood here"),
        (
            "a certificate, DER",
            cert_der,
            "it is DER, not PEM\n  hint: this is a certificate; CAs to trust are given with",
        ),
        ("a certificate", read(&server.cert).into(), "no X509 CRL block in it"),
        ("a certificate, relabelled", read(&server.cert).replace("CERTIFICATE", "X509 CRL").into(), "not a revocation"),
        ("UTF-16", pem.encode_utf16().flat_map(u16::to_le_bytes).collect(), "it is UTF-16"),
    ] {
        let said = with(&bytes);
        assert!(said.code != Some(0) && format!("{}{}", said.out, said.err).contains(cause), "{what}: {said:?}");
    }
}

/// DevStack's lib/tls writes this file, without `crlnumber` and `crl_extensions`.
const CA_CONF: &str = "\
[ ca ]
default_ca = CA_default
[ CA_default ]
dir = ./int-ca
policy = policy_match
database = $dir/index.txt
serial = $dir/serial
new_certs_dir = $dir/newcerts
certificate = $dir/cacert.pem
private_key = $dir/private/cacert.key
default_md = sha256
[ policy_match ]
commonName = supplied
";

/// The command of docs/failures.md that makes a list.
fn recipe() -> String {
    let text = include_str!("../../docs/failures.md");
    text.lines().find(|line| line.starts_with("openssl ca ") && line.contains("-gencrl")).unwrap().to_owned()
}

#[test]
fn the_documented_command_makes_a_list_that_revokes() {
    let World { lab, root, issuing, server, chain } = World::new();
    fs::create_dir_all(lab.path("int-ca/private")).unwrap();
    fs::copy(&issuing.cert, lab.path("int-ca/cacert.pem")).unwrap();
    fs::copy(&issuing.key, lab.path("int-ca/private/cacert.key")).unwrap();
    lab.write("int-ca/ca.conf", CA_CONF);
    lab.write("int-ca/index.txt", "");
    lab.write("int-ca/index.txt.attr", "unique_subject = no\n");
    let list = lab.path("int-ca.crl");
    let of_root = text(&lab.list(&root, (-1, 30), ""));
    let verdict = || {
        let lists = ["--crl", &text(&list), "--crl", &of_root, "--crl-policy", "unknown=refuse"].map(str::to_owned);
        let lists: Vec<_> = lists.iter().map(String::as_str).collect();
        verify(&root.cert, &chain, &lists)
    };
    shell(&lab, &recipe());
    let version = |lab: &Lab| String::from_utf8(lab.openssl(&["crl", "-in", &text(&list), "-noout", "-text"])).unwrap();
    assert!(version(&lab).contains("Version 1 (0x0)"), "{}", version(&lab));
    assert_eq!(verdict().code, Some(0), "{:?}", verdict());
    shell(&lab, &format!("openssl ca -config int-ca/ca.conf -revoke {}", text(&server.cert)));
    shell(&lab, &recipe());
    assert!(version(&lab).contains("Version 1 (0x0)"), "{}", version(&lab));
    let said = verdict();
    assert!(said.out.starts_with("revoked: the certificate `CN=a` was revoked by `CN=Lab Issuing`"), "{said:?}");
    // A list of the same name by another key revokes nobody, and is not taken for the issuer's.
    let twin = lab.authority("Lab Issuing").by(&root);
    fs::copy(&twin.cert, lab.path("int-ca/cacert.pem")).unwrap();
    fs::copy(&twin.key, lab.path("int-ca/private/cacert.key")).unwrap();
    shell(&lab, &recipe());
    assert!(verdict().out.starts_with("crl_invalid: "), "{:?}", verdict());
}

#[test]
fn a_distribution_point_without_a_name_has_the_scope_it_says() {
    let World { lab, root, issuing, server, chain } = World::new();
    let of_root = text(&lab.list(&root, (-1, 30), ""));
    let point = |scope: &str| format!("issuingDistributionPoint = critical,@p\n[p]\n{scope} = TRUE");
    let verdict = |scope: &str| {
        let list = text(&lab.list(&issuing, (-1, 30), &point(scope)));
        verify(&root.cert, &chain, &["--crl", &list, "--crl", &of_root, "--crl-policy", "unknown=refuse"])
    };
    assert_eq!(verdict("onlyuser").code, Some(0), "{:?}", verdict("onlyuser"));
    assert!(verdict("onlyCA").out.starts_with("revocation_unknown: "), "{:?}", verdict("onlyCA"));
    assert!(verdict("onlyAA").out.contains("it is for attribute certificates only"), "{:?}", verdict("onlyAA"));
    lab.revoke(&server, "superseded");
    assert!(verdict("onlyuser").out.starts_with("revoked: "));
    assert!(verdict("onlyCA").out.starts_with("revoked: "), "a serial number on any list of its issuer is revoked");
}

#[test]
fn a_revoked_intermediate_is_reported_before_an_expired_list() {
    let World { lab, root, issuing, chain, .. } = World::new();
    lab.revoke(&issuing, "CACompromise");
    let of_root = text(&lab.list(&root, (-1, 30), ""));
    let expired = text(&lab.list(&issuing, (-40, -10), ""));
    let said = verify(&root.cert, &chain, &["--crl", &expired, "--crl", &of_root]);
    assert!(said.out.starts_with("revoked: the intermediate `CN=Lab Issuing`"), "{said:?}");
}

#[test]
fn a_directory_has_each_certificate_once() {
    let World { lab, root, chain, .. } = World::new();
    // As Kubernetes mounts a ConfigMap; `..data` and what it leads to are its own.
    let mount = lab.path("mount");
    let version = mount.join("..2026_11_28_10_00_00.1");
    fs::create_dir_all(&version).unwrap();
    fs::copy(&root.cert, version.join("ca.pem")).unwrap();
    symlink("..2026_11_28_10_00_00.1", mount.join("..data")).unwrap();
    symlink("..data/ca.pem", mount.join("ca.pem")).unwrap();
    // A leftover of a write, under a name of that kind.
    lab.write("mount/..ca.pem", "-----BEGIN CERTIFICATE-----\ncut off");
    let hashed = lab.path("hashed");
    fs::create_dir(&hashed).unwrap();
    fs::copy(&root.cert, hashed.join("root.pem")).unwrap();
    lab.openssl(&["rehash", &text(&hashed)]);
    for directory in [mount, hashed] {
        assert_eq!(verify(&directory, &chain, &[]).code, Some(0));
        let said = vouchsafe(&["bundle", "--json", &text(&directory)]).json();
        assert!(said["certificates"] == 1 && said["warnings"] == 0 && said["errors"] == 0, "{said}");
    }
}

#[test]
fn variables_are_read_with_a_line_break_at_their_end_and_quotes_are_named() {
    let World { lab: _lab, root, server, .. } = World::new();
    let (cert, own, key) = (text(&root.cert), text(&server.cert), text(&server.key));
    let said = |variables: &[(&str, &str)]| {
        let output = life::vouchsafe(&["run"], variables);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    // Nothing is said of the files: it does not start for want of a listener.
    let with_break = [&cert, &own, &key].map(|path| format!("{path}\n"));
    let [bundle, own_cert, own_key] = &with_break;
    for variables in [
        &[("OS_CACERT", &**bundle), ("OS_CERT", own_cert), ("OS_KEY", own_key)][..],
        &[("VOUCHSAFE_CA_BUNDLE", bundle), ("VOUCHSAFE_CLIENT_CERT", own_cert), ("VOUCHSAFE_CLIENT_KEY", own_key)],
        &[("SSL_CERT_FILE", &format!("{cert}\r\n"))],
    ] {
        let said = said(variables);
        assert!(!said.contains(&cert) && !said.contains(&own) && !said.contains("no CA bundle"), "{said}");
    }
    let hint = "hint: the value has quotes in it, which are no part of the name";
    for variable in ["OS_CACERT", "VOUCHSAFE_CA_BUNDLE"] {
        for quote in ['"', '\''] {
            let said = said(&[(variable, &format!("{quote}{cert}{quote}"))]);
            assert!(said.contains(variable) && said.contains(hint), "{said}");
        }
    }
}

#[test]
fn a_comma_belongs_to_a_name_after_a_backslash() {
    let World { lab, root, .. } = World::new();
    let (one, two) = (lab.path("ca, old.pem"), lab.path("other.pem"));
    fs::copy(&root.cert, &one).unwrap();
    fs::copy(&root.cert, &two).unwrap();
    let list = text(&lab.path("a,list.crl"));
    fs::copy(lab.list(&root, (-1, 30), ""), &list).unwrap();
    let escaped = |path: &str| path.replace(',', "\\,");
    let bundle = format!("{},{}", escaped(&text(&one)), text(&two));
    let by_flags = life::refused(&["run", "--ca-bundle", &bundle, "--crl", &escaped(&list)]);
    let by_variables =
        life::vouchsafe(&["run"], &[("VOUCHSAFE_CA_BUNDLE", &bundle), ("VOUCHSAFE_CRL", &escaped(&list))]);
    let by_variables = String::from_utf8(by_variables.stderr).unwrap();
    let config = lab.write("c.toml", format!("ca_bundle = ['{}', '{}']\ncrl = '{list}'\n", text(&one), text(&two)));
    for said in [by_flags, by_variables, life::refused(&["run", "--config", &text(&config)])] {
        assert!(!said.contains("No such file") && !said.contains("crl"), "{said}");
    }
    let said = life::refused(&["run", "--ca-bundle", &text(&one)]);
    assert!(said.contains("hint: names are separated by commas; a comma in a name is written `\\,`"), "{said}");
}

#[test]
fn the_contents_of_a_file_in_place_of_its_name_are_not_shown() {
    let World { lab: _lab, root, server, .. } = World::new();
    let key = read(&server.key);
    let secret = key.lines().nth(1).unwrap();
    let (cert, own) = (text(&root.cert), text(&server.cert));
    let joined = key.replace('\n', " ");
    for value in [&key, key.trim_end(), &joined] {
        for flags in [
            [format!("--ca-bundle={value}"), format!("--client-cert={own}")],
            [format!("--ca-bundle={cert}"), format!("--crl={value}")],
            [format!("--ca-bundle={cert}"), format!("--client-cert={value}")],
        ] {
            let said = life::refused(&["run", &flags[0], &flags[1]]);
            assert!(said.contains("the contents of a file, not its name") && !said.contains(secret), "{said}");
        }
        for variables in [
            &[("OS_CACERT", &*cert), ("OS_CERT", &own), ("OS_KEY", value)][..],
            &[("OS_CACERT", &cert), ("OS_KEY", value)],
            &[("OS_CACERT", value)],
        ] {
            let output = life::vouchsafe(&["run"], variables);
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("the contents of a file, not its name") && !said.contains(secret), "{said}");
        }
    }
}

#[test]
fn a_bundle_behind_a_file_or_a_closed_directory_is_named_with_a_remedy() {
    let scratch = support::dir();
    let path = |name: &str| scratch.path().join(name);
    let mode = |name: &str, mode| fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    let check = |name: &str| {
        let bundle = text(&path(name));
        vouchsafe_as_user(&["config", "check", "--route=127.0.0.1:0=https://a.example", "--ca-bundle", &bundle])
    };
    mode("", 0o755);
    fs::create_dir(path("certs")).unwrap();
    fs::copy(gallery::bundle(Bundle::Root), path("certs/ca.pem")).unwrap();
    mode("certs", 0o755);
    mode("certs/ca.pem", 0o644);
    assert_eq!(check("certs").code, Some(0));
    let (file, directory) = (text(&path("certs/ca.pem")), text(&path("certs")));
    for (bits, name, wrong, why, hint) in [
        (
            0o755,
            "certs/ca.pem/x",
            "certs/ca.pem/x",
            "Not a directory (os error 20)",
            format!("`{file}` is a file, not a directory"),
        ),
        (
            0o444,
            "certs",
            "certs/ca.pem",
            "Permission denied (os error 13)",
            format!("let the user that this runs as search the directory `{directory}`"),
        ),
        (0o111, "certs", "certs", "Permission denied (os error 13)", "let the user that this runs as read it".into()),
    ] {
        mode("certs", bits);
        let said = check(name);
        let words = format!("error: --ca-bundle `{}`: {why}\n  hint: {hint}", text(&path(wrong)));
        assert!(said.code == Some(2) && said.err.contains(&words), "{words}: {said:?}");
    }
    mode("certs", 0o700);
}
