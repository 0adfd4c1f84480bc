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

    /// Whether the text means a fingerprint, well written or not, and no file.
    pub fn is_meant(text: &str) -> bool {
        Self::rest(text).is_some_and(|rest| rest.starts_with([':', '/']))
    }

    /// What stands behind the prefix.
    fn rest(text: &str) -> Option<&str> {
        let (prefix, rest) = text.split_at_checked("sha256".len())?;
        prefix.eq_ignore_ascii_case("sha256").then_some(rest)
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

    /// Reads `sha256:HEX`, with colons between octets as OpenSSL prints them or without, and `sha256//BASE64`; the
    /// prefix in upper case, too.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str =
            "write `sha256:` and 64 hex digits, or `sha256//` and Base64; `vouchsafe pin` prints both";
        let rest = Self::rest(text).ok_or(EXPECTED)?;
        let bytes = match rest.strip_prefix("//") {
            Some(digits) => BASE64.decode(digits.as_bytes()),
            None => {
                let digits = rest.strip_prefix(':').ok_or(EXPECTED)?.replace(':', "");
                HEXLOWER_PERMISSIVE.decode(digits.as_bytes())
            }
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
        let upper = of.base64().replace("sha256", "SHA256");
        for text in [of.to_string(), of.base64(), upper, format!("SHA256:{}", colons.join(":").to_uppercase())] {
            assert_eq!(text.parse(), Ok(of), "{text}");
        }
        for text in ["", hex, "sha256:", "sha256:00", "sha256//AAAA", "md5:00", "sha256:zz", "SHA256", "sha25\u{e9}"] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
