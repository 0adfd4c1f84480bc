//! What a request asks for, read once (RFC 9112 sections 3.2 and 3.3, RFC 9110 section 7.2).
//!
//! The four forms of a request target become one [`Target`]; nothing looks at the raw target or at Host again. What
//! two readers could understand in two ways is an error here:
//!
//! - a method with a form that is not its own (`GET host:port`, `CONNECT /`, `GET *`),
//! - no Host, two Hosts, or one that is not an authority,
//! - a scheme other than http and https, userinfo, port 0,
//! - a `#`, which the upstream would take for the end of the path.

use std::{fmt, net::IpAddr};

use memchr::memchr2;

use crate::{
    http1::{Version, fields::FieldName, head::RequestHead},
    text::{mask_tokens, mask_userinfo},
};

use super::authority::{Authority, AuthorityError, Host};

/// The form of a request target (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `http://host/path`
    Absolute,
    /// `*`
    Asterisk,
    /// `host:port`, with CONNECT only.
    Authority,
    /// `/path`
    Origin,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub form: Form,
    /// Whether the target's scheme was https (absolute-form only).
    pub https: bool,
    /// The authority asked for: that of the target in absolute- and authority-form, else that of Host. `None` for an
    /// HTTP/1.0 request without either.
    pub authority: Option<Authority>,
    /// Where path and query start in the raw target.
    path_start: usize,
    /// What the path has to begin with and does not.
    prefix: &'static str,
}

impl Target {
    /// Reads a request's target and Host.
    ///
    /// # Errors
    /// A [`TargetError`]; all of them mean status 400.
    pub fn read(head: &RequestHead) -> Result<Self, TargetError> {
        Self::with_host(head, host_field(head)?)
    }

    /// The same where the address that the client connected to says where the request goes: no Host names nothing, and
    /// neither do several.
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub fn read_at_address(head: &RequestHead) -> Result<Self, TargetError> {
        let host = match host_field(head) {
            Err(TargetError::NoHost | TargetError::TwoHosts) => None,
            host => host?,
        };
        Self::with_host(head, host)
    }

    fn with_host(head: &RequestHead, host: Option<Authority>) -> Result<Self, TargetError> {
        let target = head.target();
        if target.contains(&b'#') {
            return Err(TargetError::Fragment);
        }
        let connect = head.method() == "CONNECT";
        match target {
            [b'/', ..] if !connect => Ok(Self::of(Form::Origin, host)),
            b"*" if head.method() == "OPTIONS" => Ok(Self::of(Form::Asterisk, host)),
            b"*" if !connect => Err(TargetError::AsteriskForm),
            _ if connect => Self::connect(target),
            _ => Self::absolute(head, target),
        }
    }

    fn of(form: Form, authority: Option<Authority>) -> Self {
        Self { form, https: false, authority, path_start: 0, prefix: "" }
    }

    fn connect(target: &[u8]) -> Result<Self, TargetError> {
        if target.iter().any(|byte| matches!(byte, b'/' | b'?' | b'*')) {
            return Err(TargetError::ConnectForm);
        }
        let authority = authority(target)?;
        if authority.port.is_none() {
            return Err(TargetError::ConnectForm);
        }
        Ok(Self::of(Form::Authority, Some(authority)))
    }

    fn absolute(head: &RequestHead, target: &[u8]) -> Result<Self, TargetError> {
        let Some(colon) = memchr::memmem::find(target, b"://") else { return Err(TargetError::AuthorityForm) };
        let scheme = &target[..colon];
        let https = scheme.eq_ignore_ascii_case(b"https");
        if !https && !scheme.eq_ignore_ascii_case(b"http") {
            // Bytes before `://` that are no scheme belong to another form.
            let is_scheme = scheme.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
            let name = scheme.iter().map(|byte| char::from(*byte)).take(20).collect();
            return Err(if is_scheme { TargetError::Scheme(name) } else { TargetError::AuthorityForm });
        }
        let start = colon + 3;
        let behind = target[start..].iter().position(|byte| matches!(byte, b'/' | b'?'));
        let path_start = behind.map_or(target.len(), |at| start + at);
        let prefix = match target.get(path_start) {
            Some(b'/') => "",
            // RFC 9112 section 3.2.4: a server is asked for by OPTIONS without any path.
            None if head.method() == "OPTIONS" => "*",
            _ => "/",
        };
        let authority = authority(&target[start..path_start])?;
        Ok(Self { form: Form::Absolute, https, authority: Some(authority), path_start, prefix })
    }

