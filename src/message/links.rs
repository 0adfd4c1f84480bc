//! The response fields that tell a client where to go next, and the references in them.
//!
//! | field | references |
//! |---|---|
//! | `Location`, `Content-Location` (RFC 9110 sections 10.2.2, 8.7), `X-Storage-Url` (Swift), `X-CDN-Management-Url`, `X-Server-Management-Url` (authentication v1) | the whole value |
//! | `Link` (RFC 8288 section 3) | the target `<…>` of each link; its parameters are left alone |
//! | `Refresh` (a browser's own, of HTML's `http-equiv`) | behind `url=`, in quotes or not |
//! | `WWW-Authenticate` | `uri=` of each `Keystone` challenge: in single quotes, as Keystone long wrote it, in double quotes, or in none; `realm=` of each `Bearer` challenge, where registries of containers have the URL of their tokens |
//!
//! A value is replaced as a whole or not at all; all but the replaced references stays byte for byte.

use std::{iter, ops::Range};

use crate::http1::fields::{FieldName, FieldNames, Fields};

/// How references stand in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkShape {
    /// In challenges.
    Challenges,
    /// In a list of links.
    Links,
    /// Behind a delay.
    Refresh,
    /// The value is one.
    Whole,
}

impl LinkShape {
    fn of(name: FieldName) -> Option<Self> {
        match name {
            FieldName::Location | FieldName::ContentLocation | FieldName::ManagementUrl | FieldName::StorageUrl => {
                Some(Self::Whole)
            }
            FieldName::Link => Some(Self::Links),
            FieldName::Refresh => Some(Self::Refresh),
            FieldName::WwwAuthenticate => Some(Self::Challenges),
            _ => None,
        }
    }
}

/// The fields that have references.
const WITH_REFERENCES: FieldNames = FieldNames::of(&[
    FieldName::ContentLocation,
    FieldName::Link,
    FieldName::Location,
    FieldName::ManagementUrl,
    FieldName::Refresh,
    FieldName::StorageUrl,
    FieldName::WwwAuthenticate,
]);

/// Replaces the references in all fields that have them, each by what `with` makes of it; `None` leaves it alone. The
/// lines stay in their places. Where there is no such field nothing is allocated.
pub fn rewrite(fields: &mut Fields, mut with: impl FnMut(&str) -> Option<String>) {
    fields.map_values(WITH_REFERENCES, |field| {
        let shape = LinkShape::of(field.name)?;
        replace(shape, str::from_utf8(field.value).ok()?, &mut with).map(String::into_bytes)
    });
}

/// A value with its references replaced; None where all of it stays.
pub fn replace(shape: LinkShape, value: &str, mut with: impl FnMut(&str) -> Option<String>) -> Option<String> {
    let mut replaced = None;
    let mut copied = 0;
    for range in references(shape, value) {
        let Some(new) = with(&value[range.clone()]) else { continue };
        let text: &mut String = replaced.get_or_insert_default();
        text.push_str(&value[copied..range.start]);
        text.push_str(&new);
        copied = range.end;
    }
    let mut text = replaced?;
    text.push_str(&value[copied..]);
    Some(text)
}

/// Where the references stand, in order.
fn references(shape: LinkShape, value: &str) -> Vec<Range<usize>> {
    match shape {
        LinkShape::Challenges => Items::of(value).challenges(),
        LinkShape::Links => Items::of(value).links(),
        LinkShape::Refresh => refresh(value).into_iter().collect(),
        LinkShape::Whole => iter::once(0..value.len()).collect(),
    }
}

/// The parameter of a challenge of this scheme that is a URL.
fn url_parameter(scheme: &str) -> Option<&'static str> {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("keystone") => Some("uri"),
        _ if scheme.eq_ignore_ascii_case("bearer") => Some("realm"),
        _ => None,
    }
}

/// `5; url=https://…`, as browsers read it: the delay, then `url=` in any case, and quotes that may be there.
fn refresh(value: &str) -> Option<Range<usize>> {
    let behind = value.find([';', ','])? + 1;
    let rest = value[behind..].trim_start();
    let url = rest.get(..3).filter(|name| name.eq_ignore_ascii_case("url"))?;
    let rest = rest[url.len()..].trim_start().strip_prefix('=')?.trim_start();
    let start = value.len() - rest.len();
    match rest.chars().next()? {
        quote @ ('"' | '\'') => Some(start + 1..start + 1 + rest[1..].find(quote)?),
        _ => Some(start..start + rest.trim_end().len()),
    }
}

