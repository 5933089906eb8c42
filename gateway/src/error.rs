//! The errors a client sees: the only place that knows status codes, bodies and headers of errors.

use std::time::Duration;

use actors::catalog;
use actors::invoker::Failed;
use axum::response::IntoResponse;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use limits::{Exceeded, Standing};
use protocol::{Component, Effect, ErrorCode, Failure, InvocationId, api};

use crate::body::AnswerBody;
use crate::headers;

mod access;
mod aws;
mod records;
#[cfg(test)]
mod tests;

pub(crate) use aws::Kind as AwsKind;

/// What a client of Event Gateway is told of a call that failed.
const CALL_FAILED: &str = "Function call failed. Please check logs.";

/// What one is told where AWS does not know the credentials of the function, by the code of AWS's error.
const CALL_FAILED_WITH: [(&str, &str); 3] = [
    (
        "AccessDeniedException",
        "Function call failed with AccessDeniedException. The credentials of the function are not allowed to call it.",
    ),
    (
        "UnrecognizedClientException",
        "Function call failed with UnrecognizedClientException. The credentials of the function are not valid.",
    ),
    (
        "ExpiredTokenException",
        "Function call failed with ExpiredTokenException. The session token of the function has expired.",
    ),
];

/// The body an API gives its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `{"error","code","component","node","invocation"}`.
    Functions,
    /// `{"errors":[{"message"}]}` and a newline, as Event Gateway.
    EventGateway,
    /// As AWS Lambda: a type that its clients know.
    Aws,
}

/// How this one error is worded, whatever the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wording {
    /// In the API's shape.
    Api,
    /// As Event Gateway's router words it.
    Plain(&'static str),
    /// As `{"ready":false,"why"}`.
    NotReady,
    /// As `{"error"}` and a newline, for routes without a space.
    Spaceless,
    /// As an error of AWS Lambda.
    Aws(aws::Kind),
}

/// An error on its way to a client.
#[derive(Debug, Clone)]
pub(crate) struct Error {
    status: StatusCode,
    failure: Failure,
    wording: Wording,
    /// Coming back later does not help.
    is_lasting: bool,
    /// Headers of the answer besides, such as what a web page may read.
    fields: Option<Box<HeaderMap>>,
    /// The body was no JSON at all.
    is_undecodable: bool,
}

impl Error {
    fn new(status: StatusCode, failure: Failure) -> Self {
        Self {
            status,
            failure,
            wording: Wording::Api,
            is_lasting: false,
            fields: None,
            is_undecodable: false,
        }
    }

    fn refused(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self::new(
            status,
            Failure::new(code, Component::Gateway, Effect::Refused, message),
        )
    }

