//! Runs an execution that the queue delivers.

use std::time::Duration;

use actors::executions::{Begun, Run, Untold};
use actors::invoker::{Completed, Failed, Request};
use http::HeaderMap;
use protocol::{Component, Effect, ErrorCode, ExecutionId, Failure, Phases, api};
use queue::{Delivery, End, Outcome};

use super::Submitted;
use crate::events::Emitter;
use crate::node::Node;
use crate::{content, destinations, qualified};

/// The pause before an execution is delivered again whose end could not be written down.
const AGAIN: Duration = Duration::from_secs(5);

/// Calls the function once and writes down what came of it, unless the execution has an end already.
///
/// # Errors
/// Why the function did not take it, or why its end is still to be told.
///
/// # Cancel safety
/// Dropping the future cancels the invocation; the execution is begun anew when it is delivered again.
pub(crate) async fn run(
    emitter: &Emitter,
    delivery: &Delivery,
    id: ExecutionId,
) -> Result<End, Failure> {
    let node = emitter.node();
    let submitted = read(delivery)?;
    let executions = node.executions();
    let begun = executions.begin(&delivery.space, id, submitted.claim).await;
    let mut run = match begun.map_err(|error| unwritten(&error))? {
        Begun::Run(run) => run,
        // Its node went down between its end and the telling of it, or could not tell it.
        Begun::Ended(untold) => {
            tell(emitter, *untold, &submitted, None).await?;
            return Ok(End::Void);
        }
        Begun::Over => return Ok(End::Void),
    };
    let resolved = match &submitted.qualifier {
        Some(qualifier) => {
            let (registry, none) = (node.registry(), HeaderMap::new());
            let (space, id) = (&delivery.space, &delivery.function_id);
            qualified::resolve(&registry, space, id, qualifier, &none)
        }
        None => Ok(None),
    };
    let version = match resolved {
        Ok(version) => version,
        Err(failure) => return fail(node, &run, nowhere(failure)).await,
    };
    run.set_version(version);
    let request = Request {
        // The same for each attempt, so that a function can know one that it has seen.
        id: id.invocation_id(),
        space: delivery.space.clone(),
        function_id: delivery.function_id.clone(),
        version,
        payload: submitted.payload.clone(),
        content_type: submitted.content_type.clone(),
        call: None,
        trace: submitted.trace.clone(),
        begun: None,
    };
    let outcome = tokio::select! {
        biased;
        () = run.cancelled() => {
            tracing::info!(execution = %id, space = %delivery.space, function = %delivery.function_id, "a running execution was cancelled");
            return Ok(End::Void);
        }
        outcome = node.invoke(request) => outcome,
    };
    match outcome {
        Ok(completed) => succeed(emitter, delivery, &run, &submitted, completed).await,
        Err(failed) => fail(node, &run, *failed).await,
    }
}

async fn succeed(
    emitter: &Emitter,
    delivery: &Delivery,
    run: &Run,
    submitted: &Submitted,
    completed: Completed,
) -> Result<End, Failure> {
    let executions = emitter.node().executions();
    let bytes_max = executions.settings().result_max.as_u64();
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let result = kept(&completed, bytes_max);
    let Completed {
        node: ran_on,
        start,
        is_forwarded,
        phases,
        ..
    } = completed;
    let result = match result {
        Ok(result) => result,
        Err(failure) => {
            let failed = Failed {
                failure,
                is_forwarded,
                phases,
                standing: None,
            };
            return fail(emitter.node(), run, failed).await;
        }
    };
    let (space, function_id) = (&delivery.space, &delivery.function_id);
    let is_heard =
        destinations::is_heard(emitter, space, function_id, |set| set.on_success.is_some());
    let written = executions.succeed(run, &ran_on, (start, phases), &result, is_heard);
    let (is_written, untold) = written.await.map_err(|error| unwritten(&error))?;
    if let Some(untold) = untold {
        tell(emitter, untold, submitted, Some(result)).await?;
    }
    Ok(match is_written {
        true => End::Delivered,
        false => End::Void,
    })
}

/// Has the end of an execution told whose payload is at hand.
async fn tell(
    emitter: &Emitter,
    untold: Untold,
    submitted: &Submitted,
    result: Option<api::ExecutionResult>,
) -> Result<(), Failure> {
    let value_max = emitter.destinations().settings.value_max.as_u64();
    let value_max = usize::try_from(value_max).unwrap_or(usize::MAX);
    let payload = content::payload(&submitted.payload, &submitted.content_type, value_max);
    let patience = emitter.node().executions().settings().record_timeout;
    let payload = Some((payload, submitted.trace.clone()));
    let told = destinations::tell_execution(emitter, untold, payload, result, patience);
    told.await.map(|_| ())
}

/// Notes an attempt that came to nothing, which is no error when the execution has an end by now.
async fn fail(node: &dyn Node, run: &Run, failed: Failed) -> Result<End, Failure> {
    let Failed {
        failure, phases, ..
    } = failed;
    match node
        .executions()
        .attempt_failed(run, &failure, phases)
        .await
    {
        Ok(false) => Ok(End::Void),
        Ok(true) => Err(failure),
        Err(error) => {
            tracing::warn!(%error, "an attempt of an execution can not be written down");
            Err(failure)
        }
    }
}

