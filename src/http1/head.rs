//! Heads of requests and responses: one strict reading, and every refusal in one place (RFC 9112 sections 2 to 6).
//!
//! [httparse] reads the lines. What it tolerates and other readers may take differently is refused or normalized
//! here: lone LF at the end of a line and folded lines of responses become CRLF and a space. Stricter than RFC 9112:
//! equal Content-Lengths of a request, zeros before one, and any coding but a single `chunked` are refused. Laxer:
//! equal Content-Lengths of a response count as one (section 6.3 permits it), since servers of 2012 send them.

use std::{fmt, mem::MaybeUninit, ops::Range};

use memchr::memchr_iter;

use super::{
    Version,
    body::{BodyLength, FramingError, Message, message_length},
    fields::{FieldName, Fields, ParsedLines, is_token_byte},
};

/// Limits on one head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, with the start line and the empty line.
    pub bytes: usize,
    /// Field lines.
    pub fields: usize,
}

/// Why a head is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// Where its body ends is not clear.
    Framing(FramingError),
    /// A field name of a response that is not a token, shortened.
    OddFieldName(String),
    /// It is not a head of HTTP/1.
    Syntax(&'static str),
    /// It begins like a TLS handshake (RFC 8446 section 5.1).
    TlsHandshake,
    /// It has more bytes than the limit.
    TooLarge,
    /// It has more field lines than the limit.
    TooManyFields,
}

impl fmt::Display for HeadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Framing(error) => error.fmt(f),
            Self::OddFieldName(name) => write!(f, "`{name}` is not a field name"),
            Self::Syntax(why) => f.write_str(why),
            Self::TlsHandshake => {
                f.write_str("a TLS handshake came to a listener for plain HTTP; use `http://` to reach it")
            }
            Self::TooLarge => f.write_str("it has too many bytes"),
            Self::TooManyFields => f.write_str("it has too many field lines"),
        }
    }
}

impl std::error::Error for HeadError {}

/// How far a head that came in pieces was searched for its end, so that no byte is searched twice.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScan {
    searched: usize,
}

impl HeadScan {
    /// Whether it is worth parsing: at the first bytes, which mostly are a whole head and, if they are not HTTP,
    /// show it; and then not before the empty line is there.
    fn is_due(&mut self, bytes: &[u8]) -> bool {
        let from = self.searched.saturating_sub(3);
        let first = self.searched == 0;
        self.searched = bytes.len();
        first || memchr_iter(b'\n', &bytes[from..]).any(|at| ends_head(&bytes[from + at + 1..]))
    }
}

/// Whether an empty line follows the end of a line.
fn ends_head(rest: &[u8]) -> bool {
    rest.starts_with(b"\r\n") || rest.starts_with(b"\n")
}

/// As many lines are parsed on the stack; a head with more is parsed again on the heap.
const ON_STACK: usize = 64;

/// Bytes of empty lines that are ignored before a request.
const MOST_EMPTY: usize = 16;

/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// A request's head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub version: Version,
    pub fields: Fields,
    /// Where its body ends.
    pub length: BodyLength,
    method: Range<usize>,
    target: Range<usize>,
}

impl RequestHead {
    /// Reads a head at the front of what came, into `space`; `None` until all of it is there. With how many bytes it
    /// had.
    ///
    /// # Errors
    /// [`HeadError`]; nothing behind it can be read then.
    pub fn read(
        bytes: &[u8],
        scan: &mut HeadScan,
        limits: HeadLimits,
        space: &mut Vec<u8>,
    ) -> Result<Option<(Self, usize)>, HeadError> {
        let empty_lines = empty_lines(bytes)?;
        let bytes = &bytes[empty_lines..];
        if bytes.is_empty() {
            return Ok(None);
        }
        if !scan.is_due(bytes) {
            return within(bytes, limits);
        }
        let mut on_stack = [MaybeUninit::uninit(); ON_STACK];
        let room = limits.fields.min(ON_STACK);
        let parsed = match Self::parse(bytes, &mut on_stack[..room]) {
            Err(HeadError::TooManyFields) if limits.fields > room => Self::parse(bytes, &mut on_heap(limits.fields)),
            Err(_) if is_odd_line(request_line(bytes)) => {
                Self::parse(&with_plain_line(bytes), &mut on_heap(limits.fields))
            }
            parsed => parsed,
        };
        let Some((size, parsed)) = parsed? else { return within(bytes, limits) };
        if size > limits.bytes {
            return Err(HeadError::TooLarge);
        }
        *scan = HeadScan::default();
        let Parsed { version, method, target, lines } = parsed;
        let fields = Fields::of(copied(&bytes[..size], space), lines);
        let connect = &fields.text()[method.clone()] == b"CONNECT";
        let length = message_length(Message::Request { version, connect }, &fields).map_err(HeadError::Framing)?;
        Ok(Some((Self { version, fields, length, method, target }, empty_lines + size)))
    }

