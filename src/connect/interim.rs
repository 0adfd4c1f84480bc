//! Interim responses of an upstream (RFC 9110 section 15.2), on their way from hyper's parser to whoever waits for
//! the answer.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::{HeaderMap, Request, StatusCode, Version};
use tokio::sync::Notify;

/// More than this before one answer are no help to anybody.
const MOST: usize = 64;

/// An interim response.
#[derive(Debug)]
pub struct Interim {
    /// 100, or 102 to 199.
    pub status: StatusCode,
    /// The version it came in.
    pub version: Version,
    /// Its fields.
    pub fields: HeaderMap,
}

/// Too many of them came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood;

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {MOST} interim responses came before it")
    }
}

/// Those of one connection. hyper asks for a callback that could be called from anywhere; it is called by the
/// connection's own task, so nobody ever waits for the lock.
#[derive(Debug, Default)]
pub(super) struct Interims {
    queue: Mutex<VecDeque<Interim>>,
    count: AtomicUsize,
    came: Notify,
}

impl Interims {
    /// Takes those that answer this request.
    pub(super) fn watch<B>(self: &Arc<Self>, request: &mut Request<B>) {
        self.count.store(0, Ordering::Relaxed);
        let this = self.clone();
        hyper::ext::on_informational(request, move |interim| {
            if this.count.fetch_add(1, Ordering::Relaxed) < MOST {
                let (status, version, fields) = (interim.status(), interim.version(), interim.headers().clone());
                let mut queue = this.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.push_back(Interim { status, version, fields });
            }
            this.came.notify_one();
        });
    }

    /// The next one.
    pub(super) async fn next(&self) -> Result<Interim, Flood> {
        loop {
            if let Some(interim) = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front() {
                return Ok(interim);
            }
            if self.count.load(Ordering::Relaxed) > MOST {
                return Err(Flood);
            }
            self.came.notified().await;
        }
    }
}
