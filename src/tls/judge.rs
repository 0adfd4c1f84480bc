//! The judge: webpki decides, over every path it can build; here stand the questions put to it, and
//! the checks it leaves to its caller.
//!
//! Beyond webpki 0.103 (measured on x509-limbo, BoringSSL's and NIST's corpora):
//! - an issuer whose keyUsage lacks keyCertSign may not issue (RFC 5280 section 4.2.1.3);
//! - the trust anchor is looked at too: validity, CA-ness, keyUsage, critical extensions (its path
//!   length is not, as RFC 5280 section 6.1.1 has it and BoringSSL's tests);
//! - keys are RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519;
//! - revocation lists are asked for each certificate of the path ([`super::crl`]);
//! - **pins**: where there are any, one of the path's keys must be among them, in addition to all else;
//! - **exact anchor**: a server certificate that itself stands in the bundle, byte for byte, is its own
//!   chain, as `openssl req -x509` and Python's `ssl` have it. Validity, purpose, key and name still count;
//! - **identity**: where an operator named the certificate itself, that one and no other is believed, while
//!   it is valid; its names and its issuer do not count (compare RFC 7671 section 5.1).
//!
//! The first five are asked inside webpki's search, so that one bad path does not hide a good one.

use std::{cell::RefCell, sync::Arc};

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::clock::{distance, rfc3339, unix};

use super::{
    crl::{CrlPolicy, Crls, Step},
    diagnose::Case,
    failure::{Code, Finding, Subject, VerificationFailure},
    fingerprint::Fingerprint,
    presented::{Certificate, Facts, Key, SERVER_AUTH},
    trust::TrustAnchors,
};

/// Whom to believe, and under which conditions.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The anchors.
    pub anchors: Arc<TrustAnchors>,
    /// The revocation lists.
    pub crls: Arc<Crls>,
    /// What is asked beyond a path to an anchor.
    pub terms: Terms,
}

/// Conditions of trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What to do where the lists do not say that a certificate is good.
    pub crl_policy: CrlPolicy,
    /// The certificate to believe instead of a chain and a name.
    pub identity: Option<Fingerprint>,
    /// Public keys, as subjectPublicKeyInfo, of which one must be on the path; none where it is empty.
    pub pins: Vec<Fingerprint>,
}

/// How an accepted upstream proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// By what.
    pub proof: Proof,
    /// What was believed, from the server's own certificate upwards.
    pub path: Vec<Subject>,
    /// When the first thing that the verdict rests on ends: a certificate, the anchor, or a revocation list.
    pub until: OffsetDateTime,
}

/// By what an upstream proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By a chain to an anchor.
    Chain,
    /// By being in the bundle itself.
    Exact,
    /// By being the certificate that the operator named.
    Identity,
}

impl Proof {
    /// The word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Exact => "exact",
            Self::Identity => "identity",
        }
    }
}

/// Judges what a server presented.
///
/// # Errors
/// A [`VerificationFailure`] with the verdict and all other findings.
pub fn judge(case: &Case<'_>, algorithms: Algorithms<'_>) -> Result<Accepted, Box<VerificationFailure>> {
    let Some(own) = case.presented.first() else {
        return Err(case.no_certificate());
    };
    let end_entity = EndEntityCert::try_from(&own.der).map_err(|error| case.explain(&error, None))?;
    if let Some(wanted) = case.trust.terms.identity {
        let finding = identity(own, wanted).or_else(|| unbelievable(case, own));
        return finding.map_or_else(|| Ok(alone(Proof::Identity, own)), |finding| Err(case.refuse(finding)));
    }
    let accepted = match path(case, &end_entity, case.now, algorithms) {
        Ok(accepted) => accepted,
        Err((error, objection)) => {
            let exact = case.trust.anchors.exact(&own.der).is_some() && is_about_the_path(&error, objection.as_ref());
            let version_3 = own.facts.as_ref().is_ok_and(|facts| facts.version == 3);
            let failure = case.explain(&error, objection);
            if !(version_3 && exact || case.pardons(failure.code())) {
                return Err(failure);
            }
            if let Some(finding) = unbelievable(case, own).or_else(|| unfit(own)) {
                return Err(case.refuse(finding));
            }
            if exact {
                unpinned(case, &[own]).map_or(Ok(()), |finding| Err(case.refuse(finding)))?;
            } else {
                pardoned(case, own, &end_entity, failure, algorithms)?;
            }
            alone(Proof::Exact, own)
        }
    };
    match end_entity.verify_is_valid_for_subject_name(&case.reference.server_name()) {
        Ok(()) => Ok(accepted),
        Err(error) => {
            let failure = case.explain(&error, None);
            if case.pardons(failure.code()) { Ok(accepted) } else { Err(failure) }
        }
    }
}

