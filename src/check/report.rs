//! The result for one server: for people, and as JSON. Pure.

use std::{io::ErrorKind, net::SocketAddr, rc::Rc};

use time::{Duration, OffsetDateTime};

use crate::{
    clock::{distance, rfc3339},
    connect::{
        ClientAuth, Peer,
        error::{ConnectError, ParentCause},
    },
    proxy::failure::connect_words,
    route::upstream::Upstream,
    text::escape,
    tls::{
        case::Case,
        client::PeerTrust,
        failure::{CertificateRef, Finding, HandshakeFailure},
        hint::fix,
        presented::Certificate,
        verify::{Accepted, Proof, verify},
    },
};

use super::{
    certificate::{self, day},
    checks::{Check, CheckInput, Kind, Outcome, Refusal},
    tree::Tree,
};

mod json;
mod words;

/// How far the connection to an upstream got.
#[derive(Debug, Default)]
pub struct ProbeResult {
    /// The peer, where a handshake ended well.
    pub peer: Option<Rc<Peer>>,
    /// What was wrong, with or without a peer.
    pub trouble: Option<ConnectError>,
    /// Whether the server, which had asked for a client certificate, closed without a word behind the handshake.
    pub closed: bool,
}

/// What came of one check.
#[derive(Debug)]
pub struct Report {
    asked: String,
    upstream: Upstream,
    at: OffsetDateTime,
    address: Option<SocketAddr>,
    probed: ProbeResult,
    presented: Vec<Certificate>,
    verdict: Verdict,
    accepted: Option<Accepted>,
    refusal: Option<Refusal>,
    problems: Vec<Problem>,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Refused, but let through until this moment.
    Bypassed(OffsetDateTime),
    /// No connection that a verdict could be about.
    NoConnection,
    /// Refused.
    Refused,
    /// Trusted.
    Trusted,
}

impl Verdict {
    /// Its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypassed(_) => "bypassed",
            Self::NoConnection => "no_connection",
            Self::Refused => "refused",
            Self::Trusted => "trusted",
        }
    }
}

/// A thing that is wrong, and what to do.
#[derive(Clone, Debug)]
struct Problem {
    code: &'static str,
    sentence: String,
    fix: String,
    subject: CertificateRef,
}

impl Report {
    /// Whether there was a connection to the server, by whatever way.
    fn reached_server(&self) -> bool {
        self.address.is_some() || matches!(self.probed.trouble, Some(ConnectError::Handshake(_)))
    }

    /// The report on a probe of that upstream, which was requested in these words.
    pub fn of(asked: String, upstream: Upstream, probed: ProbeResult) -> Self {
        let failure = match &probed.trouble {
            Some(ConnectError::Handshake(failure)) => Some(failure.clone()),
            _ => None,
        };
        let presented = match (&probed.peer, &failure) {
            (Some(peer), _) => peer.chain.iter().map(Certificate::read).collect(),
            (None, Some(failure)) => failure.presented.to_vec(),
            (None, None) => Vec::new(),
        };
        let address = probed.peer.as_ref().map(|peer| peer.address).or(failure.as_ref().map(|failure| failure.address));
        let address = address.filter(|_| upstream.parent.is_none());
        let mut report = Self {
            asked,
            at: upstream.tls.0.now(),
            upstream,
            address,
            probed,
            presented,
            verdict: Verdict::Trusted,
            accepted: None,
            refusal: None,
            problems: Vec::new(),
        };
        report.conclude(failure.as_deref());
        report
    }

    fn conclude(&mut self, failure: Option<&HandshakeFailure>) {
        let case = self.case();
        let mut problems = Vec::new();
        let refused = failure.filter(|failure| failure.failure.code().is_verdict());
        let refusal = refused.map(|refused| Refusal::of(&case, &refused.failure));
        for finding in refusal.iter().flat_map(|refusal| &refusal.findings) {
            problems.push(Problem::of(finding, fix(&case, finding)));
        }
        let standing = self.probed.peer.as_ref().map(|peer| &peer.standing);
        let accepted = match standing {
            Some(PeerTrust::Verified(accepted)) => Some(accepted.clone()),
            // A server that was believed, and broke off for another reason.
            None if refusal.is_none() && !self.presented.is_empty() => verify(&case).ok(),
            _ => None,
        };
        match (&self.probed.trouble, failure) {
            (_, Some(failure)) if refusal.is_none() => {
                problems.push(Problem::of(&failure.failure.verdict, failure.failure.hint.clone()));
            }
            (Some(error), None) => problems.push(Problem::before_tls(error, &self.upstream)),
            _ => {}
        }
        self.verdict = match (standing, refused, &self.probed.trouble) {
            (Some(PeerTrust::ReportOnly(until)), ..) => Verdict::Bypassed(*until),
            (_, Some(_), _) => Verdict::Refused,
            (_, None, Some(_)) => Verdict::NoConnection,
            (_, None, None) => Verdict::Trusted,
        };
        (self.accepted, self.refusal, self.problems) = (accepted, refusal, problems);
    }

