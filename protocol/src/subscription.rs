//! The record of a subscription: the rule that binds an event to a function.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event::{SYSTEM_PREFIX, TYPED_SYSTEM_PREFIX};
use crate::id::{FunctionId, InvalidId, Space};

mod id;
mod parse;
mod record;
#[cfg(test)]
mod tests;

pub use id::{SubscriptionId, escape_segment};
pub(crate) use parse::METHOD_TAG;
pub use parse::{Invalid, PATH_BYTES_MAX};

/// A registered subscription. It is written in the dialect that it was made in: a *typed* one, which has a mode, in that of Event
/// Gateway's last versions, with `type` and `eventType`; any other with `event`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The subscription's space; the function is of the same.
    pub space: Space,
    /// Its id within the space, made of its other fields.
    pub subscription_id: SubscriptionId,
    /// Whether the client waits for the function, of a typed subscription.
    pub mode: Option<Mode>,
    /// The event, or with a `*` at its end, the events; of a typed one, the name of a registered event type.
    pub event: EventType,
    /// The function that gets the event.
    pub function_id: FunctionId,
    /// The method of an `http` subscription, and of a typed one; of no effect for others.
    pub method: Option<Method>,
    /// The path that the event must be sent to; a pattern for `http`, and for typed ones that are sync.
    pub path: String,
    /// What browsers are told, for `http`.
    pub cors: Option<Cors>,
    /// The function of the same space that is asked about each request before `function_id` is called, where [`Subscription::is_http`].
    pub authorizer_id: Option<FunctionId>,
    /// What its owner notes.
    pub metadata: Option<BTreeMap<String, String>>,
    /// What the attributes of an event must be, by name; any of the values will do.
    pub filter: Option<BTreeMap<String, OneOrMany>>,
    /// How its events are delivered, where they are queued and the function's `delivery` shall not hold.
    pub delivery: Option<DeliverySpec>,
}

/// How a typed subscription gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The client waits, and the function's answer is the client's; one for each method, path and event type.
    Sync,
    /// The event is queued; any number of functions.
    Async,
}

/// A value of a filter: a text, or several of which one must fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// The one value.
    One(String),
    /// The values; at least one.
    Many(Vec<String>),
}

/// `delivery` as it was set; what is absent is as the function says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SubscriptionDelivery)]
pub struct DeliverySpec {
    /// How often an event is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Seconds after which an event is not begun any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
}

/// The CORS settings of an `http` subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SubscriptionCors)]
pub struct Cors {
    /// The origins that may call; `*` is any, and one `*` inside stands for any characters.
    pub origins: Vec<String>,
    /// The methods that may be used.
    pub methods: Vec<String>,
    /// The headers that may be sent; `*` is any.
    pub headers: Vec<String>,
    /// Whether credentials may be sent.
    pub allow_credentials: bool,
}

/// The event type of plain requests for typed subscriptions.
pub const HTTP_REQUEST: &str = "http.request";

/// A method that can be subscribed to.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the names say all")]
pub enum Method {
    Get,
    Post,
    Delete,
    Put,
    Patch,
    Head,
    Options,
}

/// The name of an event, `^[a-zA-Z0-9.\-_]+$`, or a pattern: such a name whose last segment is `*`, or `*` alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EventType(Arc<str>);

