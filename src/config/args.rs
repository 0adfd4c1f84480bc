//! The command line. The doc comments are the `--help` text. Nothing is decided here, and there is no IO.

use std::{collections::BTreeSet, ffi::OsString, fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum as _, value_parser};
use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};
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
    terminal::ColorWhen,
    text::show_value,
    tls::client::TlsVersion,
};

/// Plain HTTP in, verified TLS out: secures tools that cannot verify servers, and records every refusal.
#[derive(Debug, Parser)]
#[command(name = "vouchsafe", version, arg_required_else_help = true)]
pub struct Cli {
    /// When to use colours. `auto` is on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true, hide_short_help = true)]
    pub color: ColorWhen,

    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The sub-commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Summarizes audit logs: which servers were refused, why, how often, who was affected, and what was sent.
    ///
    /// Exit status: 0; 1 if a file could not be read to its end or is no audit log; 2 for a usage error.
    Audit(AuditArgs),
    /// Makes a local CA, for clients that speak TLS to the proxy.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Checks CA bundles for mistakes: what is in them, what is wrong, and how to fix it.
    ///
    /// Exit status: 0 if there is nothing worse than a warning; 1 if there is an error; 2 if a file cannot be read; 3 by
    /// --expires-within.
    Bundle(BundleArgs),
    /// Connects to servers as the proxy would and shows what is wrong and how to fix it; sends no request, except with
    /// --catalog.
    ///
    /// Takes the flags, variables and configuration file of `run`; settings for listeners are ignored, except with
    /// --catalog. Exit status: 0 if all servers are trusted, and with --catalog served; 1 if one is not; 2 for a usage
    /// or configuration error; 3 by --expires-within.
    Check(Box<CheckArgs>),
    /// Prints a script that completes commands and flags in a shell.
    Completions(CompletionsArgs),
    /// Validates or shows the configuration of `run`, without starting the proxy.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Shows what passes and what is refused, with a temporary CA and a set of good and bad servers.
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
    /// Runs a tool behind a proxy of its own, and ends with the tool's exit status.
    ///
    /// The proxy takes the flags, variables and configuration file of `run`. The tool keeps its terminal, its place in
    /// the process group and its standard streams, and finds `http_proxy` set to the proxy. A route may have a name in
    /// place of an address, as in `--route glance-a=https://glance-a.example:9292`: its port is free to choose, and
    /// `{glance-a}`, `{glance-a.port}`, `{glance-a.url}` and `{glance-a.localhost}` stand for its address in the tool's
    /// arguments and variables. docs/exec.md has the details.
    ///
    /// Exit status: that of the tool; 120 by --fail-on-refusal; 125 if the proxy could not start or failed; 126 if the
    /// tool cannot be executed; 127 if it is not found.
    Exec(Box<ExecArgs>),
    /// Explains a code: what it means, how it comes about, and what to do. Without a code, lists all of them.
    Explain(ExplainArgs),
    /// Prints the manual page of vouchsafe or of a command, or writes all of them to a directory.
    Man(ManArgs),
    /// Prints the fingerprints of certificates and of their keys, ready for `pins` and `identity`.
    ///
    /// For servers it takes the flags, variables and configuration file of `run`. Exit status: 0 if all servers are
    /// trusted; 1 if one is not; 2 for a usage or configuration error.
    Pin(Box<PinArgs>),
    /// Exits with 0 if the proxy is ready: for a health check or an exec probe in an image without a shell.
    ///
    /// It reads the ready file, and sees whether the process that wrote it still runs, or it asks the admin listener. Exit status: 0 if it is ready; 1 if it
    /// is not, if it drains, or if it has ended; 2 for a usage or configuration error.
    Ready(ReadyArgs),
    /// Connects as `redirect-rules --check` asks for, which runs it as another user.
    #[command(hide = true)]
    RedirectProbe(RedirectProbeArgs),
    /// Prints rules of the kernel that lead the connections of a tool's user to a transparent listener, or checks them.
    ///
    /// Exit status: 0; with --check 1 if the loaded rules do not do what they say; 2 for a usage error.
    RedirectRules(RedirectRulesArgs),
    /// Runs the proxy until SIGTERM or SIGINT.
    ///
    /// Bundles, revocation lists, client certificates and the configuration file are read again when they change, and
    /// on SIGHUP. docs/configuration.md lists the settings that need a restart.
    ///
    /// Exit status: 0 if all requests were finished; 1 if it failed or requests were cut; 2 for a usage or
    /// configuration error.
    Run(Box<RunArgs>),
    /// Verifies a certificate chain from a file, as the proxy would verify a server's.
    ///
    /// Exit status: 0 if the chain is accepted; 1 if it is refused; 2 for a usage error.
    Verify(VerifyArgs),
}

/// `vouchsafe ca`
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Makes a CA that can sign for the permitted names only: ca.pem, for the clients, and issuer.pem and issuer.key, for
    /// the proxy.
    ///
    /// Without --permit, it permits the destinations of --allow and of routes that begin with `tls://`, as flags,
    /// variables and the configuration file of `run` have them. Exit status: 0; 1 if a file cannot be written, or exists;
    /// 2 for a usage or configuration error.
    Init(Box<CaInitArgs>),
}

/// `vouchsafe ca init`
#[derive(Debug, Args)]
pub struct CaInitArgs {
    /// The configuration of the proxy.
    #[command(flatten)]
    pub run: RunArgs,

    /// What the CA may sign for: a name, `.SUFFIX` for all names that end so, an address, or `NETWORK/BITS`.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub permit: Vec<String>,

