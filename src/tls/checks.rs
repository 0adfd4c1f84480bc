//! Single checks of a certificate, each of which gives a finding or nothing.
//!
//! The verifier asks them of every path that webpki offers, the explanation of whatever was presented. Most of them
//! ask what webpki has asked already. Beyond webpki 0.103 (measured on x509-limbo, BoringSSL's and NIST's corpora):
//! - an issuer whose keyUsage lacks keyCertSign may not issue (RFC 5280 section 4.2.1.3);
//! - keys are RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519;
//! - a trust anchor is held to what its certificate says: validity, CA flag, keyUsage, extendedKeyUsage, critical
//!   extensions. Its path length is not asked (RFC 5280 section 6.1.1, BoringSSL's tests).

use time::OffsetDateTime;

use crate::clock::{distance, rfc3339};

use super::{
    constraints::{self, Violation},
    failure::{CertificateRef, Code, Finding, Link},
    fingerprint::Fingerprint,
    oid,
    presented::{Certificate, Facts, Key, SERVER_AUTH},
};

/// The place of a certificate on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The server's own.
    EndEntity,
    /// Sent, and issued by another CA.
    Intermediate,
    /// At the end of a path: in the bundle, or as if it were.
    Anchor,
}

/// What a certificate is, for sentences.
pub fn certificate_label(at: CertificateRef) -> &'static str {
    match at {
        CertificateRef::Anchor(_) => "the root",
        CertificateRef::Handshake => "the handshake",
        CertificateRef::Presented(0) => "the certificate",
        CertificateRef::Presented(_) => "the intermediate",
    }
}

/// All findings about one certificate in its role, without its signature and its issuers.
pub fn certificate((certificate, at): Link<'_>, role: Role, now: OffsetDateTime) -> Vec<Finding> {
    let facts = match &certificate.facts {
        Ok(facts) => facts,
        Err(why) => return vec![unreadable(certificate, at, why)],
    };
    let mut found = Vec::new();
    if role == Role::Anchor {
        found.extend(unfit_root(facts, at));
        found.extend(anchor_validity(certificate, at, now));
    } else {
        found.extend(version(certificate, at));
        found.extend(critical(certificate, at));
        found.extend(purpose(facts, at));
        found.extend(validity(certificate, at, now));
    }
    match role {
        Role::Intermediate => found.extend(not_a_ca(certificate, at)),
        Role::EndEntity if facts.is_ca == Some(true) => found.push(ca_as_server(certificate, at)),
        _ => {}
    }
    if role != Role::EndEntity {
        found.extend(may_not_sign(facts, at));
    }
    found.extend(strength(certificate, at));
    found
}

