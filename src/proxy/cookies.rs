//! `Set-Cookie` for a client that reaches the upstream by plain HTTP, and perhaps under another name (RFC 6265 section
//! 5.2): attributes that would keep the cookie from coming back are removed.

use crate::http1::fields::{FieldName, FieldNames, Fields};

/// Removes `Secure` for a client that speaks plain HTTP, and `Domain` where it uses a name of its own for the upstream.
pub(super) fn localize(fields: &mut Fields, plain: bool, own_name: bool) {
    if plain || own_name {
        fields.map_values(FieldNames::of(&[FieldName::SetCookie]), |field| without(field.value, plain, own_name));
    }
}

/// `None` where there is nothing to remove.
fn without(value: &[u8], secure: bool, domain: bool) -> Option<Vec<u8>> {
    let goes = |attribute: &[u8]| {
        let name = attribute.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        secure && name.eq_ignore_ascii_case(b"secure") || domain && name.eq_ignore_ascii_case(b"domain")
    };
    let mut parts = value.split(|byte| *byte == b';');
    let cookie = parts.next()?;
    if !parts.clone().any(goes) {
        return None;
    }
    let kept = std::iter::once(cookie).chain(parts.filter(|attribute| !goes(attribute)));
    Some(kept.collect::<Vec<_>>().join(&b';'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_that_keep_a_cookie_away_are_removed_and_all_else_stays() {
        for (value, plain, own_name, expected) in [
            ("a=b; Secure; HttpOnly", true, true, "a=b; HttpOnly"),
            ("a=b;secure;Path=/", true, false, "a=b;Path=/"),
            ("a=b; Domain=.example; Path=/; SECURE", true, true, "a=b; Path=/"),
            ("a=b; Domain=.example; Path=/; Secure", true, false, "a=b; Domain=.example; Path=/"),
            ("a=b; Domain=.example; Secure", false, true, "a=b; Secure"),
            ("secure=1; Path=/", true, true, "secure=1; Path=/"),
            (
                "a=\"x\"; Expires=Wed, 09 Jun 2027 10:18:14 GMT",
                true,
                true,
                "a=\"x\"; Expires=Wed, 09 Jun 2027 10:18:14 GMT",
            ),
        ] {
            let mut fields = Fields::default();
            fields.append(b"Set-Cookie", value.as_bytes());
            localize(&mut fields, plain, own_name);
            assert_eq!(fields.get(FieldName::SetCookie), Some(expected.as_bytes()), "{value}");
        }
    }
}
