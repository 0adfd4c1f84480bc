//! Trust anchors: the authorities an operator chose to believe. An empty set cannot be made.

use std::{collections::BTreeSet, fmt};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use rustls_pki_types::{
    CertificateDer, TrustAnchor,
    pem::{self, PemObject, SectionKind},
};

use super::presented::Certificate;

/// A set of trust anchors, never empty, with where it came from.
///
/// The certificates are kept whole beside webpki's view of them: an exact match, dates, fitness and
/// fingerprints need the bytes.
#[derive(Debug)]
pub struct TrustAnchors {
    certificates: Vec<Certificate>,
    anchors: Vec<TrustAnchor<'static>>,
    /// What the operator called it, for example `--ca-bundle ca.pem`.
    pub source: String,
    /// SHA-256 over the certificates' bytes in their order, lower-case hex.
    pub sha256: String,
    /// Certificates that were passed over, each with the reason; they are not trusted.
    pub skipped: Vec<String>,
}

impl TrustAnchors {
    /// Makes a set of PEM files' contents, each with its name for messages, and of `more` certificates.
    ///
    /// # Errors
    /// [`TrustError`] where no usable certificate is found: trust in nobody is a mistake, and trust in
    /// whom the machine happens to believe was not asked for.
    pub fn from_pem(
        source: &str,
        files: &[(String, Vec<u8>)],
        more: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TrustError> {
        let mut ders = Vec::new();
        let mut other = Vec::new();
        for (name, bytes) in files {
            for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
                match section {
                    Ok((SectionKind::Certificate, der)) => ders.push(CertificateDer::from(der)),
                    Ok((kind, _)) => other.push(kind_name(kind)),
                    Err(error) => {
                        let why = not_pem(&error);
                        return Err(TrustError::Pem { source: source.into(), file: name.clone(), why });
                    }
                }
            }
        }
        ders.extend(more);
        Self::from_der(source, ders).map_err(|error| match error {
            TrustError::Empty { source, .. } => TrustError::Empty { source, other },
            error => error,
        })
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
        for der in ders {
            let certificate = Certificate::read(&der);
            if set.certificates.iter().any(|known| known.der == certificate.der) {
                continue;
            }
            match webpki::anchor_from_trusted_cert(&der) {
                Ok(anchor) => {
                    hash.update(&der);
                    set.anchors.push(anchor.to_owned());
                    set.certificates.push(certificate);
                }
                Err(_) => set.skipped.push(format!(
                    "certificate {} (sha256 {}) cannot be read and is not trusted",
                    certificate.name(),
                    certificate.sha256
                )),
            }
        }
        if set.anchors.is_empty() {
            let source = set.source;
            return Err(match found {
                0 => TrustError::Empty { source, other: Vec::new() },
                _ => TrustError::Unreadable { source, found },
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

    /// The place of an anchor that webpki took from [`Self::anchors`]. By identity: a renewed root has the
    /// name and the key of the one before it.
    pub fn place_of(&self, anchor: &TrustAnchor<'_>) -> Option<usize> {
        let wanted = std::ptr::from_ref(anchor).cast::<()>();
        self.anchors.iter().position(|known| std::ptr::from_ref(known).cast::<()>() == wanted)
    }
}

/// Why a text is not PEM. Nothing of the text is repeated: it may be a key in the wrong file.
pub(crate) fn not_pem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::Base64Decode(_) => "the text of a block is not base64",
        pem::Error::IllegalSectionStart { .. } => "a `-----BEGIN` line does not end in `-----`",
        pem::Error::MissingSectionEnd { .. } => "a block has no `-----END` line",
        pem::Error::SectionTooLarge => "a block is too large",
        _ => "it cannot be read",
    }
}

/// Whether a certificate can be an anchor at all; one that cannot is passed over.
pub fn is_usable(der: &CertificateDer<'_>) -> bool {
    webpki::anchor_from_trusted_cert(der).is_ok()
}

fn kind_name(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::Certificate => "CERTIFICATE",
        SectionKind::PublicKey => "PUBLIC KEY",
        SectionKind::RsaPrivateKey => "RSA PRIVATE KEY",
        SectionKind::PrivateKey => "PRIVATE KEY",
        SectionKind::EcPrivateKey => "EC PRIVATE KEY",
        SectionKind::Crl => "X509 CRL",
        SectionKind::Csr => "CERTIFICATE REQUEST",
        _ => "another kind",
    }
}

/// Why there is no set of trust anchors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustError {
    /// No certificate at all; the kinds of the other PEM blocks.
    Empty {
        /// What the operator called it.
        source: String,
        /// Kinds of PEM blocks found instead.
        other: Vec<&'static str>,
    },
    /// Not PEM.
    Pem {
        /// What the operator called it.
        source: String,
        /// The file.
        file: String,
        /// In what respect.
        why: &'static str,
    },
    /// Certificates, none of which can be read.
    Unreadable {
        /// What the operator called it.
        source: String,
        /// How many.
        found: usize,
    },
}

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { source, other } if other.is_empty() => write!(
                f,
                "{source}: no certificate in it\nhint: it should hold the CERTIFICATE blocks (PEM) of the authorities to trust"
            ),
            Self::Empty { source, other } => write!(
                f,
                "{source}: no certificate in it (found {} PEM block{}: {})\nhint: it should hold the CERTIFICATE blocks of the authorities to trust",
                other.len(),
                if other.len() == 1 { "" } else { "s" },
                Vec::from_iter(BTreeSet::from_iter(other.iter().copied())).join(", ")
            ),
            Self::Pem { source, file, why } => write!(f, "{source}: `{file}` is not PEM: {why}"),
            Self::Unreadable { source, found } => {
                write!(f, "{source}: none of its {found} certificates can be read")
            }
        }
    }
}

impl std::error::Error for TrustError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bundle_is_told_in_words_and_not_repeated() {
        for (text, expected) in [
            ("-----BEGIN CERTIFICATE----\n", "`ca.pem` is not PEM: a `-----BEGIN` line does not end in `-----`"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n", "`ca.pem` is not PEM: a block has no `-----END` line"),
            // All on one line, so that the secret stands in the label.
            (
                "-----BEGIN PRIVATE KEY-----SECRET-----END PRIVATE KEY-----",
                "`ca.pem` is not PEM: a block has no `-----END` line",
            ),
            (
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "`ca.pem` is not PEM: the text of a block is not base64",
            ),
        ] {
            let files = [("ca.pem".to_owned(), text.into())];
            let error = TrustAnchors::from_pem("--ca-bundle", &files, Vec::new()).unwrap_err();
            assert_eq!(error.to_string(), format!("--ca-bundle: {expected}"));
        }
    }

    #[test]
    fn kinds_of_other_blocks_are_named_once() {
        let error = TrustError::Empty { source: "ca.pem".into(), other: vec!["X509 CRL", "PRIVATE KEY", "X509 CRL"] };
        assert!(error.to_string().contains("(found 3 PEM blocks: PRIVATE KEY, X509 CRL)"), "{error}");
    }
}
