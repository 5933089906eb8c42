//! The record of a subscription as JSON, in the dialect that it was made in.

use std::collections::BTreeMap;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::{Cors, DeliverySpec, EventType, Method, Mode, OneOrMany, Subscription, SubscriptionId};
use crate::id::{FunctionId, Space};

/// A field that was not set is absent. The order is Event Gateway's, where a typed record has its path before its method.
impl Serialize for Subscription {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut record = serializer.serialize_struct("Subscription", 12)?;
        record.serialize_field("space", &self.space)?;
        record.serialize_field("subscriptionId", &self.subscription_id)?;
        if let Some(mode) = self.mode {
            record.serialize_field("type", &mode)?;
            record.serialize_field("eventType", &self.event)?;
            record.serialize_field("functionId", &self.function_id)?;
            record.serialize_field("path", &self.path)?;
            set(&mut record, "method", self.method.as_ref())?;
        } else {
            record.serialize_field("event", &self.event)?;
            record.serialize_field("functionId", &self.function_id)?;
            set(&mut record, "method", self.method.as_ref())?;
            record.serialize_field("path", &self.path)?;
        }
        set(&mut record, "cors", self.cors.as_ref())?;
        set(&mut record, "authorizerId", self.authorizer_id.as_ref())?;
        set(&mut record, "metadata", self.metadata.as_ref())?;
        set(&mut record, "filter", self.filter.as_ref())?;
        set(&mut record, "delivery", self.delivery.as_ref())?;
        record.end()
    }
}

fn set<R: SerializeStruct>(
    record: &mut R,
    name: &'static str,
    value: Option<&impl Serialize>,
) -> Result<(), R::Error> {
    match value {
        Some(value) => record.serialize_field(name, value),
        None => record.skip_field(name),
    }
}

/// A subscription, in one of two dialects: with `event`, or, *typed*, with `type` and `eventType`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Record {
    #[schema(required = false)]
    space: Space,
    #[schema(required = false)]
    subscription_id: SubscriptionId,
    #[serde(rename = "type")]
    mode: Option<Mode>,
    /// Of a record that is not typed.
    event: Option<EventType>,
    /// Of a typed record.
    event_type: Option<EventType>,
    function_id: FunctionId,
    method: Option<Method>,
    #[schema(required = false)]
    path: String,
    cors: Option<Cors>,
    /// A function of the space that is asked about each request before the function is called; for `http`, and for `sync` of `http.request`.
    authorizer_id: Option<FunctionId>,
    metadata: Option<BTreeMap<String, String>>,
    filter: Option<BTreeMap<String, OneOrMany>>,
    delivery: Option<DeliverySpec>,
}

/// As it is read, so that both dialects are described.
impl PartialSchema for Subscription {
    fn schema() -> RefOr<Schema> {
        Record::schema()
    }
}

impl ToSchema for Subscription {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Record::schemas(schemas);
    }
}

impl<'de> Deserialize<'de> for Subscription {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let record = Record::deserialize(deserializer)?;
        // What says `type` and no `eventType` is of a version that had no types.
        let (mode, event) = match (record.event_type, record.event) {
            (Some(event), _) => (record.mode, event),
            (None, Some(event)) => (None, event),
            (None, None) => return Err(serde::de::Error::missing_field("event")),
        };
        Ok(Self {
            space: record.space,
            subscription_id: record.subscription_id,
            mode,
            event,
            function_id: record.function_id,
            method: record.method,
            path: record.path,
            cors: record.cors,
            authorizer_id: record.authorizer_id,
            metadata: record.metadata,
            filter: record.filter,
            delivery: record.delivery,
        })
    }
}
