//! A local CA as it is on disk: read and checked, with nothing left to chance about who could have read its key.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rcgen::{Issuer, KeyPair};
use rustix::process::geteuid;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{clock::rfc3339, tls::presented::Certificate};

use super::{ISSUER_FILE, KEY_FILE, ROOT_FILE, permit::Permits};

/// The organization in the names of a local CA, by which `vouchsafe bundle` knows one.
pub(super) const ORGANIZATION: &str = "vouchsafe local CA";

/// Whether a certificate is one of a local CA, of this or any other host.
pub fn is_local_ca(certificate: &Certificate) -> bool {
    let of = |facts: &crate::tls::presented::Facts| facts.subject.contains(ORGANIZATION);
    certificate.facts.as_ref().is_ok_and(|facts| facts.is_ca == Some(true) && of(facts))
}

/// A local CA, ready to sign.
pub struct LocalCa {
    /// Its directory.
    pub directory: PathBuf,
    /// The root: what clients trust.
    pub root: Certificate,
    /// The intermediate: what signs.
    pub intermediate: Certificate,
    /// What it may sign for.
    pub permits: Permits,
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// The end of the certificate that ends first.
    pub not_after: OffsetDateTime,
    /// The root as its file has it.
    pub root_pem: Vec<u8>,
}

impl fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCa")
            .field("directory", &self.directory)
            .field("root", &self.root.sha256)
            .finish_non_exhaustive()
    }
}

/// Why a local CA cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaError {
    /// The file, or the directory.
    pub path: PathBuf,
    /// What is wrong with it, perhaps with a hint.
    pub why: String,
}

impl LocalCa {
    /// Reads the contents of the files of a directory.
    ///
    /// # Errors
    /// [`CaError`]; it never repeats what is in the key's file.
    pub fn read(
        directory: &Path,
        root_pem: &[u8],
        issuer: &[u8],
        key: &[u8],
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        let error = |file: &str, why: &str| CaError { path: directory.join(file), why: why.to_owned() };
        let one = |file: &str, bytes: &[u8]| {
            let mut all = CertificateDer::pem_slice_iter(bytes);
            let first = all.next().and_then(Result::ok);
            let first = first.ok_or_else(|| error(file, &format!("no certificate (PEM) in it{NEW}")))?;
            // Tools of `exec` are given the file as it is, and would trust the others, too.
            if all.next().is_some() {
                Err(error(file, &format!("more than one certificate in it{NEW}")))
            } else {
                Ok(first)
            }
        };
        let (root_der, issuer_der) = (one(ROOT_FILE, root_pem)?, one(ISSUER_FILE, issuer)?);
        let key = str::from_utf8(key).ok().and_then(|text| KeyPair::from_pem(text).ok());
        let key = key.ok_or_else(|| error(KEY_FILE, &format!("no private key (PEM) in it that can be used{NEW}")))?;
        let parsed = |file: &str, der: &CertificateDer<'_>| match X509Certificate::from_der(der) {
            Ok((_, read)) => Permits::of(&read).map_err(|why| error(file, &why)),
            Err(_) => Err(error(file, "the certificate in it cannot be read")),
        };
        let permits = parsed(ISSUER_FILE, &issuer_der)?;
        if parsed(ROOT_FILE, &root_der)? != permits {
            return Err(error(ROOT_FILE, &format!("it permits other names than {ISSUER_FILE}{NEW}")));
        }
        if !signed_by(&root_der, &root_der) || !signed_by(&issuer_der, &root_der) {
            return Err(error(ISSUER_FILE, &format!("it was not signed by the root in {ROOT_FILE}{NEW}")));
        }
        let (root, intermediate) = (Certificate::read(&root_der), Certificate::read(&issuer_der));
        let facts = |file, certificate: &Certificate| certificate.facts.clone().map_err(|why| error(file, &why));
        let (root_facts, facts) = (facts(ROOT_FILE, &root)?, facts(ISSUER_FILE, &intermediate)?);
        if facts.spki != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(error(KEY_FILE, &format!("it is not the key of the certificate in {ISSUER_FILE}{NEW}")));
        }
        let not_after = facts.not_after.min(root_facts.not_after);
        if not_after <= now {
            return Err(error(ISSUER_FILE, &format!("the CA has expired on {}{NEW}", rfc3339(not_after))));
        }
        let issuer = Issuer::from_ca_cert_der(&issuer_der, key).map_err(|_| error(ISSUER_FILE, "it cannot sign"))?;
        Ok(Self {
            directory: directory.to_owned(),
            root,
            intermediate,
            permits,
            issuer,
            not_after,
            root_pem: root_pem.to_vec(),
        })
    }

    /// Whether both are the same CA.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.root.der, &self.intermediate.der) == (&other.root.der, &other.intermediate.der)
    }

    /// Whether a certificate has the key of this CA's root or intermediate.
    pub fn is_own_key(&self, spki: &[u8]) -> bool {
        let own = |certificate: &Certificate| certificate.facts.as_ref().is_ok_and(|facts| facts.spki == spki);
        own(&self.root) || own(&self.intermediate)
    }

    /// The command that makes another CA, which may sign for `name`, too.
    pub fn remedy(&self, name: &str) -> String {
        let permits = match &self.permits {
            Permits::Anything => Vec::new(),
            Permits::Only(permits) => permits.iter().map(ToString::to_string).collect(),
        };
        let flags: Vec<_> =
            permits.iter().map(String::as_str).chain([name]).map(|permit| format!("--permit {permit}")).collect();
        format!("vouchsafe ca init NEW_DIRECTORY {}", flags.join(" "))
    }
}

