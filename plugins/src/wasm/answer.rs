//! What a sync plugin answers.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The longest text of a veto that is passed on.
const TEXT_BYTES_MAX: usize = 1024;

/// What becomes of the event.
#[derive(Debug)]
pub(super) enum Answer<'a> {
    /// It goes on as it is.
    Pass,
    /// It goes on with other data.
    Change(&'a RawValue),
    /// It does not go on, for this reason.
    Veto(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(default)]
    veto: Option<String>,
}

/// A member that is there, if it is null as well.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(value).map(Some)
}

impl<'a> Answer<'a> {
    /// Reads an answer: nothing, `{}`, `{"data":…}` or `{"veto":"…"}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(answer: &'a [u8]) -> Result<Self, String> {
        if answer.is_empty() {
            return Ok(Self::Pass);
        }
        let members: Members<'_> = serde_json::from_slice(answer).map_err(|error| {
            format!(r#"its answer is none of {{}}, {{"data":…}} and {{"veto":"…"}}: {error}"#)
        })?;
        match (members.data, members.veto) {
            (None, None) => Ok(Self::Pass),
            (Some(data), None) => Ok(Self::Change(data)),
            (None, Some(text)) => Ok(Self::Veto(shortened(text))),
            (Some(_), Some(_)) => Err("its answer has both data and veto".to_owned()),
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(answer: &str, expected: &str) {
        let read = match Answer::parse(answer.as_bytes()) {
            Ok(Answer::Pass) => "pass".to_owned(),
            Ok(Answer::Change(data)) => format!("change {data}"),
            Ok(Answer::Veto(text)) => format!("veto {text}"),
            Err(why) => why,
        };
        assert!(read.starts_with(expected), "{answer}: {read}");
    }

    #[test]
    fn answers_are_read_and_refused_with_a_reason() {
        check("", "pass");
        check(" {} ", "pass");
        check(r#"{"data": [1.0] }"#, "change [1.0]");
        check(r#"{"data":null}"#, "change null");
        check(r#"{"veto":"no"}"#, "veto no");
        check(r#"{"veto":"no","data":1}"#, "its answer has both");
        check(r#"{"veto":1}"#, "its answer is none of");
        check(r#"{"vet":"no"}"#, "its answer is none of");
        check("null", "its answer is none of");
        check("{", "its answer is none of");
        let long = format!(r#"{{"veto":"{}"}}"#, "é".repeat(2_000));
        let Ok(Answer::Veto(text)) = Answer::parse(long.as_bytes()) else {
            panic!("a long veto is one");
        };
        assert_eq!(text.len(), TEXT_BYTES_MAX);
    }
}
