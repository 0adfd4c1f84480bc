//! Handshake signatures with an RSA key that rustls declines to load for its size.
//!
//! They are right, so that a client that gets past the certificate gets past the handshake too:
//! only its care can stop it.

use std::fmt;
use std::sync::Arc;

use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::PrivateKeyDer;

use crate::rsa::{Hash, Key};

/// Loads an RSA key of any size from PKCS#8.
pub(super) fn load(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, crate::Error> {
    Ok(Arc::new(WeakKey(Arc::new(Key::from_pkcs8(key.secret_der())?))))
}

struct WeakKey(Arc<Key>);

impl SigningKey for WeakKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        // TLS 1.3 takes the first only (RFC 8446, section 4.2.3), and TLS 1.2 either.
        let scheme = [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]
            .into_iter()
            .find(|scheme| offered.contains(scheme))?;
        Some(Box::new(WeakSigner { key: Arc::clone(&self.0), scheme }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::RSA
    }
}

impl fmt::Debug for WeakKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakKey")
    }
}

struct WeakSigner {
    key: Arc<Key>,
    scheme: SignatureScheme,
}

impl Signer for WeakSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(match self.scheme {
            SignatureScheme::RSA_PKCS1_SHA256 => self.key.sign_pkcs1(Hash::Sha256, message),
            _ => self.key.sign_pss_sha256(message),
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

impl fmt::Debug for WeakSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakSigner").field("scheme", &self.scheme).finish()
    }
}
