//! Settings that can never apply. Those that would leave a server less strictly verified than they say are errors, the
//! others warnings; none is silent.

use clap::{Args as _, Command};

use crate::{
    logging::LogLevel,
    message::authority::{Authority, parse_port},
    proxy::{
        respond::AnswerPolicy,
        settings::{ListenAddress, ListenerSettings, Service},
    },
    route::policy::DestinationPolicy,
    text::show_value,
};

use super::{
    super::{
        args::{RunArgs, UpstreamOptions},
        merge::{ROUTE_PREFIX, VARIABLE_PREFIX},
        suggest::nearest,
    },
    Build,
    listeners::parse_route,
    values::{parse_allow, parse_port_pair, section_name},
};

/// Settings for an upstream that no route and no allowed destination leads to.
#[derive(Clone, Debug)]
pub(super) struct Unused {
    of: Authority,
    /// The setting.
    what: String,
    /// A hint for `run`.
    hint: String,
    /// Whether the server would be verified less strictly than configured. Else it is only reached by another address.
    is_about_trust: bool,
    /// Whether there are listeners, or the setting is on the command line. Else it may be meant for `check`.
    is_meant: bool,
}

impl Unused {
    /// What is wrong, if the setting matches none of `targets`, the servers of a command, either.
    pub(super) fn problem_among(&self, targets: &[Authority]) -> Option<String> {
        let is_used = targets.iter().any(|target| matches(&self.of, target));
        let hint = match nearest_authority(&self.of, targets) {
            Some(nearest) => format!("did you mean `{nearest}`?"),
            None => format!("add `{}` to the command line", self.of),
        };
        let problem = || {
            format!(
                "{} matches none of the servers given, no route and no allowed destination\nhint: {hint}",
                self.what
            )
        };
        (self.is_meant && !is_used).then(problem)
    }
}