/// What to do about files that do not belong together.
const NEW: &str = "\nhint: make a new CA with `vouchsafe ca init`, and give its ca.pem to the clients";

fn signed_by(certificate: &CertificateDer<'_>, issuer: &CertificateDer<'_>) -> bool {
    let (Ok((_, certificate)), Ok((_, issuer))) =
        (X509Certificate::from_der(certificate), X509Certificate::from_der(issuer))
    else {
        return false;
    };
    certificate.issuer() == issuer.subject() && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// Who owns a file, and who may do what with it.
#[derive(Clone, Debug)]
pub struct FileMode {
    path: PathBuf,
    is_directory: bool,
    owner: u32,
    mode: u32,
}

impl FileMode {
    /// That of a file or directory, behind symbolic links.
    ///
    /// # Errors
    /// A sentence that names it.
    pub fn of(path: &Path) -> Result<Self, String> {
        let meta = fs::metadata(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        let (owner, mode) = (meta.uid(), meta.mode() & 0o7777);
        Ok(Self { path: path.to_owned(), is_directory: meta.is_dir(), owner, mode })
    }

    /// Refuses a key that another user owns or may read, as ssh does.
    ///
    /// # Errors
    /// A sentence with a remedy.
    pub fn check_key(&self) -> Result<(), String> {
        self.check_owner()?;
        self.check_bits(0o077, "read or change it", "600")
    }

    /// Refuses a certificate that another user owns or may replace.
    ///
    /// # Errors
    /// A sentence with a remedy.
    pub fn check_certificate(&self) -> Result<(), String> {
        self.check_owner()?;
        self.check_bits(0o022, "change it", "644")
    }

    /// Refuses what is not a directory, and a directory in which another user may change files.
    ///
    /// # Errors
    /// A sentence with a remedy.
    pub fn check_directory(&self) -> Result<(), String> {
        if !self.is_directory {
            return Err(format!(
                "`{}` is a file, not a directory\nhint: a local CA is the directory that `vouchsafe ca init` made, with {ROOT_FILE}, {ISSUER_FILE} and {KEY_FILE} in it",
                self.path.display()
            ));
        }
        self.check_owner()?;
        self.check_bits(0o022, "change what is in it", "700")
    }

    fn check_owner(&self) -> Result<(), String> {
        let own = geteuid().as_raw();
        let path = self.path.display();
        match self.owner {
            0 => Ok(()),
            owner if owner == own => Ok(()),
            owner => Err(format!(
                "`{path}` belongs to user {owner}, and this process runs as user {own}\nhint: `chown {own} {path}`, if what is in it can be trusted"
            )),
        }
    }

    fn check_bits(&self, bits: u32, what: &str, wanted: &str) -> Result<(), String> {
        let (path, mode) = (self.path.display(), self.mode);
        if mode & bits == 0 {
            return Ok(());
        }
        Err(format!("`{path}` has mode {mode:04o}: other users may {what}\nhint: `chmod {wanted} {path}`"))
    }
}
