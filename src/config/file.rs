//! The configuration file: TOML with the keys of [`Options`]. Errors name the line, the key, and what to write.

use std::{ops::Range, path::Path};

use clap::{Args as _, Command};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::text::{holds_contents, show_value};

use super::{
    args::{ListenerOptions, Options, UpstreamOptions},
    contents,
    error::ConfigError,
    foreign, load,
    suggest::nearest,
    watch::Files,
};

/// Reads a configuration file.
///
/// # Errors
/// [`ConfigError`] that names the file and the line of every problem.
pub fn read(files: &mut Files, path: &Path) -> Result<Options, ConfigError> {
    let (name, bytes) = load::named(files, "--config", path).map_err(ConfigError::one)?;
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::one(format!("--config `{name}`: not UTF-8")))?;
    parse(&text).map_err(|problems| {
        let problems: Vec<_> = problems.into_iter().map(|problem| format!("{name}:{problem}")).collect();
        match ConfigError::unless_empty(problems) {
            Err(error) => error,
            Ok(()) => ConfigError::one(format!("{name}: cannot be read")),
        }
    })
}

/// Parses the text of a configuration file.
///
/// # Errors
/// The problems, at least one; each begins with its line.
pub fn parse(text: &str) -> Result<Options, Vec<String>> {
    let problem = |error: &toml::de::Error| {
        let line = line_of(text, error.span().unwrap_or_default());
        vec![format!("{line}: {}{}", key_at(text, line), plain(error.message()))]
    };
    let table = DeTable::parse(text).map_err(|error| problem(&error))?;
    let mut problems = misplaced_keys(text, table.get_ref());
    problems.extend(contents_of_files(text, table.get_ref()));
    if !problems.is_empty() {
        return Err(problems);
    }
    toml::from_str(text).map_err(|error| problem(&error))
}

