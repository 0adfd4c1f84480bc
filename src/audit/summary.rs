//! What many events say together: a group for each upstream, class and action. No IO.
//!
//! Its size is bounded, whatever a log holds: so many groups are told apart, and every text is cut. Texts
//! are escaped when they come in, so nothing that a [`Summary`] gives out can move a terminal.

use std::collections::HashMap;

use time::OffsetDateTime;

use super::entry::{Entry, Flaw};
use crate::text::{escape, escape_within};

/// How many groups are told apart; events of others are counted together.
pub const MOST_GROUPS: usize = 10_000;

/// How many certificates of a group are told apart.
pub const MOST_CERTIFICATES: usize = 16;

/// Which events are counted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Recorded then or later.
    pub since: Option<OffsetDateTime>,
    /// Recorded before.
    pub until: Option<OffsetDateTime>,
    /// `host:port`, or a host with whatever port.
    pub upstream: Option<String>,
    /// The class.
    pub code: Option<String>,
}

impl Filter {
    /// Whether an event is wanted.
    pub fn takes(&self, entry: &Entry<'_>) -> bool {
        let at = |upstream: &String| {
            let host = entry.upstream.rsplit_once(':').map(|(host, _)| host);
            *upstream == entry.upstream || host == Some(upstream.as_str())
        };
        self.since.is_none_or(|since| entry.time.0 >= since)
            && self.until.is_none_or(|until| entry.time.0 < until)
            && self.code.as_ref().is_none_or(|code| *code == entry.code)
            && self.upstream.as_ref().is_none_or(at)
    }
}

/// How many, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// How many events, those that one line stands for counted singly.
    pub events: u64,
    /// When the first was.
    pub first: OffsetDateTime,
    /// When the last was.
    pub last: OffsetDateTime,
}

impl Extent {
    fn of(entry: &Entry<'_>) -> Self {
        Self { events: entry.count(), first: entry.first(), last: entry.time.0 }
    }

