//! A line of an audit log, read back: as much of it as a summary needs, borrowed from the line.
//!
//! The whole line has to be JSON, to its last byte, though most of it is passed over. Whoever can write
//! the log can forge a line, so nothing here believes what it says: it is counted, and shown escaped.

use std::{borrow::Cow, fmt, marker::PhantomData, num::NonZero};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::notice::is_notice;

/// What is wrong with a line that is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// JSON, but without what every event has.
    NotAnEvent,
    /// Not JSON, or cut.
    NotJson,
    /// Not UTF-8.
    NotUtf8,
    /// Too long to be kept.
    TooLong,
}

/// An event: `docs/audit-log.md` describes its fields.
#[derive(Debug, Deserialize)]
pub struct AuditEntry<'a> {
    /// When it was recorded.
    #[serde(rename = "@timestamp")]
    pub time: Timestamp,
    /// When the first of those that it stands for was.
    #[serde(rename = "vouchsafe.first_time", default)]
    first_time: Option<Timestamp>,
    /// The version of its fields.
    #[serde(rename = "vouchsafe.schema", default)]
    schema: Option<u64>,
    /// How many it stands for.
    #[serde(rename = "vouchsafe.count", default)]
    count: Option<NonZero<u64>>,
    /// What became of the handshake or the request.
    #[serde(rename = "event.action", borrow)]
    pub action: Cow<'a, str>,
    /// Its id.
    #[serde(rename = "event.id", borrow, default)]
    id: Cow<'a, str>,
    /// The ids of all that it stands for.
    #[serde(rename = "vouchsafe.ids", borrow, default)]
    ids: Option<&'a RawValue>,
    /// The class.
    #[serde(rename = "error.code", borrow, default)]
    pub code: Cow<'a, str>,
    /// The sentence for people.
    #[serde(rename = "error.message", borrow, default)]
    pub message: Cow<'a, str>,
    /// What to do.
    #[serde(rename = "vouchsafe.hint", borrow, default)]
    pub hint: Cow<'a, str>,
    #[serde(rename = "vouchsafe.upstream", borrow, default)]
    upstream: Option<Cow<'a, str>>,
    #[serde(rename = "vouchsafe.target", borrow, default)]
    target: Option<Cow<'a, str>>,
    /// The client's address.
    #[serde(rename = "client.ip", alias = "client.address", borrow, default)]
    pub client: Option<Cow<'a, str>>,
    /// The listener's name.
    #[serde(rename = "vouchsafe.listener", borrow, default)]
    pub listener: Option<Cow<'a, str>>,
    /// The path of the request.
    #[serde(rename = "url.path", borrow, default)]
    pub path: Option<Cow<'a, str>>,
    /// How much was sent of a request; none where that is not known.
    #[serde(rename = "vouchsafe.request_bytes_sent", default)]
    pub bytes_sent: Option<u64>,
    /// How many requests were sent.
    #[serde(rename = "vouchsafe.requests", default)]
    pub requests: Option<u64>,
    /// Whose requests were sent.
    #[serde(rename = "vouchsafe.clients", borrow, default)]
    pub clients: First<ClientUse<'a>>,
    /// What else is wrong.
    #[serde(rename = "vouchsafe.findings", borrow, default)]
    pub findings: First<AlsoFound<'a>>,
    /// The certificate it is about.
    #[serde(rename = "vouchsafe.offending", borrow, default)]
    pub offending: Option<Offending<'a>>,
    /// Names the file of the chain.
    #[serde(rename = "vouchsafe.chain_sha256", borrow, default)]
    pub chain_sha256: Option<Cow<'a, str>>,
    #[serde(rename = "vouchsafe.chain", borrow, default)]
    chain: Option<&'a RawValue>,
    /// How many events are missing.
    #[serde(rename = "vouchsafe.lost", default)]
    lost: Option<u64>,
    #[serde(rename = "vouchsafe.from", default)]
    from: Option<Timestamp>,
    #[serde(rename = "vouchsafe.to", default)]
    to: Option<Timestamp>,
}

/// How many requests of a client were sent.
#[derive(Debug, Deserialize)]
pub struct ClientUse<'a> {
    /// Its address.
    #[serde(alias = "address", borrow)]
    pub ip: Cow<'a, str>,
    /// How many.
    pub requests: u64,
}

