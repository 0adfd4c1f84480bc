//! URLs in JSON documents of OpenStack services: found by the shape of the document, and replaced without touching
//! any other byte. Pure.
//!
//! A URL is found only where a known document has one that clients follow; the same URL in any other place is data.
//! What a client may write back, hand to another service or compare is never found: the administration of endpoints
//! (`/v3/endpoints`, `/v2.0/endpoints`), image locations, `*_ref` of Barbican, metadata, signed tokens. `shapes.rs` has
//! the list.

mod shapes;
mod walk;

use std::{borrow::Cow, ops::Range};

/// The kinds of documents whose URLs are replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    /// Service catalogs in tokens of Keystone v2.0 and v3, and `GET /v3/auth/catalog`.
    pub catalog: bool,
    /// Lists of API versions.
    pub versions: bool,
    /// Links to the next page of a list, and the links of resources.
    pub pages: bool,
}

impl Scopes {
    /// Whether no document is rewritten.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn has(self, scope: Scope) -> bool {
        match scope {
            Scope::Catalog => self.catalog,
            Scope::Versions => self.versions,
            Scope::Pages => self.pages,
        }
    }
}

/// One kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Catalog,
    Versions,
    Pages,
}

/// A string value that clients take for a URL to go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundUrl<'a> {
    /// Where it is in the document, with its quotes.
    pub span: Range<usize>,
    /// Its value.
    pub url: Cow<'a, str>,
    pub scope: Scope,
}

/// The URLs of a document in their order; none where it is not a single JSON object in UTF-8, or has no known shape.
pub fn find(document: &[u8], scopes: Scopes) -> Vec<FoundUrl<'_>> {
    str::from_utf8(document).map_or_else(|_| Vec::new(), |document| walk::find(document, scopes))
}

/// The document with the URLs replaced that `with` gives something for; `None` where it gives nothing for any. Every
/// byte outside of the replaced values is the same.
///
/// # Panics
/// If the URLs were not found in this document.
pub fn replace(
    document: &[u8],
    urls: &[FoundUrl<'_>],
    mut with: impl FnMut(&FoundUrl<'_>) -> Option<String>,
) -> Option<Vec<u8>> {
    let mut replaced = Vec::new();
    let mut copied = 0;
    for url in urls {
        let Some(new) = with(url) else { continue };
        if copied == 0 {
            replaced.reserve(document.len());
        }
        replaced.extend_from_slice(&document[copied..url.span.start]);
        replaced.extend_from_slice(serde_json::Value::String(new).to_string().as_bytes());
        copied = url.span.end;
    }
    if copied == 0 {
        return None;
    }
    replaced.extend_from_slice(&document[copied..]);
    Some(replaced)
}

#[cfg(test)]
mod tests;
