//! What every step of an exchange needs: the request, its client, the settings that it began with, and where it goes.

use std::{borrow::Cow, net::SocketAddr, rc::Rc};

use crate::{
    connect::{pool::Slot, upstream::UpstreamConnection},
    http1::{Version, conn::Connection, head::RequestHead},
    message::{
        authority::{Authority, Host},
        target::{Target, TargetError},
        url::Origin,
    },
    route::table::RouteError,
};

use super::{
    Current, ListenerContext, Proxy, RequestSummary,
    client_tls::ClientTlsError,
    failure::Failure,
    links::Arrival,
    record::ExchangeRecord,
    settings::{Listener, Service},
};

/// An upstream connection that belongs to one client connection, since authentication is bound to it.
#[derive(Debug)]
pub struct BoundUpstream {
    pub(super) slot: Rc<Slot>,
    pub(super) connection: Box<UpstreamConnection>,
}

/// Why an exchange ended before a response was passed on.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client reset its connection.
    ClientGone,
    /// The client gets an answer of ours.
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Where a request is to go: an upstream is chosen by nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Destination {
    /// To the upstream of the listener's fixed route.
    Route,
    /// To where the client asked for: by an absolute-form target, by Host, or by CONNECT.
    Asked { authority: Authority, https: bool },
    /// To the address that the client connected to, under the name that it asked for. `tls`: it speaks TLS there.
    Original { authority: Authority, https: bool, address: SocketAddr, tls: bool },
    /// To where a redirect led that was followed for a client which asked for this.
    Redirect { origin: Origin, asked: Option<Authority> },
}

impl Destination {
    /// The one of a request at a listener.
    pub(super) fn of(listener: &Listener, target: &Target, context: &ListenerContext) -> Result<Self, Failure> {
        let tls = context.tls.is_some();
        let https = target.https || tls;
        let certified = context.tls.as_ref().and_then(|tls| tls.host.as_ref());
        if let (Some(host), Some(named)) = (certified, &target.authority)
            && named.host != *host
        {
            return Err(other_host(named, host));
        }
        match listener.service {
            Service::Fixed(_) => Ok(Self::Route),
            Service::Forward => {
                let authority = match (&target.authority, &context.tunnel) {
                    (Some(named), Some(tunnel)) if tls && named.port.is_some_and(|port| Some(port) != tunnel.port) => {
                        return Err(other_host(named, tunnel));
                    }
                    (_, Some(tunnel)) if tls => tunnel,
                    (named, tunnel) => named.as_ref().or(tunnel.as_ref()).ok_or(Failure::NoDestination)?,
                };
                Ok(Self::Asked { authority: authority.clone(), https })
            }
            Service::Original(_) => {
                let address = context.original.ok_or(Failure::NotRedirected)?;
                let authority = target.authority.clone().unwrap_or_else(|| match certified {
                    Some(host) => Authority { host: host.clone(), port: None },
                    None => Authority { host: Host::Ip(address.ip().to_canonical()), port: Some(address.port()) },
                });
                Ok(Self::Original { authority, https, address, tls })
            }
        }
    }
}

/// A request inside TLS that is for another host than the one whose certificate the client has seen.
fn other_host(named: &Authority, certified: &impl ToString) -> Failure {
    Failure::ClientTls(ClientTlsError::OtherHost { named: named.to_string(), certified: certified.to_string() })
}

/// A request under way: what every step of its exchange needs.
#[derive(Debug)]
pub(super) struct RequestContext<'a> {
    pub(super) proxy: &'a Proxy,
    /// The settings that it began with.
    pub(super) current: Rc<Current>,
    pub(super) context: &'a ListenerContext,
    pub(super) client: &'a mut Connection,
    pub(super) head: RequestHead,
    pub(super) request_version: Version,
    pub(super) destination: Destination,
    pub(super) record: ExchangeRecord,
    pub(super) bound: &'a mut Option<BoundUpstream>,
    /// Where it goes, once that is known.
    pub(super) upstream: Option<Rc<Slot>>,
}

