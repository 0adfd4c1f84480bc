//! What a client speaks that does not begin with an HTTP/1 request.

use rustls::server::Acceptor;

use crate::proxy::failure::{FIRST_BYTES, NotHttp};

/// The beginning of a TLS record with a handshake (RFC 8446 section 5.1): its type, and the major version.
const HANDSHAKE_RECORD: [u8; 2] = [0x16, 0x03];

/// The beginning of the HTTP/2 connection preface (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// The type of a ClientHello, also in the framing of SSL 2 (RFC 5246 appendix E.2).
const CLIENT_HELLO: u8 = 1;

/// Reads the first bytes on a connection, which are not a request.
pub(super) fn identify(first: &[u8]) -> NotHttp {
    match first {
        [_, ..] if HANDSHAKE_RECORD.starts_with(&first[..first.len().min(2)]) => NotHttp::Tls(server_name(first)),
        [length, _, CLIENT_HELLO, ..] if length & 0x80 != 0 => NotHttp::SslV2Hello,
        _ if first.starts_with(HTTP2_PREFACE) => NotHttp::Http2,
        _ => NotHttp::Other(first[..first.len().min(FIRST_BYTES)].to_vec()),
    }
}

/// The name in a ClientHello, if all of it is there.
fn server_name(mut hello: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    acceptor.read_tls(&mut hello).ok()?;
    let accepted = acceptor.accept().ok()??;
    accepted.client_hello().server_name().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_http_is_told_apart() {
        for (first, expected) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], NotHttp::Tls(None)),
            (b"\x80\x2e\x01\x03\x01", NotHttp::SslV2Hello),
            (b"\x80\x2e\x02\x03\x01", NotHttp::Other(b"\x80\x2e\x02\x03\x01".to_vec())),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NotHttp::Http2),
            (b"\x16\x02", NotHttp::Other(b"\x16\x02".to_vec())),
            (b"\0\0\0\x54secret", NotHttp::Other(b"\0\0\0\x54secr".to_vec())),
            (b"", NotHttp::Other(Vec::new())),
        ] {
            assert_eq!(identify(first), expected, "{first:?}");
        }
    }
}
