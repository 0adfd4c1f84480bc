//! Evidence: the chains of refused servers, a PEM file for each distinct one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;

use crate::tls::{fingerprint::Fingerprint, presented::Certificate};

/// A directory of chains; their number is bounded.
#[derive(Debug)]
pub struct Chains {
    directory: PathBuf,
    count: usize,
}

/// Chains beyond this many are not kept.
const MOST: usize = 1000;

/// SHA-256 over a chain's bytes, in its order; names its file.
pub fn name(presented: &[Certificate]) -> String {
    let bytes: Vec<u8> = presented.iter().flat_map(|certificate| certificate.der.iter().copied()).collect();
    Fingerprint::of(&bytes).hex()
}

impl Chains {
    /// Keeps chains in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// The system's.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let count = fs::read_dir(directory)?.count();
        Ok(Self { directory: directory.to_owned(), count })
    }

    /// Keeps a chain, unless it is there already or there are too many; gives whether it is there now.
    ///
    /// # Errors
    /// The system's.
    pub fn save(&mut self, presented: &[Certificate]) -> io::Result<bool> {
        let name = name(presented);
        let path = self.directory.join(format!("{name}.pem"));
        if path.exists() {
            return Ok(true);
        }
        if self.count >= MOST {
            return Ok(false);
        }
        let text: String = presented.iter().map(pem).collect();
        // Whole or not at all: somebody may be reading the directory.
        let partial = self.directory.join(format!(".{name}.partial"));
        fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path)).inspect_err(|_| {
            let _ = fs::remove_file(&partial);
        })?;
        self.count += 1;
        Ok(true)
    }
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
