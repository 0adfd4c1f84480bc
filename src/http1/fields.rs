//! Field lines as they came: raw bytes, in their order and case (RFC 9110 section 5, RFC 9112 section 5).
//!
//! A [`Fields`] owns the bytes of its message's head and knows where each line starts and ends. Lines that stay next
//! to each other are written in one copy, so that passing a field on costs nothing that depends on its contents.

use memchr::{memchr, memchr_iter};

/// The names that a proxy has to recognize. Everything else is passed on without a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldName {
    Authorization,
    Connection,
    ContentLength,
    ContentLocation,
    Destination,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    Link,
    Location,
    /// `X-Server-Management-Url` or `X-CDN-Management-Url`.
    ManagementUrl,
    MaxForwards,
    Origin,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Referer,
    Refresh,
    RequestId,
    SecFetchSite,
    SetCookie,
    StorageUrl,
    Te,
    Trailer,
    TransferEncoding,
    /// `Content_Length` or `Transfer_Encoding`, which gateways to CGI and WSGI take for the real one.
    FramingLookalike,
    Upgrade,
    Via,
    WwwAuthenticate,
    Other,
}

impl FieldName {
    /// Recognizes a name. Most names are settled by their length and first letter.
    pub fn of(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        let (found, known): (Self, &[u8]) = match (name.len(), first | 0x20) {
            (2, b't') => (Self::Te, b"te"),
            (3, b'v') => (Self::Via, b"via"),
            (4, b'h') => (Self::Host, b"host"),
            (4, b'l') => (Self::Link, b"link"),
            (6, b'e') => (Self::Expect, b"expect"),
            (6, b'o') => (Self::Origin, b"origin"),
            (7, b'u') => (Self::Upgrade, b"upgrade"),
            (7, b't') => (Self::Trailer, b"trailer"),
            (7, b'r') => match name[3] | 0x20 {
                b'e' => (Self::Referer, b"referer"),
                _ => (Self::Refresh, b"refresh"),
            },
            (8, b'l') => (Self::Location, b"location"),
            (10, b'c') => (Self::Connection, b"connection"),
            (10, b'k') => (Self::KeepAlive, b"keep-alive"),
            (10, b's') => (Self::SetCookie, b"set-cookie"),
            (11, b'd') => (Self::Destination, b"destination"),
            (12, b'm') => (Self::MaxForwards, b"max-forwards"),
            (13, b'a') => (Self::Authorization, b"authorization"),
            (13, b'x') => (Self::StorageUrl, b"x-storage-url"),
            (14, b'c') => match name[7] {
                b'_' => (Self::FramingLookalike, b"content_length"),
                _ => (Self::ContentLength, b"content-length"),
            },
            (14, b'h') => (Self::Http2Settings, b"http2-settings"),
            (14, b's') => (Self::SecFetchSite, b"sec-fetch-site"),
            (16, b'c') => (Self::ContentLocation, b"content-location"),
            (16, b'p') => (Self::ProxyConnection, b"proxy-connection"),
            (16, b'w') => (Self::WwwAuthenticate, b"www-authenticate"),
            (17, b't') => match name[8] {
                b'_' => (Self::FramingLookalike, b"transfer_encoding"),
                _ => (Self::TransferEncoding, b"transfer-encoding"),
            },
            (18, b'p') => (Self::ProxyAuthenticate, b"proxy-authenticate"),
            (19, b'p') => (Self::ProxyAuthorization, b"proxy-authorization"),
            (20, b'x') => (Self::ManagementUrl, b"x-cdn-management-url"),
            (23, b'x') => (Self::ManagementUrl, b"x-server-management-url"),
            (22, b'x') => (Self::RequestId, b"x-openstack-request-id"),
            _ => return Self::Other,
        };
        if name.eq_ignore_ascii_case(known) { found } else { Self::Other }
    }
}

/// A set of [`FieldName`]s, as bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct FieldNames(u64);

impl FieldNames {
    /// The set of these.
    pub const fn of(names: &[FieldName]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < names.len() {
            bits |= 1 << names[index] as u32;
            index += 1;
        }
        Self(bits)
    }

    /// Whether this name is in it.
    pub const fn contains(self, name: FieldName) -> bool {
        self.0 & (1 << name as u32) != 0
    }

    const fn insert(&mut self, name: FieldName) {
        self.0 |= 1 << name as u32;
    }
}

/// Where a line is within the text of its [`Fields`]. Offsets fit: a head is at most some megabytes.
#[derive(Clone, Copy, Debug)]
struct FieldLine {
    name: FieldName,
    start: u32,
    name_end: u32,
    value_start: u32,
    value_end: u32,
    /// Behind its CRLF.
    end: u32,
}

impl FieldLine {
    /// The line in the text that it is in, with its end.
    fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }
}

