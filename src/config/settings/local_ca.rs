//! The local CA, for clients that speak TLS.

use std::{
    fs,
    io::{self, ErrorKind::NotFound},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::geteuid;
use time::Duration;

use crate::{
    clock::rfc3339,
    config::{
        args::{Options, RunArgs},
        error::ConfigError,
        load,
        merge::MergedOptions,
        paths,
        watch::Files,
    },
    message::authority::Host,
    mint::{CaError, FileMode, ISSUER_FILE, KEY_FILE, LocalCa, Minter, Permit, Permits, ROOT_FILE},
    proxy::settings::{ListenAddress, ListenerSettings, Service},
    route::table::Routes,
    text::show_value,
    tls::presented::Certificate,
};

use super::{
    Build,
    listeners::{parse_route, without_tls},
    values::parse_allow,
};

/// So long before its end, a CA is worth a warning.
const SOON: Duration = Duration::days(30);

impl Build<'_> {
    /// Reads the local CA, if there is one.
    pub(super) fn minter(&mut self, routes: Option<&Routes>) -> Option<Arc<Minter>> {
        let directory = self.options.local_ca.as_ref()?;
        let name = self.merged.name("local_ca");
        let ca = self.local_ca(&name, directory);
        let ca = self.take(ca)?;
        self.warn_of_ca(&name, &ca);
        if let Some(routes) = routes {
            self.refuse_own_roots(&ca, routes);
        }
        let minter = Minter::new(ca).map_err(|error| format!("{name}: {error}"));
        self.take(minter).map(Arc::new)
    }

    fn local_ca(&mut self, name: &str, directory: &Path) -> Result<LocalCa, String> {
        paths::is_name(name, directory)?;
        // All three are watched, whatever is wrong now.
        let files = [ROOT_FILE, ISSUER_FILE, KEY_FILE].map(|file| {
            let path = directory.join(file);
            (self.files.read(&path), path)
        });
        let named = |why: String| format!("{name}: {why}");
        match fs::metadata(directory) {
            Err(error) if error.kind() == NotFound => return Err(no_ca(name, directory, "there is no such directory")),
            Err(error) => return Err(load::unread(name, directory, &[], &error)),
            Ok(_) => FileMode::of(directory).and_then(|mode| mode.check_directory()).map_err(named)?,
        }
        if files.iter().all(|(read, _)| read.as_ref().is_err_and(|error| error.kind() == NotFound)) {
            return Err(no_ca(name, directory, "there is no CA in it"));
        }
        let checked = |(read, path): (io::Result<Vec<u8>>, PathBuf), check: fn(&FileMode) -> Result<(), String>| {
            let bytes = read.map_err(|error| unread(name, directory, &path, &error))?;
            FileMode::of(&path).and_then(|mode| check(&mode)).map_err(named)?;
            Ok::<_, String>(bytes)
        };
        let [root, issuer, key] = files;
        let key = checked(key, FileMode::check_key)?;
        let root = checked(root, FileMode::check_certificate)?;
        let issuer = checked(issuer, FileMode::check_certificate)?;
        LocalCa::read(directory, &root, &issuer, &key, self.clock.now())
            .map_err(|CaError { path, why }| format!("{name} `{}`: {why}", show_value(path)))
    }

    fn warn_of_ca(&mut self, name: &str, ca: &LocalCa) {
        if ca.permits == Permits::Anything {
            self.warnings.push(format!(
                "{name}: this CA may sign for ANY NAME: whoever gets its {KEY_FILE} can impersonate every server to clients that trust it\nhint: make one with `vouchsafe ca init DIR --permit NAME`"
            ));
        }
        if ca.not_after - self.clock.now() < SOON {
            self.warnings.push(format!(
                "{name}: the CA expires on {}\nhint: make a new one with `vouchsafe ca init`, give its {ROOT_FILE} to the clients, and then set {name} to it",
                rfc3339(ca.not_after)
            ));
        }
    }

    /// The proxy would take itself for any server that its own CA may sign for.
    fn refuse_own_roots(&mut self, ca: &LocalCa, routes: &Routes) {
        let sections = routes.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref());
        for tls in [&routes.tls].into_iter().chain(sections) {
            let anchors = &tls.0.settings().trust.anchors;
            let is_own =
                |certificate: &Certificate| certificate.facts.as_ref().is_ok_and(|facts| ca.is_own_key(&facts.spki));
            if anchors.certificates().iter().any(is_own) {
                let problem = format!(
                    "{}: the local CA is in it, by which this proxy would trust its own certificates\nhint: take it out; only clients of this proxy trust it",
                    anchors.source
                );
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
            }
        }
    }

    /// A local CA that nobody meets, and listeners for TLS that it cannot serve, or without one.
    pub(super) fn unused_local_ca(&mut self, listeners: &[ListenerSettings], minter: Option<&Minter>) {
        for listener in listeners.iter().filter(|listener| listener.tls) {
            let (Some(minter), Service::Fixed(upstream)) = (minter, &listener.service) else { continue };
            let own = match &listener.address {
                ListenAddress::Tcp(address) => Some(Host::Ip(address.ip())),
                _ => None,
            };
            let permits = &minter.ca().permits;
            if ![Some(upstream.host.clone()), own].into_iter().flatten().any(|host| permits.covers(&host)) {
                self.warnings.push(format!(
                    "{}: the local CA may sign for {permits} only, so clients that do not send such a name cannot be served\nhint: {}",
                    listener.name,
                    minter.ca().remedy(&upstream.host.to_string())
                ));
            }
        }
        let serves_tls = |listener: &ListenerSettings| listener.tls || !matches!(listener.service, Service::Fixed(_));
        if self.options.local_ca.is_some() {
            if !listeners.is_empty() && !listeners.iter().any(serves_tls) {
                let name = self.merged.name("local_ca");
                self.warnings.push(format!(
                    "{name} has no effect: no listener serves TLS\nhint: write `tls://` before the address of a route, or set --forward LISTEN"
                ));
            }
            return;
        }
        for listener in listeners.iter().filter(|listener| listener.tls) {
            self.problems.push(format!(
                "{}: clients that speak TLS need a certificate\nhint: make a CA with `vouchsafe ca init DIR`, and set --local-ca DIR",
                listener.name
            ));
        }
    }
}

