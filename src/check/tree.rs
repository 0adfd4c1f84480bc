//! A chain as a tree: who issued what, from the anchor at the top to the server at the bottom.
//!
//! If the verifier accepted, this is the path that it took. If it refused, it is the path by names, as far as it goes,
//! with the link that is missing. For words only.

use std::fmt::{self, Write as _};

use time::OffsetDateTime;

use crate::tls::{
    case::Case,
    failure::CertificateRef,
    path::{PathByNames, PathEnd},
    presented::Certificate,
    signature::{Signature, signature},
};

use super::certificate::{line, names};

/// A chain, from the top.
#[derive(Clone, Debug)]
pub struct Tree {
    links: Vec<TreeLink>,
    /// What was sent and is not on the way, by its place.
    unused: Vec<TreeLink>,
    /// Whether the verifier went this way.
    is_path: bool,
    at: OffsetDateTime,
}

#[derive(Clone, Debug)]
struct TreeLink {
    name: String,
    mark: Mark,
    certificate: Option<Certificate>,
}

/// What a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// In the bundle.
    Bundle,
    /// In the bundle there is one of that name with another key.
    Changed,
    /// Sent, and itself in the bundle.
    Exact(usize),
    /// Neither sent nor in the bundle.
    Missing,
    /// Sent, as the n-th from 0.
    Sent(usize),
    /// Sent; it was issued by itself and is not in the bundle.
    Unknown(usize),
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle => f.write_str("in the bundle"),
            Self::Changed => f.write_str("in the bundle, but with another key"),
            Self::Exact(0) => f.write_str("the server's own, and in the bundle"),
            Self::Exact(place) => write!(f, "sent {}, and in the bundle", nth(*place)),
            Self::Missing => f.write_str("MISSING: neither sent nor in the bundle"),
            Self::Sent(0) => f.write_str("the server's own"),
            Self::Sent(place) => write!(f, "sent {}", nth(*place)),
            Self::Unknown(0) => f.write_str("the server's own, NOT in the bundle"),
            Self::Unknown(place) => write!(f, "sent {}, NOT in the bundle", nth(*place)),
        }
    }
}

fn nth(place: usize) -> String {
    let count = place + 1;
    let ending = match (count % 10, count % 100) {
        (1, hundred) if hundred != 11 => "st",
        (2, hundred) if hundred != 12 => "nd",
        (3, hundred) if hundred != 13 => "rd",
        _ => "th",
    };
    format!("{count}{ending}")
}

impl Tree {
    /// The tree of a path that the verifier took, or, without one, of what can be found by names.
    pub fn of(case: &Case<'_>, path: Option<&[CertificateRef]>) -> Self {
        let mut links = match path {
            Some(path) => path.iter().filter_map(|subject| tree_link(case, *subject)).collect(),
            None => by_names(case),
        };
        let places: Vec<usize> = links.iter().filter_map(|link| link.mark.place()).collect();
        let unused = (0..case.presented.len()).filter(|place| !places.contains(place));
        let unused = unused.filter_map(|place| tree_link(case, CertificateRef::Presented(place))).take(MOST).collect();
        links.reverse();
        Self { links, unused, is_path: path.is_some(), at: case.now }
    }

    /// The places of what was sent and is on the way, from the server upwards.
    pub fn places(&self) -> Vec<usize> {
        self.links.iter().rev().filter_map(|link| link.mark.place()).collect()
    }

    /// The names of what was sent in vain.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.unused.iter().map(|link| link.name.as_str())
    }

    /// The name at the top.
    pub fn top(&self) -> &str {
        self.links.first().map_or("", |link| link.name.as_str())
    }

    /// Whether the server's own certificate stands in the bundle, and nothing is above it.
    pub fn is_exact(&self) -> bool {
        matches!(self.links.as_slice(), [TreeLink { mark: Mark::Exact(_), .. }])
    }

    /// Whether each was signed by the one above it, up to the bundle. If not, that says nothing: some signatures cannot
    /// be checked.
    pub fn is_signed(&self) -> bool {
        let signed = |pair: &[TreeLink]| match (&pair[0].certificate, &pair[1].certificate) {
            (Some(issuer), Some(child)) => signature(child, issuer) == Signature::Holds,
            _ => false,
        };
        let top = self.links.first().map(|link| link.mark);
        matches!(top, Some(Mark::Bundle | Mark::Exact(_))) && self.links.windows(2).all(signed)
    }
}

