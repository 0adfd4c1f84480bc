//! What a generation of settings says about itself, for metrics: the labels of its upstreams, and what in it has a date.

use crate::{
    metrics::facts::{BundleFacts, Dated, DatedKind, Facts, ListenerFacts},
    mint::{ISSUER_FILE, LocalCa, ROOT_FILE},
    route::upstream::{TlsHandle, Upstream},
    text::show_value,
    tls::presented::Certificate,
};

use super::settings::{BoundAddress, Generation, ListenerSettings, Service};

impl Generation {
    /// The value of the `upstream` label for an upstream: `host:port` of a fixed route or of what is configured
    /// exactly, else the pattern that allows it. Clients cannot choose it.
    pub(super) fn label(&self, upstream: &Upstream) -> String {
        let fixed = self.listeners.iter().filter_map(|listener| listener.service.fixed());
        if fixed.into_iter().any(|fixed| fixed.is_at(&upstream.host, upstream.port)) {
            return upstream.authority();
        }
        self.routes.label(&upstream.host, upstream.port)
    }

    /// All of it. `bound`: where the listeners are bound.
    pub fn facts(&self, bound: &[BoundAddress]) -> Facts {
        let forwarded = self.routes.labels();
        let listener = |(listener, bound): (&ListenerSettings, &BoundAddress)| ListenerFacts {
            name: listener.name.as_str().into(),
            address: bound.to_string(),
            to: listener.service.to_string(),
            upstreams: match &listener.service {
                Service::Fixed(upstream) => vec![upstream.authority()],
                Service::Forward | Service::Original(_) => forwarded.clone(),
            },
        };
        let mut facts = Facts {
            generation: self.number,
            listeners: self.listeners.iter().zip(bound).map(listener).collect(),
            ..Facts::default()
        };
        self.add_trust(&self.routes.tls, &mut facts);
        for upstream in &self.routes.upstreams {
            let Some(tls) = &upstream.tls else { continue };
            self.add_trust(tls, &mut facts);
            let report_only = tls.0.settings().report_only.as_ref();
            facts.dated.extend(report_only.map(|report_only| Dated {
                kind: DatedKind::ReportOnly,
                name: upstream.of.to_string(),
                subject: String::new(),
                since: None,
                until: report_only.until,
            }));
        }
        facts.dated.extend(self.minter.iter().flat_map(|minter| of_local_ca(minter.ca())));
        facts
    }

    /// Adds what of some TLS settings is not there yet.
    fn add_trust(&self, tls: &TlsHandle, facts: &mut Facts) {
        let settings = tls.0.settings();
        let anchors = &settings.trust.anchors;
        if !facts.bundles.iter().any(|bundle| bundle.name == anchors.source) {
            let ends = anchors.certificates().iter().filter_map(|certificate| {
                let not_after = certificate.facts.as_ref().ok()?.not_after;
                Some((not_after, certificate.name()))
            });
            let mut ends: Vec<_> = ends.collect();
            ends.sort();
            facts.bundles.push(BundleFacts {
                name: anchors.source.clone(),
                certificates: anchors.certificates().len(),
                ends,
                loaded: tls.0.made(),
            });
        }
        let client = settings
            .client
            .as_ref()
            .and_then(|client| of_certificate(DatedKind::ClientCertificate, client.file.clone(), &client.certificate));
        let lists = settings.trust.crls.dates.iter().map(|list| Dated {
            kind: DatedKind::Crl,
            name: list.file.clone(),
            subject: list.issuer.clone(),
            since: Some(list.this_update),
            until: list.next_update,
        });
        for dated in client.into_iter().chain(lists) {
            if !facts.dated.contains(&dated) {
                facts.dated.push(dated);
            }
        }
    }
}

/// The certificates of the local CA: its clients verify both.
fn of_local_ca(ca: &LocalCa) -> impl Iterator<Item = Dated> {
    [(ROOT_FILE, &ca.root), (ISSUER_FILE, &ca.intermediate)].into_iter().filter_map(|(file, certificate)| {
        of_certificate(DatedKind::LocalCa, show_value(ca.directory.join(file)), certificate)
    })
}

/// When a certificate in a file expires; `None` if it cannot be read.
fn of_certificate(kind: DatedKind, name: String, certificate: &Certificate) -> Option<Dated> {
    let facts = certificate.facts.as_ref().ok()?;
    let (since, until) = (Some(facts.not_before), facts.not_after);
    Some(Dated { kind, name, subject: certificate.name(), since, until })
}
