//! The destination policy: where clients that name their own destination may be taken.
//!
//! Nothing is allowed until somebody says `--allow`. A pattern that names no address (`*`, `*.suffix`)
//! never covers loopback, link-local, private-metadata and other special addresses: those are judged by
//! the address actually dialled, and need an exact host name or a network that holds them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;

use crate::message::authority::{Authority, Host, parse_port};

/// One `--allow`: `HOST[:PORT]`, `*.SUFFIX[:PORT]`, `*[:PORT]` or `NETWORK/BITS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    Exact(Host),
    Network(IpNet),
    Suffix(String),
}

impl FromStr for Allow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self { hosts: Hosts::Network(network), port: None });
        }
        if let Some(rest) = text.strip_prefix('*') {
            let (suffix, port) = match rest.split_once(':') {
                Some((suffix, port)) => {
                    let port = parse_port(port).ok_or_else(|| format!("port `{port}` is not within 1-65535"))?;
                    (suffix, Some(port))
                }
                None => (rest, None),
            };
            let hosts = match suffix.strip_prefix('.') {
                None if suffix.is_empty() => Hosts::Any,
                None => return Err("a `*` stands alone or before a dot, as in `*.example`".into()),
                Some(suffix) => match suffix.parse::<Host>() {
                    Ok(Host::Name(name)) => Hosts::Suffix(format!(".{name}")),
                    Ok(Host::Ip(_)) => return Err("a suffix is a name, not an address".into()),
                    Err(error) => return Err(error.to_string()),
                },
            };
            return Ok(Self { hosts, port });
        }
        let authority = text.parse::<Authority>().map_err(|error| error.to_string())?;
        Ok(Self { hosts: Hosts::Exact(authority.host), port: authority.port })
    }
}

