//! The program: parses the arguments, runs the command, and maps its end to an exit code: 0 done, 1 failed, 2 usage or
//! configuration. `exec` ends as its tool does.

use std::process::ExitCode;

use vouchsafe::{cli, isolate, logging::writer};

fn main() -> ExitCode {
    // First of all: it may have one thread only.
    if isolate::is_asked_for() {
        return isolate::run();
    }
    let code = match cli::read().and_then(cli::run) {
        Ok(code) => code,
        Err(error) => {
            error.report();
            ExitCode::from(error.exit_code())
        }
    };
    writer::finish();
    code
}
