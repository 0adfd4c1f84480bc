//! What many events say together. No IO.
//!
//! Its size is bounded, whatever a log holds: so many groups are told apart, and every text is cut. Texts
//! are escaped when they come in, so nothing that a [`Summary`] gives out can move a terminal.

mod filter;
mod group;
mod names;

use std::collections::{BTreeSet, HashMap};

use time::OffsetDateTime;

use super::{
    entry::{AuditEntry, BYPASSED},
    timeline::Timeline,
};
use crate::{clock::rfc3339, text::escape};

use self::group::Room;
pub use self::{
    filter::Filter,
    group::{ChainLink, Group, MOST_CERTIFICATES, Offender},
    names::NameTally,
};

/// How many groups are told apart; events of others are counted together.
pub const MOST_GROUPS: usize = 6_000;

/// How many certificates of all chains together are kept.
const MOST_ALL_LINKS: usize = 8_000;

/// How many names all tallies together tell apart.
const MOST_ALL_NAMES: usize = 60_000;

/// What events are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Upstream, code and what became of the request.
    #[default]
    Kind,
    /// The client's address.
    Client,
    /// The upstream, or what was asked for.
    Upstream,
    /// The code.
    Code,
    /// The day, UTC.
    Day,
}

impl By {
    /// Its name, as the flag and the reports have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kind => "kind",
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Code => "code",
            Self::Day => "day",
        }
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
    fn of(entry: &AuditEntry<'_>) -> Self {
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

/// What was sent to servers that are not verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Requests that were counted.
    pub requests: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Handshakes that failed verification and were used all the same.
    pub bypassed: u64,
    /// Refusals by a verified server behind its handshake, when a request may have been sent.
    pub perhaps: u64,
}

impl Sent {
    fn of(entry: &AuditEntry<'_>) -> Self {
        let mut sent = Self::default();
        if entry.is_use() {
            sent.requests = entry.requests.unwrap_or_default();
            sent.bytes = entry.bytes_sent.unwrap_or_default();
        } else if entry.action == BYPASSED {
            sent.bypassed = entry.count();
        } else if entry.bytes_sent != Some(0) && !entry.is_notice() {
            sent.perhaps = entry.count();
        }
        sent
    }

    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.bypassed = self.bypassed.saturating_add(other.bypassed);
        self.perhaps = self.perhaps.saturating_add(other.perhaps);
    }

    /// Whether something was sent without verification.
    pub fn is_anything(&self) -> bool {
        self.requests > 0 || self.bypassed > 0
    }
}

/// Events that are missing in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// How many gaps.
    pub gaps: u64,
    /// How many events are missing, and from when to when.
    pub missing: Option<Extent>,
}

/// What many events say together.
#[derive(Debug)]
pub struct Summary {
    by: By,
    groups: HashMap<String, Group>,
    other: Option<Extent>,
    total: Option<Extent>,
    sent: Sent,
    gaps: Gaps,
    /// Classes of all events, those that are left out among them.
    codes: BTreeSet<Box<str>>,
    timeline: Timeline,
    room: Room,
}

impl Summary {
    /// Of no events.
    pub fn new(by: By) -> Self {
        Self {
            by,
            groups: HashMap::new(),
            other: None,
            total: None,
            sent: Sent::default(),
            gaps: Gaps::default(),
            codes: BTreeSet::new(),
            timeline: Timeline::default(),
            room: Room { names: MOST_ALL_NAMES, links: MOST_ALL_LINKS },
        }
    }

    /// Counts an event. Of events of one time, the one that is added last counts as the later.
    pub fn add(&mut self, entry: &AuditEntry<'_>) {
        if let Some((events, first, last)) = entry.gap() {
            self.gaps.gaps += 1;
            widen(&mut self.gaps.missing, Extent { events, first, last });
            return;
        }
        self.see_code(&entry.code);
        widen(&mut self.total, Extent::of(entry));
        self.timeline.add(entry.time.0, entry.count());
        self.sent.add(Sent::of(entry));
        let action = if entry.is_use() { BYPASSED } else { &*entry.action };
        let sent = Sent::of(entry);
        match self.by {
            By::Kind => self.add_to([entry.destination(), &entry.code, action], entry, sent),
            By::Upstream => self.add_to([entry.destination(), "", ""], entry, sent),
            By::Code => self.add_to([&entry.code, "", ""], entry, sent),
            By::Day => self.add_to([&day(entry.time.0), "", ""], entry, sent),
            By::Client if entry.is_use() => {
                for client in &entry.clients.0 {
                    // How many of the bytes are whose is not known.
                    let sent = Sent { requests: client.requests, ..Sent::default() };
                    self.add_to([&client.ip, "", ""], entry, sent);
                }
            }
            By::Client => self.add_to([entry.client.as_deref().unwrap_or("(unknown)"), "", ""], entry, sent),
        }
    }

