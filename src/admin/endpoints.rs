//! The endpoints, and the fields that every response has.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};

use crate::{
    metrics::expose::{self, Format},
    server::health::Phase,
};

use super::{AdminAction, AdminContext, Arrival, guard, page::Page, status::Status};

/// What answers requests.
#[derive(Debug)]
pub(super) struct Endpoints {
    context: AdminContext,
    page: Page,
}

/// Probes of Kubernetes wait for a second, unless they are told otherwise.
const WORKERS_ANSWER_WITHIN: Duration = Duration::from_millis(800);

/// What a request that changes something has to say. A web page of another origin cannot, without asking first.
const CHANGE_FIELD: (&str, &[u8]) = ("x-vouchsafe", b"1");

/// For responses that are no page.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

const PLAIN: &str = "text/plain; charset=utf-8";

impl Endpoints {
    pub(super) fn new(context: AdminContext) -> Self {
        Self { context, page: Page::new() }
    }

    /// Answers a request by its head; no body is needed.
    pub(super) async fn answer(&self, request: &Parts, arrival: Arrival) -> Response<String> {
        let mut response = match guard::check(request, &self.context.policy, arrival) {
            Ok(()) => self.route(request, arrival).await,
            Err(forbidden) => refusal(&forbidden),
        };
        let fields = response.headers_mut();
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            fields.insert(name, HeaderValue::from_static(value));
        }
        fields.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(NO_PAGE));
        response
    }

    async fn route(&self, request: &Parts, arrival: Arrival) -> Response<String> {
        let is_read = matches!(request.method, Method::GET | Method::HEAD);
        match request.uri.path() {
            "/reload" | "/drain" if self.context.policy.read_only => read_only(),
            "/reload" => self.change(request, arrival, AdminAction::Reload),
            "/drain" => self.change(request, arrival, AdminAction::Drain),
            "/livez" | "/readyz" | "/metrics" | "/status" | "/" if !is_read => not_allowed("GET, HEAD"),
            "/livez" => self.live().await,
            "/readyz" => self.ready(request.uri.query() == Some("verbose")),
            "/metrics" => self.metrics(request),
            "/status" | "/" if self.context.policy.read_only => read_only(),
            "/status" => match serde_json::to_string_pretty(&self.status()) {
                Ok(json) => respond(StatusCode::OK, "application/json", json + "\n"),
                Err(_) => defect(),
            },
            "/" => self.page.show(&self.status()).unwrap_or_else(|_| defect()),
            _ => respond(StatusCode::NOT_FOUND, PLAIN, "there is no such page\n".into()),
        }
    }

    fn status(&self) -> Status {
        Status::of(&self.context.metrics, self.context.health.phase())
    }

    /// Whether every worker's event loop answers.
    async fn live(&self) -> Response<String> {
        let silent = self.context.health.silent_workers(WORKERS_ANSWER_WITHIN).await;
        if silent.is_empty() {
            return respond(StatusCode::OK, PLAIN, "ok\n".into());
        }
        let mut text = String::new();
        for worker in silent {
            // Writing to a string does not fail.
            let _ = writeln!(text, "worker {worker} has not answered within {} ms", WORKERS_ANSWER_WITHIN.as_millis());
        }
        respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, text)
    }

    /// Whether new connections should come here. The state of upstreams does not matter: one bad upstream would take
    /// all others away.
    fn ready(&self, verbose: bool) -> Response<String> {
        let phase = self.context.health.phase();
        let bundles = self.context.metrics.facts().bundles.len();
        let checks = [
            ("listeners are bound and accept", phase != Phase::Starting),
            ("CA bundles are loaded", bundles > 0),
            ("the process is not draining", phase != Phase::Draining),
        ];
        let is_ready = checks.iter().all(|(_, holds)| *holds);
        let mut text = String::new();
        for (check, holds) in checks {
            let mark = if holds { '+' } else { '-' };
            if verbose || !holds {
                let _ = writeln!(text, "[{mark}] {check}");
            }
        }
        if verbose {
            for upstream in self.status().upstreams {
                let _ = writeln!(text, "[i] {}: {}", upstream.upstream, upstream.verdict);
            }
        }
        text.push_str(if is_ready { "ok\n" } else { "not ready\n" });
        respond(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, PLAIN, text)
    }

    fn metrics(&self, request: &Parts) -> Response<String> {
        let accept = request.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        let format = Format::accepted(accept.unwrap_or_default());
        match expose::metrics(&self.context.metrics, format) {
            Ok(text) => respond(StatusCode::OK, format.content_type(), text),
            Err(_) => defect(),
        }
    }

    /// Requests a change of the process. Anybody on the host may connect by TCP; who may use a UNIX socket is up to its
    /// permissions.
    fn change(&self, request: &Parts, arrival: Arrival, action: AdminAction) -> Response<String> {
        if request.method != Method::POST {
            return not_allowed("POST");
        }
        if arrival != Arrival::Unix {
            let text = "changes are taken by a UNIX socket only: --admin unix:PATH\n";
            return respond(StatusCode::FORBIDDEN, PLAIN, text.into());
        }
        let (name, value) = CHANGE_FIELD;
        if request.headers.get(name).is_none_or(|found| found.as_bytes() != value) {
            return respond(StatusCode::FORBIDDEN, PLAIN, "the field `X-Vouchsafe: 1` is missing\n".into());
        }
        match self.context.actions.send(action) {
            Ok(()) => respond(StatusCode::ACCEPTED, PLAIN, "requested\n".into()),
            Err(_) => respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the process is about to end\n".into()),
        }
    }
}

pub(super) fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn refusal(forbidden: &guard::Forbidden) -> Response<String> {
    let (status, text) = match forbidden {
        guard::Forbidden::Host(host) => (
            StatusCode::MISDIRECTED_REQUEST,
            format!("Host `{host}` is neither a loopback name nor this address; --admin-host can add it\n"),
        ),
        guard::Forbidden::NoHost => (StatusCode::BAD_REQUEST, "a Host field is expected\n".into()),
        guard::Forbidden::CrossSite => {
            (StatusCode::FORBIDDEN, "a web page of another site asked for it; open it in a tab of its own\n".into())
        }
    };
    respond(status, PLAIN, text)
}

fn read_only() -> Response<String> {
    let text = "this admin listener is read-only: it has /livez, /readyz and /metrics\n";
    respond(StatusCode::FORBIDDEN, PLAIN, text.into())
}

fn not_allowed(methods: &'static str) -> Response<String> {
    let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, format!("expected: {methods}\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

/// What cannot happen.
fn defect() -> Response<String> {
    respond(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "the answer cannot be written; this is a defect\n".into())
}
