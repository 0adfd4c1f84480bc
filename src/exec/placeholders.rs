//! Placeholders in the tool's arguments and variables: `{NAME}` and `{NAME.FORM}` for the address of a route by name.

use std::{
    ffi::{OsStr, OsString},
    net::SocketAddr,
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use memchr::memchr;

use crate::config::suggest::nearest;

/// A route by name, bound.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) label: String,
    pub(super) address: SocketAddr,
    /// Whether clients have to speak TLS there.
    pub(super) tls: bool,
}

/// How an address may be written.
const FORMS: [&str; 3] = ["localhost", "port", "url"];

impl Endpoint {
    /// The address as `FORM` says; an empty one is `ADDRESS:PORT`.
    fn value(&self, form: &str) -> Option<String> {
        match form {
            "" => Some(self.address.to_string()),
            "localhost" => Some(format!("localhost:{}", self.address.port())),
            "port" => Some(self.address.port().to_string()),
            "url" if self.tls => Some(format!("https://{}", self.address)),
            "url" => Some(format!("http://{}", self.address)),
            _ => None,
        }
    }
}

/// An argument with its placeholders replaced. What is in braces and resembles no name of a route stays as it is.
///
/// # Errors
/// A sentence and a hint about a placeholder that is nearly one.
pub(super) fn replace(text: &OsStr, endpoints: &[Endpoint]) -> Result<OsString, String> {
    let (mut rest, mut replaced) = (text.as_bytes(), Vec::new());
    while let Some(start) = memchr(b'{', rest) {
        let (before, from) = rest.split_at(start);
        replaced.extend_from_slice(before);
        match token(from).map(|token| (token, value(token, endpoints))) {
            Some((token, Found::Value(value))) => {
                replaced.extend_from_slice(value.as_bytes());
                rest = &from[token.len() + 2..];
            }
            Some((token, Found::Nearly(meant))) => {
                return Err(format!("`{{{token}}}` is no placeholder\nhint: did you mean `{{{meant}}}`?"));
            }
            Some((_, Found::Nothing)) | None => {
                replaced.push(b'{');
                rest = &from[1..];
            }
        }
    }
    replaced.extend_from_slice(rest);
    Ok(OsString::from_vec(replaced))
}

/// What is in the braces that the text begins with, if it could be a placeholder.
fn token(text: &[u8]) -> Option<&str> {
    let end = memchr(b'}', text)?;
    let inner = str::from_utf8(&text[1..end]).ok()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!inner.is_empty() && inner.chars().all(fits)).then_some(inner)
}

enum Found {
    Value(String),
    Nearly(String),
    Nothing,
}

fn value(token: &str, endpoints: &[Endpoint]) -> Found {
    let (label, form) = token.split_once('.').unwrap_or((token, ""));
    let dot = if form.is_empty() { "" } else { "." };
    match endpoints.iter().find(|endpoint| endpoint.label == label) {
        Some(endpoint) => match endpoint.value(form) {
            Some(value) => Found::Value(value),
            None => Found::Nearly(format!("{label}.{}", nearest(form, FORMS).unwrap_or("port"))),
        },
        None => match nearest(label, endpoints.iter().map(|endpoint| endpoint.label.as_str())) {
            Some(nearest) => Found::Nearly(format!("{nearest}{dot}{form}")),
            None => Found::Nothing,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints() -> Vec<Endpoint> {
        let endpoint = |label: &str, address: &str| Endpoint {
            label: label.into(),
            address: address.parse().unwrap(),
            tls: false,
        };
        vec![endpoint("glance-a", "127.0.0.1:4001"), endpoint("keystone", "127.0.0.1:4002")]
    }

    #[test]
    fn declared_names_are_replaced_and_nothing_else() {
        for (text, expected) in [
            ("{glance-a}", "127.0.0.1:4001"),
            ("--port={glance-a.port}", "--port=4001"),
            ("{glance-a.url}/v2,{keystone.localhost}", "http://127.0.0.1:4001/v2,localhost:4002"),
            ("{{glance-a}}", "{127.0.0.1:4001}"),
            ("{x} {} { {\"a\": {\"b\": 1}} }", "{x} {} { {\"a\": {\"b\": 1}} }"),
            ("${HOME}", "${HOME}"),
            ("{glance-a", "{glance-a"),
            ("glance-a", "glance-a"),
        ] {
            let replaced = replace(OsStr::new(text), &endpoints()).map(|text| text.into_string().unwrap());
            assert_eq!(replaced.as_deref(), Ok(expected), "{text}");
        }
        let bytes = OsStr::from_bytes(b"\xff{keystone.port}\xfe");
        assert_eq!(replace(bytes, &endpoints()).unwrap().as_bytes(), b"\xff4002\xfe");
        assert_eq!(replace(OsStr::new("{glance-a}"), &[]).unwrap(), "{glance-a}");
    }

    #[test]
    fn a_near_miss_is_an_error_with_the_right_word() {
        for (text, meant) in [
            ("{glance-b}", "`{glance-a}`"),
            ("{glanec-a.port}", "`{glance-a.port}`"),
            ("{glance-a.prot}", "`{glance-a.port}`"),
            ("{keystone.uri}", "`{keystone.url}`"),
        ] {
            let error = replace(OsStr::new(text), &endpoints()).unwrap_err();
            assert!(error.ends_with(&format!("did you mean {meant}?")), "{error}");
        }
    }
}