/// Findings about a path as a whole, from the end-entity certificate upwards: path lengths and name constraints.
pub fn path(links: &[Link<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(path_length(links));
    for (place, (ca, at)) in links.iter().enumerate().skip(1) {
        let is_anchor = matches!(at, CertificateRef::Anchor(_));
        let violated = links[..place]
            .iter()
            .find_map(|below| constraints::violation(ca, below.0, is_anchor).map(|violation| (*below, violation)));
        found.extend(violated.map(|(below, violation)| name_constraint(below, (ca, *at), violation)));
    }
    found
}

/// directoryName constraints of a trust anchor, on which webpki does not decide.
pub fn directory_constraints(links: &[Link<'_>]) -> Option<Finding> {
    let ((anchor, at), below) = links.split_last()?;
    below.iter().find_map(|link| {
        let violation = constraints::directory_violation(anchor, link.0)?;
        Some(name_constraint(*link, (anchor, *at), violation))
    })
}

fn name_constraint((below, at): Link<'_>, (ca, ca_at): Link<'_>, violation: Violation) -> Finding {
    let (what, above) = (certificate_label(at), certificate_label(ca_at));
    match violation {
        Violation::Name(name, scope) => {
            let names = match &below.facts {
                Ok(facts) if !facts.presented_names().is_empty() && !name.starts_with("directory:") => {
                    format!("is valid for {}", constraints::list(&facts.presented_names()))
                }
                _ => format!("has the name `{name}`"),
            };
            let sentence = format!("{what} `{}` {names}, but {above} `{}` above it {scope}", below.name(), ca.name());
            Finding { code: Code::NameConstraint, subject: at, sentence }
        }
        Violation::Unsupported(form) => {
            let sentence = format!(
                "{above} `{}` has a name constraint of a kind ({form}) that is not supported there; the chain may be sound",
                ca.name()
            );
            Finding { code: Code::NameConstraint, subject: ca_at, sentence }
        }
    }
}

/// A CA below another that does not allow so many. Anchors do not count (RFC 5280 section 6.1.1), nor do CAs that
/// issued to their own name (section 4.2.1.9).
fn path_length(links: &[Link<'_>]) -> Option<Finding> {
    links.iter().enumerate().skip(2).find_map(|(place, (ca, at))| {
        let CertificateRef::Presented(_) = at else { return None };
        let most = ca.facts.as_ref().ok()?.path_length?;
        // webpki counts all of them.
        let below = place - 1;
        if below <= usize::try_from(most).ok()? {
            return None;
        }
        let (low, low_at) = links[place - 1];
        let (cas, are) = (if most == 1 { "CA" } else { "CAs" }, if below == 1 { "is" } else { "are" });
        let sentence = format!(
            "{} `{}` is too deep: {} `{}` above it allows {most} {cas} below itself (path length), and there {are} {below}",
            certificate_label(low_at),
            low.name(),
            certificate_label(*at),
            ca.name()
        );
        Some(Finding { code: Code::PathLength, subject: low_at, sentence })
    })
}

/// Finds that no key of the path is among the pins.
pub fn unpinned(pins: &[Fingerprint], path: &[Link<'_>]) -> Option<Finding> {
    let is_pinned = |(certificate, _): &Link<'_>| {
        certificate.facts.as_ref().is_ok_and(|facts| pins.contains(&Fingerprint::of(&facts.spki)))
    };
    if pins.is_empty() || path.iter().any(is_pinned) {
        return None;
    }
    let own = path.first()?.0.facts.as_ref().ok()?;
    let sentence = format!(
        "no key of the chain is among the {} pinned; the key of the certificate `{}` is {}",
        pins.len(),
        own.subject,
        Fingerprint::of(&own.spki)
    );
    Some(Finding { code: Code::PinMismatch, subject: CertificateRef::Presented(0), sentence })
}

/// A certificate that is marked as a CA, shown as a server's.
pub fn ca_as_server(certificate: &Certificate, at: CertificateRef) -> Finding {
    let sentence =
        format!("the certificate `{}` is a CA certificate, which is not taken as a server's own", certificate.name());
    Finding { code: Code::CaAsServer, subject: at, sentence }
}

/// Whether a certificate is a CA's own, and names no server: nothing for a server to show, in the bundle or not.
pub fn is_bare_ca(facts: &Facts) -> bool {
    facts.is_ca == Some(true) && facts.may_sign_certificates == Some(true) && !facts.has_san
}

fn not_a_ca(certificate: &Certificate, at: CertificateRef) -> Option<Finding> {
    let facts = certificate.facts.as_ref().ok()?;
    if facts.is_ca == Some(true) || facts.version != 3 {
        return None;
    }
    let sentence = format!("the issuer `{}` is not a CA", certificate.name());
    Some(Finding { code: Code::IssuerNotCa, subject: at, sentence })
}

/// Finds a keyUsage that does not let it sign certificates.
pub fn may_not_sign(facts: &Facts, at: CertificateRef) -> Option<Finding> {
    let (code, what) = match at {
        CertificateRef::Anchor(_) => (Code::RootUnfit, "the root"),
        _ => (Code::IssuerMayNotSign, "the issuer"),
    };
    let sentence = format!("{what} `{}` may not sign certificates: its keyUsage lacks keyCertSign", facts.subject);
    (facts.may_sign_certificates == Some(false)).then_some(Finding { code, subject: at, sentence })
}

/// A root that is not fit to issue, whatever its dates: all reasons.
pub fn unfit_root(facts: &Facts, at: CertificateRef) -> Vec<Finding> {
    let mut reasons = Vec::new();
    let harmless = |oid: &&String| ROOT_HARMLESS.contains(&oid.as_str());
    if let Some(oid) = facts.unknown_critical.iter().find(|oid| !harmless(oid)) {
        reasons.push(format!("it has a critical extension that is not understood: {}", oid::named(oid)));
    }
    // X.509 v1 has no basicConstraints; such roots exist and are anchors by the operator's word.
    if facts.version == 3 && facts.is_ca != Some(true) {
        reasons.push("it is not marked as a CA".into());
    }
    // RFC 5280 section 6.1 asks nothing of an anchor but its name and key. OpenSSL, Go and pyca hold it to its
    // purpose, and so do we.
    let serves = |purpose: &String| purpose == SERVER_AUTH || purpose == ANY;
    if let Some(purposes) = facts.purposes.as_ref().filter(|purposes| !purposes.iter().any(serves)) {
        reasons.push(format!("it is meant for {}, not for servers", list(purposes)));
    }
    let sentence = |why| format!("the root `{}` in the bundle is not fit to issue: {why}", facts.subject);
    let finding = |why| Finding { code: Code::RootUnfit, subject: at, sentence: sentence(why) };
    reasons.into_iter().map(finding).collect()
}

/// Extensions that do not limit what an anchor may issue: the key identifiers, which some CAs mark critical against
/// RFC 5280, and the policies, which do not matter as long as none is asked for (section 6.1.1 c).
const ROOT_HARMLESS: [&str; 3] = ["2.5.29.14", "2.5.29.35", "2.5.29.32"];

/// A purpose that stands for all others, but not in a server's own certificate (RFC 5280 section 4.2.1.12).
const ANY: &str = "any";

fn anchor_validity(certificate: &Certificate, at: CertificateRef, now: OffsetDateTime) -> Option<Finding> {
    let finding = validity(certificate, at, now)?;
    let code = if finding.code == Code::Expired { Code::RootExpired } else { finding.code };
    let sentence = match at {
        CertificateRef::Anchor(_) => format!("in the bundle: {}", finding.sentence),
        _ => finding.sentence,
    };
    Some(Finding { code, sentence, ..finding })
}

/// Finds that the time is outside its validity.
pub fn validity(certificate: &Certificate, at: CertificateRef, now: OffsetDateTime) -> Option<Finding> {
    let facts = certificate.facts.as_ref().ok()?;
    let what = certificate_label(at);
    let name = certificate.name();
    if facts.not_before > facts.not_after {
        let sentence = format!("{what} `{name}` ends before it begins: it was never valid");
        return Some(Finding { code: Code::Expired, subject: at, sentence });
    }
    // X.509 has no fractions: a certificate is valid through the whole of its last second.
    if now.unix_timestamp() > facts.not_after.unix_timestamp() {
        let ago = distance((now - facts.not_after).whole_seconds());
        let sentence = format!("{what} `{name}` expired on {} ({ago} ago)", rfc3339(facts.not_after));
        return Some(Finding { code: Code::Expired, subject: at, sentence });
    }
    if now < facts.not_before {
        let ahead = distance((facts.not_before - now).whole_seconds());
        let sentence = format!("{what} `{name}` is valid only from {} (in {ahead})", rfc3339(facts.not_before));
        return Some(Finding { code: Code::NotYetValid, subject: at, sentence });
    }
    None
}

/// Finds another version of X.509 than 3.
pub fn version(certificate: &Certificate, at: CertificateRef) -> Option<Finding> {
    let facts = certificate.facts.as_ref().ok().filter(|facts| facts.version != 3)?;
    let sentence =
        format!("{} `{}` is X.509 version {}; 3 is needed", certificate_label(at), certificate.name(), facts.version);
    Some(Finding { code: Code::CertVersion, subject: at, sentence })
}

/// Finds that it is not meant for servers.
pub fn purpose(facts: &Facts, at: CertificateRef) -> Option<Finding> {
    let purposes = facts.purposes.as_ref()?;
    if purposes.iter().any(|purpose| purpose == SERVER_AUTH) {
        return None;
    }
    let why = match purposes.iter().any(|purpose| purpose == ANY) {
        true => "lists `any purpose` only; servers need `serverAuth` by name".into(),
        false => format!("is not meant for servers but for {}", list(purposes)),
    };
    let sentence = format!("{} `{}` {why}", certificate_label(at), facts.subject);
    Some(Finding { code: Code::WrongPurpose, subject: at, sentence })
}

/// A hostile certificate may list thousands.
fn list(purposes: &[String]) -> String {
    const MOST: usize = 8;
    let named: Vec<_> = purposes.iter().take(MOST).map(|purpose| oid::name(purpose).unwrap_or(purpose)).collect();
    match purposes.len() {
        0 => "nothing".into(),
        count if count > MOST => format!("{} and {} more", named.join(", "), count - MOST),
        _ => named.join(", "),
    }
}

/// Finds a key that is too weak, or of a kind that is not supported.
pub fn strength(certificate: &Certificate, at: CertificateRef) -> Option<Finding> {
    let facts = match &certificate.facts {
        Ok(facts) => facts,
        Err(error) => return Some(unreadable(certificate, at, error)),
    };
    const SUPPORTED: &str = "P-256, P-384, P-521, Ed25519 and RSA from 2048 to 8192 bits are";
    let (code, what) = match &facts.key {
        Key::Curve(_, true) => return None,
        Key::Rsa(bits) if (2048..=8192).contains(bits) => return None,
        Key::Rsa(bits) if *bits < 2048 => (Code::WeakKey, format!("has an RSA key of {bits} bits; 2048 is the least")),
        Key::Rsa(bits) => {
            (Code::UnsupportedKey, format!("has an RSA key of {bits} bits, which is not supported; {SUPPORTED}"))
        }
        Key::Curve(name, false) if name == "explicit curve" => {
            (Code::UnsupportedKey, format!("has a key on an explicit curve, which is not supported; {SUPPORTED}"))
        }
        Key::Curve(name, false) => {
            (Code::UnsupportedKey, format!("has a key on the curve {name}, which is not supported; {SUPPORTED}"))
        }
        key => (
            Code::UnsupportedKey,
            format!("has a key of the kind {}, which is not supported; {SUPPORTED}", key.describe()),
        ),
    };
    let sentence = format!("{} `{}` {what}", certificate_label(at), certificate.name());
    Some(Finding { code, subject: at, sentence })
}

/// A signature with a hash that is broken, or of a kind that is not supported? That of a self-issued certificate is
/// not asked: if it is self-signed, its signature proves nothing.
pub fn signature(certificate: &Certificate, at: CertificateRef) -> Option<Finding> {
    let facts = certificate.facts.as_ref().ok()?;
    if facts.self_issued() {
        return None;
    }
    let (code, name) = match facts.signature_algorithm.as_str() {
        "1.2.840.113549.1.1.2" => (Code::WeakSignature, "MD2"),
        "1.2.840.113549.1.1.3" => (Code::WeakSignature, "MD4"),
        "1.2.840.113549.1.1.4" => (Code::WeakSignature, "MD5"),
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" | "1.3.14.3.2.29" => {
            (Code::WeakSignature, "SHA-1")
        }
        "1.2.840.113549.1.1.10" // RSA-PSS
        | "1.2.840.113549.1.1.11" | "1.2.840.113549.1.1.12" | "1.2.840.113549.1.1.13"
        | "1.2.840.10045.4.3.2" | "1.2.840.10045.4.3.3" | "1.2.840.10045.4.3.4"
        | "1.3.101.112" => return None,
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => (Code::UnsupportedSignature, "SHA-224"),
        other => (Code::UnsupportedSignature, oid::name(other).unwrap_or(other)),
    };
    let sentence = format!("{} `{}` is signed with {name}", certificate_label(at), certificate.name());
    Some(Finding { code, subject: at, sentence })
}

/// Finds a critical extension that is not understood.
pub fn critical(certificate: &Certificate, at: CertificateRef) -> Option<Finding> {
    let facts = certificate.facts.as_ref().ok()?;
    let oid = facts.unknown_critical.first()?;
    let sentence = format!(
        "{} `{}` has a critical extension that is not understood: {}",
        certificate_label(at),
        certificate.name(),
        oid::named(oid)
    );
    Some(Finding { code: Code::CriticalExtension, subject: at, sentence })
}

/// A certificate that our parser cannot read, though webpki may have.
pub fn unreadable(certificate: &Certificate, at: CertificateRef, why: &str) -> Finding {
    let sentence = format!("{} (sha256 {}) cannot be read: {why}", certificate_label(at), certificate.sha256);
    Finding { code: Code::MalformedCertificate, subject: at, sentence }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_purposes_is_cut() {
        let purposes: Vec<_> = (0..10).map(|n| format!("1.{n}")).collect();
        assert_eq!(list(&[]), "nothing");
        assert_eq!(list(&purposes[..2]), "1.0, 1.1");
        assert_eq!(list(&purposes), "1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7 and 2 more");
    }
}
