//! The versions and cipher suites that a client offers, read from its ClientHello for the record: rustls decides about
//! them (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).

use std::fmt;

/// What a client offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    versions: Vec<u16>,
    suites: Vec<u16>,
}

/// As many suites are shown.
const MOST_SUITES: usize = 16;

/// The type of a record with handshake messages, and of a ClientHello in it.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// The extension `supported_versions` (RFC 8446 section 4.2.1).
const SUPPORTED_VERSIONS: u16 = 43;

impl Offer {
    /// Reads the records that a connection began with; `None` where they hold no whole ClientHello.
    pub(super) fn read(records: &[u8]) -> Option<Self> {
        let message = handshake(records)?;
        let (&CLIENT_HELLO, rest) = message.split_first()? else { return None };
        let mut hello = Reader(rest);
        let mut body = Reader(hello.vector(3)?);
        let legacy = body.number(2)?;
        body.take(32)?;
        body.vector(1)?;
        let suites = pairs(body.vector(2)?);
        body.vector(1)?;
        let mut versions = vec![legacy];
        let mut extensions = Reader(body.vector(2).unwrap_or_default());
        while let (Some(kind), Some(content)) = (extensions.number(2), extensions.vector(2)) {
            if kind == SUPPORTED_VERSIONS {
                versions = pairs(Reader(content).vector(1)?);
            }
        }
        // Values that mean nothing, to keep servers tolerant (RFC 8701).
        let is_known = |value: &u16| !(value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff);
        Some(Self {
            versions: versions.into_iter().filter(is_known).collect(),
            suites: suites.into_iter().filter(is_known).collect(),
        })
    }
}

/// What the records of one message hold together.
fn handshake(records: &[u8]) -> Option<Vec<u8>> {
    let (mut reader, mut message) = (Reader(records), Vec::new());
    while let Some(kind) = reader.number(1) {
        reader.number(2)?;
        let content = reader.vector(2)?;
        if kind != u16::from(HANDSHAKE) {
            break;
        }
        message.extend_from_slice(content);
    }
    Some(message)
}

fn pairs(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of one or two bytes.
    fn number(&mut self, size: usize) -> Option<u16> {
        Some(self.take(size)?.iter().fold(0, |number, byte| number << 8 | u16::from(*byte)))
    }

    /// As many bytes as the number before them says, which has up to three bytes.
    fn vector(&mut self, size: usize) -> Option<&'a [u8]> {
        let length = self.take(size)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
        self.take(length)
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let versions: Vec<_> = self.versions.iter().map(|version| version_name(*version)).collect();
        let shown: Vec<_> = self.suites.iter().take(MOST_SUITES).map(|suite| format!("{suite:04x}")).collect();
        write!(f, "{} with the cipher suites {}", versions.join(", "), shown.join(" "))?;
        match self.suites.len().saturating_sub(MOST_SUITES) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn version_name(version: u16) -> String {
    match version {
        0x0300 => "SSL 3".into(),
        0x0301..=0x0304 => format!("TLS 1.{}", version - 0x0301),
        other => format!("version {other:04x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello of TLS 1.1, in two records.
    fn old() -> Vec<u8> {
        let mut body = vec![3, 2];
        body.extend([7; 32]);
        body.extend([0, 0, 6, 0xc0, 0x13, 0x00, 0x2f, 0x0a, 0x0a, 1, 0]);
        let mut message = vec![CLIENT_HELLO, 0, 0, u8::try_from(body.len()).unwrap()];
        message.extend(body);
        let (first, second) = message.split_at(20);
        let record = |part: &[u8]| [&[HANDSHAKE, 3, 1, 0, u8::try_from(part.len()).unwrap()], part].concat();
        [record(first), record(second)].concat()
    }

    #[test]
    fn versions_and_suites_are_read_from_a_hello_of_any_age() {
        let offer = Offer::read(&old()).unwrap();
        assert_eq!(offer.to_string(), "TLS 1.1 with the cipher suites c013 002f");
        let client = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let mut client = rustls::ClientConnection::new(client.into(), "a.example".try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        assert!(Offer::read(&hello).unwrap().to_string().starts_with("TLS 1.3, TLS 1.2 with the cipher suites 13"));
    }

    #[test]
    fn what_is_no_whole_hello_is_not_read() {
        let hello = old();
        for length in 0..hello.len() {
            assert_eq!(Offer::read(&hello[..length]), None, "{length}");
        }
        assert_eq!(Offer::read(b"GET / HTTP/1.1\r\n\r\n"), None);
    }
}
