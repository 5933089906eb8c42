//! An edge on free ports with a scripted node behind it, and a client that says exactly what it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::Settings;
use config::settings::Secret;
use gateway::{Access, Addresses, Edge, InnerListener, Listeners, Serving};
use protocol::NodeId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::inner::ScriptedCallers;

mod http;
mod node;
mod queues;

pub(crate) use http::{Answer, Call};
pub(crate) use node::{ScriptedNode, failed, replied};
pub(crate) use queues::Queues;

/// The bound on every wait of these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An edge that is served until it is dropped.
pub(crate) struct Sandbox {
    pub(crate) node: ScriptedNode,
    pub(crate) addresses: Addresses,
    pub(crate) shutdown: CancellationToken,
    pub(crate) queues: Queues,
    /// Where instances call.
    pub(crate) inner: SocketAddr,
    pub(crate) serving: Option<Serving>,
}

impl Sandbox {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    /// Starts an edge with other settings than the defaults.
    pub(crate) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_propagate(change, None)
    }

    pub(crate) fn with_propagate(
        change: impl FnOnce(&mut Settings),
        propagate: Option<gateway::Propagate>,
    ) -> Self {
        Self::with_all(change, propagate, None, None)
    }

    pub(crate) fn with_hooks(
        change: impl FnOnce(&mut Settings),
        hooks: Option<Arc<dyn ::plugins::Hooks>>,
    ) -> Self {
        Self::with_all(change, None, hooks, None)
    }

    pub(crate) fn with_accounts(
        change: impl FnOnce(&mut Settings),
        accounts: ::accounts::Accounts,
    ) -> Self {
        Self::with_all(change, None, None, Some(accounts))
    }

    fn with_all(
        change: impl FnOnce(&mut Settings),
        propagate: Option<gateway::Propagate>,
        hooks: Option<Arc<dyn ::plugins::Hooks>>,
        accounts: Option<::accounts::Accounts>,
    ) -> Self {
        let mut settings = Settings::default();
        for address in [
            &mut settings.listen.functions,
            &mut settings.listen.events,
            &mut settings.listen.config,
        ] {
            address.set_port(0);
        }
        change(&mut settings);
        let node = ScriptedNode::new();
        let (queues, emitter) = Queues::start(&settings, &node, hooks);
        let render = Arc::new(|| "hearth_up 1\n".to_owned());
        let access = Access {
            admin_token: Some(Secret::new("0123456789abcdef")),
            accounts,
        };
        let edge = Edge::new(
            Listeners::bind(&settings).unwrap(),
            &settings,
            node.clone(),
            emitter,
            access,
            render,
            propagate,
        );
        let inner = InnerListener::bind(0, &NodeId::random()).unwrap();
        let inner_address = inner.address();
        let edge = edge.with_inner(inner, Arc::new(ScriptedCallers));
        let addresses = edge.addresses();
        let shutdown = CancellationToken::new();
        let serving = Some(edge.serve(shutdown.clone(), &TaskTracker::new()));
        Self {
            node,
            addresses,
            shutdown,
            queues,
            inner: inner_address,
            serving,
        }
    }

    /// Shuts down; returns whether all connections ended before the time was over.
    pub(crate) async fn finish(&mut self, within: Duration) -> bool {
        self.shutdown.cancel();
        self.serving
            .take()
            .unwrap()
            .finish(Instant::now() + within)
            .await
    }

    /// Posts a body to `/invoke`.
    pub(crate) async fn invoke(&self, body: impl AsRef<[u8]>) -> Answer {
        Call::post("/invoke", body)
            .send(self.addresses.functions)
            .await
    }

    /// Sends a request to the config API.
    pub(crate) async fn admin(&self, call: Call) -> Answer {
        call.send(self.addresses.config).await
    }

    /// Registers a function of type `http`.
    pub(crate) async fn register(&self, id: &str) -> Answer {
        let body = format!(
            r#"{{"functionId":"{id}","type":"http","provider":{{"url":"http://a.example/b"}}}}"#
        );
        self.admin(Call::post("/v1/spaces/default/functions", body))
            .await
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what} did not happen within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
