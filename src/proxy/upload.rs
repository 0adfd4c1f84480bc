//! A request's body on its way up: validated, sealed, and sent as fast as the upstream takes it.

use std::{
    fmt, io,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    connect::upstream::UpstreamConnection,
    http1::{
        body::{BadChunk, BodyDecoder, BodyLength},
        conn::Connection,
    },
};

/// How long an upstream may take to say whether it wants a body that its client holds back (RFC 9110 section
/// 10.1.1). Many never say so, and many clients do not wait for longer themselves.
pub(super) const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

/// A request's body, and how far it is.
#[derive(Debug)]
pub(super) struct Upload {
    length: BodyLength,
    decoder: BodyDecoder,
    phase: UploadPhase,
    content_sent: u64,
    /// When something moved last.
    moved: Instant,
}

/// How far a request is.
#[derive(Debug)]
enum UploadPhase {
    /// The client waits for `100 Continue`, until we send it ourselves.
    Held { until: Instant },
    /// Head or body are on their way.
    Sending,
    /// The system has taken all of it.
    Sent,
    /// The upstream takes nothing more, and did not take so many bytes of records.
    Stopped { unsent: usize },
}

/// How a client broke its upload.
#[derive(Clone, Copy, Debug)]
pub enum UploadError {
    /// It went away in the middle.
    Broken,
    /// Its chunks are not well-formed.
    Framing(BadChunk),
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken => f.write_str("the request's body broke off"),
            Self::Framing(bad) => write!(f, "the request's body is not well-formed: {bad}"),
        }
    }
}

/// What an upload waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadWait {
    /// The upstream's word, or the end of this time.
    Continue(Instant),
    /// More of the body.
    Client { since: Instant },
    /// The upstream to take what was sent.
    Upstream { since: Instant },
    /// Nothing: it has ended.
    Nothing { since: Instant },
}

impl Upload {
    /// A body of this length. `held`: the client waits for `100 Continue` before it sends it.
    pub(super) fn new(length: BodyLength, held: bool) -> Self {
        let now = Instant::now();
        let held = held && !length.is_empty();
        let phase = if held { UploadPhase::Held { until: now + CONTINUE_TIMEOUT } } else { UploadPhase::Sending };
        Self { length, decoder: BodyDecoder::new(length), phase, content_sent: 0, moved: now }
    }

    /// Begins to send, on a connection that the head was sealed for. What has come of the body goes along.
    pub(super) fn start(
        &mut self,
        client: &mut Connection,
        upstream: &mut UpstreamConnection,
    ) -> Result<(), UploadError> {
        self.moved = Instant::now();
        match &mut self.phase {
            UploadPhase::Held { until } => *until = self.moved + CONTINUE_TIMEOUT,
            phase => *phase = UploadPhase::Sending,
        }
        if matches!(self.phase, UploadPhase::Sending) && !self.decoder.is_done() && !client.has_no_input() {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            // Input that was received is there without waiting.
            let _ = self.poll_piece(&mut cx, client, upstream)?;
        }
        Ok(())
    }

    /// Whether nothing of the body was read, so that it can be sent again.
    pub(super) fn is_untouched(&self) -> bool {
        self.length.is_empty() || self.is_held()
    }

    /// Whether all of the request was sent.
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.phase, UploadPhase::Sent)
    }

    /// Whether nothing more will be sent.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.phase, UploadPhase::Sent | UploadPhase::Stopped { .. })
    }

    /// Whether the client still waits for `100 Continue`.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.phase, UploadPhase::Held { .. })
    }

    /// Whether it reads from the client now.
    pub(super) fn reads_client(&self, upstream: &mut UpstreamConnection) -> bool {
        matches!(self.phase, UploadPhase::Sending) && upstream.unsent() == 0
    }

    /// The client was told to go on.
    pub(super) fn release(&mut self) {
        if self.is_held() {
            self.phase = UploadPhase::Sending;
        }
        self.moved = Instant::now();
    }

    /// An interim response came, which starts the wait for the response again; `continues` lets the client go on.
    pub(super) fn note_interim(&mut self, continues: bool) {
        if continues {
            self.release();
        } else if !self.is_held() {
            self.moved = Instant::now();
        }
    }

    /// Whether the upstream took nothing more, and nothing of these many bytes.
    pub(super) fn was_refused(&self, sealed: usize) -> bool {
        matches!(self.phase, UploadPhase::Stopped { unsent } if unsent >= sealed)
    }

    /// What it waits for, and since when.
    pub(super) fn waits_for(&self, upstream: &mut UpstreamConnection) -> UploadWait {
        let since = self.moved;
        match self.phase {
            UploadPhase::Held { until } => UploadWait::Continue(until),
            UploadPhase::Sending if upstream.unsent() > 0 => UploadWait::Upstream { since },
            UploadPhase::Sending => UploadWait::Client { since },
            UploadPhase::Sent | UploadPhase::Stopped { .. } => UploadWait::Nothing { since },
        }
    }

    /// When something moved last.
    pub(super) fn moved(&self) -> Instant {
        self.moved
    }

    /// Bytes of content that the upstream's socket took, at least.
    pub(super) fn content_sent(&self) -> u64 {
        self.content_sent
    }

    /// Moves as much as it can. An upstream that takes nothing more ends the upload, and is not an error: it may have
    /// answered before.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Connection,
        upstream: &mut UpstreamConnection,
    ) -> Poll<Result<(), UploadError>> {
        while !self.is_over() {
            let unsent = upstream.unsent();
            if unsent > 0 {
                let flushed = upstream.poll_flush(cx);
                if upstream.unsent() < unsent {
                    self.moved = Instant::now();
                    self.content_sent = self.decoder.content().saturating_sub(upstream.unsent() as u64);
                }
                match flushed {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => {
                        self.stop(&error, upstream);
                        break;
                    }
                }
            }
            if self.is_held() {
                return Poll::Pending;
            }
            if self.decoder.is_done() {
                self.phase = UploadPhase::Sent;
                break;
            }
            match self.poll_piece(cx, client, upstream) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(piece) => piece?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn stop(&mut self, error: &io::Error, upstream: &mut UpstreamConnection) {
        tracing::debug!(%error, "an upstream takes nothing more of a request");
        self.phase = UploadPhase::Stopped { unsent: upstream.unsent() };
        upstream.discard_unsent();
    }

    /// Reads a piece and seals it.
    fn poll_piece(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut Connection,
        upstream: &mut UpstreamConnection,
    ) -> Poll<Result<(), UploadError>> {
        let mut piece = client.buffers().take();
        let read = client.poll_body(cx, &mut piece);
        let end = match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(UploadError::Broken)),
            Poll::Ready(Ok(_)) => Poll::Ready(self.pass(&piece, client, upstream)),
        };
        client.buffers().give(piece);
        end
    }

    fn pass(
        &mut self,
        piece: &[u8],
        client: &mut Connection,
        upstream: &mut UpstreamConnection,
    ) -> Result<(), UploadError> {
        self.moved = Instant::now();
        let decoded = self.decoder.decode(piece).map_err(UploadError::Framing)?;
        let sealed = upstream.seal(&piece[..decoded.pass]).and_then(|()| upstream.seal(&decoded.instead));
        if let Err(error) = sealed {
            self.stop(&error, upstream);
        }
        let behind = &piece[decoded.pass + decoded.consumed..];
        if !behind.is_empty() {
            client.unread(behind);
        }
        Ok(())
    }
}