/// Whether a line can be copied as it is: it ends in CRLF and is not folded.
fn is_clean(line: &[u8]) -> bool {
    line.ends_with(b"\r\n") && memchr(b'\n', line) == Some(line.len() - 1)
}

/// Lines that a parser found in a head, before the head's bytes are taken over.
pub(super) struct ParsedLines {
    lines: Vec<FieldLine>,
    names: FieldNames,
    /// Whether all of them can be copied as they are.
    clean: bool,
}

impl ParsedLines {
    /// `head` is the head with its empty line.
    pub(super) fn find(head: &[u8], parsed: &[httparse::Header<'_>]) -> Self {
        let at = |part: &[u8]| part.as_ptr().addr() - head.as_ptr().addr();
        let empty_line = if head.ends_with(b"\r\n") { 2 } else { 1 };
        // Lines that the proxy adds find room without another allocation.
        let mut lines = Vec::with_capacity(parsed.len() + 4);
        let (mut clean, mut names) = (true, FieldNames::default());
        for (index, field) in parsed.iter().enumerate() {
            let name = field.name.as_bytes();
            let start = at(name);
            // The parser's empty values do not always lie within the head.
            let value = if field.value.is_empty() { start + name.len() + 1 } else { at(field.value) };
            let end = parsed.get(index + 1).map_or(head.len() - empty_line, |next| at(next.name.as_bytes()));
            clean &= head[..end].ends_with(b"\r\n");
            let known = FieldName::of(name);
            names.insert(known);
            lines.push(FieldLine {
                name: known,
                start: offset(start),
                name_end: offset(start + name.len()),
                value_start: offset(value),
                value_end: offset(value + field.value.len()),
                end: offset(end),
            });
        }
        Self { lines, names, clean }
    }

    /// Looks for folded lines, which only responses may have. A fold at either end of a value is not in the value.
    pub(super) fn with_folds(mut self, head: &[u8]) -> Self {
        // The start line and the empty line have one LF each, and so has each line that is not folded.
        self.clean &= memchr_iter(b'\n', head).count() == self.lines.len() + 2;
        self
    }
}

/// The field lines of one message, and the bytes they are in.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    lines: Vec<FieldLine>,
    /// The names of all lines, and perhaps of some that were removed: what is not among them needs no search.
    names: FieldNames,
}

/// One field line, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    pub name: FieldName,
    pub raw_name: &'a [u8],
    pub value: &'a [u8],
}

impl Field<'_> {
    /// Whether the field has this name, given in lower case.
    pub fn is(&self, name: &str) -> bool {
        self.raw_name.eq_ignore_ascii_case(name.as_bytes())
    }
}

impl Fields {
    /// Takes over a head's bytes and the lines that were found in them.
    pub(super) fn of(text: Vec<u8>, parsed: ParsedLines) -> Self {
        let mut fields = Self { text, lines: parsed.lines, names: parsed.names };
        if !parsed.clean {
            fields.normalize();
        }
        fields
    }

    /// Rewrites lines that do not end in CRLF (RFC 9112 section 2.2 lets a lone LF end a line of a head) or that
    /// are folded, with one space in place of each fold (section 5.2).
    fn normalize(&mut self) {
        for index in 0..self.lines.len() {
            let line = self.lines[index];
            if !is_clean(line.of(&self.text)) {
                let value = unfold(self.field(&line).value);
                self.lines[index] = self.write_line_named_as(line, &value);
            }
        }
    }

    /// The bytes of the whole head, with what was appended behind it.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Gives the bytes back, emptied, for the next head to be read into.
    pub fn into_buffer(self) -> Vec<u8> {
        let mut text = self.text;
        text.clear();
        text
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn field(&self, line: &FieldLine) -> Field<'_> {
        let text = |from: u32, to: u32| &self.text[from as usize..to as usize];
        Field {
            name: line.name,
            raw_name: text(line.start, line.name_end),
            value: text(line.value_start, line.value_end),
        }
    }