    /// Both together; the counts of a forged log may not fit.
    fn and(self, other: Self) -> Self {
        Self {
            events: self.events.saturating_add(other.events),
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

fn widen(extent: &mut Option<Extent>, by: Extent) {
    *extent = Some(extent.map_or(by, |extent| extent.and(by)));
}

/// The events of one upstream that have one class and one action. All texts are those of its last event.
#[derive(Clone, Debug)]
pub struct Group {
    /// `host:port`.
    pub upstream: Box<str>,
    /// The class.
    pub code: Box<str>,
    /// `event.action`.
    pub action: Box<str>,
    /// How many, and when.
    pub extent: Extent,
    /// The sentence.
    pub message: Box<str>,
    /// The hint.
    pub hint: Box<str>,
    /// The certificate that it is about.
    pub certificate: Option<Offender>,
    /// The fingerprints of all certificates that events of the group were about, in the order of their
    /// coming, the first 64 bits of each; [`MOST_CERTIFICATES`] at most.
    pub fingerprints: Vec<u64>,
}

/// A certificate that events are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Where it was: `presented`, or `bundle`.
    pub place: Box<str>,
    /// Its subject.
    pub subject: Box<str>,
    /// SHA-256, lower-case hex.
    pub sha256: Box<str>,
    /// Who issued it, where the server sent it.
    pub issuer: Option<Box<str>>,
    /// The end of its validity, where the server sent it.
    pub not_after: Option<OffsetDateTime>,
}

impl Group {
    fn new(entry: &Entry<'_>) -> Self {
        let mut group = Self {
            upstream: kept(&entry.upstream),
            code: kept(&entry.code),
            action: kept(&entry.action),
            extent: Extent::of(entry),
            message: Box::default(),
            hint: Box::default(),
            certificate: None,
            fingerprints: Vec::new(),
        };
        group.see(entry);
        group
    }

    fn add(&mut self, entry: &Entry<'_>) {
        let newest = entry.time.0 >= self.extent.last;
        self.extent = self.extent.and(Extent::of(entry));
        if newest {
            self.see(entry);
        } else {
            self.note(entry);
        }
    }

    /// Takes what the newest event says.
    fn see(&mut self, entry: &Entry<'_>) {
        if *self.message != *entry.message {
            self.message = escape_within(&entry.message, 600).into();
        }
        if *self.hint != *entry.hint {
            self.hint = kept(&entry.hint);
        }
        let known = match (&self.certificate, &entry.offending) {
            (None, None) => true,
            (Some(known), Some(now)) => *known.sha256 == *now.sha256 && *known.subject == *now.subject,
            _ => false,
        };
        if !known {
            self.certificate = Offender::of(entry);
        }
        self.note(entry);
    }

    fn note(&mut self, entry: &Entry<'_>) {
        let short = |sha256: &str| sha256.get(..16).and_then(|short| u64::from_str_radix(short, 16).ok());
        if let Some(short) = entry.offending.as_ref().and_then(|offending| short(&offending.sha256))
            && !self.fingerprints.contains(&short)
            && self.fingerprints.len() < MOST_CERTIFICATES
        {
            self.fingerprints.push(short);
        }
    }
}

impl Offender {
    fn of(entry: &Entry<'_>) -> Option<Self> {
        let offending = entry.offending.as_ref()?;
        let link = entry.link(&offending.sha256);
        let issuer = link.as_ref().map(|link| &link.issuer).filter(|issuer| !issuer.is_empty());
        Some(Self {
            place: escape_within(&offending.place, 16).into(),
            subject: kept(&offending.subject),
            sha256: escape_within(&offending.sha256, 64).into(),
            issuer: issuer.map(|issuer| kept(issuer)),
            not_after: link.as_ref().and_then(|link| link.not_after).map(|end| end.0),
        })
    }
}

/// A text as it is kept: harmless, and not long.
fn kept(text: &str) -> Box<str> {
    escape(text).into()
}

/// The lines that are no events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// The place of the first among the file's lines, from 1; none where there is no broken line.
    pub first: Option<u64>,
    /// JSON, but no event.
    pub not_an_event: u64,
    /// Not JSON, or cut.
    pub not_json: u64,
    /// Not UTF-8.
    pub not_utf8: u64,
    /// Longer than [`super::blocks::LONGEST`].
    pub too_long: u64,
}

impl Broken {
    /// How many.
    pub fn lines(&self) -> u64 {
        self.not_an_event + self.not_json + self.not_utf8 + self.too_long
    }

    /// Counts one.
    pub fn add(&mut self, flaw: Flaw, line: u64) {
        self.first = self.first.or(Some(line));
        *match flaw {
            Flaw::NotAnEvent => &mut self.not_an_event,
            Flaw::NotJson => &mut self.not_json,
            Flaw::NotUtf8 => &mut self.not_utf8,
            Flaw::TooLong => &mut self.too_long,
        } += 1;
    }
}

/// What became of the lines of a file, or of a part of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// All, with the empty ones.
    pub all: u64,
    /// Events that are counted.
    pub counted: u64,
    /// Events that the [`Filter`] does not take.
    pub left_out: u64,
    /// No events.
    pub broken: Broken,
}

impl Lines {
    /// Counts those of a part that follows.
    pub fn append(&mut self, part: &Self) {
        let there = &part.broken;
        let first = there.first.map(|line| self.all + line);
        let broken = &mut self.broken;
        *broken = Broken {
            first: broken.first.or(first),
            not_an_event: broken.not_an_event + there.not_an_event,
            not_json: broken.not_json + there.not_json,
            not_utf8: broken.not_utf8 + there.not_utf8,
            too_long: broken.too_long + there.too_long,
        };
        self.all += part.all;
        self.counted += part.counted;
        self.left_out += part.left_out;
    }
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// The most frequent.
    Count,
    /// The latest.
    #[default]
    Last,
}

/// What many events say together.
#[derive(Debug, Default)]
pub struct Summary {
    groups: HashMap<Box<str>, Group>,
    other: Option<Extent>,
    total: Option<Extent>,
    /// The room in which a group's key is made up.
    key: String,
}

