//! Listeners: fixed routes, forward listeners, and those for redirected connections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{
    config::{
        args::{ListenerOptions, Options, RewriteScope},
        merge::FORWARD_OF_TOOL,
    },
    message::{
        authority::{Authority, Host, parse_port},
        url::{self, Origin},
    },
    proxy::settings::{ListenAddress, ListenerPolicies, ListenerSettings, OriginalAddress, Service},
    rewrite::Scopes,
    route::table::{RouteError, Routes},
    text::show_value,
};

use super::{
    super::args::Purpose,
    Build,
    values::{bare_host, without_scheme},
};

impl Build<'_> {
    /// All listeners; those of routes only if `routes` could be built.
    pub(super) fn listeners(&mut self, routes: Option<&Routes>) -> Vec<ListenerSettings> {
        let mut listeners = Vec::new();
        let policies = self.policies();
        self.sections();
        for text in &self.options.route {
            let listener = self.route(text, routes, &policies);
            let listener =
                listener.map_err(|why| format!("{} `{}`: {why}", self.merged.name("route"), show_value(text)));
            listeners.extend(self.take(listener).flatten());
        }
        for (text, routes_of_mirror) in self.options.mirrors() {
            let read = |of: &String| self.route(of, routes, &policies);
            let all = routes_of_mirror.and_then(|all| all.iter().map(read).collect::<Result<Vec<_>, _>>());
            let all = all.map_err(|why| format!("{} `{}`: {why}", self.merged.name("mirror"), show_value(&text)));
            listeners.extend(self.take(all).into_iter().flatten().flatten());
        }
        if let Purpose::Exec { isolated: Some(catch), .. } = &self.merged.purpose {
            listeners.extend(self.isolated(catch, &policies));
            self.unused_if_isolated();
            return self.checked(listeners);
        }
        let forward = self.options.forward.iter().map(String::as_str);
        for text in forward.chain(self.forward_of_tool()) {
            let listener = self.listen(text).map(|address| ListenerSettings {
                name: format!("forward {text}"),
                label: None,
                address,
                advertised: None,
                service: Service::Forward,
                tls: false,
                policies: self.policies_of(text, &policies),
            });
            let listener =
                listener.map_err(|why| format!("{} `{}`: {why}", self.merged.name("forward"), show_value(text)));
            listeners.extend(self.take(listener));
        }
        for text in &self.options.transparent {
            let addresses = self.transparent(text);
            let addresses =
                addresses.map_err(|why| format!("{} `{}`: {why}", self.merged.name("transparent"), show_value(text)));
            let own = self.policies_of(text, &policies);
            let listener = |address: ListenAddress| ListenerSettings {
                name: format!("transparent {address}"),
                label: None,
                address,
                advertised: None,
                service: Service::Original(OriginalAddress::Redirected),
                tls: false,
                policies: own.clone(),
            };
            listeners.extend(self.take(addresses).unwrap_or_default().into_iter().map(listener));
        }
        self.advertise(&mut listeners, routes.is_some());
        if listeners.is_empty() && !self.has_listeners() {
            self.problems.push("no listener is configured\nhint: set --route LISTEN=URL or --forward LISTEN".into());
        }
        self.checked(listeners)
    }

    /// Reports listeners that get in each other's way.
    fn checked(&mut self, listeners: Vec<ListenerSettings>) -> Vec<ListenerSettings> {
        for (place, listener) in listeners.iter().enumerate() {
            let label = listener.label.as_ref();
            // Their variables have `_` for `-`, and upper case.
            let variable = |label: &String| label.replace('-', "_").to_ascii_uppercase();
            let earlier =
                |label| listeners[..place].iter().filter_map(|l| l.label.as_ref()).find(|l| variable(l) == label);
            if let Some((label, other)) = label.and_then(|label| Some((label, earlier(variable(label))?))) {
                self.problems.push(match label == other {
                    true => format!("`{label}` is the name of two routes"),
                    false => format!("the routes `{other}` and `{label}` would have the same variables for the tool\nhint: rename one of them"),
                });
            }
            let twin = listeners[..place].iter().find(|other| other.address == listener.address);
            let is_any_port = listener.address.tcp().is_some_and(|address| address.port() == 0);
            if let Some(twin) = twin.filter(|_| !is_any_port) {
                self.problems.push(format!(
                    "{} is configured for two listeners: `{}` and `{}`",
                    listener.address, twin.name, listener.name
                ));
            }
        }
        listeners
    }

    /// Tells listeners how clients reach them. `complete`: every listener is there that could be read.
    fn advertise(&mut self, listeners: &mut [ListenerSettings], complete: bool) {
        for text in &self.options.advertise {
            // A route that could not be read was a problem before.
            let is_known = |listen: &str| self.routed().iter().any(|known| known == listen);
            let set = parse_advertise(text).and_then(|(listen, Origin { https, authority })| {
                match listeners.iter_mut().find(|listener| listener.name == format!("route {listen}")) {
                    Some(listener) if listener.advertised.is_some() => {
                        return Err("an earlier one is for the same listener\nhint: remove one of the two".into());
                    }
                    Some(listener) if listener.tls && !https => {
                        return Err(format!("the clients of this route speak TLS\nhint: write `https://{authority}`"));
                    }
                    Some(listener) if https && !listener.tls => {
                        return Err(format!(
                            "the clients of this route speak plain HTTP\nhint: write `http://{authority}`, or `tls://` before the address, here and in --route"
                        ));
                    }
                    Some(listener) => listener.advertised = Some(authority),
                    None if complete && !is_known(listen) => {
                        let bare = without_tls(listen);
                        let other = if bare == listen { format!("tls://{listen}") } else { bare.to_owned() };
                        let listen = show_value(listen);
                        return Err(match is_known(&other) {
                            true => format!("no route listens on {listen}\nhint: write `{other}`, as in --route"),
                            false => {
                                format!("no route listens on {listen}\nhint: remove it, or add --route {listen}=URL")
                            }
                        });
                    }
                    None => {}
                }
                Ok(())
            });
            let set = set.map_err(|why| format!("{} `{}`: {why}", self.merged.name("advertise"), show_value(text)));
            self.take(set);
        }
    }

    /// The policies of every listener.
    fn policies(&mut self) -> ListenerPolicies {
        let accept_host = self.each(&self.merged.name("accept_host"), &self.options.accept_host, parse_accept_host);
        let scopes = self.options.rewrite.as_slice();
        if !is_consistent(scopes) {
            let name = self.merged.name("rewrite");
            self.problems.push(format!("{name}: `none` excludes the others\nhint: remove it, or the others"));
        }
        let options = self.options;
        ListenerPolicies {
            answer: options.answer.unwrap_or_default(),
            detail: options.detail.unwrap_or_default(),
            host: options.host.unwrap_or_default(),
            field_case: options.field_case.unwrap_or_default(),
            rewrite_redirects: options.rewrite_redirects.unwrap_or(true),
            rewrite: rewritten(scopes),
            follow_redirects: options.follow_redirects.unwrap_or(false),
            accept_host,
        }
    }

    /// The policies of one listener, by its section if it has one.
    fn policies_of(&self, listen: &str, all: &ListenerPolicies) -> ListenerPolicies {
        let is_for_it = |section: &&ListenerOptions| without_mode(&section.of) == without_mode(listen);
        let Some(own) = self.options.listener.iter().find(is_for_it) else { return all.clone() };
        // One that cannot be read was a problem before.
        let accept_host: Vec<_> = own.accept_host.iter().filter_map(|text| parse_accept_host(text).ok()).collect();
        ListenerPolicies {
            answer: own.answer.unwrap_or(all.answer),
            detail: own.detail.unwrap_or(all.detail),
            host: own.host.unwrap_or(all.host),
            field_case: own.field_case.unwrap_or(all.field_case),
            rewrite_redirects: own.rewrite_redirects.unwrap_or(all.rewrite_redirects),
            rewrite: if own.rewrite.is_empty() { all.rewrite } else { rewritten(&own.rewrite) },
            follow_redirects: own.follow_redirects.unwrap_or(all.follow_redirects),
            accept_host: if accept_host.is_empty() { all.accept_host.clone() } else { accept_host },
        }
    }

    /// Where fixed routes listen, as they were written.
    fn routed(&self) -> Vec<String> {
        let mirrored = self.options.mirrors().into_iter().filter_map(|(_, routes)| routes.ok()).flatten();
        let listen = |text: String| Some(without_mode(parse_route(&text).ok()?.0).to_owned());
        self.options.route.iter().cloned().chain(mirrored).filter_map(listen).collect()
    }

    /// What is wrong with the `[[listener]]` sections themselves.
    fn sections(&mut self) {
        let options = self.options;
        let routes = self.routed();
        let names = |texts: &[String]| texts.iter().map(|text| without_mode(text).to_owned()).collect::<Vec<_>>();
        let others = [names(&options.forward), names(&options.transparent)].concat();
        for (place, section) in options.listener.iter().enumerate() {
            let name = format!("[[listener]] {} (`{}`)", place + 1, show_value(&section.of));
            self.each(&format!("{name}: accept_host"), &section.accept_host, parse_accept_host);
            let of = without_mode(&section.of).to_owned();
            if !routes.contains(&of) && !others.contains(&of) {
                let known: Vec<_> =
                    routes.iter().chain(&others).map(|listen| format!("`{}`", show_value(listen))).collect();
                let known = if known.is_empty() {
                    "there is no listener".into()
                } else {
                    format!("the listeners are {}", known.join(", "))
                };
                self.problems.push(format!("{name}: no listener has this address\nhint: {known}"));
            } else if options.listener[..place].iter().any(|other| without_mode(&other.of) == of) {
                self.problems.push(format!("{name}: an earlier section is for the same listener\nhint: merge the two"));
            }
            if section.values().len() == 1 {
                self.warnings.push(format!("{name}: the section sets nothing"));
            }
            if !section.accept_host.is_empty() && others.contains(&of) {
                self.warnings.push(format!("{name}: accept_host has no effect: it is for fixed routes"));
            }
            if !is_consistent(&section.rewrite) {
                self.problems
                    .push(format!("{name}: rewrite: `none` excludes the others\nhint: remove it, or the others"));
            }
        }
    }

    fn route(
        &self,
        text: &str,
        routes: Option<&Routes>,
        policies: &ListenerPolicies,
    ) -> Result<Option<ListenerSettings>, String> {
        let (listen, authority) = parse_route(text)?;
        let bare = without_tls(listen);
        let tls = bare != listen;
        let (label, address) = match self.merged.purpose {
            Purpose::Exec { .. } if is_label(bare) => (Some(bare.to_owned()), ListenAddress::Tcp(FREE_PORT)),
            _ => (None, self.listen(bare)?),
        };
        if tls && matches!(address, ListenAddress::Unix { .. }) {
            return Err("TLS is served at TCP listeners only\nhint: remove `tls://`".into());
        }
        let Some(routes) = routes else { return Ok(None) };
        let upstream = routes.fixed(&authority.host, authority.port.unwrap_or(443)).map_err(|error| match error {
            RouteError::Name(name) => format!("`{name}` is not a name that a certificate can have"),
            // A fixed route needs no allowance.
            _ => format!("{authority} is not allowed"),
        })?;
        let name = format!("route {listen}");
        let (service, policies) = (Service::Fixed(Box::new(upstream)), self.policies_of(listen, policies));
        let address = match address {
            ListenAddress::Tcp(address) if self.is_isolated() => ListenAddress::Isolated(address),
            address => address,
        };
        Ok(Some(ListenerSettings { name, label, address, advertised: None, service, tls, policies }))
    }

    /// A forward listener in addition to those that are configured: `http_proxy` cannot name a UNIX socket, and without
    /// `http_proxy` the tool would go past the proxy.
    fn forward_of_tool(&self) -> Option<&'static str> {
        let is_needed = matches!(self.merged.purpose, Purpose::Exec { isolated: None, .. })
            && self.options.forward.iter().all(|text| text.starts_with("unix:"));
        is_needed.then_some(FORWARD_OF_TOOL)
    }

    /// Whether any listener is configured, valid or not.
    pub(super) fn has_listeners(&self) -> bool {
        let Options { route, mirror, forward, transparent, .. } = self.options;
        [route, mirror, forward, transparent].iter().any(|texts| !texts.is_empty())
    }

    /// The addresses of a transparent listener. On one host the kernel redirects to loopback, to that of the
    /// connection's family.
    fn transparent(&self, text: &str) -> Result<Vec<ListenAddress>, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = listen_port(text)?;
            let both = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
            return Ok(both.map(|ip| ListenAddress::Tcp((ip, port).into())).into());
        }
        match self.listen(text)? {
            ListenAddress::Unix { .. } => Err("connections cannot be redirected to a UNIX socket".into()),
            address => Ok(vec![address]),
        }
    }

    fn listen(&self, text: &str) -> Result<ListenAddress, String> {
        if let Some(rest) = text.strip_prefix("unix:") {
            return unix_socket(rest);
        }
        if let Some(name) = text.strip_prefix("fd:") {
            if self.merged.purpose != Purpose::Run {
                return Err(
                    "`exec` takes no sockets of systemd; only `run` does\nhint: write an address and a port, as in `127.0.0.1:19292`"
                        .into(),
                );
            }
            return match is_socket_name(name) {
                true => {
                    let allow_nonlocal = self.options.allow_nonlocal_listen == Some(true);
                    Ok(ListenAddress::Inherited { name: name.into(), allow_nonlocal })
                }
                false => Err("the name of a socket is expected, as in `fd:glance-a`, of 1 to 255 characters".into()),
            };
        }
        self.listen_tcp(text).map(ListenAddress::Tcp)
    }

    fn listen_tcp(&self, text: &str) -> Result<SocketAddr, String> {
        let address = tcp_address(text)?;
        if !address.ip().is_loopback() && self.options.allow_nonlocal_listen != Some(true) {
            return Err(format!(
                "{} can be reached from other hosts, and clients speak plain text to it\nhint: listen on 127.0.0.1, or set --allow-nonlocal-listen",
                address.ip()
            ));
        }
        Ok(address)
    }
}

