//! The networks of function containers: ours, with inter-container traffic off.

use std::collections::HashMap;

use bollard::models::{Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
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
            internal: Kept { name: format!("{name}-internal"), is_internal: true, id: Mutex::default() },
            open: Kept { name, is_internal: false, id: Mutex::default() },
        }
    }

    /// The id of the network whose containers reach the outside, or of the one whose containers reach only their node.
    pub(super) async fn id(&self, engine: &Engine, reaches_outside: bool) -> Result<String, CallError> {
        let kept = if reaches_outside { &self.open } else { &self.internal };
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

    /// The engine allows equal names, and nodes that share it may all create one at once: all then use the oldest.
    async fn find_or_create(&self, engine: &Engine, kept: &Kept) -> Result<String, CallError> {
        if let Some(id) = oldest(engine, &kept.name).await? {
            return Ok(id);
        }
        let request = NetworkCreateRequest {
            name: kept.name.clone(),
            driver: Some("bridge".into()),
            internal: Some(kept.is_internal),
            options: Some(HashMap::from([("com.docker.network.bridge.enable_icc".into(), "false".into())])),
            labels: Some(HashMap::from([(labels::CLUSTER.into(), self.cluster.clone())])),
            ..NetworkCreateRequest::default()
        };
        let created = engine.call("creating a network", |docker| async move { docker.create_network(request).await }).await;
        let ours = match created {
            Ok(created) => Some(created.id),
            // Newer engines refuse a second one of the same name.
            Err(CallError::Answered { status: 409, .. }) => None,
            Err(error) => return Err(error),
        };
        let id = oldest(engine, &kept.name).await?.or_else(|| ours.clone());
        let missing = || CallError::Answered { status: 404, message: format!("network {} vanished while it was made", kept.name) };
        let id = id.ok_or_else(missing)?;
        if let Some(ours) = ours.filter(|ours| *ours != id) {
            let removed = engine.call("removing a network", |docker| async move { docker.remove_network(&ours).await }).await;
            if let Err(error) = removed {
                tracing::debug!(network = kept.name, ?error, "a second network of the same name stays");
            }
        }
        Ok(id)
    }
}

async fn oldest(engine: &Engine, name: &str) -> Result<Option<String>, CallError> {
    let filters = HashMap::from([("name", vec![name])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    let networks = engine.call("listing networks", |docker| async move { docker.list_networks(Some(options)).await }).await?;
    // The engine's filter also finds names that only contain the text.
    let same = networks.into_iter().filter(|network| network.name.as_deref() == Some(name));
    Ok(same.min_by_key(age).and_then(|network| network.id))
}

fn age(network: &Network) -> (String, Option<String>) {
    (network.created.as_ref().map(ToString::to_string).unwrap_or_default(), network.id.clone())
}