    fn parse<'b>(
        bytes: &'b [u8],
        room: &mut [MaybeUninit<httparse::Header<'b>>],
    ) -> Result<Option<(usize, Parsed)>, HeadError> {
        let mut request = httparse::Request::new(&mut []);
        let length = match request.parse_with_uninit_headers(bytes, room) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) if bytes.first() == Some(&TLS_HANDSHAKE) => return Err(HeadError::TlsHandshake),
            Err(error) => return Err(syntax(error)),
        };
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
            return Err(HeadError::Syntax("the request line is incomplete"));
        };
        let range = |part: &str| {
            let start = part.as_ptr().addr() - bytes.as_ptr().addr();
            start..start + part.len()
        };
        let lines = ParsedLines::find(&bytes[..length], request.headers);
        let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        Ok(Some((length, Parsed { version, method: range(method), target: range(target), lines })))
    }

    /// The method, a token in its own case (RFC 9110 section 9.1).
    pub fn method(&self) -> &str {
        match &self.fields.text()[self.method.clone()] {
            // Asked for several times for each request, so that the usual ones are not validated again.
            b"GET" => "GET",
            b"HEAD" => "HEAD",
            b"POST" => "POST",
            b"PUT" => "PUT",
            // A token is ASCII.
            method => str::from_utf8(method).unwrap_or_default(),
        }
    }

    /// The request target as it came (RFC 9112 section 3.2): any byte but controls and spaces.
    pub fn target(&self) -> &[u8] {
        &self.fields.text()[self.target.clone()]
    }

    /// Whether the client keeps the connection open behind this request (RFC 9112 section 9.3).
    pub fn keeps_alive(&self) -> bool {
        match self.version {
            Version::Http11 => !self.asks_to_close(),
            Version::Http10 => !self.asks_to_close() && self.fields.has_token(FieldName::Connection, "keep-alive"),
        }
    }

    /// Whether the client said that it sends nothing behind this request (RFC 9112 section 9.6).
    pub fn asks_to_close(&self) -> bool {
        self.fields.has_token(FieldName::Connection, "close")
    }
}

struct Parsed {
    version: Version,
    method: Range<usize>,
    target: Range<usize>,
    lines: ParsedLines,
}

/// A response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
    pub fields: Fields,
    /// Where its body ends.
    pub length: BodyLength,
    reason: Range<usize>,
}

impl ResponseHead {
    /// Reads a head at the front of what came; `None` until all of it is there. With how many bytes it had. `to_head`:
    /// the request was HEAD.
    ///
    /// # Errors
    /// [`HeadError`]; nothing behind it can be read then.
    pub fn read(
        bytes: &[u8],
        scan: &mut HeadScan,
        limits: HeadLimits,
        to_head: bool,
    ) -> Result<Option<(Self, usize)>, HeadError> {
        match bytes.first() {
            None => return Ok(None),
            // httparse ignores them. Only a request may follow empty lines (RFC 9112 section 2.2).
            Some(b'\r' | b'\n') => return Err(HeadError::Syntax("it does not begin with a status line")),
            Some(_) => {}
        }
        if !scan.is_due(bytes) {
            return within(bytes, limits);
        }
        let mut on_stack = [MaybeUninit::uninit(); ON_STACK];
        let room = limits.fields.min(ON_STACK);
        let parsed = match Self::parse(bytes, &mut on_stack[..room]) {
            Err(HeadError::TooManyFields) if limits.fields > room => Self::parse(bytes, &mut on_heap(limits.fields)),
            parsed => parsed,
        };
        let Some((size, (version, status, reason, lines))) = parsed? else { return within(bytes, limits) };
        if size > limits.bytes {
            return Err(HeadError::TooLarge);
        }
        *scan = HeadScan::default();
        let mut fields = Fields::of(copied(&bytes[..size], &mut Vec::new()), lines);
        merge_equal_lengths(&mut fields);
        let message = Message::Response { version, status, to_head };
        let length = message_length(message, &fields).map_err(HeadError::Framing)?;
        Ok(Some((Self { version, status, fields, length, reason }, size)))
    }

