//! `vouchsafe check`: connects to servers as the proxy would, and reports whether it would trust them.
//!
//! Configuration, connector and verifier are the proxy's own. No request is sent.

pub mod catalog;
pub mod certificate;
pub mod checks;
pub mod report;
pub mod table;
pub mod tree;

use std::{collections::BTreeMap, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
    time::timeout,
};

use crate::{
    config::{args::RunArgs, environment::Environment, error::ConfigError, settings::UpstreamConfig},
    connect::{ConnectLimits, Connector, OwnSockets, error::ConnectError},
    message::authority::Authority,
    route::{table::RouteError, table::Routes, upstream::Upstream},
    text::show_value,
    tls::client::TlsVersion,
};

use self::report::{ProbeResult, Report};

/// The servers that the arguments name, or that the configuration has if they name none.
///
/// # Errors
/// [`ConfigError`].
pub fn servers(config: &UpstreamConfig, urls: Vec<String>, warn: impl Fn(&str)) -> Result<Vec<Target>, ConfigError> {
    let configured = config.servers.iter().map(Authority::to_string);
    let urls = if urls.is_empty() { configured.collect() } else { urls };
    if urls.is_empty() {
        return Err(ConfigError::one(
            "there is nothing to check\nhint: name servers, as in `vouchsafe check https://glance.example:9292`, or set --config or --route",
        ));
    }
    targets(config, urls, warn)
}

/// The settings for upstreams that the proxy would have with these arguments.
///
/// # Errors
/// [`ConfigError`].
pub fn config(args: RunArgs, warn: impl Fn(&str)) -> Result<UpstreamConfig, ConfigError> {
    let config = UpstreamConfig::of(args, &Environment::of_process())?;
    config.warnings.iter().for_each(|warning| warn(warning));
    Ok(config)
}

/// A server to connect to, and how the user named it.
pub type Target = (String, Upstream);

/// The upstreams of URLs. Warns of settings that apply to none of them.
///
/// # Errors
/// [`ConfigError`] with every URL that cannot be used.
pub fn targets(config: &UpstreamConfig, urls: Vec<String>, warn: impl Fn(&str)) -> Result<Vec<Target>, ConfigError> {
    let (mut targets, mut problems) = (Vec::new(), Vec::new());
    for url in urls {
        match target(&config.routes, &url) {
            // A query may be a secret.
            Ok(upstream) => targets.push((show_value(&url), upstream)),
            Err(why) => problems.push(format!("`{}`: {why}", show_value(&url))),
        }
    }
    ConfigError::unless_empty(problems)?;
    let authority = |(_, upstream): &Target| Authority { host: upstream.host.clone(), port: Some(upstream.port) };
    let authorities: Vec<_> = targets.iter().map(authority).collect();
    config.unused(&authorities).iter().for_each(|problem| warn(problem));
    Ok(targets)
}

/// `https://HOST[:PORT][/…]` and `HOST[:PORT]` as they are, and `http://` as a forward listener maps it.
fn target(routes: &Routes, url: &str) -> Result<Upstream, String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let https = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        _ => return Err("an `https://` URL, or a host with or without a port, is expected".into()),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() {
        return Err("the host is missing".into());
    }
    let authority = authority.parse::<Authority>().map_err(|error| error.to_string())?;
    routes.fixed(&authority.host, routes.port(&authority, https)).map_err(|error| match error {
        RouteError::Name(name) => format!("`{name}` is not a name that a certificate can have"),
        // A fixed route needs no allowance.
        _ => "not allowed".into(),
    })
}

/// Connects to all, many at a time, and hands over each report with the place of its server, as they come.
pub async fn probe_all(limits: ConnectLimits, targets: Vec<Target>, mut tell: impl FnMut(usize, Report)) {
    let none: Arc<[SocketAddr]> = Arc::new([]);
    let connector = Rc::new(Connector::new(limits, none, OwnSockets::default()));
    let turns = Rc::new(Semaphore::new(AT_ONCE));
    let mut probes = JoinSet::new();
    let telling = async {
        for (place, (asked, upstream)) in targets.into_iter().enumerate() {
            let (connector, turns) = (connector.clone(), turns.clone());
            probes.spawn_local(async move {
                // It is never closed.
                let _turn = turns.acquire().await;
                let probed = probe(&connector, &upstream).await;
                (place, Report::of(asked, upstream, probed))
            });
        }
        while let Some(end) = probes.join_next().await {
            match end {
                Ok((place, report)) => tell(place, report),
                Err(end) => std::panic::resume_unwind(end.into_panic()),
            }
        }
    };
    LocalSet::new().run_until(telling).await;
}

/// For [`probe_all`]: hands reports over in the order of their servers.
pub fn in_order(mut tell: impl FnMut(&Report)) -> impl FnMut(usize, Report) {
    let (mut next, mut early) = (0, BTreeMap::new());
    move |place, report| {
        early.insert(place, report);
        while let Some(report) = early.remove(&next) {
            tell(&report);
            next += 1;
        }
    }
}

/// A configuration may name many.
const AT_ONCE: usize = 32;

async fn probe(connector: &Connector, upstream: &Upstream) -> ProbeResult {
    let mut verified = match connector.connect(upstream).await {
        Ok(verified) => verified,
        Err(error) => return ProbeResult { trouble: Some(error), ..ProbeResult::default() },
    };
    let peer = verified.peer().clone();
    let mut probed =
        ProbeResult { trouble: verified.bypassed().map(ConnectError::Handshake), ..ProbeResult::default() };
    if probed.trouble.is_none() && peer.client.asked && peer.tls_version == TlsVersion::Tls13 {
        // One that speaks, or waits for a request, does not object.
        if let Ok(Err(error)) = timeout(OBJECTION, verified.receive()).await {
            let refused = verified.refusal(Some(&error), false);
            probed.closed = refused.is_none();
            probed.trouble = refused.map(ConnectError::Handshake);
        }
    }
    probed.peer = Some(peer);
    probed
}

/// A TLS 1.3 server tells what it holds of our client certificate behind the handshake only, and nobody says when
/// it has nothing to say. One that asked for a certificate is listened to for this long; others are not.
const OBJECTION: Duration = Duration::from_millis(500);