/// A reader of lists whose items may hold quoted texts with commas.
struct Items<'a> {
    value: &'a str,
    at: usize,
}

impl<'a> Items<'a> {
    fn of(value: &'a str) -> Self {
        Self { value, at: 0 }
    }

    /// None at all where one link is not as it should be: the rest could be read in two ways.
    fn links(mut self) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        while self.next_item() {
            let start = self.at + 1;
            let target = self.rest().strip_prefix('<').and_then(|rest| Some(start..start + rest.find('>')?));
            let Some(target) = target else { return Vec::new() };
            self.at = target.end + 1;
            found.push(target);
            if !self.skip_item() {
                return Vec::new();
            }
        }
        found
    }

    /// A list of challenges and of their parameters is the same list (RFC 9110 section 11.6.1): an item that begins
    /// with a word and a space begins a challenge.
    fn challenges(mut self) -> Vec<Range<usize>> {
        let mut found = Vec::new();
        let mut parameter = None;
        while self.next_item() {
            let mut word = self.word();
            self.skip(" \t");
            if !self.rest().starts_with('=') {
                parameter = url_parameter(word);
                word = self.word();
                self.skip(" \t");
            }
            let is_url = parameter.is_some_and(|name| word.eq_ignore_ascii_case(name));
            if is_url && self.rest().starts_with('=') {
                self.at += 1;
                self.skip(" \t");
                found.extend(self.quoted());
            }
            if !self.skip_item() {
                return Vec::new();
            }
        }
        found
    }

    /// What stands between quotes, or up to the end of the item where there are none.
    fn quoted(&mut self) -> Option<Range<usize>> {
        let rest = self.rest();
        let (start, end) = match rest.chars().next()? {
            quote @ ('"' | '\'') => (self.at + 1, rest[1..].find(quote)?),
            _ => (self.at, rest.find([',', ' ', '\t']).unwrap_or(rest.len())),
        };
        let text = start..start + end;
        if rest.starts_with('\'') {
            // Only double quotes are known to whoever skips the rest of the item.
            self.at = text.end + 1;
        }
        // A quote inside would be read in another way by whoever looks for the end of the item.
        let plain = rest.starts_with(['"', '\'']) || !self.value[text.clone()].contains('"');
        plain.then_some(text)
    }

    fn rest(&self) -> &'a str {
        &self.value[self.at..]
    }

    /// Moves to the next item that is not empty; false at the end.
    fn next_item(&mut self) -> bool {
        self.skip(", \t");
        self.at < self.value.len()
    }

    /// Moves behind this item; false where a quoted text has no end.
    fn skip_item(&mut self) -> bool {
        let mut quoted = false;
        let mut bytes = self.rest().bytes().enumerate();
        while let Some((offset, byte)) = bytes.next() {
            match byte {
                b'"' => quoted = !quoted,
                b'\\' if quoted => _ = bytes.next(),
                b',' if !quoted => {
                    self.at += offset;
                    return true;
                }
                _ => {}
            }
        }
        self.at = self.value.len();
        !quoted
    }

    /// A word of the letters that schemes and parameters are named with, perhaps empty.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest.find(['=', ',', ' ', '\t', '"', '\'']).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip(&mut self, these: &str) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(|c| these.contains(c)).len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(shape: LinkShape, value: &str) -> Vec<&str> {
        references(shape, value).into_iter().map(|range| &value[range]).collect()
    }

    #[test]
    fn links_have_their_targets_in_angles() {
        for (value, expected) in [
            ("<https://a/>; rel=next", &["https://a/"][..]),
            ("<https://a/?x=1,2>; rel=\"next, last\", </b>;rel=x", &["https://a/?x=1,2", "/b"]),
            (",, <a> , , <b>", &["a", "b"]),
            ("<a>; title=\"<https://b/>, \\\" <c>\"; rel=x,<d>", &["a", "d"]),
            ("<>", &[""]),
            ("", &[]),
            ("https://a/", &[]),
            ("<https://a/", &[]),
            ("<a>, b", &[]),
            ("<a>; title=\"b, <c>", &[]),
        ] {
            assert_eq!(found(LinkShape::Links, value), expected, "{value}");
        }
    }

    #[test]
    fn keystone_challenges_name_where_tokens_are_had() {
        for (value, expected) in [
            ("Keystone uri='https://k:5000'", &["https://k:5000"][..]),
            ("Keystone uri=\"https://k:5000/v3\"", &["https://k:5000/v3"]),
            ("keystone URI = https://k:5000", &["https://k:5000"]),
            ("Basic realm=\"a, Keystone uri='x'\", Keystone realm=\"b\", uri='https://k', Basic x=y", &["https://k"]),
            ("Keystone uri='a', Keystone uri='b'", &["a", "b"]),
            ("Bearer realm=\"https://r/token\",service=\"r\", uri=x", &["https://r/token"]),
            ("Basic realm=\"https://r/\"", &[]),
            ("Keystone uri='a,b', uri=\"c\"", &["a,b", "c"]),
            ("Basic uri='https://k'", &[]),
            ("Keystone realm=x, Negotiate, uri='x'", &[]),
            ("Negotiate YWJj==, Keystone uri='x'", &["x"]),
            ("Keystone realm='uri=x'", &[]),
            ("Keystone uri=https://a/?x=\" , y=\"", &[]),
            ("Keystone", &[]),
            ("Keystone uri", &[]),
            ("Keystone uri=", &[]),
            ("Keystone uri='https://k", &[]),
            ("Keystone uri=\"https://k", &[]),
            ("Keystone uri='a', Basic realm=\"b", &[]),
            ("", &[]),
            ("=,'\"\\\",\"", &[]),
        ] {
            assert_eq!(found(LinkShape::Challenges, value), expected, "{value}");
        }
    }

    #[test]
    fn only_references_are_replaced() {
        let upper = |text: &str| (text != "no").then(|| text.to_uppercase());
        for (shape, value, expected) in [
            (LinkShape::Whole, "abc", Some("ABC")),
            (LinkShape::Whole, "no", None),
            (LinkShape::Links, " <a> ;b=c,\t<no>, <d>", Some(" <A> ;b=c,\t<no>, <D>")),
            (LinkShape::Links, "<no>", None),
            (
                LinkShape::Challenges,
                "Basic  x=y , Keystone uri = 'a' ,z=w",
                Some("Basic  x=y , Keystone uri = 'A' ,z=w"),
            ),
        ] {
            assert_eq!(replace(shape, value, upper).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn a_refresh_names_its_url_behind_the_delay() {
        for (value, expected) in [
            ("5; url=https://a/b", &["https://a/b"][..]),
            ("0;URL='https://a'", &["https://a"]),
            ("0, url = \"https://a\" ", &["https://a"]),
            ("5", &[]),
            ("5;", &[]),
            ("5; https://a", &[]),
            ("0;url=", &[]),
            ("0;url='x", &[]),
        ] {
            assert_eq!(found(LinkShape::Refresh, value), expected, "{value}");
        }
    }

    #[test]
    fn lines_stay_in_their_places() {
        let mut fields = Fields::default();
        for (name, value) in [
            ("link", "<a>"),
            ("date", "x"),
            ("X-Storage-Url", "b"),
            ("X-Server-Management-Url", "s"),
            ("x-cdn-management-url", "u"),
            ("Link", "<c>"),
            ("location", "d"),
            ("content-location", "e"),
            ("www-authenticate", "Keystone uri=f"),
        ] {
            fields.append(name.as_bytes(), value.as_bytes());
        }
        rewrite(&mut fields, |text| Some(text.to_uppercase()));
        let mut out = Vec::new();
        fields.write_to(&mut out);
        let expected = "link: <A>\r\ndate: x\r\nX-Storage-Url: B\r\nX-Server-Management-Url: S\r\n\
                        x-cdn-management-url: U\r\nLink: <C>\r\nlocation: D\r\n\
                        content-location: E\r\nwww-authenticate: Keystone uri=F\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
