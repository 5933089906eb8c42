//! Where ends are told: the way to URLs that users name.

use std::sync::Arc;

use async_trait::async_trait;
use cluster::Membership;
use config::Settings;
use config::settings::AuthMode;
use gateway::{Destinations, Letter};
use protocol::Failure;
use providers::http::{Outbound, OwnAddresses, Posted, Poster};

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

/// Where ends are told. With auth no URL of a user leads to this machine or the cluster, unless the settings allow it.
pub(crate) fn destinations(
    settings: &Settings,
    membership: &Membership,
) -> Result<Destinations, StartError> {
    let set = settings.destinations.clone();
    let guard = (settings.auth.mode == AuthMode::Required).then(|| {
        let (members, advertised) = (membership.members(), membership.advertised());
        let addresses: OwnAddresses = Arc::new(move || {
            let members = Arc::clone(&members.borrow());
            let known = members.values().flat_map(|member| {
                let state = &member.state;
                let apis = [state.functions_address, state.config_address];
                apis.into_iter().chain([member.peer.address])
            });
            let all = known.chain([advertised]);
            all.map(|address| address.ip().to_canonical()).collect()
        });
        Outbound::new(&set.allow, addresses)
    });
    let poster = Poster::new(&settings.http, set.timeout, guard).map_err(cluster_error)?;
    Ok(Destinations {
        settings: set,
        post: Arc::new(Posting(poster)),
    })
}
