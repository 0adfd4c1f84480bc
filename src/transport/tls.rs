//! TLS towards a client, over its socket.
//!
//! What is read is decrypted whole, in large pieces. What is written is sealed once and then belongs to the socket: a
//! write is over when the socket has taken all of its records, so that the bytes which count are the bytes that went.

use std::{
    fmt,
    io::{self, BufRead, IoSlice, Write},
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use rustls::{ProtocolVersion, ServerConnection};

use super::Stream;

/// A TLS session with a client.
pub(super) struct Session {
    tls: ServerConnection,
    /// Bytes that were sealed, whose records the socket has not taken all of.
    sealed: usize,
    /// What receiving can still bring.
    input: Input,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Open,
    /// The client has sent `close_notify`: nothing follows.
    Closed,
    /// The socket has ended without that.
    Cut,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("input", &self.input).finish_non_exhaustive()
    }
}

impl Session {
    pub(super) fn new(tls: ServerConnection) -> Self {
        Self { tls, sealed: 0, input: Input::Open }
    }

    /// The version that was agreed.
    pub(super) fn version(&self) -> &'static str {
        match self.tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        }
    }

    /// Shakes hands. After an error the alert that tells the client why is left to be sent.
    pub(super) fn poll_handshake(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.poll_flush(stream, cx))?;
            if !self.tls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            let mut space = Vec::with_capacity(HANDSHAKE);
            if ready!(self.poll_records(stream, cx, &mut space, HANDSHAKE))? == Input::Cut {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Whether there are decrypted bytes to read.
    pub(super) fn has_plaintext(&mut self) -> bool {
        matches!(self.tls.reader().fill_buf(), Ok(chunk) if !chunk.is_empty())
    }

    /// Appends decrypted bytes, of a read of up to `most` bytes; 0 is the end that the client announced.
    ///
    /// # Errors
    /// A broken connection or record, an alert, or an end that was not announced (RFC 8446 section 6.1).
    pub(super) fn poll_read(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let before = into.len();
        loop {
            self.drain(into)?;
            if into.len() > before {
                return Poll::Ready(Ok(into.len() - before));
            }
            match self.input {
                Input::Open => {}
                Input::Closed => return Poll::Ready(Ok(0)),
                Input::Cut => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            }
            // An answer to a key update may wait.
            if self.sealed == 0 {
                let _ = self.poll_flush(stream, cx)?;
            }
            ready!(self.poll_records(stream, cx, into, most))?;
        }
    }

    /// Receives records and decrypts them; what came before the last of them is in `into`, the rest can be drained.
    fn poll_records(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        into: &mut Vec<u8>,
        most: usize,
    ) -> Poll<io::Result<Input>> {
        let start = into.len();
        let count = ready!(stream.poll_read(cx, &mut (&mut *into).limit(most)))?;
        if count == 0 {
            self.input = Input::Cut;
            return Poll::Ready(Ok(self.input));
        }
        let mut early = Vec::new();
        let opened = self.open(&into[start..], &mut early);
        into.truncate(start);
        into.append(&mut early);
        opened?;
        Poll::Ready(Ok(self.input))
    }

    /// rustls takes no more when it has 16 KiB to give, so that is taken to `early` on the way.
    fn open(&mut self, mut records: &[u8], early: &mut Vec<u8>) -> io::Result<()> {
        while !records.is_empty() {
            self.tls.read_tls(&mut records)?;
            let state =
                self.tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if state.peer_has_closed() {
                self.input = Input::Closed;
                return Ok(());
            }
            if !records.is_empty() && state.plaintext_bytes_to_read() > 0 {
                self.drain(early)?;
            }
        }
        Ok(())
    }

    fn drain(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        let mut reader = self.tls.reader();
        loop {
            let chunk = match reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                chunk => chunk?,
            };
            if chunk.is_empty() {
                return Ok(());
            }
            into.extend_from_slice(chunk);
            let count = chunk.len();
            reader.consume(count);
        }
    }

    /// Seals and writes from both slices in order; ready with how much of them the socket has all records of. Until
    /// then the same bytes have to be offered again.
    pub(super) fn poll_write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.sealed == 0 {
            ready!(self.poll_flush(stream, cx))?;
            self.sealed = self.tls.writer().write_vectored(&[IoSlice::new(first), IoSlice::new(second)])?;
        }
        ready!(self.poll_flush(stream, cx))?;
        Poll::Ready(Ok(std::mem::take(&mut self.sealed)))
    }

    /// Writes the records that wait.
    pub(super) fn poll_flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Records { stream, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Announces that nothing follows, behind what is to be written.
    pub(super) fn close(&mut self) {
        self.tls.send_close_notify();
    }
}

/// Bytes that a client's flight of a handshake is read with at a time.
const HANDSHAKE: usize = 4 * 1024;

/// The socket, as rustls writes to it.
struct Records<'a, 'b, 'c> {
    stream: &'a mut Stream,
    cx: &'b mut Context<'c>,
}

impl Write for Records<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.stream.poll_write(self.cx, slices) {
            Poll::Ready(end) => end,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
