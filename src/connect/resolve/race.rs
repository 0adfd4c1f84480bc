//! Attempts one after another that do not hold each other up.

use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Runs attempts in their order: the next one starts when one has failed, or when the last one has been silent for
/// `patience`. Ends with the first success, with the first failure that is final, or when all have failed.
///
/// # Errors
/// The failures, in the order in which they came.
pub(super) async fn staggered<A, T, E>(
    attempts: impl IntoIterator<Item = A>,
    patience: Duration,
    is_final: impl Fn(&E) -> bool,
) -> Result<T, Vec<E>>
where
    A: Future<Output = Result<T, E>>,
{
    let mut waiting = attempts.into_iter().peekable();
    let mut running: Vec<Pin<Box<A>>> = Vec::new();
    let mut failures = Vec::new();
    let mut next_start = Instant::now();
    loop {
        if running.is_empty() || Instant::now() >= next_start {
            match waiting.next() {
                Some(attempt) => running.push(Box::pin(attempt)),
                None if running.is_empty() => return Err(failures),
                None => {}
            }
            next_start = Instant::now() + patience;
        }
        tokio::select! {
            end = first(&mut running) => match end {
                Ok(found) => return Ok(found),
                Err(failure) if is_final(&failure) => return Err(vec![failure]),
                Err(failure) => {
                    failures.push(failure);
                    next_start = Instant::now();
                }
            },
            () = sleep_until(next_start), if waiting.peek().is_some() => {}
        }
    }
}

/// The end of whichever attempt ends first; it is taken out.
async fn first<A: Future>(running: &mut Vec<Pin<Box<A>>>) -> A::Output {
    poll_fn(|cx| {
        for index in 0..running.len() {
            if let Poll::Ready(end) = running[index].as_mut().poll(cx) {
                drop(running.swap_remove(index));
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// Ends at once, or never.
    type Attempt = Option<Result<&'static str, &'static str>>;

    async fn race(attempts: &[Attempt], patience: Duration) -> Result<&'static str, Vec<&'static str>> {
        let attempts = attempts.iter().map(|attempt| async move {
            match attempt {
                Some(end) => *end,
                None => pending().await,
            }
        });
        staggered(attempts, patience, |failure| *failure == "final").await
    }

    #[tokio::test]
    async fn a_failure_starts_the_next_attempt_at_once() {
        let patience = Duration::from_secs(86_400);
        for (attempts, end) in [
            (&[Some(Ok("a")), Some(Ok("b"))][..], Ok("a")),
            (&[Some(Err("x")), Some(Err("y")), Some(Ok("c"))], Ok("c")),
            (&[Some(Err("x")), Some(Err("final")), Some(Ok("c"))], Err(vec!["final"])),
            (&[Some(Err("x")), Some(Err("y"))], Err(vec!["x", "y"])),
            (&[], Err(vec![])),
        ] {
            assert_eq!(race(attempts, patience).await, end, "{attempts:?}");
        }
    }

    #[tokio::test]
    async fn silence_does_not_hold_up_the_next_attempt() {
        let patience = Duration::from_millis(1);
        for (attempts, end) in [
            (&[None, Some(Ok("b"))][..], Ok("b")),
            (&[None, None, Some(Ok("c"))], Ok("c")),
            (&[None, Some(Err("x")), None, Some(Err("final"))], Err(vec!["final"])),
        ] {
            assert_eq!(race(attempts, patience).await, end, "{attempts:?}");
        }
    }
}
