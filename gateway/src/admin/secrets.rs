//! Secrets: set, listed without their values, and removed.

use std::sync::Arc;

use actors::catalog::StoredSecret;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use protocol::api::{self, Errors};
use protocol::event::rfc3339;
use protocol::{SecretName, Space};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use vault::Plain;

use super::{Line, Segments, gone, read_body};
use crate::error::Error;
use crate::surface::Shared;

/// A secret as it is set: its value, by exactly one of the two.
#[derive(ToSchema)]
#[schema(as = SecretValue)]
#[expect(dead_code, reason = "it is described; what is sent is read by hand")]
pub(super) struct Sent {
    /// The value, a text.
    value: Option<String>,
    /// The value in base64, for what is no text.
    base64: Option<String>,
}

/// Set a secret.
///
/// It is made, or gets another value; functions that have it get new instances. Its value is shown by no API.
#[utoipa::path(
    put,
    operation_id = "set_secret",
    path = "/v1/spaces/{space}/secrets/{name}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("name" = SecretName, Path, description = "Its name")),
    request_body = Sent,
    responses(
        (status = 200, description = "It has another value", body = api::Secret),
        (status = 201, description = "It is made", body = api::Secret),
        (status = 409, description = "The space has as many as it may have", body = Errors),
    ),
)]
pub(super) async fn set(
    State(shared): State<Arc<Shared>>,
    Segments((space, name)): Segments<(String, String)>,
    request: Request,
) -> Result<Response, Error> {
    let (space, name) = (named(&space)?, named(&name)?);
    let (_, body) = read_body(&shared, request).await?;
    let value = read(&body).map_err(Error::invalid)?;
    let stored = shared.node.set_secret(&space, &name, &value).await?;
    let status = match stored.is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Line(shown(stored))).into_response())
}

/// List the secrets of a space, without their values.
#[utoipa::path(
    get,
    operation_id = "list_secrets",
    path = "/v1/spaces/{space}/secrets",
    tag = "config",
    params(("space" = Space, Path, description = "The space")),
    responses((status = 200, description = "All of them", body = api::Secrets)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
) -> Result<Line<api::Secrets>, Error> {
    let stored = shared.node.secrets(&space).await?.into_iter();
    let secrets = stored.map(shown).collect();
    Ok(Line(api::Secrets { secrets }))
}

/// Remove a secret that no function has.
#[utoipa::path(
    delete,
    operation_id = "delete_secret",
    path = "/v1/spaces/{space}/secrets/{name}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("name" = SecretName, Path, description = "Its name")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Functions have it", body = Errors),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments((space, name)): Segments<(String, String)>,
) -> Result<Response, Error> {
    shared.node.delete_secret(&space, &name).await?;
    Ok(gone())
}

fn named<T: std::str::FromStr<Err = protocol::id::InvalidId>>(text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|error: protocol::id::InvalidId| Error::invalid(error.to_string()))
}

/// Reads the value. Why it can not be read is told without any of the body: it may be the secret.
fn read(body: &[u8]) -> Result<Plain, String> {
    const EXPECTED: &str = r#"expected {"value": "TEXT"} or {"base64": "BYTES"}"#;
    let mut sent: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("the body is no JSON object, {EXPECTED} (line {line}, column {column})")
    })?;
    let mut take = |field: &str| match sent.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("{field} is no text, {EXPECTED}")),
    };
    let (value, base64) = (take("value")?, take("base64")?);
    if !sent.is_empty() {
        return Err(format!("the body has unknown fields, {EXPECTED}"));
    }
    match (value, base64) {
        (Some(text), None) => Ok(text.into_bytes().into()),
        (None, Some(text)) => {
            let bytes = STANDARD.decode(Plain::from(text.into_bytes()).expose());
            let bytes = bytes.map_err(|_| format!("base64 is no base64 with padding, {EXPECTED}"));
            bytes.map(Plain::from)
        }
        _ => Err(format!(
            "the body has both or none of value and base64, {EXPECTED}"
        )),
    }
}

fn shown(stored: StoredSecret) -> api::Secret {
    let secret = &stored.secret;
    api::Secret {
        name: secret.name.clone(),
        version: secret.version.clone(),
        created_at: rfc3339(secret.created_at_ms),
        updated_at: rfc3339(secret.updated_at_ms),
        functions: stored.functions,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_text_or_base64() {
        for (body, expected) in [
            (r#"{"value":"a\nb"}"#, &b"a\nb"[..]),
            (r#"{"base64":"AP8="}"#, &[0, 255]),
            (r#"{"base64":"AP8=","value":null}"#, &[0, 255]),
            (r#"{"value":""}"#, b""),
        ] {
            assert_eq!(read(body.as_bytes()).unwrap().expose(), expected, "{body}");
        }
    }

    #[test]
    fn a_refusal_has_nothing_of_the_body() {
        for (body, expected) in [
            ("hunter2", "the body is no JSON object"),
            (r#""hunter2""#, "the body is no JSON object"),
            (r#"{"value":["hunter2"]}"#, "value is no text"),
            (r#"{"hunter2":"hunter2"}"#, "unknown fields"),
            (
                r#"{"value":"hunter2","base64":"aHVudGVyMg=="}"#,
                "both or none",
            ),
            ("{}", "both or none"),
            (r#"{"base64":"hunter2!"}"#, "no base64"),
        ] {
            let refused = read(body.as_bytes()).unwrap_err();
            assert!(refused.contains(expected), "{body}: {refused}");
            assert!(!refused.contains("hunter2"), "{body}: {refused}");
        }
    }
}
