//! The command line. The doc comments are the `--help` text; there is no decision here and no IO.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand};
use serde::{Deserialize, Deserializer, de::Error};
use time::{Date, OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};

use crate::{
    audit::{
        report::ReportFormat,
        summary::{By, Order},
    },
    logging::{LogFormat, LogLevel},
    proxy::{
        respond::{AnswerPolicy, Detail},
        settings::{FieldCase, HostPolicy},
    },
    tls::client::TlsVersion,
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
    /// Sums up audit logs: which servers were refused, why, how often, whom it affected, and what was sent.
    ///
    /// Exit status: 0, or 1 if a file could not be read to its end or is no audit log, or 2 for a usage error.
    Audit(AuditArgs),
    /// Looks over files with the authorities to believe: what is in them, and what is wrong with it.
    ///
    /// Ends with 0 where nothing is worse than a warning, 1 where something is, 2 where a file cannot be read.
    Bundle(BundleArgs),
    /// Meets servers as the proxy would, sends nothing, and says what is wrong and how to mend it.
    ///
    /// Takes the configuration of `run`, with its variables; what is for listeners does not matter. Ends with 0
    /// where all servers are trusted, 1 where any is not, 2 where the question is wrong.
    Check(Box<CheckArgs>),
    /// Shows what passes and what is refused, on a gallery of servers made for it.
    Demo(DemoArgs),
    /// Prints the fingerprints of certificates and of their keys, ready for `pins` and `identity`.
    ///
    /// For servers it takes the configuration of `run`, with its variables. Ends with 0 where all servers are
    /// trusted, 1 where any is not, 2 where the question is wrong.
    Pin(Box<PinArgs>),
    /// Runs the proxy until SIGTERM.
    ///
    /// Bundles, lists, client certificates and the configuration file are read again when they change, and at
    /// SIGHUP; docs/configuration.md says what of them takes a restart.
    Run(Box<RunArgs>),
    /// Judges a chain from a file, as the proxy would judge a server's.
    ///
    /// Ends with 0 where the chain is accepted, 1 where it is refused, 2 where the question is wrong.
    Verify(VerifyArgs),
}

/// `vouchsafe audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Audit logs, plain or packed by gzip; `-` is standard input. Each line is one event.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Only events recorded then or later: `2026-11-20T08:00:00Z`, `2026-11-20` (from 00:00 UTC), or how
    /// long ago, as in `24h` or `7d`.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,

    /// Only events recorded before that; written as for `--since`.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,

    /// Only events of this upstream; without a port, of all its ports.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub upstream: Option<String>,

    /// Only events with this code, as in `expired`; docs/failures.md has them all.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,

    /// Only the event with this id, whole; repeats are found by their ids, too.
    #[arg(long, value_name = "ID")]
    pub event: Option<String>,

    /// What events are grouped by.
    #[arg(long, value_name = "WHAT", default_value = "kind")]
    pub by: By,

    /// What comes first.
    #[arg(long, value_name = "ORDER", default_value = "last")]
    pub sort: Order,

    /// How the answer is written; docs/audit-log.md describes the JSON document.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,

    /// Exit with 1 if something was sent without verification, if events are missing, or if lines are broken.
    #[arg(long)]
    pub strict: bool,
}

/// A point in time as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long before now.
    Ago(Duration),
    /// Then.
    At(OffsetDateTime),
}

impl Moment {
    /// When that is; what would be before all time is as early as can be said.
    pub fn resolve(self, now: OffsetDateTime) -> OffsetDateTime {
        match self {
            Self::Ago(age) => now.checked_sub(age.try_into().unwrap_or(time::Duration::MAX)).unwrap_or(FIRST),
            Self::At(at) => at,
        }
    }
}

const FIRST: OffsetDateTime = Date::MIN.midnight().assume_utc();

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let day = || Date::parse(text, format_description!("[year]-[month]-[day]"));
        if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339).or_else(|_| day().map(|day| day.midnight().assume_utc()))
        {
            return Ok(Self::At(at));
        }
        humantime::parse_duration(text)
            .map(Self::Ago)
            .map_err(|_| "write it as in `2026-11-20T08:00:00Z`, `2026-11-20`, `24h` or `7d`".into())
    }
}

