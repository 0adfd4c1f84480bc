//! How a line of the log is written: JSON, text, or text for a terminal.
//!
//! Text has one dialect: time, level, message, then `key=value`, with quotes around a value that has more than a
//! word, and everything that could end the line or move a terminal escaped.

use std::{
    cell::RefCell,
    fmt::Write as _,
    io::{self, Write},
    time::Duration,
};

use anstyle::Style;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use tracing::Level;

use super::{LogFormat, layout};
use crate::{
    clock::Clock,
    terminal::{BAD, GOOD, Screen, WARNING},
};

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Json,
    Text,
    /// Text that a person is looking at: shorter times, one short line a request, a line of its own for a hint.
    Terminal {
        color: bool,
    },
}

impl Layout {
    pub(super) fn of(format: LogFormat, is_terminal: bool) -> Self {
        match (format, is_terminal) {
            (LogFormat::Json, _) => Self::Json,
            (LogFormat::Text, false) => Self::Text,
            (LogFormat::Text, true) => Self::Terminal { color: Screen::stderr().has_color },
        }
    }

    /// Writes an event as one line.
    pub(super) fn write(self, to: &mut Vec<u8>, level: Level, message: &str, fields: &Map<String, Value>) {
        // None of it can fail: it is written to memory, and has strings for keys.
        let _ = match self {
            Self::Json => write_json(to, level, message, fields),
            Self::Text | Self::Terminal { .. } => self.write_text(to, level, message, fields),
        };
    }

    fn write_text(self, to: &mut Vec<u8>, level: Level, message: &str, fields: &Map<String, Value>) -> io::Result<()> {
        self.write_start(to, level)?;
        to.write_all(escaped(message).as_bytes())?;
        let own_line = |key: &str| key == "hint" && matches!(self, Self::Terminal { .. });
        for (key, value) in fields.iter().filter(|(key, _)| !own_line(key)) {
            write!(to, " {key}={}", shown(value))?;
        }
        for (key, value) in fields.iter().filter(|(key, _)| own_line(key)) {
            write!(to, "\n      {key}: {}", escaped(value.as_str().unwrap_or_default()))?;
        }
        writeln!(to)
    }

    /// Time and level, as every line begins.
    fn write_start(self, to: &mut Vec<u8>, level: Level) -> io::Result<()> {
        match self {
            Self::Terminal { color: true } => {
                write_now(to, Precision::TimeOfDay)?;
                let look = match level {
                    Level::ERROR => BAD,
                    Level::WARN => WARNING,
                    _ => GOOD,
                };
                write!(to, " {look}{level:>5}{look:#} ")
            }
            Self::Terminal { color: false } => {
                write_now(to, Precision::TimeOfDay)?;
                write!(to, " {level:>5} ")
            }
            Self::Json | Self::Text => {
                write_now(to, Precision::Milliseconds)?;
                write!(to, " {level:>5} ")
            }
        }
    }

    /// Writes an access event as one line.
    pub(super) fn write_request(self, to: &mut Vec<u8>, event: &impl AccessEvent) -> io::Result<()> {
        if self == Self::Json {
            to.extend_from_slice(b"{\"timestamp\":\"");
            write_now(to, Precision::Microseconds)?;
            to.extend_from_slice(b"\",\"level\":\"INFO\",\"message\":\"request\"");
            event.fields(&mut JsonFields(to));
            to.extend_from_slice(b"}\n");
            return Ok(());
        }
        let mut fields = Map::new();
        event.fields(&mut fields);
        match self {
            Self::Terminal { .. } => self.write_short_request(to, &fields),
            Self::Json | Self::Text => self.write_text(to, Level::INFO, "request", &fields),
        }
    }

