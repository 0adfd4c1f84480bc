//! A tunnel through a parent proxy (RFC 9110 section 9.3.6).
//!
//! The head of a CONNECT request is written and its answer is read here, and nowhere else: none of its fields can come
//! near a request that goes through the tunnel.

use std::future::poll_fn;

use tokio::time::{Duration, timeout};

use crate::{
    http1::{
        body::{BodyDecoder, BodyLength, Message, message_length},
        fields::FieldName,
        head::{HeadLimits, HeadScan, ResponseHead},
    },
    route::parent::ParentProxy,
    text::escape_within,
};

use super::{
    carrier::{Carrier, ParentBroke},
    error::{ParentAnswer, ParentCause},
};

/// Limits on the head of the answer.
const HEAD: HeadLimits = HeadLimits { bytes: 64 << 10, fields: 500 };

/// More interim responses than this before the answer are refused.
const MOST_INTERIMS: u32 = 10;

/// So much of a refusal's body is read, and for so long.
const BODY: usize = 4 << 10;
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for a tunnel to `target`, an authority with a port. What the carrier carries from then on is the upstream's.
///
/// # Errors
/// Why there is no tunnel.
pub(super) async fn open(
    carrier: &mut Carrier,
    parent: &ParentProxy,
    target: &str,
    limit: Duration,
) -> Result<(), ParentCause> {
    let exchange = async {
        carrier.write_all(&connect_head(parent, target)).await.map_err(|error| broken(carrier, &error))?;
        let mut received = Vec::new();
        let head = answer(carrier, &mut received).await?;
        Ok((head, received))
    };
    let (head, received) = timeout(limit, exchange).await.unwrap_or(Err(ParentCause::Silent { after: limit }))?;
    match head.status {
        200..=299 if received.is_empty() => Ok(()),
        200..=299 => Err(bad("it sent data before the TLS handshake began")),
        _ => Err(refusal(carrier, &head, received).await),
    }
}

