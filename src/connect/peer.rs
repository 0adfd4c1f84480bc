//! What is known of a verified peer.

use std::{cell::OnceCell, net::SocketAddr, rc::Rc, sync::Arc};

use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::{
    route::{parent::ParentProxy, upstream::Upstream},
    tls::client::{Made, PeerTrust, Recorder, TlsClient, TlsVersion},
};

/// What is known of a peer that may be spoken to.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it is; of one behind a parent proxy, where that is.
    pub address: SocketAddr,
    /// The parent proxy in between.
    pub via: Option<Via>,
    /// Which version was agreed.
    pub tls_version: TlsVersion,
    /// Which cipher suite.
    pub cipher_suite: &'static str,
    /// Why it may be spoken to.
    pub standing: PeerTrust,
    /// What it sent, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The client certificate, and whether it was asked for.
    pub client: ClientAuth,
    /// The address as text, once somebody asked for it.
    pub(super) address_text: OnceCell<String>,
}

/// The parent proxy that a peer is reached through.
#[derive(Clone, Debug)]
pub struct Via {
    pub parent: Arc<ParentProxy>,
    /// What is known of an `https://` parent.
    pub(super) peer: Option<Rc<Peer>>,
}

impl Via {
    fn judged_again(&self, upstream: &Upstream) -> Option<Self> {
        let parent = upstream.parent.clone()?;
        let peer = match (&self.peer, &parent.tls) {
            (Some(peer), Some(tls)) => Some(Rc::new(peer.judged_again(tls)?)),
            (None, None) => None,
            _ => return None,
        };
        Some(Self { parent, peer })
    }
}

/// The client's side of authentication.
#[derive(Clone, Debug, Default)]
pub struct ClientAuth {
    /// Whether the server asked.
    pub asked: bool,
    /// SHA-256 of the certificate that was at hand.
    pub certificate: Option<String>,
}

impl ClientAuth {
    pub(super) fn of(recorder: &Recorder, client: &TlsClient) -> Self {
        let certificate = client.settings().client.as_ref().map(|client| client.sha256.clone());
        Self { asked: recorder.asked_for_certificate(), certificate }
    }
}

impl Peer {
    /// Where it is, as text.
    pub fn address_text(&self) -> &str {
        self.address_text.get_or_init(|| self.address.to_string())
    }

    /// Whether whatever is true of one is true of the other, but for the address.
    pub fn is_like(&self, other: &Self) -> bool {
        let parents = [self, other].map(|peer| peer.via.as_ref().and_then(|via| via.peer.as_ref()));
        let same_parents = match parents {
            [Some(own), Some(other)] => own.is_like(other),
            [own, other] => own.is_none() && other.is_none(),
        };
        same_parents
            && (self.tls_version, &self.chain, &self.client.certificate)
                == (other.tls_version, &other.chain, &other.client.certificate)
    }

    /// The first moment in which its trust, or that of the parent proxy, does not hold any more.
    pub fn end(&self) -> OffsetDateTime {
        let own = self.standing.end();
        let parent = self.via.as_ref().and_then(|via| via.peer.as_ref());
        parent.map_or(own, |parent| own.min(parent.end()))
    }

    /// What it would be under the settings of this upstream; None where it could not be.
    pub fn judged_again(&self, upstream: &Upstream) -> Option<Self> {
        let certificate = self.client.certificate.as_deref();
        let made = Made { chain: &self.chain, client: certificate, tls_version: self.tls_version };
        let standing = upstream.tls.0.verify_again(&made, &upstream.reference)?;
        let via = match &self.via {
            Some(via) => Some(via.judged_again(upstream)?),
            None => None,
        };
        Some(Self { standing, via, ..self.clone() })
    }
}
