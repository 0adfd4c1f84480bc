//! Users of this host, by name or number.

use std::{
    fmt, fs,
    process::{Command, Stdio},
};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) id: u32,
    /// The primary group.
    pub(super) group: u32,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.is_empty() {
            true => write!(f, "user {}", self.id),
            false => write!(f, "{} ({})", self.name, self.id),
        }
    }
}

impl User {
    /// The user of a name, or of a number, which need not have a name.
    ///
    /// # Errors
    /// A sentence.
    pub(super) fn find(text: &str) -> Result<Self, String> {
        let found = fs::read_to_string("/etc/passwd").ok().and_then(|all| Self::among(&all, text));
        let id = text.parse().ok();
        found
            .or_else(|| Self::from_directory(text))
            .or_else(|| id.map(Self::unnamed))
            .ok_or_else(|| "there is no such user on this host".into())
    }

    /// The user of a number.
    pub(super) fn of(id: u32) -> Self {
        Self::find(&id.to_string()).unwrap_or_else(|_| Self::unnamed(id))
    }

    fn unnamed(id: u32) -> Self {
        Self { name: String::new(), id, group: id }
    }

    /// Users that are not in `/etc/passwd`, such as those of LDAP.
    fn from_directory(text: &str) -> Option<Self> {
        let mut command = Command::new("getent");
        let output = command.args(["passwd", "--", text]).stdin(Stdio::null()).output().ok()?;
        Self::among(&String::from_utf8_lossy(&output.stdout), text)
    }

    /// By passwd(5).
    fn among(all: &str, text: &str) -> Option<Self> {
        all.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, id, group) = (fields.next()?, fields.nth(1)?, fields.next()?);
            let user = Self { name: name.into(), id: id.parse().ok()?, group: group.parse().ok()? };
            (name == text || id == text).then_some(user)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nreplicator:x:998:997::/:/usr/sbin/nologin\n";
        let expected = User { name: "replicator".into(), id: 998, group: 997 };
        assert_eq!(User::among(PASSWD, "replicator"), Some(expected.clone()));
        assert_eq!(User::among(PASSWD, "998"), Some(expected));
        assert_eq!(User::among(PASSWD, "x"), None);
    }
}
