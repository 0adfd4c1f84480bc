//! `vouchsafe verify`: the proxy's verifier on a chain from a file, at any moment.

use std::{fmt, sync::Arc};

use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::{
    clock::{Clock, rfc3339},
    config::{
        args::VerifyArgs,
        error::ConfigError,
        load,
        settings::{identity, no_list, reference, repeated_rules},
        watch::Files,
    },
    terminal::{ADVICE, BAD, GOOD},
    tls::{
        case::{Case, Terms, Trust},
        classify::Refusal,
        crl::{CrlError, Crls},
        explain::explain,
        failure::{CertificateRef, Code, Finding, VerificationFailure},
        fingerprint::Fingerprint,
        identity::ReferenceId,
        pem::{self, Wanted},
        presented::Certificate,
        revocation::{CrlPolicy, CrlRule, Leniency},
        trust::TrustAnchors,
        verify::{self as verifier, Accepted},
    },
};

/// A chain, and the verdict on it.
#[derive(Debug)]
pub struct Verification {
    trust: Trust,
    presented: Vec<Certificate>,
    reference: ReferenceId,
    at: OffsetDateTime,
    verdict: Result<Accepted, Box<VerificationFailure>>,
    /// Whether `run` would accept it by its default for what no list covers.
    by_default: bool,
}

/// Reads what the arguments name, and verifies the chain.
///
/// # Errors
/// [`ConfigError`], if a file or an argument cannot be used.
pub fn verify(args: &VerifyArgs, clock: Clock) -> Result<Verification, ConfigError> {
    let mut problems = Vec::new();
    let question = Question::of(args, clock, &mut problems);
    ConfigError::unless_empty(problems)?;
    let Some(Question { trust, unusable, presented, reference, at, is_policy_given }) = question else {
        return Err(ConfigError::one("there is nothing to verify"));
    };
    let case = Case { trust: &trust, presented: &presented, reference: &reference, now: at, report_only_classes: &[] };
    let verdict = match unusable {
        // `run` does not start with such a list; here it is what the answer is about.
        Some(sentence) => {
            let finding = Finding { code: Code::CrlInvalid, subject: CertificateRef::Handshake, sentence };
            Err(explain(&case, *Refusal::of(&case, finding)))
        }
        None => verifier::verify(&case).map_err(|refusal| explain(&case, *refusal)),
    };
    let by_default = is_refused_by_default(&case, &verdict, is_policy_given);
    Ok(Verification { trust, presented, reference, at, verdict, by_default })
}

struct Question {
    trust: Trust,
    /// A revocation list that is of a kind which cannot be used.
    unusable: Option<String>,
    presented: Vec<Certificate>,
    reference: ReferenceId,
    at: OffsetDateTime,
    /// Whether the arguments say what to do where no list covers a certificate.
    is_policy_given: bool,
}

/// Whether `run`, whose default tolerates a certificate that no list covers, would accept what is refused here.
fn is_refused_by_default(
    case: &Case<'_>,
    verdict: &Result<Accepted, Box<VerificationFailure>>,
    is_policy_given: bool,
) -> bool {
    let is_unknown = verdict.as_ref().is_err_and(|failure| failure.code() == Code::RevocationUnknown);
    if is_policy_given || !is_unknown {
        return false;
    }
    let crl_policy = CrlPolicy { unknown: Leniency::Tolerate, ..case.trust.terms.crl_policy };
    let trust = Trust { terms: Terms { crl_policy, ..case.trust.terms.clone() }, ..case.trust.clone() };
    verifier::verify(&Case { trust: &trust, ..*case }).is_ok()
}

impl Question {
    fn of(args: &VerifyArgs, clock: Clock, problems: &mut Vec<String>) -> Option<Self> {
        fn take<T>(problems: &mut Vec<String>, result: Result<T, String>) -> Option<T> {
            result.map_err(|problem| problems.push(problem)).ok()
        }
        let mut files = Files::at_start();
        let at = args.at.map_or(clock.now(), |at| at.resolve(clock.now()));
        let anchors = load::bundle(&mut files, "--ca-bundle", &args.ca_bundle).and_then(|files| {
            let names: Vec<_> = files.iter().map(|(name, _)| format!("`{name}`")).collect();
            let source = format!("--ca-bundle {}", names.join(", "));
            TrustAnchors::from_pem(&source, &files, Vec::new()).map_err(|error| error.to_string())
        });
        let anchors = take(problems, anchors);
        let lists = load::each(&mut files, "--crl", &args.crl);
        let (crls, unusable) = match take(problems, lists).map(|files| Crls::load(&files, at)) {
            Some(Err(CrlError::Unreadable(why))) => (take(problems, Err(format!("--crl {why}"))), None),
            Some(Err(CrlError::Unusable(why))) => (Some(Crls::default()), Some(format!("--crl {why}"))),
            Some(Ok(crls)) => (Some(crls), None),
            None => (None, None),
        };
        let mut terms = Terms {
            crl_policy: CrlPolicy { unknown: Leniency::Refuse, expired: Leniency::Refuse },
            ..Terms::default()
        };
        let mut is_policy_given = false;
        for rule in &args.crl_policy {
            let rule = rule.parse::<CrlRule>().map_err(|why| format!("--crl-policy `{rule}`: {why}"));
            let Some(rule) = take(problems, rule) else { continue };
            is_policy_given |= matches!(rule, CrlRule::Unknown(_));
            terms.crl_policy = terms.crl_policy.with(rule);
        }
        problems.extend(repeated_rules("--crl-policy", &args.crl_policy));
        // Without lists the default does not matter, but a rule that was set would have no effect.
        if let Some(rule) = args.crl_policy.first().filter(|_| args.crl.is_empty()) {
            problems.push(no_list("--crl-policy", rule));
        }
        for pin in &args.pin {
            terms
                .pins
                .extend(take(problems, pin.parse::<Fingerprint>().map_err(|why| format!("--pin `{pin}`: {why}"))));
        }
        for named in &args.identity {
            terms.identities.extend(take(problems, identity(&mut files, "--identity", named)));
        }
        let reference = reference(&args.name).map_err(|why| format!("--name: {why}"));
        let reference = take(problems, reference);
        let presented =
            load::named(&mut files, "CHAIN", &args.chain).and_then(|(name, bytes)| chain("CHAIN", &name, &bytes));
        let presented = take(problems, presented);
        Some(Self {
            trust: Trust { anchors: Arc::new(anchors?), crls: Arc::new(crls?), terms },
            unusable,
            presented: presented?,
            reference: reference?,
            at,
            is_policy_given,
        })
    }
}

