//! Sessions: login, refresh, logout; and how failed logins slow the next ones.

use std::net::IpAddr;
use std::time::Duration;

use config::settings::{AuthSettings, Secret};
use config::store::{Entry, Precondition, Transaction, Write};
use subtle::ConstantTimeEq;

use crate::accounts::{TRIES, Tokens, parse, value};
use crate::clock::{millis, now_ms};
use crate::jwt::{self, Claims};
use crate::password::{Turn, is_too_long};
use crate::records::user::{Email, UserId, UserState};
use crate::records::{Millis, login, session, user};
use crate::secrets::{self, RefreshToken};
use crate::{Accounts, Caller, Error};

/// Who a login counts for when it fails.
#[derive(Debug)]
pub(crate) struct Subjects([String; 2]);

impl Subjects {
    pub(crate) fn new(email: &Email, from: IpAddr) -> Self {
        Self([login::account(email), login::address(from)])
    }

    fn account(&self) -> &str {
        &self.0[0]
    }
}

impl Accounts {
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
        let tried = self.try_login(email, password, from).await;
        let outcome = match &tried {
            Ok(_) => "succeeded",
            Err(Error::WrongCredentials) => "wrong",
            Err(Error::Slowed { .. }) => "slowed",
            Err(Error::Busy) => "busy",
            Err(_) => "failed",
        };
        metrics::counter!("hearth_logins_total", "outcome" => outcome).increment(1);
        tried
    }

    async fn try_login(
        &self,
        email: &str,
        password: &Secret,
        from: IpAddr,
    ) -> Result<Tokens, Error> {
        // What can be no email is nobody's.
        let email = Email::parse(email).map_err(|_| Error::WrongCredentials)?;
        let subjects = Subjects::new(&email, from);
        let turn = self.turn(&subjects).await?;
        let found = self.find(&email).await?;
        let phc = found
            .as_ref()
            .map(|(_, _, record)| record.password.as_str());
        if !self.is_password(&turn, &subjects, password, phc).await? {
            return Err(Error::WrongCredentials);
        }
        let Some((id, entry, record)) = found else {
            return Err(Error::WrongCredentials);
        };
        if record.state == UserState::Deleting {
            return Err(Error::WrongCredentials);
        }
        let tokens = self.start_session(&id, &entry).await?;
        self.forgive(subjects.account()).await;
        Ok(tokens)
    }

    /// Waits for a turn to hash a password, unless the subjects are slowed.
    pub(crate) async fn turn(&self, subjects: &Subjects) -> Result<Turn, Error> {
        self.check_slowed(subjects)?;
        let turn = self.inner.passwords.turn().await?;
        // Those that went before may have failed.
        self.check_slowed(subjects)?;
        Ok(turn)
    }

    /// Whether the password is right; that it is not is remembered.
    pub(crate) async fn is_password(
        &self,
        turn: &Turn,
        subjects: &Subjects,
        password: &Secret,
        phc: Option<&str>,
    ) -> Result<bool, Error> {
        if !is_too_long(password) && turn.is_right(password, phc).await? {
            return Ok(true);
        }
        self.note_failure(subjects).await?;
        Ok(false)
    }

    async fn find(&self, email: &Email) -> Result<Option<(UserId, Entry, user::Record)>, Error> {
        let guard = self.read(&email.guard_key()).await?;
        let id = match &guard {
            Some(entry) => Some(parse::<UserId>(entry)?),
            None => None,
        };
        // Asked in both cases, so that both take as long.
        let nobody = UserId::random();
        let entry = self
            .read(&id.as_ref().unwrap_or(&nobody).record_key())
            .await?;
        let (Some(id), Some(entry)) = (id, entry) else {
            return Ok(None);
        };
        let record = parse(&entry)?;
        Ok(Some((id, entry, record)))
    }

    async fn start_session(&self, user: &UserId, at: &Entry) -> Result<Tokens, Error> {
        let id = secrets::new_id();
        let now = now_ms();
        let refresh = secrets::new_refresh_token(user, &id);
        let tokens = self.tokens(user, &id, refresh.secret).await?;
        let record = session::Record {
            refresh_hash: refresh.hash,
            expires_at_ms: now + millis(self.inner.settings.refresh_ttl),
            created_at_ms: now,
        };
        let mut writes = vec![Write::Put(session::record_key(user, &id), value(&record)?)];
        let sessions = self.inner.store.list(&session::prefix_of(user)).await?;
        let mut sessions = sessions.entries;
        // The ids say when they were made.
        sessions.sort_by(|one, other| other.key.cmp(&one.key));
        let surplus = sessions.split_off(
            sessions
                .len()
                .min(self.inner.settings.sessions_per_user_max - 1),
        );
        writes.extend(surplus.into_iter().map(|entry| Write::Delete(entry.key)));
        let transaction = Transaction {
            // A user that is being deleted, or whose password was changed meanwhile, gets no session.
            preconditions: vec![(at.key.clone(), Precondition::At(at.revision))],
            writes,
        };
        match self.commit(transaction).await? {
            true => Ok(tokens),
            false => Err(Error::Conflict),
        }
    }

    /// Gives the next token of a session. A refresh token that was used already ends its session.
    ///
    /// # Errors
    /// [`Error::SessionEnded`], [`Error::NoSigningKey`], [`Error::Store`].
    pub async fn refresh(&self, refresh_token: &Secret) -> Result<Tokens, Error> {
        let sent = RefreshToken::read(refresh_token.expose()).ok_or(Error::SessionEnded)?;
        let key = session::record_key(&sent.user, &sent.session);
        let entry = self.read(&key).await?.ok_or(Error::SessionEnded)?;
        let record: session::Record = parse(&entry)?;
        if !bool::from(sent.hash.as_bytes().ct_eq(record.refresh_hash.as_bytes())) {
            // Two have it: the user, and someone else.
            tracing::warn!(user = %sent.user, session = sent.session, "a refresh token was used a second time, so its session is ended");
            self.end_session(&sent.user, &sent.session).await?;
            return Err(Error::SessionEnded);
        }
        let now = now_ms();
        if now >= record.expires_at_ms {
            return Err(Error::SessionEnded);
        }
        let next = secrets::new_refresh_token(&sent.user, &sent.session);
        let tokens = self.tokens(&sent.user, &sent.session, next.secret).await?;
        let record = session::Record {
            refresh_hash: next.hash,
            expires_at_ms: now + millis(self.inner.settings.refresh_ttl),
            ..record
        };
        let transaction = Transaction {
            preconditions: vec![(key.clone(), Precondition::At(entry.revision))],
            writes: vec![Write::Put(key, value(&record)?)],
        };
        match self.commit(transaction).await? {
            true => Ok(tokens),
            false => Err(Error::SessionEnded),
        }
    }

    /// Ends the session of the caller's token.
    ///
    /// # Errors
    /// [`Error::NoSession`], [`Error::Store`].
    pub async fn logout(&self, caller: &Caller) -> Result<(), Error> {
        let (Some(user), Some(session)) = (caller.user_id(), caller.session()) else {
            return Err(Error::NoSession);
        };
        self.end_session(user, session).await
    }

    async fn end_session(&self, user: &UserId, id: &str) -> Result<(), Error> {
        let transaction = Transaction {
            preconditions: Vec::new(),
            writes: vec![Write::Delete(session::record_key(user, id))],
        };
        self.commit(transaction).await?;
        Ok(())
    }

    async fn tokens(
        &self,
        user: &UserId,
        session: &str,
        refresh_token: Secret,
    ) -> Result<Tokens, Error> {
        let (number, key) = self.signing_key().await?;
        let expires_in = self.inner.settings.token_ttl;
        let iat = now_ms() / 1000;
        let claims = Claims {
            iss: self.inner.cluster_id.to_string(),
            sub: user.clone(),
            sid: session.to_owned(),
            iat,
            exp: iat + expires_in.as_secs().max(1),
            jti: secrets::new_id(),
        };
        let token = jwt::sign(&claims, number, &key);
        let token = token
            .map_err(|error| Error::Internal(format!("a token can not be written: {error}")))?;
        Ok(Tokens {
            token: Secret::new(token),
            expires_in,
            refresh_token,
            user: user.clone(),
        })
    }

    fn check_slowed(&self, subjects: &Subjects) -> Result<(), Error> {
        let (known, now) = (self.known(), now_ms());
        let records = subjects
            .0
            .iter()
            .filter_map(|subject| known.logins.get(subject));
        let waits = records.filter_map(|record| slowed_for(&self.inner.settings, record, now));
        match waits.max() {
            Some(retry_after) => Err(Error::Slowed { retry_after }),
            None => Ok(()),
        }
    }

    async fn note_failure(&self, subjects: &Subjects) -> Result<(), Error> {
        for subject in &subjects.0 {
            if self.has_room_for(subject) {
                self.note_failure_of(subject).await?;
            }
        }
        Ok(())
    }

    /// Whether failures of a subject are remembered. Where an attack has filled the store's share, those of addresses are, and
    /// those of accounts that are known already.
    fn has_room_for(&self, subject: &str) -> bool {
        let known = self.known();
        login::is_address(subject)
            || known.logins.contains_key(subject)
            || known.logins.len() < self.inner.settings.login_subjects_max
    }

    async fn note_failure_of(&self, subject: &str) -> Result<(), Error> {
        let key = login::record_key(subject);
        for _ in 0..TRIES {
            let (now, entry) = (now_ms(), self.read(&key).await?);
            let before = match &entry {
                Some(entry) => parse::<login::Record>(entry)?,
                None => login::Record::default(),
            };
            let failures = match is_forgotten(&self.inner.settings, &before, now) {
                true => 1,
                false => before.failures.saturating_add(1),
            };
            let record = login::Record {
                failures,
                last_at_ms: now,
            };
            let precondition = match &entry {
                Some(entry) => Precondition::At(entry.revision),
                None => Precondition::Absent,
            };
            let transaction = Transaction {
                preconditions: vec![(key.clone(), precondition)],
                writes: vec![Write::Put(key.clone(), value(&record)?)],
            };
            if self.commit(transaction).await? {
                return Ok(());
            }
        }
        Err(Error::Conflict)
    }

    /// A login that succeeds ends the slowing of its account, not that of its address.
    async fn forgive(&self, subject: &str) {
        if !self.known().logins.contains_key(subject) {
            return;
        }
        if let Err(error) = self
            .inner
            .store
            .delete(&login::record_key(subject), None)
            .await
        {
            tracing::debug!(%error, "failed logins are forgotten later");
        }
    }
}

