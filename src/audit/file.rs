//! The file with audit events, as the writer thread has it.
//!
//! Events that cannot be written at once wait, in bounded memory, and are written when that is possible again. What
//! there is no room for is lost, and a line `audit-gap` stands in the file for it, so that an auditor sees that
//! something is missing, how much, and from when to when.

use std::{
    collections::VecDeque,
    fs::OpenOptions,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tracing::{error, info, warn};

use super::event::{AuditEvent, Gap};
use crate::{
    clock::Clock,
    logging::{Outlet, open_nonblocking},
    metrics::AuditCounters,
};

/// An audit log that is appended to.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    open: Option<(Outlet, FileId)>,
    /// Of the file that was open last.
    last: FileId,
    /// That file ends in the middle of a line.
    torn: bool,
    waiting: VecDeque<AuditLine>,
    bytes: usize,
    /// Whether the first of those that wait is in the outlet, and perhaps written in part.
    begun: bool,
    /// Events that there was no room for since the last that waits.
    gap: Option<Gap>,
    /// Attempts that failed since the last that did not.
    failures: u64,
    counters: Arc<AuditCounters>,
}

/// Device and inode: a file that was renamed keeps them.
type FileId = (u64, u64);

#[derive(Debug)]
struct AuditLine {
    text: String,
    /// What is missing where it is not written.
    stands_for: Gap,
    /// A line that says what is missing.
    is_gap: bool,
}

/// What may wait: lines, and their bytes together.
const MOST_WAITING: usize = 1024;
const MOST_BYTES: usize = 4 << 20;

impl AuditFile {
    /// Opens the file, and makes it where it is not there.
    ///
    /// # Errors
    /// The system's, or that it is a FIFO that nobody reads.
    pub fn open(path: &Path, counters: Arc<AuditCounters>) -> io::Result<Self> {
        let (outlet, id) = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            open: Some((outlet, id)),
            last: id,
            torn: false,
            waiting: VecDeque::new(),
            bytes: 0,
            begun: false,
            gap: None,
            failures: 0,
            counters,
        })
    }

    /// Whether the last attempt to write failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// How many events could not be written yet, those that are lost among them.
    pub fn missing(&self) -> u64 {
        let waiting = self.waiting.iter().map(|line| line.stands_for.events).sum::<u64>();
        waiting + self.gap.as_ref().map_or(0, |gap| gap.events)
    }

    /// Opens the file again before the next line.
    pub fn reopen(&mut self) {
        if !self.begun {
            self.open = None;
        }
    }

    /// Takes an event, to be written in its turn.
    pub fn add(&mut self, event: &AuditEvent, json: String) {
        let stands_for = span(event);
        if self.waiting.len() >= MOST_WAITING || self.bytes + json.len() > MOST_BYTES {
            self.lose(stands_for);
            return;
        }
        self.wait(AuditLine { text: json, stands_for, is_gap: false });
    }

    /// Takes events that were lost before they came here.
    pub fn lose(&mut self, lost: Gap) {
        self.counters.lost.add(lost.events);
        let before = self.gap.take();
        let first = before.is_none();
        let gap = match before {
            Some(before) => before.and(lost),
            None => lost,
        };
        if first || gap.events.is_multiple_of(1000) {
            error!(
                audit_log = %self.path.display(),
                lost = gap.events,
                hint = "see whether the disk is full, or the reader of the audit log hangs; writing resumes by itself",
                "audit events are lost: those before them could not be written yet; refusals stand"
            );
        }
        self.gap = Some(gap);
    }

    fn wait(&mut self, line: AuditLine) {
        // What is missing stands where it is missing.
        if let Some(gap) = self.gap.take() {
            self.wait_for(gap_line(gap));
        }
        self.wait_for(line);
    }

    fn wait_for(&mut self, line: AuditLine) {
        self.bytes += line.text.len();
        self.waiting.push_back(line);
    }

    /// Writes as much as is taken without waiting. False where the rest is to be tried soon; where writing failed, the
    /// next event or tick tries again.
    pub fn write(&mut self) -> bool {
        loop {
            if self.waiting.is_empty() {
                let Some(gap) = self.gap.take() else { return true };
                self.wait_for(gap_line(gap));
            }
            match self.write_first() {
                Ok(true) => self.written(),
                Ok(false) => return false,
                Err(error) => {
                    self.failed(&error);
                    return true;
                }
            }
        }
    }

    /// Whether the first line that waits was written.
    fn write_first(&mut self) -> io::Result<bool> {
        let (Some(line), outlet) = (self.waiting.front(), Self::opened(&mut self.open, &self.path, self.begun)?) else {
            return Ok(true);
        };
        if outlet.1 != self.last {
            self.torn = false;
            self.last = outlet.1;
        }
        if !self.begun {
            let buffer = outlet.0.refill();
            if self.torn {
                buffer.push(b'\n');
            }
            buffer.extend_from_slice(line.text.as_bytes());
            buffer.push(b'\n');
            self.begun = true;
        }
        match outlet.0.write() {
            Ok(true) => {
                self.torn = false;
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) => {
                self.torn = outlet.0.is_torn(self.torn);
                self.begun = false;
                self.open = None;
                Err(error)
            }
        }
    }

    /// The file that is there under the path now; it is opened again where it was renamed or removed.
    fn opened<'a>(
        open_now: &'a mut Option<(Outlet, FileId)>,
        path: &Path,
        begun: bool,
    ) -> io::Result<&'a mut (Outlet, FileId)> {
        let same = |id: FileId| begun || path.metadata().is_ok_and(|there| (there.dev(), there.ino()) == id);
        match open_now.take_if(|(_, id)| !same(*id)) {
            None if open_now.is_some() => {}
            _ => *open_now = Some(open(path)?),
        }
        open_now.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn written(&mut self) {
        self.begun = false;
        let Some(line) = self.waiting.pop_front() else { return };
        self.bytes -= line.text.len();
        let path = self.path.display();
        if std::mem::take(&mut self.failures) > 0 {
            info!(audit_log = %path, "the audit log is written again");
        }
        if line.is_gap {
            let Gap { events, from, to } = line.stands_for;
            warn!(
                audit_log = %path,
                lost = events,
                from,
                to,
                "audit events are lost; a line `audit-gap` stands for them in the audit log"
            );
        }
    }

    fn failed(&mut self, error: &io::Error) {
        self.failures += 1;
        self.counters.write_errors.add(1);
        if self.failures == 1 || self.failures.is_multiple_of(1000) {
            error!(
                audit_log = %self.path.display(),
                missing = self.missing(),
                %error,
                hint = "free space, or fix the path; writing resumes by itself",
                "the audit log cannot be written; refusals stand, and their events go to stderr"
            );
        }
    }
}

