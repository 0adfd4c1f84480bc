//! Revocation lists (RFC 5280 section 5): which of them speak for a certificate, and what they say.
//!
//! webpki 0.103 takes the first list that bears an issuer's name, of whatever age and key. So it is given
//! none, and the question is put here for each certificate of a path that it found, with these rules:
//! - a list counts for an issuer whose name it bears and whose key signed it, with cRLSign where the issuer
//!   has a keyUsage; another key under the same name may have signed it where its certificate was issued by that
//!   issuer or one above it (section 6.3.3 f), and else the list is another issuer's;
//! - of lists by one key with the same scope the newest counts that is not from the future;
//! - a serial number on any list of its issuer is revoked, whatever the scope;
//! - a list past its nextUpdate, and a certificate that no list covers, are the [`CrlPolicy`]'s to judge.
//!
//! Indirect, delta and reason-partitioned lists are refused when they are loaded, and so is one whose scope was not
//! read whole.

use std::{fmt, str::FromStr, sync::OnceLock};

use rustls_pki_types::{
    CertificateRevocationListDer,
    pem::{PemObject, SectionKind},
};
use time::OffsetDateTime;
use webpki::{CertRevocationList, OwnedCertRevocationList, RevocationReason};
use x509_parser::{
    asn1_rs::{Oid, oid},
    certificate::X509Certificate,
    extensions::{DistributionPointName, GeneralName, IssuingDistributionPoint, ParsedExtension},
    prelude::FromDer,
    revocation_list::CertificateRevocationList,
};

use crate::clock::{distance, rfc3339};

use super::{
    checks::certificate_label,
    failure::{Code, Finding, Link},
    malformed::malformation,
    presented::{Certificate, Facts, escape},
    signature::{self, Algorithms, Signature},
    trust::not_pem,
};

/// What to do where the lists do not say that a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrlPolicy {
    /// Where no list covers a certificate.
    pub unknown: Leniency,
    /// Where the list that covers it is past its nextUpdate. What is on it stays revoked.
    pub expired: Leniency,
}

impl Default for CrlPolicy {
    fn default() -> Self {
        Self { unknown: Leniency::Tolerate, expired: Leniency::Refuse }
    }
}

impl CrlPolicy {
    /// This policy but for one rule.
    #[must_use]
    pub fn with(mut self, rule: CrlRule) -> Self {
        match rule {
            CrlRule::Expired(leniency) => self.expired = leniency,
            CrlRule::Unknown(leniency) => self.unknown = leniency,
        }
        self
    }
}

/// Refuse or tolerate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leniency {
    /// The certificate is refused.
    Refuse,
    /// As if no list were there.
    Tolerate,
}

/// One rule of a [`CrlPolicy`]: `unknown=refuse`, `expired=tolerate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrlRule {
    /// For lists past their nextUpdate.
    Expired(Leniency),
    /// For certificates that no list covers.
    Unknown(Leniency),
}

impl FromStr for CrlRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rule, leniency) = text.split_once('=').unwrap_or((text, ""));
        let leniency = match leniency {
            "refuse" => Leniency::Refuse,
            "tolerate" => Leniency::Tolerate,
            _ => return Err("write `unknown=` or `expired=`, and `refuse` or `tolerate` behind it".into()),
        };
        match rule {
            "expired" => Ok(Self::Expired(leniency)),
            "unknown" => Ok(Self::Unknown(leniency)),
            _ => Err(format!("there is no rule `{}`; the rules are `unknown` and `expired`", escape(rule))),
        }
    }
}

/// Why a list cannot be had: a sentence each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrlError {
    /// What is there is no list.
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

/// The revocation lists in force.
#[derive(Debug, Default)]
pub struct Crls {
    lists: Vec<List>,
    /// What is odd about some lists, a sentence each.
    pub warnings: Vec<String>,
}

struct List {
    der: Vec<u8>,
    searched: CertRevocationList<'static>,
    issuer: Vec<u8>,
    issuer_name: String,
    authority_key: Option<Vec<u8>>,
    scope: Scope,
    this_update: OffsetDateTime,
    next_update: Option<OffsetDateTime>,
    /// The keys that are known to have signed it, and not to, as subjectPublicKeyInfo: large lists take long to hash.
    signed_by: OnceLock<Vec<u8>>,
    not_signed_by: OnceLock<Vec<u8>>,
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "List({}, {})", self.issuer_name, self.this_update)
    }
}