impl Allow {
    /// The same hosts on any port.
    pub fn on_any_port(self) -> Self {
        Self { port: None, ..self }
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.hosts {
            Hosts::Any => f.write_str("*")?,
            Hosts::Exact(host) => f.write_str(&host.in_authority())?,
            Hosts::Network(network) => network.fmt(f)?,
            Hosts::Suffix(suffix) => write!(f, "*{suffix}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Allow {
    /// Whether it names one host.
    pub fn is_exact(&self) -> bool {
        matches!(self.hosts, Hosts::Exact(_))
    }

    /// Whether it covers a host, with this port or with any; what a network covers is known of addresses only.
    pub fn covers(&self, host: &Host, port: Option<u16>) -> bool {
        let fits_port = match (self.port, port) {
            (Some(allowed), Some(port)) => allowed == port,
            _ => true,
        };
        fits_port
            && match (&self.hosts, host) {
                (Hosts::Any, _) => true,
                (Hosts::Exact(exact), _) => exact == host,
                (Hosts::Suffix(suffix), Host::Name(name)) => name.as_str().ends_with(suffix.as_str()),
                (Hosts::Network(network), Host::Ip(ip)) => network.contains(&ip.to_canonical()),
                (Hosts::Network(_), Host::Name(_)) | (Hosts::Suffix(_), Host::Ip(_)) => false,
            }
    }

    /// How narrow it is: a host before a suffix, a longer suffix before a shorter, and `*` last.
    fn narrowness(&self) -> (u8, usize, bool) {
        let (kind, length) = match &self.hosts {
            Hosts::Any => (0, 0),
            Hosts::Network(network) => (1, usize::from(network.prefix_len())),
            Hosts::Suffix(suffix) => (2, suffix.len()),
            Hosts::Exact(_) => (3, 0),
        };
        (kind, length, self.port.is_some())
    }
}

/// Which addresses may be dialled for one upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AddressRule {
    any: bool,
    public: bool,
    networks: Arc<[IpNet]>,
}

impl AddressRule {
    /// Every address: a fixed route, or a host that was named exactly.
    pub fn any() -> Self {
        Self { any: true, public: true, networks: Arc::new([]) }
    }

    /// Whether an address may be dialled.
    pub fn permits(&self, ip: IpAddr) -> bool {
        self.any || self.networks.iter().any(|net| net.contains(&ip)) || self.public && !is_special(ip)
    }

    /// Whether the name is enough, where a parent proxy resolves it and the address stays unknown. A network allows
    /// addresses only.
    pub fn permits_unresolved(&self) -> bool {
        self.any || self.public
    }
}

/// The policy of forward listeners.
#[derive(Clone, Debug, Default)]
pub struct DestinationPolicy {
    allows: Vec<Allow>,
    networks: Arc<[IpNet]>,
}

impl DestinationPolicy {
    /// A policy of these patterns; none allows nothing.
    pub fn new(allows: Vec<Allow>) -> Self {
        let networks = allows.iter().filter_map(|allow| match allow.hosts {
            Hosts::Network(network) => Some(network),
            _ => None,
        });
        Self { networks: networks.collect(), allows }
    }

    /// Which addresses may be dialled for a host and a port; None where the name alone is refused.
    /// The port is the one dialled, after the port rules.
    pub fn judge(&self, host: &Host, port: u16) -> Option<AddressRule> {
        let mut rule = AddressRule { any: false, public: false, networks: self.networks.clone() };
        for allow in &self.allows {
            if allow.port.is_some_and(|allowed| allowed != port) {
                continue;
            }
            match (&allow.hosts, host) {
                (Hosts::Any, _) => rule.public = true,
                (Hosts::Exact(exact), _) if exact == host => rule.any = true,
                (Hosts::Suffix(suffix), Host::Name(name)) if name.as_str().ends_with(suffix.as_str()) => {
                    rule.public = true
                }
                _ => {}
            }
        }
        let possible = rule.any || rule.public || !rule.networks.is_empty();
        match host {
            Host::Ip(ip) => rule.permits(*ip).then_some(rule),
            Host::Name(_) => possible.then_some(rule),
        }
    }

    /// Which addresses may be dialled for a host that a client named on a connection to `dialled`: a pattern of names
    /// allows the host, and an address that is not special; a special one needs a pattern of its own. `None` where that
    /// is refused, the address or the name.
    pub fn judge_at(&self, host: &Host, port: u16, dialled: IpAddr) -> Option<AddressRule> {
        let named = self.judge(host, port)?;
        let addresses = self.allows.iter().filter(|allow| allow.port.is_none_or(|allowed| allowed == port));
        let exact = addresses.filter_map(|allow| match &allow.hosts {
            Hosts::Exact(Host::Ip(ip)) => Some(IpNet::from(ip.to_canonical())),
            _ => None,
        });
        let networks = self.networks.iter().copied().chain(exact).collect();
        let rule = AddressRule { any: false, public: named.any || named.public, networks };
        rule.permits(dialled.to_canonical()).then_some(rule)
    }

    /// Whether some destination with this host may be allowed: with this port, or with any if there is none.
    pub fn could_allow(&self, host: &Host, port: Option<u16>) -> bool {
        let ports = match port {
            Some(port) => vec![port],
            None => self.allows.iter().map(|allow| allow.port.unwrap_or(443)).collect(),
        };
        ports.into_iter().any(|port| self.judge(host, port).is_some())
    }

    /// All patterns.
    pub fn patterns(&self) -> impl Iterator<Item = &Allow> {
        self.allows.iter()
    }

    /// The narrowest pattern that covers a host and a port.
    pub fn pattern(&self, host: &Host, port: u16) -> Option<&Allow> {
        self.allows.iter().filter(|allow| allow.covers(host, Some(port))).max_by_key(|allow| allow.narrowness())
    }

    /// The names that are allowed with a port, exactly.
    pub fn exact_names(&self) -> impl Iterator<Item = (&Host, u16)> {
        self.allows.iter().filter_map(|allow| match (&allow.hosts, allow.port) {
            (Hosts::Exact(host @ Host::Name(_)), Some(port)) => Some((host, port)),
            _ => None,
        })
    }

    /// Whether `*` is among the patterns; worth a word in the log.
    pub fn allows_everything(&self) -> bool {
        self.allows.iter().any(|allow| allow.hosts == Hosts::Any)
    }
}

/// Addresses that a name from outside must not lead to: this host, this link, cloud metadata, nothing.
fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_multicast()
                || ip.octets()[0] == 0
                || METADATA_V4.contains(&ip)
        }
        IpAddr::V6(ip) => {
            embedded(ip).is_some_and(|ip| is_special(ip.into()))
                || embedded_by_local_nat64(ip).any(|ip| ip.octets()[0] != 0 && is_special(ip.into()))
                || ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unicast_link_local()
                || ip.segments()[0] & 0xffc0 == 0xfec0 // site-local, RFC 3879
                || METADATA_V6.contains(&ip)
        }
    }
}

