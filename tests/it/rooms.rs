//! The modules of the library use each other as the table in `src/lib.rs` says, and in no circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Of each module: what it may use.
type Table = BTreeMap<String, BTreeSet<String>>;

fn table() -> Table {
    let rows = include_str!("../../src/lib.rs").lines().filter_map(|line| line.strip_prefix("//! | [`"));
    let row = |row: &str| {
        let (room, rest) = row.split_once("`]").expect("a link");
        let uses = rest.trim_end_matches('|').rsplit_once('|').expect("a last column").1;
        (room.to_owned(), uses.split('`').skip(1).step_by(2).map(str::to_owned).collect())
    };
    rows.map(row).collect()
}

/// The source without comments and without what is only compiled for tests.
fn code(source: &str) -> String {
    let end = source.find("#[cfg(test)]").unwrap_or(source.len());
    let lines = source[..end].lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    lines.collect::<Vec<_>>().concat()
}

/// The paths in a tree of `use`, as far as two segments: `a::{b::{c, d}, e}` is `a::b` and `a::e`.
fn paths(tree: &str) -> Vec<String> {
    let end = tree.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(tree.len());
    let (name, rest) = tree.split_at(end);
    match rest.strip_prefix("::") {
        None => vec![name.to_owned()],
        Some(rest) => branches(rest)
            .iter()
            .map(|branch| format!("{name}::{}", paths(branch)[0].split("::").next().unwrap()))
            .collect(),
    }
}

/// What stands between the braces at the beginning of `tree`, cut at the commas of that level; all of it without.
fn branches(tree: &str) -> Vec<&str> {
    let Some(inner) = tree.strip_prefix('{') else { return vec![tree] };
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(inner[from..at].trim());
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|branch| !branch.is_empty());
    found
}

/// What the files at and below `path` use of the crate.
fn used(path: &Path, found: &mut BTreeSet<String>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            used(&entry.unwrap().path(), found);
        }
    } else if path.file_name().is_some_and(|name| name != "tests.rs") {
        let code = code(&fs::read_to_string(path).unwrap());
        for (at, prefix) in code.match_indices("crate::") {
            found.extend(branches(&code[at + prefix.len()..]).iter().flat_map(|branch| paths(branch)));
        }
    }
}

fn room(path: &str) -> &str {
    path.split("::").next().unwrap()
}

#[test]
fn rooms_use_what_the_table_says() {
    let table = table();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let declared =
        include_str!("../../src/lib.rs").lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    assert_eq!(declared.collect::<BTreeSet<_>>(), table.keys().map(String::as_str).collect(), "each has its row");
    let mut wrong = Vec::new();
    for (name, may) in &table {
        let mut uses = BTreeSet::new();
        for path in [src.join(name), src.join(format!("{name}.rs"))] {
            if path.exists() {
                used(&path, &mut uses);
            }
        }
        uses.retain(|path| room(path) != name);
        assert!(uses.iter().all(|path| table.contains_key(room(path))), "{name} uses {uses:?}");
        let allowed = |path: &String| room(path) == "text" || may.contains(room(path)) || may.contains(path);
        wrong.extend(uses.iter().filter(|path| !allowed(path)).map(|path| format!("{name} uses {path}")));
        let needed = |entry: &&String| uses.iter().any(|path| path == *entry || room(path) == *entry);
        wrong.extend(may.iter().filter(|entry| !needed(entry)).map(|entry| format!("{name} does not use {entry}")));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_has_no_circle() {
    let mut left = table();
    while !left.is_empty() {
        let free = |uses: &BTreeSet<String>| !uses.iter().any(|path| left.contains_key(room(path)));
        let done: Vec<String> = left.iter().filter(|(_, uses)| free(uses)).map(|(name, _)| name.clone()).collect();
        assert!(!done.is_empty(), "these use each other in a circle, or what does: {:?}", left.keys());
        left.retain(|name, _| !done.contains(name));
    }
}

/// Every source file at and below `path`.
fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| sources(&entry.unwrap().path(), found));
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

#[test]
fn hyper_and_prometheus_are_out_of_the_data_path() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    for (library, only) in [("hyper::", "admin"), ("prometheus_client::", "metrics")] {
        let users = files.iter().filter(|file| code(&fs::read_to_string(file).unwrap()).contains(library));
        let rooms: BTreeSet<_> = users.map(|file| file.strip_prefix(&src).unwrap().iter().next().unwrap()).collect();
        assert_eq!(rooms.into_iter().collect::<Vec<_>>(), [only], "{library}");
    }
}