    /// All lines in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines.iter().map(|line| self.field(line))
    }

    /// Whether a line may have one of these names; where it is false, none has.
    pub fn may_have(&self, names: FieldNames) -> bool {
        self.names.0 & names.0 != 0
    }

    /// The values of all lines with this name.
    pub fn values(&self, name: FieldName) -> impl Iterator<Item = &[u8]> {
        let lines = if self.names.contains(name) { &self.lines[..] } else { &[] };
        lines.iter().filter(move |line| line.name == name).map(|line| self.field(line).value)
    }

    /// The value of the first line with this name.
    pub fn get(&self, name: FieldName) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// The value of the first line with a name that [`FieldName`] does not have, given in lower case. Lines of other
    /// lengths are not looked at.
    pub fn get_other(&self, name: &str) -> Option<&[u8]> {
        let fits =
            |line: &&FieldLine| line.name == FieldName::Other && (line.name_end - line.start) as usize == name.len();
        self.lines
            .iter()
            .filter(fits)
            .map(|line| self.field(line))
            .find(|field| field.is(name))
            .map(|field| field.value)
    }

    /// Whether a line has this name.
    pub fn contains(&self, name: FieldName) -> bool {
        self.names.contains(name) && self.lines.iter().any(|line| line.name == name)
    }

    /// Whether a list field (RFC 9110 section 5.6.1) has this member, given in lower case; parameters do not count.
    pub fn has_token(&self, name: FieldName, token: &str) -> bool {
        self.values(name).any(|value| tokens(value).any(|found| found.eq_ignore_ascii_case(token.as_bytes())))
    }

    /// Keeps the lines for which `keep` is true, with their order.
    pub fn retain(&mut self, mut keep: impl FnMut(Field<'_>) -> bool) {
        let Self { text, lines, .. } = self;
        lines.retain(|line| {
            let text = |from: u32, to: u32| &text[from as usize..to as usize];
            keep(Field {
                name: line.name,
                raw_name: text(line.start, line.name_end),
                value: text(line.value_start, line.value_end),
            })
        });
    }

    /// Removes all lines with one of these names.
    pub fn remove(&mut self, names: FieldNames) {
        if self.may_have(names) {
            self.lines.retain(|line| !names.contains(line.name));
        }
    }

    /// Appends a line.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        let line = self.write_line(name, value);
        self.lines.push(line);
    }

    /// Sets the one line with this name where its first line is, with the name as it came; where there was none, it goes
    /// first, with the name as `written`.
    pub fn set(&mut self, name: FieldName, written: &[u8], value: &[u8]) {
        let Some(first) = self.lines.iter().position(|line| line.name == name) else {
            let line = self.write_line(written, value);
            self.lines.insert(0, line);
            return;
        };
        self.lines[first] = self.write_line_named_as(self.lines[first], value);
        while let Some(other) = self.lines[first + 1..].iter().position(|line| line.name == name) {
            self.lines.remove(first + 1 + other);
        }
    }

    /// Replaces the values of lines with these names in place; `None` leaves a line as it came.
    pub fn map_values(&mut self, names: FieldNames, mut with: impl FnMut(Field<'_>) -> Option<Vec<u8>>) {
        if !self.may_have(names) {
            return;
        }
        for index in 0..self.lines.len() {
            let field = self.field(&self.lines[index]);
            if !names.contains(field.name) {
                continue;
            }
            // A value that could end its line is never written.
            let value = with(field).filter(|value| value.iter().all(|byte| is_value_byte(*byte)));
            if let Some(value) = value {
                self.lines[index] = self.write_line_named_as(self.lines[index], &value);
            }
        }
    }

    /// Rewrites the case of all names.
    pub fn map_names(&mut self, with: impl Fn(&mut [u8])) {
        for line in &self.lines {
            with(&mut self.text[line.start as usize..line.name_end as usize]);
        }
    }

    fn write_line(&mut self, name: &[u8], value: &[u8]) -> FieldLine {
        self.text.reserve(name.len() + value.len() + 4);
        let start = self.text.len();
        self.text.extend_from_slice(name);
        let known = FieldName::of(name);
        self.names.insert(known);
        self.write_value(known, start, value)
    }

    /// Another line with the name of this one, as it came.
    fn write_line_named_as(&mut self, line: FieldLine, value: &[u8]) -> FieldLine {
        let start = self.text.len();
        self.text.extend_from_within(line.start as usize..line.name_end as usize);
        self.write_value(line.name, start, value)
    }

    /// The rest of a line behind its name.
    fn write_value(&mut self, name: FieldName, start: usize, value: &[u8]) -> FieldLine {
        let name_end = self.text.len();
        self.text.extend_from_slice(b": ");
        self.text.extend_from_slice(value);
        self.text.extend_from_slice(b"\r\n");
        let value_start = name_end + 2;
        FieldLine {
            name,
            start: offset(start),
            name_end: offset(name_end),
            value_start: offset(value_start),
            value_end: offset(value_start + value.len()),
            end: offset(self.text.len()),
        }
    }

    /// Writes all lines, without the empty one that ends a head.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut lines = self.lines.iter().peekable();
        while let Some(first) = lines.next() {
            let mut end = first.end;
            while let Some(next) = lines.next_if(|next| next.start == end) {
                end = next.end;
            }
            out.extend_from_slice(&self.text[first.start as usize..end as usize]);
        }
    }
}

