//! Checks credentials: from the cache, from what the node knows, and at last from the store.

use std::sync::Arc;
use std::time::Duration;

use config::settings::Secret;
use subtle::ConstantTimeEq;

use crate::cache::Checked;
use crate::caller::{Account, Credential};
use crate::clock::{millis, now_ms};
use crate::known::{Known, Member};
use crate::records::user::{UserId, UserState};
use crate::records::{self, Millis, key, session, signing as signing_records};
use crate::secrets::{AccessKeyId, ApiKey};
use crate::{Accounts, Caller, Denied, Verdict, jwt, signing};

/// How young a credential is that another node may have made a moment ago. Nodes' clocks may differ by some of it.
const YOUNG: Duration = Duration::from_secs(30);

/// What was read of a credential.
#[derive(Debug)]
enum Read<'a> {
    Token(jwt::Unchecked<'a>),
    Key(ApiKey<'a>),
}

/// Why a credential is not good by what is known.
enum Fault {
    /// It could still be, if it was made a moment ago.
    Missing,
    Bad(Denied),
}

impl Accounts {
    /// Looks at a credential: a token or an API key. Asked for every request, so it is cheap.
    pub fn verify(&self, credential: &[u8]) -> Verdict {
        let now = now_ms();
        let digest = records::digest(credential);
        if let Some(caller) = self.inner.cache.find(&digest, now) {
            return Verdict::Known(caller);
        }
        let Some(read) = Read::from(credential) else {
            return Verdict::Denied(Denied::Invalid.counted());
        };
        match read.check(&self.known(), &self.inner.cluster_id, now) {
            Ok(checked) => {
                let caller = checked.caller.clone();
                self.inner.cache.insert(digest, checked, now);
                Verdict::Known(caller)
            }
            Err(Fault::Missing) if !self.is_loaded() || read.is_young(now) => Verdict::Unknown,
            Err(Fault::Missing) => Verdict::Denied(Denied::Ended.counted()),
            Err(Fault::Bad(denied)) => Verdict::Denied(denied.counted()),
        }
    }

    /// Whose an access key is, and the secret that its requests are signed with. Who has no proof that it has that is nobody.
    ///
    /// # Errors
    /// When there is no such key, it is not good, or the store does not answer where it is asked.
    pub async fn access_key(&self, access_key_id: &str) -> Result<(Caller, Secret), Denied> {
        let found = self.look_up(access_key_id).await;
        let (key, caller) = found.map_err(Denied::counted)?;
        match self.secret_access_key(&key.user, &key.id).await {
            Ok(secret) => Ok((caller, secret)),
            Err(error) => {
                tracing::warn!(%error, user = %key.user, "an access key can not be checked");
                Err(Denied::Unavailable.counted())
            }
        }
    }

    async fn look_up(&self, access_key_id: &str) -> Result<(AccessKeyId, Caller), Denied> {
        let key = AccessKeyId::read(access_key_id).ok_or(Denied::Invalid)?;
        let now = now_ms();
        let known = check_access_key(&key, &self.known(), now);
        let is_young = now.abs_diff(key.made_at_ms) < millis(YOUNG);
        match known {
            Ok(caller) => Ok((key, caller)),
            Err(Fault::Bad(denied)) => Err(denied),
            Err(Fault::Missing) if self.is_loaded() && !is_young => Err(Denied::Ended),
            Err(Fault::Missing) => {
                let _permit = self.inner.asks.try_acquire().map_err(|_| Denied::Busy)?;
                let mut found = Known::default();
                let record = key::record_key(&key.user, &key.id);
                self.fetch(&mut found, record).await?;
                self.fetch(&mut found, key.user.record_key()).await?;
                match check_access_key(&key, &found, now_ms()) {
                    Ok(caller) => Ok((key, caller)),
                    Err(Fault::Missing) => Err(Denied::Ended),
                    Err(Fault::Bad(denied)) => Err(denied),
                }
            }
        }
    }

    /// Asks the store about a credential that [`Self::verify`] does not know.
    ///
    /// # Errors
    /// When it is not good, or the store does not answer.
    pub async fn ask(&self, credential: &[u8]) -> Result<Caller, Denied> {
        self.ask_store(credential).await.map_err(Denied::counted)
    }

    async fn ask_store(&self, credential: &[u8]) -> Result<Caller, Denied> {
        let _permit = self.inner.asks.try_acquire().map_err(|_| Denied::Busy)?;
        let read = Read::from(credential).ok_or(Denied::Invalid)?;
        // What is found here answers this call alone: it may be older than what the watch says next.
        let mut found = Known::default();
        let (user, rests_on) = match &read {
            Read::Token(token) => {
                self.fetch(&mut found, signing_records::record_key(token.key))
                    .await?;
                // Before anything else is asked for a stranger.
                let public = found.signing.get(&token.key).ok_or(Denied::Invalid)?;
                if !token.is_signed_by_record(public) {
                    return Err(Denied::Invalid);
                }
                let claims = &token.claims;
                (&claims.sub, session::record_key(&claims.sub, &claims.sid))
            }
            Read::Key(key) => (&key.user, key::record_key(&key.user, key.id)),
        };
        self.fetch(&mut found, rests_on).await?;
        self.fetch(&mut found, user.record_key()).await?;
        match read.check(&found, &self.inner.cluster_id, now_ms()) {
            Ok(checked) => Ok(checked.caller),
            Err(Fault::Missing) => Err(Denied::Ended),
            Err(Fault::Bad(denied)) => Err(denied),
        }
    }

    async fn fetch(&self, found: &mut Known, key: String) -> Result<(), Denied> {
        match self.inner.store.get(&key).await {
            Ok(Some(entry)) => {
                found.on_entry(&entry);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(_) => Err(Denied::Unavailable),
        }
    }
}

impl<'a> Read<'a> {
    fn from(credential: &'a [u8]) -> Option<Self> {
        match ApiKey::read(credential) {
            Some(key) => Some(Self::Key(key)),
            None => jwt::read(credential).map(Self::Token),
        }
    }

    /// Whether another node may have made it a moment ago.
    fn is_young(&self, now: Millis) -> bool {
        let made_at_ms = match self {
            Self::Token(token) => token.claims.iat.saturating_mul(1000),
            Self::Key(key) => key.made_at_ms,
        };
        now.abs_diff(made_at_ms) < millis(YOUNG)
    }

    fn check(&self, known: &Known, cluster_id: &str, now: Millis) -> Result<Checked, Fault> {
        match self {
            Self::Token(token) => check_token(token, known, cluster_id, now),
            Self::Key(key) => check_key(key, known, now),
        }
    }
}

fn check_token(
    token: &jwt::Unchecked<'_>,
    known: &Known,
    cluster_id: &str,
    now: Millis,
) -> Result<Checked, Fault> {
    let record = known.signing.get(&token.key).ok_or(Fault::Missing)?;
    let claims = &token.claims;
    if !token.is_signed_by_record(record) || claims.iss != cluster_id {
        return Err(Fault::Bad(Denied::Invalid));
    }
    let expires_at_ms = claims.exp.saturating_mul(1000);
    if now >= expires_at_ms || !signing::is_good(record, now) {
        return Err(Fault::Bad(Denied::Expired));
    }
    let sessions = known.sessions.get(&claims.sub).ok_or(Fault::Missing)?;
    let session = sessions.get(&claims.sid).ok_or(Fault::Missing)?;
    let member = member(known, &claims.sub)?;
    if now >= session.record.0 {
        return Err(Fault::Bad(Denied::Expired));
    }
    let credential = Credential::Session(claims.sid.clone());
    Ok(Checked {
        caller: caller(&claims.sub, member, credential),
        expires_at_ms: expires_at_ms.min(session.record.0),
        is_current: Arc::clone(&session.is_current),
    })
}

fn check_key(key: &ApiKey<'_>, known: &Known, now: Millis) -> Result<Checked, Fault> {
    let keys = known.keys.get(&key.user).ok_or(Fault::Missing)?;
    let held = keys.get(key.id).ok_or(Fault::Missing)?;
    let record = &held.record;
    if !bool::from(key.hash.as_bytes().ct_eq(record.hash.as_bytes())) {
        return Err(Fault::Bad(Denied::Invalid));
    }
    let expires_at_ms = record.expires_at_ms.unwrap_or(Millis::MAX);
    if now >= expires_at_ms {
        return Err(Fault::Bad(Denied::Expired));
    }
    let member = member(known, &key.user)?;
    Ok(Checked {
        caller: caller(&key.user, member, credential(record)),
        expires_at_ms,
        is_current: Arc::clone(&held.is_current),
    })
}

fn check_access_key(key: &AccessKeyId, known: &Known, now: Millis) -> Result<Caller, Fault> {
    let keys = known.keys.get(&key.user).ok_or(Fault::Missing)?;
    let record = &keys.get(&key.id).ok_or(Fault::Missing)?.record;
    if !record.aws {
        return Err(Fault::Bad(Denied::Invalid));
    }
    if now >= record.expires_at_ms.unwrap_or(Millis::MAX) {
        return Err(Fault::Bad(Denied::Expired));
    }
    let member = member(known, &key.user)?;
    Ok(caller(&key.user, member, credential(record)))
}

fn credential(record: &key::Record) -> Credential {
    Credential::Key {
        scopes: record.scopes.clone(),
        spaces: record.spaces.clone(),
    }
}

fn member<'a>(known: &'a Known, user: &UserId) -> Result<&'a Member, Fault> {
    let member = known.users.get(user).ok_or(Fault::Missing)?;
    match member.state {
        UserState::Active => Ok(member),
        UserState::Deleting => Err(Fault::Bad(Denied::Ended)),
    }
}

fn caller(user: &UserId, member: &Member, credential: Credential) -> Caller {
    Caller::account(Account {
        user: user.clone(),
        email: member.email.clone(),
        own_space: user.own_space(),
        role: member.role,
        spaces: member.spaces.clone(),
        credential,
    })
}

impl jwt::Unchecked<'_> {
    fn is_signed_by_record(&self, record: &signing_records::Record) -> bool {
        jwt::decode(&record.public).is_some_and(|public| self.is_signed_by(&public))
    }
}
