//! `http` events: a request is routed by method and path to one function, whose answer is the client's.

use std::sync::Arc;

use actors::Registry;
use actors::invoker::Completed;
use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderMap, Method, Response, StatusCode};
use protocol::event::{DEFAULT_DATA_TYPE, Encoded, HttpData, Payload};
use protocol::function::EventFormat;
use protocol::invocation::{AnswerRule, Call, is_hop_by_hop};
use protocol::{Event, InvocationId, Space, Subscription, event};

use super::call::FunctionCall;
use super::cors::{self, Rules};
use super::target::{self, Target};
use super::typed::{Admitted, Heard};
use super::{Arrival, custom, dispatch, names, plugins, response};
use crate::body::AnswerBody;
use crate::error::Error;
use crate::surface::Shared;

/// Answers an `http` event.
pub(super) async fn answer(
    shared: &Shared,
    id: &InvocationId,
    mut arrival: Arrival,
) -> Result<Response<AnswerBody>, Error> {
    shared.events.received_http.increment(1);
    let mut payload = Payload::parse(arrival.content_type(), arrival.body.clone())
        .map_err(|error| Error::invalid(error.to_string()))?;
    if arrival.is_trusted {
        plugins::ask_received(shared, id, &mut arrival, &mut payload).await?;
        if shared.emitter.is_received_heard() {
            let event = arrival.http_event(shared, id, payload.clone(), None);
            arrival.tell_received(shared, &event);
        }
    }
    let Arrival {
        ref parts,
        ref target,
        ..
    } = arrival;
    let registry = shared.node.registry();
    if !registry.is_loaded {
        return Err(Error::not_loaded());
    }
    let asked = cors::preflight_method(&parts.method, &parts.headers);
    let method = match asked {
        Some(asked) => asked.to_str().unwrap_or_default().to_ascii_uppercase(),
        None => parts.method.as_str().to_owned(),
    };
    let space = named_space(&parts.headers)?;
    let route_path = target.route_path();
    let paths = Paths {
        with_label: &route_path,
        as_sent: &target.escaped_path,
    };
    let default_space = shared.guard.requires_token().then(Space::default_space);
    let found = find(
        &registry,
        &method,
        target,
        space.as_ref(),
        default_space.as_ref(),
        &paths,
    );
    let scope = space.as_ref().or(default_space.as_ref());
    let mut heard = Heard::new(shared, id, &arrival, &registry, scope);
    let queued = match asked {
        None => heard.request_subscribers(),
        Some(_) => Vec::new(),
    };
    let is_queued = !queued.is_empty();
    if let Some((subscription, _)) = found.as_ref().filter(|_| asked.is_none()) {
        heard.limit(subscription);
    }
    if is_queued {
        heard.queue_request(queued, &payload).await?;
    }
    let rules = found_rules(&registry, found.as_ref(), scope, &method, &route_path);
    if asked.is_some() {
        let answered = answer_preflight(shared, &arrival, found.as_ref(), rules.as_ref())?;
        if let Some(answer) = answered {
            return Ok(answer);
        }
    }
    let fields = rules.map_or_else(HeaderMap::new, |rules| {
        rules.actual(&parts.method, &parts.headers)
    });
    match found {
        Some(found) => answer_found(heard, found, payload, fields).await,
        None if is_queued => {
            let mut response = custom::with_status(StatusCode::ACCEPTED);
            response.headers_mut().extend(fields);
            Ok(response)
        }
        None => Err(Error::not_found("resource not found").with_fields(fields)),
    }
}

