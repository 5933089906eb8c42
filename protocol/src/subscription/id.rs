//! The ids of subscriptions, and the keys that follow from them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::{EventType, HTTP_REQUEST, Method, Mode};
use crate::id::{FunctionId, ScheduleId};

/// A subscription's id within its space, as it stands in URLs: never decoded, never escaped again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubscriptionId(Arc<str>);

crate::schema::text_schema!(SubscriptionId);

impl SubscriptionId {
    /// An id as it came in a URL; whether there is such a subscription is another matter.
    pub fn from_url(segment: &str) -> Self {
        Self(segment.into())
    }

    /// The id of a subscription that is not typed: `http,METHOD,path` for `http`, else `event,function,path`, the path escaped.
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

    /// The id of a typed subscription: `sync,event,path,METHOD` or `async,event,function,path,METHOD`, the path escaped, in
    /// unpadded base64 for URLs.
    pub fn of_typed(
        mode: Mode,
        event: &EventType,
        function: &FunctionId,
        path: &str,
        method: Method,
    ) -> Self {
        let path = escape_segment(path);
        let text = match mode {
            Mode::Sync => format!("sync,{event},{path},{method}"),
            Mode::Async => format!("async,{event},{function},{path},{method}"),
        };
        Self(URL_SAFE_NO_PAD.encode(text).into())
    }

    /// The id under which a schedule calls its function. It has a comma, as ids that are not typed have, and one only: no subscription
    /// has it.
    pub fn of_schedule(schedule: &ScheduleId) -> Self {
        Self(format!("schedule,{schedule}").into())
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an id of a typed subscription; the others have commas, which base64 has not.
    pub fn is_typed(&self) -> bool {
        !self.0.contains(',')
    }

    /// The key of the subscription among those of its space. It begins with what an event is looked up by, and so does an id that
    /// is not typed, which is its own key. A typed one is `event,function,path,METHOD`, or, since no function has an empty name,
    /// `event,,METHOD,path` when it is sync; for requests of any client it is the key of the `http` subscription that would
    /// take them, so that there is one of either.
    pub fn key(&self) -> Cow<'_, str> {
        self.typed_key().map_or(Cow::Borrowed(&*self.0), Cow::Owned)
    }

    fn typed_key(&self) -> Option<String> {
        let text = match self.is_typed() {
            true => URL_SAFE_NO_PAD.decode(self.as_str()).ok()?,
            false => return None,
        };
        let text = String::from_utf8(text).ok()?;
        let parts: Vec<&str> = text.split(',').collect();
        match parts[..] {
            ["sync", HTTP_REQUEST, path, method] => Some(format!("http,{method},{path}")),
            ["sync", event, path, method] => Some(format!("{event},,{method},{path}")),
            ["async", event, function, path, method] => {
                Some(format!("{event},{function},{path},{method}"))
            }
            _ => None,
        }
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
