//! Where a body ends (RFC 9112 section 6.3), and a decoder without IO that finds that place in bytes as they come.
//!
//! Chunks are validated and passed on as they came; only trailer fields are read, since some of them must not pass.

use std::fmt;

use super::{
    Version,
    fields::{FieldName, FieldNames, Fields, is_token_byte},
};

/// Bytes of all trailer fields, and of one line with a chunk's size.
const LONGEST_LINE: usize = 16 * 1024;

/// The largest Content-Length and chunk. Readers that hold lengths in signed numbers take larger ones for negative.
const LONGEST_BODY: u64 = i64::MAX as u64;

/// Digits of a chunk's size, with zeros before it. RFC 9112 section 7.1 does not limit them, and readers do.
const SIZE_DIGITS: usize = 16;

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// Behind so many bytes; there is none where that is 0.
    Exact(u64),
    /// Behind the last chunk and the trailer fields.
    Chunked,
    /// With the connection; responses only.
    UntilClose,
}

impl BodyLength {
    /// Whether there is no body.
    pub fn is_empty(self) -> bool {
        self == Self::Exact(0)
    }
}

/// Why it is not clear where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// Two readers could understand it in two ways.
    Ambiguous(&'static str),
    /// A transfer coding other than a single `chunked`.
    TransferCoding,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ambiguous(why) => f.write_str(why),
            Self::TransferCoding => f.write_str("its transfer coding is not a single `chunked`"),
        }
    }
}

/// Whose body it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Request { version: Version, connect: bool },
    Response { version: Version, status: u16, to_head: bool },
}

/// The fields that decide it.
const FRAMING: FieldNames =
    FieldNames::of(&[FieldName::ContentLength, FieldName::FramingLookalike, FieldName::TransferEncoding]);

/// The length of a message's body: the only place that decides it (RFC 9112 section 6.3).
///
/// # Errors
/// [`FramingError`] where anything is doubtful.
pub fn message_length(message: Message, fields: &Fields) -> Result<BodyLength, FramingError> {
    use FramingError::Ambiguous;
    let (mut length, mut chunked) = (None, false);
    let lines = fields.may_have(FRAMING).then(|| fields.iter());
    for field in lines.into_iter().flatten() {
        match field.name {
            FieldName::ContentLength => {
                let number = plain_number(field.value).ok_or(Ambiguous("its Content-Length is not a plain number"))?;
                if length.replace(number).is_some() {
                    return Err(Ambiguous("it has more than one Content-Length"));
                }
            }
            FieldName::TransferEncoding => {
                if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(other_coding(field.value));
                }
                chunked = true;
            }
            FieldName::FramingLookalike if matches!(message, Message::Request { .. }) => {
                return Err(Ambiguous("a field is called almost like one that says how long the body is"));
            }
            _ => {}
        }
    }
    let (Message::Request { version, .. } | Message::Response { version, .. }) = message;
    match (length, chunked) {
        (Some(_), true) => return Err(Ambiguous("it has both Content-Length and Transfer-Encoding")),
        (None, true) if version == Version::Http10 => {
            return Err(Ambiguous("Transfer-Encoding has no meaning in HTTP/1.0"));
        }
        _ => {}
    }
    match message {
        Message::Request { connect: true, .. } if chunked || length.is_some_and(|length| length > 0) => {
            // What one reader takes for its body, another takes for what passes through the tunnel (RFC 9110
            // section 9.3.6).
            Err(Ambiguous("CONNECT has no body"))
        }
        Message::Response { to_head: true, .. } | Message::Response { status: 100..=199 | 204 | 304, .. } => {
            Ok(BodyLength::Exact(0))
        }
        _ if chunked => Ok(BodyLength::Chunked),
        Message::Request { .. } => Ok(BodyLength::Exact(length.unwrap_or(0))),
        Message::Response { .. } => Ok(length.map_or(BodyLength::UntilClose, BodyLength::Exact)),
    }
}

