//! `vouchsafe exec` with a tool, to its end.

use std::{
    os::unix::process::ExitStatusExt,
    process::{Command, Output, Stdio},
};

use certs_dev::Bundle;

use super::{
    gallery::{self, Front},
    proxy::{program, without_ambient},
};

/// A command about to be run.
pub struct Exec {
    command: Command,
}

/// How it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Exec {
    /// With one worker, and the gallery's root.
    pub fn new() -> Self {
        Self::under(&[])
    }

    /// By a command that becomes the program which its last argument names.
    pub fn under(wrapper: &[&str]) -> Self {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--kill-after=5", "60"]).args(wrapper).arg(program());
        without_ambient(&mut command);
        for name in ["http", "https", "no", "all"] {
            command.env_remove(format!("{name}_proxy")).env_remove(format!("{}_PROXY", name.to_uppercase()));
        }
        command.args(["exec", "--threads=1", "--ca-bundle", &gallery::bundle(Bundle::Root)]);
        command.stdin(Stdio::null());
        Self { command }
    }

    /// With more flags.
    pub fn flags<S: AsRef<str>>(mut self, flags: &[S]) -> Self {
        self.command.args(flags.iter().map(AsRef::as_ref));
        self
    }

    /// With this server as an allowed destination.
    pub fn allow(self, front: &Front) -> Self {
        let authority = front.authority();
        self.flags(&[format!("--allow={authority}"), format!("--connect-to={authority}={}", front.address)])
    }

    /// With a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// The command line of a tool, as words for a shell.
    pub fn in_shell(mut self, tool: &[&str]) -> String {
        self.command.arg("--").args(tool);
        // Without `timeout` and its arguments: a shell's job is the program itself.
        let words = self.command.get_args().skip(3).map(|word| word.to_string_lossy().into_owned());
        words.map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect::<Vec<_>>().join(" ")
    }

    /// Starts it with a tool, with its streams as pipes.
    pub fn start(mut self, tool: &[&str]) -> std::process::Child {
        self.command.arg("--").args(tool);
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.spawn().expect("it starts")
    }

    /// Runs it with a tool.
    pub async fn run(mut self, tool: &[&str]) -> Ended {
        self.command.arg("--").args(tool);
        self.end().await
    }

    /// Runs it without a tool.
    pub async fn end(mut self) -> Ended {
        let output = tokio::task::spawn_blocking(move || self.command.output().expect("it starts"));
        output.await.expect("it ends").into()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Output { status, stdout, stderr } = output;
        Self { code: status.code(), signal: status.signal(), out: text(&stdout), err: text(&stderr) }
    }
}
