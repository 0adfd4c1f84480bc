//! `vouchsafe bundle`: looks over what one would give to --ca-bundle, by the verifier's own checks.
//!
//! An error is what keeps the proxy from starting, what can never be trusted as it stands, or a secret that lies
//! open. A warning works, and deserves a look.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt::{self, Write as _},
};

use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use crate::{
    check::certificate::{self, day, line, names},
    clock::{Clock, distance, rfc3339},
    config::{
        args::BundleArgs,
        error::ConfigError,
        load::{self, Named},
        watch::Files,
    },
    mint::is_local_ca,
    terminal::{ADVICE, BAD, GOOD, WARNING},
    tls::{
        checks,
        failure::{CertificateRef, Code, Finding},
        pem::{self, PemError, Wanted},
        presented::{Certificate, Facts},
        trust::is_usable,
    },
};

/// What is in a bundle, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Lint {
    at: OffsetDateTime,
    files: Vec<File>,
}

#[derive(Clone, Debug)]
struct File {
    name: String,
    entries: Vec<Entry>,
    flaws: Vec<Flaw>,
}

#[derive(Clone, Debug)]
struct Entry {
    line: usize,
    what: What,
    certificate: Certificate,
    flaws: Vec<Flaw>,
}

/// What a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Intermediate,
    Root,
    Server,
    Unreadable,
}

impl What {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Intermediate => "intermediate",
            Self::Root => "root",
            Self::Server => "server certificate",
            Self::Unreadable => "unreadable",
        }
    }

    fn of(certificate: &Certificate) -> Self {
        match &certificate.facts {
            Err(_) => Self::Unreadable,
            // X.509 v1 cannot say that it is a CA.
            Ok(facts) if facts.version == 3 && facts.is_ca != Some(true) => Self::Server,
            Ok(facts) if facts.self_issued() => Self::Root,
            Ok(_) => Self::Intermediate,
        }
    }

    /// What a finding's sentence is to call it.
    fn subject(self, place: usize) -> CertificateRef {
        match self {
            Self::Root | Self::Unreadable => CertificateRef::Anchor(place),
            Self::Intermediate => CertificateRef::Presented(1),
            Self::Server => CertificateRef::Presented(0),
        }
    }
}

/// A thing that is wrong, or odd.
#[derive(Clone, Debug)]
struct Flaw {
    level: Level,
    code: &'static str,
    line: Option<usize>,
    sentence: String,
    fix: Cow<'static, str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

impl Flaw {
    fn new(level: Level, code: &'static str, sentence: impl Into<String>, fix: impl Into<Cow<'static, str>>) -> Self {
        Self { level, code, line: None, sentence: sentence.into(), fix: fix.into() }
    }

    fn error(finding: Finding, fix: &'static str) -> Self {
        Self::new(Level::Error, finding.code.as_str(), finding.sentence, fix)
    }

