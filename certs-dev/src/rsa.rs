//! RSA signatures that the library underneath declines to make: with a 1024-bit key, and over SHA-1.
//!
//! The gallery needs them to be *right*: a signature that does not hold would be refused for that,
//! and the case would prove nothing. Not constant in time, so only ever for keys that are worthless.
//!
//! - RSASSA-PKCS1-v1_5 and RSASSA-PSS: [RFC 8017](https://www.rfc-editor.org/rfc/rfc8017), section 8
//! - Montgomery multiplication, word by word, on 32-bit words, least significant first

use aws_lc_rs::digest::{self, Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use crate::der::{self, Element};
use crate::error::Error;

/// The hash of a signature.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hash {
    Sha1,
    Sha256,
}

impl Hash {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Sha1 => &SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &SHA256,
        }
    }

    /// `DigestInfo` up to the digest itself (RFC 8017, section 9.2, note 1).
    fn digest_info(self) -> &'static [u8] {
        match self {
            Self::Sha1 => b"\x30\x21\x30\x09\x06\x05\x2b\x0e\x03\x02\x1a\x05\x00\x04\x14",
            Self::Sha256 => b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20",
        }
    }
}

/// A private key: modulus and private exponent, most significant byte first.
pub(crate) struct Key {
    modulus: Vec<u8>,
    public_exponent: Vec<u8>,
    private_exponent: Vec<u8>,
}

impl Key {
    /// Reads a PKCS#8 key.
    pub(crate) fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        let outer = Element::read(pkcs8)?.inside(der::SEQUENCE)?;
        let inner = outer.get(2).filter(|key| key.tag == der::OCTET_STRING);
        let inner = inner.ok_or(Error::Der("a key that is not PKCS#8"))?;
        let numbers = Element::read(inner.content)?.inside(der::SEQUENCE)?;
        let [_version, modulus, public, private, ..] = numbers.as_slice() else {
            return Err(Error::Der("a key that is not RSA"));
        };
        if [modulus, public, private].iter().any(|number| number.tag != der::INTEGER) {
            return Err(Error::Der("a key that is not RSA"));
        }
        let unsigned =
            |number: &Element<'_>| number.content.iter().copied().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
        let key =
            Self { modulus: unsigned(modulus), public_exponent: unsigned(public), private_exponent: unsigned(private) };
        // Montgomery multiplication needs an odd modulus, PSS room for two hashes.
        if key.modulus.len() < 68 || key.modulus.last().is_none_or(|byte| byte % 2 == 0) {
            return Err(Error::Der("a modulus that is even or tiny"));
        }
        Ok(key)
    }

    /// `RSAPublicKey` (RFC 8017, appendix A.1.1), as it stands in a certificate.
    pub(crate) fn public_key(&self) -> Vec<u8> {
        let integer = |bytes: &[u8]| {
            let sign: &[u8] = if bytes.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
            der::write(der::INTEGER, &[sign, bytes])
        };
        der::write(der::SEQUENCE, &[&integer(&self.modulus), &integer(&self.public_exponent)])
    }

    /// RSASSA-PKCS1-v1_5.
    pub(crate) fn sign_pkcs1(&self, hash: Hash, message: &[u8]) -> Vec<u8> {
        let digest = digest::digest(hash.algorithm(), message);
        let tail = [hash.digest_info(), digest.as_ref()].concat();
        let padding = self.modulus.len().saturating_sub(tail.len() + 3);
        let encoded = [&[0, 1], vec![0xff; padding].as_slice(), &[0], &tail].concat();
        power(&encoded, &self.private_exponent, &self.modulus)
    }

    /// RSASSA-PSS with SHA-256 and a salt as long as the hash, as TLS 1.3 wants it.
    ///
    /// The salt is drawn from the message: there is no secret here that a random one would guard.
    pub(crate) fn sign_pss_sha256(&self, message: &[u8]) -> Vec<u8> {
        let digest = digest::digest(&SHA256, message);
        let salt = digest::digest(&SHA256, digest.as_ref());
        let hash = digest::digest(&SHA256, &[&[0; 8], digest.as_ref(), salt.as_ref()].concat());

        let zeros = self.modulus.len().saturating_sub(32 + 32 + 2);
        let mut block = [vec![0; zeros].as_slice(), &[1], salt.as_ref()].concat();
        let mask = (0_u32..).flat_map(|counter| {
            let input = [hash.as_ref(), &counter.to_be_bytes()].concat();
            digest::digest(&SHA256, &input).as_ref().to_vec()
        });
        for (byte, mask) in block.iter_mut().zip(mask) {
            *byte ^= mask;
        }
        // The encoding has one bit less than the modulus, whose own highest bit is always set here.
        block[0] &= 0x7f;
        let encoded = [&block, hash.as_ref(), &[0xbc]].concat();
        power(&encoded, &self.private_exponent, &self.modulus)
    }
}

