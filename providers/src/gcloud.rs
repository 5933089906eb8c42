//! Functions of type `gcloudfunction`: Google's functions, called with an ID token of a service account.
//!
//! The token is asked for with an assertion that is signed with the account's key, and kept until it expires:
//! <https://cloud.google.com/functions/docs/securing/authenticating#exchanging_a_self-signed_jwt_for_a_google-signed_id_token>.

mod tokens;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use config::settings::{CloudSettings, HttpSettings};
use protocol::function::Provider;
use protocol::{Answered, Function, FunctionId, Space};

use self::tokens::Tokens;
use crate::cloud::check_size;
use crate::http::client::Credential;
use crate::http::{Answer, Authorize, BuildError, Outbound, Webhook};
use crate::{AnswerLimits, Error};

/// Bytes of a request, 32 MiB; functions of the first generation take 10: <https://cloud.google.com/functions/quotas#resource_limits>.
const PAYLOAD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Makes what calls functions of Google Cloud. Without a guard it calls any URL.
///
/// # Errors
/// As [`Webhook::new`].
///
/// # Panics
/// When the process has not installed its rustls provider.
pub fn functions(
    (http, cloud): (&HttpSettings, &CloudSettings),
    limits: AnswerLimits,
    guard: Option<Arc<Outbound>>,
) -> Result<Webhook, BuildError> {
    let tokens = Tokens::new(http, guard.clone())?;
    Ok(Webhook::new(http, limits, guard)?.authorized(Arc::new(tokens), cloud))
}

#[async_trait]
impl Authorize for Tokens {
    fn check(&self, payload: &Bytes) -> Result<(), Error> {
        check_size("Google Cloud", payload.len(), PAYLOAD_BYTES_MAX)
    }

    async fn credential(&self, function: &Function) -> Result<Option<Credential>, Error> {
        let Provider::GcloudFunction(provider) = &function.provider else {
            return Ok(None);
        };
        self.token(function, provider).await.map(Some)
    }

    /// What stands before a function says in `www-authenticate` that it did not let a request through (RFC 6750, section 3).
    fn refusal(&self, function: &Function, answer: &Answer) -> Option<Error> {
        let challenge = answer.challenge()?;
        let status = answer.status();
        if !matches!(status, 401 | 403) || !challenge.starts_with("Bearer") {
            return None;
        }
        let Provider::GcloudFunction(provider) = &function.provider else {
            return None;
        };
        self.forget(&function.space, &function.function_id);
        let (url, account) = (&provider.url, provider.service_account_key.client_email());
        Some(Error::NotTaken {
            why: format!("Google Cloud, function {url} as {account}: status {status}: {challenge}"),
            answered: Some(Answered {
                status,
                said: challenge.to_owned(),
                retry_after_ms: None,
            }),
        })
    }

    fn forget(&self, space: &Space, function_id: &FunctionId) {
        Tokens::forget(self, space, function_id);
    }
}

#[cfg(test)]
mod tests;
