//! Who may be believed. No sockets: values and a moment go in, a verdict comes out.
//!
//! webpki is the judge ([`judge`]); [`presented`] and [`diagnose`] are its clerk, who keeps what was
//! presented and explains the verdict without ever changing it.

pub mod client;
pub mod client_identity;
pub mod crl;
pub mod diagnose;
mod distinguished_name;
pub mod failure;
pub mod fingerprint;
pub mod hint;
pub mod identity;
pub mod judge;
pub mod pem;
pub mod presented;
pub mod report_only;
pub mod revocation;
pub mod trust;