/// The only place that writes the credentials.
fn connect_head(parent: &ParentProxy, target: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let mut head =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: vouchsafe/{version}\r\n").into_bytes();
    if let Some(credentials) = &parent.credentials {
        credentials.write_field(&mut head);
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// The head of the final response; what came behind it stays in `received`.
async fn answer(carrier: &mut Carrier, received: &mut Vec<u8>) -> Result<ResponseHead, ParentCause> {
    let mut scan = HeadScan::default();
    let mut interims = 0;
    loop {
        // As to HEAD: a tunnel has no body, whatever the head says of its length.
        let read = ResponseHead::read(received, &mut scan, HEAD, true);
        if let Some((head, size)) = read.map_err(|error| bad(error.to_string()))? {
            received.drain(..size);
            if !head.is_interim() {
                return Ok(head);
            }
            interims += 1;
            if interims > MOST_INTERIMS {
                return Err(bad(format!("more than {MOST_INTERIMS} interim responses came before it")));
            }
        } else if receive(carrier, received).await? == 0 {
            return Err(bad("it closed the connection"));
        }
    }
}

async fn receive(carrier: &mut Carrier, into: &mut Vec<u8>) -> Result<usize, ParentCause> {
    into.reserve(BODY);
    let end = poll_fn(|cx| carrier.poll_read(cx, into, BODY)).await;
    end.map_err(|error| broken(carrier, &error))
}

/// How a connection ended that brought no answer. A TLS 1.3 parent may refuse our client certificate as late as this.
fn broken(carrier: &Carrier, error: &std::io::Error) -> ParentCause {
    let late = carrier.parent().and_then(|parent| parent.refusal(ParentBroke::inside(error), false));
    late.map_or_else(|| bad(error.to_string()), ParentCause::Tls)
}

fn bad(why: impl Into<String>) -> ParentCause {
    ParentCause::BadAnswer { answer: None, why: why.into() }
}

/// What a response means that opens no tunnel.
async fn refusal(carrier: &mut Carrier, head: &ResponseHead, received: Vec<u8>) -> ParentCause {
    let text = text_of(&body(carrier, head, received).await);
    let reason = String::from_utf8_lossy(head.reason()).into_owned();
    let answer = ParentAnswer { status: head.status, reason, text };
    match head.status {
        401 | 407 => ParentCause::Auth { schemes: schemes(head), answer },
        403 | 405 => ParentCause::Denied(answer),
        // tinyproxy answers 500.
        500 | 502..=504 => ParentCause::Upstream(answer),
        _ => ParentCause::BadAnswer { answer: Some(answer), why: "opened no tunnel".into() },
    }
}

/// The authentication schemes that it offers, each once.
fn schemes(head: &ResponseHead) -> Vec<String> {
    let mut schemes = Vec::new();
    for challenge in head.fields.values(FieldName::ProxyAuthenticate) {
        let challenge = String::from_utf8_lossy(challenge);
        let scheme = escape_within(challenge.split([' ', ',']).next().unwrap_or_default(), 40);
        if !schemes.contains(&scheme) && schemes.len() < 10 {
            schemes.push(scheme);
        }
    }
    schemes
}

/// The beginning of the body, as far as it comes soon.
async fn body(carrier: &mut Carrier, head: &ResponseHead, mut received: Vec<u8>) -> Vec<u8> {
    let message = Message::Response { version: head.version, status: head.status, to_head: false };
    let length = match message_length(message, &head.fields) {
        Ok(length @ (BodyLength::Exact(_) | BodyLength::UntilClose)) => length,
        // Not worth taking chunks apart.
        Ok(BodyLength::Chunked) | Err(_) => return Vec::new(),
    };
    let mut decoder = BodyDecoder::new(length);
    let mut body = Vec::new();
    let read = async {
        while !decoder.is_done() && body.len() < BODY {
            if received.is_empty() && !matches!(receive(carrier, &mut received).await, Ok(1..)) {
                return;
            }
            let Ok(decoded) = decoder.decode(&received) else { return };
            body.extend_from_slice(&received[..decoded.pass]);
            received.drain(..decoded.pass + decoded.consumed);
        }
    };
    // What came until then is enough.
    let _ = timeout(PATIENCE, read).await;
    body.truncate(BODY);
    body
}

/// The words of a page: without tags, styles and scripts, with one blank between two words.
fn text_of(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    let mut words = String::new();
    let mut rest = &*body;
    while let Some(start) = rest.find('<') {
        words += &rest[..start];
        words.push(' ');
        let tag = &rest[start..];
        let begins = |name: &&&str| tag.get(1..=name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        let end = match ["style", "script", "title"].iter().find(begins) {
            Some(name) => tag.to_ascii_lowercase().find(&format!("</{name}")).unwrap_or(tag.len()),
            None => 0,
        };
        rest = tag[end..].split_once('>').map_or("", |(_, behind)| behind);
    }
    words += rest;
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_page() {
        for (page, words) in [
            ("", ""),
            ("Access  denied\r\n", "Access denied"),
            (
                "<html><head><title>403 Forbidden</title></head><body><h1>Access denied</h1><p>by rule",
                "Access denied by rule",
            ),
            ("<STYLE>p { color: red }</STYLE><p>No.</p>", "No."),
            ("<style>cut off", ""),
            ("a < b", "a"),
        ] {
            assert_eq!(text_of(page.as_bytes()), words, "{page}");
        }
    }

    #[test]
    fn a_request_names_the_target_and_carries_the_credentials() {
        let credentials = crate::route::parent::ParentCredentials::new(b"u:p").ok();
        let parent = ParentProxy { host: "proxy".parse().unwrap(), port: 3128, tls: None, credentials };
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "CONNECT a.example:9292 HTTP/1.1\r\nHost: a.example:9292\r\nUser-Agent: vouchsafe/{version}\r\n\
             Proxy-Authorization: Basic dTpw\r\n\r\n"
        );
        assert_eq!(String::from_utf8(connect_head(&parent, "a.example:9292")).unwrap(), expected);
        assert!(!format!("{parent:?}{parent}").contains("dTpw"));
    }
}
