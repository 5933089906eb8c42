//! Secrets of another cluster are opened with its data key and sealed anew with this one's.

use protocol::SecretRecord;
use serde::Deserialize;
use serde_json::Value;
use vault::Plain;

use super::{Backup, Error, Records};
use crate::registry_cache::SECRETS_PREFIX;

impl Backup {
    /// Seals the secrets of a document of another cluster for this one. What is there already in the same version is left as it is.
    pub(super) async fn seal_anew(
        &self,
        records: &mut Records,
        theirs: Option<&Value>,
        from: &str,
        there: &Records,
    ) -> Result<(), Error> {
        let mut their_key = None;
        for (key, value) in records
            .iter_mut()
            .filter(|(key, _)| key.starts_with(SECRETS_PREFIX))
        {
            if let Some(own) = there
                .get(key)
                .filter(|own| own["version"] == value["version"])
            {
                *value = own.clone();
                continue;
            }
            let refused = |source| Error::Secret {
                key: key.clone(),
                source,
            };
            if their_key.is_none() {
                let record = theirs.map(Value::to_string).ok_or_else(|| Error::Record {
                    key: key.clone(),
                    why: format!("the document has no {}, which opens it", vault::RECORD),
                })?;
                let opened = self.vault.open_key_of(from, record.as_bytes());
                their_key = Some(opened.map_err(refused)?);
            }
            let altered = || {
                refused(vault::Error::Altered {
                    record: key.clone(),
                })
            };
            let mut secret = SecretRecord::deserialize(&*value).map_err(|_| altered())?;
            let sealed = secret.sealed().ok_or_else(altered)?;
            let opened = their_key
                .as_ref()
                .and_then(|their| their.open(key, &sealed));
            let opened = Plain::from(opened.ok_or_else(altered)?);
            let own_key = self.vault.key().await.map_err(refused)?;
            secret.set_sealed(&own_key.seal(key, opened.expose()));
            *value = serde_json::to_value(&secret).expect("a record has string keys only");
        }
        Ok(())
    }
}
