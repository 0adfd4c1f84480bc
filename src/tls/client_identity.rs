//! Who we are, for servers that ask for a client certificate (RFC 8446 section 4.3.2).

use std::{fmt, sync::Arc};

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    presented::Certificate,
    trust::{converted, is_der, not_pem},
};

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
    /// [`IdentityError`]; it never repeats what is in the key's file.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        if is_der(chain) {
            let hint = format!("convert it: {}", converted("FILE"));
            return Err(IdentityError::Certificate(format!("it is DER, not PEM\nhint: {hint}")));
        }
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|error| IdentityError::Certificate(format!("it is not PEM: {}", not_pem(&error))))?;
        let Some(own) = chain.first() else {
            return Err(IdentityError::Certificate(
                "no CERTIFICATE block in it\nhint: it should hold the certificate, PEM, and behind it what issued it"
                    .into(),
            ));
        };
        let certificate = Certificate::read(own);
        let own_key = PrivateKeyDer::from_pem_slice(key).map_err(|_| IdentityError::Key(no_key(key)))?;
        let key = CertifiedKey::from_der(chain, own_key, &aws_lc_rs::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => IdentityError::Key(format!(
                "it is not the key of the certificate `{}`\nhint: `openssl pkey -in KEY -pubout` and `openssl x509 -in CERTIFICATE -noout -pubkey` print the same where they belong together; the certificate stands before those of its CAs",
                certificate.name()
            )),
            rustls::Error::InvalidCertificate(_) => {
                IdentityError::Certificate(format!("the certificate `{}` cannot be used", certificate.name()))
            }
            _ => IdentityError::Key(
                "it cannot be used\nhint: it should be an RSA key of 2048 bits or more, P-256, P-384, P-521 or Ed25519".into(),
            ),
        })?;
        Ok(Self { key: Arc::new(key), sha256: certificate.sha256.clone(), certificate })
    }
}

/// Why there is no key to be had of these bytes.
fn no_key(bytes: &[u8]) -> String {
    let has = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
    // PKCS#8 says it in its label, the older form in a line below.
    let why = match has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        true => "the key in it is encrypted, and nobody is here to be asked for the password",
        false => "no PRIVATE KEY block in it",
    };
    format!(
        "{why}\nhint: it should be PEM and not encrypted (`openssl pkey -in KEY -out PLAIN`), readable by this process alone"
    )
}

/// Which file of the two is at fault, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The certificate's.
    Certificate(String),
    /// The key's.
    Key(String),
}
