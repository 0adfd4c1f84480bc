//! The charts of the page, as inline SVG. Colours are those of the style sheet's classes.

use std::fmt::{self, Write};

use super::{html::Text, status::UpstreamStatus};
use crate::metrics::history::MINUTES;

/// The size of a chart of minutes in its own units: ten for each.
const WIDTH: usize = 10 * MINUTES;
const HEIGHT: u64 = 100;

/// A bar for each minute of the last hour.
pub(super) fn minutes(to: &mut String, what: &str, class: &str, counts: &[u64]) -> fmt::Result {
    let (most, sum) = (counts.iter().copied().max().unwrap_or(0), counts.iter().sum::<u64>());
    write!(
        to,
        "<figure><figcaption>{what}: {sum} in the last hour{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{what} for each minute of the last hour: {sum}, at most {most} a minute\">",
        if most > 0 { format!(", at most {most} a minute") } else { String::new() }
    )?;
    for (minute, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        // What is there at all can be seen.
        let height = (count * HEIGHT / most.max(1)).max(3);
        let ago = counts.len() - 1 - minute;
        write!(
            to,
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"8\" height=\"{height}\"><title>{count}, {ago} min ago</title></rect>",
            10 * minute + 1,
            HEIGHT - height
        )?;
    }
    to.write_str("</svg><div class=\"axis\"><span>60 min ago</span><span>30</span><span>now</span></div></figure>")
}

/// Days at which a bar is full.
const FULL: i64 = 90;

/// Whole days from now; negative if it is over.
pub(super) fn days(until: time::OffsetDateTime, now: time::OffsetDateTime) -> i64 {
    (until - now).whole_seconds().div_euclid(86_400)
}

/// The class for something that has so many days left.
pub(super) const fn urgency(days: i64) -> &'static str {
    match days {
        ..7 => "bad",
        7..30 => "warn",
        _ => "good",
    }
}

/// A bar for each upstream: the days until the first certificate of its chain expires.
pub(super) fn days_left(to: &mut String, upstreams: &[UpstreamStatus], now: time::OffsetDateTime) -> fmt::Result {
    let mut dated: Vec<_> = upstreams.iter().filter_map(|of| Some((&of.upstream, of.earliest_not_after?.0))).collect();
    dated.sort_by_key(|(_, until)| *until);
    if dated.is_empty() {
        return Ok(());
    }
    to.write_str(
        "<figure><figcaption>Days until the first certificate of each chain expires</figcaption><ul class=\"days\">",
    )?;
    for (upstream, until) in dated {
        let days = days(until, now);
        let width = days.clamp(1, FULL) * 100 / FULL;
        write!(
            to,
            "<li><span>{}</span><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"track\" width=\"100\" height=\"10\"/><rect class=\"{}\" width=\"{width}\" height=\"10\"/></svg><b>{days}</b></li>",
            Text(upstream),
            urgency(days)
        )?;
    }
    to.write_str("</ul></figure>")
}

#[cfg(test)]
mod tests {
    use time::{Duration, macros::datetime};

    use super::*;

    #[test]
    fn days_are_whole_and_the_colour_follows_them() {
        let now = datetime!(2026-11-21 12:00 UTC);
        for (hours, left, class) in [(-1, -1, "bad"), (23, 0, "bad"), (7 * 24, 7, "warn"), (31 * 24, 31, "good")] {
            let days = days(now + Duration::hours(hours), now);
            assert_eq!((days, urgency(days)), (left, class), "{hours}");
        }
    }

    #[test]
    fn a_chart_has_a_bar_for_each_minute_with_something_in_it() {
        let mut counts = [0; MINUTES];
        (counts[0], counts[59]) = (1, 1000);
        let mut chart = String::new();
        minutes(&mut chart, "Refusals", "bad", &counts).unwrap();
        assert_eq!(chart.matches("<rect").count(), 2);
        assert!(chart.contains("height=\"3\"><title>1, 59 min ago<") && chart.contains("height=\"100\""), "{chart}");
        assert!(chart.contains("Refusals: 1001 in the last hour, at most 1000 a minute"), "{chart}");
    }
}
