//! Real Glance 15 servers and their replicator, with nginx and hitch ending TLS, and the sidecar
//! between: all five commands carry everything, and with a bad certificate none of them ends well.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use certs_dev::Case;
use serde_json::Value;

use crate::support::gallery::GALLERY;
use crate::support::glance15::{Glance, Hitch, Nginx, Site, is_available};
use crate::support::image_server::{GalleryServer, id};
use crate::support::replicator::{Release, bad_cases, complaints, explained, files_in, roomy_dir, trusting};

#[test]
fn all_five_commands_carry_every_image_and_the_sidecar_stays_small() {
    if !is_available("all_five_commands_carry_every_image_and_the_sidecar_stays_small") {
        return;
    }
    let dir = roomy_dir();
    let at = |name: &str| dir.path().join(name);
    let identity = |case| GALLERY.identity(case).expect("an identity");

    let [source, loaded, copied] = ["source", "loaded", "copied"].map(|name| Glance::start(&at(name)));
    let seeds = seeds(&at("seeds"));
    for (id, path) in &seeds {
        source.seed(id, &format!("image {id}"), path);
    }
    let nginx_identity = identity(Case::Good);
    let site = Site { identity: &nginx_identity, backend: source.port };
    let source_front = Nginx::start(&at("nginx"), &[site]);
    let loaded_front = Hitch::start(&at("hitch"), &identity(Case::GoodRsa2048), loaded.port);
    let copied_identity = identity(Case::GoodWildcard);
    let site = Site { identity: &copied_identity, backend: copied.port };
    let copied_front = Nginx::start(&at("nginx-copied"), &[site]);

    let mut sidecar = trusting(Case::Good.bundle(), false);
    sidecar.route(Case::Good.name(), source_front.ports[0]);
    sidecar.route(Case::GoodRsa2048.name(), loaded_front.port);
    sidecar.route(Case::GoodWildcard.name(), copied_front.ports[0]);
    let proxy = sidecar.start();
    let [from, to_load, to_copy] = [0, 1, 2].map(|n| proxy.addr(n).to_string());
    let replicate = |arguments: &[&str]| Release::Glance15.run(arguments).succeeded();

    let size = replicate(&["size", &from]);
    let total: u64 = seeds.values().map(|path| length(path)).sum();
    let said = format!("Total size is {total} bytes");
    assert!(size.stdout.contains(&said), "{size}");
    assert!(size.stdout.contains(&format!("across {} images", seeds.len())), "{size}");

    let dump = at("dump");
    fs::create_dir(&dump).expect("a directory");
    let dump_name = dump.display().to_string();
    replicate(&["dump", &from, &dump_name]);
    for (id, seed) in &seeds {
        assert_same(seed, &dump.join(format!("{id}.img")));
    }

    replicate(&["load", &to_load, &dump_name]);
    assert_holds(&loaded, &source, &seeds);
    fs::remove_dir_all(&dump).expect("the dump");

    let compare = replicate(&["compare", &from, &to_load]);
    assert!(compare.missing().is_empty(), "{compare}");
    assert!(!compare.differences().is_empty(), "{compare}");
    assert!(compare.differences().iter().all(|it| it.is_of_type_alone()), "{compare}");
    let compare = replicate(&["compare", &from, &to_copy]);
    assert_eq!(compare.missing(), seeds.keys().cloned().collect(), "{compare}");

    replicate(&["livecopy", &from, &to_copy]);
    assert_holds(&copied, &source, &seeds);

    assert!(proxy.audit().is_empty(), "{:?}", proxy.audit());
    let peak = proxy.peak_memory_kib();
    eprintln!("the sidecar's peak after {total} bytes, four times: {peak} KiB");
    assert!(peak < 40 * 1024, "the sidecar has grown to {peak} KiB");
}

