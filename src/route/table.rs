//! From a destination to its [`Upstream`]: the port rules, the policy, and what was set for it.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    message::authority::{Authority, Host},
    tls::identity::ReferenceId,
};

use super::{
    parent::{ParentChoice, ParentProxy, ParentRules},
    policy::{AddressRule, DestinationPolicy},
    upstream::{TlsHandle, Upstream},
};

/// What an operator set for one upstream, by `host[:port]`.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// Which upstream: its host, and its port or all of them.
    pub of: Authority,
    /// Where to connect instead of resolving the host.
    pub connect_to: Option<Authority>,
    /// The name to verify instead of the host.
    pub verify_name: Option<ReferenceId>,
    /// The name to send instead of the one verified.
    pub sni: Option<String>,
    /// Trust and TLS settings, instead of the default.
    pub tls: Option<TlsHandle>,
    /// How it is reached, instead of by the rules.
    pub parent: Option<ParentChoice>,
}

/// The rules from destinations to upstreams.
#[derive(Debug)]
pub struct Routes {
    /// Where clients that name their destination may be taken.
    pub policy: DestinationPolicy,
    /// Plain ports that mean another TLS port; 80 means 443 without being listed.
    pub ports: HashMap<u16, u16>,
    /// Trust and TLS settings of upstreams that have none of their own.
    pub tls: TlsHandle,
    /// Which upstreams are reached through a parent proxy.
    pub parents: ParentRules,
    /// Settings for single upstreams; the first that fits each question answers it. What is set about TLS is one
    /// question, so the configuration has it once for each upstream.
    pub upstreams: Vec<UpstreamSettings>,
}

impl Routes {
    /// The upstream that a client's own destination means. `https` is whether the client wrote so.
    ///
    /// # Errors
    /// [`RouteError::Denied`] by the destination policy, or [`RouteError::Name`] for a name that no certificate carries.
    pub fn select(&self, authority: &Authority, https: bool) -> Result<Upstream, RouteError> {
        let port = self.port(authority, https);
        let denied = || RouteError::Denied { host: authority.host.clone(), port };
        let addresses = self.policy.judge(&authority.host, port).ok_or_else(denied)?;
        self.upstream(&authority.host, port, addresses).and_then(permitted)
    }

    /// The upstream of a request to `authority` on a connection that the client wanted to have to `original`: it is
    /// dialled there, and has to prove the name. Nothing is resolved, unless the operator set another host to dial.
    ///
    /// `tls`: the client speaks TLS on that connection, so that its port means itself.
    ///
    /// # Errors
    /// [`RouteError`]: the name or the address is not allowed, or the ports differ.
    pub fn select_at(
        &self,
        authority: &Authority,
        https: bool,
        original: SocketAddr,
        tls: bool,
    ) -> Result<Upstream, RouteError> {
        let port = self.port(&Authority { host: authority.host.clone(), port: Some(original.port()) }, tls);
        if authority.port.is_some() && self.port(authority, https) != port {
            return Err(RouteError::OtherPort { named: authority.clone(), original });
        }
        self.upstream_at(&authority.host, port, original.ip().to_canonical())
    }

    fn upstream_at(&self, host: &Host, port: u16, dialled: IpAddr) -> Result<Upstream, RouteError> {
        let named = self.policy.judge(host, port);
        let named = named.ok_or_else(|| RouteError::Denied { host: host.clone(), port })?;
        let set = self.upstream(host, port, named)?;
        // A parent cannot reach a loopback address of this host: there, the name is meant.
        let is_name_of_parent = set.parent.is_some() && dialled.is_loopback() && matches!(host, Host::Name(_));
        if is_name_of_parent || self.dial_elsewhere(host, port).is_some() {
            return permitted(set);
        }
        let address = SocketAddr::new(dialled, port);
        let addresses = self.policy.judge_at(host, port, dialled).ok_or(RouteError::AddressDenied(address))?;
        Ok(Upstream { dial_host: Host::Ip(dialled), dial_port: port, addresses, ..set })
    }

    /// Whether a host need not be resolved here: on some of its ports, another host or address is connected to, or a
    /// parent proxy resolves it.
    pub fn is_resolved_elsewhere(&self, host: &Host) -> bool {
        let is_set = |settings: &UpstreamSettings| {
            settings.connect_to.is_some() || matches!(settings.parent, Some(ParentChoice::Through(_)))
        };
        let own = self.upstreams.iter().any(|settings| settings.of.host == *host && is_set(settings));
        own || self.parents.of(host, None).is_some()
    }

    /// Whether the port of an authority means the same to a client that speaks TLS as to one that does not.
    pub fn is_same_for_tls(&self, authority: &Authority) -> bool {
        self.port(authority, true) == self.port(authority, false)
    }

    /// The TLS port that a client means. `https` is whether it wrote so.
    pub fn port(&self, authority: &Authority, https: bool) -> u16 {
        match (authority.port, https) {
            (Some(port), true) => port,
            (None, _) => 443,
            (Some(port), false) => match (self.ports.get(&port), port) {
                (Some(mapped), _) => *mapped,
                (None, 80) => 443,
                (None, port) => port,
            },
        }
    }

    /// The upstream of a fixed route, which needs no allowance.
    ///
    /// # Errors
    /// [`RouteError::Name`] for a name that no certificate carries.
    pub fn fixed(&self, host: &Host, port: u16) -> Result<Upstream, RouteError> {
        self.upstream(host, port, AddressRule::any())
    }

