//! Runs an execution that the queue delivers.

use std::time::Duration;

use actors::executions::Run;
use actors::invoker::{Completed, Failed, Request};
use base64::Engine;
use protocol::event::is_json;
use protocol::{Component, Effect, ErrorCode, ExecutionId, Failure, api};
use queue::{Delivery, End, Outcome};
use serde_json::value::{RawValue, to_raw_value};

use super::Submitted;
use crate::node::Node;

/// The pause before an execution is delivered again whose end could not be written down.
const AGAIN: Duration = Duration::from_secs(5);

/// Calls the function once and writes down what came of it, unless the execution has an end already.
///
/// # Errors
/// Why the function did not take it.
///
/// # Cancel safety
/// Dropping the future cancels the invocation; the execution is begun anew when it is delivered again.
pub(crate) async fn run(
    node: &dyn Node,
    delivery: &Delivery,
    id: ExecutionId,
) -> Result<End, Failure> {
    let submitted = read(delivery)?;
    let executions = node.executions();
    let begun = executions.begin(&delivery.space, id, submitted.claim).await;
    let Some(run) = begun.map_err(|error| unwritten(&error))? else {
        return Ok(End::Void);
    };
    let request = Request {
        // The same for each attempt, so that a function can know one that it has seen.
        id: id.invocation_id(),
        space: delivery.space.clone(),
        function_id: delivery.function_id.clone(),
        payload: submitted.payload,
        content_type: submitted.content_type,
        call: None,
        trace: submitted.trace,
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
        Ok(completed) => succeed(node, &run, completed).await,
        Err(failed) => fail(node, &run, *failed).await,
    }
}

async fn succeed(node: &dyn Node, run: &Run, completed: Completed) -> Result<End, Failure> {
    let executions = node.executions();
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
    match result {
        Ok(result) => {
            let how = (start, phases);
            let written = executions.succeed(run, &ran_on, how, &result).await;
            match written {
                Ok(true) => Ok(End::Delivered),
                Ok(false) => Ok(End::Void),
                Err(error) => Err(unwritten(&error)),
            }
        }
        Err(failure) => {
            let failed = Failed {
                failure,
                is_forwarded,
                phases,
            };
            fail(node, run, failed).await
        }
    }
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

/// Writes down that an execution is given up, if `outcome` says so; what the queue is told then is that the delivery is done with: its
/// end is in the record.
pub(crate) async fn failed(
    node: &dyn Node,
    delivery: &Delivery,
    id: ExecutionId,
    failure: &Failure,
    outcome: Outcome,
) -> Outcome {
    if !matches!(outcome, Outcome::DeadLetter { .. }) {
        return outcome;
    }
    // What can not be read was never begun, so there is one claim to give up.
    let claim = read(delivery).map_or(1, |submitted| submitted.claim);
    let executions = node.executions();
    match executions
        .give_up(&delivery.space, id, claim, failure)
        .await
    {
        Ok(()) => Outcome::Failed,
        Err(error) => {
            tracing::warn!(execution = %id, %error, "an execution that failed can not be ended, and is tried again");
            Outcome::Again {
                after: AGAIN,
                counts: false,
            }
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

/// What the queue is told when the store is away: that this is no fault of the function's.
fn unwritten(error: &actors::executions::Error) -> Failure {
    Failure::new(
        ErrorCode::StoreUnavailable,
        Component::Store,
        Effect::Refused,
        error.to_string(),
    )
}

/// What is kept of a function's answer: JSON as JSON, other text as a string, other bytes as base64; the beginning of what is too long.
fn kept(completed: &Completed, bytes_max: usize) -> Result<api::ExecutionResult, Failure> {
    let body = completed.reply.body.whole();
    let content_type = completed.reply.content_type.clone();
    let is_whole = body.len() <= bytes_max;
    let is_json = content_type.as_deref().is_some_and(is_json);
    let mut encoding = None;
    let value = if body.is_empty() {
        to_raw_value(&())
    } else if is_json {
        let json: &RawValue = serde_json::from_slice(body).map_err(|error| {
            let message = format!("the function's answer says that it is JSON and is not: {error}");
            let (code, component) = (ErrorCode::MalformedAnswer, Component::Function);
            Failure::new(code, component, Effect::Finished, message).at_node(&completed.node)
        })?;
        match is_whole {
            true => Ok(json.to_owned()),
            false => to_raw_value(beginning(json.get(), bytes_max)),
        }
    } else if let Ok(text) = std::str::from_utf8(body) {
        to_raw_value(beginning(text, bytes_max))
    } else {
        encoding = Some("base64".to_owned());
        let begin = &body[..body.len().min(bytes_max)];
        to_raw_value(&base64::engine::general_purpose::STANDARD.encode(begin))
    };
    Ok(api::ExecutionResult {
        status: completed.reply.status,
        content_type,
        bytes: body.len() as u64,
        truncated: !is_whole,
        value: value.expect("a text has a JSON form"),
        encoding,
    })
}

/// As much of a text as has so many bytes.
fn beginning(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use protocol::invocation::{Body, StartKind};
    use protocol::{Phases, Reply};

    use super::*;

    fn check(content_type: Option<&str>, body: &'static [u8], max: usize, expected: &str) {
        let completed = Completed {
            reply: Reply {
                status: 200,
                content_type: content_type.map(str::to_owned),
                headers: Vec::new(),
                body: Body::Whole(body.into()),
            },
            node: Arc::from("n1"),
            start: StartKind::Warm,
            is_forwarded: false,
            phases: Phases::default(),
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
