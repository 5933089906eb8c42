//! `POST /invoke`, the warm path: no router, no layer, no spawned task, and bodies that are not copied.

use std::borrow::Cow;
use std::sync::Arc;

use accounts::{Caller, Scope};
use actors::invoker::{self, Completed, Failed};
use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use protocol::api::InvokeRequest;
use protocol::event::is_json;
use protocol::invocation::TraceContext;
use protocol::{Component, Effect, ErrorCode, Failure, InvocationId, Qualifier, Space};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::error::Category;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::auth;
use crate::body::{self, AnswerBody};
use crate::error::{Error, Shape};
use crate::executions::{self, Wanted};
use crate::surface::Shared;
use crate::{headers, qualified};

/// The path of the warm path.
pub(crate) const PATH: &str = "/invoke";

/// Makes a span the child of the trace a request names, and tells the context to hand on.
pub type Propagate = Arc<dyn Fn(&HeaderMap, &Span) -> TraceContext + Send + Sync>;

/// What every answer begins with; the function's result follows.
const ANSWER_START: &[u8] = br#"{"message":"Function invoked successfully","result":"#;

/// Up to this many bytes a result is copied between its braces: one short write costs less than three pieces.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// Who calls.
#[derive(Debug)]
pub(crate) enum By {
    /// A client; without auth it is nobody in particular.
    Client(Option<Caller>),
    /// A function, of this space.
    Function(Space),
}

/// What a body asks for.
#[derive(Debug)]
struct Asked {
    request: invoker::Request,
    /// Which version it names, if any.
    qualifier: Option<Qualifier>,
    is_async: bool,
}

/// Answers `POST /invoke`.
pub(crate) async fn answer(
    shared: &Shared,
    id: &InvocationId,
    request: Request<Incoming>,
    by: By,
) -> Response<AnswerBody> {
    let (parts, mut body) = request.into_parts();
    let fail = |error: &Error| error.answer(Shape::Functions, id, shared.node.name());
    // Taken before the body is read, so that an overloaded node does not buffer what it can not run.
    let Ok(_permit) = shared.in_flight.try_acquire() else {
        body::discard(&parts.headers, &mut body).await;
        return fail(&Error::in_flight(shared.limits.in_flight_max));
    };
    let request = match body::read(&parts.headers, &mut body, &shared.limits).await {
        Ok(body) => read_request(id, &body, by.own()).and_then(|mut asked| {
            by.check(shared, &asked.request.space)?;
            let wanted = Wanted::read(&parts.headers, &body, asked.is_async)?;
            if let Some(qualifier) = &asked.qualifier {
                let request = &mut asked.request;
                let (space, id) = (&request.space, &request.function_id);
                let registry = shared.node.registry();
                request.version =
                    qualified::resolve(&registry, space, id, qualifier, &parts.headers)?;
            }
            Ok((asked, wanted))
        }),
        Err(error) => Err(error),
    };
    match request {
        Ok((asked, None)) => {
            let version = asked.request.version;
            let mut response = run(shared, asked.request, &parts.headers).await;
            if asked.qualifier.is_some() {
                qualified::tell(response.headers_mut(), version);
            }
            response
        }
        // In a box, so that a call that is waited for carries nothing of it.
        Ok((asked, Some(wanted))) => {
            let (request, qualifier) = (asked.request, asked.qualifier);
            let answer = executions::answer(shared, (request, qualifier), &wanted, &parts.headers);
            Box::pin(answer).await
        }
        Err(error) => fail(&error),
    }
}

impl By {
    /// The space of a call that names none, where it is not the default one.
    fn own(&self) -> Option<&Space> {
        match self {
            Self::Client(_) => None,
            Self::Function(own) => Some(own),
        }
    }

    /// Whether functions of a space may be called.
    fn check(&self, shared: &Shared, space: &Space) -> Result<(), Error> {
        match self {
            Self::Client(Some(caller)) => auth::may(caller, space, Scope::Invoke),
            Self::Function(own) if shared.guard.requires_token() && space != own => {
                Err(Error::other_space(space.as_str(), own))
            }
            Self::Client(None) | Self::Function(_) => Ok(()),
        }
    }
}

