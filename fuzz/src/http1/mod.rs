//! A connection of HTTP/1 as the program reads it, what it would pass on, and what must hold of both.

mod hyper;
mod readings;

use vouchsafe::http1::{
    Version,
    body::{BodyDecoder, BodyLength},
    fields::Fields,
    head::{HeadError, HeadLimits, HeadScan, RequestHead, ResponseHead},
};

pub use readings::record;

use crate::is_plain;

/// Inputs are no longer: hyper limits all chunk extensions together to 16 KiB, and the program one line of them.
pub const LONGEST_INPUT: usize = 16 * 1024 - 1;

const LIMITS: HeadLimits = HeadLimits { bytes: 8 * 1024, fields: 100 };

/// What is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What a client sends.
    Requests,
    /// What an upstream answers to one request: interim responses and a final one.
    Responses {
        /// The request was HEAD.
        to_head: bool,
    },
}

/// The first line of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named by the standard")]
pub enum StartLine {
    Request { method: String, target: String, version: Version },
    Status { status: u16, reason: Vec<u8>, version: Version },
}

/// How a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its body breaks the rules. How much of it was read before depends on the pieces, and is not kept.
    Refused,
    /// The connection ends before it.
    Unfinished,
    /// All of it is there.
    Whole,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it begins in the input, with empty lines before it.
    pub start: usize,
    /// Where it ends, or where the input does.
    pub behind: usize,
    /// The first line.
    pub line: StartLine,
    /// Names and values, as they came but for folds.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body without chunk sizes, extensions and trailer fields.
    pub content: Vec<u8>,
    /// The trailer fields that may pass, with the empty line.
    pub trailers: Vec<u8>,
    /// How it ends.
    pub end: End,
    /// Whether another message may follow.
    pub keeps_alive: bool,
    /// What goes to the next hop, if nothing but the version is changed.
    pub passed: Vec<u8>,
}

/// A connection.
#[derive(Debug, Default)]
pub struct Reading {
    /// What was accepted.
    pub messages: Vec<Message>,
    /// Why nothing behind that is read.
    pub refused: Option<String>,
    /// Where the first head begins that was not read, or the body that was refused.
    pub unread: usize,
}

/// Reads `input` in pieces, up to the end of the connection.
pub fn read<'a>(side: Side, pieces: impl Iterator<Item = &'a [u8]>) -> Reading {
    let mut reader = Reader::new(side);
    for piece in pieces {
        reader.push(piece);
    }
    reader.finish()
}

/// Holds the program's reading of an input against itself in pieces, against what is passed on, and against hyper.
///
/// # Panics
/// Where they differ.
pub fn check(side: Side, cut: u8, input: &[u8]) -> Reading {
    let whole = read(side, std::iter::once(input));
    for size in [usize::from(cut).max(1), 1] {
        is_same_in_pieces(&whole, &read(side, input.chunks(size)), input);
    }
    if let Some(refused) = &whole.refused {
        is_plain(refused);
    }
    for message in &whole.messages {
        has_harmless_trailers(&message.trailers);
        is_passed_on(side, message);
    }
    hyper::agrees(side, &whole.messages, input, cut);
    let passed: Vec<u8> = whole.messages.iter().flat_map(|message| message.passed.clone()).collect();
    let again = read(side, std::iter::once(&*passed));
    hyper::agrees(side, &again.messages, &passed, cut);
    whole
}

fn is_same_in_pieces(whole: &Reading, pieces: &Reading, input: &[u8]) {
    assert_eq!(whole.messages, pieces.messages);
    if whole.refused.is_some() && pieces.refused.is_none() {
        // Of a head that comes in pieces, all but the first is looked at when its empty line is there.
        let mut unread = &input[whole.unread..];
        while let Some(rest) = unread.strip_prefix(b"\r\n").or(unread.strip_prefix(b"\n")) {
            unread = rest;
        }
        let has_end =
            unread.windows(2).any(|pair| pair == b"\n\n") || unread.windows(3).any(|three| three == b"\n\r\n");
        assert!(!has_end && unread.len() < LIMITS.bytes, "{whole:?} became {pieces:?}");
    } else {
        assert_eq!(whole.refused.is_some(), pieces.refused.is_some(), "{whole:?} became {pieces:?}");
    }
}

