//! Trust anchors: the authorities an operator chose to believe. An empty set cannot be made.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use rustls_pki_types::{CertificateDer, Der, TrustAnchor};

use super::{
    dn,
    pem::{self, Cause, PemError, Wanted},
    presented::Certificate,
};

/// A set of trust anchors, never empty, with where it came from.
///
/// The certificates are kept whole alongside webpki's view of them: an exact match, dates, fitness and
/// fingerprints need the bytes.
#[derive(Debug)]
pub struct TrustAnchors {
    certificates: Vec<Certificate>,
    anchors: Vec<TrustAnchor<'static>>,
    /// What the operator called it, for example `--ca-bundle ca.pem`.
    pub source: String,
    /// SHA-256 over the certificates' bytes in their order, lower-case hex.
    pub sha256: String,
    /// What was passed over, each with the reason: certificates, and blocks and files that may hold one. They are
    /// not trusted.
    pub skipped: Vec<String>,
}

impl TrustAnchors {
    /// Makes a set of PEM files' contents, each with its name for messages, and of `more` certificates.
    ///
    /// # Errors
    /// [`TrustError`] where no usable certificate is found: an empty bundle is a mistake, and the
    /// system's roots are never used unless they are configured.
    pub fn from_pem(
        source: &str,
        files: &[(String, Vec<u8>)],
        more: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TrustError> {
        let mut found = Found::default();
        for (name, bytes) in files {
            found.add(source, name, bytes)?;
        }
        let Found { mut certificates, other, skipped, binary } = found;
        certificates.extend(more);
        let mut set = Self::from_der(source, certificates).map_err(|error| match (error, binary) {
            (TrustError::Empty { .. }, Some(binary)) => binary,
            (TrustError::Empty { source, .. }, None) => TrustError::Empty { source, other },
            (error, _) => error,
        })?;
        set.skipped.extend(skipped);
        Ok(set)
    }

    /// Makes a set of certificates.
    ///
    /// # Errors
    /// As [`Self::from_pem`].
    fn from_der(source: &str, ders: Vec<CertificateDer<'static>>) -> Result<Self, TrustError> {
        let mut set = Self {
            certificates: Vec::new(),
            anchors: Vec::new(),
            source: source.to_owned(),
            sha256: String::new(),
            skipped: Vec::new(),
        };
        let mut hash = digest::Context::new(&digest::SHA256);
        let found = ders.len();
        let mut unreadable = None;
        let mut known = HashSet::new();
        for der in ders {
            let certificate = Certificate::read(&der);
            if !known.insert(certificate.sha256.clone()) {
                continue;
            }
            match webpki::anchor_from_trusted_cert(&der) {
                Ok(anchor) => {
                    hash.update(&der);
                    set.anchors.push(with_checked_constraints(anchor.to_owned()));
                    set.certificates.push(certificate);
                }
                Err(_) => {
                    set.skipped.push(format!(
                        "certificate {} (sha256 {}) cannot be read and is not trusted",
                        certificate.name(),
                        certificate.sha256
                    ));
                    unreadable.get_or_insert(match certificate.facts {
                        Ok(_) => "it cannot be used as a trust anchor".to_owned(),
                        Err(why) => why,
                    });
                }
            }
        }
        if set.anchors.is_empty() {
            let source = set.source;
            return Err(match found {
                0 => TrustError::Empty { source, other: Vec::new() },
                _ => TrustError::Unreadable { source, found, first: unreadable.unwrap_or_default() },
            });
        }
        set.sha256 = HEXLOWER.encode(hash.finish().as_ref());
        Ok(set)
    }

    /// As webpki takes them; same places as [`Self::certificates`].
    pub fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// The certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// The place of a certificate, byte for byte.
    pub fn exact(&self, der: &[u8]) -> Option<usize> {
        self.certificates.iter().position(|certificate| certificate.der.as_ref() == der)
    }
}

/// The anchor without directoryName constraints, which webpki would refuse unseen; `checks` asks for them.
fn with_checked_constraints(mut anchor: TrustAnchor<'static>) -> TrustAnchor<'static> {
    if let Some(kept) = anchor.name_constraints.as_deref().and_then(dn::without_directory_names) {
        anchor.name_constraints = Some(kept.into()).filter(|kept: &Der<'_>| !kept.is_empty());
    }
    anchor
}

/// What files of a bundle hold.
#[derive(Default)]
struct Found {
    certificates: Vec<CertificateDer<'static>>,
    /// Labels of the other blocks, each with what to do about it.
    other: Vec<(String, Option<String>)>,
    skipped: Vec<String>,
    /// The first file that is not text.
    binary: Option<TrustError>,
}

impl Found {
    /// A file that is not text is passed over, as a directory may have some.
    fn add(&mut self, source: &str, file: &str, bytes: &[u8]) -> Result<(), TrustError> {
        for block in pem::blocks(bytes) {
            match block {
                Ok(block) if block.label == pem::CERTIFICATE && !pem::is_pkcs7(&block.der) => {
                    self.certificates.push(block.der.into());
                }
                Ok(block) => self.pass_over(file, &block),
                Err(error) => {
                    let is_binary = matches!(error.cause, Cause::Binary(_));
                    let refused = TrustError::Pem { source: source.to_owned(), file: file.to_owned(), error };
                    if !is_binary {
                        return Err(refused);
                    }
                    let hint = error.cause.hint(file, Wanted::Certificates).map(|hint| format!("; {hint}"));
                    self.skipped.push(format!("`{file}` is not trusted: {error}{}", hint.unwrap_or_default()));
                    self.binary.get_or_insert(refused);
                }
            }
        }
        Ok(())
    }

    fn pass_over(&mut self, file: &str, block: &pem::Block) {
        let (label, line) = (&block.label, block.line);
        let is_pkcs7 = label == pem::CERTIFICATE;
        let remedy = if is_pkcs7 { Some(pem::relabelled(file)) } else { pem::remedy(label, file) };
        if !PASSED_OVER.contains(&&**label) {
            let what = if is_pkcs7 { " holds PKCS #7 and" } else { "" };
            let remedy = remedy.as_deref().unwrap_or("take it out; only CERTIFICATE blocks count here");
            self.skipped.push(format!("`{file}`, line {line}: the block `{label}`{what} is not trusted; {remedy}"));
        }
        self.other.push((label.clone(), remedy));
    }
}

/// Labels of blocks that people keep in the file of a bundle; nobody takes them for certificates.
const PASSED_OVER: [&str; 6] =
    [pem::X509_CRL, "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "PUBLIC KEY", "CERTIFICATE REQUEST"];

/// Whether a certificate can be an anchor at all; one that cannot is passed over.
pub fn is_usable(der: &CertificateDer<'_>) -> bool {
    webpki::anchor_from_trusted_cert(der).is_ok()
}

/// Why there is no set of trust anchors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustError {
    /// There is no certificate at all.
    Empty {
        /// What the operator called it.
        source: String,
        /// The labels of the blocks found instead, and what to do about each.
        other: Vec<(String, Option<String>)>,
    },
    /// A file is not PEM, or a part of it resembles PEM and is not.
    Pem {
        /// What the operator called it.
        source: String,
        /// The file.
        file: String,
        /// In what respect.
        error: PemError,
    },
    /// Certificates, none of which can be read.
    Unreadable {
        /// What the operator called it.
        source: String,
        /// How many.
        found: usize,
        /// Why the first one cannot.
        first: String,
    },
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { source, other } if other.is_empty() => write!(
                f,
                "{source}: no certificate in it\nhint: it should hold the CERTIFICATE blocks (PEM) of the authorities to trust"
            ),
            Self::Empty { source, other } => {
                let labels = BTreeSet::from_iter(other.iter().map(|(label, _)| label.as_str()));
                let remedy = other.iter().find_map(|(_, remedy)| remedy.as_deref());
                write!(
                    f,
                    "{source}: no certificate in it (found {} PEM block{}: {})\nhint: it should hold the CERTIFICATE blocks of the authorities to trust{}",
                    other.len(),
                    if other.len() == 1 { "" } else { "s" },
                    Vec::from_iter(labels).join(", "),
                    remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default()
                )
            }
            Self::Pem { source, file, error } => {
                write!(f, "{source}: `{file}`: {}", error.sentence(file, Wanted::Certificates))
            }
            Self::Unreadable { source, found, first } => {
                match found {
                    1 => write!(f, "{source}: its certificate cannot be read: {first}")?,
                    _ => write!(f, "{source}: none of its {found} certificates can be read; the first: {first}")?,
                }
                f.write_str("\nhint: get the file again, it may be cut off or changed; `vouchsafe bundle` shows each certificate with its line")
            }
        }
    }
}

impl std::error::Error for TrustError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_other_blocks_are_named_once() {
        let other = ["X509 CRL", "PRIVATE KEY", "X509 CRL"].map(|label| (label.to_owned(), None)).to_vec();
        let error = TrustError::Empty { source: "ca.pem".into(), other };
        assert!(error.to_string().contains("(found 3 PEM blocks: PRIVATE KEY, X509 CRL)"), "{error}");
    }

    #[test]
    fn blocks_and_files_that_are_passed_over_are_named_with_a_remedy() {
        let now = time::OffsetDateTime::now_utc();
        let good = certs_dev::Authority::root("Good", now).unwrap();
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        for (file, expected) in [
            (
                block("TRUSTED CERTIFICATE").into_bytes(),
                "`odd.crt`, line 1: the block `TRUSTED CERTIFICATE` is not trusted; write it as",
            ),
            (
                block("DH PARAMETERS").into_bytes(),
                "`odd.crt`, line 1: the block `DH PARAMETERS` is not trusted; take it out",
            ),
            (
                vec![0x30, 0x82, 1, 0],
                "`odd.crt` is not trusted: it is DER, not PEM; convert it: `openssl x509 -inform DER -in odd.crt",
            ),
        ] {
            let files = [("good.pem".to_owned(), good.certificate_pem().into_bytes()), ("odd.crt".to_owned(), file)];
            let set = TrustAnchors::from_pem("--ca-bundle", &files, Vec::new()).unwrap();
            assert_eq!((set.certificates().len(), set.skipped.len()), (1, 1), "{:?}", set.skipped);
            assert!(set.skipped[0].starts_with(expected), "{:?}", set.skipped);
        }
    }
}
