//! What the way of a request depends on: for all requests, and for those of one listener.

use std::{cell::OnceCell, fmt, net::SocketAddr, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use crate::{
    connect::pool::{PoolLimits, Slot},
    http1::head::HeadLimits,
    message::{
        authority::{Authority, Host},
        via::Pseudonym,
    },
    metrics::ListenerMetrics,
    mint::Minter,
    rewrite::Scopes,
    route::{table::Routes, upstream::Upstream},
    text::show_value,
};

use super::{
    notices::DocumentNotices,
    respond::{AnswerPolicy, Detail},
};

/// Where the clients of a listener are taken.
#[derive(Clone, Debug)]
pub enum Service {
    /// Always to one upstream.
    Fixed(Box<Upstream>),
    /// Where each request says.
    Forward,
    /// To the address that the client connected to, which did not lead here by itself.
    Original(OriginalAddress),
}

impl Service {
    /// The upstream of a fixed route.
    pub fn fixed(&self) -> Option<&Upstream> {
        match self {
            Self::Fixed(upstream) => Some(upstream),
            Self::Forward | Self::Original(_) => None,
        }
    }

    /// Whether both are of the same kind, whatever the upstream is.
    pub fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Fixed(_), Self::Fixed(_)) | (Self::Forward, Self::Forward) => true,
            (Self::Original(own), Self::Original(other)) => own == other,
            _ => false,
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(upstream) => write!(f, "https://{upstream}"),
            Self::Forward => f.write_str("*"),
            Self::Original(_) => f.write_str("original address"),
        }
    }
}

/// How the address that a client connected to is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginalAddress {
    /// Rules of the kernel redirected the connection, which remembers it (`SO_ORIGINAL_DST`). Only the ports that the
    /// rules have lead here.
    Redirected,
    /// It is the local address of the accepted socket. The listener is in another network namespace, where every
    /// address is local, and nothing leaves that namespace but by this proxy.
    Accepted,
}

/// What Host an upstream sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPolicy {
    /// The client's own, so that links which the upstream builds lead back to the client's address.
    Client,
    /// The upstream's.
    #[default]
    Upstream,
}

/// How response field names are written to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldCase {
    /// In lower case.
    Lower,
    /// As the upstream wrote them.
    #[default]
    Preserve,
    /// With a capital after each hyphen.
    Title,
}

/// What a listener does its own way.
#[derive(Clone, Debug, Default)]
pub struct ListenerPolicies {
    /// How failures are answered.
    pub answer: AnswerPolicy,
    /// How much a failure's answer tells.
    pub detail: Detail,
    /// What Host the upstream sees.
    pub host: HostPolicy,
    /// How response field names are written.
    pub field_case: FieldCase,
    /// Whether links to upstreams that are served here lead the client to them through this proxy.
    pub rewrite_redirects: bool,
    /// The JSON documents whose URLs lead the client to what is served here, in the same way.
    pub rewrite: Scopes,
    /// Whether redirects of GET and HEAD are followed here.
    pub follow_redirects: bool,
    /// Names that clients may use for a fixed route, besides loopback's, the listener's and the upstream's.
    pub accept_host: Vec<Host>,
}

/// What the way of every request depends on.
#[derive(Clone, Debug)]
pub struct ProxySettings {
    /// Silence of a client in the body of its request that ends it.
    pub request_body: Duration,
    /// Silence of an upstream in the body of its response that ends it, and of a client that does not read one.
    pub response_body: Duration,
    /// From the end of the request to the head of the response.
    pub response: Duration,
    /// Silence both ways, once an upstream has switched protocols.
    pub tunnel: Duration,
    /// Bytes of a request's target.
    pub target_bytes: usize,
    /// Limits on the heads of requests.
    pub request_head: HeadLimits,
    /// Limits on the heads of responses.
    pub response_head: HeadLimits,
    /// Limits on idle connections.
    pub pool: PoolLimits,
    /// This proxy's name in Via.
    pub pseudonym: Pseudonym,
}

/// Where the socket of a listener comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// A TCP socket is bound to it; port 0 asks the system for a free one.
    Tcp(SocketAddr),
    /// A UNIX socket is made there.
    Unix {
        path: PathBuf,
        /// Its permissions: who may connect.
        mode: u32,
    },
    /// A listening socket was handed to this process under this name.
    Inherited {
        name: String,
        /// Whether it may be bound to an address that other hosts can reach.
        allow_nonlocal: bool,
    },
    /// A TCP socket is bound to it in the network namespace of a tool, and handed to this process.
    Isolated(SocketAddr),
}

impl ListenAddress {
    /// The address that a TCP socket is bound to.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::Isolated(address) => Some(*address),
            Self::Unix { .. } | Self::Inherited { .. } => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::Isolated(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", show_value(path)),
            Self::Inherited { name, .. } => write!(f, "fd:{name}"),
        }
    }
}

/// Where a listener is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// To an address and a port.
    Tcp(SocketAddr),
    /// To a UNIX socket's path.
    Unix(PathBuf),
}

impl BoundAddress {
    /// The address and port, where it has any.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", show_value(path)),
        }
    }
}

/// A listener, as the operator configured it.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Its name in logs: what the operator wrote.
    pub name: String,
    /// The name of a route of `exec`, by which the tool's arguments refer to it.
    pub label: Option<String>,
    /// Where to listen.
    pub address: ListenAddress,
    /// How clients reach it, where the operator says so.
    pub advertised: Option<Authority>,
    /// Where its clients are taken.
    pub service: Service,
    /// Whether its clients have to speak TLS.
    pub tls: bool,
    pub policies: ListenerPolicies,
}

/// A listener, as a request sees it.
#[derive(Debug)]
pub struct Listener {
    /// What is counted for it, and its name in logs.
    pub metrics: Arc<ListenerMetrics>,
    /// Where it is bound.
    pub address: BoundAddress,
    /// How clients reach it, where the operator says so.
    pub advertised: Option<Authority>,
    /// Where its clients are taken.
    pub service: Service,
    /// Whether its clients have to speak TLS.
    pub tls: bool,
    pub policies: ListenerPolicies,
    /// That of a fixed route's upstream, once a request needed it.
    pub slot: OnceCell<Rc<Slot>>,
}

/// All that a reload replaces, whole: requests keep the one that they began with.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Counts up from 1.
    pub number: u64,
    /// What it was made for.
    pub why: &'static str,
    pub settings: ProxySettings,
    /// From destinations to upstreams.
    pub routes: Arc<Routes>,
    pub listeners: Vec<ListenerSettings>,
    /// Makes certificates for clients that speak TLS, where there is a local CA.
    pub minter: Option<Arc<Minter>>,
    /// What was logged about JSON documents.
    pub notices: Arc<DocumentNotices>,
}

impl Generation {
    /// What an upstream of an older generation is in this one; `None` where it is not the same place any more, or may
    /// not be connected to.
    pub(super) fn find_again(&self, before: &Upstream) -> Option<Upstream> {
        let fixed = self.listeners.iter().filter_map(|listener| listener.service.fixed().cloned());
        let forwarded = self.routes.again(before);
        let original = self.routes.again_at(before);
        fixed.chain(forwarded).chain(original).find(|upstream| upstream.is_but_for_tls(before))
    }
}