/// The IPv4 address inside an IPv6 one: mapped and compatible (RFC 4291 section 2.5.5), NAT64 (RFC 6052), translated
/// (SIIT, RFC 2765 section 2.1), 6to4 (RFC 3056).
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = || Ipv4Addr::from_bits(ip.to_bits() as u32);
    match ip.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => {
            Some(last())
        }
        [0x2002, high, low, ..] => Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        _ => None,
    }
}

/// The IPv4 addresses that may be inside an address of `64:ff9b:1::/48`. A network chooses how long its prefix there is
/// (RFC 8215 section 4), and each length has its place for the address (RFC 6052 section 2.2); at the wrong places
/// there mostly is 0.
fn embedded_by_local_nat64(ip: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    const PLACES: [[usize; 4]; 4] = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];
    let bytes = ip.octets();
    let is_local = ip.segments()[..3] == [0x64, 0xff9b, 1];
    PLACES.into_iter().filter(move |_| is_local).map(move |place| Ipv4Addr::from(place.map(|at| bytes[at])))
}

/// Metadata services outside link-local space: two in shared and one in protocol space, as their clouds
/// document them.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254), Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)];

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(allows: &[&str], host: &str, port: u16, ip: &str) -> bool {
        let allows = allows.iter().map(|text| text.parse().unwrap()).collect();
        let policy = DestinationPolicy::new(allows);
        let host = host.parse().unwrap();
        policy.judge(&host, port).is_some_and(|rule| rule.permits(ip.parse().unwrap()))
    }

    #[test]
    fn nothing_is_allowed_until_somebody_says_so() {
        assert!(!permits(&[], "a.example", 443, "192.0.2.1"));
    }

    #[test]
    fn patterns() {
        for (allows, host, port, ip, expected) in [
            (&["*"][..], "a.example", 443, "192.0.2.1", true),
            (&["*"], "a.example", 443, "127.0.0.1", false),
            (&["*"], "a.example", 443, "169.254.169.254", false),
            (&["*"], "a.example", 443, "::ffff:127.0.0.1", false),
            (&["*"], "127.0.0.1", 443, "127.0.0.1", false),
            (&["*"], "a.example", 443, "64:ff9b::7f00:1", false),
            (&["*"], "a.example", 443, "2002:a9fe:a9fe::1", false),
            (&["*"], "a.example", 443, "::ffff:0:127.0.0.1", false),
            (&["*"], "a.example", 443, "::ffff:0:192.0.2.1", true),
            (&["*"], "a.example", 443, "64:ff9b:1:7f00:0:100::", false),
            (&["*"], "a.example", 443, "64:ff9b:1:a9fe:a9:fe00::", false),
            (&["*"], "a.example", 443, "64:ff9b:1:aa7f:0:1::", false),
            (&["*"], "a.example", 443, "64:ff9b:1:aabb:7f:0:100:0", false),
            (&["*"], "a.example", 443, "64:ff9b:1::127.0.0.1", false),
            (&["*"], "a.example", 443, "64:ff9b:1:1:2:3:127.0.0.1", false),
            (&["*"], "a.example", 443, "64:ff9b:1::169.254.169.254", false),
            (&["*"], "a.example", 443, "64:ff9b:1::192.0.2.1", true),
            (&["*"], "a.example", 443, "64:ff9b:1:c000:2:100::", true),
            (&["*"], "a.example", 443, "64:ff9b:2::127.0.0.1", true),
            (&["64:ff9b:1::/48"], "a.example", 443, "64:ff9b:1::127.0.0.1", true),
            (&["*"], "a.example", 443, "fd00:ec2::254", false),
            (&["*"], "a.example", 443, "2001:db8::1", true),
            (&["*:443"], "a.example", 9292, "192.0.2.1", false),
            (&["*.example"], "a.example", 443, "192.0.2.1", true),
            (&["*.example"], "example", 443, "192.0.2.1", false),
            (&["*.example"], "aexample", 443, "192.0.2.1", false),
            (&["*.example"], "a.example", 443, "127.0.0.1", false),
            (&["localhost"], "localhost", 443, "127.0.0.1", true),
            (&["a.example:9292"], "a.example", 9292, "10.0.0.1", true),
            (&["a.example:9292"], "a.example", 9293, "10.0.0.1", false),
            (&["127.0.0.0/8"], "a.example", 1, "127.0.0.9", true),
            (&["127.0.0.0/8"], "a.example", 1, "192.0.2.1", false),
            (&["127.0.0.0/8"], "127.0.0.9", 1, "127.0.0.9", true),
        ] {
            assert_eq!(permits(allows, host, port, ip), expected, "{allows:?} {host}:{port} {ip}");
        }
    }

    #[test]
    fn a_name_opens_no_special_address_that_a_client_connected_to() {
        for (allows, host, port, dialled, expected) in [
            (&["a.example:9292"][..], "a.example", 9292, "192.0.2.1", true),
            (&["a.example:9292"], "a.example", 9293, "192.0.2.1", false),
            (&["a.example:9292"], "b.example", 9292, "192.0.2.1", false),
            (&["a.example:9292"], "a.example", 9292, "127.0.0.1", false),
            (&["a.example:9292"], "a.example", 9292, "::ffff:127.0.0.1", false),
            (&["a.example:9292"], "a.example", 9292, "169.254.169.254", false),
            (&["a.example", "127.0.0.1:9292"], "a.example", 9292, "127.0.0.1", true),
            (&["a.example", "127.0.0.1:9292"], "a.example", 9292, "::ffff:127.0.0.1", true),
            (&["a.example", "127.0.0.1:9292"], "a.example", 9292, "127.0.0.2", false),
            (&["a.example", "127.0.0.1:9292"], "a.example", 9293, "127.0.0.1", false),
            (&["a.example", "::1"], "a.example", 9292, "::1", true),
            (&["127.0.0.0/8"], "a.example", 9292, "127.0.0.9", true),
            (&["127.0.0.0/8"], "a.example", 9292, "192.0.2.1", false),
            // An address that was named is not one that was connected to.
            (&["192.0.2.1"], "192.0.2.1", 9292, "192.0.2.1", true),
            (&["192.0.2.1"], "192.0.2.1", 9292, "127.0.0.1", false),
            (&["*"], "127.0.0.1", 9292, "192.0.2.1", false),
            (&["*"], "a.example", 9292, "192.0.2.1", true),
            (&["*"], "a.example", 9292, "127.0.0.1", false),
        ] {
            let policy = DestinationPolicy::new(allows.iter().map(|text| text.parse().unwrap()).collect());
            let judged = policy.judge_at(&host.parse().unwrap(), port, dialled.parse().unwrap());
            assert_eq!(judged.is_some(), expected, "{allows:?} {host}:{port} at {dialled}");
        }
    }

    #[test]
    fn bad_patterns_are_named() {
        for text in ["*example", "*.", "a:0", "a b", "*.127.0.0.1"] {
            assert!(text.parse::<Allow>().is_err(), "{text}");
        }
    }
}
