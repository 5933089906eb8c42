//! Reads a subscription from a client's JSON, with the steps, checks and messages that Event Gateway's clients know.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    Cors, DeliverySpec, EventType, HTTP_REQUEST, Method, OneOrMany, Subscription, SubscriptionId,
};
use crate::function::check_delivery;
use crate::id::{FunctionId, InvalidId, Space};

mod typed;

/// Bytes a path may have: no request with a longer one would be read.
pub const PATH_BYTES_MAX: usize = 8192;

/// Why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It does not validate; the text after `Validation error: `.
    #[error("{0}")]
    Validation(String),
    /// No function can have this name.
    #[error("Function \"{0}\" not found.")]
    UnknownFunction(String),
    /// No function can have the name of the authorizer.
    #[error("authorizerId is \"{0}\", expected a function that is registered in the space")]
    UnknownAuthorizer(String),
}

/// A record as a client sends it; what it says of space and id is passed over, and so is what nobody knows.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    event: Option<String>,
    #[serde(rename = "type")]
    mode: Option<Value>,
    event_type: Option<String>,
    function_id: Option<String>,
    method: Option<String>,
    path: Option<String>,
    cors: Option<SentCors>,
    authorizer_id: Option<String>,
    metadata: Option<BTreeMap<String, String>>,
    filter: Option<BTreeMap<String, OneOrMany>>,
    delivery: Option<SentDelivery>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentCors {
    origins: Option<Vec<String>>,
    methods: Option<Vec<String>>,
    headers: Option<Vec<String>>,
    allow_credentials: Option<bool>,
}

/// No client of Event Gateway sends it, so what nobody knows in it is a mistake.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SentDelivery {
    attempts: Option<u32>,
    max_age_seconds: Option<u32>,
}

impl Subscription {
    /// Reads, normalises and checks a record. One with an `eventType`, or with a `type` and no `event`, is typed.
    ///
    /// # Errors
    /// [`Invalid`], all fields that fail in one text, a line each.
    pub fn parse(space: &str, body: &[u8]) -> Result<Self, Invalid> {
        let sent = read(body)?;
        let subscription = match (&sent.event_type, &sent.mode, &sent.event) {
            (Some(_), ..) | (None, Some(_), None) => Self::of_typed(space, sent),
            _ => Self::of_named(space, sent),
        }?;
        subscription.check_authorizer()?;
        subscription.check_delivery()?;
        Ok(subscription)
    }

    fn check_authorizer(&self) -> Result<(), Invalid> {
        if self.authorizer_id.is_none() || self.is_http() {
            return Ok(());
        }
        let event = &self.event;
        let why = match self.mode {
            None => format!(
                "authorizerId is set, expected none: only requests are asked about, which are the event http, and this is {event}"
            ),
            Some(_) => format!(
                "authorizerId is set, expected none: only subscriptions of the type sync to {HTTP_REQUEST} may have one; the event type {event} may name an authorizer for all of its subscriptions"
            ),
        };
        Err(Invalid::Validation(why))
    }

    fn check_delivery(&self) -> Result<(), Invalid> {
        let Some(delivery) = &self.delivery else {
            return Ok(());
        };
        let event = &self.event;
        if self.answers() || event.is_invoke() {
            let why = "delivery is set, expected none: a client waits for the function's answer, so nothing is queued";
            return Err(Invalid::Validation(why.to_owned()));
        }
        if self.is_system() {
            let why = format!(
                "delivery is set, expected none: events of {event} are the gateway's own, which are not kept to be tried again"
            );
            return Err(Invalid::Validation(why));
        }
        check_delivery(delivery.attempts, delivery.max_age_seconds)
            .map_err(|error| Invalid::Validation(error.to_string()))
    }

    fn of_named(space: &str, sent: Sent) -> Result<Self, Invalid> {
        let mut lines = Lines::default();
        let name = sent.event.unwrap_or_default();
        let is_http = name == "http";
        let path = lines.path(sent.path);
        let mut method = sent.method.unwrap_or_default();
        if is_http {
            method = method.to_uppercase();
        }
        let cors = sent.cors.map(|cors| cors.filled(is_http));

        let space: Option<Space> = lines.parsed("Space", space.parse());
        let event: Option<EventType> = lines.parsed("Event", name.parse());
        let function_id = sent.function_id.unwrap_or_default();
        if function_id.is_empty() {
            lines.add("FunctionID", "required");
        }
        let method = match method.as_str() {
            "" => None,
            method => lines.method(method),
        };
        if let Some(cors) = &cors {
            for (field, list) in [
                ("Origins", &cors.origins),
                ("Methods", &cors.methods),
                ("Headers", &cors.headers),
            ] {
                if list.is_empty() {
                    lines.add_nested("CORS", field, "min");
                }
            }
        }
        if let Some(filter) = &sent.filter {
            lines.filter(filter);
        }
        let (Some(space), Some(event), true) = (space, event, lines.0.is_empty()) else {
            return Err(Invalid::Validation(lines.0.join("\n")));
        };
        if is_http && method.is_none() {
            let why = "Missing required fields (method, path) for HTTP event.";
            return Err(Invalid::Validation(why.to_owned()));
        }
        let function_id: FunctionId = function_id
            .parse()
            .map_err(|_| Invalid::UnknownFunction(function_id))?;
        let authorizer_id = authorizer(sent.authorizer_id)?;
        Ok(Self {
            subscription_id: SubscriptionId::of(&event, method, &function_id, &path),
            space,
            mode: None,
            event,
            function_id,
            method,
            path,
            cors,
            authorizer_id,
            metadata: sent.metadata.filter(|metadata| !metadata.is_empty()),
            filter: sent.filter.filter(|filter| !filter.is_empty()),
            delivery: sent.delivery.and_then(SentDelivery::spec),
        })
    }
}

