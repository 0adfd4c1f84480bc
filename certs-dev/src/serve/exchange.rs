//! As much of HTTP/1.1 as it takes to read any request to its end and answer it
//! ([RFC 9112](https://www.rfc-editor.org/rfc/rfc9112), sections 6, 7 and 9.3).

use std::io;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Counters;

/// Answers one request after the other until the client closes or asks to.
pub(super) async fn answer_all<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    about: &str,
    counters: &Counters,
) -> io::Result<()> {
    let mut reader = Reader { stream, buffer: Vec::new(), counters };
    while let Some(head) = reader.head().await? {
        if head.expects_continue {
            reader.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            reader.stream.flush().await?;
        }
        match head.body {
            Body::Chunked => reader.skip_chunks().await?,
            Body::Sized(length) => reader.skip(length).await?,
        }
        counters.requests.fetch_add(1, Ordering::SeqCst);
        reader.stream.write_all(answer(&head, about).as_bytes()).await?;
        reader.stream.flush().await?;
        if head.close {
            break;
        }
    }
    reader.stream.shutdown().await
}

fn answer(head: &Head, about: &str) -> String {
    let connection = if head.close { "close" } else { "keep-alive" };
    let body = if head.is_head { "" } else { about };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n{body}",
        about.len()
    )
}

struct Reader<'a, S> {
    stream: &'a mut S,
    buffer: Vec<u8>,
    counters: &'a Counters,
}

impl<S: AsyncRead + Unpin> Reader<'_, S> {
    /// The next request's head; none if the client has closed before its first byte.
    async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Head::parse(&head).map(Some);
            }
            if self.buffer.len() > LONGEST_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if !self.fill().await? {
                return if self.buffer.is_empty() { Ok(None) } else { Err(cut()) };
            }
        }
    }

    async fn skip(&mut self, mut length: u64) -> io::Result<()> {
        loop {
            let now = length.min(self.buffer.len() as u64);
            self.buffer.drain(..now as usize);
            length -= now;
            if length == 0 {
                return Ok(());
            }
            if !self.fill().await? {
                return Err(cut());
            }
        }
    }

    async fn skip_chunks(&mut self) -> io::Result<()> {
        loop {
            let line = self.line().await?;
            let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
            let size = std::str::from_utf8(size).ok().map(str::trim);
            let size = size.and_then(|size| u64::from_str_radix(size, 16).ok());
            match size.ok_or(io::ErrorKind::InvalidData)? {
                0 => break,
                size => self.skip(size.saturating_add(2)).await?,
            }
        }
        // Trailer fields, up to the empty line.
        while !self.line().await?.is_empty() {}
        Ok(())
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let mut line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                line.truncate(end);
                return Ok(line);
            }
            if self.buffer.len() > LONGEST_HEAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if !self.fill().await? {
                return Err(cut());
            }
        }
    }

    /// Reads some more; false at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        let mut space = [0; 16 * 1024];
        let read = self.stream.read(&mut space).await?;
        self.buffer.extend_from_slice(&space[..read]);
        self.counters.application_bytes.fetch_add(read as u64, Ordering::SeqCst);
        Ok(read > 0)
    }
}

#[derive(Debug, PartialEq)]
enum Body {
    Chunked,
    Sized(u64),
}

#[derive(Debug, PartialEq)]
struct Head {
    is_head: bool,
    close: bool,
    expects_continue: bool,
    body: Body,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let request_line = lines.next().unwrap_or_default();
        let mut head = Self {
            is_head: request_line.starts_with("HEAD "),
            close: !request_line.ends_with("HTTP/1.1"),
            expects_continue: false,
            body: Body::Sized(0),
        };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "connection" => head.close |= value.to_ascii_lowercase().contains("close"),
                "expect" => head.expects_continue = value.eq_ignore_ascii_case("100-continue"),
                "transfer-encoding" => head.body = Body::Chunked,
                "content-length" if head.body != Body::Chunked => {
                    head.body = Body::Sized(value.parse().map_err(|_| io::ErrorKind::InvalidData)?);
                }
                _ => {}
            }
        }
        Ok(head)
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn cut() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

const LONGEST_HEAD: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_how_the_request_goes_on() {
        let head = |is_head, close, expects_continue, body| Head { is_head, close, expects_continue, body };
        let rows = [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", head(false, false, false, Body::Sized(0))),
            ("HEAD / HTTP/1.1\r\nConnection: Close\r\n\r\n", head(true, true, false, Body::Sized(0))),
            ("GET / HTTP/1.0\r\n\r\n", head(false, true, false, Body::Sized(0))),
            ("PUT / HTTP/1.1\r\nContent-Length: 7\r\n\r\n", head(false, false, false, Body::Sized(7))),
            (
                "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
                head(false, false, true, Body::Chunked),
            ),
        ];
        for (text, expected) in rows {
            assert_eq!(Head::parse(text.as_bytes()).ok(), Some(expected), "{text}");
        }
    }
}
