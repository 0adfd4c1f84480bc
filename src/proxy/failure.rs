//! Every way in which a request can end here instead of at its upstream, and the only table from there
//! to outside words (RFC 9209 section 2.3).

use std::{borrow::Cow, fmt, net::SocketAddr, time::Duration};

use http::StatusCode;

use crate::{
    audit::tally::BadEnd,
    connect::error::{ConnectError, ParentCause},
    http1::{body::FramingError, head::HeadError},
    message::target::TargetError,
    route::table::RouteError,
    text::escape_within,
    tls::failure::{Code, HandshakeFailure},
};

use super::{client_tls::ClientTlsError, upload::UploadError};

/// Why a request was not answered by its upstream.
#[derive(Debug)]
pub enum Failure {
    /// The request is not accepted at this listener.
    Admission(AdmissionError),
    /// The upstream's answer is not HTTP, or could be read in two ways.
    BadResponse(String),
    /// The client's body broke off, or broke its framing.
    ClientBody(UploadError),
    /// The client's body stalled.
    ClientStalled,
    /// The client's TLS is not served.
    ClientTls(ClientTlsError),
    /// No verified connection.
    Connect(ConnectError),
    /// CONNECT on a fixed route.
    ConnectOnRoute,
    /// CONNECT inside CONNECT, or for TLS inside.
    ConnectRefused(&'static str),
    /// The request's head cannot be read, or is larger than it may be.
    Head(HeadError),
    /// The head did not come in time.
    HeadTimeout,
    /// The method is longer than any that is known.
    LongMethod,
    /// The target is longer than this many bytes.
    LongTarget(usize),
    /// The message passed here before.
    Loop,
    /// `Max-Forwards` is not one number.
    MaxForwards,
    /// TRACE.
    Method,
    /// There is no destination.
    NoDestination,
    /// The first bytes on a connection are not HTTP/1.
    NotHttp(NotHttp),
    /// No redirect rule led this connection to a listener for redirected ones.
    NotRedirected,
    /// A redirected connection on which the client sent nothing for this long.
    NoRequest(Duration),
    /// The connection is one of the proxy's own, which a redirect rule has led back to it.
    OwnConnection {
        /// The proxy's own end.
        from: SocketAddr,
    },
    /// No response in time.
    ResponseTimeout(Duration),
    /// The destination has no upstream.
    Route(RouteError),
    /// The target or the Host field.
    Target(TargetError),
    /// As many clients are connected as may be.
    TooManyConnections,
    /// The upstream closed without a response.
    UpstreamClosed(String),
}

/// What came instead of HTTP/1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotHttp {
    /// The preface of HTTP/2 (RFC 9113 section 3.4).
    Http2,
    /// Something else; its first bytes, at most [`FIRST_BYTES`].
    Other(Vec<u8>),
    /// A TLS ClientHello in the framing of SSL 2 (RFC 5246 appendix E.2).
    SslV2Hello,
    /// A TLS ClientHello, and the name in it (SNI).
    Tls(Option<String>),
}

/// As many bytes of a protocol that is not HTTP are recorded; more could hold a secret.
pub const FIRST_BYTES: usize = 8;

impl fmt::Display for NotHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http2 => f.write_str("HTTP/2 is not served here; use HTTP/1.1"),
            Self::Other(first) => {
                let hex: Vec<_> = first.iter().map(|byte| format!("{byte:02x}")).collect();
                write!(f, "the connection does not begin like HTTP; its first bytes are {}", hex.join(" "))
            }
            Self::SslV2Hello => f.write_str(
                "this client is too old for TLS here; let it speak plain HTTP (its handshake has the framing of SSL 2)",
            ),
            Self::Tls(None) => {
                f.write_str("a TLS handshake came to a listener for plain HTTP; use `http://` to reach it")
            }
            Self::Tls(Some(name)) => {
                let name = escape_within(name, 255);
                write!(f, "a TLS handshake for `{name}` came to a listener for plain HTTP; use `http://` to reach it")
            }
        }
    }
}

