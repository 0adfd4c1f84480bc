//! `vouchsafe redirect-rules`: rules of the kernel that lead the connections of a tool's user to a transparent listener.
//!
//! The tool's user is selected, and no other is excluded: an exclusion has a hole where two programs share a user. A
//! guard in a table of its own resets what would go out to the same ports without being redirected: connections older
//! than the rules, and all others once somebody has deleted the table with the redirection.

mod check;
mod probe;
mod sockets;
mod users;

use std::{collections::BTreeSet, fmt::Write as _};

use rustix::process::geteuid;

use crate::{
    config::{
        args::{RedirectRulesArgs, RulesFormat},
        error::ConfigError,
    },
    message::authority::parse_port,
    text::show_value,
};

use self::users::User;

pub use self::{check::CheckReport, probe::probe};

/// What is redirected: checked, and ready to be printed.
#[derive(Debug)]
pub struct RedirectRules {
    users: Vec<User>,
    ports: BTreeSet<u16>,
    to: u16,
    format: RulesFormat,
}

impl RedirectRules {
    /// Reads and checks the arguments.
    ///
    /// # Errors
    /// [`ConfigError`]: a port or a user that does not exist, or whose connections must not be redirected.
    pub fn of(args: &RedirectRulesArgs) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut note = |result: Result<(), String>| problems.extend(result.err());
        let to = parse_port(&args.to);
        note(to.map(drop).ok_or_else(|| bad_port("--to", &args.to)));
        let mut ports = BTreeSet::new();
        for text in &args.ports {
            match parse_port(text) {
                Some(port) => {
                    ports.insert(port);
                }
                None => note(Err(bad_port("--ports", text))),
            }
        }
        if let Some(port) = to.filter(|to| ports.contains(to)) {
            note(Err(format!("--to `{port}` is one of --ports, so the tool could not reach the listener")));
        }
        let mut users = Vec::new();
        for text in &args.user {
            let user = User::find(text).and_then(|user| refuse_own(&user, to).map(|()| user));
            match user {
                Ok(user) => users.push(user),
                Err(why) => note(Err(format!("--user `{}`: {why}", show_value(text)))),
            }
        }
        ConfigError::unless_empty(problems)?;
        Ok(Self { users, ports, to: to.unwrap_or_default(), format: args.format })
    }

    /// Proves, from each user and from the proxy's, that loaded rules do what these say.
    ///
    /// # Errors
    /// A sentence, where that cannot be found out.
    pub fn check(&self) -> Result<CheckReport, String> {
        check::check(self)
    }

    /// The rules as text.
    pub fn text(&self) -> String {
        match self.format {
            RulesFormat::Nft => self.nft(),
            RulesFormat::Iptables => self.iptables(),
        }
    }

    /// For `nft -f`: one transaction, which replaces what an earlier one made.
    fn nft(&self) -> String {
        let ids: Vec<_> = self.users.iter().map(|user| user.id.to_string()).collect();
        let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
        let select = format!("meta skuid {{ {} }} tcp dport {{ {} }}", ids.join(", "), ports.join(", "));
        let mut text = self.comment("nft -f -", "It replaces the rules of an earlier run in one step.");
        for table in ["vouchsafe_guard", "vouchsafe"] {
            let _ = writeln!(text, "table inet {table}\ndelete table inet {table}");
        }
        let chain = |table: &str, hook: &str, rule: &str| {
            format!("table inet {table} {{\n\tchain output {{\n\t\t{hook} policy accept;\n\t\t{rule}\n\t}}\n}}\n")
        };
        let guard = format!("{select} counter reject with tcp reset");
        text += &chain("vouchsafe_guard", "type filter hook output priority 10;", &guard);
        let redirect = format!("{select} redirect to :{}", self.to);
        text + &chain("vouchsafe", "type nat hook output priority -100;", &redirect)
    }

    /// For `iptables-restore --noflush`, and the same for IPv6. The guard is there before the redirection.
    fn iptables(&self) -> String {
        let mut text = self.comment(
            "tee >(ip6tables-restore --noflush) | iptables-restore --noflush",
            "It replaces the rules of an earlier run; one more jump to the same chain, without effect, stays in OUTPUT.",
        );
        text += &self.iptables_table("filter", "VOUCHSAFE_GUARD", "REJECT --reject-with tcp-reset");
        text + &self.iptables_table("nat", "VOUCHSAFE", &format!("REDIRECT --to-ports {}", self.to))
    }

    fn iptables_table(&self, table: &str, chain: &str, target: &str) -> String {
        // First of all, since another rule could accept what is not to pass.
        let mut text = format!("*{table}\n:{chain} - [0:0]\n-I OUTPUT 1 -j {chain}\n");
        let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
        for user in &self.users {
            for ports in ports.chunks(MULTIPORT) {
                let (id, ports) = (user.id, ports.join(","));
                let _ = writeln!(
                    text,
                    "-A {chain} -p tcp -m owner --uid-owner {id} -m multiport --dports {ports} -j {target}"
                );
            }
        }
        text + "COMMIT\n"
    }

    fn comment(&self, load: &str, what: &str) -> String {
        let users: Vec<_> = self.users.iter().map(ToString::to_string).collect();
        format!(
            "# Connections of {} to these ports lead to vouchsafe; what is not redirected is reset.\n# Load it as root: vouchsafe redirect-rules ... | {load}\n# {what}\n",
            users.join(", ")
        )
    }
}

