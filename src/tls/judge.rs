//! The judge: webpki decides, over every path it can build; here stand the questions put to it, and
//! the checks it leaves to its caller.
//!
//! Beyond webpki 0.103 (measured on x509-limbo, BoringSSL's and NIST's corpora):
//! - an issuer whose keyUsage lacks keyCertSign may not issue (RFC 5280 section 4.2.1.3);
//! - the trust anchor is looked at too: validity, CA-ness, keyUsage, critical extensions;
//! - keys are RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519;
//! - a revocation list is believed only of an issuer that may sign one (section 4.2.1.3, cRLSign);
//! - **exact anchor**: a server certificate that itself stands in the bundle, byte for byte, is its own
//!   chain, as `openssl req -x509` and Python's `ssl` have it. Validity, purpose, key and name still count.
//!
//! The first four are asked inside webpki's search, so that one bad path does not hide a good one.

use std::{cell::RefCell, sync::Arc};

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use time::OffsetDateTime;
use webpki::{
    EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    VerifiedPath,
};

use crate::clock::{distance, rfc3339, unix};

use super::{
    crl::Crls,
    diagnose,
    failure::{Code, Finding, Subject, VerificationFailure},
    identity::ReferenceId,
    presented::{Certificate, Facts, Key, SERVER_AUTH},
    trust::TrustAnchors,
};

/// Whom to believe, and under which conditions.
#[derive(Debug)]
pub struct Trust {
    /// The anchors.
    pub anchors: TrustAnchors,
    /// The revocation lists; revoked is refused, an expired list too, no list is tolerated.
    pub crls: Arc<Crls>,
}

/// How an accepted upstream proved itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// By a chain to an anchor.
    Chain,
    /// By being in the bundle itself.
    Exact,
}

impl Accepted {
    /// The word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::Exact => "exact",
        }
    }
}

/// Judges what a server presented: its own certificate first.
///
/// # Errors
/// A [`VerificationFailure`] with the verdict and all other findings.
pub fn judge(
    trust: &Trust,
    presented: &[Certificate],
    reference: &ReferenceId,
    now: OffsetDateTime,
    algorithms: &[&'static dyn SignatureVerificationAlgorithm],
) -> Result<Accepted, Box<VerificationFailure>> {
    let case = diagnose::Case { trust, presented, reference, now };
    let Some(own) = presented.first() else {
        return Err(case.no_certificate());
    };
    let end_entity = EndEntityCert::try_from(&own.der).map_err(|error| case.explain(&error, None))?;
    let accepted = match path(&case, &end_entity, algorithms) {
        Ok(()) => Accepted::Chain,
        Err((error, objection)) => {
            let version_3 = own.facts.as_ref().is_ok_and(|facts| facts.version == 3);
            if !version_3 || !is_about_the_path(&error) || trust.anchors.exact(&own.der).is_none() {
                return Err(case.explain(&error, objection));
            }
            exact(own, &trust.crls, now).map_err(|finding| case.refuse(finding))?;
            Accepted::Exact
        }
    };
    match end_entity.verify_is_valid_for_subject_name(&reference.server_name()) {
        Ok(()) => Ok(accepted),
        Err(error) => Err(case.explain(&error, None)),
    }
}

/// Asks webpki for a path, and our own questions of each path it offers.
fn path(
    case: &diagnose::Case<'_>,
    end_entity: &EndEntityCert<'_>,
    algorithms: &[&'static dyn SignatureVerificationAlgorithm],
) -> Result<(), (webpki::Error, Option<Finding>)> {
    let intermediates: Vec<CertificateDer<'_>> =
        case.presented.iter().skip(1).map(|certificate| certificate.der.clone()).collect();
    let objection = RefCell::new(None);
    let ask = |path: &VerifiedPath<'_>| match object(case, path) {
        None => Ok(()),
        Some(finding) => {
            objection.borrow_mut().get_or_insert(finding);
            Err(webpki::Error::UnknownIssuer)
        }
    };
    let lists = case.trust.crls.lists();
    let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|builder| {
        builder
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Allow)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build()
    });
    end_entity
        .verify_for_usage(
            algorithms,
            case.trust.anchors.anchors(),
            &intermediates,
            unix(case.now),
            KeyUsage::server_auth(),
            revocation,
            Some(&ask),
        )
        .map(|_| ())
        .map_err(|error| (error, objection.take()))
}

