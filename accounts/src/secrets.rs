//! What users hold: refresh tokens and API keys. Each names its record and has 256 random bits, of which the store has the hash.

use std::fmt;

use config::settings::Secret;

use crate::jwt;
use crate::records::user::UserId;
use crate::records::{Millis, hash};

const REFRESH: &str = "hr_";
const KEY: &str = "hk_";

/// What one may be at most: the prefix, two ids, and 43 characters of randomness.
const BYTES_MAX: usize = 160;

/// A new secret of a record.
pub(crate) struct New {
    /// Shown once.
    pub(crate) secret: Secret,
    /// Kept.
    pub(crate) hash: String,
}

/// A refresh token that was read.
#[derive(Debug)]
pub(crate) struct RefreshToken {
    pub(crate) user: UserId,
    pub(crate) session: String,
    pub(crate) hash: String,
}

/// An API key that was read.
pub(crate) struct ApiKey<'a> {
    pub(crate) user: UserId,
    pub(crate) id: &'a str,
    pub(crate) hash: String,
    /// What its id says, which is no proof of anything.
    pub(crate) made_at_ms: Millis,
}

/// A new refresh token of a session.
pub(crate) fn new_refresh_token(user: &UserId, session: &str) -> New {
    new(REFRESH, user, session)
}

/// A new API key with an id.
pub(crate) fn new_api_key(user: &UserId, id: &str) -> New {
    new(KEY, user, id)
}

/// A new id that says when it was made.
pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// Whether a text can be such an id.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Random text of 256 bits.
pub(crate) fn random_text() -> String {
    jwt::encode(&rand::random::<[u8; 32]>())
}

fn new(prefix: &str, user: &UserId, id: &str) -> New {
    let text = format!("{prefix}{user}_{id}_{}", random_text());
    New {
        hash: hash(&text),
        secret: Secret::new(text),
    }
}

fn parts<'a>(text: &'a str, prefix: &str) -> Option<(UserId, &'a str)> {
    if text.len() > BYTES_MAX {
        return None;
    }
    let mut parts = text.strip_prefix(prefix)?.splitn(3, '_');
    let (user, id, random) = (parts.next()?, parts.next()?, parts.next()?);
    (is_id(id) && !random.is_empty()).then_some((user.parse().ok()?, id))
}

impl RefreshToken {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (user, session) = parts(text, REFRESH)?;
        Some(Self {
            user,
            session: session.to_owned(),
            hash: hash(text),
        })
    }
}

impl<'a> ApiKey<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (user, id) = parts(text, KEY)?;
        let uuid = uuid::Uuid::try_parse(id).ok()?;
        let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
        Some(Self {
            user,
            id,
            hash: hash(text),
            made_at_ms: seconds
                .saturating_mul(1000)
                .saturating_add(u64::from(nanos / 1_000_000)),
        })
    }
}

impl fmt::Debug for ApiKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey")
            .field("user", &self.user)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_read_again() {
        let user = UserId::random();
        let (session, id) = (new_id(), new_id());
        let refresh = new_refresh_token(&user, &session);
        let read = RefreshToken::read(refresh.secret.expose()).unwrap();
        assert_eq!(
            (read.user, read.session, read.hash),
            (user.clone(), session, refresh.hash)
        );
        let key = new_api_key(&user, &id);
        let read = ApiKey::read(key.secret.expose().as_bytes()).unwrap();
        assert_eq!(
            (read.user, read.id, read.hash),
            (user, id.as_str(), key.hash)
        );
        let now = crate::clock::now_ms();
        assert!(
            now.abs_diff(read.made_at_ms) < 10_000,
            "{}",
            read.made_at_ms
        );
    }

    #[test]
    fn nothing_else_is() {
        let key = new_api_key(&UserId::random(), &new_id());
        let text = key.secret.expose();
        let without_user = text.replacen("hk_", "hk_x", 1);
        for wrong in [
            "",
            "hk_",
            "hk___",
            "hr_a_b_c",
            &text[..68],
            &without_user,
            &"hk_".repeat(100),
        ] {
            assert!(ApiKey::read(wrong.as_bytes()).is_none(), "{wrong}");
        }
        assert!(RefreshToken::read(text).is_none());
    }
}
