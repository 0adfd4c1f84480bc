//! Where audit events go: to stderr, and to a file if one was named.
//!
//! One thread folds and writes; a worker hands it the event and goes on. It waits for the event to be written for a
//! moment only, so that who reads an answer usually finds its event in the file: 100 ms, and not at all while
//! the writer is known to be behind. What the writer cannot take is lost, and that is said: a disk that hangs, or a
//! pipe that nobody reads, must not stop a request.
//!
//! A refusal stands whether or not it can be written. A file that cannot be written is said on stderr
//! once, tried again at every event, and its recovery is said too. It is opened anew when it was renamed
//! or removed (log rotation), and on request.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::{
    chains::{Chain, Chains},
    event::Refused,
    fold::{Folder, Kind, Line},
};

/// How the copy on stderr is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON line.
    Json,
    /// For people.
    Text,
}

/// Where audit events go, beside stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// A file for them.
    pub file: Option<PathBuf>,
    /// For how long repeats are counted instead of written.
    pub fold: Duration,
    /// A directory for the chains of refused servers.
    pub chains: Option<PathBuf>,
}

/// Why there is no audit sink.
#[derive(Debug)]
pub enum AuditError {
    /// What of the settings cannot be used: the flag, the path, and why.
    Path(&'static str, PathBuf, io::Error),
    /// There is no thread for the writer.
    Thread(io::Error),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(flag, path, error) => write!(f, "{flag} `{}`: {error}", path.display()),
            Self::Thread(error) => write!(f, "the system refuses a thread for the audit log: {error}"),
        }
    }
}

impl std::error::Error for AuditError {}

/// The audit sink, as the workers have it.
#[derive(Debug)]
pub struct AuditSink {
    to: SyncSender<Job>,
    shared: Arc<Shared>,
    keeps_chains: bool,
}

/// What the workers and the writer both see.
#[derive(Debug, Default)]
struct Shared {
    /// A worker waited in vain; none waits again until the writer has caught up.
    behind: AtomicBool,
    /// Events that the writer could not take since it last had nothing to do.
    lost: AtomicU64,
    /// Events in the queue or in the writer's hands, and their bytes.
    waiting: AtomicUsize,
    bytes: AtomicUsize,
    /// The file is to be opened anew.
    reopen: AtomicBool,
    /// All is to be written, and that it was is to be said here.
    closing: Mutex<Option<SyncSender<()>>>,
}

#[derive(Debug)]
enum Job {
    Write(Box<Event>),
    /// There is something to see in [`Shared`].
    Look,
}

/// A refusal that owns all that the writer needs.
#[derive(Debug)]
struct Event {
    kind: Kind,
    line: Line,
    chain: Option<Chain>,
    size: usize,
    written: SyncSender<()>,
}

/// The thread that folds and writes.
#[derive(Debug)]
struct Writer {
    /// How the copy on stderr is written; None only where a file has them and errors alone are wanted.
    copy: Option<Form>,
    folder: Folder,
    file: Option<Target>,
    chains: Option<Chains>,
    /// Chains that could not be kept.
    unkept: u64,
    shared: Arc<Shared>,
    /// The last event took less than [`PATIENCE`].
    quick: bool,
}

/// For how long a worker waits for its event to be written.
const PATIENCE: Duration = Duration::from_millis(100);

/// How many events the queue has room for, and how many bytes they may take together.
const MOST_WAITING: usize = 1024;
const MOST_BYTES: usize = 32 << 20;

/// How often what was counted is looked at.
const FLUSH: Duration = Duration::from_secs(5);

/// For how long the end waits for the writer.
const LAST_WORD: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Target {
    path: PathBuf,
    open: Option<File>,
    /// Of the file that was open last.
    inode: Option<u64>,
    lost: u64,
    /// The last write may have ended in the middle of a line.
    torn: bool,
}

