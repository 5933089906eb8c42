//! Reads a schedule as a client sends it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Missed, ScheduleRecord};
use crate::id::FunctionId;
use crate::subscription::EventType;

/// What answers have besides the record; it is passed over when it is sent back.
const ANSWERED: [&str; 3] = ["space", "next", "last"];

/// Why a record is refused: the text after `Validation error: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    /// A field with another value than expected.
    pub fn new(field: &str, value: &impl Serialize, expected: impl fmt::Display) -> Self {
        let value = serde_json::to_string(value).unwrap_or_default();
        Self(format!("{field} is {value}, expected {expected}"))
    }

    pub(super) fn missing(field: &str, expected: &str) -> Self {
        Self(format!("{field} is missing, expected {expected}"))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sent {
    schedule_id: Option<String>,
    cron: Option<String>,
    time_zone: Option<String>,
    every: Option<String>,
    function_id: Option<String>,
    event_type: Option<String>,
    #[serde(rename = "data")]
    _data: Option<Value>,
    missed: Option<String>,
    enabled: Option<bool>,
    metadata: Option<BTreeMap<String, String>>,
}

/// The data as it was written, which a value would not keep.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl ScheduleRecord {
    /// Reads and checks a record. `id` comes from the URL of an update and replaces the body's.
    ///
    /// # Errors
    /// [`Invalid`], with the first field that is wrong.
    pub fn parse(space: &str, id: Option<&str>, body: &[u8]) -> Result<Self, Invalid> {
        let (sent, data) = read(body)?;
        let space = space
            .parse()
            .map_err(|error: crate::id::InvalidId| Invalid::new("space", &space, error.expected))?;
        let id = id.map_or_else(|| sent.schedule_id.unwrap_or_default(), str::to_owned);
        let schedule_id = id.parse().map_err(|error: crate::id::InvalidId| {
            Invalid::new("scheduleId", &id, error.expected)
        })?;
        let every = sent.every.as_deref().map(|text| {
            humantime::parse_duration(text).map_err(|error| {
                Invalid::new(
                    "every",
                    &text,
                    format!("a time such as 30s or 1h 30m ({error})"),
                )
            })
        });
        let record = Self {
            space,
            schedule_id,
            cron: sent.cron,
            time_zone: sent.time_zone,
            every: every.transpose()?,
            function_id: sent.function_id.map(function_id).transpose()?,
            event_type: sent.event_type.map(event_type).transpose()?,
            data,
            missed: missed(sent.missed.as_deref())?,
            enabled: sent.enabled.unwrap_or(true),
            metadata: sent.metadata.filter(|metadata| !metadata.is_empty()),
        };
        record.plan()?;
        if record.function_id.is_none() && record.event_type.is_none() {
            let expected =
                "the type of the event that is emitted, or functionId, the function that gets it";
            return Err(Invalid::missing("eventType", expected));
        }
        Ok(record)
    }
}

fn function_id(id: String) -> Result<FunctionId, Invalid> {
    id.parse()
        .map_err(|error: crate::id::InvalidId| Invalid::new("functionId", &id, error.expected))
}

fn event_type(name: String) -> Result<EventType, Invalid> {
    let invalid = |expected: &str| Invalid::new("eventType", &name, expected);
    let parsed: EventType = name
        .parse()
        .map_err(|error: crate::id::InvalidId| invalid(error.expected))?;
    parsed.check_emitted().map_err(invalid)?;
    Ok(parsed)
}

fn missed(text: Option<&str>) -> Result<Missed, Invalid> {
    match text {
        None => Ok(Missed::default()),
        Some("skip") => Ok(Missed::Skip),
        Some("once") => Ok(Missed::Once),
        Some(other) => Err(Invalid::new("missed", &other, "skip or once")),
    }
}