    /// Let the CA sign for any name. Whoever gets its key can then impersonate every server to the clients that trust it.
    #[arg(long, conflicts_with = "permit")]
    pub permit_anything: bool,

    /// The directory for the files; it is made if it does not exist.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// `vouchsafe config`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Reads and validates everything that `run` would, and shows all errors and warnings.
    ///
    /// Exit status: 0 if `run` would accept the configuration, even with warnings; 2 if it would not.
    Check(Box<RunArgs>),
    /// Shows the value of every setting, and what set it: a flag, a variable, the file, the preset or the default.
    ///
    /// The output is a configuration file. Exit status: 0; 2 if the configuration cannot be read.
    Show(Box<ShowArgs>),
}

/// `vouchsafe config show`
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The configuration of the proxy.
    #[command(flatten)]
    pub run: RunArgs,

    /// Print one JSON array with an object for each setting.
    #[arg(long)]
    pub json: bool,
}

/// `vouchsafe exec`
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// The configuration of the proxy.
    #[command(flatten)]
    pub run: RunArgs,

    /// Run the tool in a network namespace of its own, in which every address leads to the proxy. It keeps its names and
    /// ports and needs no `http_proxy`; connections to ports of allowed destinations are verified, all others are
    /// refused and named at the end. Needs no root, but user namespaces.
    #[arg(long, help_heading = "Tool")]
    pub isolate: bool,

    /// More ports of an isolated tool that lead to the proxy, besides those of --allow.
    #[arg(long, value_name = "PORT", value_delimiter = ',', requires = "isolate", value_parser = value_parser!(u16).range(1..), help_heading = "Tool")]
    pub catch: Vec<u16>,

    /// A service on a loopback address that an isolated tool reaches without the proxy, as in `127.0.0.1:3306`.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', requires = "isolate", value_parser = loopback, help_heading = "Tool")]
    pub pass: Vec<SocketAddr>,

    /// Verify the servers of all routes and of every `--allow NAME:PORT` before the tool is started. If one is not trusted,
    /// report why and exit with 125.
    #[arg(long, help_heading = "Tool")]
    pub preflight: bool,

    /// Exit with 120 if the tool ended with 0 although requests were refused, failed, or were cut, or connections or names of
    /// an isolated tool were refused.
    #[arg(long, help_heading = "Tool")]
    pub fail_on_refusal: bool,

    /// Hosts that the tool reaches without a proxy, for `no_proxy`. An inherited `no_proxy` is removed.
    #[arg(long, value_name = "HOST", value_delimiter = ',', conflicts_with = "isolate", help_heading = "Tool")]
    pub tool_no_proxy: Vec<String>,

    /// Variables that the tool keeps as they are, of those that would lead it to the proxy or have it trust the local CA.
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Tool")]
    pub keep_env: Vec<String>,

    /// Append the proxy's log to this file, at level `info`, instead of writing warnings to stderr.
    #[arg(long, value_name = "FILE", help_heading = "Logs and files")]
    pub log_file: Option<PathBuf>,

    /// The tool, and its arguments.
    #[arg(value_name = "TOOL", last = true, required = true, num_args = 1..)]
    pub command: Vec<OsString>,
}

/// Reads a loopback address with a port.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_loopback() => {
            Err("only services of this host can be passed; they are not verified\nhint: use --allow for other hosts"
                .into())
        }
        Ok(address) if address.port() != 0 => Ok(address),
        _ => Err("a loopback address and a port are expected, as in `127.0.0.1:3306`".into()),
    }
}

/// `vouchsafe explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// A code, as in `name_mismatch`; as a response, the audit log, `check` or `bundle` shows it.
    #[arg(value_name = "CODE")]
    pub code: Option<String>,
}

/// `vouchsafe ready`
#[derive(Debug, Args)]
pub struct ReadyArgs {
    /// The configuration file of the proxy, which may name its ready file.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_CONFIG")]
    pub config: Option<PathBuf>,

    /// The ready file of the proxy.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_READY_FILE")]
    pub ready_file: Option<PathBuf>,

    /// The admin listener of the proxy, if it is on a UNIX socket: `unix:PATH`.
    #[arg(long, value_name = "ADDRESS", env = "VOUCHSAFE_ADMIN")]
    pub admin: Option<String>,

    /// Wait so long for the proxy to become ready; `0` asks once.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = wait_time)]
    pub timeout: Duration,
}

/// Reads how long to wait, `0` for not at all.
fn wait_time(text: &str) -> Result<Duration, String> {
    if text == "0" || humantime::parse_duration(text).is_ok_and(|time| time.is_zero()) {
        return Ok(Duration::ZERO);
    }
    text.parse::<Span>().map(|span| span.0)
}

/// `vouchsafe redirect-rules`
#[derive(Debug, Args)]
pub struct RedirectRulesArgs {
    /// The user that runs the tool, by name or number. Rules for the user that runs vouchsafe, and for root, are
    /// refused.
    #[arg(long, value_name = "USER", required = true, value_delimiter = ',')]
    pub user: Vec<String>,

    /// The ports that the tool connects to. Only ports of plain HTTP: what is not HTTP is refused there.
    #[arg(long, value_name = "PORT", required = true, value_delimiter = ',')]
    pub ports: Vec<String>,

    /// The port of the transparent listener.
    #[arg(long, value_name = "PORT", default_value = "15001")]
    pub to: String,

    /// The program that the rules are for.
    #[arg(long, value_name = "FORMAT", default_value = "nft")]
    pub format: RulesFormat,

    /// Print no rules, but check those that are loaded: connect as the user, and as the user that listens on --to, and
    /// see where the connections arrive. Needs root.
    #[arg(long)]
    pub check: bool,
}

