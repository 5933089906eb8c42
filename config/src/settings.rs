//! The boot settings of one node: one tree, a struct and a file per section.
//!
//! Defaults, then the TOML file, then `HEARTH_SECTION__KEY`, then flags; unknown keys are refused.

use serde::{Deserialize, Serialize};

mod auth;
mod cluster;
mod docker;
mod executor;
mod http;
mod limits;
mod listen;
mod load;
mod logs;
mod node;
mod process;
mod secret;
mod store;
mod telemetry;

pub use auth::{AuthMode, AuthSettings};
pub use cluster::ClusterSettings;
pub use docker::{DockerSettings, RegistrySettings};
pub use executor::ExecutorSettings;
pub use http::HttpSettings;
pub use limits::LimitsSettings;
pub use listen::ListenSettings;
pub use load::{Error, Flags};
pub use logs::{LogFormat, LogsSettings};
pub use node::NodeSettings;
pub use process::ProcessSettings;
pub use secret::Secret;
pub use store::{EtcdSettings, StoreSettings};
pub use telemetry::TelemetrySettings;

/// All boot settings of one node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The node itself.
    pub node: NodeSettings,
    /// Where it listens.
    pub listen: ListenSettings,
    /// Who may call.
    pub auth: AuthSettings,
    /// The config store.
    pub store: StoreSettings,
    /// Gossip and peers.
    pub cluster: ClusterSettings,
    /// Admission at the edge.
    pub limits: LimitsSettings,
    /// Instances of pooled functions.
    pub executor: ExecutorSettings,
    /// Functions of type `container`.
    pub docker: DockerSettings,
    /// Functions of type `process`.
    pub process: ProcessSettings,
    /// Functions of type `http`.
    pub http: HttpSettings,
    /// Logs of the node and output of functions.
    pub logs: LogsSettings,
    /// Traces.
    pub telemetry: TelemetrySettings,
}
