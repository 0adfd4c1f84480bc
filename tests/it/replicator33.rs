//! The replicator of Glance 33, through the sidecar: what works arrives whole, what its own release
//! breaks stays broken in the way that is known, and no bad certificate or cut body passes for a success.

use std::fs;
use std::path::Path;
use std::time::Duration;

use certs_dev::{Bundle, Case, Identity};

use crate::support::gallery::GALLERY;
use crate::support::image_server::{Cut, GalleryServer, Image, ImageServer};
use crate::support::proxy::Proxy;
use crate::support::replicator::{
    self, Outcome, Release, bad_cases, complaints, explained, files_in, roomy_dir, trusting,
};

#[test]
fn size_and_dump_carry_every_image_whole() {
    let lab = Lab::new(images(), []);

    let size = lab.replicate("size", &[&lab.source]).succeeded();
    let total: usize = images().iter().map(|image| image.data.len()).sum();
    let said = format!("Total size is {total} bytes");
    assert!(size.stdout.contains(&said), "{size}");
    assert!(size.stdout.contains("across 30 images"), "{size}");

    let dump = lab.fresh("dump");
    lab.replicate("dump", &[&lab.source, &dump]).succeeded();
    for image in images() {
        let path = Path::new(&dump).join(format!("{}.img", image.id()));
        assert_eq!(fs::read(&path).ok(), Some(image.data), "{}", path.display());
    }
    assert_eq!(files_in(Path::new(&dump)).len(), 2 * images().len());
}

/// `http.client` keeps the case of field names, and this release looks for them in lower case alone;
/// the preset sends them so. What is left are the differences in type.
#[test]
fn compare_sees_what_is_there_since_field_names_come_in_lower_case() {
    let [same, renamed, lost] = [1, 2, 3].map(|number| Image::new(number, "first", vec![7; 1000]));
    let target = [same.clone(), renamed.clone().with("name", "second")];
    let lab = Lab::new([same.clone(), renamed.clone(), lost.clone()], target);

    let compare = lab.replicate("compare", &[&lab.source, &lab.target]).succeeded();

    assert_eq!(compare.missing(), [lost.id().to_owned()].into(), "{compare}");
    let real: Vec<_> = compare
        .differences()
        .into_iter()
        .filter(|difference| !difference.is_of_type_alone())
        .map(|it| (it.image, it.field, it.source, it.destination))
        .collect();
    let renaming = ["name", "first", "second"].map(str::to_owned);
    let [field, source, destination] = renaming;
    assert_eq!(real, [(renamed.id().to_owned(), field, source, destination)], "{compare}");
}

/// A field that is null becomes a field value `None` for `http.client`, which takes no such thing.
/// When this fails, the release has been repaired: then `load` and `livecopy` can be held to more.
#[test]
fn null_fields_end_load_and_livecopy_in_that_releases_own_defect() {
    let lab = Lab::new([Image::new(1, "with nulls", b"plain text".as_slice())], []);
    let dump = lab.fresh("dump");
    lab.replicate("dump", &[&lab.source, &dump]).succeeded();

    let own_defect = "ERROR: expected string or bytes-like object, got 'NoneType'";
    for outcome in
        [lab.replicate("load", &[&lab.target, &dump]), lab.replicate("livecopy", &[&lab.source, &lab.target])]
    {
        let outcome = outcome.failed();
        assert!(outcome.stderr.contains(own_defect), "{outcome}");
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
    }
    // It has asked whether the image is there, so far it came.
    assert!(lab.target_server.request_bytes() > 0);
    assert!(lab.target_server.uploads().is_empty());
}

#[test]
fn livecopy_and_load_carry_images_without_null_fields_whole() {
    let images: Vec<_> = images().into_iter().map(Image::owned).collect();
    let lab = Lab::new(images.clone(), []);
    lab.replicate("livecopy", &[&lab.source, &lab.target]).succeeded();
    let copied = lab.target_server.images();
    assert_eq!(copied.len(), images.len());
    for image in &images {
        assert!(copied[image.id()].data == image.data, "{} differs", image.id());
    }

    // This release reads what it has dumped as text, so that only text comes so far.
    let text = Image::new(1, "text", "text and nothing else\n".repeat(5000)).owned();
    let lab = Lab::new([text.clone()], []);
    let dump = lab.fresh("dump");
    lab.replicate("dump", &[&lab.source, &dump]).succeeded();
    lab.replicate("load", &[&lab.target, &dump]).succeeded();
    assert_eq!(lab.target_server.uploads(), [text.id()]);
    assert!(lab.target_server.images()[text.id()].data == text.data);
}

/// The replicator breaks off in the middle of its own upload, and the upstream must not take what it
/// has got for an image.
#[test]
fn an_upload_that_the_client_gives_up_is_never_complete_upstream() {
    let mut data = b"text, up to here. ".repeat(20_000);
    data.push(0xff);
    let lab = Lab::new([Image::new(1, "half text", data).owned()], []);
    let dump = lab.fresh("dump");
    lab.replicate("dump", &[&lab.source, &dump]).succeeded();

    let load = lab.replicate("load", &[&lab.target, &dump]).failed();

    assert!(load.stderr.contains("'utf-8' codec can't decode byte 0xff"), "{load}");
    assert!(lab.target_server.uploads().is_empty());
}

