//! A gallery of server certificates: the good ones, and one bad one for each thing that can be wrong.
//!
//! All cases of one [`Gallery`] hang below the same root and, unless the case is about another,
//! the same intermediate. A bad case differs from a good one in one respect. Two words of care:
//!
//! - `revoked` is a sound certificate to whoever has not been given [`Gallery::crl_pem`]. The lists
//!   there speak for the root and the intermediate; a case below any other authority has no list.
//! - `sha1-signature` and `weak-rsa` carry signatures that hold, though the library underneath does
//!   not make such; the server for `weak-rsa` also signs its handshakes rightly. A client that
//!   accepts either has really accepted a weakness.

mod case;
mod make;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

pub use self::case::{Bundle, Case, Expected};
use crate::error::Error;
use crate::pki::{Authority, CaSpec, Identity, Validity, certificates_pem};

/// One root, one intermediate, and an identity for each case, made when it is first asked for.
#[derive(Debug)]
pub struct Gallery {
    now: OffsetDateTime,
    root: Authority,
    intermediate: Authority,
    expired_root: Authority,
    crl_pem: String,
    /// What [`Bundle::Plus`] has in addition to the root and the expired root.
    anchored: Vec<CertificateDer<'static>>,
    made: Mutex<HashMap<Case, Identity>>,
}

impl Gallery {
    /// A new gallery, whose certificates are good or bad at the time `now`.
    pub fn new(now: OffsetDateTime) -> Result<Self, Error> {
        let root = Authority::root("Gallery Root", now)?;
        let intermediate = root.intermediate("Gallery Intermediate", now)?;
        let expired_root = Authority::self_signed(&CaSpec {
            validity: Validity::days(now, -800, -10),
            ..CaSpec::root("Gallery Expired Root", now)
        })?;
        let crl_pem = intermediate.crl_pem(&[make::REVOKED_SERIAL], now)? + &root.crl_pem(&[], now)?;

        let mut gallery =
            Self { now, root, intermediate, expired_root, crl_pem, anchored: Vec::new(), made: Mutex::default() };
        for case in Case::ALL.iter().filter(|case| case.stands_in_bundle()) {
            gallery.anchored.extend(gallery.identity(*case)?.chain);
        }
        Ok(gallery)
    }

    /// What the server of this case presents; the same each time.
    pub fn identity(&self, case: Case) -> Result<Identity, Error> {
        let made = || self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(identity) = made().get(&case) {
            return Ok(identity.clone());
        }
        // Not under the lock, since RSA takes its time; whoever comes first decides.
        let identity = self.make(case)?;
        Ok(made().entry(case).or_insert(identity).clone())
    }

    /// The name or address that a client should ask for; see [`Case::name`].
    pub fn name(&self, case: Case) -> &str {
        case.name()
    }

    /// Whether [`Gallery::name`] is an address; see [`Case::is_ip`].
    pub fn is_ip(case: Case) -> bool {
        case.is_ip()
    }

    /// What the client of a case trusts, as PEM.
    pub fn bundle_pem(&self, bundle: Bundle) -> String {
        certificates_pem(&self.bundle(bundle))
    }

    /// What the client of a case trusts.
    pub fn bundle(&self, bundle: Bundle) -> Vec<CertificateDer<'static>> {
        let root = self.root.certificate_der();
        match bundle {
            Bundle::DevStack => vec![root, self.intermediate.certificate_der()],
            Bundle::Plus => {
                [root, self.expired_root.certificate_der()].into_iter().chain(self.anchored.iter().cloned()).collect()
            }
            Bundle::Root => vec![root],
        }
    }

    /// The revocation lists of the intermediate and of the root, valid for thirty days.
    pub fn crl_pem(&self) -> String {
        self.crl_pem.clone()
    }
}
