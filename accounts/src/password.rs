//! Passwords: argon2id, a few at a time, and nobody waits without a bound.

use std::sync::Arc;

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash};
use config::settings::Secret;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Error;

/// The fewest characters of a password.
const CHARACTERS_MIN: usize = 8;

/// The most bytes of a password: a longer one costs more to hash than a login is worth.
const BYTES_MAX: usize = 1024;

/// What is looked at where there is no account, so that it takes as long.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$mP72VNg6oXWZWey8qbAXEg$/KY5rXrTdTQ4xdXPLHUyvHNJeHDHtZv0sNsW6OclSRk";

/// Hashes passwords.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    /// Those that are hashed.
    hashing: Arc<Semaphore>,
    /// Those that are hashed or wait for it.
    admitted: Arc<Semaphore>,
}

/// The turn of one login or sign-up.
#[derive(Debug)]
pub(crate) struct Turn {
    _hashing: OwnedSemaphorePermit,
    _admitted: OwnedSemaphorePermit,
}

impl Passwords {
    /// `at_once` are hashed, `waiting` more may wait.
    pub(crate) fn new(at_once: usize, waiting: usize) -> Self {
        let max = Semaphore::MAX_PERMITS;
        Self {
            hashing: Arc::new(Semaphore::new(at_once.min(max))),
            admitted: Arc::new(Semaphore::new(at_once.saturating_add(waiting).min(max))),
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many wait already.
    pub(crate) async fn turn(&self) -> Result<Turn, Error> {
        let admitted = Arc::clone(&self.admitted);
        let admitted = admitted.try_acquire_owned().map_err(|_| Error::Busy)?;
        let hashing = Arc::clone(&self.hashing).acquire_owned().await;
        Ok(Turn {
            _hashing: hashing.map_err(|_| Error::Busy)?,
            _admitted: admitted,
        })
    }
}

impl Turn {
    /// The hash of a new password, as a PHC string.
    pub(crate) async fn hash(&self, password: &Secret) -> Result<String, Error> {
        let password = password.clone();
        in_background(move || hash(password.expose().as_bytes())).await
    }

    /// Whether the password is the hashed one; without a hash it takes as long, and is not.
    pub(crate) async fn is_right(
        &self,
        password: &Secret,
        phc: Option<&str>,
    ) -> Result<bool, Error> {
        let is_somebody = phc.is_some();
        let phc = phc.unwrap_or(NOBODY).to_owned();
        let password = password.clone();
        let is_right = in_background(move || {
            let phc = PasswordHash::new(&phc).map_err(|error| {
                Error::Internal(format!("a stored password hash can not be read: {error}"))
            })?;
            Ok(Argon2::default()
                .verify_password(password.expose().as_bytes(), &phc)
                .is_ok())
        });
        Ok(is_right.await? && is_somebody)
    }
}

/// Whether a new password can be one.
pub(crate) fn check_new(password: &Secret) -> Result<(), Error> {
    let text = password.expose();
    match text.chars().count() >= CHARACTERS_MIN && text.len() <= BYTES_MAX {
        true => Ok(()),
        false => Err(Error::Field {
            field: "password",
            value: format!("{} characters long", text.chars().count()),
            expected: "8 characters or more, and at most 1024 bytes",
        }),
    }
}

/// Whether a password is so long that none can be.
pub(crate) fn is_too_long(password: &Secret) -> bool {
    password.expose().len() > BYTES_MAX
}

fn hash(password: &[u8]) -> Result<String, Error> {
    let salt: [u8; 16] = rand::random();
    Argon2::default()
        .hash_password_with_salt(password, &salt)
        .map(|hash| hash.to_string())
        .map_err(|error| Error::Internal(format!("a password can not be hashed: {error}")))
}

async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Internal(format!("hashing a password was cut off: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_is_right() {
        let passwords = Passwords::new(1, 1);
        let turn = passwords.turn().await.unwrap();
        let secret = Secret::new("password123");
        let hash = turn.hash(&secret).await.unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(turn.is_right(&secret, Some(&hash)).await.unwrap());
        assert!(
            !turn
                .is_right(&Secret::new("password124"), Some(&hash))
                .await
                .unwrap()
        );
        assert!(!turn.is_right(&secret, None).await.unwrap());
        assert_ne!(hash, turn.hash(&secret).await.unwrap(), "a salt of its own");
    }

    #[tokio::test]
    async fn those_beyond_the_bound_are_turned_away() {
        let passwords = Passwords::new(1, 1);
        let first = passwords.turn().await.unwrap();
        let waiting = passwords.turn();
        tokio::pin!(waiting);
        assert!(futures_now(&mut waiting).await.is_none());
        assert!(matches!(passwords.turn().await, Err(Error::Busy)));
        drop(first);
        assert!(waiting.await.is_ok());
    }

    async fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = tokio::task::yield_now() => None,
        }
    }

    /// What is looked at for nobody costs what a user's password costs.
    #[test]
    fn nobody_has_the_parameters_of_everybody() {
        let parameters = |phc: &str| phc.split('$').take(4).collect::<Vec<_>>().join("$");
        assert_eq!(
            parameters(NOBODY),
            parameters(&hash(b"password123").unwrap())
        );
    }

    #[test]
    fn new_passwords_have_eight_characters() {
        for right in ["password123", "12345678", "üüüüüüüü"] {
            assert!(check_new(&Secret::new(right)).is_ok(), "{right}");
        }
        for wrong in ["", "1234567", "üüüüüüü", &"x".repeat(1025)] {
            let error = check_new(&Secret::new(wrong)).unwrap_err().to_string();
            assert!(!error.contains("1234567"), "{error}");
        }
    }
}
