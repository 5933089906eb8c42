//! Versions of functions, and aliases: names for versions that calls are shared out by.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::function::Function;
use crate::id::{AliasName, FunctionId, InvalidId, Space};

mod parse;
#[cfg(test)]
mod tests;

pub use parse::{Invalid, check_description, description};

/// How the record of a function that can still be changed is called, in place of a version; AWS Lambda's name for it.
pub const LATEST: &str = "$LATEST";

/// Versions that an alias may share its calls out to, besides its own.
pub const WEIGHTS_MAX: usize = 8;

const VERSION_EXPECTED: &str = "a version is a whole number from 1 to 4294967295";

/// The number of a version of a function: 1 for the first, and no number twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(NonZeroU32);

/// Which version of a function is meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Qualifier {
    /// The record that can still be changed.
    Latest,
    /// This version.
    Version(Version),
    /// The version that this alias stands for, or one of those that it shares its calls out to.
    Alias(AliasName),
}

/// A version of a function: what its record was when it was published. It never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PublishedVersion {
    /// Its number.
    pub version: Version,
    /// What whoever published it says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The record, with the number in it.
    pub function: Function,
    /// When it was published, in milliseconds since 1970.
    pub published_at_ms: u64,
    /// What it runs, as [`Function::code_digest`] has it.
    pub digest: String,
}

/// A name for a version of a function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alias {
    /// The function's space.
    pub space: Space,
    /// The function.
    pub function_id: FunctionId,
    /// The name.
    pub name: AliasName,
    /// What its owner says of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where its calls go.
    #[serde(flatten)]
    pub target: Target,
    /// Where they all went before: what a roll back returns to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Target>,
}

/// Where the calls of an alias go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AliasTarget)]
pub struct Target {
    /// The version that gets all calls that nothing else here gets.
    pub version: Version,
    /// Other versions, each with its share of the calls, from 0 to 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, f64>)]
    pub weights: BTreeMap<Version, f64>,
    /// Calls that go to a version for what they say of themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
}

/// Calls with a header that go to a version of their own, whatever the weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AliasCanary)]
pub struct Canary {
    /// The name of the header, in lower case.
    pub header: String,
    /// The value that it must have; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The version that gets them.
    pub version: Version,
}

impl Version {
    /// The version of this number; none for 0.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = InvalidId;

    fn from_str(value: &str) -> Result<Self, InvalidId> {
        let is_plain = value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0');
        match value.parse() {
            Ok(number) if is_plain => Ok(Self(number)),
            _ => Err(InvalidId {
                value: value.to_owned(),
                tag: "version",
                expected: VERSION_EXPECTED,
            }),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.number())
    }
}

/// From a number, or from a text, as keys of JSON objects are.
impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Version;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(VERSION_EXPECTED)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Version, E> {
                let version = u32::try_from(number).ok().and_then(Version::new);
                version.ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Version, E> {
                let version = text.parse();
                version.map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Number)
    }
}

impl utoipa::PartialSchema for Version {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(1))
            .maximum(Some(u32::MAX))
            .into()
    }
}

impl ToSchema for Version {}

impl FromStr for Qualifier {
    type Err = InvalidId;

    fn from_str(value: &str) -> Result<Self, InvalidId> {
        match value {
            LATEST => Ok(Self::Latest),
            _ if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                value.parse().map(Self::Version)
            }
            _ => value.parse().map(Self::Alias).map_err(|_| InvalidId {
                value: value.to_owned(),
                tag: "qualifier",
                expected: "a qualifier is $LATEST, the number of a version or the name of an alias",
            }),
        }
    }
}

impl fmt::Display for Qualifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str(LATEST),
            Self::Version(version) => version.fmt(f),
            Self::Alias(name) => name.fmt(f),
        }
    }
}

impl Serialize for Qualifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Qualifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

crate::schema::text_schema!(Qualifier);

impl Qualifier {
    /// Takes apart what a client names: a function, or `function:qualifier`.
    ///
    /// # Errors
    /// When one of the two is none.
    pub fn split(text: &str) -> Result<(FunctionId, Option<Self>), InvalidId> {
        match text.split_once(':') {
            None => Ok((text.parse()?, None)),
            Some((function_id, qualifier)) => Ok((function_id.parse()?, Some(qualifier.parse()?))),
        }
    }
}

impl Target {
    /// All calls to one version.
    pub fn all_to(version: Version) -> Self {
        Self {
            version,
            weights: BTreeMap::new(),
            canary: None,
        }
    }

    /// Whether some calls go to other versions than its own.
    pub fn is_split(&self) -> bool {
        !self.weights.is_empty() || self.canary.is_some()
    }

    /// The versions that it names, each once.
    pub fn versions(&self) -> impl Iterator<Item = Version> {
        let canary = self.canary.as_ref().map(|canary| canary.version);
        let mut versions: Vec<Version> = self.weights.keys().copied().collect();
        versions.extend(std::iter::once(self.version).chain(canary));
        versions.sort_unstable();
        versions.dedup();
        versions.into_iter()
    }

    /// The version that a call goes to. `header` looks one of its headers up, by its name in lower case; `dice` is a random number from 0 to
    /// below 1.
    pub fn choose<'a>(&self, header: impl FnOnce(&str) -> Option<&'a [u8]>, dice: f64) -> Version {
        if let Some(canary) = &self.canary
            && let Some(found) = header(&canary.header)
            && canary
                .value
                .as_ref()
                .is_none_or(|value| value.as_bytes() == found)
        {
            return canary.version;
        }
        let mut below = 0.0;
        for (version, share) in &self.weights {
            below += share;
            if dice < below {
                return *version;
            }
        }
        self.version
    }
}

impl Alias {
    /// Has its calls go elsewhere. What all of them went to last is what a roll back returns to: of a target that only some went to, its own
    /// version stays aside.
    pub fn set_target(&mut self, target: Target) {
        if target == self.target {
            return;
        }
        let before = std::mem::replace(&mut self.target, target);
        self.previous = match (before.is_split(), self.previous.take()) {
            (true, Some(previous)) => Some(previous),
            (true, None) => Some(Target::all_to(before.version)),
            (false, _) => Some(before),
        };
    }

    /// Returns to the version that all calls went to before; a second time undoes the first. False when nothing was before.
    #[must_use]
    pub fn roll_back(&mut self) -> bool {
        let before = match (self.previous.take(), self.target.is_split()) {
            (Some(previous), _) => previous,
            (None, true) => Target::all_to(self.target.version),
            (None, false) => return false,
        };
        self.previous = Some(std::mem::replace(&mut self.target, before));
        true
    }
}

impl Function {
    /// What names the code of a function, `sha256:` and 64 hexadecimal digits: the digest of a container's image, and of other types the hash of
    /// what the record's `provider` says.
    pub fn code_digest(&self) -> String {
        use sha2::{Digest, Sha256};
        if let Some(digest) = self.image_digest() {
            return digest.to_owned();
        }
        let provider = serde_json::to_vec(&self.provider).expect("a record has string keys only");
        format!("sha256:{}", hex::encode(Sha256::digest(provider)))
    }
}
