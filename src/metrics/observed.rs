//! What handshakes with upstreams showed last: the verdict, and the chain. The chain of a refused upstream is kept too,
//! so that its dates can be monitored while it is refused.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use tokio::sync::Notify;

use crate::{
    text::escape_within,
    tls::{fingerprint::Fingerprint, presented::Certificate},
};

/// More upstreams than this are not kept; the one whose last handshake is the oldest goes.
const MOST_UPSTREAMS: usize = 512;

/// Certificates of a chain that are kept; servers may send more.
const MOST_CERTIFICATES: usize = 16;

/// Names of a certificate that are kept.
const MOST_NAMES: usize = 32;

/// Bytes of a text that is kept.
const LONGEST_TEXT: usize = 300;

/// What is known of one upstream.
#[derive(Clone, Debug)]
pub struct ObservedUpstream {
    /// `host:port`.
    pub authority: Arc<str>,
    /// The value of the `upstream` label of its metrics.
    pub label: Arc<str>,
    pub verdict: Verdict,
    /// When the last attempt to connect ended.
    pub at: OffsetDateTime,
    /// When the last handshake ended; `None` if there was none.
    pub handshake: Option<OffsetDateTime>,
    /// The address of the last handshake.
    pub address: Option<SocketAddr>,
    /// The version of TLS, where the last handshake was completed.
    pub tls_version: Option<&'static str>,
    /// What the server presented last, its own certificate first. Empty if it never presented one.
    pub chain: Arc<[ObservedCertificate]>,
}

/// How the last attempt to connect to an upstream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The upstream was verified: by its chain (`ok`), by being in the bundle (`exact`), or by its identity
    /// (`identity`).
    Verified(&'static str),
    /// It was refused, which is only reported for it.
    ReportOnly(ObservedFailure),
    /// It was refused.
    Refused(ObservedFailure),
    /// It could not be reached, or the handshake failed.
    Failed(ObservedFailure),
}

/// Why an upstream was not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedFailure {
    /// The class, as in docs/failures.md.
    pub code: &'static str,
    /// A sentence for people, without a full stop.
    pub sentence: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Verdict {
    /// The word for it in metrics: `ok`, `exact`, `identity`, or the class of the failure.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Verified(how) => how,
            Self::ReportOnly(failure) | Self::Refused(failure) | Self::Failed(failure) => failure.code,
        }
    }

    /// The word for people.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Verified(_) => "verified",
            Self::ReportOnly(_) => "report-only",
            Self::Refused(_) => "refused",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it was not verified, if it was not.
    pub fn failure(&self) -> Option<&ObservedFailure> {
        match self {
            Self::Verified(_) => None,
            Self::ReportOnly(failure) | Self::Refused(failure) | Self::Failed(failure) => Some(failure),
        }
    }
}

/// A certificate that an upstream presented. Texts are escaped and cut.
#[derive(Clone, Debug)]
pub struct ObservedCertificate {
    der: CertificateDer<'static>,
    pub subject: String,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: String,
    /// What else it says; `None` if it cannot be read.
    pub facts: Option<ObservedFacts>,
}

/// What a certificate says.
#[derive(Clone, Debug)]
pub struct ObservedFacts {
    pub issuer: String,
    /// Hex.
    pub serial: String,
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
    /// As in `dns:a.example`.
    pub names: Vec<String>,
    /// As in `P-256`.
    pub key: String,
    /// SHA-256 of the subjectPublicKeyInfo, lower-case hex.
    pub spki_sha256: String,
}

impl ObservedCertificate {
    fn of(der: &CertificateDer<'static>) -> Self {
        let certificate = Certificate::read(der);
        let text = |text: &str| escape_within(text, LONGEST_TEXT);
        let facts = certificate.facts.as_ref().ok().map(|facts| ObservedFacts {
            issuer: text(&facts.issuer),
            serial: text(&facts.serial),
            not_before: facts.not_before,
            not_after: facts.not_after,
            names: facts.presented_names().iter().take(MOST_NAMES).map(|name| text(name)).collect(),
            key: facts.key.describe(),
            spki_sha256: Fingerprint::of(&facts.spki).hex(),
        });
        let subject = text(&certificate.name());
        Self { der: certificate.der, subject, sha256: certificate.sha256, facts }
    }

    /// When it expires, if it can be read.
    pub fn not_after(&self) -> Option<OffsetDateTime> {
        self.facts.as_ref().map(|facts| facts.not_after)
    }
}

impl ObservedUpstream {
    /// When the server's own certificate expires.
    pub fn leaf_not_after(&self) -> Option<OffsetDateTime> {
        self.chain.first().and_then(ObservedCertificate::not_after)
    }

    /// When the first of the other certificates that it presented expires.
    pub fn intermediate_not_after(&self) -> Option<OffsetDateTime> {
        self.chain.iter().skip(1).filter_map(ObservedCertificate::not_after).min()
    }

    /// When the first certificate that it presented expires.
    pub fn earliest_not_after(&self) -> Option<OffsetDateTime> {
        self.chain.iter().filter_map(ObservedCertificate::not_after).min()
    }
}

/// The end of an attempt to connect.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// `host:port` of the upstream.
    pub authority: &'a str,
    /// The value of the `upstream` label of its metrics.
    pub label: &'a Arc<str>,
    pub at: OffsetDateTime,
    pub verdict: Verdict,
    /// The handshake; `None` if it did not come to one.
    pub handshake: Option<Handshake>,
}

/// What a handshake showed.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    pub address: SocketAddr,
    /// The version of TLS, if the handshake was completed.
    pub tls_version: Option<&'static str>,
}

