//! `host[:port]` as people and messages write it (RFC 3986 section 3.2, RFC 9110 section 7.2).
//!
//! A [`Host`] is a DNS name in its one canonical form, or an IP address. What could be taken for an
//! address by one reader and for a name by another (`127.1`, `0x7f.0.0.1`) is neither, and refused.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

use crate::text::{escape_within, show_value};

/// A host: a DNS name, or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An IP address literal.
    Ip(IpAddr),
    /// A DNS name.
    Name(HostName),
}

/// A DNS name in lower case, as A-labels. Whether it was written with a trailing dot makes no difference to which host
/// it names, so two names are equal without it; it only says how to look the name up.
#[derive(Clone, Debug)]
pub struct HostName {
    name: String,
    trailing_dot: bool,
}

impl HostName {
    /// The name without a trailing dot: what is compared, verified and sent.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The name as a resolver takes it: with the trailing dot that keeps the search list away, where it was written.
    pub fn to_lookup(&self) -> String {
        format!("{}{}", self.name, if self.trailing_dot { "." } else { "" })
    }
}

impl PartialEq for HostName {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for HostName {}

impl Hash for HostName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl PartialOrd for HostName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HostName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Host {
    /// The host as it stands in a URL or a Host field: IPv6 in brackets.
    pub fn in_authority(&self) -> String {
        match self {
            Self::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => ip.to_string(),
            Self::Name(name) => name.as_str().to_owned(),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl FromStr for Host {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let error = |why| AuthorityError { text: shorten(text), why };
        let bare = match text.strip_prefix('[') {
            Some(rest) => {
                let inner = rest.strip_suffix(']').ok_or_else(|| error(Why::Bracket))?;
                if inner.contains('%') {
                    return Err(error(Why::Zone));
                }
                return match inner.parse::<Ipv6Addr>() {
                    Ok(ip) => Ok(Self::Ip(ip.into())),
                    Err(_) => Err(error(Why::Bracket)),
                };
            }
            None => text,
        };
        if bare.is_empty() {
            return Err(error(Why::Empty));
        }
        if let Ok(ip) = bare.parse::<Ipv4Addr>() {
            return Ok(Self::Ip(ip.into()));
        }
        if bare.as_bytes().contains(&b':')
            && let Ok(ip) = bare.parse::<Ipv6Addr>()
        {
            return Ok(Self::Ip(ip.into()));
        }
        if bare.bytes().any(|byte| matches!(byte, b'%' | b':')) {
            return Err(error(if bare.contains("::") { Why::Zone } else { Why::Character }));
        }
        canonical_name(bare).map(Self::Name).map_err(error)
    }
}

/// A host with an optional port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, where one was given; never 0.
    pub port: Option<u16>,
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host.in_authority())?;
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, AuthorityError> {
        let error = |why| AuthorityError { text: shorten(text), why };
        if text.as_bytes().contains(&b'@') {
            return Err(error(Why::Userinfo));
        }
        let (host, port) = split_port(text);
        let port = match port {
            None | Some("") => None,
            Some(digits) => Some(parse_port(digits).ok_or_else(|| error(Why::Port))?),
        };
        let host = host.parse::<Host>().map_err(|e| error(e.why))?;
        Ok(Self { host, port })
    }
}

/// Why a text is not a host or an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityError {
    text: String,
    why: Why,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Bracket,
    Character,
    Empty,
    Label,
    Numeric,
    Port,
    Userinfo,
    Zone,
}

impl AuthorityError {
    /// What is wrong, without the text: that of a message may hold a part of a password or of a query.
    pub fn why(&self) -> &'static str {
        match self.why {
            Why::Bracket => "not an IPv6 address in brackets",
            Why::Character => "a character that no host name has",
            Why::Empty => "the host is missing",
            Why::Label => "not a DNS name (labels of 1 to 63 letters, digits, `-`, `_`; 253 in all)",
            Why::Numeric => "neither a name nor an address in the form 192.0.2.1",
            Why::Port => "the port is not within 1-65535",
            Why::Userinfo => "a user name or password before `@` is not accepted here",
            Why::Zone => "an IPv6 zone has no place here; name the host, and say where to connect",
        }
    }
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.why {
            // The text holds a password: it is not repeated.
            Why::Userinfo => f.write_str(self.why()),
            Why::Empty if self.text.is_empty() => f.write_str(self.why()),
            _ => write!(f, "`{}`: {}", self.text, self.why()),
        }
    }
}

