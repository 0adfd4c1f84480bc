//! From destinations to upstreams: routes, allowed destinations, port map, and settings for single upstreams.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use crate::{
    connect::ConnectLimits,
    message::authority::Authority,
    route::{
        policy::{Allow, DestinationPolicy},
        table::{Routes, UpstreamSettings},
    },
    text::show_value,
    tls::{client::TlsSettings, identity::ReferenceId},
};

use super::{
    super::{
        args::{RewriteScope, RunArgs, UpstreamOptions},
        environment::Environment,
        error::ConfigError,
        merge::MergedOptions,
        watch::Files,
    },
    Build,
    listeners::{parse_route, without_tls},
    unused::Unused,
    values::{parse_allow, parse_authority, parse_port_pair, reference, section_name},
};

/// What commands need that connect to upstreams and have no listeners.
#[derive(Clone, Debug)]
pub struct UpstreamConfig {
    /// From destinations to upstreams.
    pub routes: Arc<Routes>,
    /// Limits on connecting.
    pub connect: ConnectLimits,
    /// The servers that the configuration names: those of fixed routes, then those of sections with a port.
    pub servers: Vec<Authority>,
    /// What clients of the listeners can reach.
    pub served: ServedBy,
    /// What is odd, but not an error.
    pub warnings: Vec<String>,
    /// Settings for upstreams that no route and no allowed destination leads to.
    unused: Vec<Unused>,
}

impl UpstreamConfig {
    /// Merges all sources of settings, and reads the files that they name.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn of(args: RunArgs, environment: &Environment) -> Result<Self, ConfigError> {
        let mut files = Files::at_start();
        let merged = MergedOptions::of(args, &mut files)?;
        let mut build = Build::new(&merged, environment, &mut files);
        let routes = build.routes();
        // A bundle with the local CA in it is refused here, too.
        build.minter(routes.as_ref());
        let connect = build.connect_limits();
        let servers = build.servers();
        let served = build.served();
        let unused = build.unused_upstream_settings();
        build.unknown_variables();
        let warnings = std::mem::take(&mut build.warnings);
        ConfigError::unless_empty(build.problems)?;
        let routes = Arc::new(routes.ok_or_else(|| ConfigError::one("no CA bundle is configured"))?);
        Ok(Self { routes, connect, servers, served, warnings, unused })
    }

    /// What is wrong with settings that match none of `targets`, no route and no allowed destination.
    pub fn unused(&self, targets: &[Authority]) -> Vec<String> {
        self.unused.iter().filter_map(|unused| unused.problem_among(targets)).collect()
    }
}

/// What clients of the listeners of a configuration can reach.
#[derive(Clone, Debug)]
pub struct ServedBy {
    /// Where each fixed route listens, and its server.
    pub routes: Vec<(SocketAddr, Authority)>,
    /// Whether there is a forward listener.
    pub forward: bool,
    /// Where its clients may go.
    pub policy: DestinationPolicy,
    /// Whether catalogs are rewritten.
    pub rewrites_catalog: bool,
}

