//! Reads audit logs, plain or packed by gzip, line by line and in bounded memory, into one [`Summary`].

use std::{
    cell::Cell,
    fmt,
    fs::{File, Metadata},
    io::{self, BufRead, BufReader, Cursor, Read},
    path::{Path, PathBuf},
    rc::Rc,
};

use flate2::read::MultiGzDecoder;
use memchr::memchr;

use super::{
    entry::{AuditEntry, Flaw},
    summary::{By, Filter, Summary},
};
use crate::text::escape;

/// The longest line that is kept, in bytes; real ones have a few thousand.
pub const LONGEST: usize = 1 << 20;

/// What was found.
#[derive(Debug)]
pub struct Survey {
    /// What the events say.
    pub summary: Summary,
    /// The logs, in the order in which they were given.
    pub logs: Vec<AuditLogFile>,
    /// The lines of the event that was asked for, where one was; 16 at most.
    pub found: Vec<Found>,
}

/// A line that has the id that was asked for.
#[derive(Debug)]
pub struct Found {
    /// The log.
    pub path: PathBuf,
    /// Its place among the lines, from 1.
    pub number: u64,
    /// All of it.
    pub line: String,
}

/// An id is in one line; in a few, where logs overlap.
const MOST_FOUND: usize = 16;

/// One log of a survey.
#[derive(Debug)]
pub struct AuditLogFile {
    /// Its path; `-` is standard input.
    pub path: PathBuf,
    /// What became of its lines.
    pub lines: Lines,
    /// Why it could not be read, or not to its end.
    pub error: Option<io::Error>,
}

impl AuditLogFile {
    /// Whether it has lines, and not one of them is an audit event.
    pub fn is_something_else(&self) -> bool {
        self.error.is_none() && self.lines.broken.lines() > 0 && self.lines.counted + self.lines.left_out == 0
    }
}

/// What became of the lines of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// All, with the empty ones.
    pub all: u64,
    /// Events that are counted.
    pub counted: u64,
    /// Events that the [`Filter`] does not take.
    pub left_out: u64,
    /// No events.
    pub broken: Broken,
}

/// The lines that are no events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Broken {
    /// The place of the first among the file's lines, from 1; none where there is no broken line.
    pub first: Option<u64>,
    /// JSON, but no event.
    pub not_an_event: u64,
    /// Not JSON, or cut.
    pub not_json: u64,
    /// Not UTF-8.
    pub not_utf8: u64,
    /// Longer than [`LONGEST`].
    pub too_long: u64,
}

impl Broken {
    /// How many.
    pub fn lines(&self) -> u64 {
        self.not_an_event + self.not_json + self.not_utf8 + self.too_long
    }

    /// Counts one.
    pub fn add(&mut self, flaw: Flaw, line: u64) {
        self.first = self.first.or(Some(line));
        *match flaw {
            Flaw::NotAnEvent => &mut self.not_an_event,
            Flaw::NotJson => &mut self.not_json,
            Flaw::NotUtf8 => &mut self.not_utf8,
            Flaw::TooLong => &mut self.too_long,
        } += 1;
    }
}

/// How far a log was read.
#[derive(Clone, Copy, Debug)]
pub struct SoFar<'a> {
    path: &'a Path,
    lines: u64,
    bytes: u64,
    /// How long it is as a file; `None` if it is none.
    size: Option<u64>,
}

impl fmt::Display for SoFar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reading `{}`: {} lines", escape(&self.path.display().to_string()), self.lines)?;
        match self.size {
            Some(size) if size >= self.bytes && size > 0 => {
                write!(f, ", {} %", u128::from(self.bytes) * 100 / u128::from(size))
            }
            _ => Ok(()),
        }
    }
}

