//! `vouchsafe demo`: a temporary two-tier CA and a set of good and bad servers, a proxy in front of them, and plain
//! HTTP through it. It shows in a minute what passes, what is refused, and why.
//!
//! Everything is on 127.0.0.1 and in one temporary directory, and is removed at the end.

mod isolated;

use std::{
    fmt, fs,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anstyle::Style;
use certs_dev::{Bundle, Case, Counters, Expected, Gallery, Server};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout},
};

use crate::{
    app::{App, AppError, Running},
    clock::Clock,
    config::{
        args::{Options, RunArgs, Span},
        environment::Environment,
        error::ConfigError,
        settings::Settings,
        watch::Files,
    },
    connect::dial::dial,
    http1::head::{HeadLimits, HeadScan, ResponseHead},
    logging::{LogLevel, writer},
    proxy::settings::BoundAddress,
    server::{Stop, socket::InheritedSockets},
    terminal::{ADVICE, BAD, GOOD, TITLE},
};

/// Good ones first, then the most frequent mistakes, then those that many tools accept.
const SHOWN: [Case; 14] = [
    Case::Good,
    Case::GoodIp,
    Case::GoodWildcard,
    Case::SelfSignedInBundleCa,
    Case::Expired,
    Case::WrongName,
    Case::MissingIntermediate,
    Case::UnknownRoot,
    Case::SelfSignedUnknownCa,
    Case::CnOnly,
    Case::IpAsDns,
    Case::WrongPurpose,
    Case::WeakRsa,
    Case::IssuerMayNotSign,
];

/// Why the demonstration failed.
#[derive(Debug)]
pub enum DemoError {
    /// The proxy could not start.
    App(AppError),
    /// A certificate or a server could not be created.
    Certificates(certs_dev::Error),
    /// The proxy's settings are wrong.
    Config(ConfigError),
    /// A request through the proxy did not work.
    Http(String),
    /// A file or a socket.
    Io(io::Error),
    /// The verdict on this many servers was wrong.
    WrongVerdict(usize),
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::App(error) => error.fmt(f),
            Self::Certificates(error) => write!(f, "cannot create the servers: {error}"),
            Self::Config(error) => error.fmt(f),
            Self::Http(error) => write!(f, "a request through the proxy failed: {error}"),
            Self::Io(error) => write!(f, "the demonstration failed: {error}"),
            Self::WrongVerdict(count) => write!(f, "the verdict on {count} servers was wrong; this is a defect"),
        }
    }
}

impl std::error::Error for DemoError {}

