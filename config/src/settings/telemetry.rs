//! `[telemetry]`: traces.

use serde::{Deserialize, Serialize};

/// Traces.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// The full OTLP/HTTP traces URL, such as `http://127.0.0.1:4318/v1/traces`; no traces without one. Default: none.
    pub otlp_endpoint: Option<String>,
    /// The share of traces begun here that are recorded; a caller's own decision is kept. Default: 1.0.
    pub sample_ratio: f64,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            sample_ratio: 1.0,
        }
    }
}
