//! `mirror`: fixed routes to several ports of one server, from the same ports of another address.

use crate::{
    message::authority::{Authority, Host, parse_port},
    text::show_value,
};

use super::args::{Options, Preset};

/// The ports of OpenStack's services where each has one: Keystone and its administration, Heat, Swift, Nova, Cinder,
/// Placement, Glance, Neutron.
const OPENSTACK_PORTS: [u16; 10] = [5000, 35357, 8000, 8004, 8080, 8774, 8776, 8778, 9292, 9696];

impl Options {
    /// The fixed routes, `LISTEN=URL`: those of `route`, and those of each `mirror` that can be read.
    pub fn routes(&self) -> Vec<String> {
        let mirrored = self.mirrors().into_iter().filter_map(|(_, routes)| routes.ok()).flatten();
        self.route.iter().cloned().chain(mirrored).collect()
    }

    /// Each `mirror` as it was written, and its routes, or what is wrong with it.
    pub fn mirrors(&self) -> Vec<(String, Result<Vec<String>, String>)> {
        let read = |text: String| {
            let routes = routes(&text, self.preset);
            (text, routes)
        };
        joined(&self.mirror).into_iter().map(read).collect()
    }
}

/// A flag's values are parted at commas, as the ports of one are: what has no `=` belongs to the one before.
fn joined(parts: &[String]) -> Vec<String> {
    let mut whole: Vec<String> = Vec::new();
    for part in parts.iter().flat_map(|text| text.split(',')) {
        match whole.last_mut() {
            Some(last) if !part.contains('=') => {
                last.push(',');
                last.push_str(part);
            }
            _ => whole.push(part.to_owned()),
        }
    }
    whole
}

fn routes(text: &str, preset: Option<Preset>) -> Result<Vec<String>, String> {
    let (address, server) = text
        .split_once('=')
        .ok_or("an address and a host are expected, as in `127.0.0.2=devstack.example:5000,9292`")?;
    let Ok(Host::Ip(ip)) = address.parse::<Host>() else {
        return Err(format!("`{}` is not an IP address to listen on", show_value(address)));
    };
    if let Some((_, bare)) = server.split_once("://") {
        return Err(format!("a host without scheme is expected\nhint: write `{address}={}`", show_value(bare)));
    }
    let mut parts = server.split(',');
    let first = parts.next().unwrap_or_default();
    let Authority { host, port } = first.parse::<Authority>().map_err(|error| error.to_string())?;
    if host == Host::Ip(ip) {
        return Err(format!(
            "{ip} cannot be a mirror of itself\nhint: listen on another loopback address, as in `127.0.0.2={host}`"
        ));
    }
    let mut ports = Vec::new();
    ports.extend(port);
    for part in parts {
        let port = parse_port(part).filter(|_| port.is_some());
        ports.push(port.ok_or_else(|| {
            format!("`{}` is not a port\nhint: write `{address}={host}:5000,9292`", show_value(part))
        })?);
    }
    if ports.is_empty() {
        if preset != Some(Preset::OpenStack) {
            return Err(format!(
                "no port is listed\nhint: write `{address}={host}:5000,9292`, or set --preset openstack for the ports of its services"
            ));
        }
        ports.extend(OPENSTACK_PORTS);
    }
    let (address, host) = (Host::Ip(ip).in_authority(), host.in_authority());
    Ok(ports.into_iter().map(|port| format!("{address}:{}=https://{host}:{port}", plain(port))).collect())
}

/// The port of the plain listener: a URL without a port means 443 with https, and 80 with http.
fn plain(port: u16) -> u16 {
    if port == 443 { 80 } else { port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(mirror: &[&str], preset: Option<Preset>) -> Options {
        Options { mirror: mirror.iter().map(|text| (*text).to_owned()).collect(), preset, ..Options::default() }
    }

    #[test]
    fn each_port_becomes_a_route() {
        for (mirror, expected) in [
            (&["127.0.0.2=a.example:5000"][..], &["127.0.0.2:5000=https://a.example:5000"][..]),
            // As a flag and a variable have it, and as the file does.
            (
                &["127.0.0.2=a:1", "2", "127.0.0.3=b:443"],
                &["127.0.0.2:1=https://a:1", "127.0.0.2:2=https://a:2", "127.0.0.3:80=https://b:443"],
            ),
            (
                &["127.0.0.2=a:1,2", "127.0.0.3=b:443"],
                &["127.0.0.2:1=https://a:1", "127.0.0.2:2=https://a:2", "127.0.0.3:80=https://b:443"],
            ),
            (&["[::1]=[2001:db8::1]:7"], &["[::1]:7=https://[2001:db8::1]:7"]),
            (&["127.0.0.2=127.0.0.1:7"], &["127.0.0.2:7=https://127.0.0.1:7"]),
        ] {
            assert_eq!(options(mirror, None).routes(), expected, "{mirror:?}");
        }
        let preset = options(&["127.0.0.2=a"], Some(Preset::OpenStack)).routes();
        assert_eq!(preset.len(), OPENSTACK_PORTS.len());
        assert!(preset.contains(&"127.0.0.2:35357=https://a:35357".to_owned()));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_what_to_write() {
        for (mirror, expected) in [
            ("127.0.0.2", "an address and a host are expected"),
            ("localhost=a:1", "`localhost` is not an IP address to listen on"),
            ("127.0.0.2=https://a:1", "hint: write `127.0.0.2=a:1`"),
            ("127.0.0.2=a", "hint: write `127.0.0.2=a:5000,9292`, or set --preset openstack"),
            ("127.0.0.2=a,5", "`5` is not a port\nhint: write `127.0.0.2=a:5000,9292`"),
            ("127.0.0.2=a:1,0", "`0` is not a port"),
            ("127.0.0.2=a:1,", "`` is not a port"),
            ("127.0.0.1=127.0.0.1:1", "127.0.0.1 cannot be a mirror of itself"),
            ("127.0.0.2=u@a:1", "user name"),
        ] {
            let read = options(&[mirror], None).mirrors();
            let why = read[0].1.as_ref().unwrap_err();
            assert!(why.contains(expected), "{mirror}: {why}");
        }
    }
}
