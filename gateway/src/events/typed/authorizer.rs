//! Asks the authorizer of an event type whether an event may be delivered, and that of a subscription whether a request may reach its
//! function.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use actors::Registry;
use bytes::Bytes;
use protocol::event::Encoded;
use protocol::event::Payload;
use protocol::event::cloudevents::STRUCTURED_TYPE;
use protocol::invocation::{AnswerRule, Call};
use protocol::subscription::EventType;
use protocol::{Event, FunctionId, InvocationId, Space};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::events::Arrival;
use crate::events::call::FunctionCall;
use crate::surface::Shared;

/// The header with what an authorizer said, for functions whose form has no place for it.
const AUTHORIZATION: &str = "x-hearth-authorization";

/// What servers of functions take of a header line; many have 8 KiB for all of a request's.
const AUTHORIZATION_BYTES_MAX: usize = 4096;

/// What comes of asking.
#[derive(Clone)]
pub(super) enum Verdict {
    /// Nobody is to be asked.
    Free,
    /// The event may be delivered, and this is by whose authority.
    Authorized(Arc<Value>),
    /// It may not.
    Refused,
}

/// The request and its event, about which authorizers are asked.
pub(super) struct Question<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: &'a InvocationId,
    pub(super) arrival: &'a Arrival,
    pub(super) registry: &'a Registry,
    pub(super) event: &'a Event,
    /// Until when they may take, where a client waits.
    pub(super) until: Option<Instant>,
}

/// That a subscription's function may be called.
#[derive(Default)]
pub(in crate::events) struct Admitted {
    /// What was said of the caller, if anybody was asked.
    pub(super) said: Option<Arc<Value>>,
    /// When the request began, if anybody was asked.
    pub(in crate::events) begun: Option<Instant>,
}

/// What the authorizers of a request's event said, by space; each is asked once.
#[derive(Default)]
pub(super) struct Authorizers(BTreeMap<Space, Option<Arc<Value>>>);

#[derive(Serialize)]
struct Asked<'a> {
    event: &'a RawValue,
    request: &'a RawValue,
}

#[derive(Deserialize)]
struct Said {
    authorization: Option<Authorization>,
    error: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    principal_id: String,
    #[serde(default)]
    context: Option<BTreeMap<String, String>>,
}

impl Authorizers {
    /// Asks for the subscriptions of a space.
    pub(super) async fn ask(&mut self, question: &Question<'_>, space: &Space) -> Verdict {
        let Some(authorizer) = question.authorizer(space) else {
            return Verdict::Free;
        };
        let said = match self.0.get(space) {
            Some(said) => said.clone(),
            None => {
                let said = question.put(space, &authorizer).await;
                self.0.insert(space.clone(), said.clone());
                said
            }
        };
        said.map_or(Verdict::Refused, Verdict::Authorized)
    }
}

impl Admitted {
    /// The header that tells a function what was said of the caller. No client can send it: names that begin so are the node's.
    pub(in crate::events) fn header(&self) -> Option<(String, Bytes)> {
        let said = self.said.as_ref()?;
        Some((AUTHORIZATION.to_owned(), ascii(&said.to_string()).into()))
    }
}

/// Writes JSON with what is no printable ASCII as escapes, which only texts have.
fn ascii(json: &str) -> String {
    let mut written = String::with_capacity(json.len());
    for char in json.chars() {
        if matches!(char, ' '..='~') {
            written.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            let _ = write!(written, "\\u{unit:04x}");
        }
    }
    written
}

impl Question<'_> {
    fn authorizer(&self, space: &Space) -> Option<FunctionId> {
        let name: EventType = self.event.event_type.parse().ok()?;
        let registered = self.registry.event_type(space, &name)?;
        registered.event_type.authorizer_id.clone()
    }

    /// Asks an authorizer and says what it said, unless it refuses or can not be asked: why is in the log, and not for the client.
    pub(super) async fn put(&self, space: &Space, authorizer: &FunctionId) -> Option<Arc<Value>> {
        let said = self.call(space, authorizer).await.inspect_err(|why| {
            let (invocation, event_type) = (self.id, &self.event.event_type);
            tracing::info!(%space, function = %authorizer, %invocation, event_type, why, "an event is not authorized and is not delivered");
        });
        said.ok().map(Arc::new)
    }

    async fn call(&self, space: &Space, authorizer: &FunctionId) -> Result<Value, String> {
        let call = FunctionCall {
            shared: self.shared,
            // An invocation of its own: the request's id is that of the function that answers.
            id: &InvocationId::random(),
            fields: &self.arrival.parts.headers,
            event: self.event,
            space,
            function_id: authorizer,
            version: None,
            begun: None,
        };
        let encoded = self.encoded().map_err(|error| error.to_string())?;
        let invoking = call.invoke(encoded);
        let invoked = match self.until {
            Some(until) => timeout_at(until, invoking)
                .await
                .map_err(|_| "the time of the request is over".to_owned())?,
            None => invoking.await,
        };
        let completed = invoked.map_err(|failed| {
            let failure = failed.failure;
            format!("the authorizer can not be asked: {failure}")
        })?;
        let said: Said = serde_json::from_slice(completed.reply.body.whole())
            .map_err(|error| format!("the authorizer's answer can not be read: {error}"))?;
        match (said.error, said.authorization) {
            (Some(error), _) => Err(match error.get("message").and_then(Value::as_str) {
                Some(message) => format!("the authorizer refuses: {message}"),
                None => "the authorizer refuses, and says no more than that".to_owned(),
            }),
            (None, Some(authorization)) => {
                let said =
                    serde_json::to_value(authorization).map_err(|error| error.to_string())?;
                let bytes = said.to_string().len();
                match bytes <= AUTHORIZATION_BYTES_MAX {
                    true => Ok(said),
                    false => Err(format!(
                        "authorization has {bytes} bytes, expected at most {AUTHORIZATION_BYTES_MAX}"
                    )),
                }
            }
            (None, None) => {
                Err("the authorizer's answer has neither authorization nor error".to_owned())
            }
        }
    }

    /// `{"event","request"}`, the request with its body as a function of `http.request` would get it.
    fn encoded(&self) -> serde_json::Result<Encoded> {
        let (shared, arrival) = (self.shared, self.arrival);
        let body = Payload::parse(arrival.content_type(), arrival.body.clone());
        let body = body.unwrap_or_else(|_| Payload::Bytes(arrival.body.clone()));
        let request = arrival.http_event(shared, self.id, body, None).data;
        let event = self.event.to_version_01();
        let asked = Asked {
            event: serde_json::from_slice(&event)?,
            request: serde_json::from_slice(request.bytes())?,
        };
        let payload = serde_json::to_vec(&asked)?;
        Ok(Encoded {
            payload: Bytes::from(payload),
            content_type: STRUCTURED_TYPE.to_owned(),
            call: Call {
                answer: AnswerRule::Envelope,
                ..Call::default()
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_json_of_printable_letters_only() {
        let said = serde_json::json!({"principalId": "J\u{fc}rgen \u{7f}\n\u{1f600}", "context": {"a": "\"b\\"}});
        let admitted = Admitted {
            said: Some(Arc::new(said.clone())),
            begun: None,
        };
        let (name, value) = admitted.header().unwrap();
        assert_eq!(name, "x-hearth-authorization");
        assert!(value.iter().all(|byte| (b' '..=b'~').contains(byte)));
        assert_eq!(serde_json::from_slice::<Value>(&value).unwrap(), said);
        assert!(Admitted::default().header().is_none());
    }
}
