//! HTML pages for people, each in one piece: how text gets into them, and the style that they share.
//!
//! A page has no script, no font, no picture and no style from elsewhere.

use std::fmt::{self, Write as _};

/// A text in HTML, also within the quotes of an attribute: no part of it is markup. It does not replace
/// [`crate::text::escape`], which a text from outside needs before, since HTML has no escape that shows a character
/// which reorders or hides others.
#[derive(Clone, Copy, Debug)]
pub struct Html<'a>(pub &'a str);

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// The style of all pages, light or dark as the reader's system is, for the `style` element.
pub const STYLE: &str = include_str!("html/style.css");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_markup() {
        let text = "<script>alert('1')</script> & \"ü\"";
        assert_eq!(Html(text).to_string(), "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &amp; &quot;ü&quot;");
    }
}
