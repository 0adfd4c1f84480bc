//! The clerk: why a verdict was reached, about which certificate, and what else would have failed.
//!
//! Nothing here can turn a refusal into an acceptance: each way in returns a [`VerificationFailure`].

use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use webpki::{EndEntityCert, Error};

use crate::clock::rfc3339;

use super::{
    failure::{Code, Finding, Subject, VerificationFailure},
    hint,
    identity::ReferenceId,
    judge::{self, Trust, kind},
    presented::{Certificate, Facts, Key},
};

/// The evidence of one verification.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Whom to believe.
    pub trust: &'a Trust,
    /// What the server sent, its own certificate first.
    pub presented: &'a [Certificate],
    /// The name it had to prove.
    pub reference: &'a ReferenceId,
    /// When it was judged.
    pub now: OffsetDateTime,
    /// Classes that are looked past, so that what else there is shows (report-only); none in all else.
    pub pardoned: &'a [Code],
}

impl Case<'_> {
    /// The server sent nothing.
    pub fn no_certificate(&self) -> Box<VerificationFailure> {
        self.refuse(Finding {
            code: Code::NoCertificate,
            subject: Subject::Handshake,
            sentence: "the server sent no certificate".into(),
        })
    }

    /// Whether this class is looked past.
    pub fn pardons(&self, code: Code) -> bool {
        self.pardoned.contains(&code)
    }

    /// Explains webpki's refusal; an objection of our own to a path that it had found comes first.
    pub fn explain(&self, error: &Error, objection: Option<Finding>) -> Box<VerificationFailure> {
        self.refuse(objection.unwrap_or_else(|| self.verdict(error)))
    }

    /// Builds the failure around its verdict.
    pub fn refuse(&self, verdict: Finding) -> Box<VerificationFailure> {
        let mut also: Vec<Finding> = Vec::new();
        for finding in self.all_findings() {
            let known = |f: &Finding| f.code == finding.code && f.subject == finding.subject;
            if !known(&verdict) && !also.iter().any(known) {
                also.push(finding);
            }
        }
        let hint = hint::hint(self, &verdict);
        Box::new(VerificationFailure { verdict, also, hint })
    }

    fn verdict(&self, error: &Error) -> Finding {
        match error {
            // The fallbacks are for a certificate that the judge can read and the clerk cannot.
            Error::CertExpired { not_after, .. } => self.first(judge::validity).unwrap_or_else(|| {
                self.own(Code::Expired, &format!("or one above it expired on {}", moment(*not_after)))
            }),
            Error::CertNotValidYet { not_before, .. } => self.first(judge::validity).unwrap_or_else(|| {
                self.own(Code::NotYetValid, &format!("or one above it is valid only from {}", moment(*not_before)))
            }),
            Error::InvalidCertValidity => self
                .first(judge::validity)
                .unwrap_or_else(|| self.own(Code::Expired, "or one above it ends before it begins")),
            Error::CertNotValidForName(_) => {
                self.name().unwrap_or_else(|| self.own(Code::NameMismatch, "is not valid for the name asked for"))
            }
            Error::CaUsedAsEndEntity => self.ca_as_end_entity(),
            Error::UnknownIssuer => self.no_path(),
            Error::InvalidSignatureForPublicKey => self.bad_signature(),
            Error::NameConstraintViolation => self.name_constraint(),
            Error::PathLenConstraintViolated => self.path_length(),
            Error::EndEntityUsedAsCa => self
                .not_a_ca()
                .unwrap_or_else(|| self.own(Code::IssuerNotCa, "stands below an issuer that is not a CA")),
            Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
                let purpose = |certificate: &Certificate, subject, _| {
                    certificate.facts.as_ref().ok().and_then(|facts| judge::purpose(facts, subject))
                };
                self.first(purpose).unwrap_or_else(|| self.own(Code::WrongPurpose, "is not meant for servers"))
            }
            Error::UnsupportedCriticalExtension => {
                self.first(|certificate, subject, _| judge::critical(certificate, subject)).unwrap_or_else(|| {
                    self.own(Code::CriticalExtension, "or one above it has a critical extension that is not understood")
                })
            }
            Error::UnsupportedCertVersion => self.version(),
            Error::MaximumPathDepthExceeded => {
                let sent = self.presented.len().saturating_sub(1);
                self.own(Code::ChainTooLong, &format!("stands below more than 6 intermediates ({sent} were sent)"))
            }
            Error::MaximumNameConstraintComparisonsExceeded
            | Error::MaximumPathBuildCallsExceeded
            | Error::MaximumSignatureChecksExceeded => {
                self.own(Code::ChainTooComplex, "comes with a chain that takes too much work to verify")
            }
            Error::UnsupportedSignatureAlgorithmContext(_) => {
                self.first(|certificate, subject, _| signature(certificate, subject)).unwrap_or_else(|| {
                    self.own(Code::UnsupportedSignature, "or one above it is signed in a way that is not taken")
                })
            }
            Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => self
                .ladder()
                .into_iter()
                .find_map(|(certificate, subject)| judge::strength(certificate, subject))
                .or_else(|| {
                    let of_key = |code| matches!(code, Code::IssuerKeyMismatch | Code::SelfSignedNotInBundle);
                    self.broken_rung().filter(|finding| of_key(finding.code))
                })
                .unwrap_or_else(|| self.own(Code::UnsupportedKey, "is signed with a key of a kind that is not taken")),
            Error::BadDer
            | Error::BadDerTime
            | Error::ExtensionValueInvalid
            | Error::InvalidNetworkMaskConstraint
            | Error::InvalidSerialNumber
            | Error::MalformedDnsIdentifier
            | Error::MalformedExtensions
            | Error::MalformedNameConstraint
            | Error::SignatureAlgorithmMismatch
            | Error::TrailingData(_)
            | Error::UnsupportedNameType => self.malformed(error),
            // A newer webpki may say more; whatever it is, it is a refusal.
            error => self.own(Code::Other, &format!("was refused: {error}")),
        }
    }

    /// All that is wrong, one check after the other, whether or not it decided.
    fn all_findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        for (place, certificate) in self.presented.iter().enumerate().take(MOST_EXPLAINED) {
            let subject = Subject::Presented(place);
            found.extend(judge::validity(certificate, subject, self.now));
            found.extend(judge::strength(certificate, subject));
            found.extend(signature(certificate, subject));
        }
        found.extend(self.purposes());
        found.extend(self.name());
        found
    }

    /// Whether the server's own certificate has the name, by webpki; None where that cannot be asked.
    pub fn has_name(&self) -> Option<bool> {
        let own = EndEntityCert::try_from(&self.presented.first()?.der).ok()?;
        Some(own.verify_is_valid_for_subject_name(&self.reference.server_name()).is_ok())
    }

    /// The name check on its own.
    fn name(&self) -> Option<Finding> {
        let own = self.presented.first()?;
        let facts = own.facts.as_ref().ok()?;
        // Of one that webpki does not read, nothing is known but that there is no name at all.
        if self.has_name().unwrap_or(facts.has_san) {
            return None;
        }
        let wanted = self.reference.value();
        let finding = |code, sentence| Some(Finding { code, subject: Subject::Presented(0), sentence });
        if !facts.has_san {
            let cn = facts.common_name.as_deref().unwrap_or("none");
            return finding(
                Code::NoSan,
                format!("the certificate has no subjectAltName; its common name `{cn}` is not a name to verify by"),
            );
        }
        let offered = list(&facts.presented_names());
        match self.reference {
            ReferenceId::Ip(_) if facts.dns_names.contains(&wanted) => finding(
                Code::IpSanMissing,
                format!("the certificate lists `{wanted}` as a DNS name, not as an IP address"),
            ),
            ReferenceId::Ip(_) => finding(
                Code::IpSanMissing,
                format!("the certificate does not list the address `{wanted}`; it is valid for {offered}"),
            ),
            ReferenceId::Dns(_) => {
                finding(Code::NameMismatch, format!("the certificate is valid for {offered}, not for `{wanted}`"))
            }
        }
    }

    fn ca_as_end_entity(&self) -> Finding {
        match self.own_facts() {
            Some(facts) if is_self_signed(&self.presented[0]) => self.self_signed(facts),
            _ => self.own(Code::CaAsServer, "is a CA certificate, which is not taken as a server's own"),
        }
    }

    fn self_signed(&self, facts: &Facts) -> Finding {
        let known = self.trust.anchors.certificates().iter().enumerate();
        let mut twin = known
            .filter(|(_, anchor)| anchor.facts.as_ref().is_ok_and(|anchor| anchor.subject_der == facts.subject_der));
        let mut sentence =
            format!("the server sent the self-signed certificate `{}`, which is not in the bundle", facts.subject);
        if let Some((_, twin)) = twin.next_back() {
            let there = format!("; the bundle holds another of that name (sha256 {})", twin.sha256);
            sentence.push_str(&there);
        }
        Finding { code: Code::SelfSignedNotInBundle, subject: Subject::Presented(0), sentence }
    }

    /// webpki found no path: walk up by names and see where it ends.
    fn no_path(&self) -> Finding {
        let Some(own) = self.own_facts() else {
            return self.malformed(&Error::BadDer);
        };
        if is_self_signed(&self.presented[0]) {
            return self.self_signed(own);
        }
        if let Some(finding) = self.not_a_ca() {
            return finding;
        }
        let way = self.way_up();
        let last = way.last().copied().unwrap_or(0);
        let subject = Subject::Presented(last);
        let issuer = match &self.presented[last].facts {
            Ok(facts) if is_self_signed(&self.presented[last]) => {
                let sentence = format!("the chain ends at the root `{}`, which is not in the bundle", facts.subject);
                return Finding { code: Code::UnknownIssuer, subject, sentence };
            }
            Ok(facts) => &facts.issuer,
            Err(_) => return self.malformed(&Error::BadDer),
        };
        if last == 0 {
            let sentence = format!(
                "the certificate was issued by `{issuer}`, which the server did not send and the bundle does not hold"
            );
            return Finding { code: Code::IncompleteChain, subject, sentence };
        }
        let sentence = format!("the chain ends at the issuer `{issuer}`, which is not in the bundle");
        Finding { code: Code::UnknownIssuer, subject, sentence }
    }

    /// The places from the server's own certificate upwards, as far as issuers were sent.
    pub fn way_up(&self) -> Vec<usize> {
        let mut way = vec![0];
        let mut current = 0;
        while let Some(Ok(facts)) = self.presented.get(current).map(|c| c.facts.as_ref()) {
            let next = self
                .presented
                .iter()
                .enumerate()
                .filter(|(place, _)| !way.contains(place))
                .find(|(_, candidate)| candidate.facts.as_ref().is_ok_and(|c| c.subject_der == facts.issuer_der));
            match next {
                Some((place, _)) if !is_self_signed(&self.presented[current]) && way.len() < MOST_EXPLAINED => {
                    way.push(place);
                    current = place;
                }
                _ => break,
            }
        }
        way
    }

    /// The way up, and above it the first anchor of its issuer's name, if any.
    fn ladder(&self) -> Vec<(&Certificate, Subject)> {
        let way = self.way_up();
        let mut ladder: Vec<_> =
            way.iter().map(|place| (&self.presented[*place], Subject::Presented(*place))).collect();
        let top = ladder.last().and_then(|(certificate, _)| certificate.facts.as_ref().ok());
        let mut anchors = self.trust.anchors.certificates().iter().enumerate();
        let named = anchors.find(|(_, anchor)| match (&anchor.facts, top) {
            (Ok(anchor), Some(top)) => anchor.subject_der == top.issuer_der,
            _ => false,
        });
        ladder.extend(named.map(|(place, anchor)| (anchor, Subject::Anchor(place))));
        ladder
    }

    fn not_a_ca(&self) -> Option<Finding> {
        let place = *self
            .way_up()
            .iter()
            .skip(1)
            .find(|place| self.presented[**place].facts.as_ref().is_ok_and(|facts| facts.is_ca != Some(true)))?;
        let sentence = format!("the issuer `{}` is not a CA", self.presented[place].name());
        Some(Finding { code: Code::IssuerNotCa, subject: Subject::Presented(place), sentence })
    }

    /// A signature does not hold: a weak key that cannot be used, a CA made anew under its old name, or
    /// a certificate that was changed.
    fn bad_signature(&self) -> Finding {
        self.broken_rung()
            .unwrap_or_else(|| self.own(Code::BadSignature, "or one above it does not bear its issuer's signature"))
    }

    fn broken_rung(&self) -> Option<Finding> {
        if let Some(own) = self.own_facts().filter(|_| is_self_signed(&self.presented[0])) {
            return Some(self.self_signed(own));
        }
        let ladder = self.ladder();
        let keys = ladder.iter().filter(|(certificate, _)| is_rsa(certificate));
        if let Some(finding) = keys.copied().find_map(|(c, s)| judge::strength(c, s)) {
            return Some(finding);
        }
        for rung in ladder.windows(2) {
            let ((child, subject), (issuer, above)) = (rung[0], rung[1]);
            let (Ok(named), Ok(has)) = (&child.facts, &issuer.facts) else { continue };
            if child.signed_by(issuer) {
                continue;
            }
            let other_key = match (&named.authority_key_id, &has.key_id) {
                (Some(named), Some(has)) => named != has,
                _ => matches!(above, Subject::Anchor(_)),
            };
            let (code, why) = if other_key {
                let who = if matches!(above, Subject::Anchor(_)) { "the bundle holds" } else { "the server sent" };
                (Code::IssuerKeyMismatch, format!("{who} a certificate of that name with another key"))
            } else {
                (Code::BadSignature, "the signature does not hold".into())
            };
            let sentence =
                format!("{} `{}` claims to be signed by `{}`, but {why}", kind(subject), child.name(), has.subject);
            return Some(Finding { code, subject, sentence });
        }
        None
    }

    fn purposes(&self) -> Option<Finding> {
        judge::purpose(self.own_facts()?, Subject::Presented(0))
    }

    fn version(&self) -> Finding {
        self.first(|certificate, subject, _| {
            let facts = certificate.facts.as_ref().ok().filter(|facts| facts.version != 3)?;
            let sentence =
                format!("{} `{}` is X.509 version {}; 3 is needed", kind(subject), facts.subject, facts.version);
            Some(Finding { code: Code::CertVersion, subject, sentence })
        })
        .unwrap_or_else(|| self.own(Code::CertVersion, "or one above it is not X.509 version 3"))
    }

    /// The names that are asked for are none that every CA above may issue for.
    fn name_constraint(&self) -> Finding {
        let (code, ladder) = (Code::NameConstraint, self.ladder());
        let limits = ladder.iter().skip(1).filter_map(|(ca, subject)| {
            let limits = ca.limits();
            let may = match (limits.permitted.as_slice(), limits.excluded.as_slice()) {
                ([], []) => return None,
                ([], excluded) => format!("may not issue for {}", list(excluded)),
                (permitted, []) => format!("may issue only for {}", list(permitted)),
                (permitted, excluded) => format!("may issue only for {}, not for {}", list(permitted), list(excluded)),
            };
            Some(format!("{} `{}` above it {may}", kind(*subject), ca.name()))
        });
        let limits: Vec<_> = limits.collect();
        match self.own_facts() {
            Some(facts) if !limits.is_empty() => {
                let names = list(&facts.presented_names());
                self.own(code, &format!("is valid for {names}, but {}", limits.join(", and ")))
            }
            _ => self.own(code, "was issued for a name that a CA above it may not issue for (a name constraint)"),
        }
    }

    fn path_length(&self) -> Finding {
        let (code, ladder) = (Code::PathLength, self.ladder());
        let limit = ladder.iter().enumerate().skip(2).find_map(|(place, (ca, subject))| {
            let (most, below) = (ca.facts.as_ref().ok()?.path_length?, place - 1);
            (below > usize::try_from(most).ok()?).then(|| {
                let (kind, name, s) = (kind(*subject), ca.name(), if most == 1 { "" } else { "s" });
                format!("stands too deep: {kind} `{name}` above it allows {most} CA{s} below itself (path length), and there are {below}")
            })
        });
        let limit = limit.unwrap_or_else(|| "was issued by a CA that may not have further CAs below it".into());
        match ladder.get(1) {
            Some((low, subject)) => {
                let sentence = format!("{} `{}` {limit}", kind(*subject), low.name());
                Finding { code, subject: *subject, sentence }
            }
            None => self.own(code, &limit),
        }
    }

    /// One that cannot be read by us, or by webpki, or else one with constraints that cannot be.
    fn malformed(&self, error: &Error) -> Finding {
        let unreadable = |certificate: &Certificate| certificate.facts.is_err();
        let refused = |certificate: &Certificate| match EndEntityCert::try_from(&certificate.der) {
            Ok(_) | Err(Error::UnsupportedCertVersion | Error::UnsupportedCriticalExtension) => false,
            Err(_) => true,
        };
        let ladder = self.ladder();
        let constrains = || ladder.iter().find(|(ca, _)| ca.limits().constrains_names).map(|(_, subject)| *subject);
        let constraints = matches!(error, Error::InvalidNetworkMaskConstraint | Error::MalformedNameConstraint);
        let place = |is: &dyn Fn(&Certificate) -> bool| self.presented.iter().position(is).map(Subject::Presented);
        let found = place(&unreadable).or_else(|| place(&refused));
        let subject = found.or_else(|| constrains().filter(|_| constraints)).unwrap_or(Subject::Presented(0));
        let certificate = match subject {
            Subject::Anchor(place) => self.trust.anchors.certificates().get(place),
            Subject::Presented(place) => self.presented.get(place),
            Subject::Handshake => None,
        };
        match certificate.map(|certificate| (certificate, &certificate.facts)) {
            Some((certificate, Err(why))) => judge::unreadable(certificate, subject, why),
            Some((certificate, Ok(_))) => {
                let sentence =
                    format!("{} `{}` cannot be taken: {}", kind(subject), certificate.name(), malformation(error));
                Finding { code: Code::MalformedCertificate, subject, sentence }
            }
            None => self.own(Code::MalformedCertificate, &format!("cannot be taken: {}", malformation(error))),
        }
    }

    fn own(&self, code: Code, what: &str) -> Finding {
        let name = self.presented.first().map_or_else(String::new, Certificate::name);
        Finding { code, subject: Subject::Presented(0), sentence: format!("the certificate `{name}` {what}") }
    }

    fn first(&self, check: impl Fn(&Certificate, Subject, OffsetDateTime) -> Option<Finding>) -> Option<Finding> {
        let way = self.way_up();
        let others = (0..self.presented.len().min(MOST_EXPLAINED)).filter(|place| !way.contains(place));
        let mut places = way.iter().copied().chain(others);
        places.find_map(|place| check(&self.presented[place], Subject::Presented(place), self.now))
    }

    fn own_facts(&self) -> Option<&Facts> {
        self.presented.first()?.facts.as_ref().ok()
    }
}