    /// Appends the target to send to an origin server: path and query as they came, or `*`.
    pub fn write_to(&self, head: &RequestHead, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix.as_bytes());
        out.extend_from_slice(&head.target()[self.path_start..]);
    }

    /// Path and query, where they are text.
    pub fn path(&self, head: &RequestHead) -> Option<String> {
        let mut path = Vec::new();
        self.write_to(head, &mut path);
        String::from_utf8(path).ok()
    }
}

/// RFC 9112 section 3.2: 400 for an HTTP/1.1 request without Host, and for any with more than one or an invalid one.
/// An empty one is invalid, since an http URI has a host (RFC 9110 section 4.2.1).
fn host_field(head: &RequestHead) -> Result<Option<Authority>, TargetError> {
    let mut values = head.fields.values(FieldName::Host);
    let Some(value) = values.next() else {
        return match head.version {
            Version::Http11 => Err(TargetError::NoHost),
            Version::Http10 => Ok(None),
        };
    };
    if values.next().is_some() {
        return Err(TargetError::TwoHosts);
    }
    authority(value).map(Some)
}

fn authority(bytes: &[u8]) -> Result<Authority, TargetError> {
    let text = str::from_utf8(bytes).ok().filter(|text| text.is_ascii()).ok_or(TargetError::HostBytes)?;
    let authority: Authority = text.parse().map_err(|error: AuthorityError| TargetError::Authority(error.why()))?;
    // People may write an IPv6 address as it is; in a message a reader could take its end for a port (RFC 3986 section
    // 3.2.2).
    if matches!(authority.host, Host::Ip(IpAddr::V6(_))) && !text.starts_with('[') {
        return Err(TargetError::Authority("an IPv6 address without brackets"));
    }
    Ok(authority)
}

/// A raw target's path as it may be written down: without a query, a user name or password, and without tokens, which
/// Keystone's APIs have in paths.
pub fn path_for_records(target: &[u8]) -> String {
    let text = String::from_utf8_lossy(target);
    let path = if text.starts_with('/') { &text } else { behind_authority(&text) };
    let path = memchr2(b'?', b'#', path.as_bytes()).map_or(path, |at| &path[..at]);
    // What is not a path is refused, and may be anything.
    if path.starts_with('/') { mask_tokens(path).into_owned() } else { mask_tokens(&mask_userinfo(path)).into_owned() }
}

/// A target without the scheme and the authority that it begins with.
fn behind_authority(target: &str) -> &str {
    match target.split_once("://") {
        Some((scheme, rest)) if scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            // A password that is not encoded as it should be may hold a `/`.
            let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            rest.find(['/', '?', '#']).map_or("/", |at| &rest[at..])
        }
        _ => target,
    }
}

/// Why a request's target cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetError {
    /// `*` with another method than OPTIONS.
    AsteriskForm,
    /// An authority (of the target or of Host) that is none.
    Authority(&'static str),
    /// `host:port`, or something that is no target, with another method than CONNECT.
    AuthorityForm,
    /// CONNECT with anything but `host:port`.
    ConnectForm,
    /// A `#`.
    Fragment,
    /// The host holds bytes that no host has.
    HostBytes,
    /// HTTP/1.1 without Host.
    NoHost,
    /// A scheme that this proxy does not serve.
    Scheme(String),
    /// More than one Host field.
    TwoHosts,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsteriskForm => f.write_str("the target `*` goes with OPTIONS only"),
            Self::Authority(why) => write!(f, "the request names no valid host: {why}"),
            Self::AuthorityForm => f.write_str("the target is neither a path nor an `http://` URL"),
            Self::ConnectForm => f.write_str("CONNECT needs a target of the form `host:port`"),
            Self::Fragment => f.write_str("the target has a `#`; in a path it is written `%23`"),
            Self::HostBytes => f.write_str("the host holds bytes that no host has"),
            Self::NoHost => f.write_str("an HTTP/1.1 request needs a Host field"),
            Self::Scheme(scheme) => write!(f, "scheme `{scheme}` is not served here, only http"),
            Self::TwoHosts => f.write_str("the request has more than one Host field"),
        }
    }
}

impl std::error::Error for TargetError {}

#[cfg(test)]
mod tests {
    use crate::http1::head::{HeadLimits, HeadScan};

    use super::*;

    fn head(method: &str, target: &str, hosts: &[&str]) -> RequestHead {
        let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        let text = format!("{method} {target} HTTP/1.1\r\n{hosts}\r\n");
        let limits = HeadLimits { bytes: 4096, fields: 9 };
        RequestHead::read(text.as_bytes(), &mut HeadScan::default(), limits, &mut Vec::new()).unwrap().unwrap().0
    }

