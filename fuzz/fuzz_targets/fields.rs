//! The fields of a message, a line each: what belongs to this hop goes, all else stays as it was.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, Version, header::VIA};
use libfuzzer_sys::fuzz_target;

use vouchsafe::message::fields::{self, Pseudonym};

fuzz_target!(|input: &[u8]| {
    let before = read(input);
    for (answer, websocket) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut after = before.clone();
        strip(&mut after, answer, websocket);
        let nominated = members(&before, "connection");
        let stays = |name: &str| {
            let taken = nominated.iter().any(|member| member == name) && !KEPT.contains(&name);
            !HOP_BY_HOP.contains(&name) && !taken
        };
        let ours = ours(&before, answer, websocket);
        let (own, rest): (Vec<_>, Vec<_>) =
            lines(&after).into_iter().partition(|(name, _)| HOP_BY_HOP.contains(&&**name));
        let expected: Vec<_> = lines(&before).into_iter().filter(|(name, _)| stays(name)).collect();
        assert_eq!(rest, expected);
        assert_eq!(own.len(), ours.len(), "{own:?}");
        assert!(ours.iter().all(|(name, value)| after.get(*name).is_some_and(|said| said == value)), "{own:?}");
        let mut again = after.clone();
        strip(&mut again, answer, websocket);
        assert_eq!(lines(&again), lines(&after));
    }
    is_framed_as_said(&before);
    is_followed(&before);
});

/// What is said anew on the next hop: of `TE` and `Upgrade` one word each, and that they are for that hop.
fn ours(before: &HeaderMap, answer: bool, websocket: bool) -> Vec<(&'static str, &'static str)> {
    let trailers = !answer && members(before, "te").iter().any(|member| member == "trailers");
    match (trailers, websocket) {
        (false, false) => vec![],
        (true, false) => vec![("te", "trailers"), ("connection", "TE")],
        (false, true) => vec![("upgrade", "websocket"), ("connection", "Upgrade")],
        (true, true) => vec![("te", "trailers"), ("upgrade", "websocket"), ("connection", "TE, Upgrade")],
    }
}

/// RFC 9110 section 7.6.1, and what comes from older and newer tools.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "upgrade",
];

/// What no nomination takes away.
const KEPT: [&str; 19] = [
    "authorization",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "location",
    "max-forwards",
    "set-cookie",
    "trailer",
    "transfer-encoding",
    "via",
    "www-authenticate",
    "x-auth-token",
    "x-openstack-request-id",
    "x-service-token",
    "x-subject-token",
];

/// Lines that could not stand in a message are passed over.
fn read(input: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n').take(100) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    fields
}

fn strip(fields: &mut HeaderMap, answer: bool, websocket: bool) {
    match answer {
        true => fields::strip_response(fields, websocket),
        false => fields::strip_request(fields, websocket),
    }
}

fn lines(fields: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// The members of a list, without parameters, in lower case.
fn members(fields: &HeaderMap, name: &str) -> Vec<String> {
    let values = fields.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let text = values.collect::<Vec<_>>().join(",").to_ascii_lowercase();
    text.split(',').map(|member| member.split(';').next().unwrap_or_default().trim().to_owned()).collect()
}

/// Another reading of where the body ends comes to the same.
fn is_framed_as_said(fields: &HeaderMap) {
    let lines = lines(fields);
    let values = |wanted: &str| -> Vec<Vec<u8>> {
        lines.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.to_ascii_lowercase()).collect()
    };
    let (codings, lengths) = (values("transfer-encoding"), values("content-length"));
    assert_eq!(fields::chunked_only(fields), codings.is_empty() || codings == [b"chunked"]);
    let plain = |length: &[u8]| !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    let one = match lengths.as_slice() {
        [] => true,
        [length] => plain(length) && codings.is_empty(),
        _ => false,
    };
    assert_eq!(fields::one_framing(fields), one);
}

/// This hop is found behind all others, and they are as they were.
fn is_followed(before: &HeaderMap) {
    let mut after = before.clone();
    let own = Pseudonym::of(0xf022);
    own.append_via(&mut after, Version::HTTP_10);
    assert!(own.is_in(&after));
    let (earlier, now): (Vec<_>, Vec<_>) = (before.get_all(VIA).iter().collect(), after.get_all(VIA).iter().collect());
    assert_eq!(now.split_last(), Some((&&HeaderValue::from_static("1.0 vouchsafe-0000f022"), &*earlier)));
    if before.get_all("host").iter().count() <= 1 {
        fields::set_host(&mut after, HeaderValue::from_static("h"));
        assert_eq!(after.get_all("host").iter().collect::<Vec<_>>(), ["h"]);
        assert_eq!(
            after.iter().filter(|(name, _)| *name != "host").count(),
            before.len() + 1 - usize::from(before.contains_key("host"))
        );
    }
}