/// Which certificates of its issuer a list covers (section 5.2.5).
#[derive(Debug, Default, PartialEq, Eq)]
struct Scope {
    kind: Covered,
    /// Names of the distribution point; none where the list is for all of them.
    names: Vec<PointName>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Covered {
    #[default]
    All,
    Authorities,
    EndEntities,
    /// Attribute certificates, which are none of ours; or a contradiction.
    None,
}

#[derive(Debug, PartialEq, Eq)]
enum PointName {
    Directory(Vec<u8>),
    /// What it is is not known, so it is never taken for another's.
    Other,
    Uri(String),
}

/// By what a path is asked about.
#[derive(Clone, Copy, Debug)]
pub struct RevocationContext<'a> {
    /// The moment of the verification.
    pub now: OffsetDateTime,
    /// What to do if the lists do not say that a certificate is good.
    pub policy: CrlPolicy,
    /// The certificates of the bundle, among which other keys of an issuer may be.
    pub bundle: &'a [Certificate],
    /// Those that were sent, likewise.
    pub presented: &'a [Certificate],
}

/// A certificate of a path with its issuer.
#[derive(Clone, Copy, Debug)]
struct IssuedLink<'a> {
    child: Link<'a>,
    issuer: Link<'a>,
    /// The issuer and all above it.
    above: &'a [Link<'a>],
}

impl Crls {
    /// Reads PEM or DER files, each with its name for messages.
    ///
    /// # Errors
    /// [`CrlError`], where a file holds no list or one that cannot be used.
    pub fn load(files: &[(String, Vec<u8>)], now: OffsetDateTime) -> Result<Self, CrlError> {
        let mut all = Self::default();
        for (name, bytes) in files {
            for der in sections(name, bytes).map_err(CrlError::Unreadable)? {
                if all.lists.iter().any(|known| known.der == der.as_ref()) {
                    continue;
                }
                let list = List::read(name, &der)?;
                if list.this_update > now {
                    let from = rfc3339(list.this_update);
                    all.warnings.push(format!(
                        "`{name}`: the list of `{}` begins in the future ({from}) and does not count before",
                        list.issuer_name
                    ));
                } else if list.next_update.is_some_and(|next| next < now) {
                    all.warnings.push(format!("`{name}`: the list of `{}` is out of date", list.issuer_name));
                } else if all.lists.iter().any(|other| other.replaces(&list, now)) {
                    all.warnings
                        .push(format!("`{name}`: there is a newer list of `{}`, which counts", list.issuer_name));
                }
                all.lists.push(list);
            }
        }
        Ok(all)
    }