    #[test]
    fn forms_and_the_authority_they_mean() {
        for (method, target, host, form, authority, path) in [
            ("GET", "/v1?a=%2e", "g:1", Form::Origin, "g:1", "/v1?a=%2e"),
            ("GET", "//x/<>`\"", "g:1", Form::Origin, "g:1", "//x/<>`\""),
            ("GET", "http://g:1/v1", "other", Form::Absolute, "g:1", "/v1"),
            ("GET", "/v1", "[::1]:80", Form::Origin, "[::1]:80", "/v1"),
            ("GET", "HTTPS://G", "other", Form::Absolute, "g", "/"),
            ("GET", "http://G?a", "other", Form::Absolute, "g", "/?a"),
            ("GET", "http://G/?a=http://b/", "other", Form::Absolute, "g", "/?a=http://b/"),
            ("OPTIONS", "*", "g", Form::Asterisk, "g", "*"),
            ("OPTIONS", "http://G:1", "a", Form::Absolute, "g:1", "*"),
            ("OPTIONS", "http://G:1/", "a", Form::Absolute, "g:1", "/"),
            ("OPTIONS", "http://G:1?b", "a", Form::Absolute, "g:1", "/?b"),
        ] {
            let head = head(method, target, &[host]);
            let target = Target::read(&head).unwrap();
            assert_eq!(target.form, form);
            assert_eq!(target.path(&head).as_deref(), Some(path));
            assert_eq!(target.authority.map(|a| a.to_string()).as_deref(), Some(authority));
        }
        let connect = Target::read(&head("CONNECT", "g:443", &["a"])).unwrap();
        assert_eq!((connect.form, connect.authority), (Form::Authority, "g:443".parse().ok()));
    }

    #[test]
    fn what_is_ambiguous_is_refused() {
        for (method, target, hosts) in [
            ("GET", "/", &[][..]),
            ("GET", "/", &["a", "a"]),
            ("GET", "/", &[""]),
            ("GET", "/", &["a b"]),
            ("GET", "/", &["a@b"]),
            ("GET", "/", &["\u{e9}"]),
            ("GET", "/", &["::1"]),
            ("GET", "/", &["2001:db8::1:80"]),
            ("GET", "http://::1/", &["a"]),
            ("GET", "/a#b", &["a"]),
            ("GET", "http://a/#b", &["a"]),
            ("GET", "a:80", &["a"]),
            ("GET", "a/b", &["a"]),
            ("GET", "?a", &["a"]),
            ("GET", "*", &["a"]),
            ("GET", "ftp://a/", &["a"]),
            ("GET", "http://u:p@a/", &["a"]),
            ("GET", "http:///a", &["a"]),
            ("CONNECT", "http://a/", &["a"]),
            ("CONNECT", "/", &["a"]),
            ("CONNECT", "*", &["a"]),
            ("CONNECT", "a", &["a"]),
            ("CONNECT", "a:80/", &["a"]),
        ] {
            assert!(Target::read(&head(method, target, hosts)).is_err(), "{method} {target} {hosts:?}");
        }
    }

    #[test]
    fn at_an_address_no_host_is_needed_and_several_name_nothing() {
        for (target, hosts, authority) in [
            ("/", &[][..], None),
            ("/", &["a", "b"], None),
            ("/", &["a:1"], Some("a:1")),
            ("http://b:1/", &[], Some("b:1")),
        ] {
            let target = Target::read_at_address(&head("GET", target, hosts)).unwrap();
            assert_eq!(target.authority.map(|authority| authority.to_string()).as_deref(), authority);
        }
        for hosts in [&[""][..], &["a b"], &["a@b"]] {
            assert!(Target::read_at_address(&head("GET", "/", hosts)).is_err(), "{hosts:?}");
        }
    }

    #[test]
    fn tokens_and_passwords_are_not_written_down() {
        for (target, expected) in [
            ("/v2.0/tokens/gAAAA", "/v2.0/tokens/***"),
            ("/v2.0/tokens/gAAAA/endpoints?x=y", "/v2.0/tokens/***/endpoints"),
            ("/v2.0/tokens", "/v2.0/tokens"),
            ("/v1/images//detail", "/v1/images//detail"),
            ("http://a/v2.0/tokens/gAAAA", "/v2.0/tokens/***"),
            ("http://u:pa/ss@a/b", "/b"),
            ("u:pass@a:80", "***@a:80"),
            ("/a@b/os-console-auth-tokens/x", "/a@b/os-console-auth-tokens/***"),
            ("http://a", "/"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(path_for_records(target.as_bytes()), expected, "{target}");
        }
    }

    #[test]
    fn userinfo_is_not_repeated_in_errors() {
        for (target, host) in
            [("http://u:hunter2@a/", "a"), ("http://u:hunter2/b@a/", "a"), ("/", "a/b?hunter2"), ("/", "u:hunter2@a")]
        {
            let error = Target::read(&head("GET", target, &[host])).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{target} {host}: {error}");
        }
    }
}
