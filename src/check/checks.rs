//! Each check on its own, with its verdict. What the verifier accepted passed every check. Of what it refused, a
//! check passed if nothing was found against it and everything that it rests on was reached. For words only: nothing
//! here changes a verdict.

use crate::{
    clock::distance,
    tls::{
        case::Case,
        client::TlsVersion,
        explain,
        failure::{CertificateRef, Code, Finding, VerificationFailure},
        names,
        presented::Certificate,
        report_only::SINGLE,
        verify::Accepted,
    },
};

use super::{certificate::day, tree::Tree};

/// A check of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It speaks an accepted version of TLS.
    Tls,
    /// It accepts the client certificate.
    Client,
    /// Its certificate chain leads to the bundle.
    Chain,
    /// All certificates are valid now.
    Dates,
    /// Its certificate is valid for the name.
    Name,
    /// Its certificate is for servers.
    Purpose,
    /// The keys are strong enough.
    Keys,
    /// The signatures hold, and are strong enough.
    Signatures,
    /// No certificate is revoked.
    Revocation,
    /// A key of the path is pinned.
    Pins,
    /// It is the certificate that `identity` names.
    Identity,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Tls,
        Self::Client,
        Self::Chain,
        Self::Dates,
        Self::Name,
        Self::Purpose,
        Self::Keys,
        Self::Signatures,
        Self::Revocation,
        Self::Pins,
        Self::Identity,
    ];

    /// Its name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Client => "client_certificate",
            Self::Chain => "chain",
            Self::Dates => "dates",
            Self::Name => "name",
            Self::Purpose => "purpose",
            Self::Keys => "keys",
            Self::Signatures => "signatures",
            Self::Revocation => "revocation",
            Self::Pins => "pins",
            Self::Identity => "identity",
        }
    }

    /// Its name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::Client => "client certificate",
            other => other.as_str(),
        }
    }

    /// The check that a code belongs to.
    pub const fn of(code: Code) -> Self {
        match code {
            Code::ClosedInHandshake
            | Code::HandshakeRefused
            | Code::HandshakeTimeout
            | Code::NotTls
            | Code::TlsProtocol
            | Code::TlsVersion => Self::Tls,
            Code::ClientCertRefused | Code::ClientCertRequired => Self::Client,
            Code::CaAsServer
            | Code::CertVersion
            | Code::ChainTooComplex
            | Code::ChainTooLong
            | Code::CriticalExtension
            | Code::IncompleteChain
            | Code::IssuerKeyMismatch
            | Code::IssuerMayNotSign
            | Code::IssuerNotCa
            | Code::MalformedCertificate
            | Code::NameConstraint
            | Code::NoCertificate
            | Code::Other
            | Code::PathLength
            | Code::RootUnfit
            | Code::SelfSignedNotInBundle
            | Code::UnknownIssuer => Self::Chain,
            Code::Expired | Code::NotYetValid | Code::RootExpired => Self::Dates,
            Code::IpSanMissing | Code::NameMismatch | Code::NoSan => Self::Name,
            Code::WrongPurpose => Self::Purpose,
            Code::UnsupportedKey | Code::WeakKey => Self::Keys,
            Code::BadSignature | Code::UnsupportedSignature | Code::WeakSignature => Self::Signatures,
            Code::CrlExpired | Code::CrlInvalid | Code::RevocationUnknown | Code::Revoked => Self::Revocation,
            Code::PinMismatch => Self::Pins,
            Code::IdentityMismatch => Self::Identity,
        }
    }
}

/// A check and its result.
#[derive(Clone, Debug)]
pub struct Check {
    /// The check.
    pub kind: Kind,
    /// Its result.
    pub result: Outcome,
}

/// The result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What is wrong.
    Failed(Vec<Finding>),
    /// It was not requested, for this reason.
    NotAsked(String),
    /// An earlier check failed; what is known nevertheless.
    NotReached(String),
    /// It passed, with details.
    Passed(String),
}