/// Answers a preflight, unless it is handed to the function like any request.
fn answer_preflight(
    shared: &Shared,
    arrival: &Arrival,
    found: Option<&(Arc<Subscription>, Params)>,
    rules: Option<&Rules<'_, String>>,
) -> Result<Option<Response<AnswerBody>>, Error> {
    if let Some(rules) = rules {
        let space = found.map(|found| found.0.space.as_str());
        shared.events.processed(space.unwrap_or_default(), "http");
        return Ok(Some(preflight(rules.preflight(&arrival.parts.headers))));
    }
    match found {
        // No page is told anything, and the function of another method is not for a preflight. Nor is one that an authorizer is
        // asked before: a preflight brings nothing to judge it by.
        Some((subscription, _))
            if subscription.is_typed() || subscription.authorizer_id.is_some() =>
        {
            Ok(Some(custom::with_status(StatusCode::ACCEPTED)))
        }
        Some(_) if !arrival.is_trusted => Err(Error::unauthorized()),
        _ => Ok(None),
    }
}

/// Answers a request with the function of its subscription.
async fn answer_found(
    heard: Heard<'_>,
    (subscription, params): (Arc<Subscription>, Params),
    payload: Payload,
    fields: HeaderMap,
) -> Result<Response<AnswerBody>, Error> {
    let shared = heard.shared;
    let answered = heard.answer_request(&subscription, params, payload, fields);
    let answered = answered.await;
    shared.events.processed(subscription.space.as_str(), "http");
    answered
}

/// What pages of other origins may do: as the subscription says, else as the configuration of its method and path does.
fn found_rules<'a>(
    registry: &'a Registry,
    found: Option<&'a (Arc<Subscription>, Params)>,
    scope: Option<&Space>,
    method: &str,
    route_path: &'a str,
) -> Option<Rules<'a, String>> {
    let subscription = found.map(|(subscription, _)| &**subscription);
    match subscription.and_then(|subscription| subscription.cors.as_ref()) {
        Some(cors) => Some(cors.into()),
        None if registry.cors.is_empty() => None,
        None => {
            let space = subscription.map(|subscription| &subscription.space);
            let found = registry.cors.find(space.or(scope), method, route_path);
            found.map(|cors| Rules::from(&**cors))
        }
    }
}

/// The answer to a preflight.
pub(super) fn preflight(fields: HeaderMap) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(""));
    *response.status_mut() = StatusCode::OK;
    *response.headers_mut() = fields;
    response
}

/// The space that a header names.
///
/// # Errors
/// When no space can have that name.
pub(super) fn named_space(fields: &HeaderMap) -> Result<Option<Space>, Error> {
    let Some(value) = fields
        .get(dispatch::SPACE)
        .filter(|value| !value.is_empty())
    else {
        return Ok(None);
    };
    let name = String::from_utf8_lossy(value.as_bytes());
    let space = name.parse::<Space>();
    space
        .map(Some)
        .map_err(|error| Error::invalid(format!("Space header: {error}")))
}

/// The paths a request may be routed by.
struct Paths<'a> {
    /// With the label of a hosted domain before it.
    with_label: &'a str,
    as_sent: &'a str,
}

/// Parameters by name, as they stand in the path.
pub(super) type Params = Option<Vec<(String, String)>>;

/// Finds the subscription of a request. The space is the one that the request names, or that its host does; without either it is
/// `default_space`, or whichever subscribed first.
fn find(
    registry: &Registry,
    method: &str,
    target: &Target,
    named: Option<&Space>,
    default_space: Option<&Space>,
    paths: &Paths<'_>,
) -> Option<(Arc<Subscription>, Params)> {
    let look = |space: Option<&Space>, path: &str| {
        let matched = registry.subscriptions.http_route(space, method, path)?;
        let subscription = Arc::clone(matched.subscription);
        // A subscription may be heard of before its function, and stay a moment longer: it is as good as none then.
        registry.function(&subscription.space, &subscription.function_id)?;
        // The route `/` has no place for parameters.
        let params = (subscription.path != "/").then(|| {
            let params = matched.params.iter();
            params
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        });
        Some((subscription, params))
    };
    if named.is_some() {
        return look(named, paths.with_label);
    }
    // The label of a hosted domain is a space where one has that name, and in any case the first segment of the path.
    let Some(label) = &target.label else {
        return look(default_space, paths.with_label);
    };
    let labelled: Option<Space> = label.parse().ok();
    let first = match default_space {
        Some(_) => labelled
            .as_ref()
            .and_then(|space| look(Some(space), paths.with_label)),
        None => look(None, paths.with_label),
    };
    first.or_else(|| look(Some(labelled.as_ref()?), paths.as_sent))
}

