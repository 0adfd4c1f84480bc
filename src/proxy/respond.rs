//! A [`Failure`] and the listener's answer policy become a response, or a reset.
//!
//! What the client is told and what is recorded are two decisions: here is the first.

use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName},
};
use serde_json::json;

use super::{
    PASSED_ON,
    body::{Own, ResponseBody},
    failure::{Failure, Kind, Words},
};

/// How a listener answers when it cannot pass on an upstream's answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnswerPolicy {
    /// 403 for a refusal, 500 for a mishap, 400 for a wrong request; text. For tools that check little.
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

/// What is said to the client.
#[derive(Debug)]
pub struct Answer {
    /// The status; None for a reset.
    pub status: Option<StatusCode>,
    content_type: &'static str,
    proxy_status: String,
    text: String,
}

/// RFC 9110 section 15.5.6: a 405 says which methods there are.
fn allow(status: StatusCode) -> Option<HeaderValue> {
    (status == StatusCode::METHOD_NOT_ALLOWED).then_some(PASSED_ON)
}

impl Answer {
    /// Chooses the words.
    pub fn to(failure: &Failure, upstream: Option<&str>, id: &str, policy: AnswerPolicy, detail: Detail) -> Self {
        let words = failure.words();
        let sentence = sentence(failure, &words, upstream, detail);
        let details = if detail == Detail::None { "" } else { words.class };
        let proxy_status = format!("vouchsafe; error={}; details=\"{details}\"", words.proxy_status);
        match policy {
            AnswerPolicy::Reset => {
                Self { status: None, content_type: "", proxy_status: String::new(), text: String::new() }
            }
            AnswerPolicy::Legacy => Self {
                status: Some(match words.kind {
                    // Known to be raised by tools that take every other status for an answer.
                    Kind::Client => StatusCode::BAD_REQUEST,
                    Kind::Mishap => StatusCode::INTERNAL_SERVER_ERROR,
                    Kind::Refusal => StatusCode::FORBIDDEN,
                }),
                content_type: "text/plain; charset=utf-8",
                proxy_status,
                text: format!("{sentence} (event {id})\n"),
            },
            AnswerPolicy::Standard => Self {
                status: Some(words.status),
                content_type: "application/problem+json",
                proxy_status,
                text: json!({
                    "type": "about:blank",
                    "title": words.status.canonical_reason().unwrap_or_default(),
                    "status": words.status.as_u16(),
                    "detail": sentence,
                    "instance": format!("urn:vouchsafe:event:{id}"),
                    "class": details,
                })
                .to_string(),
            },
        }
    }

    /// As a response, after which the connection ends. None for a reset.
    pub fn into_response(self, body: impl FnOnce(String) -> Own) -> Option<Response<ResponseBody>> {
        let status = self.status?;
        let mut response = Response::new(ResponseBody::Own(body(self.text)));
        *response.status_mut() = status;
        let fields = response.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        if let Ok(value) = HeaderValue::try_from(self.proxy_status) {
            fields.insert(HeaderName::from_static("proxy-status"), value);
        }
        if let Some(methods) = allow(status) {
            fields.insert(ALLOW, methods);
        }
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
        Some(response)
    }

    /// As bytes, for a request whose head could not be read.
    pub fn into_bytes(self) -> Option<Vec<u8>> {
        let status = self.status?;
        let head = format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nProxy-Status: {}\r\nConnection: close\r\n\r\n{}",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            self.content_type,
            self.text.len(),
            self.proxy_status,
            self.text,
        );
        Some(head.into_bytes())
    }
}

fn sentence(failure: &Failure, words: &Words, upstream: Option<&str>, detail: Detail) -> String {
    // A client may always hear what is wrong with its own request.
    if words.kind == Kind::Client
        || matches!(failure, Failure::ConnectRefused(_) | Failure::Crowded | Failure::Route(_))
    {
        return failure.to_string();
    }
    let upstream = upstream.unwrap_or("the upstream");
    match (detail, words.kind) {
        (Detail::None, Kind::Refusal) => "the request was refused by the proxy".into(),
        (Detail::None, _) => "the proxy could not get an answer".into(),
        (Detail::Full, Kind::Refusal) => format!("{upstream} was refused: {failure}"),
        (Detail::Full, _) => format!("no answer from {upstream}: {failure}"),
        (Detail::Class, Kind::Refusal) if words.proxy_status == "tls_certificate_error" => {
            format!("{upstream} was not trusted: {}", words.class)
        }
        (Detail::Class, Kind::Refusal) => format!("{upstream} was refused: {}", words.class),
        (Detail::Class, _) => format!("no answer from {upstream}: {}", words.class),
    }
}