/// The signature algorithms that are taken.
pub type Algorithms<'a> = &'a [&'static dyn SignatureVerificationAlgorithm];

/// webpki looks at dates first, and no further: what it would have said at a moment within them. Such a moment is
/// looked for among those at which a certificate of the chain begins or ends.
fn pardoned(
    case: &Case<'_>,
    own: &Certificate,
    end_entity: &EndEntityCert<'_>,
    mut failure: Box<VerificationFailure>,
    algorithms: Algorithms<'_>,
) -> Result<(), Box<VerificationFailure>> {
    let dated = |code| matches!(code, Code::Expired | Code::NotYetValid);
    // Without a path no key but the server's own is known to be of the chain.
    let without_path = || unpinned(case, &[own]).map_or(Ok(()), |finding| Err(case.refuse(finding)));
    if !dated(failure.code()) {
        return without_path();
    }
    let chain = case.presented.iter().take(MOST_DATES).filter_map(|certificate| certificate.facts.as_ref().ok());
    let moments = chain.clone().map(|facts| facts.not_after).chain(chain.map(|facts| facts.not_before));
    let mut refusal = None;
    for moment in moments {
        let Err((error, objection)) = path(case, end_entity, moment, algorithms) else { return Ok(()) };
        let failure = case.explain(&error, objection);
        match failure.code() {
            code if dated(code) => {}
            code if case.pardons(code) => return without_path(),
            _ => refusal = refusal.or(Some(failure)),
        }
    }
    Err(refusal.unwrap_or_else(|| {
        failure.verdict.sentence.push_str("; and there is no moment at which its whole chain was valid");
        failure
    }))
}

/// A hostile server may send many certificates; each of these may cost two searches for a path.
const MOST_DATES: usize = 8;

/// Believed without anybody above it.
fn alone(proof: Proof, own: &Certificate) -> Accepted {
    // One that cannot be read was refused before this.
    let until = own.facts.as_ref().map_or(OffsetDateTime::UNIX_EPOCH, |facts| facts.not_after);
    Accepted { proof, path: vec![Subject::Presented(0)], until }
}

/// Asks webpki for a path, and our own questions of each path it offers.
fn path(
    case: &Case<'_>,
    end_entity: &EndEntityCert<'_>,
    at: OffsetDateTime,
    algorithms: Algorithms<'_>,
) -> Result<Accepted, (webpki::Error, Option<Finding>)> {
    let (intermediates, is_cut) = nearest(case.presented);
    let objection = RefCell::new(None);
    let accepted = RefCell::new(None);
    let ask = |path: &VerifiedPath<'_>| match question(case, path, algorithms) {
        Ok(good) => {
            accepted.replace(Some(good));
            Ok(())
        }
        Err(finding) => {
            objection.borrow_mut().get_or_insert(finding);
            Err(webpki::Error::UnknownIssuer)
        }
    };
    end_entity
        .verify_for_usage(
            algorithms,
            case.trust.anchors.anchors(),
            &intermediates,
            unix(at),
            KeyUsage::server_auth(),
            None,
            Some(&ask),
        )
        .map_err(|error| {
            let is_readable = case.presented.iter().all(|certificate| certificate.facts.is_ok());
            let error = match error {
                webpki::Error::InvalidSignatureForPublicKey | webpki::Error::UnknownIssuer if is_cut => {
                    webpki::Error::MaximumPathBuildCallsExceeded
                }
                webpki::Error::UnknownIssuer if !is_readable => webpki::Error::BadDer,
                error => error,
            };
            (error, objection.take())
        })?;
    // webpki does not end well without having asked; should it ever, nobody is believed.
    accepted.take().ok_or((webpki::Error::UnknownIssuer, None))
}