/// nginx serves the bad certificates, and the test's own server those that OpenSSL declines to load.
#[test]
fn with_a_bad_certificate_every_command_ends_loudly_and_changes_nothing() {
    if !is_available("with_a_bad_certificate_every_command_ends_loudly_and_changes_nothing") {
        return;
    }
    let dir = roomy_dir();
    let at = |name: &str| dir.path().join(name);
    let [source, target] = ["source", "target"].map(|name| Glance::start(&at(name)));
    let seed = at("seed");
    fs::write(&seed, [7; 50_000]).expect("a seed");
    for number in 1..=3 {
        source.seed(&id(number), "seed", &seed);
    }
    let dump = at("dump");
    fs::create_dir(&dump).expect("a directory");
    let plain = format!("127.0.0.1:{}", source.port);
    let dump = dump.display().to_string();
    Release::Glance15.run(&["dump", &plain, &dump]).succeeded();

    let fronts = Fronts::start(&dir.path().join("nginx"), &source, &target);
    let good = fronts.of(Case::Good);
    let sidecars: Vec<_> = fronts
        .kinds()
        .into_iter()
        .map(|kind| {
            let mut sidecar = trusting(kind.0, kind.1);
            let mut listeners = BTreeMap::new();
            for front in fronts.all.iter().filter(|front| front.case == Case::Good || front.kind() == kind) {
                for port in [front.source_port, front.target_port] {
                    listeners.insert(port, sidecar.route(front.case.name(), port));
                }
            }
            (kind, sidecar.start(), listeners)
        })
        .collect();

    let bad = fronts.all.iter().filter(|front| front.case != Case::Good);
    let runs = bad.flat_map(|front| Run::ALL.iter().map(move |run| (front, *run)));
    let found = complaints(runs, |(front, run)| {
        let (_, proxy, listeners) = sidecars.iter().find(|(kind, ..)| *kind == front.kind()).expect("a sidecar");
        let through = |port: u16| proxy.addr(listeners[&port]).to_string();
        let [good_source, good_target] = [good.source_port, good.target_port].map(through);
        let [bad_source, bad_target] = [front.source_port, front.target_port].map(through);
        let scratch = at(&format!("{run:?}-{}", front.case.id()));
        fs::create_dir(&scratch).expect("a directory");
        let place = scratch.display().to_string();
        let (arguments, port): (&[&str], u16) = match run {
            Run::Size => (&["size", &bad_source], front.source_port),
            Run::Dump => (&["dump", &bad_source, &place], front.source_port),
            Run::Load => (&["load", &bad_target, &dump], front.target_port),
            Run::CompareSource => (&["compare", &bad_source, &good_target], front.source_port),
            Run::CompareTarget => (&["compare", &good_source, &bad_target], front.target_port),
            Run::CopySource => (&["livecopy", &bad_source, &good_target], front.source_port),
            Run::CopyTarget => (&["livecopy", &good_source, &bad_target], front.target_port),
        };
        let outcome = Release::Glance15.run(arguments);
        let fails = |what: String| Err(format!("{} {run:?}: {what}", front.case.id()));
        if let Err(why) = outcome.loudness() {
            return fails(why);
        }
        if !files_in(&scratch).is_empty() {
            return fails(format!("{:?} was written: {outcome}", files_in(&scratch)));
        }
        explained(&proxy.audit(), front.case, front.code, port).or_else(fails)
    });

    assert!(found.is_empty(), "{}", found.join("\n\n"));
    assert_eq!(target.images(), Vec::<Value>::new(), "something came to the target");
    for front in fronts.all.iter().filter(|front| front.case != Case::Good) {
        assert_eq!(fronts.reached(front), "", "{} let a request through", front.case.id());
    }
    assert!(!fronts.nginx.reached(good.source_port).is_empty(), "nginx writes no log");
}

/// What is run with a case: the command, and the side on which the bad certificate is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Run {
    Size,
    Dump,
    Load,
    CompareSource,
    CompareTarget,
    CopySource,
    CopyTarget,
}

impl Run {
    const ALL: &[Self] = &[
        Self::Size,
        Self::Dump,
        Self::Load,
        Self::CompareSource,
        Self::CompareTarget,
        Self::CopySource,
        Self::CopyTarget,
    ];
}

/// What decides which sidecar serves a case.
type Kind = (certs_dev::Bundle, bool);

/// A case in front of the source, and in front of the target.
struct Front {
    case: Case,
    code: &'static str,
    source_port: u16,
    target_port: u16,
    /// The two servers, if they are ours and not nginx's.
    ours: Vec<GalleryServer>,
}

impl Front {
    fn kind(&self) -> Kind {
        (self.case.bundle(), self.case.needs_crl())
    }
}

struct Fronts {
    all: Vec<Front>,
    nginx: Nginx,
}

