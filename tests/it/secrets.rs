//! Secrets are named, never shown: in errors, in `--help`, and in what is written about requests.

use std::process::{Command, Stdio};

use crate::support::{
    command::{Said, vouchsafe},
    dir,
    proxy::{program, without_ambient},
};

/// A private key as people paste it. No part of it may come back.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHunter2Hunter2Hunter2Hunter2Hunter2Hunter2H\n-----END PRIVATE KEY-----";

/// Runs the program with these variables.
fn vouchsafe_with(args: &[&str], variables: &[(&str, &str)]) -> Said {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program()).args(args);
    without_ambient(&mut command);
    let end = command.envs(variables.iter().copied()).stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: end.status.code(), out: text(end.stdout), err: text(end.stderr) }
}

fn assert_named_and_not_shown(said: &Said, name: &str) {
    let all = format!("{}{}", said.out, said.err);
    for secret in ["Hunter2", "BEGIN", "END PRIVATE", "LS0t", "MC4C"] {
        assert!(!all.contains(secret), "{name}: {all}");
    }
    assert_eq!(said.code, Some(2), "{name}: {all}");
    assert!(said.err.contains(&format!("{name}: the value is the contents of a file, not its name")), "{all}");
    assert!(said.err.contains("hint: write it to a file and give its name, or use `<(…)` of the shell"), "{all}");
}

/// The key as it is, with its lines folded, in base64, and cut off.
fn forms() -> Vec<String> {
    let encoded = data_encoding::BASE64.encode(KEY.as_bytes());
    let body = KEY.lines().nth(1).unwrap().to_owned();
    vec![KEY.to_owned(), KEY.replace('\n', "\\n"), format!("\"{KEY}\"\n"), encoded, body]
}

#[test]
fn a_key_where_a_file_belongs_is_named_and_not_shown() {
    for form in forms() {
        let key = form.as_str();
        for flag in [
            "--client-key",
            "--client-cert",
            "--ca-bundle",
            "--crl",
            "--config",
            "--audit-log",
            "--save-failed-chains",
            "--ready-file",
            "--route",
            "--forward",
            "--allow",
            "--port-map",
            "--connect-to",
            "--crl-policy",
            "--log-format",
            "--preset",
            "--connect-timeout",
            "--threads",
        ] {
            assert_named_and_not_shown(&vouchsafe(&["run", flag, key]), flag);
            assert_named_and_not_shown(&vouchsafe(&["run".to_owned(), format!("{flag}={key}")]), flag);
            let variable = format!("VOUCHSAFE_{}", flag[2..].replace('-', "_").to_uppercase());
            for command in [&["run"][..], &["config", "check"], &["config", "show"]] {
                assert_named_and_not_shown(&vouchsafe_with(command, &[(variable.as_str(), key)]), &variable);
            }
        }
        let said = vouchsafe(&["verify", "--ca-bundle", "ca.pem", "--name", "a", "--identity", key, "chain.pem"]);
        assert_named_and_not_shown(&said, "--identity");
        for command in ["bundle", "audit", "check", "pin"] {
            assert_named_and_not_shown(&vouchsafe(&[command, key]), "an argument");
        }
        assert_named_and_not_shown(&vouchsafe(&[key]), "an argument");
    }
}