impl Build<'_> {
    /// Reports every setting that can never apply.
    pub(super) fn unused(&mut self, listeners: &[ListenerSettings]) {
        for unused in self.unused_upstream_settings() {
            let messages = if unused.is_about_trust { &mut self.problems } else { &mut self.warnings };
            let problem = format!("{} matches no route and no allowed destination", unused.what);
            messages.push(format!("{problem}\nhint: {}", unused.hint));
        }
        self.shadowed_settings();
        self.unused_forward_settings();
        self.mapped_ports();
        self.unused_listener_settings(listeners);
        self.unused_section_settings();
        self.unused_crl_policy();
        self.unused_parent_settings();
        self.unknown_variables();
    }

    /// `--connect-to` and `[[upstream]]` for upstreams that nothing leads to.
    pub(super) fn unused_upstream_settings(&self) -> Vec<Unused> {
        let routes = self.options.routes();
        let routed: Result<Vec<_>, _> = routes.iter().map(|text| parse_route(text)).collect();
        let allowed: Result<Vec<_>, _> = self.options.allow.iter().map(|text| parse_allow(text)).collect();
        // Otherwise this would be one more message about the same mistake.
        let (Ok(routed), Ok(allowed)) = (routed, allowed) else { return Vec::new() };
        let policy = DestinationPolicy::new(if self.uses_policy() { allowed } else { Vec::new() });
        let routed: Vec<_> = routed.into_iter().map(|(_, authority)| with_port(authority)).collect();
        let leads_to =
            |of: &Authority| routed.iter().any(|server| matches(of, server)) || policy.could_allow(&of.host, of.port);
        let exact = self.options.allow.iter().filter_map(|text| text.parse::<Authority>().ok());
        let servers: Vec<_> = routed.iter().cloned().chain(exact.filter(|_| self.uses_policy())).collect();
        let mut unused = Vec::new();
        let has_listeners = self.has_listeners();
        let mut note = |of: Authority, what: String, is_about_trust: bool, is_meant: bool| {
            if !leads_to(&of) {
                let hint = hint_for(&of, &servers);
                unused.push(Unused { of, what, hint, is_about_trust, is_meant });
            }
        };
        for text in &self.options.connect_to {
            if let Some(Ok(of)) = text.split_once('=').map(|(of, _)| of.parse::<Authority>()) {
                let name = self.merged.name("connect_to");
                let what = format!("{name} `{}`: `{of}`", show_value(text));
                note(of, what, false, true);
            }
        }
        for section in &self.options.upstream {
            if let Ok(of) = section.of.parse::<Authority>() {
                let is_about_trust = section.is_about_tls() || section.verify_name.is_some() || section.sni.is_some();
                note(of, format!("`[[upstream]] of = \"{}\"`", show_value(&section.of)), is_about_trust, has_listeners);
            }
        }
        unused
    }

    /// Whether clients or redirects may choose destinations.
    fn uses_policy(&self) -> bool {
        let follow = self.options.listener.iter().any(|section| section.follow_redirects == Some(true));
        self.clients_choose() || self.options.follow_redirects == Some(true) || follow
    }

    /// Whether there are listeners whose clients choose destinations.
    fn clients_choose(&self) -> bool {
        !self.options.forward.is_empty() || !self.options.transparent.is_empty() || self.is_isolated()
    }

    /// Of two settings for the same upstream the first applies.
    fn shadowed_settings(&mut self) {
        // Each is read once: there may be thousands.
        let texts = &self.options.connect_to;
        let read = |text: &String| text.split_once('=').and_then(|(of, _)| of.parse::<Authority>().ok());
        let all: Vec<_> = texts.iter().map(read).collect();
        for (place, text) in texts.iter().enumerate() {
            let Some(this) = &all[place] else { continue };
            if all[..place].iter().flatten().any(|earlier| covers(earlier, this)) {
                self.problems.push(format!(
                    "{} `{}`: an earlier one for `{}` takes precedence\nhint: remove one of the two",
                    self.merged.name("connect_to"),
                    show_value(text),
                    this.host
                ));
            }
        }
        let sections = &self.options.upstream;
        let all: Vec<_> = sections.iter().map(|section| section.of.parse::<Authority>().ok()).collect();
        for (place, section) in sections.iter().enumerate() {
            let Some(this) = &all[place] else { continue };
            for (before, other) in sections[..place].iter().enumerate() {
                let covers = all[before].as_ref().is_some_and(|other| covers(other, this));
                for key in names_of(section).filter(|key| covers && names_of(other).any(|other| other == *key)) {
                    self.problems.push(format!(
                        "{}: {key}: that of section {} (`{}`) takes precedence\nhint: put the section for one port above that for all ports, or remove one of the two",
                        section_name(place + 1, section),
                        before + 1,
                        show_value(&other.of)
                    ));
                }
            }
        }
    }

    fn unused_forward_settings(&mut self) {
        if self.clients_choose() {
            if self.options.allow.is_empty() && !self.options.transparent.is_empty() {
                self.problems.push(
                    "no destination is allowed: a transparent listener would refuse every request\nhint: set --allow HOST[:PORT]"
                        .into(),
                );
            } else if self.options.allow.is_empty() && self.merged.is_set("forward") {
                self.warnings.push(
                    "no destination is allowed: forward listeners refuse every request\nhint: set --allow HOST[:PORT]"
                        .into(),
                );
            }
            return;
        }
        if !self.options.allow.is_empty() && !self.uses_policy() {
            let name = self.merged.name("allow");
            self.warnings.push(format!(
                "{name} has no effect: it is for forward listeners, and there is none\nhint: set --forward LISTEN"
            ));
        }
        let rewrites = self.options.rewrite_redirects != Some(false) || self.options.follow_redirects == Some(true);
        if !self.options.port_map.is_empty() && !rewrites {
            let name = self.merged.name("port_map");
            self.warnings
                .push(format!("{name} has no effect: it is for forward listeners and redirects, and neither is used"));
        }
    }

    /// Ports of `http://` destinations that are mapped to another port, where a setting has the former.
    fn mapped_ports(&mut self) {
        if !self.clients_choose() {
            return;
        }
        let pairs: Vec<_> = self.options.port_map.iter().filter_map(|text| parse_port_pair(text).ok()).collect();
        let mapped = |port: u16| {
            let pair = pairs.iter().find(|(plain, _)| *plain == port);
            pair.map_or(if port == 80 { 443 } else { port }, |(_, tls)| *tls)
        };
        let routes = self.options.routes();
        let routed: Vec<_> =
            routes.iter().filter_map(|text| parse_route(text).ok()).map(|(_, of)| with_port(of)).collect();
        let mut found = Vec::new();
        let mut note = |name: String, text: &str, of: &str| {
            let Some(port) = port_of(of).filter(|port| mapped(*port) != *port) else { return };
            let Some((host, _)) = of.rsplit_once(':') else { return };
            if !of.parse::<Authority>().is_ok_and(|of| routed.contains(&of)) {
                found.push(format!(
                    "{name} `{}`: port {port} of `http://` destinations is mapped to {tls}, so this applies to `https://` ones only\nhint: did you mean `{host}:{tls}`?",
                    show_value(text),
                    tls = mapped(port)
                ));
            }
        };
        for text in &self.options.allow {
            note(self.merged.name("allow"), text, text);
        }
        for text in &self.options.connect_to {
            note(self.merged.name("connect_to"), text, text.split('=').next().unwrap_or_default());
        }
        for section in &self.options.upstream {
            note("[[upstream]] of".into(), &section.of, &section.of);
        }
        self.warnings.append(&mut found);
    }

    fn unused_listener_settings(&mut self, listeners: &[ListenerSettings]) {
        if !self.options.accept_host.is_empty() && self.options.routes().is_empty() {
            let name = self.merged.name("accept_host");
            self.warnings.push(format!("{name} is for fixed routes, and there is none\nhint: set --route LISTEN=URL"));
        }
        let is_local = listeners.iter().all(|listener| match &listener.address {
            ListenAddress::Tcp(address) => address.ip().is_loopback(),
            ListenAddress::Unix { .. } | ListenAddress::Isolated(_) => true,
            // Where it is bound is not known yet.
            ListenAddress::Inherited { .. } => false,
        });
        if self.options.allow_nonlocal_listen == Some(true) && is_local && !listeners.is_empty() {
            let name = self.merged.name("allow_nonlocal_listen");
            self.warnings.push(format!("{name} has no effect: all listeners are on loopback addresses"));
        }
        let originals = listeners.iter().filter(|listener| matches!(listener.service, Service::Original(_))).count();
        if self.options.follow_redirects == Some(true) && originals > 0 && originals == listeners.len() {
            let name = self.merged.name("follow_redirects");
            self.warnings.push(format!("{name} has no effect: transparent listeners leave redirects to their clients"));
        }
        if self.merged.is_set("detail") && self.options.answer == Some(AnswerPolicy::Reset) {
            let name = self.merged.name("detail");
            self.warnings.push(format!("{name} has no effect: with `answer = \"reset\"` clients are told nothing"));
        }
        if let (Some(all), Some(each)) = (self.options.max_connections, self.options.max_listener_connections)
            && each > all
        {
            let [each_name, all_name] =
                ["max_listener_connections", "max_connections"].map(|key| self.merged.name(key));
            self.warnings.push(format!("{each_name} `{each}` has no effect: {all_name} is {all}"));
        }
        if self.merged.is_set("pool_idle_timeout") && self.options.pool_size == Some(0) {
            let name = self.merged.name("pool_idle_timeout");
            self.warnings.push(format!("{name} has no effect: with `pool_size = 0` no connection is kept"));
        }
        let is_quiet = matches!(self.options.log_level, Some(LogLevel::Error));
        if self.merged.is_set("fold_repeats") && is_quiet && self.options.audit_log.is_none() {
            let name = self.merged.name("fold_repeats");
            self.warnings.push(format!(
                "{name} has no effect: with `log_level = \"error\"` and without `audit_log` no audit events are written"
            ));
        }
    }

    fn unused_section_settings(&mut self) {
        for (place, section) in self.options.upstream.iter().enumerate() {
            let name = section_name(place + 1, section);
            if names_of(section).next().is_none() && !section.is_about_tls() {
                self.warnings.push(format!("{name}: the section sets nothing"));
            }
            if section.system_roots == Some(false)
                && section.ca_bundle.is_empty()
                && self.options.system_roots == Some(true)
            {
                self.problems.push(format!(
                    "{name}: system_roots: `false` removes nothing from the default bundle, which has the CAs of the system\nhint: set `ca_bundle` in the section too"
                ));
            }
            if section.identity.is_empty() {
                continue;
            }
            let ignored = [
                ("ca_bundle", !section.ca_bundle.is_empty()),
                ("system_roots", section.system_roots == Some(true)),
                ("crl", !section.crl.is_empty()),
                ("crl_policy", !section.crl_policy.is_empty()),
                // Without `sni` it is the name to send.
                ("verify_name", section.verify_name.is_some() && section.sni.is_some()),
            ];
            for (key, _) in ignored.into_iter().filter(|(_, is_set)| *is_set) {
                self.warnings.push(format!(
                    "{name}: {key} has no effect: `identity` names the certificate itself, so chain, name and revocation are not checked"
                ));
            }
        }
    }

    /// Rules about lists where there is no list.
    fn unused_crl_policy(&mut self) {
        let lists_anywhere =
            !self.options.crl.is_empty() || self.options.upstream.iter().any(|section| !section.crl.is_empty());
        if !self.options.crl_policy.is_empty() && !lists_anywhere {
            let name = self.merged.name("crl_policy");
            self.warnings.push(format!("{name} has no effect: no revocation list is configured\nhint: set --crl FILE"));
        }
        for (place, section) in self.options.upstream.iter().enumerate() {
            if !section.crl_policy.is_empty() && section.crl.is_empty() && self.options.crl.is_empty() {
                let name = section_name(place + 1, section);
                self.warnings.push(format!("{name}: crl_policy has no effect: no revocation list is configured"));
            }
        }
    }

    /// Variables with our prefix that no setting has.
    pub(super) fn unknown_variables(&mut self) {
        let flags = RunArgs::augment_args(Command::new(""));
        let known: Vec<_> = flags.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
        for (name, value) in self.environment.with_prefix(VARIABLE_PREFIX) {
            let is_of_exec = name.starts_with(ROUTE_PREFIX);
            if known.contains(&name) || is_of_exec || is_of_kubernetes(name, &value.to_string_lossy()) {
                continue;
            }
            let key = name[VARIABLE_PREFIX.len()..].to_ascii_lowercase();
            let upper = name.to_ascii_uppercase();
            let is_ours = known.contains(&upper.as_str());
            let hint = if !is_ours && (key == "upstream" || UpstreamOptions::KEYS.contains(&key.as_str())) {
                "\nhint: settings for single upstreams are in `[[upstream]]` sections of the configuration file".into()
            } else {
                let nearest = nearest(&upper, known.iter().copied().filter(|known| is_similar(&upper, known)));
                nearest.map_or_else(String::new, |nearest| format!("\nhint: did you mean `{nearest}`?"))
            };
            self.warnings.push(format!("the variable {name} has no effect: there is no such setting{hint}"));
        }
    }
}

