//! Names to addresses, as glibc's getaddrinfo finds them with `hosts: files dns`, and never slower.
//!
//! - An entry in `/etc/hosts`, of either family, is the whole answer: no name server is asked, and the name does not
//!   leave the host.
//! - A and AAAA are asked for at the same time, and each family has its own clock: when one has addresses, the other
//!   has 50 ms left (RFC 8305 section 3).
//! - A name server that fails, cannot be reached or is silent for a moment does not hold up the next one; neither does
//!   a search domain.
//! - Nothing is remembered. Both files are read and the name servers asked for each new connection, so a changed file,
//!   a new address and a name that exists only now count at once.
//!
//! How a name server is asked is hickory's work.

mod conf;
mod failure;
mod hosts;
mod race;
mod server;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    pin::pin,
    time::Duration,
};

use hickory_net::proto::rr::{Name, RecordType};
use tokio::time::{Instant, sleep_until};

use super::error::ConnectError;

use self::{
    conf::ResolvConf,
    failure::{LookupFailure, Reply},
    race::staggered,
};

/// RFC 8305 section 3: how long an answer for one family waits for the other family.
const RESOLUTION_DELAY: Duration = Duration::from_millis(50);

/// A name server that is silent for so long is asked alongside the next one.
const SERVER_PATIENCE: Duration = Duration::from_millis(250);

/// A name of the search list that is not answered for so long is asked for alongside the next one. Long enough for an
/// ordinary recursive lookup, so that the order of the search list decides wherever the servers answer.
const NAME_PATIENCE: Duration = Duration::from_millis(750);

/// Looks names up. It has no state but the paths of the system's two files.
#[derive(Debug)]
pub struct Resolver {
    hosts: PathBuf,
    resolv_conf: PathBuf,
}

impl Resolver {
    /// A resolver that follows `/etc/hosts` and `/etc/resolv.conf`.
    pub fn new() -> Self {
        Self { hosts: "/etc/hosts".into(), resolv_conf: "/etc/resolv.conf".into() }
    }

    /// All addresses of a name, in the order to try them: IPv4 first. A trailing dot means that the search list does
    /// not apply. Ends within `limit`.
    ///
    /// # Errors
    /// [`ConnectError::Dns`] or [`ConnectError::DnsTimeout`], with what each name server answered.
    pub async fn lookup(&self, name: &str, limit: Duration) -> Result<Vec<IpAddr>, ConnectError> {
        let begun = Instant::now();
        let bare = name.strip_suffix('.').unwrap_or(name);
        let listed = hosts::addresses(&self.hosts, bare);
        if !listed.is_empty() {
            return Ok(listed);
        }
        let error = |why: String| ConnectError::Dns { name: bare.to_owned(), why };
        match reserved(bare) {
            Some("localhost") => return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
            Some(top) => return Err(error(format!("no such name (`.{top}` is reserved: no name server has it)"))),
            None => {}
        }
        let conf = ResolvConf::read(&self.resolv_conf);
        let names = conf.candidates(name);
        let lookup = Lookup { conf: &conf, deadline: begun + limit };
        // All of them are started in time, also where each is silent. glibc waits for two silent names at most.
        let patience = NAME_PATIENCE.min(limit.min(conf.patience()) / (names.len() as u32 + 1));
        let attempts = names.iter().map(|name| lookup.addresses(name));
        staggered(attempts, patience, |_| false).await.map_err(|failures| {
            let failure = LookupFailure::worst(failures);
            let why = failure.describe(&names);
            match failure.is_timeout() {
                true => {
                    ConnectError::DnsTimeout { name: bare.to_owned(), after: limit.min(tenths(begun.elapsed())), why }
                }
                false => error(why),
            }
        })
    }
}

/// The name servers that programs on this host ask, in their order; none has a zone.
pub fn name_servers() -> Vec<SocketAddr> {
    let conf = ResolvConf::read("/etc/resolv.conf".as_ref());
    conf.servers.iter().filter_map(server::NameServer::global_address).collect()
}

/// The domains that programs on this host append to names, without the dot at their end.
pub fn search_domains() -> Vec<String> {
    let conf = ResolvConf::read("/etc/resolv.conf".as_ref());
    conf.search.iter().map(|domain| domain.to_ascii().trim_end_matches('.').to_ascii_lowercase()).collect()
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

/// Rounded to tenths of a second.
fn tenths(time: Duration) -> Duration {
    Duration::from_millis((time.as_millis() as u64 + 50) / 100 * 100)
}

/// What all questions of one lookup share.
struct Lookup<'a> {
    conf: &'a ResolvConf,
    deadline: Instant,
}

