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
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::{server::health::Health, text::escape_within};

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

    /// Feeds the watchdog of the service manager for as long as every worker answers; at once without a watchdog. One
    /// that has ended counts as alive, since its end is noticed by itself.
    pub async fn feed_watchdog(self, health: Arc<Health>) {
        let Some(watchdog) = self.0.as_ref().and_then(|told| told.watchdog) else { return };
        // Twice as often as sd_watchdog_enabled(3) recommends, so that one answer may be late.
        let period = (watchdog / 4).max(Duration::from_millis(1));
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if health.silent_workers(period).await.is_empty() {
                self.tell("WATCHDOG=1\n");
            }
        }
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
        let health = Arc::new(Health::default());
        let mut good = health.add_worker();
        tokio::spawn(async move {
            while let Some(ping) = good.recv().await {
                let _ = ping.send(());
            }
        });
        tokio::spawn(Supervisor(Some(Arc::new(told))).feed_watchdog(health.clone()));
        let fed_in_a_period = async || {
            tokio::time::sleep(Duration::from_secs(8)).await;
            fed()
        };
        assert!(fed_in_a_period().await >= 4);
        let stuck = health.add_worker();
        assert!(fed_in_a_period().await <= 1, "its ping may have been on its way");
        assert_eq!(fed_in_a_period().await, 0);
        drop(stuck);
        assert!(fed_in_a_period().await >= 3);
    }
}