/// What is known of all upstreams, by `host:port`. Written by workers after each attempt to connect.
#[derive(Debug, Default)]
pub struct Observations {
    known: Mutex<BTreeMap<Arc<str>, ObservedUpstream>>,
    dates_changed: Notify,
}

/// The server's own certificates of two chains, if they differ in issuer or key.
fn changed(
    before: &[ObservedCertificate],
    now: &[ObservedCertificate],
) -> Option<(ObservedCertificate, ObservedCertificate)> {
    let (before, now) = (before.first()?, now.first()?);
    let identity =
        |of: &ObservedCertificate| of.facts.as_ref().map(|facts| (facts.issuer.clone(), facts.spki_sha256.clone()));
    (identity(before)? != identity(now)?).then(|| (before.clone(), now.clone()))
}

impl Observations {
    /// Keeps what an attempt showed. A chain is read only if it differs from the last one; without `presented`, the
    /// last one stays.
    ///
    /// Returns the server's own certificates of before and of now, if they differ in issuer or key.
    pub fn keep<'c>(
        &self,
        attempt: Attempt<'_>,
        presented: impl Iterator<Item = &'c CertificateDer<'static>> + Clone,
    ) -> Option<(ObservedCertificate, ObservedCertificate)> {
        let presented = presented.take(MOST_CERTIFICATES);
        let mut upstreams = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let before = upstreams.get(attempt.authority);
        let chain = match before.map(|before| before.chain.clone()) {
            Some(chain) if presented.clone().next().is_none() => chain,
            Some(chain) if chain.iter().map(|known| &known.der).eq(presented.clone()) => chain,
            _ => presented.map(ObservedCertificate::of).collect(),
        };
        let changed = before.and_then(|before| changed(&before.chain, &chain));
        if before.is_none_or(|before| !Arc::ptr_eq(&before.chain, &chain)) {
            self.dates_changed.notify_one();
        }
        let authority = before.map_or_else(|| attempt.authority.into(), |before| before.authority.clone());
        let last = attempt.handshake.or_else(|| {
            let before = before?;
            Some(Handshake { address: before.address?, tls_version: before.tls_version })
        });
        let handshake = if attempt.handshake.is_some() { Some(attempt.at) } else { before.and_then(|b| b.handshake) };
        if before.is_none() && upstreams.len() >= MOST_UPSTREAMS {
            let oldest = upstreams.values().min_by_key(|known| known.at).map(|known| known.authority.clone());
            oldest.and_then(|oldest| upstreams.remove(&oldest));
        }
        let observed = ObservedUpstream {
            authority: authority.clone(),
            label: attempt.label.clone(),
            verdict: attempt.verdict,
            at: attempt.at,
            handshake,
            address: last.map(|last| last.address),
            tls_version: last.and_then(|last| last.tls_version),
            chain,
        };
        upstreams.insert(authority, observed);
        changed
    }

    /// Waits until an upstream has presented another chain than before, or its first, since the last time.
    pub async fn dates_changed(&self) {
        self.dates_changed.notified().await;
    }

    /// Ends the wait in [`Self::dates_changed`], since what else has a date has changed.
    pub fn announce_dates(&self) {
        self.dates_changed.notify_one();
    }

    /// Everything that is known, in the order of the names.
    pub fn all(&self) -> Vec<ObservedUpstream> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn keep(observations: &Observations, authority: &str, verdict: Verdict, presented: &[&'static [u8]]) {
        let handshake = Handshake { address: ([127, 0, 0, 1], 1).into(), tls_version: Some("TLSv1.3") };
        let handshake = matches!(verdict, Verdict::Verified(_)).then_some(handshake);
        let at = datetime!(2026-11-21 12:00 UTC);
        let presented: Vec<_> = presented.iter().map(|der| CertificateDer::from(*der)).collect();
        let attempt = Attempt { authority, label: &"a".into(), at, verdict, handshake };
        observations.keep(attempt, presented.iter());
    }

    fn failed() -> Verdict {
        Verdict::Failed(ObservedFailure { code: "dns_error", sentence: "no such name".into(), hint: String::new() })
    }

    #[test]
    fn a_chain_is_kept_when_the_upstream_cannot_be_reached_any_more() {
        let observations = Observations::default();
        keep(&observations, "a:1", Verdict::Verified("ok"), &[b"one", b"two"]);
        let chain = observations.all()[0].chain.clone();
        keep(&observations, "a:1", failed(), &[]);
        let [observed] = &observations.all()[..] else { panic!("one upstream") };
        assert_eq!((observed.verdict.word(), observed.verdict.code()), ("failed", "dns_error"));
        assert!(Arc::ptr_eq(&observed.chain, &chain) && chain.len() == 2);
        assert_eq!(observed.tls_version, Some("TLSv1.3"), "of the last handshake");
        keep(&observations, "a:1", Verdict::Verified("ok"), &[b"one", b"two"]);
        assert!(Arc::ptr_eq(&observations.all()[0].chain, &chain), "the same chain is not read again");
        keep(&observations, "a:1", Verdict::Verified("ok"), &[b"three"]);
        assert_eq!(observations.all()[0].chain.len(), 1);
    }

    #[test]
    fn upstreams_and_chains_are_bounded() {
        let observations = Observations::default();
        for number in 0..MOST_UPSTREAMS + 10 {
            keep(&observations, &format!("{number}:443"), failed(), &[&b"x"[..]; 100]);
        }
        let all = observations.all();
        assert_eq!(all.len(), MOST_UPSTREAMS);
        assert!(all.iter().all(|observed| observed.chain.len() == MOST_CERTIFICATES));
    }
}
