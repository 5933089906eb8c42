//! Every metric of a node: what it says, and its series from the start, so that an alert on a rate sees the first increment too.
//!
//! The code that counts names its metric itself; a test holds this list, docs/operations.md and that code together.

use metrics::Label;

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

/// The last one is that of the instances of the node's functions.
const LISTENERS: &[&str] = &["functions", "events", "config", "inner"];
const CLIENT_LISTENERS: &[&str] = &["functions", "events", "config"];
/// Statuses that alerts look for; others appear when they are first answered.
const STATUSES: &[&str] = &["200", "429", "500", "502", "503", "504"];
const DROPPED: &[&str] = &[
    "short",
    "version",
    "key",
    "malformed",
    "replay",
    "stale",
    "incomplete",
    "own",
    "stray",
];
const GOSSIPED: &[&str] = &["about", "addresses", "status", "load", "hint", "image"];
const CHANGES: &[&str] = &[
    "accepted",
    "found",
    "taken_over",
    "redriven",
    "retried",
    "delivered",
    "dead_lettered",
    "failed",
    "void",
    "cancelled",
    "given_up",
    "lost",
];
const DENIED: &[&str] = &["invalid", "expired", "ended", "unavailable", "busy"];
const LOGINS: &[&str] = &["succeeded", "wrong", "slowed", "busy", "failed"];
const ACTORS: &[&str] = &["registry_cache", "executor", "router"];

/// Spaces are not known at the start, so these series appear with their first event.
const OF_SPACE_AND_TYPE: &[(&str, &[&str])] = &[("space", &[]), ("type", &[])];

