//! What is known of the settings in effect: listeners, upstreams, and everything in them that has a date.

use std::sync::Arc;

use time::OffsetDateTime;

/// The settings in effect.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Their number, counted up from 1 with each reload.
    pub generation: u64,
    pub listeners: Vec<ListenerFacts>,
    pub bundles: Vec<BundleFacts>,
    /// What expires, besides the bundles.
    pub dated: Vec<Dated>,
}

/// A listener.
#[derive(Clone, Debug)]
pub struct ListenerFacts {
    /// Its name in logs.
    pub name: Arc<str>,
    /// Where it is bound.
    pub address: String,
    /// Where it leads: a URL for a fixed route.
    pub to: String,
    /// The labels of the upstreams that its clients can reach.
    pub upstreams: Vec<String>,
}

/// A set of trust anchors.
#[derive(Clone, Debug)]
pub struct BundleFacts {
    /// What the operator calls it, as in `--ca-bundle ca.pem`.
    pub name: String,
    pub certificates: usize,
    /// When each certificate in it expires, and which that is, the first to expire first.
    pub ends: Vec<(OffsetDateTime, String)>,
    pub loaded: OffsetDateTime,
}

/// Something that ends at a known time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dated {
    pub kind: DatedKind,
    /// The name of the file that it is in; for report-only, the upstream.
    pub name: String,
    /// The subject of the certificate, or the issuer of the list; empty for report-only.
    pub subject: String,
    /// When it was issued, if that is known.
    pub since: Option<OffsetDateTime>,
    pub until: OffsetDateTime,
}

/// What has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DatedKind {
    /// A client certificate.
    ClientCertificate,
    /// A revocation list, by its nextUpdate.
    Crl,
    /// A certificate of the local CA, its root or its intermediate.
    LocalCa,
    /// The time for which refusals of an upstream are only reported.
    ReportOnly,
}
