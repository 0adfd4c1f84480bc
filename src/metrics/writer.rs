//! Writing metrics: names, labels and values in the OpenMetrics text format, and in the one of Prometheus before it.

use std::fmt::{self, Write};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, LabelSetEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::counters::Histogram;

/// The labels of a series.
#[derive(Debug, Default)]
pub(super) struct Labels(Vec<(&'static str, String)>);

impl Labels {
    pub(super) fn of<const N: usize>(labels: [(&'static str, &str); N]) -> Self {
        Self(labels.map(|(name, value)| (name, value.to_owned())).into())
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// Writes metrics with all their series.
pub(super) struct Writer<'a>(pub(super) DescriptorEncoder<'a>);

impl Writer<'_> {
    pub(super) fn counter<V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        series.into_iter().try_for_each(|(labels, value)| match labels.0.is_empty() {
            true => metric.encode_counter::<NoLabelSet, V, u64>(&value, None),
            false => metric.encode_family(&labels)?.encode_counter::<NoLabelSet, V, u64>(&value, None),
        })
    }

    pub(super) fn gauge<V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, V)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        series.into_iter().try_for_each(|(labels, value)| match labels.0.is_empty() {
            true => metric.encode_gauge(&value),
            false => metric.encode_family(&labels)?.encode_gauge(&value),
        })
    }

    pub(super) fn histogram<'l>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels, &'l Histogram)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        series.into_iter().try_for_each(|(labels, histogram)| {
            let (sum, buckets) = histogram.values();
            let count = buckets.iter().map(|(_, count)| count).sum();
            match labels.0.is_empty() {
                true => metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None),
                false => metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None),
            }
        })
    }
}

/// The same in the text format 0.0.4, in which the name of a counter has its `_total` in the lines about it too.
pub(super) fn before_openmetrics(openmetrics: &str) -> Result<String, fmt::Error> {
    let mut written = String::with_capacity(openmetrics.len());
    let mut help: Option<(&str, &str)> = None;
    for line in openmetrics.lines() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            help = about.split_once(' ');
        } else if let Some(about) = line.strip_prefix("# TYPE ") {
            let (name, kind) = about.split_once(' ').unwrap_or((about, ""));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take().filter(|(helped, _)| *helped == name) {
                writeln!(written, "# HELP {name}{suffix} {help}")?;
            }
            writeln!(written, "# TYPE {name}{suffix} {kind}")?;
        } else if line != "# EOF" {
            writeln!(written, "{line}")?;
        }
    }
    Ok(written)
}
