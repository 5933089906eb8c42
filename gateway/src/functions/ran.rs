//! What came of a run, as it is answered and as its execution keeps it.

use actors::executions::WaitedEnd;
use actors::invoker::{Completed, Failed};
use bytes::Bytes;
use http::HeaderValue;
use limits::Standing;
use protocol::execution::{Status, Trouble};
use protocol::invocation::{Ended, Outcome, StartKind};
use protocol::{Component, ErrorCode, Phases, api};

use crate::content;

/// What came of a run that took place, whether or not it succeeded.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) ended: Ended,
    /// What it printed, or answered.
    pub(super) output: Bytes,
    content_type: Option<String>,
    /// Where it ran, if not here.
    pub(super) node: Option<String>,
    pub(super) start: Option<StartKind>,
    pub(super) is_forwarded: bool,
    pub(super) phases: Phases,
    /// How the tightest rate stands that it counted for.
    pub(super) standing: Option<Standing>,
}

/// The end of the execution of a run that did not take place, or was ended.
pub(super) fn end_of(failed: &Failed) -> WaitedEnd {
    let failure = &failed.failure;
    WaitedEnd {
        status: match failure.code {
            ErrorCode::Cancelled => Status::Cancelled,
            _ => Status::Failed,
        },
        node: failure.node.clone(),
        start: None,
        phases: failed.phases,
        result: None,
        error: Some(Trouble::from(failure)),
    }
}

impl Ran {
    /// What a function answered; one that answers by HTTP has no end of its own.
    pub(super) fn of_completed(completed: Completed) -> Self {
        let Completed {
            reply,
            node,
            start,
            is_forwarded,
            phases,
            standing,
        } = completed;
        let ended = reply.ended.map(|ended| *ended).unwrap_or(Ended {
            outcome: Outcome::Ok,
            exit_code: None,
            why: None,
            cut_bytes: 0,
        });
        Self {
            ended,
            output: reply.body.whole().clone(),
            content_type: reply.content_type,
            node: Some(node.to_string()),
            start: Some(start),
            is_forwarded,
            phases,
            standing,
        }
    }

    /// The same of a function that failed by itself, or was over its time limit; other failures are given back.
    pub(super) fn of_failed(failed: Box<Failed>) -> Result<Self, Box<Failed>> {
        let failure = &failed.failure;
        let outcome = match (failure.component, failure.code) {
            (Component::Function, ErrorCode::FunctionFailed) => Outcome::Failed,
            (Component::Function, ErrorCode::DeadlineExceeded) => Outcome::Timeout,
            _ => return Err(failed),
        };
        let Failed {
            failure,
            is_forwarded,
            phases,
            standing,
        } = *failed;
        let said = failure.answered.map(|answered| answered.said);
        Ok(Self {
            ended: Ended {
                outcome,
                exit_code: None,
                why: Some(failure.message),
                cut_bytes: 0,
            },
            output: said.unwrap_or_default().into(),
            content_type: None,
            node: failure.node,
            start: None,
            is_forwarded,
            phases,
            standing,
        })
    }

    /// The error code of one that did not succeed.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        match self.ended.outcome {
            Outcome::Ok => None,
            Outcome::Failed => Some(ErrorCode::FunctionFailed),
            Outcome::Timeout => Some(ErrorCode::DeadlineExceeded),
        }
    }

    /// What the output is: what the function says, else text, else bytes.
    pub(super) fn media_type(&self) -> HeaderValue {
        let named = self.content_type.as_deref();
        let named = named.and_then(|named| HeaderValue::from_str(named).ok());
        named.unwrap_or_else(|| match std::str::from_utf8(&self.output) {
            Ok(_) => HeaderValue::from_static("text/plain; charset=utf-8"),
            Err(_) => HeaderValue::from_static("application/octet-stream"),
        })
    }

    /// The end of its execution, with so many bytes of what it printed.
    pub(super) fn end(&self, bytes_max: usize) -> WaitedEnd {
        let error = self.code().map(|code| Trouble {
            code: code.to_string(),
            component: Component::Function.to_string(),
            message: self.ended.why.clone().unwrap_or_default(),
            status: None,
            answer: String::new(),
        });
        WaitedEnd {
            status: match error {
                None => Status::Succeeded,
                Some(_) => Status::Failed,
            },
            node: self.node.clone(),
            start: self.start,
            phases: self.phases,
            result: Some(self.result(bytes_max)),
            error,
        }
    }

    fn result(&self, bytes_max: usize) -> api::ExecutionResult {
        let named = self.content_type.as_deref();
        // What says that it is JSON and is not is kept as what else it is.
        let shown = content::shown(&self.output, named, bytes_max)
            .or_else(|_| content::shown(&self.output, None, bytes_max))
            .expect("only what is said to be JSON is read as such");
        let cut_bytes = self.ended.cut_bytes;
        api::ExecutionResult {
            status: 200,
            content_type: self.content_type.clone(),
            bytes: self.output.len() as u64 + cut_bytes,
            truncated: shown.truncated || cut_bytes > 0,
            value: shown.value,
            encoding: shown.encoding,
        }
    }
}
