//! The command line. The doc comments are the `--help` text; there is no decision here and no IO.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand};
use serde::Deserialize;

use crate::{
    logging::{LogFormat, LogLevel},
    proxy::{
        FieldCase, HostPolicy,
        respond::{AnswerPolicy, Detail},
    },
};

/// Plain HTTP in, verified TLS out: secures tools that cannot, and records every refusal.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe", version, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows what passes and what is refused, on a gallery of servers made for it.
    Demo(DemoArgs),
    /// Runs the proxy until SIGTERM.
    Run(Box<RunArgs>),
}

/// `vouchsafe demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave servers and proxy running until Ctrl-C, for your own curl.
    #[arg(long)]
    pub keep: bool,
}

/// `vouchsafe run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// A TOML file that says what the flags say, and settings for single upstreams.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_CONFIG")]
    pub config: Option<PathBuf>,

    /// All that a file may say too.
    #[command(flatten)]
    pub options: Options,
}

/// What flags, variables and the file may say. A flag goes before its variable, that before the file,
/// that before the preset.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A fixed route: all requests to LISTEN go to the upstream, for example
    /// `127.0.0.1:19292=https://glance.example:9292`.
    #[arg(long, value_name = "LISTEN=URL", env = "VOUCHSAFE_ROUTE", value_delimiter = ',', help_heading = "Ways in")]
    pub route: Vec<String>,

    /// A forward listener: for tools with `http_proxy`, and for names mapped to loopback.
    #[arg(long, value_name = "LISTEN", env = "VOUCHSAFE_FORWARD", value_delimiter = ',', help_heading = "Ways in")]
    pub forward: Vec<String>,

    /// Where forward listeners may take a client: `HOST[:PORT]`, `*.SUFFIX`, `*` or `NETWORK/BITS`.
    /// Loopback and metadata addresses need an exact host or a network.
    #[arg(long, value_name = "PATTERN", env = "VOUCHSAFE_ALLOW", value_delimiter = ',', help_heading = "Ways in")]
    pub allow: Vec<String>,

    /// Take a plain port of a forwarded destination for this TLS port; 80 means 443 anyway.
    #[arg(long, value_name = "PLAIN=TLS", env = "VOUCHSAFE_PORT_MAP", value_delimiter = ',', help_heading = "Ways in")]
    pub port_map: Vec<String>,

    /// Let listeners be reached from other hosts. What they speak is plain text.
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_ALLOW_NONLOCAL_LISTEN", num_args = 0..=1, default_missing_value = "true", help_heading = "Ways in")]
    pub allow_nonlocal_listen: Option<bool>,

    /// The authorities to believe: PEM files, or directories of them.
    #[arg(long, value_name = "PATH", env = "VOUCHSAFE_CA_BUNDLE", value_delimiter = ',', help_heading = "Trust")]
    pub ca_bundle: Vec<PathBuf>,

    /// Believe the system's authorities, too.
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_SYSTEM_ROOTS", num_args = 0..=1, default_missing_value = "true", help_heading = "Trust")]
    pub system_roots: Option<bool>,

    /// Revocation lists, PEM or DER.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_CRL", value_delimiter = ',', help_heading = "Trust")]
    pub crl: Vec<PathBuf>,

    /// Connect elsewhere than the name says, and verify the name all the same.
    #[arg(
        long,
        value_name = "HOST[:PORT]=HOST[:PORT]",
        env = "VOUCHSAFE_CONNECT_TO",
        value_delimiter = ',',
        help_heading = "Upstreams"
    )]
    pub connect_to: Vec<String>,

    /// A set of settings: `glance-replicator`.
    #[arg(long, value_name = "NAME", env = "VOUCHSAFE_PRESET", help_heading = "Answers")]
    pub preset: Option<Preset>,

    /// How a failure is answered [default: legacy]
    #[arg(long, value_name = "POLICY", env = "VOUCHSAFE_ANSWER", help_heading = "Answers")]
    pub answer: Option<AnswerPolicy>,

    /// How much a client is told of it [default: class]
    #[arg(long, value_name = "DETAIL", env = "VOUCHSAFE_DETAIL", help_heading = "Answers")]
    pub detail: Option<Detail>,

    /// What Host the upstream sees [default: upstream]
    #[arg(long, value_name = "WHOSE", env = "VOUCHSAFE_HOST", help_heading = "Answers")]
    pub host: Option<HostPolicy>,

    /// How response field names are written [default: preserve]
    #[arg(long, value_name = "CASE", env = "VOUCHSAFE_FIELD_CASE", help_heading = "Answers")]
    pub field_case: Option<FieldCase>,

    /// Audit events go to this file too, one JSON line each.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_AUDIT_LOG", help_heading = "Records")]
    pub audit_log: Option<PathBuf>,

    /// One event per request on stderr [default: true]
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_ACCESS_LOG", num_args = 0..=1, default_missing_value = "true", help_heading = "Records")]
    pub access_log: Option<bool>,

    /// Text or JSON [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT", env = "VOUCHSAFE_LOG_FORMAT", help_heading = "Records")]
    pub log_format: Option<LogFormat>,

    /// How much is said [default: info]
    #[arg(long, value_name = "LEVEL", env = "VOUCHSAFE_LOG_LEVEL", help_heading = "Records")]
    pub log_level: Option<LogLevel>,

    /// For name resolution and TCP, over all addresses [default: 5s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_CONNECT_TIMEOUT", help_heading = "Limits")]
    pub connect_timeout: Option<Span>,

    /// For the TLS handshake [default: 10s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_TLS_TIMEOUT", help_heading = "Limits")]
    pub tls_timeout: Option<Span>,

    /// From the end of a request to the head of its response [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_RESPONSE_TIMEOUT", help_heading = "Limits")]
    pub response_timeout: Option<Span>,

    /// Silence in a response's body, of the upstream or of a client that does not read [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_RESPONSE_BODY_TIMEOUT", help_heading = "Limits")]
    pub response_body_timeout: Option<Span>,

    /// Silence in a request's body [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_REQUEST_BODY_TIMEOUT", help_heading = "Limits")]
    pub request_body_timeout: Option<Span>,

    /// For the head of a request [default: 10s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_HEAD_TIMEOUT", help_heading = "Limits")]
    pub head_timeout: Option<Span>,

    /// Between the requests of a client [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_KEEP_ALIVE_TIMEOUT", help_heading = "Limits")]
    pub keep_alive_timeout: Option<Span>,

    /// How long an upstream connection is kept for the next request [default: 30s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_POOL_IDLE_TIMEOUT", help_heading = "Limits")]
    pub pool_idle_timeout: Option<Span>,

    /// How many are kept for each upstream and thread [default: 256]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_POOL_SIZE", help_heading = "Limits")]
    pub pool_size: Option<usize>,

    /// For what runs when SIGTERM comes [default: 30s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_DRAIN_TIMEOUT", help_heading = "Limits")]
    pub drain_timeout: Option<Span>,

    /// Bytes of a request's or response's head, 8192 to 1048576 [default: 65536]
    #[arg(long, value_name = "BYTES", env = "VOUCHSAFE_MAX_HEAD", help_heading = "Limits")]
    pub max_head: Option<usize>,

    /// Worker threads, each with its own connections [default: one a core, 4 at most]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_THREADS", help_heading = "Limits")]
    pub threads: Option<usize>,

    /// Written when all listeners are bound: a line `ADDRESS URL` for each; removed at the end.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_READY_FILE", help_heading = "Records")]
    pub ready_file: Option<PathBuf>,

    /// Settings for single upstreams; in the file only.
    #[arg(skip)]
    pub upstream: Vec<UpstreamOptions>,
}

/// `[[upstream]]` in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamOptions {
    /// Which: `HOST` or `HOST:PORT`.
    pub of: String,
    /// Where to connect instead.
    pub connect_to: Option<String>,
    /// The name to verify instead of the host.
    pub verify_name: Option<String>,
    /// The name to send instead of the one verified.
    pub sni: Option<String>,
    /// Whom to believe instead of the default bundle.
    #[serde(default)]
    pub ca_bundle: Vec<PathBuf>,
}

impl UpstreamOptions {
    /// The keys of the section.
    pub const KEYS: [&'static str; 5] = ["of", "connect_to", "verify_name", "sni", "ca_bundle"];
}

/// A set of settings by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// For glance-replicator of any release: answers it takes for failures, field names it compares right.
    GlanceReplicator,
}

/// A length of time as people write it: `500ms`, `5s`, `2m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(span) if span.is_zero() => Err("a limit of no time lets nothing pass".into()),
            Ok(span) if span > Duration::from_secs(86_400 * 30) => Err("more than 30 days".into()),
            Ok(span) => Ok(Self(span)),
            Err(error) => Err(format!("{error}; write it as in `500ms`, `5s` or `2m`")),
        }
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