/// What the validator of Event Gateway says of a method it does not know.
pub(crate) const METHOD_TAG: &str = "eq=GET|eq=POST|eq=DELETE|eq=PUT|eq=PATCH|eq=HEAD|eq=OPTIONS";

/// One line for each field that fails, in the words of Event Gateway's validator.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn add(&mut self, field: &str, tag: &str) {
        self.0.push(format!(
            "Key: 'Subscription.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
        ));
    }

    fn add_nested(&mut self, parent: &str, field: &str, tag: &str) {
        self.0.push(format!(
            "Key: 'Subscription.{parent}.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
        ));
    }

    fn parsed<T>(&mut self, field: &str, parsed: Result<T, InvalidId>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error.tag)).ok()
    }

    /// A path that begins with a slash.
    fn path(&mut self, path: Option<String>) -> String {
        let mut path = path.unwrap_or_default();
        if !path.starts_with('/') {
            path.insert(0, '/');
        }
        if path.len() > PATH_BYTES_MAX {
            self.add("Path", "max");
        }
        path
    }

    fn method(&mut self, name: &str) -> Option<Method> {
        let method = Method::from_name(name);
        if method.is_none() {
            self.add("Method", METHOD_TAG);
        }
        method
    }

    /// A filter that nothing can pass is a mistake.
    fn filter(&mut self, filter: &BTreeMap<String, OneOrMany>) {
        let is_attribute =
            |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        for (name, wanted) in filter {
            if !is_attribute(name) {
                self.add("Filter", "attribute");
            }
            if matches!(wanted, OneOrMany::Many(values) if values.is_empty()) {
                self.add("Filter", "min");
            }
        }
    }
}

impl SentCors {
    /// The settings, with the defaults where they apply.
    fn filled(self, has_defaults: bool) -> Cors {
        let or = |list: Option<Vec<String>>, default: &[&str]| {
            list.unwrap_or_else(|| {
                let default = default.iter().filter(|_| has_defaults);
                default.map(|&text| text.to_owned()).collect()
            })
        };
        Cors {
            origins: or(self.origins, &["*"]),
            methods: or(self.methods, &["HEAD", "GET", "POST"]),
            headers: or(self.headers, &["Origin", "Accept", "Content-Type"]),
            allow_credentials: self.allow_credentials.unwrap_or_default(),
        }
    }
}

impl SentDelivery {
    /// What was set; nothing if nothing was.
    fn spec(self) -> Option<DeliverySpec> {
        let spec = DeliverySpec {
            attempts: self.attempts,
            max_age_seconds: self.max_age_seconds,
        };
        (spec != DeliverySpec::default()).then_some(spec)
    }
}

/// The id of an authorizer that was sent.
fn authorizer(sent: Option<String>) -> Result<Option<FunctionId>, Invalid> {
    let parsed = sent.map(|id| id.parse().map_err(|_| Invalid::UnknownAuthorizer(id)));
    parsed.transpose()
}

/// Reads the JSON; serde would take arrays for structs.
fn read(body: &[u8]) -> Result<Sent, Invalid> {
    let invalid = |error: serde_json::Error| Invalid::Validation(error.to_string());
    let record: serde_json::Map<String, Value> = serde_json::from_slice(body).map_err(invalid)?;
    for field in ["cors", "metadata", "filter", "delivery"] {
        if let Some(value) = record.get(field)
            && !value.is_object()
            && !value.is_null()
        {
            let why = format!("{field} is {value}, expected an object");
            return Err(Invalid::Validation(why));
        }
    }
    serde_path_to_error::deserialize(Value::Object(record)).map_err(|error| {
        let path = error.path().to_string();
        Invalid::Validation(format!("{path}: {}", error.into_inner()))
    })
}