impl std::error::Error for AuthorityError {}

/// The IPv4 network that an IPv4-mapped one stands for (RFC 4291 section 2.5.5.2). Addresses are compared as IPv4 where
/// they can be, so the mapped network itself would match none.
pub fn unmapped(network: IpNet) -> Option<Ipv4Net> {
    let IpNet::V6(network) = network else { return None };
    let bits = network.prefix_len().checked_sub(96)?;
    Ipv4Net::new(network.network().to_ipv4_mapped()?, bits).ok()
}

/// Reads a port: 1 to 65535, digits only, no sign.
pub fn parse_port(digits: &str) -> Option<u16> {
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|port| *port != 0)
}

fn split_port(text: &str) -> (&str, Option<&str>) {
    let bytes = text.as_bytes();
    let after_bracket = bytes.iter().rposition(|byte| *byte == b']').map_or(0, |i| i + 1);
    match bytes[after_bracket..].iter().rposition(|byte| *byte == b':') {
        // Two colons and no bracket: an IPv6 address without a port, as people type it.
        Some(last) if after_bracket == 0 && bytes[..last].contains(&b':') => (text, None),
        Some(i) => (&text[..after_bracket + i], Some(&text[after_bracket + i + 1..])),
        None => (text, None),
    }
}

/// Lower case, A-labels. Underscores stay: container names have them.
fn canonical_name(written: &str) -> Result<HostName, Why> {
    let text = written.strip_suffix('.').unwrap_or(written);
    let name = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        idna::domain_to_ascii(text).map_err(|_| Why::Label)?
    };
    if name.is_empty() {
        return Err(Why::Empty);
    }
    if name.bytes().any(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))) {
        return Err(Why::Character);
    }
    if name.len() > 253
        || name
            .split('.')
            .any(|label| label.is_empty() || label.len() > 63 || label.starts_with('-') || label.ends_with('-'))
    {
        return Err(Why::Label);
    }
    // WHATWG URL "ends in a number": such a host is read as an address by some and as a name by others.
    let last = name.rsplit('.').next().unwrap_or(&name);
    let hex = last.strip_prefix("0x").is_some_and(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
    if hex || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Why::Numeric);
    }
    Ok(HostName { name, trailing_dot: written.ends_with('.') })
}

fn shorten(text: &str) -> String {
    escape_within(&show_value(text), 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_as_people_type_them() {
        for (text, expected) in [
            ("glance.example", "glance.example"),
            ("GLANCE.Example.", "glance.example"),
            ("my_svc", "my_svc"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("[2001:DB8::0:1]", "2001:db8::1"),
        ] {
            assert_eq!(text.parse::<Host>().map(|h| h.to_string()), Ok(expected.into()), "{text}");
        }
    }

    #[test]
    fn a_trailing_dot_matters_to_a_lookup_alone() {
        let hosts = ["glance.example", "glance.example.", "GLANCE.example."].map(|text| text.parse::<Host>().unwrap());
        assert!(hosts.iter().all(|host| *host == hosts[0] && host.in_authority() == "glance.example"));
        let looked_up = hosts.map(|host| match host {
            Host::Name(name) => name.to_lookup(),
            Host::Ip(ip) => ip.to_string(),
        });
        assert_eq!(looked_up, ["glance.example", "glance.example.", "glance.example."]);
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        for text in [
            "",
            "127.1",
            "0x7f.0.0.1",
            "1.2.3.4.",
            "2130706433",
            "a..b",
            "-a.example",
            "a-.example",
            "*.example",
            "a b",
            "a/b",
            "[::1",
            "[::1%eth0]",
            "fe80::1%eth0",
            "a\0b",
            "[v1.x]",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text:?}");
        }
        assert!("a".repeat(64).parse::<Host>().is_err());
    }

    #[test]
    fn authorities() {
        for (text, expected) in [
            ("a:1", Some("a:1")),
            ("a", Some("a")),
            ("a:", Some("a")),
            ("[::1]:9292", Some("[::1]:9292")),
            ("::1", Some("[::1]")),
            ("a:0", None),
            ("a:65536", None),
            ("a:+1", None),
            ("user@a:1", None),
            (":80", None),
        ] {
            let read = text.parse::<Authority>().ok().map(|a| a.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