/// Reads all logs. One that cannot be read does not keep the others from being read. `progress` is told now and then how
/// far it has come.
pub fn read(paths: Vec<PathBuf>, filter: &Filter, by: By, mut progress: impl FnMut(SoFar<'_>)) -> Survey {
    let mut survey = Survey { summary: Summary::new(by), logs: Vec::new(), found: Vec::new() };
    for path in paths {
        let mut log = AuditLogFile { path, lines: Lines::default(), error: None };
        let read = open(&log.path).and_then(|source| survey.read(source, &mut log, filter, &mut progress));
        log.error = read.err();
        survey.logs.push(log);
    }
    survey
}

impl Survey {
    fn read(
        &mut self,
        mut source: Source,
        log: &mut AuditLogFile,
        filter: &Filter,
        progress: &mut impl FnMut(SoFar<'_>),
    ) -> io::Result<()> {
        const EVERY: u64 = 10_000;
        let mut line = Vec::new();
        while let Some(length) = read_line(&mut *source.lines, &mut line)? {
            log.lines.all += 1;
            if log.lines.all.is_multiple_of(EVERY) {
                let (path, lines) = (log.path.as_path(), log.lines.all);
                progress(SoFar { path, lines, bytes: source.bytes.get(), size: source.size });
            }
            if length > LONGEST {
                log.lines.broken.add(Flaw::TooLong, log.lines.all);
            } else if !line.trim_ascii().is_empty() {
                self.take(&line, log, filter);
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &[u8], log: &mut AuditLogFile, filter: &Filter) {
        match AuditEntry::read(line) {
            Ok(entry) if filter.takes(&entry) => {
                log.lines.counted += 1;
                self.summary.add(&entry);
                if filter.event.is_some() && self.found.len() < MOST_FOUND {
                    let (path, number) = (log.path.clone(), log.lines.all);
                    self.found.push(Found { path, number, line: String::from_utf8_lossy(line).into_owned() });
                }
            }
            Ok(entry) => {
                log.lines.left_out += 1;
                self.summary.see_code(&entry.code);
            }
            Err(flaw) => log.lines.broken.add(flaw, log.lines.all),
        }
    }
}

/// An open log.
struct Source {
    lines: Box<dyn BufRead>,
    /// How much of the file was read, as it is on the disk.
    bytes: Rc<Cell<u64>>,
    size: Option<u64>,
}

fn open(path: &Path) -> io::Result<Source> {
    let bytes = Rc::new(Cell::new(0));
    let counted = bytes.clone();
    let (lines, size) = if path.as_os_str() == "-" {
        (unpacked(Counted { source: io::stdin(), bytes: counted })?, None)
    } else {
        let source = File::open(path)?;
        let size = source.metadata().ok().filter(Metadata::is_file).map(|metadata| metadata.len());
        (unpacked(Counted { source, bytes: counted })?, size)
    };
    Ok(Source { lines, bytes, size })
}

/// A reader that counts what it has read.
struct Counted<R> {
    source: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(into)?;
        self.bytes.set(self.bytes.get() + read as u64);
        Ok(read)
    }
}

/// Whether a log is packed is seen by its first bytes, whatever its name.
fn unpacked(mut source: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    const BUFFER: usize = 1 << 18;
    let mut magic = Vec::new();
    source.by_ref().take(2).read_to_end(&mut magic)?;
    let packed = magic == [0x1f, 0x8b];
    let source = Cursor::new(magic).chain(source);
    Ok(match packed {
        true => Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(source))),
        false => Box::new(BufReader::with_capacity(BUFFER, source)),
    })
}

/// Reads a line without its end, and gives its length; none at the end. Of a line that is longer than [`LONGEST`] the
/// rest is passed over.
fn read_line(source: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<usize>> {
    line.clear();
    let (mut length, mut any) = (0, false);
    loop {
        let piece = match source.fill_buf() {
            Ok(piece) => piece,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if piece.is_empty() {
            return Ok(any.then_some(length));
        }
        any = true;
        let end = memchr(b'\n', piece);
        let part = &piece[..end.unwrap_or(piece.len())];
        length += part.len();
        if length <= LONGEST {
            line.extend_from_slice(part);
        }
        let taken = part.len() + usize::from(end.is_some());
        source.consume(taken);
        if end.is_some() {
            return Ok(Some(length));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// Gives its bytes a few at a time, then fails where it was told to.
    struct Dribble(Cursor<Vec<u8>>, usize, bool);

    impl Read for Dribble {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(into.len());
            match self.0.read(&mut into[..most])? {
                0 if self.2 => Err(io::Error::other("broke")),
                read => Ok(read),
            }
        }
    }

    /// The lengths of the lines, and the error's text at the end.
    fn lines(bytes: &[u8], at_once: usize, breaks: bool) -> (Vec<usize>, Option<String>) {
        let mut source = match unpacked(Dribble(Cursor::new(bytes.to_vec()), at_once, breaks)) {
            Ok(source) => source,
            Err(error) => return (Vec::new(), Some(error.to_string())),
        };
        let (mut line, mut lengths) = (Vec::new(), Vec::new());
        loop {
            match read_line(&mut source, &mut line) {
                Ok(Some(length)) => {
                    assert_eq!(line.len(), if length > LONGEST { line.len().min(LONGEST) } else { length });
                    lengths.push(length);
                }
                Ok(None) => return (lengths, None),
                Err(error) => return (lengths, Some(error.to_string())),
            }
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_line_is_read_whole_and_once() {
        let text = |lengths: &[usize]| {
            lengths.iter().fold(Vec::new(), |mut text, length| {
                text.extend(vec![b'x'; *length]);
                text.push(b'\n');
                text
            })
        };
        let many: Vec<usize> = (0..1_500).collect();
        for lengths in [&[][..], &[5], &[0, 0, 3, 0], &many, &[LONGEST, 3, LONGEST + 1, 2], &[5 * LONGEST, 1]] {
            for at_once in [1_013, 1 << 16, usize::MAX] {
                assert_eq!(lines(&text(lengths), at_once, false), (lengths.to_vec(), None));
            }
            assert_eq!(lines(&gzip(&text(lengths)), 4_096, false).0, lengths, "packed");
        }
        assert_eq!(lines(b"a\nbc", 1, false).0, [1, 2], "without an end");
    }

    #[test]
    fn whole_lines_before_a_failure_are_read() {
        assert_eq!(lines(b"a\nbc\nd", 2, true), (vec![1, 2], Some("broke".into())));
        assert_eq!(lines(b"", 2, true), (vec![], Some("broke".into())), "a failure at once");
        let mut cut = gzip("a line of it\n".repeat(5_000).as_bytes());
        cut.truncate(cut.len() - 4);
        let (read, error) = lines(&cut, 4_096, false);
        assert_eq!((read.len(), error.is_some()), (5_000, true), "gzip without its end: {error:?}");
    }

    #[test]
    fn gzip_of_several_members_is_read_to_its_end() {
        let both = [gzip(b"one\ntw"), gzip(b"o\nthree\n")].concat();
        assert_eq!(lines(&both, 7, false), (vec![3, 3, 5], None));
        assert_eq!(lines(&[0x1f], 7, false), (vec![1], None), "half of gzip's first bytes");
    }

    #[test]
    fn the_first_broken_line_is_remembered() {
        let mut broken = Broken::default();
        broken.add(Flaw::NotUtf8, 3);
        broken.add(Flaw::NotAnEvent, 4);
        assert_eq!((broken.first, broken.lines(), broken.not_utf8), (Some(3), 2, 1));
    }
}
