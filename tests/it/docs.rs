//! The documentation has an entry for everything that an operator can meet, and its links lead somewhere.

use std::{collections::BTreeSet, fs, path::Path};

use clap::{Args as _, Command};
use serde_json::Value;
use vouchsafe::{
    config::{
        args::{RunArgs, UpstreamOptions},
        file,
    },
    tls::failure::Code,
};

const FAILURES: &str = include_str!("../../docs/failures.md");
const AUDIT_LOG: &str = include_str!("../../docs/audit-log.md");

/// The headings of the second level below a heading of the first.
fn entries<'a>(text: &'a str, part: &str) -> Vec<&'a str> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(part));
    assert!(lines.next().is_some(), "there is no `{part}`");
    lines.take_while(|line| !line.starts_with("# ")).filter_map(|line| line.strip_prefix("## ")).collect()
}

fn sorted<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    words.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn every_code_has_its_entry_and_no_entry_is_without_a_code() {
    let codes = sorted(Code::ALL.iter().map(|code| code.as_str()));
    assert_eq!(entries(FAILURES, "# Part one"), codes, "in alphabetical order, each once");
}

/// What the table of failures calls them: the last text of each row. Read from its source, since no list of all
/// failures can be had: they carry what happened.
pub fn classes() -> Vec<&'static str> {
    let table = include_str!("../../src/proxy/failure.rs");
    let rows = table.lines().filter(|line| line.contains("StatusCode::") && line.matches('"').count() == 4);
    rows.filter_map(|row| row.split('"').nth(3)).collect()
}

#[test]
fn every_class_has_its_entry_and_no_entry_is_without_a_class() {
    let classes = classes();
    assert!(classes.len() > 20, "{classes:?}");
    let of_documents =
        include_str!("../../src/proxy/documents.rs").split('"').filter(|text| text.starts_with("catalog_"));
    let classes = sorted(classes.into_iter().chain(["response_incomplete"]).chain(of_documents));
    assert_eq!(entries(FAILURES, "# Part two"), classes, "in alphabetical order, each once");
}

#[test]
fn every_entry_says_what_it_means_what_is_seen_how_it_comes_about_and_what_to_do() {
    let about = FAILURES.split_once("# Part one").unwrap().1;
    for entry in about.split("\n## ").skip(1) {
        let parts =
            ["**Means.**", "**You see.**", "**How it comes about.**", "**Is it an attack?**", "**What to do.**"];
        for part in parts {
            assert!(entry.contains(part), "`{}` lacks {part}", entry.lines().next().unwrap());
        }
    }
}

#[test]
fn codes_that_may_be_an_attack_are_listed() {
    let (head, about) = FAILURES.split_once("# Part one").unwrap();
    let list = head.split_once("## Is this an attack?").unwrap().1.split("\n## ").next().unwrap();
    let listed: Vec<_> = list.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    let possible = about.split("\n## ").skip(1).filter(|entry| entry.contains("**Is it an attack?** Possibly"));
    let possible: Vec<_> = possible.map(|entry| entry.lines().next().unwrap()).collect();
    assert_eq!(listed, sorted(possible));
}

fn properties(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                if key == "properties" {
                    found.extend(value.as_object().unwrap().keys().cloned());
                }
                properties(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| properties(value, found)),
        _ => {}
    }
}

#[test]
fn every_property_of_the_schema_is_described() {
    let schema = serde_json::from_str(include_str!("../../docs/audit-event.schema.json")).unwrap();
    let mut all = BTreeSet::new();
    properties(&schema, &mut all);
    assert!(all.len() > 50);
    let missing: Vec<_> = all.iter().filter(|name| !AUDIT_LOG.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_example_of_an_event_is_what_the_schema_says() {
    let examples = blocks(AUDIT_LOG, "json").into_iter().filter(|example| example.starts_with("{\n"));
    let mut actions = BTreeSet::new();
    for example in examples {
        let event: Value = serde_json::from_str(example).unwrap();
        crate::support::schema::check(&event);
        actions.insert((event["event.action"].to_string(), event["vouchsafe.occasion"].to_string()));
    }
    assert!(actions.len() >= 5, "{actions:?}");
}

#[test]
fn every_flag_and_key_is_in_the_reference_with_its_default() {
    let text = include_str!("../../docs/configuration.md");
    let keys = text.split_once("\n## All keys").unwrap().1.split("\n## ").next().unwrap();
    let rows: Vec<_> = keys.lines().filter(|line| line.starts_with("| `")).collect();
    let row = |key: &str| {
        let row = rows.iter().find(|row| row.starts_with(&format!("| `{key}`")));
        *row.unwrap_or_else(|| panic!("configuration.md has no row for `{key}`"))
    };
    for arg in RunArgs::augment_args(Command::new("")).get_arguments() {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let row = row(arg.get_id().as_str());
        if let Some((_, default)) = help.split_once("[default: ") {
            let default = default.trim_end_matches(']');
            assert!(row.contains(default), "the default is {default}: {row}");
        }
    }
    let keys: BTreeSet<_> = UpstreamOptions::KEYS.into_iter().collect();
    let section = text.split_once("\n## Single upstreams").unwrap().1.split("\n## ").next().unwrap();
    for key in keys {
        assert!(section.lines().any(|line| line.starts_with(&format!("| `{key}`"))), "there is no row for `{key}`");
    }
}

/// The blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("\n```{language}\n");
    text.split(open.as_str()).skip(1).map(|rest| rest.split("\n```\n").next().unwrap_or_default()).collect()
}

#[test]
fn every_piece_of_a_configuration_can_be_read() {
    let pages = [FAILURES, include_str!("../../docs/configuration.md")];
    let pieces: Vec<_> = pages.into_iter().flat_map(|text| blocks(text, "toml")).collect();
    assert!(pieces.len() > 8, "{}", pieces.len());
    for piece in pieces {
        if let Err(problems) = file::parse(piece) {
            panic!("{problems:?}\n{piece}");
        }
    }
}

/// As GitHub makes them: lower case, spaces to hyphens, without punctuation.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#').trim()));
    let ids = text.split("<a id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    headings.chain(ids).collect()
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.chain(["README.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let mut links = 0;
    for page in pages.filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
            if link.starts_with("http") {
                continue;
            }
            let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", page.display());
            let in_book =
                |path: &Path| path.canonicalize().unwrap().starts_with(root.join("docs").canonicalize().unwrap());
            assert!(in_book(&target) || !in_book(&page), "the book lacks it: {}: {link}", page.display());
            if !wanted.is_empty() {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(there.contains(wanted), "{}: {link}", page.display());
            }
            links += 1;
        }
    }
    assert!(links > 50, "{links}");
}

#[test]
fn every_page_is_in_the_summary_of_the_book() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let listed = sorted(summary.split("](").skip(1).filter_map(|rest| rest.split(')').next()));
    let names: Vec<_> =
        fs::read_dir(docs).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let pages = names.iter().map(String::as_str).filter(|name| name.ends_with(".md") && *name != "SUMMARY.md");
    assert_eq!(listed, sorted(pages));
}
