//! Trusted CAs, revocation lists and client certificates: the default ones, and what sections need to read their own.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_native_certs::{CertificateResult, load_certs_from_paths, load_native_certs};

use crate::{
    route::upstream::TlsHandle,
    text::show_value,
    tls::{
        case::{Terms, Trust},
        checks,
        client::{TlsClient, TlsSettings},
        client_identity::{ClientIdentity, IdentityError},
        crl::Crls,
        failure::CertificateRef,
        fingerprint::Fingerprint,
        revocation::{CrlPolicy, CrlRule, Leniency},
        trust::{TrustAnchors, TrustError},
    },
};

use super::{
    super::{
        load::{self, Named},
        paths,
        watch::Files,
    },
    Build,
};

/// The variables of other tools that may name the default bundle. The first that is set counts, after the setting
/// itself.
const BUNDLE_VARIABLES: [&str; 5] =
    ["OS_CACERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"];

impl Build<'_> {
    /// How upstreams without settings of their own are verified.
    pub(super) fn default_tls(&mut self) -> Option<TlsSettings> {
        let options = self.options;
        let crls = self.crls(&self.merged.name("crl"), &options.crl);
        let policy_name = self.merged.name("crl_policy");
        let crl_policy = self.crl_policy(&policy_name, &options.crl_policy, CrlPolicy::default());
        self.require_lists(&policy_name, crl_policy, &crls);
        let client = match (&options.client_cert, &options.client_key) {
            (None, None) => {
                let (cert, key) = (self.environment.path("OS_CERT"), self.environment.path("OS_KEY"));
                self.client_identity(["OS_CERT", "OS_KEY"], cert.as_deref(), key.as_deref())
            }
            (cert, key) => {
                let names = [self.merged.name("client_cert"), self.merged.name("client_key")];
                self.client_identity([&names[0], &names[1]], cert.as_deref(), key.as_deref())
            }
        };
        let anchors = self.default_anchors();
        let anchors = Arc::new(self.take(anchors)?);
        self.warn_of_skipped(&anchors);
        Some(TlsSettings {
            trust: Trust { anchors, crls, terms: Terms { crl_policy, ..Terms::default() } },
            min_version: options.min_tls.unwrap_or_default(),
            client,
            report_only: None,
        })
    }

    pub(super) fn warn_of_skipped(&mut self, anchors: &TrustAnchors) {
        self.warnings.extend(anchors.skipped.iter().map(|skipped| format!("{}: {skipped}", anchors.source)));
    }

    pub(super) fn tls_client(&mut self, settings: TlsSettings) -> Option<TlsHandle> {
        let client = TlsClient::new(settings, self.clock).map_err(|error| format!("cannot set up TLS: {error}"));
        self.take(client).map(TlsHandle)
    }

    pub(super) fn crls(&mut self, name: &str, paths: &[PathBuf]) -> Arc<Crls> {
        let crls = load::each(self.files, name, paths)
            .and_then(|files| Crls::load(&files, self.clock.now()).map_err(|why| format!("{name} {why}")));
        let crls = self.take(crls).unwrap_or_default();
        self.warnings.extend(crls.warnings.iter().map(|warning| format!("{name} {warning}")));
        Arc::new(crls)
    }

    /// The rules on top of `policy`. A rule that a later one overrides is an error.
    pub(super) fn crl_policy(&mut self, name: &str, rules: &[String], policy: CrlPolicy) -> CrlPolicy {
        self.problems.extend(repeated_rules(name, rules));
        self.each(name, rules, str::parse::<CrlRule>).into_iter().fold(policy, CrlPolicy::with)
    }

    pub(super) fn require_lists(&mut self, name: &str, policy: CrlPolicy, crls: &Crls) {
        if crls.is_empty() && policy.unknown == Leniency::Refuse {
            self.problems.push(no_list(name, "unknown=refuse"));
        }
    }

    /// A client certificate and its key, which may be in the same file. `names` are those of the two settings.
    pub(super) fn client_identity(
        &mut self,
        names: [&str; 2],
        cert: Option<&Path>,
        key: Option<&Path>,
    ) -> Option<Arc<ClientIdentity>> {
        let [cert_name, key_name] = names;
        let Some(cert) = cert else {
            if let Some(key) = key {
                let named = paths::is_name(key_name, key);
                self.take(named)?;
                self.problems.push(format!(
                    "{key_name} `{}`: there is a key, but no certificate\nhint: set {cert_name} too",
                    show_value(key)
                ));
            }
            return None;
        };
        let (key_name, key) = key.map_or((cert_name, cert), |key| (key_name, key));
        let read = load::named(self.files, cert_name, cert).and_then(|chain| {
            let key = load::named(self.files, key_name, key)?;
            ClientIdentity::from_pem(&chain, &key).map_err(|error| match error {
                IdentityError::Certificate(why) => format!("{cert_name} `{}`: {why}", chain.0),
                IdentityError::Key(why) => format!("{key_name} `{}`: {why}", key.0),
            })
        });
        let identity = self.take(read)?;
        if let Some(finding) = checks::validity(&identity.certificate, CertificateRef::Presented(0), self.clock.now()) {
            self.warnings.push(format!("{cert_name} `{}`: {}", show_value(cert), finding.sentence));
        }
        Some(Arc::new(identity))
    }

    fn default_anchors(&mut self) -> Result<TrustAnchors, String> {
        let system = self.options.system_roots == Some(true);
        let (source, files) = match self.options.ca_bundle.as_slice() {
            [] => self.bundle_of_environment(system)?,
            paths => {
                let name = self.merged.name("ca_bundle");
                let shown: Vec<_> = paths.iter().map(|path| format!("`{}`", show_value(path))).collect();
                (format!("{name} {}", shown.join(", ")), load::bundle(self.files, &name, paths)?)
            }
        };
        if source.is_empty() && !system {
            return Err(format!(
                "no CA bundle is configured\nhint: set --ca-bundle FILE, --system-roots, or one of the variables VOUCHSAFE_CA_BUNDLE, {}",
                BUNDLE_VARIABLES.join(", ")
            ));
        }
        self.anchors(source, files, system.then_some("--system-roots"))
    }

    /// The bundle of another tool's variable; nothing if system roots are configured, since those were asked for.
    fn bundle_of_environment(&mut self, system: bool) -> Result<(String, Vec<Named>), String> {
        let Some((name, value)) = bundle_variable(self.environment).filter(|_| !system) else {
            return Ok((String::new(), Vec::new()));
        };
        let paths: Vec<_> = match name {
            "SSL_CERT_DIR" => env::split_paths(&value).collect(),
            _ => vec![value.clone()],
        };
        Ok((format!("{name} `{}`", show_value(&value)), load::bundle(self.files, name, &paths)?))
    }

    /// The anchors of files, and those of the system if the setting named `system` asks for them.
    pub(super) fn anchors(
        &mut self,
        source: String,
        files: Vec<Named>,
        system: Option<&str>,
    ) -> Result<TrustAnchors, String> {
        let (source, more) = match system {
            None => (source, Vec::new()),
            Some(setting) => {
                let (variables, system) = system_roots();
                self.warnings.extend(system.errors.iter().map(|error| format!("{setting}: {error}")));
                let setting = match variables.is_empty() {
                    true => setting.to_owned(),
                    false => format!("{setting} ({})", variables.join(", ")),
                };
                let source = if source.is_empty() { setting } else { format!("{source} and {setting}") };
                (source, system.certs)
            }
        };
        let anchors = TrustAnchors::from_pem(&source, &files, more).map_err(|error| error.to_string());
        for file in files {
            if !self.bundle_files.contains(&file) {
                self.bundle_files.push(file);
            }
        }
        anchors
    }
}

