//! vouchsafe: plain HTTP in, verified TLS out, every refusal recorded.
//!
//! A proxy that runs alongside a tool which cannot do TLS, or does not verify servers. The tool speaks plain
//! HTTP to a local listener; the upstream connection uses TLS, and the server is verified before it sees one
//! byte of the request. Anything that fails verification is refused and recorded.
//!
//! # The path of a request
//!
//! ```text
//!  client ──▶ server ──▶ proxy ───▶ message   what is requested: Target
//!  (plain)    accept,      │──────▶ route     which upstream that is, and whether it is allowed
//!             limits,      │──────▶ connect   a pooled connection, or a new one:
//!             timeouts     │           │        resolve ─▶ dial ─▶ handshake ─▶ tls: the verdict
//!                          │           ▼
//!                          │        Verified ────────────────────────────────▶ upstream (TLS)
//!                          │        the only thing that a request is sent on
//!                          │
//!                          ├─ answered: the body streams to the client; at its end one access event
//!                          └─ failed: Failure ─▶ an answer by the listener's policy, or a reset
//!                                         ├─▶ audit: one event for each refusal
//!                                         └─▶ access event
//! ```
//!
//! `http1` reads and writes both sides of it. Settings come the other way: arguments, variables and file ─▶ `config`
//! (all or nothing) ─▶ `app` (binds, starts its worker threads, drains, and resets what does not end). Workers share
//! nothing that a request would wait for.
//!
//! # The modules
//!
//! A module uses the modules in its row, [`text`], and no others; `tests/it/rooms.rs` holds the table to it.
//!
//! | module | is | may use |
//! |---|---|---|
//! | [`buffer`] | bytes between a socket and its reader, and the free list they come from | |
//! | [`clock`] | the only source of the time of day | |
//! | [`deadline`] | a timer that is moved without registering it again | |
//! | [`text`] | text from outside: escaped, cut, without secrets | |
//! | [`html`] | pages for people: text in HTML, and their style | |
//! | [`terminal`] | what stdout and stderr can show: colours, characters, width | |
//! | [`transport`] | a byte stream, and how it is closed or reset | |
//! | [`http1`] | HTTP/1 heads, bodies and connections, client's and server's | `buffer`, `deadline`, `transport` |
//! | [`message`] | facts about HTTP messages; pure | `http1` |
//! | [`logging`] | the process's log on stderr, and the one thread that writes logs | `clock`, `terminal` |
//! | [`tls`] | who can be trusted: the decision, the evidence, the explanation; no sockets | `clock`, `message::authority` |
//! | [`metrics`] | what is counted and observed, for the admin listener and warnings | `clock`, `tls` |
//! | [`route`] | from a destination to its upstream, and the destination policy; pure | `message`, `tls` |
//! | [`rewrite`] | URLs in JSON documents of OpenStack services: found by shape, replaced in place; pure | |
//! | [`audit`] | what is recorded about refusals, and its summary | `clock`, `html`, `logging`, `metrics`, `route::upstream`, `terminal`, `tls`, `transport` |
//! | [`mint`] | a local CA, and certificates for clients that speak TLS | `clock`, `message::authority`, `tls` |
//! | [`connect`] | every outbound socket; only verified ones leave | `audit::usage`, `buffer`, `http1`, `message::authority`, `metrics`, `route::parent`, `route::policy`, `route::upstream`, `tls`, `transport` |
//! | [`proxy`] | one request from head to end, and every way it can fail | `audit`, `buffer`, `clock`, `connect`, `http1`, `logging`, `message`, `metrics`, `mint`, `rewrite`, `route`, `tls`, `transport` |
//! | [`server`] | listeners and client connections | `http1`, `metrics`, `mint::KeyKind`, `proxy`, `transport` |
//! | [`supervisor`] | what a service manager is told: sd_notify and its watchdog | `server::health` |
//! | [`expiry`] | what expires, and who is told of it | `audit`, `clock`, `metrics` |
//! | [`admin`] | the admin listener: health, metrics, status, the page | `clock`, `expiry`, `html`, `message::authority`, `metrics`, `proxy::settings`, `server` |
//! | [`config`] | settings, read and validated | `admin`, `audit`, `clock`, `connect`, `http1`, `logging`, `message`, `mint`, `proxy`, `rewrite`, `route`, `server`, `terminal`, `tls` |
//! | [`ready`] | the ready file, and `vouchsafe ready` | `config` |
//! | [`app`] | the wiring, and the life of the process | `admin`, `audit`, `clock`, `config`, `connect`, `expiry`, `logging`, `metrics`, `proxy`, `ready`, `reload`, `server`, `supervisor` |
//! | [`explain`] | `vouchsafe explain`: docs/failures.md by code | `config` |
//! | [`verify`] | `vouchsafe verify` | `clock`, `config`, `terminal`, `tls` |
//! | [`check`] | `vouchsafe check`: connects to servers as the proxy does | `clock`, `config`, `connect`, `http1`, `message`, `proxy::failure`, `route`, `terminal`, `tls` |
//! | [`bundle`] | `vouchsafe bundle` | `check::certificate`, `clock`, `config`, `mint::is_local_ca`, `terminal`, `tls` |
//! | [`pin`] | `vouchsafe pin` | `check`, `config`, `message::authority`, `tls`, `verify::chain` |
//! | [`redirect`] | `vouchsafe redirect-rules`: rules of the kernel, and whether they do what they say | `config`, `message::authority` |
//! | [`reload`] | newer settings in a running process | `bundle`, `config`, `metrics`, `mint::Minter`, `proxy::settings`, `supervisor` |
//! | [`demo`] | `vouchsafe demo` | `app`, `clock`, `config`, `connect::dial`, `http1`, `logging`, `proxy::settings`, `server`, `terminal` |
//! | [`isolate`] | a network namespace for a tool, in which every address leads to this proxy | `connect`, `message::authority`, `route::table` |
//! | [`exec`] | `vouchsafe exec` | `app`, `audit::tally`, `check`, `config`, `connect::resolve`, `isolate`, `logging`, `mint::LocalCa`, `proxy::settings`, `reload`, `route::table`, `server`, `terminal` |
//! | [`cli`] | the sub-commands, each to its end; used by `main` alone | `app`, `audit`, `bundle`, `check`, `clock`, `config`, `connect::ConnectLimits`, `demo`, `exec`, `explain`, `logging`, `mint`, `pin`, `ready`, `redirect`, `reload`, `server`, `supervisor`, `terminal`, `verify` |
//!
//! `docs/design.md` says why things are as they are, `docs/security.md` what they protect against, and
//! `docs/failures.md` what each refusal means.

pub mod admin;
pub mod app;
pub mod audit;
pub mod buffer;
pub mod bundle;
pub mod check;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connect;
pub mod deadline;
#[cfg(feature = "demo")]
pub mod demo;
pub mod exec;
pub mod expiry;
pub mod explain;
pub mod html;
pub mod http1;
pub mod isolate;
pub mod logging;
pub mod message;
pub mod metrics;
pub mod mint;
pub mod pin;
pub mod proxy;
pub mod ready;
pub mod redirect;
pub mod reload;
pub mod rewrite;
pub mod route;
pub mod server;
pub mod supervisor;
pub mod terminal;
pub mod text;
pub mod tls;
pub mod transport;
pub mod verify;
