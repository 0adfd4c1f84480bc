//! A chain as a tree: who vouches for whom, from the anchor at the top to the server at the bottom.
//!
//! Where the judge accepted, this is the path that it took. Where it refused, it is the way up by names, as far as
//! it goes, with the rung that is missing. For words only.

use std::fmt::{self, Write as _};

use time::OffsetDateTime;

use crate::tls::{diagnose::Case, failure::Subject, presented::Certificate};

use super::certificate::{line, names};

/// A chain, from the top.
#[derive(Clone, Debug)]
pub struct Tree {
    rungs: Vec<Rung>,
    /// What was sent and is not on the way, by its place.
    beside: Vec<Rung>,
    /// Whether the judge went this way.
    is_path: bool,
    at: OffsetDateTime,
}

#[derive(Clone, Debug)]
struct Rung {
    name: String,
    mark: Mark,
    certificate: Option<Certificate>,
}

/// What a rung is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// In the bundle.
    Bundle,
    /// In the bundle there is one of that name, whose key did not sign.
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
    /// The tree of a path that the judge took, or, without one, of what can be found by names.
    pub fn of(case: &Case<'_>, path: Option<&[Subject]>) -> Self {
        let mut rungs = match path {
            Some(path) => path.iter().filter_map(|subject| rung(case, *subject)).collect(),
            None => by_names(case),
        };
        let places: Vec<usize> = rungs.iter().filter_map(|rung| rung.mark.place()).collect();
        let beside = (0..case.presented.len()).filter(|place| !places.contains(place));
        let beside = beside.filter_map(|place| rung(case, Subject::Presented(place))).take(MOST).collect();
        rungs.reverse();
        Self { rungs, beside, is_path: path.is_some(), at: case.now }
    }

    /// The places of what was sent and is on the way, from the server upwards.
    pub fn places(&self) -> Vec<usize> {
        self.rungs.iter().rev().filter_map(|rung| rung.mark.place()).collect()
    }

    /// The names of what was sent in vain.
    pub fn beside(&self) -> impl Iterator<Item = &str> {
        self.beside.iter().map(|rung| rung.name.as_str())
    }

    /// The name at the top.
    pub fn top(&self) -> &str {
        self.rungs.first().map_or("", |rung| rung.name.as_str())
    }

    /// Whether the server's own certificate stands in the bundle, and nobody is above it.
    pub fn is_exact(&self) -> bool {
        matches!(self.rungs.as_slice(), [Rung { mark: Mark::Exact(_), .. }])
    }

    /// Whether each was signed by the one above it, up to the bundle. That it was not is not said by this: some
    /// signatures are beyond the clerk.
    pub fn is_signed(&self) -> bool {
        let signed = |pair: &[Rung]| match (&pair[0].certificate, &pair[1].certificate) {
            (Some(issuer), Some(child)) => child.signed_by(issuer),
            _ => false,
        };
        let top = self.rungs.first().map(|rung| rung.mark);
        matches!(top, Some(Mark::Bundle | Mark::Exact(_))) && self.rungs.windows(2).all(signed)
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

fn rung(case: &Case<'_>, subject: Subject) -> Option<Rung> {
    let anchors = &case.trust.anchors;
    let (certificate, mark) = match subject {
        Subject::Anchor(place) => (anchors.certificates().get(place)?, Mark::Bundle),
        Subject::Handshake => return None,
        Subject::Presented(place) => {
            let certificate = case.presented.get(place)?;
            let known = anchors.exact(&certificate.der).is_some();
            (certificate, if known { Mark::Exact(place) } else { Mark::Sent(place) })
        }
    };
    Some(Rung { name: certificate.name(), mark, certificate: Some(certificate.clone()) })
}

/// From the server upwards.
fn by_names(case: &Case<'_>) -> Vec<Rung> {
    if case.presented.is_empty() {
        return Vec::new();
    }
    let way = case.way_up();
    let mut rungs: Vec<_> = way.iter().filter_map(|place| rung(case, Subject::Presented(*place))).collect();
    let top = way.last().and_then(|place| case.presented.get(*place));
    let (Some(top), Some(last)) = (top, rungs.last_mut()) else { return rungs };
    let Ok(facts) = &top.facts else { return rungs };
    if matches!(last.mark, Mark::Exact(_)) {
        return rungs;
    }
    if let (Mark::Sent(place), true) = (last.mark, facts.self_issued()) {
        last.mark = Mark::Unknown(place);
        return rungs;
    }
    let anchors = case.trust.anchors.certificates();
    let namesakes = anchors.iter().filter(|anchor| {
        let anchor = anchor.facts.as_ref();
        anchor.is_ok_and(|anchor| anchor.subject_der == facts.issuer_der)
    });
    let namesakes: Vec<_> = namesakes.collect();
    let signer = namesakes.iter().find(|anchor| top.signed_by(anchor));
    let (certificate, mark) = match (signer, namesakes.first()) {
        (Some(signer), _) => (Some((*signer).clone()), Mark::Bundle),
        (None, Some(other)) => (Some((*other).clone()), Mark::Changed),
        (None, None) => (None, Mark::Missing),
    };
    rungs.push(Rung { name: facts.issuer.clone(), mark, certificate });
    rungs
}

/// Indented by two.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.rungs.len().saturating_sub(1);
        for (depth, rung) in self.rungs.iter().enumerate() {
            let (indent, branch) = ("   ".repeat(depth.saturating_sub(1)), if depth > 0 { "└─ " } else { "" });
            writeln!(f, "    {indent}{branch}{}  [{}]", rung.name, rung.mark)?;
            let above = depth.checked_sub(1).and_then(|above| self.rungs.get(above));
            let indent = "   ".repeat(depth) + if depth < last { "│  " } else { "   " };
            rung.details(above, self.at).lines().try_for_each(|detail| writeln!(f, "    {indent}{detail}"))?;
        }
        for rung in &self.beside {
            let what = if self.is_path { "not needed" } else { "also sent" };
            writeln!(f, "    {what}: {}  [{}]", rung.name, rung.mark)?;
            rung.details(None, self.at).lines().try_for_each(|detail| writeln!(f, "       {detail}"))?;
        }
        Ok(())
    }
}

impl Rung {
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
