//! How a single upstream is verified: the TLS settings of an `[[upstream]]` section.

use std::sync::Arc;

use crate::{
    clock::rfc3339,
    message::authority::Authority,
    text::show_value,
    tls::{client::TlsSettings, report_only::ReportOnly},
};

use super::{
    super::{args::UpstreamOptions, foreign::NO_INSECURE},
    Build,
    trust::identity,
};

impl Build<'_> {
    /// Only one section for a server may have TLS settings. Of two, the pins of the later would not be checked.
    pub(super) fn one_section_with_tls(&mut self) {
        let sections = self.options.upstream.iter().enumerate();
        let with_tls = sections.filter(|(_, section)| section.is_about_tls());
        let sections: Vec<_> =
            with_tls.filter_map(|(at, section)| Some((at, section.of.parse::<Authority>().ok()?))).collect();
        for (n, (place, of)) in sections.iter().enumerate() {
            let meets = |other: &Authority| {
                other.host == of.host && (other.port == of.port || other.port.is_none() || of.port.is_none())
            };
            for (before, other) in sections[..n].iter().filter(|(_, other)| meets(other)) {
                self.problems.push(format!(
                    "[[upstream]] {} (`{other}`) and {} (`{of}`): both have TLS settings, and only those of one would apply\nhint: merge them into one section, or give every `of` a port to configure each port",
                    before + 1,
                    place + 1
                ));
            }
        }
    }

    /// The default settings with those of a section; `None` if it has none.
    pub(super) fn own_tls(
        &mut self,
        what: &str,
        section: &UpstreamOptions,
        default: Option<&TlsSettings>,
    ) -> Option<TlsSettings> {
        let key = |key: &str| format!("{what}: {key}");
        let mut anchors = None;
        if !section.ca_bundle.is_empty() || section.system_roots == Some(true) {
            anchors = Some(self.own_anchors(what, section)?);
        }
        let before = default?;
        let mut own = before.clone();
        let mut changed = anchors.is_some();
        own.trust.anchors = anchors.unwrap_or(own.trust.anchors);
        if !section.crl.is_empty() {
            own.trust.crls = self.crls(&key("crl"), &section.crl);
            changed = true;
        }
        let terms = &mut own.trust.terms;
        terms.crl_policy = self.crl_policy(&key("crl_policy"), &section.crl_policy, terms.crl_policy);
        if !section.crl_policy.is_empty() {
            self.require_lists(&key("crl_policy"), terms.crl_policy, &own.trust.crls);
        }
        terms.pins = self.each(&key("pins"), &section.pins, |text| text.parse().map_err(str::to_owned));
        for value in &section.identity {
            let read = identity(self.files, &key("identity"), value);
            terms.identities.extend(self.take(read));
        }
        if !terms.identities.is_empty() && !terms.pins.is_empty() {
            self.problems.push(format!(
                "{what}: `identity` names the certificate itself, so `pins` would add nothing\nhint: remove one of the two"
            ));
        }
        if section.client_cert.is_some() || section.client_key.is_some() {
            let (cert, key_file) = (section.client_cert.as_deref(), section.client_key.as_deref());
            own.client = self.client_identity([&key("client_cert"), &key("client_key")], cert, key_file);
            changed = true;
        }
        own.min_version = section.min_tls.unwrap_or(own.min_version);
        own.report_only = self.report_only(what, section);
        changed |=
            own.trust.terms != before.trust.terms || own.min_version != before.min_version || own.report_only.is_some();
        changed.then_some(own)
    }

    fn own_anchors(&mut self, what: &str, section: &UpstreamOptions) -> Option<Arc<crate::tls::trust::TrustAnchors>> {
        let name = format!("{what}: ca_bundle");
        let system = (section.system_roots == Some(true)).then(|| format!("{what}: system_roots"));
        let paths: Vec<_> = section.ca_bundle.iter().map(|path| format!("`{}`", show_value(path))).collect();
        let source = if paths.is_empty() { String::new() } else { format!("{name} {}", paths.join(", ")) };
        let read = super::super::load::bundle(self.files, &name, &section.ca_bundle)
            .and_then(|files| self.anchors(source, files, system.as_deref()));
        let read = Arc::new(self.take(read)?);
        self.warn_of_skipped(&read);
        Some(read)
    }

    fn report_only(&mut self, what: &str, section: &UpstreamOptions) -> Option<ReportOnly> {
        let Some(day) = &section.report_only_until else {
            if section.disable_https_verification == Some(true) {
                self.problems
                    .push(format!("{what}: disable_https_verification `true` is not possible\nhint: {NO_INSECURE}"));
            } else if !section.report_only.is_empty() {
                self.problems.push(format!(
                    "{what}: report_only: there is no end date\nhint: set `report_only_until = DATE` too (at most 90 days ahead); until then these refusals are recorded but not enforced"
                ));
            }
            return None;
        };
        let only = ReportOnly::through(day, &section.report_only, self.clock.now());
        let only = self.take(only.map_err(|why| format!("{what}: {why}")))?;
        self.warnings.push(match only.until > self.clock.now() {
            true => format!("{what}: refusals are recorded and NOT enforced until {}", rfc3339(only.until)),
            false => format!("{what}: report_only_until {day} has passed; refusals are enforced"),
        });
        Some(only)
    }
}
