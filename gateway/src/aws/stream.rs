//! `InvokeWithResponseStream`: the answer as it comes, in frames of `application/vnd.amazon.eventstream`.
//!
//! ```text
//! frame:  length u32 | length of headers u32 | CRC-32 of both u32 | headers | payload | CRC-32 of all before u32
//! header: length of name u8 | name | 7 | length of value u16 | value
//! ```
//!
//! As <https://smithy.io/2.0/aws/amazon-eventstream.html> has it; 7 is the type of strings.

use std::sync::Arc;

use accounts::Scope;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use bytes::{BufMut, BytesMut};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, header};
use protocol::Failure;
use protocol::invocation::{AnswerRule, Body as ReplyBody, Call};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tracing::Instrument;

use super::invoke::{self, EXECUTED_VERSION, FUNCTION_ERROR, Qualified};
use super::name::Named;
use super::{Context, log_tail};
use crate::admin::{Query, Segments};
use crate::error::Error;
use crate::invoke::{note_failure, open_span};
use crate::surface::Shared;

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("application/vnd.amazon.eventstream");

/// What a frame's headers say of a piece of the answer, and of its end.
const CHUNK: [(&str, &str); 3] = [
    (":event-type", "PayloadChunk"),
    (":content-type", "application/octet-stream"),
    (":message-type", "event"),
];
const COMPLETE: [(&str, &str); 3] = [
    (":event-type", "InvokeComplete"),
    (":content-type", "application/json"),
    (":message-type", "event"),
];

/// A longer piece is told in several frames: a client keeps one whole.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;

/// Call a function whose answer comes piece by piece (AWS Lambda's `InvokeWithResponseStream`).
#[utoipa::path(
    post,
    path = "/2021-11-15/functions/{name}/response-streaming-invocations",
    operation_id = "aws_invoke_with_response_stream",
    tag = "aws",
    params(
        ("name" = String, Path, description = "A name, a partial ARN or an ARN, with a qualifier or not"),
        Qualified,
        ("x-amz-invocation-type" = Option<String>, Header, description = "`RequestResponse` or `DryRun`"),
        ("x-amz-log-type" = Option<String>, Header, description = "`Tail`: the end of the log comes with the end of the answer"),
        ("x-amz-client-context" = Option<String>, Header, description = "JSON in base64, which a function of Lambda's contract is given"),
    ),
    request_body(content = serde_json::Value, description = "The payload"),
    responses(
        (status = 200, description = "Frames with pieces of the answer, and one that ends it", body = Vec<u8>, content_type = "application/vnd.amazon.eventstream"),
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
    let called = invoke::find(&shared, &context, &named, &fields)?;
    let is_dry = invoke::is_dry_stream(&fields)?;
    let wants_log = log_tail::is_wanted(&fields)?;
    let mut request = invoke::request(&context, &called, &fields, payload)?;
    invoke::check_size(&request.payload, shared.lambda.payload_max.as_u64())?;
    if is_dry {
        return Ok(invoke::could_be_called());
    }
    let call = request.call.take().map(Arc::unwrap_or_clone);
    request.call = Some(Arc::new(Call {
        answer: AnswerRule::Whole,
        may_stream: true,
        ..call.unwrap_or_default()
    }));
    let begun = Instant::now();
    let span = open_span(&shared, &mut request, &fields);
    let outcome = shared.node.invoke(request).instrument(span.clone()).await;
    let start = outcome.as_ref().ok().map(|completed| completed.start);
    shared.invocations.duration(start).record(begun.elapsed());
    let end = End {
        shared: Arc::clone(&shared),
        context,
        named,
        wants_log,
    };
    let mut told = HeaderMap::new();
    let body = match outcome {
        Ok(completed) => {
            shared.describe(&mut told, &completed);
            let reply = completed.reply;
            let is_error = |(name, _): &(String, Bytes)| name == FUNCTION_ERROR.as_str();
            match (reply.headers.iter().any(is_error), reply.body) {
                // All that it says is the error.
                (true, ReplyBody::Whole(said)) => {
                    let said = String::from_utf8_lossy(&said).into_owned();
                    frames(ReplyBody::default(), Some(of_error_object(said)), end)
                }
                (_, body) => {
                    let failed = !(200..300).contains(&reply.status);
                    let failed = failed.then(|| {
                        let why = format!("the function answered with status {}", reply.status);
                        ("Function.Failed".to_owned(), why)
                    });
                    frames(body, failed, end)
                }
            }
        }
        Err(failed) => {
            note_failure(&span, failed.failure.code);
            invoke::describe_failed(&mut told, &failed);
            if !invoke::is_of_function(&failed.failure) {
                return Err(Error::from(failed.failure).with_fields(told));
            }
            let failure = told_as(&failed.failure);
            frames(ReplyBody::default(), Some(failure), end)
        }
    };
    told.insert(header::CONTENT_TYPE, EVENT_STREAM);
    told.insert(EXECUTED_VERSION, called.executed_version());
    let mut response = Response::new(body);
    *response.headers_mut() = told;
    Ok(response)
}

