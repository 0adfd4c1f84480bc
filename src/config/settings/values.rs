//! Single values, as people write them, and as messages may show them.

use crate::{message::authority::Host, tls::identity::ReferenceId};

/// Reads a name or an address to verify.
///
/// # Errors
/// A sentence.
pub fn reference(text: &str) -> Result<ReferenceId, String> {
    let host = text.parse::<Host>().map_err(|error| match bare_host(text) {
        Some(bare) => format!("`{}`: a name without scheme and port is expected\nhint: write `{bare}`", masked(text)),
        None => error.to_string(),
    })?;
    ReferenceId::of(&host).map_err(|name| format!("`{name}` is not a name that a certificate can have"))
}

/// The host of a text that has a scheme, a port or a path too.
pub(super) fn bare_host(text: &str) -> Option<Host> {
    without_scheme(text).parse::<crate::message::authority::Authority>().ok().map(|authority| authority.host)
}

/// A text without a scheme before and a path behind the authority.
pub(super) fn without_scheme(text: &str) -> &str {
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// A value as a message may repeat it: without what is before the last `@`, back to where a host could begin, and
/// without a query. Either may be a secret.
pub fn masked(text: &str) -> String {
    let shown = match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.find("://").map(|at| at + 3);
            let start = scheme.or_else(|| before.find('=').map(|at| at + 1)).unwrap_or(0);
            format!("{}…@{host}", &before[..start])
        }
        None => text.to_owned(),
    };
    match shown.split_once('?') {
        Some((before, _)) => format!("{before}?…"),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_do_not_repeat_secrets() {
        for (text, shown) in [
            ("127.0.0.1:1=https://u:hunter2@host:9", "127.0.0.1:1=https://…@host:9"),
            ("127.0.0.1:1=https://host/?token=x", "127.0.0.1:1=https://host/?…"),
            ("u:p@host=127.0.0.1:1", "…@host=127.0.0.1:1"),
            ("127.0.0.1:1=https://host:9", "127.0.0.1:1=https://host:9"),
            ("u:hunter2@127.0.0.1:1", "…@127.0.0.1:1"),
            ("127.0.0.1:1=https://u:pa/ss@host", "127.0.0.1:1=https://…@host"),
            ("127.0.0.1:1=https://u:p?a=ss@host", "127.0.0.1:1=https://…@host"),
        ] {
            assert_eq!(masked(text), shown);
        }
    }
}
