//! The gallery's promises, kept by looking at it with somebody else's eyes: rustls, x509-parser.
#![allow(clippy::disallowed_methods, clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "tests")]

mod files;
mod gallery;
mod live;
mod verdicts;

use certs_dev::Gallery;
use time::OffsetDateTime;

/// A gallery as of now.
fn new_gallery() -> Gallery {
    Gallery::new(OffsetDateTime::now_utc()).unwrap()
}
