//! What ended the way out: the phase, and its cause.

use std::{fmt, io, net::SocketAddr, rc::Rc, time::Duration};

use crate::{text::escape_within, tls::failure::HandshakeFailure};

/// Why there is no verified connection.
#[derive(Debug)]
pub enum ConnectError {
    /// All addresses are outside the destination policy.
    AddressDenied {
        /// What the name resolved to.
        addresses: Vec<SocketAddr>,
    },
    /// The connection came back to this proxy: something redirects the proxy's own connections.
    CameBack {
        /// The address that was dialled.
        address: SocketAddr,
        /// Our end of the connection.
        from: SocketAddr,
    },
    /// No address answered in time.
    ConnectTimeout {
        /// How long was waited.
        after: Duration,
    },
    /// The name has no address, or no name server could tell.
    Dns {
        /// The name.
        name: String,
        /// The answers of the name servers.
        why: String,
    },
    /// A name server was silent, and no other had an answer.
    DnsTimeout {
        /// The name.
        name: String,
        /// How long was waited.
        after: Duration,
        /// The answers of the name servers, or that there were none.
        why: String,
    },
    /// The handshake failed, or the peer was refused.
    Handshake(Rc<HandshakeFailure>),
    /// The address is one of our own listeners.
    Loop {
        /// The address.
        address: SocketAddr,
    },
    /// A parent proxy gave no tunnel.
    Parent(Box<ParentFailure>),
    /// TCP failed at every address; the last error.
    Tcp {
        /// The last address.
        address: SocketAddr,
        /// The system's message.
        error: io::Error,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddressDenied { addresses } => {
                let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
                write!(f, "its address {} is not allowed as a destination", list.join(", "))
            }
            Self::CameBack { address, from } => {
                write!(f, "the connection from {from} to {address} came back to this proxy: a loop")
            }
            Self::ConnectTimeout { after } => write!(f, "no connection within {} s", after.as_secs_f32()),
            Self::Dns { name, why } => write!(f, "the name `{name}` cannot be resolved: {why}"),
            Self::DnsTimeout { name, after, why } => {
                write!(f, "the name `{name}` was not resolved within {} s: {why}", after.as_secs_f32())
            }
            Self::Handshake(failure) => f.write_str(&failure.failure.verdict.sentence),
            Self::Loop { address } => write!(f, "{address} is a listener of this proxy: a loop"),
            Self::Parent(failure) => failure.fmt(f),
            Self::Tcp { address, error } => write!(f, "no connection to {address}: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why a parent proxy gave no tunnel.
#[derive(Debug)]
pub struct ParentFailure {
    /// The parent's URL, without credentials.
    pub parent: String,
    /// The port that the tunnel was to lead to.
    pub port: u16,
    /// Whether credentials are configured for it.
    pub has_credentials: bool,
    pub cause: ParentCause,
}

/// What happened at a parent proxy.
#[derive(Debug)]
pub enum ParentCause {
    /// It wants credentials, or others.
    Auth { answer: ParentAnswer, schemes: Vec<String> },
    /// Its answer is no answer to CONNECT.
    BadAnswer { answer: Option<ParentAnswer>, why: String },
    /// It does not permit the tunnel.
    Denied(ParentAnswer),
    /// It did not answer CONNECT in time.
    Silent { after: Duration },
    /// Its certificate was refused, or the TLS handshake with it failed.
    Tls(Rc<HandshakeFailure>),
    /// There is no connection to it.
    Unreachable(Box<ConnectError>),
    /// It could not connect to the upstream.
    Upstream(ParentAnswer),
}

/// A response to CONNECT that opens no tunnel.
#[derive(Debug)]
pub struct ParentAnswer {
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// The beginning of its text, if it has any.
    pub text: String,
}

impl fmt::Display for ParentAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.reason.is_empty() {
            write!(f, " {}", escape_within(&self.reason, 100))?;
        }
        if !self.text.is_empty() {
            write!(f, ", and says: {}", escape_within(&self.text, 300))?;
        }
        Ok(())
    }
}

impl ParentFailure {
    /// The status of the parent's answer, if it gave one.
    pub fn status(&self) -> Option<u16> {
        match &self.cause {
            ParentCause::Auth { answer, .. }
            | ParentCause::BadAnswer { answer: Some(answer), .. }
            | ParentCause::Denied(answer)
            | ParentCause::Upstream(answer) => Some(answer.status),
            _ => None,
        }
    }

    /// What to do; empty where the sentence says it all.
    pub fn hint(&self) -> &'static str {
        match &self.cause {
            ParentCause::Auth { .. } if self.has_credentials => {
                "check the user name and the password of --parent-proxy or --parent-proxy-credentials"
            }
            ParentCause::Auth { schemes, .. } if schemes.iter().any(|scheme| scheme.eq_ignore_ascii_case("basic")) => {
                "set --parent-proxy-credentials to a file with `user:password`, mode 0600"
            }
            ParentCause::Auth { .. } => {
                "only Basic authentication is supported; let the proxy permit this host, or offer Basic too"
            }
            ParentCause::Denied(_) if self.port != 443 => PORTS,
            ParentCause::Denied(_) => "let the proxy permit CONNECT to this host",
            ParentCause::BadAnswer { .. } => {
                "check that --parent-proxy names a forward proxy and its port; `https://` is for one that speaks TLS itself"
            }
            ParentCause::Silent { .. } | ParentCause::Upstream(_) => {
                "check from the proxy's host that the upstream can be reached, and its name be resolved there"
            }
            ParentCause::Tls(_) => "the CAs for the parent proxy are those of --parent-ca-bundle, if it is set",
            ParentCause::Unreachable(_) => {
                "check --parent-proxy, and that the proxy is up; there is no fallback to direct"
            }
        }
    }
}

/// What is configured where proxies permit CONNECT to few ports.
const PORTS: &str = "most proxies permit CONNECT to port 443 only, unless configured: add this port to `SSL_ports` (Squid), `connect_ports` (Traffic Server), `ConnectPort` (tinyproxy) or `AllowCONNECT` (Apache)";

impl fmt::Display for ParentFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the parent proxy {} ", self.parent)?;
        match &self.cause {
            ParentCause::Auth { answer, schemes } => {
                write!(
                    f,
                    "wants {}credentials: it answered {answer}",
                    if self.has_credentials { "other " } else { "" }
                )?;
                match schemes.as_slice() {
                    [] => Ok(()),
                    schemes => write!(f, "; it offers {}", schemes.join(", ")),
                }
            }
            ParentCause::BadAnswer { answer: Some(answer), why } => write!(f, "{why}: it answered {answer}"),
            ParentCause::BadAnswer { answer: None, why } => write!(f, "gave no usable answer to CONNECT: {why}"),
            ParentCause::Denied(answer) => write!(f, "does not permit the tunnel: it answered {answer}"),
            ParentCause::Silent { after } => write!(f, "did not answer CONNECT within {} s", after.as_secs_f32()),
            ParentCause::Tls(failure) => {
                let verdict = &failure.failure.verdict;
                write!(f, "was not trusted with the tunnel: {} ({})", verdict.sentence, verdict.code)
            }
            ParentCause::Unreachable(error) => write!(f, "cannot be reached: {error}"),
            ParentCause::Upstream(answer) => write!(f, "could not reach the upstream: it answered {answer}"),
        }
    }
}
