//! Every way in which a request can end here instead of at its upstream, and the only table from there
//! to outside words (RFC 9209 section 2.3).

use std::{fmt, time::Duration};

use http::StatusCode;

use crate::{
    connect::error::ConnectError,
    message::{fields::NotANumber, target::TargetError},
    route::table::RouteError,
    tls::failure::Code,
};

/// Why a request was not answered by its upstream.
#[derive(Debug)]
pub enum Failure {
    /// The upstream's answer is not HTTP, or could be read in two ways.
    BadResponse(String),
    /// The client's body broke off, or broke its framing.
    ClientBody,
    /// The client's body stalled.
    ClientStalled,
    /// No verified connection.
    Connect(ConnectError),
    /// CONNECT where it has no meaning, or for TLS inside.
    ConnectRefused(&'static str),
    /// All places for clients are taken.
    Crowded,
    /// The transfer coding is not one this proxy passes on.
    Framing,
    /// The head cannot be read as HTTP/1, or is larger than it may be.
    Head(String),
    /// The head did not come in time.
    HeadTimeout,
    /// The head is larger than this many bytes.
    LargeHead(usize),
    /// The target is longer than this many bytes.
    LongTarget(usize),
    /// The message passed here before.
    Loop,
    /// `Max-Forwards` is no number.
    MaxForwards(NotANumber),
    /// TRACE.
    Method,
    /// Nobody said where to.
    NoDestination,
    /// No response in time.
    ResponseTimeout(Duration),
    /// The destination has no upstream.
    Route(RouteError),
    /// The target or the Host field.
    Target(TargetError),
    /// The upstream closed without a response.
    UpstreamClosed(String),
}

/// What kind of end it is; the answer policy turns this into a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request itself is wrong.
    Client,
    /// Something on the way failed; to try again may help.
    Mishap,
    /// A decision not to; to try again is no use.
    Refusal,
}

/// The outside words of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// What kind of end.
    pub kind: Kind,
    /// RFC 9209's recommended status.
    pub status: StatusCode,
    /// RFC 9209's error type.
    pub proxy_status: &'static str,
    /// The class: our own stable word.
    pub class: &'static str,
}

