//! What stdout and stderr can show: colours, characters beyond ASCII, lines that are written again, and how wide they are.
//!
//! Text for people is made with styles and with characters such as `✔`, and [`Screen::show`] takes away what its stream
//! cannot show. Data (JSON, CSV, TOML, HTML) does not pass through here.

use std::{
    borrow::Cow,
    env,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use anstream::{AutoStream, ColorChoice, adapter::strip_str, stream::RawStream};
use anstyle::{AnsiColor, Style};
use terminal_size::terminal_size_of;

/// Verified, trusted, passed.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Refused, failed, sent without verification.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something to look at.
pub const WARNING: Style = AnsiColor::Yellow.on_default();
/// What to do.
pub const ADVICE: Style = AnsiColor::Cyan.on_default();
/// Titles.
pub const TITLE: Style = Style::new().bold();
/// Of less interest.
pub const FAINT: Style = Style::new().dimmed();

/// When colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ColorWhen {
    /// On a terminal that has them, unless NO_COLOR is set or CLICOLOR is 0; and where CLICOLOR_FORCE is set.
    Auto,
    /// Also where there is no terminal.
    Always,
    /// Not at all.
    Never,
}

impl ColorWhen {
    /// Sets it for the whole process.
    pub fn choose(self) {
        let choice = match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        };
        choice.write_global();
    }
}

/// What one stream can show.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Whether it is a terminal whose lines can be written again.
    pub is_live: bool,
    /// Whether it has colours.
    pub has_color: bool,
    /// Whether it has characters beyond ASCII.
    pub has_unicode: bool,
    /// Columns and lines of a terminal.
    pub size: Option<(usize, usize)>,
}

impl Screen {
    /// Of standard output.
    pub fn stdout() -> Self {
        Self::of(&io::stdout())
    }

    /// Of standard error.
    pub fn stderr() -> Self {
        Self::of(&io::stderr())
    }

    fn of(stream: &(impl RawStream + IsTerminal + AsFd)) -> Self {
        let is_terminal = IsTerminal::is_terminal(stream);
        let size = terminal_size_of(stream).filter(|_| is_terminal);
        Self {
            is_live: is_terminal && env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb"),
            has_color: AutoStream::choice(stream) != ColorChoice::Never,
            has_unicode: is_unicode(|name| env::var_os(name).map(|value| value.to_string_lossy().into_owned())),
            size: size.map(|(columns, lines)| (columns.0.into(), lines.0.into())),
        }
    }

    /// A text for people without what this stream cannot show.
    pub fn show<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = if self.has_color { Cow::Borrowed(text) } else { Cow::Owned(strip_str(text).to_string()) };
        if self.has_unicode || text.is_ascii() { text } else { Cow::Owned(text.chars().map(ascii).collect()) }
    }
}

/// Writes text for people to a stream, line by line, without what it cannot show.
#[derive(Debug)]
pub struct ShownWriter<W: Write> {
    screen: Screen,
    to: W,
    line: Vec<u8>,
}

impl<W: Write> ShownWriter<W> {
    /// A writer for that stream.
    pub fn new(screen: Screen, to: W) -> Self {
        Self { screen, to, line: Vec::new() }
    }

    fn write_line(&mut self) -> io::Result<()> {
        let line = String::from_utf8_lossy(&self.line);
        self.to.write_all(self.screen.show(&line).as_bytes())?;
        self.line.clear();
        Ok(())
    }
}

impl<W: Write> Write for ShownWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.write_line()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_line()?;
        self.to.flush()
    }
}

/// Whether the locale has UTF-8. POSIX: the first of these that is set and not empty counts. Where none is set, as in many
/// containers and units, nobody asked for ASCII.
fn is_unicode(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().filter_map(variable).find(|value| !value.is_empty());
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}

/// What stands for a character where there is only ASCII.
fn ascii(c: char) -> Cow<'static, str> {
    let known = match c {
        '✔' => "+",
        '✘' => "x",
        '–' | '─' => "-",
        '└' => "`",
        '│' => "|",
        '…' => "...",
        '→' => "->",
        '×' => "x",
        '“' | '”' => "\"",
        '‘' | '’' => "'",
        c if c.is_ascii() => return Cow::Owned(c.to_string()),
        c => return Cow::Owned(c.escape_default().to_string()),
    };
    Cow::Borrowed(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_says_whether_there_is_more_than_ascii() {
        for (variables, expected) in [
            (&[][..], true),
            (&[("LANG", "")], true),
            (&[("LANG", "C.UTF-8")], true),
            (&[("LANG", "de_DE.utf8")], true),
            (&[("LANG", "C")], false),
            (&[("LC_ALL", "POSIX"), ("LANG", "C.UTF-8")], false),
            (&[("LC_ALL", ""), ("LC_CTYPE", "en_US.UTF-8"), ("LANG", "C")], true),
            (&[("LANG", "de_DE.ISO-8859-1")], false),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
            assert_eq!(is_unicode(variable), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_stream_is_shown_what_it_can_show() {
        let text = format!("{GOOD}✔{GOOD:#} └─ a…ü");
        let screen = |has_color, has_unicode| Screen { is_live: false, has_color, has_unicode, size: None };
        for (color, unicode, expected) in [
            (true, true, text.as_str()),
            (false, true, "✔ └─ a…ü"),
            (false, false, "+ `- a...\\u{fc}"),
            (true, false, "\u{1b}[32m+\u{1b}[0m `- a...\\u{fc}"),
        ] {
            assert_eq!(screen(color, unicode).show(&text), expected);
        }
    }
}
