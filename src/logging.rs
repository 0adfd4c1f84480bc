//! The process's log on stderr: text for people, JSON lines for machines.

use std::{
    cell::RefCell,
    io::{self, IsTerminal, Write},
    sync::OnceLock,
};

use memchr::{memchr, memrchr};
use serde::Serialize;
use serde_json::Value;
use time::macros::format_description;

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::clock::Clock;

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Steps too.
    Debug,
    /// Only that the proxy cannot do its duty.
    Error,
    /// Start, ready, drain, stop.
    Info,
    /// Refusals too.
    Warn,
}

impl LogFormat {
    /// Text on a terminal, JSON otherwise.
    pub fn fitting() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// Starts the log. Our own crate speaks at `level`, others only of trouble; none of them ever sees a field
/// of a request.
pub fn start(format: LogFormat, level: LogLevel, access: bool) {
    let level = match level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Error => Level::ERROR,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
    };
    let filter = Targets::new().with_default(LevelFilter::ERROR).with_target("vouchsafe", level);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let registry = tracing_subscriber::registry();
    let started = match format {
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter))
            .try_init(),
        LogFormat::Text => registry.with(layer.with_ansi(io::stderr().is_terminal()).with_filter(filter)).try_init(),
    };
    // A second start in one process keeps the first log.
    if started.is_ok() && access {
        let _ = ACCESS.set(format);
    }
}

/// How access events are written; not set where they are not.
static ACCESS: OnceLock<LogFormat> = OnceLock::new();

/// As many bytes of access events are not waited with.
const BATCH: usize = 32 * 1024;

/// So many bytes go into a pipe whole or not at all (`PIPE_BUF`, pipe(7)), so no line is cut where nobody reads.
const WHOLE: usize = 4096;

thread_local! {
    /// Those of one worker. They are written when there are many, and before the worker waits for anything.
    static EVENTS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether access events are written.
pub fn logs_access() -> bool {
    ACCESS.get().is_some()
}

/// Takes an access event. There is one for every request, so they do not go the way of all others, which costs ten
/// times as much, and go to stderr together: [`flush`] says when.
pub fn access(event: &impl Serialize) {
    let Some(format) = ACCESS.get() else { return };
    EVENTS.with_borrow_mut(|events| {
        // None of it can fail: it is written to memory, and has strings for keys.
        let _ = match format {
            LogFormat::Json => write_json(events, event),
            LogFormat::Text => write_text(events, event),
        };
        events.push(b'\n');
        if events.len() >= BATCH {
            write_out(events);
        }
    });
}

/// Writes out what this thread has taken; for its runtime to call before it waits.
pub fn flush() {
    EVENTS.with_borrow_mut(write_out);
}

/// Writes out what its thread has taken when it is dropped, also where that panics.
#[derive(Debug)]
pub struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush();
    }
}

fn write_out(events: &mut Vec<u8>) {
    let mut rest = &events[..];
    while !rest.is_empty() {
        let lines = memrchr(b'\n', &rest[..rest.len().min(WHOLE)]).or_else(|| memchr(b'\n', rest));
        let (now, then) = rest.split_at(lines.map_or(rest.len(), |end| end + 1));
        // That nobody takes it does not matter to those who are served.
        let _ = io::stderr().lock().write_all(now);
        rest = then;
    }
    events.clear();
}

fn write_json(events: &mut Vec<u8>, event: &impl Serialize) -> io::Result<()> {
    events.extend_from_slice(b"{\"timestamp\":\"");
    write_now(events)?;
    events.extend_from_slice(b"\",\"level\":\"INFO\",\"message\":\"request\"");
    let brace = events.len();
    serde_json::to_writer(&mut *events, event)?;
    events[brace] = b',';
    Ok(())
}

fn write_text(events: &mut Vec<u8>, event: &impl Serialize) -> io::Result<()> {
    write_now(events)?;
    events.extend_from_slice(b"  INFO request");
    if let Value::Object(fields) = serde_json::to_value(event)? {
        for (name, value) in fields {
            write!(events, " {name}={value}")?;
        }
    }
    Ok(())
}

/// RFC 3339, in microseconds, like those of all other events.
fn write_now(to: &mut Vec<u8>) -> io::Result<()> {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    Clock::System.now().format_into(to, format).map(drop).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_in_either_form() {
        let event = serde_json::json!({"request": "1", "status": 200, "path": "/a b"});
        let (mut json, mut text) = (Vec::new(), Vec::new());
        write_json(&mut json, &event).unwrap();
        write_text(&mut text, &event).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (&json["level"], &json["message"], &json["path"]),
            (&"INFO".into(), &"request".into(), &"/a b".into())
        );
        assert_eq!(json["timestamp"].as_str().unwrap().len(), "2026-01-01T00:00:00.000000Z".len());
        let text = String::from_utf8(text).unwrap();
        assert!(text.ends_with(r#"Z  INFO request request="1" status=200 path="/a b""#), "{text}");
    }
}