    #[expect(clippy::type_complexity, reason = "the parts of one head, taken apart at once")]
    fn parse<'b>(
        bytes: &'b [u8],
        room: &mut [MaybeUninit<httparse::Header<'b>>],
    ) -> Result<Option<(usize, (Version, u16, Range<usize>, ParsedLines))>, HeadError> {
        let mut response = httparse::Response::new(&mut []);
        let mut config = httparse::ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(true);
        let length = match config.parse_response_with_uninit_headers(&mut response, bytes, room) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::HeaderName) => return Err(odd_field_name(bytes)),
            Err(error) => return Err(syntax(error)),
        };
        let (Some(status @ 100..), Some(minor)) = (response.code, response.version) else {
            return Err(HeadError::Syntax("its status is not within 100-999"));
        };
        let head = &bytes[..length];
        let lines = ParsedLines::find(head, response.headers).with_folds(head);
        let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
        Ok(Some((length, (version, status, reason(head), lines))))
    }

    /// The reason phrase as it came, perhaps empty.
    pub fn reason(&self) -> &[u8] {
        &self.fields.text()[self.reason.clone()]
    }

    /// Whether the upstream keeps the connection open behind this response (RFC 9112 section 9.3).
    pub fn keeps_alive(&self) -> bool {
        let closes = self.fields.has_token(FieldName::Connection, "close");
        match self.version {
            Version::Http11 => !closes,
            Version::Http10 => !closes && self.fields.has_token(FieldName::Connection, "keep-alive"),
        }
    }

    /// Whether another response follows this one (RFC 9110 section 15.2).
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }
}

/// Where the reason phrase is: httparse empties one that is not ASCII, and it is to pass as it came.
fn reason(head: &[u8]) -> Range<usize> {
    // `HTTP/1.1 200 Reason`
    const START: usize = 13;
    let end =
        memchr::memchr(b'\n', head).map_or(head.len(), |end| if head[..end].ends_with(b"\r") { end - 1 } else { end });
    START.min(end)..end
}

/// Equal Content-Lengths of a response, on lines of their own or in one list, become one line.
fn merge_equal_lengths(fields: &mut Fields) {
    let Some(first) = fields.get(FieldName::ContentLength) else { return };
    let single = !first.contains(&b',') && fields.values(FieldName::ContentLength).nth(1).is_none();
    if single {
        return;
    }
    let first = first.split(|byte| *byte == b',').next().unwrap_or_default().trim_ascii().to_vec();
    let equal = fields
        .values(FieldName::ContentLength)
        .all(|value| value.split(|byte| *byte == b',').all(|other| other.trim_ascii() == first));
    if equal {
        fields.set(FieldName::ContentLength, b"Content-Length", &first);
    }
}

/// No more of a head than the limit is waited for.
fn within<T>(bytes: &[u8], limits: HeadLimits) -> Result<Option<T>, HeadError> {
    if bytes.len() >= limits.bytes { Err(HeadError::TooLarge) } else { Ok(None) }
}

/// Bytes of the empty lines at the front. RFC 9112 section 2.2 wants them ignored, and at least one of them; without
/// a limit they would be a head that no limit ends.
pub(super) fn empty_lines(bytes: &[u8]) -> Result<usize, HeadError> {
    let mut empty = 0;
    while empty <= MOST_EMPTY {
        empty += match &bytes[empty..] {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => return Ok(empty),
        };
    }
    Err(HeadError::Syntax("too many empty lines come before it"))
}

