//! An answer, whole: its shape when it is a success, and what it means when it is none.

use std::collections::BTreeMap;

use protocol::api::{Errors, InvokeError};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use serde_json::Value;

use super::Endpoint;
use crate::failure::{Exit, Failure};

/// As much of an answer that is none of Hearth's as helps to see whose it is.
const FOREIGN_CHARS_MAX: usize = 200;

/// The whole answer to a [`Call`](super::Call).
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(super) body: Vec<u8>,
    /// Method and URL of the request.
    pub(super) asked: String,
    /// The API that answered.
    pub(super) endpoint: Endpoint,
    /// Whether a token was sent.
    pub(super) has_token: bool,
}

impl Answer {
    /// The body as text; what is no UTF-8 is shown as U+FFFD.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Passes a success on and makes a failure of all else.
    ///
    /// # Errors
    /// When the status is not 2xx.
    pub(crate) fn accept(self) -> Result<Self, Failure> {
        if self.status.is_success() {
            Ok(self)
        } else {
            Err(self.failure())
        }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// When it has another shape, as from another version or another server.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| self.unreadable(&error))
    }

    /// Reads a member that lists records. They are read one by one later, so that one that this version does not know hides no other.
    ///
    /// # Errors
    /// As [`Answer::json`].
    pub(crate) fn list(&self, member: &'static str) -> Result<Vec<Value>, Failure> {
        let mut members: BTreeMap<String, Value> = self.json()?;
        let listed = members.remove(member);
        let listed = listed.ok_or_else(|| serde_json::Error::missing_field(member));
        listed
            .and_then(Vec::deserialize)
            .map_err(|error| self.unreadable(&error))
    }

    fn unreadable(&self, error: &serde_json::Error) -> Failure {
        let Self {
            asked, endpoint, ..
        } = self;
        Failure::new(Exit::Failed, format!("cannot read the answer to {asked}: {error}")).hint(format!(
            "is this Hearth's {}, in a version like this command's? --json shows the answer as it is",
            endpoint.name()
        ))
    }

    /// What an answer that is no success means.
    pub(crate) fn failure(&self) -> Failure {
        let exit = match self.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Unauthorised,
            _ => Exit::Failed,
        };
        let mut failure = match self.api_message() {
            Some(message) => Failure::new(exit, message),
            None => self.foreign(exit),
        };
        if serde_json::from_slice::<serde::de::IgnoredAny>(&self.body).is_ok() {
            failure.body = Some(self.text());
        }
        if self.status == StatusCode::UNAUTHORIZED && !self.has_token {
            failure = failure.hint(
                "`hearth login EMAIL` logs in; --token-file FILE or HEARTH_TOKEN_FILE names a file with an API key or the node's admin token",
            );
        }
        if let Some(seconds) = self
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
        {
            failure = failure.hint(format!("the node asks to try again after {seconds} s"));
        }
        failure
    }

    /// The message of either API's error body.
    fn api_message(&self) -> Option<String> {
        /// An error of the functions API that names no more, and what a node that is not ready says.
        #[derive(Deserialize)]
        struct Short {
            #[serde(alias = "why")]
            error: String,
        }
        if let Ok(Errors { errors }) = serde_json::from_slice(&self.body) {
            return Some(
                errors
                    .into_iter()
                    .map(|error| error.message)
                    .collect::<Vec<_>>()
                    .join("; "),
            );
        }
        if let Ok(InvokeError {
            error,
            code,
            component,
            node,
            invocation,
        }) = serde_json::from_slice(&self.body)
        {
            return Some(format!(
                "{error} (code {code}, component {component}, node {node}, invocation {invocation})"
            ));
        }
        serde_json::from_slice(&self.body)
            .ok()
            .map(|Short { error }| error)
    }

    fn foreign(&self, exit: Exit) -> Failure {
        let Self {
            asked,
            status,
            endpoint,
            ..
        } = self;
        let text: String = self.text().trim().chars().take(FOREIGN_CHARS_MAX).collect();
        let separator = if text.is_empty() { "" } else { ": " };
        Failure::new(exit, format!("{asked} answered {status}{separator}{text}")).hint(format!(
            "is this Hearth's {}? {} names it",
            endpoint.name(),
            endpoint.option()
        ))
    }
}
