//! The config API on port 4001: functions, subscriptions, event types, CORS, schedules, status, diagnostics.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Request};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post, put};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::surface::Shared;
use crate::{body, headers, health};

mod cors;
mod dead_letters;
mod event_types;
pub(crate) mod executions;
mod filter;
mod functions;
mod meters;
mod named;
mod schedules;
mod spaceless;
mod spaces;
mod subscriptions;
mod tags;
mod users;
mod view;

/// All routes. `debug_kill` adds the one that kills actors.
pub(crate) fn router(debug_kill: bool) -> Router<Arc<Shared>> {
    let router = Router::new();
    let router = add(router, "/v1/status", get(health::status));
    let router = add(router, "/v1/ready", get(health::ready));
    let router = add(router, "/v1/cluster", get(view::cluster));
    let router = add(router, "/metrics", get(view::metrics));
    let router = add(router, "/debug/actors", get(view::actors));
    let router = add(router, "/debug/route", get(view::route));
    let router = match debug_kill {
        true => add(router, "/debug/actors/{name}/kill", post(view::kill_actor)),
        false => router,
    };
    let router = add(router, "/v1/spaces", get(view::spaces));
    let router = add_executions(add_dead_letters(add_accounts(router)));
    spaceless::add_to(add_records(router))
        .layer(middleware::from_fn(meters::count))
        .method_not_allowed_fallback(async || Error::plain_method_not_allowed())
        .fallback(async || Error::plain_not_found())
}

/// Adds the routes of users, and of what is set for spaces.
fn add_accounts(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    let router = add(router, "/v1/users", get(users::list).post(users::create));
    let one = get(users::read).patch(users::change).delete(users::delete);
    let router = add(router, "/v1/users/{id}", one);
    let one = get(spaces::read).patch(spaces::change);
    let router = add(router, "/v1/spaces/{space}", one);
    let one = put(users::join).delete(users::leave);
    add(router, "/v1/spaces/{space}/members/{id}", one)
}

/// Adds the routes of this node's dead letters.
fn add_dead_letters(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    let router = add(router, "/v1/dead-letters", get(dead_letters::list));
    let one = get(dead_letters::read).delete(dead_letters::purge);
    let router = add(router, "/v1/dead-letters/{id}", one);
    let redrive = post(dead_letters::redrive);
    add(router, "/v1/dead-letters/{id}/redrive", redrive)
}

/// Adds the routes of executions, which the functions API has as well.
pub(crate) fn add_executions(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    let all = get(executions::list);
    let router = add(router, "/v1/spaces/{space}/executions", all);
    let one = get(executions::read).delete(executions::cancel);
    add(router, "/v1/spaces/{space}/executions/{id}", one)
}

/// Adds the routes of all records.
fn add_records(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    let all = get(functions::list).post(functions::create);
    let router = add(router, "/v1/spaces/{space}/functions", all);
    let one = get(functions::read)
        .put(functions::replace)
        .delete(functions::delete);
    let router = add(router, "/v1/spaces/{space}/functions/{id}", one);
    let logs = get(functions::logs);
    let router = add(router, "/v1/spaces/{space}/functions/{id}/logs", logs);
    let all = get(subscriptions::list).post(subscriptions::create);
    let router = add(router, "/v1/spaces/{space}/subscriptions", all);
    let one = get(subscriptions::read)
        .put(subscriptions::replace)
        .delete(subscriptions::delete);
    let router = add(router, "/v1/spaces/{space}/subscriptions/{id}", one);
    let all = get(event_types::list).post(event_types::create);
    let router = add(router, "/v1/spaces/{space}/eventtypes", all);
    let one = get(event_types::read)
        .put(event_types::replace)
        .delete(event_types::delete);
    let router = add(router, "/v1/spaces/{space}/eventtypes/{name}", one);
    let all = get(cors::list).post(cors::create);
    let router = add(router, "/v1/spaces/{space}/cors", all);
    let one = get(cors::read).put(cors::replace).delete(cors::delete);
    let router = add(router, "/v1/spaces/{space}/cors/{id}", one);
    let all = get(schedules::list).post(schedules::create);
    let router = add(router, "/v1/spaces/{space}/schedules", all);
    let one = get(schedules::read)
        .put(schedules::replace)
        .delete(schedules::delete);
    add(router, "/v1/spaces/{space}/schedules/{id}", one)
}

/// Adds a path, and a redirect from the same path with a superfluous slash.
fn add(
    router: Router<Arc<Shared>>,
    path: &str,
    methods: MethodRouter<Arc<Shared>>,
) -> Router<Arc<Shared>> {
    router
        .route(path, methods)
        .route(&format!("{path}/"), any(without_slash))
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

/// Reads a JSON body that is as `expected`.
pub(crate) async fn read_json<T: DeserializeOwned>(
    shared: &Shared,
    request: Request,
    expected: &str,
) -> Result<T, Error> {
    let (_, body) = read_body(shared, request).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let message = format!("the body can not be read, expected {expected}: {error}");
        Error::invalid(message)
    })
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
