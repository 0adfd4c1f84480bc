//! The fields a proxy must touch (RFC 9110 sections 7.6 and 7.8), and nothing else.
//!
//! - [`strip_request`] and [`strip_response`] remove what belongs to one connection, in either direction: the fixed list and whatever
//!   any `Connection` line nominates, except fields that framing or security stand on.
//! - a [`Pseudonym`] writes and reads `Via`, which is how loops are found.
//!
//! The order of the remaining fields and their case stay as they came.

use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPECT, HOST,
        LOCATION, MAX_FORWARDS, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRANSFER_ENCODING, UPGRADE,
        VIA, WWW_AUTHENTICATE,
    },
};

/// Fields that end at each hop whether nominated or not. `Transfer-Encoding` is looked at by
/// [`chunked_only`] and then kept: the framing goes on as it came. `Trailer` announces what goes on.
static HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    UPGRADE,
];

/// A nomination of one of these is ignored: taking it away would change where a message ends, whom it
/// is for, or what it may do.
static NEVER_NOMINATED: [HeaderName; 19] = [
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    HOST,
    LOCATION,
    MAX_FORWARDS,
    SET_COOKIE,
    TRANSFER_ENCODING,
    VIA,
    WWW_AUTHENTICATE,
    HeaderName::from_static("trailer"),
    HeaderName::from_static("x-auth-token"),
    HeaderName::from_static("x-service-token"),
    HeaderName::from_static("x-subject-token"),
    HeaderName::from_static("x-openstack-request-id"),
];

/// Removes the hop-by-hop fields of a request; of `TE`, `trailers` goes on (RFC 9110 section 10.1.4), and of `Upgrade`
/// `websocket`, where the request may have that.
pub fn strip_request(fields: &mut HeaderMap, websocket: bool) {
    let trailers = has_token(fields, &TE, "trailers");
    if !trailers {
        return strip_but_websocket(fields, websocket);
    }
    strip(fields, |name| name == TE || name == CONNECTION || websocket && name == UPGRADE);
    fields.insert(TE, HeaderValue::from_static("trailers"));
    if websocket {
        fields.insert(UPGRADE, WEBSOCKET);
    }
    fields.insert(CONNECTION, HeaderValue::from_static(if websocket { "TE, Upgrade" } else { "TE" }));
}

/// Removes the hop-by-hop fields of a response, but for `Upgrade: websocket` in one that switches to it.
pub fn strip_response(fields: &mut HeaderMap, websocket: bool) {
    strip_but_websocket(fields, websocket);
}

fn strip_but_websocket(fields: &mut HeaderMap, websocket: bool) {
    if !websocket {
        return strip(fields, |_| false);
    }
    strip(fields, |name| name == CONNECTION || name == UPGRADE);
    fields.insert(UPGRADE, WEBSOCKET);
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
}

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// Whether a message wants to go on as websocket, or does (RFC 6455 sections 4.1 and 4.2.2).
pub fn is_websocket(fields: &HeaderMap) -> bool {
    fields.contains_key(UPGRADE)
        && has_token(fields, &UPGRADE, "websocket")
        && has_token(fields, &CONNECTION, "upgrade")
}

/// Whether the client waits for a word before it sends its body (RFC 9110 section 10.1.1).
pub fn expects_continue(fields: &HeaderMap) -> bool {
    fields.contains_key(EXPECT) && has_token(fields, &EXPECT, "100-continue")
}

/// Whether a client says that it sends nothing behind a request (RFC 9112 section 9.6).
pub fn is_last(fields: &HeaderMap, version: Version) -> bool {
    match version {
        Version::HTTP_11 => fields.contains_key(CONNECTION) && has_token(fields, &CONNECTION, "close"),
        _ => !has_token(fields, &CONNECTION, "keep-alive"),
    }
}

/// How many more hops a request may take (RFC 9110 section 7.6.2); None where it does not say.
///
/// # Errors
/// [`NotANumber`]
pub fn max_forwards(fields: &HeaderMap) -> Result<Option<u32>, NotANumber> {
    let mut values = fields.get_all(MAX_FORWARDS).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            digits.and_then(|text| text.parse().ok()).map(Some).ok_or(NotANumber)
        }
        (Some(_), Some(_)) => Err(NotANumber),
    }
}

/// A `Max-Forwards` that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotANumber;

fn has_token(fields: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    fields.get_all(name).iter().any(|value| tokens(value).any(|found| found.eq_ignore_ascii_case(token.as_bytes())))
}

fn strip(fields: &mut HeaderMap, stays: impl Fn(&HeaderName) -> bool) {
    let nominated = nominations(fields);
    let ends_here = |name: &HeaderName| (HOP_BY_HOP.contains(name) || nominated.contains(name)) && !stays(name);
    remove(fields, ends_here);
}

