//! `vouchsafe check --catalog`: asks Keystone for a token as a client would, by the client's variables, and tells of
//! every endpoint of its catalog whether these settings serve it, whether its certificate verifies, and which flags are
//! missing.

mod credentials;
mod keystone;
mod report;

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    config::{
        args::CheckArgs,
        environment::Environment,
        error::ConfigError,
        settings::{ServedBy, UpstreamConfig},
    },
    message::{
        authority::{Authority, Host},
        url,
    },
    text::show_value,
};

use super::{config, in_order, probe_all, report::Report};

use self::{
    credentials::Credentials,
    keystone::{Endpoint, ask},
};
pub use self::{keystone::AskError, report::CatalogReport};

/// Why there is no report.
#[derive(Debug)]
pub enum CatalogError {
    /// A setting or a variable.
    Config(ConfigError),
    /// Keystone gave no catalog: where it was asked, and why not.
    Ask(String, AskError),
}

impl From<ConfigError> for CatalogError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl std::fmt::Display for CatalogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Ask(url, error) => write!(f, "no catalog from {url}: {error}"),
        }
    }
}

/// Checks the catalog that the client's variables lead to.
///
/// # Errors
/// [`CatalogError`].
pub async fn check_catalog(args: CheckArgs, warn: impl Fn(&str)) -> Result<CatalogReport, CatalogError> {
    let environment = Environment::of_process();
    let credentials = Credentials::of(&environment).map_err(ConfigError::one)?;
    let config = config(args.run, &warn)?;
    let at = keystone_authority(&config, &credentials).map_err(ConfigError::one)?;
    let asked = format!("https://{at}{}", credentials.path);
    let upstream = config
        .routes
        .fixed(&at.host, at.port.unwrap_or(443))
        .map_err(|_| ConfigError::one(format!("OS_AUTH_URL: `{at}` is not a name that a certificate can have")))?;
    let endpoints = match ask(&config, &upstream, &credentials).await {
        Ok(endpoints) => endpoints,
        Err(error) => return Err(CatalogError::Ask(asked, error)),
    };
    let servers = servers(endpoints);
    let judged = meet(&config, &servers).await;
    Ok(CatalogReport::of(asked, &config.served, servers, &judged))
}

/// Where Keystone is: `OS_AUTH_URL`, which may be the URL of a listener of ours.
fn keystone_authority(config: &UpstreamConfig, credentials: &Credentials) -> Result<Authority, String> {
    let authority = &credentials.origin.authority;
    let port = config.routes.port(authority, credentials.origin.https);
    if let (false, Host::Ip(ip)) = (credentials.origin.https, &authority.host) {
        let plain = SocketAddr::new(*ip, authority.port.unwrap_or(80));
        if let Some((_, upstream)) = config.served.routes.iter().find(|(listen, _)| *listen == plain) {
            return Ok(upstream.clone());
        }
        if ip.is_loopback() && config.served.routes.iter().any(|(listen, _)| listen.ip() == *ip) {
            return Err(format!(
                "OS_AUTH_URL `http://{authority}`: no route listens there\nhint: add --route {plain}=https://HOST:{}",
                plain.port()
            ));
        }
    }
    Ok(Authority { host: authority.host.clone(), port: Some(port) })
}

/// A server of the catalog.
#[derive(Debug)]
struct CatalogServer {
    https: bool,
    authority: Authority,
    /// What the catalog has there: service types, and the interfaces of each.
    services: BTreeMap<String, Vec<String>>,
}

/// A server that was connected to.
#[derive(Debug)]
struct Judged {
    /// `host:port`
    asked: String,
    /// What is wrong with it; `None` where it is trusted.
    problem: Option<String>,
}

/// The servers of endpoints, each once, in the order of the catalog. Those whose URL cannot be read are told of at
/// their place, too.
fn servers(endpoints: Vec<Endpoint>) -> Vec<Result<CatalogServer, String>> {
    let mut servers: Vec<Result<CatalogServer, String>> = Vec::new();
    for Endpoint { service, interface, url } in endpoints {
        let Some((origin, _)) = url::split(&url) else {
            servers.push(Err(show_value(&url)));
            continue;
        };
        let port = origin.authority.port.or(Some(if origin.https { 443 } else { 80 }));
        let authority = Authority { host: origin.authority.host, port };
        let known = servers.iter().position(|server| {
            server.as_ref().is_ok_and(|server| server.https == origin.https && server.authority == authority)
        });
        let place = known.unwrap_or_else(|| {
            servers.push(Ok(CatalogServer { https: origin.https, authority, services: BTreeMap::new() }));
            servers.len() - 1
        });
        if let Ok(server) = &mut servers[place] {
            let interfaces = server.services.entry(service).or_default();
            if !interfaces.contains(&interface) {
                interfaces.push(interface);
            }
        }
    }
    servers
}

/// Connects to the servers as the proxy would: a verdict on each that is a TLS server by its URL.
async fn meet(config: &UpstreamConfig, servers: &[Result<CatalogServer, String>]) -> Vec<Judged> {
    let secure = servers.iter().flatten().filter(|server| server.https);
    let target = |server: &CatalogServer| {
        let port = server.authority.port.unwrap_or(443);
        Some((server.authority.to_string(), config.routes.fixed(&server.authority.host, port).ok()?))
    };
    let mut judged = Vec::new();
    let judge = |report: &Report| {
        let problem = || report.problem().unwrap_or_else(|| "not trusted".into());
        judged.push(Judged { asked: report.asked().to_owned(), problem: (!report.is_trusted()).then(problem) });
    };
    probe_all(config.connect, secure.filter_map(target).collect(), in_order(judge)).await;
    judged
}

/// How a server is served by these settings.
fn served_by(served: &ServedBy, server: &CatalogServer) -> Option<String> {
    let Authority { host, port } = &server.authority;
    let at = |upstream: &Authority| upstream.host == *host && upstream.port == *port;
    if let Some((listen, _)) = served.routes.iter().find(|(_, upstream)| at(upstream)) {
        return Some(format!("http://{listen}"));
    }
    let forwarded = served.forward && served.policy.judge(host, port.unwrap_or(443)).is_some();
    forwarded.then(|| "the forward listener".to_owned())
}