/// What else is wrong with a server.
#[derive(Debug, Deserialize)]
pub struct AlsoFound<'a> {
    /// The class.
    #[serde(borrow)]
    pub code: Cow<'a, str>,
}

/// The certificate that a verdict is about.
#[derive(Debug, Deserialize)]
pub struct Offending<'a> {
    /// Where it was: `presented`, or `bundle`.
    #[serde(rename = "in", borrow, default)]
    pub place: Cow<'a, str>,
    /// Its subject.
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
    /// Its fingerprint.
    #[serde(borrow)]
    pub sha256: Cow<'a, str>,
}

/// A certificate of the chain.
#[derive(Debug, Deserialize)]
pub struct ChainMember<'a> {
    /// Its fingerprint.
    #[serde(borrow, default)]
    pub sha256: Cow<'a, str>,
    /// Its subject; empty where it could not be read.
    #[serde(borrow, default)]
    pub subject: Cow<'a, str>,
    /// Who issued it; empty where it could not be read.
    #[serde(borrow, default)]
    pub issuer: Cow<'a, str>,
    /// The end of its validity.
    #[serde(default)]
    pub not_after: Option<Timestamp>,
}

/// The action of a line that stands for events which are missing.
const GAP: &str = "audit-gap";

/// The action of a line that says what was sent on connections that were bypassed.
const BYPASSED_REQUESTS: &str = "tls-bypassed-requests";

/// The action of a bypassed handshake.
pub const BYPASSED: &str = "tls-verification-bypassed";

impl<'a> AuditEntry<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// [`Flaw`], where it is no event.
    pub fn read(line: &'a [u8]) -> Result<Self, Flaw> {
        let text = str::from_utf8(line).map_err(|_| Flaw::NotUtf8)?;
        let flaw = |error: serde_json::Error| match error.classify() {
            Category::Data => Flaw::NotAnEvent,
            Category::Eof | Category::Io | Category::Syntax => Flaw::NotJson,
        };
        // serde would take the fields from a list, too.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(serde_json::from_str::<IgnoredAny>(text).map_or_else(flaw, |_| Flaw::NotAnEvent));
        }
        let entry: Self = serde_json::from_str(text).map_err(flaw)?;
        let whole = match &*entry.action {
            GAP => entry.lost.is_some(),
            action => is_word(action) && is_word(&entry.code) && is_destination(entry.destination()),
        };
        if whole { Ok(entry) } else { Err(Flaw::NotAnEvent) }
    }

    /// The upstream, or what was requested where none was chosen.
    pub fn destination(&self) -> &str {
        self.upstream.as_deref().or(self.target.as_deref()).unwrap_or_default()
    }

    /// How many it stands for; one, where it does not say, and none where it only says what was sent.
    pub fn count(&self) -> u64 {
        if self.is_use() { 0 } else { self.count.map_or(1, NonZero::get) }
    }

    /// When the first of those was.
    pub fn first(&self) -> OffsetDateTime {
        let first = self.first_time.or(self.from.filter(|_| self.is_use()));
        first.map_or(self.time.0, |first| first.0.min(self.time.0))
    }

    /// Whether it says what was sent on connections that were bypassed, and is no refusal itself.
    pub fn is_use(&self) -> bool {
        self.action == BYPASSED_REQUESTS
    }

    /// Whether it is about something that will lead to refusals, and is no refusal itself.
    pub fn is_notice(&self) -> bool {
        is_notice(&self.action)
    }

    /// Whether another event counts what is sent on the connection that this one is about.
    pub fn is_counted_by_another(&self) -> bool {
        self.action == BYPASSED && self.schema >= Some(3)
    }

    /// Where it stands for events that are missing: how many, from when to when.
    pub fn gap(&self) -> Option<(u64, OffsetDateTime, OffsetDateTime)> {
        let lost = self.lost.filter(|_| self.action == GAP)?;
        let at = |moment: Option<Timestamp>| moment.map_or(self.time.0, |moment| moment.0);
        Some((lost, at(self.from), at(self.to)))
    }

    /// Whether a client was told this id.
    pub fn has_id(&self, id: &str) -> bool {
        self.id == id || self.ids.is_some_and(|ids| ids.get().contains(&format!("\"{id}\"")))
    }

    /// The first certificates of the chain, the server's own first.
    pub fn chain(&self) -> Vec<ChainMember<'a>> {
        let members = self.chain.and_then(|chain| serde_json::from_str::<First<ChainMember<'a>>>(chain.get()).ok());
        members.unwrap_or_default().0
    }

    /// The certificate of the chain that has this fingerprint.
    pub fn chain_member(&self, sha256: &str) -> Option<ChainMember<'a>> {
        self.chain().into_iter().find(|member| member.sha256 == sha256)
    }
}

