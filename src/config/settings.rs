//! [`Settings`]: what is true. Built whole or not at all; every problem is reported in one go.

use std::{
    collections::HashMap,
    env,
    ffi::{OsStr, OsString},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    audit::sink::{AuditSettings, Form},
    clock::{Clock, rfc3339},
    connect::{
        ConnectLimits,
        pool::PoolLimits,
    },
    http1::head::HeadLimits,
    logging::{LogFormat, LogLevel},
    message::authority::{Authority, Host, parse_port},
    proxy::{
        ids,
        settings::{FieldCase, Generation, ListenerPolicies, ListenerSettings, ProxySettings, Service},
    },
    route::{
        policy::{Allow, DestinationPolicy},
        table::{RouteError, Routes, UpstreamSettings},
        upstream::TlsHandle,
    },
    server::{limiter::ConnectionLimits, session::ClientLimits},
    text::show_value,
    tls::{
        case::{Terms, Trust},
        checks,
        client::{TlsClient, TlsSettings},
        client_identity::{ClientIdentity, IdentityError},
        crl::Crls,
        failure::CertificateRef,
        fingerprint::Fingerprint,
        identity::ReferenceId,
        report_only::ReportOnly,
        revocation::{CrlPolicy, CrlRule, Leniency},
        trust::{TrustAnchors, TrustError},
    },
};

use super::{
    args::{Options, Preset, RunArgs, Span, UpstreamOptions},
    error::ConfigError,
    load::{self, Named},
    paths,
    watch::Files,
};

/// All that the program relies on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The listeners, in the order they were said.
    pub listeners: Vec<ListenerSettings>,
    /// The way of a request.
    pub proxy: ProxySettings,
    /// From destinations to upstreams.
    pub routes: Arc<Routes>,
    /// Limits on clients.
    pub client: ClientLimits,
    /// How many of them there may be.
    pub connections: ConnectionLimits,
    /// Limits on the way out.
    pub connect: ConnectLimits,
    /// Where audit events go, beside stderr.
    pub audit: AuditSettings,
    /// The log.
    pub log: LogSettings,
    /// Worker threads.
    pub threads: usize,
    /// For what runs when the end comes.
    pub drain: Duration,
    /// Written when ready.
    pub ready_file: Option<PathBuf>,
    /// How often files are looked at for changes.
    pub look: Duration,
    /// Said at start, as warnings.
    pub warnings: Vec<String>,
    /// The wall clock.
    pub clock: Clock,
}

/// The log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// The way out: whom clients may be taken to, and how.
#[derive(Clone, Debug)]
pub struct Outward {
    /// From destinations to upstreams.
    pub routes: Arc<Routes>,
    /// Limits on the way out.
    pub connect: ConnectLimits,
    /// The servers that were named: by fixed routes, then by sections for single upstreams that have a port.
    pub named: Vec<Authority>,
    /// What is odd, but no error.
    pub warnings: Vec<String>,
}

impl Outward {
    /// Puts together what `args` say of the way out, and reads what they name.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn of(args: RunArgs, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let mut files = Files::waiting();
        let said = Said::of(args, &variable, &mut files)?;
        let mut build = Build::new(&said, &mut files);
        let routes = build.routes(&variable);
        let connect = build.connect_limits();
        let named = build.named();
        let warnings = std::mem::take(&mut build.warnings);
        ConfigError::unless_empty(build.problems)?;
        let routes = Arc::new(routes.ok_or_else(|| ConfigError::one("there is no bundle"))?);
        Ok(Self { routes, connect, named, warnings })
    }
}

/// What was said, by whatever way.
struct Said {
    options: Options,
    /// What named the bundle: the flag, its variable, or the file.
    bundle_by: String,
}

impl Said {
    fn of(args: RunArgs, variable: &impl Fn(&str) -> Option<OsString>, files: &mut Files) -> Result<Self, ConfigError> {
        let config = args.config.clone().map(paths::trimmed);
        let file = config.map(|path| load::file(files, &path)).transpose()?.unwrap_or_default();
        let bundle_by = match (&args.config, args.options.ca_bundle.is_empty()) {
            (Some(path), true) => format!("{}: ca_bundle", show_value(path)),
            _ if is_of_variable(&args.options.ca_bundle, variable("VOUCHSAFE_CA_BUNDLE")) => {
                "VOUCHSAFE_CA_BUNDLE".into()
            }
            _ => "--ca-bundle".into(),
        };
        Ok(Self { options: layered(as_names(args.options), file), bundle_by })
    }
}