    fn at(self, line: usize) -> Self {
        Self { line: Some(line), ..self }
    }
}

/// Reads what the arguments name, and looks it over.
///
/// # Errors
/// [`ConfigError`], where something cannot be read.
pub fn bundle(args: &BundleArgs, clock: Clock) -> Result<Lint, ConfigError> {
    let mut problems = Vec::new();
    let at = args.at.map_or(clock.now(), |at| at.resolve(clock.now()));
    let files = load::bundle(&mut Files::at_start(), "PATH", &args.paths).map_err(|why| problems.push(why));
    ConfigError::unless_empty(problems)?;
    Ok(lint(&files.unwrap_or_default(), at))
}

/// What is wrong with bundles that the proxy uses, as lines for its log. `vouchsafe bundle` shows more.
pub fn warnings(files: &[Named], at: OffsetDateTime) -> Vec<String> {
    let lint = lint(files, at);
    let mut all = Vec::new();
    for file in &lint.files {
        let of_file = file.flaws.iter().map(|flaw| (flaw.line, flaw));
        let of_entries = file.entries.iter().flat_map(|entry| entry.flaws.iter().map(|flaw| (Some(entry.line), flaw)));
        for (line, flaw) in of_file.chain(of_entries) {
            let line = line.map_or_else(String::new, |line| format!(":{line}"));
            all.push((flaw.level, format!("{}{line}: {}: {}", file.name, flaw.code, flaw.sentence)));
        }
    }
    // Errors first: a bundle of a distribution may have many warnings.
    all.sort_by_key(|(level, _)| *level != Level::Error);
    let more = all.len().saturating_sub(MOST_WARNINGS);
    let mut lines: Vec<_> = all.into_iter().take(MOST_WARNINGS).map(|(_, line)| line).collect();
    if more > 0 {
        lines.push(format!("{more} more findings in CA bundles\nhint: `vouchsafe bundle PATH` shows all of them"));
    }
    lines
}

/// As many findings about bundles are logged.
const MOST_WARNINGS: usize = 20;

/// Looks over the contents of files, each with its name.
pub fn lint(files: &[Named], at: OffsetDateTime) -> Lint {
    let mut lint = Lint { at, files: files.iter().map(|(name, bytes)| File::read(name, bytes)).collect() };
    let all = Known::of(lint.entries().map(|(file, entry)| (file.place(entry), &entry.certificate)).collect());
    let found: Vec<_> =
        lint.entries().enumerate().map(|(place, (_, entry))| flaws(entry.what, &all, place, at)).collect();
    let level = if found.is_empty() { Level::Error } else { Level::Warning };
    for (entry, flaws) in lint.files.iter_mut().flat_map(|file| &mut file.entries).zip(found) {
        entry.flaws = flaws;
    }
    for file in lint.files.iter_mut().filter(|file| file.entries.is_empty()) {
        let fix = "give the CERTIFICATE blocks (PEM) of the authorities to trust";
        file.flaws.push(Flaw::new(level, "no_certificate", "there is no certificate in it", fix));
    }
    lint
}

impl File {
    fn read(name: &str, bytes: &[u8]) -> Self {
        let mut file = Self { name: name.to_owned(), entries: Vec::new(), flaws: Vec::new() };
        let mut other: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for block in pem::blocks(bytes) {
            match block {
                Ok(block) if block.label != pem::CERTIFICATE => {
                    other.entry(block.label).or_insert((block.line, 0)).1 += 1;
                }
                Ok(block) if pem::is_pkcs7(&block.der) => {
                    let sentence = "the block holds PKCS #7, not a certificate";
                    let flaw = Flaw::new(Level::Error, "not_pem", sentence, pem::relabelled(name));
                    file.flaws.push(flaw.at(block.line));
                }
                Ok(block) => {
                    let certificate = Certificate::read(&CertificateDer::from(block.der));
                    let what = What::of(&certificate);
                    file.entries.push(Entry { line: block.line, what, certificate, flaws: Vec::new() });
                }
                Err(error) => file.flaws.push(not_pem(name, error)),
            }
        }
        let foreign = |(label, (line, count)): (String, (usize, usize))| foreign(name, &label, count).at(line);
        file.flaws.extend(other.into_iter().map(foreign));
        if file.entries.is_empty() && file.flaws.is_empty() && !bytes.is_empty() {
            let fix = "get the file again; there should be CERTIFICATE blocks in it";
            file.flaws.push(Flaw::new(Level::Error, "not_pem", "it is not PEM", fix));
        }
        file
    }