/// `vouchsafe demo`
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave servers and proxy running until Ctrl-C, for your own curl.
    #[arg(long)]
    pub keep: bool,
}

/// `vouchsafe run`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// A TOML file that says what the flags say, and settings for single upstreams.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_CONFIG")]
    pub config: Option<PathBuf>,

    /// All that a file may say too.
    #[command(flatten)]
    pub options: Options,
}

/// `vouchsafe verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The authorities to believe: PEM files, or directories of them.
    #[arg(long, value_name = "PATH", required = true)]
    pub ca_bundle: Vec<PathBuf>,

    /// The host name or address that the server has to prove.
    #[arg(long, value_name = "NAME")]
    pub name: String,

    /// The moment to judge at, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,

    /// Revocation lists, PEM or DER; each CA of a chain has its own. May be repeated.
    #[arg(long, value_name = "FILE")]
    pub crl: Vec<PathBuf>,

    /// What to do where the lists do not say that a certificate is good: `unknown=refuse|tolerate` where no list
    /// covers it, `expired=refuse|tolerate` where the list is out of date. Without lists nothing is asked
    /// [default: unknown=refuse,expired=refuse]
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    pub crl_policy: Vec<String>,

    /// A public key that has to be on the chain: `sha256:HEX` or `sha256//BASE64`. Where it is repeated, one of them.
    #[arg(long, value_name = "FINGERPRINT")]
    pub pin: Vec<String>,

    /// The certificate to accept, whatever its names and issuer, and no other: `sha256:HEX`, or a PEM file. Where it
    /// is repeated, one of them.
    #[arg(long, value_name = "CERTIFICATE", conflicts_with = "pin")]
    pub identity: Vec<String>,

    /// Write one JSON object.
    #[arg(long)]
    pub json: bool,

    /// What the server sends, PEM: its own certificate first.
    #[arg(value_name = "CHAIN")]
    pub chain: PathBuf,
}

/// `vouchsafe bundle`
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// The moment to judge at, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,

    /// Write one JSON object.
    #[arg(long)]
    pub json: bool,

    /// PEM files, or directories of them: what one would give to --ca-bundle.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
}

/// `vouchsafe check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// What the proxy would be started with.
    #[command(flatten)]
    pub run: RunArgs,

    /// Write one JSON array, with an object for each server.
    #[arg(long)]
    pub json: bool,

    /// `https://HOST[:PORT]`, `HOST[:PORT]`, or `http://…` as a client of a forward listener would say it
    /// [default: what --route and the file name]
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
}

/// `vouchsafe pin`
#[derive(Debug, Args)]
pub struct PinArgs {
    /// What the proxy would be started with.
    #[command(flatten)]
    pub run: RunArgs,

    /// Write one JSON array, with an object for each file or server.
    #[arg(long)]
    pub json: bool,

    /// A PEM file with certificates, or a server: `https://HOST[:PORT]` or `HOST[:PORT]`.
    #[arg(value_name = "FILE|URL", required = true)]
    pub of: Vec<String>,
}

impl Options {
    /// The flags that are about the way out. The others are for listeners and for a process that stays.
    pub const OUTWARD: [&'static str; 12] = [
        "route",
        "port_map",
        "ca_bundle",
        "system_roots",
        "crl",
        "crl_policy",
        "min_tls",
        "client_cert",
        "client_key",
        "connect_to",
        "connect_timeout",
        "tls_timeout",
    ];
}

