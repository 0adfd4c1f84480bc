//! The decision: webpki decides through every path that it can build, and our own checks can only object to a path.
//!
//! Beyond webpki 0.103:
//! - the checks of [`super::checks`] and the revocation lists ([`super::crl`]) are asked for each certificate of a path;
//! - **pins**: if there are any, one of the path's keys must be among them, in addition to all else;
//! - **exact anchor**: a server certificate that is itself in the bundle, byte for byte, is its own chain, as
//!   `openssl req -x509` and Python's `ssl` have it. Validity, purpose, key and name still count;
//! - **identity**: if an operator named the certificate itself, that one and no other is accepted, while it is valid;
//!   its names and its issuer do not count (compare RFC 7671 section 5.1);
//! - the name of a trust anchor may be written in other string types or letters than its children have it (RFC 5280
//!   section 7.1). webpki compares bytes, so it is given the anchor under each spelling that occurs;
//! - directoryName constraints of a trust anchor are checked here, since webpki refuses them unseen.
//!
//! **Report-only.** With [`Case::report_only_classes`] the question is whether anything else would be refused if
//! those classes were fixed: at a moment at which the certificates are valid, and below the highest certificate that
//! was sent, as if it were in the bundle. webpki and all checks answer that, too.
//!
//! Checks are asked inside webpki's search, so that one bad path does not hide a good one.

use std::{borrow::Cow, cell::RefCell};

use rustls_pki_types::{CertificateDer, TrustAnchor};
use time::OffsetDateTime;
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::clock::unix;

use super::{
    case::Case,
    checks::{self, Role},
    classify::{Refusal, is_out_of_budget},
    dn,
    failure::{CertificateRef, Code, Finding, Link},
    fingerprint::Fingerprint,
    names,
    path::{PathByNames, PathEnd},
    presented::{Certificate, Facts},
    signature::{Algorithms, algorithms},
};

/// How an accepted upstream was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// By what.
    pub proof: Proof,
    /// The certification path, from the server's own certificate upwards.
    pub path: Vec<CertificateRef>,
    /// When the first thing that the verdict rests on expires: a certificate, the anchor, or a revocation list.
    pub until: OffsetDateTime,
}

/// By what an upstream was verified.
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

/// Verifies what a server presented.
///
/// # Errors
/// The [`Refusal`], with what decided and all else that is wrong.
pub fn verify(case: &Case<'_>) -> Result<Accepted, Box<Refusal>> {
    verify_with(case, algorithms())
}

/// The same with other signature algorithms than the program has: for fuzzing, where every signature holds.
///
/// # Errors
/// As [`verify`].
pub fn verify_with(case: &Case<'_>, algorithms: Algorithms<'_>) -> Result<Accepted, Box<Refusal>> {
    let Some(own) = case.end_entity() else { return Err(Refusal::no_certificate()) };
    let end_entity = match EndEntityCert::try_from(&own.der) {
        Ok(end_entity) => end_entity,
        Err(error) => return Err(Refusal::from_webpki(case, &error, &[])),
    };
    if !case.trust.terms.identities.is_empty() {
        let mut findings = other_identity(case, own).into_iter().chain(check_standalone(case, own));
        return match findings.find(|finding| !case.is_report_only(finding.code)) {
            Some(finding) => Err(Refusal::of(case, finding)),
            None => Ok(accept_without_path(Proof::Identity, own)),
        };
    }
    let accepted = match find_path(case, &end_entity, algorithms) {
        Ok(accepted) => accepted,
        Err(refused) if is_exact_anchor(case, own, &refused) => {
            let mut findings = check_exact(case, own).into_iter();
            if let Some(finding) = findings.find(|finding| !case.is_report_only(finding.code)) {
                return Err(Refusal::of(case, finding));
            }
            accept_without_path(Proof::Exact, own)
        }
        Err(mut refused) => {
            if case.report_only_classes.is_empty() || is_out_of_budget(&refused.error) {
                return Err(Refusal::from_webpki(case, &refused.error, &refused.objections));
            }
            as_if_mended(case, own, &end_entity, algorithms).map_err(|objections| {
                refused.objections.extend(objections);
                never_valid_at_once(case, &refused)
            })?
        }
    };
    match end_entity.verify_is_valid_for_subject_name(&case.reference.server_name()) {
        Ok(()) => Ok(accepted),
        Err(_) if names::mismatch(case).is_some_and(|finding| case.is_report_only(finding.code)) => Ok(accepted),
        // A CA's own certificate in the bundle is an anchor, and nothing for a server to show.
        Err(_) if own.facts.as_ref().is_ok_and(checks::is_bare_ca) => {
            Err(Refusal::of(case, checks::ca_as_server(own, CertificateRef::Presented(0))))
        }
        Err(error) => Err(Refusal::from_webpki(case, &error, &[])),
    }
}

