//! File names as flags and variables give them: without a line break at the end, with commas, and never the contents
//! of a file in place of its name.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use crate::text::show_value;

use super::contents;

/// A file name without the line breaks at its end, which `$(…)` would have removed and a Secret or an `.env` file keeps.
pub fn trimmed(value: impl Into<OsString>) -> PathBuf {
    let mut bytes = value.into().into_vec();
    while bytes.pop_if(|byte| matches!(byte, b'\n' | b'\r')).is_some() {}
    PathBuf::from(OsString::from_vec(bytes))
}

/// The file names of a flag or variable that was split at commas. A comma that belongs to a name is written `\,`.
pub fn list(parts: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = Vec::new();
    let mut unfinished = None::<Vec<u8>>;
    for part in parts {
        let mut bytes = unfinished.take().unwrap_or_default();
        bytes.extend(trimmed(part).into_os_string().into_vec());
        if bytes.pop_if(|byte| *byte == b'\\').is_some() {
            bytes.push(b',');
            unfinished = Some(bytes);
        } else {
            names.push(OsString::from_vec(bytes).into());
        }
    }
    // There was no comma behind the last backslash.
    names.extend(unfinished.map(|mut bytes| {
        bytes.pop();
        bytes.push(b'\\');
        PathBuf::from(OsString::from_vec(bytes))
    }));
    names
}

/// Refuses a value that is the contents of a file. It may be a private key, so it is not shown.
///
/// # Errors
/// A sentence that names the setting.
pub fn is_name(what: &str, path: &Path) -> Result<(), String> {
    contents::problem(what, path).map_or(Ok(()), Err)
}

/// What to do about a file that cannot be read; `others` are the names that were given with it.
pub fn hint(path: &Path, error: &io::Error, others: &[PathBuf]) -> Option<String> {
    match error.kind() {
        io::ErrorKind::NotFound if is_quoted(path.as_os_str()) => Some(
            "the value has quotes in it, which are no part of the name; `docker run --env-file` keeps them, so write it without".into(),
        ),
        io::ErrorKind::NotFound if is_part(path, others) => {
            Some("names are separated by commas; a comma in a name is written `\\,`".into())
        }
        io::ErrorKind::NotFound if path.is_relative() => {
            let here = std::env::current_dir().ok()?;
            Some(format!("it was looked for in `{}`; give the whole path", here.display()))
        }
        io::ErrorKind::IsADirectory => Some("this setting takes files, not directories; name each file".into()),
        io::ErrorKind::NotADirectory => path.ancestors().find(|path| path.is_file()).map(|file| {
            format!("`{}` is a file, not a directory, so there is nothing below it", show_value(file))
        }),
        io::ErrorKind::PermissionDenied => Some(match closed(path) {
            Some(directory) => format!("let the user that this runs as search the directory `{}`", show_value(directory)),
            None => "let the user that this runs as read it".into(),
        }),
        _ => None,
    }
}

/// The directory that keeps this user from even seeing what is at a path.
fn closed(path: &Path) -> Option<&Path> {
    path.ancestors().find(|path| path.metadata().is_ok()).filter(|found| *found != path)
}

fn is_quoted(name: &OsStr) -> bool {
    let is_quote = |byte: Option<&u8>| matches!(byte, Some(b'"' | b'\''));
    is_quote(name.as_bytes().first()) || is_quote(name.as_bytes().last())
}

/// Whether the name of an existing file was cut in two at a comma.
fn is_part(path: &Path, others: &[PathBuf]) -> bool {
    let whole = |pair: &[PathBuf]| {
        let mut whole = pair[0].clone().into_os_string();
        whole.push(",");
        whole.push(&pair[1]);
        Path::new(&whole).exists()
    };
    others.windows(2).any(|pair| pair.iter().any(|part| part == path) && whole(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_at_the_end_of_a_name_are_removed() {
        for value in ["/ca.pem", "/ca.pem\n", "/ca.pem\r\n", "/ca.pem\n\n"] {
            assert_eq!(trimmed(value), Path::new("/ca.pem"));
        }
        assert_eq!(trimmed("\n"), Path::new(""));
    }

    #[test]
    fn a_backslash_keeps_a_comma_in_a_name() {
        for (value, names) in [
            ("a", &["a"][..]),
            ("a,b", &["a", "b"]),
            (r"a\,b", &["a,b"]),
            (r"x,a\,b\,c,y", &["x", "a,b,c", "y"]),
            (r"a\", &[r"a\"]),
            ("a,b\n", &["a", "b"]),
        ] {
            let parts = value.split(',').map(PathBuf::from).collect();
            assert_eq!(list(parts), names.iter().map(PathBuf::from).collect::<Vec<_>>(), "{value}");
        }
    }
}
