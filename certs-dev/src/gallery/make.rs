//! How each case is made: a sound certificate, with one thing changed.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Case, Gallery};
use crate::error::Error;
use crate::pki::{Authority, CaFlag, CaSpec, Identity, KeyKind, LeafSpec, Purpose, Validity, doctor, self_signed};

/// The serial number of the one certificate that is revoked.
pub(super) const REVOKED_SERIAL: u64 = 0x5245_564f_4b45_4421;

impl Gallery {
    pub(super) fn make(&self, case: Case) -> Result<Identity, Error> {
        let sound = || LeafSpec::new(case.id(), self.now).dns(case.name());
        let unnamed = || LeafSpec::new(case.id(), self.now);
        let ca = || CaSpec::intermediate(&format!("Gallery {}", case.id()), self.now);
        let ours = &self.intermediate;
        match case {
            Case::Good => ours.issue(&sound()),
            Case::GoodIp => ours.issue(&unnamed().ip(Ipv4Addr::LOCALHOST).ip(Ipv6Addr::LOCALHOST)),
            Case::GoodWildcard => ours.issue(&unnamed().dns("*.gallery.test")),
            Case::GoodEcdsaP384 => ours.issue(&LeafSpec { key: KeyKind::P384, ..sound() }),
            Case::GoodRsa2048 => ours.issue(&LeafSpec { key: KeyKind::Rsa2048, ..sound() }),
            Case::RootSent => {
                let mut identity = ours.issue(&sound())?;
                identity.chain.push(self.root.certificate_der());
                Ok(identity)
            }
            Case::SelfSignedInBundleCa | Case::SelfSignedLookalike => {
                // Both say the same, to the letter; only their keys differ.
                let name = Case::SelfSignedInBundleCa.name();
                let spec = LeafSpec::new(name, self.now).dns(name).ip(Ipv4Addr::LOCALHOST);
                self_signed(&from_openssl_req(spec))
            }
            Case::SelfSignedInBundleLeaf | Case::SelfSignedUnknownLeaf => {
                self_signed(&LeafSpec { purpose: Purpose::Unstated, ..sound() })
            }
            Case::Expired => ours.issue(&LeafSpec { validity: self.past(), ..sound() }),
            Case::ExpiredIntermediate => {
                self.root.subordinate(&CaSpec { validity: self.past(), ..ca() })?.issue(&sound())
            }
            Case::NotYetValid => {
                let validity = Validity::days(self.now, 10, 375);
                ours.issue(&LeafSpec { validity, ..sound() })
            }
            Case::WrongName => ours.issue(&unnamed().dns("elsewhere.gallery.test")),
            Case::WildcardTwoLabels => ours.issue(&unnamed().dns("*.test")),
            Case::WildcardPartial => ours.issue(&unnamed().dns("wild*.gallery.test")),
            Case::CnOnly => ours.issue(&LeafSpec::new(case.name(), self.now)),
            // An address that is reserved for documentation (RFC 5737).
            Case::WrongIp => ours.issue(&unnamed().ip(Ipv4Addr::new(192, 0, 2, 1))),
            Case::NoIpSan => ours.issue(&unnamed().dns("no-ip-san.gallery.test")),
            Case::IpAsDns => ours.issue(&unnamed().dns("127.0.0.1")),
            Case::MissingIntermediate => {
                let mut identity = ours.issue(&sound())?;
                identity.chain.truncate(1);
                Ok(identity)
            }
            Case::UnknownRoot => Authority::root("Foreign Root", self.now)?
                .intermediate("Foreign Intermediate", self.now)?
                .issue(&sound()),
            Case::SameNameOtherKey => Authority::root("Gallery Root", self.now)?.issue(&sound()),
            Case::SelfSignedUnknownCa => self_signed(&from_openssl_req(sound())),
            Case::SelfSignedInBundleWrongName => {
                self_signed(&from_openssl_req(unnamed().dns("elsewhere.gallery.test")))
            }
            Case::SelfSignedInBundleExpired => {
                self_signed(&from_openssl_req(LeafSpec { validity: self.past(), ..sound() }))
            }
            Case::WrongPurpose => ours.issue(&LeafSpec { purpose: Purpose::Client, ..sound() }),
            Case::NameConstraint => {
                let permitted_dns = vec!["permitted.test".to_owned()];
                self.root.subordinate(&CaSpec { permitted_dns, ..ca() })?.issue(&sound())
            }
            Case::IssuerNotCa => self.root.subordinate(&CaSpec { ca: CaFlag::NotCa, ..ca() })?.issue(&sound()),
            Case::IssuerMayNotSign => {
                // A path length is only for those that may sign (RFC 5280, section 4.2.1.9).
                let issuer = CaSpec { may_sign: false, path_length: None, ..ca() };
                self.root.subordinate(&issuer)?.issue(&sound())
            }
            Case::PathLength => ours.subordinate(&ca())?.issue(&sound()),
            Case::CaAsServer => ours.issue(&LeafSpec { ca: CaFlag::Ca, ..sound() }),
            Case::WeakRsa => ours.issue(&LeafSpec { key: KeyKind::WeakRsa1024, ..sound() }),
            Case::Sha1Signature => {
                let issuer = self.root.subordinate(&CaSpec { key: KeyKind::Rsa2048, ..ca() })?;
                doctored(issuer.issue(&sound())?, |sound| doctor::with_sha1_signature(sound, &issuer))
            }
            Case::BadSignature => doctored(ours.issue(&sound())?, |sound| Ok(doctor::flip_signature_bit(sound))),
            Case::Revoked => ours.issue(&LeafSpec { serial: Some(REVOKED_SERIAL), ..sound() }),
            Case::ExpiredRoot => self.expired_root.subordinate(&ca())?.issue(&sound()),
            Case::CriticalExtension => ours.issue(&LeafSpec { critical_extension: true, ..sound() }),
            Case::Malformed => doctored(ours.issue(&sound())?, |sound| Ok(doctor::truncate(sound))),
            Case::Version1 => doctored(ours.issue(&sound())?, |sound| doctor::as_version_1(sound, ours)),
        }
    }

    /// A year that ended ten days ago.
    fn past(&self) -> Validity {
        Validity::days(self.now, -375, -10)
    }
}

/// What `openssl req -x509` says unless told otherwise: `CA:TRUE`, and no word about usage.
fn from_openssl_req(spec: LeafSpec) -> LeafSpec {
    LeafSpec { ca: CaFlag::Ca, purpose: Purpose::Unstated, ..spec }
}

/// Changes the end-entity certificate.
fn doctored(
    mut identity: Identity,
    change: impl FnOnce(&Certificate) -> Result<Certificate, Error>,
) -> Result<Identity, Error> {
    if let Some(first) = identity.chain.first_mut() {
        *first = change(first)?;
    }
    Ok(identity)
}

type Certificate = rustls_pki_types::CertificateDer<'static>;
