//! Reads the named files, by way of [`Files`], which has the only file IO of this room.

use std::{
    io,
    path::{Path, PathBuf},
};

use memchr::memmem;

use super::watch::Files;

/// A file's name for messages, and its bytes.
pub type Named = (String, Vec<u8>);

/// Reads PEM bundles: files, and directories of `*.pem`, `*.crt`, `*.cer` and OpenSSL's hashed names.
///
/// # Errors
/// A sentence that names the path.
pub fn bundle(files: &mut Files, what: &str, paths: &[PathBuf]) -> Result<Vec<Named>, String> {
    let mut found = Vec::new();
    for path in paths {
        let Some(entries) = files.list(path).map_err(|error| unread(what, path, &error))? else {
            found.push(named(files, what, path)?);
            continue;
        };
        for entry in entries.iter().filter(|entry| is_certificate_name(entry) && entry.is_file()) {
            found.push(named(files, what, entry)?);
        }
    }
    Ok(found)
}

/// Reads files.
///
/// # Errors
/// A sentence that names the path.
pub fn each(files: &mut Files, what: &str, paths: &[PathBuf]) -> Result<Vec<Named>, String> {
    paths.iter().map(|path| named(files, what, path)).collect()
}

/// Reads a file.
///
/// # Errors
/// A sentence that names the path.
pub fn named(files: &mut Files, what: &str, path: &Path) -> Result<Named, String> {
    let mut bytes = files.read(path).map_err(|error| unread(what, path, &error))?;
    // Some editors begin a file with a byte order mark, and `cat` takes it into the middle; the line behind it
    // would not be seen to begin a block.
    while let Some(at) = memmem::find(&bytes, "\u{feff}-----BEGIN ".as_bytes()) {
        bytes.drain(at..at + '\u{feff}'.len_utf8());
    }
    Ok((path.display().to_string(), bytes))
}

fn unread(what: &str, path: &Path, error: &io::Error) -> String {
    let hint = match (error.kind(), std::env::current_dir()) {
        (io::ErrorKind::NotFound, Ok(here)) if path.is_relative() => {
            format!("\nhint: it was looked for in `{}`; give the whole path", here.display())
        }
        (io::ErrorKind::PermissionDenied, _) => "\nhint: let the user that this runs as read it".into(),
        _ => String::new(),
    };
    format!("{what} `{}`: {error}{hint}", path.display())
}

fn is_certificate_name(path: &Path) -> bool {
    let Some((stem, extension)) = path.file_name().and_then(|name| name.to_str()?.rsplit_once('.')) else {
        return false;
    };
    // `5ed36f99.0`, as `openssl rehash` makes it; a `ca.pem.1` that somebody put aside is none.
    let hashed = || {
        let digits = !extension.is_empty() && extension.bytes().all(|b| b.is_ascii_digit());
        digits && stem.len() == 8 && stem.bytes().all(|b| b.is_ascii_hexdigit())
    };
    ["pem", "crt", "cer"].contains(&extension) || hashed()
}