impl From<certs_dev::Error> for DemoError {
    fn from(error: certs_dev::Error) -> Self {
        Self::Certificates(error)
    }
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

struct Exhibit {
    case: Case,
    upstream: String,
    address: SocketAddr,
    counters: Arc<Counters>,
}

/// Runs the demonstration; with `keep`, servers and proxy run until Ctrl-C.
///
/// # Errors
/// [`DemoError`], also for a wrong verdict on a server.
pub async fn run(keep: bool, to: &mut impl Write) -> Result<(), DemoError> {
    let directory = tempfile::Builder::new().prefix("vouchsafe-demo-").tempdir()?;
    let gallery = Gallery::new(Clock::System.now())?;
    let bundle = directory.path().join("ca-bundle.pem");
    let audit = directory.path().join("audit.jsonl");
    fs::write(&bundle, gallery.bundle_pem(Bundle::Plus))?;
    let mut exhibits = Vec::new();
    for case in SHOWN {
        let server = Server::bind(([127, 0, 0, 1], 0).into(), &gallery.identity(case)?, case.about()).await?;
        let address = server.local_addr();
        let upstream = format!("{}:{}", gallery.name(case), address.port());
        exhibits.push(Exhibit { case, upstream, address, counters: server.counters() });
        tokio::spawn(server.run());
    }
    let app = App::bind(settings(&exhibits, &bundle, &audit)?, InheritedSockets::default()).map_err(DemoError::App)?;
    let mut running = Running::start(app, None).map_err(DemoError::App)?;
    let listeners: Vec<_> = running.addresses().iter().filter_map(BoundAddress::tcp).collect();

    writeln!(to, "A two-tier CA, {} TLS servers and one proxy, all on 127.0.0.1.", exhibits.len())?;
    writeln!(to, "A request over plain HTTP to each server, through the proxy:\n")?;
    let route = if keep { "ROUTE                   " } else { "" };
    writeln!(to, "{TITLE}  STATUS  {route}{:<CODE$}  THE SERVER{TITLE:#}", "CODE")?;
    let (mut wrong, mut example) = (0, None);
    for (exhibit, listener) in exhibits.iter().zip(&listeners) {
        let answer = get(*listener).await?;
        // Its event is written by then.
        writer::finish();
        let event = last_event(&audit, &exhibit.upstream)?;
        let code = event.as_ref().and_then(|event| event["error.code"].as_str());
        show(exhibit, keep.then_some(*listener), answer.status, code, to)?;
        let is_right = match exhibit.case.expected() {
            Expected::Accept => answer.status == 200 && code.is_none(),
            Expected::Refuse(expected) => answer.status == 403 && code == Some(expected),
        };
        wrong += usize::from(!is_right);
        if exhibit.case == Case::Expired {
            example = event.map(|event| (answer, event));
        }
    }
    let refused = exhibits.iter().filter(|exhibit| exhibit.case.expected() != Expected::Accept);
    let bytes: u64 = refused.clone().map(|exhibit| exhibit.counters.application_bytes()).sum();
    writeln!(
        to,
        "\n{} passed, {} refused; the refused servers received {bytes} bytes of the requests.",
        exhibits.len() - refused.clone().count(),
        refused.count()
    )?;
    if let Some((answer, event)) = &example {
        in_full(answer, event, to)?;
    }
    wrong += isolated::show(&exhibits, directory.path(), &bundle, to).await?;
    // Before anybody reads that a signal ends it.
    let end = keep.then(end_signal).transpose()?;
    try_next(keep.then_some((listeners.as_slice(), audit.as_path(), bundle.as_path())), to)?;
    if let Some(end) = end {
        end.await;
    }
    running.stop(Stop::Drain);
    running.join().await.map_err(DemoError::App)?;
    if wrong > 0 || bytes > 0 {
        return Err(DemoError::WrongVerdict(wrong));
    }
    Ok(())
}

/// A signal that asks for the end: Ctrl-C, `kill`, or a terminal that closes. It is received from now on.
fn end_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// The width of the longest code that is shown.
const CODE: usize = "self_signed_not_in_bundle".len();

/// The row of a server; with the listener that leads to it, if it goes on.
fn show(
    exhibit: &Exhibit,
    listener: Option<SocketAddr>,
    status: u16,
    code: Option<&str>,
    to: &mut impl Write,
) -> io::Result<()> {
    let (mark, look) = mark(status);
    let route = listener.map_or_else(String::new, |listener| format!("http://{listener:<15}  "));
    let (code, about) = (code.unwrap_or("-"), exhibit.case.about());
    writeln!(to, "{look}{mark} {status:<6}{look:#}  {route}{code:<CODE$}  {about}")
}

fn mark(status: u16) -> (char, Style) {
    if status == 200 { ('✔', GOOD) } else { ('✘', BAD) }
}

/// All that is known of one refusal.
fn in_full(answer: &Answer, event: &Value, to: &mut impl Write) -> io::Result<()> {
    let text = |key: &str| event[key].as_str().unwrap_or_default();
    writeln!(to, "\n{TITLE}What the tool was told when the certificate had expired{TITLE:#}")?;
    writeln!(to, "  {}", answer.body.trim_end())?;
    writeln!(to, "{TITLE}What the log and the audit log say about it{TITLE:#}")?;
    writeln!(to, "  {}: {}", text("error.code"), text("error.message"))?;
    writeln!(to, "  {ADVICE}hint:{ADVICE:#} {}", text("vouchsafe.hint"))
}

/// What to do with what was seen; if it goes on, with its listeners, its audit log and its bundle.
fn try_next(running: Option<(&[SocketAddr], &Path, &Path)>, to: &mut impl Write) -> io::Result<()> {
    writeln!(to, "\n{TITLE}Try next{TITLE:#}")?;
    if let Some((listeners, audit, bundle)) = running {
        if let Some(expired) = listeners.get(4) {
            writeln!(to, "  curl -i http://{expired}/")?;
        }
        writeln!(to, "  vouchsafe audit {}", audit.display())?;
        writeln!(to, "  vouchsafe bundle {}", bundle.display())?;
        return writeln!(to, "Everything runs until Ctrl-C.");
    }
    for (command, what) in [
        ("vouchsafe explain expired", "what a code means, and what to do"),
        ("vouchsafe demo --keep", "the same, kept running until Ctrl-C, to try with curl"),
        ("vouchsafe check --system-roots=true HOST:PORT", "your own server; nothing is sent to it"),
        ("vouchsafe exec --help", "your own tool behind the proxy, unchanged"),
    ] {
        writeln!(to, "  {command:<46} {what}")?;
    }
    Ok(())
}

/// The settings that the same flags would make.
fn settings(exhibits: &[Exhibit], bundle: &Path, audit: &Path) -> Result<Settings, DemoError> {
    let options = Options {
        route: exhibits.iter().map(|exhibit| format!("127.0.0.1:0=https://{}", exhibit.upstream)).collect(),
        connect_to: exhibits.iter().map(|exhibit| format!("{}={}", exhibit.upstream, exhibit.address)).collect(),
        ca_bundle: vec![bundle.to_owned()],
        audit_log: Some(audit.to_owned()),
        // So that `audit --event` finds what somebody has just tried.
        fold_repeats: Some(Span(Duration::from_secs(1))),
        log_level: Some(LogLevel::Error),
        threads: Some(1),
        ..Options::default()
    };
    let args = RunArgs { options, ..RunArgs::default() };
    Settings::of(args, &Environment::default(), &mut Files::default()).map_err(DemoError::Config)
}

/// What a client got.
struct Answer {
    status: u16,
    body: String,
}

/// Plain HTTP, as an old tool speaks it.
async fn get(listener: SocketAddr) -> Result<Answer, DemoError> {
    const LIMIT: Duration = Duration::from_secs(20);
    let failed = |error: &dyn fmt::Display| DemoError::Http(error.to_string());
    let (mut tcp, _) = dial(&[listener], Instant::now() + LIMIT, LIMIT).await.map_err(|error| failed(&error))?;
    let mut response = Vec::new();
    let exchange = async {
        let request =
            format!("GET / HTTP/1.1\r\nHost: {listener}\r\nX-Auth-Token: a-secret\r\nConnection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await?;
        tcp.read_to_end(&mut response).await
    };
    timeout(LIMIT, exchange).await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let limits = HeadLimits { bytes: response.len() + 1, fields: 100 };
    let head = ResponseHead::read(&response, &mut HeadScan::default(), limits, false);
    let (head, length) = head.map_err(|error| failed(&error))?.ok_or_else(|| failed(&"the response is cut"))?;
    let body = response.get(length..).unwrap_or_default();
    Ok(Answer { status: head.status, body: String::from_utf8_lossy(body).into_owned() })
}

fn last_event(audit: &Path, upstream: &str) -> Result<Option<Value>, DemoError> {
    let text = fs::read_to_string(audit)?;
    let events = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(events.into_iter().find(|event| event["vouchsafe.upstream"] == upstream))
}