/// How long the next login has to wait.
fn slowed_for(settings: &AuthSettings, record: &login::Record, now: Millis) -> Option<Duration> {
    if is_forgotten(settings, record, now) {
        return None;
    }
    let beyond = record.failures.checked_sub(settings.login_failures_max)?;
    let delay = settings
        .login_delay
        .saturating_mul(1_u32.checked_shl(beyond.min(31)).unwrap_or(u32::MAX));
    let until = record
        .last_at_ms
        .saturating_add(millis(delay.min(settings.login_delay_max)));
    until
        .checked_sub(now)
        .filter(|left| *left > 0)
        .map(Duration::from_millis)
}

/// Whether the failures are so long ago that they count no more.
pub(crate) fn is_forgotten(settings: &AuthSettings, record: &login::Record, now: Millis) -> bool {
    record
        .last_at_ms
        .saturating_add(millis(settings.login_memory))
        <= now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_starts_after_five_failures_and_doubles_to_a_minute() {
        let settings = AuthSettings::default();
        let wait = |failures, passed_ms: u64| {
            let record = login::Record {
                failures,
                last_at_ms: 1_000_000,
            };
            slowed_for(&settings, &record, 1_000_000 + passed_ms).map(|wait| wait.as_millis())
        };
        assert_eq!(wait(4, 0), None);
        assert_eq!(wait(5, 0), Some(1_000));
        assert_eq!(wait(5, 400), Some(600));
        assert_eq!(wait(5, 1_000), None);
        assert_eq!(wait(6, 0), Some(2_000));
        assert_eq!(wait(10, 0), Some(32_000));
        assert_eq!(wait(11, 0), Some(60_000));
        assert_eq!(wait(u32::MAX, 0), Some(60_000));
        assert_eq!(wait(u32::MAX, 15 * 60_000), None);
    }
}