impl Lookup<'_> {
    /// The addresses of one absolute name, of both families.
    async fn addresses(&self, name: &Name) -> Result<Vec<IpAddr>, LookupFailure> {
        let deadline = self.deadline.min(Instant::now() + self.conf.patience());
        if self.conf.no_aaaa {
            return self.records(name, RecordType::A, deadline).await;
        }
        let (mut ipv4, mut ipv6) =
            (pin!(self.records(name, RecordType::A, deadline)), pin!(self.records(name, RecordType::AAAA, deadline)));
        let (mut found4, mut found6) = (None, None);
        let mut hurry = None;
        while found4.is_none() || found6.is_none() {
            tokio::select! {
                end = &mut ipv4, if found4.is_none() => found4 = Some(end),
                end = &mut ipv6, if found6.is_none() => found6 = Some(end),
                () = sleep_until(hurry.unwrap_or(deadline)), if hurry.is_some() => break,
            }
            if hurry.is_none() && (is_enough(found4.as_ref(), true) || is_enough(found6.as_ref(), false)) {
                hurry = Some(Instant::now() + RESOLUTION_DELAY);
            }
        }
        let (mut addresses, mut failures) = (Vec::new(), Vec::new());
        for end in [found4, found6].into_iter().flatten() {
            match end {
                Ok(found) => addresses.extend(found),
                Err(failure) => failures.push(failure),
            }
        }
        if addresses.is_empty() { Err(LookupFailure::worst(failures)) } else { Ok(addresses) }
    }

    /// The records of one type. The servers are asked in their order, each as often as `attempts` says; the first that
    /// has addresses, or knows that there are none, has the last word.
    async fn records(&self, name: &Name, kind: RecordType, deadline: Instant) -> Result<Vec<IpAddr>, LookupFailure> {
        let rounds = (0..self.conf.attempts).flat_map(|_| &self.conf.servers);
        let attempts = rounds.map(|server| server.ask(name, kind, deadline));
        let is_final = |(_, reply): &(String, Reply)| reply.is_negative();
        staggered(attempts, SERVER_PATIENCE, is_final).await.map_err(LookupFailure::of)
    }
}

/// Whether the other family need not be waited for: there are addresses, or the name does not exist. That, only where
/// the A records were asked for: some load balancers say so of AAAA records that they do not know (RFC 4074).
fn is_enough(end: Option<&Result<Vec<IpAddr>, LookupFailure>>, ipv4: bool) -> bool {
    match end {
        Some(Ok(_)) => true,
        Some(Err(failure)) => ipv4 && failure.is_no_such_name(),
        None => false,
    }
}

/// The reserved top-level domain of a name that no server is asked for (RFC 6761 sections 6.3 and 6.4, RFC 7686).
fn reserved(name: &str) -> Option<&'static str> {
    let top = name.rsplit('.').next()?;
    ["invalid", "localhost", "onion"].into_iter().find(|reserved| reserved.eq_ignore_ascii_case(top))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_that_need_no_name_server_are_not_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("hosts"), "2001:db8::1 glance.example\n192.0.2.1 special.invalid\n").unwrap();
        // Whoever is asked here never answers.
        std::fs::write(at("resolv.conf"), "nameserver 192.0.2.53\n").unwrap();
        let resolver = Resolver { hosts: at("hosts"), resolv_conf: at("resolv.conf") };
        for (name, expected) in [
            ("glance.example", Ok("2001:db8::1")),
            ("GLANCE.example.", Ok("2001:db8::1")),
            ("special.invalid", Ok("192.0.2.1")),
            ("localhost", Ok("127.0.0.1, ::1")),
            ("a.localhost.", Ok("127.0.0.1, ::1")),
            ("glance.invalid", Err("no such name (`.invalid` is reserved: no name server has it)")),
            ("a.ONION", Err("no such name (`.onion` is reserved: no name server has it)")),
        ] {
            let found = resolver.lookup(name, Duration::from_secs(3600)).await;
            let found = found.map(|all| all.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{name}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{name}: {error}"),
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }
}
