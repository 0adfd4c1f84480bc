//! `vouchsafe exec` with a tool, to its end.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::LazyLock,
};

use certs_dev::Bundle;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    gallery::{self, Front},
    proxy::{program, without_ambient},
};

/// `nobody` of every Linux.
const USER: &str = "65534";

/// The words that run the program as a user without capabilities, and without the means to get any.
pub fn as_user() -> Vec<String> {
    let drop = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
    let setpriv = [&["setpriv", "--reuid", USER, "--regid", USER], &drop[..]].concat();
    let words = if is_root() { setpriv } else { Vec::new() };
    let program = PROGRAM_FOR_ALL.path.display().to_string();
    words.into_iter().map(str::to_owned).chain([program]).collect()
}

/// The output of a tool after its proxy was killed. Its first line is the proxy's process id; it goes on when it reads a line.
pub async fn output_without_proxy(mut child: Child) -> String {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
    while kill_process(pid, Signal::WINCH).is_ok() && !is_zombie(pid) {
        std::thread::yield_now();
    }
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    let read = tokio::task::spawn_blocking(move || out.read_to_string(&mut rest).map(|_| rest));
    let rest = read.await.unwrap().unwrap();
    child.wait().unwrap();
    rest
}

fn is_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A copy of the program where every user may execute it.
static PROGRAM_FOR_ALL: LazyLock<ProgramForAll> = LazyLock::new(|| {
    let directory = super::dir();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("vouchsafe");
    fs::copy(program(), &path).expect("a copy of the program");
    ProgramForAll { path, _directory: directory }
});

struct ProgramForAll {
    path: PathBuf,
    _directory: TempDir,
}

/// A command about to be run.
pub struct Exec {
    command: Command,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Exec {
    /// With one worker, and the gallery's root.
    pub fn new() -> Self {
        Self::under(&[])
    }

    /// As a user without capabilities, isolated.
    pub fn isolated() -> Self {
        let words = as_user();
        let wrapper: Vec<_> = words[..words.len() - 1].iter().map(String::as_str).collect();
        Self::of(&wrapper, &PROGRAM_FOR_ALL.path).flags(&["--isolate"])
    }

    /// By a command that becomes the program which its last argument names.
    pub fn under(wrapper: &[&str]) -> Self {
        Self::of(wrapper, &program())
    }

    fn of(wrapper: &[&str], program: &Path) -> Self {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--kill-after=5", "60"]).args(wrapper).arg(program);
        without_ambient(&mut command);
        for name in ["http", "https", "no", "all"] {
            command.env_remove(format!("{name}_proxy")).env_remove(format!("{}_PROXY", name.to_uppercase()));
        }
        command.args(["exec", "--threads=1", "--ca-bundle", &gallery::bundle(Bundle::Root)]);
        command.stdin(Stdio::null());
        Self { command }
    }

    /// Within another command that becomes the program which its last arguments name.
    pub fn inside(self, wrapper: &[&str]) -> Self {
        let mut arguments: Vec<_> = self.command.get_args().map(ToOwned::to_owned).collect();
        let program = arguments.iter().position(|argument| Path::new(argument) == PROGRAM_FOR_ALL.path);
        let program = program.expect("the program");
        arguments.splice(program..program, wrapper.iter().map(Into::into));
        let mut command = Command::new(self.command.get_program());
        without_ambient(&mut command);
        command.args(arguments).stdin(Stdio::null());
        Self { command }
    }

    /// With more flags.
    pub fn flags<S: AsRef<str>>(mut self, flags: &[S]) -> Self {
        self.command.args(flags.iter().map(AsRef::as_ref));
        self
    }

    /// With this server as an allowed destination.
    pub fn allow(self, front: &Front) -> Self {
        let authority = front.authority();
        self.flags(&[format!("--allow={authority}"), format!("--connect-to={authority}={}", front.address)])
    }

    /// With a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// The command line of a tool, as words for a shell.
    pub fn in_shell(mut self, tool: &[&str]) -> String {
        self.command.arg("--").args(tool);
        // Without `timeout` and its arguments: a shell's job is the program itself.
        let words = self.command.get_args().skip(3).map(|word| word.to_string_lossy().into_owned());
        words.map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
    }

    /// Starts it with a tool, with its streams as pipes.
    pub fn start(mut self, tool: &[&str]) -> std::process::Child {
        self.command.arg("--").args(tool);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.spawn().expect("it starts")
    }

    /// Runs it with a tool.
    pub async fn run(mut self, tool: &[&str]) -> Ended {
        self.command.arg("--").args(tool);
        self.end().await
    }

    /// Runs it without a tool.
    pub async fn end(mut self) -> Ended {
        let output = tokio::task::spawn_blocking(move || self.command.output().expect("it starts"));
        output.await.expect("it ends").into()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Output { status, stdout, stderr } = output;
        Self { code: status.code(), signal: status.signal(), out: text(&stdout), err: text(&stderr) }
    }
}

/// A static program, a client of Go's net/http, below this directory.
pub fn go_client(at: &std::path::Path) -> String {
    const SOURCE: &str = r#"
        package main
        import ("fmt"; "net/http"; "os")
        func main() {
            r, err := http.Get(os.Args[1])
            if err != nil { fmt.Println(err); os.Exit(1) }
            fmt.Println(r.StatusCode)
        }
    "#;
    std::fs::write(at.join("main.go"), SOURCE).unwrap();
    let cache = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache");
    let mut build = Command::new("go");
    build.args(["build", "-o", "client", "main.go"]).current_dir(at);
    // Static, as Go's tools are delivered.
    build.env("CGO_ENABLED", "0").env("GOCACHE", cache).env("GO111MODULE", "off").env("GOFLAGS", "");
    let built = build.output().expect("go, which tests/setup installs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    at.join("client").display().to_string()
}

/// The words that run a client of Java's HttpsURLConnection, made below this directory: URL, and host and port of a
/// proxy follow. It trusts the certificate in `root` and no other.
pub fn java_client(at: &std::path::Path, root: &str) -> Vec<String> {
    const SOURCE: &str = r#"
        import java.net.*;
        public class Client {
            public static void main(String[] args) throws Exception {
                Proxy proxy = new Proxy(Proxy.Type.HTTP, new InetSocketAddress(args[1], Integer.parseInt(args[2])));
                try { System.out.println(((HttpURLConnection) new URL(args[0]).openConnection(proxy)).getResponseCode()); }
                catch (java.io.IOException error) { System.out.println(error); }
            }
        }
    "#;
    std::fs::write(at.join("Client.java"), SOURCE).unwrap();
    let store = at.join("trust.p12").display().to_string();
    let import = ["-importcert", "-noprompt", "-alias", "root", "-storetype", "PKCS12", "-storepass", "changeit"];
    for words in
        [&["javac", "Client.java"][..], &[&["keytool"], &import[..], &["-keystore", &store, "-file", root]].concat()]
    {
        let made = Command::new(words[0]).args(&words[1..]).current_dir(at).output();
        let made = made.expect("a JDK, which tests/setup installs");
        assert!(made.status.success(), "{words:?}: {made:?}");
    }
    let trust = [format!("-Djavax.net.ssl.trustStore={store}"), "-Djavax.net.ssl.trustStorePassword=changeit".into()];
    let words = ["java".into(), "-cp".into(), at.display().to_string()].into_iter().chain(trust);
    words.chain(["Client".to_owned()]).collect()
}