/// The presented certificates that by their names may stand above the server's own, nearest first and each
/// once, [`MOST_TRIED`] at most; and whether more were left out. webpki reads all that it is given at each step
/// of its search: with what fits into one handshake that would keep a worker busy for many seconds.
fn nearest(presented: &[Certificate]) -> (Vec<CertificateDer<'_>>, bool) {
    let mut way: Vec<(&Certificate, &Facts)> = presented.first().and_then(readable).into_iter().collect();
    let mut next = 0;
    while let Some((_, below)) = way.get(next).copied() {
        for (above, facts) in presented.iter().skip(1).filter_map(readable) {
            if facts.subject_der == below.issuer_der && way.iter().all(|(known, _)| known.der != above.der) {
                way.push((above, facts));
            }
        }
        if way.len() > MOST_TRIED + 1 {
            break;
        }
        next += 1;
    }
    let found = way.len();
    (way.into_iter().skip(1).take(MOST_TRIED).map(|(above, _)| above.der.clone()).collect(), found > MOST_TRIED + 1)
}

fn readable(certificate: &Certificate) -> Option<(&Certificate, &Facts)> {
    certificate.facts.as_ref().ok().map(|facts| (certificate, facts))
}

/// webpki goes no further than 6 up; more is for CAs that certify each other.
const MOST_TRIED: usize = 16;

/// Whether an error is about how the certificate was issued, which does not matter for one that stands in
/// the bundle itself. Revocation, a missing pin, and what is not known here always matter.
fn is_about_the_path(error: &webpki::Error, objection: Option<&Finding>) -> bool {
    use webpki::Error as E;
    let always = [Code::CrlExpired, Code::CrlInvalid, Code::PinMismatch, Code::RevocationUnknown, Code::Revoked];
    if objection.is_some_and(|finding| always.contains(&finding.code)) {
        return false;
    }
    matches!(
        error,
        E::CaUsedAsEndEntity
            | E::CertExpired { .. }
            | E::CertNotValidYet { .. }
            | E::EndEntityUsedAsCa
            | E::InvalidSignatureForPublicKey
            | E::NameConstraintViolation
            | E::PathLenConstraintViolated
            | E::UnknownIssuer
            | E::UnsupportedSignatureAlgorithmContext(_)
    )
}

/// Our own questions of a path that webpki found good; the first objection, if any.
fn question(case: &Case<'_>, path: &VerifiedPath<'_>, algorithms: Algorithms<'_>) -> Result<Accepted, Finding> {
    let ladder = ladder(case, path)?;
    let certificates: Vec<&Certificate> = ladder.iter().map(|(certificate, _)| *certificate).collect();
    let own = ladder.first().and_then(|(own, subject)| strength(own, *subject));
    let issuers = ladder.iter().skip(1).filter_map(|(issuer, subject)| issuing(issuer, *subject));
    let anchor = match ladder.last() {
        Some((anchor, Subject::Anchor(place))) => root(anchor, *place, case.now),
        _ => Vec::new(),
    };
    let mut objections = own.into_iter().chain(issuers).chain(anchor).chain(unpinned(case, &certificates));
    if let Some(finding) = objections.find(|finding| !case.pardons(finding.code)) {
        return Err(finding);
    }
    let ends = certificates.iter().filter_map(|certificate| certificate.facts.as_ref().ok());
    let mut until = ends.map(|facts| facts.not_after).min().unwrap_or(case.now);
    let lists = case.trust.crls.ask(case, &ladder, algorithms)?;
    until = lists.map_or(until, |lists| until.min(lists));
    let path = ladder.iter().map(|(_, subject)| *subject).collect();
    Ok(Accepted { proof: Proof::Chain, path, until })
}

/// The certificates of a path, from the server's own to the anchor.
fn ladder<'a>(case: &Case<'a>, path: &VerifiedPath<'_>) -> Result<Vec<Step<'a>>, Finding> {
    let presented = |place: usize| (&case.presented[place], Subject::Presented(place));
    let mut ladder = vec![presented(0)];
    for issuer in path.intermediate_certificates() {
        let place = case.presented.iter().position(|known| known.der == issuer.der());
        ladder.push(presented(place.ok_or_else(|| unexpected("an intermediate that nobody presented"))?));
    }
    let anchors = &case.trust.anchors;
    let place = anchors.place_of(path.anchor()).ok_or_else(|| unexpected("an anchor that is not in the bundle"))?;
    ladder.push((&anchors.certificates()[place], Subject::Anchor(place)));
    Ok(ladder)
}

