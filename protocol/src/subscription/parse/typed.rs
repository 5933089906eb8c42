//! Typed subscriptions, as clients of Event Gateway's last versions send them.

use serde_json::Value;

use super::{Invalid, Lines, Sent, SentDelivery, authorizer};
use crate::id::{FunctionId, Space};
use crate::subscription::{EventType, Method, Mode, Subscription, SubscriptionId};

impl Subscription {
    /// Reads, normalises and checks a typed record.
    pub(super) fn of_typed(space: &str, sent: Sent) -> Result<Self, Invalid> {
        let mut lines = Lines::default();
        let space: Option<Space> = lines.parsed("Space", space.parse());
        let mode = mode(&mut lines, sent.mode.as_ref());
        let event = event_type(&mut lines, &sent.event_type.unwrap_or_default());
        let function_id = sent.function_id.unwrap_or_default();
        if function_id.is_empty() {
            lines.add("FunctionID", "required");
        }
        let path = lines.path(sent.path);
        let method = match sent.method.unwrap_or_default().to_uppercase().as_str() {
            "" => Some(Method::Post),
            name => lines.method(name),
        };
        if let Some(filter) = &sent.filter {
            lines.filter(filter);
        }
        let (Some(space), Some(mode), Some(event), Some(method), true) =
            (space, mode, event, method, lines.0.is_empty())
        else {
            return Err(Invalid::Validation(lines.0.join("\n")));
        };
        let filter = sent.filter.filter(|filter| !filter.is_empty());
        if mode == Mode::Sync && filter.is_some() {
            let why = "filter is set, expected none: a sync subscription answers all events of its type, path and method";
            return Err(Invalid::Validation(why.to_owned()));
        }
        if sent.cors.is_some() {
            let why = "cors is set, expected none: what pages may do with events of a type is a CORS configuration of its own";
            return Err(Invalid::Validation(why.to_owned()));
        }
        let function_id: FunctionId = function_id
            .parse()
            .map_err(|_| Invalid::UnknownFunction(function_id))?;
        let authorizer_id = authorizer(sent.authorizer_id)?;
        Ok(Self {
            subscription_id: SubscriptionId::of_typed(mode, &event, &function_id, &path, method),
            space,
            mode: Some(mode),
            event,
            function_id,
            method: Some(method),
            path,
            cors: None,
            authorizer_id,
            metadata: sent.metadata.filter(|metadata| !metadata.is_empty()),
            filter,
            delivery: sent.delivery.and_then(SentDelivery::spec),
        })
    }
}

fn mode(lines: &mut Lines, sent: Option<&Value>) -> Option<Mode> {
    let tag = match sent {
        None => "required",
        Some(Value::String(text)) => match text.as_str() {
            "sync" => return Some(Mode::Sync),
            "async" => return Some(Mode::Async),
            "" => "required",
            _ => "eq=async|eq=sync",
        },
        Some(_) => "eq=async|eq=sync",
    };
    lines.add("Type", tag);
    None
}

/// The name of an event type; a pattern is none.
fn event_type(lines: &mut Lines, name: &str) -> Option<EventType> {
    match name.parse::<EventType>() {
        Ok(event) if event.pattern_prefix().is_none() => return Some(event),
        _ if name.is_empty() => lines.add("EventType", "required"),
        _ => lines.add("EventType", "eventType"),
    }
    None
}
