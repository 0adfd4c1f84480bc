//! The process's log on stderr: text for people, JSON lines for machines.

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

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
    let filter = Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target("vouchsafe", level)
        .with_target("access", if access { LevelFilter::INFO } else { LevelFilter::OFF });
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false);
    let registry = tracing_subscriber::registry();
    let started = match format {
        LogFormat::Json => registry
            .with(layer.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter))
            .try_init(),
        LogFormat::Text => registry.with(layer.with_ansi(io::stderr().is_terminal()).with_filter(filter)).try_init(),
    };
    // A second start in one process keeps the first log.
    drop(started);
}
