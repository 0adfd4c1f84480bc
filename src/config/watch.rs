//! The files that settings were built from, and whether they have changed.
//!
//! Contents are compared, so that renames, symbolic links that are moved (as Kubernetes does) and writes in place are
//! all noticed. A file whose metadata has not changed is not read again.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{clock::Clock, tls::fingerprint::Fingerprint};

/// Reads files, and remembers their contents.
#[derive(Clone, Debug, Default)]
pub struct Files {
    clock: Clock,
    /// Whether pipes may be read. Each can be read once only.
    reads_pipes: bool,
    known: BTreeMap<PathBuf, KnownFile>,
}

#[derive(Clone, Debug)]
struct KnownFile {
    content: Content,
    /// `None` if it may change without a change of its metadata.
    stamp: Option<Stamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    File(Fingerprint),
    Directory(Vec<PathBuf>),
    Unreadable(io::ErrorKind),
}

/// What changes whenever a file does: device, inode, length, and both times in nanoseconds.
type Stamp = (u64, u64, u64, i128, i128);

impl Files {
    /// For the start, when pipes may be read. They are not checked for changes.
    pub fn at_start() -> Self {
        Self { reads_pipes: true, ..Self::default() }
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let is_pipe = fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir());
        if is_pipe && self.reads_pipes {
            return fs::read(path);
        }
        if is_pipe {
            let kind = io::ErrorKind::InvalidInput;
            self.known.insert(path.to_owned(), KnownFile { content: Content::Unreadable(kind), stamp: None });
            return Err(io::Error::new(kind, "a pipe or a device is read at start only"));
        }
        let stamp = stamp(path, self.clock);
        let bytes = fs::read(path);
        let content = match &bytes {
            Ok(bytes) => Content::File(Fingerprint::of(bytes)),
            Err(error) => Content::Unreadable(error.kind()),
        };
        self.known.insert(path.to_owned(), KnownFile { content, stamp });
        bytes
    }

    /// The entries of a directory, sorted by name; `None` if the path is not a directory.
    ///
    /// # Errors
    /// The system's.
    pub fn list(&mut self, path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
        let entries = list(path);
        let content = match &entries {
            Ok(Some(entries)) => Content::Directory(entries.clone()),
            Ok(None) => return Ok(None),
            Err(error) => Content::Unreadable(error.kind()),
        };
        self.known.insert(path.to_owned(), KnownFile { content, stamp: None });
        entries
    }

    /// The present contents of the same paths.
    pub fn rescan(&self) -> Self {
        let mut now = Self { clock: self.clock, reads_pipes: false, known: BTreeMap::new() };
        for (path, known) in &self.known {
            let is_unchanged = known.stamp.is_some() && stamp(path, self.clock) == known.stamp;
            if is_unchanged {
                now.known.insert(path.clone(), known.clone());
            } else if !matches!(now.list(path), Ok(None)) {
                // A directory, or missing: `list` has noted it.
            } else {
                // `read` notes an error.
                let _ = now.read(path);
            }
        }
        now
    }

    /// Whether both have the same files with the same contents.
    pub fn same_as(&self, other: &Self) -> bool {
        let contents = |files: &Self| files.known.values().map(|file| file.content.clone()).collect::<Vec<_>>();
        self.known.keys().eq(other.known.keys()) && contents(self) == contents(other)
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
/// have the resolution of the kernel's clock tick, or of the file system.
fn stamp(path: &Path, clock: Clock) -> Option<Stamp> {
    let meta = fs::metadata(path).ok()?;
    let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let changed = nanos(meta.ctime(), meta.ctime_nsec());
    let settled = clock.now().unix_timestamp_nanos() - changed > SETTLED.as_nanos().cast_signed();
    let modified = nanos(meta.mtime(), meta.mtime_nsec());
    settled.then_some((meta.dev(), meta.ino(), meta.len(), modified, changed))
}

/// FAT has a resolution of 2 s; no file system in use has a coarser one.
const SETTLED: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_is_noticed() {
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
