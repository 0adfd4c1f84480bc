//! The certificates that clients are shown: made when they are needed, kept in memory, and never written.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use aws_lc_rs::rand;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SanType, SerialNumber,
};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs as provider},
    server::NoServerSessionStorage,
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use tokio::{sync::OnceCell, task::spawn_blocking};

use crate::message::authority::Host;

use super::files::LocalCa;

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// P-256.
    Ecdsa,
    /// RSA with 2048 bits, for clients that know nothing better.
    Rsa,
}

/// The names that a certificate is for, sorted, each once; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeafNames(Vec<Host>);

impl LeafNames {
    /// Those of `hosts` that the CA may sign for; `None` if there are none.
    pub fn permitted(ca: &LocalCa, hosts: impl IntoIterator<Item = Host>) -> Option<Self> {
        let mut names: Vec<_> = hosts.into_iter().filter(|host| ca.permits.covers(host)).collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then_some(Self(names))
    }
}

/// Why there is no certificate.
#[derive(Clone, Debug)]
pub struct MintError(String);

impl fmt::Display for MintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for MintError {}

impl From<rcgen::Error> for MintError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rustls::Error> for MintError {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}

/// Makes certificates, with a key for each kind that lives as long as the process.
pub struct Minter {
    ca: LocalCa,
    provider: Arc<CryptoProvider>,
    ecdsa: LeafKey,
    rsa: OnceCell<LeafKey>,
    kept: Mutex<HashMap<(LeafNames, KeyKind), Kept>>,
}

impl fmt::Debug for Minter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minter").field("ca", &self.ca).finish_non_exhaustive()
    }
}

struct LeafKey {
    pair: KeyPair,
    signing: Arc<dyn SigningKey>,
}

/// A certificate, as it is offered to clients.
struct Kept {
    config: Arc<ServerConfig>,
    made: OffsetDateTime,
    used: OffsetDateTime,
}

/// For so long a certificate is valid; it is made again when half of that is over.
const LIFE: Duration = Duration::hours(24);

/// Clocks differ: it is valid from so long ago.
const BACKDATED: Duration = Duration::hours(1);

/// As many certificates are kept; then the one goes that was not used for longest.
const MOST_KEPT: usize = 1000;

/// The subject. No common name: some verifiers take one for a host's name.
const SUBJECT: &str = "minted by vouchsafe";

impl Minter {
    /// Makes a key for the certificates of this CA.
    ///
    /// # Errors
    /// [`MintError`]
    pub fn new(ca: LocalCa) -> Result<Self, MintError> {
        let ecdsa = LeafKey::new(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)?;
        let provider = Arc::new(provider::default_provider());
        Ok(Self { ca, provider, ecdsa, rsa: OnceCell::new(), kept: Mutex::default() })
    }

    /// The CA.
    pub fn ca(&self) -> &LocalCa {
        &self.ca
    }

    /// What a client is offered: a certificate for these names, HTTP/1.1 or 1.0, and no resumption. `keep`: for other clients,
    /// too.
    ///
    /// # Errors
    /// [`MintError`]
    pub async fn config(
        &self,
        names: LeafNames,
        kind: KeyKind,
        keep: bool,
        now: OffsetDateTime,
    ) -> Result<Arc<ServerConfig>, MintError> {
        let key = match kind {
            KeyKind::Ecdsa => &self.ecdsa,
            KeyKind::Rsa => self.rsa.get_or_try_init(rsa_key).await?,
        };
        // Locked until the certificate is there, so that nobody makes another one for the same names.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let id = (names, kind);
        if let Some(found) = kept.get_mut(&id).filter(|found| now - found.made < LIFE / 2 && found.made <= now) {
            found.used = now;
            return Ok(found.config.clone());
        }
        let config = self.mint(&id.0, key, now)?;
        if keep {
            if kept.len() >= MOST_KEPT
                && let Some(oldest) = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| id.clone())
            {
                kept.remove(&oldest);
            }
            kept.insert(id, Kept { config: config.clone(), made: now, used: now });
        }
        Ok(config)
    }

    fn mint(&self, names: &LeafNames, key: &LeafKey, now: OffsetDateTime) -> Result<Arc<ServerConfig>, MintError> {
        let mut params = CertificateParams::default();
        params.not_before = now - BACKDATED;
        params.not_after = (now + LIFE - BACKDATED).min(self.ca.not_after);
        params.serial_number = random_serial();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, SUBJECT);
        params.subject_alt_names = names.0.iter().map(alternative_name).collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Python since 3.13, Go and Java look for the issuer by it.
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(&key.pair, &self.ca.issuer)?;
        let chain = vec![leaf.into(), self.ca.intermediate.der.clone()];
        let certified = CertifiedKey::new(chain, key.signing.clone());
        let builder =
            ServerConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        // The first that the client offers, too.
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
        // A resumed session would outlive the check of the upstream for its first connection.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl LeafKey {
    fn new(pair: KeyPair) -> Result<Self, MintError> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        Ok(Self { pair, signing: provider::sign::any_supported_type(&der)? })
    }
}

