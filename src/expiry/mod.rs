//! What will expire: the chains that upstreams present (refused ones too), CA bundles, client certificates, the local CA,
//! revocation lists, and report-only. People are told in time: a warning for each and day, an audit event, metrics, and a
//! list.

mod ledger;
mod watch;

use time::{Duration, OffsetDateTime};

use crate::{
    clock::{distance, rfc3339},
    metrics::{
        Metrics,
        facts::{BundleFacts, Dated, DatedKind},
        observed::ObservedUpstream,
    },
};

pub use self::watch::watch;

/// Warnings begin when less than this is left; of a revocation list, when less than a third of its time is left.
pub const SOON: Duration = Duration::days(30);

/// Steps that a warning names once they are passed, in days.
const STEPS: [i64; 5] = [1, 3, 7, 14, 30];

/// What kind of thing expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExpiryKind {
    CaBundle,
    ClientCertificate,
    LocalCa,
    ReportOnly,
    RevocationList,
    UpstreamCertificate,
}

impl ExpiryKind {
    /// The word for machines.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CaBundle => "ca_bundle",
            Self::ClientCertificate => "client_certificate",
            Self::LocalCa => "local_ca",
            Self::ReportOnly => "report_only",
            Self::RevocationList => "revocation_list",
            Self::UpstreamCertificate => "upstream_certificate",
        }
    }

    /// What follows, and what to do, as a sentence without a full stop.
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::CaBundle => {
                "servers whose chain ends there are refused from then on; add its successor to the bundle before that day"
            }
            Self::ClientCertificate => {
                "upstreams that ask for it refuse it from then on; have it renewed, the new file is read without a restart"
            }
            Self::LocalCa => {
                "clients that verify refuse its certificates from then on; make a new CA with `vouchsafe ca init`, give its ca.pem to the clients, and then set local_ca to it"
            }
            Self::ReportOnly => "refusals are enforced from then on; have the server's certificate fixed before that",
            Self::RevocationList => {
                "with `expired=refuse` the servers that it covers are refused from then on; fetch the next list"
            }
            Self::UpstreamCertificate => "the server is refused from then on; have the certificate renewed",
        }
    }
}

/// A thing with an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub kind: ExpiryKind,
    /// The upstream, the file or the bundle. Escaped.
    pub name: String,
    /// Which certificate or list it is, as in ``the certificate `CN=a` of glance.example:9292``. Escaped.
    pub what: String,
    /// The first moment in which it is not valid any more, or the last in which it is: to the second.
    pub at: OffsetDateTime,
    /// Warnings begin when less than this is left.
    pub soon: Duration,
}

impl Expiry {
    /// The upstream that presented it, `host:port`.
    pub fn upstream(&self) -> Option<&str> {
        (self.kind == ExpiryKind::UpstreamCertificate).then_some(&self.name)
    }

    /// Whether it has expired.
    pub fn is_over(&self, now: OffsetDateTime) -> bool {
        self.at <= now
    }

    /// Whether it is to be warned of.
    pub fn is_soon(&self, now: OffsetDateTime) -> bool {
        !self.is_over(now) && self.at - now < self.soon
    }

    /// A sentence for people, without a full stop.
    pub fn sentence(&self, now: OffsetDateTime) -> String {
        let (what, at) = (&self.what, rfc3339(self.at));
        let apart = distance((self.at - now).whole_seconds());
        if self.is_over(now) {
            return format!("{what} expired on {at}, {apart} ago");
        }
        let left = self.at - now;
        let step = STEPS.into_iter().find(|days| left < Duration::days(*days));
        let step = step.map(|days| format!("; less than {days} day{} left", if days == 1 { " is" } else { "s are" }));
        format!("{what} expires on {at}, in {apart}{}", step.unwrap_or_default())
    }
}

/// Everything that is known to expire, or to have expired, the first to expire first.
pub fn expiries(metrics: &Metrics) -> Vec<Expiry> {
    let (facts, observed, now) = (metrics.facts(), metrics.observed.all(), metrics.now());
    let bundles = facts.bundles.iter().filter_map(|bundle| of_bundle(bundle, now));
    let dated = facts.dated.iter().map(of_dated);
    let upstreams = observed.iter().filter_map(of_upstream);
    let mut all: Vec<_> = bundles.chain(dated).chain(upstreams).collect();
    all.sort_by(|a, b| (a.at, a.kind, &a.name).cmp(&(b.at, b.kind, &b.name)));
    all
}

