//! `POST /api/v1/admin/init`: whoever has the one-time token of a node's log becomes the first admin.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::settings::Secret;
use http::StatusCode;
use protocol::api::InvokeError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::admin::read_json;
use crate::error::Error;
use crate::surface::Shared;

/// Who becomes the first admin.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FirstAdmin)]
struct Init {
    /// The one-time token of the log.
    #[schema(value_type = String)]
    token: Secret,
    /// The admin's email.
    email: String,
    /// The admin's password: 8 characters or more.
    #[schema(value_type = String)]
    password: Secret,
}

/// Who became the first admin.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FirstAdminMade)]
struct Made {
    /// `Admin created successfully.`
    message: &'static str,
    /// The admin's id.
    user_id: String,
}

/// Make the first admin, with the one-time token of a node's log.
#[utoipa::path(
    post,
    path = "/api/v1/admin/init",
    operation_id = "init_admin",
    tag = "users",
    security(()),
    request_body = Init,
    responses(
        (status = 201, description = "The admin is made", body = Made),
        (status = 409, description = "There is an account with this email", body = InvokeError),
    ),
)]
pub(super) async fn init(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Error> {
    let sent: Init = read_json(&shared, request, r#"{"token","email","password"}"#).await?;
    let accounts = shared.guard.accounts()?;
    let made = accounts.init_admin(&sent.token, &sent.email, &sent.password);
    let made = made.await?;
    let told = Made {
        message: "Admin created successfully.",
        user_id: made.id.to_string(),
    };
    Ok((StatusCode::CREATED, Json(told)).into_response())
}
