//! Name constraints (RFC 5280 section 4.2.1.10).
//!
//! webpki decides about DNS names and addresses. It refuses every path below a directoryName constraint, so for a
//! trust anchor those are taken out of what it sees ([`super::dn::without_directory_names`]) and are decided here.
//! For all other forms this only finds the words.

use std::net::IpAddr;

use rustls_pki_types::DnsName;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, GeneralSubtree, NameConstraints, ParsedExtension},
    prelude::FromDer,
};

use super::{
    dn::{self, Within},
    presented::{Certificate, general_name},
};

/// What a CA's name constraints have against a certificate below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A name outside what is permitted, or within what is excluded: the name, and what the CA may issue for.
    Name(String, String),
    /// The verifier refuses constraints of this form, met or not: the form's name.
    Unsupported(&'static str),
}

/// The first objection to a certificate below this CA, in any form of name. `is_anchor`: whether the CA is a trust
/// anchor, for which directoryName constraints are supported.
pub fn violation(ca: &Certificate, below: &Certificate, is_anchor: bool) -> Option<Violation> {
    with_constraints(ca, |constraints| {
        let violated = with_names(below, |names| {
            if !is_feasible(constraints, names) {
                return None;
            }
            names.iter().find(|name| !is_met(constraints, name, Forms::All)).map(shown)
        });
        if let Some(name) = violated.flatten() {
            return Some(Violation::Name(name, scope(constraints)));
        }
        unsupported(constraints, below, is_anchor).map(Violation::Unsupported)
    })?
}

/// A directory name of a certificate that a constraint of this trust anchor forbids, and what the anchor may issue
/// for.
pub fn directory_violation(anchor: &Certificate, below: &Certificate) -> Option<Violation> {
    with_constraints(anchor, |constraints| {
        let violated = with_names(below, |names| {
            let mut directory = names.iter().filter(|name| matches!(name, GeneralName::DirectoryName(_)));
            let bases = bases(constraints).filter(|base| matches!(base, GeneralName::DirectoryName(_))).count();
            if directory.clone().count() * bases > MOST_COMPARISONS {
                return directory.next().map(shown);
            }
            directory.find(|name| !is_met(constraints, name, Forms::Directory)).map(shown)
        });
        violated.flatten().map(|name| Violation::Name(name, scope(constraints)))
    })?
}

/// Whether a certificate has a nameConstraints extension, readable or not.
pub fn constrains_names(certificate: &Certificate) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(&certificate.der) else { return false };
    parsed.extensions().iter().any(|extension| extension.oid.to_id_string() == "2.5.29.30")
}

/// What a CA may issue for, in words, if it is limited.
pub fn limits(ca: &Certificate) -> Option<String> {
    with_constraints(ca, |constraints| {
        let is_limited = constraints.permitted_subtrees.is_some() || constraints.excluded_subtrees.is_some();
        is_limited.then(|| scope(constraints))
    })?
}

/// Names are compared so many times at most. For words, none are compared beyond that; a decision is a refusal then.
const MOST_COMPARISONS: usize = 4096;

fn is_feasible(constraints: &NameConstraints<'_>, names: &[GeneralName<'_>]) -> bool {
    names.len() * bases(constraints).count() <= MOST_COMPARISONS
}

fn bases<'a>(constraints: &'a NameConstraints<'a>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let trees = [&constraints.permitted_subtrees, &constraints.excluded_subtrees];
    trees.into_iter().flatten().flatten().map(|tree| &tree.base)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Forms {
    All,
    Directory,
}

fn with_constraints<T>(ca: &Certificate, read: impl FnOnce(&NameConstraints<'_>) -> T) -> Option<T> {
    let (_, parsed) = X509Certificate::from_der(&ca.der).ok()?;
    parsed
        .extensions()
        .iter()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::NameConstraints(constraints) => Some(constraints),
            _ => None,
        })
        .map(read)
}