/// The same reader takes what is passed on for the same message, to the last byte, and passes it on unchanged.
fn is_passed_on(side: Side, message: &Message) {
    let again = read(side, std::iter::once(&*message.passed));
    if message.end == End::Refused {
        return;
    }
    // CRLF in place of a lone LF makes a head longer, which may then be above the limit.
    let too_large = HeadError::TooLarge.to_string();
    if again.refused.as_ref() == Some(&too_large) && message.passed.len() > LIMITS.bytes {
        return;
    }
    assert_eq!((again.messages.len(), &again.refused), (1, &None), "{message:?} became {again:?}");
    let passed = &again.messages[0];
    assert_eq!((&passed.fields, &passed.content, passed.end), (&message.fields, &message.content, message.end));
    assert_eq!((passed.start, passed.behind), (0, message.passed.len()));
    assert_eq!(passed.passed, message.passed);
    match (&message.line, &passed.line) {
        (StartLine::Request { method, target, .. }, StartLine::Request { method: m, target: t, .. }) => {
            assert_eq!((method, target), (m, t));
        }
        (StartLine::Status { status, reason, .. }, StartLine::Status { status: s, reason: r, .. }) => {
            assert_eq!((status, reason), (s, r));
        }
        other => panic!("{other:?}"),
    }
}

/// Names with a meaning for framing, routing or authentication, in any spelling that CGI would merge.
fn has_harmless_trailers(trailers: &[u8]) {
    const HARMFUL: [&str; 22] = [
        "authorization",
        "cache-control",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "location",
        "max-forwards",
        "proxy-authorization",
        "proxy-connection",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-auth-token",
    ];
    if trailers.is_empty() {
        return;
    }
    assert!(trailers.ends_with(b"\r\n"));
    for line in trailers.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r\n").expect("CRLF");
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).trim().to_ascii_lowercase().replace('_', "-");
        assert!(!HARMFUL.contains(&&*name), "{name} passes as a trailer field");
    }
}

struct Reader {
    side: Side,
    inbox: Vec<u8>,
    /// Where the inbox begins in the input.
    at: usize,
    scan: HeadScan,
    /// Two decoders of the same body: for what passes, and for the content.
    body: Option<(BodyDecoder, BodyDecoder)>,
    ended: bool,
    reading: Reading,
}

impl Reader {
    fn new(side: Side) -> Self {
        let reading = Reading::default();
        Self { side, inbox: Vec::new(), at: 0, scan: HeadScan::default(), body: None, ended: false, reading }
    }

    fn push(&mut self, piece: &[u8]) {
        self.inbox.extend_from_slice(piece);
        while !self.ended {
            let goes_on = if self.body.is_some() { self.body() } else { self.head() };
            if !goes_on {
                return;
            }
        }
    }

    /// The connection ends.
    fn finish(mut self) -> Reading {
        if let (Some((body, _)), Some(message)) = (&mut self.body, self.reading.messages.last_mut()) {
            body.close();
            message.end = if body.is_done() { End::Whole } else { End::Unfinished };
        }
        self.reading
    }

    /// Whether there may be more to read.
    fn head(&mut self) -> bool {
        let head = match self.side {
            Side::Requests => {
                RequestHead::read(&self.inbox, &mut self.scan, LIMITS, &mut Vec::new()).map(|head| head.map(request))
            }
            Side::Responses { to_head } => {
                ResponseHead::read(&self.inbox, &mut self.scan, LIMITS, to_head).map(|head| head.map(response))
            }
        };
        self.reading.unread = self.at;
        match head {
            Err(error) => self.refuse(&error),
            Ok(None) => false,
            Ok(Some((mut message, length, size))) => {
                self.consume(size);
                (message.start, message.behind) = (self.reading.unread, self.at);
                self.reading.messages.push(message);
                self.body = Some((BodyDecoder::new(length), BodyDecoder::new(length)));
                true
            }
        }
    }