/// Reads the certificates of a PEM file. `what` is the argument that names it.
///
/// # Errors
/// A sentence, if there is none.
pub fn chain(what: &str, name: &str, bytes: &[u8]) -> Result<Vec<Certificate>, String> {
    let chain = pem::chain(name, bytes, Wanted::Certificates).map_err(|why| format!("{what} `{name}`: {why}"))?;
    let chain: Vec<_> = chain.into_iter().map(|der| Certificate::read(&CertificateDer::from(der))).collect();
    if chain.is_empty() {
        return Err(format!(
            "{what} `{name}`: no certificate in it\nhint: the file should have CERTIFICATE blocks (PEM), the server's own first"
        ));
    }
    Ok(chain)
}

impl Verification {
    /// Whether the chain is accepted.
    pub fn is_accepted(&self) -> bool {
        self.verdict.is_ok()
    }

    /// One JSON object.
    pub fn json(&self) -> Value {
        let mut all = Map::new();
        let mut put = |key: &str, value: Value| all.insert(key.to_owned(), value);
        put("accepted", self.is_accepted().into());
        put("reference", self.reference.to_string().into());
        put("at", rfc3339(self.at).into());
        match &self.verdict {
            Ok(accepted) => {
                put("trust", accepted.proof.as_str().into());
                put("until", rfc3339(accepted.until).into());
                put("path", accepted.path.iter().map(|subject| self.certificate(*subject)).collect());
            }
            Err(failure) => {
                put("code", failure.code().as_str().into());
                put("message", failure.verdict.sentence.as_str().into());
                put("certificate", self.certificate(failure.verdict.subject));
                let finding = |finding: &Finding| {
                    json!({
                        "code": finding.code.as_str(),
                        "message": finding.sentence,
                        "certificate": self.certificate(finding.subject),
                    })
                };
                put("findings", failure.also.iter().map(finding).collect());
                put("hint", failure.hint.as_str().into());
                put("run_accepts", self.by_default.into());
            }
        }
        Value::Object(all)
    }

    fn certificate(&self, subject: CertificateRef) -> Value {
        let anchors = self.trust.anchors.certificates();
        let (place, index, certificate) = match subject {
            CertificateRef::Anchor(index) => ("bundle", index, anchors.get(index)),
            CertificateRef::Handshake => return Value::Null,
            CertificateRef::Presented(index) => ("presented", index, self.presented.get(index)),
        };
        certificate.map_or(Value::Null, |certificate| {
            json!({ "in": place, "index": index, "subject": certificate.name(), "sha256": certificate.sha256 })
        })
    }
}

/// What differs between the defaults of `verify` and `run`.
const RUN_ACCEPTS: &str =
    "`run` accepts this chain: its default is `--crl-policy unknown=tolerate`, that of `verify` is `unknown=refuse`";

/// For people: `code: sentence` first where it is refused, then all other findings, then the hint.
impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.verdict {
            Ok(accepted) => {
                writeln!(f, "{GOOD}accepted:{GOOD:#} `{}` until {}", self.reference, rfc3339(accepted.until))?;
                for subject in &accepted.path {
                    let anchors = self.trust.anchors.certificates();
                    let (what, certificate) = match subject {
                        CertificateRef::Anchor(index) => ("trusted", anchors.get(*index)),
                        CertificateRef::Presented(index) => ("sent", self.presented.get(*index)),
                        CertificateRef::Handshake => continue,
                    };
                    if let Some(certificate) = certificate {
                        writeln!(f, "  {what}: {} (sha256 {})", certificate.name(), certificate.sha256)?;
                    }
                }
                Ok(())
            }
            Err(failure) => {
                writeln!(f, "{BAD}{}:{BAD:#} {}", failure.code(), failure.verdict.sentence)?;
                // Without their codes: whoever searches this text for a code means the verdict.
                failure.also.iter().try_for_each(|also| writeln!(f, "  also: {}", also.sentence))?;
                writeln!(f, "{ADVICE}hint:{ADVICE:#} {}", failure.hint)?;
                if self.by_default {
                    writeln!(f, "note: {RUN_ACCEPTS}")?;
                }
                Ok(())
            }
        }
    }
}
