//! Functions of type `azurefunction`: Azure's functions with an HTTP trigger, called with a key.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use config::settings::{CloudSettings, HttpSettings};
use protocol::function::Provider;
use protocol::{Answered, Function, FunctionId, Space};
use reqwest::header::HeaderName;

use crate::cloud::check_size;
use crate::http::client::Credential;
use crate::http::{Answer, Authorize, BuildError, Outbound, Webhook};
use crate::{AnswerLimits, Error};

/// The header of a key: <https://learn.microsoft.com/azure/azure-functions/function-keys-how-to>.
const KEY: HeaderName = HeaderName::from_static("x-functions-key");

/// Bytes of a request, 100 MiB: <https://learn.microsoft.com/azure/azure-functions/functions-bindings-http-webhook-trigger#limits>.
const PAYLOAD_BYTES_MAX: usize = 100 * 1024 * 1024;

/// Makes what calls functions of Azure. Without a guard it calls any URL.
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
    Ok(Webhook::new(http, limits, guard)?.authorized(Arc::new(Keys), cloud))
}

/// Shows the key of the record.
#[derive(Debug)]
struct Keys;

#[async_trait]
impl Authorize for Keys {
    fn check(&self, payload: &Bytes) -> Result<(), Error> {
        check_size("Azure", payload.len(), PAYLOAD_BYTES_MAX)
    }

    async fn credential(&self, function: &Function) -> Result<Option<Credential>, Error> {
        let Provider::AzureFunction(provider) = &function.provider else {
            return Ok(None);
        };
        let key = provider.function_key.as_deref();
        key.map(|key| Credential::new(KEY, key)).transpose()
    }

    /// The host answers 401 without a body before the function sees a request; one by the function says something.
    fn refusal(&self, function: &Function, answer: &Answer) -> Option<Error> {
        if answer.status() != 401 || !answer.is_empty() {
            return None;
        }
        let Provider::AzureFunction(provider) = &function.provider else {
            return None;
        };
        let (url, key) = (&provider.url, &provider.function_key);
        let why = match key {
            Some(_) => "provider.functionKey is no key of it",
            None => "it asks for a key, and the record has no provider.functionKey",
        };
        Some(Error::NotTaken {
            why: format!("Azure, function {url}: status 401: {why}"),
            answered: Some(Answered {
                status: 401,
                said: String::new(),
                retry_after_ms: None,
            }),
        })
    }

    fn forget(&self, _space: &Space, _function_id: &FunctionId) {}
}

#[cfg(test)]
mod tests;
