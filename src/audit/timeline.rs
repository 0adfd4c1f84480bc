//! How many events there were when, in bounded memory. No IO.

use std::collections::BTreeMap;

use time::OffsetDateTime;

/// Counts in spans of equal length, which begin at whole multiples of it (UTC). The spans are as long as it takes for no
/// more than [`MOST_SPANS`] of them.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// In seconds.
    length: i64,
    /// By the number of the span since 1970.
    counts: BTreeMap<i64, u64>,
}

/// More spans than these are never needed for a picture.
pub const MOST_SPANS: i64 = 120;

/// The lengths of spans, each a multiple of the one before; beyond the last it is doubled.
const LENGTHS: [i64; 8] = [60, 300, 900, 3_600, 10_800, 21_600, 43_200, 86_400];

/// The spans of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// The length of a span in seconds.
    pub length: i64,
    /// The number of the first span since 1970.
    pub first: i64,
    /// How many spans there are.
    pub spans: usize,
}

impl Scale {
    /// When a span begins, in seconds since 1970.
    pub fn start(self, span: usize) -> i64 {
        let span = i64::try_from(span).unwrap_or(MOST_SPANS);
        self.first.saturating_add(span).saturating_mul(self.length)
    }
}

impl Timeline {
    /// Counts events of one time.
    pub fn add(&mut self, at: OffsetDateTime, count: u64) {
        if count == 0 {
            return;
        }
        self.length = self.length.max(LENGTHS[0]);
        loop {
            let span = at.unix_timestamp().div_euclid(self.length);
            let (first, last) = self.range().unwrap_or((span, span));
            if last.max(span) - first.min(span) < MOST_SPANS {
                let counted = self.counts.entry(span).or_default();
                *counted = counted.saturating_add(count);
                return;
            }
            self.widen(longer(self.length));
        }
    }

    /// The spans that hold everything that was counted; a few more if it is a short time. `None` without any.
    pub fn scale(&self) -> Option<Scale> {
        const FEWEST: i64 = 24;
        let (first, last) = self.range()?;
        let more = (FEWEST - (last - first + 1)).max(0);
        let spans = usize::try_from(last - first + 1 + more).ok()?;
        Some(Scale { length: self.length, first: first - more / 2, spans })
    }

    /// The count of each span of a scale whose spans are at least as long as these.
    pub fn counts(&self, scale: Scale) -> Vec<u64> {
        let mut wide = self.clone();
        wide.widen(scale.length);
        let mut counts = vec![0; scale.spans];
        for (span, count) in wide.counts {
            if let Some(at) = usize::try_from(span - scale.first).ok().and_then(|at| counts.get_mut(at)) {
                *at = count;
            }
        }
        counts
    }

    fn range(&self) -> Option<(i64, i64)> {
        Some((*self.counts.first_key_value()?.0, *self.counts.last_key_value()?.0))
    }

    fn widen(&mut self, length: i64) {
        let old = self.length;
        for (span, count) in std::mem::take(&mut self.counts) {
            let counted = self.counts.entry(span.saturating_mul(old).div_euclid(length)).or_default();
            *counted = counted.saturating_add(count);
        }
        self.length = length;
    }
}

fn longer(length: i64) -> i64 {
    LENGTHS.into_iter().find(|longer| *longer > length).unwrap_or(length.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    const START: OffsetDateTime = datetime!(2026-11-21 00:00 UTC);

    fn timeline(seconds: &[i64]) -> Timeline {
        let mut timeline = Timeline::default();
        seconds.iter().for_each(|at| timeline.add(START + Duration::seconds(*at), 1));
        timeline
    }

    #[test]
    fn spans_are_as_long_as_the_time_asks_for_and_nothing_is_lost() {
        for (last, length, spans) in [
            (59, 60, 24),
            (119 * 60, 60, 120),
            (120 * 60, 300, 25),
            (86_400, 900, 97),
            (30 * 86_400, 43_200, 61),
            (400 * 86_400, 345_600, 101),
        ] {
            let timeline = timeline(&[0, last / 2, last, last]);
            let scale = timeline.scale().unwrap();
            let counts = timeline.counts(scale);
            assert_eq!(counts.iter().sum::<u64>(), 4, "{last}");
            assert_eq!((scale.length, scale.spans), (length, spans), "{last}");
        }
    }

    #[test]
    fn the_order_does_not_matter_and_times_that_cannot_be_do_not_either() {
        let there = timeline(&[0, 5_000, 500_000]);
        let back = timeline(&[500_000, 5_000, 0]);
        assert_eq!(there.scale(), back.scale());
        let scale = there.scale().unwrap();
        assert_eq!(there.counts(scale), back.counts(scale));
        let mut forged = there;
        forged.add(datetime!(9999-12-31 23:59:59 UTC), u64::MAX);
        forged.add(datetime!(0000-01-01 00:00 UTC), 1);
        let scale = forged.scale().unwrap();
        assert!(scale.spans <= 120, "{scale:?}");
        assert_eq!(forged.counts(scale).last(), Some(&u64::MAX));
        assert_eq!(Timeline::default().scale(), None);
    }

    #[test]
    fn a_short_time_is_shown_in_the_scale_of_a_long_one() {
        let (short, long) = (timeline(&[3_600]), timeline(&[0, 3_600, 86_400]));
        let scale = long.scale().unwrap();
        let counts = short.counts(scale);
        assert_eq!((counts.iter().sum::<u64>(), counts[4], scale.start(4)), (1, 1, START.unix_timestamp() + 3_600));
    }
}
