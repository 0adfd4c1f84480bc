//! Why a name has no address: which name server was asked, and what it answered.

use std::io::ErrorKind;

use hickory_net::{
    NetError,
    proto::{op::ResponseCode, rr::Name},
};

/// What a name server says instead of an address. In the order of how much is left open: where several say different
/// things, the greatest is told first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reply {
    /// NXDOMAIN.
    NoSuchName,
    /// The name exists, without a record of this type.
    NoAddress,
    /// An error of the server's own, by the name that the standards give it.
    Failed(String),
    /// It cannot be reached, and why.
    Unreachable(String),
    /// Nothing.
    Silence,
}

impl Reply {
    /// What a response without an address means. `helps`: the server is authoritative, or asks others for its client.
    pub(super) fn without_address(code: ResponseCode, helps: bool) -> Self {
        match code {
            ResponseCode::NXDomain => Self::NoSuchName,
            ResponseCode::NoError if helps => Self::NoAddress,
            ResponseCode::NoError => Self::Failed("a referral, no answer".into()),
            // As RFC 1035, dig and tcpdump write them.
            ResponseCode::FormErr => Self::Failed("FORMERR".into()),
            ResponseCode::NotImp => Self::Failed("NOTIMP".into()),
            ResponseCode::Refused => Self::Failed("REFUSED".into()),
            ResponseCode::ServFail => Self::Failed("SERVFAIL".into()),
            other => Self::Failed(format!("response code {}", u16::from(other))),
        }
    }

    /// What hickory's error means, where there is no response.
    pub(super) fn of(error: &NetError) -> Self {
        match error {
            NetError::Timeout => Self::Silence,
            NetError::Io(error) if error.kind() == ErrorKind::InvalidData => Self::Failed("malformed answer".into()),
            NetError::Io(error) => Self::Unreachable(match error.kind() {
                ErrorKind::ConnectionRefused => "connection refused".into(),
                ErrorKind::NetworkUnreachable => "network unreachable".into(),
                ErrorKind::HostUnreachable => "no route to host".into(),
                _ => error.to_string(),
            }),
            NetError::Proto(_) => Self::Failed("malformed answer".into()),
            other => Self::Failed(other.to_string()),
        }
    }

    /// Whether there is nothing more to ask.
    pub(super) fn is_negative(&self) -> bool {
        matches!(self, Self::NoSuchName | Self::NoAddress)
    }

    fn describe(&self) -> &str {
        match self {
            Self::NoSuchName => "NXDOMAIN",
            Self::NoAddress => "no A or AAAA record",
            Self::Failed(how) | Self::Unreachable(how) => how,
            Self::Silence => "no answer",
        }
    }
}

/// Why one name has no address: the last reply of each name server that was asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LookupFailure {
    replies: Vec<(String, Reply)>,
}

impl LookupFailure {
    /// From replies in the order in which they came.
    pub(super) fn of(replies: Vec<(String, Reply)>) -> Self {
        let mut last: Vec<(String, Reply)> = Vec::new();
        for (server, reply) in replies {
            match last.iter_mut().find(|(known, _)| *known == server) {
                Some(known) => known.1 = reply,
                None => last.push((server, reply)),
            }
        }
        Self { replies: last }
    }

    /// The failure that leaves most open: that a name does not exist is reported only if every server that was asked
    /// for any form of it answered so.
    pub(super) fn worst(failures: Vec<Self>) -> Self {
        failures.into_iter().max_by_key(Self::rank).unwrap_or(Self { replies: Vec::new() })
    }

    /// Whether time ran out before a server answered.
    pub(super) fn is_timeout(&self) -> bool {
        self.rank() == Some(Reply::Silence)
    }

    /// Whether a name server answered that the name does not exist.
    pub(super) fn is_no_such_name(&self) -> bool {
        self.rank() == Some(Reply::NoSuchName)
    }

    fn rank(&self) -> Option<Reply> {
        self.replies.iter().map(|(_, reply)| reply.clone()).max()
    }

    /// For people: what is wrong, what each server answered, and as what the name was looked up.
    pub(super) fn describe(&self, names: &[Name]) -> String {
        let all = |is: fn(&Reply) -> bool| self.replies.iter().all(|(_, reply)| is(reply));
        let what = match self.rank() {
            None | Some(Reply::NoSuchName) => "no such name",
            Some(Reply::NoAddress) => "it has no address",
            Some(_) if all(|reply| *reply == Reply::Silence) => "no name server answered",
            Some(_) if all(|reply| matches!(reply, Reply::Unreachable(_))) => "no name server can be reached",
            Some(_) => "no name server could tell",
        };
        let replies: Vec<_> =
            self.replies.iter().map(|(server, reply)| format!("{server}: {}", reply.describe())).collect();
        let mut text = format!("{what} ({})", replies.join("; "));
        if let [_, _, ..] = names {
            let names: Vec<_> = names.iter().map(|name| format!("`{}`", name.to_ascii())).collect();
            text.push_str(&format!(", looked up as {}", names.join(", ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_in_plain_words() {
        let of = |replies: &[(&str, Reply)]| {
            LookupFailure::of(replies.iter().map(|(server, reply)| ((*server).to_owned(), reply.clone())).collect())
        };
        let failed = |how: &str| Reply::Failed(how.into());
        let refused = || Reply::Unreachable("connection refused".into());
        for (replies, expected, timeout) in [
            (&[("192.0.2.1", Reply::NoSuchName)][..], "no such name (192.0.2.1: NXDOMAIN)", false),
            (&[("192.0.2.1", Reply::NoAddress)], "it has no address (192.0.2.1: no A or AAAA record)", false),
            (
                &[("192.0.2.1", failed("SERVFAIL")), ("192.0.2.1", failed("SERVFAIL"))],
                "no name server could tell (192.0.2.1: SERVFAIL)",
                false,
            ),
            (
                &[("192.0.2.1", failed("REFUSED")), ("192.0.2.2", refused())],
                "no name server could tell (192.0.2.1: REFUSED; 192.0.2.2: connection refused)",
                false,
            ),
            (
                &[("192.0.2.1", refused()), ("192.0.2.2", Reply::Silence)],
                "no name server could tell (192.0.2.1: connection refused; 192.0.2.2: no answer)",
                true,
            ),
            (&[("192.0.2.1", Reply::Silence)], "no name server answered (192.0.2.1: no answer)", true),
            (&[("192.0.2.1", refused())], "no name server can be reached (192.0.2.1: connection refused)", false),
        ] {
            let failure = of(replies);
            assert_eq!(failure.describe(&[]), expected);
            assert_eq!(failure.is_timeout(), timeout, "{expected}");
        }
    }

    #[test]
    fn the_names_that_were_tried_are_listed() {
        let names = ["glance.lab.test.", "glance."].map(|name| Name::from_ascii(name).unwrap());
        let failure = LookupFailure::of(vec![("192.0.2.1".into(), Reply::NoSuchName)]);
        assert_eq!(
            failure.describe(&names),
            "no such name (192.0.2.1: NXDOMAIN), looked up as `glance.lab.test.`, `glance.`"
        );
    }
}
