//! What is not ours: certificates, lists and servers of the `openssl` command, and nginx. All is made in one
//! directory, every process is ended with its handle, and every port is one the system gave.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use certs_dev::Identity;
use data_encoding::HEXLOWER;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime, macros::format_description};

use super::proxy::PATIENCE;

/// A directory in which `openssl` works.
pub struct Lab {
    directory: TempDir,
    made: AtomicUsize,
}

/// A certificate with its key, as files.
#[derive(Clone, Debug)]
pub struct Made {
    /// The certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
}

impl Lab {
    /// An empty one.
    pub fn new() -> Self {
        let lab = Self { directory: super::dir(), made: AtomicUsize::new(0) };
        lab.write("ca.cnf", CA);
        lab.write("index.txt", "");
        lab.write("crlnumber", "01\n");
        lab.write("ok", OK);
        lab
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A name for a new file.
    fn name(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// Runs `openssl`, which must end well, in this directory; gives what it prints.
    pub fn openssl<S: AsRef<str>>(&self, arguments: &[S]) -> Vec<u8> {
        let mut command = Command::new("openssl");
        let Output { status, stdout, stderr } =
            command.current_dir(&self.directory).args(arguments.iter().map(AsRef::as_ref)).output().expect("openssl");
        let said: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
        assert!(status.success(), "openssl {}: {}", said.join(" "), String::from_utf8_lossy(&stderr));
        stdout
    }

    /// What an operator types: `openssl req -x509`, with these further arguments.
    pub fn req_x509(&self, arguments: &[&str]) -> Made {
        let made = self.pair();
        let mut all = vec!["req", "-x509", "-nodes", "-days", "30", "-newkey", "rsa:2048"];
        let (cert, key) = (text(&made.cert), text(&made.key));
        all.extend(["-keyout", &key, "-out", &cert]);
        all.extend(arguments);
        self.openssl(&all);
        made
    }

    fn pair(&self) -> Made {
        let name = self.name("pem");
        Made { cert: self.path(&name), key: self.path(&format!("{name}.key")) }
    }

    /// A sound certificate for a server with these names, still to be signed.
    pub fn server(&self, common_name: &str, names: &str) -> Wish<'_> {
        let wish = Wish::new(self, common_name).ext("basicConstraints", "CA:FALSE").ext("keyUsage", "digitalSignature");
        let wish = wish.ext("extendedKeyUsage", "serverAuth");
        if names.is_empty() { wish } else { wish.ext("subjectAltName", names) }
    }

    /// A sound certificate for an authority, still to be signed.
    pub fn authority(&self, common_name: &str) -> Wish<'_> {
        let wish = Wish::new(self, common_name).days(-100, 1000).ext("basicConstraints", "critical,CA:TRUE");
        wish.ext("keyUsage", "critical,keyCertSign,cRLSign")
    }

    /// A root of this name.
    pub fn root(&self, common_name: &str) -> Made {
        self.authority(common_name).by_itself()
    }

    /// A certificate that was made elsewhere, as files.
    pub fn keep(&self, cert: &str, key: &str) -> Made {
        let made = self.pair();
        fs::write(&made.cert, cert).unwrap();
        fs::write(&made.key, key).unwrap();
        made
    }

    /// The same with another certificate's bytes, and the same key.
    pub fn changed(&self, of: &Made, change: impl FnOnce(&mut Vec<u8>)) -> Made {
        let mut der = of.der().to_vec();
        change(&mut der);
        let cert = self.path(&self.name("pem"));
        fs::write(&cert, certs_dev::pki::certificates_pem([&CertificateDer::from(der)])).unwrap();
        Made { cert, key: of.key.clone() }
    }

    /// A file with these certificates, one after the other.
    pub fn bundle(&self, of: &[&Made]) -> PathBuf {
        let text: String = of.iter().map(|made| fs::read_to_string(&made.cert).unwrap()).collect();
        self.write(&self.name("pem"), text)
    }

