//! The real glance-replicator of two releases, isolated: it is given the servers' own names and port 9292, is told
//! nothing else, and has no capabilities.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use certs_dev::{Bundle, Case};

use crate::support::{
    gallery::{self, GALLERY},
    glance15::{Glance, Hitch, Nginx, Site, is_available},
    image_server::{GalleryServer, Image, ImageServer, id},
    replicator::{Outcome, Release, complaints, files_in, open_dir, roomy_dir},
};

/// Flags with which a server is at its name and the service's own port.
fn at_9292(servers: &[(Case, u16)]) -> Vec<String> {
    let mut flags = vec![format!("--ca-bundle={}", gallery::bundle(Bundle::Root)), "--fail-on-refusal".into()];
    for (case, port) in servers {
        let name = case.name();
        flags.extend([format!("--allow={name}:9292"), format!("--connect-to={name}:9292=127.0.0.1:{port}")]);
    }
    flags
}

fn authority(case: Case) -> String {
    format!("{}:9292", case.name())
}

#[test]
fn glance_33_carries_every_image_whole_under_the_servers_own_names() {
    // With an owner and a size: without, the release breaks off by itself.
    let images: Vec<_> = (0..12_u32)
        .map(|number| {
            let data: Vec<_> = (0..1 + number.pow(4) * 7).map(|at| (at * 31 + at / 251 + number) as u8).collect();
            Image::new(number, &format!("image {number}"), data).owned()
        })
        .collect();
    let scratch = open_roomy_dir();
    let identity = |case| GALLERY.identity(case).expect("an identity");
    let source = ImageServer::start(&identity(Case::Good), images.clone());
    let target = ImageServer::start(&identity(Case::GoodWildcard), []);
    let flags = at_9292(&[(Case::Good, source.port()), (Case::GoodWildcard, target.port())]);
    let [from, to] = [Case::Good, Case::GoodWildcard].map(authority);
    let run = |arguments: &[&str]| -> Outcome { Release::Glance33.run_isolated(&flags, arguments).succeeded() };

    let size = run(&["size", &from]);
    assert!(size.stdout.contains("across 12 images"), "{size}");
    let dump = scratch.path().join("dump");
    run(&["dump", &from, &open_dir(&dump)]);
    for image in &images {
        let path = dump.join(format!("{}.img", image.id()));
        assert!(fs::read(&path).expect("a dump") == image.data, "{} differs", path.display());
    }
    run(&["livecopy", &from, &to]);
    let copied = target.images();
    assert_eq!(copied.len(), images.len());
    for image in &images {
        let copy = &copied[image.id()];
        assert!(copy.data == image.data, "{} differs", image.id());
    }
    let compare = run(&["compare", &from, &to]);
    assert!(compare.missing().is_empty(), "{compare}");

    // This release reads what it has dumped as text, so that only text comes so far.
    let text = Image::new(1, "text", "text and nothing else\n".repeat(5000)).owned();
    let source = ImageServer::start(&identity(Case::Good), [text.clone()]);
    let target = ImageServer::start(&identity(Case::GoodWildcard), []);
    let flags = at_9292(&[(Case::Good, source.port()), (Case::GoodWildcard, target.port())]);
    let dump = open_dir(&scratch.path().join("text"));
    Release::Glance33.run_isolated(&flags, &["dump", &from, &dump]).succeeded();
    Release::Glance33.run_isolated(&flags, &["load", &to, &dump]).succeeded();
    assert!(target.images()[text.id()].data == text.data);
}