/// Why no path was found: webpki's error, and our objections to the paths that webpki found good.
#[derive(Debug)]
struct NoPath {
    error: webpki::Error,
    objections: Vec<Finding>,
}

/// Looks for a path to the bundle, now.
fn find_path(case: &Case<'_>, end_entity: &EndEntityCert<'_>, algorithms: Algorithms<'_>) -> Result<Accepted, NoPath> {
    let refused = match search(case, end_entity, &Anchors::of_bundle(case), case.now, algorithms) {
        Ok(accepted) => return Ok(accepted),
        Err(refused) => refused,
    };
    let respelt = Anchors::respelt(case);
    if respelt.refs.is_empty() || is_out_of_budget(&refused.error) {
        return Err(refused);
    }
    search(case, end_entity, &respelt, case.now, algorithms).map_err(|other| match refused.error {
        webpki::Error::UnknownIssuer if refused.objections.is_empty() => other,
        _ => refused,
    })
}

/// Trust anchors as webpki takes them, and what they are.
struct Anchors<'a> {
    anchors: Cow<'a, [TrustAnchor<'a>]>,
    refs: Vec<CertificateRef>,
}

impl<'a> Anchors<'a> {
    fn of_bundle(case: &Case<'a>) -> Self {
        let anchors = case.trust.anchors.anchors();
        Self { anchors: Cow::Borrowed(anchors), refs: (0..anchors.len()).map(CertificateRef::Anchor).collect() }
    }

    /// The anchors of the bundle whose names occur in the chain in other spellings, under these.
    fn respelt(case: &Case<'a>) -> Self {
        let (mut anchors, mut refs) = (Vec::new(), Vec::new());
        let names = case.presented.iter().take(MOST_TRIED).filter_map(|sent| sent.facts.as_ref().ok());
        let mut names: Vec<&[u8]> = names.map(|facts| facts.issuer_der.as_slice()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            for ((certificate, at), anchor) in case.anchors().zip(case.trust.anchors.anchors()) {
                let Ok(facts) = &certificate.facts else { continue };
                if facts.subject_der == name || !dn::is_same(&facts.subject_der, name) {
                    continue;
                }
                // webpki has the contents of the SEQUENCE only.
                let Some(contents) = sequence_contents(name) else { continue };
                anchors.push(TrustAnchor { subject: contents.into(), ..anchor.clone() });
                refs.push(at);
            }
        }
        Self { anchors: Cow::Owned(anchors), refs }
    }

    /// One that was sent, as if it were in the bundle.
    fn sent(case: &Case<'a>, place: usize) -> Option<Self> {
        let anchor = webpki::anchor_from_trusted_cert(&case.presented.get(place)?.der).ok()?;
        Some(Self { anchors: Cow::Owned(vec![anchor]), refs: vec![CertificateRef::Presented(place)] })
    }

    /// What webpki took. By identity: a renewed root has the name and the key of the one before it.
    fn find(&self, anchor: &TrustAnchor<'_>) -> Option<CertificateRef> {
        let wanted = std::ptr::from_ref(anchor).cast::<()>();
        let place = self.anchors.iter().position(|known| std::ptr::from_ref(known).cast::<()>() == wanted)?;
        self.refs.get(place).copied()
    }
}

fn sequence_contents(der: &[u8]) -> Option<&[u8]> {
    let (rest, any) = <x509_parser::asn1_rs::Any<'_> as x509_parser::prelude::FromDer<'_, _>>::from_der(der).ok()?;
    rest.is_empty().then_some(any.data)
}