/// A well-formed list of known codings that ends with `chunked` is not supported (RFC 9112 section 6.1); anything else
/// leaves the end of the body in doubt.
fn other_coding(value: &[u8]) -> FramingError {
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_last_chunked = codings.next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let known: [&[u8]; 5] = [b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress"];
    let mut others = codings.peekable();
    let are_known =
        others.peek().is_some() && others.all(|coding| known.iter().any(|known| coding.eq_ignore_ascii_case(known)));
    match is_last_chunked && are_known {
        true => FramingError::TransferCoding,
        false => FramingError::Ambiguous("its Transfer-Encoding is not a single `chunked`"),
    }
}

/// `0`, or digits without a zero before them: some read octal numbers.
fn plain_number(value: &[u8]) -> Option<u64> {
    let plain = value == b"0" || value.first().is_some_and(|first| *first != b'0');
    let digits = value.iter().all(u8::is_ascii_digit);
    let number = (plain && digits).then(|| str::from_utf8(value).ok()?.parse().ok()).flatten();
    number.filter(|number| *number <= LONGEST_BODY)
}

/// Finds the end of a body.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of content so far: without sizes, extensions and trailer fields.
    content: u64,
}

#[derive(Debug)]
enum State {
    Done,
    Exact(u64),
    UntilClose,
    Chunked(Box<Chunks>),
}

/// What some bytes are.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// So many bytes at the front belong to the body and are to be written as they came.
    pub pass: usize,
    /// So many more are the body's, and are replaced by `instead`.
    pub consumed: usize,
    /// Trailer fields that may pass, and the empty line behind them.
    pub instead: Vec<u8>,
}

/// A chunked body that breaks its grammar (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadChunk(pub &'static str);

impl fmt::Display for BadChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadChunk {}

impl BodyDecoder {
    /// A decoder at the start of a body.
    pub fn new(length: BodyLength) -> Self {
        let state = match length {
            BodyLength::Exact(0) => State::Done,
            BodyLength::Exact(length) => State::Exact(length),
            BodyLength::Chunked => State::Chunked(Box::default()),
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state, content: 0 }
    }

    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Whether the end of the connection is the body's end.
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.state, State::UntilClose)
    }

    /// Bytes of content so far.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// The connection has ended, and that is the body's end.
    pub fn close(&mut self) {
        if self.ends_with_connection() {
            self.state = State::Done;
        }
    }

    /// Reads bytes as they came. What is neither passed nor consumed is behind the body.
    ///
    /// # Errors
    /// [`BadChunk`]; none of these bytes is to be passed on.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<Decoded, BadChunk> {
        let mut decoded = Decoded::default();
        match &mut self.state {
            State::Done => {}
            State::UntilClose => {
                decoded.pass = bytes.len();
                self.content += bytes.len() as u64;
            }
            State::Exact(left) => {
                let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= count as u64;
                self.content += count as u64;
                decoded.pass = count;
                if *left == 0 {
                    self.state = State::Done;
                }
            }
            State::Chunked(chunks) => {
                let ended = chunks.decode(bytes, &mut decoded, &mut |_| {})?;
                self.content = chunks.content;
                if ended {
                    self.state = State::Done;
                }
            }
        }
        Ok(decoded)
    }

    /// Reads bytes of a chunked body, and appends their content alone to `out`: for recipients that do not know
    /// chunks. Gives how many bytes were the body's.
    ///
    /// # Errors
    /// [`BadChunk`]
    pub fn decode_content(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, BadChunk> {
        let State::Chunked(chunks) = &mut self.state else {
            let decoded = self.decode(bytes)?;
            out.extend_from_slice(&bytes[..decoded.pass]);
            return Ok(decoded.pass);
        };
        let mut decoded = Decoded::default();
        let ended = chunks.decode(bytes, &mut decoded, &mut |content| out.extend_from_slice(content))?;
        self.content = chunks.content;
        if ended {
            self.state = State::Done;
        }
        Ok(decoded.pass + decoded.consumed)
    }
}

/// Where a chunked body stands.
#[derive(Debug, Default)]
struct Chunks {
    at: ChunkPart,
    /// The size that is being read, and the bytes of its line.
    size: u64,
    line: usize,
    content: u64,
    /// Trailer lines as they came.
    trailers: Vec<u8>,
}

/// What the next byte is (RFC 9112 section 7.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkPart {
    /// The first digit of a size.
    #[default]
    Size,
    /// Another digit, or what is behind the size.
    SizeRest,
    /// The first byte of an extension's name.
    Name,
    NameRest,
    /// The first byte behind `=`.
    Value,
    ValueRest,
    Quoted,
    QuotedPair,
    /// `;` or CR behind a quoted value.
    AfterQuoted,
    SizeLf,
    /// So many bytes of content are left.
    Content(u64),
    ContentCr,
    ContentLf,
    /// The first byte of a trailer line, or of the empty line.
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
}

