//! What messages mean: destinations, URLs, links. Pure.

pub mod authority;
pub mod links;
pub mod target;
pub mod url;
pub mod via;
