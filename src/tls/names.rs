//! Whether a server's certificate is valid for the name asked for, and the words if it is not (RFC 9525).
//!
//! webpki decides; this says why.

use webpki::EndEntityCert;

use super::{
    case::Case,
    constraints::list,
    failure::{CertificateRef, Code, Finding},
    identity::ReferenceId,
    presented::Facts,
};

/// Whether the server's certificate has the name, by webpki; `None` if webpki cannot read the certificate.
pub fn has_name(case: &Case<'_>) -> Option<bool> {
    let own = EndEntityCert::try_from(&case.end_entity()?.der).ok()?;
    Some(own.verify_is_valid_for_subject_name(&case.reference.server_name()).is_ok())
}

/// The finding, if it has not.
pub fn mismatch(case: &Case<'_>) -> Option<Finding> {
    let facts = case.end_entity()?.facts.as_ref().ok()?;
    let wanted = case.reference.value();
    if has_name(case).unwrap_or_else(|| seems_to_have(facts, case.reference)) {
        return None;
    }
    let finding = |code, sentence| Some(Finding { code, subject: CertificateRef::Presented(0), sentence });
    if !facts.has_san {
        let cn = facts.common_name.as_deref().unwrap_or("none");
        return finding(
            Code::NoSan,
            format!("the certificate has no subjectAltName; its common name `{cn}` is not a name to verify by"),
        );
    }
    let offered = list(&facts.presented_names());
    match case.reference {
        ReferenceId::Ip(_) if facts.dns_names.contains(&wanted) => {
            finding(Code::IpSanMissing, format!("the certificate lists `{wanted}` as a DNS name, not as an IP address"))
        }
        ReferenceId::Ip(_) => finding(
            Code::IpSanMissing,
            format!("the certificate does not list the address `{wanted}`; it is valid for {offered}"),
        ),
        ReferenceId::Dns(_) => finding(Code::NameMismatch, dns_mismatch(facts, &wanted, &offered)),
    }
}

/// Of a certificate that webpki cannot read, for words.
fn seems_to_have(facts: &Facts, reference: &ReferenceId) -> bool {
    if let ReferenceId::Ip(wanted) = reference {
        return facts.ip_addresses.contains(wanted);
    }
    let wanted = reference.value().trim_end_matches('.').to_ascii_lowercase();
    let parent = wanted.split_once('.').map(|(_, parent)| parent);
    let covers = |name: &String| {
        let name = name.to_ascii_lowercase();
        name == wanted || name.strip_prefix("*.").is_some_and(|base| Some(base) == parent)
    };
    facts.dns_names.iter().any(covers)
}

fn dns_mismatch(facts: &Facts, wanted: &str, offered: &str) -> String {
    if let Some(forged) = facts.dns_names.iter().find(|name| name.contains(NUL)) {
        return format!(
            "the certificate has the name `{forged}`, with a NUL byte in it: a forgery, made to pass for `{}` with programs that stop reading there; it is not valid for `{wanted}`",
            forged.split(NUL).next().unwrap_or_default()
        );
    }
    let covers_something = |name: &&String| name.strip_prefix("dns:").is_none_or(|name| dead_wildcard(name).is_none());
    let all = facts.presented_names();
    let of_use: Vec<_> = all.iter().filter(covers_something).cloned().collect();
    let mut sentence = match of_use.is_empty() {
        true => format!("no name of the certificate, of {offered}, covers `{wanted}`"),
        false => format!("the certificate is valid for {}, not for `{wanted}`", list(&of_use)),
    };
    if let Some(why) = facts.dns_names.iter().find_map(|name| wildcard(name, wanted)) {
        sentence.push_str(": ");
        sentence.push_str(&why);
    }
    sentence
}

/// How [`super::presented::escape`] shows a NUL.
const NUL: &str = "\\u{0}";

/// Why a name with a wildcard covers nothing at all.
fn dead_wildcard(name: &str) -> Option<String> {
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));
    if !name.contains('*') {
        return None;
    }
    if first != "*" || rest.contains('*') {
        return Some(format!("`{name}` covers nothing, since `*` must be the whole first label"));
    }
    let is_short = !rest.trim_end_matches('.').contains('.');
    is_short.then(|| format!("`{name}` covers nothing, since a wildcard needs two labels behind it"))
}

/// Why a wildcard that looks as if it covered a name does not.
fn wildcard(name: &str, wanted: &str) -> Option<String> {
    if let Some(why) = dead_wildcard(name) {
        return Some(why);
    }
    let (name, wanted) = (name.to_ascii_lowercase(), wanted.to_ascii_lowercase());
    let rest = name.strip_prefix("*.")?;
    if wanted == rest {
        return Some(format!("`{name}` does not cover `{rest}` itself"));
    }
    let is_below = wanted.strip_suffix(rest).is_some_and(|labels| labels.matches('.').count() > 1);
    is_below.then(|| format!("the wildcard in `{name}` stands for one label only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_that_covers_nothing_is_told_with_the_reason() {
        for (name, wanted, why) in [
            ("*.test", "h.test", Some("two labels behind it")),
            ("*", "h.test", Some("two labels behind it")),
            ("a*.lab.test", "a.lab.test", Some("whole first label")),
            ("a.*.test", "a.b.test", Some("whole first label")),
            ("*.lab.test", "lab.test", Some("does not cover `lab.test` itself")),
            ("*.lab.test", "a.b.lab.test", Some("one label only")),
            ("*.lab.test", "a.other.test", None),
            ("a.lab.test", "b.lab.test", None),
        ] {
            let said = wildcard(name, wanted);
            assert_eq!(said.is_some(), why.is_some(), "{name} {wanted}: {said:?}");
            assert!(said.is_none_or(|said| said.contains(why.unwrap_or_default())), "{name} {wanted}");
        }
    }
}
