//! The promises of the built program, a module each.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod answers;
mod audit;
mod audit_summary;
mod bundle_pin;
mod check;
mod client_tls;
mod client_tls_clients;
mod config;
mod corpora;
mod differential;
mod docs;
mod docs_commands;
mod docs_reference;
mod documents;
mod duties;
mod exec;
mod expiry;
mod faults;
mod forward_listener;
mod forwarding;
mod framing;
mod glance15;
mod hostile;
mod http11probe;
mod http_faults;
mod images;
mod interim;
mod isolate;
mod isolate_replicator;
mod life;
mod limits;
mod local_ca;
mod loud_tools;
mod messages;
mod names;
mod notify;
mod openstack;
mod pem_files;
mod ready;
mod redirects;
mod relay_faults;
mod reload;
mod replicator33;
mod report_only;
mod report_only_classes;
mod retries;
mod rooms;
mod secrets;
mod sinks;
mod suites;
mod taxonomy;
mod thrift;
mod tls_attacks;
mod transparent;
mod transparent_tls;
mod unix_sockets;
mod upgrade;
mod upstream_settings;
mod verification;
