//! Where ends are told: the way to URLs that users name.

use std::sync::Arc;

use async_trait::async_trait;
use config::Settings;
use gateway::{Destinations, Letter};
use protocol::Failure;
use providers::http::{Outbound, Posted, Poster};

use super::cluster_error;
use crate::node::StartError;

/// The way to callbacks and destinations that are URLs.
#[derive(Debug)]
struct Posting(Poster);

#[async_trait]
impl gateway::Post for Posting {
    async fn post(&self, url: &str, letter: Letter) -> Result<(), Failure> {
        let posted = Posted {
            headers: letter.headers,
            content_type: letter.content_type,
            body: letter.body,
        };
        self.0.post(url, posted).await
    }
}

/// Where ends are told.
pub(crate) fn destinations(
    settings: &Settings,
    guard: Option<Arc<Outbound>>,
) -> Result<Destinations, StartError> {
    let set = settings.destinations.clone();
    let poster = Poster::new(&settings.http, set.timeout, guard).map_err(cluster_error)?;
    Ok(Destinations {
        settings: set,
        post: Arc::new(Posting(poster)),
    })
}
