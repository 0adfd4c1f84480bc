//! The authority on disk, in the places where DevStack's `lib/tls` puts it.
//!
//! ```text
//! DIR/root-ca/cacert.pem               the root           DIR/root-ca/private/cacert.key
//! DIR/int-ca/cacert.pem                the intermediate   DIR/int-ca/private/cacert.key
//! DIR/int-ca/ca-chain.pem              intermediate, then root
//! DIR/devstack-cert.pem                one server: its key, its certificate, the intermediate
//! DIR/ca-bundle.pem                    what clients trust: root, then intermediate
//! ```

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use crate::error::Error;
use crate::files;
use crate::pki::{Authority, Identity, LeafSpec};

/// The names and addresses of one server.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    /// Its DNS names.
    pub dns: Vec<String>,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
}

/// Where the parts of the layout lie.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The root's certificate.
    pub root: PathBuf,
    /// The intermediate's certificate.
    pub intermediate: PathBuf,
    /// The intermediate's key.
    pub intermediate_key: PathBuf,
    /// The intermediate and the root.
    pub chain: PathBuf,
    /// The server's key, certificate and intermediate.
    pub server: PathBuf,
    /// What clients trust.
    pub bundle: PathBuf,
    root_key: PathBuf,
}

impl Layout {
    /// The layout below `directory`, whether or not it is there.
    pub fn of(directory: &Path) -> Self {
        let at = |path: &str| directory.join(path);
        Self {
            root: at("root-ca/cacert.pem"),
            root_key: at("root-ca/private/cacert.key"),
            intermediate: at("int-ca/cacert.pem"),
            intermediate_key: at("int-ca/private/cacert.key"),
            chain: at("int-ca/ca-chain.pem"),
            server: at("devstack-cert.pem"),
            bundle: at("ca-bundle.pem"),
        }
    }
}

/// Makes a new authority and one server certificate below `directory`.
///
/// An authority that is already there stays as it is, and is an error.
pub fn create(directory: &Path, names: &ServerNames, now: OffsetDateTime) -> Result<Layout, Error> {
    let layout = Layout::of(directory);
    for path in [&layout.root_key, &layout.root, &layout.intermediate_key, &layout.intermediate] {
        if path.exists() {
            return Err(Error::AlreadyThere(path.clone()));
        }
    }
    let root = Authority::root("Root CA", now)?;
    let intermediate = root.intermediate("Intermediate CA", now)?;
    let server = issue(&intermediate, names, now)?;

    for private in [&layout.root_key, &layout.intermediate_key] {
        files::make_directory(private.parent().unwrap_or(directory))?;
    }
    let (root_pem, intermediate_pem) = (root.certificate_pem(), intermediate.certificate_pem());
    files::write_private(&layout.root_key, &root.key_pem())?;
    files::write_public(&layout.root, &root_pem)?;
    files::write_private(&layout.intermediate_key, &intermediate.key_pem())?;
    files::write_public(&layout.intermediate, &intermediate_pem)?;
    files::write_public(&layout.chain, &format!("{intermediate_pem}{root_pem}"))?;
    files::write_public(&layout.bundle, &format!("{root_pem}{intermediate_pem}"))?;
    files::write_private(&layout.server, &key_and_chain(&server))?;
    Ok(layout)
}

/// The intermediate that [`create`] has written below `directory`.
pub fn open(directory: &Path) -> Result<Authority, Error> {
    let layout = Layout::of(directory);
    let certificate = files::read(&layout.intermediate)?;
    Authority::from_pem(&certificate, &files::read(&layout.intermediate_key)?)
}

/// A certificate for a server with these names.
pub fn issue(authority: &Authority, names: &ServerNames, now: OffsetDateTime) -> Result<Identity, Error> {
    let address = names.ips.first().map(IpAddr::to_string);
    let first = names.dns.first().cloned().or(address).unwrap_or_default();
    authority.issue(&LeafSpec { dns: names.dns.clone(), ips: names.ips.clone(), ..LeafSpec::new(&first, now) })
}

/// Key, certificate and intermediate in one file, as DevStack's front ends read it.
pub fn key_and_chain(identity: &Identity) -> String {
    identity.key_pem() + &identity.chain_pem()
}
