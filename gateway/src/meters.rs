//! What the edge counts. Handles of the warm path are looked up once.

use http::StatusCode;
use metrics::{Counter, Gauge, Histogram};
use protocol::invocation::StartKind;

/// What one listener counts.
pub(crate) struct ListenerMeters {
    label: &'static str,
    ok: Counter,
    /// Connections open now.
    pub(crate) connections: Gauge,
    /// Connections that were closed at once, as their address had too many.
    pub(crate) connections_refused: Counter,
    /// Clients that did not get through the handshake of TLS.
    pub(crate) handshakes_failed: Counter,
}

impl ListenerMeters {
    /// Registers the meters of a listener; the recorder must be installed by then.
    pub(crate) fn new(label: &'static str) -> Self {
        Self {
            label,
            ok: metrics::counter!("hearth_http_requests_total", "listener" => label, "status" => "200"),
            connections: metrics::gauge!("hearth_http_connections", "listener" => label),
            connections_refused: metrics::counter!("hearth_http_connections_refused_total", "listener" => label),
            handshakes_failed: metrics::counter!("hearth_tls_handshakes_failed_total", "listener" => label),
        }
    }

    /// Counts an answer.
    pub(crate) fn count(&self, status: StatusCode) {
        if status == StatusCode::OK {
            self.ok.increment(1);
        } else {
            let status = status.as_str().to_owned();
            metrics::counter!("hearth_http_requests_total", "listener" => self.label, "status" => status).increment(1);
        }
    }
}

/// What the events API counts, under the names of Event Gateway.
pub(crate) struct EventMeters {
    /// `http` events, whatever their space turns out to be.
    pub(crate) received_http: Counter,
}

impl EventMeters {
    /// Registers the meters; the recorder must be installed by then.
    pub(crate) fn new() -> Self {
        Self {
            received_http: metrics::counter!("gateway_events_received_total", "space" => "", "type" => "http"),
        }
    }

    /// Counts an event that came. `space` is one that exists, or empty.
    pub(crate) fn received(&self, space: &str, event_type: &'static str) {
        metrics::counter!("gateway_events_received_total", "space" => space.to_owned(), "type" => event_type).increment(1);
    }

    /// Counts an event that was handled, whatever came of it. `space` is one that exists, or empty.
    pub(crate) fn processed(&self, space: &str, event_type: &'static str) {
        metrics::counter!("gateway_events_processed_total", "space" => space.to_owned(), "type" => event_type).increment(1);
    }
}

/// How long invocations took, from the whole request read to the answer made, or to the end of one that streams.
pub(crate) struct InvocationMeters {
    warm: Histogram,
    cold: Histogram,
    failed: Histogram,
}

impl InvocationMeters {
    /// Registers the meters; the recorder must be installed by then.
    pub(crate) fn new() -> Self {
        let duration =
            |start| metrics::histogram!("hearth_invocation_duration_seconds", "start" => start);
        Self {
            warm: duration("warm"),
            cold: duration("cold"),
            failed: duration("none"),
        }
    }

    /// The histogram of invocations that began so; `None` for those that the function did not answer.
    pub(crate) fn duration(&self, start: Option<StartKind>) -> &Histogram {
        match start {
            Some(StartKind::Warm) => &self.warm,
            Some(StartKind::Cold) => &self.cold,
            None => &self.failed,
        }
    }
}