    /// `04:17:02.026Z  INFO 200 GET glance.example:9292/v1/images/detail 43 bytes in 77 ms`
    fn write_short_request(self, to: &mut Vec<u8>, fields: &Map<String, Value>) -> io::Result<()> {
        let text = |key: &str| escaped(fields.get(key).and_then(Value::as_str).unwrap_or_default());
        let number = |key: &str| fields.get(key).and_then(Value::as_f64).unwrap_or_default();
        self.write_start(to, Level::INFO)?;
        let status = number("status");
        let look = match status {
            _ if self != (Self::Terminal { color: true }) => Style::new(),
            100.0..400.0 => GOOD,
            400.0..500.0 => WARNING,
            _ => BAD,
        };
        match status {
            0.0 => write!(to, "{look}reset{look:#}")?,
            status => write!(to, "{look}{status}{look:#}")?,
        }
        match text("destination") {
            none if none.is_empty() => write!(to, " {} {}{}", text("method"), text("upstream"), text("path"))?,
            destination => write!(to, " {} {destination}", text("method"))?,
        }
        write!(to, " {} bytes in {:.0} ms", number("response_bytes"), number("total_ms"))?;
        if fields.get("whole") == Some(&Value::Bool(false)) {
            write!(to, ", not whole")?;
        }
        if fields.contains_key("class") {
            write!(to, " ({} {})", text("class"), text("request"))?;
        }
        if fields.get("trust").is_some_and(|trust| trust == "bypassed") {
            write!(to, " NOT VERIFIED")?;
        }
        writeln!(to)
    }
}

/// Writes an event of another room in the layout that the log has, as one line or, on a terminal, a paragraph.
/// `reason` stands behind the fields that say what it is about.
pub fn write_event(message: &str, about: &Map<String, Value>, reason: &str, more: &Map<String, Value>) -> Vec<u8> {
    let layout = match layout() {
        Layout::Json => Layout::Text,
        layout => layout,
    };
    let mut to = Vec::new();
    // It cannot fail: it is written to memory.
    let _ = layout.write_paragraph(&mut to, message, about, reason, more);
    to
}

impl Layout {
    fn write_paragraph(
        self,
        to: &mut Vec<u8>,
        message: &str,
        about: &Map<String, Value>,
        reason: &str,
        more: &Map<String, Value>,
    ) -> io::Result<()> {
        self.write_start(to, Level::WARN)?;
        to.write_all(escaped(message).as_bytes())?;
        for (key, value) in about {
            write!(to, " {key}={}", shown(value))?;
        }
        if matches!(self, Self::Terminal { .. }) {
            write!(to, "\n      {}", escaped(reason))?;
            for (key, value) in more {
                let value = value.as_str().map_or_else(|| shown(value), escaped);
                write!(to, "\n      {key}: {value}")?;
            }
            return writeln!(to);
        }
        write!(to, " {}", quoted(reason))?;
        for (key, value) in more {
            write!(to, " {key}={}", shown(value))?;
        }
        writeln!(to)
    }
}

fn write_json(to: &mut Vec<u8>, level: Level, message: &str, fields: &Map<String, Value>) -> io::Result<()> {
    to.extend_from_slice(b"{\"timestamp\":\"");
    write_now(to, Precision::Microseconds)?;
    write!(to, "\",\"level\":\"{level}\",\"message\":")?;
    serde_json::to_writer(&mut *to, message)?;
    for (key, value) in fields {
        to.push(b',');
        serde_json::to_writer(&mut *to, key)?;
        to.push(b':');
        serde_json::to_writer(&mut *to, value)?;
    }
    to.extend_from_slice(b"}\n");
    Ok(())
}

/// An event that is written once for every request, so that its fields go where they are written without a copy.
pub trait AccessEvent {
    /// Hands over all fields, in order.
    fn fields(&self, to: &mut impl AccessFields);
}

