//! Precedence of settings: a flag, its variable, the file, the preset, the default; and which of them set a value.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use clap::ValueEnum;
use serde_json::Value;

use crate::{
    logging::{LogFormat, LogLevel},
    proxy::{
        respond::{AnswerPolicy, Detail},
        settings::{FieldCase, HostPolicy},
    },
    text::show_value,
    tls::client::TlsVersion,
};

use super::{
    args::{ListenerOptions, Options, Preset, Purpose, RewriteScope, RunArgs, Span, UpstreamOptions},
    error::ConfigError,
    file, paths,
    watch::Files,
};

/// What set a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// The setting's own `VOUCHSAFE_` variable.
    Variable,
    /// The configuration file.
    File,
    /// The preset.
    Preset,
    /// Nothing: the default applies.
    Default,
}

/// The settings of all sources, merged, and the origin of each.
#[derive(Clone, Debug)]
pub struct MergedOptions {
    /// The merged settings.
    pub options: Options,
    origins: BTreeMap<&'static str, Origin>,
    /// The path of the configuration file, for messages.
    file: Option<String>,
    /// The command that they are for.
    pub purpose: Purpose,
}

impl MergedOptions {
    /// Reads the file that the arguments name, and merges all sources.
    ///
    /// # Errors
    /// [`ConfigError`], if the file cannot be read.
    pub fn of(args: RunArgs, files: &mut Files) -> Result<Self, ConfigError> {
        let RunArgs { config, options, from_variables, purpose } = args;
        let config = config.map(paths::trimmed);
        let given = with_file_names(options);
        let mut from_file = config.as_deref().map(|path| file::read(files, path)).transpose()?.unwrap_or_default();
        if given.client_cert.is_some() {
            // The file's key belongs to the file's certificate.
            from_file.client_key = None;
        }
        if given.parent_client_cert.is_some() {
            from_file.parent_client_key = None;
        }
        if given.parent_proxy.is_some() {
            // So do the file's credentials to the file's proxy.
            from_file.parent_proxy_credentials = None;
        }
        let preset = given.preset.or(from_file.preset).map(Preset::options).unwrap_or_default();
        let [given_keys, file_keys, preset_keys] = [&given, &from_file, &preset].map(Options::values);
        let mut origins = BTreeMap::new();
        for ((key, flag), ((_, file), (_, preset))) in given_keys.iter().zip(file_keys.iter().zip(&preset_keys)) {
            let origin = match (flag, file, preset) {
                (Some(_), ..) if from_variables.contains(*key) => Origin::Variable,
                (Some(_), ..) => Origin::Flag,
                (None, Some(_), _) => Origin::File,
                (None, None, Some(_)) => Origin::Preset,
                (None, None, None) => Origin::Default,
            };
            origins.insert(*key, origin);
        }
        let options = given.over(from_file).over(preset).over(purpose.defaults());
        Ok(Self { options, origins, file: config.map(|path| show_value(&path)), purpose })
    }

    /// What set a key.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).copied().unwrap_or(Origin::Default)
    }

    /// Whether something other than a preset or the default set a key.
    pub fn is_set(&self, key: &str) -> bool {
        !matches!(self.origin(key), Origin::Default | Origin::Preset)
    }

    /// The name of a setting where it was set: its flag, its variable, or the file and its key.
    pub fn name(&self, key: &str) -> String {
        match (self.origin(key), &self.file) {
            (Origin::Variable, _) => variable_of(key),
            (Origin::File, Some(file)) => format!("{file}: {key}"),
            _ => flag_of(key),
        }
    }

    /// What set a key, for people.
    pub fn origin_name(&self, key: &str) -> String {
        match self.origin(key) {
            Origin::Flag => flag_of(key),
            Origin::Variable => variable_of(key),
            Origin::File => self.file_name(),
            Origin::Preset => "preset".into(),
            Origin::Default => "default".into(),
        }
    }

    /// The path of the configuration file, for messages.
    pub fn file_name(&self) -> String {
        self.file.clone().unwrap_or_else(|| "--config".into())
    }
}

