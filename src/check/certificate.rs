//! One certificate, in words and as JSON.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::{
    clock::{distance, rfc3339},
    tls::{
        fingerprint::Fingerprint,
        presented::{Certificate, Facts},
    },
};

/// Key, validity and fingerprint: `P-256, 2026-11-20 to 2027-11-21 (364 days left), sha256 0123456789abcdef`.
pub fn line(certificate: &Certificate, at: OffsetDateTime) -> String {
    match &certificate.facts {
        Ok(facts) => {
            format!("{}, {}, sha256 {}", facts.key.describe(), validity(facts, at), short(&certificate.sha256))
        }
        Err(why) => format!("cannot be read: {why}; sha256 {}", short(&certificate.sha256)),
    }
}

/// The names a server can prove by it, those first that matter; None where there are none.
pub fn names(facts: &Facts) -> Option<String> {
    let names = facts.presented_names();
    let mut shown = names.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MOST_NAMES {
        shown.push_str(&format!(" and {} more", names.len() - MOST_NAMES));
    }
    (!names.is_empty()).then_some(shown)
}

/// More than these are counted, not shown.
const MOST_NAMES: usize = 8;

/// As many days as nobody has to compute: `2026-11-20 to 2027-11-21 (364 days left)`.
fn validity(facts: &Facts, at: OffsetDateTime) -> String {
    let apart = |moment: OffsetDateTime| distance((moment - at).whole_seconds());
    let distance = if at > facts.not_after {
        format!("ended {} ago", apart(facts.not_after))
    } else if at < facts.not_before {
        format!("begins in {}", apart(facts.not_before))
    } else {
        format!("{} left", apart(facts.not_after))
    };
    format!("{} to {} ({distance})", day(facts.not_before), day(facts.not_after))
}

/// The day of a moment, UTC.
pub fn day(at: OffsetDateTime) -> String {
    let text = rfc3339(at);
    text.split_once('T').map_or(text.clone(), |(day, _)| day.to_owned())
}

/// Enough of a fingerprint to tell two apart by eye.
pub fn short(sha256: &str) -> &str {
    sha256.get(..16).unwrap_or(sha256)
}

/// What there is to know of it.
pub fn json(certificate: &Certificate, at: OffsetDateTime) -> Map<String, Value> {
    let mut all = Map::new();
    let mut put = |key: &str, value: Value| all.insert(key.to_owned(), value);
    match &certificate.facts {
        Ok(facts) => {
            put("subject", facts.subject.as_str().into());
            put("issuer", facts.issuer.as_str().into());
            put("serial", facts.serial.as_str().into());
            put("not_before", rfc3339(facts.not_before).into());
            put("not_after", rfc3339(facts.not_after).into());
            put("days_left", (facts.not_after - at).whole_days().into());
            put("names", facts.presented_names().into());
            put("key", facts.key.describe().into());
            put("ca", json!(facts.is_ca));
            put("sha256", certificate.sha256.as_str().into());
            put("pin", Fingerprint::of(&facts.spki).to_string().into());
        }
        Err(why) => {
            put("unreadable", why.as_str().into());
            put("length", certificate.der.len().into());
            put("sha256", certificate.sha256.as_str().into());
        }
    }
    all
}
