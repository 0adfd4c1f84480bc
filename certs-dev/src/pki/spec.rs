//! What a certificate shall say, as plain values with sound defaults.

use std::net::IpAddr;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::error::Error;

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: OffsetDateTime,
    /// The last moment.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From `first` until `last`, both in days from `now`; the past is negative.
    pub fn days(now: OffsetDateTime, first: i64, last: i64) -> Self {
        Self { not_before: now + Duration::days(first), not_after: now + Duration::days(last) }
    }
}

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    #[default]
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA with 2048 bits; slow to make.
    Rsa2048,
    /// RSA with 1024 bits: always the same key, which is published with this program's source.
    WeakRsa1024,
}

/// What the extended key usage says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// `clientAuth` alone.
    Client,
    /// `serverAuth` alone.
    #[default]
    Server,
    /// There is no such extension, as in a certificate from `openssl req -x509`.
    Unstated,
}

/// What the basic constraints say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaFlag {
    /// `CA:TRUE`.
    Ca,
    /// `CA:FALSE`.
    #[default]
    NotCa,
}

/// A certificate for a server.
#[derive(Clone, Debug)]
pub struct LeafSpec {
    /// The subject's common name, which a careful client does not look at.
    pub common_name: String,
    /// The names in the SAN.
    pub dns: Vec<String>,
    /// The addresses in the SAN; without names and addresses there is no SAN.
    pub ips: Vec<IpAddr>,
    /// A year from yesterday, unless changed.
    pub validity: Validity,
    /// The kind of the key.
    pub key: KeyKind,
    /// What the key may be used for.
    pub purpose: Purpose,
    /// Whether it claims to be an authority.
    pub ca: CaFlag,
    /// The serial number; if absent, one is drawn from the key.
    pub serial: Option<u64>,
    /// Whether there is a critical extension that nobody knows.
    pub critical_extension: bool,
}

impl LeafSpec {
    /// A sound certificate without any name in its SAN yet.
    pub fn new(common_name: &str, now: OffsetDateTime) -> Self {
        Self {
            common_name: common_name.to_owned(),
            dns: Vec::new(),
            ips: Vec::new(),
            validity: Validity::days(now, -1, 365),
            key: KeyKind::default(),
            purpose: Purpose::default(),
            ca: CaFlag::default(),
            serial: None,
            critical_extension: false,
        }
    }

    /// Adds a DNS name to the SAN.
    pub fn dns(mut self, name: &str) -> Self {
        self.dns.push(name.to_owned());
        self
    }

    /// Adds an address to the SAN.
    pub fn ip(mut self, address: impl Into<IpAddr>) -> Self {
        self.ips.push(address.into());
        self
    }

    pub(super) fn params(&self) -> Result<CertificateParams, Error> {
        let mut params = params(&self.common_name, self.validity);
        for name in &self.dns {
            params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name.as_str())?));
        }
        params.subject_alt_names.extend(self.ips.iter().copied().map(SanType::IpAddress));
        params.is_ca = match self.ca {
            CaFlag::Ca => IsCa::Ca(BasicConstraints::Unconstrained),
            CaFlag::NotCa => IsCa::ExplicitNoCa,
        };
        match self.purpose {
            Purpose::Client => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            Purpose::Server => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
            Purpose::Unstated => {}
        }
        if self.purpose != Purpose::Unstated {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        }
        params.serial_number = self.serial.map(SerialNumber::from);
        if self.critical_extension {
            params.custom_extensions.push(unknown_critical_extension());
        }
        Ok(params)
    }
}

/// A certificate for an authority.
#[derive(Clone, Debug)]
pub struct CaSpec {
    /// The subject's common name.
    pub common_name: String,
    /// From when until when.
    pub validity: Validity,
    /// The kind of the key.
    pub key: KeyKind,
    /// Whether it is an authority at all.
    pub ca: CaFlag,
    /// How many authorities may stand below it; any number if absent.
    pub path_length: Option<u8>,
    /// Whether its key usage lets it sign certificates and revocation lists.
    pub may_sign: bool,
    /// The DNS domains that it may issue for; all if empty.
    pub permitted_dns: Vec<String>,
}

impl CaSpec {
    /// A root: ten years, any number of authorities below it.
    pub fn root(common_name: &str, now: OffsetDateTime) -> Self {
        Self {
            common_name: common_name.to_owned(),
            validity: Validity::days(now, -1, 3650),
            key: KeyKind::default(),
            ca: CaFlag::Ca,
            path_length: None,
            may_sign: true,
            permitted_dns: Vec::new(),
        }
    }

    /// An intermediate: five years, no authority below it.
    pub fn intermediate(common_name: &str, now: OffsetDateTime) -> Self {
        Self { validity: Validity::days(now, -1, 1825), path_length: Some(0), ..Self::root(common_name, now) }
    }

    pub(super) fn params(&self) -> CertificateParams {
        let mut params = params(&self.common_name, self.validity);
        params.is_ca = match (self.ca, self.path_length) {
            (CaFlag::Ca, None) => IsCa::Ca(BasicConstraints::Unconstrained),
            (CaFlag::Ca, Some(length)) => IsCa::Ca(BasicConstraints::Constrained(length)),
            (CaFlag::NotCa, _) => IsCa::ExplicitNoCa,
        };
        params.key_usages = match (self.ca, self.may_sign) {
            (CaFlag::Ca, true) => vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign],
            (CaFlag::Ca, false) => vec![KeyUsagePurpose::DigitalSignature],
            // Either word would be a second thing wrong with an issuer that is no authority.
            (CaFlag::NotCa, _) => Vec::new(),
        };
        params.name_constraints = (!self.permitted_dns.is_empty()).then(|| NameConstraints {
            permitted_subtrees: self.permitted_dns.iter().cloned().map(GeneralSubtree::DnsName).collect(),
            excluded_subtrees: Vec::new(),
        });
        params
    }
}

/// What all certificates have in common.
fn params(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.use_authority_key_identifier_extension = true;
    params
}

/// Its number stands below the one reserved for examples (RFC 5612, section 2); it holds a NULL.
fn unknown_critical_extension() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 32473, 1], vec![0x05, 0x00]);
    extension.set_criticality(true);
    extension
}
