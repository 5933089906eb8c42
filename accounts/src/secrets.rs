//! What users hold: refresh tokens and API keys. Each names its record and has 256 random bits, of which the store has the hash. An
//! access key names its record as well; its secret follows from the cluster's data key, so that the store has nothing of it.

use std::fmt;

use config::settings::Secret;

use crate::jwt;
use crate::records::user::UserId;
use crate::records::{Millis, hash};

const REFRESH: &str = "hr_";
const KEY: &str = "hk_";

/// What the id of an access key begins with: AWS's clients take 16 to 128 capitals and digits.
const ACCESS_KEY: &str = "HKIA";

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

/// An access key's id that was read.
#[derive(Debug)]
pub(crate) struct AccessKeyId {
    pub(crate) user: UserId,
    pub(crate) id: String,
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

impl AccessKeyId {
    pub(crate) fn read(text: &str) -> Option<Self> {
        let ids = text.strip_prefix(ACCESS_KEY)?;
        if ids.len() != 64 || ids.bytes().any(|byte| byte.is_ascii_lowercase()) {
            return None;
        }
        let ids = ids.to_ascii_lowercase();
        let (user, id) = ids.split_at_checked(32)?;
        Some(Self {
            user: user.parse().ok()?,
            id: id.to_owned(),
            made_at_ms: made_at_ms(id)?,
        })
    }

    /// The text of the id of a key.
    pub(crate) fn text(user: &UserId, id: &str) -> String {
        format!("{ACCESS_KEY}{user}{id}").to_ascii_uppercase()
    }
}

impl<'a> ApiKey<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (user, id) = parts(text, KEY)?;
        Some(Self {
            user,
            id,
            hash: hash(text),
            made_at_ms: made_at_ms(id)?,
        })
    }
}

/// When an id was made.
fn made_at_ms(id: &str) -> Option<Millis> {
    let uuid = uuid::Uuid::try_parse(id).ok()?;
    let (seconds, nanos) = uuid.get_timestamp()?.to_unix();
    let millis = u64::from(nanos / 1_000_000);
    Some(seconds.saturating_mul(1000).saturating_add(millis))
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
    fn an_access_key_names_its_record_in_capitals_and_digits() {
        let (user, id) = (UserId::random(), new_id());
        let text = AccessKeyId::text(&user, &id);
        let is_taken = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        assert!((16..=128).contains(&text.len()) && text.bytes().all(is_taken));
        let read = AccessKeyId::read(&text).unwrap();
        assert_eq!((read.user, read.id), (user, id));
        let now = crate::clock::now_ms();
        assert!(now.abs_diff(read.made_at_ms) < 10_000);
        for wrong in [
            "",
            "HKIA",
            "AKIAIOSFODNN7EXAMPLE",
            &text.to_lowercase(),
            &text[..67],
        ] {
            assert!(AccessKeyId::read(wrong).is_none(), "{wrong}");
        }
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