/// A hostile chain may be long.
const MOST: usize = 8;

impl Mark {
    fn place(self) -> Option<usize> {
        match self {
            Self::Exact(place) | Self::Sent(place) | Self::Unknown(place) => Some(place),
            Self::Bundle | Self::Changed | Self::Missing => None,
        }
    }
}

fn tree_link(case: &Case<'_>, subject: CertificateRef) -> Option<TreeLink> {
    let anchors = &case.trust.anchors;
    let (certificate, mark) = match subject {
        CertificateRef::Anchor(place) => (anchors.certificates().get(place)?, Mark::Bundle),
        CertificateRef::Handshake => return None,
        CertificateRef::Presented(place) => {
            let certificate = case.presented.get(place)?;
            let known = anchors.exact(&certificate.der).is_some();
            (certificate, if known { Mark::Exact(place) } else { Mark::Sent(place) })
        }
    };
    Some(TreeLink { name: certificate.name(), mark, certificate: Some(certificate.clone()) })
}

/// From the server upwards.
fn by_names(case: &Case<'_>) -> Vec<TreeLink> {
    let Some(path) = PathByNames::of(case) else { return Vec::new() };
    let mut links: Vec<_> = path.links.iter().filter_map(|(_, at)| tree_link(case, *at)).collect();
    for (place, above) in path.signatures.iter().enumerate() {
        if above.signature == Signature::Broken
            && let Some(issuer) = links.get_mut(place + 1).filter(|link| link.mark == Mark::Bundle)
        {
            issuer.mark = Mark::Changed;
        }
    }
    let (Some((top, _)), Some(last)) = (path.links.last(), links.last_mut()) else { return links };
    let Ok(facts) = &top.facts else { return links };
    match (path.end, last.mark) {
        (_, Mark::Exact(_)) | (PathEnd::Anchor, _) => {}
        (PathEnd::SelfSigned { .. }, Mark::Sent(place)) => last.mark = Mark::Unknown(place),
        (PathEnd::Missing { namesake: Some((other, CertificateRef::Anchor(_))), .. }, _) => {
            let certificate = Some(other.clone());
            links.push(TreeLink { name: facts.issuer.clone(), mark: Mark::Changed, certificate });
        }
        _ => links.push(TreeLink { name: facts.issuer.clone(), mark: Mark::Missing, certificate: None }),
    }
    links
}

/// Indented by two.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.links.len().saturating_sub(1);
        for (depth, link) in self.links.iter().enumerate() {
            let (indent, branch) = ("   ".repeat(depth.saturating_sub(1)), if depth > 0 { "└─ " } else { "" });
            writeln!(f, "    {indent}{branch}{}  [{}]", link.name, link.mark)?;
            let above = depth.checked_sub(1).and_then(|above| self.links.get(above));
            let indent = "   ".repeat(depth) + if depth < last { "│  " } else { "   " };
            link.details(above, self.at).lines().try_for_each(|detail| writeln!(f, "    {indent}{detail}"))?;
        }
        for link in &self.unused {
            let what = if self.is_path { "not needed" } else { "also sent" };
            writeln!(f, "    {what}: {}  [{}]", link.name, link.mark)?;
            link.details(None, self.at).lines().try_for_each(|detail| writeln!(f, "       {detail}"))?;
        }
        Ok(())
    }
}

impl TreeLink {
    fn details(&self, above: Option<&Self>, at: OffsetDateTime) -> String {
        let Some(certificate) = &self.certificate else { return String::new() };
        let mut text = String::new();
        if let Ok(facts) = &certificate.facts {
            if let Some(names) = names(facts) {
                let _ = writeln!(text, "for {names}");
            }
            match facts.self_issued() {
                true => text.push_str("self-signed, "),
                false if above.is_some_and(|above| above.name == facts.issuer) => {}
                false => {
                    let _ = writeln!(text, "issued by {}", facts.issuer);
                }
            }
        }
        text.push_str(&line(certificate, at));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_as_people_do() {
        let all: Vec<_> = [0, 1, 2, 3, 10, 11, 12, 20, 21, 110].into_iter().map(nth).collect();
        assert_eq!(all, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "111th"]);
    }
}