/// Asks webpki for a path, and our own questions of each path that it offers.
fn search(
    case: &Case<'_>,
    end_entity: &EndEntityCert<'_>,
    anchors: &Anchors<'_>,
    at: OffsetDateTime,
    algorithms: Algorithms<'_>,
) -> Result<Accepted, NoPath> {
    let (intermediates, is_cut) = nearest(case.presented);
    let objections = RefCell::new(Vec::new());
    let accepted = RefCell::new(None);
    let ask = |path: &VerifiedPath<'_>| match check_path(case, path, anchors, algorithms) {
        Ok(good) => {
            accepted.replace(Some(good));
            Ok(())
        }
        Err(findings) => {
            objections.borrow_mut().extend(findings);
            Err(webpki::Error::UnknownIssuer)
        }
    };
    let usage = KeyUsage::server_auth();
    let end =
        end_entity.verify_for_usage(algorithms, &anchors.anchors, &intermediates, unix(at), usage, None, Some(&ask));
    if let Err(error) = end {
        let error = match error {
            webpki::Error::InvalidSignatureForPublicKey | webpki::Error::UnknownIssuer if is_cut => {
                webpki::Error::MaximumPathBuildCallsExceeded
            }
            error => error,
        };
        return Err(NoPath { error, objections: objections.take() });
    }
    // webpki does not accept without having asked; should it ever, nobody is verified.
    accepted.take().ok_or(NoPath { error: webpki::Error::UnknownIssuer, objections: Vec::new() })
}

/// The presented certificates that by their names may be above the server's own, nearest first and each once,
/// [`MOST_TRIED`] at most; and whether more were left out. webpki reads all that it is given at each step of its
/// search: with what fits into one handshake that would keep a worker busy for many seconds.
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

/// Our own questions of a path that webpki found good: all objections that are obeyed, or what is accepted.
fn check_path(
    case: &Case<'_>,
    path: &VerifiedPath<'_>,
    anchors: &Anchors<'_>,
    algorithms: Algorithms<'_>,
) -> Result<Accepted, Vec<Finding>> {
    let links = links(case, path, anchors).map_err(|finding| vec![finding])?;
    let mut objections = Vec::new();
    for (place, link) in links.iter().enumerate() {
        objections.extend(checks::certificate(*link, role(case, &links, place), case.now));
    }
    if let Some((_, CertificateRef::Presented(_))) = links.last() {
        objections.extend(checks::path(&links));
        objections.extend(links.iter().filter_map(|(certificate, at)| checks::signature(certificate, *at)));
    }
    objections.extend(checks::directory_constraints(&links));
    objections.extend(checks::unpinned(&case.trust.terms.pins, &links));
    let (lists, revocation) = case.trust.crls.check(&case.revocation(), &links, algorithms);
    objections.extend(revocation);
    objections.retain(|finding| !case.is_report_only(finding.code));
    if !objections.is_empty() {
        return Err(objections);
    }
    let ends = links.iter().filter_map(|(certificate, _)| certificate.facts.as_ref().ok());
    let until = ends.map(|facts| facts.not_after).chain(lists).min().unwrap_or(case.now);
    Ok(Accepted { proof: Proof::Chain, path: links.iter().map(|(_, at)| *at).collect(), until })
}

/// A self-signed certificate at the end is an anchor; an intermediate that stands for one is still an intermediate.
fn role(case: &Case<'_>, links: &[Link<'_>], place: usize) -> Role {
    match links[place] {
        (_, CertificateRef::Presented(0)) => Role::EndEntity,
        (_, CertificateRef::Anchor(_)) => Role::Anchor,
        (certificate, _) if place + 1 == links.len() => {
            let is_root = certificate.facts.as_ref().is_ok_and(Facts::self_issued);
            // The path by names found whether it is self-signed.
            let is_root =
                is_root && PathByNames::of(case).is_some_and(|path| matches!(path.end, PathEnd::SelfSigned { .. }));
            if is_root { Role::Anchor } else { Role::Intermediate }
        }
        _ => Role::Intermediate,
    }
}

