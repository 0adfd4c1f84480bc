//! Deadlines that move with every byte, at the price of a comparison.
//!
//! A timer that was set is not moved when its deadline is: it fires early, finds that nothing is due, and is set
//! again. So a connection has one timer, which is touched about once a second however often its deadlines change.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    task::coop::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// The owner is woken at least so often while it waits, for what has no event of its own.
const TICK: Duration = Duration::from_secs(1);

/// The timer of one task.
#[derive(Debug)]
pub struct Deadline {
    sleep: Pin<Box<Sleep>>,
    /// Whether the task's waker is known to the timer.
    armed: bool,
}

impl Deadline {
    /// A timer that is set by the first [`Self::poll`].
    pub fn unset() -> Self {
        Self { sleep: Box::pin(sleep_until(Instant::now() + TICK)), armed: false }
    }

    /// Ready once the deadline is over. It has to be asked from one task only, whose waker is kept.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        if deadline < self.sleep.deadline() {
            self.sleep.as_mut().reset(deadline);
            self.armed = false;
        }
        if self.armed && !self.sleep.is_elapsed() {
            return Poll::Pending;
        }
        loop {
            self.armed = true;
            // A task that has used up its turn is not told so here: the timer would not be set, and never fire.
            if pin!(unconstrained(self.sleep.as_mut())).poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            let next = now + TICK;
            if now >= deadline {
                self.sleep.as_mut().reset(next);
                self.armed = false;
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(next.min(deadline));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::task::coop::poll_proceed;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_ends_when_it_is_over_wherever_it_was_before() {
        let start = Instant::now();
        let mut timer = Deadline::unset();
        for (deadline, over) in [(5_000, 5_000), (5_010, 5_010), (5_005, 5_010), (65_010, 65_010)] {
            let deadline = start + Duration::from_millis(deadline);
            poll_fn(|cx| timer.poll(cx, deadline)).await;
            let over = Duration::from_millis(over);
            assert!(start.elapsed() >= over && start.elapsed() < over + Duration::from_millis(2));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_is_kept_by_a_task_that_has_used_up_its_turn() {
        for used_up_at in [0, 1, 2] {
            let (mut timer, mut polls) = (Deadline::unset(), 0);
            let start = Instant::now();
            poll_fn(|cx| {
                if polls == used_up_at {
                    while let Poll::Ready(progress) = poll_proceed(cx) {
                        progress.made_progress();
                    }
                }
                polls += 1;
                timer.poll(cx, start + Duration::from_secs(5))
            })
            .await;
            assert!(start.elapsed() >= Duration::from_secs(5) && start.elapsed() < Duration::from_millis(5_100));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_moves_on_is_not_over() {
        let mut timer = Deadline::unset();
        let start = Instant::now();
        poll_fn(|cx| {
            let silent = Instant::now().min(start + Duration::from_secs(7));
            timer.poll(cx, silent + Duration::from_secs(2))
        })
        .await;
        assert!(start.elapsed() >= Duration::from_secs(9) && start.elapsed() < Duration::from_millis(9_100));
    }
}
