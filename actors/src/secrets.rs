//! Opens the secrets of a function for an instance that is about to start, and at no other time.

use std::sync::Arc;

use config::Store;
use protocol::secret::Target;
use protocol::{Function, SecretName, SecretRecord};
use providers::{Error, Secrets};
use vault::{Plain, Vault};

use crate::registry_cache::Registered;
use crate::registry_cache::state::{read_secret, secret_key};

/// Opens secrets; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Opener {
    vault: Vault,
    store: Arc<dyn Store>,
}

impl Opener {
    pub(crate) fn new(vault: Vault, store: Arc<dyn Store>) -> Self {
        Self { vault, store }
    }

    /// The secrets of a function, in the open.
    ///
    /// # Errors
    /// [`Error::StartFailed`], naming the function, the secret and what to do.
    pub(crate) async fn open(&self, registered: &Registered) -> Result<Arc<Secrets>, Error> {
        let mut opened = Secrets::default();
        let function = &registered.function;
        for secret in function.secrets() {
            let value = self.value(registered, &secret.name).await?;
            match secret.target() {
                Target::Env(name) if value.expose().contains(&0) => {
                    let why = format!(
                        "has a NUL, so it can not be the variable {name}: give it as a file"
                    );
                    return Err(failed(function, &secret.name, &why));
                }
                Target::Env(name) => opened.env.push((name.to_owned(), value)),
                Target::File(name) => opened.files.push((name.to_owned(), value)),
            }
        }
        Ok(Arc::new(opened))
    }

    async fn value(&self, registered: &Registered, name: &SecretName) -> Result<Plain, Error> {
        let function = &registered.function;
        let mut known = registered.secrets.iter();
        let known = known.find(|known| known.secret.name == *name);
        let secret = match known {
            Some(known) => Arc::clone(&known.secret),
            // It may have been set a moment ago, and the function be known sooner.
            None => self.look_up(function, name).await?,
        };
        let key = secret_key(secret.space.as_str(), secret.name.as_str());
        let sealed = secret.sealed();
        let sealed = sealed
            .ok_or_else(|| failed(function, name, "is no base64 in the store: set it anew"))?;
        let opened = self.vault.open_record(&key, &sealed).await;
        opened.map_err(|error| {
            let what_to_do = match &error {
                vault::Error::Altered { .. } => "; set it anew with hearth secret set",
                vault::Error::Store(_) => {
                    "; this node has no copy of the cluster's data key, so it waits for the store"
                }
                vault::Error::OtherSecret | vault::Error::OfAnother => "",
            };
            failed(
                function,
                name,
                &format!("can not be opened: {error}{what_to_do}"),
            )
        })
    }

    async fn look_up(
        &self,
        function: &Function,
        name: &SecretName,
    ) -> Result<Arc<SecretRecord>, Error> {
        let found = self
            .store
            .get(&secret_key(function.space.as_str(), name.as_str()))
            .await;
        let found = found.map_err(|error| {
            failed(
                function,
                name,
                &format!("is not known here, and the store was asked in vain: {error}"),
            )
        })?;
        let found = found.and_then(|entry| read_secret(&entry));
        found.map(|found| found.secret).ok_or_else(|| {
            failed(
                function,
                name,
                "is not there; make it with hearth secret set",
            )
        })
    }
}

fn failed(function: &Function, secret: &SecretName, why: &str) -> Error {
    let (space, id) = (&function.space, &function.function_id);
    Error::StartFailed {
        why: format!("secret {secret} of function {id} in space {space} {why}"),
    }
}
