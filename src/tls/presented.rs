//! What a certificate says, read with x509-parser: evidence for people, and the facts for the checks
//! that webpki leaves to its caller.
//!
//! A certificate that cannot be read stays a certificate: its bytes and fingerprint are kept, and
//! [`Certificate::facts`] is the parser's complaint.

use std::{net::IpAddr, ops::Deref, sync::Arc};

use data_encoding::HEXLOWER;
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    error::X509Error,
    extensions::{GeneralName, ParsedExtension},
    nom::Err,
    oid_registry::{
        Oid,
        asn1_rs::{Tag, oid},
    },
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use crate::text::escape;

use super::{dn, fingerprint::Fingerprint, oid};

/// A certificate as it came, and what could be read of it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The bytes.
    pub der: CertificateDer<'static>,
    /// SHA-256 over the bytes, lower-case hex.
    pub sha256: String,
    /// What it says; the error is where the parser stopped, in words.
    pub facts: Result<Facts, String>,
}

/// What a certificate says. Every text is escaped: nothing in it can move a terminal or break a line.
#[derive(Clone, Debug)]
pub struct Facts {
    /// X.509 version, 1 to 3.
    pub version: u32,
    /// Subject, escaped as RFC 4514 has it, its parts in the order of the certificate.
    pub subject: String,
    /// Subject as DER, to compare.
    pub subject_der: Vec<u8>,
    /// The first common name of the subject.
    pub common_name: Option<String>,
    /// Issuer.
    pub issuer: String,
    /// Issuer as DER.
    pub issuer_der: Vec<u8>,
    /// Serial number, hex.
    pub serial: String,
    /// Serial number, the bytes of the DER integer.
    pub serial_der: Vec<u8>,
    /// Start of validity.
    pub not_before: OffsetDateTime,
    /// End of validity.
    pub not_after: OffsetDateTime,
    /// Whether there is a subjectAltName extension.
    pub has_san: bool,
    /// dNSName entries.
    pub dns_names: Vec<String>,
    /// iPAddress entries; those of an odd length are left out.
    pub ip_addresses: Vec<IpAddr>,
    /// Other entries of the subjectAltName, with their kind.
    pub other_names: Vec<String>,
    /// The public key.
    pub key: Key,
    /// The subjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// Signature algorithm, dotted decimal.
    pub signature_algorithm: String,
    /// The CA flag; None without basicConstraints.
    pub is_ca: Option<bool>,
    /// How many authorities may stand below it, those of its own name not counted; None where that is not limited.
    pub path_length: Option<u32>,
    /// keyUsage, where present: whether keyCertSign is in it.
    pub may_sign_certificates: Option<bool>,
    /// keyUsage, where present: whether cRLSign is in it.
    pub may_sign_crls: Option<bool>,
    /// extendedKeyUsage, where present: readable names or dotted OIDs.
    pub purposes: Option<Vec<String>>,
    /// Critical extensions that the verifier does not process, dotted OIDs.
    pub unknown_critical: Vec<String>,
    /// subjectKeyIdentifier.
    pub key_id: Option<Vec<u8>>,
    /// keyIdentifier of the authorityKeyIdentifier.
    pub authority_key_id: Option<Vec<u8>>,
}

/// A public key, as far as strength goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A named curve, or Ed25519: name, and whether we take it.
    Curve(String, bool),
    /// Anything else, by OID.
    Other(String),
    /// RSA with this many bits of modulus.
    Rsa(usize),
}

impl Key {
    /// For people: `RSA 2048`, `P-256`.
    pub fn describe(&self) -> String {
        match self {
            Self::Curve(name, _) => name.clone(),
            Self::Other(oid) => oid::name(oid).map_or_else(|| format!("key type {oid}"), str::to_owned),
            Self::Rsa(bits) => format!("RSA {bits}"),
        }
    }
}

/// The certificates that a server sent, in its order; cheap to clone.
#[derive(Clone, Debug)]
pub struct PresentedChain(Arc<Presented>);

#[derive(Debug)]
struct Presented {
    certificates: Vec<Certificate>,
    sha256: String,
}

impl PresentedChain {
    /// SHA-256 over the bytes of all certificates, lower-case hex.
    pub fn sha256(&self) -> &str {
        &self.0.sha256
    }
}

impl From<Vec<Certificate>> for PresentedChain {
    fn from(certificates: Vec<Certificate>) -> Self {
        let bytes: Vec<u8> = certificates.iter().flat_map(|certificate| certificate.der.iter().copied()).collect();
        Self(Arc::new(Presented { certificates, sha256: Fingerprint::of(&bytes).hex() }))
    }
}

impl Deref for PresentedChain {
    type Target = [Certificate];

    fn deref(&self) -> &[Certificate] {
        &self.0.certificates
    }
}

