//! What a request asks for, read once (RFC 9112 sections 3.2 and 3.3, RFC 9110 section 7.2).
//!
//! The four request-target forms become one [`Target`]; after it nobody looks at the raw URI or at
//! Host again. Anything that two readers could understand in two ways is an error here:
//!
//! - a method against the wrong form (`GET host:port`, `CONNECT /`, `GET *`),
//! - no Host, two Hosts, or one that is no authority,
//! - a scheme other than http and https, userinfo, port 0.

use std::fmt;

use http::{Method, Request, Uri, Version, header::HOST, uri::PathAndQuery};

use super::authority::{Authority, AuthorityError};

/// The form of a request-target (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `http://host/path`
    Absolute,
    /// `*`
    Asterisk,
    /// `host:port`, with CONNECT only
    Authority,
    /// `/path`
    Origin,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The form it was written in.
    pub form: Form,
    /// Whether the target's scheme was https (absolute-form only).
    pub https: bool,
    /// The authority meant: of the target in absolute- and authority-form, else of Host.
    /// None only for an HTTP/1.0 request without either.
    pub authority: Option<Authority>,
    /// Path and query as they came, byte for byte; `*` for the asterisk-form.
    pub path: PathAndQuery,
}

impl Target {
    /// The same without any path: what is asked for is the server itself (RFC 9112 section 3.2.4).
    pub fn without_path(self) -> Self {
        Self { path: PathAndQuery::from_static("*"), ..self }
    }

    /// The target to send to an origin server: origin-form, or `*`.
    pub fn origin_uri(&self) -> Uri {
        Uri::from(self.path.clone())
    }
}

/// Reads a request's target and Host field.
///
/// # Errors
/// A [`TargetError`]; all of them mean status 400.
pub fn read<B>(request: &Request<B>) -> Result<Target, TargetError> {
    let host = host_field(request)?;
    let uri = request.uri();
    let connect = request.method() == Method::CONNECT;
    match (uri.scheme(), uri.authority()) {
        (None, None) if connect => Err(TargetError::ConnectForm),
        (None, None) => origin(request, host),
        (None, Some(authority)) if connect => {
            let authority = authority.as_str().parse::<Authority>().map_err(TargetError::authority)?;
            if authority.port.is_none() {
                return Err(TargetError::ConnectForm);
            }
            let path = PathAndQuery::from_static("/");
            Ok(Target { form: Form::Authority, https: false, authority: Some(authority), path })
        }
        (None, Some(_)) => Err(TargetError::AuthorityForm),
        (Some(_), _) if connect => Err(TargetError::ConnectForm),
        (Some(scheme), authority) => {
            let https = match scheme.as_str() {
                "http" => false,
                "https" => true,
                other => return Err(TargetError::Scheme(other.chars().take(20).collect())),
            };
            let text = authority.map_or("", http::uri::Authority::as_str);
            let authority = text.parse::<Authority>().map_err(TargetError::authority)?;
            let path = path(uri);
            Ok(Target { form: Form::Absolute, https, authority: Some(authority), path })
        }
    }
}

fn origin<B>(request: &Request<B>, host: Option<Authority>) -> Result<Target, TargetError> {
    let path = path(request.uri());
    let form = match path.as_str() {
        "*" if request.method() == Method::OPTIONS => Form::Asterisk,
        "*" => return Err(TargetError::AsteriskForm),
        _ => Form::Origin,
    };
    Ok(Target { form, https: false, authority: host, path })
}

/// The path and the query; `/` where there is none. The type has an empty one, too (`http://host#fragment`), which
/// says that it is `/` and is written as nothing.
fn path(uri: &Uri) -> PathAndQuery {
    match uri.path_and_query() {
        Some(path) if path.as_str() != "/" => path.clone(),
        _ => PathAndQuery::from_static("/"),
    }
}

/// RFC 9112 section 3.2: 400 for an HTTP/1.1 request without Host, and for any with more than one or an
/// invalid one. An empty Host is valid there, but names nothing.
fn host_field<B>(request: &Request<B>) -> Result<Option<Authority>, TargetError> {
    let mut values = request.headers().get_all(HOST).iter();
    let Some(value) = values.next() else {
        return match request.version() {
            Version::HTTP_11 => Err(TargetError::NoHost),
            _ => Ok(None),
        };
    };
    if values.next().is_some() {
        return Err(TargetError::TwoHosts);
    }
    let text = value.to_str().map_err(|_| TargetError::HostBytes)?;
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(TargetError::authority)
}

/// Whether a head begins with `OPTIONS http://host `: a target without a path, which an [`Uri`] does not tell from
/// one with the path `/`.
pub fn is_bare_options(head: &[u8]) -> bool {
    let target = head.strip_prefix(b"OPTIONS http").map(|rest| rest.strip_prefix(b"s").unwrap_or(rest));
    let Some(authority) = target.and_then(|rest| rest.strip_prefix(b"://")) else { return false };
    authority.iter().find(|byte| matches!(byte, b' ' | b'/' | b'?' | b'\r')) == Some(&b' ')
}

/// A path as it may be written down. Keystone's v2 API has tokens in it, as in `/v2.0/tokens/TOKEN/endpoints`.
pub fn without_tokens(path: &str) -> String {
    let (mut segments, mut after_tokens) = (Vec::new(), false);
    for segment in path.split('/') {
        segments.push(if after_tokens && !segment.is_empty() { "***" } else { segment });
        after_tokens = segment == "tokens";
    }
    segments.join("/")
}