/// Reads `ADDRESS:PORT`.
pub(super) fn tcp_address(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = text.rsplit_once(':').ok_or("an address and a port are expected, as in `127.0.0.1:19292`")?;
    let port = listen_port(port)?;
    if host.is_empty() {
        return Err(format!("the address before the port is missing\nhint: write `127.0.0.1:{port}`"));
    }
    let ip = match host.parse::<Host>() {
        Ok(Host::Ip(ip)) => ip,
        Ok(Host::Name(name)) if name.as_str() == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => {
            return Err(format!(
                "`{}` is not an IP address to listen on",
                show_value(format!("{host}:")).trim_end_matches(':')
            ));
        }
    };
    Ok(SocketAddr::new(ip, port))
}

/// Where a route with a name listens.
const FREE_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Whether the text names a route of `exec`: a letter, then letters, digits, `-` and `_`.
fn is_label(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The documents that are rewritten.
fn rewritten(scopes: &[RewriteScope]) -> Scopes {
    let has = |scope| scopes.contains(&scope);
    Scopes {
        catalog: has(RewriteScope::Catalog),
        versions: has(RewriteScope::Versions),
        pages: has(RewriteScope::Pages),
    }
}

/// `none` goes with no other.
fn is_consistent(scopes: &[RewriteScope]) -> bool {
    scopes.len() == 1 || !scopes.contains(&RewriteScope::None)
}

/// Who may connect to a UNIX socket that is configured without a mode: its owner.
const OWNER_ONLY: u32 = 0o600;

/// Bytes of the longest path of a UNIX socket (unix(7)).
const LONGEST_PATH: usize = 107;

/// Reads `PATH[,mode=MODE]`.
pub(super) fn unix_socket(text: &str) -> Result<ListenAddress, String> {
    let (path, mode) = match text.split_once(",mode=") {
        None => (text, OWNER_ONLY),
        Some((path, digits)) => {
            let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777 && digits.len() <= 4);
            let digits = show_value(digits);
            (path, mode.ok_or_else(|| format!("mode `{digits}`: octal permissions are expected, as in `mode=0660`"))?)
        }
    };
    match path.len() {
        0 => Err("a path is expected, as in `unix:/run/vouchsafe/glance-a.sock`".into()),
        1..=LONGEST_PATH => Ok(ListenAddress::Unix { path: path.into(), mode }),
        length => Err(format!("its path has {length} bytes, and that of a UNIX socket may have {LONGEST_PATH}")),
    }
}