fn offset(at: usize) -> u32 {
    // Heads are limited far below; a larger one would be cut, not read wrongly: slicing checks its bounds.
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// `field-vchar`, spaces and tabs (RFC 9110 section 5.5).
fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// `tchar` (RFC 9110 section 5.6.2).
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The members of a list value, without parameters and empty members.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = value.split(|byte| *byte == b',');
    members
        .map(|member| member.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
        .filter(|token| !token.is_empty())
}

/// A folded value on one line (RFC 9112 section 5.2).
fn unfold(value: &[u8]) -> Vec<u8> {
    let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(&b' ')
}

#[cfg(test)]
impl Fields {
    /// Field lines for tests.
    pub(super) fn of_lines(lines: &[(&str, &str)]) -> Self {
        let mut fields = Self::default();
        for (name, value) in lines {
            fields.append(name.as_bytes(), value.as_bytes());
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(fields: &Fields) -> String {
        let mut out = Vec::new();
        fields.write_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_known_name_is_recognized_in_any_case_and_nothing_else_is() {
        for (name, known) in [
            ("Authorization", FieldName::Authorization),
            ("connection", FieldName::Connection),
            ("CONTENT-LENGTH", FieldName::ContentLength),
            ("Content_Length", FieldName::FramingLookalike),
            ("content_length", FieldName::FramingLookalike),
            ("Content-Location", FieldName::ContentLocation),
            ("Destination", FieldName::Destination),
            ("Expect", FieldName::Expect),
            ("hOsT", FieldName::Host),
            ("HTTP2-Settings", FieldName::Http2Settings),
            ("Keep-Alive", FieldName::KeepAlive),
            ("Link", FieldName::Link),
            ("Location", FieldName::Location),
            ("Max-Forwards", FieldName::MaxForwards),
            ("Origin", FieldName::Origin),
            ("Proxy-Authenticate", FieldName::ProxyAuthenticate),
            ("Proxy-Authorization", FieldName::ProxyAuthorization),
            ("Proxy-Connection", FieldName::ProxyConnection),
            ("Referer", FieldName::Referer),
            ("Refresh", FieldName::Refresh),
            ("X-Openstack-Request-Id", FieldName::RequestId),
            ("Sec-Fetch-Site", FieldName::SecFetchSite),
            ("Set-Cookie", FieldName::SetCookie),
            ("X-Storage-Url", FieldName::StorageUrl),
            ("TE", FieldName::Te),
            ("Trailer", FieldName::Trailer),
            ("Transfer-Encoding", FieldName::TransferEncoding),
            ("transfer_Encoding", FieldName::FramingLookalike),
            ("Upgrade", FieldName::Upgrade),
            ("Via", FieldName::Via),
            ("WWW-Authenticate", FieldName::WwwAuthenticate),
            ("", FieldName::Other),
            ("T", FieldName::Other),
            ("xe", FieldName::Other),
            ("referes", FieldName::Other),
            ("content-lengtH ", FieldName::Other),
            ("x-auth-token", FieldName::Other),
        ] {
            assert_eq!(FieldName::of(name.as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn removing_keeps_the_order_and_case_of_the_others() {
        let mut fields =
            Fields::of_lines(&[("A", "1"), ("Connection", "x"), ("b", "2"), ("connection", "y"), ("C", "3")]);
        fields.remove(FieldNames::of(&[FieldName::Connection]));
        assert_eq!(written(&fields), "A: 1\r\nb: 2\r\nC: 3\r\n");
        fields.retain(|field| !field.is("b"));
        assert_eq!(written(&fields), "A: 1\r\nC: 3\r\n");
    }

    #[test]
    fn a_field_is_set_where_it_was_or_first() {
        let mut with = Fields::of_lines(&[("accept", "x"), ("HOST", "a"), ("host", "b")]);
        with.set(FieldName::Host, b"Host", b"c:1");
        assert_eq!(written(&with), "accept: x\r\nHOST: c:1\r\n");
        let mut without = Fields::of_lines(&[("accept", "x")]);
        without.set(FieldName::Host, b"Host", b"c:1");
        assert_eq!(written(&without), "Host: c:1\r\naccept: x\r\n");
    }

    #[test]
    fn a_value_that_could_end_its_line_is_not_written() {
        let mut fields = Fields::of_lines(&[("Location", "a")]);
        let location = FieldNames::of(&[FieldName::Location]);
        fields.map_values(location, |_| Some(b"b\r\nSet-Cookie: c".to_vec()));
        assert_eq!(written(&fields), "Location: a\r\n");
        fields.map_values(location, |_| Some(b"caf\xc3\xa9".to_vec()));
        assert_eq!(written(&fields), "Location: caf\u{e9}\r\n");
    }

    #[test]
    fn list_members_are_found_without_their_parameters() {
        let fields = Fields::of_lines(&[("te", "gzip, Trailers;q=1"), ("connection", "x"), ("Connection", ",close ,")]);
        assert!(fields.has_token(FieldName::Te, "trailers"));
        assert!(fields.has_token(FieldName::Connection, "close"));
        assert!(!fields.has_token(FieldName::Connection, "keep-alive"));
    }
}
