//! The ways in which making, writing or serving a certificate can fail.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// What went wrong, in this package's own words.
#[derive(Debug)]
pub enum Error {
    /// A directory already holds an authority, which is not overwritten.
    AlreadyThere(PathBuf),
    /// A piece of DER is not what this package expects it to be.
    Der(&'static str),
    /// A file or socket could not be used.
    Io {
        /// What was being done, and to what.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The certificate library declined.
    Make(rcgen::Error),
    /// A file does not hold the PEM blocks that it should.
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The TLS library declined.
    Tls(rustls::Error),
    /// No case has this name.
    UnknownCase(String),
}

impl Error {
    /// For `map_err` on anything that touches a file or a socket.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyThere(path) => write!(
                f,
                "`{}` already exists and is not overwritten\n  hint: choose another directory, or remove this authority first",
                path.display()
            ),
            Self::Der(what) => write!(f, "unexpected DER: {what}"),
            Self::Io { doing, source } => write!(f, "cannot {doing}: {source}"),
            Self::Make(source) => write!(f, "cannot make the certificate: {source}"),
            Self::Pem { path, wanted } => write!(f, "no {wanted} in `{}`", path.display()),
            Self::Tls(source) => write!(f, "cannot set up TLS: {source}"),
            Self::UnknownCase(id) => {
                write!(f, "no case is called `{id}`\n  hint: `certs-dev list` shows them all")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Make(source) => Some(source),
            Self::Tls(source) => Some(source),
            Self::AlreadyThere(_) | Self::Der(_) | Self::Pem { .. } | Self::UnknownCase(_) => None,
        }
    }
}

impl From<rcgen::Error> for Error {
    fn from(source: rcgen::Error) -> Self {
        Self::Make(source)
    }
}

impl From<rustls::Error> for Error {
    fn from(source: rustls::Error) -> Self {
        Self::Tls(source)
    }
}
