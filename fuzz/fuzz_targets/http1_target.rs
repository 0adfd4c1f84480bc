//! What a request asks for: whatever is accepted, the `http` crate takes for the same host and port, what is sent
//! upstream is the end of what came, and read again it asks for the same.

#![no_main]

use std::net::IpAddr;

use http::uri::{Authority as OtherAuthority, Uri};
use libfuzzer_sys::fuzz_target;

use vouchsafe::{
    http1::{
        fields::FieldName,
        head::{HeadLimits, HeadScan, RequestHead},
    },
    message::{
        authority::Authority,
        target::{Form, Target, path_for_records},
    },
};

const LIMITS: HeadLimits = HeadLimits { bytes: 8 * 1024, fields: 20 };

fuzz_target!(|input: &[u8]| {
    let Some(head) = read(input) else { return };
    let shown = path_for_records(head.target());
    assert!(!shown.contains(['?', '#']), "{shown}");
    let Ok(target) = Target::read(&head) else { return };
    let raw = head.target();
    assert!(!raw.contains(&b'#'));
    if let Some(authority) = &target.authority {
        let text = match target.form {
            Form::Absolute | Form::Authority => raw,
            Form::Origin | Form::Asterisk => head.fields.get(FieldName::Host).expect("it was read"),
        };
        is_same(authority, text, target.form);
    }
    if target.form == Form::Authority {
        assert_eq!(head.method(), "CONNECT");
        return;
    }
    let mut sent = Vec::new();
    target.write_to(&head, &mut sent);
    let added = sent.strip_prefix(b"/").or_else(|| sent.strip_prefix(b"*")).expect("a path or `*`");
    assert!(raw.ends_with(&sent) || raw.ends_with(added), "{}", sent.escape_ascii());
    let Some(authority) = &target.authority else { return };
    let host = format!("Host: {authority}\r\n\r\n");
    let again = [head.method().as_bytes(), b" ", &sent, b" HTTP/1.1\r\n", host.as_bytes()].concat();
    let again = read(&again).expect("what is sent can be read");
    let target = Target::read(&again).expect("what is sent is accepted");
    assert_eq!(target.authority.as_ref(), Some(authority));
});

fn read(bytes: &[u8]) -> Option<RequestHead> {
    let read = RequestHead::read(bytes, &mut HeadScan::default(), LIMITS, &mut Vec::new());
    read.ok().flatten().map(|(head, _)| head)
}

fn is_same(authority: &Authority, text: &[u8], form: Form) {
    // Bytes above ASCII's in a path are passed on, and are none of `http`'s.
    let text = &*String::from_utf8_lossy(text);
    let other: OtherAuthority = match form {
        Form::Absolute => {
            let behind = text.find("://").expect("a scheme") + 3;
            let end = text[behind..].find(['/', '?']).map_or(text.len(), |end| behind + end);
            let uri: Uri = text[..end].parse().expect("an authority that `http` takes, too");
            uri.authority().expect("an authority").clone()
        }
        _ => text.parse().expect("an authority that `http` takes, too"),
    };
    let host = other.host().to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let own = authority.host.in_authority();
    let address = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().ok();
    assert!(own == host || address(host).is_some() && address(host) == address(&own), "{own}, {host}");
    assert_eq!(authority.port, other.port_u16(), "{text}");
}
