//! `vouchsafe man` and `vouchsafe completions`: they know what the command line knows.

use std::{collections::BTreeSet, fs, io::Write, process::Command};

use crate::support::{self, command::vouchsafe};

/// The long flags that a text in roff or shell script has.
fn flags(text: &str) -> BTreeSet<String> {
    let text = text.replace("\\-", "-").replace("\\fB", " ");
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.len() > 2 && word.starts_with("--")).map(str::to_owned).collect()
}

/// The long flags that a help text lists at the beginning of its lines.
fn listed(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let words = lines.filter_map(|line| line.split([' ', ',', '=', '[']).find(|word| word.starts_with("--")));
    words.map(|word| word.trim_end_matches(['.', ';', ':', ']', ')', '`']).to_owned()).collect()
}

fn commands(help: &str) -> Vec<String> {
    let below = help.split_once("\nCommands:\n").map_or("", |(_, below)| below);
    let lines = below.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_manual_page_with_all_its_flags() {
    let directory = support::dir();
    let written = vouchsafe(&["man", "--directory", directory.path().to_str().unwrap()]);
    assert_eq!((written.code, written.out.as_str()), (Some(0), ""), "{}", written.err);
    let mut expected = BTreeSet::new();
    let mut waiting = vec![Vec::<String>::new()];
    while let Some(command) = waiting.pop() {
        let help = vouchsafe(&[command.clone(), vec!["--help".into()]].concat()).out;
        waiting.extend(commands(&help).into_iter().map(|name| [command.clone(), vec![name]].concat()));

        let file = format!("{}.1", [vec!["vouchsafe".to_owned()], command.clone()].concat().join("-"));
        let page = fs::read_to_string(directory.path().join(&file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(page, vouchsafe(&[vec!["man".to_owned()], command].concat()).out, "{file}");
        assert!(page.contains(".TH VOUCHSAFE"), "{page}");
        let missing: Vec<_> = listed(&help).difference(&flags(&page)).cloned().collect();
        assert!(missing.is_empty(), "{file} lacks {missing:?}");
        expected.insert(file);
    }
    assert!(expected.contains("vouchsafe-config-show.1"), "{expected:?}");
    let files = fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_manual_page_shows_no_value_of_a_variable() {
    let mut command = Command::new(support::proxy::program());
    let output = command.args(["man", "run"]).env("VOUCHSAFE_CA_BUNDLE", "/a/secret/place").output().unwrap();
    let page = String::from_utf8(output.stdout).unwrap();
    assert!(page.contains("VOUCHSAFE_CA_BUNDLE") && !page.contains("secret"), "{page}");
}

#[test]
fn the_manual_names_what_it_has_no_page_for() {
    let said = vouchsafe(&["man", "chekc"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert_eq!(said.err, "error: unknown command `chekc`\n  hint: did you mean `check`?\n");
    let said = vouchsafe(&["man", "--directory", "/nowhere/at/all"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
    assert!(said.err.starts_with("error: --directory `/nowhere/at/all`: "), "{}", said.err);
}

/// What bash offers at the end of a line, after it has sourced the script.
fn bash(script: &str, line: &[&str]) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(script.as_bytes()).unwrap();
    let program = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        read -r -a complete < <(complete -p vouchsafe)
        for ((at = 0; at < ${#complete[@]}; at++)); do [[ ${complete[at]} == -F ]] && function=${complete[at + 1]}; done
        "$function" vouchsafe "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Command::new("bash").args(["-c", program, "bash"]).arg(file.path()).args(line).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_flags() {
    let script = vouchsafe(&["completions", "bash"]).out;
    assert_eq!(bash(&script, &["vouchsafe", "ch"]), ["check"]);
    assert_eq!(bash(&script, &["vouchsafe", "config", "sh"]), ["show"]);
    assert_eq!(bash(&script, &["vouchsafe", "run", "--ca-b"]), ["--ca-bundle"]);
    assert_eq!(bash(&script, &["vouchsafe", "completions", "z"]), ["zsh"]);
    // A hidden command.
    assert_eq!(bash(&script, &["vouchsafe", "redirect-"]), ["redirect-rules"]);
}

#[test]
fn completions_know_all_flags_in_every_shell() {
    let help = vouchsafe(&["run", "--help"]).out;
    for shell in ["bash", "elvish", "fish", "zsh"] {
        let said = vouchsafe(&["completions", shell]);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{shell}");
        let missing: Vec<_> =
            listed(&help).into_iter().filter(|flag| !said.out.contains(flag.trim_start_matches('-'))).collect();
        assert!(missing.is_empty(), "{shell} lacks {missing:?}");
    }
    let said = vouchsafe(&["completions", "csh"]);
    assert_eq!((said.code, said.out.as_str()), (Some(2), ""));
}
