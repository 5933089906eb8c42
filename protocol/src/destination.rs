//! Where the end of an execution or of a queued delivery is told, and what is told of it.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::api::ExecutionResult;
use crate::execution::{ExecutionId, Status, Trouble};
use crate::function::DeliverySpec;
use crate::id::{FunctionId, Space};
use crate::subscription::EventType;

/// The type of the event that tells an end, where the destination is no event type itself.
pub const ENDED: &str = "hearth.invocation.ended";

/// The extension by which such an event says how many ends led to it, from 1.
pub const DEPTH: &str = "hearthdepth";

/// The longest URL, in bytes.
const URL_LEN_MAX: usize = 2_048;

/// Where an end is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", try_from = "Members")]
pub enum Destination {
    /// A function of the same space is called.
    Function(FunctionId),
    /// An event of this type is emitted in the same space.
    Event(EventType),
    /// It is posted there.
    Url(String),
}

/// A destination as it is written, with one of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    function: Option<FunctionId>,
    event: Option<EventType>,
    url: Option<String>,
}

impl TryFrom<Members> for Destination {
    type Error = &'static str;

    fn try_from(members: Members) -> Result<Self, Self::Error> {
        match members {
            Members {
                function: Some(id),
                event: None,
                url: None,
            } => Ok(Self::Function(id)),
            Members {
                function: None,
                event: Some(event),
                url: None,
            } => Ok(Self::Event(event)),
            Members {
                function: None,
                event: None,
                url: Some(url),
            } => Ok(Self::Url(url)),
            _ => Err("expected exactly one of `function`, `event` and `url`"),
        }
    }
}

/// Which wish a destination fulfils.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Whoever invoked wants to hear of the end, whatever it is.
    Callback,
    /// The function's record wants successes to be told.
    OnSuccess,
    /// The function's record wants it to be told what did not succeed.
    OnFailure,
}

/// The data of an event that tells an end.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The function's space.
    pub space: Space,
    /// The function.
    pub function_id: FunctionId,
    /// The execution that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub execution: Option<ExecutionId>,
    /// The delivery that ended, where it was no execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The subscription that the delivery was for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<String>,
    /// The event that was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<EventName>,
    /// How it ended.
    pub status: Status,
    /// How often it was begun.
    pub attempts: u32,
    /// What the function was called with; nothing where that is in nobody's hands any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<Content>,
    /// What the function answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ExecutionResult>,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Trouble>,
}

/// Which event it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventName {
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Where it happened.
    pub source: String,
}

/// A payload, as far as it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// Whether only its beginning is told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// JSON as it is, other text as a string, other bytes as base64.
    pub value: Box<serde_json::value::RawValue>,
    /// `base64` where the value is that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// An end that was put into a queue for its destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Told {
    /// Where it is told.
    pub destination: Destination,
    /// The delivery that tells it; a dead letter has this id too.
    pub delivery: String,
}

impl Destination {
    /// Checks what its form alone does not.
    ///
    /// # Errors
    /// What was expected instead, beginning with the field that is named.
    pub fn check(&self, field: &str) -> Result<(), String> {
        match self {
            Self::Function(_) => Ok(()),
            Self::Event(event) => event
                .check_emitted()
                .map_err(|expected| format!("{field}.event is \"{event}\", expected {expected}")),
            Self::Url(url) => check_url(&format!("{field}.url"), url),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Function(id) => write!(f, "function {id}"),
            Self::Event(event) => write!(f, "event {event}"),
            Self::Url(url) => f.write_str(url),
        }
    }
}

impl Reason {
    /// Its name in what follows from it: see [`name_of`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::OnSuccess => "onSuccess",
            Self::OnFailure => "onFailure",
        }
    }
}

/// Where an end is told: where whoever invoked wants it, whatever it is, and where the function's record wants it. Of what was
/// cancelled a function's record is not asked: somebody wanted it so.
pub fn destinations(
    status: Status,
    callback: Option<&str>,
    delivery: Option<&DeliverySpec>,
) -> Vec<(Reason, Destination)> {
    let callback = callback
        .filter(|_| status.is_end())
        .map(|url| (Reason::Callback, Destination::Url(url.to_owned())));
    let own = delivery.and_then(|delivery| match status {
        Status::Succeeded => Some((Reason::OnSuccess, delivery.on_success.clone()?)),
        Status::Failed | Status::Expired => Some((Reason::OnFailure, delivery.on_failure.clone()?)),
        _ => None,
    });
    callback.into_iter().chain(own).collect()
}

/// A name for what follows from something that has a name, in 16 bytes that are a UUID: the same on every node, and whenever it is made.
pub fn name_of(parent: [u8; 16], what: &str) -> [u8; 16] {
    let mut hasher = Sha256::new();
    hasher.update(parent);
    hasher.update(what);
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize()[..16]);
    uuid::Builder::from_custom_bytes(name)
        .into_uuid()
        .into_bytes()
}

/// # Errors
/// When it is no URL that an end can be posted to.
pub fn check_url(field: &str, url: &str) -> Result<(), String> {
    let is_web =
        |parsed: &url::Url| parsed.has_host() && matches!(parsed.scheme(), "http" | "https");
    let is_url = url::Url::parse(url).is_ok_and(|parsed| is_web(&parsed));
    match is_url && url.len() <= URL_LEN_MAX {
        true => Ok(()),
        false => Err(format!(
            "{field} is \"{}\", expected an absolute URL of http or https of at most {URL_LEN_MAX} bytes",
            &url[..url.floor_char_boundary(200)]
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(on_success: &str, on_failure: &str) -> DeliverySpec {
        let url = |url: &str| (!url.is_empty()).then(|| Destination::Url(url.to_owned()));
        DeliverySpec {
            on_success: url(on_success),
            on_failure: url(on_failure),
            ..DeliverySpec::default()
        }
    }

    fn check(status: Status, callback: Option<&str>, delivery: &DeliverySpec, expected: &[&str]) {
        let found = destinations(status, callback, Some(delivery));
        let found = found.iter();
        let found: Vec<_> = found
            .map(|(reason, to)| format!("{}: {to}", reason.as_str()))
            .collect();
        assert_eq!(found, expected, "{status}");
    }

    #[test]
    fn an_end_is_told_where_it_is_wanted() {
        let (both, none) = (spec("http://s", "http://f"), DeliverySpec::default());
        let back = Some("http://c");
        check(
            Status::Succeeded,
            back,
            &both,
            &["callback: http://c", "onSuccess: http://s"],
        );
        check(
            Status::Failed,
            back,
            &both,
            &["callback: http://c", "onFailure: http://f"],
        );
        check(Status::Expired, None, &both, &["onFailure: http://f"]);
        check(Status::Cancelled, back, &both, &["callback: http://c"]);
        check(Status::Running, back, &both, &[]);
        check(Status::Succeeded, None, &none, &[]);
        check(Status::Failed, None, &spec("http://s", ""), &[]);
        assert!(destinations(Status::Failed, None, None).is_empty());
    }

    #[test]
    fn a_name_follows_from_its_parent_and_its_purpose_alone() {
        let name = name_of([1; 16], "callback");
        assert_eq!(name, name_of([1; 16], "callback"));
        assert_ne!(name, name_of([1; 16], "onSuccess"));
        assert_ne!(name, name_of([2; 16], "callback"));
    }
}
