//! Real Glance 15 servers, and nginx and hitch as foreign TLS terminators in front of them.
//!
//! None of these can be told to take a free port and say which. A port is taken from the kernel and
//! given back first, and if somebody else gets it in between, it is tried again with another.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use certs_dev::Identity;
use serde_json::Value;

use super::replicator::{launcher, real, repository};

/// Whether Glance 15 can be run here. If not, the test counts as not run: one line in `not-run`
/// beside the tools, from which `tests/run` makes its closing words.
pub fn is_available(test: &str) -> bool {
    let real = real();
    if let Ok(reason) = fs::read_to_string(real.join("glance15.absent")) {
        let line = format!("NOT RUN {test}: Glance 15 is absent: {}", reason.trim());
        eprintln!("{line}");
        let file = File::options().create(true).append(true).open(real.join("not-run"));
        writeln!(file.expect("`not-run`"), "{line}").expect("`not-run`");
        return false;
    }
    assert!(
        real.join("glance15.stamp").exists(),
        "Glance 15 is not installed in `{}`\n  hint: run `tests/setup` first",
        real.display()
    );
    true
}

/// One Glance 15, its registry and its API, with everything in one directory.
pub struct Glance {
    pub port: u16,
    dir: PathBuf,
    _registry: Daemon,
    _api: Daemon,
}

impl Glance {
    pub fn start(dir: &Path) -> Self {
        with_free_ports(2, |ports| {
            let _ = fs::remove_dir_all(dir);
            let [api_port, registry_port] = [ports[0].to_string(), ports[1].to_string()];
            let made = glance15(&["init".as_ref(), dir.as_os_str(), api_port.as_ref(), registry_port.as_ref()])
                .status()
                .expect("the launcher");
            assert!(made.success(), "glance15 init: {made}");
            let start = |action: &str| {
                let command = glance15(&[action.as_ref(), dir.as_os_str()]);
                Daemon::start(&command, &dir.join(format!("{action}.log")))
            };
            let (mut registry, mut api) = (start("registry"), start("api"));
            registry.wait_for(ports[1])?;
            api.wait_for(ports[0])?;
            Ok(Self { port: ports[0], dir: dir.to_owned(), _registry: registry, _api: api })
        })
    }

    /// Puts an image into it, past any proxy.
    pub fn seed(&self, id: &str, name: &str, data: &Path) {
        let field = |name: &str, value: &str| format!("x-image-meta-{name}: {value}");
        let fields = [
            field("id", id),
            field("name", name),
            field("disk_format", "raw"),
            field("container_format", "bare"),
            field("is_public", "True"),
            field("property-os_distro", "lab"),
            "Content-Type: application/octet-stream".to_owned(),
            "Expect:".to_owned(),
        ];
        let mut command = self.curl("/v1/images");
        command.args(["-X", "POST", "-T"]).arg(data);
        for field in &fields {
            command.args(["-H", field]);
        }
        let answer = output_of(&mut command);
        assert_eq!(answer["image"]["status"], "active", "{answer}");
    }

    /// Its images as the v1 API shows them.
    pub fn images(&self) -> Vec<Value> {
        let list = output_of(&mut self.curl("/v1/images/detail?is_public=None&limit=1000"));
        list["images"].as_array().expect("a list of images").clone()
    }

    /// Where its store keeps an image.
    pub fn stored(&self, id: &str) -> PathBuf {
        self.dir.join("images").join(id)
    }

    fn curl(&self, path: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail-with-body", "--noproxy", "*", "--max-time", "120"]);
        command.arg(format!("http://127.0.0.1:{}{path}", self.port));
        command
    }
}

/// One server of nginx: what it presents, and the port of the plain server behind it.
pub struct Site<'a> {
    pub identity: &'a Identity,
    pub backend: u16,
}

/// One nginx with a server, on a port of its own, for each site.
pub struct Nginx {
    /// In the order of the sites.
    pub ports: Vec<u16>,
    dir: PathBuf,
    _daemon: Daemon,
}

impl Nginx {
    pub fn start(dir: &Path, sites: &[Site<'_>]) -> Self {
        with_free_ports(sites.len(), |ports| {
            let command = nginx(dir, &servers(dir, sites, ports));
            let mut daemon = Daemon::start(&command, &dir.join("nginx.log"));
            // It binds all before it serves any.
            for port in ports {
                daemon.wait_for(*port)?;
            }
            Ok(Self { ports: ports.to_vec(), dir: dir.to_owned(), _daemon: daemon })
        })
    }

    /// Whether nginx will serve this identity: OpenSSL declines some of what a gallery holds.
    pub fn accepts(dir: &Path, identity: &Identity) -> bool {
        let site = Site { identity, backend: 9 };
        // The test binds, too, but does not mind if the port is taken.
        let tested = with_free_ports(1, |ports| {
            let mut command = nginx(dir, &servers(dir, std::slice::from_ref(&site), ports));
            Ok(command.arg("-t").stderr(Stdio::null()).status())
        });
        tested.expect("nginx").success()
    }

    /// The requests that have reached the server on a port, after its handshake.
    pub fn reached(&self, port: u16) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("reached.log")).unwrap_or_default();
        let prefix = format!("{port} ");
        log.lines().filter(|line| line.starts_with(&prefix)).map(str::to_owned).collect()
    }
}

