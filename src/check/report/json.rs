//! The result for one server as JSON.

use serde_json::{Map, Value, json};

use crate::{
    check::{
        certificate,
        checks::{Check, Outcome},
    },
    clock::rfc3339,
    tls::{failure::CertificateRef, presented::Certificate},
};

use super::{Problem, Report};

/// Where a code is explained.
fn doc(code: &str) -> String {
    format!("docs/failures.md#{code}")
}

impl Report {
    /// One JSON object; `docs/check.md` has its fields.
    pub fn json(&self) -> Value {
        let tree = self.tree();
        let mut all = Map::new();
        let mut put = |key: &str, value: Value| all.insert(key.to_owned(), value);
        let first = self.problems.first();
        put("asked", self.asked.as_str().into());
        put("upstream", self.upstream.authority().into());
        put("verdict", self.verdict.as_str().into());
        put("code", first.map(|problem| problem.code).into());
        put("message", first.map(|problem| problem.sentence.as_str()).into());
        put("fix", first.map(|problem| problem.fix.as_str()).into());
        put("doc", first.map(|problem| doc(problem.code)).into());
        put("at", rfc3339(self.at).into());
        put("address", self.address.map(|address| address.to_string()).into());
        put("parent", self.upstream.parent.as_ref().map(ToString::to_string).into());
        put("reference", self.upstream.reference.to_string().into());
        put("sni", self.upstream.sni.clone().into());
        let peer = self.probed.peer.as_deref();
        put(
            "tls",
            peer.map(|peer| json!({ "version": peer.tls_version.as_str(), "cipher": peer.cipher_suite })).into(),
        );
        let client = peer.map(|peer| {
            let sent = peer.client.certificate.as_deref().filter(|_| peer.client.asked);
            json!({ "asked": peer.client.asked, "sent": sent })
        });
        put("client_certificate", client.into());
        let anchors = self.upstream.anchors();
        put(
            "bundle",
            json!({ "source": anchors.source, "certificates": anchors.certificates().len(), "sha256": anchors.sha256 }),
        );
        let trusted = self.accepted.as_ref();
        put("trust", trusted.map(|accepted| accepted.proof.as_str()).into());
        put("until", self.until().map(|(until, _)| rfc3339(until)).into());
        let path = trusted.map(|accepted| accepted.path.iter().map(|subject| place(*subject)).collect::<Vec<_>>());
        put("path", path.into());
        let of = |(index, certificate): (usize, &Certificate)| {
            let mut one = Map::from_iter([("index".to_owned(), index.into())]);
            one.extend(certificate::json(certificate, self.at));
            Value::Object(one)
        };
        put("presented", self.presented.iter().enumerate().take(MOST).map(of).collect());
        put("presented_count", self.presented.len().into());
        let anchor = trusted.and_then(|accepted| match accepted.path.last() {
            Some(CertificateRef::Anchor(index)) => Some((*index, anchors.certificates().get(*index)?)),
            _ => None,
        });
        put("anchor", anchor.map(of).into());
        put("checks", self.checks(&tree).iter().map(Check::json).collect());
        put("findings", self.problems.iter().map(Problem::json).collect());
        put("warnings", self.warnings().into());
        Value::Object(all)
    }
}

/// A hostile chain may be long; its length is shown, its tail is not.
const MOST: usize = 16;

fn place(subject: CertificateRef) -> Value {
    match subject {
        CertificateRef::Anchor(index) => json!({ "in": "bundle", "index": index }),
        CertificateRef::Handshake => Value::Null,
        CertificateRef::Presented(index) => json!({ "in": "presented", "index": index }),
    }
}

impl Problem {
    fn json(&self) -> Value {
        json!({
            "code": self.code,
            "message": self.sentence,
            "certificate": place(self.subject),
            "fix": self.fix,
            "doc": doc(self.code),
        })
    }
}

impl Check {
    fn json(&self) -> Value {
        let (message, codes) = match &self.result {
            Outcome::Failed(findings) => (None, findings.iter().map(|finding| finding.code.as_str()).collect()),
            Outcome::NotAsked(words) | Outcome::NotReached(words) | Outcome::Passed(words) => {
                (Some(words.as_str()), Vec::new())
            }
        };
        json!({ "check": self.kind.as_str(), "result": self.result.as_str(), "message": message, "codes": codes })
    }
}