/// A moment as webpki has it.
fn moment(at: UnixTime) -> String {
    let seconds = i64::try_from(at.as_secs()).ok();
    let at = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    at.map_or_else(|| "a day beyond all calendars".into(), rfc3339)
}

/// A hash in the signature that is broken, or unknown?
fn signature(certificate: &Certificate, subject: Subject) -> Option<Finding> {
    let facts = certificate.facts.as_ref().ok()?;
    // The signature of a self-signed certificate proves nothing and is not looked at.
    if facts.self_issued() {
        return None;
    }
    let (code, name) = match facts.signature_algorithm.as_str() {
        "1.2.840.113549.1.1.2" | "1.2.840.113549.1.1.4" => (Code::WeakSignature, "MD5"),
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" | "1.3.14.3.2.29" => {
            (Code::WeakSignature, "SHA-1")
        }
        "1.2.840.113549.1.1.10" // RSA-PSS
        | "1.2.840.113549.1.1.11" | "1.2.840.113549.1.1.12" | "1.2.840.113549.1.1.13"
        | "1.2.840.10045.4.3.2" | "1.2.840.10045.4.3.3" | "1.2.840.10045.4.3.4"
        | "1.3.101.112" => return None,
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => (Code::UnsupportedSignature, "SHA-224"),
        "1.3.101.113" => (Code::UnsupportedSignature, "Ed448"),
        "2.16.840.1.101.3.4.3.1" | "2.16.840.1.101.3.4.3.2" => (Code::UnsupportedSignature, "DSA"),
        other => (Code::UnsupportedSignature, other),
    };
    let sentence = format!("{} `{}` is signed with {name}", kind(subject), certificate.name());
    Some(Finding { code, subject, sentence })
}

