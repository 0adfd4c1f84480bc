//! What a client sends: it is refused at the same byte however it is cut, and what passes ends in one way.

#![no_main]

use libfuzzer_sys::fuzz_target;

use vouchsafe::message::framing::Framing;

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = refused(bytes.chunks(bytes.len().max(1)));
    assert_eq!(refused(bytes.chunks(usize::from(*cut).max(1))), whole);
    assert_eq!(refused(bytes.chunks(1)), whole);
    follow(&bytes[..whole.unwrap_or(bytes.len())]);
});

/// Where it is refused, counted from the beginning.
fn refused<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<usize> {
    let (mut framing, mut before) = (Framing::default(), 0);
    for piece in pieces {
        if let Err(refused) = framing.watch(piece) {
            assert!(refused.at < piece.len());
            assert!(!refused.to_string().is_empty());
            return Some(before + refused.at);
        }
        before += piece.len();
    }
    None
}

/// Another reading of what passed: message after message, each with one length or one coding at most.
fn follow(mut bytes: &[u8]) {
    loop {
        while let Some(rest) = bytes.strip_prefix(b"\r\n").or(bytes.strip_prefix(b"\n")) {
            bytes = rest;
        }
        let Some((lines, behind)) = head(bytes) else { return };
        let of =
            |name: &str| lines.iter().filter(|(said, _)| said == name).map(|(_, value)| &**value).collect::<Vec<_>>();
        let (lengths, codings) = (of("content-length"), of("transfer-encoding"));
        assert!(lengths.len() < 2 && (lengths.is_empty() || codings.is_empty()), "{lines:?}");
        bytes = match (lengths.first(), &*codings) {
            (Some(length), _) => {
                let length = length.parse().unwrap_or_else(|_| panic!("{length}"));
                let Some(rest) = behind.get(length..) else { return };
                rest
            }
            (None, []) => behind,
            (None, [coding]) if coding.eq_ignore_ascii_case("chunked") => {
                let Some(rest) = chunks(behind) else { return };
                rest
            }
            // Refused by whoever reads the fields.
            (None, _) => return,
        };
    }
}

type Lines = Vec<(String, String)>;

/// The fields of a head that is whole, and what is behind it.
fn head(bytes: &[u8]) -> Option<(Lines, &[u8])> {
    let (mut lines, mut rest) = (Vec::new(), bytes);
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        rest = &rest[end + 1..];
        if line.is_empty() {
            return Some((lines, rest));
        }
        let text: String = line.iter().map(|byte| char::from(*byte)).collect();
        // The first line is the request's.
        if rest.len() + end + 1 < bytes.len() {
            let (name, value) = text.split_once(':').unwrap_or((&text, ""));
            let value = value.trim_matches(|c: char| c.is_ascii_whitespace());
            lines.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
}

/// What is behind a chunked body that is whole.
fn chunks(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
        let size: String =
            bytes[..end].iter().take_while(|byte| **byte != b';').map(|byte| char::from(*byte)).collect();
        let size = usize::from_str_radix(&size, 16).unwrap_or_else(|_| panic!("{size:?}"));
        bytes = &bytes[end + 2..];
        if size > 0 {
            let data = bytes.get(size..)?;
            // Where a line has not ended, it is not refused yet.
            let Some(rest) = data.strip_prefix(b"\r\n") else {
                assert!(!data.contains(&b'\n'));
                return None;
            };
            bytes = rest;
            continue;
        }
        loop {
            let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
            bytes = &bytes[end + 2..];
            if end == 0 {
                return Some(bytes);
            }
        }
    }
}