    /// Whether there is no list at all.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lists.len()
    }

    /// Whether any list with the name of this certificate's issuer holds its serial number, whoever signed
    /// it: for certificates that are believed without a path.
    pub fn names(&self, facts: &Facts) -> bool {
        let of_issuer = self.lists.iter().filter(|list| list.issuer == facts.issuer_der);
        // A list that cannot be searched may hold it.
        of_issuer.into_iter().any(|list| !matches!(list.searched.find_serial(&facts.serial_der), Ok(None)))
    }

    /// What the lists say of the certificates of a path, the server's own first and the anchor last: until when the
    /// answer holds, and a finding for each certificate that has one, revocations first.
    pub fn check(
        &self,
        context: &RevocationContext<'_>,
        path: &[Link<'_>],
        algorithms: Algorithms<'_>,
    ) -> (Option<OffsetDateTime>, Vec<Finding>) {
        let (mut until, mut findings) = (None, Vec::new());
        if self.is_empty() {
            return (until, findings);
        }
        for (place, pair) in path.windows(2).enumerate() {
            let link = IssuedLink { child: pair[0], issuer: pair[1], above: &path[place + 1..] };
            match self.check_one(context, link, algorithms) {
                Ok(answer) => until = [until, answer].into_iter().flatten().min(),
                Err(finding) => findings.push(finding),
            }
        }
        findings.sort_by_key(|finding| finding.code != Code::Revoked);
        (until, findings)
    }

    fn check_one(
        &self,
        context: &RevocationContext<'_>,
        link: IssuedLink<'_>,
        algorithms: Algorithms<'_>,
    ) -> Result<Option<OffsetDateTime>, Finding> {
        let (Ok(child), Ok(issuer)) = (&link.child.0.facts, &link.issuer.0.facts) else { return Ok(None) };
        let (now, policy) = (context.now, context.policy);
        // An anchor's name may be spelt otherwise than its children and its lists have it.
        let bears_name = |list: &List| list.issuer == issuer.subject_der || list.issuer == child.issuer_der;
        let named = self.lists.iter().filter(|list| bears_name(list) && list.this_update <= now);
        // Each with who signed it: of another key's list nothing follows for this one's.
        let mut signed: Vec<(&List, &Facts)> = Vec::new();
        let (mut unsigned, mut others) = (false, None);
        for list in named {
            let mut another = || {
                let others = others.get_or_insert_with(|| self.other_signers(context, link, issuer, algorithms));
                others.iter().copied().find(|other| list.is_signed_by(other, algorithms))
            };
            match list.is_signed_by(issuer, algorithms).then_some(issuer).or_else(&mut another) {
                Some(signer) => signed.push((list, signer)),
                None => unsigned |= !list.is_of_other_key(issuer),
            }
        }
        let counts = |(list, by): &&(&List, &Facts)| {
            !signed.iter().any(|(other, its)| its.spki == by.spki && other.replaces(list, now))
        };
        let newest: Vec<_> = signed.iter().filter(counts).copied().collect();
        if let Some(finding) = newest.iter().find_map(|(list, _)| list.revoked(link, child, issuer)) {
            return Err(finding);
        }
        if newest.iter().any(|(_, signer)| signer.may_sign_crls == Some(false)) {
            return Err(invalid(link, issuer, "is not for it to sign: its keyUsage lacks cRLSign"));
        }
        if unsigned && signed.is_empty() {
            return Err(invalid(link, issuer, "was not signed by that CA's key"));
        }
        let covering = newest.into_iter().filter(|(list, _)| list.scope.covers(link.child.0, child));
        let until = covering.filter_map(|(list, _)| list.next_update).max();
        match (until, policy) {
            (None, CrlPolicy { unknown: Leniency::Refuse, .. }) => Err(unknown(link, child, issuer)),
            (Some(until), CrlPolicy { expired: Leniency::Refuse, .. }) if until < now => {
                Err(expired(link, issuer, until, now))
            }
            (Some(until), CrlPolicy { expired: Leniency::Refuse, .. }) => Ok(Some(until)),
            (None | Some(_), _) => Ok(None),
        }
    }

    /// Other keys under the issuer's name that may sign its lists: their certificates are in the bundle or were
    /// presented, are valid and on no list, and were signed by the issuer or one above it. Never by one below: who was
    /// revoked could make its own.
    fn other_signers<'a>(
        &self,
        context: &RevocationContext<'a>,
        link: IssuedLink<'_>,
        issuer: &Facts,
        algorithms: Algorithms<'_>,
    ) -> Vec<&'a Facts> {
        let above = || link.above.iter().filter_map(|(above, _)| above.facts.as_ref().ok());
        let may_be = |facts: &&Facts| {
            facts.subject_der == issuer.subject_der
                && facts.spki != issuer.spki
                && (facts.not_before..=facts.not_after).contains(&context.now)
                && facts.may_sign_crls != Some(false)
                && !self.names(facts)
                && above().any(|above| above.subject_der == facts.issuer_der)
        };
        let readable = |certificate: &'a Certificate| Some((certificate, certificate.facts.as_ref().ok()?));
        let of_bundle = context.bundle.iter().filter_map(readable);
        // A hostile server may send many; each costs a signature.
        let sent = context.presented.iter().filter_map(readable).filter(|(_, facts)| may_be(facts)).take(MOST_SIGNERS);
        let known = of_bundle.filter(|(_, facts)| may_be(facts)).chain(sent);
        let attested = known.filter(|(other, facts)| {
            let mut issuers = above().filter(|above| above.subject_der == facts.issuer_der);
            issuers.any(|above| certificate_signature_holds(&other.der, above, algorithms))
        });
        attested.map(|(_, facts)| facts).collect()
    }
}

/// So many presented certificates under an issuer's name are looked at.
const MOST_SIGNERS: usize = 8;

fn invalid(link: IssuedLink<'_>, issuer: &Facts, what: &str) -> Finding {
    let sentence = format!("the revocation list of `{}` cannot be used: it {what}", issuer.subject);
    Finding { code: Code::CrlInvalid, subject: link.issuer.1, sentence }
}

fn unknown(link: IssuedLink<'_>, child: &Facts, issuer: &Facts) -> Finding {
    let what = certificate_label(link.child.1);
    let sentence = format!("no revocation list of `{}` covers {what} `{}`", issuer.subject, child.subject);
    Finding { code: Code::RevocationUnknown, subject: link.child.1, sentence }
}

