//! Standard output and standard error of commands. A reader that has gone has seen enough; every other failure to write
//! is an error, so that a full disk does not look like success.

use std::{
    fmt,
    io::{self, BufWriter, Write},
};

use crate::logging::writer;

/// Writes to standard output.
///
/// # Errors
/// [`io::Error`], but not for a pipe that nobody reads any more.
pub(super) fn print(content: &impl fmt::Display) -> io::Result<()> {
    print_with(|to| write!(to, "{content}"))
}

/// Writes to standard output with `write`, buffered.
///
/// # Errors
/// [`io::Error`], but not for a pipe that nobody reads any more.
pub(super) fn print_with(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
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

/// Writes a line to standard error. It never waits for a reader while the log is running.
pub(super) fn complain(line: &impl fmt::Display) {
    writer::print(&format!("{line}\n"));
}
