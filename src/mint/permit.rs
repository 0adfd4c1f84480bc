//! What a local CA may sign for, as an operator writes it and as its certificates have it.

use std::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, NameConstraints as Constraints},
};

use crate::message::authority::{Host, unmapped};

/// One thing that a CA may sign for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// A DNS name. Verifiers let the CA sign for names below it, too (RFC 5280 section 4.2.1.10); this proxy does not.
    Name(String),
    /// All addresses of a network.
    Network(IpNet),
    /// All DNS names that end so, with the dot at the beginning.
    Suffix(String),
}

impl FromStr for Permit {
    type Err = String;

    /// Reads `NAME`, `.SUFFIX` (or `*.SUFFIX`), `ADDRESS` or `NETWORK/BITS`. One that could never match is an error.
    fn from_str(text: &str) -> Result<Self, String> {
        let permit = Self::read(text)?;
        match &permit {
            Self::Network(network) if let Some(network) = unmapped(*network) => {
                Err(format!("an IPv4-mapped network matches nothing\nhint: write `{network}`"))
            }
            Self::Suffix(suffix) if suffix.len() >= LONGEST_NAME => Err("no name has so long a suffix".into()),
            _ if is_placeholder(&permit) => Err(format!("`{permit}` stands for nothing in a CA's constraints")),
            _ => Ok(permit),
        }
    }
}

impl Permit {
    fn read(text: &str) -> Result<Self, String> {
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        let suffix = text.strip_prefix('*').unwrap_or(text).strip_prefix('.');
        match suffix.unwrap_or(text).parse::<Host>() {
            Ok(Host::Ip(ip)) if suffix.is_none() => Ok(Self::Network(ip.to_canonical().into())),
            Ok(Host::Ip(_)) => Err("a suffix is a name, not an address".into()),
            Ok(Host::Name(name)) if suffix.is_some() => Ok(Self::Suffix(format!(".{name}"))),
            Ok(Host::Name(name)) => Ok(Self::Name(name.to_string())),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) | Self::Suffix(name) => f.write_str(name),
            Self::Network(network) if network.prefix_len() == network.max_prefix_len() => network.addr().fmt(f),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// All that a CA may sign for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permits {
    /// Any name and any address.
    Anything,
    /// These.
    Only(Vec<Permit>),
}

/// What is permitted where nothing of a kind is to be: a verifier takes a kind without constraints for unconstrained.
/// Java takes 0.0.0.0/32 for `::1`, too.
const NO_NAME: &str = "invalid";
const NO_IPV4: &str = "255.255.255.255/32";
const NO_IPV6: &str = "::/128";

fn is_placeholder(permit: &Permit) -> bool {
    [NO_NAME, NO_IPV4, NO_IPV6].iter().any(|no| Permit::read(no).as_ref() == Ok(permit))
}

/// Characters of a DNS name.
const LONGEST_NAME: usize = 253;

impl Permits {
    /// Whether the CA may sign for a host.
    pub fn covers(&self, host: &Host) -> bool {
        let Self::Only(permits) = self else { return true };
        permits.iter().any(|permit| match (permit, host) {
            (Permit::Name(name), Host::Name(host)) => name == host.as_str(),
            (Permit::Suffix(suffix), Host::Name(host)) => host.as_str().ends_with(suffix.as_str()),
            (Permit::Network(network), Host::Ip(ip)) => network.contains(&ip.to_canonical()),
            _ => false,
        })
    }

    /// The extension for both certificates; `None` where nothing is constrained. Each kind of name is constrained,
    /// since a verifier permits everything of a kind that is not.
    pub(super) fn constraints(&self) -> Option<NameConstraints> {
        let Self::Only(permits) = self else { return None };
        let has = |is: fn(&Permit) -> bool| permits.iter().any(is);
        let mut all = permits.clone();
        let placeholders = [
            (NO_NAME, has(|permit| !matches!(permit, Permit::Network(_)))),
            (NO_IPV4, has(|permit| matches!(permit, Permit::Network(IpNet::V4(_))))),
            (NO_IPV6, has(|permit| matches!(permit, Permit::Network(IpNet::V6(_))))),
        ];
        all.extend(placeholders.iter().filter(|(_, has)| !has).filter_map(|(text, _)| Permit::read(text).ok()));
        let permitted_subtrees = all.iter().map(|permit| match permit {
            Permit::Name(name) | Permit::Suffix(name) => GeneralSubtree::DnsName(name.clone()),
            Permit::Network(network) => {
                GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(network.addr(), network.prefix_len()))
            }
        });
        Some(NameConstraints { permitted_subtrees: permitted_subtrees.collect(), excluded_subtrees: Vec::new() })
    }

