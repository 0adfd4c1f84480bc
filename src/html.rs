//! HTML pages for people, each in one piece: how text gets into them, and the style that they share.
//!
//! A page has no font, no picture, no style and no script from elsewhere.

use std::fmt::{self, Write};

use crate::text::is_visible;

/// Something as text in HTML, also within the quotes of an attribute: no part of it is markup, and no character in it
/// reorders or hides others. A text from outside is to be [escaped](crate::text::escape) before, which shows such
/// characters; here each becomes U+FFFD.
#[derive(Clone, Copy, Debug)]
pub struct Html<T>(pub T);

impl<T: fmt::Display> fmt::Display for Html<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(AsHtml(f), "{}", self.0)
    }
}

struct AsHtml<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for AsHtml<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match c {
            '&' => self.0.write_str("&amp;"),
            '<' => self.0.write_str("&lt;"),
            '>' => self.0.write_str("&gt;"),
            '"' => self.0.write_str("&quot;"),
            '\'' => self.0.write_str("&#39;"),
            c if c == '\n' || is_visible(c) => self.0.write_char(c),
            _ => self.0.write_char(char::REPLACEMENT_CHARACTER),
        })
    }
}

/// A message as a sentence: with a capital letter and a full stop.
pub fn sentence(message: &str) -> String {
    let mut chars = message.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).chain(['.']).collect())
}

/// The style of all pages, light or dark as the reader's system is, for the `style` element.
pub const STYLE: &str = include_str!("html/style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_markup_or_moves_the_text_around_it() {
        let text = "<script>alert('1')</script> & \"ü\u{202e}gnp.exe\u{7}\"\n";
        let shown = "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;ü\u{fffd}gnp.exe\u{fffd}&quot;\n";
        assert_eq!(Html(text).to_string(), shown);
    }
}
