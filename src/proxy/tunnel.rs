//! What passes after `101 Switching Protocols` (RFC 9110 section 7.8): bytes both ways, until both sides have ended.
//!
//! Each side may end alone, and the other goes on. A side that breaks, silence both ways, or the end of the process
//! resets both: what was cut must not look whole here either.

use std::{
    cell::Cell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional_with_sizes},
    time::{Instant, sleep_until},
};

use crate::connect::Verified;

use super::{access::Access, client::ClientHandle};

/// Bytes that are read ahead, for each direction.
const BUFFER: usize = 16 * 1024;

/// An upstream that has switched, and what it said behind its answer.
#[derive(Debug)]
pub struct Tunnel {
    /// The connection.
    pub(super) upstream: Verified,
    /// What came by it already.
    pub(super) read: Bytes,
    /// Silence both ways that ends it.
    pub(super) limit: Duration,
    /// Whose it is.
    pub(super) client: ClientHandle,
    /// Finished at the end.
    pub(super) access: Access,
}

impl Tunnel {
    /// Carries bytes until both sides have ended, or one breaks, or `cut` does.
    pub async fn carry(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, cut: impl Future) {
        let flow = Rc::new(Flow { moved: Cell::new(Instant::now()), up: Cell::new(0), down: Cell::new(0) });
        let mut stream = Counted { stream, flow: flow.clone() };
        let whole = {
            let mut copying = pin!(async {
                stream.write_all(&self.read).await?;
                copy_bidirectional_with_sizes(&mut stream, &mut self.upstream, BUFFER, BUFFER).await
            });
            let mut cut = pin!(cut);
            loop {
                tokio::select! {
                    end = &mut copying => break end.is_ok(),
                    () = sleep_until(flow.moved.get() + self.limit) => {
                        if flow.moved.get().elapsed() >= self.limit {
                            self.access.silent();
                            break false;
                        }
                    }
                    _ = &mut cut => break false,
                }
            }
        };
        if !whole {
            self.access.interrupted();
            self.upstream.wire().abort.set(true);
            self.client.reset();
        }
        self.access.finish(flow.up.get(), flow.down.get(), whole);
    }
}

/// What went through.
struct Flow {
    moved: Cell<Instant>,
    up: Cell<u64>,
    down: Cell<u64>,
}

impl Flow {
    fn add(&self, to: &Cell<u64>, count: usize) {
        if count > 0 {
            to.set(to.get() + count as u64);
            self.moved.set(Instant::now());
        }
    }
}

/// The client's side, with what goes through it counted.
struct Counted<S> {
    stream: S,
    flow: Rc<Flow>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let end = Pin::new(&mut this.stream).poll_read(cx, buf);
        this.flow.add(&this.flow.up, buf.filled().len() - before);
        end
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let end = Pin::new(&mut this.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(count)) = end {
            this.flow.add(&this.flow.down, count);
        }
        end
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
