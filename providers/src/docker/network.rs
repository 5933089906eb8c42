//! The networks of function containers: ours, with inter-container traffic off.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use bollard::models::{Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use protocol::InstanceKey;
use tokio::sync::Mutex;

use super::engine::{CallError, Engine};
use super::firewall::Firewall;
use super::name::labels;

/// The networks of one cluster on one engine.
#[derive(Debug)]
pub(super) struct Networks {
    cluster: String,
    open: Kept,
    internal: Kept,
    pub(super) firewall: Firewall,
}

/// One network, once it is known. The lock is held while it is made, so that a burst of starts makes one.
#[derive(Debug)]
struct Kept {
    name: String,
    is_internal: bool,
    found: Mutex<Option<Found>>,
}

/// A network of the engine's.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) id: String,
    /// The machine's interface to it.
    pub(super) bridge: String,
    /// The machine's own address on it.
    pub(super) gateway: Option<IpAddr>,
}

impl Networks {
    pub(super) fn new(network: &str, cluster: &str, firewall: Firewall) -> Self {
        let name = format!("{network}-{cluster}");
        Self {
            cluster: cluster.to_owned(),
            internal: Kept {
                name: format!("{name}-internal"),
                is_internal: true,
                found: Mutex::default(),
            },
            open: Kept {
                name,
                is_internal: false,
                found: Mutex::default(),
            },
            firewall,
        }
    }

    /// The network whose containers reach the outside, or the one whose containers reach nothing.
    pub(super) async fn of(
        &self,
        engine: &Engine,
        reaches_outside: bool,
    ) -> Result<Found, CallError> {
        let kept = if reaches_outside {
            &self.open
        } else {
            &self.internal
        };
        let mut found = kept.found.lock().await;
        if let Some(found) = &*found {
            return Ok(found.clone());
        }
        let made = self.find_or_create(engine, kept).await?;
        self.firewall.close(&made.bridge, made.gateway).await;
        Ok(found.insert(made).clone())
    }

    /// Forgets both: the engine said that a network is missing, or was away.
    pub(super) async fn forget(&self) {
        *self.open.found.lock().await = None;
        *self.internal.found.lock().await = None;
    }

    /// Nodes that share the engine may all make the network at once. The engine allows equal names, but no two bridges of one name,
    /// so exactly one of them makes it.
    async fn find_or_create(&self, engine: &Engine, kept: &Kept) -> Result<Found, CallError> {
        if let Some(found) = oldest(engine, &kept.name).await? {
            return Ok(found);
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
            Ok(_) => None,
            Err(refused @ CallError::Answered { .. }) => Some(refused),
            Err(error) => return Err(error),
        };
        // The listing tells the gateway. Where another node makes it, it is listed a moment later.
        for _ in 0..LISTINGS_MAX {
            if let Some(found) = oldest(engine, &kept.name).await? {
                return Ok(found);
            }
            tokio::time::sleep(LISTING_PAUSE).await;
        }
        Err(refused.unwrap_or_else(|| {
            CallError::Unavailable(format!(
                "the engine made the network {} and does not list it",
                kept.name
            ))
        }))
    }
}

/// The option that names the bridge.
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// How often a network that another node is making is looked for.
const LISTINGS_MAX: u32 = 20;
const LISTING_PAUSE: Duration = Duration::from_millis(50);

/// How the names of all bridges begin.
const BRIDGE_PREFIX: &str = "hth";

/// Whether an interface of this machine is the bridge of a network of function containers, of whichever cluster.
pub fn is_bridge(interface: &str) -> bool {
    interface.starts_with(BRIDGE_PREFIX)
}

/// The name of a network's bridge: always the same for the same network, and within the kernel's 15 characters.
fn bridge(network: &str) -> String {
    let hash = InstanceKey::hash([network.as_bytes()]).to_string();
    format!("{BRIDGE_PREFIX}{}", &hash[..12])
}

async fn oldest(engine: &Engine, name: &str) -> Result<Option<Found>, CallError> {
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
    Ok(same.min_by_key(age).and_then(found))
}

fn found(network: Network) -> Option<Found> {
    let pools = network.ipam.and_then(|ipam| ipam.config);
    let gateways = pools.into_iter().flatten().filter_map(|pool| pool.gateway);
    // Some engines write it with the length of the subnet's prefix.
    let mut gateways = gateways.filter_map(|text| text.split('/').next()?.parse().ok());
    let id = network.id?;
    let named = network
        .options
        .and_then(|mut options| options.remove(BRIDGE_NAME));
    // As the engine names the bridge of a network that somebody else made.
    let bridge = named.unwrap_or_else(|| format!("br-{}", id.get(..12).unwrap_or(&id)));
    Some(Found {
        id,
        bridge,
        gateway: gateways.next(),
    })
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