/// What flags, variables and the file may say. A flag goes before its variable, that before the file,
/// that before the preset.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A fixed route: all requests to LISTEN go to the upstream, for example
    /// `127.0.0.1:19292=https://glance.example:9292`.
    #[arg(long, value_name = "LISTEN=URL", env = "VOUCHSAFE_ROUTE", value_delimiter = ',', help_heading = "Ways in")]
    #[serde(deserialize_with = "one_or_more")]
    pub route: Vec<String>,

    /// A forward listener: for tools with `http_proxy`, and for names mapped to loopback.
    #[arg(long, value_name = "LISTEN", env = "VOUCHSAFE_FORWARD", value_delimiter = ',', help_heading = "Ways in")]
    #[serde(deserialize_with = "one_or_more")]
    pub forward: Vec<String>,

    /// Where forward listeners may take a client: `HOST[:PORT]`, `*.SUFFIX`, `*` or `NETWORK/BITS`.
    /// Loopback and metadata addresses need an exact host or a network.
    #[arg(long, value_name = "PATTERN", env = "VOUCHSAFE_ALLOW", value_delimiter = ',', help_heading = "Ways in")]
    #[serde(deserialize_with = "one_or_more")]
    pub allow: Vec<String>,

    /// A name that clients may use for a fixed route on a loopback address, besides loopback's own, the listener's and
    /// the upstream's. Any other Host is refused, so that a web page cannot use the route under a name of its own.
    #[arg(long, value_name = "HOST", env = "VOUCHSAFE_ACCEPT_HOST", value_delimiter = ',', help_heading = "Ways in")]
    #[serde(deserialize_with = "one_or_more")]
    pub accept_host: Vec<String>,

    /// Take a plain port of a forwarded destination for this TLS port; 80 means 443 anyway.
    #[arg(long, value_name = "PLAIN=TLS", env = "VOUCHSAFE_PORT_MAP", value_delimiter = ',', help_heading = "Ways in")]
    #[serde(deserialize_with = "one_or_more")]
    pub port_map: Vec<String>,

    /// Let listeners be reached from other hosts. What they speak is plain text.
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_ALLOW_NONLOCAL_LISTEN", num_args = 0..=1, default_missing_value = "true", help_heading = "Ways in")]
    pub allow_nonlocal_listen: Option<bool>,

    /// The authorities to believe: PEM files, or directories of them [default: the first that is set of OS_CACERT,
    /// REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR]
    #[arg(long, value_name = "PATH", env = "VOUCHSAFE_CA_BUNDLE", value_delimiter = ',', help_heading = "Trust")]
    #[serde(deserialize_with = "one_or_more")]
    pub ca_bundle: Vec<PathBuf>,

    /// Believe the system's authorities, too: those of SSL_CERT_FILE and SSL_CERT_DIR, where one of them is set.
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_SYSTEM_ROOTS", num_args = 0..=1, default_missing_value = "true", help_heading = "Trust")]
    pub system_roots: Option<bool>,

    /// Revocation lists, PEM or DER; each CA of a chain has its own.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_CRL", value_delimiter = ',', help_heading = "Trust")]
    #[serde(deserialize_with = "one_or_more")]
    pub crl: Vec<PathBuf>,

    /// What to do where the lists do not say that a certificate is good: `unknown=refuse|tolerate` where no list
    /// covers it, `expired=refuse|tolerate` where the list is out of date [default: unknown=tolerate,expired=refuse]
    #[arg(long, value_name = "RULE", env = "VOUCHSAFE_CRL_POLICY", value_delimiter = ',', help_heading = "Trust")]
    #[serde(deserialize_with = "one_or_more")]
    pub crl_policy: Vec<String>,

    /// The lowest TLS version to speak, 1.2 or 1.3 [default: 1.2]
    #[arg(long, value_name = "VERSION", env = "VOUCHSAFE_MIN_TLS", help_heading = "Trust")]
    pub min_tls: Option<TlsVersion>,

    /// Our own certificate with its chain, PEM, for upstreams that ask for one [default: OS_CERT, where that is set]
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_CLIENT_CERT", help_heading = "Trust")]
    pub client_cert: Option<PathBuf>,

    /// Its key, PEM, not encrypted [default: the certificate's file; beside OS_CERT first OS_KEY]
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_CLIENT_KEY", help_heading = "Trust")]
    pub client_key: Option<PathBuf>,

    /// How often bundles, lists, client certificates and the configuration file are looked at for changes
    /// [default: 200ms]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_RELOAD_INTERVAL", help_heading = "Trust")]
    pub reload_interval: Option<Span>,

    /// Connect elsewhere than the name says, and verify the name all the same.
    #[arg(
        long,
        value_name = "HOST[:PORT]=HOST[:PORT]",
        env = "VOUCHSAFE_CONNECT_TO",
        value_delimiter = ',',
        help_heading = "Upstreams"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub connect_to: Vec<String>,

    /// A set of settings: `glance-replicator`.
    #[arg(long, value_name = "NAME", env = "VOUCHSAFE_PRESET", help_heading = "Answers")]
    pub preset: Option<Preset>,

    /// How a failure is answered [default: legacy]
    #[arg(long, value_name = "POLICY", env = "VOUCHSAFE_ANSWER", help_heading = "Answers")]
    pub answer: Option<AnswerPolicy>,

    /// How much a client is told of a failure [default: class]
    #[arg(long, value_name = "DETAIL", env = "VOUCHSAFE_DETAIL", help_heading = "Answers")]
    pub detail: Option<Detail>,

    /// What Host the upstream sees [default: upstream]
    #[arg(long, value_name = "WHOSE", env = "VOUCHSAFE_HOST", help_heading = "Answers")]
    pub host: Option<HostPolicy>,

    /// How response field names are written [default: preserve]
    #[arg(long, value_name = "CASE", env = "VOUCHSAFE_FIELD_CASE", help_heading = "Answers")]
    pub field_case: Option<FieldCase>,

    /// Rewrite links to upstreams that are served here, so that clients stay on this proxy [default: true]
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_REWRITE_REDIRECTS", num_args = 0..=1, default_missing_value = "true", help_heading = "Answers")]
    pub rewrite_redirects: Option<bool>,

    /// Follow redirects of GET and HEAD here, each hop verified [default: false]
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_FOLLOW_REDIRECTS", num_args = 0..=1, default_missing_value = "true", help_heading = "Answers")]
    pub follow_redirects: Option<bool>,

    /// Audit events go to this file too, one JSON line each.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_AUDIT_LOG", help_heading = "Records")]
    pub audit_log: Option<PathBuf>,

    /// For how long refusals that repeat are counted instead of written [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_FOLD_REPEATS", help_heading = "Records")]
    pub fold_repeats: Option<Span>,

    /// Chains of refused servers are kept here, a PEM file for each distinct one, 1000 at most.
    #[arg(long, value_name = "DIR", env = "VOUCHSAFE_SAVE_FAILED_CHAINS", help_heading = "Records")]
    pub save_failed_chains: Option<PathBuf>,

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

    /// Silence both ways, once an upstream has switched to websocket [default: 1h]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_TUNNEL_TIMEOUT", help_heading = "Limits")]
    pub tunnel_timeout: Option<Span>,

    /// How long an upstream connection is kept for the next request [default: 30s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_POOL_IDLE_TIMEOUT", help_heading = "Limits")]
    pub pool_idle_timeout: Option<Span>,

    /// How many connections are kept for each upstream and thread [default: 256]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_POOL_SIZE", help_heading = "Limits")]
    pub pool_size: Option<usize>,

    /// For what runs when SIGTERM comes [default: 30s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_DRAIN_TIMEOUT", help_heading = "Limits")]
    pub drain_timeout: Option<Span>,

    /// Bytes of a request's or response's head, 8192 to 1048576 [default: 65536]
    #[arg(long, value_name = "BYTES", env = "VOUCHSAFE_MAX_HEAD", help_heading = "Limits")]
    pub max_head: Option<usize>,

    /// Field lines of a request's head, 16 to 10000 [default: 200]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_MAX_FIELDS", help_heading = "Limits")]
    pub max_fields: Option<usize>,

    /// Field lines of a response's head, 16 to 10000 [default: 500]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_MAX_RESPONSE_FIELDS", help_heading = "Limits")]
    pub max_response_fields: Option<usize>,

    /// Bytes of a request's target, 256 to 65000 [default: 16384]
    #[arg(long, value_name = "BYTES", env = "VOUCHSAFE_MAX_TARGET", help_heading = "Limits")]
    pub max_target: Option<usize>,

    /// Clients that may be connected at a time [default: 10000, or what the limit on open files can carry]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_MAX_CONNECTIONS", help_heading = "Limits")]
    pub max_connections: Option<usize>,

    /// Clients that may be connected to each listener at a time [default: as many as in all]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_MAX_LISTENER_CONNECTIONS", help_heading = "Limits")]
    pub max_listener_connections: Option<usize>,

    /// How long a client waits while there are too many, before it is refused [default: 5s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_CONNECTION_WAIT", help_heading = "Limits")]
    pub connection_wait: Option<Span>,

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
    #[serde(default, alias = "https_ca_bundle", deserialize_with = "one_or_more")]
    pub ca_bundle: Vec<PathBuf>,
    /// Believe the system's authorities, too; alone, instead of the default bundle.
    pub system_roots: Option<bool>,
    /// Revocation lists instead of the default ones.
    #[serde(default, deserialize_with = "one_or_more")]
    pub crl: Vec<PathBuf>,
    /// Rules that differ from the default ones.
    #[serde(default, deserialize_with = "one_or_more")]
    pub crl_policy: Vec<String>,
    /// Public keys, of which one must be on the chain: `sha256:HEX` or `sha256//BASE64`.
    #[serde(default, deserialize_with = "one_or_more")]
    pub pins: Vec<String>,
    /// The certificates to accept, whatever their names and issuers, and no others: `sha256:HEX`, or a PEM file each.
    #[serde(default, deserialize_with = "one_or_more")]
    pub identity: Vec<String>,
    /// Our own certificate for it.
    pub client_cert: Option<PathBuf>,
    /// The key of that.
    pub client_key: Option<PathBuf>,
    /// The lowest TLS version to speak with it.
    pub min_tls: Option<TlsVersion>,
    /// Through this day (UTC), refusals are recorded and not obeyed.
    #[serde(default, deserialize_with = "day")]
    pub report_only_until: Option<String>,
    /// For these classes alone.
    #[serde(default, deserialize_with = "one_or_more")]
    pub report_only: Vec<String>,
    /// Understood, so that an error can explain it.
    pub disable_https_verification: Option<bool>,
}

