//! The certification path that was most likely meant, found without the verifier: for classes, words and trees.
//!
//! An issuer is chosen by its name and key identifier, then by a signature that holds, and only then by its name
//! alone. Of several paths the one with the fewest faults is taken.

use super::{
    case::Case,
    checks::{self, Role},
    dn,
    failure::{CertificateRef, Link},
    presented::{Certificate, Facts},
    signature::{Signature, signature},
};

/// A certification path by names, from the end-entity certificate upwards, as far as it goes.
#[derive(Clone, Debug)]
pub struct PathByNames<'a> {
    /// The certificates.
    pub links: Vec<Link<'a>>,
    /// Whether each link's signature was made with the key of the one above it; one less than links.
    pub signatures: Vec<Above>,
    /// How it ends.
    pub end: PathEnd<'a>,
}

/// What is known of a link and the one above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Above {
    /// Whether the one was signed with the key of the other.
    pub signature: Signature,
    /// Whether the key identifiers say that they belong together; `None` if one of the two has none.
    pub is_named: Option<bool>,
}

/// How a path ends.
#[derive(Clone, Copy, Debug)]
pub enum PathEnd<'a> {
    /// At a certificate of the bundle.
    Anchor,
    /// At a self-signed certificate that was sent and is not in the bundle, and the one of that name that is.
    SelfSigned {
        /// The one in the bundle.
        namesake: Option<Link<'a>>,
    },
    /// At a certificate whose issuer was neither sent nor is in the bundle.
    Missing {
        /// One of that name, whose key identifier says that it is another.
        namesake: Option<Link<'a>>,
        /// One whose name is the same, in other string types or letters, which the verifier does not follow.
        otherwise: Option<Link<'a>>,
    },
}

/// How well an issuer fits, best last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The key identifiers say that it is another.
    Namesake,
    /// By its name, but the signature was not made with its key.
    BrokenByName,
    /// By its name; the signature cannot be checked.
    ByName,
    /// By name and key identifier, but the signature was not made with its key.
    Broken,
    /// By name and key identifier; the signature cannot be checked.
    Likely,
    Signed,
}

impl<'a> PathByNames<'a> {
    /// The path of a case; `None` if nothing was presented.
    pub fn of(case: &Case<'a>) -> Option<Self> {
        let first = (case.presented.first()?, CertificateRef::Presented(0));
        let mut search = Search { case, known: Vec::new(), found: Vec::new(), steps: 0 };
        search.go_on(&mut vec![first], &mut Vec::new());
        search.found.into_iter().min_by_key(|path| path.cost(case))
    }

    /// The highest certificate that was sent.
    pub fn highest_sent(&self) -> Option<Link<'a>> {
        self.links.iter().rev().find(|(_, at)| matches!(at, CertificateRef::Presented(_))).copied()
    }

    /// The role of a link.
    pub fn role(&self, place: usize) -> Role {
        match self.links[place].1 {
            CertificateRef::Presented(0) => Role::EndEntity,
            CertificateRef::Anchor(_) => Role::Anchor,
            _ if place + 1 == self.links.len() && matches!(self.end, PathEnd::SelfSigned { .. }) => Role::Anchor,
            _ => Role::Intermediate,
        }
    }

    fn cost(&self, case: &Case<'a>) -> usize {
        let broken = self.signatures.iter().filter(|above| above.signature == Signature::Broken).count();
        let unfinished = usize::from(!matches!(self.end, PathEnd::Anchor));
        let roles = self.links.iter().enumerate().map(|(place, link)| (*link, self.role(place)));
        let faults: usize = roles.map(|(link, role)| checks::certificate(link, role, case.now).len()).sum();
        let weak = self.links.iter().filter(|(link, at)| checks::signature(link, *at).is_some()).count();
        broken * 10_000 + unfinished * 1000 + (faults + weak) * 20 + self.links.len()
    }
}

/// A hostile server may send hundreds of certificates; this many steps are made through them.
const MOST_STEPS: usize = 64;

/// So many signatures are checked; of all others only names and key identifiers are known.
const MOST_SIGNATURES: usize = 64;

/// And this many certificates of one name are looked at.
const MOST_CANDIDATES: usize = 16;

struct Search<'c, 'a> {
    case: &'c Case<'a>,
    /// What is known of pairs already: signatures are expensive.
    known: Vec<((CertificateRef, CertificateRef), Above)>,
    found: Vec<PathByNames<'a>>,
    steps: usize,
}

