//! The process's log on stderr: text for people, JSON lines for machines.
//!
//! Nothing here ever waits for a reader. Everything is handed to one [`writer`] thread through a bounded buffer; what
//! does not fit is counted, and the log says how much was lost as soon as it is read again.

mod line;
mod outlet;
mod panic;
mod subscriber;
pub mod writer;

use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{self, IsTerminal},
    path::Path,
    sync::OnceLock,
};

use tracing::Level;

use self::{line::Layout, subscriber::Subscriber, writer::LineKind};

pub(crate) use self::outlet::open_nonblocking;
pub use self::{
    line::{AccessEvent, AccessFields, write_event},
    outlet::Outlet,
    panic::panics,
};

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Log verbosity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Steps too.
    Debug,
    /// Only that the proxy cannot do its duty.
    Error,
    /// Start, ready, drain, stop.
    Info,
    /// Refusals too.
    Warn,
}

impl LogFormat {
    /// Text on a terminal, JSON otherwise.
    pub fn fitting() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Starts the log, on stderr or in a file that is appended to. This crate logs at `level`, others only errors; none of
/// them ever sees a field of a request.
///
/// # Errors
/// The system's, where there is no thread for the writer.
pub fn start(format: LogFormat, level: LogLevel, access: bool, file: Option<File>) -> io::Result<()> {
    let level = match level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Error => Level::ERROR,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
    };
    let layout = Layout::of(format, file.is_none() && io::stderr().is_terminal());
    match file {
        Some(file) => writer::start_in(file)?,
        None => writer::start()?,
    }
    // A second start in one process keeps the first log.
    if tracing::subscriber::set_global_default(Subscriber::new(level)).is_ok() {
        let _ = LAYOUT.set(layout);
        panic::log_panics();
        if access {
            let _ = ACCESS.set(layout);
        }
    }
    Ok(())
}

/// Opens a file for the log, to be appended to.
///
/// # Errors
/// The system's.
pub fn open(path: &Path) -> io::Result<File> {
    open_nonblocking(OpenOptions::new().append(true).create(true), path)
}

/// How lines are written; text until the log is started.
static LAYOUT: OnceLock<Layout> = OnceLock::new();

/// How access events are written; not set where they are not.
static ACCESS: OnceLock<Layout> = OnceLock::new();

fn layout() -> Layout {
    LAYOUT.get().copied().unwrap_or(Layout::Text)
}

/// How audit events in text are written: as lines, or as paragraphs on a terminal.
pub fn is_terminal() -> bool {
    matches!(layout(), Layout::Terminal { .. })
}

/// A worker hands its access events over when they have this many bytes.
const BATCH: usize = 32 * 1024;

#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    lines: u64,
}

thread_local! {
    /// The access events of one worker that were not handed over yet.
    static EVENTS: RefCell<Batch> = const { RefCell::new(Batch { text: Vec::new(), lines: 0 }) };
}

/// Whether access events are written.
pub fn logs_access() -> bool {
    ACCESS.get().is_some()
}

/// Takes an access event. There is one for every request, so they are gathered in a batch for each thread;
/// [`flush`] hands it over.
pub fn access(event: &impl AccessEvent) {
    let Some(layout) = ACCESS.get() else { return };
    EVENTS.with_borrow_mut(|batch| {
        // It cannot fail: it is written to memory, and has strings for keys.
        let _ = layout.write_request(&mut batch.text, event);
        batch.lines += 1;
        if batch.text.len() >= BATCH {
            hand_over(batch);
        }
    });
}

/// Hands over what this thread has taken; for its runtime to call before it waits.
pub fn flush() {
    EVENTS.with_borrow_mut(hand_over);
}

fn hand_over(batch: &mut Batch) {
    if batch.lines > 0 {
        writer::push(LineKind::Access, &batch.text, batch.lines);
        batch.text.clear();
        batch.lines = 0;
    }
}

/// Hands over what its thread has taken when it is dropped, also where that panics.
#[derive(Debug)]
pub struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush();
    }
}