impl Summary {
    /// Counts an event. Of events of one time, the one that is added last counts as the later.
    pub fn add(&mut self, entry: &Entry<'_>) {
        let extent = Extent::of(entry);
        widen(&mut self.total, extent);
        // None of the three has a line's end in it.
        self.key.clear();
        for part in [&*entry.upstream, "\n", &*entry.code, "\n", &*entry.action] {
            self.key.push_str(part);
        }
        if let Some(group) = self.groups.get_mut(&*self.key) {
            group.add(entry);
        } else if self.groups.len() < MOST_GROUPS {
            self.groups.insert(self.key.as_str().into(), Group::new(entry));
        } else {
            widen(&mut self.other, extent);
        }
    }

    /// The groups; the order is the same for the same events in the same order.
    pub fn groups(&self, order: Order) -> Vec<&Group> {
        let mut groups: Vec<&Group> = self.groups.values().collect();
        groups.sort_unstable_by(|a, b| {
            let (count, last) = (b.extent.events.cmp(&a.extent.events), b.extent.last.cmp(&a.extent.last));
            let chosen = match order {
                Order::Count => count.then(last),
                Order::Last => last.then(count),
            };
            chosen.then_with(|| (&a.upstream, &a.code, &a.action).cmp(&(&b.upstream, &b.code, &b.action)))
        });
        groups
    }

    /// All events, those of [`Summary::other`] too; none where there are none.
    pub fn total(&self) -> Option<Extent> {
        self.total
    }

