//! Facts about HTTP messages. Pure: no sockets, no configuration, no clock.

pub mod authority;
pub mod fields;
pub mod framing;
pub mod links;
pub mod target;
pub mod url;
