//! The tool's environment: every spelling of the proxy variables says the same, since no two HTTP libraries read them
//! alike. curl reads `http_proxy` in lower case only, Go prefers upper case, and one `NO_PROXY` that was inherited makes
//! all of them go past the proxy.

use std::{
    ffi::{OsStr, OsString},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::config::merge::ROUTE_PREFIX;

use super::{
    authorities::CA_VARIABLES,
    placeholders::{Endpoint, replace},
};

/// How the tool's environment differs from this process's.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    pub(super) set: Vec<(OsString, OsString)>,
    pub(super) unset: Vec<&'static str>,
}

/// Where the tool's requests go.
#[derive(Debug)]
pub(super) struct Proxies<'a> {
    /// The listener for `http_proxy`; an isolated tool has none.
    pub(super) forward: Option<SocketAddr>,
    /// The listeners of routes, which are reached without it.
    pub(super) routes: Vec<SocketAddr>,
    /// What else is reached without it.
    pub(super) no_proxy: &'a [String],
    /// Whether the listener serves TLS inside CONNECT, too.
    pub(super) https: bool,
    /// Variables that say what the tool trusts, and their files.
    pub(super) authorities: &'a [(&'static str, PathBuf)],
    /// Variables that stay as they are.
    pub(super) keep: &'a [String],
}

/// Variables that a service manager set for this process and not for the tool (sd_listen_fds(3), sd_notify(3)).
const OF_SERVICE_MANAGER: [&str; 6] =
    ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"];

const HTTP_PROXY: [&str; 2] = ["http_proxy", "HTTP_PROXY"];
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];
const ALL_PROXY: [&str; 2] = ["all_proxy", "ALL_PROXY"];
pub(super) const HTTPS_PROXY: [&str; 2] = ["https_proxy", "HTTPS_PROXY"];

/// Whether a variable is one that a tool finds changed.
pub(super) fn is_set(name: &str) -> bool {
    let proxies = [HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY];
    proxies.iter().flatten().chain(&CA_VARIABLES).any(|known| *known == name)
}

impl Environment {
    /// The environment of a tool behind these listeners. `inherited`: that of this process.
    ///
    /// # Errors
    /// About a variable whose value cannot be used.
    pub(super) fn new(
        inherited: impl Iterator<Item = (OsString, OsString)>,
        proxies: &Proxies<'_>,
        endpoints: &[Endpoint],
    ) -> Self {
        let mut environment = Self { unset: OF_SERVICE_MANAGER.to_vec(), ..Self::default() };
        for (name, value) in inherited {
            // In a variable, what is nearly a placeholder is plain text.
            if let Some(replaced) = replace(&value, endpoints).ok().filter(|replaced| *replaced != value) {
                environment.set.push((name, replaced));
            }
        }
        for endpoint in endpoints {
            let label = endpoint.label.to_ascii_uppercase().replace('-', "_");
            environment.set.push((format!("{ROUTE_PREFIX}{label}").into(), endpoint.address.to_string().into()));
        }
        let proxy = proxies.forward.map(|address| format!("http://{address}"));
        if proxies.https || proxy.is_none() {
            // An isolated tool reaches no other proxy, and needs none.
            environment.say(HTTPS_PROXY, proxy.clone());
        }
        environment.say(HTTP_PROXY, proxy);
        environment.say(ALL_PROXY, None);
        environment.say(NO_PROXY, proxies.exceptions());
        environment.set.extend(proxies.authorities.iter().map(|(name, file)| ((*name).into(), file.into())));
        let keeps = |name: &OsStr| proxies.keep.iter().any(|kept| name == kept.as_str());
        environment.set.retain(|(name, _)| !keeps(name));
        environment.unset.retain(|name| !keeps(name.as_ref()));
        environment
    }