    fn refuse(&mut self, error: &HeadError) -> bool {
        self.reading.refused = Some(error.to_string());
        self.ended = true;
        false
    }

    fn body(&mut self) -> bool {
        let (Some((body, plain)), Some(message)) = (&mut self.body, self.reading.messages.last_mut()) else {
            return false;
        };
        let mut content = Vec::new();
        match (body.decode(&self.inbox), plain.decode_content(&self.inbox, &mut content)) {
            (Ok(decoded), Ok(count)) => {
                assert_eq!(count, decoded.pass + decoded.consumed);
                message.content.extend_from_slice(&content);
                message.passed.extend_from_slice(&self.inbox[..decoded.pass]);
                message.passed.extend_from_slice(&decoded.instead);
                message.trailers.extend_from_slice(&decoded.instead);
                assert_eq!((body.content(), plain.content()), (message.content.len() as u64, body.content()));
                assert_eq!(body.is_done(), plain.is_done());
                let is_done = body.is_done();
                if is_done {
                    message.end = End::Whole;
                    self.ended = !message.keeps_alive;
                    self.body = None;
                } else {
                    assert_eq!(count, self.inbox.len());
                }
                self.consume(count);
                if let Some(message) = self.reading.messages.last_mut() {
                    message.behind = self.at;
                }
                is_done
            }
            (Err(error), Err(same)) => {
                assert_eq!(error, same);
                (message.end, message.behind) = (End::Refused, self.reading.unread);
                message.content.clear();
                message.passed.clear();
                self.reading.refused = Some(error.to_string());
                self.ended = true;
                self.body = None;
                false
            }
            other => panic!("{other:?}"),
        }
    }

    fn consume(&mut self, count: usize) {
        self.inbox.drain(..count);
        self.at += count;
    }
}

fn request((head, size): (RequestHead, usize)) -> (Message, BodyLength, usize) {
    // `is_odd` has left out what is not text.
    let target = String::from_utf8_lossy(head.target()).into_owned();
    let method = head.method().to_owned();
    let start = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    let keeps_alive = head.keeps_alive() && method != "CONNECT";
    let line = StartLine::Request { method, target, version: head.version };
    (message(line, &head.fields, start, keeps_alive), head.length, size)
}

fn response((head, size): (ResponseHead, usize)) -> (Message, BodyLength, usize) {
    let mut start = format!("HTTP/1.1 {} ", head.status).into_bytes();
    start.extend_from_slice(head.reason());
    start.extend_from_slice(b"\r\n");
    let line = StartLine::Status { status: head.status, reason: head.reason().to_vec(), version: head.version };
    (message(line, &head.fields, start, head.is_interim()), head.length, size)
}

fn message(line: StartLine, fields: &Fields, start: Vec<u8>, keeps_alive: bool) -> Message {
    let mut passed = start;
    fields.write_to(&mut passed);
    passed.extend_from_slice(b"\r\n");
    let text = |name: &[u8]| String::from_utf8(name.to_vec()).expect("a token");
    let fields = fields.iter().map(|field| (text(field.raw_name), field.value.to_vec())).collect();
    Message {
        start: 0,
        behind: 0,
        line,
        fields,
        content: Vec::new(),
        trailers: Vec::new(),
        end: End::Unfinished,
        keeps_alive,
        passed,
    }
}

/// Whether some request line is read by us alone: a target that is not UTF-8, or a later minor version. What else it
/// says is read as of any other line.
pub fn is_odd(data: &[u8]) -> bool {
    data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).any(|line| match line {
        [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor] => {
            str::from_utf8(line).is_err() || !matches!(minor, b'0' | b'1')
        }
        _ => false,
    })
}
