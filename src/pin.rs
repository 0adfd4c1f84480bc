//! `vouchsafe pin`: fingerprints of certificates and of their keys, as lines for the configuration file.
//!
//! What is printed to stdout is TOML: what is not a setting is a comment. What a server presented that is not
//! trusted never gets there.

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
    /// What `of` is to say.
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

/// Reads files and meets servers; tells of each, the files first.
///
/// # Errors
/// [`ConfigError`], before anything is dialled.
pub async fn pin(args: PinArgs, warn: impl Fn(&str), mut tell: impl FnMut(&Pins)) -> Result<(), ConfigError> {
    let (paths, urls): (Vec<_>, Vec<_>) = args.of.into_iter().partition(|of| is_file(of));
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        match load::named(&mut Files::waiting(), "FILE", Path::new(&path))
            .and_then(|(name, bytes)| chain("FILE", &name, &bytes))
        {
            Ok(certificates) => found.push(Pins::of_file(path, certificates)),
            Err(why) => problems.push(why),
        }
    }
    ConfigError::unless_empty(problems)?;
    // Without a server there is nobody to believe, so nobody has to say whom.
    let servers = if urls.is_empty() {
        None
    } else {
        let outward = check::outward(args.run, warn)?;
        let targets = check::targets(&outward.routes, urls)?;
        Some((outward, targets))
    };
    found.iter().for_each(&mut tell);
    if let Some((outward, targets)) = servers {
        check::meet_all(&outward, targets, |report| tell(&Pins::of_server(report))).await;
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

    /// The certificates that a server was believed by, or presented in vain.
    pub fn of_server(report: &Report) -> Self {
        let source = match report.problem().filter(|_| !report.is_trusted()) {
            Some(problem) => Source::Refused(problem),
            None => Source::Trusted,
        };
        let certificates = report.believed().into_iter().cloned().collect();
        let of = Some(report.upstream().authority());
        Self { asked: report.asked().to_owned(), of, source, certificates }
    }

    /// Whether these are of somebody who is not trusted.
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
                "warning: `{asked}` is NOT VERIFIED: {why}\n  Anybody may have sent what follows. Compare it with what the server's owner says before it is pinned."
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
        // A pin on a CA's key lets pass whatever that CA issues: it is there to be chosen, not by default.
        for (place, certificate) in self.certificates.iter().enumerate() {
            let Some(pin) = spki(certificate) else { continue };
            let is_ca = certificate.facts.as_ref().is_ok_and(|facts| facts.is_ca == Some(true));
            let what = if is_ca { "whatever this CA issues" } else { "this key alone" };
            let off = if place == 0 { "" } else { "# " };
            writeln!(f, "  {off}\"{pin}\", # {}: {what}", certificate.name())?;
        }
        writeln!(f, "]\n")
    }
}
