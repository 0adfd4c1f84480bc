//! Certificate revocation lists (RFC 5280 section 5) as data: loading them from files, and what each of them covers.
//! [`super::revocation`] decides by them.
//!
//! Complete lists of version 1 and 2 are read. A version 1 list has no extensions, so it is neither a delta list nor
//! indirect nor partitioned: its scope is all certificates of its issuer, and nothing in RFC 5280 section 6.3.3 needs
//! the CRL number of a complete list. OpenSSL and Go read them, too. Indirect, delta and reason-partitioned lists are refused
//! when they are loaded, and so is a list whose scope is not understood in full.

use std::{collections::BTreeMap, fmt, sync::OnceLock};

use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{DistributionPointName, GeneralName, ParsedExtension},
    prelude::FromDer,
};

use crate::clock::rfc3339;

use super::{
    pem::{self, Binary, Cause, Wanted},
    presented::{Certificate, Facts},
};

mod read;

/// Why a list is refused: a sentence each, with the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrlError {
    /// The file holds something else, or cannot be read.
    Unreadable(String),
    /// A list of a kind that is not supported: indirect, delta, or for some reasons only.
    Unusable(String),
}

impl fmt::Display for CrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Unreadable(why) | Self::Unusable(why)) = self;
        f.write_str(why)
    }
}

impl std::error::Error for CrlError {}

/// The configured revocation lists.
#[derive(Debug, Default)]
pub struct Crls {
    pub(super) lists: Vec<List>,
    /// What is odd about the files and lists, a sentence each.
    pub warnings: Vec<String>,
    /// The dates of each list.
    pub dates: Vec<CrlDates>,
}

/// The dates of a revocation list (RFC 5280 sections 5.1.2.4 and 5.1.2.5).
#[derive(Clone, Debug)]
pub struct CrlDates {
    /// The name of its file, for messages.
    pub file: String,
    pub issuer: String,
    pub this_update: OffsetDateTime,
    pub next_update: OffsetDateTime,
}

/// A revocation list.
pub(super) struct List {
    /// tbsCertList, as it was signed.
    pub(super) signed: Vec<u8>,
    pub(super) signature: Vec<u8>,
    /// The contents of the AlgorithmIdentifier that it was signed with.
    pub(super) algorithm: Vec<u8>,
    pub(super) issuer: Vec<u8>,
    issuer_name: String,
    authority_key: Option<Vec<u8>>,
    pub(super) scope: Scope,
    pub(super) this_update: OffsetDateTime,
    pub(super) next_update: OffsetDateTime,
    /// By serial number, as the contents of its INTEGER.
    pub(super) revoked: BTreeMap<Vec<u8>, Revocation>,
    /// A key (subjectPublicKeyInfo) that is known to have signed the list, and one that is known not to have.
    pub(super) signed_by: OnceLock<Vec<u8>>,
    pub(super) not_signed_by: OnceLock<Vec<u8>>,
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({}, {})", self.issuer_name, self.this_update)
    }
}

/// An entry of a list.
pub(super) struct Revocation {
    pub(super) date: OffsetDateTime,
    /// In words, if it says more than "unspecified".
    pub(super) reason: Option<&'static str>,
}

/// Which certificates of its issuer a list covers (section 5.2.5).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scope {
    kind: Covered,
    /// The names of the distribution point; empty if the list is for all of them.
    names: Vec<PointName>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Covered {
    #[default]
    All,
    Authorities,
    EndEntities,
    /// End entities and authorities exclude each other (section 5.2.5 allows one of the two at most).
    Nothing,
}

#[derive(Debug, PartialEq, Eq)]
enum PointName {
    Directory(Vec<u8>),
    /// A name of another type, which never equals another.
    Other,
    Uri(String),
}

impl Crls {
    /// Reads PEM or DER files, each with its name for messages.
    ///
    /// # Errors
    /// [`CrlError`], if a file holds no list or one that cannot be used.
    pub fn load(files: &[(String, Vec<u8>)], now: OffsetDateTime) -> Result<Self, CrlError> {
        let mut all = Self::default();
        for (name, bytes) in files {
            for der in all.lists_of(name, bytes)? {
                let list = List::read(&der).map_err(|refused| refused.of_file(name))?;
                let is_same = |known: &List| known.signed == list.signed && known.signature == list.signature;
                if !all.lists.iter().any(is_same) {
                    all.add(name, list, now);
                }
            }
        }
        Ok(all)
    }

