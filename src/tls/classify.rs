//! From a verifier's refusal to its class: all that is wrong, what decides first.
//!
//! This is a part of the decision, since a class can be one that is only reported. It can do no harm there: whatever
//! class is found, the verifier itself decides whether anything else stands in the way ([`super::verify`]).
//!
//! webpki ends at the first fault of each path and gives the one that it ranks highest among all paths. So the path
//! that was meant is looked at as a whole, and webpki's word is used only if nothing is found there.

use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use webpki::{EndEntityCert, Error, KeyUsage};

use crate::clock::{rfc3339, unix};

use super::{
    case::Case,
    checks::{self, Role, certificate_label},
    constraints,
    failure::{CertificateRef, Code, Finding, Link},
    malformed::{is_malformed, malformation},
    names,
    path::{Above, PathByNames, PathEnd},
    presented::Certificate,
    signature::{Signature, algorithms},
};

/// The refusal of a case: what decided, and all else that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What decided.
    pub verdict: Finding,
    /// All else that is wrong.
    pub also: Vec<Finding>,
}

impl Refusal {
    /// What a server without a certificate gets.
    pub fn no_certificate() -> Box<Self> {
        let sentence = "the server sent no certificate".into();
        let verdict = Finding { code: Code::NoCertificate, subject: CertificateRef::Handshake, sentence };
        Box::new(Self { verdict, also: Vec::new() })
    }

    /// A verdict that is given, with all other findings.
    pub fn of(case: &Case<'_>, verdict: Finding) -> Box<Self> {
        let also = without(&verdict, findings(case));
        Box::new(Self { verdict, also })
    }

    /// What follows from webpki's error, and from our own objections to the paths that webpki found good.
    pub fn from_webpki(case: &Case<'_>, error: &Error, objections: &[Finding]) -> Box<Self> {
        if is_out_of_budget(error) {
            // An objection came before webpki gave up.
            let objection = objections.iter().find(|finding| !case.is_report_only(finding.code)).cloned();
            return Box::new(Self { verdict: objection.unwrap_or_else(|| fallback(case, error)), also: Vec::new() });
        }
        let all = findings(case);
        let obeyed = |finding: &&Finding| !case.is_report_only(finding.code);
        let of_path = all.iter().filter(|finding| !is_about_name(finding.code));
        let verdict = match error {
            Error::CertNotValidForName(_) => names::mismatch(case).unwrap_or_else(|| fallback(case, error)),
            _ => {
                let of_path: Vec<&Finding> = of_path.collect();
                let obeyed = of_path.iter().copied().find(obeyed).or_else(|| objections.iter().find(obeyed));
                obeyed.or(of_path.first().copied()).cloned().unwrap_or_else(|| fallback(case, error))
            }
        };
        let also = without(&verdict, all);
        Box::new(Self { verdict, also })
    }

    /// All findings, what decided first.
    pub fn findings(&self) -> impl Iterator<Item = &Finding> {
        std::iter::once(&self.verdict).chain(&self.also)
    }
}

/// Whether webpki gave up, since to go on would take too much work. Nobody else should go on then.
pub fn is_out_of_budget(error: &Error) -> bool {
    matches!(
        error,
        Error::MaximumNameConstraintComparisonsExceeded
            | Error::MaximumPathBuildCallsExceeded
            | Error::MaximumSignatureChecksExceeded
    )
}

fn without(verdict: &Finding, mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.retain(|finding| (finding.code, finding.subject) != (verdict.code, verdict.subject));
    findings
}

fn is_about_name(code: Code) -> bool {
    matches!(code, Code::IpSanMissing | Code::NameMismatch | Code::NoSan)
}

/// All that is wrong with the path that was meant, and with the name: what weighs most first.
pub fn findings(case: &Case<'_>) -> Vec<Finding> {
    let Some(path) = PathByNames::of(case) else { return Vec::new() };
    let is_exact = case.end_entity().is_some_and(|own| case.trust.anchors.exact(&own.der).is_some());
    let mut found = Vec::new();
    for (place, link) in path.links.iter().enumerate() {
        found.extend(of_certificate(case, &path, place, *link));
    }
    if !is_exact {
        found.extend(end(&path));
        found.extend(unreadable_ones(case, &path));
        let links = path.links.windows(2).zip(&path.signatures);
        found.extend(links.filter_map(|(pair, above)| broken(pair[0], pair[1], *above)));
        found.extend(checks::path(&path.links));
        found.extend(too_long(&path));
    }
    found.extend(case.trust.crls.check(&case.revocation(), &path.links, algorithms()).1);
    if is_exact || matches!(path.end, PathEnd::Anchor) {
        found.extend(checks::unpinned(&case.trust.terms.pins, &path.links));
    }
    found.extend(names::mismatch(case));
    found.sort_by_key(|finding| rank(finding.code));
    merged(found)
}

