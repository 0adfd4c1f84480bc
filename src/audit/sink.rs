//! Where audit events go: to stderr, and to a file if one was named.
//!
//! A worker leaves an event and goes on: it never waits. The writer thread folds and writes. What it cannot take is
//! lost, and the log and the audit file report that: a disk that hangs, or a pipe that nobody reads, must not
//! stop a request.
//!
//! A refusal stands whether or not it can be written. A file that cannot be written is reported on stderr, tried again
//! at every event and every second, and its recovery is reported too. It is opened again when it was renamed or removed
//! (log rotation), and on request.

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use tracing::error;

use super::{
    chains::Chains,
    event::{AuditEvent, PolicyRefused, Refused},
    file::AuditFile,
    log::AuditLog,
    notice::{CertificateChanged, ExpiryNotice},
    tally::Tally,
    text::Form,
};
use crate::{
    logging::writer::{self, Log},
    metrics::AuditCounters,
    tls::presented::{Certificate, PresentedChain},
};

/// Where audit events go, alongside stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// A file for them.
    pub file: Option<PathBuf>,
    /// For how long repeats are counted instead of written.
    pub fold: Duration,
    /// A directory for the chains of refused servers.
    pub chains: Option<PathBuf>,
}

/// Why there is no audit sink.
#[derive(Debug)]
pub enum AuditError {
    /// What of the settings cannot be used: the flag, the path, and why.
    Path(&'static str, PathBuf, io::Error),
    /// There is no thread for the writer.
    Thread(io::Error),
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(flag, path, error) => {
                write!(f, "{flag} `{}`: {error}", path.display())
            }
            Self::Thread(error) => write!(f, "the system refuses a thread for the log: {error}"),
        }
    }
}

impl std::error::Error for AuditError {}

/// The audit sink, as the workers have it.
#[derive(Debug)]
pub struct AuditSink {
    log: Arc<AuditLog>,
    keeps_chains: bool,
    tally: Tally,
    counters: Arc<AuditCounters>,
}

/// For how long the end waits for what is still to be written.
const LAST_WORD: Duration = Duration::from_secs(1);

impl AuditSink {
    /// A sink; file and directory are opened here so that a wrong path shows at start.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn new(copy: Option<Form>, settings: &AuditSettings) -> Result<Self, AuditError> {
        let counters = Arc::<AuditCounters>::default();
        let file = settings.file.as_ref().map(|path| {
            let opened = AuditFile::open(path, counters.clone());
            opened.map_err(|error| AuditError::Path("--audit-log", path.clone(), error))
        });
        let chains = settings.chains.as_ref().map(|path| {
            Chains::open(path).map_err(|error| AuditError::Path("--save-failed-chains", path.clone(), error))
        });
        let (file, chains) = (file.transpose()?, chains.transpose()?);
        writer::start().map_err(AuditError::Thread)?;
        let keeps_chains = chains.is_some();
        let log = Arc::new(AuditLog::new(copy, settings.fold, file, chains, counters.clone()));
        let run: Weak<dyn Log> = Arc::downgrade(&(log.clone() as Arc<dyn Log>));
        writer::add(run);
        Ok(Self { log, keeps_chains, tally: Tally::default(), counters })
    }

    /// The requests that did not get a whole response, counted.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What is counted about the events.
    pub fn counters(&self) -> &Arc<AuditCounters> {
        &self.counters
    }

    /// Records a refused or bypassed handshake, or counts it where it repeats another. Never waits.
    pub fn record(&self, event: &Refused<'_>) {
        let presented = &event.refused.presented;
        let chain = (self.keeps_chains && !presented.is_empty()).then(|| presented.clone());
        self.record_event(event.json(), chain);
    }

    /// Records a refusal that is not about a certificate, or counts it where it repeats another. Never waits.
    pub fn record_policy(&self, event: &PolicyRefused<'_>) {
        self.record_event(event.json(), None);
    }

    /// Records that something expires. Never waits.
    pub fn record_expiry(&self, event: &ExpiryNotice<'_>) {
        self.record_event(event.json(), None);
    }

    /// Records that a server has another certificate. Never waits.
    pub fn record_change(&self, event: &CertificateChanged<'_>) {
        self.record_event(event.json(), None);
    }

    pub(super) fn record_event(&self, event: AuditEvent, chain: Option<PresentedChain>) {
        self.counters.events.add(1);
        // In memory an event takes about this much; what is in it is bounded.
        let listed = event.get("vouchsafe.chain").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
        let held = chain.iter().flat_map(|chain| chain.iter()).map(Certificate::size);
        let size = 4096 + 2048 * listed + held.sum::<usize>();
        match self.log.leave(event, chain, size) {
            None => writer::poke(),
            Some(lost) if lost == 1 || lost.is_multiple_of(1000) => error!(
                lost,
                hint = "see whether the disk of the audit log, or of the directory for chains, hangs",
                "audit events are lost: those before them are not written yet; refusals stand"
            ),
            Some(_) => {}
        }
    }

    /// Writes all that was folded, as far as that takes no longer than a second; what comes later is not folded any
    /// more.
    pub fn close(&self) {
        self.log.begin_end();
        writer::poke();
        let missing = self.log.wait_for_end(LAST_WORD);
        if missing > 0 {
            error!(missing, "audit events are lost: they could not be written before the end");
        }
    }

    /// Opens the file again, behind all events that were recorded before.
    pub fn reopen(&self) {
        self.log.reopen();
        writer::poke();
    }
}
