//! Certificates for clients that speak TLS to this proxy: a local CA that can sign for permitted names only, and the
//! certificates that it signs.
//!
//! A local CA is a root whose key was thrown away after it had signed one intermediate, the issuer. Both carry name
//! constraints (RFC 5280 section 4.2.1.10), so that whoever steals the issuer's key can impersonate only what the
//! operator permitted.

mod files;
mod init;
mod leaf;
mod permit;

pub use self::{
    files::{CaError, FileMode, LocalCa, is_local_ca},
    init::{CaSpec, InitError, NewCa, init},
    leaf::{KeyKind, LeafNames, MintError, Minter},
    permit::{Permit, Permits},
};

/// The root, for clients.
pub const ROOT_FILE: &str = "ca.pem";
/// The intermediate.
pub const ISSUER_FILE: &str = "issuer.pem";
/// The key of the intermediate.
pub const KEY_FILE: &str = "issuer.key";