/// Takes the fields of an [`AccessEvent`].
pub trait AccessFields {
    /// A text.
    fn text(&mut self, key: &'static str, value: &str);
    /// A count.
    fn number(&mut self, key: &'static str, value: u64);
    /// A time in milliseconds, to the microsecond.
    fn millis(&mut self, key: &'static str, value: Duration);
    /// Whether something is so.
    fn flag(&mut self, key: &'static str, value: bool);
}

/// Writes fields into an object that has at least one.
struct JsonFields<'a>(&'a mut Vec<u8>);

impl JsonFields<'_> {
    fn key(&mut self, key: &'static str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }
}

impl AccessFields for JsonFields<'_> {
    fn text(&mut self, key: &'static str, value: &str) {
        self.key(key);
        // A text is mostly one that needs no escapes (RFC 8259 section 7).
        if value.bytes().fold(true, |plain, byte| plain & !matches!(byte, ..b' ' | b'"' | b'\\')) {
            self.0.push(b'"');
            self.0.extend_from_slice(value.as_bytes());
            self.0.push(b'"');
        } else {
            // It cannot fail: it is written to memory.
            let _ = serde_json::to_writer(&mut *self.0, value);
        }
    }

    fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        self.0.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    fn millis(&mut self, key: &'static str, value: Duration) {
        self.key(key);
        let micros = value.as_micros();
        self.0.extend_from_slice(itoa::Buffer::new().format(micros / 1000).as_bytes());
        push_fraction(self.0, micros as u32 % 1000, 3);
    }

    fn flag(&mut self, key: &'static str, value: bool) {
        self.key(key);
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
    }
}

impl AccessFields for Map<String, Value> {
    fn text(&mut self, key: &'static str, value: &str) {
        self.insert(key.to_owned(), value.into());
    }

    fn number(&mut self, key: &'static str, value: u64) {
        self.insert(key.to_owned(), value.into());
    }

    fn millis(&mut self, key: &'static str, value: Duration) {
        self.insert(key.to_owned(), (value.as_micros() as f64 / 1e3).into());
    }

    fn flag(&mut self, key: &'static str, value: bool) {
        self.insert(key.to_owned(), value.into());
    }
}

/// A point, and so many digits.
fn push_fraction(to: &mut Vec<u8>, value: u32, digits: u32) {
    to.push(b'.');
    to.extend((0..digits).rev().map(|digit| b'0' + (value / 10_u32.pow(digit) % 10) as u8));
}

/// How the time of a line is written.
#[derive(Clone, Copy)]
enum Precision {
    /// `2026-01-01T04:17:02.026912Z`
    Microseconds,
    /// `2026-01-01T04:17:02.026Z`
    Milliseconds,
    /// `04:17:02.026Z`
    TimeOfDay,
}

const SECONDS: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");

thread_local! {
    /// The second that this thread wrote last, since Unix time began and as text: most lines are of the same.
    static SECOND: RefCell<(i64, Vec<u8>)> = const { RefCell::new((i64::MIN, Vec::new())) };
}

fn write_now(to: &mut Vec<u8>, precision: Precision) -> io::Result<()> {
    let now: OffsetDateTime = Clock::System.now();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.unix_timestamp() {
            text.clear();
            now.format_into(text, SECONDS).map_err(io::Error::other)?;
            *second = now.unix_timestamp();
        }
        let text = match precision {
            Precision::Microseconds | Precision::Milliseconds => &text[..],
            Precision::TimeOfDay => text.split(|byte| *byte == b'T').next_back().unwrap_or_default(),
        };
        to.extend_from_slice(text);
        match precision {
            Precision::Microseconds => push_fraction(to, now.microsecond(), 6),
            Precision::Milliseconds | Precision::TimeOfDay => push_fraction(to, now.millisecond().into(), 3),
        }
        to.push(b'Z');
        Ok(())
    })
}

/// A value as text: a word as it is, everything else in quotes.
fn shown(value: &Value) -> String {
    let Value::String(text) = value else { return quoted_unless_word(&value.to_string()) };
    quoted_unless_word(text)
}

fn quoted_unless_word(text: &str) -> String {
    let word = !text.is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || (c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '=')));
    if word { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c => push_escaped(&mut quoted, c),
        }
    }
    quoted.push('"');
    quoted
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    text.chars().for_each(|c| push_escaped(&mut escaped, c));
    escaped
}

