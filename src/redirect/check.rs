//! Whether loaded rules do what they say: children connect as the tool's users and as the proxy's, and the kernel's list
//! of sockets tells where their connections arrive.

use std::{
    fmt,
    io::{self, BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

use rustix::process::geteuid;

use super::{RedirectRules, sockets, users::User};

/// What was found.
#[derive(Debug)]
pub struct CheckReport(Vec<ProbeFinding>);

#[derive(Debug)]
struct ProbeFinding {
    user: User,
    /// Whether the user is the proxy's, and not one of the rules.
    is_own: bool,
    to: SocketAddr,
    verdict: RuleVerdict,
}

#[derive(Debug, PartialEq, Eq)]
enum RuleVerdict {
    /// As the rules say; with what happened.
    Good(String),
    /// Otherwise than the rules say.
    Bad(String),
    /// Cannot be found out here.
    Skipped(String),
}

/// Where connections are tried: this host, and addresses for documentation (RFC 5737, RFC 3849), which are no host's.
const HERE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const NOWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

impl CheckReport {
    /// Whether the rules do what they say.
    pub fn is_good(&self) -> bool {
        !self.0.iter().any(|finding| matches!(finding.verdict, RuleVerdict::Bad(_)))
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ProbeFinding { user, to, verdict, .. } in &self.0 {
            match verdict {
                RuleVerdict::Good(what) => writeln!(f, "ok    {user} to {to}: {what}")?,
                RuleVerdict::Bad(what) => writeln!(f, "FAIL  {user} to {to}: {what}")?,
                RuleVerdict::Skipped(what) => writeln!(f, "skip  {user} to {to}: {what}")?,
            }
        }
        if self.is_good() {
            return writeln!(f, "the rules do what they say");
        }
        writeln!(f, "the rules do not do what they say")?;
        let fails = |is_own: bool| {
            let mut bad = self.0.iter().filter(|finding| matches!(finding.verdict, RuleVerdict::Bad(_)));
            bad.any(|finding| finding.is_own == is_own)
        };
        if fails(false) {
            writeln!(
                f,
                "  hint: load them again as root; `nft list ruleset` shows whether other rules come before them"
            )?;
        }
        if fails(true) {
            writeln!(f, "  hint: other rules catch the user of vouchsafe; `nft list ruleset` shows them")?;
        }
        Ok(())
    }
}

/// Checks every user and port.
pub(super) fn check(rules: &RedirectRules) -> Result<CheckReport, String> {
    if !geteuid().is_root() {
        return Err("--check connects as other users, which needs root\n  hint: run it with `sudo`".into());
    }
    let owner = sockets::listener(rules.to).map_err(|error| format!("cannot list the sockets: {error}"))?;
    // Without a proxy, somebody has to be there to connect to.
    let _listening = match owner {
        Some(_) => Vec::new(),
        None => HERE.iter().filter_map(|ip| TcpListener::bind((*ip, rules.to)).ok()).collect(),
    };
    let own = User::of(owner.unwrap_or_else(|| geteuid().as_raw()));
    let mut findings = Vec::new();
    for user in &rules.users {
        let targets = targets(rules, HERE.iter().chain(&NOWHERE));
        findings.extend(probe_as(user, false, rules.to, targets)?);
    }
    findings.extend(probe_as(&own, true, rules.to, targets(rules, &HERE))?);
    Ok(CheckReport(findings))
}

fn targets<'a>(rules: &RedirectRules, ips: impl IntoIterator<Item = &'a IpAddr>) -> Vec<SocketAddr> {
    ips.into_iter().flat_map(|ip| rules.ports.iter().map(|port| SocketAddr::new(*ip, *port))).collect()
}

/// What became of a connection.
enum ProbeOutcome {
    /// It arrived at the transparent listener.
    Arrived,
    /// It stands, and leads elsewhere.
    Elsewhere,
    /// There is none.
    Failed(String),
}

fn judge_tool(to: SocketAddr, outcome: ProbeOutcome) -> RuleVerdict {
    match outcome {
        ProbeOutcome::Arrived => RuleVerdict::Good("redirected".into()),
        ProbeOutcome::Elsewhere => RuleVerdict::Bad("it is not redirected, and goes out in plain text".into()),
        // The kernel looks for a route before it asks the rules.
        ProbeOutcome::Failed(why) if NOWHERE.contains(&to.ip()) && why.contains("unreachable") => {
            RuleVerdict::Skipped("this host has no route there".into())
        }
        ProbeOutcome::Failed(why) => RuleVerdict::Bad(format!("it is not redirected: {why}")),
    }
}

fn judge_own(outcome: ProbeOutcome) -> RuleVerdict {
    match outcome {
        ProbeOutcome::Arrived => RuleVerdict::Bad("it is redirected: vouchsafe would connect to itself".into()),
        ProbeOutcome::Elsewhere | ProbeOutcome::Failed(_) => RuleVerdict::Good("left alone".into()),
    }
}

fn probe_as(user: &User, is_own: bool, port: u16, targets: Vec<SocketAddr>) -> Result<Vec<ProbeFinding>, String> {
    let failed = |error: io::Error| format!("cannot connect as {user}: {error}");
    let mut child = spawn(user, &targets).map_err(failed)?;
    let output = child.stdout.take().ok_or_else(|| format!("cannot connect as {user}"))?;
    let mut lines = BufReader::new(output).lines();
    let mut findings = Vec::new();
    for to in targets {
        let line = lines.next().unwrap_or(Err(io::ErrorKind::UnexpectedEof.into())).map_err(failed)?;
        let outcome = match line.split_once(' ') {
            Some(("connected", local)) => match local.parse() {
                Ok(local) if sockets::arrives(local, port).map_err(failed)? => ProbeOutcome::Arrived,
                _ => ProbeOutcome::Elsewhere,
            },
            Some((_, why)) => ProbeOutcome::Failed(why.into()),
            None => return Err(format!("cannot connect as {user}: {line}")),
        };
        let verdict = if is_own { judge_own(outcome) } else { judge_tool(to, outcome) };
        findings.push(ProbeFinding { user: user.clone(), is_own, to, verdict });
    }
    // The end of its input ends it.
    drop(child.stdin.take());
    child.wait().map_err(failed)?;
    Ok(findings)
}

/// Ourselves, as another user and without capabilities of any use.
fn spawn(user: &User, targets: &[SocketAddr]) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(PROBE).args(targets.iter().map(SocketAddr::to_string)).env_clear().current_dir("/");
    command.uid(user.id).gid(user.group);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()
}

/// The hidden sub-command.
const PROBE: &str = "redirect-probe";