/// Who may ask a listener what: a decision about the request alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdmissionError {
    /// A web page of another site asks.
    CrossSite,
    /// The Host is none that this fixed route is reached by.
    ForeignHost(String),
    /// An absolute-form target names another authority than the route's upstream.
    WrongAuthority(String),
}

impl fmt::Display for AdmissionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrossSite => f.write_str("a web page of another site asked for it"),
            Self::ForeignHost(host) => {
                write!(f, "Host `{host}` is neither a loopback name nor one of this route's; accept_host can add it")
            }
            Self::WrongAuthority(authority) => {
                write!(f, "this fixed route does not lead to `{authority}`; use a forward listener for other hosts")
            }
        }
    }
}

/// What kind of end it is; the answer policy turns this into a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The request itself is wrong.
    Client,
    /// Something on the way failed; trying again may help.
    Failure,
    /// A decision; trying again does not help.
    Refusal,
}

impl FailureKind {
    /// How a request counts that ends so.
    pub(super) fn bad_end(self) -> BadEnd {
        match self {
            Self::Refusal => BadEnd::Refused,
            Self::Client | Self::Failure => BadEnd::Failed,
        }
    }
}

/// The outside words of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// What kind of end.
    pub kind: FailureKind,
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
        use FailureKind::{Client, Failure, Refusal};
        let (kind, status, proxy_status, class) = match self {
            Self::Admission(AdmissionError::CrossSite) => {
                (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "cross_site")
            }
            Self::Admission(AdmissionError::ForeignHost(_)) => {
                (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "host_denied")
            }
            Self::Admission(AdmissionError::WrongAuthority(_)) => {
                (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "wrong_authority")
            }
            Self::BadResponse(_) => (Failure, StatusCode::BAD_GATEWAY, "http_protocol_error", "bad_response"),
            Self::ClientBody(_) => (Client, StatusCode::BAD_REQUEST, "http_request_error", "request_body"),
            Self::ClientStalled => (Client, StatusCode::REQUEST_TIMEOUT, "http_request_error", "request_timeout"),
            Self::ClientTls(error) => return client_tls_words(error),
            Self::Connect(error) => return connect_words(error),
            Self::ConnectOnRoute => (Client, StatusCode::METHOD_NOT_ALLOWED, "http_request_denied", "connect_refused"),
            Self::ConnectRefused(_) => (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "connect_refused"),
            Self::Head(HeadError::Framing(FramingError::TransferCoding)) => {
                (Client, StatusCode::NOT_IMPLEMENTED, "http_request_error", "transfer_coding")
            }
            Self::Head(HeadError::TooLarge | HeadError::TooManyFields) => {
                (Client, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "http_request_error", "large_head")
            }
            Self::Head(_) => (Client, StatusCode::BAD_REQUEST, "http_request_error", "bad_head"),
            Self::HeadTimeout => (Client, StatusCode::REQUEST_TIMEOUT, "http_request_error", "head_timeout"),
            Self::LongMethod => (Client, StatusCode::NOT_IMPLEMENTED, "http_request_error", "method"),
            Self::LongTarget(_) => (Client, StatusCode::URI_TOO_LONG, "http_request_error", "long_target"),
            Self::Loop => (Refusal, StatusCode::BAD_GATEWAY, "proxy_loop_detected", "loop"),
            Self::MaxForwards => (Client, StatusCode::BAD_REQUEST, "http_request_error", "max_forwards"),
            Self::Method => (Client, StatusCode::METHOD_NOT_ALLOWED, "http_request_denied", "method"),
            Self::NoDestination => (Client, StatusCode::BAD_REQUEST, "http_request_error", "no_destination"),
            Self::NoRequest(_) => (Refusal, StatusCode::REQUEST_TIMEOUT, "http_request_error", "no_request"),
            Self::NotHttp(NotHttp::Http2) => (Client, StatusCode::BAD_REQUEST, "http_request_error", "bad_head"),
            Self::NotHttp(NotHttp::Other(_)) => (Refusal, StatusCode::BAD_REQUEST, "http_request_error", "not_http"),
            Self::NotHttp(NotHttp::SslV2Hello) => {
                (Refusal, StatusCode::BAD_REQUEST, "http_request_error", "tls_too_old")
            }
            Self::NotHttp(NotHttp::Tls(_)) => {
                (Refusal, StatusCode::BAD_REQUEST, "http_request_error", "tls_on_plain_listener")
            }
            Self::NotRedirected => (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "not_redirected"),
            Self::OwnConnection { .. } => (Refusal, StatusCode::BAD_GATEWAY, "proxy_loop_detected", "loop"),
            Self::ResponseTimeout(_) => {
                (Failure, StatusCode::GATEWAY_TIMEOUT, "http_response_timeout", "response_timeout")
            }
            Self::Route(RouteError::Denied { .. }) => {
                (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "destination_denied")
            }
            Self::Route(RouteError::AddressDenied(_)) => {
                (Refusal, StatusCode::FORBIDDEN, "destination_ip_prohibited", "destination_denied")
            }
            Self::Route(RouteError::OtherPort { .. }) => {
                (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "host_mismatch")
            }
            Self::Route(RouteError::Name(_)) => {
                (Client, StatusCode::BAD_REQUEST, "http_request_error", "bad_target_name")
            }
            Self::Target(_) => (Client, StatusCode::BAD_REQUEST, "http_request_error", "bad_target"),
            Self::TooManyConnections => {
                (Failure, StatusCode::SERVICE_UNAVAILABLE, "connection_limit_reached", "too_many_connections")
            }
            Self::UpstreamClosed(_) => {
                (Failure, StatusCode::BAD_GATEWAY, "http_response_incomplete", "upstream_closed")
            }
        };
        Words { kind, status, proxy_status, class }
    }

    /// Whether it is a decision about the request or its destination, not about a certificate.
    pub fn is_policy(&self) -> bool {
        match self {
            Self::Admission(_)
            | Self::ConnectOnRoute
            | Self::ConnectRefused(_)
            | Self::Loop
            | Self::NoRequest(_)
            | Self::NotRedirected
            | Self::OwnConnection { .. } => true,
            Self::NotHttp(not_http) => *not_http != NotHttp::Http2,
            Self::Route(error) => !matches!(error, RouteError::Name(_)),
            Self::ClientTls(error) => !matches!(error, ClientTlsError::Handshake(_) | ClientTlsError::Mint(_)),
            Self::Connect(error) => matches!(
                error,
                ConnectError::AddressDenied { .. } | ConnectError::CameBack { .. } | ConnectError::Loop { .. }
            ),
            _ => false,
        }
    }

    /// What to do about such a decision; empty where there is nothing to say.
    pub fn hint(&self) -> Cow<'static, str> {
        if let Self::ClientTls(error) = self {
            return error.hint().into();
        }
        let hint = match self {
            Self::Route(RouteError::Denied { .. }) => "if clients may go there, add it with --allow",
            Self::Route(RouteError::AddressDenied(_)) => {
                "if clients may go there, allow the address itself, or its network, with --allow in addition to the name"
            }
            Self::Route(RouteError::OtherPort { .. }) => {
                "the tool's Host has to name the port that it connects to; --port-map can tell that two ports are one"
            }
            Self::NotRedirected => "point clients at the server itself; the redirect rules lead them here",
            Self::NoRequest(_) => "this port is not HTTP: take it out of the redirected ports",
            Self::NotHttp(NotHttp::Other(_)) => "if this port is not HTTP, take it out of the redirected ports",
            Self::NotHttp(_) => "configure the tool to request `http://` URLs, which become verified https",
            Self::OwnConnection { .. } | Self::Connect(ConnectError::CameBack { .. }) => OWN_USER,
            Self::Connect(ConnectError::AddressDenied { .. }) => {
                "if clients may go there, allow the host by its exact name, or the network, with --allow"
            }
            Self::Admission(AdmissionError::ForeignHost(_)) => {
                "if clients use that name for this route, add it with --accept-host"
            }
            Self::Admission(AdmissionError::WrongAuthority(_)) => "use a forward listener, or a route of its own",
            Self::Connect(ConnectError::Parent(failure)) => failure.hint(),
            Self::ConnectOnRoute | Self::ConnectRefused(_) => "configure the tool to request `http://` URLs",
            _ => "",
        };
        hint.into()
    }

    /// The refused handshake, and whether it was with the parent proxy.
    pub fn refused_handshake(&self) -> Option<(&HandshakeFailure, bool)> {
        match self {
            Self::Connect(ConnectError::Handshake(refused)) => Some((refused, false)),
            Self::Connect(ConnectError::Parent(parent)) => match &parent.cause {
                ParentCause::Tls(refused) => Some((refused, true)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The status of the answer that was not passed on (RFC 9209 section 2.1.4), where there is one.
    pub fn received_status(&self) -> Option<u16> {
        match self {
            Self::Connect(ConnectError::Parent(failure)) => failure.status(),
            _ => None,
        }
    }

    /// The address that was not dialed, where that is the reason.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Connect(ConnectError::AddressDenied { addresses }) => addresses.first().copied(),
            Self::Connect(ConnectError::Loop { address } | ConnectError::CameBack { address, .. }) => Some(*address),
            Self::Route(RouteError::AddressDenied(address) | RouteError::OtherPort { original: address, .. }) => {
                Some(*address)
            }
            _ => None,
        }
    }
}

/// What to do where the proxy's own connections come back to it.
const OWN_USER: &str =
    "the redirect rules catch the proxy's own user; run the tool as another user, and print the rules for that one";

/// The part of the table that is about clients which speak TLS.
fn client_tls_words(error: &ClientTlsError) -> Words {
    use FailureKind::{Client, Failure, Refusal};
    let (kind, status, proxy_status, class) = match error {
        ClientTlsError::Handshake(_) => (Client, StatusCode::BAD_REQUEST, "http_request_error", "client_tls"),
        ClientTlsError::Mint(_) => (Failure, StatusCode::INTERNAL_SERVER_ERROR, "proxy_internal_error", "client_tls"),
        ClientTlsError::NotPermitted { .. } => {
            (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "not_permitted_by_ca")
        }
        ClientTlsError::OtherHost { .. } => (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "host_mismatch"),
        ClientTlsError::OtherName { .. } => (Refusal, StatusCode::FORBIDDEN, "http_request_denied", "sni_mismatch"),
        ClientTlsError::Plain => (Refusal, StatusCode::BAD_REQUEST, "http_request_error", "plain_on_tls_listener"),
        ClientTlsError::TooOld { .. } => (Refusal, StatusCode::BAD_REQUEST, "http_request_error", "tls_too_old"),
    };
    Words { kind, status, proxy_status, class }
}

/// The part of the table that is about the way out.
pub fn connect_words(error: &ConnectError) -> Words {
    use FailureKind::{Failure, Refusal};
    let (kind, status, proxy_status, class) = match error {
        ConnectError::AddressDenied { .. } => {
            (Refusal, StatusCode::FORBIDDEN, "destination_ip_prohibited", "destination_denied")
        }
        ConnectError::ConnectTimeout { .. } => {
            (Failure, StatusCode::GATEWAY_TIMEOUT, "connection_timeout", "connect_timeout")
        }
        ConnectError::Dns { .. } => (Failure, StatusCode::BAD_GATEWAY, "dns_error", "dns_error"),
        ConnectError::DnsTimeout { .. } => (Failure, StatusCode::GATEWAY_TIMEOUT, "dns_timeout", "dns_timeout"),
        ConnectError::Handshake(failed) => {
            let code = failed.failure.code();
            let kind = if code.is_refusal() { Refusal } else { Failure };
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
        ConnectError::CameBack { .. } | ConnectError::Loop { .. } => {
            (Refusal, StatusCode::BAD_GATEWAY, "proxy_loop_detected", "loop")
        }
        ConnectError::Parent(failure) => parent_row(&failure.cause),
        ConnectError::Tcp { error, .. } if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            (Failure, StatusCode::BAD_GATEWAY, "connection_refused", "connection_refused")
        }
        ConnectError::Tcp { .. } => (Failure, StatusCode::BAD_GATEWAY, "destination_ip_unroutable", "connect_failed"),
    };
    Words { kind, status, proxy_status, class }
}

/// The rows for a parent proxy that gave no tunnel. None is an answer of its own: a client that read the parent's 407
/// would ask its user for a password.
fn parent_row(cause: &ParentCause) -> (FailureKind, StatusCode, &'static str, &'static str) {
    use FailureKind::{Failure, Refusal};
    match cause {
        ParentCause::Auth { .. } => (Failure, StatusCode::BAD_GATEWAY, "connection_refused", "parent_auth"),
        ParentCause::BadAnswer { .. } => (Failure, StatusCode::BAD_GATEWAY, "http_protocol_error", "parent_bad_answer"),
        ParentCause::Denied(_) => (Failure, StatusCode::BAD_GATEWAY, "connection_refused", "parent_denied"),
        ParentCause::Silent { .. } => {
            (Failure, StatusCode::GATEWAY_TIMEOUT, "connection_timeout", "parent_unreachable")
        }
        ParentCause::Tls(failed) if failed.failure.code().is_refusal() => {
            (Refusal, StatusCode::BAD_GATEWAY, "tls_certificate_error", "parent_tls")
        }
        ParentCause::Tls(_) => (Failure, StatusCode::BAD_GATEWAY, "tls_protocol_error", "parent_tls"),
        ParentCause::Unreachable(_) => {
            (Failure, StatusCode::BAD_GATEWAY, "destination_unavailable", "parent_unreachable")
        }
        ParentCause::Upstream(_) => (Failure, StatusCode::BAD_GATEWAY, "destination_unavailable", "parent_upstream"),
    }
}

/// For the log: everything. What the client is told is decided in `respond`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admission(error) => error.fmt(f),
            Self::BadResponse(why) => write!(f, "the upstream's response cannot be passed on: {why}"),
            Self::ClientBody(error) => error.fmt(f),
            Self::ClientStalled => f.write_str("the request's body stalled"),
            Self::ClientTls(error) => error.fmt(f),
            Self::Connect(error) => error.fmt(f),
            Self::ConnectOnRoute => f.write_str("CONNECT has no meaning on a fixed route"),
            Self::ConnectRefused(why) => f.write_str(why),
            Self::Head(error) => write!(f, "the request's head cannot be read: {error}"),
            Self::HeadTimeout => f.write_str("the request's head did not come in time"),
            Self::LongMethod => f.write_str("the request's method is longer than any that is known"),
            Self::LongTarget(limit) => write!(f, "the request's target is longer than {limit} bytes"),
            Self::Loop => f.write_str("the request passed this proxy before: a loop"),
            Self::MaxForwards => f.write_str("`Max-Forwards` is not one number"),
            Self::Method => f.write_str("TRACE is not passed on"),
            Self::NoDestination => {
                f.write_str("this proxy needs to know the host: send `GET http://host/path` or a Host field")
            }
            Self::NoRequest(limit) => {
                write!(f, "the client connected and sent nothing for {} s", limit.as_secs_f32())
            }
            Self::NotHttp(not_http) => not_http.fmt(f),
            Self::NotRedirected => {
                f.write_str("no redirect rule led this connection here: the client connected to the listener itself")
            }
            Self::OwnConnection { from } => {
                write!(f, "a connection of the proxy's own, from {from}, came back to it: a loop")
            }
            Self::ResponseTimeout(limit) => write!(f, "no response within {} s", limit.as_secs_f32()),
            Self::Route(RouteError::Denied { host, port }) => {
                write!(f, "`{}:{port}` is not allowed as a destination", host.in_authority())
            }
            Self::Route(RouteError::AddressDenied(address)) => {
                write!(f, "{}, the address that the client connected to, is not allowed as a destination", address.ip())
            }
            Self::Route(RouteError::OtherPort { named, original }) => {
                write!(f, "the client connected to port {} and asked for `{named}`", original.port())
            }
            Self::Route(RouteError::Name(name)) => write!(f, "`{name}` is not a name that a certificate can carry"),
            Self::Target(error) => error.fmt(f),
            Self::TooManyConnections => f.write_str("too many clients are connected to the proxy"),
            Self::UpstreamClosed(why) => write!(f, "the upstream closed without a response: {why}"),
        }
    }
}
