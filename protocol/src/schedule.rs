//! The record of a schedule: when something is due, again and again, and what happens then.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::id::{FunctionId, Space};
use crate::subscription::EventType;

mod parse;
mod plan;

pub use crate::id::ScheduleId;
pub use parse::Invalid;
pub use plan::Plan;

/// The type of a schedule's events where its record names none.
pub const FIRED: &str = "hearth.schedule.fired";

/// The zone of a cron expression whose record names none.
pub const DEFAULT_ZONE: &str = "UTC";

/// A registered schedule. A field that was not set is absent from answers.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleRecord {
    /// Its space.
    #[schema(required = false)]
    pub space: Space,
    /// Its id within the space.
    #[schema(required = false)]
    pub schedule_id: ScheduleId,
    /// The cron expression of its slots; either this or `every` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// The time zone that the cron expression is read in, by its IANA name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The time from slot to slot.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "humantime_text"
    )]
    #[schema(value_type = Option<String>, example = "15m")]
    pub every: Option<Duration>,
    /// The only function that gets the event, if there is one; else it goes to all that subscribed to its type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_id: Option<FunctionId>,
    /// The type of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventType>,
    /// What the event says: JSON as it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Box<RawValue>>,
    /// What becomes of slots that nobody could fire in time.
    #[schema(required = false)]
    pub missed: Missed,
    /// Whether it fires at all.
    #[schema(required = false)]
    pub enabled: bool,
    /// What its owner notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// What becomes of slots that nobody could fire in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// They are passed over.
    #[default]
    Skip,
    /// The last of them is fired late, once for all.
    Once,
}

impl ScheduleRecord {
    /// The type of its events.
    pub fn event_type(&self) -> &str {
        self.event_type.as_ref().map_or(FIRED, EventType::as_str)
    }

    /// When it is due.
    ///
    /// # Errors
    /// [`Invalid`], for a record that was not made by [`ScheduleRecord::parse`] of this version.
    pub fn plan(&self) -> Result<Plan, Invalid> {
        Plan::new(self.cron.as_deref(), self.time_zone.as_deref(), self.every)
    }

    /// Whether both are due at the same times, so that what was counted of one holds for the other.
    pub fn has_plan_of(&self, other: &Self) -> bool {
        (&self.cron, &self.time_zone, self.every) == (&other.cron, &other.time_zone, other.every)
    }

    /// A name for something that one slot brings about, in 16 bytes that are a UUID: the same on every node, and whenever it is made.
    pub fn name_of_slot(&self, slot_ms: u64, what: &str) -> [u8; 16] {
        let mut hasher = Sha256::new();
        for part in [self.space.as_str(), self.schedule_id.as_str(), what] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        hasher.update(slot_ms.to_be_bytes());
        let mut name = [0; 16];
        name.copy_from_slice(&hasher.finalize()[..16]);
        uuid::Builder::from_custom_bytes(name)
            .into_uuid()
            .into_bytes()
    }

    /// The id of the event of a slot.
    pub fn event_id(&self, slot_ms: u64) -> String {
        uuid::Uuid::from_bytes(self.name_of_slot(slot_ms, "")).to_string()
    }
}

/// Durations as `1h 30m`.
mod humantime_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => serializer.collect_str(&humantime::format_duration(*duration)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let parsed = text.map(|text| humantime::parse_duration(&text));
        parsed.transpose().map_err(serde::de::Error::custom)
    }
}
