//! The audit log, as the writer thread runs it: folds events, and writes them to the file and to stderr.

use std::{
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;
use tracing::{error, info, warn};

use super::{
    chains::Chains,
    event::{AuditEvent, Gap},
    file::{AuditFile, span},
    fold::Folder,
    text::{Form, text},
};
use crate::{
    logging::writer::{LineKind, Log, push},
    metrics::AuditCounters,
    tls::presented::PresentedChain,
};

/// What the workers leave, and what the writer thread does with it.
#[derive(Debug)]
pub(super) struct AuditLog {
    inbox: Mutex<Inbox>,
    /// All was written before the end, as far as it could be.
    closed: Condvar,
    /// Locked by the writer thread alone.
    spool: Mutex<Spool>,
}

/// What the writer thread has not seen yet.
#[derive(Debug, Default)]
struct Inbox {
    events: Vec<Received>,
    bytes: usize,
    /// Events that there was no room for.
    lost: Option<Gap>,
    reopen: bool,
    end: End,
}

/// How far the end has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    No,
    /// All is to be written now.
    Asked,
    /// So many events could not be written.
    Reached { missing: u64 },
}

#[derive(Debug)]
struct Received {
    event: AuditEvent,
    chain: Option<PresentedChain>,
}

/// How many events the inbox has room for, and how many bytes they may take together.
const MOST_RECEIVED: usize = 1024;
const MOST_BYTES: usize = 16 << 20;

/// What the writer thread keeps.
#[derive(Debug)]
struct Spool {
    /// How the copy on stderr is written; None only where a file has the events and errors alone are wanted.
    copy: Option<Form>,
    folder: Folder,
    file: Option<AuditFile>,
    chains: Option<Chains>,
    /// Chains that could not be kept.
    unkept: u64,
    /// When windows were looked at last.
    looked: Instant,
    counters: Arc<AuditCounters>,
}

/// How often windows are looked at.
const LOOK: Duration = Duration::from_secs(1);

impl AuditLog {
    /// A log that nothing was left for yet.
    pub(super) fn new(
        copy: Option<Form>,
        fold: Duration,
        file: Option<AuditFile>,
        chains: Option<Chains>,
        counters: Arc<AuditCounters>,
    ) -> Self {
        let copy = copy.or(file.is_none().then_some(Form::Json));
        let folder = Folder::new(fold);
        let spool = Spool { copy, folder, file, chains, unkept: 0, looked: Instant::now(), counters };
        Self { inbox: Mutex::default(), closed: Condvar::new(), spool: Mutex::new(spool) }
    }

    /// Leaves an event; how many are lost since the writer thread last came by, where there is no room.
    pub(super) fn leave(&self, event: AuditEvent, chain: Option<PresentedChain>, size: usize) -> Option<u64> {
        let mut inbox = self.inbox();
        if inbox.events.len() < MOST_RECEIVED && inbox.bytes + size <= MOST_BYTES {
            inbox.bytes += size;
            inbox.events.push(Received { event, chain });
            return None;
        }
        let this = span(&event);
        let lost = match inbox.lost.take() {
            Some(lost) => lost.and(this),
            None => this,
        };
        inbox.lost.insert(lost).events.into()
    }

    /// Has the file opened again, once all that was left before is written.
    pub(super) fn reopen(&self) {
        self.inbox().reopen = true;
    }

    /// Has all written that was folded; what comes later is not folded any more.
    pub(super) fn begin_end(&self) {
        self.inbox().end = End::Asked;
    }

    /// Waits for the end that was begun; how many events are missing then.
    pub(super) fn wait_for_end(&self, most: Duration) -> u64 {
        let waits = |inbox: &mut Inbox| inbox.end == End::Asked;
        let ended = self.closed.wait_timeout_while(self.inbox(), most, waits);
        let inbox = ended.unwrap_or_else(PoisonError::into_inner).0;
        match inbox.end {
            End::Reached { missing } => missing,
            End::No | End::Asked => {
                let left = inbox.events.len() as u64 + inbox.lost.as_ref().map_or(0, |lost| lost.events);
                drop(inbox);
                // Where the writer thread hangs in the disk, it has this locked.
                let missing = self.spool.try_lock().ok().and_then(|spool| Some(spool.file.as_ref()?.missing()));
                left + missing.unwrap_or_default()
            }
        }
    }

