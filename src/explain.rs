//! `vouchsafe explain`: the entries of docs/failures.md, which are compiled in.

use crate::{
    config::{error::ConfigError, suggest::nearest},
    text::show_value,
};

const FAILURES: &str = include_str!("../docs/failures.md");

/// The entry of a code as plain text; without a code, the list of all codes.
///
/// # Errors
/// [`ConfigError`] for an unknown code, with the nearest one.
pub fn explain(code: Option<&str>) -> Result<String, ConfigError> {
    let Some(code) = code else { return Ok(list()) };
    let wanted = code.trim().to_ascii_lowercase().replace('-', "_");
    if let Some((heading, body)) = entries().find(|(heading, _)| *heading == wanted) {
        return Ok(format!("{heading}\n\n{}\n", plain(body.trim())));
    }
    let hint = match nearest(&wanted, codes()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "`vouchsafe explain` lists all codes".into(),
    };
    Err(ConfigError::one(format!("unknown code `{}`\nhint: {hint}", show_value(code))))
}

/// Every code that has an entry.
pub fn codes() -> impl Iterator<Item = &'static str> {
    entries().map(|(heading, _)| heading)
}

/// The headings and texts of all entries.
fn entries() -> impl Iterator<Item = (&'static str, &'static str)> {
    parts().flat_map(|(_, part)| entries_of(part))
}

/// The titles and texts of the parts that have entries.
fn parts() -> impl Iterator<Item = (&'static str, &'static str)> {
    FAILURES.split("\n# Part ").skip(1).filter_map(|part| part.split_once('\n'))
}

fn entries_of(part: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    part.split("\n## ").skip(1).filter_map(|entry| entry.split_once('\n'))
}

fn list() -> String {
    let mut text = String::new();
    for (title, part) in parts() {
        let title = title.split_once(": ").map_or(title, |(_, title)| title);
        text += &format!("{title}:\n");
        for (heading, body) in entries_of(part) {
            text += &format!("  {heading:<26}  {}\n", meaning(body));
        }
        text.push('\n');
    }
    text + "`vouchsafe explain CODE` says how it comes about and what to do.\n"
}

/// The first sentence of what a code means.
fn meaning(body: &str) -> String {
    let Some((_, means)) = body.split_once("Means.**") else { return String::new() };
    let paragraph = means.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = paragraph.split_whitespace().collect();
    let text = plain(&words.join(" "));
    text.split_once(". ").map_or(text.trim_end_matches('.'), |(sentence, _)| sentence).to_owned()
}

/// Markdown as plain text: without emphasis, links as their text, code blocks indented.
fn plain(markdown: &str) -> String {
    let mut in_block = false;
    let mut lines = Vec::new();
    for line in markdown.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            lines.push(if line.is_empty() { String::new() } else { format!("    {line}") });
        } else if line.starts_with("<!-- ") {
            // For the test that runs the block below it.
        } else {
            lines.push(without_links(&line.replace("**", "")));
        }
    }
    lines.join("\n")
}

/// `[text](target)` as `text`, and `<a id="…"></a>` as nothing.
fn without_links(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(['[', '<']) {
        let (before, from) = rest.split_at(start);
        text += before;
        let link = from.strip_prefix('[').and_then(|link| {
            let (words, target) = link.split_once("](")?;
            (!words.contains([']', '['])).then_some(())?;
            Some((words, target.split_once(')')?.1))
        });
        let anchor = from.strip_prefix("<a id=").and_then(|anchor| Some(("", anchor.split_once("</a>")?.1)));
        (text, rest) = match link.or(anchor) {
            Some((words, after)) => (text + words, after),
            None => (text + &from[..1], &from[1..]),
        };
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_plain_text() {
        for (markdown, expected) in [
            ("**Means.** See [why](#x), `[a]` and [b](c.md#d).", "Means. See why, `[a]` and b."),
            ("<a id=\"x\"></a>**To** go", "To go"),
            ("a\n```sh\nb < c\n\nd\n```\ne", "a\n    b < c\n\n    d\ne"),
            ("a\n\n<!-- not run: b -->\n```sh\nc\n```", "a\n\n    c"),
            ("`presented=[\"x\"]` stays [", "`presented=[\"x\"]` stays ["),
        ] {
            assert_eq!(plain(markdown), expected);
        }
    }

    #[test]
    fn a_code_may_be_written_in_any_case_and_with_hyphens() {
        assert_eq!(explain(Some("Name-Mismatch")).unwrap(), explain(Some("name_mismatch")).unwrap());
    }
}