/// What loads redirect rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RulesFormat {
    /// `nft -f`
    Nft,
    /// `iptables-restore --noflush`, and `ip6tables-restore --noflush` with the same
    Iptables,
}

/// `vouchsafe redirect-probe`
#[derive(Debug, Args)]
pub struct RedirectProbeArgs {
    /// Where to connect.
    #[arg(value_name = "ADDRESS:PORT", required = true)]
    pub addresses: Vec<SocketAddr>,
}

/// `vouchsafe audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Audit logs, plain or compressed with gzip; `-` is standard input.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Only events recorded at this time or later: `2026-11-20T08:00:00Z`, `2026-11-20` (00:00 UTC), or an age such
    /// as `24h` or `7d`.
    #[arg(long, value_name = "TIME")]
    pub since: Option<Moment>,

    /// Only events recorded before this time; written like `--since`.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Moment>,

    /// Only events of this upstream; without a port, all its ports.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub upstream: Option<String>,

    /// Only events with this code, as in `expired`; `vouchsafe explain` lists all codes.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,

    /// Only the event with this id, given in full; repeats are found by their ids too.
    #[arg(long, value_name = "ID")]
    pub event: Option<String>,

    /// What events are grouped by.
    #[arg(long, value_name = "WHAT", default_value = "kind")]
    pub by: By,

    /// The order of the summary.
    #[arg(long, value_name = "ORDER", default_value = "last")]
    pub sort: Order,

    /// The format of the summary; docs/audit-log.md describes the JSON document and the page.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: ReportFormat,

    /// Exit with 1 if something was sent without verification, if events are missing, or if lines are broken.
    #[arg(long)]
    pub strict: bool,
}

/// A point in time as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// An age: this long before now.
    Ago(Duration),
    /// A point in time.
    At(OffsetDateTime),
}

impl Moment {
    /// The time, where an age is counted back from `now`; the earliest representable one if that is out of range.
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
            .map_err(|_| "not a time\nhint: write it as in `2026-11-20T08:00:00Z`, `2026-11-20`, `24h` or `7d`".into())
    }
}

/// `vouchsafe completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: CompletionShell,
}

/// A shell that completions are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CompletionShell {
    /// `source <(vouchsafe completions bash)`
    Bash,
    /// `vouchsafe completions elvish > ~/.config/elvish/lib/vouchsafe.elv`
    Elvish,
    /// `vouchsafe completions fish > ~/.config/fish/completions/vouchsafe.fish`
    Fish,
    /// `vouchsafe completions zsh > "${fpath[1]}/_vouchsafe"`
    Zsh,
}

/// `vouchsafe man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The command that the page is about, as in `config show`; without it, vouchsafe itself. To read it:
    /// `vouchsafe man run | man -l -`.
    #[arg(value_name = "COMMAND")]
    pub command: Vec<String>,

    /// Write all pages to this directory, each to a file such as `vouchsafe-run.1`.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "command")]
    pub directory: Option<PathBuf>,
}

/// `vouchsafe demo`
#[cfg(feature = "demo")]
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Keep servers and proxy running until Ctrl-C, so that you can try them with curl.
    #[arg(long)]
    pub keep: bool,
}

/// `vouchsafe run`
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Configuration file (TOML): the same settings as the flags, and `[[upstream]]` and `[[listener]]` sections.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_CONFIG")]
    pub config: Option<PathBuf>,

    /// All settings that flags, variables and the file share.
    #[command(flatten)]
    pub options: Options,

    /// The keys whose value came from a `VOUCHSAFE_` variable and not from a flag.
    #[arg(skip)]
    pub from_variables: BTreeSet<String>,

    /// The command that they are for.
    #[arg(skip)]
    pub purpose: Purpose,
}

/// The command that the configuration of a proxy is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// `run`, and commands that show what it would do.
    #[default]
    Run,
    /// `exec`, with its log in a file or on the tool's stderr. For an isolated tool: the ports to catch besides those of
    /// allowed destinations.
    Exec { log_file: bool, isolated: Option<Vec<u16>> },
}

/// `vouchsafe verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Trusted CAs: PEM files, or directories of them.
    #[arg(long, visible_alias = "cacert", value_name = "PATH", required = true)]
    pub ca_bundle: Vec<PathBuf>,

    /// The host name or IP address that the certificate has to be valid for.
    #[arg(long, value_name = "NAME")]
    pub name: String,

    /// Verify as of this time: `2026-11-20T08:00:00Z`, `2026-11-20` (00:00 UTC), or an age such as `7d`
    /// [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<Moment>,

    /// Revocation lists, PEM or DER, one for each CA of the chain; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub crl: Vec<PathBuf>,

    /// What to do when no list covers a certificate (`unknown=refuse|tolerate`), or when the list has expired
    /// (`expired=refuse|tolerate`). Without --crl revocation is not checked
    /// [default: unknown=refuse,expired=refuse]
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    pub crl_policy: Vec<String>,

    /// A public key that must be in the chain: `sha256:HEX` or `sha256//BASE64`. If repeated, one of them must be.
    #[arg(long, value_name = "FINGERPRINT")]
    pub pin: Vec<String>,

    /// The certificate to trust, regardless of its names and issuer: `sha256:HEX`, or a PEM file. If repeated, any of
    /// them.
    #[arg(long, value_name = "CERTIFICATE", conflicts_with = "pin")]
    pub identity: Vec<String>,

    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,

    /// The certificates that the server sends, PEM, its own first.
    #[arg(value_name = "CHAIN")]
    pub chain: PathBuf,
}

