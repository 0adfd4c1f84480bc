//! The name we expect an upstream to prove (RFC 9525 section 2): a DNS-ID or an IP-ID.

use std::{fmt, net::IpAddr};

use rustls_pki_types::{DnsName, ServerName};

use crate::message::authority::Host;

/// The reference identifier of an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReferenceId {
    /// Matches dNSName entries of the subjectAltName.
    Dns(DnsName<'static>),
    /// Matches iPAddress entries, octet by octet.
    Ip(IpAddr),
}

impl ReferenceId {
    /// The identifier for a host.
    ///
    /// # Errors
    /// The text of the host, where it is not a name that a certificate can carry.
    pub fn of(host: &Host) -> Result<Self, String> {
        match host {
            Host::Ip(ip) => Ok(Self::Ip(*ip)),
            Host::Name(name) => match DnsName::try_from(name.as_str().to_owned()) {
                Ok(name) => Ok(Self::Dns(name)),
                Err(_) => Err(name.to_string()),
            },
        }
    }

    /// As rustls and webpki take it.
    pub fn server_name(&self) -> ServerName<'static> {
        match self {
            Self::Dns(name) => ServerName::DnsName(name.clone()),
            Self::Ip(ip) => ServerName::IpAddress((*ip).into()),
        }
    }

    /// The bare name or address.
    pub fn value(&self) -> String {
        match self {
            Self::Dns(name) => name.as_ref().to_owned(),
            Self::Ip(ip) => ip.to_string(),
        }
    }
}

impl fmt::Display for ReferenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{}", name.as_ref()),
            Self::Ip(ip) => write!(f, "ip:{ip}"),
        }
    }
}
