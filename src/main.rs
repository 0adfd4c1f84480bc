//! The command: parse, run, and map the end to an exit code: 0 done, 1 failed, 2 usage or configuration.

use std::process::ExitCode;

use vouchsafe::cli::{self, CliError};

fn main() -> ExitCode {
    match cli::read().and_then(cli::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, CliError::No) {
                eprintln!("error: {error}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
