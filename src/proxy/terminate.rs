//! What a client that begins TLS is answered: for which names it gets a certificate, and which upstream has to be
//! verified before.
//!
//! The certificate of an upstream that was verified is kept for other clients. Where the upstream is refused, the client
//! gets one all the same if the local CA may sign for its name, because nothing else could tell it why; its first request
//! is answered with the refusal, and nothing is sent.

use std::{net::IpAddr, rc::Rc, sync::Arc};

use rustls::ServerConfig;

use crate::{
    audit::event,
    connect::pool::Slot,
    http1::conn::Connection,
    message::authority::{Authority, Host},
    mint::{KeyKind, LeafNames, LocalCa, MintError},
    transport::ClientAddress,
};

use super::{
    Current, InsideTls, ListenerContext, Proxy,
    admission::is_name_of,
    client_tls::ClientTlsError,
    context::{Destination, Ended},
    failure::Failure,
    settings::{Listener, Service},
};

/// What a ClientHello says.
#[derive(Clone, Debug)]
pub struct HelloFacts {
    /// The name in it (SNI), which many clients do not send.
    pub server_name: Option<String>,
    /// The kind of certificate that it can verify.
    pub kind: KeyKind,
    /// The address that the client connected to.
    pub local: Option<IpAddr>,
}

/// How a client's handshake goes on.
#[derive(Debug)]
pub struct TlsTerms {
    /// With this certificate.
    pub config: Arc<ServerConfig>,
    /// What its requests may be for.
    pub inside: InsideTls,
    /// Why its first request is refused, if it is.
    pub rejected: Option<Rejected>,
}

/// A refusal or a failure that is answered to the first request.
#[derive(Debug)]
pub struct Rejected {
    pub(super) failure: Failure,
    pub(super) slot: Option<Rc<Slot>>,
}

/// The names of a certificate, and what has to be verified for it.
struct Plan {
    names: Vec<Host>,
    /// `None` where only the request can say what is wanted.
    destination: Option<Destination>,
    inside: InsideTls,
}

impl Proxy {
    /// Whether a client's TLS is served where it stands: at a listener for TLS, inside CONNECT, or on a connection that
    /// was led here.
    pub fn terminates(&self, context: &ListenerContext) -> bool {
        let current = self.current.borrow();
        let Some(listener) = current.listeners.get(context.index) else { return false };
        current.generation.minter.is_some()
            && match listener.service {
                Service::Fixed(_) => listener.tls,
                Service::Forward => context.tunnel.is_some(),
                Service::Original(_) => context.original.is_some(),
            }
    }

    /// Decides about a client's handshake. `None`: the client is gone.
    ///
    /// # Errors
    /// The handshake is refused: no certificate can be made for it.
    pub async fn tls_terms(
        &self,
        context: &ListenerContext,
        client: &mut Connection,
        hello: HelloFacts,
    ) -> Result<Option<TlsTerms>, Failure> {
        let current = self.current();
        let listener = current.listeners.get(context.index).ok_or(Failure::NoDestination)?;
        let minter = current.generation.minter.clone().ok_or(Failure::NoDestination)?;
        let plan = plan(listener, context, &hello)?;
        let (rejected, is_verified) = match self.prepare(&current, context, client, plan.destination.as_ref()).await {
            Ok(is_verified) => (None, is_verified),
            Err((Ended::ClientGone, _)) => return Ok(None),
            Err((Ended::Failed(failure), slot)) => (Some(Rejected { failure, slot }), false),
        };
        let first = plan.names.first().cloned();
        let Some(names) = LeafNames::permitted(minter.ca(), plan.names) else {
            return Err(match (rejected, first) {
                (Some(rejected), _) => rejected.failure,
                (None, Some(host)) => not_permitted(minter.ca(), &host),
                (None, None) => Failure::NoDestination,
            });
        };
        let config = minter.config(names, hello.kind, is_verified, self.clock.now()).await.map_err(mint)?;
        Ok(Some(TlsTerms { config, inside: plan.inside, rejected }))
    }

    /// Chooses the upstream of a destination, and verifies it; whether it was trusted.
    async fn prepare(
        &self,
        current: &Current,
        context: &ListenerContext,
        client: &mut Connection,
        destination: Option<&Destination>,
    ) -> Result<bool, (Ended, Option<Rc<Slot>>)> {
        let Some(destination) = destination else { return Ok(false) };
        let slot = self.choose(current, context, destination).map_err(|failure| (failure.into(), None))?;
        self.verify_upstream(&slot, client).await.map_err(|ended| (ended, Some(slot)))
    }

