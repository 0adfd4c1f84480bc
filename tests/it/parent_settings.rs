//! The settings of a parent proxy: where they may come from, what is wrong with them, and the commands that use them.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use certs_dev::{Bundle, Case};
use serde_json::Value;

use crate::support::{
    self,
    command::vouchsafe,
    exec::Exec,
    gallery::{self, Front, GALLERY},
    origin::{Origin, exchange, send},
    parent::{Answer, Parent},
    proxy::Proxy,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn base() -> Vec<String> {
    ["--ca-bundle", &gallery::bundle(Bundle::Root), "--route=127.0.0.1:18080=https://a.example"]
        .map(str::to_owned)
        .to_vec()
}

fn config_check(flags: &[&str]) -> support::command::Said {
    let arguments: Vec<_> = ["config", "check"].map(str::to_owned).into_iter().chain(base()).collect();
    vouchsafe(&[arguments, flags.iter().map(|flag| (*flag).to_owned()).collect()].concat())
}

fn private(path: &Path, text: &str, mode: u32) -> String {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

#[test]
fn what_cannot_work_is_an_error_with_a_remedy() {
    let directory = support::dir();
    let file = |name: &str, text: &str, mode| private(&directory.path().join(name), text, mode);
    let open = file("open", "u:secret", 0o644);
    let two = file("two", "u:secret\nv:secret\n", 0o600);
    let without_colon = file("colon", "usersecret", 0o600);
    let good = file("good", "u:secret\n", 0o600);
    let proxy = "--parent-proxy=http://proxy.example:3128";
    for (flags, expected, hint) in [
        (
            &["--parent-proxy=socks5://u:secret@p:1"][..],
            "--parent-proxy `socks5://…@p:1`: SOCKS is not spoken here",
            "`ssh -L`",
        ),
        (&["--parent-proxy=http://u:se%3Acret%@p:1"], "a `%` in the user name or the password", ""),
        (&["--parent-proxy=http://p:1/x"], "a parent proxy has no path", ""),
        (
            &["--parent-proxy=http://127.0.0.1:18080"],
            "is a listener of this proxy (`route 127.0.0.1:18080`): a loop",
            "leads out",
        ),
        (&["--parent-proxy=http://localhost:18080"], "is a listener of this proxy", ""),
        (
            &["--parent-proxy=https://a.example"],
            "is the upstream `a.example:443` itself",
            "`parent_proxy = \"direct\"`",
        ),
        (
            &[proxy, "--no-proxy=192.0.2.*"],
            "--no-proxy `192.0.2.*`: the beginning of an address",
            "write `192.0.2.0/24`",
        ),
        (
            &[proxy, "--no-proxy=a.example,http://b.example"],
            "--no-proxy `http://b.example`: an entry has no scheme",
            "write `b.example`",
        ),
        (&[proxy, "--parent-proxy-credentials", &open], "others than its owner can read it (mode 0644)", "chmod 600"),
        (&[proxy, "--parent-proxy-credentials", &two], "one line is expected", ""),
        (&[proxy, "--parent-proxy-credentials", &without_colon], "`user:password` is expected", ""),
        (&["--parent-proxy-credentials", &good], "there is no parent proxy", "set --parent-proxy to its URL"),
        (
            &["--parent-proxy=http://u:secret@p:1", "--parent-proxy-credentials", &good],
            "there are credentials in the URL, and in a file too",
            "`ps`",
        ),
        (
            &[proxy, "--forward=127.0.0.1:0", "--allow=*"],
            "--allow `*`: the address that a parent proxy connects to is not known here",
            "--allow-any-through-parent",
        ),
    ] {
        let said = config_check(flags);
        assert!(said.code == Some(2) && said.err.contains(expected) && said.err.contains(hint), "{flags:?}: {said:?}");
        assert!(!said.err.contains("secret"), "{said:?}");
    }
    for flags in [
        &[proxy, "--parent-proxy-credentials", &good, "--no-proxy=.b.example 192.0.2.0/24,*.c.example"][..],
        &[proxy, "--forward=127.0.0.1:0", "--allow=*", "--allow-any-through-parent"],
        &["--parent-proxy=direct"],
    ] {
        let said = config_check(flags);
        assert_eq!(said.code, Some(0), "{flags:?}: {said:?}");
    }
}

#[test]
fn settings_without_a_parent_to_be_for_are_reported() {
    for (flags, expected) in [
        (&["--no-proxy=a"][..], "--no-proxy has no effect: there is no --parent-proxy"),
        (&["--allow-any-through-parent"], "--allow-any-through-parent has no effect"),
        (
            &["--parent-proxy=http://p:1", &format!("--parent-ca-bundle={}", gallery::bundle(Bundle::Root))],
            "--parent-ca-bundle has no effect: no parent proxy is an `https://` one",
        ),
        (&["--parent-proxy=env"], "--parent-proxy `env`: neither HTTPS_PROXY nor https_proxy is set"),
    ] {
        let said = config_check(flags);
        assert!(said.code == Some(0) && said.err.contains(expected), "{flags:?}: {said:?}");
    }
}

#[test]
fn a_password_is_shown_nowhere() {
    let arguments = ["config", "show", "--parent-proxy", "http://user:secret@proxy.example:3128"];
    let said = vouchsafe(&arguments);
    assert!(said.out.contains("parent_proxy = \"http://…@proxy.example:3128\"  # --parent-proxy"), "{said:?}");
    assert!(!said.out.contains("secret"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_used_when_asked_for_only_and_a_line_says_so() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let parent = Parent::start(Answer::Tunnel).await;
    let flags = [vec!["--ca-bundle".into(), gallery::bundle(Bundle::Root)], origin.route()].concat();
    let url = format!("http://u:secret@{}", parent.address);
    let elsewhere = "http://192.0.2.1:1";
    for (flag, variables, used) in [
        (None, &[("HTTPS_PROXY", url.as_str())][..], false),
        (Some("--parent-proxy=env"), &[("HTTPS_PROXY", &url), ("https_proxy", elsewhere)], true),
        (
            Some("--parent-proxy=env"),
            &[("https_proxy", &url), ("HTTP_PROXY", elsewhere), ("ALL_PROXY", elsewhere)],
            true,
        ),
        (
            Some("--parent-proxy=env"),
            &[("HTTPS_PROXY", &url), ("NO_PROXY", "other.test 192.0.2.*,GALLERY.test")],
            false,
        ),
        (Some("--parent-proxy=env"), &[("HTTPS_PROXY", &url), ("no_proxy", "other.test")], true),
    ] {
        let before = parent.heads().len();
        let flags: Vec<String> = flags.iter().cloned().chain(flag.map(str::to_owned)).collect();
        let proxy = Proxy::start_with(&flags, variables);
        assert_eq!(exchange(proxy.addr(0), GET).await.status(), 200, "{variables:?}");
        assert_eq!(parent.heads().len() - before, usize::from(used), "{variables:?}");
        let log = proxy.raw_log();
        let line = "HTTPS_PROXY is set and not used; --parent-proxy env takes it";
        assert_eq!(log.matches(line).count(), usize::from(flag.is_none()), "{log}");
        let bad = "NO_PROXY `192.0.2.*` can never match";
        let has_bad = variables.iter().any(|(_, value)| value.contains('*'));
        assert_eq!(log.lines().any(|line| line.contains(bad) && line.contains("WARN")), has_bad, "{log}");
        assert!(!log.contains("secret"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_goes_through_the_parent_and_shows_it() {
    let [good, expired] = [Front::start(Case::Good).await, Front::start(Case::Expired).await];
    let parent = Parent::start(Answer::Tunnel).await;
    let url = format!("http://{}", parent.address);
    let check = async |flags: &[&str], target: &str| {
        let bundle = gallery::bundle(Bundle::Root);
        let arguments = [&["check", "--ca-bundle", bundle.as_str()], flags, &[target]].concat();
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        tokio::task::spawn_blocking(move || vouchsafe(&arguments)).await.unwrap()
    };
    let said = check(&["--parent-proxy", &url], &good.authority()).await;
    let hop = format!("  via      parent proxy {url}, which connects to {}\n", good.authority());
    assert!(said.code == Some(0) && said.out.contains(&hop) && !said.out.contains("  address  "), "{said:?}");
    let said = check(&["--parent-proxy", &url, "--json"], &good.authority()).await;
    let report = &said.json()[0];
    assert_eq!((&report["parent"], &report["address"]), (&url.clone().into(), &Value::Null), "{report}");
    let said = check(&["--parent-proxy", &url], &expired.authority()).await;
    assert!(said.code == Some(1) && said.out.contains("refused: expired") && said.out.contains("  via  "), "{said:?}");

    let denying = Parent::start(Answer::Say("HTTP/1.1 403 No\r\n\r\n".into())).await;
    let said = check(&[&denying.flag()], &good.authority()).await;
    assert!(said.code == Some(1) && said.out.contains("no connection: parent_denied"), "{said:?}");
    assert!(said.out.contains("most proxies permit CONNECT to port 443 only"), "{said:?}");
    let bad = Parent::with_tls(&GALLERY.identity(Case::Good).unwrap(), Answer::Tunnel).await;
    let said = check(&[&bad.tls_flag()], &good.authority()).await;
    assert!(said.code == Some(1) && said.out.contains("parent_tls: the parent proxy https://127.0.0.1:"), "{said:?}");
    assert!(said.out.contains("--parent-ca-bundle"), "{said:?}");
}

/// A script that asks for `/` of the first argument.
const CURL: &[&str] = &["curl", "--silent", "--show-error", "--fail", "--max-time", "20"];

#[tokio::test(flavor = "multi_thread")]
async fn tools_of_exec_go_through_the_parent_isolated_ones_too() {
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let parent = Parent::start(Answer::Tunnel).await;
    let authority = format!("good.gallery.test:{}", origin.address.port());
    let url = format!("http://{authority}/");
    let words = [CURL, &[url.as_str()]].concat();
    let allow = format!("--allow={authority}");
    let ended = Exec::new().flags(&[&parent.flag(), &allow]).run(&words).await;
    assert!(ended.code == Some(0) && ended.out == "ok", "{ended:?}");
    assert_eq!(parent.heads().len(), 1);
    // Nothing on this host knows the name; the parent is asked for it.
    let ended = Exec::isolated().flags(&[&parent.flag(), &allow]).run(&words).await;
    assert!(ended.code == Some(0) && ended.out == "ok", "{ended:?}");
    let target = format!("CONNECT {authority} HTTP/1.1");
    assert!(parent.heads().iter().all(|head| head.starts_with(&target)), "{:?}", parent.heads());
    assert_eq!(parent.heads().len(), 2);
}