/// The first certificate of a bundle that has not expired; of those that have, `vouchsafe bundle` and the log tell at
/// start.
fn of_bundle(bundle: &BundleFacts, now: OffsetDateTime) -> Option<Expiry> {
    let (at, certificate) = bundle.ends.iter().find(|(at, _)| *at > now).or(bundle.ends.last())?;
    let soon = bundle.ends.iter().filter(|(end, _)| *end > *at && *end - now < SOON).count();
    let more = if soon > 0 { format!(" (and {soon} more within 30 days)") } else { String::new() };
    let what = format!("the CA `{certificate}` of {}{more}", bundle.name);
    Some(Expiry { kind: ExpiryKind::CaBundle, name: bundle.name.clone(), what, at: *at, soon: SOON })
}

fn of_dated(dated: &Dated) -> Expiry {
    let Dated { kind, name, subject, since, until } = dated;
    let mut soon = SOON;
    let (kind, what) = match kind {
        DatedKind::ClientCertificate => {
            (ExpiryKind::ClientCertificate, format!("the client certificate `{name}` (`{subject}`)"))
        }
        DatedKind::Crl => {
            // Many are issued for a week, and the next one is not there before its time.
            soon = soon.min(since.map_or(SOON, |since| (*until - since) / 3));
            (ExpiryKind::RevocationList, format!("the revocation list `{name}` (of `{subject}`)"))
        }
        DatedKind::LocalCa => (ExpiryKind::LocalCa, format!("the certificate `{name}` (`{subject}`) of the local CA")),
        DatedKind::ReportOnly => (ExpiryKind::ReportOnly, format!("report-only for {name}")),
    };
    Expiry { kind, name: name.clone(), what, at: *until, soon }
}

fn of_upstream(upstream: &ObservedUpstream) -> Option<Expiry> {
    let ends = upstream.chain.iter().enumerate().filter_map(|(at, one)| Some((one.not_after()?, at, one)));
    let (at, place, certificate) = ends.min_by_key(|(end, place, _)| (*end, *place))?;
    let kind = if place == 0 { "certificate" } else { "intermediate certificate" };
    let what = format!("the {kind} `{}` of {}", certificate.subject, upstream.authority);
    Some(Expiry { kind: ExpiryKind::UpstreamCertificate, name: upstream.authority.to_string(), what, at, soon: SOON })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);

    #[test]
    fn the_text_names_the_last_step_that_was_passed() {
        for (left, step) in [
            (Duration::days(31), ""),
            (Duration::days(29), "; less than 30 days are left"),
            (Duration::days(14), "; less than 30 days are left"),
            (Duration::days(14) - Duration::SECOND, "; less than 14 days are left"),
            (Duration::days(6), "; less than 7 days are left"),
            (Duration::days(2), "; less than 3 days are left"),
            (Duration::hours(1), "; less than 1 day is left"),
        ] {
            let name = "a:1".to_owned();
            let at = NOW + left;
            let expiry = Expiry { kind: ExpiryKind::UpstreamCertificate, name, what: "it".into(), at, soon: SOON };
            let sentence = expiry.sentence(NOW);
            let (_, rest) = sentence.split_once(", in ").unwrap();
            assert_eq!(rest.find(';').map_or("", |at| &rest[at..]), step, "{sentence}");
        }
    }

    #[test]
    fn of_a_bundle_the_first_that_is_still_valid_counts() {
        let day = |days: i64| NOW + Duration::days(days);
        let ends = |days: &[i64]| days.iter().map(|days| (day(*days), format!("CN={days}"))).collect();
        let of = |days: &[i64]| {
            let bundle = BundleFacts { name: "ca.pem".into(), ends: ends(days), certificates: days.len(), loaded: NOW };
            of_bundle(&bundle, NOW).map(|expiry| (expiry.at, expiry.what))
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[-5]), Some((day(-5), "the CA `CN=-5` of ca.pem".into())));
        assert_eq!(of(&[-5, 50]), Some((day(50), "the CA `CN=50` of ca.pem".into())));
        let more = "the CA `CN=10` of ca.pem (and 2 more within 30 days)".to_owned();
        assert_eq!(of(&[-5, 10, 20, 29, 40]), Some((day(10), more)));
    }
}