/// Whether an error is about how the certificate was issued, which does not matter for one that stands in
/// the bundle itself. Revocation, and what is not known here, always matters.
fn is_about_the_path(error: &webpki::Error) -> bool {
    use webpki::Error as E;
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
fn object(case: &diagnose::Case<'_>, path: &VerifiedPath<'_>) -> Option<Finding> {
    let own = case.presented.first()?;
    if let Some(finding) = strength(own, Subject::Presented(0)) {
        return Some(finding);
    }
    for issuer in path.intermediate_certificates() {
        let place = case.presented.iter().position(|known| known.der == issuer.der());
        let finding = match place {
            Some(place) => issuing(case, &case.presented[place], Subject::Presented(place)),
            None => Some(unexpected("an intermediate that nobody presented")),
        };
        if finding.is_some() {
            return finding;
        }
    }
    let Some(place) = case.trust.anchors.place_of(path.anchor()) else {
        return Some(unexpected("an anchor that is not in the bundle"));
    };
    let anchor = &case.trust.anchors.certificates()[place];
    issuing(case, anchor, Subject::Anchor(place)).or_else(|| root(anchor, place, case.now))
}

/// What cannot be; should it ever, nobody is believed.
fn unexpected(what: &str) -> Finding {
    let sentence = format!("the path found goes through {what}");
    Finding { code: Code::Other, subject: Subject::Handshake, sentence }
}

fn issuing(case: &diagnose::Case<'_>, issuer: &Certificate, subject: Subject) -> Option<Finding> {
    let facts = match &issuer.facts {
        Ok(facts) => facts,
        Err(error) => return Some(unreadable(issuer, subject, error)),
    };
    if facts.may_sign_certificates == Some(false) {
        let (code, what) = match subject {
            Subject::Anchor(_) => (Code::RootUnfit, "the root"),
            _ => (Code::IssuerMayNotSign, "the issuer"),
        };
        let sentence = format!("{what} `{}` may not sign certificates: its keyUsage lacks keyCertSign", facts.subject);
        return Some(Finding { code, subject, sentence });
    }
    let lists_revocations = case.trust.crls.issued_by(&facts.subject_der);
    if lists_revocations && facts.may_sign_crls == Some(false) {
        let sentence = format!("a revocation list is signed by `{}`, whose keyUsage lacks cRLSign", facts.subject);
        return Some(Finding { code: Code::CrlInvalid, subject, sentence });
    }
    strength(issuer, subject)
}

fn root(anchor: &Certificate, place: usize, now: OffsetDateTime) -> Option<Finding> {
    let facts = anchor.facts.as_ref().ok()?;
    let subject = Subject::Anchor(place);
    if let Some(mut finding) = validity(anchor, subject, now) {
        finding.code = Code::RootExpired;
        finding.sentence = format!("in the bundle: {}", finding.sentence);
        return Some(finding);
    }
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
    None
}

/// Key identifiers, which some CAs mark critical against RFC 5280; they say nothing that could be missed.
const ROOT_HARMLESS: [&str; 2] = ["2.5.29.14", "2.5.29.35"];

/// The exact anchor rule's own questions.
fn exact(own: &Certificate, crls: &Crls, now: OffsetDateTime) -> Result<(), Finding> {
    let subject = Subject::Presented(0);
    let facts = own.facts.as_ref().map_err(|error| unreadable(own, subject, error))?;
    let finding = validity(own, subject, now)
        .or_else(|| purpose(facts, subject))
        .or_else(|| strength(own, subject))
        .or_else(|| critical(own, subject))
        .or_else(|| {
            // No path, so webpki did not ask the lists; nor is the list's signature known to be good.
            let sentence = format!("the certificate `{}` is on a revocation list of its issuer", facts.subject);
            let listed = crls.lists_serial(&facts.issuer_der, &facts.serial_der);
            listed.then_some(Finding { code: Code::Revoked, subject, sentence })
        });
    finding.map_or(Ok(()), Err)
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
    let found = if purposes.is_empty() { "nothing".into() } else { purposes.join(", ") };
    let sentence = format!("{} `{}` is not meant for servers but for {found}", kind(subject), facts.subject);
    Some(Finding { code: Code::WrongPurpose, subject, sentence })
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
fn unreadable(certificate: &Certificate, subject: Subject, error: &str) -> Finding {
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
