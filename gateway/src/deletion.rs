//! Removes what deleted users had. Their credentials are gone already; any node finishes what another one began.

use std::time::Duration;

use accounts::{Accounts, UserId};
use actors::catalog;
use config::recurring::{Due, Recurring};
use protocol::ErrorCode;
use tokio::time::Instant;

use crate::node::Node;

/// Why a deletion is not finished.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    #[error(transparent)]
    Accounts(#[from] accounts::Error),
}

/// Goes on until dropped. Nothing is asked of the store while deleted users have nothing.
pub(crate) async fn sweep(node: &dyn Node, accounts: &Accounts, interval: Duration) {
    let mut failing = Recurring::default();
    loop {
        // Two nodes that remove the same at once do no harm: what is gone is removed.
        tokio::time::sleep(interval).await;
        let mut has_failed = false;
        let mut tell = |user, done: Result<(), Unfinished>| {
            let Err(error) = done else { return };
            has_failed = true;
            if let Some(Due { times, seconds }) = failing.note(Instant::now()) {
                tracing::warn!(%user, %error, times, seconds, "what deleted users had can not be removed; trying again");
            }
        };
        for user in accounts.deleting() {
            let done = try_remove(node, accounts, &user).await;
            tell(user, done);
        }
        let spaces = node.spaces();
        let mut gone = accounts.gone();
        gone.retain(|user| spaces.contains(&user.own_space()));
        for user in gone {
            let done = remove_late(node, accounts, &user).await;
            tell(user, done);
        }
        if !has_failed {
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

/// Removes what a call made that a node let in before the deletion, and that was slow to come.
async fn remove_late(
    node: &dyn Node,
    accounts: &Accounts,
    user: &UserId,
) -> Result<(), Unfinished> {
    match accounts.user(user).await {
        // Only what the store says is deleted: a user may be in a backup that was imported since.
        Err(accounts::Error::NoUser { .. }) => {
            empty(node, user.own_space().as_str()).await?;
            tracing::info!(%user, "removed what a deleted user made while it was deleted");
            Ok(())
        }
        found => found.map(drop).map_err(Unfinished::from),
    }
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
    // No function has them any more.
    for stored in node.secrets(space).await? {
        done(node.delete_secret(space, stored.secret.name.as_str()).await)?;
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
