//! Writing and reading PEM files: certificates for all to read, keys for their owner alone.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::Error;
use crate::pki::Identity;

/// Makes a directory and those above it.
pub fn make_directory(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io(format!("make the directory `{}`", path.display())))
}

/// Writes a file that holds no secret.
pub fn write_public(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::io(format!("write `{}`", path.display())))
}

/// Writes a file that holds a key: readable and writable by its owner alone (mode 0600).
pub fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let doing = || Error::io(format!("write `{}`", path.display()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(doing())?;
    // An older file keeps its mode when it is opened; the key must not be there before this.
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(doing())?;
    file.write_all(text.as_bytes()).map_err(doing())
}

/// Reads a whole text file.
pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(format!("read `{}`", path.display())))
}

/// Reads an identity back from its chain and its key.
///
/// The chain's blocks are taken as they are; one that is not a certificate is served all the same.
pub fn read_identity(chain: &Path, key: &Path) -> Result<Identity, Error> {
    let blocks = CertificateDer::pem_slice_iter(read(chain)?.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|blocks| !blocks.is_empty())
        .ok_or_else(|| Error::Pem { path: chain.to_owned(), wanted: "certificate" })?;
    let key = PrivateKeyDer::from_pem_slice(read(key)?.as_bytes())
        .map_err(|_| Error::Pem { path: key.to_owned(), wanted: "private key" })?;
    Ok(Identity { chain: blocks, key })
}
