//! `vouchsafe config show`: every setting, its value, and what set it. The text is a configuration file.

use std::{collections::BTreeMap, env, fmt, path::PathBuf};

use clap::{Args as _, Command};
use serde_json::{Map, Value, json};

use crate::text::show_value;

use super::{
    args::{Options, RunArgs},
    environment::Environment,
    error::ConfigError,
    merge::{MergedOptions, Origin},
    settings::bundle_variable,
    watch::Files,
};

/// All settings.
#[derive(Clone, Debug)]
pub struct Shown {
    settings: Vec<Setting>,
    /// The sections of the file, each with its name.
    sections: Vec<(&'static str, Vec<(&'static str, Value)>)>,
    file: String,
}

#[derive(Clone, Debug)]
struct Setting {
    key: &'static str,
    /// `None` if nothing set it.
    value: Option<Value>,
    set_by: String,
    /// The default, in the words of the help.
    default: Option<String>,
}

impl Shown {
    /// Merges all sources of settings. The files that they name are not read.
    ///
    /// # Errors
    /// [`ConfigError`], if the configuration file cannot be read.
    pub fn of(args: RunArgs, environment: &Environment) -> Result<Self, ConfigError> {
        let merged = MergedOptions::of(args, &mut Files::at_start())?;
        let defaults = defaults();
        let setting = |(key, value): (&'static str, Option<Value>)| Setting {
            key,
            value,
            set_by: merged.origin_name(key),
            default: defaults.get(key).cloned(),
        };
        let mut settings: Vec<_> = merged.options.values().into_iter().map(setting).collect();
        for (key, variable, value) in of_other_tools(&merged, environment) {
            if let Some(setting) = settings.iter_mut().find(|setting| setting.key == key) {
                (setting.value, setting.set_by) = (Some(value), variable.to_owned());
            }
        }
        let upstreams = merged.options.upstream.iter().map(|section| ("upstream", section.values()));
        let listeners = merged.options.listener.iter().map(|section| ("listener", section.values()));
        let sections = upstreams.chain(listeners).collect();
        Ok(Self { settings, sections, file: merged.file_name() })
    }

    /// One JSON array with an object for each setting.
    pub fn json(&self) -> Value {
        let setting = |setting: &Setting| {
            json!({
                "key": setting.key,
                "value": setting.value,
                "set_by": setting.set_by,
                "default": setting.default,
            })
        };
        let mut all: Vec<_> = self.settings.iter().map(setting).collect();
        for name in ["upstream", "listener"] {
            let object = |(_, section): &(_, Vec<(&str, Value)>)| -> Map<String, Value> {
                section.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
            };
            let sections: Vec<_> = self.sections.iter().filter(|(other, _)| *other == name).map(object).collect();
            if !sections.is_empty() {
                all.push(json!({ "key": name, "value": sections, "set_by": self.file, "default": null }));
            }
        }
        Value::Array(all)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Setting { key, value, set_by, default } in &self.settings {
            match (value, default) {
                (Some(value), _) => writeln!(f, "{key} = {value}  # {set_by}")?,
                (None, Some(default)) => writeln!(f, "# {key}: default: {default}")?,
                (None, None) => writeln!(f, "# {key}: not set")?,
            }
        }
        for (name, section) in &self.sections {
            writeln!(f, "\n[[{name}]]  # {}", self.file)?;
            section.iter().try_for_each(|(key, value)| writeln!(f, "{key} = {value}"))?;
        }
        Ok(())
    }
}

/// The default of each key that has one, as the help shows it.
fn defaults() -> BTreeMap<String, String> {
    let flags = Options::augment_args(Command::new(""));
    let default = |arg: &clap::Arg| {
        let help = arg.get_help()?.to_string();
        let (_, default) = help.split_once("[default: ")?;
        Some((arg.get_id().to_string(), default.trim_end_matches(']').to_owned()))
    };
    flags.get_arguments().filter_map(default).collect()
}

/// The settings that come from the variables of other tools.
fn of_other_tools(merged: &MergedOptions, environment: &Environment) -> Vec<(&'static str, &'static str, Value)> {
    let mut found = Vec::new();
    let is_default = |key| merged.origin(key) == Origin::Default;
    let shown = |path: PathBuf| Value::from(show_value(path));
    let system = merged.options.system_roots == Some(true);
    if let Some((name, value)) = bundle_variable(environment).filter(|_| is_default("ca_bundle") && !system) {
        let paths: Vec<_> = match name {
            "SSL_CERT_DIR" => env::split_paths(&value).map(shown).collect(),
            _ => vec![shown(value)],
        };
        found.push(("ca_bundle", name, Value::Array(paths)));
    }
    if is_default("client_cert") && is_default("client_key") {
        for (key, name) in [("client_cert", "OS_CERT"), ("client_key", "OS_KEY")] {
            found.extend(environment.path(name).map(|path| (key, name, shown(path))));
        }
    }
    found
}