/// The port of `HOST:PORT`, or of a pattern with one.
pub(super) fn port_of(pattern: &str) -> Option<u16> {
    match pattern.strip_prefix('*') {
        Some(rest) => parse_port(rest.rsplit_once(':')?.1),
        None => pattern.parse::<Authority>().ok()?.port,
    }
}

/// All names begin alike, so only the rest tells whether two are similar.
fn is_similar(name: &str, known: &str) -> bool {
    let rest = |name: &str| name.trim_start_matches(VARIABLE_PREFIX).to_owned();
    let known = rest(known);
    nearest(&rest(name), [known.as_str()]).is_some()
}

/// Whether Kubernetes may have set this variable: it does in every container, for a service called `vouchsafe…`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let is_part_of_url = ["TCP", "UDP", "SCTP"].iter().any(|protocol| {
        let parts = ["PROTO", "PORT", "ADDR"].map(|part| format!("_{protocol}_{part}"));
        parts.iter().any(|part| name.ends_with(part))
    });
    is_url || is_part_of_url || name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT")
}

/// Whether a setting for `of` applies to a server.
fn matches(of: &Authority, server: &Authority) -> bool {
    of.host == server.host && (of.port.is_none() || server.port.is_none() || of.port == server.port)
}

/// Whether every server that `other` applies to is one of `of`.
fn covers(of: &Authority, other: &Authority) -> bool {
    of.host == other.host && (of.port.is_none() || of.port == other.port)
}

