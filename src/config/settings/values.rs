//! Single values, as people write them.

use crate::{message::authority::Host, text::show_value, tls::identity::ReferenceId};

/// Reads a name or an address to verify.
///
/// # Errors
/// A sentence.
pub fn reference(text: &str) -> Result<ReferenceId, String> {
    let host = text.parse::<Host>().map_err(|error| match bare_host(text) {
        Some(bare) => {
            format!("`{}`: a name without scheme and port is expected\nhint: write `{bare}`", show_value(text))
        }
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