impl Subscription {
    /// Whether an event with these attributes passes the filter; `attribute` finds one by name. Without a filter all pass.
    pub fn accepts<'a>(&self, attribute: impl Fn(&str) -> Option<&'a str>) -> bool {
        let filter = self.filter.iter().flatten();
        filter.into_iter().all(|(name, wanted)| {
            attribute(name).is_some_and(|value| match wanted {
                OneOrMany::One(wanted) => wanted == value,
                OneOrMany::Many(wanted) => wanted.iter().any(|wanted| wanted == value),
            })
        })
    }

    /// The functions that must be there for it, each once.
    pub fn functions(&self) -> impl Iterator<Item = &FunctionId> {
        let authorizer = self.authorizer_id.as_ref();
        let authorizer = authorizer.filter(|authorizer| **authorizer != self.function_id);
        std::iter::once(&self.function_id).chain(authorizer)
    }

    /// Whether it is of the dialect of Event Gateway's last versions.
    pub fn is_typed(&self) -> bool {
        self.mode.is_some()
    }

    /// Whether the function's answer is the client's, so that there is one for each path.
    pub fn answers(&self) -> bool {
        self.is_http() || self.mode == Some(Mode::Sync)
    }

    /// Whether it is for what the gateway itself tells, which waits apart from what clients emit.
    pub fn is_system(&self) -> bool {
        let name = self.event.as_str();
        name.starts_with(SYSTEM_PREFIX) || name.starts_with(TYPED_SYSTEM_PREFIX)
    }

    /// Whether it is for requests of any client, by method and path.
    pub fn is_http(&self) -> bool {
        match self.mode {
            None => self.event.is_http(),
            Some(mode) => mode == Mode::Sync && self.event.as_str() == HTTP_REQUEST,
        }
    }
}

impl DeliverySpec {
    /// How old an event may get, where that was set.
    pub fn age_max(&self) -> Option<Duration> {
        let seconds = self.max_age_seconds?;
        Some(Duration::from_secs(seconds.into()))
    }
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Get,
        Self::Post,
        Self::Delete,
        Self::Put,
        Self::Patch,
        Self::Head,
        Self::Options,
    ];

    /// The method as HTTP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
        }
    }

    /// The method of that name, as HTTP writes it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

crate::schema::text_schema!(EventType);

impl EventType {
    /// The name or pattern.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the event of plain requests.
    pub fn is_http(&self) -> bool {
        self.as_str() == "http"
    }

    /// Whether it is the event of direct calls.
    pub fn is_invoke(&self) -> bool {
        self.as_str() == "invoke"
    }

    /// Whether a record may have such an event emitted.
    ///
    /// # Errors
    /// What is expected instead.
    pub fn check_emitted(&self) -> Result<(), &'static str> {
        let is_own = |prefix: &&str| self.as_str().starts_with(prefix);
        if self.pattern_prefix().is_some() {
            return Err("a name, not a pattern");
        }
        if self.is_http() || self.is_invoke() {
            return Err(
                "another: http and invoke are answered by a function, and nobody waits for an answer here",
            );
        }
        if [SYSTEM_PREFIX, TYPED_SYSTEM_PREFIX].iter().any(is_own) {
            return Err("another: events of that name are those of the gateway itself");
        }
        Ok(())
    }

    /// The text before the `*` of a pattern: empty, or ending with a dot.
    pub fn pattern_prefix(&self) -> Option<&str> {
        self.as_str().strip_suffix('*')
    }

    /// Whether an event of that name is meant. A pattern means every name that goes on after its prefix, but the gateway's own
    /// (`gateway.…`) only when it begins so itself, and never `http` and `invoke`.
    pub fn matches(&self, name: &str) -> bool {
        const OWN: &str = "gateway.";
        match self.pattern_prefix() {
            None => self.as_str() == name,
            Some(prefix) => {
                let is_after = name.len() > prefix.len() && name.starts_with(prefix);
                let is_hidden = name.starts_with(OWN) && !prefix.starts_with(OWN);
                is_after && !is_hidden && !matches!(name, "http" | "invoke")
            }
        }
    }
}

impl FromStr for EventType {
    type Err = InvalidId;

    fn from_str(value: &str) -> Result<Self, InvalidId> {
        let is_name = |name: &str| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        };
        let name = match value.strip_suffix('*') {
            Some(prefix) if prefix.is_empty() || prefix.ends_with('.') => prefix,
            _ => value,
        };
        let refused = |tag, expected| InvalidId {
            value: value.to_owned(),
            tag,
            expected,
        };
        match value {
            "" => Err(refused("required", "an event is required")),
            _ if !is_name(name) => Err(refused(
                "eventtype",
                "an event has only letters, digits, '.', '-' and '_', and may end with '.*'",
            )),
            _ => Ok(Self(value.into())),
        }
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
