//! What passes after `101 Switching Protocols` (RFC 9110 section 7.8): bytes both ways, until both sides have ended.
//!
//! Each side may end alone, and the other goes on. A side that breaks, or silence both ways, ends both by a reset:
//! what was cut must not look whole here either.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use crate::{connect::upstream::UpstreamConnection, http1::conn::Connection};

use super::record::ExchangeRecord;

/// A tunnel between two connections.
#[derive(Debug)]
pub(super) struct Tunnel<'a> {
    pub(super) client: &'a mut Connection,
    pub(super) upstream: &'a mut UpstreamConnection,
    /// Silence both ways that ends it.
    pub(super) limit: Duration,
    pub(super) up: Flow,
    pub(super) down: Flow,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Bytes that were taken.
    pub(super) bytes: u64,
    ended: bool,
}

/// Why a tunnel ended before both sides had.
#[derive(Debug)]
pub(super) enum TunnelError {
    /// A side broke.
    Broken,
    /// Nothing passed for too long.
    Silent,
}

impl From<io::Error> for TunnelError {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

impl Tunnel<'_> {
    /// Carries bytes until both sides have ended.
    pub(super) async fn carry(&mut self, record: &mut ExchangeRecord) -> Result<(), TunnelError> {
        let mut moved = Instant::now();
        poll_fn(|cx| {
            let before = (self.up.bytes, self.down.bytes);
            let ends = self.poll_up(cx).and_then(|up| Ok((up, self.poll_down(cx)?)));
            record.count(self.up.bytes.saturating_sub(self.upstream.unsent() as u64), self.down.bytes);
            let (up, down) = ends?;
            if up.is_ready() && down.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if (self.up.bytes, self.down.bytes) != before {
                moved = Instant::now();
            }
            self.client.poll_deadline(cx, moved + self.limit).map(|()| Err(TunnelError::Silent))
        })
        .await
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, TunnelError> {
        loop {
            if self.upstream.poll_flush(cx)?.is_pending() {
                return Ok(Poll::Pending);
            }
            if self.up.ended {
                return Ok(Poll::Ready(()));
            }
            let mut piece = self.client.buffers().take();
            let read = self.client.poll_body(cx, &mut piece)?;
            let sealed = match read {
                Poll::Ready(0) => {
                    self.up.ended = true;
                    self.upstream.seal_end()
                }
                Poll::Ready(count) => {
                    self.up.bytes += count as u64;
                    self.upstream.seal(&piece)
                }
                Poll::Pending => Ok(()),
            };
            self.client.buffers().give(piece);
            sealed?;
            if read.is_pending() {
                return Ok(Poll::Pending);
            }
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, TunnelError> {
        loop {
            while self.client.unsent() > 0 || !self.upstream.inbox().is_empty() {
                match self.client.poll_send(cx, self.upstream.inbox().as_slice())? {
                    Poll::Pending => return Ok(Poll::Pending),
                    Poll::Ready(count) => {
                        self.down.bytes += count as u64;
                        self.upstream.inbox().consume(count);
                    }
                }
            }
            if self.down.ended {
                return Ok(Poll::Ready(()));
            }
            match self.upstream.poll_receive(cx)? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(0) => {
                    self.down.ended = true;
                    self.client.shut_down();
                }
                Poll::Ready(_) => {}
            }
        }
    }
}