/// One finding for each class and certificate, with all that is to be said of it.
fn merged(found: Vec<Finding>) -> Vec<Finding> {
    let mut once: Vec<Finding> = Vec::new();
    for finding in found {
        let known = once.iter_mut().find(|known| (known.code, known.subject) == (finding.code, finding.subject));
        match known {
            Some(known) if known.sentence.contains(&finding.sentence) => {}
            Some(known) => {
                known.sentence.push_str("; ");
                known.sentence.push_str(&finding.sentence);
            }
            None => once.push(finding),
        }
    }
    once
}

/// What is wrong with one link, its signature's algorithm included.
fn of_certificate(case: &Case<'_>, path: &PathByNames<'_>, place: usize, link: Link<'_>) -> Vec<Finding> {
    let role = path.role(place);
    let mut found = checks::certificate(link, role, case.now);
    if role != Role::Anchor {
        found.extend(checks::signature(link.0, link.1));
        found.extend(webpki_reading(case, link));
    }
    // A self-signed server certificate may be marked as a CA: `openssl req -x509` does it.
    let is_alone = matches!(path.end, PathEnd::SelfSigned { .. }) && path.links.len() == 1;
    let is_bare_ca = link.0.facts.as_ref().is_ok_and(checks::is_bare_ca);
    found.retain(|finding| finding.code != Code::CaAsServer || is_bare_ca || !is_alone);
    found
}

/// What webpki cannot read of a certificate that we can.
fn webpki_reading(case: &Case<'_>, (certificate, at): Link<'_>) -> Option<Finding> {
    certificate.facts.as_ref().ok()?;
    let error = match EndEntityCert::try_from(&certificate.der) {
        Err(error) => error,
        // Without an anchor it reads no further than the certificate itself.
        Ok(parsed) => {
            let usage = KeyUsage::server_auth();
            parsed.verify_for_usage(algorithms(), &[], &[], unix(case.now), usage, None, None).err()?
        }
    };
    is_malformed(&error).then(|| taken_ill(certificate, at, &error))
}

fn taken_ill(certificate: &Certificate, at: CertificateRef, error: &Error) -> Finding {
    let (what, name) = (certificate_label(at), certificate.name());
    let sentence = format!("{what} `{name}` cannot be used: {}", malformation(error));
    Finding { code: Code::MalformedCertificate, subject: at, sentence }
}

/// Certificates that were sent and cannot be read, any of which may be the issuer that is missing.
fn unreadable_ones(case: &Case<'_>, path: &PathByNames<'_>) -> Vec<Finding> {
    let is_missing = match path.end {
        PathEnd::Missing { namesake, otherwise: None } => {
            !namesake.is_some_and(|(_, at)| matches!(at, CertificateRef::Presented(_)))
        }
        _ => path.signatures.iter().any(|above| above.signature == Signature::Broken),
    };
    if !is_missing {
        return Vec::new();
    }
    let sent = case.presented.iter().enumerate().skip(1).take(MOST_UNREADABLE);
    sent.filter_map(|(place, certificate)| {
        let why = certificate.facts.as_ref().err()?;
        Some(checks::unreadable(certificate, CertificateRef::Presented(place), why))
    })
    .collect()
}

/// So many are told of.
const MOST_UNREADABLE: usize = 8;

