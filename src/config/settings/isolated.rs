//! The listeners of an isolated tool: one for each port that is caught, at every address of its namespace.

use std::{collections::BTreeSet, net::Ipv6Addr};

use crate::proxy::settings::{ListenAddress, ListenerPolicies, ListenerSettings, OriginalAddress, Service};

use super::{super::args::Purpose, Build, unused::port_of, values::parse_port_pair};

/// More listeners would take too many descriptors.
const MOST_PORTS: usize = 200;

impl Build<'_> {
    /// Whether the tool has a network namespace of its own.
    pub(super) fn is_isolated(&self) -> bool {
        matches!(self.merged.purpose, Purpose::Exec { isolated: Some(_), .. })
    }

    pub(super) fn isolated(&mut self, catch: &[u16], policies: &ListenerPolicies) -> Vec<ListenerSettings> {
        let ports = self.caught_ports(catch);
        if ports.len() > MOST_PORTS {
            self.problems.push(format!("--catch: {} ports are caught; at most {MOST_PORTS} can be", ports.len()));
        }
        if ports.is_empty() && self.options.route.is_empty() {
            self.problems.push("--isolate: no port leads to the proxy\nhint: set --allow HOST:PORT".into());
        }
        let listener = |port| ListenerSettings {
            name: format!("isolate {port}"),
            label: None,
            advertised: None,
            address: ListenAddress::Isolated((Ipv6Addr::UNSPECIFIED, port).into()),
            service: Service::Original(OriginalAddress::Accepted),
            tls: false,
            policies: policies.clone(),
        };
        ports.into_iter().map(listener).collect()
    }

    /// The ports of allowed destinations as a client writes them, and others to catch. A destination without a port may
    /// be asked for by the ports of `http://` and `https://`.
    fn caught_ports(&self, catch: &[u16]) -> BTreeSet<u16> {
        let pairs: Vec<_> = self.options.port_map.iter().filter_map(|text| parse_port_pair(text).ok()).collect();
        let mapped = |plain: u16| pairs.iter().find(|(from, _)| *from == plain).map(|(_, tls)| *tls);
        let is_reached = |plain: u16, tls: u16| match mapped(plain) {
            Some(mapped) => mapped == tls,
            None => plain == tls || plain == 80 && tls == 443,
        };
        let mut ports: BTreeSet<_> = catch.iter().copied().collect();
        for pattern in &self.options.allow {
            let tls = port_of(pattern).unwrap_or(443);
            let plain = pairs.iter().map(|(plain, _)| *plain).chain([80, tls]);
            ports.extend(plain.filter(|plain| is_reached(*plain, tls)));
        }
        ports
    }

    /// Listeners that nothing leads to.
    pub(super) fn unused_if_isolated(&mut self) {
        for (key, texts) in [("forward", &self.options.forward), ("transparent", &self.options.transparent)] {
            if !texts.is_empty() {
                let name = self.merged.name(key);
                self.warnings.push(format!("{name} has no effect: with --isolate every address leads to the proxy"));
            }
        }
    }
}
