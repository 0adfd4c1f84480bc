//! Signatures on certificates and revocation lists, checked with the algorithms that the verifier uses.
//!
//! There are three answers: an algorithm or a key that is not supported means that a signature cannot be checked,
//! which says nothing about whether it holds.

use std::sync::LazyLock;

use rustls::crypto::{WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls_pki_types::SignatureVerificationAlgorithm;
use x509_parser::{
    asn1_rs::{Oid, ToDer},
    certificate::X509Certificate,
    prelude::FromDer,
    x509::{AlgorithmIdentifier, SubjectPublicKeyInfo},
};

use super::presented::{Certificate, Facts, Key};

/// Signature algorithms, as webpki takes them.
pub type Algorithms<'a> = &'a [&'static dyn SignatureVerificationAlgorithm];

/// The algorithms of the verifier.
pub fn algorithms() -> Algorithms<'static> {
    static SUPPORTED: LazyLock<WebPkiSupportedAlgorithms> =
        LazyLock::new(|| aws_lc_rs::default_provider().signature_verification_algorithms);
    SUPPORTED.all
}

/// Whether a signature was made with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// It was.
    Holds,
    /// It was not.
    Broken,
    /// The algorithm or the key is not supported, so nobody here can tell.
    Unchecked,
}

/// Whether the signature on a certificate was made with the key of another.
pub fn signature(certificate: &Certificate, issuer: &Certificate) -> Signature {
    let (Ok(_), Ok(signer)) = (&certificate.facts, &issuer.facts) else { return Signature::Unchecked };
    let Ok((_, parsed)) = X509Certificate::from_der(&certificate.der) else { return Signature::Unchecked };
    let signed = (parsed.tbs_certificate.as_ref(), parsed.signature_value.as_ref());
    match identifier(&parsed.signature_algorithm) {
        Some(signed_with) => check(signed, &signed_with, signer, algorithms()),
        None => Signature::Unchecked,
    }
}

/// The same for bytes, their signature, and the contents of the AlgorithmIdentifier that it names, as DER.
pub fn check(
    (bytes, signature): (&[u8], &[u8]),
    signed_with: &[u8],
    signer: &Facts,
    algorithms: Algorithms<'_>,
) -> Signature {
    let Ok((_, key)) = SubjectPublicKeyInfo::from_der(&signer.spki) else { return Signature::Unchecked };
    let Some(made_for) = identifier(&key.algorithm) else { return Signature::Unchecked };
    let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
        algorithm.signature_alg_id().as_ref() == signed_with && algorithm.public_key_alg_id().as_ref() == made_for
    };
    let mut fitting = algorithms.iter().filter(fits).peekable();
    if fitting.peek().is_none() {
        let (of_signature, of_key) = (family(signed_with), key_family(&signer.key));
        let differ = of_signature.is_some() && of_key.is_some() && of_signature != of_key;
        return if differ { Signature::Broken } else { Signature::Unchecked };
    }
    let key = key.subject_public_key.as_ref();
    if fitting.any(|algorithm| algorithm.verify_signature(key, bytes, signature).is_ok()) {
        return Signature::Holds;
    }
    // The library refuses a key of another length before it looks at the signature.
    match signer.key {
        Key::Rsa(bits) if !(2048..=8192).contains(&bits) => Signature::Unchecked,
        _ => Signature::Broken,
    }
}

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Dsa,
    Ec,
    Ed25519,
    Ed448,
    Rsa,
}

/// The kind of key that makes signatures of this algorithm.
fn family(signed_with: &[u8]) -> Option<Family> {
    let (_, oid) = Oid::from_der(signed_with).ok()?;
    Some(match oid.to_id_string().as_str() {
        oid if oid.starts_with("1.2.840.113549.1.1.") => Family::Rsa,
        oid if oid.starts_with("1.2.840.10045.4.") => Family::Ec,
        "1.3.101.112" => Family::Ed25519,
        "1.3.101.113" => Family::Ed448,
        "1.2.840.10040.4.3" | "2.16.840.1.101.3.4.3.1" | "2.16.840.1.101.3.4.3.2" => Family::Dsa,
        _ => return None,
    })
}

fn key_family(key: &Key) -> Option<Family> {
    Some(match key {
        Key::Rsa(_) => Family::Rsa,
        Key::Curve(name, _) if name == "Ed25519" => Family::Ed25519,
        Key::Curve(..) => Family::Ec,
        Key::Other(oid) if oid == "1.3.101.113" => Family::Ed448,
        Key::Other(oid) if oid == "1.2.840.10040.4.1" => Family::Dsa,
        Key::Other(_) => return None,
    })
}

/// The contents of an AlgorithmIdentifier, as DER.
pub(super) fn identifier(algorithm: &AlgorithmIdentifier<'_>) -> Option<Vec<u8>> {
    let mut der = algorithm.algorithm.to_der_vec().ok()?;
    if let Some(parameters) = &algorithm.parameters {
        der.extend(parameters.to_der_vec().ok()?);
    }
    Some(der)
}
