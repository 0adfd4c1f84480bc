//! What to do about a refusal: one line for the operator, with the flag or the command to use.
//!
//! A hint never says to weaken verification. `docs/failures.md` says more under each code.

use super::{
    diagnose::Case,
    failure::{Code, Finding, Subject},
    identity::ReferenceId,
};

/// The hint for a verdict on a certificate.
pub fn hint(case: &Case<'_>, verdict: &Finding) -> String {
    let wanted = case.reference.value();
    let san = match case.reference {
        ReferenceId::Dns(_) => format!("DNS:{wanted}"),
        ReferenceId::Ip(_) => format!("IP:{wanted}"),
    };
    let own = case.presented.first();
    let fingerprint = own.map_or("", |certificate| certificate.sha256.as_str());
    match verdict.code {
        Code::Expired => "have it renewed; if it looks right to you, compare the clocks (`date -u`)".into(),
        Code::NotYetValid => "compare the clocks of this host and of the CA's (`date -u`), or wait".into(),
        Code::NameMismatch => {
            format!("reach it by a name it has (`verify_name` where only the address differs), or have it reissued with `{san}`")
        }
        Code::NoSan => format!(
            "have it reissued with a subjectAltName (`openssl req … -addext subjectAltName={san}`); where nobody can, name the certificate itself: `identity = \"sha256:{fingerprint}\"`"
        ),
        Code::IpSanMissing => {
            format!("have it reissued with `{san}` in subjectAltName, or reach it by its host name")
        }
        Code::IncompleteChain => {
            "configure the server to send its intermediate certificate; or, if the CA is unknown, add its root to --ca-bundle".into()
        }
        Code::UnknownIssuer => "if that CA is yours, add its root certificate to --ca-bundle".into(),
        Code::SelfSignedNotInBundle => {
            format!("if the server's owner confirms the fingerprint {fingerprint}, add this certificate to --ca-bundle")
        }
        Code::IssuerKeyMismatch => {
            "the CA was probably made anew: get its present certificate and replace the old one in --ca-bundle".into()
        }
        Code::WeakKey => match verdict.subject {
            Subject::Anchor(_) => "replace this CA by one with an RSA key of 2048 bits or more, or P-256".into(),
            _ => "have it reissued with an RSA key of 2048 bits or more, or P-256".into(),
        },
        Code::WeakSignature => "have it reissued with SHA-256 (`openssl … -sha256`)".into(),
        Code::UnsupportedSignature => {
            "have it issued by a CA with an RSA or P-256 key, with SHA-256 (`openssl … -sha256`)".into()
        }
        Code::UnsupportedKey => "have it reissued with a P-256, P-384 or RSA key".into(),
        Code::WrongPurpose => "have it reissued with `extendedKeyUsage = serverAuth`".into(),
        Code::CaAsServer => {
            "have it reissued with `basicConstraints = CA:FALSE`; a CA's own certificate should not serve".into()
        }
        Code::IssuerNotCa | Code::IssuerMayNotSign => {
            "have it issued by a CA certificate (`basicConstraints = CA:TRUE`, `keyUsage = keyCertSign`)".into()
        }
        Code::PathLength | Code::NameConstraint => {
            "ask the CA: this chain breaks a limit that the CA itself set".into()
        }
        Code::RootExpired | Code::RootUnfit => "replace this root in --ca-bundle by its CA's present one".into(),
        Code::CertVersion => format!("have it reissued as X.509 v3 with `{san}` in subjectAltName"),
        Code::ChainTooLong => "add one of its intermediates to --ca-bundle".into(),
        Code::ChainTooComplex => "have the server send only the certificates between its own and the root".into(),
        Code::Revoked => "have it reissued with a new key; a revoked one may be in other hands".into(),
        Code::RevocationUnknown => {
            "give the list of that CA with --crl, too: each CA of a chain has its own".into()
        }
        Code::CrlExpired | Code::CrlInvalid => "get the CA's present list and give it with --crl".into(),
        Code::PinMismatch => {
            "if the server's owner confirms that its key was changed, add the new pin to `pins` (`vouchsafe pin` prints it)".into()
        }
        Code::IdentityMismatch => {
            format!("if the server's owner confirms the fingerprint {fingerprint}, name it in `identity`")
        }
        code => for_handshake(code).into(),
    }
}

/// The hint for a handshake that failed before or beside the verdict.
pub fn for_handshake(code: Code) -> &'static str {
    match code {
        Code::NotTls => "check the port: what answers there does not speak TLS",
        Code::TlsVersion => "let the server speak TLS 1.3, or TLS 1.2 where `min_tls` (--min-tls) allows it",
        Code::HandshakeRefused => "see the server's log; often no common cipher suite, or an unknown server name",
        Code::ClosedInHandshake => "see the server's log; a server that wants another port or name may close like this",
        Code::HandshakeTimeout => "see whether the server is overloaded, or something swallows its packets",
        Code::ClientCertRefused => {
            "see the server's log for why; compare --client-cert with the CAs that the server takes"
        }
        Code::ClientCertRequired => "give this proxy a certificate for that server with --client-cert and --client-key",
        Code::BadSignature => "have it reissued; a certificate that was changed on the way may also mean an attack",
        Code::MalformedCertificate | Code::CriticalExtension => "have it reissued without the odd part",
        Code::NoCertificate => "configure a certificate on the server",
        _ => "see docs/failures.md",
    }
}
