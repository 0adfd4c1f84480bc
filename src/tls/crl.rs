//! Revocation lists (RFC 5280 section 5), chosen so that webpki cannot take the wrong one.
//!
//! webpki picks the first list that bears an issuer's name and covers the certificate's scope. So only
//! one list per issuer name, issuer key and scope is kept, the newest that is not from the future, and
//! newer lists come first: nothing older can hide a revocation. Two keys under one name leave webpki with
//! the newer list, whose signature then fails for the other key: a refusal, never a hole.

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
    /// The issuingDistributionPoint extension as it stands: which certificates the list covers.
    scope: Option<Vec<u8>>,
    this_update: OffsetDateTime,
    list: OwnedCertRevocationList,
}

impl Candidate {
    /// Of the same issuer, as far as can be told, and for the same certificates.
    fn is_twin_of(&self, other: &Self) -> bool {
        let same_key = match (&self.authority_key, &other.authority_key) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        self.issuer == other.issuer && self.scope == other.scope && same_key
    }
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
                let twin = kept.iter_mut().find(|known| known.is_twin_of(&candidate));
                match twin {
                    Some(known) if known.this_update < candidate.this_update => *known = candidate,
                    Some(_) => skipped.push(format!("{name}: an older list of the same issuer is not used")),
                    None => kept.push(candidate),
                }
            }
        }
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.this_update));
        let (issuers, lists) = kept.into_iter().map(|kept| (kept.issuer, kept.list.into())).unzip();
        Ok(Self { lists, issuers, skipped })
    }

    /// As webpki takes them.
    pub fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.lists.iter().collect()
    }

    /// Whether a list of this issuer holds this serial number, both as DER has them.
    pub fn lists_serial(&self, issuer: &[u8], serial: &[u8]) -> bool {
        let of_issuer = self.issuers.iter().zip(&self.lists).filter(|(name, _)| *name == issuer);
        // A list that cannot be searched may hold it.
        of_issuer.into_iter().any(|(_, list)| !matches!(list.find_serial(serial), Ok(None)))
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
    let (mut authority_key, mut scope) = (None, None);
    for extension in parsed.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                authority_key = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::IssuingDistributionPoint(_) => scope = Some(extension.value.to_vec()),
            _ => {}
        }
    }
    Ok(Candidate {
        issuer: parsed.issuer().as_raw().to_vec(),
        authority_key,
        scope,
        this_update: parsed.last_update().to_datetime(),
        list,
    })
}
