//! Certificates for development: a two-tier authority, server certificates with DNS and IP names,
//! and a gallery of certificates that a careful client must refuse.
//!
//! Everything is made on demand, in memory, with P-256 keys unless a case is about another kind.
//! The one key that is written down is the 1024-bit RSA key of the case `weak-rsa`, which the
//! library underneath rightly declines to make; see [`KeyKind::WeakRsa1024`].
//!
//! | room | for |
//! |---|---|
//! | [`pki`] | authorities, what they issue, and revocation lists |
//! | [`gallery`] | one named [`Case`] per way to be right or wrong, and the bundle it is judged by |
//! | [`serve`] | a tiny TLS server that presents one identity and counts what reaches it |
//! | [`devstack`] | the same authority written to disk as DevStack lays it out |

mod der;
pub mod devstack;
mod error;
pub mod files;
pub mod gallery;
pub mod pki;
mod rsa;
pub mod serve;

pub use crate::error::Error;
pub use crate::gallery::{Bundle, Case, Expected, Gallery};
pub use crate::pki::{Authority, Identity, KeyKind, LeafSpec};
pub use crate::serve::{Counters, Server};
