//! Text that is not ours: made harmless for people and logs, and without the secrets in it.
//!
//! Nothing here reads a file, a clock or a setting.

use std::{borrow::Cow, ffi::OsStr};

use data_encoding::HEXLOWER_PERMISSIVE;
use memchr::memchr2_iter;

/// Stands for what is not shown.
const MASK: &str = "***";

/// Makes a text from the network or a file harmless: what moves a terminal, breaks a line, reorders it or cannot be
/// seen is escaped, and what is longer than 300 bytes is cut.
pub fn escape(text: &str) -> String {
    escape_within(text, 300)
}

/// As [`escape`], cut after about `limit` bytes.
pub fn escape_within(text: &str, limit: usize) -> String {
    // As almost all texts are.
    if text.len() <= limit && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        if safe.len() >= limit {
            safe.push('…');
            break;
        }
        if is_visible(c) {
            safe.push(c);
        } else {
            safe.extend(c.escape_default());
        }
    }
    safe
}

/// Whether a character is seen as what it is.
pub fn is_visible(c: char) -> bool {
    // Letters and symbols, as Unicode classes them, that show nothing: Hangul fillers, the empty Braille cell.
    let blank = matches!(c, '\u{115f}' | '\u{1160}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}');
    // The standard library knows the rest: control and format characters, unassigned ones, those of private use,
    // spaces but the usual one, and marks that are drawn over another character.
    matches!(c, '\'' | '"' | '\\') || !blank && c.escape_debug().len() == 1
}

/// The value of an attribute of a distinguished name as RFC 4514 section 2.4 writes it, so that no value looks like the
/// beginning of another attribute. What cannot be seen is written as the octets of its UTF-8.
pub fn escape_attribute(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for (at, c) in value.char_indices() {
        let first = at == 0;
        let last = at + c.len_utf8() == value.len();
        if !is_visible(c) {
            let mut octets = [0; 4];
            escaped.extend(c.encode_utf8(&mut octets).bytes().map(|octet| format!("\\{octet:02X}")));
            continue;
        }
        let special = matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\');
        if special || c == ' ' && (first || last) || c == '#' && first {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A value of an option as a message may show it: without what stands before its last `@`, as far back as a host could
/// begin, and without a query, since either may be a secret; not at all where it is [the contents of a
/// file](holds_contents).
pub fn show_value(value: impl AsRef<OsStr>) -> String {
    let value = value.as_ref().to_string_lossy();
    if holds_contents(&value) {
        return format!("({} bytes, not shown)", value.len());
    }
    let mut shown = match value.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.find("://").map(|at| at + 3);
            let start = scheme.or_else(|| before.find('=').map(|at| at + 1)).unwrap_or(0);
            format!("{}…@{host}", &before[..start])
        }
        None => value.into_owned(),
    };
    if let Some(query) = shown.find('?') {
        shown.truncate(query);
        shown.push_str("?…");
    }
    escape(&shown)
}

/// Whether the value of an option is the contents of a file, perhaps a key, where the name of one belongs, as in
/// `--client-key "$(cat key.pem)"`: several lines, PEM, or either in base64.
pub fn holds_contents(value: &str) -> bool {
    let value = value.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
    value.contains(['\n', '\r', '\0']) || value.contains("-----BEGIN") || is_long_base64(value)
}

/// Base64 of PEM or DER, which begins with `-----` or a SEQUENCE. No name of a file is like that, in its length and
/// without a dot or a dash.
fn is_long_base64(value: &str) -> bool {
    let is_base64 = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=');
    value.len() >= 60 && value.starts_with(['M', 'L']) && value.bytes().all(is_base64)
}

/// A request target as it may be written down, where it was refused: everything before its last `@` may be a name and a
/// password.
pub fn mask_userinfo(target: &str) -> String {
    match target.rsplit_once('@') {
        Some((_, rest)) => format!("{MASK}@{rest}"),
        None => target.to_owned(),
    }
}

/// A path as it may be written down: the segment after one that ends with `token` or `tokens` is masked, as in
/// `/v2.0/tokens/TOKEN/endpoints` (Keystone) and `/v2.1/os-console-auth-tokens/TOKEN` (Nova).
///
/// Servers differ in what they take for a segment. Whatever some server would take for a token is masked here, so an
/// encoded slash, a backslash and `;` end a segment, empty segments do not count, a dot segment after `tokens` masks the
/// whole rest, and the value of `token=TOKEN` is masked.
pub fn mask_tokens(path: &str) -> Cow<'_, str> {
    // As most paths are: nothing in it is encoded, and nothing announces a token.
    if path.is_ascii() && !path.contains('%') && !contains_token(path.as_bytes()) {
        return Cow::Borrowed(path);
    }
    let mut masked = String::with_capacity(path.len());
    let (mut token_is_next, mut masks_parameters, mut has_tokens) = (false, false, false);
    for (separator, segment) in segments(path) {
        masked.push_str(separator);
        if segment.is_empty() {
            continue;
        }
        if decode(separator) == ";" {
            masked.push_str(&if masks_parameters { MASK.into() } else { without_value(segment) });
            continue;
        }
        let name = decode(segment);
        if has_tokens && matches!(name.as_str(), "." | "..") {
            masked.push_str(MASK);
            break;
        }
        let is_token = token_is_next;
        token_is_next = names_tokens(&name);
        masks_parameters = is_token || token_is_next;
        has_tokens |= token_is_next;
        masked.push_str(&if is_token { MASK.into() } else { without_value(segment) });
    }
    Cow::Owned(masked)
}

