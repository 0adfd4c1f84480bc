//! Which upstream a destination means, and whether one may go there. Pure.

pub mod link_context;
pub mod no_proxy;
pub mod parent;
pub mod policy;
pub mod table;
pub mod upstream;