/// Takes up to a second.
async fn rsa_key() -> Result<LeafKey, MintError> {
    let made = spawn_blocking(|| LeafKey::new(KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?));
    made.await.map_err(|error| MintError(error.to_string()))?
}

fn alternative_name(host: &Host) -> Result<SanType, MintError> {
    Ok(match host {
        Host::Ip(ip) => SanType::IpAddress(ip.to_canonical()),
        Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
    })
}

/// A serial number of 16 random bytes; `None`, which is another one, if the system has none.
pub(super) fn random_serial() -> Option<SerialNumber> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).ok()?;
    // Positive, and of this length (RFC 5280 section 4.1.2.2).
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Some(SerialNumber::from_slice(&bytes))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use time::macros::datetime;

    use super::super::{CaSpec, ISSUER_FILE, KEY_FILE, Permits, ROOT_FILE, init};
    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-28 12:00 UTC);

    fn minter(permits: Permits) -> Minter {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca");
        init(&path, &CaSpec { host: "h".into(), permits, now: NOW }).unwrap();
        let [root, issuer, key] = [ROOT_FILE, ISSUER_FILE, KEY_FILE].map(|name| fs::read(path.join(name)).unwrap());
        Minter::new(LocalCa::read(&path, &root, &issuer, &key, NOW).unwrap()).unwrap()
    }

    fn names(minter: &Minter, host: &str) -> LeafNames {
        LeafNames::permitted(minter.ca(), [host.parse().unwrap()]).unwrap()
    }

    async fn same(minter: &Minter, host: &str, kind: KeyKind, before: &Arc<ServerConfig>, at: OffsetDateTime) -> bool {
        Arc::ptr_eq(before, &minter.config(names(minter, host), kind, true, at).await.unwrap())
    }

    #[tokio::test]
    async fn a_certificate_is_kept_for_half_of_its_life_by_name_and_kind() {
        let minter = minter(Permits::Anything);
        let first = minter.config(names(&minter, "a.example"), KeyKind::Ecdsa, true, NOW).await.unwrap();
        assert!(same(&minter, "a.example", KeyKind::Ecdsa, &first, NOW + Duration::hours(11)).await);
        assert!(!same(&minter, "b.example", KeyKind::Ecdsa, &first, NOW).await);
        assert!(!same(&minter, "a.example", KeyKind::Rsa, &first, NOW).await);
        assert!(!same(&minter, "a.example", KeyKind::Ecdsa, &first, NOW + Duration::hours(12)).await);
        // A clock that was set back.
        assert!(!same(&minter, "a.example", KeyKind::Ecdsa, &first, NOW - Duration::hours(1)).await);
        let other = minter.config(names(&minter, "c.example"), KeyKind::Ecdsa, false, NOW).await.unwrap();
        assert!(!same(&minter, "c.example", KeyKind::Ecdsa, &other, NOW).await, "of an upstream that was refused");
    }

    #[tokio::test]
    async fn the_certificate_goes_that_was_not_used_for_longest() {
        let minter = minter(Permits::Anything);
        let first = minter.config(names(&minter, "a.example"), KeyKind::Ecdsa, true, NOW).await.unwrap();
        let second = minter.config(names(&minter, "b.example"), KeyKind::Ecdsa, true, NOW).await.unwrap();
        assert!(same(&minter, "a.example", KeyKind::Ecdsa, &first, NOW + Duration::seconds(1)).await);
        for number in 0..MOST_KEPT - 1 {
            let host = format!("n{number}.example");
            minter.config(names(&minter, &host), KeyKind::Ecdsa, true, NOW + Duration::seconds(2)).await.unwrap();
        }
        assert_eq!(minter.kept.lock().unwrap().len(), MOST_KEPT);
        assert!(same(&minter, "a.example", KeyKind::Ecdsa, &first, NOW + Duration::seconds(3)).await);
        assert!(!same(&minter, "b.example", KeyKind::Ecdsa, &second, NOW + Duration::seconds(3)).await);
    }

    #[test]
    fn names_that_the_ca_may_not_sign_for_are_left_out() {
        let minter = minter(Permits::Only(vec![".a.example".parse().unwrap(), "127.0.0.1".parse().unwrap()]));
        let permitted =
            |hosts: &[&str]| LeafNames::permitted(minter.ca(), hosts.iter().map(|host| host.parse().unwrap()));
        assert_eq!(permitted(&["b.example", "127.0.0.1"]), permitted(&["127.0.0.1"]));
        assert_eq!(permitted(&["x.a.example", "127.0.0.1"]), permitted(&["127.0.0.1", "x.a.example", "127.0.0.1"]));
        assert_eq!(permitted(&["b.example"]), None);
    }

    #[test]
    fn what_the_certificates_permit_is_read_back() {
        let only = ["a.example", ".b.example", "192.0.2.0/24", "2001:db8::/32"].map(|text| text.parse().unwrap());
        for permits in [Permits::Only(only.to_vec()), Permits::Only(only[..1].to_vec()), Permits::Anything] {
            assert_eq!(minter(permits.clone()).ca().permits, permits);
        }
    }
}