    /// The upstream for a destination that an earlier request was forwarded to; the policy may have changed since.
    pub fn again(&self, before: &Upstream) -> Option<Upstream> {
        let addresses = self.policy.judge(&before.host, before.port)?;
        self.upstream(&before.host, before.port, addresses).and_then(permitted).ok()
    }

    /// The upstream that a destination means to which an earlier one was the upstream of a connection to an original
    /// address.
    pub fn again_at(&self, before: &Upstream) -> Option<Upstream> {
        let Host::Ip(dialled) = before.dial_host else { return None };
        self.upstream_at(&before.host, before.port, dialled).ok()
    }

    /// A name for an upstream of a client's choice that no client can choose: `HOST[:PORT]` where that is configured,
    /// else the pattern that allows it.
    pub fn label(&self, host: &Host, port: u16) -> String {
        let of = |port| Authority { host: host.clone(), port };
        let is_set = |of: &Authority| self.upstreams.iter().any(|settings| settings.of == *of);
        let pattern = self.policy.pattern(host, port);
        match (of(Some(port)), of(None), pattern) {
            (exact, _, _) if is_set(&exact) => exact.to_string(),
            (_, any_port, Some(allow)) if !allow.is_exact() && is_set(&any_port) => any_port.to_string(),
            (_, _, Some(allow)) => allow.to_string(),
            // Its address decides, once it is resolved.
            (_, _, None) => ALLOWED_BY_ADDRESS.to_owned(),
        }
    }

    /// Every label that [`Self::label`] may give.
    pub fn labels(&self) -> Vec<String> {
        let mut labels: Vec<String> = self.policy.patterns().map(ToString::to_string).collect();
        let is_exact = |host: &Host| self.policy.patterns().any(|allow| allow.is_exact() && allow.covers(host, None));
        for settings in &self.upstreams {
            let Authority { host, port } = &settings.of;
            let is_its_own = port.is_some() || !is_exact(host);
            if is_its_own && self.policy.could_allow(host, *port) {
                labels.push(settings.of.to_string());
            }
        }
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// What was set for an upstream.
    fn settings_of(&self, host: &Host, port: u16) -> impl Iterator<Item = &UpstreamSettings> {
        let fits = move |settings: &&UpstreamSettings| {
            settings.of.host == *host && settings.of.port.is_none_or(|of| of == port)
        };
        self.upstreams.iter().filter(fits)
    }

    /// Where to connect instead of the host.
    fn dial_elsewhere(&self, host: &Host, port: u16) -> Option<Authority> {
        self.settings_of(host, port).find_map(|settings| settings.connect_to.clone())
    }

    /// The parent proxy of an upstream.
    fn parent_of(&self, host: &Host, port: u16) -> Option<Arc<ParentProxy>> {
        match self.settings_of(host, port).find_map(|settings| settings.parent.as_ref()) {
            Some(ParentChoice::Direct) => None,
            Some(ParentChoice::Through(parent)) => Some(parent.clone()),
            None => self.parents.of(host, Some(port)).cloned(),
        }
    }

    fn upstream(&self, host: &Host, port: u16, mut addresses: AddressRule) -> Result<Upstream, RouteError> {
        let own = || self.settings_of(host, port);
        let reference = match own().find_map(|settings| settings.verify_name.clone()) {
            Some(reference) => reference,
            None => ReferenceId::of(host).map_err(RouteError::Name)?,
        };
        let sni = own().find_map(|settings| settings.sni.clone()).or(match &reference {
            ReferenceId::Dns(name) => Some(name.as_ref().to_owned()),
            ReferenceId::Ip(_) => None,
        });
        let (dial_host, dial_port) = match self.dial_elsewhere(host, port) {
            Some(to) => {
                // The operator named the address to dial: that is as exact as it gets.
                addresses = AddressRule::any();
                (to.host, to.port.unwrap_or(port))
            }
            None => (host.clone(), port),
        };
        let parent = self.parent_of(host, port);
        Ok(Upstream {
            host: host.clone(),
            port,
            dial_host,
            dial_port,
            reference,
            sni,
            tls: own().find_map(|settings| settings.tls.clone()).unwrap_or_else(|| self.tls.clone()),
            addresses,
            parent,
        })
    }
}

/// The label of a host that is allowed by the network that its address is in.
const ALLOWED_BY_ADDRESS: &str = "networks";

/// Refuses a name of which only addresses are allowed, where a parent proxy resolves it.
fn permitted(upstream: Upstream) -> Result<Upstream, RouteError> {
    let is_unresolved = upstream.parent.is_some() && matches!(upstream.dial_host, Host::Name(_));
    match is_unresolved && !upstream.addresses.permits_unresolved() {
        true => Err(RouteError::Denied { host: upstream.host, port: upstream.port }),
        false => Ok(upstream),
    }
}

/// Why a destination has no upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// The address that the client connected to is not allowed, though the name is.
    AddressDenied(SocketAddr),
    /// The destination policy does not allow it.
    Denied {
        /// The host asked for.
        host: Host,
        /// The port after the port rules.
        port: u16,
    },
    /// A name that no certificate can carry.
    Name(String),
    /// The client named another port than that which it connected to.
    OtherPort {
        /// What it named.
        named: Authority,
        /// Where it connected to.
        original: SocketAddr,
    },
}
