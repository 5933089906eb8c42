//! The record of an event type: an event that typed subscriptions may ask for, and who says whether it may be delivered.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::event::{SYSTEM_PREFIX, TYPED_SYSTEM_PREFIX};
use crate::id::{FunctionId, Space};
use crate::subscription::EventType;

/// A registered event type. A field that was not set is absent from answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeRecord {
    /// Its space.
    #[schema(required = false)]
    pub space: Space,
    /// Its name within the space; never a pattern.
    #[schema(required = false)]
    pub name: EventType,
    /// The function of the space that is asked before an event of this type is delivered to a typed subscription.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorizer_id: Option<FunctionId>,
    /// What its owner notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It does not validate; the text after `Validation error: `.
    #[error("{0}")]
    Validation(String),
    /// No function can have the name of the authorizer.
    #[error("Authorizer function doesn't exists.")]
    UnknownAuthorizer,
}

/// A record as a client sends it; what it says of the space is passed over, and so is what nobody knows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    name: Option<String>,
    authorizer_id: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
}

impl EventTypeRecord {
    /// Reads and checks a record. `name` comes from the URL of an update and replaces the body's.
    ///
    /// # Errors
    /// [`Invalid`], all fields that fail in one text, a line each.
    pub fn parse(space: &str, name: Option<&str>, body: &[u8]) -> Result<Self, Invalid> {
        let sent = read(body)?;
        let name = name.map_or_else(|| sent.name.unwrap_or_default(), str::to_owned);
        let mut lines = Vec::new();
        let mut add = |field: &str, tag: &str| {
            lines.push(format!(
                "Key: 'Type.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
            ));
        };
        let space: Result<Space, _> = space.parse();
        if let Err(error) = &space {
            add("Space", error.tag);
        }
        let parsed: Result<EventType, _> = name.parse();
        match &parsed {
            Ok(parsed) if parsed.pattern_prefix().is_none() => {}
            Ok(_) => add("Name", "eventType"),
            Err(error) if error.tag == "required" => add("Name", error.tag),
            Err(_) => add("Name", "eventType"),
        }
        let (Ok(space), Ok(name), true) = (space, parsed, lines.is_empty()) else {
            return Err(Invalid::Validation(lines.join("\n")));
        };
        if name.is_http() || name.is_invoke() {
            let why = format!(
                "name is {name}, expected another: {name} is for subscriptions with event, and a request is an event of the type http.request"
            );
            return Err(Invalid::Validation(why));
        }
        if name.as_str().starts_with(SYSTEM_PREFIX) {
            let why = format!(
                "name is {name}, expected another: the event types of the gateway itself are {TYPED_SYSTEM_PREFIX}…"
            );
            return Err(Invalid::Validation(why));
        }
        let authorizer_id = match sent.authorizer_id {
            Some(id) => Some(id.parse().map_err(|_| Invalid::UnknownAuthorizer)?),
            None => None,
        };
        if authorizer_id.is_some() && name.as_str().starts_with(TYPED_SYSTEM_PREFIX) {
            let why = format!(
                "authorizerId is set, expected none: nobody is asked about {name}, an event of the gateway itself"
            );
            return Err(Invalid::Validation(why));
        }
        Ok(Self {
            space,
            name,
            authorizer_id,
            metadata: sent.metadata.filter(|metadata| !metadata.is_empty()),
        })
    }
}

/// Reads the JSON; serde would take arrays for structs.
fn read(body: &[u8]) -> Result<Sent, Invalid> {
    let invalid = |error: serde_json::Error| Invalid::Validation(error.to_string());
    let record: serde_json::Map<String, Value> = serde_json::from_slice(body).map_err(invalid)?;
    if let Some(metadata) = record.get("metadata")
        && !metadata.is_object()
        && !metadata.is_null()
    {
        let why = format!("metadata is {metadata}, expected an object");
        return Err(Invalid::Validation(why));
    }
    serde_path_to_error::deserialize(Value::Object(record)).map_err(|error| {
        let path = error.path().to_string();
        Invalid::Validation(format!("{path}: {}", error.into_inner()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn becomes(body: &str, expected: &str) {
        let record = EventTypeRecord::parse("default", None, body.as_bytes());
        let record = record.unwrap_or_else(|error| panic!("{body}: {error}"));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, expected, "{body}");
        let read: EventTypeRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(read, record);
    }

    fn refuses(body: &str, expected: &str) {
        let error = EventTypeRecord::parse("default", None, body.as_bytes()).expect_err(body);
        assert!(error.to_string().starts_with(expected), "{body}: {error}");
    }

    /// Section 12 of the reference: event types as a resource.
    #[test]
    fn a_record_has_a_name_and_may_have_an_authorizer_and_metadata() {
        becomes(
            r#"{"name":"user.created","space":"x","more":1,"authorizerId":null,"metadata":{}}"#,
            r#"{"space":"default","name":"user.created"}"#,
        );
        becomes(
            r#"{"name":"http.request","authorizerId":"f","metadata":{"a":"b"}}"#,
            r#"{"space":"default","name":"http.request","authorizerId":"f","metadata":{"a":"b"}}"#,
        );
        let named = EventTypeRecord::parse("default", Some("b"), br#"{"name":"a"}"#).unwrap();
        assert_eq!(named.name.as_str(), "b", "the name of the URL");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let tag = |tag: &str| {
            format!("Key: 'Type.Name' Error:Field validation for 'Name' failed on the '{tag}' tag")
        };
        refuses("{}", &tag("required"));
        refuses(r#"{"name":""}"#, &tag("required"));
        refuses(r#"{"name":"a b"}"#, &tag("eventType"));
        refuses(r#"{"name":"user.*"}"#, &tag("eventType"));
        refuses(r#"{"name":"http"}"#, "name is http, expected another");
        refuses(r#"{"name":"invoke"}"#, "name is invoke, expected another");
        refuses(
            r#"{"name":"gateway.event.received"}"#,
            "name is gateway.event.received, expected another",
        );
        refuses(r#"{"name":1}"#, "name: invalid type");
        refuses(r#"{"name":"a","metadata":[]}"#, "metadata is []");
        refuses("[]", "invalid type: sequence");
        refuses(
            r#"{"name":"a","authorizerId":"a b"}"#,
            "Authorizer function doesn't exists.",
        );
        refuses(
            r#"{"name":"eventgateway.event.received","authorizerId":"f"}"#,
            "authorizerId is set, expected none",
        );
        let spaces = EventTypeRecord::parse("ab", None, br#"{"name":"a"}"#).unwrap_err();
        assert!(spaces.to_string().contains("'Type.Space'"), "{spaces}");
    }
}