    /// The answer.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// When the first thing expires that the verdict depends on, or report-only ends; and the time of the verification.
    pub fn until(&self) -> Option<(OffsetDateTime, OffsetDateTime)> {
        let until = match self.verdict {
            Verdict::Bypassed(until) => Some(until),
            _ => self.accepted.as_ref().map(|accepted| accepted.until),
        };
        until.map(|until| (until, self.at))
    }

    /// Whether the server is to be trusted.
    pub fn is_trusted(&self) -> bool {
        self.verdict == Verdict::Trusted
    }

    /// How it was asked for.
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// The certificate it is about.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// What was believed, from the server's own certificate upwards; all that was sent, where nothing was.
    pub fn believed(&self) -> Vec<&Certificate> {
        let Some(accepted) = &self.accepted else { return self.presented.iter().collect() };
        let anchors = self.upstream.anchors().certificates();
        let of = |subject: &CertificateRef| match subject {
            CertificateRef::Anchor(place) => anchors.get(*place),
            CertificateRef::Handshake => None,
            CertificateRef::Presented(place) => self.presented.get(*place),
        };
        accepted.path.iter().filter_map(of).collect()
    }

    /// What is wrong first of all, as `code: sentence`.
    pub fn problem(&self) -> Option<String> {
        self.problems.first().map(|problem| format!("{}: {}", problem.code, problem.sentence))
    }

