//! What the tests share: the built program, and servers for it to meet.

pub mod browser;
pub mod cloud;
pub mod command;
pub mod der;
pub mod dns;
pub mod exec;
pub mod gallery;
pub mod glance15;
pub mod hostile;
pub mod image_server;
pub mod local_ca;
pub mod netns;
pub mod openssl;
pub mod origin;
pub mod parent;
pub mod proxy;
pub mod pty;
pub mod relay;
pub mod replicator;
pub mod schema;
pub mod strict;
pub mod talk;

use tempfile::TempDir;

/// A fresh directory, gone when the test is.
pub fn dir() -> TempDir {
    tempfile::Builder::new().prefix("vouchsafe-").tempdir().expect("a temporary directory")
}
