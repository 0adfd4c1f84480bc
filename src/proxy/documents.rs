//! JSON documents whose URLs lead the client here: which responses may be one, their bodies collected whole, and what
//! that changes in their heads. What is not changed passes byte for byte.

use std::{io::Read as _, time::Duration};

use flate2::read::MultiGzDecoder;

use crate::{
    buffer::Buffer,
    http1::{
        body::BodyLength,
        fields::{FieldName, FieldNames, Fields, tokens},
        head::ResponseHead,
    },
    message::url,
    rewrite::{self, FoundUrl, Scope},
    route::link_context::LinkContext,
    text::escape,
};

use super::{
    attempt::Answered,
    context::{Ended, RequestContext},
    download::{BodyCoding, Download, DownloadError},
    failure::Failure,
    links::{Arrival, link_context},
    relay::{CollectBounds, Collected, Cut, Patience, Relay},
    upload::Upload,
};

/// Bytes of a body that are collected, as it came and decoded. A catalog has some ten KiB, and a long list a few MiB.
const LIMIT: usize = 4 << 20;

/// How long a body is collected: what comes so slowly is relayed as it comes.
const TIME: Duration = Duration::from_secs(10);

/// The body that a response has for its client.
#[derive(Debug)]
pub(super) enum PassedBody {
    /// The upstream's, as it comes.
    AsItCame,
    /// This, in place of the upstream's, which has come to its end.
    Instead(Box<Download>, Vec<u8>),
    /// The upstream's, of which a part has come.
    Partly(Box<Download>),
}

impl PassedBody {
    /// What is to be relayed behind the head in `out`.
    pub(super) fn into_download(self, head: &ResponseHead, coding: BodyCoding, out: &mut Buffer) -> Download {
        match self {
            Self::AsItCame => Download::new(head.length, coding),
            Self::Instead(mut download, content) => {
                download.write_instead(&content, out);
                *download
            }
            Self::Partly(mut download) => {
                download.write_collected(coding, out);
                *download
            }
        }
    }
}

/// Leaves a client's request no other codings than those that are decoded here.
pub(super) fn narrow_encodings(fields: &mut Fields) {
    if fields.get_other("accept-encoding").is_none() {
        return;
    }
    fields.map_values(FieldNames::of(&[FieldName::Other]), |field| {
        if !field.is("accept-encoding") {
            return None;
        }
        let is_known = |member: &&[u8]| {
            let coding = member.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            [&b"gzip"[..], b"x-gzip", b"identity"].iter().any(|known| coding.eq_ignore_ascii_case(known))
        };
        let members = || field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        if members().all(|member| is_known(&member)) {
            return None;
        }
        let known: Vec<&[u8]> = members().filter(is_known).collect();
        Some(if known.is_empty() { b"identity".to_vec() } else { known.join(&b", "[..]) })
    });
}

/// Whether a response may be one of the documents, by its head alone: JSON that a service of an API made. What Swift and
/// S3 answer is the user's, whatever its type.
pub(super) fn may_have_urls(head: &ResponseHead) -> bool {
    if !matches!(head.status, 200 | 201 | 203 | 300) {
        return false;
    }
    let is_json = head.fields.get_other("content-type").is_some_and(is_json);
    const OF_STORES: [&str; 4] = ["content-range", "x-amz-request-id", "x-timestamp", "x-trans-id"];
    is_json && OF_STORES.iter().all(|name| head.fields.get_other(name).is_none())
}

fn is_json(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

/// How a body is encoded (RFC 9110 section 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContentEncoding {
    Identity,
    Gzip,
    Other,
}

impl ContentEncoding {
    fn of(fields: &Fields) -> Self {
        let mut encoding = Self::Identity;
        for field in fields.iter().filter(|field| field.name == FieldName::Other && field.is("content-encoding")) {
            for coding in tokens(field.value) {
                encoding = match (encoding, coding) {
                    (encoding, coding) if coding.eq_ignore_ascii_case(b"identity") => encoding,
                    (Self::Identity, coding)
                        if coding.eq_ignore_ascii_case(b"gzip") || coding.eq_ignore_ascii_case(b"x-gzip") =>
                    {
                        Self::Gzip
                    }
                    _ => Self::Other,
                };
            }
        }
        encoding
    }
}

/// Why a document passes unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    TooLarge,
    TooMany,
    TooSlow,
    Encoded,
}

