//! Users: made, read, changed and deleted.

use std::net::IpAddr;

use config::settings::{Secret, SignUp};
use config::store::{Entry, Precondition, Transaction, Write};
use protocol::{Space, UserLimits};

use crate::accounts::{TRIES, parse, value};
use crate::clock::now_ms;
use crate::login::Subjects;
use crate::password::check_new;
use crate::records::user::{self, Email, Record, Role, User, UserId, UserState};
use crate::records::{key, session, space};
use crate::{Accounts, Caller, Error};

impl Accounts {
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
        let is_open = self.inner.settings.sign_up == SignUp::Open;
        if !is_open && !by.is_some_and(Caller::is_admin) {
            return Err(Error::SignUpClosed);
        }
        self.make_user(email, password, Role::Member, Transaction::default())
            .await?
            .ok_or(Error::Conflict)
    }

    /// Makes a user together with other writes; nothing when a precondition of these does not hold.
    pub(crate) async fn make_user(
        &self,
        email: &str,
        password: &Secret,
        role: Role,
        with: Transaction,
    ) -> Result<Option<User>, Error> {
        let email = Email::parse(email)?;
        check_new(password)?;
        let taken = || Error::Taken {
            email: email.as_str().to_owned(),
        };
        let guard = email.guard_key();
        // Before a password is hashed for nothing.
        if self.read(&guard).await?.is_some() {
            return Err(taken());
        }
        let password = self.inner.passwords.turn().await?.hash(password).await?;
        let id = UserId::random();
        let record = Record {
            email: email.as_str().to_owned(),
            password,
            role,
            spaces: Default::default(),
            state: UserState::Active,
            created_at_ms: now_ms(),
            limits: UserLimits::default(),
            rest: Default::default(),
        };
        let mut transaction = with;
        transaction
            .preconditions
            .push((guard.clone(), Precondition::Absent));
        transaction
            .writes
            .push(Write::Put(guard.clone(), value(&id)?));
        transaction
            .writes
            .push(Write::Put(id.record_key(), value(&record)?));
        if self.commit(transaction).await? {
            return Ok(Some(record.public(&id)));
        }
        match self.read(&guard).await? {
            Some(_) => Err(taken()),
            None => Ok(None),
        }
    }

    /// Reads a user.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Store`].
    pub async fn user(&self, id: &UserId) -> Result<User, Error> {
        let (_, record) = self.user_record(id).await?;
        Ok(record.public(id))
    }

    /// Reads up to `max` users, in the order of their ids, from after one.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn users(&self, after: Option<&UserId>, max: usize) -> Result<Vec<User>, Error> {
        let after = after.map(UserId::record_key);
        let page = self
            .inner
            .store
            .list_page(user::PREFIX, after.as_deref(), max);
        let page = page.await?;
        page.iter()
            .filter_map(|entry| Some((user::id_of(&entry.key)?, entry)))
            .map(|(id, entry)| Ok(parse::<Record>(entry)?.public(&id)))
            .collect()
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
        let (Some(id), Some(_)) = (caller.user_id(), caller.session()) else {
            return Err(Error::NoSession);
        };
        check_new(new)?;
        let (_, record) = self.user_record(id).await?;
        let subjects = Subjects::new(&Email::parse(&record.email)?, from);
        let turn = self.turn(&subjects).await?;
        let is_right = self.is_password(&turn, &subjects, old, Some(&record.password));
        if !is_right.await? {
            return Err(Error::WrongCredentials);
        }
        let hash = turn.hash(new).await?;
        self.replace_password(id, hash).await
    }

    /// Gives a user a new password, as an admin does for one who forgot it, and ends every session of the user.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Field`], [`Error::Busy`], [`Error::Store`].
    pub async fn set_password(&self, id: &UserId, new: &Secret) -> Result<(), Error> {
        check_new(new)?;
        let hash = self.inner.passwords.turn().await?.hash(new).await?;
        self.replace_password(id, hash).await
    }

    async fn replace_password(&self, id: &UserId, hash: String) -> Result<(), Error> {
        self.change_user(id, &[session::prefix_of(id)], |record| {
            record.password.clone_from(&hash);
        })
        .await?;
        Ok(())
    }

    /// Makes a user an admin or a member.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Deleting`], [`Error::Store`].
    pub async fn set_role(&self, id: &UserId, role: Role) -> Result<User, Error> {
        self.change_user(id, &[], |record| record.role = role).await
    }

    /// Says what a user may ask for.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Deleting`], [`Error::Store`].
    pub async fn set_limits(&self, id: &UserId, limits: UserLimits) -> Result<User, Error> {
        self.change_user(id, &[], |record| record.limits = limits)
            .await
    }

    /// What a user may ask for, as this node knows. Asked for every request.
    pub fn user_limits(&self, id: &UserId) -> UserLimits {
        let known = self.known();
        let member = known.users.get(id);
        member.map_or_else(UserLimits::default, |member| member.limits)
    }

    /// Makes a user a member of a space.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Deleting`], [`Error::Store`].
    pub async fn join_space(&self, id: &UserId, space: &Space) -> Result<User, Error> {
        self.change_user(id, &[], |record| {
            record.spaces.insert(space.clone());
        })
        .await
    }

    /// Makes a user no member of a space.
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Deleting`], [`Error::Store`].
    pub async fn leave_space(&self, id: &UserId, space: &Space) -> Result<User, Error> {
        self.change_user(id, &[], |record| {
            record.spaces.remove(space);
        })
        .await
    }

    /// Ends every credential of a user for good; what it has is removed afterwards, then [`Self::finish_delete`].
    ///
    /// # Errors
    /// [`Error::NoUser`], [`Error::Store`].
    pub async fn begin_delete(&self, id: &UserId) -> Result<User, Error> {
        let ended = [session::prefix_of(id), key::prefix_of(id)];
        let begun = self.change_user(id, &ended, |record| record.state = UserState::Deleting);
        match begun.await {
            Err(Error::Deleting) => self.user(id).await,
            begun => begun,
        }
    }

    /// Forgets a user whose deletion was begun and who has nothing left. Fine when it is gone already.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn finish_delete(&self, id: &UserId) -> Result<(), Error> {
        let (entry, record) = match self.user_record(id).await {
            Ok(found) => found,
            Err(Error::NoUser { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        if record.state != UserState::Deleting {
            return Err(Error::Conflict);
        }
        let mut writes = vec![
            Write::Delete(entry.key.clone()),
            Write::Delete(space::record_key(&id.own_space())),
        ];
        if let Ok(email) = Email::parse(&record.email) {
            writes.push(Write::Delete(email.guard_key()));
        }
        let transaction = Transaction {
            preconditions: vec![(entry.key, Precondition::At(entry.revision))],
            writes,
        };
        // Where it does not hold, another node has finished it.
        self.commit(transaction).await?;
        Ok(())
    }

    /// The users whose deletion was begun and not finished, as this node knows.
    pub fn deleting(&self) -> Vec<UserId> {
        let known = self.known();
        let users = known.users.iter();
        let deleting = users.filter(|(_, member)| member.state == UserState::Deleting);
        deleting.map(|(id, _)| id.clone()).collect()
    }

    /// The last users that went while this node knew of them: a call of theirs that it had let in before may still make something.
    pub fn gone(&self) -> Vec<UserId> {
        self.known().gone.iter().cloned().collect()
    }

    pub(crate) async fn user_record(&self, id: &UserId) -> Result<(Entry, Record), Error> {
        let entry = self.read(&id.record_key()).await?;
        let entry = entry.ok_or_else(|| Error::NoUser { id: id.to_string() })?;
        let record = parse(&entry)?;
        Ok((entry, record))
    }

    /// Changes a user that stays, and removes all under some prefixes with it.
    async fn change_user(
        &self,
        id: &UserId,
        without: &[String],
        change: impl Fn(&mut Record),
    ) -> Result<User, Error> {
        for _ in 0..TRIES {
            let (entry, mut record) = self.user_record(id).await?;
            if record.state == UserState::Deleting {
                return Err(Error::Deleting);
            }
            change(&mut record);
            // A session or key that is made meanwhile asks that the user's record be as it was, so none is missed here.
            let mut writes = vec![Write::Put(entry.key.clone(), value(&record)?)];
            for prefix in without {
                let listed = self.inner.store.list(prefix).await?;
                let listed = listed.entries.into_iter();
                writes.extend(listed.map(|entry| Write::Delete(entry.key)));
            }
            let transaction = Transaction {
                preconditions: vec![(entry.key, Precondition::At(entry.revision))],
                writes,
            };
            if self.commit(transaction).await? {
                return Ok(record.public(id));
            }
        }
        Err(Error::Conflict)
    }
}
