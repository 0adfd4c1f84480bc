//! Just enough DER (X.690, section 10) to take a certificate or key apart and put it together again.
//!
//! It reads only what this package has made itself; it is not a parser for what a peer sends.

use crate::error::Error;

pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const VERSION: u8 = 0xa0;
pub(crate) const EXTENSIONS: u8 = 0xa3;

/// One element: its tag, its content, and all of its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads the single element that fills `input`.
    pub(crate) fn read(input: &'a [u8]) -> Result<Self, Error> {
        match elements(input)?.as_slice() {
            [one] => Ok(*one),
            _ => Err(Error::Der("not exactly one element")),
        }
    }

    /// The elements inside, if this one has the tag `tag`.
    pub(crate) fn inside(&self, tag: u8) -> Result<Vec<Element<'a>>, Error> {
        if self.tag != tag {
            return Err(Error::Der("another tag"));
        }
        elements(self.content)
    }
}

/// Reads elements until `input` ends.
pub(crate) fn elements(mut input: &[u8]) -> Result<Vec<Element<'_>>, Error> {
    let mut found = Vec::new();
    while !input.is_empty() {
        let (header, length) = header(input).ok_or(Error::Der("a cut length"))?;
        let whole = input.get(..header + length).ok_or(Error::Der("a cut element"))?;
        found.push(Element { tag: whole[0], content: &whole[header..], whole });
        input = &input[header + length..];
    }
    Ok(found)
}

/// Writes an element whose content is `parts`, one after the other.
pub(crate) fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    if content.len() >= 0x80 {
        out.push(0x80 | significant.len() as u8);
        out.extend_from_slice(significant);
    } else {
        out.push(content.len() as u8);
    }
    out.extend_from_slice(&content);
    out
}

/// The lengths of an element's header and content.
fn header(input: &[u8]) -> Option<(usize, usize)> {
    let first = usize::from(*input.get(1)?);
    if first < 0x80 {
        return Some((2, first));
    }
    let count = first & 0x7f;
    if count > 3 {
        return None;
    }
    let length = input.get(2..2 + count)?;
    Some((2 + count, length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for size in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1_0000] {
            let content = vec![7; size];
            let written = write(OCTET_STRING, &[&content]);
            let read = Element::read(&written).unwrap();
            assert_eq!((read.tag, read.content.len(), read.whole.len()), (4, size, written.len()));
        }
    }

    #[test]
    fn a_cut_element_is_an_error() {
        assert!(Element::read(&[0x30, 0x05, 0x01]).is_err());
        assert!(Element::read(&[0x30, 0x82, 0x01]).is_err());
        assert!(Element::read(&[]).is_err());
    }
}
