//! What a proxy changes in a head (RFC 9110 sections 7.6 and 7.8), and nothing else: fields of one hop end here, Host
//! and Via are set, and framing is fitted to the client's version. The order of all other fields, their case and
//! their bytes stay as they came.

use crate::{
    buffer::Buffer,
    http1::{
        Version,
        body::BodyLength,
        fields::{Field, FieldName, FieldNames, Fields, tokens},
        head::{RequestHead, ResponseHead},
    },
    message::{target::Target, via::Pseudonym},
};

use super::{
    download::BodyCoding,
    settings::{FieldCase, ListenerPolicies},
};

/// Fields for one hop only, nominated or not. `Transfer-Encoding` stays: framing passes as it came. `Trailer` announces
/// what passes.
const HOP_BY_HOP: FieldNames = FieldNames::of(&[
    FieldName::Connection,
    FieldName::Http2Settings,
    FieldName::KeepAlive,
    FieldName::ProxyAuthenticate,
    FieldName::ProxyAuthorization,
    FieldName::ProxyConnection,
    FieldName::Te,
    FieldName::Upgrade,
]);

/// A nomination of one of these is ignored: removing it would change where a message ends, where it goes, or what it
/// may do.
fn is_never_nominated(field: &Field<'_>) -> bool {
    match field.name {
        FieldName::Authorization
        | FieldName::ContentLength
        | FieldName::Expect
        | FieldName::Host
        | FieldName::Location
        | FieldName::MaxForwards
        | FieldName::RequestId
        | FieldName::SetCookie
        | FieldName::Trailer
        | FieldName::TransferEncoding
        | FieldName::Via
        | FieldName::WwwAuthenticate => true,
        FieldName::Other => [
            "content-encoding",
            "content-range",
            "content-type",
            "cookie",
            "x-auth-token",
            "x-service-token",
            "x-subject-token",
        ]
        .iter()
        .any(|name| field.is(name)),
        _ => false,
    }
}

/// Removes the fields that end here: the fixed list but for `kept`, and whatever any `Connection` line nominates.
fn remove_hop_by_hop(fields: &mut Fields, kept: &[FieldName]) {
    // Without a `Connection`, nothing is nominated either.
    if !fields.may_have(HOP_BY_HOP) {
        return;
    }
    // The most frequent values, which name no field or one that goes without being named.
    let is_usual = |value: &[u8]| value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close");
    let unusual = || fields.values(FieldName::Connection).filter(|value| !is_usual(value));
    let nominated: Vec<Vec<u8>> = match unusual().next() {
        Some(_) => unusual().flat_map(tokens).filter(|token| !is_usual(token)).map(<[u8]>::to_vec).collect(),
        None => Vec::new(),
    };
    fields.retain(|field| {
        let named = || nominated.iter().any(|name| field.raw_name.eq_ignore_ascii_case(name));
        let ends_here =
            HOP_BY_HOP.contains(field.name) || !nominated.is_empty() && named() && !is_never_nominated(&field);
        !ends_here || kept.contains(&field.name)
    });
}

/// Whether a message asks to go on as websocket, or does (RFC 6455 sections 4.1 and 4.2.2).
pub(super) fn is_websocket(fields: &Fields) -> bool {
    fields.contains(FieldName::Upgrade)
        && fields.has_token(FieldName::Upgrade, "websocket")
        && fields.has_token(FieldName::Connection, "upgrade")
}

/// Makes a client's head one for the upstream, as bytes. `websocket`: the request may switch to that.
pub(super) fn prepare_request(
    head: &mut RequestHead,
    target: &Target,
    host: &str,
    websocket: bool,
    pseudonym: &Pseudonym,
) -> Vec<u8> {
    let trailers = head.fields.has_token(FieldName::Te, "trailers");
    let received = head.version;
    let fields = &mut head.fields;
    let (kept, connection): (&[FieldName], &[u8]) = match (trailers, websocket) {
        (true, true) => (&[FieldName::Connection, FieldName::Te, FieldName::Upgrade], b"TE, Upgrade"),
        (true, false) => (&[FieldName::Connection, FieldName::Te], b"TE"),
        (false, true) => (&[FieldName::Connection, FieldName::Upgrade], b"Upgrade"),
        (false, false) => (&[], b""),
    };
    remove_hop_by_hop(fields, kept);
    if received == Version::Http10 {
        // RFC 9110 section 10.1.1: it has no meaning there, and would have one to the upstream.
        fields.remove(FieldNames::of(&[FieldName::Expect]));
    }
    fields.set(FieldName::Host, b"Host", host.as_bytes());
    if trailers {
        fields.set(FieldName::Te, b"TE", b"trailers");
    }
    if websocket {
        fields.set(FieldName::Upgrade, b"Upgrade", b"websocket");
    }
    if !connection.is_empty() {
        fields.set(FieldName::Connection, b"Connection", connection);
    }
    fields.append(b"Via", pseudonym.via(received));
    write_request(head, target)
}

