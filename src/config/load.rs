//! Reads the named files, by way of [`Files`], which has the only file IO of this room.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::text::show_value;

use super::{paths, watch::Files};

/// A file's name for messages, and its bytes.
pub type Named = (String, Vec<u8>);

/// Reads PEM bundles: files, and directories of `*.pem`, `*.crt`, `*.cer` and OpenSSL's hashed names.
///
/// A file of a directory is read once, however many links lead to it. Names that begin with `..` are passed over: a
/// Kubernetes volume keeps its versions under such names, and links to the current one.
///
/// # Errors
/// A sentence that names the path.
pub fn bundle(files: &mut Files, what: &str, paths: &[PathBuf]) -> Result<Vec<Named>, String> {
    let mut found = Vec::new();
    for path in paths {
        paths::is_name(what, path)?;
        let Some(entries) = files.list(path).map_err(|error| unread(what, path, paths, &error))? else {
            found.push(read(files, what, path, paths)?);
            continue;
        };
        let mut known = HashSet::new();
        for entry in entries.iter().filter(|entry| is_certificate_name(entry)) {
            match fs::metadata(entry) {
                Ok(metadata) if metadata.is_file() && known.insert((metadata.dev(), metadata.ino())) => {
                    found.push(named(files, what, entry)?);
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(unread(what, entry, &[], &error));
                }
                // One that was read, another directory, or a link to nothing.
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Reads files.
///
/// # Errors
/// A sentence that names the path.
pub fn each(files: &mut Files, what: &str, paths: &[PathBuf]) -> Result<Vec<Named>, String> {
    paths.iter().map(|path| read(files, what, path, paths)).collect()
}

/// Reads a file.
///
/// # Errors
/// A sentence that names the path.
pub fn named(files: &mut Files, what: &str, path: &Path) -> Result<Named, String> {
    read(files, what, path, &[])
}

/// Reads one of several files.
fn read(files: &mut Files, what: &str, path: &Path, paths: &[PathBuf]) -> Result<Named, String> {
    paths::is_name(what, path)?;
    let bytes = files.read(path).map_err(|error| unread(what, path, paths, &error))?;
    Ok((show_value(path), bytes))
}

/// A sentence about a path that cannot be read, with a remedy; `paths` are those that were given with it.
pub fn unread(what: &str, path: &Path, paths: &[PathBuf], error: &io::Error) -> String {
    let hint = paths::hint(path, error, paths).map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{what} `{}`: {error}{hint}", show_value(path))
}

fn is_certificate_name(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(OsStr::to_str).filter(|name| !name.starts_with("..")) else {
        return false;
    };
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    // `5ed36f99.0`, as `openssl rehash` makes it; a `ca.pem.1` that somebody put aside is none.
    let hashed = || {
        let digits = !extension.is_empty() && extension.bytes().all(|b| b.is_ascii_digit());
        digits && stem.len() == 8 && stem.bytes().all(|b| b.is_ascii_hexdigit())
    };
    ["pem", "crt", "cer"].contains(&extension) || hashed()
}