impl Certificate {
    /// Reads a certificate.
    pub fn read(der: &CertificateDer<'_>) -> Self {
        Self { der: der.clone().into_owned(), sha256: Fingerprint::of(der).hex(), facts: Facts::read(der) }
    }

    /// Bytes that it takes in memory, roughly: a name takes more than it has letters.
    pub fn size(&self) -> usize {
        let names = |facts: &Facts| facts.dns_names.len() + facts.ip_addresses.len() + facts.other_names.len();
        2048 + self.der.len() + 96 * self.facts.as_ref().map_or(0, names)
    }

    /// What names it for people: its subject, or that it cannot be read.
    pub fn name(&self) -> String {
        match &self.facts {
            Ok(facts) if !facts.subject.is_empty() => facts.subject.clone(),
            Ok(facts) => facts.presented_names().first().cloned().unwrap_or_else(|| "(no name)".into()),
            Err(_) => format!("(unreadable, {} bytes)", self.der.len()),
        }
    }
}

/// A name of any form, with its form.
pub(super) fn general_name(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::DNSName(name) => format!("dns:{}", escape(name)),
        GeneralName::DirectoryName(name) => format!("directory:{}", dn::text(name)),
        GeneralName::IPAddress(octets) => match ip(octets) {
            Some(ip) => format!("ip:{ip}"),
            None => format!("ip:(of {} octets)", octets.len()),
        },
        GeneralName::Invalid(..) => "(malformed)".into(),
        GeneralName::RFC822Name(mail) => format!("email:{}", escape(mail)),
        GeneralName::URI(uri) => format!("uri:{}", escape(uri)),
        other => escape(&other.to_string()),
    }
}

/// Why a certificate cannot be read, for people: the parser's own words are for its programmers.
fn unread(error: &Err<X509Error>) -> String {
    let why = match error {
        Err::Incomplete(_) => "it or a part of it ends too early".into(),
        Err::Error(X509Error::Der(_) | X509Error::NomError(_)) => "it is not well-formed DER".into(),
        Err::Error(error) | Err::Failure(error) => escape(&error.to_string()),
    };
    format!("it is not X.509: {why}")
}