    /// Has an upstream verified, unless it was for a connection that is idle now; whether it was trusted, or its
    /// refusal only reported. The connection is kept for the request that is to come.
    pub(super) async fn verify_upstream(&self, slot: &Rc<Slot>, client: &mut Connection) -> Result<bool, Ended> {
        if let Some(is_trusted) = slot.idle_trust() {
            return Ok(is_trusted);
        }
        let verified = self.connect_for(client, slot).await?;
        let is_trusted = verified.bypassed().is_none();
        slot.put(self.upstream_connection(slot, verified));
        Ok(is_trusted)
    }

    /// Records a rejected handshake behind which no request came.
    pub fn record_rejected(&self, rejected: &Rejected, context: &ListenerContext, client: ClientAddress) {
        let (Some((refused, is_parent)), Some(slot)) = (rejected.failure.refused_handshake(), &rejected.slot) else {
            // Whatever the answer would be, nobody asks for it.
            let _ = self.refuse_connection(&rejected.failure, context, client);
            return;
        };
        let current = self.current();
        let Some(listener) = current.listeners.get(context.index) else { return };
        let words = rejected.failure.words();
        self.audit.tally().count(words.kind.bad_end(), words.class, &slot.authority);
        self.audit.record(&event::Refused {
            id: &self.ids.next(),
            time: self.clock.now(),
            upstream: &slot.upstream,
            parent: slot.upstream.parent.as_ref().filter(|_| is_parent).and_then(|parent| parent.tls.as_deref()),
            refused,
            client,
            listener: &listener.metrics.name,
            request: None,
            generation: slot.generation,
        });
    }
}

/// The names of the certificate: that which CONNECT named; that which the client sent, or the upstream's and the address
/// that the client connected to.
fn plan(listener: &Listener, context: &ListenerContext, hello: &HelloFacts) -> Result<Plan, Failure> {
    let sent = hello.server_name.as_ref().and_then(|name| name.parse::<Host>().ok());
    let other_name = |expected: String| {
        let sni = hello.server_name.clone().unwrap_or_default();
        Failure::ClientTls(ClientTlsError::OtherName { sni, expected })
    };
    match (&listener.service, &context.tunnel, context.original) {
        (Service::Fixed(upstream), ..) => {
            let names = match sent {
                Some(name) if is_name_of(listener, upstream, &name) => vec![name],
                Some(_) => return Err(other_name("that is no name of this route; --accept-host can add it".into())),
                None => [Some(upstream.host.clone()), hello.local.map(Host::Ip)].into_iter().flatten().collect(),
            };
            Ok(Plan { names, destination: Some(Destination::Route), inside: InsideTls { host: None } })
        }
        (Service::Forward, Some(tunnel), _) => {
            if sent.is_some_and(|name| name != tunnel.host) {
                return Err(other_name(format!("CONNECT was for `{tunnel}`")));
            }
            let host = tunnel.host.clone();
            let destination = Destination::Asked { authority: tunnel.clone(), https: true };
            Ok(Plan {
                names: vec![host.clone()],
                destination: Some(destination),
                inside: InsideTls { host: Some(host) },
            })
        }
        (Service::Original(_), _, Some(address)) => {
            let Some(host) = sent else {
                // Its request may name the host, as clients do that are too old to send a name here.
                let names = vec![Host::Ip(address.ip().to_canonical())];
                return Ok(Plan { names, destination: None, inside: InsideTls { host: None } });
            };
            let authority = Authority { host: host.clone(), port: None };
            let destination = Destination::Original { authority, https: true, address, tls: true };
            Ok(Plan {
                names: vec![host.clone()],
                destination: Some(destination),
                inside: InsideTls { host: Some(host) },
            })
        }
        (Service::Forward | Service::Original(_), ..) => Err(Failure::NoDestination),
    }
}

/// Whether the CA may sign for a host.
pub(super) fn check_permitted(ca: &LocalCa, host: &Host) -> Result<(), Failure> {
    if ca.permits.covers(host) { Ok(()) } else { Err(not_permitted(ca, host)) }
}

fn not_permitted(ca: &LocalCa, host: &Host) -> Failure {
    let name = host.to_string();
    let (permits, remedy) = (ca.permits.to_string(), ca.remedy(&name));
    Failure::ClientTls(ClientTlsError::NotPermitted { name, permits, remedy })
}

fn mint(error: MintError) -> Failure {
    Failure::ClientTls(ClientTlsError::Mint(error.to_string()))
}
