//! A line of an audit log, read back: as much of it as a summary needs, borrowed from the line.
//!
//! The whole line has to be JSON, to its last byte, though most of it is passed over. Whoever can write
//! the log can forge a line, so nothing here believes what it says: it is counted, and shown escaped.

use std::{borrow::Cow, fmt, num::NonZero};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

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

/// An event: `docs/audit-log.md` says what its fields are.
#[derive(Debug, Deserialize)]
pub struct Entry<'a> {
    /// When it was recorded.
    #[serde(rename = "@timestamp")]
    pub time: Moment,
    /// When the first of those that it stands for was.
    #[serde(rename = "vouchsafe.first_time", default)]
    pub first_time: Option<Moment>,
    /// How many it stands for.
    #[serde(rename = "vouchsafe.count", default)]
    pub count: Option<NonZero<u64>>,
    /// What became of the handshake.
    #[serde(rename = "event.action", borrow)]
    pub action: Cow<'a, str>,
    /// The class.
    #[serde(rename = "error.code", borrow)]
    pub code: Cow<'a, str>,
    /// The sentence for people.
    #[serde(rename = "error.message", borrow, default)]
    pub message: Cow<'a, str>,
    /// What to do.
    #[serde(rename = "vouchsafe.hint", borrow, default)]
    pub hint: Cow<'a, str>,
    /// Whom it is about.
    #[serde(rename = "vouchsafe.upstream", borrow)]
    pub upstream: Cow<'a, str>,
    /// The certificate it is about.
    #[serde(rename = "vouchsafe.offending", borrow, default)]
    pub offending: Option<Offending<'a>>,
    #[serde(rename = "vouchsafe.chain", borrow, default)]
    chain: Option<&'a RawValue>,
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
pub struct Link<'a> {
    #[serde(borrow, default)]
    sha256: Cow<'a, str>,
    /// Who issued it; empty where it could not be read.
    #[serde(borrow, default)]
    pub issuer: Cow<'a, str>,
    /// The end of its validity.
    #[serde(default)]
    pub not_after: Option<Moment>,
}

impl<'a> Entry<'a> {
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
        let fit = is_word(&entry.action) && is_word(&entry.code) && is_upstream(&entry.upstream);
        if fit { Ok(entry) } else { Err(Flaw::NotAnEvent) }
    }

    /// How many it stands for; one, where it does not say.
    pub fn count(&self) -> u64 {
        self.count.map_or(1, NonZero::get)
    }

    /// When the first of those was.
    pub fn first(&self) -> OffsetDateTime {
        self.first_time.map_or(self.time.0, |first| first.0.min(self.time.0))
    }

    /// The certificate of the chain that has this fingerprint.
    pub fn link(&self, sha256: &str) -> Option<Link<'a>> {
        let mut chain = serde_json::Deserializer::from_str(self.chain?.get());
        Find(sha256).deserialize(&mut chain).ok().flatten()
    }
}

/// The longest upstream: a name of DNS and a port, and room.
const LONGEST_UPSTREAM: usize = 300;

fn is_upstream(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST_UPSTREAM && !text.bytes().any(|byte| byte.is_ascii_control())
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A time as RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub OffsetDateTime);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Moment;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as RFC 3339 has it")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Moment, E> {
                OffsetDateTime::parse(text, &Rfc3339).map(Moment).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Goes through a chain for one fingerprint and keeps nothing else: a forged chain may have a million
/// entries.
struct Find<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Option<Link<'de>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<Link<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of certificates")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut chain: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(link) = chain.next_element::<Link<'de>>()? {
            found = found.or((link.sha256 == self.0).then_some(link));
        }
        Ok(found)
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
        let entry = Entry::read(line.as_bytes()).unwrap();
        assert_eq!((&*entry.action, &*entry.code, &*entry.upstream), ("a", "c", "u"));
        assert_eq!((entry.count(), entry.first()), (1, datetime!(2026-11-21 03:17:56 UTC)));
        assert!(entry.offending.is_none() && entry.link("").is_none());
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
            let entry = Entry::read(line.as_bytes()).unwrap_or_else(|flaw| panic!("{more}: {flaw:?}"));
            assert_eq!((entry.count(), entry.first()), (count, first), "{more}");
        }
    }

    #[test]
    fn what_is_no_event_says_why() {
        let with = |more: &str| format!("{{{LEAST},{more}}}").into_bytes();
        let without = |key: &str| format!("{{{LEAST}}}").replace(key, "x").into_bytes();
        let long = "u".repeat(LONGEST_UPSTREAM + 1);
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
            // Which of the two would be true?
            (with(r#""error.code":"d""#), Flaw::NotAnEvent),
            (with(r#""vouchsafe.count":0"#), Flaw::NotAnEvent),
            (with(r#""vouchsafe.count":-1"#), Flaw::NotAnEvent),
            (with(r#""vouchsafe.count":"many""#), Flaw::NotAnEvent),
        ] {
            let text = String::from_utf8_lossy(&line).into_owned();
            assert_eq!(Entry::read(&line).err(), Some(flaw), "{text}");
        }
    }

    #[test]
    fn a_certificate_is_found_in_the_chain_by_its_fingerprint() {
        let chain = r#"[{"index":0,"unreadable":"why","sha256":"aa"},
            {"index":1,"issuer":"CN=\"Root\"","not_after":"2031-11-20T03:13:41Z","sha256":"bb"}]"#;
        let line = format!("{{{LEAST},\"vouchsafe.chain\":{chain}}}");
        let entry = Entry::read(line.as_bytes()).unwrap();
        let found = |sha256| entry.link(sha256).map(|link| (link.issuer.into_owned(), link.not_after));
        assert_eq!(found("aa"), Some((String::new(), None)));
        assert_eq!(found("bb"), Some((r#"CN="Root""#.into(), Some(Moment(datetime!(2031-11-20 03:13:41 UTC))))));
        assert_eq!(found("cc"), None);
        for odd in ["null", "7", r#"[1]"#, r#"[{"sha256":7}]"#] {
            let line = format!("{{{LEAST},\"vouchsafe.chain\":{odd}}}");
            assert!(Entry::read(line.as_bytes()).unwrap().link("aa").is_none(), "{odd}");
        }
    }
}
