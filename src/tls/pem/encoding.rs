//! Files that are not PEM text: what they are instead.

use data_encoding::BASE64;
use memchr::memmem;
use x509_parser::{
    certificate::X509Certificate, certification_request::X509CertificationRequest, prelude::FromDer,
    revocation_list::CertificateRevocationList,
};

use super::{Binary, Cause, PemError};

/// Why the whole file cannot be read as PEM text.
pub(super) fn not_text(bytes: &[u8]) -> Option<PemError> {
    let whole = |cause| Some(PemError { line: None, cause });
    if let Some(little_endian) = utf_32(bytes) {
        return whole(Cause::Utf32 { little_endian });
    }
    if let Some(little_endian) = utf_16(bytes) {
        return whole(Cause::Utf16 { little_endian });
    }
    let has_blocks = memmem::find(bytes, b"-----BEGIN").is_some();
    if let Some(binary) = binary(bytes) {
        return whole(if has_blocks { Cause::BinaryAndPem } else { Cause::Binary(binary) });
    }
    if let Some(at) = memchr::memchr(0, bytes) {
        let cause = if has_blocks { Cause::BinaryAndPem } else { Cause::Binary(Binary::Unknown) };
        return Some(PemError { line: has_blocks.then(|| line_of(bytes, at)), cause });
    }
    if let Some(at) = memmem::find(bytes, br"-----\n").or_else(|| memmem::find(bytes, br"-----\r\n")) {
        let cause = if bytes.trim_ascii_start().starts_with(b"{") { Cause::Json } else { Cause::EscapedLineBreaks };
        return Some(PemError { line: Some(line_of(bytes, at)), cause });
    }
    if !has_blocks && let Some(cause) = encoded(bytes) {
        return whole(cause);
    }
    // `-----BEGIN ` at the start of what was encoded.
    let at = memmem::find(bytes, b"LS0tLS1CRUdJTi")?;
    Some(PemError { line: Some(line_of(bytes, at)), cause: Cause::Base64OfPemInText })
}

/// Whether UTF-32 has its low byte first; `None` if the file is not UTF-32.
fn utf_32(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [0xff, 0xfe, 0, 0, ..] => Some(true),
        [0, 0, 0xfe, 0xff, ..] => Some(false),
        _ => memmem::find(bytes, b"-\0\0\0-\0\0\0-\0\0\0-").map(|at| at % 4 == 0),
    }
}

/// Whether UTF-16 has its low byte first; `None` if the file is not UTF-16. Without a byte order mark, the dashes of a
/// boundary tell.
fn utf_16(bytes: &[u8]) -> Option<bool> {
    match bytes {
        [0xff, 0xfe, ..] => Some(true),
        [0xfe, 0xff, ..] => Some(false),
        _ => memmem::find(bytes, b"-\0-\0-\0-\0-").map(|at| at % 2 == 0),
    }
}

fn line_of(bytes: &[u8], at: usize) -> usize {
    1 + memchr::memchr_iter(b'\n', &bytes[..at]).count()
}

/// What the whole file is, if it is base64 of a text with a block somewhere in it, or of a binary file.
fn encoded(bytes: &[u8]) -> Option<Cause> {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let inner = BASE64.decode(&text).ok()?;
    if memmem::find(&inner, b"-----BEGIN").is_some() {
        return Some(Cause::Base64OfPem);
    }
    binary(&inner).map(Cause::Base64OfBinary)
}

/// What a binary file is; `None` for text.
fn binary(bytes: &[u8]) -> Option<Binary> {
    if bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) {
        return Some(Binary::JavaKeyStore);
    }
    let content = match bytes {
        // A SEQUENCE whose length has more than one octet, or that is of indefinite length (BER).
        [0x30, length @ 0x80..=0x84, rest @ ..] => rest.get(usize::from(length & 0x7f)..).unwrap_or_default(),
        // A short one, such as an elliptic-curve key: `0` and another digit or letter, if it were text.
        [0x30, length, rest @ ..] if rest.len() == usize::from(*length) && rest.iter().any(|byte| *byte < 9) => rest,
        _ => return None,
    };
    // The object identifiers 1.2.840.113549.1.7.x.
    let pkcs7 = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7];
    Some(if content.starts_with(&pkcs7) {
        Binary::Pkcs7
    } else if content.starts_with(&[2, 1, 3]) {
        Binary::Pkcs12
    } else if content.starts_with(&[2, 1, 0]) || content.starts_with(&[2, 1, 1, 4]) {
        Binary::PrivateKey
    } else if X509Certificate::from_der(bytes).is_ok() {
        Binary::Certificate
    } else if CertificateRevocationList::from_der(bytes).is_ok() {
        Binary::Crl
    } else if X509CertificationRequest::from_der(bytes).is_ok() {
        Binary::Request
    } else {
        Binary::Other
    })
}

/// Whether the contents of a block or file are PKCS #7: some tools write it under the label CERTIFICATE.
pub fn is_pkcs7(der: &[u8]) -> bool {
    binary(der) == Some(Binary::Pkcs7)
}