/// Why a request's target cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// `*` with another method than OPTIONS.
    AsteriskForm,
    /// An authority (of the target or of Host) that is none.
    Authority(&'static str),
    /// `host:port` with another method than CONNECT.
    AuthorityForm,
    /// CONNECT with anything but `host:port`.
    ConnectForm,
    /// Host holds bytes that no host has.
    HostBytes,
    /// HTTP/1.1 without Host.
    NoHost,
    /// A scheme that this proxy does not serve.
    Scheme(String),
    /// More than one Host field.
    TwoHosts,
}

impl TargetError {
    fn authority(error: AuthorityError) -> Self {
        Self::Authority(error.why())
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsteriskForm => f.write_str("the target `*` goes with OPTIONS only"),
            Self::Authority(why) => write!(f, "the request names no valid host: {why}"),
            Self::AuthorityForm => f.write_str("a target of the form `host:port` goes with CONNECT only"),
            Self::ConnectForm => f.write_str("CONNECT needs a target of the form `host:port`"),
            Self::HostBytes => f.write_str("the Host field holds bytes that no host has"),
            Self::NoHost => f.write_str("an HTTP/1.1 request needs a Host field"),
            Self::Scheme(scheme) => write!(f, "scheme `{scheme}` is not served here, only http"),
            Self::TwoHosts => f.write_str("the request has more than one Host field"),
        }
    }
}

impl std::error::Error for TargetError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, hosts: &[&str]) -> Request<()> {
        let mut builder = Request::builder().method(method).uri(target);
        for host in hosts {
            builder = builder.header(HOST, *host);
        }
        builder.body(()).unwrap()
    }

    #[test]
    fn forms_and_the_authority_they_mean() {
        for (method, target, host, form, authority, path) in [
            ("GET", "/v1?a=%2e", "g:1", Form::Origin, "g:1", "/v1?a=%2e"),
            ("GET", "http://g:1/v1", "other", Form::Absolute, "g:1", "/v1"),
            ("GET", "http://G", "other", Form::Absolute, "g", "/"),
            ("GET", "http://G#a", "other", Form::Absolute, "g", "/"),
            ("GET", "http://G?a", "other", Form::Absolute, "g", "/?a"),
            ("OPTIONS", "*", "g", Form::Asterisk, "g", "*"),
            ("CONNECT", "g:443", "g", Form::Authority, "g:443", "/"),
        ] {
            let target = read(&request(method, target, &[host])).unwrap();
            assert_eq!(target.form, form);
            assert_eq!(target.origin_uri().to_string(), path);
            assert_eq!(target.authority.map(|a| a.to_string()).as_deref(), Some(authority));
        }
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for (method, target, hosts) in [
            ("GET", "/", &[][..]),
            ("GET", "/", &["a", "a"]),
            ("GET", "/", &["a b"]),
            ("GET", "/", &["a@b"]),
            ("GET", "a:80", &["a"]),
            ("GET", "*", &["a"]),
            ("GET", "ftp://a/", &["a"]),
            ("GET", "http://u:p@a/", &["a"]),
            ("CONNECT", "http://a/", &["a"]),
            ("CONNECT", "/", &["a"]),
        ] {
            assert!(read(&request(method, target, hosts)).is_err(), "{method} {target} {hosts:?}");
        }
    }

    #[test]
    fn a_target_without_a_path_asks_for_the_server_itself() {
        for (head, expected) in [
            ("OPTIONS http://a HTTP/1.1\r\n", true),
            ("OPTIONS https://a:1 HTTP/1.1\r\n", true),
            ("OPTIONS http://a/ HTTP/1.1\r\n", false),
            ("OPTIONS http://a?b HTTP/1.1\r\n", false),
            ("OPTIONS * HTTP/1.1\r\n", false),
            ("GET http://a HTTP/1.1\r\n", false),
            ("OPTIONS http://a", false),
        ] {
            assert_eq!(is_bare_options(head.as_bytes()), expected, "{head}");
        }
        assert_eq!(read(&request("OPTIONS", "http://g:1", &["a"])).unwrap().without_path().origin_uri(), "*");
    }

    #[test]
    fn tokens_are_not_written_down() {
        for (path, expected) in [
            ("/v2.0/tokens/gAAAA", "/v2.0/tokens/***"),
            ("/v2.0/tokens/gAAAA/endpoints", "/v2.0/tokens/***/endpoints"),
            ("/v2.0/tokens", "/v2.0/tokens"),
            ("/v2.0/tokens/", "/v2.0/tokens/"),
            ("/v1/images//detail", "/v1/images//detail"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(without_tokens(path), expected);
        }
    }

    #[test]
    fn userinfo_is_not_repeated() {
        for (target, host) in [
            ("http://u:hunter2@a/", "a"),
            // A password that is not encoded as it should be ends the authority.
            ("http://u:hunter2/b@a/", "a"),
            ("http://u:hunter2?b@a/", "a"),
            ("/", "a/b?hunter2"),
            ("/", "u:hunter2@a"),
        ] {
            let error = read(&request("GET", target, &[host])).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{target} {host}: {error}");
        }
    }
}
