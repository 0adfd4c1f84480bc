//! SHA-256 fingerprints, as operators write them: of a certificate, or of a public key (a pin).

use std::{fmt, str::FromStr};

use aws_lc_rs::digest;
use data_encoding::{BASE64, HEXLOWER, HEXLOWER_PERMISSIVE};

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut value = [0; 32];
        value.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(value)
    }

    /// As curl's `--pinnedpubkey` and HPKP have it: `sha256//` and Base64.
    pub fn base64(&self) -> String {
        format!("sha256//{}", BASE64.encode(&self.0))
    }

    /// Lower-case hex.
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = &'static str;

    /// Reads `sha256:HEX`, with colons between octets as OpenSSL prints them or without, and `sha256//BASE64`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "write `sha256:` and 64 hex digits, or `sha256//` and Base64; `vouchsafe pin` prints both";
        let bytes = if let Some(digits) = text.strip_prefix("sha256//") {
            BASE64.decode(digits.as_bytes())
        } else {
            let digits = text.strip_prefix("sha256:").ok_or(EXPECTED)?.replace(':', "");
            HEXLOWER_PERMISSIVE.decode(digits.as_bytes())
        };
        bytes.ok().and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(EXPECTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_are_one_value() {
        let of = Fingerprint::of(b"");
        let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(of.to_string(), format!("sha256:{hex}"));
        let colons: Vec<_> = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap()).collect();
        for text in [of.to_string(), of.base64(), format!("sha256:{}", colons.join(":").to_uppercase())] {
            assert_eq!(text.parse(), Ok(of), "{text}");
        }
        for text in ["", hex, "sha256:", "sha256:00", "sha256//AAAA", "md5:00", "sha256:zz"] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
