//! How our containers are named and labelled.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use protocol::function::Contract;

use super::Setup;
use crate::LaunchSpec;

/// The labels of our containers and networks.
pub(super) mod labels {
    pub(in crate::docker) const CLUSTER: &str = "hearth.cluster";
    pub(in crate::docker) const NODE: &str = "hearth.node";
    pub(in crate::docker) const GENERATION: &str = "hearth.generation";
    pub(in crate::docker) const SPACE: &str = "hearth.space";
    pub(in crate::docker) const FUNCTION: &str = "hearth.function";
    pub(in crate::docker) const INSTANCE_KEY: &str = "hearth.instance-key";
    pub(in crate::docker) const CONTRACT: &str = "hearth.contract";
    pub(in crate::docker) const CONCURRENCY: &str = "hearth.concurrency";
    pub(in crate::docker) const PORT: &str = "hearth.port";
}

/// A new name: the node and the instance key make it readable, the random part unique.
pub(super) fn container(setup: &Setup, spec: &LaunchSpec) -> String {
    let node: String = setup.node.as_str().chars().take(8).collect();
    let key: String = spec.key.to_string().chars().take(8).collect();
    format!("hearth-{node}-{key}-{:016x}", random())
}

/// The labels of a container.
pub(super) fn container_labels(
    setup: &Setup,
    spec: &LaunchSpec,
    contract: Contract,
    port: u16,
) -> HashMap<String, String> {
    let function = &spec.function;
    let contract = match contract {
        Contract::Http => "http",
        Contract::Stdio => "stdio",
        Contract::Lambda => "lambda",
    };
    [
        (labels::CLUSTER, setup.cluster.clone()),
        (labels::NODE, setup.node.to_string()),
        (labels::GENERATION, setup.generation.to_string()),
        (labels::SPACE, function.space.to_string()),
        (labels::FUNCTION, function.function_id.to_string()),
        (labels::INSTANCE_KEY, spec.key.to_string()),
        (labels::CONTRACT, contract.to_owned()),
        (
            labels::CONCURRENCY,
            function.limits().concurrency.to_string(),
        ),
        (labels::PORT, port.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// 64 random bits: each `RandomState` of the standard library has keys of its own.
fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
