//! A response's body on its way down: validated, and written as fast as the client takes it.

use std::{
    fmt, io,
    task::{Context, Poll, ready},
};

use tokio::time::Instant;

use crate::{
    buffer::Buffer,
    connect::upstream::UpstreamConnection,
    http1::{
        body::{BadChunk, BodyDecoder, BodyLength},
        conn::Connection,
    },
};

/// The end of a chunked body without trailer fields.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// A response's body, and how far it is.
#[derive(Debug)]
pub(super) struct Download {
    decoder: BodyDecoder,
    length: BodyLength,
    coding: BodyCoding,
    /// Bytes at the front of what was received that are validated and that the client has not taken.
    passing: usize,
    /// When something moved last.
    moved: Instant,
    /// Content that was not written as it came.
    collected: Vec<u8>,
    /// How many bytes of content the client gets in place of what came.
    instead: Option<u64>,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyCoding {
    /// As it came.
    AsCame,
    /// In chunks, since the client stays connected and the upstream's end is the body's.
    MadeChunked,
    /// In other chunks, since a part of it was collected.
    Rechunked,
    /// Without chunks, for a client that does not know them.
    Unchunked,
}

/// Why a body ended before its end.
#[derive(Debug)]
pub(super) enum DownloadError {
    /// Its chunks are not well-formed.
    Chunk(BadChunk),
    /// The client is gone.
    Client(io::Error),
    /// The upstream closed it in an orderly way, but short of its length.
    Short,
    /// The upstream broke it off.
    Upstream(io::Error),
}

impl fmt::Display for DownloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk(bad) => bad.fmt(f),
            Self::Client(error) => write!(f, "the client is gone: {error}"),
            Self::Short => f.write_str("the upstream closed the connection before the end of the body"),
            Self::Upstream(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                f.write_str("the upstream closed the connection without the end of TLS")
            }
            Self::Upstream(error) => error.fmt(f),
        }
    }
}

impl Download {
    /// A body that comes behind its head.
    pub(super) fn new(length: BodyLength, coding: BodyCoding) -> Self {
        Self {
            decoder: BodyDecoder::new(length),
            length,
            coding,
            passing: 0,
            moved: Instant::now(),
            collected: Vec::new(),
            instead: None,
        }
    }

    /// Collects content until its end, or until there are more than `limit` bytes: false then.
    pub(super) fn poll_collect(
        &mut self,
        cx: &mut Context<'_>,
        upstream: &mut UpstreamConnection,
        limit: usize,
    ) -> Poll<Result<bool, DownloadError>> {
        loop {
            let inbox = upstream.inbox();
            if !self.decoder.is_done() && !inbox.is_empty() {
                let count = self.decoder.decode_content(inbox.as_slice(), &mut self.collected);
                inbox.consume(count.map_err(DownloadError::Chunk)?);
            }
            if self.collected.len() > limit {
                return Poll::Ready(Ok(false));
            }
            if self.decoder.is_done() {
                return Poll::Ready(Ok(true));
            }
            if upstream.inbox().is_empty() {
                match ready!(upstream.poll_receive(cx)).map_err(DownloadError::Upstream)? {
                    0 if !self.decoder.ends_with_connection() => return Poll::Ready(Err(DownloadError::Short)),
                    0 => self.decoder.close(),
                    _ => self.moved = Instant::now(),
                }
            }
        }
    }

    /// How many bytes were collected.
    pub(super) fn collected_length(&self) -> usize {
        self.collected.len()
    }

