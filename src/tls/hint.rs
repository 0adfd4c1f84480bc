//! What to do about a refusal: one line for the operator, with the flag or the command to use.
//!
//! A hint never says to weaken verification. If several things are wrong, it fixes all of them. `docs/failures.md`
//! says more under each code.

use std::sync::Arc;

use super::{
    case::{Case, Terms, Trust},
    checks,
    failure::{CertificateRef, Code, Finding},
    fingerprint::Fingerprint,
    identity::ReferenceId,
    path::{PathByNames, PathEnd},
    presented::Certificate,
    trust::TrustAnchors,
    verify::verify,
};

/// The hint for a refusal.
pub fn hint(case: &Case<'_>, verdict: &Finding, also: &[Finding]) -> String {
    let is_bare_ca = case.end_entity().and_then(|own| own.facts.as_ref().ok()).is_some_and(checks::is_bare_ca);
    // A CA's own certificate is not fixed but replaced by one for a server.
    if also.is_empty() || is_bare_ca && verdict.code == Code::CaAsServer {
        return fix(case, verdict);
    }
    let all = || std::iter::once(verdict).chain(also);
    let mut requirements: Vec<String> = Vec::new();
    let mut steps: Vec<String> = Vec::new();
    for finding in all() {
        match requirement(case, finding) {
            Some(requirement) if requirements.contains(&requirement) => {}
            Some(requirement) => requirements.push(requirement),
            None if is_of_old_certificate(finding) => {}
            None => steps.push(of_named(case, finding)),
        }
    }
    steps.dedup();
    let is_self_signed = all().any(|finding| finding.code == Code::SelfSignedNotInBundle);
    if !requirements.is_empty() {
        let mut reissue = match all().any(|finding| finding.code == Code::CertVersion) {
            true => format!("have it reissued as X.509 v3 with {}", and(&requirements)),
            false => format!("have it reissued with {}", and(&requirements)),
        };
        if is_self_signed {
            reissue
                .push_str(", and add the new certificate to --ca-bundle once its owner has confirmed the fingerprint");
        }
        let is_nameless = all().any(|finding| finding.code == Code::NoSan);
        if let Some(how) = by_identity(case).filter(|_| is_nameless) {
            reissue.push_str(&format!("; where nobody can, {how}"));
        }
        steps.insert(0, reissue);
    } else if is_self_signed {
        steps.insert(0, self_signed(case));
    }
    if steps.len() > MOST_STEPS {
        let more = steps.len() - MOST_STEPS;
        steps.truncate(MOST_STEPS);
        steps.push(format!("and see the other findings, {more} in number"));
    }
    steps.join("; also: ")
}

/// What to do about one finding of several: an intermediate is called by its name.
fn of_named(case: &Case<'_>, finding: &Finding) -> String {
    let fix = fix(case, finding);
    let is_about_issuer = matches!(finding.code, Code::IssuerMayNotSign | Code::IssuerNotCa);
    match (finding.subject, case.certificate(finding.subject)) {
        (CertificateRef::Presented(1..), Some(certificate)) if !is_about_issuer => {
            fix.replacen("have it ", &format!("have `{}` ", certificate.name()), 1)
        }
        _ => fix,
    }
}

/// So many steps are read.
const MOST_STEPS: usize = 5;

