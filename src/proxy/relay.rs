//! One exchange on the wire: the request up, the response down, both in every turn, each as fast as its reader takes
//! it; and the limits on silence.
//!
//! Nothing is read from one side while the other has yet to take something, so what waits is at most a piece each way.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    connect::upstream::{NoResponse, UpstreamConnection},
    http1::{
        conn::Connection,
        head::{HeadLimits, ResponseHead},
    },
};

use super::{
    download::{Download, DownloadError},
    record::ExchangeRecord,
    settings::ProxySettings,
    upload::{Upload, UploadError, UploadWait},
};

/// What a client is told that waits before it sends its body, where the upstream does not say anything.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Limits on silence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Of a client in the body of its request.
    pub(super) request_body: Duration,
    /// Of an upstream before its response.
    pub(super) response: Duration,
    /// Of an upstream in the body of its response, and of a client that does not read it.
    pub(super) response_body: Duration,
}

impl Patience {
    pub(super) fn of(settings: &ProxySettings) -> Self {
        Self { request_body: settings.request_body, response: settings.response, response_body: settings.response_body }
    }

    /// Of an upstream that does not take a request. Its client's own silence is watched at the same time, so it gets
    /// a second more.
    fn upload(self) -> Duration {
        self.response.max(self.request_body + Duration::from_secs(1))
    }
}

/// Both connections of an exchange, and its request.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    pub(super) client: &'a mut Connection,
    pub(super) upstream: &'a mut UpstreamConnection,
    pub(super) upload: &'a mut Upload,
    pub(super) patience: Patience,
}

/// How far a body may be collected.
#[derive(Debug)]
pub(super) struct CollectBounds<'a> {
    bytes: usize,
    until: Instant,
    /// Bytes that are collected by all exchanges of the worker, and the share of this one.
    all: &'a Cell<usize>,
    held: usize,
}

/// Bytes that the exchanges of one worker collect at a time.
const MOST_COLLECTED: usize = 32 << 20;

impl<'a> CollectBounds<'a> {
    /// At most `bytes`, within `time`; `all` counts what all exchanges of the worker collect.
    pub(super) fn new(bytes: usize, time: Duration, all: &'a Cell<usize>) -> Self {
        Self { bytes, until: Instant::now() + time, all, held: 0 }
    }

    /// Counts what this exchange has collected; false where that is too much with what others have.
    fn hold(&mut self, bytes: usize) -> bool {
        self.all.set(self.all.get() - self.held + bytes);
        self.held = bytes;
        self.all.get() <= MOST_COLLECTED
    }
}

impl Drop for CollectBounds<'_> {
    fn drop(&mut self) {
        self.all.set(self.all.get() - self.held);
    }
}

/// How collecting a body has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collected {
    /// All of it is there.
    Whole,
    /// It has more bytes than one body may have.
    TooLarge,
    /// All that are collected at a time have too many.
    TooMany,
    /// It takes too long to come.
    TooSlow,
}

/// Why there is no response head.
#[derive(Debug)]
pub(super) enum NoHead {
    /// The client reset its connection, or does not read.
    ClientGone,
    /// The client's body broke off, or its framing.
    ClientBody(UploadError),
    /// The client's body stalled.
    ClientStalled,
    /// The upstream broke.
    Upstream(NoResponse),
    /// The upstream did not take the request, or respond, for so long.
    Timeout(Duration),
}

/// Why a response that has begun does not come to its end.
#[derive(Debug)]
pub(super) enum Cut {
    /// The client reset its connection.
    ClientGone,
    /// The client's body broke off, or its framing.
    ClientBody(UploadError),
    /// The client's body stalled, for so long.
    ClientStalled(Duration),
    /// The client has not read for so long.
    ClientNotReading(Duration),
    /// The body broke off.
    Body(DownloadError),
    /// The upstream was silent for so long.
    Stalled(Duration),
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientGone => f.write_str("the client reset its connection"),
            Self::ClientBody(error) => error.fmt(f),
            Self::ClientStalled(limit) => write!(f, "the client sent nothing for {} s", limit.as_secs_f32()),
            Self::ClientNotReading(limit) => write!(f, "the client read nothing for {} s", limit.as_secs_f32()),
            Self::Body(error) => error.fmt(f),
            Self::Stalled(limit) => write!(f, "nothing came for {} s", limit.as_secs_f32()),
        }
    }
}

