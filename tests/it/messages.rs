//! What people read, word for word: errors, warnings, `--help`, and the log as text. A change of tone shows up here.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

use certs_dev::{Bundle, Case};

use crate::{
    life::vouchsafe,
    support::{
        self,
        gallery::{self, Front},
        origin::{Seen, exchange},
        proxy::without_ambient,
    },
};

/// The text log of a proxy with these flags that is asked once, and what the client was told.
pub async fn read_log(flags: &[String]) -> (String, Seen) {
    let mut command = Command::new("timeout");
    without_ambient(&mut command);
    let mut child = command
        .args(["--foreground", "60", env!("CARGO_BIN_EXE_vouchsafe"), "run", "--log-format", "text", "--threads", "1"])
        .args(flags)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let (mut address, mut text) = (None, String::new());
    loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it was ready:\n{text}");
        text.push_str(&line);
        if let Some((_, rest)) = line.split_once("listening address=") {
            address = rest.split(' ').next().map(|text| text.parse().unwrap());
        }
        if line.contains(" INFO ready") {
            break;
        }
    }
    let seen = exchange(address.unwrap(), b"GET /ok HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
    stderr.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    (text, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reads_as_what_why_and_what_to_do() {
    let front = Front::start(Case::WrongName).await;
    let mut flags = vec!["--ca-bundle".to_owned(), gallery::bundle(Bundle::Root)];
    flags.extend(front.route());
    let (text, seen) = read_log(&flags).await;
    let (_, id) = seen.text().split_once("(event ").map(|(a, b)| (a.to_owned(), b[..16].to_owned())).unwrap();
    let upstream = front.authority();
    let bundle = gallery::bundle(Bundle::Root);
    let expected = format!(
        " WARN refused code=name_mismatch upstream={upstream} asked_for=dns:wrong-name.gallery.test client=127.0.0.1 \
         event={id} \"the certificate is valid for `elsewhere.gallery.test`, not for `wrong-name.gallery.test`\" \
         certificate_is_for=dns:elsewhere.gallery.test bundle=\"--ca-bundle `{bundle}` (1 CA)\" \
         hint=\"reach it by a name it has (`verify_name` where only the address differs), or have it reissued with \
         `DNS:wrong-name.gallery.test`; an attack looks like this, too\" help=\"vouchsafe explain name_mismatch\"\n"
    );
    assert!(text.contains(&expected), "{text}\n--- lacks ---\n{expected}");
}

/// What a command with these arguments, variables and configuration file prints to stderr, with the paths of the bundle
/// and of the file replaced, and its exit code.
fn complaint(arguments: &str, variables: &[(&str, &str)], file: &str) -> (String, i32) {
    let directory = support::dir();
    let config = directory.path().join("vouchsafe.toml");
    std::fs::write(&config, file).unwrap();
    let (bundle, config) = (gallery::bundle(Bundle::Root), config.display().to_string());
    let arguments: Vec<_> =
        arguments.split(' ').map(|word| word.replace("BUNDLE", &bundle).replace("FILE", &config)).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let output = vouchsafe(&arguments, variables);
    let text = String::from_utf8(output.stderr).unwrap();
    (text.replace(&bundle, "BUNDLE").replace(&config, "FILE"), output.status.code().unwrap())
}

const NO_INSECURE: &str = "verification cannot be switched off; during a migration set `report_only_until = DATE` (at most \
     90 days ahead) in an `[[upstream]]` section, and refusals are recorded but not enforced; to trust one odd \
     certificate permanently, set `identity` there";

#[test]
fn a_usage_error_names_the_flag_or_variable_and_what_to_write() {
    for (arguments, variables, expected) in [
        ("run --insecure", &[][..], format!("unknown argument `--insecure`\n  hint: {NO_INSECURE}")),
        ("check -k", &[], format!("unknown argument `-k`\n  hint: {NO_INSECURE}")),
        ("run --tls-verify=0", &[], format!("unknown argument `--tls-verify`\n  hint: {NO_INSECURE}")),
        ("run --cafile x", &[], "unknown argument `--cafile`\n  hint: use `--ca-bundle PATH` (`ca_bundle` in the file)".into()),
        ("run --cafile=x", &[], "unknown argument `--cafile`\n  hint: use `--ca-bundle PATH` (`ca_bundle` in the file)".into()),
        ("run --certfile x", &[], "unknown argument `--certfile`\n  hint: use `--client-cert FILE` (`client_cert` in the file)".into()),
        ("run --keyfile x", &[], "unknown argument `--keyfile`\n  hint: use `--client-key FILE` (`client_key` in the file)".into()),
        (
            "run --listen x",
            &[],
            "unknown argument `--listen`\n  hint: use `--route LISTEN=URL` for one upstream, or `--forward LISTEN` for many \
             (`route` and `forward` in the file)"
                .into(),
        ),
        (
            "run --tls-timeout 5",
            &[],
            "--tls-timeout `5`: a time needs a unit\n  hint: write `5s` for seconds, `5ms` for milliseconds".into(),
        ),
        (
            "run",
            &[("VOUCHSAFE_TLS_TIMEOUT", "5")],
            "VOUCHSAFE_TLS_TIMEOUT `5`: a time needs a unit\n  hint: write `5s` for seconds, `5ms` for milliseconds".into(),
        ),
        ("config check", &[("VOUCHSAFE_THREADS", "many")], "VOUCHSAFE_THREADS `many`: a whole number is expected".into()),
        (
            "run --answer=legcy",
            &[("VOUCHSAFE_ANSWER", "standard")],
            "--answer `legcy`: one of `legacy`, `reset`, `standard` is expected\n  hint: did you mean `legacy`?".into(),
        ),
        ("run --access-log=yes", &[], "--access-log `yes`: `true` or `false` is expected".into()),
        ("run --tls-timeout 0s", &[], "--tls-timeout `0s`: a time limit cannot be 0".into()),
        ("run --tls-timeout 60d", &[], "--tls-timeout `60d`: longer than 30 days".into()),
        (
            "verify --ca-bundle BUNDLE --name a --at yesterday x",
            &[],
            "--at `yesterday`: not a time\n  hint: write it as in `2026-11-20T08:00:00Z`, `2026-11-20`, `24h` or `7d`".into(),
        ),
        ("explain expird", &[], "unknown code `expird`\n  hint: did you mean `expired`?".into()),
        ("explain quite_another", &[], "unknown code `quite_another`\n  hint: `vouchsafe explain` lists all codes".into()),
    ] {
        let (said, code) = complaint(arguments, variables, "");
        assert_eq!((said, code), (format!("error: {expected}\n"), 2), "{arguments} {variables:?}");
    }
}

/// A route that is right; port 0 is not opened, since something else is wrong.
const ROUTE: &str = "--route=127.0.0.1:0=https://glance-a.example:9292";

#[test]
fn a_value_that_cannot_be_used_is_named_with_the_reason_and_what_to_write() {
    for (arguments, expected) in [
        (
            "--allow=https://glance-a.example/",
            "--allow `https://glance-a.example/`: a pattern has no scheme and no path\n  hint: write `glance-a.example`",
        ),
        (
            "--allow=.example",
            "--allow `.example`: a suffix begins with `*`\n  hint: write `*.example`; for the domain itself, allow `example` too",
        ),
        (
            "--allow=::ffff:192.0.2.0/120",
            "--allow `::ffff:192.0.2.0/120`: an IPv4-mapped network matches nothing\n  hint: write `192.0.2.0/24`",
        ),
        ("--allow=10.0.0.0/33", "--allow `10.0.0.0/33`: `33` is not a prefix length: 0 to 32 bits are possible"),
        ("--allow=fd00::/129", "--allow `fd00::/129`: `129` is not a prefix length: 0 to 128 bits are possible"),
        (
            "--allow=a.example/v2",
            "--allow `a.example/v2`: a pattern has no path; only networks have a `/`, as in `192.0.2.0/24`\n  hint: write `a.example`",
        ),
        (
            "--route=https://a.example=127.0.0.1:1",
            "--route `https://a.example=127.0.0.1:1`: the order is LISTEN=URL\n  hint: write `127.0.0.1:1=https://a.example`",
        ),
        (
            "--route=127.0.0.1:1=a.example:9292",
            "--route `127.0.0.1:1=a.example:9292`: `a.example:9292` is not an `https://` URL\n  hint: write `127.0.0.1:1=https://a.example:9292`",
        ),
        (
            "--route=:1=https://a.example",
            "--route `:1=https://a.example`: the address before the port is missing\n  hint: write `127.0.0.1:1`",
        ),
        ("--route=127.0.0.1:1=https://", "--route `127.0.0.1:1=https://`: the host is missing"),
        (
            "--route=127.0.0.1:1=http://a.example",
            "--route `127.0.0.1:1=http://a.example`: requests are never sent upstream in plain text; an `https://` URL is expected",
        ),
        (
            "--route=127.0.0.1:99999=https://a.example",
            "--route `127.0.0.1:99999=https://a.example`: port 99999 is not within 1-65535",
        ),
        (
            "--route=127.0.0.1:1=https://a.example/v1",
            "--route `127.0.0.1:1=https://a.example/v1`: a route names a server; the client chooses the path",
        ),
        (
            "--forward=0.0.0.0:1",
            "--forward `0.0.0.0:1`: 0.0.0.0 can be reached from other hosts, and clients speak plain text to it\n  hint: listen on 127.0.0.1, or set --allow-nonlocal-listen",
        ),
        ("--forward=127.0.0.1", "--forward `127.0.0.1`: an address and a port are expected, as in `127.0.0.1:19292`"),
        (
            "--connect-to=https://glance-a.example=127.0.0.1",
            "--connect-to `https://glance-a.example=127.0.0.1`: `https://glance-a.example`: a host is expected, not a URL\n  hint: write `glance-a.example`",
        ),
        ("--connect-to=a", "--connect-to `a`: two hosts are expected, as in `glance.example:9292=127.0.0.1:9292`"),
        ("--port-map=80", "--port-map `80`: two ports within 1-65535 are expected, as in `8080=8443`"),
        ("--port-map=80=81 --port-map=80=82", "--port-map: port 80 is mapped to two ports"),
        ("--max-head=1", "--max-head `1`: not within 8192-1048576"),
        ("--crl-policy=expired=refuse,expired=tolerate", "--crl-policy `expired=tolerate`: `expired` is set twice"),
        (
            "--crl-policy=unknown=refuse",
            "--crl-policy `unknown=refuse`: no revocation list is configured\n  hint: set --crl with the lists of the CAs",
        ),
    ] {
        let (said, code) = complaint(&format!("run --ca-bundle BUNDLE {ROUTE} {arguments}"), &[], "");
        assert_eq!((said, code), (format!("error: {expected}\n"), 2), "{arguments}");
    }
    let (said, _) = complaint("run --ca-bundle BUNDLE", &[], "");
    assert_eq!(said, "error: no listener is configured\n  hint: set --route LISTEN=URL or --forward LISTEN\n");
    let (said, _) = complaint(&format!("run {ROUTE}"), &[], "");
    assert_eq!(
        said,
        "error: no CA bundle is configured\n  hint: set --ca-bundle FILE, --system-roots, or one of the variables VOUCHSAFE_CA_BUNDLE, \
         OS_CACERT, REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR\n"
    );
    let (said, _) = complaint("run --config FILE", &[], "listen = \"x\"\n[upstream]\nof = \"a\"\n");
    assert_eq!(
        said,
        "error: 2 problems in the configuration\n  FILE:1: unknown key `listen`\n    hint: use `--route LISTEN=URL` for one upstream, or \
         `--forward LISTEN` for many (`route` and `forward` in the file)\n  FILE:2: `[upstream]`: there may be several of these \
         sections\n    hint: write `[[upstream]]`\n"
    );
}

#[test]
fn a_scheme_may_be_written_in_upper_case() {
    let (said, code) =
        complaint("config check --ca-bundle BUNDLE --route=127.0.0.1:0=HTTPS://GLANCE-A.EXAMPLE:9292", &[], "");
    assert_eq!((said.as_str(), code), ("", 0));
}

#[test]
fn a_setting_that_would_leave_a_server_less_strictly_verified_without_effect_is_an_error() {
    let pin = format!("pins = 'sha256:{}'", "0".repeat(64));
    let file = format!("[[upstream]]\nof = 'glance-a.exmaple'\n{pin}\n");
    let port = format!("[[upstream]]\nof = 'glance-a.example:9293'\n{pin}\n");
    let far = format!("[[upstream]]\nof = 'keystone.test'\n{pin}\n");
    let roots = "[[upstream]]\nof = 'glance-a.example'\nsystem_roots = false\n";
    let shadowed =
        "[[upstream]]\nof = 'glance-a.example'\nsni = 'a'\n[[upstream]]\nof = 'glance-a.example:9292'\nsni = 'b'\n";
    for (file, arguments, expected) in [
        (
            &*file,
            "",
            "`[[upstream]] of = \"glance-a.exmaple\"` matches no route and no allowed destination\n  hint: did you mean `glance-a.example`?",
        ),
        (
            &*port,
            "",
            "`[[upstream]] of = \"glance-a.example:9293\"` matches no route and no allowed destination\n  hint: did you mean `glance-a.example:9292`?",
        ),
        (
            &*far,
            " --forward=127.0.0.1:0 --allow=*.cloud --allow=glance-b.example",
            "`[[upstream]] of = \"keystone.test\"` matches no route and no allowed destination\n  hint: configured are `glance-a.example:9292`, `glance-b.example`",
        ),
        (
            roots,
            " --system-roots",
            "[[upstream]] 1 (`glance-a.example`): system_roots: `false` removes nothing from the default bundle, which has the CAs of the system\n  hint: set `ca_bundle` in the section too",
        ),
        (
            shadowed,
            "",
            "[[upstream]] 2 (`glance-a.example:9292`): sni: that of section 1 (`glance-a.example`) takes precedence\n  hint: put the section for one port above that for all ports, or remove one of the two",
        ),
        (
            "",
            " --connect-to=glance-a.example=192.0.2.1 --connect-to=glance-a.example:9292=192.0.2.2",
            "--connect-to `glance-a.example:9292=192.0.2.2`: an earlier one for `glance-a.example` takes precedence\n  hint: remove one of the two",
        ),
    ] {
        let (said, code) = complaint(&format!("run --config FILE --ca-bundle BUNDLE {ROUTE}{arguments}"), &[], file);
        assert_eq!((said, code), (format!("error: {expected}\n"), 2), "{arguments} {file}");
    }
    // The same section applies where a pattern or a network may lead to it.
    for allow in ["*", "*.test", "keystone.test:5000", "10.0.0.0/8"] {
        let arguments = format!("config check --config FILE --ca-bundle BUNDLE --forward=127.0.0.1:0 --allow={allow}");
        assert_eq!(complaint(&arguments, &[], &far).1, 0, "{allow}");
    }
}

#[test]
fn every_other_setting_without_effect_is_a_warning() {
    let identity = format!(
        "[[upstream]]\nof = 'glance-a.example'\nidentity = 'sha256:{}'\ncrl_policy = 'expired=tolerate'\n",
        "0".repeat(64)
    );
    for (file, arguments, variables, expected) in [
        (
            "",
            "--connect-to=glance-a.exmaple=192.0.2.1",
            &[][..],
            &[
                "--connect-to `glance-a.exmaple=192.0.2.1`: `glance-a.exmaple` matches no route and no allowed destination\n  hint: did you mean `glance-a.example`?",
            ][..],
        ),
        (
            "",
            "--allow=a.example",
            &[],
            &["--allow has no effect: it is for forward listeners, and there is none\n  hint: set --forward LISTEN"],
        ),
        ("", "--allow=a.example --follow-redirects", &[], &[]),
        ("", "--accept-host=images.internal", &[], &[]),
        (
            "",
            "--port-map=80=81 --rewrite-redirects=false",
            &[],
            &["--port-map has no effect: it is for forward listeners and redirects, and neither is used"],
        ),
        (
            "",
            "--forward=127.0.0.1:0",
            &[],
            &["no destination is allowed: forward listeners refuse every request\n  hint: set --allow HOST[:PORT]"],
        ),
        (
            "",
            "--allow-nonlocal-listen",
            &[],
            &["--allow-nonlocal-listen has no effect: all listeners are on loopback addresses"],
        ),
        (
            "",
            "--crl-policy=expired=tolerate",
            &[],
            &["--crl-policy has no effect: no revocation list is configured\n  hint: set --crl FILE"],
        ),
        (
            "",
            "--answer=reset",
            &[("VOUCHSAFE_DETAIL", "full")],
            &["VOUCHSAFE_DETAIL has no effect: with `answer = \"reset\"` clients are told nothing"],
        ),
        (
            "max_connections = 10\n",
            "--max-listener-connections=20",
            &[],
            &["--max-listener-connections `20` has no effect: FILE: max_connections is 10"],
        ),
        (
            "",
            "--fold-repeats=1s --log-level=error",
            &[],
            &[
                "--fold-repeats has no effect: with `log_level = \"error\"` and without `audit_log` no audit events are written",
            ],
        ),
        (
            &identity,
            "",
            &[],
            &[
                "[[upstream]] 1 (`glance-a.example`): crl_policy has no effect: `identity` names the certificate itself, so chain, name and revocation are not checked",
                "[[upstream]] 1 (`glance-a.example`): crl_policy has no effect: no revocation list is configured",
            ],
        ),
        (
            "[[upstream]]\nof = 'keystone.test:80'\nsni = 'a'\n",
            "--forward=127.0.0.1:0 --allow=keystone.test --allow=*.test:8080 --port-map=8080=8443",
            &[],
            &[
                "--allow `*.test:8080`: port 8080 of `http://` destinations is mapped to 8443, so this applies to `https://` ones only\n  hint: did you mean `*.test:8443`?",
                "[[upstream]] of `keystone.test:80`: port 80 of `http://` destinations is mapped to 443, so this applies to `https://` ones only\n  hint: did you mean `keystone.test:443`?",
            ],
        ),
        (
            "",
            "--pool-size=0 --pool-idle-timeout=1s",
            &[],
            &["--pool-idle-timeout has no effect: with `pool_size = 0` no connection is kept"],
        ),
        (
            "[[upstream]]\nof = 'glance-a.example'\n",
            "",
            &[],
            &["[[upstream]] 1 (`glance-a.example`): the section sets nothing"],
        ),
        (
            "",
            "",
            &[("VOUCHSAFE_CRL_POLCY", "unknown=refuse")],
            &[
                "the variable VOUCHSAFE_CRL_POLCY has no effect: there is no such setting\n  hint: did you mean `VOUCHSAFE_CRL_POLICY`?",
            ],
        ),
        (
            "",
            "",
            &[("VOUCHSAFE_PINS", "x")],
            &[
                "the variable VOUCHSAFE_PINS has no effect: there is no such setting\n  hint: settings for single upstreams are in `[[upstream]]` sections of the configuration file",
            ],
        ),
        (
            "",
            "",
            &[("vouchsafe_ca_bundle", "x")],
            &[
                "the variable vouchsafe_ca_bundle has no effect: there is no such setting\n  hint: did you mean `VOUCHSAFE_CA_BUNDLE`?",
            ],
        ),
        ("", "", &[("VOUCHSAFE_QQQ", "x")], &["the variable VOUCHSAFE_QQQ has no effect: there is no such setting"]),
        // What Kubernetes sets for a service of this name, and an empty variable.
        (
            "",
            "",
            &[
                ("VOUCHSAFE_PORT", "tcp://10.0.0.1:19292"),
                ("VOUCHSAFE_PORT_19292_TCP_ADDR", "10.0.0.1"),
                ("VOUCHSAFE_SERVICE_HOST", "10.0.0.1"),
                ("VOUCHSAFE_SERVICE_PORT_HTTP", "19292"),
                ("VOUCHSAFE_QQQ", ""),
            ],
            &[],
        ),
    ] {
        let arguments = format!("config check --config FILE --ca-bundle BUNDLE {ROUTE} {arguments}");
        let (said, code) = complaint(arguments.trim_end(), variables, file);
        let warnings: String = expected.iter().map(|warning| format!("warning: {warning}\n")).collect();
        assert_eq!((said, code), (warnings, 0), "{arguments} {variables:?} {file}");
    }
}

#[test]
fn accept_host_takes_hosts_and_is_for_fixed_routes() {
    let arguments = |host: &str| {
        format!(
            "config check --config FILE --ca-bundle BUNDLE --forward=127.0.0.1:0 --allow=a.example --accept-host={host}"
        )
    };
    let (said, code) = complaint(&arguments("images.internal"), &[], "");
    let expected = "warning: --accept-host is for fixed routes, and there is none\n  hint: set --route LISTEN=URL\n";
    assert_eq!((said.as_str(), code), (expected, 0));
    let (said, code) = complaint(&arguments("http://images.internal:80"), &[], "");
    let expected = "error: --accept-host `http://images.internal:80`: a name without scheme and port is expected\n  \
                    hint: write `images.internal`\n";
    assert_eq!((said.as_str(), code), (expected, 2));
}

#[test]
fn check_warns_of_a_setting_that_no_url_matches() {
    let connect = "--connect-to=good.gallery.test=127.0.0.1";
    let arguments = |more: &str| format!("check --ca-bundle BUNDLE {connect}{more} good.gallery.test:1");
    let (said, code) = complaint(&arguments(" --connect-to=god.gallery.test=127.0.0.1"), &[], "");
    let expected = "warning: --connect-to `god.gallery.test=127.0.0.1`: `god.gallery.test` matches none of the servers \
                    given, no route and no allowed destination\n  hint: did you mean `good.gallery.test`?\n";
    assert_eq!((said.as_str(), code), (expected, 1));
    let (said, code) = complaint(&arguments(" --connect-to=other.example:9292=127.0.0.1"), &[], "");
    assert!(said.ends_with("\n  hint: add `other.example:9292` to the command line\n") && code == 1, "{said}");
    assert_eq!(complaint(&arguments(""), &[], ""), (String::new(), 1));
}

/// Every `--help` text. `UPDATE_GOLDEN=1` writes the file.
#[test]
fn help_is_word_for_word_what_was_reviewed() {
    let commands = [
        "",
        "audit",
        "bundle",
        "check",
        "completions",
        "config",
        "config check",
        "config show",
        "demo",
        "explain",
        "man",
        "pin",
        "redirect-rules",
        "run",
        "verify",
    ];
    let mut text = String::new();
    for command in commands {
        let arguments: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
        let output = vouchsafe(&arguments, &[("COLUMNS", "100")]);
        assert_eq!(output.status.code(), Some(0));
        text += &format!("$ vouchsafe {}\n{}\n", arguments.join(" "), String::from_utf8(output.stdout).unwrap());
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/help.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    let line = text.lines().zip(expected.lines()).find(|(now, before)| now != before);
    assert!(text == expected, "help has changed; review it with UPDATE_GOLDEN=1. The first line: {line:?}");
}