fn and(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// What a reissued certificate fixes anyway.
fn is_of_old_certificate(finding: &Finding) -> bool {
    matches!(finding.code, Code::SelfSignedNotInBundle)
}

/// What a reissued server certificate has to have.
fn requirement(case: &Case<'_>, finding: &Finding) -> Option<String> {
    if finding.subject != CertificateRef::Presented(0) {
        return None;
    }
    Some(match finding.code {
        Code::CaAsServer => "`basicConstraints = CA:FALSE`".into(),
        Code::CriticalExtension => "no critical extension of that kind".into(),
        Code::Expired => "new dates".into(),
        Code::CertVersion | Code::IpSanMissing | Code::NameMismatch | Code::NoSan => {
            format!("`{}` in subjectAltName", wanted_san(case))
        }
        Code::MalformedCertificate => "well-formed contents".into(),
        Code::Revoked => "a new key".into(),
        Code::UnsupportedKey | Code::WeakKey => "an RSA key of 2048 bits or more, or P-256".into(),
        Code::UnsupportedSignature => "a signature with SHA-256, by a CA with an RSA or P-256 key".into(),
        Code::WeakSignature => "a signature with SHA-256".into(),
        Code::WrongPurpose => "`extendedKeyUsage = serverAuth`".into(),
        _ => return None,
    })
}

fn wanted_san(case: &Case<'_>) -> String {
    let wanted = case.reference.value();
    match case.reference {
        ReferenceId::Dns(_) => format!("DNS:{wanted}"),
        ReferenceId::Ip(_) => format!("IP:{wanted}"),
    }
}

/// How to confirm what is about to be trusted.
const CONFIRM: &str = "confirm it with the owner, not from this connection";

/// What to do about one finding.
pub fn fix(case: &Case<'_>, finding: &Finding) -> String {
    let san = wanted_san(case);
    match finding.code {
        Code::Expired => expired(case, finding),
        Code::NotYetValid => "compare the clocks of this host and of the CA's (`date -u`), or wait".into(),
        Code::NameMismatch => name_mismatch(case, &san),
        Code::NoSan => {
            let identity = by_identity(case).map(|how| format!("; where nobody can, {how}")).unwrap_or_default();
            format!(
                "have it reissued with a subjectAltName (`openssl req … -addext subjectAltName={san}`){identity}"
            )
        }
        Code::IpSanMissing => {
            format!("have it reissued with `{san}` in subjectAltName, or reach it by its host name; an attack looks like this, too")
        }
        Code::IncompleteChain => format!(
            "configure the server to send its intermediate certificate; or, if the CA is unknown, add its root to --ca-bundle once you have its fingerprint: {CONFIRM}"
        ),
        Code::UnknownIssuer => unknown_issuer(case),
        Code::SelfSignedNotInBundle => self_signed(case),
        Code::IssuerKeyMismatch => issuer_key_mismatch(case),
        Code::BadSignature => {
            "have it reissued; a certificate that was changed on the way may also mean an attack".into()
        }
        Code::WeakKey => match finding.subject {
            CertificateRef::Anchor(_) => {
                "replace this CA by one with an RSA key of 2048 bits or more, or P-256, in --ca-bundle, too".into()
            }
            _ => "have it reissued with an RSA key of 2048 bits or more, or P-256".into(),
        },
        Code::WeakSignature => "have it reissued with SHA-256 (`openssl … -sha256`)".into(),
        Code::UnsupportedSignature => {
            "have it issued by a CA with an RSA or P-256 key, with SHA-256 (`openssl … -sha256`)".into()
        }
        Code::UnsupportedKey => match finding.subject {
            CertificateRef::Anchor(_) => {
                "replace this CA in --ca-bundle by one with a P-256, P-384 or RSA key; what it issued is reissued".into()
            }
            _ => "have it reissued with a P-256, P-384 or RSA key".into(),
        },
        Code::WrongPurpose => "have it reissued with `extendedKeyUsage = serverAuth`".into(),
        Code::CaAsServer => ca_as_server(case),
        Code::IssuerNotCa | Code::IssuerMayNotSign => {
            "have it issued by a CA certificate (`basicConstraints = CA:TRUE`, `keyUsage = keyCertSign`)".into()
        }
        Code::PathLength => "ask the CA: this chain breaks a limit that the CA itself set".into(),
        Code::NameConstraint => match finding.subject {
            CertificateRef::Presented(1..) => in_bundle_instead(
                case,
                finding,
                "the CA may replace this intermediate by one with constraints on DNS names only",
            ),
            _ => "ask the CA: this chain breaks a limit that the CA itself set".into(),
        },
        Code::CriticalExtension => match finding.subject {
            CertificateRef::Presented(1..) => {
                in_bundle_instead(case, finding, "ask the CA for one without `critical` on that extension")
            }
            _ => "ask the CA for one without `critical` on that extension".into(),
        },
        Code::RootExpired => "replace this root in --ca-bundle by its CA's current one".into(),
        Code::RootUnfit => {
            "replace this root in --ca-bundle by its CA's current one, or have the server's certificate issued by a CA for servers".into()
        }
        Code::CertVersion => format!("have it reissued as X.509 v3 with `{san}` in subjectAltName"),
        Code::ChainTooLong => "add one of its intermediates to --ca-bundle".into(),
        Code::ChainTooComplex => "have the server send only the certificates between its own and the root".into(),
        Code::Revoked => "have it reissued with a new key; a revoked one may be in other hands".into(),
        Code::RevocationUnknown => "give the list of that CA with --crl, too: each CA of a chain has its own".into(),
        Code::CrlExpired | Code::CrlInvalid => "get the CA's current list and give it with --crl".into(),
        Code::PinMismatch => {
            "if the server's owner confirms that its key was changed, add the new pin to `pins` (`vouchsafe pin` prints it)".into()
        }
        Code::IdentityMismatch => format!(
            "if the server's owner confirms the fingerprint {}, name it in `identity`, which takes several; {CONFIRM}",
            own_sha256(case)
        ),
        Code::MalformedCertificate => "have it reissued; `openssl asn1parse` shows where it breaks".into(),
        code => for_handshake(code).into(),
    }
}

fn own_sha256<'a>(case: &Case<'a>) -> &'a str {
    case.end_entity().map_or("", |own| own.sha256.as_str())
}