#[test]
fn a_key_in_a_variable_of_other_tools_is_named_and_not_shown() {
    let directory = dir();
    let cert = directory.path().join("cert.pem").display().to_string();
    std::fs::write(&cert, crate::support::gallery::GALLERY.bundle_pem(certs_dev::Bundle::Root)).unwrap();
    let route = ["run", "--route", "127.0.0.1:0=https://a.test"];
    for form in forms() {
        let (key, cert) = (form.as_str(), cert.as_str());
        for bundle in ["OS_CACERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"] {
            assert_named_and_not_shown(&vouchsafe_with(&route, &[(bundle, key)]), bundle);
        }
        let with_key = [("OS_CACERT", cert), ("OS_CERT", cert), ("OS_KEY", key)];
        assert_named_and_not_shown(&vouchsafe_with(&route, &with_key), "OS_KEY");
        assert_named_and_not_shown(&vouchsafe_with(&route, &[("OS_CACERT", cert), ("OS_CERT", key)]), "OS_CERT");
        // A variable that does not count here is not complained of.
        let said = vouchsafe_with(&["verify", "--help"], &[("VOUCHSAFE_CLIENT_KEY", key), ("OS_KEY", key)]);
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
}

#[test]
fn a_key_in_the_configuration_file_is_named_and_not_shown() {
    let directory = dir();
    let file = directory.path().join("vouchsafe.toml").display().to_string();
    for (text, place) in [
        (format!("threads = 1\nclient_key = '''{KEY}'''\n"), "2: client_key"),
        (format!("ca_bundle = ['''{KEY}''']\n"), "1: ca_bundle"),
        (format!("log_format = '''{KEY}'''\n"), "1: log_format"),
        (format!("threads = '''{KEY}'''\n"), "1: threads"),
        (format!("[[upstream]]\nof = 'a'\nidentity = '''{KEY}'''\n"), "3: identity"),
    ] {
        std::fs::write(&file, text).unwrap();
        assert_named_and_not_shown(&vouchsafe(&["run", "--config", &file]), &format!("{file}:{place}"));
    }
    // As a key, where it is not said to be the contents of a file.
    let name = KEY.replace('\n', "\\n");
    std::fs::write(&file, format!("\"{name}\" = 1\n")).unwrap();
    let said = vouchsafe(&["run", "--config", &file]);
    assert!(!said.err.contains("Hunter2") && said.err.contains("not shown"), "{}", said.err);
}

#[test]
fn help_does_not_print_the_values_of_variables() {
    let variables = [
        ("VOUCHSAFE_ROUTE", "127.0.0.1:1=https://u:hunter2@a"),
        ("VOUCHSAFE_CLIENT_KEY", "/home/hunter2/key.pem"),
        ("VOUCHSAFE_LOG_LEVEL", "hunter2"),
    ];
    for args in [&["run", "--help"][..], &["run", "-h"], &["help", "run"], &["check", "--help"], &["pin", "--help"]] {
        let said = vouchsafe_with(args, &variables);
        assert_eq!(said.code, Some(0), "{args:?}: {}", said.err);
        assert!(!format!("{}{}", said.out, said.err).contains("hunter2"), "{args:?}: {}", said.out);
        // The short help has no room for variables.
        assert!(said.out.contains("VOUCHSAFE_ROUTE") || args.contains(&"-h"), "{args:?}: {}", said.out);
    }
}

#[test]
fn usage_errors_mask_the_values_of_variables() {
    let said = vouchsafe_with(&["run"], &[("VOUCHSAFE_LOG_FORMAT", "https://u:hunter2@a/?hunter2")]);
    assert_eq!(said.code, Some(2));
    assert!(!said.err.contains("hunter2") && said.err.contains("VOUCHSAFE_LOG_FORMAT"), "{}", said.err);
}

#[test]
fn usage_errors_mask_arguments() {
    let url = "https://u:hunter2@a/?hunter2";
    for args in [
        &["run", url][..],
        &[url],
        &["config", url],
        &["verify", "--ca-bundle=a", "--name=a", "a", url],
        &["explain", url],
    ] {
        let said = vouchsafe(args);
        assert_eq!(said.code, Some(2), "{args:?}");
        assert!(!said.err.contains("hunter2") && said.err.contains("…@a"), "{args:?}: {}", said.err);
    }
}

#[test]
fn configuration_errors_do_not_repeat_passwords_and_queries() {
    for (flag, value) in [
        ("--route", "127.0.0.1:0=https://a?hunter2"),
        ("--route", "127.0.0.1:0=https://u:hunter2@a"),
        ("--route", "127.0.0.1:0=ftp://a/?hunter2"),
        ("--forward", "a?hunter2:1"),
        ("--forward", "u:hunter2@127.0.0.1:1"),
        ("--allow", "a?hunter2"),
        ("--allow", "u:hunter2@a"),
        ("--connect-to", "a?hunter2=b:1"),
        ("--connect-to", "a=u:hunter2@b"),
        ("--ca-bundle", "https://u:hunter2@a/ca.pem"),
        ("--client-cert", "https://a/cert.pem?hunter2"),
    ] {
        let said = vouchsafe(&["run", flag, value]);
        assert_eq!(said.code, Some(2), "{flag} {value}");
        assert!(said.err.contains(flag) && !said.err.contains("hunter2"), "{flag} {value}: {}", said.err);
    }
}
