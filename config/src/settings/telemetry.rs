//! `[telemetry]`: traces.

use super::Error;
use super::error::require;
use super::field::section;

section! {
    /// Traces.
    pub struct TelemetrySettings {
        /// The full OTLP/HTTP traces URL, such as `http://127.0.0.1:4318/v1/traces`; no traces without one.
        pub otlp_endpoint: Option<String> = None,
        /// The share of traces begun here that are recorded; a caller's own decision is kept.
        pub sample_ratio: f64 = 1.0,
    }
}

impl TelemetrySettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        let ratio = self.sample_ratio;
        require(
            (0.0..=1.0).contains(&ratio),
            "telemetry.sample_ratio",
            ratio,
            "a number from 0 to 1",
        )?;
        let Some(url) = &self.otlp_endpoint else {
            return Ok(());
        };
        let right = url.starts_with("http://") || url.starts_with("https://");
        require(
            right,
            "telemetry.otlp_endpoint",
            format!("{url:?}"),
            "a URL such as http://127.0.0.1:4318/v1/traces",
        )
    }
}
