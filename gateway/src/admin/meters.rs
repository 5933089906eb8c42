//! Requests of the config API under Event Gateway's names.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::Method;
use protocol::Space;
use tokio::time::Instant;

use crate::error::Error;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Operation {
    space: Space,
    resource: &'static str,
    operation: &'static str,
}

/// Counts and times requests for records; a body that is no JSON does not count.
pub(super) async fn count(request: Request, next: Next) -> Response {
    let Some(operation) = Operation::of(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    let begun = Instant::now();
    let response = next.run(request).await;
    metrics::histogram!("gateway_config_request_duration_seconds").record(begun.elapsed());
    let error = response.extensions().get::<Error>();
    if !error.is_some_and(Error::is_undecodable) {
        let Operation {
            space,
            resource,
            operation,
        } = operation;
        let labels = [
            ("space", space.to_string()),
            ("resource", resource.to_owned()),
            ("operation", operation.to_owned()),
        ];
        metrics::counter!("gateway_config_requests_total", &labels).increment(1);
    }
    response
}

impl Operation {
    /// `None` for what is no record, for methods that records do not take, and for names that no space can have.
    fn of(method: &Method, path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/v1/")?;
        let (space, rest) = match rest.strip_prefix("spaces/") {
            Some(rest) => {
                let (space, rest) = rest.split_once('/')?;
                (space.parse().ok()?, rest)
            }
            None => (Space::default_space(), rest),
        };
        let (name, id) = match rest.split_once('/') {
            Some((name, id)) => (name, Some(id)),
            None => (rest, None),
        };
        let resource = match name {
            "functions" => "function",
            "subscriptions" => "subscription",
            "eventtypes" if path.starts_with("/v1/spaces/") => "eventtype",
            "cors" if path.starts_with("/v1/spaces/") => "cors",
            "schedules" if path.starts_with("/v1/spaces/") => "schedule",
            _ => return None,
        };
        let operation = match (method, id) {
            (_, Some(id)) if id.contains('/') => return None,
            (&Method::POST, None) => "create",
            (&Method::GET, None) => "list",
            (&Method::GET, Some(_)) => "get",
            (&Method::PUT, Some(_)) => "update",
            (&Method::DELETE, Some(_)) => "delete",
            _ => return None,
        };
        Some(Self {
            space,
            resource,
            operation,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, path: &str, expected: Option<(&str, &str, &str)>) {
        let operation = Operation::of(&method, path);
        let found = operation
            .as_ref()
            .map(|found| (found.space.as_str(), found.resource, found.operation));
        assert_eq!(found, expected, "{method} {path}");
    }

    #[test]
    fn requests_are_named_by_space_resource_and_operation() {
        check(
            Method::POST,
            "/v1/spaces/abc/functions",
            Some(("abc", "function", "create")),
        );
        check(
            Method::GET,
            "/v1/functions",
            Some(("default", "function", "list")),
        );
        check(
            Method::GET,
            "/v1/functions/f",
            Some(("default", "function", "get")),
        );
        check(
            Method::PUT,
            "/v1/spaces/abc/subscriptions/x",
            Some(("abc", "subscription", "update")),
        );
        check(
            Method::DELETE,
            "/v1/subscriptions/x",
            Some(("default", "subscription", "delete")),
        );
        check(
            Method::PUT,
            "/v1/spaces/abc/eventtypes/a",
            Some(("abc", "eventtype", "update")),
        );
        check(
            Method::GET,
            "/v1/spaces/abc/cors",
            Some(("abc", "cors", "list")),
        );
        check(Method::GET, "/v1/eventtypes", None);
        check(Method::GET, "/v1/functions/f/logs", None);
        check(Method::PATCH, "/v1/functions/f", None);
        check(Method::GET, "/v1/spaces", None);
        check(Method::GET, "/v1/status", None);
        check(Method::GET, "/v1/spaces/a%20b/functions", None);
    }
}