impl UpstreamOptions {
    /// The keys of the section.
    pub const KEYS: [&'static str; 17] = [
        "of",
        "connect_to",
        "verify_name",
        "sni",
        "ca_bundle",
        "https_ca_bundle",
        "system_roots",
        "crl",
        "crl_policy",
        "pins",
        "identity",
        "client_cert",
        "client_key",
        "min_tls",
        "report_only_until",
        "report_only",
        "disable_https_verification",
    ];

    /// Whether it says whom to believe or how to speak: what counts as a whole, of one section.
    pub fn is_about_tls(&self) -> bool {
        let lists = [&self.crl_policy, &self.identity, &self.pins, &self.report_only];
        let paths = [&self.ca_bundle, &self.crl];
        lists.iter().any(|list| !list.is_empty())
            || paths.iter().any(|paths| !paths.is_empty())
            || self.system_roots.is_some()
            || self.client_cert.is_some()
            || self.client_key.is_some()
            || self.min_tls.is_some()
            || self.report_only_until.is_some()
    }
}

/// A list, or a single value for a list of one.
fn one_or_more<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a text, or a list of texts")]
    enum Said<T> {
        More(Vec<T>),
        One(T),
    }
    match Said::deserialize(deserializer)? {
        // Whoever wrote it meant something by it: an empty list of pins is not the wish for none.
        Said::More(all) if all.is_empty() => Err(Error::custom("the list is empty; leave the key out")),
        Said::More(all) => Ok(all),
        Said::One(one) => Ok(vec![one]),
    }
}

