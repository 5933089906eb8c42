//! A catalog with a registry of its own, for tests: the real registry cache on a store, and nothing else of a node.

use std::sync::Arc;
use std::time::Duration;

use cluster::peer::scripted::ScriptedPeer;
use config::settings::{SchedulesSettings, SecretsSettings};
use config::{Keyring, Store};
use ractor::Actor;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use vault::Vault;

use crate::catalog::Catalog;
use crate::executor::Launchers;
use crate::images::Images;
use crate::registry_cache::{Args, Registry, RegistryCache};
use crate::router::RouteTable;
use crate::snapshot::{Publisher, Reader};
use crate::tasks::Depth;

/// A catalog and the registry that it waits for. Functions of type `process` are allowed, images are found nowhere.
#[derive(Debug)]
pub struct TestCatalog {
    /// Reads and changes the records.
    pub catalog: Catalog,
    /// What the node knows of them.
    pub registry: Reader<Registry>,
    /// Its data directory.
    pub dir: Arc<tempfile::TempDir>,
    _routes: Publisher<RouteTable>,
}

impl TestCatalog {
    /// Starts a catalog on a store; several on one store are the nodes of a cluster.
    ///
    /// # Panics
    /// When the actor does not start.
    #[expect(clippy::unwrap_used, reason = "for tests only")]
    pub async fn start(store: Arc<dyn Store>) -> Self {
        Self::start_in(store, Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// Starts a catalog in the data directory of another one, as a node that is started again.
    ///
    /// # Panics
    /// When the actor does not start.
    #[expect(clippy::unwrap_used, reason = "for tests only")]
    pub async fn start_in(store: Arc<dyn Store>, dir: Arc<tempfile::TempDir>) -> Self {
        let (registry, routes) = (
            Publisher::new(Registry::default()),
            Publisher::new(RouteTable::default()),
        );
        let args = Args {
            store: Arc::clone(&store),
            snapshot_path: dir.path().join("records"),
            cluster_id: "test".into(),
            publisher: registry.clone(),
            tracker: TaskTracker::new(),
            depth: Depth::default(),
        };
        Actor::spawn(None, RegistryCache, args).await.unwrap();
        let images = Images::new(
            Launchers::default(),
            routes.reader(),
            Arc::new(ScriptedPeer::new()),
            Duration::from_secs(1),
        );
        let vault = vault(&store);
        let catalog = Catalog::new(
            (store, vault),
            registry.reader(),
            images,
            routes.reader(),
            true,
            Duration::from_secs(5),
            (SchedulesSettings::default(), SecretsSettings::default()),
        );
        Self {
            catalog,
            registry: registry.reader(),
            dir,
            _routes: routes,
        }
    }
}

/// A vault in a store, of a cluster with one secret.
pub fn vault(store: &Arc<dyn Store>) -> Vault {
    let secrets = ["a secret of these tests, long enough"];
    let keyring = watch::Sender::new(Keyring::with(&secrets));
    Vault::new(Arc::clone(store), "test", keyring.subscribe())
}
