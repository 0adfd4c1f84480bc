//! A cloud on one host, as DevStack lays it out: a real Keystone and Glance, stubs of the services that only list things,
//! each behind a foreign TLS terminator with a certificate of a two-tier authority, and a catalog of `https` URLs.
//!
//! The ports that the catalog names lead to the terminators by way of a listener that counts: the proxy is told to
//! connect to the terminators themselves, so that a connection there is one past the proxy.

use std::{
    fmt,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use certs_dev::devstack::{self, Layout, ServerNames};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};

use super::{
    glance15::{Daemon, Glance, Hitch, output_of, with_free_ports},
    proxy::{program, without_ambient},
    replicator::{real, repository},
};

/// The services in the order of their fronts: Keystone's two, Glance, and the stubs.
const STUBS: [&str; 4] = ["nova", "cinder", "neutron", "swift"];

/// A cloud that is up.
pub struct Cloud {
    fronts: Vec<Front>,
    layout: Layout,
    keystone: u16,
    _daemons: Vec<Daemon>,
    _glance: Glance,
    _hitches: Vec<Hitch>,
    _stub: Stub,
}

/// Where the catalog says that a service is.
struct Front {
    port: u16,
    /// Its terminator's port, once it is up.
    behind: u16,
    connections: Arc<AtomicUsize>,
}

impl Cloud {
    /// Starts everything in this directory. `links`: the scheme that the services write into links.
    pub async fn start(dir: &Path, links: &str) -> Self {
        let names = ServerNames { dns: vec!["devstack".into()], ips: vec![[127, 0, 0, 1].into()] };
        let now = OffsetDateTime::now_utc();
        let layout = devstack::create(&dir.join("ca"), &names, now).expect("an authority");
        let listeners = bind(3 + STUBS.len()).await;
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();

        let (daemons, keystone) = start_keystone(&dir.join("keystone"), &ports);
        let glance = Glance::start(&dir.join("glance"));
        let image = dir.join("image");
        std::fs::write(&image, [7; 1000]).expect("an image");
        glance.seed("11111111-1111-4111-8111-111111111111", "cirros", &image);
        let stub = Stub::start(links);
        let mut backends = vec![keystone[0], keystone[1], glance.port];
        backends.extend(STUBS.iter().map(|name| stub.port(name)));

        let authority = devstack::open(&dir.join("ca")).expect("the authority");
        let identity = devstack::issue(&authority, &names, now).expect("a certificate");
        let front = |(number, port): (usize, &u16)| Hitch::start(&dir.join(format!("hitch{number}")), &identity, *port);
        let hitches: Vec<Hitch> = backends.iter().enumerate().map(front).collect();
        let fronts = listeners.into_iter().zip(&hitches).map(|(listener, hitch)| Front::start(listener, hitch.port));
        let cloud = Self {
            fronts: fronts.collect(),
            layout,
            keystone: keystone[1],
            _daemons: daemons,
            _glance: glance,
            _hitches: hitches,
            _stub: stub,
        };
        cloud.publish();
        cloud
    }

    /// Adds the services to the catalog.
    fn publish(&self) {
        let token = self.token();
        let call = |path: &str, body: Value| self.keystone("POST", path, &token, &body);
        for (name, kind, front, path) in [
            ("glance", "image", 2, ""),
            ("nova", "compute", 3, "/v2.1"),
            ("cinder", "volume", 4, "/v3/$(tenant_id)s"),
            ("cinderv3", "volumev3", 4, "/v3/$(tenant_id)s"),
            ("neutron", "network", 5, ""),
            ("swift", "object-store", 6, "/v1/AUTH_$(tenant_id)s"),
        ] {
            let service = call("/services", json!({"service": {"name": name, "type": kind}}));
            for interface in ["internal", "admin", "public"] {
                let url = format!("https://127.0.0.1:{}{path}", self.fronts[front].port);
                let endpoint = json!({
                    "service_id": service["service"]["id"],
                    "interface": interface,
                    "region_id": "RegionOne",
                    "url": url,
                });
                call("/endpoints", json!({ "endpoint": endpoint }));
            }
        }
    }

    /// All endpoints, as Keystone itself has them.
    pub fn endpoints(&self) -> Value {
        let answer = self.keystone("GET", "/endpoints", &self.token(), &Value::Null);
        let mut endpoints = answer["endpoints"].as_array().expect("a list").clone();
        endpoints.sort_by_key(|endpoint| endpoint["id"].to_string());
        endpoints.into()
    }