/// Removes fields by name; the order of the others stays.
pub fn remove(fields: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    if !fields.keys().any(&goes) {
        return;
    }
    // HeaderMap::remove swaps the last entry into the gap; only a new map keeps the order.
    let mut kept = HeaderMap::with_capacity(fields.len());
    let mut current = None;
    for (name, value) in fields.drain() {
        if name.is_some() {
            current = name;
        }
        if let Some(name) = current.as_ref().filter(|name| !goes(name)) {
            kept.append(name, value);
        }
    }
    *fields = kept;
}

fn nominations(fields: &HeaderMap) -> Vec<HeaderName> {
    fields
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        // The most frequent one, which goes without being named.
        .filter(|token| !token.eq_ignore_ascii_case(b"keep-alive"))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !NEVER_NOMINATED.contains(name))
        .collect()
}

/// Whether `Transfer-Encoding` is absent or exactly one `chunked`; anything else could be read in two
/// ways by two recipients (RFC 9112 section 6.1).
pub fn chunked_only(fields: &HeaderMap) -> bool {
    let mut values = fields.get_all(TRANSFER_ENCODING).iter();
    match (values.next(), values.next()) {
        (None, _) => true,
        (Some(value), None) => value.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Whether a message says in one way only where its body ends: not by a length and a coding, nor by
/// anything but one plain number (RFC 9112 section 6.3).
pub fn one_framing(fields: &HeaderMap) -> bool {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(_), Some(_)) => false,
        (Some(length), None) => {
            let length = length.as_bytes();
            let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            // Some read a number with a zero before it as octal.
            let plain = digits && (length == b"0" || !length.starts_with(b"0"));
            plain && !fields.contains_key(TRANSFER_ENCODING)
        }
    }
}

/// What this proxy calls itself in `Via` (RFC 9110 section 7.6.3).
#[derive(Clone, Debug)]
pub struct Pseudonym {
    name: String,
    received_in_10: HeaderValue,
    received_in_11: HeaderValue,
}

impl Pseudonym {
    /// A name with eight hexadecimal digits, to be unlike any other's.
    pub fn of(digits: u32) -> Self {
        let name = format!("vouchsafe-{digits:08x}");
        // Both are visible ASCII, so neither can fail.
        let via = |version| HeaderValue::try_from(format!("{version} {name}")).unwrap_or(HeaderValue::from_static(""));
        Self { received_in_10: via("1.0"), received_in_11: via("1.1"), name }
    }

    /// Appends this hop to `Via`.
    pub fn append_via(&self, fields: &mut HeaderMap, received: Version) {
        let via = if received == Version::HTTP_10 { &self.received_in_10 } else { &self.received_in_11 };
        fields.append(VIA, via.clone());
    }

    /// Whether the message passed this proxy before: a loop.
    pub fn is_in(&self, fields: &HeaderMap) -> bool {
        let via = fields.get_all(VIA).iter();
        let mut words = via.flat_map(|value| value.as_bytes().split(|b| matches!(b, b',' | b' ' | b'\t')));
        words.any(|word| word == self.name.as_bytes())
    }
}

/// Sets the one Host field, in the place where the client had it; it goes first where there was none.
pub fn set_host(fields: &mut HeaderMap, host: HeaderValue) {
    if let Some(value) = fields.get_mut(HOST) {
        *value = host;
        return;
    }
    let mut with_host = HeaderMap::with_capacity(fields.len() + 1);
    with_host.insert(HOST, host);
    with_host.extend(std::mem::take(fields));
    *fields = with_host;
}