    /// The events of groups that came when [`MOST_GROUPS`] were there.
    pub fn other(&self) -> Option<Extent> {
        self.other
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    const START: OffsetDateTime = datetime!(2026-11-21 00:00 UTC);

    /// An event so many seconds after the start.
    fn line(seconds: i64, upstream: &str, code: &str, more: &str) -> String {
        let time = crate::clock::rfc3339(START + Duration::seconds(seconds));
        format!(
            r#"{{"@timestamp":"{time}","event.action":"refused","error.code":"{code}","vouchsafe.upstream":"{upstream}"{more}}}"#
        )
    }

    fn summary(lines: &[String]) -> Summary {
        let mut summary = Summary::default();
        for line in lines {
            summary.add(&Entry::read(line.as_bytes()).unwrap_or_else(|flaw| panic!("{flaw:?}: {line}")));
        }
        summary
    }

    fn at(seconds: i64) -> OffsetDateTime {
        START + Duration::seconds(seconds)
    }

    #[test]
    fn events_are_told_apart_by_upstream_class_and_action() {
        let other = line(0, "a:1", "x", "").replace("refused", "failed");
        let lines = [line(0, "a:1", "x", ""), line(1, "a:1", "x", ""), line(0, "a:1", "y", ""), other];
        let lines = [&lines[..], &[line(0, "a:2", "x", "")]].concat();
        let summary = summary(&lines);
        let found: Vec<_> = summary.groups(Order::Count).into_iter().map(|group| group.extent.events).collect();
        assert_eq!(found, [2, 1, 1, 1]);
        assert_eq!(summary.total(), Some(Extent { events: 5, first: at(0), last: at(1) }));
    }

    #[test]
    fn the_last_event_speaks_for_its_group_in_whatever_order_they_come() {
        let said = |seconds, message| line(seconds, "a:1", "x", &format!(r#","error.message":"{message}""#));
        for (what, lines, message) in [
            ("in order", [said(0, "old"), said(5, "new")], "new"),
            ("turned round", [said(5, "new"), said(0, "old")], "new"),
            ("at one time", [said(5, "one"), said(5, "two")], "two"),
        ] {
            let summary = summary(&lines);
            let group = summary.groups(Order::Last)[0];
            assert_eq!((&*group.message, group.extent.last), (message, at(5)), "{what}");
        }
    }

    #[test]
    fn folded_events_count_for_what_they_stand_for() {
        let folded = |seconds, count: u64, first| {
            let first = crate::clock::rfc3339(at(first));
            line(seconds, "a:1", "x", &format!(r#","vouchsafe.count":{count},"vouchsafe.first_time":"{first}""#))
        };
        let twice = summary(&[line(100, "a:1", "x", ""), folded(200, 41, 110), folded(90, 1, 80)]);
        assert_eq!(twice.groups(Order::Last)[0].extent, Extent { events: 43, first: at(80), last: at(200) });
        let forged = summary(&[folded(0, u64::MAX, 0), folded(0, 7, 0)]);
        assert_eq!(forged.total().map(|total| total.events), Some(u64::MAX), "no overflow");
    }

    #[test]
    fn the_certificate_is_the_last_ones_and_others_are_remembered() {
        let about = |seconds, sha256: &str, subject| {
            let chain = format!(r#"[{{"sha256":"{sha256}","issuer":"issuer of {subject}"}}]"#);
            let more = format!(
                r#","vouchsafe.offending":{{"in":"presented","subject":"{subject}","sha256":"{sha256}"}},"vouchsafe.chain":{chain}"#
            );
            line(seconds, "a:1", "x", &more)
        };
        let sha256 = |n: usize| format!("{n:016x}{}", "0".repeat(48));
        let lines = [about(0, &sha256(1), "one"), about(9, &sha256(2), "two"), about(5, &sha256(3), "three")];
        let told = summary(&lines);
        let group = told.groups(Order::Last)[0];
        let certificate = group.certificate.as_ref().unwrap();
        assert_eq!((&*certificate.subject, certificate.issuer.as_deref()), ("two", Some("issuer of two")));
        assert_eq!(group.fingerprints, [1, 2, 3]);
        let many: Vec<_> = (0..100).map(|n| about(0, &sha256(n), "many")).collect();
        assert_eq!(summary(&many).groups(Order::Last)[0].fingerprints.len(), MOST_CERTIFICATES);
        let none = summary(&[about(0, &sha256(1), "one"), line(1, "a:1", "x", "")]);
        assert_eq!(none.groups(Order::Last)[0].certificate, None, "the last event is about none");
    }

    #[test]
    fn the_order_is_by_what_was_chosen_then_the_other_then_the_name() {
        let lines = [
            line(5, "b:1", "x", ""),
            line(5, "a:1", "x", ""),
            line(9, "d:1", "x", ""),
            line(1, "c:1", "x", r#","vouchsafe.count":9"#),
        ];
        let summary = summary(&lines);
        let order = |order| -> String { summary.groups(order).iter().map(|group| &group.upstream[..1]).collect() };
        assert_eq!((order(Order::Last), order(Order::Count)), ("dabc".into(), "cdab".into()));
    }

    #[test]
    fn a_filter_takes_what_was_asked_for() {
        let line = line(100, "a.example:9292", "expired", r#","vouchsafe.first_time":"2026-11-20T00:00:00Z""#);
        let entry = Entry::read(line.as_bytes()).unwrap();
        let none = Filter::default;
        let named = |text: &str| Some(text.to_owned());
        for (what, filter, takes) in [
            ("nothing", none(), true),
            ("since then", Filter { since: Some(at(100)), ..none() }, true),
            ("since later", Filter { since: Some(at(101)), ..none() }, false),
            ("until later", Filter { until: Some(at(101)), ..none() }, true),
            ("until then", Filter { until: Some(at(100)), ..none() }, false),
            ("upstream", Filter { upstream: named("a.example:9292"), ..none() }, true),
            ("host", Filter { upstream: named("a.example"), ..none() }, true),
            ("other port", Filter { upstream: named("a.example:443"), ..none() }, false),
            ("part of a host", Filter { upstream: named("example:9292"), ..none() }, false),
            ("code", Filter { code: named("expired"), ..none() }, true),
            ("other code", Filter { code: named("expire"), ..none() }, false),
            (
                "two, one of which does not fit",
                Filter { code: named("expired"), since: Some(at(101)), ..none() },
                false,
            ),
        ] {
            assert_eq!(filter.takes(&entry), takes, "{what}");
        }
    }

    #[test]
    fn the_first_broken_line_is_found_over_parts() {
        let mut file = Lines { all: 10, counted: 10, ..Lines::default() };
        let mut part = Lines { all: 5, counted: 2, left_out: 1, ..Lines::default() };
        part.broken.add(Flaw::NotUtf8, 3);
        part.broken.add(Flaw::NotAnEvent, 4);
        file.append(&part);
        file.append(&part);
        assert_eq!((file.all, file.counted, file.left_out), (20, 14, 2));
        assert_eq!((file.broken.first, file.broken.lines(), file.broken.not_utf8), (Some(13), 4, 2));
    }
}