/// The longest destination: a name of DNS and a port, and room.
const LONGEST_DESTINATION: usize = 300;

fn is_destination(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_DESTINATION && !text.bytes().any(|byte| byte.is_ascii_control())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A time as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub OffsetDateTime);

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        OffsetDateTime::parse(&text, &Rfc3339).map(Timestamp).map_err(D::Error::custom)
    }
}

/// The first members of a list; a forged one may have a million.
#[derive(Debug)]
pub struct First<T>(pub Vec<T>);

/// As many as an event has in any of its lists.
const MOST: usize = 64;

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstVisitor(PhantomData))
    }
}

struct FirstVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FirstVisitor<T> {
    type Value = First<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut first = Vec::new();
        while first.len() < MOST {
            let Some(member) = list.next_element()? else { return Ok(First(first)) };
            first.push(member);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(first))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const LEAST: &str =
        r#""@timestamp":"2026-11-21T03:17:56Z","event.action":"a","error.code":"c","vouchsafe.upstream":"u""#;

    #[test]
    fn the_least_that_is_an_event() {
        let line = format!("{{{LEAST}}}");
        let entry = AuditEntry::read(line.as_bytes()).unwrap();
        assert_eq!((&*entry.action, &*entry.code, entry.destination()), ("a", "c", "u"));
        assert_eq!((entry.count(), entry.first()), (1, datetime!(2026-11-21 03:17:56 UTC)));
        assert!(entry.offending.is_none() && entry.chain_member("").is_none() && entry.gap().is_none());
    }

