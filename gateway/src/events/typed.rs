//! Events of typed subscriptions, as Event Gateway's last versions had them: one subscription may answer, any number get the event
//! queued, and both only when the authorizer of the event type allows it; and requests, which a subscription of either dialect may
//! have an authorizer asked about.

use std::borrow::Cow;
use std::sync::Arc;

use actors::Registry;
use actors::invoker::Completed;
use http::{HeaderMap, Method, Response, StatusCode};
use protocol::event::Payload;
use protocol::event::cloudevents::{self, Mode};
use protocol::invocation::AnswerRule;
use protocol::subscription::HTTP_REQUEST;
use protocol::{Event, FunctionId, InvocationId, Space, Subscription};
use serde_json::Value;
use tokio::time::Instant;

mod authorizer;

pub(super) use self::authorizer::Admitted;
use self::authorizer::{Authorizers, Question, Verdict};
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
    /// When the request was read, and until when those who are asked about it may take; its function has what they leave.
    begun: Instant,
    until: Option<Instant>,
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
            begun: Instant::now(),
            until: None,
        }
    }

    /// Holds those who are asked to the deadline of the request, which is that of the function that answers it.
    pub(super) fn limit(&mut self, subscription: &Subscription) {
        let (space, function_id) = (&subscription.space, &subscription.function_id);
        if let Some(registered) = self.registry.function(space, function_id)
            && self.is_asked_about(subscription)
        {
            let timeout = registered.function.limits().timeout;
            self.until = Some(self.begun + timeout + self.shared.start_timeout);
        }
    }

    /// Answers an event that was emitted: it is queued for all that are to get it, and then the function that answers is called, if
    /// there is one.
    pub(super) async fn emitted(mut self, event: &Event) -> Result<Response<AnswerBody>, Error> {
        let answering = self.answering(event);
        if let Some(subscription) = &answering {
            self.limit(subscription);
        }
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
            Some(subscription) => {
                self.answer(&subscription, event, None, HeaderMap::new())
                    .await
            }
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

    /// Answers a plain request with the function of its subscription, of whatever dialect.
    pub(super) async fn answer_request(
        mut self,
        subscription: &Subscription,
        params: Params,
        body: Payload,
        fields: HeaderMap,
    ) -> Result<Response<AnswerBody>, Error> {
        if subscription.is_typed() {
            let event = self.request_event(&body, params);
            return self.answer(subscription, &event, None, fields).await;
        }
        // Authorizers are asked alike, so that one will do for both dialects.
        let is_asked = subscription.authorizer_id.is_some();
        let asked_about = is_asked.then(|| self.request_event(&body, params.clone()));
        let event = self.arrival.http_event(self.shared, self.id, body, params);
        self.answer(subscription, &event, asked_about.as_ref(), fields)
            .await
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
                Verdict::Authorized(said) => {
                    allowed.push((subscription, authorized(event, Some(&said))));
                }
                Verdict::Refused => {}
            }
        }
        allowed
    }

    /// What the authorizer of its event type says of an event, for the subscriptions of a space.
    async fn verdict(&mut self, subscription: &Subscription, event: &Event) -> Verdict {
        // Taken, so that the question may borrow what is left; a request is asked about by one task.
        let mut authorizers = std::mem::take(&mut self.authorizers);
        let verdict = authorizers
            .ask(&self.question(event), &subscription.space)
            .await;
        self.authorizers = authorizers;
        verdict
    }

    fn question<'q>(&'q self, event: &'q Event) -> Question<'q> {
        Question {
            shared: self.shared,
            id: self.id,
            arrival: self.arrival,
            registry: self.registry,
            event,
            until: self.until,
        }
    }

    /// Whether anybody is asked before a subscription's function is called.
    fn is_asked_about(&self, subscription: &Subscription) -> bool {
        subscription.authorizer_id.is_some() || self.authorizer_of_type(subscription).is_some()
    }

    fn authorizer_of_type(&self, subscription: &Subscription) -> Option<&'a FunctionId> {
        if !subscription.is_typed() {
            return None;
        }
        let (space, name) = (&subscription.space, &subscription.event);
        let registered = self.registry.event_type(space, name)?;
        registered.event_type.authorizer_id.as_ref()
    }

    /// Asks those who are asked before a subscription's function is called: the authorizer of its event type, and then its own,
    /// which sees what the first one said.
    async fn admitted(
        &mut self,
        subscription: &Subscription,
        event: &Event,
    ) -> Result<Admitted, Error> {
        let refused = || Error::not_authorized(subscription.event.as_str());
        let of_type = self.authorizer_of_type(subscription);
        let mut said = match of_type {
            Some(_) => match self.verdict(subscription, event).await {
                Verdict::Free => None,
                Verdict::Authorized(said) => Some(said),
                Verdict::Refused => return Err(refused()),
            },
            None => None,
        };
        // One that is named twice has been asked.
        let own = subscription.authorizer_id.as_ref();
        if let Some(own) = own.filter(|own| of_type != Some(*own)) {
            let event = authorized(event, said.as_deref());
            let question = self.question(&event);
            let answer = question.put(&subscription.space, own).await;
            said = Some(answer.ok_or_else(refused)?);
        }
        Ok(Admitted {
            said,
            begun: Some(self.begun),
        })
    }

    /// The answer of a subscription's function, if those who are asked before allow it; they are asked about the event, unless there is
    /// another one for them.
    async fn answer(
        &mut self,
        subscription: &Subscription,
        event: &Event,
        asked_about: Option<&Event>,
        fields: HeaderMap,
    ) -> Result<Response<AnswerBody>, Error> {
        let answered = self.answered(subscription, event, asked_about).await;
        match answered {
            Ok((completed, rule)) => {
                let method = &self.arrival.parts.method;
                http_event::tell(self.shared, completed, rule, method, fields)
            }
            Err(error) => Err(error.with_fields(fields)),
        }
    }

    async fn answered(
        &mut self,
        subscription: &Subscription,
        event: &Event,
        asked_about: Option<&Event>,
    ) -> Result<(Completed, AnswerRule), Error> {
        let admitted = match self.is_asked_about(subscription) {
            // In a box, so that the path of what nobody is asked about carries nothing of it.
            true => Box::pin(self.admitted(subscription, asked_about.unwrap_or(event))).await?,
            false => Admitted::default(),
        };
        let event = authorized(event, admitted.said.as_deref());
        http_event::run(self, subscription, &event, &admitted).await
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

/// The event with what an authorizer said of it.
fn authorized<'e>(event: &'e Event, said: Option<&Value>) -> Cow<'e, Event> {
    match said {
        Some(said) => {
            let mut event = event.clone();
            event.set_authorization(said);
            Cow::Owned(event)
        }
        None => Cow::Borrowed(event),
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
