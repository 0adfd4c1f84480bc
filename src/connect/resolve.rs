//! Names to addresses, by hickory: `/etc/hosts` and `/etc/resolv.conf` are honoured, and read again
//! when they change.

use std::{cell::RefCell, fmt, fs, net::IpAddr, os::unix::fs::MetadataExt, rc::Rc, sync::Arc};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{LookupIpStrategy, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    system_conf::read_system_conf,
};

use super::error::ConnectError;

/// The resolver of one worker thread.
pub struct Resolver {
    current: RefCell<Option<(Stamp, Rc<TokioResolver>)>>,
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

/// When the two files were last changed, as far as the file system tells.
type Stamp = [Option<(u64, i64, i64, u64)>; 2];

impl Resolver {
    /// A resolver that reads the system's files at its first use.
    pub fn new() -> Self {
        Self { current: RefCell::new(None) }
    }

    /// All addresses of a name, in the order to try them.
    ///
    /// # Errors
    /// [`ConnectError::Dns`].
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ConnectError> {
        let error = |why: String| ConnectError::Dns { name: name.to_owned(), why };
        let resolver = self.resolver().map_err(error)?;
        match resolver.lookup_ip(name).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(net) if net.is_nx_domain() => Err(error("no such name".into())),
            Err(net) if net.is_no_records_found() => Err(error("it has no address".into())),
            Err(net) => Err(error(net.to_string())),
        }
    }

    fn resolver(&self) -> Result<Rc<TokioResolver>, String> {
        let stamp = ["/etc/hosts", "/etc/resolv.conf"].map(stamp);
        if let Some((known, resolver)) = &*self.current.borrow()
            && *known == stamp
        {
            return Ok(resolver.clone());
        }
        // Without a name server there is still /etc/hosts.
        let (config, options) = read_system_conf()
            .unwrap_or_else(|_| (ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default()));
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        let mut resolver = builder.build().map_err(|error| error.to_string())?;
        resolver.set_hosts(Arc::new(Hosts::from_system().unwrap_or_default()));
        let resolver = Rc::new(resolver);
        *self.current.borrow_mut() = Some((stamp, resolver.clone()));
        Ok(resolver)
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

fn stamp(path: &str) -> Option<(u64, i64, i64, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
}