/// Whether systemd could name a socket so (sd_listen_fds(3)).
fn is_socket_name(name: &str) -> bool {
    (1..=255).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

/// Where a route listens, without what says that its clients speak TLS.
pub(super) fn without_tls(listen: &str) -> &str {
    listen.strip_prefix("tls://").unwrap_or(listen)
}

/// The address of a listener as sections refer to it: of a UNIX socket, without its mode.
fn without_mode(listen: &str) -> &str {
    match listen.strip_prefix("unix:").and_then(|_| listen.split_once(",mode=")) {
        Some((path, _)) => path,
        None => listen,
    }
}

/// Reads where a listener is, and how clients reach it.
fn parse_advertise(text: &str) -> Result<(&str, Origin), String> {
    const EXPECTED: &str =
        "a listener and a URL without a path are expected, as in `0.0.0.0:9292=http://proxy.example:19292`";
    if text.starts_with("unix:") {
        return Err("a UNIX socket has no URL by which links could lead to it".into());
    }
    let (listen, url) = text.split_once('=').ok_or(EXPECTED)?;
    match url::split(url) {
        Some((origin, "" | "/")) => Ok((listen, origin)),
        _ => Err(EXPECTED.into()),
    }
}

/// Reads a name that clients may use for a fixed route.
pub(super) fn parse_accept_host(text: &str) -> Result<Host, String> {
    text.parse::<Host>().map_err(|error| match bare_host(text) {
        Some(bare) => format!("a name without scheme and port is expected\nhint: write `{bare}`"),
        None => error.to_string(),
    })
}

/// The port of a listener; 0 asks the system for a free one.
fn listen_port(text: &str) -> Result<u16, String> {
    if text == "0" {
        return Ok(0);
    }
    parse_port(text).ok_or_else(|| match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => format!("port {text} is not within 1-65535"),
        false => "the port is not a number within 1-65535".into(),
    })
}

