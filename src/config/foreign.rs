//! Names that other programs give to settings, and what they are called here. An edit distance would not find these.

/// What to do instead of a flag or key that other programs have. `name` may be written as a flag or as a key.
pub fn advice(name: &str) -> Option<&'static str> {
    let name = name.trim_start_matches('-').replace('_', "-").to_ascii_lowercase();
    FOREIGN.iter().find(|(names, _)| names.contains(&name.as_str())).map(|(_, advice)| *advice)
}

/// What replaces every switch that disables verification.
pub const NO_INSECURE: &str = "verification cannot be switched off; during a migration set `report_only_until = DATE` (at most 90 days ahead) in an `[[upstream]]` section, and refusals are recorded but not enforced; to trust one odd certificate permanently, set `identity` there";

/// The names, and the advice. curl, wget, openssl, oslo.config, keystoneauth, glance_store, stunnel, ghostunnel,
/// HAProxy and nginx are the source of most.
const FOREIGN: [(&[&str], &str); 22] = [
    (
        &[
            "allow-insecure",
            "disable-https-verification",
            "disable-verification",
            "insecure",
            "k",
            "no-check-certificate",
            "no-verify",
            "no-tls-verify",
            "skip-tls-verify",
            "skip-verify",
            "ssl-insecure",
            "ssl-no-verify",
            "ssl-verify",
            "tls-insecure",
            "tls-no-verify",
            "tls-skip-verify",
            "tls-verify",
            "unsafe",
            "verify",
            "verify-ssl",
            "verify-tls",
        ],
        NO_INSECURE,
    ),
    (
        &[
            "ca",
            "ca-cert",
            "ca-certificate",
            "ca-certs",
            "ca-file",
            "ca-path",
            "cacert",
            "cacerts",
            "cafile",
            "capath",
            "https-ca-bundle",
            "os-cacert",
            "ssl-ca",
            "ssl-ca-file",
            "trust",
            "trusted-ca",
            "truststore",
        ],
        "use `--ca-bundle PATH` (`ca_bundle` in the file)",
    ),
    (
        &["cert", "certfile", "certificate", "cert-file", "client-certificate", "os-cert", "ssl-cert", "tls-cert", "e"],
        "use `--client-cert FILE` (`client_cert` in the file)",
    ),
    (
        &["key", "keyfile", "key-file", "os-key", "private-key", "ssl-key", "tls-key"],
        "use `--client-key FILE` (`client_key` in the file)",
    ),
    (&["crl-file", "crlfile", "crls"], "use `--crl FILE` (`crl` in the file)"),
    (
        &["accept", "address", "bind", "l", "listen", "listener", "local", "port", "p"],
        "use `--route LISTEN=URL` for one upstream, or `--forward LISTEN` for many (`route` and `forward` in the file)",
    ),
    (
        &["backend", "dest", "destination", "origin", "server", "target", "to", "url"],
        "use `--route LISTEN=URL` (`route` in the file)",
    ),
    (
        &["allowed", "allowlist", "permit", "whitelist"],
        "use `--allow HOST[:PORT]` for the destinations of forward listeners (`allow` in the file)",
    ),
    (
        &[
            "http-proxy",
            "http-proxy-information",
            "https-proxy",
            "outbound-proxy",
            "parent",
            "proxy",
            "upstream-proxy",
            "x",
        ],
        "use `--parent-proxy URL` for a proxy on the way to upstreams (`parent_proxy` in the file)",
    ),
    (&["noproxy"], "use `--no-proxy HOST` (`no_proxy` in the file)"),
    (&["proxy-user"], "use `--parent-proxy-credentials FILE` (`parent_proxy_credentials` in the file)"),
    (&["hosts", "host-map", "resolve"], "use `--connect-to HOST[:PORT]=HOST[:PORT]` (`connect_to` in the file)"),
    (&["ssl-min-ver", "tls-min", "tls-version", "tlsv1.2", "tlsv1.3"], "use `--min-tls 1.2` or `--min-tls 1.3`"),
    (
        &["pin", "pinnedpubkey", "pubkey"],
        "set `pins` in an `[[upstream]]` section of the configuration file; `vouchsafe pin` prints them",
    ),
    (
        &["server-name", "servername", "tls-server-name"],
        "set `verify_name` or `sni` in an `[[upstream]]` section of the configuration file",
    ),
    (
        &["connection-timeout", "max-time", "read-timeout", "timeout", "m"],
        "use `--connect-timeout`, `--tls-timeout` or `--response-timeout` (`connect_timeout`, … in the file)",
    ),
    (&["debug", "v", "verbose", "vv", "vvv"], "use `--log-level debug` (`log_level` in the file)"),
    (&["q", "quiet", "s", "silent"], "use `--log-level error` (`log_level` in the file)"),
    (&["access-logs", "accesslog", "no-access-log"], "use `--access-log false` (`access_log` in the file)"),
    (&["workers", "worker-threads", "nbthread", "worker-processes"], "use `--threads COUNT` (`threads` in the file)"),
    (&["location", "follow", "follow-redirect"], "use `--follow-redirects` (`follow_redirects` in the file)"),
    (&["cfg", "conf", "config-file", "configuration", "f", "c"], "use `--config FILE`"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Args as _, Command};

    use super::*;
    use crate::config::args::RunArgs;

    #[test]
    fn every_foreign_name_has_one_advice_and_is_no_setting_of_ours() {
        let names: Vec<_> = FOREIGN.iter().flat_map(|(names, _)| names.iter().copied()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let flags = RunArgs::augment_args(Command::new(""));
        let ours: Vec<_> = flags.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
        assert!(names.iter().all(|name| !ours.contains(&(*name).to_owned())));
        let advised = FOREIGN.iter().flat_map(|(_, advice)| advice.split('`').filter(|word| word.starts_with("--")));
        for flag in advised.map(|word| word.split(' ').next().unwrap_or_default().trim_start_matches('-')) {
            assert!(ours.contains(&flag.to_owned()), "{flag}");
        }
    }
}
