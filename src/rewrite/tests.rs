//! The corpus in tests/catalog: `NAME.json` becomes `NAME.rewritten.json`, and stays as it is where there is none.

use std::{collections::BTreeMap, fs, path::Path};

use crate::message::url;

use super::*;

const ALL: Scopes = Scopes { catalog: true, versions: true, pages: true };

fn corpus() -> BTreeMap<String, (Vec<u8>, Option<Vec<u8>>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/catalog");
    let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let documents = names.filter(|name| name.ends_with(".json") && !name.ends_with(".rewritten.json"));
    let read = |name: String| {
        let path = directory.join(&name);
        let rewritten = fs::read(path.with_extension("rewritten.json")).ok();
        (name, (fs::read(path).unwrap(), rewritten))
    };
    documents.map(read).collect()
}

/// As a mirror of `cloud.example` would have it: the same ports at another address.
fn local(found: &FoundUrl<'_>) -> Option<String> {
    let (origin, behind) = url::split(&found.url)?;
    let port = origin.authority.port.map_or_else(String::new, |port| format!(":{port}"));
    (origin.authority.host.to_string() == "cloud.example").then(|| format!("http://127.0.0.2{port}{behind}"))
}

fn rewritten(document: &[u8], scopes: Scopes) -> Option<Vec<u8>> {
    replace(document, &find(document, scopes), local)
}

#[test]
fn every_document_has_exactly_the_expected_bytes() {
    let corpus = corpus();
    assert!(corpus.len() > 35, "{}", corpus.len());
    for (name, (document, expected)) in &corpus {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert_eq!(text(&rewritten(document, ALL)), text(expected), "{name}");
    }
    assert!(corpus.values().filter(|(_, expected)| expected.is_some()).count() > 20);
}

#[test]
fn what_was_rewritten_is_not_rewritten_again() {
    for (name, (_, expected)) in corpus() {
        let Some(expected) = expected else { continue };
        assert_eq!(rewritten(&expected, ALL), None, "{name}");
    }
}

#[test]
fn bytes_outside_of_the_replaced_values_are_identical() {
    for (name, (document, _)) in corpus() {
        // With other spaces, too.
        let spaced = document.split_inclusive(|byte| *byte == b',').collect::<Vec<_>>().join(&b"\r\n\t "[..]);
        for document in [document.clone(), spaced] {
            let urls = find(&document, ALL);
            let new = replace(&document, &urls, |found| Some(format!("<{}>", found.url))).unwrap_or(document.clone());
            let (mut old_at, mut new_at) = (0, 0);
            for found in &urls {
                let between = found.span.start - old_at;
                assert_eq!(document[old_at..found.span.start], new[new_at..new_at + between], "{name}");
                assert!(document[found.span.clone()].starts_with(b"\"") && document[..found.span.end].ends_with(b"\""));
                let value = serde_json::Value::String(format!("<{}>", found.url)).to_string();
                new_at += between;
                assert_eq!(&new[new_at..new_at + value.len()], value.as_bytes(), "{name}");
                (old_at, new_at) = (found.span.end, new_at + value.len());
            }
            assert_eq!(document[old_at..], new[new_at..], "{name}");
        }
    }
}

#[test]
fn a_document_that_is_not_whole_or_not_alone_is_left_alone() {
    for (name, (document, expected)) in corpus() {
        let end = document.trim_ascii_end().len();
        for cut in 0..end {
            assert_eq!(find(&document[..cut], ALL), [], "{name} cut at {cut}");
        }
        if expected.is_some() {
            for odd in [[&document[..end], b"x"].concat(), [b"\xef\xbb\xbf", &document[..]].concat()] {
                assert_eq!(find(&odd, ALL), [], "{name}");
            }
            assert_eq!(find(&[b"[", &document[..end], b"]"].concat(), ALL), [], "{name}");
        }
    }
    assert_eq!(find(b"{\"next\": \"https://cloud.example/\xff\"}", ALL), []);
}

#[test]
fn each_scope_is_of_its_own() {
    let of = |name: &str, scopes| rewritten(&corpus()[name].0, scopes).is_some();
    let catalog = Scopes { catalog: true, ..Scopes::default() };
    let versions = Scopes { versions: true, ..Scopes::default() };
    let pages = Scopes { pages: true, ..Scopes::default() };
    for (name, expected) in [
        ("keystone-v2-token.json", [true, false, false]),
        ("keystone-v3-token.json", [true, false, false]),
        ("keystone-v3-auth-catalog.json", [true, false, false]),
        ("keystone-versions.json", [false, true, false]),
        ("nova-choices.json", [false, true, false]),
        ("nova-servers.json", [false, false, true]),
        ("barbican-secrets.json", [false, false, true]),
    ] {
        assert_eq!([catalog, versions, pages].map(|scopes| of(name, scopes)), expected, "{name}");
    }
}
