//! The keys that sign tokens: which one is in use, the next one, and when an old one is forgotten.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::store::{self, Listing, Precondition, Transaction, Write};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::accounts::value;
use crate::clock::{millis, now_ms};
use crate::records::Millis;
use crate::records::signing::{self, Record};
use crate::{Accounts, Error, jwt};

/// From when it is made until it signs, so that all nodes know it by then.
const LEAD: Duration = Duration::from_secs(10);

/// For how long after its last token expired a key is still known: clocks differ.
const GRACE: Duration = Duration::from_secs(60);

/// Private halves that were opened.
#[derive(Default)]
pub(crate) struct Opened(Mutex<BTreeMap<u64, Arc<Ed25519KeyPair>>>);

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened")
    }
}

/// Whether a key still checks tokens.
pub(crate) fn is_good(record: &Record, now: Millis) -> bool {
    record.retires_at_ms.is_none_or(|at| now < at)
}

/// The key that signs now: the newest that is active.
fn current(keys: &BTreeMap<u64, Record>, now: Millis) -> Option<(u64, &Record)> {
    let newest_first = keys.iter().rev();
    let mut active = newest_first.filter(|(_, record)| record.active_from_ms <= now);
    active.next().map(|(number, record)| (*number, record))
}

impl Accounts {
    /// The key to sign with, and its number.
    pub(crate) async fn signing_key(&self) -> Result<(u64, Arc<Ed25519KeyPair>), Error> {
        let found = {
            let known = self.known();
            current(&known.signing, now_ms()).map(|(number, record)| (number, record.clone()))
        };
        let (number, record) = found.ok_or(Error::NoSigningKey)?;
        if let Some(pair) = self.opened().get(&number)
            // A number is given again where the records were replaced, such as by a restored backup.
            && jwt::encode(pair.public_key().as_ref()) == record.public
        {
            return Ok((number, Arc::clone(pair)));
        }
        let broken = |why| Error::Internal(format!("signing key {number} {why}"));
        let decode = |text| jwt::decode(text).ok_or_else(|| broken("is no base64url"));
        let (sealed, public) = (decode(&record.sealed)?, decode(&record.public)?);
        let key = signing::record_key(number);
        let seed = self.inner.vault.open_record(&key, &sealed).await?;
        let pair = Ed25519KeyPair::from_seed_and_public_key(seed.expose(), &public);
        let pair = Arc::new(pair.map_err(|_| broken("has halves that do not belong together"))?);
        let mut opened = self.opened();
        opened.retain(|number, _| self.known().signing.contains_key(number));
        opened.insert(number, Arc::clone(&pair));
        Ok((number, pair))
    }

    fn opened(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Ed25519KeyPair>>> {
        let opened = self.inner.opened.0.lock();
        opened.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next key that signs tokens. It signs as soon as every node knows it; what the others signed stays good until it
    /// expires.
    ///
    /// # Errors
    /// [`Error::NoSigningKey`], [`Error::Conflict`], [`Error::Store`].
    pub async fn rotate_signing_key(&self) -> Result<(), Error> {
        let listing = self.inner.store.list(signing::PREFIX).await?;
        self.make_signing_key(&listing).await
    }

    /// Makes the first key where there is none, or the next where the newest is old, and forgets those that check nothing any more.
    pub(crate) async fn keep_signing_keys(&self) -> Result<(), Error> {
        let listing = self.inner.store.list(signing::PREFIX).await?;
        let (now, age) = (now_ms(), millis(self.inner.settings.signing_key_age));
        let records = read(&listing);
        let is_young =
            |(_, record): (&u64, &Record)| record.active_from_ms.saturating_add(age) > now;
        if !records.last_key_value().is_some_and(is_young) {
            match self.make_signing_key(&listing).await {
                // Another node was faster, if not this one.
                Ok(()) | Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        for (number, _) in records.iter().filter(|(_, record)| !is_good(record, now)) {
            self.inner
                .store
                .delete(&signing::record_key(*number), None)
                .await?;
        }
        Ok(())
    }

    async fn make_signing_key(&self, listing: &Listing) -> Result<(), Error> {
        let data_key = self.inner.vault.key().await?;
        let records = read(listing);
        let now = now_ms();
        let is_first = current(&records, now).is_none();
        let active_from_ms = if is_first { now } else { now + millis(LEAD) };
        let number = records.last_key_value().map_or(1, |(number, _)| number + 1);
        let key = signing::record_key(number);
        let seed: [u8; 32] = rand::random();
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed)
            .map_err(|_| Error::Internal("a signing key can not be made".to_owned()))?;
        let record = Record {
            public: jwt::encode(pair.public_key().as_ref()),
            sealed: jwt::encode(&data_key.seal(&key, &seed)),
            active_from_ms,
            retires_at_ms: None,
        };
        let mut transaction = Transaction {
            preconditions: vec![(key.clone(), Precondition::Absent)],
            writes: vec![Write::Put(key, value(&record)?)],
        };
        let retires_at_ms = active_from_ms + millis(self.inner.settings.token_ttl + GRACE);
        for entry in &listing.entries {
            let Some(record) = serde_json::from_slice::<Record>(&entry.value).ok() else {
                continue;
            };
            if record.retires_at_ms.is_some() {
                continue;
            }
            let retiring = Record {
                retires_at_ms: Some(retires_at_ms),
                ..record
            };
            transaction
                .preconditions
                .push((entry.key.clone(), Precondition::At(entry.revision)));
            transaction
                .writes
                .push(Write::Put(entry.key.clone(), value(&retiring)?));
        }
        match self.inner.store.commit(transaction).await {
            Ok(_) => {
                tracing::info!(number, active_from_ms, "made a key that signs tokens");
                Ok(())
            }
            Err(store::Error::Precondition { .. }) => Err(Error::Conflict),
            Err(error) => Err(error.into()),
        }
    }
}

fn read(listing: &Listing) -> BTreeMap<u64, Record> {
    let entries = listing.entries.iter();
    entries
        .filter_map(|entry| {
            let number = entry.key.strip_prefix(signing::PREFIX)?.parse().ok()?;
            Some((number, serde_json::from_slice(&entry.value).ok()?))
        })
        .collect()
}
