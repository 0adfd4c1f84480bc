//! Watches a client's bytes for framing that two readers could understand in two ways (RFC 9112 sections 6 and 7).
//!
//! hyper reads the messages and decides where they end; the upstream is sent its reading, framed anew. But it takes
//! more than the grammar has, and drops what it takes: whoever sends that means another reader than us. So here is
//! refused, before hyper has seen all of it:
//!
//! - Content-Length with Transfer-Encoding, a second Content-Length, and one that is not written as `0` or as digits
//!   without a zero before them: some read octal numbers;
//! - both under their other names: gateways to CGI and WSGI take `Content_Length` for `Content-Length`;
//! - a chunk's size with anything but well-formed extensions behind it, spaces included; and, within a chunked body,
//!   a line that ends with a lone LF;
//! - a CONNECT with a body: what one takes for that, another takes for what goes through the tunnel.
//!
//! The rest is left to hyper, and to [`super::fields`] what may stand in Transfer-Encoding.

use std::fmt;

use memchr::memchr;

use super::target;

/// Bytes of the line with a chunk's size. hyper has limits of its own for every other line, and for extensions, but
/// takes zeros before a size without end.
const LONGEST_SIZE: usize = 16 * 1024;

/// Where a client's bytes stand.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    head: Head,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Requests that have begun.
    requests: u64,
    bare: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before a request, or in its head.
    #[default]
    Head,
    /// In a body, or in the data of a chunk; so many bytes are left.
    Length(u64),
    Data(u64),
    DataEnd,
    Size,
    Trailers,
    /// What comes is not for us to read.
    Off,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    connect: bool,
    length: Option<u64>,
    coding: Option<Coding>,
}

#[derive(Clone, Copy, Debug)]
enum Coding {
    Chunked,
    Other,
}

/// Framing that is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous {
    /// How many of the bytes go before it; without the others, no reader finds the end of the head or chunk.
    pub at: usize,
    /// Whether it is a head's, and no request has begun that could be answered.
    pub in_head: bool,
    why: &'static str,
}

impl fmt::Display for Ambiguous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.why)
    }
}

impl std::error::Error for Ambiguous {}

impl Framing {
    /// Of bytes that are not HTTP.
    pub fn off() -> Self {
        Self { state: State::Off, ..Self::default() }
    }

    /// Which of the requests that have begun since this was asked last, counted from 1, have a target without a path.
    pub fn bare_targets(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.bare)
    }

    /// Looks at bytes as they come.
    ///
    /// # Errors
    /// [`Ambiguous`]
    pub fn watch(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.state {
                State::Off => rest.len(),
                State::Length(left) => self.skip(rest, left, State::Length, State::Head),
                State::Data(left) => self.skip(rest, left, State::Data, State::DataEnd),
                State::Head | State::DataEnd | State::Size | State::Trailers => {
                    let end = memchr(b'\n', rest);
                    let in_head = matches!(self.state, State::Head);
                    let length = self.line.len() + end.unwrap_or(rest.len());
                    if matches!(self.state, State::Size) && length > LONGEST_SIZE {
                        let at = at + LONGEST_SIZE.saturating_sub(self.line.len());
                        return Err(Ambiguous { at, in_head, why: "a chunk's size is too long" });
                    }
                    let Some(end) = end else {
                        self.line.extend_from_slice(rest);
                        return Ok(());
                    };
                    let refuse = |why| Ambiguous { at: at + end, in_head, why };
                    if self.line.is_empty() {
                        self.line(&rest[..end]).map_err(refuse)?;
                    } else {
                        let mut line = std::mem::take(&mut self.line);
                        line.extend_from_slice(&rest[..end]);
                        self.line(&line).map_err(refuse)?;
                    }
                    end + 1
                }
            };
        }
        Ok(())
    }

    /// Whether a head has begun and is not over.
    pub fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head) && (self.head.begun || !self.line.is_empty())
    }

    fn skip(&mut self, rest: &[u8], left: u64, again: fn(u64) -> State, then: State) -> usize {
        let count = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.state = match left - count as u64 {
            0 => then,
            left => again(left),
        };
        count
    }

    /// A line without its LF.
    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let whole = line.strip_suffix(b"\r");
        // RFC 9112 section 2.2 lets a lone LF end a line, of a head that is.
        let Some(line) = whole.or(matches!(self.state, State::Head).then_some(line)) else {
            return Err("a line of its chunked body ends with a lone LF");
        };
        self.state = match self.state {
            State::Head if line.is_empty() && !self.head.begun => State::Head,
            State::Head if !self.head.begun => {
                self.requests += 1;
                if target::is_bare_options(line) {
                    self.bare.push(self.requests);
                }
                self.head.begin(line);
                State::Head
            }
            State::Head if !line.is_empty() => return self.head.line(line),
            State::Head => std::mem::take(&mut self.head).body()?,
            State::DataEnd if line.is_empty() => State::Size,
            State::Size => match chunk_size(line).ok_or("a chunk's size is not well-formed")? {
                0 => State::Trailers,
                size => State::Data(size),
            },
            State::Trailers if line.is_empty() => State::Head,
            State::Trailers => State::Trailers,
            State::DataEnd | State::Data(_) | State::Length(_) | State::Off => {
                return Err("a chunk is longer than its size");
            }
        };
        Ok(())
    }
}