impl Settings {
    /// Puts flags, variables, file and preset together, and reads what they name by way of `files`.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem found.
    pub fn of(
        args: RunArgs,
        variable: impl Fn(&str) -> Option<OsString>,
        files: &mut Files,
    ) -> Result<Self, ConfigError> {
        let said = Said::of(args, &variable, files)?;
        let mut build = Build::new(&said, files);
        let routes = build.routes(&variable);
        let listeners = build.listeners(routes.as_ref());
        let connect = build.connect_limits();
        let (proxy, client, threads) = build.limits();
        let connections = build.connection_limits();
        let warnings = std::mem::take(&mut build.warnings);
        ConfigError::unless_empty(build.problems)?;
        let routes = Arc::new(routes.ok_or_else(|| ConfigError::one("there is no bundle"))?);
        let log = LogSettings::of(&said.options);
        let options = said.options;
        Ok(Self {
            listeners,
            proxy,
            routes,
            client,
            connections,
            connect,
            audit: AuditSettings {
                file: options.audit_log,
                fold: span(options.fold_repeats, 60),
                chains: options.save_failed_chains,
            },
            log,
            threads,
            drain: span(options.drain_timeout, 30),
            ready_file: options.ready_file,
            look: options.reload_interval.map_or(LOOK, |span| span.0),
            warnings,
            clock: Clock::System,
        })
    }
}

impl Settings {
    /// What of these settings a reload may replace.
    pub fn generation(&self, number: u64, why: &'static str) -> Generation {
        let (settings, routes, listeners) = (self.proxy.clone(), self.routes.clone(), self.listeners.clone());
        Generation { number, why, settings, routes, listeners }
    }

    /// Whether both listen at the same places, in the same order, for the same kind of clients.
    pub fn same_listeners(&self, other: &Self) -> bool {
        let places = |settings: &Self| -> Vec<_> {
            settings.listeners.iter().map(|l| (l.address, matches!(l.service, Service::Forward))).collect()
        };
        places(self) == places(other)
    }

    /// What else differs from `other` in a way that takes a restart: the names of the flags.
    pub fn takes_restart(&self, other: &Self) -> Vec<&'static str> {
        let differs = [
            ("--audit-log, --fold-repeats or --save-failed-chains", self.audit != other.audit),
            ("--log-format, --log-level or --access-log", self.log != other.log),
            ("--threads", self.threads != other.threads),
            ("--connect-timeout or --tls-timeout", self.connect != other.connect),
            (
                "--head-timeout, --keep-alive-timeout, --max-head, --max-fields or --response-body-timeout",
                self.client != other.client,
            ),
            ("--max-connections, --max-listener-connections or --connection-wait", self.connections != other.connections),
            ("--drain-timeout", self.drain != other.drain),
            ("--ready-file", self.ready_file != other.ready_file),
            ("--reload-interval", self.look != other.look),
        ];
        differs.into_iter().filter_map(|(flags, differs)| differs.then_some(flags)).collect()
    }
}

/// How often files are looked at for changes.
const LOOK: Duration = Duration::from_millis(200);

/// clap does not say whether a value came from its variable; if both say the same, either may be named.
fn is_of_variable(paths: &[PathBuf], variable: Option<OsString>) -> bool {
    let value = variable.unwrap_or_default();
    !value.is_empty()
        && paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(",") == value.to_string_lossy()
}

/// The file that a variable names; an empty one counts as not set.
fn named_by(variable: Option<OsString>) -> Option<PathBuf> {
    variable.map(paths::trimmed).filter(|path| !path.as_os_str().is_empty())
}

