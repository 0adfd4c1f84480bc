//! What ended the way out: the phase, and its cause.

use std::{fmt, io, net::SocketAddr, rc::Rc, time::Duration};

use crate::tls::failure::HandshakeFailure;

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
    /// TCP failed at every address; the last error.
    Tcp {
        /// The last address.
        address: SocketAddr,
        /// What the system said.
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
            Self::Tcp { address, error } => write!(f, "no connection to {address}: {error}"),
        }
    }
}

impl std::error::Error for ConnectError {}