/// Reads how near an expiry has to be to be reported.
fn expires_within(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "not a time\nhint: write it as in `14d` or `12h`".into())
}

/// `vouchsafe bundle`
#[derive(Debug, Args)]
pub struct BundleArgs {
    /// Check as of this time: `2026-11-20T08:00:00Z`, `2026-11-20` (00:00 UTC), or an age such as `7d` [default: now]
    #[arg(long, value_name = "TIME")]
    pub at: Option<Moment>,

    /// Exit with 3 if there is no error, but a certificate expires within this time, as in `30d`.
    #[arg(long, value_name = "TIME", value_parser = expires_within)]
    pub expires_within: Option<Duration>,

    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,

    /// The bundle as for --ca-bundle: PEM files, or directories of them.
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<PathBuf>,
}

/// `vouchsafe check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration of the proxy.
    #[command(flatten)]
    pub run: RunArgs,

    /// Print one JSON array with an object for each server; with --catalog, one object.
    #[arg(long)]
    pub json: bool,

    /// Exit with 3 if all servers are trusted, but one will not be any more within this time, as in `14d`, since a
    /// certificate of its chain, the CA or a revocation list expires.
    #[arg(long, value_name = "TIME", conflicts_with = "catalog", value_parser = expires_within)]
    pub expires_within: Option<Duration>,

    /// Print one line for each server, and their sum.
    #[arg(long, conflicts_with_all = ["catalog", "json"])]
    pub brief: bool,

    /// Ask Keystone for its catalog, as a client would that is configured by OS_AUTH_URL, OS_USERNAME, OS_PASSWORD and
    /// OS_PROJECT_NAME, and show which endpoints these settings serve, and which flags are missing. The password is sent
    /// to a verified Keystone only.
    #[arg(long, conflicts_with = "urls")]
    pub catalog: bool,

    /// `https://HOST[:PORT]`, `HOST[:PORT]`, or `http://…` as a client of a forward listener would write it
    /// [default: all routes, and all `[[upstream]]` sections with a port]
    #[arg(value_name = "URL")]
    pub urls: Vec<String>,
}

/// `vouchsafe pin`
#[derive(Debug, Args)]
pub struct PinArgs {
    /// The configuration of the proxy.
    #[command(flatten)]
    pub run: RunArgs,

    /// Print one JSON array with an object for each file or server.
    #[arg(long)]
    pub json: bool,

    /// A PEM file with certificates, or a server: `https://HOST[:PORT]` or `HOST[:PORT]`.
    #[arg(value_name = "FILE|URL", required = true)]
    pub of: Vec<String>,
}

impl Options {
    /// The settings that matter for connections to upstreams. The others are for listeners and for the process.
    pub const FOR_UPSTREAMS: [&'static str; 19] = [
        "route",
        "mirror",
        "port_map",
        "ca_bundle",
        "system_roots",
        "crl",
        "crl_policy",
        "min_tls",
        "client_cert",
        "client_key",
        "connect_to",
        "parent_proxy",
        "parent_proxy_credentials",
        "no_proxy",
        "parent_ca_bundle",
        "parent_client_cert",
        "parent_client_key",
        "connect_timeout",
        "tls_timeout",
    ];
}

