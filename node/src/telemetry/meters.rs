//! Every metric of a node: what it says, and its series from the start, so that an alert on a rate sees the first increment too.
//!
//! The code that counts names its metric itself; a test holds this list, docs/operations.md and that code together.

use metrics::Label;

mod list;

pub use list::METERS;

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    /// Its name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// Its labels, with the values that are there from the start; none where they are only known later.
    pub labels: &'static [(&'static str, &'static [&'static str])],
    /// What it says.
    pub help: &'static str,
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Appears with its first value.
    Histogram,
}

const fn counter(
    name: &'static str,
    labels: &'static [(&'static str, &'static [&'static str])],
    help: &'static str,
) -> Meter {
    Meter {
        name,
        kind: Kind::Counter,
        labels,
        help,
    }
}

/// Describes all metrics and registers their series with 0; the recorder must be installed by then.
pub(super) fn register() {
    for meter in METERS {
        let Meter {
            name, help, kind, ..
        } = *meter;
        match kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
            Kind::Histogram => metrics::describe_histogram!(name, help),
        }
        for labels in meter.series() {
            match kind {
                Kind::Counter => metrics::counter!(name, labels).absolute(0),
                Kind::Gauge => metrics::gauge!(name, labels).set(0.0),
                Kind::Histogram => {}
            }
        }
    }
}

impl Meter {
    /// The labels of each series that is there from the start.
    fn series(&self) -> Vec<Vec<Label>> {
        let mut series = vec![Vec::new()];
        for (name, values) in self.labels {
            let with = |labels: &Vec<Label>, value: &'static str| {
                let mut labels = labels.clone();
                labels.push(Label::from_static_parts(name, value));
                labels
            };
            series = series
                .iter()
                .flat_map(|labels| values.iter().map(move |value| with(labels, value)))
                .collect();
        }
        series
    }

    /// Its row in the table of docs/operations.md.
    pub fn row(&self) -> String {
        let labels = match self.labels {
            [(name, values)] if !values.is_empty() => format!("{name}: {}", values.join(", ")),
            labels => labels
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(", "),
        };
        format!("| `{}` | {labels} | {} |\n", self.name, self.help).replace("|  |", "| |")
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn every_series_is_there_from_the_start() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, register);
        let text = handle.render();
        for series in [
            r#"hearth_http_requests_total{listener="events",status="503"} 0"#,
            r#"hearth_http_connections{listener="config"} 0"#,
            "hearth_engine_up 0",
            "hearth_store_staleness_seconds 0",
            r#"hearth_gossip_dropped_total{reason="key"} 0"#,
            r#"hearth_actor_restarts_total{actor="executor"} 0"#,
            "# HELP hearth_engine_up 1 while the container engine answers",
            "# TYPE hearth_engine_timeouts_total counter",
        ] {
            assert!(text.contains(series), "{series} is not in\n{text}");
        }
        let counts = |meter: &&Meter| meter.kind != Kind::Histogram && !meter.series().is_empty();
        for meter in METERS.iter().filter(counts) {
            assert!(
                text.contains(&format!("\n{}", meter.name)),
                "{}",
                meter.name
            );
        }
    }
}
