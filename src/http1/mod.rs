//! HTTP/1 on the wire (RFC 9112): heads, the length of bodies, chunks. No policy, no proxy words; pure but for
//! [`conn`].
//!
//! Every byte is read once and by one reader. Whatever two readers could understand in two ways is refused here, in
//! [`head`] and [`body`], and nowhere else.

pub mod body;
pub mod conn;
pub mod fields;
pub mod head;

/// A version of HTTP/1 (RFC 9112 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Http10,
    Http11,
}

impl Version {
    /// As a status line begins.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}
