//! A function as users of `/api/v1/functions` send it: `{"image"}`, and what else they want of it.

use std::collections::BTreeMap;

use protocol::function::{
    Contract, DeliverySpec, EventFormat, LimitsSpec, SandboxSpec, ScalingSpec,
};
use protocol::{Function, FunctionId, SecretUse, Space};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::error::Error;

/// A function as a user sends it: `image` is all that it needs.
#[derive(ToSchema)]
#[schema(as = OwnFunction, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "it is described; what is sent is read field by field"
)]
pub(super) struct Wanted {
    /// The image reference.
    #[schema(example = "hello-world")]
    image: String,
    /// Its id; a random one where it is not said.
    name: Option<String>,
    /// How the code meets a call; `stdio`, run to completion, where it is not said.
    contract: Option<Contract>,
    /// The port that an `http` instance listens on.
    port: Option<u16>,
    /// Replaces the image's entry point.
    entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    command: Option<Vec<String>>,
    /// The directory that it is started in.
    working_directory: Option<String>,
    /// Environment variables.
    env: Option<BTreeMap<String, String>>,
    /// Secrets of the user's space that its instances get.
    secrets: Option<Vec<SecretUse>>,
    /// Limits.
    limits: Option<LimitsSpec>,
    /// How many instances there are.
    scaling: Option<ScalingSpec>,
    /// What its instances may do.
    sandbox: Option<SandboxSpec>,
    /// How queued events and invocations are delivered.
    delivery: Option<DeliverySpec>,
    /// The form in which it gets events.
    event_format: Option<EventFormat>,
    /// What its owner notes.
    metadata: Option<BTreeMap<String, String>>,
}

/// Fields that are the provider's in the record.
const OF_PROVIDER: [&str; 8] = [
    "image",
    "contract",
    "port",
    "entrypoint",
    "command",
    "workingDirectory",
    "env",
    "secrets",
];

/// Fields that the record has as well.
const OF_RECORD: [&str; 6] = [
    "limits",
    "scaling",
    "sandbox",
    "delivery",
    "eventFormat",
    "metadata",
];

/// Names that are paths of the API.
const RESERVED: [&str; 2] = ["me", "execute"];

/// Reads and checks a function. Without a name it gets a random one, and without a contract `stdio`.
///
/// # Errors
/// Naming field, value and what was expected.
pub(super) fn parse(space: &Space, body: &[u8]) -> Result<Function, Error> {
    let mut sent: Map<String, Value> = serde_json::from_slice(body).map_err(|error| {
        Error::invalid(format!(
            r#"the body is no JSON object such as {{"image": "hello-world"}}: {error}"#
        ))
    })?;
    sent.retain(|_, value| !value.is_null());
    let name = match sent.remove("name") {
        None => FunctionId::random(),
        Some(Value::String(name)) => read_name(&name)?,
        Some(other) => {
            return Err(Error::invalid(format!(
                "name is {other}, expected a string"
            )));
        }
    };
    if !sent.contains_key("image") {
        return Err(Error::invalid(
            r#"image is missing, expected an image reference such as "hello-world""#,
        ));
    }
    let mut take = |names: &[&str]| -> Map<String, Value> {
        let taken = names.iter().filter_map(|name| sent.remove_entry(*name));
        taken.collect()
    };
    let mut provider = take(&OF_PROVIDER);
    let mut record = take(&OF_RECORD);
    if let Some(unknown) = sent.keys().next() {
        let known: Vec<_> = OF_PROVIDER.into_iter().chain(OF_RECORD).collect();
        let known = known.join(", ");
        return Err(Error::invalid(format!(
            "unknown field \"{unknown}\", expected name, {known}"
        )));
    }
    provider.entry("contract").or_insert_with(|| "stdio".into());
    record.insert("functionId".to_owned(), name.as_str().into());
    record.insert("type".to_owned(), "container".into());
    record.insert("provider".to_owned(), provider.into());
    let record = json!(record).to_string();
    let parsed = Function::parse(space.as_str(), None, record.as_bytes());
    // Here these fields stand beside the others.
    parsed.map_err(|why| Error::invalid(why.to_string().replace("provider.", "")))
}

