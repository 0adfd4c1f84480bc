//! Standard output and standard error of commands. A reader that has gone has seen enough; every other failure to write
//! is an error, so that a full disk does not look like success.

use std::{
    fmt,
    io::{self, BufWriter, Write},
};

use crate::{
    logging::writer,
    terminal::{ADVICE, BAD, Screen, ShownWriter, WARNING},
};

/// Writes text for people to standard output, as far as it can show it.
///
/// # Errors
/// [`io::Error`], but not for a pipe that nobody reads any more.
pub(super) fn print(content: &impl fmt::Display) -> io::Result<()> {
    print_data(&Screen::stdout().show(&content.to_string()))
}

/// Writes data for programs to standard output, as it is.
///
/// # Errors
/// [`io::Error`], but not for a pipe that nobody reads any more.
pub(super) fn print_data(content: &impl fmt::Display) -> io::Result<()> {
    print_data_with(|to| write!(to, "{content}"))
}

/// As [`print`], with what `write` writes.
///
/// # Errors
/// [`io::Error`], but not for a pipe that nobody reads any more.
pub(super) fn print_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    print_data_with(|to| {
        let mut to = ShownWriter::new(Screen::stdout(), to);
        write(&mut to).and_then(|()| to.flush())
    })
}

/// As [`print_data`], with what `write` writes, buffered.
///
/// # Errors
/// [`io::Error`], but not for a pipe that nobody reads any more.
pub(super) fn print_data_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut to = BufWriter::new(io::stdout().lock());
    match write(&mut to).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            // What is buffered would be written again when it is dropped.
            let _ = to.into_parts();
            Ok(())
        }
        result => result,
    }
}

/// Shows an error; its further lines are indented.
pub(super) fn error(text: &impl fmt::Display) {
    complain(&format!("{BAD}error:{BAD:#} {}", with_hint(&text.to_string())));
}

/// Shows what is odd, but neither an error nor part of the answer; further lines are indented by it.
pub(super) fn warn(text: &str) {
    complain(&format!("{WARNING}warning:{WARNING:#} {}", with_hint(&text.replace('\n', "\n  "))));
}

fn with_hint(text: &str) -> String {
    text.replace("\n  hint:", &format!("\n  {ADVICE}hint:{ADVICE:#}"))
}

/// Writes a line to standard error. It never waits for a reader while the log is running.
pub(super) fn complain(line: &impl fmt::Display) {
    writer::print(&Screen::stderr().show(&format!("{line}\n")));
}
