//! The shapes: which member of which object holds a URL that clients follow.
//!
//! | scope | shape | documents |
//! |---|---|---|
//! | catalog | `access.serviceCatalog[].endpoints[]`: `publicURL`, `internalURL`, `adminURL`; Rackspace: `versionInfo`, `versionList` | tokens of Keystone v2.0 |
//! | catalog | `token.catalog[].endpoints[].url` | tokens of Keystone v3 |
//! | catalog | `catalog[].endpoints[].url`, where the document has `links` and no `endpoints` | `GET /v3/auth/catalog` |
//! | versions | `versions[]`, `versions.values[]`, `choices[]`, `version`, `default_version`: `links[].href`, `rel` is `self` or `collection` | version documents |
//! | pages | `<x>_links[].href`, `rel` is `next` or `previous`; `links.next`, `links.previous`; `next`, `previous`, `first`, where the document has no `id` | lists |
//! | pages | `links[].href` of the document, of a resource and of its `image` and `flavor` | resources and their lists |

use super::Scope;

/// What a value is, where it is an object or a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Document,
    Access,
    Token,
    /// A catalog, or one of its services.
    Services(Endpoints),
    Service(Endpoints),
    /// The endpoints of a service, or one of them.
    Endpoints(Endpoints),
    Endpoint(Endpoints),
    /// `versions`: a list of versions, or an object with one.
    Versions,
    VersionList,
    Version,
    /// A member of the document: a resource, or a list of them.
    Resources,
    Resource,
    /// A part of a resource that is a resource of its own.
    Part,
    /// `links` of the document: a list of links, or an object with links by relation.
    DocumentLinks,
    Links(LinkUse),
    Link(LinkUse),
}

/// How a catalog names its URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoints {
    V2,
    V3,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkUse {
    Page,
    Resource,
    Version,
}

impl LinkUse {
    /// Whether clients follow links with this relation.
    pub(super) fn follows(self, relation: &str) -> bool {
        match self {
            Self::Page => matches!(relation, "next" | "previous"),
            Self::Resource => {
                matches!(relation, "self" | "bookmark" | "alternate" | "collection" | "next" | "previous")
            }
            Self::Version => matches!(relation, "self" | "collection"),
        }
    }

    pub(super) fn scope(self) -> Scope {
        match self {
            Self::Page | Self::Resource => Scope::Pages,
            Self::Version => Scope::Versions,
        }
    }
}

/// What a member of an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    /// Data.
    Data,
    /// Something to look into.
    Inner(Node),
    /// A URL.
    Url(Scope),
    /// The URL of a link, which its relation decides on.
    Href,
    Relation,
}

impl Node {
    /// The elements of a list at this place; `None` where a list is data.
    pub(super) fn element(self) -> Option<Self> {
        match self {
            Self::Services(of) => Some(Self::Service(of)),
            Self::Endpoints(of) => Some(Self::Endpoint(of)),
            Self::Versions | Self::VersionList => Some(Self::Version),
            Self::Resources => Some(Self::Resource),
            Self::DocumentLinks => Some(Self::Link(LinkUse::Resource)),
            Self::Links(what) => Some(Self::Link(what)),
            _ => None,
        }
    }

    /// A member of an object at this place.
    pub(super) fn member(self, name: &str) -> Member {
        use Member::{Data, Href, Inner, Relation, Url};
        match (self, name) {
            (Self::Document, name) => document_member(name),
            (Self::Access, "serviceCatalog") => Inner(Self::Services(Endpoints::V2)),
            (Self::Token, "catalog") => Inner(Self::Services(Endpoints::V3)),
            (Self::Service(of), "endpoints") => Inner(Self::Endpoints(of)),
            (
                Self::Endpoint(Endpoints::V2),
                "publicURL" | "internalURL" | "adminURL" | "versionInfo" | "versionList",
            )
            | (Self::Endpoint(Endpoints::V3), "url") => Url(Scope::Catalog),
            (Self::Versions, "values") => Inner(Self::VersionList),
            (Self::Version, "links") => Inner(Self::Links(LinkUse::Version)),
            (Self::Resources | Self::Resource | Self::Part, "links") => Inner(Self::Links(LinkUse::Resource)),
            (Self::Resources | Self::Resource, "image" | "flavor") => Inner(Self::Part),
            (Self::DocumentLinks, "next" | "previous") => Url(Scope::Pages),
            (Self::Link(_), "href") => Href,
            (Self::Link(_), "rel") => Relation,
            _ => Data,
        }
    }
}

fn document_member(name: &str) -> Member {
    match name {
        "access" => Member::Inner(Node::Access),
        "token" => Member::Inner(Node::Token),
        "catalog" => Member::Inner(Node::Services(Endpoints::V3)),
        "versions" => Member::Inner(Node::Versions),
        "choices" => Member::Inner(Node::VersionList),
        "version" | "default_version" => Member::Inner(Node::Version),
        "links" => Member::Inner(Node::DocumentLinks),
        "next" | "previous" | "first" => Member::Url(Scope::Pages),
        // A resource that is the whole document has these; what users put into them is theirs.
        "attributes"
        | "driver_info"
        | "driver_internal_info"
        | "extra"
        | "instance_info"
        | "metadata"
        | "parameters"
        | "properties" => Member::Data,
        name if name.ends_with("_links") => Member::Inner(Node::Links(LinkUse::Page)),
        _ => Member::Inner(Node::Resources),
    }
}