/// Values that are the contents of a file instead of its name: no message may repeat them.
fn contents_of_files(text: &str, table: &DeTable<'_>) -> Vec<String> {
    fn values<'a>(value: &'a Spanned<DeValue<'_>>, found: &mut Vec<(Range<usize>, &'a str)>) {
        match value.get_ref() {
            DeValue::String(text) => found.push((value.span(), text)),
            DeValue::Array(all) => all.iter().for_each(|value| values(value, found)),
            DeValue::Table(table) => table.values().for_each(|value| values(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    table.values().for_each(|value| values(value, &mut found));
    // Lines are counted for those alone: there may be thousands of values.
    let problems = found.into_iter().filter(|(_, value)| holds_contents(value)).filter_map(|(span, value)| {
        let line = line_of(text, span);
        let key = key_at(text, line);
        contents::problem(format!("{line}: {key}").trim_end_matches(": "), value)
    });
    problems.collect()
}

/// serde's words for a value of the wrong type, in those of whoever writes the file.
fn plain(message: &str) -> String {
    if let Some((found, rest)) =
        message.strip_prefix("unknown variant `").and_then(|rest| rest.rsplit_once("`, expected "))
    {
        return format!("`{}`: {rest} is expected", show_value(found));
    }
    let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.trim_end().split_once(", expected "))
    else {
        return message.to_owned();
    };
    let found =
        found.replace("floating point ", "").replace("integer ", "").replace("string ", "").replace(['"', '`'], "");
    let found = show_value(found.strip_prefix("boolean ").unwrap_or(&found));
    match expected {
        "usize" | "u64" => format!("`{found}`: a whole number without quotes is expected"),
        "a boolean" => format!("`{found}`: `true` or `false` without quotes is expected"),
        "a sequence" => "a list is expected, as in `[\"…\"]`".into(),
        _ if expected.contains("string") => {
            format!("`{found}`: text in quotes is expected\nhint: write `\"{found}\"`")
        }
        other => format!("`{found}`: {other} is expected"),
    }
}

/// The sections that there may be several of: the name, what each is for, and its keys.
const SECTIONS: [(&str, &str, &[&str]); 2] = [
    ("upstream", "single upstreams", &UpstreamOptions::KEYS),
    ("listener", "single listeners", &ListenerOptions::KEYS),
];

/// Keys that are unknown, or known in another place, and `[upstream]` where `[[upstream]]` is needed.
fn misplaced_keys(text: &str, table: &DeTable<'_>) -> Vec<String> {
    let flags = Options::augment_args(Command::new(""));
    let global: Vec<&str> = flags.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    let mut problems = Vec::new();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let line = line_of(text, key.span());
        let section = SECTIONS.iter().find(|(section, ..)| *section == name);
        match (section, value.get_ref()) {
            (None, _) if !global.contains(&name) => {
                let hint = global_hint(name, &global);
                problems.push(format!("{line}: unknown key `{}`\nhint: {hint}", show_value(name)));
            }
            (Some((_, what, keys)), DeValue::Array(sections)) => {
                for section in sections.iter() {
                    let DeValue::Table(section) = section.get_ref() else { continue };
                    problems.extend(section_problems(text, section, (name, what, keys), &global));
                }
            }
            (Some(_), DeValue::Table(_)) => {
                problems.push(format!(
                    "{line}: `[{name}]`: there may be several of these sections\nhint: write `[[{name}]]`"
                ));
            }
            _ => {}
        }
    }
    problems
}

fn global_hint(name: &str, global: &[&str]) -> String {
    match (foreign::advice(name), SECTIONS.iter().find(|(.., keys)| keys.contains(&name))) {
        (Some(advice), _) => advice.into(),
        (None, Some((section, ..))) => format!("`{name}` belongs in an `[[{section}]]` section"),
        (None, None) => hint(name, global.iter().copied().chain(SECTIONS.map(|(name, ..)| name))),
    }
}

fn section_problems(
    text: &str,
    section: &DeTable<'_>,
    (name, what, keys): (&str, &str, &[&str]),
    global: &[&str],
) -> Vec<String> {
    let unknown = section.keys().filter(|key| !keys.contains(&key.get_ref().as_ref()));
    let problem = unknown.map(|key| {
        let unknown = key.get_ref().as_ref();
        let hint = match global.contains(&unknown) {
            true => format!("`{unknown}` is not a setting of {what}; move it above the first `[[{name}]]`"),
            false => hint(unknown, keys.iter().copied()),
        };
        format!("{}: unknown key `{}`\nhint: {hint}", line_of(text, key.span()), show_value(unknown))
    });
    problem.collect()
}

fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(advice) = foreign::advice(name) {
        return advice.into();
    }
    match nearest(&name.replace('-', "_"), known.clone()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("the keys are {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// The key on a line, to be put before what is wrong with its value; nothing if there is none.
fn key_at(text: &str, line: usize) -> String {
    let key = text.lines().nth(line - 1).and_then(|line| Some(line.split_once('=')?.0.trim()));
    let is_key =
        |key: &&str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    key.filter(is_key).map(|key| format!("{key}: ")).unwrap_or_default()
}

fn line_of(text: &str, span: Range<usize>) -> usize {
    1 + text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_settings_of_the_flags() {
        let options = parse(
            "route = [\"127.0.0.1:1=https://a\"]\nanswer = \"reset\"\nconnect_timeout = \"2s\"\n[[upstream]]\nof = \"a\"\nsni = \"b\"\n",
        )
        .unwrap();
        assert_eq!(options.route, ["127.0.0.1:1=https://a"]);
        assert_eq!(options.upstream[0].sni.as_deref(), Some("b"));
    }

    #[test]
    fn each_mistake_is_named_with_its_line_and_what_to_write() {
        for (text, expected) in [
            ("\nca-bundel = []\n", "2: unknown key `ca-bundel`\nhint: did you mean `ca_bundle`?"),
            ("[[upstream]]\nof = \"a\"\nsnii = \"x\"\n", "3: unknown key `snii`\nhint: did you mean `sni`?"),
            (
                "[[upstream]]\nof = \"a\"\nroute = []\n",
                "3: unknown key `route`\nhint: `route` is not a setting of single upstreams; move it above the first `[[upstream]]`",
            ),
            (
                "[listener]\nof = \"a\"\n",
                "1: `[listener]`: there may be several of these sections\nhint: write `[[listener]]`",
            ),
            ("[[listener]]\nof = \"a\"\nanwser = \"reset\"\n", "3: unknown key `anwser`\nhint: did you mean `answer`?"),
            (
                "[[listener]]\nof = \"a\"\nforward = []\n",
                "3: unknown key `forward`\nhint: `forward` is not a setting of single listeners; move it above the first `[[listener]]`",
            ),
            ("pins = []\n", "1: unknown key `pins`\nhint: `pins` belongs in an `[[upstream]]` section"),
            (
                "[upstream]\nof = \"a\"\n",
                "1: `[upstream]`: there may be several of these sections\nhint: write `[[upstream]]`",
            ),
            ("cacert = \"x\"\n", "1: unknown key `cacert`\nhint: use `--ca-bundle PATH` (`ca_bundle` in the file)"),
            (
                "threads = 1\nconnect_timeout = \"soon\"\n",
                "2: connect_timeout: `soon`: not a time\nhint: write it as in `500ms`, `5s` or `2m`",
            ),
            (
                "tls_timeout = 5\n",
                "1: tls_timeout: `5`: a time needs quotes and a unit\nhint: write `\"5s\"` for seconds",
            ),
            ("threads = \"4\"\n", "1: threads: `4`: a whole number without quotes is expected"),
            ("access_log = \"yes\"\n", "1: access_log: `yes`: `true` or `false` without quotes is expected"),
            ("audit_log = 5\n", "1: audit_log: `5`: text in quotes is expected\nhint: write `\"5\"`"),
            ("min_tls = 1.2\n", "1: min_tls: `1.2`: text in quotes is expected\nhint: write `\"1.2\"`"),
            ("route = [1]\n", "1: route: expected text in quotes, or a list of texts"),
            ("log_format = \"xml\"\n", "1: log_format: `xml`: `json` or `text` is expected"),
            (
                "log_level = \"u:secret@a\"\n",
                "1: log_level: `…@a`: one of `debug`, `error`, `info`, `warn` is expected",
            ),
            (
                "rewrite = \"catalogs\"\n",
                "1: rewrite: `catalogs`: one of `catalog`, `none`, `pages`, `versions` is expected",
            ),
            (
                "[[listener]]\nof = \"a\"\nrewrite = [\"page\"]\n",
                "3: rewrite: `page`: one of `catalog`, `none`, `pages`, `versions` is expected",
            ),
            ("crl = []\n", "1: crl: the list is empty; remove the key"),
        ] {
            assert_eq!(parse(text).unwrap_err(), [expected], "{text}");
        }
        let listen = parse("listen = \"x\"\n").unwrap_err();
        assert!(listen[0].contains("`--route LISTEN=URL`"), "{listen:?}");
        let insecure = parse("insecure = true\n").unwrap_err();
        assert!(insecure[0].contains("report_only_until"), "{insecure:?}");
        assert_eq!(parse("ca_bundel = 1\nrout = 1\n").unwrap_err().len(), 2, "all problems are shown");
    }
}
