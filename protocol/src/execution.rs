//! An execution: what becomes of an asynchronous invocation, from its acceptance to its end.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::code::Failure;
use crate::destination::Told;
use crate::id::{FunctionId, InvocationId, Space};
use crate::invocation::{Phases, StartKind};
use crate::version::Version;

/// Names one execution, in every space and for ever. One that was accepted later has a greater name, in text as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExecutionId(uuid::Uuid);

/// Why a text names no execution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the id of an execution is a UUID, got \"{0}\"")]
pub struct InvalidExecutionId(String);

/// What is told of an execution. Moments are in milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    /// Its name.
    pub id: ExecutionId,
    /// The function's space.
    pub space: Space,
    /// The function.
    pub function_id: FunctionId,
    /// How far it is.
    pub status: Status,
    /// When it was accepted.
    pub accepted_at_ms: u64,
    /// The name of the node that accepted it.
    pub accepted_by: String,
    /// It is not begun sooner; nothing when it may be at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before_ms: Option<u64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// How often it was begun.
    pub attempts_made: u32,
    /// The last times that it was begun, oldest first.
    pub attempts: Vec<Attempt>,
    /// Why it ended without success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Trouble>,
    /// Where whoever invoked wants its end to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<String>,
    /// Where its end was queued to be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub told: Vec<Told>,
}

/// How far an execution is. The last four are ends, and an execution has one of them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// On its way into a queue; no client was told of it yet.
    Accepted,
    /// In a queue, before its first attempt or between two.
    Queued,
    /// The function was called.
    Running,
    /// The function answered.
    Succeeded,
    /// The function did not, and is not called again.
    Failed,
    /// Somebody ended it.
    Cancelled,
    /// It waited for too long.
    Expired,
}

/// One time that an execution was begun.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    /// The name of the node where it ran; while it runs, of the node that called.
    pub node: String,
    /// The version of the function that ran, where one was named; told when the attempt has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// When it was begun.
    pub started_at_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at_ms: Option<u64>,
    /// Whether it found an instance that was up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StartKind>,
    /// How long each phase took, in microseconds.
    #[serde(default)]
    pub phases: Phases,
    /// Why it came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Trouble>,
}

/// Why something came to nothing, as it is told and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trouble {
    /// The error code.
    pub code: String,
    /// The component it comes from.
    pub component: String,
    /// What went wrong.
    pub message: String,
    /// The status by which the function said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The beginning of what it answered then.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Accepted,
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
    ];

    /// The status as it stands in records and queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether it is an end.
    pub fn is_end(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired
        )
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&Failure> for Trouble {
    fn from(failure: &Failure) -> Self {
        let answered = failure.answered.as_deref();
        Self {
            code: failure.code.to_string(),
            component: failure.component.to_string(),
            message: failure.message.clone(),
            status: answered.map(|answered| answered.status),
            answer: answered.map_or_else(String::new, |answered| answered.said.clone()),
        }
    }
}

crate::schema::text_schema!(ExecutionId);

impl ExecutionId {
    /// Makes a new name for an execution that is accepted at this moment.
    pub fn at(accepted_at: SystemTime) -> Self {
        let since_1970 = accepted_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let drawn = uuid::Uuid::new_v4().into_bytes();
        let mut random = [0; 10];
        // The bytes between them have the version and the variant.
        random[..6].copy_from_slice(&drawn[..6]);
        random[6..].copy_from_slice(&drawn[12..]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The name as a number; a later one is greater.
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// The moment that the name was made for, to the millisecond.
    pub fn moment(self) -> SystemTime {
        let mut millis = [0; 8];
        millis[2..].copy_from_slice(&self.0.as_bytes()[..6]);
        UNIX_EPOCH + Duration::from_millis(u64::from_be_bytes(millis))
    }

    /// The id that all its invocations have, in headers, logs and traces.
    pub fn invocation_id(self) -> InvocationId {
        let text = self.to_string();
        text.parse().expect("a UUID is an invocation id")
    }
}

impl FromStr for ExecutionId {
    type Err = InvalidExecutionId;

    fn from_str(value: &str) -> Result<Self, InvalidExecutionId> {
        let invalid = || InvalidExecutionId(value.to_owned());
        let parsed = uuid::Uuid::parse_str(value).map_err(|_| invalid())?;
        // Other spellings of a UUID would be other keys in the store.
        let is_spelled_so = parsed.as_hyphenated().to_string() == value;
        is_spelled_so.then_some(Self(parsed)).ok_or_else(invalid)
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.as_hyphenated(), f)
    }
}

impl fmt::Debug for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ExecutionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExecutionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_moments_and_tell_them() {
        let moments = [0, 1, 255, 256, 1_764_000_000_000, 1_764_000_000_001];
        let moments = moments.map(|millis| UNIX_EPOCH + Duration::from_millis(millis));
        let ids = moments.map(ExecutionId::at);
        assert!(ids.is_sorted());
        assert!(ids.map(|id| id.to_string()).is_sorted());
        assert_eq!(ids.map(ExecutionId::moment), moments);
        let now = SystemTime::now();
        assert_ne!(ExecutionId::at(now), ExecutionId::at(now));
    }

    #[test]
    fn a_name_has_one_spelling() {
        let id = ExecutionId::at(SystemTime::now());
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        for other in [
            text.to_uppercase(),
            text.replace('-', ""),
            format!("{{{text}}}"),
            "x".to_owned(),
            String::new(),
        ] {
            let parsed = other.parse::<ExecutionId>();
            // All digits may be decimal ones.
            assert!(parsed.is_err() || other == text, "{other}");
        }
    }

    #[test]
    fn a_status_reads_as_it_is_shown() {
        for status in Status::ALL {
            let json = serde_json::to_string(&status).unwrap();
            assert_eq!(json, format!("\"{status}\""));
        }
    }
}
