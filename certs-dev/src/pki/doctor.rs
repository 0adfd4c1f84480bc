//! Certificates that the library declines to make, by surgery on ones that it has made.
//!
//! `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm, signatureValue }`
//! ([RFC 5280](https://www.rfc-editor.org/rfc/rfc5280), section 4.1). Where the first part is
//! changed, it is signed again by the right authority, so that nothing else is wrong with it.

use rustls_pki_types::CertificateDer;

use super::authority::Authority;
use crate::der::{self, Element};
use crate::error::Error;
use crate::rsa::{Hash, Key};

/// Turns over the last bit of the signature, which stays well-formed.
pub(crate) fn flip_signature_bit(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    let mut der = certificate.to_vec();
    if let Some(last) = der.last_mut() {
        *last ^= 1;
    }
    der.into()
}

/// Keeps the first half.
pub(crate) fn truncate(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    certificate[..certificate.len() / 2].to_vec().into()
}

/// Takes away what makes it version 3: the version's number and all extensions.
pub(crate) fn as_version_1(
    certificate: &CertificateDer<'_>,
    authority: &Authority,
) -> Result<CertificateDer<'static>, Error> {
    let (tbs, algorithm) = parts(certificate)?;
    let kept: Vec<&[u8]> = tbs
        .iter()
        .filter(|field| ![der::VERSION, der::EXTENSIONS].contains(&field.tag))
        .map(|field| field.whole)
        .collect();
    let tbs = der::write(der::SEQUENCE, &kept);
    let signature = authority.sign(&tbs)?;
    Ok(assemble(&tbs, algorithm.whole, &signature))
}

/// Signs with SHA-1; the authority's key is RSA.
pub(crate) fn with_sha1_signature(
    certificate: &CertificateDer<'_>,
    authority: &Authority,
) -> Result<CertificateDer<'static>, Error> {
    let (tbs, algorithm) = parts(certificate)?;
    let changed: Vec<&[u8]> =
        tbs.iter().map(|field| if field.whole == algorithm.whole { SHA1_WITH_RSA } else { field.whole }).collect();
    let tbs = der::write(der::SEQUENCE, &changed);
    let signature = Key::from_pkcs8(authority.key_der())?.sign_pkcs1(Hash::Sha1, &tbs);
    Ok(assemble(&tbs, SHA1_WITH_RSA, &signature))
}

/// The fields to be signed, and the algorithm, which stands among them a first time.
fn parts<'a>(certificate: &'a CertificateDer<'_>) -> Result<(Vec<Element<'a>>, Element<'a>), Error> {
    let outer = Element::read(certificate)?.inside(der::SEQUENCE)?;
    let [tbs, algorithm, _signature] = outer.as_slice() else {
        return Err(Error::Der("a certificate without three parts"));
    };
    Ok((tbs.inside(der::SEQUENCE)?, *algorithm))
}

fn assemble(tbs: &[u8], algorithm: &[u8], signature: &[u8]) -> CertificateDer<'static> {
    let signature = der::write(der::BIT_STRING, &[&[0], signature]);
    der::write(der::SEQUENCE, &[tbs, algorithm, &signature]).into()
}

/// `sha1WithRSAEncryption` with a NULL (RFC 3279, section 2.2.1).
const SHA1_WITH_RSA: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05\x05\x00";