    /// The lists of a file as DER. Blocks of another kind are passed over with a warning.
    fn lists_of(&mut self, file: &str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CrlError> {
        let unreadable = |why: String| CrlError::Unreadable(format!("`{file}`: {why}"));
        let mut lists = Vec::new();
        for block in pem::blocks(bytes) {
            let block = match block {
                Ok(block) => block,
                Err(error) if matches!(error.cause, Cause::Binary(Binary::Crl | Binary::Other)) => {
                    return Ok(vec![bytes.to_vec()]);
                }
                Err(error) => return Err(unreadable(error.sentence(file, Wanted::Crls))),
            };
            let (label, line) = (&block.label, block.line);
            if label == pem::X509_CRL {
                lists.push(block.der);
            } else if NO_LISTS.contains(&&**label) {
                self.warnings.push(format!("`{file}`, line {line}: the block `{label}` is no revocation list"));
            } else {
                let remedy = pem::remedy(label, file).map(|remedy| format!("\nhint: {remedy}"));
                let why = format!("line {line}: a block `{label}` is not understood here");
                return Err(unreadable(why + &remedy.unwrap_or_default()));
            }
        }
        if lists.is_empty() {
            return Err(unreadable(format!("no X509 CRL block in it{EXPECTED}")));
        }
        Ok(lists)
    }

    fn add(&mut self, file: &str, list: List, now: OffsetDateTime) {
        let issuer = &list.issuer_name;
        if list.this_update > now {
            let from = rfc3339(list.this_update);
            self.warnings.push(format!(
                "`{file}`: the list of `{issuer}` begins in the future ({from}) and does not count before"
            ));
        } else if list.next_update < now {
            self.warnings.push(format!("`{file}`: the list of `{issuer}` is out of date"));
        } else if self.lists.iter().any(|other| other.replaces(&list, now)) {
            self.warnings.push(format!("`{file}`: there is a newer list of `{issuer}`, which counts"));
        }
        self.dates.push(CrlDates {
            file: file.to_owned(),
            issuer: issuer.clone(),
            this_update: list.this_update,
            next_update: list.next_update,
        });
        self.lists.push(list);
    }

    /// Whether there is no list at all.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// The number of lists.
    pub fn count(&self) -> usize {
        self.lists.len()
    }
}

/// Labels of blocks that hold no list, for sure. Any other block might.
const NO_LISTS: [&str; 8] = [
    pem::CERTIFICATE,
    "TRUSTED CERTIFICATE",
    "X509 CERTIFICATE",
    "CERTIFICATE REQUEST",
    "PRIVATE KEY",
    "RSA PRIVATE KEY",
    "EC PRIVATE KEY",
    "ENCRYPTED PRIVATE KEY",
];

/// What a file of lists should be.
const EXPECTED: &str = "\nhint: it should hold X509 CRL blocks (PEM), or one list as DER";

impl List {
    /// Whether it is newer than another list, not from the future, and for the same certificates of the same issuer,
    /// as far as can be told.
    pub(super) fn replaces(&self, other: &Self, now: OffsetDateTime) -> bool {
        let same_key = match (&self.authority_key, &other.authority_key) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        let newer = self.this_update > other.this_update && self.this_update <= now;
        newer && same_key && self.issuer == other.issuer && self.scope.is(&other.scope)
    }

    /// Whether it says itself that another key of that name signed it.
    pub(super) fn is_of_other_key(&self, issuer: &Facts) -> bool {
        matches!((&self.authority_key, &issuer.key_id), (Some(named), Some(has)) if named != has)
    }
}

impl Scope {
    /// Whether this covers the same as another, for sure.
    fn is(&self, other: &Self) -> bool {
        self == other && !self.names.contains(&PointName::Other)
    }

    /// Whether the list is for this certificate (section 6.3.3, b.2).
    pub(super) fn covers(&self, child: &Certificate, facts: &Facts) -> bool {
        let is_authority = facts.is_ca == Some(true);
        let kind = match self.kind {
            Covered::All => true,
            Covered::Authorities => is_authority,
            Covered::EndEntities => !is_authority,
            Covered::Nothing => false,
        };
        kind && (self.names.is_empty() || self.is_named_by(child))
    }

    /// Whether the certificate points to this list (section 6.3.3, b.2.i). Points for some reasons only, and
    /// of other issuers, are passed over.
    fn is_named_by(&self, child: &Certificate) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(&child.der) else { return false };
        let points = parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::CRLDistributionPoints(points) => Some(points),
            _ => None,
        });
        let whole = points.into_iter().flat_map(|points| points.iter());
        let whole = whole.filter(|point| point.reasons.is_none() && point.crl_issuer.is_none());
        let names = whole.filter_map(|point| match point.distribution_point.as_ref()? {
            DistributionPointName::FullName(names) => Some(names),
            DistributionPointName::NameRelativeToCRLIssuer(_) => None,
        });
        let mut names = names.flatten().map(PointName::of);
        names.any(|name| name != PointName::Other && self.names.contains(&name))
    }
}

impl PointName {
    fn of(name: &GeneralName<'_>) -> Self {
        match name {
            GeneralName::DirectoryName(name) => Self::Directory(name.as_raw().to_vec()),
            GeneralName::URI(uri) => Self::Uri((*uri).to_owned()),
            _ => Self::Other,
        }
    }
}
