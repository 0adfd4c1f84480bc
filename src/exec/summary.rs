//! The report at the end: a tool that ended with 0 may have ignored that its requests were refused.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use crate::{
    audit::tally::{BadEnd, TallyKey},
    isolate::{Attempt, Report},
};

use super::child::ToolEnd;

/// What went wrong while the tool ran.
#[derive(Debug)]
pub(super) struct Summary {
    pub(super) counts: BTreeMap<TallyKey, u64>,
    /// Of an isolated tool.
    pub(super) report: Report,
}

impl Summary {
    /// Whether there is nothing to say.
    pub(super) fn is_empty(&self) -> bool {
        let Report { refused, denied, unresolved, .. } = &self.report;
        self.counts.is_empty() && refused.is_empty() && denied.is_empty() && unresolved.is_empty()
    }

    /// All lines, with how the tool ended.
    pub(super) fn text(&self, end: ToolEnd) -> String {
        let parts = [(BadEnd::Refused, "refused"), (BadEnd::Failed, "failed"), (BadEnd::Cut, "cut")];
        let parts: Vec<_> = parts.into_iter().filter_map(|(end, word)| self.part(end, word)).collect();
        let mut text = String::new();
        if !parts.is_empty() {
            text = format!("vouchsafe: {}; the tool {end}\n", parts.join(", "));
        }
        for (attempt, count) in &self.report.refused {
            text += &self.attempt(*attempt, *count);
        }
        for name in &self.report.denied {
            text += &format!(
                "vouchsafe: the tool asked for the address of `{name}`, which is not allowed; if it may go there, add --allow {name}:PORT\n"
            );
        }
        for (name, why) in &self.report.unresolved {
            text += &format!("vouchsafe: `{name}` is allowed, but was not found: {why}\n");
        }
        if self.report.unlisted > 0 {
            text += &format!("vouchsafe: and {} more, which are not listed\n", self.report.unlisted);
        }
        text
    }

    /// A connection or a datagram that was refused.
    fn attempt(&self, attempt: Attempt, count: u64) -> String {
        let times = times(count);
        match attempt {
            Attempt::Tcp(address) => {
                let name = self.report.name_of(address);
                // Destinations are allowed by the port that TLS is spoken to, and that of port 80 is 443.
                let tls = SocketAddr::new(address.ip(), if address.port() == 80 { 443 } else { address.port() });
                let allow = self.report.name_of(tls);
                let pass = if address.ip().is_loopback() { format!(", or --pass {address}") } else { String::new() };
                format!(
                    "vouchsafe: the tool also tried {name}{times}, and was refused; if it may go there, add --allow {allow}{pass}\n"
                )
            }
            Attempt::Udp(address) => {
                format!("vouchsafe: the tool also sent UDP to {address}{times}, which --isolate does not carry\n")
            }
        }
    }

    /// `3 requests were refused (expired: glance-a.example:9292)`.
    fn part(&self, end: BadEnd, word: &str) -> Option<String> {
        let counts: Vec<_> = self.counts.iter().filter(|((of, ..), _)| *of == end).collect();
        let all: u64 = counts.iter().map(|(_, count)| **count).sum();
        if all == 0 {
            return None;
        }
        let reasons = counts.iter().map(|((_, class, destination), count)| {
            let count = if counts.len() > 1 { format!("{count} ") } else { String::new() };
            match destination.as_str() {
                "" => format!("{count}{class}"),
                destination => format!("{count}{class}: {destination}"),
            }
        });
        let (were, what) =
            (if all == 1 { "was" } else { "were" }, if end == BadEnd::Cut { "response" } else { "request" });
        let verb = if end == BadEnd::Failed { word.to_owned() } else { format!("{were} {word}") };
        Some(format!("{} {verb} ({})", plural(all, what), reasons.collect::<Vec<_>>().join(", ")))
    }
}

fn times(count: u64) -> String {
    if count == 1 { String::new() } else { format!(" {count} times") }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for ToolEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "ended with {code}"),
            Self::Killed(signal) => match signal_hook::low_level::signal_name(*signal) {
                Some(name) => write!(f, "was killed by {name}"),
                None => write!(f, "was killed by signal {signal}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_end_is_counted_and_named() {
        let key = |end, class, destination: &str| (end, class, destination.to_owned());
        let one = Summary {
            counts: [(key(BadEnd::Refused, "expired", "glance-a.example:9292"), 3)].into(),
            report: Report::default(),
        };
        assert_eq!(
            one.text(ToolEnd::Exited(0)),
            "vouchsafe: 3 requests were refused (expired: glance-a.example:9292); the tool ended with 0\n"
        );
        let counts = [
            (key(BadEnd::Refused, "expired", "a:1"), 2),
            (key(BadEnd::Refused, "name_mismatch", "b:1"), 1),
            (key(BadEnd::Failed, "bad_head", ""), 1),
            (key(BadEnd::Cut, "response_incomplete", "c:1"), 1),
        ];
        assert_eq!(
            Summary { counts: counts.into(), report: Report::default() }.text(ToolEnd::Killed(15)),
            "vouchsafe: 3 requests were refused (2 expired: a:1, 1 name_mismatch: b:1), 1 request failed (bad_head), 1 response was cut (response_incomplete: c:1); the tool was killed by SIGTERM\n"
        );
        assert_eq!(Summary { counts: BTreeMap::new(), report: Report::default() }.text(ToolEnd::Exited(0)), "");
        let nothing = Summary { counts: BTreeMap::new(), report: Report::default() };
        let said = nothing.attempt(Attempt::Tcp("10.0.0.1:80".parse().unwrap()), 2);
        assert!(said.contains("tried 10.0.0.1:80 2 times") && said.ends_with("add --allow 10.0.0.1:443\n"), "{said}");
        let said = nothing.attempt(Attempt::Tcp("127.0.0.1:3306".parse().unwrap()), 1);
        assert!(said.ends_with("add --allow 127.0.0.1:3306, or --pass 127.0.0.1:3306\n"), "{said}");
    }
}