    fn place(&self, entry: &Entry) -> String {
        format!("{}:{}", self.name, entry.line)
    }
}

/// Why a file is refused; nothing behind the place is read.
fn not_pem(file: &str, error: PemError) -> Flaw {
    let hint = error.cause.hint(file, Wanted::Certificates);
    let fix = hint.unwrap_or_else(|| "correct the file, or get it again".into());
    Flaw { line: error.line, ..Flaw::new(Level::Error, "not_pem", error.cause.to_string(), fix) }
}

/// What has no place in a bundle.
fn foreign(file: &str, label: &str, count: usize) -> Flaw {
    if label.ends_with("PRIVATE KEY") {
        return Flaw::new(
            Level::Error,
            "private_key",
            format!("there is a {label} in it; a bundle is handed to everybody"),
            "take it out; if others could read the file, make a new key and have its certificate reissued",
        );
    }
    let what = if count == 1 { "is a block".into() } else { format!("are {count} blocks") };
    let fix = pem::remedy(label, file).unwrap_or_else(|| match label {
        pem::X509_CRL => "give it with --crl; here it does not count".into(),
        _ => "take it out; only CERTIFICATE blocks count here".into(),
    });
    Flaw::new(Level::Warning, "other_block", format!("there {what} of another kind in it: {label}"), fix)
}

/// All certificates, each with where it is. A bundle may have thousands, so none is compared with all others.
struct Known<'a> {
    certificates: Vec<(String, &'a Certificate)>,
    /// Where the same bytes are first.
    first: HashMap<&'a [u8], usize>,
    /// Those of the same subject, in their order.
    by_subject: HashMap<&'a [u8], Vec<usize>>,
}

impl<'a> Known<'a> {
    fn of(certificates: Vec<(String, &'a Certificate)>) -> Self {
        let (mut first, mut by_subject) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for (place, (_, certificate)) in certificates.iter().enumerate() {
            first.entry(&*certificate.der).or_insert(place);
            if let Ok(facts) = &certificate.facts {
                by_subject.entry(&*facts.subject_der).or_default().push(place);
            }
        }
        Self { certificates, first, by_subject }
    }

    /// Where one with the same bytes is, before this place.
    fn twin(&self, place: usize) -> Option<&str> {
        let (_, certificate) = self.certificates.get(place)?;
        let first = self.first.get(&*certificate.der).filter(|first| **first < place)?;
        self.certificates.get(*first).map(|(there, _)| there.as_str())
    }

    /// Those with the subject of `facts`: their number, where they are, and what they say.
    fn namesakes(&self, facts: &Facts) -> impl Iterator<Item = (usize, &str, &Facts)> {
        self.by_subject.get(&*facts.subject_der).into_iter().flatten().filter_map(|place| {
            let (there, certificate) = self.certificates.get(*place)?;
            Some((*place, there.as_str(), certificate.facts.as_ref().ok()?))
        })
    }
}

/// What is wrong with one certificate, among all.
fn flaws(what: What, all: &Known<'_>, place: usize, at: OffsetDateTime) -> Vec<Flaw> {
    let certificate = all.certificates[place].1;
    let mut found = Vec::new();
    if let Some(there) = all.twin(place) {
        let sentence = format!("the same certificate is at {there}");
        return vec![Flaw::new(Level::Warning, "duplicate", sentence, "take one of them out")];
    }
    let facts = match &certificate.facts {
        Ok(facts) if is_usable(&certificate.der) => facts,
        facts => {
            let why = facts.as_ref().err().map_or("it is not fit to be an anchor", String::as_str);
            let sentence = format!("it cannot be read and is not trusted: {why}");
            let fix = "get it again from its CA; `openssl x509 -in FILE -noout -text` shows how far it can be read";
            return vec![Flaw::new(Level::Error, Code::MalformedCertificate.as_str(), sentence, fix)];
        }
    };
    let subject = what.subject(place);
    found.extend(dates(certificate, facts, subject, all, at));
    found.extend(checks::strength(certificate, subject).map(|finding| match what {
        What::Server => Flaw::error(finding, "have it reissued with an RSA key of 2048 bits or more, or P-256"),
        _ => Flaw::error(finding, "replace this CA by one with an RSA key of 2048 bits or more, or P-256"),
    }));
    if is_local_ca(certificate) {
        let sentence = "it is a local CA of vouchsafe, which signs for clients of a proxy; a proxy that trusts its own would trust itself";
        found.push(Flaw::new(
            Level::Error,
            "local_ca",
            sentence,
            "take it out; clients of the proxy trust it, and nobody else",
        ));
    }
    let anchor = CertificateRef::Anchor(place);
    match what {
        What::Server => {
            found.push(server(facts));
            let unfit = checks::purpose(facts, subject).or_else(|| checks::critical(certificate, subject));
            found.extend(unfit.map(|finding| Flaw::error(finding, "have it reissued; as it is, it is never trusted")));
        }
        _ => {
            let unfit = checks::unfit_root(facts, anchor).into_iter().chain(checks::may_not_sign(facts, anchor));
            let fix = "get the CA's current certificate; as it is, nothing that it issued is trusted";
            found.extend(unfit.map(|finding| Flaw::error(finding, fix)));
            found.extend(issuer(certificate, facts, what, all, place));
        }
    }
    found
}

fn dates(
    certificate: &Certificate,
    facts: &Facts,
    subject: CertificateRef,
    all: &Known<'_>,
    at: OffsetDateTime,
) -> Option<Flaw> {
    if let Some(finding) = checks::validity(certificate, subject, at) {
        let in_force = |other: &Facts| other.spki == facts.spki && (other.not_before..=other.not_after).contains(&at);
        let renewed = all.namesakes(facts).find(|(_, _, other)| in_force(other));
        return Some(match (renewed, finding.code) {
            (Some((_, there, _)), code) => Flaw::new(
                Level::Warning,
                code.as_str(),
                format!("{}; another of the same name and key is valid ({there})", finding.sentence),
                "take out the one that is over; the other is enough",
            ),
            (None, Code::NotYetValid) => Flaw::error(finding, "compare the clocks (`date -u`), or wait"),
            (None, _) => Flaw::error(
                finding,
                "take it out; if its CA has a current one, obtained in a way you trust, put that in its place",
            ),
        });
    }
    let left = facts.not_after - at;
    let sentence = || format!("it ends on {}, in {}", day(facts.not_after), distance(left.whole_seconds()));
    let fix = "get its successor, and add it alongside this one before that day";
    (left < SOON).then(|| Flaw::new(Level::Warning, "expires_soon", sentence(), fix))
}

/// So long before an end it is worth a word.
const SOON: Duration = Duration::days(90);

fn server(facts: &Facts) -> Flaw {
    let names = names(facts).map_or("but has no name to verify by".into(), |names| format!("for {names}"));
    let sentence =
        format!("it is a server's certificate, not a CA's: it is trusted itself, {names}; it vouches for no other");
    let fix = "if that is meant, leave it, and change it when the server's changes; else put its CA's certificate here";
    Flaw::new(Level::Warning, "server_certificate", sentence, fix)
}

/// What is odd about a CA.
fn issuer(certificate: &Certificate, facts: &Facts, what: What, all: &Known<'_>, place: usize) -> Vec<Flaw> {
    let mut found = Vec::new();
    let warn = |code: &'static str, sentence: String, fix| Flaw::new(Level::Warning, code, sentence, fix);
    let remade = all.namesakes(facts).find(|(other, _, theirs)| *other < place && theirs.spki != facts.spki);
    if let Some((_, there, _)) = remade {
        let sentence = format!(
            "another of the name `{}`, with another key, is at {there}: probably a CA that was re-created",
            facts.subject
        );
        found.push(warn("same_name_other_key", sentence, "take out the one whose servers are gone"));
    }
    if facts.version != 3 {
        let sentence =
            format!("`{}` is X.509 version {}, which cannot say that it is a CA", facts.subject, facts.version);
        let fix = "if its CA has a newer one, take that; it is trusted as a root all the same";
        found.push(warn(Code::CertVersion.as_str(), sentence, fix));
    }
    if what == What::Root && (!facts.dns_names.is_empty() || !facts.ip_addresses.is_empty()) {
        let sentence = format!(
            "`{}` has names of servers ({}) and is a CA: who has that server's key can issue certificates for any name",
            certificate.name(),
            names(facts).unwrap_or_default()
        );
        let fix = "have it reissued with `basicConstraints = CA:FALSE` (`openssl req -x509 … -addext basicConstraints=CA:FALSE`)";
        found.push(warn("server_is_ca", sentence, fix));
    }
    found
}

impl Lint {
    /// Whether nothing is worse than a warning.
    pub fn is_good(&self) -> bool {
        !self.files.is_empty() && self.count(Level::Error) == 0
    }

