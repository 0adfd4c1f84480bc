//! What is counted and kept about attempts to connect, and about requests that did not get an upstream's response.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use crate::{
    audit::notice::{CertificateChanged, CertificateIdentity},
    connect::{Verified, error::ConnectError, pool::Slot},
    metrics::{
        history::{Event, Outcome},
        observed::{Attempt, Handshake, ObservedCertificate, ObservedFailure, Verdict},
    },
    text::escape,
    tls::{
        client::PeerTrust,
        failure::{HandshakeFailure, Occasion},
        verify::Proof,
    },
    transport::ClientAddress,
};

use super::{
    Proxy, RequestSummary,
    failure::{Failure, FailureKind, connect_words},
};

/// A request or a connection that failed or was refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedRequest<'a> {
    /// Its id in logs.
    pub(super) id: &'a str,
    /// The upstream's authority, or what was asked for; may be empty.
    pub(super) target: &'a str,
    pub(super) client: ClientAddress,
    /// The name of the listener.
    pub(super) listener: &'a Arc<str>,
}

impl Proxy {
    /// Counts a failure. `slot`: that of the upstream, if one was chosen.
    pub(super) fn count_failure(&self, failure: &Failure, slot: Option<&Slot>, request: FailedRequest<'_>) {
        let words = failure.words();
        self.audit.tally().count(words.kind.bad_end(), words.class, request.target);
        let upstream = slot.map(|slot| &*slot.metrics.shared);
        if words.kind == FailureKind::Refusal {
            let event = self.event(words.class, Outcome::Refused, request, &failure.to_string());
            self.metrics.refused(upstream, event);
        } else {
            self.metrics.failed(upstream, words.class);
        }
    }

    /// Keeps that a connection is used whose peer was refused.
    pub(super) fn note_bypassed(
        &self,
        refused: &HandshakeFailure,
        slot: &Slot,
        request: &RequestSummary<'_>,
        id: &str,
    ) {
        let verdict = &refused.failure.verdict;
        let request = FailedRequest { id, target: &slot.authority, client: request.client, listener: request.listener };
        let event = self.event(verdict.code.as_str(), Outcome::Bypassed, request, &verdict.sentence);
        self.metrics.history.note(event);
    }

    fn event(&self, code: &'static str, outcome: Outcome, request: FailedRequest<'_>, message: &str) -> Event {
        Event {
            time: self.clock.now(),
            id: request.id.to_owned(),
            code,
            outcome,
            target: escape(request.target),
            client: request.client.to_string(),
            listener: request.listener.clone(),
            message: escape(message),
        }
    }

    /// Records that a server has a certificate of another issuer, or with another key.
    fn record_change(
        &self,
        slot: &Slot,
        verdict: &'static str,
        before: &ObservedCertificate,
        now: &ObservedCertificate,
    ) {
        let (Some(before), Some(now)) = (identity(before), identity(now)) else { return };
        let (time, upstream) = (self.clock.now(), &*slot.authority);
        self.audit.record_change(&CertificateChanged { time, upstream, verdict, before, now });
    }

    /// Counts and keeps how an attempt to connect to an upstream ended.
    pub(super) fn observe(&self, slot: &Slot, end: &Result<Verified, ConnectError>) {
        let upstream = &*slot.metrics.shared;
        let keep = |verdict: Verdict, handshake, chain: Vec<&CertificateDer<'static>>| {
            let became = became(&verdict);
            let attempt = Attempt {
                authority: &slot.authority,
                label: &upstream.label,
                at: self.clock.now(),
                verdict,
                handshake,
            };
            if let Some((before, now)) = self.metrics.observed.keep(attempt, chain.into_iter()) {
                self.record_change(slot, became, &before, &now);
            }
        };
        match end {
            Ok(verified) => {
                let peer = verified.peer();
                let result = completed(&peer.standing);
                self.metrics.handshake_completed(upstream, result, verified.took());
                let bypassed = verified.bypassed();
                let verdict = match &bypassed {
                    Some(refused) => Verdict::ReportOnly(observed_failure(refused)),
                    None => Verdict::Verified(result),
                };
                let handshake = Handshake { address: peer.address, tls_version: Some(peer.tls_version.as_str()) };
                keep(verdict, Some(handshake), peer.chain.iter().collect());
            }
            // There was no new handshake.
            Err(ConnectError::Handshake(failed)) if failed.occasion == Occasion::Remembered => {}
            Err(ConnectError::Handshake(failed)) => {
                let code = failed.failure.code();
                self.metrics.handshake_failed(upstream, code.as_str());
                let failure = observed_failure(failed);
                let verdict = if code.is_refusal() { Verdict::Refused(failure) } else { Verdict::Failed(failure) };
                let handshake = Handshake { address: failed.address, tls_version: None };
                keep(verdict, Some(handshake), failed.presented.iter().map(|certificate| &certificate.der).collect());
            }
            // Decisions about the way there, not about the upstream.
            Err(ConnectError::AddressDenied { .. } | ConnectError::CameBack { .. } | ConnectError::Loop { .. }) => {}
            Err(error) => {
                let (code, sentence) = (connect_words(error).class, escape(&error.to_string()));
                let failure = ObservedFailure { code, sentence, hint: String::new() };
                keep(Verdict::Failed(failure), None, Vec::new());
            }
        }
    }
}

/// What became of a handshake, in a clause.
fn became(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Verified(_) => "the server is verified",
        Verdict::ReportOnly(_) => "the server failed verification, which is only reported",
        Verdict::Refused(_) => "the server is refused",
        Verdict::Failed(_) => "the handshake failed",
    }
}

fn identity(certificate: &ObservedCertificate) -> Option<CertificateIdentity<'_>> {
    let facts = certificate.facts.as_ref()?;
    Some(CertificateIdentity {
        subject: &certificate.subject,
        issuer: &facts.issuer,
        sha256: &certificate.sha256,
        spki_sha256: &facts.spki_sha256,
        not_after: facts.not_after,
    })
}

/// The word for how a handshake was completed.
fn completed(standing: &PeerTrust) -> &'static str {
    match standing {
        PeerTrust::Verified(accepted) if accepted.proof == Proof::Chain => "ok",
        standing => standing.as_str(),
    }
}

fn observed_failure(failed: &HandshakeFailure) -> ObservedFailure {
    let failure = &failed.failure;
    ObservedFailure {
        code: failure.code().as_str(),
        sentence: failure.verdict.sentence.clone(),
        hint: failure.hint.clone(),
    }
}
