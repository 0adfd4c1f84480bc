//! docs/configuration-reference.md is what the settings themselves say. `UPDATE_GOLDEN=1` writes it.

use std::{collections::BTreeMap, fmt::Write as _};

use clap::{Arg, ArgAction, Args as _, Command};
use vouchsafe::config::args::{ExecArgs, ListenerOptions, Options, RunArgs, UpstreamOptions};

const HEAD: &str = "\
# Configuration reference

Every setting, generated from the program: its flag, its variable, its key in the file, its default, and where it may be
set. [Configuration](configuration.md) says how they work together, and what a reload changes.

A *list* is repeated as a flag, separated by commas in a variable, and an array in the file. A *time* has a unit: `500ms`,
`5s`, `2m`, `1h`. Flags with a *boolean* may be given without a value, which is `true`.
";

#[test]
fn the_reference_is_what_the_settings_say() {
    let text = reference();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration-reference.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().zip(expected.lines()).find(|(new, old)| new != old);
    assert!(
        text == expected,
        "settings have changed; write the reference with UPDATE_GOLDEN=1. The first line: {line:?}"
    );
}

fn reference() -> String {
    let mut text = HEAD.to_owned();
    let of_run = RunArgs::augment_args(Command::new(""));
    let mut sections: Vec<(String, Vec<&Arg>)> = Vec::new();
    for arg in of_run.get_arguments() {
        let heading = arg.get_help_heading().unwrap_or("The file").to_owned();
        match sections.iter_mut().find(|(name, _)| *name == heading) {
            Some((_, args)) => args.push(arg),
            None => sections.push((heading, vec![arg])),
        }
    }
    for (heading, args) in sections {
        writeln!(text, "\n## {heading}").unwrap();
        args.into_iter().for_each(|arg| setting(&mut text, arg));
    }

    let exec = ExecArgs::augment_args(Command::new(""));
    let shared: Vec<_> = of_run.get_arguments().map(Arg::get_id).collect();
    text += "\n## Flags of exec\n\nThese are about the tool and have neither a variable nor a key.\n\n";
    for arg in exec.get_arguments().filter(|arg| !shared.contains(&arg.get_id()) && arg.get_long().is_some()) {
        writeln!(text, "- {}: {}", flag(arg), help(arg).0).unwrap();
    }

    for (name, keys, about) in [
        ("upstream", &UpstreamOptions::KEYS[..], "Settings for one upstream; in the file only."),
        (
            "listener",
            &ListenerOptions::KEYS[..],
            "Policies of one listener, in place of those for all; in the file only.",
        ),
    ] {
        let docs = documented(if name == "upstream" { "UpstreamOptions" } else { "ListenerOptions" });
        writeln!(text, "\n## [[{name}]]\n\n{about}\n\n| key | what |\n|---|---|").unwrap();
        for key in keys {
            let what = docs.get(*key).map_or_else(|| alias(key), String::clone);
            writeln!(text, "| `{key}` | {} |", what.replace('|', "\\|")).unwrap();
        }
    }
    text
}

/// Names that the file takes for another key.
fn alias(key: &str) -> String {
    let of = match key {
        "https_ca_bundle" => "ca_bundle",
        "http_proxy_information" => "parent_proxy",
        _ => panic!("the key {key} has no comment in args.rs"),
    };
    format!("Another name for `{of}`.")
}

fn setting(text: &mut String, arg: &Arg) {
    let key = arg.get_id().as_str();
    let (what, default) = help(arg);
    let variable = arg.get_env().map_or_else(String::new, |name| format!(", variable `{}`", name.display()));
    writeln!(text, "\n### {key}\n\n{what}\n").unwrap();
    let kind = kind(arg);
    if key == "config" {
        writeln!(text, "- Flag {}{variable}", flag(arg)).unwrap();
    } else {
        writeln!(text, "- Flag {}{variable}, key `{key}` ({kind})", flag(arg)).unwrap();
    }
    let values = arg.get_possible_values();
    if kind != "boolean" && !values.is_empty() {
        let value = |value: &clap::builder::PossibleValue| match value.get_help() {
            Some(help) => format!("`{}` ({help})", value.get_name()),
            None => format!("`{}`", value.get_name()),
        };
        writeln!(text, "- Values: {}", values.iter().map(value).collect::<Vec<_>>().join(", ")).unwrap();
    }
    writeln!(text, "- Default: {}", default.as_deref().unwrap_or("not set")).unwrap();
    let sections = [("upstream", &UpstreamOptions::KEYS[..]), ("listener", &ListenerOptions::KEYS[..])];
    for (name, _) in sections.iter().filter(|(_, keys)| keys.contains(&key)) {
        writeln!(text, "- Also in [`[[{name}]]`](#{name})").unwrap();
    }
}

fn flag(arg: &Arg) -> String {
    let values = arg.get_value_names().unwrap_or_default();
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let value = if takes_value { values.iter().map(|name| format!(" {name}")).collect() } else { String::new() };
    format!("`--{}{value}`", arg.get_long().unwrap())
}

/// What the help says, and the default in it.
fn help(arg: &Arg) -> (String, Option<String>) {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    match help.split_once("[default: ") {
        Some((what, default)) => (sentence(what), Some(default.trim_end_matches(']').to_owned())),
        None => (sentence(&help), None),
    }
}

fn sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.ends_with(['.', ':']) { text } else { text + "." }
}

fn kind(arg: &Arg) -> &'static str {
    let value = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    match (arg.get_action(), value) {
        (ArgAction::Append, _) => "list",
        (_, "BOOL") => "boolean",
        (_, "TIME") => "time",
        (_, "COUNT" | "BYTES") => "number",
        (_, "FILE" | "DIR" | "PATH") => "path",
        _ => "text",
    }
}

/// The comments of a struct's fields in args.rs.
fn documented(name: &str) -> BTreeMap<String, String> {
    let source = include_str!("../../src/config/args.rs");
    let body = source.split_once(&format!("pub struct {name} {{\n")).unwrap().1.split("\n}").next().unwrap();
    let (mut comment, mut found) = (String::new(), BTreeMap::new());
    for line in body.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("/// ") {
            comment += words;
            comment.push(' ');
        } else if let Some((field, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
            found.insert(field.to_owned(), comment.trim().to_owned());
            comment.clear();
        }
    }
    found
}

#[test]
fn every_setting_is_a_flag_a_variable_and_a_key() {
    for arg in Options::augment_args(Command::new("")).get_arguments() {
        let key = arg.get_id().as_str();
        assert_eq!(arg.get_long(), Some(key.replace('_', "-").as_str()));
        let variable = format!("VOUCHSAFE_{}", key.to_ascii_uppercase());
        assert_eq!(arg.get_env().map(|name| name.to_string_lossy().into_owned()), Some(variable));
    }
}