    /// The valid certificates that expire within this time, a sentence each.
    pub fn expiring(&self, within: std::time::Duration) -> Vec<String> {
        let sentence = |(file, entry): (&File, &Entry)| {
            let left = entry.certificate.facts.as_ref().ok()?.not_after - self.at;
            let is_due = !left.is_negative() && left.unsigned_abs() < within;
            let left = distance(left.whole_seconds());
            is_due.then(|| format!("{}: `{}` expires in {left}", file.place(entry), entry.certificate.name()))
        };
        self.entries().filter_map(sentence).collect()
    }

    fn entries(&self) -> impl Iterator<Item = (&File, &Entry)> {
        self.files.iter().flat_map(|file| file.entries.iter().map(move |entry| (file, entry)))
    }

    fn count(&self, level: Level) -> usize {
        let of_files = self.files.iter().flat_map(|file| &file.flaws);
        let of_entries = self.entries().flat_map(|(_, entry)| &entry.flaws);
        of_files.chain(of_entries).filter(|flaw| flaw.level == level).count()
    }

    /// One JSON object; `docs/check.md` has its fields.
    pub fn json(&self) -> Value {
        let entry = |entry: &Entry| {
            let mut one = Map::from_iter([
                ("line".to_owned(), entry.line.into()),
                ("kind".to_owned(), entry.what.as_str().into()),
            ]);
            one.extend(certificate::json(&entry.certificate, self.at));
            one.insert("findings".into(), entry.flaws.iter().map(Flaw::json).collect());
            Value::Object(one)
        };
        let file = |file: &File| {
            json!({
                "file": file.name,
                "certificates": file.entries.iter().map(entry).collect::<Vec<_>>(),
                "findings": file.flaws.iter().map(Flaw::json).collect::<Vec<_>>(),
            })
        };
        json!({
            "good": self.is_good(),
            "at": rfc3339(self.at),
            "certificates": self.entries().count(),
            "errors": self.count(Level::Error),
            "warnings": self.count(Level::Warning),
            "files": self.files.iter().map(file).collect::<Vec<_>>(),
        })
    }
}

impl Flaw {
    fn json(&self) -> Value {
        json!({
            "level": self.level.as_str(),
            "code": self.code,
            "line": self.line,
            "message": self.sentence,
            "fix": self.fix,
        })
    }
}

/// Errors before warnings.
fn mark(flaws: &[Flaw]) -> String {
    let (mark, look) = match flaws {
        [] => ('✔', GOOD),
        flaws if flaws.iter().any(|flaw| flaw.level == Level::Error) => ('✘', BAD),
        _ => ('!', WARNING),
    };
    format!("{look}{mark}{look:#}")
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.level.as_str(), self.code)?;
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}\n{ADVICE}fix:{ADVICE:#} {}", self.sentence, self.fix)
    }
}