/// A path that ends anywhere but in the bundle.
fn end(path: &PathByNames<'_>) -> Option<Finding> {
    let (top, at) = path.links.last()?;
    let facts = top.facts.as_ref().ok()?;
    let is_own = *at == CertificateRef::Presented(0);
    let finding = |code, sentence| Some(Finding { code, subject: *at, sentence });
    match path.end {
        PathEnd::Anchor => None,
        PathEnd::SelfSigned { .. } if is_own && checks::is_bare_ca(facts) => None,
        PathEnd::SelfSigned { namesake } if is_own => {
            let mut sentence =
                format!("the server sent the self-signed certificate `{}`, which is not in the bundle", top.name());
            if let Some((namesake, _)) = namesake {
                sentence.push_str(&format!("; the bundle holds another of that name (sha256 {})", namesake.sha256));
            }
            finding(Code::SelfSignedNotInBundle, sentence)
        }
        PathEnd::SelfSigned { namesake: Some((namesake, _)) } => finding(
            Code::IssuerKeyMismatch,
            format!(
                "the server sent the CA `{}` (sha256 {}); the bundle holds another CA of that name with another key (sha256 {})",
                facts.subject, top.sha256, namesake.sha256
            ),
        ),
        PathEnd::SelfSigned { namesake: None } => finding(
            Code::UnknownIssuer,
            format!(
                "the chain ends at the root `{}` (sha256 {}), which is not in the bundle",
                facts.subject, top.sha256
            ),
        ),
        PathEnd::Missing { namesake: Some(namesake), .. } if is_made_anew(namesake) => {
            let (who, sha256) = (whose(namesake.1), &namesake.0.sha256);
            let sentence = format!(
                "{} `{}` claims to be signed by `{}`, but {who} a certificate of that name with another key (sha256 {sha256})",
                certificate_label(*at),
                top.name(),
                facts.issuer
            );
            finding(Code::IssuerKeyMismatch, sentence)
        }
        PathEnd::Missing { namesake, otherwise } => {
            let code = if is_own { Code::IncompleteChain } else { Code::UnknownIssuer };
            finding(code, missing(&facts.issuer, is_own, namesake, otherwise))
        }
    }
}

/// Whether another certificate of an issuer's name means that the issuer was re-created: it was sent as the issuer, or
/// it is a root in the bundle. An intermediate in the bundle may as well be another lab's.
fn is_made_anew((namesake, at): Link<'_>) -> bool {
    let is_root = namesake.facts.as_ref().is_ok_and(|facts| facts.self_issued());
    matches!(at, CertificateRef::Presented(_)) || is_root
}

fn whose(at: CertificateRef) -> &'static str {
    if matches!(at, CertificateRef::Anchor(_)) { "the bundle holds" } else { "the server sent" }
}

fn missing(issuer: &str, is_own: bool, namesake: Option<Link<'_>>, otherwise: Option<Link<'_>>) -> String {
    if let Some((other, _)) = otherwise {
        let what = if is_own { "the certificate was" } else { "the last intermediate was" };
        return format!(
            "{what} issued by `{issuer}`; the server sent a CA of that name (sha256 {}), but it is written in another way (string type or letters), and names are compared byte for byte",
            other.sha256
        );
    }
    let mut sentence = match is_own {
        true => format!(
            "the certificate was issued by `{issuer}`, which the server did not send and the bundle does not hold"
        ),
        false => format!("the chain ends at the issuer `{issuer}`, which is not in the bundle"),
    };
    if let Some(namesake) = namesake {
        let (who, sha256) = (whose(namesake.1), &namesake.0.sha256);
        sentence.push_str(&format!("; {who} another CA of that name (sha256 {sha256}), which is not the one"));
    }
    sentence
}

/// A signature that was not made with the key of the link above.
fn broken((child, at): Link<'_>, (issuer, issuer_at): Link<'_>, above: Above) -> Option<Finding> {
    if above.signature != Signature::Broken {
        return None;
    }
    let is_anchor = matches!(issuer_at, CertificateRef::Anchor(_));
    let (code, why) = match above.is_named {
        None if is_anchor => (
            Code::IssuerKeyMismatch,
            format!(
                "the bundle holds a certificate of that name with another key (sha256 {}), or the certificate was changed",
                issuer.sha256
            ),
        ),
        None => (
            Code::BadSignature,
            "the signature does not hold: either another CA has that name, or the certificate was changed".into(),
        ),
        Some(_) => (Code::BadSignature, "the signature does not hold".into()),
    };
    let what = certificate_label(at);
    let sentence = format!("{what} `{}` claims to be signed by `{}`, but {why}", child.name(), issuer.name());
    Some(Finding { code, subject: at, sentence })
}

