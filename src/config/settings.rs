//! [`Settings`]: what is true. Built whole or not at all; every problem is reported in one go.

use std::{
    collections::HashMap,
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use crate::{
    audit::sink::Form,
    clock::Clock,
    connect::{
        ConnectLimits,
        pool::{PoolLimits, ResponseLimits},
    },
    logging::{LogFormat, LogLevel},
    message::authority::{Authority, Host, parse_port},
    proxy::{FieldCase, ProxySettings, Service, ids},
    route::{
        policy::{Allow, DestinationPolicy},
        table::{RouteError, Routes, UpstreamSettings},
        upstream::TrustHandle,
    },
    server::connection::ClientLimits,
    tls::{client::TlsClient, crl::Crls, identity::ReferenceId, judge::Trust, trust::TrustAnchors},
};

use super::{
    args::{Options, Preset, RunArgs, Span, UpstreamOptions},
    error::ConfigError,
    load,
};

/// All that the program relies on.
#[derive(Debug)]
pub struct Settings {
    /// The listeners, in the order they were said.
    pub listeners: Vec<ListenerSettings>,
    /// The way of a request.
    pub proxy: ProxySettings,
    /// From destinations to upstreams.
    pub routes: Arc<Routes>,
    /// Limits on clients.
    pub client: ClientLimits,
    /// Limits on the way out.
    pub connect: ConnectLimits,
    /// Where audit events go, beside stderr.
    pub audit_log: Option<PathBuf>,
    /// The log.
    pub log: LogSettings,
    /// Worker threads.
    pub threads: usize,
    /// For what runs when the end comes.
    pub drain: Duration,
    /// Written when ready.
    pub ready_file: Option<PathBuf>,
    /// Said at start, as warnings.
    pub warnings: Vec<String>,
    /// The wall clock.
    pub clock: Clock,
}

/// A listener to bind.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Its name in logs: what the operator wrote.
    pub name: String,
    /// Where.
    pub address: SocketAddr,
    /// To whom.
    pub service: Service,
}

/// The log.
#[derive(Clone, Copy, Debug)]
pub struct LogSettings {
    /// Text or JSON.
    pub format: LogFormat,
    /// How much.
    pub level: LogLevel,
    /// One event per request.
    pub access: bool,
}

impl LogSettings {
    fn of(options: &Options) -> Self {
        Self {
            format: options.log_format.unwrap_or_else(LogFormat::fitting),
            level: options.log_level.unwrap_or(LogLevel::Info),
            access: options.access_log.unwrap_or(true),
        }
    }

    /// How audit events are copied to stderr: a refusal is a warning.
    pub fn audit_copy(&self) -> Option<Form> {
        match (self.level, self.format) {
            (LogLevel::Error, _) => None,
            (_, LogFormat::Json) => Some(Form::Json),
            (_, LogFormat::Text) => Some(Form::Text),
        }
    }
}

/// Where the default bundle may be named, first that is set wins: after the flag, its variable and the file.
const BUNDLE_VARIABLES: [&str; 5] =
    ["OS_CACERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"];

impl Settings {
    /// Puts flags, variables, file and preset together, and reads what they name.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn of(args: RunArgs, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let file = args.config.as_deref().map(load::file).transpose()?.unwrap_or_default();
        let bundle_said_by = match (&args.config, args.options.ca_bundle.is_empty()) {
            (Some(path), true) => format!("{}: ca_bundle", path.display()),
            _ if is_of_variable(&args.options.ca_bundle, variable("VOUCHSAFE_CA_BUNDLE")) => {
                "VOUCHSAFE_CA_BUNDLE".into()
            }
            _ => "--ca-bundle".into(),
        };
        let options = layered(args.options, file);
        let mut problems = Vec::new();
        let mut build = Build {
            options: &options,
            bundle_said_by,
            problems: &mut problems,
            warnings: Vec::new(),
            clock: Clock::System,
        };
        let routes = build.routes(&variable);
        let listeners = build.listeners(routes.as_ref());
        let limits = build.limits();
        let warnings = std::mem::take(&mut build.warnings);
        let (proxy, client, connect, threads) = limits;
        let log = LogSettings::of(&options);
        ConfigError::unless_empty(problems)?;
        let Some(routes) = routes else {
            return Err(ConfigError::one("there is no bundle"));
        };
        Ok(Self {
            listeners,
            proxy,
            routes: Arc::new(routes),
            client,
            connect,
            audit_log: options.audit_log,
            log,
            threads,
            drain: span(options.drain_timeout, 30),
            ready_file: options.ready_file,
            warnings,
            clock: Clock::System,
        })
    }
}