async fn run(
    shared: &Shared,
    mut request: invoker::Request,
    fields: &HeaderMap,
) -> Response<AnswerBody> {
    let begun = Instant::now();
    let id = request.id.clone();
    let span = open_span(shared, &mut request, fields);
    let outcome = match span.is_none() {
        true => shared.node.invoke(request).await,
        false => shared.node.invoke(request).instrument(span.clone()).await,
    };
    let (response, start, failed) = match outcome {
        Ok(completed) => match succeed(shared, &completed) {
            Ok(response) => (response, Some(completed.start), None),
            Err(failure) => {
                let phases = completed.phases;
                let failed = Failed {
                    failure,
                    is_forwarded: completed.is_forwarded,
                    phases,
                    standing: completed.standing,
                };
                let mut response = fail(shared, &id, &failed);
                response
                    .headers_mut()
                    .insert(headers::START, headers::start(completed.start));
                (response, Some(completed.start), Some(failed.failure.code))
            }
        },
        Err(failed) => (fail(shared, &id, &failed), None, Some(failed.failure.code)),
    };
    if let Some(code) = failed {
        note_failure(&span, code);
    }
    shared.invocations.duration(start).record(begun.elapsed());
    response
}

/// Makes the span of an invocation where traces are recorded, and puts into the request the context to hand on.
pub(crate) fn open_span(
    shared: &Shared,
    request: &mut invoker::Request,
    fields: &HeaderMap,
) -> Span {
    let Some(propagate) = &shared.propagate else {
        request.trace = verbatim(fields);
        return Span::none();
    };
    let span = tracing::info_span!(
        "invoke",
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        space = %request.space,
        function = %request.function_id,
        invocation = %request.id,
        error = tracing::field::Empty,
    );
    request.trace = propagate(fields, &span);
    span
}

/// Says in the span of an invocation that it failed.
pub(crate) fn note_failure(span: &Span, code: ErrorCode) {
    span.record("otel.status_code", "ERROR")
        .record("error", code.as_str());
}

/// Reads the body of the request. The payload shares the body's memory.
fn read_request(id: &InvocationId, body: &Bytes, own: Option<&Space>) -> Result<Asked, Error> {
    // Without this an array of the fields' values would be taken for an object.
    let is_object = body
        .trim_ascii_start()
        .first()
        .is_none_or(|first| *first == b'{');
    let request: InvokeRequest<'_> = match serde_json::from_slice(body) {
        Ok(request) if is_object => request,
        _ => return Err(explain(body)),
    };
    let (function_id, qualifier) = Qualifier::split(&request.function_name)
        .map_err(|error| Error::invalid(format!("function_name: {error}")))?;
    let payload = match request.payload {
        Some(payload) => body.slice_ref(payload.get().as_bytes()),
        None => Bytes::from_static(b"null"),
    };
    let is_async = request.is_async;
    let request = invoker::Request {
        id: id.clone(),
        space: request
            .space
            .unwrap_or_else(|| own.cloned().unwrap_or_else(Space::default_space)),
        function_id,
        version: None,
        payload,
        content_type: "application/json".to_owned(),
        call: None,
        trace: TraceContext::default(),
        begun: None,
    };
    Ok(Asked {
        request,
        qualifier,
        is_async,
    })
}