    fn case(&self) -> Case<'_> {
        let trust = &self.upstream.tls.0.settings().trust;
        Case {
            trust,
            presented: &self.presented,
            reference: &self.upstream.reference,
            now: self.at,
            report_only_classes: &[],
        }
    }

    fn tree(&self) -> Tree {
        Tree::of(&self.case(), self.accepted.as_ref().map(|accepted| accepted.path.as_slice()))
    }

    /// Each check; none where it did not come to a handshake.
    fn checks(&self, tree: &Tree) -> Vec<Check> {
        let failure = match &self.probed.trouble {
            Some(ConnectError::Handshake(failure)) => Some(&failure.failure.verdict),
            Some(_) => return Vec::new(),
            None => None,
        };
        let broken = failure.filter(|finding| Kind::of(finding.code) == Kind::Tls);
        let verdict = self.accepted.as_ref().map(Ok).or(self.refusal.as_ref().map(Err));
        let input = CheckInput {
            case: self.case(),
            verdict,
            client: &self.client(failure),
            broken,
            agreed: self.probed.peer.as_ref().map(|peer| (peer.tls_version, peer.cipher_suite)),
            least: self.upstream.tls.0.settings().min_version,
            tree,
        };
        input.checks()
    }

    /// What became of our own certificate.
    fn client(&self, failure: Option<&Finding>) -> Outcome {
        if let Some(finding) = failure.filter(|finding| Kind::of(finding.code) == Kind::Client) {
            return Outcome::Failed(vec![finding.clone()]);
        }
        match self.probed.peer.as_ref().map(|peer| &peer.client) {
            None => Outcome::NotReached("not reached".into()),
            Some(ClientAuth { asked: false, .. }) => Outcome::NotAsked("not requested".into()),
            Some(ClientAuth { certificate: None, .. }) => {
                Outcome::NotAsked("requested; none is configured, and none was sent".into())
            }
            Some(ClientAuth { certificate: Some(sha256), .. }) => {
                let sha256 = certificate::short(sha256);
                Outcome::Passed(format!("requested; sent sha256 {sha256}, and the server did not object"))
            }
        }
    }

    /// What is odd, or soon will be, of a server that is trusted.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = Vec::new();
        let Some(accepted) = self.accepted.as_ref().filter(|_| self.verdict == Verdict::Trusted) else { return all };
        let tree = self.tree();
        if accepted.until - self.at < SOON {
            all.push(self.ends_soon(accepted.until));
        }
        match accepted.proof {
            Proof::Chain => {}
            Proof::Exact => all.push(
                "this certificate is trusted because it is in the bundle itself: when the server gets another one, the bundle has to be changed too".into(),
            ),
            Proof::Identity => all.push(
                "this certificate is trusted because `identity` names it, regardless of its names and issuer: when the server gets another one, `identity` has to be changed too".into(),
            ),
        }
        let places = tree.places();
        if !places.is_sorted() {
            all.push("the server sends its chain in the wrong order: its own first, then each one's issuer; some clients refuse this".into());
        }
        let unused: Vec<_> = tree.unused().map(|name| format!("`{name}`")).collect();
        if !unused.is_empty() && accepted.proof == Proof::Chain {
            all.push(format!("the server also sends certificates that are not needed: {}", unused.join(", ")));
        }
        if let Some(only) = &self.upstream.tls.0.settings().report_only
            && self.at < only.until
        {
            let until = rfc3339(only.until);
            all.push(format!("report-only is configured for this upstream: until {until} refusals are not enforced"));
        }
        match self.probed.peer.as_ref().map(|peer| &peer.client) {
            Some(ClientAuth { asked: true, .. }) if self.probed.closed => {
                all.push("the server asked for a client certificate, and closed the connection before any request; its log may have the reason".into());
            }
            Some(ClientAuth { asked: true, certificate: None }) => {
                all.push(
                    "the server asked for a client certificate; it may refuse requests without one (--client-cert)"
                        .into(),
                );
            }
            _ => {}
        }
        all
    }

    /// What ends the trust in a server that is trusted, if that is within this time.
    pub fn expires_within(&self, within: std::time::Duration) -> Option<String> {
        let accepted = self.accepted.as_ref().filter(|_| self.verdict == Verdict::Trusted)?;
        let left = accepted.until - self.at;
        let is_due = left.is_negative() || left.unsigned_abs() < within;
        is_due.then(|| format!("{}: {}", self.upstream, self.ends_soon(accepted.until)))
    }

    fn ends_soon(&self, until: OffsetDateTime) -> String {
        let ends = |certificate: &&Certificate| certificate.facts.as_ref().is_ok_and(|facts| facts.not_after == until);
        let what = match self.believed().into_iter().find(ends) {
            Some(certificate) => format!("`{}`", certificate.name()),
            None => "a revocation list".into(),
        };
        let left = distance((until - self.at).whole_seconds());
        format!("{what} expires on {}, in {left}: have it renewed before that", day(until))
    }
}

/// An expiry within this time is a warning.
const SOON: Duration = Duration::days(30);

impl Problem {
    fn of(finding: &Finding, fix: String) -> Self {
        let Finding { code, subject, sentence } = finding.clone();
        Self { code: code.as_str(), sentence, fix, subject }
    }

    fn before_tls(error: &ConnectError, upstream: &Upstream) -> Self {
        let (host, port) = (&upstream.dial_host, upstream.dial_port);
        let fix = match error {
            ConnectError::AddressDenied { .. } | ConnectError::CameBack { .. } | ConnectError::Loop { .. } => {
                "name another address".into()
            }
            ConnectError::ConnectTimeout { .. } => {
                format!("check that the server is up and no firewall blocks this host: `nc -vz -w5 {host} {port}`")
            }
            ConnectError::Dns { name, .. } => format!(
                "check the spelling; if no name server has the name, configure the address: `--connect-to {name}=ADDRESS`"
            ),
            ConnectError::DnsTimeout { name, .. } => format!(
                "check that the name servers in /etc/resolv.conf answer, or configure the address: `--connect-to {name}=ADDRESS`"
            ),
            ConnectError::Handshake(failure) => failure.failure.hint.clone(),
            ConnectError::Parent(failure) => match &failure.cause {
                ParentCause::Tls(refused) => format!("{}; {}", refused.failure.hint, failure.hint()),
                _ => failure.hint().into(),
            },
            ConnectError::Tcp { error, .. } if error.kind() == ErrorKind::ConnectionRefused => {
                format!(
                    "check the port: nothing listens on {port} there; on the server `ss -ltn` shows the ports in use"
                )
            }
            ConnectError::Tcp { .. } => {
                format!("check that this host has a route to it: `ip route get {host}`")
            }
        };
        Self {
            code: connect_words(error).class,
            sentence: escape(&error.to_string()),
            fix,
            subject: CertificateRef::Handshake,
        }
    }
}
