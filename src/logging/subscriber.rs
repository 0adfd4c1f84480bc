//! From `tracing` to lines of the log.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{
    Event, Id, Level, Metadata,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
};

use super::{
    layout,
    writer::{self, LineKind},
};

/// Writes events of this crate up to a level, and errors of others. Spans are not used.
#[derive(Debug)]
pub(super) struct Subscriber {
    level: Level,
}

impl Subscriber {
    pub(super) fn new(level: Level) -> Self {
        Self { level }
    }
}

impl tracing::Subscriber for Subscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target == "vouchsafe" || target.starts_with("vouchsafe::");
        metadata.is_event() && *metadata.level() <= if ours { self.level } else { Level::ERROR }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.level))
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Vec::new();
        layout().write(&mut line, *event.metadata().level(), &fields.message, &fields.others);
        writer::push(LineKind::Other, &line, 1);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
}
