//! An upstream: where to dial, which name to verify, what to trust.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use crate::{
    message::authority::Host,
    tls::{client::TlsClient, identity::ReferenceId, trust::TrustAnchors},
};

use super::{parent::ParentProxy, policy::AddressRule};

/// Everything one needs to know to open a connection. Equality is what makes two connections
/// interchangeable, so a connection verified for one name is never used for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The host as the client or the route named it.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// The host to connect to.
    pub dial_host: Host,
    /// The port to connect to.
    pub dial_port: u16,
    /// The name to verify.
    pub reference: ReferenceId,
    /// The name to send (RFC 6066 section 3); None for an address.
    pub sni: Option<String>,
    /// Trust and TLS settings.
    pub tls: TlsHandle,
    /// Which addresses may be dialled.
    pub addresses: AddressRule,
    /// The proxy that it is reached through; it then resolves and dials `dial_host`.
    pub parent: Option<Arc<ParentProxy>>,
}

impl Upstream {
    /// `host:port` as messages and a Host field have it.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host.in_authority(), self.port)
    }

    /// The value of the Host field: the port is left out where it is https' own (RFC 9110 section 4.2.2).
    pub fn host_field(&self) -> String {
        match self.port {
            443 => self.host.in_authority(),
            _ => self.authority(),
        }
    }

    /// The bundle it is verified against.
    pub fn anchors(&self) -> &TrustAnchors {
        &self.tls.0.settings().trust.anchors
    }

    /// Whether it has this host and port.
    pub fn is_at(&self, host: &Host, port: u16) -> bool {
        self.host == *host && self.port == port
    }

    /// Whether another differs from this one in [`Self::tls`] at most, or in that of the parent.
    pub fn is_but_for_tls(&self, other: &Self) -> bool {
        let parent = match (&self.parent, &other.parent) {
            (Some(own), Some(new)) if own.is_but_for_tls(new) => Some(new.clone()),
            (own, _) => own.clone(),
        };
        Self { tls: other.tls.clone(), parent, ..self.clone() } == *other
    }

    /// What is dialled or asked of the parent, with its port.
    pub fn dialled(&self) -> String {
        format!("{}:{}", self.dial_host.in_authority(), self.dial_port)
    }
}

impl Hash for Upstream {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The rest hardly ever tells two apart, and is looked at when these are equal.
        self.host.hash(state);
        self.port.hash(state);
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.authority())
    }
}

/// A shared [`TlsClient`]; equal only to itself.
#[derive(Clone, Debug)]
pub struct TlsHandle(pub Arc<TlsClient>);

impl PartialEq for TlsHandle {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TlsHandle {}

impl Hash for TlsHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