/// A CA may have issued a certificate under its own name.
fn is_self_signed(certificate: &Certificate) -> bool {
    certificate.facts.as_ref().is_ok_and(Facts::self_issued) && certificate.signed_by(certificate)
}

/// What is wrong with a certificate or list that cannot be read, in words.
pub fn malformation(error: &Error) -> String {
    let words = match error {
        Error::BadDer => "it is not well-formed DER",
        Error::BadDerTime => "a time in it is not well-formed",
        Error::ExtensionValueInvalid => "an extension is malformed, or stands there twice",
        Error::InvalidNetworkMaskConstraint => "a name constraint has a network mask that is none",
        Error::InvalidSerialNumber => "a serial number in it is not well-formed",
        Error::MalformedDnsIdentifier => "a DNS name in it is malformed",
        Error::MalformedExtensions => "its extensions are malformed",
        Error::MalformedNameConstraint => "a name constraint is malformed",
        Error::SignatureAlgorithmMismatch => "it names two signature algorithms that differ",
        Error::TrailingData(_) => "there are bytes behind the end of a part",
        Error::UnsupportedNameType => "it has a name of a kind that is not understood",
        // Anything newer: the library's words.
        error => return error.to_string(),
    };
    words.to_owned()
}

fn is_rsa(certificate: &Certificate) -> bool {
    certificate.facts.as_ref().is_ok_and(|facts| matches!(facts.key, Key::Rsa(_)))
}

