//! What is set for a space: who may emit its events.

use std::sync::Arc;

use accounts::{Events, SpaceSettings};
use axum::extract::{Request, State};
use protocol::Space;
use serde::{Deserialize, Serialize};

use super::{Line, Segments, read_json};
use crate::error::Error;
use crate::surface::Shared;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    events: Events,
}

#[derive(Serialize)]
pub(super) struct Shown {
    space: Space,
    #[serde(flatten)]
    settings: SpaceSettings,
}

/// `GET /v1/spaces/{space}`
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<Space>,
) -> Result<Line<Shown>, Error> {
    let settings = shared.guard.accounts()?.space(&space).await?;
    Ok(Line(Shown { space, settings }))
}

/// `PATCH /v1/spaces/{space}`: what the body does not name stays.
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<Space>,
    request: Request,
) -> Result<Line<Shown>, Error> {
    let expected = r#"{"events": "open" or "authenticated"}"#;
    let change: Change = read_json(&shared, request, expected).await?;
    let accounts = shared.guard.accounts()?;
    let changed = accounts.change_space(&space, |settings| settings.events = change.events);
    let settings = changed.await?;
    Ok(Line(Shown { space, settings }))
}
