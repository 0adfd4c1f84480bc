//! A descriptor that is written to without ever waiting for its reader.
//!
//! Setting `O_NONBLOCK` on an inherited descriptor would set it for whoever shares it (the shell, the next program in
//! the terminal), so pipes and terminals are opened again by their name under `/proc`. Where that is refused, the
//! descriptor is asked before each write, and given no more than a pipe that is writable takes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    time::Duration,
};

use memchr::{memchr, memrchr};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    net::{SendFlags, send},
};

/// Bytes for a descriptor, and what it took of them.
#[derive(Debug)]
pub struct Outlet {
    way: Way,
    bytes: Vec<u8>,
    taken: usize,
}

/// How to write without waiting.
#[derive(Debug)]
enum Way {
    /// Nothing waits for a reader here: a file, `/dev/null`.
    Plain(File),
    /// The open file description is ours alone, and does not block.
    Nonblocking(File),
    /// It may block, and is asked first.
    Polled(File),
    /// Each call says that it must not block.
    Socket(File),
}

/// So many bytes go into a pipe whole or not at all (`PIPE_BUF`, pipe(7)), so no line is cut by another writer's.
const WHOLE: usize = 4096;

/// A buffer that grew beyond this is freed when it has been written.
const KEPT: usize = 256 * 1024;

impl Outlet {
    /// Of a descriptor that others may share.
    ///
    /// # Errors
    /// The system's.
    pub fn shared(descriptor: impl AsFd) -> io::Result<Self> {
        let file = File::from(descriptor.as_fd().try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        let way = if kind.is_socket() {
            Way::Socket(file)
        } else if kind.is_fifo() || kind.is_char_device() {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            open_nonblocking(OpenOptions::new().write(true), path.as_ref()).map_or(Way::Polled(file), Way::Nonblocking)
        } else {
            Way::Plain(file)
        };
        Ok(Self { way, bytes: Vec::new(), taken: 0 })
    }

    /// Of a file that was opened by `open_nonblocking`.
    pub fn owned(file: File) -> Self {
        Self { way: Way::Nonblocking(file), bytes: Vec::new(), taken: 0 }
    }

    /// Whether all of it was written.
    pub fn is_done(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// The buffer, to be filled; call it only if all that was in it [`Self::is_done`].
    pub fn refill(&mut self) -> &mut Vec<u8> {
        self.taken = 0;
        self.bytes.clear();
        if self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        &mut self.bytes
    }

    /// Writes as much as is taken without waiting; whether that was all.
    ///
    /// # Errors
    /// The system's; what was left is kept, for [`Self::discard`] or another try.
    pub fn write(&mut self) -> io::Result<bool> {
        while !self.is_done() {
            match self.way.write(&self.bytes[self.taken..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.taken += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Whether what was written ends in the middle of a line; `before` is whether it did before the buffer was filled.
    pub fn is_torn(&self, before: bool) -> bool {
        match self.taken {
            0 => before,
            taken => self.bytes[taken - 1] != b'\n',
        }
    }

    /// Forgets what was not written; how many lines that is.
    pub fn discard(&mut self) -> u64 {
        let lines = memchr::memchr_iter(b'\n', &self.bytes[self.taken..]).count();
        self.refill();
        lines as u64
    }

    /// Waits until it may be written to, for no longer than this.
    pub fn wait(&self, most: Duration) {
        self.way.is_ready(most);
    }
}

impl Way {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => (&*file).write(bytes),
            Self::Nonblocking(file) => (&*file).write(lines_within(bytes)),
            Self::Polled(file) if self.is_ready(Duration::ZERO) => {
                let lines = lines_within(bytes);
                (&*file).write(&lines[..lines.len().min(WHOLE)])
            }
            Self::Polled(_) => Err(io::ErrorKind::WouldBlock.into()),
            Self::Socket(file) => Ok(send(file, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?),
        }
    }

    fn is_ready(&self, most: Duration) -> bool {
        let (Self::Plain(file) | Self::Nonblocking(file) | Self::Polled(file) | Self::Socket(file)) = self;
        let most = Timespec { tv_sec: 0, tv_nsec: most.subsec_nanos().into() };
        poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&most)).is_ok_and(|ready| ready > 0)
    }
}

/// The whole lines at the beginning that a pipe takes at once; one line, where the first is longer.
fn lines_within(bytes: &[u8]) -> &[u8] {
    let end = memrchr(b'\n', &bytes[..bytes.len().min(WHOLE)]).or_else(|| memchr(b'\n', bytes));
    &bytes[..end.map_or(bytes.len(), |end| end + 1)]
}

/// Opens for writing, without waiting for a reader and without blocking later.
///
/// # Errors
/// The system's; `ENXIO` where it is a FIFO that nobody reads.
pub(crate) fn open_nonblocking(options: &mut OpenOptions, path: &std::path::Path) -> io::Result<File> {
    // The flags are those of open(2), and fit.
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    options.custom_flags(i32::try_from(flags.bits()).unwrap_or_default()).open(path)
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;

    fn lines(count: usize) -> Vec<u8> {
        (0..count).flat_map(|n| format!("{n:0>99}\n").into_bytes()).collect()
    }

    #[test]
    fn nobody_waits_for_a_reader_and_nothing_is_written_twice_or_cut() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let (mut peer, socket) = UnixStream::pair().unwrap();
        let mut polled = Outlet::shared(&pipe).unwrap();
        assert!(matches!(polled.way, Way::Nonblocking(_)));
        polled.way = Way::Polled(File::from(pipe.as_fd().try_clone_to_owned().unwrap()));
        let reopened = io::pipe().unwrap();
        let mut readers: [&mut dyn Read; 3] = [&mut reader, &mut peer, &mut { reopened.0 }];
        let mut outlets = [polled, Outlet::shared(&socket).unwrap(), Outlet::shared(&reopened.1).unwrap()];
        let text = lines(20_000);
        for (outlet, reader) in outlets.iter_mut().zip(&mut readers) {
            outlet.refill().extend_from_slice(&text);
            assert!(!outlet.write().unwrap(), "nobody reads");
            let mut read = vec![0; text.len()];
            let mut filled = 0;
            while filled < read.len() {
                filled += reader.read(&mut read[filled..]).unwrap();
                outlet.write().unwrap();
            }
            assert!(read == text && outlet.is_done());
        }
    }

    #[test]
    fn lines_go_whole_where_a_pipe_takes_them_whole() {
        assert_eq!(lines_within(&lines(50)).len(), 4000);
        let long = [vec![b'x'; 9000], b"\nshort\n".to_vec()].concat();
        assert_eq!(lines_within(&long).len(), 9001);
        assert_eq!(lines_within(b"no end"), b"no end");
    }
}
