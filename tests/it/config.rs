//! `vouchsafe config` and `vouchsafe explain`, and what commands do when their output cannot be written.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    path::PathBuf,
    process::{Command, Stdio},
};

use certs_dev::{Bundle, Case};
use serde_json::Value;
use vouchsafe::{
    config::{args::RunArgs, environment::Environment, file, settings::Settings, watch::Files},
    explain,
    tls::failure::Code,
};

use crate::{
    docs::classes,
    life::vouchsafe,
    support::{
        self,
        gallery::{self, GALLERY},
        origin::exchange,
        proxy::{Proxy, program, without_ambient},
    },
};

/// The lines of `config show` with these arguments and variables.
fn shown(arguments: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let output = vouchsafe(&[&["config", "show"], arguments].concat(), variables);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn every_value_is_shown_with_what_set_it() {
    let directory = support::dir();
    let path = directory.path().join("vouchsafe.toml");
    fs::write(
        &path,
        "route = \"127.0.0.1:1=https://a.example\"\ntls_timeout = \"90s\"\nthreads = 2\npreset = \"glance-replicator\"\n\
         client_key = \"file.key\"\n[[upstream]]\nof = \"a.example\"\npins = [\"sha256:00\"]\nreport_only_until = 2026-12-15\n",
    )
    .unwrap();
    let name = path.to_str().unwrap();
    let variables =
        [("VOUCHSAFE_THREADS", "3"), ("VOUCHSAFE_DETAIL", "full"), ("VOUCHSAFE_ANSWER", ""), ("OS_CACERT", "/ca.pem")];
    let lines = shown(&["--config", name, "--detail", "none", "--client-cert", "flag.pem"], &variables);
    for expected in [
        &*format!("route = [\"127.0.0.1:1=https://a.example\"]  # {name}"),
        "# forward: not set",
        "ca_bundle = [\"/ca.pem\"]  # OS_CACERT",
        "client_cert = \"flag.pem\"  # --client-cert",
        // The key of the file belongs to another certificate.
        "# client_key: default: the certificate's file; with OS_CERT, OS_KEY if set",
        &format!("preset = \"glance-replicator\"  # {name}"),
        "# answer: default: legacy",
        "detail = \"none\"  # --detail",
        "field_case = \"lower\"  # preset",
        &format!("tls_timeout = \"1m30s\"  # {name}"),
        "# connect_timeout: default: 5s",
        "threads = 3  # VOUCHSAFE_THREADS",
        &format!("[[upstream]]  # {name}"),
        "of = \"a.example\"",
        "pins = [\"sha256:00\"]",
        "report_only_until = \"2026-12-15\"",
    ] {
        assert!(lines.iter().any(|line| line == expected), "{lines:#?} --- lacks --- {expected}");
    }
    let again = file::parse(&lines.join("\n")).unwrap();
    assert_eq!((again.threads, again.upstream[0].of.as_str()), (Some(3), "a.example"), "it can be read back");
}

#[test]
fn values_are_shown_as_json_too_and_without_passwords() {
    let output = vouchsafe(&["config", "show", "--json", "--route", "127.0.0.1:1=https://u:hunter2@a.example"], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    let setting = |key: &str| all.iter().find(|setting| setting["key"] == key).unwrap();
    assert_eq!(setting("route")["set_by"], "--route");
    assert_eq!(
        setting("tls_timeout"),
        &serde_json::json!({
            "key": "tls_timeout", "value": null, "set_by": "default", "default": "10s",
        })
    );
}

#[test]
fn a_configuration_is_checked_without_starting() {
    let bundle = gallery::bundle(Bundle::Root);
    // The address is taken, so `run` would fail.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let route = format!("{}=https://a.example", taken.local_addr().unwrap());
    let output = vouchsafe(&["config", "check", "--ca-bundle", &bundle, "--route", &route], &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        text,
        "the configuration is valid: 1 listener, 0 settings for single upstreams, 1 trusted CA in the default bundle; 0 warnings\n"
    );
    assert_eq!(output.status.code(), Some(0));
    let output = vouchsafe(&["config", "check", "--ca-bundle", "/nonexistent", "--route", &route], &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn every_default_in_the_help_is_the_one_that_applies() {
    // With every default given explicitly, nothing differs from no settings at all.
    let in_words = ["ca_bundle", "client_cert", "client_key", "log_format", "max_connections"];
    let lines = shown(&[], &[]);
    let defaults = lines.iter().filter_map(|line| line.strip_prefix("# ")?.split_once(": default: "));
    let defaults: Vec<_> = defaults
        .filter(|(key, _)| !in_words.contains(key) && !["max_listener_connections", "threads"].contains(key))
        .collect();
    assert!(defaults.len() > 25, "{defaults:?}");
    let directory = support::dir();
    let file = directory.path().join("defaults.toml");
    let text: String = defaults.iter().map(|(key, value)| format!("{key} = {}\n", toml_value(key, value))).collect();
    fs::write(&file, text).unwrap();
    let of = |config: Option<PathBuf>| {
        let mut args = RunArgs { config, ..RunArgs::default() };
        args.options.route = vec!["127.0.0.1:0=https://a.example".into()];
        args.options.ca_bundle = vec![gallery::bundle(Bundle::Root).into()];
        Settings::of(args, &Environment::default(), &mut Files::default()).unwrap()
    };
    let (given, none) = (of(Some(file)), of(None));
    assert_eq!(given.needs_restart(&none), Vec::<&str>::new());
    let shown = |settings: &Settings| {
        let mut proxy = settings.proxy.clone();
        proxy.pseudonym.clone_from(&none.proxy.pseudonym);
        format!("{proxy:?} {:?}", settings.routes.tls.0.settings().trust.terms)
    };
    assert_eq!(shown(&given), shown(&none));
}

/// A default, as the help has it, for the configuration file.
fn toml_value(key: &str, value: &str) -> String {
    let is_bare = value.parse::<u64>().is_ok() || ["true", "false"].contains(&value);
    match key {
        "crl_policy" => format!("{:?}", value.split(',').collect::<Vec<_>>()),
        _ if is_bare => value.to_owned(),
        _ => format!("{value:?}"),
    }
}

#[test]
fn every_code_of_the_program_is_explained() {
    let explained: BTreeSet<_> = explain::codes().collect();
    let codes = Code::ALL.iter().map(|code| code.as_str()).chain(classes()).chain(["response_incomplete"]);
    // The table of `vouchsafe bundle`.
    let check = include_str!("../../docs/check.md");
    let rows = check.lines().filter(|line| line.contains("` | error | ") || line.contains("` | warning | "));
    let of_bundle: Vec<_> = rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert!(of_bundle.len() > 8, "{of_bundle:?}");
    let missing: Vec<_> = codes.chain(of_bundle).filter(|code| !explained.contains(code)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let list = explain::explain(None).unwrap();
    for code in explained {
        let text = explain::explain(Some(code)).unwrap();
        assert!(text.starts_with(&format!("{code}\n\n")), "{text}");
        assert!(text.contains("Means. ") && text.contains("\nWhat to do. "), "{text}");
        assert!(!text.contains("](") && !text.contains("**"), "{text}");
        let line = list.lines().find(|line| line.split_whitespace().next() == Some(code)).unwrap();
        assert!(line.split_whitespace().count() > 3, "{line}");
    }
}

/// Runs a command with its standard output on this file.
fn with_stdout(arguments: &[&str], stdout: impl Into<Stdio>) -> (String, Option<i32>) {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program()).args(arguments).stdout(stdout).stderr(Stdio::piped());
    without_ambient(&mut command);
    let output = command.spawn().unwrap().wait_with_output().unwrap();
    (String::from_utf8(output.stderr).unwrap(), output.status.code())
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

/// Commands that print something and succeed.
fn commands(bundle: &str, chain: &str, log: &str) -> Vec<Vec<String>> {
    let list = [
        "--help".to_owned(),
        "--version".into(),
        format!("audit {log}"),
        format!("bundle {bundle}"),
        format!("bundle --json {bundle}"),
        format!("check --ca-bundle {bundle} 127.0.0.1:1"),
        format!("check --json --ca-bundle {bundle} 127.0.0.1:1"),
        format!("config check --ca-bundle {bundle} --route=127.0.0.1:0=https://a.example"),
        "completions bash".into(),
        "config show".into(),
        "config show --json".into(),
        "demo".into(),
        "explain".into(),
        "explain expired".into(),
        "man config show".into(),
        format!("pin {bundle}"),
        format!("pin --json {bundle}"),
        format!("verify --ca-bundle {bundle} --name good.gallery.test {chain}"),
    ];
    list.iter().map(|words| words.split(' ').map(str::to_owned).collect()).collect()
}

#[test]
fn output_that_cannot_be_written_is_an_error_and_a_reader_that_has_gone_is_not() {
    let directory = support::dir();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let chain = write("chain.pem", &GALLERY.identity(Case::Good).unwrap().chain_pem());
    let bundle = gallery::bundle(Bundle::Root);
    for arguments in commands(&bundle, &chain, &write("audit.jsonl", "")) {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (said, code) = with_stdout(&arguments, full());
        assert!(said.contains("No space left on device") && code == Some(1), "{arguments:?}: {code:?} {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (said, code) = with_stdout(&arguments, writer);
        assert!(!said.contains("error: ") && !said.contains("panicked"), "{arguments:?}: {said}");
        let refused = arguments[0] == "check";
        assert_eq!(code, Some(i32::from(refused)), "{arguments:?}: {said}");
    }
}

#[test]
fn standard_error_that_cannot_be_written_is_no_panic() {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program()).args(["run", "--insecure"]).stderr(full());
    without_ambient(&mut command);
    assert_eq!(command.status().unwrap().code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_bundle_is_a_warning_at_start() {
    let directory = support::dir();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let year = time::Duration::days(365);
    let past = time::OffsetDateTime::now_utc() - year * 20;
    let expired = write("expired.pem", &certs_dev::Authority::root("Old", past).unwrap().certificate_pem());
    let proxy = Proxy::start(&["--ca-bundle", &expired, "--route=127.0.0.1:0=https://a.example"]);
    let warning = proxy.wait_for_log("a warning", |event| event["level"] == "WARN");
    let message = warning["message"].as_str().unwrap();
    assert!(message.starts_with(&format!("{expired}:1: expired: the root `")), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_may_have_policies_of_its_own() {
    let directory = support::dir();
    let config = directory.path().join("vouchsafe.toml");
    let of_forward = "[[listener]]\nof = \"127.0.0.2:0\"\nanswer = \"standard\"\ndetail = \"none\"\n";
    let text = |sections: &str| {
        format!(
            "ca_bundle = {:?}\nroute = [\"127.0.0.1:0=https://a.example\"]\nforward = [\"127.0.0.2:0\"]\nallow = [\"b.example\"]\n{sections}",
            gallery::bundle(Bundle::Root)
        )
    };
    fs::write(&config, text(of_forward)).unwrap();
    let proxy = Proxy::start(&["--config", config.to_str().unwrap()]);
    let refused = b"GET http://c.example/ HTTP/1.1\r\nHost: c.example\r\nConnection: close\r\n\r\n";
    let by_route = exchange(proxy.addr(0), refused).await.text();
    assert!(by_route.contains("\r\nContent-Type: text/plain"), "{by_route}");
    let by_forward = exchange(proxy.addr(1), refused).await.text();
    assert!(by_forward.contains("\r\nContent-Type: application/problem+json"), "{by_forward}");
    assert!(by_route.contains("wrong_authority") && !by_forward.contains("destination_denied"), "{by_forward}");
    for (sections, expected) in [
        (
            "[[listener]]\nof = \"127.0.0.1:1\"\nanswer = \"reset\"\n",
            "[[listener]] 1 (`127.0.0.1:1`): no listener has this address\n  hint: the listeners are `127.0.0.1:0`, `127.0.0.2:0`",
        ),
        (&of_forward.repeat(2), "[[listener]] 2 (`127.0.0.2:0`): an earlier section is for the same listener"),
        (
            "[[listener]]\nof = \"127.0.0.1:0\"\naccept_host = [\"http://x\"]\n",
            "[[listener]] 1 (`127.0.0.1:0`): accept_host `http://x`: a name without scheme and port is expected",
        ),
    ] {
        fs::write(&config, text(sections)).unwrap();
        let output = vouchsafe(&["config", "check", "--config", config.to_str().unwrap()], &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(expected), "{said}");
    }
    let unix = |of: &str| {
        let route = format!("unix:{}/a.sock,mode=0660=https://a.example", directory.path().display());
        format!(
            "ca_bundle = {:?}\nroute = [{route:?}]\n[[listener]]\nof = {of:?}\nhost = \"client\"\n",
            gallery::bundle(Bundle::Root)
        )
    };
    for mode in ["", ",mode=0660"] {
        fs::write(&config, unix(&format!("unix:{}/a.sock{mode}", directory.path().display()))).unwrap();
        let output = vouchsafe(&["config", "check", "--config", config.to_str().unwrap()], &[]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    fs::write(&config, text(of_forward)).unwrap();
    let shown = shown(&["--config", config.to_str().unwrap()], &[]).join("\n");
    assert!(shown.contains("[[listener]]") && shown.contains("answer = \"standard\"\ndetail = \"none\""), "{shown}");
}

#[test]
fn an_audit_log_or_a_ready_file_that_cannot_be_written_says_what_to_do_and_leaves_nothing() {
    let directory = support::dir();
    let bundle = gallery::bundle(Bundle::Root);
    let start = ["run", "--route=127.0.0.1:0=https://a.example", "--ca-bundle", &bundle];
    let missing = directory.path().join("no/such");
    let log = missing.join("audit.jsonl").display().to_string();
    let output = vouchsafe(&[&start[..], &["--audit-log", &log]].concat(), &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    let expected = format!("  hint: create the directory: `install -d -o USER {}`", missing.display());
    assert!(text.contains(&expected) && output.status.code() == Some(2), "{text}");
    let ready = directory.path().join("ready");
    fs::create_dir(&ready).unwrap();
    let output = vouchsafe(&[&start[..], &["--ready-file", ready.to_str().unwrap()]].concat(), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no partial file is left");
}
