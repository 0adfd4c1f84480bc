//! What `-h` shows: the options that most people need in few words, and examples. `--help` shows all of it.

use std::env;

use clap::Command;

/// The options of a command that `-h` shows, in few words; it shows all options of other commands.
type Common = &'static [(&'static str, &'static str)];

const RUN: Common = &[
    ("config", "Configuration file (TOML)"),
    ("route", "All requests to LISTEN go to this server"),
    ("mirror", "Several ports of one server, from another address"),
    ("forward", "A listener for tools that support http_proxy"),
    ("allow", "A destination that tools may reach: HOST[:PORT]"),
    ("ca_bundle", "Trusted CAs: PEM file, or a directory of them"),
    ("system_roots", "Also trust the CAs of the system"),
    ("client_cert", "Client certificate with its chain, PEM"),
    ("client_key", "Key of the client certificate, PEM"),
    ("connect_to", "Connect elsewhere; the name is still verified"),
    ("preset", "Settings for a kind of tools"),
    ("answer", "How failures are answered"),
    ("audit_log", "Write a line for every refusal to this file"),
    ("log_level", "Log verbosity [default: info]"),
];

const CHECK: Common = &[
    ("config", "Configuration file (TOML)"),
    ("ca_bundle", "Trusted CAs: PEM file, or a directory of them"),
    ("system_roots", "Also trust the CAs of the system"),
    ("client_cert", "Client certificate with its chain, PEM"),
    ("client_key", "Key of the client certificate, PEM"),
    ("connect_to", "Connect elsewhere; the name is still verified"),
    ("crl", "Revocation lists, PEM or DER"),
    ("brief", "One line for each server, and their sum"),
    ("expires_within", "Exit with 3 if something expires within this time"),
    ("json", "One JSON array"),
    ("catalog", "Check the endpoints in Keystone's catalog"),
    ("urls", "https://HOST[:PORT] or HOST[:PORT] [default: all that are configured]"),
];

const EXEC: Common = &[
    ("isolate", "Give the tool a network in which every address leads to the proxy"),
    ("preflight", "Verify all servers before the tool is started"),
    ("fail_on_refusal", "Exit with 120 if the tool did not notice a refusal"),
    ("log_file", "Append the proxy's log to this file"),
    ("config", "Configuration file (TOML)"),
    ("route", "All requests to LISTEN go to this server"),
    ("forward", "A listener for tools that support http_proxy"),
    ("allow", "A destination that the tool may reach: HOST[:PORT]"),
    ("ca_bundle", "Trusted CAs: PEM file, or a directory of them"),
    ("client_cert", "Client certificate with its chain, PEM"),
    ("client_key", "Key of the client certificate, PEM"),
    ("preset", "Settings for a kind of tools"),
    ("audit_log", "Write a line for every refusal to this file"),
    ("command", "The tool, and its arguments"),
];

const SHOW: Common = &[("config", "Configuration file (TOML)"), ("json", "One JSON array")];

const VALIDATE: Common = &[("config", "Configuration file (TOML)")];

const PIN: Common = &[
    ("ca_bundle", "Trusted CAs: PEM file, or a directory of them"),
    ("connect_to", "Connect elsewhere; the name is still verified"),
    ("json", "One JSON array"),
    ("of", "A PEM file with certificates, or a server"),
];

