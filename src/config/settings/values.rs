//! Single values, as people write them.

use super::super::args::UpstreamOptions;
use crate::{
    message::authority::{Authority, Host, parse_port, unmapped},
    route::policy::Allow,
    text::show_value,
    tls::identity::ReferenceId,
};

/// Reads a name or an address to verify.
///
/// # Errors
/// A sentence.
pub fn reference(text: &str) -> Result<ReferenceId, String> {
    let host = text.parse::<Host>().map_err(|error| match bare_host(text) {
        Some(bare) => {
            format!("`{}`: a name without scheme and port is expected\nhint: write `{bare}`", show_value(text))
        }
        None => error.to_string(),
    })?;
    ReferenceId::of(&host).map_err(|name| format!("`{name}` is not a name that a certificate can have"))
}

/// The host of a text that has a scheme, a port or a path too.
pub(super) fn bare_host(text: &str) -> Option<Host> {
    without_scheme(text).parse::<Authority>().ok().map(|authority| authority.host)
}

/// A text without a scheme before and a path behind the authority.
pub(super) fn without_scheme(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// What messages call a section.
pub(super) fn section_name(number: usize, section: &UpstreamOptions) -> String {
    format!("[[upstream]] {number} (`{}`)", show_value(&section.of))
}

/// Reads `HOST[:PORT]`.
pub(super) fn parse_authority(text: &str) -> Result<Authority, String> {
    text.parse().map_err(|error| match text.contains("://").then(|| bare_authority(text)).flatten() {
        Some(bare) => format!("`{}`: a host is expected, not a URL\nhint: write `{bare}`", show_value(text)),
        None => format!("{error}"),
    })
}

fn bare_authority(text: &str) -> Option<Authority> {
    without_scheme(text).parse().ok()
}

/// Reads a pattern of allowed destinations. Habits from other programs get a hint.
pub(super) fn parse_allow(text: &str) -> Result<Allow, String> {
    if let Some(network) = text.parse().ok().and_then(unmapped) {
        return Err(format!("an IPv4-mapped network matches nothing\nhint: write `{network}`"));
    }
    text.parse::<Allow>().map_err(|error| {
        if let Some(suffix) = text.strip_prefix('.').filter(|suffix| bare_host(suffix).is_some()) {
            return format!(
                "a suffix begins with `*`\nhint: write `*.{suffix}`; for the domain itself, allow `{suffix}` too"
            );
        }
        if text.contains("://") {
            return match bare_authority(text) {
                Some(bare) => format!("a pattern has no scheme and no path\nhint: write `{bare}`"),
                None => "a pattern has no scheme and no path".into(),
            };
        }
        match text.split_once('/') {
            Some((address, bits)) => not_a_network(address, bits),
            None => error,
        }
    })
}

fn not_a_network(address: &str, bits: &str) -> String {
    match address.parse::<std::net::IpAddr>() {
        Ok(ip) => {
            let most = if ip.is_ipv4() { 32 } else { 128 };
            format!("`{bits}` is not a prefix length: 0 to {most} bits are possible")
        }
        Err(_) if bare_host(address).is_some() => {
            format!("a pattern has no path; only networks have a `/`, as in `192.0.2.0/24`\nhint: write `{address}`")
        }
        Err(_) => format!("`{address}` is not the address of a network, as in `192.0.2.0/24`"),
    }
}

pub(super) fn parse_port_pair(text: &str) -> Result<(u16, u16), String> {
    let ports = text.split_once('=').and_then(|(plain, tls)| Some((parse_port(plain)?, parse_port(tls)?)));
    ports.ok_or_else(|| "two ports within 1-65535 are expected, as in `8080=8443`".to_owned())
}
