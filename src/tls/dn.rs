//! Distinguished names: as text, compared by RFC 5280 section 7.1, and as name constraints.

use x509_parser::{
    asn1_rs::{Any, Tag},
    objects::{oid_registry, oid2abbrev},
    prelude::FromDer,
    x509::{RelativeDistinguishedName, X509Name},
};

use crate::text::{escape, escape_attribute};

/// A distinguished name for people, in the order of the certificate: `C=DE, O=Example, CN=Root`. Strings of all types are
/// decoded, each value is escaped as RFC 4514 has it, and the whole is cut where it is very long.
pub fn text(name: &X509Name<'_>) -> String {
    let rdns = name.iter().map(|rdn| {
        let attributes = rdn.iter().map(|attribute| {
            let kind = oid2abbrev(attribute.attr_type(), oid_registry())
                .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            format!("{kind}={}", escaped(attribute.attr_value()))
        });
        attributes.collect::<Vec<_>>().join("+")
    });
    escape(&rdns.collect::<Vec<_>>().join(", "))
}

fn escaped(value: &Any<'_>) -> String {
    match string(value) {
        Some(text) => escape_attribute(&text),
        // RFC 4514 section 2.4: the encoding in hex. The tag and the length say nothing to people.
        None => format!("#{}", data_encoding::HEXLOWER.encode(value.data)),
    }
}

/// The value of an attribute as text.
pub fn value(value: &Any<'_>) -> String {
    string(value).unwrap_or_else(|| value.data.iter().map(|octet| format!("{octet:02X}")).collect())
}

/// The characters of a string type. TeletexString is read as Latin-1, as is usual.
fn string(value: &Any<'_>) -> Option<String> {
    match value.tag() {
        Tag::BmpString => {
            let units = value.data.chunks(2).map(|unit| match unit {
                [high, low] => u16::from_be_bytes([*high, *low]),
                _ => 0xfffd,
            });
            Some(char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
        }
        Tag::UniversalString => {
            let units = value.data.chunks(4).map(|unit| <[u8; 4]>::try_from(unit).map_or(0xfffd, u32::from_be_bytes));
            Some(units.map(|unit| char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
        }
        Tag::T61String => Some(match std::str::from_utf8(value.data) {
            // Many wrote UTF-8 into it.
            Ok(text) => text.to_owned(),
            Err(_) => value.data.iter().copied().map(char::from).collect(),
        }),
        Tag::GeneralString
        | Tag::GraphicString
        | Tag::Ia5String
        | Tag::NumericString
        | Tag::ObjectDescriptor
        | Tag::PrintableString
        | Tag::Utf8String
        | Tag::VideotexString
        | Tag::VisibleString => Some(String::from_utf8_lossy(value.data).into_owned()),
        _ => None,
    }
}

/// Whether two names, as DER, are equal by RFC 5280 section 7.1: string types do not count, nor does the case of
/// letters, nor how wide white space is.
///
/// Narrower than the RFC in one respect: characters that Unicode calls compatible (NFKC) are different here.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let (Ok((_, one)), Ok((_, other))) = (X509Name::from_der(one), X509Name::from_der(other)) else { return false };
    one.iter().count() == other.iter().count() && one.iter().zip(other.iter()).all(|(one, other)| same_rdn(one, other))
}

/// How a name stands to the base of a directoryName constraint (section 4.2.1.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Within {
    /// It is within.
    Yes,
    /// It is not.
    No,
    /// They differ in characters whose equality is not decided here.
    Unknown,
}

/// Whether a name begins with all parts of the base.
pub fn within(name: &X509Name<'_>, base: &X509Name<'_>) -> Within {
    if name.iter().count() < base.iter().count() {
        return Within::No;
    }
    if name.iter().zip(base.iter()).all(|(one, other)| same_rdn(one, other)) {
        return Within::Yes;
    }
    let is_plain = |name: &X509Name<'_>| {
        let mut attributes = name.iter_attributes();
        attributes.all(|attribute| string(attribute.attr_value()).is_some_and(|text| text.is_ascii()))
    };
    if is_plain(name) && is_plain(base) { Within::No } else { Within::Unknown }
}

fn same_rdn(one: &RelativeDistinguishedName<'_>, other: &RelativeDistinguishedName<'_>) -> bool {
    let parts = |rdn: &RelativeDistinguishedName<'_>| {
        let mut parts: Vec<_> =
            rdn.iter().map(|part| (part.attr_type().to_id_string(), comparable(part.attr_value()))).collect();
        parts.sort();
        parts
    };
    parts(one) == parts(other)
}

