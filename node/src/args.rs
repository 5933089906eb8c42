//! The command line of `hearth`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use config::Settings;
use config::settings::{Error, Flags};
use serde_json::json;

pub mod original;

/// Runs functions where they are warm: a clustered function runtime and event gateway.
#[derive(Debug, Parser)]
#[command(name = "hearth", version, after_help = cli::EXIT_CODES)]
pub struct Arguments {
    #[command(flatten)]
    pub options: cli::Options,
    #[command(subcommand)]
    pub command: Command,
}

/// What `hearth` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs one node until it is told to stop; SIGTERM drains it.
    Node(NodeArguments),
    /// Runs a node, or a cluster, on this machine for trying things out: local commands are allowed.
    Dev(DevArguments),
    /// Prints the effective settings as TOML, secrets redacted.
    Settings(NodeArguments),
    #[command(flatten)]
    Operator(cli::Command),
}

/// The settings that have flags; each is also in the settings file and the environment.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArguments {
    /// The settings file, TOML.
    #[arg(long, value_name = "FILE", env = "HEARTH_SETTINGS_FILE")]
    pub settings: Option<PathBuf>,
    /// The name people know the node by [setting: node.name].
    #[arg(long)]
    pub name: Option<String>,
    /// Where the node keeps its id, snapshot and embedded store; created when missing [setting: node.data_dir].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Client URLs of etcd, with commas between; without, the node uses its embedded store [setting: store.etcd.endpoints].
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd: Vec<String>,
    /// A peer to find the cluster by; may be repeated [setting: cluster.seeds].
    #[arg(long, value_name = "HOST:PORT")]
    pub seed: Vec<String>,
    /// The host peers reach the node at; the host of --peer-listen without [setting: node.advertise].
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// The file with the cluster's secrets, one a line, at least 32 bytes each [setting: cluster.secret_file].
    #[arg(long, value_name = "FILE")]
    pub cluster_secret_file: Option<PathBuf>,
    /// Where the functions API listens [setting: listen.functions].
    #[arg(long, value_name = "ADDRESS")]
    pub functions_listen: Option<String>,
    /// Where the events API listens [setting: listen.events].
    #[arg(long, value_name = "ADDRESS")]
    pub events_listen: Option<String>,
    /// Where the config API listens [setting: listen.config].
    #[arg(long, value_name = "ADDRESS")]
    pub config_listen: Option<String>,
    /// Where peers are heard, TCP and UDP [setting: listen.peer].
    #[arg(long, value_name = "ADDRESS")]
    pub peer_listen: Option<String>,
    /// The certificate of all client listeners, PEM; without, they speak plain HTTP [setting: tls.cert_file].
    #[arg(long, value_name = "FILE")]
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's private key, PEM [setting: tls.key_file].
    #[arg(long, value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// off or required; off only while every client listener is loopback [setting: auth.mode].
    #[arg(long, value_name = "MODE")]
    pub auth: Option<String>,
    /// The file with the administrator's bearer token [setting: auth.admin_token_file].
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Lets functions of type process run here [setting: process.allow].
    #[arg(long)]
    pub allow_process: bool,
    /// A plugin, a WebAssembly module; may be repeated, and stands for all that other settings name [setting: plugins.load].
    #[arg(long, value_name = "FILE")]
    pub plugin: Vec<PathBuf>,
    /// The container engine [setting: docker.host].
    #[arg(long, value_name = "URL")]
    pub docker_host: Option<String>,
    /// Any setting that no other flag gives, by its key such as queue.permits; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    pub set: Vec<(String, String)>,
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE, such as queue.permits=100".to_owned()),
    }
}

/// What `hearth dev` is told.
#[derive(Debug, Clone, Args)]
pub struct DevArguments {
    /// How many nodes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub nodes: u16,
    #[command(flatten)]
    pub node: NodeArguments,
}

impl NodeArguments {
    /// The flags that were given, by setting.
    pub fn flags(&self) -> Flags {
        let texts = [
            ("node.name", self.name.clone()),
            ("node.advertise", self.advertise.clone()),
            ("listen.functions", self.functions_listen.clone()),
            ("listen.events", self.events_listen.clone()),
            ("listen.config", self.config_listen.clone()),
            ("listen.peer", self.peer_listen.clone()),
            ("auth.mode", self.auth.clone()),
            ("docker.host", self.docker_host.clone()),
        ];
        let paths = [
            ("node.data_dir", &self.data_dir),
            ("cluster.secret_file", &self.cluster_secret_file),
            ("auth.admin_token_file", &self.admin_token_file),
            ("tls.cert_file", &self.tls_cert_file),
            ("tls.key_file", &self.tls_key_file),
        ];
        let lists = [
            ("store.etcd.endpoints", &self.etcd),
            ("cluster.seeds", &self.seed),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(key, value)| Some((key, json!(value?))));
        let paths = paths
            .into_iter()
            .filter_map(|(key, value)| Some((key, json!(value.as_ref()?))));
        let lists = lists
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| (key, json!(value)));
        let allow = self.allow_process.then_some(("process.allow", json!(true)));
        let plugins = self.plugin.iter().map(|path| json!({ "path": path }));
        let plugins = (!self.plugin.is_empty()).then(|| ("plugins.load", plugins.collect()));
        let set = self.set.iter();
        let set = set.map(|(key, value)| (key.as_str(), json!(value)));
        // A flag that names a setting counts more than one for any.
        let named = texts.chain(paths).chain(lists).chain(allow).chain(plugins);
        let given = set.chain(named);
        given.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// The effective settings.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub fn load(&self) -> Result<Settings, Error> {
        Settings::load(self.settings.as_deref(), &self.flags())
    }
}