/// `identity`, if that would do: the verifier is asked. A CA's own certificate is never advised.
fn by_identity(case: &Case<'_>) -> Option<String> {
    let own = case.end_entity()?;
    if own.facts.as_ref().is_ok_and(checks::is_bare_ca) || !case.trust.terms.pins.is_empty() {
        return None;
    }
    let identities = vec![Fingerprint::of(&own.der)];
    let trust = Trust { terms: Terms { identities, ..case.trust.terms.clone() }, ..case.trust.clone() };
    verify(&Case { trust: &trust, ..*case }).ok()?;
    Some(format!("name the certificate itself: `identity = \"sha256:{}\"`; {CONFIRM}", own.sha256))
}

fn expired(case: &Case<'_>, finding: &Finding) -> String {
    const CLOCKS: &str = "if it looks right to you, compare the clocks (`date -u`)";
    let name = case.certificate(finding.subject).map_or_else(String::new, |certificate| certificate.name());
    match finding.subject {
        CertificateRef::Presented(0) | CertificateRef::Handshake => format!("have it renewed; {CLOCKS}"),
        _ if is_above_an_intermediate(case, finding) => format!(
            "have it renewed by its CA, and let the server send the new one; or, if `{name}` is a root of its own by now, add that root to --ca-bundle ({CONFIRM}); {CLOCKS}"
        ),
        _ => format!("have it renewed by its CA, and let the server send the new one; {CLOCKS}"),
    }
}

/// A cross-certificate is sent above an intermediate.
fn is_above_an_intermediate(case: &Case<'_>, finding: &Finding) -> bool {
    let path = PathByNames::of(case);
    path.is_some_and(|path| path.links.iter().position(|(_, at)| *at == finding.subject).is_some_and(|place| place > 1))
}

fn name_mismatch(case: &Case<'_>, san: &str) -> String {
    let is_forged = case
        .end_entity()
        .and_then(|own| own.facts.as_ref().ok())
        .is_some_and(|facts| facts.dns_names.iter().any(|name| name.contains("\\u{0}")));
    if is_forged {
        return "treat it as an attack: find out who answers there, and which CA issued this".into();
    }
    format!(
        "reach it by a name it has (`verify_name` where only the address differs), or have it reissued with `{san}`; an attack looks like this, too"
    )
}

