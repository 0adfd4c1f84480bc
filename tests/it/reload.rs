//! Trust changes are obeyed at once: by the files' contents and by SIGHUP, whole or not at all, and for
//! connections that stand already.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use certs_dev::{
    Case, Identity,
    pki::{Authority, LeafSpec, Validity},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::support::{
    self,
    gallery::GALLERY,
    origin::{Origin, exchange, read_response, read_to_end, send},
    proxy::Proxy,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A CA of its own, and a server that has a certificate of it.
struct World {
    authority: Authority,
    origin: Origin,
}

impl World {
    async fn new(name: &str) -> Self {
        let now = time::OffsetDateTime::now_utc();
        let authority = Authority::root(name, now).unwrap();
        let identity = authority.issue(&LeafSpec::new(name, now).dns(Case::Good.name())).unwrap();
        let origin = Origin::with_identity(&identity, |_, _| vec![send(OK)]).await;
        Self { authority, origin }
    }

    fn pem(&self) -> String {
        self.authority.certificate_pem()
    }
}

/// A directory with files that are replaced as a whole, by renaming.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Self(support::dir())
    }

    fn put(&self, name: &str, text: &str) -> String {
        let partial = self.0.path().join(format!("{name}.new"));
        std::fs::write(&partial, text).unwrap();
        std::fs::rename(&partial, self.path(name)).unwrap();
        self.path(name).display().to_string()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

async fn status(proxy: &Proxy, n: usize) -> u16 {
    exchange(proxy.addr(n), b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.status()
}

fn last_code(proxy: &Proxy) -> String {
    proxy.audit().last().map(|event| event["error.code"].as_str().unwrap().to_owned()).unwrap_or_default()
}

fn generation(proxy: &Proxy, number: u64) {
    proxy.wait_for_log("a new generation", |event| event["message"] == "reloaded" && event["generation"] == number);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_distrusted_connections_end_within_a_second_and_no_trusted_request_is_lost() {
    let (kept, dropped) = (World::new("Kept").await, World::new("Dropped").await);
    let files = Files::new();
    let both = kept.pem() + &dropped.pem();
    let bundle = files.put("bundle.pem", &both);
    let mut flags = vec!["--ca-bundle".to_owned(), bundle];
    flags.extend(kept.origin.route());
    flags.extend(dropped.origin.route());
    let proxy = Proxy::start(&flags);
    let (stop, served, lost) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (stop, served, lost, address) = (stop.clone(), served.clone(), lost.clone(), proxy.addr(0));
        clients.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            while !stop.load(Ordering::SeqCst) {
                stream.write_all(GET).await.unwrap();
                let whole = read_response(&mut stream).await.starts_with("HTTP/1.1 200");
                if whole { &served } else { &lost }.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let mut fastest = Duration::MAX;
    // Three times, since the machine that runs the tests may be busy with others.
    for round in 0..3 {
        for _ in 0..3 {
            assert_eq!(status(&proxy, 1).await, 200);
        }
        let open = dropped.origin.connections();
        let (before, replaced) = (served.load(Ordering::SeqCst), Instant::now());
        files.put("bundle.pem", &kept.pem());
        dropped.origin.has_closed(open).await;
        fastest = fastest.min(replaced.elapsed());
        assert_eq!(status(&proxy, 1).await, 403);
        assert_eq!(last_code(&proxy), "incomplete_chain");
        assert_eq!(dropped.origin.connections(), open, "round {round}: the refused server was spoken to");
        files.put("bundle.pem", &both);
        generation(&proxy, 3 + 2 * round);
        assert!(served.load(Ordering::SeqCst) > before);
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(lost.load(Ordering::SeqCst), 0);
    assert!(fastest < Duration::from_secs(1), "{fastest:?}");
    assert!(kept.origin.connections() <= 8, "trusted connections were not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_connection_finishes_its_exchange_and_is_not_used_again() {
    let now = time::OffsetDateTime::now_utc();
    let (old, new) = (Authority::root("Old", now).unwrap(), Authority::root("New", now).unwrap());
    let identity = old.issue(&LeafSpec::new("old", now).dns(Case::Good.name())).unwrap();
    let (open, opened) = std::sync::mpsc::channel::<()>();
    let opened = std::sync::Mutex::new(opened);
    let origin = Origin::with_identity(&identity, move |_, _| {
        opened.lock().unwrap().recv().unwrap();
        vec![send(OK)]
    })
    .await;
    let files = Files::new();
    let mut flags = vec!["--ca-bundle".to_owned(), files.put("bundle.pem", &old.certificate_pem())];
    flags.extend(origin.route());
    let proxy = Proxy::start(&flags);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    client.write_all(GET).await.unwrap();
    origin.has_requests(1).await;
    files.put("bundle.pem", &new.certificate_pem());
    generation(&proxy, 2);
    open.send(()).unwrap();
    assert!(read_response(&mut client).await.ends_with("ok"));
    origin.has_closed(1).await;
    client.write_all(GET).await.unwrap();
    assert_eq!(read_to_end(&mut client).await.status(), 403);
    assert_eq!((origin.requests().len(), origin.connections()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_keeps_the_old_generation_and_is_counted() {
    let world = World::new("World").await;
    let files = Files::new();
    let mut flags = vec!["--ca-bundle".to_owned(), files.put("bundle.pem", &world.pem())];
    flags.extend(world.origin.route());
    let proxy = Proxy::start(&flags);
    for (count, broken) in ["", "-----BEGIN CERTIFICATE-----\nAAAA", "no certificate"].iter().enumerate() {
        files.put("bundle.pem", broken);
        let said = proxy.wait_for_log("a failed reload", |event| event["failed_reloads"] == count + 1);
        assert!(said["message"].as_str().unwrap().contains("bundle.pem"), "{said}");
        assert_eq!(said["level"], "ERROR");
        assert_eq!(status(&proxy, 0).await, 200);
    }
    std::fs::remove_file(files.path("bundle.pem")).unwrap();
    proxy.wait_for_log("a failed reload", |event| event["failed_reloads"] == 4);
    files.put("bundle.pem", &world.pem());
    generation(&proxy, 2);
    assert_eq!(status(&proxy, 0).await, 200);
    assert_eq!(world.origin.connections(), 1, "the connection was good all the time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_is_followed_when_it_is_moved_as_kubernetes_does_it() {
    let (one, two) = (World::new("One").await, World::new("Two").await);
    let files = Files::new();
    let link = |from: &str, to: &str| std::os::unix::fs::symlink(to, files.path(from)).unwrap();
    for (name, world) in [("..first", &one), ("..second", &two)] {
        std::fs::create_dir(files.path(name)).unwrap();
        std::fs::write(files.path(name).join("ca.pem"), world.pem()).unwrap();
    }
    link("..data", "..first");
    link("ca.pem", "..data/ca.pem");
    for bundle in [files.path("ca.pem"), files.0.path().to_owned()] {
        let mut flags = vec!["--ca-bundle".to_owned(), bundle.display().to_string()];
        flags.extend(one.origin.route());
        flags.extend(two.origin.route());
        let proxy = Proxy::start(&flags);
        assert_eq!((status(&proxy, 0).await, status(&proxy, 1).await), (200, 403));
        link("..data_tmp", "..second");
        std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
        generation(&proxy, 2);
        assert_eq!((status(&proxy, 0).await, status(&proxy, 1).await), (403, 200));
        link("..data_tmp", "..first");
        std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
        generation(&proxy, 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_list_that_appears_closes_the_connections_it_names() {
    let origin = Origin::with_identity(&GALLERY.identity(Case::Revoked).unwrap(), |_, _| vec![send(OK)]).await;
    let now = time::OffsetDateTime::now_utc();
    let files = Files::new();
    let nobody = Authority::root("Nobody", now).unwrap().crl_pem(&[], now).unwrap();
    let list = files.put("list.pem", &nobody);
    let name = format!("{}:{}", Case::Revoked.name(), origin.address.port());
    let flags = [
        "--ca-bundle".to_owned(),
        support::gallery::bundle(certs_dev::Bundle::Root),
        "--crl".into(),
        list,
        "--route".into(),
        format!("127.0.0.1:0=https://{name}"),
        "--connect-to".into(),
        format!("{name}={}", origin.address),
    ];
    let proxy = Proxy::start(&flags);
    assert_eq!(status(&proxy, 0).await, 200);
    files.put("list.pem", &GALLERY.crl_pem());
    origin.has_closed(1).await;
    assert_eq!(status(&proxy, 0).await, 403);
    assert_eq!(last_code(&proxy), "revoked");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reloads_all_but_what_takes_a_restart() {
    let world = World::new("World").await;
    let files = Files::new();
    let bundle = files.put("bundle.pem", &world.pem());
    let name = format!("{}:{}", Case::Good.name(), world.origin.address.port());
    let text = |more: &str, section: &str| {
        format!(
            "ca_bundle = [\"{bundle}\"]\nroute = [\"127.0.0.1:0=https://{name}\"]\nreload_interval = \"1h\"\n{more}\n\
             [[upstream]]\nof = \"{name}\"\nconnect_to = \"{}\"\n{section}\n",
            world.origin.address
        )
    };
    let config = files.put("vouchsafe.toml", &text("", ""));
    let proxy = Proxy::start(&["--config", &config]);
    assert_eq!(status(&proxy, 0).await, 200);
    files.put("vouchsafe.toml", &text("", "pins = [\"sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"]"));
    proxy.signal("HUP");
    world.origin.has_closed(1).await;
    assert_eq!(status(&proxy, 0).await, 403);
    assert_eq!(last_code(&proxy), "pin_mismatch");
    files.put("vouchsafe.toml", &text("drain_timeout = \"7s\"\nanswer = \"standard\"", "verify_name = \"other.test\""));
    proxy.signal("HUP");
    generation(&proxy, 3);
    assert_eq!(status(&proxy, 0).await, 502);
    assert_eq!(last_code(&proxy), "name_mismatch");
    assert!(proxy.raw_log().contains("--drain-timeout: the new value needs a restart"));
    files.put("vouchsafe.toml", &text("forward = [\"127.0.0.1:0\"]", ""));
    proxy.signal("HUP");
    let said = proxy.wait_for_log("a refusal", |event| event["failed_reloads"] == 1);
    assert!(said["message"].as_str().unwrap().contains("without a restart"), "{said}");
    assert_eq!(status(&proxy, 0).await, 502);
    assert_eq!(world.origin.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_client_certificate_is_for_new_connections() {
    let world = World::new("World").await;
    let files = Files::new();
    let now = time::OffsetDateTime::now_utc();
    let make = || world.authority.issue(&LeafSpec::new("client", now).dns("client.test")).unwrap();
    let write = |identity: &Identity| files.put("client.pem", &(identity.chain_pem() + &identity.key_pem()));
    let client = write(&make());
    let mut flags =
        vec!["--ca-bundle".to_owned(), files.put("bundle.pem", &world.pem()), "--client-cert".into(), client];
    flags.extend(world.origin.route());
    let proxy = Proxy::start(&flags);
    assert_eq!(status(&proxy, 0).await, 200);
    // Its key alone would be a broken file.
    files.put("client.pem", &make().key_pem());
    proxy.wait_for_log("a failed reload", |event| event["failed_reloads"] == 1);
    write(&make());
    world.origin.has_closed(1).await;
    assert_eq!(status(&proxy, 0).await, 200);
    assert_eq!(world.origin.connections(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_the_certificate_it_rests_on() {
    let now = time::OffsetDateTime::now_utc();
    let authority = Authority::root("Brief", now).unwrap();
    let mut spec = LeafSpec::new("brief", now).dns(Case::Good.name());
    spec.validity =
        Validity { not_before: now - time::Duration::hours(1), not_after: now + time::Duration::seconds(3) };
    let origin = Origin::with_identity(&authority.issue(&spec).unwrap(), |_, _| vec![send(OK)]).await;
    let files = Files::new();
    let mut flags = vec!["--ca-bundle".to_owned(), files.put("bundle.pem", &authority.certificate_pem())];
    flags.extend(origin.route());
    let proxy = Proxy::start(&flags);
    let mut client = TcpStream::connect(proxy.addr(0)).await.unwrap();
    loop {
        client.write_all(GET).await.unwrap();
        let (asked, response) = (time::OffsetDateTime::now_utc(), read_first(&mut client).await);
        if response == 403 {
            assert!(time::OffsetDateTime::now_utc() >= spec.validity.not_after - time::Duration::seconds(1));
            break;
        }
        assert_eq!(response, 200);
        // A certificate is valid through the whole of its last second.
        assert!(asked < spec.validity.not_after + time::Duration::seconds(1), "it is used beyond its end");
    }
    assert_eq!(last_code(&proxy), "expired");
    assert_eq!(origin.connections(), 1);
}

/// The status of the next response; one that ends the connection may have any body.
async fn read_first(client: &mut TcpStream) -> u16 {
    use tokio::io::AsyncReadExt;
    let mut bytes = [0; 4096];
    let count = client.read(&mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{text:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_requests_is_none_of_handshakes_and_each_is_answered_and_recorded() {
    const STORM: usize = 60;
    let front = support::gallery::Front::start(Case::Expired).await;
    let mut flags = vec!["--ca-bundle".to_owned(), support::gallery::bundle(certs_dev::Bundle::Root)];
    flags.extend(front.route());
    let proxy = Proxy::start(&flags);
    for _ in 0..STORM {
        assert_eq!(status(&proxy, 0).await, 403);
    }
    let events = proxy.audit();
    let remembered = events.iter().filter(|event| event["vouchsafe.occasion"] == "remembered").count();
    assert_eq!(events.len(), STORM);
    assert!(remembered > 0);
    assert_eq!(front.counters.connections(), (STORM - remembered) as u64);
    assert!(events.iter().all(|event| event["error.code"] == "expired" && event["vouchsafe.chain_length"] == 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_meets_a_reload_goes_by_the_new_settings_whatever_they_are() {
    use tokio::net::TcpListener;
    // A relay that holds back the connection until it may go on, so that the reload falls into the handshake.
    let world = World::new("World").await;
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, to) = (relay.local_addr().unwrap(), world.origin.address);
    let (go, mut wait) = tokio::sync::mpsc::unbounded_channel::<()>();
    let (came, mut arrived) = tokio::sync::mpsc::unbounded_channel::<()>();
    tokio::spawn(async move {
        while let Ok((mut inward, _)) = relay.accept().await {
            came.send(()).unwrap();
            let Some(()) = wait.recv().await else { return };
            let mut outward = TcpStream::connect(to).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut inward, &mut outward).await;
        }
    });
    let files = Files::new();
    let bundle = files.put("bundle.pem", &world.pem());
    let name = format!("{}:{}", Case::Good.name(), address.port());
    let other = Authority::root("Other", time::OffsetDateTime::now_utc()).unwrap();
    let config = |allow: &str, to: &str| {
        format!(
            "ca_bundle = \"{bundle}\"\nforward = \"127.0.0.1:0\"\nallow = [{allow}]\nconnect_to = \"{name}={to}:{}\"\n",
            address.port()
        )
    };
    let proxy = Proxy::start(&["--config", &files.put("vouchsafe.toml", &config("\"*\"", "127.0.0.1"))]);
    let request = format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    let ask = || {
        let (address, request) = (proxy.addr(0), request.clone());
        tokio::spawn(async move { exchange(address, request.as_bytes()).await })
    };
    // It is elsewhere now; a request that is rightly allowed is not lost.
    let asked = ask();
    arrived.recv().await.unwrap();
    files.put("vouchsafe.toml", &config("\"*\"", "localhost"));
    generation(&proxy, 2);
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(asked.await.unwrap().status(), 200);
    // Nothing allows it any more.
    let seen = world.origin.requests().len();
    files.put("vouchsafe.toml", &config("\"elsewhere.test\"", "127.0.0.1"));
    generation(&proxy, 3);
    assert_eq!(ask().await.unwrap().status(), 403);
    // Nobody trusts it any more: the event is of the settings that refused.
    files.put("vouchsafe.toml", &config("\"*\"", "127.0.0.1"));
    generation(&proxy, 4);
    while arrived.try_recv().is_ok() {}
    let asked = ask();
    arrived.recv().await.unwrap();
    files.put("bundle.pem", &other.certificate_pem());
    generation(&proxy, 5);
    go.send(()).unwrap();
    go.send(()).unwrap();
    assert_eq!(asked.await.unwrap().status(), 403);
    let event = proxy.audit().pop().unwrap();
    assert_eq!((&event["error.code"], &event["vouchsafe.generation"]), (&"incomplete_chain".into(), &5.into()));
    assert_eq!(world.origin.requests().len(), seen);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_never_answers_holds_up_neither_requests_nor_the_end() {
    let world = World::new("World").await;
    let files = Files::new();
    let mut flags = vec!["--ca-bundle".to_owned(), files.put("bundle.pem", &world.pem())];
    flags.extend(world.origin.route());
    let mut proxy = Proxy::start(&flags);
    let pipe = files.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::fs::rename(&pipe, files.path("bundle.pem")).unwrap();
    let said = proxy.wait_for_log("a failed reload", |event| event["failed_reloads"] == 1);
    assert!(said["message"].as_str().unwrap().contains("a pipe or a device is read at start only"), "{said}");
    assert_eq!(status(&proxy, 0).await, 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_belongs_to_one_client_is_verified_again_too() {
    let (kept, dropped) = (World::new("Kept").await, World::new("Dropped").await);
    let files = Files::new();
    let bundle = files.put("bundle.pem", &(kept.pem() + &dropped.pem()));
    let mut flags = vec!["--ca-bundle".to_owned(), bundle];
    flags.extend(kept.origin.route());
    flags.extend(dropped.origin.route());
    let proxy = Proxy::start(&flags);
    let mut clients = Vec::new();
    for listener in 0..2 {
        let mut client = TcpStream::connect(proxy.addr(listener)).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: NTLM x\r\n\r\n").await.unwrap();
        assert!(read_response(&mut client).await.starts_with("HTTP/1.1 200 "));
        clients.push(client);
    }
    files.put("bundle.pem", &kept.pem());
    generation(&proxy, 2);
    for (client, status) in clients.iter_mut().zip([200, 403]) {
        client.write_all(GET).await.unwrap();
        let response = read_response(client).await;
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    }
    assert_eq!((kept.origin.connections(), dropped.origin.connections()), (1, 1));
}
