//! Answers to web pages of allowed origins on the functions and config APIs. Event subscriptions have rules of their own.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::body::AnswerBody;
use crate::headers;

/// Whether a browser asks what it may send.
pub(crate) fn is_preflight(method: &Method, fields: &HeaderMap) -> bool {
    method == Method::OPTIONS && fields.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight of an allowed origin. It needs no credential: browsers send none.
pub(crate) fn preflight() -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    let fields = response.headers_mut();
    fields.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"),
    );
    fields.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "authorization, content-type, idempotency-key, if-match, prefer, traceparent, tracestate",
        ),
    );
    fields.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("600"),
    );
    response
}

/// Lets the page of an allowed origin read the answer.
pub(crate) fn allow(fields: &mut HeaderMap, origin: HeaderValue) {
    fields.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    fields.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(headers::EXPOSED),
    );
    fields.append(header::VARY, HeaderValue::from_static("origin"));
}
