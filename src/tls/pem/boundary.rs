//! BEGIN and END boundaries, and what resembles one.

use memchr::memmem;

use super::{CERTIFICATE, Cause, X509_CRL};

pub(super) const BEGIN: &[u8] = b"-----BEGIN ";
pub(super) const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// The label of a boundary that the line begins with, and what follows it.
pub(super) fn boundary<'a>(line: &'a [u8], opening: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let rest = line.strip_prefix(opening)?;
    let end = memmem::find(rest, DASHES)?;
    Some((&rest[..end], &rest[end + DASHES.len()..]))
}

/// The label, if it has the form that labels have in practice. Other text may be a key that was joined to one line.
pub(super) fn known_form(label: &[u8]) -> Option<&str> {
    let fits = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" #.".contains(byte);
    let trimmed = !label.is_empty() && label.trim_ascii() == label && label.len() <= 40;
    if trimmed && label.iter().all(fits) { str::from_utf8(label).ok() } else { None }
}

/// Without byte order marks: some editors begin a file with one, and `cat` takes it into the middle of another.
pub(super) fn without_marks(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = line.strip_prefix("\u{feff}".as_bytes()) {
        line = rest;
    }
    line
}

/// What is wrong with a line outside of a block, if it resembles a part of one.
pub(super) fn resemblance(line: &[u8]) -> Option<Cause> {
    let inner = line.trim_ascii_start();
    if boundary(inner, END).is_some() && inner.len() == line.len() {
        return Some(Cause::EndWithoutBegin);
    }
    let at = [BEGIN, END].iter().filter_map(|opening| memmem::find(line, opening)).min();
    if let Some(at) = at
        && at > 0
        && line[at - 1] != b'-'
    {
        return Some(if line.len() - inner.len() == at { Cause::Indented } else { Cause::TextBeforeBoundary });
    }
    if has_misspelled_boundary(line) {
        return Some(Cause::MisspelledBoundary);
    }
    // The first octets of every DER structure of 128 octets or more, as base64, on a line of some length.
    let is_base64 = || inner.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    (inner.len() >= 48 && inner.starts_with(b"MI") && is_base64()).then_some(Cause::NoBoundaries)
}

/// Whether the line has BEGIN or END, next to dashes of any kind or with a label of PEM, but is no boundary.
pub(super) fn has_misspelled_boundary(line: &[u8]) -> bool {
    if [&b"-----BEGIN"[..], b"-----END"].iter().any(|opening| memmem::find(line, opening).is_some()) {
        return true;
    }
    let might = |word: &[u8; 3]| line.windows(3).any(|window| window.eq_ignore_ascii_case(word));
    if !might(b"gin") && !might(b"end") {
        return false;
    }
    let text = String::from_utf8_lossy(line).to_uppercase();
    let places = ["BEGIN", "END"].into_iter().flat_map(|word| text.match_indices(word));
    places.into_iter().any(|(at, word)| is_misspelled_boundary(&text[..at], &text[at + word.len()..]))
}

/// Whether BEGIN or END in upper-case text, with what is before and after it, looks like a part of a boundary.
fn is_misspelled_boundary(before: &str, after: &str) -> bool {
    let label_end = after.find(is_dash).unwrap_or(after.len());
    let (label, behind) = after.split_at(label_end);
    if before.ends_with(char::is_alphanumeric) || !label.starts_with(char::is_whitespace) {
        return false;
    }
    let has_noun = label.split_whitespace().next_back().is_some_and(|last| NOUNS.contains(&last));
    let dashed = is_dashed(before.trim_end().chars().rev()) || is_dashed(behind.chars());
    let alone = before.trim().is_empty() && behind.is_empty();
    has_noun && dashed || alone && LABELS.contains(&label.trim())
}

/// Whether the text begins with two dashes, or with one that a keyboard does not have.
fn is_dashed(mut text: impl Iterator<Item = char>) -> bool {
    let first = text.next();
    first.is_some_and(is_dash) && (first != Some('-') || text.next().is_some_and(is_dash))
}

/// Hyphen-minus, and what word processors and chats make of it.
fn is_dash(c: char) -> bool {
    matches!(c, '-' | '\u{ad}' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}')
}

/// The last words of labels.
const NOUNS: [&str; 9] = ["CERTIFICATE", "CERTIFICATES", "CRL", "KEY", "PARAMETERS", "REQUEST", "PKCS7", "CMS", "DATA"];

/// Labels that are recognised without their dashes.
const LABELS: [&str; 8] = [
    CERTIFICATE,
    "TRUSTED CERTIFICATE",
    "X509 CERTIFICATE",
    X509_CRL,
    "PRIVATE KEY",
    "RSA PRIVATE KEY",
    "EC PRIVATE KEY",
    "ENCRYPTED PRIVATE KEY",
];