/// `base` to the power of `exponent`, modulo the odd `modulus`.
fn power(base: &[u8], exponent: &[u8], modulus: &[u8]) -> Vec<u8> {
    let field = Montgomery::new(words(modulus));
    let one = field.shifted(1);
    let base = field.multiply(&words(base), &field.shifted(2));
    let mut result = one;
    for bit in exponent.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        result = field.multiply(&result, &result);
        if bit == 1 {
            result = field.multiply(&result, &base);
        }
    }
    let mut unit = vec![0; field.modulus.len()];
    unit[0] = 1;
    bytes(&field.multiply(&result, &unit), modulus.len())
}

struct Montgomery {
    modulus: Vec<u32>,
    /// Minus the inverse of the lowest word, modulo 2^32.
    inverse: u32,
}

impl Montgomery {
    fn new(modulus: Vec<u32>) -> Self {
        let mut inverse = 1_u32;
        // Newton: each round doubles the number of right bits, and one bit is right at the start.
        for _ in 0..5 {
            let wrong = modulus[0].wrapping_mul(inverse);
            inverse = inverse.wrapping_mul(2_u32.wrapping_sub(wrong));
        }
        Self { modulus, inverse: inverse.wrapping_neg() }
    }

    /// R to the power of `times`, modulo the modulus, where R is one word beyond it.
    fn shifted(&self, times: usize) -> Vec<u32> {
        let size = self.modulus.len();
        let mut value = vec![0; size + 1];
        value[0] = 1;
        for _ in 0..size * 32 * times {
            let mut carry = 0;
            for word in &mut value {
                (*word, carry) = (*word << 1 | carry, *word >> 31);
            }
            self.reduce_once(&mut value);
        }
        value.truncate(size);
        value
    }

    /// `a` times `b`, divided by R, modulo the modulus.
    fn multiply(&self, a: &[u32], b: &[u32]) -> Vec<u32> {
        let size = self.modulus.len();
        let mut sum = vec![0_u32; size + 2];
        for factor in b {
            add_product(&mut sum, a, *factor);
            let factor = sum[0].wrapping_mul(self.inverse);
            add_product(&mut sum, &self.modulus, factor);
            sum.rotate_left(1); // the lowest word has become zero
        }
        sum.truncate(size + 1);
        self.reduce_once(&mut sum);
        sum.truncate(size);
        sum
    }

    /// Takes the modulus away once if `value`, one word longer, is not below it.
    fn reduce_once(&self, value: &mut [u32]) {
        let modulus = || self.modulus.iter().copied().chain([0]);
        if value.iter().rev().copied().lt(modulus().rev()) {
            return;
        }
        let mut borrow = false;
        for (word, other) in value.iter_mut().zip(modulus()) {
            let (less, first) = word.overflowing_sub(other);
            let (less, second) = less.overflowing_sub(u32::from(borrow));
            (*word, borrow) = (less, first || second);
        }
    }
}

/// `sum += numbers * factor`; `sum` is long enough for the carry.
fn add_product(sum: &mut [u32], numbers: &[u32], factor: u32) {
    let mut carry = 0_u64;
    for (word, number) in sum.iter_mut().zip(numbers.iter().copied().chain([0, 0])) {
        let total = u64::from(*word) + u64::from(number) * u64::from(factor) + carry;
        (*word, carry) = (total as u32, total >> 32);
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let word = |chunk: &[u8]| chunk.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    bytes.rchunks(4).map(word).collect()
}

fn bytes(words: &[u32], length: usize) -> Vec<u8> {
    let all: Vec<u8> = words.iter().rev().flat_map(|word| word.to_be_bytes()).collect();
    all[all.len() - length..].to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use aws_lc_rs::signature::{
        RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey,
    };

    use super::*;
    use crate::pki::weak_rsa;

    #[test]
    fn signatures_hold_by_an_independent_library() {
        let key = weak_rsa::key().unwrap();
        let sha1 = key.sign_pkcs1(Hash::Sha1, b"message");
        let sha256 = key.sign_pkcs1(Hash::Sha256, b"message");
        let public = key.public_key();
        let check = UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, &public);
        assert!(check.verify(b"message", &sha1).is_ok());
        assert!(check.verify(b"massage", &sha1).is_err());
        let check = UnparsedPublicKey::new(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, &public);
        assert!(check.verify(b"message", &sha256).is_ok());
    }

    #[test]
    fn small_powers_are_right() {
        // 5^13 mod 23 = 21, 2^10 mod 1001 = 23
        assert_eq!(power(&[5], &[13], &[23]), [21]);
        assert_eq!(power(&[0, 2], &[10], &[0x03, 0xe9]), [0, 23]);
    }
}