/// A day as TOML has it, or as text.
fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a day, as in `2027-01-31`")]
    enum Said {
        Date(toml::value::Datetime),
        Text(String),
    }
    Ok(Some(match Said::deserialize(deserializer)? {
        Said::Date(date) => date.to_string(),
        Said::Text(text) => text,
    }))
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

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn moments_as_people_write_them() {
        let now = datetime!(2026-11-21 12:00 UTC);
        for (text, at) in [
            ("2026-11-20T08:00:00Z", Some(datetime!(2026-11-20 08:00 UTC))),
            ("2026-11-20T08:00:00+01:00", Some(datetime!(2026-11-20 07:00 UTC))),
            ("2026-11-20", Some(datetime!(2026-11-20 00:00 UTC))),
            ("24h", Some(datetime!(2026-11-20 12:00 UTC))),
            ("7d", Some(datetime!(2026-11-14 12:00 UTC))),
            ("1h 30m", Some(datetime!(2026-11-21 10:30 UTC))),
            ("0s", Some(now)),
            ("100000years", Some(FIRST)),
            ("2026-11-31", None),
            ("2026-11-20T08:00:00", None),
            ("yesterday", None),
            ("24", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Moment>().ok().map(|moment| moment.resolve(now)), at, "{text}");
        }
    }
}
