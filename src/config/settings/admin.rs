//! The admin listener.

use crate::{
    admin::{AdminPolicy, AdminSettings},
    proxy::settings::{ListenAddress, ListenerSettings},
    text::show_value,
};

use super::{
    Build,
    listeners::{parse_accept_host, tcp_address, unix_socket},
};

impl Build<'_> {
    /// The admin listener, if there is one. `listeners`: those for clients.
    pub(super) fn admin(&mut self, listeners: &[ListenerSettings]) -> Option<AdminSettings> {
        let options = self.options;
        let hosts = self.each(&self.merged.name("admin_host"), &options.admin_host, parse_accept_host);
        let read_only = options.admin_read_only == Some(true);
        let Some(text) = &options.admin else {
            for key in ["admin_host", "admin_read_only"] {
                if self.merged.is_set(key) {
                    let name = self.merged.name(key);
                    self.warnings.push(format!("{name} has no effect: there is no `admin`\nhint: set --admin ADDRESS"));
                }
            }
            return None;
        };
        let address = admin_address(text, read_only).and_then(|address| {
            let twin = listeners.iter().find(|listener| listener.address == address);
            let is_any_port = address.tcp().is_some_and(|address| address.port() == 0);
            match twin.filter(|_| !is_any_port) {
                Some(twin) => Err(format!("`{}` listens there already", twin.name)),
                None => Ok(address),
            }
        });
        let address = address.map_err(|why| format!("{} `{}`: {why}", self.merged.name("admin"), show_value(text)));
        Some(AdminSettings { address: self.take(address)?, policy: AdminPolicy { hosts, read_only } })
    }
}

fn admin_address(text: &str, read_only: bool) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return unix_socket(path);
    }
    let address = tcp_address(text)?;
    if !address.ip().is_loopback() && !read_only {
        return Err(format!(
            "{} can be reached from other hosts, and the status names clients and upstreams\nhint: listen on 127.0.0.1, or set --admin-read-only, which leaves /livez, /readyz and /metrics",
            address.ip()
        ));
    }
    Ok(ListenAddress::Tcp(address))
}
