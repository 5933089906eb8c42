//! Asynchronous invocations: accepted into the queue, and run when they are delivered.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actors::executions::{Accepted, Claim, Key, New};
use actors::invoker;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use protocol::execution::Status;
use protocol::invocation::TraceContext;
use protocol::{
    Component, Effect, ErrorCode, ExecutionId, Failure, Function, Qualifier, Space, api,
    destination,
};
use queue::{Delivery, DeliveryId, Origin};
use serde::{Deserialize, Serialize};
use tracing::Instrument;

use crate::body::AnswerBody;
use crate::error::{Error, Shape};
use crate::headers;
use crate::invoke::open_span;
use crate::surface::Shared;

mod run;

pub(crate) use run::{failed, kept, run};

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The preference of RFC 7240 for an answer that does not wait.
const RESPOND_ASYNC: &str = "respond-async";

/// The longest idempotency key.
const KEY_LEN_MAX: usize = 255;

/// How a client wants its invocation to be made, where it does not wait for it.
#[derive(Debug, PartialEq)]
pub(crate) struct Wanted {
    /// Whether it said so by a header, which is told in the answer.
    is_preferred: bool,
    key: Option<String>,
    start: Start,
    /// Where its end is to be told.
    callback: Option<String>,
}

/// When it may begin.
#[derive(Debug, PartialEq)]
enum Start {
    Now,
    After(Duration),
    At(SystemTime),
}

/// What of a request's body is about invocations that are not waited for.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    delay_seconds: Option<f64>,
    #[serde(default)]
    not_before_ms: Option<u64>,
    #[serde(default)]
    callback: Option<String>,
}

/// An invocation as queues keep it.
#[derive(Debug, Serialize, Deserialize)]
struct Submitted {
    /// Which claim on the execution it was put into the queue for.
    #[serde(rename = "c")]
    claim: u32,
    #[serde(rename = "p")]
    payload: Bytes,
    #[serde(rename = "t")]
    content_type: String,
    #[serde(rename = "w", default)]
    trace: TraceContext,
    /// Which version is to run; an alias is asked when it does.
    #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
    qualifier: Option<Qualifier>,
}

impl Wanted {
    /// Reads what a request wants, if it is not to be waited for: `is_async` is what its body says.
    ///
    /// # Errors
    /// When a field of it is wrong.
    pub(crate) fn read(
        fields: &HeaderMap,
        body: &[u8],
        is_async: bool,
    ) -> Result<Option<Self>, Error> {
        let is_preferred = prefers(fields);
        if !is_async && !is_preferred {
            return Ok(None);
        }
        let Fields {
            delay_seconds,
            not_before_ms,
            callback,
        } = serde_json::from_slice(body).map_err(|error| Error::invalid(error.to_string()))?;
        let start = match (delay_seconds, not_before_ms) {
            (None, None) => Start::Now,
            (Some(seconds), None) => match Duration::try_from_secs_f64(seconds) {
                Ok(delay) => Start::After(delay),
                Err(_) => {
                    let why = format!(
                        "delay_seconds is {seconds}, expected a number of seconds, 0 or more"
                    );
                    return Err(Error::invalid(why));
                }
            },
            (None, Some(millis)) => match UNIX_EPOCH.checked_add(Duration::from_millis(millis)) {
                Some(moment) => Start::At(moment),
                None => {
                    let why =
                        format!("not_before_ms is {millis}, expected milliseconds since 1970");
                    return Err(Error::invalid(why));
                }
            },
            (Some(_), Some(_)) => {
                let why = "delay_seconds and not_before_ms are both there, expected one of them";
                return Err(Error::invalid(why));
            }
        };
        if let Some(url) = &callback {
            destination::check_url("callback", url).map_err(Error::invalid)?;
        }
        Ok(Some(Self {
            callback,
            is_preferred,
            key: idempotency_key(fields)?,
            start,
        }))
    }

    /// As soon as it may be, and without a key.
    pub(crate) fn now() -> Self {
        Self {
            is_preferred: false,
            key: None,
            start: Start::Now,
            callback: None,
        }
    }