/// Reads a fixed route: where to listen, and the server.
pub(super) fn parse_route(text: &str) -> Result<(&str, Authority), String> {
    // A path may have a `=` in it, and so has its mode.
    let url = Some(text).filter(|text| text.starts_with("unix:")).and_then(|text| text.find("=http"));
    let (listen, url) = url
        .map_or_else(|| text.split_once('='), |at| Some((&text[..at], &text[at + 1..])))
        .ok_or("an address and a URL are expected, as in `127.0.0.1:19292=https://glance.example:9292`")?;
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if !scheme.eq_ignore_ascii_case("https") {
        return Err(not_https(listen, url, scheme));
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("a route names a server; the client chooses the path".into());
    }
    let authority = authority.parse::<Authority>().map_err(|error| error.to_string())?;
    Ok((listen, authority))
}

fn not_https(listen: &str, url: &str, scheme: &str) -> String {
    let shown = show_value(url);
    if without_tls(listen).contains("://") {
        let server = show_value(without_scheme(listen));
        return format!("the order is LISTEN=URL\nhint: write `{shown}=https://{server}`");
    }
    match scheme {
        "" => match url.parse::<Authority>() {
            Ok(authority) => format!("`{shown}` is not an `https://` URL\nhint: write `{listen}=https://{authority}`"),
            Err(_) => format!("`{shown}` is not an `https://` URL"),
        },
        _ if scheme.eq_ignore_ascii_case("http") => {
            "requests are never sent upstream in plain text; an `https://` URL is expected".into()
        }
        _ => format!("`{shown}` is not an `https://` URL"),
    }
}
