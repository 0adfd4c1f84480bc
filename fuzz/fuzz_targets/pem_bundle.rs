//! A file of trust anchors: a set that is whole, or a sentence.

#![no_main]

use libfuzzer_sys::fuzz_target;

use vouchsafe::tls::trust::TrustAnchors;
use vouchsafe_fuzz::is_plain;

fuzz_target!(|input: &[u8]| {
    let files = [("bundle.pem".to_owned(), input.to_vec())];
    let set = match TrustAnchors::from_pem("--ca-bundle bundle.pem", &files, Vec::new()) {
        Ok(set) => set,
        Err(error) => return error.to_string().split('\n').for_each(is_plain),
    };
    assert!(!set.anchors().is_empty());
    assert_eq!(set.anchors().len(), set.certificates().len());
    assert_eq!(set.sha256.len(), 64);
    for (place, (anchor, certificate)) in set.anchors().iter().zip(set.certificates()).enumerate() {
        assert_eq!(set.place_of(anchor), Some(place));
        assert_eq!(set.exact(&certificate.der), Some(place));
        is_plain(&certificate.name());
    }
    assert_eq!(set.exact(b""), None);
    set.skipped.iter().for_each(|skipped| is_plain(skipped));
});