impl Chunks {
    /// Whether the body has ended.
    fn decode(
        &mut self,
        bytes: &[u8],
        decoded: &mut Decoded,
        content: &mut dyn FnMut(&[u8]),
    ) -> Result<bool, BadChunk> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let ChunkPart::Content(left) = self.at {
                let count = (bytes.len() - at).min(usize::try_from(left).unwrap_or(usize::MAX));
                content(&bytes[at..at + count]);
                at += count;
                decoded.pass = at;
                self.content += count as u64;
                self.at = match left - count as u64 {
                    0 => ChunkPart::ContentCr,
                    left => ChunkPart::Content(left),
                };
                continue;
            }
            at += 1;
            let was_in_trailers = !self.trailers.is_empty();
            let ended = self.at == ChunkPart::LastLf && byte == b'\n';
            self.at = self.next(byte)?;
            if was_in_trailers || self.at == ChunkPart::Trailer {
                // Held until all of them are there.
                decoded.consumed += 1;
                self.trailers.push(byte);
                if self.trailers.len() > LONGEST_LINE {
                    return Err(BadChunk("its trailer fields are too long"));
                }
            } else {
                decoded.pass = at;
            }
            if ended {
                if was_in_trailers {
                    decoded.instead = passing_trailers(&self.trailers)?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_in_size_line(&self) -> bool {
        use ChunkPart as P;
        !matches!(
            self.at,
            P::Content(_) | P::ContentCr | P::ContentLf | P::TrailerStart | P::Trailer | P::TrailerLf | P::LastLf
        )
    }

    fn next(&mut self, byte: u8) -> Result<ChunkPart, BadChunk> {
        use ChunkPart as P;
        const SIZE: BadChunk = BadChunk("a chunk's size is not well-formed");
        const LONGER: BadChunk = BadChunk("a chunk is longer than its size");
        const LONE_LF: BadChunk = BadChunk("a line of its chunked body does not end in CRLF");
        self.line += 1;
        if self.line > LONGEST_LINE && self.is_in_size_line() {
            return Err(BadChunk("a chunk's size is too long"));
        }
        Ok(match (self.at, byte) {
            (P::Size | P::SizeRest, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).ok_or(SIZE)?;
                self.size = self.size.checked_mul(16).ok_or(SIZE)? | u64::from(digit);
                if self.line > SIZE_DIGITS || self.size > LONGEST_BODY {
                    return Err(SIZE);
                }
                P::SizeRest
            }
            (P::SizeRest | P::NameRest | P::ValueRest | P::AfterQuoted, b';') => P::Name,
            (P::SizeRest | P::NameRest | P::ValueRest | P::AfterQuoted, b'\r') => P::SizeLf,
            (P::Name | P::NameRest, _) if is_token_byte(byte) => P::NameRest,
            (P::NameRest, b'=') => P::Value,
            (P::Value, b'"') => P::Quoted,
            (P::Value | P::ValueRest, _) if is_token_byte(byte) => P::ValueRest,
            (P::Quoted, b'"') => P::AfterQuoted,
            (P::Quoted, b'\\') => P::QuotedPair,
            (P::Quoted | P::QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => P::Quoted,
            (P::SizeLf, b'\n') => match std::mem::take(&mut self.size) {
                0 => P::TrailerStart,
                size => P::Content(size),
            },
            (P::ContentCr, b'\r') => P::ContentLf,
            (P::ContentLf, b'\n') => {
                self.line = 0;
                P::Size
            }
            (P::ContentCr | P::ContentLf, _) => return Err(LONGER),
            (P::TrailerStart, b'\r') => P::LastLf,
            (P::Trailer, b'\r') => P::TrailerLf,
            (P::TrailerStart | P::Trailer, b'\t' | b' '..=b'~' | 0x80..) => P::Trailer,
            (P::TrailerLf, b'\n') => P::TrailerStart,
            (P::LastLf, b'\n') => P::LastLf,
            (P::SizeLf | P::TrailerStart | P::Trailer | P::TrailerLf | P::LastLf, _) => return Err(LONE_LF),
            _ => return Err(SIZE),
        })
    }
}

/// Trailer lines that may pass, and the empty line. Fields for framing, routing, authentication and the like have no
/// meaning behind a body, and could gain one where a recipient merges them (RFC 9110 section 6.5.1).
fn passing_trailers(lines: &[u8]) -> Result<Vec<u8>, BadChunk> {
    const MALFORMED: BadChunk = BadChunk("a trailer field is not well-formed");
    let mut passing = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if line == b"\r\n" {
            passing.extend_from_slice(line);
            continue;
        }
        let name = line.split(|byte| *byte == b':').next().filter(|name| name.len() < line.len()).ok_or(MALFORMED)?;
        if name.is_empty() || !name.iter().all(|byte| is_token_byte(*byte)) {
            return Err(MALFORMED);
        }
        // Gateways to CGI and WSGI take an underscore for a hyphen.
        let name: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        let known = FieldName::of(&name);
        let may_pass = matches!(known, FieldName::Other | FieldName::Link | FieldName::RequestId);
        if may_pass && !is_forbidden_trailer(&name) {
            passing.extend_from_slice(line);
        }
    }
    Ok(passing)
}

/// Names that [`FieldName`] does not know and that must not be trailer fields.
fn is_forbidden_trailer(name: &[u8]) -> bool {
    let forbidden: [&[u8]; 7] = [
        b"cache-control",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"cookie",
        b"range",
        b"x-auth-token",
    ];
    forbidden.iter().any(|forbidden| name.eq_ignore_ascii_case(forbidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on, the content, and what is left, in one piece and byte by byte.
    fn decoded(length: BodyLength, text: &str) -> Result<(String, String, String, bool), BadChunk> {
        let mut whole = None;
        for size in [1, 3, text.len().max(1)] {
            let (mut decoder, mut plain) = (BodyDecoder::new(length), BodyDecoder::new(length));
            let (mut passed, mut content, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
            let mut failed = None;
            for piece in text.as_bytes().chunks(size) {
                waiting.extend_from_slice(piece);
                match (decoder.decode(&waiting), plain.decode_content(&waiting, &mut content)) {
                    (Ok(decoded), Ok(count)) => {
                        assert_eq!(count, decoded.pass + decoded.consumed, "{text:?}");
                        passed.extend_from_slice(&waiting[..decoded.pass]);
                        passed.extend_from_slice(&decoded.instead);
                        waiting.drain(..count);
                    }
                    (Err(error), Err(other)) => {
                        assert_eq!(error, other);
                        failed = Some(error);
                        break;
                    }
                    other => panic!("{text:?}: {other:?}"),
                }
            }
            if failed.is_none() {
                assert_eq!(decoder.content(), content.len() as u64, "{text:?}");
            }
            let text_of = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            let result = match failed {
                Some(error) => Err(error),
                None => Ok((text_of(passed), text_of(content), text_of(waiting), decoder.is_done())),
            };
            assert_eq!(*whole.get_or_insert(result.clone()), result, "{text:?} in pieces of {size}");
        }
        whole.unwrap()
    }

    #[test]
    fn the_length_of_a_request_is_read_in_one_way_or_refused() {
        use BodyLength::{Chunked, Exact};
        let request = |lines: &[(&str, &str)], connect, version| {
            message_length(Message::Request { version, connect }, &Fields::of_lines(lines))
        };
        for (lines, expected) in [
            (&[][..], Exact(0)),
            (&[("content-length", "0")], Exact(0)),
            (&[("Content-Length", "20")], Exact(20)),
            (&[("Content-Length", "9223372036854775807")], Exact(LONGEST_BODY)),
            (&[("Transfer-Encoding", "Chunked")], Chunked),
        ] {
            assert_eq!(request(lines, false, Version::Http11), Ok(expected), "{lines:?}");
        }
        for lines in [
            &[("content-length", "5"), ("transfer-encoding", "chunked")][..],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5, 5")],
            &[("content-length", "05")],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[("content-length", "9223372036854775808")],
            &[("content-length", "99999999999999999999")],
            &[("content_length", "5")],
            &[("transfer_encoding", "chunked")],
        ] {
            assert!(matches!(request(lines, false, Version::Http11), Err(FramingError::Ambiguous(_))), "{lines:?}");
        }
        let coding = |value| request(&[("transfer-encoding", value)], false, Version::Http11);
        for value in ["gzip, chunked", "Deflate,x-gzip , CHUNKED"] {
            assert_eq!(coding(value), Err(FramingError::TransferCoding), "{value}");
        }
        for value in ["gzip", "chunked, chunked", "chunked, gzip", "identity", "", ", chunked", "chunked;a", "xchunked"]
        {
            assert!(matches!(coding(value), Err(FramingError::Ambiguous(_))), "{value}");
        }
        let chunked = [("transfer-encoding", "chunked")];
        assert!(request(&chunked, false, Version::Http10).is_err());
        assert!(request(&chunked, true, Version::Http11).is_err());
        assert!(request(&[("content-length", "5")], true, Version::Http11).is_err());
        assert_eq!(request(&[("content-length", "0")], true, Version::Http11), Ok(Exact(0)));
    }

    /// The cases of RFC 9112 section 6.3, by number.
    #[test]
    fn the_length_of_a_response_follows_the_standard() {
        use BodyLength::{Chunked, Exact, UntilClose};
        let five = [("content-length", "5")];
        let chunked = [("transfer-encoding", "chunked")];
        for (status, to_head, lines, expected) in [
            (200, true, &five[..], Exact(0)), // 1
            (204, false, &five, Exact(0)),    // 1
            (304, false, &chunked, Exact(0)), // 1
            (103, false, &[], Exact(0)),      // 1
            (200, false, &chunked, Chunked),  // 4
            (200, false, &five, Exact(5)),    // 6
            (200, false, &[], UntilClose),    // 8
        ] {
            let message = Message::Response { version: Version::Http11, status, to_head };
            assert_eq!(message_length(message, &Fields::of_lines(lines)), Ok(expected), "{status} {to_head} {lines:?}");
        }
        let old = Message::Response { version: Version::Http10, status: 200, to_head: false };
        assert!(message_length(old, &Fields::of_lines(&chunked)).is_err());
        assert!(message_length(old, &Fields::of_lines(&[five[0], chunked[0]])).is_err()); // 3
    }

    #[test]
    fn bodies_end_where_their_length_says() {
        assert_eq!(
            decoded(BodyLength::Exact(5), "hellonext"),
            Ok(("hello".into(), "hello".into(), "next".into(), true))
        );
        assert_eq!(decoded(BodyLength::Exact(9), "hello"), Ok(("hello".into(), "hello".into(), "".into(), false)));
        assert_eq!(decoded(BodyLength::Exact(0), "next"), Ok(("".into(), "".into(), "next".into(), true)));
        assert_eq!(decoded(BodyLength::UntilClose, "all"), Ok(("all".into(), "all".into(), "".into(), false)));
    }

    #[test]
    fn chunks_pass_as_they_came() {
        for (text, content) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            (
                "005\r\nhello\r\n0A;a;b=c;d=\"e \\\" f\";g\r\n0123456789\r\n00\r\nX-A: b\r\ny:\r\n\r\n",
                "hello0123456789",
            ),
        ] {
            let expected = Ok((text.to_owned(), content.to_owned(), "GET /".to_owned(), true));
            assert_eq!(decoded(BodyLength::Chunked, &format!("{text}GET /")), expected, "{text:?}");
        }
    }

    #[test]
    fn trailer_fields_for_framing_and_routing_do_not_pass() {
        let text = "0\r\nContent_Length: 5\r\nA: b\r\nHost: x\r\ntransfer-encoding: chunked\r\nX-Auth-Token: t\r\n\
                    x_auth_token: t\r\nProxy_Authorization: x\r\n\r\n";
        let (passed, ..) = decoded(BodyLength::Chunked, text).unwrap();
        assert_eq!(passed, "0\r\nA: b\r\n\r\n");
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
            "8000000000000000\r\n",
            "00000000000000005\r\n",
            "1\r\nab\r\n",
            "1\r\na\n",
            "0\r\n\n",
            "0\r\nA: b\n",
            "0\r\nA\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\nA: b\0\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "5;a=\"b\"c\r\n",
            "5;a=b=c\r\n",
        ] {
            assert!(decoded(BodyLength::Chunked, body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn sizes_and_trailer_fields_are_limited() {
        let extended = |count| format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(count));
        assert!(decoded(BodyLength::Chunked, &extended(LONGEST_LINE - 4)).is_ok());
        let too_long = Err(BadChunk("a chunk's size is too long"));
        assert_eq!(decoded(BodyLength::Chunked, &extended(LONGEST_LINE - 3)), too_long);
        let trailer = format!("0\r\nA: {}\r\n\r\n", "b".repeat(LONGEST_LINE));
        let too_long = Err(BadChunk("its trailer fields are too long"));
        assert_eq!(decoded(BodyLength::Chunked, &trailer), too_long);
    }
}
