//! The record of a subscription: the rule that binds an event to a function.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{FunctionId, InvalidId, Space};

mod parse;
#[cfg(test)]
mod tests;

pub use parse::{Invalid, PATH_BYTES_MAX};

/// A registered subscription. A field that was not set is absent from answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscription {
    /// The subscription's space; the function is of the same.
    pub space: Space,
    /// Its id within the space, made of its other fields.
    pub subscription_id: SubscriptionId,
    /// The event, or with a `*` at its end, the events.
    pub event: EventType,
    /// The function that gets the event.
    pub function_id: FunctionId,
    /// The method of an `http` subscription; of no effect for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// The path that the event must be sent to; a pattern for `http`.
    pub path: String,
    /// What browsers are told, for `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
    /// What its owner notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// What the attributes of an event must be, by name; any of the values will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<BTreeMap<String, OneOrMany>>,
}

/// A value of a filter: a text, or several of which one must fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// The one value.
    One(String),
    /// The values; at least one.
    Many(Vec<String>),
}

/// The CORS settings of an `http` subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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

/// A method that can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// A subscription's id within its space, as it stands in URLs: never decoded, never escaped again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubscriptionId(Arc<str>);

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

    /// Whether it is for requests of any client, by method and path.
    pub fn is_http(&self) -> bool {
        self.event.is_http()
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

impl SubscriptionId {
    /// An id as it came in a URL; whether there is such a subscription is another matter.
    pub fn from_url(segment: &str) -> Self {
        Self(segment.into())
    }

    /// The id of a subscription: `http,METHOD,path` for `http`, else `event,function,path`, the path escaped.
    pub fn of(
        event: &EventType,
        method: Option<Method>,
        function: &FunctionId,
        path: &str,
    ) -> Self {
        let path = escape_segment(path);
        match method {
            Some(method) if event.is_http() => Self(format!("{event},{method},{path}").into()),
            _ => Self(format!("{event},{function},{path}").into()),
        }
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Escapes a text as Go does for one segment of a path: upper-case `%XX` for all but letters, digits and `-_.~$&+:=@`.
pub fn escape_segment(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut escaped = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'-' | b'_' | b'.' | b'~' | b'$' | b'&' | b'+' | b':' | b'=' | b'@' => {
                escaped.push(byte.into());
            }
            byte if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            byte => {
                escaped.push('%');
                escaped.push(DIGITS[usize::from(byte >> 4)].into());
                escaped.push(DIGITS[usize::from(byte & 15)].into());
            }
        }
    }
    escaped
}
