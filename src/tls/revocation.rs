//! Revocation (RFC 5280 section 6.3): whether the configured lists revoke a certificate of a certification path.
//!
//! webpki 0.103 takes the first list that has an issuer's name, of any age and key. So it is given no lists, and each
//! certificate of a path that webpki found is looked up here, by these rules:
//! - a list counts for an issuer if it has the issuer's name and the issuer's key signed it, with cRLSign where the
//!   issuer has a keyUsage; another key under the same name may have signed it if its certificate was issued by that
//!   issuer or one above it (section 6.3.3 f); otherwise the list is another issuer's;
//! - of the lists by one key with the same scope, the newest that is not from the future counts;
//! - a serial number on any list of its issuer is revoked, whatever the scope;
//! - [`CrlPolicy`] decides about a list past its nextUpdate, and about a certificate that no list covers.

use std::str::FromStr;

use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{
    clock::{distance, rfc3339},
    text::escape,
};

use super::{
    checks::certificate_label,
    crl::{Crls, List},
    failure::{Code, Finding, Link},
    presented::{Certificate, Facts},
    signature::{self, Algorithms, Signature},
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
    /// Whether any list with the name of this certificate's issuer holds its serial number, whoever signed
    /// it: for certificates that are trusted without a path.
    pub fn names(&self, facts: &Facts) -> bool {
        let mut of_issuer = self.lists.iter().filter(|list| list.issuer == facts.issuer_der);
        of_issuer.any(|list| list.revoked.contains_key(&facts.serial_der))
    }

    /// What the lists say of the certificates of a path, the end-entity certificate first and the anchor last: until
    /// when the answer holds, and a finding for each certificate that has one, revocations first.
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
        // Each list with its signer: the list of one key says nothing about the list of another.
        let mut signed: Vec<(&List, &Facts)> = Vec::new();
        let (mut unsigned, mut others) = (false, None);
        for list in named {
            let mut another = || {
                let others = others.get_or_insert_with(|| self.other_signers(context, link, issuer, algorithms));
                others.iter().copied().find(|other| is_signed_by(list, other, algorithms))
            };
            match is_signed_by(list, issuer, algorithms).then_some(issuer).or_else(&mut another) {
                Some(signer) => signed.push((list, signer)),
                None => unsigned |= !list.is_of_other_key(issuer),
            }
        }
        let counts = |(list, by): &&(&List, &Facts)| {
            !signed.iter().any(|(other, its)| its.spki == by.spki && other.replaces(list, now))
        };
        let newest: Vec<_> = signed.iter().filter(counts).copied().collect();
        if let Some(finding) = newest.iter().find_map(|(list, _)| revoked(list, link, child, issuer)) {
            return Err(finding);
        }
        if newest.iter().any(|(_, signer)| signer.may_sign_crls == Some(false)) {
            return Err(invalid(link, issuer, "is not for it to sign: its keyUsage lacks cRLSign"));
        }
        if unsigned && signed.is_empty() {
            return Err(invalid(link, issuer, "was not signed by that CA's key"));
        }
        let covering = newest.into_iter().filter(|(list, _)| list.scope.covers(link.child.0, child));
        let until = covering.map(|(list, _)| list.next_update).max();
        match (until, policy) {
            (None, CrlPolicy { unknown: Leniency::Refuse, .. }) => Err(unknown(link, child, issuer)),
            (Some(until), CrlPolicy { expired: Leniency::Refuse, .. }) if until < now => {
                Err(expired(link, issuer, until, now))
            }
            (Some(until), CrlPolicy { expired: Leniency::Refuse, .. }) => Ok(Some(until)),
            (None | Some(_), _) => Ok(None),
        }
    }

    /// Other keys under the issuer's name that may sign its lists: their certificates are in the bundle or were presented,
    /// are valid and on no list, and were signed by the issuer or one above it. Never by one below, because a revoked CA
    /// could otherwise make a signer of its own.
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

/// How many presented certificates under an issuer's name are checked.
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

fn revoked(list: &List, link: IssuedLink<'_>, child: &Facts, issuer: &Facts) -> Option<Finding> {
    let entry = list.revoked.get(&child.serial_der)?;
    let reason = entry.reason.map(|why| format!(" ({why})")).unwrap_or_default();
    let sentence = format!(
        "{} `{}` was revoked by `{}` on {}{reason}",
        certificate_label(link.child.1),
        child.subject,
        issuer.subject,
        rfc3339(entry.date)
    );
    Some(Finding { code: Code::Revoked, subject: link.child.1, sentence })
}

/// Whether this key signed the list. Large lists take long to hash, so a first answer of each kind is remembered.
fn is_signed_by(list: &List, issuer: &Facts, algorithms: Algorithms<'_>) -> bool {
    for (known, answer) in [(&list.signed_by, true), (&list.not_signed_by, false)] {
        if known.get().is_some_and(|known| *known == issuer.spki) {
            return answer;
        }
    }
    let signed = (&list.signed[..], &list.signature[..]);
    let holds = signature::check(signed, &list.algorithm, issuer, algorithms) == Signature::Holds;
    let _ = if holds { &list.signed_by } else { &list.not_signed_by }.set(issuer.spki.clone());
    holds
}

fn certificate_signature_holds(der: &[u8], signer: &Facts, algorithms: Algorithms<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return false };
    let signed = (certificate.tbs_certificate.as_ref(), certificate.signature_value.as_ref());
    let Some(algorithm) = signature::identifier(&certificate.signature_algorithm) else { return false };
    signature::check(signed, &algorithm, signer, algorithms) == Signature::Holds
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
