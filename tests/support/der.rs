//! Certificates by hand, for what no library would write. Their signatures are zeros: they are for chains that
//! are refused before a signature counts.

use rustls_pki_types::CertificateDer;

/// One element of DER.
pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut der = vec![tag];
    if content.len() >= 0x80 {
        der.push(0x80 | length.len() as u8);
    }
    der.extend(if content.is_empty() { &[0] } else { length });
    der.extend(content);
    der
}

/// A distinguished name of one common name.
pub fn name(common_name: &str) -> Vec<u8> {
    let value = [&[0x06, 3, 0x55, 4, 3][..], &tlv(0x0c, common_name.as_bytes())].concat();
    tlv(0x30, &tlv(0x31, &tlv(0x30, &value)))
}

/// An extension that is not critical; the number is the last of 2.5.29.
pub fn extension(number: u8, value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&[0x06, 3, 0x55, 0x1d, number][..], &tlv(4, value)].concat())
}

/// What a certificate shall say.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The subject's common name.
    pub subject: String,
    /// The issuer's.
    pub issuer: String,
    /// The serial number.
    pub serial: Vec<u8>,
    /// The algorithm that it claims to be signed with.
    pub algorithm: Vec<u8>,
    /// Its Ed25519 key, so to speak.
    pub key: u32,
    /// All extensions, made by [`extension`].
    pub extensions: Vec<Vec<u8>>,
}

impl Spec {
    /// An authority, whose key is of this number.
    pub fn ca(subject: &str, issuer: &str, key: u32) -> Self {
        let basic_constraints = extension(19, b"\x30\x03\x01\x01\xff");
        Self { extensions: vec![basic_constraints], key, ..Self::leaf(subject, issuer) }
    }

    /// A server's, for `good.gallery.test`.
    pub fn leaf(subject: &str, issuer: &str) -> Self {
        Self {
            subject: subject.into(),
            issuer: issuer.into(),
            serial: vec![1],
            algorithm: ED25519.to_vec(),
            key: 0,
            extensions: vec![extension(17, &tlv(0x30, &tlv(0x82, b"good.gallery.test")))],
        }
    }

    /// The certificate.
    pub fn der(&self) -> CertificateDer<'static> {
        let key = [&[0; 29][..], &self.key.to_be_bytes()].concat();
        let tbs = [
            &[0xa0, 3, 2, 1, 2][..],
            &tlv(2, &self.serial),
            &self.algorithm,
            &name(&self.issuer),
            &tlv(0x30, &[tlv(0x17, b"200101000000Z"), tlv(0x17, b"490101000000Z")].concat()),
            &name(&self.subject),
            &tlv(0x30, &[ED25519, &tlv(3, &key)].concat()),
            &tlv(0xa3, &tlv(0x30, &self.extensions.concat())),
        ];
        tlv(0x30, &[&tlv(0x30, &tbs.concat()), &self.algorithm[..], &tlv(3, &[0; 65])].concat()).into()
    }
}

const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";
