//! `[http]`: functions of type `http`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Functions of type `http`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Connection failures and timeouts in a row after which a function is ejected. Default: 5, and at least that.
    pub failures_max: u32,
    /// How long an ejected function is refused before one call tries it again, doubled up to ten times as long. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub ejection: Duration,
    /// How long connecting may take. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Redirects followed. Default: 10.
    pub redirects_max: usize,
    /// Idle connections kept to one host. Default: 64.
    pub idle_connections_max: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            failures_max: 5,
            ejection: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            redirects_max: 10,
            idle_connections_max: 64,
        }
    }
}
