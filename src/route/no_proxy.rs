//! Which hosts are reached without the parent proxy: the grammar of `NO_PROXY`.
//!
//! No two programs read that variable alike. This is the union of what curl, Go, and Python's requests and urllib take,
//! where they do not contradict each other. Names are compared and never resolved, as in all of them. A leading dot
//! covers the name itself too, as in curl and Python; in Go it does not.

use std::{net::IpAddr, str::FromStr};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    message::authority::{Authority, Host, parse_port, unmapped},
    text::show_value,
};

/// The hosts that are reached directly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoProxy(pub Vec<NoProxyEntry>);

impl NoProxy {
    /// Whether a host is reached directly at this port; without a port, at all of its ports.
    pub fn matches(&self, host: &Host, port: Option<u16>) -> bool {
        self.0.iter().any(|entry| entry.matches(host, port))
    }

    /// The entries of a list, which commas and blanks separate.
    pub fn split(list: &str) -> impl Iterator<Item = &str> {
        list.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty())
    }
}

/// One entry: `*`, a name, an address or a network, with or without a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoProxyEntry {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    Network(IpNet),
    /// A name and all names below it.
    Domain(String),
}

impl NoProxyEntry {
    fn matches(&self, host: &Host, port: Option<u16>) -> bool {
        let fits = match (&self.hosts, host) {
            (Hosts::Any, _) => true,
            (Hosts::Network(network), Host::Ip(ip)) => network.contains(&ip.to_canonical()),
            (Hosts::Domain(domain), Host::Name(name)) => {
                let above = name.as_str().strip_suffix(domain.as_str());
                above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
            }
            _ => false,
        };
        fits && self.port.is_none_or(|own| Some(own) == port)
    }
}

impl FromStr for NoProxyEntry {
    type Err = String;

    /// Reads an entry. One that could never match is an error, with what to write.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, rest)) = text.split_once("://") {
            let bare = rest.split('/').next().unwrap_or_default();
            return Err(format!("an entry has no scheme\nhint: write `{}`", show_value(bare)));
        }
        if let Some((address, bits)) = text.split_once('/') {
            return network(address, bits);
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self { hosts: Hosts::Network(ip.to_canonical().into()), port: None });
        }
        if let Some(rest) = text.strip_prefix('*').filter(|rest| rest.is_empty() || rest.starts_with(':')) {
            return Ok(Self { hosts: Hosts::Any, port: rest.strip_prefix(':').map(port).transpose()? });
        }
        let name = text.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(text);
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some(network) = part_of_address(name) {
            return Err(format!("the beginning of an address matches nothing\nhint: write `{network}`"));
        }
        if name.contains('*') {
            return Err("a `*` stands alone or before the first dot\nhint: write `.example.com` for a domain".into());
        }
        let Authority { host, port } = name.parse::<Authority>().map_err(|error| error.why().to_owned())?;
        let hosts = match host {
            Host::Ip(ip) => Hosts::Network(ip.to_canonical().into()),
            Host::Name(name) => Hosts::Domain(name.as_str().to_owned()),
        };
        Ok(Self { hosts, port })
    }
}

fn network(address: &str, bits: &str) -> Result<NoProxyEntry, String> {
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let network = format!("{bare}/{bits}").parse::<IpNet>();
    if let Some(network) = network.as_ref().ok().copied().and_then(unmapped) {
        return Err(format!("an IPv4-mapped network matches nothing\nhint: write `{network}`"));
    }
    network.map(|network| NoProxyEntry { hosts: Hosts::Network(network), port: None }).map_err(|_| {
        match bare.parse::<Host>() {
            Ok(Host::Name(_)) => format!("a name has no path\nhint: write `{}`", show_value(bare)),
            _ => "not a network\nhint: write it as in `192.0.2.0/24` or `2001:db8::/32`".into(),
        }
    })
}

fn port(digits: &str) -> Result<u16, String> {
    parse_port(digits).ok_or_else(|| "the port is not within 1-65535".into())
}