/// The file names and listeners of flags and variables as they are meant.
fn with_file_names(options: Options) -> Options {
    Options {
        route: with_modes(options.route),
        forward: with_modes(options.forward),
        local_ca: options.local_ca.map(paths::trimmed),
        ca_bundle: paths::list(options.ca_bundle),
        crl: paths::list(options.crl),
        client_cert: options.client_cert.map(paths::trimmed),
        client_key: options.client_key.map(paths::trimmed),
        parent_ca_bundle: paths::list(options.parent_ca_bundle),
        parent_client_cert: options.parent_client_cert.map(paths::trimmed),
        parent_client_key: options.parent_client_key.map(paths::trimmed),
        parent_proxy_credentials: options.parent_proxy_credentials.map(paths::trimmed),
        audit_log: options.audit_log.map(paths::trimmed),
        save_failed_chains: options.save_failed_chains.map(paths::trimmed),
        ready_file: options.ready_file.map(paths::trimmed),
        ..options
    }
}

/// Listeners of a flag or variable that was split at commas: that before the mode of a UNIX socket separates nothing.
fn with_modes(parts: Vec<String>) -> Vec<String> {
    let mut listeners: Vec<String> = Vec::new();
    for part in parts {
        match listeners.last_mut() {
            Some(last) if part.starts_with("mode=") && last.starts_with("unix:") => *last += &format!(",{part}"),
            _ => listeners.push(part),
        }
    }
    listeners
}

/// The flag of a key.
pub fn flag_of(key: &str) -> String {
    format!("--{}", key.replace('_', "-"))
}

/// The variable of a key.
pub fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.to_ascii_uppercase())
}

/// What the names of the variables begin with that `exec` sets for its routes.
pub const ROUTE_PREFIX: &str = "VOUCHSAFE_ROUTE_";

/// What the names of all own variables begin with.
pub const VARIABLE_PREFIX: &str = "VOUCHSAFE_";

/// Where the forward listener of `exec` is that no setting names.
pub const FORWARD_OF_TOOL: &str = "127.0.0.1:0";

impl Purpose {
    /// The defaults that differ from those of `run`.
    fn defaults(&self) -> Options {
        match self {
            Self::Run => Options::default(),
            Self::Exec { log_file, isolated } => Options {
                // Whatever the tool sends by `http_proxy` is verified or refused, also where only routes are configured.
                forward: if isolated.is_none() { vec![FORWARD_OF_TOOL.into()] } else { Vec::new() },
                drain_timeout: Some(Span(Duration::from_secs(5))),
                // On stderr it is between the lines of the tool, for whoever reads those.
                log_format: Some(if *log_file { LogFormat::Json } else { LogFormat::Text }),
                log_level: (!log_file).then_some(LogLevel::Warn),
                access_log: (!log_file).then_some(false),
                ..Options::default()
            },
        }
    }
}

impl Preset {
    /// The settings that it stands for.
    fn options(self) -> Options {
        match self {
            Self::GlanceReplicator => Options { field_case: Some(FieldCase::Lower), ..Options::default() },
            Self::OpenStack => Options {
                rewrite: vec![RewriteScope::Catalog, RewriteScope::Versions, RewriteScope::Pages],
                ..Options::default()
            },
        }
    }
}