/// Reads the JSON, and what only an answer has out of it; serde would take arrays for structs.
fn read(body: &[u8]) -> Result<(Sent, Option<Box<RawValue>>), Invalid> {
    let invalid = |error: serde_json::Error| Invalid(error.to_string());
    let mut record: serde_json::Map<String, Value> =
        serde_json::from_slice(body).map_err(invalid)?;
    for name in ANSWERED {
        record.remove(name);
    }
    if let Some(metadata) = record.get("metadata")
        && !metadata.is_object()
        && !metadata.is_null()
    {
        return Err(Invalid::new("metadata", metadata, "an object"));
    }
    let sent = serde_path_to_error::deserialize(Value::Object(record)).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => Invalid(error.into_inner().to_string()),
            _ => Invalid(format!("{path}: {}", error.into_inner())),
        }
    })?;
    let written: Written<'_> = serde_json::from_slice(body).map_err(invalid)?;
    Ok((sent, written.data.map(ToOwned::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn becomes(body: &str, expected: &str) {
        let record = ScheduleRecord::parse("default", None, body.as_bytes());
        let record = record.unwrap_or_else(|error| panic!("{body}: {error}"));
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(text, expected, "{body}");
        let again: ScheduleRecord = serde_json::from_str(&text).unwrap();
        assert_eq!(
            serde_json::to_string(&again).unwrap(),
            text,
            "as the store keeps it"
        );
    }

    fn refuses(body: &str, expected: &str) {
        let error = ScheduleRecord::parse("default", None, body.as_bytes()).expect_err(body);
        assert!(error.to_string().starts_with(expected), "{body}: {error}");
    }

    #[test]
    fn a_record_says_when_and_what() {
        becomes(
            r#"{"scheduleId":"a","cron":"0 3 * * *","timeZone":"Europe/Berlin","eventType":"report.due","data":{"n": 1.10},"space":"x","next":1,"last":{}}"#,
            r#"{"space":"default","scheduleId":"a","cron":"0 3 * * *","timeZone":"Europe/Berlin","eventType":"report.due","data":{"n": 1.10},"missed":"skip","enabled":true}"#,
        );
        becomes(
            r#"{"scheduleId":"b","every":"90s","functionId":"f","missed":"once","enabled":false,"metadata":{"team":"a"},"data":null}"#,
            r#"{"space":"default","scheduleId":"b","every":"1m 30s","functionId":"f","missed":"once","enabled":false,"metadata":{"team":"a"}}"#,
        );
        let named = ScheduleRecord::parse(
            "default",
            Some("c"),
            br#"{"scheduleId":"a","every":"1s","functionId":"f"}"#,
        );
        let named = named.unwrap();
        assert_eq!(named.schedule_id.as_str(), "c", "the id of the URL");
        assert_eq!(named.event_type(), "hearth.schedule.fired");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        let with = |more: &str| format!(r#"{{"scheduleId":"a","functionId":"f",{more}}}"#);
        refuses("[]", "invalid type: sequence");
        refuses(
            r#"{"every":"1s","functionId":"f"}"#,
            r#"scheduleId is "", expected a schedule id"#,
        );
        refuses(
            r#"{"scheduleId":"a b","every":"1s","functionId":"f"}"#,
            r#"scheduleId is "a b", expected"#,
        );
        refuses(
            r#"{"scheduleId":"a","every":"1s"}"#,
            "eventType is missing, expected the type",
        );
        refuses(
            &with(r#""missed":"skip""#),
            "cron is missing, expected a cron expression",
        );
        refuses(
            &with(r#""cron":"* * * * *","every":"1s""#),
            r#"every is "1s", expected none"#,
        );
        refuses(
            &with(r#""cron":"61 * * * *""#),
            r#"cron is "61 * * * *", expected minute"#,
        );
        refuses(&with(r#""cron":"""#), r#"cron is "", expected minute"#);
        refuses(
            &with(r#""cron":"0 * * * *","timeZone":"Mars/Base""#),
            r#"timeZone is "Mars/Base", expected an IANA name"#,
        );
        refuses(
            &with(r#""every":"1h","timeZone":"UTC""#),
            r#"timeZone is "UTC", expected none"#,
        );
        refuses(
            &with(r#""every":"soon""#),
            r#"every is "soon", expected a time"#,
        );
        refuses(
            &with(r#""every":"500ms""#),
            r#"every is "500ms", expected whole seconds"#,
        );
        refuses(
            &with(r#""every":"0s""#),
            r#"every is "0s", expected whole seconds"#,
        );
        refuses(&with(r#""every":"400days""#), r#"every is "1year 1month"#);
        refuses(
            &with(r#""every":5"#),
            "every: invalid type: integer `5`, expected a string",
        );
        refuses(
            &with(r#""every":"1s","missed":"all""#),
            r#"missed is "all", expected skip or once"#,
        );
        refuses(
            &with(r#""every":"1s","enabled":"no""#),
            "enabled: invalid type",
        );
        refuses(
            &with(r#""every":"1s","metadata":[]"#),
            "metadata is [], expected an object",
        );
        refuses(
            &with(r#""every":"1s","evry":"1s""#),
            "evry: unknown field `evry`, expected one of",
        );
        refuses(
            &with(r#""every":"1s","eventType":"a.*""#),
            r#"eventType is "a.*", expected a name"#,
        );
        refuses(
            &with(r#""every":"1s","eventType":"http""#),
            r#"eventType is "http", expected another"#,
        );
        refuses(
            &with(r#""every":"1s","eventType":"gateway.x""#),
            r#"eventType is "gateway.x", expected another"#,
        );
        refuses(
            r#"{"scheduleId":"a","every":"1s","functionId":"a b"}"#,
            r#"functionId is "a b", expected"#,
        );
    }

    #[test]
    fn an_expression_is_bounded() {
        let cron = format!("{} * * * *", "0,".repeat(200));
        let body = format!(r#"{{"scheduleId":"a","functionId":"f","cron":"{cron}"}}"#);
        refuses(&body, "the length of cron is 408, expected at most 256");
    }

    #[test]
    fn names_of_slots_tell_schedules_slots_and_purposes_apart() {
        let record = |id: &str| {
            let body = format!(r#"{{"scheduleId":"{id}","every":"1s","functionId":"f"}}"#);
            ScheduleRecord::parse("default", None, body.as_bytes()).unwrap()
        };
        let (a, b) = (record("a"), record("b"));
        assert_eq!(
            a.name_of_slot(1000, "x"),
            record("a").name_of_slot(1000, "x")
        );
        let names = [
            a.name_of_slot(1000, "x"),
            a.name_of_slot(1000, "y"),
            a.name_of_slot(2000, "x"),
            b.name_of_slot(1000, "x"),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[index + 1..].contains(name));
        }
    }
}
