//! The one thread that writes to stderr and to files of logs, and what the others leave for it.
//!
//! Lines are copied into one bounded buffer; the thread swaps it for an empty one and writes. What does not fit is
//! counted, by kind, and one line of the log says how much as soon as the reader reads again. So a log that nobody
//! reads costs some memory, and never a wait.

use std::{
    fs::File,
    io::{self, Write as _},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use tracing::Level;

use super::{layout, outlet::Outlet};
use crate::clock::{Clock, rfc3339};

/// What a line is, which decides how long it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// An access event.
    Access,
    /// A copy of an audit event.
    Audit,
    /// Everything else.
    Other,
}

impl LineKind {
    /// How full the buffer may be for a line of this kind, in bytes. There is always room left for what matters more.
    const fn room(self) -> usize {
        match self {
            Self::Access => 2 << 20,
            Self::Audit | Self::Other => 4 << 20,
        }
    }
}

/// A log with rules and files of its own that the writer thread runs.
pub trait Log: Send + Sync {
    /// Writes what it was given, as far as that goes without waiting; whether that was all. Called after [`poke`], at
    /// least every [`TICK`], and soon again where it was not all.
    fn run(&self) -> bool;
}

/// How often logs are run without being poked.
pub const TICK: Duration = Duration::from_secs(1);

/// How soon a log that could not be written is tried again.
const RETRY: Duration = Duration::from_millis(5);

/// For how long lines gather before the next write: a write for each request would cost more than the request's line.
const GATHER: Duration = Duration::from_millis(1);

/// For how long the end of the process waits for what is still to be written.
pub const LAST_WORD: Duration = Duration::from_secs(1);

/// What waits for the writer thread.
static QUEUE: Queue = Queue::new();

struct Queue {
    state: Mutex<State>,
    /// There is something to do.
    wake: Condvar,
    /// What [`finish`] waits for was done.
    finished: Condvar,
}

struct State {
    text: Vec<u8>,
    lost: Lost,
    logs: Vec<Weak<dyn Log>>,
    running: bool,
    /// Whether it writes to stderr, not to a file in its place.
    to_stderr: bool,
    sleeping: bool,
    poked: bool,
    finishing: bool,
}

/// Lines that were dropped since the log last reported it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lost {
    access: u64,
    audit: u64,
    other: u64,
    since: Option<OffsetDateTime>,
}

impl Lost {
    const NOTHING: Self = Self { access: 0, audit: 0, other: 0, since: None };

    fn add(&mut self, kind: LineKind, lines: u64) {
        *match kind {
            LineKind::Access => &mut self.access,
            LineKind::Audit => &mut self.audit,
            LineKind::Other => &mut self.other,
        } += lines;
        self.since.get_or_insert_with(|| Clock::System.now());
    }

    /// Both, of which `self` is the older.
    fn and(self, newer: Self) -> Self {
        Self {
            access: self.access + newer.access,
            audit: self.audit + newer.audit,
            other: self.other + newer.other,
            since: self.since.or(newer.since),
        }
    }

    /// The line that says so.
    fn write(self, to: &mut Vec<u8>) {
        let mut fields = Map::new();
        fields.insert("event".into(), "log-lines-lost".into());
        fields.insert("lost".into(), (self.access + self.audit + self.other).into());
        fields.insert("access".into(), self.access.into());
        fields.insert("audit".into(), self.audit.into());
        fields.insert("since".into(), self.since.map(rfc3339).map_or(Value::Null, Value::from));
        fields.insert("hint".into(), "let something read stderr as fast as it is written".into());
        layout().write(to, Level::WARN, "log lines are lost: stderr was not read, or could not be written", &fields);
    }
}

impl Queue {
    const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                text: Vec::new(),
                lost: Lost::NOTHING,
                logs: Vec::new(),
                running: false,
                to_stderr: false,
                sleeping: false,
                poked: false,
                finishing: false,
            }),
            wake: Condvar::new(),
            finished: Condvar::new(),
        }
    }

    /// Held for a copy at most, never while something is written.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, kind: LineKind, lines: &[u8], count: u64) {
        let mut state = self.lock();
        if state.text.len() + lines.len() > kind.room() {
            state.lost.add(kind, count);
            return;
        }
        state.text.extend_from_slice(lines);
        self.wake(state);
    }

    /// A wake-up is a system call, so only a writer that sleeps is woken.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.sleeping) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Waits until there is something to do, for no longer than this.
    fn wait(&self, most: Duration) {
        let mut state = self.lock();
        if state.text.is_empty() && !state.poked && !state.finishing {
            state.sleeping = true;
            let awake = |state: &mut State| state.sleeping;
            state = self.wake.wait_timeout_while(state, most, awake).unwrap_or_else(PoisonError::into_inner).0;
            state.sleeping = false;
        }
        state.poked = false;
    }

    /// Moves what waits into an empty buffer, and says behind it what was lost since, which is given, too.
    fn take(&self, to: &mut Vec<u8>) -> Lost {
        let mut state = self.lock();
        if state.text.is_empty() {
            return Lost::NOTHING;
        }
        std::mem::swap(&mut state.text, to);
        let lost = std::mem::take(&mut state.lost);
        drop(state);
        if lost != Lost::NOTHING {
            lost.write(to);
        }
        lost
    }

    /// So many lines were taken and could not be written, including the line that reported the loss in `said`.
    fn lose(&self, lines: u64, said: Lost) {
        let mut state = self.lock();
        let lines = if said == Lost::NOTHING { lines } else { lines.saturating_sub(1) };
        state.lost = said.and(state.lost);
        state.lost.add(LineKind::Other, lines);
    }

    fn logs(&self) -> Vec<Arc<dyn Log>> {
        let mut state = self.lock();
        state.logs.retain(|log| log.strong_count() > 0);
        state.logs.iter().filter_map(Weak::upgrade).collect()
    }

    fn say_finished(&self) {
        let mut state = self.lock();
        if state.finishing && state.text.is_empty() && !state.poked {
            state.finishing = false;
            self.finished.notify_all();
        }
    }

    fn finish(&self, most: Duration) {
        let mut state = self.lock();
        if state.running {
            state.finishing = true;
            state.sleeping = false;
            self.wake.notify_one();
            // What is not written by then is lost; nobody is left to be told.
            let _ = self.finished.wait_timeout_while(state, most, |state| state.finishing);
        }
    }
}