/// webpki follows this many intermediates.
const MOST_INTERMEDIATES: usize = 6;

fn too_long(path: &PathByNames<'_>) -> Option<Finding> {
    let is_intermediate = |link: &&Link<'_>| matches!(link.1, CertificateRef::Presented(1..));
    let count = path.links.iter().filter(is_intermediate).count();
    let (own, _) = path.links.first()?;
    let sentence = format!(
        "the certificate `{}` has {count} intermediates above it; more than {MOST_INTERMEDIATES} are not followed",
        own.name()
    );
    let code = Code::ChainTooLong;
    (count > MOST_INTERMEDIATES).then_some(Finding { code, subject: CertificateRef::Presented(0), sentence })
}

/// The order in which findings decide: what speaks against the server itself, then what speaks against its chain,
/// then what time fixes, then the name, which counts only for a chain that is good.
fn rank(code: Code) -> u8 {
    match code {
        Code::Revoked => 0,
        Code::MalformedCertificate | Code::NoCertificate => 1,
        Code::CertVersion | Code::CriticalExtension => 2,
        Code::CaAsServer | Code::IssuerNotCa => 3,
        Code::BadSignature => 4,
        Code::IncompleteChain | Code::IssuerKeyMismatch | Code::SelfSignedNotInBundle | Code::UnknownIssuer => 5,
        Code::UnsupportedKey | Code::UnsupportedSignature | Code::WeakKey | Code::WeakSignature => 6,
        Code::ChainTooComplex | Code::ChainTooLong => 7,
        Code::IssuerMayNotSign | Code::NameConstraint | Code::PathLength | Code::WrongPurpose => 8,
        Code::RootUnfit => 9,
        Code::Expired | Code::NotYetValid | Code::RootExpired => 10,
        Code::CrlInvalid | Code::CrlExpired | Code::RevocationUnknown => 11,
        Code::IdentityMismatch | Code::PinMismatch => 12,
        Code::IpSanMissing | Code::NameMismatch | Code::NoSan => 13,
        _ => 14,
    }
}

/// webpki's own word, for what was not found by the checks: they read certificates with another parser.
fn fallback(case: &Case<'_>, error: &Error) -> Finding {
    let own = |code, what: &str| {
        let name = case.end_entity().map_or_else(String::new, Certificate::name);
        Finding { code, subject: CertificateRef::Presented(0), sentence: format!("the certificate `{name}` {what}") }
    };
    match error {
        Error::CertExpired { not_after, .. } => {
            own(Code::Expired, &format!("or one above it expired on {}", moment(*not_after)))
        }
        Error::CertNotValidYet { not_before, .. } => {
            own(Code::NotYetValid, &format!("or one above it is valid only from {}", moment(*not_before)))
        }
        Error::InvalidCertValidity => own(Code::Expired, "or one above it ends before it begins"),
        Error::CertNotValidForName(_) => own(Code::NameMismatch, "is not valid for the name asked for"),
        Error::CaUsedAsEndEntity => own(Code::CaAsServer, "is a CA certificate, which is not taken as a server's own"),
        Error::UnknownIssuer => own(Code::UnknownIssuer, "does not lead to any certificate of the bundle"),
        Error::InvalidSignatureForPublicKey => {
            own(Code::BadSignature, "or one above it was not signed with its issuer's key")
        }
        Error::NameConstraintViolation => name_constraint(case).unwrap_or_else(|| {
            own(Code::NameConstraint, "was issued for a name that a CA above it may not issue for (a name constraint)")
        }),
        Error::PathLenConstraintViolated => {
            own(Code::PathLength, "was issued by a CA that may not have further CAs below it")
        }
        Error::EndEntityUsedAsCa => own(Code::IssuerNotCa, "is below an issuer that is not a CA"),
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            own(Code::WrongPurpose, "or one above it is not meant for servers")
        }
        Error::UnsupportedCriticalExtension => {
            own(Code::CriticalExtension, "or one above it has a critical extension that is not understood")
        }
        Error::UnsupportedCertVersion => own(Code::CertVersion, "or one above it is not X.509 version 3"),
        Error::MaximumPathDepthExceeded => {
            own(Code::ChainTooLong, &format!("has more than {MOST_INTERMEDIATES} intermediates above it"))
        }
        error if is_out_of_budget(error) => {
            own(Code::ChainTooComplex, "comes with a chain that takes too much work to verify")
        }
        Error::UnsupportedSignatureAlgorithmContext(_) => {
            own(Code::UnsupportedSignature, "or one above it is signed with an algorithm that is not supported")
        }
        Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            own(Code::UnsupportedKey, "or one above it is signed with a key of a kind that is not supported")
        }
        error if is_malformed(error) => malformed(case, error),
        // A newer webpki may say more; whatever it is, it is a refusal.
        error => own(Code::Other, &format!("was refused: {error}")),
    }
}

