//! Events of typed subscriptions, as Event Gateway's last versions had them: one subscription may answer, any number get the event
//! queued, and both only when the authorizer of the event type allows it.

use std::borrow::Cow;
use std::sync::Arc;

use actors::Registry;
use http::{HeaderMap, Method, Response, StatusCode};
use protocol::event::Payload;
use protocol::event::cloudevents::{self, Mode};
use protocol::subscription::HTTP_REQUEST;
use protocol::{Event, InvocationId, Space, Subscription};

mod authorizer;

use self::authorizer::{Authorizers, Verdict};
use super::emit::Emission;
use super::http_event::{self, Params};
use super::{Arrival, custom};
use crate::body::AnswerBody;
use crate::error::Error;
use crate::surface::Shared;

/// A request whose event typed subscriptions may hear.
pub(super) struct Heard<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: &'a InvocationId,
    pub(super) arrival: &'a Arrival,
    pub(super) registry: &'a Registry,
    /// The only space that is asked, if there is one.
    pub(super) space: Option<&'a Space>,
    authorizers: Authorizers,
}

impl<'a> Heard<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        id: &'a InvocationId,
        arrival: &'a Arrival,
        registry: &'a Registry,
        space: Option<&'a Space>,
    ) -> Self {
        Self {
            shared,
            id,
            arrival,
            registry,
            space,
            authorizers: Authorizers::default(),
        }
    }

    /// Answers an event that was emitted: it is queued for all that are to get it, and then the function that answers is called, if
    /// there is one.
    pub(super) async fn emitted(mut self, event: &Event) -> Result<Response<AnswerBody>, Error> {
        let answering = self.answering(event);
        let emission = Emission {
            event,
            typed: self.queued(event).await,
            // A custom event comes with POST.
            is_custom: self.arrival.parts.method == Method::POST,
        };
        let path = self.arrival.target.event_path();
        let emitter = &self.shared.emitter;
        emitter.emit(&[emission], self.space, &path).await?;
        match answering {
            Some(subscription) => self.answer(&subscription, event, HeaderMap::new()).await,
            None => Ok(custom::with_status(StatusCode::ACCEPTED)),
        }
    }

    /// Whether a function answers an emitted event.
    pub(super) fn is_answered(&self, event: &Event) -> bool {
        self.answering(event).is_some()
    }

    /// The subscriptions that an emitted event is queued for, each with the event that it gets.
    pub(super) async fn queued<'e>(
        &mut self,
        event: &'e Event,
    ) -> Vec<(Arc<Subscription>, Cow<'e, Event>)> {
        let subscribers = self.subscribers(&event.event_type);
        self.authorized(event, subscribers).await
    }

    /// Whether anybody hears an event that came with a method that custom events do not come with.
    pub(super) fn is_meant(&self, event: &Event) -> bool {
        self.is_answered(event) || !self.subscribers(&event.event_type).is_empty()
    }

    /// Queues a plain request for those who subscribed to such.
    ///
    /// # Errors
    /// When the queue has no room.
    pub(super) async fn queue_request(
        &mut self,
        subscribers: Vec<Arc<Subscription>>,
        body: &Payload,
    ) -> Result<(), Error> {
        let event = self.request_event(body, None);
        let typed = self.authorized(&event, subscribers).await;
        let emission = Emission {
            event: &event,
            typed,
            is_custom: false,
        };
        self.shared.emitter.emit(&[emission], None, "").await
    }

    /// Answers a plain request with the function of a typed subscription.
    pub(super) async fn answer_request(
        mut self,
        subscription: &Subscription,
        params: Params,
        body: &Payload,
        fields: HeaderMap,
    ) -> Result<Response<AnswerBody>, Error> {
        let event = self.request_event(body, params);
        self.answer(subscription, &event, fields).await
    }

    /// The subscriptions that plain requests to this method and path are queued for.
    pub(super) fn request_subscribers(&self) -> Vec<Arc<Subscription>> {
        // Asked for every request, so nothing is made while nobody is subscribed.
        match self.registry.subscriptions.knows(HTTP_REQUEST) {
            true => self.subscribers(HTTP_REQUEST),
            false => Vec::new(),
        }
    }

    fn subscribers(&self, event_type: &str) -> Vec<Arc<Subscription>> {
        let subscriptions = &self.registry.subscriptions;
        if !subscriptions.knows(event_type) {
            return Vec::new();
        }
        let path = self.arrival.target.event_path();
        let method = self.arrival.parts.method.as_str();
        let found = subscriptions.async_subscribers(self.space, event_type, method, &path);
        found.cloned().collect()
    }

    fn answering(&self, event: &Event) -> Option<Arc<Subscription>> {
        let subscriptions = &self.registry.subscriptions;
        if !subscriptions.knows(&event.event_type) {
            return None;
        }
        let path = self.arrival.target.route_path();
        let method = self.arrival.parts.method.as_str();
        let matched = subscriptions.sync_route(self.space, &event.event_type, method, &path)?;
        let subscription = matched.subscription;
        // Without its function it is as good as none.
        self.registry
            .function(&subscription.space, &subscription.function_id)?;
        Some(Arc::clone(subscription))
    }

    /// The subscribers that an authorizer does not keep from it, each with the event that it gets.
    async fn authorized<'e>(
        &mut self,
        event: &'e Event,
        subscribers: Vec<Arc<Subscription>>,
    ) -> Vec<(Arc<Subscription>, Cow<'e, Event>)> {
        let mut allowed = Vec::with_capacity(subscribers.len());
        for subscription in subscribers {
            match self.verdict(&subscription, event).await {
                Verdict::Free => allowed.push((subscription, Cow::Borrowed(event))),
                Verdict::Authorized(event) => allowed.push((subscription, Cow::Owned(*event))),
                Verdict::Refused => {}
            }
        }
        allowed
    }

    async fn verdict(&mut self, subscription: &Subscription, event: &Event) -> Verdict {
        let Self {
            shared,
            id,
            arrival,
            registry,
            authorizers,
            ..
        } = self;
        let question = authorizer::Question {
            shared,
            id,
            arrival,
            registry,
            event,
        };
        authorizers.ask(&question, &subscription.space).await
    }

    /// The answer of a subscription's function.
    async fn answer(
        &mut self,
        subscription: &Subscription,
        event: &Event,
        fields: HeaderMap,
    ) -> Result<Response<AnswerBody>, Error> {
        let event = match self.verdict(subscription, event).await {
            Verdict::Free => Cow::Borrowed(event),
            Verdict::Authorized(event) => Cow::Owned(*event),
            Verdict::Refused => {
                return Err(Error::not_authorized(&event.event_type).with_fields(fields));
            }
        };
        let (shared, arrival) = (self.shared, self.arrival);
        let answered = http_event::run(
            shared,
            self.id,
            arrival,
            self.registry,
            subscription,
            &event,
        )
        .await;
        match answered {
            Ok((completed, rule)) => {
                http_event::tell(shared, completed, rule, &arrival.parts.method, fields)
            }
            Err(error) => Err(error.with_fields(fields)),
        }
    }

    /// A plain request as an event of its type. Forms are told as text.
    fn request_event(&self, body: &Payload, params: Params) -> Event {
        let body = match body.form_text(self.arrival.content_type().unwrap_or_default()) {
            Some(text) => {
                let json = serde_json::to_vec(text).expect("a text can be written as JSON");
                Payload::Json(json.into())
            }
            None => body.clone(),
        };
        let event = self.arrival.http_event(self.shared, self.id, body, params);
        Event {
            event_type: HTTP_REQUEST.to_owned(),
            data_type: "application/json".to_owned(),
            ..event
        }
    }
}

/// The event that a request carries whose method is not the one of custom events; none when it carries none that is valid.
pub(super) fn carried(arrival: &Arrival, mode: Mode) -> Option<Event> {
    let now = arrival.received_at_ms;
    match mode {
        Mode::Structured => cloudevents::read_structured(&arrival.body, now).ok(),
        Mode::Binary | Mode::BinaryVersion01 => custom::read_binary(arrival, mode).ok(),
        Mode::Batch => None,
    }
}
