//! `/etc/resolv.conf` (resolv.conf(5)): which name servers there are, and which names a name may stand for.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use hickory_net::proto::rr::Name;
use resolv_conf::{Config, ScopedIp};

use super::server::NameServer;

/// What the file says, as far as it matters here.
#[derive(Debug)]
pub(super) struct ResolvConf {
    /// The name servers, in their order.
    pub(super) servers: Vec<NameServer>,
    /// The domains that are appended to names.
    pub(super) search: Vec<Name>,
    ndots: usize,
    no_tld_query: bool,
    /// How often each server is asked before it counts as failed.
    pub(super) attempts: u32,
    /// Seconds that the first server has for its first answer.
    timeout: u32,
    /// Whether only IPv4 addresses are asked for.
    pub(super) no_aaaa: bool,
}

impl ResolvConf {
    /// Reads the file. One that is absent or empty means a name server on this host, as it does for glibc.
    pub(super) fn read(path: &Path) -> Self {
        // An odd byte spoils its own word and no other.
        Self::parse(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()))
    }

    fn parse(text: &str) -> Self {
        // A line that is not understood is left out; it is no reason not to read the others.
        let (config, _) = Config::parse_with_errors(text.trim_start_matches('\u{feff}').as_bytes());
        let listed: Vec<String> = config.get_last_search_or_domain().map(ToString::to_string).collect();
        let search = match config.get_search().is_some() || config.get_domain().is_some() {
            true => listed,
            false => config.get_system_domain().into_iter().collect(),
        };
        let local = || vec![ScopedIp::from(IpAddr::from([127, 0, 0, 1]))];
        let servers = if config.nameservers.is_empty() { local() } else { config.nameservers.clone() };
        Self {
            servers: servers.into_iter().map(|address| NameServer::new(address, config.use_vc)).collect(),
            search: search.iter().filter_map(|domain| absolute(domain)).filter(|domain| !domain.is_root()).collect(),
            ndots: config.ndots as usize,
            no_tld_query: config.no_tld_query,
            attempts: config.attempts.clamp(1, 5),
            timeout: config.timeout.clamp(1, 30),
            no_aaaa: config.no_aaaa,
        }
    }

    /// How long glibc waits for one name before it gives up, where no server answers: a server that is further down in
    /// the list has twice as long as the one before it, by the number of servers (res_send.c, `send_dg`).
    pub(super) fn patience(&self) -> Duration {
        let count = self.servers.len().min(GLIBC_SERVERS);
        let waits = (0..count).map(|n| match n {
            0 => self.timeout,
            _ => ((self.timeout << n) / count as u32).max(1),
        });
        Duration::from_secs(u64::from(self.attempts * waits.sum::<u32>()))
    }

    /// The absolute names that a name may stand for, in the order to ask for them.
    pub(super) fn candidates(&self, name: &str) -> Vec<Name> {
        let as_is = absolute(name);
        let Some(mut relative) = as_is.clone().filter(|_| !name.ends_with('.')) else {
            return as_is.into_iter().collect();
        };
        let dots = usize::from(relative.num_labels()).saturating_sub(1);
        relative.set_fqdn(false);
        let mut names: Vec<Name> =
            self.search.iter().filter_map(|domain| relative.clone().append_domain(domain).ok()).collect();
        let at = if dots >= self.ndots { 0 } else { names.len() };
        if dots > 0 || names.is_empty() || !self.no_tld_query {
            names.splice(at..at, as_is);
        }
        names
    }
}

/// As many servers glibc asks; further ones are ignored there (MAXNS).
const GLIBC_SERVERS: usize = 3;

/// A name from the root. It may have underscores: container names have them.
fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(conf: &str, name: &str) -> Vec<String> {
        ResolvConf::parse(conf).candidates(name).iter().map(Name::to_ascii).collect()
    }

    #[test]
    fn the_search_list_applies_as_in_glibc() {
        for (conf, name, expected) in [
            ("search lab.test", "glance.example", &["glance.example.", "glance.example.lab.test."][..]),
            ("search lab.test", "glance", &["glance.lab.test.", "glance."]),
            ("search a.test b.test", "glance", &["glance.a.test.", "glance.b.test.", "glance."]),
            ("search a.test\noptions ndots:5", "g.example", &["g.example.a.test.", "g.example."]),
            ("search a.test\noptions ndots:5", "g.example.", &["g.example."]),
            ("search a.test", "glance.", &["glance."]),
            ("domain a.test", "my_glance", &["my_glance.a.test.", "my_glance."]),
            ("search a.test\ndomain b.test", "glance", &["glance.b.test.", "glance."]),
            ("search a.test\noptions no-tld-query", "glance", &["glance.a.test."]),
            ("search .", "glance", &["glance."]),
            ("search a..test b.test", "glance", &["glance.b.test.", "glance."]),
        ] {
            assert_eq!(candidates(conf, name), expected, "{conf} {name}");
        }
    }

    #[test]
    fn silence_is_endured_for_as_long_as_in_glibc() {
        for (conf, seconds) in [
            ("nameserver 192.0.2.1", 10),
            ("nameserver 192.0.2.1\noptions timeout:1", 2),
            ("nameserver 192.0.2.1\noptions timeout:1 attempts:1", 1),
            ("nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions timeout:1 attempts:1", 2),
            ("nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions attempts:1", 10),
            // 5, 10 / 3 and 20 / 3, in whole seconds; the fourth server is not asked.
            ("nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4\noptions attempts:1", 14),
            ("options timeout:0 attempts:0", 1),
            ("options timeout:99 attempts:99", 150),
        ] {
            assert_eq!(ResolvConf::parse(conf).patience(), Duration::from_secs(seconds), "{conf}");
        }
    }

    #[test]
    fn a_file_is_read_as_far_as_it_can_be() {
        for (file, servers) in [
            (&b"nameserver 192.0.2.1 # caf\xe9\nnameserver 2001:db8::1"[..], &["192.0.2.1", "2001:db8::1"][..]),
            (b"\xff\xff\nnameserver 192.0.2.1\r\n", &["192.0.2.1"]),
            (b"\xef\xbb\xbfnameserver 192.0.2.1\n", &["192.0.2.1"]),
            (b"search a..b \xff\nnameserver 192.0.2.1\n", &["192.0.2.1"]),
            (b"nameserver 192.0.2.300\nnameserver 192.0.2.1\n", &["192.0.2.1"]),
            (b"nameserver fe80::1%eth0\n", &["fe80::1%eth0"]),
            (b"options ndots:x timeout:1\nnameserver 192.0.2.1\n", &["192.0.2.1"]),
            (b"", &["127.0.0.1"]),
            (b"# nothing\nsearch lab.test\n", &["127.0.0.1"]),
        ] {
            let conf = ResolvConf::parse(&String::from_utf8_lossy(file));
            let found: Vec<_> = conf.servers.iter().map(NameServer::name).collect();
            assert_eq!(found, servers, "{}", String::from_utf8_lossy(file));
        }
    }
}
