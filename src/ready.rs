//! The ready file, and `vouchsafe ready`, which asks whether a proxy is ready.
//!
//! A process holds a lock (flock(2)) on its ready file until it ends, however it ends. So a file that was left behind
//! is never taken for a proxy that is ready, whatever process has its number now.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
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
    text::{escape_within, show_value},
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
    let options = Options { ready_file: args.ready_file, admin: args.admin, ..Options::default() };
    let run = RunArgs { config: args.config, options, ..RunArgs::default() };
    let options = MergedOptions::of(run, &mut Files::at_start())?.options;
    let socket =
        options.admin.as_deref().and_then(|admin| Some(admin.strip_prefix("unix:")?.split(',').next()?.into()));
    let probe: Probe = match (options.ready_file, socket) {
        (None, None) if let Some(admin) = &options.admin => {
            return Err(ConfigError::one(format!(
                "--admin `{}`: only an admin listener on a UNIX socket can be asked\nhint: set --ready-file, or request /readyz of that address",
                show_value(admin)
            )));
        }
        (None, None) => {
            return Err(ConfigError::one(
                "neither a ready file nor an admin listener on a UNIX socket is configured\nhint: set --ready-file, or --admin unix:PATH, as for `vouchsafe run`",
            ));
        }
        (file, socket) => Probe { file, socket },
    };
    loop {
        let Err(why) = probe.ask() else { return Ok(Ok(())) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err(why));
        }
        thread::sleep(left.min(POLL_INTERVAL));
    }
}

/// How often it is asked while it is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Where a proxy is asked. If there are two places, both have to say that it is ready.
struct Probe {
    file: Option<PathBuf>,
    /// Of the admin listener.
    socket: Option<PathBuf>,
}

impl Probe {
    fn ask(&self) -> Result<(), String> {
        self.file.as_deref().map_or(Ok(()), ask_file)?;
        self.socket.as_deref().map_or(Ok(()), |path| {
            ask_admin(path).unwrap_or_else(|error| {
                Err(format!("cannot connect to the admin listener `{}`: {error}", show_value(path)))
            })
        })
    }
}

/// Asks for `/readyz`; what it says, if that is not that the proxy is ready.
fn ask_admin(path: &Path) -> io::Result<Result<(), String>> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    socket.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    socket.take(MOST_ANSWER).read_to_end(&mut answer)?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        return Ok(Ok(()));
    }
    let text = String::from_utf8_lossy(&answer);
    let reasons = text.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim_end());
    Ok(Err(format!("the admin listener says: {}", escape_within(&reasons.replace('\n', "; "), 300))))
}

/// How long the admin listener may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of its answer.
const MOST_ANSWER: u64 = 16 << 10;

fn ask_file(path: &Path) -> Result<(), String> {
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