/// A request's head as it is sent.
pub(super) fn write_request(head: &RequestHead, target: &Target) -> Vec<u8> {
    let mut out = Vec::with_capacity(head.target().len() + 512);
    out.extend_from_slice(head.method().as_bytes());
    out.push(b' ');
    target.write_to(head, &mut out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    head.fields.write_to(&mut out);
    out.extend_from_slice(b"\r\n");
    out
}

/// What a response's head becomes for its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseFit {
    /// How the body is written.
    pub(super) coding: BodyCoding,
    /// Whether the connection stays open behind it.
    pub(super) keep_alive: bool,
    /// Whether the end of the connection is the end of the body.
    pub(super) ends_with_connection: bool,
}

/// Makes an upstream's head one for the client: removes the fields of its hop, and fits framing and `Connection` to
/// the client's version. `keep_alive`: the client's connection could stay open. `switches`: it is a 101 that the
/// client asked for.
pub(super) fn sanitize_response(
    head: &mut ResponseHead,
    client: Version,
    mut keep_alive: bool,
    switches: bool,
    pseudonym: &Pseudonym,
    policies: &ListenerPolicies,
) -> ResponseFit {
    let received = head.version;
    let kept: &[FieldName] = if switches { &[FieldName::Connection, FieldName::Upgrade] } else { &[] };
    remove_hop_by_hop(&mut head.fields, kept);
    let mut coding = BodyCoding::AsCame;
    let is_known = matches!(head.length, BodyLength::Exact(_));
    let ends_with_connection = client == Version::Http10 && !is_known;
    if head.status == 204 || switches {
        // There is none, and whoever is told of one waits for it (RFC 9110 section 8.6, RFC 9112 section 6.1).
        head.fields.remove(FieldNames::of(&[
            FieldName::ContentLength,
            FieldName::TransferEncoding,
            FieldName::Trailer,
        ]));
    }
    match (head.length, client) {
        (BodyLength::UntilClose, Version::Http11) => {
            head.fields.append(b"Transfer-Encoding", b"chunked");
            coding = BodyCoding::MadeChunked;
        }
        (BodyLength::UntilClose, Version::Http10) => keep_alive = false,
        (BodyLength::Chunked, Version::Http10) => {
            head.fields.remove(FieldNames::of(&[FieldName::TransferEncoding, FieldName::Trailer]));
            coding = BodyCoding::Unchunked;
            keep_alive = false;
        }
        (BodyLength::Exact(_), Version::Http10) => {
            head.fields.remove(FieldNames::of(&[FieldName::TransferEncoding, FieldName::Trailer]));
        }
        (BodyLength::Exact(_) | BodyLength::Chunked, Version::Http11) => {}
    }
    if switches {
        head.fields.set(FieldName::Upgrade, b"Upgrade", b"websocket");
        head.fields.set(FieldName::Connection, b"Connection", b"Upgrade");
    } else if !keep_alive {
        head.fields.append(b"Connection", b"close");
    } else if client == Version::Http10 {
        head.fields.append(b"Connection", b"keep-alive");
    }
    head.fields.append(b"Via", pseudonym.via(received));
    change_case(&mut head.fields, policies.field_case);
    ResponseFit { coding, keep_alive, ends_with_connection }
}