impl Fronts {
    /// All bad cases, and the first good one.
    fn start(dir: &Path, source: &Glance, target: &Glance) -> Self {
        let cases: Vec<_> = [(Case::Good, "")].into_iter().chain(bad_cases()).collect();
        let identities: Vec<_> = cases.iter().map(|(case, _)| GALLERY.identity(*case).expect("an identity")).collect();
        let of_nginx: Vec<bool> =
            identities.iter().map(|identity| Nginx::accepts(&dir.join("trial"), identity)).collect();
        let mut sites = Vec::new();
        for (identity, of_nginx) in identities.iter().zip(&of_nginx) {
            if *of_nginx {
                sites.extend([source, target].map(|glance| Site { identity, backend: glance.port }));
            }
        }
        let nginx = Nginx::start(dir, &sites);
        let mut ports = nginx.ports.iter().copied();
        let mut all = Vec::new();
        for (((case, code), identity), of_nginx) in cases.into_iter().zip(&identities).zip(of_nginx) {
            let ours: Vec<_> = (0..if of_nginx { 0 } else { 2 }).map(|_| GalleryServer::start(identity)).collect();
            let mut port = |n: usize| match ours.get(n) {
                Some(server) => server.port(),
                None => ports.next().expect("a port for each site"),
            };
            let [source_port, target_port] = [port(0), port(1)];
            all.push(Front { case, code, source_port, target_port, ours });
        }
        let ours: Vec<_> = all.iter().filter(|front| !front.ours.is_empty()).map(|front| front.case.id()).collect();
        eprintln!("nginx declines to serve {ours:?}; the test's own server does");
        Self { all, nginx }
    }

    fn of(&self, case: Case) -> &Front {
        self.all.iter().find(|front| front.case == case).expect("a front for the case")
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<Kind> = Vec::new();
        for front in &self.all {
            if !kinds.contains(&front.kind()) {
                kinds.push(front.kind());
            }
        }
        kinds
    }

    /// What has reached the servers of a front inside TLS, in words; empty if nothing has.
    fn reached(&self, front: &Front) -> String {
        if !front.ours.is_empty() {
            let bytes: u64 = front.ours.iter().map(|it| it.counters().application_bytes()).sum();
            return if bytes == 0 { String::new() } else { format!("{bytes} bytes") };
        }
        [front.source_port, front.target_port].map(|port| self.nginx.reached(port).join("\n")).concat()
    }
}

/// Twenty small images and one big one, by id. VOUCHSAFE_TEST_BIG_MB makes the big one smaller.
fn seeds(dir: &Path) -> BTreeMap<String, PathBuf> {
    fs::create_dir(dir).expect("a directory");
    let megabytes = std::env::var("VOUCHSAFE_TEST_BIG_MB").map_or(512, |it| it.parse().expect("a number"));
    let mut lengths: Vec<u64> = (1..=20).map(|number: u64| number.pow(4)).collect();
    lengths.push(megabytes << 20);
    let write = |(number, length): (u32, u64)| {
        let id = id(number);
        let path = dir.join(&id);
        let mut random = File::open("/dev/urandom").expect("a source of bytes").take(length);
        io::copy(&mut random, &mut File::create(&path).expect("a seed")).expect("a seed");
        (id, path)
    };
    (1..).zip(lengths).map(write).collect()
}

/// Asserts that a Glance holds the images of another, whole and active.
fn assert_holds(held: &Glance, original: &Glance, seeds: &BTreeMap<String, PathBuf>) {
    let facts = |glance: &Glance| -> BTreeMap<String, Vec<Value>> {
        let fields = ["name", "status", "size", "checksum", "disk_format", "properties", "is_public"];
        let images = glance.images().into_iter();
        images.map(|it| (it["id"].to_string(), fields.iter().map(|field| it[field].clone()).collect())).collect()
    };
    assert_eq!(facts(held), facts(original));
    assert_eq!(held.images().len(), seeds.len());
    for (id, seed) in seeds {
        assert_same(seed, &held.stored(id));
    }
}

fn assert_same(one: &Path, other: &Path) {
    assert_eq!(length(one), length(other), "{}", other.display());
    let status = std::process::Command::new("cmp").arg("-s").args([one, other]).status();
    assert!(status.expect("cmp").success(), "{} differs", other.display());
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len())
}
