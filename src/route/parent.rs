//! A parent proxy: the way out of a network that has no other.

use std::{fmt, sync::Arc};

use data_encoding::BASE64;

use crate::{
    message::authority::{Authority, Host},
    text::escape_within,
};

use super::{no_proxy::NoProxy, upstream::Upstream};

/// A proxy that CONNECT is sent to. As a part of [`Upstream`] it tells connections apart, with its credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct ParentProxy {
    pub host: Host,
    pub port: u16,
    /// How an `https://` parent is verified; `None` for `http://`.
    pub tls: Option<Box<Upstream>>,
    pub credentials: Option<ParentCredentials>,
}

impl ParentProxy {
    /// Whether another one differs in how its certificate is verified at most.
    pub(super) fn is_but_for_tls(&self, other: &Self) -> bool {
        let same = match (&self.tls, &other.tls) {
            (Some(own), Some(other)) => own.is_but_for_tls(other),
            (None, None) => true,
            _ => false,
        };
        same && Self { tls: other.tls.clone(), ..self.clone() } == *other
    }
}

impl fmt::Display for ParentProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{scheme}://{}:{}", self.host.in_authority(), self.port)
    }
}

impl fmt::Debug for ParentProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A user name and a password for a parent proxy. They have no `Display` and no `Debug`, and the only way out of here
/// is the field of a CONNECT request.
#[derive(Clone, PartialEq, Eq)]
pub struct ParentCredentials(Arc<str>);

impl ParentCredentials {
    /// Of the text `user:password`.
    ///
    /// # Errors
    /// What is wrong, without the text.
    pub fn new(text: &[u8]) -> Result<Self, &'static str> {
        let colon = text.iter().position(|byte| *byte == b':').ok_or("`user:password` is expected")?;
        Self::of(&text[..colon], &text[colon + 1..])
    }

    fn of(user: &[u8], password: &[u8]) -> Result<Self, &'static str> {
        if user.is_empty() {
            return Err("the user name is missing");
        }
        // RFC 7617 section 2: the first colon ends the user name, and control characters are not allowed.
        if user.contains(&b':') {
            return Err("a user name cannot have a colon in it");
        }
        if user.iter().chain(password).any(u8::is_ascii_control) {
            return Err("a control character is in the user name or the password");
        }
        Ok(Self(BASE64.encode(&[user, b":", password].concat()).into()))
    }

    /// Appends the field to the head of a CONNECT request.
    pub fn write_field(&self, head: &mut Vec<u8>) {
        head.extend_from_slice(b"Proxy-Authorization: Basic ");
        head.extend_from_slice(self.0.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
}

/// The URL of a parent proxy.
#[derive(Clone)]
pub struct ParentUrl {
    pub https: bool,
    pub host: Host,
    pub port: u16,
    pub credentials: Option<ParentCredentials>,
}

impl ParentUrl {
    /// Reads `http://[USER:PASSWORD@]HOST[:PORT]` or the same with `https`; without a scheme, `http` is meant. No
    /// message repeats a password.
    ///
    /// # Errors
    /// What is wrong, and mostly what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other if other.starts_with("socks") => {
                return Err(
                    "SOCKS is not spoken here\nhint: an SSH server is reached with `ssh -L` and --connect-to".into()
                );
            }
            // Anything but a plain word may be a part of a password.
            other if other.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
                return Err(format!(
                    "`{}` is not a scheme of parent proxies; `http://` or `https://` is expected",
                    escape_within(other, 40)
                ));
            }
            _ => return Err("`http://` or `https://` is expected".into()),
        };
        let (before, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if before.is_empty() {
            return Err("the host is missing".into());
        }
        if !matches!(path, "" | "/") {
            return Err(
                "a parent proxy has no path; a `/`, `?` or `#` in a password is written `%2F`, `%3F` or `%23`".into()
            );
        }
        let (userinfo, authority) = match before.rsplit_once('@') {
            Some((userinfo, authority)) => (Some(userinfo), authority),
            None => (None, before),
        };
        let Authority { host, port } = authority.parse::<Authority>().map_err(|error| error.why().to_owned())?;
        let credentials = userinfo.map(from_userinfo).transpose()?;
        Ok(Self { https, host, port: port.unwrap_or(if https { 443 } else { 80 }), credentials })
    }
}

fn from_userinfo(userinfo: &str) -> Result<ParentCredentials, String> {
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let decoded = |part| percent_decoded(part).ok_or("a `%` in the user name or the password is written `%25`");
    Ok(ParentCredentials::of(&decoded(user)?, &decoded(password)?)?)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? * 16 + digit()?) as u8
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// How one upstream is reached, where that is configured for it.
#[derive(Clone, Debug)]
pub enum ParentChoice {
    Direct,
    Through(Arc<ParentProxy>),
}

/// How upstreams without a choice of their own are reached.
#[derive(Clone, Debug, Default)]
pub struct ParentRules {
    pub parent: Option<Arc<ParentProxy>>,
    /// Hosts that are reached without it. Those of this host always are.
    pub no_proxy: NoProxy,
}