/// All names of the certificate, and what the CAs above it may issue for.
fn name_constraint(case: &Case<'_>) -> Option<Finding> {
    let path = PathByNames::of(case)?;
    let limits = path.links.iter().skip(1).filter_map(|(ca, at)| {
        let limits = constraints::limits(ca)?;
        Some(format!("{} `{}` above it {limits}", certificate_label(*at), ca.name()))
    });
    let limits: Vec<_> = limits.collect();
    let own = case.end_entity()?;
    let names = constraints::list(&own.facts.as_ref().ok()?.presented_names());
    let sentence = format!("the certificate `{}` is valid for {names}, but {}", own.name(), limits.join(", and "));
    let code = Code::NameConstraint;
    (!limits.is_empty()).then_some(Finding { code, subject: CertificateRef::Presented(0), sentence })
}

/// Something that only webpki reads: a CA's constraints, or else the server's own names.
fn malformed(case: &Case<'_>, error: &Error) -> Finding {
    let own = (0, CertificateRef::Presented(0));
    let is_constraint = matches!(error, Error::InvalidNetworkMaskConstraint | Error::MalformedNameConstraint);
    let path = PathByNames::of(case).filter(|_| is_constraint);
    let links = path.map(|path| path.links).unwrap_or_default();
    let constrains = links.iter().find(|(ca, _)| constraints::constrains_names(ca)).map(|(_, at)| *at);
    let at = constrains.unwrap_or(own.1);
    match case.certificate(at) {
        Some(certificate) => match &certificate.facts {
            Ok(_) => taken_ill(certificate, at, error),
            Err(why) => checks::unreadable(certificate, at, why),
        },
        None => Finding { code: Code::MalformedCertificate, subject: at, sentence: malformation(error) },
    }
}

/// A moment as webpki has it.
fn moment(at: UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).ok();
    let at = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.map_or_else(|| "a day beyond all calendars".into(), rfc3339)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use certs_dev::{Bundle, Gallery};
    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::tls::{
        case::{Terms, Trust},
        identity::ReferenceId,
        trust::TrustAnchors,
    };

    #[test]
    fn what_only_webpki_can_read_is_refused_in_words_too() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let bundle = Gallery::new(now).unwrap().bundle(Bundle::Root);
        let anchors = TrustAnchors::from_pem("--ca-bundle", &[], bundle).unwrap();
        let trust = Trust { anchors: Arc::new(anchors), crls: Arc::default(), terms: Terms::default() };
        let presented = [Certificate::read(&CertificateDer::from(vec![0x30, 0]))];
        let reference = ReferenceId::of(&"good.example".parse().unwrap()).unwrap();
        let case = Case { trust: &trust, presented: &presented, reference: &reference, now, report_only_classes: &[] };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(86_400));
        for (error, code, expected) in [
            (
                Error::CertExpired { time, not_after: time },
                Code::Expired,
                "or one above it expired on 1970-01-02T00:00:00Z",
            ),
            (
                Error::CertNotValidYet { time, not_before: time },
                Code::NotYetValid,
                "or one above it is valid only from 1970-01-02T00:00:00Z",
            ),
            (Error::InvalidCertValidity, Code::Expired, "or one above it ends before it begins"),
            (Error::EndEntityUsedAsCa, Code::IssuerNotCa, "is below an issuer that is not a CA"),
            (
                Error::UnsupportedCriticalExtension,
                Code::CriticalExtension,
                "or one above it has a critical extension that is not understood",
            ),
        ] {
            let found = fallback(&case, &error);
            assert_eq!(found.code, code);
            assert_eq!(found.sentence, format!("the certificate `(unreadable, 2 bytes)` {expected}"));
        }
    }
}