/// What stands between commas, without parameters.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    let parts = value.as_bytes().split(|byte| *byte == b',');
    let tokens = parts.map(|part| part.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii());
    tokens.filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        map.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn hop_by_hop_fields_end_here_and_the_order_stays() {
        let mut map = fields(&[
            ("host", "a"),
            ("connection", "close, X-One"),
            ("x-one", "1"),
            ("x-auth-token", "t"),
            ("connection", "x-two"),
            ("x-two", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("content-length", "0"),
            ("x-image-meta-disk_format", "raw"),
        ]);
        strip_request(&mut map, false);
        assert_eq!(names(&map), ["host", "x-auth-token", "content-length", "x-image-meta-disk_format"]);
    }

    #[test]
    fn nominating_framing_or_security_is_ignored() {
        let mut map = fields(&[
            ("connection", "host, content-length, x-auth-token, transfer-encoding"),
            ("host", "a"),
            ("content-length", "3"),
            ("x-auth-token", "t"),
        ]);
        strip_request(&mut map, false);
        assert_eq!(names(&map), ["host", "content-length", "x-auth-token"]);
    }

    #[test]
    fn te_keeps_trailers_only() {
        let mut map = fields(&[("te", "gzip, trailers;q=1"), ("host", "a")]);
        strip_request(&mut map, false);
        assert_eq!(map.get("te").unwrap(), "trailers");
        assert_eq!(map.get("connection").unwrap(), "TE");
        let mut map = fields(&[("te", "trailers"), ("te", "gzip")]);
        strip_request(&mut map, false);
        assert_eq!(map.get_all("te").iter().collect::<Vec<_>>(), ["trailers"]);
        let mut map = fields(&[("te", "gzip")]);
        strip_request(&mut map, false);
        assert!(map.is_empty());
    }

    #[test]
    fn websocket_goes_on_where_it_may_and_nothing_else() {
        let asked =
            [("connection", "keep-alive, Upgrade"), ("upgrade", "h2c, WebSocket"), ("te", "trailers"), ("a", "b")];
        for (websocket, expected) in
            [(true, &["connection", "upgrade", "te", "a"][..]), (false, &["connection", "te", "a"])]
        {
            let mut map = fields(&asked);
            assert!(is_websocket(&map));
            strip_request(&mut map, websocket);
            assert_eq!(names(&map), expected);
            assert_eq!(map.get("connection").unwrap(), if websocket { "TE, Upgrade" } else { "TE" });
        }
        for other in [
            &[("connection", "upgrade"), ("upgrade", "h2c")][..],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrade")],
        ] {
            assert!(!is_websocket(&fields(other)), "{other:?}");
        }
    }

    #[test]
    fn the_last_request_says_so() {
        for (lines, version, expected) in [
            (&[][..], Version::HTTP_11, false),
            (&[], Version::HTTP_10, true),
            (&[("connection", "keep-alive")], Version::HTTP_10, false),
            (&[("connection", "keep-alive")], Version::HTTP_11, false),
            (&[("connection", "x, Close")], Version::HTTP_11, true),
            (&[("connection", "x"), ("connection", "close")], Version::HTTP_10, true),
        ] {
            assert_eq!(is_last(&fields(lines), version), expected, "{lines:?}");
        }
    }

    #[test]
    fn max_forwards_is_one_number() {
        for (lines, expected) in [
            (&[][..], Ok(None)),
            (&[("max-forwards", "0")], Ok(Some(0))),
            (&[("max-forwards", "17")], Ok(Some(17))),
            (&[("max-forwards", "")], Err(NotANumber)),
            (&[("max-forwards", "+1")], Err(NotANumber)),
            (&[("max-forwards", "1"), ("max-forwards", "1")], Err(NotANumber)),
        ] {
            assert_eq!(max_forwards(&fields(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn repeated_fields_keep_all_their_lines() {
        let mut map = fields(&[("set-cookie", "a"), ("connection", "x"), ("set-cookie", "b")]);
        strip_request(&mut map, false);
        assert_eq!(map.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn transfer_encoding_is_chunked_once_or_nothing() {
        assert!(chunked_only(&fields(&[])));
        assert!(chunked_only(&fields(&[("transfer-encoding", "Chunked")])));
        for value in ["gzip", "gzip, chunked", "chunked, chunked", "identity", ""] {
            assert!(!chunked_only(&fields(&[("transfer-encoding", value)])), "{value}");
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert!(!chunked_only(&fields(&twice)));
    }

    #[test]
    fn a_body_ends_in_one_way_only() {
        for (lines, expected) in [
            (&[][..], true),
            (&[("content-length", "2")], true),
            (&[("transfer-encoding", "chunked")], true),
            (&[("content-length", "2"), ("transfer-encoding", "chunked")], false),
            (&[("content-length", "2"), ("content-length", "2")], false),
            (&[("content-length", "2, 2")], false),
            (&[("content-length", "+2")], false),
            (&[("content-length", "02")], false),
            (&[("content-length", "0")], true),
            (&[("content-length", "")], false),
        ] {
            assert_eq!(one_framing(&fields(lines)), expected, "{lines:?}");
        }
    }

    #[test]
    fn via_finds_a_loop() {
        let mut map = fields(&[("via", "1.0 fred, 1.1 p.example.net")]);
        let own = Pseudonym::of(0x1a2b);
        assert!(!own.is_in(&map));
        own.append_via(&mut map, Version::HTTP_10);
        assert!(own.is_in(&map));
        assert_eq!(map.get_all(VIA).iter().next_back().unwrap(), "1.0 vouchsafe-00001a2b");
    }

    #[test]
    fn host_stays_where_it_was() {
        let mut map = fields(&[("accept", "x"), ("host", "a")]);
        set_host(&mut map, HeaderValue::from_static("b:1"));
        assert_eq!(names(&map), ["accept", "host"]);
        let mut map = fields(&[("accept", "x")]);
        set_host(&mut map, HeaderValue::from_static("b:1"));
        assert_eq!(names(&map), ["host", "accept"]);
    }
}