    /// Marks certificates of an authority as revoked, from now on.
    pub fn revoke(&self, of: &Made, reason: &str) {
        // It asks for a key, of whomever, and does not use it.
        let (cert, key) = (text(&of.cert), text(&of.key));
        let it = ["-revoke", &cert, "-crl_reason", reason, "-cert", &cert, "-keyfile", &key];
        self.openssl(&[&["ca", "-config", "ca.cnf"], it.as_slice()].concat());
    }

    /// A list by `openssl ca -gencrl`, valid for these days from now; `point` is its
    /// issuingDistributionPoint, where it has one.
    pub fn list(&self, of: &Made, days: (i64, i64), extensions: &str) -> PathBuf {
        let config =
            self.write(&self.name("cnf"), format!("{CA}\n[more]\nauthorityKeyIdentifier = keyid\n{extensions}\n"));
        let path = self.path(&self.name("crl"));
        let (config, out, cert, key) = (text(&config), text(&path), text(&of.cert), text(&of.key));
        let (from, to) = (stamp(days.0), stamp(days.1));
        self.openssl(&[
            "ca",
            "-config",
            &config,
            "-gencrl",
            "-cert",
            &cert,
            "-keyfile",
            &key,
            "-out",
            &out,
            "-crlexts",
            "more",
            "-crl_lastupdate",
            &from,
            "-crl_nextupdate",
            &to,
        ]);
        path
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.display().to_string()
}

/// What `openssl ca` needs to be told.
const CA: &str = "\
[ca]
default_ca = lab
[lab]
database = index.txt
new_certs_dir = .
rand_serial = yes
crlnumber = crlnumber
default_md = sha256
policy = any
preserve = yes
unique_subject = no
[any]
commonName = optional
";

/// What `s_server -HTTP` answers to `GET /ok`, head and all.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n";

fn stamp(days: i64) -> String {
    let format = format_description!("[year][month][day][hour][minute][second]Z");
    (OffsetDateTime::now_utc() + Duration::days(days)).format(format).unwrap()
}

impl Made {
    /// The first certificate's bytes.
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.cert).unwrap()
    }

    /// SHA-256 over them, lower-case hex.
    pub fn sha256(&self) -> String {
        HEXLOWER.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.der()).as_ref())
    }

    /// With its key, and what is to be sent above it.
    pub fn identity(&self, chain: &[&Made]) -> Identity {
        let chain = std::iter::once(&self).chain(chain).map(|made| made.der()).collect();
        Identity { chain, key: PrivateKeyDer::from_pem_file(&self.key).unwrap() }
    }
}

/// A certificate that is to be made.
#[derive(Clone)]
pub struct Wish<'a> {
    lab: &'a Lab,
    subject: String,
    key: String,
    days: (i64, i64),
    digest: String,
    serial: Option<String>,
    extensions: Vec<(String, String)>,
}

impl<'a> Wish<'a> {
    fn new(lab: &'a Lab, common_name: &str) -> Self {
        let wish = Self {
            lab,
            subject: format!("/CN={common_name}"),
            key: "P-256".into(),
            days: (-1, 365),
            digest: "sha256".into(),
            serial: None,
            extensions: Vec::new(),
        };
        wish.ext("subjectKeyIdentifier", "hash").ext("authorityKeyIdentifier", "keyid")
    }

