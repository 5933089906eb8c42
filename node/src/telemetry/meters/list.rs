//! The list of all metrics.

use super::{Kind, Meter, counter};

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
/// The kinds of records of the store.
const RECORDS: &[&str] = &[
    "functions",
    "subscriptions",
    "eventtypes",
    "cors",
    "schedules",
    "secrets",
    "versions",
    "aliases",
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
            &[("records", RECORDS)],
            "histogram of how long the node took to read changed records and to make its index of them anew",
        )
    },
    Meter {
        kind: Kind::Histogram,
        ..counter(
            "hearth_registry_swap_seconds",
            &[("records", RECORDS)],
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
