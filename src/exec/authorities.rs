//! The local CA for a tool: files that hold its root, and what the tool would have trusted without it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
};

use tempfile::{Builder, TempPath};

use crate::{
    config::{error::ConfigError, load, watch::Files},
    mint::LocalCa,
};

use super::ExecError;

/// Variables by which tools find the CAs that they trust: requests, curl, OpenSSL and Go, OpenStack clients, Node.
pub(super) const CA_VARIABLES: [&str; 5] =
    ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "OS_CACERT", "NODE_EXTRA_CA_CERTS"];

/// Files for the variables, which are gone with this.
#[derive(Debug, Default)]
pub(super) struct Authorities {
    files: Vec<TempPath>,
    /// Each variable with its file.
    pub(super) set: Vec<(&'static str, PathBuf)>,
}

impl Authorities {
    /// Writes the files for the variables that are not to be kept; variables with equal contents share one. `get`: the
    /// tool's inherited variables.
    ///
    /// # Errors
    /// [`ExecError`]: the CAs that a variable names cannot be read, or a file cannot be written.
    pub(super) fn new(
        ca: &LocalCa,
        keep: &[String],
        get: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ExecError> {
        let mut all = Self::default();
        let mut by_content: BTreeMap<Vec<u8>, PathBuf> = BTreeMap::new();
        for name in CA_VARIABLES.into_iter().filter(|name| !keep.iter().any(|kept| kept == name)) {
            let mut content = ca.root_pem.clone();
            if let Some(value) = get(name).filter(|value| !value.is_empty()) {
                let found = load::bundle(&mut Files::at_start(), name, &[value.into()]);
                for (_, bytes) in found.map_err(|why| ExecError::Config(ConfigError::one(why)))? {
                    content.push(b'\n');
                    content.extend(bytes);
                }
            }
            let path = match by_content.get(&content) {
                Some(path) => path.clone(),
                None => {
                    let path = all.write(&content).map_err(ExecError::Authorities)?;
                    by_content.insert(content, path.clone());
                    path
                }
            };
            all.set.push((name, path));
        }
        Ok(all)
    }

    fn write(&mut self, content: &[u8]) -> io::Result<PathBuf> {
        let mut file = Builder::new().prefix("vouchsafe-ca-").suffix(".pem").tempfile()?;
        file.write_all(content)?;
        let path = file.into_temp_path();
        let name = path.to_path_buf();
        self.files.push(path);
        Ok(name)
    }
}