/// The settings that flags, variables and the file share. A flag takes precedence over its variable, that over the
/// file, that over the preset.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A fixed route: all requests to LISTEN go to the upstream, for example
    /// `127.0.0.1:19292=https://glance.example:9292`. LISTEN is an address and a port, `unix:PATH,mode=0660`, or
    /// `fd:NAME` for a socket of systemd. For `exec`, LISTEN may be a name. With `tls://` before it, clients have to speak
    /// TLS there, which needs --local-ca.
    #[arg(long, value_name = "LISTEN=URL", env = "VOUCHSAFE_ROUTE", value_delimiter = ',', help_heading = "Listeners")]
    #[serde(deserialize_with = "one_or_more")]
    pub route: Vec<String>,

    /// Fixed routes to several ports of one server, from the same ports of another address, for example
    /// `127.0.0.2=devstack.example:5000,9292`; 443 is served at 80. Without ports, those of `--preset openstack`.
    #[arg(
        long,
        value_name = "ADDRESS=HOST[:PORT,…]",
        env = "VOUCHSAFE_MIRROR",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub mirror: Vec<String>,

    /// How clients reach a fixed route's listener, in links to it, where they do so neither by its address nor by the host
    /// that they used, for example `0.0.0.0:9292=http://proxy.example:19292`. LISTEN is written as for --route; where it begins
    /// with `tls://`, the URL is `https://`.
    #[arg(
        long,
        value_name = "LISTEN=URL",
        env = "VOUCHSAFE_ADVERTISE",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub advertise: Vec<String>,

    /// A forward listener: for tools that support `http_proxy`, and for names mapped to loopback. LISTEN is written as
    /// for --route.
    #[arg(long, value_name = "LISTEN", env = "VOUCHSAFE_FORWARD", value_delimiter = ',', help_heading = "Listeners")]
    #[serde(deserialize_with = "one_or_more")]
    pub forward: Vec<String>,

    /// A transparent listener: redirect rules of the kernel lead the connections of a tool here, and `vouchsafe
    /// redirect-rules` prints them. A port alone stands for that port of 127.0.0.1 and of ::1.
    #[arg(
        long,
        value_name = "[ADDRESS:]PORT",
        env = "VOUCHSAFE_TRANSPARENT",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub transparent: Vec<String>,

    /// Allowed destinations of forward and transparent listeners: `HOST[:PORT]`, `*.SUFFIX`, `*` or `NETWORK/BITS`.
    /// Every destination is denied until you allow it; loopback and metadata addresses need an exact host or a network,
    /// and at a transparent listener the address itself or a network.
    #[arg(long, value_name = "PATTERN", env = "VOUCHSAFE_ALLOW", value_delimiter = ',', help_heading = "Listeners")]
    #[serde(deserialize_with = "one_or_more")]
    pub allow: Vec<String>,

    /// A name that clients may use for a fixed route on a loopback address, in addition to those of loopback, of the
    /// listener and of the upstream. Any other Host is refused, so that a web page cannot use the route under a name of
    /// its own.
    #[arg(long, value_name = "HOST", env = "VOUCHSAFE_ACCEPT_HOST", value_delimiter = ',', help_heading = "Listeners")]
    #[serde(deserialize_with = "one_or_more")]
    pub accept_host: Vec<String>,

    /// Map the port of a forwarded `http://` destination to a TLS port; 80 always maps to 443 by default.
    #[arg(
        long,
        value_name = "PLAIN=TLS",
        env = "VOUCHSAFE_PORT_MAP",
        value_delimiter = ',',
        help_heading = "Listeners"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub port_map: Vec<String>,

    /// Allow listeners on addresses that other hosts can reach. Clients speak plain text to them.
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_ALLOW_NONLOCAL_LISTEN", num_args = 0..=1, default_missing_value = "true", help_heading = "Listeners")]
    pub allow_nonlocal_listen: Option<bool>,

    /// The directory of a local CA, made by `vouchsafe ca init`. With it, clients may speak TLS too: inside CONNECT, at
    /// routes that begin with `tls://`, and on connections that a transparent listener receives. Their certificates are
    /// signed by this CA, whose ca.pem they have to trust.
    #[arg(long, value_name = "DIR", env = "VOUCHSAFE_LOCAL_CA", help_heading = "Listeners")]
    pub local_ca: Option<PathBuf>,

    /// Trusted CAs: PEM files, or directories of them [default: the first that is set of OS_CACERT,
    /// REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE, SSL_CERT_DIR]
    #[arg(
        long,
        visible_alias = "cacert",
        value_name = "PATH",
        env = "VOUCHSAFE_CA_BUNDLE",
        value_delimiter = ',',
        help_heading = "Trust"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub ca_bundle: Vec<PathBuf>,

    /// Also trust the CAs of the system; SSL_CERT_FILE and SSL_CERT_DIR say where they are, if set.
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_SYSTEM_ROOTS", num_args = 0..=1, default_missing_value = "true", help_heading = "Trust")]
    pub system_roots: Option<bool>,

    /// Revocation lists, PEM or DER, one for each CA of a chain.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_CRL", value_delimiter = ',', help_heading = "Trust")]
    #[serde(deserialize_with = "one_or_more")]
    pub crl: Vec<PathBuf>,

    /// What to do when no list covers a certificate (`unknown=refuse|tolerate`), or when the list has expired
    /// (`expired=refuse|tolerate`) [default: unknown=tolerate,expired=refuse]
    #[arg(long, value_name = "RULE", env = "VOUCHSAFE_CRL_POLICY", value_delimiter = ',', help_heading = "Trust")]
    #[serde(deserialize_with = "one_or_more")]
    pub crl_policy: Vec<String>,

    /// The lowest TLS version to accept, 1.2 or 1.3 [default: 1.2]
    #[arg(long, value_name = "VERSION", env = "VOUCHSAFE_MIN_TLS", help_heading = "Trust")]
    pub min_tls: Option<TlsVersion>,

    /// Client certificate with its chain, PEM, for upstreams that request one [default: OS_CERT, if set]
    #[arg(long, visible_alias = "cert", value_name = "FILE", env = "VOUCHSAFE_CLIENT_CERT", help_heading = "Trust")]
    pub client_cert: Option<PathBuf>,

    /// Key of the client certificate, PEM, not encrypted [default: the certificate's file; with OS_CERT, OS_KEY if set]
    #[arg(long, visible_alias = "key", value_name = "FILE", env = "VOUCHSAFE_CLIENT_KEY", help_heading = "Trust")]
    pub client_key: Option<PathBuf>,

    /// How often bundles, revocation lists, client certificates and the configuration file are checked for changes
    /// [default: 200ms]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_RELOAD_INTERVAL", help_heading = "Trust")]
    pub reload_interval: Option<Span>,

    /// Connect to another host or address than the name; the name is still verified.
    #[arg(
        long,
        value_name = "HOST[:PORT]=HOST[:PORT]",
        env = "VOUCHSAFE_CONNECT_TO",
        value_delimiter = ',',
        help_heading = "Upstreams"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub connect_to: Vec<String>,

    /// A proxy that all upstreams are reached through, with CONNECT: `http://[USER:PASSWORD@]HOST:PORT`, the same with
    /// `https`, `env` for HTTPS_PROXY and NO_PROXY, or `direct` [default: direct]
    #[arg(long, value_name = "URL", env = "VOUCHSAFE_PARENT_PROXY", help_heading = "Upstreams")]
    pub parent_proxy: Option<String>,

    /// File with `user:password` for the parent proxy, mode 0600.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_PARENT_PROXY_CREDENTIALS", help_heading = "Upstreams")]
    pub parent_proxy_credentials: Option<PathBuf>,

    /// Hosts that are reached without the parent proxy: a name with all names below it, an address, `NETWORK/BITS`, with
    /// or without a port, or `*`. Loopback always is.
    #[arg(long, value_name = "HOST", env = "VOUCHSAFE_NO_PROXY", value_delimiter = ',', help_heading = "Upstreams")]
    #[serde(deserialize_with = "one_or_more")]
    pub no_proxy: Vec<String>,

    /// Trusted CAs for an `https://` parent proxy, instead of the default bundle.
    #[arg(
        long,
        value_name = "PATH",
        env = "VOUCHSAFE_PARENT_CA_BUNDLE",
        value_delimiter = ',',
        help_heading = "Upstreams"
    )]
    #[serde(deserialize_with = "one_or_more")]
    pub parent_ca_bundle: Vec<PathBuf>,

    /// Client certificate with its chain, PEM, for an `https://` parent proxy.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_PARENT_CLIENT_CERT", help_heading = "Upstreams")]
    pub parent_client_cert: Option<PathBuf>,

    /// Key of that certificate, PEM, not encrypted [default: the certificate's file]
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_PARENT_CLIENT_KEY", help_heading = "Upstreams")]
    pub parent_client_key: Option<PathBuf>,

    /// Accept `--allow '*'` together with a parent proxy, which then can be asked for any host, those of its own network
    /// and metadata services included [default: false]
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_ALLOW_ANY_THROUGH_PARENT", num_args = 0..=1, default_missing_value = "true", help_heading = "Upstreams")]
    pub allow_any_through_parent: Option<bool>,

    /// A set of settings for tools: `glance-replicator` or `openstack`.
    #[arg(long, value_name = "NAME", env = "VOUCHSAFE_PRESET", help_heading = "Responses")]
    pub preset: Option<Preset>,

    /// How failures are answered [default: legacy]
    #[arg(long, value_name = "POLICY", env = "VOUCHSAFE_ANSWER", help_heading = "Responses")]
    pub answer: Option<AnswerPolicy>,

    /// How much a client is told about a failure [default: class]
    #[arg(long, value_name = "DETAIL", env = "VOUCHSAFE_DETAIL", help_heading = "Responses")]
    pub detail: Option<Detail>,

    /// Host header sent upstream [default: upstream]
    #[arg(long, value_name = "WHOSE", env = "VOUCHSAFE_HOST", help_heading = "Responses")]
    pub host: Option<HostPolicy>,

    /// Letter case of response header names [default: preserve]
    #[arg(long, value_name = "CASE", env = "VOUCHSAFE_FIELD_CASE", help_heading = "Responses")]
    pub field_case: Option<FieldCase>,

    /// Rewrite links to served upstreams in response headers, so that clients stay on this proxy [default: true]
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_REWRITE_REDIRECTS", num_args = 0..=1, default_missing_value = "true", help_heading = "Responses")]
    pub rewrite_redirects: Option<bool>,

    /// Rewrite URLs to served upstreams in JSON answers of OpenStack services too: in service catalogs (`catalog`), lists
    /// of API versions (`versions`), links to pages and resources (`pages`) [default: none]
    #[arg(long, value_name = "WHAT", env = "VOUCHSAFE_REWRITE", value_delimiter = ',', help_heading = "Responses")]
    #[serde(deserialize_with = "rewrite_scopes")]
    pub rewrite: Vec<RewriteScope>,

    /// Follow redirects of GET and HEAD for the client; every hop is verified [default: false]
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_FOLLOW_REDIRECTS", num_args = 0..=1, default_missing_value = "true", help_heading = "Responses")]
    pub follow_redirects: Option<bool>,

    /// Write audit events to this file too, one JSON line each.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_AUDIT_LOG", help_heading = "Logs and files")]
    pub audit_log: Option<PathBuf>,

    /// How long repeated refusals are counted instead of written [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_FOLD_REPEATS", help_heading = "Logs and files")]
    pub fold_repeats: Option<Span>,

    /// Save the chains of refused servers here, one PEM file for each distinct chain, at most 1000.
    #[arg(long, value_name = "DIR", env = "VOUCHSAFE_SAVE_FAILED_CHAINS", help_heading = "Logs and files")]
    pub save_failed_chains: Option<PathBuf>,

    /// Log one event per request on stderr [default: true]
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_ACCESS_LOG", num_args = 0..=1, default_missing_value = "true", help_heading = "Logs and files")]
    pub access_log: Option<bool>,

    /// Log format [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT", env = "VOUCHSAFE_LOG_FORMAT", help_heading = "Logs and files")]
    pub log_format: Option<LogFormat>,

    /// Log verbosity [default: info]
    #[arg(long, value_name = "LEVEL", env = "VOUCHSAFE_LOG_LEVEL", help_heading = "Logs and files")]
    pub log_level: Option<LogLevel>,

    /// Time limit for name resolution and TCP, over all addresses [default: 5s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_CONNECT_TIMEOUT", help_heading = "Limits")]
    pub connect_timeout: Option<Span>,

    /// Time limit for the TLS handshake [default: 10s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_TLS_TIMEOUT", help_heading = "Limits")]
    pub tls_timeout: Option<Span>,

    /// Time limit from the end of a request to the head of its response [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_RESPONSE_TIMEOUT", help_heading = "Limits")]
    pub response_timeout: Option<Span>,

    /// Time limit without progress in a response body, of the upstream or of a client that does not read [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_RESPONSE_BODY_TIMEOUT", help_heading = "Limits")]
    pub response_body_timeout: Option<Span>,

    /// Time limit without progress in a request body [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_REQUEST_BODY_TIMEOUT", help_heading = "Limits")]
    pub request_body_timeout: Option<Span>,

    /// Time limit for receiving the head of a request [default: 10s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_HEAD_TIMEOUT", help_heading = "Limits")]
    pub head_timeout: Option<Span>,

    /// How long an idle client connection is kept open [default: 60s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_KEEP_ALIVE_TIMEOUT", help_heading = "Limits")]
    pub keep_alive_timeout: Option<Span>,

    /// Time limit without data in either direction after an upgrade to websocket [default: 1h]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_TUNNEL_TIMEOUT", help_heading = "Limits")]
    pub tunnel_timeout: Option<Span>,

    /// How long an idle upstream connection is kept open for reuse [default: 30s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_POOL_IDLE_TIMEOUT", help_heading = "Limits")]
    pub pool_idle_timeout: Option<Span>,

    /// Maximum idle connections per upstream and thread [default: 256]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_POOL_SIZE", help_heading = "Limits")]
    pub pool_size: Option<usize>,

    /// Time limit for running requests to finish after SIGTERM [default: 30s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_DRAIN_TIMEOUT", help_heading = "Limits")]
    pub drain_timeout: Option<Span>,

    /// Maximum size of a request or response head, 8192 to 1048576 bytes [default: 65536]
    #[arg(long, value_name = "BYTES", env = "VOUCHSAFE_MAX_HEAD", help_heading = "Limits")]
    pub max_head: Option<usize>,

    /// Maximum field lines in a request head, 16 to 10000 [default: 200]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_MAX_FIELDS", help_heading = "Limits")]
    pub max_fields: Option<usize>,

    /// Maximum field lines in a response head, 16 to 10000 [default: 500]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_MAX_RESPONSE_FIELDS", help_heading = "Limits")]
    pub max_response_fields: Option<usize>,

    /// Maximum size of a request target, 256 to 65000 bytes [default: 16384]
    #[arg(long, value_name = "BYTES", env = "VOUCHSAFE_MAX_TARGET", help_heading = "Limits")]
    pub max_target: Option<usize>,

    /// Maximum concurrent client connections [default: 10000, or as many as the limit on open files permits]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_MAX_CONNECTIONS", help_heading = "Limits")]
    pub max_connections: Option<usize>,

    /// Maximum concurrent client connections per listener [default: the same as --max-connections]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_MAX_LISTENER_CONNECTIONS", help_heading = "Limits")]
    pub max_listener_connections: Option<usize>,

    /// How long a client beyond the maximum waits before it is refused [default: 5s]
    #[arg(long, value_name = "TIME", env = "VOUCHSAFE_CONNECTION_WAIT", help_heading = "Limits")]
    pub connection_wait: Option<Span>,

    /// Worker threads, each with its own connections [default: one per core, at most 4]
    #[arg(long, value_name = "COUNT", env = "VOUCHSAFE_THREADS", help_heading = "Limits")]
    pub threads: Option<usize>,

    /// Write this file when all listeners are ready, one line `ADDRESS URL` for each; it is removed at the end.
    #[arg(long, value_name = "FILE", env = "VOUCHSAFE_READY_FILE", help_heading = "Logs and files")]
    pub ready_file: Option<PathBuf>,

    /// The admin listener: health, metrics and a page with the state of every upstream. ADDRESS is an IP address and a
    /// port, or `unix:PATH,mode=0660`.
    #[arg(long, value_name = "ADDRESS", env = "VOUCHSAFE_ADMIN", help_heading = "Admin")]
    pub admin: Option<String>,

    /// A name that the admin listener may be reached by, in addition to those of loopback and its address.
    #[arg(long, value_name = "HOST", env = "VOUCHSAFE_ADMIN_HOST", value_delimiter = ',', help_heading = "Admin")]
    #[serde(deserialize_with = "one_or_more")]
    pub admin_host: Vec<String>,

    /// Serve /livez, /readyz and /metrics alone, which name no client. An admin address that other hosts can reach needs
    /// it.
    #[arg(long, value_name = "BOOL", env = "VOUCHSAFE_ADMIN_READ_ONLY", num_args = 0..=1, default_missing_value = "true", help_heading = "Admin")]
    pub admin_read_only: Option<bool>,

    /// Settings for single upstreams; in the file only.
    #[arg(skip)]
    pub upstream: Vec<UpstreamOptions>,

    /// Policies of single listeners; in the file only.
    #[arg(skip)]
    pub listener: Vec<ListenerOptions>,
}

