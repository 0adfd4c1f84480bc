//! The wall clock behind one door, so that a test can move it.
//!
//! rustls is given the same clock as its `TimeProvider`, and the verifier takes the time from it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls_pki_types::UnixTime;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Tells the wall-clock time.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    /// Always the same moment.
    Fixed(OffsetDateTime),
    /// The system's clock.
    #[default]
    System,
}

impl Clock {
    /// The time now, UTC.
    #[expect(clippy::disallowed_methods, reason = "this is the door")]
    pub fn now(&self) -> OffsetDateTime {
        match self {
            Self::Fixed(at) => *at,
            Self::System => SystemTime::now().into(),
        }
    }

    /// The time now as rustls and webpki count it: whole seconds since 1970, never before.
    pub fn unix(&self) -> UnixTime {
        unix(self.now())
    }
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.unix())
    }
}

/// A moment as webpki takes it; moments before 1970 become 1970.
pub fn unix(at: OffsetDateTime) -> UnixTime {
    let since = SystemTime::from(at).duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    UnixTime::since_unix_epoch(since)
}

/// A moment as RFC 3339 in UTC, to the second.
pub fn rfc3339(at: OffsetDateTime) -> String {
    let utc = at.checked_to_offset(time::UtcOffset::UTC).unwrap_or(at);
    let at = utc.replace_nanosecond(0).unwrap_or(utc);
    at.format(&Rfc3339).unwrap_or_else(|_| at.unix_timestamp().to_string())
}

/// A distance in time in one unit a person would choose: `3 seconds`, `41 days`.
pub fn distance(seconds: i64) -> String {
    let seconds = seconds.unsigned_abs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_read_well() {
        for (seconds, text) in
            [(0, "0 seconds"), (1, "1 second"), (-130, "2 minutes"), (90_000, "25 hours"), (200_000, "2 days")]
        {
            assert_eq!(distance(seconds), text);
        }
    }
}