    /// The moment before which it is not begun.
    fn not_before(
        &self,
        now: SystemTime,
        delay_max: Duration,
    ) -> Result<Option<SystemTime>, Error> {
        let delay = match self.start {
            Start::Now => return Ok(None),
            Start::After(delay) => delay,
            Start::At(moment) => match moment.duration_since(now) {
                Ok(delay) => delay,
                Err(_) => return Ok(None),
            },
        };
        if delay > delay_max {
            let field = match self.start {
                Start::At(_) => "not_before_ms",
                Start::Now | Start::After(_) => "delay_seconds",
            };
            let why = format!(
                "{field} is {} s from now, expected at most {} s (executions.delay_max)",
                delay.as_secs(),
                delay_max.as_secs()
            );
            return Err(Error::invalid(why));
        }
        Ok((!delay.is_zero()).then(|| now + delay))
    }
}

/// Accepts an invocation that is not waited for, and answers. Its qualifier was resolved once, so that what names nothing is refused now; which
/// version runs is said when it is delivered.
pub(crate) async fn answer(
    shared: &Shared,
    (request, qualifier): (invoker::Request, Option<Qualifier>),
    wanted: &Wanted,
    fields: &HeaderMap,
) -> Response<AnswerBody> {
    let id = request.id.clone();
    let space = request.space.clone();
    match submit(shared, (request, qualifier), wanted, fields).await {
        Ok((execution, status)) => accepted(&space, execution, status, wanted.is_preferred),
        Err(error) => error.answer(Shape::Functions, &id, shared.node.name()),
    }
}

/// Accepts an invocation that is not waited for: its execution, with a status where that is known.
///
/// # Errors
/// When it is not taken.
pub(crate) async fn submit(
    shared: &Shared,
    (mut request, qualifier): (invoker::Request, Option<Qualifier>),
    wanted: &Wanted,
    fields: &HeaderMap,
) -> Result<(ExecutionId, Option<Status>), Error> {
    let span = open_span(shared, &mut request, fields);
    accept(shared, (request, qualifier), wanted)
        .instrument(span)
        .await
}

/// Writes an execution down and puts it into the queue, or finds the one that the key names.
async fn accept(
    shared: &Shared,
    (request, qualifier): (invoker::Request, Option<Qualifier>),
    wanted: &Wanted,
) -> Result<(ExecutionId, Option<Status>), Error> {
    if shared.closing.is_cancelled() {
        return Err(Error::draining());
    }
    let function = function(shared, &request)?;
    let executions = shared.node.executions();
    let accepted_at = SystemTime::now();
    let delay_max = executions.settings().delay_max;
    let not_before = wanted.not_before(accepted_at, delay_max)?;
    let own_age_max = function.delivery.as_ref().and_then(|set| set.age_max());
    let age_max = own_age_max.unwrap_or(shared.queued_age_max);
    let key = wanted.key.as_deref();
    let new = New {
        space: &request.space,
        function_id: &request.function_id,
        accepted_at,
        not_before,
        expires_at: not_before.unwrap_or(accepted_at) + age_max,
        callback: wanted.callback.as_deref(),
        key: key.map(|text| Key {
            text,
            payload: &request.payload,
        }),
    };
    // Whatever the store did: nothing is in a queue yet, so nothing runs.
    let accepted = executions.accept(&new).await.map_err(|error| match error {
        actors::executions::Error::Store(error) => {
            let failure = Failure::from(&error);
            let effect = Effect::Refused;
            Error::from(Failure { effect, ..failure })
        }
        error => Error::from(error),
    })?;
    match accepted {
        Accepted::Known(id, status) => Ok((id, Some(status))),
        Accepted::Forgotten(id) => Ok((id, None)),
        Accepted::New(claim) => {
            let id = claim.id;
            let asked = (request, qualifier);
            let status = enqueue(shared, claim, asked, accepted_at, not_before).await?;
            Ok((id, Some(status)))
        }
    }
}

