//! The accounts of a cluster, as one node has them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::Store;
use config::settings::{AuthSettings, Secret};
use protocol::Space;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::{Caller, Denied, Error, Key, NewKey, Role, SpaceSettings, User, UserId};

/// What accounts are made from.
#[derive(Debug)]
pub struct Args {
    /// The config store.
    pub store: Arc<dyn Store>,
    /// `[auth]`.
    pub settings: AuthSettings,
    /// The cluster, whose tokens these are.
    pub cluster_id: Arc<str>,
    /// The node's name.
    pub node: Arc<str>,
    /// Where the node keeps what it knows, for a start without the store.
    pub data_dir: PathBuf,
    /// What its tasks are spawned on.
    pub tracker: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

/// The accounts of a cluster, as one node has them; cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

#[derive(Debug)]
#[expect(dead_code, reason = "the bodies come with the next commit")]
struct Inner {
    store: Arc<dyn Store>,
    settings: AuthSettings,
}

/// What a look at a credential says.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is good.
    Known(Caller),
    /// It may be so new that only the store knows: [`Accounts::ask`].
    Unknown,
    /// It is not good.
    Denied(Denied),
}

/// What a login or a refresh gives.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The token to call with.
    pub token: Secret,
    /// How long it is good.
    pub expires_in: Duration,
    /// What the next one is got with, once.
    pub refresh_token: Secret,
    /// Whose they are.
    pub user: UserId,
}

fn unfinished<T>() -> Result<T, Error> {
    Err(Error::NoSigningKey)
}

#[expect(
    unused_variables,
    clippy::unused_async,
    reason = "the bodies come with the next commit"
)]
impl Accounts {
    /// Reads what the store, or the disk, has, and follows it from then on.
    pub async fn start(args: Args) -> Self {
        let Args {
            store, settings, ..
        } = args;
        Self {
            inner: Arc::new(Inner { store, settings }),
        }
    }

    /// Looks at a credential: a token or an API key. Asked for every request, so it is cheap.
    pub fn verify(&self, credential: &[u8]) -> Verdict {
        Verdict::Unknown
    }

    /// Asks the store about a credential that [`Self::verify`] does not know.
    ///
    /// # Errors
    /// When it is not good, or the store does not answer.
    pub async fn ask(&self, credential: &[u8]) -> Result<Caller, Denied> {
        Err(Denied::Unavailable)
    }

    /// Makes a user. Where `auth.sign_up` is `admin` only an admin may.
    ///
    /// # Errors
    /// [`Error::Field`], [`Error::Taken`], [`Error::SignUpClosed`], [`Error::Busy`], [`Error::Store`].
    pub async fn sign_up(
        &self,
        by: Option<&Caller>,
        email: &str,
        password: &Secret,
    ) -> Result<User, Error> {
        unfinished()
    }

    /// Starts a session.
    ///
    /// # Errors
    /// [`Error::WrongCredentials`], [`Error::Slowed`], [`Error::Busy`], [`Error::NoSigningKey`], [`Error::Store`].
    pub async fn login(
        &self,
        email: &str,
        password: &Secret,
        from: IpAddr,
    ) -> Result<Tokens, Error> {
        unfinished()
    }

    /// Gives the next token of a session. A refresh token that was used already ends its session.
    ///
    /// # Errors
    /// [`Error::SessionEnded`], [`Error::NoSigningKey`], [`Error::Store`].
    pub async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, Error> {
        unfinished()
    }

    /// Ends the session of the caller's token.
    ///
    /// # Errors
    /// [`Error::NoSession`], [`Error::Store`].
    pub async fn logout(&self, caller: &Caller) -> Result<(), Error> {
        unfinished()
    }

    /// Reads a user.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Store`].
    pub async fn user(&self, id: &UserId) -> Result<User, Error> {
        unfinished()
    }

    /// Reads up to `max` users, in the order of their ids, from after one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn users(&self, after: Option<&UserId>, max: usize) -> Result<Vec<User>, Error> {
        unfinished()
    }

    /// Changes a password after a look at the old one, and ends every session of the user. Slowed as logins are.
    ///
    /// # Errors
    /// [`Error::NoSession`], [`Error::WrongCredentials`], [`Error::Slowed`], [`Error::Field`], [`Error::Busy`], [`Error::Store`].
    pub async fn change_password(
        &self,
        caller: &Caller,
        old: &Secret,
        new: &Secret,
        from: IpAddr,
    ) -> Result<(), Error> {
        unfinished()
    }

    /// Gives a user a new password, as an admin does for one who forgot it, and ends every session of the user.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Field`], [`Error::Busy`], [`Error::Store`].
    pub async fn set_password(&self, id: &UserId, new: &Secret) -> Result<(), Error> {
        unfinished()
    }

    /// Makes a user an admin or a member.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Deleting`], [`Error::Store`].
    pub async fn set_role(&self, id: &UserId, role: Role) -> Result<User, Error> {
        unfinished()
    }

    /// Makes a user a member of a space.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Deleting`], [`Error::Store`].
    pub async fn join_space(&self, id: &UserId, space: &Space) -> Result<User, Error> {
        unfinished()
    }

    /// Makes a user no member of a space.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Deleting`], [`Error::Store`].
    pub async fn leave_space(&self, id: &UserId, space: &Space) -> Result<User, Error> {
        unfinished()
    }

    /// Ends every credential of a user for good; what it has is removed afterwards, then [`Self::finish_delete`].
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Store`].
    pub async fn begin_delete(&self, id: &UserId) -> Result<User, Error> {
        unfinished()
    }

    /// Forgets a user whose deletion was begun and who has nothing left. Fine when it is gone already.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn finish_delete(&self, id: &UserId) -> Result<(), Error> {
        unfinished()
    }

    /// The users whose deletion was begun and not finished, as this node knows.
    pub fn deleting(&self) -> Vec<UserId> {
        Vec::new()
    }

    /// Makes an API key of the caller's; the second part is shown once and kept nowhere.
    ///
    /// # Errors
    /// [`Error::NoSession`], [`Error::Field`], [`Error::NotAdmin`], [`Error::TooMany`], [`Error::Store`].
    pub async fn create_key(&self, owner: &Caller, new: NewKey) -> Result<(Key, Secret), Error> {
        unfinished()
    }

    /// Reads the API keys of a user.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn keys(&self, owner: &UserId) -> Result<Vec<Key>, Error> {
        unfinished()
    }

    /// Ends an API key of a user.
    ///
    /// # Errors
    /// [`Error::NoKey`], [`Error::Store`].
    pub async fn revoke_key(&self, owner: &UserId, id: &str) -> Result<(), Error> {
        unfinished()
    }

    /// Reads what is set for a space.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn space(&self, space: &Space) -> Result<SpaceSettings, Error> {
        unfinished()
    }

    /// Sets what is set for a space.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn set_space(&self, space: &Space, settings: SpaceSettings) -> Result<(), Error> {
        unfinished()
    }

    /// Whether everybody may emit events in a space. Asked for every event.
    pub fn events_are_open(&self, space: &Space) -> bool {
        false
    }

    /// Makes the next key that signs tokens. It signs as soon as every node knows it; what the others signed stays good until it expires.
    ///
    /// # Errors
    /// [`Error::NoSigningKey`], [`Error::Conflict`], [`Error::Store`].
    pub async fn rotate_signing_key(&self) -> Result<(), Error> {
        unfinished()
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
        unfinished()
    }

    /// How long ago this node last heard of revocations.
    pub fn staleness(&self) -> Duration {
        self.inner.store.staleness()
    }
}
