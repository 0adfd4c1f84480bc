//! Folding: refusals that repeat within a window are counted, and written as one line at its end, so that a tool
//! in a retry loop cannot flood a disk.
//!
//! The first of a kind is written whole and at once, and so is one for all others of each window. What is the
//! same kind is a matter of the upstream, the certificate, the class, the listener and the client's address. Where
//! more than a few certificates or addresses of an upstream come in one window, the others are of one kind: a server
//! with a new certificate for each handshake is folded too.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

/// Makes lines of events.
#[derive(Debug)]
pub struct Folder {
    window: Duration,
    open: HashMap<Kind, Window>,
}

/// What repeats of an event have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Always.
    pub common: String,
    /// Unless there are too many of them in a window; empty then.
    pub own: String,
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
    /// None before the first repeat: most windows see none.
    last: Option<Line>,
}

/// Kinds beyond this many are written at once, the oldest first: memory is bounded.
const MOST_KINDS: usize = 1024;

/// Kinds that have all but [`Kind::own`] in common, beyond this many in a window, are one.
const MOST_ALIKE: usize = 16;

/// Ids beyond this many are not listed.
const MOST_IDS: usize = 64;

impl Folder {
    /// Folds what comes within `window` of the first.
    pub fn new(window: Duration) -> Self {
        Self { window, open: HashMap::new() }
    }

    /// Takes an event of some kind; gives what is to be written now.
    pub fn take(&mut self, mut kind: Kind, line: Line, now: Instant) -> Vec<Line> {
        let mut due = Vec::new();
        if !self.open.contains_key(&kind) && self.alike(&kind, now) >= MOST_ALIKE {
            kind.own.clear();
        }
        if let Some(window) = self.open.get_mut(&kind) {
            if now.duration_since(window.began) < self.window {
                window.add(line);
                return due;
            }
            due.extend(window.close());
        } else if self.open.len() >= MOST_KINDS {
            due.extend(self.make_room());
        }
        due.push(line);
        let window = Window { began: now, count: 0, first: Value::Null, ids: Vec::new(), last: None };
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

    /// All that was not written yet. What comes after it is not counted but written: nobody may ask again.
    pub fn close(&mut self) -> Vec<Line> {
        self.window = Duration::ZERO;
        self.open.drain().filter_map(|(_, mut window)| window.close()).collect()
    }

    fn alike(&self, kind: &Kind, now: Instant) -> usize {
        let alike = |(open, window): &(&Kind, &Window)| {
            open.common == kind.common && !open.own.is_empty() && now.duration_since(window.began) < self.window
        };
        self.open.iter().filter(alike).count()
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
        self.last = Some(line);
    }

    /// One line for all that were counted: the last, with how many there were.
    fn close(&mut self) -> Option<Line> {
        let mut line = self.last.take()?;
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

    fn kind(common: &str, own: u32) -> Kind {
        Kind { common: common.into(), own: own.to_string() }
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
        assert_eq!(seen(&folder.take(kind("a", 0), line(1), at(0))), [(1, 1)]);
        assert_eq!(seen(&folder.take(kind("a", 0), line(2), at(1))), []);
        assert_eq!(seen(&folder.take(kind("b", 0), line(3), at(2))), [(3, 1)]);
        assert_eq!(seen(&folder.take(kind("a", 0), line(4), at(3))), []);
        assert_eq!(seen(&folder.due(at(59))), []);
        let due = folder.due(at(61));
        assert_eq!(seen(&due), [(4, 2)]);
        assert_eq!(
            (&due[0].json["vouchsafe.first_time"], &due[0].json["vouchsafe.ids"]),
            (&json!("t2"), &json!([2, 4]))
        );
        // The loop goes on: a window that begins with the line for the last one.
        assert_eq!(seen(&folder.take(kind("a", 0), line(5), at(62))), []);
        assert_eq!(seen(&folder.take(kind("a", 0), line(6), at(125))), [(5, 1), (6, 1)]);
        assert_eq!(seen(&folder.take(kind("a", 0), line(7), at(126))), []);
        assert_eq!(seen(&folder.close()), [(7, 1)]);
    }

    #[test]
    fn kinds_are_bounded_and_none_is_lost() {
        let now = Instant::now();
        let mut folder = Folder::new(Duration::from_secs(60));
        let mut written = 0;
        for number in 0..3000_u32 {
            for id in 0..2 {
                let lines =
                    folder.take(kind(&number.to_string(), 0), line(id), now + Duration::from_millis(number.into()));
                written += seen(&lines).iter().map(|(_, count)| count).sum::<u64>();
            }
            assert!(folder.open.len() <= MOST_KINDS);
        }
        written += seen(&folder.close()).iter().map(|(_, count)| count).sum::<u64>();
        assert_eq!(written, 6000);
    }

    #[test]
    fn a_window_without_repeats_keeps_no_line() {
        let mut folder = Folder::new(Duration::from_secs(60));
        let now = Instant::now();
        folder.take(kind("a", 0), line(1), now);
        assert!(folder.open.values().all(|window| window.last.is_none()));
        folder.take(kind("a", 0), line(2), now);
        assert!(folder.open.values().all(|window| window.last.is_some()));
        assert_eq!(seen(&folder.due(now + Duration::from_secs(61))), [(2, 1)]);
        assert!(folder.open.values().all(|window| window.last.is_none()));
    }

    #[test]
    fn many_certificates_of_one_upstream_are_folded_together() {
        let start = Instant::now();
        let mut folder = Folder::new(Duration::from_secs(60));
        let mut lines = Vec::new();
        for id in 0..1000 {
            lines.extend(folder.take(kind("a", id), line(id), start));
        }
        assert_eq!(lines.len(), MOST_ALIKE + 1);
        assert_eq!(seen(&folder.take(kind("b", 0), line(1), start)), [(1, 1)], "others have kinds of their own");
        assert_eq!(seen(&folder.take(kind("a", 3), line(3), start)), [], "the first are told apart all the while");
        assert_eq!(folder.open.len(), MOST_ALIKE + 2);
        let mut due = seen(&folder.due(start + Duration::from_secs(61)));
        due.sort_unstable();
        assert_eq!(due, [(3, 1), (999, 1000 - MOST_ALIKE as u64 - 1)]);
        // A new window tells some apart again.
        let later = start + Duration::from_secs(200);
        assert_eq!(seen(&folder.take(kind("a", 5000), line(7), later)), [(7, 1)]);
        assert!(folder.open.contains_key(&kind("a", 5000)));
    }

    #[test]
    fn nothing_is_counted_after_the_end() {
        let now = Instant::now();
        let mut folder = Folder::new(Duration::from_secs(60));
        folder.take(kind("a", 0), line(1), now);
        folder.take(kind("a", 0), line(2), now);
        assert_eq!(seen(&folder.close()), [(2, 1)]);
        for id in 3..6 {
            assert_eq!(seen(&folder.take(kind("a", 0), line(id), now)), [(id.into(), 1)]);
        }
    }
}