impl Outcome {
    /// Its name in JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::NotAsked(_) => "not_asked",
            Self::NotReached(_) => "not_reached",
            Self::Passed(_) => "passed",
        }
    }

    /// Its mark, for people.
    pub const fn mark(&self) -> char {
        match self {
            Self::Failed(_) => '✘',
            Self::NotAsked(_) | Self::NotReached(_) => '–',
            Self::Passed(_) => '✔',
        }
    }
}

/// A refusal with all that is wrong.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// Everything that is wrong, beginning with what decided.
    pub findings: Vec<Finding>,
    /// Whether the list is complete.
    whole: bool,
}

impl Refusal {
    /// A refusal as it was explained, and whether the verifier has nothing more against the server.
    pub fn of(case: &Case<'_>, failure: &VerificationFailure) -> Self {
        let findings: Vec<_> = std::iter::once(&failure.verdict).chain(&failure.also).cloned().collect();
        let codes = || findings.iter().map(|finding| finding.code);
        let whole = codes().all(|code| SINGLE.contains(&code)) && explain::beyond(case, codes()).is_ok();
        Self { findings, whole }
    }

    fn has(&self, kind: Kind) -> bool {
        self.findings.iter().any(|finding| Kind::of(finding.code) == kind)
    }

    /// Whether there is a path to the bundle: what decided is checked only then, or nothing else is wrong.
    fn found_path(&self) -> bool {
        let verdict = self.findings.first().map(|finding| finding.code);
        let asked_of_path = verdict.is_some_and(|code| {
            matches!(Kind::of(code), Kind::Name | Kind::Pins | Kind::Revocation) || code == Code::RootExpired
        });
        !self.has(Kind::Chain) && (self.whole || asked_of_path)
    }
}

/// What the checks of one server are based on.
#[derive(Clone, Copy, Debug)]
pub struct CheckInput<'a> {
    /// The evidence.
    pub case: Case<'a>,
    /// The verdict, if the handshake got that far.
    pub verdict: Option<Result<&'a Accepted, &'a Refusal>>,
    /// The result for the client certificate.
    pub client: &'a Outcome,
    /// What else broke the handshake.
    pub broken: Option<&'a Finding>,
    /// The negotiated version and cipher suite; `None` if the handshake broke off.
    pub agreed: Option<(TlsVersion, &'static str)>,
    /// The lowest version that is accepted.
    pub least: TlsVersion,
    /// The chain, as far as it is known.
    pub tree: &'a Tree,
}

