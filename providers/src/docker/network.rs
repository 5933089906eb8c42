//! The networks of function containers: ours, with inter-container traffic off.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use protocol::InstanceKey;
use tokio::sync::Mutex;

use super::engine::{CallError, Engine};
use super::name::labels;

/// The networks of one cluster on one engine.
#[derive(Debug)]
pub(super) struct Networks {
    cluster: String,
    open: Kept,
    internal: Kept,
}

/// One network, and its id once it is known. The lock is held while it is made, so that a burst of starts makes one.
#[derive(Debug)]
struct Kept {
    name: String,
    is_internal: bool,
    id: Mutex<Option<String>>,
}

impl Networks {
    pub(super) fn new(network: &str, cluster: &str) -> Self {
        let name = format!("{network}-{cluster}");
        Self {
            cluster: cluster.to_owned(),
            internal: Kept {
                name: format!("{name}-internal"),
                is_internal: true,
                id: Mutex::default(),
            },
            open: Kept {
                name,
                is_internal: false,
                id: Mutex::default(),
            },
        }
    }

    /// The id of the network whose containers reach the outside, or of the one whose containers reach only their node.
    pub(super) async fn id(
        &self,
        engine: &Engine,
        reaches_outside: bool,
    ) -> Result<String, CallError> {
        let kept = if reaches_outside {
            &self.open
        } else {
            &self.internal
        };
        let mut id = kept.id.lock().await;
        if let Some(id) = &*id {
            return Ok(id.clone());
        }
        Ok(id.insert(self.find_or_create(engine, kept).await?).clone())
    }

    /// Forgets the ids: the engine said that a network is missing, or was away.
    pub(super) async fn forget(&self) {
        *self.open.id.lock().await = None;
        *self.internal.id.lock().await = None;
    }

    /// Nodes that share the engine may all make the network at once. The engine allows equal names, but no two bridges of one name,
    /// so exactly one of them makes it.
    async fn find_or_create(&self, engine: &Engine, kept: &Kept) -> Result<String, CallError> {
        if let Some(id) = oldest(engine, &kept.name).await? {
            return Ok(id);
        }
        let options = [
            ("com.docker.network.bridge.enable_icc", "false"),
            (BRIDGE_NAME, &bridge(&kept.name)),
        ];
        let request = NetworkCreateRequest {
            name: kept.name.clone(),
            driver: Some("bridge".into()),
            internal: Some(kept.is_internal),
            options: Some(
                options
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
            labels: Some(HashMap::from([(
                labels::CLUSTER.into(),
                self.cluster.clone(),
            )])),
            ..NetworkCreateRequest::default()
        };
        let created = engine
            .call("creating a network", |docker| async move {
                docker.create_network(request).await
            })
            .await;
        let refused = match created {
            Ok(created) => return Ok(created.id),
            Err(refused @ CallError::Answered { .. }) => refused,
            Err(error) => return Err(error),
        };
        // Another node makes it; it is listed a moment later.
        for _ in 0..LISTINGS_MAX {
            if let Some(id) = oldest(engine, &kept.name).await? {
                return Ok(id);
            }
            tokio::time::sleep(LISTING_PAUSE).await;
        }
        Err(refused)
    }
}

/// The option that names the bridge.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// How often a network that another node is making is looked for.
const LISTINGS_MAX: u32 = 20;
const LISTING_PAUSE: Duration = Duration::from_millis(50);

/// The name of a network's bridge: always the same for the same network, and within the kernel's 15 characters.
fn bridge(network: &str) -> String {
    let hash = InstanceKey::hash([network.as_bytes()]).to_string();
    format!("hth{}", &hash[..12])
}

async fn oldest(engine: &Engine, name: &str) -> Result<Option<String>, CallError> {
    let filters = HashMap::from([("name", vec![name])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let networks = engine
        .call("listing networks", |docker| async move {
            docker.list_networks(Some(options)).await
        })
        .await?;
    // The engine's filter also finds names that only contain the text.
    let same = networks
        .into_iter()
        .filter(|network| network.name.as_deref() == Some(name));
    Ok(same.min_by_key(age).and_then(|network| network.id))
}

fn age(network: &Network) -> (String, Option<String>) {
    (
        network
            .created
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        network.id.clone(),
    )
}
