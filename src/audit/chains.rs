//! Evidence: the chains of refused servers, a PEM file for each distinct one.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;
use tempfile::NamedTempFile;

use crate::tls::presented::{Certificate, PresentedChain};

/// A directory of chains; their number is bounded.
#[derive(Debug)]
pub struct Chains {
    directory: PathBuf,
    count: usize,
}

/// Chains beyond this many are not kept.
const MOST: usize = 1000;

impl Chains {
    /// Keeps chains in a directory, which is created if only it is missing; whether it can be written shows here.
    ///
    /// # Errors
    /// The system's.
    pub fn open(directory: &Path) -> io::Result<Self> {
        match fs::create_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
        partial(directory)?.close()?;
        let count = fs::read_dir(directory)?.count();
        Ok(Self { directory: directory.to_owned(), count })
    }

    /// Keeps a chain, unless it is there already or there are too many; gives whether it is there now.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&mut self, chain: &PresentedChain) -> io::Result<bool> {
        let path = self.directory.join(format!("{}.pem", chain.sha256()));
        if path.exists() {
            return Ok(true);
        }
        if self.count >= MOST {
            return Ok(false);
        }
        // Whole or not at all: somebody may be reading the directory.
        let mut file = partial(&self.directory)?;
        file.write_all(text(chain).as_bytes())?;
        file.persist(&path)?;
        self.count += 1;
        Ok(true)
    }
}

/// A new file under a name that nobody can have laid a link at; it goes where it is not persisted.
fn partial(directory: &Path) -> io::Result<NamedTempFile> {
    let mode = Permissions::from_mode(0o640);
    tempfile::Builder::new().prefix(".").suffix(".partial").permissions(mode).tempfile_in(directory)
}

fn text(chain: &PresentedChain) -> String {
    chain.iter().map(pem).collect()
}

fn pem(certificate: &Certificate) -> String {
    let text = BASE64.encode(&certificate.der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!(
        "# {} (sha256 {})\n-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        certificate.name(),
        certificate.sha256,
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateDer;

    use super::*;

    #[test]
    fn a_chain_is_kept_whole_and_readable_by_its_group() {
        let directory = tempfile::tempdir().unwrap();
        let mut chains = Chains::open(directory.path()).unwrap();
        assert_eq!(chains.count, 0, "the test of the directory leaves nothing");
        let chain = PresentedChain::from(vec![Certificate::read(&CertificateDer::from(vec![1, 2, 3]))]);
        assert!(chains.save(&chain).unwrap() && chains.save(&chain).unwrap());
        let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(fs::read_to_string(files[0].path()).unwrap(), text(&chain));
        // Less what the umask takes.
        assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777 & !0o640, 0);
    }

    #[test]
    fn a_directory_that_cannot_be_written_shows_at_start() {
        // No file can be made there, whoever asks.
        assert!(Chains::open(Path::new("/proc/self/fd")).is_err());
    }
}
