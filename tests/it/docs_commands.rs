//! The commands of README and of the book run as they are written.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{self, replicator::real};

/// README, CONTRIBUTING and the pages of the book, by their paths from the root of the repository.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let mut pages: Vec<PathBuf> = pages.chain(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name))).collect();
    pages.sort();
    pages.iter().map(|page| page.strip_prefix(root).unwrap().display().to_string()).collect()
}

/// The blocks that are not run, with their reasons, are in a file, so that a new one shows up in review.
/// `UPDATE_GOLDEN=1` writes it.
#[test]
fn every_command_runs_or_has_a_reason_why_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(root.join("tests/docs/run"));
    let output = command.arg(env!("CARGO_BIN_EXE_vouchsafe")).args(pages()).current_dir(root).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
    let ran = report.lines().filter(|line| line.starts_with("ran ")).count();
    assert!(ran > 50, "{ran}");

    let mut not_run: Vec<_> = report.lines().filter_map(|line| line.strip_prefix("not run ")).collect();
    not_run.sort_unstable();
    let mut list = String::new();
    for (place, reason) in not_run.iter().filter_map(|line| line.split_once(": ")) {
        let page = place.split(':').next().unwrap_or_default();
        writeln!(list, "{page}: {reason}").unwrap();
    }
    let path = root.join("tests/docs/not-run.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &list).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(list, expected, "review what is not run any more with UPDATE_GOLDEN=1");
}

/// A block in a language that is not known is one whose commands nobody runs.
#[test]
fn languages_of_blocks_are_known() {
    let known = ["", "ini", "json", "promql", "python", "sh", "text", "toml", "yaml"];
    for page in pages() {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(&page)).unwrap();
        let fences = text.lines().filter_map(|line| line.trim_start().strip_prefix("```"));
        for (number, language) in fences.enumerate() {
            assert!(known.contains(&language), "{page}: `{language}`");
            assert!(number % 2 == 1 || !language.is_empty(), "{page}: a block without a language");
        }
    }
}

const LOG_STORES: &str = include_str!("../../docs/log-stores.md");

/// The blocks of docs/log-stores.md that are files, as the comment in their first line says.
fn files() -> impl Iterator<Item = (&'static str, &'static str)> {
    let blocks = LOG_STORES.split("\n```").filter_map(|block| block.split_once('\n')).map(|(_, code)| code);
    blocks.filter_map(|code| Some((code.strip_prefix("# ")?.lines().next()?, code)))
}

/// Filebeat, Promtail, Vector and Splunk are not in Debian: their files are only parsed. rsyslog checks its own.
#[test]
fn configurations_of_log_stores_can_be_read() {
    let directory = support::dir();
    let mut names = Vec::new();
    for (name, code) in files() {
        let path = directory.path().join(name);
        let is_rsyslog = name == "vouchsafe.conf";
        // The main configuration of Debian sets it.
        let before = if is_rsyslog { "global(workDirectory=\"/var/spool/rsyslog\")\n" } else { "" };
        fs::write(&path, format!("{before}{code}")).unwrap();
        let parse = match name.rsplit_once('.').unwrap().1 {
            "yml" => "import sys, yaml; assert isinstance(yaml.safe_load(open(sys.argv[1])), dict)",
            "toml" => "import sys, tomllib; assert tomllib.load(open(sys.argv[1], 'rb'))",
            _ => "import sys, configparser; assert configparser.ConfigParser(interpolation=None).read(sys.argv[1])",
        };
        let mut command =
            Command::new(if is_rsyslog { "/usr/sbin/rsyslogd".into() } else { real().join("glance33/bin/python") });
        if is_rsyslog {
            command.args(["-N1", "-f"]);
        } else {
            command.args(["-c", parse]);
        }
        let output = command.arg(&path).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        names.push(name);
    }
    assert_eq!(names, ["filebeat.yml", "promtail.yml", "vector.toml", "inputs.conf", "props.conf", "vouchsafe.conf"]);
}

/// A query for a field that no event has finds nothing, and nobody notices.
#[test]
fn queries_of_log_stores_name_fields_of_events() {
    let schema = include_str!("../../docs/audit-event.schema.json");
    let words = LOG_STORES.split(|c: char| !c.is_ascii_alphanumeric() && !"._@-".contains(c));
    let prefixes = ["event.", "error.", "vouchsafe.", "client.", "server.", "tls.", "@timestamp"];
    let files: Vec<_> = files().map(|(name, _)| name).collect();
    let fields: Vec<_> = words
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)) && !files.contains(word))
        .collect();
    assert!(fields.len() > 20, "{fields:?}");
    for field in fields {
        assert!(schema.contains(&format!("\"{field}\"")), "no event has `{field}`");
    }
}