fn with_port(authority: Authority) -> Authority {
    Authority { port: authority.port.or(Some(443)), ..authority }
}

/// The keys of a section that are about names and addresses.
fn names_of(section: &UpstreamOptions) -> impl Iterator<Item = &'static str> {
    let keys = [
        ("connect_to", section.connect_to.is_some()),
        ("verify_name", section.verify_name.is_some()),
        ("sni", section.sni.is_some()),
        ("parent_proxy", section.parent_proxy.is_some()),
    ];
    keys.into_iter().filter_map(|(key, is_set)| is_set.then_some(key))
}

fn nearest_authority(of: &Authority, servers: &[Authority]) -> Option<String> {
    if let Some(same_host) = servers.iter().find(|server| server.host == of.host) {
        return Some(same_host.to_string());
    }
    let hosts: Vec<_> = servers.iter().map(|server| server.host.in_authority()).collect();
    let nearest = nearest(&of.host.in_authority(), hosts.iter().map(String::as_str))?;
    let server = servers.iter().find(|server| server.host.in_authority() == nearest)?;
    Some(match of.port {
        Some(_) => server.to_string(),
        None => nearest.to_owned(),
    })
}

fn hint_for(of: &Authority, servers: &[Authority]) -> String {
    if let Some(nearest) = nearest_authority(of, servers) {
        return format!("did you mean `{nearest}`?");
    }
    match servers {
        [] => "set a --route to it, or --forward and --allow".into(),
        servers => {
            let shown: Vec<_> = servers.iter().take(5).map(|server| format!("`{server}`")).collect();
            format!("configured are {}", shown.join(", "))
        }
    }
}
