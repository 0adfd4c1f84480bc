//! A local CA, and clients that speak TLS in the tests' own words.

use std::{fs, io, net::SocketAddr, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::command::{vouchsafe, vouchsafe_as_user};

/// A CA that the program made.
pub struct LocalCa {
    directory: TempDir,
}

impl LocalCa {
    /// One that may sign for these.
    pub fn new(permits: &[&str]) -> Self {
        let directory = super::dir();
        let ca = Self { directory };
        let permits: Vec<_> = permits.iter().flat_map(|permit| ["--permit", permit]).collect();
        let path = ca.path();
        let made = vouchsafe(&[&["ca", "init", &path], &permits[..]].concat());
        assert_eq!(made.code, Some(0), "{made:?}");
        ca
    }

    /// One that belongs to the user of isolated tools.
    pub fn of_user(permits: &[&str]) -> Self {
        let directory = super::dir();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let ca = Self { directory };
        let made = vouchsafe_as_user(&["ca", "init", &ca.path(), "--permit", &permits.join(",")]);
        assert_eq!(made.code, Some(0), "{made:?}");
        ca
    }

    /// Its directory.
    pub fn path(&self) -> String {
        self.directory.path().join("ca").display().to_string()
    }

    /// A file of it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join("ca").join(name)
    }

    /// What clients trust.
    pub fn root(&self) -> String {
        self.file("ca.pem").display().to_string()
    }

    /// The flag for the program.
    pub fn flag(&self) -> String {
        format!("--local-ca={}", self.path())
    }

    /// What a client trusts that verifies.
    pub fn trusted(&self) -> Arc<ClientConfig> {
        self.offering(&[])
    }

    /// The same, which offers these protocols (ALPN).
    pub fn offering(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&fs::read(self.file("ca.pem")).unwrap()).unwrap()).unwrap();
        config(|builder| {
            let mut config = builder.with_root_certificates(roots).with_no_client_auth();
            config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
            config
        })
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn config(with: impl FnOnce(Builder) -> ClientConfig) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    Arc::new(with(builder.with_safe_default_protocol_versions().unwrap()))
}

/// A client that verifies nothing, and sends no name if it has none.
pub fn careless(enable_sni: bool) -> Arc<ClientConfig> {
    config(|builder| {
        let verifier = Arc::new(Careless);
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.enable_sni = enable_sni;
        config
    })
}

#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Shakes hands by this name.
pub async fn handshake(tcp: TcpStream, config: &Arc<ClientConfig>, name: &str) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config.clone()).connect(name, tcp).await
}

/// A tunnel to an authority, or the answer that refuses it.
pub async fn connect(proxy: SocketAddr, authority: &str) -> Result<TcpStream, String> {
    let mut tcp = TcpStream::connect(proxy).await.unwrap();
    let request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8(head).unwrap();
    if head.starts_with("HTTP/1.1 200 ") { Ok(tcp) } else { Err(head) }
}

/// Sends a request and reads to the end of the connection; an error where that was not announced.
pub async fn ask(tls: &mut TlsStream<TcpStream>, request: &str) -> (String, io::Result<()>) {
    tls.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = tls.read_to_end(&mut answer).await.map(drop);
    (String::from_utf8_lossy(&answer).into_owned(), end)
}

/// A request that is the last of its connection.
pub fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}