impl Build<'_> {
    /// What the listeners serve. What cannot be read was a problem before.
    fn served(&self) -> ServedBy {
        let options = self.options;
        let routes = options.routes();
        let routes = routes.iter().filter_map(|text| {
            let (listen, server) = parse_route(text).ok()?;
            let listen = without_tls(listen);
            let listen = listen.replace("localhost", "127.0.0.1").parse().ok()?;
            Some((listen, Authority { port: server.port.or(Some(443)), ..server }))
        });
        ServedBy {
            routes: routes.collect(),
            forward: !options.forward.is_empty(),
            policy: DestinationPolicy::new(options.allow.iter().filter_map(|text| parse_allow(text).ok()).collect()),
            rewrites_catalog: options.rewrite.contains(&RewriteScope::Catalog),
        }
    }

    pub(super) fn routes(&mut self) -> Option<Routes> {
        let default = self.default_tls();
        let tls = default.clone().and_then(|default| self.tls_client(default));
        let allows: Vec<Allow> = self.each(&self.merged.name("allow"), &self.options.allow, parse_allow);
        let policy = DestinationPolicy::new(allows);
        if policy.allows_everything() {
            let name = self.merged.name("allow");
            self.warnings.push(format!("{name} `*`: clients may reach every host, except for special addresses"));
        }
        let ports = self.port_map();
        let parents = self.parents(default.as_ref(), &policy);
        let mut upstreams = self.each(&self.merged.name("connect_to"), &self.options.connect_to, parse_connect_to);
        for (place, section) in self.options.upstream.iter().enumerate() {
            upstreams.extend(self.upstream(place + 1, section, default.as_ref()));
        }
        self.one_section_with_tls();
        Some(Routes { policy, ports, tls: tls?, parents, upstreams })
    }

    fn port_map(&mut self) -> HashMap<u16, u16> {
        let name = self.merged.name("port_map");
        let mut map = HashMap::new();
        for (plain, tls) in self.each(&name, &self.options.port_map, parse_port_pair) {
            if map.insert(plain, tls).is_some_and(|other| other != tls) {
                self.problems.push(format!("{name}: port {plain} is mapped to two ports"));
            }
        }
        map
    }

    fn upstream(
        &mut self,
        number: usize,
        section: &UpstreamOptions,
        default: Option<&TlsSettings>,
    ) -> Option<UpstreamSettings> {
        let what = section_name(number, section);
        let problem = |key: &str, error: &dyn std::fmt::Display| format!("{what}: {key}: {error}");
        let of = parse_authority(&section.of).map_err(|error| problem("of", &error));
        let of = self.take(of);
        let connect_to =
            section.connect_to.as_ref().map(|to| parse_authority(to).map_err(|error| problem("connect_to", &error)));
        let connect_to = connect_to.and_then(|to| self.take(to));
        let verify_name =
            section.verify_name.as_ref().map(|name| reference(name).map_err(|error| problem("verify_name", &error)));
        let verify_name = verify_name.and_then(|name| self.take(name));
        let sni = section.sni.as_ref().map(|name| match reference(name) {
            Ok(ReferenceId::Dns(name)) => Ok(name.as_ref().to_owned()),
            Ok(ReferenceId::Ip(ip)) => {
                Err(problem("sni", &format!("`{ip}`: an address is never sent as SNI\nhint: remove `sni`")))
            }
            Err(error) => Err(problem("sni", &error)),
        });
        let sni = sni.and_then(|sni| self.take(sni));
        let own = self.own_tls(&what, section, default);
        let tls = own.and_then(|own| self.tls_client(own));
        let parent = self.parent_choice(&what, section, default);
        Some(UpstreamSettings { of: of?, connect_to, verify_name, sni, tls, parent })
    }

    /// The servers that routes and sections name. One that cannot be parsed was a problem before.
    fn servers(&mut self) -> Vec<Authority> {
        let routed = self.each(&self.merged.name("route"), &self.options.route, |text| {
            parse_route(text).map(|(_, authority)| authority)
        });
        let mut mirrored = Vec::new();
        for (text, routes) in self.options.mirrors() {
            let routes = routes.and_then(|routes| {
                routes
                    .iter()
                    .map(|text| parse_route(text).map(|(_, authority)| authority))
                    .collect::<Result<Vec<_>, _>>()
            });
            let routes = routes.map_err(|why| format!("{} `{}`: {why}", self.merged.name("mirror"), show_value(&text)));
            mirrored.extend(self.take(routes).into_iter().flatten());
        }
        let sections = self.options.upstream.iter().filter_map(|section| section.of.parse::<Authority>().ok());
        let mut servers: Vec<Authority> = Vec::new();
        for authority in routed.into_iter().chain(mirrored).chain(sections.filter(|of| of.port.is_some())) {
            let authority = Authority { port: authority.port.or(Some(443)), ..authority };
            if !servers.contains(&authority) {
                servers.push(authority);
            }
        }
        servers
    }
}

fn parse_connect_to(text: &str) -> Result<UpstreamSettings, String> {
    let (of, to) = text.split_once('=').ok_or("two hosts are expected, as in `glance.example:9292=127.0.0.1:9292`")?;
    let (of, to) = (parse_authority(of)?, parse_authority(to)?);
    Ok(UpstreamSettings { of, connect_to: Some(to), verify_name: None, sni: None, tls: None, parent: None })
}
