//! The taxonomy: every way in which an upstream can fail to prove who it is, as a stable code.
//!
//! Codes are words that operators grep for and alert on; a new or changed one is a CHANGELOG entry.
//! `docs/failures.md` has an entry for each.

use std::{fmt, net::SocketAddr};

use super::presented::{Certificate, PresentedChain};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// A class of failure, by its stable word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// Every code, in alphabetical order.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The stable word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

codes! {
    /// A signature in the chain, or of the handshake, does not hold.
    BadSignature = "bad_signature",
    /// A CA certificate is used as a server certificate.
    CaAsServer = "ca_as_server",
    /// An X.509 version other than 3.
    CertVersion = "cert_version",
    /// More intermediates than the verifier follows.
    ChainTooLong = "chain_too_long",
    /// Verifying would take more work than the verifier spends.
    ChainTooComplex = "chain_too_complex",
    /// The server refuses the client certificate that was sent.
    ClientCertRefused = "client_cert_refused",
    /// The server demands a client certificate, and none is configured.
    ClientCertRequired = "client_cert_required",
    /// The peer closed the connection during the handshake.
    ClosedInHandshake = "closed_in_handshake",
    /// A critical extension that the verifier does not know.
    CriticalExtension = "critical_extension",
    /// A revocation list is past its next update.
    CrlExpired = "crl_expired",
    /// A revocation list that cannot be used.
    CrlInvalid = "crl_invalid",
    /// Past notAfter.
    Expired = "expired",
    /// The peer answered the handshake with an alert.
    HandshakeRefused = "handshake_refused",
    /// The handshake took longer than it may.
    HandshakeTimeout = "handshake_timeout",
    /// Another certificate than the one the operator named.
    IdentityMismatch = "identity_mismatch",
    /// The server did not send a certificate between its own and the root.
    IncompleteChain = "incomplete_chain",
    /// No subjectAltName entry is the address asked for.
    IpSanMissing = "ip_san_missing",
    /// The bundle holds the issuer's name with another key.
    IssuerKeyMismatch = "issuer_key_mismatch",
    /// An issuer's keyUsage does not allow it to sign certificates.
    IssuerMayNotSign = "issuer_may_not_sign",
    /// An issuer is not a CA.
    IssuerNotCa = "issuer_not_ca",
    /// A certificate that cannot be parsed.
    MalformedCertificate = "malformed_certificate",
    /// A name constraint of an issuer forbids the name.
    NameConstraint = "name_constraint",
    /// No presented identifier is the one asked for.
    NameMismatch = "name_mismatch",
    /// The server sent no certificate.
    NoCertificate = "no_certificate",
    /// The certificate has no subjectAltName at all.
    NoSan = "no_san",
    /// Before notBefore.
    NotYetValid = "not_yet_valid",
    /// The upstream does not speak TLS.
    NotTls = "not_tls",
    /// Anything newer than this table.
    Other = "other",
    /// A CA issued below its path length.
    PathLength = "path_length",
    /// No key of the chain is among the pins.
    PinMismatch = "pin_mismatch",
    /// No revocation list covers a certificate, and the policy wants one.
    RevocationUnknown = "revocation_unknown",
    /// On a revocation list.
    Revoked = "revoked",
    /// The root is past its own notAfter, or before notBefore.
    RootExpired = "root_expired",
    /// The root in the bundle is not fit to issue certificates.
    RootUnfit = "root_unfit",
    /// A self-signed certificate that is not in the bundle.
    SelfSignedNotInBundle = "self_signed_not_in_bundle",
    /// The TLS handshake broke one of the protocol's rules.
    TlsProtocol = "tls_protocol",
    /// No common TLS version.
    TlsVersion = "tls_version",
    /// The chain leads to no trust anchor.
    UnknownIssuer = "unknown_issuer",
    /// A key type that cannot be used.
    UnsupportedKey = "unsupported_key",
    /// A signature algorithm that cannot be used.
    UnsupportedSignature = "unsupported_signature",
    /// A key too short to trust.
    WeakKey = "weak_key",
    /// Signed with a broken hash.
    WeakSignature = "weak_signature",
    /// Not meant for servers.
    WrongPurpose = "wrong_purpose",
}

impl Code {
    /// Whether a certificate was verified and refused; otherwise the handshake failed for another reason.
    pub const fn is_verdict(self) -> bool {
        !matches!(
            self,
            Self::ClientCertRefused
                | Self::ClientCertRequired
                | Self::ClosedInHandshake
                | Self::HandshakeRefused
                | Self::HandshakeTimeout
                | Self::NotTls
                | Self::TlsProtocol
                | Self::TlsVersion
        )
    }
}

impl Code {
    /// Whether the same request would end the same way until somebody changes something: a decision, and no accident.
    /// These are answered as refusals (403), not as failures (500), so that a client does not try again.
    pub const fn is_refusal(self) -> bool {
        self.is_verdict()
            || matches!(self, Self::ClientCertRefused | Self::ClientCertRequired | Self::NotTls | Self::TlsVersion)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which certificate a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRef {
    /// A trust anchor, by its place in the bundle.
    Anchor(usize),
    /// The handshake as a whole.
    Handshake,
    /// A presented certificate, by its place in what the server sent; 0 is the server's own.
    Presented(usize),
}

/// A certificate of a certification path, and where it was found.
pub type Link<'a> = (&'a Certificate, CertificateRef);

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its class.
    pub code: Code,
    /// Which certificate it is about.
    pub subject: CertificateRef,
    /// A sentence for people, without a full stop.
    pub sentence: String,
}

/// A refused verification, or a handshake that failed: the verdict first, then all other findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationFailure {
    /// What decided.
    pub verdict: Finding,
    /// What would have failed too.
    pub also: Vec<Finding>,
    /// What to do.
    pub hint: String,
}

impl VerificationFailure {
    /// The class of the verdict.
    pub fn code(&self) -> Code {
        self.verdict.code
    }
}

/// A handshake that did not end in trust, with its evidence.
#[derive(Clone, Debug)]
pub struct HandshakeFailure {
    /// What and why.
    pub failure: VerificationFailure,
    /// What the server sent.
    pub presented: PresentedChain,
    /// Where it was.
    pub address: SocketAddr,
    /// When it came to light.
    pub occasion: Occasion,
}

/// When a failure came to light, and what became of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Behind the handshake of a verified server, when a request may have been sent.
    After,
    /// In the handshake, and the connection is used all the same: report-only.
    Bypassed,
    /// In the handshake.
    Handshake,
    /// In a handshake a moment ago, whose verdict still holds; there was no new one.
    Remembered,
}

impl Occasion {
    /// The word for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::After => "after_handshake",
            Self::Bypassed => "bypassed",
            Self::Handshake => "handshake",
            Self::Remembered => "remembered",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_at_every_try_is_a_refusal() {
        let failures: Vec<_> = Code::ALL.iter().filter(|code| !code.is_refusal()).collect();
        let expected = [Code::ClosedInHandshake, Code::HandshakeRefused, Code::HandshakeTimeout, Code::TlsProtocol];
        assert_eq!(failures, expected.iter().collect::<Vec<_>>());
    }

    #[test]
    fn codes_are_distinct_words() {
        let mut words: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(words.iter().all(|w| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Code::ALL.len());
    }
}