/// Puts an execution into the queue, and says so in its record.
async fn enqueue(
    shared: &Shared,
    claim: Box<Claim>,
    (request, qualifier): (invoker::Request, Option<Qualifier>),
    accepted_at: SystemTime,
    not_before: Option<SystemTime>,
) -> Result<Status, Error> {
    let executions = shared.node.executions();
    let id = claim.id;
    let submitted = Submitted {
        claim: claim.number,
        payload: request.payload,
        content_type: request.content_type,
        trace: request.trace,
        qualifier,
    };
    let event = rmp_serde::to_vec_named(&submitted).expect("an invocation is texts and bytes");
    let delivery = Delivery {
        id: DeliveryId::random(),
        event: event.into_boxed_slice().into(),
        space: request.space,
        function_id: request.function_id,
        origin: Origin::Execution(id),
        ordinal: 0,
        accepted_at,
        not_before,
    };
    if let Err(failure) = shared.emitter.enqueue(vec![delivery]).await {
        executions.withdraw(claim).await;
        return Err(failure.into());
    }
    Ok(executions.queued(claim).await?)
}

/// The function of a request, if this node knows it and it takes the payload.
fn function(shared: &Shared, request: &invoker::Request) -> Result<Arc<Function>, Error> {
    let registry = shared.node.registry();
    if !registry.is_loaded {
        return Err(Error::not_loaded());
    }
    let (space, id) = (&request.space, &request.function_id);
    let refused = |code, message| {
        Error::from(Failure::new(
            code,
            Component::Gateway,
            Effect::Refused,
            message,
        ))
    };
    let Some(registered) = registry.at(space, id, request.version) else {
        let message = format!("function {id} is not registered in space {space}");
        return Err(refused(ErrorCode::FunctionNotFound, message));
    };
    let function = Arc::clone(&registered.function);
    let (bytes, bytes_max) = (request.payload.len(), function.limits().body_bytes);
    match bytes_max {
        Some(bytes_max) if bytes > bytes_max as usize => {
            let message = format!(
                "the payload has {bytes} bytes, and function {id} takes {bytes_max} (limits.bodyBytes)"
            );
            Err(refused(ErrorCode::PayloadTooLarge, message))
        }
        _ => Ok(function),
    }
}

fn accepted(
    space: &Space,
    execution: ExecutionId,
    status: Option<Status>,
    is_preferred: bool,
) -> Response<AnswerBody> {
    let body = api::Accepted { execution, status };
    let body = serde_json::to_vec(&body).expect("an id and a status have a JSON form");
    let mut response = Response::new(AnswerBody::whole(body));
    *response.status_mut() = StatusCode::ACCEPTED;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, headers::JSON);
    let location = format!("/v1/spaces/{space}/executions/{execution}");
    fields.insert(header::LOCATION, headers::text(&location));
    if is_preferred {
        fields.insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
    }
    response
}

/// Whether `Prefer` asks for an answer that does not wait; other preferences are passed over, as RFC 7240 has it.
fn prefers(fields: &HeaderMap) -> bool {
    let preferences = fields.get_all(PREFER).into_iter().flat_map(|value| {
        let text = value.to_str().unwrap_or_default();
        text.split(',')
    });
    preferences
        .map(|preference| {
            preference
                .split([';', '='])
                .next()
                .unwrap_or_default()
                .trim()
        })
        .any(|name| name.eq_ignore_ascii_case(RESPOND_ASYNC))
}

