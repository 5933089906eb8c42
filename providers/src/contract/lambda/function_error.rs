//! The error that a function raised, as its runtime tells it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use protocol::Answered;
use protocol::Reply;
use protocol::invocation::{AnswerRule, Body};
use serde::Deserialize;

use crate::Error;

/// The error that a function raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FunctionError {
    /// `Lambda-Runtime-Function-Error-Type`.
    pub(super) error_type: Option<String>,
    /// The error object, as the runtime wrote it.
    pub(super) body: Bytes,
}

/// What AWS documents of the object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    #[serde(default)]
    error_type: Option<String>,
    #[serde(default)]
    error_message: Option<String>,
}

/// The fields behind the body of an answer that comes piece by piece, and failed on the way; the body is in base64.
const TYPE_TRAILER: &str = "lambda-runtime-function-error-type";
const BODY_TRAILER: &str = "lambda-runtime-function-error-body";

/// The header that AWS's Invoke API tells an error of the function by, and its value.
const HEADER: &str = "x-amz-function-error";
const UNHANDLED: &str = "Unhandled";

/// The status that stands for an error: Lambda has none, and the Event Gateway told one as 500.
const STATUS: u16 = 500;

/// Bytes of an error object that an error repeats: the head that carries it between nodes has 128 KiB, in which it stands twice.
const SAID_BYTES_MAX: usize = 32 * 1024;

impl FunctionError {
    pub(super) fn new(error_type: Option<String>, body: Bytes) -> Self {
        Self {
            error_type: error_type.filter(|error_type| !error_type.is_empty()),
            body,
        }
    }

    /// The error that follows the body of an answer, if one does.
    pub(super) fn behind<'a>(trailer: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        let error_type = trailer(TYPE_TRAILER)?.to_owned();
        let body = trailer(BODY_TRAILER).unwrap_or_default();
        let body = STANDARD
            .decode(body)
            .unwrap_or_else(|_| body.as_bytes().to_vec());
        Some(Self {
            error_type: Some(error_type),
            body: body.into(),
        })
    }

    /// What the call comes to: who wants the answer whole gets the object, and is told by a header that it is an error.
    ///
    /// # Errors
    /// [`Error::Failed`] for all others.
    pub(super) fn into_reply(self, rule: AnswerRule) -> Result<Reply, Error> {
        match rule {
            AnswerRule::Whole => Ok(Reply {
                status: STATUS,
                content_type: Some("application/json".to_owned()),
                headers: vec![(HEADER.to_owned(), Bytes::from_static(UNHANDLED.as_bytes()))],
                body: Body::Whole(self.body),
                ended: None,
            }),
            AnswerRule::Success | AnswerRule::Envelope | AnswerRule::Output => {
                Err(self.into_error())
            }
        }
    }

    /// The call's error, with the whole object as long as that is of a size.
    pub(super) fn into_error(self) -> Error {
        let said = said(&self.body);
        let why = match said.is_empty() {
            true => describe(&self),
            false => said.clone(),
        };
        Error::Failed {
            why,
            answered: Some(Answered {
                status: STATUS,
                said,
                retry_after_ms: None,
            }),
        }
    }
}

/// Says what went wrong in one line: `ValueError: no such thing`.
pub(super) fn describe(error: &FunctionError) -> String {
    let object: Object = serde_json::from_slice(&error.body).unwrap_or_default();
    let error_type = object.error_type.or_else(|| error.error_type.clone());
    let message = object.error_message.unwrap_or_else(|| said(&error.body));
    match (error_type, message.is_empty()) {
        (Some(error_type), true) => error_type,
        (Some(error_type), false) => format!("{error_type}: {message}"),
        (None, true) => "it does not say why".to_owned(),
        (None, false) => message,
    }
}

fn said(body: &[u8]) -> String {
    let end = body.len().min(SAID_BYTES_MAX);
    String::from_utf8_lossy(&body[..end]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use protocol::{Effect, ErrorCode};

    use super::*;

    fn error(error_type: Option<&str>, body: &'static str) -> FunctionError {
        FunctionError {
            error_type: error_type.map(str::to_owned),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    fn check(error_type: Option<&str>, body: &'static str, expected: &str) {
        assert_eq!(describe(&error(error_type, body)), expected);
    }

    #[test]
    fn an_error_is_described_by_what_is_known_of_it() {
        let object = r#"{"errorType":"ValueError","errorMessage":"no such thing","stackTrace":[]}"#;
        check(Some("Function.X"), object, "ValueError: no such thing");
        check(Some("Runtime.X"), "no json", "Runtime.X: no json");
        check(Some("Runtime.X"), "", "Runtime.X");
        check(None, "", "it does not say why");
        check(None, r#"{"errorMessage":"m"}"#, "m");
    }

    #[test]
    fn the_object_is_kept_whole_whoever_asks() {
        let object = r#"{"errorType":"E","errorMessage":"m","stackTrace":["a"]}"#;
        let reply = error(None, object).into_reply(AnswerRule::Whole).unwrap();
        assert_eq!(reply.body.whole(), object);
        assert_eq!(
            reply.headers,
            [("x-amz-function-error".to_owned(), Bytes::from("Unhandled"))]
        );
        for rule in [
            AnswerRule::Success,
            AnswerRule::Envelope,
            AnswerRule::Output,
        ] {
            let failed = error(None, object).into_reply(rule).unwrap_err();
            assert_eq!(failed.code(), ErrorCode::FunctionFailed);
            assert_eq!(failed.effect(), Effect::Finished);
            assert_eq!(failed.to_string(), format!("the function failed: {object}"));
            let Error::Failed { answered, .. } = failed else {
                unreachable!("it failed")
            };
            let answered = answered.unwrap();
            assert_eq!((answered.status, answered.said.as_str()), (500, object));
        }
    }

    #[test]
    fn an_error_may_follow_what_was_answered() {
        let body = STANDARD.encode(r#"{"errorType":"E"}"#);
        let trailers = |name: &str| match name {
            TYPE_TRAILER => Some("Function.E"),
            BODY_TRAILER => Some(body.as_str()),
            _ => None,
        };
        let expected = error(Some("Function.E"), r#"{"errorType":"E"}"#);
        assert_eq!(FunctionError::behind(trailers), Some(expected));
        assert_eq!(FunctionError::behind(|_| None), None);
    }
}
