//! Where audit events go: to stderr, and to a file if one was named.
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
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{error, info, warn};

use super::{
    chains::Chains,
    event::Refused,
    fold::{Folder, Line},
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

/// What of the settings cannot be used: the flag, the path, and why.
#[derive(Debug)]
pub struct AuditError(&'static str, PathBuf, io::Error);

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: {}", self.0, self.1.display(), self.2)
    }
}

impl std::error::Error for AuditError {}

/// The audit sink. Its lock is taken for refusals only, never for a request that is passed on.
#[derive(Debug)]
pub struct AuditSink {
    /// How the copy on stderr is written; None only where a file has them and errors alone are wanted.
    copy: Option<Form>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    folder: Folder,
    file: Option<Target>,
    chains: Option<Chains>,
    /// Chains that could not be kept.
    unkept: u64,
}

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
            let opened = open(path).map_err(|error| AuditError("--audit-log", path.clone(), error));
            opened.map(|(file, inode)| Target {
                path: path.clone(),
                open: Some(file),
                inode: Some(inode),
                lost: 0,
                torn: false,
            })
        });
        let file = file.transpose()?;
        let chains = settings
            .chains
            .as_ref()
            .map(|path| Chains::open(path).map_err(|error| AuditError("--save-failed-chains", path.clone(), error)));
        let copy = copy.or(file.is_none().then_some(Form::Json));
        let state = State { folder: Folder::new(settings.fold), file, chains: chains.transpose()?, unkept: 0 };
        Ok(Self { copy, state: Mutex::new(state) })
    }

    /// Records a refusal, or counts it where it repeats another.
    pub fn record(&self, event: &Refused<'_>) {
        let mut state = self.lock();
        state.keep(event);
        let line = Line { json: event.json(), text: event.text() };
        let due = state.folder.take(event.kind(), line, Instant::now());
        self.write(&mut state, due);
    }

    /// Writes what was counted and is due; called every few seconds.
    pub fn tick(&self) {
        let mut state = self.lock();
        let due = state.folder.due(Instant::now());
        self.write(&mut state, due);
    }

    /// Writes all that was counted.
    pub fn close(&self) {
        let mut state = self.lock();
        let due = state.folder.all();
        self.write(&mut state, due);
    }

    /// Opens the file anew at the next event.
    pub fn reopen(&self) {
        if let Some(file) = &mut self.lock().file {
            file.open = None;
        }
    }

    fn write(&self, state: &mut State, lines: Vec<Line>) {
        for line in lines {
            let json = serde_json::Value::Object(line.json).to_string();
            match self.copy {
                None => {}
                Some(Form::Json) => complain(&json),
                Some(Form::Text) => complain(&line.text),
            }
            let written = state.file.as_mut().is_none_or(|file| file.write(&json));
            if !written && self.copy.is_none() {
                complain(&json);
            }
        }
    }

    /// A panic while the lock was held cannot leave the state half-changed in a way that matters.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps the chain, where chains are kept.
    fn keep(&mut self, event: &Refused<'_>) {
        let Some(chains) = self.chains.as_mut().filter(|_| !event.refused.presented.is_empty()) else { return };
        let why = match chains.save(&event.refused.presented) {
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
