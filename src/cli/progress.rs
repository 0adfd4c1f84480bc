//! How far a long command has come, for a person at a terminal: one line on stderr that is written again, and is gone at
//! the end.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use crate::terminal::Screen;

/// The line; nothing where stderr is no terminal.
#[derive(Debug)]
pub(super) struct Progress {
    screen: Screen,
    shown: Option<Instant>,
}

/// How often it is written.
const EVERY: Duration = Duration::from_millis(200);

impl Progress {
    pub(super) fn new() -> Self {
        Self { screen: Screen::stderr(), shown: None }
    }

    /// Shows a text, unless another one was shown a moment ago.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        if !self.screen.is_live || self.shown.is_some_and(|shown| shown.elapsed() < EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        let columns = self.screen.size.map_or(80, |(columns, _)| columns);
        let line: String = text().chars().take(columns.saturating_sub(1)).collect();
        // Nothing depends on whether it is seen.
        let _ = write!(io::stderr(), "\r{}\x1b[K", self.screen.show(&line));
    }

    /// Removes the line.
    pub(super) fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
