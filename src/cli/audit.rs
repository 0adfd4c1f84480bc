//! `vouchsafe audit`: reads logs, writes what they say, and maps that to the end.

use std::io::Write;

use super::{
    CliError,
    output::{print_data_with, print_with, warn},
    progress::Progress,
};
use crate::{
    audit::{
        read::{Survey, read},
        report::{self, ReportFormat},
        summary::{Filter, Summary},
    },
    clock::Clock,
    config::{
        args::{AuditArgs, Moment},
        suggest::nearest,
    },
    explain,
    text::escape,
};

/// Sums up audit logs.
pub(super) fn audit(args: AuditArgs) -> Result<(), CliError> {
    let now = Clock::System.now();
    let at = |moment: Option<Moment>| moment.map(|moment| moment.resolve(now));
    let filter = Filter {
        since: at(args.since),
        until: at(args.until),
        upstream: args.upstream,
        code: args.code,
        event: args.event,
    };
    let mut progress = Progress::new();
    let survey = read(args.files, &filter, args.by, |so_far| progress.show(|| so_far.to_string()));
    progress.clear();
    if let Some(code) = &filter.code {
        check_code(code, &survey.summary)?;
    }
    let explained = |code: &str| explain::explain(Some(code)).ok();
    let write = |mut to: &mut dyn Write| report::write(&survey, args.format, args.sort, now, explained, &mut to);
    match args.format {
        ReportFormat::Text => print_with(write),
        ReportFormat::Csv | ReportFormat::Html | ReportFormat::Json | ReportFormat::Md => print_data_with(write),
    }
    .map_err(CliError::Output)?;
    report::complaints(&survey.logs).iter().for_each(|complaint| warn(complaint));
    judge(survey, &filter, args.strict)
}

/// Whether the answer is a good one.
fn judge(survey: Survey, filter: &Filter, strict: bool) -> Result<(), CliError> {
    let Survey { summary, logs, found } = survey;
    let broken = logs.iter().map(|log| log.lines.broken.lines()).sum::<u64>();
    let unread: Vec<_> = logs.into_iter().filter(|log| log.error.is_some() || log.is_something_else()).collect();
    if !unread.is_empty() {
        return Err(CliError::Unread(unread));
    }
    if let Some(id) = filter.event.as_ref().filter(|_| found.is_empty()) {
        let id = escape(id);
        return Err(CliError::Audit(format!(
            "no event has the id `{id}`\n  hint: repeats are written at the end of their window, up to a minute later (--fold-repeats): try again then; else it is in an older log, or beyond the 64 ids that are kept of repeats"
        )));
    }
    let mut objections = Vec::new();
    if summary.sent().is_anything() {
        objections.push("something was sent to a server that failed verification".to_owned());
    }
    if let Some(missing) = summary.gaps().missing {
        objections.push(format!("events are missing ({})", missing.events));
    }
    if broken > 0 {
        objections.push(format!("lines are broken ({broken})"));
    }
    match strict && !objections.is_empty() {
        true => Err(CliError::Audit(format!("--strict: {}", objections.join(", and ")))),
        false => Ok(()),
    }
}

/// Checks that a code is one that this version knows, or one that is in the logs.
fn check_code(code: &str, summary: &Summary) -> Result<(), CliError> {
    let known = || explain::codes().map(|code| -> &str { code }).chain(summary.codes());
    if known().any(|known| known == code) {
        return Ok(());
    }
    let hint = match nearest(code, known()) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => "`vouchsafe explain` lists all codes".to_owned(),
    };
    Err(CliError::Usage(format!("--code `{}`: there is no such code\n  hint: {hint}", escape(code))))
}