/// No key of the path among the pins?
fn unpinned(case: &Case<'_>, path: &[&Certificate]) -> Option<Finding> {
    let pins = &case.trust.terms.pins;
    let is_pinned = |certificate: &&Certificate| {
        certificate.facts.as_ref().is_ok_and(|facts| pins.contains(&Fingerprint::of(&facts.spki)))
    };
    if pins.is_empty() || path.iter().any(is_pinned) {
        return None;
    }
    let own = path.first()?.facts.as_ref().ok()?;
    let sentence = format!(
        "no key of the chain is among the {} pinned; the key of the certificate `{}` is {}",
        pins.len(),
        own.subject,
        Fingerprint::of(&own.spki)
    );
    Some(Finding { code: Code::PinMismatch, subject: Subject::Presented(0), sentence })
}

/// Another certificate than the one that was named?
fn identity(own: &Certificate, wanted: Fingerprint) -> Option<Finding> {
    let found = Fingerprint::of(&own.der);
    let sentence = format!("the certificate `{}` ({found}) is not the one that was named ({wanted})", own.name());
    (found != wanted).then_some(Finding { code: Code::IdentityMismatch, subject: Subject::Presented(0), sentence })
}

/// What cannot be; should it ever, nobody is believed.
fn unexpected(what: &str) -> Finding {
    let sentence = format!("the path found goes through {what}");
    Finding { code: Code::Other, subject: Subject::Handshake, sentence }
}

fn issuing(issuer: &Certificate, subject: Subject) -> Option<Finding> {
    let facts = match &issuer.facts {
        Ok(facts) => facts,
        Err(error) => return Some(unreadable(issuer, subject, error)),
    };
    may_not_sign(facts, subject).or_else(|| strength(issuer, subject))
}

/// A keyUsage that does not let it sign certificates?
pub fn may_not_sign(facts: &Facts, subject: Subject) -> Option<Finding> {
    let (code, what) = match subject {
        Subject::Anchor(_) => (Code::RootUnfit, "the root"),
        _ => (Code::IssuerMayNotSign, "the issuer"),
    };
    let sentence = format!("{what} `{}` may not sign certificates: its keyUsage lacks keyCertSign", facts.subject);
    (facts.may_sign_certificates == Some(false)).then_some(Finding { code, subject, sentence })
}

/// All objections to a root, since the first may be one that is only to be reported.
fn root(anchor: &Certificate, place: usize, now: OffsetDateTime) -> Vec<Finding> {
    let Ok(facts) = &anchor.facts else { return Vec::new() };
    let subject = Subject::Anchor(place);
    let dates = validity(anchor, subject, now).map(|finding| Finding {
        code: Code::RootExpired,
        sentence: format!("in the bundle: {}", finding.sentence),
        ..finding
    });
    dates.into_iter().chain(unfit_root(facts, subject)).collect()
}

/// A root that is not fit to issue, whatever its dates?
pub fn unfit_root(facts: &Facts, subject: Subject) -> Option<Finding> {
    let unfit = |why: String| {
        let sentence = format!("the root `{}` in the bundle is not fit to issue: {why}", facts.subject);
        Some(Finding { code: Code::RootUnfit, subject, sentence })
    };
    let harmless = |oid: &&String| ROOT_HARMLESS.contains(&oid.as_str());
    if let Some(oid) = facts.unknown_critical.iter().find(|oid| !harmless(oid)) {
        return unfit(format!("it has a critical extension ({oid}) that is not understood"));
    }
    // X.509 v1 has no basicConstraints; such roots exist and are anchors by the operator's word.
    if facts.version == 3 && facts.is_ca != Some(true) {
        return unfit("it is not marked as a CA".into());
    }
    // RFC 5280 section 6.1 asks nothing of an anchor but its name and key; a purpose written into it is its CA's
    // own word all the same, and OpenSSL, Go and pyca keep it to that.
    match &facts.purposes {
        Some(purposes) if !purposes.iter().any(|purpose| purpose == SERVER_AUTH || purpose == "any") => {
            unfit(format!("it is meant for {}, not for servers", list(purposes)))
        }
        _ => None,
    }
}

/// Key identifiers, which some CAs mark critical against RFC 5280; they say nothing that could be missed.
const ROOT_HARMLESS: [&str; 2] = ["2.5.29.14", "2.5.29.35"];

/// What a certificate must hold to even without a path.
fn unbelievable(case: &Case<'_>, own: &Certificate) -> Option<Finding> {
    let subject = Subject::Presented(0);
    let facts = match &own.facts {
        Ok(facts) => facts,
        Err(error) => return Some(unreadable(own, subject, error)),
    };
    let listed = || {
        // No path, so nobody knows whether the list's signature is good.
        let sentence = format!("the certificate `{}` is on a revocation list of its issuer", facts.subject);
        case.trust.crls.names(facts).then_some(Finding { code: Code::Revoked, subject, sentence })
    };
    let validity = validity(own, subject, case.now).filter(|finding| !case.pardons(finding.code));
    validity.or_else(|| strength(own, subject)).or_else(listed)
}

