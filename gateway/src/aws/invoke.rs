//! `Invoke`: a call that is waited for, one that is not, and one that only asks whether it may.

use std::sync::Arc;

use accounts::Scope;
use actors::invoker::{self, Completed, Failed};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use protocol::function::Contract;
use protocol::invocation::{AnswerRule, Call, TraceContext};
use protocol::version::LATEST;
use protocol::{Component, Effect, ErrorCode, Failure, Function, Reply, Version};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::Instant;
use tracing::Instrument;
use utoipa::IntoParams;

use super::Context;
use super::log_tail::{self, LOG_RESULT};
use super::name::{Named, invalid};
use crate::admin::{Query, Segments};
use crate::error::{AwsKind, Error};
use crate::executions::{self, Wanted};
use crate::invoke::{note_failure, open_span};
use crate::surface::Shared;
use crate::{headers, qualified};

/// How the call is made: `RequestResponse`, `Event` or `DryRun`.
const INVOCATION_TYPE: HeaderName = HeaderName::from_static("x-amz-invocation-type");
/// JSON in base64 that a function of Lambda's contract is given.
const CLIENT_CONTEXT: HeaderName = HeaderName::from_static("x-amz-client-context");
/// The version that ran.
pub(super) const EXECUTED_VERSION: HeaderName = HeaderName::from_static("x-amz-executed-version");
/// Set where the function itself failed; a function that speaks Lambda's own contract is answered with it too.
pub(super) const FUNCTION_ERROR: HeaderName = HeaderName::from_static("x-amz-function-error");

/// The longest client context, in bytes of base64.
const CLIENT_CONTEXT_LEN_MAX: usize = 3583;

/// The error of a function that failed, and did not itself say how.
const UNHANDLED: HeaderValue = HeaderValue::from_static("Unhandled");

/// Which version or alias.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Qualified {
    /// A version or an alias; the function as it is now without.
    #[serde(default, rename = "Qualifier")]
    pub(super) qualifier: Option<String>,
}

/// How a call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    RequestResponse,
    Event,
    DryRun,
}

impl Kind {
    fn read(fields: &HeaderMap) -> Result<Self, Error> {
        let Some(value) = fields.get(INVOCATION_TYPE) else {
            return Ok(Self::RequestResponse);
        };
        match value.as_bytes() {
            b"RequestResponse" => Ok(Self::RequestResponse),
            b"Event" => Ok(Self::Event),
            b"DryRun" => Ok(Self::DryRun),
            other => Err(invalid(
                "invocationType",
                &String::from_utf8_lossy(other),
                "one of Event, RequestResponse, DryRun",
            )),
        }
    }
}

/// Whether a call whose answer would stream only asks whether it may.
///
/// # Errors
/// When it is not to be waited for, which has no answer to stream.
pub(super) fn is_dry_stream(fields: &HeaderMap) -> Result<bool, Error> {
    match Kind::read(fields)? {
        Kind::RequestResponse => Ok(false),
        Kind::DryRun => Ok(true),
        Kind::Event => Err(invalid(
            "invocationType",
            "Event",
            "one of RequestResponse, DryRun",
        )),
    }
}

