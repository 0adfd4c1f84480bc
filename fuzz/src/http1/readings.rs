//! Readings as lines of JSON, for the oracle that is written in Python (`h11_oracle.py`).

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    sync::{LazyLock, Mutex},
};

use serde_json::{Value, json};

use super::{End, Message, Reading, Side, StartLine};

/// Names the file that readings are appended to.
const VARIABLE: &str = "HTTP1_READINGS";

static READINGS: LazyLock<Option<Mutex<File>>> = LazyLock::new(|| {
    let path = std::env::var_os(VARIABLE)?;
    let file = OpenOptions::new().append(true).create(true).open(path).expect("a file for readings");
    Some(Mutex::new(file))
});

/// Writes down what was read, if that was asked for: the input, and what of it is passed on.
pub fn record(side: Side, input: &[u8], reading: &Reading) {
    let Some(file) = &*READINGS else { return };
    if reading.messages.is_empty() {
        return;
    }
    let mut lines = line(side, input, &reading.messages);
    for message in reading.messages.iter().filter(|message| message.end != End::Refused) {
        let own = Message { start: 0, behind: message.passed.len(), ..message.clone() };
        lines += &line(side, &message.passed, &[own]);
    }
    file.lock().expect("one thread").write_all(lines.as_bytes()).expect("a line");
}

fn line(side: Side, input: &[u8], messages: &[Message]) -> String {
    let side = match side {
        Side::Requests => "requests",
        Side::Responses { to_head: false } => "responses",
        Side::Responses { to_head: true } => "responses to HEAD",
    };
    let messages: Vec<Value> = messages.iter().map(value).collect();
    format!("{}\n", json!({ "side": side, "input": hex(input), "messages": messages }))
}

fn value(message: &Message) -> Value {
    let (first, second) = match &message.line {
        StartLine::Request { method, target, .. } => (method.clone(), target.clone()),
        StartLine::Status { status, .. } => (status.to_string(), String::new()),
    };
    let fields: Vec<_> = message.fields.iter().map(|(name, value)| json!([name, hex(value)])).collect();
    json!({
        "start": message.start,
        "behind": message.behind,
        "line": [first, second],
        "fields": fields,
        "content": hex(&message.content),
        "end": match message.end {
            End::Refused => "refused",
            End::Unfinished => "unfinished",
            End::Whole => "whole",
        },
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
