//! `invoke` events: one function is run, and its bare answer is the client's.

use http::{HeaderMap, Response};
use protocol::{Event, InvocationId, Qualifier, Space};

use super::call::FunctionCall;
use super::{Arrival, dispatch, response};
use crate::body::AnswerBody;
use crate::error::Error;
use crate::qualified;
use crate::surface::Shared;

/// Answers an `invoke` event. The function must have a subscription for it, on exactly this path.
pub(super) async fn answer(
    shared: &Shared,
    id: &InvocationId,
    arrival: &Arrival,
    event: Event,
) -> Result<Response<AnswerBody>, Error> {
    let fields = &arrival.parts.headers;
    let registry = shared.node.registry();
    if !registry.is_loaded {
        return Err(Error::not_loaded());
    }
    let not_found = || Error::not_found("function or subscription not found");
    let named = |text: &str| text.parse::<Space>().map_err(|_| not_found());
    let space = match text(fields, &dispatch::SPACE) {
        "" => Space::default_space(),
        name => named(name).inspect_err(|_| shared.events.received("", "invoke"))?,
    };
    // A label of a metric is not for clients to choose.
    let known = match registry.functions.contains_key(&space) {
        true => space.as_str(),
        false => "",
    };
    shared.events.received(known, "invoke");
    let answered = run(shared, id, arrival, event, &space).await;
    shared.events.processed(known, "invoke");
    answered
}

async fn run(
    shared: &Shared,
    id: &InvocationId,
    arrival: &Arrival,
    mut event: Event,
    space: &Space,
) -> Result<Response<AnswerBody>, Error> {
    let not_found = || Error::not_found("function or subscription not found");
    let registry = shared.node.registry();
    let fields = &arrival.parts.headers;
    let (function_id, qualifier) =
        Qualifier::split(text(fields, &dispatch::FUNCTION_ID)).map_err(|_| not_found())?;
    let path = arrival.target.event_path();
    if !registry.subscriptions.invokable(space, &function_id, &path) {
        return Err(not_found());
    }
    let version = match &qualifier {
        Some(qualifier) => qualified::resolve(&registry, space, &function_id, qualifier, fields)?,
        None => None,
    };
    let registered = registry.at(space, &function_id, version);
    let format = registered.ok_or_else(not_found)?.function.event_format();
    let asked = shared.emitter.ask_invoking(space, &function_id, &mut event);
    let asked = asked.await;
    let call = FunctionCall {
        shared,
        id,
        fields,
        event: &event,
        space,
        function_id: &function_id,
        version,
        begun: None,
    };
    asked.map_err(|failure| call.refused(failure))?;
    let completed = call.run(event.encode(format)).await?;
    let mut response = response::bare(completed.reply.body.whole().clone(), HeaderMap::new());
    shared.describe(response.headers_mut(), &completed);
    if qualifier.is_some() {
        qualified::tell(response.headers_mut(), version);
    }
    Ok(response)
}

fn text<'a>(fields: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    let value = fields.get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