/// Calls the function with the event in its form.
pub(super) async fn run(
    heard: &Heard<'_>,
    subscription: &Subscription,
    event: &Event,
    admitted: &Admitted,
) -> Result<(Completed, AnswerRule), Error> {
    let (shared, id, arrival) = (heard.shared, heard.id, heard.arrival);
    let registered = heard
        .registry
        .function(&subscription.space, &subscription.function_id);
    let registered = registered.ok_or_else(|| Error::not_found("resource not found"))?;
    let format = registered.function.event_format();
    let (space, function_id) = (&subscription.space, &subscription.function_id);
    let asked = plugins::ask_invoking(shared, arrival, event, space, function_id).await;
    let (arrival, event) = asked
        .changed
        .as_ref()
        .map_or((arrival, event), |changed| (&changed.0, &changed.1));
    let call = FunctionCall {
        shared,
        id,
        fields: &arrival.parts.headers,
        event,
        space,
        function_id,
        version: None,
        begun: admitted.begun,
    };
    asked.outcome.map_err(|failure| call.refused(failure))?;
    let mut encoded = match format {
        EventFormat::Raw if subscription.is_http() => arrival.as_sent(shared),
        _ if subscription.is_typed() => event.encode_typed(format),
        _ => event.encode(format),
    };
    if format != EventFormat::Envelope {
        encoded.call.headers.extend(admitted.header());
        encoded.call.answer = AnswerRule::Whole;
        // What is not sent anyway is not worth a stream.
        encoded.call.may_stream = arrival.parts.method != Method::HEAD;
    }
    let rule = encoded.call.answer;
    Ok((call.run(encoded).await?, rule))
}

/// Tells the client what the function answered.
pub(super) fn tell(
    shared: &Shared,
    mut completed: Completed,
    rule: AnswerRule,
    method: &Method,
    fields: HeaderMap,
) -> Result<Response<AnswerBody>, Error> {
    let is_of_head = method == Method::HEAD;
    let reply = std::mem::take(&mut completed.reply);
    let outcome = match rule {
        AnswerRule::Whole => response::whole(reply, fields.clone(), is_of_head),
        AnswerRule::Envelope | AnswerRule::Success | AnswerRule::Output => {
            response::from_object(reply.body.whole(), fields.clone())
        }
    };
    let mut response = outcome
        .map_err(|why| Error::malformed_answer(&why, &completed.node).with_fields(fields))?;
    shared.describe(response.headers_mut(), &completed);
    Ok(response)
}

impl Arrival {
    /// The event as functions and those who watch get it.
    pub(super) fn http_event(
        &self,
        shared: &Shared,
        id: &InvocationId,
        body: Payload,
        params: Params,
    ) -> Event {
        let data = HttpData {
            headers: told_headers(&self.parts.headers, shared),
            query: target::query(&self.parts.uri),
            body,
            host: self.target.host.clone(),
            path: self.target.path.clone(),
            method: self.parts.method.as_str().to_owned(),
            params,
        };
        Event {
            id: id.as_str().to_owned(),
            event_type: event::HTTP.to_owned(),
            received_at_ms: self.received_at_ms,
            data: data.to_payload(),
            data_type: self.data_type(),
            attributes: event::Attributes {
                source: self.target.escaped_path.clone(),
                is_transformed: true,
                ..event::Attributes::default()
            },
        }
    }