fn unknown_issuer(case: &Case<'_>) -> String {
    let path = PathByNames::of(case);
    let root = path.as_ref().filter(|path| matches!(path.end, PathEnd::SelfSigned { .. }));
    match root.and_then(|path| path.links.last()) {
        Some((root, _)) => format!(
            "if that CA is yours, add its root certificate to --ca-bundle, after its owner has confirmed the fingerprint {}; {CONFIRM}",
            root.sha256
        ),
        None => format!(
            "configure the server to send the intermediates that are missing; or, if that CA is yours, add its root certificate to --ca-bundle once you have its fingerprint: {CONFIRM}"
        ),
    }
}

fn self_signed(case: &Case<'_>) -> String {
    format!(
        "if the server's owner confirms the fingerprint {}, add this certificate to --ca-bundle; {CONFIRM}",
        own_sha256(case)
    )
}

fn issuer_key_mismatch(case: &Case<'_>) -> String {
    let path = PathByNames::of(case);
    match path.as_ref().map(|path| (path.end, path.links.last())) {
        Some((PathEnd::SelfSigned { .. }, Some((root, _)))) => format!(
            "if the owner confirms the fingerprint {}, add that CA to --ca-bundle alongside the other; remove the other when nothing uses it; {CONFIRM}",
            root.sha256
        ),
        Some((PathEnd::Missing { namesake: Some((_, CertificateRef::Presented(_))), .. }, _)) => {
            "the CA was probably re-created: have the certificate reissued by it, or let the server send the CA certificate that issued it".into()
        }
        _ => "the CA was probably re-created, or another CA has its name: get the certificate of the one that issued this, and add it to --ca-bundle alongside the other; remove the other when nothing uses it; confirm its fingerprint with the owner, not from this connection".into(),
    }
}

fn ca_as_server(case: &Case<'_>) -> String {
    let facts = case.end_entity().and_then(|own| own.facts.as_ref().ok());
    match facts.is_some_and(|facts| facts.self_issued()) {
        true => "have that CA issue a certificate for the server, and let the server use that; a CA's own certificate and key should not serve".into(),
        false => "have it reissued with `basicConstraints = CA:FALSE`; a CA's own certificate should not serve".into(),
    }
}

/// An intermediate in the bundle is an anchor, of which less is asked; the verifier is asked whether that helps.
fn in_bundle_instead(case: &Case<'_>, finding: &Finding, otherwise: &str) -> String {
    let intermediate = case.certificate(finding.subject).filter(|intermediate| helps_in_bundle(case, intermediate));
    match intermediate {
        Some(Certificate { sha256, .. }) => format!(
            "{otherwise}; or, if its owner confirms the fingerprint {sha256}, add this intermediate to --ca-bundle, where such a limit can be verified; {CONFIRM}"
        ),
        None => otherwise.to_owned(),
    }
}

fn helps_in_bundle(case: &Case<'_>, certificate: &Certificate) -> bool {
    let known = case.trust.anchors.certificates().iter().map(|anchor| anchor.der.clone());
    let with = known.chain([certificate.der.clone()]).collect();
    TrustAnchors::from_pem("", &[], with).is_ok_and(|anchors| {
        let trust = Trust { anchors: Arc::new(anchors), ..case.trust.clone() };
        verify(&Case { trust: &trust, ..*case }).is_ok()
    })
}

/// Whether a finding matters if the certificate itself was named.
pub fn counts_for_identity(finding: &Finding) -> bool {
    finding.subject == CertificateRef::Presented(0)
        && matches!(
            finding.code,
            Code::CertVersion
                | Code::Expired
                | Code::IdentityMismatch
                | Code::MalformedCertificate
                | Code::NotYetValid
                | Code::Revoked
                | Code::UnsupportedKey
                | Code::WeakKey
        )
}

/// For a server that asked for a renegotiation and got none.
pub const FOR_RENEGOTIATION: &str = "let the server ask for the client certificate in the first handshake: for a whole host name or port, \
     not for single paths; then configure --client-cert and --client-key";

/// The hint for a handshake that failed for another reason than the verdict.
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
