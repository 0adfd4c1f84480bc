//! Who we are, for servers that ask for a client certificate (RFC 8446 section 4.3.2).

use std::{fmt, sync::Arc};

use rustls::{crypto::aws_lc_rs, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{
    pem::{self, Wanted},
    presented::Certificate,
};

/// A certificate with its chain and its key. The key is never shown.
pub struct ClientIdentity {
    /// As rustls takes it.
    pub key: Arc<CertifiedKey>,
    /// The certificate.
    pub certificate: Certificate,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: String,
    /// The name of its file, for messages.
    pub file: String,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIdentity({})", self.sha256)
    }
}

impl ClientIdentity {
    /// Reads PEM files, each with its name for messages: the certificate followed by its intermediates, and its key, not
    /// encrypted. Both may be the same file.
    ///
    /// # Errors
    /// [`IdentityError`]; it never repeats what is in the key's file.
    pub fn from_pem(chain: &(String, Vec<u8>), key: &(String, Vec<u8>)) -> Result<Self, IdentityError> {
        let (file, bytes) = chain;
        let chain = pem::chain(file, bytes, Wanted::ClientIdentity).map_err(IdentityError::Certificate)?;
        let chain: Vec<_> = chain.into_iter().map(CertificateDer::from).collect();
        let Some(own) = chain.first() else {
            return Err(IdentityError::Certificate(
                "no CERTIFICATE block in it\nhint: it should hold the certificate, PEM, and behind it what issued it"
                    .into(),
            ));
        };
        let certificate = Certificate::read(own);
        let own_key = private_key(&key.0, &key.1).map_err(IdentityError::Key)?;
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
        Ok(Self { key: Arc::new(key), sha256: certificate.sha256.clone(), certificate, file: file.clone() })
    }
}

/// The first private key of a PEM file that is not encrypted.
fn private_key(file: &str, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let blocks = pem::read(bytes).map_err(|error| error.sentence(file, Wanted::ClientIdentity))?;
    let is_encrypted = |block: &pem::Block| block.encrypted || block.label == "ENCRYPTED PRIVATE KEY";
    let why = match blocks.iter().find(|block| block.is_private_key()) {
        None => "no PRIVATE KEY block in it".to_owned(),
        Some(block) if is_encrypted(block) => "the key in it is encrypted; encrypted keys are not supported".to_owned(),
        Some(block) => format!("the key in it is of a kind that is not supported: {}", block.label),
    };
    let usable = blocks.into_iter().filter(|block| !is_encrypted(block)).find_map(|block| {
        Some(match &*block.label {
            "PRIVATE KEY" => PrivateKeyDer::Pkcs8(block.der.into()),
            "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(block.der.into()),
            "EC PRIVATE KEY" => PrivateKeyDer::Sec1(block.der.into()),
            _ => return None,
        })
    });
    usable.ok_or_else(|| {
        format!(
            "{why}\nhint: it should be PEM and not encrypted (`openssl pkey -in KEY -out PLAIN`), readable by this process alone"
        )
    })
}

/// Which file of the two is at fault, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityError {
    /// The certificate's.
    Certificate(String),
    /// The key's.
    Key(String),
}

#[cfg(test)]
mod tests {
    use certs_dev::{Case, Gallery};

    use super::*;

    #[test]
    fn certificates_and_a_key_glued_without_a_line_break_are_read() {
        let gallery = Gallery::new(time::OffsetDateTime::now_utc()).unwrap();
        let identity = gallery.identity(Case::Good).unwrap();
        let (chain, key) = (identity.chain_pem(), identity.key_pem());
        assert!(chain.matches("BEGIN").count() > 1);
        let chain = chain.replace("-----\n-----", "----------");
        for text in [chain.trim_end().to_owned() + &key, key.trim_end().to_owned() + &chain] {
            let file = ("both.pem".to_owned(), text.into_bytes());
            let read = ClientIdentity::from_pem(&file, &file).unwrap();
            assert_eq!(read.key.cert, identity.chain);
        }
    }

    #[test]
    fn a_chain_with_a_block_that_is_not_understood_is_refused() {
        let gallery = Gallery::new(time::OffsetDateTime::now_utc()).unwrap();
        let identity = gallery.identity(Case::Good).unwrap();
        let (chain, key) = (identity.chain_pem(), ("k.pem".to_owned(), identity.key_pem().into_bytes()));
        for (from, to, why) in [
            ("BEGIN CERTIFICATE", "BEGIN TRUSTED CERTIFICATE", "`-----END` line has another label"),
            (" CERTIFICATE", " TRUSTED CERTIFICATE", "line 1: this is a block `TRUSTED CERTIFICATE`\nhint: write it"),
            ("-----BEGIN", "----BEGIN", "line 1: it looks like a BEGIN or END line"),
        ] {
            let file = ("c.pem".to_owned(), chain.replacen(from, to, 2).into_bytes());
            let refused = ClientIdentity::from_pem(&file, &key).unwrap_err();
            assert!(matches!(&refused, IdentityError::Certificate(said) if said.contains(why)), "{refused:?}");
        }
    }
}