/// The first variable of another tool that names a bundle, and its value.
pub fn bundle_variable(environment: &super::Environment) -> Option<(&'static str, PathBuf)> {
    BUNDLE_VARIABLES.iter().find_map(|name| Some((*name, environment.path(name)?)))
}

/// Reads a certificate's fingerprint, or a file with the certificate.
///
/// # Errors
/// A sentence.
pub fn identity(files: &mut Files, name: &str, value: &str) -> Result<Fingerprint, String> {
    if Fingerprint::is_meant(value) {
        return value.parse().map_err(|why| format!("{name} `{}`: {why}", show_value(value)));
    }
    let file = load::named(files, name, Path::new(value))?;
    let what = format!("{name} `{}`", show_value(value));
    let set = TrustAnchors::from_pem(&what, &[file], Vec::new()).map_err(|error| match error {
        TrustError::Empty { other, .. } if other.iter().all(|(_, remedy)| remedy.is_none()) => format!(
            "{what}: no certificate in it\nhint: name a PEM file with the one certificate, or `sha256:` and its fingerprint"
        ),
        error => error.to_string(),
    })?;
    match set.certificates() {
        [one] => Ok(Fingerprint::of(&one.der)),
        more => Err(format!(
            "{what}: one certificate is expected, and the file has {}\nhint: keep only the server's own in it; its CAs do not matter here",
            more.len()
        )),
    }
}

/// What is wrong with rules that would override earlier ones of the same list.
pub fn repeated_rules(name: &str, rules: &[String]) -> Vec<String> {
    let kind = |rule: &String| rule.split('=').next().unwrap_or_default().to_owned();
    let repeated =
        rules.iter().enumerate().filter(|(place, rule)| rules[..*place].iter().any(|other| kind(other) == kind(rule)));
    repeated
        .map(|(_, rule)| format!("{name} `{}`: `{}` is set twice", show_value(rule), show_value(kind(rule))))
        .collect()
}

/// What is wrong with a rule about revocation lists if there are none. `name` is the setting that has the rule.
pub fn no_list(name: &str, rule: &str) -> String {
    format!("{name} `{rule}`: no revocation list is configured\nhint: set --crl with the lists of the CAs")
}

/// The CAs of the system, and the variables that say where they are.
///
/// rustls-native-certs reads SSL_CERT_FILE and SSL_CERT_DIR of the process before it looks where systems have them.
/// It would take an empty SSL_CERT_FILE for a path; here it counts as not set.
fn system_roots() -> (Vec<String>, CertificateResult) {
    let set = |name: &str| env::var_os(name).filter(|value| directories(value).next().is_some());
    let shown = |name: &&str| Some(format!("{name} `{}`", show_value(set(name)?)));
    let by: Vec<_> = ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().filter_map(shown).collect();
    if env::var_os("SSL_CERT_FILE").is_none() || set("SSL_CERT_FILE").is_some() {
        return (by, load_native_certs());
    }
    let (file, directories) = match set("SSL_CERT_DIR") {
        Some(value) => (None, directories(&value).collect()),
        None => {
            let found = openssl_probe::probe();
            (found.cert_file, found.cert_dir)
        }
    };
    let mut all = load_certs_from_paths(file.as_deref(), None);
    for directory in directories {
        let more = load_certs_from_paths(None, Some(&directory));
        all.certs.extend(more.certs);
        all.errors.extend(more.errors);
    }
    (by, all)
}

fn directories(value: &OsStr) -> impl Iterator<Item = PathBuf> {
    env::split_paths(value).filter(|path| !path.as_os_str().is_empty())
}
