//! The charts of the page, as inline SVG. Colours are those of the style sheet's classes.

use std::fmt::{self, Write};

use time::OffsetDateTime;

use crate::{admin::status::UpstreamStatus, html::Html, metrics::history::MINUTES};

use super::{days, urgency};

/// The size of a chart of minutes in its own units: ten for each.
const WIDTH: usize = 10 * MINUTES;
const HEIGHT: u64 = 100;

/// A bar for each minute of the last hour.
pub(super) fn minutes(to: &mut String, what: &str, class: &str, counts: &[u64]) -> fmt::Result {
    let (most, sum) = (counts.iter().copied().max().unwrap_or(0), counts.iter().sum::<u64>());
    let caption = match most {
        0 => format!("{what}: none in the last hour"),
        _ => format!("{what}: {sum} in the last hour, at most {most} a minute"),
    };
    write!(
        to,
        "<figure><figcaption class=\"soft small\">{caption}</figcaption><svg class=\"{class}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{caption}\">"
    )?;
    for (minute, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        // What is there at all can be seen.
        let height = (count * HEIGHT / most.max(1)).max(3);
        let ago = counts.len() - 1 - minute;
        write!(
            to,
            "<rect x=\"{}\" y=\"{}\" width=\"8\" height=\"{height}\"><title>{count}, {ago} min ago</title></rect>",
            10 * minute + 1,
            HEIGHT - height
        )?;
    }
    to.write_str(
        "</svg><p class=\"axis soft small\"><span>60 min ago</span><span>30 min ago</span><span>now</span></p></figure>",
    )
}

/// Days at which a bar is full.
const FULL: i64 = 90;

/// Upstreams that have a bar.
const MOST_BARS: usize = 8;

/// A bar for each upstream: the days until the first certificate of its chain expires.
pub(super) fn days_left(to: &mut String, upstreams: &[UpstreamStatus], now: OffsetDateTime) -> fmt::Result {
    let mut dated: Vec<_> = upstreams.iter().filter_map(|of| Some((of.earliest_not_after?.0, &of.upstream))).collect();
    dated.sort();
    to.write_str("<figure><figcaption class=\"soft small\">Days until the first certificate of a chain expires")?;
    match dated.len().saturating_sub(MOST_BARS) {
        _ if dated.is_empty() => to.write_str(": none has been presented")?,
        0 => {}
        more => write!(to, "; {more} with more days are not shown")?,
    }
    to.write_str("</figcaption><ul class=\"days small\">")?;
    for (until, upstream) in dated.into_iter().take(MOST_BARS) {
        let (days, upstream) = (days(until, now), Html(upstream));
        let (class, width) = (urgency(days), days.clamp(1, FULL) * 100 / FULL);
        write!(
            to,
            "<li><span>{upstream}</span><b>{days}</b><svg class=\"{class}\" viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect class=\"base\" width=\"100\" height=\"10\"/><rect width=\"{width}\" height=\"10\"/></svg></li>"
        )?;
    }
    to.write_str("</ul></figure>")
}

#[cfg(test)]
mod tests {
    use super::*;

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