/// Which events a line stands for.
pub fn span(event: &AuditEvent) -> Gap {
    let text = |key: &str| event.get(key).and_then(Value::as_str).map(str::to_owned);
    let to = text("@timestamp").unwrap_or_default();
    let events = event.get("vouchsafe.count").and_then(Value::as_u64).unwrap_or(1);
    Gap { events, from: text("vouchsafe.first_time").unwrap_or_else(|| to.clone()), to }
}

fn gap_line(gap: Gap) -> AuditLine {
    let text = Value::Object(gap.json(Clock::System.now())).to_string();
    AuditLine { text, stands_for: gap, is_gap: true }
}

fn open(path: &Path) -> io::Result<(Outlet, FileId)> {
    let options = &mut OpenOptions::new();
    options.append(true).create(true).mode(0o640);
    let file = open_nonblocking(options, path).map_err(|error| {
        let fifo = path.metadata().is_ok_and(|there| there.file_type().is_fifo());
        if fifo {
            io::Error::new(error.kind(), "it is a FIFO that nobody reads; start its reader first")
        } else {
            error
        }
    })?;
    let there = file.metadata()?;
    Ok((Outlet::owned(file), (there.dev(), there.ino())))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{Read, Write},
    };

    use serde_json::json;

    use super::*;

    fn event(second: usize) -> (AuditEvent, String) {
        let event = json!({ "@timestamp": format!("t{second}"), "vouchsafe.count": 2, "rest": "x".repeat(1000) });
        (event.as_object().cloned().unwrap(), event.to_string())
    }

    #[test]
    fn what_there_was_no_room_for_leaves_a_line_where_it_is_missing() {
        const EVENTS: usize = 3000;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let refused = AuditFile::open(&path, Arc::default()).unwrap_err();
        assert!(refused.to_string().contains("FIFO that nobody reads"), "{refused}");
        let mut reader = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut file = AuditFile::open(&path, Arc::default()).unwrap();
        for second in 0..EVENTS {
            let (event, json) = event(second);
            file.add(&event, json);
            file.write();
        }
        assert!(!file.write(), "nobody reads");
        let (mut lines, mut rest) = (Vec::new(), Vec::new());
        while file.missing() > 0 {
            let mut piece = [0; 65536];
            let count = reader.read(&mut piece).unwrap();
            rest.extend_from_slice(&piece[..count]);
            file.write();
        }
        // What is still in the pipe ends here.
        reader.write_all(b"\nend\n").unwrap();
        while !rest.ends_with(b"\nend\n") {
            let mut piece = [0; 65536];
            let count = reader.read(&mut piece).unwrap();
            rest.extend_from_slice(&piece[..count]);
        }
        for line in String::from_utf8(rest).unwrap().lines().filter(|line| line.starts_with('{')) {
            lines.push(serde_json::from_str::<Value>(line).unwrap());
        }
        let gaps: Vec<_> = lines.iter().filter(|line| line["event.action"] == "audit-gap").collect();
        let [gap] = gaps[..] else { panic!("{} gaps", gaps.len()) };
        let written = lines.len() - 1;
        assert_eq!(gap["vouchsafe.lost"], 2 * (EVENTS - written));
        assert_eq!(gap["vouchsafe.from"], format!("t{written}"), "the first that had no room");
        assert_eq!(gap["vouchsafe.to"], format!("t{}", EVENTS - 1));
    }

    #[test]
    fn a_file_that_cannot_be_written_keeps_events_until_it_can() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut file = AuditFile::open(&path, Arc::default()).unwrap();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        for second in 0..3 {
            let (event, json) = event(second);
            file.add(&event, json);
            assert!(file.write(), "it is not tried again at once");
        }
        assert!(file.is_failing());
        assert_eq!(file.missing(), 6);
        fs::remove_dir(&path).unwrap();
        assert!(file.write() && !file.is_failing());
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3, "nothing is lost, so there is no gap");
    }
}
