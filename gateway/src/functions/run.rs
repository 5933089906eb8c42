//! Runs a user's function to its end, answers with what it printed, and leaves an execution.

use std::sync::Arc;
use std::time::Duration;

use accounts::Scope;
use actors::executions::Run;
use actors::invoker::{self, Completed, Failed};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use protocol::api::InvokeError;
use protocol::function::Contract;
use protocol::invocation::{AnswerRule, Call, TraceContext};
use protocol::{Component, Effect, ErrorCode, Failure, Function, FunctionId, InvocationId};
use serde::de::IgnoredAny;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument;

use super::owned::Owner;
use super::ran::{Ran, end_of};
use crate::admin::{Segments, read_body};
use crate::error::Error;
use crate::headers;
use crate::invoke::{note_failure, open_span};
use crate::surface::Shared;

/// Run a function of the caller's, under the path that says so.
#[utoipa::path(
    post,
    path = "/api/v1/functions/execute/{id}",
    operation_id = "execute_own_function",
    tag = "users",
    params(("id" = FunctionId, Path, description = "The function's id")),
    request_body(content = Option<serde_json::Value>, description = "The payload, if any"),
    responses(
        (status = 201, description = "What the function printed; `x-hearth-outcome` says `ok`, `failed` or `timeout`", body = String, content_type = "text/plain"),
        (status = 404, description = "The caller has no such function", body = InvokeError),
        (status = 502, description = "The function could not be started or reached", body = InvokeError),
        (status = 504, description = "The deadline passed before it ran", body = InvokeError),
    ),
)]
pub(super) async fn execute(
    state: State<Arc<Shared>>,
    owner: Owner,
    id: Segments<String>,
    request: Request,
) -> Result<Response, Error> {
    run(state, owner, id, request).await
}

/// Run a function of the caller's, and answer with what it printed.
#[utoipa::path(
    post,
    path = "/api/v1/functions/{id}",
    operation_id = "run_own_function",
    tag = "users",
    params(("id" = FunctionId, Path, description = "The function's id")),
    request_body(content = Option<serde_json::Value>, description = "The payload, if any"),
    responses(
        (status = 201, description = "What the function printed; `x-hearth-outcome` says `ok`, `failed` or `timeout`", body = String, content_type = "text/plain"),
        (status = 404, description = "The caller has no such function", body = InvokeError),
        (status = 502, description = "The function could not be started or reached", body = InvokeError),
        (status = 504, description = "The deadline passed before it ran", body = InvokeError),
    ),
)]
pub(super) async fn run(
    State(shared): State<Arc<Shared>>,
    owner: Owner,
    Segments(id): Segments<String>,
    request: Request,
) -> Result<Response, Error> {
    let space = owner.may(Scope::Invoke)?;
    let Ok(_permit) = shared.in_flight.try_acquire() else {
        return Err(Error::in_flight(shared.limits.in_flight_max));
    };
    let (fields, payload) = read_body(&shared, request).await?;
    check(&payload)?;
    let function = shared.node.known(space.as_str(), &id).await?.function;
    let (sender, answered) = oneshot::channel();
    // In a task, so that the execution has an end also when the client leaves.
    let job = carry_out(Arc::clone(&shared), function, payload, fields, sender);
    shared.tasks.spawn(job);
    let (id, outcome) = answered.await.map_err(|_| Error::lost())?;
    let mut response = match outcome {
        Ok(ran) => answer(&shared, ran),
        Err(failed) => {
            let mut fields = HeaderMap::new();
            describe(&mut fields, &failed);
            let error = Error::from(failed.failure).with_fields(fields);
            error.into_response()
        }
    };
    let id = headers::text(id.as_str());
    response.headers_mut().insert(headers::INVOCATION, id);
    Ok(response)
}

/// The payload is JSON, or there is none.
fn check(payload: &[u8]) -> Result<(), Error> {
    if payload.is_empty() {
        return Ok(());
    }
    let read = serde_json::from_slice::<IgnoredAny>(payload);
    let read = read.map_err(|error| {
        Error::invalid(format!(
            "the body is no valid JSON, and is the payload: {error}"
        ))
    });
    read.map(|_| ())
}

/// How a run was called, and what came of it.
type Outcome = (InvocationId, Result<Ran, Box<Failed>>);

