//! Validated names: once one of these exists, its text has the allowed shape.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a valid name; `tag` is the validator's name as Event Gateway clients know it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{expected}, got \"{value}\"")]
pub struct InvalidId {
    /// The text as it was given.
    pub value: String,
    /// `required`, `functionid`, `space` or `min`.
    pub tag: &'static str,
    /// What a valid text looks like.
    pub expected: &'static str,
}

fn is_name(value: &str) -> bool {
    value
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $validate:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// Returns the text of the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(value: &str) -> Result<Self, InvalidId> {
                let validate: fn(&str) -> Result<(), (&'static str, &'static str)> = $validate;
                match validate(value) {
                    Ok(()) => Ok(Self(value.into())),
                    Err((tag, expected)) => Err(InvalidId { value: value.to_owned(), tag, expected }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        crate::schema::text_schema!($name);
    };
}

text_id!(
    /// The namespace every other id lives in: `^[a-zA-Z0-9.\-_]+$`, at least 3 characters.
    Space,
    |value| match value {
        "" => Err(("required", "a space is required")),
        _ if !is_name(value) => Err(("space", "a space has only letters, digits, '.', '-' and '_'")),
        _ if value.len() < 3 => Err(("min", "a space has at least 3 characters")),
        _ => Ok(()),
    }
);

text_id!(
    /// A function's id within its space: `^[a-zA-Z0-9.\-_]+$`, of any length.
    FunctionId,
    |value| match value {
        "" => Err(("required", "a function id is required")),
        _ if !is_name(value) => Err(("functionid", "a function id has only letters, digits, '.', '-' and '_'")),
        _ => Ok(()),
    }
);

text_id!(
    /// A schedule's id within its space: 1 to 128 letters, digits, '.', '-' and '_'.
    ScheduleId,
    |value| match value {
        "" => Err(("required", "a schedule id is required")),
        _ if !is_name(value) || value.len() > 128 => {
            Err(("scheduleid", "a schedule id has at most 128 letters, digits, '.', '-' and '_'"))
        }
        _ => Ok(()),
    }
);

text_id!(
    /// An alias's name within its function: 1 to 128 letters, digits, '-' and '_', and not digits alone, which are a version.
    AliasName,
    |value| match value {
        "" => Err(("required", "an alias's name is required")),
        _ if !is_name(value) || value.contains('.') || value.len() > 128 => {
            Err(("aliasname", "an alias's name has at most 128 letters, digits, '-' and '_'"))
        }
        _ if value.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(("aliasname", "an alias's name has more than digits, which are a version"))
        }
        _ => Ok(()),
    }
);

text_id!(
    /// A secret's name within its space: 1 to 128 letters, digits, '.', '-' and '_', and not one of `.` and `..`, since files are named by it.
    SecretName,
    |value| match value {
        "" => Err(("required", "a secret's name is required")),
        _ if !is_name(value) || value.len() > 128 || matches!(value, "." | "..") => {
            Err(("secretname", "a secret's name has at most 128 letters, digits, '.', '-' and '_'"))
        }
        _ => Ok(()),
    }
);

text_id!(
    /// A node's lasting identity, made once and kept in its data directory.
    NodeId,
    |value| match value {
        "" => Err(("required", "a node id is required")),
        _ if !is_name(value) || value.len() > 64 => {
            Err(("nodeid", "a node id has at most 64 letters, digits, '.', '-' and '_'"))
        }
        _ => Ok(()),
    }
);

text_id!(
    /// One invocation, across every hop: 1 to 64 letters, digits, '.', '-' and '_'.
    InvocationId,
    |value| match value {
        "" => Err(("required", "an invocation id is required")),
        _ if !is_name(value) || value.len() > 64 => {
            Err(("invocationid", "an invocation id has at most 64 letters, digits, '.', '-' and '_'"))
        }
        _ => Ok(()),
    }
);

text_id!(
    /// One instance as its provider names it: a container id, or a process group.
    InstanceId,
    |value| match value {
        "" => Err(("required", "an instance id is required")),
        _ if !is_name(value) || value.len() > 128 => {
            Err(("instanceid", "an instance id has at most 128 letters, digits, '.', '-' and '_'"))
        }
        _ => Ok(()),
    }
);

impl Space {
    /// The space of requests that name none.
    pub fn default_space() -> Self {
        Self("default".into())
    }
}

impl FunctionId {
    /// Makes a new random function id.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }
}

impl NodeId {
    /// Makes a new random node id.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }
}

impl InvocationId {
    /// Makes a new random invocation id.
    pub fn random() -> Self {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        Self((&*uuid::Uuid::new_v4().as_hyphenated().encode_lower(&mut text)).into())
    }
}

/// The incarnation of a node: grows at each start, so that peers can tell an old process from a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hash of everything that shapes an instance: two instances with equal keys are interchangeable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey([u8; 16]);

crate::schema::text_schema!(InstanceKey);

impl InstanceKey {
    /// Hashes the parts, each with its length, with SHA-256 and keeps the first 16 bytes.
    pub fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        use sha2::{Digest, Sha256};
        let mut hasher = Sha256::new();
        for part in parts {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        let digest = hasher.finalize();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }

    /// Returns the bytes of the key.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InstanceKey {
    type Err = InvalidId;

    fn from_str(value: &str) -> Result<Self, InvalidId> {
        let mut key = [0; 16];
        match hex::decode_to_slice(value, &mut key) {
            Ok(()) => Ok(Self(key)),
            Err(_) => Err(InvalidId {
                value: value.to_owned(),
                tag: "instancekey",
                expected: "an instance key is 32 hexadecimal digits",
            }),
        }
    }
}

impl Serialize for InstanceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InstanceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_space(value: &str, expected: Result<(), &str>) {
        assert_eq!(
            value.parse::<Space>().map(|_| ()).map_err(|e| e.tag),
            expected,
            "{value:?}"
        );
    }

    #[test]
    fn spaces_follow_the_name_rules() {
        check_space("default", Ok(()));
        check_space("a.b-c_D9", Ok(()));
        check_space("", Err("required"));
        check_space("ab", Err("min"));
        check_space("a b", Err("space"));
        check_space("ümlaut", Err("space"));
    }

    #[test]
    fn function_ids_have_no_length_limit() {
        assert!("f".parse::<FunctionId>().is_ok());
        assert!("x".repeat(10_000).parse::<FunctionId>().is_ok());
        assert_eq!("a/b".parse::<FunctionId>().unwrap_err().tag, "functionid");
    }

    #[test]
    fn instance_keys_tell_parts_apart() {
        let one = InstanceKey::hash([b"ab".as_slice(), b"c"]);
        let other = InstanceKey::hash([b"a".as_slice(), b"bc"]);
        assert_ne!(one, other);
        assert_eq!(one.to_string().parse::<InstanceKey>().unwrap(), one);
    }
}
