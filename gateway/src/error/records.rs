//! The statuses of records that were not read or changed.

use actors::catalog::{self, VersionError};
use actors::executions;
use http::StatusCode;
use protocol::{Component, Effect, ErrorCode, Failure};

use super::Error;

impl From<executions::Error> for Error {
    fn from(error: executions::Error) -> Self {
        match error {
            // As draft-ietf-httpapi-idempotency-key-header has it.
            executions::Error::KeyReused(_) => Self::refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                error.code(),
                error.to_string(),
            ),
            executions::Error::Store(error) => of_store(&error),
            _ => Failure::from(&error).into(),
        }
    }
}

fn of_store(error: &config::store::Error) -> Error {
    let mut failure = Failure::from(error);
    if failure.effect == Effect::Interrupted {
        failure
            .message
            .push_str("; the change may have been stored");
    }
    failure.into()
}

/// The status of a record that was not read or changed; where Event Gateway has one of its own, that.
impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        let message = error.to_string();
        match error {
            // The last versions of Event Gateway told what exists by the status.
            catalog::Error::SubscriptionExists(id) if id.is_typed() => {
                Self::refused(StatusCode::CONFLICT, ErrorCode::Conflict, message)
            }
            catalog::Error::EventTypeExists(_)
            | catalog::Error::EventTypeNotFound(_)
            | catalog::Error::CorsExists(_)
            | catalog::Error::CorsNotFound(_)
            | catalog::Error::ScheduleExists(_)
            | catalog::Error::ScheduleNotFound(_)
            | catalog::Error::TooManySchedules { .. }
            | catalog::Error::TooManyFunctions { .. }
            | catalog::Error::SecretNotFound(_)
            | catalog::Error::UnknownSecret { .. }
            | catalog::Error::SecretInUse { .. }
            | catalog::Error::TooManySecrets { .. }
            | catalog::Error::SecretSize { .. }
            | catalog::Error::NotFound(_)
            | catalog::Error::UnknownDestination { .. }
            | catalog::Error::SubscriptionNotFound(_)
            | catalog::Error::Contended(_)
            | catalog::Error::ProcessesOff => {
                Failure::new(error.code(), Component::Gateway, Effect::Refused, message).into()
            }
            catalog::Error::Exists(_)
            | catalog::Error::InUse
            | catalog::Error::IsAuthorizer { .. }
            | catalog::Error::IsSubscriptionAuthorizer { .. }
            | catalog::Error::IsScheduled(_)
            | catalog::Error::ScheduleLimit(_)
            | catalog::Error::EventTypeInUse
            | catalog::Error::CorsIdentity(_)
            | catalog::Error::CorsPath(_)
            | catalog::Error::UnknownAuthorizer
            | catalog::Error::UnknownSubscriptionAuthorizer(_)
            | catalog::Error::UnknownEventType(_)
            | catalog::Error::UnknownFunction(_)
            | catalog::Error::SubscriptionExists(_)
            | catalog::Error::Identity(_)
            | catalog::Error::Path(_) => {
                Self::refused(StatusCode::BAD_REQUEST, error.code(), message)
            }
            catalog::Error::Changed(_)
            | catalog::Error::SubscriptionChanged(_)
            | catalog::Error::CorsChanged(_)
            | catalog::Error::ScheduleChanged(_)
            | catalog::Error::EventTypeChanged(_) => {
                Self::refused(StatusCode::PRECONDITION_FAILED, error.code(), message)
            }
            catalog::Error::Version(VersionError::AliasChanged { .. }) => {
                Self::refused(StatusCode::PRECONDITION_FAILED, error.code(), message)
            }
            catalog::Error::Version(_) => {
                Failure::new(error.code(), Component::Gateway, Effect::Refused, message).into()
            }
            catalog::Error::Image(failure) => {
                let is_missing = failure.code == ErrorCode::ImageNotFound;
                let status = if is_missing {
                    StatusCode::NOT_FOUND
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                Self::new(status, Failure { message, ..failure })
            }
            catalog::Error::Store(error) | catalog::Error::Vault(vault::Error::Store(error)) => {
                of_store(&error)
            }
            catalog::Error::Vault(error) => Failure::from(&error).into(),
        }
    }
}
