//! Many logs, read into one [`Summary`] by some threads that take turns.
//!
//! They sit in a ring. What there is to read goes round from seat to seat, and so does the summary: a
//! thread takes the next block of lines, passes the reading on, makes entries of the lines while the next
//! thread reads, and adds them when the summary comes by. So the blocks are added in the order in which
//! they stand in the logs, whoever is quicker, and the same logs always make the same summary.

use std::{
    fs::File,
    io, panic,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread, vec,
};

use super::{
    blocks::{Block, Blocks},
    entry::{Entry, Flaw},
    summary::{Filter, Lines, Summary},
};

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    /// What the events say.
    pub summary: Summary,
    /// The logs, in the order in which they were given.
    pub logs: Vec<Log>,
}

/// One log of a survey.
#[derive(Debug)]
pub struct Log {
    /// Its path; `-` is standard input.
    pub path: PathBuf,
    /// What became of its lines.
    pub lines: Lines,
    /// Why it could not be read, or not to its end.
    pub error: Option<io::Error>,
}

/// Reads all logs. One that cannot be read does not keep the others from being read.
pub fn survey(paths: Vec<PathBuf>, filter: &Filter, threads: usize) -> Survey {
    let threads = threads.max(1);
    let logs = paths.iter().map(|path| Log { path: path.clone(), lines: Lines::default(), error: None });
    let survey = Survey { summary: Summary::default(), logs: logs.collect() };
    let reading = Reading { left: paths.into_iter().enumerate(), open: None, failures: Vec::new() };
    let seats = ring(threads, reading).into_iter().zip(ring(threads, survey));
    thread::scope(|scope| {
        let running: Vec<_> =
            seats.map(|(reading, survey)| scope.spawn(move || sit(&reading, &survey, filter))).collect();
        let ends = running.into_iter().map(|seat| seat.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        // The one that came to the end of the last log has it all.
        ends.flatten().next().unwrap_or_default()
    })
}

/// The logs that are not read yet.
struct Reading {
    left: std::iter::Enumerate<vec::IntoIter<PathBuf>>,
    open: Option<(usize, Blocks)>,
    failures: Vec<(usize, io::Error)>,
}

impl Reading {
    /// Fills a block with lines of one log, and says of which; none at the end of the last.
    fn fill(&mut self, block: &mut Block) -> Option<usize> {
        loop {
            if let Some((log, blocks)) = &mut self.open {
                match blocks.fill(block) {
                    Ok(true) => return Some(*log),
                    Ok(false) => {}
                    Err(error) => self.failures.push((*log, error)),
                }
                self.open = None;
            }
            let (log, path) = self.left.next()?;
            match open(path) {
                Ok(blocks) => self.open = Some((log, blocks)),
                Err(error) => self.failures.push((log, error)),
            }
        }
    }
}

fn open(path: PathBuf) -> io::Result<Blocks> {
    match path.as_os_str() == "-" {
        true => Blocks::new(io::stdin()),
        false => Blocks::new(File::open(path)?),
    }
}

/// A seat's place in the ring: from its neighbour, to its neighbour.
struct Place<T> {
    take: Receiver<T>,
    give: SyncSender<T>,
}

/// Places for as many; the first finds the thing there when it comes.
fn ring<T>(seats: usize, thing: T) -> Vec<Place<T>> {
    let (mut gives, takes): (Vec<_>, Vec<_>) = (0..seats).map(|_| sync_channel(1)).unzip();
    // It holds one, and nobody has gone.
    let _ = gives[0].send(thing);
    gives.rotate_left(1);
    takes.into_iter().zip(gives).map(|(take, give)| Place { take, give }).collect()
}

/// Does one seat's share; has the survey at the end if the end came to it.
fn sit(reading: &Place<Reading>, survey: &Place<Survey>, filter: &Filter) -> Option<Survey> {
    let mut block = Block::new();
    loop {
        let mut now = reading.take.recv().ok()?;
        let Some(log) = now.fill(&mut block) else {
            let mut whole = survey.take.recv().ok()?;
            now.failures.into_iter().for_each(|(log, error)| whole.logs[log].error = Some(error));
            return Some(whole);
        };
        // Where the neighbour has gone, it failed, which its join will tell.
        let _ = reading.give.send(now);
        let (lines, entries) = read(&block, filter);
        let mut whole = survey.take.recv().ok()?;
        entries.iter().for_each(|entry| whole.summary.add(entry));
        whole.logs[log].lines.append(&lines);
        let _ = survey.give.send(whole);
    }
}

/// The entries of a block that the filter takes, and what became of its lines.
fn read<'b>(block: &'b Block, filter: &Filter) -> (Lines, Vec<Entry<'b>>) {
    let (mut lines, mut entries) = (Lines::default(), Vec::new());
    if block.overlong() {
        lines.all = 1;
        lines.broken.add(Flaw::TooLong, 1);
        return (lines, entries);
    }
    for line in block.lines() {
        lines.all += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        match Entry::read(line) {
            Ok(entry) if filter.takes(&entry) => entries.push(entry),
            Ok(_) => lines.left_out += 1,
            Err(flaw) => lines.broken.add(flaw, lines.all),
        }
    }
    lines.counted = entries.len() as u64;
    (lines, entries)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::{
        super::{
            report,
            summary::{MOST_GROUPS, Order},
        },
        *,
    };

    /// Lines of several blocks, more kinds than are told apart, and some that are broken.
    fn log(of: usize) -> String {
        (0..14_000).fold(String::new(), |mut text, n| {
            let upstream = n * 7 % (MOST_GROUPS + 2_000);
            let _ = match n % 1_000 {
                17 => writeln!(text, "torn {n}"),
                18 => writeln!(text),
                _ => writeln!(
                    text,
                    r#"{{"@timestamp":"2026-11-21T0{}:00:00Z","event.action":"a","error.code":"c","error.message":"{of}/{n}","vouchsafe.upstream":"u{upstream}:1"}}"#,
                    n % 9
                ),
            };
            text
        })
    }

    #[test]
    fn however_many_threads_read_they_find_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for name in 0..3 {
            let path = directory.path().join(name.to_string());
            std::fs::write(&path, log(name)).unwrap();
            paths.push(path);
        }
        paths.insert(1, directory.path().join("missing"));
        paths.insert(2, directory.path().to_owned());
        let mut seen = None;
        for threads in [1, 2, 3, 8] {
            let survey = survey(paths.clone(), &Filter::default(), threads);
            let failed: Vec<_> = survey.logs.iter().map(|log| log.error.is_some()).collect();
            assert_eq!(failed, [false, true, true, false, false], "{threads} threads");
            let counted: Vec<_> = survey.logs.iter().map(|log| (log.lines.all, log.lines.counted)).collect();
            assert_eq!(counted[0], (14_000, 13_972), "{threads} threads");
            assert_eq!(survey.logs[0].lines.broken.first, Some(18), "{threads} threads");
            assert!(survey.summary.other().is_some_and(|other| other.events > 0), "{threads} threads");
            let mut text = Vec::new();
            report::json(&survey, Order::Last, &mut text).unwrap();
            assert!(seen.get_or_insert_with(|| text.clone()) == &text, "{threads} threads find something else");
        }
    }

    #[test]
    fn no_log_at_all_is_no_trouble() {
        assert!(survey(Vec::new(), &Filter::default(), 2).summary.total().is_none());
    }
}