    #[test]
    fn an_event_may_stand_for_many() {
        for (more, count, first) in [
            (r#""vouchsafe.count":7"#, 7, datetime!(2026-11-21 03:17:56 UTC)),
            (r#""vouchsafe.count":null,"vouchsafe.first_time":null"#, 1, datetime!(2026-11-21 03:17:56 UTC)),
            (r#""vouchsafe.first_time":"2026-11-20T23:00:00-01:00""#, 1, datetime!(2026-11-21 00:00:00 UTC)),
            // Of a clock that was set back in between.
            (r#""vouchsafe.first_time":"2026-11-22T00:00:00Z""#, 1, datetime!(2026-11-21 03:17:56 UTC)),
        ] {
            let line = format!("{{{LEAST},{more}}}");
            let entry = AuditEntry::read(line.as_bytes()).unwrap_or_else(|flaw| panic!("{more}: {flaw:?}"));
            assert_eq!((entry.count(), entry.first()), (count, first), "{more}");
        }
    }

    #[test]
    fn a_gap_needs_no_code_and_an_event_without_an_upstream_has_its_target() {
        let gap = br#"{"@timestamp":"2026-11-21T03:17:56Z","event.action":"audit-gap","vouchsafe.lost":7,
            "vouchsafe.from":"2026-11-21T03:00:00Z","vouchsafe.to":"2026-11-21T03:10:00Z"}"#;
        let gap = AuditEntry::read(gap).unwrap().gap();
        assert_eq!(gap, Some((7, datetime!(2026-11-21 03:00 UTC), datetime!(2026-11-21 03:10 UTC))));
        let refused = LEAST.replace("upstream", "target");
        let line = format!(r#"{{{refused},"vouchsafe.upstream":null}}"#);
        assert_eq!(AuditEntry::read(line.as_bytes()).unwrap().destination(), "u");
    }

    #[test]
    fn an_event_is_found_by_every_id_that_a_client_was_told() {
        let line = format!(r#"{{{LEAST},"event.id":"1a","vouchsafe.ids":["2b","1a"]}}"#);
        let entry = AuditEntry::read(line.as_bytes()).unwrap();
        assert!(entry.has_id("1a") && entry.has_id("2b") && !entry.has_id("2") && !entry.has_id("3c"));
    }

    #[test]
    fn what_is_no_event_says_why() {
        let with = |more: &str| format!("{{{LEAST},{more}}}").into_bytes();
        let without = |key: &str| format!("{{{LEAST}}}").replace(key, "x").into_bytes();
        let long = "u".repeat(LONGEST_DESTINATION + 1);
        for (line, flaw) in [
            (b"\xff".to_vec(), Flaw::NotUtf8),
            (with("\"x\":\"\u{fe}\"").iter().map(|b| if *b == 0xc3 { 0xff } else { *b }).collect(), Flaw::NotUtf8),
            (b"once upon a time".to_vec(), Flaw::NotJson),
            (b"{".to_vec(), Flaw::NotJson),
            (b"[1,".to_vec(), Flaw::NotJson),
            (b"\0\0\0".to_vec(), Flaw::NotJson),
            // Broken behind all that is needed.
            (with(r#""x":[1,2}"#), Flaw::NotJson),
            (with(r#""x":"\q""#), Flaw::NotJson),
            (format!("{{{LEAST},\"x\":1").into_bytes(), Flaw::NotJson),
            (format!("{{{LEAST}}}{{{LEAST}}}").into_bytes(), Flaw::NotJson),
            (b"{}".to_vec(), Flaw::NotAnEvent),
            (b"null".to_vec(), Flaw::NotAnEvent),
            (br#"["2026-11-21T03:17:56Z",null,null,"a","c","m","h","u"]"#.to_vec(), Flaw::NotAnEvent),
            (without("@timestamp"), Flaw::NotAnEvent),
            (without("event.action"), Flaw::NotAnEvent),
            (without("error.code"), Flaw::NotAnEvent),
            (without("vouchsafe.upstream"), Flaw::NotAnEvent),
            (without("2026-11-21T03:17:56Z"), Flaw::NotAnEvent),
            (without(r#""c""#), Flaw::NotJson),
            (format!("{{{LEAST}}}").replace(r#""c""#, r#""two words""#).into_bytes(), Flaw::NotAnEvent),
            (format!("{{{LEAST}}}").replace(r#""u""#, &format!("{long:?}")).into_bytes(), Flaw::NotAnEvent),
            (format!("{{{LEAST}}}").replace(r#""u""#, r#""a\nb""#).into_bytes(), Flaw::NotAnEvent),
            // Nobody could tell which of the two is true.
            (with(r#""error.code":"d""#), Flaw::NotAnEvent),
            (with(r#""vouchsafe.count":0"#), Flaw::NotAnEvent),
            (with(r#""vouchsafe.count":-1"#), Flaw::NotAnEvent),
            (with(r#""vouchsafe.count":"many""#), Flaw::NotAnEvent),
            (format!("{{{LEAST}}}").replace("\"a\"", "\"audit-gap\"").into_bytes(), Flaw::NotAnEvent),
        ] {
            let text = String::from_utf8_lossy(&line).into_owned();
            assert_eq!(AuditEntry::read(&line).err(), Some(flaw), "{text}");
        }
    }

    #[test]
    fn a_certificate_is_found_in_the_chain_by_its_fingerprint() {
        let chain = r#"[{"index":0,"unreadable":"why","sha256":"aa"},
            {"index":1,"issuer":"CN=\"Root\"","not_after":"2031-11-20T03:13:41Z","sha256":"bb"}]"#;
        let line = format!("{{{LEAST},\"vouchsafe.chain\":{chain}}}");
        let entry = AuditEntry::read(line.as_bytes()).unwrap();
        let found = |sha256| entry.chain_member(sha256).map(|member| (member.issuer.into_owned(), member.not_after));
        assert_eq!(found("aa"), Some((String::new(), None)));
        assert_eq!(found("bb"), Some((r#"CN="Root""#.into(), Some(Timestamp(datetime!(2031-11-20 03:13:41 UTC))))));
        assert_eq!(found("cc"), None);
        for odd in ["null", "7", r#"[1]"#, r#"[{"sha256":7}]"#] {
            let line = format!("{{{LEAST},\"vouchsafe.chain\":{odd}}}");
            assert!(AuditEntry::read(line.as_bytes()).unwrap().chain_member("aa").is_none(), "{odd}");
        }
    }
}