/// Starts the thread, unless it runs.
///
/// # Errors
/// The system's.
pub fn start() -> io::Result<()> {
    start_with(true, || Outlet::shared(io::stderr()))
}

/// Starts the thread, unless it runs, to write to a file in place of stderr. The file was opened to never block.
///
/// # Errors
/// The system's.
pub fn start_in(file: File) -> io::Result<()> {
    start_with(false, || Ok(Outlet::owned(file)))
}

fn start_with(to_stderr: bool, outlet: impl FnOnce() -> io::Result<Outlet>) -> io::Result<()> {
    let mut state = QUEUE.lock();
    if !state.running {
        let outlet = outlet()?;
        thread::Builder::new().name("log".into()).spawn(move || write(outlet))?;
        state.running = true;
        state.to_stderr = to_stderr;
    }
    Ok(())
}

/// Leaves lines for stderr. They are counted as lost where the buffer is full.
pub fn push(kind: LineKind, lines: &[u8], count: u64) {
    QUEUE.push(kind, lines, count);
}

/// Has the thread run a log from now on, as long as the log exists.
pub fn add(log: Weak<dyn Log>) {
    QUEUE.lock().logs.push(log);
}

/// Has all logs run soon.
pub fn poke() {
    let mut state = QUEUE.lock();
    state.poked = true;
    QUEUE.wake(state);
}

/// Writes a message to stderr: by the thread where that writes there, else at once.
pub fn print(text: &str) {
    let state = QUEUE.lock();
    let by_thread = state.running && state.to_stderr;
    drop(state);
    if by_thread {
        push(LineKind::Other, text.as_bytes(), text.lines().count() as u64);
    } else {
        // There is nowhere to report that it failed.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Waits for what is still to be written, for no longer than [`LAST_WORD`].
pub fn finish() {
    QUEUE.finish(LAST_WORD);
}

/// The thread.
fn write(mut stderr: Outlet) {
    let (mut all, mut said) = (true, Lost::NOTHING);
    let mut tick = Instant::now();
    loop {
        if stderr.is_done() {
            QUEUE.wait(if all { TICK.saturating_sub(tick.elapsed()) } else { RETRY });
        } else {
            stderr.wait(RETRY);
        }
        if tick.elapsed() >= TICK {
            tick = Instant::now();
        }
        all = true;
        for log in QUEUE.logs() {
            all &= log.run();
        }
        if stderr.is_done() {
            said = QUEUE.take(stderr.refill());
        }
        if stderr.write().is_err() {
            // Nobody reads it any more, or its disk is full.
            QUEUE.lose(stderr.discard(), said);
        }
        if all && stderr.is_done() {
            QUEUE.say_finished();
        }
        thread::sleep(GATHER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted_by_kind_and_said_behind_what_did() {
        let queue = Queue::new();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        for _ in 0..3000 {
            queue.push(LineKind::Access, &line, 1);
        }
        for _ in 0..3000 {
            queue.push(LineKind::Other, &line, 1);
        }
        queue.push(LineKind::Audit, &line, 1);
        let mut text = Vec::new();
        queue.take(&mut text);
        let kept = text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"xx")).count();
        assert_eq!(kept, 4096, "2 MiB of access events, and 2 MiB of what matters more");
        let text = String::from_utf8(text).unwrap();
        let said = text.lines().last().unwrap();
        let expected = format!("lost={} access={} audit=1 since=", 6001 - 4096, 3000 - 2048);
        assert!(said.contains(" WARN log lines are lost: ") && said.contains(&expected), "{said}");
        assert_eq!(queue.take(&mut Vec::new()), Lost::NOTHING, "it is said once");
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_with_those_they_told_of() {
        let queue = Queue::new();
        queue.lose(3, Lost::NOTHING);
        queue.push(LineKind::Other, b"more\n", 1);
        let mut text = Vec::new();
        let said = queue.take(&mut text);
        queue.lose(2, said);
        let lost = queue.lock().lost;
        assert_eq!((lost.other, lost.since), (4, said.since));
    }

    #[test]
    fn the_end_waits_no_longer_than_it_may() {
        let queue = Queue::new();
        queue.lock().running = true;
        let began = Instant::now();
        queue.finish(Duration::from_millis(20));
        assert!(began.elapsed() >= Duration::from_millis(20));
        queue.say_finished();
        assert!(!queue.lock().finishing);
    }
}