impl AuditSink {
    /// A sink; file and directory are opened here so that a wrong path shows at start.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn new(copy: Option<Form>, settings: &AuditSettings) -> Result<Self, AuditError> {
        let file = settings.file.as_ref().map(|path| {
            let opened = open(path).map_err(|error| AuditError::Path("--audit-log", path.clone(), error));
            opened.map(|(file, inode)| Target {
                path: path.clone(),
                open: Some(file),
                inode: Some(inode),
                lost: 0,
                torn: false,
            })
        });
        let file = file.transpose()?;
        let chains = settings.chains.as_ref().map(|path| {
            Chains::open(path).map_err(|error| AuditError::Path("--save-failed-chains", path.clone(), error))
        });
        let chains = chains.transpose()?;
        let (keeps_chains, shared) = (chains.is_some(), Arc::<Shared>::default());
        let (to, from) = sync_channel(MOST_WAITING);
        let writer = Writer {
            copy: copy.or(file.is_none().then_some(Form::Json)),
            folder: Folder::new(settings.fold),
            file,
            chains,
            unkept: 0,
            shared: shared.clone(),
            quick: true,
        };
        let thread = thread::Builder::new().name("audit".into());
        thread.spawn(move || writer.run(&from)).map_err(AuditError::Thread)?;
        Ok(Self { to, shared, keeps_chains })
    }

    /// Records a refusal, or counts it where it repeats another. Never waits longer than 100 ms.
    pub fn record(&self, event: &Refused<'_>) {
        let line = Line { json: event.json(), text: event.text() };
        let chain = if self.keeps_chains { Chain::of(&event.refused.presented) } else { None };
        // In memory an event takes about twice what it takes as a line.
        let json = serde_json::to_vec(&line.json).map_or(0, |json| json.len());
        let size = 2 * json + line.text.len() + chain.as_ref().map_or(0, Chain::size);
        let (written, wait) = sync_channel(1);
        let event = Event { kind: event.kind(), line, chain, size, written };
        if !self.send(event) {
            let lost = self.shared.lost.fetch_add(1, SeqCst) + 1;
            if lost == 1 || lost.is_multiple_of(1000) {
                error!(
                    lost,
                    hint = "see whether the audit log, the directory for chains, or stderr hangs; writing resumes by itself",
                    "audit events are lost, since those before them are not written yet; refusals stand"
                );
            }
        } else if !self.shared.behind.load(SeqCst) && wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            self.shared.behind.store(true, SeqCst);
        }
    }

    /// Whether the writer will have it.
    fn send(&self, event: Event) -> bool {
        let size = event.size;
        self.shared.waiting.fetch_add(1, SeqCst);
        let room = self.shared.bytes.fetch_add(size, SeqCst) + size <= MOST_BYTES;
        let sent = room && self.to.try_send(Job::Write(Box::new(event))).is_ok();
        if !sent {
            self.shared.gone(size);
        }
        sent
    }

    /// Writes all that was counted, as far as that takes no longer than two seconds; what comes later is not
    /// counted any more.
    pub fn close(&self) {
        let (done, wait) = sync_channel(1);
        *self.shared.closing() = Some(done);
        // A writer whose queue is full does not sleep, and looks when it is empty.
        let _ = self.to.try_send(Job::Look);
        if wait.recv_timeout(LAST_WORD).is_err() {
            let waiting = self.shared.waiting.load(SeqCst);
            error!(waiting, "audit events are lost: they could not be written before the end");
        }
    }

    /// Opens the file anew at the next event.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, SeqCst);
    }
}

impl Shared {
    /// An event of this size waits no longer.
    fn gone(&self, size: usize) {
        self.waiting.fetch_sub(1, SeqCst);
        self.bytes.fetch_sub(size, SeqCst);
    }

