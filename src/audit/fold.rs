//! Folding: refusals that repeat within a window are counted, and written as one line at its end, so that a tool
//! in a retry loop cannot flood a disk.
//!
//! The first of a kind is written whole and at once, and so is one for all others of each window. What is the
//! same kind is a matter of the upstream, the certificate, the class, the listener and the client's address.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

/// Makes lines of events.
#[derive(Debug)]
pub struct Folder {
    window: Duration,
    open: HashMap<String, Window>,
}

/// An event, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// All of it.
    pub json: Map<String, Value>,
    /// The same for people.
    pub text: String,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    /// Time and id of those that were not written yet.
    count: u64,
    first: Value,
    ids: Vec<Value>,
    last: Line,
}

/// Kinds beyond this many are written at once, the oldest first: memory is bounded.
const MOST_KINDS: usize = 1024;

/// Ids beyond this many are not listed.
const MOST_IDS: usize = 64;

impl Folder {
    /// Folds what comes within `window` of the first.
    pub fn new(window: Duration) -> Self {
        Self { window, open: HashMap::new() }
    }

    /// Takes an event of some kind; gives what is to be written now.
    pub fn take(&mut self, kind: String, line: Line, now: Instant) -> Vec<Line> {
        let mut due = Vec::new();
        if let Some(window) = self.open.get_mut(&kind) {
            if now.duration_since(window.began) < self.window {
                window.add(line);
                return due;
            }
            due.extend(window.close());
        } else if self.open.len() >= MOST_KINDS {
            due.extend(self.make_room());
        }
        due.push(line.clone());
        let window = Window { began: now, count: 0, first: Value::Null, ids: Vec::new(), last: line };
        self.open.insert(kind, window);
        due
    }

    /// What is to be written by now; windows in which nothing came are forgotten.
    pub fn due(&mut self, now: Instant) -> Vec<Line> {
        let window = self.window;
        let mut due = Vec::new();
        self.open.retain(|_, open| {
            if now.duration_since(open.began) < window {
                return true;
            }
            let line = open.close();
            open.began = now;
            let repeats = line.is_some();
            due.extend(line);
            repeats
        });
        due
    }

    /// All that was not written yet.
    pub fn all(&mut self) -> Vec<Line> {
        self.open.drain().filter_map(|(_, mut window)| window.close()).collect()
    }

    fn make_room(&mut self) -> Option<Line> {
        let oldest = self.open.iter().min_by_key(|(_, window)| window.began).map(|(kind, _)| kind.clone())?;
        self.open.remove(&oldest)?.close()
    }
}

impl Window {
    fn add(&mut self, line: Line) {
        if self.count == 0 {
            self.first = line.json.get("@timestamp").cloned().unwrap_or_default();
        }
        if self.ids.len() < MOST_IDS {
            self.ids.extend(line.json.get("event.id").cloned());
        }
        self.count += 1;
        self.last = line;
    }

    /// One line for all that were counted: the last, with how many there were.
    fn close(&mut self) -> Option<Line> {
        if self.count == 0 {
            return None;
        }
        let mut line = self.last.clone();
        line.json.insert("vouchsafe.count".into(), self.count.into());
        line.json.insert("vouchsafe.first_time".into(), self.first.take());
        line.json.insert("vouchsafe.ids".into(), json!(std::mem::take(&mut self.ids)));
        line.text = format!("{} times, the last: {}", self.count, line.text);
        self.count = 0;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: u32) -> Line {
        let json = json!({ "@timestamp": format!("t{id}"), "event.id": id, "vouchsafe.count": 1 });
        Line { json: json.as_object().cloned().unwrap(), text: String::new() }
    }

    fn seen(lines: &[Line]) -> Vec<(u64, u64)> {
        let number = |line: &Line, key: &str| line.json[key].as_u64().unwrap();
        lines.iter().map(|line| (number(line, "event.id"), number(line, "vouchsafe.count"))).collect()
    }

    #[test]
    fn the_first_is_whole_and_so_is_one_for_each_window() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut folder = Folder::new(Duration::from_secs(60));
        assert_eq!(seen(&folder.take("a".into(), line(1), at(0))), [(1, 1)]);
        assert_eq!(seen(&folder.take("a".into(), line(2), at(1))), []);
        assert_eq!(seen(&folder.take("b".into(), line(3), at(2))), [(3, 1)]);
        assert_eq!(seen(&folder.take("a".into(), line(4), at(3))), []);
        assert_eq!(seen(&folder.due(at(59))), []);
        let due = folder.due(at(61));
        assert_eq!(seen(&due), [(4, 2)]);
        assert_eq!(
            (&due[0].json["vouchsafe.first_time"], &due[0].json["vouchsafe.ids"]),
            (&json!("t2"), &json!([2, 4]))
        );
        // The loop goes on: a window that begins with the line for the last one.
        assert_eq!(seen(&folder.take("a".into(), line(5), at(62))), []);
        assert_eq!(seen(&folder.take("a".into(), line(6), at(125))), [(5, 1), (6, 1)]);
        assert_eq!(seen(&folder.take("a".into(), line(7), at(126))), []);
        assert_eq!(seen(&folder.all()), [(7, 1)]);
    }

    #[test]
    fn kinds_are_bounded_and_none_is_lost() {
        let now = Instant::now();
        let mut folder = Folder::new(Duration::from_secs(60));
        let mut written = 0;
        for kind in 0..3000_u32 {
            for id in 0..2 {
                let lines = folder.take(kind.to_string(), line(id), now + Duration::from_millis(kind.into()));
                written += seen(&lines).iter().map(|(_, count)| count).sum::<u64>();
            }
            assert!(folder.open.len() <= MOST_KINDS);
        }
        written += seen(&folder.all()).iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(written, 6000);
    }
}
