//! An authority: it issues certificates, other authorities, and revocation lists.

use rcgen::{
    CertificateParams, CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RevocationReason, RevokedCertParams, RsaKeySize, SerialNumber, SigningKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

use super::identity::{Identity, certificates_pem};
use super::spec::{CaSpec, KeyKind, LeafSpec};
use super::weak_rsa;
use crate::error::Error;

/// A certificate that signs others, with its key and the way up to its root.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// What an identity issued here sends after its own certificate: nothing for a root.
    chain: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// A root, valid for ten years.
    pub fn root(common_name: &str, now: OffsetDateTime) -> Result<Self, Error> {
        Self::self_signed(&CaSpec::root(common_name, now))
    }

    /// A root as described.
    pub fn self_signed(spec: &CaSpec) -> Result<Self, Error> {
        let key = key_pair(spec.key)?;
        let params = spec.params();
        let certificate = params.self_signed(&key)?.into();
        Ok(Self { issuer: Issuer::new(params, key), certificate, chain: Vec::new() })
    }

    /// A root of the same key, as a CA renews itself: whoever believes either believes what both issued.
    pub fn renewed(&self, spec: &CaSpec) -> Result<Self, Error> {
        let key = KeyPair::from_pem(&self.key_pem())?;
        let params = spec.params();
        let certificate = params.self_signed(&key)?.into();
        Ok(Self { issuer: Issuer::new(params, key), certificate, chain: Vec::new() })
    }

    /// An intermediate below this authority, valid for five years.
    pub fn intermediate(&self, common_name: &str, now: OffsetDateTime) -> Result<Self, Error> {
        self.subordinate(&CaSpec::intermediate(common_name, now))
    }

    /// An authority below this one, as described.
    pub fn subordinate(&self, spec: &CaSpec) -> Result<Self, Error> {
        let key = key_pair(spec.key)?;
        let params = spec.params();
        let certificate: CertificateDer<'static> = params.signed_by(&key, &self.issuer)?.into();
        let chain = self.chain_from(certificate.clone());
        Ok(Self { issuer: Issuer::new(params, key), certificate, chain })
    }

    /// An intermediate that was made earlier. Its identities send its certificate and nothing above.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, Error> {
        let issuer = Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?;
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| rcgen::Error::CouldNotParseCertificate)?;
        Ok(Self { issuer, chain: vec![certificate.clone()], certificate })
    }

    /// Its certificate.
    pub fn certificate_der(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// Its certificate as a PEM block.
    pub fn certificate_pem(&self) -> String {
        certificates_pem([&self.certificate])
    }

    /// Its key as a PEM block.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem().replace("\r\n", "\n")
    }

    /// A certificate with a new key, and the chain up to but not including the root.
    pub fn issue(&self, spec: &LeafSpec) -> Result<Identity, Error> {
        let params = spec.params()?;
        let (certificate, key) = match spec.key {
            KeyKind::WeakRsa1024 => (params.signed_by(&weak_rsa::PublicKey::new()?, &self.issuer)?, weak_rsa::pkcs8()?),
            kind => {
                let key = key_pair(kind)?;
                (params.signed_by(&key, &self.issuer)?, pkcs8(&key))
            }
        };
        Ok(Identity { chain: self.chain_from(certificate.into()), key })
    }

    /// A list that names the certificates with these serial numbers, and is valid for thirty days.
    pub fn crl_pem(&self, revoked: &[u64], now: OffsetDateTime) -> Result<String, Error> {
        let this_update = now - Duration::hours(1);
        let entry = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: this_update,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update,
            next_update: now + Duration::days(30),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        Ok(list.signed_by(&self.issuer)?.pem()?.replace("\r\n", "\n"))
    }

    /// The signature of this authority over anything.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.issuer.key().sign(message)?)
    }

    /// The authority's key as PKCS#8.
    pub(crate) fn key_der(&self) -> &[u8] {
        self.issuer.key().serialized_der()
    }

    fn chain_from(&self, certificate: CertificateDer<'static>) -> Vec<CertificateDer<'static>> {
        [certificate].into_iter().chain(self.chain.iter().cloned()).collect()
    }
}

/// A certificate that is signed with its own key, which is made for it.
pub fn self_signed(spec: &LeafSpec) -> Result<Identity, Error> {
    let key = key_pair(spec.key)?;
    let params: CertificateParams = spec.params()?;
    Ok(Identity { chain: vec![params.self_signed(&key)?.into()], key: pkcs8(&key) })
}

fn key_pair(kind: KeyKind) -> Result<KeyPair, Error> {
    Ok(match kind {
        KeyKind::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
        KeyKind::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?,
        KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        // The weak key can be certified, but it is no signer in this library's eyes.
        KeyKind::WeakRsa1024 => return Err(rcgen::Error::KeyGenerationUnavailable.into()),
    })
}

fn pkcs8(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}
