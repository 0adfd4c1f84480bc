//! Trust anchors: the authorities an operator chose to believe. An empty set cannot be made.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use rustls_pki_types::{
    CertificateDer, Der, TrustAnchor,
    pem::{self, PemObject, SectionKind},
};

use super::{dn, presented::Certificate};

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
    /// What was passed over, each with the reason: certificates, and blocks and files that may hold one. They are
    /// not trusted.
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
        let (mut other, mut odd, mut binary) = (Vec::new(), Vec::new(), None);
        for (name, bytes) in files {
            if is_der(bytes) {
                odd.push(format!("`{name}` is DER, not PEM, and not trusted; convert it: {}", converted(name)));
                binary = binary.or(Some(name));
            }
            for label in unknown_labels(bytes) {
                odd.push(format!("`{name}`: a block `{label}` is not trusted; {}", remedy(&label)));
                other.push(label);
            }
            for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
                match section {
                    Ok((SectionKind::Certificate, der)) => ders.push(CertificateDer::from(der)),
                    Ok((kind, _)) => other.push(kind_name(kind).to_owned()),
                    Err(error) => {
                        let why = not_pem(&error);
                        return Err(TrustError::Pem { source: source.into(), file: name.clone(), why });
                    }
                }
            }
        }
        ders.extend(more);
        let mut set = Self::from_der(source, ders).map_err(|error| match (error, binary) {
            (TrustError::Empty { source, .. }, Some(file)) => TrustError::Der { source, file: file.clone() },
            (TrustError::Empty { source, .. }, None) => TrustError::Empty { source, other },
            (error, _) => error,
        })?;
        set.skipped.extend(odd);
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
}

/// The anchor without directoryName constraints, which webpki would refuse unseen; `checks` asks for them.
fn with_checked_constraints(mut anchor: TrustAnchor<'static>) -> TrustAnchor<'static> {
    if let Some(kept) = anchor.name_constraints.as_deref().and_then(dn::without_directory_names) {
        anchor.name_constraints = Some(kept.into()).filter(|kept: &Der<'_>| !kept.is_empty());
    }
    anchor
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

/// Whether a file that should be PEM is DER: an ASN.1 SEQUENCE with a length of more than one octet.
pub fn is_der(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x30, 0x82]) || bytes.starts_with(&[0x30, 0x81])
}

/// What makes PEM of a DER file, to be pasted.
pub(crate) fn converted(file: &str) -> String {
    format!("`openssl x509 -inform DER -in {file} -out {file}.pem`")
}

/// What to do about a block of another label, as a fix.
pub fn remedy(label: &str) -> &'static str {
    match label {
        "TRUSTED CERTIFICATE" | "X509 CERTIFICATE" => "write it as a plain one: `openssl x509 -in FILE -out FILE.pem`",
        "X509 CRL" => "give it with --crl; here it does not count",
        _ => "take it out; only CERTIFICATE blocks count here",
    }
}

/// The labels of blocks that the PEM reader passes over, as it does not know their kind.
fn unknown_labels(bytes: &[u8]) -> Vec<String> {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let labels = lines.filter_map(|line| line.strip_prefix(b"-----BEGIN ")?.strip_suffix(b"-----"));
    let unknown = labels.filter(|label| SectionKind::try_from(*label).is_err());
    // A text that is none may be a key on one line.
    let is_label = |label: &[u8]| {
        label.len() <= 40
            && label.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b' ')
    };
    unknown
        .map(
            |label| {
                if is_label(label) { String::from_utf8_lossy(label).into_owned() } else { "of another kind".into() }
            },
        )
        .collect()
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
        other: Vec<String>,
    },
    /// Nothing that is PEM, and a file that looks like DER.
    Der {
        /// What the operator called it.
        source: String,
        /// The file.
        file: String,
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
            Self::Empty { source, other } => {
                let openssls = other.iter().find(|label| label.ends_with(" CERTIFICATE"));
                write!(
                    f,
                    "{source}: no certificate in it (found {} PEM block{}: {})\nhint: it should hold the CERTIFICATE blocks of the authorities to trust{}",
                    other.len(),
                    if other.len() == 1 { "" } else { "s" },
                    Vec::from_iter(BTreeSet::from_iter(other.iter().map(String::as_str))).join(", "),
                    openssls.map_or_else(String::new, |label| format!("; {}", remedy(label)))
                )
            }
            Self::Der { source, file } => {
                write!(f, "{source}: `{file}` is DER, not PEM\nhint: convert it: {}", converted(file))
            }
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
        let other = ["X509 CRL", "PRIVATE KEY", "X509 CRL"].map(str::to_owned).to_vec();
        let error = TrustError::Empty { source: "ca.pem".into(), other };
        assert!(error.to_string().contains("(found 3 PEM blocks: PRIVATE KEY, X509 CRL)"), "{error}");
    }

    #[test]
    fn blocks_and_files_that_are_passed_over_are_named_with_a_remedy() {
        let now = time::OffsetDateTime::now_utc();
        let good = certs_dev::Authority::root("Good", now).unwrap();
        let block = |label: &str| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        for (file, said) in [
            (block("TRUSTED CERTIFICATE").into_bytes(), "a block `TRUSTED CERTIFICATE` is not trusted; write it as"),
            (block("DH PARAMETERS").into_bytes(), "a block `DH PARAMETERS` is not trusted; take it out"),
            (block("MIIsecret").into_bytes(), "a block `of another kind` is not trusted"),
            (
                vec![0x30, 0x82, 1, 0],
                "DER, not PEM, and not trusted; convert it: `openssl x509 -inform DER -in odd.crt",
            ),
        ] {
            let files = [("good.pem".to_owned(), good.certificate_pem().into_bytes()), ("odd.crt".to_owned(), file)];
            let set = TrustAnchors::from_pem("--ca-bundle", &files, Vec::new()).unwrap();
            assert_eq!((set.certificates().len(), set.skipped.len()), (1, 1), "{:?}", set.skipped);
            assert!(set.skipped[0].starts_with("`odd.crt`") && set.skipped[0].contains(said), "{:?}", set.skipped);
        }
    }
}
