//! What probes ask: how far the life of the process has come, and whether its workers still answer.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    time::{Instant, timeout_at},
};

/// How far the life of a process has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Its listeners are bound, and not every worker accepts yet.
    #[default]
    Starting,
    /// It serves.
    Ready,
    /// It finishes what is under way, and accepts nothing new.
    Draining,
}

impl Phase {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// The health of a process.
#[derive(Debug, Default)]
pub struct Health {
    phase: watch::Sender<Phase>,
    workers: Mutex<Vec<mpsc::Sender<Ping>>>,
}

/// To be answered at once.
pub type Ping = oneshot::Sender<()>;

/// Pings that wait for one worker. Where none is taken any more, further ones need not wait.
const MOST_WAITING: usize = 8;

impl Health {
    /// Where the pings for one more worker come from; its number is how many there were before.
    pub fn add_worker(&self) -> mpsc::Receiver<Ping> {
        let (ping, pings) = mpsc::channel(MOST_WAITING);
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(ping);
        pings
    }

    /// The life of the process has come to this.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// How far the life of the process has come.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Every change of the phase.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// The numbers of the workers whose event loop does not answer within a time. One that has ended is not among them.
    pub async fn silent_workers(&self, within: Duration) -> Vec<usize> {
        let deadline = Instant::now() + within;
        let ask = |worker: &mpsc::Sender<Ping>| {
            let (ping, answer) = oneshot::channel();
            (worker.clone(), worker.try_send(ping).map(|()| answer))
        };
        let asked: Vec<_> = self.workers.lock().unwrap_or_else(PoisonError::into_inner).iter().map(ask).collect();
        let mut silent = Vec::new();
        for (number, (worker, asked)) in asked.into_iter().enumerate() {
            let answered = match asked {
                Ok(answer) => timeout_at(deadline, answer).await.is_ok(),
                Err(TrySendError::Closed(_)) => true,
                // Many ask at the same time. A worker that takes one of their pings answers.
                Err(TrySendError::Full(_)) => timeout_at(deadline, worker.reserve()).await.is_ok(),
            };
            if !answered {
                silent.push(number);
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(800);

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_answer_is_named() {
        let health = Health::default();
        let (mut good, stuck, ended) = (health.add_worker(), health.add_worker(), health.add_worker());
        drop(ended);
        tokio::spawn(async move {
            while let Some(ping) = good.recv().await {
                let _ = ping.send(());
            }
        });
        assert_eq!(health.silent_workers(SOON).await, [1]);
        for _ in 0..2 * MOST_WAITING {
            assert_eq!(health.silent_workers(SOON).await, [1]);
        }
        assert_eq!(stuck.len(), MOST_WAITING, "what waits is bounded");
        drop(stuck);
        assert!(health.silent_workers(SOON).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_not_silent_since_many_ask_it() {
        let health = Health::default();
        let mut worker = health.add_worker();
        let pings = health.workers.lock().unwrap()[0].clone();
        while pings.try_send(oneshot::channel().0).is_ok() {}
        let answers = async {
            while let Some(ping) = worker.recv().await {
                let _ = ping.send(());
            }
        };
        tokio::select! {
            silent = health.silent_workers(SOON) => assert_eq!(silent, [0; 0]),
            () = answers => panic!("it has ended"),
        }
    }
}
