//! Parent proxies: which upstreams are reached through one, and how it is verified.

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use crate::{
    message::authority::Host,
    proxy::settings::{ListenAddress, ListenerSettings},
    route::{
        no_proxy::{NoProxy, NoProxyEntry},
        parent::{ParentChoice, ParentCredentials, ParentProxy, ParentRules, ParentUrl, from_schemes},
        policy::{AddressRule, DestinationPolicy},
        table::Routes,
        upstream::{TlsHandle, Upstream},
    },
    text::show_value,
    tls::{client::TlsSettings, identity::ReferenceId},
};

use super::{
    super::{args::UpstreamOptions, load},
    Build,
    values::section_name,
};

/// Where a parent proxy is that the environment names. `HTTP_PROXY` and `ALL_PROXY` are not among them: every upstream
/// is reached by TLS.
const HTTPS_PROXY: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const NO_PROXY: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The words in place of a URL.
const DIRECT: &str = "direct";
const ENVIRONMENT: &str = "env";

impl Build<'_> {
    /// The rules for all upstreams.
    pub(super) fn parents(&mut self, default: Option<&TlsSettings>, policy: &DestinationPolicy) -> ParentRules {
        let name = self.merged.name("parent_proxy");
        let text = self.options.parent_proxy.as_deref().unwrap_or(DIRECT);
        let choice = self.choice(&name, text, self.options.parent_proxy_credentials.as_deref(), default);
        let mut entries = Vec::new();
        let list = self.options.no_proxy.iter().flat_map(|texts| NoProxy::split(texts));
        for text in list {
            let entry = text.parse::<NoProxyEntry>();
            let entry = entry.map_err(|why| format!("{} `{}`: {why}", self.merged.name("no_proxy"), show_value(text)));
            entries.extend(self.take(entry));
        }
        if text == ENVIRONMENT {
            entries.extend(self.no_proxy_of_environment());
        }
        let Some(ParentChoice::Through(parent)) = choice else { return ParentRules::default() };
        if policy.allows_everything() && self.options.allow_any_through_parent != Some(true) {
            self.problems.push(format!(
                "{} `*`: the address that a parent proxy connects to is not known here, so `*` would permit metadata services and hosts of the proxy's own network\nhint: allow hosts or suffixes, as in `*.cloud.example`, or set --allow-any-through-parent",
                self.merged.name("allow")
            ));
        }
        ParentRules { parent: Some(parent), no_proxy: NoProxy(entries) }
    }

    /// How the upstream of a section is reached.
    pub(super) fn parent_choice(
        &mut self,
        what: &str,
        section: &UpstreamOptions,
        default: Option<&TlsSettings>,
    ) -> Option<ParentChoice> {
        let credentials = section.parent_proxy_credentials.as_deref();
        match &section.parent_proxy {
            Some(text) => self.choice(&format!("{what}: parent_proxy"), text, credentials, default),
            None => {
                if credentials.is_some() {
                    self.problems.push(format!(
                        "{what}: parent_proxy_credentials: the section has no proxy\nhint: set `parent_proxy` in the section too"
                    ));
                }
                None
            }
        }
    }

    fn choice(
        &mut self,
        name: &str,
        text: &str,
        credentials: Option<&Path>,
        default: Option<&TlsSettings>,
    ) -> Option<ParentChoice> {
        let (name, text) = match text {
            DIRECT => return self.direct(name, credentials),
            ENVIRONMENT => match self.variable(HTTPS_PROXY) {
                Some((variable, value)) => (variable.to_owned(), value),
                None => {
                    self.warnings.push(format!(
                        "{name} `env`: neither HTTPS_PROXY nor https_proxy is set; upstreams are connected to directly"
                    ));
                    return self.direct(name, credentials);
                }
            },
            text => (name.to_owned(), text.to_owned()),
        };
        let problem = |why: String| format!("{name} `{}`: {why}", show_value(&text));
        let url = from_schemes(&text).and_then(ParentUrl::parse).map_err(problem);
        let url = self.take(url)?;
        let of_file = match credentials {
            Some(_) if url.credentials.is_some() => {
                self.problems.push(problem(
                    "there are credentials in the URL, and in a file too\nhint: keep the file, since `ps` shows a URL"
                        .into(),
                ));
                return None;
            }
            Some(path) => {
                let read = self.credentials(path);
                Some(self.take(read)?)
            }
            None => None,
        };
        let tls = if url.https { Some(Box::new(self.parent_tls(&name, &url, default)?)) } else { None };
        let ParentUrl { host, port, credentials, .. } = url;
        let credentials = of_file.or(credentials);
        Some(ParentChoice::Through(Arc::new(ParentProxy { host, port, tls, credentials })))
    }

    fn direct(&mut self, name: &str, credentials: Option<&Path>) -> Option<ParentChoice> {
        if let Some(path) = credentials {
            self.problems.push(format!(
                "parent_proxy_credentials `{}`: there is no parent proxy\nhint: set {name} to its URL",
                show_value(path)
            ));
        }
        Some(ParentChoice::Direct)
    }

    /// Reads `user:password` from a file that only its owner may read.
    fn credentials(&mut self, path: &Path) -> Result<ParentCredentials, String> {
        const NAME: &str = "--parent-proxy-credentials";
        let (shown, bytes) = load::named(self.files, NAME, path)?;
        let problem = |why: &str| format!("{NAME} `{shown}`: {why}");
        if let Ok(meta) = std::fs::metadata(path)
            && meta.is_file()
            && meta.permissions().mode() & 0o077 != 0
        {
            let mode = meta.permissions().mode() & 0o777;
            return Err(problem(&format!(
                "others than its owner can read it (mode {mode:04o})\nhint: `chmod 600 {shown}`"
            )));
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.contains(&b'\n') {
            return Err(problem("one line is expected, as in `user:password`"));
        }
        ParentCredentials::new(line).map_err(problem)
    }

    /// What an `https://` parent has to prove. It is never told the client certificate for upstreams.
    fn parent_tls(&mut self, name: &str, url: &ParentUrl, default: Option<&TlsSettings>) -> Option<Upstream> {
        let mut settings = default?.clone();
        let options = self.options;
        if !options.parent_ca_bundle.is_empty() {
            let setting = self.merged.name("parent_ca_bundle");
            let shown: Vec<_> = options.parent_ca_bundle.iter().map(|path| format!("`{}`", show_value(path))).collect();
            let anchors = load::bundle(self.files, &setting, &options.parent_ca_bundle)
                .and_then(|files| self.anchors(format!("{setting} {}", shown.join(", ")), files, None));
            settings.trust.anchors = Arc::new(self.take(anchors)?);
            let anchors = settings.trust.anchors.clone();
            self.warn_of_skipped(&anchors);
        }
        let names = [self.merged.name("parent_client_cert"), self.merged.name("parent_client_key")];
        let (cert, key) = (options.parent_client_cert.as_deref(), options.parent_client_key.as_deref());
        settings.client = self.client_identity([&names[0], &names[1]], cert, key);
        let reference = ReferenceId::of(&url.host)
            .map_err(|host| format!("{name}: `{host}` is not a name that a certificate can have"));
        let reference = self.take(reference)?;
        let sni = match &reference {
            ReferenceId::Dns(name) => Some(name.as_ref().to_owned()),
            ReferenceId::Ip(_) => None,
        };
        let tls: TlsHandle = self.tls_client(settings)?;
        let (host, port) = (url.host.clone(), url.port);
        let (dial_host, dial_port, addresses) = (host.clone(), port, AddressRule::any());
        Some(Upstream { host, port, dial_host, dial_port, reference, sni, tls, addresses, parent: None })
    }

    /// The first of two spellings of a variable that is set.
    fn variable(&self, names: [&'static str; 2]) -> Option<(&'static str, String)> {
        let set = |name: &'static str| Some((name, self.environment.get(name)?.to_string_lossy().trim().to_owned()));
        names.into_iter().filter_map(set).find(|(_, value)| !value.is_empty())
    }

    /// The environment is often not the operator's own, so what can never match is a warning only.
    fn no_proxy_of_environment(&mut self) -> Vec<NoProxyEntry> {
        let Some((name, value)) = self.variable(NO_PROXY) else { return Vec::new() };
        let mut entries = Vec::new();
        for text in NoProxy::split(&value) {
            match text.parse() {
                Ok(entry) => entries.push(entry),
                Err(why) => self.warnings.push(format!("{name} `{}` can never match: {why}", show_value(text))),
            }
        }
        entries
    }

    /// A line about a proxy of the environment that is not used: Docker and others set the variables for every container.
    pub(super) fn ambient_proxy(&self) -> Option<String> {
        let (name, _) = self.variable(HTTPS_PROXY).filter(|_| self.options.parent_proxy.is_none())?;
        Some(format!("{name} is set and not used; --parent-proxy env takes it"))
    }

    /// Parents that lead back to this proxy, or to the upstream itself.
    pub(super) fn own_parents(&mut self, listeners: &[ListenerSettings], routes: Option<&Routes>) {
        let Some(routes) = routes else { return };
        let of_sections = routes.upstreams.iter().filter_map(|settings| match &settings.parent {
            Some(ParentChoice::Through(parent)) => Some(parent),
            _ => None,
        });
        for parent in routes.parents.parent.iter().chain(of_sections) {
            if let Some(listener) = listeners.iter().find(|listener| is_at(&listener.address, parent)) {
                self.problems.push(format!(
                    "the parent proxy {parent} is a listener of this proxy (`{}`): a loop\nhint: name the proxy that leads out of this network",
                    listener.name
                ));
            }
        }
        for listener in listeners {
            let Some(upstream) = listener.service.fixed() else { continue };
            if let Some(parent) = upstream.parent.as_ref().filter(|parent| upstream.is_at(&parent.host, parent.port)) {
                self.problems.push(format!(
                    "the parent proxy {parent} is the upstream `{upstream}` itself\nhint: set `parent_proxy = \"direct\"` in its `[[upstream]]` section, or name another proxy"
                ));
            }
        }
    }

    /// Settings for a parent proxy where there is none, or none that speaks TLS.
    pub(super) fn unused_parent_settings(&mut self) {
        let options = self.options;
        let chosen = |text: &Option<String>| text.as_deref().is_some_and(|text| text != DIRECT);
        let of_sections = || options.upstream.iter().filter(|section| chosen(&section.parent_proxy));
        let is_any = chosen(&options.parent_proxy);
        let may_be_tls =
            |text: &Option<String>| text.as_deref().is_some_and(|text| text == ENVIRONMENT || text.contains("https:"));
        let is_tls =
            may_be_tls(&options.parent_proxy) || of_sections().any(|section| may_be_tls(&section.parent_proxy));
        let checks = [
            ("no_proxy", !options.no_proxy.is_empty(), is_any, "there is no --parent-proxy"),
            (
                "allow_any_through_parent",
                options.allow_any_through_parent == Some(true),
                is_any,
                "there is no --parent-proxy",
            ),
            ("parent_ca_bundle", !options.parent_ca_bundle.is_empty(), is_tls, "no parent proxy is an `https://` one"),
            (
                "parent_client_cert",
                options.parent_client_cert.is_some(),
                is_tls,
                "no parent proxy is an `https://` one",
            ),
            ("parent_client_key", options.parent_client_key.is_some(), is_tls, "no parent proxy is an `https://` one"),
        ];
        for (key, _, _, why) in checks.into_iter().filter(|(_, is_set, is_used, _)| *is_set && !is_used) {
            self.warnings.push(format!("{} has no effect: {why}", self.merged.name(key)));
        }
        for (place, section) in options.upstream.iter().enumerate() {
            let is_direct = section.parent_proxy.as_deref() == Some(DIRECT);
            if is_direct && !is_any {
                let name = section_name(place + 1, section);
                self.warnings.push(format!("{name}: parent_proxy `direct` has no effect: there is no --parent-proxy"));
            }
        }
    }
}

/// Whether a listener has the address of a parent proxy, as far as that shows without a name server.
fn is_at(listener: &ListenAddress, parent: &ParentProxy) -> bool {
    let Some(address) = listener.tcp().filter(|address| address.port() == parent.port) else { return false };
    match &parent.host {
        Host::Ip(ip) => {
            let ip = ip.to_canonical();
            address.ip().to_canonical() == ip || address.ip().is_unspecified() && ip.is_loopback()
        }
        Host::Name(name) => {
            name.as_str() == "localhost" && (address.ip().is_loopback() || address.ip().is_unspecified())
        }
    }
}