/// One hitch in front of one plain server.
pub struct Hitch {
    pub port: u16,
    _daemon: Daemon,
}

impl Hitch {
    pub fn start(dir: &Path, identity: &Identity, backend: u16) -> Self {
        fs::create_dir_all(dir).expect("a directory");
        let pem = dir.join("hitch.pem");
        fs::write(&pem, identity.key_pem() + &identity.chain_pem()).expect("a PEM file");
        let is_root = fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0);
        let (user, group) = if is_root { ("nobody", "nogroup") } else { ("", "") };
        with_free_ports(1, |ports| {
            let configuration = dir.join("hitch.conf");
            let text = template("front-hitch.conf")
                .replace("@PORT@", &ports[0].to_string())
                .replace("@BACKEND@", &backend.to_string())
                .replace("@PEM@", &pem.display().to_string())
                .replace("@USER@", user)
                .replace("@GROUP@", group);
            fs::write(&configuration, text).expect("a configuration");
            let mut command = Command::new(program("hitch"));
            command.arg(format!("--config={}", configuration.display()));
            let mut daemon = Daemon::start(&command, &dir.join("hitch.log"));
            daemon.wait_for(ports[0])?;
            Ok(Self { port: ports[0], _daemon: daemon })
        })
    }
}

/// A child in a process group of its own, which ends as a whole when this is dropped.
pub(super) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(super) fn start(command: &Command, log: &Path) -> Self {
        let output = File::create(log).expect("a log file");
        // If this process is killed, nothing is dropped; the kernel ends the child then.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log file"))
            .stderr(output)
            .process_group(0)
            .spawn()
            .expect("a foreign server");
        Self { child, log: log.to_owned() }
    }

    /// Waits until it listens. An error means that its port was taken meanwhile.
    pub(super) fn wait_for(&mut self, port: u16) -> Result<(), Collision> {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let ended = self.child.try_wait().expect("a child");
            if let Some(status) = ended {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                let taken = ["Address already in use", "EADDRINUSE", "Errno 98"];
                assert!(
                    taken.iter().any(|words| log.contains(words)),
                    "a foreign server ended with {status} at its start:\n{log}"
                );
                return Err(Collision);
            }
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(());
            }
            assert!(Instant::now() < deadline, "port {port} did not open: {}", self.log.display());
            // These servers give no sign of being ready.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

pub(super) struct Collision;

pub(super) fn with_free_ports<T>(count: usize, start: impl Fn(&[u16]) -> Result<T, Collision>) -> T {
    for _ in 0..5 {
        // All are held until the last is there, so that they differ.
        let held: Vec<TcpListener> =
            (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")).collect();
        let ports: Vec<u16> = held.iter().map(|socket| socket.local_addr().expect("it is bound").port()).collect();
        drop(held);
        if let Ok(started) = start(&ports) {
            return started;
        }
    }
    panic!("others have taken the port each time");
}

/// nginx with its configuration written.
fn nginx(dir: &Path, servers: &str) -> Command {
    let configuration = dir.join("nginx.conf");
    let text = template("front-nginx.conf").replace("@DIR@", &dir.display().to_string());
    fs::write(&configuration, text).expect("a configuration");
    fs::write(dir.join("servers.conf"), servers).expect("a configuration");
    let mut command = Command::new(program("nginx"));
    command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(configuration);
    command
}

fn servers(dir: &Path, sites: &[Site<'_>], ports: &[u16]) -> String {
    fs::create_dir_all(dir).expect("a directory");
    let one = |(number, (site, port)): (usize, (&Site<'_>, &u16))| {
        let chain = dir.join(format!("{number}.pem"));
        let key = dir.join(format!("{number}.key"));
        fs::write(&chain, site.identity.chain_pem()).expect("a chain");
        fs::write(&key, site.identity.key_pem()).expect("a key");
        format!(
            "server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {}; ssl_certificate_key {}; location / {{ proxy_pass http://127.0.0.1:{}; }} }}\n",
            chain.display(),
            key.display(),
            site.backend
        )
    };
    sites.iter().zip(ports).enumerate().map(one).collect()
}

fn template(name: &str) -> String {
    let path = repository().join("tests/real").join(name);
    fs::read_to_string(path).expect("a template")
}

fn glance15(arguments: &[&std::ffi::OsStr]) -> Command {
    let mut command = Command::new(launcher());
    command.args(arguments).env("VOUCHSAFE_REAL", real());
    command
}

/// Servers lie where users without rights do not look.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut programs = folders.map(|folder| folder.join(name));
    programs.find(|program| program.exists()).unwrap_or_else(|| {
        panic!("`{name}` is missing\n  hint: run `tests/setup` first");
    })
}

pub(super) fn output_of(command: &mut Command) -> Value {
    let output = command.output().expect("curl");
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{error}");
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{command:?}: {text}"))
}

const START_LIMIT: Duration = Duration::from_secs(60);
