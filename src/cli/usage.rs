//! Usage errors in our words: which flag or variable, which value, why, and what to write instead.

use std::{
    env,
    error::Error as _,
    ffi::OsString,
    io::{self, Write as _},
};

use clap::{
    Arg, Command,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    config::{contents, foreign, suggest::nearest},
    text::show_value,
};

/// Shows why the arguments cannot be used, or the help that they ask for, and returns the exit code; `status` for an
/// error.
pub(super) fn report(error: clap::Error, command: &Command, status: u8) -> u8 {
    if !error.use_stderr() {
        return match error.print().and_then(|()| io::stdout().flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                super::output::error(&format!("cannot write to standard output: {error}"));
                1
            }
            _ => 0,
        };
    }
    match words(&error, command, &env::args_os().collect::<Vec<_>>()) {
        Some(words) => super::output::error(&words.replace('\n', "\n  ")),
        None => {
            // There is nowhere to report that it failed.
            let _ = contents::masked(error).print();
        }
    }
    status
}

/// Our words; `None` where clap's are good.
fn words(error: &clap::Error, command: &Command, arguments: &[OsString]) -> Option<String> {
    let argument = text(error.get(ContextKind::InvalidArg)?)?;
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let name = argument.split(['=', ' ']).next().unwrap_or_default();
            foreign::advice(name).map(|advice| format!("unknown argument `{}`\nhint: {advice}", show_value(name)))
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = error.get(ContextKind::InvalidValue).and_then(text).unwrap_or_default();
            let name = source(&argument, command, arguments);
            if value.is_empty() {
                return Some(format!("{name}: a value is missing"));
            }
            if let Some(problem) = contents::problem(&name, &value) {
                return Some(problem);
            }
            let why = match error.get(ContextKind::ValidValue) {
                Some(ContextValue::Strings(known)) if !known.is_empty() => not_one_of(&value, known),
                _ => error.source().map_or_else(|| "not a valid value".to_owned(), ToString::to_string),
            };
            Some(format!("{name} `{}`: {}", show_value(&value), plain(&why)))
        }
        _ => None,
    }
}

fn text(value: &ContextValue) -> Option<String> {
    match value {
        ContextValue::String(text) => Some(text.clone()),
        _ => None,
    }
}

fn not_one_of(value: &str, known: &[String]) -> String {
    let words: Vec<_> = known.iter().map(|word| format!("`{word}`")).collect();
    let hint = match nearest(value, known.iter().map(String::as_str)) {
        Some(nearest) => format!("\nhint: did you mean `{nearest}`?"),
        None => String::new(),
    };
    format!("{} expected{hint}", one_of(&words))
}

/// `` `a` is``, `` `a` or `b` is``, `` one of `a`, `b`, `c` is``.
fn one_of(words: &[String]) -> String {
    match words {
        [one] => format!("{one} is"),
        [one, other] => format!("{one} or {other} is"),
        more => format!("one of {} is", more.join(", ")),
    }
}

/// The standard library's words for a number that cannot be parsed, in plainer ones.
fn plain(why: &str) -> String {
    match why {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "a whole number is expected".into()
        }
        "number too large to fit in target type" => "the number is too large".into(),
        other => other.to_owned(),
    }
}

/// The name of what had the value: the flag as it was given, or its variable if the flag is not among the arguments.
fn source(argument: &str, command: &Command, arguments: &[OsString]) -> String {
    let flag = argument.split(['=', ' ', '[']).next().unwrap_or_default();
    let Some(arg) = arg_of(command, flag.trim_start_matches('-')) else { return flag.to_owned() };
    let names = arg.get_long_and_visible_aliases().unwrap_or_default();
    let given = arguments.iter().filter_map(|argument| argument.to_str()?.strip_prefix("--"));
    let mut given = given.map(|argument| argument.split('=').next().unwrap_or_default());
    match (given.find(|name| names.contains(name)), arg.get_env()) {
        (Some(name), _) => format!("--{name}"),
        (None, Some(variable)) if env::var_os(variable).is_some() => variable.to_string_lossy().into_owned(),
        (None, _) => flag.to_owned(),
    }
}

/// The option of that name that has a variable, of whatever sub-command.
fn arg_of<'a>(command: &'a Command, long: &str) -> Option<&'a Arg> {
    let own = command.get_arguments().find(|arg| arg.get_long() == Some(long) && arg.get_env().is_some());
    own.or_else(|| command.get_subcommands().find_map(|command| arg_of(command, long)))
}
