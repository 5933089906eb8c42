//! `POST /api/v1/admin/init`: whoever has the one-time token of a node's log becomes the first admin.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::settings::Secret;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use crate::admin::read_json;
use crate::error::Error;
use crate::surface::Shared;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Init {
    token: Secret,
    email: String,
    password: Secret,
}

/// Answers 201 with the user's id.
pub(super) async fn init(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Error> {
    let sent: Init = read_json(&shared, request, r#"{"token","email","password"}"#).await?;
    let accounts = shared.guard.accounts()?;
    let made = accounts.init_admin(&sent.token, &sent.email, &sent.password);
    let made = made.await?;
    let told = json!({ "message": "Admin created successfully.", "userId": made.id });
    Ok((StatusCode::CREATED, Json(told)).into_response())
}
