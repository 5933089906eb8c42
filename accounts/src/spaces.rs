//! What is set for spaces.

use config::store::{Precondition, Transaction, Write};
use protocol::{Space, SpaceLimits};

use crate::accounts::{TRIES, parse, value};
use crate::records::space::{self, Events, SpaceSettings};
use crate::{Accounts, Error};

impl Accounts {
    /// Reads what is set for a space.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn space(&self, space: &Space) -> Result<SpaceSettings, Error> {
        match self.read(&space::record_key(space)).await? {
            Some(entry) => parse(&entry),
            None => Ok(SpaceSettings::default()),
        }
    }

    /// Sets what is set for a space; a space with nothing but defaults has no record.
    ///
    /// # Errors
    /// As [`Accounts::change_space`].
    pub async fn set_space(&self, space: &Space, settings: SpaceSettings) -> Result<(), Error> {
        let set = self.change_space(space, |found| found.clone_from(&settings));
        set.await.map(drop)
    }

    /// Changes what is set for a space, whatever others change of it meanwhile, and returns what is set then.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::Store`].
    pub async fn change_space(
        &self,
        space: &Space,
        change: impl Fn(&mut SpaceSettings),
    ) -> Result<SpaceSettings, Error> {
        let key = space::record_key(space);
        for _ in 0..TRIES {
            let entry = self.read(&key).await?;
            let mut settings = match &entry {
                Some(entry) => parse(entry)?,
                None => SpaceSettings::default(),
            };
            change(&mut settings);
            let write = match settings == SpaceSettings::default() {
                true => Write::Delete(key.clone()),
                false => Write::Put(key.clone(), value(&settings)?),
            };
            let unchanged = entry.map_or(Precondition::Absent, |entry| {
                Precondition::At(entry.revision)
            });
            let transaction = Transaction {
                preconditions: vec![(key.clone(), unchanged)],
                writes: vec![write],
            };
            if self.commit(transaction).await? {
                return Ok(settings);
            }
        }
        Err(Error::Conflict)
    }

    /// What a space may have, as this node knows. Asked for every invocation.
    pub fn space_limits(&self, space: &Space) -> SpaceLimits {
        let known = self.known();
        let settings = known.spaces.get(space);
        settings.map_or_else(SpaceLimits::default, |settings| settings.limits)
    }

    /// Whether everybody may emit events in a space. Asked for every event.
    pub fn events_are_open(&self, space: &Space) -> bool {
        let known = self.known();
        let settings = known.spaces.get(space);
        settings.is_some_and(|settings| settings.events == Events::Open)
    }
}
