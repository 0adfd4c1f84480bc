//! Panics are events of the log, and counted: a defect in one connection's task must not pass unseen.

use std::{
    any::Any,
    panic::{self, PanicHookInfo},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use tracing::error;

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many panics there were since the log was started, in whatever thread or task.
pub fn panics() -> u64 {
    PANICS.load(Relaxed)
}

/// Logs panics from now on, instead of writing them to stderr at once, where they could wait for a reader.
pub(super) fn log_panics() {
    panic::set_hook(Box::new(log));
}

fn log(info: &PanicHookInfo<'_>) {
    let panics = PANICS.fetch_add(1, Relaxed) + 1;
    let at = info.location().map(ToString::to_string).unwrap_or_default();
    let message = said(info.payload());
    let thread = thread::current().name().unwrap_or("unnamed").to_owned();
    error!(
        event = "panic",
        panics,
        thread,
        at,
        panic = message,
        "a task panicked; this is a defect, and its connection is lost"
    );
}

/// The message of a panic, cut where it is very long.
fn said(payload: &dyn Any) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)");
    text.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_any_thread_is_counted_and_its_message_is_cut() {
        let before = panic::take_hook();
        log_panics();
        let count = panics();
        assert!(thread::spawn(|| panic!("a defect")).join().is_err());
        assert_eq!(panics(), count + 1);
        panic::set_hook(before);
        assert_eq!(said(&"text"), "text");
        assert_eq!(said(&"x".repeat(1000)).len(), 300);
        assert_eq!(said(&7), "(no message)");
    }
}