/// Call a function (AWS Lambda's `Invoke`).
#[utoipa::path(
    post,
    path = "/2015-03-31/functions/{name}/invocations",
    operation_id = "aws_invoke",
    tag = "aws",
    params(
        ("name" = String, Path, description = "A name, a partial ARN or an ARN, with a qualifier or not"),
        Qualified,
        ("x-amz-invocation-type" = Option<String>, Header, description = "`RequestResponse`, `Event` (it is queued) or `DryRun`"),
        ("x-amz-log-type" = Option<String>, Header, description = "`Tail`: the end of the log comes in `x-amz-log-result`"),
        ("x-amz-client-context" = Option<String>, Header, description = "JSON in base64, which a function of Lambda's contract is given"),
    ),
    request_body(content = serde_json::Value, description = "The payload"),
    responses(
        (status = 200, description = "What the function answered; `x-amz-function-error` is set where it failed", body = serde_json::Value),
        (status = 202, description = "It is queued"),
        (status = 204, description = "It could be called"),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn invoke(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(query): Query<Qualified>,
    context: Context,
    fields: HeaderMap,
    payload: Bytes,
) -> Result<Response, Error> {
    context.may(Scope::Invoke)?;
    let named = Named::read(&name, query.qualifier.as_deref())?;
    let called = find(&shared, &context, &named, &fields)?;
    let kind = Kind::read(&fields)?;
    let wants_log = log_tail::is_wanted(&fields)?;
    let request = request(&context, &called, &fields, payload)?;
    match kind {
        Kind::DryRun => Ok(could_be_called()),
        Kind::Event => {
            check_size(&request.payload, shared.lambda.event_payload_max.as_u64())?;
            let now = Wanted::now();
            let submitted = executions::submit(&shared, (request, named.qualifier), &now, &fields);
            let (execution, _) = Box::pin(submitted).await?;
            let mut response = empty(StatusCode::ACCEPTED);
            let id = execution.invocation_id();
            let id = headers::text(id.as_str());
            response.headers_mut().insert(headers::INVOCATION, id);
            Ok(response)
        }
        Kind::RequestResponse => {
            check_size(&request.payload, shared.lambda.payload_max.as_u64())?;
            let mut response = run(&shared, request, &fields).await?;
            let version = called.executed_version();
            response.headers_mut().insert(EXECUTED_VERSION, version);
            if wants_log {
                let log = log_tail::read(&shared, &context, &named.id).await;
                let log = headers::text(&log);
                response.headers_mut().insert(LOG_RESULT, log);
            }
            Ok(response)
        }
    }
}

/// What a call goes to.
#[derive(Debug)]
pub(super) struct Called {
    function: Arc<Function>,
    /// The version; none is the function as it is now.
    version: Option<Version>,
}

impl Called {
    /// The version that runs, as answers tell it.
    pub(super) fn executed_version(&self) -> HeaderValue {
        match self.version {
            None => HeaderValue::from_static(LATEST),
            Some(version) => version.number().into(),
        }
    }
}

/// What is named, as this node knows it; of an alias one of its versions.
pub(super) fn find(
    shared: &Shared,
    context: &Context,
    named: &Named,
    fields: &HeaderMap,
) -> Result<Called, Error> {
    let registry = shared.node.registry();
    if !registry.is_loaded {
        return Err(Error::not_loaded());
    }
    let (space, id) = (&context.space, &named.id);
    let version = match &named.qualifier {
        None => None,
        Some(qualifier) => {
            let version = qualified::resolve(&registry, space, id, qualifier, fields);
            version.map_err(|_| context.not_found(named))?
        }
    };
    let found = registry.at(space, id, version);
    let found = found.map(|registered| Arc::clone(&registered.function));
    let function = found.ok_or_else(|| context.not_found(named))?;
    Ok(Called { function, version })
}

impl Context {
    /// There is no such function, or no such version of it.
    pub(super) fn not_found(&self, named: &Named) -> Error {
        let qualifier = named.qualifier.as_ref().map(ToString::to_string);
        let arn = self.arn(&named.id, qualifier.as_deref());
        Error::aws(
            AwsKind::ResourceNotFound,
            format!("Function not found: {arn}"),
        )
    }
}

pub(super) fn check_size(payload: &Bytes, bytes_max: u64) -> Result<(), Error> {
    match payload.len() as u64 > bytes_max {
        false => Ok(()),
        true => Err(Error::aws(
            AwsKind::RequestTooLarge,
            format!(
                "Request must be smaller than {bytes_max} bytes for the InvokeFunction operation"
            ),
        )),
    }
}

/// The call of a function. Without a payload it gets an empty object, as AWS has it.
pub(super) fn request(
    context: &Context,
    called: &Called,
    fields: &HeaderMap,
    payload: Bytes,
) -> Result<invoker::Request, Error> {
    let client_context = client_context(fields)?;
    let payload = match payload.is_empty() {
        true => Bytes::from_static(b"{}"),
        false => payload,
    };
    serde_json::from_slice::<IgnoredAny>(&payload).map_err(|error| {
        Error::aws(
            AwsKind::InvalidRequestContent,
            format!("Could not parse request body into json: {error}"),
        )
    })?;
    let function = &called.function;
    // What answers by HTTP gets the attributes of an invocation, which a call of its own would replace.
    let call = (function.contract() == Some(Contract::Lambda)).then(|| {
        Arc::new(Call {
            headers: client_context.into_iter().collect(),
            answer: AnswerRule::Whole,
            ..Call::default()
        })
    });
    Ok(invoker::Request {
        version: called.version,
        id: context.id.clone(),
        space: function.space.clone(),
        function_id: function.function_id.clone(),
        payload,
        content_type: "application/json".to_owned(),
        call,
        trace: TraceContext::default(),
        begun: None,
    })
}

/// What a client tells of itself: JSON in base64, as long as AWS takes it, under the name that functions of Lambda's contract get it by.
fn client_context(fields: &HeaderMap) -> Result<Option<(String, Bytes)>, Error> {
    let Some(value) = fields.get(CLIENT_CONTEXT) else {
        return Ok(None);
    };
    let decoded = STANDARD.decode(value.as_bytes()).ok();
    let is_json = |bytes: &Vec<u8>| serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    match value.len() <= CLIENT_CONTEXT_LEN_MAX && decoded.as_ref().is_some_and(is_json) {
        true => Ok(Some((
            CLIENT_CONTEXT.as_str().to_owned(),
            Bytes::copy_from_slice(value.as_bytes()),
        ))),
        false => Err(Error::aws(
            AwsKind::InvalidRequestContent,
            format!(
                "Client context must be a valid Base64-encoded JSON object of at most {CLIENT_CONTEXT_LEN_MAX} bytes."
            ),
        )),
    }
}

async fn run(
    shared: &Shared,
    mut request: invoker::Request,
    fields: &HeaderMap,
) -> Result<Response, Error> {
    let begun = Instant::now();
    let span = open_span(shared, &mut request, fields);
    let outcome = shared.node.invoke(request).instrument(span.clone()).await;
    let start = outcome.as_ref().ok().map(|completed| completed.start);
    if let Err(failed) = &outcome {
        note_failure(&span, failed.failure.code);
    }
    shared.invocations.duration(start).record(begun.elapsed());
    match outcome {
        Ok(completed) => Ok(succeeded(shared, completed)),
        Err(failed) => failure(shared, *failed),
    }
}

fn succeeded(shared: &Shared, completed: Completed) -> Response {
    let mut fields = HeaderMap::new();
    shared.describe(&mut fields, &completed);
    let Reply {
        content_type,
        headers,
        body,
        ..
    } = completed.reply;
    let own = headers
        .iter()
        .find(|(name, _)| name == FUNCTION_ERROR.as_str());
    let own = own.and_then(|(_, value)| HeaderValue::from_bytes(value).ok());
    if let Some(error) = own {
        fields.insert(FUNCTION_ERROR, error);
    }
    let content_type = content_type.as_deref().map(headers::text);
    let content_type = content_type.unwrap_or(headers::JSON);
    answer(fields, content_type, Body::from(body.whole().clone()))
}

/// A function that failed is a call that succeeded; other failures are the service's.
fn failure(shared: &Shared, failed: Failed) -> Result<Response, Error> {
    let mut fields = HeaderMap::new();
    describe_failed(&mut fields, &failed);
    let failure = failed.failure;
    if !is_of_function(&failure) {
        tracing::debug!(code = %failure.code, component = %failure.component, message = failure.message, "invocation failed");
        return Err(Error::from(failure).with_fields(fields));
    }
    let node = failure.node.as_deref().unwrap_or(shared.node.name());
    fields.insert(headers::NODE, headers::text(node));
    let error = format!("{};{}", failure.code, failure.component);
    fields.insert(headers::ERROR, headers::text(&error));
    fields.insert(FUNCTION_ERROR, UNHANDLED);
    let body = json!({"errorMessage": failure.message, "errorType": error_type(&failure)});
    Ok(answer(fields, headers::JSON, Body::from(body.to_string())))
}

/// Says where a call went that was not answered.
pub(super) fn describe_failed(fields: &mut HeaderMap, failed: &Failed) {
    if failed.is_forwarded || failed.phases.route.is_some() {
        fields.insert(headers::ROUTE, headers::route(failed.is_forwarded));
    }
    if let Some(timing) = headers::server_timing(&failed.phases) {
        fields.insert(headers::SERVER_TIMING, timing);
    }
    if let Some(standing) = &failed.standing {
        headers::rate_limit(fields, standing);
    }
}

/// Whether it is the function that failed: it ran, and it is not known to have been cut off by somebody else.
pub(super) fn is_of_function(failure: &Failure) -> bool {
    let is_late = failure.code == ErrorCode::DeadlineExceeded;
    failure.component == Component::Function
        && (failure.effect == Effect::Finished || is_late && failure.effect != Effect::Refused)
}

/// What the error is called, as AWS calls it where it does.
pub(super) fn error_type(failure: &Failure) -> &'static str {
    match failure.code {
        ErrorCode::DeadlineExceeded => "Sandbox.Timedout",
        ErrorCode::PayloadTooLarge => "Function.ResponseSizeTooLarge",
        ErrorCode::MalformedAnswer => "Function.MalformedAnswer",
        _ => "Function.Failed",
    }
}

fn answer(mut fields: HeaderMap, content_type: HeaderValue, body: Body) -> Response {
    fields.insert(header::CONTENT_TYPE, content_type);
    let mut response = Response::new(body);
    *response.headers_mut() = fields;
    response
}

/// The answer to a call that is not made.
pub(super) fn could_be_called() -> Response {
    empty(StatusCode::NO_CONTENT)
}

fn empty(status: StatusCode) -> Response {
    let mut response = answer(HeaderMap::new(), headers::JSON, Body::empty());
    *response.status_mut() = status;
    response
}
