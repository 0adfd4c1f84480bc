//! Where audit events go: to stderr, and to a file if one was named.
//!
//! A refusal stands whether or not it can be written. A file that cannot be written is said on stderr
//! once, tried again at every event, and its recovery is said too. It is opened anew when it was renamed
//! or removed (log rotation), and on request.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracing::{error, info};

use super::event::Refused;

/// How the copy on stderr is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON line.
    Json,
    /// For people.
    Text,
}

/// The audit sink. Its lock is taken for refusals only, never for a request that is passed on.
#[derive(Debug)]
pub struct AuditSink {
    /// How the copy on stderr is written; None only where a file has them and errors alone are wanted.
    copy: Option<Form>,
    file: Option<Mutex<Target>>,
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
    /// A sink; the file is opened here so that a wrong path shows at start.
    ///
    /// # Errors
    /// The system's, where the file cannot be opened for appending.
    pub fn new(copy: Option<Form>, path: Option<PathBuf>) -> io::Result<Self> {
        let file = match path {
            None => None,
            Some(path) => {
                let (file, inode) = open(&path)?;
                Some(Mutex::new(Target { path, open: Some(file), inode: Some(inode), lost: 0, torn: false }))
            }
        };
        let copy = copy.or(file.is_none().then_some(Form::Json));
        Ok(Self { copy, file })
    }

    /// Records a refusal.
    pub fn record(&self, event: &Refused<'_>) {
        let json = event.json();
        match self.copy {
            None => {}
            Some(Form::Json) => complain(&json),
            Some(Form::Text) => complain(&event.text()),
        }
        let Some(file) = &self.file else { return };
        // A panic while the lock was held cannot leave the target half-changed.
        let mut target = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !target.write(&json) && self.copy.is_none() {
            complain(&json);
        }
    }

    /// Opens the file anew at the next event.
    pub fn reopen(&self) {
        if let Some(file) = &self.file {
            file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).open = None;
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