    /// Has both spellings of a variable.
    fn say(&mut self, names: [&'static str; 2], value: Option<String>) {
        match value {
            Some(value) => self.set.extend(names.map(|name| (name.into(), OsString::from(&value)))),
            None => self.unset.extend(names),
        }
    }

    /// The proxy variables among the inherited ones that say something else to the tool than before.
    pub(super) fn overridden(&self, get: impl Fn(&str) -> Option<OsString>) -> Vec<&'static str> {
        let names = [HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY].into_iter().flatten().chain(CA_VARIABLES);
        let names = names.filter(|name| self.unset.contains(name) || self.set.iter().any(|(set, _)| set == name));
        let now = |name: &str| self.set.iter().find(|(set, _)| set == name).map(|(_, value)| value.as_os_str());
        names.filter(|name| get(name).is_some_and(|before| now(name) != Some(OsStr::new(&before)))).collect()
    }
}

impl Proxies<'_> {
    /// The value of `no_proxy`.
    fn exceptions(&self) -> Option<String> {
        let mut hosts: Vec<String> = self.no_proxy.to_vec();
        let mut add = |host: String| {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        };
        for route in &self.routes {
            match route.ip() {
                IpAddr::V4(ip) => add(ip.to_string()),
                // curl knows the address, Python's urllib compares the text of the URL.
                IpAddr::V6(ip) => [ip.to_string(), format!("[{ip}]")].into_iter().for_each(&mut add),
            }
            if route.ip().is_loopback() {
                add("localhost".into());
            }
        }
        (!hosts.is_empty()).then(|| hosts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn seen_by_tool(
        inherited: &[(&str, &str)],
        routes: &[&str],
        no_proxy: &[&str],
        https: bool,
    ) -> BTreeMap<String, String> {
        let no_proxy: Vec<_> = no_proxy.iter().map(|host| (*host).to_owned()).collect();
        let routes = routes.iter().map(|address| address.parse().unwrap()).collect();
        let forward = Some("127.0.0.1:3128".parse().unwrap());
        let endpoint = Endpoint { label: "glance-a".into(), address: "127.0.0.1:4001".parse().unwrap(), tls: false };
        let inherited = inherited.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let mut seen: BTreeMap<_, _> = inherited.clone().collect();
        let proxies = Proxies { forward, routes, no_proxy: &no_proxy, https, authorities: &[], keep: &[] };
        let environment = Environment::new(inherited, &proxies, &[endpoint]);
        seen.extend(environment.set);
        environment.unset.iter().for_each(|name| drop(seen.remove(OsStr::new(name))));
        seen.into_iter().map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap())).collect()
    }

    #[test]
    fn every_spelling_leads_to_the_proxy_whatever_was_inherited() {
        let hostile = [
            ("HTTP_PROXY", "http://other:1"),
            ("http_proxy", "http://other:2"),
            ("NO_PROXY", "*"),
            ("no_proxy", ".example"),
            ("ALL_PROXY", "socks5://other:3"),
            ("all_proxy", "socks5://other:4"),
            ("HTTPS_PROXY", "http://other:5"),
            ("NOTIFY_SOCKET", "/run/systemd/notify"),
            ("OS_IMAGE_URL", "{glance-a.url}/v2"),
            ("PS1", "{glance-b}$"),
        ];
        let seen = seen_by_tool(&hostile, &[], &[], false);
        let expected = [
            ("HTTPS_PROXY", "http://other:5"),
            ("HTTP_PROXY", "http://127.0.0.1:3128"),
            ("OS_IMAGE_URL", "http://127.0.0.1:4001/v2"),
            ("PS1", "{glance-b}$"),
            ("VOUCHSAFE_ROUTE_GLANCE_A", "127.0.0.1:4001"),
            ("http_proxy", "http://127.0.0.1:3128"),
        ];
        assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let seen = seen_by_tool(&hostile, &[], &[], true);
        assert_eq!([&seen["HTTPS_PROXY"], &seen["https_proxy"]], ["http://127.0.0.1:3128"; 2]);
    }

    #[test]
    fn routes_are_reached_without_the_proxy_for_other_hosts() {
        let seen =
            seen_by_tool(&[("no_proxy", "*")], &["127.0.0.1:1", "127.0.0.1:2", "[::1]:3"], &["db.example"], false);
        assert_eq!(seen["no_proxy"], "db.example,127.0.0.1,localhost,::1,[::1]");
        assert_eq!(seen["NO_PROXY"], seen["no_proxy"]);
    }
}
