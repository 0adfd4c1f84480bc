//! What a signal to stop means: the first drains, a later one stops at once.

use tokio::time::Instant;

use crate::server::{SAME_SIGNAL, Stop};

/// The signals to stop that came so far.
#[derive(Debug, Default)]
pub(super) struct StopSignals {
    first: Option<Instant>,
}

impl StopSignals {
    /// What a signal at this time asks for; `None` if it repeats the first one.
    pub(super) fn next(&mut self, now: Instant) -> Option<Stop> {
        let Some(first) = self.first else {
            self.first = Some(now);
            return Some(Stop::Drain);
        };
        (now.duration_since(first) >= SAME_SIGNAL).then_some(Stop::Now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_signal_within_a_second_is_the_same_one() {
        let start = Instant::now();
        let mut signals = StopSignals::default();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(signals.next(at(0)), Some(Stop::Drain));
        assert_eq!(signals.next(at(0)), None);
        assert_eq!(signals.next(at(999)), None);
        assert_eq!(signals.next(at(1000)), Some(Stop::Now));
        assert_eq!(signals.next(at(1001)), Some(Stop::Now));
    }
}
