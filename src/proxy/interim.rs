//! Interim responses (RFC 9110 section 15.2): passed on as they come, written by us since hyper's server cannot.

use http::{
    HeaderName, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use crate::{connect::interim::Interim, message::fields};

use super::{FieldCase, ProxySettings};

/// What is said to a client that waits before it sends, where its upstream does not say anything.
pub(super) const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An interim response as bytes, its fields treated like those of any response.
pub(super) fn written(interim: Interim, settings: &ProxySettings) -> Vec<u8> {
    let Interim { status, version, mut fields } = interim;
    fields::strip_response(&mut fields, false);
    // It has no body, and whoever is told of one waits for it (RFC 9110 section 8.6, RFC 9112 section 6.1).
    fields::remove(&mut fields, |name| *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING);
    if status != StatusCode::CONTINUE {
        // A bare 100 says nothing that somebody would trace.
        settings.pseudonym.append_via(&mut fields, version);
    }
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &fields {
        push_name(&mut bytes, name, settings.field_case);
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// hyper does not tell how an interim response's names were written; capitals are what most servers write.
fn push_name(bytes: &mut Vec<u8>, name: &HeaderName, case: FieldCase) {
    let mut starts = case != FieldCase::Lower;
    for byte in name.as_str().bytes() {
        bytes.push(if starts { byte.to_ascii_uppercase() } else { byte });
        starts = byte == b'-' && case != FieldCase::Lower;
    }
}
