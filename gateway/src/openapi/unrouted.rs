//! What passes no router, so that it is described here and answered elsewhere.

use protocol::api::{Accepted, Errors, InvokeError, InvokeRequest};
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};

/// The functions API's warm path.
#[derive(OpenApi)]
#[openapi(paths(invoke))]
pub(super) struct Functions;

/// The events API.
#[derive(OpenApi)]
#[openapi(paths(emit, http_get, http_post))]
pub(super) struct Events;

/// What a function answered.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it is described and not made: gateway/src/invoke.rs writes it"
)]
struct Invoked {
    /// `Function invoked successfully`.
    message: String,
    /// The function's JSON, or its text as a string, or its bytes in base64.
    result: Value,
    /// `base64`, where the result is bytes.
    encoding: Option<String>,
}

/// Call a function.
///
/// With `Prefer: respond-async`, or `"async": true`, the result is not waited for.
#[utoipa::path(
    post,
    path = "/invoke",
    operation_id = "invoke",
    tag = "functions",
    params(
        ("prefer" = Option<String>, Header, description = "`respond-async`: the result is not waited for"),
        ("idempotency-key" = Option<String>, Header, description = "Of a call that is not waited for: one key, one execution"),
    ),
    request_body = InvokeRequest,
    responses(
        (status = 200, description = "The function's result", body = Invoked),
        (status = 202, description = "It is queued; `location` is where its execution is read", body = Accepted),
        (status = 404, description = "There is no such function", body = InvokeError),
        (status = 422, description = "The idempotency key was sent with another payload", body = InvokeError),
        (status = 502, description = "The function failed, or could not be started or reached", body = InvokeError),
        (status = 504, description = "The deadline passed", body = InvokeError),
    ),
)]
#[expect(dead_code, reason = "it carries the description")]
fn invoke() {}

/// Emit an event, or call the function that subscribed to this path.
///
/// An event is named by the header `Event`, or by those of CloudEvents 1.0. Without them it is a request that the function answers that is
/// subscribed to `POST` on this path; other paths than `/` are taken as well.
#[utoipa::path(
    post,
    path = "/",
    operation_id = "emit",
    tag = "events",
    params(
        ("event" = Option<String>, Header, description = "The type of a custom event"),
        ("space" = Option<String>, Header, description = "The space whose subscribers get it"),
        ("ce-specversion" = Option<String>, Header, description = "`1.0`, of an event in CloudEvents' binary mode"),
        ("ce-type" = Option<String>, Header, description = "Its type"),
        ("ce-source" = Option<String>, Header, description = "Where it comes from"),
        ("ce-id" = Option<String>, Header, description = "Its id"),
    ),
    request_body(content = Value, description = "The event's data"),
    responses(
        (status = 200, description = "What the subscribed function answers"),
        (status = 202, description = "The event is queued for each of its subscribers"),
        (status = 404, description = "No function is subscribed to this request", body = Errors),
    ),
)]
#[expect(dead_code, reason = "it carries the description")]
fn emit() {}

/// Call the function that subscribed to this path.
#[utoipa::path(
    get,
    path = "/{path}",
    operation_id = "http_get",
    tag = "events",
    params(("path" = String, Path, description = "The path, of any number of segments")),
    responses(
        (status = 200, description = "What the function answers; other statuses are its own too"),
        (status = 404, description = "No function is subscribed to this request", body = Errors),
    ),
)]
#[expect(dead_code, reason = "it carries the description")]
fn http_get() {}

/// Call the function that subscribed to this path.
///
/// `PUT`, `PATCH`, `DELETE`, `HEAD` and `OPTIONS` likewise.
#[utoipa::path(
    post,
    path = "/{path}",
    operation_id = "http_post",
    tag = "events",
    params(("path" = String, Path, description = "The path, of any number of segments")),
    request_body(content = Value, description = "What the function gets"),
    responses(
        (status = 200, description = "What the function answers; other statuses are its own too"),
        (status = 202, description = "The event is queued, by a typed subscription that is async"),
        (status = 404, description = "No function is subscribed to this request", body = Errors),
    ),
)]
#[expect(dead_code, reason = "it carries the description")]
fn http_post() {}