/// The file names of flags and variables.
fn as_names(options: Options) -> Options {
    Options {
        ca_bundle: paths::list(options.ca_bundle),
        crl: paths::list(options.crl),
        client_cert: options.client_cert.map(paths::trimmed),
        client_key: options.client_key.map(paths::trimmed),
        audit_log: options.audit_log.map(paths::trimmed),
        save_failed_chains: options.save_failed_chains.map(paths::trimmed),
        ready_file: options.ready_file.map(paths::trimmed),
        ..options
    }
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
        accept_host: list(said.accept_host, file.accept_host),
        allow: list(said.allow, file.allow),
        port_map: list(said.port_map, file.port_map),
        allow_nonlocal_listen: said.allow_nonlocal_listen.or(file.allow_nonlocal_listen),
        ca_bundle: list(said.ca_bundle, file.ca_bundle),
        system_roots: said.system_roots.or(file.system_roots),
        crl: list(said.crl, file.crl),
        crl_policy: list(said.crl_policy, file.crl_policy),
        min_tls: said.min_tls.or(file.min_tls),
        client_key: match &said.client_cert {
            Some(_) => said.client_key,
            None => said.client_key.or(file.client_key),
        },
        client_cert: said.client_cert.or(file.client_cert),
        reload_interval: said.reload_interval.or(file.reload_interval),
        fold_repeats: said.fold_repeats.or(file.fold_repeats),
        save_failed_chains: said.save_failed_chains.or(file.save_failed_chains),
        connect_to: list(said.connect_to, file.connect_to),
        preset,
        answer: said.answer.or(file.answer),
        detail: said.detail.or(file.detail),
        host: said.host.or(file.host),
        field_case: said.field_case.or(file.field_case).or(preset_case),
        rewrite_redirects: said.rewrite_redirects.or(file.rewrite_redirects),
        follow_redirects: said.follow_redirects.or(file.follow_redirects),
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
        max_fields: said.max_fields.or(file.max_fields),
        max_response_fields: said.max_response_fields.or(file.max_response_fields),
        max_target: said.max_target.or(file.max_target),
        max_connections: said.max_connections.or(file.max_connections),
        max_listener_connections: said.max_listener_connections.or(file.max_listener_connections),
        connection_wait: said.connection_wait.or(file.connection_wait),
        tunnel_timeout: said.tunnel_timeout.or(file.tunnel_timeout),
        threads: said.threads.or(file.threads),
        ready_file: said.ready_file.or(file.ready_file),
        upstream: file.upstream,
    }
}

struct Build<'a> {
    options: &'a Options,
    bundle_by: &'a str,
    files: &'a mut Files,
    problems: Vec<String>,
    warnings: Vec<String>,
    clock: Clock,
}

impl<'a> Build<'a> {
    fn new(said: &'a Said, files: &'a mut Files) -> Self {
        Self {
            options: &said.options,
            bundle_by: &said.bundle_by,
            files,
            problems: Vec::new(),
            warnings: Vec::new(),
            clock: Clock::System,
        }
    }

    /// Takes a value, or notes the problem.
    fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn routes(&mut self, variable: &impl Fn(&str) -> Option<OsString>) -> Option<Routes> {
        let default = self.default_tls(variable);
        let tls = default.clone().and_then(|default| self.client(default));
        let allows: Vec<Allow> = self.each("--allow", &self.options.allow, |text| text.parse());
        let policy = DestinationPolicy::new(allows);
        if policy.allows_everything() {
            self.warnings.push("--allow `*`: clients may be taken to every host that is not special".into());
        }
        let ports = self.each("--port-map", &self.options.port_map, |text| {
            let ports = text.split_once('=').and_then(|(plain, tls)| Some((parse_port(plain)?, parse_port(tls)?)));
            ports.ok_or_else(|| "needs two ports, as in `8080=8443`".to_owned())
        });
        let ports: HashMap<u16, u16> = ports.into_iter().collect();
        let mut upstreams = self.each("--connect-to", &self.options.connect_to, connect_to);
        for (place, said) in self.options.upstream.iter().enumerate() {
            upstreams.extend(self.upstream(place + 1, said, default.as_ref()));
        }
        self.tls_of_one_section();
        Some(Routes { policy, ports, tls: tls?, upstreams })
    }

    /// How upstreams are met that have nothing of their own.
    fn default_tls(&mut self, variable: &impl Fn(&str) -> Option<OsString>) -> Option<TlsSettings> {
        let options = self.options;
        let crls = self.crls("--crl", &options.crl);
        let crl_policy = self.crl_policy("--crl-policy", &options.crl_policy, CrlPolicy::default());
        self.lists_for("--crl-policy", crl_policy, &crls);
        let client = match (&options.client_cert, &options.client_key) {
            (None, None) => {
                let of = |name: &str| named_by(variable(name));
                self.client_identity(["OS_CERT", "OS_KEY"], of("OS_CERT").as_deref(), of("OS_KEY").as_deref())
            }
            (cert, key) => self.client_identity(["--client-cert", "--client-key"], cert.as_deref(), key.as_deref()),
        };
        let anchors = self.default_anchors(variable);
        let anchors = Arc::new(self.take(anchors)?);
        self.skipped(&anchors);
        Some(TlsSettings {
            trust: Trust { anchors, crls, terms: Terms { crl_policy, ..Terms::default() } },
            min_version: options.min_tls.unwrap_or_default(),
            client,
            report_only: None,
        })
    }

