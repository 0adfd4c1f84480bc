//! A JSON document whose URLs are replaced: no byte outside of them changes, and what a client reads then is what a plain
//! walk over the tree of the document makes of it.

#![no_main]

use libfuzzer_sys::fuzz_target;

use serde_json::Value;
use vouchsafe::rewrite::{Scopes, find, replace};

fuzz_target!(|input: &[u8]| {
    let Some((choice, document)) = input.split_first() else { return };
    let scopes = Scopes { catalog: choice & 1 == 0, versions: choice & 2 == 0, pages: choice & 4 == 0 };
    let urls = find(document, scopes);
    let new = |url: &str| format!("<{}>", url.len());
    let replaced = replace(document, &urls, |found| Some(new(&found.url)));
    assert_eq!(replaced.is_some(), !urls.is_empty());
    let replaced = replaced.unwrap_or_else(|| document.to_vec());

    // Every byte outside of the values is the same, and each value is a string.
    let (mut old_at, mut new_at) = (0, 0);
    for found in &urls {
        let between = &document[old_at..found.span.start];
        let string = serde_json::from_slice::<String>(&document[found.span.clone()]).expect("a string");
        assert_eq!(string, found.url);
        let value = serde_json::to_vec(&new(&found.url)).expect("a string");
        assert!(replaced[new_at..].starts_with(between) && replaced[new_at + between.len()..].starts_with(&value));
        new_at += between.len() + value.len();
        old_at = found.span.end;
    }
    assert_eq!(document[old_at..], replaced[new_at..]);

    // What is no JSON has none, and a tree has the same ones.
    let Ok(mut tree) = serde_json::from_slice::<Value>(document) else {
        // A number that no float holds is no reason to pass a document over.
        return;
    };
    walk(&mut tree, scopes, &new);
    assert_eq!(serde_json::from_slice::<Value>(&replaced).ok(), Some(tree));
});

/// The shapes once more, over a tree.
fn walk(document: &mut Value, scopes: Scopes, new: &dyn Fn(&str) -> String) {
    let Value::Object(members) = document else { return };
    let lists_endpoints = members.contains_key("endpoints");
    let has_links = members.contains_key("links");
    let has_id = members.contains_key("id");
    let names: Vec<String> = members.keys().cloned().collect();
    let replace_in = |value: Option<&mut Value>| {
        if let Some(Value::String(url)) = value {
            *url = new(url);
        }
    };
    let services = |services: &mut Value, keys: &[&str]| {
        for service in elements(Some(services)) {
            for endpoint in elements(member(service, "endpoints")) {
                keys.iter().for_each(|key| replace_in(member(endpoint, key)));
            }
        }
    };
    let links = |links: Option<&mut Value>, relations: &[&str]| {
        for link in elements(links) {
            let followed = link["rel"].as_str().is_some_and(|relation| relations.contains(&relation));
            if followed {
                replace_in(member(link, "href"));
            }
        }
    };
    const VERSION: &[&str] = &["self", "collection"];
    const PAGE: &[&str] = &["next", "previous"];
    const RESOURCE: &[&str] = &["self", "bookmark", "alternate", "collection", "next", "previous"];
    const DATA: &[&str] = &[
        "attributes",
        "driver_info",
        "driver_internal_info",
        "extra",
        "instance_info",
        "metadata",
        "parameters",
        "properties",
    ];
    for name in names {
        let value = &mut document[&name];
        match name.as_str() {
            "access" | "token" | "catalog" => {
                if !scopes.catalog {
                    continue;
                }
                match (name.as_str(), value) {
                    ("access", Value::Object(access)) => {
                        let keys = ["publicURL", "internalURL", "adminURL", "versionInfo", "versionList"];
                        access.get_mut("serviceCatalog").into_iter().for_each(|catalog| services(catalog, &keys));
                    }
                    ("token", Value::Object(token)) => {
                        token.get_mut("catalog").into_iter().for_each(|catalog| services(catalog, &["url"]));
                    }
                    ("catalog", catalog) if has_links && !lists_endpoints => services(catalog, &["url"]),
                    _ => {}
                }
            }
            "versions" | "choices" | "version" | "default_version" => {
                if !scopes.versions {
                    continue;
                }
                let list = match (name.as_str(), value) {
                    ("versions", Value::Object(versions)) => versions.get_mut("values"),
                    ("versions" | "choices", list @ Value::Array(_)) => Some(list),
                    ("version" | "default_version", version) => {
                        links(member(version, "links"), VERSION);
                        None
                    }
                    _ => None,
                };
                for version in elements(list) {
                    links(member(version, "links"), VERSION);
                }
            }
            name if DATA.contains(&name) => {}
            _ if !scopes.pages => {}
            "next" | "previous" | "first" if has_id => {}
            "next" | "previous" | "first" => replace_in(Some(value)),
            "links" => match value {
                Value::Object(_) => {
                    replace_in(member(value, "next"));
                    replace_in(member(value, "previous"));
                }
                list => links(Some(list), RESOURCE),
            },
            name if name.ends_with("_links") => links(Some(value), PAGE),
            _ => {
                let mut resource = |resource: &mut Value| {
                    links(member(resource, "links"), RESOURCE);
                    for part in ["image", "flavor"] {
                        if let Some(part) = member(resource, part) {
                            links(member(part, "links"), RESOURCE);
                        }
                    }
                };
                match value {
                    Value::Array(list) => list.iter_mut().for_each(&mut resource),
                    one => resource(one),
                }
            }
        }
    }
}

/// A member of an object.
fn member<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    value.as_object_mut()?.get_mut(name)
}

/// The elements of a list; none where it is something else.
fn elements(value: Option<&mut Value>) -> impl Iterator<Item = &mut Value> {
    value.and_then(Value::as_array_mut).into_iter().flatten()
}
