//! What is set for spaces.

use config::store::{Transaction, Write};
use protocol::Space;

use crate::accounts::{parse, value};
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
    /// [`Error::Store`].
    pub async fn set_space(&self, space: &Space, settings: SpaceSettings) -> Result<(), Error> {
        let key = space::record_key(space);
        let write = match settings == SpaceSettings::default() {
            true => Write::Delete(key),
            false => Write::Put(key, value(&settings)?),
        };
        let transaction = Transaction {
            preconditions: Vec::new(),
            writes: vec![write],
        };
        self.commit(transaction).await?;
        Ok(())
    }

    /// Whether everybody may emit events in a space. Asked for every event.
    pub fn events_are_open(&self, space: &Space) -> bool {
        let known = self.known();
        let settings = known.spaces.get(space);
        settings.is_some_and(|settings| settings.events == Events::Open)
    }
}