impl<'a> Search<'_, 'a> {
    fn go_on(&mut self, links: &mut Vec<Link<'a>>, signatures: &mut Vec<Above>) {
        self.steps += 1;
        let Some(top) = links.last().copied() else { return };
        let Ok(facts) = &top.0.facts else {
            return self.end(links, signatures, PathEnd::Missing { namesake: None, otherwise: None });
        };
        if matches!(top.1, CertificateRef::Anchor(_)) {
            return self.end(links, signatures, PathEnd::Anchor);
        }
        let candidates = self.candidates(top, facts, links);
        let best = candidates.iter().map(|(_, _, fit)| *fit).max();
        if self.is_self_signed(top, facts, best) {
            let namesake = self.case.anchors().find(|(anchor, _)| has_subject(anchor, &facts.subject_der));
            return self.end(links, signatures, PathEnd::SelfSigned { namesake });
        }
        let best = match best {
            Some(fit) if fit > Fit::Namesake && self.steps < MOST_STEPS => fit,
            _ => {
                let namesake = candidates.first().map(|(link, ..)| *link);
                let otherwise = self.otherwise(facts);
                return self.end(links, signatures, PathEnd::Missing { namesake, otherwise });
            }
        };
        for (link, above, _) in candidates.into_iter().filter(|(_, _, fit)| *fit == best) {
            links.push(link);
            signatures.push(above);
            self.go_on(links, signatures);
            links.pop();
            signatures.pop();
        }
    }

    fn end(&mut self, links: &[Link<'a>], signatures: &[Above], end: PathEnd<'a>) {
        self.found.push(PathByNames { links: links.to_vec(), signatures: signatures.to_vec(), end });
    }

    /// Those that bear the issuer's name, first what was sent.
    fn candidates(&mut self, child: Link<'a>, facts: &Facts, links: &[Link<'a>]) -> Vec<(Link<'a>, Above, Fit)> {
        let is_new = |link: &Link<'a>| links.iter().all(|(known, _)| known.der != link.0.der);
        let sent = sent(self.case).skip(1).filter(|(sent, _)| has_subject(sent, &facts.issuer_der)).filter(is_new);
        let anchors = self.case.anchors().filter(|(anchor, _)| {
            // The verifier takes an anchor by any spelling of its name.
            anchor.facts.as_ref().is_ok_and(|anchor| dn::is_same(&anchor.subject_der, &facts.issuer_der))
        });
        let found: Vec<_> = sent.take(MOST_CANDIDATES).chain(anchors.take(MOST_CANDIDATES)).collect();
        found
            .into_iter()
            .map(|link| {
                let above = self.above(child, link);
                (link, above, fit(link, above))
            })
            .collect()
    }

    fn above(&mut self, child: Link<'a>, issuer: Link<'a>) -> Above {
        let pair = (child.1, issuer.1);
        if let Some((_, above)) = self.known.iter().find(|(known, _)| *known == pair) {
            return *above;
        }
        let above = match self.known.len() < MOST_SIGNATURES {
            true => Above::of(child.0, issuer.0),
            false => Above { signature: Signature::Unchecked, is_named: named(child.0, issuer.0) },
        };
        self.known.push((pair, above));
        above
    }

    /// Self-issued, and signed with its own key as far as can be told.
    fn is_self_signed(&self, (top, _): Link<'a>, facts: &Facts, best: Option<Fit>) -> bool {
        if !facts.self_issued() {
            return false;
        }
        match Above::of(top, top) {
            Above { signature: Signature::Holds, .. } => true,
            Above { is_named: Some(is_named), .. } => is_named,
            Above { signature: Signature::Unchecked, .. } => facts.authority_key_id.is_none(),
            _ => best.is_none(),
        }
    }

    fn otherwise(&self, facts: &Facts) -> Option<Link<'a>> {
        sent(self.case).skip(1).take(MOST_CANDIDATES).find(|(sent, _)| {
            let sent = sent.facts.as_ref();
            sent.is_ok_and(|sent| {
                sent.subject_der != facts.issuer_der && dn::is_same(&sent.subject_der, &facts.issuer_der)
            })
        })
    }
}

impl Above {
    /// What is known of a certificate and one that may have issued it.
    pub fn of(child: &Certificate, issuer: &Certificate) -> Self {
        Self { signature: signature(child, issuer), is_named: named(child, issuer) }
    }
}

/// Whether the key identifiers of a certificate and its issuer say that they belong together.
fn named(child: &Certificate, issuer: &Certificate) -> Option<bool> {
    let (child, issuer) = (child.facts.as_ref().ok()?, issuer.facts.as_ref().ok()?);
    let (named, has) = (child.authority_key_id.as_ref()?, issuer.key_id.as_ref()?);
    Some(named == has)
}

fn fit((issuer, at): Link<'_>, above: Above) -> Fit {
    // An intermediate of the bundle, which did not sign, may as well be another installation's.
    let is_foreign =
        matches!(at, CertificateRef::Anchor(_)) && issuer.facts.as_ref().is_ok_and(|facts| !facts.self_issued());
    match (above.signature, above.is_named) {
        (Signature::Broken, None) if is_foreign => Fit::Namesake,
        (Signature::Holds, _) => Fit::Signed,
        (Signature::Unchecked, Some(true)) => Fit::Likely,
        (Signature::Broken, Some(true)) => Fit::Broken,
        (Signature::Unchecked, None) => Fit::ByName,
        (Signature::Broken, None) => Fit::BrokenByName,
        (_, Some(false)) => Fit::Namesake,
    }
}

fn sent<'a>(case: &Case<'a>) -> impl Iterator<Item = Link<'a>> + use<'a> {
    let sent = case.presented.iter().enumerate();
    sent.map(|(place, certificate)| (certificate, CertificateRef::Presented(place)))
}

fn has_subject(certificate: &Certificate, name: &[u8]) -> bool {
    certificate.facts.as_ref().is_ok_and(|facts| facts.subject_der == name)
}