fn expired(link: IssuedLink<'_>, issuer: &Facts, until: OffsetDateTime, now: OffsetDateTime) -> Finding {
    let ago = distance((now - until).whole_seconds());
    let sentence =
        format!("the revocation list of `{}` is out of date since {} ({ago} ago)", issuer.subject, rfc3339(until));
    Finding { code: Code::CrlExpired, subject: link.issuer.1, sentence }
}

impl List {
    fn read(name: &str, der: &[u8]) -> Result<Self, CrlError> {
        let (_, parsed) = CertificateRevocationList::from_der(der).map_err(|error| {
            CrlError::Unreadable(format!("`{name}`: not a revocation list: {}{KIND}", escape(&error.to_string())))
        })?;
        let cannot_be_used = |why: String| {
            let issuer = escape(&parsed.issuer().to_string());
            CrlError::Unusable(format!("`{name}`: the revocation list of `{issuer}` cannot be used: {why}"))
        };
        let searched = OwnedCertRevocationList::from_der(der).map_err(|error| cannot_be_used(unusable(&error)))?;
        let (mut authority_key, mut scope) = (None, Some(Scope::default()));
        for extension in parsed.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    authority_key = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                ParsedExtension::IssuingDistributionPoint(point) => scope = Scope::of(point),
                ParsedExtension::ParseError { .. } if extension.oid == ISSUING_DISTRIBUTION_POINT => scope = None,
                _ => {}
            }
        }
        let scope =
            scope.ok_or_else(|| cannot_be_used(unusable(&webpki::Error::UnsupportedCrlIssuingDistributionPoint)))?;
        Ok(Self {
            issuer: parsed.issuer().as_raw().to_vec(),
            issuer_name: escape(&parsed.issuer().to_string()),
            authority_key,
            scope,
            this_update: parsed.last_update().to_datetime(),
            next_update: parsed.next_update().map(|next| next.to_datetime()),
            signed_by: OnceLock::new(),
            not_signed_by: OnceLock::new(),
            der: der.to_vec(),
            searched: searched.into(),
        })
    }

    /// Newer, not from the future, and for the same certificates of the same issuer, as far as can be told.
    fn replaces(&self, other: &Self, now: OffsetDateTime) -> bool {
        let same_key = match (&self.authority_key, &other.authority_key) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        let newer = self.this_update > other.this_update && self.this_update <= now;
        newer && same_key && self.issuer == other.issuer && self.scope.is(&other.scope)
    }

    /// Says of itself that another key of that name signed it.
    fn is_of_other_key(&self, issuer: &Facts) -> bool {
        matches!((&self.authority_key, &issuer.key_id), (Some(named), Some(has)) if named != has)
    }

    fn is_signed_by(&self, issuer: &Facts, algorithms: Algorithms<'_>) -> bool {
        for (known, answer) in [(&self.signed_by, true), (&self.not_signed_by, false)] {
            if known.get().is_some_and(|known| *known == issuer.spki) {
                return answer;
            }
        }
        let good = list_signature_holds(&self.der, issuer, algorithms);
        // Of several keys the first is remembered, and the others asked anew.
        let _ = if good { &self.signed_by } else { &self.not_signed_by }.set(issuer.spki.clone());
        good
    }

    fn revoked(&self, link: IssuedLink<'_>, child: &Facts, issuer: &Facts) -> Option<Finding> {
        let how = match self.searched.find_serial(&child.serial_der) {
            Ok(None) => return None,
            Ok(Some(entry)) => {
                let on = OffsetDateTime::from_unix_timestamp(entry.revocation_date.as_secs().cast_signed());
                let on = on.map(|on| format!(" on {}", rfc3339(on))).unwrap_or_default();
                let reason = entry.reason_code.and_then(reason).map(|why| format!(" ({why})")).unwrap_or_default();
                format!("was revoked by `{}`{on}{reason}", issuer.subject)
            }
            Err(_) => format!("may be on the revocation list of `{}`, which cannot be searched", issuer.subject),
        };
        let sentence = format!("{} `{}` {how}", certificate_label(link.child.1), child.subject);
        Some(Finding { code: Code::Revoked, subject: link.child.1, sentence })
    }
}

const ISSUING_DISTRIBUTION_POINT: Oid<'static> = oid!(2.5.29.28);

