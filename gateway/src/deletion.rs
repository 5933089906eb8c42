//! Removes what deleted users had. Their credentials are gone already; any node finishes what another one began.

use std::time::Duration;

use accounts::{Accounts, UserId};
use actors::catalog;
use config::recurring::{Due, Recurring};
use protocol::ErrorCode;
use tokio::time::Instant;

use crate::node::Node;

/// How often a node looks for users whose deletion nobody finished. Nothing is asked of the store while there are none.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why a deletion is not finished.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error(transparent)]
    Accounts(#[from] accounts::Error),
}

/// Goes on until dropped.
pub(crate) async fn sweep(node: &dyn Node, accounts: &Accounts) {
    let mut failing = Recurring::default();
    loop {
        // Two nodes that remove the same at once do no harm: what is gone is removed.
        tokio::time::sleep(SWEEP_INTERVAL).await;
        for user in accounts.deleting() {
            match try_remove(node, accounts, &user).await {
                Ok(()) => {}
                Err(error) => {
                    if let Some(Due { times, seconds }) = failing.note(Instant::now()) {
                        tracing::warn!(%user, %error, times, seconds, "what deleted users had can not be removed; trying again");
                    }
                }
            }
        }
        if accounts.deleting().is_empty() {
            failing.end(Instant::now());
        }
    }
}

/// Removes at once what a user had whose deletion has begun. What fails is left to the sweep, and told there.
pub(crate) async fn remove(node: &dyn Node, accounts: &Accounts, user: &UserId) {
    if let Err(error) = try_remove(node, accounts, user).await {
        tracing::debug!(%user, %error, "what a deleted user had is not removed yet");
    }
}

async fn try_remove(node: &dyn Node, accounts: &Accounts, user: &UserId) -> Result<(), Unfinished> {
    let own = user.own_space();
    // What names functions goes before them. A second look finds what a call made that was let in before the deletion.
    for _ in 0..2 {
        empty(node, own.as_str()).await?;
    }
    accounts
        .set_space(&own, accounts::SpaceSettings::default())
        .await?;
    accounts.finish_delete(user).await?;
    tracing::info!(%user, "a user is deleted, and what it had");
    Ok(())
}

async fn empty(node: &dyn Node, space: &str) -> Result<(), catalog::Error> {
    for stored in node.subscriptions(space).await? {
        let id = &stored.subscription.subscription_id;
        done(node.delete_subscription(space, id, None).await)?;
    }
    for stored in node.schedules(space).await? {
        let id = stored.schedule.schedule_id.as_str();
        done(node.delete_schedule(space, id, None).await)?;
    }
    for stored in node.event_types(space).await? {
        let name = stored.event_type.name.as_str();
        done(node.delete_event_type(space, name, None).await)?;
    }
    for stored in node.all_cors(space).await? {
        done(node.delete_cors(space, &stored.cors.cors_id, None).await)?;
    }
    for stored in node.list(space).await? {
        let id = stored.function.function_id.as_str();
        done(node.delete(space, id, None).await)?;
    }
    Ok(())
}

/// What another node removed meanwhile is removed.
fn done(removed: Result<(), catalog::Error>) -> Result<(), catalog::Error> {
    match removed {
        Err(error)
            if matches!(
                error.code(),
                ErrorCode::NotFound | ErrorCode::FunctionNotFound
            ) =>
        {
            Ok(())
        }
        removed => removed,
    }
}