/// Control characters, and those that are invisible or reorder a line, are written as escapes.
fn push_escaped(to: &mut String, c: char) {
    let reorders = matches!(
        c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    if c.is_control() || reorders {
        let _ = write!(to, "{}", c.escape_default());
    } else {
        to.push(c);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn written(layout: Layout, message: &str, of: Value) -> String {
        let mut line = Vec::new();
        layout.write(&mut line, Level::WARN, message, &fields(of));
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_text_line_quotes_what_is_more_than_a_word() {
        let line = written(
            Layout::Text,
            "a message",
            json!({"a": "word", "b": "two words", "c": 7, "d": "", "e": "\"x=\n\u{1b}[2J\u{202e}", "f": true}),
        );
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(time.len(), "2026-01-01T00:00:00.000Z".len());
        let expected = " WARN a message a=word b=\"two words\" c=7 d=\"\" e=\"\\\"x=\\n\\u{1b}[2J\\u{202e}\" f=true\n";
        assert_eq!(rest, expected);
    }

    #[test]
    fn a_hint_has_a_line_of_its_own_on_a_terminal_only() {
        let event = json!({"hint": "do this", "a": 1});
        let terminal = written(Layout::Terminal { color: false }, "m", event.clone());
        assert!(terminal.ends_with("Z  WARN m a=1\n      hint: do this\n"), "{terminal}");
        let text = written(Layout::Text, "m", event);
        assert!(text.ends_with("Z  WARN m hint=\"do this\" a=1\n"), "{text}");
    }

    #[test]
    fn a_json_line_is_one_object_whatever_is_in_it() {
        let line = written(Layout::Json, "a \"message\"\n", json!({"a": 1, "b": "x\ny"}));
        assert_eq!(line.matches('\n').count(), 1);
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&event["level"], &event["message"], &event["b"]),
            (&json!("WARN"), &json!("a \"message\"\n"), &json!("x\ny"))
        );
        assert_eq!(event["timestamp"].as_str().unwrap().len(), "2026-01-01T00:00:00.000000Z".len());
    }

    struct Request {
        whole: bool,
        status: u64,
        class: Option<&'static str>,
    }

    impl AccessEvent for Request {
        fn fields(&self, to: &mut impl AccessFields) {
            for (key, value) in [
                ("request", "1a"),
                ("client", "127.0.0.1:9"),
                ("method", "GET"),
                ("upstream", "a:1"),
                ("path", "/b \"c\\"),
            ] {
                to.text(key, value);
            }
            to.number("status", self.status);
            self.class.iter().for_each(|class| to.text("class", class));
            to.flag("whole", self.whole);
            to.number("response_bytes", 43);
            to.millis("head_ms", Duration::from_micros(50));
            to.millis("total_ms", Duration::from_micros(76_602));
            to.text("trust", "bypassed");
        }
    }

    #[test]
    fn a_request_is_one_line_in_every_layout_and_short_on_a_terminal() {
        let request = Request { whole: true, status: 200, class: None };
        let written = |layout: Layout, request: &Request| {
            let mut line = Vec::new();
            layout.write_request(&mut line, request).unwrap();
            String::from_utf8(line).unwrap()
        };
        let json: Value = serde_json::from_str(&written(Layout::Json, &request)).unwrap();
        let object = json.as_object().unwrap();
        let texts: Vec<_> = ["message", "path", "upstream"].iter().map(|key| object[*key].as_str().unwrap()).collect();
        assert_eq!(texts, ["request", "/b \"c\\", "a:1"]);
        assert_eq!((&json["total_ms"], &json["head_ms"], &json["whole"]), (&json!(76.602), &json!(0.05), &json!(true)));
        let text = written(Layout::Text, &request);
        assert!(text.contains("Z  INFO request request=1a client=127.0.0.1:9 method=GET"), "{text}");
        assert!(text.contains(r#" path="/b \"c\\" status=200 "#), "{text}");
        let short = written(Layout::Terminal { color: false }, &request);
        assert!(short.ends_with("Z  INFO 200 GET a:1/b \"c\\ 43 bytes in 77 ms NOT VERIFIED\n"), "{short}");
        assert_eq!(short.find('Z'), Some("00:00:00.000".len()));
        let refused = Request { whole: false, status: 0, class: Some("expired") };
        let short = written(Layout::Terminal { color: false }, &refused);
        assert!(short.contains(" INFO reset GET a:1/b \"c\\ 43 bytes in 77 ms, not whole (expired 1a)"), "{short}");
        let connect = json!({"method": "CONNECT", "upstream": "", "path": "", "destination": "a:443", "status": 403});
        let mut short = Vec::new();
        Layout::Terminal { color: false }.write_short_request(&mut short, connect.as_object().unwrap()).unwrap();
        let short = String::from_utf8(short).unwrap();
        assert!(short.ends_with(" INFO 403 CONNECT a:443 0 bytes in 0 ms\n"), "{short}");
    }
}