/// By path: what `-h` shows of a command, and examples.
const HELP: [(&str, Common, &str); 15] = [
    (
        "",
        &[],
        "vouchsafe demo
vouchsafe check --cacert ca.pem glance.example:9292
vouchsafe run --cacert ca.pem --route 127.0.0.1:19292=https://glance.example:9292
vouchsafe exec --isolate --cacert ca.pem --allow glance:9292 -- curl http://glance:9292/",
    ),
    (
        "audit",
        &[],
        "vouchsafe audit audit.jsonl
vouchsafe audit --since 24h --by client audit.jsonl*
vouchsafe audit --format html audit.jsonl > report.html
vouchsafe audit --event 3a770172437ae11f audit.jsonl",
    ),
    ("bundle", &[], "vouchsafe bundle ca.pem\nvouchsafe bundle --json /etc/ssl/openstack"),
    (
        "check",
        CHECK,
        "vouchsafe check --cacert ca.pem glance.example:9292 keystone.example:5000
vouchsafe check --brief --config /etc/vouchsafe/vouchsafe.toml
vouchsafe check --cacert ca.pem --cert me.pem --key me.key glance.example:9292",
    ),
    ("config", &[], ""),
    ("config check", VALIDATE, "vouchsafe config check --config /etc/vouchsafe/vouchsafe.toml"),
    ("config show", SHOW, "vouchsafe config show --preset openstack --cacert ca.pem --forward 127.0.0.1:3128"),
    ("demo", &[], "vouchsafe demo\nvouchsafe demo --keep"),
    (
        "exec",
        EXEC,
        "vouchsafe exec --isolate --cacert ca.pem --allow glance-a:9292,glance-b:9292 -- \\
    glance-replicator livecopy glance-a:9292 glance-b:9292
vouchsafe exec --cacert ca.pem --route glance=https://glance.example:9292 -- curl {glance.url}",
    ),
    ("explain", &[], "vouchsafe explain expired\nvouchsafe explain"),
    ("pin", PIN, "vouchsafe pin --cacert ca.pem glance.example:9292\nvouchsafe pin server.pem"),
    (
        "ready",
        &[],
        "vouchsafe ready --ready-file /run/vouchsafe/ready
vouchsafe ready --config /etc/vouchsafe/vouchsafe.toml --timeout 30s",
    ),
    (
        "redirect-rules",
        &[],
        "vouchsafe redirect-rules --user replicator --ports 5000,9292 | sudo nft -f -
sudo vouchsafe redirect-rules --user replicator --ports 5000,9292 --check",
    ),
    (
        "run",
        RUN,
        "vouchsafe run --cacert ca.pem --route 127.0.0.1:19292=https://glance.example:9292
vouchsafe run --cacert ca.pem --forward 127.0.0.1:3128 --allow '*.cloud.example'
vouchsafe run --config /etc/vouchsafe/vouchsafe.toml",
    ),
    ("verify", &[], "vouchsafe verify --cacert ca.pem --name glance.example server.pem"),
];

/// Adds the examples, and makes the help that is asked for by `-h` a short one.
pub(super) fn with_examples(command: Command) -> Command {
    let arguments = env::args_os().take_while(|argument| argument != "--");
    let is_short = arguments.skip(1).any(|argument| argument == "-h");
    with_help(command, "", is_short)
}

fn with_help(command: Command, path: &str, is_short: bool) -> Command {
    let names: Vec<_> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| {
        let path = format!("{path} {name}").trim_start().to_owned();
        command.mut_subcommand(name, |command| with_help(command, &path, is_short))
    });
    let Some((_, common, examples)) = HELP.iter().find(|(known, ..)| *known == path) else { return command };
    let command = if is_short { shortened(command, common) } else { command };
    match *examples {
        "" => command,
        examples => command.after_help(format!("Examples:\n  {}", examples.replace('\n', "\n  "))),
    }
}

/// Only the common options, in few words.
fn shortened(command: Command, common: Common) -> Command {
    if common.is_empty() {
        return command.mut_args(|arg| if arg.get_id() == "color" { arg.hide(true) } else { arg });
    }
    command.mut_args(|arg| match common.iter().find(|(id, _)| arg.get_id() == id) {
        Some((_, words)) => arg.help(*words).hide_env(true).help_heading(None),
        None => arg.hide(true),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::args::Cli;

    #[test]
    fn examples_can_be_parsed_and_common_options_exist() {
        let command = Cli::command();
        for (path, common, examples) in HELP {
            let of = |command: &Command, name: &str| command.find_subcommand(name).cloned();
            let at = path.split_whitespace().try_fold(command.clone(), |command, name| of(&command, name));
            let at = at.unwrap_or_else(|| panic!("there is no `{path}`"));
            for (id, _) in common {
                assert!(at.get_arguments().any(|arg| arg.get_id() == id), "`{path}` has no `{id}`");
            }
            for example in examples.replace("\\\n", "").lines() {
                let words = example.strip_prefix("sudo ").unwrap_or(example).split_whitespace();
                let words = words.map(|word| word.trim_matches('\'')).take_while(|word| !matches!(*word, ">" | "|"));
                if let Err(error) = command.clone().try_get_matches_from(words) {
                    panic!("{example}: {error}");
                }
            }
        }
    }
}
