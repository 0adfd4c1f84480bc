//! The environment variables that settings may come from.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use super::paths;

/// Variables and their values, as they were when the settings were built.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The variables of this process. Those that are set to nothing count as not set.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The file that a variable names. One that is empty but for line breaks counts as not set.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(paths::trimmed).filter(|path| !path.as_os_str().is_empty())
    }

    /// The variables whose names begin with `prefix`, in letters of any case.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a OsStr)> {
        let named = self.0.iter().filter_map(|(name, value)| Some((name.to_str()?, value.as_os_str())));
        let begins = move |name: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        named.filter(move |(name, _)| begins(name))
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        Self(variables.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}
