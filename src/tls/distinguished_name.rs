//! Distinguished names for people.

use x509_parser::{
    asn1_rs::Tag,
    objects::{oid_registry, oid2abbrev},
    x509::{AttributeTypeAndValue, X509Name},
};

use crate::text::{escape, escape_attribute};

/// A name as `O=Example, CN=Root`: its parts in the order of the certificate, each value escaped as RFC 4514 has it, and
/// cut where it is very long.
pub(super) fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name.iter().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    escape(&parts.join(", "))
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = match oid2abbrev(attribute.attr_type(), oid_registry()) {
        Ok(short) => short.to_owned(),
        Err(_) => attribute.attr_type().to_id_string(),
    };
    format!("{kind}={}", value(attribute))
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> String {
    let value = attribute.attr_value();
    match (value.tag(), str::from_utf8(value.data)) {
        (Tag::BmpString, _) => escape_attribute(&utf16(value.data)),
        (
            Tag::Utf8String
            | Tag::PrintableString
            | Tag::Ia5String
            | Tag::NumericString
            | Tag::VisibleString
            | Tag::GeneralString
            | Tag::T61String,
            Ok(text),
        ) => escape_attribute(text),
        // What is in use as T.61 is Latin-1.
        (Tag::T61String, Err(_)) => escape_attribute(&value.data.iter().copied().map(char::from).collect::<String>()),
        // RFC 4514 section 2.4: the encoding in hex. The tag and the length say nothing to people.
        _ => format!("#{}", data_encoding::HEXLOWER.encode(value.data)),
    }
}

fn utf16(data: &[u8]) -> String {
    let units = data.chunks(2).map(|unit| unit.iter().fold(0, |sum, octet| sum << 8 | u16::from(*octet)));
    String::from_utf16_lossy(&units.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer as _;

    use super::*;

    /// A name with one attribute, a commonName of this type.
    fn common_name(tag: u8, value: &[u8]) -> String {
        let wrap = |tag: u8, parts: &[&[u8]]| {
            let content = parts.concat();
            [&[tag, content.len() as u8][..], &content[..]].concat()
        };
        let attribute = wrap(0x30, &[&[0x06, 3, 0x55, 4, 3], &wrap(tag, &[value])]);
        let der = wrap(0x30, &[&wrap(0x31, &[&attribute])]);
        distinguished_name(&X509Name::from_der(&der).unwrap().1)
    }

    #[test]
    fn no_value_looks_like_another_part() {
        for (tag, value, expected) in [
            (0x0c, &b"glance"[..], "CN=glance"),
            (0x0c, b"glance, O=Bank", "CN=glance\\, O=Bank"),
            (0x0c, b"a+OU=b", "CN=a\\+OU=b"),
            (0x0c, b"a\nb", "CN=a\\0Ab"),
            (0x0c, "M\u{fc}ller\u{202e}".as_bytes(), "CN=M\u{fc}ller\\E2\\80\\AE"),
            (0x14, b"M\xfcller", "CN=M\u{fc}ller"),
            (0x1e, b"\0M\0\xfc", "CN=M\u{fc}"),
            (0x0c, b"\xff\xfe", "CN=#fffe"),
            (0x02, b"\x01", "CN=#01"),
        ] {
            assert_eq!(common_name(tag, value), expected);
        }
        assert!(common_name(0x0c, &[b'x'; 100]).len() < 310);
    }
}