/// Whether `token` is somewhere in a text, in whatever case.
fn contains_token(text: &[u8]) -> bool {
    let around = |at: usize| text.get(at.checked_sub(2)?..at + 3);
    memchr2_iter(b'k', b'K', text).any(|at| around(at).is_some_and(|word| word.eq_ignore_ascii_case(b"token")))
}

/// A segment without what follows the name of a token in it, as in `token=TOKEN`.
fn without_value(segment: &str) -> Cow<'_, str> {
    const SEPARATORS: [char; 3] = ['=', ':', ','];
    let is_token = |text: &str| text.split_once(SEPARATORS).is_some_and(|(name, _)| names_tokens(name));
    // Most segments have none of these, and need not be decoded again.
    let may_have_value = segment.contains(SEPARATORS) || segment.contains('%');
    if !may_have_value || !is_token(&decode(segment)) {
        return segment.into();
    }
    match segment.find(SEPARATORS) {
        Some(at) => format!("{}{MASK}", &segment[..=at]).into(),
        // The separator is encoded.
        None => MASK.into(),
    }
}

/// The pieces of a path, each with the separator before it: none before the first.
fn segments(path: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = Some(path);
    let mut is_first = true;
    std::iter::from_fn(move || {
        let text = rest?;
        let (separator, after) = text.split_at(if is_first { 0 } else { separator_length(text) });
        is_first = false;
        let is_end = |at: &usize| after.is_char_boundary(*at) && separator_length(&after[*at..]) > 0;
        let end = (0..after.len()).find(is_end).unwrap_or(after.len());
        rest = (end < after.len()).then(|| &after[end..]);
        Some((separator, &after[..end]))
    })
}

/// How long the separator is with which a text begins: a slash, a backslash or `;`, encoded any number of times. 0 where
/// it begins with none.
fn separator_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'/' | b'\\' | b';') => return 1,
        Some(b'%') => {}
        _ => return 0,
    }
    let mut at = 1;
    while bytes[at..].starts_with(b"25") {
        at += 2;
    }
    let code = bytes.get(at..at + 2).map(<[u8]>::to_ascii_lowercase);
    match code.as_deref() {
        Some(b"2f" | b"5c" | b"3b") => at + 2,
        _ => 0,
    }
}

/// Whether a decoded segment announces a token: `tokens`, `access_tokens`, `os-console-auth-tokens`. What some servers
/// drop at its end (a space, a NUL, an extension such as `.json`) does not count.
fn names_tokens(name: &str) -> bool {
    let name = name.split('.').next().unwrap_or_default();
    let name = name.trim_end_matches(|c: char| !c.is_alphanumeric());
    name.ends_with("token") || name.ends_with("tokens")
}

