//! Which events are counted.

use time::OffsetDateTime;

use crate::audit::entry::AuditEntry;

/// Which events are counted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Recorded then or later.
    pub since: Option<OffsetDateTime>,
    /// Recorded before.
    pub until: Option<OffsetDateTime>,
    /// `host:port`, or a host with whatever port.
    pub upstream: Option<String>,
    /// The code.
    pub code: Option<String>,
    /// The id that a client was told.
    pub event: Option<String>,
}

impl Filter {
    /// Whether an event is wanted. A gap is wanted unless it is of another time: what is missing may be of any kind.
    pub fn takes(&self, entry: &AuditEntry<'_>) -> bool {
        let destination = entry.destination();
        let at = |upstream: &String| {
            let host = destination.rsplit_once(':').map(|(host, _)| host);
            upstream == destination || host == Some(upstream.as_str())
        };
        let in_time =
            self.since.is_none_or(|since| entry.time.0 >= since) && self.until.is_none_or(|until| entry.time.0 < until);
        if entry.gap().is_some() {
            return in_time && self.event.is_none();
        }
        in_time
            && self.code.as_ref().is_none_or(|code| *code == entry.code)
            && self.event.as_ref().is_none_or(|id| entry.has_id(id))
            && self.upstream.as_ref().is_none_or(at)
    }
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    #[test]
    fn a_filter_takes_what_was_asked_for() {
        let line = r#"{"@timestamp":"2026-11-21T00:01:40Z","event.action":"refused","error.code":"expired",
            "vouchsafe.upstream":"a.example:9292","vouchsafe.first_time":"2026-11-20T00:00:00Z"}"#;
        let entry = AuditEntry::read(line.as_bytes()).unwrap();
        let at = |seconds| Some(datetime!(2026-11-21 00:00 UTC) + Duration::seconds(seconds));
        let none = Filter::default;
        let named = |text: &str| Some(text.to_owned());
        for (what, filter, takes) in [
            ("nothing", none(), true),
            ("since then", Filter { since: at(100), ..none() }, true),
            ("since later", Filter { since: at(101), ..none() }, false),
            ("until later", Filter { until: at(101), ..none() }, true),
            ("until then", Filter { until: at(100), ..none() }, false),
            ("upstream", Filter { upstream: named("a.example:9292"), ..none() }, true),
            ("host", Filter { upstream: named("a.example"), ..none() }, true),
            ("other port", Filter { upstream: named("a.example:443"), ..none() }, false),
            ("part of a host", Filter { upstream: named("example:9292"), ..none() }, false),
            ("code", Filter { code: named("expired"), ..none() }, true),
            ("other code", Filter { code: named("expire"), ..none() }, false),
            ("two, one of which does not fit", Filter { code: named("expired"), since: at(101), ..none() }, false),
        ] {
            assert_eq!(filter.takes(&entry), takes, "{what}");
        }
    }
}