/// clap does not say whether a value came from its variable; if both say the same, either may be named.
fn is_of_variable(paths: &[PathBuf], variable: Option<OsString>) -> bool {
    let value = variable.unwrap_or_default();
    !value.is_empty()
        && paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(",") == value.to_string_lossy()
}

/// A flag goes before its variable (clap sees to that), that before the file, that before the preset.
fn layered(said: Options, file: Options) -> Options {
    fn list<T>(said: Vec<T>, file: Vec<T>) -> Vec<T> {
        if said.is_empty() { file } else { said }
    }
    let preset = said.preset.or(file.preset);
    let preset_case = preset.map(|Preset::GlanceReplicator| FieldCase::Lower);
    Options {
        route: list(said.route, file.route),
        forward: list(said.forward, file.forward),
        allow: list(said.allow, file.allow),
        port_map: list(said.port_map, file.port_map),
        allow_nonlocal_listen: said.allow_nonlocal_listen.or(file.allow_nonlocal_listen),
        ca_bundle: list(said.ca_bundle, file.ca_bundle),
        system_roots: said.system_roots.or(file.system_roots),
        crl: list(said.crl, file.crl),
        connect_to: list(said.connect_to, file.connect_to),
        preset,
        answer: said.answer.or(file.answer),
        detail: said.detail.or(file.detail),
        host: said.host.or(file.host),
        field_case: said.field_case.or(file.field_case).or(preset_case),
        audit_log: said.audit_log.or(file.audit_log),
        access_log: said.access_log.or(file.access_log),
        log_format: said.log_format.or(file.log_format),
        log_level: said.log_level.or(file.log_level),
        connect_timeout: said.connect_timeout.or(file.connect_timeout),
        tls_timeout: said.tls_timeout.or(file.tls_timeout),
        response_timeout: said.response_timeout.or(file.response_timeout),
        response_body_timeout: said.response_body_timeout.or(file.response_body_timeout),
        request_body_timeout: said.request_body_timeout.or(file.request_body_timeout),
        head_timeout: said.head_timeout.or(file.head_timeout),
        keep_alive_timeout: said.keep_alive_timeout.or(file.keep_alive_timeout),
        pool_idle_timeout: said.pool_idle_timeout.or(file.pool_idle_timeout),
        pool_size: said.pool_size.or(file.pool_size),
        drain_timeout: said.drain_timeout.or(file.drain_timeout),
        max_head: said.max_head.or(file.max_head),
        threads: said.threads.or(file.threads),
        ready_file: said.ready_file.or(file.ready_file),
        upstream: file.upstream,
    }
}

struct Build<'a> {
    options: &'a Options,
    /// What named the bundle: the flag, its variable, or the file.
    bundle_said_by: String,
    problems: &'a mut Vec<String>,
    warnings: Vec<String>,
    clock: Clock,
}