/// `[[listener]]` in the file: what it sets takes the place of the setting of the same name for all listeners.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerOptions {
    /// The listener, as `route`, `mirror`, `forward` or `transparent` has it: `ADDRESS:PORT`, `unix:PATH` or `fd:NAME`.
    pub of: String,
    /// How failures are answered.
    pub answer: Option<AnswerPolicy>,
    /// How much a client is told about a failure.
    pub detail: Option<Detail>,
    /// Host header sent upstream.
    pub host: Option<HostPolicy>,
    /// Letter case of response header names.
    pub field_case: Option<FieldCase>,
    /// Rewrite links to served upstreams in response headers.
    pub rewrite_redirects: Option<bool>,
    /// Documents in which links are rewritten.
    #[serde(default, deserialize_with = "rewrite_scopes")]
    pub rewrite: Vec<RewriteScope>,
    /// Follow redirects of GET and HEAD for the client.
    pub follow_redirects: Option<bool>,
    /// Hosts that clients may use for this fixed route.
    #[serde(default, deserialize_with = "one_or_more")]
    pub accept_host: Vec<String>,
}

impl ListenerOptions {
    /// The keys of the section.
    pub const KEYS: [&'static str; 9] = [
        "of",
        "answer",
        "detail",
        "host",
        "field_case",
        "rewrite_redirects",
        "rewrite",
        "follow_redirects",
        "accept_host",
    ];
}

