//! Walks a document along the shapes, in one pass. `serde_json` reads it; a raw value is a part of the document, so
//! where it begins tells where it is.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    FoundUrl, Scope, Scopes,
    shapes::{Member, Node},
};

/// The URLs of a document.
pub(super) fn find(document: &str, scopes: Scopes) -> Vec<FoundUrl<'_>> {
    let mut findings = Findings { document, scopes, urls: Vec::new() };
    let mut reader = serde_json::Deserializer::from_str(document);
    let read = Walk { node: Node::Document, findings: &mut findings }.deserialize(&mut reader);
    match read.and_then(|()| reader.end()) {
        Ok(()) => findings.urls,
        Err(_) => Vec::new(),
    }
}

struct Findings<'a> {
    document: &'a str,
    scopes: Scopes,
    urls: Vec<FoundUrl<'a>>,
}

impl<'a> Findings<'a> {
    /// A value that is a URL by its place; nothing where it is no string.
    fn url(&self, value: &'a RawValue, scope: Scope) -> Option<FoundUrl<'a>> {
        let text = value.get();
        let inner = text.strip_prefix('"')?.strip_suffix('"')?;
        let start = text.as_ptr().addr() - self.document.as_ptr().addr();
        let url = match inner.contains('\\') {
            true => Cow::Owned(serde_json::from_str(text).ok()?),
            false => Cow::Borrowed(inner),
        };
        Some(FoundUrl { span: start..start + text.len(), url, scope })
    }
}

/// Reads one value at a place, whatever it is.
struct Walk<'a, 'f> {
    node: Node,
    findings: &'f mut Findings<'a>,
}

impl<'a> DeserializeSeed<'a> for Walk<'a, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Walk<'a, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'a>>(self, map: A) -> Result<(), A::Error> {
        match self.node {
            Node::Document => self.document(map),
            Node::Link(_) => self.link(map),
            _ => self.members(map, |_, _| {}),
        }
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        let Some(node) = self.node.element() else {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        while list.next_element_seed(Walk { node, findings: &mut *self.findings })?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

impl<'a> Walk<'a, '_> {
    /// The document. A catalog that is a member of it is one by its siblings, and so is a link to another page: a resource
    /// has an id, and may have members of these names that are its user's (the properties of an image).
    fn document<A: MapAccess<'a>>(self, map: A) -> Result<(), A::Error> {
        let Self { node, findings } = self;
        let (mut links, mut endpoints, mut id) = (false, false, false);
        let (mut catalog, mut pages) = (Vec::new(), Vec::new());
        Walk { node, findings: &mut *findings }.members(map, |name, range| match name {
            "links" => links = true,
            "endpoints" => endpoints = true,
            "id" => id = true,
            "catalog" => catalog.push(range),
            "next" | "previous" | "first" => pages.push(range),
            _ => {}
        })?;
        let is_catalog = links && !endpoints;
        let mut data: Vec<_> =
            catalog.into_iter().filter(|_| !is_catalog).chain(pages.into_iter().filter(|_| id)).collect();
        data.sort_by_key(|range| range.start);
        for range in data.into_iter().rev() {
            findings.urls.drain(range);
        }
        Ok(())
    }

    /// The members of an object. `note` hears of each: its name, and which URLs were found in it.
    fn members<A: MapAccess<'a>>(
        self,
        mut map: A,
        mut note: impl FnMut(&str, std::ops::Range<usize>),
    ) -> Result<(), A::Error> {
        let Self { node, findings } = self;
        while let Some(Key(name)) = map.next_key()? {
            let before = findings.urls.len();
            match node.member(&name) {
                Member::Inner(inner) => map.next_value_seed(Walk { node: inner, findings: &mut *findings })?,
                Member::Url(scope) if findings.scopes.has(scope) => {
                    let url = findings.url(map.next_value()?, scope);
                    findings.urls.extend(url);
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
            note(&name, before..findings.urls.len());
        }
        Ok(())
    }

    /// A link, whose relation may come behind its URL.
    fn link<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { node, findings } = self;
        let Node::Link(what) = node else { return Ok(()) };
        let mut followed = false;
        let mut urls = Vec::new();
        while let Some(Key(name)) = map.next_key()? {
            match node.member(&name) {
                Member::Href => urls.extend(findings.url(map.next_value()?, what.scope())),
                Member::Relation => {
                    let relation: &RawValue = map.next_value()?;
                    let relation = serde_json::from_str::<Cow<'_, str>>(relation.get());
                    followed = relation.is_ok_and(|relation| what.follows(&relation));
                }
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        if followed && findings.scopes.has(what.scope()) {
            findings.urls.append(&mut urls);
        }
        Ok(())
    }
}

/// A member's name.
struct Key<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}