impl Build<'_> {
    /// Takes a value, or notes the problem.
    fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn routes(&mut self, variable: &impl Fn(&str) -> Option<OsString>) -> Option<Routes> {
        let crls = load::files("--crl", &self.options.crl)
            .and_then(|files| Crls::load(&files, self.clock.now()).map_err(|why| format!("--crl {why}")));
        let crls = Arc::new(self.take(crls).unwrap_or_default());
        self.warnings.extend(crls.skipped.iter().map(|skipped| format!("--crl {skipped}")));
        let anchors = self.default_anchors(variable);
        let anchors = self.take(anchors);
        let trust = anchors.and_then(|anchors| self.trust(anchors, crls.clone()));
        let allows: Vec<Allow> = self.each("--allow", &self.options.allow.clone(), |text| text.parse());
        let policy = DestinationPolicy::new(allows);
        if policy.allows_everything() {
            self.warnings.push("--allow `*`: clients may be taken to every host that is not special".into());
        }
        let ports = self.each("--port-map", &self.options.port_map.clone(), |text| {
            let ports = text.split_once('=').and_then(|(plain, tls)| Some((parse_port(plain)?, parse_port(tls)?)));
            ports.ok_or_else(|| "needs two ports, as in `8080=8443`".to_owned())
        });
        let ports: HashMap<u16, u16> = ports.into_iter().collect();
        let mut upstreams = self.each("--connect-to", &self.options.connect_to.clone(), connect_to);
        let said: Vec<_> = self.options.upstream.clone();
        for (place, said) in said.iter().enumerate() {
            if let Some(settings) = self.upstream(place + 1, said, &crls) {
                upstreams.push(settings);
            }
        }
        Some(Routes { policy, ports, trust: trust?, upstreams })
    }

    fn trust(&mut self, anchors: TrustAnchors, crls: Arc<Crls>) -> Option<TrustHandle> {
        self.warnings.extend(anchors.skipped.iter().map(|skipped| format!("{}: {skipped}", anchors.source)));
        let client = TlsClient::new(Arc::new(Trust { anchors, crls }), self.clock);
        let client = client.map_err(|error| format!("TLS cannot be set up: {error}"));
        self.take(client).map(|client| TrustHandle(Arc::new(client)))
    }

    fn default_anchors(&mut self, variable: &impl Fn(&str) -> Option<OsString>) -> Result<TrustAnchors, String> {
        let (source, files) = match self.options.ca_bundle.as_slice() {
            [] => {
                let set =
                    BUNDLE_VARIABLES.iter().find_map(|name| Some((*name, variable(name).filter(|v| !v.is_empty())?)));
                match set {
                    // The environment's bundle is for whoever named nothing; system roots were named.
                    Some((name, value)) if self.options.system_roots != Some(true) => {
                        let paths: Vec<_> = match name {
                            "SSL_CERT_DIR" => std::env::split_paths(&value).collect(),
                            _ => vec![PathBuf::from(&value)],
                        };
                        (format!("{name} `{}`", value.display()), load::bundle(name, &paths)?)
                    }
                    _ => (String::new(), Vec::new()),
                }
            }
            paths => {
                let names: Vec<_> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
                let said = self.bundle_said_by.as_str();
                (format!("{said} {}", names.join(", ")), load::bundle(said, paths)?)
            }
        };
        if source.is_empty() && self.options.system_roots != Some(true) {
            return Err(format!(
                "whom to believe was not said: there is no --ca-bundle\nhint: give --ca-bundle FILE, or one of VOUCHSAFE_CA_BUNDLE, {}; or --system-roots",
                BUNDLE_VARIABLES.join(", ")
            ));
        }
        if self.options.system_roots != Some(true) {
            return TrustAnchors::from_pem(&source, &files, Vec::new()).map_err(|error| error.to_string());
        }
        let system = rustls_native_certs::load_native_certs();
        self.warnings.extend(system.errors.iter().map(|error| format!("--system-roots: {error}")));
        let source = if source.is_empty() { "--system-roots".into() } else { format!("{source} and --system-roots") };
        TrustAnchors::from_pem(&source, &files, system.certs).map_err(|error| error.to_string())
    }

    fn upstream(&mut self, place: usize, said: &UpstreamOptions, crls: &Arc<Crls>) -> Option<UpstreamSettings> {
        let what = format!("[[upstream]] {place} (`{}`)", masked(&said.of));
        let named = |key: &str, error: &dyn std::fmt::Display| format!("{what}: {key}: {error}");
        let of = said.of.parse::<Authority>().map_err(|error| named("of", &error));
        let of = self.take(of);
        let connect_to =
            said.connect_to.as_ref().map(|to| to.parse::<Authority>().map_err(|error| named("connect_to", &error)));
        let connect_to = connect_to.and_then(|to| self.take(to));
        let verify_name =
            said.verify_name.as_ref().map(|name| reference(name).map_err(|error| named("verify_name", &error)));
        let verify_name = verify_name.and_then(|name| self.take(name));
        let sni = said.sni.as_ref().map(|name| match reference(name) {
            Ok(ReferenceId::Dns(name)) => Ok(name.as_ref().to_owned()),
            Ok(ReferenceId::Ip(_)) => Err(named("sni", &"an address is never sent as a name")),
            Err(error) => Err(named("sni", &error)),
        });
        let sni = sni.and_then(|sni| self.take(sni));
        let trust = match said.ca_bundle.as_slice() {
            [] => None,
            paths => {
                let anchors = load::bundle(&format!("{what}: ca_bundle"), paths).and_then(|files| {
                    TrustAnchors::from_pem(&format!("{what} ca_bundle"), &files, Vec::new())
                        .map_err(|error| error.to_string())
                });
                let anchors = self.take(anchors);
                anchors.and_then(|anchors| self.trust(anchors, crls.clone()))
            }
        };
        Some(UpstreamSettings { of: of?, connect_to, verify_name, sni, trust })
    }

    fn listeners(&mut self, routes: Option<&Routes>) -> Vec<ListenerSettings> {
        let mut listeners = Vec::new();
        for text in &self.options.route {
            let listener = self.route(text, routes);
            let listener = listener.map_err(|why| format!("--route `{}`: {why}", masked(text)));
            listeners.extend(self.take(listener).flatten());
        }
        for text in &self.options.forward {
            let listener = self.listen(text).map(|address| ListenerSettings {
                name: format!("forward {text}"),
                address,
                service: Service::Forward,
            });
            let listener = listener.map_err(|why| format!("--forward `{}`: {why}", masked(text)));
            listeners.extend(self.take(listener));
        }
        if self.options.route.is_empty() && self.options.forward.is_empty() {
            self.problems
                .push("there is nothing to listen on\nhint: give --route LISTEN=URL or --forward LISTEN".into());
        }
        if !self.options.forward.is_empty() && self.options.allow.is_empty() {
            self.warnings.push("no --allow was given: forward listeners refuse every destination".into());
        }
        for (place, listener) in listeners.iter().enumerate() {
            let twin = listeners[..place].iter().any(|other| other.address == listener.address);
            if twin && listener.address.port() != 0 {
                self.problems.push(format!("{} is to be listened on twice", listener.address));
            }
        }
        listeners
    }

    fn route(&self, text: &str, routes: Option<&Routes>) -> Result<Option<ListenerSettings>, String> {
        let (listen, url) = text
            .split_once('=')
            .ok_or("needs an address and a URL, as in `127.0.0.1:19292=https://glance.example:9292`")?;
        let address = self.listen(listen)?;
        let Some(rest) = url.strip_prefix("https://") else {
            return Err(match url.strip_prefix("http://") {
                Some(_) => "nothing is sent in clear; the upstream is an `https://` URL".into(),
                None => format!("`{}` is not an `https://` URL", masked(url)),
            });
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err("a route names a server; the path is the client's".into());
        }
        let authority: Authority =
            authority.parse().map_err(|error: crate::message::authority::AuthorityError| error.to_string())?;
        let Some(routes) = routes else { return Ok(None) };
        let upstream = routes.fixed(&authority.host, authority.port.unwrap_or(443)).map_err(|error| match error {
            RouteError::Name(name) => format!("`{name}` is not a name that a certificate can carry"),
            RouteError::Denied { host, port } => format!("{host}:{port} is not allowed"),
        })?;
        let name = format!("route {listen}");
        Ok(Some(ListenerSettings { name, address, service: Service::Fixed(Box::new(upstream)) }))
    }

    fn listen(&self, text: &str) -> Result<SocketAddr, String> {
        let (host, port) = text.rsplit_once(':').ok_or("needs an address and a port, as in `127.0.0.1:19292`")?;
        // 0 asks the system for a free port.
        let port = if port == "0" {
            0
        } else {
            parse_port(port).ok_or_else(|| match port.bytes().all(|b| b.is_ascii_digit()) {
                true => format!("port {port} is not within 1-65535"),
                false => "the port is not a number within 1-65535".into(),
            })?
        };
        let ip = match host.parse::<Host>() {
            Ok(Host::Ip(ip)) => ip,
            Ok(Host::Name(name)) if name == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => {
                return Err(format!(
                    "`{}` is not an IP address to listen on",
                    masked(&format!("{host}:")).trim_end_matches(':')
                ));
            }
        };
        if !ip.is_loopback() && self.options.allow_nonlocal_listen != Some(true) {
            return Err(format!(
                "{ip} can be reached from other hosts, and what is spoken there is plain text\nhint: listen on 127.0.0.1, or say --allow-nonlocal-listen"
            ));
        }
        Ok(SocketAddr::new(ip, port))
    }

    fn limits(&mut self) -> (ProxySettings, ClientLimits, ConnectLimits, usize) {
        let options = self.options;
        let head = options.max_head.unwrap_or(64 * 1024);
        if !(8192..=1 << 20).contains(&head) {
            self.problems.push(format!("--max-head `{head}`: not within 8192-1048576"));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or(cores.min(4));
        if !(1..=1024).contains(&threads) {
            self.problems.push(format!("--threads `{threads}`: not within 1-1024"));
        }
        let proxy = ProxySettings {
            answer: options.answer.unwrap_or_default(),
            detail: options.detail.unwrap_or_default(),
            host: options.host.unwrap_or_default(),
            field_case: options.field_case.unwrap_or_default(),
            request_body: span(options.request_body_timeout, 60),
            response_body: span(options.response_body_timeout, 60),
            response: span(options.response_timeout, 60),
            response_limits: ResponseLimits { head, fields: 500 },
            pool: PoolLimits { idle: span(options.pool_idle_timeout, 30), most: options.pool_size.unwrap_or(256) },
            pseudonym: ids::pseudonym(),
        };
        let client = ClientLimits {
            head: span(options.head_timeout, 10),
            keep_alive: span(options.keep_alive_timeout, 60),
            stall: span(options.response_body_timeout, 60),
            head_bytes: head,
            fields: 200,
        };
        let connect =
            ConnectLimits { connect: span(options.connect_timeout, 5), handshake: span(options.tls_timeout, 10) };
        (proxy, client, connect, threads)
    }

    fn each<T>(&mut self, flag: &str, texts: &[String], read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut values = Vec::new();
        for text in texts {
            let value = read(text).map_err(|why| format!("{flag} `{}`: {why}", masked(text)));
            values.extend(self.take(value));
        }
        values
    }
}

