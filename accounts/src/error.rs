//! Why an operation on accounts failed, and why a credential is refused.

use std::time::Duration;

use config::store;
use protocol::{Component, Effect, ErrorCode, Failure};

use crate::clock::millis;

/// Why a credential is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It is neither a token of this cluster nor a key.
    #[error("the credential is not valid here: log in, or make a new key")]
    Invalid,
    /// Its time is over.
    #[error("the token or key has expired: refresh it, or log in")]
    Expired,
    /// Its session or key is no more, or its user.
    #[error("the session or key has ended: log in, or make a new key")]
    Ended,
    /// It is too new for this node, and the config store does not answer.
    #[error("the credential is new to this node and the config store can not be reached")]
    Unavailable,
    /// It is too new for this node, and too many of that kind are being asked about.
    #[error("too many new credentials at once")]
    Busy,
}

impl Denied {
    /// Its name in metrics.
    fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Ended => "ended",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
        }
    }

    /// The same, counted.
    pub(crate) fn counted(self) -> Self {
        metrics::counter!("hearth_credentials_denied_total", "reason" => self.label()).increment(1);
        self
    }

    /// The code of the refusal.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Invalid | Self::Expired | Self::Ended => ErrorCode::Unauthorized,
            Self::Unavailable => ErrorCode::StoreUnavailable,
            Self::Busy => ErrorCode::Overloaded,
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let component = match denied {
            Denied::Unavailable => Component::Store,
            _ => Component::Gateway,
        };
        Self::new(
            denied.code(),
            component,
            Effect::Refused,
            denied.to_string(),
        )
    }
}

/// Why an operation on accounts failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field has a value that can not be.
    #[error("{field} is {value}, expected {expected}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// Its value, as it may be shown; never a password.
        value: String,
        /// What a right value is.
        expected: &'static str,
    },
    /// There is an account with this email.
    #[error("there is an account with the email {email:?} already")]
    Taken {
        /// The email.
        email: String,
    },
    /// Only admins make accounts here.
    #[error("accounts are made by an admin here (auth.sign_up)")]
    SignUpClosed,
    /// No account has this email and password; which of the two is wrong is not told.
    #[error("email or password is wrong")]
    WrongCredentials,
    /// Too many logins of the account or address failed.
    #[error("too many failed logins: try again in {} s", retry_after.as_secs_f64().ceil())]
    Slowed {
        /// When the next one is looked at.
        retry_after: Duration,
    },
    /// Too many passwords wait to be hashed.
    #[error("too many logins and sign-ups at once (auth.hashes_waiting_max)")]
    Busy,
    /// The refresh token is unknown, used already, or its session has ended.
    #[error("the session has ended: log in again")]
    SessionEnded,
    /// The one-time token is wrong, or an admin was made already.
    #[error("the one-time token is wrong or was used already")]
    OneTimeToken,
    /// No such user.
    #[error("there is no user {id:?}")]
    NoUser {
        /// The id as it was given.
        id: String,
    },
    /// No such key of that user.
    #[error("there is no key {id:?}")]
    NoKey {
        /// The id as it was given.
        id: String,
    },
    /// The caller has no account of its own, or came with a key, which may do nothing to accounts.
    #[error("this needs the token of a user: log in")]
    NoSession,
    /// The caller may not do that.
    #[error("{what} needs the role admin")]
    NotAdmin {
        /// What was tried.
        what: &'static str,
    },
    /// The user is being deleted.
    #[error("the user is being deleted")]
    Deleting,
    /// A quota is reached.
    #[error("the user has {max} {what} already, which is the most ({setting})")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there may be.
        max: usize,
        /// The setting that says so.
        setting: &'static str,
    },
    /// Others changed the same record all the time.
    #[error("the record is being changed by others: try again")]
    Conflict,
    /// There is no key to sign with yet.
    #[error("this node can not sign tokens yet: it did not reach the config store")]
    NoSigningKey,
    /// The key to sign with can not be opened.
    #[error(transparent)]
    Vault(#[from] vault::Error),
    /// The config store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A bug, or a broken record; the log says more.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Field { .. } => ErrorCode::InvalidRequest,
            Self::Taken { .. } | Self::Conflict | Self::Deleting => ErrorCode::Conflict,
            Self::SignUpClosed | Self::NoSession | Self::NotAdmin { .. } | Self::OneTimeToken => {
                ErrorCode::Forbidden
            }
            Self::WrongCredentials | Self::SessionEnded => ErrorCode::Unauthorized,
            Self::Slowed { .. } => ErrorCode::RateLimited,
            Self::TooMany { .. } => ErrorCode::Conflict,
            Self::Busy => ErrorCode::Overloaded,
            Self::NoUser { .. } | Self::NoKey { .. } => ErrorCode::NotFound,
            Self::NoSigningKey => ErrorCode::StoreUnavailable,
            Self::Store(error) => error.code(),
            Self::Vault(error) => error.code(),
            Self::Internal(_) => ErrorCode::Internal,
        }
    }

    /// Whether something may have been stored.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Store(error) => error.effect(),
            Self::Vault(error) => error.effect(),
            _ => Effect::Refused,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let component = match error {
            Error::Store(_) | Error::Vault(_) | Error::NoSigningKey => Component::Store,
            _ => Component::Gateway,
        };
        let failure = Self::new(error.code(), component, error.effect(), error.to_string());
        match error {
            Error::Slowed { retry_after } => failure.retry_after_ms(millis(*retry_after)),
            _ => failure,
        }
    }
}