    fn token(&self) -> String {
        let auth = json!({"auth": {"tenantName": "admin", "passwordCredentials": {"username": "admin", "password": "secret"}}});
        let answer = curl(&format!("http://127.0.0.1:{}/v2.0/tokens", self.keystone), "POST", "", &auth);
        answer["access"]["token"]["id"].as_str().expect("a token").to_owned()
    }

    fn keystone(&self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        curl(&format!("http://127.0.0.1:{}/v3{path}", self.keystone), method, token, body)
    }

    /// Runs a command of vouchsafe with the variables of an administrator, and gives its exit status and output.
    pub fn check(&self, arguments: &[String], variables: &[(&str, &str)]) -> (Option<i32>, String) {
        let mut command = Command::new("timeout");
        command.arg("60").arg(program()).args(arguments);
        without_ambient(&mut command);
        command.env("OS_AUTH_URL", format!("http://127.0.0.2:{}/v3", self.keystone_port()));
        command.envs([("OS_USERNAME", "admin"), ("OS_PASSWORD", "secret"), ("OS_PROJECT_NAME", "admin")]);
        command.envs(variables.iter().copied()).stdin(Stdio::null());
        let output = command.output().expect("the program");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }

    /// What clients trust.
    pub fn bundle(&self) -> PathBuf {
        self.layout.bundle.clone()
    }

    /// The port that the catalog names for Keystone.
    pub fn keystone_port(&self) -> u16 {
        self.fronts[0].port
    }

    /// The ports of all services, as a mirror lists them.
    pub fn ports(&self) -> String {
        let ports: Vec<String> = self.fronts.iter().map(|front| front.port.to_string()).collect();
        ports.join(",")
    }

    /// The flags that every proxy of this cloud needs.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec![format!("--ca-bundle={}", self.layout.bundle.display())];
        flags.extend(
            self.fronts.iter().map(|front| format!("--connect-to=127.0.0.1:{}=127.0.0.1:{}", front.port, front.behind)),
        );
        flags
    }

    /// How many connections were opened past the proxy, since this was asked for last.
    pub fn connections_past(&self) -> usize {
        self.fronts.iter().map(|front| front.connections.swap(0, Ordering::SeqCst)).sum()
    }
}

impl Front {
    fn start(listener: TcpListener, behind: u16) -> Self {
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let address = SocketAddr::from(([127, 0, 0, 1], behind));
                    let Ok(mut server) = TcpStream::connect(address).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { port, behind, connections }
    }
}

/// So many listeners on free ports that are free on the mirror's address, too.
async fn bind(count: usize) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    while listeners.len() < count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        if std::net::TcpListener::bind(("127.0.0.2", port)).is_ok() {
            listeners.push(listener);
        }
    }
    listeners
}

/// The public service and the administrative one of one Keystone, and their ports.
fn start_keystone(dir: &Path, fronts: &[u16]) -> (Vec<Daemon>, [u16; 2]) {
    let url = |port: u16| format!("https://127.0.0.1:{port}");
    let run = |arguments: &[&str]| {
        let output = keystone12(dir, arguments).output().expect("the launcher");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "keystone12 {arguments:?}: {error}");
    };
    run(&["init", &url(fronts[0]), &url(fronts[1])]);
    run(&["bootstrap", &format!("{}/v2.0", url(fronts[0])), &format!("{}/v2.0", url(fronts[1]))]);
    with_free_ports(2, |ports| {
        let start = |kind: &str, port: u16| {
            let command = keystone12(dir, &["serve", &port.to_string(), kind]);
            Daemon::start(&command, &dir.join(format!("{kind}.log")))
        };
        let mut daemons = vec![start("public", ports[0]), start("admin", ports[1])];
        for (daemon, port) in daemons.iter_mut().zip(ports) {
            daemon.wait_for(*port)?;
        }
        Ok((daemons, [ports[0], ports[1]]))
    })
}

/// `keystone12 ACTION DIR …`
fn keystone12(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(repository().join("tests/real/keystone12"));
    command.arg(arguments[0]).arg(dir).args(&arguments[1..]).env("VOUCHSAFE_REAL", real());
    command
}

fn curl(url: &str, method: &str, token: &str, body: &Value) -> Value {
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail-with-body", "--noproxy", "*", "--max-time", "120", "-X", method, url]);
    command.args(["-H", "Content-Type: application/json", "-H", &format!("X-Auth-Token: {token}")]);
    if !body.is_null() {
        command.args(["-d", &body.to_string()]);
    }
    output_of(&mut command)
}