/// The names of a certificate to which constraints apply: its subjectAltName, and its subject as a directory name.
fn with_names<T>(certificate: &Certificate, read: impl FnOnce(&[GeneralName<'_>]) -> T) -> Option<T> {
    let (_, parsed) = X509Certificate::from_der(&certificate.der).ok()?;
    let mut names = Vec::new();
    for extension in parsed.extensions() {
        if let ParsedExtension::SubjectAlternativeName(alternative) = extension.parsed_extension() {
            names.extend(alternative.general_names.iter().cloned());
        }
    }
    if parsed.subject().iter().next().is_some() {
        names.push(GeneralName::DirectoryName(parsed.subject().clone()));
    }
    Some(read(&names))
}

/// How a name stands to the base of a subtree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    Inside,
    Outside,
    /// Not decided here.
    Unknown,
}

fn is_met(constraints: &NameConstraints<'_>, name: &GeneralName<'_>, forms: Forms) -> bool {
    if forms == Forms::Directory && !matches!(name, GeneralName::DirectoryName(_)) {
        return true;
    }
    let relations = |trees: &Option<Vec<GeneralSubtree<'_>>>, is_excluded| {
        trees.iter().flatten().filter_map(|tree| relation(name, &tree.base, is_excluded)).collect::<Vec<_>>()
    };
    let permitted = relations(&constraints.permitted_subtrees, false);
    let excluded = relations(&constraints.excluded_subtrees, true);
    // For words, what is not decided here counts as met: `unsupported` tells of it. A decision is strict.
    let unknown_is_met = forms == Forms::All;
    let is_inside =
        |relation: &Relation| *relation == Relation::Inside || unknown_is_met && *relation == Relation::Unknown;
    let is_hit =
        |relation: &Relation| *relation == Relation::Inside || !unknown_is_met && *relation == Relation::Unknown;
    (permitted.is_empty() || permitted.iter().any(is_inside)) && !excluded.iter().any(is_hit)
}

/// `None` if the two are names of different forms.
fn relation(name: &GeneralName<'_>, base: &GeneralName<'_>, is_excluded: bool) -> Option<Relation> {
    let decided = |is_inside| Some(if is_inside { Relation::Inside } else { Relation::Outside });
    match (name, base) {
        // What is malformed is webpki's to tell of.
        (GeneralName::DNSName(name), GeneralName::DNSName(_)) if !is_dns_name(name) => None,
        (GeneralName::IPAddress(_), GeneralName::IPAddress(network)) if !is_network(network) => None,
        (GeneralName::DNSName(name), GeneralName::DNSName(base)) => decided(is_below(name, base, is_excluded)),
        (GeneralName::IPAddress(address), GeneralName::IPAddress(network)) => decided(is_in(address, network)),
        (GeneralName::DirectoryName(name), GeneralName::DirectoryName(base)) => Some(match dn::within(name, base) {
            Within::Yes => Relation::Inside,
            Within::No => Relation::Outside,
            Within::Unknown => Relation::Unknown,
        }),
        (GeneralName::RFC822Name(_), GeneralName::RFC822Name(_))
        | (GeneralName::URI(_), GeneralName::URI(_))
        | (GeneralName::OtherName(..), GeneralName::OtherName(..))
        | (GeneralName::RegisteredID(_), GeneralName::RegisteredID(_)) => Some(Relation::Unknown),
        _ => None,
    }
}

fn is_dns_name(name: &str) -> bool {
    DnsName::try_from(name.strip_prefix("*.").unwrap_or(name)).is_ok()
}

/// An address and a mask of ones, then zeros.
fn is_network(octets: &[u8]) -> bool {
    let (_, mask) = octets.split_at(octets.len() / 2);
    let bits = || mask.iter().flat_map(|octet| (0..8).rev().map(move |bit| octet >> bit & 1));
    [8, 32].contains(&octets.len()) && bits().zip(bits().skip(1)).all(|(left, right)| left >= right)
}

