//! The tool as a child process: started, signalled, waited for.

use std::{
    io,
    process::{self, Child},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, wait, waitid,
};
use tokio::sync::oneshot;

/// How the tool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolEnd {
    /// With an exit status.
    Exited(u8),
    /// By a signal.
    Killed(i32),
}

/// A running tool.
#[derive(Debug)]
pub(super) struct Tool {
    pid: Pid,
    /// Whether its process id is still its own. Locked while it is signalled, and while it is reaped.
    alive: Arc<Mutex<bool>>,
    end: oneshot::Receiver<io::Result<ToolEnd>>,
}

impl Tool {
    /// Waits for a child from now on.
    ///
    /// # Errors
    /// The system's, if there is no thread for it.
    pub(super) fn of(child: &Child) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        let alive = Arc::new(Mutex::new(true));
        let (sender, end) = oneshot::channel();
        let still = alive.clone();
        let reap = move || {
            // Nobody waits for it any more if this process is about to end.
            let _ = sender.send(reap_until(pid, &still));
        };
        thread::Builder::new().name("tool".into()).spawn(reap)?;
        Ok(Self { pid, alive, end })
    }

    /// Sends it a signal, unless it has ended.
    pub(super) fn signal(&self, number: i32) {
        let alive = lock(&self.alive);
        if let Some(signal) = Signal::from_named_raw(number).filter(|_| *alive) {
            // It may have ended without being reaped.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits for its end. Cancel safe; it must not be called again once it has returned.
    ///
    /// # Errors
    /// The system's.
    pub(super) async fn end(&mut self) -> io::Result<ToolEnd> {
        (&mut self.end).await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

/// Reaps every child until this one has ended. As PID 1 of a container, this process inherits those of others.
fn reap_until(pid: Pid, alive: &Mutex<bool>) -> io::Result<ToolEnd> {
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) => {}
            Err(error) if error == rustix::io::Errno::INTR => continue,
            Err(error) => return Err(error.into()),
        }
        // Nothing is signalled meanwhile: a process id may be another process's as soon as it is reaped.
        let mut alive = lock(alive);
        let Some((ended, status)) = wait(WaitOptions::NOHANG)? else { continue };
        if ended == pid {
            *alive = false;
            return Ok(match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ToolEnd::Exited(u8::try_from(code).unwrap_or(u8::MAX)),
                (None, Some(signal)) => ToolEnd::Killed(signal),
                (None, None) => continue,
            });
        }
    }
}

/// Whether this process is the first of its process namespace.
pub fn is_init() -> bool {
    process::id() == 1
}

/// As PID 1, asks all processes that are left to end; the kernel ends them with this one.
pub(super) fn end_others() {
    if is_init() {
        // kill(-1): every process but this one.
        let _ = kill_process_group(Pid::INIT, Signal::TERM);
    }
}

fn lock(alive: &Mutex<bool>) -> MutexGuard<'_, bool> {
    alive.lock().unwrap_or_else(PoisonError::into_inner)
}