    /// What was collected.
    pub(super) fn collected(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.collected)
    }

    /// The client gets this content, behind the head that waits in `out`; the upstream's has come to its end.
    pub(super) fn write_instead(&mut self, content: &[u8], out: &mut Buffer) {
        self.instead = Some(content.len() as u64);
        self.moved = Instant::now();
        out.extend_from_slice(content);
    }

    /// The client gets what was collected and the rest of it, by a coding that fits its head.
    pub(super) fn write_collected(&mut self, coding: BodyCoding, out: &mut Buffer) {
        let collected = self.collected();
        self.moved = Instant::now();
        self.coding = match (self.length, coding) {
            (BodyLength::Chunked, BodyCoding::AsCame) => BodyCoding::Rechunked,
            (_, coding) => coding,
        };
        match self.coding {
            BodyCoding::MadeChunked | BodyCoding::Rechunked => write_chunk(&collected, out),
            BodyCoding::AsCame | BodyCoding::Unchunked => out.extend_from_slice(&collected),
        }
        if self.decoder.is_done() && matches!(self.coding, BodyCoding::MadeChunked | BodyCoding::Rechunked) {
            out.extend_from_slice(LAST_CHUNK);
        }
    }

    /// Its length in advance, where that is known.
    pub(super) fn expected(&self) -> Option<u64> {
        match self.length {
            BodyLength::Exact(length) => Some(length),
            BodyLength::Chunked | BodyLength::UntilClose => None,
        }
    }

    /// When something moved last.
    pub(super) fn moved(&self) -> Instant {
        self.moved
    }

    /// Whether the client has yet to take something.
    pub(super) fn waits_for_client(&self, client: &Connection) -> bool {
        self.passing > 0 || client.unsent() > 0
    }

    /// Whether the end of the upstream's connection is the body's end.
    pub(super) fn ended_with_connection(&self) -> bool {
        self.length == BodyLength::UntilClose
    }

    /// Bytes of content that the client's socket took, at least.
    pub(super) fn content_sent(&self, client: &Connection) -> u64 {
        self.instead.unwrap_or(self.decoder.content()).saturating_sub((self.passing + client.unsent()) as u64)
    }

    /// Bytes of content that came.
    pub(super) fn content_received(&self) -> u64 {
        self.decoder.content()
    }

    /// Moves as much as it can; ready once the client's socket has taken all of it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Connection,
        upstream: &mut UpstreamConnection,
    ) -> Poll<Result<(), DownloadError>> {
        loop {
            // First of all, so that a head and what came behind it are written together.
            if self.passing == 0 && !self.decoder.is_done() && !upstream.inbox().is_empty() {
                self.decode(client, upstream).map_err(DownloadError::Chunk)?;
            }
            while self.waits_for_client(client) {
                let waiting = client.unsent();
                let piece = &upstream.inbox().as_slice()[..self.passing];
                let sent = client.poll_send(cx, piece);
                if client.unsent() < waiting {
                    self.moved = Instant::now();
                }
                let count = ready!(sent).map_err(DownloadError::Client)?;
                if count > 0 {
                    self.moved = Instant::now();
                    self.passing -= count;
                    upstream.inbox().consume(count);
                }
            }
            if self.decoder.is_done() {
                return Poll::Ready(Ok(()));
            }
            if upstream.inbox().is_empty() {
                match ready!(upstream.poll_receive(cx)).map_err(DownloadError::Upstream)? {
                    0 => self.close(client)?,
                    _ => self.moved = Instant::now(),
                }
            }
        }
    }

    /// The upstream has announced the end of its connection.
    fn close(&mut self, client: &mut Connection) -> Result<(), DownloadError> {
        if !self.decoder.ends_with_connection() {
            return Err(DownloadError::Short);
        }
        self.decoder.close();
        if self.coding == BodyCoding::MadeChunked {
            client.outbox().extend_from_slice(LAST_CHUNK);
        }
        Ok(())
    }

    /// Reads what was received.
    fn decode(&mut self, client: &mut Connection, upstream: &mut UpstreamConnection) -> Result<(), BadChunk> {
        let inbox = upstream.inbox();
        match self.coding {
            BodyCoding::AsCame => {
                let decoded = self.decoder.decode(inbox.as_slice())?;
                if decoded.consumed == 0 {
                    self.passing = decoded.pass;
                } else {
                    client.outbox().extend_from_slice(&inbox.as_slice()[..decoded.pass]);
                    client.outbox().extend_from_slice(&decoded.instead);
                    inbox.consume(decoded.pass + decoded.consumed);
                }
            }
            BodyCoding::MadeChunked => {
                let count = self.decoder.decode(inbox.as_slice())?.pass;
                write_chunk(&inbox.as_slice()[..count], client.outbox());
                inbox.consume(count);
            }
            BodyCoding::Rechunked => {
                let mut content = Vec::new();
                let count = self.decoder.decode_content(inbox.as_slice(), &mut content)?;
                inbox.consume(count);
                write_chunk(&content, client.outbox());
                if self.decoder.is_done() {
                    client.outbox().extend_from_slice(LAST_CHUNK);
                }
            }
            BodyCoding::Unchunked => {
                let count = self.decoder.decode_content(inbox.as_slice(), client.outbox().space())?;
                client.outbox().settle();
                inbox.consume(count);
            }
        }
        Ok(())
    }
}

/// Writes content as one chunk; nothing where there is none, since an empty chunk is the last one.
fn write_chunk(content: &[u8], out: &mut Buffer) {
    if content.is_empty() {
        return;
    }
    out.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}
