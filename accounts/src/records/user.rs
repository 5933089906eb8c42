//! `users/<id>`, and `emails/<hash of the email>`, which keeps two users from having the same one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use protocol::{Space, UserLimits};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Millis, hash};
use crate::Error;

/// The prefix of users.
pub const PREFIX: &str = "users/";

/// The prefix of the guards of emails.
pub const EMAILS_PREFIX: &str = "emails/";

/// How long an email may be, by RFC 5321.
const EMAIL_BYTES_MAX: usize = 254;

/// A user's id: 32 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(Arc<str>);

impl utoipa::PartialSchema for UserId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        String::schema()
    }
}

impl utoipa::ToSchema for UserId {}

/// A text that is no user id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a user id is 32 lower-case hexadecimal digits, got {0:?}")]
pub struct InvalidUserId(pub String);

impl UserId {
    /// Makes a new one.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The space that is the user's alone.
    pub fn own_space(&self) -> Space {
        let space = format!("u-{}", self.0).parse();
        space.expect("hexadecimal digits after u- are a space's name")
    }

    /// The key of the user's record.
    pub(crate) fn record_key(&self) -> String {
        format!("{PREFIX}{}", self.0)
    }
}

impl FromStr for UserId {
    type Err = InvalidUserId;

    fn from_str(text: &str) -> Result<Self, InvalidUserId> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match text.len() == 32 && text.bytes().all(is_hex) {
            true => Ok(Self(text.into())),
            false => Err(InvalidUserId(text.to_owned())),
        }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for UserId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What a user may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    Admin,
    /// What its spaces allow.
    #[default]
    Member,
}

/// Whether a user is there to stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum UserState {
    /// It is.
    #[default]
    Active,
    /// It is not: its credentials are gone, what it had is being removed.
    Deleting,
}

/// A user as others may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its email, as it was given.
    pub email: String,
    /// What it may.
    pub role: Role,
    /// The spaces it is a member of, besides its own.
    pub spaces: BTreeSet<Space>,
    /// Whether it is there to stay.
    pub state: UserState,
    /// When it was made.
    pub created_at_ms: Millis,
    /// What it may ask for, where that was set.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: UserLimits,
}

fn is_default(limits: &UserLimits) -> bool {
    *limits == UserLimits::default()
}

/// A user as the store has it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) email: String,
    /// The PHC string of its argon2id hash.
    pub(crate) password: String,
    #[serde(default)]
    pub(crate) role: Role,
    #[serde(default)]
    pub(crate) spaces: BTreeSet<Space>,
    #[serde(default)]
    pub(crate) state: UserState,
    pub(crate) created_at_ms: Millis,
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) limits: UserLimits,
    /// What later versions add.
    #[serde(flatten)]
    pub(crate) rest: serde_json::Map<String, serde_json::Value>,
}

impl Record {
    /// What others may see of it.
    pub(crate) fn public(&self, id: &UserId) -> User {
        User {
            id: id.clone(),
            email: self.email.clone(),
            role: self.role,
            spaces: self.spaces.clone(),
            state: self.state,
            created_at_ms: self.created_at_ms,
            limits: self.limits,
        }
    }
}

/// The id in the key of a user's record.
pub(crate) fn id_of(key: &str) -> Option<UserId> {
    key.strip_prefix(PREFIX)?.parse().ok()
}

/// An email that can be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Email(String);

impl Email {
    /// Reads one: something, an @, and a host with a dot or a host's name. Whether it receives mail, nobody asks.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let is_plain = |part: &str| {
            !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c.is_control())
        };
        let is_host = |host: &str| {
            let is_label = |label: &str| {
                !label.is_empty()
                    && label.len() <= 63
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            };
            host.contains('.') && host.split('.').all(is_label)
        };
        let is_right = text.len() <= EMAIL_BYTES_MAX
            && text.rsplit_once('@').is_some_and(|(local, host)| {
                local.len() <= 64 && is_plain(local) && !local.contains('@') && is_host(host)
            });
        match is_right {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::Field {
                field: "email",
                value: format!("{:?}", text.chars().take(100).collect::<String>()),
                expected: "an email such as ada@example.com, of at most 254 bytes",
            }),
        }
    }

    /// As it was given.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash of the email in lower case: two that differ in case only are one.
    pub(crate) fn hash(&self) -> String {
        hash(self.0.to_lowercase())
    }

    /// The key of the record that keeps a second user from having it.
    pub(crate) fn guard_key(&self) -> String {
        format!("{EMAILS_PREFIX}{}", self.hash())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: bool) {
        assert_eq!(Email::parse(text).is_ok(), expected, "{text:?}");
    }

    #[test]
    fn emails() {
        check("a@b.c", true);
        check("ada.lovelace+x@mail.example.com", true);
        check("ümlaut@example.com", true);
        for wrong in [
            "", "a", "@b.c", "a@", "a@b", "a@@b.c", "a@b@c.d", "a b@c.d", "a@b c.d",
        ] {
            check(wrong, false);
        }
        for wrong in ["a@.c", "a@b.", "a@b..c", "a@-b.c", "a\n@b.c", "a@b.c\0"] {
            check(wrong, false);
        }
        check(&format!("{}@b.c", "a".repeat(65)), false);
        check(&format!("a@{}.c", "b.".repeat(130)), false);
    }

    #[test]
    fn emails_that_differ_in_case_are_one() {
        let key = |text| Email::parse(text).unwrap().guard_key();
        assert_eq!(key("Ada@Example.com"), key("ada@example.COM"));
        assert_ne!(key("ada@example.com"), key("adb@example.com"));
    }

    #[test]
    fn ids_have_one_text_each() {
        let id = UserId::random();
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        assert_eq!(id_of(&id.record_key()), Some(id.clone()));
        assert_eq!(id.own_space().as_str(), format!("u-{id}"));
        for wrong in [
            "",
            "x",
            "../../emails",
            &"A".repeat(32),
            &"g".repeat(32),
            &"0".repeat(33),
        ] {
            assert!(wrong.parse::<UserId>().is_err(), "{wrong:?}");
        }
    }
}
