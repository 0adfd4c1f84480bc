//! Why a client's TLS is not served here.

use std::fmt;

use crate::text::escape_within;

/// Why a client's TLS, or a request inside it, is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientTlsError {
    /// The client ended the handshake, or broke it.
    Handshake(String),
    /// No certificate can be made.
    Mint(String),
    /// The local CA may not sign for this name.
    NotPermitted {
        /// The name, or the address.
        name: String,
        /// What it may sign for.
        permits: String,
        /// The command that makes a CA which may.
        remedy: String,
    },
    /// A request names another host than its connection's handshake.
    OtherHost {
        /// What the request names.
        named: String,
        /// What the client has seen a certificate for.
        certified: String,
    },
    /// The listener is for TLS, and the client speaks plain HTTP.
    Plain,
    /// The name in the handshake (SNI) is not the one that the client asked for, or none that leads here.
    OtherName {
        /// The name in the handshake.
        sni: String,
        /// What it should be.
        expected: String,
    },
    /// No version, suite or signature that the client offers is served.
    TooOld {
        /// What it offers.
        offer: String,
    },
}

/// Characters of a name that are shown.
const NAME: usize = 255;

impl ClientTlsError {
    /// What to do about it; empty where there is nothing to say.
    pub fn hint(&self) -> String {
        match self {
            Self::Handshake(_) => "the client has to trust the root of the local CA, ca.pem in its directory".into(),
            Self::NotPermitted { remedy, .. } => {
                format!("make a new CA and set --local-ca to it: `{remedy}`")
            }
            Self::OtherHost { .. } | Self::OtherName { .. } => {
                "a client has to use one name for the connection, the handshake and the request".into()
            }
            Self::Plain => "use `https://` to reach this listener".into(),
            Self::TooOld { .. } => "configure the tool to request `http://` URLs, which become verified https".into(),
            Self::Mint(_) => String::new(),
        }
    }
}

impl fmt::Display for ClientTlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(why) => write!(f, "the TLS handshake with the client failed: {why}"),
            Self::Mint(why) => write!(f, "no certificate for the client can be made: {why}"),
            Self::NotPermitted { name, permits, .. } => {
                let name = escape_within(name, NAME);
                write!(f, "the local CA may not sign for `{name}`, only for {permits}")
            }
            Self::OtherHost { named, certified } => {
                let named = escape_within(named, NAME);
                write!(f, "the request is for `{named}` on a TLS connection that is for `{certified}`")
            }
            Self::OtherName { sni, expected } => {
                let sni = escape_within(sni, NAME);
                write!(f, "the client's TLS handshake is for `{sni}`, and {expected}")
            }
            Self::Plain => f.write_str("plain HTTP came to a listener for TLS"),
            Self::TooOld { offer } => {
                write!(f, "this client is too old for TLS here; let it speak plain HTTP (it offers {offer})")
            }
        }
    }
}