impl Relay<'_> {
    /// The next head from the upstream, interim or final, while the request moves on. With `continues`, whether the
    /// client was told to go on in the upstream's place.
    pub(super) async fn head(
        &mut self,
        limits: HeadLimits,
        to_head: bool,
        continues: &mut bool,
        record: &mut ExchangeRecord,
    ) -> Result<ResponseHead, NoHead> {
        poll_fn(|cx| {
            let head = self.poll_head(cx, limits, to_head, continues);
            record.count(self.upload.content_sent(), 0);
            head
        })
        .await
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: HeadLimits,
        to_head: bool,
        continues: &mut bool,
    ) -> Poll<Result<ResponseHead, NoHead>> {
        loop {
            if let Poll::Ready(Err(error)) = self.upload.poll(cx, self.client, self.upstream) {
                return Poll::Ready(Err(NoHead::ClientBody(error)));
            }
            // Interim responses, in order.
            if self.client.unsent() > 0
                && let Poll::Ready(Err(_)) = self.client.poll_send(cx, &[])
            {
                return Poll::Ready(Err(NoHead::ClientGone));
            }
            if let Poll::Ready(head) = self.upstream.poll_head(cx, limits, to_head) {
                return Poll::Ready(head.map_err(NoHead::Upstream));
            }
            if !self.upload.reads_client(self.upstream) && self.client.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(NoHead::ClientGone));
            }
            let (deadline, missed) = match self.upload.waits_for(self.upstream) {
                UploadWait::Continue(until) => (until, None),
                UploadWait::Client { since } => (since + self.patience.request_body, Some(NoHead::ClientStalled)),
                UploadWait::Upstream { since } => {
                    let limit = self.patience.upload();
                    (since + limit, Some(NoHead::Timeout(limit)))
                }
                UploadWait::Nothing { since } => {
                    let limit = self.patience.response;
                    (since + limit, Some(NoHead::Timeout(limit)))
                }
            };
            ready!(self.client.poll_deadline(cx, deadline));
            match missed {
                Some(missed) => return Poll::Ready(Err(missed)),
                None => {
                    *continues = true;
                    self.client.outbox().extend_from_slice(CONTINUE);
                    self.upload.release();
                }
            }
        }
    }

    /// The rest of the request, and the body of the response, whose head waits to be written.
    /// Who drops it in the middle finds in `record` what was taken until then.
    pub(super) async fn bodies(&mut self, download: &mut Download, record: &mut ExchangeRecord) -> Result<(), Cut> {
        poll_fn(|cx| {
            let end = self.poll_bodies(cx, download);
            record.count(self.upload.content_sent(), download.content_sent(self.client));
            end
        })
        .await
    }

    /// The body of the response, whole, while the request moves on; nothing of it is written. Where it does not come to
    /// its end within `bounds`, what came until then is kept.
    pub(super) async fn collect(
        &mut self,
        download: &mut Download,
        bounds: &mut CollectBounds<'_>,
        record: &mut ExchangeRecord,
    ) -> Result<Collected, Cut> {
        poll_fn(|cx| {
            let end = self.poll_collect(cx, download, bounds);
            record.count(self.upload.content_sent(), 0);
            end
        })
        .await
    }

    fn poll_collect(
        &mut self,
        cx: &mut Context<'_>,
        download: &mut Download,
        bounds: &mut CollectBounds<'_>,
    ) -> Poll<Result<Collected, Cut>> {
        if let Poll::Ready(Err(error)) = self.upload.poll(cx, self.client, self.upstream) {
            return Poll::Ready(Err(Cut::ClientBody(error)));
        }
        // An interim response that the client has not taken.
        if self.client.unsent() > 0
            && let Poll::Ready(Err(_)) = self.client.poll_send(cx, &[])
        {
            return Poll::Ready(Err(Cut::ClientGone));
        }
        let limit = bounds.bytes;
        if let Poll::Ready(end) = download.poll_collect(cx, self.upstream, limit) {
            let end = end.map(|whole| if whole { Collected::Whole } else { Collected::TooLarge });
            return Poll::Ready(end.map_err(Cut::Body));
        }
        if !bounds.hold(download.collected_length()) {
            return Poll::Ready(Ok(Collected::TooMany));
        }
        if !self.upload.reads_client(self.upstream) && self.client.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Cut::ClientGone));
        }
        // A client that has closed its connection shows that only when something is written to it.
        if self.client.poll_deadline(cx, bounds.until).is_ready() {
            return Poll::Ready(Ok(Collected::TooSlow));
        }
        ready!(self.poll_silence(cx, download, false))?;
        Poll::Pending
    }

    fn poll_bodies(&mut self, cx: &mut Context<'_>, download: &mut Download) -> Poll<Result<(), Cut>> {
        let broken = match self.upload.poll(cx, self.client, self.upstream) {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        let end = download.poll(cx, self.client, self.upstream);
        let whole = matches!(end, Poll::Ready(Ok(())));
        // A response that is whole stays so, whatever becomes of the rest of its request.
        if whole && (broken.is_some() || self.upload.is_over() || self.upload.is_held()) {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = broken {
            return Poll::Ready(Err(Cut::ClientBody(error)));
        }
        match end {
            Poll::Ready(Err(DownloadError::Client(_))) => return Poll::Ready(Err(Cut::ClientGone)),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(Cut::Body(error))),
            _ => {}
        }
        if !self.upload.reads_client(self.upstream) && self.client.poll_reset(cx).is_ready() {
            return Poll::Ready(if whole { Ok(()) } else { Err(Cut::ClientGone) });
        }
        self.poll_silence(cx, download, whole)
    }

    /// Whether one side was silent for too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>, download: &Download, whole: bool) -> Poll<Result<(), Cut>> {
        let patience = self.patience;
        let up = match self.upload.waits_for(self.upstream) {
            UploadWait::Client { since } => {
                Some((since + patience.request_body, Cut::ClientStalled(patience.request_body)))
            }
            UploadWait::Upstream { since } => Some((since + patience.upload(), Cut::Stalled(patience.upload()))),
            UploadWait::Continue(_) | UploadWait::Nothing { .. } => None,
        };
        let limit = patience.response_body;
        let down = match whole {
            true => None,
            false if download.waits_for_client(self.client) => {
                Some((download.moved() + limit, Cut::ClientNotReading(limit)))
            }
            // An upstream may take all of a request before it goes on with its response.
            false => Some((download.moved().max(self.upload.moved()) + limit, Cut::Stalled(limit))),
        };
        let Some((deadline, cut)) = earlier(up, down) else { return Poll::Pending };
        ready!(self.client.poll_deadline(cx, deadline));
        Poll::Ready(if whole { Ok(()) } else { Err(cut) })
    }
}

fn earlier<T>(one: Option<(Instant, T)>, other: Option<(Instant, T)>) -> Option<(Instant, T)> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.0 < one.0 { other } else { one }),
        (one, other) => one.or(other),
    }
}