impl CheckInput<'_> {
    /// All checks, in reading order.
    pub fn checks(&self) -> Vec<Check> {
        let identity = !self.case.trust.terms.identities.is_empty();
        let of = |kind: &Kind| match kind {
            Kind::Identity => identity,
            Kind::Pins => !identity,
            _ => true,
        };
        Kind::ALL.into_iter().filter(of).map(|kind| Check { kind, result: self.check(kind) }).collect()
    }

    fn check(&self, kind: Kind) -> Outcome {
        if kind == Kind::Client {
            return self.client.clone();
        }
        let refusal = self.verdict.and_then(Result::err);
        let failed = refusal.into_iter().flat_map(|refusal| &refusal.findings).chain(self.broken);
        let failed: Vec<Finding> = failed.filter(|finding| Kind::of(finding.code) == kind).cloned().collect();
        if !failed.is_empty() {
            return Outcome::Failed(failed);
        }
        if let Some(why) = self.not_asked(kind) {
            return Outcome::NotAsked(why);
        }
        let passed = match self.verdict {
            Some(Ok(_)) => true,
            Some(Err(refusal)) => self.passed_before(kind, refusal),
            None => false,
        };
        match kind {
            _ if passed => Outcome::Passed(self.words(kind)),
            Kind::Chain if self.tree.is_signed() => Outcome::NotReached(format!(
                "not reached; by its signatures the chain leads to `{}` in the bundle",
                self.tree.top()
            )),
            _ => Outcome::NotReached("not reached".into()),
        }
    }

    fn not_asked(&self, kind: Kind) -> Option<String> {
        let terms = &self.case.trust.terms;
        match kind {
            Kind::Chain | Kind::Name | Kind::Purpose | Kind::Signatures if !terms.identities.is_empty() => {
                Some("not checked: `identity` names the certificate itself".into())
            }
            Kind::Signatures if self.tree.is_exact() => {
                Some("not checked: the certificate itself is in the bundle".into())
            }
            Kind::Revocation if self.case.trust.crls.count() == 0 => Some("no revocation lists are configured".into()),
            Kind::Pins if terms.pins.is_empty() => Some("no pins are configured".into()),
            _ => None,
        }
    }

    /// Whether a check passed although another one failed.
    fn passed_before(&self, kind: Kind, refusal: &Refusal) -> bool {
        let readable = |certificate: &Certificate| certificate.facts.is_ok();
        let presented = self.case.presented;
        let of_path = |kind: Kind| refusal.findings.first().is_some_and(|verdict| Kind::of(verdict.code) == kind);
        match kind {
            Kind::Client => false,
            Kind::Tls => !presented.is_empty(),
            Kind::Dates | Kind::Keys => !presented.is_empty() && presented.iter().all(readable),
            Kind::Name => names::has_name(&self.case) == Some(true),
            Kind::Identity | Kind::Purpose => presented.first().is_some_and(readable),
            Kind::Chain | Kind::Signatures => refusal.found_path(),
            Kind::Pins => refusal.found_path() && (refusal.whole || of_path(Kind::Name) || of_path(Kind::Revocation)),
            Kind::Revocation => refusal.found_path() && (refusal.whole || of_path(Kind::Name)),
        }
    }

    fn words(&self, kind: Kind) -> String {
        let accepted = self.verdict.and_then(Result::ok);
        match kind {
            Kind::Tls => match self.agreed {
                Some((version, suite)) => format!("{}, {suite}", version.as_str()),
                None => format!("{} or newer; the handshake was not finished", self.least.as_str()),
            },
            Kind::Client => String::new(),
            Kind::Chain if self.tree.is_exact() => "the certificate itself is in the bundle".into(),
            Kind::Chain => format!("leads to `{}` in the bundle", self.tree.top()),
            Kind::Dates => self.dates(accepted),
            Kind::Name => format!("the certificate is valid for `{}`", self.case.reference.value()),
            Kind::Purpose => "the certificate is for servers".into(),
            Kind::Keys => {
                let mut keys = Vec::new();
                for facts in self.believed(accepted).filter_map(|certificate| certificate.facts.as_ref().ok()) {
                    let key = facts.key.describe();
                    if !keys.contains(&key) {
                        keys.push(key);
                    }
                }
                format!("strong enough: {}", keys.join(", "))
            }
            Kind::Signatures => "each certificate is signed by the one above it".into(),
            Kind::Revocation => match self.case.trust.crls.count() {
                1 => "not on the configured list".into(),
                lists => format!("on none of the {lists} configured lists"),
            },
            Kind::Pins => "a key of the path is pinned".into(),
            Kind::Identity => "it is the certificate that `identity` names".into(),
        }
    }

    fn dates(&self, accepted: Option<&Accepted>) -> String {
        let ends = self.believed(accepted).filter_map(|certificate| certificate.facts.as_ref().ok());
        let Some(first) = ends.map(|facts| facts.not_after).min() else { return String::new() };
        let left = distance((first - self.case.now).whole_seconds());
        let what = if accepted.is_some() { "all are valid now" } else { "all certificates sent are valid now" };
        format!("{what}; the first expires on {} ({left} left)", day(first))
    }

    /// The certificates of the path; without one, all that the server sent.
    fn believed<'b>(&'b self, accepted: Option<&'b Accepted>) -> Box<dyn Iterator<Item = &'b Certificate> + 'b> {
        let Some(accepted) = accepted else { return Box::new(self.case.presented.iter()) };
        Box::new(accepted.path.iter().filter_map(|subject| match subject {
            CertificateRef::Anchor(place) => self.case.trust.anchors.certificates().get(*place),
            CertificateRef::Handshake => None,
            CertificateRef::Presented(place) => self.case.presented.get(*place),
        }))
    }
}
