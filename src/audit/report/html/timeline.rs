//! The time line of the page: a picture of all events, and one for each upstream and code, over the same time.

use std::io::{self, Write};

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::class;
use crate::{
    audit::{
        report::plural,
        summary::{Group, Summary},
        timeline::{Scale, Timeline},
    },
    html::Html,
};

/// So many groups have a picture.
const MOST_LANES: usize = 40;

/// The height of a picture in its own units.
const HEIGHT: u64 = 40;

/// Writes the section.
pub(super) fn section(summary: &Summary, groups: &[&Group], to: &mut impl Write) -> io::Result<()> {
    let Some(scale) = summary.timeline().scale() else { return Ok(()) };
    writeln!(to, "<section>\n<h2>Time line</h2>\n<div class=\"card\">")?;
    let span = length(scale.length);
    writeln!(
        to,
        "<p class=\"soft small\">Each bar is {span} (UTC); repeats are counted at the time of the last one.</p>"
    )?;
    lane("all events", "", summary.timeline(), scale, to)?;
    axis(scale, to)?;
    if groups.len() > 1 {
        for group in groups.iter().take(MOST_LANES) {
            let title = format!("{} {}", group.name, group.code);
            lane(title.trim_end(), class(&group.action), &group.timeline, scale, to)?;
        }
        axis(scale, to)?;
    }
    let more = groups.len().saturating_sub(MOST_LANES);
    if more > 0 {
        writeln!(to, "<p class=\"soft small\">{} more without a picture.</p>", plural(more as u64, "group"))?;
    }
    writeln!(to, "</div>\n</section>")
}

/// A picture and its title. The highest bar is as high as the picture, and says how much it is.
fn lane(title: &str, class: &str, timeline: &Timeline, scale: Scale, to: &mut impl Write) -> io::Result<()> {
    let counts = timeline.counts(scale);
    let highest = counts.iter().copied().max().unwrap_or(0).max(1);
    let total = counts.iter().fold(0, |sum: u64, count| sum.saturating_add(*count));
    let label = format!("{title}: {}, at most {highest} in a bar", plural(total, "event"));
    writeln!(
        to,
        "<p class=\"lane small\"><span>{}</span><span class=\"soft\">{}</span></p>",
        Html(title),
        plural(total, "event")
    )?;
    writeln!(
        to,
        "<svg class=\"{class}\" viewBox=\"0 0 {} {HEIGHT}\" height=\"{HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{}\"><rect class=\"base\" y=\"{}\" width=\"{}\" height=\"1\"/>",
        scale.spans,
        Html(&label),
        HEIGHT - 1,
        scale.spans
    )?;
    for (span, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        // A single event among many is still seen.
        let height = (u128::from(count) * u128::from(HEIGHT) / u128::from(highest)).max(3);
        writeln!(
            to,
            "<rect x=\"{span}\" y=\"{}\" width=\".9\" height=\"{height}\"><title>{}: {}</title></rect>",
            u128::from(HEIGHT) - height,
            moment(scale.start(span)),
            plural(count, "event")
        )?;
    }
    writeln!(to, "</svg>")
}

/// The times below the pictures.
fn axis(scale: Scale, to: &mut impl Write) -> io::Result<()> {
    let marks = [0, scale.spans / 2, scale.spans].map(|span| moment(scale.start(span)));
    writeln!(to, "<p class=\"axis soft small\"><span>{}</span></p>", marks.join("</span><span>"))
}

/// The length of a span.
fn length(seconds: i64) -> String {
    let (count, unit) = match seconds {
        86_400.. => (seconds / 86_400, "day"),
        3_600.. => (seconds / 3_600, "hour"),
        _ => (seconds / 60, "minute"),
    };
    plural(count.unsigned_abs(), unit)
}

fn moment(seconds: i64) -> String {
    const MINUTES: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]");
    let at = OffsetDateTime::from_unix_timestamp(seconds).ok();
    at.and_then(|at| at.format(MINUTES).ok()).unwrap_or_default()
}
