//! Squid, tinyproxy and Apache as parent proxies, and the real tools of OpenStack behind Squid with Basic authentication.

use std::{fs, net::Ipv4Addr, path::Path, process::Command};

use certs_dev::{
    Bundle, Case,
    pki::{Authority, LeafSpec},
};

use crate::support::{
    self,
    cloud::{Clients, Cloud, OLD, TODAY, run},
    gallery::{self, GALLERY},
    glance15::is_available,
    image_server::{Image, ImageServer},
    origin::{Origin, exchange, send},
    parent::{RealParent, Rules},
    proxy::Proxy,
    replicator::{Release, real, roomy_dir, trusting},
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn flags(origin: &Origin, more: &[&str]) -> Vec<String> {
    let bundle = ["--ca-bundle".to_owned(), gallery::bundle(Bundle::Root)];
    bundle.into_iter().chain(origin.route()).chain(more.iter().map(|flag| (*flag).to_owned())).collect()
}

/// A request through a parent, and the line of the log if it fails.
async fn ask(origin: &Origin, more: &[&str]) -> Result<(), serde_json::Value> {
    let proxy = Proxy::start(&flags(origin, more));
    let seen = exchange(proxy.addr(0), GET).await;
    match seen.status() {
        200 => Ok(()),
        500 => Err(proxy.wait_for_log("the failure", |event| event["event"] == "request-failed")),
        status => panic!("{status}: {}", proxy.raw_log()),
    }
}

async fn needs_credentials(parent: RealParent, origin: &Origin) {
    let url = parent.url();
    ask(origin, &["--parent-proxy", &url]).await.unwrap();
    for (url, sentence) in [
        (parent.bare_url(), " wants credentials: it answered 407"),
        (url.replace("word", "other"), " wants other credentials: it answered 40"),
    ] {
        let before = origin.connections();
        let line = ask(origin, &["--parent-proxy", &url]).await.unwrap_err();
        assert!(line["class"] == "parent_auth" && line["message"].as_str().unwrap().contains(sentence), "{line}");
        assert_eq!(origin.connections(), before, "{line}");
    }
}

async fn permits_port_443_only(parent: RealParent, origin: &Origin) {
    let line = ask(origin, &["--parent-proxy", &parent.bare_url()]).await.unwrap_err();
    assert_eq!(line["class"], "parent_denied", "{line}");
    assert!(line["hint"].as_str().unwrap().contains("port 443 only"), "{line}");
    assert_eq!(origin.connections(), 0, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn real_parents_want_credentials_and_open_tunnels() {
    let dir = support::dir();
    let at = |name: &str| dir.path().join(name);
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    needs_credentials(RealParent::squid(&at("squid"), Rules::Credentials, None), &origin).await;
    needs_credentials(RealParent::tinyproxy(&at("tinyproxy"), Rules::Credentials), &origin).await;
    needs_credentials(RealParent::apache(&at("apache"), Rules::Credentials), &origin).await;
    for request in origin.requests() {
        assert!(!request.to_ascii_lowercase().contains("proxy-auth"), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_parents_permit_port_443_only_as_they_come_and_the_hint_says_so() {
    let dir = support::dir();
    let at = |name: &str| dir.path().join(name);
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    permits_port_443_only(RealParent::squid(&at("squid"), Rules::OnlyPort443, None), &origin).await;
    permits_port_443_only(RealParent::tinyproxy(&at("tinyproxy"), Rules::OnlyPort443), &origin).await;
    permits_port_443_only(RealParent::apache(&at("apache"), Rules::OnlyPort443), &origin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn squid_cannot_reach_every_upstream_and_says_so() {
    let dir = support::dir();
    let squid = RealParent::squid(dir.path(), Rules::Credentials, None);
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let authority = format!("good.gallery.test:{}", origin.address.port());
    let bundle = gallery::bundle(Bundle::Root);
    let flags = [
        format!("--ca-bundle={bundle}"),
        format!("--route=127.0.0.1:0=https://{authority}"),
        format!("--connect-to={authority}={dead}"),
        format!("--parent-proxy={}", squid.url()),
    ];
    let proxy = Proxy::start(&flags);
    assert_eq!(exchange(proxy.addr(0), GET).await.status(), 500);
    let line = proxy.wait_for_log("the failure", |event| event["event"] == "request-failed");
    assert_eq!(line["class"], "parent_upstream", "{line}");
    assert!(line["message"].as_str().unwrap().contains("503 Service Unavailable"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn squid_with_a_certificate_is_verified() {
    let dir = support::dir();
    let origin = Origin::start(|_, _| vec![send(OK)]).await;
    // Of one tier, since Squid with GnuTLS sends no intermediates.
    let now = time::OffsetDateTime::now_utc();
    let authority = Authority::root("Root of the parent", now).unwrap();
    let bundle = dir.path().join("parent.pem");
    fs::write(&bundle, authority.certificate_pem()).unwrap();
    let bundle = bundle.display().to_string();
    for (name, ip, status) in [("good", [127, 0, 0, 1], 200), ("wrong", [192, 0, 2, 1], 403)] {
        let identity = authority.issue(&LeafSpec::new(name, now).ip(Ipv4Addr::from(ip))).unwrap();
        let squid = RealParent::squid(&dir.path().join(name), Rules::Credentials, Some(&identity));
        let url = squid.url().replace("http://", "https://");
        let proxy = Proxy::start(&flags(&origin, &["--parent-proxy", &url, "--parent-ca-bundle", &bundle]));
        assert_eq!(exchange(proxy.addr(0), GET).await.status(), status, "{name}");
        let codes: Vec<_> = proxy.audit().iter().map(|event| event["error.code"].clone()).collect();
        assert_eq!(codes.is_empty(), status == 200, "{codes:?}");
        assert!(codes.iter().all(|code| code == "parent_tls"), "{codes:?}");
    }
    assert_eq!(origin.connections(), 1);
}

/// The parent's credentials as a file.
fn credentials(dir: &Path) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("credentials");
    fs::write(&path, "vouchsafe:pass-word\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

#[test]
fn both_replicators_work_through_squid_with_credentials() {
    let dir = support::dir();
    let squid = RealParent::squid(&dir.path().join("squid"), Rules::Credentials, None);
    let images: Vec<_> =
        (1..=5).map(|number| Image::new(number, "image", vec![b'x'; number as usize * 70_000]).owned()).collect();
    let [good, other] = [Case::Good, Case::GoodWildcard].map(|case| (case, GALLERY.identity(case).unwrap()));
    for release in [Release::Glance33, Release::Glance15] {
        if release == Release::Glance15 && !is_available("both_replicators_work_through_squid_with_credentials") {
            continue;
        }
        let source = ImageServer::start(&good.1, images.clone());
        let target = ImageServer::start(&other.1, []);
        let mut sidecar = trusting(Case::Good.bundle(), release == Release::Glance33);
        sidecar.route(good.0.name(), source.port());
        sidecar.route(other.0.name(), target.port());
        sidecar.set("--parent-proxy", &squid.bare_url());
        sidecar.set("--parent-proxy-credentials", &credentials(dir.path()));
        let proxy = sidecar.start();
        let [from, to] = [0, 1].map(|n| proxy.addr(n).to_string());
        release.run(&["livecopy", &from, &to]).succeeded();
        let copied = target.images();
        assert!(images.iter().all(|image| copied[image.id()].data == image.data), "{release:?}");
        let via = format!("http://127.0.0.1:{}", squid.port);
        proxy.wait_for_access("a request by Squid", |event| event["via"] == via);
    }
}

/// The HTTP store of glance_store reads an image by the URL that its location has.
const STORE: &str = r#"
import sys
from oslo_config import cfg
from glance_store import location
from glance_store._drivers import http
conf = cfg.ConfigOpts()
import glance_store
glance_store.register_opts(conf)
conf([], default_config_files=[])
store = http.Store(conf)
store.configure()
where = location.Location("http", http.StoreLocation, conf, uri=sys.argv[1])
chunks, size = store.get(where)
data = b"".join(chunks)
assert len(data) == int(size), (len(data), size)
sys.stdout.buffer.write(data)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_http_store_of_glance_works_through_squid_with_credentials() {
    let dir = support::dir();
    let squid = RealParent::squid(&dir.path().join("squid"), Rules::Credentials, None);
    let image = "i".repeat(300_000);
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{image}", image.len());
    let origin = Origin::start(move |_, _| vec![send(&answer)]).await;
    let file = credentials(dir.path());
    let proxy =
        Proxy::start(&flags(&origin, &["--parent-proxy", &squid.bare_url(), "--parent-proxy-credentials", &file]));
    let mut command = Command::new("timeout");
    command.arg("60").arg(real().join("glance33/bin/python")).args(["-c", STORE]);
    command.arg(format!("http://{}/image", proxy.addr(0))).env("PYTHONWARNINGS", "ignore");
    for ambient in ["http_proxy", "HTTP_PROXY", "PYTHONPATH"] {
        command.env_remove(ambient);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.stdout == image.as_bytes(), "{}", String::from_utf8_lossy(&output.stderr));
    let access = proxy.wait_for_access("a request", |event| event["status"] == 200);
    assert_eq!(access["via"], format!("http://127.0.0.1:{}", squid.port));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_clients_of_openstack_work_through_squid_with_credentials() {
    if !is_available("the_clients_of_openstack_work_through_squid_with_credentials") {
        return;
    }
    let dir = roomy_dir();
    let cloud = Cloud::start(dir.path(), "https").await;
    let squid_dir = support::dir();
    let squid = RealParent::squid(squid_dir.path(), Rules::Credentials, None);
    // The cloud is on a loopback address, which goes to no parent unless that is configured for the upstream itself.
    let sections: String = (cloud.ports().split(','))
        .map(|port| format!("[[upstream]]\nof = \"127.0.0.1:{port}\"\nparent_proxy = \"{}\"\n", squid.url()))
        .collect();
    let config = dir.path().join("vouchsafe.toml");
    fs::write(&config, sections).unwrap();
    let more = [
        "--preset=openstack".to_owned(),
        format!("--mirror=127.0.0.2=127.0.0.1:{}", cloud.ports()),
        format!("--config={}", config.display()),
    ];
    let proxy = Proxy::start(&[cloud.flags(), more.to_vec()].concat());
    let keystone = |version: &str| ("OS_AUTH_URL", format!("http://127.0.0.2:{}/{version}", cloud.keystone_port()));
    for call in TODAY {
        let end = run(Clients::Today, call, &[keystone("v3")]);
        assert!(end.success, "{end}");
    }
    for (call, shown) in OLD {
        let end = run(Clients::Old, call, &[keystone("v2.0")]);
        assert!(end.success && end.out.contains(shown), "{end}");
    }
    assert_eq!(cloud.connections_past(), 0);
    let log = proxy.log();
    let access = || log.iter().filter(|event| event["message"] == "request");
    assert!(access().count() > 20);
    let via = format!("http://127.0.0.1:{}", squid.port);
    assert!(access().all(|event| event["via"] == via), "{}", proxy.raw_log());
}
