//! The result for one server for people.

use std::fmt;

use crate::{
    check::checks::{Check, Outcome},
    clock::rfc3339,
    terminal::{ADVICE, BAD, FAINT, GOOD, WARNING},
};

use super::{Report, Verdict};

/// For people: the verdict, the server, the chain, each check, and what to do.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.problems.first().map_or("", |problem| problem.code);
        let upstream = &self.upstream;
        match self.verdict {
            Verdict::Bypassed(until) => {
                let until = rfc3339(until);
                writeln!(f, "{BAD}✘ {upstream}  refused: {code}; not enforced until {until} (report-only){BAD:#}")?;
            }
            Verdict::NoConnection => {
                let what = if self.reached_server() { "TLS connection" } else { "connection" };
                writeln!(f, "{WARNING}! {upstream}  no {what}: {code}{WARNING:#}")?;
            }
            Verdict::Refused => writeln!(f, "{BAD}✘ {upstream}  refused: {code}{BAD:#}")?,
            Verdict::Trusted => writeln!(f, "{GOOD}✔ {upstream}  trusted{GOOD:#}")?,
        }
        if let Some(address) = self.address {
            let elsewhere = (&upstream.dial_host, upstream.dial_port) != (&upstream.host, upstream.port);
            let how = if elsewhere { ", as configured" } else { "" };
            writeln!(f, "  address  {address}{how}")?;
        }
        if let Some(parent) = &upstream.parent {
            writeln!(f, "  via      parent proxy {parent}, which connects to {}", upstream.dialled())?;
        }
        let sni = upstream.sni.as_ref().map_or("no SNI".into(), |sni| format!("SNI {sni}"));
        writeln!(f, "  name     {}, {sni}", upstream.reference)?;
        let anchors = upstream.anchors();
        let count = anchors.certificates().len();
        let plural = if count == 1 { "" } else { "s" };
        writeln!(f, "  bundle   {}: {count} certificate{plural}", anchors.source)?;
        let tree = self.tree();
        if !self.presented.is_empty() {
            write!(f, "  chain\n{tree}")?;
        }
        let mut checks = self.checks(&tree);
        if self.presented.is_empty() {
            checks.retain(|check| matches!(check.result, Outcome::Failed(_)));
        }
        if !checks.is_empty() {
            writeln!(f, "  checks")?;
        }
        checks.iter().try_for_each(|check| write!(f, "{check}"))?;
        if checks.is_empty() {
            self.problems.iter().try_for_each(|problem| writeln!(f, "  {}: {}", problem.code, problem.sentence))?;
        }
        self.warnings().iter().try_for_each(|warning| writeln!(f, "  {WARNING}warning:{WARNING:#} {warning}"))?;
        for (place, problem) in self.problems.iter().enumerate() {
            if !self.problems[..place].iter().any(|other| other.fix == problem.fix) {
                writeln!(f, "  {ADVICE}fix:{ADVICE:#} {} (vouchsafe explain {})", problem.fix, problem.code)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = self.kind.title();
        let look = match self.result {
            Outcome::Failed(_) => BAD,
            Outcome::NotAsked(_) | Outcome::NotReached(_) => FAINT,
            Outcome::Passed(_) => GOOD,
        };
        let mark = format!("{look}{}{look:#}", self.result.mark());
        match &self.result {
            Outcome::Failed(findings) => findings
                .iter()
                .try_for_each(|finding| writeln!(f, "    {mark} {title:<18}  {}: {}", finding.code, finding.sentence)),
            Outcome::NotAsked(words) | Outcome::NotReached(words) | Outcome::Passed(words) => {
                writeln!(f, "    {mark} {title:<18}  {words}")
            }
        }
    }
}

impl Report {
    /// The warnings about a server that is trusted, and which one it is.
    pub fn only_warnings(&self) -> String {
        let mut text = format!("{GOOD}✔ {}  trusted{GOOD:#}\n", self.upstream);
        for warning in self.warnings() {
            text.push_str(&format!("  {WARNING}warning:{WARNING:#} {warning}\n"));
        }
        text
    }
}