impl Failure {
    /// The table.
    pub fn words(&self) -> Words {
        use Kind::{Client, Mishap, Refusal};
        let (kind, status, proxy_status, class) = match self {
            Self::BadResponse(_) => (Mishap, StatusCode::BAD_GATEWAY, "http_protocol_error", "bad_response"),
            Self::ClientBody => (Client, StatusCode::BAD_REQUEST, "http_request_error", "request_body"),
            Self::ClientStalled => (Client, StatusCode::REQUEST_TIMEOUT, "http_request_error", "request_timeout"),
            Self::Connect(error) => return connect_words(error),
            Self::ConnectRefused(_) => (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "connect_refused"),
            Self::Crowded => {
                (Mishap, StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached", "too_many_connections")
            }
            Self::Framing => (Client, StatusCode::NOT_IMPLEMENTED, "http_request_error", "transfer_coding"),
            Self::Head(_) => (Client, StatusCode::BAD_REQUEST, "http_request_error", "bad_head"),
            Self::HeadTimeout => (Client, StatusCode::REQUEST_TIMEOUT, "http_request_error", "head_timeout"),
            Self::LargeHead(_) => {
                (Client, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "http_request_error", "large_head")
            }
            Self::LongTarget(_) => (Client, StatusCode::URI_TOO_LONG, "http_request_error", "long_target"),
            Self::Loop => (Refusal, StatusCode::BAD_GATEWAY, "proxy_loop_detected", "loop"),
            Self::MaxForwards(_) => (Client, StatusCode::BAD_REQUEST, "http_request_error", "max_forwards"),
            Self::Method => (Client, StatusCode::METHOD_NOT_ALLOWED, "http_request_denied", "method"),
            Self::NoDestination => (Client, StatusCode::BAD_REQUEST, "http_request_error", "no_destination"),
            Self::ResponseTimeout(_) => {
                (Mishap, StatusCode::GATEWAY_TIMEOUT, "http_response_timeout", "response_timeout")
            }
            Self::Route(RouteError::Denied { .. }) => {
                (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "destination_denied")
            }
            Self::Route(RouteError::Name(_)) => {
                (Client, StatusCode::BAD_REQUEST, "http_request_error", "bad_target_name")
            }
            Self::Target(_) => (Client, StatusCode::BAD_REQUEST, "http_request_error", "bad_target"),
            Self::UpstreamClosed(_) => (Mishap, StatusCode::BAD_GATEWAY, "http_response_incomplete", "upstream_closed"),
        };
        Words { kind, status, proxy_status, class }
    }
}

/// The part of the table that is about the way out.
pub fn connect_words(error: &ConnectError) -> Words {
    use Kind::{Mishap, Refusal};
    let (kind, status, proxy_status, class) = match error {
        ConnectError::AddressDenied { .. } => {
            (Refusal, StatusCode::FORBIDDEN, "destination_ip_prohibited", "destination_denied")
        }
        ConnectError::ConnectTimeout { .. } => {
            (Mishap, StatusCode::GATEWAY_TIMEOUT, "connection_timeout", "connect_timeout")
        }
        ConnectError::Dns { .. } => (Mishap, StatusCode::BAD_GATEWAY, "dns_error", "dns_error"),
        ConnectError::DnsTimeout { .. } => (Mishap, StatusCode::GATEWAY_TIMEOUT, "dns_timeout", "dns_timeout"),
        ConnectError::Handshake(failed) => {
            let code = failed.failure.code();
            let kind = if code.is_verdict() { Refusal } else { Mishap };
            let proxy_status = match code {
                Code::ClientCertRefused | Code::ClientCertRequired | Code::HandshakeRefused => "tls_alert_received",
                Code::HandshakeTimeout => "connection_timeout",
                code if code.is_verdict() => "tls_certificate_error",
                _ => "tls_protocol_error",
            };
            let status = match code {
                Code::HandshakeTimeout => StatusCode::GATEWAY_TIMEOUT,
                _ => StatusCode::BAD_GATEWAY,
            };
            (kind, status, proxy_status, code.as_str())
        }
        ConnectError::Loop { .. } => (Refusal, StatusCode::BAD_GATEWAY, "proxy_loop_detected", "loop"),
        ConnectError::Tcp { error, .. } if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            (Mishap, StatusCode::BAD_GATEWAY, "connection_refused", "connection_refused")
        }
        ConnectError::Tcp { .. } => (Mishap, StatusCode::BAD_GATEWAY, "destination_ip_unroutable", "connect_failed"),
    };
    Words { kind, status, proxy_status, class }
}

/// For the log: everything. What the client is told is `respond`'s affair.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadResponse(why) => write!(f, "the upstream's answer cannot be passed on: {why}"),
            Self::ClientBody => f.write_str("the request's body broke off"),
            Self::ClientStalled => f.write_str("the request's body stalled"),
            Self::Connect(error) => error.fmt(f),
            Self::ConnectRefused(why) => f.write_str(why),
            Self::Crowded => f.write_str("too many clients are connected to the proxy"),
            Self::Framing => f.write_str("only `Transfer-Encoding: chunked` is passed on"),
            Self::Head(why) => write!(f, "the request's head cannot be read: {why}"),
            Self::HeadTimeout => f.write_str("the request's head did not come in time"),
            Self::LargeHead(limit) => write!(f, "the request's head has more than {limit} bytes, or too many fields"),
            Self::LongTarget(limit) => write!(f, "the request's target is longer than {limit} bytes"),
            Self::Loop => f.write_str("the request passed this proxy before: a loop"),
            Self::MaxForwards(NotANumber) => f.write_str("`Max-Forwards` is not one number"),
            Self::Method => f.write_str("TRACE is not passed on"),
            Self::NoDestination => {
                f.write_str("this proxy needs to know the host: send `GET http://host/path` or a Host field")
            }
            Self::ResponseTimeout(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Self::Route(RouteError::Denied { host, port }) => {
                write!(f, "`{}:{port}` is not allowed as a destination", host.in_authority())
            }
            Self::Route(RouteError::Name(name)) => write!(f, "`{name}` is not a name that a certificate can carry"),
            Self::Target(error) => error.fmt(f),
            Self::UpstreamClosed(why) => write!(f, "the upstream closed without an answer: {why}"),
        }
    }
}
