//! A [`Failure`] and the listener's answer policy become a response, or a reset.
//!
//! What the client is told and what is recorded are two decisions: this is the first.

use http::StatusCode;
use serde_json::json;

use crate::{buffer::Buffer, http1::Version};

use super::failure::{Failure, FailureKind, Words};

/// How a listener answers when it cannot pass on an upstream's response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerPolicy {
    /// 403 for a refusal, 500 for a failure, 400 for a wrong request; text. For tools that check little.
    #[default]
    Legacy,
    /// No answer: a TCP reset. For tools that check nothing.
    Reset,
    /// RFC 9209's status, problem+json (RFC 9457). For modern clients.
    Standard,
}

/// How much a client is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    /// The upstream and the class.
    #[default]
    Class,
    /// The whole sentence too.
    Full,
    /// The event's id only.
    None,
}

/// The methods that are passed on, for `Allow`: every one but TRACE; and CONNECT is served, not passed on.
const PASSED_ON: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// A response of the proxy's own.
#[derive(Debug)]
pub struct LocalResponse {
    pub status: StatusCode,
    /// In place of the status's own.
    reason: Option<String>,
    fields: String,
    text: String,
}

impl LocalResponse {
    /// The answer to a failure, `None` for a reset. `upstream`: `host:port`; `id`: of the event.
    pub fn to(
        failure: &Failure,
        upstream: Option<&str>,
        id: &str,
        policy: AnswerPolicy,
        detail: Detail,
    ) -> Option<Self> {
        let words = failure.words();
        let (sentence, class) = (sentence(failure, &words, upstream, detail), words.class);
        let details = if detail == Detail::None { "" } else { class };
        let (status, content_type, text) = match policy {
            AnswerPolicy::Reset => return None,
            AnswerPolicy::Legacy => {
                // Known to be raised by tools that take every other status for a response.
                let status = match words.kind {
                    FailureKind::Client => StatusCode::BAD_REQUEST,
                    FailureKind::Failure => StatusCode::INTERNAL_SERVER_ERROR,
                    FailureKind::Refusal => StatusCode::FORBIDDEN,
                };
                (status, "text/plain; charset=utf-8", format!("{sentence} (event {id})\n"))
            }
            AnswerPolicy::Standard => {
                let problem = json!({
                    "type": "about:blank",
                    "title": words.status.canonical_reason().unwrap_or_default(),
                    "status": words.status.as_u16(),
                    "detail": sentence,
                    "instance": format!("urn:vouchsafe:event:{id}"),
                    "class": details,
                });
                (words.status, "application/problem+json", problem.to_string())
            }
        };
        let received = failure.received_status().filter(|_| detail != Detail::None);
        let received = received.map(|status| format!("; received-status={status}")).unwrap_or_default();
        let mut fields = format!(
            "Content-Type: {content_type}\r\nProxy-Status: vouchsafe; error={}; details=\"{details}\"{received}\r\n",
            words.proxy_status
        );
        if status == StatusCode::METHOD_NOT_ALLOWED {
            // RFC 9110 section 15.5.6.
            fields.push_str(&allow());
        }
        Some(Self { status, reason: None, fields, text })
    }

    /// OPTIONS that goes no further (RFC 9110 section 7.6.2).
    pub fn options() -> Self {
        Self { status: StatusCode::OK, reason: None, fields: allow(), text: String::new() }
    }

    /// Puts the class and the destination into the reason phrase: of the answer to CONNECT, clients show nothing else.
    pub fn explain_in_reason(&mut self, class: &str, destination: &str, detail: Detail) {
        if detail != Detail::None {
            let printable: String = destination.chars().filter(char::is_ascii_graphic).collect();
            self.reason = Some(format!("{class}: {printable}"));
        }
    }

    /// Bytes of its content.
    pub fn length(&self) -> usize {
        self.text.len()
    }

    /// Writes it for a client of this version. `to_head`: without the content, which a response to HEAD only
    /// announces. `close`: the connection ends behind it.
    pub fn write_to(&self, out: &mut Buffer, version: Version, to_head: bool, close: bool) {
        let head = format!(
            "{} {} {}\r\n{}Content-Length: {}\r\n{}\r\n",
            version.as_str(),
            self.status.as_u16(),
            self.reason.as_deref().or(self.status.canonical_reason()).unwrap_or_default(),
            self.fields,
            self.text.len(),
            connection(version, close),
        );
        out.extend_from_slice(head.as_bytes());
        if !to_head {
            out.extend_from_slice(self.text.as_bytes());
        }
    }
}

/// The answer to CONNECT, behind which HTTP goes on inside; it has no length (RFC 9110 section 9.3.6).
pub(super) fn write_connected(out: &mut Buffer, version: Version) {
    out.extend_from_slice(format!("{} 200 OK\r\n\r\n", version.as_str()).as_bytes());
}

fn allow() -> String {
    format!("Allow: {PASSED_ON}\r\n")
}

fn connection(version: Version, close: bool) -> &'static str {
    match (version, close) {
        (_, true) => "Connection: close\r\n",
        (Version::Http10, false) => "Connection: keep-alive\r\n",
        (Version::Http11, false) => "",
    }
}

fn sentence(failure: &Failure, words: &Words, upstream: Option<&str>, detail: Detail) -> String {
    // A client may always hear what is wrong with its own request.
    let is_its_own = matches!(
        failure,
        Failure::ConnectRefused(_)
            | Failure::TooManyConnections
            | Failure::Route(_)
            | Failure::Admission(_)
            | Failure::ClientTls(_)
            | Failure::NotHttp(_)
            | Failure::NotRedirected
    );
    if words.kind == FailureKind::Client || is_its_own {
        return format!("vouchsafe refused the request: {failure}");
    }
    let upstream = upstream.unwrap_or("the upstream");
    match (detail, words.kind) {
        (Detail::None, FailureKind::Refusal) => "vouchsafe refused the request".into(),
        (Detail::None, _) => "vouchsafe could not get a response".into(),
        (Detail::Full, FailureKind::Refusal) => format!("vouchsafe refused {upstream}: {failure}"),
        (Detail::Full, _) => format!("vouchsafe got no response from {upstream}: {failure}"),
        (Detail::Class, FailureKind::Refusal) => format!("vouchsafe refused {upstream}: {}", words.class),
        (Detail::Class, _) => format!("vouchsafe got no response from {upstream}: {}", words.class),
    }
}