    fn skipped(&mut self, anchors: &TrustAnchors) {
        self.warnings.extend(anchors.skipped.iter().map(|skipped| format!("{}: {skipped}", anchors.source)));
    }

    fn client(&mut self, settings: TlsSettings) -> Option<TlsHandle> {
        let client = TlsClient::new(settings, self.clock).map_err(|error| format!("TLS cannot be set up: {error}"));
        self.take(client).map(TlsHandle)
    }

    fn crls(&mut self, what: &str, paths: &[PathBuf]) -> Arc<Crls> {
        let crls = load::each(self.files, what, paths)
            .and_then(|files| Crls::load(&files, self.clock.now()).map_err(|why| format!("{what} {why}")));
        let crls = self.take(crls).unwrap_or_default();
        self.warnings.extend(crls.warnings.iter().map(|warning| format!("{what} {warning}")));
        Arc::new(crls)
    }

    fn crl_policy(&mut self, what: &str, rules: &[String], policy: CrlPolicy) -> CrlPolicy {
        self.each(what, rules, str::parse::<CrlRule>).into_iter().fold(policy, CrlPolicy::with)
    }

    fn lists_for(&mut self, what: &str, policy: CrlPolicy, crls: &Crls) {
        if crls.is_empty() && policy.unknown == Leniency::Refuse {
            self.problems.push(no_list(what));
        }
    }

    /// A key may stand in the certificate's file. `what` names both.
    fn client_identity(
        &mut self,
        what: [&str; 2],
        cert: Option<&Path>,
        key: Option<&Path>,
    ) -> Option<Arc<ClientIdentity>> {
        let [what, of_key] = what;
        let Some(cert) = cert else {
            if let Some(key) = key {
                let named = paths::is_name(of_key, key);
                self.take(named)?;
                let key = show_value(key);
                let hint = "a key alone proves nothing; name its certificate, too";
                self.problems.push(format!("{of_key} `{key}`: there is a key, but no certificate\nhint: {hint}"));
            }
            return None;
        };
        let (of_key, key_file) = key.map_or((what, cert), |key| (of_key, key));
        let read = load::named(self.files, what, cert).and_then(|chain| {
            let key = load::named(self.files, of_key, key_file)?;
            ClientIdentity::from_pem(&chain, &key).map_err(|error| match error {
                IdentityError::Certificate(why) => format!("{what} `{}`: {why}", chain.0),
                IdentityError::Key(why) => format!("{of_key} `{}`: {why}", key.0),
            })
        });
        let identity = self.take(read)?;
        if let Some(finding) = checks::validity(&identity.certificate, CertificateRef::Presented(0), self.clock.now()) {
            self.warnings.push(format!("{what} `{}`: {}", show_value(cert), finding.sentence));
        }
        Some(Arc::new(identity))
    }

    fn default_anchors(&mut self, variable: &impl Fn(&str) -> Option<OsString>) -> Result<TrustAnchors, String> {
        let system = self.options.system_roots == Some(true);
        let (source, files) = match self.options.ca_bundle.as_slice() {
            [] => {
                let set = BUNDLE_VARIABLES.iter().find_map(|name| Some((*name, named_by(variable(name))?)));
                match set {
                    // The environment's bundle is for whoever named nothing; system roots were named. Where these
                    // are, SSL_CERT_FILE and SSL_CERT_DIR may still say: see `system_roots`.
                    Some((name, value)) if !system => {
                        let paths: Vec<_> = match name {
                            "SSL_CERT_DIR" => env::split_paths(&value).collect(),
                            _ => vec![value.clone()],
                        };
                        (format!("{name} `{}`", show_value(&value)), load::bundle(self.files, name, &paths)?)
                    }
                    _ => (String::new(), Vec::new()),
                }
            }
            paths => {
                let names: Vec<_> = paths.iter().map(|path| format!("`{}`", show_value(path))).collect();
                (format!("{} {}", self.bundle_by, names.join(", ")), load::bundle(self.files, self.bundle_by, paths)?)
            }
        };
        if source.is_empty() && !system {
            return Err(format!(
                "whom to believe was not said: there is no --ca-bundle\nhint: give --ca-bundle FILE, or one of VOUCHSAFE_CA_BUNDLE, {}; or --system-roots",
                BUNDLE_VARIABLES.join(", ")
            ));
        }
        self.anchors(source, &files, system.then_some("--system-roots"))
    }

