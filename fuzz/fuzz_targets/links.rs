//! A response field that says where to go next: its references change, and not a byte beside them.

#![no_main]

use libfuzzer_sys::fuzz_target;

use vouchsafe::message::{
    links::{LinkShape, replace},
    url::{Origin, Url, split},
};

const NEW: &str = "http://127.0.0.1:1/";

fuzz_target!(|input: &[u8]| {
    let Some((choice, value)) = input.split_first() else { return };
    // What is no plain ASCII is never looked at.
    let Some(value) = std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|b| b == b'\t' || !b.is_ascii_control() && b.is_ascii()))
    else {
        return;
    };
    let shape = [LinkShape::Challenges, LinkShape::Links, LinkShape::Whole][usize::from(choice % 3)];
    let mut found = Vec::new();
    let same = replace(shape, value, |reference| {
        found.push(reference.to_owned());
        Some(reference.to_owned())
    });
    assert_eq!(same.as_deref(), (!found.is_empty()).then_some(value));
    assert_eq!(replace(shape, value, |_| None), None);
    found.iter().for_each(|reference| leads_to_one_place(reference));
    // Only what leads somewhere is ever replaced.
    found.retain(|reference| split(reference).is_some());
    let lead = |reference: &str| split(reference).map(|_| NEW.to_owned());

    // All else stays: what is between the references of the one is between those of the other.
    let Some(replaced) = replace(shape, value, lead) else { return };
    let (mut old, mut new) = (value, replaced.as_str());
    for reference in &found {
        let common = old.bytes().zip(new.bytes()).take_while(|(a, b)| a == b).count();
        let at = (0..=common).rev().find(|at| {
            old.is_char_boundary(*at) && old[*at..].starts_with(reference.as_str()) && new[*at..].starts_with(NEW)
        });
        let at = at.unwrap_or_else(|| panic!("{value} became {replaced}"));
        old = &old[at + reference.len()..];
        new = &new[at + NEW.len()..];
    }
    assert_eq!(old, new);
    // And it is read as it was meant.
    let mut again = Vec::new();
    let unchanged = replace(shape, &replaced, |reference| {
        again.extend(split(reference).map(|_| reference.to_owned()));
        None
    });
    assert_eq!(unchanged, None);
    assert_eq!(again, vec![NEW; found.len()], "{value} became {replaced}");
});

/// Where a reference leads is one place, which is read back as itself.
fn leads_to_one_place(reference: &str) {
    if let Some((origin, behind)) = split(reference) {
        assert!(reference.ends_with(behind));
        assert!(behind.is_empty() || behind.starts_with(['/', '?', '#']), "{reference}");
        let authority = &reference[reference.find("://").expect("a scheme") + 3..reference.len() - behind.len()];
        assert!(!authority.contains(['@', '/', '\\', '%']), "{reference}");
        reads_back(&origin);
    }
    for base in ["https://a.test/v1/x?y", "http://[::1]:1/"] {
        let (origin, path) = split(base).expect("a URL");
        let Some(url) = (Url { origin, path: path.to_owned() }).resolve(reference) else { continue };
        assert!(url.path.starts_with('/') && !url.path.contains('#'), "{reference}");
        let path = url.path.split('?').next().unwrap_or_default();
        assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{reference} became {url}");
        let text = url.to_string();
        let (origin, behind) = split(&text).expect("a URL");
        assert_eq!((&origin, behind), (&url.origin, url.path.as_str()));
        assert_eq!(url.resolve(&text).as_ref(), Some(&url), "{reference}");
    }
}

fn reads_back(origin: &Origin) {
    let text = format!("http{}://{}", if origin.https { "s" } else { "" }, origin.authority);
    assert_eq!(split(&text), Some((origin.clone(), "")));
}