/// A string as it is compared; of all else the bytes.
fn comparable(value: &Any<'_>) -> Result<String, Vec<u8>> {
    let Some(text) = string(value) else { return Err(value.data.to_vec()) };
    let words: Vec<_> = text.split_whitespace().map(str::to_lowercase).collect();
    Ok(words.join(" "))
}

/// The contents of a nameConstraints extension's SEQUENCE without its directoryName subtrees, which
/// [`super::constraints`] checks; `None` if it has none, or cannot be read.
pub fn without_directory_names(constraints: &[u8]) -> Option<Vec<u8>> {
    const DIRECTORY_NAME: u8 = 0xa4;
    let mut kept = Vec::new();
    let (mut rest, mut found) = (constraints, false);
    while !rest.is_empty() {
        let (behind, subtrees) = Any::from_der(rest).ok()?;
        let tag = *rest.first()?;
        let (mut inside, mut contents) = (subtrees.data, Vec::new());
        while !inside.is_empty() {
            let (next, subtree) = Any::from_der(inside).ok()?;
            if subtree.data.first() == Some(&DIRECTORY_NAME) {
                found = true;
            } else {
                contents.extend_from_slice(inside.get(..inside.len() - next.len())?);
            }
            inside = next;
        }
        if !contents.is_empty() {
            kept.push(tag);
            kept.extend(length(contents.len()));
            kept.extend(contents);
        }
        rest = behind;
    }
    found.then_some(kept)
}

/// The length octets of DER.
fn length(length: usize) -> Vec<u8> {
    if length < 0x80 {
        return vec![u8::try_from(length).unwrap_or_default()];
    }
    let octets: Vec<u8> = length.to_be_bytes().into_iter().skip_while(|octet| *octet == 0).collect();
    let count = u8::try_from(octets.len()).unwrap_or_default();
    std::iter::once(0x80 | count).chain(octets).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A name of one common name, of this string type.
    fn name(tag: u8, text: &[u8]) -> Vec<u8> {
        let tlv = |tag: u8, contents: &[u8]| [&[tag], length(contents.len()).as_slice(), contents].concat();
        let attribute = tlv(0x30, &[&[6, 3, 0x55, 4, 3][..], &tlv(tag, text)].concat());
        tlv(0x30, &tlv(0x31, &attribute))
    }

    fn shown(der: &[u8]) -> String {
        text(&X509Name::from_der(der).unwrap().1)
    }

    #[test]
    fn names_are_equal_in_whatever_string_type_and_letters_they_are_written() {
        let root = name(0x0c, b"Lab Root");
        for (tag, text) in
            [(0x13, &b"Lab Root"[..]), (0x0c, b"LAB  root "), (0x14, b"lab root"), (0x1e, b"\0L\0a\0b\0 \0R\0o\0o\0t")]
        {
            assert!(is_same(&root, &name(tag, text)), "{tag} {text:?}");
        }
        for (tag, text) in [(0x0c, &b"Lab Roo"[..]), (0x0c, b"LabRoot"), (0x04, b"Lab Root")] {
            assert!(!is_same(&root, &name(tag, text)), "{tag} {text:?}");
        }
    }

    #[test]
    fn old_string_types_are_decoded() {
        assert_eq!(shown(&name(0x14, b"M\xfcller")), "CN=M\u{fc}ller");
        assert_eq!(shown(&name(0x1e, b"\0M\0\xfc\0l")), "CN=M\u{fc}l");
        assert_eq!(shown(&name(0x1e, b"\0M\0")), "CN=M\u{fffd}");
        assert_eq!(shown(&name(0x0c, b"\xff")), "CN=\u{fffd}");
        assert_eq!(shown(&name(0x04, b"\x01\xab")), "CN=#01ab");
    }

    #[test]
    fn directory_names_are_taken_out_of_constraints_and_nothing_else_is() {
        let directory = [0x30, 4, 0xa4, 2, 0x30, 0];
        let dns = [0x30, 3, 0x82, 1, b'a'];
        let subtrees = |tag: u8, of: &[&[u8]]| {
            let contents = of.concat();
            [&[tag, u8::try_from(contents.len()).unwrap()][..], &contents].concat()
        };
        let mixed = [subtrees(0xa0, &[&directory, &dns]), subtrees(0xa1, &[&directory])].concat();
        assert_eq!(without_directory_names(&mixed).unwrap(), subtrees(0xa0, &[&dns]));
        assert_eq!(without_directory_names(&subtrees(0xa0, &[&dns])), None);
        assert_eq!(without_directory_names(&[0xa0, 9, 1]), None);
        assert_eq!(length(300), [0x82, 1, 44]);
    }
}