/// What kind of list it is that cannot be used.
fn unusable(error: &webpki::Error) -> String {
    use webpki::Error as E;
    match error {
        E::UnsupportedDeltaCrl => "it is a delta list; give the complete one".into(),
        E::UnsupportedIndirectCrl => "it is an indirect list, which speaks for other issuers".into(),
        E::UnsupportedRevocationReasonsPartitioning => "it is for some reasons of revocation only".into(),
        E::UnsupportedCrlIssuingDistributionPoint => "its issuing distribution point is not understood".into(),
        E::UnsupportedCriticalExtension => "it has a critical extension that is not understood".into(),
        E::UnsupportedCrlVersion => "it is not of version 2".into(),
        other => malformation(other),
    }
}

fn reason(code: RevocationReason) -> Option<&'static str> {
    Some(match code {
        RevocationReason::AaCompromise => "attribute authority compromised",
        RevocationReason::AffiliationChanged => "affiliation changed",
        RevocationReason::CaCompromise => "CA compromised",
        RevocationReason::CertificateHold => "on hold",
        RevocationReason::CessationOfOperation => "no longer in use",
        RevocationReason::KeyCompromise => "key compromised",
        RevocationReason::PrivilegeWithdrawn => "privilege withdrawn",
        RevocationReason::Superseded => "superseded",
        RevocationReason::RemoveFromCrl | RevocationReason::Unspecified => return None,
    })
}

fn list_signature_holds(der: &[u8], signer: &Facts, algorithms: Algorithms<'_>) -> bool {
    let Ok((_, list)) = CertificateRevocationList::from_der(der) else { return false };
    let signed = (list.tbs_cert_list.as_ref(), list.signature_value.as_ref());
    signature::check(signed, &list.signature_algorithm, signer, algorithms) == Signature::Holds
}

fn certificate_signature_holds(der: &[u8], signer: &Facts, algorithms: Algorithms<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    let signed = (certificate.tbs_certificate.as_ref(), certificate.signature_value.as_ref());
    signature::check(signed, &certificate.signature_algorithm, signer, algorithms) == Signature::Holds
}

impl Scope {
    /// None where it cannot be told: webpki takes no list whose point has no name, so where none was read, a part
    /// was passed over, and the list would be taken for one of all certificates.
    fn of(point: &IssuingDistributionPoint<'_>) -> Option<Self> {
        let kind = match point {
            IssuingDistributionPoint { only_contains_attribute_certs: true, .. }
            | IssuingDistributionPoint { only_contains_ca_certs: true, only_contains_user_certs: true, .. } => {
                Covered::None
            }
            IssuingDistributionPoint { only_contains_ca_certs: true, .. } => Covered::Authorities,
            IssuingDistributionPoint { only_contains_user_certs: true, .. } => Covered::EndEntities,
            _ => Covered::All,
        };
        Some(Self { kind, names: point_names(point.distribution_point.as_ref()?) })
    }

    /// Whether this covers the same as another, for sure.
    fn is(&self, other: &Self) -> bool {
        self == other && !self.names.contains(&PointName::Other)
    }

    fn covers(&self, child: &Certificate, facts: &Facts) -> bool {
        let is_authority = facts.is_ca == Some(true);
        let kind = match self.kind {
            Covered::All => true,
            Covered::Authorities => is_authority,
            Covered::EndEntities => !is_authority,
            Covered::None => false,
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
        let mut names = whole.filter_map(|point| point.distribution_point.as_ref()).flat_map(point_names);
        names.any(|name| name != PointName::Other && self.names.contains(&name))
    }
}

fn point_names(point: &DistributionPointName<'_>) -> Vec<PointName> {
    match point {
        DistributionPointName::FullName(names) => names.iter().map(point_name).collect(),
        DistributionPointName::NameRelativeToCRLIssuer(_) => vec![PointName::Other],
    }
}

fn point_name(name: &GeneralName<'_>) -> PointName {
    match name {
        GeneralName::DirectoryName(name) => PointName::Directory(name.as_raw().to_vec()),
        GeneralName::URI(uri) => PointName::Uri((*uri).to_owned()),
        _ => PointName::Other,
    }
}

/// What a file should be that is none.
const KIND: &str = "\nhint: it should hold X509 CRL blocks (PEM), or one list as DER";

fn sections(name: &str, bytes: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    if !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return Ok(vec![bytes.to_vec().into()]);
    }
    let mut found = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        match section {
            Ok((SectionKind::Crl, der)) => found.push(der.into()),
            Ok(_) => {}
            Err(error) => return Err(format!("`{name}`: not PEM: {}", not_pem(&error))),
        }
    }
    if found.is_empty() {
        return Err(format!("`{name}`: no X509 CRL block in it{KIND}"));
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
