//! Resolves an image reference once, at registration, to the digest that every node will run.

use std::time::Duration;

use cluster::PeerClient;
use futures_util::stream::{FuturesUnordered, StreamExt};
use protocol::{Component, Deadline, Effect, ErrorCode, Failure};
use tokio::time::Instant;

use std::sync::Arc;

use crate::executor::{Kind, Launchers};
use crate::router::RouteTable;
use crate::snapshot::Reader;

/// Resolves image references: with this node's engine, then with those of live peers, then with the registry. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Images {
    launchers: Launchers,
    routes: Reader<RouteTable>,
    client: Arc<dyn PeerClient>,
    /// How long all of it may take.
    timeout: Duration,
}

impl Images {
    /// Makes the resolver of a node.
    pub fn new(
        launchers: Launchers,
        routes: Reader<RouteTable>,
        client: Arc<dyn PeerClient>,
        timeout: Duration,
    ) -> Self {
        Self {
            launchers,
            routes,
            client,
            timeout,
        }
    }

    /// The digest an image reference stands for now.
    ///
    /// # Errors
    /// `ImageNotFound` when neither a live node's engine nor the registry has it, `EngineUnavailable` when no engine could look.
    pub async fn resolve(&self, image: &str) -> Result<String, Failure> {
        let deadline = Instant::now() + self.timeout;
        if let Some(digest) = self.resolve_here(image).await {
            return Ok(digest);
        }
        if let Some(digest) = self.resolve_at_peers(image, deadline).await {
            return Ok(digest);
        }
        let Some(launch) = self.launchers.get(Kind::Container) else {
            let message = format!(
                "image {image} can not be looked up: this node runs no containers, and no peer has the image"
            );
            return Err(Failure::new(
                ErrorCode::EngineUnavailable,
                Component::Provider,
                Effect::Refused,
                message,
            ));
        };
        match tokio::time::timeout_at(deadline, launch.resolve_remote(image)).await {
            Ok(result) => result.map_err(|error| Failure::from(&error)),
            Err(_) => {
                let message = format!(
                    "image {image} was not found: no live node's engine has it, and its registry did not answer in time"
                );
                Err(Failure::new(
                    ErrorCode::ImageNotFound,
                    Component::Provider,
                    Effect::Refused,
                    message,
                ))
            }
        }
    }

    /// The digest this node's engine has for an image reference.
    pub async fn resolve_here(&self, image: &str) -> Option<String> {
        let launch = self.launchers.get(Kind::Container)?;
        match launch.resolve_present(image).await {
            Ok(digest) => digest,
            Err(error) => {
                tracing::warn!(%image, %error, "the engine could not look for an image");
                None
            }
        }
    }

    async fn resolve_at_peers(&self, image: &str, deadline: Instant) -> Option<String> {
        let routes = self.routes.get();
        let deadline = Deadline::at(deadline.into_std());
        let asked = routes
            .peers
            .values()
            .filter(|route| route.is_usable() && route.state.has_engine);
        let mut answers: FuturesUnordered<_> = asked
            .map(|route| self.client.resolve_image(&route.peer, image, deadline))
            .collect();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(Some(digest)) => return Some(digest),
                Ok(None) => {}
                Err(error) => tracing::info!(%image, %error, "a peer could not look for an image"),
            }
        }
        None
    }
}