impl Facts {
    fn read(der: &[u8]) -> Result<Self, String> {
        let (rest, cert) = X509Certificate::from_der(der).map_err(|error| unread(&error))?;
        if !rest.is_empty() {
            return Err(format!("{} bytes behind its end", rest.len()));
        }
        let validity = cert.validity();
        let mut facts = Self {
            version: cert.version().0 + 1,
            subject: dn::text(cert.subject()),
            subject_der: cert.subject().as_raw().to_vec(),
            common_name: cert.subject().iter_common_name().next().map(|name| escape(&dn::value(name.attr_value()))),
            issuer: dn::text(cert.issuer()),
            issuer_der: cert.issuer().as_raw().to_vec(),
            serial: escape(&HEXLOWER.encode(cert.raw_serial())),
            serial_der: cert.raw_serial().to_vec(),
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
            has_san: false,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            other_names: Vec::new(),
            key: key(cert.public_key()),
            spki: cert.public_key().raw.to_vec(),
            signature_algorithm: dotted(&cert.signature_algorithm.algorithm),
            is_ca: None,
            path_length: None,
            may_sign_certificates: None,
            may_sign_crls: None,
            purposes: None,
            unknown_critical: Vec::new(),
            key_id: None,
            authority_key_id: None,
        };
        for extension in cert.extensions() {
            if extension.critical && !VERIFIER_KNOWS.contains(&extension.oid) {
                facts.unknown_critical.push(dotted(&extension.oid));
            }
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(san) => {
                    facts.has_san = true;
                    san.general_names.iter().for_each(|name| facts.add_name(name));
                }
                ParsedExtension::BasicConstraints(constraints) => {
                    facts.is_ca = Some(constraints.ca);
                    facts.path_length = constraints.path_len_constraint;
                }
                ParsedExtension::KeyUsage(usage) => {
                    facts.may_sign_certificates = Some(usage.key_cert_sign());
                    facts.may_sign_crls = Some(usage.crl_sign());
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    let mut purposes = Vec::new();
                    for (there, name) in [
                        (usage.any, "any"),
                        (usage.server_auth, SERVER_AUTH),
                        (usage.client_auth, "clientAuth"),
                        (usage.code_signing, "codeSigning"),
                        (usage.email_protection, "emailProtection"),
                        (usage.time_stamping, "timeStamping"),
                        (usage.ocsp_signing, "OCSPSigning"),
                    ] {
                        if there {
                            purposes.push(name.to_owned());
                        }
                    }
                    purposes.extend(usage.other.iter().map(dotted));
                    facts.purposes = Some(purposes);
                }
                ParsedExtension::SubjectKeyIdentifier(id) => facts.key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    facts.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                // What the checks stand on must be readable, or it would count as absent.
                ParsedExtension::ParseError { .. } if CHECKS_NEED.contains(&extension.oid) => {
                    return Err(format!("its extension {} cannot be read", oid::named(&dotted(&extension.oid))));
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn add_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push(escape(name)),
            GeneralName::IPAddress(octets) => match ip(octets) {
                Some(ip) => self.ip_addresses.push(ip),
                None => self.other_names.push(general_name(name)),
            },
            other => self.other_names.push(general_name(other)),
        }
    }

    /// All names of the subjectAltName with their kind: `dns:a.example`, `ip:192.0.2.1`.
    pub fn presented_names(&self) -> Vec<String> {
        let dns = self.dns_names.iter().map(|name| format!("dns:{name}"));
        let ip = self.ip_addresses.iter().map(|ip| format!("ip:{ip}"));
        dns.chain(ip).chain(self.other_names.iter().cloned()).collect()
    }

    /// Whether subject and issuer are one name. Says nothing of the signature.
    pub fn self_issued(&self) -> bool {
        self.subject_der == self.issuer_der
    }
}

/// The purpose that a server certificate needs (RFC 5280 section 4.2.1.12).
pub const SERVER_AUTH: &str = "serverAuth";

/// The extensions that webpki 0.103 processes; it refuses a certificate with any other that is critical.
const VERIFIER_KNOWS: [Oid<'static>; 6] =
    [oid!(2.5.29.15), oid!(2.5.29.17), oid!(2.5.29.19), oid!(2.5.29.30), oid!(2.5.29.31), oid!(2.5.29.37)];

/// keyUsage, subjectAltName, basicConstraints, extendedKeyUsage.
const CHECKS_NEED: [Oid<'static>; 4] = [oid!(2.5.29.15), oid!(2.5.29.17), oid!(2.5.29.19), oid!(2.5.29.37)];

fn key(spki: &SubjectPublicKeyInfo<'_>) -> Key {
    let oid = dotted(&spki.algorithm.algorithm);
    match (oid.as_str(), spki.parsed()) {
        ("1.2.840.10045.2.1", _) => {
            // Explicit parameters are a SEQUENCE.
            let named = spki.algorithm.parameters.as_ref().filter(|p| p.tag() == Tag::Oid);
            let curve = named.and_then(|p| p.as_oid().ok());
            match curve.map(|oid| dotted(&oid)).as_deref() {
                Some("1.2.840.10045.3.1.7") => Key::Curve("P-256".into(), true),
                Some("1.3.132.0.34") => Key::Curve("P-384".into(), true),
                Some("1.3.132.0.35") => Key::Curve("P-521".into(), true),
                Some(other) => Key::Curve(oid::name(other).unwrap_or(&format!("curve {other}")).to_owned(), false),
                None => Key::Curve("explicit curve".into(), false),
            }
        }
        ("1.3.101.112", _) => Key::Curve("Ed25519".into(), true),
        (_, Ok(PublicKey::RSA(rsa))) => Key::Rsa(bits(rsa.modulus)),
        _ => Key::Other(oid),
    }
}

/// Dotted decimal, where it is short enough for people.
fn dotted(oid: &Oid<'_>) -> String {
    escape(&oid.to_id_string())
}

fn bits(modulus: &[u8]) -> usize {
    let significant = modulus.iter().skip_while(|byte| **byte == 0);
    let mut significant = significant.peekable();
    let lead = significant.peek().map_or(0, |byte| byte.leading_zeros() as usize);
    (significant.count() * 8).saturating_sub(lead)
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_without_the_parsers_forms() {
        for (der, why) in [
            (&b""[..], "it is not X.509: it or a part of it ends too early"),
            (&[0x30, 0x82, 1, 0], "it is not X.509: it is not well-formed DER"),
            (b"junk", "it is not X.509: it is not well-formed DER"),
            (&[0x30, 0], "it is not X.509: it or a part of it ends too early"),
        ] {
            let said = Certificate::read(&CertificateDer::from(der)).facts.unwrap_err();
            assert_eq!(said, why, "{der:?}");
        }
    }

    #[test]
    fn modulus_bits() {
        assert_eq!(bits(&[0, 0x80, 0]), 16);
        assert_eq!(bits(&[1, 0]), 9);
        assert_eq!(bits(&[]), 0);
    }

    #[test]
    fn a_long_oid_is_cut() {
        assert_eq!(dotted(&oid!(2.5.29.17)), "2.5.29.17");
        assert!(dotted(&Oid::new(vec![0x2b; 10_000].into())).len() < 400);
    }

    #[test]
    fn garbage_is_kept_with_its_fingerprint() {
        let cert = Certificate::read(&CertificateDer::from(vec![0x30, 0x82, 1]));
        assert!(cert.facts.is_err());
        assert_eq!(cert.sha256.len(), 64);
    }
}