impl ParentRules {
    /// The parent for a host at this port; without a port, whether there is one for any of its ports.
    pub(super) fn of(&self, host: &Host, port: Option<u16>) -> Option<&Arc<ParentProxy>> {
        let parent = self.parent.as_ref()?;
        (!is_this_host(host) && !self.no_proxy.matches(host, port)).then_some(parent)
    }
}

/// Whether a host is this one: the parent has another.
fn is_this_host(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => ip.to_canonical().is_loopback(),
        Host::Name(name) => name.as_str() == "localhost" || name.as_str().ends_with(".localhost"),
    }
}

/// The proxy for `https` in a list like `http:10.0.0.1:3128, https:10.0.0.1:1080`, as `http_proxy_information` of
/// glance_store has it.
///
/// # Errors
/// There is none for `https`.
pub fn from_schemes(text: &str) -> Result<&str, String> {
    let pairs = text.split(',').map(scheme_and_proxy).collect::<Option<Vec<_>>>();
    let Some(pairs) = pairs else { return Ok(text) };
    let of_https = pairs.into_iter().find(|(scheme, _)| *scheme == "https");
    of_https.map(|(_, proxy)| proxy).ok_or_else(|| {
        "there is no proxy for `https`, and upstreams are connected to by TLS only\nhint: write `https:HOST:PORT`"
            .into()
    })
}

fn scheme_and_proxy(entry: &str) -> Option<(&str, &str)> {
    let (scheme, proxy) = entry.trim().split_once(':')?;
    let is_pair = matches!(scheme, "http" | "https") && !proxy.starts_with("//");
    is_pair.then_some((scheme, proxy.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(credentials: Option<ParentCredentials>) -> Option<String> {
        let mut head = Vec::new();
        credentials?.write_field(&mut head);
        String::from_utf8(head).ok()
    }

    #[test]
    fn urls_of_parents() {
        for (text, expected, user) in [
            ("http://proxy.example:3128", "false proxy.example:3128", None),
            ("HTTP://proxy.example:3128/", "false proxy.example:3128", None),
            ("proxy.example:3128", "false proxy.example:3128", None),
            ("http://proxy.example", "false proxy.example:80", None),
            ("https://proxy.example", "true proxy.example:443", None),
            ("https://[2001:db8::1]:3129", "true [2001:db8::1]:3129", None),
            ("http://aladdin:open%20sesame@p:1", "false p:1", Some("YWxhZGRpbjpvcGVuIHNlc2FtZQ==")),
            ("http://user@p:1", "false p:1", Some("dXNlcjo=")),
            ("http://u:p@x@p:1", "false p:1", Some("dTpwQHg=")),
        ] {
            let url = ParentUrl::parse(text).unwrap();
            assert_eq!(format!("{} {}:{}", url.https, url.host.in_authority(), url.port), expected, "{text}");
            let expected = user.map(|user| format!("Proxy-Authorization: Basic {user}\r\n"));
            assert_eq!(field(url.credentials), expected, "{text}");
        }
        for (text, expected) in [
            ("socks5://p:1", "SOCKS"),
            ("ftp://p:1", "`ftp` is not a scheme"),
            ("http://", "the host is missing"),
            ("http://p:1/x", "has no path"),
            ("http://p:0", "the port is not within"),
            ("http://a%3Ab:secret@p:1", "a colon"),
            ("http://a:secret%@p:1", "written `%25`"),
            ("http://a:sec%0Aret@p:1", "a control character"),
            ("http://:secret@p:1", "the user name is missing"),
        ] {
            let error = ParentUrl::parse(text).err().unwrap();
            assert!(error.contains(expected) && !error.contains("sec"), "{text}: {error}");
        }
    }

    #[test]
    fn the_proxy_of_https_is_taken_from_a_list_by_schemes() {
        for (text, expected) in [
            ("http:10.0.0.1:3128, https:10.0.0.1:1080", "10.0.0.1:1080"),
            ("https:http://p.example:3128", "http://p.example:3128"),
            ("https://p.example:3128", "https://p.example:3128"),
            ("p.example:3128", "p.example:3128"),
        ] {
            assert_eq!(from_schemes(text).unwrap(), expected);
        }
        assert!(from_schemes("http:10.0.0.1:3128").is_err());
    }

    #[test]
    fn this_host_is_reached_directly() {
        let tls = None;
        let parent = ParentProxy { host: "p".parse().unwrap(), port: 1, tls, credentials: None };
        let no_proxy = NoProxy(vec!["b.example:1".parse().unwrap()]);
        let rules = ParentRules { parent: Some(Arc::new(parent)), no_proxy };
        for (host, port, expected) in [
            ("localhost", 1, false),
            ("a.localhost", 1, false),
            ("127.0.0.9", 1, false),
            ("[::1]", 1, false),
            ("[::ffff:127.0.0.1]", 1, false),
            ("192.0.2.1", 1, true),
            ("b.example", 1, false),
            ("b.example", 2, true),
        ] {
            assert_eq!(rules.of(&host.parse().unwrap(), Some(port)).is_some(), expected, "{host}:{port}");
        }
    }
}
