//! Parent proxies: one that does what a test says and keeps what it was asked, and the real ones of the distribution.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use certs_dev::Identity;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    glance15::{Daemon, with_free_ports},
    origin::acceptor,
};

/// What a parent does when it has read the head of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Opens the tunnel, to the target's port on this host, whatever its name is.
    Tunnel,
    /// Sends these bytes, and opens the tunnel.
    Before(String),
    /// Opens the tunnel after so long, if the proxy is still there.
    After(Duration),
    /// Sends these bytes, and closes.
    Say(String),
    /// Sends these bytes, and nothing more for as long as the connection is there.
    Silence(&'static str),
}

/// A parent that keeps the heads of all requests.
pub struct Parent {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Parent {
    pub async fn start(answer: Answer) -> Self {
        Self::with(None, answer).await
    }

    /// One that speaks TLS.
    pub async fn with_tls(identity: &Identity, answer: Answer) -> Self {
        Self::with(Some(acceptor(identity)), answer).await
    }

    async fn with(tls: Option<TlsAcceptor>, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = heads.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tcp.set_nodelay(true).unwrap();
                let (tls, answer, heads) = (tls.clone(), answer.clone(), kept.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                serve(stream, answer, &heads).await;
                            }
                        }
                        None => serve(tcp, answer, &heads).await,
                    }
                });
            }
        });
        Self { address, heads }
    }

    /// The heads of all requests so far.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The flag for it as an `http://` parent.
    pub fn flag(&self) -> String {
        format!("--parent-proxy=http://{}", self.address)
    }

    /// The flag for it as an `https://` parent.
    pub fn tls_flag(&self) -> String {
        format!("--parent-proxy=https://{}", self.address)
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    heads.lock().unwrap().push(head);
    match answer {
        Answer::Tunnel => tunnel(stream, &target, "HTTP/1.1 200 OK\r\n\r\n").await,
        Answer::Before(text) => tunnel(stream, &target, &text).await,
        Answer::After(delay) => {
            if timeout(delay, stream.read_u8()).await.is_err() {
                tunnel(stream, &target, "HTTP/1.1 200 OK\r\n\r\n").await;
            }
        }
        Answer::Say(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Answer::Silence(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
            let mut rest = [0; 1024];
            while matches!(stream.read(&mut rest).await, Ok(1..)) {}
        }
    }
}

async fn tunnel(mut client: impl AsyncRead + AsyncWrite + Unpin, target: &str, text: &str) {
    let port: u16 = target.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    if client.write_all(text.as_bytes()).await.is_ok() && client.flush().await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}

/// A proxy of the distribution, with the user `vouchsafe` and the password `pass-word` where it asks for one.
pub struct RealParent {
    pub port: u16,
    /// The user and the password as a URL has them.
    pub userinfo: &'static str,
    _daemon: Daemon,
}

/// What a real parent asks for, and permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Credentials; every port.
    Credentials,
    /// No credentials; port 443 only, as it comes from the distribution.
    OnlyPort443,
}

impl RealParent {
    /// Squid. With a certificate it speaks TLS to its clients.
    pub fn squid(dir: &Path, rules: Rules, identity: Option<&Identity>) -> Self {
        Self::daemon(dir, |port| {
            let at = |name: &str| dir.join(name).display().to_string();
            fs::write(at("users"), format!("vouchsafe:{}\n", hashed())).unwrap();
            let listen = match identity {
                None => format!("http_port 127.0.0.1:{port}"),
                Some(identity) => {
                    fs::write(at("tls.pem"), identity.key_pem() + &identity.chain_pem()).unwrap();
                    format!("https_port 127.0.0.1:{port} tls-cert={0} tls-key={0}", at("tls.pem"))
                }
            };
            let access = match rules {
                Rules::Credentials => format!(
                    "auth_param basic program {} {}\nauth_param basic realm vouchsafe\nacl known proxy_auth REQUIRED\nhttp_access allow known\n",
                    squid_helper(),
                    at("users")
                ),
                Rules::OnlyPort443 => {
                    "acl SSL_ports port 443\nhttp_access deny CONNECT !SSL_ports\nhttp_access allow all\n".into()
                }
            };
            let configuration = format!(
                "{listen}\n{access}http_access deny all\ncache deny all\ncache_log {}\naccess_log none\npid_filename none\ncoredump_dir {}\nshutdown_lifetime 0 seconds\nworkers 1\npinger_enable off\nvisible_hostname parent.test\ncache_effective_user {}\n",
                at("cache.log"),
                dir.display(),
                user()
            );
            fs::write(at("squid.conf"), configuration).unwrap();
            open_to_all(dir);
            let mut command = Command::new("squid");
            command.args(["--foreground", "-d", "1", "-f", &at("squid.conf")]);
            command
        })
    }

