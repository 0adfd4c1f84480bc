//! A tiny TLS server that presents one identity, says which, and counts what reaches it.
//!
//! It sends whatever chain it is given, sound or not, and never resumes a session, so that each
//! connection shows its certificate again. It is for tests and demonstrations only.

mod exchange;
mod weak_key;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::error::Error;
use crate::pki::Identity;

/// What has reached a server so far.
#[derive(Debug, Default)]
pub struct Counters {
    connections: AtomicU64,
    handshakes: AtomicU64,
    application_bytes: AtomicU64,
    requests: AtomicU64,
}

impl Counters {
    /// TCP connections that were accepted.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Handshakes that were completed, on the server's side of them.
    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::SeqCst)
    }

    /// Bytes that clients sent inside TLS: zero if they refused the certificate.
    pub fn application_bytes(&self) -> u64 {
        self.application_bytes.load(Ordering::SeqCst)
    }

    /// Requests that were read to their end.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// A server that is bound to its address, and serves once it is run.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    about: Arc<str>,
    counters: Arc<Counters>,
}

impl Server {
    /// Binds to `address`; port 0 takes any free one. Every request is answered with `about`.
    pub async fn bind(address: SocketAddr, identity: &Identity, about: &str) -> Result<Self, Error> {
        let acceptor = TlsAcceptor::from(Arc::new(tls_config(identity)?));
        let failed = || Error::io(format!("listen on {address}"));
        let listener = TcpListener::bind(address).await.map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        Ok(Self { listener, address, acceptor, about: about.into(), counters: Arc::default() })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What reaches it, now and later.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves until it is dropped, and its connections with it.
    pub async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of file handles, most likely: wait until some connection has ended.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            self.counters.connections.fetch_add(1, Ordering::SeqCst);
            let (acceptor, about) = (self.acceptor.clone(), Arc::clone(&self.about));
            let counters = Arc::clone(&self.counters);
            connections.spawn(async move {
                // A client that refuses and leaves is what this server is for, not a failure of it.
                let _ = serve(stream, &acceptor, &about, &counters).await;
            });
        }
    }
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, about: &str, counters: &Counters) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    counters.handshakes.fetch_add(1, Ordering::SeqCst);
    exchange::answer_all(&mut stream, about, counters).await
}

fn tls_config(identity: &Identity) -> Result<ServerConfig, Error> {
    let provider = aws_lc_rs::default_provider();
    let key = match provider.key_provider.load_private_key(identity.key.clone_key()) {
        Ok(key) => key,
        Err(refused) => weak_key::load(&identity.key).map_err(|_| refused)?,
    };
    // `CertifiedKey::new` does not look at the chain, which may be malformed on purpose.
    let certified = CertifiedKey::new(identity.chain.clone(), key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
