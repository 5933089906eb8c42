//! What may be asked for: rates, calls in flight, and how much is kept.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The most of anything that is counted here.
const MAX: u32 = 1_000_000;

/// How many calls a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateSpec {
    /// Calls a second, from 1 to 1,000,000.
    pub per_second: u32,
    /// Calls at once after a pause, from 1 to 1,000,000; as many as a second has when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// What a user may ask for. What is not set is as the settings of the node say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserLimits {
    /// Requests a second, whatever they ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSpec>,
    /// Requests in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
}

/// What a space may have. What is not set is as the settings of the node say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpaceLimits {
    /// Invocations of its functions a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSpec>,
    /// Invocations of its functions in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
    /// Functions that are registered in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<u32>,
    /// Events and invocations of it that wait in the queue, for each subscriber anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued: Option<u32>,
}

impl RateSpec {
    /// The calls at once after a pause.
    pub fn burst(&self) -> u32 {
        self.burst.unwrap_or(self.per_second)
    }

    fn check(&self) -> Result<(), String> {
        check("limits.rate.perSecond", Some(self.per_second))?;
        check("limits.rate.burst", self.burst)
    }
}

impl UserLimits {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Naming field, value and what was expected.
    pub fn check(&self) -> Result<(), String> {
        check_calls(self.rate.as_ref(), self.concurrent)
    }
}

impl SpaceLimits {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Naming field, value and what was expected.
    pub fn check(&self) -> Result<(), String> {
        check_calls(self.rate.as_ref(), self.concurrent)?;
        check("limits.functions", self.functions)?;
        check("limits.queued", self.queued)
    }
}

/// Checks what may be called.
pub(crate) fn check_calls(rate: Option<&RateSpec>, concurrent: Option<u32>) -> Result<(), String> {
    rate.map_or(Ok(()), RateSpec::check)?;
    check("limits.concurrent", concurrent)
}

fn check(field: &str, value: Option<u32>) -> Result<(), String> {
    match value.filter(|value| !(1..=MAX).contains(value)) {
        Some(value) => Err(format!("{field} is {value}, expected 1 to {MAX}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_names_field_value_and_range() {
        let read = |text: &str| serde_json::from_str::<SpaceLimits>(text).unwrap().check();
        for (text, expected) in [
            (r#"{"rate":{"perSecond":0}}"#, "limits.rate.perSecond is 0"),
            (
                r#"{"rate":{"perSecond":1,"burst":1000001}}"#,
                "limits.rate.burst is 1000001",
            ),
            (r#"{"concurrent":0}"#, "limits.concurrent is 0"),
            (r#"{"functions":0}"#, "limits.functions is 0"),
            (r#"{"queued":0}"#, "limits.queued is 0"),
        ] {
            let why = read(text).unwrap_err();
            assert_eq!(why, format!("{expected}, expected 1 to 1000000"));
        }
        assert_eq!(read(r#"{"rate":{"perSecond":5},"queued":7}"#), Ok(()));
        // A later version may know more.
        assert_eq!(read(r#"{"later":1}"#), Ok(()));
    }
}
