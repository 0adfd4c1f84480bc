//! The one key that is written down: RSA with 1024 bits, which no library here agrees to make or load.
//!
//! It is a public test key and worthless; whoever trusts it trusts everybody.

use rcgen::{PKCS_RSA_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::error::Error;
use crate::rsa::Key;

/// The key as it is served.
pub(crate) fn pkcs8() -> Result<PrivateKeyDer<'static>, Error> {
    Ok(read()?.into())
}

/// The key as it signs.
pub(crate) fn key() -> Result<Key, Error> {
    Key::from_pkcs8(read()?.secret_pkcs8_der())
}

/// The public half, to be certified.
pub(crate) struct PublicKey(Vec<u8>);

impl PublicKey {
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self(key()?.public_key()))
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

fn read() -> Result<PrivatePkcs8KeyDer<'static>, Error> {
    PrivatePkcs8KeyDer::from_pem_slice(PUBLIC_TEST_KEY_WORTHLESS.as_bytes()).map_err(|_| Error::Der("the weak key"))
}

/// Made once with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024`.
const PUBLIC_TEST_KEY_WORTHLESS: &str = "\
-----BEGIN PRIVATE KEY-----
MIICdwIBADANBgkqhkiG9w0BAQEFAASCAmEwggJdAgEAAoGBALi+gv775DfGhmIG
c1Bvo6hMTRSUzaNdBvDjTEUbi5cYRlfp8KhxEn+bF+eUxRFZHilWUHCUywv+MHPi
yVyXDFlWnpDNAOn34+HQk1J8xwbpFRSUUp6utUcDc++z71MUQXYbBlWGIxjC2VT1
Bu84zckggdZrhyzBh40ycC5TPH4FAgMBAAECgYEAlHTDX5ObORbXNj5ou+J6aOun
pTpOZVCEG18MExynd6uSG2NqeHEkpFZFR1tNYTtz+VPbIBzxbZm95eIAXd8jk+l0
IHX2xO0XnVtf2naYIs0BqtFNxjqGaGD7RgVAsDSE3SrnkKideSYqUVWyLy290DHY
lzrS0nAfuH1bBOmZHaECQQDcI5olSrGuaHQcZ2tFzkSxuHwQNnaG143cdrmr/KZa
wA/P8Vl7v41GjqvKIM3gDWJ8rUhBgd3Grj+bDTOdFM8nAkEA1tbYvXQ2ersxaazx
uNhbrq/4+5wttxtsqZimw9KG0oZUhceoZDq0LwEWSZCDlAgU5iFuiBS4s8BBltM8
9E7E8wJAYaSVAceAylhgcBzbMwpL4/xtYw+VQTgpH0m2D3gwHX6lRNnLlB0hv9MW
lcA5MREexyhhLVU6Fp9BbTfM1fbd7wJAIlamv+lSR92hsT1WSXAzf0FbL4Qv/mNg
w97FUOlWaVHVMqjN7m8/m3+1+z4g+cks5feT/iYpu3lQQnYy+O2aJwJBAJ/SF6xQ
Lrjabb+e2IHDg1vqRkhDVVRsdtF0P0gM/z+hN5TYIycsRUzZoREJkraoIWveoCQK
CXX2wtd7QOCW5Q8=
-----END PRIVATE KEY-----
";