    /// The request can not be understood.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::BAD_REQUEST, ErrorCode::InvalidRequest, message)
    }

    /// A function record is refused.
    pub(crate) fn invalid_function(tail: &protocol::function::Invalid) -> Self {
        Self::invalid(format!(
            "Function doesn't validate. Validation error: {tail}"
        ))
    }

    /// A subscription is refused.
    pub(crate) fn invalid_subscription(why: &protocol::subscription::Invalid) -> Self {
        match why {
            protocol::subscription::Invalid::Validation(tail) => Self::invalid(format!(
                "Subscription doesn't validate. Validation error: {tail}"
            )),
            protocol::subscription::Invalid::UnknownFunction(id) => {
                catalog::Error::UnknownFunction(id.clone()).into()
            }
            protocol::subscription::Invalid::UnknownAuthorizer(id) => {
                catalog::Error::UnknownSubscriptionAuthorizer(id.clone()).into()
            }
        }
    }

    /// An event type is refused.
    pub(crate) fn invalid_event_type(why: &protocol::event_type::Invalid) -> Self {
        match why {
            protocol::event_type::Invalid::Validation(tail) => Self::invalid(format!(
                "Event Type doesn't validate. Validation error: {tail}"
            )),
            protocol::event_type::Invalid::UnknownAuthorizer => {
                catalog::Error::UnknownAuthorizer.into()
            }
        }
    }

    /// The body of a record is no JSON.
    pub(crate) fn undecodable(self) -> Self {
        Self {
            is_undecodable: true,
            ..self
        }
    }

    /// Whether the body of a record is no JSON.
    pub(crate) fn is_undecodable(&self) -> bool {
        self.is_undecodable
    }

    /// The same error as the routes without a space word it.
    pub(crate) fn spaceless(self) -> Self {
        match self.wording {
            Wording::Api => Self {
                wording: Wording::Spaceless,
                ..self
            },
            _ => self,
        }
    }

    /// The body is over the limit.
    pub(crate) fn body_too_large(bytes_max: u64) -> Self {
        let message =
            format!("the request's body is larger than {bytes_max} bytes (limits.body_max)");
        Self::refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::PayloadTooLarge,
            message,
        )
    }

    /// The body took too long.
    pub(crate) fn body_slow(timeout: Duration) -> Self {
        let message =
            format!("the request's body took longer than {timeout:?} (limits.body_timeout)");
        Self::refused(
            StatusCode::REQUEST_TIMEOUT,
            ErrorCode::DeadlineExceeded,
            message,
        )
    }

    /// The body ended before its end.
    pub(crate) fn body_broken(why: &dyn std::error::Error) -> Self {
        Self::invalid(format!("the request's body can not be read: {why}"))
    }

    /// The listener has TLS, and the request came without.
    pub(crate) fn plain_http() -> Self {
        Self::invalid("this listener speaks HTTPS: begin the URL with https://")
    }

    /// The functions API has no such path.
    pub(crate) fn no_such_path(path: &str) -> Self {
        let message = format!("there is nothing at {path}; functions are run with POST /invoke");
        Self::refused(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
    }

    /// A file of the page that describes the APIs can not be made.
    pub(crate) fn page(why: &dyn std::error::Error) -> Self {
        let message = format!("the page can not be shown: {why}");
        Self::refused(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Internal,
            message,
        )
    }

    /// The path takes other methods.
    pub(crate) fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("this path takes {allow} only");
        let mut fields = HeaderMap::new();
        fields.insert(header::ALLOW, HeaderValue::from_static(allow));
        Self::refused(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::MethodNotAllowed,
            message,
        )
        .with_fields(fields)
    }

    /// The config API has no such path; worded as Event Gateway's router does.
    pub(crate) fn plain_not_found() -> Self {
        let error = Self::refused(StatusCode::NOT_FOUND, ErrorCode::NotFound, "no such path");
        Self {
            wording: Wording::Plain("404 page not found\n"),
            ..error
        }
    }

    /// The path takes other methods, which the router tells.
    pub(crate) fn method_not_taken(method: &Method) -> Self {
        let message = format!("this path does not take {method}");
        Self::refused(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::MethodNotAllowed,
            message,
        )
    }

    /// The user has a function of that name.
    pub(crate) fn taken(name: &str) -> Self {
        let message = format!("name is \"{name}\", and there is a function of that name");
        Self::refused(StatusCode::CONFLICT, ErrorCode::Conflict, message)
    }

    /// What carried a request out is gone.
    pub(crate) fn lost() -> Self {
        let failure = Failure::new(
            ErrorCode::Internal,
            Component::Gateway,
            Effect::Interrupted,
            "the run was lost; the log of the node says why",
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, failure)
    }

    /// A path of the config API takes other methods; worded as Event Gateway's router does.
    pub(crate) fn plain_method_not_allowed() -> Self {
        let error = Self::refused(
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::MethodNotAllowed,
            "no such method",
        );
        Self {
            wording: Wording::Plain("Method Not Allowed\n"),
            ..error
        }
    }

    /// Something other than a function does not exist.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::refused(StatusCode::NOT_FOUND, ErrorCode::NotFound, message)
    }

    /// A function that is not registered, as the config API words it.
    pub(crate) fn function_not_found(id: &str) -> Self {
        catalog::Error::NotFound(id.to_owned()).into()
    }

    /// All of `limits.in_flight_max` are taken.
    pub(crate) fn in_flight(in_flight_max: usize) -> Self {
        let message = format!(
            "{in_flight_max} invocations are in flight on this node (limits.in_flight_max)"
        );
        Self::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Overloaded,
            message,
        )
    }

    /// All of `limits.bodies_max` is taken.
    pub(crate) fn no_room_for_bodies(bytes_max: u64) -> Self {
        let message = format!(
            "the bodies of requests in flight on this node take {bytes_max} bytes (limits.bodies_max)"
        );
        Self::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Overloaded,
            message,
        )
    }

    /// The node should get no requests now.
    pub(crate) fn not_ready(code: ErrorCode, why: &str) -> Self {
        let error = Self::refused(StatusCode::SERVICE_UNAVAILABLE, code, why);
        Self {
            wording: Wording::NotReady,
            ..error
        }
    }

    /// No more is admitted: the node ends.
    pub(crate) fn draining() -> Self {
        Self::refused(
            StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Draining,
            "Service Unavailable",
        )
    }

    /// The node knows no functions and subscriptions yet.
    pub(crate) fn not_loaded() -> Self {
        let message = "this node has not loaded the subscriptions yet: neither the store nor a snapshot was read";
        Failure::new(
            ErrorCode::StoreUnavailable,
            Component::Store,
            Effect::Refused,
            message,
        )
        .into()
    }

    /// What went wrong, without how it is answered.
    pub(crate) fn into_failure(self) -> Failure {
        self.failure
    }

    /// The authorizer of an event type, or of a subscription, does not let an event through. The client is not told why: the log is.
    pub(crate) fn not_authorized(event_type: &str) -> Self {
        let message =
            format!("Authorization of event type {event_type:?} failed. Please check logs.");
        Self::refused(StatusCode::FORBIDDEN, ErrorCode::Forbidden, message)
    }

    /// The caller asks for more than it may.
    pub(crate) fn exceeded(exceeded: &Exceeded) -> Self {
        Self::from(Failure::from(exceeded)).standing(exceeded.standing.as_ref())
    }

    /// The same, which says how a rate stands.
    pub(crate) fn standing(self, standing: Option<&Standing>) -> Self {
        let Some(standing) = standing else {
            return self;
        };
        let mut fields = HeaderMap::new();
        headers::rate_limit(&mut fields, standing);
        self.with_fields(fields)
    }

    /// A function did not answer an event. The client is not told why: the log is.
    pub(crate) fn function_call(failed: Failed) -> Self {
        let mut failure = failed.failure;
        let is_refused = failure.effect == Effect::Refused;
        let status = match failure.code {
            ErrorCode::PayloadTooLarge if is_refused => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::FunctionBusy | ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Overloaded | ErrorCode::Draining | ErrorCode::EngineUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status != StatusCode::PAYLOAD_TOO_LARGE {
            failure.message = call_failed(&failure).to_owned();
        }
        let mut fields = HeaderMap::new();
        fields.insert(headers::ROUTE, headers::route(failed.is_forwarded));
        if let Some(timing) = headers::server_timing(&failed.phases) {
            fields.insert(headers::SERVER_TIMING, timing);
        }
        let standing = failed.standing;
        Self::new(status, failure)
            .with_fields(fields)
            .standing(standing.as_ref())
    }

    /// A function answered an event with something that is no answer to it.
    pub(crate) fn malformed_answer(why: &dyn std::error::Error, node: &str) -> Self {
        let failure = Failure::new(
            ErrorCode::MalformedAnswer,
            Component::Function,
            Effect::Finished,
            why.to_string(),
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, failure.at_node(node))
    }

    /// The same with more headers on its answer.
    pub(crate) fn with_fields(mut self, fields: HeaderMap) -> Self {
        self.fields.get_or_insert_default().extend(fields);
        self
    }

    /// The code of the error.
    pub(crate) fn code(&self) -> ErrorCode {
        self.failure.code
    }

    /// Builds the answer.
    pub(crate) fn answer(
        &self,
        shape: Shape,
        invocation: &InvocationId,
        own_name: &str,
    ) -> Response<AnswerBody> {
        let code = self.failure.code;
        let node = self.failure.node.as_deref().unwrap_or(own_name);
        let content_type = match self.wording {
            Wording::Plain(_) => HeaderValue::from_static("text/plain; charset=utf-8"),
            Wording::Api | Wording::NotReady | Wording::Spaceless | Wording::Aws(_) => {
                headers::JSON
            }
        };
        let mut response = Response::new(AnswerBody::whole(self.body(shape, invocation, node)));
        *response.status_mut() = self.status;
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        let fields = response.headers_mut();
        if let Some(more) = &self.fields {
            fields.extend((**more).clone());
        }
        fields.insert(header::CONTENT_TYPE, content_type);
        fields.insert(headers::NODE, headers::text(node));
        fields.insert(
            headers::ERROR,
            headers::text(&format!("{code};{}", self.failure.component)),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            fields.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after_seconds() {
            fields.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if shape == Shape::Aws {
            self.aws_tell(&mut response);
        }
        response
    }

    /// 429 and 503 always say when to come back; other errors when whoever failed knows.
    fn retry_after_seconds(&self) -> Option<u64> {
        let is_shed = matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        match self.failure.retry_after_ms {
            Some(milliseconds) => Some(milliseconds.div_ceil(1000).max(1)),
            None => (is_shed && !self.is_lasting).then_some(1),
        }
    }

    fn body(&self, shape: Shape, invocation: &InvocationId, node: &str) -> Vec<u8> {
        let encoded = match (self.wording, shape) {
            (_, Shape::Aws) => serde_json::to_vec(&self.aws_body()),
            (Wording::Plain(text), _) => return text.into(),
            (Wording::NotReady, _) => serde_json::to_vec(
                &serde_json::json!({ "ready": false, "why": self.failure.message }),
            ),
            (Wording::Spaceless, _) => {
                serde_json::to_vec(&serde_json::json!({ "error": self.failure.message }))
            }
            (Wording::Api | Wording::Aws(_), Shape::Functions) => {
                serde_json::to_vec(&api::InvokeError {
                    error: self.functions_message(),
                    code: self.failure.code.to_string(),
                    component: self.failure.component.to_string(),
                    node: node.to_owned(),
                    invocation: invocation.to_string(),
                })
            }
            (Wording::Api | Wording::Aws(_), Shape::EventGateway) => {
                serde_json::to_vec(&api::Errors::one(&self.failure.message))
            }
        };
        let mut body = encoded.expect("texts and lists of texts can be written as JSON");
        if shape == Shape::EventGateway {
            body.push(b'\n');
        }
        body
    }

    /// The functions API promises one text for an unknown function, and that an error says when the function may have run.
    fn functions_message(&self) -> String {
        let message = &self.failure.message;
        match (self.failure.code, self.failure.effect) {
            (ErrorCode::FunctionNotFound, _) => "Function not found".to_owned(),
            (_, Effect::Interrupted) if !message.contains("may have run") => {
                format!("{message}; the function may have run")
            }
            _ => message.clone(),
        }
    }
}

/// What a client of Event Gateway is told of this failure.
fn call_failed(failure: &Failure) -> &'static str {
    let said = failure.answered.as_ref().map(|answered| &answered.said);
    let code = said.and_then(|said| said.split(':').next());
    let is_told = failure.effect == Effect::Refused && failure.component == Component::Provider;
    let known = CALL_FAILED_WITH
        .iter()
        .find(|(known, _)| is_told && code == Some(known));
    known.map_or(CALL_FAILED, |(_, message)| message)
}

/// The status of a failed invocation.
impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let status = match failure.code {
            ErrorCode::InvalidRequest | ErrorCode::Vetoed => StatusCode::BAD_REQUEST,
            ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::FunctionNotFound | ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::Conflict => StatusCode::CONFLICT,
            // An answer over the limit is the function's fault, a payload over it the caller's.
            ErrorCode::PayloadTooLarge if failure.effect != Effect::Refused => {
                StatusCode::BAD_GATEWAY
            }
            ErrorCode::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::FunctionBusy | ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Overloaded
            | ErrorCode::Draining
            | ErrorCode::EngineUnavailable
            | ErrorCode::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::DeadlineExceeded | ErrorCode::Expired => StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::FunctionFailed
            | ErrorCode::MalformedAnswer
            | ErrorCode::StartFailed
            | ErrorCode::ImageNotFound
            | ErrorCode::Unreachable
            | ErrorCode::Interrupted
            | ErrorCode::Cancelled
            | ErrorCode::PeerProtocol => StatusCode::BAD_GATEWAY,
            ErrorCode::Internal | ErrorCode::PluginFailed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, failure)
    }
}

/// A handler's error travels as an extension: only the surface knows the shape and the request's id.
impl IntoResponse for Error {
    fn into_response(self) -> axum::response::Response {
        let mut response = axum::response::Response::default();
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}
