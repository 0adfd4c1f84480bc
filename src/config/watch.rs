//! The files that the settings were read from, and whether they have changed.
//!
//! Contents are compared, so that renames, symbolic links that are moved (as Kubernetes does it) and writes in
//! place are all noticed. A file whose metadata did not change is not read again.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{clock::Clock, tls::fingerprint::Fingerprint};

/// Reads files, and remembers what was in them.
#[derive(Clone, Debug, Default)]
pub struct Files {
    clock: Clock,
    /// Whether a pipe may be read, once.
    waits: bool,
    seen: BTreeMap<PathBuf, Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    content: Content,
    /// `None` if the file may change and its metadata stay the same.
    stamp: Option<Stamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    File(Fingerprint),
    Directory(Vec<PathBuf>),
    Nothing(io::ErrorKind),
}

/// What moves whenever a file does: device, inode, length, and both times in nanoseconds.
type Stamp = (u64, u64, u64, i128, i128);

impl Files {
    /// At start, when a pipe may be waited for; it is not read again later.
    pub fn waiting() -> Self {
        Self { waits: true, ..Self::default() }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let is_pipe = fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir());
        if is_pipe && self.waits {
            return fs::read(path);
        }
        if is_pipe {
            let kind = io::ErrorKind::InvalidInput;
            self.seen.insert(path.to_owned(), Seen { content: Content::Nothing(kind), stamp: None });
            return Err(io::Error::new(kind, "a pipe or a device is read at start only"));
        }
        let stamp = stamp(path, self.clock);
        let bytes = fs::read(path);
        let content = match &bytes {
            Ok(bytes) => Content::File(Fingerprint::of(bytes)),
            Err(error) => Content::Nothing(error.kind()),
        };
        self.seen.insert(path.to_owned(), Seen { content, stamp });
        bytes
    }

    /// The entries of a directory in the order of their names; `None` if the path is no directory.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&mut self, path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
        let entries = list(path);
        let content = match &entries {
            Ok(Some(entries)) => Content::Directory(entries.clone()),
            Ok(None) => return Ok(None),
            Err(error) => Content::Nothing(error.kind()),
        };
        self.seen.insert(path.to_owned(), Seen { content, stamp: None });
        entries
    }

    /// Reads the same paths again.
    pub fn rescan(&self) -> Self {
        let mut now = Self { clock: self.clock, waits: false, seen: BTreeMap::new() };
        for (path, seen) in &self.seen {
            let is_unchanged = seen.stamp.is_some() && stamp(path, self.clock) == seen.stamp;
            if is_unchanged {
                now.seen.insert(path.clone(), seen.clone());
            } else if !matches!(now.list(path), Ok(None)) {
                // A directory, or gone: remembered as such.
            } else {
                // That it cannot be read is remembered.
                let _ = now.read(path);
            }
        }
        now
    }

    /// Whether the same paths have the same contents.
    pub fn same_as(&self, other: &Self) -> bool {
        let contents = |files: &Self| files.seen.values().map(|seen| seen.content.clone()).collect::<Vec<_>>();
        self.seen.keys().eq(other.seen.keys()) && contents(self) == contents(other)
    }
}

fn list(path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(None);
    }
    let mut entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    entries.sort();
    Ok(Some(entries))
}

/// `None` if the file was changed so recently that another change could leave the same stamp: the times of a file
/// have the resolution of the kernel's ticks, or of the file system.
fn stamp(path: &Path, clock: Clock) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let changed = nanos(meta.ctime(), meta.ctime_nsec());
    let settled = clock.now().unix_timestamp_nanos() - changed > SETTLED.as_nanos().cast_signed();
    let modified = nanos(meta.mtime(), meta.mtime_nsec());
    settled.then_some((meta.dev(), meta.ino(), meta.len(), modified, changed))
}

/// FAT has a resolution of 2 s, the coarsest in use.
const SETTLED: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("one")).unwrap();
        fs::create_dir(at("two")).unwrap();
        fs::write(at("one/ca.pem"), "1").unwrap();
        fs::write(at("two/ca.pem"), "2").unwrap();
        std::os::unix::fs::symlink(at("one"), at("data")).unwrap();
        let mut files = Files::default();
        files.read(&at("data/ca.pem")).unwrap();
        files.list(&at("two")).unwrap();
        assert!(files.read(&at("not-yet")).is_err());
        let mut changed = |what: &str, change: &dyn Fn()| {
            let unchanged = files.rescan();
            assert!(unchanged.same_as(&files), "before {what}");
            change();
            let now = files.rescan();
            assert!(!now.same_as(&files), "{what}");
            files = now;
        };
        changed("a write in place", &|| fs::write(at("one/ca.pem"), "x").unwrap());
        changed("a symbolic link that is moved", &|| {
            std::os::unix::fs::symlink(at("two"), at("data.new")).unwrap();
            fs::rename(at("data.new"), at("data")).unwrap();
        });
        changed("a new file in a directory", &|| fs::write(at("two/more.pem"), "").unwrap());
        changed("a file that appears", &|| fs::write(at("not-yet"), "").unwrap());
        changed("a file that goes", &|| fs::remove_file(at("not-yet")).unwrap());
        changed("a file that cannot be read", &|| {
            fs::remove_file(at("two/ca.pem")).unwrap();
            fs::create_dir(at("two/ca.pem")).unwrap();
        });
    }
}