/// Reads a refused body once more, slower, to say which field is wrong and what was expected.
fn explain(body: &[u8]) -> Error {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "read for the error only")]
    struct Shape<'a> {
        function_name: Cow<'a, str>,
        #[serde(default)]
        space: Option<Space>,
        #[serde(default)]
        payload: Option<IgnoredAny>,
        #[serde(default, rename = "async")]
        is_async: bool,
    }
    let broken =
        |error: serde_json::Error| Error::invalid(format!("the body is no valid JSON: {error}"));
    if let Err(error) = serde_json::from_slice::<&RawValue>(body) {
        return broken(error);
    }
    let is_object = body.trim_ascii_start().first() == Some(&b'{');
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, Shape<'_>>(&mut deserializer) {
        Err(error) if is_object => {
            let path = error.path().to_string();
            let field = if matches!(path.as_str(), "." | "?") {
                String::new()
            } else {
                format!("{path}: ")
            };
            match error.into_inner() {
                error if error.classify() == Category::Data => {
                    Error::invalid(format!("{field}{error}"))
                }
                error => broken(error),
            }
        }
        _ => Error::invalid(
            r#"the body is no object, expected {"function_name": "...", "payload": ...}"#,
        ),
    }
}

/// The incoming trace context as it is, when nothing here records traces.
fn verbatim(fields: &HeaderMap) -> TraceContext {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let parent = fields.get("traceparent").and_then(text);
    let state = parent.as_ref().and_then(|_| {
        let states: Vec<_> = fields
            .get_all("tracestate")
            .iter()
            .filter_map(text)
            .collect();
        (!states.is_empty()).then(|| states.join(","))
    });
    TraceContext { parent, state }
}

fn succeed(shared: &Shared, completed: &Completed) -> Result<Response<AnswerBody>, Failure> {
    let mut response = Response::new(answer_body(completed)?);
    let fields = response.headers_mut();
    shared.describe(fields, completed);
    fields.insert(header::CONTENT_TYPE, headers::JSON);
    Ok(response)
}

fn fail(shared: &Shared, id: &InvocationId, failed: &Failed) -> Response<AnswerBody> {
    let Failure {
        code,
        component,
        message,
        ..
    } = &failed.failure;
    if *code == ErrorCode::Internal {
        tracing::error!(invocation = %id, %component, message, "invocation failed");
    } else {
        tracing::debug!(invocation = %id, %code, %component, message, "invocation failed");
    }
    let error = Error::from(failed.failure.clone());
    let mut response = error.answer(Shape::Functions, id, shared.node.name());
    let fields = response.headers_mut();
    // One that was refused before a place was chosen for it, such as a call of an unknown function, went nowhere.
    if failed.is_forwarded || failed.phases.route.is_some() {
        fields.insert(headers::ROUTE, headers::route(failed.is_forwarded));
    }
    if let Some(timing) = headers::server_timing(&failed.phases) {
        fields.insert(headers::SERVER_TIMING, timing);
    }
    if let Some(standing) = &failed.standing {
        headers::rate_limit(fields, standing);
    }
    response
}

