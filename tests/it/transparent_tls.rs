//! Clients that speak TLS on redirected connections, and inside `exec --isolate`.

use std::{fs, os::unix::fs::PermissionsExt};

use certs_dev::Case;

use crate::support::{
    dir,
    exec::{Exec, go_client},
    gallery::Front,
    local_ca::LocalCa,
    netns::{in_namespace, run},
};

use super::transparent::{HOST, Servers, curl, proxy, redirect, redirect_user, send};

#[test]
fn the_original_address_is_dialled_and_the_name_of_the_handshake_is_verified() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let good = servers.start(Case::Good, "203.0.113.9:9292");
        let expired = servers.start(Case::Expired, "203.0.113.9:5000");
        let ca = LocalCa::new(&[".gallery.test", "203.0.113.0/24"]);
        // The tool's user has to read it.
        let public = dir();
        fs::set_permissions(public.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let root = public.path().join("root.pem").display().to_string();
        fs::copy(ca.root(), &root).unwrap();
        let allowed = ["--allow", "good.gallery.test", "--allow", "expired.gallery.test"];
        let proxy = proxy(&[&allowed[..], &[&ca.flag()]].concat());
        redirect();
        for (name, port, expected, words) in [
            ("good.gallery.test", 9292, "200", "the answer"),
            ("expired.gallery.test", 5000, "403", "details=\"expired\""),
            // Allowed, and the server at that address does not prove it.
            ("expired.gallery.test", 9292, "403", "details=\"name_mismatch\""),
            ("other.gallery.test", 9292, "403", "details=\"destination_denied\""),
        ] {
            let (to, url) = (format!("{name}:{port}:203.0.113.9"), format!("https://{name}:{port}/"));
            let seen = curl(&["--cacert", &root, "--resolve", &to, &url]);
            assert!(seen.starts_with(&format!("HTTP/1.1 {expected} ")) && seen.contains(words), "{url}: {seen}");
        }
        let codes: Vec<_> =
            proxy.audit().iter().map(|event| event["error.code"].as_str().unwrap().to_owned()).collect();
        assert_eq!(codes, ["expired", "name_mismatch", "destination_denied"]);

        // Without a name in the handshake, the request has it.
        let by_address = ["-k", "-H", "Host: good.gallery.test:9292", "https://203.0.113.9:9292/"];
        assert!(curl(&by_address).contains("the answer"));
        let forged = ["-k", "-H", "Host: expired.gallery.test", "https://203.0.113.9:9292/"];
        assert!(curl(&forged).contains("details=\"name_mismatch\""));
        // With one, it has to be the same.
        let to = ["--resolve", "good.gallery.test:9292:203.0.113.9", "-H", "Host: expired.gallery.test"];
        let seen = curl(&[&["--cacert", &root], &to[..], &["https://good.gallery.test:9292/"]].concat());
        assert!(seen.contains("details=\"host_mismatch\""), "{seen}");
        assert_eq!((good.requests(), expired.application_bytes()), (2, 0));

        // Outside the CA, there is nothing that the client could be told but an alert.
        let seen = curl(&["-k", "--resolve", "a.example:9292:203.0.113.9", "https://a.example:9292/"]);
        assert!(seen.contains("alert access denied"), "{seen}");
        let event = proxy.audit().pop().unwrap();
        assert_eq!(event["error.code"], "destination_denied", "{event}");
        let plain = curl(&["-H", "Host: good.gallery.test", "http://203.0.113.9:9292/"]);
        assert!(plain.contains("the answer"), "{plain}");
    });
}

#[test]
fn the_port_of_a_connection_with_tls_means_itself() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let at_80 = servers.start(Case::Good, "203.0.113.9:80");
        let at_443 = servers.start(Case::Good, "203.0.113.9:443");
        let ca = LocalCa::new(&["good.gallery.test"]);
        let _proxy = proxy(&["--allow", "good.gallery.test", &ca.flag()]);
        redirect();
        let to = ["--resolve", "good.gallery.test:80:203.0.113.9"];
        for (url, expected) in [("https://good.gallery.test:80/", (1, 0)), ("http://good.gallery.test:80/", (1, 1))] {
            let seen = curl(&[&["-k"], &to[..], &[url]].concat());
            assert!(seen.contains("the answer"), "{seen}");
            assert_eq!((at_80.requests(), at_443.requests()), expected, "{url}");
        }
    });
}

#[test]
fn our_own_handshake_is_not_answered_by_ourselves() {
    in_namespace(HOST, || {
        let servers = Servers::new();
        let never = servers.start(Case::Good, "203.0.113.9:9292");
        let ca = LocalCa::new(&["good.gallery.test"]);
        let proxy = proxy(&["--allow", "good.gallery.test", &ca.flag()]);
        redirect_user("0", proxy.addr(0));
        let url = "https://good.gallery.test:9292/";
        let seen =
            run(&["sh", "-c", &format!("curl -sSik --resolve good.gallery.test:9292:203.0.113.9 {url} 2>&1; true")]);
        assert!(seen.contains("details=\"loop\""), "{seen}");
        let audit = proxy.audit();
        assert!(audit.len() == 2 && audit.iter().all(|event| event["error.code"] == "loop"), "{audit:?}");
        assert_eq!(never.connections(), 0);
    });
}

#[test]
fn garbage_that_begins_like_tls_is_refused() {
    in_namespace(HOST, || {
        let ca = LocalCa::new(&["good.gallery.test"]);
        let proxy = proxy(&["--allow", "*", "--head-timeout", "500ms", &ca.flag()]);
        redirect_user("0", proxy.addr(0));
        let (seen, _) = send("203.0.113.9:9292", b"\x16\x03\x01\x00\x05hello");
        assert!(seen.starts_with(b"\x15\x03"), "{seen:x?}");
        proxy.wait_for_log("the end", |event| event["class"] == "client_tls");
        let (seen, _) = send("203.0.113.9:9292", b"\x80\x2e\x01\x03\x01\x00\x15");
        assert_eq!(seen, b"\x15\x03\x03\0\x02\x02\x46");
        let event = proxy.audit().pop().unwrap();
        let message = event["error.message"].as_str().unwrap();
        assert!(message.starts_with("this client is too old for TLS here; let it speak plain HTTP"), "{message}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_isolated_tool_speaks_https_by_its_own_names_and_trusts_the_ca() {
    let (scratch, shared) = (dir(), dir());
    fs::set_permissions(shared.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let ca = LocalCa::of_user(&["good.gallery.test", "expired.gallery.test"]);
    let go = go_client(scratch.path());
    let curl: &[&str] = &["curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"];
    for tool in [curl, &[&go]] {
        for (case, status, requests) in [(Case::Good, "200", 1), (Case::Expired, "403", 0)] {
            let front = Front::start(case).await;
            let name = case.name();
            let to = format!("--connect-to={name}:9292={}", front.address);
            let flags = [format!("--allow={name}:9292"), to, "--log-level=error".into(), ca.flag()];
            let url = format!("https://{name}:9292/");
            let ended = Exec::isolated().flags(&flags).run(&[tool, &[&url]].concat()).await;
            assert_eq!(ended.out.trim(), status, "{tool:?}: {ended:?}");
            assert_eq!(front.counters.requests(), requests);
        }
    }
}
