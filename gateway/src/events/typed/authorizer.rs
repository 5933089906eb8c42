//! Asks the authorizer of an event type whether an event may be delivered.

use std::collections::BTreeMap;
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

use crate::events::Arrival;
use crate::events::call::FunctionCall;
use crate::surface::Shared;

/// What comes of asking.
#[derive(Clone)]
pub(super) enum Verdict {
    /// Nobody is to be asked.
    Free,
    /// The event may be delivered, and says by whose authority.
    Authorized(Box<Event>),
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
                let said = said.map(Arc::new).inspect_err(|why| {
                    let (invocation, event_type) = (question.id, &question.event.event_type);
                    tracing::info!(%space, function = %authorizer, %invocation, event_type, why, "an event is not authorized and is not delivered");
                });
                let said = said.ok();
                self.0.insert(space.clone(), said.clone());
                said
            }
        };
        match said {
            Some(authorization) => {
                let mut event = question.event.clone();
                event.set_authorization(&authorization);
                Verdict::Authorized(Box::new(event))
            }
            None => Verdict::Refused,
        }
    }
}

impl Question<'_> {
    fn authorizer(&self, space: &Space) -> Option<FunctionId> {
        let name: EventType = self.event.event_type.parse().ok()?;
        let registered = self.registry.event_type(space, &name)?;
        registered.event_type.authorizer_id.clone()
    }

    /// Calls the authorizer; why it refuses or can not be asked is told, and is not for the client.
    async fn put(&self, space: &Space, authorizer: &FunctionId) -> Result<Value, String> {
        let call = FunctionCall {
            shared: self.shared,
            // An invocation of its own: the request's id is that of the function that answers.
            id: &InvocationId::random(),
            fields: &self.arrival.parts.headers,
            event: self.event,
            space,
            function_id: authorizer,
        };
        let encoded = self.encoded().map_err(|error| error.to_string())?;
        let completed = call.invoke(encoded).await.map_err(|failed| {
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
                serde_json::to_value(authorization).map_err(|error| error.to_string())
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