/// The network that `192.0.2`, `192.0.2.` and `192.0.2.*` are meant for.
fn part_of_address(text: &str) -> Option<Ipv4Net> {
    let numbers = text.trim_end_matches(".*").trim_end_matches('.');
    let parts: Vec<u8> = numbers.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let count = u8::try_from(parts.len()).ok().filter(|count| (1..4).contains(count))?;
    let mut octets = [0; 4];
    octets[..parts.len()].copy_from_slice(&parts);
    Ipv4Net::new(octets.into(), 8 * count).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(list: &str, host: &str, port: u16) -> bool {
        let entries = NoProxy::split(list).map(|entry| entry.parse().unwrap()).collect();
        NoProxy(entries).matches(&host.parse().unwrap(), Some(port))
    }

    /// What at least one of curl 7.88, Go, requests and urllib reads in these lists.
    #[test]
    fn an_entry_matches_what_any_common_program_reads_in_it() {
        for (list, host, port, expected) in [
            ("example.com", "www.example.com", 443, true),
            ("example.com", "example.com", 443, true),
            ("example.com", "notexample.com", 443, false),
            ("example.com", "example.com.evil.test", 443, false),
            (".example.com", "example.com", 443, true),
            (".example.com", "www.example.com", 443, true),
            ("*.example.com", "www.example.com", 443, true),
            ("example.com:8080", "www.example.com", 8080, true),
            ("example.com:8080", "www.example.com", 443, false),
            ("example.com.", "example.com", 443, true),
            ("example.com", "example.com.", 443, true),
            ("EXAMPLE.com", "example.COM", 443, true),
            ("foo example.com", "example.com", 443, true),
            ("foo,example.com", "example.com", 443, true),
            ("foo, , example.com", "example.com", 443, true),
            ("foo,*", "anything.test", 443, true),
            ("*", "192.0.2.1", 443, true),
            ("*:8443", "anything.test", 8443, true),
            ("*:8443", "anything.test", 443, false),
            ("192.0.2.0/24", "192.0.2.77", 443, true),
            ("192.0.2.0/24", "192.0.3.1", 443, false),
            ("192.0.2.1:80", "192.0.2.1", 80, true),
            ("192.0.2.1:80", "192.0.2.1", 443, false),
            ("192.0.2.1", "[::ffff:192.0.2.1]", 443, true),
            ("2001:db8::1", "[2001:db8::1]", 443, true),
            ("[2001:db8::1]", "[2001:db8::1]", 443, true),
            ("[2001:db8::1]:8443", "[2001:db8::1]", 8443, true),
            ("[2001:db8::1]:8443", "[2001:db8::1]", 443, false),
            ("2001:db8::/32", "[2001:db8:1::1]", 443, true),
            ("[2001:db8::]/32", "[2001:db8:1::1]", 443, true),
            // A name is never resolved.
            ("127.0.0.1", "localhost", 443, false),
            ("", "example.com", 443, false),
        ] {
            assert_eq!(matches(list, host, port), expected, "{list:?} {host}:{port}");
        }
    }

    #[test]
    fn without_a_port_all_ports_are_meant() {
        let list = |text: &str| NoProxy(vec![text.parse().unwrap()]);
        let host = "a.example".parse().unwrap();
        assert!(list("a.example").matches(&host, None));
        assert!(!list("a.example:443").matches(&host, None));
    }

    #[test]
    fn what_could_never_match_is_an_error_with_the_right_form() {
        for (entry, hint) in [
            ("192.0.2", "write `192.0.2.0/24`"),
            ("192.0.2.", "write `192.0.2.0/24`"),
            ("192.0.2.*", "write `192.0.2.0/24`"),
            ("10", "write `10.0.0.0/8`"),
            ("10.*", "write `10.0.0.0/8`"),
            ("http://example.com/x", "write `example.com`"),
            ("example.com/path", "write `example.com`"),
            ("192.0.2.0/33", "write it as in `192.0.2.0/24`"),
            ("a*.example.com", "write `.example.com`"),
            ("[::ffff:192.0.2.0]/120", "write `192.0.2.0/24`"),
        ] {
            let error = entry.parse::<NoProxyEntry>().unwrap_err();
            assert!(error.contains(&format!("\nhint: {hint}")), "{entry}: {error}");
        }
        for entry in ["example.com:99999", "user@example.com", "exa mple", "[::1", "*:x"] {
            assert!(entry.parse::<NoProxyEntry>().is_err(), "{entry}");
        }
    }
}
