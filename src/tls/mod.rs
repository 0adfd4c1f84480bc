//! Who can be trusted. No sockets: certificates and a moment go in, a verdict comes out.
//!
//! [`verify`] decides: webpki, and our own [`checks`]. [`classify`] gives a refusal its class; [`explain`] and
//! [`hint`] have the words, and cannot change a verdict. A file uses only those of groups above its own.

pub mod dn;
pub mod fingerprint;
pub mod identity;
pub mod malformed;
pub mod oid;
pub mod pem;

pub mod presented;

pub mod failure;
pub mod signature;
pub mod trust;

pub mod client_identity;
pub mod constraints;
pub mod report_only;

pub mod checks;

pub mod crl;
pub mod revocation;

pub mod case;

pub mod names;
pub mod path;

pub mod classify;

pub mod verify;

pub mod hint;

pub mod explain;

pub mod client;