    /// Tells those who subscribed to it that an event was received.
    pub(super) fn tell_received(&self, shared: &Shared, event: &Event) {
        let headers = || told_headers(&self.parts.headers, shared);
        let path = self.target.event_path();
        shared.emitter.received(&path, event, headers);
    }

    /// The request as it was sent, for a function that wants nothing else.
    fn as_sent(&self, shared: &Shared) -> Encoded {
        let fields = &self.parts.headers;
        let target = self.parts.uri.path_and_query();
        let target = target.map_or("/", |target| target.as_str());
        Encoded {
            payload: self.body.clone(),
            content_type: self.content_type().unwrap_or_default().to_owned(),
            call: Call {
                method: self.parts.method.as_str().to_owned(),
                target: match target.starts_with('/') {
                    true => target.to_owned(),
                    false => format!("/{target}"),
                },
                headers: passed_headers(fields, &self.target.host, shared),
                ..Call::default()
            },
        }
    }

    /// The media type of the data as the envelope tells it.
    pub(super) fn data_type(&self) -> String {
        let sent = self.parts.headers.get(header::CONTENT_TYPE);
        match sent.filter(|value| !value.is_empty()) {
            Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
            None => DEFAULT_DATA_TYPE.to_owned(),
        }
    }
}

/// The headers that the data of an event tells: all but the host's and those of one connection, repeated ones joined.
pub(super) fn told_headers(fields: &HeaderMap, shared: &Shared) -> Vec<(String, String)> {
    let dropped = connection_options(fields);
    let names = fields.keys().filter(|name| is_told(name, &dropped, shared));
    names
        .map(|name| {
            let values = fields.get_all(name).iter();
            let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
            let joined = values.reduce(|one, next| format!("{one}, {next}").into());
            (
                names::canonical(name),
                joined.unwrap_or_default().into_owned(),
            )
        })
        .collect()
}

/// Whether the data of an event tells this header; `dropped` are those of the connection only.
pub(super) fn is_told(name: &HeaderName, dropped: &[String], shared: &Shared) -> bool {
    *name != header::HOST
        && !is_hop_by_hop(name.as_str())
        && !is_credential(name, shared)
        && !dropped.iter().any(|option| option == name.as_str())
}

/// The headers that are handed on with a request as it was sent. Its length, media type and trace context are told otherwise;
/// what is the node's own is not the client's to say.
fn passed_headers(fields: &HeaderMap, host: &str, shared: &Shared) -> Vec<(String, Bytes)> {
    let dropped = connection_options(fields);
    let is_passed = |name: &HeaderName| {
        let is_told = matches!(
            name.as_str(),
            "content-length" | "content-type" | "expect" | "host" | "traceparent" | "tracestate"
        );
        !is_told
            && !is_hop_by_hop(name.as_str())
            && !name.as_str().starts_with("x-hearth-")
            && !name.as_str().starts_with("lambda-runtime-")
            && !is_credential(name, shared)
            && !dropped.iter().any(|option| option == name.as_str())
    };
    let mut headers = vec![("host".to_owned(), Bytes::copy_from_slice(host.as_bytes()))];
    if !fields.contains_key("x-forwarded-host") {
        headers.push(("x-forwarded-host".to_owned(), headers[0].1.clone()));
    }
    let passed = fields.iter().filter(|(name, _)| is_passed(name));
    headers.extend(passed.map(|(name, value)| {
        let value = Bytes::copy_from_slice(value.as_bytes());
        (name.as_str().to_owned(), value)
    }));
    headers
}

/// Whether a header has the token that was meant for this node.
fn is_credential(name: &HeaderName, shared: &Shared) -> bool {
    *name == header::AUTHORIZATION && shared.guard.requires_token()
}

/// The headers that a client declared to be for its connection only.
pub(super) fn connection_options(fields: &HeaderMap) -> Vec<String> {
    let values = fields.get_all(header::CONNECTION).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(|option| option.trim().to_ascii_lowercase())
        .collect()
}
