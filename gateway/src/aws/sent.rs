//! What AWS's clients send of a function, member by member: each is effective, or noted, or refused by its name.

use std::collections::BTreeMap;

use axum::body::Bytes;
use serde_json::{Map, Value, json};

use super::name::invalid;
use crate::error::{AwsKind, Error};

/// The members of a body that were not taken yet.
#[derive(Debug)]
pub(super) struct Sent(Map<String, Value>);

/// Members that mean what is so anyway.
fn is_plain(name: &str, value: &Value) -> bool {
    let plain = match name {
        "TracingConfig" => json!({"Mode": "PassThrough"}),
        "SnapStart" => json!({"ApplyOn": "None"}),
        "EphemeralStorage" => json!({"Size": 512}),
        "LoggingConfig" => json!({"LogFormat": "Text"}),
        _ => return is_empty(value),
    };
    *value == plain || is_empty(value)
}

/// Whether a member says nothing: clients send lists of nothing to take something away.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

impl Sent {
    /// Reads a body; an empty one has no members.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub(super) fn read(body: &Bytes) -> Result<Self, Error> {
        if body.is_empty() {
            return Ok(Self::nothing());
        }
        serde_json::from_slice(body).map(Self).map_err(|error| {
            Error::aws(
                AwsKind::InvalidRequestContent,
                format!("Could not parse request body into json: {error}"),
            )
        })
    }

    /// A body without members.
    pub(super) fn nothing() -> Self {
        Self(Map::new())
    }

    /// Takes a member; one that is null is not there.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a text.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(unlike(name, &other, "a string")),
        }
    }

    /// Takes a yes or no; no where it is not there.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Error> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(unlike(name, &other, "true or false")),
        }
    }

    /// Takes a whole number.
    ///
    /// # Errors
    /// When it is something else, or out of range.
    pub(super) fn number(
        &mut self,
        name: &str,
        (least, most): (u32, u32),
    ) -> Result<Option<u32>, Error> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(unlike(name, &value, &format!("{least} to {most}"))),
        }
    }

    /// Takes texts by name.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn texts(&mut self, name: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let texts = serde_json::from_value(value.clone());
        let texts = texts.map_err(|_| unlike(name, &value, "an object of strings"));
        texts.map(Some)
    }

    /// Takes a list of texts.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn list(&mut self, name: &str) -> Result<Option<Vec<String>>, Error> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let texts = serde_json::from_value(value.clone());
        let texts = texts.map_err(|_| unlike(name, &value, "a list of strings"));
        texts.map(Some)
    }

    /// Takes an object, with its own members.
    ///
    /// # Errors
    /// When it is something else.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Error> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Self(members))),
            Some(other) => Err(unlike(name, &other, "an object")),
        }
    }

    /// Sees to it that nothing is left that would say something: it would be believed, and is not so.
    ///
    /// # Errors
    /// Naming the first such member.
    pub(super) fn finish(self, within: &str) -> Result<(), Error> {
        let mut left = self.0.iter();
        match left.find(|(name, value)| !is_plain(name, value)) {
            None => Ok(()),
            Some((name, value)) => Err(Error::aws(
                AwsKind::InvalidParameterValue,
                format!("{within}{name} is {value}, which is not supported here: leave it out"),
            )),
        }
    }
}

/// A member is not what it has to be.
pub(super) fn unlike(name: &str, value: &Value, expected: &str) -> Error {
    let mut letters = name.chars();
    let first = letters.next().map(|first| first.to_ascii_lowercase());
    let field: String = first.into_iter().chain(letters).collect();
    let shown = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    invalid(&field, &shown, expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(value: Value) -> Sent {
        Sent::read(&Bytes::from(value.to_string())).unwrap()
    }

    #[test]
    fn what_is_left_is_refused_by_its_name_where_it_says_something() {
        let nothing = json!({
            "Layers": [], "VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []}, "KMSKeyArn": "",
            "TracingConfig": {"Mode": "PassThrough"}, "SnapStart": {"ApplyOn": "None"},
        });
        sent(nothing).finish("").unwrap();
        for (name, value) in [
            ("Layers", json!(["arn:aws:lambda:r:1:layer:x:1"])),
            ("VpcConfig", json!({"SubnetIds": ["s"]})),
            ("TracingConfig", json!({"Mode": "Active"})),
            ("Surprise", json!(1)),
        ] {
            let error = sent(json!({name: value})).finish("").unwrap_err();
            assert!(format!("{error:?}").contains(name), "{error:?}");
        }
    }

    #[test]
    fn a_wrong_member_is_named_with_value_and_expectation() {
        let check = |error: Error, expected: &str| {
            assert!(format!("{error:?}").contains(expected), "{error:?}");
        };
        let mut body =
            sent(json!({"Timeout": 901, "Role": 7, "Publish": "yes", "Environment": []}));
        check(
            body.number("Timeout", (1, 900)).unwrap_err(),
            "Value '901' at 'timeout'",
        );
        check(body.text("Role").unwrap_err(), "Value '7' at 'role'");
        check(
            body.flag("Publish").unwrap_err(),
            "Value 'yes' at 'publish'",
        );
        check(body.object("Environment").unwrap_err(), "at 'environment'");
        assert_eq!(body.number("Timeout", (1, 900)).unwrap(), None);
    }
}