#[test]
fn glance_33_is_loud_about_bad_certificates() {
    let scratch = open_roomy_dir();
    let cases = [Case::Expired, Case::WrongName, Case::UnknownRoot, Case::CnOnly, Case::MissingIntermediate];
    let found = complaints(cases, |case| {
        let server = GalleryServer::start(&GALLERY.identity(case).expect("an identity"));
        let dump = scratch.path().join(case.id());
        let place = open_dir(&dump);
        let flags = at_9292(&[(case, server.port())]);
        let arguments = ["dump", &authority(case), &place];
        let outcome = Release::Glance33.run_isolated(&flags, &arguments);
        let fails = |what: String| Err(format!("{}: {what}", case.id()));
        if let Err(why) = outcome.loudness() {
            return fails(why);
        }
        if !outcome.stderr.contains(&format!(": {}); the tool ended with", authority(case))) {
            return fails(format!("it is not summed up: {outcome}"));
        }
        if !files_in(&dump).is_empty() || server.counters().application_bytes() != 0 {
            return fails(format!("something was sent or written: {outcome}"));
        }
        Ok(())
    });
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

#[test]
fn glance_15_runs_all_five_commands_under_the_servers_own_names() {
    if !is_available("glance_15_runs_all_five_commands_under_the_servers_own_names") {
        return;
    }
    let dir = open_roomy_dir();
    let at = |name: &str| dir.path().join(name);
    let identity = |case| GALLERY.identity(case).expect("an identity");
    let [source, loaded, copied] = ["source", "loaded", "copied"].map(|name| Glance::start(&at(name)));
    let seeds = seeds(&at("seeds"));
    for (id, path) in &seeds {
        source.seed(id, &format!("image {id}"), path);
    }
    let nginx = |name: &str, case, backend| {
        let identity = identity(case);
        Nginx::start(&at(name), &[Site { identity: &identity, backend }])
    };
    let source_front = nginx("nginx", Case::Good, source.port);
    let loaded_front = Hitch::start(&at("hitch"), &identity(Case::GoodRsa2048), loaded.port);
    let copied_front = nginx("nginx-copied", Case::GoodWildcard, copied.port);
    let flags = at_9292(&[
        (Case::Good, source_front.ports[0]),
        (Case::GoodRsa2048, loaded_front.port),
        (Case::GoodWildcard, copied_front.ports[0]),
    ]);
    let [from, to_load, to_copy] = [Case::Good, Case::GoodRsa2048, Case::GoodWildcard].map(authority);
    let run = |arguments: &[&str]| -> Outcome { Release::Glance15.run_isolated(&flags, arguments).succeeded() };

    let size = run(&["size", &from]);
    assert!(size.stdout.contains(&format!("across {} images", seeds.len())), "{size}");
    let dump = at("dump");
    let dump_name = open_dir(&dump);
    run(&["dump", &from, &dump_name]);
    for (id, seed) in &seeds {
        assert_same(seed, &dump.join(format!("{id}.img")));
    }
    run(&["load", &to_load, &dump_name]);
    assert_holds(&loaded, &source, &seeds);
    let compare = run(&["compare", &from, &to_load]);
    assert!(compare.missing().is_empty(), "{compare}");
    assert!(compare.differences().iter().all(|it| it.is_of_type_alone()), "{compare}");
    run(&["livecopy", &from, &to_copy]);
    assert_holds(&copied, &source, &seeds);
}

/// One that other users may look into.
fn open_roomy_dir() -> tempfile::TempDir {
    let dir = roomy_dir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("its owner");
    dir
}

/// Images of all sizes, up to some megabytes.
fn seeds(dir: &Path) -> BTreeMap<String, PathBuf> {
    fs::create_dir(dir).expect("a directory");
    let write = |number: u32| {
        let (id, length) = (id(number), u64::from(number).pow(6));
        let path = dir.join(&id);
        let mut random = File::open("/dev/urandom").expect("a source of bytes").take(length);
        io::copy(&mut random, &mut File::create(&path).expect("a seed")).expect("a seed");
        (id, path)
    };
    (1..=12).map(write).collect()
}

/// Asserts that a Glance holds the images of another, with the same checksums.
fn assert_holds(held: &Glance, original: &Glance, seeds: &BTreeMap<String, PathBuf>) {
    let sums = |glance: &Glance| -> BTreeMap<String, String> {
        let images = glance.images().into_iter();
        images.map(|image| (image["id"].to_string(), format!("{} {}", image["checksum"], image["status"]))).collect()
    };
    assert_eq!(sums(held), sums(original));
    assert_eq!(held.images().len(), seeds.len());
    for (id, seed) in seeds {
        assert_same(seed, &held.stored(id));
    }
}

fn assert_same(one: &Path, other: &Path) {
    let status = Command::new("cmp").arg("-s").args([one, other]).status();
    assert!(status.expect("cmp").success(), "{} differs", other.display());
}
