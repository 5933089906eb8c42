//! An event that is a request, as plugins see it: they may change its headers and its body, as if it had been sent so.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue};
use plugins::{Mode, Stage, Subject};
use protocol::event::{self, Payload, is_json};
use protocol::subscription::HTTP_REQUEST;
use protocol::{Event, Failure, FunctionId, InvocationId, Space};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::event::{EventSubject, read};
use crate::events::Arrival;
use crate::events::emit::About;
use crate::events::http_event::{connection_options, is_told, told_headers};
use crate::surface::Shared;

/// A request, the event that tells of it, and where it is.
struct RequestSubject<'a> {
    shared: &'a Shared,
    arrival: &'a mut Arrival,
    event: &'a mut Event,
    about: About<'a>,
}

/// What came of asking about a call.
pub(in crate::events) struct Asked {
    /// Whether it may be made.
    pub(in crate::events) outcome: Result<(), Failure>,
    /// Request and event as they are now; nothing where nobody was asked.
    pub(in crate::events) changed: Option<Box<(Arrival, Event)>>,
}

/// Asks the plugins about a request that was received, which they may change.
///
/// # Errors
/// When one does not let it pass.
pub(in crate::events) async fn ask_received(
    shared: &Shared,
    id: &InvocationId,
    arrival: &mut Arrival,
    payload: &mut Payload,
) -> Result<(), Failure> {
    let plugins = &shared.emitter.plugins;
    if !plugins.any(Stage::Received, Mode::Sync) {
        return Ok(());
    }
    let path = arrival.target.event_path();
    let about = About::Received {
        path: &path,
        headers: told_headers(&arrival.parts.headers, shared),
    };
    let mut event = arrival.http_event(shared, id, payload.clone(), None);
    let mut subject = RequestSubject {
        shared,
        arrival: &mut *arrival,
        event: &mut event,
        about,
    };
    plugins.ask(Stage::Received, &mut subject).await?;
    // What a plugin may put there can be read.
    if let Ok(changed) = Payload::parse(arrival.content_type(), arrival.body.clone()) {
        *payload = changed;
    }
    Ok(())
}

/// Asks the plugins about a call that is about to be made for a request; they may change copies of it and of its event.
pub(in crate::events) async fn ask_invoking(
    shared: &Shared,
    arrival: &Arrival,
    event: &Event,
    space: &Space,
    function_id: &FunctionId,
) -> Asked {
    let plugins = &shared.emitter.plugins;
    if event.is_system() || !plugins.any(Stage::Invoking, Mode::Sync) {
        return Asked {
            outcome: Ok(()),
            changed: None,
        };
    }
    let mut changed = Box::new((arrival.clone(), event.clone()));
    let (arrival, event) = &mut *changed;
    let about = About::invoking(space, function_id);
    let outcome = match event.event_type.as_str() {
        event::HTTP | HTTP_REQUEST => {
            let mut subject = RequestSubject {
                shared,
                arrival,
                event,
                about,
            };
            plugins.ask(Stage::Invoking, &mut subject).await
        }
        _ => {
            let mut subject = EventSubject { event, about };
            plugins.ask(Stage::Invoking, &mut subject).await
        }
    };
    Asked {
        outcome,
        changed: Some(changed),
    }
}

impl Subject for RequestSubject<'_> {
    fn about(&self) -> Bytes {
        self.about.write(&self.event.to_envelope())
    }

    fn change(&mut self, data: &RawValue) -> Result<(), String> {
        let given: BTreeMap<String, Box<RawValue>> = serde_json::from_str(data.get())
            .map_err(|_| "data of an http event is an object".to_owned())?;
        let mut told: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(self.event.data.bytes()).unwrap_or_default();
        for (name, raw) in &given {
            let may_change = matches!(name.as_str(), "headers" | "body");
            if !may_change && !told.get(name).is_some_and(|told| is_same(told, raw)) {
                return Err(format!(
                    "{name} can not be changed: of an http event only headers and body can"
                ));
            }
        }
        let mut fields = match given.get("headers") {
            Some(headers) => self.fields(headers)?,
            None => self.arrival.parts.headers.clone(),
        };
        let told_body = told.get("body").map(|told| told.get());
        let body = given.get("body").map(|body| &**body);
        let body = body.filter(|body| told_body != Some(body.get()));
        let bytes = self.body(&fields, body)?;
        if let Some(body) = body {
            fields.insert(header::CONTENT_LENGTH, bytes.len().into());
            told.insert("body".to_owned(), body.to_owned());
        }
        let headers: BTreeMap<_, _> = told_headers(&fields, self.shared).into_iter().collect();
        let headers = to_raw_value(&headers).map_err(|error| error.to_string())?;
        told.insert("headers".to_owned(), headers);
        let json = serde_json::to_vec(&told).map_err(|error| error.to_string())?;
        self.event.data = Payload::Json(json.into());
        self.arrival.body = bytes;
        self.arrival.parts.headers = fields;
        Ok(())
    }
}

impl RequestSubject<'_> {
    /// The headers of the request with those that a plugin gave in place of those it was told.
    fn fields(&self, given: &RawValue) -> Result<HeaderMap, String> {
        let given: BTreeMap<String, String> = serde_json::from_str(given.get())
            .map_err(|_| "headers is an object of texts".to_owned())?;
        let sent = &self.arrival.parts.headers;
        let told: BTreeMap<_, _> = told_headers(sent, self.shared).into_iter().collect();
        let mut fields = sent.clone();
        for name in told.keys().filter(|name| !given.contains_key(*name)) {
            fields.remove(name.as_str());
        }
        let is_new = |(name, value): &(&String, &String)| told.get(*name) != Some(*value);
        for (name, value) in given.iter().filter(is_new) {
            let known = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("headers: {name:?} can not be the name of one"))?;
            if !is_told(&known, &connection_options(sent), self.shared) {
                return Err(format!("headers: {name} is not for a plugin to set"));
            }
            let value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| format!("headers: {name} can not have that value"))?;
            fields.insert(known, value);
        }
        Ok(fields)
    }

    /// The bytes of the body that a plugin gave, or of the one that is there. What a body is, the new headers say.
    fn body(&self, fields: &HeaderMap, given: Option<&RawValue>) -> Result<Bytes, String> {
        let content_type = fields.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let sent = &self.arrival.body;
        let is_form = |data_type| Payload::Bytes(sent.clone()).form_text(data_type).is_some();
        let bytes = match given {
            // Typed subscriptions are told forms as text.
            Some(text)
                if self.event.event_type == HTTP_REQUEST && content_type.is_some_and(is_form) =>
            {
                let text: Result<String, _> = serde_json::from_str(text.get());
                text.map(Bytes::from)
                    .map_err(|_| "body: a form is a text".to_owned())?
            }
            Some(body) => read(body, content_type.is_some_and(is_json))
                .map_err(|why| format!("body: {why}"))?,
            None => sent.clone(),
        };
        Payload::parse(content_type, bytes.clone())
            .map_err(|_| "body: it is no JSON, and its media type says it is".to_owned())?;
        Ok(bytes)
    }
}

/// Whether two JSON texts say the same.
fn is_same(one: &RawValue, other: &RawValue) -> bool {
    let value = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).ok();
    one.get() == other.get() || value(one).is_some_and(|one| Some(one) == value(other))
}
