//! The first admin: while there is none, whoever reads a node's log makes one.

use config::settings::{AuthMode, Secret};
use config::store::{Precondition, Transaction, Write};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::accounts::{parse, value};
use crate::clock::now_ms;
use crate::records::user::{Role, User};
use crate::records::{ADMIN_INIT, Millis, hash};
use crate::{Accounts, Error, secrets};

/// How old a one-time token gets before another node may make a new one: its node may be gone, with its log.
const OTHERS_AFTER_MS: Millis = 10 * 60 * 1000;

/// The one-time token as the store has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    hash: String,
    /// The node whose log has it.
    node: String,
    made_at_ms: Millis,
}

impl Accounts {
    /// Whether nobody can administer the cluster.
    pub(crate) fn is_admin_needed(&self) -> bool {
        let settings = &self.inner.settings;
        settings.mode == AuthMode::Required && settings.admin_token_file.is_none() && {
            let known = self.known();
            !known.users.values().any(|user| user.role == Role::Admin)
        }
    }

    /// Logs a one-time token with which one who can is made. A node that starts again makes a new one.
    pub(crate) async fn offer_admin(&self) -> Result<(), Error> {
        let entry = self.read(ADMIN_INIT).await?;
        let precondition = match &entry {
            None => Precondition::Absent,
            Some(entry) => {
                let record: Record = parse(entry)?;
                let is_others = record.node != *self.inner.node;
                if is_others && now_ms().saturating_sub(record.made_at_ms) < OTHERS_AFTER_MS {
                    tracing::warn!(
                        node = record.node,
                        "there is no admin yet: the log of that node has the one-time token for `hearth admin init`"
                    );
                    return Ok(());
                }
                Precondition::At(entry.revision)
            }
        };
        let token = secrets::random_text();
        let record = Record {
            hash: hash(&token),
            node: self.inner.node.to_string(),
            made_at_ms: now_ms(),
        };
        let transaction = Transaction {
            preconditions: vec![(ADMIN_INIT.to_owned(), precondition)],
            writes: vec![Write::Put(ADMIN_INIT.to_owned(), value(&record)?)],
        };
        if self.commit(transaction).await? {
            // The one secret that is ever logged: whoever reads this log is to be the admin, and it works once.
            tracing::warn!(
                one_time_token = token,
                "there is no admin yet: make one with `hearth admin init`, which asks for this one-time token"
            );
        }
        Ok(())
    }

    /// Makes the first admin with the one-time token of the log.
    ///
    /// # Errors
    /// [`Error::OneTimeToken`], [`Error::Field`], [`Error::Taken`], [`Error::Busy`], [`Error::Store`].
    pub async fn init_admin(
        &self,
        one_time_token: &Secret,
        email: &str,
        password: &Secret,
    ) -> Result<User, Error> {
        let entry = self.read(ADMIN_INIT).await?.ok_or(Error::OneTimeToken)?;
        let record: Record = parse(&entry)?;
        let sent = hash(one_time_token.expose());
        if !bool::from(sent.as_bytes().ct_eq(record.hash.as_bytes())) {
            return Err(Error::OneTimeToken);
        }
        let with = Transaction {
            preconditions: vec![(ADMIN_INIT.to_owned(), Precondition::At(entry.revision))],
            writes: vec![Write::Delete(ADMIN_INIT.to_owned())],
        };
        let made = self.make_user(email, password, Role::Admin, with).await?;
        let made = made.ok_or(Error::OneTimeToken)?;
        tracing::info!(user = %made.id, "made the first admin");
        Ok(made)
    }
}