/// What the exact anchor rule asks beyond that.
fn unfit(own: &Certificate) -> Option<Finding> {
    let subject = Subject::Presented(0);
    own.facts.as_ref().ok().and_then(|facts| purpose(facts, subject)).or_else(|| critical(own, subject))
}

/// Outside its validity?
pub fn validity(certificate: &Certificate, subject: Subject, now: OffsetDateTime) -> Option<Finding> {
    let facts = certificate.facts.as_ref().ok()?;
    let what = kind(subject);
    let name = certificate.name();
    // X.509 has no fractions: a certificate is valid through the whole of its last second.
    if now.unix_timestamp() > facts.not_after.unix_timestamp() {
        let ago = distance((now - facts.not_after).whole_seconds());
        let sentence = format!("{what} `{name}` expired on {} ({ago} ago)", rfc3339(facts.not_after));
        return Some(Finding { code: Code::Expired, subject, sentence });
    }
    if now < facts.not_before {
        let ahead = distance((facts.not_before - now).whole_seconds());
        let sentence = format!("{what} `{name}` is valid only from {} (in {ahead})", rfc3339(facts.not_before));
        return Some(Finding { code: Code::NotYetValid, subject, sentence });
    }
    None
}

/// Not meant for servers?
pub fn purpose(facts: &Facts, subject: Subject) -> Option<Finding> {
    let purposes = facts.purposes.as_ref()?;
    if purposes.iter().any(|purpose| purpose == SERVER_AUTH) {
        return None;
    }
    let sentence = format!("{} `{}` is not meant for servers but for {}", kind(subject), facts.subject, list(purposes));
    Some(Finding { code: Code::WrongPurpose, subject, sentence })
}

/// A hostile certificate may list thousands.
fn list(purposes: &[String]) -> String {
    const MOST: usize = 8;
    match purposes.len() {
        0 => "nothing".into(),
        count if count > MOST => format!("{} and {} more", purposes[..MOST].join(", "), count - MOST),
        _ => purposes.join(", "),
    }
}

/// Too weak a key, or of a kind we do not take?
pub fn strength(certificate: &Certificate, subject: Subject) -> Option<Finding> {
    let facts = match &certificate.facts {
        Ok(facts) => facts,
        Err(error) => return Some(unreadable(certificate, subject, error)),
    };
    let (code, what) = match &facts.key {
        Key::Curve(_, true) => return None,
        Key::Rsa(bits) if *bits >= 2048 => return None,
        Key::Rsa(bits) => (Code::WeakKey, format!("has an RSA key of {bits} bits; 2048 is the least")),
        key => (Code::UnsupportedKey, format!("has a key that is not taken: {}", key.describe())),
    };
    let sentence = format!("{} `{}` {what}", kind(subject), certificate.name());
    Some(Finding { code, subject, sentence })
}

/// A critical extension that is not understood?
pub fn critical(certificate: &Certificate, subject: Subject) -> Option<Finding> {
    let facts = certificate.facts.as_ref().ok()?;
    let oid = facts.unknown_critical.first()?;
    let sentence =
        format!("{} `{}` has a critical extension ({oid}) that is not understood", kind(subject), certificate.name());
    Some(Finding { code: Code::CriticalExtension, subject, sentence })
}

/// The clerk cannot read what the judge could: too odd to be trusted.
pub fn unreadable(certificate: &Certificate, subject: Subject, error: &str) -> Finding {
    let sentence = format!("{} (sha256 {}) cannot be read: {error}", kind(subject), certificate.sha256);
    Finding { code: Code::MalformedCertificate, subject, sentence }
}

/// What a certificate is, for sentences.
pub fn kind(subject: Subject) -> &'static str {
    match subject {
        Subject::Anchor(_) => "the root",
        Subject::Handshake => "the handshake",
        Subject::Presented(0) => "the certificate",
        Subject::Presented(_) => "the intermediate",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_purposes_is_cut() {
        let purposes: Vec<_> = (0..10).map(|n| format!("1.{n}")).collect();
        assert_eq!(list(&[]), "nothing");
        assert_eq!(list(&purposes[..2]), "1.0, 1.1");
        assert_eq!(list(&purposes), "1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7 and 2 more");
    }
}
