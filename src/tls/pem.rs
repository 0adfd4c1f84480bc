//! PEM (RFC 7468): the blocks of a file, or why the file is refused. Pure: bytes in, values out.
//!
//! This is the only reader of PEM. It accepts what the grammar for lax parsers (RFC 7468 section 3, figure 3) accepts
//! inside a block: a missing line break before or after a boundary, and base64 lines of any length. It is stricter
//! outside of one: whatever resembles a boundary and is not one makes the file refused, because a block that is
//! dropped silently may be the list that revokes a server. Nothing that is read is repeated in an error, since it may
//! be a private key; a label is repeated only if it looks like a label.

use std::fmt;

use data_encoding::BASE64;
use memchr::memmem;

use self::{
    boundary::{BEGIN, END, boundary, has_misspelled_boundary, known_form, resemblance, without_marks},
    encoding::not_text,
};

mod boundary;
mod encoding;
mod hint;

pub use self::{
    encoding::is_pkcs7,
    hint::{quoted, relabelled, remedy},
};

/// The label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// The label of a revocation list.
pub const X509_CRL: &str = "X509 CRL";

/// One block of a file.
pub struct Block {
    /// What stands between `-----BEGIN ` and `-----`: upper-case letters, digits and punctuation, at most 40 bytes.
    pub label: String,
    /// The line of its BEGIN boundary, from 1.
    pub line: usize,
    /// The decoded contents.
    pub der: Vec<u8>,
    /// Whether a header says that the contents are encrypted (RFC 1421 section 4.6.1.1).
    pub encrypted: bool,
}

/// Without the contents: they may be a private key.
impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({}, line {})", self.label, self.line)
    }
}

impl Block {
    /// Whether the label is that of a private key, in whatever form.
    pub fn is_private_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }
}

/// Why a file is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PemError {
    /// The line, from 1; `None` if it is about the whole file.
    pub line: Option<usize>,
    /// What is wrong.
    pub cause: Cause,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Not text but DER, or a binary container.
    Binary(Binary),
    /// Binary data in a file that has PEM blocks, too.
    BinaryAndPem,
    /// UTF-16, little-endian or big-endian.
    Utf16 {
        /// Whether the low byte comes first.
        little_endian: bool,
    },
    /// UTF-32, little-endian or big-endian.
    Utf32 {
        /// Whether the low byte comes first.
        little_endian: bool,
    },
    /// The PEM text is a string in a JSON document.
    Json,
    /// Line breaks are written as a backslash and an `n`.
    EscapedLineBreaks,
    /// The PEM text was encoded in base64 once more, as in a Kubernetes Secret.
    Base64OfPem,
    /// The same as a value among other text, as in the manifest of a Secret.
    Base64OfPemInText,
    /// A binary file was encoded in base64.
    Base64OfBinary(Binary),
    /// Base64 text of a DER structure without the boundaries of a block.
    NoBoundaries,
    /// White space before a boundary.
    Indented,
    /// Something else before a boundary.
    TextBeforeBoundary,
    /// Text after `-----END LABEL-----` that does not begin a block.
    TextAfterBoundary,
    /// Resembles a boundary, but has other dashes, letters or spaces.
    MisspelledBoundary,
    /// The END boundary has another label than the BEGIN boundary.
    OtherEnd,
    /// An END boundary without a block.
    EndWithoutBegin,
    /// A block without an END boundary.
    BeginWithoutEnd,
    /// A character in a block that base64 does not have.
    NotBase64,
    /// The base64 text of a block is cut off, or empty.
    IncompleteBase64,
    /// A block that is no private key has headers.
    Headers,
}

/// What a binary file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// An X.509 certificate.
    Certificate,
    /// A revocation list.
    Crl,
    /// A certificate request (PKCS #10).
    Request,
    /// A private key.
    PrivateKey,
    /// PKCS #7.
    Pkcs7,
    /// PKCS #12.
    Pkcs12,
    /// A Java key store.
    JavaKeyStore,
    /// Another structure in DER.
    Other,
    /// Neither text nor DER.
    Unknown,
}

/// What the caller needs of a file; hints convert to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// CERTIFICATE blocks.
    Certificates,
    /// A client certificate or its key.
    ClientIdentity,
    /// X509 CRL blocks.
    Crls,
}

/// Reads all blocks of a file.
///
/// # Errors
/// [`PemError`], if anything in the file resembles a block and is not one.
pub fn read(bytes: &[u8]) -> Result<Vec<Block>, PemError> {
    blocks(bytes).collect()
}

/// The blocks of a file in their order. The first error is the last item.
pub fn blocks(bytes: &[u8]) -> impl Iterator<Item = Result<Block, PemError>> {
    let mut lines = Lines { rest: bytes, number: 0, carried: None };
    let mut refused = not_text(bytes);
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let next = refused.take().map_or_else(|| next_block(&mut lines), Err);
        ended = !matches!(next, Ok(Some(_)));
        next.transpose()
    })
}

/// The certificates of a file that should hold nothing that could be one and is not: a chain that is presented or
/// verified. Other blocks, such as a key, are passed over.
///
/// # Errors
/// What is wrong, with a hint, if the file is not PEM or has certificates in another form.
pub fn chain(file: &str, bytes: &[u8], wanted: Wanted) -> Result<Vec<Vec<u8>>, String> {
    let mut chain = Vec::new();
    for block in blocks(bytes) {
        let block = block.map_err(|error| error.sentence(file, wanted))?;
        if block.label == CERTIFICATE && is_pkcs7(&block.der) {
            return Err(format!("line {}: the block holds PKCS #7\nhint: {}", block.line, relabelled(file)));
        } else if block.label == CERTIFICATE {
            chain.push(block.der);
        } else if let Some(remedy) = remedy(&block.label, file) {
            return Err(format!("line {}: this is a block `{}`\nhint: {remedy}", block.line, block.label));
        }
    }
    Ok(chain)
}

