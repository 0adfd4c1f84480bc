//! What is told of a catalog: for people, and as JSON. Pure.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde_json::{Value, json};

use crate::{
    config::settings::ServedBy,
    message::authority::Authority,
    terminal::{BAD, GOOD},
    text::escape,
};

use super::{CatalogServer, Judged, served_by};

/// A catalog, judged by settings.
#[derive(Debug)]
pub struct CatalogReport {
    asked: String,
    servers: Vec<ServerReport>,
    missing: Vec<String>,
}

#[derive(Debug)]
struct ServerReport {
    url: String,
    services: Vec<String>,
    /// Where clients reach it by way of the proxy.
    served: Option<String>,
    certificate: Certificate,
}

#[derive(Debug)]
enum Certificate {
    Trusted,
    /// What is wrong.
    NotTrusted(String),
    /// Plain HTTP has none.
    None,
    /// The URL cannot be read.
    Unknown,
}

impl CatalogReport {
    pub(super) fn of(
        asked: String,
        served: &ServedBy,
        servers: Vec<Result<CatalogServer, String>>,
        judged: &[Judged],
    ) -> Self {
        let mut missing = missing(served, &servers);
        if !served.rewrites_catalog {
            missing.push("--rewrite catalog,versions,pages".to_owned());
        }
        let servers = servers.into_iter().map(|server| ServerReport::of(served, server, judged)).collect();
        Self { asked, servers, missing }
    }

    /// Whether all endpoints are served and trusted.
    pub fn is_good(&self) -> bool {
        let good =
            |server: &ServerReport| server.served.is_some() && matches!(server.certificate, Certificate::Trusted);
        self.missing.is_empty() && self.servers.iter().all(good)
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        let server = |server: &ServerReport| {
            json!({
                "url": server.url,
                "services": server.services,
                "served_by": server.served,
                "certificate": server.certificate.word(),
                "problem": server.certificate.problem(),
            })
        };
        json!({
            "catalog": self.asked,
            "servers": self.servers.iter().map(server).collect::<Vec<_>>(),
            "missing": self.missing,
        })
    }
}

impl ServerReport {
    fn of(served: &ServedBy, server: Result<CatalogServer, String>, judged: &[Judged]) -> Self {
        let server = match server {
            Ok(server) => server,
            Err(url) => return Self { url, services: Vec::new(), served: None, certificate: Certificate::Unknown },
        };
        let scheme = if server.https { "https" } else { "http" };
        let name = server.authority.to_string();
        let judged = judged.iter().find(|judged| judged.asked == name).filter(|_| server.https);
        let certificate = match judged {
            Some(Judged { problem: None, .. }) => Certificate::Trusted,
            Some(Judged { problem: Some(why), .. }) => Certificate::NotTrusted(why.clone()),
            None if server.https => Certificate::NotTrusted("not a name that a certificate can have".into()),
            None => Certificate::None,
        };
        let services = server.services.iter();
        Self {
            url: format!("{scheme}://{name}"),
            services: services
                .map(|(name, interfaces)| escape(&format!("{name} ({})", interfaces.join(", "))))
                .collect(),
            served: served_by(served, &server),
            certificate,
        }
    }
}

impl Certificate {
    const fn word(&self) -> &'static str {
        match self {
            Self::Trusted => "trusted",
            Self::NotTrusted(_) => "not_trusted",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }

    fn problem(&self) -> Option<&str> {
        match self {
            Self::Trusted => None,
            Self::NotTrusted(why) => Some(why),
            Self::None => Some("a plain `http://` URL: nothing is verified by clients that go there"),
            Self::Unknown => Some("not a URL that clients of this proxy can be led to"),
        }
    }
}

/// The flags that are missing for what is not served: a route on an address that has routes already, as a mirror has; or
/// an allowed destination where there is a forward listener alone.
fn missing(served: &ServedBy, servers: &[Result<CatalogServer, String>]) -> Vec<String> {
    let mut taken: Vec<_> = served.routes.iter().map(|(listen, _)| *listen).collect();
    let ip = taken.first().map_or([127, 0, 0, 2].into(), |listen| listen.ip());
    let mut flags: Vec<String> = Vec::new();
    for server in servers.iter().flatten().filter(|server| served_by(served, server).is_none()) {
        let Authority { host, port } = &server.authority;
        let port = port.unwrap_or(443);
        let flag = if served.forward && served.routes.is_empty() {
            format!("--allow {}:{port}", host.in_authority())
        } else {
            let plain = if port == 443 { 80 } else { port };
            let mut listen = SocketAddr::new(ip, plain);
            // Another server has the port there; loopback has room.
            while taken.contains(&listen) {
                listen = SocketAddr::new(after(listen.ip()), plain);
            }
            taken.push(listen);
            format!("--route {listen}=https://{}:{port}", host.in_authority())
        };
        if !flags.contains(&flag) {
            flags.push(flag);
        }
    }
    flags
}

/// The next address.
fn after(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits().wrapping_add(1)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits().wrapping_add(1)).into(),
    }
}

impl fmt::Display for CatalogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let served = self.servers.iter().filter(|server| server.served.is_some()).count();
        writeln!(f, "catalog of {}: {} servers, {served} of them served", self.asked, self.servers.len())?;
        for server in &self.servers {
            writeln!(f, "\n{}", server.url)?;
            if !server.services.is_empty() {
                writeln!(f, "  {}", server.services.join(", "))?;
            }
            match &server.served {
                Some(at) => writeln!(f, "  {GOOD}✔{GOOD:#} served by {at}")?,
                None => writeln!(f, "  {BAD}✘{BAD:#} not served: clients go past vouchsafe to it")?,
            }
            match server.certificate.problem() {
                None => writeln!(f, "  {GOOD}✔{GOOD:#} its certificate is trusted")?,
                Some(why) => writeln!(f, "  {BAD}✘{BAD:#} {why}")?,
            }
        }
        if !self.missing.is_empty() {
            writeln!(f, "\nmissing flags:")?;
            self.missing.iter().try_for_each(|flag| writeln!(f, "  {flag}"))?;
        }
        Ok(())
    }
}
