//! The real glance-replicator, of two releases, as a child process that always comes to an end; and
//! the sidecar as its tests set it up.
//!
//! The tools are installed by `tests/setup`, below `real` in the target directory.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use certs_dev::{Bundle, Case, Expected};
use serde_json::Value;

use super::exec::{as_user, is_root};
use super::gallery;
use super::proxy::Proxy;

/// A release of the replicator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Release {
    /// Of 2017, with `httplib` on CPython 2.7.
    Glance15,
    /// Of today, with `http.client` on Python 3.
    Glance33,
}

impl Release {
    /// Runs `glance-replicator ARGUMENTS` to its end, which is forced after a minute or two.
    pub fn run(self, arguments: &[&str]) -> Outcome {
        self.run_within(LIMIT, arguments)
    }

    /// The same with another limit.
    pub fn run_within(self, limit: Duration, arguments: &[&str]) -> Outcome {
        self.run_under(&[], limit, arguments)
    }

    /// Isolated, by `vouchsafe exec` with these flags, as a user without capabilities.
    pub fn run_isolated(self, flags: &[String], arguments: &[&str]) -> Outcome {
        let mut words = [self.opened(), as_user()].concat();
        words.extend(["exec", "--isolate", "--preset=glance-replicator", "--log-level=error"].map(str::to_owned));
        words.extend(flags.iter().cloned());
        words.push("--".into());
        self.run_under(&words.iter().map(String::as_str).collect::<Vec<_>>(), LIMIT, arguments)
    }

    /// The words by which another user may run it: its Python may be in a home directory that is closed to others, and is
    /// opened for what these words run.
    pub fn opened(self) -> Vec<String> {
        let environment = match self {
            Self::Glance15 => "glance15",
            Self::Glance33 => "glance33",
        };
        let mut python = Command::new(real().join(environment).join("bin/python"));
        python.args(["-c", "import sys; print(getattr(sys, 'real_prefix', None) or sys.base_prefix)"]);
        // Python 2.7 of another Debian brings libraries.
        let libraries = fs::read_to_string(real().join("glance15.libs")).unwrap_or_default();
        if self == Self::Glance15 && !libraries.trim().is_empty() {
            python.env("LD_LIBRARY_PATH", libraries.trim());
        }
        let home = String::from_utf8(python.output().expect("a Python").stdout).expect("a path");
        let home = fs::canonicalize(home.trim()).expect("its home");
        let mode = |path: &Path| fs::metadata(path).expect("a directory").permissions().mode();
        let mut pairs = home.ancestors().zip(home.ancestors().skip(1));
        let Some((next, closed)) = pairs.find(|(_, parent)| is_root() && mode(parent) & 1 == 0) else {
            return Vec::new();
        };
        let opening = [Path::new(OPEN), closed, next].map(|word| word.display().to_string());
        let [script, closed, next] = opening;
        [["unshare", "--mount", "sh", "-ec"].map(str::to_owned).to_vec(), vec![script, closed, next]].concat()
    }

    /// The same by a command that becomes the one that its last arguments are.
    pub fn run_under(self, wrapper: &[&str], limit: Duration, arguments: &[&str]) -> Outcome {
        // A child of coreutils' `timeout`, since std waits for a child without any limit.
        let mut command = Command::new("timeout");
        command.arg("--kill-after=5").arg(limit.as_secs().to_string()).args(wrapper);
        match self {
            Self::Glance15 => command.arg(launcher()).arg("replicator"),
            Self::Glance33 => command.arg(glance33()),
        };
        command.args(["-t", "a-token"]).args(arguments);
        for ambient in ["http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "PYTHONPATH"] {
            command.env_remove(ambient);
        }
        command.env("VOUCHSAFE_REAL", real()).env("PYTHONWARNINGS", "ignore");
        let begun = Instant::now();
        let output = command.output().expect("coreutils' timeout");
        Outcome {
            what: format!("glance-replicator ({self:?}) {}", arguments.join(" ")),
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: begun.elapsed(),
        }
    }
}

