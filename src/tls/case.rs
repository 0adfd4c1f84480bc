//! The evidence of one verification: what is trusted, what the server presented, the name it must prove, and when.

use std::sync::Arc;

use time::OffsetDateTime;

use super::{
    crl::Crls,
    failure::{CertificateRef, Code},
    fingerprint::Fingerprint,
    identity::ReferenceId,
    presented::Certificate,
    revocation::{CrlPolicy, RevocationContext},
    trust::TrustAnchors,
};

/// What is trusted, and under which conditions.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The trust anchors.
    pub anchors: Arc<TrustAnchors>,
    /// The revocation lists.
    pub crls: Arc<Crls>,
    /// What is required beyond a path to an anchor.
    pub terms: Terms,
}

/// Conditions of trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// What to do if the lists do not establish that a certificate is good.
    pub crl_policy: CrlPolicy,
    /// The certificates that are accepted instead of a chain and a name: exactly these, if there are any.
    pub identities: Vec<Fingerprint>,
    /// SHA-256 of subjectPublicKeyInfos, one of which must be on the path; empty for no such requirement.
    pub pins: Vec<Fingerprint>,
}

/// The evidence of one verification.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What is trusted.
    pub trust: &'a Trust,
    /// What the server sent, its own certificate first.
    pub presented: &'a [Certificate],
    /// The name or address that the certificate must be valid for.
    pub reference: &'a ReferenceId,
    /// The moment of the verification.
    pub now: OffsetDateTime,
    /// Findings of these classes are not obeyed (report-only), so that all others can be. Usually empty.
    pub report_only_classes: &'a [Code],
}

impl<'a> Case<'a> {
    /// Whether findings of this class are only reported.
    pub fn is_report_only(&self, code: Code) -> bool {
        self.report_only_classes.contains(&code)
    }

    /// The certificate that a finding is about.
    pub fn certificate(&self, at: CertificateRef) -> Option<&'a Certificate> {
        match at {
            CertificateRef::Anchor(place) => self.trust.anchors.certificates().get(place),
            CertificateRef::Handshake => None,
            CertificateRef::Presented(place) => self.presented.get(place),
        }
    }

    /// The server's own certificate.
    pub fn end_entity(&self) -> Option<&'a Certificate> {
        self.presented.first()
    }

    /// By what the revocation lists are asked.
    pub fn revocation(&self) -> RevocationContext<'a> {
        RevocationContext {
            now: self.now,
            policy: self.trust.terms.crl_policy,
            bundle: self.trust.anchors.certificates(),
            presented: self.presented,
        }
    }

    /// The anchors, each with its place.
    pub fn anchors(&self) -> impl Iterator<Item = (&'a Certificate, CertificateRef)> + use<'a> {
        let anchors = self.trust.anchors.certificates().iter().enumerate();
        anchors.map(|(place, certificate)| (certificate, CertificateRef::Anchor(place)))
    }
}
