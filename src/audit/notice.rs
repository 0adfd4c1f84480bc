//! Audit events that are no refusals: something that refusals depend on expires soon, or a server has another certificate.

use std::hash::{BuildHasher, RandomState};

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::event::{AuditEvent, begin_notice};
use crate::{
    clock::rfc3339,
    text::{escape, escape_within},
};

/// The action of [`ExpiryNotice`].
pub const EXPIRY: &str = "expiry";

/// The action of [`CertificateChanged`].
pub const CERTIFICATE_CHANGED: &str = "upstream-certificate-changed";

/// The code of something that expires soon.
pub const EXPIRES_SOON: &str = "expires_soon";

/// The code of something that has expired while the process ran.
pub const HAS_EXPIRED: &str = "has_expired";

/// Something expires soon, or has just expired.
#[derive(Clone, Debug)]
pub struct ExpiryNotice<'a> {
    /// When it was noticed.
    pub time: OffsetDateTime,
    /// What kind of thing it is, as in `upstream_certificate`.
    pub kind: &'static str,
    /// The upstream, `host:port`; `None` for a file or a bundle.
    pub upstream: Option<&'a str>,
    /// What it is called: the upstream, the file, or the bundle.
    pub name: &'a str,
    /// When it expires.
    pub expires: OffsetDateTime,
    /// A sentence for people, without a full stop.
    pub message: &'a str,
    /// What to do.
    pub hint: &'a str,
    /// For how many the event stands.
    pub count: usize,
}

impl ExpiryNotice<'_> {
    /// The event, key by key.
    pub fn json(&self) -> AuditEvent {
        let mut event = begin_notice(self.time, EXPIRY, "configuration", "info");
        let code = if self.expires > self.time { EXPIRES_SOON } else { HAS_EXPIRED };
        let mut put = |key: &str, value: Value| {
            event.insert(key.to_owned(), value);
        };
        put("event.id", id().into());
        put("vouchsafe.count", self.count.into());
        put_words(code, self.message, self.hint, &mut put);
        match self.upstream {
            Some(upstream) => put("vouchsafe.upstream", escape(upstream).into()),
            None => put("vouchsafe.target", escape(self.name).into()),
        }
        put("vouchsafe.expiry.kind", self.kind.into());
        put("vouchsafe.expiry.time", rfc3339(self.expires).into());
        put("vouchsafe.expiry.days_left", (self.expires - self.time).whole_days().into());
        event
    }
}

/// A server presented a certificate of another issuer, or with another key, than before.
#[derive(Clone, Debug)]
pub struct CertificateChanged<'a> {
    /// When.
    pub time: OffsetDateTime,
    /// The upstream, `host:port`.
    pub upstream: &'a str,
    /// What became of the handshake, as in `the server is verified`.
    pub verdict: &'static str,
    /// The one before.
    pub before: CertificateIdentity<'a>,
    /// The one of now.
    pub now: CertificateIdentity<'a>,
}

/// What tells a server's certificate from another. Texts are escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertificateIdentity<'a> {
    pub subject: &'a str,
    pub issuer: &'a str,
    /// SHA-256 of the certificate, lower-case hex.
    pub sha256: &'a str,
    /// SHA-256 of its public key, lower-case hex.
    pub spki_sha256: &'a str,
    pub not_after: OffsetDateTime,
}

impl CertificateIdentity<'_> {
    fn json(&self) -> Value {
        json!({
            "subject": self.subject,
            "issuer": self.issuer,
            "sha256": self.sha256,
            "spki_sha256": self.spki_sha256,
            "not_after": rfc3339(self.not_after),
        })
    }
}

impl CertificateChanged<'_> {
    /// The event, key by key. A changed issuer matters more than a changed key, which many renewals have.
    pub fn json(&self) -> AuditEvent {
        let Self { upstream, verdict, before, now, .. } = self;
        let (code, what) = match before.issuer == now.issuer {
            true => ("key_changed", format!("another key, sha256 {}", short(now.spki_sha256))),
            false => ("issuer_changed", format!("another issuer: `{}`, before `{}`", now.issuer, before.issuer)),
        };
        let message = format!("the certificate of {upstream} has {what}; {verdict}");
        let mut event = begin_notice(self.time, CERTIFICATE_CHANGED, "network", "change");
        let mut put = |key: &str, value: Value| {
            event.insert(key.to_owned(), value);
        };
        put("event.id", id().into());
        put("vouchsafe.count", 1.into());
        put_words(code, &message, HINT_FOR_CHANGE, &mut put);
        put("vouchsafe.upstream", escape(upstream).into());
        put("vouchsafe.certificate.before", before.json());
        put("vouchsafe.certificate.now", now.json());
        event
    }
}

const HINT_FOR_CHANGE: &str =
    "ask whoever runs the server whether its certificate was renewed or moved to another CA; pins may have to follow";

fn short(sha256: &str) -> &str {
    sha256.get(..16).unwrap_or(sha256)
}

/// What people read.
fn put_words(code: &'static str, message: &str, hint: &str, mut put: impl FnMut(&str, Value)) {
    put("error.code", code.into());
    put("error.message", escape_within(message, 1000).into());
    put("vouchsafe.hint", escape_within(hint, 600).into());
    put("vouchsafe.help", format!("vouchsafe explain {code}").into());
}

/// Unique, and 16 hex digits.
fn id() -> String {
    HEXLOWER.encode(&RandomState::new().hash_one("event").to_be_bytes())
}

/// Whether an action is that of a notice and not of a refusal.
pub fn is_notice(action: &str) -> bool {
    [EXPIRY, CERTIFICATE_CHANGED].contains(&action)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn another_issuer_is_told_before_another_key() {
        let not_after = datetime!(2027-01-01 0:00 UTC);
        let of =
            |issuer, key| CertificateIdentity { subject: "CN=a", issuer, sha256: "aa", spki_sha256: key, not_after };
        let code = |before, now| {
            let time = datetime!(2026-11-21 12:00 UTC);
            CertificateChanged { time, upstream: "a:1", verdict: "the server is refused", before, now }.json()["error.code"].clone()
        };
        assert_eq!(code(of("CN=1", "bb"), of("CN=1", "cc")), "key_changed");
        assert_eq!(code(of("CN=1", "bb"), of("CN=2", "bb")), "issuer_changed");
        assert_eq!(code(of("CN=1", "bb"), of("CN=2", "cc")), "issuer_changed");
    }
}