fn connect_to(text: &str) -> Result<UpstreamSettings, String> {
    let (of, to) = text.split_once('=').ok_or("needs two hosts, as in `glance.example:9292=127.0.0.1:9292`")?;
    let authority = |text: &str| text.parse::<Authority>().map_err(|error| error.to_string());
    let (of, to) = (authority(of)?, authority(to)?);
    Ok(UpstreamSettings { of, connect_to: Some(to), verify_name: None, sni: None, trust: None })
}

fn reference(text: &str) -> Result<ReferenceId, String> {
    let host = text.parse::<Host>().map_err(|error| error.to_string())?;
    ReferenceId::of(&host).map_err(|name| format!("`{name}` is not a name that a certificate can carry"))
}

/// A value as an error may repeat it: without what stands before the last `@`, as far back as a host could
/// begin, and without a query. Either may be a secret.
fn masked(text: &str) -> String {
    let shown = match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.find("://").map(|at| at + 3);
            let start = scheme.or_else(|| before.find('=').map(|at| at + 1)).unwrap_or(0);
            format!("{}…@{host}", &before[..start])
        }
        None => text.to_owned(),
    };
    match shown.split_once('?') {
        Some((before, _)) => format!("{before}?…"),
        None => shown,
    }
}

fn span(said: Option<Span>, seconds: u64) -> Duration {
    said.map_or(Duration::from_secs(seconds), |span| span.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_do_not_repeat_secrets() {
        for (text, shown) in [
            ("127.0.0.1:1=https://u:hunter2@host:9", "127.0.0.1:1=https://…@host:9"),
            ("127.0.0.1:1=https://host/?token=x", "127.0.0.1:1=https://host/?…"),
            ("u:p@host=127.0.0.1:1", "…@host=127.0.0.1:1"),
            ("127.0.0.1:1=https://host:9", "127.0.0.1:1=https://host:9"),
            ("u:hunter2@127.0.0.1:1", "…@127.0.0.1:1"),
            ("127.0.0.1:1=https://u:pa/ss@host", "127.0.0.1:1=https://…@host"),
            ("127.0.0.1:1=https://u:p?a=ss@host", "127.0.0.1:1=https://…@host"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }
}
