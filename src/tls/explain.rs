//! The explanation of a refusal: every finding in words, and what to do. It cannot change a verdict.
//!
//! The verifier is asked again what it would refuse if everything that was found were fixed, so that nothing is left for
//! the next try.

use super::{
    case::Case,
    classify::Refusal,
    failure::{Code, Finding, VerificationFailure},
    hint,
    report_only::SINGLE,
    verify::verify,
};

/// Explains a refusal.
pub fn explain(case: &Case<'_>, refusal: Refusal) -> Box<VerificationFailure> {
    let Refusal { verdict, mut also } = refusal;
    if let Err(next) = beyond(case, std::iter::once(&verdict).chain(&also).map(|finding| finding.code)) {
        let known = |finding: &Finding| (finding.code, finding.subject) == (next.verdict.code, next.verdict.subject);
        // Without a path, a pinned key may be that of a CA which was not sent.
        if next.verdict.code != Code::PinMismatch && !known(&verdict) && !also.iter().any(known) {
            also.push(next.verdict);
        }
    }
    if !case.trust.terms.identities.is_empty() {
        also.retain(hint::counts_for_identity);
    }
    let hint = hint::hint(case, &verdict, &also);
    Box::new(VerificationFailure { verdict, also, hint })
}

/// What the verifier would say if these classes were fixed, as far as they can be thought away.
///
/// # Errors
/// The next refusal.
pub fn beyond(case: &Case<'_>, codes: impl Iterator<Item = Code>) -> Result<(), Box<Refusal>> {
    let classes: Vec<Code> = codes.filter(|code| SINGLE.contains(code)).collect();
    if classes.is_empty() || case.presented.is_empty() {
        return Ok(());
    }
    verify(&Case { report_only_classes: &classes, ..*case }).map(|_| ())
}