    fn add_to(&mut self, names: [&str; 3], entry: &AuditEntry<'_>, sent: Sent) {
        // None of the three has a line's end in it.
        let key = names.join("\n");
        if let Some(group) = self.groups.get_mut(&key) {
            group.add(entry, sent, &mut self.room);
        } else if self.groups.len() < MOST_GROUPS {
            let mut group = Group::new(names, entry);
            group.add(entry, sent, &mut self.room);
            self.groups.insert(key, group);
        } else {
            widen(&mut self.other, Extent::of(entry));
        }
    }

    /// Remembers that there is such a class.
    pub fn see_code(&mut self, code: &str) {
        const MOST: usize = 256;
        if !code.is_empty() && !self.codes.contains(code) && self.codes.len() < MOST {
            self.codes.insert(kept(code));
        }
    }

    /// The classes of all events that were read.
    pub fn codes(&self) -> impl Iterator<Item = &str> {
        self.codes.iter().map(|code| &**code)
    }

    /// What events are grouped by.
    pub fn by(&self) -> By {
        self.by
    }

    /// The groups; the order is the same for the same events in the same order. Days are in their order.
    pub fn groups(&self, order: Order) -> Vec<&Group> {
        let mut groups: Vec<&Group> = self.groups.values().collect();
        groups.sort_unstable_by(|a, b| {
            let (count, last) = (b.extent.events.cmp(&a.extent.events), b.extent.last.cmp(&a.extent.last));
            let chosen = match (self.by, order) {
                (By::Day, Order::Last) => a.name.cmp(&b.name),
                (_, Order::Count) => count.then(last),
                (_, Order::Last) => last.then(count),
            };
            chosen.then_with(|| (&a.name, &a.code, &a.action).cmp(&(&b.name, &b.code, &b.action)))
        });
        groups
    }

    /// All events, those of [`Summary::other`] too; none where there are none.
    pub fn total(&self) -> Option<Extent> {
        self.total
    }

    /// When all events were.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The events of groups that came when [`MOST_GROUPS`] were there.
    pub fn other(&self) -> Option<Extent> {
        self.other
    }

    /// What was sent to servers that are not verified.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// What is missing in the logs.
    pub fn gaps(&self) -> Gaps {
        self.gaps
    }
}

fn day(at: OffsetDateTime) -> String {
    rfc3339(at).split('T').next().unwrap_or_default().to_owned()
}
/// A text as it is kept: harmless, and not long.
fn kept(text: &str) -> Box<str> {
    escape(text).into()
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
        let mut summary = Summary::new(By::Kind);
        for line in lines {
            summary.add(&AuditEntry::read(line.as_bytes()).unwrap_or_else(|flaw| panic!("{flaw:?}: {line}")));
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
        let order = |order| -> String { summary.groups(order).iter().map(|group| &group.name[..1]).collect() };
        assert_eq!((order(Order::Last), order(Order::Count)), ("dabc".into(), "cdab".into()));
    }

    #[test]
    fn who_was_affected_and_what_was_sent_is_tallied() {
        let refused = |client: &str, count: u64| {
            let more = format!(
                r#","client.ip":"{client}","vouchsafe.listener":"l","url.path":"/p","vouchsafe.count":{count},"vouchsafe.request_bytes_sent":0,"vouchsafe.findings":[{{"code":"no_san"}}]"#
            );
            line(0, "a:1", "x", &more)
        };
        let bypassed = line(5, "b:1", "y", r#","client.ip":"c1","vouchsafe.schema":3"#).replace("refused", BYPASSED);
        let sent = r#","vouchsafe.requests":100,"vouchsafe.request_bytes_sent":5000,"vouchsafe.clients":[{"ip":"c1","requests":60},{"ip":"c2","requests":40}]"#;
        let sent = line(9, "b:1", "y", sent).replace("refused", "tls-bypassed-requests");
        let gap = r#"{"@timestamp":"2026-11-21T00:00:00Z","event.action":"audit-gap","vouchsafe.lost":7}"#;
        let lines = [refused("c1", 3), refused("c2", 4), bypassed, sent, gap.into()];
        let told = summary(&lines);
        let groups = told.groups(Order::Count);
        assert_eq!((groups.len(), groups[0].extent.events, groups[0].sent), (2, 7, Sent::default()));
        assert_eq!(groups[0].tallies.clients.by_count(), [("c2", 4), ("c1", 3)]);
        assert_eq!(groups[0].tallies.findings.by_count(), [("no_san", 7)]);
        assert_eq!(groups[1].sent, Sent { requests: 100, bytes: 5000, bypassed: 1, perhaps: 0 });
        assert_eq!(groups[1].tallies.clients.by_count(), [("c1", 60), ("c2", 40)]);
        assert_eq!(told.gaps().missing.map(|missing| missing.events), Some(7));
        let mut by_client = Summary::new(By::Client);
        lines.iter().for_each(|line| by_client.add(&AuditEntry::read(line.as_bytes()).unwrap()));
        let found: Vec<_> =
            by_client.groups(Order::Count).iter().map(|g| (g.name.to_string(), g.extent.events)).collect();
        assert_eq!(found, [("c1".into(), 4), ("c2".into(), 4)]);
    }
}