    /// Held for a moment only, never while something is written.
    fn closing(&self) -> MutexGuard<'_, Option<SyncSender<()>>> {
        self.closing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Writes what comes, until nobody can send any more.
    fn run(mut self, from: &Receiver<Job>) {
        let mut flush = Instant::now() + FLUSH;
        loop {
            let mut next = from.try_recv();
            if matches!(next, Err(TryRecvError::Empty)) {
                self.caught_up();
                let left = flush.saturating_duration_since(Instant::now());
                next = from.recv_timeout(left).map_err(|error| match error {
                    RecvTimeoutError::Timeout => TryRecvError::Empty,
                    RecvTimeoutError::Disconnected => TryRecvError::Disconnected,
                });
            }
            match next {
                Ok(Job::Write(event)) => self.take(*event),
                Ok(Job::Look) | Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break,
            }
            if Instant::now() >= flush {
                flush = Instant::now() + FLUSH;
                let due = self.folder.due(Instant::now());
                self.write(due);
            }
        }
        let due = self.folder.close();
        self.write(due);
    }

    fn take(&mut self, event: Event) {
        let began = Instant::now();
        let due = self.folder.take(event.kind, event.line, began);
        self.write(due);
        if let Some(chain) = event.chain {
            self.keep(&chain);
        }
        self.quick = began.elapsed() < PATIENCE;
        self.shared.gone(event.size);
        // Who sent it may not wait any more.
        let _ = event.written.try_send(());
    }

    /// The queue is empty.
    fn caught_up(&mut self) {
        if self.quick {
            self.shared.behind.store(false, SeqCst);
        }
        let lost = self.shared.lost.swap(0, SeqCst);
        if lost > 0 {
            info!(lost, "audit events are written again; some are lost");
        }
        let closing = self.shared.closing().take();
        if let Some(done) = closing {
            let due = self.folder.close();
            self.write(due);
            let _ = done.try_send(());
        }
    }

    fn write(&mut self, lines: Vec<Line>) {
        if self.shared.reopen.swap(false, SeqCst)
            && let Some(file) = &mut self.file
        {
            file.open = None;
        }
        for line in lines {
            let json = serde_json::Value::Object(line.json).to_string();
            match self.copy {
                None => {}
                Some(Form::Json) => complain(&json),
                Some(Form::Text) => complain(&line.text),
            }
            let written = self.file.as_mut().is_none_or(|file| file.write(&json));
            if !written && self.copy.is_none() {
                complain(&json);
            }
        }
    }

    /// Keeps the chain, where chains are kept.
    fn keep(&mut self, chain: &Chain) {
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

impl Target {
    /// Whether the line was written.
    fn write(&mut self, line: &str) -> bool {
        let end = self.try_write(line);
        let written = end.is_ok();
        match end {
            Ok(()) if self.lost > 0 => {
                let path = self.path.display();
                info!(audit_log = %path, lost = self.lost, "the audit log is written again; some events went to stderr only");
                self.lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                self.open = None;
                self.lost += 1;
                if self.lost == 1 || self.lost.is_multiple_of(1000) {
                    let path = self.path.display();
                    error!(
                        audit_log = %path,
                        lost = self.lost,
                        %error,
                        hint = "free space or mend the path; writing resumes by itself",
                        "the audit log cannot be written; refusals stand and go to stderr"
                    );
                }
            }
        }
        written
    }

    fn try_write(&mut self, line: &str) -> io::Result<()> {
        let rotated = match (&self.open, std::fs::metadata(&self.path)) {
            (Some(_), Ok(meta)) => Some(meta.ino()) != self.inode,
            (Some(_), Err(_)) | (None, _) => true,
        };
        if rotated {
            let before = self.inode;
            let (file, inode) = open(&self.path)?;
            self.torn &= before == Some(inode);
            self.inode = Some(inode);
            self.open = Some(file);
        }
        match &mut self.open {
            Some(file) => {
                let begin = if self.torn { "\n" } else { "" };
                self.torn = true;
                file.write_all(format!("{begin}{line}\n").as_bytes())?;
                self.torn = false;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).mode(0o640).open(path)?;
    let inode = file.metadata()?.ino();
    Ok((file, inode))
}

fn complain(line: &str) {
    // Nowhere is left to say that stderr is gone.
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