    /// Held for a moment only, never while something is written.
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for AuditLog {
    fn run(&self) -> bool {
        let (events, lost, reopen, end) = {
            let mut inbox = self.inbox();
            inbox.bytes = 0;
            (mem::take(&mut inbox.events), inbox.lost.take(), mem::take(&mut inbox.reopen), inbox.end)
        };
        let mut spool = self.spool.lock().unwrap_or_else(PoisonError::into_inner);
        events.into_iter().for_each(|received| spool.take(received));
        if let Some(lost) = lost {
            spool.lose(lost);
        }
        spool.look(end != End::No);
        let all = spool.file.as_mut().is_none_or(AuditFile::write);
        if reopen {
            spool.reopen();
        }
        let missing = spool.file.as_ref().map_or(0, AuditFile::missing);
        drop(spool);
        let mut inbox = self.inbox();
        if all && inbox.end == End::Asked && end == End::Asked && inbox.events.is_empty() {
            inbox.end = End::Reached { missing };
            self.closed.notify_all();
        }
        all
    }
}

impl Spool {
    fn take(&mut self, received: Received) {
        let due = self.folder.take(received.event, Instant::now());
        if due.is_empty() {
            self.counters.folded.add(1);
        }
        self.write(due);
        if let Some(chain) = received.chain {
            self.keep(&chain);
        }
    }

    /// Writes the windows that are over; all of them, at the end.
    fn look(&mut self, end: bool) {
        let now = Instant::now();
        if end {
            let due = self.folder.close();
            self.write(due);
        } else if now.duration_since(self.looked) >= LOOK {
            self.looked = now;
            let due = self.folder.due(now);
            self.write(due);
        }
    }

    fn write(&mut self, events: Vec<AuditEvent>) {
        for event in events {
            let text = match self.copy {
                Some(Form::Text) => Some(text(&event)),
                Some(Form::Json) | None => None,
            };
            let event = Value::Object(event);
            let json = event.to_string();
            if let Some(text) = text {
                push(LineKind::Audit, &text, 1);
            } else if self.copy.is_some() {
                copy(&json);
            }
            let (Some(file), Value::Object(event)) = (&mut self.file, event) else { continue };
            let uncopied = self.copy.is_none().then(|| json.clone());
            file.add(&event, json);
            file.write();
            if let Some(json) = uncopied.filter(|_| file.is_failing()) {
                copy(&json);
            }
        }
    }

    /// Events that there was no room for before they came here.
    fn lose(&mut self, lost: Gap) {
        match &mut self.file {
            Some(file) => file.lose(lost),
            None => {
                self.counters.lost.add(lost.events);
                let gap = lost.json(crate::clock::Clock::System.now());
                error!(lost = lost.events, lost.from, lost.to, "audit events are lost; refusals stand");
                match self.copy {
                    Some(Form::Text) => push(LineKind::Audit, &text(&gap), 1),
                    Some(Form::Json) | None => copy(&Value::Object(gap).to_string()),
                }
            }
        }
    }

    fn reopen(&mut self) {
        if let Some(file) = &mut self.file {
            file.reopen();
            info!("the audit log is opened again");
        }
    }

    /// Keeps the chain, where chains are kept.
    fn keep(&mut self, chain: &PresentedChain) {
        let Some(chains) = &mut self.chains else { return };
        let why = match chains.save(chain) {
            Ok(true) => return,
            Ok(false) => "there are as many as are kept; remove some".to_owned(),
            Err(error) => error.to_string(),
        };
        self.unkept += 1;
        if self.unkept == 1 || self.unkept.is_multiple_of(1000) {
            warn!(
                unkept = self.unkept,
                why, "a refused server's chain cannot be kept; the event has what matters of it"
            );
        }
    }
}

fn copy(json: &str) {
    push(LineKind::Audit, format!("{json}\n").as_bytes(), 1);
}
