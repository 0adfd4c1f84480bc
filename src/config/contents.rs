//! Options that were given the contents of a file, perhaps a private key, where the name of the file belongs. Other tools take
//! either. Such a value is named here, and never shown.

use std::{
    env,
    ffi::{OsStr, OsString},
};

use clap::{
    ArgMatches, Command, Error,
    error::{ContextKind, ContextValue},
    parser::ValueSource,
};

use crate::text::{holds_contents, show_value};

use super::error::ConfigError;

/// A sentence about such a value of `what`, which is a flag, a variable, or `FILE:LINE: KEY`; `None` for any other value.
pub fn problem(what: &str, value: impl AsRef<OsStr>) -> Option<String> {
    holds_contents(&value.as_ref().to_string_lossy()).then(|| {
        format!(
            "{what}: the value is the contents of a file, not its name; it is not shown\nhint: write it to a file and give its name, or use `<(…)` of the shell"
        )
    })
}

/// Looks over the process's arguments, before a usage error can repeat one of them.
///
/// # Errors
/// [`ConfigError`] that names the flags.
pub fn check_arguments() -> Result<(), ConfigError> {
    // What is behind `--` is the tool's, and its own business.
    let arguments: Vec<OsString> = env::args_os().take_while(|argument| argument != "--").collect();
    let problems = arguments.windows(2).filter_map(|pair| {
        let [before, argument] = pair else { return None };
        let (before, text) = (before.to_string_lossy(), argument.to_string_lossy());
        let (flag, value) = match text.split_once('=') {
            Some((flag, value)) if is_flag(flag) => (flag, value),
            _ if is_flag(&before) => (before.as_ref(), text.as_ref()),
            _ => ("an argument", text.as_ref()),
        };
        problem(flag, value)
    });
    ConfigError::unless_empty(problems.collect())
}

fn is_flag(text: &str) -> bool {
    let name = text.strip_prefix("--");
    name.is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'))
}

/// Looks over the variables that count for the sub-command.
///
/// # Errors
/// [`ConfigError`] that names the variables.
pub fn check_variables(matches: &ArgMatches, command: &Command) -> Result<(), ConfigError> {
    if let Some((name, matches)) = matches.subcommand() {
        return command.find_subcommand(name).map_or(Ok(()), |command| check_variables(matches, command));
    }
    let problems = command.get_arguments().filter_map(|argument| {
        let id = argument.get_id().as_str();
        let variable = argument.get_env().filter(|_| matches.value_source(id) == Some(ValueSource::EnvVariable))?;
        problem(&variable.to_string_lossy(), env::var_os(variable)?)
    });
    ConfigError::unless_empty(problems.collect())
}

/// A usage error that repeats no value unmasked.
pub fn masked(mut error: Error) -> Error {
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidSubcommand, ContextKind::InvalidValue] {
        if let Some(ContextValue::String(value)) = error.get(kind) {
            let shown = show_value(value);
            error.insert(kind, ContextValue::String(shown));
        }
    }
    error
}