fn list(names: &[String]) -> String {
    const MOST: usize = 8;
    let bare: Vec<_> = names.iter().take(MOST).map(|name| format!("`{}`", name.trim_start_matches("dns:"))).collect();
    match names.len() {
        0 => "no name at all".into(),
        n if n > MOST => format!("{} and {} more", bare.join(", "), n - MOST),
        _ => bare.join(", "),
    }
}

/// A hostile chain may hold hundreds of certificates; this many are looked at for words.
const MOST_EXPLAINED: usize = 16;

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use certs_dev::{Bundle, Gallery};
    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::tls::{judge::Terms, trust::TrustAnchors};

    #[test]
    fn what_only_the_judge_can_read_is_refused_in_words_too() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let bundle = Gallery::new(now).unwrap().bundle(Bundle::Root);
        let anchors = TrustAnchors::from_pem("--ca-bundle", &[], bundle).unwrap();
        let trust = Trust { anchors: Arc::new(anchors), crls: Arc::default(), terms: Terms::default() };
        let presented = [Certificate::read(&CertificateDer::from(vec![0x30, 0]))];
        let reference = ReferenceId::of(&"good.example".parse().unwrap()).unwrap();
        let case = Case { trust: &trust, presented: &presented, reference: &reference, now, pardoned: &[] };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(86_400));
        for (error, code, expected) in [
            (
                Error::CertExpired { time, not_after: time },
                Code::Expired,
                "or one above it expired on 1970-01-02T00:00:00Z",
            ),
            (
                Error::CertNotValidYet { time, not_before: time },
                Code::NotYetValid,
                "or one above it is valid only from 1970-01-02T00:00:00Z",
            ),
            (Error::InvalidCertValidity, Code::Expired, "or one above it ends before it begins"),
            (Error::EndEntityUsedAsCa, Code::IssuerNotCa, "stands below an issuer that is not a CA"),
            (
                Error::UnsupportedCriticalExtension,
                Code::CriticalExtension,
                "or one above it has a critical extension that is not understood",
            ),
        ] {
            let verdict = case.explain(&error, None).verdict;
            assert_eq!(verdict.code, code);
            assert_eq!(verdict.sentence, format!("the certificate `(unreadable, 2 bytes)` {expected}"));
        }
    }
}
