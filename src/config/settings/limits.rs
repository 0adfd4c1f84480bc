//! Limits and time-outs, with their ranges and defaults.

use std::time::Duration;

use crate::{
    connect::{ConnectLimits, pool::PoolLimits},
    http1::head::HeadLimits,
    proxy::{ids, settings::ProxySettings},
    server::{limiter::ConnectionLimits, session::ClientLimits},
};

use super::{super::args::Span, Build};

impl Build<'_> {
    pub(super) fn limits(&mut self) -> (ProxySettings, ClientLimits, usize) {
        let options = self.options;
        let head = self.within("max_head", options.max_head, 8192, 1 << 20).unwrap_or(64 * 1024);
        let request_fields = self.within("max_fields", options.max_fields, 16, 10_000).unwrap_or(200);
        let response_fields =
            self.within("max_response_fields", options.max_response_fields, 16, 10_000).unwrap_or(500);
        let target = self.within("max_target", options.max_target, 256, 65_000).unwrap_or(16 * 1024);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.within("threads", options.threads, 1, 1024).unwrap_or(cores.min(4));
        let proxy = ProxySettings {
            request_body: span(options.request_body_timeout, 60),
            response_body: span(options.response_body_timeout, 60),
            response: span(options.response_timeout, 60),
            tunnel: span(options.tunnel_timeout, 3600),
            target_bytes: target,
            request_head: HeadLimits { bytes: head, fields: request_fields },
            response_head: HeadLimits { bytes: head, fields: response_fields },
            pool: PoolLimits { idle: span(options.pool_idle_timeout, 30), most: options.pool_size.unwrap_or(256) },
            pseudonym: ids::pseudonym(),
        };
        let client =
            ClientLimits { head: span(options.head_timeout, 10), keep_alive: span(options.keep_alive_timeout, 60) };
        (proxy, client, threads)
    }

    pub(super) fn connection_limits(&mut self) -> ConnectionLimits {
        let options = self.options;
        let all = self.within("max_connections", options.max_connections, 1, 1_000_000);
        let listener = self.within("max_listener_connections", options.max_listener_connections, 1, 1_000_000);
        ConnectionLimits { all, listener, wait: span(options.connection_wait, 5) }
    }

    pub(super) fn connect_limits(&self) -> ConnectLimits {
        let options = self.options;
        ConnectLimits { connect: span(options.connect_timeout, 5), handshake: span(options.tls_timeout, 10) }
    }

    /// The number, if it is set and within its range, both ends included.
    fn within(&mut self, key: &str, number: Option<usize>, least: usize, most: usize) -> Option<usize> {
        let number = number?;
        if !(least..=most).contains(&number) {
            self.problems.push(format!("{} `{number}`: not within {least}-{most}", self.merged.name(key)));
            return None;
        }
        Some(number)
    }
}

/// A time, with its default in seconds.
pub(super) fn span(configured: Option<Span>, seconds: u64) -> Duration {
    configured.map_or(Duration::from_secs(seconds), |span| span.0)
}
