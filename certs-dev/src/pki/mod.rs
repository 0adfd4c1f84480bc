//! Authorities and what they issue.
//!
//! An [`Authority`] is a certificate, its key, and the certificates between it and its root. What it
//! issues is described by plain values ([`CaSpec`], [`LeafSpec`]) whose defaults are sound; a bad
//! certificate is a sound one with a single field changed, so that it has a single thing wrong.

mod authority;
pub(crate) mod doctor;
mod identity;
mod spec;
pub(crate) mod weak_rsa;

pub use authority::{Authority, self_signed};
pub use identity::{Identity, certificates_pem};
pub use spec::{CaFlag, CaSpec, KeyKind, LeafSpec, Purpose, Validity};