    /// An extension as `x509v3_config` has it, instead of the one of that name.
    pub fn ext(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.extensions.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without an extension.
    pub fn without(mut self, name: &str) -> Self {
        self.extensions.retain(|(known, _)| known != name);
        self
    }

    /// Without any, which makes it version 1.
    pub fn version_1(mut self) -> Self {
        self.extensions.clear();
        self
    }

    /// The kind of the key: `rsa:2048`, `ED25519`, a curve, or the file of a key.
    pub fn key(mut self, kind: &str) -> Self {
        self.key = kind.to_owned();
        self
    }

    /// From when until when, in days from now.
    pub fn days(mut self, from: i64, to: i64) -> Self {
        self.days = (from, to);
        self
    }

    /// The hash of the signature.
    pub fn digest(mut self, name: &str) -> Self {
        self.digest = name.to_owned();
        self
    }

    /// The serial number, as `openssl x509 -set_serial` takes it.
    pub fn serial(mut self, serial: &str) -> Self {
        self.serial = Some(serial.to_owned());
        self
    }

    /// Signed with its own key.
    pub fn by_itself(&self) -> Made {
        self.sign(None)
    }

    /// Signed by an authority.
    pub fn by(&self, issuer: &Made) -> Made {
        self.sign(Some(issuer))
    }

    fn sign(&self, issuer: Option<&Made>) -> Made {
        let lab = self.lab;
        let mut made = lab.pair();
        let (request, extensions) = (lab.name("csr"), lab.name("ext"));
        let lines: String = self.extensions.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
        lab.write(&extensions, lines);
        if Path::new(&self.key).is_absolute() {
            made.key = PathBuf::from(&self.key);
        } else {
            self.make_key(&made.key);
        }
        let (cert, key) = (text(&made.cert), text(&made.key));
        lab.openssl(&["req", "-new", "-key", &key, "-out", &request, "-subj", &self.subject, "-batch"]);
        let (ca, ca_key) = issuer.map_or_else(|| (String::new(), key), |of| (text(&of.cert), text(&of.key)));
        let (from, to) = (stamp(self.days.0), stamp(self.days.1));
        let digest = format!("-{}", self.digest);
        let arguments = match &self.serial {
            Some(serial) => vec![
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-set_serial",
                serial,
                "-days",
                "30",
                &digest,
                "-extfile",
                &extensions,
                "-out",
                &cert,
            ],
            None => {
                let by = if issuer.is_some() { vec!["-cert", &ca] } else { vec!["-selfsign"] };
                let mut all = vec!["ca", "-config", "ca.cnf", "-batch", "-notext", "-keyfile", &ca_key];
                all.extend(by);
                all.extend(["-in", &request, "-out", &cert, "-extfile", &extensions, "-md", &self.digest]);
                all.extend(["-startdate", &from, "-enddate", &to]);
                all
            }
        };
        lab.openssl(&arguments);
        made
    }

    fn make_key(&self, path: &Path) {
        let path = text(path);
        let option = match self.key.split_once(':') {
            Some(("rsa", bits)) => vec!["RSA".to_owned(), "-pkeyopt".into(), format!("rsa_keygen_bits:{bits}")],
            Some(("explicit", curve)) => {
                let curve = format!("ec_paramgen_curve:{curve}");
                ["EC", "-pkeyopt", &curve, "-pkeyopt", "ec_param_enc:explicit"].map(str::to_owned).to_vec()
            }
            _ if self.key.starts_with("ED") => vec![self.key.clone()],
            _ => vec!["EC".into(), "-pkeyopt".into(), format!("ec_paramgen_curve:{}", self.key)],
        };
        let mut all = vec!["genpkey".to_owned(), "-out".into(), path, "-algorithm".into()];
        all.extend(option);
        self.lab.openssl(&all);
    }
}

/// A process that is ended with this value, and what it says.
pub struct Process {
    child: Child,
    said: Arc<Said>,
}

/// Lines of both pipes, and how many of these have ended.
#[derive(Default)]
struct Said {
    lines: Mutex<(Vec<String>, usize)>,
    more: Condvar,
}

impl Said {
    /// The lines, also after a test has failed while it held them.
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, usize)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Said::default());
        let pipes: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for pipe in pipes {
            let said = said.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    said.lock().0.push(String::from_utf8_lossy(&line).into_owned());
                    said.more.notify_all();
                }
                said.lock().1 += 1;
                said.more.notify_all();
            });
        }
        Self { child, said }
    }

    /// Waits for a line that fits; None where it ends before.
    pub fn wait_for<T>(&self, what: &str, fits: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.said.lock();
        loop {
            if let Some(found) = guard.0.iter().find_map(|line| fits(line)) {
                return Some(found);
            }
            if guard.1 == 2 {
                return None;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no {what} in:\n{}", guard.0.join("\n"));
            guard = self.said.more.wait_timeout(guard, left).unwrap().0;
        }
    }

    /// The server names that clients sent, where `s_server` runs with `-tlsextdebug`: it dumps the extension, whose
    /// first five octets are lengths and a type.
    pub fn names(&self) -> Vec<String> {
        let said = self.said.lock().0.clone();
        let mut names = Vec::new();
        for (place, line) in said.iter().enumerate() {
            if line.starts_with("TLS client extension \"server name\"") {
                let dump = said[place + 1..].iter().map_while(|line| line.split_once(" - "));
                let octets = dump.flat_map(|(_, dump)| dump[..47].split([' ', '-']));
                let octets = octets.filter_map(|octet| u8::from_str_radix(octet, 16).ok()).skip(5);
                names.push(octets.map(char::from).collect());
            }
        }
        names
    }

    /// All that it said so far.
    pub fn said(&self) -> String {
        self.said.lock().0.join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that is not ours.
pub struct Server {
    /// Where it is.
    pub address: SocketAddr,
    /// Its process.
    pub process: Process,
}

/// Several may be on their way at once.
pub struct Starting(Process);

impl Starting {
    /// Waits until it listens.
    pub fn ready(self) -> Server {
        let address = self.0.wait_for("ACCEPT", |line| line.strip_prefix("ACCEPT ")?.parse().ok());
        let address = address.unwrap_or_else(|| panic!("s_server ended:\n{}", self.0.said()));
        Server { address, process: self.0 }
    }
}

impl Lab {
    /// Starts `openssl s_server`, which answers `GET /ok`, at any strength of keys and hashes.
    pub fn s_server(&self, own: &Made, chain: &[&Made], more: &[&str]) -> Starting {
        let mut command = Command::new("openssl");
        command.current_dir(&self.directory).args(["s_server", "-accept", "127.0.0.1:0", "-HTTP"]);
        command.args(["-no-CAfile", "-no-CApath", "-no-CAstore"]).arg("-cert").arg(&own.cert).arg("-key").arg(&own.key);
        if !chain.is_empty() {
            command.arg("-cert_chain").arg(self.bundle(chain));
        }
        if !more.contains(&"-cipher") {
            command.args(["-cipher", "DEFAULT:@SECLEVEL=0"]);
        }
        Starting(Process::start(command.args(more)))
    }

    /// Starts nginx with these directives in its server, `LISTEN` standing for its address.
    pub fn nginx(&self, directives: &str) -> Server {
        let prefix = self.path(&self.name("nginx"));
        fs::create_dir(&prefix).unwrap();
        // nginx takes no port from the system; another test may be faster to take the one found here.
        for _ in 0..10 {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let config = NGINX.replace("DIRECTIVES", directives).replace("LISTEN", &address.to_string());
            fs::write(prefix.join("nginx.conf"), config).unwrap();
            // Not in the PATH of everybody who has it.
            let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
            let mut command = Command::new("nginx");
            command.env("PATH", path).args(["-e", "stderr", "-c", "nginx.conf", "-p"]).arg(&prefix);
            let process = Process::start(&mut command);
            if process.wait_for("start", |line| line.contains(" OS: ").then_some(())).is_some() {
                return Server { address, process };
            }
            assert!(process.said().contains("Address already in use"), "nginx: {}", process.said());
        }
        panic!("no free port for nginx")
    }
}

const NGINX: &str = "\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr notice;
events {}
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {
    DIRECTIVES
    location = /ok { return 200 \"ok\\n\"; }
  }
}
";