/// The lines of a file, ended by LF, CR LF or CR.
struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
    /// What is left of a line behind an END boundary.
    carried: Option<&'a [u8]>,
}

impl<'a> Lines<'a> {
    /// Without its line break and white space at its end.
    fn take(&mut self) -> Option<&'a [u8]> {
        if let Some(line) = self.carried.take() {
            return Some(line);
        }
        if self.rest.is_empty() {
            return None;
        }
        let end = memchr::memchr2(b'\n', b'\r', self.rest).unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        let line_break = if rest.starts_with(b"\r\n") { 2 } else { 1 };
        self.rest = rest.get(line_break..).unwrap_or_default();
        self.number += 1;
        Some(line.trim_ascii_end())
    }

    fn refuse<T>(&self, cause: Cause) -> Result<T, PemError> {
        Err(PemError { line: Some(self.number), cause })
    }
}

fn next_block(lines: &mut Lines<'_>) -> Result<Option<Block>, PemError> {
    while let Some(line) = lines.take() {
        let line = without_marks(line);
        if let Some((label, rest)) = boundary(line, BEGIN) {
            let Some(label) = known_form(label) else { return lines.refuse(Cause::MisspelledBoundary) };
            return block(lines, label, rest).map(Some);
        }
        if let Some(cause) = resemblance(line) {
            return lines.refuse(cause);
        }
    }
    Ok(None)
}

/// Reads the rest of a block. `rest` is what follows the BEGIN boundary on its line.
fn block<'a>(lines: &mut Lines<'a>, label: &str, rest: &'a [u8]) -> Result<Block, PemError> {
    let begin = lines.number;
    let mut text = Vec::new();
    let mut headers = Headers::Possible;
    let mut encrypted = false;
    let mut next = Some(rest);
    while let Some(line) = next {
        let is_boundary = memmem::find(line, b"-----").is_some();
        if !is_boundary && headers.takes(line) {
            encrypted |= memmem::find(line, b"ENCRYPTED").is_some();
        } else if let Some(dash) = memchr::memchr(b'-', line) {
            append(&mut text, &line[..dash], lines)?;
            end(lines, label, begin, &line[dash..])?;
            if matches!(headers, Headers::Inside | Headers::Ended) && !label.ends_with("PRIVATE KEY") {
                return Err(PemError { line: Some(begin), cause: Cause::Headers });
            }
            let der = BASE64.decode(&text).ok().filter(|der| !der.is_empty());
            let Some(der) = der else {
                return Err(PemError { line: Some(begin), cause: Cause::IncompleteBase64 });
            };
            return Ok(Block { label: label.to_owned(), line: begin, der, encrypted });
        } else {
            append(&mut text, line, lines)?;
        }
        next = lines.take();
    }
    Err(PemError { line: Some(begin), cause: Cause::BeginWithoutEnd })
}

/// Whether a block has headers (RFC 1421): lines with a colon before its text, ended by an empty line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Headers {
    Possible,
    Absent,
    Inside,
    Ended,
}

impl Headers {
    /// Whether the line belongs to the headers.
    fn takes(&mut self, line: &[u8]) -> bool {
        *self = match *self {
            Self::Possible if line.is_empty() => Self::Possible,
            Self::Possible if line.contains(&b':') => Self::Inside,
            Self::Possible => Self::Absent,
            Self::Inside if line.is_empty() => Self::Ended,
            state => state,
        };
        *self == Self::Inside
    }
}

/// Adds a line of base64 without its white space.
fn append(text: &mut Vec<u8>, line: &[u8], lines: &Lines<'_>) -> Result<(), PemError> {
    for byte in line.iter().filter(|byte| !byte.is_ascii_whitespace()) {
        let padding = text.last() == Some(&b'=');
        let fits = *byte == b'=' || !padding && (byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'));
        if !fits {
            let misspelled = has_misspelled_boundary(line);
            return lines.refuse(if misspelled { Cause::MisspelledBoundary } else { Cause::NotBase64 });
        }
        text.push(*byte);
    }
    Ok(())
}

/// Reads an END boundary. What follows it on its line may only be the next block's BEGIN boundary.
fn end<'a>(lines: &mut Lines<'a>, label: &str, begin: usize, line: &'a [u8]) -> Result<(), PemError> {
    let Some((of, rest)) = boundary(line, END) else {
        if boundary(line, BEGIN).is_some() {
            return Err(PemError { line: Some(begin), cause: Cause::BeginWithoutEnd });
        }
        return lines.refuse(Cause::MisspelledBoundary);
    };
    if of != label.as_bytes() {
        return lines.refuse(Cause::OtherEnd);
    }
    let rest = without_marks(rest.trim_ascii_start());
    match rest {
        [] => Ok(()),
        rest if boundary(rest, BEGIN).is_some() => {
            lines.carried = Some(rest);
            Ok(())
        }
        rest if resemblance(rest).is_some() || rest.starts_with(b"-") => lines.refuse(Cause::MisspelledBoundary),
        _ => lines.refuse(Cause::TextAfterBoundary),
    }
}

#[cfg(test)]
mod tests;