/// Writes down that an execution is given up, if `outcome` says so, and has it told; what the queue is told then is that the delivery is
/// done with: its end is in the record.
pub(crate) async fn failed(
    emitter: &Emitter,
    delivery: &Delivery,
    id: ExecutionId,
    failure: &Failure,
    outcome: Outcome,
) -> Outcome {
    if !matches!(outcome, Outcome::DeadLetter { .. }) {
        return outcome;
    }
    match give_up(emitter, delivery, id, failure).await {
        Ok(()) => Outcome::Failed,
        Err(error) => {
            tracing::warn!(execution = %id, %error, "an execution that failed can not be ended or told, and is tried again");
            Outcome::Again {
                after: AGAIN,
                counts: false,
            }
        }
    }
}

async fn give_up(
    emitter: &Emitter,
    delivery: &Delivery,
    id: ExecutionId,
    failure: &Failure,
) -> Result<(), Failure> {
    let submitted = read(delivery).ok();
    // What can not be read was never begun, so there is one claim to give up.
    let claim = submitted.as_ref().map_or(1, |submitted| submitted.claim);
    let (space, function_id) = (&delivery.space, &delivery.function_id);
    let is_heard =
        destinations::is_heard(emitter, space, function_id, |set| set.on_failure.is_some());
    let executions = emitter.node().executions();
    let given_up = executions.give_up(space, id, claim, failure, is_heard);
    let untold = given_up.await.map_err(|error| Failure::from(&error))?;
    match (untold, submitted) {
        (None, _) => Ok(()),
        (Some(untold), Some(submitted)) => tell(emitter, untold, &submitted, None).await,
        (Some(untold), None) => {
            let patience = executions.settings().record_timeout;
            let told = destinations::tell_execution(emitter, untold, None, None, patience);
            told.await.map(|_| ())
        }
    }
}

fn read(delivery: &Delivery) -> Result<Submitted, Failure> {
    rmp_serde::from_slice(&delivery.event).map_err(|error| {
        let message = format!("the invocation in the queue can not be read: {error}");
        Failure::new(
            ErrorCode::Internal,
            Component::Queue,
            Effect::Refused,
            message,
        )
    })
}

/// An attempt that went to no node.
fn nowhere(failure: Failure) -> Failed {
    Failed {
        failure,
        is_forwarded: false,
        phases: Phases::default(),
        standing: None,
    }
}

/// What the queue is told when the store is away: that this is no fault of the function's.
fn unwritten(error: &actors::executions::Error) -> Failure {
    Failure::new(
        ErrorCode::StoreUnavailable,
        Component::Store,
        Effect::Refused,
        error.to_string(),
    )
}

/// What is kept of a function's answer.
pub(crate) fn kept(
    completed: &Completed,
    bytes_max: usize,
) -> Result<api::ExecutionResult, Failure> {
    let body = completed.reply.body.whole();
    let content_type = completed.reply.content_type.clone();
    let shown = content::shown(body, content_type.as_deref(), bytes_max).map_err(|error| {
        let message = format!("the function's answer says that it is JSON and is not: {error}");
        let (code, component) = (ErrorCode::MalformedAnswer, Component::Function);
        Failure::new(code, component, Effect::Finished, message).at_node(&completed.node)
    })?;
    Ok(api::ExecutionResult {
        status: completed.reply.status,
        content_type,
        bytes: body.len() as u64,
        truncated: shown.truncated,
        value: shown.value,
        encoding: shown.encoding,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::Reply;
    use protocol::invocation::{Body, StartKind};

    use super::*;

    fn check(content_type: Option<&str>, body: &'static [u8], max: usize, expected: &str) {
        let completed = Completed {
            reply: Reply {
                status: 200,
                content_type: content_type.map(str::to_owned),
                body: Body::Whole(body.into()),
                ..Reply::default()
            },
            node: Arc::from("n1"),
            start: StartKind::Warm,
            is_forwarded: false,
            phases: Phases::default(),
            standing: None,
        };
        let told = match kept(&completed, max) {
            Ok(result) => serde_json::to_string(&result).unwrap(),
            Err(failure) => failure.code.to_string(),
        };
        assert_eq!(told, expected, "{body:?}");
    }

    #[test]
    fn an_answer_is_kept_as_what_it_is_and_as_far_as_there_is_room() {
        let json = Some("application/json");
        check(
            json,
            b" {\"a\" : 1.0}",
            99,
            r#"{"status":200,"contentType":"application/json","bytes":12,"value":{"a" : 1.0}}"#,
        );
        check(
            json,
            b"{\"a\":1}",
            4,
            r#"{"status":200,"contentType":"application/json","bytes":7,"truncated":true,"value":"{\"a\""}"#,
        );
        check(json, b"{", 99, "malformed_answer");
        check(None, b"", 99, r#"{"status":200,"bytes":0,"value":null}"#);
        check(
            None,
            "aé".as_bytes(),
            2,
            r#"{"status":200,"bytes":3,"truncated":true,"value":"a"}"#,
        );
        check(
            None,
            b"\xff\xfe\xfd",
            2,
            r#"{"status":200,"bytes":3,"truncated":true,"value":"//4=","encoding":"base64"}"#,
        );
    }
}
