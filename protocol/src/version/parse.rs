//! Reads what clients send to publish a version and to set an alias.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Number, Value};

use super::{Alias, Canary, Target, VERSION_EXPECTED, Version, WEIGHTS_MAX};
use crate::id::{AliasName, FunctionId, Space};
use crate::invocation::is_hop_by_hop;

/// The longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 1024;

/// The longest name and the longest value of a canary's header, in bytes.
const HEADER_BYTES_MAX: usize = 256;

/// Why what was sent is refused: which field has which value, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    fn new(field: &str, value: impl std::fmt::Display, expected: &str) -> Self {
        Self(format!("{field} is {value}, expected {expected}"))
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct SentVersion {
    #[serde(default)]
    description: Option<String>,
}

/// An alias as it is sent; what answers have besides is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SentAlias {
    #[serde(rename = "space")]
    _space: Option<Value>,
    #[serde(rename = "functionId")]
    _function_id: Option<Value>,
    #[serde(rename = "name")]
    _name: Option<Value>,
    #[serde(rename = "previous")]
    _previous: Option<Value>,
    description: Option<String>,
    version: Option<Value>,
    weights: Option<BTreeMap<String, Number>>,
    canary: Option<SentCanary>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentCanary {
    header: String,
    #[serde(default)]
    value: Option<String>,
    version: Value,
}

/// Reads what a client says of a version that it publishes: its description. An empty body says nothing, and neither does `null`.
///
/// # Errors
/// [`Invalid`].
pub fn description(body: &[u8]) -> Result<Option<String>, Invalid> {
    let sent: SentVersion = match body.trim_ascii() {
        b"" | b"null" => SentVersion::default(),
        body => serde_json::from_slice(body).map_err(|error| Invalid(error.to_string()))?,
    };
    check_description(sent.description.as_deref())?;
    Ok(sent.description.filter(|text| !text.is_empty()))
}

impl Alias {
    /// Reads and checks an alias; whose it is and its name are in the path. It has no `previous`.
    ///
    /// # Errors
    /// [`Invalid`], with the first field that is wrong.
    pub fn parse(
        space: Space,
        function_id: FunctionId,
        name: AliasName,
        body: &[u8],
    ) -> Result<Self, Invalid> {
        let sent: SentAlias =
            serde_json::from_slice(body).map_err(|error| Invalid(error.to_string()))?;
        check_description(sent.description.as_deref())?;
        let Some(version) = sent.version else {
            let why = format!("version is missing: {VERSION_EXPECTED}");
            return Err(Invalid(why));
        };
        let mut weights = BTreeMap::new();
        for (number, share) in sent.weights.unwrap_or_default() {
            let parsed = number.parse().map_err(|_| {
                let why = format!("weights has the key \"{number}\": {VERSION_EXPECTED}");
                Invalid(why)
            })?;
            weights.insert(parsed, share.as_f64().unwrap_or(f64::NAN));
        }
        let canary = sent.canary.map(|canary| {
            Ok(Canary {
                header: canary.header.to_ascii_lowercase(),
                value: canary.value,
                version: read_version("canary.version", &canary.version)?,
            })
        });
        let target = Target {
            version: read_version("version", &version)?,
            weights,
            canary: canary.transpose()?,
        };
        target.check()?;
        Ok(Self {
            space,
            function_id,
            name,
            description: sent.description.filter(|text| !text.is_empty()),
            target,
            previous: None,
        })
    }
}

impl Target {
    /// Checks shares and the canary's header.
    ///
    /// # Errors
    /// [`Invalid`], with the first field that is wrong.
    pub fn check(&self) -> Result<(), Invalid> {
        if self.weights.len() > WEIGHTS_MAX {
            let count = self.weights.len();
            let expected = format!("at most {WEIGHTS_MAX}");
            return Err(Invalid::new(
                "weights",
                format!("of {count} versions"),
                &expected,
            ));
        }
        let mut sum = 0.0;
        for (version, share) in &self.weights {
            if *version == self.version {
                let why = format!(
                    "weights has version {version}, which is the alias's own: it gets what the others leave"
                );
                return Err(Invalid(why));
            }
            if !(0.0..=1.0).contains(share) {
                let field = format!("weights.{version}");
                return Err(Invalid::new(&field, share, "a share from 0 to 1"));
            }
            sum += share;
        }
        // Shares such as 0.7, 0.2 and 0.1 add up to a little more than 1.
        if sum > 1.0 + 1e-9 {
            return Err(Invalid::new(
                "the sum of weights",
                sum,
                "at most 1: the alias's own version gets the rest",
            ));
        }
        self.canary.as_ref().map_or(Ok(()), Canary::check)
    }
}

impl Canary {
    fn check(&self) -> Result<(), Invalid> {
        let is_token = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
        };
        let name = &self.header;
        if name.is_empty()
            || name.len() > HEADER_BYTES_MAX
            || !name.bytes().all(is_token)
            || is_hop_by_hop(name)
        {
            return Err(Invalid::new(
                "canary.header",
                format!("{name:?}"),
                "the name of a header of requests",
            ));
        }
        if let Some(value) = &self.value
            && (value.len() > HEADER_BYTES_MAX
                || value.trim_ascii() != value
                || !value.bytes().all(|byte| matches!(byte, b' '..=b'~')))
        {
            return Err(Invalid::new(
                "canary.value",
                format!("{value:?}"),
                "at most 256 ASCII characters, none of them white space at an end",
            ));
        }
        Ok(())
    }
}

/// Checks what is said of a version or an alias.
///
/// # Errors
/// [`Invalid`], when it is too long.
pub fn check_description(text: Option<&str>) -> Result<(), Invalid> {
    match text.map(str::len) {
        Some(bytes) if bytes > DESCRIPTION_BYTES_MAX => Err(Invalid::new(
            "description",
            format!("{bytes} bytes long"),
            "at most 1024 bytes",
        )),
        _ => Ok(()),
    }
}

fn read_version(field: &str, value: &Value) -> Result<Version, Invalid> {
    let read = Version::deserialize(value);
    read.map_err(|_| Invalid(format!("{field} is {value}: {VERSION_EXPECTED}")))
}