impl Head {
    fn begin(&mut self, line: &[u8]) {
        self.begun = true;
        self.connect = line.starts_with(b"CONNECT ");
    }

    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if is_known_as(name, b"content-length") {
            let length = plain_number(value).ok_or("its Content-Length is not a plain number")?;
            if self.length.replace(length).is_some() {
                return Err("it has more than one Content-Length");
            }
        } else if is_known_as(name, b"transfer-encoding") {
            let alone = self.coding.is_none() && value.eq_ignore_ascii_case(b"chunked");
            self.coding = Some(if alone { Coding::Chunked } else { Coding::Other });
        } else {
            return Ok(());
        }
        if name.contains(&b'_') {
            return Err("a field is called almost like one that says how long the body is");
        }
        Ok(())
    }

    fn body(self) -> Result<State, &'static str> {
        match (self.length, self.coding) {
            (Some(_), Some(_)) => Err("it has both Content-Length and Transfer-Encoding"),
            (None | Some(0), None) => Ok(State::Head),
            // RFC 9110 section 9.3.6.
            _ if self.connect => Err("CONNECT has no body"),
            (Some(length), None) => Ok(State::Length(length)),
            (None, Some(Coding::Chunked)) => Ok(State::Size),
            (None, Some(Coding::Other)) => Ok(State::Off),
        }
    }
}

/// Whether a field has this name, or one that a gateway takes for it.
fn is_known_as(name: &[u8], known: &[u8]) -> bool {
    let same = |(byte, known): (&u8, &u8)| byte.eq_ignore_ascii_case(known) || (*byte, *known) == (b'_', b'-');
    name.len() == known.len() && name.iter().zip(known).all(same)
}

fn plain_number(value: &[u8]) -> Option<u64> {
    let plain = value == b"0" || value.first().is_some_and(|first| *first != b'0');
    let digits = value.iter().all(u8::is_ascii_digit);
    (plain && digits).then(|| str::from_utf8(value).ok()?.parse().ok()).flatten()
}

/// `chunk-size [ chunk-ext ]` of RFC 9112 section 7.1, without its "bad whitespace".
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at(digits);
    let size = u64::from_str_radix(str::from_utf8(size).ok()?, 16).ok()?;
    are_extensions(extensions).then_some(size)
}

/// `*( ";" token [ "=" ( token / quoted-string ) ] )`
fn are_extensions(mut rest: &[u8]) -> bool {
    while let [b';', after @ ..] = rest {
        let Some(after) = skip_token(after) else { return false };
        rest = after;
        if let [b'=', after @ ..] = rest {
            let Some(after) = skip_quoted(after).or_else(|| skip_token(after)) else { return false };
            rest = after;
        }
    }
    rest.is_empty()
}

/// RFC 9110 section 5.6.2.
fn skip_token(text: &[u8]) -> Option<&[u8]> {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    match text.iter().take_while(is_part).count() {
        0 => None,
        count => text.get(count..),
    }
}