/// A response's head as it is written.
pub(super) fn write_response(head: &ResponseHead, client: Version, out: &mut Buffer) {
    let out = out.space();
    out.extend_from_slice(client.as_str().as_bytes());
    let digit = |unit: u16| b'0' + (head.status / unit % 10) as u8;
    out.extend_from_slice(&[b' ', digit(100), digit(10), digit(1), b' ']);
    out.extend_from_slice(head.reason());
    out.extend_from_slice(b"\r\n");
    head.fields.write_to(out);
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim response, its fields treated like those of any response.
pub(super) fn write_interim(
    mut head: ResponseHead,
    pseudonym: &Pseudonym,
    policies: &ListenerPolicies,
    out: &mut Buffer,
) {
    remove_hop_by_hop(&mut head.fields, &[]);
    head.fields.remove(FieldNames::of(&[FieldName::ContentLength, FieldName::TransferEncoding]));
    if head.status != 100 {
        // A bare 100 has nothing that somebody would trace.
        head.fields.append(b"Via", pseudonym.via(head.version));
    }
    change_case(&mut head.fields, policies.field_case);
    write_response(&head, Version::Http11, out);
}

fn change_case(fields: &mut Fields, case: FieldCase) {
    match case {
        FieldCase::Preserve => {}
        FieldCase::Lower => fields.map_names(<[u8]>::make_ascii_lowercase),
        FieldCase::Title => fields.map_names(|name| {
            let mut starts = true;
            for byte in name {
                if starts {
                    byte.make_ascii_uppercase();
                } else {
                    byte.make_ascii_lowercase();
                }
                starts = *byte == b'-';
            }
        }),
    }
}

/// Whether a message carries authentication that is bound to its connection (RFC 4559 section 6, MS-NTHT): whoever
/// uses the connection next would be somebody else.
pub(super) fn binds_connection(fields: &Fields) -> bool {
    let begins =
        |value: &[u8], scheme: &[u8]| value.len() >= scheme.len() && value[..scheme.len()].eq_ignore_ascii_case(scheme);
    let mut values = fields.values(FieldName::Authorization).chain(fields.values(FieldName::WwwAuthenticate));
    values.any(|value| tokens(value).any(|challenge| begins(challenge, b"ntlm") || begins(challenge, b"negotiate")))
}

#[cfg(test)]
mod tests {
    use crate::http1::head::{HeadLimits, HeadScan};

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 4096, fields: 64 };

    fn prepared(lines: &str, websocket: bool) -> String {
        let text = format!("GET /a HTTP/1.1\r\n{}\r\n", lines.replace('\n', "\r\n"));
        let read = RequestHead::read(text.as_bytes(), &mut HeadScan::default(), LIMITS, &mut Vec::new());
        let (mut head, _) = read.unwrap().unwrap();
        let target = Target::read(&head).unwrap();
        let bytes = prepare_request(&mut head, &target, "up:1", websocket, &Pseudonym::of(1));
        let text = String::from_utf8(bytes).unwrap();
        let text =
            text.strip_prefix("GET /a HTTP/1.1\r\n").unwrap().strip_suffix("Via: 1.1 vouchsafe-00000001\r\n\r\n");
        text.unwrap().replace("\r\n", "\n")
    }

    fn sanitized(head: &str, client: Version, keep_alive: bool, case: FieldCase) -> (String, ResponseFit) {
        let head = format!("{}\r\n", head.replace('\n', "\r\n"));
        let read = ResponseHead::read(head.as_bytes(), &mut HeadScan::default(), LIMITS, false);
        let (mut head, _) = read.unwrap().unwrap();
        let policies = ListenerPolicies { field_case: case, ..ListenerPolicies::default() };
        let fit = sanitize_response(&mut head, client, keep_alive, false, &Pseudonym::of(1), &policies);
        let mut out = Buffer::new(crate::buffer::BufferPool::default());
        write_response(&head, client, &mut out);
        (String::from_utf8(out.as_slice().to_vec()).unwrap().replace("\r\n", "\n"), fit)
    }

    #[test]
    fn hop_by_hop_fields_end_here_and_the_order_and_case_of_the_others_stay() {
        let lines = "host: a\nConnection: close, X-One\nx-one: 1\nX-Auth-Token: t\nconnection: x-two\nx-two: 2\n\
                     Keep-Alive: timeout=5\nProxy-Authorization: Basic x\ncontent-length: 0\nx-image-meta-disk_format: raw\n";
        let expected = "host: up:1\nX-Auth-Token: t\ncontent-length: 0\nx-image-meta-disk_format: raw\n";
        assert_eq!(prepared(lines, false), expected);
    }

    #[test]
    fn nominating_framing_or_security_is_ignored() {
        let lines = "connection: host, content-length, x-auth-token, cookie\nHost: a\ncontent-length: 0\nX-Auth-Token: t\nCookie: c\n";
        assert_eq!(prepared(lines, false), "Host: up:1\ncontent-length: 0\nX-Auth-Token: t\nCookie: c\n");
    }

    #[test]
    fn te_passes_trailers_only() {
        assert_eq!(prepared("Host: a\nTE: gzip, trailers;q=1\n", false), "Connection: TE\nHost: up:1\nTE: trailers\n");
        assert_eq!(prepared("Host: a\nTE: gzip\n", false), "Host: up:1\n");
    }

    #[test]
    fn websocket_passes_where_it_may_and_nothing_else_does() {
        let lines = "Host: a\nConnection: keep-alive, Upgrade\nUpgrade: h2c, WebSocket\nTE: trailers\nA: b\n";
        let with = "Host: up:1\nConnection: TE, Upgrade\nUpgrade: websocket\nTE: trailers\nA: b\n";
        assert_eq!(prepared(lines, true), with);
        assert_eq!(prepared(lines, false), "Host: up:1\nConnection: TE\nTE: trailers\nA: b\n");
    }

    #[test]
    fn responses_keep_their_reason_and_are_fitted_to_the_client() {
        let via = "Via: 1.0 vouchsafe-00000001\n";
        for (head, client, keep, expected, coding) in [
            (
                "HTTP/1.0 404 Nicht da\nSERVER: x\nSet-Cookie: a\nset-cookie: b\nContent-Length: 3\n",
                Version::Http11,
                true,
                format!("HTTP/1.1 404 Nicht da\nSERVER: x\nSet-Cookie: a\nset-cookie: b\nContent-Length: 3\n{via}\n"),
                BodyCoding::AsCame,
            ),
            (
                "HTTP/1.0 200 OK\n",
                Version::Http11,
                true,
                format!("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n{via}\n"),
                BodyCoding::MadeChunked,
            ),
            (
                "HTTP/1.0 200 OK\n",
                Version::Http10,
                true,
                format!("HTTP/1.0 200 OK\nConnection: close\n{via}\n"),
                BodyCoding::AsCame,
            ),
            (
                "HTTP/1.0 204 No\nContent-Length: 5\n",
                Version::Http10,
                true,
                format!("HTTP/1.0 204 No\nConnection: keep-alive\n{via}\n"),
                BodyCoding::AsCame,
            ),
            (
                "HTTP/1.0 304 No\nContent-Length: 5\n",
                Version::Http11,
                false,
                format!("HTTP/1.1 304 No\nContent-Length: 5\nConnection: close\n{via}\n"),
                BodyCoding::AsCame,
            ),
        ] {
            let (text, fit) = sanitized(head, client, keep, FieldCase::Preserve);
            assert_eq!((text, fit.coding), (expected, coding), "{head}");
        }
        let chunked = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nTrailer: x\n";
        let (text, fit) = sanitized(chunked, Version::Http10, true, FieldCase::Lower);
        assert_eq!(text, "HTTP/1.0 200 OK\nconnection: close\nvia: 1.1 vouchsafe-00000001\n\n");
        assert_eq!((fit.coding, fit.keep_alive), (BodyCoding::Unchunked, false));
        let (text, _) = sanitized("HTTP/1.1 200 OK\nx-iMAGE-meta: a\n", Version::Http11, true, FieldCase::Title);
        assert!(text.contains("\nX-Image-Meta: a\n"), "{text}");
    }

    #[test]
    fn authentication_that_is_bound_to_its_connection_is_known() {
        for (name, value, expected) in [
            ("Authorization", "NTLM TlRMTVNTUAAB", true),
            ("authorization", "negotiate YII", true),
            ("WWW-Authenticate", "Basic realm=x, Negotiate", true),
            ("WWW-Authenticate", "NTLM", true),
            ("Authorization", "Bearer ntlm", false),
            ("WWW-Authenticate", "Keystone uri='x'", false),
        ] {
            let mut fields = Fields::default();
            fields.append(name.as_bytes(), value.as_bytes());
            assert_eq!(binds_connection(&fields), expected, "{name}: {value}");
        }
    }
}