impl RequestContext<'_> {
    /// Replaces the URLs of a response that may have some, and fits its head to what it has then.
    pub(super) async fn rewrite(
        &mut self,
        answered: &mut Answered,
        to_head: bool,
        arrival: Arrival<'_>,
        upload: &mut Upload,
    ) -> Result<PassedBody, Ended> {
        let Answered { head, upstream, .. } = answered;
        if to_head {
            // What the response to GET would have is not known.
            head.fields.remove(FieldNames::of(&[FieldName::ContentLength]));
            remove_digests(&mut head.fields);
            return Ok(PassedBody::AsItCame);
        }
        if head.length.is_empty() {
            return Ok(PassedBody::AsItCame);
        }
        let encoding = ContentEncoding::of(&head.fields);
        if encoding == ContentEncoding::Other {
            self.log_unread(Unread::Encoded);
            return Ok(PassedBody::AsItCame);
        }
        if matches!(head.length, BodyLength::Exact(length) if length > LIMIT as u64) {
            self.log_unread(Unread::TooLarge);
            return Ok(PassedBody::AsItCame);
        }
        let mut download = Box::new(Download::new(head.length, BodyCoding::AsCame));
        let patience = Patience::of(&self.current.generation.settings);
        let mut relay = Relay { client: self.client, upstream, upload, patience };
        let mut bounds = CollectBounds::new(LIMIT, TIME, &self.proxy.collected);
        let collected = relay.collect(&mut download, &mut bounds, &mut self.record).await;
        let unread = match collected.map_err(ended)? {
            Collected::Whole => None,
            Collected::TooLarge => Some(Unread::TooLarge),
            Collected::TooMany => Some(Unread::TooMany),
            Collected::TooSlow => Some(Unread::TooSlow),
        };
        if let Some(unread) = unread {
            self.log_unread(unread);
            return Ok(PassedBody::Partly(download));
        }
        let received = download.collected();
        let decoded = match encoding {
            ContentEncoding::Gzip => gunzip(&received),
            _ => Ok(None),
        };
        let content = match decoded {
            Ok(Some(decoded)) => self.rewritten(&decoded, arrival),
            Ok(None) => self.rewritten(&received, arrival),
            Err(unread) => {
                self.log_unread(unread);
                None
            }
        };
        let content = match content {
            Some(content) => {
                remove_digests(&mut head.fields);
                head.fields.retain(|field| !field.is("content-encoding"));
                content
            }
            None => received,
        };
        head.length = BodyLength::Exact(content.len() as u64);
        head.fields.remove(FieldNames::of(&[FieldName::TransferEncoding, FieldName::Trailer]));
        head.fields.set(FieldName::ContentLength, b"Content-Length", content.len().to_string().as_bytes());
        Ok(PassedBody::Instead(download, content))
    }

    /// The document with its URLs replaced; `None` where it stays as it is.
    fn rewritten(&self, document: &[u8], arrival: Arrival<'_>) -> Option<Vec<u8>> {
        let urls = rewrite::find(document, self.listener().policies.rewrite);
        if urls.is_empty() {
            return None;
        }
        let context = link_context(&self.current, arrival)?;
        rewrite::replace(document, &urls, |found| {
            let local = local_url(&context, &found.url);
            if local.is_none() && found.scope == Scope::Catalog {
                self.log_unserved(&context, found);
            }
            local
        })
    }

    /// An endpoint that clients reach past the proxy is logged once.
    fn log_unserved(&self, context: &LinkContext<'_>, found: &FoundUrl<'_>) {
        let Some((origin, _)) = url::split(&found.url) else { return };
        if !context.leads_past(&origin) {
            return;
        }
        let (scheme, class) = match origin.https {
            true => ("https", "catalog_endpoint_not_served"),
            false => ("http", "catalog_endpoint_plain"),
        };
        let endpoint = format!("{scheme}://{}", origin.authority);
        if !self.current.generation.notices.is_new(self.context.index, class, &endpoint) {
            return;
        }
        tracing::warn!(
            event = "catalog",
            class,
            listener = %self.listener().metrics.name,
            endpoint,
            "the catalog names an endpoint that is not served here: clients will go past vouchsafe to {endpoint}{}; add --route or --allow for it",
            if origin.https { "" } else { ", in plain text" },
        );
    }

    /// A document that was not looked into is logged.
    fn log_unread(&self, unread: Unread) {
        let (class, why) = match unread {
            Unread::TooLarge => ("catalog_too_large", "has more than 4 MiB"),
            Unread::TooMany => {
                ("catalog_too_large", "has, together with others that come at the same time, more than 32 MiB")
            }
            Unread::TooSlow => ("catalog_too_slow", "takes more than 10 s to come"),
            Unread::Encoded => {
                ("catalog_encoded", "cannot be decoded: it has a Content-Encoding other than gzip, or is damaged")
            }
        };
        let path = escape(&self.summary().path());
        if !self.current.generation.notices.is_new(self.context.index, class, &path) {
            return;
        }
        tracing::warn!(
            event = "catalog",
            class,
            listener = %self.listener().metrics.name,
            path,
            "a JSON document {why}; it is passed on as it came, and URLs in it may lead clients past vouchsafe"
        );
    }
}

/// The URL by which the client gets to the same place by way of the proxy.
fn local_url(context: &LinkContext<'_>, url: &str) -> Option<String> {
    let (origin, behind) = url::split(url)?;
    Some(format!("{}://{}{behind}", context.scheme(), context.local_form(&origin)?))
}

/// The end of an exchange whose response broke off before anything of it was written.
fn ended(cut: Cut) -> Ended {
    Ended::Failed(match cut {
        Cut::ClientGone | Cut::ClientNotReading(_) => return Ended::ClientGone,
        Cut::ClientBody(error) => Failure::ClientBody(error),
        Cut::ClientStalled(_) => Failure::ClientStalled,
        Cut::Body(DownloadError::Chunk(bad)) => Failure::BadResponse(bad.to_string()),
        Cut::Body(error) => Failure::UpstreamClosed(error.to_string()),
        Cut::Stalled(limit) => Failure::ResponseTimeout(limit),
    })
}

/// What describes the bytes of a body: it would be wrong for others.
fn remove_digests(fields: &mut Fields) {
    const NAMES: [&str; 5] = ["etag", "content-md5", "digest", "content-digest", "repr-digest"];
    fields.retain(|field| field.name != FieldName::Other || !NAMES.iter().any(|name| field.is(name)));
}

/// The content of a body in gzip (RFC 1952).
fn gunzip(encoded: &[u8]) -> Result<Option<Vec<u8>>, Unread> {
    let mut decoded = Vec::new();
    let mut limited = MultiGzDecoder::new(encoded).take(LIMIT as u64 + 1);
    limited.read_to_end(&mut decoded).map_err(|_| Unread::Encoded)?;
    if decoded.len() > LIMIT { Err(Unread::TooLarge) } else { Ok(Some(decoded)) }
}
