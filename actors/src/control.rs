//! All that the HTTP edge may do with a node.

use std::sync::Arc;

use crate::backup::Backup;
use crate::catalog::Catalog;
use crate::executions::Executions;
use crate::invoker::Invoker;
use crate::output::ClusterOutput;
use crate::quotas::Quotas;
use crate::registry_cache::Registry;
use crate::snapshot::Reader;
use crate::view::View;

/// All that the HTTP edge may do with a node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    /// The `--name` of the node.
    pub node_name: Arc<str>,
    /// Runs functions.
    pub invoker: Invoker,
    /// The functions this node knows.
    pub registry: Reader<Registry>,
    /// Reads and changes the cluster's records.
    pub catalog: Catalog,
    /// The whole configuration.
    pub backup: Backup,
    /// Asynchronous invocations.
    pub executions: Executions,
    /// What functions wrote, on every node.
    pub output: ClusterOutput,
    /// What may be asked for.
    pub quotas: Option<Quotas>,
    /// Status and diagnostics.
    pub view: View,
}
