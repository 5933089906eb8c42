//! The boot settings of one node: one tree, a struct and a file per section.
//!
//! Defaults, then the TOML file, then `HEARTH_SECTION__KEY`, then flags; unknown keys are refused.

mod auth;
mod aws;
mod cloud;
mod cluster;
mod destinations;
mod docker;
mod error;
mod executions;
mod executor;
mod field;
mod http;
mod jetstream;
mod lambda;
mod limits;
mod listen;
mod load;
mod logs;
mod node;
mod outbound;
mod plugins;
mod process;
mod queue;
mod quotas;
mod schedules;
mod secret;
mod secrets;
mod store;
mod table;
mod telemetry;
mod tls;
mod versions;

pub use auth::{AuthMode, AuthSettings, SignUp};
pub use aws::AwsSettings;
pub use cloud::CloudSettings;
pub use cluster::{ClusterSettings, SECRETS_MAX};
pub use destinations::DestinationsSettings;
pub use docker::{DockerSettings, RegistrySettings};
pub use error::{Error, Origin};
pub use executions::ExecutionsSettings;
pub use executor::ExecutorSettings;
pub use http::HttpSettings;
pub use jetstream::JetStreamSettings;
pub use lambda::LambdaSettings;
pub use limits::LimitsSettings;
pub use listen::ListenSettings;
pub use load::Flags;
pub use logs::{LogFormat, LogsSettings};
pub use node::NodeSettings;
pub use outbound::OutboundSettings;
pub use plugins::{OnFailure, PluginOptions, PluginSettings, PluginsSettings};
pub use process::ProcessSettings;
pub use queue::{QueueBackend, QueueSettings};
pub use quotas::QuotasSettings;
pub use schedules::SchedulesSettings;
pub use secret::Secret;
pub use secrets::SecretsSettings;
pub use store::{EtcdSettings, StoreSettings};
pub use table::table;
pub use telemetry::TelemetrySettings;
pub use tls::{CertificateFiles, CertificateSettings, TlsSettings};
pub use versions::VersionsSettings;

use field::section;

section! {
    /// All boot settings of one node.
    pub struct Settings {
        /// The node itself.
        pub node: NodeSettings = NodeSettings::default(),
        /// Where it listens. Port 0 takes any free port.
        pub listen: ListenSettings = ListenSettings::default(),
        /// Certificates of the client listeners.
        pub tls: TlsSettings = TlsSettings::default(),
        /// Who may call.
        pub auth: AuthSettings = AuthSettings::default(),
        /// The config store: etcd when it has endpoints, else embedded in this node.
        pub store: StoreSettings = StoreSettings::default(),
        /// Gossip and peers.
        pub cluster: ClusterSettings = ClusterSettings::default(),
        /// Admission at the edge.
        pub limits: LimitsSettings = LimitsSettings::default(),
        /// How limits are shared by nodes, and those of users and spaces that have none of their own. 0 is no limit.
        pub quotas: QuotasSettings = QuotasSettings::default(),
        /// Instances of pooled functions.
        pub executor: ExecutorSettings = ExecutorSettings::default(),
        /// Functions of type `container`.
        pub docker: DockerSettings = DockerSettings::default(),
        /// Functions of type `process`.
        pub process: ProcessSettings = ProcessSettings::default(),
        /// Functions of the `lambda` contract, and the API of AWS Lambda that clients call.
        pub lambda: LambdaSettings = LambdaSettings::default(),
        /// Functions of type `http`.
        pub http: HttpSettings = HttpSettings::default(),
        /// Functions of the AWS types, and of types `gcloudfunction`, `azurefunction` and `openwhisk`. What `[http]` says of connections and ejection counts for them, too.
        pub cloud: CloudSettings = CloudSettings::default(),
        /// Functions of types `awslambda`, `awskinesis`, `awsfirehose` and `awssqs`: the credentials of those whose records have none.
        pub aws: AwsSettings = AwsSettings::default(),
        /// Events on their way to their subscribers.
        pub queue: QueueSettings = QueueSettings::default(),
        /// Asynchronous invocations, as the config store keeps them.
        pub executions: ExecutionsSettings = ExecutionsSettings::default(),
        /// Where ends of executions and deliveries are told: callbacks, `onSuccess` and `onFailure`.
        pub destinations: DestinationsSettings = DestinationsSettings::default(),
        /// Where URLs may lead that users name: webhooks and what they redirect to, callbacks, destinations.
        pub outbound: OutboundSettings = OutboundSettings::default(),
        /// Events that come by the clock.
        pub schedules: SchedulesSettings = SchedulesSettings::default(),
        /// Secrets of functions.
        pub secrets: SecretsSettings = SecretsSettings::default(),
        /// Versions of functions, and aliases.
        pub versions: VersionsSettings = VersionsSettings::default(),
        /// Plugins: WebAssembly modules that see, change or refuse events.
        pub plugins: PluginsSettings = PluginsSettings::default(),
        /// Logs of the node and output of functions.
        pub logs: LogsSettings = LogsSettings::default(),
        /// Traces.
        pub telemetry: TelemetrySettings = TelemetrySettings::default(),
    }
}
