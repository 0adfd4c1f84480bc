//! The built program as a child process: started on free ports, watched by its log, ended by its pid.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// No step of a test waits longer than this for an event.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Takes away whatever the environment says to the program: the tests say it all themselves.
pub fn without_ambient(command: &mut Command) {
    let bundles = ["OS_CACERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    let of_systemd = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];
    // What a terminal shows depends on these; one that somebody calls dumb is taken to have colours where `CI` is set.
    let screen = ["LC_ALL", "LC_CTYPE", "LANG", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM", "CI"];
    for variable in bundles.iter().chain(&["OS_CERT", "OS_KEY"]).chain(&of_systemd).chain(&screen) {
        command.env_remove(variable);
    }
    for variable in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(variable);
    }
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("VOUCHSAFE_") {
            command.env_remove(variable);
        }
    }
}

/// The program under test: the one built with the tests, or another that `TEST_PROGRAM` names.
pub fn program() -> PathBuf {
    std::env::var_os("TEST_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_vouchsafe").into(), PathBuf::from)
}

/// A running `vouchsafe run`.
pub struct Proxy {
    child: Child,
    log: Arc<Log>,
    addresses: Vec<SocketAddr>,
    directory: TempDir,
}

#[derive(Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

impl Log {
    /// The lines, also after a test has failed while it held them.
    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Proxy {
    /// Starts the program with these flags, one worker, a JSON log (or text, where the flags say so) and an
    /// audit log, and waits until it is ready.
    pub fn start<S: AsRef<str>>(flags: &[S]) -> Self {
        Self::start_with(flags, &[])
    }

    /// The same with these variables.
    pub fn start_with<S: AsRef<str>>(flags: &[S], variables: &[(&str, &str)]) -> Self {
        Self::start_command(Command::new(program()), flags, variables)
    }

    /// The same by a command that becomes the program which its last argument names.
    pub fn start_under<S: AsRef<str>>(wrapper: &[String], flags: &[S]) -> Self {
        let mut command = Command::new(&wrapper[0]);
        command.args(&wrapper[1..]).arg(program());
        Self::start_command(command, flags, &[])
    }

    fn start_command<S: AsRef<str>>(mut command: Command, flags: &[S], variables: &[(&str, &str)]) -> Self {
        let directory = super::dir();
        let audit = directory.path().join("audit.jsonl");
        command.args(["run", "--threads", "1"]);
        // Tests count events, so repeats are not folded.
        let usual = [
            ("--log-format", "json"),
            ("--fold-repeats", "1ns"),
            ("--audit-log", &audit.display().to_string()),
            // Most requests of the tests say `Host: a`, whatever they are for.
            ("--accept-host", "a"),
        ];
        for (flag, value) in usual {
            if !flags.iter().any(|said| said.as_ref() == flag) {
                command.args([flag, value]);
            }
        }
        command.args(flags.iter().map(AsRef::as_ref));
        without_ambient(&mut command);
        command.envs(variables.iter().copied());
        let mut child = command.stderr(Stdio::piped()).stdin(Stdio::null()).spawn().expect("the program starts");
        let log = Arc::new(Log::default());
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let filling = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                filling.lock().0.push(line);
                filling.more.notify_all();
            }
            filling.lock().1 = true;
            filling.more.notify_all();
        });
        let mut proxy = Self { child, log, addresses: Vec::new(), directory };
        let [address, ready] = match flags.iter().any(|said| said.as_ref() == "--log-format") {
            false => ["\"address\":\"", "\"message\":\"ready\""],
            true => ["listening address=", " ready listeners="],
        };
        proxy.wait_for_line("the ready line", |line| line.contains(ready).then_some(()));
        let log = proxy.raw_log();
        let listening = log.lines().filter_map(|line| line.split_once(address)).map(|(_, rest)| rest);
        proxy.addresses =
            // UNIX sockets have none.
            listening.filter_map(|rest| rest.split(['"', ' ']).next().unwrap().parse().ok()).collect();
        proxy
    }

    /// The address of the n-th listener.
    pub fn addr(&self, n: usize) -> SocketAddr {
        self.addresses[n]
    }

    /// The address of the admin listener.
    pub fn admin(&self) -> SocketAddr {
        let line = self.wait_for_log("the admin listener", |event| event["message"] == "admin listener");
        line["admin"].as_str().and_then(|address| address.parse().ok()).expect("an address")
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its audit log is.
    pub fn audit_path(&self) -> PathBuf {
        self.directory.path().join("audit.jsonl")
    }

    /// Waits until all audit events that were recorded so far are written: opening the file again comes behind them.
    pub fn wait_for_audit(&self) {
        const SAID: &str = "the audit log is opened again";
        let said = |lines: &[String]| lines.iter().filter(|line| line.contains(SAID)).count();
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.log.lock();
        let before = said(&guard.0);
        if !guard.1 {
            // It may end just now, and has all written then.
            let _ = Command::new("kill").args(["-USR1", &self.pid().to_string()]).status();
        }
        while said(&guard.0) == before && !guard.1 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the audit log is not opened again:\n{}", guard.0.join("\n"));
            guard = self.log.more.wait_timeout(guard, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// The refusals and other alerts so far; each is what the schema says.
    pub fn audit(&self) -> Vec<Value> {
        let (alerts, _) = self.audit_events();
        alerts
    }

    /// The audit events so far that are about what will be refused.
    pub fn notices(&self) -> Vec<Value> {
        let (_, notices) = self.audit_events();
        notices
    }

    /// Alerts and notices; a gap is an alert.
    fn audit_events(&self) -> (Vec<Value>, Vec<Value>) {
        self.wait_for_audit();
        let text = std::fs::read_to_string(self.audit_path()).unwrap_or_default();
        let short = text.lines().inspect(|line| assert!(line.len() < 64 << 10, "{} bytes: {line}", line.len()));
        let events = short.map(|line| serde_json::from_str(line).expect("an audit line is JSON"));
        let is_notice = |event: &Value| event["event.kind"] == "event" && event["event.action"] != "audit-gap";
        events.inspect(super::schema::check).partition(|event| !is_notice(event))
    }

    /// The log so far; every line is JSON.
    pub fn log(&self) -> Vec<Value> {
        let lines = self.log.lock().0.clone();
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
    }

    /// The log as it was written.
    pub fn raw_log(&self) -> String {
        self.log.lock().0.join("\n")
    }

    /// Waits for a log line that fits.
    pub fn wait_for_log(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_line(what, |line| serde_json::from_str(line).ok().filter(|event| fits(event)))
    }

    /// Waits for a line that something can be made of.
    pub fn wait_for_line<T>(&self, what: &str, make: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.log.lock();
        let mut seen = 0;
        loop {
            while let Some(line) = guard.0.get(seen) {
                seen += 1;
                if let Some(made) = make(line) {
                    return made;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = guard.1;
            assert!(!left.is_zero() && !ended, "no {what} in the log:\n{}", guard.0.join("\n"));
            guard = self.log.more.wait_timeout(guard, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// The access events so far.
    pub fn wait_for_access(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        self.wait_for_log(what, |event| event["message"] == "request" && fits(event))
    }

    /// The highest resident memory so far, in KiB.
    pub fn peak_memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill").success());
    }

    /// Sends a signal again and again until the process ends.
    pub fn signal_until_it_ends(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.log.lock();
        while !guard.1 {
            assert!(Instant::now() < deadline, "it does not end:\n{}", guard.0.join("\n"));
            drop(guard);
            self.signal(name);
            guard = self.log.lock();
            let soon = Duration::from_millis(50);
            guard = self.log.more.wait_timeout(guard, soon).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Ends it with SIGTERM and waits.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end, which its log tells.
    pub fn wait(&mut self) -> ExitStatus {
        let mut guard = self.log.lock();
        let deadline = Instant::now() + PATIENCE;
        while !guard.1 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "it does not end:\n{}", guard.0.join("\n"));
            guard = self.log.more.wait_timeout(guard, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        drop(guard);
        self.child.wait().expect("it ends")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the proxy ---\n{}\n---", self.raw_log());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
