//! Who we are, for servers that ask for a client certificate (RFC 8446 section 4.3.2).

use std::{fmt, sync::Arc};

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{presented::Certificate, trust::not_pem};

/// A certificate with its chain and its key. The key is never shown.
pub struct ClientIdentity {
    /// As rustls takes it.
    pub key: Arc<CertifiedKey>,
    /// The certificate.
    pub certificate: Certificate,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: String,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIdentity({})", self.sha256)
    }
}

impl ClientIdentity {
    /// Reads PEM: the certificate with what stands between it and the root, and its key, not encrypted.
    ///
    /// # Errors
    /// A sentence; it never repeats what is in the key's file.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, String> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("the certificate is not PEM: {}", not_pem(&error)))?;
        let Some(own) = chain.first() else {
            return Err("there is no CERTIFICATE block in the certificate's file".into());
        };
        let certificate = Certificate::read(own);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            "there is no PRIVATE KEY block in the key's file\nhint: it should be PEM and not encrypted (`openssl pkey -in KEY -out PLAIN`), readable by this process alone"
        })?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
            _ => "the certificate or its key cannot be used".to_owned(),
        })?;
        Ok(Self { key: Arc::new(key), sha256: certificate.sha256.clone(), certificate })
    }
}
