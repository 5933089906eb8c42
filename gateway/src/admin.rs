//! The config API on port 4001: functions, their versions and aliases, subscriptions, event types, CORS, schedules, secrets, status, diagnostics.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Request};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::error::Error;
use crate::surface::Shared;
use crate::{body, headers, health, openapi};

mod aliases;
mod backup;
mod cors;
mod dead_letters;
mod event_types;
pub(crate) mod executions;
mod filter;
mod functions;
mod meters;
mod named;
mod schedules;
mod secrets;
mod spaceless;
mod spaces;
mod subscriptions;
mod tags;
mod users;
mod versions;
mod view;

/// All routes, and their description. `debug_kill` adds the one that kills actors.
pub(crate) fn routes(debug_kill: bool) -> OpenApiRouter<Arc<Shared>> {
    let routes = OpenApiRouter::new()
        .routes(routes!(health::status))
        .routes(routes!(health::ready))
        .routes(routes!(view::cluster))
        .routes(routes!(view::metrics))
        .routes(routes!(view::actors))
        .routes(routes!(view::route))
        .routes(routes!(view::spaces))
        .routes(routes!(backup::export))
        .routes(routes!(backup::import))
        .merge(accounts())
        .merge(records())
        .merge(versions())
        .merge(executions())
        .merge(dead_letters())
        .merge(spaceless::routes())
        .merge(openapi::routes());
    match debug_kill {
        true => routes.routes(routes!(view::kill_actor)),
        false => routes,
    }
}

/// The router of the routes.
pub(crate) fn router(routes: OpenApiRouter<Arc<Shared>>) -> Router<Arc<Shared>> {
    let (mut router, described) = routes.split_for_parts();
    // The same paths with a superfluous slash.
    for path in described
        .paths
        .paths
        .keys()
        .filter(|path| *path != openapi::PAGE)
    {
        router = router.route(&format!("{path}/"), any(without_slash));
    }
    router
        .layer(middleware::from_fn(meters::count))
        .method_not_allowed_fallback(async || Error::plain_method_not_allowed())
        .fallback(async || Error::plain_not_found())
}

/// The routes of users, and of what is set for spaces.
fn accounts() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::read, users::change, users::delete))
        .routes(routes!(spaces::read, spaces::change))
        .routes(routes!(users::join, users::leave))
}

/// The routes of this node's dead letters.
fn dead_letters() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::read, dead_letters::purge))
        .routes(routes!(dead_letters::redrive))
}

/// The routes of executions, which the functions API has as well.
pub(crate) fn executions() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(executions::list))
        .routes(routes!(executions::read, executions::cancel))
}

/// The routes of all records.
fn records() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(functions::list, functions::create))
        .routes(routes!(
            functions::read,
            functions::replace,
            functions::delete
        ))
        .routes(routes!(functions::logs))
        .routes(routes!(subscriptions::list, subscriptions::create))
        .routes(routes!(
            subscriptions::read,
            subscriptions::replace,
            subscriptions::delete
        ))
        .routes(routes!(event_types::list, event_types::create))
        .routes(routes!(
            event_types::read,
            event_types::replace,
            event_types::delete
        ))
        .routes(routes!(cors::list, cors::create))
        .routes(routes!(cors::read, cors::replace, cors::delete))
        .routes(routes!(schedules::list, schedules::create))
        .routes(routes!(
            schedules::read,
            schedules::replace,
            schedules::delete
        ))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::set, secrets::delete))
}

/// The routes of versions and aliases of functions.
fn versions() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(versions::list, versions::publish))
        .routes(routes!(versions::read, versions::delete))
        .routes(routes!(aliases::list))
        .routes(routes!(aliases::read, aliases::set, aliases::delete))
        .routes(routes!(aliases::roll_back))
}

/// Event Gateway's router answers 301. To another method than GET that would turn it into a GET, so those get 307.
async fn without_slash(method: Method, uri: Uri) -> Response {
    let path = uri.path().trim_end_matches('/');
    let target = uri
        .query()
        .map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let status = match method {
        Method::GET | Method::HEAD => StatusCode::MOVED_PERMANENTLY,
        _ => StatusCode::TEMPORARY_REDIRECT,
    };
    match HeaderValue::try_from(target) {
        Ok(target) => (status, [(header::LOCATION, target)]).into_response(),
        Err(_) => Error::plain_not_found().into_response(),
    }
}

/// Reads a record's body, with the header fields of its request.
pub(crate) async fn read_body(
    shared: &Shared,
    request: Request,
) -> Result<(HeaderMap, Bytes), Error> {
    let (parts, mut body) = request.into_parts();
    let bytes = body::read(&parts.headers, &mut body, &shared.limits).await?;
    Ok((parts.headers, bytes))
}

/// Reads a JSON body that is as `expected`, and has no fields besides.
pub(crate) async fn read_json<T: DeserializeOwned>(
    shared: &Shared,
    request: Request,
    expected: &str,
) -> Result<T, Error> {
    let (_, body) = read_body(shared, request).await?;
    let refused = |why: &dyn std::fmt::Display| {
        let message = format!("the body can not be read, expected {expected}: {why}");
        Error::invalid(message)
    };
    let mut unknown = None;
    let mut deserializer = serde_json::Deserializer::from_slice(&body);
    let read = serde_ignored::deserialize(&mut deserializer, |path| {
        unknown.get_or_insert_with(|| path.to_string().replace("?.", ""));
    });
    let read = read.and_then(|read| deserializer.end().map(|()| read));
    match (read, unknown) {
        (Err(error), _) => Err(refused(&error)),
        (Ok(_), Some(path)) => Err(refused(&format!("unknown field `{path}`"))),
        (Ok(read), None) => Ok(read),
    }
}

/// Why a record is refused, which is told from a body that is no JSON at all, whatever it says.
fn refused(error: Error, body: &[u8]) -> Error {
    match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
        Ok(_) => error,
        Err(_) => error.undecodable(),
    }
}

/// The answer to a delete.
fn gone() -> Response {
    let content_type = [(header::CONTENT_TYPE, headers::JSON)];
    (StatusCode::NO_CONTENT, content_type).into_response()
}

/// The decoded segments of the path that its pattern names.
pub(crate) struct Segments<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let segments: Result<axum::extract::Path<T>, PathRejection> =
            axum::extract::Path::from_request_parts(parts, state).await;
        segments
            .map(|axum::extract::Path(segments)| Self(segments))
            .map_err(|error| Error::invalid(error.body_text()))
    }
}

/// The parameters of the query.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| Error::invalid(error.body_text()))
    }
}

/// A JSON answer that ends with a newline, as Event Gateway's do.
pub(crate) struct Line<T>(pub(crate) T);

impl<T: Serialize> IntoResponse for Line<T> {
    fn into_response(self) -> Response {
        let mut body =
            serde_json::to_vec(&self.0).expect("answers have maps with string keys only");
        body.push(b'\n');
        ([(header::CONTENT_TYPE, headers::JSON)], body).into_response()
    }
}