/// How the error of a function is told that it said itself, by Lambda's contract.
fn of_error_object(said: String) -> (String, String) {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Object {
        error_type: String,
    }
    let object = serde_json::from_str(&said);
    let kind = object.map_or_else(
        |_| "Unhandled".to_owned(),
        |Object { error_type }| error_type,
    );
    (kind, said)
}

/// How a failure is told at the end of an answer: its type, and what happened.
fn told_as(failure: &Failure) -> (String, String) {
    if let Some(answered) = &failure.answered
        && serde_json::from_str::<serde_json::Value>(&answered.said)
            .is_ok_and(|said| said["errorType"].is_string())
    {
        return of_error_object(answered.said.clone());
    }
    let kind = match invoke::is_of_function(failure) {
        true => invoke::error_type(failure).to_owned(),
        false => failure.code.to_string(),
    };
    (kind, failure.message.clone())
}

/// All that is needed to end an answer. It holds the request's place among those in flight until then.
struct End {
    shared: Arc<Shared>,
    context: Context,
    named: Named,
    wants_log: bool,
}

impl End {
    async fn frame(&self, failed: Option<(String, String)>) -> Bytes {
        let mut told = json!({});
        if let Some((kind, details)) = failed {
            told["ErrorCode"] = json!(kind);
            told["ErrorDetails"] = json!(details);
        }
        if self.wants_log {
            let log = log_tail::read(&self.shared, &self.context, &self.named.id).await;
            told["LogResult"] = json!(log);
        }
        frame(&COMPLETE, told.to_string().as_bytes())
    }
}

/// What is still to be told.
enum Rest {
    Pieces(ReplyBody, Option<(String, String)>),
    End(Option<(String, String)>),
    Nothing,
}

/// The frames of an answer, with how it failed where that is known.
fn frames(body: ReplyBody, failed: Option<(String, String)>, end: End) -> Body {
    let state = (Rest::Pieces(body, failed), end);
    Body::from_stream(stream::unfold(state, |(rest, end)| async move {
        let (frames, rest) = match rest {
            Rest::Pieces(ReplyBody::Whole(body), failed) => (chunks(&body), Rest::End(failed)),
            Rest::Pieces(ReplyBody::Stream(mut pieces), failed) => match pieces.next().await {
                Some(Ok(piece)) => {
                    let rest = Rest::Pieces(ReplyBody::Stream(pieces), failed);
                    (chunks(&piece), rest)
                }
                Some(Err(failure)) => (Bytes::new(), Rest::End(Some(told_as(&failure)))),
                None => (Bytes::new(), Rest::End(failed)),
            },
            Rest::End(failed) => (end.frame(failed).await, Rest::Nothing),
            Rest::Nothing => return None,
        };
        Some((Ok::<_, std::convert::Infallible>(frames), (rest, end)))
    }))
}

/// A piece of an answer in frames.
fn chunks(piece: &[u8]) -> Bytes {
    let frames: Vec<_> = piece
        .chunks(CHUNK_BYTES_MAX)
        .map(|piece| frame(&CHUNK, piece))
        .collect();
    match frames.as_slice() {
        [one] => one.clone(),
        several => several.concat().into(),
    }
}

fn frame(fields: &[(&str, &str)], payload: &[u8]) -> Bytes {
    // A length and the type of a string for each value.
    let fields_len: usize = fields
        .iter()
        .map(|(name, value)| 1 + name.len() + 3 + value.len())
        .sum();
    // Two lengths and two sums.
    let len = 16 + fields_len + payload.len();
    let mut frame = BytesMut::with_capacity(len);
    frame.put_u32(u32::try_from(len).expect("a piece and some names are less than 4 GiB"));
    frame.put_u32(u32::try_from(fields_len).expect("some names are less than 4 GiB"));
    frame.put_u32(crc32fast::hash(&frame));
    for (name, value) in fields {
        frame.put_u8(u8::try_from(name.len()).expect("the names here are short"));
        frame.put_slice(name.as_bytes());
        frame.put_u8(7);
        frame.put_u16(u16::try_from(value.len()).expect("the values here are short"));
        frame.put_slice(value.as_bytes());
    }
    frame.put_slice(payload);
    frame.put_u32(crc32fast::hash(&frame));
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of Smithy's specification of the format (its conformance vectors `empty_message` and `payload_no_headers`).
    #[test]
    fn frames_are_those_of_the_specification() {
        assert_eq!(
            hex::encode(frame(&[], b"")),
            "000000100000000005c248eb7d98c8ff"
        );
        assert_eq!(
            hex::encode(frame(&[], b"{'foo':'bar'}")),
            "0000001d00000000fd528c5a7b27666f6f273a27626172277dc3653936"
        );
    }

    #[test]
    fn a_long_piece_is_told_in_several_frames() {
        let piece = vec![7; CHUNK_BYTES_MAX + 1];
        let frames = chunks(&piece);
        let first = u32::from_be_bytes(frames[..4].try_into().unwrap()) as usize;
        let second = u32::from_be_bytes(frames[first..first + 4].try_into().unwrap()) as usize;
        assert_eq!(frames.len(), first + second);
        assert_eq!(chunks(b"").len(), 0);
    }
}
