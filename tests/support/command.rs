//! The built program's commands that end by themselves.

use std::process::{Command, Stdio};

use super::{exec::as_user, proxy::without_ambient};

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub out: String,
    /// What it wrote to stderr.
    pub err: String,
}

impl Said {
    /// Its answer as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }
}

/// Runs the program to its end.
pub fn vouchsafe<S: AsRef<str>>(args: &[S]) -> Said {
    run(&[env!("CARGO_BIN_EXE_vouchsafe").to_owned()], args)
}

/// The same as a user without capabilities, for which file permissions hold.
pub fn vouchsafe_as_user<S: AsRef<str>>(args: &[S]) -> Said {
    run(&as_user(), args)
}

fn run<S: AsRef<str>>(program: &[String], args: &[S]) -> Said {
    let mut command = Command::new("timeout");
    command.arg("60").args(program).args(args.iter().map(AsRef::as_ref));
    without_ambient(&mut command);
    let end = command.stdin(Stdio::null()).output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: end.status.code(), out: text(end.stdout), err: text(end.stderr) }
}
