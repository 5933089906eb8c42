//! API keys: made, listed and revoked.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use config::settings::Secret;
use config::store::{Precondition, Transaction, Write};

use crate::accounts::{TRIES, parse, value};
use crate::clock::{millis, now_ms};
use crate::records::key::{self, Key, NewKey, Record};
use crate::records::user::{UserId, UserState};
use crate::{Accounts, Caller, Error, Scope, secrets};

/// The most characters of a key's name.
const NAME_CHARACTERS_MAX: usize = 100;

/// The most spaces that a key is for.
const SPACES_MAX: usize = 100;

/// The longest that a key with an end lasts: ten years.
const EXPIRES_IN_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

impl Accounts {
    /// Makes an API key of the caller's; the second part is shown once and kept nowhere. Of an access key that is its secret.
    ///
    /// # Errors
    /// [`Error::NoSession`], [`Error::Field`], [`Error::NotAdmin`], [`Error::TooMany`], [`Error::Store`], [`Error::Vault`].
    pub async fn create_key(&self, owner: &Caller, new: NewKey) -> Result<(Key, Secret), Error> {
        let (Some(user), Some(_)) = (owner.user_id(), owner.session()) else {
            return Err(Error::NoSession);
        };
        check(&new, owner)?;
        let now = now_ms();
        let expires_in = new.expires_in_seconds.map(Duration::from_secs);
        let id = secrets::new_id();
        let (secret, hash) = match new.aws {
            true => {
                // The key that the store has: what follows from a copy of another one would be good nowhere else.
                self.inner.vault.key().await?;
                (self.secret_access_key(user, &id).await?, String::new())
            }
            false => {
                let made = secrets::new_api_key(user, &id);
                (made.secret, made.hash)
            }
        };
        let record = Record {
            name: new.name,
            aws: new.aws,
            hash,
            scopes: new.scopes,
            spaces: new.spaces,
            created_at_ms: now,
            expires_at_ms: expires_in.map(|expires_in| now + millis(expires_in)),
        };
        let max = self.inner.settings.keys_per_user_max;
        for _ in 0..TRIES {
            let (entry, owner) = self.user_record(user).await?;
            if owner.state == UserState::Deleting {
                return Err(Error::Deleting);
            }
            let keys = self.inner.store.list(&key::prefix_of(user)).await?;
            if keys.entries.len() >= max {
                return Err(Error::TooMany {
                    what: "keys",
                    max,
                    setting: "auth.keys_per_user_max",
                });
            }
            let transaction = Transaction {
                preconditions: vec![(entry.key.clone(), Precondition::At(entry.revision))],
                writes: vec![
                    Write::Put(key::record_key(user, &id), value(&record)?),
                    // As it was, so that of two keys made at once one is counted by the other.
                    Write::Put(entry.key, entry.value),
                ],
            };
            if self.commit(transaction).await? {
                return Ok((record.public(user, &id), secret));
            }
        }
        Err(Error::Conflict)
    }

    /// The secret of an access key: 240 bits that follow from the cluster's data key, so that every node has it and none keeps it.
    pub(crate) async fn secret_access_key(
        &self,
        user: &UserId,
        id: &str,
    ) -> Result<Secret, vault::Error> {
        let purpose = format!("access key/{user}/{id}");
        let derived = self.inner.vault.derive(&purpose).await?;
        // 40 characters, as AWS's have.
        Ok(Secret::new(STANDARD.encode(&derived[..30])))
    }

    /// Reads the API keys of a user, the oldest first.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn keys(&self, owner: &UserId) -> Result<Vec<Key>, Error> {
        let prefix = key::prefix_of(owner);
        let listing = self.inner.store.list(&prefix).await?;
        let entries = listing.entries.iter();
        entries
            .map(|entry| {
                let id = entry.key.strip_prefix(&prefix).unwrap_or(&entry.key);
                Ok(parse::<Record>(entry)?.public(owner, id))
            })
            .collect()
    }

    /// Ends an API key of a user.
    ///
    /// # Errors
    /// [`Error::NoKey`], [`Error::Store`].
    pub async fn revoke_key(&self, owner: &UserId, id: &str) -> Result<(), Error> {
        let no_key = || Error::NoKey { id: id.to_owned() };
        if !secrets::is_id(id) {
            return Err(no_key());
        }
        let key = key::record_key(owner, id);
        let transaction = Transaction {
            preconditions: vec![(key.clone(), Precondition::Present)],
            writes: vec![Write::Delete(key)],
        };
        match self.commit(transaction).await? {
            true => Ok(()),
            false => Err(no_key()),
        }
    }
}

fn check(new: &NewKey, owner: &Caller) -> Result<(), Error> {
    let characters = new.name.chars().count();
    let is_name = (1..=NAME_CHARACTERS_MAX).contains(&characters)
        && !new.name.contains(|c: char| c.is_control());
    if !is_name {
        return Err(Error::Field {
            field: "name",
            value: format!("{characters} characters long"),
            expected: "1 to 100 characters, none of them a control character",
        });
    }
    if new.scopes.is_empty() {
        return Err(Error::Field {
            field: "scopes",
            value: "[]".to_owned(),
            expected: "one or more of: invoke, emit, read, write, admin",
        });
    }
    let spaces = new.spaces.as_ref().map_or(1, |spaces| spaces.len());
    if spaces == 0 || spaces > SPACES_MAX {
        return Err(Error::Field {
            field: "spaces",
            value: format!("{spaces} spaces"),
            expected: "1 to 100 spaces, or no such field",
        });
    }
    if new.aws && spaces > 1 {
        return Err(Error::Field {
            field: "spaces",
            value: format!("{spaces} spaces"),
            expected: "one space, or no such field, of a key with aws: its calls name none",
        });
    }
    let is_end = |seconds| seconds > 0 && seconds <= EXPIRES_IN_MAX.as_secs();
    if let Some(seconds) = new.expires_in_seconds.filter(|seconds| !is_end(*seconds)) {
        return Err(Error::Field {
            field: "expiresInSeconds",
            value: seconds.to_string(),
            expected: "1 to 316224000 seconds, or no such field",
        });
    }
    if new.scopes.contains(&Scope::Admin) && !owner.is_admin() {
        return Err(Error::NotAdmin {
            what: "a key with the scope admin",
        });
    }
    // A key of all that admins may is of all spaces.
    if new.scopes.contains(&Scope::Admin) && new.spaces.is_some() {
        return Err(Error::Field {
            field: "spaces",
            value: "set".to_owned(),
            expected: "no such field in a key with the scope admin",
        });
    }
    Ok(())
}
