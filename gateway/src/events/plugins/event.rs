//! An event that is no HTTP request, as plugins see it: they may change its data.

use base64::Engine;
use bytes::Bytes;
use plugins::{Mode, Stage, Subject};
use protocol::Event;
use protocol::event::{Payload, is_json};
use serde_json::value::RawValue;

use crate::error::Error;
use crate::events::Arrival;
use crate::events::emit::About;
use crate::events::http_event::told_headers;
use crate::surface::Shared;

/// An event, and where it is.
pub(in crate::events) struct EventSubject<'a> {
    pub(in crate::events) event: &'a mut Event,
    pub(in crate::events) about: About<'a>,
}

impl Arrival {
    /// Asks the plugins about events of this request; they may change their data.
    ///
    /// # Errors
    /// When one does not let one pass.
    pub(in crate::events) async fn ask_received(
        &self,
        shared: &Shared,
        events: &mut [Event],
    ) -> Result<(), Error> {
        let plugins = &shared.emitter.plugins;
        if !plugins.any(Stage::Received, Mode::Sync) {
            return Ok(());
        }
        let path = self.target.event_path();
        let headers = told_headers(&self.parts.headers, shared);
        let asking = async {
            for event in events {
                let about = About::Received {
                    path: &path,
                    headers: headers.clone(),
                };
                let mut subject = EventSubject { event, about };
                plugins.ask(Stage::Received, &mut subject).await?;
            }
            Ok(())
        };
        Ok(plugins.bounded(asking).await?)
    }
}

impl Subject for EventSubject<'_> {
    fn about(&self) -> Bytes {
        self.about.write(&self.event.to_envelope())
    }

    fn change(&mut self, data: &RawValue) -> Result<(), String> {
        let Event {
            data: told,
            data_type,
            ..
        } = &*self.event;
        let is_json = match told {
            Payload::Json(_) => true,
            Payload::Bytes(bytes) => bytes.is_empty() && is_json(data_type),
        };
        let bytes = read(data, is_json)?;
        self.event.data = match is_json {
            true => Payload::Json(bytes),
            false => Payload::Bytes(bytes),
        };
        Ok(())
    }
}

/// Reads data in the form in which it is told: JSON as it is, anything else as a string of base64.
pub(super) fn read(data: &RawValue, is_json: bool) -> Result<Bytes, String> {
    if is_json {
        return Ok(Bytes::copy_from_slice(data.get().as_bytes()));
    }
    let wrong = "what is no JSON by its media type is a string of base64";
    let text: String = serde_json::from_str(data.get()).map_err(|_| wrong.to_owned())?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    bytes.map(Bytes::from).map_err(|_| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(told: &'static [u8], data_type: &str, data: &str, expected: Result<Payload, ()>) {
        let told = Payload::parse(Some(data_type), Bytes::from_static(told)).unwrap();
        let mut event = Event::new("a.b", "/", told.clone(), data_type, 0);
        let about = About::Received {
            path: "/",
            headers: Vec::new(),
        };
        let mut subject = EventSubject {
            event: &mut event,
            about,
        };
        let changed = subject.change(serde_json::from_str(data).unwrap());
        assert_eq!(changed.is_ok(), expected.is_ok(), "{data}");
        assert_eq!(event.data, expected.unwrap_or(told), "{data}");
    }

    #[test]
    fn data_is_taken_in_the_form_in_which_it_was_told() {
        let json = |text: &'static str| Ok(Payload::Json(Bytes::from_static(text.as_bytes())));
        let bytes = |text: &'static str| Ok(Payload::Bytes(Bytes::from_static(text.as_bytes())));
        let of_json = "application/json";
        check(b"[1]", of_json, r#"{"n": 1e400}"#, json(r#"{"n": 1e400}"#));
        check(b"", of_json, "[2]", json("[2]"));
        check(b"a", "text/plain", r#""Yg==""#, bytes("b"));
        check(b"", "text/plain", r#""""#, bytes(""));
        check(b"a", "text/plain", r#""no base64""#, Err(()));
        check(b"a", "text/plain", "{}", Err(()));
    }
}
