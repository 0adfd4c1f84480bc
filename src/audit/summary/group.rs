//! Events that have something in common, what they say last, and what they have to do with.

use time::OffsetDateTime;

use crate::{
    audit::{
        entry::{AuditEntry, ChainMember},
        timeline::Timeline,
    },
    text::escape_within,
};

use super::{Extent, Sent, day, kept, names::Tallies};

/// How many certificates of a group are told apart.
pub const MOST_CERTIFICATES: usize = 16;

/// How many certificates of a chain are kept.
const MOST_LINKS: usize = 8;

/// Events that have something in common. All texts are those of its last event.
#[derive(Clone, Debug)]
pub struct Group {
    /// What they have in common; of [`By::Kind`](super::By::Kind) the upstream.
    pub name: Box<str>,
    /// The class, by kind.
    pub code: Box<str>,
    /// `event.action`, by kind.
    pub action: Box<str>,
    /// How many, and when.
    pub extent: Extent,
    /// What was sent.
    pub sent: Sent,
    /// The sentence.
    pub message: Box<str>,
    /// The hint.
    pub hint: Box<str>,
    /// The certificate that it is about.
    pub certificate: Option<Offender>,
    /// The chain that the server sent, its own certificate first.
    pub chain: Vec<ChainLink>,
    /// The name of its file.
    chain_sha256: Box<str>,
    /// When they were.
    pub timeline: Timeline,
    /// The fingerprints of all certificates that events of the group were about, in the order of their
    /// coming, the first 64 bits of each; [`MOST_CERTIFICATES`] at most.
    pub fingerprints: Vec<u64>,
    /// Who and what was affected.
    pub tallies: Box<Tallies>,
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

/// A certificate of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainLink {
    /// Its subject; empty if it cannot be read.
    pub subject: Box<str>,
    /// Its issuer; empty if it cannot be read.
    pub issuer: Box<str>,
    /// SHA-256, lower-case hex.
    pub sha256: Box<str>,
    /// The end of its validity.
    pub not_after: Option<OffsetDateTime>,
}

impl ChainLink {
    fn of(member: &ChainMember<'_>) -> Self {
        Self {
            subject: kept(&member.subject),
            issuer: kept(&member.issuer),
            sha256: escape_within(&member.sha256, 64).into(),
            not_after: member.not_after.map(|end| end.0),
        }
    }
}

/// How much more of what can be many there is room for, in all groups together.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) names: usize,
    pub(super) links: usize,
}

impl Group {
    pub(super) fn new([name, code, action]: [&str; 3], entry: &AuditEntry<'_>) -> Self {
        let extent = Extent { events: 0, ..Extent::of(entry) };
        Self {
            name: kept(name),
            code: kept(code),
            action: kept(action),
            extent,
            sent: Sent::default(),
            message: Box::default(),
            hint: Box::default(),
            certificate: None,
            chain: Vec::new(),
            chain_sha256: Box::default(),
            timeline: Timeline::default(),
            fingerprints: Vec::new(),
            tallies: Box::default(),
        }
    }

    pub(super) fn add(&mut self, entry: &AuditEntry<'_>, sent: Sent, room: &mut Room) {
        let newest = entry.time.0 >= self.extent.last;
        self.extent = self.extent.and(Extent::of(entry));
        self.sent.add(sent);
        self.timeline.add(entry.time.0, entry.count());
        if newest {
            self.see(entry, room);
        }
        self.note(entry);
        self.tally(entry, &mut room.names);
    }

    /// Takes what the newest event says.
    fn see(&mut self, entry: &AuditEntry<'_>, room: &mut Room) {
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
        // What only says what was sent does not have the chain.
        if entry.is_use() {
            return;
        }
        if !known {
            self.certificate = Offender::of(entry);
        }
        if *self.chain_sha256 != *entry.chain_sha256.as_deref().unwrap_or_default() {
            self.chain_sha256 = kept(entry.chain_sha256.as_deref().unwrap_or_default());
            self.keep_chain(entry, room);
        }
    }

    /// Keeps the chain of an event in place of the one before, as far as there is room.
    fn keep_chain(&mut self, entry: &AuditEntry<'_>, room: &mut Room) {
        room.links += self.chain.len();
        self.chain = entry.chain().iter().take(MOST_LINKS.min(room.links)).map(ChainLink::of).collect();
        room.links -= self.chain.len();
    }

    fn note(&mut self, entry: &AuditEntry<'_>) {
        let short = |sha256: &str| sha256.get(..16).and_then(|short| u64::from_str_radix(short, 16).ok());
        if let Some(short) = entry.offending.as_ref().and_then(|offending| short(&offending.sha256))
            && !self.fingerprints.contains(&short)
            && self.fingerprints.len() < MOST_CERTIFICATES
        {
            self.fingerprints.push(short);
        }
    }

    fn tally(&mut self, entry: &AuditEntry<'_>, room: &mut usize) {
        let count = entry.count();
        let tallies = &mut self.tallies;
        for client in &entry.clients.0 {
            tallies.clients.add(&client.ip, client.requests, room);
        }
        if let Some(client) = &entry.client {
            // Its requests are counted when they are sent.
            let count = if entry.is_counted_by_another() { 0 } else { count };
            tallies.clients.add(client, count, room);
        }
        if entry.is_use() {
            return;
        }
        for (tally, name) in [
            (&mut tallies.listeners, entry.listener.as_deref()),
            (&mut tallies.paths, entry.path.as_deref()),
            (&mut tallies.chains, entry.chain_sha256.as_deref()),
            (&mut tallies.upstreams, Some(entry.destination())),
            (&mut tallies.codes, Some(&*entry.code)),
            (&mut tallies.days, Some(&*day(entry.time.0))),
        ] {
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                tally.add(name, count, room);
            }
        }
        for finding in &entry.findings.0 {
            tallies.findings.add(&finding.code, count, room);
        }
    }
}

impl Offender {
    fn of(entry: &AuditEntry<'_>) -> Option<Self> {
        let offending = entry.offending.as_ref()?;
        let member = entry.chain_member(&offending.sha256);
        let issuer = member.as_ref().map(|member| &member.issuer).filter(|issuer| !issuer.is_empty());
        Some(Self {
            place: escape_within(&offending.place, 16).into(),
            subject: kept(&offending.subject),
            sha256: escape_within(&offending.sha256, 64).into(),
            issuer: issuer.map(|issuer| kept(issuer)),
            not_after: member.as_ref().and_then(|member| member.not_after).map(|end| end.0),
        })
    }
}
