//! The same servers, and a tool that is told nothing: `vouchsafe exec --isolate`, where this user may have namespaces.

use std::{
    io::{self, Write},
    path::Path,
    process::{Command, Output},
};

use certs_dev::{Case, Expected};

use super::{DemoError, Exhibit, mark};
use crate::terminal::TITLE;

/// The port that the tool knows its servers by, whatever theirs is.
const PORT: u16 = 9292;

/// Shows a server that passes and one that is refused; the number of wrong verdicts. Without namespaces or without curl
/// it says so.
pub(super) async fn show(
    exhibits: &[Exhibit],
    directory: &Path,
    bundle: &Path,
    to: &mut impl Write,
) -> Result<usize, DemoError> {
    writeln!(to, "\n{TITLE}The same for a tool that was not told of a proxy (vouchsafe exec --isolate){TITLE:#}")?;
    let mut wrong = 0;
    for exhibit in exhibits.iter().filter(|exhibit| matches!(exhibit.case, Case::Good | Case::Expired)) {
        let name = exhibit.case.name();
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["exec", "--isolate", "--threads=1", "--log-level=error", "--reload-interval=1h", "--ca-bundle"])
            .arg(bundle);
        command.arg("--audit-log").arg(directory.join("isolated.jsonl"));
        command.arg(format!("--allow={name}:{PORT}"));
        command.arg(format!("--connect-to={name}:{PORT}={}", exhibit.address));
        let url = format!("http://{name}:{PORT}/");
        command.args(["--", "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", &url]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.map_err(io::Error::other)??;
        match status(&output) {
            Some(status) => {
                let expected = if exhibit.case.expected() == Expected::Accept { 200 } else { 403 };
                wrong += usize::from(status != expected);
                let (mark, look) = mark(status);
                writeln!(to, "{look}{mark} {status:<6}{look:#}  curl {url}")?;
            }
            None => {
                writeln!(to, "  not shown: {}", String::from_utf8_lossy(&output.stderr).trim_end())?;
                break;
            }
        }
    }
    Ok(wrong)
}

/// The status that curl got, if it could be started in a namespace.
fn status(output: &Output) -> Option<u16> {
    match output.status.code() {
        Some(125..=127) => None,
        _ => Some(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)),
    }
}
