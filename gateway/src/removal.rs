//! What a user had goes after the user: each node looks for users whose deletion was begun, and finishes it. A node that dies in
//! between leaves the rest to the others.

use std::sync::Arc;
use std::time::Duration;

use accounts::{Accounts, UserId};
use actors::catalog;
use config::recurring::{Due, Recurring};
use protocol::ErrorCode;
use tokio::time::Instant;

use crate::error::Error;
use crate::node::Node;

/// Goes on until dropped.
pub(crate) async fn keep_removing(node: Arc<dyn Node>, accounts: Accounts, interval: Duration) {
    let mut failing = Recurring::default();
    loop {
        tokio::time::sleep(interval).await;
        for user in accounts.deleting() {
            match remove(&*node, &accounts, &user).await {
                Ok(()) => {
                    failing.end(Instant::now());
                    tracing::info!(%user, "a deleted user has nothing left");
                }
                Err(error) => {
                    if let Some(Due { times, seconds }) = failing.note(Instant::now()) {
                        tracing::warn!(%user, ?error, times, seconds, "what a deleted user had can not be removed yet; trying again");
                    }
                }
            }
        }
    }
}

/// Removes the records of the user's own space, those first that need others, and then the user.
async fn remove(node: &dyn Node, accounts: &Accounts, user: &UserId) -> Result<(), Error> {
    let space = user.own_space();
    let space = space.as_str();
    for stored in node.schedules(space).await? {
        let id = stored.schedule.schedule_id.as_str();
        gone(node.delete_schedule(space, id, None).await)?;
    }
    for stored in node.subscriptions(space).await? {
        let id = &stored.subscription.subscription_id;
        gone(node.delete_subscription(space, id, None).await)?;
    }
    for stored in node.event_types(space).await? {
        let name = stored.event_type.name.as_str();
        gone(node.delete_event_type(space, name, None).await)?;
    }
    for stored in node.all_cors(space).await? {
        gone(node.delete_cors(space, &stored.cors.cors_id, None).await)?;
    }
    for stored in node.list(space).await? {
        let id = stored.function.function_id.as_str();
        gone(node.delete(space, id, None).await)?;
    }
    accounts.finish_delete(user).await?;
    Ok(())
}

/// Another node removes the same at the same time.
fn gone(removed: Result<(), catalog::Error>) -> Result<(), Error> {
    match removed.map_err(Error::from) {
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