/// RFC 9110 section 5.6.4.
fn skip_quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'\t' | b' '..=b'~' | 0x80.., after @ ..] | [b'\t' | b' '..=b'~' | 0x80.., after @ ..] => after,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    const NEXT: &str = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 00\r\n";

    /// In one piece and byte by byte, it is the same; None where all of it passes.
    fn refused(text: &str) -> Option<&'static str> {
        let whole = Framing::default().watch(text.as_bytes()).err();
        let mut framing = Framing::default();
        let first = text.bytes().enumerate().find_map(|(n, byte)| Some((n, framing.watch(&[byte]).err()?)));
        assert_eq!(whole.map(|whole| (whole.at, whole.why)), first.map(|(at, error)| (at, error.why)), "{text:?}");
        whole.map(|whole| whole.why)
    }

    #[test]
    fn what_the_grammar_has_passes_and_the_next_request_is_found() {
        for text in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\nHost: a\n\n",
            "POST / HTTP/1.1\r\ncontent-length:\t5 \r\n\r\nhello",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 20\r\n\r\nContent-Length: 00\r\n",
            &format!("{CHUNKED}0\r\n\r\n"),
            &format!("{CHUNKED}005\r\nhello\r\n0A;a;b=c;d=\"e \\\" f\"\r\n0123456789\r\n0\r\nX-A: b\r\n\r\n"),
            &CHUNKED.replace("chunked", "Chunked").replace("Enc", "enc").replace("\r\n\r\n", "\r\n\r\n0\r\n\r\n"),
        ] {
            assert_eq!(refused(text), None, "{text:?}");
            assert_eq!(refused(&format!("{text}{NEXT}")), Some("its Content-Length is not a plain number"), "{text:?}");
        }
    }

    #[test]
    fn lengths_that_contradict_or_are_odd_are_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: 05",
            "Content-Length: +5",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Content_Length: 5",
            "transfer_encoding: chunked",
        ] {
            assert!(refused(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")).is_some(), "{fields}");
        }
    }

    #[test]
    fn what_is_behind_connect_is_no_body() {
        const CONNECT: &str = "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n";
        for fields in ["", "Content-Length: 0\r\n"] {
            let text = format!("{CONNECT}{fields}\r\n{NEXT}");
            assert_eq!(refused(&text), Some("its Content-Length is not a plain number"), "{fields}");
        }
        for fields in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            assert_eq!(refused(&format!("{CONNECT}{fields}\r\n\r\n")), Some("CONNECT has no body"), "{fields}");
        }
    }

    #[test]
    fn chunks_that_are_not_well_formed_are_refused() {
        for body in [
            "5 \r\n",
            " 5\r\n",
            "5;\r\n",
            "5;a b\r\n",
            "5;a=\r\n",
            "5;a=\"b\r\n",
            "5;bad[=x\r\n",
            "5;\0\r\n",
            "5;a\rX\r\n",
            "5;\n",
            "5\n",
            "\r\n",
            "0x5\r\n",
            "-1\r\n",
            "+5\r\n",
            "1_0\r\n",
            "FFFFFFFFFFFFFFFF0\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "0\r\n\n",
            "0\r\nA: b\n",
        ] {
            assert!(refused(&format!("{CHUNKED}{body}")).is_some(), "{body:?}");
        }
    }

    #[test]
    fn a_chunks_size_is_not_kept_without_end() {
        let size = |zeros| format!("{CHUNKED}{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(zeros));
        assert_eq!(refused(&size(LONGEST_SIZE - 2)), None);
        assert_eq!(refused(&size(LONGEST_SIZE - 1)), Some("a chunk's size is too long"));
        let mut framing = Framing::default();
        framing.watch(CHUNKED.as_bytes()).unwrap();
        let end = (0..100).find_map(|_| framing.watch(&[b'0'; 1024]).err());
        assert_eq!(end.map(|refused| refused.why), Some("a chunk's size is too long"));
        assert!(framing.line.len() <= LONGEST_SIZE);
    }

    #[test]
    fn nothing_is_held_back_but_the_end_of_the_line() {
        let text = "POST / HTTP/1.1\r\nContent-Length: 05\r\n\r\n";
        assert_eq!(Framing::default().watch(text.as_bytes()).unwrap_err().at, text.find("05").unwrap() + 3);
    }

    #[test]
    fn targets_without_a_path_are_found_wherever_they_stand() {
        let text = format!("\r\nOPTIONS http://a HTTP/1.1\r\n\r\n{CHUNKED}0\r\n\r\nOPTIONS http://a HTTP/1.1\r\n");
        for size in [1, 7, text.len()] {
            let mut framing = Framing::default();
            let found = text.as_bytes().chunks(size).flat_map(|bytes| {
                framing.watch(bytes).unwrap();
                framing.bare_targets()
            });
            assert_eq!(found.collect::<Vec<_>>(), [1, 3], "{size}");
        }
    }

    #[test]
    fn a_coding_that_is_refused_elsewhere_is_not_read_here() {
        assert_eq!(refused(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5;;\r\n{NEXT}")), None);
    }
}
