//! A log in blocks of whole lines, plain or in gzip's form, in bounded memory.
//!
//! A block has room for the longest line that is kept, so a log of any length is read in the memory of a
//! block and the line that was begun in it. A longer line is passed over, and told as a block of its own.

use std::io::{self, Cursor, Read};

use flate2::read::MultiGzDecoder;
use memchr::{memchr, memchr_iter, memrchr};

/// The longest line that is kept, in bytes; real ones have a few thousand.
pub const LONGEST: usize = 1 << 20;

/// How much is read at once where lines are not longer: what is in a block takes room, too, once it has
/// been read.
const USUAL: usize = 1 << 18;

/// Some lines of a log.
#[derive(Debug)]
pub struct Block {
    bytes: Box<[u8]>,
    filled: usize,
    overlong: bool,
}

impl Block {
    /// An empty one, to be filled again and again.
    pub fn new() -> Self {
        // Room for the longest line and its end.
        Self { bytes: vec![0; LONGEST + 1].into(), filled: 0, overlong: false }
    }

    /// Whether this stands for one line that was too long to be kept.
    pub fn overlong(&self) -> bool {
        self.overlong
    }

    /// The lines, without their ends.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let bytes = &self.bytes[..self.filled];
        let mut begin = 0;
        let unended = (bytes.last() != Some(&b'\n')).then_some(bytes.len());
        memchr_iter(b'\n', bytes).chain(unended).map(move |end| {
            let line = &bytes[begin..end];
            begin = end + 1;
            line
        })
    }
}

impl Default for Block {
    fn default() -> Self {
        Self::new()
    }
}

/// A log that is being read.
pub struct Blocks {
    source: Box<dyn Read + Send>,
    /// The beginning of a line whose end was not read yet.
    begun: Vec<u8>,
    ended: bool,
    /// What ended it, to be told after the lines before.
    failed: Option<io::Error>,
}