#[test]
fn no_bad_certificate_lets_dump_write_anything_or_end_well() {
    let scratch = roomy_dir();
    let mut all: Vec<_> = bad_cases().collect();
    // One sidecar for all cases that share their trust anchors and revocation lists.
    while let Some((first, _)) = all.first().copied() {
        let kind = |case: Case| (case.bundle(), case.needs_crl());
        let (these, rest) = all.into_iter().partition(|(case, _)| kind(*case) == kind(first));
        all = rest;
        let mut sidecar = trusting(first.bundle(), first.needs_crl());
        let mut fronts = Vec::new();
        for (case, code) in these {
            let server = GalleryServer::start(&GALLERY.identity(case).expect("an identity"));
            let listener = sidecar.route(case.name(), server.port());
            fronts.push((case, code, server, listener));
        }
        let proxy = sidecar.start();

        let found = complaints(&fronts, |(case, code, server, listener)| {
            let dump = scratch.path().join(case.id());
            fs::create_dir(&dump).expect("a directory");
            let outcome = dump_to(&proxy, *listener, &dump);
            let fails = |what: String| Err(format!("{}: {what}", case.id()));
            if let Err(why) = outcome.loudness() {
                return fails(why);
            }
            if !files_in(&dump).is_empty() {
                return fails(format!("{:?} was written: {outcome}", files_in(&dump)));
            }
            if server.counters().application_bytes() != 0 {
                return fails("bytes of the request have reached the server".to_owned());
            }
            explained(&proxy.audit(), *case, code, server.port()).or_else(fails)
        });
        assert!(found.is_empty(), "{}", found.join("\n\n"));
    }
}

/// The neighbours of the test before: the same way, but nothing wrong with the certificate.
#[test]
fn every_good_certificate_of_the_gallery_is_accepted() {
    let bad: Vec<_> = bad_cases().map(|(case, _)| case).collect();
    let good = Case::ALL.iter().copied().filter(|case| !bad.contains(case));
    let mut sidecar = trusting(Bundle::Plus, false);
    let fronts: Vec<_> = good
        .map(|case| {
            let server = GalleryServer::start(&GALLERY.identity(case).expect("an identity"));
            let listener = sidecar.route(case.name(), server.port());
            (case, server, listener)
        })
        .collect();
    let proxy = sidecar.start();
    let found = complaints(&fronts, |(case, server, listener)| {
        let size = Release::Glance33.run(&["size", &proxy.addr(*listener).to_string()]);
        let is_fine = size.status.success() && server.counters().requests() == 1;
        if is_fine { Ok(()) } else { Err(format!("{}: {size}", case.id())) }
    });
    assert!(found.is_empty(), "{}", found.join("\n\n"));
    assert!(proxy.audit().is_empty(), "{:?}", proxy.audit());
}

/// The client's library takes a connection that is closed for the end of a body, if it is closed in
/// the right way; the sidecar must not close it in that way.
#[test]
fn a_body_that_is_cut_upstream_never_passes_for_an_image() {
    let image = Image::new(1, "cut", vec![7; 400_000]);
    let lab = Lab::new([image.clone()], []);
    for cut in Cut::ALL {
        lab.source_server.cut(Some(*cut));
        let dump = lab.fresh(&format!("{cut:?}"));
        let outcome = lab.replicate("dump", &[&lab.source, &dump]).failed();
        let path = Path::new(&dump).join(format!("{}.img", image.id()));
        let written = fs::metadata(path).map_or(0, |file| file.len());
        assert!(written < 400_000, "{cut:?}: {written} bytes: {outcome}");
    }
    // The sidecar has lost nothing by it.
    lab.source_server.cut(None);
    let dump = lab.fresh("whole");
    lab.replicate("dump", &[&lab.source, &dump]).succeeded();
}

/// Two image servers with good certificates behind one sidecar.
struct Lab {
    source_server: ImageServer,
    target_server: ImageServer,
    /// Where the replicator finds them: `127.0.0.1:PORT` of the sidecar.
    source: String,
    target: String,
    scratch: tempfile::TempDir,
    _proxy: Proxy,
}

impl Lab {
    fn new(source: impl IntoIterator<Item = Image>, target: impl IntoIterator<Item = Image>) -> Self {
        let scratch = roomy_dir();
        let identity = |case| -> Identity { GALLERY.identity(case).expect("an identity") };
        let source_server = ImageServer::start(&identity(Case::Good), source);
        let target_server = ImageServer::start(&identity(Case::GoodWildcard), target);
        let mut sidecar = trusting(Case::Good.bundle(), false);
        sidecar.set("--response-body-timeout", "2s");
        sidecar.route(Case::Good.name(), source_server.port());
        sidecar.route(Case::GoodWildcard.name(), target_server.port());
        let proxy = sidecar.start();
        Self {
            source_server,
            target_server,
            source: proxy.addr(0).to_string(),
            target: proxy.addr(1).to_string(),
            scratch,
            _proxy: proxy,
        }
    }

    fn replicate(&self, command: &str, arguments: &[&str]) -> Outcome {
        Release::Glance33.run(&[&[command], arguments].concat())
    }

    /// A fresh directory's path, as an argument.
    fn fresh(&self, name: &str) -> String {
        let path = self.scratch.path().join(name);
        fs::create_dir(&path).expect("a directory");
        path.display().to_string()
    }
}

fn dump_to(proxy: &Proxy, listener: usize, dump: &Path) -> Outcome {
    let limit = Duration::from_secs(60);
    let address = proxy.addr(listener).to_string();
    let dump = dump.display().to_string();
    replicator::Release::Glance33.run_within(limit, &["dump", &address, &dump])
}

/// More than one page of them, of all sizes from one byte on, with every value of a byte in them.
fn images() -> Vec<Image> {
    (0..30_u32)
        .map(|number| {
            let length = 1 + (number as usize).pow(3) * 17;
            let data = (0..length).map(|at| (at * 31 + at / 251 + number as usize) as u8);
            Image::new(number, &format!("image {number}"), data.collect::<Vec<u8>>())
        })
        .collect()
}