/// Runs, writes down what came of it, and tells who waits. Who waits no longer ends the run.
async fn carry_out(
    shared: Arc<Shared>,
    function: Function,
    payload: Bytes,
    fields: HeaderMap,
    mut waiting: oneshot::Sender<Outcome>,
) {
    let begun = begin(&shared, &function).await;
    let id = match &begun {
        Some(run) => run.id().invocation_id(),
        None => InvocationId::random(),
    };
    let invoked = async {
        tokio::select! {
            biased;
            () = cancelled(begun.as_ref()) => Err(Box::new(stopped("the execution was cancelled"))),
            () = waiting.closed() => Err(Box::new(stopped("the caller went away"))),
            outcome = invoke(&shared, &id, &function, payload, &fields) => outcome,
        }
    };
    let outcome = match invoked.await {
        Ok(completed) => Ok(Ran::of_completed(completed)),
        Err(failed) => Ran::of_failed(failed),
    };
    let Some(run) = begun else {
        let _ = waiting.send((id, outcome));
        return;
    };
    let executions = shared.node.executions();
    let result_max = executions.settings().result_max.as_u64();
    let end = match &outcome {
        Ok(ran) => ran.end(usize::try_from(result_max).unwrap_or(usize::MAX)),
        Err(failed) => end_of(failed),
    };
    // Written before the client is told, which then finds it on every node; but it does not wait for a store that is away.
    let written = executions.end_waited(&run, &end, Duration::ZERO).await;
    let _ = waiting.send((id, outcome));
    if written.is_ok() {
        return;
    }
    let patience = executions.settings().record_timeout;
    let again = tokio::select! {
        again = executions.end_waited(&run, &end, patience) => again,
        // A node that ends does not wait: the sweep of another one ends it.
        () = shared.closing.cancelled() => written,
    };
    if let Err(error) = again {
        tracing::warn!(execution = %run.id(), space = %function.space, function = %function.function_id, %error, "the end of a run can not be written down; it is shown as running until it is swept");
    }
}

/// Writes down that a run begins. It also runs while the store is away, and leaves no execution then.
async fn begin(shared: &Shared, function: &Function) -> Option<Run> {
    let (space, id) = (&function.space, &function.function_id);
    let limit = function.limits().timeout + shared.start_timeout;
    let begun = shared.node.executions().begin_waited(space, id, limit);
    match begun.await {
        Ok(run) => Some(run),
        Err(error) => {
            tracing::debug!(%space, function = %id, %error, "a run is not written down");
            None
        }
    }
}

async fn cancelled(run: Option<&Run>) {
    match run {
        Some(run) => run.cancelled().await,
        None => std::future::pending().await,
    }
}

fn stopped(why: &str) -> Failed {
    Failed {
        failure: Failure::new(
            ErrorCode::Cancelled,
            Component::Gateway,
            Effect::Interrupted,
            why,
        ),
        is_forwarded: false,
        phases: protocol::Phases::default(),
        standing: None,
    }
}

async fn invoke(
    shared: &Shared,
    id: &InvocationId,
    function: &Function,
    payload: Bytes,
    fields: &HeaderMap,
) -> Result<Completed, Box<Failed>> {
    let begun = Instant::now();
    // What answers by HTTP gets the attributes of an invocation, which a call of its own would replace.
    let call = (function.contract() == Some(Contract::Stdio)).then(|| {
        Arc::new(Call {
            answer: AnswerRule::Output,
            ..Call::default()
        })
    });
    let content_type = match payload.is_empty() {
        true => "",
        false => "application/json",
    };
    let mut request = invoker::Request {
        id: id.clone(),
        space: function.space.clone(),
        function_id: function.function_id.clone(),
        version: None,
        payload,
        content_type: content_type.to_owned(),
        call,
        trace: TraceContext::default(),
        begun: None,
    };
    let span = open_span(shared, &mut request, fields);
    let outcome = shared.node.invoke(request).instrument(span.clone()).await;
    let start = match &outcome {
        Ok(completed) => Some(completed.start),
        Err(failed) => {
            note_failure(&span, failed.failure.code);
            None
        }
    };
    shared.invocations.duration(start).record(begun.elapsed());
    outcome
}

/// The answer to a run, whatever its outcome.
fn answer(shared: &Shared, ran: Ran) -> Response {
    let mut fields = HeaderMap::with_capacity(10);
    fields.insert(
        headers::NODE,
        headers::text(ran.node.as_deref().unwrap_or(shared.node.name())),
    );
    if let Some(start) = ran.start {
        fields.insert(headers::START, headers::start(start));
    }
    fields.insert(headers::ROUTE, headers::route(ran.is_forwarded));
    if let Some(timing) = headers::server_timing(&ran.phases) {
        fields.insert(headers::SERVER_TIMING, timing);
    }
    if let Some(standing) = &ran.standing {
        headers::rate_limit(&mut fields, standing);
    }
    let ended = &ran.ended;
    let outcome = HeaderValue::from_static(ended.outcome.as_str());
    fields.insert(headers::OUTCOME, outcome);
    if let Some(exit_code) = ended.exit_code {
        fields.insert(headers::EXIT_CODE, HeaderValue::from(exit_code));
    }
    if ended.cut_bytes > 0 {
        fields.insert(headers::CUT, HeaderValue::from(ended.cut_bytes));
    }
    if let Some(code) = ran.code() {
        let error = format!("{code};{}", Component::Function);
        fields.insert(headers::ERROR, headers::text(&error));
    }
    fields.insert(header::CONTENT_TYPE, ran.media_type());
    let mut response = Response::new(Body::from(ran.output));
    *response.status_mut() = StatusCode::CREATED;
    *response.headers_mut() = fields;
    response
}

/// Says where a run went that came to nothing.
fn describe(fields: &mut HeaderMap, failed: &Failed) {
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
