//! A file of trust anchors: a set that is whole, or a sentence. No block is dropped by the PEM reader, and another reader
//! agrees about what it read.

#![no_main]

use data_encoding::BASE64;
use libfuzzer_sys::fuzz_target;
use rustls_pki_types::pem::{PemObject, SectionKind};

use vouchsafe::tls::{
    pem::{self, Block, Wanted},
    trust::TrustAnchors,
};
use vouchsafe_fuzz::is_plain;

fuzz_target!(|input: &[u8]| {
    match pem::read(input) {
        Ok(blocks) => nothing_is_dropped(input, &blocks),
        Err(error) => error.sentence("bundle.pem", Wanted::Certificates).split('\n').for_each(is_plain),
    }
    let files = [("bundle.pem".to_owned(), input.to_vec())];
    let set = match TrustAnchors::from_pem("--ca-bundle bundle.pem", &files, Vec::new()) {
        Ok(set) => set,
        Err(error) => return error.to_string().split('\n').for_each(is_plain),
    };
    assert!(!set.anchors().is_empty());
    assert_eq!(set.anchors().len(), set.certificates().len());
    assert_eq!(set.sha256.len(), 64);
    for (place, certificate) in set.certificates().iter().enumerate() {
        assert_eq!(set.exact(&certificate.der), Some(place));
        is_plain(&certificate.name());
    }
    assert_eq!(set.exact(b""), None);
    set.skipped.iter().for_each(|skipped| is_plain(skipped));
});

fn nothing_is_dropped(input: &[u8], blocks: &[Block]) {
    let count = |text: &[u8]| input.windows(text.len()).filter(|window| *window == text).count();
    assert_eq!(count(b"-----BEGIN"), blocks.len());
    assert_eq!(count(b"-----END"), blocks.len());
    // Whatever another reader finds, among it what we read, in the same order.
    let mut ours = blocks.iter();
    for (kind, der) in sections(input).map_while(Result::ok) {
        assert!(ours.any(|block| of_kind(block, kind) && block.der == der), "{kind:?}");
    }
    // Written as RFC 7468 has it, the same blocks are read by both.
    let text: String = blocks.iter().map(written).collect();
    let again = pem::read(text.as_bytes()).expect("what was read is written as PEM");
    assert!(again.iter().zip(blocks).all(|(one, two)| one.label == two.label && one.der == two.der));
    assert_eq!(again.len(), blocks.len());
    let known = blocks.iter().filter(|block| SectionKind::try_from(block.label.as_bytes()).is_ok());
    let theirs: Vec<_> = sections(text.as_bytes()).collect::<Result<_, _>>().expect("another reader takes it, too");
    assert_eq!(theirs.len(), known.clone().count());
    assert!(known.zip(theirs).all(|(block, (kind, der))| of_kind(block, kind) && block.der == der));
}

fn sections(text: &[u8]) -> impl Iterator<Item = Result<(SectionKind, Vec<u8>), rustls_pki_types::pem::Error>> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(text)
}

fn of_kind(block: &Block, kind: SectionKind) -> bool {
    SectionKind::try_from(block.label.as_bytes()) == Ok(kind)
}

fn written(block: &Block) -> String {
    let label = &block.label;
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(&block.der))
}