fn no_ca(name: &str, directory: &Path, why: &str) -> String {
    let shown = show_value(directory);
    format!("{name} `{shown}`: {why}\nhint: make a CA with `vouchsafe ca init {shown} --permit NAME`")
}

/// What to do about a file of a CA that cannot be read.
fn unread(name: &str, directory: &Path, path: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        // Nobody else may read the key, so a permission is no remedy.
        io::ErrorKind::PermissionDenied => {
            let own = geteuid().as_raw();
            format!(
                "this process runs as user {own}, who has to own the CA: `chown -R {own} {}`",
                show_value(directory)
            )
        }
        _ => "`vouchsafe ca init` wrote it: restore it from a copy, or make a new CA in another directory".into(),
    };
    format!("{name} `{}`: {error}\nhint: {hint}", show_value(path))
}

/// What a new local CA is to sign for: what was asked for, or else where the settings let clients go by TLS.
///
/// # Errors
/// [`ConfigError`] with everything that cannot be permitted.
pub fn permits(asked: &[String], run: RunArgs) -> Result<Permits, ConfigError> {
    let (mut problems, mut all) = (Vec::new(), Vec::new());
    let mut add = |name: &str, shown: &str, text: &str| {
        match text.parse::<Permit>() {
        Ok(permit) if !all.contains(&permit) => all.push(permit),
        Ok(_) => {}
        Err(_) if text == "*" => problems.push(format!(
            "{name} `{shown}`: a CA for every name is a danger to all clients that trust it\nhint: name what it is for with --permit; --permit-anything makes one all the same"
        )),
        Err(why) => problems.push(format!("{name} `{}`: {why}", show_value(shown))),
    }
    };
    for text in asked {
        add("--permit", text, text);
    }
    if asked.is_empty() {
        let merged = MergedOptions::of(run, &mut Files::at_start())?;
        for text in &merged.options.allow {
            // One that cannot be read is reported as what it is.
            let hosts = parse_allow(text).map_or_else(|_| text.clone(), |allow| allow.on_any_port().to_string());
            add(&merged.name("allow"), text, &hosts);
        }
        for (text, host) in tls_hosts(&merged.options) {
            add(&merged.name("route"), &text, &host);
        }
    }
    if all.is_empty() && problems.is_empty() {
        problems
            .push("there is nothing that the CA may sign for\nhint: set --permit NAME, or --allow as for `run`".into());
    }
    ConfigError::unless_empty(problems)?;
    Ok(Permits::Only(all))
}

/// The names by which clients reach routes for TLS: the upstream's host, and the address where there is one.
fn tls_hosts(options: &Options) -> Vec<(String, String)> {
    let hosts = options.route.iter().filter_map(|text| {
        let (listen, upstream) = parse_route(text).ok()?;
        let own = Some(without_tls(listen)).filter(|own| *own != listen)?;
        let own = reached_at(own).map(|own| (text.clone(), own.to_string()));
        Some([Some((text.clone(), upstream.host.to_string())), own])
    });
    hosts.flatten().flatten().collect()
}

/// The address at which clients reach a listener, as far as the setting says so.
fn reached_at(listen: &str) -> Option<IpAddr> {
    if listen.starts_with("fd:") || listen.starts_with("unix:") {
        return None;
    }
    match listen.parse::<SocketAddr>() {
        Ok(address) => Some(address.ip()).filter(|ip| !ip.is_unspecified()),
        // The name of a route of `exec`, which is bound to this address.
        Err(_) => Some(Ipv4Addr::LOCALHOST.into()),
    }
}