/// For people: each file with its certificates, and what is wrong under what it is wrong with.
impl fmt::Display for Lint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for file in &self.files {
            writeln!(text, "{}", file.name)?;
            for flaw in &file.flaws {
                indented(&mut text, &format!("{} {flaw}", mark(std::slice::from_ref(flaw))), "  ", "    ")?;
            }
            for entry in &file.entries {
                let Entry { line: number, what, certificate, flaws } = entry;
                writeln!(text, "  {} {}  [{}]", mark(flaws), certificate.name(), what.as_str())?;
                writeln!(text, "      line {number}, {}", line(certificate, self.at))?;
                flaws.iter().try_for_each(|flaw| indented(&mut text, &flaw.to_string(), "      ", "      "))?;
            }
        }
        let (errors, warnings) =
            (plural(self.count(Level::Error), "error"), plural(self.count(Level::Warning), "warning"));
        let certificates = plural(self.entries().count(), "certificate");
        writeln!(text, "{certificates} in {}: {errors}, {warnings}", plural(self.files.len(), "file"))?;
        f.write_str(&text)
    }
}

fn indented(text: &mut String, block: &str, first: &str, rest: &str) -> fmt::Result {
    for (number, line) in block.lines().enumerate() {
        writeln!(text, "{}{line}", if number == 0 { first } else { rest })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_is_not_good() {
        assert!(!lint(&[], OffsetDateTime::UNIX_EPOCH).is_good());
    }
}
