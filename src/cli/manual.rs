//! Manual pages and shell completions, made from the command line itself.

use std::{fs, io, path::Path};

use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

use super::{CliError, output::print_with, parser};
use crate::{
    config::{
        args::{CompletionShell, ManArgs},
        suggest::nearest,
    },
    text::show_value,
};

const NAME: &str = "vouchsafe";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the completions for a shell.
///
/// # Errors
/// [`CliError::Output`].
pub(super) fn completions(shell: CompletionShell) -> Result<(), CliError> {
    let shell = match shell {
        CompletionShell::Bash => Shell::Bash,
        CompletionShell::Elvish => Shell::Elvish,
        CompletionShell::Fish => Shell::Fish,
        CompletionShell::Zsh => Shell::Zsh,
    };
    let parser = parser();
    // Hidden commands are not typed by people, and clap_complete would offer them.
    let commands = parser.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut shown = Command::new(NAME).version(VERSION).args(parser.get_arguments().cloned()).subcommands(commands);
    let mut script = Vec::new();
    generate(shell, &mut shown, NAME, &mut script);
    print_with(|to| to.write_all(&script)).map_err(CliError::Output)
}

/// Prints a manual page, or writes all of them.
///
/// # Errors
/// [`CliError::Output`]; [`CliError::Usage`] for an unknown command and for a directory that cannot be written.
pub(super) fn man(args: &ManArgs) -> Result<(), CliError> {
    let mut program = parser().disable_help_subcommand(true);
    program.build();
    if let Some(directory) = &args.directory {
        return write_pages(&program, directory)
            .map_err(|error| CliError::Usage(format!("--directory `{}`: {error}", show_value(directory))));
    }
    let mut command = &program;
    for word in &args.command {
        command = command.find_subcommand(word).ok_or_else(|| unknown(command, word))?;
    }
    print_with(|to| page(command).render(to)).map_err(CliError::Output)
}

fn unknown(command: &Command, word: &str) -> CliError {
    let known = command.get_subcommands().filter(|command| !command.is_hide_set()).map(Command::get_name);
    let hint = match nearest(word, known) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "`vouchsafe --help` lists the commands".to_owned(),
    };
    CliError::Usage(format!("unknown command `{}`\n  hint: {hint}", show_value(word)))
}

/// Writes the page of a command, and those of the commands below it.
fn write_pages(command: &Command, directory: &Path) -> io::Result<()> {
    let page = page(command);
    let mut file = fs::File::create(directory.join(page.get_filename()))?;
    page.render(&mut file)?;
    let mut below = command.get_subcommands().filter(|command| !command.is_hide_set());
    below.try_for_each(|command| write_pages(command, directory))
}

/// Without a date, so that the same source makes the same pages.
fn page(command: &Command) -> Man {
    let name = command.get_display_name().unwrap_or(NAME).to_uppercase();
    Man::new(command.clone()).title(name).source(format!("{NAME} {VERSION}"))
}