    /// What a certificate of a local CA permits.
    ///
    /// # Errors
    /// A sentence: its constraints are none that `ca init` writes.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let Some(extension) = certificate.name_constraints().map_err(|error| error.to_string())? else {
            return Ok(Self::Anything);
        };
        let Constraints { permitted_subtrees: Some(permitted), excluded_subtrees: None } = extension.value else {
            return Err(ODD.into());
        };
        let all = permitted.iter().map(|subtree| read(&subtree.base));
        let all: Vec<_> = all.collect::<Option<_>>().ok_or(ODD)?;
        Ok(Self::Only(all.into_iter().filter(|permit| !is_placeholder(permit)).collect()))
    }
}

const ODD: &str = "its name constraints are none that `vouchsafe ca init` writes";

fn read(name: &GeneralName<'_>) -> Option<Permit> {
    match name {
        GeneralName::DNSName(name) => Permit::read(name).ok(),
        GeneralName::IPAddress(bytes) => {
            let (address, mask) = bytes.split_at(bytes.len() / 2);
            let network = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
                (Ok(address), _) => IpNet::with_netmask(address.into(), IpAddr::from(<[u8; 4]>::try_from(mask).ok()?)),
                (_, Ok(address)) => IpNet::with_netmask(address.into(), IpAddr::from(<[u8; 16]>::try_from(mask).ok()?)),
                _ => return None,
            };
            network.ok().map(Permit::Network)
        }
        _ => None,
    }
}

impl fmt::Display for Permits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anything => f.write_str("ANY NAME"),
            Self::Only(permits) => {
                let shown: Vec<_> = permits.iter().take(MOST_SHOWN).map(ToString::to_string).collect();
                f.write_str(&shown.join(", "))?;
                let more = permits.len().saturating_sub(MOST_SHOWN);
                if more > 0 { write!(f, " and {more} more") } else { Ok(()) }
            }
        }
    }
}

/// As many permits are shown.
const MOST_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn only(texts: &[&str]) -> Permits {
        Permits::Only(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[test]
    fn a_permit_covers_what_it_says() {
        let all = only(&["a.example", ".cloud.example", "*.b.example", "192.0.2.0/24", "2001:db8::1", "127.0.0.1"]);
        for (host, expected) in [
            ("a.example", true),
            ("A.Example.", true),
            ("x.a.example", false),
            ("x.cloud.example", true),
            ("x.y.cloud.example", true),
            ("cloud.example", false),
            ("xcloud.example", false),
            ("x.b.example", true),
            ("192.0.2.77", true),
            ("192.0.3.1", false),
            ("[2001:db8::1]", true),
            ("[2001:db8::2]", false),
            ("127.0.0.1", true),
            ("[::ffff:127.0.0.1]", true),
            ("invalid", false),
        ] {
            assert_eq!(all.covers(&host.parse().unwrap()), expected, "{host}");
            assert!(Permits::Anything.covers(&host.parse().unwrap()));
        }
    }

    #[test]
    fn every_kind_of_name_is_constrained() {
        for (texts, expected) in
            [(&[".cloud.example"][..], 3), (&["192.0.2.0/24"], 3), (&["a.example", "b.example", "192.0.2.1", "::1"], 4)]
        {
            assert_eq!(only(texts).constraints().unwrap().permitted_subtrees.len(), expected, "{texts:?}");
        }
        assert!(Permits::Anything.constraints().is_none());
    }

    #[test]
    fn what_is_no_permit_is_refused() {
        for text in
            ["", "*", ".", "*.127.0.0.1", ".1.2.3.4", "a b", "https://a.example", "a.example:443", "10.0.0.0/40"]
        {
            assert!(text.parse::<Permit>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_permit_that_can_never_match_is_refused_with_what_is_meant() {
        for (text, expected) in [
            ("::ffff:192.0.2.0/120", "an IPv4-mapped network matches nothing\nhint: write `192.0.2.0/24`"),
            ("::ffff:10.1.2.3/104", "an IPv4-mapped network matches nothing\nhint: write `10.0.0.0/8`"),
            ("::ffff:0:0/96", "an IPv4-mapped network matches nothing\nhint: write `0.0.0.0/0`"),
            ("invalid", "`invalid` stands for nothing in a CA's constraints"),
            ("255.255.255.255", "`255.255.255.255` stands for nothing in a CA's constraints"),
            ("::/128", "`::` stands for nothing in a CA's constraints"),
        ] {
            assert_eq!(text.parse::<Permit>(), Err(expected.to_owned()), "{text}");
        }
        let long = |label: usize| format!(".{}{}", "a.".repeat(120), "a".repeat(label)).parse::<Permit>();
        assert!(long(11).is_ok() && long(12) == Err("no name has so long a suffix".into()));
        for text in ["::ffff:192.0.2.1", "::/0", "::fffe:0:0/95", ".invalid", "255.255.255.254/31"] {
            assert!(text.parse::<Permit>().is_ok(), "{text}");
        }
    }
}