/// A text in lower case without percent-encoding, also where it was encoded more than once.
fn decode(text: &str) -> String {
    let mut text = text.to_lowercase();
    for _ in 0..8 {
        let decoded = decode_once(&text);
        if decoded == text {
            break;
        }
        text = decoded;
    }
    text
}

fn decode_once(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let code = after.get(..2).filter(|_| *byte == b'%').and_then(|code| HEXLOWER_PERMISSIVE.decode(code).ok());
        match code.as_deref() {
            Some([octet]) => {
                decoded.push(*octet);
                rest = &after[2..];
            }
            _ => {
                decoded.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_is_what_it_is() {
        for (text, expected) in [
            ("glance.example", "glance.example"),
            ("O'Brien \"x\" \\ \u{fc} \u{4e2d}", "O'Brien \"x\" \\ \u{fc} \u{4e2d}"),
            ("a\x1b[31m\nb\0\u{202e}", "a\\u{1b}[31m\\nb\\u{0}\\u{202e}"),
            // A soft hyphen, a word joiner, a non-breaking space, a variation selector, a tag, a blank letter.
            ("a\u{ad}b", "a\\u{ad}b"),
            ("a\u{2060}b", "a\\u{2060}b"),
            ("a\u{a0}b", "a\\u{a0}b"),
            ("a\u{fe0f}b", "a\\u{fe0f}b"),
            ("a\u{e0041}b", "a\\u{e0041}b"),
            ("a\u{3164}b", "a\\u{3164}b"),
        ] {
            assert_eq!(escape(text), expected);
        }
        // All of Unicode's Bidi_Control, of which the first stands far from the others.
        for c in
            "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}".chars()
        {
            assert!(escape(&c.to_string()).is_ascii(), "{c:?}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        assert!(escape(&"x".repeat(60_000)).len() < 310);
        assert_eq!(escape_within("POSTPOST", 4), "POST\u{2026}");
        assert_eq!(escape_within("POST", 5), "POST");
        assert!(escape_within(&"\u{202e}".repeat(100), 30).len() < 50);
    }

    #[test]
    fn attributes_are_escaped_as_in_rfc_4514() {
        for (value, expected) in [
            // The examples of section 4.
            ("James \"Jim\" Smith, III", "James \\\"Jim\\\" Smith\\, III"),
            ("Before\rAfter", "Before\\0DAfter"),
            ("Sue, Grabbit and Runn", "Sue\\, Grabbit and Runn"),
            // Section 2.4.
            (" glance ", "\\ glance\\ "),
            (" ", "\\ "),
            ("#1 #2", "\\#1 #2"),
            ("a+b;c<d>e\\f=g", "a\\+b\\;c\\<d\\>e\\\\f=g"),
            ("a\0b", "a\\00b"),
            ("a\u{202e}b", "a\\E2\\80\\AEb"),
            ("Lu\u{10d}i\u{107}", "Lu\u{10d}i\u{107}"),
            ("", ""),
        ] {
            assert_eq!(escape_attribute(value), expected);
        }
    }

    #[test]
    fn values_are_shown_without_secrets() {
        for (value, shown) in [
            ("127.0.0.1:1=https://u:hunter2@host:9", "127.0.0.1:1=https://…@host:9"),
            ("127.0.0.1:1=https://host/?token=x", "127.0.0.1:1=https://host/?…"),
            ("u:p@host=127.0.0.1:1", "…@host=127.0.0.1:1"),
            ("127.0.0.1:1=https://host:9", "127.0.0.1:1=https://host:9"),
            ("u:hunter2@127.0.0.1:1", "…@127.0.0.1:1"),
            ("127.0.0.1:1=https://u:pa/ss@host", "127.0.0.1:1=https://…@host"),
            ("127.0.0.1:1=https://u:p?a=ss@host", "127.0.0.1:1=https://…@host"),
            ("/etc/pki/ca\u{202e}.pem", "/etc/pki/ca\\u{202e}.pem"),
            ("-----BEGIN PRIVATE KEY-----\nhunter2", "(35 bytes, not shown)"),
        ] {
            assert_eq!(show_value(value), shown);
        }
    }

    #[test]
    fn contents_of_files_are_known() {
        let long = |start: &str| format!("{start}{}", "Ab+/".repeat(20));
        for value in [
            "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----",
            "\"-----BEGIN CERTIFICATE-----\"",
            "Certificate:\n    Data:\n",
            "hunter2\rhunter3",
            &long("LS0tLS1CRUdJTi"),
            &long("MIIEvQIBADANBgkqhkiG"),
            "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n",
        ] {
            assert!(holds_contents(value), "{value:?}");
        }
        for value in [
            "/etc/pki/ca.pem",
            "ca.pem\n",
            "127.0.0.1:1=https://host:9",
            "",
            "Media/ca",
            &long("/MIIE"),
            &long("Media-"),
        ] {
            assert!(!holds_contents(value), "{value:?}");
        }
    }

    #[test]
    fn userinfo_is_masked() {
        for (target, expected) in [
            ("http://u:secret@a/v1", "***@a/v1"),
            ("http://u:se@cret@a/v1", "***@a/v1"),
            ("u:secret@a:443", "***@a:443"),
            ("http://a/v1", "http://a/v1"),
            ("", ""),
        ] {
            assert_eq!(mask_userinfo(target), expected);
        }
    }

    #[test]
    fn tokens_are_masked() {
        for (path, expected) in [
            ("/v2.0/tokens/SECRET", "/v2.0/tokens/***"),
            ("/v2.0/tokens/SECRET/endpoints", "/v2.0/tokens/***/endpoints"),
            ("/v2.1/os-console-auth-tokens/SECRET", "/v2.1/os-console-auth-tokens/***"),
            ("/v3/users/u/OS-OAUTH1/access_tokens/SECRET", "/v3/users/u/OS-OAUTH1/access_tokens/***"),
            ("/v1/token/SECRET", "/v1/token/***"),
            ("/v2.0/tokens//SECRET", "/v2.0/tokens//***"),
            ("/v2.0/Tokens/SECRET", "/v2.0/Tokens/***"),
            ("/v2.0/tokens%2FSECRET", "/v2.0/tokens%2F***"),
            ("/v2.0/tokens%252fSECRET", "/v2.0/tokens%252f***"),
            ("/v2.0/tokens\\SECRET", "/v2.0/tokens\\***"),
            ("/v2.0/%74oken%73/SECRET", "/v2.0/%74oken%73/***"),
            ("/v2.0/%2574okens/SECRET", "/v2.0/%2574okens/***"),
            ("/v2.0/tokens;x/SECRET", "/v2.0/tokens;***/***"),
            ("/v2.0/tokens;SECRET", "/v2.0/tokens;***"),
            ("/v2.0/tokens%3bx/SECRET;SECRET", "/v2.0/tokens%3b***/***;***"),
            ("/v2.0/tokens%20/SECRET", "/v2.0/tokens%20/***"),
            ("/v2.0/tokens./SECRET", "/v2.0/tokens./***"),
            ("/v2.0/tokens/./SECRET", "/v2.0/tokens/***"),
            ("/v2.0/tokens/x/%2e%2e/SECRET", "/v2.0/tokens/***/***"),
            ("/v2.0/tokens/token/SECRET", "/v2.0/tokens/***/***"),
            ("/v2.0/tokens.json/SECRET", "/v2.0/tokens.json/***"),
            ("/v2.0/tokens=SECRET", "/v2.0/tokens=***"),
            ("/v2.0/Token:SECRET/x", "/v2.0/Token:***/x"),
            ("/v2.0/tokens,SECRET", "/v2.0/tokens,***"),
            ("/v2.0/images;token=SECRET;a=1", "/v2.0/images;token=***;a=1"),
            ("/v2.0/token%3DSECRET", "/v2.0/***"),
            ("/v2.0/image=1:2,3", "/v2.0/image=1:2,3"),
            ("/v2.0/tokens", "/v2.0/tokens"),
            ("/v2.0/tokens/", "/v2.0/tokens/"),
            ("/v1/images//detail", "/v1/images//detail"),
            ("/v1/images;version=2/a%2Fb", "/v1/images;version=2/a%2Fb"),
            ("/v1/tokenise/x", "/v1/tokenise/x"),
            ("/v1/../x/%zz/%", "/v1/../x/%zz/%"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(mask_tokens(path), expected);
        }
    }
}
