//! The command: parse, run, and map the end to an exit code: 0 done, 1 failed, 2 usage or configuration.

use std::process::ExitCode;

use vouchsafe::{
    cli::{self, CliError},
    logging::writer,
};

fn main() -> ExitCode {
    let code = match cli::read().and_then(cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::No) {
                writer::print(&format!("error: {error}\n"));
            }
            ExitCode::from(error.exit_code())
        }
    };
    writer::finish();
    code
}
