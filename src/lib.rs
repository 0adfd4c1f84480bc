//! vouchsafe: plain HTTP in, verified TLS out, every refusal recorded.
//!
//! A proxy that stands beside a tool which cannot do TLS, or does it without looking. The tool speaks plain
//! HTTP to a local listener; the upstream is opened over TLS, and has proved who it is before it sees one
//! byte of the request. What does not hold is refused, and a record says why.
//!
//! # The way of a request
//!
//! ```text
//!  client ──▶ server ──▶ proxy ───▶ message   what is asked for: Target
//!  (plain)    accept,      │──────▶ route     whom that means, and may one go there: Upstream
//!             limits,      │──────▶ connect   a kept connection, or a new one:
//!             time-outs    │           │        resolve ─▶ dial ─▶ handshake ─▶ tls: the verdict
//!                          │           ▼
//!                          │        Verified ────────────────────────────────▶ upstream (TLS)
//!                          │        the only thing that a request is sent on
//!                          │
//!                          ├─ answered: the body streams down; at its end one access event
//!                          └─ not: Failure ─▶ an answer by the listener's policy, or a reset
//!                                         ├─▶ audit: one event for each refused handshake
//!                                         └─▶ access event
//! ```
//!
//! Settings come the other way: arguments, variables and file ─▶ `config` (whole or not at all) ─▶ `app`
//! (binds, starts its worker threads, drains, and resets what does not end). A worker shares nothing with the
//! others that a request would wait for.
//!
//! # The rooms
//!
//! A room uses the rooms named beside it, [`text`], and no others. The names are links to what each is for.
//!
//! | room | is | may use |
//! |---|---|---|
//! | [`clock`] | the only door to the time of day | |
//! | [`text`] | text that is not ours: escaped, cut, without secrets | |
//! | [`message`] | facts about HTTP messages; pure | |
//! | [`logging`] | the process's log on stderr, and the one thread that writes logs | `clock` |
//! | [`tls`] | who can be trusted: the decision, the evidence, the explanation; no sockets | `clock`, `message::authority` |
//! | [`route`] | from a destination to its upstream, and the destination policy; pure | `message`, `tls` |
//! | [`connect`] | every outbound socket; only verified ones leave | `message`, `route::upstream`, `tls` |
//! | [`audit`] | what is recorded about refusals, and summed up | `clock`, `logging`, `route::upstream`, `tls` |
//! | [`proxy`] | the way of one request, and all its ends | `audit`, `clock`, `connect`, `message`, `route`, `tls` |
//! | [`server`] | the doors inward: listeners and client connections | `message`, `proxy` |
//! | [`config`] | what was said, made into what is true | `clock`, `tls`, and the settings of all other rooms above |
//! | [`app`] | the wiring, and the life of the process | `audit`, `clock`, `config`, `connect`, `proxy`, `server` |
//! | [`reload`] | newer settings while it runs | `bundle`, `config`, `proxy` |
//! | [`demo`] | `vouchsafe demo` | `app`, `clock`, `config`, `connect::dial`, `logging`, `server` |
//! | [`verify`] | `vouchsafe verify` | `clock`, `config`, `tls` |
//! | [`check`] | `vouchsafe check`: servers met as the proxy meets them | `clock`, `config`, `connect`, `message::authority`, `proxy::failure`, `route`, `tls` |
//! | [`bundle`] | `vouchsafe bundle` | `check::certificate`, `clock`, `config`, `tls` |
//! | [`pin`] | `vouchsafe pin` | `check`, `config`, `message::authority`, `tls`, `verify::chain` |
//! | [`explain`] | `vouchsafe explain`: docs/failures.md by code | `config`, `text` |
//! | [`cli`] | the sub-commands, each to its end; used by `main` alone | `app`, `audit`, `bundle`, `check`, `clock`, `config`, `demo`, `explain`, `logging`, `pin`, `reload`, `server::Stop`, `text`, `verify` |
//!
//! `docs/design.md` says why things are as they are, `docs/security.md` what they protect against, and
//! `docs/failures.md` what each refusal means.

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
pub mod demo;
pub mod explain;
pub mod http1;
pub mod logging;
pub mod message;
pub mod pin;
pub mod proxy;
pub mod reload;
pub mod route;
pub mod server;
pub mod text;
pub mod tls;
pub mod transport;
pub mod verify;
