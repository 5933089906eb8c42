//! What is set for a space: who may emit its events, and how much it may have.

use std::sync::Arc;

use accounts::{Events, SpaceSettings};
use axum::extract::{Request, State};
use protocol::{Space, SpaceLimits};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Line, Segments, read_json};
use crate::error::Error;
use crate::surface::Shared;

/// What of a space changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SpaceChange)]
struct Change {
    /// Who may emit its events.
    events: Option<Events>,
    /// What it may have, all of it anew: a limit that is not named is as the settings of the node say.
    limits: Option<SpaceLimits>,
}

/// What is set for a space.
#[derive(Serialize, ToSchema)]
#[schema(as = SpaceShown)]
pub(super) struct Shown {
    /// The space.
    space: Space,
    #[serde(flatten)]
    settings: SpaceSettings,
}

/// Read what is set for a space.
#[utoipa::path(
    get,
    path = "/v1/spaces/{space}",
    operation_id = "read_space",
    tag = "config",
    params(("space" = Space, Path, description = "The space")),
    responses((status = 200, description = "What is set, or the defaults", body = Shown)),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<Space>,
) -> Result<Line<Shown>, Error> {
    let settings = shared.guard.accounts()?.space(&space).await?;
    Ok(Line(Shown { space, settings }))
}

/// Change what is set for a space.
#[utoipa::path(
    patch,
    path = "/v1/spaces/{space}",
    operation_id = "change_space",
    tag = "config",
    params(("space" = Space, Path, description = "The space")),
    request_body = Change,
    responses((status = 200, description = "What is set now", body = Shown)),
)]
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<Space>,
    request: Request,
) -> Result<Line<Shown>, Error> {
    let expected = r#"{"events"?: "open" or "authenticated", "limits"?: {"rate"?: {"perSecond", "burst"?}, "concurrent"?, "functions"?, "queued"?}}"#;
    let change: Change = read_json(&shared, request, expected).await?;
    if change.events.is_none() && change.limits.is_none() {
        return Err(Error::invalid(format!(
            "nothing changes, expected {expected}"
        )));
    }
    if let Some(limits) = &change.limits {
        limits.check().map_err(Error::invalid)?;
    }
    let accounts = shared.guard.accounts()?;
    let changed = accounts.change_space(&space, |settings| {
        settings.events = change.events.unwrap_or(settings.events);
        settings.limits = change.limits.unwrap_or(settings.limits);
    });
    let settings = changed.await?;
    Ok(Line(Shown { space, settings }))
}