fn read_name(name: &str) -> Result<FunctionId, Error> {
    if RESERVED.contains(&name) {
        let why = format!("name is \"{name}\", which is a path of this API, expected another name");
        return Err(Error::invalid(why));
    }
    let read = name.parse::<FunctionId>();
    read.map_err(|error| Error::invalid(format!("name: {error}")))
}

#[cfg(test)]
mod tests {
    use protocol::function::Provider;

    use super::*;

    fn read(body: &str) -> Result<Function, Error> {
        parse(&"u-1".parse().unwrap(), body.as_bytes())
    }

    #[test]
    fn an_image_is_all_that_a_function_needs() {
        let function = read(r#"{"image":"hello-world"}"#).unwrap();
        assert_eq!(function.space.as_str(), "u-1");
        let Provider::Container(container) = &function.provider else {
            panic!("{function:?}");
        };
        assert_eq!(container.image, "hello-world");
        assert_eq!(container.contract, Some(Contract::Stdio));
        let other = read(r#"{"image":"hello-world"}"#).unwrap();
        assert_ne!(function.function_id, other.function_id);
    }

    #[test]
    fn what_else_is_wanted_is_taken_over() {
        let body = r#"{"image":"i","name":"f","contract":"http","port":80,"command":["a"],"env":{"A":"1"},
            "secrets":[{"name":"db","env":"DB"}],"limits":{"timeoutMs":5},"scaling":{"max":2},"metadata":{"by":"me"}}"#;
        let function = read(body).unwrap();
        assert_eq!(function.function_id.as_str(), "f");
        assert_eq!(function.limits().timeout.as_millis(), 5);
        assert_eq!(function.scaling().max, 2);
        assert_eq!(function.secrets()[0].name.as_str(), "db");
        let Provider::Container(container) = function.provider else {
            panic!("no container");
        };
        assert_eq!(container.contract, Some(Contract::Http));
        assert_eq!(
            (container.port, container.command),
            (Some(80), vec!["a".to_owned()])
        );
        assert_eq!(container.env["A"], "1");
        let unset = read(r#"{"image":"i","name":null,"contract":null,"limits":null}"#).unwrap();
        assert_eq!(unset.contract(), Some(Contract::Stdio));
    }

    #[test]
    fn a_refusal_names_field_value_and_expectation() {
        for (body, expected) in [
            ("", "the body is no JSON object"),
            ("[]", "the body is no JSON object"),
            ("{}", "image is missing"),
            (
                r#"{"image":""}"#,
                "image is \\\"\\\", expected an image reference",
            ),
            (r#"{"image":7}"#, "image: invalid type: integer `7`"),
            (r#"{"image":"a b"}"#, "image is \\\"a b\\\""),
            (
                r#"{"image":"i","name":"a/b"}"#,
                "name: a function id has only",
            ),
            (
                r#"{"image":"i","name":""}"#,
                "name: a function id is required",
            ),
            (r#"{"image":"i","name":5}"#, "name is 5, expected a string"),
            (
                r#"{"image":"i","name":"me"}"#,
                "name is \\\"me\\\", which is a path",
            ),
            (
                r#"{"image":"i","contract":"x"}"#,
                "contract: unknown variant `x`",
            ),
            (
                r#"{"image":"i","port":0}"#,
                "port is 0, expected 1 to 65535",
            ),
            (
                r#"{"image":"i","limits":[]}"#,
                "limits is [], expected an object",
            ),
            (
                r#"{"image":"i","limits":{"timeoutMs":0}}"#,
                "limits.timeoutMs is 0",
            ),
            (
                r#"{"image":"i","limits":{"x":0}}"#,
                "unknown field \\\"limits.x\\\"",
            ),
            (
                r#"{"image":"i","type":"process"}"#,
                "unknown field \\\"type\\\", expected name, image",
            ),
            (
                r#"{"image":"i","secrets":[{"name":"db","env":"PORT"}]}"#,
                "secrets[0].env is \\\"PORT\\\", expected another name",
            ),
            (
                r#"{"image":"i","env":{"HEARTH_URL":"x"}}"#,
                "which the node itself sets",
            ),
        ] {
            let refused = format!("{:?}", read(body).unwrap_err());
            assert!(refused.contains(expected), "{body}: {refused}");
            assert!(refused.contains("400"), "{body}: {refused}");
        }
    }
}
