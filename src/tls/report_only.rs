//! Report-only, dated: for a migration, refusals of one upstream are recorded and not obeyed, until a day
//! that is near. There is no other way past a verdict.

use time::{Date, Duration, OffsetDateTime, Time, format_description::well_known::Iso8601};

use super::failure::Code;

/// Until when, and for what, refusals are only recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportOnly {
    /// The first moment in which they are obeyed again.
    pub until: OffsetDateTime,
    /// For these alone; for all where it is empty.
    pub codes: Vec<Code>,
}

/// Classes that leave all other checks possible, so that reporting one does not hide another.
pub const SINGLE: [Code; 13] = [
    Code::CrlExpired,
    Code::CrlInvalid,
    Code::Expired,
    Code::IncompleteChain,
    Code::IpSanMissing,
    Code::IssuerKeyMismatch,
    Code::NameMismatch,
    Code::NoSan,
    Code::NotYetValid,
    Code::RevocationUnknown,
    Code::RootExpired,
    Code::SelfSignedNotInBundle,
    Code::UnknownIssuer,
];

/// How far ahead the end may be.
const MOST_DAYS: i64 = 90;

impl ReportOnly {
    /// Through the whole of a day, UTC, written as `2027-01-31`.
    ///
    /// # Errors
    /// A sentence, where the day cannot be read or is more than 90 days ahead, or a class is unknown.
    pub fn through(day: &str, classes: &[String], now: OffsetDateTime) -> Result<Self, String> {
        let day = Date::parse(day, &Iso8601::DATE)
            .map_err(|_| format!("report_only_until: `{day}` is not a day, as in `2027-01-31`"))?;
        let next = day.next_day().ok_or("report_only_until: that day has no end")?;
        let until = next.with_time(Time::MIDNIGHT).assume_utc();
        if until - now > Duration::days(MOST_DAYS + 1) {
            return Err(format!(
                "report_only_until: {day} is more than {MOST_DAYS} days ahead\nhint: choose a nearer day; it can be moved when it comes"
            ));
        }
        let codes = classes.iter().map(|class| {
            let found = SINGLE.iter().find(|code| code.as_str() == class).copied();
            found.ok_or_else(|| {
                let known: Vec<_> = SINGLE.iter().map(|code| code.as_str()).collect();
                format!(
                    "report_only: `{class}` cannot be reported alone\nhint: these can: {}; or leave `report_only` out, which reports all",
                    known.join(", ")
                )
            })
        });
        Ok(Self { until, codes: codes.collect::<Result<_, _>>()? })
    }

    /// Whether a refusal of this class is only recorded now; with [`Self::codes`], if nothing else is wrong.
    pub fn covers(&self, code: Code, now: OffsetDateTime) -> bool {
        code.is_verdict() && now < self.until && (self.codes.is_empty() || self.codes.contains(&code))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    #[test]
    fn it_lasts_through_its_day_and_is_bounded() {
        let only = ReportOnly::through("2026-11-22", &[], NOW).unwrap();
        assert!(only.covers(Code::Expired, datetime!(2026-11-22 23:59:59 UTC)));
        assert!(!only.covers(Code::Expired, datetime!(2026-11-23 0:00 UTC)));
        assert!(ReportOnly::through("2027-02-19", &[], NOW).is_ok());
        assert!(ReportOnly::through("2027-02-20", &[], NOW).is_err());
        assert!(ReportOnly::through("soon", &[], NOW).is_err());
        assert!(!ReportOnly::through("2020-01-01", &[], NOW).unwrap().covers(Code::Expired, NOW));
    }

    #[test]
    fn it_may_be_limited_to_classes() {
        let only = ReportOnly::through("2026-11-22", &["expired".into()], NOW).unwrap();
        assert!(only.covers(Code::Expired, NOW) && !only.covers(Code::NameMismatch, NOW));
        for wrong in ["expird", "not_tls"] {
            assert!(ReportOnly::through("2026-11-22", &[wrong.into()], NOW).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_broken_handshake_is_never_passed() {
        let only = ReportOnly::through("2026-11-22", &[], NOW).unwrap();
        assert!(Code::ALL.iter().all(|code| only.covers(*code, NOW) == code.is_verdict()));
    }
}