impl Blocks {
    /// Begins to read; whether it is gzip's form is seen by its first bytes, whatever its name.
    ///
    /// # Errors
    /// The source's.
    pub fn new(mut source: impl Read + Send + 'static) -> io::Result<Self> {
        let mut magic = Vec::new();
        source.by_ref().take(2).read_to_end(&mut magic)?;
        let packed = magic == [0x1f, 0x8b];
        let source = Cursor::new(magic).chain(source);
        let source: Box<dyn Read + Send> =
            if packed { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) };
        Ok(Self { source, begun: Vec::new(), ended: false, failed: None })
    }

    /// Fills a block with the next lines; false at the end, and the block is of no use then.
    ///
    /// # Errors
    /// The source's, once all that came before it has been in a block.
    pub fn fill(&mut self, block: &mut Block) -> io::Result<bool> {
        block.overlong = false;
        block.filled = self.begun.len();
        block.bytes[..block.filled].copy_from_slice(&self.begun);
        self.begun.clear();
        for room in [USUAL, block.bytes.len()] {
            while block.filled < room && !self.ended {
                block.filled += self.read(&mut block.bytes[block.filled..room]);
            }
            if self.ended {
                return self.last(block.filled);
            }
            if let Some(end) = memrchr(b'\n', &block.bytes[..block.filled]) {
                self.begun.extend_from_slice(&block.bytes[end + 1..block.filled]);
                block.filled = end + 1;
                return Ok(true);
            }
        }
        self.pass_over(block);
        Ok(true)
    }

    /// Whether the last block has anything in it, and what ended it where it has not.
    fn last(&mut self, filled: usize) -> io::Result<bool> {
        match self.failed.take_if(|_| filled == 0) {
            Some(error) => Err(error),
            None => Ok(filled > 0),
        }
    }

    /// Reads on to the end of a line that does not fit.
    fn pass_over(&mut self, block: &mut Block) {
        while !self.ended {
            let filled = self.read(&mut block.bytes);
            if let Some(end) = memchr(b'\n', &block.bytes[..filled]) {
                self.begun.extend_from_slice(&block.bytes[end + 1..filled]);
                break;
            }
        }
        block.overlong = true;
        block.filled = 0;
    }

    fn read(&mut self, into: &mut [u8]) -> usize {
        match self.source.read(into) {
            Ok(0) => self.ended = true,
            Ok(read) => return read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                self.ended = true;
                self.failed = Some(error);
            }
        }
        0
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

    /// The lines by their length, an overlong one as None; and the error's text at the end.
    fn read(bytes: Vec<u8>, at_once: usize, breaks: bool) -> (Vec<Option<usize>>, Option<String>) {
        let mut blocks = match Blocks::new(Dribble(Cursor::new(bytes), at_once, breaks)) {
            Ok(blocks) => blocks,
            Err(error) => return (Vec::new(), Some(error.to_string())),
        };
        let (mut block, mut lines) = (Block::new(), Vec::new());
        loop {
            match blocks.fill(&mut block) {
                Ok(true) if block.overlong() => lines.push(None),
                Ok(true) => lines.extend(block.lines().map(|line| Some(line.len()))),
                Ok(false) => return (lines, None),
                Err(error) => return (lines, Some(error.to_string())),
            }
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_line_comes_whole_and_once() {
        let of = |lengths: &[usize]| {
            lengths.iter().fold(Vec::new(), |mut text, length| {
                text.extend(vec![b'x'; *length]);
                text.push(b'\n');
                text
            })
        };
        let many: Vec<usize> = (0..1_500).collect();
        for (what, lengths) in [
            ("nothing", &[][..]),
            ("one", &[5]),
            ("empty ones", &[0, 0, 3, 0]),
            ("more than a block", &many),
            ("as long as may be", &[LONGEST, 3, LONGEST]),
            ("about as long as is usual", &[USUAL - 1, USUAL, USUAL + 1, 3 * USUAL, USUAL - 2, 1]),
        ] {
            let expected: Vec<_> = lengths.iter().copied().map(Some).collect();
            for at_once in [1_013, 1 << 16, usize::MAX] {
                let (lines, error) = read(of(lengths), at_once, false);
                assert!(lines == expected && error.is_none(), "{what}, {at_once} at once: {error:?}");
                // The same without the last line's end, unless that line is empty.
                let mut unended = of(lengths);
                unended.pop();
                if unended.last().is_some_and(|byte| *byte != b'\n') {
                    assert!(read(unended, at_once, false).0 == expected, "{what}, unended, {at_once} at once");
                }
            }
            assert!(read(gzip(&of(lengths)), 4_096, false).0 == expected, "{what}, packed");
        }
    }

    #[test]
    fn a_line_too_long_is_told_and_its_neighbours_are_kept() {
        for long in [LONGEST + 1, LONGEST + 2, 2 * LONGEST, 5 * LONGEST + 7] {
            let mut text = b"before\n".to_vec();
            text.extend(vec![b'x'; long]);
            let unended = text.clone();
            text.extend(b"\nafter\n");
            for at_once in [4_096, usize::MAX] {
                let (lines, _) = read(text.clone(), at_once, false);
                assert_eq!(lines, [Some(6), None, Some(5)], "{long}, {at_once} at once");
                assert_eq!(read(unended.clone(), at_once, false).0, [Some(6), None], "{long} at the end");
            }
        }
    }

    #[test]
    fn what_came_before_a_failure_is_given_first() {
        assert_eq!(read(b"a\nbc\nd".to_vec(), 2, true), (vec![Some(1), Some(2), Some(1)], Some("broke".into())));
        assert_eq!(read(vec![], 2, true), (vec![], Some("broke".into())), "a failure at once");
        let mut cut = gzip("a line of it\n".repeat(5_000).as_bytes());
        cut.truncate(cut.len() - 4);
        let (lines, error) = read(cut, 4_096, false);
        assert_eq!((lines.len(), error.is_some()), (5_000, true), "gzip without its end: {error:?}");
    }

    #[test]
    fn gzip_of_several_members_is_read_to_its_end() {
        let both = [gzip(b"one\ntw"), gzip(b"o\nthree\n")].concat();
        assert_eq!(read(both, 7, false), (vec![Some(3), Some(3), Some(5)], None));
        assert_eq!(read(vec![0x1f], 7, false), (vec![Some(1)], None), "half of gzip's first bytes");
    }
}