    /// Files, and the system's authorities where they were asked for, by what.
    fn anchors(&mut self, source: String, files: &[Named], system: Option<&str>) -> Result<TrustAnchors, String> {
        let (source, more) = match system {
            None => (source, Vec::new()),
            Some(asked) => {
                let (by, system) = system_roots();
                self.warnings.extend(system.errors.iter().map(|error| format!("{asked}: {error}")));
                let asked = if by.is_empty() { asked.to_owned() } else { format!("{asked} ({})", by.join(", ")) };
                let source = if source.is_empty() { asked } else { format!("{source} and {asked}") };
                (source, system.certs)
            }
        };
        TrustAnchors::from_pem(&source, files, more).map_err(|error| error.to_string())
    }

    fn upstream(
        &mut self,
        place: usize,
        said: &UpstreamOptions,
        default: Option<&TlsSettings>,
    ) -> Option<UpstreamSettings> {
        let what = format!("[[upstream]] {place} (`{}`)", show_value(&said.of));
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
            Ok(ReferenceId::Ip(ip)) => {
                Err(named("sni", &format!("`{ip}`: an address is never sent as a name\nhint: leave `sni` out")))
            }
            Err(error) => Err(named("sni", &error)),
        });
        let sni = sni.and_then(|sni| self.take(sni));
        let own = self.own_tls(&what, said, default);
        let tls = own.and_then(|own| self.client(own));
        Some(UpstreamSettings { of: of?, connect_to, verify_name, sni, tls })
    }

    /// What sections say of TLS counts as a whole: of two for one server, the later's pins would go unasked.
    fn tls_of_one_section(&mut self) {
        let sections = self.options.upstream.iter().enumerate();
        let about_tls = sections.filter(|(_, said)| said.is_about_tls());
        let places: Vec<_> =
            about_tls.filter_map(|(at, said)| Some((at, said.of.parse::<Authority>().ok()?))).collect();
        for (n, (place, of)) in places.iter().enumerate() {
            let meets = |other: &Authority| {
                other.host == of.host && (other.port == of.port || other.port.is_none() || of.port.is_none())
            };
            for (before, other) in places[..n].iter().filter(|(_, other)| meets(other)) {
                self.problems.push(format!(
                    "[[upstream]] {} (`{other}`) and {} (`{of}`): both have settings of TLS, and those of one alone would count\nhint: put them in one section; with a port in every `of`, each port may have its own",
                    before + 1,
                    place + 1
                ));
            }
        }
    }

    /// The default settings with what an upstream has of its own; None where it has nothing.
    fn own_tls(&mut self, what: &str, said: &UpstreamOptions, default: Option<&TlsSettings>) -> Option<TlsSettings> {
        let key = |key: &str| format!("{what}: {key}");
        let mut anchors = None;
        if !said.ca_bundle.is_empty() || said.system_roots == Some(true) {
            let system = (said.system_roots == Some(true)).then(|| key("system_roots"));
            let paths: Vec<_> = said.ca_bundle.iter().map(|path| format!("`{}`", show_value(path))).collect();
            let source = if paths.is_empty() { String::new() } else { key(&format!("ca_bundle {}", paths.join(", "))) };
            let read = load::bundle(self.files, &key("ca_bundle"), &said.ca_bundle)
                .and_then(|files| self.anchors(source, &files, system.as_deref()));
            let read = Arc::new(self.take(read)?);
            self.skipped(&read);
            anchors = Some(read);
        }
        let mut own = default?.clone();
        let before = own.clone();
        let mut changed = anchors.is_some();
        own.trust.anchors = anchors.unwrap_or(before.trust.anchors);
        if !said.crl.is_empty() {
            own.trust.crls = self.crls(&key("crl"), &said.crl);
            changed = true;
        }
        let terms = &mut own.trust.terms;
        terms.crl_policy = self.crl_policy(&key("crl_policy"), &said.crl_policy, terms.crl_policy);
        if !said.crl_policy.is_empty() {
            self.lists_for(&key("crl_policy"), terms.crl_policy, &own.trust.crls);
        }
        terms.pins = self.each(&key("pins"), &said.pins, |text| text.parse().map_err(str::to_owned));
        for named in &said.identity {
            let read = identity(self.files, &key("identity"), named);
            terms.identities.extend(self.take(read));
        }
        if !terms.identities.is_empty() && !terms.pins.is_empty() {
            self.problems
                .push(format!("{what}: `identity` names the certificate itself; `pins` beside it say no more\nhint: leave one of the two out"));
        }
        if said.client_cert.is_some() || said.client_key.is_some() {
            let (cert, key_file) = (said.client_cert.as_deref(), said.client_key.as_deref());
            own.client = self.client_identity([&key("client_cert"), &key("client_key")], cert, key_file);
            changed = true;
        }
        own.min_version = said.min_tls.unwrap_or(own.min_version);
        own.report_only = self.report_only(what, said);
        changed |=
            own.trust.terms != before.trust.terms || own.min_version != before.min_version || own.report_only.is_some();
        changed.then_some(own)
    }

    fn report_only(&mut self, what: &str, said: &UpstreamOptions) -> Option<ReportOnly> {
        let Some(day) = &said.report_only_until else {
            let said = match said {
                UpstreamOptions { disable_https_verification: Some(true), .. } => {
                    Some("disable_https_verification `true`: verification is not switched off")
                }
                UpstreamOptions { report_only, .. } if !report_only.is_empty() => {
                    Some("report_only: it says for what, and nothing says until when")
                }
                _ => None,
            };
            if let Some(said) = said {
                self.problems.push(format!(
                    "{what}: {said}\nhint: for a migration, say `report_only_until = DAY` (at most 90 days ahead): refusals are recorded and traffic passes until then; to trust one odd certificate for good, say `identity`"
                ));
            }
            return None;
        };
        let only = ReportOnly::through(day, &said.report_only, self.clock.now());
        let only = self.take(only.map_err(|why| format!("{what}: {why}")))?;
        self.warnings.push(match only.until > self.clock.now() {
            true => format!("{what}: refusals are recorded and NOT obeyed until {}", rfc3339(only.until)),
            false => format!("{what}: report_only_until {day} is over; refusals are obeyed"),
        });
        Some(only)
    }

    /// The servers that routes and sections name. A section that cannot be read was a problem before.
    fn named(&mut self) -> Vec<Authority> {
        let of_routes = self.each("--route", &self.options.route, |text| routed(text).map(|(_, authority)| authority));
        let sections = self.options.upstream.iter().filter_map(|said| said.of.parse::<Authority>().ok());
        let mut named: Vec<Authority> = Vec::new();
        for authority in of_routes.into_iter().chain(sections.filter(|of| of.port.is_some())) {
            let authority = Authority { port: authority.port.or(Some(443)), ..authority };
            if !named.contains(&authority) {
                named.push(authority);
            }
        }
        named
    }

    fn listeners(&mut self, routes: Option<&Routes>) -> Vec<ListenerSettings> {
        let mut listeners = Vec::new();
        let policies = self.policies();
        for text in &self.options.route {
            let listener = self.route(text, routes, &policies);
            let listener = listener.map_err(|why| format!("--route `{}`: {why}", show_value(text)));
            listeners.extend(self.take(listener).flatten());
        }
        for text in &self.options.forward {
            let listener = self.listen(text).map(|address| ListenerSettings {
                name: format!("forward {text}"),
                address,
                service: Service::Forward,
                policies: policies.clone(),
            });
            let listener = listener.map_err(|why| format!("--forward `{}`: {why}", show_value(text)));
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

    fn route(
        &self,
        text: &str,
        routes: Option<&Routes>,
        policies: &ListenerPolicies,
    ) -> Result<Option<ListenerSettings>, String> {
        let (listen, authority) = routed(text)?;
        let address = self.listen(listen)?;
        let Some(routes) = routes else { return Ok(None) };
        let upstream = routes.fixed(&authority.host, authority.port.unwrap_or(443)).map_err(|error| match error {
            RouteError::Name(name) => format!("`{name}` is not a name that a certificate can carry"),
            RouteError::Denied { host, port } => format!("{host}:{port} is not allowed"),
        })?;
        let name = format!("route {listen}");
        let (service, policies) = (Service::Fixed(Box::new(upstream)), policies.clone());
        Ok(Some(ListenerSettings { name, address, service, policies }))
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
            Ok(Host::Name(name)) if name.as_str() == "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => {
                return Err(format!(
                    "`{}` is not an IP address to listen on",
                    show_value(format!("{host}:")).trim_end_matches(':')
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

    fn limits(&mut self) -> (ProxySettings, ClientLimits, usize) {
        let options = self.options;
        let head = options.max_head.unwrap_or(64 * 1024);
        if !(8192..=1 << 20).contains(&head) {
            self.problems.push(format!("--max-head `{head}`: not within 8192-1048576"));
        }
        let fields = [options.max_fields.unwrap_or(200), options.max_response_fields.unwrap_or(500)];
        for (flag, fields) in ["--max-fields", "--max-response-fields"].into_iter().zip(fields) {
            if !(16..=10_000).contains(&fields) {
                self.problems.push(format!("{flag} `{fields}`: not within 16-10000"));
            }
        }
        if let Some(target) = options.max_target.filter(|target| !(256..=65_000).contains(target)) {
            self.problems.push(format!("--max-target `{target}`: not within 256-65000"));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = options.threads.unwrap_or(cores.min(4));
        if !(1..=1024).contains(&threads) {
            self.problems.push(format!("--threads `{threads}`: not within 1-1024"));
        }
        let proxy = ProxySettings {
            request_body: span(options.request_body_timeout, 60),
            response_body: span(options.response_body_timeout, 60),
            response: span(options.response_timeout, 60),
            tunnel: span(options.tunnel_timeout, 3600),
            target_bytes: options.max_target.unwrap_or(16 * 1024),
            request_head: HeadLimits { bytes: head, fields: fields[0] },
            response_head: HeadLimits { bytes: head, fields: fields[1] },
            pool: PoolLimits { idle: span(options.pool_idle_timeout, 30), most: options.pool_size.unwrap_or(256) },
            pseudonym: ids::pseudonym(),
        };
        let client =
            ClientLimits { head: span(options.head_timeout, 10), keep_alive: span(options.keep_alive_timeout, 60) };
        (proxy, client, threads)
    }

    /// The policies of every listener.
    fn policies(&mut self) -> ListenerPolicies {
        let accept = |text: &str| text.parse::<Host>().map_err(|error| error.to_string());
        let accept_host = self.each("--accept-host", &self.options.accept_host, accept);
        let options = self.options;
        ListenerPolicies {
            answer: options.answer.unwrap_or_default(),
            detail: options.detail.unwrap_or_default(),
            host: options.host.unwrap_or_default(),
            field_case: options.field_case.unwrap_or_default(),
            rewrite_redirects: options.rewrite_redirects.unwrap_or(true),
            follow_redirects: options.follow_redirects.unwrap_or(false),
            accept_host,
        }
    }

    fn connection_limits(&mut self) -> ConnectionLimits {
        let options = self.options;
        let (all, listener) = (options.max_connections, options.max_listener_connections);
        for (flag, most) in [("--max-connections", all), ("--max-listener-connections", listener)] {
            if let Some(most) = most.filter(|most| !(1..=1_000_000).contains(most)) {
                self.problems.push(format!("{flag} `{most}`: not within 1-1000000"));
            }
        }
        ConnectionLimits { all, listener, wait: span(options.connection_wait, 5) }
    }

    fn connect_limits(&self) -> ConnectLimits {
        let options = self.options;
        ConnectLimits { connect: span(options.connect_timeout, 5), handshake: span(options.tls_timeout, 10) }
    }

    fn each<T>(&mut self, flag: &str, texts: &[String], read: impl Fn(&str) -> Result<T, String>) -> Vec<T> {
        let mut values = Vec::new();
        for text in texts {
            let value = read(text).map_err(|why| format!("{flag} `{}`: {why}", show_value(text)));
            values.extend(self.take(value));
        }
        values
    }
}

/// What a fixed route says: where to listen, and the server.
fn routed(text: &str) -> Result<(&str, Authority), String> {
    let (listen, url) = text
        .split_once('=')
        .ok_or("needs an address and a URL, as in `127.0.0.1:19292=https://glance.example:9292`")?;
    let Some(rest) = url.strip_prefix("https://") else {
        return Err(match url.strip_prefix("http://") {
            Some(_) => "nothing is sent in clear; the upstream is an `https://` URL".into(),
            None => format!("`{}` is not an `https://` URL", show_value(url)),
        });
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains(['/', '?', '#']) {
        return Err("a route names a server; the path is the client's".into());
    }
    let authority = authority.parse::<Authority>().map_err(|error| error.to_string())?;
    Ok((listen, authority))
}

/// A certificate's fingerprint, or a file with the certificate.
///
/// # Errors
/// A sentence.
pub fn identity(files: &mut Files, what: &str, named: &str) -> Result<Fingerprint, String> {
    if Fingerprint::is_meant(named) {
        return named.parse().map_err(|why| format!("{what} `{}`: {why}", show_value(named)));
    }
    let file = load::named(files, what, Path::new(named))?;
    let what = format!("{what} `{}`", show_value(named));
    let set = TrustAnchors::from_pem(&what, &[file], Vec::new()).map_err(|error| match error {
        TrustError::Empty { other, .. } if other.iter().all(|(_, remedy)| remedy.is_none()) => format!(
            "{what}: no certificate in it\nhint: name a PEM file with the one certificate, or `sha256:` and its fingerprint"
        ),
        error => error.to_string(),
    })?;
    match set.certificates() {
        [one] => Ok(Fingerprint::of(&one.der)),
        more => Err(format!(
            "{what}: it names one certificate, and the file has {}\nhint: leave the server's own in it alone; its CAs do not count",
            more.len()
        )),
    }
}

/// What is wrong with `unknown=refuse` where there are no lists. `what` said so.
pub fn no_list(what: &str) -> String {
    format!("{what} `unknown=refuse`: there is no revocation list to answer\nhint: give the CAs' lists with --crl")
}

/// The system's authorities, and the variables that say where they are.
///
/// rustls-native-certs reads SSL_CERT_FILE and SSL_CERT_DIR of the process before it looks where systems have them.
/// An empty SSL_CERT_FILE it would take for a path; here it counts as not set.
fn system_roots() -> (Vec<String>, CertificateResult) {
    let set = |name: &str| env::var_os(name).filter(|value| directories(value).next().is_some());
    let shown = |name: &&str| Some(format!("{name} `{}`", show_value(set(name)?)));
    let by: Vec<_> = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().filter_map(shown).collect();
    if env::var_os("SSL_CERT_FILE").is_none() || set("SSL_CERT_FILE").is_some() {
        return (by, load_native_certs());
    }
    let (file, directories) = match set("SSL_CERT_DIR") {
        Some(directories) => (None, self::directories(&directories).collect()),
        None => {
            let found = openssl_probe::probe();
            (found.cert_file, found.cert_dir)
        }
    };
    let mut all = load_certs_from_paths(file.as_deref(), None);
    for directory in directories {
        let more = load_certs_from_paths(None, Some(&directory));
        all.certs.extend(more.certs);
        all.errors.extend(more.errors);
    }
    (by, all)
}

fn directories(value: &OsStr) -> impl Iterator<Item = PathBuf> {
    env::split_paths(value).filter(|path| !path.as_os_str().is_empty())
}

fn connect_to(text: &str) -> Result<UpstreamSettings, String> {
    let (of, to) = text.split_once('=').ok_or("needs two hosts, as in `glance.example:9292=127.0.0.1:9292`")?;
    let authority = |text: &str| text.parse::<Authority>().map_err(|error| error.to_string());
    let (of, to) = (authority(of)?, authority(to)?);
    Ok(UpstreamSettings { of, connect_to: Some(to), verify_name: None, sni: None, tls: None })
}

/// The name to verify, as people write it.
///
/// # Errors
/// A sentence.
pub fn reference(text: &str) -> Result<ReferenceId, String> {
    let host = text.parse::<Host>().map_err(|error| error.to_string())?;
    ReferenceId::of(&host).map_err(|name| format!("`{name}` is not a name that a certificate can carry"))
}

/// The moment to judge at: as `--at` says it, or now.
///
/// # Errors
/// A sentence.
pub fn moment(at: Option<&str>, clock: Clock) -> Result<OffsetDateTime, String> {
    at.map_or(Ok(clock.now()), |at| {
        OffsetDateTime::parse(at, &Rfc3339).map_err(|_| {
            format!("--at `{}`: not a moment as RFC 3339 has it, as in `2026-11-21T12:00:00Z`", show_value(at))
        })
    })
}

fn span(said: Option<Span>, seconds: u64) -> Duration {
    said.map_or(Duration::from_secs(seconds), |span| span.0)
}