/// `[[upstream]]` in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpstreamOptions {
    /// The upstream: `HOST`, for all ports, or `HOST:PORT`.
    pub of: String,
    /// Where to connect instead.
    pub connect_to: Option<String>,
    /// The name to verify instead of the host.
    pub verify_name: Option<String>,
    /// The name to send instead of the one verified.
    pub sni: Option<String>,
    /// Trusted CAs instead of the default bundle.
    #[serde(default, alias = "https_ca_bundle", deserialize_with = "one_or_more")]
    pub ca_bundle: Vec<PathBuf>,
    /// Also trust the CAs of the system; without `ca_bundle`, instead of the default bundle.
    pub system_roots: Option<bool>,
    /// Revocation lists instead of the default ones.
    #[serde(default, deserialize_with = "one_or_more")]
    pub crl: Vec<PathBuf>,
    /// Rules that override the default ones.
    #[serde(default, deserialize_with = "one_or_more")]
    pub crl_policy: Vec<String>,
    /// Public keys, one of which must be in the certification path: `sha256:HEX` or `sha256//BASE64`.
    #[serde(default, deserialize_with = "one_or_more")]
    pub pins: Vec<String>,
    /// The certificates to trust, regardless of their names and issuers: `sha256:HEX`, or a PEM file with one each.
    #[serde(default, deserialize_with = "one_or_more")]
    pub identity: Vec<String>,
    /// Client certificate for this upstream.
    pub client_cert: Option<PathBuf>,
    /// Key of the client certificate.
    pub client_key: Option<PathBuf>,
    /// The lowest TLS version to accept.
    pub min_tls: Option<TlsVersion>,
    /// The parent proxy for this upstream, `env` or `direct`.
    #[serde(alias = "http_proxy_information")]
    pub parent_proxy: Option<String>,
    /// File with the credentials for it.
    pub parent_proxy_credentials: Option<PathBuf>,
    /// Until the end of this day (UTC), refusals are recorded but not enforced.
    #[serde(default, deserialize_with = "day")]
    pub report_only_until: Option<String>,
    /// Only for these codes.
    #[serde(default, deserialize_with = "one_or_more")]
    pub report_only: Vec<String>,
    /// Parsed, so that an error can explain what to do instead.
    pub disable_https_verification: Option<bool>,
}