    /// tinyproxy.
    pub fn tinyproxy(dir: &Path, rules: Rules) -> Self {
        Self::daemon(dir, |port| {
            let access = match rules {
                Rules::Credentials => "BasicAuth vouchsafe pass-word\n",
                Rules::OnlyPort443 => "ConnectPort 443\n",
            };
            let path = dir.join("tinyproxy.conf");
            fs::write(&path, format!("Port {port}\nListen 127.0.0.1\nTimeout 60\nMaxClients 50\n{access}")).unwrap();
            let mut command = Command::new("tinyproxy");
            command.args(["-d", "-c", &path.display().to_string()]);
            command
        })
    }

    /// Apache with mod_proxy_connect.
    pub fn apache(dir: &Path, rules: Rules) -> Self {
        Self::daemon(dir, |port| {
            let at = |name: &str| dir.join(name).display().to_string();
            fs::write(at("users"), format!("vouchsafe:{}\n", hashed())).unwrap();
            let modules: String = [
                "mpm_event",
                "authn_core",
                "authn_file",
                "authz_core",
                "authz_user",
                "auth_basic",
                "proxy",
                "proxy_connect",
            ]
            .iter()
            .map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"))
            .collect();
            let access = match rules {
                Rules::Credentials => format!(
                    "AllowCONNECT 1-65535\n<Proxy \"*\">\nAuthType Basic\nAuthName vouchsafe\nAuthBasicProvider file\nAuthUserFile {}\nRequire valid-user\n</Proxy>\n",
                    at("users")
                ),
                Rules::OnlyPort443 => "AllowCONNECT 443\n".into(),
            };
            let configuration = format!(
                "ServerRoot {0}\nPidFile {0}/apache.pid\nErrorLog {0}/error.log\nServerName parent.test\nListen 127.0.0.1:{port}\n{modules}Mutex file:{0}\nProxyRequests On\n{access}",
                dir.display()
            );
            fs::write(at("apache.conf"), configuration).unwrap();
            open_to_all(dir);
            let mut command = Command::new("apache2");
            command.args(["-X", "-f", &at("apache.conf")]);
            command
        })
    }

    fn daemon(dir: &Path, command: impl Fn(u16) -> Command) -> Self {
        fs::create_dir_all(dir).unwrap();
        with_free_ports(1, |ports| {
            let mut daemon = Daemon::start(&command(ports[0]), &dir.join("parent.log"));
            daemon.wait_for(ports[0])?;
            Ok(Self { port: ports[0], userinfo: "vouchsafe:pass-word", _daemon: daemon })
        })
    }

    /// The URL with the credentials.
    pub fn url(&self) -> String {
        format!("http://{}@127.0.0.1:{}", self.userinfo, self.port)
    }

    /// The URL without.
    pub fn bare_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The password's hash, as the helpers of Squid and Apache read it.
fn hashed() -> String {
    let output = Command::new("openssl").args(["passwd", "-apr1", "pass-word"]).output().expect("openssl");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn squid_helper() -> &'static str {
    "/usr/lib/squid/basic_ncsa_auth"
}

/// Who Squid becomes when it is started by root.
fn user() -> &'static str {
    "nobody"
}

/// These servers give up root, and read their files afterwards.
fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for parent in
        dir.ancestors().take_while(|path| path.starts_with(std::env::temp_dir()) && *path != std::env::temp_dir())
    {
        open(parent, 0o755);
    }
    open(dir, 0o777);
    for entry in fs::read_dir(dir).unwrap() {
        open(&entry.unwrap().path(), 0o644);
    }
}