/// As webpki has it: a wildcard is within an excluded tree if anything that it stands for is.
fn is_below(name: &str, base: &str, is_excluded: bool) -> bool {
    let (name, base) = (name.to_ascii_lowercase(), base.to_ascii_lowercase());
    let is_below = |name: &str| match base.strip_prefix('.') {
        Some(_) => name.ends_with(&base),
        None => base.is_empty() || name == base || name.ends_with(&format!(".{base}")),
    };
    let could_be = |name: &str| {
        let parent = name.strip_prefix("*.");
        parent.is_some_and(|parent| base.split_once('.').is_some_and(|(_, above)| above == parent))
    };
    is_below(&name) || is_excluded && could_be(&name)
}

fn is_in(address: &[u8], network: &[u8]) -> bool {
    let (base, mask) = network.split_at(network.len() / 2);
    address.len() == base.len() && address.iter().zip(base).zip(mask).all(|((at, base), mask)| at & mask == base & mask)
}

/// A form of constraint for which webpki refuses a certificate, whatever its names.
fn unsupported(constraints: &NameConstraints<'_>, below: &Certificate, is_anchor: bool) -> Option<&'static str> {
    let bases: Vec<_> = bases(constraints).collect();
    if !is_anchor && bases.iter().any(|base| matches!(base, GeneralName::DirectoryName(_))) {
        return Some("directoryName");
    }
    let form = |name: &GeneralName<'_>| {
        let relations = bases.iter().filter_map(|base| relation(name, base, false));
        let is_unknown = relations.into_iter().any(|relation| relation == Relation::Unknown);
        match name {
            _ if !is_unknown => None,
            GeneralName::RFC822Name(_) => Some("rfc822Name"),
            GeneralName::URI(_) => Some("uniformResourceIdentifier"),
            GeneralName::DirectoryName(_) => None,
            _ => Some("otherName"),
        }
    };
    with_names(below, |names| if is_feasible(constraints, names) { names.iter().find_map(form) } else { None })
        .flatten()
}

/// `may issue only for …, not for …`.
fn scope(constraints: &NameConstraints<'_>) -> String {
    let names = |trees: &Option<Vec<GeneralSubtree<'_>>>| {
        let names = trees.as_deref().unwrap_or_default();
        listed(names.iter().map(|tree| base(&tree.base)), names.len())
    };
    match (&constraints.permitted_subtrees, &constraints.excluded_subtrees) {
        (Some(_), Some(_)) => format!(
            "may issue only for {}, not for {}",
            names(&constraints.permitted_subtrees),
            names(&constraints.excluded_subtrees)
        ),
        (Some(_), None) => format!("may issue only for {}", names(&constraints.permitted_subtrees)),
        _ => format!("may not issue for {}", names(&constraints.excluded_subtrees)),
    }
}

fn shown(name: &GeneralName<'_>) -> String {
    general_name(name).trim_start_matches("dns:").to_owned()
}

/// The base of a subtree with its form, in the style of [`super::presented::Facts::presented_names`].
fn base(base: &GeneralName<'_>) -> String {
    match base {
        GeneralName::IPAddress(octets) => {
            let (network, mask) = octets.split_at(octets.len() / 2);
            match (ip(network), ip(mask)) {
                (Some(network), Some(mask)) => format!("ip:{network}/{mask}"),
                _ => "ip:(malformed)".into(),
            }
        }
        other => general_name(other),
    }
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Names for a sentence; a hostile certificate may hold thousands.
pub fn list(names: &[String]) -> String {
    listed(names.iter().cloned(), names.len())
}

fn listed(names: impl Iterator<Item = String>, count: usize) -> String {
    const MOST: usize = 8;
    let bare: Vec<_> = names.take(MOST).map(|name| format!("`{}`", name.trim_start_matches("dns:"))).collect();
    match count {
        0 => "no name at all".into(),
        count if count > MOST => format!("{} and {} more", bare.join(", "), count - MOST),
        _ => bare.join(", "),
    }
}