impl UpstreamOptions {
    /// The keys of the section.
    pub const KEYS: [&'static str; 20] = [
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
        "parent_proxy",
        "http_proxy_information",
        "parent_proxy_credentials",
        "report_only_until",
        "report_only",
        "disable_https_verification",
    ];

    /// Whether it configures TLS: only one section per upstream may.
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

/// Reads a list, or a single value as a list of one.
fn one_or_more<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected text in quotes, or a list of texts")]
    enum OneOrMore<T> {
        More(Vec<T>),
        One(T),
    }
    match OneOrMore::deserialize(deserializer)? {
        // An empty list of pins must not silently mean that nothing is pinned.
        OneOrMore::More(all) if all.is_empty() => Err(Error::custom("the list is empty; remove the key")),
        OneOrMore::More(all) => Ok(all),
        OneOrMore::One(one) => Ok(vec![one]),
    }
}

/// Reads kinds of documents by their names.
fn rewrite_scopes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RewriteScope>, D::Error> {
    const NAMES: &[&str] = &["catalog", "none", "pages", "versions"];
    let names: Vec<String> = one_or_more(deserializer)?;
    let scope = |name: &String| RewriteScope::from_str(name, false).map_err(|_| Error::unknown_variant(name, NAMES));
    names.iter().map(scope).collect()
}

/// Reads a TOML date, or a date as text.
fn day<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a date, as in `2027-01-31`")]
    enum DateOrText {
        Date(toml::value::Datetime),
        Text(String),
    }
    Ok(Some(match DateOrText::deserialize(deserializer)? {
        DateOrText::Date(date) => date.to_string(),
        DateOrText::Text(text) => text,
    }))
}

/// A named set of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// For glance-replicator of any release: it needs response header names in lower case.
    GlanceReplicator,
    /// For clients of OpenStack: URLs in JSON answers are rewritten, and `mirror` knows the ports of the services.
    #[value(name = "openstack")]
    #[serde(rename = "openstack")]
    OpenStack,
}

/// A kind of JSON documents whose URLs are rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RewriteScope {
    Catalog,
    /// No documents, whatever the preset has.
    None,
    Pages,
    Versions,
}

/// A duration with a unit: `500ms`, `5s`, `2m`; more than 0, at most 30 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(span) if span.is_zero() => Err("a time limit cannot be 0".into()),
            Ok(span) if span > Duration::from_secs(86_400 * 30) => Err("longer than 30 days".into()),
            Ok(span) => Ok(Self(span)),
            Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Err(format!("a time needs a unit\nhint: write `{text}s` for seconds, `{text}ms` for milliseconds"))
            }
            Err(_) => Err("not a time\nhint: write it as in `500ms`, `5s` or `2m`".into()),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SpanVisitor)
    }
}

struct SpanVisitor;

impl Visitor<'_> for SpanVisitor {
    type Value = Span;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time in quotes, with a unit, as in `\"5s\"`")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Span, E> {
        Err(E::custom(format!("`{number}`: a time needs quotes and a unit\nhint: write `\"{number}s\"` for seconds")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Span, E> {
        text.parse().map_err(|why| E::custom(format!("`{}`: {why}", show_value(text))))
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
