//! Which signals reach the tool through this process.
//!
//! The tool is in the same process group, so whatever the terminal sends (Ctrl-C, Ctrl-\, a hang-up, a new window size)
//! reaches it without help; forwarded, it would come twice. A signal that a process sent is for this process alone, and
//! is forwarded. The kernel tells the two apart by `si_code` (sigaction(2)).

use std::{
    fs,
    future::pending,
    io,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use signal_hook::{
    consts::{SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH},
    flag,
    iterator::{SignalsInfo, exfiltrator::WithOrigin},
    low_level::siginfo::Cause,
};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// The signals that are forwarded.
const FORWARDED: [i32; 8] = [SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH];

/// A signal that came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signal {
    pub(super) number: i32,
    /// Whether a process sent it, and not the terminal.
    pub(super) is_sent: bool,
}

impl Signal {
    /// Whether it asks for the end.
    pub(super) fn is_to_end(self) -> bool {
        matches!(self.number, SIGHUP | SIGINT | SIGQUIT | SIGTERM)
    }
}

/// Waits for a signal that asks for the end: its number. Others that come meanwhile are ignored.
pub(super) async fn to_end(signals: &mut UnboundedReceiver<Signal>) -> i32 {
    loop {
        match signals.recv().await {
            Some(signal) if signal.is_to_end() => return signal.number,
            Some(_) => {}
            None => pending().await,
        }
    }
}

/// Receives signals from now on.
///
/// # Errors
/// The system's.
pub(super) fn receive() -> io::Result<UnboundedReceiver<Signal>> {
    // With a handler, the tool would no longer inherit that a signal is ignored, as `nohup` has it.
    let ignored = ignored(&fs::read_to_string("/proc/self/status")?);
    if ignored & mask(SIGCHLD) != 0 {
        // Ignored, it would have the kernel reap the tool and forget its status (wait(2)). Any handler changes that, and
        // the tool finds the default in its place.
        flag::register(SIGCHLD, Arc::new(AtomicBool::new(false)))?;
    }
    let heard = FORWARDED.into_iter().filter(|number| ignored & mask(*number) == 0);
    let mut signals = SignalsInfo::<WithOrigin>::new(heard)?;
    let (sender, receiver) = unbounded_channel();
    let forward = move || {
        for origin in signals.forever() {
            let is_sent = matches!(origin.cause, Cause::Sent(_));
            if sender.send(Signal { number: origin.signal, is_sent }).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(forward)?;
    Ok(receiver)
}

/// The ignored signals, by bit, of `/proc/self/status` (proc_pid_status(5)).
fn ignored(status: &str) -> u64 {
    let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default()
}

fn mask(number: i32) -> u64 {
    1 << (number - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read() {
        let status =
            "Name:\tvouchsafe\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n";
        assert_ne!(ignored(status) & mask(SIGHUP), 0);
        assert_eq!(ignored(status) & mask(SIGTERM), 0);
        assert_eq!(ignored(""), 0);
    }
}
