//! `vouchsafe pin`: fingerprints of certificates and of their keys, as lines for the configuration file.
//!
//! What is printed to stdout is TOML: everything but the settings is a comment. The certificates of a server that is
//! not trusted never get there.

use std::{fmt, path::Path};

use serde_json::{Value, json};

use crate::{
    check::{self, report::Report},
    config::{args::PinArgs, error::ConfigError, load, watch::Files},
    message::authority::Host,
    tls::{fingerprint::Fingerprint, presented::Certificate},
    verify::chain,
};

/// The certificates of a file or of a server.
#[derive(Clone, Debug)]
pub struct Pins {
    asked: String,
    /// The value of `of`.
    of: Option<String>,
    source: Source,
    certificates: Vec<Certificate>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File,
    /// A server that is not trusted, and why.
    Refused(String),
    Trusted,
}

/// Reads files and connects to servers, and reports each, the files first.
///
/// # Errors
/// [`ConfigError`], before anything is dialled.
pub async fn pin(args: PinArgs, warn: impl Fn(&str), mut tell: impl FnMut(&Pins)) -> Result<(), ConfigError> {
    let (paths, urls): (Vec<_>, Vec<_>) = args.of.into_iter().partition(|of| is_file(of));
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match load::named(&mut Files::at_start(), "FILE", Path::new(&path))
            .and_then(|(name, bytes)| chain("FILE", &name, &bytes))
        {
            Ok(certificates) => found.push(Pins::of_file(path, certificates)),
            Err(why) => problems.push(why),
        }
    }
    ConfigError::unless_empty(problems)?;
    // Without a server nothing is verified, so no bundle is needed.
    let servers = if urls.is_empty() {
        None
    } else {
        let config = check::config(args.run, &warn)?;
        let targets = check::targets(&config, urls, &warn)?;
        Some((config, targets))
    };
    found.iter().for_each(&mut tell);
    if let Some((config, targets)) = servers {
        check::probe_all(config.connect, targets, check::in_order(|report| tell(&Pins::of_server(report)))).await;
    }
    Ok(())
}

/// Whether a file is meant, and not a server.
fn is_file(text: &str) -> bool {
    let ends = |suffix: &&str| text.to_ascii_lowercase().ends_with(*suffix);
    !text.contains("://")
        && (Path::new(text).exists() || text.contains('/') || [".pem", ".crt", ".cer"].iter().any(ends))
}

impl Pins {
    /// The certificates of a file.
    pub fn of_file(path: String, certificates: Vec<Certificate>) -> Self {
        let own = certificates.first().and_then(|own| own.facts.as_ref().ok());
        let is_name = |name: &&String| matches!(name.parse(), Ok(Host::Name(_)));
        let of = own.and_then(|own| own.dns_names.iter().find(is_name).cloned());
        Self { asked: path, of, source: Source::File, certificates }
    }

    /// The certificates of the path that a server was trusted by, or all that it sent if it was not.
    pub fn of_server(report: &Report) -> Self {
        let source = match report.problem().filter(|_| !report.is_trusted()) {
            Some(problem) => Source::Refused(problem),
            None => Source::Trusted,
        };
        let certificates = report.believed().into_iter().cloned().collect();
        let of = Some(report.upstream().authority());
        Self { asked: report.asked().to_owned(), of, source, certificates }
    }

    /// Whether the server is not trusted.
    pub fn is_refused(&self) -> bool {
        matches!(self.source, Source::Refused(_))
    }

    /// One JSON object; `docs/check.md` has its fields.
    pub fn json(&self) -> Value {
        let certificate = |certificate: &Certificate| {
            let pin = spki(certificate);
            json!({
                "subject": certificate.name(),
                "pin": pin.map(|pin| pin.to_string()),
                "pin_base64": pin.map(|pin| pin.base64()),
                "identity": Fingerprint::of(&certificate.der).to_string(),
            })
        };
        let (source, problem) = match &self.source {
            Source::File => ("file", None),
            Source::Refused(problem) => ("refused", Some(problem)),
            Source::Trusted => ("trusted", None),
        };
        json!({
            "asked": self.asked,
            "source": source,
            "message": problem,
            "of": self.of,
            "certificates": self.certificates.iter().map(certificate).collect::<Vec<_>>(),
        })
    }
}

fn spki(certificate: &Certificate) -> Option<Fingerprint> {
    certificate.facts.as_ref().ok().map(|facts| Fingerprint::of(&facts.spki))
}

/// Of a file or a server that is trusted, TOML; of another, a warning and comments.
impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asked = crate::text::escape(&self.asked);
        match &self.source {
            Source::File => writeln!(f, "# {asked}")?,
            Source::Trusted => writeln!(f, "# {asked}: trusted")?,
            Source::Refused(why) if self.certificates.is_empty() => return writeln!(f, "error: `{asked}`: {why}"),
            Source::Refused(why) => writeln!(
                f,
                "warning: `{asked}` is NOT VERIFIED: {why}\n  Anybody may have sent these certificates. Confirm them with the owner of the server before you pin one."
            )?,
        }
        for certificate in &self.certificates {
            writeln!(f, "# {}", certificate.name())?;
            if let Some(pin) = spki(certificate) {
                writeln!(f, "#   pin = \"{pin}\"\n#   curl --pinnedpubkey {}", pin.base64())?;
            }
            writeln!(f, "#   identity = \"{}\"", Fingerprint::of(&certificate.der))?;
        }
        if self.is_refused() {
            return Ok(());
        }
        match &self.of {
            Some(of) => writeln!(f, "[[upstream]]\nof = \"{of}\"\npins = [")?,
            None => writeln!(f, "[[upstream]]\nof = \"HOST:PORT\" # the server\npins = [")?,
        }
        // A pin on a CA's key permits whatever that CA issues, so it is offered but not active.
        for (place, certificate) in self.certificates.iter().enumerate() {
            let Some(pin) = spki(certificate) else { continue };
            let is_ca = certificate.facts.as_ref().is_ok_and(|facts| facts.is_ca == Some(true));
            let what = if is_ca { "any certificate of this CA" } else { "only this key" };
            let off = if place == 0 { "" } else { "# " };
            writeln!(f, "  {off}\"{pin}\", # {}: {what}", certificate.name())?;
        }
        writeln!(f, "]\n")
    }
}