impl RequestContext<'_> {
    pub(super) fn listener(&self) -> &Listener {
        &self.current.listeners[self.context.index]
    }

    pub(super) fn summary(&self) -> RequestSummary<'_> {
        RequestSummary {
            client: self.client.peer(),
            listener: &self.listener().metrics.name,
            method: self.head.method(),
            target: self.head.target(),
        }
    }

    /// What the request asks for, read as its listener takes it.
    pub(super) fn target(&self) -> Result<Target, TargetError> {
        match self.listener().service {
            Service::Fixed(_) | Service::Forward => Target::read(&self.head),
            Service::Original(_) => Target::read_at_address(&self.head),
        }
    }

    /// Writes what waits for the client.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        let patience = self.current.generation.settings.response_body;
        self.client.flush(patience).await.map_err(|_| Ended::ClientGone)
    }

    /// The slot of the destination's upstream by these settings.
    pub(super) fn choose(&self, current: &Current) -> Result<Rc<Slot>, Failure> {
        self.proxy.choose(current, self.context, &self.destination)
    }

    /// The slot that is current for a destination whose connection does not pass under the newer settings.
    pub(super) fn slot_again(&self, slot: &Rc<Slot>) -> Result<Rc<Slot>, Failure> {
        match slot.current() {
            Some(current) => Ok(current),
            None => self.choose(&self.proxy.current()),
        }
    }

    /// The connection that authentication has bound to this client, if it leads to the same upstream, and passes by
    /// the settings of now.
    pub(super) fn take_bound(&mut self, slot: &Rc<Slot>) -> Option<Box<UpstreamConnection>> {
        let bound = self.bound.take()?;
        let (current, mut connection) = bound.slot.rebind(bound.connection)?;
        if current.upstream == slot.upstream && slot.can_use(&mut connection) {
            return Some(connection);
        }
        connection.close();
        None
    }

    /// Leaves a connection to this client alone.
    pub(super) fn bind(&mut self, slot: &Rc<Slot>, connection: Box<UpstreamConnection>) {
        *self.bound = Some(BoundUpstream { slot: slot.clone(), connection });
    }
}

impl Proxy {
    /// The slot of a destination's upstream by these settings.
    pub(super) fn choose(
        &self,
        current: &Current,
        context: &ListenerContext,
        destination: &Destination,
    ) -> Result<Rc<Slot>, Failure> {
        let listener = current.listeners.get(context.index).ok_or(Failure::NoDestination)?;
        if let Destination::Asked { .. } | Destination::Original { .. } = destination
            && let Some(slot) = current.chosen.borrow().get(destination)
        {
            return Ok(slot.clone());
        }
        let upstream = match (destination, &listener.service) {
            (Destination::Redirect { origin, asked }, _) => {
                let arrival = Arrival { context, asked: asked.as_ref(), by_host: false };
                let served = self.served(current, arrival, origin);
                return served.map(|(slot, _)| slot).ok_or_else(|| denied(origin, current));
            }
            (_, Service::Fixed(upstream)) => {
                let slot = || self.slots.of(Cow::Borrowed(upstream.as_ref()), &current.generation);
                return Ok(listener.slot.get_or_init(slot).clone());
            }
            (Destination::Asked { authority, https }, Service::Forward) => {
                current.generation.routes.select(authority, *https).map_err(Failure::Route)?
            }
            (Destination::Original { authority, https, address, tls }, Service::Original(_)) => {
                let upstream = current.generation.routes.select_at(authority, *https, *address, *tls);
                upstream.map_err(Failure::Route)?
            }
            // A reload changes no listener's service.
            (Destination::Route | Destination::Asked { .. } | Destination::Original { .. }, _) => {
                return Err(Failure::NoDestination);
            }
        };
        let slot = self.slots.of(Cow::Owned(upstream), &current.generation);
        current.remember(destination, &slot);
        Ok(slot)
    }
}

fn denied(to: &Origin, current: &Current) -> Failure {
    let port = current.generation.routes.port(&to.authority, to.https);
    Failure::Route(RouteError::Denied { host: to.authority.host.clone(), port })
}