/// The idempotency key, as a structured text (in quotes) or as it is.
fn idempotency_key(fields: &HeaderMap) -> Result<Option<String>, Error> {
    let mut values = fields.get_all(IDEMPOTENCY_KEY).into_iter();
    let (first, more) = (values.next(), values.next());
    let Some(value) = first else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let key = inner.unwrap_or(text);
    if more.is_some() || key.is_empty() || key.len() > KEY_LEN_MAX {
        let why = format!(
            "Idempotency-Key is not one text of 1 to {KEY_LEN_MAX} visible ASCII characters, got {value:?}"
        );
        return Err(Error::invalid(why));
    }
    Ok(Some(key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&'static str, &str)], body: &str) -> Result<Option<Wanted>, Error> {
        let pairs = given.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, value.parse().unwrap())
        });
        Wanted::read(&pairs.collect(), body.as_bytes(), false)
    }

    fn check_preference(value: &str, expected: bool) {
        let wanted = read(&[("prefer", value)], "{}").unwrap();
        assert_eq!(wanted.is_some(), expected, "{value}");
    }

    #[test]
    fn a_preference_is_found_among_others() {
        check_preference("respond-async", true);
        check_preference("Respond-Async", true);
        check_preference("return=minimal, respond-async, wait=10", true);
        check_preference("respond-async; a=b", true);
        check_preference("respond-asynchronously", false);
        check_preference("handling=\"respond-async\"", false);
        check_preference("", false);
        assert!(read(&[], "{}").unwrap().is_none());
    }

    #[test]
    fn a_callback_is_a_url() {
        let callback = |body: &str| {
            let wanted = read(&[("prefer", RESPOND_ASYNC)], body)?.unwrap();
            Ok::<_, Error>(wanted.callback)
        };
        let url = "https://h:1/x?y=z";
        let found = callback(&format!(r#"{{"callback":"{url}"}}"#)).unwrap();
        assert_eq!(found.as_deref(), Some(url));
        assert_eq!(callback(r#"{"callback":null}"#).unwrap(), None);
        for (body, expected) in [
            (r#"{"callback":"/x"}"#, "callback is \\\"/x\\\", expected"),
            (
                r#"{"callback":"ftp://h/"}"#,
                "absolute URL of http or https",
            ),
            (r#"{"callback":{"url":"http://h/"}}"#, "invalid type: map"),
        ] {
            let refused = format!("{:?}", callback(body).unwrap_err());
            assert!(refused.contains(expected), "{body}: {refused}");
        }
    }

    fn check_key(value: &str, expected: Option<&str>) {
        let read = read(
            &[("prefer", RESPOND_ASYNC), ("idempotency-key", value)],
            "{}",
        );
        let key = read.map(|wanted| wanted.unwrap().key);
        assert_eq!(key.ok().flatten().as_deref(), expected, "{value:?}");
    }

    #[test]
    fn a_key_is_read_with_and_without_quotes() {
        check_key("\"8e03978e\"", Some("8e03978e"));
        check_key("8e03978e", Some("8e03978e"));
        check_key("a \"b\" c", Some("a \"b\" c"));
        check_key("\"\"", None);
        check_key("", None);
        check_key(&"x".repeat(255), Some(&"x".repeat(255)));
        check_key(&"x".repeat(256), None);
    }

    #[test]
    fn a_start_is_bounded_and_said_once() {
        let now = SystemTime::now();
        let bound = Duration::from_secs(60);
        let start = |body: &str| {
            let wanted = read(&[("prefer", RESPOND_ASYNC)], body)?.unwrap();
            wanted.not_before(now, bound)
        };
        let later = |seconds| Some(now + Duration::from_secs(seconds));
        assert_eq!(start("{}").unwrap(), None);
        assert_eq!(start(r#"{"delay_seconds":0}"#).unwrap(), None);
        assert_eq!(start(r#"{"delay_seconds":60}"#).unwrap(), later(60));
        assert_eq!(start(r#"{"not_before_ms":5}"#).unwrap(), None);
        for (body, expected) in [
            (r#"{"delay_seconds":61}"#, "delay_seconds is 61 s from now"),
            (r#"{"delay_seconds":-1}"#, "delay_seconds is -1"),
            (r#"{"delay_seconds":"1"}"#, "invalid type: string"),
            (r#"{"delay_seconds":1e300}"#, "delay_seconds is 1"),
            (r#"{"not_before_ms":99999999999999}"#, "not_before_ms is "),
            (
                r#"{"delay_seconds":1,"not_before_ms":1}"#,
                "expected one of them",
            ),
        ] {
            let refused = format!("{:?}", start(body).unwrap_err());
            assert!(refused.contains(expected), "{body}: {refused}");
        }
    }
}