/// All metrics; those that begin with `gateway_` have the names and labels of the serverless Event Gateway.
pub const METERS: &[Meter] = &[
    counter(
        "hearth_http_requests_total",
        &[("listener", LISTENERS), ("status", STATUSES)],
        "answers of the three APIs, and to functions that call their node (`inner`)",
    ),
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_http_connections",
            &[("listener", LISTENERS)],
            "open connections of clients and, `inner`, of functions; at `limits.connections_max` others wait",
        )
    },
    counter(
        "hearth_http_connections_refused_total",
        &[("listener", LISTENERS)],
        "connections that were closed at once, as their address had `limits.connections_per_address_max` of them",
    ),
    counter(
        "hearth_tls_handshakes_failed_total",
        &[("listener", LISTENERS)],
        "connections that ended before they were agreed on TLS: another authority, or `tls.handshake_timeout`",
    ),
    counter(
        "hearth_tls_reloads_total",
        &[
            ("listener", CLIENT_LISTENERS),
            ("outcome", &["replaced", "refused"]),
        ],
        "looks at a certificate that had changed; refused: it can not be used, and the one before is used on",
    ),
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_tls_certificate_end_seconds",
            // None before there is a certificate: zero would be one that ended in 1970.
            &[("listener", &[])],
            "when the certificate of a listener ends, in seconds since 1970",
        )
    },
    Meter {
        kind: Kind::Histogram,
        ..counter(
            "hearth_invocation_duration_seconds",
            &[("start", &["warm", "cold", "none"])],
            "histogram, from the request read to the answer made, or to the end of one that streams; none: the function did not answer, or broke off",
        )
    },
    Meter {
        kind: Kind::Histogram,
        ..counter(
            "hearth_registry_rebuild_seconds",
            &[(
                "records",
                &["functions", "subscriptions", "eventtypes", "cors"],
            )],
            "histogram of how long the node took to read changed records and to make its index of them anew",
        )
    },
    Meter {
        kind: Kind::Histogram,
        ..counter(
            "hearth_registry_swap_seconds",
            &[(
                "records",
                &["functions", "subscriptions", "versions", "aliases"],
            )],
            "histogram of the time from a change that the store told to the snapshot that calls go by",
        )
    },
    counter(
        "hearth_streams_total",
        &[("outcome", &["finished", "cut", "left"])],
        "how answers that were passed on as they came ended: `finished`, `cut` (the function, its node or its time limit; the client's connection is cut with it), `left` (the client hung up)",
    ),
    counter(
        "hearth_instances_lost_total",
        &[],
        "instances that died or were removed behind the node's back",
    ),
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_engine_up",
            &[],
            "1 while the container engine answers",
        )
    },
    counter(
        "hearth_engine_timeouts_total",
        &[],
        "calls to the engine over `docker.call_timeout`",
    ),
    counter(
        "hearth_image_pulls_total",
        &[("outcome", &["ok", "failed"])],
        "images pulled, and pulls that failed",
    ),
    counter(
        "hearth_webhook_ejections_total",
        &[],
        "webhooks, and functions of other clouds, ejected after connection failures",
    ),
    counter(
        "hearth_cloud_retries_total",
        &[(
            "type",
            &[
                "awslambda",
                "awskinesis",
                "awsfirehose",
                "awssqs",
                "gcloudfunction",
                "azurefunction",
                "openwhisk",
            ],
        )],
        "calls to other clouds that nobody took and that were made again",
    ),
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_store_staleness_seconds",
            &[],
            "since the store was last heard; 0 while it answers",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_accounts_staleness_seconds",
            &[],
            "since this node last heard of revoked tokens and keys; until it hears of them it lets them in",
        )
    },
    counter(
        "hearth_credentials_denied_total",
        &[("reason", DENIED)],
        "tokens and keys refused: `unavailable` are too new for the node while the store is away, `busy` beyond `auth.asks_max`",
    ),
    counter(
        "hearth_logins_total",
        &[("outcome", LOGINS)],
        "logins; `slowed` are refused before the password is looked at, `busy` beyond `auth.hashes_waiting_max`",
    ),
    counter(
        "hearth_limits_refused_total",
        &[
            ("of", &["caller", "function", "space"]),
            ("limit", &["rate", "concurrent", "queued"]),
        ],
        "calls, requests and deliveries over a limit that was set",
    ),
    counter(
        "hearth_limits_settle_failures_total",
        &[],
        "limits that could not be settled with the other nodes, which share them through the store",
    ),
    counter(
        "hearth_store_watch_reconnects_total",
        &[],
        "how often the watch was set up anew",
    ),
    counter(
        "hearth_store_watch_relists_total",
        &[],
        "how often all records were read anew",
    ),
    counter(
        "hearth_gossip_dropped_total",
        &[("reason", DROPPED)],
        "datagrams not taken: `key` is a wrong secret, `replay` and `stale` are old ones (`stale` is normal after a restart)",
    ),
    counter(
        "hearth_gossip_malformed_total",
        &[("value", GOSSIPED)],
        "what peers said that can not be read: versions too far apart",
    ),
    counter(
        "hearth_gossip_send_errors_total",
        &[],
        "datagrams that could not be sent",
    ),
    counter(
        "hearth_peer_strangers_total",
        &[],
        "connections with an unknown certificate; a few when a node is new",
    ),
    counter(
        "hearth_peer_connections_shed_total",
        &[],
        "peers' connections over `cluster.peer_connections_max`",
    ),
    counter(
        "hearth_actor_restarts_total",
        &[("actor", ACTORS)],
        "bugs; see the log",
    ),
    counter(
        "hearth_deliveries_total",
        &[
            ("lane", &["custom", "system"]),
            (
                "outcome",
                &["delivered", "void", "failed", "refused", "lost"],
            ),
        ],
        "how attempts at deliveries ended: `delivered`, `void` (an execution that had ended, as by a cancel), `failed` (with `embedded`, `etcd` and `jetstream` a dead letter, or the end of an execution), `refused` (tried again), `lost` (with `memory`: left at the end of a drain)",
    ),
    counter(
        "hearth_queue_deliveries_total",
        &[("change", CHANGES)],
        "the books of this node's queue since it started. In: `accepted`, `found` (at the start, with `embedded`), `taken_over`, `redriven`. Over: `delivered`, `dead_lettered`, `failed` (told by its execution), `void` (its execution had ended), `cancelled`, `given_up` (to another node), `lost` (with `memory`). `retried` is neither",
    ),
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_queue_pending",
            &[],
            "deliveries that wait or run on this node by these books, as of the last audit",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_queue_drift",
            &[],
            "how many more there should be by the books than the last audit found where the queue keeps them; 0 when nothing is lost, below 0 when something may be delivered again",
        )
    },
    counter(
        "hearth_queue_audits_total",
        &[("outcome", &["done", "failed"])],
        "audits, one each `queue.audit_interval`: `failed` when etcd, NATS or the disk did not answer",
    ),
    counter(
        "hearth_delivery_leases_lost_total",
        &[],
        "deliveries whose task gave no sign of life within `queue.lease_timeout`, or with `etcd` and `jetstream` whose node lost its session, and that are made once more",
    ),
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_dead_letters",
            &[],
            "deliveries that ended without success and are kept: with `embedded` on this node's disk, with `etcd` and `jetstream` those of the cluster, on every node",
        )
    },
    counter(
        "hearth_dead_letters_dropped_total",
        &[],
        "dead letters that were dropped, as they were too many (`queue.dead_len_max`, `queue.dead_bytes_max`) or too old",
    ),
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_queue_disk_bytes",
            &[],
            "bytes of the queue's files; at `queue.disk_max` events are answered with 503",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_queue_etcd_bytes",
            &[],
            "with `etcd`: bytes that etcd has in use; at half of `queue.storage_max` events are answered with 503",
        )
    },
    counter(
        "hearth_queue_sessions_lost_total",
        &[],
        "with `etcd`: how often this node lost what it held to the others, as etcd did not hear of it; see the log",
    ),
    counter(
        "hearth_deliveries_taken_over_total",
        &[],
        "with `etcd` and `jetstream`: deliveries that this node took over from nodes that are gone, or with `etcd` had no permits",
    ),
    counter(
        "hearth_executions_total",
        &[(
            "status",
            &["accepted", "succeeded", "failed", "cancelled", "expired"],
        )],
        "asynchronous invocations that this node accepted, and those that it ended, by their end",
    ),
    counter(
        "hearth_idempotency_keys_dropped_total",
        &[],
        "keys that were forgotten before `executions.key_window` was over, as there were more than `executions.keys_max`",
    ),
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_schedules",
            &[("space", &[])],
            "schedules that this node knows: the same on every node",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_secrets",
            &[("space", &[])],
            "secrets that this node knows: the same on every node",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_versions",
            &[("space", &[])],
            "versions of functions that this node knows: the same on every node",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_aliases",
            &[("space", &[])],
            "aliases that this node knows: the same on every node",
        )
    },
    counter(
        "hearth_schedule_slots_total",
        &[("outcome", &["fired", "missed"])],
        "slots of schedules: `fired` by this node, or `missed` as no node could fire them in time, told by the one that fired the next",
    ),
    counter(
        "hearth_schedule_failures_total",
        &[("reason", &["store", "queue"])],
        "slots that this node could not fire: `store` (the config store could not be written, so nobody may know), `queue` (no room); another node or attempt may have",
    ),
    Meter {
        kind: Kind::Histogram,
        ..counter(
            "hearth_schedule_late_seconds",
            &[],
            "histogram, from the time of a slot until its event was queued",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "hearth_clock_skew_seconds",
            &[],
            "how far this node's clock is ahead of the clock that schedules go by, as it told it last; below 0: behind",
        )
    },
    counter(
        "hearth_system_events_dropped_total",
        &[],
        "system events without room; part of `gateway_events_dropped_total`",
    ),
    counter(
        "hearth_plugin_calls_total",
        &[("plugin", &[]), ("stage", &[]), ("outcome", &[])],
        "what plugins were asked or told: `passed`, `changed`, `vetoed`, `failed`, `timed_out`, `busy` (no turn in time), `dropped` (an async one whose lane was full)",
    ),
    Meter {
        kind: Kind::Histogram,
        ..counter(
            "hearth_plugin_call_duration_seconds",
            &[("plugin", &[])],
            "histogram of how long plugins took, the wait for a turn aside",
        )
    },
    counter(
        "hearth_plugin_reloads_total",
        &[("plugin", &[]), ("outcome", &[])],
        "files of plugins that changed: `loaded`, or `refused`, and the plugin goes on as it was",
    ),
    counter(
        "gateway_events_received_total",
        OF_SPACE_AND_TYPE,
        "events that came, as Event Gateway counts them; of the gateway's own (`gateway.function.…`) those that somebody subscribed to",
    ),
    counter(
        "gateway_events_processed_total",
        OF_SPACE_AND_TYPE,
        "events that were handled; a queued one (`custom`) counts when its first delivery was tried, or at once when nobody subscribed",
    ),
    counter(
        "gateway_events_dropped_total",
        OF_SPACE_AND_TYPE,
        "events without room: custom ones that were answered with 503, and system events",
    ),
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "gateway_events_backlog",
            &[],
            "deliveries of custom events that wait, one for each subscriber",
        )
    },
    Meter {
        kind: Kind::Histogram,
        ..counter(
            "gateway_events_custom_processing_seconds",
            &[],
            "histogram, from accepted to the start of each delivery",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "gateway_functions_total",
            &[("space", &[])],
            "functions that this node knows: the same on every node, unlike the original's",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "gateway_subscriptions_total",
            &[("space", &[])],
            "subscriptions that this node knows",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "gateway_eventtypes_total",
            &[("space", &[])],
            "event types that this node knows",
        )
    },
    Meter {
        kind: Kind::Gauge,
        ..counter(
            "gateway_cors_total",
            &[("space", &[])],
            "CORS configurations that this node knows",
        )
    },
    counter(
        "gateway_config_requests_total",
        &[("space", &[]), ("resource", &[]), ("operation", &[])],
        "requests for functions, subscriptions, event types and CORS configurations on the config API; not those whose body is no JSON",
    ),
    Meter {
        kind: Kind::Histogram,
        ..counter(
            "gateway_config_request_duration_seconds",
            &[],
            "histogram of how long they took",
        )
    },
];

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
