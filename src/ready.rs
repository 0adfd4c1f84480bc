//! The ready file, and `vouchsafe ready`, which asks whether a proxy is ready.
//!
//! A process holds a lock (flock(2)) on its ready file until it ends, however it ends. So a file that was left behind
//! is never taken for a proxy that is ready, whatever process has its number now.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    config::{
        args::{Options, ReadyArgs, RunArgs},
        error::ConfigError,
        merge::MergedOptions,
        watch::Files,
    },
    text::show_value,
};

/// The file that says that this process is ready. It is removed when this is dropped.
#[derive(Debug)]
pub struct ReadyFile {
    path: PathBuf,
    /// Holds the lock.
    file: File,
}

impl ReadyFile {
    /// Writes the file, whole or not at all: a script may be waiting for it.
    ///
    /// # Errors
    /// The file cannot be written or locked there.
    pub fn write(path: &Path, lines: &str) -> io::Result<Self> {
        let partial = path.with_extension("partial");
        // One that another process left behind may be locked by nobody, or be read by somebody.
        let _ = fs::remove_file(&partial);
        let mut file = File::create_new(&partial)?;
        let written = file
            .write_all(lines.as_bytes())
            .and_then(|()| file.try_lock().map_err(io::Error::from))
            .and_then(|()| fs::rename(&partial, path));
        if let Err(error) = written {
            // The write has failed already, and that is the error to report.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        Ok(Self { path: path.to_owned(), file })
    }

    /// Whether the path leads to another file by now, which is that of a successor.
    fn is_replaced(&self) -> bool {
        let id = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::metadata(&self.path).map(id);
        there.is_ok_and(|there| self.file.metadata().map(id).is_ok_and(|own| own != there))
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        if !self.is_replaced() {
            // One that cannot be removed is not locked any more, and so not believed.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Waits until the proxy is ready, for as long as the arguments say; why it is not, otherwise.
///
/// # Errors
/// [`ConfigError`]: it is not known which proxy is asked about.
pub fn ready(args: ReadyArgs) -> Result<Result<(), String>, ConfigError> {
    let deadline = Instant::now() + args.timeout;
    let options = Options { ready_file: args.ready_file, ..Options::default() };
    let run = RunArgs { config: args.config, options, ..RunArgs::default() };
    let options = MergedOptions::of(run, &mut Files::at_start())?.options;
    let file = options.ready_file.ok_or_else(|| {
        ConfigError::one("no ready file is configured\nhint: set --ready-file to the one of `vouchsafe run`")
    })?;
    loop {
        let Err(why) = probe(&file) else { return Ok(Ok(())) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err(why));
        }
        thread::sleep(left.min(POLL_INTERVAL));
    }
}

/// How often it is asked while it is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

fn probe(path: &Path) -> Result<(), String> {
    let shown = show_value(path);
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no ready file `{shown}`: no proxy that writes it is ready"),
        _ => format!("the ready file `{shown}` cannot be read: {error}"),
    })?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Ok(()),
        Ok(()) => Err(format!("the ready file `{shown}` was left behind by a process that has ended")),
        Err(TryLockError::Error(error)) => {
            Err(format!("the ready file `{shown}` cannot be checked for the process that wrote it: {error}"))
        }
    }
}