/// iptables matches as many ports in one rule.
const MULTIPORT: usize = 15;

fn bad_port(flag: &str, text: &str) -> String {
    format!("{flag} `{}`: a port within 1-65535 is expected", show_value(text))
}

/// The proxy's own connections to the upstreams must not be redirected.
fn refuse_own(user: &User, to: Option<u16>) -> Result<(), String> {
    const HINT: &str = "\nhint: run the tool as a user of its own, as in `sudo -u replicator …`";
    if user.id == 0 {
        return Err(format!(
            "rules for root would catch services of the system too, and vouchsafe if it runs as root{HINT}"
        ));
    }
    if user.id == geteuid().as_raw() {
        return Err(format!("that is the user of this process; rules must not catch vouchsafe itself{HINT}"));
    }
    let listens = to.and_then(|to| sockets::listener(to).ok().flatten());
    if listens == Some(user.id) {
        let to = to.unwrap_or_default();
        return Err(format!("that user listens on port {to}; rules must not catch vouchsafe itself{HINT}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(format: RulesFormat, ports: impl IntoIterator<Item = u16>) -> RedirectRules {
        let user = User { name: "replicator".into(), id: 998, group: 998 };
        RedirectRules { users: vec![user], ports: ports.into_iter().collect(), to: 15001, format }
    }

    #[test]
    fn nft_replaces_both_tables_in_one_transaction() {
        let text = rules(RulesFormat::Nft, [9292, 5000]).text();
        let expected =
            "# Connections of replicator (998) to these ports lead to vouchsafe; what is not redirected is reset.
# Load it as root: vouchsafe redirect-rules ... | nft -f -
# It replaces the rules of an earlier run in one step.
table inet vouchsafe_guard
delete table inet vouchsafe_guard
table inet vouchsafe
delete table inet vouchsafe
table inet vouchsafe_guard {
\tchain output {
\t\ttype filter hook output priority 10; policy accept;
\t\tmeta skuid { 998 } tcp dport { 5000, 9292 } counter reject with tcp reset
\t}
}
table inet vouchsafe {
\tchain output {
\t\ttype nat hook output priority -100; policy accept;
\t\tmeta skuid { 998 } tcp dport { 5000, 9292 } redirect to :15001
\t}
}
";
        assert_eq!(text, expected);
    }

    #[test]
    fn iptables_has_as_many_rules_as_the_ports_need() {
        let text = rules(RulesFormat::Iptables, 1..=16).text();
        let rows: Vec<_> = text.lines().filter(|line| line.starts_with("-A ")).collect();
        let select = "-p tcp -m owner --uid-owner 998 -m multiport --dports";
        let many = "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15";
        let expected = [
            format!("-A VOUCHSAFE_GUARD {select} {many} -j REJECT --reject-with tcp-reset"),
            format!("-A VOUCHSAFE_GUARD {select} 16 -j REJECT --reject-with tcp-reset"),
            format!("-A VOUCHSAFE {select} {many} -j REDIRECT --to-ports 15001"),
            format!("-A VOUCHSAFE {select} 16 -j REDIRECT --to-ports 15001"),
        ];
        assert_eq!(rows, expected);
    }
}
