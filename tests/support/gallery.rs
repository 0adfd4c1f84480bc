//! The gallery of certificates, served on loopback; made once for all tests of a run.

use std::{
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use certs_dev::{Bundle, Case, Counters, Gallery, Server};
use tempfile::TempDir;
use time::OffsetDateTime;

/// The gallery.
pub static GALLERY: LazyLock<Gallery> = LazyLock::new(|| Gallery::new(OffsetDateTime::now_utc()).expect("a gallery"));

static FILES: LazyLock<TempDir> = LazyLock::new(|| {
    let directory = super::dir();
    // Some tests run the program as another user.
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
});

/// A bundle as a file.
pub fn bundle(bundle: Bundle) -> String {
    file(bundle.file_name(), &GALLERY.bundle_pem(bundle))
}

/// The revocation lists as a file.
pub fn crl() -> String {
    file("gallery.crl", &GALLERY.crl_pem())
}

fn file(name: &str, text: &str) -> String {
    let path: PathBuf = FILES.path().join(name);
    // Several tests may write the same text; a rename is whole.
    let partial = FILES.path().join(format!("{name}.{:?}", std::thread::current().id()));
    std::fs::write(&partial, text).unwrap();
    std::fs::rename(&partial, &path).unwrap();
    path.display().to_string()
}

/// A running front with a case's certificate.
pub struct Front {
    /// The case.
    pub case: Case,
    /// Where it is.
    pub address: SocketAddr,
    /// What it saw.
    pub counters: Arc<Counters>,
}

impl Front {
    /// Serves a case on a free port, until the runtime ends.
    pub async fn start(case: Case) -> Self {
        let identity = GALLERY.identity(case).expect("every case can be made");
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), &identity, case.about()).await.unwrap();
        let (address, counters) = (server.local_addr(), server.counters());
        tokio::spawn(server.run());
        Self { case, address, counters }
    }

    /// The name a client asks for, with the port.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.case.name(), self.address.port())
    }

    /// The flags of a fixed route to it.
    pub fn route(&self) -> Vec<String> {
        let mut flags = vec!["--route".into(), format!("127.0.0.1:0=https://{}", self.authority())];
        if !self.case.is_ip() {
            flags.extend(["--connect-to".into(), format!("{}={}", self.authority(), self.address)]);
        }
        flags
    }
}
