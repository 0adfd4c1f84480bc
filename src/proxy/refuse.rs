//! A request that is not served: recorded, and answered as the listener's policy says.

use crate::{
    audit::event,
    connect::pool::Slot,
    message::authority::Authority,
    text::{escape, escape_within},
};

use super::{
    RequestSummary, context::RequestContext, exchange::Outcome, failure::Failure, observe::FailedRequest,
    respond::LocalResponse,
};

impl RequestContext<'_> {
    /// Records a failure, and answers it as the policy says.
    pub(super) async fn refuse(mut self, failure: &Failure) -> Outcome {
        let id = self.proxy.ids.next();
        let words = failure.words();
        let slot = self.upstream.clone();
        let upstream = slot.as_ref().map(|slot| slot.authority.clone());
        self.record_failure(failure, slot.as_deref(), &id);
        let destination = upstream.clone().unwrap_or_else(|| self.asked_for().into());
        let listener = &self.listener().metrics.name;
        let request = FailedRequest { id: &id, target: &destination, client: self.client.peer(), listener };
        self.proxy.count_failure(failure, slot.as_deref(), request);
        let policies = &self.listener().policies;
        let mut response = LocalResponse::to(failure, upstream.as_deref(), &id, policies.answer, policies.detail);
        if let Some(response) = response.as_mut().filter(|_| self.head.method() == "CONNECT") {
            response.explain_in_reason(words.class, &destination, policies.detail);
        }
        let status = response.as_ref().map_or(0, |response| response.status.as_u16());
        self.record.refused(&id, status, words.class);
        let Some(response) = response else {
            self.record.interrupted();
            return Outcome::Reset;
        };
        let to_head = self.head.method() == "HEAD";
        response.write_to(self.client.outbox(), self.request_version, to_head, true);
        if self.flush().await.is_err() {
            return Outcome::Reset;
        }
        self.record.count_response(if to_head { 0 } else { response.length() as u64 });
        self.record.whole();
        Outcome::Close { last: false }
    }

    fn record_failure(&self, failure: &Failure, slot: Option<&Slot>, id: &str) {
        let summary = self.summary();
        if let (Some((refused, is_parent)), Some(slot)) = (failure.refused_handshake(), slot) {
            return match is_parent {
                true => self.proxy.record_handshake_of_parent(refused, slot, &summary, id),
                false => self.proxy.record_handshake(refused, slot, &summary, id),
            };
        }
        match (failure, slot) {
            (failure, slot) if failure.is_policy() => self.record_policy(failure, slot, &summary, id),
            (failure, slot) => {
                let upstream = slot.map(|slot| &*slot.authority);
                let hint = failure.hint();
                tracing::warn!(
                    event = "request-failed",
                    request = id,
                    class = failure.words().class,
                    upstream,
                    client = %summary.client,
                    listener = %summary.listener,
                    method = escape_within(summary.method, 40),
                    path = escape(&summary.path()),
                    hint = (!hint.is_empty()).then_some(&*hint),
                    "{failure}"
                );
            }
        }
    }

    /// The authority that the client named, or else the address that it connected to; empty where neither is known.
    fn asked_for(&self) -> String {
        let asked = self.target().ok().and_then(|target| target.authority);
        let original = || self.context.original.map(|original| original.to_string());
        let asked = asked.as_ref().or(self.context.tunnel.as_ref()).map(Authority::to_string);
        asked.or_else(original).unwrap_or_default()
    }

    /// A refusal that is not about a certificate belongs into the audit log, too.
    fn record_policy(&self, failure: &Failure, slot: Option<&Slot>, summary: &RequestSummary<'_>, id: &str) {
        let upstream = slot.map(|slot| &*slot.authority);
        let asked = self.asked_for();
        let target = if asked.is_empty() { upstream.unwrap_or_default().to_owned() } else { asked };
        let path = summary.path();
        self.proxy.audit.record_policy(&event::PolicyRefused {
            id,
            time: self.proxy.clock.now(),
            class: failure.words().class,
            message: &failure.to_string(),
            hint: &failure.hint(),
            target: &target,
            upstream,
            address: failure.address().or(self.context.original),
            client: summary.client,
            listener: summary.listener,
            request: Some((summary.method, &path)),
            generation: self.current.generation.number,
        });
    }
}
