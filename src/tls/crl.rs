//! Revocation lists (RFC 5280 section 5), chosen so that webpki cannot take the wrong one.
//!
//! webpki picks the first list of an issuer's name. So only one list per issuer name and issuer key is
//! kept, the newest that is not from the future; nothing older can hide a revocation.

use std::fmt;

use rustls_pki_types::{
    CertificateRevocationListDer,
    pem::{PemObject, SectionKind},
};
use time::OffsetDateTime;
use webpki::{CertRevocationList, OwnedCertRevocationList};
use x509_parser::{extensions::ParsedExtension, prelude::FromDer, revocation_list::CertificateRevocationList};

use crate::clock::rfc3339;

use super::presented::escape;

/// The revocation lists in force.
#[derive(Default)]
pub struct Crls {
    lists: Vec<CertRevocationList<'static>>,
    issuers: Vec<Vec<u8>>,
    /// Lists passed over, each with the reason.
    pub skipped: Vec<String>,
}

impl fmt::Debug for Crls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crls({})", self.lists.len())
    }
}

struct Candidate {
    issuer: Vec<u8>,
    authority_key: Option<Vec<u8>>,
    this_update: OffsetDateTime,
    list: OwnedCertRevocationList,
}

impl Crls {
    /// Reads PEM or DER files, each with its name for messages.
    ///
    /// # Errors
    /// A sentence, where a file holds no list or one that cannot be used.
    pub fn load(files: &[(String, Vec<u8>)], now: OffsetDateTime) -> Result<Self, String> {
        let mut kept: Vec<Candidate> = Vec::new();
        let mut skipped = Vec::new();
        for (name, bytes) in files {
            for der in sections(name, bytes)? {
                let candidate = read(name, &der)?;
                if candidate.this_update > now {
                    let from = rfc3339(candidate.this_update);
                    skipped.push(format!("{name}: a list that begins in the future ({from}) is not used"));
                    continue;
                }
                let twin = kept
                    .iter_mut()
                    .find(|known| known.issuer == candidate.issuer && known.authority_key == candidate.authority_key);
                match twin {
                    Some(known) if known.this_update < candidate.this_update => *known = candidate,
                    Some(_) => skipped.push(format!("{name}: an older list of the same issuer is not used")),
                    None => kept.push(candidate),
                }
            }
        }
        let (issuers, lists) = kept.into_iter().map(|kept| (kept.issuer, kept.list.into())).unzip();
        Ok(Self { lists, issuers, skipped })
    }

    /// As webpki takes them.
    pub fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.lists.iter().collect()
    }

    /// Whether a list bears this issuer's name, DER.
    pub fn issued_by(&self, subject: &[u8]) -> bool {
        self.issuers.iter().any(|issuer| issuer == subject)
    }
}

fn sections(name: &str, bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return Ok(vec![bytes.to_vec().into()]);
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        match section {
            Ok((SectionKind::Crl, der)) => found.push(der.into()),
            Ok(_) => {}
            Err(error) => return Err(format!("{name}: not PEM: {error}")),
        }
    }
    if found.is_empty() {
        return Err(format!("{name}: no X509 CRL block in it"));
    }
    Ok(found)
}

fn read(name: &str, der: &[u8]) -> Result<Candidate, String> {
    let list = OwnedCertRevocationList::from_der(der)
        .map_err(|error| format!("{name}: this revocation list cannot be used: {error:?}"))?;
    let (_, parsed) = CertificateRevocationList::from_der(der)
        .map_err(|error| format!("{name}: not a revocation list: {}", escape(&error.to_string())))?;
    let authority_key = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0.to_vec()),
        _ => None,
    });
    Ok(Candidate {
        issuer: parsed.issuer().as_raw().to_vec(),
        authority_key,
        this_update: parsed.last_update().to_datetime(),
        list,
    })
}
