//! The documentation has an entry for everything that an operator can meet.

use std::collections::BTreeSet;

use serde_json::Value;
use vouchsafe::tls::failure::Code;

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
fn classes() -> Vec<&'static str> {
    let table = include_str!("../../src/proxy/failure.rs");
    let rows = table.lines().filter(|line| line.contains("StatusCode::") && line.matches('"').count() == 4);
    rows.filter_map(|row| row.split('"').nth(3)).collect()
}

#[test]
fn every_class_has_its_entry_and_no_entry_is_without_a_class() {
    let classes = classes();
    assert!(classes.len() > 20, "{classes:?}");
    let classes = sorted(classes.into_iter().chain(["response_incomplete"]));
    assert_eq!(entries(FAILURES, "# Part two"), classes, "in alphabetical order, each once");
}

#[test]
fn every_entry_says_what_it_means_what_is_seen_how_it_comes_about_and_what_to_do() {
    let about = FAILURES.split_once("# Part one").unwrap().1;
    for entry in about.split("\n## ").skip(1) {
        for part in ["**Means.**", "**You see.**", "**How it comes about.**", "**What to do.**"] {
            assert!(entry.contains(part), "`{}` lacks {part}", entry.lines().next().unwrap());
        }
    }
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
    let examples = AUDIT_LOG.split("\n```json\n{\n").skip(1).map(|rest| rest.split("\n```\n").next().unwrap());
    let mut actions = BTreeSet::new();
    for example in examples {
        let event: Value = serde_json::from_str(&format!("{{\n{example}")).unwrap();
        crate::support::schema::check(&event);
        actions.insert((event["event.action"].to_string(), event["vouchsafe.occasion"].to_string()));
    }
    assert!(actions.len() >= 5, "{actions:?}");
}