/// The certificates of a path, from the server's own to the anchor.
fn links<'a>(case: &Case<'a>, path: &VerifiedPath<'_>, anchors: &Anchors<'_>) -> Result<Vec<Link<'a>>, Finding> {
    let presented = |place: usize| (&case.presented[place], CertificateRef::Presented(place));
    let mut links = vec![presented(0)];
    for issuer in path.intermediate_certificates() {
        let place = case.presented.iter().position(|known| known.der == issuer.der());
        links.push(presented(place.ok_or_else(|| unexpected("an intermediate that was not presented"))?));
    }
    let at = anchors.find(path.anchor()).ok_or_else(|| unexpected("an anchor that is not in the bundle"))?;
    let anchor = case.certificate(at).ok_or_else(|| unexpected("an anchor that is not in the bundle"))?;
    links.push((anchor, at));
    Ok(links)
}

/// What cannot be; should it ever, the path is refused.
fn unexpected(what: &str) -> Finding {
    let sentence = format!("the path found goes through {what}");
    Finding { code: Code::Other, subject: CertificateRef::Handshake, sentence }
}

/// Whether the server's certificate is its own chain.
fn is_exact_anchor(case: &Case<'_>, own: &Certificate, refused: &NoPath) -> bool {
    let is_version_3 = own.facts.as_ref().is_ok_and(|facts| facts.version == 3);
    is_version_3 && case.trust.anchors.exact(&own.der).is_some() && is_about_the_path(refused)
}

/// Whether an error is about how the certificate was issued, which does not matter for one that is in the bundle
/// itself. Revocation, a missing pin, and what is not known here always matter.
fn is_about_the_path(refused: &NoPath) -> bool {
    use webpki::Error as E;
    let always = [Code::CrlExpired, Code::CrlInvalid, Code::PinMismatch, Code::RevocationUnknown, Code::Revoked];
    if refused.objections.iter().any(|finding| always.contains(&finding.code)) {
        return false;
    }
    matches!(
        refused.error,
        E::CaUsedAsEndEntity
            | E::CertExpired { .. }
            | E::CertNotValidYet { .. }
            | E::EndEntityUsedAsCa
            | E::InvalidSignatureForPublicKey
            | E::NameConstraintViolation
            | E::PathLenConstraintViolated
            | E::UnknownIssuer
            | E::UnsupportedSignatureAlgorithmContext(_)
            | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
    )
}

/// What a certificate must hold to without a path.
fn check_standalone(case: &Case<'_>, own: &Certificate) -> Vec<Finding> {
    let at = CertificateRef::Presented(0);
    let facts = match &own.facts {
        Ok(facts) => facts,
        Err(why) => return vec![checks::unreadable(own, at, why)],
    };
    let mut found = Vec::new();
    if case.trust.crls.names(facts) {
        // Without a path nobody knows whether the list's signature is good.
        let sentence = format!("the certificate `{}` is on a revocation list of its issuer", facts.subject);
        found.push(Finding { code: Code::Revoked, subject: at, sentence });
    }
    found.extend(checks::strength(own, at));
    found.extend(checks::validity(own, at, case.now));
    found
}

/// What the exact anchor rule asks beyond that.
fn check_exact(case: &Case<'_>, own: &Certificate) -> Vec<Finding> {
    let at = CertificateRef::Presented(0);
    let mut found = check_standalone(case, own);
    found.extend(checks::critical(own, at));
    found.extend(own.facts.as_ref().ok().and_then(|facts| checks::purpose(facts, at)));
    found.extend(checks::unpinned(&case.trust.terms.pins, &[(own, at)]));
    found
}

/// Accepted without anybody above it.
fn accept_without_path(proof: Proof, own: &Certificate) -> Accepted {
    // One that cannot be read was refused before this.
    let until = own.facts.as_ref().map_or(OffsetDateTime::UNIX_EPOCH, |facts| facts.not_after);
    Accepted { proof, path: vec![CertificateRef::Presented(0)], until }
}

/// Finds another certificate than those that were named.
fn other_identity(case: &Case<'_>, own: &Certificate) -> Option<Finding> {
    let (found, wanted) = (Fingerprint::of(&own.der), &case.trust.terms.identities);
    if wanted.contains(&found) {
        return None;
    }
    let named: Vec<_> = wanted.iter().map(Fingerprint::to_string).collect();
    let named = match named.as_slice() {
        [one] => format!("the one that was named ({one})"),
        all => format!("one of the {} that were named ({})", all.len(), all.join(", ")),
    };
    let sentence = format!("the certificate `{}` ({found}) is not {named}", own.name());
    Some(Finding { code: Code::IdentityMismatch, subject: CertificateRef::Presented(0), sentence })
}