/// The function's answer as the member `result`: its JSON as JSON, other text as a string, other bytes as base64 with a
/// member `encoding` that says so, nothing as null.
fn answer_body(completed: &Completed) -> Result<AnswerBody, Failure> {
    let body = completed.reply.body.whole();
    if body.is_empty() {
        return Ok(wrap(Bytes::from_static(b"null")));
    }
    if completed.reply.content_type.as_deref().is_some_and(is_json) {
        let json: &RawValue = serde_json::from_slice(body).map_err(|error| {
            let message = format!("the function's answer says that it is JSON and is not: {error}");
            Failure::new(
                ErrorCode::MalformedAnswer,
                Component::Function,
                Effect::Finished,
                message,
            )
            .at_node(&completed.node)
        })?;
        return Ok(wrap(body.slice_ref(json.get().as_bytes())));
    }
    match std::str::from_utf8(body) {
        Ok(text) => {
            let mut answer =
                Vec::with_capacity(ANSWER_START.len() + text.len() + text.len() / 8 + 16);
            answer.extend_from_slice(ANSWER_START);
            serde_json::to_writer(&mut answer, text).expect("a text can be written as JSON");
            answer.push(b'}');
            Ok(AnswerBody::whole(answer))
        }
        Err(_) => {
            let text = base64::engine::general_purpose::STANDARD.encode(body);
            let mut answer = ANSWER_START.to_vec();
            answer.extend_from_slice(format!(r#""{text}","encoding":"base64"}}"#).as_bytes());
            Ok(AnswerBody::whole(answer))
        }
    }
}

fn wrap(result: Bytes) -> AnswerBody {
    if result.len() > COPY_BYTES_MAX {
        return AnswerBody::Pieces([
            Bytes::from_static(ANSWER_START),
            result,
            Bytes::from_static(b"}"),
        ]);
    }
    let mut answer = Vec::with_capacity(ANSWER_START.len() + result.len() + 1);
    answer.extend_from_slice(ANSWER_START);
    answer.extend_from_slice(&result);
    answer.push(b'}');
    AnswerBody::whole(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(body: &str, expected: &str) {
        let id = InvocationId::random();
        let error =
            read_request(&id, &Bytes::copy_from_slice(body.as_bytes()), None).expect_err(body);
        assert!(
            format!("{error:?}").contains(expected),
            "{body}\n got {error:?}\nnot {expected}"
        );
    }

    #[test]
    fn a_refusal_names_field_value_and_expectation() {
        refuses("", "no valid JSON: EOF");
        refuses("{", "no valid JSON: EOF");
        refuses(r#"{"function_name":"\ud800"}"#, "no valid JSON: ");
        refuses("{}x", "no valid JSON: trailing characters");
        refuses("{}", "missing field `function_name`");
        refuses(r#"["f"]"#, "the body is no object");
        refuses("null", "the body is no object");
        refuses(
            r#"{"function_name":5}"#,
            "function_name: invalid type: integer `5`, expected",
        );
        refuses(
            r#"{"function_name":null}"#,
            "function_name: invalid type: null, expected",
        );
        refuses(
            r#"{"function_name":"a b"}"#,
            "function_name: a function id has only",
        );
        refuses(
            r#"{"function_name":""}"#,
            "function_name: a function id is required",
        );
        refuses(
            r#"{"function_name":"f:"}"#,
            "function_name: a qualifier is $LATEST, the number of a version or the name",
        );
        refuses(
            r#"{"function_name":"f:0"}"#,
            "function_name: a version is a whole number",
        );
        refuses(
            r#"{"function_name":"f","space":7}"#,
            "space: invalid type: integer `7`, expected",
        );
        refuses(
            r#"{"function_name":"f","space":"ab"}"#,
            "space: a space has at least 3 characters",
        );
        refuses(
            r#"{"function_name":"f","async":"yes"}"#,
            "async: invalid type: string",
        );
        refuses(
            r#"{"function_name":"f","function_name":"g"}"#,
            "duplicate field `function_name`",
        );
    }

    fn payload(body: &str) -> String {
        let id = InvocationId::random();
        let request =
            read_request(&id, &Bytes::copy_from_slice(body.as_bytes()), None).expect(body);
        String::from_utf8(request.request.payload.into()).unwrap()
    }

    #[test]
    fn a_payload_is_handed_on_as_it_was_written() {
        assert_eq!(
            payload(r#"{"function_name":"f","payload": {"b" : 1.00, "a":1e400 } }"#),
            r#"{"b" : 1.00, "a":1e400 }"#
        );
        assert_eq!(
            payload(r#" {"payload":"\u0041","function_name":"\u0066","more":[1]}"#),
            r#""\u0041""#
        );
        assert_eq!(payload(r#"{"function_name":"f"}"#), "null");
        assert_eq!(payload(r#"{"function_name":"f","payload":null}"#), "null");
        let deep = "[".repeat(5_000) + &"]".repeat(5_000);
        assert_eq!(
            payload(&format!(r#"{{"function_name":"f","payload":{deep}}}"#)),
            deep
        );
    }

    #[test]
    fn json_is_known_by_its_media_type() {
        for (content_type, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/plain", false),
            ("application/jsonx", false),
            ("", false),
            ("é+jso", false),
        ] {
            assert_eq!(is_json(content_type), expected, "{content_type:?}");
        }
    }
}
