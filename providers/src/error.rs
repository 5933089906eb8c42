//! Why a provider could not start an instance or finish an invocation.

use protocol::{Answered, Component, Effect, ErrorCode, Failure};

/// Why a provider could not start an instance or finish an invocation.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The engine is missing, down or hung; nothing ran.
    #[error("the container engine can not be used: {why}")]
    EngineUnavailable {
        /// What was tried, and what came back.
        why: String,
    },
    /// No engine and no registry has the image.
    #[error("image {image} was not found: {why}")]
    ImageNotFound {
        /// The image reference.
        image: String,
        /// Where was looked, and what came back.
        why: String,
    },
    /// The instance did not come up: it exited, never listened, or its sandbox forbade it.
    #[error("the instance did not start: {why}")]
    StartFailed {
        /// What happened, with the end of the instance's output.
        why: String,
    },
    /// The instance or endpoint took no connection, or is ejected; nothing ran.
    #[error("the function can not be reached: {why}")]
    Unreachable {
        /// What was tried, and what came back.
        why: String,
        /// For how long it is ejected, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// Its URL leads where the settings forbid it; nothing ran.
    #[error("the function's URL is not called: {why}")]
    Forbidden {
        /// Where it leads.
        why: String,
    },
    /// The platform that the function is on does not take this call: who calls, what is called or how is wrong; nothing ran.
    #[error("the call was not taken: {why}")]
    NotTaken {
        /// Which service and resource, and what it said.
        why: String,
        /// What it answered, where it was asked.
        answered: Option<Answered>,
    },
    /// The platform that the function is on takes no more calls now; nothing ran.
    #[error("the function is throttled: {why}")]
    Throttled {
        /// Which service and resource, and what it said.
        why: String,
        /// When it wants to be asked again, in milliseconds, where it says so.
        retry_after_ms: Option<u64>,
    },
    /// The payload is larger than the platform takes; nothing ran.
    #[error("the payload is too large: {why}")]
    PayloadTooLarge {
        /// Its size and the limit.
        why: String,
    },
    /// The payload is nothing that the platform takes; nothing ran.
    #[error("the payload can not be sent: {why}")]
    PayloadRefused {
        /// What it is, and what was expected.
        why: String,
    },
    /// The function has as many calls in flight on this node as its limit allows; nothing ran.
    #[error("the function has {calls_max} calls in flight on this node, its limit")]
    Busy {
        /// The limit.
        calls_max: u32,
    },
    /// The connection broke after the payload may have arrived.
    #[error("the run was interrupted: {why}")]
    Interrupted {
        /// What happened.
        why: String,
    },
    /// The function's instance ended by itself during the run.
    #[error("the function died during the run: {why}")]
    Died {
        /// Exit code, or that it ran out of memory.
        why: String,
    },
    /// The run was over its time limit and was stopped.
    #[error("the function ran longer than its limit of {timeout_ms} ms and was stopped")]
    TimedOut {
        /// The limit.
        timeout_ms: u64,
    },
    /// It wrote nothing of an answer that is passed on as it comes for longer than it may, and was stopped.
    #[error(
        "the function wrote nothing of its answer for {idle_timeout:?} (limits.stream_idle_timeout) and was stopped"
    )]
    Silent {
        /// The limit.
        idle_timeout: std::time::Duration,
    },
    /// The function ran and said that it failed: a status other than 2xx, or an exit code other than 0.
    #[error("the function failed: {why}")]
    Failed {
        /// Status or exit code, with the end of what it said.
        why: String,
        /// What it answered, where it answers by a status.
        answered: Option<Answered>,
    },
    /// The function answered something that is no answer of its contract.
    #[error("the function's answer can not be read: {why}")]
    Malformed {
        /// What was found.
        why: String,
    },
    /// The function's answer is larger than `limits.answer_max`, or `limits.stream_max` where it is passed on as it comes.
    #[error("the function's answer is larger than {bytes_max} bytes")]
    AnswerTooLarge {
        /// The limit.
        bytes_max: u64,
    },
}

/// When a platform that throttles is asked again, where it does not say: what it counts, it counts by the second.
const THROTTLED_MS: u64 = 1_000;

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::EngineUnavailable { .. } => ErrorCode::EngineUnavailable,
            Self::ImageNotFound { .. } => ErrorCode::ImageNotFound,
            Self::StartFailed { .. } => ErrorCode::StartFailed,
            Self::Unreachable { .. } | Self::NotTaken { .. } => ErrorCode::Unreachable,
            Self::PayloadTooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::PayloadRefused { .. } => ErrorCode::InvalidRequest,
            Self::Forbidden { .. } => ErrorCode::Forbidden,
            Self::Busy { .. } | Self::Throttled { .. } => ErrorCode::FunctionBusy,
            Self::Interrupted { .. } => ErrorCode::Interrupted,
            Self::TimedOut { .. } | Self::Silent { .. } => ErrorCode::DeadlineExceeded,
            Self::Died { .. } | Self::Failed { .. } => ErrorCode::FunctionFailed,
            Self::Malformed { .. } | Self::AnswerTooLarge { .. } => ErrorCode::MalformedAnswer,
        }
    }

    /// The component it comes from.
    pub fn component(&self) -> Component {
        match self {
            Self::EngineUnavailable { .. } | Self::ImageNotFound { .. } => Component::Provider,
            Self::StartFailed { .. } | Self::Unreachable { .. } => Component::Provider,
            Self::Forbidden { .. } | Self::NotTaken { .. } => Component::Provider,
            Self::PayloadTooLarge { .. } | Self::PayloadRefused { .. } => Component::Provider,
            Self::Throttled { .. } => Component::Function,
            Self::Busy { .. } | Self::Interrupted { .. } => Component::Function,
            Self::Died { .. } | Self::TimedOut { .. } | Self::Silent { .. } => Component::Function,
            Self::Failed { .. } => Component::Function,
            Self::Malformed { .. } | Self::AnswerTooLarge { .. } => Component::Function,
        }
    }

    /// Whether the function may have run.
    pub fn effect(&self) -> Effect {
        match self {
            Self::EngineUnavailable { .. } | Self::ImageNotFound { .. } => Effect::Refused,
            Self::StartFailed { .. } | Self::Unreachable { .. } => Effect::Refused,
            Self::Forbidden { .. } | Self::Busy { .. } => Effect::Refused,
            Self::NotTaken { .. } | Self::Throttled { .. } => Effect::Refused,
            Self::PayloadTooLarge { .. } | Self::PayloadRefused { .. } => Effect::Refused,
            Self::Interrupted { .. } | Self::TimedOut { .. } => Effect::Interrupted,
            Self::Silent { .. } => Effect::Interrupted,
            Self::Died { .. } | Self::Failed { .. } => Effect::Finished,
            Self::Malformed { .. } | Self::AnswerTooLarge { .. } => Effect::Finished,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let failure = Self::new(
            error.code(),
            error.component(),
            error.effect(),
            error.to_string(),
        );
        match error {
            Error::Unreachable {
                retry_after_ms: Some(milliseconds),
                ..
            } => failure.retry_after_ms(*milliseconds),
            Error::Throttled { retry_after_ms, .. } => {
                failure.retry_after_ms(retry_after_ms.unwrap_or(THROTTLED_MS))
            }
            Error::Failed {
                answered: Some(answered),
                ..
            }
            | Error::NotTaken {
                answered: Some(answered),
                ..
            } => Self {
                answered: Some(Box::new(answered.clone())),
                ..failure
            },
            _ => failure,
        }
    }
}