/// A head in space of its own, with room for lines that the proxy adds.
fn copied(head: &[u8], space: &mut Vec<u8>) -> Vec<u8> {
    let mut text = std::mem::take(space);
    text.clear();
    text.reserve(head.len() + 256);
    text.extend_from_slice(head);
    text
}

/// Whether a request line is valid, or tolerated, though httparse does not read it: a target with bytes above ASCII's,
/// which RFC 3986 does not have, but http.client and curl send; or a later minor version (RFC 9110 section 2.5).
fn is_odd_line(line: &[u8]) -> bool {
    !line.is_ascii() || is_later_version(line)
}

fn is_later_version(line: &[u8]) -> bool {
    matches!(line.trim_ascii_end(), [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'])
}

fn request_line(bytes: &[u8]) -> &[u8] {
    &bytes[..memchr::memchr(b'\n', bytes).unwrap_or(bytes.len())]
}

/// Such a line as httparse reads it, with everything in its place: bytes above ASCII's in a target are read as another
/// byte, and a later version is read as 1.1.
fn with_plain_line(bytes: &[u8]) -> Vec<u8> {
    let mut plain = bytes.to_vec();
    let is_space = |byte: &u8| *byte == b' ';
    let line = request_line(bytes);
    if let (Some(start), Some(end)) = (line.iter().position(is_space), line.iter().rposition(is_space)) {
        plain[start..end].iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'x');
    }
    if is_later_version(line) {
        plain[line.trim_ascii_end().len() - 1] = b'1';
    }
    plain
}

fn on_heap<'b>(lines: usize) -> Vec<MaybeUninit<httparse::Header<'b>>> {
    std::iter::repeat_with(MaybeUninit::uninit).take(lines).collect()
}

fn syntax(error: httparse::Error) -> HeadError {
    HeadError::Syntax(match error {
        httparse::Error::TooManyHeaders => return HeadError::TooManyFields,
        httparse::Error::HeaderName => "a field name has a character that no name has",
        httparse::Error::HeaderValue => "a field value has a character that no value has",
        httparse::Error::NewLine => "a line does not end as it should",
        httparse::Error::Status => "its status is not a number of three digits",
        httparse::Error::Token => "the request line is not `METHOD TARGET VERSION`",
        httparse::Error::Version => "its version is neither HTTP/1.0 nor HTTP/1.1",
    })
}

/// Names the line that has no field name.
fn odd_field_name(bytes: &[u8]) -> HeadError {
    let is_token = |name: &[u8]| !name.is_empty() && name.iter().all(|byte| is_token_byte(*byte));
    let lines = bytes.split(|byte| *byte == b'\n').skip(1).map(<[u8]>::trim_ascii_end);
    let mut unfolded = lines.take_while(|line| !line.is_empty()).filter(|line| !matches!(line[0], b' ' | b'\t'));
    let odd = unfolded.find_map(|line| match line.iter().position(|byte| *byte == b':') {
        Some(colon) if is_token(&line[..colon]) => None,
        Some(colon) => Some(&line[..colon]),
        None => Some(line),
    });
    let name: String = odd.unwrap_or_default().escape_ascii().map(char::from).take(60).collect();
    HeadError::OddFieldName(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 100 };

    /// In one piece and byte by byte, the result is the same; with what is left behind the head.
    fn request(text: &str) -> Result<Option<(RequestHead, String)>, HeadError> {
        let read = read(text, LIMITS);
        let (mut piece, mut scan) = (Vec::new(), HeadScan::default());
        let mut in_pieces = Ok(None);
        for byte in text.bytes() {
            piece.push(byte);
            in_pieces = RequestHead::read(&piece, &mut scan, LIMITS, &mut Vec::new());
            if !matches!(in_pieces, Ok(None)) {
                break;
            }
        }
        match (&read, &in_pieces) {
            (Ok(Some((a, at))), Ok(Some((b, same)))) => {
                assert_eq!((lines(&a.fields), at), (lines(&b.fields), same), "{text:?}");
            }
            (Err(_), Err(_)) | (Ok(None), Ok(None)) => {}
            // The first bytes are looked at at once; later ones when the empty line is there.
            (Err(_), Ok(None)) => assert!(!text.contains("\r\n\r\n"), "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
        read.map(|head| head.map(|(head, size)| (head, text[size..].to_owned())))
    }

    fn read(text: &str, limits: HeadLimits) -> Result<Option<(RequestHead, usize)>, HeadError> {
        RequestHead::read(text.as_bytes(), &mut HeadScan::default(), limits, &mut Vec::new())
    }

    fn response(text: &str) -> Result<ResponseHead, HeadError> {
        let read = ResponseHead::read(text.as_bytes(), &mut HeadScan::default(), LIMITS, false);
        read.map(|head| head.expect("a whole head").0)
    }

    fn lines(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_head_is_taken_out_and_what_is_behind_it_stays() {
        let (head, rest) =
            request("POST /a<>`\u{e9}?\"x HTTP/1.1\r\nHost:a\r\nX-Y:  b \r\ncontent-length: 2\r\n\r\nokGET /")
                .unwrap()
                .unwrap();
        assert_eq!(
            (head.method(), head.target(), head.version),
            ("POST", "/a<>`\u{e9}?\"x".as_bytes(), Version::Http11)
        );
        assert_eq!(lines(&head.fields), "Host:a\r\nX-Y:  b \r\ncontent-length: 2\r\n");
        assert_eq!((head.length, rest.as_str()), (BodyLength::Exact(2), "okGET /"));
    }

    #[test]
    fn any_byte_above_ascii_passes_in_a_target_and_nowhere_else_in_the_line() {
        let read = |text: &[u8]| RequestHead::read(text, &mut HeadScan::default(), LIMITS, &mut Vec::new());
        let (head, _) = read(b"GET /caf\xe9?\xff HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
        assert_eq!((head.method(), head.target()), ("GET", &b"/caf\xe9?\xff"[..]));
        for text in
            [&b"G\xe9T / HTTP/1.1\r\n\r\n"[..], b"GET / HTTP\xe9/1.1\r\n\r\n", b"GET /\xe9 \xe9 HTTP/1.1\r\n\r\n"]
        {
            assert!(matches!(read(text), Err(HeadError::Syntax(_)) | Ok(None)), "{text:?}");
        }
    }

    #[test]
    fn a_later_minor_version_is_read_as_1_1() {
        for version in ["1.2", "1.9"] {
            let (head, _) = request(&format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n")).unwrap().unwrap();
            assert_eq!((head.version, head.target()), (Version::Http11, &b"/"[..]));
        }
    }

    #[test]
    fn a_head_in_pieces_waits_for_its_empty_line() {
        for text in ["", "\r\n", "GET", "GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r"] {
            assert!(matches!(request(text), Ok(None)), "{text:?}");
        }
    }

    #[test]
    fn empty_lines_before_a_request_are_ignored_and_lone_lf_becomes_crlf() {
        let (head, rest) = request("\r\n\nGET / HTTP/1.0\nHost: a\nB:\nC: d\r\n\n").unwrap().unwrap();
        assert_eq!((lines(&head.fields).as_str(), rest.as_str()), ("Host: a\r\nB: \r\nC: d\r\n", ""));
    }

    #[test]
    fn empty_lines_before_a_request_are_limited() {
        let lines = |count| format!("{}GET / HTTP/1.1\r\n\r\n", "\r\n".repeat(count));
        assert!(request(&lines(8)).unwrap().is_some());
        for text in [&lines(9), "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"] {
            let refused = HeadError::Syntax("too many empty lines come before it");
            assert_eq!(request(text).unwrap_err(), refused, "{text:?}");
        }
    }

    #[test]
    fn folds_at_either_end_of_a_value_go_too() {
        for (text, expected) in [
            ("A:\r\n b\r\n", "A: b\r\n"),
            ("A: b\r\n \r\n", "A: b\r\n"),
            ("A:\r\n\t\r\nB: c\r\n", "A: \r\nB: c\r\n"),
            ("A: b\n c\n", "A: b c\r\n"),
        ] {
            let head = response(&format!("HTTP/1.1 200 OK\r\n{text}\r\n")).unwrap();
            assert_eq!(lines(&head.fields), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_request_head_is_refused() {
        for text in [
            "GET /\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.x\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / a HTTP/1.1\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\0\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(matches!(request(text), Err(HeadError::Syntax(_))), "{text:?}: {:?}", request(text));
        }
        assert_eq!(request("\u{16}\u{3}\u{1}").unwrap_err(), HeadError::TlsHandshake);
    }

    #[test]
    fn heads_are_limited_in_bytes_and_lines_exactly() {
        let head = |fields: usize, pad: usize| {
            format!("GET / HTTP/1.1\r\nP: {}\r\n{}\r\n", "p".repeat(pad), "A: b\r\n".repeat(fields))
        };
        for fields in [1, 63, 64, 99] {
            let limits = HeadLimits { bytes: 4096, fields: fields + 1 };
            assert!(read(&head(fields, 1), limits).unwrap().is_some(), "{fields}");
            assert_eq!(read(&head(fields + 1, 1), limits).unwrap_err(), HeadError::TooManyFields, "{fields}");
        }
        let text = head(0, 10);
        for (bytes, fits) in [(text.len(), true), (text.len() - 1, false)] {
            assert_eq!(read(&text, HeadLimits { bytes, fields: 9 }).is_ok(), fits);
        }
        let unfinished = &text[..text.len() - 1];
        assert!(read(unfinished, HeadLimits { bytes: text.len(), fields: 9 }).unwrap().is_none());
        assert_eq!(read(unfinished, HeadLimits { bytes: text.len() - 1, fields: 9 }).unwrap_err(), HeadError::TooLarge);
    }

    #[test]
    fn connections_are_kept_as_the_version_and_connection_say() {
        for (version, field, keeps) in [
            ("1.1", "", true),
            ("1.1", "Connection: x, Close\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: Keep-Alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let (head, _) = request(&format!("GET / HTTP/{version}\r\n{field}\r\n")).unwrap().unwrap();
            assert_eq!(head.keeps_alive(), keeps, "{version} {field}");
        }
    }

    #[test]
    fn responses_of_old_servers_are_read() {
        let head = response("HTTP/1.0 200 Caf\u{e9} au lait\r\nA: b\r\n\tc\r\n  d\r\nE: f\n\r\n").unwrap();
        assert_eq!((head.status, head.reason()), (200, "Caf\u{e9} au lait".as_bytes()));
        assert_eq!(lines(&head.fields), "A: b c d\r\nE: f\r\n");
        for text in ["HTTP/1.1 200\r\n\r\n", "HTTP/1.1 200 \r\n\r\n"] {
            assert_eq!(response(text).unwrap().reason(), b"", "{text:?}");
        }
        let head = response("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nA: b\r\ncontent-length: 5, 5\r\n\r\n").unwrap();
        assert_eq!(
            (lines(&head.fields).as_str(), head.length),
            ("Content-Length: 5\r\nA: b\r\n", BodyLength::Exact(5))
        );
    }

    #[test]
    fn responses_that_are_not_http_are_refused_and_an_odd_field_is_named() {
        for text in [
            "SSH-2.0-x\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 99 A\r\n\r\n",
            "HTTP/1.1 099 A\r\n\r\n",
            "HTTP/2 200 A\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        ] {
            assert!(matches!(response(text), Err(HeadError::Syntax(_))), "{text:?}: {:?}", response(text));
        }
        let odd = response("HTTP/1.1 200 OK\r\nA: b\r\nX Y\u{1}: c\r\n\r\n").unwrap_err();
        assert_eq!(odd.to_string(), r"`X Y\x01` is not a field name");
        let odd = response("HTTP/1.1 200 OK\r\nA: b\r\nno colon\r\n\r\n").unwrap_err();
        assert_eq!(odd.to_string(), "`no colon` is not a field name");
    }
}