/// What would be accepted if the classes that are only reported were fixed.
///
/// # Errors
/// What our own checks have against it then.
fn as_if_mended(
    case: &Case<'_>,
    own: &Certificate,
    end_entity: &EndEntityCert<'_>,
    algorithms: Algorithms<'_>,
) -> Result<Accepted, Vec<Finding>> {
    let (mut anchors, mut objections) = (vec![Anchors::of_bundle(case), Anchors::respelt(case)], Vec::new());
    if is_chain_report_only(case) {
        match PathByNames::of(case).and_then(|path| path.highest_sent()) {
            Some((_, CertificateRef::Presented(0))) => {
                objections = check_alone_as_issued(case, own);
                objections.retain(|finding| !case.is_report_only(finding.code));
                if objections.is_empty() {
                    return Ok(accept_without_path(Proof::Exact, own));
                }
            }
            Some((_, CertificateRef::Presented(place))) => anchors.extend(Anchors::sent(case, place)),
            _ => {}
        }
    }
    let moments = moments(case);
    let tries = anchors.iter().filter(|anchors| !anchors.refs.is_empty());
    for (anchors, at) in tries.flat_map(|anchors| moments.iter().map(move |at| (anchors, *at))) {
        match search(case, end_entity, anchors, at, algorithms) {
            Ok(accepted) => return Ok(accepted),
            Err(refused) if is_out_of_budget(&refused.error) => break,
            Err(refused) => objections.extend(refused.objections),
        }
    }
    Err(objections)
}

/// A certificate whose issuer is unknown, as if that were in the bundle; of a self-signed one, as if it were itself.
fn check_alone_as_issued(case: &Case<'_>, own: &Certificate) -> Vec<Finding> {
    let at = CertificateRef::Presented(0);
    let mut found = check_exact(case, own);
    let is_self_signed = PathByNames::of(case).is_some_and(|path| matches!(path.end, PathEnd::SelfSigned { .. }));
    if !is_self_signed {
        found.extend(checks::certificate((own, at), Role::EndEntity, case.now));
        found.extend(checks::signature(own, at));
    } else if own.facts.as_ref().is_ok_and(checks::is_bare_ca) {
        found.push(checks::ca_as_server(own, at));
    }
    found
}

/// Classes that more certificates in the bundle would fix.
fn is_chain_report_only(case: &Case<'_>) -> bool {
    let classes = [Code::IncompleteChain, Code::IssuerKeyMismatch, Code::SelfSignedNotInBundle, Code::UnknownIssuer];
    classes.into_iter().any(|class| case.is_report_only(class))
}

fn is_dated(code: Code) -> bool {
    matches!(code, Code::Expired | Code::NotYetValid)
}

/// webpki looks at dates first, and no further: the moments at which it is asked instead, if dates are only
/// reported. There is one among those at which a certificate of the chain begins or ends, if there is any.
fn moments(case: &Case<'_>) -> Vec<OffsetDateTime> {
    let mut moments = vec![case.now];
    if case.report_only_classes.iter().copied().any(is_dated) {
        let chain = case.presented.iter().take(MOST_DATES).filter_map(readable).map(|(_, facts)| facts);
        moments.extend(chain.flat_map(|facts| [facts.not_after, facts.not_before]));
    }
    moments
}

/// A hostile server may send many certificates; each of these may cost two searches for a path.
const MOST_DATES: usize = 8;

/// The refusal of a case, which says so if all that is left is that its dates never fit together.
fn never_valid_at_once(case: &Case<'_>, refused: &NoPath) -> Box<Refusal> {
    let mut refusal = Refusal::from_webpki(case, &refused.error, &refused.objections);
    let is_left = refusal.findings().any(|finding| !case.is_report_only(finding.code));
    let is_dated = is_dated(refusal.verdict.code) && case.is_report_only(refusal.verdict.code);
    if is_dated && !is_left {
        refusal.verdict.sentence.push_str("; and there is no moment at which its whole chain was valid");
    }
    refusal
}
