//! What a service manager is told, by the protocol of sd_notify(3): ready, reloading, stopping, a line of status, and
//! that every worker is alive.
//!
//! Nothing here waits: a service manager that does not read must not stop a signal or a request.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tracing::warn;

use crate::text::escape_within;

/// The service manager that started this process, if it wants to be told.
#[derive(Clone, Debug, Default)]
pub struct Supervisor(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    /// That it could not be told was logged.
    failed: AtomicBool,
}

impl Supervisor {
    /// The one that `NOTIFY_SOCKET` names: a path, or `@` and a name in the abstract namespace.
    ///
    /// # Errors
    /// A sentence.
    pub fn of_environment() -> Result<Self, String> {
        let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(Self::default());
        };
        let refused = |error: io::Error| format!("NOTIFY_SOCKET `{}`: {error}", crate::text::show_value(&name));
        let address = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
            [b'/', ..] => SocketAddr::from_pathname(&name),
            _ => Err(io::Error::other("a path that begins with `/`, or a name that begins with `@`, is expected")),
        };
        let address = address.map_err(refused)?;
        let socket = UnixDatagram::unbound().map_err(refused)?;
        socket.set_nonblocking(true).map_err(refused)?;
        let told = Told { socket, address, watchdog: watchdog(), failed: AtomicBool::new(false) };
        Ok(Self(Some(Arc::new(told))))
    }

    /// How long it waits between two signs of life before it takes this process for dead, if it does so at all.
    pub fn watchdog(&self) -> Option<Duration> {
        self.0.as_ref()?.watchdog
    }

    /// Everything listens, by these settings.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\n{}", status_line(status)));
    }

    /// New settings are being built. [`Self::ready`] is to follow, whether or not they could be used.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reloading\n"));
    }

    /// Nothing new is accepted.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining\n");
    }

    /// Every worker is alive.
    fn alive(&self) {
        self.tell("WATCHDOG=1\n");
    }

    fn tell(&self, message: &str) {
        let Some(told) = &self.0 else { return };
        if let Err(error) = told.socket.send_to_addr(message.as_bytes(), &told.address)
            && !told.failed.swap(true, Ordering::Relaxed)
        {
            warn!(%error, "the service manager (NOTIFY_SOCKET) cannot be told of this process's state");
        }
    }
}

/// A status is one line.
fn status_line(status: &str) -> String {
    format!("STATUS={}\n", escape_within(status.lines().next().unwrap_or_default(), 300))
}

/// `WATCHDOG_USEC`, unless `WATCHDOG_PID` says that it is for another process.
fn watchdog() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    if env::var_os("WATCHDOG_PID").is_some() && number("WATCHDOG_PID") != Some(process::id().into()) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}

/// The signs of life of workers, for a service manager with a watchdog.
#[derive(Debug)]
pub struct Pulse {
    supervisor: Supervisor,
    watchdog: Duration,
    beats: Vec<Arc<AtomicU64>>,
}

/// Of one worker: a worker whose event loop is stuck does not beat. One that has ended counts as alive, since its end
/// is noticed by itself.
#[derive(Debug)]
pub struct Beat {
    count: Arc<AtomicU64>,
    every: Duration,
}

/// The count of a worker that has ended.
const ENDED: u64 = u64::MAX;

impl Pulse {
    /// A pulse for a service manager that has a watchdog; `None` for others.
    pub fn of(supervisor: &Supervisor) -> Option<Self> {
        let watchdog = supervisor.watchdog()?;
        Some(Self { supervisor: supervisor.clone(), watchdog, beats: Vec::new() })
    }

    /// The beat of one more worker.
    pub fn add_worker(&mut self) -> Beat {
        let count = Arc::new(AtomicU64::new(0));
        self.beats.push(count.clone());
        // So often that one beat may be late; no timer is finer than a millisecond.
        Beat { count, every: (self.watchdog / 8).max(Duration::from_millis(1)) }
    }

    /// Feeds the watchdog, for as long as every worker beats.
    pub async fn feed(self) {
        let mut seen: Vec<_> = self.counts().collect();
        self.supervisor.alive();
        loop {
            // Twice as often as sd_watchdog_enabled(3) recommends.
            tokio::time::sleep(self.watchdog / 4).await;
            let now: Vec<_> = self.counts().collect();
            if seen.iter().zip(&now).all(|(seen, now)| seen != now || *now == ENDED) {
                self.supervisor.alive();
                seen = now;
            }
        }
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        self.beats.iter().map(|count| count.load(Ordering::Relaxed))
    }
}

impl Beat {
    /// How often it is to be given.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// A sign of life.
    pub fn give(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        self.count.store(ENDED, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_stuck_does_not_feed_the_watchdog_and_one_that_has_ended_does() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let fed = || std::iter::from_fn(|| manager.recv(&mut [0; 64]).ok()).count();
        let (socket, address) = (UnixDatagram::unbound().unwrap(), SocketAddr::from_pathname(&path).unwrap());
        let watchdog = Some(Duration::from_secs(8));
        let told = Told { socket, address, watchdog, failed: AtomicBool::new(false) };
        let mut pulse = Pulse::of(&Supervisor(Some(Arc::new(told)))).unwrap();
        let (beating, stuck) = (pulse.add_worker(), pulse.add_worker());
        assert_eq!(beating.every(), Duration::from_secs(1));
        let feeding = tokio::spawn(pulse.feed());
        let go = async |beats: &[&Beat]| {
            for _ in 0..8 {
                beats.iter().for_each(|beat| beat.give());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            fed()
        };
        assert!(go(&[&beating, &stuck]).await >= 4);
        assert!(go(&[&beating]).await <= 1, "one look may have been between the two");
        assert_eq!(go(&[&beating]).await, 0);
        drop(stuck);
        assert!(go(&[&beating]).await >= 3);
        feeding.abort();
    }
}