/// The services that only list things.
struct Stub {
    child: Child,
    ports: Value,
}

impl Stub {
    fn start(links: &str) -> Self {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--"])
            .arg(real().join("clients/bin/python"))
            .arg(repository().join("tests/real/openstack_stub.py"))
            .arg(links)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the stub");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("its ports");
        let ports = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no ports: {line:?}"));
        Self { child, ports }
    }

    fn port(&self, name: &str) -> u16 {
        self.ports[name].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port")
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Which clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Of December 2012, on CPython 2.7, with the v2.0 API of Keystone.
    Old,
    Today,
}

/// Every call: what the tool is told.
pub const TODAY: [&str; 13] = [
    "openstack token issue -f value -c project_id",
    "openstack catalog list -f value -c Name",
    "openstack endpoint list -f value -c ID -c URL",
    "openstack image list -f value",
    "openstack server list -f value -c ID",
    "openstack flavor list -f value -c ID",
    "openstack volume list -f value -c ID",
    "openstack network list -f value -c ID",
    "openstack container list -f value",
    "glance image-list",
    "swift list",
    "nova list",
    "cinder list",
];

/// Every call of the old clients, and a text that it has to show.
pub const OLD: [(&str, &str); 7] = [
    ("keystone tenant-list", "admin"),
    ("keystone user-list", "admin"),
    ("keystone catalog --service image", "publicURL"),
    ("glance image-list", "cirros"),
    ("swift -V 2 list", "container"),
    ("nova list", "servers-04"),
    ("cinder list", "volumes-04"),
];

/// How a tool has ended.
#[derive(Debug)]
pub struct ToolEnd {
    pub call: String,
    pub success: bool,
    pub out: String,
    pub err: String,
}

impl fmt::Display for ToolEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { call, success, out, err } = self;
        write!(f, "{call}: {}\n{out}\n{err}", if *success { "succeeded" } else { "failed" })
    }
}

/// Runs a call to its end, with these variables.
pub fn run(clients: Clients, call: &str, variables: &[(&str, String)]) -> ToolEnd {
    run_under(&[], clients, call, variables)
}

/// The same by a command that becomes the one that its last arguments are.
pub fn run_under(wrapper: &[String], clients: Clients, call: &str, variables: &[(&str, String)]) -> ToolEnd {
    let environment = match clients {
        Clients::Old => "clients2012",
        Clients::Today => "clients",
    };
    let mut words = call.split(' ');
    let program = real().join(environment).join("bin").join(words.next().unwrap_or_default());
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).args(wrapper).arg(program).args(words);
    finish(command, call, clients, variables)
}

/// Runs a script of `tests/real` with the libraries of today's clients.
pub fn run_script(name: &str, variables: &[(&str, String)]) -> ToolEnd {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "120"]).arg(real().join("clients/bin/python"));
    command.arg(repository().join("tests/real").join(name));
    finish(command, name, Clients::Today, variables)
}

fn finish(mut command: Command, call: &str, clients: Clients, variables: &[(&str, String)]) -> ToolEnd {
    without_ambient(&mut command);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("OS_") || name.to_lowercase().ends_with("_proxy") || name.starts_with("PYTHON") {
            command.env_remove(name);
        }
    }
    command.env("PYTHONWARNINGS", "ignore");
    let common = [("OS_USERNAME", "admin"), ("OS_PASSWORD", "secret"), ("OS_TENANT_NAME", "admin")];
    command.envs(common);
    match clients {
        Clients::Old => {
            if let Ok(libraries) = std::fs::read_to_string(real().join("clients2012.libs")) {
                command.env("LD_LIBRARY_PATH", libraries.trim());
            }
        }
        Clients::Today => {
            let more = ["OS_USER_DOMAIN_ID", "OS_PROJECT_DOMAIN_ID"].map(|name| (name, "default"));
            command.env("OS_PROJECT_NAME", "admin").envs(more).env("OS_IDENTITY_API_VERSION", "3");
        }
    }
    command.envs(variables.iter().map(|(name, value)| (*name, value)));
    let output = command.stdin(Stdio::null()).output().expect("coreutils' timeout");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ToolEnd {
        call: format!("{call} ({clients:?})"),
        success: output.status.success(),
        out: text(&output.stdout),
        err: text(&output.stderr),
    }
}