impl ListenerOptions {
    /// The keys that are set, with their values.
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let all = [
            ("of", Some(self.of.shown())),
            ("answer", self.answer.shown()),
            ("detail", self.detail.shown()),
            ("host", self.host.shown()),
            ("field_case", self.field_case.shown()),
            ("rewrite_redirects", self.rewrite_redirects.shown()),
            ("rewrite", self.rewrite.shown()),
            ("follow_redirects", self.follow_redirects.shown()),
            ("accept_host", self.accept_host.shown()),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

impl UpstreamOptions {
    /// The keys that are set, with their values.
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let all = [
            ("of", Some(self.of.shown())),
            ("connect_to", self.connect_to.shown()),
            ("verify_name", self.verify_name.shown()),
            ("sni", self.sni.shown()),
            ("ca_bundle", self.ca_bundle.shown()),
            ("system_roots", self.system_roots.shown()),
            ("crl", self.crl.shown()),
            ("crl_policy", self.crl_policy.shown()),
            ("pins", self.pins.shown()),
            ("identity", self.identity.shown()),
            ("client_cert", self.client_cert.shown()),
            ("client_key", self.client_key.shown()),
            ("min_tls", self.min_tls.shown()),
            ("parent_proxy", self.parent_proxy.shown()),
            ("parent_proxy_credentials", self.parent_proxy_credentials.shown()),
            ("report_only_until", self.report_only_until.shown()),
            ("report_only", self.report_only.shown()),
            ("disable_https_verification", self.disable_https_verification.shown()),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// A setting that may be absent.
trait Optional: Sized {
    /// This value if it is set, else `below`.
    fn over(self, below: Self) -> Self;
    /// The value as JSON, which for these types is TOML too; `None` if it is not set.
    fn shown(&self) -> Option<Value>;
}

impl<T: Shown> Optional for Option<T> {
    fn over(self, below: Self) -> Self {
        self.or(below)
    }

    fn shown(&self) -> Option<Value> {
        self.as_ref().map(Shown::shown)
    }
}

impl<T: Shown> Optional for Vec<T> {
    fn over(self, below: Self) -> Self {
        if self.is_empty() { below } else { self }
    }

    fn shown(&self) -> Option<Value> {
        (!self.is_empty()).then(|| self.iter().map(Shown::shown).collect())
    }
}

/// A value that can be shown. Secrets in text are masked.
trait Shown {
    fn shown(&self) -> Value;
}

impl Shown for String {
    fn shown(&self) -> Value {
        show_value(self).into()
    }
}

impl Shown for PathBuf {
    fn shown(&self) -> Value {
        show_value(self).into()
    }
}

impl Shown for Span {
    fn shown(&self) -> Value {
        // `1h 30m` can be read back, and is one word less odd without the space.
        self.to_string().replace(' ', "").into()
    }
}

impl Shown for bool {
    fn shown(&self) -> Value {
        (*self).into()
    }
}

impl Shown for usize {
    fn shown(&self) -> Value {
        (*self).into()
    }
}

macro_rules! shown_by_name {
    ($($choice:ty),*) => {$(
        impl Shown for $choice {
            fn shown(&self) -> Value {
                self.to_possible_value().map(|value| value.get_name().to_owned()).into()
            }
        }
    )*};
}

shown_by_name!(AnswerPolicy, Detail, FieldCase, HostPolicy, LogFormat, LogLevel, Preset, RewriteScope, TlsVersion);

/// Implements what is the same for every setting. A setting that is missing here does not compile.
macro_rules! for_each_setting {
    ($($key:ident)*) => {
        impl Options {
            /// These settings where they are set, else those of `below`.
            fn over(self, below: Self) -> Self {
                let Self { $($key,)* upstream, listener } = self;
                Self {
                    $($key: $key.over(below.$key),)*
                    upstream: if upstream.is_empty() { below.upstream } else { upstream },
                    listener: if listener.is_empty() { below.listener } else { listener },
                }
            }

            /// Every key with its value, if it is set.
            pub fn values(&self) -> Vec<(&'static str, Option<Value>)> {
                vec![$((stringify!($key), self.$key.shown()),)*]
            }
        }
    };
}

for_each_setting! {
    route mirror advertise forward transparent accept_host allow port_map allow_nonlocal_listen local_ca
    ca_bundle system_roots crl crl_policy min_tls client_cert client_key reload_interval
    connect_to parent_proxy parent_proxy_credentials no_proxy parent_ca_bundle parent_client_cert parent_client_key
    allow_any_through_parent
    preset answer detail host field_case rewrite_redirects rewrite follow_redirects
    audit_log fold_repeats save_failed_chains access_log log_format log_level
    connect_timeout tls_timeout response_timeout response_body_timeout request_body_timeout head_timeout
    keep_alive_timeout tunnel_timeout pool_idle_timeout pool_size drain_timeout
    max_head max_fields max_response_fields max_target max_connections max_listener_connections connection_wait
    threads ready_file
    admin admin_host admin_read_only
}