/// How a run has ended.
#[derive(Debug)]
pub struct Outcome {
    pub what: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Outcome {
    /// Asserts that the tool is content.
    pub fn succeeded(self) -> Self {
        assert!(self.status.success(), "it should succeed: {self}");
        self
    }

    /// Asserts that the tool has ended by itself, and with a failure.
    pub fn failed(self) -> Self {
        if let Err(why) = self.loudness() {
            panic!("{why}");
        }
        self
    }

    /// The same, as a value.
    pub fn loudness(&self) -> Result<(), String> {
        match self.status.code() {
            Some(0) => Err(format!("it should fail, but is content: {self}")),
            // 124 is the limit, and 137 the kill after it.
            Some(124 | 137) | None => Err(format!("it hangs: {self}")),
            Some(_) if self.stderr.trim().is_empty() => Err(format!("it fails, but says nothing: {self}")),
            Some(_) => Ok(()),
        }
    }

    /// The differences that `compare` has found.
    pub fn differences(&self) -> Vec<Difference> {
        self.stderr.lines().filter_map(Difference::parse).collect()
    }

    /// The images that `compare` or `livecopy` takes for missing.
    pub fn missing(&self) -> BTreeSet<String> {
        let lines = self.stderr.lines();
        let missing = lines.filter(|line| line.contains("entirely missing from the destination"));
        missing.filter_map(|line| Some(line.split_once("Image ")?.1.split(' ').next()?.to_owned())).collect()
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}`: {} after {:.1?}\n--- stdout\n{}\n--- stderr\n{}",
            self.what, self.status, self.took, self.stdout, self.stderr
        )
    }
}

/// A line of `compare`: `ID: field NAME differs (source is A, destination is B)`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    pub image: String,
    pub field: String,
    pub source: String,
    pub destination: String,
}

impl Difference {
    fn parse(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(": field ")?;
        let (field, values) = after.split_once(" differs (source is ")?;
        let (source, destination) = values.strip_suffix(')')?.split_once(", destination is ")?;
        Some(Self {
            image: before.rsplit(' ').next()?.to_owned(),
            field: field.to_owned(),
            source: source.to_owned(),
            destination: destination.to_owned(),
        })
    }

    /// The replicator holds a number from JSON against the same number from a field, which is text.
    /// Every release finds this difference in every image, with and without a proxy.
    pub fn is_of_type_alone(&self) -> bool {
        self.source == self.destination
    }
}

/// A sidecar about to be started: its routes, and whom it trusts.
pub struct Sidecar {
    arguments: Vec<String>,
    listeners: usize,
}

impl Sidecar {
    /// With the preset for the replicator.
    fn new() -> Self {
        let mut sidecar = Self { arguments: Vec::new(), listeners: 0 };
        sidecar.set("--preset", "glance-replicator");
        sidecar
    }

    pub fn set(&mut self, flag: &str, value: &str) {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
    }

    /// A route to a server on 127.0.0.1 under the name that is to be verified; its listener's index.
    pub fn route(&mut self, name: &str, port: u16) -> usize {
        self.set("--route", &format!("127.0.0.1:0=https://{name}:{port}"));
        if name != "127.0.0.1" {
            self.set("--connect-to", &format!("{name}:{port}=127.0.0.1:{port}"));
        }
        self.listeners += 1;
        self.listeners - 1
    }

    pub fn start(self) -> Proxy {
        Proxy::start(&self.arguments)
    }
}

/// The cases of the gallery that must be refused, with the code that says why.
pub fn bad_cases() -> impl Iterator<Item = (Case, &'static str)> {
    Case::ALL.iter().filter_map(|case| match case.expected() {
        Expected::Accept => None,
        Expected::Refuse(code) => Some((*case, code)),
    })
}

/// A sidecar that trusts one of the gallery's bundles, and knows its revocation lists if it should.
pub fn trusting(bundle: Bundle, crl: bool) -> Sidecar {
    let mut sidecar = Sidecar::new();
    sidecar.set("--ca-bundle", &gallery::bundle(bundle));
    if crl {
        sidecar.set("--crl", &gallery::crl());
    }
    sidecar
}

/// Looks through the audit log for the refusals of a case at a port, and says what is wrong with them.
pub fn explained(events: &[Value], case: Case, code: &str, port: u16) -> Result<(), String> {
    let upstream = format!("{}:{port}", case.name());
    let kind = if case.is_ip() { "ip" } else { "dns" };
    let reference = format!("{kind}:{}", case.name());
    let ours = || {
        let events = events.iter();
        events.filter(|event| event["vouchsafe.upstream"] == upstream.as_str())
    };
    if ours().next().is_none() {
        return Err(format!("no event for {upstream}"));
    }
    for event in ours() {
        let wanted = [
            ("event.action", Value::from("tls-verification-refused")),
            ("error.code", Value::from(code)),
            ("vouchsafe.reference", Value::from(reference.as_str())),
            ("vouchsafe.request_bytes_sent", Value::from(0)),
        ];
        for (field, value) in wanted {
            if event[field] != value {
                return Err(format!("`{field}` should be {value}: {event}"));
            }
        }
        if !event["vouchsafe.offending"]["sha256"].is_string() {
            return Err(format!("the offending certificate is not said: {event}"));
        }
        if !event["vouchsafe.presented_names"].is_array() {
            return Err(format!("the names that were presented are not said: {event}"));
        }
        if event["vouchsafe.hint"].as_str().is_none_or(str::is_empty) {
            return Err(format!("there is no hint: {event}"));
        }
    }
    Ok(())
}

/// Does `work` for each item, some at a time, and returns all complaints.
pub fn complaints<T: Send, W>(items: impl IntoIterator<Item = T>, work: W) -> Vec<String>
where
    W: Fn(T) -> Result<(), String> + Sync,
{
    let items: Vec<T> = items.into_iter().collect();
    let queue = Mutex::new(items.into_iter());
    let complaints = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                loop {
                    let Some(item) = queue.lock().expect("the queue").next() else {
                        return;
                    };
                    if let Err(complaint) = work(item) {
                        complaints.lock().expect("the complaints").push(complaint);
                    }
                }
            });
        }
    });
    complaints.into_inner().expect("the complaints")
}

/// What is in a directory, by name.
pub fn files_in(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

/// A fresh directory below the target directory, where there is room for images.
pub fn roomy_dir() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// Where `tests/setup` has put the tools.
pub fn real() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    target.expect("the target directory").join("real")
}

/// Starts what belongs to Glance 15.
pub fn launcher() -> PathBuf {
    repository().join("tests/real/glance15")
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn glance33() -> PathBuf {
    let program = real().join("glance33/bin/glance-replicator");
    assert!(program.exists(), "`{}` is missing\n  hint: run `tests/setup` first", program.display());
    program
}

/// Hides a directory ($0) behind an empty one that has a single entry of it ($1), in a mount namespace.
const OPEN: &str = r#"
    next=$1; shift
    exec 9<"$next"
    mount -t tmpfs -o mode=755 none "$0"
    mkdir -p "$next"
    mount --no-canonicalize --bind /proc/self/fd/9 "$next"
    exec 9<&- "$@"
"#;

/// A directory that every user may write to.
pub fn open_dir(path: &Path) -> String {
    fs::create_dir(path).expect("a directory");
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("its owner");
    path.display().to_string()
}

const LIMIT: Duration = Duration::from_secs(90);

/// Most of a run is the start of a Python interpreter, which wants a core to itself.
const AT_A_TIME: usize = 2;
