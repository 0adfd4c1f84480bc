//! Reads the named files, by way of [`Files`], which has the only file IO of this room.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use clap::{Args as _, Command};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::text::show_value;

use super::{
    args::{Options, UpstreamOptions},
    contents,
    error::ConfigError,
    paths,
    watch::Files,
};

/// A file's name for messages, and its bytes.
pub type Named = (String, Vec<u8>);

/// Reads a configuration file.
///
/// # Errors
/// [`ConfigError`] that names the file, the line, and the nearest known key.
pub fn file(files: &mut Files, path: &Path) -> Result<Options, ConfigError> {
    let (name, bytes) = named(files, "--config", path).map_err(ConfigError::one)?;
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::one(format!("--config `{name}`: not UTF-8")))?;
    parse(&text).map_err(|problems| {
        let problems: Vec<_> = problems.into_iter().map(|problem| format!("{name}:{problem}")).collect();
        match ConfigError::unless_empty(problems) {
            Err(error) => error,
            Ok(()) => ConfigError::one(format!("{name}: cannot be read")),
        }
    })
}

/// Parses a configuration file's text; problems begin with their line.
///
/// # Errors
/// The problems, at least one.
pub fn parse(text: &str) -> Result<Options, Vec<String>> {
    let complain = |error: toml::de::Error| {
        let line = line(text, error.span().unwrap_or_default());
        vec![format!("{line}: {}{}", key(text, line), error.message())]
    };
    let table = DeTable::parse(text).map_err(complain)?;
    let mut problems = unknown_keys(text, table.get_ref());
    problems.extend(contents_of_files(text, table.get_ref()));
    if !problems.is_empty() {
        return Err(problems);
    }
    toml::from_str(text).map_err(complain)
}

/// Values that must not get as far as a message that repeats them.
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
    let problems = found.into_iter().filter_map(|(span, value)| {
        let line = line(text, span);
        let key = key(text, line);
        contents::problem(format!("{line}: {key}").trim_end_matches(": "), value)
    });
    problems.collect()
}

fn unknown_keys(text: &str, table: &DeTable<'_>) -> Vec<String> {
    let flags = Options::augment_args(Command::new(""));
    let mut known: Vec<&str> = flags.get_arguments().map(|arg| arg.get_id().as_str()).collect();
    known.push("upstream");
    let mut problems = Vec::new();
    for (key, value) in table {
        check(text, key.get_ref(), key.span(), &known, &mut problems);
        let DeValue::Array(sections) = value.get_ref() else { continue };
        if key.get_ref() != "upstream" {
            continue;
        }
        for section in sections.iter() {
            let DeValue::Table(section) = section.get_ref() else { continue };
            for key in section.keys() {
                check(text, key.get_ref(), key.span(), &UpstreamOptions::KEYS, &mut problems);
            }
        }
    }
    problems
}

fn check(text: &str, key: &str, span: Range<usize>, known: &[&str], problems: &mut Vec<String>) {
    if known.contains(&key) {
        return;
    }
    let written = key.replace('-', "_");
    let nearest = known.iter().max_by(|a, b| {
        let distance = |k: &str| strsim::jaro_winkler(&written, k);
        distance(a).total_cmp(&distance(b))
    });
    let hint = match nearest {
        Some(nearest) if strsim::jaro_winkler(&written, nearest) > 0.7 => format!("\nhint: did you mean `{nearest}`?"),
        _ => format!("\nhint: the keys are {}", known.join(", ")),
    };
    problems.push(format!("{}: unknown key `{}`{hint}", line(text, span), show_value(key)));
}

/// The key on a line, to be put before what is wrong with its value; nothing where there is none.
fn key(text: &str, line: usize) -> String {
    let key = text.lines().nth(line - 1).and_then(|line| Some(line.split_once('=')?.0.trim()));
    let is_key =
        |key: &&str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    key.filter(is_key).map(|key| format!("{key}: ")).unwrap_or_default()
}

fn line(text: &str, span: Range<usize>) -> usize {
    1 + text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count()
}

/// Reads PEM bundles: files, and directories of `*.pem`, `*.crt`, `*.cer` and OpenSSL's hashed names.
///
/// A file of a directory is read once, however many links lead to it. Names that begin with `..` are passed over: a
/// Kubernetes volume keeps its versions under such names, and links to the current one.
///
/// # Errors
/// A sentence that names the path.
pub fn bundle(files: &mut Files, what: &str, paths: &[PathBuf]) -> Result<Vec<Named>, String> {
    let mut found = Vec::new();
    for path in paths {
        paths::is_name(what, path)?;
        let Some(entries) = files.list(path).map_err(|error| unread(what, path, paths, &error))? else {
            found.push(read(files, what, path, paths)?);
            continue;
        };
        let mut known = HashSet::new();
        for entry in entries.iter().filter(|entry| is_certificate_name(entry)) {
            let Ok(metadata) = fs::metadata(entry) else { continue };
            if metadata.is_file() && known.insert((metadata.dev(), metadata.ino())) {
                found.push(named(files, what, entry)?);
            }
        }
    }
    Ok(found)
}

/// Reads files.
///
/// # Errors
/// A sentence that names the path.
pub fn each(files: &mut Files, what: &str, paths: &[PathBuf]) -> Result<Vec<Named>, String> {
    paths.iter().map(|path| read(files, what, path, paths)).collect()
}

/// Reads a file.
///
/// # Errors
/// A sentence that names the path.
pub fn named(files: &mut Files, what: &str, path: &Path) -> Result<Named, String> {
    read(files, what, path, &[])
}

/// Reads one of several files.
fn read(files: &mut Files, what: &str, path: &Path, paths: &[PathBuf]) -> Result<Named, String> {
    paths::is_name(what, path)?;
    let bytes = files.read(path).map_err(|error| unread(what, path, paths, &error))?;
    Ok((show_value(path), bytes))
}

fn unread(what: &str, path: &Path, paths: &[PathBuf], error: &io::Error) -> String {
    let hint = paths::hint(path, error, paths).map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{what} `{}`: {error}{hint}", show_value(path))
}

fn is_certificate_name(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str).filter(|name| !name.starts_with("..")) else {
        return false;
    };
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    // `5ed36f99.0`, as `openssl rehash` makes it; a `ca.pem.1` that somebody put aside is none.
    let hashed = || {
        let digits = !extension.is_empty() && extension.bytes().all(|b| b.is_ascii_digit());
        digits && stem.len() == 8 && stem.bytes().all(|b| b.is_ascii_hexdigit())
    };
    ["pem", "crt", "cer"].contains(&extension) || hashed()
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
    fn unknown_keys_are_named_with_line_and_neighbour() {
        let problems = parse("\nca-bundel = []\n[[upstream]]\nof = \"a\"\nsnii = \"x\"\n").unwrap_err();
        assert_eq!(problems[0], "2: unknown key `ca-bundel`\nhint: did you mean `ca_bundle`?");
        assert_eq!(problems[1], "5: unknown key `snii`\nhint: did you mean `sni`?");
    }

    #[test]
    fn wrong_values_name_their_line() {
        let problems = parse("threads = 1\nconnect_timeout = \"soon\"\n").unwrap_err();
        assert!(problems[0].starts_with("2: connect_timeout: "), "{problems:?}");
    }
}
